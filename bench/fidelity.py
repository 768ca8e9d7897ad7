"""How near hubctl comes to the WebUI: every case of a folder in the golden format, in every flavour it records.

    python bench/fidelity.py FOLDER [--case NAME] [--flavour forge] [--full] [--json]

Each case goes the way a picture goes: infotext → parameters → plan → run. Printed are the largest differences in
conditioning, first noise, timesteps, latents and pixels, and the verdict by the set's own tolerances. `rules` is the
flavour of the plan; `forge*` = Forge's rules with fractional timesteps, where the set's `a1111` arrays are just that.
The model files are made from the folder's recipes once, into a cache outside the checkout (`HUBCTL_GOLDEN`).
Cases of the full-size checkpoint (2 GB) run with --full or when named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "run"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import golden

HEAD = ("case", "flavour", "rules", "conditioning", "noise", "calls", "latents", "pixels", "PSNR", "verdict")


def row(report: golden.Report) -> list[str]:
    def small(value: float | None) -> str:
        return "–" if value is None else "0" if value == 0 else f"{value:.1e}"

    calls = str(report.calls) if report.calls == report.calls_expected else f"{report.calls}≠{report.calls_expected}"
    return [
        report.case, report.flavour, report.rules, small(report.conditioning), small(report.noise), calls,
        small(report.latents), "–" if report.pixels is None else str(report.pixels),
        "–" if report.psnr is None else f"{report.psnr:.0f}", report.verdict,
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", action="append", help="only cases whose name begins with this")
    parser.add_argument("--flavour", action="append", help="forge, a1111")
    parser.add_argument("--recipes", type=Path, help="where the weights' recipes are, when not beside the folder")
    parser.add_argument("--full", action="store_true", help="the full-size checkpoint too")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    recipes = asked.recipes or golden.recipes_of(asked.folder)
    if recipes is None:
        print(f"no recipes/ beside {asked.folder}", file=sys.stderr)
        return 2
    files = golden.Files(recipes)
    reports = run(asked, files)
    if asked.json:
        print(json.dumps({"schema": "hubctl.fidelity/1", "cases": [r.to_json() for r in reports]}, indent=1))
    differing = [r for r in reports if r.verdict == "DIFFERS"]
    print(f"{len(reports)} runs, {len(differing)} differ", file=sys.stderr)
    return 1 if differing or not reports else 0


def run(asked: argparse.Namespace, files: golden.Files) -> list[golden.Report]:
    from hubctl.run.runner import ModelCache

    reports: list[golden.Report] = []
    cache = ModelCache()
    if not asked.json:
        print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    with tempfile.TemporaryDirectory() as scratch:
        for case in golden.cases(asked.folder):
            if asked.case and not case.name.startswith(tuple(asked.case)):
                continue
            if Path(str(case.data.get("model"))).stem == golden.BIG and not (asked.full or asked.case):
                continue
            for flavour in case.flavours:
                if asked.flavour and flavour not in asked.flavour:
                    continue
                try:
                    report = golden.check(case, flavour, files, Path(scratch), cache)
                except Exception as error:
                    report = golden.Report(case.name, flavour, "–", problems=[f"{type(error).__name__}: {error}"])
                reports.append(report)
                if not asked.json:
                    print("| " + " | ".join(row(report)) + " |", flush=True)
                for name in report.unknown:
                    print(f"  {report.case}: setting `{name}` is not read here", file=sys.stderr)
                for problem in report.problems + report.notes:
                    print(f"  {report.case} {flavour}: {problem}", file=sys.stderr)
    return reports


if __name__ == "__main__":
    sys.exit(main())
