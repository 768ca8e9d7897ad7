"""Homes with something in them, for tests of the library itself: small files, real store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from registry import Manifest, Registry, wire


def put(
    registry: Registry,
    data: bytes,
    *,
    model_id: int = 1,
    version_id: int = 11,
    name: str | None = None,
    model: str | None = None,
    type: str = "LORA",
    base: str = "SD 1.5",
    creator: str | None = None,
    parents: Sequence[str] = (),
    source: str = "civitai",
    installed_at: str | None = None,
) -> str:
    """Install a version with one file; returns its SHA256."""
    sha = hashlib.sha256(data).hexdigest()
    with registry.reserve(sha, size=len(data)) as partial:
        partial.write(data)
        partial.seal()
    registry.add(
        manifest(
            sha, len(data), model_id=model_id, version_id=version_id, name=name, model=model, type=type, base=base,
            creator=creator, parents=parents, source=source, installed_at=installed_at,
        )
    )  # fmt: skip
    if installed_at:  # and not read since
        blob = registry.blob_path(sha)
        with contextlib.suppress(FileNotFoundError):  # another process may have removed it by now
            os.utime(blob, (datetime.fromisoformat(installed_at).timestamp(), blob.stat().st_mtime))
    return sha


def manifest(
    sha: str,
    size: int,
    *,
    model_id: int = 1,
    version_id: int = 11,
    name: str | None = None,
    model: str | None = None,
    type: str = "LORA",
    base: str = "SD 1.5",
    creator: str | None = None,
    parents: Sequence[str] = (),
    source: str = "civitai",
    installed_at: str | None = None,
) -> Manifest:
    file = {
        "id": version_id * 10,
        "name": name if name is not None else f"file_{version_id}.safetensors",
        "type": "Model",
        "sizeKB": size / 1024,
        "hashes": {"SHA256": sha.upper()},
    }
    said: dict[str, Any] = {"id": model_id, "name": model if model is not None else f"Model {model_id}", "type": type}
    if creator:
        said["creator"] = {"username": creator}
    version = {"id": version_id, "modelId": model_id, "name": f"v{version_id}", "baseModel": base, "files": [file]}
    when = {"installed_at": installed_at} if installed_at else {}
    return Manifest(
        source,
        wire.Model.model_validate(said),
        wire.ModelVersion.model_validate(version),
        {version_id * 10: sha},
        lineage={"parents": list(parents)} if parents else None,
        **when,  # type: ignore[arg-type]
    )


def files_du(*roots: Path) -> int:
    """Allocated bytes of the files below folders, by `find`, once per inode; folders do not count."""
    names = " ".join(f"'{root}'" for root in roots if root.exists())
    script = f"find {names} -type f -printf '%D:%i %b\\n' | sort -u | awk '{{ n += $2 * 512 }} END {{ print n + 0 }}'"
    return int(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)


def sha256sum(path: Path) -> str:
    return subprocess.run(["sha256sum", "-b", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
