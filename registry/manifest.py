"""Manifests: one JSON per installed version, beside the blobs it names. They are the truth; SQLite is an index.

manifests/<source>/<model id>/<version id>.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry import wire
from registry.errors import TooNew, VerificationFailed
from registry.fs import safe_name, write_atomic

FORMAT = 1


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
    return root / safe_name(source) / str(model_id) / f"{version_id}.json"


def write(root: Path, manifest: Manifest) -> Path:
    path = path_of(root, manifest.source, manifest.model.id, manifest.version.id)
    write_atomic(path, json.dumps(manifest.to_json(), ensure_ascii=False).encode())
    return path


def read(path: Path) -> Manifest:
    """Raises VerificationFailed naming a file that is no manifest."""
    try:
        return Manifest.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationFailed(
            f"`{path}` is not a manifest: {error.__class__.__name__}",
            hint="move it away and install that version again",
        ) from None


def walk(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("*/*/*.json"))
