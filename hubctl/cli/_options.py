"""Options several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def _such_as(pattern: str, what: str, hint: str) -> Callable[[str | None], str | None]:
    """Refuse what cannot be meant while the line is read: before anything is asked, downloaded or loaded."""

    def check(value: str | None) -> str | None:
        from hubctl.errors import UsageError

        if value is not None and not re.fullmatch(pattern, value):
            raise UsageError(f"`{value}` is no {what}", hint=f"one of: {hint}")
        return value

    return check


TypeFilter = Annotated[
    list[str] | None,
    typer.Option("--type", "-t", metavar="TYPE", help="lora, checkpoint, embedding, vae, … (may be repeated)"),
]
BaseModel = Annotated[
    list[str] | None, typer.Option("--base-model", "-b", metavar="NAME", help='"SD 1.5", "SDXL 1.0", Pony, …')
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show the plan and stop")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Accept pickles that may run code when loaded")]
ProgressKind = Annotated[
    str, typer.Option("--progress", metavar="auto|json|none", help="json: one event a line on stderr")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="cpu|cuda|mps", help="Where to compute",
        callback=_such_as(r"auto|cpu|mps|cuda(:[0-9]{1,2})?", "device", "cpu, cuda, cuda:1, mps"),
    ),
]  # fmt: skip
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="fp32|fp16|bf16", help="In which precision",
        callback=_such_as("auto|fp32|fp16|bf16", "precision", "fp32, fp16, bf16"),
    ),
]  # fmt: skip
ProjectDir = Annotated[
    Path | None, typer.Option("--project", metavar="DIR", help="Folder with hubctl.toml; default: this one or above")
]
Offload = Annotated[
    str | None,
    typer.Option(
        "--offload", metavar="auto|none|model|sequential", help="What rests in main memory on a small GPU",
        callback=_such_as("auto|none|model|sequential", "way to offload", "auto, none, model, sequential"),
    ),
]  # fmt: skip
