"""What hubctl reads out of recorded pictures, against values that were read by hand.

    python bench/metadata.py [--samples ../shared/fixtures/infotext] [--only NAME] [--misses] [--update PAGE]

Prints the accuracy per writer, the same files through the PyPI package `sd_parsers` when it is installed, and how many
PNG headers one core reads per second, as Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hubctl import infotext
from hubctl.errors import KnownError
from hubctl.infotext import _values as values
from hubctl.infotext import novelai
from hubctl.parameters import GenerationParameters

SAMPLES = Path(os.environ.get("HUBCTL_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "fixtures/infotext"

# Expectations that are wrong or ask for what no reader can know. (file, field) → why
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("comfyui-anima.png", "width"): "the rgthree latent node names the size: '1216 x 832 (landscape)'",
    ("comfyui-anima.png", "height"): "the rgthree latent node names the size: '1216 x 832 (landscape)'",
    ("comfyui-comfyroll.png", "width"): "the rgthree latent node names the size: '1024 x 1024 (square)'",
    ("comfyui-comfyroll.png", "height"): "the rgthree latent node names the size: '1024 x 1024 (square)'",
    ("comfyui-comfyroll.png", "clip_skip"): "the CLIPSetLastLayer node is not upstream of the picture that was saved",
    ("InvokeAI-invokeai_sdmeta1.png", "prompt"): "InvokeAI 2.x: text in square brackets is the negative prompt",
    ("tensorart.png", "seed"): "-1 means random; the graph beside it has the seed that was drawn",
}
_NO_VAE = ("Automatic", "Default (model)", "None")


@dataclass
class Score:
    files: int = 0
    read: int = 0
    right: int = 0
    known: int = 0
    seconds: float = 0.0
    misses: list[str] = field(default_factory=list)


def samples(root: Path = SAMPLES) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(root.glob("*/*.expected.json")):
        yield path.with_name(path.name.removesuffix(".expected.json")), json.loads(path.read_text("utf-8"))


def read(path: Path) -> GenerationParameters | None:
    """Parameters, or None where hubctl says that there are none."""
    try:
        return infotext.parse(infotext.read(path, sidecars=False))
    except KnownError:
        return None


def first_name(parameters: GenerationParameters, *kinds: str) -> str | None:
    return next((r.name or r.air for r in parameters.of_kind(*kinds)), None)


def got(parameters: GenerationParameters, name: str) -> Any:
    """Our value for a field as the expected files name them."""
    p = parameters
    model = next(iter(p.of_kind("checkpoint", "unet")), None)
    simple: dict[str, Callable[[], Any]] = {
        "sampler": lambda: p.sampler_label,
        "schedule_type": lambda: p.schedule_label,
        "model_name": lambda: first_name(p, "checkpoint", "unet"),
        "model_hash": lambda: model.hash if model else None,
        "vae": lambda: first_name(p, "vae"),
        "vae_hash": lambda: next((r.hash for r in p.of_kind("vae")), None),
        "flux_guidance": lambda: p.distilled_cfg,
        "loras": lambda: [
            {"name": r.name, "weight": r.weight, "clip_weight": r.weight_te, "hash": r.hash}
            for r in p.of_kind("lora", "lycoris")
            if r.version_id is None
        ],
        "checkpoints": lambda: [r.name for r in p.of_kind("checkpoint", "unet") if r.air is None],
        "embeddings": lambda: [{"name": r.name} for r in p.of_kind("embedding")] or None,
        "hires": lambda: p.hires,
        "samplers": lambda: p.raw.get("samplers"),
        "second_pass": lambda: (p.raw.get("samplers") or [None, None])[1:2],
        "node_count": lambda: sum("class_type" in n for n in p.raw["prompt"].values() if isinstance(n, dict)),
        "models": lambda: [m["name"] for m in p.raw.get("models", []) if m["url"]],
        "node_types": lambda: p.raw.get("node_types"),
        "civitai_resources": lambda: p.raw.get("Civitai resources") or p.raw.get("extraMetadata", {}).get("resources"),
        "version": lambda: p.raw.get("Version") or p.raw.get("version") or p.generator.version,
    }
    return simple[name]() if name in simple else getattr(p, name, None)


def same_text(left: Any, right: Any) -> bool:
    return str(left or "").replace("\r\n", "\n").strip("\n") == str(right or "").replace("\r\n", "\n").strip("\n")


def same(name: str, expected: Any, parameters: GenerationParameters) -> bool:
    """Whether a known expected field agrees; None means that we must not claim a value."""
    ours = got(parameters, name)
    if name in ("prompt", "negative_prompt"):
        # recorded as written; NovelAI's brackets are converted when read
        written = parameters.generator.name == "NovelAI" and isinstance(expected, str)
        return same_text(novelai.convert_weights(expected) if written else expected, ours)
    if name in ("model_name", "vae"):
        return ours == (None if expected in _NO_VAE else values.stem(expected))
    if name in ("model_hash", "vae_hash"):
        return ours == values.file_hash(expected)
    if name in ("loras", "embeddings"):
        return same_files(expected or [], ours or [])
    if name == "checkpoints":
        return expected is None or [values.stem(item) for item in expected] == ours
    if name == "samplers":
        return expected is None or same_passes(expected, ours or [])
    if name == "second_pass":
        return expected is None or (bool(ours) and same_pass(expected, ours[0]))
    if name == "hires":
        return same_hires(expected, ours)
    if name == "models":
        return {item["name"] for item in expected} <= {item["name"] for item in parameters.raw["models"]}
    if name == "node_types":
        return set(expected) <= set(ours or [])
    if isinstance(expected, int | float) and isinstance(ours, int | float):
        return float(expected) == float(ours)
    return bool(expected == ours)


def same_files(expected: list[dict[str, Any]], ours: list[dict[str, Any]]) -> bool:
    if len(expected) != len(ours):
        return False
    for one, other in zip(expected, ours, strict=True):
        if values.stem(one["name"]) != other["name"]:
            return False
        if any(one.get(key) is not None and one[key] != other.get(key) for key in ("weight", "clip_weight", "hash")):
            return False
    return True


def same_pass(expected: dict[str, Any], ours: dict[str, Any]) -> bool:
    for key, value in expected.items():
        if value == "unknown" or (isinstance(value, list) and "unknown" in value) or key == "class_type":
            continue
        other = ours.get(key)
        if key == "loras":
            if not same_files(value, other):
                return False
        elif key == "model":
            if values.stem(value) != other:
                return False
        elif value != other and not (value in (None, [], [""]) and other in (None, [], [""])):
            return False
    return True


def same_passes(expected: list[dict[str, Any]], ours: list[dict[str, Any]]) -> bool:
    by_node = {str(item["node"]): item for item in ours}
    return all(str(one["node"]) in by_node and same_pass(one, by_node[str(one["node"])]) for one in expected)


_HIRES_NAMES = {
    "upscale": "upscale", "upscale_by": "upscale", "refinerupscale": "upscale", "Hires scale": "upscale",
    "steps": "steps", "cfg": "cfg_scale", "upscaler": "upscaler", "upscale_method": "upscaler",
    "refinerupscalemethod": "upscaler", "Hires upscaler": "upscaler", "refinercontrolpercentage": "denoise",
    "upscaler_strength": "denoise",
}  # fmt: skip


def same_hires(expected: dict[str, Any] | None, ours: Any) -> bool:
    if expected is None or ours is None:
        return expected is None and ours is None
    return all(getattr(ours, _HIRES_NAMES[k]) == value for k, value in expected.items() if k in _HIRES_NAMES)


_FROM_TEXT = ("full_prompt", "full_negative_prompt", "styles", "sharpness", "refiner_model", "workflow", "extra")
_NOT_FIELDS = ("other_settings_keys", "lora_hashes", "air_resources", "has_subgraphs", "scheduler_key", "template_line")


def fields(expected: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Expected fields that are known: "unknown" is not certain and not tested."""
    block = expected.get("from_graph", expected)
    beside = expected.get("from_parameters_text", {})
    for name, value in block.items():
        if value is None and beside.get(name) is not None:
            continue  # the graph does not say, the text beside it does
        if name == "hires" and value is None and "node_count" in block:
            continue  # a graph's second pass stands under `second_pass`
        unknown = isinstance(value, str) and value.startswith("unknown")
        if not unknown and name not in _FROM_TEXT and name not in _NOT_FIELDS:
            yield name, value


def check(path: Path, record: dict[str, Any]) -> tuple[int, int, list[str]]:
    """(fields right, fields known, what is wrong) of one file."""
    expected, parameters = record["expected"], read(path)
    if expected is None:
        return (1, 1, []) if parameters is None else (0, 1, [f"{path.name}: parameters where there are none"])
    names = [(n, value) for n, value in fields(expected) if (path.name, n) not in EXCEPTIONS]
    if parameters is None:
        return 0, len(names), [f"{path.name}: not read"]
    literal = expected.get("prompt") == "unknown" and record["format"].startswith("a1111")
    misses = [
        f"{path.name}: {name}: expected {value!r:.200}, read {got(parameters, name)!r:.200}"
        for name, value in names
        if not literal and not same(name, value, parameters)
    ]
    return len(names) - len(misses), len(names), misses


def run(root: Path, only: str | None) -> dict[str, Score]:
    scores: dict[str, Score] = defaultdict(Score)
    for path, record in samples(root):
        if only and only not in path.name:
            continue
        score = scores[record["generator"].partition(" (")[0]]
        started = time.perf_counter()
        read(path)
        score.seconds += time.perf_counter() - started
        right, known, misses = check(path, record)
        score.files += 1
        score.read += not any("not read" in miss or "where there are none" in miss for miss in misses)
        score.right += right
        score.known += known
        score.misses += misses
    return scores


# --- side by side -----------------------------------------------------------------------------------------------------

_SHARED_FIELDS = ("prompt", "negative_prompt", "steps", "cfg_scale", "seed", "sampler", "model_name")


def other_parser(path: Path) -> dict[str, Any] | None:
    """The same fields out of `sd_parsers`; None when it reads nothing."""
    from sd_parsers import ParserManager

    global _MANAGER
    _MANAGER = _MANAGER or ParserManager()
    try:
        info = _MANAGER.parse(path)
    except Exception:  # a bench must survive whatever a foreign package raises
        return None
    if info is None or not (info.samplers or info.prompts):
        return None
    sampler = info.samplers[0] if info.samplers else None
    parameters = dict(sampler.parameters) if sampler else {}
    model = sampler.model.name if sampler and sampler.model else None
    return {
        "prompt": str(info.full_prompt or ""),
        "negative_prompt": str(info.full_negative_prompt or ""),
        "steps": values.to_int(parameters.get("steps")),
        "cfg_scale": values.to_float(parameters.get("cfg_scale", parameters.get("cfg"))),
        "seed": values.to_int(parameters.get("seed", parameters.get("noise_seed"))),
        "sampler": sampler.name if sampler else None,
        "model_name": values.stem(model),
    }


_MANAGER: Any = None


def compare(root: Path) -> list[tuple[str, int, int, int, int, float]]:
    """(name, files read, files, fields right, fields, milliseconds a file) for both programs on the same pictures."""
    rows = []
    for name, reader in (("hubctl", _ours), ("sd_parsers", other_parser)):
        files = read_files = right = known = 0
        seconds = 0.0
        for path, record in samples(root):
            expected = record["expected"]
            if expected is None or path.suffix in (".txt", ".json") or record["format"] == "comfyui-ui-workflow":
                continue
            reader(path)  # caches and imports are not what is compared
            started = time.perf_counter()
            result = reader(path)
            seconds += time.perf_counter() - started
            files += 1
            read_files += result is not None
            for field_name, value in fields(expected):
                if field_name in _SHARED_FIELDS and (path.name, field_name) not in EXCEPTIONS and value is not None:
                    known += 1
                    right += result is not None and _equal(field_name, value, result[field_name])
        rows.append((name, read_files, files, right, known, 1000 * seconds / max(files, 1)))
    return rows


def _ours(path: Path) -> dict[str, Any] | None:
    parameters = read(path)
    return None if parameters is None else {name: got(parameters, name) for name in _SHARED_FIELDS}


def _equal(name: str, expected: Any, value: Any) -> bool:
    if name in ("prompt", "negative_prompt"):
        return same_text(expected, value)
    if name == "model_name":
        return bool(values.stem(expected) == value)
    return bool(expected == value)


def pngs_per_second(count: int = 2000) -> float:
    """Header-only reads and parses of typical A1111 PNGs (1 MiB of picture data) by one core."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    text = (
        "parameters\0a cat on a mat, <lora:paint:0.8>\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Schedule "
        'type: Automatic, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: 0123456789, Model: m, Lora hashes: "paint: '
        '0123456789ab", Version: v1.10.1'
    )
    picture = chunk(b"IDAT", bytes(1 << 20))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 512, 768, 8, 2, 0, 0, 0))
    png += chunk(b"tEXt", text.encode()) + picture + chunk(b"IEND", b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        path.write_bytes(png)
        started = time.process_time()
        for _ in range(count):
            infotext.parse(infotext.read(path))
        return count / (time.process_time() - started)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--samples", type=Path, default=SAMPLES)
    arguments.add_argument("--only")
    arguments.add_argument("--misses", action="store_true")
    arguments.add_argument("--update", type=Path, metavar="PAGE", help="replace the tables of a page by these")
    options = arguments.parse_args()
    if options.update:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            report(options)
        page = options.update.read_text("utf-8")
        before, start, rest = page.partition(START)
        _, end, after = rest.partition(END)
        if not start or not end:
            raise SystemExit(f"{options.update} has no place for the tables ({START} … {END})")
        options.update.write_text(f"{before}{START}\n\n{printed.getvalue()}\n{END}{after}", "utf-8")
    else:
        report(options)


START, END = "<!-- bench/metadata.py -->", "<!-- end -->"


def report(options: argparse.Namespace) -> None:
    scores = run(options.samples, options.only)
    print("| writer | files | read | fields right | fields known | accuracy | ms a file |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    total = Score()
    for writer, score in sorted(scores.items()):
        print(_row(writer, score))
        for name in ("files", "read", "right", "known", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(score, name))
    print(_row("**all**", total))
    if options.misses:
        print("\n".join(miss for score in scores.values() for miss in score.misses))
        return
    try:
        rows = compare(options.samples)
    except ImportError:
        rows = []
    print("\n| program | pictures read | fields right | ms a picture |\n|---|--:|--:|--:|")
    for name, read_files, files, right, known, milliseconds in rows:
        print(f"| {name} | {read_files} of {files} | {right} of {known} | {milliseconds:.2f} |")
    print(f"\nHeader-only reading and parsing: {pngs_per_second():,.0f} PNGs a second on one core.")


def _row(writer: str, score: Score) -> str:
    accuracy = f"{100 * score.right / max(score.known, 1):.1f} %"
    each = f"{1000 * score.seconds / max(score.files, 1):.2f}"
    return f"| {writer} | {score.files} | {score.read} | {score.right} | {score.known} | {accuracy} | {each} |"


if __name__ == "__main__":
    main()
