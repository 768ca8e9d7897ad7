"""Links into UI folders: the right folder, one copy of the bytes, and nothing of a person's ever touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from registry import Manifest, Registry, beside, links, prune, wire
from registry.errors import NoPermission, NotFound, UsageError

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


def install(
    registry: Registry,
    data: bytes,
    version_id: int = 11,
    *,
    name: str = "thanos.safetensors",
    type: str = "LORA",
    role: str = "Model",
    kind: str | None = None,
    base_model: str = "SD 1.5",
    file_id: int | None = None,
    source: str = "civitai",
) -> str:
    sha = hashlib.sha256(data).hexdigest()
    with registry.reserve(sha, size=len(data)) as partial:
        partial.write(data)
        partial.seal()
    number = file_id or version_id * 10
    previous = registry.get(version_id, source=source)
    files = [f.dump() for f in previous.version.files] if previous else []
    files.append({"id": number, "name": name, "type": role, "hashes": {"SHA256": sha.upper()}})
    version = {"id": version_id, "name": "v1", "baseModel": base_model, "trainedWords": ["thnos"], "files": files}
    model = {
        "id": version_id * 100, "name": f"Model {version_id}", "type": type, "tags": ["hero"],
        "creator": {"username": "ann"}, "description": "<p>purple",
    }  # fmt: skip
    here = {f.file_id: f.sha256 for f in previous.files} if previous else {}
    manifest = Manifest(
        source, wire.Model.model_validate(model), wire.ModelVersion.model_validate(version), {**here, number: sha}
    )
    registry.add(manifest, facts={number: {"kind": kind}}, settings={"weight": {"value": 0.8}})
    return sha


def comfy(registry: Registry, root: Path, **more: Any) -> list[links.LinkAction]:
    root.mkdir(exist_ok=True)
    return links.add(registry, links.Ui("comfyui", "comfyui", root, **more))


def what(actions: list[links.LinkAction]) -> list[tuple[str, str]]:
    return [(action.what, action.path.name) for action in actions]


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()}


def test_every_file_appears_in_its_folder_from_one_copy(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        sha = install(registry, b"lora")
        install(registry, b"ckpt", 12, name="dream.safetensors", type="Checkpoint")
        install(registry, b"vae", 12, name="dream.vae.safetensors", type="Checkpoint", role="VAE", file_id=7)
        install(registry, b"zip", 13, name="poses.zip", type="Poses", role="Archive")
        comfy(registry, tmp_path / "ui")
        (tmp_path / "webui").mkdir()
        links.add(registry, links.Ui("a1111", "a1111", tmp_path / "webui"))
        assert tree(tmp_path / "ui") == {
            "models/loras/thanos.safetensors", "models/checkpoints/dream.safetensors",
            "models/vae/dream.vae.safetensors",
        }  # fmt: skip
        assert tree(tmp_path / "webui") == {
            "models/Lora/thanos.safetensors", "models/Stable-diffusion/dream.safetensors",
            "models/VAE/dream.vae.safetensors",
        }  # fmt: skip
        assert (tmp_path / "ui/models/loras/thanos.safetensors").samefile(registry.blob_path(sha))
        assert registry.blob_path(sha).stat().st_nlink == 4  # blob, tree, two UIs
        assert links.apply(registry) == []


def test_a_dry_run_shows_everything_and_does_nothing(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        root = tmp_path / "ui"
        root.mkdir()
        planned = links.add(registry, links.Ui("c", "comfyui", root, sidecars=("civitai",)), dry_run=True)
        assert what(planned) == [("link", "thanos.safetensors"), ("sidecar", "thanos.civitai.info")]
        assert planned[0].kind in {"hardlink", "reflink"}
        assert tree(root) == set()
        assert links.uis(registry) == []
        done = links.add(registry, links.Ui("c", "comfyui", root, sidecars=("civitai",)))
        assert what(done) == what(planned)


@pytest.mark.parametrize("kind", ["hardlink", "symlink", "copy"])
def test_each_kind_of_link_is_made_known_again_and_taken_away(home: Path, tmp_path: Path, kind: str) -> None:
    with Registry.open(home) as registry:
        sha = install(registry, b"lora")
        done = comfy(registry, tmp_path / "ui", kind=kind)
        path = tmp_path / "ui/models/loras/thanos.safetensors"
        assert done[0].kind == kind
        assert path.read_bytes() == b"lora"
        assert path.is_symlink() == (kind == "symlink")
        assert path.resolve().suffix == ".safetensors"  # loaders that resolve links go by the suffix
        assert (path.stat().st_ino == registry.blob_path(sha).stat().st_ino) == (kind != "copy")
        assert links.apply(registry) == []
        assert links.repair(registry) == []
        assert what(links.remove(registry, "comfyui")) == [("unlink", "thanos.safetensors")]
        assert tree(tmp_path / "ui") == set()
        assert registry.has(sha)


def test_a_kind_that_does_not_work_here_is_refused(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        try:
            comfy(registry, tmp_path / "ui", kind="reflink")
        except NoPermission as error:
            assert "--kind" in (error.hint or "")
            assert tree(tmp_path / "ui") == set()
        else:
            assert (tmp_path / "ui/models/loras/thanos.safetensors").read_bytes() == b"lora"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second volume")
def test_another_volume_gets_symlinks_or_copies(home: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, Registry.open(home) as registry:
        install(registry, b"lora")
        root = Path(folder)
        planned = links.add(registry, links.Ui("c", "comfyui", root), dry_run=True)
        done = links.add(registry, links.Ui("c", "comfyui", root))
        assert planned[0].kind == done[0].kind == "symlink"
        assert (root / "models/loras/thanos.safetensors").read_bytes() == b"lora"


def test_names_that_collide_are_numbered_the_same_way_every_time(home: Path, tmp_path: Path) -> None:
    def names(order: list[int], folder: str) -> set[str]:
        with Registry.open(tmp_path / folder / "home") as registry:
            for number in order:
                install(
                    registry, bytes([number]), number, name="Same.safetensors" if number % 2 else "same.safetensors"
                )
            comfy(registry, tmp_path / folder / "ui")
            return tree(tmp_path / folder / "ui")

    expected = {
        "models/loras/Same.safetensors", "models/loras/same-v12.safetensors", "models/loras/Same-v13.safetensors",
    }  # fmt: skip
    assert names([11, 12, 13], "a") == expected
    assert names([13, 12, 11], "b") == expected


def test_a_name_once_given_is_kept_since_prompts_use_it(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"later", 50, name="same.safetensors")
        comfy(registry, tmp_path / "ui")
        install(registry, b"earlier", 5, name="same.safetensors")
        links.apply(registry, [("civitai", 5)])
        folder = tmp_path / "ui/models/loras"
        assert (folder / "same.safetensors").read_bytes() == b"later"
        assert (folder / "same-v5.safetensors").read_bytes() == b"earlier"


def test_the_same_bytes_of_two_versions_share_a_name_until_the_last_goes(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"same", 11)
        install(registry, b"same", 12)
        comfy(registry, tmp_path / "ui")
        path = tmp_path / "ui/models/loras/thanos.safetensors"
        assert tree(tmp_path / "ui") == {"models/loras/thanos.safetensors"}
        links.unlink(registry, [("civitai", 11)])
        assert path.exists()
        links.unlink(registry, [("civitai", 11), ("civitai", 12)])
        assert not path.exists()


def test_a_persons_file_under_the_name_stays_and_is_reported(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ui/models/loras"
    folder.mkdir(parents=True)
    (folder / "thanos.safetensors").write_bytes(b"mine")
    with Registry.open(home) as registry:
        install(registry, b"lora")
        done = comfy(registry, tmp_path / "ui")
        assert ("clash", "thanos.safetensors") in what(done)
        assert ("link", "thanos-v11.safetensors") in what(done)
        links.remove(registry, "comfyui")
        assert (folder / "thanos.safetensors").read_bytes() == b"mine"
        assert tree(folder) == {"thanos.safetensors"}


def test_bytes_that_are_there_already_get_no_second_name(home: Path, tmp_path: Path) -> None:
    sub = tmp_path / "ui/models/loras/heroes"
    sub.mkdir(parents=True)
    with Registry.open(home) as registry:
        sha = install(registry, b"lora")
        os.link(registry.blob_path(sha), sub / "my name.safetensors")
        install(registry, b"copied", 12, name="copied.safetensors")
        (tmp_path / "ui/models/loras/copied.safetensors").write_bytes(b"copied")
        done = comfy(registry, tmp_path / "ui")
        assert sorted(what(done)) == [("present", "copied.safetensors"), ("present", "my name.safetensors")]
        links.remove(registry, "comfyui")
        assert tree(tmp_path / "ui") == {"models/loras/heroes/my name.safetensors", "models/loras/copied.safetensors"}


def test_a_link_a_person_replaced_is_theirs_from_then_on(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui")
        path = tmp_path / "ui/models/loras/thanos.safetensors"
        path.unlink()
        path.write_bytes(b"edited")
        assert what(links.repair(registry, dry_run=True)) == [("yours", "thanos.safetensors")]
        assert what(links.repair(registry)) == [("yours", "thanos.safetensors")]
        assert what(links.apply(registry)) == [("yours", "thanos.safetensors")]
        assert what(links.remove(registry, "comfyui")) == [("yours", "thanos.safetensors")]
        assert path.read_bytes() == b"edited"


def test_repair_makes_what_is_missing_or_broken_and_drops_what_is_stale(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"one", 11, name="one.safetensors")
        install(registry, b"two", 12, name="two.safetensors")
        comfy(registry, tmp_path / "ui", kind="symlink")
        folder = tmp_path / "ui/models/loras"
        (folder / "one.safetensors").unlink()
        (folder / "two.safetensors").unlink()
        (folder / "two.safetensors").symlink_to("/nowhere/at/all")
        with registry.transaction() as db:  # a version that went while nobody looked
            db.execute(
                "INSERT INTO link(path, sha256, source, version_id, layout, kind, created_at, ui) "
                "VALUES (?, ?, 'civitai', 99, 'comfyui', 'symlink', '', 'comfyui')",
                (str(folder / "gone.safetensors"), "cd" * 32),
            )
        assert sorted(what(links.repair(registry))) == [("relink", "one.safetensors"), ("relink", "two.safetensors")]
        assert (folder / "one.safetensors").read_bytes() == b"one"
        assert (folder / "two.safetensors").read_bytes() == b"two"
        assert not registry.rows("SELECT * FROM link WHERE version_id = 99")
        assert links.repair(registry) == []


def test_a_moved_ui_is_linked_at_its_new_place(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", sidecars=("a1111",))
        (tmp_path / "ui").rename(tmp_path / "moved")
        assert what(links.repair(registry)) == [("no_root", "ui")]
        assert not (tmp_path / "ui").exists()  # nothing is made in place of a drive that is away
        assert comfy(registry, tmp_path / "moved", sidecars=("a1111",)) == []
        links.remove(registry, "comfyui")
        assert tree(tmp_path / "moved") == set()


def test_what_cannot_be_linked_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "ui").mkdir()
    (tmp_path / "other").mkdir()
    with Registry.open(home) as registry:
        comfy(registry, tmp_path / "ui")
        for refused, ui in (
            (NotFound, links.Ui("x", "comfyui", tmp_path / "no")),
            (UsageError, links.Ui("x", "nonsense", tmp_path / "other")),
            (UsageError, links.Ui("comfyui", "comfyui", tmp_path / "other")),
            (UsageError, links.Ui("x", "a1111", tmp_path / "ui")),
            (UsageError, links.Ui("x", "a1111", tmp_path / "other", kind="yaml")),
            (UsageError, links.Ui("x", "a1111", tmp_path / "other", template="{nope}")),
            (UsageError, links.Ui("x", "a1111", tmp_path / "other", sidecars=("nope",))),
            (UsageError, links.Ui("x", "a1111", home)),
        ):
            with pytest.raises(refused):
                links.add(registry, ui)


def test_templates_sort_and_a_new_one_moves_the_links(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui")
        moved = comfy(registry, tmp_path / "ui", template="{base_family}/{first_tag}")
        assert what(moved) == [("move", "thanos.safetensors")]
        assert tree(tmp_path / "ui") == {"models/loras/sd1/hero/thanos.safetensors"}


def test_names_of_strangers_stay_in_their_folder(home: Path, tmp_path: Path) -> None:
    names = ["../../evil.safetensors", "CON.safetensors", "x" * 300 + ".safetensors", "\x1b[31m.pt", "😀.pt", "a:b?.pt"]
    with Registry.open(home) as registry:
        for number, name in enumerate(names):
            install(registry, name.encode(), number + 11, name=name)
        comfy(registry, tmp_path / "ui")
        found = tree(tmp_path / "ui")
        assert len(found) == len(names)
        for path in found:
            assert path.startswith("models/loras/")
            assert path.count("/") == 2
            assert not set(Path(path).name) & set('<>:"\\|?*\x1b')
        assert tree(tmp_path) - {str(Path("ui") / path) for path in found} == {
            str(path) for path in tree(tmp_path) if path.startswith("home/")
        }


# --- sidecars ---------------------------------------------------------------------------------------------------------

ALL = ("civitai", "a1111", "lora-manager", "stability", "swarm", "preview")


def test_sidecars_of_five_tools_and_a_preview_come_and_go(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        beside.keep_preview(registry, "civitai", 11, PNG)
        comfy(registry, tmp_path / "ui", sidecars=ALL)
        folder = tmp_path / "ui/models/loras"
        assert tree(folder) == {
            "thanos.safetensors", "thanos.civitai.info", "thanos.json", "thanos.metadata.json", "thanos.cm-info.json",
            "thanos.swarm.json", "thanos.preview.png",
        }  # fmt: skip
        assert json.loads((folder / "thanos.json").read_text())["activation text"] == "thnos"
        assert json.loads((folder / "thanos.metadata.json").read_text())["civitai"]["id"] == 11
        assert json.loads((folder / "thanos.swarm.json").read_text())["modelspec.author"] == "ann"
        assert links.apply(registry) == []
        links.remove(registry, "comfyui")
        assert tree(folder) == set()


def test_a_hand_edit_in_a_sidecar_survives_updates_and_removal(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", sidecars=("a1111", "civitai"))
        path = tmp_path / "ui/models/loras/thanos.json"
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "notes": "mine", "preferred weight": 0.55, "x": 1}))
        registry.note(11, notes="said in hubctl", weight=0.9, words=["new word"])
        done = links.apply(registry)
        after = json.loads(path.read_text())
        assert (after["notes"], after["preferred weight"], after["x"]) == ("mine", 0.55, 1)
        assert after["activation text"] == "new word"
        assert ("kept", "thanos.json") in what(done)
        links.remove(registry, "comfyui")
        assert tree(tmp_path / "ui") == {"models/loras/thanos.json"}


def test_sidecars_that_are_no_json_and_pictures_of_ones_own_are_left(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ui/models/loras"
    folder.mkdir(parents=True)
    (folder / "thanos.json").write_text("not json")
    (folder / "thanos.png").write_bytes(b"my picture")
    with Registry.open(home) as registry:
        install(registry, b"lora")
        beside.keep_preview(registry, "civitai", 11, PNG)
        comfy(registry, tmp_path / "ui", sidecars=("a1111", "preview"))
        assert (folder / "thanos.json").read_text() == "not json"
        assert tree(folder) == {"thanos.safetensors", "thanos.json", "thanos.png"}


# --- extra_model_paths.yaml -------------------------------------------------------------------------------------------


def test_yaml_instead_of_links_and_back(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "ui"
    root.mkdir()
    theirs = "# mine\na111:\n    base_path: ../webui\n    loras: models/Lora\n"
    (root / "extra_model_paths.yaml").write_text(theirs)
    with Registry.open(home) as registry:
        install(registry, b"lora")
        done = comfy(registry, root, kind="yaml")
        assert [action.what for action in done] == ["settings", "link"]
        assert tree(root) == {"extra_model_paths.yaml"}
        assert (home / "views/comfyui/loras/thanos.safetensors").read_bytes() == b"lora"
        assert (root / "extra_model_paths.yaml").read_text().startswith(theirs)
        links.remove(registry, "comfyui")
        assert (root / "extra_model_paths.yaml").read_text() == theirs
        assert not (home / "views/comfyui").exists()


def test_a_default_block_of_extra_model_paths_is_where_links_go(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "ui"
    root.mkdir()
    (tmp_path / "big").mkdir()
    (root / "extra_model_paths.yaml").write_text(
        f"big:\n  base_path: {tmp_path / 'big'}\n  is_default: true\n  loras: my-loras\n"
    )
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, root)
        assert tree(tmp_path / "big") == {"my-loras/thanos.safetensors"}


def test_links_follow_a_folder_that_is_a_symlink(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "ui"
    (root / "models").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (root / "models/loras").symlink_to(tmp_path / "elsewhere")
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, root)
        assert tree(tmp_path / "elsewhere") == {"thanos.safetensors"}
        assert (root / "models/loras").is_symlink()


def test_a_run_that_was_killed_between_row_and_name_is_finished(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        for number in (11, 12, 13):
            install(registry, bytes([number]), number, name=f"n{number}.safetensors")
        comfy(registry, tmp_path / "ui")
        folder = tmp_path / "ui/models/loras"
        with registry.transaction() as db:
            db.execute("UPDATE link SET inode = NULL")
        (folder / "n12.safetensors").unlink()
        (folder / "n13.safetensors").unlink()
        (folder / "n13.safetensors").write_bytes(b"a person's")
        (folder / ".hubctl-abc-999999999.tmp").write_bytes(b"half a copy")
        links.apply(registry)
        assert tree(folder) == {"n11.safetensors", "n12.safetensors", "n13.safetensors", "n13-v13.safetensors"}
        assert (folder / "n13.safetensors").read_bytes() == b"a person's"
        assert not registry.rows("SELECT * FROM link WHERE inode IS NULL")


def test_removing_a_version_takes_its_links_along(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", sidecars=("a1111",))
        links.unlink(registry, [("civitai", 11)])
        report = registry.remove(registry.plan_remove([("civitai", 11)]))
        assert report.freed > 0
        assert tree(tmp_path / "ui") == set()


def test_no_space_is_said_before_anything_is_copied(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        from registry.errors import NoSpace

        with pytest.raises(NoSpace):
            comfy(registry, tmp_path / "ui", kind="copy")
        assert tree(tmp_path / "ui") == set()


def test_threads_that_link_the_same_name_lose_no_file(home: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Registry.open(home) as registry:
        comfy(registry, tmp_path / "ui")
        numbers = range(11, 31)
        for number in numbers:
            install(registry, bytes([number]), number, name="same.safetensors")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: links.show(registry, "civitai", number), numbers))
        folder = tmp_path / "ui/models/loras"
        assert {path.read_bytes() for path in folder.iterdir()} == {bytes([number]) for number in numbers}
        assert len(registry.rows("SELECT * FROM link WHERE inode IS NOT NULL")) == len(numbers)
        assert links.apply(registry) == []


# --- what changes under a link ----------------------------------------------------------------------------------------


def replace_file(registry: Registry, data: bytes, version_id: int = 11) -> str:
    """The hub has other bytes under the same ids, and they are taken."""
    sha = hashlib.sha256(data).hexdigest()
    with registry.reserve(sha, size=len(data)) as partial:
        partial.write(data)
        partial.seal()
    item = registry.get(version_id)
    assert item is not None
    registry.add(Manifest(item.source, item.model, item.version, {item.files[0].file_id: sha}))
    return sha


@pytest.mark.parametrize("kind", ["hardlink", "symlink", "copy"])
def test_a_version_whose_file_was_replaced_shows_the_new_bytes_under_the_same_name(
    home: Path, tmp_path: Path, kind: str
) -> None:
    with Registry.open(home) as registry:
        old = install(registry, b"lora")
        comfy(registry, tmp_path / "ui", kind=kind, sidecars=("a1111",))
        path = tmp_path / "ui/models/loras/thanos.safetensors"
        new = replace_file(registry, b"lora, mended")
        assert links.show(registry, "civitai", 11) == []
        assert path.read_bytes() == b"lora, mended"
        assert tree(tmp_path / "ui") == {"models/loras/thanos.safetensors", "models/loras/thanos.json"}
        assert json.loads(path.with_suffix(".json").read_text())["sha256"] == new.upper()
        assert [(row["sha256"], row["kind"]) for row in registry.rows("SELECT * FROM link")] == [(new, kind)]
        assert registry.has(old)  # until somebody says that it may go
        links.remove(registry, "comfyui")
        assert tree(tmp_path / "ui") == set()


def test_a_link_that_another_process_made_pointless_is_taken_away(home: Path, tmp_path: Path) -> None:
    """One decides to make a dangling link again; another replaces the file before it comes to that."""
    with Registry.open(home) as registry, Registry.open(home) as other:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", kind="symlink")
        path = tmp_path / "ui/models/loras/thanos.safetensors"
        ui = links.ui(registry, "comfyui")
        path.readlink().unlink()
        found = links._decide(registry, ui, links._files(registry, None))
        assert [action.what for action, _, _ in found.steps] == ["relink"]
        replace_file(other, b"lora, mended")
        links._perform(registry, ui, found, lambda done, total, what: None)
        assert not path.is_symlink()
        assert registry.rows("SELECT * FROM link") == []
        links.repair(registry)
        assert path.read_bytes() == b"lora, mended"


def test_what_is_taken_out_while_a_drive_is_away_goes_when_it_is_back(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", kind="copy")
        (tmp_path / "ui").rename(tmp_path / "unplugged")
        registry.remove(registry.plan_remove([("civitai", 11)]))
        assert not (tmp_path / "ui").exists()
        (tmp_path / "unplugged").rename(tmp_path / "ui")
        links.repair(registry)
        assert tree(tmp_path / "ui") == set()
        assert registry.rows("SELECT * FROM link") == []


def test_sidecars_follow_a_file_to_its_new_name_with_a_persons_edits(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", sidecars=("a1111", "civitai"))
        side = tmp_path / "ui/models/loras/thanos.json"
        side.write_text(json.dumps({**json.loads(side.read_text()), "notes": "mine"}))
        comfy(registry, tmp_path / "ui", sidecars=("a1111", "civitai"), template="{base_model}/{model_name}")
        assert tree(tmp_path / "ui") == {
            f"models/loras/SD 1.5/Model 11{ending}" for ending in (".safetensors", ".json", ".civitai.info")
        }
        assert json.loads((tmp_path / "ui/models/loras/SD 1.5/Model 11.json").read_text())["notes"] == "mine"


def test_another_tools_sidecar_stays_though_it_says_what_ours_would(home: Path, tmp_path: Path) -> None:
    """A version object of the hub is the same whoever wrote it down."""
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", sidecars=("civitai",))
        side = tmp_path / "ui/models/loras/thanos.civitai.info"
        said = json.loads(side.read_text())
        links.remove(registry, "comfyui")
        assert not side.exists()
        side.write_text(json.dumps(said))  # Civitai Helper was here
        comfy(registry, tmp_path / "ui", sidecars=("civitai", "a1111"))
        links.remove(registry, "comfyui")
        assert json.loads(side.read_text()) == said
        assert tree(tmp_path / "ui") == {"models/loras/thanos.civitai.info"}


def test_a_removed_version_leaves_of_an_edited_sidecar_what_was_edited(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        comfy(registry, tmp_path / "ui", sidecars=("a1111",))
        side = tmp_path / "ui/models/loras/thanos.json"
        side.write_text(json.dumps({**json.loads(side.read_text()), "notes": "mine", "preferred weight": 0.4}))
        registry.remove(registry.plan_remove([("civitai", 11)]))
        assert json.loads(side.read_text()) == {"notes": "mine", "preferred weight": 0.4}


def test_repair_takes_away_sidecars_and_halves_that_stand_beside_nothing(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        install(registry, b"lora")
        loras = tmp_path / "ui/models/loras"
        loras.mkdir(parents=True)
        (loras / "my name for it.safetensors").hardlink_to(registry.blob_path(hashlib.sha256(b"lora").hexdigest()))
        comfy(registry, tmp_path / "ui", sidecars=("a1111",))
        assert {path.name for path in loras.iterdir()} == {"my name for it.safetensors", "my name for it.json"}
        (loras / "my name for it.safetensors").unlink()
        (loras / ".hubctl-0123456789ab-999999999.tmp").write_bytes(b"{")  # of a process that is dead
        links.repair(registry)
        assert {path.name for path in loras.iterdir()} == {"thanos.safetensors", "thanos.json"}


def test_a_long_name_of_a_persons_costs_its_sidecars_and_nothing_else(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        sha = install(registry, b"lora")
        install(registry, b"other", 12, name="other.safetensors")
        loras = tmp_path / "ui/models/loras"
        loras.mkdir(parents=True)
        (loras / f"{'n' * 243}.safetensors").hardlink_to(registry.blob_path(sha))
        beside.keep_preview(registry, "civitai", 11, PNG)
        done = comfy(registry, tmp_path / "ui", sidecars=("a1111", "lora-manager", "preview"))
        blocked = [action.path.name.lstrip("n") for action in done if action.what == "blocked"]
        assert blocked == [".metadata.json"]
        long = {f"{'n' * 243}{ending}" for ending in (".safetensors", ".json", ".preview.png")}
        other = {f"other{ending}" for ending in (".safetensors", ".json", ".metadata.json")}
        assert {path.name for path in loras.iterdir()} == long | other


def test_removing_a_ui_gives_its_folders_back_as_they_were(home: Path, tmp_path: Path) -> None:
    """Sidecars of other tools that got fields of ours, byte for byte, and no folder of a template's left."""
    with Registry.open(home) as registry:
        sha = install(registry, b"lora")
        install(registry, b"other", 12, name="other.safetensors")
        loras = tmp_path / "ui/models/loras"
        loras.mkdir(parents=True)
        (loras / "mine.safetensors").hardlink_to(registry.blob_path(sha))
        (loras / "mine.json").write_text('{\n  "preferred weight": 0,\n  "notes": "mine",\n  "nsfw": false\n}')
        before = {path: path.read_bytes() for path in loras.iterdir()}
        folders = {path for path in (tmp_path / "ui").rglob("*") if path.is_dir()}
        comfy(registry, tmp_path / "ui", sidecars=("a1111", "lora-manager"), template="{base_model}/{first_tag}/")
        assert json.loads((loras / "mine.json").read_text())["sha256"] == sha.upper()
        assert (loras / "SD 1.5/hero/other.safetensors").exists()
        links.remove(registry, "comfyui")
        assert {path: path.read_bytes() for path in before} == before
        assert {path for path in (tmp_path / "ui").rglob("*") if path.is_dir()} == folders


def test_of_two_names_of_the_same_bytes_the_first_folders_is_shown_each_time(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        sha = install(registry, b"embedding", type="Checkpoint", kind="unet")
        root = tmp_path / "ui"
        for name in ("models/unet/a.safetensors", "models/diffusion_models/b.safetensors"):
            (root / name).parent.mkdir(parents=True)
            (root / name).hardlink_to(registry.blob_path(sha))
        assert what(comfy(registry, root)) == [("present", "b.safetensors")]


def test_a_symlink_by_a_name_a_kill_left_in_the_tree_gets_the_new_one(home: Path, tmp_path: Path) -> None:
    with Registry.open(home) as registry:
        sha = install(registry, b"lora")
        comfy(registry, tmp_path / "ui", kind="symlink")
        link = tmp_path / "ui/models/loras/thanos.safetensors"
        old = link.readlink()
        install(registry, b"lora", base_model="Pony")
        old.parent.mkdir(parents=True, exist_ok=True)
        old.hardlink_to(registry.blob_path(sha))  # as if killed before the old name was taken away
        later = datetime.now(UTC) + timedelta(days=2)
        assert old not in [path for path, _ in prune.look(registry, at=later).leftovers]  # a UI goes by it
        assert what(links.repair(registry)) == [("relink", "thanos.safetensors")]
        assert "Pony" in str(link.readlink())
        assert old in [path for path, _ in prune.look(registry, at=later).leftovers]
        old.unlink()
        assert link.read_bytes() == b"lora"
        assert links.repair(registry) == []
