"""Coverage-guided fuzzing of everything that reads strangers' pictures. Not collected by pytest.

    pip install atheris
    python tests/fuzz/containers.py -max_total_time=600 -max_len=65536 CORPUS_FOLDER

The first byte of an input chooses what the rest is wrapped in, so that the fuzzer reaches the readers behind a
container's checksums and compression: as it is, a PNG's text, compressed PNG text, EXIF, XMP, AVIF, GIF, a settings
line, or the hub's `meta`. Only KnownError may come out; a slow input is found by -timeout.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
with atheris.instrument_imports(include=["hubctl"]):
    from hubctl import infotext
    from hubctl.errors import KnownError
    from hubctl.infotext import (  # noqa: F401  # instrumented before the first input
        _values,
        a1111,
        civitai,
        comfy,
        drawthings,
        easydiffusion,
        fooocus,
        invokeai,
        novelai,
        record,
        services,
        swarmui,
    )

KEYWORDS = (b"parameters", b"prompt", b"workflow", b"Comment", b"Dream", b"sd-metadata", b"invokeai_metadata",
            b"XML:com.adobe.xmp", b"Raw profile type exif", b"generation_data", b"Description", b"hubctl",
            b"parameters-json", b"Software")  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def wrapped(way: int, data: bytes) -> bytes:
    keyword = KEYWORDS[way // 12 % len(KEYWORDS)]
    match way % 12:
        case 1:
            return png(chunk(b"tEXt", keyword + b"\0" + data))
        case 2:
            return png(chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(data)))
        case 3:
            return png(chunk(b"iTXt", keyword + b"\0\1\0\0\0" + zlib.compress(data)))
        case 4:
            return png(chunk(b"eXIf", data))
        case 5:
            segment = b"Exif\0\0" + data[:60000]
            return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + b"\xff\xd9"
        case 6:
            body = b"EXIF" + struct.pack("<I", len(data)) + data
            return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
        case 7:
            return png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + data))
        case 8:
            return avif(data)
        case 9:
            blocks = b"".join(bytes((len(data[i : i + 255]),)) + data[i : i + 255] for i in range(0, len(data), 255))
            return b"GIF89a" + bytes(7) + b"!\xfe" + blocks + b"\0;"
        case 10:
            return b"a cat\nSteps: 20, Sampler: Euler a, Seed: 1, " + data
        case _:
            return data


def avif(item: bytes) -> bytes:
    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + kind + body

    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    iinf = box(b"iinf", bytes(4) + struct.pack(">H", 1) + infe)
    iloc = bytes(4) + bytes((0x44, 0)) + struct.pack(">HHHHII", 1, 1, 0, 1, 200, len(item))
    meta = box(b"ftyp", b"avif\0\0\0\0mif1") + box(b"meta", bytes(4) + iinf + box(b"iloc", iloc))
    return meta.ljust(200, b"\0") + item


def one(data: bytes) -> None:
    if not data:
        return
    try:
        if data[0] % 12 == 11:
            parameters = infotext.parse(_values.parse_object(data[1:].decode("utf-8", "replace")) or {})
        else:
            parameters = infotext.parse(infotext.read(wrapped(data[0], data[1:])))
    except KnownError:
        return
    json.dumps(parameters.to_json(), allow_nan=False)
    a1111.write(parameters)
    comfy.write(parameters)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
