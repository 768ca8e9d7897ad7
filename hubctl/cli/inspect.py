"""hubctl inspect: what a picture or a model file says about itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _flags, _out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubctl.parameters import GenerationParameters

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".heic", ".tif", ".tiff"}
MODELS = {".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"}


def inspect(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE|DIR|-", help="Pictures, model files, folders, or - for stdin")
    ],
    full: Annotated[bool, typer.Option("--full", help="Also what is long: all metadata, raw settings")] = False,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="a1111|comfy|json", help="Write it back for another UI")
    ] = None,
    hashes: Annotated[bool, typer.Option("--hashes/--no-hashes", help="Read the whole file to hash it")] = True,
) -> None:
    """What a picture or a model file says about itself. No pickle is ever executed.

    Several files or a folder give one JSON object a line.

    Example: hubctl inspect picture.png --as a1111
    """
    from hubctl.errors import KnownError

    if len(paths) > 1 or Path(paths[0]).is_dir():
        failed = 0
        for path in _files(paths):
            try:
                data = {"path": str(path), **_one(path, hashes=False)}
            except KnownError as error:
                data = {"path": str(path), "error": error.to_json()}
                failed += 1
            sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
        if failed:
            _out.say(f"{_out.plural(failed, 'file')} without anything to read")
        return
    if as_:
        sys.stdout.write(_written(paths[0], as_) + "\n")
        return
    data = _one("-" if paths[0] == "-" else Path(paths[0]), hashes=hashes)
    if _flags.CURRENT.json:
        _out.document("inspect", data)
    elif "parameters" in data:
        _show_picture(data, full)
    else:
        _show_model(data, full)


def _files(paths: list[str]) -> Iterator[Path]:
    for text in paths:
        path = Path(text)
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.suffix.lower() in PICTURES | MODELS and p.is_file())
        else:
            yield path


def _one(path: Path | str, *, hashes: bool) -> dict[str, Any]:
    from hubctl.errors import NotFound

    if isinstance(path, Path) and not path.is_file():
        raise NotFound(f"`{path}` is not a file")
    if isinstance(path, Path) and _is_model(path):
        return _model(path, hashes=hashes)
    parameters = _parameters(path)
    return {"parameters": parameters.to_json(), "warnings": list(parameters.warnings)}


def _is_model(path: Path) -> bool:
    if path.suffix.lower() in MODELS:
        return True
    if path.suffix.lower() != ".json":
        return False
    from registry import header

    return header.is_header_json(path)


def _parameters(path: Path | str) -> GenerationParameters:
    from hubctl import infotext

    if path == "-":
        return infotext.parse(sys.stdin.read(4 * 1024 * 1024))
    return infotext.parse(infotext.read(Path(path)))


def _model(path: Path, *, hashes: bool) -> dict[str, Any]:
    from registry import detect
    from registry import hashes as hashing

    facts = detect.inspect(path).to_json()
    if hashes and path.suffix.lower() != ".json":
        facts["hashes"] = {**facts.get("hashes", {}), **hashing.hash_file(path)}
    return facts


def _written(path: str, kind: str) -> str:
    from hubctl import infotext
    from hubctl.errors import UsageError

    parameters = _parameters(path if path == "-" else Path(path))
    if kind == "a1111":
        return infotext.a1111.write(parameters)
    if kind == "comfy":
        return json.dumps(infotext.comfy.write(parameters), ensure_ascii=False, indent=2)
    if kind == "json":
        return json.dumps(parameters.to_json(), ensure_ascii=False, indent=2)
    raise UsageError(f"`--as {kind}` is not known", hint="one of: a1111, comfy, json")


def one_line(parameters: GenerationParameters) -> str:
    """`DPM++ 2M Karras, 20 steps, CFG 7, seed 1, 512×768`"""
    from hubctl.parameters import sampler_label, schedule_label

    parts = []
    if parameters.sampler:
        schedule = f" {schedule_label(parameters.schedule)}" if parameters.schedule else ""
        parts.append(sampler_label(parameters.sampler) + schedule)
    elif parameters.sampler_label:
        parts.append(parameters.sampler_label)
    if parameters.steps is not None:
        parts.append(f"{parameters.steps} steps")
    if parameters.cfg_scale is not None:
        parts.append(f"CFG {parameters.cfg_scale:g}")
    if parameters.seed is not None:
        parts.append(f"seed {parameters.seed}")
    if parameters.width and parameters.height:
        parts.append(f"{parameters.width}×{parameters.height}")
    if parameters.clip_skip:
        parts.append(f"clip skip {parameters.clip_skip}")
    return ", ".join(parts) or "no settings"


def _show_picture(data: dict[str, Any], full: bool) -> None:
    from hubctl.parameters import GenerationParameters

    p = GenerationParameters.from_json(data["parameters"])
    program = " ".join(filter(None, (p.generator.name, p.generator.version)))
    hires = ", ".join(f"{k} {v}" for k, v in p.hires.to_json().items() if v is not None) if p.hires else None
    _out.facts(
        [
            ("prompt", p.prompt),
            ("negative", p.negative_prompt),
            ("settings", one_line(p)),
            ("denoise", p.denoise),
            ("hires", hires),
            ("made by", program),
            *((r.kind, _resource(r.to_json())) for r in p.resources),
        ]
    )
    if full and p.raw:
        _out.line()
        _out.table(["as written", "value"], [(key, str(value)[:400]) for key, value in p.raw.items()])
    for warning in p.warnings:
        _out.warn(warning)


def _resource(r: dict[str, Any]) -> str:
    weight = f" at {r['weight']:g}" if r["weight"] is not None else ""
    ids = ", ".join(text for text in (r["hash"], f"version {r['version_id']}" if r["version_id"] else None) if text)
    return f"{r['name'] or '–'}{weight}" + (f"  ({ids})" if ids else "")


def _show_model(data: dict[str, Any], full: bool) -> None:
    shown = ("kind", "architecture", "base_family", "base_model_guess", "precision", "format", "rank", "alpha")
    _out.facts(
        [
            *((name.replace("_", " "), data.get(name)) for name in shown),
            ("tensors", data.get("tensors")),
            ("parameters", _out.number(data.get("parameters"))),
            ("size", _out.size(data.get("bytes"))),
            ("trained words", ", ".join(map(str, data.get("trained_words", ())))),
            *((name, value) for name, value in sorted(data.get("hashes", {}).items())),
        ]
    )
    metadata = data.get("metadata") or {}
    if full and metadata:
        _out.line()
        _out.table(["metadata", "value"], [(key, str(value)[:400]) for key, value in sorted(metadata.items())])
    elif metadata:
        _out.say(f"{_out.plural(len(metadata), 'metadata entry', 'metadata entries')} with --full")
