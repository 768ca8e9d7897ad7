"""Options several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Device = Annotated[str | None, typer.Option("--device", metavar="cpu|cuda|mps", help="Where to compute")]
Dtype = Annotated[str | None, typer.Option("--dtype", metavar="fp32|fp16|bf16", help="In which precision")]
ProjectDir = Annotated[
    Path | None, typer.Option("--project", metavar="DIR", help="Folder with hubctl.toml; default: this one or above")
]
Offload = Annotated[
    str | None,
    typer.Option("--offload", metavar="auto|none|model|sequential", help="What rests in main memory on a small GPU"),
]
