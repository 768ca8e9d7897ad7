"""Every older index opens; a newer one is refused; both ways to today's schema lead to the same place."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from stocked import put

from registry import Registry
from registry.errors import TooNew
from registry.migrations import MIGRATIONS, migrate


def schema(db: sqlite3.Connection) -> dict[str, object]:
    tables = [
        r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    ]
    out: dict[str, object] = {name: [tuple(r)[1:] for r in db.execute(f"PRAGMA table_info({name})")] for name in tables}
    out["objects"] = sorted(
        (r[0], r[1]) for r in db.execute("SELECT name, tbl_name FROM sqlite_master WHERE type IN ('index', 'trigger')")
    )
    return out


def test_a_new_index_and_a_migrated_one_are_the_same(tmp_path: Path) -> None:
    new = sqlite3.connect(":memory:", isolation_level=None)
    migrate(new, tmp_path / "index.db")
    old = sqlite3.connect(":memory:", isolation_level=None)
    for step in MIGRATIONS:
        step(old)
    assert schema(new) == schema(old)


def as_of(home: Path, count: int) -> None:
    """Replace the index by one that the first `count` migrations made, with what a user had said then."""
    for path in home.glob("index.db*"):
        path.unlink()
    db = sqlite3.connect(home / "index.db", isolation_level=None)
    for step in MIGRATIONS[:count]:
        step(db)
        db.execute("INSERT INTO migration VALUES (?, '2026')", (step.__name__,))
    db.execute(
        "INSERT INTO user_note(source, version_id, pinned, notes) VALUES ('civitai', 11, 1, 'from the old days')"
    )
    db.execute(
        "INSERT INTO model_version(source, version_id, model_id, name, model_name, trigger_words, explicit, "
        "installed_at, size) VALUES ('civitai', 11, 1, 'v11', 'Model 1', '[]', 1, '2026', 3)"
    )
    db.close()


@pytest.mark.parametrize("count", range(1, len(MIGRATIONS)))
def test_an_older_index_is_backed_up_and_brought_up_to_date(home: Path, count: int) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
    (home / "facts.jsonl").unlink(missing_ok=True)
    as_of(home, count)
    for read_only in (True, False):
        with Registry.open(home, read_only=read_only) as registry:
            item = registry.find("11")[0]
            assert (item.pinned, item.notes) == (True, "from the old days")
            assert registry.check() == []
    backup = sqlite3.connect(home / "index.backup.db")
    assert backup.execute("SELECT notes FROM user_note").fetchone()[0] == "from the old days"
    assert len(backup.execute("SELECT * FROM migration").fetchall()) == count
    with Registry.open(home) as registry:
        registry.touch(11)
    for path in home.glob("index.db*"):
        path.unlink()
    with Registry.open(home) as registry:  # what was said before there was a journal is in it now
        assert registry.find("11")[0].notes == "from the old days"


def test_an_index_of_a_newer_hubctl_is_refused_and_left_as_it_is(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        with registry.transaction() as db:
            db.execute("INSERT INTO migration VALUES ('m999_future', 'later')")
    before = (home / "index.db").read_bytes()
    for read_only in (True, False):
        with pytest.raises(TooNew, match="newer hubctl"):
            Registry.open(home, read_only=read_only)
    with pytest.raises(TooNew):
        Registry.set_damaged_index_aside(home)
    assert (home / "index.db").read_bytes() == before


def test_eight_processes_may_migrate_at_once(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
    as_of(home, 2)
    script = (
        "import pathlib\nfrom registry import Registry\n"
        f"with Registry.open(pathlib.Path({str(home)!r})) as r: assert r.find('11')[0].pinned"
    )
    at_work = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(8)]
    assert [each.communicate()[1] for each in at_work] == [b""] * 8
    assert not list(home.glob("*.tmp"))


def test_eight_processes_may_make_a_home_at_once(home: Path) -> None:
    script = (
        "import pathlib, sys\nsys.path.insert(0, " + repr(str(Path(__file__).parents[1])) + ")\n"
        "from stocked import put\nfrom registry import Registry\nn = int(sys.argv[1])\n"
        f"with Registry.open(pathlib.Path({str(home)!r})) as r: put(r, b'%d' % n, model_id=n, version_id=n)"
    )
    at_work = [subprocess.Popen([sys.executable, "-c", script, str(n)], stderr=subprocess.PIPE) for n in range(1, 9)]
    assert [each.communicate()[1] for each in at_work] == [b""] * 8
    with Registry.open(home) as registry:
        assert registry.count()[0] == 8
        assert registry.check() == []
