"""How fast a library is taken over, beside `sha256sum` and `find` on the same files.

    python bench/adopt.py                      2 GiB of checkpoints, 10,000 small files
    python bench/adopt.py --gib 8 --files 50000 --dir /mnt/models

First scan: every byte has to be read once. Probes: a dry run and --quick read headers and samples. Copies: a second UI
with the same checkpoints is sampled. Second scan: nothing changed. The page cache is emptied of the files before each
reading (as far as the system lets us), so the disk is part of the figure; peers run in the same minute.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hubctl import adopt
from registry import Registry
from tests import library as lib


def forget(paths: Iterable[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def timed(work: Callable[[], Any], best_of: int = 1, before: Callable[[], Any] = lambda: None) -> tuple[float, Any]:
    best, out = float("inf"), None
    for _ in range(best_of):
        before()
        started = time.perf_counter()
        out = work()
        best = min(best, time.perf_counter() - started)
    return best, out


def bytes_read() -> int:
    """What this process has asked to read so far (Linux)."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar"):
            return int(line.split()[1])
    return 0


def checkpoints(folder: Path, gib: float) -> list[Path]:
    folder.mkdir(parents=True)
    rng = random.Random(1)
    count = 8
    size = int(gib * 2**30 / count)
    out = []
    for number in range(count):
        path = folder / f"model_{number}.safetensors"
        path.write_bytes(lib.checkpoint(rng, size + 4096 * number))
        out.append(path)
    return out


def first_scan(root: Path, gib: float) -> None:
    files = checkpoints(root / "ui/models/checkpoints", gib)
    total = sum(path.stat().st_size for path in files)
    names = [str(path) for path in files]

    def peer(*command: str) -> None:
        subprocess.run([*command, *names], check=True, stdout=subprocess.DEVNULL)

    def ours(threads: int | None) -> adopt.Report:
        shutil.rmtree(root / "home", ignore_errors=True)
        for path in files:
            path.chmod(0o644)
        with Registry.open(root / "home") as registry:
            plan = adopt.survey([root / "ui"], registry)
            return adopt.execute(plan, registry, None, options=adopt.Options(threads=threads))

    cold = lambda: forget(files)  # noqa: E731
    theirs, _ = timed(lambda: peer("sha256sum"), 3, cold)
    openssl = timed(lambda: peer("openssl", "dgst", "-sha256"), 3, cold)[0] if shutil.which("openssl") else None
    one, _ = timed(lambda: ours(1), 3, cold)
    auto, report = timed(lambda: ours(None), 3, cold)
    print(f"first scan, {total / 2**30:.1f} GiB in {len(files)} files, every byte read once:")
    print(f"  sha256sum            {theirs:6.2f} s  {total / theirs / 2**20:6.0f} MiB/s")
    if openssl:  # uses the processor's SHA instructions, which some builds of sha256sum do not
        print(f"  openssl dgst         {openssl:6.2f} s  {total / openssl / 2**20:6.0f} MiB/s")
    print(f"  adopt, one thread    {one:6.2f} s  {total / one / 2**20:6.0f} MiB/s  {theirs / one:5.2f}x sha256sum")
    print(f"  adopt                {auto:6.2f} s  {total / auto / 2**20:6.0f} MiB/s  {theirs / auto:5.2f}x sha256sum")
    assert report.bytes_read == total

    with Registry.open(root / "other") as registry:
        cold()
        before = bytes_read()
        seconds, _ = timed(lambda: adopt.plan([root / "ui"], registry, None))
        probed = bytes_read() - before
    share = f"{probed / 2**20:.1f} MiB read, 1/{total / probed:.0f} of the bytes"
    print(f"probes (--dry-run, --quick): {seconds:.2f} s, {share}")

    second = root / "second/models/checkpoints"
    second.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, second / path.name)
    forget(second.iterdir())
    with Registry.open(root / "home") as registry:
        before = bytes_read()
        seconds, report = timed(lambda: adopt.execute(adopt.survey([root / "second"], registry), registry, None))
        sampled = bytes_read() - before
    print(
        f"the same models in a second UI: {seconds:.2f} s, {len(report.duplicates)} copies found, "
        f"{sampled / 2**20:.1f} MiB read, 1/{total / sampled:.0f} of the bytes"
    )


def second_scan(root: Path, count: int) -> None:
    rng = random.Random(2)
    data = lib.lora(rng, 1)
    for number in range(count):
        folder = root / f"loras/{number % 40:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"lora_{number:05d}.safetensors"
        path.write_bytes(data[:-8] + number.to_bytes(8, "little"))
        if number % 2:
            path.with_suffix(".json").write_text('{"activation text": "a"}')
    with Registry.open(root / "home2") as registry:
        first, report = timed(lambda: adopt.execute(adopt.survey([root / "loras"], registry), registry, None))
        print(f"{count:,} small files taken in: {first:.1f} s, {len(report.adopted) / first:.0f} a second")
    with Registry.open(root / "home2") as registry:
        again, plan = timed(lambda: adopt.survey([root / "loras"], registry), 3)
        assert plan.unchanged == count, plan.unchanged
    env = {**os.environ, "HUBCTL_HOME": str(root / "home2"), "HUBCTL_CONFIG": str(root / "none.toml")}
    command = [sys.executable, "-m", "hubctl", "adopt", str(root / "loras"), "--offline", "-q"]
    whole, _ = timed(lambda: subprocess.run(command, env=env, check=True), 3)
    empty = [sys.executable, "-m", "hubctl", "link", "list", "-q"]
    start, _ = timed(lambda: subprocess.run(empty, env=env, check=True), 3)
    find = ["find", str(root / "loras"), "-type", "f", "-printf", "%p %s %T@ %i\n"]
    peer, _ = timed(lambda: subprocess.run(find, check=True, stdout=subprocess.DEVNULL), 3)
    print(f"second scan, {count:,} unchanged files and {count // 2:,} sidecars:")
    print(f"  find -printf         {peer:6.2f} s")
    print(f"  survey               {again:6.2f} s")
    print(f"  hubctl adopt, whole  {whole:6.2f} s  (of which a command that does nothing: {start:.2f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--dir", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        first_scan(Path(folder), args.gib)
        second_scan(Path(folder), args.files)


if __name__ == "__main__":
    main()
