"""Every figure of `du` is one that coreutils would give."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from stocked import files_du, put

from registry import Registry, links, usage
from registry.usage import Usage

BY = ("type", "base_model", "model", "creator", "age", "ui")


@pytest.fixture
def stocked(home: Path, tmp_path: Path) -> Registry:
    """Versions that share bytes within and across groups, a linked UI, a foreign hardlink."""
    registry = Registry.open(home)
    rng = random.Random(5)
    for number in range(20):
        put(
            registry, rng.randbytes(rng.choice((100, 5_000, 70_000, 300_000))), model_id=1 + number // 2,
            version_id=11 + number, type=("LORA", "Checkpoint", "VAE")[number % 3], creator=("ada", "bo")[number % 2],
            base=("SD 1.5", "SDXL 1.0")[number % 2], installed_at=f"2020-0{1 + number % 9}-01T00:00:00+00:00",
        )  # fmt: skip
    shared = rng.randbytes(50_000)
    put(registry, shared, model_id=50, version_id=501)
    put(registry, shared, model_id=50, version_id=502)
    put(registry, shared, model_id=51, version_id=511, type="Checkpoint")
    foreign = tmp_path / "elsewhere"
    foreign.mkdir()
    for item in registry.installed()[3:6]:
        os.link(item.files[0].path, foreign / f"{item.version_id}.safetensors")
    return registry


def show_in_a_ui(registry: Registry, root: Path) -> None:
    for name in ("models/loras", "models/checkpoints", "models/vae"):
        (root / name).mkdir(parents=True, exist_ok=True)
    links.add(registry, links.Ui("comfyui", "comfyui", root, kind="hardlink"))
    links.apply(registry)


def parts(group: Usage) -> int:
    return group.freeable + group.linked + group.elsewhere + group.with_others


@pytest.mark.parametrize("by", BY)
def test_figures_agree_with_the_disk(stocked: Registry, by: str) -> None:
    with stocked:
        library = stocked.library(by=by)
        assert library.total.on_disk == files_du(stocked.home / "blobs") == files_du(stocked.home / "tree")
        assert library.total.files == len(list(stocked.blobs))
        assert library.total.logical == sum(blob.size for blob in stocked.blobs)
        for group in (*library.groups, library.total):
            assert group.on_disk == parts(group) == group.freeable + group.shared
        assert library.groups[0].on_disk == max(group.on_disk for group in library.groups)


def test_what_is_said_to_be_freeable_is_freed_and_nothing_else(stocked: Registry, tmp_path: Path) -> None:
    """Removing a whole group frees what `du` said, counted by the disk."""
    with stocked:
        show_in_a_ui(stocked, tmp_path / "ui")
        for key in ("VAE", "LORA", "Checkpoint"):
            group = next(each for each in stocked.library(by="type").groups if each.key == key)
            everywhere = [stocked.home / "blobs", stocked.home / "tree", tmp_path / "ui", tmp_path / "elsewhere"]
            before = files_du(*everywhere)
            ids = [(i.source, i.version_id) for i in stocked.installed(types=(key,))]
            plan = stocked.plan_remove(ids)
            assert plan.frees == group.freeable + group.linked
            freed = stocked.remove(plan).freed
            assert freed == plan.frees == before - files_du(*everywhere)
        assert stocked.count() == (0, 0)


def test_links_of_ours_are_told_from_names_somebody_else_made(stocked: Registry, tmp_path: Path) -> None:
    with stocked:
        before = stocked.library().total
        assert before.linked == 0
        assert before.elsewhere == files_du(tmp_path / "elsewhere")
        show_in_a_ui(stocked, tmp_path / "ui")
        after = stocked.library(by="ui")
        assert after.total.elsewhere == before.elsewhere
        assert after.total.linked == before.freeable
        assert after.total.freeable == 0
        assert {group.key: group.on_disk for group in after.groups} == {"comfyui": files_du(tmp_path / "ui")}
        links.remove(stocked, "comfyui")
        assert stocked.library().total == before
        shutil.rmtree(tmp_path / "elsewhere")
        assert stocked.library().total.elsewhere == 0


@pytest.mark.parametrize("by", BY)
def test_recorded_figures_are_the_measured_ones(
    stocked: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Above MEASURED blobs `du` adds up what was recorded: the same, unless somebody else made links meanwhile."""
    with stocked:
        stocked.touch(12)
        for step in range(4):
            if step == 1:
                show_in_a_ui(stocked, tmp_path / "ui")
            if step == 2:
                stocked.remove(stocked.plan_remove([("civitai", 501), ("civitai", 14)]))
            if step == 3:
                stocked.remove(stocked.plan_remove([("civitai", 511)]), to_trash=True)
                stocked.reindex()
            else:
                stocked.catch_up(force=True)  # the foreign links of the fixture came after the blobs
            measured = stocked.library(by=by, exact=True)
            monkeypatch.setattr(usage, "MEASURED", 0)
            recorded = stocked.library(by=by)
            monkeypatch.undo()
            assert not recorded.measured
            assert recorded.total == measured.total
            assert sorted(recorded.groups, key=str) == sorted(measured.groups, key=str)
            assert recorded.count == measured.count


def test_only_the_largest_groups(stocked: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with stocked:
        stocked.catch_up(force=True)
        every = stocked.library(by="model")
        for limit in (0, 10**9):
            monkeypatch.setattr(usage, "MEASURED", limit)
            few = stocked.library(by="model", top=4)
            assert [group.on_disk for group in few.groups] == [group.on_disk for group in every.groups[:4]]
            assert (few.count, few.total) == (every.count, every.total)


def test_what_lies_beside_models_is_counted(stocked: Registry) -> None:
    with stocked:
        stocked.put_picture(1, b"\x89PNG\r\n\x1a\n" + b"x" * 20_000)
        (stocked.home / "runs").mkdir()
        (stocked.home / "runs" / "a.png").write_bytes(b"x" * 9_000)
        partial = stocked.reserve("ab" * 32, size=50_000)
        partial.write(b"x" * 30_000)
        partial.checkpoint()
        gone = stocked.get(11)
        size = files_du(gone.files[0].path.parent)
        stocked.remove(stocked.plan_remove([("civitai", 11)]), to_trash=True)
        beside = {each.kind: each.on_disk for each in stocked.library().beside}
        assert beside["trash"] == size
        assert beside["partial downloads"] == files_du(stocked.home / "partial")
        assert beside["example pictures"] == files_du(stocked.home / "images")
        assert beside["pictures made here"] == files_du(stocked.home / "runs")
        assert stocked.library().total.on_disk + beside["trash"] == files_du(stocked.home / "blobs")
        partial.abandon()


def test_the_parts_of_a_home_add_up_to_what_du_says_of_it(stocked: Registry, tmp_path: Path) -> None:
    """Each part is named, the folders too; what a stranger put there is in the last one."""
    home = stocked.home
    with stocked:
        picture = b"\x89PNG\r\n\x1a\n" + b"x" * 20_000
        stocked.put_picture(1, picture)
        for name in ("previews/civitai/11.png", "runs/a.png", "damaged/x.1", "index.damaged.2026.db", "strange/deep/a"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(picture)
        (home / "tree/mine.txt").write_bytes(picture)
        os.link(home / "runs/a.png", home / "runs/again.png")
        (home / "runs/link.png").symlink_to(home / "runs/a.png")
        orphan = home / "blobs/ab" / ("ab" * 32)
        orphan.parent.mkdir(exist_ok=True)
        with orphan.open("wb") as file:
            file.truncate(5_000_000)  # sparse: it takes nothing
            file.write(b"x" * 9000)
        show_in_a_ui(stocked, tmp_path / "ui")
        stocked.remove(stocked.plan_remove([("civitai", 12)]), to_trash=True)
        library = stocked.library()
        said = subprocess.run(["du", "-s", "-B1", str(home)], capture_output=True, text=True, check=True).stdout
        assert library.home == int(said.split()[0])
        assert library.home == library.total.on_disk + sum(each.on_disk for each in library.beside)
        beside = {each.kind: each.on_disk for each in library.beside}
        assert beside["your previews"] == files_du(home / "previews")
        assert beside["set aside as damaged"] == files_du(home / "damaged", home / "index.damaged.2026.db")
        assert beside["named by no version"] == files_du(orphan) < 100_000
        assert beside["manifests"] == files_du(home / "manifests", home / "trash")
        assert beside["other files"] == files_du(home / "strange", home / "tree/mine.txt")
        assert set(beside) == {*usage.PARTS.values(), "folders", "trash", "named by no version", "other files"} - {
            "partial downloads"
        }


def test_copies_in_ui_folders_are_told(stocked: Registry, tmp_path: Path) -> None:
    with stocked:
        for name in ("models/loras", "models/checkpoints", "models/vae"):
            (tmp_path / "ui" / name).mkdir(parents=True)
        links.add(stocked, links.Ui("comfyui", "comfyui", tmp_path / "ui", kind="copy"))
        links.apply(stocked)
        assert stocked.library().copies.on_disk == files_du(tmp_path / "ui") > 0


def test_a_file_on_another_volume_stays_where_it_is(home: Path, tmp_path: Path) -> None:
    """As `adopt --reference` has it: the blob is a symlink to it."""
    with Registry.open(home) as registry:
        sha = put(registry, b"x" * 50_000)
        theirs = tmp_path / "theirs.safetensors"
        theirs.write_bytes(b"x" * 50_000)
        item = registry.get(11)
        item.files[0].path.unlink()
        registry.blob_path(sha).unlink()
        registry.blob_path(sha).symlink_to(theirs)
        item.files[0].path.symlink_to(registry.blob_path(sha))
        registry.catch_up(force=True)
        for exact in (True, False):
            total = registry.library(exact=exact).total
            assert (total.on_disk, total.elsewhere) == (files_du(theirs), files_du(theirs))
        library = registry.library()
        assert library.home == sum(each.on_disk for each in library.beside)
        plan = registry.plan_remove([("civitai", 11)])
        assert plan.frees == registry.remove(plan).freed <= 4096  # a long symlink takes a block
        assert theirs.exists()


@pytest.mark.parametrize("by", ["model", "creator"])
def test_the_largest_of_many_groups_named_and_unnamed(home: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Above MEASURED only the groups asked for are added up: those without a name are one, also with a maker of it."""
    rng = random.Random(1)
    with Registry.open(home) as registry:
        for number, name in enumerate(["", "unknown", "ada", "", "bo", "cy", "ada"]):
            put(
                registry, rng.randbytes(4096 * rng.randint(1, 9)), model_id=number + 1, version_id=number + 1,
                model=name, creator=name or None,
            )  # fmt: skip
        for number in (20, 21):
            put(registry, b"shared" * 9000, model_id=number, version_id=number, model="cy", creator=f"c{number}")
        for top in (1, 2, 3, 4, 9):
            measured = registry.library(by=by, top=top)
            monkeypatch.setattr(usage, "MEASURED", 0)
            recorded = registry.library(by=by, top=top)
            monkeypatch.undo()
            assert recorded.groups == measured.groups
            assert (recorded.count, recorded.total) == (measured.count, measured.total)


def test_duplicates_outside_the_store_are_found_by_size_then_bytes(stocked: Registry, tmp_path: Path) -> None:
    from registry import duplicates

    with stocked:
        outside = tmp_path / "Downloads" / "a" / "b"
        outside.mkdir(parents=True)
        item = stocked.get(13)
        shutil.copy(item.files[0].path, outside / "copy of it.safetensors")
        shutil.copy(item.files[0].path, outside / "again.ckpt")
        os.link(item.files[0].path, outside / "shared.safetensors")  # no bytes of its own
        (outside / "link.safetensors").symlink_to(item.files[0].path)
        same_size = bytearray(item.files[0].path.read_bytes())
        same_size[0] ^= 1
        (outside / "other.safetensors").write_bytes(same_size)
        for name in ("x.gguf", "y.gguf"):
            (outside / name).write_bytes(b"twin" * 40_000)
        (outside / "notes.txt").write_bytes(item.files[0].path.read_bytes())
        found = duplicates.find(stocked, [tmp_path / "Downloads"])
        names = {each.ref or "twins": sorted(path.name for path in each.paths) for each in found}
        assert names == {"2@13": ["again.ckpt", "copy of it.safetensors"], "twins": ["x.gguf", "y.gguf"]}
        wasted = {each.ref: each.wasted for each in found}
        assert wasted["2@13"] == files_du(outside / "again.ckpt") + files_du(outside / "copy of it.safetensors")
        assert wasted[None] == files_du(outside / "y.gguf")


def test_what_hubctl_put_there_is_no_duplicate(stocked: Registry, tmp_path: Path) -> None:
    """Copies of ours are told by `du`; names of the store's bytes take nothing, also where a scan remembers them."""
    from registry import duplicates

    with stocked:
        ui = tmp_path / "ui"
        for name in ("models/loras", "models/checkpoints", "models/vae"):
            (ui / name).mkdir(parents=True)
        links.add(stocked, links.Ui("comfyui", "comfyui", ui, kind="copy"))
        links.apply(stocked)
        item = stocked.get(13)
        path = ui / "adopted.safetensors"
        os.link(item.files[0].path, path)
        status = path.stat()
        with stocked.transaction() as db:
            db.execute(
                "INSERT INTO scan(path, size, mtime_ns, inode, device, sha256, checked_at) VALUES (?,?,?,?,?,?,'')",
                (str(path), status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev, item.files[0].sha256),
            )
        assert duplicates.find(stocked, [ui]) == []
        shutil.copy(path, ui / "mine.safetensors")
        assert [each.ref for each in duplicates.find(stocked, [ui])] == ["2@13"]
