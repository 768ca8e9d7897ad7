"""`hubctl inspect` on model files: what it prints, what it refuses, and that it asks nobody unless told to."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def lora(path: Path, **metadata: str) -> Path:
    """A small SD1 LoRA with a training story."""
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    head: dict[str, Any] = {"__metadata__": {"ss_network_module": "networks.lora", **metadata}}
    data = b""
    for name, shape, content in (
        (f"{layer}.lora_down.weight", [4, 768], bytes(4 * 768 * 2)),
        (f"{layer}.lora_up.weight", [640, 4], bytes(640 * 4 * 2)),
        (f"{layer}.alpha", [], struct.pack("<e", 2.0)),
    ):
        head[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_the_document_has_a_stable_shape(hubctl: Run, tmp_path: Path) -> None:
    path = lora(tmp_path / "zork.safetensors", ss_tag_frequency='{"3_zork": {"zork": 21, "hat": 9}}')
    found = hubctl("inspect", path, "--json").json
    assert found["schema"] == "hubctl.inspect/1"
    assert {
        "kind", "architecture", "base_family", "rank", "alpha", "precision", "tensors", "bytes", "hashes",
        "trained_words", "base_model_guess", "metadata", "parameters", "touches", "tag_frequency", "format", "notes",
    } <= found.keys()  # fmt: skip
    assert (found["kind"], found["base_family"], found["rank"], found["alpha"]) == ("lora", "sd1", 4, 2)
    assert found["trained_words"] == ["zork"]
    assert found["tag_frequency"] == {"zork": 21, "hat": 9}
    assert found["hashes"].keys() == {"SHA256", "AutoV2", "AutoV3", "BLAKE3", "CRC32"}
    assert found["bytes"] == path.stat().st_size
    assert "known" not in found  # no hub was asked


def test_a_person_reads_a_table(hubctl: Run, tmp_path: Path) -> None:
    path = lora(
        tmp_path / "zork.safetensors",
        ss_tag_frequency='{"3_zork": {"zork": 21}}', ss_steps="900", ss_network_dim="64",
            ss_output_name="[red]zork[/red]\x1b[2J",
    )  # fmt: skip
    shown = hubctl("inspect", path)
    assert "stable-diffusion-v1/lora" in shown.out
    assert "zork (21×)" in shown.out
    assert "its metadata says rank 64, its shapes say 4" in shown.err
    full = hubctl("inspect", path, "--full").out
    assert "900" in full
    assert "[red]zork[/red]" in full  # shown as it is, never as markup or as control characters
    assert "\x1b" not in full


def test_on_a_narrow_terminal_hashes_stay_whole_and_cuts_are_marked(
    hubctl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = lora(tmp_path / "a.safetensors", ss_training_started_at="1680822835.86", ss_long="x" * 900)
    shown = hubctl("inspect", path, "--full").out
    sha256 = hubctl("inspect", path, "--json").json["hashes"]["SHA256"]
    assert any(line.split() == ["SHA256", sha256] for line in shown.splitlines())
    assert "2023-04-06 23:13 UTC" in shown
    assert "(900 characters)" in " ".join(shown.split())


def test_a_header_without_tensors_says_so(hubctl: Run, tmp_path: Path) -> None:
    (tmp_path / "a.header.json").write_text('{"__metadata__": {"ss_network_module": "networks.lora"}}')
    assert "only metadata" in hubctl("inspect", tmp_path / "a.header.json").out


def test_hashing_can_be_left_out(hubctl: Run, tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", sshs_model_hash="ab" * 32)
    assert hubctl("inspect", path, "--no-hashes", "--json").json["hashes"] == {"sshs_model_hash": "AB" * 32}


def test_full_gives_whole_metadata(hubctl: Run, tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", **{"modelspec.thumbnail": "A" * 50_000})
    assert len(hubctl("inspect", path, "--json", "--full").json["metadata"]["modelspec.thumbnail"]) == 50_000
    assert len(hubctl("inspect", path, "--json").json["metadata"]["modelspec.thumbnail"]) < 500


def test_several_give_a_line_each_and_name_what_is_broken(hubctl: Run, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    lora(folder / "a.safetensors", note="\ud800 half a character".encode("utf-8", "replace").decode())
    (folder / "b.safetensors").write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    (folder / "c.header.json").write_text('{"emb_params": {"dtype": null, "shape": [2, 768]}}')
    (folder / "d.ckpt").write_bytes(pickle.dumps({"x": os.system}))
    (folder / "notes.json").write_text("{}")
    shown = hubctl("inspect", folder)
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["a.safetensors", "b.safetensors", "c.header.json", "d.ckpt"]
    good, broken, bare, evil = lines
    assert good["kind"] == "lora"
    assert "SHA256" not in good["hashes"]  # a folder of gigabytes is not read without being asked
    assert broken["error"]["code"] == "verification_failed"
    assert "web page" in broken["error"]["message"]
    assert (bare["kind"], bare["format"]) == ("embedding", "header")
    assert evil["pickle"]["verdict"] == "dangerous"
    assert "1 file without" in shown.err
    hashed = hubctl("inspect", folder / "a.safetensors", folder / "c.header.json", "--hashes").out.splitlines()
    assert "SHA256" in json.loads(hashed[0])["hashes"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.safetensors", b"", "empty"),
        ("a.safetensors", struct.pack("<Q", 400) + b'{"a":', "ends inside its header"),
        ("a.gguf", b"GGUF\x03", "GGUF"),
        ("a.ckpt", b"PK\x03\x04nothing", "broken archive"),
        ("a.bin", b"\x01\x02\x03", "no known format"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
    ],
)
def test_a_damaged_file_is_a_named_error(name: str, content: bytes, reason: str, hubctl: Run, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    shown = hubctl("inspect", tmp_path / name, status=7)
    assert reason in shown.err
    assert "fetch it again" in shown.err
    assert hubctl("inspect", tmp_path / name, "--json", status=7).json["error"]["code"] == "verification_failed"


def test_an_empty_name_is_no_folder(hubctl: Run) -> None:
    assert "is empty" in hubctl("inspect", "", status=2).err


def test_a_missing_file(hubctl: Run, tmp_path: Path) -> None:
    assert "is not a file" in hubctl("inspect", tmp_path / "no.safetensors", status=4).err


def test_a_pickle_is_judged_and_never_run(hubctl: Run, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'PWNED'}",)

    (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": Touch()}, protocol=2))
    found = hubctl("inspect", tmp_path / "a.pt", "--json").json
    assert found["pickle"]["verdict"] == "dangerous"
    assert "system" in found["pickle"]["reason"]
    assert not (tmp_path / "PWNED").exists()
    shown = hubctl("inspect", tmp_path / "a.pt")
    assert "dangerous: it would import" in shown.out
    assert "would run a stranger's program" in shown.err


def test_recorded_headers_and_an_embedding_in_a_picture(hubctl: Run, shared: Path) -> None:
    folder = shared / "fixtures" / "safetensors-headers"
    found = hubctl(
        "inspect", folder / "hakim3i-lora-prompts-generator" / "kohya-sd1-lora-soraka.header.json", "--json"
    ).json
    assert (found["rank"], found["alpha"], found["trained_words"]) == (18, 9, ["soraka_classic"])
    found = hubctl("inspect", folder / "lllyasviel-stable-diffusion-webui-forge" / "ti-in-png.png", "--json").json
    assert (found["kind"], found["details"]["internal_name"]) == ("embedding", "rick")


def test_the_hub_is_asked_only_when_told_to(on_demo: Run, demo_home: Path, tmp_path: Path) -> None:
    from registry import Registry

    with Registry.open(demo_home, read_only=True) as registry:
        item = next(each for each in registry.installed() if each.model.type == "LORA")
        path = item.files[0].path
    copy = tmp_path / "renamed.safetensors"
    copy.write_bytes(path.read_bytes())
    assert "known" not in on_demo("inspect", copy, "--json").json
    known = on_demo("inspect", copy, "--json", "--ask-hub").json["known"]
    assert known["SHA256"]["version_id"] == item.version.id
    assert known["SHA256"]["model_id"] == item.model.id
    assert f"{item.model.id}@{item.version.id}" in on_demo("inspect", copy, "--ask-hub").out
    stranger = lora(tmp_path / "stranger.safetensors")
    assert set(on_demo("inspect", stranger, "--json", "--ask-hub").json["known"].values()) == {None}
    assert on_demo("inspect", copy, "--ask-hub", "--offline", "--json", status=10).json["error"]["code"] == "offline"
