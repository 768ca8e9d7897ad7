"""Disks that fill up, folders that may only be read, drives that are unplugged, names nobody should have."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stocked import files_du, put

from registry import Registry, prune, trash, verify
from registry.errors import KnownError, NoPermission, NotFound
from registry.migrations import MIGRATIONS
from registry.prune import Policy, plan_prune

HERE = Path(__file__).parents[1]
OLD = "2020-01-01T00:00:00+00:00"


def mounted(folder: Path, *options: str) -> bool:
    folder.mkdir(exist_ok=True)
    return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A volume of 6 MiB of its own, where mounting is allowed."""
    folder = tmp_path / "small"
    if not mounted(folder, "-t", "tmpfs", "-o", "size=6m", "tmpfs"):
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def sound(registry: Registry) -> None:
    """Every promise that can be checked from outside."""
    assert [p for p in verify.check(registry, every=True).problems if p.kind not in {"index", "header"}] == []
    registry.catch_up()
    assert registry.check() == []


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    """Until nothing fits any more: each refusal is a sentence, and what was there before is there."""
    home = small_disk / "home"
    with Registry.open(home) as registry:
        put(registry, b"first" * 1000)
        refusals: list[BaseException] = []
        for number in range(2, 90):
            try:
                put(registry, os.urandom(90_000), model_id=number, version_id=number + 10)
            except (KnownError, OSError) as error:
                refusals.append(error)
                if len(refusals) > 3:
                    break
        assert refusals
    with Registry.open(home, read_only=True) as registry:
        installed = {item.version_id for item in registry.installed()}
        assert len(installed) >= 5
    for junk in (home / "partial").iterdir():
        junk.unlink()
    with Registry.open(home) as registry:
        victim = max(installed)
        registry.remove(registry.plan_remove([("civitai", victim)]))  # room can be made on a full disk
        registry.pin(11)
        sound(registry)
        assert {item.version_id for item in registry.installed()} == installed - {victim}
        assert registry.get(11).pinned


def fill(folder: Path) -> None:
    """To the last byte."""
    with contextlib.suppress(OSError), (folder / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_without_a_byte_left(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """There is not even room for the files that go with an open index: the ballast makes it, and nothing is damaged."""
    from hubctl.cli import run

    def call(*argv: str) -> tuple[int, str]:
        status = run(["--home", str(home), *argv])
        said = capfd.readouterr()
        return status, said.out + said.err

    home = small_disk / "home"
    with Registry.open(home) as registry:
        for number in range(1, 9):
            put(registry, os.urandom(90_000), model_id=number, version_id=number, name="a.ckpt", installed_at=OLD)
    for path in home.glob("index.db-*"):
        path.unlink()
    fill(small_disk)
    for line in ("du", "list", "prune --unused 9 --dry-run", "verify --all", "reindex"):
        assert call(*line.split())[0] == 0, line
    assert call("prune", "--unused", "9", "--free", "200k", "--now", "--yes")[0] == 0
    with Registry.open(home) as registry:
        assert registry.count()[0] == 5
        sound(registry)
    (home / "ballast").unlink(missing_ok=True)
    for path in home.glob("index.db-*"):
        path.unlink()
    fill(small_disk)
    assert call("verify", "--all")[0] == 0
    status, said = call("reindex")
    assert (status, "the disk is full" in said) == (8, True), said
    assert not list(home.glob("index.damaged*"))
    (small_disk / "fill").unlink()
    assert call("reindex")[0] == 0
    with Registry.open(home) as registry:
        assert registry.count()[0] == 5


def test_a_file_size_limit_is_a_full_disk(home: Path) -> None:
    script = (
        "import resource, signal, sys, pathlib\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from stocked import put\nfrom registry import Registry\nfrom registry.errors import NoSpace\n"
        f"r = Registry.open(pathlib.Path({str(home)!r}))\nput(r, b'small')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "try: put(r, bytes(3_000_000), model_id=2, version_id=12)\n"
        "except NoSpace as error: print(error)\n"
        "put(r, b'fits', model_id=3, version_id=13)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "filled up" in done.stdout, done.stderr
    with Registry.open(home) as registry:
        assert {item.version_id for item in registry.installed()} == {11, 13}
        sound(registry)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.fixture
def read_only(home: Path) -> Iterator[Path]:
    """A home on a volume that may only be read; for others than root, folders without write permission."""
    with Registry.open(home) as registry:
        put(registry, b"one", name="one.ckpt")
        registry.pin(11)
    if os.geteuid() == 0:
        if not mounted(home, "--bind", str(home)):
            pytest.skip("root writes everywhere, and mounting is not allowed here")
        subprocess.run(["mount", "-o", "remount,bind,ro", str(home)], check=True)
        yield home
        subprocess.run(["umount", "-l", str(home)], check=True)
    else:
        folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        yield home
        for folder in folders:
            folder.chmod(0o755)


def test_a_home_that_may_only_be_read_can_be_read(read_only: Path) -> None:
    with Registry.open(read_only, read_only=True) as registry:
        assert [item.ref for item in registry.installed()] == ["1@11"]
        assert registry.find("11")[0].pinned
        assert registry.library().total.files == 1
        registry.touch(11)  # is not remembered, and is no error
    with pytest.raises(NoPermission), Registry.open(read_only) as registry:
        put(registry, b"two", model_id=2, version_id=12)


def test_a_home_without_index_that_may_only_be_read(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        registry.pin(11)
    for path in home.glob("index.db*"):
        path.unlink()
    if os.geteuid() == 0 and not mounted(home, "--bind", str(home)):
        pytest.skip("root writes everywhere, and mounting is not allowed here")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(home)], check=False)
    try:
        with Registry.open(home, read_only=True) as registry:
            assert [item.pinned for item in registry.installed()] == [True]
    finally:
        subprocess.run(["umount", "-l", str(home)], check=False)


def test_an_older_index_that_may_only_be_read(home: Path) -> None:
    """What was said then is still seen, and nothing is written."""
    with Registry.open(home) as registry:
        put(registry, b"one")
    for path in home.glob("index.db*"):
        path.unlink()
    with contextlib.closing(sqlite3.connect(home / "index.db", isolation_level=None)) as db:
        MIGRATIONS[0](db)
        db.execute("INSERT INTO migration VALUES (?, '2026')", (MIGRATIONS[0].__name__,))
        db.execute("INSERT INTO user_note(source, version_id, pinned, notes) VALUES ('civitai', 11, 1, 'from then')")
    if os.geteuid() == 0 and not mounted(home, "--bind", str(home)):
        pytest.skip("root writes everywhere, and mounting is not allowed here")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(home)], check=False)
    try:
        with Registry.open(home, read_only=True) as registry:
            assert [(item.ref, item.pinned, item.notes) for item in registry.installed()] == [
                ("1@11", True, "from then")
            ]
            assert registry.check() == []
    finally:
        subprocess.run(["umount", "-l", str(home)], check=False)


def test_looking_at_a_home_that_may_only_be_read(read_only: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from hubctl.cli import run

    for argv in (
        ["du"], ["list"], ["prune", "--unused", "0", "--dry-run"], ["verify"], ["verify", "--all"], ["trash", "list"],
    ):  # fmt: skip
        assert run(["--home", str(read_only), *argv]) == 0, (argv, capfd.readouterr())
    for argv in (["prune", "--unused", "0", "--yes"], ["verify", "--repair"], ["reindex"], ["trash", "empty", "--yes"]):
        assert run(["--home", str(read_only), *argv]) == 1
        assert "cannot be opened for writing" in capfd.readouterr().err


@pytest.mark.parametrize(
    "line", ["du", "list", "verify", "prune --dry-run", "reindex", "trash list", "search --local x", "prune --yes"]
)
def test_a_drive_that_is_not_there_is_no_empty_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    from hubctl.cli import run
    from registry import local

    monkeypatch.setattr(local, "DRIVES", (str(tmp_path),))
    assert run(["--home", str(tmp_path / "away" / "hubctl"), *line.split()]) == 4
    assert "is the drive plugged in?" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_drive_that_is_unplugged(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
    away = tmp_path / "away"
    home.rename(away)
    with Registry.open(home, read_only=True) as registry:
        assert registry.installed() == []
    assert not home.exists()  # looking makes nothing
    with Registry.open(away) as registry:  # found under another name, everything is as it was
        assert registry.installed()[0].files[0].path.read_bytes() == b"one"
        sound(registry)


def test_the_disk_goes_while_it_is_used(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        home.rename(tmp_path / "away")
        with pytest.raises(NotFound, match="is gone"):
            put(registry, b"two", model_id=2, version_id=12)
        assert not home.exists()
        (tmp_path / "away").rename(home)
    with Registry.open(home) as registry:
        sound(registry)


NAMES = [
    "../../etc/passwd.safetensors", "..", ".", "/absolute.safetensors", "C:\\windows\\x.safetensors", "a/../b.pt",
    "CON.safetensors", "nul", "COM1.ckpt", "aux.", "x" * 300 + ".safetensors", "😀" * 100 + ".safetensors", "",
    "\x1b[31mred\x1b[0m.pt", "a\nb.pt", "a\x00b.pt", "‮gpj.exe", "trailing. ", "ﬁ.pt", "e\u0301.pt", "É.pt", "é.pt",
    "A.safetensors", "a.safetensors", "-rf.pt", ".hidden", "name.tmp", ".a.tmp", "%s%n.pt", "$(reboot).pt", "'; DROP",
    "\ud800.pt",
]  # fmt: skip


def test_names_of_strangers(home: Path) -> None:
    """All of them in one folder: each file is found, none leaves the tree, none takes another's name."""
    with Registry.open(home) as registry:
        for number, name in enumerate(NAMES, start=1):
            with contextlib.suppress(UnicodeEncodeError):
                put(registry, b"%d" % number, model_id=number, version_id=number, name=name, model="Same", type="../..")
        paths = {item.version_id: item.files[0].path for item in registry.installed()}
        assert len(paths) >= len(NAMES) - 1
        for number, path in paths.items():
            assert path.read_bytes() == b"%d" % number
            assert path.resolve().is_relative_to(home.resolve() / "tree")
            assert all(len(part.encode()) <= 255 for part in path.parts)
            assert path.name.split(".")[0].casefold() not in {"con", "nul", "com1", "aux", "prn"}
            assert not set(path.name) & set('<>:"/\\|?*\n\x00\x1b')
            assert not path.name.startswith(".")
            assert not path.name.endswith((".", " "))
        sound(registry)
        later = prune.look(registry)
        assert plan_prune(later, Policy(orphans=True)).items == ()
        for number in list(paths)[:5]:
            registry.remove(registry.plan_remove([("civitai", number)]), to_trash=True)
        for entry in trash.entries(registry):
            trash.restore(registry, entry)
        sound(registry)


def test_names_that_differ_only_in_case_do_not_share_a_file(home: Path) -> None:
    """As on a volume where `A` and `a` are one name."""
    with Registry.open(home) as registry:
        put(registry, b"upper", name="A.safetensors", model="M")
        put(registry, b"lower", model_id=2, version_id=12, name="a.safetensors", model="m")
        first, second = (item.files[0].path for item in registry.installed())
        assert str(first).casefold() != str(second).casefold()
        put(registry, b"third", model_id=3, version_id=13, name="A.SAFETENSORS", model="M")
        paths = [str(item.files[0].path).casefold() for item in registry.installed()]
        assert len(set(paths)) == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=80))
def test_any_text_is_a_name(home: Path, name: str, model: str, kind: str) -> None:
    with Registry.open(home) as registry:
        put(registry, b"x", name=name, model=model, type=kind)
        path = registry.get(11).files[0].path
        assert path.read_bytes() == b"x"
        assert path.resolve().is_relative_to(home.resolve() / "tree")
        registry.find(name)
        registry.installed(text=model)
        assert registry.check() == []


def test_a_manifest_that_names_files_elsewhere_reaches_none(home: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.safetensors"
    victim.write_bytes(b"precious")
    with Registry.open(home) as registry:
        put(registry, b"one")
        path = home / "manifests/civitai/1/11.json"
        text = path.read_text()
        for bad in (
            str(victim),
            "../victim.safetensors",
            "tree/../../victim.safetensors",
            "manifests/civitai/1/11.json",
        ):
            tree = registry.rows("SELECT path FROM installed_file")[0]["path"] or "tree"
            path.write_text(
                text.replace(text[text.index('"tree"') :], f'"tree": {{"110": "{bad}"}}, "lineage": null}}')
            )
            assert tree is not None
            registry.reindex()
            assert registry.installed()
            registry.get(11)
        registry.remove(registry.plan_remove([("civitai", 11)]))
        assert victim.read_bytes() == b"precious"
        assert not path.exists()


@pytest.mark.parametrize("missing", [("hardlink",), ("hardlink", "symlink")])
def test_a_volume_without_links(home: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]) -> None:
    """Names in tree/ are symlinks then, or copies; sums, verify, trash and prune know."""
    from registry import fs

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "not here")

    for kind in missing:
        monkeypatch.setitem(fs.LADDER, kind, refuse)
    with Registry.open(home) as registry:
        for number in (1, 2):
            put(registry, b"%d" % number * 9000, model_id=number, version_id=number, name="a.ckpt")
        sound(registry)
        assert registry.library().total.on_disk == files_du(home / "blobs") + files_du(home / "tree")
        assert registry.library().total.freeable == registry.library().total.on_disk
        registry.remove(registry.plan_remove([("civitai", 1)]), to_trash=True)
        trash.restore(registry, trash.entries(registry)[0])
        sound(registry)
        assert plan_prune(prune.look(registry), Policy(orphans=True)).items == ()
        registry.remove(registry.plan_remove([("civitai", 1), ("civitai", 2)]))
        assert files_du(home / "blobs") + files_du(home / "tree") == 0
