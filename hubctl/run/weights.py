"""A file of tensors, read one at a time: safetensors by a map of the file, pickles through `weights_only` alone.

    with Weights.open(path) as weights:
        weights.shape("first_stage_model.decoder.conv_in.weight")     from the header; no tensor is touched
        weights.get(name, dtype=torch.float32)                        one tensor, in this precision

A tensor asked for as it is stored is a view of the file: nothing is copied, and writing into it (a LoRA's merge) makes
private pages that never reach the file. A tensor that has to be converted is copied once, and the pages it came from
are given back at once, so that a checkpoint is never twice in memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubctl.errors import RunError, UnsafeFile

LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it
DAMAGED = "`hubctl verify` finds damage; install it again"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

# Classes that trainers leave in old .ckpt files. They are replaced by empty shells, never imported.
TRAINERS = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.core.", "numpy._core.")


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass
class Weights:
    """The tensors of one file by name."""

    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    _entries: dict[str, Entry] = field(default_factory=dict)
    _map: mmap.mmap | None = None
    _loaded: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Weights:
        """Raises UnsafeFile for a pickle that holds more than tensors, RunError for a damaged file."""
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:9] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
            return cls(path, _loaded=_unpickled(path))
        return cls._mapped(path)  # its first byte may be a pickle's too: the length of the header decides it

    @classmethod
    def _mapped(cls, path: Path) -> Weights:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or not 2 <= length <= LONGEST_HEADER or file.read(1) != b"{":
                raise RunError(f"`{path.name}` is not a file of tensors", hint=DAMAGED)
            if 8 + length > size:
                raise RunError(f"`{path.name}` is cut off: it ends inside its header", hint=DAMAGED)
            file.seek(8)
            header = _header(file.read(length), path)
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        metadata = header.pop("__metadata__", None)
        entries = {name: _entry(name, entry, 8 + length, path) for name, entry in header.items()}
        needed = max((entry.end for entry in entries.values()), default=0)
        if needed > size:
            raise RunError(f"`{path.name}` is cut off: {size:,} of {needed:,} bytes are there", hint=DAMAGED)
        return cls(path, metadata if isinstance(metadata, dict) else {}, entries, view)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries or self._loaded)

    def __len__(self) -> int:
        return len(self._entries) or len(self._loaded)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """None for a tensor that is not there."""
        if entry := self._entries.get(name):
            return entry.shape
        tensor = self._loaded.get(name)
        return tuple(tensor.shape) if tensor is not None else None

    def get(self, name: str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        """One tensor. Raises KeyError for a name that is not there."""
        where = torch.device(device)
        tensor = self._loaded[name] if name in self._loaded else self._view(name)
        same = dtype is None or tensor.dtype == dtype
        if where.type == "cpu":
            out = tensor if same else tensor.to(dtype)
        elif where.type == "mps":  # knows neither float64 nor float8: convert before it travels
            out = tensor.to(dtype).to(where)
        else:
            out = tensor.to(where).to(dtype)
        if out is not tensor:
            self._give_back(name)
        return out

    def _view(self, name: str) -> Tensor:
        entry = self._entries[name]
        kind = DTYPES.get(entry.dtype)
        if kind is None:
            raise RunError(f"`{self.path.name}` holds numbers of a kind this runner does not know: {entry.dtype}")
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=kind)
        assert self._map is not None
        if entry.start % kind.itemsize:  # written by a careless hand: processors want numbers at even addresses
            return torch.frombuffer(bytearray(self._map[entry.start : entry.end]), dtype=kind).reshape(entry.shape)
        flat = torch.frombuffer(self._map, dtype=kind, count=math.prod(entry.shape), offset=entry.start)
        return flat.reshape(entry.shape)

    def _give_back(self, name: str) -> None:
        """Tell the system that a tensor's pages are not needed any more (whole pages of its own only)."""
        entry = self._entries.get(name)
        if entry is None or self._map is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        first = -(-entry.start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = entry.end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            with contextlib.suppress(OSError):
                self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a (small) file: views of it where the format allows. Raises UnsafeFile, RunError."""
    weights = Weights.open(path)
    return {name: weights.get(name) for name in weights}


# --- safetensors ---


def _header(data: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise RunError(f"`{path.name}` is damaged: its header cannot be read", hint=DAMAGED)
    return header


def _entry(name: str, entry: Any, base: int, path: Path) -> Entry:
    try:
        shape = tuple(int(side) for side in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
        dtype = str(entry["dtype"])
    except (KeyError, TypeError, ValueError):
        raise RunError(f"`{path.name}` is damaged: `{name[:80]}` has no shape or place", hint=DAMAGED) from None
    kind = DTYPES.get(dtype)
    fits = kind is None or end - start == math.prod(shape) * kind.itemsize
    if start < 0 or end < start or any(side < 0 for side in shape) or not fits:
        raise RunError(f"`{path.name}` is damaged: `{name[:80]}` does not fit its place", hint=DAMAGED)
    return Entry(dtype, shape, base + start, base + end)


# --- pickles ---


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.ckpt`, `.pt` or `.bin`. Only tensors and plain containers are ever built from it."""
    is_zip = path.open("rb").read(2) == b"PK"
    try:
        with torch.serialization.safe_globals(_shells(path) if is_zip else []):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except UnsafeFile:
        raise
    except Exception as error:
        raise _refusal(path, error) from None
    for _ in range(4):  # a dict may hold itself
        if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
            loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise RunError(f"`{path.name}` holds no named tensors")
    return {str(name): tensor.detach() for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def _shells(path: Path) -> list[Any]:
    """Empty stand-ins for the trainers' classes a file mentions. Raises UnsafeFile naming anything else it wants."""
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:
        raise _refusal(path, error) from None
    strange = [name for name in wanted if not name.startswith(TRAINERS)]
    if strange:
        raise UnsafeFile(f"`{path.name}` asks for `{strange[0][:80]}`, which is no tensor: it was not loaded")
    return [(type("Shell", (_Shell,), {}), name) for name in wanted]


class _Shell:
    """What stands where a trainer's object stood: takes anything, does nothing."""

    def __new__(cls, *_args: Any, **_named: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_named: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


def _refusal(path: Path, error: Exception) -> Exception:
    text = str(error)
    if "weights_only" in text.lower() or type(error).__name__ == "UnpicklingError":
        found = re.search(r"GLOBAL ([\w.]{1,80})", text)
        if found or "Unsupported" in text:
            what = f"asks for `{found[1]}`, which is no tensor" if found else "holds more than tensors"
            return UnsafeFile(f"`{path.name}` {what}: it was not loaded")
    return RunError(f"`{path.name}` is damaged or is no file of tensors", hint=DAMAGED)
