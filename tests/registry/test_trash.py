"""Removing costs nothing until the trash is emptied; restoring gives back exactly what was there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stocked import files_du, put

from registry import Registry, links, trash
from registry.errors import Ambiguous, NotFound, UsageError


def everything(registry: Registry) -> list[object]:
    return [
        (i.ref, i.files, i.trigger_words, i.installed_at, i.pinned, i.notes, i.model.dump(), i.version.dump())
        for i in registry.installed()
    ]


def test_restored_is_as_it_was(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one" * 1000)
        put(registry, b"two" * 1000, model_id=2, version_id=12)
        registry.note(11, notes="mine", weight=0.7)
        (tmp_path / "ui/models/loras").mkdir(parents=True)
        links.add(registry, links.Ui("comfyui", "comfyui", tmp_path / "ui"))
        links.apply(registry)
        before, shown = everything(registry), sorted((tmp_path / "ui").rglob("*.safetensors"))
        report = registry.remove(registry.plan_remove([("civitai", 11)]), to_trash=True, reason="a test")
        assert (report.freed, report.versions) == (0, 1)
        assert [i.ref for i in registry.installed()] == ["2@12"]
        assert len(list((tmp_path / "ui").rglob("*.safetensors"))) == 1
        assert registry.check() == []
        entry = trash.find(registry, "1@11")
        assert (entry.name, entry.reason, entry.ref) == ("Model 1", "a test", "1@11")
        trash.restore(registry, entry)
        assert everything(registry) == before
        assert sorted((tmp_path / "ui").rglob("*.safetensors")) == shown
        assert trash.entries(registry) == []
        assert registry.check() == []


def test_bytes_go_with_the_last_that_names_them(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"same" * 2000)
        put(registry, b"same" * 2000, model_id=2, version_id=12)
        put(registry, b"same" * 2000, model_id=3, version_id=13)
        for version_id in (11, 12):
            registry.remove(registry.plan_remove([("civitai", version_id)]), to_trash=True)
        first, second = trash.entries(registry)
        assert trash.empty(registry, [first]) == 0
        assert registry.remove(registry.plan_remove([("civitai", 13)])).freed == 0  # the trash still needs it
        assert registry.has(sha)
        size = files_du(home / "blobs")
        assert trash.empty(registry, [second]) == size > 0
        assert not registry.has(sha)


def test_what_was_installed_again_is_not_overwritten(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"old")
        registry.remove(registry.plan_remove([("civitai", 11)]), to_trash=True)
        put(registry, b"new")
        entry = trash.find(registry, "11")
        with pytest.raises(UsageError, match="installed again"):
            trash.restore(registry, entry)
        assert registry.get(11).files[0].path.read_bytes() == b"new"
        registry.remove(registry.plan_remove([("civitai", 11)]))
        trash.restore(registry, entry)
        assert registry.get(11).files[0].path.read_bytes() == b"old"


def test_an_entry_without_its_bytes_says_so(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"one")
        registry.remove(registry.plan_remove([("civitai", 11)]), to_trash=True)
        registry.blob_path(sha).unlink()
        with pytest.raises(NotFound, match="is not here"):
            trash.restore(registry, trash.find(registry, "11"))
        assert len(trash.entries(registry)) == 1
        assert registry.check() == []


def test_finding_in_the_trash(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one", model="Titan Red")
        put(registry, b"two", model_id=2, version_id=12, model="Titan Blue")
        registry.remove(registry.plan_remove([("civitai", 11), ("civitai", 12)]), to_trash=True)
        assert trash.find(registry, "titan red").ref == "1@11"
        assert trash.find(registry, "blue").ref == "2@12"
        assert trash.find(registry, "2").ref == "2@12"
        with pytest.raises(Ambiguous) as refusal:
            trash.find(registry, "titan")
        assert len(refusal.value.details["candidates"]) == 2
        for nothing in ("green", "", "99"):
            with pytest.raises(NotFound):
                trash.find(registry, nothing)


def test_odd_files_in_the_trash_are_left_alone(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        registry.remove(registry.plan_remove([("civitai", 11)]), to_trash=True)
        for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", '{"format": 1}'), ("d.txt", "x")):
            (home / "trash" / name).write_text(text)
        assert [entry.ref for entry in trash.entries(registry)] == ["1@11"]


def test_entries_are_due_after_their_days(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        registry.remove(registry.plan_remove([("civitai", 11)]), to_trash=True)
        later = datetime.now(UTC) + timedelta(days=7, minutes=1)
        assert trash.expired(registry, 7) == []
        assert [entry.ref for entry in trash.expired(registry, 7, at=later)] == ["1@11"]


def test_a_kill_between_restoring_and_clearing_leaves_no_second_entry(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        registry.remove(registry.plan_remove([("civitai", 11)]), to_trash=True)
        entry = trash.find(registry, "11")
        kept = entry.path.read_bytes()
        trash.restore(registry, entry)
        entry.path.write_bytes(kept)
        assert trash.entries(registry) == []
        assert trash.leftovers(registry) == [entry.path]


def test_removing_twice_at_once_removes_once(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
        plan = registry.plan_remove([("civitai", 11)])
        assert registry.remove(plan, to_trash=True).versions == 1
        assert registry.remove(plan, to_trash=True).versions == 0
        assert len(trash.entries(registry)) == 1
        assert json.loads(trash.entries(registry)[0].path.read_bytes())["removed"]["reason"] == ""
