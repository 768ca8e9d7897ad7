"""Every recorded picture against the values that were read from it by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from hubctl import infotext
from hubctl.errors import NoParameters


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "bench" / "metadata.py"
    spec = importlib.util.spec_from_file_location("bench_metadata", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_known_field_of_every_sample(shared: Path, bench: ModuleType) -> None:
    scores = bench.run(shared / "fixtures" / "infotext", None)
    assert [miss for score in scores.values() for miss in score.misses] == []
    assert sum(score.files for score in scores.values()) >= 179


def test_exceptions_still_exist(shared: Path, bench: ModuleType) -> None:
    """An exception whose file is gone, or that is right by now, would hide a mistake."""
    recorded = {path.name: (path, record) for path, record in bench.samples(shared / "fixtures" / "infotext")}
    for (name, field), reason in bench.EXCEPTIONS.items():
        path, record = recorded[name]
        assert reason
        assert not bench.same(field, record["expected"][field], bench.read(path)), (name, field)


def test_every_recorded_infotext_comes_back_to_the_byte(shared: Path, bench: ModuleType) -> None:
    """All but print-outs on one line, which come back as the text they were printed from."""
    from hubctl.infotext import a1111

    count = 0
    for path, _ in bench.samples(shared / "fixtures" / "infotext"):
        parameters = bench.read(path)
        if parameters is None or parameters.sources.get("raw") != "infotext" or path.name.startswith("jammed"):
            continue
        assert a1111.write(parameters) == a1111.infotext_of(infotext.read(path, sidecars=False)), path.name
        count += 1
    assert count >= 80


GENERATORS = {
    "enslo-sd-metadata/sd-webui.png": ("A1111", "v1.10.1"),
    "enslo-sd-metadata/forge.png": ("Forge", "f2.0.1v1.10.1-previous-669-gdfdcbab6"),
    "enslo-sd-metadata/reforge.png": ("reForge", "f1.0.0v2-v1.10.1RC-latest-2498-g5120e679"),
    "enslo-sd-metadata/forge-neo.webp": ("Forge Neo", "neo"),
    "enslo-sd-metadata/forge-classic.jpeg": ("Forge Classic", "classic"),
    "enslo-sd-metadata/sd-next.jpg": ("SD.Next", "56a8aea"),
    "vladmandic-sdnext/logo-bg-0.jpg": ("SD.Next", "0a083c2"),
    "enslo-sd-metadata/comfyui-saveimagewithmetadata.webp": ("ComfyUI", None),
    "enslo-sd-metadata/stability-matrix.png": ("Stability Matrix", None),
    "enslo-sd-metadata/civitai.jpeg": ("Civitai", None),
    "enslo-sd-metadata/civitai-upscale.jpg": ("Civitai", None),
    "enslo-sd-metadata/invokeai.png": ("InvokeAI", "6.10.0"),
    "d3x-at-sd-parsers/InvokeAI-invokeai_dream1.png": ("InvokeAI", None),
    "d3x-at-sd-parsers/Fooocus-fooocus1_cropped.png": ("Fooocus", "v2.4.3"),
    "enslo-sd-metadata/ruined-fooocus.png": ("RuinedFooocus", None),
    "enslo-sd-metadata/swarmui.jpg": ("SwarmUI", "0.9.7.4"),
    "enslo-sd-metadata/novelai-full.png": ("NovelAI", "V4.5"),
    "enslo-sd-metadata/tensorart.png": ("TensorArt", None),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_program_and_version(shared: Path, name: str) -> None:
    generator = infotext.parse(infotext.read(shared / "fixtures" / "infotext" / name)).generator
    assert (generator.name, generator.version) == GENERATORS[name]


def test_text_beside_a_graph_that_disagrees_is_named(shared: Path) -> None:
    path = shared / "fixtures/infotext/enslo-sd-metadata/comfyui-comfy-image-saver.png"
    parameters = infotext.parse(infotext.read(path))
    assert parameters.seed == 106744160813738
    assert any("seed" in warning for warning in parameters.warnings)
    assert parameters.raw["parameters"]["Seed"] == "0"


def test_an_edited_picture_says_so(shared: Path) -> None:
    with pytest.raises(NoParameters):
        infotext.parse(infotext.read(shared / "fixtures/infotext/enslo-sd-metadata/gimp.png"))


def test_every_recorded_meta_is_read_or_named_empty(shared: Path) -> None:
    """The hub's answers of several years: nothing in `meta` may stop the reader."""
    import json

    from hubctl.errors import KnownError

    read, metas = 0, list(_metas(shared / "fixtures" / "civitai-api", json.loads))
    for meta in metas:
        try:
            read += bool(infotext.from_meta(meta).to_json())
        except KnownError:
            continue
    assert read > 50


def _metas(root: Path, loads):
    for path in sorted(root.rglob("*.json")):
        waiting = [loads(path.read_text("utf-8"))]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if isinstance(value.get("meta"), dict):
                    yield value["meta"]
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
