"""The safetensors header, read with suspicion and without its weights.

    8 bytes      N, little endian
    N bytes      JSON: {"__metadata__": {text: text}, "name": {"dtype", "shape", "data_offsets": [start, end]}, …}
    the rest     the tensors, one after the other, without gaps or overlaps

A header saved as bare JSON is read too (dtype and shape may be null there, offsets missing), so that headers can be
collected without gigabytes beside them. Everything that no loader would accept is a VerificationFailed with a sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeGuard

from registry.errors import VerificationFailed

LONGEST = 100_000_000  # bytes of JSON; the limit of the safetensors library itself
MOST_TENSORS = 300_000
MOST_COMMAS = 10_000_000  # a header of nothing but `[[],[],…` costs far more memory than its length
MOST_BRACKETS = 2_000_000
DAMAGED = "the file is damaged, cut short or not what its name says: fetch it again"

BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


class Tensor(NamedTuple):
    """What a header says of one tensor; None = not said. Offsets count from the end of the header."""

    dtype: str | None
    shape: tuple[int, ...] | None
    start: int | None = None
    end: int | None = None

    @property
    def numel(self) -> int:
        """How many numbers it holds; 0 when no shape is given."""
        return math.prod(self.shape) if self.shape is not None else 0


@dataclass(frozen=True)
class Header:
    """Names, shapes and metadata of a model file, whatever its container."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    format: str = "safetensors"
    data_start: int | None = None  # where tensor bytes begin in the file
    notes: tuple[str, ...] = ()


def read(path: Path) -> Header:
    """The header of a safetensors file, checked against the file's size.

    Raises VerificationFailed.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        lead = file.read(8)
        length = int.from_bytes(lead, "little")
        if len(lead) < 8 or length < 2:
            _refuse(path, "it is too short to hold a header")
        if length > LONGEST:
            _refuse(path, f"its header claims to be {length:,} bytes long")
        if 8 + length > size:
            _refuse(path, f"it ends inside its header, after {size:,} of at least {8 + length:,} bytes")
        text = file.read(length)
    try:
        return parse(text, data_size=size - 8 - length)
    except VerificationFailed as error:
        _refuse(path, error.message)


def parse(text: bytes, *, data_size: int) -> Header:
    """Raises VerificationFailed, its message the bare reason."""
    if text[:1] != b"{":
        raise VerificationFailed("its header is not JSON")
    data = _load(text)
    metadata = data.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise VerificationFailed("its metadata is not a table of texts")
    tensors = {name: _tensor(name, value) for name, value in data.items()}
    _check_offsets(tensors, data_size)
    clean = {_text(key): _text(value) for key, value in metadata.items()}
    return Header(tensors, clean, data_start=8 + len(text))


def is_header_json(path: Path) -> bool:
    """Whether a `.json` is a safetensors header saved on its own, rather than any other JSON."""
    if path.suffix.lower() != ".json":
        return False
    try:
        if not 2 <= path.stat().st_size <= LONGEST:
            return False
        with path.open("rb") as file:
            start = file.read(65536)
        if not start.lstrip().startswith(b"{") or not any(w in start for w in (b'"dtype"', b'"shape"', b"__metadata")):
            return False
        read_json(path)
    except (OSError, VerificationFailed):
        return False
    return True


def read_json(path: Path) -> Header:
    """A header saved as JSON. Metadata values may be objects here, as sites store them.

    Raises VerificationFailed.
    """
    if path.stat().st_size > LONGEST:
        _refuse(path, "it is too long for a header")
    try:
        data = _load(path.read_bytes().strip())
        metadata = data.pop("__metadata__", None)
        tensors = {name: _tensor(name, value, bare=True) for name, value in data.items()}
    except VerificationFailed as error:
        _refuse(path, error.message)
    if not tensors and not isinstance(metadata, dict):
        _refuse(path, "it names neither tensors nor metadata")
    clean = {_text(key): _text(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    return Header(tensors, clean, format="header")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise VerificationFailed(f"`{path.name}` cannot be read as a model: {reason}", hint=DAMAGED)


def _load(text: bytes) -> dict[str, Any]:
    if text.count(b"[") + text.count(b"{") > MOST_BRACKETS or text.count(b",") > MOST_COMMAS:
        raise VerificationFailed("its header has too many parts")
    try:
        data = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise VerificationFailed("its header is nested too deeply") from None
    except ValueError as error:  # bad JSON, bad UTF-8, an integer of thousands of digits
        raise VerificationFailed(f"its header is not JSON ({str(error)[:80]})") from None
    if not isinstance(data, dict):
        raise VerificationFailed("its header is not a JSON object")
    if len(data) > MOST_TENSORS:
        raise VerificationFailed(f"it names {len(data):,} tensors")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next((key for key, _ in pairs if key in seen or seen.add(key)), "")  # type: ignore[func-returns-value]
        raise VerificationFailed(f"its header names `{_text(twice)[:80]}` twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _tensor(name: str, value: Any, *, bare: bool = False) -> Tensor:
    shown = _text(name)[:80]
    if not isinstance(value, dict) or not value.keys() <= {"dtype", "shape", "data_offsets"}:
        raise VerificationFailed(f"its entry `{shown}` describes no tensor")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if bare and ("dtype" in value or "shape" in value):
        if dtype is not None and not isinstance(dtype, str):
            raise VerificationFailed(f"the data type of `{shown}` is not a text")
        if shape is not None and not _whole_numbers(shape):
            raise VerificationFailed(f"the shape of `{shown}` is not a list of whole numbers")
        start, end = offsets if _whole_numbers(offsets) and len(offsets) == 2 else (None, None)
        return Tensor(dtype, None if shape is None else tuple(shape), start, end)
    if not isinstance(dtype, str) or not _whole_numbers(shape):
        raise VerificationFailed(f"its entry `{shown}` lacks a data type or a shape")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise VerificationFailed(f"the offsets of `{shown}` make no sense")
    tensor = Tensor(dtype, tuple(shape), offsets[0], offsets[1])
    if dtype in BITS and offsets[1] - offsets[0] != (tensor.numel * BITS[dtype] + 7) // 8:
        raise VerificationFailed(f"`{shown}` has {offsets[1] - offsets[0]:,} bytes, its shape and {dtype} need others")
    return tensor


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= 64 and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_offsets(tensors: Mapping[str, Tensor], data_size: int) -> None:
    """Every byte of the data belongs to exactly one tensor; loaders insist, and hidden bytes are worth refusing."""
    spans: Iterable[tuple[int, int, str]] = sorted((t.start or 0, t.end or 0, name) for name, t in tensors.items())
    at = 0
    for start, end, name in spans:
        if start < at:
            raise VerificationFailed(f"`{_text(name)[:80]}` shares bytes with another tensor")
        if start > at:
            raise VerificationFailed(f"{start - at:,} bytes before `{_text(name)[:80]}` are described by nothing")
        at = end
    if at > data_size:
        raise VerificationFailed(f"it ends after {data_size:,} of {at:,} bytes of tensors")
    if at < data_size:
        raise VerificationFailed(f"{data_size - at:,} bytes at its end are described by nothing")


def _text(value: Any) -> Any:
    """Text that can be written again: JSON escapes can smuggle in halves of characters."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
