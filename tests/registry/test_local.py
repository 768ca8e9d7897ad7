"""The registry's promises: blobs hold what their names say, manifests are the truth, the index is rebuilt from them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from registry import Manifest, Registry, wire
from registry.errors import InvalidReference, NotFound, TooNew, VerificationFailed


def put(
    registry: Registry,
    data: bytes,
    *,
    model_id: int = 1,
    version_id: int = 11,
    name: str = "a.safetensors",
    text: str = "purple titan",
) -> str:
    sha = hashlib.sha256(data).hexdigest()
    with registry.reserve(sha, size=len(data)) as partial:
        partial.write(data)
        partial.seal()
    file = {
        "id": version_id * 10,
        "name": name,
        "type": "Model",
        "hashes": {"SHA256": sha.upper(), "AutoV3": "ABCDEF012345"},
    }
    version = {
        "id": version_id,
        "modelId": model_id,
        "name": "v1",
        "baseModel": "SD 1.5",
        "trainedWords": ["thnos, red"],
        "files": [file],
    }
    model = {
        "id": model_id,
        "name": f"Model {model_id}",
        "type": "LORA",
        "tags": ["hero"],
        "description": f"<p>{text}</p>",
    }
    manifest = Manifest(
        "civitai", wire.Model.model_validate(model), wire.ModelVersion.model_validate(version), {file["id"]: sha}
    )
    registry.add(manifest, facts={file["id"]: {"kind": "lora"}}, settings={"weight": {"value": 0.9}})
    return sha


def test_an_installed_version_is_found_by_everything_it_is_called(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"bytes of a lora")
        for text in (
            "1",
            "11",
            "1@11",
            "civitai:1@11",
            sha,
            sha[:10],
            "abcdef012345",
            "Model 1",
            "a",
            "thnos",
            "model:1",
            "version:11",
            f"hash:{sha[:10]}",
            f"https://civitai.com/api/v1/model-versions/by-hash/{sha}",
            "https://civitai.com/models/1?modelVersionId=11",
            "https://civitai.com/models/1/some-name",
            "https://civitai.com/api/download/models/11?fileId=7",
            "https://civitai.com/api/v1/model-versions/11",
        ):
            assert [i.version.id for i in registry.find(text)] == [11], text
        item = registry.find("1")[0]
        assert item.weight == 0.9
        assert item.trigger_words == ("thnos", "red")
        assert item.files[0].path.read_bytes() == b"bytes of a lora"
        assert item.files[0].path.name == "a.safetensors"
        assert registry.find("nothing like it") == []


def test_what_is_not_here_is_not_taken_for_something_that_is(home: Path) -> None:
    """What a reference finds may be removed: numbers and hashes are not words to look for in texts."""
    with Registry.open(home) as registry:
        put(registry, b"one", text="seed 7, steps 20, version 99, hash FEDCBA9876: a purple titan")
        assert registry.installed(text="purple")
        numbers = ("7", "20", "99", "model:99", "version:1", "image:7", "2@11", "civitai:1@99")
        hashes = ("FEDCBA9876", "hash:FEDCBA9876", "0xfedcba9876")
        addresses = ("https://civitai.com/models/99", "https://civitai.com/api/download/models/1")
        for text in (*numbers, *hashes, *addresses, "purple"):
            assert registry.find(text) == [], text


def test_a_number_that_is_a_model_and_a_version_here_is_both(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one", model_id=5, version_id=11)
        put(registry, b"two", model_id=6, version_id=5)
        assert {item.ref for item in registry.find("5")} == {"5@11", "6@5"}
        assert [item.ref for item in registry.find("model:5")] == ["5@11"]
        assert [item.ref for item in registry.find("version:5")] == ["6@5"]


def test_names_of_strangers_stay_below_the_tree(home: Path) -> None:
    with Registry.open(home) as registry:
        for number, name in enumerate(
            ("../../evil.safetensors", "CON.safetensors", "x" * 300 + ".safetensors", "\x1b[31m.pt", "😀.pt", "")
        ):
            put(registry, name.encode() + b"!", model_id=number + 1, version_id=number + 11, name=name)
        for item in registry.installed():
            path = item.files[0].path
            assert path.resolve().is_relative_to(home.resolve())
            assert path.is_file()
            assert len(path.name.encode()) <= 180
            assert path.name.split(".")[0].lower() != "con"


def test_the_same_bytes_are_kept_once_and_freed_with_the_last(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = put(registry, b"x" * 5000)
        put(registry, b"x" * 5000, model_id=2, version_id=12)
        assert registry.total_usage().files == 1
        first = registry.remove(registry.plan_remove([("civitai", 11)]))
        assert first.freed == 0
        assert registry.has(sha)
        second = registry.remove(registry.plan_remove([("civitai", 12)]))
        assert second.freed > 0
        assert not registry.has(sha)
        assert not list((home / "tree").rglob("*.safetensors"))


def test_the_index_is_rebuilt_from_manifests_alone(home: Path) -> None:
    with Registry.open(home) as registry:
        for number in range(5):
            put(registry, bytes([number]), model_id=number + 1, version_id=number + 11)
        before = [(i.version.id, i.trigger_words, i.files) for i in registry.installed()]
    for path in home.glob("index.db*"):
        path.unlink()
    with Registry.open(home) as registry:
        assert [(i.version.id, i.trigger_words, i.files) for i in registry.installed()] == before
        assert registry.reindex() == 5
        assert registry.check() == []


def test_a_newer_index_is_refused(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"1")
        registry._db.execute("INSERT INTO migration VALUES ('m999_future', 'later')")
    with pytest.raises(TooNew):
        Registry.open(home)


def test_wrong_bytes_never_get_a_name(home: Path) -> None:
    with Registry.open(home) as registry:
        sha = hashlib.sha256(b"right").hexdigest()
        with pytest.raises(VerificationFailed), registry.reserve(sha, size=5) as partial:
            partial.write(b"wrong")
            partial.seal()
        assert not registry.has(sha)
        with pytest.raises(NotFound):
            registry.add(
                Manifest("civitai", wire.Model(id=1), wire.ModelVersion(id=2), {3: sha}), facts={}, settings=None
            )


def test_a_partial_is_taken_over_after_its_writer_died(home: Path) -> None:
    script = (
        "import os, sys, pathlib\nfrom registry import Registry\n"
        f"r = Registry.open(pathlib.Path({str(home)!r}))\n"
        "p = r.reserve('ab' * 32, size=1000)\np.write(b'x' * 600)\np.checkpoint()\n"
        "p.write(b'y' * 100)\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    with Registry.open(home) as registry, registry.reserve("ab" * 32, size=1000) as partial:
        assert partial.tell() == 600
        assert partial.missing() == [(600, 1000)]


@pytest.mark.parametrize(
    "text",
    [
        "1@2",
        "civitai:",
        "urn:air:",
        "",
        "urn:air:flux.1:lora:civitai:1@2",
        "urn:air:sdxl::civitai:1@2",
        "urn:air:sdxl:lora:civitai:1@",
        "urn:air:sdxl:lora:civitai:1@2+abc",
        "urn:air:a:sdxl:lora:civitai:1@2",
        " civitai:1@2",
        "civitai:1@2\n",
        "urn:air:sdxl:lora:civitai:1@2?x=1",
    ],
)
def test_what_is_no_air(text: str) -> None:
    from registry import AIR

    with pytest.raises(InvalidReference):
        AIR.parse(text)


def test_air_round_trip() -> None:
    from registry import AIR

    air = AIR.parse("URN:AIR:SDXL:LORA:CIVITAI:827184@2514310+99.safetensor")
    assert (air.ecosystem, air.type, air.source, air.id, air.version) == (
        "sdxl",
        "lora",
        "civitai",
        "827184",
        "2514310",
    )
    assert AIR.parse(str(air)) == air
    assert AIR.parse("civitai:1@2") == AIR("civitai", "1", "2")


def test_eight_writers_lose_no_update(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"shared")
    script = (
        "import pathlib, sys\nfrom registry import Registry\n"
        f"r = Registry.open(pathlib.Path({str(home)!r}))\n"
        "for n in range(20): r.enqueue(f'{sys.argv[1]}-{n}'); r.touch(11)\nr.close()"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(n)], stderr=subprocess.PIPE) for n in range(8)]
    assert [w.communicate()[1] for w in writers] == [b""] * 8
    with Registry.open(home) as registry:
        assert len(registry.queued()) == 160


def test_an_answer_nested_beyond_reason_is_a_sentence(home: Path) -> None:
    deep: dict = {}
    for _ in range(900):
        deep = {"x": deep}
    with Registry.open(home) as registry:
        put(registry, b"fine")
        version = wire.ModelVersion.model_validate({"id": 12, "name": "v", "files": [], "odd": deep})
        model = wire.Model.model_validate({"id": 1, "name": "Model 1"})
        with pytest.raises(VerificationFailed, match="nested too deep"):
            registry.add(Manifest("civitai", model, version, {}))
        assert [item.version.id for item in registry.installed()] == [11]
