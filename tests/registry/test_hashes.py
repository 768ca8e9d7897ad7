"""Six hashes in one pass, against their definitions computed the plain way."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import hashes


def plainly(content: bytes, payload: int | None) -> dict[str, str]:
    from blake3 import blake3

    sha256 = hashlib.sha256(content).hexdigest().upper()
    found = {"SHA256": sha256}
    if len(content) > 0x100000:
        found["AutoV1"] = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8].upper()
    found["AutoV2"] = sha256[:10]
    if payload is not None:
        found["AutoV3"] = hashlib.sha256(content[payload:]).hexdigest()[:12].upper()
    found["BLAKE3"] = blake3(content).hexdigest().upper()
    found["CRC32"] = f"{zlib.crc32(content):08X}"
    return found


def model(size: int, seed: int = 1) -> tuple[bytes, int]:
    """A safetensors file with `size` bytes of data, and where they begin."""
    head = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    data = hashlib.shake_256(str(seed).encode()).digest(size)
    return struct.pack("<Q", len(head)) + head + data, 8 + len(head)


@pytest.mark.parametrize(
    "size", [0, 1, 1000, 0x100000 - 50, 0x100000 + 10, 0x110000, hashes.PIECE * 2 + 77, hashes.PIECE * 3]
)
def test_all_six_of_a_safetensors_file(size: int, tmp_path: Path) -> None:
    content, payload = model(size)
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert hashes.hash_file(path) == plainly(content, payload)


def test_other_files_have_no_autov3_and_short_ones_no_autov1(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"PK\x03\x04" + bytes(5000))
    found = hashes.hash_file(path)
    assert found == plainly(path.read_bytes(), None)
    assert list(found) == ["SHA256", "AutoV2", "BLAKE3", "CRC32"]
    assert hashes.autov1(path) is None
    assert hashes.autov3(path) is None


def test_a_header_longer_than_a_piece(tmp_path: Path) -> None:
    head = json.dumps({"__metadata__": {"x": "y" * (hashes.PIECE + 5)}}).encode()
    content = struct.pack("<Q", len(head)) + head
    path = tmp_path / "a.safetensors"
    path.write_bytes(content + b"rest" * (2 * hashes.PIECE))
    assert hashes.hash_file(path) == plainly(path.read_bytes(), len(content))


def test_only_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert hashes.hash_file(path, ["AutoV2"]) == {"AutoV2": "BA7816BF8F"}
    assert hashes.hash_file(path, []) == {}
    with pytest.raises(ValueError, match="MD5"):
        hashes.hash_file(path, ["MD5"])


def test_the_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert hashes.hash_file(path)["SHA256"] == hashes.OF_NOTHING


def test_autov3_is_what_the_trainer_wrote_for_an_untouched_file(shared: Path) -> None:
    path = shared / "demo-model" / "thnos.safetensors"
    cheap = hashes.cheap(path)
    assert cheap["size"] == path.stat().st_size
    assert hashes.autov3(path) == cheap["claimed"]["sshs_model_hash"][:12]


def test_claims_of_nothing_are_no_claims() -> None:
    """Trainers have written the hash of an empty file, of zeros, with and without 0x, and things that are no hash."""
    good = "0x" + "ab" * 32
    assert hashes.claimed({"modelspec.hash_sha256": good}) == {"modelspec.hash_sha256": "AB" * 32}
    for bad in (
        "e3b0c44298fc",
        "E3B0C442",
        "0x" + hashes.OF_NOTHING,
        "00000000",
        "",
        "None",
        "xyz",
        5,
        None,
        "a" * 500,
    ):
        assert hashes.claimed({"sshs_model_hash": bad}) == {}


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.sets(st.sampled_from(hashes.ALL)))
def test_any_file_any_choice(tmp_path_factory: pytest.TempPathFactory, content: bytes, kinds: set[str]) -> None:
    path = tmp_path_factory.mktemp("h") / "f"
    path.write_bytes(content)
    expected = plainly(content, hashes.payload_start(path))
    assert hashes.hash_file(path, kinds) == {kind: value for kind, value in expected.items() if kind in kinds}
