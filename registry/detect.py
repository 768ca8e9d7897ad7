"""What a model file is, from its first kilobytes.

    inspect(path)  →  FileFacts      kind, base family, rank, precision, what it was trained on; bounded reads, no torch

Names and shapes are facts, metadata is somebody's word: where they disagree the shapes win and a note says so.
`kind` is one of KINDS, `base_family` is what other files have to match, `architecture` the exact member of the family.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from registry import adapters, components, families, gguf, header, torchfile, training
from registry.errors import VerificationFailed
from registry.families import CONTROL, DENOISER, EMA, TEXT, VAE, Network, place
from registry.header import DAMAGED, Header, Tensor

KINDS = (
    "checkpoint", "diffusion_model", "lora", "locon", "dora", "loha", "lokr", "oft", "boft", "glora", "ia3", "full",
    "control_lora", "embedding", "vae", "controlnet", "t2i_adapter", "ip_adapter", "hypernetwork", "upscaler",
    "text_encoder", "clip_vision", "motion_module", "motion_lora", "style_model", "identity_adapter", "face_restore",
    "detector", "gligen", "aesthetic_gradient",
)  # fmt: skip
ADAPTERS = frozenset(["lora", "locon", "dora", "loha", "lokr", "oft", "boft", "glora", "ia3", "full", "control_lora"])
TORCH_SUFFIXES = {".pt": "pt", ".pth": "pt", ".ckpt": "ckpt", ".bin": "bin", ".pkl": "pickle", ".pickle": "pickle"}
SHORT_VALUE = 2000  # characters of one metadata value in `to_json`, unless all is asked for
MOST_ENTRIES = 300
MOST_ALPHAS = 1024  # alpha tensors read, four bytes each


@dataclass(frozen=True)
class FileFacts:
    """What is known of a model file; None = not in the file or not certain."""

    format: str
    bytes: int
    kind: str | None = None
    base_family: str | None = None
    architecture: str | None = None
    base_model_guess: str | None = None  # as the hub's base-model list calls it
    layout: str | None = None  # whose names the tensors have
    rank: int | None = None  # of most layers
    ranks: Mapping[int, int] = field(default_factory=dict)  # rank → layers that have it
    alpha: float | None = None
    algorithms: Mapping[str, int] = field(default_factory=dict)  # of an adapter: how → layers
    precision: str | None = None
    dtypes: Mapping[str, int] = field(default_factory=dict)  # data type → parameters
    tensors: int = 0
    parameters: int | None = None
    touches: Mapping[str, bool | None] = field(default_factory=dict)  # unet · text_encoder · vae · conv
    prediction: str | None = None  # epsilon · v · flow
    resolution: str | None = None  # trained at, `1024x1024`
    trained_words: tuple[str, ...] = ()
    tag_frequency: Mapping[str, int] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)  # what the header claims for its own file
    details: Mapping[str, Any] = field(default_factory=dict)  # of this kind only: scale, vectors, token, …
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self, *, full: bool = False) -> dict[str, Any]:
        """Plain data. Long metadata values are cut and marked unless `full`."""
        return {
            "kind": self.kind,
            "architecture": self.architecture,
            "base_family": self.base_family,
            "base_model_guess": self.base_model_guess,
            "format": self.format,
            "layout": self.layout,
            "rank": self.rank,
            "ranks": {str(rank): count for rank, count in self.ranks.items()},
            "alpha": self.alpha,
            "algorithms": dict(self.algorithms),
            "precision": self.precision,
            "dtypes": dict(self.dtypes),
            "tensors": self.tensors,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "touches": dict(self.touches),
            "prediction": self.prediction,
            "resolution": self.resolution,
            "trained_words": list(self.trained_words),
            "tag_frequency": dict(self.tag_frequency),
            "training": dict(self.training),
            "hashes": dict(self.hashes),
            "details": dict(self.details),
            "metadata": dict(self.metadata) if full else _shortened(self.metadata),
            "notes": list(self.notes),
        }


def inspect(path: Path) -> FileFacts:
    """Read what a file says about itself. A file that is no model has format "unknown" and a note.

    Raises VerificationFailed for a model file that is damaged or contradicts its own header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
    suffix = path.suffix.lower()
    if suffix == ".json" and start.lstrip()[:1] == b"{" and header.is_header_json(path):
        return from_header(header.read_json(path), size=size)
    if start[:4] == b"GGUF":
        return from_header(gguf.read(path), size=size)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return _from_picture(path, size)
    if start[8:9] == b"{" and (suffix in {".safetensors", ".sft"} or _fits(start, size)):
        _refuse_double(path, start)
        found = header.read(path)
        facts = from_header(found, size=size, alphas=_alphas(path, found))
        if suffix in TORCH_SUFFIXES:
            facts = replace(facts, notes=(*facts.notes, f"it is named {suffix} but is a safetensors file"))
        return facts
    if start[:2] == b"PK":
        return _from_zip(path, size)
    if start[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"} or suffix in TORCH_SUFFIXES:
        return _from_pickle(path, size, start)
    if suffix in {".safetensors", ".sft"}:
        raise VerificationFailed(f"`{path.name}` is no safetensors file: {_what(start)}", hint=DAMAGED)
    if suffix == ".gguf":
        raise VerificationFailed(f"`{path.name}` is no GGUF file: {_what(start)}", hint=DAMAGED)
    if start[:1] in b"(cid]}l" and start:
        return _from_pickle(path, size, start)
    return FileFacts("unknown", size, notes=(_what(start),))


def _fits(start: bytes, size: int) -> bool:
    return 8 + int.from_bytes(start[:8], "little") <= size


def _refuse_double(path: Path, start: bytes) -> None:
    """A safetensors file can be written so that torch reads it as a pickle. Nobody does that with good intent."""
    if start[0] != 0x80 or start[1] > 5:
        return
    from registry.unpickle import Broken, seen_before, walk

    try:
        with path.open("rb") as file:
            seen = walk(file)
    except Broken as error:
        seen = seen_before(error)
    if seen.imports:
        raise VerificationFailed(f"`{path.name}` is a safetensors file and a pickle at once", hint=DAMAGED)


def _what(start: bytes) -> str:
    """In words, what the first bytes of something unexpected are."""
    head = start.lstrip()[:100].lower()
    if not start:
        return "it is empty"
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps of a login or an error"
    if head[:1] in {b"{", b"["}:
        return "it is JSON"
    if not any(start):
        return "it begins with nothing but zeros, as an unfinished download does"
    if start.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file it points at"
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in start):
        return "it is plain text"
    return "its first bytes are of no known format"


# --- containers -------------------------------------------------------------------------------------------------------


def _from_zip(path: Path, size: int) -> FileFacts:
    try:
        with path.open("rb") as file, torchfile.open_zip(file) as archive:
            torch_zip = torchfile.main_pickle(archive) is not None
            names = archive.namelist()[:2000]
    except torchfile.ZIP_TROUBLE as error:
        if path.suffix.lower() in TORCH_SUFFIXES:
            raise VerificationFailed(f"`{path.name}` is a broken archive: {str(error)[:100]}", hint=DAMAGED) from None
        return FileFacts("zip", size, notes=("its archive cannot be read",))
    if not torch_zip:
        inside = Counter(Path(name).suffix.lower() for name in names if not name.endswith("/"))
        listed = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in inside.most_common(6))
        pickled = inside.keys() & {".pkl", ".pickle"}
        return FileFacts("pickle" if pickled else "zip", size, notes=(f"an archive: {listed}",))
    found = torchfile.read(path)
    return from_header(replace(found, format=TORCH_SUFFIXES.get(path.suffix.lower(), "pt")), size=size)


def _from_pickle(path: Path, size: int, start: bytes) -> FileFacts:
    suffix = path.suffix.lower()
    if start[257:262] == b"ustar":
        return FileFacts(TORCH_SUFFIXES.get(suffix, "pt"), size, notes=("a torch file of the oldest kind, not listed",))
    try:
        found = torchfile.read(path)
    except VerificationFailed as error:
        if start[:1] == b"\x80":
            raise
        if suffix in TORCH_SUFFIXES and suffix != ".bin":
            raise VerificationFailed(f"`{path.name}` is no torch file: {_what(start)}", hint=DAMAGED) from error
        return FileFacts("unknown", size, notes=(_what(start),))
    kind = TORCH_SUFFIXES.get(suffix, "pt" if found.tensors else "pickle")
    return from_header(replace(found, format=kind), size=size)


def _alphas(path: Path, found: Header) -> list[float]:
    """The values of alpha tensors: single numbers beside the layers they scale."""
    named = [t for name, t in found.tensors.items() if name.endswith(".alpha") and t.numel == 1 and t.start is not None]
    forms = {"F16": "<e", "F32": "<f", "F64": "<d", "I64": "<q", "I32": "<i"}
    values = []
    with path.open("rb") as file:
        for tensor in named[:MOST_ALPHAS]:
            file.seek((found.data_start or 0) + (tensor.start or 0))
            data = file.read((tensor.end or 0) - (tensor.start or 0))
            if tensor.dtype == "BF16" and len(data) == 2:
                values.append(struct.unpack("<f", b"\0\0" + data)[0])
            elif tensor.dtype in forms and len(data) == struct.calcsize(forms[tensor.dtype]):
                values.append(float(struct.unpack(forms[tensor.dtype], data)[0]))
    return [value for value in values if value == value and abs(value) < 1e9]


LONGEST_CHUNK = 64 * 1024 * 1024


def _from_picture(path: Path, size: int) -> FileFacts:
    """A textual inversion shared as a PNG: base64 of JSON in a text chunk `sd-ti-embedding`."""
    plain = FileFacts("unknown", size, notes=("it is a picture",))
    with path.open("rb") as file:
        file.seek(8)
        for _ in range(10_000):
            lead = file.read(8)
            if len(lead) < 8:
                return plain
            length, kind = struct.unpack(">I4s", lead)
            if kind == b"IEND" or kind == b"IDAT":
                return plain
            if kind == b"tEXt" and length <= LONGEST_CHUNK:
                data = file.read(length)
                if data.startswith(b"sd-ti-embedding\0"):
                    return _embedding_in_picture(data.partition(b"\0")[2], size)
                file.seek(4, 1)
            else:
                file.seek(length + 4, 1)
    return plain


def is_embedding_picture(path: Path) -> bool:
    """Whether a PNG carries an embedding rather than (only) generation settings. Reads no pixels."""
    try:
        return _from_picture(path, path.stat().st_size).kind == "embedding"
    except OSError:
        return False


def _embedding_in_picture(data: bytes, size: int) -> FileFacts:
    broken = FileFacts("unknown", size, notes=("it is a picture with a broken embedding in it",))
    try:
        found = json.loads(base64.b64decode(data, validate=False))
        values = found["string_to_param"]
        token, tensor = next(iter(values.items()))
        rows = tensor["TORCHTENSOR"] if isinstance(tensor, dict) else tensor
        shape = (len(rows), len(rows[0]))
    except (ValueError, TypeError, KeyError, IndexError, StopIteration, RecursionError, binascii.Error, zlib.error):
        return broken
    facts = from_header(Header({"emb_params": Tensor("F32", shape)}, format="png"), size=size)
    keep = ("name", "step", "sd_checkpoint", "sd_checkpoint_name")
    plain = {key: found[key] for key in keep if isinstance(found.get(key), str | int | None)}
    renamed = {"internal_name" if key == "name" else key: value for key, value in plain.items()}
    details = {**facts.details, "token": str(token)[:200], **renamed}
    return replace(facts, details=details, metadata=plain, layout="a text chunk of a PNG")


# --- the answer -------------------------------------------------------------------------------------------------------


def from_header(found: Header, *, size: int, alphas: Iterable[float] = ()) -> FileFacts:
    """Facts from names, shapes and metadata alone. No input or output."""
    story = training.read(found.metadata)
    shape = _by_shape(found, story)
    notes = [*found.notes, *shape.notes, *story.notes]
    family, architecture = shape.family, shape.architecture
    if family is None:
        family = story.family
    elif story.family and story.family != family and shape.certain:
        notes.append(f"its metadata says {story.architecture or story.family}, its shapes say {family}")
    if story.architecture and story.family == family:
        architecture = story.architecture
    elif architecture is None and family is not None:
        architecture = families.ARCHITECTURES.get(family, family)
    kind = shape.kind or (story.kind if not found.tensors else None)
    suffix = _suffix(kind)
    if architecture and suffix and "/" not in architecture:
        architecture += suffix
    alpha, alpha_notes = _alpha(list(alphas), story)
    rank = shape.rank or (story.rank if not found.tensors or (kind in ADAPTERS and not shape.ranks) else None)
    if kind == "lokr" and not shape.ranks and found.tensors:
        rank = None  # whole factors have no rank, whatever the trainer was told
    notes += alpha_notes
    if shape.ranks and story.rank and story.rank not in shape.ranks:
        notes.append(f"its metadata says rank {story.rank}, its shapes say {_span(shape.ranks)}")
    if alpha and rank and alpha > rank:
        notes.append(f"alpha {alpha:g} is above rank {rank}: it acts {alpha / rank:g} times as strong as its numbers")
    precision, dtypes = _precision(found)
    guess = training.base_model(found.metadata, family) if family in families.HUB_NAMES else None
    return FileFacts(
        format=found.format,
        bytes=size,
        kind=kind,
        base_family=family,
        architecture=architecture,
        base_model_guess=guess or families.hub_name(family, architecture),
        layout=shape.layout,
        rank=rank,
        ranks=shape.ranks,
        alpha=alpha,
        algorithms=shape.algorithms,
        precision=precision,
        dtypes=dtypes,
        tensors=len(found.tensors),
        parameters=sum(t.numel for t in found.tensors.values()) if _has_shapes(found) else None,
        touches=shape.touches,
        prediction=shape.prediction or story.prediction,
        resolution=story.resolution,
        trained_words=story.trained_words,
        tag_frequency=story.tag_frequency,
        training=story.training,
        hashes=story.hashes,
        details=shape.details,
        metadata=found.metadata,
        notes=tuple(dict.fromkeys(notes)),
    )


@dataclass(frozen=True)
class _Shape:
    """What names and shapes say."""

    kind: str | None = None
    family: str | None = None
    architecture: str | None = None
    certain: bool = True  # whether the family rests on more than a likelihood
    layout: str | None = None
    rank: int | None = None
    ranks: Mapping[int, int] = field(default_factory=dict)
    algorithms: Mapping[str, int] = field(default_factory=dict)
    touches: Mapping[str, bool | None] = field(default_factory=dict)
    prediction: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NOTHING: Mapping[str, bool | None] = {"unet": None, "text_encoder": None, "vae": None, "conv": None}
ALONE: Mapping[str, bool | None] = {"unet": False, "text_encoder": False, "vae": False, "conv": None}


def _by_shape(found: Header, story: training.Story) -> _Shape:
    tensors = found.tensors
    if not tensors:
        return _Shape(touches=NOTHING)
    part = components.recognise(found)
    if part is not None:
        touches = NOTHING if part.kind in {"embedding", "aesthetic_gradient"} else dict(ALONE)
        return _Shape(
            part.kind, part.family, part.architecture, touches=touches, details=part.details, notes=part.notes,
            certain=part.family is not None, layout=_layout(tensors),
        )  # fmt: skip
    adapter = adapters.read(tensors)
    if adapter is not None:
        return _adapter_shape(adapter, tensors, story)
    return _whole_shape(tensors)


def _adapter_shape(adapter: adapters.Adapter, tensors: Mapping[str, Tensor], story: training.Story) -> _Shape:
    family = families.recognise(adapter.network) if adapter.denoiser else None
    name = family.name if family else None
    text_family = _family_of_text(adapter.text)
    certain = family is not None and family.note is None
    settled = next((f for f in (story.family, text_family) if family and f in (family.name, *family.others)), None)
    notes = [family.note] if family and family.note and settled is None else []
    name = settled or name or text_family or _family_by_context(adapter)
    kind = adapter.kind
    if kind in {"lora", "dora"} and name == "flux1" and adapter.network.input("^img_in$", "^x_embedder$") == 128:
        kind = "control_lora"
    if family and family.name == name:
        architecture = family.architecture
    else:
        architecture = families.ARCHITECTURES.get(name or "", name)
    if len(adapter.ranks) > 1:
        notes.append(f"its layers have ranks {_span(adapter.ranks)}")
    return _Shape(
        kind, name, architecture, certain=certain or name == text_family,
        layout=_layout(tensors), rank=adapter.rank, ranks=adapter.ranks, algorithms=adapter.algorithms,
        touches={
            "unet": adapter.denoiser, "text_encoder": bool(adapter.text), "vae": False, "conv": adapter.conv,
        },
        details={"dora": True} if adapter.dora and kind != "dora" else {},
        notes=tuple(notes),
    )  # fmt: skip


def _family_by_context(adapter: adapters.Adapter) -> str | None:
    """Of the first LoRAs, whose layers have numbers for names: one that reads text is as wide as the text."""
    if not all(name.startswith(("unet.", "text_encoder.")) and name.count(".") == 1 for name in adapter.layers):
        return None
    reads = {layer.width[1] for layer in adapter.layers.values() if layer.width and len(layer.width) > 1}
    return "sd1" if 768 in reads else "sd2" if 1024 in reads else None


def _family_of_text(names: Iterable[str]) -> str | None:
    """The family by the text encoders an adapter names: one of 12 layers, one of 23, or two; Flux's second is a T5."""
    encoders, deepest = set(), 0
    for name in names:
        encoders.add("lora_te2" if name.startswith("text_encoder_2.") else name[:8])
        if name.startswith(("lora_te2_encoder_block", "text_encoder_2.encoder.block")):
            return "flux1"
        tail = name.partition("layers_")[2] or name.partition("layers.")[2]
        digits = tail[:2].rstrip("_.abcdefghijklmnopqrstuvwxyz")
        deepest = max(deepest, int(digits) if digits.isdigit() else 0)
    if "lora_te2" in encoders and "lora_te3" not in encoders:
        return "sdxl"
    if any(name.startswith(("lora_te_text_model", "text_encoder.text_model", "lycoris_text")) for name in names):
        return "sd2" if deepest > 11 else "sd1"
    return None


def _whole_shape(tensors: Mapping[str, Tensor]) -> _Shape:
    """A checkpoint, or a denoiser on its own."""
    inside = Counter(place(name)[0] for name in tensors)
    layers = ((name.removesuffix(".weight").removesuffix(".bias"), t.shape) for name, t in _weights_first(tensors))
    network = Network.of(layers)
    family = families.recognise(network)
    text, vae = inside[TEXT] > 0, inside[VAE] > 0
    name, architecture, notes = (family.name, family.architecture, family.note) if family else (None, None, None)
    named = components.family_of_text_encoder(tensors) if text else None
    if name in {"sd1", "sd2", "sdxl", None} and named and (family is None or not _certain_width(network)):
        name, architecture = named, families.ARCHITECTURES[named]
    denoiser = any(n.startswith(("model.diffusion_model.", "diffusion_model.")) for n in tensors)
    if family is None and inside[DENOISER] and not denoiser:
        return _Shape(touches=NOTHING, layout=None, notes=("its layers belong to no family that is known here",))
    prediction = None
    if "v_pred" in tensors or any(n.endswith(".v_pred") for n in tensors if len(n) < 40):
        prediction = "v"
    details: dict[str, Any] = {}
    channels = network.input("^input_blocks_#_#$", "^conv_in$")
    if channels and channels != 4 and name in {"sd1", "sd2", "sdxl", "kolors"}:
        details["input_channels"] = channels
    if inside[EMA]:
        details["ema"] = True
    if "ztsnr" in tensors:
        details["zero_terminal_snr"] = True
    kind = "checkpoint" if text or vae else "diffusion_model"
    if not inside[DENOISER]:
        kind = "text_encoder" if text else "vae" if vae else "controlnet" if inside[CONTROL] else "checkpoint"
    return _Shape(
        kind, name, architecture,
        certain=family is not None and notes is None, layout=_layout(tensors),
        touches={"unet": bool(inside[DENOISER]), "text_encoder": text, "vae": vae, "conv": None},
        prediction=prediction, details=details, notes=(notes,) if notes else (),
    )  # fmt: skip


def _weights_first(tensors: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """So that a layer's width comes from its weight and not from its bias."""
    late = []
    for item in tensors.items():
        if item[0].endswith(".bias"):
            late.append(item)
        else:
            yield item
    yield from late


def _certain_width(network: Network) -> bool:
    return families.text_width(network) in {768, 1024, 2048, 1280}


def _suffix(kind: str | None) -> str:
    if kind in ADAPTERS:
        return "/control-lora" if kind == "control_lora" else "/lora"
    return {"embedding": "/textual-inversion", "controlnet": "/controlnet", "vae": "/vae"}.get(kind or "", "")


def _span(ranks: Mapping[int, int]) -> str:
    low, high = min(ranks), max(ranks)
    return str(low) if low == high else f"{low} to {high}"


def _alpha(values: list[float], story: training.Story) -> tuple[float | None, list[str]]:
    counted = Counter(values)
    if not counted:
        return story.alpha, []
    most, _ = counted.most_common(1)[0]
    notes = []
    if len(counted) > 1:
        notes.append(f"its layers have alphas {min(counted):g} to {max(counted):g}")
    if story.alpha is not None and all(abs(story.alpha - value) > 0.01 * max(1, abs(value)) for value in counted):
        notes.append(f"its metadata says alpha {story.alpha:g}, its tensors say {most:g}")
    return (int(most) if float(most).is_integer() else round(most, 6)), notes


def _has_shapes(found: Header) -> bool:
    return any(tensor.shape is not None for tensor in found.tensors.values())


_WORDS = {
    "F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64", "F8_E4M3": "fp8", "F8_E5M2": "fp8", "I8": "int8",
    "F4": "fp4", "F6_E2M3": "fp6", "F6_E3M2": "fp6", "U8": "uint8",
}  # fmt: skip
_MARKS = (  # endings of the helper tensors that quantisers leave beside the weights
    ("quant_state.bitsandbytes__nf4", "nf4"),
    ("quant_state.bitsandbytes__fp4", "fp4"),
    (".weight_scale_2", "nvfp4"),
    (".wtscale", "fp4"),
    (".wcscales", "fp4"),
    (".wscales", "int4"),
    (".qweight", "int4"),
)


def _precision(found: Header) -> tuple[str | None, dict[str, int]]:
    """(as the hub would call it, parameters by data type). Weighed by parameters, so stray scales do not count."""
    counts: Counter[str] = Counter()
    for tensor in found.tensors.values():
        if tensor.dtype:
            counts[tensor.dtype] += tensor.numel
    dtypes = {name: count for name, count in counts.most_common(12) if count}
    if found.format == "gguf":
        return gguf.quantisation(found), dtypes
    if not dtypes:
        return None, {}
    for ending, name in _MARKS:
        if any(tensor.endswith(ending) for tensor in found.tensors):
            return name, dtypes
    floats = {
        name: count for name, count in dtypes.items() if name not in {"I64", "I32", "I16", "BOOL", "U8"}
    } or dtypes
    total = sum(floats.values())
    words: Counter[str] = Counter()
    for name, count in floats.items():
        words[_WORDS.get(name, name.lower())] += count
    most, count = words.most_common(1)[0]
    scaled = any(name.endswith((".scale_weight", ".weight_scale", "scaled_fp8")) for name in found.tensors)
    if words["fp8"] * 4 >= total:
        if "F8_E8M0" in dtypes:
            return "mxfp8", dtypes
        if scaled:
            return "fp8_scaled", dtypes
        return ("fp8" if words["fp8"] * 10 >= total * 9 else "fp8_mixed"), dtypes
    return (most if count * 10 >= total * 9 else "mixed"), dtypes


def _layout(tensors: Mapping[str, Tensor]) -> str | None:
    """Whose names the tensors have: the trainer's or the library's."""
    names = list(tensors)[:4000]

    def any_of(*starts: str) -> bool:
        return any(name.startswith(starts) for name in names)

    def within(*parts: str) -> bool:
        return any(part in name for name in names for part in parts)

    if any_of("lora_transformer_"):
        return "onetrainer"
    if any_of("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_"):
        return "kohya"
    if any_of("lycoris_"):
        return "lycoris"
    if within(".processor.") and any_of("double_blocks", "single_blocks"):
        return "xlabs"
    if within(".lora_A."):
        return "peft"
    if within(".lora_down.", "_lora.down.", ".lora.down."):
        return "diffusers"
    if any_of("conditioner."):
        return "sgm"
    if any_of("cond_stage_model."):
        return "ldm"
    if within("down_blocks.", "up_blocks.", "transformer_blocks."):
        return "diffusers"
    if within("double_blocks."):
        return "comfyui" if any_of("model.diffusion_model.", "diffusion_model.") else "bfl"
    if any_of("model.diffusion_model.", "diffusion_model.", "net.", "text_encoders."):
        return "comfyui"
    return None


def _shortened(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata fit for a manifest: tables of tags and pictures in base64 are megabytes in some files."""
    short: dict[str, Any] = {}
    for key, value in list(metadata.items())[:MOST_ENTRIES]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        if len(text) > SHORT_VALUE:
            short[key[:200]] = f"{text[:200]}… ({len(text):,} characters)"
        else:
            short[key[:200]] = value
    return short
