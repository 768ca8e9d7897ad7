"""Manifests: one JSON per installed version, beside the blobs it names. They are the truth; SQLite is an index.

manifests/<source>/<model id>/<version id>.json
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry import wire
from registry.errors import NotFound, TooNew, VerificationFailed
from registry.fs import safe_name, write_atomic

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Manifest:
    """An installed version: what the hub said (kept whole), and which blob each file is."""

    source: str
    model: wire.Model
    version: wire.ModelVersion
    files: dict[int, str]  # file id → sha256
    explicit: bool = True
    installed_at: str = field(default_factory=now)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)  # file id → what its header says
    settings: dict[str, Any] | None = None  # recommended
    tree: dict[int, str] = field(default_factory=dict)  # file id → path below the home
    lineage: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "source": self.source,
            "model": self.model.dump(),
            "version": self.version.dump(),
            "files": {str(k): v for k, v in self.files.items()},
            "explicit": self.explicit,
            "installed_at": self.installed_at,
            "facts": {str(k): v for k, v in self.facts.items()},
            "settings": self.settings,
            "tree": {str(k): v for k, v in self.tree.items()},
            "lineage": self.lineage,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        """Raises TooNew for a later format."""
        from registry import wire  # pydantic: not for those who only list

        if data.get("format", 0) > FORMAT:
            raise TooNew("a manifest was written by a newer hubctl")
        return cls(
            source=data["source"],
            model=wire.Model.model_validate(data["model"]),
            version=wire.ModelVersion.model_validate(data["version"]),
            files={int(k): v for k, v in data["files"].items()},
            explicit=data.get("explicit", True),
            installed_at=data.get("installed_at") or now(),
            facts={int(k): v for k, v in (data.get("facts") or {}).items()},
            settings=data.get("settings"),
            tree={int(k): v for k, v in (data.get("tree") or {}).items()},
            lineage=data.get("lineage"),
        )


def path_of(root: Path, source: str, model_id: int, version_id: int) -> Path:
    return folder_of(root, source) / str(model_id) / f"{version_id}.json"


def folder_of(root: Path, source: str) -> Path:
    return root / safe_name(source)


def write(root: Path, manifest: Manifest) -> Path:
    """Raises VerificationFailed for an answer nested so deep that only an attack can be meant."""
    path = path_of(root, manifest.source, manifest.model.id, manifest.version.id)
    try:
        text = json.dumps(manifest.to_json(), ensure_ascii=False)
    except (RecursionError, ValueError):  # pydantic's limit is a ValueError
        raise VerificationFailed(
            f"what the hub says of version {manifest.version.id} is nested too deep to be kept",
            hint="another hub may say it better: try --hub",
        ) from None
    write_atomic(path, text.encode("utf-8", "surrogatepass"))
    return path


def load(path: Path) -> dict[str, Any]:
    """The JSON of a manifest, its frame checked. Raises VerificationFailed, TooNew, FileNotFoundError."""
    try:
        data = json.loads(path.read_bytes())
        number = data["format"]
        frame = (data["source"], data["model"]["id"], data["version"]["id"], data["files"])
        fits = all(isinstance(v, k) for v, k in zip(frame, (str, int, int, dict), strict=True)) and all(
            str(key).isdigit() and _SHA256.fullmatch(str(value)) for key, value in data["files"].items()
        )
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise _no_manifest(path, error.__class__.__name__) from None
    if isinstance(number, int) and number > FORMAT:
        raise TooNew(f"`{path}` was written by a newer hubctl")
    if not fits:
        raise _no_manifest(path, "its files are not named by id and SHA256")
    found: dict[str, Any] = data
    return found


def read(path: Path) -> Manifest:
    """Raises VerificationFailed naming a file that is no manifest, TooNew, NotFound when it is gone."""
    try:
        return Manifest.from_json(load(path))
    except FileNotFoundError:
        raise NotFound(f"`{path}` is gone", hint="another process removed it, or `hubctl reindex`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _no_manifest(path, error.__class__.__name__) from None


def _no_manifest(path: Path, why: str) -> VerificationFailed:
    return VerificationFailed(f"`{path}` is not a manifest: {why}", hint="move it away and install that version again")
