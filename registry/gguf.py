"""GGUF: the quantised container of llama.cpp, used for diffusion models and text encoders too.

    "GGUF"  version  tensors  pairs        4, 4, 8, 8 bytes, little endian
    pairs    name, type, value             general.architecture, general.file_type, …
    tensors  name, dimensions, type, offset

Only this table of contents is read. Dimensions are stored fastest first and turned round here.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

from registry.errors import VerificationFailed
from registry.header import DAMAGED, Header, Tensor

MOST_PAIRS = 100_000
MOST_TENSORS = 300_000
LONGEST_TEXT = 1_000_000
LONGEST_TABLE = 256 * 1024 * 1024  # tokenizers are stored in it, a megabyte or ten

TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
    40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
    39: "NVFP4", 40: "Q1_0",
}  # fmt: skip
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, ARRAY = 8, 9


class _Table:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.left = LONGEST_TABLE

    def take(self, count: int) -> bytes:
        self.left -= count
        if self.left < 0:
            raise ValueError("its table of contents is too long")
        data = self.file.read(count)
        if len(data) < count:
            raise ValueError("it ends inside its table of contents")
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, width: str = "<Q") -> str:
        count = self.number(width)
        if count > LONGEST_TEXT:
            raise ValueError(f"a text in it claims {count:,} bytes")
        return self.take(count).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value; of a long array only its length, as text."""
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            inner, count = self.number("<I"), self.number("<Q")
            if depth > 2 or count > LONGEST_TABLE:
                raise ValueError("an array in it makes no sense")
            if inner in SCALARS and count > 64:
                size = struct.calcsize(SCALARS[inner])
                for at in range(0, count, 65536):
                    self.take(size * min(65536, count - at))
                return f"{count:,} values"
            items: list[Any] = []
            for _ in range(count):
                item = self.value(inner, depth + 1)
                if len(items) < 64:
                    items.append(item)
            return items if count <= 64 else f"{count:,} values"
        if kind not in SCALARS:
            raise ValueError(f"a value in it is of the unknown type {kind}")
        return self.number(SCALARS[kind])


def read(path: Path) -> Header:
    """The table of contents of a GGUF file.

    Raises VerificationFailed.
    """
    try:
        with path.open("rb") as file:
            return _read(_Table(file))
    except (ValueError, struct.error, OverflowError) as error:
        raise VerificationFailed(f"`{path.name}` cannot be read as GGUF: {error}", hint=DAMAGED) from None


def _read(table: _Table) -> Header:
    if table.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = table.number("<I")
    if not 1 <= version <= 3:
        raise ValueError(f"version {version} is not known")
    width = "<I" if version == 1 else "<Q"
    tensor_count, pair_count = table.number(width), table.number(width)
    if tensor_count > MOST_TENSORS or pair_count > MOST_PAIRS:
        raise ValueError(f"it claims {tensor_count:,} tensors and {pair_count:,} metadata entries")
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        name = table.text(width)
        metadata[name] = table.value(table.number("<I"))
    tensors: dict[str, Tensor] = {}
    for _ in range(tensor_count):
        name = table.text(width)
        dimensions = table.number("<I")
        if dimensions > 8:
            raise ValueError(f"a tensor in it has {dimensions} dimensions")
        shape = tuple(table.number(width) for _ in range(dimensions))[::-1]
        kind, offset = table.number("<I"), table.number("<Q")
        if name in tensors:
            raise ValueError(f"it names `{name[:80]}` twice")
        if any(n >= 2**63 for n in shape):
            raise ValueError(f"the shape of `{name[:80]}` makes no sense")
        original = metadata.get(f"comfy.gguf.orig_shape.{name}")  # flattened for quantising
        if isinstance(original, list) and all(type(n) is int and n >= 0 for n in original):
            shape = tuple(original)
        tensors[name] = Tensor(TYPES.get(kind, f"type {kind}"), shape, offset, None)
    kept = {key: value for key, value in metadata.items() if not key.startswith("comfy.gguf.orig_shape.")}
    return Header(tensors, kept, format="gguf")


def quantisation(header: Header) -> str | None:
    """`Q4_K_M` as the file says, else the type most weights are of."""
    said = FILE_TYPES.get(header.metadata.get("general.file_type", -1))
    counts: dict[str, int] = {}
    for tensor in header.tensors.values():
        if tensor.dtype and len(tensor.shape or ()) >= 2:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel
    most = max(counts, key=lambda name: counts[name], default=None)
    if most is None:
        return said
    family = (said or "").split("_K")[0]
    return said if said and (most.startswith(family) or said[:2] == most[:2]) else most
