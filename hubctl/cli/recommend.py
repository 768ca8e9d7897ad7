"""hubctl recommend: recommended settings, each with its source and the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hubctl.cli import _app, _flags, _out, _page

if TYPE_CHECKING:
    from hubctl.cli.show import Page


def recommend(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
) -> None:
    """Recommended settings of a model: value, range, how sure we are, who says so and where.

    What its example images agree on, joined with what its creator writes. Your own weight wins.

    Example: hubctl recommend 4201
    """
    page = _page_of(ref)
    if _flags.CURRENT.json:
        _out.document(
            "recommend",
            {
                "model_id": page.model.id,
                "version_id": page.version.id,
                "settings": page.settings,
                "usage": page.usage.to_json(),
                "examples": {"images": page.examples[0], "with_parameters": page.examples[1]},
            },
        )
        return
    if _flags.CURRENT.quiet:
        _out.line(page.usage.prompt or page.usage.negative)
        return
    _print(page)


def _page_of(ref: str) -> Page:
    from hubctl import install
    from hubctl.cli.show import Page

    settings = _app.settings()
    with _app.open_registry(read_only=True) as registry:
        here = _app.here(registry, ref)
        if here is not None:
            return Page.of_installed(here, registry)
        if settings.offline:
            raise install.offline_refusal(ref)
        with _app.open_hub() as hub:
            found = install.resolve(ref, hub)
            images = install.example_images(hub, found.version)
            version = found.version.model_copy(update={"images": images}) if images else found.version
            return Page.of(found.model, version, None, registry, source=hub.name)


def _print(page: Page) -> None:
    from hubctl.cli.show import print_settings, print_why, to_paste

    _page.heading(f"{page.model.name} · {page.version.name}")
    to_paste(page)
    if not page.settings:
        _out.say("nobody says: neither its creator nor its example images")
        return
    print_settings(page.settings)
    print_why(page.settings)
