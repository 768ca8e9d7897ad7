"""Each third-party library has one home; heavy ones are imported inside the functions that need them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOMES = {
    "typer": ("hubctl/cli/",),
    "rich": ("hubctl/cli/",),
    "httpx": ("hubctl/hubs/",),
    "tenacity": ("hubctl/hubs/",),
    "sqlmodel": ("registry/",),
    "sqlalchemy": ("registry/",),
    "starlette": ("registry/http/",),
    "uvicorn": ("registry/http/",),
    "torch": ("hubctl/run/", "hubctl/merge/", "hubctl/train/"),
    "diffusers": ("hubctl/run/",),
    "transformers": ("hubctl/run/",),
    "peft": ("hubctl/run/",),
    "torchsde": ("hubctl/run/",),
    "tomlkit": ("hubctl/config.py", "hubctl/tokens.py", "hubctl/lockfile.py"),
    "pydantic": ("registry/wire.py",),
    "nh3": ("hubctl/text.py",),
    "picklescan": ("registry/pickles.py",),
    "blake3": ("registry/hashes.py", "registry/partial.py"),
}
SOURCES = sorted([*ROOT.glob("hubctl/**/*.py"), *ROOT.glob("registry/**/*.py")])


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_library_is_imported_only_in_its_home(path: Path) -> None:
    where = path.relative_to(ROOT).as_posix()
    strays = {name for name in imported(path) & HOMES.keys() if not where.startswith(HOMES[name])}
    if where in {"hubctl/doctor.py"}:
        strays -= {"torch"}
    assert not strays


HEAVY = (
    "torch", "diffusers", "transformers", "peft", "sqlmodel", "sqlalchemy", "httpx", "starlette", "scipy", "numpy",
    "pydantic",
)  # fmt: skip


def modules_after(*argv: str) -> set[str]:
    probe = (
        "import sys\nfrom hubctl.cli import run\n"
        f"try: run({list(argv)!r})\nexcept SystemExit: pass\n"
        "sys.stderr.write('MODULES ' + ' '.join(sorted(m for m in sys.modules if '.' not in m)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.rsplit("MODULES ", 1)[1].split())


def test_help_imports_nothing_heavy() -> None:
    assert not modules_after("--help") & set(HEAVY)


@pytest.mark.parametrize("name", ["search", "install", "reproduce", "list", "du", "serve"])
def test_help_of_a_command_imports_no_heavy_library(name: str) -> None:
    assert not modules_after(name, "--help") & (set(HEAVY) - {"pydantic"})
