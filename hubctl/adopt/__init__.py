"""Journey: model files that are already on disk → versions of this library, without copying a byte.

    survey(roots, registry)   what is there: unchanged, known by inode or by an earlier scan, to be read, in two copies
    plan(…, hub)              the same with names: sidecars, headers and 64 KiB probes asked of the hub; --dry-run
    execute(plan, …)          read what must be read, ask the hub in batches, link into the store, write manifests

A file enters the store only under the SHA256 of its own bytes, read by us: two merges can share size, header and the
64 KiB of AutoV1, and a sidecar can say anything. So probes name a file (`--quick` stops there) and the full hash lets
it in. What is not read: other names of a known inode, files unchanged since the last scan, and large files that agree
with one that is read in size and in all sampled windows: those are reported as duplicates.

Everything is written down as it goes, so an interrupted run continues, and a second one looks only at what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.adopt.run import Options, Report, execute
from hubctl.adopt.survey import Duplicate, Item, Plan, survey
from hubctl.adopt.who import PROBE, SINGLES, Known, by_sidecar, probe_all, recognise
from hubctl.errors import KnownError
from registry import scan

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from registry import Registry

__all__ = [
    "PROBE", "Duplicate", "Item", "Known", "Options", "Plan", "Report", "execute", "linked", "plan", "survey",
]  # fmt: skip
OnEvent = Callable[..., None]


def _nothing(*_: Any, **__: Any) -> None:
    """Nobody listens."""


def plan(
    roots: Sequence[Path],
    registry: Registry,
    hub: Hub | None,
    *,
    again: bool = False,
    quick: bool = False,
    on_event: OnEvent = _nothing,
) -> Plan:
    """A survey with names, as far as probes can tell. Without a hub only sidecars and this library are asked."""
    out = survey(roots, registry, again=again)
    probe_all(out, registry)
    if hub is not None:
        try:
            recognise(out.items, hub, singles=None if quick else SINGLES)
            out.named = True
        except KnownError as error:
            on_event("warning", message=f"{error.message}: names are those the sidecars give")
    for item in out.items:
        if item.known is None:
            item.known = by_sidecar(item, sure=False)
    if out.to_read:
        largest = max(out.to_read, key=lambda item: item.found.size)
        try:
            out.speed = scan.reading_speed(largest.path, largest.found.size)
        except OSError:
            out.speed = None
    return out


def linked(registry: Registry, keys: Iterable[tuple[str, int, int]]) -> list[Any]:
    """Show what was adopted in every linked UI; bytes a UI has already stay under the name they have."""
    from registry import links

    return links.apply(registry, [(source, version_id) for source, _, version_id in keys])
