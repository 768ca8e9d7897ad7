"""hubctl show: everything worth knowing before and after installing, with what to paste on top."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _app, _flags, _out, _page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubctl.trigger import TriggerWord, Usage
    from registry import Installed, Registry, wire

ABOUT_LINES = 20  # of a description without -v
VERSIONS = 8
COMMERCIAL = {
    "Image": "sell images made with it",
    "RentCivit": "offer it on Civitai",
    "Rent": "offer it on other services",
    "Sell": "sell the model",
}
RIGHTS = (
    ("allow_no_credit", "use it without credit"),
    ("allow_derivatives", "share merges"),
    ("allow_different_license", "give merges other terms"),
)


def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Id, MODEL@VERSION, URL, AIR, hash or name")],
    local: Annotated[bool, typer.Option("--local", "-l", help="Only what is recorded here")] = False,
) -> None:
    """One model: what to paste, recommended settings, files, rights, description. -v shows everything.

    Example: hubctl show 4201
    """
    from hubctl import install
    from hubctl.errors import HubError, NotFound
    from hubctl.hubs import source_of

    settings = _app.settings()
    with _app.open_registry(read_only=True) as registry:
        if local or settings.offline:
            _print(Page.of_installed(_app.surely_here(registry, ref), registry))
            return
        try:
            with _app.open_hub() as hub:
                found = install.resolve(ref, hub)
                version = with_examples(found.version, hub)
                source = source_of(found.version, hub)
                installed = registry.get(found.version.id, source=source)
                page = Page.of(found.model, version, installed, registry, source=source)
        except (HubError, NotFound) as error:  # no answer, or the page is gone
            here = _app.here(registry, ref)
            if here is None:
                raise
            _out.warn(f"{error.message}: showing what was recorded when it was installed")
            page = Page.of_installed(here, registry)
        _print(page)


def with_examples(version: wire.ModelVersion, hub: Any) -> wire.ModelVersion:
    """The version with example images that say how they were made; the gallery is asked when its own do not."""
    from hubctl import install

    if any(image.meta for image in version.images):
        return version
    images = install.example_images(hub, version)
    return version.model_copy(update={"images": images}) if images else version


# --- what there is to show --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """One version of a model, and what is known of it here."""

    model: wire.Model
    version: wire.ModelVersion
    installed: Installed | None
    settings: dict[str, Any]
    words: tuple[TriggerWord, ...]
    usage: Usage
    here: tuple[Installed, ...] = ()  # every installed version of the model
    examples: tuple[int, int] = (0, 0)  # images, and those that say how they were made
    source: str = "civitai"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: wire.Model,
        version: wire.ModelVersion,
        installed: Installed | None,
        registry: Registry | None = None,
        *,
        source: str = "civitai",
    ) -> Page:
        from hubctl import trigger

        facts = installed.files[0].facts if installed and installed.files else {}
        words = trigger.of_installed(installed) if installed else trigger.of(version, model_type=model.type)
        settings = recommended(model, version, installed)
        stem = Path(installed.files[0].name).stem if installed and installed.files else trigger.file_stem(version)
        weight = (settings.get("weight") or {}).get("value")
        negative = trigger.is_negative(model, version, facts)
        ids = registry.installed_version_ids(model.id, source=source) if registry else set()
        found = (registry.get(each, source=source) for each in sorted(ids, reverse=True)) if registry else ()
        return cls(
            model=model,
            version=version,
            installed=installed,
            settings=settings,
            words=words,
            usage=trigger.usage(model.type, stem, weight, words, negative=negative),
            here=tuple(each for each in found if each is not None),
            examples=(len(version.images), sum(1 for image in version.images if image.meta)),
            source=source,
            facts=facts,
        )

    @classmethod
    def of_installed(cls, item: Installed, registry: Registry) -> Page:
        images = registry.images(item.version.id, source=item.source)
        version = item.version.model_copy(update={"images": images}) if images else item.version
        return cls.of(item.model, version, item, registry, source=item.source)

    @property
    def update(self) -> wire.ModelVersion | None:
        """A newer version for the same base than the newest that is installed."""
        ids = {item.version.id for item in self.here}
        bases = {item.version.base_model for item in self.here}
        for version in self.model.model_versions:  # newest first
            if version.id in ids:
                return None
            if ids and version.base_model in bases:
                return version
        return None

    def to_json(self) -> dict[str, Any]:
        from hubctl.recommend import infotext_line
        from hubctl.text import html_to_text

        installed, update = self.installed, self.update
        return {
            "model": {**self.model.dump(), "modelVersions": [v.id for v in self.model.model_versions]},
            "version": self.version.dump(),
            "usage": {**self.usage.to_json(), "settings": infotext_line(self.settings)},
            "trigger_words": [word.text for word in self.words],
            "trigger_word_details": [word.to_json() for word in self.words],
            "recommended": self.settings,
            "rights": rights(self.model),
            "description": html_to_text(self.model.description),
            "about_version": html_to_text(self.version.description),
            "examples": {"images": self.examples[0], "with_parameters": self.examples[1]},
            "installed": installed is not None,
            "files_here": [str(file.path) for file in installed.files] if installed else [],
            "installed_versions": [
                {"version_id": i.version.id, "name": i.version.name, "files": [str(file.path) for file in i.files]}
                for i in self.here
            ],
            "update": {"version_id": update.id, "name": update.name} if update else None,
            "notes": installed.notes if installed else None,
            "pinned": installed.pinned if installed else False,
        }


def recommended(model: wire.Model, version: wire.ModelVersion, installed: Installed | None) -> dict[str, Any]:
    """Recommended settings from all that is known now; the user's own weight wins.

    What was recorded at the install speaks only where today's page and images say nothing.
    """
    from hubctl import install, recommend, trigger

    stem = Path(installed.files[0].name).stem if installed and installed.files else trigger.file_stem(version)
    user = {"weight": installed.own_weight} if installed and installed.own_weight is not None else None
    settled = recommend.settle(
        version,
        install.examples_of(version.images),
        installed.files[0].facts if installed and installed.files else None,
        user,
        model_description=model.description,
        file_stem=stem,
        model_type=model.type,
        model_name=model.name,
    ).to_json()
    recorded = dict(installed.settings) if installed else {}
    merged = {**{name: entry for name, entry in recorded.items() if isinstance(entry, dict)}, **settled}
    return {name: merged[name] for name in recommend.FIELDS if name in merged}


def settings_line(settings: Any) -> str:
    """`DPM++ 2M Karras, 20 steps, CFG 7, 512×768`: what to set, shortest form."""
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

    stem = Path(installed.files[0].name).stem if installed.files else None
    found = trigger.of_installed(installed)
    negative = trigger.is_negative(
        installed.model, installed.version, installed.files[0].facts if installed.files else {}
    )
    usage = trigger.usage(installed.model.type, stem, installed.weight, found, negative=negative)
    return f"{usage.negative} (in the negative prompt)" if usage.negative else usage.prompt


def rights(model: wire.Model) -> dict[str, list[str]]:
    """What the creator allows and forbids, in words; what is not said is in neither list."""
    may = [text for name, text in RIGHTS if getattr(model, name) is True]
    may_not = [text for name, text in RIGHTS if getattr(model, name) is False]
    if model.allow_commercial_use is not None:
        uses = model.commercial_uses
        if "Sell" in uses and len(uses) == 1:  # older answers: the widest includes the others
            uses = frozenset(COMMERCIAL)
        may = [text for name, text in COMMERCIAL.items() if name in uses] + may
        may_not = [text for name, text in COMMERCIAL.items() if name not in uses] + may_not
    return {"may": may, "may_not": may_not}


# --- showing it -------------------------------------------------------------------------------------------------------


def _print(page: Page) -> None:
    if _flags.CURRENT.json:
        _out.document("show", page.to_json())
    elif _flags.CURRENT.quiet:
        _out.line(f"{page.model.id}@{page.version.id}")
    else:
        _headline(page)
        to_paste(page)
        print_settings(page.settings)
        if _flags.CURRENT.verbose and page.settings:
            print_why(page.settings)
        _files(page)
        _others(page)
        _rights(page)
        _about(page)
        _next_steps(page)


def _headline(page: Page) -> None:
    model, version = page.model, page.version
    _page.heading(f"{model.name} · {version.name}" if version.name else model.name)
    stats = model.stats
    said = [
        f"{model.type or 'model'} for {version.base_model}"
        if version.base_model not in (None, "", "Other")
        else model.type or "model",
        f"by {model.creator.username}" if model.creator and model.creator.username else "",
        (version.published_at or version.created_at or "")[:10],
        f"{_out.number(stats.download_count)} downloads" if stats and stats.download_count is not None else "",
        f"{_out.number(stats.thumbs_up_count)} likes" if stats and stats.thumbs_up_count else "",
        f"{model.id}@{version.id}",
    ]
    _page.paragraph(" · ".join(part for part in said if part))
    states = []
    if model.mode:
        states.append(f"{model.mode.lower()} by the hub or its creator")
    if model.poi:
        states.append("depicts a real person")
    if version.usage_control not in (None, "Download"):
        states.append("not for download: the creator offers generation only")
    deadline = version.early_access_deadline or version.early_access_ends_at
    if version.availability == "EarlyAccess" or deadline:
        states.append(f"early access{f' until {deadline[:10]}' if deadline else ''}")
    if states:
        _page.paragraph(", ".join(states))
    if model.tag_names:
        _page.paragraph("tags: " + ", ".join(model.tag_names[: None if _flags.CURRENT.verbose else 12]))
    if page.update:
        _page.paragraph(f"update: {page.update.name} is newer than what is installed (`hubctl update {model.id}`)")


def to_paste(page: Page) -> None:
    """What goes into the prompts, each on a line of its own."""
    from hubctl.recommend import infotext_line

    usage = page.usage
    negative = (page.settings.get("negative_prompt") or {}).get("value")
    embeddings = (page.settings.get("negative_embeddings") or {}).get("value") or []
    guessed = page.words and page.words[0].source in {"header", "images"}
    rows: list[tuple[str, Any]] = []
    if usage.prompt:
        rows.append(("prompt", usage.prompt))
    limit = 20 if _flags.CURRENT.verbose else 4
    title = "or" if usage.prompt else "choose from"
    if not usage.prompt and usage.others:
        rows.append((title, ", ".join(usage.others)))
    else:
        rows += [(title, other) for other in usage.others[:limit]]
    if negative or embeddings or usage.negative:
        rows.append(("negative prompt", (usage.negative or negative or ", ".join(embeddings)).rstrip(" ,")))
    if negative and not all(each.casefold() in negative.casefold() for each in embeddings):
        rows.append(("with embeddings", ", ".join(embeddings)))
    if settings := infotext_line(page.settings):
        rows.append(("settings", settings))
    if not rows:
        return
    _page.section("To paste")
    _page.pairs(rows)
    if guessed:
        what = "the tags of its training pictures" if page.words[0].source == "header" else "its example prompts"
        _page.paragraph(f"the creator names no trigger words; these are from {what}", indent=2)
    counted = [f"{word.text} ({word.count})" for word in page.words if word.count]
    if counted and _flags.CURRENT.verbose:
        _page.paragraph(f"in training pictures: {', '.join(counted)}", indent=2)


def print_settings(settings: Mapping[str, Any]) -> None:
    """The recommended settings as a table."""
    rows = [
        setting_cells(name, entry, settings)
        for name, entry in settings.items()
        if isinstance(entry, dict) and "value" in entry and name not in SHOWN_ELSEWHERE
    ]
    if not rows:
        return
    _page.section("Recommended settings")
    _page.table(["setting", "value", "range", ("sure", "right"), "from"], rows)


MANY = 3  # settings with one and the same proof are told in one row


def print_why(settings: Mapping[str, Any]) -> None:
    """The proof of each setting: the creator's words, the count of images, what else is used."""
    _page.section("Why")
    proofs: dict[str, list[str]] = {}
    for name, entry in settings.items():
        if isinstance(entry, dict):
            proofs.setdefault("; ".join(dict.fromkeys(_proof(entry))), []).append(
                LABELS.get(name, name.replace("_", " "))
            )
    rows = [(name, proof) for proof, names in proofs.items() if len(names) < MANY for name in names]
    rows += [
        ("the rest" if rows else "all", f"{proof}: {', '.join(n)}") for proof, n in proofs.items() if len(n) >= MANY
    ]
    _page.pairs(rows, wrapped=True)


def _proof(entry: Mapping[str, Any]) -> list[str]:
    proof = [str(each) for each in entry.get("evidence") or ()]
    if entry.get("alternatives"):
        from hubctl.recommend import shown

        others = [shown("size" if isinstance(each, list) else "sampler", each) for each in entry["alternatives"]]
        proof.append(f"also: {', '.join(others)}")
    return proof


def setting_cells(name: str, entry: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Name, value, range, confidence and source of one setting."""
    from hubctl.recommend import shown

    value = shown(name, entry["value"])
    if name == "sampler" and isinstance(schedule := settings.get("schedule"), dict) and schedule.get("value"):
        value += f" {shown('schedule', schedule['value'])}"
    confidence = entry.get("confidence")
    return (
        LABELS.get(name, name.replace("_", " ")),
        value,
        _range(name, entry),
        f"{confidence:.0%}" if isinstance(confidence, int | float) else "",
        _source(entry),
    )


SHOWN_ELSEWHERE = frozenset(["negative_prompt", "negative_embeddings", "schedule"])
LABELS = {"cfg_scale": "CFG", "distilled_cfg": "distilled CFG", "vae": "VAE", "base_checkpoint": "made with",
          "hires": "hires fix", "adetailer": "ADetailer"}  # fmt: skip


def _range(name: str, entry: Mapping[str, Any]) -> str:
    low, high = entry.get("low"), entry.get("high")
    text = "denoise " if name == "hires" else ""
    if (low is None and high is None) or low == high:
        return ""
    if low is None:
        return f"{text}≤ {_number(high)}"
    return f"{text}≥ {_number(low)}" if high is None else f"{text}{_number(low)} – {_number(high)}"


def _source(entry: Mapping[str, Any]) -> str:
    source, n = str(entry.get("source") or ""), entry.get("n") or 0
    images = _out.plural(n, "image")
    return {
        "images": images,
        "creator+images": f"creator and {images}",
        "header": "training data",
        "user": "you",
    }.get(source, source)


def _files(page: Page) -> None:
    here = {file.file_id: file for file in page.installed.files} if page.installed else {}
    if not page.version.files:
        return
    _page.section("Files")
    verbose = _flags.CURRENT.verbose
    _page.table(
        [("id", "right"), "file", "kind", "format", ("size", "right"), "here", "sha256"],
        [
            (
                file.id, file.name, file.type,
                " ".join(filter(None, (file.metadata.format, file.metadata.fp, file.metadata.size)))
                if file.metadata else "",
                _out.size(file.size_bytes), "✓" if file.id in here else "",
                (file.sha256 or "")[: None if verbose else 10] if verbose or _page.columns() >= 110 else "",
            )
            for file in page.version.files
        ],
    )  # fmt: skip
    for file in page.version.files:
        verdicts = {file.pickle_scan_result, file.virus_scan_result} - {None, "Success"}
        if verdicts:
            _page.paragraph(f"{file.name}: the hub's scan says {', '.join(map(str, verdicts))}", indent=2)
    for installed in here.values():
        _page.paragraph(f"here: {installed.path}", indent=2)
    for item in page.here:
        if page.installed is None or item.version.id != page.installed.version.id:
            for each in item.files:
                _page.paragraph(f"here, version {item.version.name}: {each.path}", indent=2)
    if page.installed:
        said = [f"installed {page.installed.installed_at[:10]}", "pinned" if page.installed.pinned else ""]
        if page.installed.last_used_at:
            said.append(f"last used {page.installed.last_used_at[:10]}")
        _page.paragraph(", ".join(filter(None, said)), indent=2)
        if page.installed.notes:
            _page.paragraph(f"your note: {page.installed.notes}", indent=2)


def _others(page: Page) -> None:
    others = [version for version in page.model.model_versions if version.id != page.version.id]
    if not others:
        return
    here = {item.version.id for item in page.here}
    _page.section("Other versions")
    limit = None if _flags.CURRENT.verbose else VERSIONS
    _page.table(
        [("id", "right"), "version", "base model", "published", "here"],
        [
            (v.id, v.name, v.base_model, (v.published_at or v.created_at or "")[:10], "✓" if v.id in here else "")
            for v in others[:limit]
        ],
    )
    if limit and len(others) > limit:
        _out.say(f"  … {_out.plural(len(others) - limit, 'more version')} with -v")


def _rights(page: Page) -> None:
    allowed = rights(page.model)
    rows = [("may", ", ".join(allowed["may"])), ("may not", ", ".join(allowed["may_not"]))]
    if any(text for _, text in rows):
        _page.section("Rights")
        _page.pairs(rows, wrapped=True)


def _about(page: Page) -> None:
    from hubctl.text import html_to_text

    about = html_to_text(page.version.description)
    text = html_to_text(page.model.description)
    for title, body in (("About this version", about if about != text else ""), ("About", text)):
        if not body:
            continue
        _page.section(title)
        limit = None if _flags.CURRENT.verbose else ABOUT_LINES
        more = _page.prose(body, limit=limit)
        if more:
            _out.say(f"  … {_out.plural(more, 'more line')} with -v")


def _next_steps(page: Page) -> None:
    images, known = page.examples
    ref = f"{page.model.id}@{page.version.id}"
    if images:
        if known == images:
            told = "with its settings" if images == 1 else "all with their settings"
        else:
            told = f"{known or 'none'} with {'its' if images == 1 else 'their'} settings"
        _out.say(f"\n{_out.plural(images, 'example image')}, {told}: `hubctl images {ref}`")
    if page.installed is None:
        _out.say(f"install it: `hubctl install {ref}`")
