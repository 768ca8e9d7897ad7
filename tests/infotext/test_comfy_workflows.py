"""UI workflows, in the file or without the API graph beside them: widgets by position, modes, subgraphs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubctl.infotext import Embedded
from tests.infotext.cases import differences, simple, table

WORKFLOWS, case = table()
S = {
    "prompt": "a cat", "negative_prompt": "blurry", "steps": 20, "seed": 42, "size": (512, 768), "cfg_scale": 7.5,
    "checkpoint": ["base"], "sampler": "dpmpp_2m", "schedule": "karras",
}  # fmt: skip
SUBGRAPH = "0f1e2d3c-aaaa-bbbb-cccc-000000000000"
Inputs = dict[str, tuple[int | None, str, int]]


def ui(key: int, kind: str, widgets: Any = (), inputs: Inputs | None = None, **more: Any) -> dict[str, Any]:
    """A node; inputs are name → (link, type, whether it is a widget too)."""
    entries = [
        {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}
        for name, (link, kind, widget) in (inputs or {}).items()
    ]
    widgets = widgets if isinstance(widgets, dict) else list(widgets)
    return {"id": key, "type": kind, "widgets_values": widgets, "inputs": entries, "mode": 0, "order": key, **more}


def workflow(nodes: list[dict[str, Any]], links: list[list[Any]], **more: Any) -> dict[str, Any]:
    return {"last_node_id": 99, "last_link_id": 99, "nodes": nodes, "links": links, "version": 0.4, **more}


def text_to_image() -> list[dict[str, Any]]:
    return [
        ui(1, "CheckpointLoaderSimple", ["base.safetensors"]),
        ui(2, "CLIPTextEncode", ["a cat"], {"clip": (1, "CLIP", 0)}),
        ui(3, "CLIPTextEncode", ["blurry"], {"clip": (2, "CLIP", 0)}),
        ui(4, "EmptyLatentImage", [512, 768, 1]),
        ui(5, "KSampler", [42, "randomize", 20, 7.5, "dpmpp_2m", "karras", 1], SAMPLER),
        ui(6, "VAEDecode", [], {"samples": (7, "LATENT", 0), "vae": (8, "VAE", 0)}),
    ]


SAMPLER: Inputs = {
    "model": (3, "MODEL", 0), "positive": (4, "CONDITIONING", 0), "negative": (5, "CONDITIONING", 0),
    "latent_image": (6, "LATENT", 0),
}  # fmt: skip
LINKS = [
    [1, 1, 1, 2, 0, "CLIP"], [2, 1, 1, 3, 0, "CLIP"], [3, 1, 0, 5, 0, "MODEL"], [4, 2, 0, 5, 1, "CONDITIONING"],
    [5, 3, 0, 5, 2, "CONDITIONING"], [6, 4, 0, 5, 3, "LATENT"], [7, 5, 0, 6, 0, "LATENT"], [8, 1, 2, 6, 1, "VAE"],
]  # fmt: skip


def base(more: list[dict[str, Any]] = [], links: list[list[Any]] = [], **replaced: Any) -> dict[str, Any]:  # noqa: B006
    """Text to image; nodes added, replaced as `_5=…`, and links that take the place of those with the same id."""
    nodes = {made["id"]: made for made in [*text_to_image(), ui(7, "SaveImage", ["x"], {"images": (9, "IMAGE", 0)})]}
    nodes |= {int(name[1:]): made for name, made in replaced.items()}
    joined = {link[0]: link for link in [*LINKS, [9, 6, 0, 7, 0, "IMAGE"], *links]}
    return workflow([*nodes.values(), *more], list(joined.values()))


def subgraph(
    values: list[Any], shown: list[list[str]] | None = None, text: int | None = None, mode: int = 0
) -> dict[str, Any]:
    """The same inside a subgraph with inputs `text` and `seed`; `values` and `shown` are those of the node outside."""
    inner = text_to_image()
    inner[1] = ui(2, "CLIPTextEncode", ["inner"], {"clip": (1, "CLIP", 0), "text": (20, "STRING", 1)})
    inner[2] = ui(3, "CLIPTextEncode", ["blurry"], {"clip": (2, "CLIP", 0), "text": (None, "STRING", 1)})
    inner[4] = ui(5, "KSampler", inner[4]["widgets_values"], {**SAMPLER, "seed": (21, "INT", 1)})
    links = [*LINKS, [20, -10, 0, 2, 1, "STRING"], [21, -10, 1, 5, 4, "INT"], [9, 6, 0, -20, 0, "IMAGE"]]
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    definition = {
        "id": SUBGRAPH, "name": "Text to image", "inputs": [{"name": "text"}, {"name": "seed"}],
        "outputs": [{"name": "IMAGE"}], "nodes": inner,
        "links": [dict(zip(keys, link, strict=True)) for link in links],
    }  # fmt: skip
    inputs: Inputs = {"text": (text, "STRING", 1), "seed": (None, "INT", 1)}
    properties = {"proxyWidgets": shown} if shown is not None else {}
    nodes = [
        ui(10, SUBGRAPH, values, inputs, properties=properties, mode=mode),
        ui(11, "SaveImage", ["x"], {"images": (30, "IMAGE", 0)}),
        ui(12, "PrimitiveStringMultiline", ["linked"]),
    ]
    outside = [[30, 10, 0, 11, 0, "IMAGE"], [31, 12, 0, 10, 0, "STRING"]]
    return workflow(nodes, outside, definitions={"subgraphs": [definition]})


# fmt: off
case("plain ui", base(), **S)
case("new ui with widget inputs", base(_5=ui(5, "KSampler", [42, "fixed", 20, 7.5, "dpmpp_2m", "karras", 1],
    {"model": (3, "MODEL", 0), "positive": (4, "C", 0), "negative": (5, "C", 0), "latent_image": (6, "L", 0),
    "seed": (None, "INT", 1), "steps": (None, "INT", 1), "cfg": (None, "FLOAT", 1), "sampler_name": (None, "COMBO",
    1), "scheduler": (None, "COMBO", 1), "denoise": (None, "FLOAT", 1)})), **S)
case("converted seed widget", base([ui(8, "PrimitiveNode", [77, "fixed"])], [[10, 8, 0, 5, 4, "INT"]], _5=ui(5,
    "KSampler", [42, "randomize", 20, 7.5, "dpmpp_2m", "karras", 1], {"model": (3, "MODEL", 0), "positive": (4, "C",
    0), "negative": (5, "C", 0), "latent_image": (6, "L", 0), "seed": (10, "INT", 1)})), **{**S, "seed": 77})
case("bypassed lora", base([ui(8, "LoraLoader", ["x.safetensors", 1, 1], {"model": (10, "MODEL", 0), "clip": (11,
    "CLIP", 0)}, mode=4, outputs=[{"type": "MODEL"}, {"type": "CLIP"}])], [[10, 1, 0, 8, 0, "MODEL"], [11, 1, 1, 8, 1,
    "CLIP"], [3, 8, 0, 5, 0, "MODEL"], [1, 8, 1, 2, 0, "CLIP"]]), **S, loras=[])
case("active lora", base([ui(8, "LoraLoader", ["x.safetensors", 0.8, 0.7], {"model": (10, "MODEL", 0), "clip": (11,
    "CLIP", 0)}, outputs=[{"type": "MODEL"}, {"type": "CLIP"}])], [[10, 1, 0, 8, 0, "MODEL"], [11, 1, 1, 8, 1,
    "CLIP"], [3, 8, 0, 5, 0, "MODEL"], [1, 8, 1, 2, 0, "CLIP"]]), **S, loras=[("x", 0.8, 0.7)])
case("muted second sampler", base([ui(8, "KSampler", [1, "fixed", 10, 5, "euler", "normal", 0.5], {"model": (10,
    "MODEL", 0), "positive": (11, "C", 0), "negative": (12, "C", 0), "latent_image": (13, "L", 0)}, mode=2), ui(9,
    "VAEDecode", [], {"samples": (14, "LATENT", 0), "vae": (15, "VAE", 0)}, mode=2), ui(10, "SaveImage", ["x"],
    {"images": (16, "IMAGE", 0)}, mode=2)], [[10, 1, 0, 8, 0, "M"], [11, 2, 0, 8, 1, "C"], [12, 3, 0, 8, 2, "C"], [13,
    5, 0, 8, 3, "L"], [14, 8, 0, 9, 0, "L"], [15, 1, 2, 9, 1, "V"], [16, 9, 0, 10, 0, "I"]]), **S, hires=None)
case("bypassed second sampler", base([ui(8, "KSampler", [1, "fixed", 10, 5, "euler", "normal", 0.5], {"model": (10,
    "MODEL", 0), "positive": (11, "C", 0), "negative": (12, "C", 0), "latent_image": (13, "LATENT", 0)}, mode=4,
    outputs=[{"type": "LATENT"}])], [[10, 1, 0, 8, 0, "M"], [11, 2, 0, 8, 1, "C"], [12, 3, 0, 8, 2, "C"], [13, 5, 0,
    8, 3, "L"], [7, 8, 0, 6, 0, "L"]]), **S, hires=None)
case("reroutes", base([ui(8, "Reroute", [], {"": (10, "*", 0)})], [[10, 1, 0, 8, 0, "*"], [3, 8, 0, 5, 0, "MODEL"]]),
    **S)
case("power lora ui", base([ui(8, "Power Lora Loader (rgthree)", [{}, {"type": "PowerLoraLoaderHeaderWidget"},
    {"on": True, "lora": "x.safetensors", "strength": 0.6, "strengthTwo": None}, {"on": False,
    "lora": "y.safetensors", "strength": 1, "strengthTwo": None}, {}, ""], {"model": (10, "MODEL", 0), "clip": (11,
    "CLIP", 0)}, outputs=[{"type": "MODEL"}, {"type": "CLIP"}])], [[10, 1, 0, 8, 0, "MODEL"], [11, 1, 1, 8, 1,
    "CLIP"], [3, 8, 0, 5, 0, "MODEL"], [1, 8, 1, 2, 0, "CLIP"]]), **S, loras=[("x", 0.6, None)])
case("widgets dict", base(_2=ui(2, "CLIPTextEncode", {"text": "a cat"}, {"clip": (1, "CLIP", 0)})), **S)

case("a subgraph whose nodes hold the values", subgraph([]), **{**S, "prompt": "inner"})
case("a subgraph's inputs as widgets", subgraph(["outer", 77]), **{**S, "prompt": "outer", "seed": 77})
case("a subgraph's inputs by name", subgraph(["outer", 77], [["-1", "text"], ["-1", "seed"]]),
    **{**S, "prompt": "outer", "seed": 77})
case("widgets of nodes inside shown outside", subgraph(["bad", 77, "outer", 33], [["3", "text"], ["-1", "seed"],
    ["-1", "text"], ["5", "steps"]]), **{**S, "prompt": "outer", "seed": 77, "negative_prompt": "bad", "steps": 33})
case("shown outside, kept inside", subgraph([], [["-1", "text"], ["5", "steps"]]), **{**S, "prompt": "inner"})
case("a subgraph fed by a link", subgraph([], text=31), **{**S, "prompt": "linked"})
case("a muted subgraph", subgraph([], mode=2), prompt="",
    warnings=["The graph has no sampler that could be followed from a saved image."])

API = json.dumps(simple(), allow_nan=True).replace('"denoise": 1.0', '"denoise": 1.0, "is_changed": NaN')
UI = json.dumps(base())
case("NaN among the values", Embedded("png", {"prompt": API}), seed=5)
case("a workflow alone", Embedded("png", {"workflow": UI}), **S)
case("both: the API graph ran", Embedded("png", {"prompt": API, "workflow": UI}), seed=5)
case("EXIF Model and Make", Embedded("webp", {"exif:Model": "prompt:" + API, "exif:Make": "workflow:" + UI}), seed=5)
case("EXIF description and Make", Embedded("jpeg", {"exif:ImageDescription": "Workflow:" + UI,
    "exif:Make": "Prompt:" + API}), seed=5)
case("one object of both", Embedded("jpeg", {"exif:UserComment": f'{{"prompt": {API}, "workflow": {UI}}}'}), seed=5)
case("a request to the server", f'{{"client_id": "x", "prompt": {API}, "extra_data": {{"workflow": {UI}}}}}', seed=5)
# fmt: on


@pytest.mark.parametrize(("source", "wanted"), WORKFLOWS)
def test_workflows(source: Any, wanted: dict[str, Any]) -> None:
    assert differences(json.dumps(source) if isinstance(source, dict) else source, wanted) == {}
