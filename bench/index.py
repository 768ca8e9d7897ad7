"""A library of 100,000 versions: what lists and sums cost, beside typer's start-up and a peer's scan of such a tree.

    python bench/index.py                  100,000 versions: about 2 GB below --at and five minutes to make
    python bench/index.py --count 10000    a tenth of it

The home is made of tiny files (what counts here is how many there are) with words drawn as in a language: a few are
everywhere, most are rare. Start-up is the same command on a home of ten versions; own work is what the size adds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from registry import Registry

TYPES = (
    ["LORA"] * 70 + ["Checkpoint"] * 8 + ["TextualInversion"] * 10 + ["LoCon"] * 6 + ["VAE"] * 2 + ["Controlnet"] * 4
)
BASES = ["SD 1.5", "SDXL 1.0", "Pony", "Illustrious", "Flux.1 D"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--at", type=Path, help="where to make it (kept); default: a temporary folder")
    options.add_argument("--rounds", type=int, default=9)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = given.at or Path(folder)
        print(f"{given.count:,} versions ({os.cpu_count()} processors, Python {sys.version.split()[0]})\n")
        name = make_home(root / f"home-{given.count}", given.count)
        commands(root, root / f"home-{given.count}", name, given.rounds)
        rebuild(root, min(given.count, 10_000))
        peer(root, min(given.count, 10_000))


# --- making it --------------------------------------------------------------------------------------------------------


class Words:
    """A vocabulary in which the n-th word is drawn n times less often than the first."""

    def __init__(self, seed: int, size: int = 60_000) -> None:
        self.random = random.Random(seed)
        letters = "etaoinshrdlu"
        self.all = ["".join(self.random.choices(letters, k=self.random.randint(4, 10))) for _ in range(size)]
        self.all[100] = "hero"
        total, self.sums = 0.0, []
        for rank in range(1, size + 1):
            total += 1 / rank
            self.sums.append(total)

    def some(self, count: int) -> list[str]:
        return self.random.choices(self.all, cum_weights=self.sums, k=count)

    def rare(self, count: int) -> list[str]:
        return self.random.choices(self.all[2000:], k=count)


def make_home(home: Path, count: int) -> str:
    """A home of that many versions, its index built; returns the name of one."""
    words = Words(7)
    if not (home / "index.db").exists():
        start = time.perf_counter()
        for at in range(256):
            (home / "blobs" / f"{at:02x}").mkdir(parents=True)
        for number in range(1, count + 1):
            write(home, number, words)
        made = time.perf_counter() - start
        start = time.perf_counter()
        with Registry.open(home):
            pass
        print(f"made in {made:.0f} s, first open (every manifest indexed) in {time.perf_counter() - start:.0f} s")
    with Registry.open(home, read_only=True) as registry:
        return registry.installed(limit=1, sort="added")[0].name


def write(home: Path, number: int, words: Words) -> None:
    """One version as an install leaves it: blob, name in tree/, manifest."""
    rng = words.random
    kind, base = rng.choice(TYPES), rng.choice(BASES)
    name = " ".join(words.rare(3)).title()
    data = f"{number} ".encode() * rng.randint(1, 30)
    sha = hashlib.sha256(data).hexdigest()
    blob = home / "blobs" / sha[:2] / sha
    blob.write_bytes(data)
    tree = f"tree/{kind}/{base}/{name} - v1 {number}/{name.replace(' ', '_')}.safetensors"
    (home / tree).parent.mkdir(parents=True)
    os.link(blob, home / tree)
    model_id = number // 3 if number % 3 else 1_000_000 + number
    path = home / "manifests/civitai" / str(model_id) / f"{number}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest(number, model_id, name, kind, base, sha, tree, words)))


def manifest(
    number: int, model_id: int, name: str, kind: str, base: str, sha: str, tree: str, words: Words
) -> dict[str, Any]:
    rng = words.random
    hashes = {
        "SHA256": sha.upper(),
        "AutoV1": sha[8:16],
        "AutoV2": sha[:10].upper(),
        "AutoV3": sha[20:32],
        "CRC32": sha[:8],
    }
    images = [
        {
            "id": number * 10 + at, "url": f"https://images.invalid/{number * 10 + at}.jpeg", "width": 512,
            "height": 768,
            "meta": {"prompt": " ".join(words.some(40)), "steps": 25, "cfgScale": 7, "seed": rng.randrange(2**32)},
        }
        for at in range(4)
    ]  # fmt: skip
    file = {"id": number, "name": Path(tree).name, "type": "Model", "sizeKB": 1.0, "hashes": hashes, "primary": True}
    return {
        "format": 1, "source": "civitai", "files": {str(number): sha}, "explicit": True, "tree": {str(number): tree},
        "installed_at": f"2025-{1 + number % 12:02d}-01T00:00:00+00:00", "facts": {str(number): {"kind": "lora"}},
        "settings": {"weight": {"value": 0.8}}, "lineage": None,
        "model": {
            "id": model_id, "name": name, "type": kind, "tags": words.some(6), "stats": {"downloadCount": number},
            "creator": {"username": f"maker{rng.randrange(4000)}"}, "allowCommercialUse": ["Image"],
            "description": f"<p>{' '.join(words.some(150))}</p>",
        },
        "version": {
            "id": number, "modelId": model_id, "name": "v1", "baseModel": base, "files": [file], "images": images,
            "trainedWords": [", ".join(words.rare(3))],
        },
    }  # fmt: skip


# --- measuring --------------------------------------------------------------------------------------------------------


def commands(root: Path, home: Path, name: str, rounds: int) -> None:
    words = Words(7)
    small = root / "home-10"
    few = make_home(small, 10)
    python = [sys.executable, "-c", "import typer"]
    print(f"\npython -c 'import typer': {walls([python], rounds)[0] * 1000:.0f} ms\n")
    print(f"{'':34}{'wall':>8}{'x typer':>9}{'start-up':>10}{'own work':>10}{'memory':>9}")
    for argv in (
        ["list"], ["list", "--sort", "size"], ["list", "--sort", "used"], ["list", "--type", "lora", "--page", "9"],
        ["search", "--local", words.all[0]], ["search", "--local", words.all[300]],
        ["search", "--local", words.all[40], words.all[90]], ["show", "--local", name], ["du"],
        ["du", "--by", "model", "--top", "10"], ["du", "--by", "creator"], ["du", "--by", "age"], ["du", "--exact"],
        ["list", "--json"],
    ):  # fmt: skip
        same = [few if word == name else word for word in argv if word not in {"--page", "9"}]
        turns = rounds if argv[-1] != "--json" else 1
        typer, full, start = walls([python, hubctl(home, argv), hubctl(small, same)], turns)
        shown = " ".join(argv) if argv[0] != "show" else "show --local NAME"
        print(
            f"hubctl {shown:27}{full * 1000:5.0f} ms{full / typer:8.1f}x{start * 1000:7.0f} ms"
            f"{max(0.0, full - start) * 1000:7.0f} ms{peak(hubctl(home, argv)):6.0f} MB"
        )


def hubctl(home: Path, argv: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "hubctl", "--home", str(home), *argv]


def walls(commands: Sequence[list[str]], rounds: int) -> list[float]:
    """Seconds of each command: the fastest of some turns, taken in turns, after one that warms the disk's cache."""
    times: list[list[float]] = [[] for _ in commands]
    for _ in range(rounds + 1):
        for command, taken in zip(commands, times, strict=True):
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            taken.append(time.perf_counter() - start)
    return [min(taken[1:]) for taken in times]


def peak(command: list[str]) -> float:
    """Peak memory of a command in MB."""
    probe = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    return float(
        subprocess.run([sys.executable, "-c", probe, *command], capture_output=True, text=True, check=True).stdout
    )


def rebuild(root: Path, count: int) -> None:
    """`reindex` from manifests alone, and how much memory that takes at one and at ten times the size."""
    print()
    for size in sorted({max(1, count // 10), count}):
        home = root / f"home-{size}"
        make_home(home, size)
        for path in home.glob("index.db*"):
            path.unlink()
        start = time.perf_counter()
        subprocess.run(hubctl(home, ["list"]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        fresh = time.perf_counter() - start
        start = time.perf_counter()
        memory = peak(hubctl(home, ["reindex"]))
        again = time.perf_counter() - start
        print(
            f"{size:6,} manifests: index made anew in {fresh:.1f} s, `reindex` over an existing one in {again:.1f} s "
            f"({again / size * 1e3:.2f} ms each), {memory:.0f} MB at most"
        )


def peer(root: Path, count: int) -> None:
    """huggingface_hub's scan of a cache of as many repositories, beside what answers the same question here."""
    try:
        from huggingface_hub import scan_cache_dir
    except ImportError:
        print("\nhuggingface_hub is not installed: no peer to compare with")
        return
    cache = root / f"hf-cache-{count}"
    if not cache.exists():
        for number, names in enumerate(repositories(count)):
            folder = cache / f"models--org--{number}"
            for name in ("blobs", "refs", f"snapshots/{names}"):
                (folder / name).mkdir(parents=True)
            (folder / "blobs" / names).write_bytes(b"x" * 100)
            (folder / "snapshots" / names / "model.safetensors").symlink_to(f"../../blobs/{names}")
            (folder / "refs" / "main").write_text(names)
    theirs = fastest(lambda: scan_cache_dir(cache))
    with Registry.open(root / f"home-{count}", read_only=True) as registry:
        ours = fastest(lambda: (list(registry.installed()), registry.library(by="model")))
        exact = fastest(lambda: registry.library(by="model", exact=True))
    print(f"\n{count:,} models: scan_cache_dir {theirs * 1000:.0f} ms")
    print(f"  everything listed and summed here {ours * 1000:.0f} ms ({theirs / ours:.1f}x faster)")
    print(f"  summed from the disk itself {exact * 1000:.0f} ms ({theirs / exact:.1f}x faster)")


def repositories(count: int) -> Iterator[str]:
    for number in range(count):
        yield hashlib.sha1(str(number).encode()).hexdigest()


def fastest(work: Any) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
