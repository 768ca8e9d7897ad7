"""Projects, updates and one's own words, through the command line, against a hub on loopback."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shelves

from registry import Registry

Run = Callable[..., Any]


def weights(number: int) -> bytes:
    """A tiny LoRA of its own for each number."""
    tensor = struct.pack("<8e", *([number % 100] * 8))
    names = ("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight")
    header = {n: {"dtype": "F16", "shape": [2, 2], "data_offsets": [8 * i, 8 * i + 8]} for i, n in enumerate(names)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + tensor


def versions(*numbers: int, base: str = "SD 1.5", **more: Any) -> list[dict[str, Any]]:
    """Versions of one model, newest first."""
    return [
        {
            "id": number,
            "name": f"v{number}",
            "baseModel": base,
            "trainedWords": ["hero"],
            "publishedAt": "2026-01-01T00:00:00.000Z",
            "files": [
                {
                    "id": number * 10,
                    "name": f"hero-{number}.safetensors",
                    "type": "Model",
                    "metadata": {"format": "SafeTensor", "fp": "fp16", "size": "pruned"},
                    "primary": True,
                }
            ],
            "images": [],
            **more,
        }
        for number in numbers
    ]


class HubHome:
    """A hub whose library a test changes while it serves."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def put(self, model: dict[str, Any], data: Callable[[int], bytes] = weights) -> None:
        with Registry.open(self.home) as registry:
            shelves.put(registry, model, data=data)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubHome]:
    from registry.http import RegistryCatalog, create_app, running

    hub = HubHome(tmp_path / "hub")
    hub.put({**shelves.model(7), "name": "Hero", "modelVersions": versions(71), "allowCommercialUse": "{None}"})
    with Registry.open(hub.home, read_only=True) as registry, running(create_app(RegistryCatalog(registry))) as url:
        monkeypatch.setenv("HUBCTL_HUB", url)
        yield hub


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_lock_gives_two_machines_the_same_trees(
    hubctl: Run, shelf: HubHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    assert hubctl("add", "7", "--json").json["added"][0]["version_id"] == 71
    with (project / "hubctl.toml").open("a") as file:
        file.write('\n[ui]\ncomfyui = "ComfyUI"\na1111 = "webui"\n')
    first = hubctl("sync", "--frozen", "--yes", "--json").json
    assert first["installed"] == 1
    here = tree(project / "ComfyUI")
    assert here["models/loras/hero-71.safetensors"] == weights(710)
    assert (project / "webui/models/Lora/hero-71.safetensors").read_bytes() == weights(710)

    other = tmp_path / "other"
    other.mkdir()
    for name in ("hubctl.toml", "hubctl.lock"):
        (other / name).write_bytes((project / name).read_bytes())
    monkeypatch.chdir(other)
    hubctl("sync", "--frozen", "--yes", "--home", tmp_path / "home2")
    assert tree(other / "ComfyUI") == here
    again = hubctl("sync", "--frozen", "--json", "--home", tmp_path / "home2").json
    assert again["installed"] == 0


def test_sync_leaves_other_files_alone_and_takes_away_only_its_own(
    hubctl: Run, shelf: HubHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hubctl("add", "7")
    with Path("hubctl.toml").open("a") as file:
        file.write('\n[ui]\ncomfyui = "ComfyUI"\n')
    theirs = Path("ComfyUI/models/loras/hero-71.safetensors")
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"somebody else's")
    outcome = hubctl("sync", "--yes")
    assert "somebody else's file" in outcome.err
    assert theirs.read_bytes() == b"somebody else's"
    theirs.unlink()
    hubctl("sync")
    assert theirs.read_bytes() == weights(710)
    Path("hubctl.toml").write_text('[models]\n[ui]\ncomfyui = "ComfyUI"\n')
    hubctl("sync")
    assert not theirs.exists()


def hero(shelf: HubHome, *numbers: int, plus: int = 0) -> None:
    """What the hub has of the hero from now on."""
    shelf.put(
        {**shelves.model(7), "name": "Hero", "modelVersions": versions(*numbers)},
        data=lambda number: weights(number + plus),
    )


@pytest.fixture
def project(hubctl: Run, shelf: HubHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that needs the hero, locked; not synced yet."""
    monkeypatch.chdir(tmp_path)
    hubctl("add", "7", "--name", "hero")
    with Path("hubctl.toml").open("a") as file:
        file.write('\n[ui]\ncomfyui = "ComfyUI"\n')
    return tmp_path


def test_sync_brings_the_locked_bytes_where_the_version_has_others(hubctl: Run, shelf: HubHome, project: Path) -> None:
    placed = project / "ComfyUI/models/loras/hero-71.safetensors"
    hubctl("sync", "--yes")
    hero(shelf, 71, plus=1)
    hubctl("update", "--yes", "--replace")
    hero(shelf, 71)
    assert hubctl("sync", "--frozen", "--yes", "--json").json["installed"] == 1
    assert placed.read_bytes() == weights(710)
    assert len(hubctl("trash", "list", "--json").json["items"]) == 1  # the other bytes: nobody said that they may go


def test_a_file_of_somebodys_in_the_place_of_ours_stays(hubctl: Run, shelf: HubHome, project: Path) -> None:
    placed = project / "ComfyUI/models/loras/hero-71.safetensors"
    hubctl("sync", "--yes")
    placed.unlink()
    placed.write_bytes(b"my own training")
    assert "somebody else's file" in hubctl("sync").err
    assert placed.read_bytes() == b"my own training"
    Path("hubctl.toml").write_text('[models]\n[ui]\ncomfyui = "ComfyUI"\n')
    hubctl("sync")
    assert placed.read_bytes() == b"my own training"


def test_our_name_of_bytes_that_rot_on_the_disk_is_still_ours(hubctl: Run, shelf: HubHome, project: Path) -> None:
    placed = project / "ComfyUI/models/loras/hero-71.safetensors"
    hubctl("sync", "--yes")
    placed.chmod(0o644)
    with placed.open("r+b") as blob:  # one inode: the library's bytes, too
        blob.write(b"rot!")
    Path("hubctl.toml").write_text('[models]\n[ui]\ncomfyui = "ComfyUI"\n')
    hubctl("sync")
    assert not placed.exists()


@pytest.mark.parametrize("was_placed", [False, True])
def test_a_tree_whose_sync_was_killed_is_finished_by_the_next(
    hubctl: Run, shelf: HubHome, project: Path, was_placed: bool
) -> None:
    """Killed before or after the file got its new bytes: they are written down either way."""
    placed, mark = project / "ComfyUI/models/loras/hero-71.safetensors", project / "ComfyUI/.hubctl-tree.json"
    hubctl("sync", "--yes")
    old = mark.read_text()
    hero(shelf, 71, plus=1)
    hubctl("lock", "--upgrade", "all")
    hubctl("sync", "--yes")
    new = json.loads(mark.read_text())
    mark.write_text(json.dumps({**new, "before": json.loads(old)["files"]}))
    if not was_placed:
        placed.unlink()
        placed.write_bytes(weights(710))
    assert hubctl("sync").err.count("warning") == 0
    assert placed.read_bytes() == weights(711)
    assert json.loads(mark.read_text()) == new


def test_files_of_one_name_get_names_of_their_own_in_a_tree(hubctl: Run, shelf: HubHome, tmp_path: Path) -> None:
    files = [
        {**versions(71)[0]["files"][0], "id": number, "name": "Hero.safetensors" if number % 2 else "hero.safetensors"}
        for number in (1, 2, 3)
    ]
    shelf.put({**shelves.model(7), "modelVersions": versions(71, files=files)})
    for number in (1, 2, 3):
        hubctl("install", "7@71", "--file", number)
    entries = [f'{name} = {{ ref = "7@71", file = {number} }}' for name, number in (("a", 1), ("b", 2), ("c", 3))]
    (tmp_path / "hubctl.toml").write_text("[models]\n" + "\n".join(entries) + '\n[ui]\na1111 = "webui"\n')
    hubctl("sync", "--project", tmp_path, "--yes")
    there = tree(tmp_path / "webui/models/Lora")
    assert there == {
        "Hero.safetensors": weights(1), "hero-v71.safetensors": weights(2), "Hero-v71-3.safetensors": weights(3),
    }  # fmt: skip


def test_frozen_refuses_a_lock_that_does_not_answer(
    hubctl: Run, shelf: HubHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hubctl("add", "7")
    with Path("hubctl.toml").open("a") as file:
        file.write('more = "8"\n')
    assert hubctl("sync", "--frozen", "--json", status=2).json["error"]["code"] == "lock_outdated"
    assert hubctl("lock", "--check", "--json", status=2).json["error"]["code"] == "lock_outdated"


def test_other_bytes_under_the_locked_ids_are_refused(
    hubctl: Run, shelf: HubHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hubctl("add", "7")
    shelf.put({**shelves.model(7), "name": "Hero", "modelVersions": versions(71)}, data=lambda n: weights(n + 1))
    error = hubctl("sync", "--frozen", "--yes", "--json", status=7).json["error"]
    assert error["code"] == "verification_failed"
    assert "no longer on" in error["message"]


def test_exports_of_a_library(hubctl: Run, shelf: HubHome, tmp_path: Path) -> None:
    hubctl("install", "7")
    assert hubctl("export").out == "7@71\n"
    assert "commercial use: no" in hubctl("export", "--as", "credits").out
    assert hubctl("export", "--as", "json").json["items"][0]["sha256"]
    hubctl("export", "--as", "tree", "--layout", "a1111", "--out", tmp_path / "out")
    assert (tmp_path / "out/models/Lora/hero-71.safetensors").read_bytes() == weights(710)
    hubctl("export", "--as", "lock", "--out", tmp_path / "hubctl.lock")
    assert 'sha256 = "' in (tmp_path / "hubctl.lock").read_text()


def test_newer_versions_of_the_same_base_are_found_and_taken(hubctl: Run, shelf: HubHome) -> None:
    hubctl("install", "7")
    assert hubctl("outdated", "--json").json["items"] == []
    newer = [*versions(73, base="SDXL 1.0"), *versions(72), *versions(71)]
    shelf.put({**shelves.model(7), "name": "Hero", "modelVersions": newer})
    found = hubctl("outdated", "--json").json["items"]
    assert [(each["verdict"], each["new_ref"]) for each in found] == [("newer", "7@72")]
    assert hubctl("outdated", "--any-base", "-q").out == "7@73\n"
    hubctl("outdated", "--ignore", "7@72")
    assert hubctl("outdated", "--json").json["items"] == []
    hubctl("outdated", "--unignore", "7@72")
    plan = hubctl("update", "--dry-run", "--json").json
    assert [each["version"]["id"] for each in plan["plans"]] == [72]
    hubctl("update", "--yes")
    assert sorted(row["ref"] for row in hubctl("list", "--json").json["items"]) == ["7@71", "7@72"]
    assert hubctl("outdated", "--json").json["items"] == []


def test_early_access_is_said_and_left(hubctl: Run, shelf: HubHome) -> None:
    hubctl("install", "7")
    early = versions(72, earlyAccessDeadline="2999-01-01T00:00:00.000Z")
    shelf.put({**shelves.model(7), "name": "Hero", "modelVersions": [*early, *versions(71)]})
    found = hubctl("outdated", "--json").json["items"]
    assert [(each["verdict"], each["note"]) for each in found] == [("early", "early access until 2999-01-01")]
    assert hubctl("update", "--yes", "--json").json["plans"] == []


def test_a_replaced_file_is_noticed_and_kept_until_asked_for(hubctl: Run, shelf: HubHome) -> None:
    path = Path(hubctl("install", "7", "-q").out.strip())
    shelf.put({**shelves.model(7), "name": "Hero", "modelVersions": versions(71)}, data=lambda n: weights(n + 1))
    assert [each["verdict"] for each in hubctl("outdated", "--json").json["items"]] == ["replaced"]
    again = hubctl("install", "7")
    assert "hubctl update --replace" in again.err
    hubctl("update", "--yes")
    assert path.read_bytes() == weights(710)
    hubctl("update", "--yes", "--replace")
    assert path.read_bytes() == weights(711)
    assert "replaced by other bytes" in hubctl("trash", "list").out
    hubctl("prune", "--orphans", "--yes")
    hubctl("rm", "7", "--now", "--yes")
    hubctl("trash", "restore", "7@71")
    assert path.read_bytes() == weights(710)


def test_a_replacement_that_cannot_be_had_costs_nothing(hubctl: Run, shelf: HubHome, tmp_path: Path) -> None:
    path = Path(hubctl("install", "7", "-q").out.strip())
    (tmp_path / "ui/models/loras").mkdir(parents=True)
    hubctl("link", "add", "comfyui", tmp_path / "ui")
    hero(shelf, 71, plus=1)
    with Registry.open(shelf.home) as registry:
        blob = registry.blob_path(registry.installed()[0].files[0].sha256)
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-4] + b"rot!")  # what arrives is not what was said
    hubctl("update", "--yes", "--replace", status=7)
    assert path.read_bytes() == weights(710)
    assert (tmp_path / "ui/models/loras/hero-71.safetensors").read_bytes() == weights(710)
    assert hubctl("trash", "list", "--json").json["items"] == []


def test_own_words_weight_and_tags_win_where_they_are_shown(hubctl: Run, shelf: HubHome) -> None:
    hubctl("install", "7")
    said = hubctl("note", "7", "best at dusk", "--words", "titan, dusk", "--weight", "0.85", "--json").json
    assert (said["notes"], said["trigger_words"], said["weight"]) == ("best at dusk", ["titan", "dusk"], 0.85)
    shown = hubctl("show", "7", "--local").out
    assert "<lora:hero-71:0.85> titan, dusk" in shown
    assert "best at dusk" in shown
    assert hubctl("tag", "7", "Favourite", "comics", "--json").json["tags"] == ["favourite", "comics"]
    assert hubctl("list", "--tag", "favourite", "-q").out == "7@71\n"
    assert hubctl("tag", "7", "--remove", "comics", "--json").json["tags"] == ["favourite"]
    hubctl("note", "7", "", "--words", "", "--weight", "0")
    assert hubctl("note", "7", "--json").json["trigger_words"] == ["hero"]
