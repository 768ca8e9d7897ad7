"""Freeing disk space: a planner first.

    look(registry)                  →  Facts        what there is, from index and disk
    plan_prune(facts, policy)       →  PrunePlan    what would go and why, and what is kept and why; touches nothing
    execute(registry, plan)         →  PruneReport  each item looked at again just before it goes

Conditions on versions (`unused`, `superseded`, `redownloadable`) all have to hold, and a budget (`free`, `max_size`)
takes the least recently used of what they leave, no more than it needs. The rest is housekeeping, each by its own flag;
what it frees is not asked of versions again.
Pinned and locked versions never go; those something was merged from, or a recorded run used, only when asked for.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import index, partial, trash, usage
from registry import manifest as manifests
from registry.trash import Trashed

if TYPE_CHECKING:
    from registry.local import Registry

GRACE = 3600.0  # seconds a blob without manifest is left alone: an install may be about to name it
DAY = 86400.0
FEW = 4  # files that may be read on one day and still mean something
Key = tuple[str, int]
Available = Callable[["Version"], str | None]  # why a version cannot be had again; None when it can


@dataclass(frozen=True)
class Policy:
    """What to prune. Without any condition or flag nothing is."""

    unused_days: int | None = None
    superseded: bool = False
    redownloadable: bool = False
    free: int | None = None  # bytes to make free
    max_size: int | None = None  # bytes the library may take
    include_used: bool = False  # also what merges and runs of ours were made with
    orphans: bool = False
    partials: bool = False
    pictures: bool = False
    damaged: bool = False
    empty_trash: bool = False
    trash_days: int = 7  # how long removed versions wait; 0 deletes at once
    at_once: bool = False  # delete these versions at once; what waits already goes on waiting

    @property
    def picks_versions(self) -> bool:
        return bool(self.unused_days is not None or self.superseded or self.redownloadable or self.has_budget)

    @property
    def waits(self) -> int:
        """Days that what goes now waits in the trash."""
        return 0 if self.at_once else self.trash_days

    @property
    def has_budget(self) -> bool:
        return self.free is not None or self.max_size is not None


@dataclass(frozen=True)
class Version:
    """An installed version, as a planner sees it."""

    source: str
    version_id: int
    model_id: int
    name: str
    version_name: str
    type: str | None
    base_model: str | None
    blobs: tuple[str, ...]
    used_at: datetime
    used_how: str = "installed"  # installed · used · read
    never: tuple[str, ...] = ()  # pinned, locked: why it never goes
    careful: tuple[str, ...] = ()  # merged from, used by runs: why it goes only when asked for

    @property
    def key(self) -> Key:
        return self.source, self.version_id

    @property
    def ref(self) -> str:
        return f"{self.model_id}@{self.version_id}"


@dataclass(frozen=True)
class BlobFacts:
    allocated: int
    elsewhere: bool  # other folders have the same file: removing our names frees nothing
    users: frozenset[Key]


@dataclass(frozen=True)
class Item:
    """One thing that goes. `frees` counts what is free when everything before it went, too."""

    kind: str  # version · trash · orphan · partial · leftover · picture · damaged
    label: str
    reasons: tuple[str, ...]
    frees: int
    key: Key | None = None
    path: Path | None = None
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "kind": self.kind, "what": self.label, "reasons": list(self.reasons), "frees": self.frees,
        }  # fmt: skip
        if self.key:
            out |= {"source": self.key[0], "version_id": self.key[1]}
        if self.path:
            out["path"] = str(self.path)
        if self.sha256:
            out["sha256"] = self.sha256
        return out


@dataclass(frozen=True)
class Kept:
    """A version the conditions chose and something protects."""

    label: str
    reasons: tuple[str, ...]
    key: Key | None = None

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"what": self.label, "reasons": list(self.reasons)}
        if self.key:
            out |= {"source": self.key[0], "version_id": self.key[1]}
        return out


@dataclass(frozen=True)
class Facts:
    """What there is to plan with."""

    versions: tuple[Version, ...] = ()
    blobs: Mapping[str, BlobFacts] = field(default_factory=dict)
    trashed: tuple[Trashed, ...] = ()
    trash_frees: Mapping[str, int] = field(default_factory=dict)  # blob only the trash names → bytes
    orphans: tuple[tuple[str, int, float], ...] = ()  # sha256, bytes, age in seconds
    partials: tuple[tuple[Path, int, float], ...] = ()
    leftovers: tuple[tuple[Path, int], ...] = ()
    pictures: tuple[tuple[Path, int], ...] = ()
    damaged: tuple[tuple[Path, int], ...] = ()
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class PrunePlan:
    """What goes, in order, and what is kept."""

    items: tuple[Item, ...]
    kept: tuple[Kept, ...]
    trash_days: int
    missing: int = 0  # bytes of a budget that could not be met
    library: int = 0  # bytes the library takes now

    def of(self, *kinds: str) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.kind in kinds)

    @property
    def frees(self) -> int:
        return sum(item.frees for item in self.items)

    @property
    def frees_now(self) -> int:
        """What is free at once; the rest waits in the trash."""
        return sum(item.frees for item in self.items if item.kind != "version" or not self.trash_days)

    def to_json(self) -> dict[str, Any]:
        return {
            "items": [item.to_json() for item in self.items],
            "kept": [each.to_json() for each in self.kept],
            "frees": self.frees,
            "frees_now": self.frees_now,
            "trash_days": self.trash_days,
            "missing": self.missing,
            "library": self.library,
        }


@dataclass(frozen=True)
class PruneReport:
    freed: int
    waiting: int
    versions: int
    others: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


# --- planning ---------------------------------------------------------------------------------------------------------


def plan_prune(facts: Facts, policy: Policy, *, available: Available | None = None) -> PrunePlan:
    """Decide what goes. `available` is asked for `redownloadable`, only about what everything else already chose."""
    library = sum(blob.allocated for blob in facts.blobs.values())
    rubbish = tuple(_housekeeping(facts, policy))
    budget = None
    if policy.has_budget:
        free = (policy.free or 0) - sum(item.frees for item in rubbish)
        budget = max(0, free, library - policy.max_size if policy.max_size is not None else 0)
    chosen, kept = _versions(facts, policy, available, budget) if policy.picks_versions else ([], [])
    missing = max(0, (budget or 0) - sum(item.frees for item in chosen))
    return PrunePlan((*chosen, *rubbish), tuple(kept), policy.waits, missing, library)


def _versions(
    facts: Facts, policy: Policy, available: Available | None, budget: int | None
) -> tuple[list[Item], list[Kept]]:
    newer = _superseded(facts.versions)
    ledger = _Ledger(facts, policy)
    chosen: list[tuple[Version, list[str]]] = []
    kept: list[Kept] = []
    for version in sorted(facts.versions, key=lambda v: (v.used_at, -_weight(v, facts), v.key)):
        if budget is not None and ledger.freed >= budget:
            break
        reasons = _reasons(version, policy, newer, facts.now)
        if reasons is None:
            continue
        if budget is not None and not ledger.frees(version) and not ledger.shares(version):
            continue
        guards = version.never + (() if policy.include_used else version.careful)
        if not guards and policy.redownloadable:
            why_not = available(version) if available else "the hub was not asked"
            if why_not is not None:
                guards = (why_not,)
            else:
                reasons.append("can be downloaded again")
        if guards:
            kept.append(Kept(_label(version), guards, version.key))
            continue
        ledger.take(version)
        chosen.append((version, reasons + list(version.careful)))
    if budget is not None:
        chosen = _needed(chosen, ledger, budget)
    again = _Ledger(facts, policy)
    return [Item("version", _label(v), tuple(why), again.take(v), key=v.key) for v, why in chosen], kept


def _needed(chosen: list[tuple[Version, list[str]]], ledger: _Ledger, budget: int) -> list[tuple[Version, list[str]]]:
    """Without those whose bytes a larger one that came later made superfluous; what was used last is spared first."""
    spared: set[Key] = set()
    for version, _ in reversed(chosen):
        if ledger.freed - ledger.holds(version) >= budget:
            ledger.put_back(version)
            spared.add(version.key)
    return [each for each in chosen if each[0].key not in spared]


def _label(version: Version) -> str:
    return f"{version.name} · {version.version_name}  ({version.ref})"


class _Ledger:
    """Bytes that are free while versions go, one by one: a blob's with the last version that uses it."""

    def __init__(self, facts: Facts, policy: Policy) -> None:
        self.blobs = facts.blobs
        self.left = {sha: len(blob.users) for sha, blob in facts.blobs.items()}
        self.freed = 0
        stay = set() if policy.waits else _waiting(facts, policy)
        self.stuck = stay | {sha for sha, blob in facts.blobs.items() if blob.elsewhere}

    def frees(self, version: Version) -> int:
        """What is free when this version goes next."""
        return self._bytes(version, users=1)

    def holds(self, version: Version) -> int:
        """What is not free when this version, taken already, stays after all."""
        return self._bytes(version, users=0)

    def shares(self, version: Version) -> bool:
        """Whether it has bytes that go with the last version that uses them."""
        return any(len(self.blobs[sha].users) > 1 and sha not in self.stuck for sha in self._of(version))

    def take(self, version: Version) -> int:
        frees = self.frees(version)
        self._count(version, -1)
        self.freed += frees
        return frees

    def put_back(self, version: Version) -> None:
        self.freed -= self.holds(version)
        self._count(version, 1)

    def _bytes(self, version: Version, users: int) -> int:
        mine = (sha for sha in self._of(version) if sha not in self.stuck and self.left[sha] == users)
        return sum(self.blobs[sha].allocated for sha in mine)

    def _count(self, version: Version, by: int) -> None:
        for sha in self._of(version):
            self.left[sha] += by

    def _of(self, version: Version) -> list[str]:
        return [sha for sha in dict.fromkeys(version.blobs) if sha in self.blobs]


def _waiting(facts: Facts, policy: Policy) -> set[str]:
    """Blobs of versions that stay in the trash."""
    going = _leaving(facts, policy)
    return {sha for entry in facts.trashed if entry.path not in going for sha in entry.blobs}


def _leaving(facts: Facts, policy: Policy) -> set[Path]:
    """Entries of the trash that are due, or all of them."""
    return {e.path for e in facts.trashed if policy.empty_trash or e.expires_at(policy.trash_days) <= facts.now}


def _reasons(version: Version, policy: Policy, newer: Mapping[Key, str], now: datetime) -> list[str] | None:
    """Why the conditions choose a version; None when one of them does not hold."""
    days = (now - version.used_at).days
    seen = {"installed": "installed", "used": "last used", "read": "last read"}[version.used_how]
    reasons = []
    if policy.unused_days is not None:
        if days < policy.unused_days:
            return None
        reasons.append(f"{seen} {_plural(days)} ago")
    if policy.superseded:
        if version.key not in newer:
            return None
        reasons.append(f"`{newer[version.key]}` is installed and newer")
    if policy.has_budget and policy.unused_days is None:
        reasons.append(f"least recently used: {seen} {_plural(days)} ago" if days else f"{seen} today")
    return reasons


def _superseded(versions: Iterable[Version]) -> dict[Key, str]:
    """Version → the name of a newer installed version of the same model and base model."""
    newest: dict[tuple[str, int, str | None], Version] = {}
    for version in versions:
        group = (version.source, version.model_id, version.base_model)
        if group not in newest or version.version_id > newest[group].version_id:
            newest[group] = version
    out = {}
    for version in versions:
        best = newest[version.source, version.model_id, version.base_model]
        if best.version_id > version.version_id:
            out[version.key] = best.version_name
    return out


def _weight(version: Version, facts: Facts) -> int:
    return sum(facts.blobs[sha].allocated for sha in version.blobs if sha in facts.blobs)


def _housekeeping(facts: Facts, policy: Policy) -> Iterator[Item]:
    freed, going = _waiting(facts, policy), _leaving(facts, policy)
    for entry in (each for each in facts.trashed if each.path in going):
        days = (facts.now - entry.removed_at).days
        mine = set(entry.blobs) - freed
        freed |= mine
        is_due = entry.expires_at(policy.trash_days) <= facts.now
        why = f"in the trash for {_plural(days)}" if is_due else "the trash is emptied"
        label = f"{entry.name} · {entry.version_name}  ({entry.ref})"
        yield Item("trash", label, (why,), sum(facts.trash_frees.get(sha, 0) for sha in mine), path=entry.path)
    if policy.orphans:
        for sha, size, age_s in facts.orphans:
            if age_s > GRACE:
                yield Item("orphan", f"blob {sha[:12]}", ("no version names it",), size, sha256=sha)
        for path, size in facts.leftovers:
            yield Item("leftover", str(path), ("left by a process that was killed",), size, path=path)
    if policy.partials:
        for path, size, age_s in facts.partials:
            if age_s > DAY:
                label = f"download {path.name[:12]}…{path.suffix}"
                yield Item("partial", label, (f"nobody went on with it for {_days(age_s)}",), size, path=path)
    if policy.pictures:
        for path, size in facts.pictures:
            yield Item("picture", path.name, ("example pictures can be fetched again",), size, path=path)
    if policy.damaged:
        for path, size in facts.damaged:
            yield Item("damaged", path.name, ("set aside by `verify --repair` or `reindex`",), size, path=path)


def _days(seconds: float) -> str:
    return _plural(int(seconds // DAY))


def _plural(days: int) -> str:
    return f"{days} day" if days == 1 else f"{days} days"


# --- looking ----------------------------------------------------------------------------------------------------------


def look(
    registry: Registry, *, locked: Mapping[str, str] | None = None, leftovers: bool = True, at: datetime | None = None
) -> Facts:
    """What there is. `locked` names blobs (SHA256 → which lock file) that a hubctl.lock needs."""
    now = at or datetime.now(UTC)
    sizes, reads = _stat_blobs(registry)
    users, versions = _installed(registry, reads, locked or {}, now)
    names = _names(registry)
    blobs = {
        sha: BlobFacts(sizes[sha][0], sizes[sha][1] > 1 + names.get(sha, 0), frozenset(mine))
        for sha, mine in users.items()
        if sha in sizes
    }
    trashed = tuple(trash.entries(registry))
    named = set(users) | {sha for entry in trashed for sha in entry.blobs} | _named_by_unreadable(registry)
    clock = now.timestamp()
    return Facts(
        versions=tuple(versions),
        blobs=blobs,
        trashed=trashed,
        trash_frees=_only_trash(registry, trashed),
        orphans=tuple((sha, s[0] if s[1] == 1 else 0, clock - s[2]) for sha, s in sizes.items() if sha not in named),
        partials=tuple(_partials(registry, clock)),
        leftovers=tuple(_leftovers(registry, clock)) if leftovers else (),
        pictures=tuple(_sized(p for p in usage.tree_files(registry.home / "images") if not p.name.startswith("."))),
        damaged=tuple(_damaged(registry)),
        now=now,
    )


def _named_by_unreadable(registry: Registry) -> set[str]:
    """Blobs that manifests without rows name: damaged, or of a newer hubctl; what they may need stays."""
    listed = {
        manifests.path_of(registry.at.manifests, row["source"], row["model_id"], row["version_id"])
        for row in registry.rows("SELECT source, model_id, version_id FROM model_version")
    }
    out: set[str] = set()
    for path, _ in index.walk(registry.at):
        if path not in listed:
            try:
                out |= {sha.decode() for sha in re.findall(rb"\b[0-9a-f]{64}\b", path.read_bytes())}
            except OSError:
                continue
    return out


def _only_trash(registry: Registry, entries: Iterable[Trashed]) -> dict[str, int]:
    """Blobs that nothing but the trash names → bytes that deleting them frees."""
    out = {}
    for sha in {sha for entry in entries for sha in entry.blobs}:
        if not registry.rows("SELECT 1 FROM installed_file WHERE sha256 = ? LIMIT 1", (sha,)):
            try:
                status = registry.blob_path(sha).stat()
            except OSError:
                continue
            out[sha] = status.st_blocks * 512 if status.st_nlink == 1 else 0
    return out


def trash_frees(registry: Registry, chosen: Sequence[Trashed]) -> int:
    """Bytes that deleting these entries frees; blobs other entries need stay."""
    going = {entry.path for entry in chosen}
    needed = {sha for entry in trash.entries(registry) if entry.path not in going for sha in entry.blobs}
    return sum(size for sha, size in _only_trash(registry, chosen).items() if sha not in needed)


def _stat_blobs(registry: Registry) -> tuple[dict[str, tuple[int, int, float]], dict[str, float]]:
    """sha256 → (allocated, links, when its newest name came), and → when it was last read, where that is kept."""
    sizes: dict[str, tuple[int, int, float]] = {}
    reads: dict[str, float] = {}
    keeps_reads = _keeps_access_times(registry.home)
    for folder in usage.folders(registry.blobs.root):
        for entry in os.scandir(folder):
            if not re.fullmatch(r"[0-9a-f]{64}", entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            sizes[entry.name] = (status.st_blocks * 512, status.st_nlink, max(status.st_mtime, status.st_ctime))
            if keeps_reads:
                reads[entry.name] = status.st_atime
    return sizes, _without_sweeps(reads)


def _without_sweeps(reads: Mapping[str, float]) -> dict[str, float]:
    """Reads that say something: on a day on which most files were read, a backup or a scanner came by."""
    days = Counter(int(stamp // DAY) for stamp in reads.values())
    swept = {day for day, count in days.items() if count > max(FEW, len(reads) // 2)}
    return {sha: stamp for sha, stamp in reads.items() if int(stamp // DAY) not in swept}


def _keeps_access_times(folder: Path) -> bool:
    """Whether this volume remembers reads (mounts with `noatime` do not)."""
    try:
        return not os.statvfs(folder).f_flag & getattr(os, "ST_NOATIME", 1024)
    except OSError:
        return False


def _installed(
    registry: Registry, reads: Mapping[str, float], locked: Mapping[str, str], now: datetime
) -> tuple[dict[str, set[Key]], list[Version]]:
    rows = registry.rows(
        "SELECT v.source, v.version_id, v.model_id, v.model_name, v.name, v.type, v.base_model, v.installed_at, "
        "v.summary, n.pinned, n.last_used_at, group_concat(f.sha256) AS shas FROM model_version v "
        "JOIN installed_file f USING (source, version_id) LEFT JOIN user_note n USING (source, version_id) "
        "GROUP BY v.source, v.version_id"
    )
    users: dict[str, set[Key]] = {}
    for row in rows:
        for sha in row["shas"].split(","):
            users.setdefault(sha, set()).add((row["source"], row["version_id"]))
    parents = _parents(rows)
    runs = _runs(registry)
    versions = []
    for row in rows:
        key = (row["source"], row["version_id"])
        shas = tuple(dict.fromkeys(row["shas"].split(",")))
        never: tuple[str, ...] = ("pinned",) if row["pinned"] else ()
        never += tuple(sorted({f"locked by {locked[sha]}" for sha in shas if sha in locked}))
        careful = tuple(sorted({f"`{name}` was merged from it" for sha in shas for name in parents.get(sha, ())}))
        if count := runs.get(row["version_id"]):
            careful += (f"{count} recorded {'run' if count == 1 else 'runs'} used it",)
        used_at, how = _last_use(row, [reads[sha] for sha in shas if sha in reads], now)
        versions.append(
            Version(
                *key, row["model_id"], row["model_name"], row["name"], row["type"], row["base_model"], shas, used_at,
                how, never, careful,
            )
        )  # fmt: skip
    return users, versions


def _last_use(row: Any, reads: Sequence[float], now: datetime) -> tuple[datetime, str]:
    """When a version was last used: by a command here, or read by a UI after the day it came."""
    installed = _moment(row["installed_at"], now)
    used, how = installed, "installed"
    if row["last_used_at"] and (said := _moment(row["last_used_at"], now)) >= used:
        used, how = said, "used"
    for stamp in reads:
        read = datetime.fromtimestamp(stamp, UTC)
        if read > used and (read - installed).total_seconds() > GRACE and read <= now:
            used, how = read, "read"
    return used, how


def _moment(text: str, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return otherwise
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _parents(rows: Sequence[Any]) -> dict[str, list[str]]:
    """Blob → names of installed versions that were merged or trained from it."""
    out: dict[str, list[str]] = {}
    for row in rows:
        if row["summary"] and '"parents"' in row["summary"]:
            for sha in json.loads(row["summary"])["parents"]:
                out.setdefault(sha, []).append(row["model_name"])
    return out


def _runs(registry: Registry) -> dict[int, int]:
    """Version id → how many recorded runs used it."""
    counts: dict[int, int] = {}
    for row in registry.rows("SELECT used FROM run"):
        for version_id in json.loads(row["used"] or "[]"):
            counts[version_id] = counts.get(version_id, 0) + 1
    return counts


def _names(registry: Registry) -> dict[str, int]:
    """Blob → how many hardlinks of ours it has besides the blob itself."""
    names: dict[str, int] = {}
    for sql in (
        "SELECT sha256, count(DISTINCT path) FROM installed_file WHERE placed = 'hardlink' GROUP BY sha256",
        "SELECT sha256, count(*) FROM link WHERE kind = 'hardlink' GROUP BY sha256",
    ):
        for sha, count in registry.rows(sql):
            names[sha] = names.get(sha, 0) + count
    return names


def _partials(registry: Registry, clock: float) -> Iterator[tuple[Path, int, float]]:
    folder = registry.home / "partial"
    for path in partial.stale(folder, older_than=0, now=clock):
        for each in (path, path.with_suffix(".json")):
            try:
                status = each.lstat()
            except OSError:
                continue
            yield each, status.st_blocks * 512, clock - status.st_mtime


def _leftovers(registry: Registry, clock: float) -> Iterator[tuple[Path, int]]:
    """What killed processes left: half-written files, names in tree/ no row has, journals without their download."""
    home = registry.home
    for path in trash.leftovers(registry):
        yield path, _disk(path)
    parts = home / "partial"
    lonely = (p for p in parts.glob("*.json") if not p.with_suffix(".part").exists())
    halves = (
        path
        for root in (home / "manifests", home / "tree", home / "images", home / "previews", home / "trash", parts)
        for path in usage.tree_files(root)
        if path.name.startswith(".") and path.name.endswith(".tmp")
    )
    strange = (path for path in usage.tree_files(registry.blobs.root) if not re.fullmatch(r"[0-9a-f]{64}", path.name))
    backups = (path for path in home.glob("index.backup.*.tmp"))
    top = (path for path in home.glob(".*") if path.is_file() and path.suffix in {".tmp", ".clone"})
    for path in (*lonely, *halves, *strange, *backups, *top, *_strays(registry)):
        try:
            status = path.lstat()
        except OSError:
            continue
        if clock - max(status.st_mtime, status.st_ctime) > GRACE:
            yield path, status.st_blocks * 512 if status.st_nlink == 1 else 0


def _strays(registry: Registry) -> Iterator[Path]:
    """Names in tree/ that no row has and that show bytes of ours; files of their own there are somebody's.

    One that a UI's symlink goes by stays until `link repair` has pointed that to the new name.
    """
    listed = {row["path"] for row in registry.rows("SELECT path FROM installed_file")}
    in_use = set()
    for row in registry.rows("SELECT path FROM link WHERE kind = 'symlink'"):
        with suppress(OSError):
            in_use.add(os.readlink(row["path"]))  # noqa: PTH115 - text, to compare
    for path in usage.tree_files(registry.home / "tree"):
        name = path.relative_to(registry.home).as_posix()
        if name not in listed and str(path) not in in_use and not path.name.endswith(".tmp"):
            try:
                if path.is_symlink() or path.stat().st_nlink > 1:
                    yield path
            except OSError:
                continue


def _damaged(registry: Registry) -> Iterator[tuple[Path, int]]:
    """Bytes that were not what their name said, and indexes SQLite could not read: kept until somebody says otherwise.

    An edit made through a hardlink is still shown by that hardlink, so taking ours frees nothing.
    """
    home = registry.home
    for path in (*usage.tree_files(home / "damaged"), *home.glob("index.damaged.*")):
        with suppress(OSError):
            status = path.lstat()
            yield path, status.st_blocks * 512 if status.st_nlink == 1 else 0


def _sized(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        yield path, _disk(path)


def _disk(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


# --- doing ------------------------------------------------------------------------------------------------------------


def execute(
    registry: Registry, plan: PrunePlan, *, on_step: Callable[[int, int, str], None] = lambda done, total, what: None
) -> PruneReport:
    """Carry a plan out: names before the bytes they name. What changed meanwhile is left alone. Raises Busy."""
    from registry.local import remove_empty

    total = len(plan.items)
    freed = waiting = versions = others = 0
    going = plan.of("version")
    together = 1 if plan.trash_days else trash.CHUNK  # the trash keeps a reason for each
    for start in range(0, len(going), together):
        some = [item for item in going[start : start + together] if not _is_protected(registry, item.key)]
        if some:
            on_step(versions, total, some[0].label)
            removal = registry.plan_remove([item.key for item in some if item.key])
            why = "prune: " + "; ".join(some[0].reasons)
            report = trash.remove(registry, removal, to_trash=plan.trash_days > 0, reason=why)
            versions += report.versions
            freed += report.freed
            waiting += report.waiting
    due = {item.path for item in plan.of("trash")}
    if due:
        chosen = [entry for entry in trash.entries(registry) if entry.path in due]
        freed += trash.empty(registry, chosen)
        others += len(chosen)
    orphans = plan.of("orphan")
    freed += trash.delete_blobs(registry, [item.sha256 for item in orphans if item.sha256], grace=GRACE)
    others += sum(1 for item in orphans if item.sha256 and not registry.has(item.sha256))
    for item in plan.of("partial", "leftover", "picture", "damaged"):
        if item.path is not None and _still_goes(registry, item):
            on_step(versions + others, total, item.label)
            item.path.unlink(missing_ok=True)
            remove_empty(item.path.parent, registry.home)
            freed += item.frees
            others += 1
    return PruneReport(freed, waiting, versions, others)


def _is_protected(registry: Registry, key: Key | None) -> bool:
    """Pinned since the plan was made."""
    return key is None or bool(
        registry.rows("SELECT 1 FROM user_note WHERE source = ? AND version_id = ? AND pinned", key)
    )


def _still_goes(registry: Registry, item: Item) -> bool:
    """Whether a file is still what the plan took it for: nobody resumed the download, no version took the name."""
    path = item.path
    if path is None:
        return False
    if item.kind == "partial":
        part = path.with_suffix(".part")
        return not part.exists() or part in set(partial.stale(path.parent, older_than=0, now=time.time()))
    if path.parent == registry.home / "trash" and path.suffix == ".json":
        return path in trash.leftovers(registry)  # not a version that is being replaced at this moment
    if path.is_relative_to(registry.home / "tree"):
        name = path.relative_to(registry.home).as_posix()
        return not registry.rows("SELECT 1 FROM installed_file WHERE path = ?", (name,))
    return True
