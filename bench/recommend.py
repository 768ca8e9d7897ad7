"""How good are recommended settings? Held-out images per setting, text extraction on a labelled table.

    python bench/recommend.py [FOLDER …]        recorded hub answers (JSON); default: ../shared/fixtures/civitai-api

Images: of every version with at least four images that say how they were made, one half votes and the other half is
asked whether it would have done the same; then the halves change places. "Within the spread" means within the middle
80 % of the unseen half (for names: among the values it uses); "same" means so near its median that people would say it
is the same (weight 0.1, CFG 1, steps 5; for names: the most frequent one).

Text: tests/data/advice.jsonl, sentences written for this table in 15 languages. "dev" was looked at while the reader
was written; "blind" was written before the reader had seen it, and learnt from afterwards (docs/recommend.md keeps its
first score); nothing was changed for "fresh"; "audit" and "audit-2" were written by somebody new, each scored once
before its lessons were drawn. The first score of a set is what to expect.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hubctl import install, recommend
from hubctl.advice import Said, Subject, read
from registry import wire

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests/data/advice.jsonl"
RECORDED = ROOT.parent / "shared/fixtures/civitai-api"
NUMBERS = ("weight", "steps", "cfg_scale")
NAMES = ("clip_skip", "sampler", "schedule", "size", "base_checkpoint")
DEFAULTS = {
    "weight": 1.0, "steps": 20, "cfg_scale": 7.0, "clip_skip": 1, "sampler": "euler_ancestral", "schedule": None,
    "size": (512, 512),
}  # fmt: skip
ROUNDS = 20  # random halves of each version


# --- held-out images --------------------------------------------------------------------------------------------------


def recorded(folders: Sequence[Path]) -> Iterator[tuple[wire.Model, wire.ModelVersion]]:
    """Every version of every recorded model once."""
    seen: set[int] = set()
    for path in sorted(path for folder in folders for path in folder.rglob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("items", [data]) if isinstance(data, dict) else []
        for each in found:
            if isinstance(each, dict) and "modelVersions" in each:
                model = wire.Model.model_validate(each)
                for version in model.model_versions:
                    if version.id not in seen:
                        seen.add(version.id)
                        yield model, version


def votes_of(examples: list[Any], own: Any) -> dict[str, list[Any]]:
    """What each image of a half says, by setting, as `recommend` reads it."""
    out: dict[str, list[Any]] = defaultdict(list)
    for parameters, _ in examples:
        for name, value in recommend._read(parameters, own):  # noqa: SLF001
            out[name].append(value[1] if name == "schedule" else value)
    return out


def held_out(models: list[tuple[wire.Model, wire.ModelVersion]]) -> tuple[dict[str, Counter[str]], list[Any]]:
    """Hits by setting and method, and (confidence, hit) of every recommendation."""
    score: dict[str, Counter[str]] = defaultdict(Counter)
    sure: list[tuple[float, bool]] = []
    chance = random.Random(20)
    for model, version in models:
        examples = install.examples_of(version.images)
        if len(examples) < 4:
            continue
        own = recommend._Own.of(version, {}, model.type, model.name, None)  # noqa: SLF001
        for _ in range(ROUNDS):
            chance.shuffle(examples)
            half = len(examples) // 2
            for seen, unseen in ((examples[:half], examples[half:]), (examples[half:], examples[:half])):
                settled = recommend.settle(
                    version, seen, None, None,
                    model_description=model.description, model_type=model.type, model_name=model.name,
                )  # fmt: skip
                _count(score, sure, settled, votes_of(seen, own), votes_of(unseen, own))
    return score, sure


def _count(score: Any, sure: Any, settled: Any, seen: dict[str, list[Any]], unseen: dict[str, list[Any]]) -> None:
    for name in (*NUMBERS, *NAMES):
        truth = [v for v in unseen.get(name, []) if v is not None]
        setting = settled.settings.get(name)
        if not truth or setting is None:
            score[name]["silent"] += bool(truth)
            continue
        given = tuple(setting.value) if isinstance(setting.value, list) else setting.value
        plain = [v for v in seen.get(name, []) if v is not None]
        naive = None
        if plain:
            naive = statistics.median(plain) if name in NUMBERS else Counter(plain).most_common(1)[0][0]
        score[name]["n"] += 1
        for method, value in (("hubctl", given), ("naive", naive), ("default", DEFAULTS.get(name))):
            score[name][f"{method} spread"] += value is not None and within(name, value, truth)
            score[name][f"{method} same"] += value is not None and same(name, value, truth)
        sure.append((setting.confidence, same(name, given, truth)))


def within(name: str, value: Any, truth: list[Any]) -> bool:
    if name not in NUMBERS:
        return any(alike(name, value, each) for each in truth)
    votes = [(each, 1.0) for each in truth]
    return bool(recommend.quantile(votes, 0.1) - 1e-9 <= value <= recommend.quantile(votes, 0.9) + 1e-9)


def same(name: str, value: Any, truth: list[Any]) -> bool:
    if name not in NUMBERS:
        counts = Counter(truth)
        most = max(counts.values())
        return any(alike(name, value, each) for each, count in counts.items() if count == most)
    return bool(abs(value - statistics.median(truth)) <= recommend.TOLERANCE[name] + 1e-9)


def alike(name: str, a: Any, b: Any) -> bool:
    return recommend._same_checkpoint(a, b) if name == "base_checkpoint" else a == b  # noqa: SLF001


def print_held_out(models: list[tuple[wire.Model, wire.ModelVersion]]) -> None:
    score, sure = held_out(models)
    print("| setting | asked | within the spread: hubctl | plain median/mode | always default "
          "| same: hubctl | plain | default |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in (*NUMBERS, *NAMES):
        counts = score[name]
        if counts["n"]:
            cells = [
                "–"
                if method == "default" and name not in DEFAULTS
                else f"{counts[f'{method} {kind}'] / counts['n']:.0%}"
                for kind in ("spread", "same")
                for method in ("hubctl", "naive", "default")
            ]
            print(f"| {name} | {counts['n']} | {' | '.join(cells)} |")
    print("\n| confidence said | how often | proved the same |\n|---|--:|--:|")
    for low, high in ((0, 0.4), (0.4, 0.55), (0.55, 0.7), (0.7, 0.85), (0.85, 1.01)):
        hits = [hit for confidence, hit in sure if low <= confidence < high]
        if hits:
            print(f"| {low:.2f}–{min(high, 1):.2f} | {len(hits)} | {sum(hits) / len(hits):.0%} |")


# --- text -------------------------------------------------------------------------------------------------------------


def table(path: Path = TABLE) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def read_row(row: dict[str, Any]) -> dict[str, list[Said]]:
    """What the reader finds in a row's sentence, by setting."""
    subject = Subject(
        row.get("kind", "lora"), ("mylora", "My Lora"), row.get("version", "v1.0"), row.get("base", "SD 1.5")
    )
    found: dict[str, list[Said]] = defaultdict(list)
    for said in read(row["text"], subject):
        found[said.name].append(said)
    return found


def judge(row: dict[str, Any]) -> tuple[set[str], set[str], set[str]]:
    """(right, wrong or uncalled for, missed) settings of a row. An expected null is not counted either way."""
    found, expected = read_row(row), row["expect"]
    if "hires.use" not in expected:
        found.pop("hires.use", None)
    for name in [name for name, value in expected.items() if value is None]:
        found.pop(name, None)
    wanted = {name for name, value in expected.items() if value is not None}
    right = {name for name in wanted & found.keys() if _is(expected[name], found[name])}
    return right, set(found) - right, wanted - right


def _is(wanted: Any, found: list[Said]) -> bool:
    if isinstance(wanted, dict):  # a limit: {"max": 1}
        return any(
            all(_near(said.high if key == "max" else said.low, value) for key, value in wanted.items())
            for said in found
        )
    if isinstance(wanted, list) and isinstance(wanted[0], str):
        return {w.casefold().replace(" ", "") for w in wanted} == {
            str(s.value).casefold().replace(" ", "") for s in found
        }
    if isinstance(wanted, list):
        return any(s.value == wanted or (_near(s.low, wanted[0]) and _near(s.high, wanted[1])) for s in found)
    best = max(found, key=lambda said: (said.value is not None, said.confidence))
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return _near(best.value, wanted) and best.low is None
    return bool(best.value == wanted)


def _near(a: Any, b: float) -> bool:
    return isinstance(a, int | float) and abs(a - b) < 1e-6


def print_text() -> None:
    rows = table()
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["set"]].append(row)
        groups["English" if row["lang"] == "en" else "other languages"].append(row)
        groups["says nothing" if not any(v is not None for v in row["expect"].values()) else "says something"].append(
            row
        )
    groups["all"] = rows
    print("| sentences | n | settings | precision | recall |\n|---|--:|--:|--:|--:|")
    for name, members in groups.items():
        right, wrong, missed = (sum(len(each[i]) for each in map(judge, members)) for i in range(3))
        precision = f"{right / (right + wrong):.1%}" if right + wrong else "–"
        recall = f"{right / (right + missed):.1%}" if right + missed else "–"
        if not right + missed:
            precision = f"{wrong} said in {len(members)}"
        print(f"| {name} | {len(members)} | {right + missed} | {precision} | {recall} |")
    for row in rows:
        _, wrong, missed = judge(row)
        if wrong or missed:
            print(f"  {row['set']} {row['lang']}: {row['text'][:90]!r}  wrong {sorted(wrong)} missed {sorted(missed)}")


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]] or [RECORDED]
    print_text()
    models = list(recorded(folders))
    texts = [text for model, version in models for text in (model.description, version.description) if text]
    start = time.perf_counter()
    for text in texts:
        read(text, Subject())
    seconds = time.perf_counter() - start
    size = sum(map(len, texts))
    print(f"\n{len(texts)} recorded descriptions, {size / 1000:.0f} kB, read at {size / seconds / 1000:.0f} kB/s\n")
    if models:
        print_held_out(models)


if __name__ == "__main__":
    main()
