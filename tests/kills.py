"""Work on a home for as long as nobody kills us; and what has to hold after somebody did.

The work is install (from local bytes), an adopt-like add, link, prune, remove, trash, restore, verify, notes and
reindex, through the same functions the commands call; one line on stdout for each step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stocked import manifest, put

from registry import Registry, index, links, prune, trash, verify
from registry import manifest as manifests
from registry.errors import KnownError
from registry.prune import Policy, plan_prune

MODELS = 12
OLD = "2020-01-01T00:00:00+00:00"


def content(number: int) -> bytes:
    return f"bytes of {number % 9} ".encode() * 300  # some versions have the same


def foreign_files(folder: Path) -> dict[str, str]:
    """Somebody's own files, and what they hold."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name.startswith("mine"):
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def prepare(home: Path, ui: Path, foreign: Path) -> None:
    """A home with some versions, a linked UI, and files of somebody's in the UI and elsewhere."""
    (ui / "models/loras").mkdir(parents=True)
    (ui / "models/checkpoints").mkdir(parents=True)
    (ui / "main.py").write_text("")
    foreign.mkdir()
    for number in range(6):
        (foreign / f"mine {number}.safetensors").write_bytes(content(100 + number) + b"foreign")
    (ui / "models/loras/mine.safetensors").write_bytes(b"my own lora")
    (ui / "models/loras/file_3.safetensors").write_bytes(b"mine, under a name that is wanted")
    with Registry.open(home) as registry:
        for number in range(1, 5):
            put(registry, content(number), model_id=number, version_id=number, installed_at=OLD)
        links.add(registry, links.Ui("comfyui", "comfyui", ui, kind="hardlink"))
        links.apply(registry)


class Work:
    def __init__(self, home: Path, ui: Path, foreign: Path, seed: int, *, alone: bool = True) -> None:
        self.home, self.ui, self.foreign, self.alone = home, ui, foreign, alone
        self.random = random.Random(seed)

    def run(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            name = self.random.choice(
                ("install", "install", "adopt", "link", "remove", "to_trash", "restore", "empty", "prune", "notes",
                 "reindex", "verify", "listing", "previews")
            )  # fmt: skip
            sys.stdout.write(name + "\n")
            sys.stdout.flush()
            with Registry.open(self.home) as registry:
                try:
                    getattr(self, name)(registry)
                except KnownError as error:  # somebody else was faster, in the test with eight of us
                    if error.code not in {"not_found", "usage", "no_permission"}:
                        raise

    def install(self, registry: Registry) -> None:
        number = self.random.randrange(1, MODELS)
        kind = self.random.choice(("LORA", "Checkpoint"))
        put(registry, content(number), model_id=number, version_id=number, type=kind, installed_at=OLD)
        links.apply(registry, [("civitai", number)])

    def adopt(self, registry: Registry) -> None:
        """As adopt does: a file outside gets a second name in the store."""
        number = self.random.randrange(6)
        path = self.foreign / f"mine {number}.safetensors"
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        target = registry.blob_path(sha)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(path, target)
        registry.add(manifest(sha, path.stat().st_size, model_id=200 + number, version_id=200 + number))

    def link(self, registry: Registry) -> None:
        if self.random.random() < 0.3:
            links.remove(registry, "comfyui")
            links.add(
                registry,
                links.Ui("comfyui", "comfyui", self.ui, kind=self.random.choice(("hardlink", "symlink", "copy"))),
            )
        links.repair(registry)

    def some(self, registry: Registry) -> list[tuple[str, int]]:
        items = registry.installed()
        return [(i.source, i.version_id) for i in self.random.sample(items, min(len(items), 2))]

    def remove(self, registry: Registry) -> None:
        registry.remove(registry.plan_remove(self.some(registry)))

    def to_trash(self, registry: Registry) -> None:
        registry.remove(registry.plan_remove(self.some(registry)), to_trash=True, reason="at random")

    def restore(self, registry: Registry) -> None:
        for entry in trash.entries(registry)[:2]:
            trash.restore(registry, entry)

    def empty(self, registry: Registry) -> None:
        trash.empty(registry, trash.entries(registry)[:1])

    def prune(self, registry: Registry) -> None:
        later = datetime.now(UTC) + timedelta(days=self.random.choice((0, 0, 1, 8)) if self.alone else 0)
        policy = Policy(free=3000, orphans=True, partials=True, pictures=True)
        prune.execute(registry, plan_prune(prune.look(registry, at=later), policy))

    def notes(self, registry: Registry) -> None:
        for source, version_id in self.some(registry):
            registry.pin(version_id, self.random.random() < 0.3, source=source)
            registry.touch(version_id, source=source)

    def reindex(self, registry: Registry) -> None:
        registry.reindex()

    def verify(self, registry: Registry) -> None:
        verify.mend(registry, verify.check(registry, every=True).problems)

    def listing(self, registry: Registry) -> None:
        registry.installed()
        registry.library(by="ui")
        registry.find("model 3")

    def previews(self, registry: Registry) -> None:
        registry.put_picture(self.random.randrange(5), b"\x89PNG\r\n\x1a\n" + b"x" * 4000)


def promises(home: Path, ui: Path, foreign: Path, mine: dict[str, str]) -> None:
    """What holds however the work ended. The first line is the next command: it has to work."""
    with Registry.open(home) as registry:
        registry.installed()
        for blob in registry.blobs:
            assert hashlib.sha256(registry.blob_path(blob.sha256).read_bytes()).hexdigest() == blob.sha256
        for path, _ in index.walk(registry.at):
            assert all(registry.has(sha) for sha in manifests.load(path).get("files", {}).values()), path
        for entry in trash.entries(registry):
            assert all(registry.has(sha) for sha in entry.blobs), entry.path
        assert {**foreign_files(foreign), **foreign_files(ui)} == {
            k: v for k, v in mine.items() if "mine" in Path(k).name
        }
        taken = ui / "models/loras/file_3.safetensors"
        assert taken.read_bytes() == b"mine, under a name that is wanted"
        assert registry.check() == [], registry.check()
        tidy(registry)
        assert_nothing_leaked(registry, home, ui)
    db = sqlite3.connect(home / "index.db")
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.execute("INSERT INTO search_fts(search_fts) VALUES ('integrity-check')")
    db.close()


def tidy(registry: Registry) -> None:
    """What a person does when told to: repair the links, prune the rubbish."""
    links.repair(registry)
    later = datetime.now(UTC) + timedelta(hours=30)
    rubbish = prune.look(registry, at=later)
    plan = plan_prune(rubbish, Policy(orphans=True, partials=True, trash_days=10_000))
    prune.GRACE, before = -1.0, prune.GRACE
    try:
        prune.execute(registry, plan)
    finally:
        prune.GRACE = before


def assert_nothing_leaked(registry: Registry, home: Path, ui: Path) -> None:
    """After that every file in the home is one that something needs, and every file of ours in the UI has a row."""
    named = {row["sha256"] for row in registry.rows("SELECT sha256 FROM installed_file")} | trash.references(registry)
    assert {blob.sha256 for blob in registry.blobs} == named
    rows = {str(home / row["path"]) for row in registry.rows("SELECT path FROM installed_file")}
    assert {str(path) for path in (home / "tree").rglob("*") if not path.is_dir()} == rows
    loose = [p for p in home.rglob("*") if p.is_file() and (p.name.endswith(".tmp") or p.parent.name == "partial")]
    assert loose == []
    linked = {row["path"] for row in registry.rows("SELECT path FROM link")}
    shown = {str(p) for p in (ui / "models").rglob("*") if not p.is_dir() and p.suffix == ".safetensors"}
    assert shown - linked == {str(ui / "models/loras/mine.safetensors"), str(ui / "models/loras/file_3.safetensors")}
    for row in registry.rows("SELECT * FROM link"):
        if row["inode"] is None and not os.path.lexists(row["path"]):
            continue  # an intent: nothing is there
        assert Path(row["path"]).is_file(), tuple(row)
        assert hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["sha256"], tuple(row)


def facts_are_whole(home: Path) -> bool:
    """Every line of the journal but the last is JSON."""
    lines = (home / "facts.jsonl").read_bytes().split(b"\n")[:-1]
    return all(isinstance(json.loads(line), dict) for line in lines)


def command(home: Path, ui: Path, foreign: Path, seed: int, steps: int = 10_000) -> list[str]:
    """A command line that does the work in a process of its own."""
    script = (
        f"import sys\nfrom registry import Registry\nsys.path.append({str(Path(__file__).parent)!r})\n"
        "import kills\nfrom pathlib import Path\n"
        f"kills.Work(Path({str(home)!r}), Path({str(ui)!r}), Path({str(foreign)!r}), {seed}, alone=False).run({steps})"
    )
    return [sys.executable, "-c", script]
