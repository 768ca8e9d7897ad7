"""The index is derived: whatever happens to it, manifests and the journal of facts give it back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from stocked import manifest, put

from registry import Registry, index
from registry.errors import KnownError, VerificationFailed
from registry.search import Filter


def drop_index(home: Path) -> None:
    for path in home.glob("index.db*"):
        path.unlink()


def said(registry: Registry) -> dict[str, list[tuple[object, ...]]]:
    """Everything the user said, as rows."""
    tables = ("user_note", "ui", "link", "sidecar", "ignored", "lock_root", "queue", "run")
    return {table: sorted(tuple(row) for row in registry.rows(f"SELECT * FROM {table}")) for table in tables}


def say_everything(registry: Registry, home: Path) -> None:
    registry.pin(11)
    registry.note(11, notes="best at dusk\nreally", words=["titan", "ünïcode 😀"], weight=0.85, tags=["favourite"])
    registry.touch(12)
    registry.ignore(2)
    registry.ignore(3, 31)
    registry.enqueue("4201")
    registry.enqueue("gone")
    registry.dequeue("gone")
    registry.add_lock_root(home / "project" / "hubctl.lock")
    picture = home / "runs" / "a.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.with_suffix(".json").write_text(json.dumps({"plan": {"steps": 20}}))
    registry.record_run(
        image_id=7, plan={"steps": 20}, output=picture, similarity=0.5, device="cpu", seconds=1.5,
        versions={"torch": "2"}, used=[11],
    )  # fmt: skip
    with registry.transaction() as db:
        db.execute("INSERT INTO ui VALUES ('comfyui', 'comfyui', '/ui', 'auto', NULL, '[]', '2026')")
        db.execute(
            "INSERT INTO link(path, sha256, source, version_id, layout, kind, created_at, inode, ui) "
            "VALUES ('/ui/a', 'ab', 'civitai', 11, 'comfyui', 'hardlink', '2026', 5, 'comfyui')"
        )
        db.execute("INSERT INTO sidecar VALUES ('/ui/a.json', '{}')")


def test_what_the_user_said_survives_the_index(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        put(registry, b"two", model_id=2, version_id=12)
        say_everything(registry, home)
        before = said(registry)
    assert all(before.values())
    for again in (lambda r: None, Registry.reindex):
        drop_index(home)
        with Registry.open(home) as registry:
            again(registry)
            assert said(registry) == before
            item = registry.find("11")[0]
            assert (item.pinned, item.notes, item.own_weight) == (True, "best at dusk\nreally", 0.85)
            assert (item.trigger_words, item.tags) == (("titan", "ünïcode 😀"), ("favourite",))
            assert registry.runs()[0].plan == {"steps": 20}


def test_a_cut_off_line_of_the_journal_costs_that_line(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        registry.pin(11)
    journal = home / "facts.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"put": "user_note", "source": "civit')
    with Registry.open(home) as registry:
        registry.note(11, notes="after the cut")
    with journal.open("ab") as file:
        file.write(
            b'not json\n[1]\n{"put": "nothing"}\n{"put": "user_note", "source": "x"}\n{"put": "queue", "ref": [1]}\n'
        )
    drop_index(home)
    with Registry.open(home) as registry:
        item = registry.find("11")[0]
        assert (item.pinned, item.notes) == (True, "after the cut")


def test_the_journal_does_not_grow_without_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.facts.LARGE", 20_000)
    with Registry.open(home) as registry:
        put(registry, b"one")
        for number in range(400):
            registry.note(11, notes=f"thought {number} " + "x" * 200)
        assert (home / "facts.jsonl").stat().st_size < 25_000
        registry.reindex()
        assert len((home / "facts.jsonl").read_text().splitlines()) == 1
    drop_index(home)
    with Registry.open(home) as registry:
        assert (registry.find("11")[0].notes or "").startswith("thought 399")


def test_a_reader_sees_everything_after_the_index_is_gone(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
    drop_index(home)
    with Registry.open(home, read_only=True) as registry:
        assert [item.version_id for item in registry.installed()] == [11]


def test_a_manifest_written_by_a_process_that_died_is_indexed_at_the_next_open(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"one")
    path = home / "manifests/civitai/1/11.json"
    other = home / "manifests/civitai/5/51.json"
    data = json.loads(path.read_bytes())
    data["model"]["id"], data["version"]["id"] = 5, 51
    data["tree"] = dict.fromkeys(data["tree"], "tree/LORA/SD 1.5/five/five.safetensors")
    other.parent.mkdir()
    other.write_text(json.dumps(data))
    (home / "manifests/generation").write_text("somebody died")
    with Registry.open(home, read_only=True) as registry:
        assert {item.version_id for item in registry.installed()} == {11, 51}
        assert registry.get(51).files[0].path.read_bytes() == b"one"  # its name in tree/ is made again
        assert registry.check() == []
    other.unlink()
    shutil.rmtree(home / "tree/LORA/SD 1.5/five")
    (home / "manifests/generation").unlink()
    with Registry.open(home) as registry:
        assert {item.version_id for item in registry.installed()} == {11}
        assert registry.has(sha)


def test_a_manifest_rewritten_since_it_was_seen_is_indexed_as_it_is_now(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        (path, seen), *_ = index.walk(registry.at)
        put(registry, b"one", model="rewritten by another process")
        with registry.transaction() as db:
            index.refresh(db, registry.at, path, seen)
        assert registry.check() == []


def test_a_manifest_nobody_can_read_costs_that_version_only(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        put(registry, b"two", model_id=2, version_id=12)
    for text in ("{", '{"format": 1}', '{"format": 99, "source": "civitai", "model": {"id": 1}}', "[" * 10_000, ""):
        (home / "manifests/civitai/1/11.json").write_text(text)
        drop_index(home)
        with Registry.open(home) as registry:
            assert [item.version_id for item in registry.installed()] == [12]
            assert registry.reindex() == 1
            assert registry.check()


def test_rows_and_manifest_of_a_version_that_changed_its_model_agree(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"one")
        registry.add(manifest(sha, 3, model_id=9))
        assert [item.ref for item in registry.installed()] == ["9@11"]
        assert registry.check() == []
        assert registry.reindex() == 1


def test_a_damaged_index_is_set_aside_and_made_anew(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        registry.pin(11)
    for path in home.glob("index.db-*"):
        path.unlink()
    (home / "index.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(VerificationFailed):
        Registry.open(home)
    aside = Registry.set_damaged_index_aside(home)
    assert aside is not None
    assert aside.exists()
    with Registry.open(home) as registry:
        assert registry.reindex() == 1
        assert registry.find("11")[0].pinned


def test_an_index_with_a_damaged_page_is_made_anew(home: Path) -> None:
    """Whichever page it is: what is read of it is right or refused with a sentence, and `reindex` brings all back."""
    with Registry.open(home) as registry:
        for number in range(1, 31):
            put(registry, b"%d" % number, model_id=number, version_id=number, creator="ada")
        registry.pin(7)
        good = [(item.ref, item.pinned, item.files[0].sha256) for item in registry.installed()]
    with closing(sqlite3.connect(home / "index.db")) as db:
        db.execute("PRAGMA journal_mode = DELETE")  # all of it is in one file
        pages, size = db.execute("PRAGMA page_count").fetchone()[0], db.execute("PRAGMA page_size").fetchone()[0]
    whole = (home / "index.db").read_bytes()
    for page in range(0, pages, 4):
        for path in home.glob("index.d*"):
            path.unlink()
        (home / "index.db").write_bytes(whole[: page * size] + b"\xa5" * size + whole[(page + 1) * size :])
        for read in (Registry.library, Registry.installed, Registry.check):
            with suppress(KnownError), Registry.open(home, read_only=True) as registry:
                read(registry)
        count, aside = Registry.rebuild(home)
        assert (count, aside is None or aside.exists()) == (30, True)
        with Registry.open(home) as registry:
            assert [(item.ref, item.pinned, item.files[0].sha256) for item in registry.installed()] == good, page
            assert registry.check() == []


def test_lists_read_no_manifest(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one", creator="ada")
        put(registry, b"two", model_id=2, version_id=12, type="Checkpoint", base="SDXL 1.0", creator="ada")
        registry.note(12, tags=["Favourite"])
    for path in (home / "manifests").rglob("1*.json"):
        path.write_text("unreadable")
    with Registry.open(home, read_only=True) as registry:
        registry._is_behind = lambda: False  # type: ignore[method-assign]
        names = [(i.ref, i.name, i.version_name, i.type, i.base_model, i.creator) for i in registry.installed()]
        assert names == [
            ("1@11", "Model 1", "v11", "LORA", "SD 1.5", "ada"),
            ("2@12", "Model 2", "v12", "Checkpoint", "SDXL 1.0", "ada"),
        ]
        assert [i.ref for i in registry.select(Filter(creator="ADA"), sort="size", limit=1, offset=1)] == ["2@12"]
        assert [i.ref for i in registry.select(Filter(tag="favourite"))] == ["2@12"]
        assert [i.ref for i in registry.select(Filter(text="mod", types=("LORA",)))] == ["1@11"]
        assert registry.count(Filter(text="model")) == (2, 6)
        assert registry.count() == (2, 6)
        assert [i.ref for i in registry.find("model 2")] == ["2@12"]
        assert [i.ref for i in registry.find("FILE_12.safetensors")] == ["2@12"]
        with pytest.raises(VerificationFailed):
            _ = registry.get(11).model


def test_text_of_a_person_is_never_search_syntax(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one", model="NEAR (miss) OR AND")
        for text in (
            '"',
            "*",
            "a*",
            "NEAR(",
            "name:x",
            "AND",
            "-x",
            "^",
            "'",
            "%",
            "near miss",
            "(",
            "\x00",
            "ü" * 5000,
        ):
            registry.installed(text=text)
            registry.find(text)
        assert [i.ref for i in registry.find("near miss")] == ["1@11"]


def test_one_name_for_one_version_even_where_all_names_are_equal(home: Path) -> None:
    with Registry.open(home) as registry:
        for number in (11, 12, 13):
            put(registry, b"same", model_id=1, version_id=number, name="a.safetensors", model="M")
        put(registry, b"other", model_id=2, version_id=14, name="a.safetensors", model="M")
        paths = [item.files[0].path for item in registry.installed()]
        assert len(set(paths)) == 4
        registry.remove(registry.plan_remove([("civitai", 11)]))
        assert [item.files[0].path.read_bytes() for item in registry.installed()] == [b"same", b"same", b"other"]


def test_the_users_own_file_in_the_tree_stays(home: Path) -> None:
    with Registry.open(home) as registry:
        folder = home / "tree/LORA/SD 1.5/Model 1 - v11"
        folder.mkdir(parents=True)
        (folder / "file_11.safetensors").write_bytes(b"mine")
        put(registry, b"one")
        assert (folder / "file_11.safetensors").read_bytes() == b"mine"
        assert registry.get(11).files[0].path.read_bytes() == b"one"


def test_searching_ranks_names_before_descriptions(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"one", model="Something else")
        put(registry, b"two", model_id=2, version_id=12, model="Dusk")
        told = manifest(sha, 3)
        told.model.description = "<p>painted at dusk</p>"
        registry.add(told)
        assert [i.ref for i in registry.installed(text="dusk")] == ["2@12", "1@11"]
        assert sqlite3.sqlite_version_info >= (3, 35)
