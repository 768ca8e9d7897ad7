"""Safetensors headers: read when sound, refused with a sentence when not, whatever the bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import header
from registry.errors import VerificationFailed


def packed(head: dict[str, Any] | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, dtype: str = "F32", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def write(folder: Path, content: bytes, name: str = "model.safetensors") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_names_shapes_and_metadata_of_a_sound_file(tmp_path: Path) -> None:
    head = {
        "__metadata__": {"ss_v2": "False"},
        "b": entry(8, 24),
        "a": entry(0, 8),
        "nothing": entry(24, 24, shape=[0, 4]),
    }
    found = header.read(write(tmp_path, packed(head, bytes(24))))
    assert found.metadata == {"ss_v2": "False"}
    assert found.tensors["b"] == header.Tensor("F32", (4,), 8, 24)
    assert found.tensors["b"].numel == 4
    assert found.data_start == 8 + len(json.dumps(head))


def test_it_reads_what_the_library_of_the_format_writes(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"x": torch.zeros(3, 5, dtype=torch.bfloat16), "y": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    found = header.read(tmp_path / "a.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in found.tensors.items()} == {
        "x": ("BF16", (3, 5)),
        "y": ("F8_E4M3", (2,)),
    }


BROKEN = {
    "empty": (b"", "too short"),
    "only a length": (struct.pack("<Q", 2), "ends inside its header"),
    "web page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "claims to be"),
    "header of gigabytes": (struct.pack("<Q", 2**40) + b"{}", "claims to be"),
    "cut inside the header": (packed(b'{"a":', length=500), "ends inside its header"),
    "cut inside the data": (packed({"a": entry(0, 8)}, bytes(5)), "ends after 5 of 8 bytes"),
    "not JSON": (packed(b"{nonsense}"), "not JSON"),
    "an array": (packed(b"[1, 2, 3]"), "not JSON"),
    "not UTF-8": (packed(b'{"\xff\xfe": 1}'), "not JSON"),
    "NaN": (packed(b'{"a": NaN}'), "not JSON"),
    "an integer of digits": (packed(b'{"a": ' + b"9" * 10_000 + b"}"), "not JSON"),
    "nested deeply": (packed(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "nested too deeply"),
    "too many parts": (packed(b'{"a":[' + b"[]," * 2_500_000 + b"[]]}"), "too many parts"),
    "the same name twice": (
        packed(b'{"a": %s, "a": %s}' % ((json.dumps(entry(0, 8)).encode(),) * 2), bytes(8)),
        "twice",
    ),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}}), "metadata is not a table of texts"),
    "an entry that is none": (packed({"a": 5}), "describes no tensor"),
    "an unknown key": (packed({"a": {**entry(0, 8), "b": 1}}, bytes(8)), "describes no tensor"),
    "no shape": (packed({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8)), "lacks a data type or a shape"),
    "a negative size": (packed({"a": entry(0, 8, shape=[-2])}, bytes(8)), "lacks a data type or a shape"),
    "a boolean size": (packed({"a": {**entry(0, 4), "shape": [True]}}, bytes(4)), "lacks a data type or a shape"),
    "offsets backwards": (packed({"a": entry(8, 0, shape=[2])}, bytes(8)), "make no sense"),
    "one offset": (packed({"a": {**entry(0, 8), "data_offsets": [0]}}, bytes(8)), "make no sense"),
    "shape and bytes disagree": (packed({"a": entry(0, 8, shape=[3])}, bytes(8)), "need others"),
    "a shape past all numbers": (packed({"a": entry(0, 8, shape=[2**40, 2**40])}, bytes(8)), "need others"),
    "overlap": (packed({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "shares bytes"),
    "a hole": (packed({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)), "described by nothing"),
    "bytes at the end": (packed({"a": entry(0, 8)}, bytes(20)), "described by nothing"),
    "out of range": (packed({"a": entry(0, 80)}, bytes(8)), "ends after 8 of 80"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_no_loader_would_open_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    content, reason = BROKEN[case]
    with pytest.raises(VerificationFailed) as refusal:
        header.read(write(tmp_path, content))
    assert reason in refusal.value.message
    assert "model.safetensors" in refusal.value.message
    assert refusal.value.hint == header.DAMAGED


def test_sub_byte_types_are_counted_in_bits(tmp_path: Path) -> None:
    found = header.read(write(tmp_path, packed({"a": entry(0, 4, "F4", [8])}, bytes(4))))
    assert found.tensors["a"].shape == (8,)


def test_an_unknown_data_type_is_no_reason_to_refuse(tmp_path: Path) -> None:
    assert (
        header.read(write(tmp_path, packed({"a": entry(0, 6, "F1_NEW", [48])}, bytes(6)))).tensors["a"].dtype
        == "F1_NEW"
    )


def test_half_characters_in_metadata_can_be_written_again(tmp_path: Path) -> None:
    found = header.read(write(tmp_path, packed(b'{"__metadata__": {"a": "\\ud800 x"}}')))
    assert found.metadata["a"].encode() == b"? x"


def test_a_header_saved_as_json(tmp_path: Path) -> None:
    bare = {
        "__metadata__": {"ss_tag_frequency": {"img": {"cat": 3}}},
        "a": {"dtype": None, "shape": [4, 5]},
        "b": {"dtype": "F16", "shape": None},
    }
    path = write(tmp_path, json.dumps(bare).encode(), "x.header.json")
    assert header.is_header_json(path)
    found = header.read_json(path)
    assert found.format == "header"
    assert found.tensors == {"a": header.Tensor(None, (4, 5)), "b": header.Tensor("F16", None)}
    assert found.metadata["ss_tag_frequency"] == {"img": {"cat": 3}}


@pytest.mark.parametrize(
    "content",
    [
        b'{"id": 1, "modelId": 2, "files": [{"metadata": {"fp": "fp16"}}]}',  # a .civitai.info saved as JSON
        b'{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}',  # a ComfyUI graph
        b'{"dtype": "F16", "shape": [1]}',
        b'{"a": {"dtype": "F16", "shape": "wide"}}',
        b"[]",
        b"{}",
        b"",
        b'{"__metadata__": 5}',
    ],
)
def test_other_json_is_no_header(content: bytes, tmp_path: Path) -> None:
    assert not header.is_header_json(write(tmp_path, content, "x.json"))


def test_every_recorded_header_is_recognised_as_one(shared: Path) -> None:
    files = sorted((shared / "fixtures" / "safetensors-headers").glob("*/*.json"))
    found = {path.name for path in files if header.is_header_json(path)}
    assert found == {path.name for path in files if path.name.endswith(".header.json")}
    assert len(found) > 30


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_a_header_or_a_named_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = write(tmp_path_factory.mktemp("fuzz"), content)
    try:
        header.read(path)
    except VerificationFailed as refusal:
        assert refusal.message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "__metadata__"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=12) | st.just("__metadata__"), _JSON, max_size=5), st.integers(0, 64))
def test_any_json_gives_a_header_or_a_named_refusal(
    tmp_path_factory: pytest.TempPathFactory, head: dict[str, Any], size: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for path, reader in (
        (write(folder, packed(head, bytes(size))), header.read),
        (write(folder, json.dumps(head).encode(), "a.json"), header.read_json),
    ):
        try:
            reader(path)
        except VerificationFailed as refusal:
            refusal.message.encode()
