"""Which of a version's files is the one to install.

Decided in this order: it must hold the model's main weights; safe formats before pickles; then the person's own
preference of format, size and precision; then the hub's `primary` mark; then the smaller file. Every step leaves a
sentence behind, so that a plan can say why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from hubctl.errors import NotFound, UnsafeFile

if TYPE_CHECKING:
    from registry.wire import ModelFile, ModelVersion

_WEIGHTS = frozenset({"Model", "Pruned Model", "Diffusion Model", "UNet"})
# which file types are the main weights, where a model type differs from _WEIGHTS
_MAIN: dict[str, frozenset[str]] = {
    "TextualInversion": frozenset({"Model", "Negative"}),
    "CLIP": frozenset({"Model", "Text Encoder", "Vision Encoder"}),
    "TextEncoder": frozenset({"Model", "Text Encoder"}),
    "VAE": frozenset({"Model", "VAE"}),
    "Poses": frozenset({"Archive", "Config"}),
    "Wildcards": frozenset({"Archive", "Config"}),
    "Workflows": frozenset({"Archive", "Config", "Workflow"}),
    "ComfyWorkflows": frozenset({"Archive", "Config", "Workflow"}),
    "Other": frozenset({"Archive", "Config", "Model"}),
}
_PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
_FORMATS = {".safetensors": "SafeTensor", ".sft": "SafeTensor", ".gguf": "GGUF", ".onnx": "ONNX", ".zip": "Other"}


class Prefs(Protocol):
    """What `file` asks of a preference object: names as the hub spells them."""

    @property
    def format(self) -> str: ...
    @property
    def fp(self) -> str: ...
    @property
    def size(self) -> str: ...
    @property
    def allow_pickle(self) -> bool: ...


@dataclass(frozen=True)
class DefaultPrefs:
    """Safe, half precision, without training leftovers."""

    format: str = "SafeTensor"
    fp: str = "fp16"
    size: str = "pruned"
    allow_pickle: bool = False


@dataclass(frozen=True)
class Choice:
    """The file, why it, what to know about it, and why each other one not."""

    file: ModelFile
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    rejected: tuple[tuple[ModelFile, str], ...]


def file_format(file: ModelFile) -> str:
    """The hub's word for the format, checked against the name: a `.ckpt` called SafeTensor is a pickle."""
    suffix = PurePosixPath(file.name).suffix.lower()
    if suffix in _PICKLES:
        return "PickleTensor"
    if suffix in _FORMATS and _FORMATS[suffix] != "Other":
        return _FORMATS[suffix]
    return (file.metadata.format if file.metadata else None) or "Other"


def file(
    version: ModelVersion, prefs: Prefs | None = None, *, file_id: int | None = None, model_type: str | None = None
) -> Choice:
    """Choose a file of `version`; `file_id` names it outright, and then only safety is judged.

    Raises NotFound when there is none (or not that one), UnsafeFile when every candidate was judged harmful or is a
    pickle and `prefs.allow_pickle` is off.
    """
    prefs = prefs or DefaultPrefs()
    rejected: list[tuple[ModelFile, str]] = []
    candidates = _named(version, file_id) if file_id is not None else _main(version, model_type, rejected)
    allowed = []
    for each in candidates:
        why = _refusal(each, prefs)
        if why:
            rejected.append((each, why))
        else:
            allowed.append(each)
    if not allowed:
        raise _none_left(version, candidates, rejected)
    allowed.sort(key=lambda f: _rank(f, prefs))
    best = allowed[0]
    rejected += [(other, _why_not(other, best)) for other in allowed[1:]]
    reasons = ("you asked for this file",) if file_id is not None else tuple(_reasons(best, candidates, prefs))
    return Choice(best, reasons, tuple(_warnings(best, version)), tuple(rejected))


def _named(version: ModelVersion, file_id: int) -> list[ModelFile]:
    found = [each for each in version.files if each.id == file_id]
    if not found:
        ids = ", ".join(f"{each.id} (`{each.name}`)" for each in version.files[:12]) or "none"
        raise NotFound(f"version {version.id} has no file {file_id}", hint=f"its files: {ids}")
    return found


def _main(version: ModelVersion, model_type: str | None, rejected: list[tuple[ModelFile, str]]) -> list[ModelFile]:
    """Files that are the model itself. When none claims to be, whatever is not an ornament may stand in."""
    kind = model_type or (version.model or {}).get("type")
    wanted = _MAIN.get(kind, _WEIGHTS) if isinstance(kind, str) else _WEIGHTS
    main = [each for each in version.files if (each.type or "Model") in wanted]
    if not main:
        main = [each for each in version.files if each.type not in {"Training Data", "Config", "VAE", "Workflow"}]
    for each in version.files:
        if each not in main:
            rejected.append((each, f"{each.type or 'file'}, not the model's weights"))
    return main


def _is_pickle(file: ModelFile) -> bool:
    return file_format(file) == "PickleTensor"


def _refusal(file: ModelFile, prefs: Prefs) -> str | None:
    if file.virus_scan_result == "Danger":
        return "the hub's virus scan calls it dangerous"
    if file.pickle_scan_result == "Danger":
        return "the hub's pickle scan calls it dangerous"
    if _is_pickle(file) and not prefs.allow_pickle:
        return f"a pickle (the hub's scan says {file.pickle_scan_result or 'nothing'})"
    return None


def _none_left(version: ModelVersion, candidates: list[ModelFile], rejected: list[tuple[ModelFile, str]]) -> Exception:
    if not candidates:
        return NotFound(
            f"version {version.id} has no file to install",
            hint="the hub lists none (any more); try another version of the model, or another hub with `--hub`",
        )
    why = "; ".join(f"`{each.name}`: {text}" for each, text in rejected if each in candidates)
    return UnsafeFile(f"no file of version {version.id} is safe to install: {why}")


def _said(file: ModelFile, name: str) -> str:
    return str(getattr(file.metadata, name, None) or "").lower()


def _rank(file: ModelFile, prefs: Prefs) -> tuple[Any, ...]:
    """Sort key, smaller is better. A value nobody stated ranks between the preferred and a different one."""

    def match(name: str, wanted: str) -> int:
        said = _said(file, name)
        return 1 if not said else 0 if said == wanted.lower() else 2

    form = file_format(file)
    return (
        _is_pickle(file) and prefs.format != "PickleTensor",
        form != prefs.format,
        form != "SafeTensor",
        match("size", prefs.size),
        match("fp", prefs.fp),
        not file.primary,
        file.size_kb if file.size_kb is not None else float("inf"),
        file.id,
    )


def _reasons(best: ModelFile, candidates: list[ModelFile], prefs: Prefs) -> list[str]:
    if len(candidates) == 1:
        return ["the only file with the model's weights"]
    out = []
    if file_format(best) == prefs.format:
        out.append(f"{best.metadata.format if best.metadata and best.metadata.format else prefs.format} as preferred")
    elif not _is_pickle(best):
        out.append(f"{file_format(best)}, not a pickle")
    for name in ("size", "fp"):
        said, wanted = _said(best, name), _want(prefs, name)
        if said == wanted:
            out.append(f"{said} as preferred")
        elif said and all(_said(each, name) != wanted for each in candidates):
            out.append(f"{said}, since none is {wanted}")
    if best.primary:
        out.append("the hub's primary file")
    return out or ["the best match of several"]


def _want(prefs: Prefs, name: str) -> str:
    return (prefs.size if name == "size" else prefs.fp).lower()


def _why_not(other: ModelFile, best: ModelFile) -> str:
    if _is_pickle(other) and not _is_pickle(best):
        return "a pickle, and there is a safe file"
    if file_format(other) != file_format(best):
        return f"{file_format(other)} instead of {file_format(best)}"
    for name in ("size", "fp"):
        if _said(other, name) != _said(best, name):
            return (
                f"{_said(other, name) or 'unstated ' + name}, and {_said(best, name) or 'unstated ' + name} fits better"
            )
    return "the chosen one is the hub's primary file" if best.primary else "same kind, but larger or newer"


def _warnings(best: ModelFile, version: ModelVersion) -> list[str]:
    out = []
    if _is_pickle(best):
        scan = best.pickle_scan_result
        out.append(
            "a pickle can run code when it is loaded" + ("; the hub's scan found nothing" if scan == "Success" else "")
        )
    if best.virus_scan_result not in ("Success", None):
        out.append(f"the hub's virus scan says {best.virus_scan_result}")
    declared = (best.metadata.format if best.metadata else None) or ""
    if declared == "SafeTensor" and _is_pickle(best):
        out.append(f"the hub calls it SafeTensor, but `{PurePosixPath(best.name).suffix}` is a pickle's suffix")
    if sum(each.name == best.name for each in version.files) > 1:
        out.append(f"several files are called `{best.name}`; this is file {best.id}")
    return out
