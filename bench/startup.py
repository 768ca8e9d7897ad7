"""How long commands take to start, beside `python -c "import typer"` and the Hugging Face CLI.

    python bench/startup.py [--versions 20000] [--runs 9]

Every line is the median of interleaved runs; the ratio is to importing typer alone. `list` and `search --local` run in
a library of the given number of versions, made on the spot.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))


def seconds(argv: list[str], environment: dict[str, str]) -> float:
    before = time.perf_counter()
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    from index import make_home

    with tempfile.TemporaryDirectory(prefix="hubctl-bench-") as name:
        home = Path(name) / "home"
        print(f"making a library of {options.versions:,} versions", file=sys.stderr)
        make_home(home, options.versions)
        environment = {**os.environ, "HUBCTL_HOME": str(home), "HUBCTL_CONFIG": str(Path(name) / "none.toml")}
        python, hubctl = sys.executable, [sys.executable, "-m", "hubctl"]
        lines: dict[str, list[str]] = {
            'python -c "pass"': [python, "-c", "pass"],
            'python -c "import typer"': [python, "-c", "import typer"],
            "hubctl --help": [*hubctl, "--help"],
            "hubctl list --limit 20": [*hubctl, "list", "--limit", "20"],
            "hubctl list (all)": [*hubctl, "list", "-q"],
            "hubctl search --local hero": [*hubctl, "search", "--local", "hero"],
        }
        hf = shutil.which("hf", path=f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if hf:
            lines["hf --help (huggingface_hub)"] = [hf, "--help"]
        times: dict[str, list[float]] = {line: [] for line in lines}
        for _ in range(options.runs):
            for line, argv in lines.items():
                times[line].append(seconds(argv, environment))
    typer = statistics.median(times['python -c "import typer"'])
    print("| command | seconds | × import typer |\n|---|--:|--:|")
    for line, found in times.items():
        middle = statistics.median(found)
        print(f"| `{line}` | {middle:.3f} | {middle / typer:.2f} |")


if __name__ == "__main__":
    main()
