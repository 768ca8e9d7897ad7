"""hubctl show: everything worth knowing before and after installing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out

if TYPE_CHECKING:
    from registry import Installed, wire

RIGHTS = (
    ("allow_no_credit", "use without credit"),
    ("allow_derivatives", "share merges"),
    ("allow_different_license", "other permissions on merges"),
)


def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
    local: Annotated[bool, typer.Option("--local", "-l", help="Only what is recorded here")] = False,
) -> None:
    """One model: files, trigger words, recommended settings, rights.

    Example: hubctl show 4201
    """
    from hubctl import install
    from hubctl.errors import HubError

    settings = _app.settings()
    with _app.open_registry(read_only=True) as registry:
        here = registry.find(ref)
        if local or settings.offline:
            if not here:
                raise install.offline_refusal(ref)
            _print(here[0].model, here[0].version, here[0])
            return
        try:
            with _app.open_hub() as hub:
                found = install.resolve(ref, hub)
                installed = registry.get(found.version.id, source=hub.name)
        except HubError as error:
            if not here:
                raise
            _out.warn(f"{error.message}: showing what was recorded when it was installed")
            _print(here[0].model, here[0].version, here[0])
            return
        _print(found.model, found.version, installed)


def recommended(model: wire.Model, version: wire.ModelVersion, installed: Installed | None) -> dict[str, Any]:
    """Recommended settings: the recorded ones of an installed version, else worked out from what the hub says now."""
    from hubctl import install, recommend

    if installed is not None and installed.settings:
        return dict(installed.settings)
    stem = Path(version.files[0].name).stem if version.files else None
    settled = recommend.settle(
        version, install.examples_of(version.images), None, None, model_description=model.description, file_stem=stem
    )
    return settled.to_json()


def settings_line(settings: Any) -> str:
    """`DPM++ 2M Karras, 20 steps, CFG 7 (5–8), 512×768`: what to set, shortest form."""
    from hubctl.parameters import sampler_label, schedule_label

    if not settings:
        return ""

    def value(name: str) -> Any:
        entry = settings.get(name)
        return entry.get("value") if isinstance(entry, dict) else entry

    parts = []
    if sampler := value("sampler"):
        schedule = value("schedule")
        parts.append(sampler_label(sampler) + (f" {schedule_label(schedule)}" if schedule else ""))
    for name, form in (
        ("steps", "{} steps"),
        ("cfg_scale", "CFG {}"),
        ("clip_skip", "clip skip {}"),
        ("size", "{}"),
        ("weight", "weight {}"),
    ):
        shown = value(name)
        if shown is not None:
            text = "×".join(map(str, shown)) if isinstance(shown, list | tuple) else _number(shown)
            parts.append(form.format(text))
    return ", ".join(parts)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def use_line(installed: Installed) -> str:
    """What to paste into a prompt: `<lora:stem:0.8> word, word`."""
    from hubctl import trigger

    file = installed.files[0]
    kind = (installed.model.type or "").lower()
    words = list(installed.trigger_words)
    if kind in {"lora", "locon", "dora"}:
        return trigger.paste_line(Path(file.name).stem, installed.weight, words)
    if kind == "textualinversion":
        return Path(file.name).stem
    return ", ".join(words)


def _print(model: wire.Model, version: wire.ModelVersion, installed: Installed | None) -> None:
    from hubctl import trigger
    from hubctl.text import html_to_text

    words = list(installed.trigger_words) if installed else [w.text for w in trigger.words(version.trained_words)]
    settings = recommended(model, version, installed)
    if _flags.CURRENT.json:
        _out.document(
            "show",
            {
                "model": {**model.dump(), "modelVersions": [v.id for v in model.model_versions]},
                "version": version.dump(),
                "trigger_words": words,
                "recommended": settings,
                "description": html_to_text(model.description or ""),
                "installed": installed is not None,
                "files_here": [str(file.path) for file in installed.files] if installed else [],
                "notes": installed.notes if installed else None,
                "pinned": installed.pinned if installed else False,
            },
        )
        return
    stats = model.stats
    _out.facts(
        [
            (model.type or "model", f"{model.name}  ({model.id})"),
            (
                "version",
                f"{version.name}  ({version.id})" + (f", {version.published_at[:10]}" if version.published_at else ""),
            ),
            ("base model", version.base_model),
            ("creator", model.creator.username if model.creator else None),
            ("tags", ", ".join(model.tag_names[:12])),
            ("downloads", _out.number(stats.download_count) if stats and stats.download_count is not None else None),
            ("state", (model.mode or "").lower()),
            ("trigger words", ", ".join(words)),
            ("use", use_line(installed) if installed else None),
            ("settings", settings_line(settings)),
            ("rights", _rights(model)),
            ("notes", installed.notes if installed else None),
        ]
    )
    _out.line()
    here = {file.file_id: file for file in installed.files} if installed else {}
    _out.table(
        [("file id", "right"), "file", "kind", "format", ("size", "right"), "sha256", "here"],
        [
            (
                file.id, file.name, file.type,
                " ".join(filter(None, (file.metadata.format, file.metadata.fp, file.metadata.size))) if file.metadata else "",
                _out.size(file.size_bytes), (file.sha256 or "–")[:10], "✓" if file.id in here else "",
            )
            for file in version.files
        ],
    )  # fmt: skip
    others = [v for v in model.model_versions if v.id != version.id]
    if others:
        _out.line()
        _out.table(
            [("version id", "right"), "other versions", "base model", "published"],
            [(v.id, v.name, v.base_model, (v.published_at or "")[:10]) for v in others[:8]],
        )
    _describe(model, version)
    for file in here.values():
        _out.say(f"here: {file.path}")
    if not installed:
        _out.say(
            f"\nInstall it with `hubctl install {model.id}@{version.id}`, see examples with `hubctl images {model.id}`"
        )


def _rights(model: wire.Model) -> str | None:
    uses = model.commercial_uses - {"None"}
    said = [text for name, text in RIGHTS if getattr(model, name)]
    denied = [text for name, text in RIGHTS if getattr(model, name) is False]
    parts = []
    if model.allow_commercial_use is not None:
        parts.append("commercial: " + (", ".join(sorted(uses)) if uses else "no"))
    if said:
        parts.append("may " + ", ".join(said))
    if denied:
        parts.append("may not " + ", ".join(denied))
    return "; ".join(parts) or None


def _describe(model: wire.Model, version: wire.ModelVersion) -> None:
    from hubctl.text import html_to_text

    text = html_to_text(model.description or "").strip()
    about = html_to_text(version.description or "").strip()
    for title, body in (("", text), ("About this version: ", about)):
        if body:
            lines = body.splitlines()
            limit = None if _flags.CURRENT.verbose else 12
            _out.line()
            for index, each in enumerate(lines[:limit]):
                _out.line((title if index == 0 else "") + each)
            if limit and len(lines) > limit:
                _out.say(f"… {_out.plural(len(lines) - limit, 'more line')} with -v")
