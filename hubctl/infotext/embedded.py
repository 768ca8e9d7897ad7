"""Text inside picture files, read from the container alone: nothing is decoded that is not text.

    PNG    tEXt, zTXt, iTXt (anywhere in the file), eXIf            → keyword, "exif:…", "xmp:…"
    JPEG   APP1 Exif (also split over segments), APP1 XMP, COM       → "exif:…", "xmp:…", "comment"
    WebP   EXIF and XMP chunks                                       → "exif:…", "xmp:…"
    AVIF, HEIF   Exif and XMP items of the meta box                  → "exif:…", "xmp:…"
    GIF    comment extension, XMP application extension              → "comment", "xmp:…"
    text, JSON   the whole file                                      → "text"

The format is decided by magic bytes, never by the suffix. The one exception to "nothing is decoded" is text hidden in
the pixels' lowest bits ("stealth_pnginfo"): looked for only when the container says nothing.
All sizes, counts and depths are bounded; a length that lies costs a warning, not a crash.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from hubctl.errors import NoParameters, NotFound
from hubctl.infotext._values import parse_object

MAX_TEXT = 16 * 1024 * 1024  # one text, after inflating
MAX_INFLATED = 4 * MAX_TEXT  # all compressed texts of a file together
MAX_TEXTS = 256
MAX_CHUNKS = 200_000
MAX_STEALTH_PIXELS = 40_000_000
MAX_SIDECAR = 1024 * 1024
MAX_OFFSET = 2**62  # what a file can be sought to

_PNG = b"\x89PNG\r\n\x1a\n"
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


@dataclass(frozen=True)
class Embedded:
    """What a file carries beside its pixels: `texts` maps where a text stood to the text; sizes are in pixels."""

    format: str
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    width: int | None = None
    height: int | None = None
    has_alpha: bool = False
    warnings: tuple[str, ...] = ()
    _objects: dict[str, dict[str, Any] | None] = field(default_factory=dict, repr=False, compare=False)

    def text(self, *names: str) -> str | None:
        """The first of the named texts that is there."""
        return next((self.texts[name] for name in names if name in self.texts), None)

    def object(self, name: str) -> dict[str, Any] | None:
        """The named text as a JSON object, parsed once; None when it is missing or no object."""
        if name not in self._objects:
            self._objects[name] = parse_object(self.texts.get(name))
        return self._objects[name]

    def objects(self, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, object) of those texts that are JSON objects; of all texts when none is named."""
        for name in names or self.texts:
            value = self.object(name)
            if value is not None:
                yield name, value


class _Collector:
    """Texts found so far; stops adding at the limits."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.warnings: list[str] = []
        self.width: int | None = None
        self.height: int | None = None
        self.has_alpha = False
        self.inflated = 0

    def add(self, name: str, text: str) -> None:
        if not text.strip("\0 \r\n\t") or len(self.texts) >= MAX_TEXTS:
            return
        unique, number = name, 2
        while unique in self.texts:
            if self.texts[unique] == text:
                return
            unique, number = f"{name}#{number}", number + 1
        self.texts[unique] = text

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings and len(self.warnings) < 20:
            self.warnings.append(sentence)

    def result(self, kind: str) -> Embedded:
        return Embedded(
            format=kind,
            texts=MappingProxyType(self.texts),
            width=self.width,
            height=self.height,
            has_alpha=self.has_alpha,
            warnings=tuple(self.warnings),
        )


def read(source: str | Path | bytes, *, sidecars: bool = True) -> Embedded:
    """What a picture (or text file) carries. Raises NotFound, and NoParameters for videos and unknown binary files.

    `sidecars`: when the file itself says nothing, text or JSON of its name beside it is read ("sidecar").
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), "The input")
    path = Path(source)
    try:
        with path.open("rb") as file:
            embedded = _read(file, path.name)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path.name}.") from error
    except IsADirectoryError as error:
        raise NotFound(f"{path.name} is a folder, not a picture.") from error
    except PermissionError as error:
        from hubctl.errors import NoPermission

        raise NoPermission(f"{path.name} may not be read.") from error
    except OSError as error:
        raise NotFound(f"{path.name} could not be read ({error.strerror or 'input/output error'}).") from error
    return _with_sidecar(embedded, path) if sidecars and not _says_something(embedded) else embedded


def _with_sidecar(embedded: Embedded, path: Path) -> Embedded:
    """`a.txt` and `a.json` beside `a.png`, or `a.png.txt` and `a.png.json`: the first that could hold parameters."""
    for suffix in (".txt", ".json"):
        for beside in (path.with_suffix(suffix), path.with_name(path.name + suffix)):
            try:
                if beside == path or not beside.is_file() or beside.stat().st_size > MAX_SIDECAR:
                    continue
                text = decode_text(beside.read_bytes())
            except OSError:
                continue
            found = replace(embedded, texts=MappingProxyType({**embedded.texts, "sidecar": text}), _objects={})
            if _says_something(found):  # captions for training stand under the same names
                return found
    return embedded


def _read(file: BinaryIO, name: str) -> Embedded:
    head = file.read(64)
    if not head:
        raise NoParameters(f"{name} is empty.", hint="the file has no bytes at all; fetch it again")
    file.seek(0)
    found = _Collector()
    if head.startswith(_PNG):
        _read_png(file, found)
        kind = "png"
    elif head.startswith(b"\xff\xd8"):
        _read_jpeg(file, found)
        kind = "jpeg"
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        _read_webp(file, found)
        kind = "webp"
    elif head[:6] in (b"GIF87a", b"GIF89a"):
        _read_gif(file, found)
        kind = "gif"
    elif head[4:8] == b"ftyp":
        kind = _iso_media_format(head, name)
        _read_heif(file, found)
    else:
        return _read_text(file, head, name)
    embedded = found.result(kind)
    if not _says_something(embedded) and (embedded.has_alpha or kind == "png"):
        hidden = _read_stealth(file, embedded)
        if hidden:
            texts = {**embedded.texts, "stealth": hidden}
            return replace(embedded, texts=MappingProxyType(texts), _objects={})
    return embedded


def _says_something(embedded: Embedded) -> bool:
    """Whether any text could hold parameters: short editor notes and dates cannot."""
    return any(len(text) > 32 and ("{" in text or ": " in text) for text in embedded.texts.values())


def _iso_media_format(head: bytes, name: str) -> str:
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, len(head) - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1", b"heim", b"heis"}:
        return "heif"
    raise _video(name, "MP4")


def _video(name: str, kind: str) -> NoParameters:
    return NoParameters(
        f"{name} is a video ({kind}); only pictures and text are read.",
        hint="use a still of the same post, or `hubctl inspect` on the workflow's JSON file",
    )


def _read_text(file: BinaryIO, head: bytes, name: str) -> Embedded:
    if head.startswith(b"\x1aE\xdf\xa3"):
        raise _video(name, "WebM")
    if head.startswith((b"RIFF", b"OggS", b"\0\0\1\xba", b"\0\0\1\xb3")):
        raise _video(name, "AVI or similar")
    data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT or not _looks_like_text(data):
        raise NoParameters(
            f"{name} is neither a picture nor a text we know.",
            hint="PNG, JPEG, WebP, AVIF, HEIF, GIF, text and JSON are read",
        )
    return Embedded(format="text", texts=MappingProxyType({"text": decode_text(data)}))


def _looks_like_text(data: bytes) -> bool:
    sample = data[:4096]
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    zeros = sample.count(0)
    if zeros > len(sample) // 4:
        return abs(sample[::2].count(0) - sample[1::2].count(0)) > zeros // 2
    control = sum(sample.count(byte) for byte in (0, 1, 2, 3, 4, 5, 6, 7, 8, 14, 15, 16, 127))
    return control == 0


# --- text encodings ---------------------------------------------------------------------------------------------------


def decode_text(data: bytes) -> str:
    """Bytes to text by what they look like: byte-order mark, pattern of zero bytes, UTF-8, and at last Windows-1252."""
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:].decode("utf-8", "replace")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace").rstrip("\0")
    zeros = _utf16_order(data)
    if zeros is not None:
        return data.decode(zeros, "replace").rstrip("\0")
    data = data.strip(b"\0")
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _utf16_order(data: bytes) -> str | None:
    """UTF-16 text has its zero bytes on one side; infotext always has enough ASCII to show which."""
    sample = data[:8192].rstrip(b"\0")
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) < max(2, len(sample) // 40) or min(even, odd) * 4 > max(even, odd):
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def decode_user_comment(data: bytes, *, big_endian: bool) -> str:
    """EXIF UserComment: 8 bytes naming a charset, then text. The name is often missing and often wrong."""
    body = data[8:]
    code = data[:8].rstrip(b"\0 ") if data[:8].isupper() else data[:8].rstrip(b"\0").upper()
    if code in (b"ASCII", b"UTF8", b"UTF-8", b"JIS", b""):
        return decode_text(body)
    if code != b"UNICODE":
        return decode_text(data)
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or _utf16_order(body):
        return decode_text(body)
    try:
        return body.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("utf-16-be" if big_endian else "utf-16-le", "replace")


def _inflate(data: bytes, found: _Collector, *, wbits: int = zlib.MAX_WBITS) -> bytes:
    """At most MAX_TEXT inflated bytes; broken streams give what could be read."""
    inflater = zlib.decompressobj(wbits)
    room = min(MAX_TEXT, MAX_INFLATED - found.inflated)
    if room <= 0:
        found.warn("The compressed texts are longer than 64 MiB together; the rest was not read.")
        return b""
    try:
        out = inflater.decompress(data, room)
    except zlib.error:
        found.warn("A compressed text is damaged and was not read.")
        return b""
    found.inflated += len(out)
    if inflater.unconsumed_tail:
        found.warn("A compressed text was longer than 16 MiB when inflated; the rest was not read.")
    return out


# --- PNG --------------------------------------------------------------------------------------------------------------


def _read_png(file: BinaryIO, found: _Collector) -> None:
    file.seek(0, io.SEEK_END)
    end = file.tell()
    position, total = len(_PNG), 0
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            found.warn("The picture is cut off.")
            return
        length, kind = struct.unpack(">I4s", header)
        position += 12 + length
        if kind == b"IEND":
            return
        if kind in (b"IHDR", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tRNS"):
            total += length
            if length > MAX_TEXT or total > 4 * MAX_TEXT:
                found.warn("A text larger than 16 MiB was not read.")
            else:
                data = file.read(length)
                if len(data) < length:
                    found.warn("The picture is cut off.")
                _png_chunk(kind, data, found)
        if position > end:
            found.warn("The picture is cut off.")
            return


def _png_chunk(kind: bytes, data: bytes, found: _Collector) -> None:
    if kind == b"IHDR" and len(data) >= 13:
        found.width, found.height = struct.unpack(">II", data[:8])
        found.has_alpha = data[9] in (4, 6)
    elif kind == b"tRNS":
        found.has_alpha = True
    elif kind == b"eXIf":
        _read_exif(data, found)
    elif kind in (b"tEXt", b"zTXt", b"iTXt"):
        keyword, _, rest = data.partition(b"\0")
        name = keyword[:79].decode("latin-1")
        body = _png_text(kind, rest, found)
        if name == "XML:com.adobe.xmp":
            _read_xmp(body, found)
        elif name in ("Raw profile type exif", "Raw profile type APP1"):
            _read_raw_profile(body, found)
        else:
            found.add(name, decode_text(body))


def _png_text(kind: bytes, rest: bytes, found: _Collector) -> bytes:
    """The text's bytes: tEXt as is, zTXt after a method byte, iTXt after flag, method, language, translated key."""
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflate(rest[1:], found)
    compressed = rest[:1] == b"\x01"
    _, _, after_language = rest[2:].partition(b"\0")
    _, _, body = after_language.partition(b"\0")
    return _inflate(body, found) if compressed else body


def _read_raw_profile(body: bytes, found: _Collector) -> None:
    """ImageMagick's "Raw profile": a name line, a length line, then hex."""
    parts = body.strip().split(b"\n", 2)
    if len(parts) == 3:
        try:
            _read_exif(bytes.fromhex(parts[2].decode("ascii", "ignore")), found)
        except ValueError:
            found.warn("An EXIF profile is damaged and was not read.")


# --- JPEG -------------------------------------------------------------------------------------------------------------

_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _read_jpeg(file: BinaryIO, found: _Collector) -> None:
    file.seek(2)
    exif = bytearray()
    extension: dict[bytes, bytes] = {}  # by its offset in the whole, big-endian
    for _ in range(2000):
        marker = _jpeg_marker(file)
        if marker is None or marker in (0xD9, 0xDA):
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        length = int.from_bytes(file.read(2), "big")
        if length < 2:
            found.warn("The picture is damaged.")
            break
        data = file.read(length - 2)
        if marker in _JPEG_SIZES and len(data) >= 5:
            found.height, found.width = struct.unpack(">HH", data[1:5])
        elif marker == 0xFE:
            found.add("comment", decode_text(data))
        elif marker == 0xE1:
            _jpeg_app1(data, exif, extension, found)
    if exif:
        _read_exif(bytes(exif), found)
    if extension:
        _read_xmp(b"".join(extension[offset] for offset in sorted(extension)), found)


def _jpeg_marker(file: BinaryIO) -> int | None:
    byte = file.read(1)
    for _ in range(64):  # padding and stray bytes between segments
        if byte == b"\xff":
            break
        if not byte:
            return None
        byte = file.read(1)
    while byte == b"\xff":
        byte = file.read(1)
    return byte[0] if byte else None


def _jpeg_app1(data: bytes, exif: bytearray, extension: dict[bytes, bytes], found: _Collector) -> None:
    if data.startswith(b"Exif\0"):
        body = data[6:]
        if not exif or not body.startswith((b"II*\0", b"MM\0*")):  # long EXIF goes on in the next segment
            exif += body
    elif data.startswith(_XMP_HEADER):
        _read_xmp(data[len(_XMP_HEADER) :], found)
    elif data.startswith(_XMP_EXTENSION) and len(extension) < MAX_TEXT >> 16:
        start = len(_XMP_EXTENSION) + 36  # after a 32-byte GUID and the full length
        extension[data[start : start + 4]] = data[start + 4 :]


# --- WebP and GIF -----------------------------------------------------------------------------------------------------


def _read_webp(file: BinaryIO, found: _Collector) -> None:
    position = 12
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        kind, length = header[:4], int.from_bytes(header[4:], "little")
        position += 8 + length + (length & 1)
        if kind in (b"VP8X", b"VP8 ", b"VP8L"):
            _webp_size(kind, file.read(min(length, 16)), found)
        elif kind in (b"EXIF", b"XMP "):
            if length > MAX_TEXT:
                found.warn("A text larger than 16 MiB was not read.")
                continue
            data = file.read(length)
            if len(data) < length:
                found.warn("The picture is cut off.")
            if kind == b"EXIF":
                _read_exif(data, found)
            else:
                _read_xmp(data, found)


def _webp_size(kind: bytes, data: bytes, found: _Collector) -> None:
    if kind == b"VP8X" and len(data) >= 10:
        found.has_alpha = bool(data[0] & 0x10)
        found.width = 1 + int.from_bytes(data[4:7], "little")
        found.height = 1 + int.from_bytes(data[7:10], "little")
    elif kind == b"VP8L" and len(data) >= 5 and found.width is None:
        bits = int.from_bytes(data[1:5], "little")
        found.width, found.height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        found.has_alpha = bool(bits >> 28 & 1)
    elif kind == b"VP8 " and len(data) >= 10 and found.width is None:
        found.width, found.height = (value & 0x3FFF for value in struct.unpack("<HH", data[6:10]))


def _read_gif(file: BinaryIO, found: _Collector) -> None:
    header = file.read(13)
    if len(header) < 13:
        return
    found.width, found.height = struct.unpack("<HH", header[6:10])
    if header[10] & 0x80:
        file.seek(3 << ((header[10] & 7) + 1), io.SEEK_CUR)
    for _ in range(10_000):
        block = file.read(1)
        if block == b"!":
            label = file.read(1)
            if label == b"\xfe":
                found.add("comment", decode_text(_gif_blocks(file, keep=True)))
            elif label == b"\xff" and file.read(12)[1:] == b"XMP DataXMP":
                _read_xmp(_gif_blocks(file, keep=True, with_lengths=True), found)
            else:
                _gif_blocks(file, keep=False)
        elif block == b",":
            flags = file.read(9)[-1:]
            if flags and flags[0] & 0x80:
                file.seek(3 << ((flags[0] & 7) + 1), io.SEEK_CUR)
            file.read(1)
            _gif_blocks(file, keep=False)
        else:
            return


def _gif_blocks(file: BinaryIO, *, keep: bool, with_lengths: bool = False) -> bytes:
    """A chain of sub-blocks, each at most 255 bytes, ended by a zero. XMP is stored with the length bytes as text."""
    out = bytearray()
    for _ in range(MAX_CHUNKS):
        length = file.read(1)
        if not length or length == b"\0":
            break
        data = file.read(length[0])
        if keep and len(out) < MAX_TEXT:
            out += length + data if with_lengths else data
    return bytes(out)


# --- AVIF and HEIF (ISO/IEC 14496-12 boxes, 23008-12 items) -----------------------------------------------------------


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, body start, body end) of the boxes between two offsets; stops at the first that lies."""
    for _ in range(4096):
        if start + 8 > end:
            return
        length, kind = struct.unpack(">I4s", data[start : start + 8])
        body = start + 8
        if length == 1 and body + 8 <= end:
            length, body = struct.unpack(">Q", data[body : body + 8])[0], body + 8
        stop = end if length == 0 else start + length
        if stop > end or stop < body:
            return
        yield kind, body, stop
        start = stop


def _read_heif(file: BinaryIO, found: _Collector) -> None:
    position = 0
    for _ in range(64):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header[:8])
        skip = 8
        if length == 1 and len(header) == 16:
            length, skip = struct.unpack(">Q", header[8:])[0], 16
        if kind == b"meta":
            if length > MAX_TEXT:
                found.warn("The picture's table of contents is too large and was not read.")
                return
            file.seek(position + skip)
            _read_meta_box(file.read(max(length - skip, 0) if length else MAX_TEXT), file, found)
            return
        position += length
        if length < skip or position > MAX_OFFSET:
            return


def _read_meta_box(meta: bytes, file: BinaryIO, found: _Collector) -> None:
    kinds: dict[int, bytes] = {}
    places: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    inner = 0
    for kind, start, end in _boxes(meta, 4, len(meta)):
        if kind == b"iinf":
            kinds = _item_kinds(meta, start, end)
        elif kind == b"iloc":
            places = _item_places(meta[start:end])
        elif kind == b"idat":
            inner = start
        elif kind == b"iprp":
            _item_size(meta, start, end, found)
    for item, kind in kinds.items():
        method, extents = places.get(item, (0, []))
        if kind not in (b"Exif", b"mime") or sum(length for _, length in extents) > MAX_TEXT:
            continue
        data = bytearray()
        for offset, length in extents:
            if method == 1:
                data += meta[inner + offset : inner + offset + length]
            elif offset <= MAX_OFFSET:
                file.seek(offset)
                data += file.read(length)
        if kind == b"Exif":
            skip = int.from_bytes(data[:4], "big")  # ISO/IEC 23008-12: offset of the TIFF header
            _read_exif(bytes(data[4 + skip :]) if skip < len(data) else bytes(data[4:]), found)
        else:
            _read_xmp(bytes(data), found)


def _item_kinds(meta: bytes, start: int, end: int) -> dict[int, bytes]:
    kinds: dict[int, bytes] = {}
    first = start + (6 if meta[start : start + 1] == b"\0" else 8)
    for kind, body, stop in _boxes(meta, first, end):
        if kind != b"infe" or stop - body < 12:
            continue
        wide = meta[body] >= 3
        item = int.from_bytes(meta[body + 4 : body + (8 if wide else 6)], "big")
        at = body + (10 if wide else 8)
        kinds[item] = meta[at : at + 4]
    return kinds


def _item_places(box: bytes) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """iloc: item → (construction method, [(offset, length)])."""
    places: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    reader = io.BytesIO(box)

    def number(size: int) -> int:
        return int.from_bytes(reader.read(size), "big")

    version = number(1)
    number(3)
    sizes = number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version in (1, 2) else 0
    for _ in range(min(number(4 if version == 2 else 2), 4096)):
        if reader.tell() >= len(box):
            break
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)
        base = number(base_size)
        extents = []
        for _ in range(min(number(2), 64)):
            number(index_size)
            offset = number(offset_size)
            extents.append((base + offset, number(length_size)))
        places[item] = (method, extents)
    return places


def _item_size(meta: bytes, start: int, end: int, found: _Collector) -> None:
    for kind, body, stop in _boxes(meta, start, end):
        if kind == b"ipco":
            for inner, at, until in _boxes(meta, body, stop):
                if inner == b"ispe" and until - at >= 12:
                    width, height = struct.unpack(">II", meta[at + 4 : at + 12])
                    if width * height > (found.width or 0) * (found.height or 0):  # grids list their tiles too
                        found.width, found.height = width, height


# --- EXIF -------------------------------------------------------------------------------------------------------------

_EXIF_NAMES = {
    0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software", 0x013B: "Artist",
    0x8298: "Copyright", 0x9286: "UserComment", 0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9E: "XPKeywords",
    0x010D: "DocumentName",
}  # fmt: skip
_EXIF_IFD = 0x8769
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1}


def _read_exif(data: bytes, found: _Collector) -> None:
    """TIFF structure: byte order, then directories of 12-byte entries (tag, type, count, value or offset)."""
    data = data.removeprefix(b"Exif\0\0")
    if data[:2] not in (b"II", b"MM") or len(data) < 8:
        return
    order = ">" if data[:2] == b"MM" else "<"
    waiting: list[int] = [struct.unpack(order + "I", data[4:8])[0]]
    seen: set[int] = set()
    while waiting and len(seen) < 8:
        offset = waiting.pop()
        if offset in seen or offset + 2 > len(data):
            continue
        seen.add(offset)
        (count,) = struct.unpack(order + "H", data[offset : offset + 2])
        for index in range(min(count, 1024)):
            entry = data[offset + 2 + 12 * index : offset + 14 + 12 * index]
            if len(entry) < 12:
                break
            pointer = _exif_entry(data, entry, order, found)
            if pointer is not None:
                waiting.append(pointer)


def _exif_entry(data: bytes, entry: bytes, order: str, found: _Collector) -> int | None:
    """Adds a text entry; gives the offset when the entry points at the Exif directory."""
    tag, kind, count = struct.unpack(order + "HHI", entry[:8])
    if tag == _EXIF_IFD:
        return int(struct.unpack(order + "I", entry[8:])[0])
    name = _EXIF_NAMES.get(tag)
    if name is None:
        return None
    length = count * _TYPE_SIZES.get(kind, 1)
    if length <= 4:
        value = entry[8 : 8 + length]
    else:
        (at,) = struct.unpack(order + "I", entry[8:])
        value = data[at : at + min(length, MAX_TEXT)]
        if len(value) < length:
            found.warn("An EXIF text is cut off.")
    if name == "UserComment":
        text = decode_user_comment(value, big_endian=order == ">")
    elif name.startswith("XP"):
        text = value.decode("utf-16-le", "replace").rstrip("\0")
    else:
        text = decode_text(value)
    found.add(f"exif:{name}", text)
    return None


# --- XMP --------------------------------------------------------------------------------------------------------------

_RDF_WRAPPERS = {"Alt", "Bag", "Seq", "li", "RDF", "Description", "xmpmeta", "xapmeta"}
MAX_XML_DEPTH = 64


class _XmpStop(Exception):
    pass


def _read_xmp(data: bytes, found: _Collector) -> None:
    """Properties of an XMP packet as "xmp:LocalName". Document types and entities are refused, so nothing expands."""
    from xml.parsers.expat import ExpatError, ParserCreate

    if len(data) > MAX_TEXT:
        return
    names: list[str] = []
    texts: dict[str, list[str]] = {}

    def refuse(*_: Any) -> None:
        raise _XmpStop

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(names) >= MAX_XML_DEPTH:
            raise _XmpStop
        names.append(name.rpartition(":")[2])
        for key, value in attributes.items():
            prefix, _, local = key.rpartition(":")
            if prefix not in ("", "xmlns", "rdf", "xml", "x"):
                texts.setdefault(local, []).append(value)

    def stop(_: str) -> None:
        names.pop()

    def characters(text: str) -> None:
        owner = next((name for name in reversed(names) if name not in _RDF_WRAPPERS), None)
        if owner is not None:
            texts.setdefault(owner, []).append(text)

    parser = ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, stop
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(data if data[:2] in (b"\xff\xfe", b"\xfe\xff") else data.strip(b"\0 \r\n\t"), True)
    except _XmpStop:
        found.warn("The XMP block declares entities or is nested too deeply; it was not read.")
        return
    except (ExpatError, ValueError):
        found.warn("The XMP block is damaged; it was read as far as possible.")
    for name, parts in texts.items():
        found.add(f"xmp:{name}", "".join(parts).strip())


# --- text hidden in pixels --------------------------------------------------------------------------------------------

_BITS = bytes(48 + (value & 1) for value in range(256))  # → "0" or "1"
_STEALTH = re.compile(rb"stealth_(?:png|rgb)(info|comp)\Z")
_STEALTH_HEAD = 152  # bits: 15 bytes of signature, then a big-endian count of bits


def _read_stealth(file: BinaryIO, embedded: Embedded) -> str | None:
    """Text in the lowest bits of the alpha channel, or of red, green and blue in turn; column by column.

    "stealth_pnginfo" or "stealth_rgbinfo" (plain; "…comp" = gzip), a big-endian 32-bit count of bits, then the data.
    A column's beginning is in the first rows, so no more than those are decoded of the pictures that hide nothing.
    """
    width, height = embedded.width or 0, embedded.height or 0
    if not 0 < width * height <= MAX_STEALTH_PIXELS:
        return None
    file.seek(0)
    first_rows = _first_rows(file, embedded) if embedded.format == "png" else None
    if first_rows is not None and not any(signature for _, signature in _stealth_bits(first_rows, columns=1)):
        return None
    for bits, signature in _stealth_bits(file):
        length = _as_bytes(bits, 120, 32)
        count = int.from_bytes(length, "big")
        if signature is None or count % 8 or not 0 < count <= min(len(bits) - _STEALTH_HEAD, 8 * MAX_TEXT):
            continue
        data = _as_bytes(bits, _STEALTH_HEAD, count)
        return decode_text(_inflate(data, _Collector(), wbits=31) if signature == b"comp" else data)
    return None


def _first_rows(file: BinaryIO, embedded: Embedded) -> BinaryIO | None:
    """The PNG as if it ended after the rows that a signature stands in; None when that cannot be done."""
    rows = _STEALTH_HEAD if embedded.has_alpha else _STEALTH_HEAD // 3 + 1
    if (embedded.height or 0) <= rows:
        return None
    head = file.read(33)  # signature and IHDR
    if len(head) < 33 or head[28]:  # interlaced: every pass goes over the whole picture
        return None
    header = head[12:20] + struct.pack(">I", rows) + head[24:29]
    rest = file.read(rows * (8 * (embedded.width or 0) + 1) * 9 // 8 + 262_144)  # 16 bits a channel, badly packed
    return io.BytesIO(head[:12] + header + struct.pack(">I", zlib.crc32(header)) + rest)


def _stealth_bits(file: BinaryIO, *, columns: int | None = None) -> Iterator[tuple[bytes, bytes | None]]:
    """For alpha and for RGB: (lowest bits as "0" and "1", "info" or "comp" when a signature starts them)."""
    from PIL import Image

    file.seek(0)
    try:
        with Image.open(file, formats=("PNG", "WEBP")) as image:
            for bands in ("A", "RGB"):
                if not set(bands) <= set(image.getbands()):
                    continue
                part = image.crop((0, 0, columns or image.width, image.height))
                part = part.getchannel("A") if bands == "A" else part.convert("RGB")
                bits = part.transpose(Image.Transpose.TRANSPOSE).tobytes().translate(_BITS)
                signature = _STEALTH.match(_as_bytes(bits, 0, 120))
                yield bits, signature[1] if signature else None
    except Exception:  # Pillow raises many kinds on damaged pixels, and hidden text is a bonus
        return


def _as_bytes(bits: bytes, start: int, count: int) -> bytes:
    piece = bits[start : start + count]
    return int(piece, 2).to_bytes(len(piece) // 8, "big") if piece and len(piece) % 8 == 0 else b""
