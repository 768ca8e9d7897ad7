"""Adopting a library as people have them: three UIs, copies, sidecars of five tools, half of it known to the hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubctl import adopt
from hubctl.cli import run
from hubctl.hubs import Hub, open_hub
from registry import Registry, links, scan
from tests import library as lib


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> lib.Library:
    return lib.build(tmp_path_factory.mktemp("original") / "ai", models=40, checkpoint_bytes=1_400_000)


@pytest.fixture
def library(original: lib.Library, tmp_path: Path) -> lib.Library:
    """A copy of its own for every test, with the same links between its files."""
    root = tmp_path / "ai"
    subprocess.run(["cp", "-a", str(original.root), str(root)], check=True)

    def moved(path: Path) -> Path:
        return root / path.relative_to(original.root)

    return lib.Library(
        root, original.world, {sha: [moved(p) for p in paths] for sha, paths in original.places.items()},
        [moved(p) for p in original.copies], [moved(p) for p in original.twins], original.edited,
        [moved(p) for p in original.junk],
    )  # fmt: skip


@pytest.fixture
def server(original: lib.Library) -> Iterator[lib.LibraryHub]:
    with lib.LibraryHub(original.world) as running:
        yield running


@pytest.fixture
def hub(server: lib.LibraryHub) -> Iterator[Hub]:
    with _asking(server) as opened:
        yield opened


def _asking(server: lib.LibraryHub) -> Hub:
    return open_hub([("civitai", server.url, None)])


def adopted(registry: Registry, roots: list[Path], hub: Hub | None, **options: Any) -> adopt.Report:
    return adopt.execute(adopt.survey(roots, registry), registry, hub, options=adopt.Options(**options))


# --- the whole journey ------------------------------------------------------------------------------------------------


def test_a_library_is_taken_over_without_copying_or_touching_a_file(
    home: Path, library: lib.Library, hub: Hub, server: lib.LibraryHub
) -> None:
    before = lib.snapshot(*library.uis)
    with Registry.open(home) as registry:
        report = adopted(registry, library.uis, hub)
        assert lib.snapshot(*library.uis) == before
        assert (report.known, report.local) == (len(library.known) + 1, len(library.world) - len(library.known) - 1)
        for made in library.world:  # every file is in the store under its hash, and is the file itself
            blob = registry.blob_path(made.sha256)
            assert any(blob.samefile(path) for path in library.places[made.sha256]), made.name
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == made.sha256
        for made in library.known:
            assert made.version
            item = registry.get(made.version["id"])
            assert item is not None
            assert (item.model.name, item.model.tag_names) == (made.model["name"], made.model["tags"])  # type: ignore[index]
            assert made.sha256 in {file.sha256 for file in item.files}
        apart = {str(path) for path in library.copies if _is_copy(path, registry)}
        assert {str(d.found.path) for d in report.duplicates} >= apart
        assert len(report.duplicates) == len(library.copies)
        assert registry.check() == []
    assert server.asked("/by-hash/ids") == 1  # every hash in one question
    assert server.asked("/models") <= 2
    assert server.asked("by-hash/") < 1 + len(library.world) - len(library.known) + 5


def _is_copy(path: Path, registry: Registry) -> bool:
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    return not registry.blob_path(sha).samefile(path)


def test_what_is_left_alone_is_said_with_a_reason(home: Path, library: lib.Library) -> None:
    with Registry.open(home) as registry:
        report = adopted(registry, library.uis, None)
        why = {each.path.name: each.why for each in report.skipped}
    assert "ends after" in why["broken.safetensors"]
    assert "web page" in why["page.safetensors"]
    assert "not complete" in why["half.safetensors.part"]
    assert "too small" in why["empty.safetensors"]
    assert "may run code" in why["evil.pt"]
    assert "Diffusers" in why["pipeline"]
    assert "points nowhere" in why["dangling.safetensors"]


def test_a_second_run_reads_nothing_and_asks_nothing(
    home: Path, library: lib.Library, hub: Hub, server: lib.LibraryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry.open(home) as registry:
        first = adopted(registry, library.uis, hub)
        server.requests.clear()
        monkeypatch.setattr(Path, "open", _refuse_models(Path.open))
        plan = adopt.survey(library.uis, registry)
        assert (plan.to_read, plan.ready, plan.likely) == ([], [], [])
        second = adopt.execute(plan, registry, hub)
        assert second.adopted == []
        assert second.unchanged == plan.files - 3  # three that were refused are not tried again
        assert {each.path for each in second.skipped} == {each.path for each in first.skipped}
        assert len(second.duplicates) == len(first.duplicates)
        assert server.requests == []


def _refuse_models(real: Any) -> Any:
    def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
        assert path.suffix not in {".safetensors", ".pt"}, f"{path} was read"
        return real(path, *args, **kwargs)

    return opened


def test_only_what_changed_is_looked_at(home: Path, library: lib.Library, hub: Hub) -> None:
    with Registry.open(home) as registry:
        adopted(registry, library.uis, hub)
        loras = library.root / "comfyui/models/loras"
        (loras / "new.safetensors").write_bytes(lib.lora(random.Random(99), 4))
        moved = next(places[0] for places in library.places.values() if len(places) == 1)
        moved.rename(moved.with_name("renamed.safetensors"))
        plan = adopt.survey(library.uis, registry)
        assert [item.path.name for item in plan.to_read] == ["new.safetensors"]
        assert [item.path.name for item in plan.ready] == ["renamed.safetensors"]  # its inode is a blob
        report = adopt.execute(plan, registry, hub)
        assert len(report.adopted) == 1
        assert adopt.survey(library.uis, registry).items == []
        assert str(moved) not in scan.known(registry)


def test_a_file_that_was_written_to_is_read_again_and_its_blob_not_trusted(
    home: Path, tmp_path: Path, hub: Hub
) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    path = folder / "a.safetensors"
    path.write_bytes(lib.lora(random.Random(1), 4))
    with Registry.open(home) as registry:
        adopted(registry, [folder], None)
        assert path.stat().st_mode & 0o222 == 0  # programs that would write into the store's bytes are refused
        path.unlink()
        path.write_bytes(lib.lora(random.Random(2), 4))
        report = adopted(registry, [folder], None)
        assert len(report.adopted) == 1
        assert registry.check() == []


# --- who a file is ----------------------------------------------------------------------------------------------------


def test_a_persons_words_in_sidecars_win_over_the_hubs(home: Path, library: lib.Library, hub: Hub) -> None:
    assert library.edited
    with Registry.open(home) as registry:
        report = adopted(registry, library.uis, hub)
        for sha, said in library.edited.items():
            source, _, version_id = scan.versions_with(registry, sha)[0]
            item = registry.get(version_id, source=source)
            assert item is not None
            assert (item.notes, item.weight) == (said["notes"], said["preferred weight"])
            assert item.trigger_words == (said["activation text"],)
        copied = [made for made in library.known if made.sha256 not in library.edited and made.type == "LORA"]
        item = registry.get(copied[0].version["id"])  # type: ignore[index]
        assert item is not None
        assert list(item.trigger_words) == copied[0].version["trainedWords"]  # type: ignore[index]
        assert report.notes >= len(library.edited)


def test_a_sidecar_edited_later_is_heard_and_what_was_said_here_stays(
    home: Path, library: lib.Library, hub: Hub
) -> None:
    made = next(m for m in library.known if m.sha256 not in library.edited and m.type == "LORA")
    number = made.version["id"]  # type: ignore[index]
    with Registry.open(home) as registry:
        adopted(registry, library.uis, hub)
        registry.note(number, weight=0.33)
        time.sleep(0.02)
        side = library.places[made.sha256][0].with_suffix(".json")
        side.write_text(json.dumps({"notes": "written later", "preferred weight": 0.9}))
        report = adopted(registry, library.uis, hub)
        item = registry.get(number)
        assert item is not None
        assert (item.notes, item.weight, report.notes) == ("written later", 0.33, 1)
        assert adopted(registry, library.uis, hub).notes == 0


def test_an_edited_header_is_seen_through_by_the_tensors(home: Path, library: lib.Library, hub: Hub) -> None:
    edited = next(made for made in library.world if made.payload_of)
    original = next(made for made in library.world if made.sha256 == edited.payload_of)
    with Registry.open(home) as registry:
        adopted(registry, library.uis, hub)
        item = registry.get(original.version["id"])  # type: ignore[index]
        assert item is not None
        assert {file.sha256 for file in item.files} == {edited.sha256, original.sha256}


def test_local_versions_tell_what_header_sidecar_and_folder_tell(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "webui"
    for path in ("models/Lora", "models/ESRGAN", "models/Stable-diffusion", "embeddings"):
        (folder / path).mkdir(parents=True)
    rng = random.Random(3)
    head = {"ss_output_name": "grandma", "ss_base_model_version": "sd_v1"}
    (folder / "models/Lora/last.safetensors").write_bytes(lib.lora(rng, 4, head))
    (folder / "models/Lora/last.swarm.json").write_text(json.dumps({"modelspec.author": "me"}))
    (folder / "models/ESRGAN/4x.safetensors").write_bytes(lib.safetensors({"odd.weight": (40, 40)}, rng))
    with Registry.open(home) as registry:
        report = adopted(registry, [folder], None)
        assert report.local == 2
        found = {item.model.name: item for item in registry.installed()}
        assert found["grandma"].model.type == "LORA"
        assert found["grandma"].model.creator.username == "me"  # type: ignore[union-attr]
        assert found["grandma"].version.base_model == "SD 1.5"
        assert found["4x"].model.type == "Upscaler"  # from its folder
        assert all(item.source == "local" for item in found.values())


def test_local_ids_follow_from_the_bytes(home: Path, tmp_path: Path) -> None:
    data = lib.lora(random.Random(4), 4)
    ids = []
    for number in (1, 2):
        folder = tmp_path / f"d{number}/loras"
        folder.mkdir(parents=True)
        (folder / f"name{number}.safetensors").write_bytes(data)
        with Registry.open(tmp_path / f"home{number}") as registry:
            ids.append(adopted(registry, [folder], None).adopted)
    assert ids[0] == ids[1]
    assert ids[0][0][2] >= 2**30


def test_offline_names_come_from_sidecars_and_the_hub_is_asked_next_time(
    home: Path, library: lib.Library, hub: Hub
) -> None:
    with Registry.open(home) as registry:
        offline = adopted(registry, library.uis, None)
        assert 0 < offline.known < len(library.known)  # those with a whole version object beside them
        assert offline.known + offline.local == len(library.world)
        unnamed = next(m for m in library.known if registry.get(m.version["id"]) is None)  # type: ignore[index]
        local = scan.versions_with(registry, unnamed.sha256)[0]
        registry.note(local[2], source="local", notes="my favourite")
        online = adopted(registry, library.uis, hub)
        assert online.renamed == len(library.known) + 1 - offline.known
        item = registry.get(unnamed.version["id"])  # type: ignore[index]
        assert item is not None
        assert item.notes == "my favourite"
        assert registry.get(local[2], source="local") is None
        assert {item.version.id for item in registry.installed() if item.source == "civitai"} == {
            made.version["id"] for made in library.known if made.version
        }
        assert registry.check() == []
        assert adopted(registry, library.uis, hub).renamed == 0


def test_a_hub_that_is_away_costs_nothing_but_names(
    home: Path, library: lib.Library, hub: Hub, server: lib.LibraryHub
) -> None:
    server.broken = True
    with Registry.open(home) as registry, open_hub([("civitai", server.url, None)], patience=0.2) as impatient:
        report = adopted(registry, library.uis, impatient)
        assert len(report.adopted) == len(library.world)
        assert len(report.warnings) == 1
        server.broken = False
        assert adopted(registry, library.uis, hub).renamed > 0


def test_two_versions_with_the_same_bytes_are_told_apart_by_the_sidecar(home: Path, tmp_path: Path) -> None:
    data = lib.lora(random.Random(5), 4)
    first = lib.published(1, "First", "LORA", "SD 1.5", "same.safetensors", data)
    second = lib.published(2, "Second", "LORA", "SD 1.5", "same.safetensors", data)
    folder = tmp_path / "loras"
    folder.mkdir()
    (folder / "same.safetensors").write_bytes(data)
    (folder / "same.civitai.info").write_text(json.dumps(second.version))
    with lib.LibraryHub([second, first]) as server, _asking(server) as hub, Registry.open(home) as registry:
        report = adopted(registry, [folder], hub)
        assert report.adopted == [("civitai", 1002, 50002)]


def test_a_sidecar_that_lies_names_nothing(home: Path, tmp_path: Path) -> None:
    famous = lib.published(1, "Famous", "LORA", "SD 1.5", "famous.safetensors", lib.lora(random.Random(6), 4))
    folder = tmp_path / "loras"
    folder.mkdir()
    other = lib.lora(random.Random(7), 4)
    (folder / "other.safetensors").write_bytes(other)
    (folder / "other.civitai.info").write_text(json.dumps(famous.version))
    with lib.LibraryHub([famous]) as server, _asking(server) as hub, Registry.open(home) as registry:
        report = adopted(registry, [folder], hub)
        assert (report.known, report.local) == (0, 1)
        assert not registry.has(famous.sha256)
        assert registry.has(hashlib.sha256(other).hexdigest())


def test_quick_reads_no_large_file_and_lets_none_in(home: Path, library: lib.Library, hub: Hub) -> None:
    with Registry.open(home) as registry:
        report = adopted(registry, library.uis, hub, quick=True)
        large = [made for made in library.world if len(made.data) > adopt.PROBE]
        assert report.recognised >= sum(made.version is not None for made in large)
        assert len(report.adopted) == len(library.world) - len(large)  # small ones are read faster than asked about
        assert report.bytes_read < 0.3 * sum(len(made.data) for made in library.world)
        assert not any(registry.has(made.sha256) for made in large)


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_dedupe_shares_copies_and_gains_what_it_promised(home: Path, library: lib.Library, hub: Hub) -> None:
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in library.copies}
    with Registry.open(home) as registry:
        promised = adopted(registry, library.uis, hub).to_gain
        free = _allocated(library.root)
        report = adopted(registry, library.uis, hub, dedupe=True)
        assert report.deduplicated == len(library.copies)
        assert report.duplicates == []
        assert report.gained == promised == free - _allocated(library.root)
        for path, sha in before.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha
            assert path.samefile(registry.blob_path(sha))
        assert adopt.survey(library.uis, registry).items == []


def _allocated(root: Path) -> int:
    seen = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def test_large_copies_are_sampled_not_read_and_compared_before_anything_is_done(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "SAMPLED", 1 << 20)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    data = bytearray(lib.checkpoint(random.Random(8), 6_000_000))
    (folder / "one.safetensors").write_bytes(data)
    (folder / "two.safetensors").write_bytes(data)
    data[len(data) // 2 + 100_000] ^= 1  # between two windows: every sample agrees, the bytes do not
    (folder / "impostor.safetensors").write_bytes(data)
    with Registry.open(home) as registry:
        report = adopted(registry, [folder], None)
        assert report.bytes_read == len(data)
        assert [d.sure for d in report.duplicates] == [False, False]
        assert adopt.survey([folder], registry).items == []
        shared = adopted(registry, [folder], None, dedupe=True)
        assert shared.deduplicated == 1
        assert len(shared.adopted) == 1  # the impostor turned out to be a model of its own
        names = [folder / name for name in ("one.safetensors", "two.safetensors", "impostor.safetensors")]
        assert len({path.stat().st_ino for path in names}) == 2
        assert registry.has(hashlib.sha256(data).hexdigest())


# --- volumes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def other_volume() -> Iterator[Path]:
    import tempfile

    if not Path("/dev/shm").is_dir():
        pytest.skip("needs a second volume")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("how", ["skip", "reference", "copy", "move"])
def test_files_on_another_volume_need_to_be_asked_for(home: Path, other_volume: Path, how: str) -> None:
    path = other_volume / "loras/a.safetensors"
    path.parent.mkdir()
    data = lib.lora(random.Random(9), 4)
    path.write_bytes(data)
    with Registry.open(home) as registry:
        report = adopted(registry, [other_volume], None, other_volume=how)
        assert path.read_bytes() == data
        if how == "skip":
            assert "another volume" in report.skipped[0].why
            assert "--reference" in report.warnings[0]
            assert report.adopted == []
            return
        blob = registry.blob_path(hashlib.sha256(data).hexdigest())
        assert blob.read_bytes() == data
        assert blob.is_symlink() == (how == "reference")
        assert path.is_symlink() == (how == "move")
        assert registry.installed()[0].files[0].path.read_bytes() == data
        assert report.duplicates == []
        again = adopt.survey([other_volume], registry)
        assert again.items == []


# --- with links -------------------------------------------------------------------------------------------------------


def test_three_uis_share_everything_and_give_back_what_was_theirs(home: Path, library: lib.Library, hub: Hub) -> None:
    before = lib.snapshot(*library.uis)
    with Registry.open(home) as registry:
        adopted(registry, library.uis, hub)
        for ui, root in zip(("comfyui", "a1111", "swarmui"), library.uis, strict=True):
            links.add(registry, links.Ui(ui, ui, root, sidecars=("civitai", "a1111")))
        shown = lib.snapshot(*library.uis)
        for made in library.world:
            for ui, root in zip(("comfyui", "a1111", "swarmui"), library.uis, strict=True):
                folder = root / lib.FOLDERS[ui][made.type]
                names = [p for p in folder.rglob("*.safetensors") if shown.get(str(p)) == made.sha256]
                extra = [root / "x"] if ui == "comfyui" and made.type in {"LORA", "VAE"} else []  # it reads A1111's too
                assert len(names) >= 1 or extra, (made.name, ui)
        assert {path: shown[path] for path in before if path.endswith(".safetensors")} == {
            path: sha for path, sha in before.items() if path.endswith(".safetensors")
        }
        assert adopt.survey(library.uis, registry).items == []  # our own links are no news
        for ui in ("comfyui", "a1111", "swarmui"):
            links.remove(registry, ui)
        after = lib.snapshot(*library.uis)
        assert {p for p in after if p.endswith(".safetensors")} == {p for p in before if p.endswith(".safetensors")}
        assert {path: after[path] for path in before if not path.endswith((".json", ".info"))} == {
            path: sha for path, sha in before.items() if not path.endswith((".json", ".info"))
        }


# --- the command ------------------------------------------------------------------------------------------------------


def hubctl(capsys: pytest.CaptureFixture[str], home: Path, *args: str) -> tuple[int, Any, str]:
    code = run([*args, "--json", "--home", str(home)])
    out = capsys.readouterr()
    return code, json.loads(out.out), out.err


def test_the_command_plans_adopts_and_links(
    home: Path, library: lib.Library, server: lib.LibraryHub, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = [str(root) for root in library.uis]
    code, plan, _ = hubctl(capsys, home, "adopt", *roots, "--dry-run", "--hub", server.url)
    assert code == 0
    assert plan["schema"] == "hubctl.adopt-plan/1"
    assert plan["plan"]["recognised"] > 0
    assert [root["ui"] for root in plan["plan"]["roots"]] == ["comfyui", "a1111", "swarmui"]
    assert not (home / "blobs").exists()
    code, done, err = hubctl(capsys, home, "adopt", *roots, "--hub", server.url, "--progress", "json")
    assert (code, done["known"]) == (0, len(library.known) + 1)
    events = [json.loads(line) for line in err.splitlines()]
    assert {"adopted", "hashed", "skipped", "progress"} <= {event["event"] for event in events}
    webui = library.root / "forge"
    webui.mkdir()
    code, linked, _ = hubctl(capsys, home, "link", "add", "forge", str(webui), "--sidecars", "a1111")
    assert (code, linked["schema"]) == (0, "hubctl.link-add/1")
    assert sum(action["what"] == "link" for action in linked["actions"]) == len(library.world)
    code, listed, _ = hubctl(capsys, home, "link", "list")
    assert (listed["items"][0]["links"], listed["items"][0]["state"]) == (len(library.world), "ok")
    code, removed, _ = hubctl(capsys, home, "link", "remove", "forge", "--yes")
    assert sum(action["what"] == "unlink" for action in removed["actions"]) == len(library.world)
    assert not list(webui.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["adopt", "/no/such/folder"], 4),
        (["adopt", "."], 0),
        (["adopt", ".", "--copy", "--move"], 2),
        (["link", "add", "nonsense", "."], 2),
        (["link", "add", "comfyui", "/no/such/folder"], 4),
        (["link", "add", "comfyui", ".", "--kind", "hope"], 2),
        (["link", "remove", "nothing", "--yes"], 4),
        (["link", "list"], 0),
        (["link", "repair"], 0),
    ],
)
def test_refusals_have_a_sentence_and_a_status(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str],
    code: int,
) -> None:  # fmt: skip
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert run([*args, "--offline", "--home", str(home)]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_the_home_itself_is_not_adopted(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    assert run(["adopt", str(home), "--offline", "--home", str(home)]) == 2
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras/a.safetensors").write_bytes(lib.lora(random.Random(1), 4))
    assert run(["adopt", str(tmp_path), "--offline", "--home", str(home)]) == 0
    capsys.readouterr()
    assert run(["adopt", str(tmp_path), "--offline", "--json", "--home", str(home)]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 1


# --- kills ------------------------------------------------------------------------------------------------------------

SCRIPT = "import sys\nfrom hubctl.cli import main\nmain(sys.argv[1:])"
FORKS = """
import json, os, sys
import hubctl.cli.adopt, hubctl.cli.link, hubctl.adopt, hubctl.install, hubctl.recommend, hubctl.hubs.civitai
import registry.links, registry.local, registry.detect, registry.pickles, registry.wire, registry.trash
from hubctl.cli import run
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0), os.dup2(null, 1)
            code = run(json.loads(line))
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HUBCTL_HOME": str(home), "HUBCTL_CONFIG": str(home.parent / "none.toml")}


def _spawn(home: Path, args: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *args], env=_environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


class Commands:
    """Runs hubctl in processes forked from one that has imported it, so that kills hit work and not imports."""

    def __init__(self, home: Path, log: Path) -> None:
        self._log = log.open("w+b")
        self._parent = subprocess.Popen(
            [sys.executable, "-c", FORKS], env=_environment(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True,
        )  # fmt: skip

    def run(self, args: list[str], *, kill_after: float | None = None) -> int:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(args) + "\n")
        self._parent.stdin.flush()
        child = int(self._parent.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return int(self._parent.stdout.readline())

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def close(self) -> None:
        self._parent.communicate()
        self._log.close()


def _sound(registry: Registry) -> None:
    """No blob has wrong bytes, no manifest lacks its blobs, index and manifests agree."""
    assert registry.check() == []
    for blob in registry.blobs:
        assert hashlib.sha256(registry.blob_path(blob.sha256).read_bytes()).hexdigest() == blob.sha256


@pytest.mark.parametrize("points", [60, pytest.param(250, marks=pytest.mark.slow)])
def test_a_kill_at_any_point_of_adopt_and_link_costs_nothing(
    original: lib.Library, tmp_path: Path, server: lib.LibraryHub, points: int, home: Path
) -> None:
    """SIGKILL at random moments of adopt, dedupe, link add, repair and remove; the next command works."""
    rng = random.Random(points)
    pristine, ui = tmp_path / "pristine", tmp_path / "forge"
    subprocess.run(["cp", "-a", str(original.root), str(pristine)], check=True)
    roots = [pristine / name for name in ("a1111", "swarmui")]
    commands = [
        ["adopt", *map(str, roots), "--hub", server.url],
        ["link", "add", "forge", str(ui), "--sidecars", "a1111,civitai,preview", "--offline"],
        ["adopt", *map(str, roots), "--dedupe", "--hub", server.url],
        ["link", "repair", "--offline"],
        ["link", "remove", "forge", "--yes"],
    ]
    (ui / "models").mkdir(parents=True)
    (ui / "models/mine.txt").write_text("mine")
    foreign = lib.snapshot(*roots)
    hubctl = Commands(home, tmp_path / "log")
    killed = 0
    while killed < points:
        command = commands[rng.randrange(len(commands))]
        code = hubctl.run(command, kill_after=rng.uniform(0, 0.25))
        killed += code == -signal.SIGKILL
        assert code in {0, 4, -signal.SIGKILL}, hubctl.said()  # 4: nothing is linked under that name
        if killed % 10 == 0:
            with Registry.open(home) as registry:
                _sound(registry)
            assert lib.snapshot(*roots) == foreign
        if killed % 15 == 0 and home.exists():  # from nothing again, now and then
            shutil.rmtree(home)
            shutil.rmtree(ui)
            (ui / "models").mkdir(parents=True)
            (ui / "models/mine.txt").write_text("mine")
    for command in commands:
        assert hubctl.run(command) in {0, 4}, hubctl.said()
    hubctl.close()
    with Registry.open(home) as registry:
        _sound(registry)
        assert len(registry.installed()) > 0
        assert not registry.rows("SELECT * FROM link")
    assert lib.snapshot(*roots) == foreign
    assert lib.snapshot(ui) == {str(ui / "models/mine.txt"): hashlib.sha256(b"mine").hexdigest()}


def test_ctrl_c_keeps_what_was_read(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.safetensors").write_bytes(
            lib.checkpoint(random.Random(number), 40_000_000 + number * 9000)
        )
    endless = folder / "endless.safetensors"  # comes last, being the largest; a hole takes no room and a minute to read
    size = 200 << 30
    header = json.dumps({"model.diffusion_model.a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    endless.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    os.truncate(endless, 8 + len(header) + size)
    process = _spawn(home, ["adopt", str(folder), "--offline", "--threads", "1", "--progress", "json"])
    assert process.stderr is not None
    seen = 0
    for line in process.stderr:
        seen += b'"hashed"' in line
        if seen == 3:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130
    assert b"Traceback" not in rest
    endless.unlink()
    with Registry.open(home) as registry:
        plan = adopt.survey([folder], registry)
        assert len(plan.to_read) <= 9
        report = adopt.execute(plan, registry, None)
        assert len(registry.installed()) == 12
        assert report.bytes_read < 9 * 41_000_000 + 1
