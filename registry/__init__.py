"""What is here: blobs, manifests, the index, and this library as a hub. Public names, loaded when used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.air import AIR as AIR
    from registry.local import Installed as Installed
    from registry.local import InstalledFile as InstalledFile
    from registry.local import Registry as Registry
    from registry.manifest import Manifest as Manifest
    from registry.partial import Partial as Partial
    from registry.store import Blob as Blob
    from registry.store import BlobStore as BlobStore

_HOMES = {
    "AIR": "registry.air",
    "Blob": "registry.store",
    "BlobStore": "registry.store",
    "Installed": "registry.local",
    "InstalledFile": "registry.local",
    "Manifest": "registry.manifest",
    "Partial": "registry.partial",
    "Registry": "registry.local",
}

__all__ = ["AIR", "Blob", "BlobStore", "Installed", "InstalledFile", "Manifest", "Partial", "Registry"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'registry' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
