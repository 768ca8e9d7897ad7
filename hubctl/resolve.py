"""What a reference means on a hub: one version of one model, and perhaps one of its files.

resolve("4201", hub)  →  Found(model, version)      raises NotFound, Ambiguous (with candidates), InvalidReference
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl import refs
from hubctl.errors import Ambiguous, Archived, InvalidReference, KnownError, NotFound, TakenDown
from registry import wire

if TYPE_CHECKING:
    from hubctl.hubs import Hub

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A version on a hub, with its model; `file_id` when one file in particular was asked for."""

    model: wire.Model
    version: wire.ModelVersion
    file_id: int | None = None


def resolve(text: str, hub: Hub, *, types: Sequence[str] = ()) -> Found:
    """Ask the hub what a reference means.

    Raises NotFound, Ambiguous (with candidates), InvalidReference.
    """
    ref = refs.parse(text)
    match ref:
        case refs.ModelRef(id=model_id):
            return _newest(hub, hub.model(model_id), text)
        case refs.ModelVersionRef(model_id=model_id, version_id=version_id):
            return _of_model(hub, model_id, version_id, text)
        case refs.VersionRef(id=version_id):
            return of_version(hub, hub.version(version_id))
        case refs.AmbiguousId(id=number):
            return _either(hub, number, text)
        case refs.AirRef(air=air):
            return _of_air(hub, air, text)
        case refs.HashRef(value=value):
            return of_hash(hub, value)
        case refs.NameRef(text=name):
            return of_name(hub, name, types)
        case refs.PathRef(path=path):
            raise InvalidReference(f"`{path}` is a file on this disk", hint=f"`hubctl adopt {path}` takes it over")
        case refs.ImageRef():
            raise InvalidReference(f"`{text}` is an image", hint=f"`hubctl reproduce {text}` installs what it used")
    raise InvalidReference(f"`{text}` names no model")


def _newest(hub: Hub, model: wire.Model, text: str) -> Found:
    refuse_gone(model)
    for version in model.model_versions:
        if version.files:
            return Found(model, version)
    for version in model.model_versions[:1]:  # right after publishing, hubs list versions before their files
        with contextlib.suppress(NotFound):
            fresh = hub.version(version.id)
            if fresh.files:
                return Found(model, fresh.model_copy(update={"model_id": model.id}))
    raise NotFound(
        f"`{model.name}` has no version with files",
        hint=f"`hubctl show {text}` has the link to its page; try again later",
    )


def refuse_gone(model: wire.Model) -> None:
    """Archived and removed models are listed but cannot be downloaded; say so before anything else is tried."""
    if model.mode == "Archived":
        raise Archived(f"`{model.name}` was archived by its creator: its files can no longer be downloaded here")
    if model.mode == "TakenDown":
        raise TakenDown(f"`{model.name}` was taken down by the hub: its files can no longer be downloaded here")


def _of_model(hub: Hub, model_id: int, version_id: int, text: str) -> Found:
    try:
        model = hub.model(model_id)
    except NotFound:  # its page may be gone while the version is still served
        found = of_version(hub, hub.version(version_id))
        if found.model.id == model_id:
            return found
        raise
    refuse_gone(model)
    for version in model.model_versions:
        if version.id == version_id:
            return Found(model, version)
    found = of_version(hub, hub.version(version_id))
    if found.model.id != model_id:
        raise NotFound(
            f"model {model_id} has no version {version_id}: it belongs to model {found.model.id} `{found.model.name}`",
            hint=f"`hubctl install {found.model.id}@{version_id}` (asked: {text})",
        )
    return found


def of_version(hub: Hub, version: wire.ModelVersion, file_id: int | None = None) -> Found:
    """The version with its model; the model page may be gone while the version is still served."""
    model = None
    if version.model_id is not None:
        try:
            model = hub.model(version.model_id)
        except NotFound:
            logger.debug("model %s is gone, its version %s is not", version.model_id, version.id)
    if model is None:
        inner = version.model or {}
        model = wire.Model(
            id=version.model_id or 0, name=str(inner.get("name") or version.name), type=inner.get("type")
        )
    else:
        refuse_gone(model)
        same = [other for other in model.model_versions if other.id == version.id]
        if same and same[0].files:  # the model route has names as they are downloaded, and every file
            version = same[0].model_copy(update={"model_id": model.id, "air": version.air or same[0].air})
    return Found(model, version, file_id)


def _either(hub: Hub, number: int, text: str) -> Found:
    """A bare integer may be a model id, a version id or both: both are asked, both is refused."""
    model = version = None
    try:
        model = hub.model(number)
    except (NotFound, Archived) as error:
        missing: KnownError = error
    try:
        version = hub.version(number)
    except NotFound:
        if model is None and isinstance(missing, NotFound):
            raise NotFound(f"{hub.name} has neither a model nor a version {number}", hint=missing.hint) from None
        if model is None:
            raise missing from None
    if model is not None and version is not None and version.model_id != model.id:
        other = (version.model or {}).get("name") or version.name
        raise Ambiguous(
            f"{number} is both a model and a version",
            hint="say which: a page URL, MODEL@VERSION, or one of the forms above",
            details={
                "candidates": [
                    f"{number}@{model.model_versions[0].id if model.model_versions else '…'}  model `{model.name}`",
                    f"{version.model_id}@{number}  version `{version.name}` of `{other}`",
                ]
            },
        )
    if model is not None:
        return _newest(hub, model, text)
    assert version is not None
    return of_version(hub, version)


def _of_air(hub: Hub, air: Any, text: str) -> Found:
    if not (air.id.isdigit() and (air.version or "").isdigit()):
        if air.id.isdigit() and air.version is None:
            return _newest(hub, hub.model(int(air.id)), text)
        raise InvalidReference(f"`{text}` is an AIR of `{air.source}`, which this hub does not serve")
    found = _of_model(hub, int(air.id), int(air.version), text)
    return replace(found, file_id=int(air.file_id) if air.file_id else None)


def of_hash(hub: Hub, value: str) -> Found:
    version = hub.by_hash(value)
    wanted = value.upper()
    for file in version.files:
        if any(isinstance(h, str) and h.upper() == wanted for h in file.hashes.values()):
            return of_version(hub, version, file.id)
    return of_version(hub, version)


def of_file_name(hub: Hub, stem: str, types: Sequence[str]) -> Found:
    """The version with a file of this name, as a prompt or an infotext writes it (without the suffix).

    Raises NotFound when no model a search for it finds has such a file, Ambiguous when several have.
    """
    from hubctl.hubs.query import SearchQuery

    wanted = Path(stem.replace("\\", "/")).name.casefold()
    words = " ".join("".join(char if char.isalnum() else " " for char in wanted).split())
    found = []
    for model in hub.search(SearchQuery(text=words or stem, types=tuple(types), limit=20)):
        for version in model.model_versions:
            for file in version.files:
                if wanted in {file.name.casefold(), Path(file.name).stem.casefold()}:
                    found.append(Found(model, version.model_copy(update={"model_id": model.id}), file.id))
    if not found:
        raise NotFound(f"the hub finds no file called `{stem}`")
    if len({each.model.id for each in found}) > 1:
        raise Ambiguous(f"`{stem}` is a file of {len({each.model.id for each in found})} models")
    return found[0]


def of_name(hub: Hub, name: str, types: Sequence[str]) -> Found:
    from hubctl.hubs.query import SearchQuery

    models = list(hub.search(SearchQuery(text=name, types=tuple(types), limit=20)))
    exact = [model for model in models if model.name.casefold() == name.casefold()]
    chosen = exact if len(exact) == 1 else models
    if len(chosen) == 1:
        return _newest(hub, hub.model(chosen[0].id), name)
    if not models:
        raise NotFound(
            f"the hub finds nothing called `{name}`", hint=f"try fewer words: `hubctl search {name.split()[0]}`"
        )
    raise Ambiguous(
        f"`{name}` could be any of {len(chosen)} models",
        hint="install one by its id",
        details={
            "candidates": [f"{m.id:>8}  {m.name}  ({m.type}, {_base_model(m)})" for m in chosen[:10]],
            "ids": [m.id for m in chosen[:10]],
        },
    )


def _base_model(model: wire.Model) -> str:
    return (model.model_versions[0].base_model if model.model_versions else None) or "?"
