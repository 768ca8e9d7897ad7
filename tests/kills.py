"""Work on a home for as long as nobody kills us; and what has to hold after somebody did.

The work is what people do, much of it by the commands themselves: install, adopt, link, prune, remove, trash, restore,
verify and repair, sync and update from hubs on loopback, notes, reindex; one line on stdout for each step.

    world/home       the library          world/foreign    a folder of somebody's, to be adopted
         /ui         ComfyUI, links only       /project    hubctl.toml, hubctl.lock and the tree that sync makes
         /forge      with sidecars and previews
    peers            two libraries, served: the second has newer versions, and other bytes under the same ids
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import library as lib
from stocked import put

from hubctl import lockfile
from registry import Registry, beside, index, links, prune, sidecars, trash, verify
from registry import manifest as manifests
from registry.errors import KnownError
from registry.prune import Policy, plan_prune

MODELS = 12
FOREIGN = 6
SHARED, REPLACED, NEWER = (301, 302), (303, 304), 1301  # versions of the peers
OLD = "2020-01-01T00:00:00+00:00"
FINE = {0, 2, 4, 12}  # exit statuses of a command that another process, or an earlier step, left nothing to do


def content(number: int) -> bytes:
    return lib.lora(random.Random(number % 9 if number < 100 else number), 1)  # some versions have the same


@dataclass(frozen=True)
class World:
    """The folders of one run, and the hubs it may ask."""

    root: Path
    hubs: tuple[str, ...]

    def __getattr__(self, name: str) -> Path:
        if name in {"home", "ui", "forge", "foreign", "project"}:
            return self.root / name
        raise AttributeError(name)

    @property
    def tree(self) -> Path:
        return self.project / "ComfyUI"

    def mine(self) -> dict[str, str]:
        """Somebody's own files, and what they hold; of sidecars, which get fields of ours, what is theirs in them."""
        return {
            str(path): (sidecars.load(path) or {}).get("notes") or hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in (self.foreign, self.ui, self.forge, self.tree)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name.startswith("mine")
        }

    def hubctl(self, *argv: object, hub: int = 0) -> int:
        """A command in this process, unseen; returns its exit status."""
        from hubctl.cli import run

        os.environ["HUBCTL_CONFIG"] = str(self.root / "config.toml")
        (self.home / "api-budget.json").unlink(missing_ok=True)  # nobody is spared by asking slowly here
        with (
            (self.root / f"log.{os.getpid()}").open("a") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            log.write(f"$ {argv}\n")
            return run([*map(str, argv), "--home", str(self.home), "--hub", self.hubs[hub], "--no-input", "--yes"])

    def said(self) -> str:
        """What this process's commands said, for the message of a failure."""
        with contextlib.suppress(FileNotFoundError):
            return (self.root / f"log.{os.getpid()}").read_text()[-3000:]
        return ""


# --- the world --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def peers(root: Path) -> Iterator[tuple[str, ...]]:
    """Two libraries, each served by a `hubctl serve` of its own."""
    serving = []
    try:
        for number in range(2):
            home = root / f"peer{number}"
            with Registry.open(home) as registry:
                _stock_peer(registry, newer=number == 1)
            command = [sys.executable, "-m", "hubctl", "serve", "--port", "0", "-q", "--home", str(home)]
            serving.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        yield tuple(each.stdout.readline().strip() for each in serving if each.stdout)
    finally:
        for each in serving:
            each.terminate()
            each.communicate(timeout=20)


def _stock_peer(registry: Registry, *, newer: bool) -> None:
    for number in range(1, MODELS):
        put(registry, content(number), model_id=number, version_id=number)
    for number in range(0, FOREIGN, 2):
        put(registry, content(100 + number), model_id=200 + number, version_id=200 + number)
    for number in (*SHARED, *REPLACED):
        other = 100 if newer and number in REPLACED else 0
        put(registry, content(number + other), model_id=number, version_id=number)
    if newer:
        put(registry, content(NEWER), model_id=SHARED[0], version_id=NEWER)


def prepare(root: Path, hubs: tuple[str, ...], first_peer: Path) -> World:
    """A home with some versions, two linked UIs, a project, and files of somebody's everywhere."""
    world = World(root, hubs)
    for path in ("ui/models/loras", "ui/models/checkpoints", "forge/models/Lora", "foreign/loras", "project"):
        (root / path).mkdir(parents=True)
    (world.ui / "main.py").write_text("")
    for number in range(FOREIGN):
        path = world.foreign / f"loras/mine {number}.safetensors"
        path.write_bytes(content(100 + number))
        path.with_suffix(".json").write_text(json.dumps({"notes": f"note {number}", "preferred weight": 0.7}))
        path.with_suffix(".preview.png").write_bytes(lib.PNG)
    shutil.copy(world.foreign / "loras/mine 0.safetensors", world.foreign / "loras/mine, a copy.safetensors")
    for folder in (world.ui / "models/loras", world.forge / "models/Lora"):
        (folder / "mine.safetensors").write_bytes(content(120))
        (folder / "mine.json").write_text('{"notes": "mine"}')
        (folder / "file_3.safetensors").write_bytes(WANTED)
    with Registry.open(first_peer) as peer:
        names = (1, 2, *SHARED, *REPLACED)
        entries = [lockfile.entry_of(item, f"m{n}") for n in names if (item := peer.get(n)) is not None]
    (root / "entries.lock").write_text(lockfile.dump_lock(entries))
    need(world, entries)
    (world.tree / "models/loras").mkdir(parents=True)
    (world.tree / "models/loras/mine.safetensors").write_bytes(b"mine, in the tree")
    with Registry.open(world.home) as registry:
        for number in range(1, 5):
            put(registry, content(number), model_id=number, version_id=number, installed_at=OLD)
        for ui in uis(world, "hardlink"):
            links.add(registry, ui)
        links.apply(registry)
    return world


WANTED = b"mine, under a name that is wanted"


def uis(world: World, kind: str) -> list[links.Ui]:
    return [
        links.Ui("comfyui", "comfyui", world.ui, kind=kind),
        links.Ui("forge", "forge", world.forge, kind=kind, sidecars=("a1111", "civitai", "lora-manager", "preview")),
    ]


def need(world: World, entries: list[lockfile.Locked]) -> None:
    """What the project needs from now on."""
    lines = "".join(f'{entry.name} = "{entry.ref}"\n' for entry in entries)
    _replace(world.root, world.project / "hubctl.lock", lockfile.dump_lock(entries))
    _replace(world.root, world.project / "hubctl.toml", f'[models]\n{lines}[ui]\ncomfyui = "ComfyUI"\n')


def _replace(root: Path, path: Path, text: str) -> None:
    beside = root / f"beside.{os.getpid()}"
    beside.write_text(text)
    beside.replace(path)


# --- the work ---------------------------------------------------------------------------------------------------------


STEPS = (
    "install", "install", "adopt", "link", "remove", "to_trash", "restore", "empty", "prune", "notes", "reindex",
    "verify", "listing", "previews", "sync", "sync", "update", "repair", "damage", "edit", "own_pictures",
)  # fmt: skip


class Work:
    def __init__(self, world: World, seed: int, *, alone: bool = True) -> None:
        self.world, self.alone = world, alone
        self.random = random.Random(seed)

    def run(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            name = self.random.choice(STEPS)
            sys.stdout.write(name + "\n")
            sys.stdout.flush()
            with Registry.open(self.world.home) as registry:
                try:
                    getattr(self, name)(registry)
                except KnownError as error:  # somebody else was faster, in the test with eight of us
                    if error.code not in {"not_found", "usage", "no_permission"}:
                        raise

    def command(self, *argv: object) -> None:
        status = self.world.hubctl(*argv, hub=self.random.randrange(2))
        assert status in FINE, f"{argv} → {status}\n{self.world.said()}"

    def install(self, registry: Registry) -> None:
        number = self.random.randrange(1, MODELS)
        kind = self.random.choice(("LORA", "Checkpoint"))
        put(registry, content(number), model_id=number, version_id=number, type=kind, installed_at=OLD)
        links.apply(registry, [("civitai", number)])

    def adopt(self, registry: Registry) -> None:
        folder = self.random.choice((self.world.foreign, self.world.foreign, self.world.ui, self.world.forge))
        options = [option for option in ("--dedupe", "--again", "--quick", "--offline") if self.random.random() < 0.25]
        self.command("adopt", folder, *options)

    def sync(self, registry: Registry) -> None:
        if self.random.random() < 0.5:
            every = lockfile.read_lock(self.world.root / "entries.lock")
            need(self.world, self.random.sample(every, self.random.randrange(1, len(every) + 1)))
        frozen = ("--frozen",) if self.alone else ()  # another process may be between the two files
        status = self.world.hubctl("sync", *frozen, "--project", self.world.project)  # the peer that was locked
        assert status == 0 or (not self.alone and status in FINE), f"sync → {status}\n{self.world.said()}"

    def update(self, registry: Registry) -> None:
        self.command("update", *(["--replace"] if self.random.random() < 0.7 else []))

    def link(self, registry: Registry) -> None:
        if self.random.random() < 0.3:
            name = self.random.choice(("comfyui", "forge"))
            links.remove(registry, name)
            kind = self.random.choice(("hardlink", "symlink", "copy"))
            links.add(registry, next(ui for ui in uis(self.world, kind) if ui.name == name))
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

    def repair(self, registry: Registry) -> None:
        status = self.world.hubctl("verify", "--all", "--repair", hub=self.random.randrange(2))
        fine = FINE if self.alone else FINE | {7}  # another process may remove what is bad before it is fetched
        assert status in fine, f"verify → {status}\n{self.world.said()}"

    def damage(self, registry: Registry) -> None:
        """A disk spoils some bytes, and they are fetched again. Others wait to link, or would show what is spoilt."""
        mine = [number for number in range(1, MODELS) if registry.get(number)]
        if not mine:
            return
        number = self.random.choice(mine)
        sha = hashlib.sha256(content(number)).hexdigest()
        with registry.linking():
            if registry.get(number) is None or not registry.has(sha):
                return
            spoil(self.world, registry, number)
            mend(self.world, registry)

    def edit(self, registry: Registry) -> None:
        """Somebody writes a note into a sidecar that is ours, and into one that nobody has."""
        with registry.linking():
            found = sorted(p for p in self.world.forge.rglob("*.json") if not p.name.startswith("mine"))
            for path in self.random.sample(found, min(2, len(found))):
                data = sidecars.load(path) or {}
                text = f"by hand {self.random.random()}"  # never what hubctl would say by itself
                with (self.world.root / "edited").open("a") as log:
                    print("?", text, data.get("notes"), sep="\t", file=log, flush=True)
                    _replace(self.world.root, path, json.dumps({**data, "notes": text}))
                    print("!", text, data.get("notes"), sep="\t", file=log, flush=True)

    def own_pictures(self, registry: Registry) -> None:
        for source, version_id in self.some(registry):
            beside.keep_preview(registry, source, version_id, lib.PNG)

    def listing(self, registry: Registry) -> None:
        registry.installed()
        registry.library(by="ui")
        registry.find("model 3")

    def previews(self, registry: Registry) -> None:
        registry.put_picture(self.random.randrange(5), b"\x89PNG\r\n\x1a\n" + b"x" * 4000)


def spoil(world: World, registry: Registry, number: int) -> None:
    sha = hashlib.sha256(content(number)).hexdigest()
    _replace(world.root, world.root / "spoilt", str(number))
    blob = registry.blob_path(sha)
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"rot!")


def mend(world: World, registry: Registry) -> None:
    """What `verify --repair` does, with bytes from memory."""
    number = int((world.root / "spoilt").read_text())
    data = content(number)
    sha = hashlib.sha256(data).hexdigest()
    if registry.has(sha) and verify.digest(registry.blob_path(sha)) != sha:
        verify.set_aside(registry, sha)
    with registry.reserve(sha, size=len(data)) as partial:
        partial.reset()
        partial.write(data)
        partial.seal()
    verify.restored(registry, sha)
    (world.root / "spoilt").unlink()


# --- what has to hold -------------------------------------------------------------------------------------------------


def promises(world: World, mine: dict[str, str]) -> None:
    """What holds however the work ended. The first line is the next command: it has to work."""
    with Registry.open(world.home) as registry:
        registry.installed()
        if (world.root / "spoilt").exists():
            mend(world, registry)
        for blob in registry.blobs:
            assert hashlib.sha256(registry.blob_path(blob.sha256).read_bytes()).hexdigest() == blob.sha256
        for path, _ in index.walk(registry.at):
            assert all(registry.has(sha) for sha in manifests.load(path).get("files", {}).values()), path
        for entry in trash.entries(registry):
            assert all(registry.has(sha) for sha in entry.blobs), entry.path
        assert_nothing_foreign_changed(world, mine)
        assert registry.check() == [], registry.check()
        tidy(registry)
        assert_nothing_leaked(registry, world, mine)
    db = sqlite3.connect(world.home / "index.db")
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.execute("INSERT INTO search_fts(search_fts) VALUES ('integrity-check')")
    db.close()
    assert_synced(world, mine)


def assert_nothing_foreign_changed(world: World, mine: dict[str, str]) -> None:
    assert_all_there(world, mine)
    for folder in (world.ui / "models/loras", world.forge / "models/Lora"):
        assert (folder / "file_3.safetensors").read_bytes() == WANTED
    lost = edited(world) - {(sidecars.load(path) or {}).get("notes") for path in world.forge.rglob("*.json")}
    assert not lost, lost


def assert_all_there(world: World, mine: dict[str, str]) -> None:
    there = world.mine()  # and names of ours: adopted files are linked under their own
    changed = {path for path in mine if there.get(path) != mine[path]}
    assert not changed, changed


def edited(world: World) -> set[str]:
    """What somebody wrote into sidecars and did not write over since, wherever their models went."""
    out: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        for line in (world.root / "edited").read_text().splitlines():
            mark, text, before = line.split("\t")
            out.discard(before)
            if mark == "!":
                out.add(text)
    return out


def is_edited(path: Path) -> bool:
    return path.suffix == ".json" and str((sidecars.load(path) or {}).get("notes")).startswith("by hand")


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


def assert_nothing_leaked(registry: Registry, world: World, mine: dict[str, str]) -> None:
    """After that every file in the home is one that something needs, and every file of ours in a UI has a row."""
    home = world.home
    named = {row["sha256"] for row in registry.rows("SELECT sha256 FROM installed_file")} | trash.references(registry)
    assert {blob.sha256 for blob in registry.blobs} == named
    rows = {str(home / row["path"]) for row in registry.rows("SELECT path FROM installed_file")}
    assert {str(path) for path in (home / "tree").rglob("*") if not path.is_dir()} == rows
    loose = [p for p in home.rglob("*") if p.is_file() and (p.name.endswith(".tmp") or p.parent.name == "partial")]
    assert loose == []
    linked = {row["path"] for row in registry.rows("SELECT path FROM link")}
    ours = linked | {row["path"] for row in registry.rows("SELECT path FROM sidecar")}
    for folder in (world.ui / "models", world.forge / "models"):
        there = {str(p) for p in folder.rglob("*") if not p.is_dir()} - mine.keys()
        left = {p for p in there - ours if not p.endswith("file_3.safetensors") and not is_edited(Path(p))}
        assert left == set(), left
    for row in registry.rows("SELECT * FROM link"):
        if row["inode"] is None and not os.path.lexists(row["path"]):
            continue  # an intent: nothing is there
        assert Path(row["path"]).is_file(), tuple(row)
        assert hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["sha256"], tuple(row)
    models = {Path(path).with_suffix("") for path in linked} | {Path(path).with_suffix("") for path in mine}
    for row in registry.rows("SELECT path FROM sidecar"):
        assert any(row["path"].startswith(f"{stem}.") for stem in models), row["path"]


def assert_synced(world: World, mine: dict[str, str]) -> None:
    """The next sync works, and the tree then holds exactly what the lock names, and what was somebody's."""
    status = world.hubctl("sync", "--project", world.project)
    assert status == 0, f"{status}\n{world.said()}"
    entries = lockfile.read_lock(world.project / "hubctl.lock")
    wanted = {(entry.file, entry.sha256) for entry in entries}
    found = {
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in world.tree.rglob("*")
        if not path.is_dir() and str(path) not in mine and path.name != ".hubctl-tree.json"
    }
    assert found == wanted, found ^ wanted
    assert_all_there(world, mine)


def command(world: World, seed: int, steps: int = 10_000) -> list[str]:
    """A command line that does the work in a process of its own."""
    script = (
        f"import sys\nfrom registry import Registry\nsys.path.append({str(Path(__file__).parent)!r})\n"
        "import kills\nfrom pathlib import Path\n"
        f"world = kills.World(Path({str(world.root)!r}), {world.hubs!r})\n"
        f"kills.Work(world, {seed}, alone=False).run({steps})"
    )
    return [sys.executable, "-c", script]
