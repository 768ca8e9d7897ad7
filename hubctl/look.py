"""What bytes are, before they get a good name. Nothing in them is ever run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hubctl.errors import UnsafeFile, VerificationFailed

if TYPE_CHECKING:
    from registry.detect import FileFacts

MODEL_SUFFIXES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"})
HARMLESS_FORMATS = frozenset({"safetensors", "gguf"})
PICKLES = frozenset({"ckpt", "pt", "pickle", "bin"})


def look_at(path: Path, name: str, *, allow_pickle: bool) -> FileFacts:
    """What the bytes are, before they get a good name.

    Raises VerificationFailed (a web page, a broken header) or UnsafeFile: a pickle without `allow_pickle`, and one that
    would run programs in any case.
    """
    from registry import detect, pickles

    with _shown(path, name) as shown:
        facts = detect.inspect(shown)
        report = None if facts.format in HARMLESS_FORMATS else pickles.scan(shown)
    if report is not None and report.verdict == "dangerous":
        raise UnsafeFile(
            f"`{name}` would run code when it is loaded: {report.reason}",
            hint="no option accepts that; look for the safetensors file of the same version",
            details=report.to_json(),
        )
    if report is not None and not allow_pickle and (facts.format in PICKLES or report.verdict != "safe"):
        raise UnsafeFile(
            f"`{name}` is a pickle, which can run code when it is loaded; a look inside says: {report.reason}",
            details={**report.to_json(), "allowed_with": "--allow-pickle"},
        )
    if facts.format == "unknown" and Path(name).suffix.lower() in MODEL_SUFFIXES:
        reason = facts.notes[0] if facts.notes else "its first bytes are of no known format"
        raise VerificationFailed(f"`{name}` does not hold a model: {reason}")
    return facts


@contextlib.contextmanager
def _shown(path: Path, name: str) -> Iterator[Path]:
    """A partial or blob under a name with the suffix that readers go by."""
    from registry.fs import safe_name

    with tempfile.TemporaryDirectory(prefix="hubctl-look-") as folder:
        link = Path(folder) / safe_name(name)
        try:
            link.symlink_to(path.absolute())
        except OSError:
            link = path
        yield link
