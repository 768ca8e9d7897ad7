"""Text and graphs made to hurt: a megabyte of each takes well under two seconds, whichever reader it is meant for."""

from __future__ import annotations

import json
import struct
import time
import zlib
from contextlib import suppress
from typing import Any

import pytest

from hubctl import infotext
from hubctl.errors import KnownError
from hubctl.infotext import Embedded, a1111, comfy
from tests.infotext.cases import node

SIZE = 1_000_000
SETTINGS = "\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, "


def times(piece: str) -> str:
    return piece * (SIZE // len(piece))


SAMPLER = node("KSampler", seed=1, steps=2, positive=["0", 0], negative=["1", 0], model=["0", 0], latent_image=["0", 0])
SAVE = node("SaveImage", images=["k", 0])


def graph(count: int, make: Any) -> str:
    return json.dumps({**{str(i): make(i) for i in range(count)}, "k": SAMPLER, "s": SAVE})


def parameters_of(source: str | Embedded | dict[str, Any]) -> None:
    with suppress(KnownError):
        parameters = infotext.parse(source)
        json.dumps(parameters.to_json(), default=str)
        a1111.write(parameters)
        comfy.write(parameters)


def nested(width: int, depth: int, leaves: int = 0) -> str:
    """A workflow whose every subgraph holds several of the next one."""
    definitions = [
        {"id": f"s{level}", "links": [], "nodes": [{"id": i, "type": f"s{level + 1}"} for i in range(width)]}
        for level in range(depth)
    ]
    definitions[-1]["nodes"] += [{"id": f"x{i}", "type": "Note"} for i in range(leaves)]
    nodes = [{"id": 1, "type": "s0"}]
    return json.dumps({"nodes": nodes, "links": [], "definitions": {"subgraphs": definitions}})


HOSTILE: dict[str, Any] = {
    "subgraphs of subgraphs": nested(10, 12),
    "subgraphs of long subgraphs": nested(900, 2, 30_000),
    "commas": "p" + SETTINGS + times(","),
    "open objects": "p" + SETTINGS + times("x: {"),
    "breaks": times("<br>"),
    "jammed": times(". Negative prompt: "),
    "one setting a line": times("Seed: 1\n"),
    "used embeddings": "p" + SETTINGS + "Used embeddings: " + times("x ["),
    "equal hashes": "p" + SETTINGS + 'Lora hashes: "' + ", ".join(f"x-{i}: 0123456789ab" for i in range(40_000)) + '"',
    "not quite undefined": '{"a": undefined, "b": "' + times('\\"'),
    "deep": '{"a":' + "[" * SIZE,
    "mochi": "Include in Image: " + times(";a:") + "Generator: Mochi Diffusion",
    "novelai numbers": Embedded(
        "png", {"Software": "NovelAI", "Comment": json.dumps({"prompt": times("1.2::a "), "uc": "", "scale": 1})}
    ),
    "dream": Embedded("png", {"Dream": '"' + times('a [b" -s ') + '" -s 50 -S 1'}),
    "meta": {"prompt": "x", "hashes": {f"lora:{i}": "0123456789ab" for i in range(30_000)}},
    "chain of texts": graph(12_000, lambda i: node("CLIPTextEncode", text=[str(i + 1), 0], clip=["x", 0])),
    "chain of switches": graph(
        9_000, lambda i: node("Any Switch", any_01=[str(i * 7 % 9000), 0], any_02=[str(i * 3 % 9000), 0],
                              select=[str(i * 5 % 9000), 0])
    ),
    "chain of stacks": graph(
        9_000, lambda i: node("LoraLoader", lora_name=f"l{i}", strength_model=1, model=[str(i + 1), 0],
                              lora_stack=[str(i + 1), 0])
    ),
    "many samplers": graph(6_000, lambda i: {**SAMPLER, "inputs": {key: ["c", 0] for key in SAMPLER["inputs"]}}),
    "many outputs": graph(14_000, lambda i: node("SaveImage", images=[str(i + 1), 0])),
    "doubling": graph(9_000, lambda i: node("Text Concatenate", text_a=[str(i + 1), 0], text_b=[str(i + 1), 0])),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_is_read_in_linear_time(name: str) -> None:
    started = time.process_time()
    parameters_of(HOSTILE[name])
    assert time.process_time() - started < 20  # a reader that is not linear takes minutes


def test_switches_that_choose_each_other_end() -> None:
    loop = {str(i): node("Any Switch", select=[str(i + 1), 0], any_01=["0", 0]) for i in range(3_000)}
    parameters_of(
        json.dumps({**loop, "k": {**SAMPLER, "inputs": {key: ["0", 0] for key in SAMPLER["inputs"]}}, "s": SAVE})
    )


def test_a_tangle_is_named() -> None:
    wide = {str(i): node("SaveImage", images=[str(i + 1), 0]) for i in range(14_000)}
    parameters = infotext.parse(json.dumps({**wide, "k": SAMPLER}))
    assert any("tangled" in warning for warning in parameters.warnings)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_many_bombs_in_one_file_share_one_limit() -> None:
    bomb = zlib.compress(bytes(16 * 1024 * 1024), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    bombs = [chunk(b"zTXt", b"k%d\0\0" % number + bomb) for number in range(60)]
    started = time.process_time()
    embedded = infotext.read(b"\x89PNG\r\n\x1a\n" + header + b"".join(bombs) + chunk(b"IEND", b""))
    assert time.process_time() - started < 20  # a reader that is not linear takes minutes
    assert any("64 MiB" in warning for warning in embedded.warnings)
