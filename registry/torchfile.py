"""Torch files (`.pt`, `.ckpt`, `.pth`, `.bin`) listed without torch and without unpickling.

    since 1.6   a zip: <name>/data.pkl, <name>/data/0, <name>/data/1, …
    before      pickles in a row: magic number, protocol, system, the object; then raw bytes
    0.1         a tar with `pickle`, `tensors` and `storages`

The pickle is walked by `registry.unpickle`; tensors are recognised by the calls that would rebuild them.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from registry.errors import VerificationFailed
from registry.header import DAMAGED, Header, Tensor
from registry.unpickle import Broken, Call, Global, Persistent, Pickle, walk

MAGIC = 0x1950A86A20F9469CFC6C
LONGEST_PICKLE = 256 * 1024 * 1024
LONGEST_DIRECTORY = 16 * 1024 * 1024
MOST_TENSORS = 300_000
MOST_VISITS = 2_000_000
DEEPEST = 12

ZIP_TROUBLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, RuntimeError, EOFError, OSError,
    ValueError, OverflowError, IndexError, KeyError,
)  # fmt: skip  # what zipfile lets through on archives that lie: encryption, unknown methods, broken streams

STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "QInt8Storage": "I8", "QUInt8Storage": "U8", "ComplexFloatStorage": "C64",
}  # fmt: skip
DTYPES = {
    "float32": "F32", "float": "F32", "float16": "F16", "half": "F16", "bfloat16": "BF16", "float64": "F64",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
WRAPPERS = (
    "state_dict", "params_ema", "params", "model_state_dict", "g_ema", "ema_model", "model", "net", "netG", "generator",
)  # fmt: skip
EVERYDAY = {"torch", "collections", "numpy", "__builtin__", "builtins", "_codecs"}
NUMPY = {"f4": "F32", "f2": "F16", "f8": "F64", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8"}


def read(path: Path) -> Header:
    """Names and shapes of a torch file's tensors, the plain values beside them as metadata.

    Raises VerificationFailed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            pickled = _from_zip(file) if start[:2] == b"PK" else _from_row(file)
    except (Broken, *ZIP_TROUBLE) as error:
        reason = str(error.args[0] if error.args else error)[:120]
        raise VerificationFailed(f"`{path.name}` cannot be read as a torch file: {reason}", hint=DAMAGED) from None
    return listing(pickled)


def listing(pickled: Pickle) -> Header:
    """The tensors inside what a walked pickle would have made."""
    weights = _weights(pickled.value)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    if weights is not pickled.value:  # what stands beside them: the step, the optimiser's memory
        tensors = {name: value for name, value in _leaves(weights) if isinstance(value, Tensor)}
    for name, value in _leaves(pickled.value):
        if isinstance(value, Tensor):
            if weights is pickled.value:
                tensors[name] = value
        elif len(plain) < 200 and "." not in name:
            plain[name] = value[:20_000] if isinstance(value, str) else value
    notes = []
    modules = sorted({found.module.split(".")[0] for found in pickled.imports} - EVERYDAY)
    if modules:
        plain["pickle imports"] = ", ".join(modules[:20])
    if len(tensors) >= MOST_TENSORS:
        notes.append(f"only the first {MOST_TENSORS:,} tensors were listed")
    return Header(tensors, plain, format="pt", notes=tuple(notes))


def _weights(root: Any) -> Any:
    """The table that trainers wrap: `{"state_dict": …}`, `{"params_ema": …, "params": …}`, `[weights, settings]`."""
    for _ in range(4):
        if isinstance(root, list | tuple) and not isinstance(root, Global | Persistent):
            inner = next((each for each in root[:8] if _is_table_of_tensors(each)), None)
        else:
            table = _table(root)
            inner = next((table[key] for key in WRAPPERS if _is_table_of_tensors(table.get(key))), None)
        if inner is None:
            return root
        root = inner
    return root


def _table(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else value.items if isinstance(value, Call) else {}


def _is_table_of_tensors(value: Any, depth: int = 2) -> bool:
    """… or of such tables, by their names."""
    table = _table(value)
    if any(_tensor(each) is not None for each in islice(table.values(), 64)):
        return True
    return depth > 0 and any(_is_table_of_tensors(table[key], depth - 1) for key in WRAPPERS if key in table)


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """A zip whose directory is of sane size (its entries cost far more memory than disk).

    Raises zipfile.BadZipFile.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_536 - 100))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("it ends before its table of contents")
    (directory,) = struct.unpack("<I", tail[at + 12 : at + 16])
    if directory == 0xFFFFFFFF:
        wide = tail.rfind(b"PK\x06\x06")
        directory = struct.unpack("<Q", tail[wide + 40 : wide + 48])[0] if 0 <= wide <= len(tail) - 48 else directory
    if directory > LONGEST_DIRECTORY:
        raise zipfile.BadZipFile(f"its table of contents claims {directory:,} bytes")
    file.seek(0)
    return zipfile.ZipFile(file)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """A member unpacked, refused beyond `limit` whatever its entry claims.

    Raises zipfile.BadZipFile.
    """
    with archive.open(member) as packed:
        data = packed.read(limit + 1)
    if len(data) > limit:
        raise zipfile.BadZipFile(f"`{member.filename[:80]}` unpacks to more than {limit:,} bytes")
    return data


def main_pickle(archive: zipfile.ZipFile) -> zipfile.ZipInfo | None:
    """The member torch.load unpickles: `data.pkl`, at the top or in one folder."""
    named = [m for m in archive.infolist() if m.filename.rsplit("/", 1)[-1] == "data.pkl"]
    return min(named, key=lambda m: m.filename.count("/"), default=None)


def _from_zip(file: IO[bytes]) -> Pickle:
    with open_zip(file) as archive:
        member = main_pickle(archive)
        if member is None:
            raise zipfile.BadZipFile("it is a zip without `data.pkl`")
        return walk(io.BytesIO(read_member(archive, member, LONGEST_PICKLE)))


def _from_row(file: IO[bytes]) -> Pickle:
    first = walk(file)
    if first.value != MAGIC:
        return first
    for _ in ("protocol version", "system information"):
        walk(file)
    return walk(file)


def _leaves(root: Any) -> Iterator[tuple[str, Any]]:
    """Every tensor and plain value below `root`, named by the keys on the way, in order. Bounded, cycles or not."""
    stack: list[tuple[str, Any, int]] = [("", root, 0)]
    visits = found = 0
    while stack and visits < MOST_VISITS and found < MOST_TENSORS:
        name, value, depth = stack.pop()
        visits += 1
        tensor = _tensor(value)
        if tensor is not None:
            found += 1
            yield name or "tensor", tensor
        elif isinstance(value, str | int | float | bool):
            if name:
                yield name, value
        elif depth < DEEPEST and len(name) < 500:
            children = [(f"{name}.{key}" if name else key, child, depth + 1) for key, child in _children(value)]
            if len(stack) + len(children) > MOST_VISITS:
                return
            stack.extend(reversed(children))


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((str(key)[:300], child) for key, child in value.items())
    elif isinstance(value, list | tuple) and not isinstance(value, Global | Persistent):
        yield from ((str(index), child) for index, child in enumerate(value))
    elif isinstance(value, Call):
        yield from _children(value.items)
        if isinstance(value.state, dict):
            for key in ("_parameters", "_buffers", "_modules"):  # of a pickled module, named as its state_dict does
                yield from _children(value.state.get(key))
            rest = {k: v for k, v in value.state.items() if k not in {"_parameters", "_buffers", "_modules"}}
            yield from ((k, v) for k, v in _children(rest) if not k.startswith("_"))
        if value.appended:
            yield from _children(value.appended)
        if not value.items and isinstance(value.args, tuple) and len(value.args) == 1:
            yield from _children(value.args[0]) if isinstance(value.args[0], dict) else ()


def _tensor(value: Any) -> Tensor | None:
    for _ in range(8):  # parameters wrap tensors, tensor subclasses wrap the way they are rebuilt
        if not isinstance(value, Call) or not isinstance(value.func, Global) or not isinstance(value.args, tuple):
            return None
        name, args = value.func.name, value.args
        if name in {"_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter"} and args:
            value = args[0]
        elif name == "_rebuild_from_type_v2" and len(args) >= 3:
            value = Call(args[0], args[2])
        elif name in {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"}:
            return _rebuilt(args)
        elif name == "_reconstruct" and value.func.module.endswith("multiarray"):
            return _array(value.state)
        else:
            return None
    return None


def _rebuilt(args: tuple[Any, ...]) -> Tensor | None:
    shape = _shape(args[2]) if len(args) > 2 else None
    dtype = None
    for arg in args[3:]:
        if isinstance(arg, Global) and arg.module == "torch":
            dtype = DTYPES.get(arg.name)
    if isinstance(args[0], Persistent) and isinstance(args[0].id, tuple) and len(args[0].id) > 1:
        kind = args[0].id[1]
        dtype = dtype or (STORAGES.get(kind.name) if isinstance(kind, Global) else None)
    return Tensor(dtype, shape) if shape is not None else None


def _array(state: Any) -> Tensor | None:
    if not isinstance(state, tuple) or len(state) < 3 or (shape := _shape(state[1])) is None:
        return None
    kind = state[2].args[0] if isinstance(state[2], Call) and isinstance(state[2].args, tuple) and state[2].args else ""
    return Tensor(NUMPY.get(str(kind)), shape)


def _shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, Call) and isinstance(value.args, tuple) and value.args:  # torch.Size((2, 3))
        value = value.args[0]
    if isinstance(value, tuple | list) and len(value) <= 64 and all(type(n) is int and 0 <= n < 2**63 for n in value):
        return tuple(value)
    return None
