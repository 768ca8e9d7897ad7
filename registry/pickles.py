"""Would loading this file run code? Said without loading it.

Two judges, and the stricter one wins. Ours walks every pickle (`registry.unpickle`) and holds each name it would import
against a short list of what model files need: tensors being rebuilt, ordered dicts, numpy numbers. picklescan knows
names that are known to do harm.

    safe         only names of the list, followed to the end; or no pickle at all
    suspicious   a name nobody knows, something no model needs, or a part that could not be read
    dangerous    a name that runs programs, or one that is hidden

Nothing a pickle names is ever imported or called.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from registry.torchfile import MAGIC, ZIP_TROUBLE, main_pickle, open_zip, read_member
from registry.unpickle import Broken, Global, Pickle, TooMuch, seen_before, walk

logging.getLogger("picklescan").addHandler(logging.NullHandler())  # it would talk on stderr otherwise,
logging.getLogger("picklescan").propagate = False  # in strangers' words
LONGEST_PICKLE = 256 * 1024 * 1024  # of one pickle in an archive, unpacked
LONGEST_FOR_PICKLESCAN = 32 * 1024 * 1024  # it keeps every instruction in memory
MOST_MEMBERS = 100_000
MOST_UNPACKED = 1024 * 1024 * 1024
DEEPEST = 3
MOST_PICKLES = 64  # in a row in one file

_BUILTINS = {
    "set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str", "bytes", "bytearray",
    "slice", "range", "long", "unicode", "object",
}  # fmt: skip
ALLOWED: dict[str, set[str]] = {
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "collections": {"OrderedDict", "defaultdict", "Counter", "deque"},
    "copyreg": {"_reconstructor"},
    "copy_reg": {"_reconstructor"},
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
    "_codecs": {"encode"},
    "torch._utils": {
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor",
        "_rebuild_meta_tensor_no_storage", "_rebuild_device_tensor_from_numpy",
    },
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch": {
        "Size", "device", "Tensor", "dtype", "FloatTensor", "HalfTensor", "float32", "float16", "bfloat16", "float64",
        "float", "half", "double", "int64", "int32", "int16", "int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2",
        "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "uint16", "uint32", "uint64", "complex64", "complex32",
        "per_tensor_affine", "per_channel_affine", "strided", "contiguous_format", "preserve_format",
    },
    "torch.serialization": {"_get_layout"},
    "torch.storage": {"UntypedStorage", "TypedStorage"},
    "torch.nn.parameter": {"Parameter"},
    "torch.nn.modules.container": {"ParameterDict"},
    "numpy": {"dtype", "ndarray", "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool_"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "pytorch_lightning.callbacks.model_checkpoint": {"ModelCheckpoint"},  # in the first Stable Diffusion checkpoints
    "pytorch_lightning.callbacks": {"ModelCheckpoint"},
}  # fmt: skip
_STORAGE = re.compile(r"(?:[A-Z][A-Za-z0-9]{2,20})Storage")
_NESTED = {Global("torch.storage", "_load_from_bytes")}  # unpickles the bytes it is given; they are scanned as well

# The first word of a module whose business is the machine rather than numbers.
_HARMFUL_MODULES = {
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ssl", "ctypes", "importlib", "runpy", "pty", "code",
    "codeop", "pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "types", "functools", "operator",
    "_operator", "webbrowser", "commands", "popen2", "asyncio", "multiprocessing", "threading", "signal", "http",
    "urllib", "urllib2", "requests", "httplib", "ftplib", "smtplib", "telnetlib", "pip", "setuptools", "distutils",
    "ensurepip", "venv", "pdb", "bdb", "trace", "timeit", "profile", "cProfile", "pydoc", "doctest", "unittest", "test",
    "tempfile", "io", "_io", "builtins", "__builtin__", "imp", "pkgutil", "zipimport", "inspect", "atexit",
    "gc", "platform", "winreg", "_winreg", "msvcrt", "fcntl", "resource", "nturl2path",
}  # fmt: skip
_TORCH_HARMFUL = re.compile(
    r"torch\.(hub|serialization|jit|package|utils\.cpp_extension|distributed|multiprocessing)\b"
)

_NOT_PICKLES = (
    (re.compile(rb"GGUF"), "GGUF"),
    (re.compile(rb"\x89PNG\r\n"), "a PNG picture"),
    (re.compile(rb"\xff\xd8\xff"), "a JPEG picture"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "a WebP picture"),
    (re.compile(rb"GIF8[79]a"), "a GIF picture"),
    (re.compile(rb"%PDF-"), "a PDF document"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video or AVIF picture"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "a video"),
    (re.compile(rb"\s*<(?:!doctype|html|\?xml)", re.IGNORECASE), "a web page"),
)
_ARCHIVES = (
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "RAR"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
)
_LOOKS_INSIDE = re.compile(r"\.(?:pkl|pickle|pt|pth|ckpt|bin|joblib|dat|data|zip|npy|tar)$", re.IGNORECASE)
_TORCH_STORAGE = re.compile(r"(?:^|/)(?:data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/.*)$")


@dataclass(frozen=True)
class Report:
    """The judgement, one reason in words, and every name the pickles would import."""

    verdict: str  # "safe" · "suspicious" · "dangerous"
    reason: str
    globals: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "reason": self.reason, "globals": list(self.globals)}


@dataclass
class _Findings:
    names: set[Global] = field(default_factory=set)
    suspicious: list[str] = field(default_factory=list)
    dangerous: list[str] = field(default_factory=list)
    pickles: int = 0
    other: str | None = None  # what the file is, when it holds no pickle
    unpacked: int = 0

    def report(self) -> Report:
        names = tuple(sorted(map(str, self.names)))[:1000]
        if self.dangerous:
            return Report("dangerous", self.dangerous[0], names)
        if self.suspicious:
            return Report("suspicious", self.suspicious[0], names)
        if not self.pickles:
            return Report("safe", f"no pickle: {self.other}" if self.other else "no pickle in it", names)
        return Report("safe", "only tensors and plain values", names)


def scan(path: Path) -> Report:
    """Judge a file of any kind. Never raises for what is in it: what cannot be read is suspicious."""
    found = _Findings()
    try:
        with path.open("rb") as file:
            _look(file, found, path.name, depth=0, whole=True)
    except OSError as error:
        found.suspicious.append(f"it cannot be read ({error.strerror or error})")
    return found.report()


def _look(file: IO[bytes], found: _Findings, name: str, *, depth: int, whole: bool = False) -> None:
    """Whatever stands in this file or archive member. `whole`: it claims to be a model, so it has to be something."""
    start = file.read(512)
    file.seek(0)
    if not start:
        found.other = "an empty file"
    elif start[:4] in {b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"}:
        _look_into_zip(file, found, depth)
    elif start[257:262] == b"ustar":
        _look_into_tar(file, found, depth)
    elif start[:6] == b"\x93NUMPY":
        _look_into_npy(file, found, name)
    elif archive := next((kind for magic, kind in _ARCHIVES if start.startswith(magic)), None):
        found.suspicious.append(f"it is a {archive} archive, which is not looked into")
    elif kind := next((kind for magic, kind in _NOT_PICKLES if magic.match(start)), None):
        found.other = kind
    elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= 100_000_000:
        found.other = "safetensors"
        if start[0] == 0x80:  # its length happens to begin like a pickle; so does a file made to be both
            _look_at_pickles(file, found, name, whole=False)
    else:
        _look_at_pickles(file, found, name, whole=whole)


def _look_at_pickles(file: IO[bytes], found: _Findings, name: str, *, whole: bool) -> None:
    """Pickles in a row; in an old torch file raw bytes follow the fifth."""
    size = file.seek(0, 2)
    file.seek(0)
    torch_row = False
    for index in range(MOST_PICKLES):
        begins = file.tell()
        if begins >= size:
            return
        try:
            pickled = walk(file)
        except Broken as error:
            seen = seen_before(error)
            if torch_row and index >= 5 and not seen.imports:
                return  # tensor bytes, which are read as such
            if index == 0 and not seen.imports:
                if _is_text(file) and not isinstance(error, TooMuch):
                    found.other = "plain text"
                elif whole:
                    found.suspicious.append("it is neither a pickle nor anything else known")
                return
            found.pickles += 1
            _judge(seen, found, name)
            _second_opinion(file, begins, size, found)
            if index == 0 or seen.imports:
                found.suspicious.append(f"a pickle in it cannot be followed to its end: {error.args[0]}")
            else:
                found.suspicious.append("bytes follow its pickle that are no pickle")
            return
        if index == 0 and not _begins_like_pickle(file, begins) and not pickled.imports and whole and size > 64:
            found.suspicious.append("it is neither a pickle nor anything else known")
            return
        found.pickles += 1
        torch_row = torch_row or (index == 0 and pickled.value == MAGIC)
        _judge(pickled, found, name)
        _second_opinion(file, begins, file.tell(), found)
    found.suspicious.append(f"it holds more than {MOST_PICKLES} pickles")


def _is_text(file: IO[bytes]) -> bool:
    """Whether it is text a person could read; the oldest pickles are too, so this is asked when the walk has failed."""
    file.seek(0)
    start = file.read(65_536)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # a character cut in two at the end is fine
    except UnicodeDecodeError:
        return False
    return bool(start) and not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in start)


def _begins_like_pickle(file: IO[bytes], at: int) -> bool:
    here = file.tell()
    file.seek(at)
    first = file.read(2)
    file.seek(here)
    return (first[:1] == b"\x80" and first[1:2] <= b"\x08") or first[:1] in b"(cid]}lI"


def _judge(pickled: Pickle, found: _Findings, name: str) -> None:
    found.names |= pickled.imports
    for each in sorted(pickled.imports):
        verdict, why = _of_name(each)
        if verdict == "dangerous":
            found.dangerous.append(f"it would import `{each}`, {why}")
        elif verdict == "suspicious":
            found.suspicious.append(f"it would import `{each}`, {why}")
    for oddity in pickled.oddities:
        found.suspicious.append(f"its pickle {oddity}")
    for data in pickled.nested:
        inner = _Findings()
        _look(io.BytesIO(data), inner, name, depth=DEEPEST, whole=True)
        found.names |= inner.names
        found.suspicious += [f"a pickle inside its pickle: {why}" for why in inner.suspicious]
        found.dangerous += [f"a pickle inside its pickle: {why}" for why in inner.dangerous]


def _of_name(name: Global) -> tuple[str, str]:
    module, attribute = name
    if attribute in ALLOWED.get(module, ()) or name in _NESTED:
        return "safe", ""
    if module in {"torch", "torch.cuda", "torch.storage"} and _STORAGE.fullmatch(attribute):
        return "safe", ""
    if module.startswith("numpy.dtypes") and re.fullmatch(r"[A-Z][A-Za-z0-9]{1,20}DType", attribute):
        return "safe", ""
    if module == "?":
        return "dangerous", "a name it computes"
    words = {*module.split("."), *attribute.split(".")[:-1]}
    if module.split(".")[0] in _HARMFUL_MODULES or _TORCH_HARMFUL.match(module):
        return "dangerous", "which can run programs or reach beyond the file"
    if "." in attribute and words & _HARMFUL_MODULES:
        return "dangerous", "which reaches through one thing for another"
    if attribute in {"eval", "exec", "system", "popen", "open", "compile", "getattr", "setattr", "__import__"}:
        return "dangerous", "which can run programs or reach beyond the file"
    return "suspicious", "which no model file needs"


def _second_opinion(file: IO[bytes], begins: int, ends: int, found: _Findings) -> None:
    """What picklescan says of the same bytes. Only its alarm counts, since it knows fewer harmless names."""
    if ends - begins > LONGEST_FOR_PICKLESCAN:
        return
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    here = file.tell()
    file.seek(begins)
    data = file.read(ends - begins)
    file.seek(here)
    try:
        result = scan_pickle_bytes(io.BytesIO(data), "pickle", multiple_pickles=False)
    except Exception as error:
        found.suspicious.append(f"picklescan cannot follow it ({error.__class__.__name__})")
        return
    for each in result.globals:
        found.names.add(Global(str(each.module), str(each.name)))
        if each.safety is SafetyLevel.Dangerous:
            found.dangerous.append(f"it would import `{each.module}.{each.name}`, which picklescan knows as harmful")


def _look_into_zip(file: IO[bytes], found: _Findings, depth: int) -> None:
    if depth >= DEEPEST:
        found.suspicious.append("archives are nested in it more deeply than is looked into")
        return
    try:
        with open_zip(file) as archive:
            main = main_pickle(archive)
            members = archive.infolist()
            if len(members) > MOST_MEMBERS:
                found.suspicious.append(f"it is an archive of {len(members):,} files")
                return
            if any(m.filename.endswith(("constants.pkl", ".debug_pkl")) for m in members):
                found.suspicious.append("it is TorchScript, which holds programs")
            for member in _worth_reading(archive, main):
                _look_at_member(archive, member, found, depth)
                if found.unpacked > MOST_UNPACKED:
                    found.suspicious.append(f"it unpacks to more than {MOST_UNPACKED:,} bytes of pickles")
                    return
            found.other = found.other or "a zip without pickles"
    except ZIP_TROUBLE as error:
        found.suspicious.append(f"its archive cannot be read ({str(error)[:100] or error.__class__.__name__})")


def _worth_reading(archive: zipfile.ZipFile, main: zipfile.ZipInfo | None) -> Iterator[zipfile.ZipInfo]:
    for member in archive.infolist():
        if member.filename.endswith("/") or member is main:
            continue
        if _LOOKS_INSIDE.search(member.filename):
            yield member
        elif main is None or not _TORCH_STORAGE.search(member.filename):
            with archive.open(member) as packed:
                start = packed.read(2)
            if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and len(start) == 2:
                yield member
    if main is not None:
        yield main


def _look_at_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, found: _Findings, depth: int) -> None:
    data = read_member(archive, member, LONGEST_PICKLE)
    found.unpacked += len(data)
    certain = member.filename.lower().endswith((".pkl", ".pickle"))
    _look(io.BytesIO(data), found, member.filename, depth=depth + 1, whole=certain)


def _look_into_tar(file: IO[bytes], found: _Findings, depth: int) -> None:
    if depth >= DEEPEST:
        found.suspicious.append("archives are nested in it more deeply than is looked into")
        return
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for index, member in enumerate(archive):
                if index >= MOST_MEMBERS:
                    found.suspicious.append("it is an archive of very many files")
                    return
                if not member.isfile():
                    continue
                packed = archive.extractfile(member)
                if packed is None:
                    continue
                start = packed.read(2)
                pickle_name = member.name.rsplit("/", 1)[-1] in {"pickle", "sys_info", "tensors", "storages"}
                if not pickle_name and not _LOOKS_INSIDE.search(member.name) and start[:1] != b"\x80":
                    continue
                if member.size > LONGEST_PICKLE and member.name.rsplit("/", 1)[-1] not in {"tensors", "storages"}:
                    found.suspicious.append(f"`{member.name[:80]}` in it is too long to look at")
                    continue
                packed.seek(0)
                data = packed.read(LONGEST_PICKLE)
                found.unpacked += len(data)
                _look(io.BytesIO(data), found, member.name, depth=depth + 1, whole=member.name.endswith("pickle"))
                if found.unpacked > MOST_UNPACKED:
                    found.suspicious.append(f"it unpacks to more than {MOST_UNPACKED:,} bytes of pickles")
                    return
        found.other = found.other or "a tar without pickles"
    except (tarfile.TarError, *ZIP_TROUBLE) as error:
        found.suspicious.append(f"its archive cannot be read ({str(error)[:100] or error.__class__.__name__})")


def _look_into_npy(file: IO[bytes], found: _Findings, name: str) -> None:
    """An array of objects is a pickle behind a header; an array of numbers is not."""
    lead = file.read(10)
    width = 2 if lead[6:7] == b"\x01" else 4
    file.seek(8)
    length = int.from_bytes(file.read(width), "little")
    text = file.read(min(length, 65536))
    if b"'O'" in text or b"|O" in text:
        rest = io.BytesIO(file.read(LONGEST_PICKLE))
        _look_at_pickles(rest, found, name, whole=True)
    else:
        found.other = "a numpy array"
