"""Tables of made-up metadata and what must be read from each: one `case(…)` a row, `differences` compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hubctl import infotext
from hubctl.infotext import Embedded
from hubctl.parameters import GenerationParameters

KINDS = {
    "checkpoint": "checkpoint", "unet": "unet", "vae": "vae", "embeddings": "embedding", "encoders": "text_encoder",
    "hypernetworks": "hypernetwork",
}  # fmt: skip


def table() -> tuple[list[Any], Any]:
    """(rows for `parametrize`, the function that adds one)."""
    rows: list[Any] = []

    def case(name: str, source: Embedded | str | Mapping[str, Any], **said: Any) -> None:
        rows.append(pytest.param(source, said, id=name))

    return rows, case


def png(**texts: str) -> Embedded:
    return Embedded("png", texts)


def said(p: GenerationParameters, name: str) -> Any:
    """A field by its name, or by one of the short names of these tables."""
    if name == "loras":
        return [(r.name or r.air or r.version_id, r.weight, r.weight_te) for r in p.of_kind("lora", "lycoris")]
    if name == "controls":
        return [(r.name, r.weight) for r in p.of_kind("controlnet")]
    if name == "hashes":
        return {r.name: r.hash for r in p.resources if r.hash}
    if name in KINDS:
        return [r.name or r.air or r.version_id for r in p.of_kind(KINDS[name])]
    if name == "generator":
        return (p.generator.name, p.generator.version)
    if name == "hires":
        return {key: value for key, value in p.hires.to_json().items() if value is not None} if p.hires else None
    if name == "refiner":
        return (p.refiner.checkpoint, p.refiner.hash, p.refiner.switch_at) if p.refiner else None
    if name == "size":
        return (p.width, p.height)
    return list(p.warnings) if name == "warnings" else getattr(p, name)


def differences(source: Embedded | str | Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Field → (read, wanted) where they differ. A case that names no warnings must give none."""
    read = infotext.parse(source)
    wanted = {"warnings": [], **wanted}
    return {name: (said(read, name), value) for name, value in wanted.items() if said(read, name) != value}


# --- ComfyUI ----------------------------------------------------------------------------------------------------------


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def simple(**replaced: Any) -> dict[str, Any]:
    """Text to image with core nodes; any of them replaced, others added."""
    graph = {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name="base.safetensors"),
        "pos": node("CLIPTextEncode", text="a cat", clip=["ckpt", 1]),
        "neg": node("CLIPTextEncode", text="blurry", clip=["ckpt", 1]),
        "size": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "run": node(
            "KSampler", seed=5, steps=20, cfg=7.0, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0,
            model=["ckpt", 0], positive=["pos", 0], negative=["neg", 0], latent_image=["size", 0],
        ),
        "img": node("VAEDecode", samples=["run", 0], vae=["ckpt", 2]),
        "save": node("SaveImage", images=["img", 0]),
    }  # fmt: skip
    graph.update(replaced)
    return graph


def run(**inputs: Any) -> dict[str, Any]:
    """simple()'s sampler with other inputs."""
    made = simple()["run"]
    return {**made, "inputs": {**made["inputs"], **inputs}}
