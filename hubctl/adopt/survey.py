"""What is in some folders: every model file, with what earlier scans know of it. Reads names, `stat` and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.errors import InvalidReference, NotFound
from registry import layouts, scan
from registry.scan import Found, Skipped
from registry.sidecars import Said

if TYPE_CHECKING:
    from hubctl.adopt.who import Known
    from registry import Registry


@dataclass
class Item:
    """The same bytes on one volume: an inode with all its names, and what becomes known of it."""

    found: Found
    names: list[Found] = field(default_factory=list)  # other names of the inode
    sha256: str | None = None
    like: Item | None = None  # probably the same bytes as this one
    like_sha: str | None = None  # or as this blob
    autov1: str | None = None
    autov3: str | None = None
    claimed: Mapping[str, str] = field(default_factory=dict)  # hashes the header gives
    facts: Mapping[str, Any] = field(default_factory=dict)
    said: Said = field(default_factory=Said)
    known: Known | None = None
    asked: bool = False  # whether a hub was asked about its bytes

    @property
    def path(self) -> Path:
        return self.found.path

    @property
    def every(self) -> list[Found]:
        return [self.found, *self.names]


@dataclass(frozen=True)
class Duplicate:
    """A second copy of bytes the store has or will have. `sure` when every byte of it was read."""

    found: Found
    sha256: str | None
    of: Path
    sure: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.found.path),
            "of": str(self.of),
            "bytes": self.found.size,
            "sha256": self.sha256,
            "certain": self.sure,
        }


@dataclass
class Plan:
    """What an adoption would do."""

    roots: tuple[Path, ...]
    files: int = 0  # model files seen, all names counted
    unchanged: int = 0
    ours: int = 0  # names hubctl made itself
    ready: list[Item] = field(default_factory=list)  # hash known without reading
    to_read: list[Item] = field(default_factory=list)
    likely: list[Item] = field(default_factory=list)  # probably duplicates: sampled, not read
    retold: list[Item] = field(default_factory=list)  # unchanged, but a sidecar changed
    copies: list[Duplicate] = field(default_factory=list)  # duplicates found by an earlier scan
    again: dict[str, int] = field(default_factory=dict)  # SHA256 → local version no hub was asked about
    skipped: list[Skipped] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)  # paths in the scan table that are no more
    uis: dict[str, str] = field(default_factory=dict)  # root → which UI it is
    speed: float | None = None  # bytes a second
    threads: int = 1
    named: bool = False  # whether probes were asked of a hub

    @property
    def bytes_to_read(self) -> int:
        return sum(item.found.size for item in self.to_read)

    @property
    def seconds(self) -> float | None:
        return self.bytes_to_read / (self.speed * self.threads) if self.speed else None

    @property
    def items(self) -> list[Item]:
        return [*self.ready, *self.to_read, *self.likely]

    def to_json(self) -> dict[str, Any]:
        recognised = [item for item in self.items if item.known]
        return {
            "roots": [{"path": str(root), "ui": self.uis.get(str(root))} for root in self.roots],
            "files": self.files,
            "unchanged": self.unchanged,
            "ours": self.ours,
            "new": len(self.items),
            "recognised": len(recognised) if self.named else None,
            "to_read": len(self.to_read),
            "bytes_to_read": self.bytes_to_read,
            "seconds": self.seconds,
            "duplicates": [d.to_json() for d in self.duplicates()],
            "items": [_item_json(item) for item in self.items],
            "skipped": [each.to_json() for each in self.skipped],
        }

    def duplicates(self) -> list[Duplicate]:
        out = list(self.copies)
        for item in self.likely:
            of = item.like.path if item.like else Path(item.like_sha or "")
            out += [Duplicate(found, item.like_sha, of, sure=False) for found in item.every]
        return out


def _item_json(item: Item) -> dict[str, Any]:
    state = "ready" if item.sha256 else "duplicate" if item.like or item.like_sha else "to read"
    return {
        "path": str(item.path),
        "size": item.found.size,
        "state": state,
        "other_names": [str(found.path) for found in item.names],
        "known": item.known.to_json() if item.known else None,
    }


def survey(roots: Sequence[Path], registry: Registry, *, again: bool = False) -> Plan:
    """Look at the folders: nothing is read but names and `stat`, and samples of large files of equal size.

    `again` looks at everything anew, whatever earlier scans wrote down. Raises NotFound for a folder that is not there.
    """
    roots = tuple(_root(root, registry) for root in roots)
    out = Plan(roots, uis={str(root): name for root in roots if root.is_dir() and (name := layouts.recognise(root))})
    seen = scan.known(registry)
    blobs = scan.blobs_by_inode(registry)
    nodes: dict[tuple[int, int], list[Found]] = {}
    ours = scan.linked_paths(registry)
    paths = set()
    for found in scan.walk(roots, out.skipped, but=(registry.home,)):
        if found.where in ours or (found.is_link and registry.home in found.path.resolve().parents):
            out.ours += 1
        elif found.where not in paths:
            paths.add(found.where)
            nodes.setdefault(found.node, []).append(found)
    out.files = len(paths)
    fresh: list[Item] = []
    for node, names in nodes.items():
        before = [(found, said) for found in names if (said := _still_true(found, seen)) is not None]
        settled = [found for found, said in before if said.listed]
        refused = next((said.refused for _, said in before if said.refused), None)
        if refused is not None and not again:
            out.skipped.append(Skipped(names[0].path, refused))
            continue
        sha256 = next((said.sha256 for _, said in before if said.sha256), None)
        if sha256 is None and (blob := blobs.get(node)) and scan.is_right(registry, blob):
            sha256 = blob
        if len(settled) == len(names) and not again:
            _add_unchanged(out, registry, before, in_store=node in blobs)
            continue
        item = Item(names[0], names[1:], sha256=None if again and node not in blobs else sha256)
        (out.ready if item.sha256 else fresh).append(item)
    starts = tuple(f"{root}/" for root in out.roots)
    out.gone = [path for path in seen if path.startswith(starts) and path not in paths and not Path(path).exists()]
    _drop_clones(out, registry)
    _find_likely(out, fresh, registry)
    out.again = scan.local_not_asked(registry)
    if out.to_read:
        out.threads = scan.threads_for(max(out.to_read, key=lambda item: item.found.size).path)
    return out


def _root(root: Path, registry: Registry) -> Path:
    path = root.expanduser().absolute()
    if not path.exists():
        raise NotFound(f"there is no folder {path}", hint="give a folder with models, or a UI's own folder")
    if path == registry.home or registry.home in path.parents:
        raise InvalidReference(f"{path} is hubctl's own home", hint="what is in it is adopted already")
    return path


def _still_true(found: Found, seen: Mapping[str, scan.Seen]) -> scan.Seen | None:
    said = seen.get(found.where)
    return said if said is not None and said.stamp == found.stamp else None


def _add_unchanged(out: Plan, registry: Registry, names: Sequence[tuple[Found, scan.Seen]], *, in_store: bool) -> None:
    out.unchanged += len(names)
    for found, said in names:
        sha256 = said.sha256 or said.like or ""
        if found.sidecars_at > said.checked_at:
            out.retold.append(Item(found, sha256=said.sha256, like_sha=said.like))
        if not in_store:
            out.copies.append(Duplicate(found, sha256, registry.blob_path(sha256), sure=said.sha256 is not None))


def _drop_clones(out: Plan, registry: Registry) -> None:
    """A clone (reflink) has another inode than its blob and takes no space; a reference is the file itself."""
    if out.copies:
        facts = scan.facts_of(registry, [each.found.path for each in out.copies])
        out.copies = [d for d in out.copies if facts.get(str(d.found.path), {}).get("joined") not in NO_COPY]


NO_COPY = frozenset({"reflink", "reference", "copy", "move"})  # how a file came in whose inode is not its blob's


def _find_likely(out: Plan, fresh: Sequence[Item], registry: Registry) -> None:
    """Large files of one size are sampled: of those that agree one is read, the others are reported."""
    sizes: dict[int, list[Item]] = {}
    for item in fresh:
        sizes.setdefault(item.found.size, []).append(item)
    stored: dict[int, list[str]] = {}
    for row in registry.rows("SELECT sha256, size FROM blob WHERE size >= ?", (scan.SAMPLED,)) if fresh else ():
        stored.setdefault(row["size"], []).append(row["sha256"])
    for size, items in sizes.items():
        if size < scan.SAMPLED or (len(items) == 1 and size not in stored):
            out.to_read += items
            continue
        first: dict[str, Item | str] = {}
        for sha in stored.get(size, ()):
            try:
                first.setdefault(scan.sample(registry.blob_path(sha), size), sha)
            except OSError:
                continue
        for item in items:
            try:
                twin = first.setdefault(scan.sample(item.path, size), item)
            except OSError as error:
                out.skipped.append(Skipped(item.path, error.strerror or "cannot be read"))
                continue
            if twin is item:
                out.to_read.append(item)
            else:
                item.like, item.like_sha = (twin, None) if isinstance(twin, Item) else (None, twin)
                out.likely.append(item)
    out.to_read.sort(key=lambda item: (item.found.size, str(item.path)))  # the many small ones first
