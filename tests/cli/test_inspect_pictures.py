"""`hubctl inspect` on pictures: its document, folders as a stream, what it writes for other UIs, what it refuses."""

from __future__ import annotations

import io
import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

TEXT = (
    "a lighthouse <lora:paint:0.8>\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, "
    "Model hash: 0123456789, Model: base, Denoising strength: 0.4, Clip skip: 2, Hires upscale: 1.5, "
    'Hires upscaler: 4x-UltraSharp, Lora hashes: "paint: 0123456789ab", Version: v1.10.1'
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, **texts: str) -> Path:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 512, 768, 8, 2, 0, 0, 0))
    body = b"".join(chunk(b"tEXt", name.encode() + b"\0" + text.encode()) for name, text in texts.items())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    return path


def test_the_document_has_a_stable_shape(hubctl: Run, tmp_path: Path) -> None:
    found = hubctl("inspect", png(tmp_path / "a.png", parameters=TEXT), "--json").json
    assert found["schema"] == "hubctl.inspect/1"
    p = found["parameters"]
    assert {
        "prompt", "negative_prompt", "steps", "sampler", "sampler_label", "schedule", "cfg_scale", "seed", "width",
        "height", "clip_skip", "denoise", "hires", "generator", "resources", "raw",
    } <= p.keys()  # fmt: skip
    assert (p["sampler"], p["sampler_label"], p["schedule"]) == ("dpmpp_2m", "DPM++ 2M", "karras")
    assert p["refiner"] is None
    assert p["eta"] is None
    assert p["generator"] == {"name": "A1111", "version": "v1.10.1"}
    assert p["hires"].keys() >= {"upscale", "steps", "upscaler", "denoise", "sampler", "prompt"}
    assert p["resources"][1].keys() >= {"kind", "name", "weight", "weight_te", "hash", "version_id"}
    assert p["raw"]["Hires upscaler"] == "4x-UltraSharp"
    assert found["warnings"] == []


@pytest.mark.parametrize("columns", [80, 140])
def test_a_person_reads_what_was_done(
    hubctl: Run, tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = hubctl("inspect", png(tmp_path / "a.png", parameters=TEXT)).out
    assert max(map(len, shown.splitlines())) <= columns
    words = " ".join(shown.split())
    assert "DPM++ 2M Karras, 20 steps, CFG 7, seed 1, 512×768, clip skip 2" in words
    assert "×1.5 with 4x-UltraSharp, denoise 0.4" in words
    assert "paint at 0.8 (0123456789ab)" in words


def test_a_folder_is_one_object_a_line_and_names_what_is_wrong(hubctl: Run, tmp_path: Path) -> None:
    png(tmp_path / "a.png", parameters=TEXT)
    png(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("Not settings at all")
    (tmp_path / "deep").mkdir()
    png(tmp_path / "deep" / "c.png")
    (tmp_path / "deep" / "c.txt").write_text(TEXT)
    (tmp_path / "d.png").write_bytes(b"")
    (tmp_path / "notes.md").write_text("not ours")
    outcome = hubctl("inspect", tmp_path)
    rows = {Path(row["path"]).name: row for row in map(json.loads, outcome.out.splitlines())}
    assert list(rows) == ["a.png", "b.png", "d.png", "c.png"]
    assert rows["a.png"]["parameters"]["seed"] == 1
    assert rows["c.png"]["parameters"]["seed"] == 1
    assert rows["b.png"]["error"]["code"] == "no_parameters"
    assert "empty" in rows["d.png"]["error"]["message"]
    assert "2 files" in outcome.err


def test_written_back_as_text_graph_and_json(hubctl: Run, tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", parameters=TEXT)
    assert hubctl("inspect", path, "--as", "a1111").out == TEXT + "\n"
    graph = json.loads(hubctl("inspect", path, "--as", "comfy").out)
    assert {"LoraLoader", "KSampler", "ImageUpscaleWithModel"} <= {node["class_type"] for node in graph.values()}
    again = tmp_path / "graph.json"
    again.write_text(json.dumps(graph))
    back = hubctl("inspect", again, "--json").json["parameters"]
    assert (back["seed"], back["hires"]["upscale"], back["hires"]["upscaler"]) == (1, 1.5, "4x-UltraSharp")
    assert json.loads(hubctl("inspect", path, "--as", "json").out)["seed"] == 1


def test_half_a_character_and_no_number_are_printed_as_json_can(hubctl: Run, tmp_path: Path) -> None:
    """Strangers' JSON may hold lone surrogates and NaN; what is printed is UTF-8 that any program parses."""
    path = tmp_path / "a.json"
    path.write_text('{"prompt": "a \\ud800 cat", "steps": 20, "seed": 1, "sampler": "Euler a", "odd": [NaN, -1e999]}')
    assert hubctl("inspect", path, "--as", "a1111").out.startswith("a ? cat\nSteps: 20, ")
    for options in (["--json"], ["--as", "json"], ["--as", "comfy"]):
        text = hubctl("inspect", path, *options).out
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_unknown_form_and_a_form_for_many_are_refused(hubctl: Run, tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", parameters=TEXT)
    assert "one of: a1111, comfy, json" in hubctl("inspect", path, "--as", "yaml", status=2).err
    assert "one picture at a time" in hubctl("inspect", path, path, "--as", "a1111", status=2).err


@pytest.mark.parametrize("piped", ["text", "picture"])
def test_stdin_takes_text_and_pictures(
    hubctl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: str
) -> None:
    data = TEXT.encode() if piped == "text" else png(tmp_path / "a.png", parameters=TEXT).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert hubctl("inspect", "-", "--json").json["parameters"]["seed"] == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypisom" + bytes(40), "is a video"),
        (b"\x1aE\xdf\xa3" + bytes(40), "is a video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "how the picture was made"),
        (bytes(range(256)), "neither a picture nor a text"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(hubctl: Run, tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    outcome = hubctl("inspect", path, status=None)
    assert outcome.status not in (0, 1)
    assert said in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
