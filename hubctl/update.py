"""Journey: what is installed against what the hub has now.

    look(registry, hub, …)  →  Update per model: newer, replaced, gone, or nothing to say

*newer*: a version that stands before ours on the model's page, of the same base model unless asked otherwise.
*replaced*: the version we have, whose file has another SHA256 now; nothing is taken until the user says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hubctl.errors import HubUnavailable, KnownError, NotFound
from hubctl.hubs import source_of

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from registry import Installed, Registry, wire

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """What the hub has for one installed version. `verdict`: newer · early · replaced · gone · archived."""

    installed: Installed
    verdict: str
    model: wire.Model | None = None
    version: wire.ModelVersion | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        item = self.installed
        return {
            "ref": f"{item.model.id}@{item.version.id}",
            "name": item.model.name,
            "version": item.version.name,
            "base_model": item.version.base_model,
            "verdict": self.verdict,
            "new_ref": f"{item.model.id}@{self.version.id}" if self.version else None,
            "new_version": self.version.name if self.version else None,
            "new_base_model": self.version.base_model if self.version else None,
            "published_at": self.version.published_at if self.version else None,
            "note": self.note,
        }


def look(
    items: Sequence[Installed],
    hub: Hub,
    registry: Registry,
    *,
    any_base: bool = False,
    early_access: bool = False,
) -> Iterator[Update]:
    """Hold installed versions against their models' pages; those with nothing new are left out.

    Models are asked many at a time. Local ones (adopted, merged, trained) have no page and are passed over, as are
    those whose ids this hub uses for something else.
    """
    ours = [item for item in items if item.source != "local" and item.model.id > 0]
    by_model: dict[int, list[Installed]] = {}
    for item in ours:
        by_model.setdefault(item.model.id, []).append(item)
    answers = {model.id: model for model in hub.models(sorted(by_model))}
    for model_id, mine in by_model.items():
        model = answers.get(model_id)
        if model is None:
            model = _ask_one(hub, model_id)
        if model is None:
            known = [item for item in mine if item.source == source_of(item.version, hub)]
            yield from (Update(item, "gone", note="its page is gone; keep what you have") for item in known)
            continue
        theirs = {source_of(version, hub) for version in model.model_versions}
        mine = [item for item in mine if item.source in theirs] if theirs else mine
        yield from _of_model(model, mine, registry, any_base=any_base, early_access=early_access)


def _ask_one(hub: Hub, model_id: int) -> wire.Model | None:
    """Lists leave some models out that their own page still shows."""
    try:
        return hub.model(model_id)
    except NotFound:
        return None
    except HubUnavailable:
        raise
    except KnownError as error:
        logger.debug("model %s: %s", model_id, error.message)
        return None


def _of_model(
    model: wire.Model, mine: Sequence[Installed], registry: Registry, *, any_base: bool, early_access: bool
) -> Iterator[Update]:
    order = {version.id: place for place, version in enumerate(model.model_versions)}
    for item in mine:
        there = next((version for version in model.model_versions if version.id == item.version.id), None)
        if there is not None and (changed := _replaced(item, there)):
            yield Update(item, "replaced", model, there, changed)
    if model.mode == "Archived":
        yield from (Update(item, "archived", model, note="archived by its creator") for item in mine)
        return
    for base, newest in _newest_per_base(mine, order).items():
        ours = order.get(newest.version.id, len(order))
        for version in model.model_versions[:ours]:
            fits = any_base or version.base_model == base
            if not fits or not version.files or registry.is_ignored(model.id, version.id, source=newest.source):
                continue
            deadline = version.early_access_deadline or version.early_access_ends_at
            if _is_open(version.availability, deadline) or early_access:
                yield Update(newest, "newer", model, version)
                break
            yield Update(newest, "early", model, version, f"early access until {(deadline or 'later')[:10]}")


def _newest_per_base(mine: Sequence[Installed], order: dict[int, int]) -> dict[str | None, Installed]:
    out: dict[str | None, Installed] = {}
    for item in sorted(mine, key=lambda each: order.get(each.version.id, len(order))):
        out.setdefault(item.version.base_model, item)
    return out


def _is_open(availability: str | None, deadline: str | None) -> bool:
    if availability == "EarlyAccess" and not deadline:
        return False
    if not deadline:
        return True
    try:
        return datetime.fromisoformat(deadline.replace("Z", "+00:00")) <= datetime.now(UTC)
    except (ValueError, TypeError):
        return False


def _replaced(item: Installed, there: wire.ModelVersion) -> str:
    """A sentence when a file of this very version is another one now."""
    for file in item.files:
        now = next((f for f in there.files if f.id == file.file_id), None)
        if now is not None and now.sha256 and now.sha256 != file.sha256:
            return f"`{file.name}` is another file on the hub now ({now.sha256[:10]}, here {file.sha256[:10]})"
    return ""
