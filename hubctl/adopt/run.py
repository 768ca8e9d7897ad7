"""Carrying a survey out: read what must be read, ask the hub in batches, link into the store, write manifests."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubctl.adopt.survey import NO_COPY, Duplicate, Item, Plan
from hubctl.adopt.who import PROBE, Known, asks, by_sidecar, local, model_of, own_file, probe, recognise, settle, why
from hubctl.errors import InvalidReference, KnownError, NotFound, VerificationFailed
from hubctl.hubs import source_of
from registry import scan, sidecars
from registry.scan import Found, Note, Skipped

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from registry import Registry, wire

logger = logging.getLogger(__name__)
BATCH = 400  # files named at once
PATIENCE = 20.0  # seconds after which fewer are named
OFTEN = 0.5  # seconds between two commits of the scan table
OnBytes = Callable[[int, int, str], None]  # bytes done, bytes in all, file
OnEvent = Callable[..., None]


def _nothing(*_: Any, **__: Any) -> None:
    """Nobody listens."""


@dataclass
class Report:
    """What an adoption did."""

    adopted: list[tuple[str, int, int]] = field(default_factory=list)  # source, model id, version id
    files: list[dict[str, Any]] = field(default_factory=list)
    known: int = 0
    local: int = 0
    unchanged: int = 0
    renamed: int = 0  # local versions the hub knows by now
    recognised: int = 0  # named by probes only
    duplicates: list[Duplicate] = field(default_factory=list)
    deduplicated: int = 0
    gained: int = 0  # bytes
    notes: int = 0  # versions that got a person's words from a sidecar
    bytes_read: int = 0
    seconds: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def to_gain(self) -> int:
        return sum(_allocated(each.found.path) for each in self.duplicates)

    def to_json(self) -> dict[str, Any]:
        return {
            "adopted": self.files,
            "known": self.known,
            "local": self.local,
            "unchanged": self.unchanged,
            "renamed": self.renamed,
            "recognised": self.recognised,
            "duplicates": [each.to_json() for each in self.duplicates],
            "to_gain": self.to_gain,
            "deduplicated": self.deduplicated,
            "gained": self.gained,
            "notes": self.notes,
            "bytes_read": self.bytes_read,
            "seconds": round(self.seconds, 3),
            "skipped": [each.to_json() for each in self.skipped],
            "warnings": self.warnings,
        }


def _allocated(path: Path) -> int:
    from registry.fs import allocated

    try:
        return allocated(path)
    except OSError:
        return 0


@dataclass(frozen=True)
class Options:
    """How to adopt."""

    quick: bool = False  # no file larger than a probe is read whole
    dedupe: bool = False
    other_volume: str = "skip"  # skip · reference · copy · move
    threads: int | None = None
    kinds: tuple[str, ...] = ("reflink", "hardlink")  # of the links that replace duplicates


def execute(
    made: Plan,
    registry: Registry,
    hub: Hub | None,
    *,
    options: Options = Options(),
    on_bytes: OnBytes = _nothing,
    on_event: OnEvent = _nothing,
) -> Report:
    """Carry a survey or plan out. Ctrl-C loses nothing that was read: the same command continues.

    Without a hub, files are named by their sidecars or kept as local versions, and a later run with a hub asks again.
    """
    return _Run(made, registry, hub, options, on_bytes, on_event).go()


class _Run:
    """One execution. Files are read on a few threads; the store and the index are changed by this one."""

    def __init__(
        self, made: Plan, registry: Registry, hub: Hub | None, options: Options, on_bytes: OnBytes, on_event: OnEvent
    ) -> None:
        self.plan, self.registry, self.hub, self.options = made, registry, hub, options
        self.on_bytes, self.on_event = on_bytes, on_event
        self.report = Report(unchanged=made.unchanged, skipped=list(made.skipped), duplicates=list(made.copies))
        self.written = scan.sidecars_written(registry)
        self.pending: list[Item] = []
        self.notes: list[Note] = []
        self.named_at = self.noted_at = time.monotonic()
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.total = self.elsewhere = 0

    def go(self) -> Report:
        started = time.perf_counter()
        scan.forget(self.registry, self.plan.gone)
        try:
            self._take_all(self.plan.ready)
            if self.options.quick:
                self._read([item for item in self.plan.to_read if item.found.size <= PROBE])
                self._recognise_only()
            else:
                self._read([*self.plan.to_read])
                self._sort_likely()
            self._name(self.pending)
        finally:
            self._write_notes()
            self.report.seconds = time.perf_counter() - started
        if self.elsewhere:
            self._warn(
                f"{self.elsewhere} files are on another volume than {self.registry.home}: "
                "--copy, --move or --reference brings them in, or use a --home on that volume"
            )
        self._ask_again()
        self._retell()
        if self.options.dedupe:
            self._dedupe()
        return self.report

    # reading

    def _take_all(self, items: Sequence[Item]) -> None:
        for item in items:
            if self._probed(item):
                self.pending.append(item)
                self._name_when_due()

    def _probed(self, item: Item) -> bool:
        try:
            if not item.facts:
                probe(item, self.written)
        except (KnownError, OSError) as error:
            self._refuse(item, error)
            return False
        return True

    def _refuse(self, item: Item, error: KnownError | OSError) -> None:
        """Leave a file as it is; what its bytes are to blame for is not tried again while they are the same."""
        self._skip(item, why(error))
        if isinstance(error, VerificationFailed):
            self.notes += [Note(found, facts={"refused": error.message}) for found in item.every]

    def _skip(self, item: Item, why: str) -> None:
        self.report.skipped.append(Skipped(item.path, why))
        self.on_event("skipped", path=str(item.path), why=why)

    def _read(self, items: list[Item]) -> None:
        self.total += sum(item.found.size for item in items)
        threads = self.options.threads or self.plan.threads
        waiting = iter(items)
        running: dict[Future[None], Item] = {}
        with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
            try:
                while True:
                    for item in waiting:
                        running[pool.submit(self._read_one, item)] = item
                        if len(running) >= 2 * threads:
                            break
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._was_read(running[future], future)
                        del running[future]
                    self._name_when_due()
            except BaseException:
                self.stop.set()
                for future in running:
                    future.cancel()
                for future, item in running.items():  # what is read is kept
                    if not future.cancelled():
                        wait([future])
                        if future.exception() is None:
                            self.notes.append(Note(item.found, item.sha256, item.autov1))
                raise

    def _read_one(self, item: Item) -> None:
        probe(item, self.written)
        item.sha256 = scan.digest(item.found, on_bytes=lambda count: self._progress(count, item), stop=self.stop)

    def _progress(self, count: int, item: Item) -> None:
        with self.lock:
            self.report.bytes_read += count
            done = self.report.bytes_read
        self.on_bytes(done, self.total, item.path.name)

    def _was_read(self, item: Item, future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, KnownError | OSError):
            self._refuse(item, error)
        elif error is not None:
            raise error
        else:
            self.notes.append(Note(item.found, item.sha256, item.autov1))
            self.on_event("hashed", path=str(item.path), sha256=item.sha256, bytes=item.found.size)
            self.pending.append(item)
            if time.monotonic() - self.noted_at > OFTEN:
                self._write_notes()

    def _write_notes(self) -> None:
        if self.notes:
            scan.remember(self.registry, self.notes)
            self.notes = []
        self.noted_at = time.monotonic()

    def _recognise_only(self) -> None:
        large = [item for item in [*self.plan.to_read, *self.plan.likely] if item.found.size > PROBE]
        items = [item for item in large if self._probed(item)]
        if self.hub is not None and not self.plan.named:
            try:
                recognise(items, self.hub, singles=None)
            except KnownError as error:
                self._warn(f"{error.message}: names are those the sidecars give")
        for item in items:
            item.known = item.known or by_sidecar(item, sure=False)
            self.report.recognised += item.known is not None
            facts = {"recognised": item.known.to_json() if item.known else None}
            self.notes += [Note(found, None, item.autov1, facts=facts) for found in item.every]
        self.report.duplicates += [d for d in self.plan.duplicates() if not d.sure]

    def _warn(self, text: str) -> None:
        self.report.warnings.append(text)
        self.on_event("warning", message=text)

    def _sort_likely(self) -> None:
        """Sampled twins: with --dedupe they are compared byte by byte later, so those that differ are read now."""
        apart: list[Item] = []
        for item in self.plan.likely:
            sha256 = item.like_sha or (item.like.sha256 if item.like else None)
            if sha256 is None:  # the one it is like could not be read
                apart.append(item)
            else:
                item.like_sha = sha256
        self._read(apart)
        self._name(self.pending)
        for item in self.plan.likely:
            if item in apart or not item.like_sha:
                continue
            of = self.registry.blob_path(item.like_sha)
            self.report.duplicates += [Duplicate(found, item.like_sha, of, sure=False) for found in item.every]
            versions = scan.versions_with(self.registry, item.like_sha)
            if versions and self._probed(item):
                source, _, version_id = versions[0]
                facts = {"like": item.like_sha}
                self.notes += [
                    Note(f, None, item.autov1, source=source, version_id=version_id, facts=facts) for f in item.every
                ]
                self._hear(item, source, version_id)

    # naming

    def _name_when_due(self) -> None:
        if len(self.pending) >= BATCH or (self.pending and time.monotonic() - self.named_at > PATIENCE):
            self._name(self.pending)

    def _name(self, items: list[Item]) -> None:
        """Ask who these files are, all at once, and take them in."""
        self.pending = []
        self.named_at = time.monotonic()
        self._write_notes()
        groups: dict[str, list[Item]] = {}
        for item in items:
            groups.setdefault(item.sha256 or "", []).append(item)
        here = {sha: scan.versions_with(self.registry, sha) for sha in groups}
        unknown = [members[0] for sha, members in groups.items() if not here[sha]]
        self._ask(unknown)
        for sha, members in groups.items():
            for item in members:  # the richest sidecar may be beside any of the copies
                item.known = members[0].known
            try:
                self._take_in(members, here[sha])
            except (KnownError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _FATAL:
                    raise
                self._skip(members[0], why(error))
                self.elsewhere += isinstance(error, scan.OtherVolume)
        self._write_notes()

    def _ask(self, items: Sequence[Item]) -> None:
        """The hub by SHA256 in batches, then what it does not know by the hash behind the header; sidecars last."""
        if self.hub is not None and items:
            try:
                self._ask_hub(self.hub, items)
            except KnownError as error:
                self._warn(f"{error.message}: what it would know is kept as local versions and asked again next time")
                self.hub = None
        for item in items:
            item.known = item.known if item.known and item.known.sure else by_sidecar(item)

    def _ask_hub(self, hub: Hub, items: Sequence[Item]) -> None:
        by_sha = {item.sha256 or "": item for item in items}
        ids = hub.ids_by_hash(by_sha)
        versions = dict(hub.by_hashes(ids)) if ids else {}
        for sha, item in by_sha.items():
            chosen = self._as_the_sidecar_says(hub, item, ids.get(sha)) or versions.get(sha)
            item.known = None
            if chosen is not None:
                file = next((each for each in chosen.files if each.sha256 == sha), None)
                item.known = Known(source_of(chosen, hub), model_of(chosen), chosen, file or own_file(item), "SHA256")
            item.asked = True
        for item in items:
            if item.known is None:
                item.known = self._by_payload(hub, item)
        self._details(hub, [item for item in items if item.known])

    def _as_the_sidecar_says(self, hub: Hub, item: Item, found: tuple[int, int] | None) -> wire.ModelVersion | None:
        """Two versions can have the same bytes: the one a person downloaded is the one their sidecar names."""
        claimed = item.said.version_id
        if found is None or claimed is None or claimed == found[1]:
            return None
        try:
            version = hub.version(claimed)
        except (NotFound, InvalidReference):
            return None
        return version if any(each.sha256 == item.sha256 for each in version.files) else None

    def _by_payload(self, hub: Hub, item: Item) -> Known | None:
        """A file whose header was edited has another SHA256 but the same tensors."""
        from registry import hashes

        if hashes.payload_start(item.path) is None:
            return None
        claims = [value[:12] for value in item.claimed.values() if len(value) >= 12]
        if claims and not any(asks(hub, value) for value in claims):
            return None  # the header says which tensors it holds, and the hub knows none such: no second reading
        item.autov3 = hashes.autov3(item.path)
        if item.autov3 is None:
            return None
        try:
            version = hub.by_hash(item.autov3)
        except (NotFound, InvalidReference):
            return None
        for file in version.files:
            value = file.hashes.get("AutoV3")
            if isinstance(value, str) and value[:12].upper() == item.autov3:
                ours = own_file(item, of=file)
                return Known(source_of(version, hub), model_of(version), version, ours, "AutoV3")
        return None

    def _details(self, hub: Hub, items: Sequence[Item]) -> None:
        """Descriptions, tags and licences of the models, a hundred a call."""
        wanted = sorted({item.known.model.id for item in items if item.known and item.known.source != "local"})
        models = {model.id: model for model in hub.models(wanted)} if wanted else {}
        for item in items:
            if item.known and (model := models.get(item.known.model.id)):
                item.known = replace(item.known, model=model)

    # taking in

    def _take_in(self, members: list[Item], here: list[tuple[str, int, int]]) -> None:
        item = members[0]
        sha256 = item.sha256 or ""
        how = scan.take(self.registry, item.found, sha256, other_volume=self.options.other_volume)
        if here:
            source, _, version_id = here[0]
        else:
            known = item.known or local(item, scan.local_id(self.registry, sha256))
            try:
                self._record(item, known)
            except NotFound:  # the blob was an orphan for a moment, and a prune took it
                how = scan.take(self.registry, item.found, sha256, other_volume=self.options.other_volume)
                self._record(item, known)
            source, version_id = known.source, known.version.id
            self._count(item, known)
        blob = self.registry.blob_path(sha256).stat()
        for each in members:
            before = scan.facts_of(self.registry, [each.path]).get(str(each.path), {}).get("joined")
            joined = how if each is item and how != "here" else before or "here"
            facts: dict[str, Any] = {"asked": each.asked or item.asked or source != "local", "joined": joined}
            same = each.found.node == (blob.st_dev, blob.st_ino) or joined in NO_COPY
            self.notes += [Note(f, sha256, each.autov1, item.autov3, source, version_id, facts) for f in each.every]
            if not same:
                self.report.duplicates += [
                    Duplicate(f, sha256, self.registry.blob_path(sha256), sure=True) for f in each.every
                ]
            self._hear(each, source, version_id)
        if how == "move":
            self._point_to_store(item, sha256)

    def _count(self, item: Item, known: Known) -> None:
        self.report.adopted.append((known.source, known.model.id, known.version.id))
        self.report.known += known.source != "local"
        self.report.local += known.source == "local"
        entry = {
            "path": str(item.path), "ref": f"{known.model.id}@{known.version.id}", **known.to_json(),
            "type": known.model.type, "base_model": known.version.base_model, "sha256": item.sha256,
            "size": item.found.size,
        }  # fmt: skip
        self.report.files.append(entry)
        self.on_event("adopted", **entry)

    def _record(self, item: Item, known: Known) -> None:
        from registry import Manifest

        sha256 = item.sha256 or ""
        version = known.version.model_copy(update={"model_id": known.model.id})
        if all(each.id != known.file.id for each in version.files):
            version = version.model_copy(update={"files": [*version.files, known.file]})
        previous = self.registry.get(version.id, source=known.source)
        files = {f.file_id: f.sha256 for f in previous.files} if previous else {}
        if previous:  # what was recorded at install is fuller than what by-hash gives
            extra = [f for f in version.files if all(f.id != old.id for old in previous.version.files)]
            version = previous.version.model_copy(update={"files": [*previous.version.files, *extra]})
        model = previous.model if previous else known.model
        if files.get(known.file.id) not in {None, sha256}:  # the hub's file was replaced: both are kept
            own = own_file(item, of=known.file)
            version = version.model_copy(update={"files": [*version.files, own]})
            known = replace(known, file=own)
        self.registry.add(
            Manifest(known.source, model, version, {**files, known.file.id: sha256}),
            facts={known.file.id: item.facts},
            settings=previous.settings if previous else settle(known, item),
        )
        if version.images and previous is None:
            self.registry.put_images(version.id, version.images, source=known.source)
        self._keep_picture(item, known.source, version.id)

    def _keep_picture(self, item: Item, source: str, version_id: int) -> None:
        from registry import beside

        if item.said.preview:
            try:
                path = item.path.with_name(item.said.preview)
                if path.stat().st_size <= beside.LARGEST_PREVIEW:
                    beside.keep_preview(self.registry, source, version_id, path.read_bytes())
            except (OSError, KnownError) as error:
                logger.debug("no preview from %s: %s", item.path, error)

    def _hear(self, item: Item, source: str, version_id: int) -> None:
        """A person's own words in a sidecar win over the hub's, but not over what they said to hubctl since."""
        said, installed = item.said, self.registry.get(version_id, source=source)
        if installed is None:
            return
        before = scan.said_by_user(self.registry, source, version_id)
        edited = any(str(item.path.with_name(name)) in self.written for name in said.files)
        hub_words = installed.version.trained_words if source != "local" else ()
        heard: dict[str, Any] = {
            "words": sidecars.own_words(said, hub_words),
            "weight": said.weight,
            "notes": said.notes,
            "tags": ["favorite"] if said.favorite else None,
        }
        new = {name: value for name, value in heard.items() if value is not None and (edited or name not in before)}
        if "words" in new and before.get("words") == json.dumps(new["words"], ensure_ascii=False):
            del new["words"]
        new = {name: value for name, value in new.items() if name == "words" or before.get(name) != value}
        if new:
            self.registry.note(version_id, source=source, **new)
            self.report.notes += 1

    def _retell(self) -> None:
        for item in self.plan.retold:
            versions = scan.versions_with(self.registry, item.sha256 or item.like_sha or "")
            if versions and self._probed(item):
                self._hear(item, versions[0][0], versions[0][2])
            facts = scan.facts_of(self.registry, [item.path]).get(str(item.path), {})
            if versions:
                note = Note(item.found, item.sha256, item.autov1, None, versions[0][0], versions[0][2], facts)
                self.notes.append(note)
        self._write_notes()

    # afterwards

    def _ask_again(self) -> None:
        """Local versions no hub was asked about: adopted offline, or while the hub was away."""
        again = {sha: number for sha, number in self.plan.again.items() if self.registry.has(sha)}
        if self.hub is None or not again:
            return
        items = []
        for sha256 in again:
            path = self.registry.blob_path(sha256)
            status = path.stat()
            found = Found(str(path), status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev, None, None)
            items.append(Item(found, sha256=sha256))
        self._ask(items)
        for item in items:
            number = again[item.sha256 or ""]
            installed = self.registry.get(number, source="local")
            if item.known is None or installed is None:
                scan.asked(self.registry, item.sha256 or "", item.asked)
                continue
            item.facts = installed.files[0].facts if installed.files else {}
            self._record(item, item.known)
            to = (item.known.source, item.known.version.id)
            scan.pass_on_notes(self.registry, "local", number, to)
            self.registry.remove(self.registry.plan_remove([("local", number)]))
            scan.renamed(self.registry, item.sha256 or "", *to)
            self.report.renamed += 1
            self._count(item, item.known)

    def _point_to_store(self, item: Item, sha256: str) -> None:
        """--move: the name stays and shows the store's bytes."""
        shown = _tree_path(self.registry, sha256)
        try:
            kind = scan.replace_by_link(self.registry, item.found, sha256, shown, ("symlink",))
            self.on_event("moved", path=str(item.path), how=kind)
        except (KnownError, OSError) as error:
            self._warn(f"`{item.path}` was copied and stays where it is: {why(error)}")

    def _dedupe(self) -> None:
        """Replace second copies by links to the store. Each is compared byte by byte just before."""
        left: list[Duplicate] = []
        wrong: list[Item] = []
        for each in self.report.duplicates:
            sha256 = each.sha256 or ""
            size = _allocated(each.found.path)
            try:
                kind = scan.replace_by_link(
                    self.registry, each.found, sha256, _tree_path(self.registry, sha256), self.options.kinds
                )
            except scan.Changed as error:
                if each.sure:
                    self._skip(Item(each.found), error.message)
                else:  # alike in every sample, and yet other bytes: a model of its own
                    wrong.append(Item(each.found))
                continue
            except (KnownError, OSError) as error:
                left.append(each)
                self._skip(Item(each.found), why(error))
                continue
            self.report.deduplicated += 1
            self.report.gained += size
            self.on_event("deduplicated", path=str(each.found.path), how=kind, bytes=size)
            self._note_replaced(each, sha256, kind)
        self.report.duplicates = []
        self._write_notes()
        if wrong:
            self._read(wrong)
            self._name(self.pending)
            self._dedupe()  # among those there may be copies, known by every byte now
        self.report.duplicates += left

    def _note_replaced(self, each: Duplicate, sha256: str, kind: str) -> None:
        status = each.found.path.stat()
        found = each.found._replace(
            size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino, device=status.st_dev
        )
        for source, _, version_id in scan.versions_with(self.registry, sha256)[:1]:
            self.notes.append(
                Note(found, sha256, source=source, version_id=version_id, facts={"asked": True, "joined": kind})
            )


def _fatal() -> frozenset[int]:
    import errno

    return frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


_FATAL = _fatal()


def _tree_path(registry: Registry, sha256: str) -> Path | None:
    for source, _, version_id in scan.versions_with(registry, sha256)[:1]:
        installed = registry.get(version_id, source=source)
        for file in installed.files if installed else ():
            if file.sha256 == sha256:
                return file.path
    return None
