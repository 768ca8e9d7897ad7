"""What hubctl reads out of model files, against values that were read by hand; and how fast it hashes them.

    python bench/headers.py [--samples ../shared/fixtures/safetensors-headers] [--size 1GB] [--misses]

Prints, as Markdown: accuracy per kind of file on the recorded headers, headers read per second, and the speed of
`hash_file` beside `sha256sum` (and `b3sum` where it is installed) on the same warm file, in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from registry import detect, hashes
from registry.detect import FileFacts
from registry.header import Header

SHARED = Path(os.environ.get("HUBCTL_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SAMPLES = SHARED / "fixtures" / "safetensors-headers"

# What an expectation is called, and where our answer to it stands.
FIELDS: dict[str, Callable[[FileFacts], Any]] = {
    "type": lambda f: f.kind,
    "base_family": lambda f: f.base_family,
    "architecture": lambda f: f.architecture,
    "modelspec_architecture": lambda f: f.architecture,
    "rank": lambda f: f.rank if len(f.ranks) < 2 else list(f.ranks),
    "alpha": lambda f: f.alpha,
    "has_text_encoder": lambda f: f.touches.get("text_encoder"),
    "trigger_words": lambda f: list(f.trained_words) or None,
    "dataset_dirs": lambda f: f.training.get("dataset_dirs"),
    "base_model_name": lambda f: f.training.get("base_model_name"),
    "base_model_hash": lambda f: f.training.get("base_model_hash"),
    "base_model_sha256": lambda f: f.training.get("base_model_sha256"),
    "output_name": lambda f: f.training.get("output_name"),
    "clip_skip": lambda f: str(f.training.get("clip_skip")),
    "internal_name": lambda f: f.details.get("internal_name"),
    "token": lambda f: f.details.get("token"),
    "step": lambda f: f.details.get("step"),
    "vectors": lambda f: f.details.get("vectors"),
    "dim": lambda f: f.details.get("dim"),
    "sd_checkpoint": lambda f: f.details.get("sd_checkpoint"),
}
PROSE = {"layout", "trigger_reason"}  # explanations for the reader, not values

# Expectations that are not followed. (file or block, field) → why
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("krea2", "base_family"): "`krea-2` here, `krea2` beside the recorded LoRA of the same family: one name is kept",
    (
        "krea2-lora",
        "base_family",
    ): "`krea-2` here, `krea2` beside the recorded LoRA of the same family: one name is kept",
}


@dataclass
class Score:
    files: int = 0
    right: int = 0
    known: int = 0
    seconds: float = 0.0
    misses: list[str] = field(default_factory=list)


def samples(root: Path = SAMPLES) -> Iterator[tuple[str, Callable[[], FileFacts], dict[str, Any]]]:
    """(name, how to read it, what is expected) of every recorded header and metadata block."""
    for path in sorted(root.glob("*/*.expected.json")):
        expected = json.loads(path.read_text("utf-8"))["expected"]
        source = path.with_name(path.name.removesuffix(".expected.json"))
        if source.name == "modelspec-blocks.json":
            for name, block in json.loads(source.read_text("utf-8")).items():
                yield name, lambda block=block: detect.from_header(Header({}, block), size=0), expected[name]
        else:
            yield source.name, lambda source=source: detect.inspect(source), expected


def run(root: Path = SAMPLES) -> dict[str, Score]:
    """Scores by expected kind."""
    scores: dict[str, Score] = defaultdict(Score)
    for name, read, expected in samples(root):
        score = scores[expected["type"]]
        read()  # imports and the page cache are not what is timed
        started = time.perf_counter()
        facts = read()
        score.seconds += time.perf_counter() - started
        score.files += 1
        for what, value in expected.items():
            if value == "unknown" or what in PROSE or (name, what) in EXCEPTIONS:
                continue
            score.known += 1
            ours = FIELDS[what](facts)
            if ours == value:
                score.right += 1
            else:
                score.misses.append(f"{name}: {what} is {ours!r}, expected {value!r}")
    return scores


def table(scores: dict[str, Score]) -> Iterator[str]:
    yield "| kind | files | fields right | fields known | accuracy | ms a file |"
    yield "|---|--:|--:|--:|--:|--:|"
    total = Score()
    for name, score in sorted(scores.items()):
        yield _row(name, score)
        for part in ("files", "right", "known", "seconds"):
            setattr(total, part, getattr(total, part) + getattr(score, part))
    yield _row("**all**", total)


def _row(name: str, s: Score) -> str:
    return (
        f"| {name} | {s.files} | {s.right} | {s.known} | {100 * s.right / s.known:.1f} % "
        f"| {1000 * s.seconds / s.files:.2f} |"
    )


# --- hashing ----------------------------------------------------------------------------------------------------------


def speeds(size: int, repeats: int = 3) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        head = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        block = os.urandom(16 * 1024 * 1024)
        with path.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for at in range(0, size, len(block)):
                file.write(block[: min(len(block), size - at)])
        rows: dict[str, Callable[[], Any]] = {
            "`sha256sum`": lambda: subprocess.run(["sha256sum", path], check=True, capture_output=True),
            "`hash_file`, SHA256": lambda: hashes.hash_file(path, ["SHA256"]),
            "`hash_file`, all six": lambda: hashes.hash_file(path),
        }
        if shutil.which("b3sum"):
            rows["`b3sum`"] = lambda: subprocess.run(["b3sum", path], check=True, capture_output=True)
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(repeats + 1):
            for name, job in rows.items():
                started = time.perf_counter()
                job()
                times[name].append(time.perf_counter() - started)
        base = statistics.median(times["`sha256sum`"][1:])
        yield "| program | MB/s | against sha256sum |"
        yield "|---|--:|--:|"
        for name in rows:
            median = statistics.median(times[name][1:])
            yield f"| {name} | {size / 1e6 / median:,.0f} | {base / median:.2f} |"


def bytes_of(text: str) -> int:
    units = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
    return int(float(text[:-2]) * units[text[-2:].upper()]) if text[-2:].upper() in units else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, default=SAMPLES)
    parser.add_argument("--size", default="1GB")
    parser.add_argument("--misses", action="store_true")
    options = parser.parse_args()
    scores = run(options.samples)
    for line in table(scores):
        print(line)
    if options.misses:
        for score in scores.values():
            for miss in score.misses:
                print(f"- {miss}")
    seconds, files = sum(s.seconds for s in scores.values()), sum(s.files for s in scores.values())
    print(f"\n{files / seconds:,.0f} headers a second on one core.\n")
    for line in speeds(bytes_of(options.size)):
        print(line)


if __name__ == "__main__":
    main()
