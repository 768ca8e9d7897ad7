"""Container readers: every place text can stand in, and files that lie."""

from __future__ import annotations

import gzip
import io
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubctl import infotext
from hubctl.errors import KnownError, NoParameters, NotFound
from hubctl.infotext import embedded

TEXT = "ein Kätzchen, 猫\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x32"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 32, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def exif(comment: bytes, *, order: str = ">", nested: bool = True) -> bytes:
    """A TIFF block whose UserComment stands in the Exif directory, or (wrongly) in the first one."""
    mark = b"MM\0*" if order == ">" else b"II*\0"

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack(order + "HHII", tag, kind, count, value)

    def directory(body: bytes) -> bytes:
        return struct.pack(order + "H", 1) + body + struct.pack(order + "I", 0)

    if not nested:
        return mark + struct.pack(order + "I", 8) + directory(entry(0x9286, 7, len(comment), 26)) + comment
    first = directory(entry(0x8769, 4, 1, 26))
    return mark + struct.pack(order + "I", 8) + first + directory(entry(0x9286, 7, len(comment), 44)) + comment


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes) -> bytes:
    size = segment(0xC0, struct.pack(">BHHB", 8, 32, 64, 3) + b"\0" * 9)
    return b"\xff\xd8" + b"".join(segments) + size + b"\xff\xda\0\2" + b"\0" * 8 + b"\xff\xd9"


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + bytes((8, 0, 0, 0)) + b"\x3f\0\0\x1f\0\0"
    for kind, data in chunks:
        body += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def gif(comment: bytes) -> bytes:
    blocks = b"".join(bytes((len(comment[i : i + 255]),)) + comment[i : i + 255] for i in range(0, len(comment), 255))
    return b"GIF89a" + struct.pack("<HHBBB", 64, 32, 0, 0, 0) + b"!\xfe" + blocks + b"\0;"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def avif(tiff: bytes) -> bytes:
    item = b"\0\0\0\0" + tiff
    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    iinf = box(b"iinf", b"\0\0\0\0" + struct.pack(">H", 1) + infe)
    ispe = box(b"iprp", box(b"ipco", box(b"ispe", struct.pack(">III", 0, 64, 32))))
    ftyp = box(b"ftyp", b"avif\0\0\0\0mif1")

    def meta(offset: int) -> bytes:
        iloc = b"\0\0\0\0" + bytes((0x44, 0)) + struct.pack(">HHHHII", 1, 1, 0, 1, offset, len(item))
        return box(b"meta", b"\0\0\0\0" + iinf + box(b"iloc", iloc) + ispe)

    offset = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(offset) + box(b"mdat", item)


def xmp(text: str) -> bytes:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmp:CreatorTool="Draw Things"><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">'
        f"{escaped}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


UTF8 = TEXT.encode()
BE, LE = TEXT.encode("utf-16-be"), TEXT.encode("utf-16-le")
PLACES = {
    "png tEXt in UTF-8": png(chunk(b"tEXt", b"parameters\0" + UTF8)),
    "png tEXt in Latin-1": png(chunk(b"tEXt", b"parameters\0" + TEXT.replace("猫", "ü").encode("latin-1"))),
    "png iTXt": png(chunk(b"iTXt", b"parameters\0\0\0\0\0" + UTF8)),
    "png iTXt compressed": png(chunk(b"iTXt", b"parameters\0\1\0en\0x\0" + zlib.compress(UTF8))),
    "png zTXt after the picture": png(
        chunk(b"IDAT", b"x" * 9), chunk(b"zTXt", b"parameters\0\0" + zlib.compress(UTF8))
    ),
    "png eXIf": png(chunk(b"eXIf", exif(b"UNICODE\0" + BE))),
    "png XMP": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(TEXT))),
    "jpeg UTF-16 BE": jpeg(segment(0xE1, b"Exif\0\0" + exif(b"UNICODE\0" + BE))),
    "jpeg UTF-16 LE in a big-endian block": jpeg(segment(0xE1, b"Exif\0\0" + exif(b"UNICODE\0" + LE))),
    "jpeg UTF-16 with a mark": jpeg(segment(0xE1, b"Exif\0\0" + exif(b"UNICODE\0\xff\xfe" + LE))),
    "jpeg UTF-8 called UNICODE": jpeg(segment(0xE1, b"Exif\0\0" + exif(b"UNICODE\0" + UTF8))),
    "jpeg UTF-16 called ASCII": jpeg(segment(0xE1, b"Exif\0\0" + exif(b"ASCII\0\0\0" + BE))),
    "jpeg without a charset": jpeg(segment(0xE1, b"Exif\0\0" + exif(UTF8, order="<", nested=False))),
    "jpeg comment": jpeg(segment(0xFE, UTF8)),
    "jpeg XMP": jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(TEXT))),
    "jpeg EXIF in two segments": jpeg(
        segment(0xE1, b"Exif\0\0" + exif(b"ASCII\0\0\0" + UTF8)[:60]),
        segment(0xE1, b"Exif\0\0" + exif(b"ASCII\0\0\0" + UTF8)[60:]),
    ),
    "webp EXIF": webp((b"EXIF", b"Exif\0\0" + exif(b"UNICODE\0" + LE, order="<"))),
    "webp XMP": webp((b"XMP ", xmp(TEXT))),
    "gif comment": gif(UTF8),
    "avif": avif(exif(b"UNICODE\0" + BE)),
    "text in UTF-16": b"\xff\xfe" + LE,
    "text in UTF-8": UTF8,
}


@pytest.mark.parametrize("place", PLACES)
def test_places(place: str) -> None:
    found = infotext.read(PLACES[place])
    parameters = infotext.parse(found)
    assert (parameters.steps, parameters.negative_prompt, parameters.seed) == (20, "blurry", 1)
    assert parameters.prompt == TEXT.split("\n")[0].replace("猫", "ü" if "Latin" in place else "猫")
    if not place.startswith("text"):
        assert (found.width, found.height) == (64, 32)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (300, 400)])
@pytest.mark.parametrize(
    ("mode", "bands"), [("RGBA", "png"), ("RGB", "rgb"), ("RGBA", "rgb")], ids=["alpha", "rgb", "rgb beside alpha"]
)
def test_hidden_in_pixels(mode: str, bands: str, size: tuple[int, int], packed: bool) -> None:
    image = _with_hidden(UTF8, mode, bands, size, packed=packed)
    out = io.BytesIO()
    image.save(out, "PNG")
    assert infotext.parse(infotext.read(out.getvalue())).prompt == TEXT.split("\n")[0]
    if bands == "png":
        out = io.BytesIO()
        image.save(out, "WEBP", lossless=True, exact=True)
        assert infotext.parse(infotext.read(out.getvalue())).seed == 1


def _with_hidden(text: bytes, mode: str, bands: str, size: tuple[int, int], *, packed: bool) -> Any:
    """A picture with a text in the lowest bits of alpha ("png"), or of red, green and blue; column by column."""
    from PIL import Image

    data = gzip.compress(text) if packed else text
    head = f"stealth_{bands}{'comp' if packed else 'info'}".encode() + struct.pack(">I", 8 * len(data))
    bits = [int(bit) for byte in head + data for bit in f"{byte:08b}"]
    image = Image.new(mode, size, (8, 8, 8, 254)[: len(mode)])
    step = 3 if bands == "rgb" else 1
    for index in range(0, len(bits), step):
        place = divmod(index // step, size[1])
        pixel = list(image.getpixel(place))
        for channel, bit in zip(range(3) if step == 3 else [3], bits[index : index + step], strict=False):
            pixel[channel] += bit
        image.putpixel(place, tuple(pixel))
    return image


def test_pixels_that_hide_nothing_and_lies_about_hidden_text() -> None:
    from PIL import Image

    for mode, size in (("RGB", (64, 400)), ("RGBA", (64, 400)), ("RGB", (64, 30)), ("L", (64, 400)), ("P", (9, 300))):
        out = io.BytesIO()
        Image.new(mode, size).save(out, "PNG")
        assert infotext.read(out.getvalue()).texts == {}
    image = _with_hidden(b"x" * 90, "RGBA", "png", (64, 200), packed=False)
    for row in range(120, 140):  # the count of bits, far above what the picture holds
        image.putpixel((0, row), (8, 8, 8, 255))
    out = io.BytesIO()
    image.save(out, "PNG")
    assert infotext.read(out.getvalue()).texts == {}
    assert infotext.read(out.getvalue()[:200]).texts == {}


def test_sidecar_only_when_the_picture_says_nothing(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    picture.write_bytes(png())
    assert infotext.parse(infotext.read(picture)).seed == 1
    with pytest.raises(NoParameters):
        infotext.parse(infotext.read(picture, sidecars=False))
    picture.write_bytes(png(chunk(b"tEXt", b"parameters\0" + UTF8.replace(b"Seed: 1", b"Seed: 2"))))
    assert infotext.parse(infotext.read(picture)).seed == 2


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.png.txt", "a.png.json"])
def test_sidecars_by_name(tmp_path: Path, name: str) -> None:
    """Beside a picture that carries an editor's note and nothing else."""
    (tmp_path / "a.png").write_bytes(png(chunk(b"tEXt", b"Software\0GIMP")))
    (tmp_path / name).write_text(
        '{"id": 3, "meta": {"prompt": "a cat", "steps": 20, "seed": 1}}' if name.endswith("json") else TEXT, "utf-8"
    )
    assert infotext.parse(infotext.read(tmp_path / "a.png")).seed == 1


def test_a_caption_for_training_is_no_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_text("1girl, cat, sitting", "utf-8")
    assert infotext.read(tmp_path / "a.png").texts == {}
    (tmp_path / "a.json").write_text(f'{{"parameters": "{TEXT.splitlines()[0]}", "steps": 3}}', "utf-8")
    assert list(infotext.read(tmp_path / "a.png").texts) == ["sidecar"]


CHARSETS = [b"UNICODE\0", b"Unicode\0", b"ASCII\0\0\0", b"ASCII   ", b"UTF-8\0\0\0", b"JIS\0\0\0\0\0", bytes(8), b""]
CHINESE = "一只猫在雪地里，杰作\nNegative prompt: 模糊\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x32"


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("order", "<>")
def test_user_comments_whatever_their_charset_says(charset: bytes, encoding: str, order: str) -> None:
    data = jpeg(segment(0xE1, b"Exif\0\0" + exif(charset + CHINESE.encode(encoding), order=order)))
    parameters = infotext.parse(infotext.read(data))
    assert (parameters.prompt, parameters.negative_prompt, parameters.seed) == ("一只猫在雪地里，杰作", "模糊", 1)


def test_a_prompt_that_begins_like_a_charset() -> None:
    text = "Unicode symbols on a wall\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x32"
    data = jpeg(segment(0xE1, b"Exif\0\0" + exif(text.encode())))
    assert infotext.parse(infotext.read(data)).prompt == "Unicode symbols on a wall"


def tiff(*tags: tuple[int, int, bytes]) -> bytes:
    """A little-endian TIFF block of (tag, type, value)."""
    at = 14 + 12 * len(tags)
    entries, data = b"", b""
    for tag, kind, value in tags:
        stands = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at + len(data))
        data += value if len(value) > 4 else b""
        entries += struct.pack("<HHI", tag, kind, len(value)) + stands
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def app1(block: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + block)


def extended_xmp(*, swapped: bool) -> bytes:
    """XMP too long for one segment: a main packet, then pieces with a GUID, the whole length and their offset."""
    packet, guid = xmp(TEXT), b"A" * 32
    half = len(packet) // 2
    pieces = [
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", len(packet), at) + piece)
        for at, piece in ((0, packet[:half]), (half, packet[half:]))
    ]
    main = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
    return jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + main), *(pieces[::-1] if swapped else pieces))


PROFILE = b"\nexif\n%8d\n" % len(exif(b"UNICODE\0" + BE)) + exif(b"UNICODE\0" + BE).hex().encode()
ATTRIBUTE = (
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:sd="http://sd" '
    f'sd:parameters="{TEXT}"/></rdf:RDF>'
).replace("\n", "&#10;")
PACKED = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>' + xmp(TEXT) + b" " * 999
STRANGE = {
    "png iTXt with a method but no compression": png(chunk(b"iTXt", b"parameters\0\0\1\0\0" + UTF8)),
    "png eXIf with JPEG's prefix": png(chunk(b"eXIf", b"Exif\0\0" + exif(b"UNICODE\0" + BE))),
    "png raw profile": png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE))),
    "png with a wrong checksum": png(chunk(b"tEXt", b"parameters\0" + UTF8)[:-4] + b"oops"),
    "png with a tail": png(chunk(b"tEXt", b"parameters\0" + UTF8)) + b"tail" * 99,
    "png animated": png(
        chunk(b"acTL", bytes(8)), chunk(b"fcTL", bytes(26)), chunk(b"fdAT", bytes(9)),
        chunk(b"tEXt", b"parameters\0" + UTF8),
    ),
    "webp with EXIF first": b"RIFF" + bytes(4) + webp((b"EXIF", exif(b"UNICODE\0" + BE)))[8:],
    "webp animated": webp((b"ANIM", bytes(6)), (b"ANMF", bytes(30)), (b"EXIF", exif(b"UNICODE\0" + BE))),
    "webp XMP in UTF-16": webp((b"XMP ", xmp(TEXT).decode().encode("utf-16"))),
    "webp XMP attribute": webp((b"XMP ", ATTRIBUTE.encode())),
    "webp XMP in a padded packet": webp((b"XMP ", PACKED + b'<?xpacket end="w"?>')),
    "jpeg with fill bytes": b"\xff\xd8\xff\xff\xff" + app1(exif(b"UNICODE\0" + BE)) + jpeg()[2:],
    "jpeg after JFIF and ICC": jpeg(
        segment(0xE0, b"JFIF\0" + bytes(9)), segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(500)),
        app1(exif(b"UNICODE\0" + BE)),
    ),
    "jpeg comment in UTF-16": jpeg(segment(0xFE, b"\xff\xfe" + LE)),
    "jpeg extended XMP": extended_xmp(swapped=False),
    "jpeg extended XMP out of order": extended_xmp(swapped=True),
    "ImageDescription": jpeg(app1(tiff((0x10E, 2, UTF8 + b"\0"), (0x131, 2, b"sd-webui\0")))),
    "XPComment": jpeg(app1(tiff((0x9C9C, 1, LE + b"\0\0")))),
    "UserComment as text": jpeg(app1(tiff((0x9286, 2, UTF8 + b"\0")))),
    "UserComment as UTF-8": jpeg(app1(tiff((0x9286, 129, UTF8 + b"\0")))),
    "a directory that lies elsewhere": jpeg(
        app1(tiff((0x8769, 4, b"\xff\xff\xff\xff"), (0x9286, 7, b"ASCII\0\0\0" + UTF8)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", STRANGE)
def test_places_that_are_odd_but_met(place: str) -> None:
    parameters = infotext.parse(infotext.read(STRANGE[place]))
    assert (parameters.prompt, parameters.negative_prompt, parameters.seed) == ("ein Kätzchen, 猫", "blurry", 1)


def test_windows_quotes_in_what_should_be_latin_1() -> None:
    text = TEXT.replace("猫", "“sweet”").encode("cp1252")
    for data in (text, png(chunk(b"tEXt", b"parameters\0" + text)), jpeg(segment(0xFE, text))):
        assert infotext.parse(infotext.read(data)).prompt == "ein Kätzchen, “sweet”"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_what_pillow_writes(form: str) -> None:
    from PIL import Image, features

    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    written = Image.Exif()
    written[0x0131] = "a program"
    written.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + BE
    out = io.BytesIO()
    Image.new("RGB", (64, 32)).save(out, form, exif=written)
    found = infotext.read(out.getvalue())
    assert (found.width, found.height, infotext.parse(found).seed) == (64, 32, 1)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "MP4"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "WebM"),
        (b"\x7fELF\2\1\1\0", "neither"),
    ],
)
def test_refusals_say_what_it_is(data: bytes, word: str) -> None:
    with pytest.raises(NoParameters) as refusal:
        infotext.read(data)
    assert word in refusal.value.message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "no.png", tmp_path):
        with pytest.raises(NotFound):
            infotext.read(path)


def test_bombs_are_bounded() -> None:
    bomb = zlib.compress(b"\0" * (256 << 20), 9)
    started = time.process_time()
    found = infotext.read(png(chunk(b"zTXt", b"parameters\0\0" + bomb)))
    assert all(len(text) <= embedded.MAX_TEXT for text in found.texts.values())
    assert any("16 MiB" in warning for warning in found.warnings)
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
    assert infotext.read(webp((b"XMP ", entities))).texts == {}
    deep = '{"a":' * 100_000
    for text in (deep, "[" * 100_000, '{"1": {"class_type": "KSampler", "inputs": ' + deep):
        with pytest.raises(NoParameters):
            infotext.parse(text)
    assert time.process_time() - started < 20  # a reader that is not linear takes minutes


def test_truncated_and_lying_lengths() -> None:
    whole = PLACES["png iTXt"]
    cut = infotext.read(whole[:-40])
    assert any("cut off" in warning for warning in cut.warnings)
    lying = whole.replace(struct.pack(">I", len(UTF8) + 15) + b"iTXt", b"\x7f\xff\xff\xff" + b"iTXt")
    assert infotext.read(lying).texts == {}


@pytest.mark.parametrize("by_name", [False, True])
def test_offsets_no_file_has(tmp_path: Path, by_name: bool) -> None:
    """64-bit lengths of AVIF boxes, and 64-bit offsets of items."""
    far = b"\xff" * 8
    ftyp = box(b"ftyp", b"avif\0\0\0\0mif1")
    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    iinf = box(b"iinf", bytes(4) + struct.pack(">H", 1) + infe)
    iloc = box(b"iloc", bytes(4) + bytes((0x84, 0)) + struct.pack(">HHHH", 1, 1, 0, 1) + far + struct.pack(">I", 9))
    for data in (ftyp + b"\0\0\0\1free" + far, ftyp + box(b"meta", bytes(4) + iinf + iloc)):
        (tmp_path / "a.avif").write_bytes(data)
        assert infotext.read(tmp_path / "a.avif" if by_name else data).texts == {}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"GIF89a", b"II*\0"]))
def test_arbitrary_bytes(data: bytes, magic: bytes) -> None:
    _read_or_refuse(magic + data)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(sorted(PLACES)),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=12),
    st.integers(0, 400),
)
def test_mutated_pictures(place: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(PLACES[place])
    for position, value in changes:
        data[position % len(data)] = value
    _read_or_refuse(bytes(data[: len(data) - cut] if cut < 200 else data))


def _read_or_refuse(data: bytes) -> None:
    with suppress(KnownError):
        infotext.parse(infotext.read(data)).to_json()
