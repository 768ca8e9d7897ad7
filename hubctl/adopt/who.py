"""Who a file is: sidecars, headers and 64 KiB probes asked of a hub; and a version of its own for what nobody knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hubctl.errors import InvalidReference, KnownError, NotFound
from hubctl.hubs import source_of
from registry import layouts, scan, sidecars
from registry.scan import Skipped

if TYPE_CHECKING:
    from hubctl.adopt.survey import Item, Plan
    from hubctl.hubs import Hub
    from registry import Registry, wire

SINGLES = 200  # questions about one hash that a dry run asks
PROBE = (1 << 20) + (64 << 10)  # bytes a probe reaches into a file
SLACK = 1024  # bytes a hub's size (in KiB, sometimes edited by hand) may be off


@dataclass(frozen=True)
class Known:
    """Which version a file is, and how we know."""

    source: str
    model: wire.Model
    version: wire.ModelVersion
    file: wire.ModelFile
    by: str  # SHA256 · AutoV1 · AutoV3 · header · sidecar · here
    sure: bool = True  # by every byte, not by a probe

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "model_id": self.model.id,
            "version_id": self.version.id,
            "name": self.model.name,
            "version": self.version.name,
            "by": self.by,
        }


# --- probes -----------------------------------------------------------------------------------------------------------


def probe_all(out: Plan, registry: Registry) -> None:
    """Probe what is new; a file that is damaged is left where it is, with the reason."""
    written = scan.sidecars_written(registry)
    for items in (out.ready, out.to_read, out.likely):
        for item in list(items):
            try:
                probe(item, written)
            except (KnownError, OSError) as error:
                items.remove(item)
                out.skipped.append(Skipped(item.path, why(error)))


def why(error: KnownError | OSError) -> str:
    return error.message if isinstance(error, KnownError) else error.strerror or "cannot be read"


def probe(item: Item, written: Mapping[str, str]) -> None:
    """Header, 64 KiB and sidecars: some hundred kilobytes at most. Raises VerificationFailed, UnsafeFile, OSError."""
    from registry import detect, hashes, pickles
    from registry.errors import UnsafeFile

    facts = detect.inspect(item.path)
    if facts.format in {"ckpt", "pt", "pickle", "bin"}:
        report = pickles.scan(item.path)
        if report.verdict == "dangerous":
            raise UnsafeFile(f"a pickle that may run code: {report.reason}")
    cheap = hashes.cheap(item.path)
    item.facts = facts.to_json()
    item.autov1, item.claimed = cheap["AutoV1"], cheap["claimed"]
    item.said = sidecars.read(item.path, set(item.found.sidecars), ours=written)
    for other in item.names:  # what was written beside another name of the same bytes counts as well
        if other.sidecars and not item.said.files:
            item.said = sidecars.read(other.path, set(other.sidecars), ours=written)


def recognise(items: Sequence[Item], hub: Hub, *, singles: int | None) -> None:
    """Ask the hub about probes: hashes that sidecars give, many at a time, then AutoV1 and header hashes one by one.

    A name counts when size and AutoV1 agree as well; it stays a probe's word. `singles` bounds the questions of the
    second sort. Raises HubError when the hub cannot be asked.
    """
    claims = {claim for item in items if (claim := item.sha256 or item.said.sha256)}
    ids = hub.ids_by_hash(claims) if claims else {}
    versions = hub.by_hashes(ids) if ids else {}
    for item in items:
        version = versions.get(item.sha256 or item.said.sha256 or "")
        if version is not None and (file := _fitting(item, version)):
            by = "SHA256" if item.sha256 else "sidecar"
            item.known = Known(source_of(version, hub), model_of(version), version, file, by, sure=False)
    asked = 0
    for item in items:
        for by, value in _probes(item):
            if item.known or (singles is not None and asked >= singles):
                break
            asked += 1
            try:
                version = hub.by_hash(value)
            except (NotFound, InvalidReference):
                continue
            if file := _fitting(item, version):
                item.known = Known(source_of(version, hub), model_of(version), version, file, by, sure=False)


def _probes(item: Item) -> Iterator[tuple[str, str]]:
    if item.autov1 and item.found.size > PROBE:  # shorter files have the AutoV1 of nothing
        yield "AutoV1", item.autov1
    for value in item.claimed.values():
        if len(value) >= 12:
            yield "header", value[:12]


def _fitting(item: Item, version: wire.ModelVersion) -> wire.ModelFile | None:
    """The file of a version whose size, and AutoV1 where the hub gives it, are those of the probe."""
    for file in version.files:
        size, autov1 = file.size_bytes, file.hashes.get("AutoV1")
        if size is None or abs(size - item.found.size) > SLACK:
            continue
        if not isinstance(autov1, str) or not item.autov1 or autov1.upper() == item.autov1.upper():
            return file
    return None


def asks(hub: Hub, value: str) -> bool:
    try:
        hub.by_hash(value)
    except (NotFound, InvalidReference):
        return False
    return True


def model_of(version: wire.ModelVersion) -> wire.Model:
    """The model as far as one of its versions tells."""
    from registry import wire

    inner = version.model or {}
    data: dict[str, Any] = {
        key: inner[key] for key in ("name", "type", "nsfw", "poi", "mode", "tags", "description") if key in inner
    }
    creator = getattr(version, "creator", None) or inner.get("creator")
    if isinstance(creator, dict):
        data["creator"] = creator
    return wire.Model.model_validate({"id": version.model_id or 0, "name": version.name, **data})


def by_sidecar(item: Item, *, sure: bool = True) -> Known | None:
    """The version object a sidecar holds, when it has a file with these very bytes (or, unread, of this size)."""
    from registry import wire

    if item.said.version is None:
        return None
    try:
        version = wire.ModelVersion.model_validate(item.said.version)
    except ValueError:
        return None
    if version.model_id is None:
        version = version.model_copy(update={"model_id": item.said.model_id})
    if not version.model_id:
        return None
    if sure:
        file = next((each for each in version.files if each.sha256 == item.sha256), None)
    else:
        file = _fitting(item, version)
    return Known("civitai", model_of(version), version, file, "sidecar", sure=sure) if file else None


# --- versions of our own ----------------------------------------------------------------------------------------------


def own_file(item: Item, *, of: wire.ModelFile | None = None) -> wire.ModelFile:
    """A file entry for bytes the hub's own entries do not describe: superseded, or with an edited header."""
    from registry import wire

    number = scan.LOCAL_IDS + int((item.sha256 or "0")[:8], 16) % scan.LOCAL_IDS
    data: dict[str, Any] = {
        "id": number,
        "name": of.name if of else item.path.name,
        "type": of.type if of and of.type else "Model",
        "sizeKB": item.found.size / 1024,
        "hashes": _hashes(item),
        "metadata": _metadata(item),
    }
    if of:
        data["headerEditedFrom"] = of.id
    return wire.ModelFile.model_validate(data)


def _hashes(item: Item) -> dict[str, str]:
    sha256 = (item.sha256 or "").upper()
    found = {"SHA256": sha256, "AutoV1": item.autov1, "AutoV2": sha256[:10], "AutoV3": item.autov3}
    return {name: value for name, value in found.items() if value}


def _metadata(item: Item) -> dict[str, Any]:
    formats = {"safetensors": "SafeTensor", "gguf": "GGUF", "ckpt": "PickleTensor", "pt": "PickleTensor"}
    return {
        "format": formats.get(str(item.facts.get("format")), "Other"),
        "fp": item.facts.get("precision"),
    }


def local(item: Item, number: int) -> Known:
    """A version of its own for a file nobody knows: what its header, its sidecars and its folder tell."""
    from registry import wire

    said, facts = item.said, item.facts
    metadata: Mapping[str, Any] = facts.get("metadata") or {}
    kind = layouts.canonical(facts.get("kind")) or item.found.hint
    title = said.name or metadata.get("modelspec.title") or metadata.get("ss_output_name") or item.path.stem
    base_model = said.base_model or facts.get("base_model_guess")
    words = list(said.trained_words) or [w for w in facts.get("trained_words") or () if isinstance(w, str)]
    file = {
        "id": number,
        "name": item.path.name,
        "type": "Model",
        "sizeKB": item.found.size / 1024,
        "primary": True,
        "hashes": _hashes(item),
        "metadata": _metadata(item),
    }
    version = wire.ModelVersion.model_validate(
        {
            "id": number,
            "modelId": number,
            "name": said.version_name or "local",
            "baseModel": base_model,
            "trainedWords": words[:64],
            "createdAt": datetime.fromtimestamp(item.found.mtime_ns / 1e9, UTC).isoformat(timespec="seconds"),
            "files": [file],
        }
    )
    model: dict[str, Any] = {"id": number, "name": str(title)[:300], "type": layouts.TYPES.get(kind or "", "Other")}
    if said.creator or metadata.get("modelspec.author"):
        model["creator"] = {"username": said.creator or str(metadata["modelspec.author"])[:100]}
    description = said.description or metadata.get("modelspec.description")
    if description:
        model["description"] = str(description)
    if said.tags:
        model["tags"] = list(said.tags)
    return Known("local", wire.Model.model_validate(model), version, version.files[0], "here")


def settle(known: Known, item: Item) -> Mapping[str, Any]:
    from hubctl import install, recommend

    settled = recommend.settle(
        known.version,
        install.examples_of(known.version.images),
        item.facts,
        None,
        model_description=known.model.description,
        file_stem=item.path.stem,
        model_type=known.model.type,
        model_name=known.model.name,
    )
    out: Mapping[str, Any] = settled.to_json()
    return out
