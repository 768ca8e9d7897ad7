"""hubctl inspect: what a picture or a model file says about itself."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubctl.cli import _flags, _out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubctl.parameters import GenerationParameters, Hires, ResourceRef

PICKLED = {"ckpt", "pt", "pickle", "bin"}
TOUCHES = {"unet": "denoiser", "text_encoder": "text encoder", "vae": "VAE", "conv": "convolutions"}
PICTURES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".heic", ".heif", ".tif", ".tiff"}
FORMS = ("a1111", "comfy", "json")
MAX_STDIN = 256 * 1024 * 1024
MODELS = {".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"}


def inspect(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE|DIR|-", help="Pictures, model files, folders, or - for stdin")
    ],
    full: Annotated[bool, typer.Option("--full", help="Also what is long: all metadata, raw settings")] = False,
    as_: Annotated[
        str | None, typer.Option("--as", metavar="a1111|comfy|json", help="Write it back for another UI")
    ] = None,
    hashes: Annotated[
        bool | None,
        typer.Option("--hashes/--no-hashes", help="Read whole model files to hash them; of several only when asked"),
    ] = None,
    ask_hub: Annotated[
        bool, typer.Option("--ask-hub", help="Ask the hub which of a model's hashes it knows, and its base model's")
    ] = False,
) -> None:
    """What a picture or a model file says about itself. No pickle is ever executed.

    Several files or a folder give one JSON object a line.

    Example: hubctl inspect picture.png --as a1111
    """
    from hubctl.errors import KnownError, UsageError

    if "" in paths:  # `"$(…)"` that found nothing; it would read as the folder we stand in
        raise UsageError("one of the names is empty", hint="name a file or a folder; `.` is this one")
    several = len(paths) > 1 or Path(paths[0]).is_dir()
    if as_ is not None:
        _check_form(as_, several)
    if several:
        failed = 0
        for path in _files(paths):
            try:
                data = {"path": str(path), **_one(path, hashes=bool(hashes), full=full, ask_hub=ask_hub)}
            except KnownError as error:
                data = {"path": str(path), "error": error.to_json()}
                failed += 1
            _json_line(data)
        if failed:
            _out.say(f"{_out.plural(failed, 'file')} without anything to read")
        return
    if as_:
        _print(_written(paths[0], as_))
        return
    path_or_stdin = "-" if paths[0] == "-" else Path(paths[0])
    data = _one(path_or_stdin, hashes=hashes is not False, full=full, ask_hub=ask_hub)
    if _flags.CURRENT.json:
        _out.document("inspect", data)
    elif "tensors" not in data:
        _show_picture(data, full)
    else:
        _show_model(data, full)


def _files(paths: list[str]) -> Iterator[Path]:
    for text in paths:
        path = Path(text)
        if path.is_dir():
            for folder, inner, names in os.walk(path):  # a folder at a time, however large the tree
                inner.sort()
                files = (Path(folder, name) for name in sorted(names))
                yield from (each for each in files if _is_ours(each) and each.is_file())
        else:
            yield path


def _is_ours(path: Path) -> bool:
    return path.suffix.lower() in PICTURES | MODELS or path.name.lower().endswith(".header.json")


def _json_line(data: dict[str, Any]) -> None:
    _print(json.dumps(data, ensure_ascii=False, default=str))


def _print(text: str) -> None:
    """Data as it is, to be pasted or piped; a terminal is shown nothing that it would act on."""
    from hubctl.text import safe

    if sys.stdout.isatty():
        text = safe(text, multiline=True)
    sys.stdout.write(text.encode("utf-8", "replace").decode("utf-8") + "\n")


def _one(path: Path | str, *, hashes: bool, full: bool, ask_hub: bool) -> dict[str, Any]:
    from hubctl.errors import NotFound

    if isinstance(path, Path) and not path.is_file():
        raise NotFound(f"`{path}` is not a file")
    if isinstance(path, Path) and _is_model(path):
        return _model(path, hashes=hashes, full=full, ask_hub=ask_hub)
    parameters = _parameters(path)
    return {"parameters": parameters.to_json(), "warnings": list(parameters.warnings)}


def _is_model(path: Path) -> bool:
    if path.suffix.lower() in MODELS:
        return True
    if path.suffix.lower() == ".png":
        from registry import detect

        return detect.is_embedding_picture(path)
    if path.suffix.lower() != ".json":
        return False
    from registry import header

    return header.is_header_json(path)


def _parameters(path: Path | str) -> GenerationParameters:
    from hubctl import infotext
    from hubctl.errors import UsageError

    if path == "-":
        data = sys.stdin.buffer.read(MAX_STDIN + 1)
        if len(data) > MAX_STDIN:
            raise UsageError(f"more than {_out.size(MAX_STDIN)} on stdin", hint="give the file's name instead")
        return infotext.parse(infotext.read(data))
    return infotext.parse(infotext.read(Path(path)))


def _model(path: Path, *, hashes: bool, full: bool, ask_hub: bool) -> dict[str, Any]:
    from hubctl.errors import VerificationFailed
    from registry import detect, header, pickles
    from registry import hashes as hashing

    facts = detect.inspect(path)
    if facts.format == "unknown":
        reason = facts.notes[0] if facts.notes else "its first bytes are of no known format"
        raise VerificationFailed(f"`{path.name}` does not hold a model: {reason}", hint=header.DAMAGED)
    data = facts.to_json(full=full)
    if path.suffix.lower() != ".json":
        own = hashing.hash_file(path, hashing.ALL if hashes else ["AutoV1"])
        data["hashes"] = {**own, **data["hashes"]}
    if facts.format in PICKLED:
        data["pickle"] = pickles.scan(path).to_json()
    if ask_hub:
        data["known"] = _known(data)
    return data


ASKED = (
    "SHA256",
    "BLAKE3",
    "AutoV3",
    "sshs_model_hash",
    "modelspec.hash_sha256",
    "CRC32",
    "AutoV1",
    "sshs_legacy_hash",
)


def _known(data: dict[str, Any]) -> dict[str, Any]:
    """What the hub has under each hash of the file, surest first, and under its base model's; None = nothing."""
    from hubctl.cli import _app
    from hubctl.errors import NotFound

    hub = _app.open_hub()
    wanted = {kind: data["hashes"][kind] for kind in ASKED if data["hashes"].get(kind)}
    training = data.get("training") or {}
    if base := training.get("base_model_sha256") or training.get("base_model_hash"):
        wanted["base model"] = base
    known: dict[str, Any] = {}
    for kind, value in wanted.items():
        short = value[:12] if kind == "sshs_model_hash" else value  # the hub keeps twelve digits of this one
        try:
            version = hub.by_hash(short)
        except NotFound:
            known[kind] = None
            continue
        known[kind] = {
            "model_id": version.model_id,
            "version_id": version.id,
            "model": (version.model or {}).get("name"),
            "version": version.name,
        }
    return known


def _check_form(kind: str, several: bool) -> None:
    from hubctl.errors import UsageError

    if kind not in FORMS:
        raise UsageError(f"`--as {kind}` is not known", hint=f"one of: {', '.join(FORMS)}")
    if several:
        raise UsageError("`--as` writes one picture at a time", hint="without it, each line has all the settings")


def _written(path: str, kind: str) -> str:
    from hubctl import infotext

    parameters = _parameters(path if path == "-" else Path(path))
    if kind == "a1111":
        return infotext.a1111.write(parameters)
    if kind == "comfy":
        return json.dumps(infotext.comfy.write(parameters), ensure_ascii=False, indent=2)
    return json.dumps(parameters.to_json(), ensure_ascii=False, indent=2)


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
    hires = _second_pass(p.hires) if p.hires else None
    _out.facts(
        [
            ("prompt", p.prompt.strip()),
            ("negative", p.negative_prompt.strip()),
            ("settings", one_line(p)),
            ("guidance", p.distilled_cfg),
            ("denoise", p.denoise if p.denoise != 1.0 and p.hires is None else None),
            ("variation", _variation(p)),
            ("hires", hires),
            ("made by", program),
            *((r.kind.replace("_", " "), _resource(r.to_json())) for r in p.resources if not _is_refiner(p, r)),
            ("refiner", _refined(p)),
        ]
    )
    if full and p.raw:
        _out.line()
        _out.table(["as written", "value"], [(key, str(value)[:400]) for key, value in p.raw.items()])
    for warning in p.warnings:
        _out.warn(warning)


def _second_pass(hires: Hires) -> str:
    """`×1.5 with 4x-UltraSharp, 12 steps, denoise 0.4`"""
    from hubctl.parameters import sampler_label, schedule_label

    scale = f"×{hires.upscale:g}" if hires.upscale is not None else ""
    size = f"{hires.width or 'auto'}×{hires.height or 'auto'}" if hires.width or hires.height else ""
    sampler = sampler_label(hires.sampler) if hires.sampler else ""
    parts = [
        " ".join(filter(None, (scale or size, f"with {hires.upscaler}" if hires.upscaler else ""))),
        f"{hires.steps} steps" if hires.steps is not None else "",
        f"denoise {hires.denoise:g}" if hires.denoise is not None else "",
        " ".join(filter(None, (sampler, schedule_label(hires.schedule) if hires.schedule else ""))),
        f"CFG {hires.cfg_scale:g}" if hires.cfg_scale is not None else "",
        f"checkpoint {hires.checkpoint}" if hires.checkpoint else "",
        "a prompt of its own" if hires.prompt or hires.negative_prompt else "",
    ]
    return ", ".join(filter(None, parts))


def _variation(p: GenerationParameters) -> str | None:
    if not p.subseed_strength:
        return None
    return f"{p.subseed_strength:g} of seed {p.subseed}" if p.subseed is not None else f"{p.subseed_strength:g}"


def _is_refiner(p: GenerationParameters, resource: ResourceRef) -> bool:
    return p.refiner is not None and resource.name == p.refiner.checkpoint


def _refined(p: GenerationParameters) -> str | None:
    if p.refiner is None:
        return None
    at = f" from {p.refiner.switch_at:.0%}" if p.refiner.switch_at is not None else ""
    return f"{p.refiner.checkpoint or '–'}{at}" + (f"  ({p.refiner.hash})" if p.refiner.hash else "")


def _resource(r: dict[str, Any]) -> str:
    weight = f" at {r['weight']:g}" if r["weight"] is not None else ""
    if r["weight_te"] not in (None, r["weight"]):
        weight += f" (text encoder {r['weight_te']:g})"
    digest = r["hash"][:12] if r["hash"] else None  # whole with --json
    ids = ", ".join(text for text in (digest, f"version {r['version_id']}" if r["version_id"] else None) if text)
    return f"{r['name'] or '–'}{weight}" + (f"  ({ids})" if ids else "")


def _show_model(data: dict[str, Any], full: bool) -> None:
    shown = ("kind", "architecture", "base_family", "base_model_guess", "precision", "format", "layout")
    listed = bool(data["tensors"])
    ranks, touches = data["ranks"], data["touches"]
    rank = f"{data['rank']} (of most layers; {', '.join(ranks)})" if len(ranks) > 1 else data["rank"]
    training = {k: v for k, v in data["training"].items() if not isinstance(v, dict)}
    counts = {text.casefold(): count for text, count in data["tag_frequency"].items()}
    words = (
        f"{word} ({counts[word.casefold()]}×)" if word.casefold() in counts else word for word in data["trained_words"]
    )
    _out.facts(
        [
            *((name.replace("_", " "), data[name]) for name in shown),
            ("rank", rank),
            ("alpha", data["alpha"]),
            ("touches", [TOUCHES[name] for name, yes in touches.items() if yes]),
            *((name.replace("_", " "), value) for name, value in data["details"].items()),
            ("prediction", data["prediction"]),
            ("trained at", data["resolution"]),
            ("tensors", data["tensors"] if listed else "none listed: only metadata"),
            ("parameters", _out.number(data["parameters"]) if data["parameters"] else None),
            ("size", _out.size(data["bytes"])),
            ("trigger words", list(words)),
            ("frequent tags", [f"{tag} ({count})" for tag, count in list(data["tag_frequency"].items())[:12]]),
            ("pickle", _pickle(data.get("pickle"))),
            *((f"hub: {name}", _found(value)) for name, value in (data.get("known") or {}).items()),
        ]
    )
    if data["hashes"]:
        _out.line()
        width = max(map(len, data["hashes"]))
        for name, value in data["hashes"].items():  # never folded: they are there to be copied
            _out.line(f"{name:<{width}}  {value}")
    for note in data["notes"]:
        _out.say(f"· {note}")
    if (data.get("pickle") or {}).get("verdict") == "dangerous":
        _out.warn("loading this file would run a stranger's program")
    if full and training:
        _out.line()
        _out.table(
            ["training", "value"], [(key.replace("_", " "), _training(key, value)) for key, value in training.items()]
        )
    if full and data["tag_frequency"]:
        _out.line()
        _out.table(["tag", ("pictures", "right")], list(data["tag_frequency"].items())[:100])
    metadata = data.get("metadata") or {}
    if full and metadata:
        _out.line()
        _out.table(["metadata", "value"], [(key, _cut(value)) for key, value in sorted(metadata.items())])
    elif metadata:
        _out.say(f"{_out.plural(len(metadata), 'metadata entry', 'metadata entries')} with --full")


LONGEST_SHOWN = 400


def _cut(value: Any) -> str:
    """A metadata value for a table; tables of tags are megabytes, and whole in --json --full."""
    text = str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}… ({len(text):,} characters)"


def _training(key: str, value: Any) -> str:
    """`started at` as a date: trainers write seconds since 1970."""
    if key in {"started_at", "finished_at"} and isinstance(value, int | float) and 0 < value < 1e11:
        from datetime import UTC, datetime

        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC"
    return _cut(value)


def _pickle(report: dict[str, Any] | None) -> str | None:
    return f"{report['verdict']}: {report['reason']}" if report else None


def _found(version: dict[str, Any] | None) -> str:
    if version is None:
        return "not known"
    return f"{version['model_id']}@{version['version_id']}  {version['model'] or ''} · {version['version']}"
