"""Coverage-guided fuzzing of everything that reads strangers' pictures. Not collected by pytest.

    pip install atheris
    python tests/fuzz/containers.py -max_total_time=600 -max_len=65536 CORPUS_FOLDER

The first byte of an input chooses what the rest is wrapped in, so that the fuzzer reaches the readers behind a
container's checksums and compression: as it is, a PNG's text, compressed PNG text, EXIF, XMP, a stealth text, or
text by itself. Only KnownError may come out; a slow input is found by -timeout.
"""

from __future__ import annotations

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
            b"XML:com.adobe.xmp", b"Raw profile type exif", b"generation_data", b"Description")  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def wrapped(way: int, data: bytes) -> bytes:
    keyword = KEYWORDS[way // 8 % len(KEYWORDS)]
    match way % 8:
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
        case _:
            return data


def one(data: bytes) -> None:
    if not data:
        return
    try:
        parameters = infotext.parse(infotext.read(wrapped(data[0], data[1:])))
    except KnownError:
        return
    parameters.to_json()
    a1111.write(parameters)
    comfy.write(parameters)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
