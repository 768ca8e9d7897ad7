"""A file by what a resource reference says of it, down to the name its trainer gave it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import library

from registry import Manifest, Registry, wire


def add(registry: Registry, number: int, kind: str, name: str, data: bytes) -> None:
    sha = hashlib.sha256(data).hexdigest()
    with registry.reserve(sha, size=len(data)) as partial:
        partial.write(data)
        partial.seal()
    file = {"id": number, "name": name, "type": "Model", "hashes": {"SHA256": sha.upper()}}
    version = {"id": number, "modelId": number, "name": "v1", "baseModel": "SD 1.5", "files": [file]}
    model = {"id": number, "name": f"Model {number}", "type": kind}
    parsed = wire.Model.model_validate(model), wire.ModelVersion.model_validate(version)
    registry.add(Manifest("civitai", *parsed, {number: sha}))


def test_a_lora_answers_to_its_trainers_name_last_of_all(tmp_path: Path) -> None:
    rng = random.Random(1)
    tensors = {"lora_unet_mid_block.lora_up.weight": (4, 4)}

    def made(trained_as: str | None) -> bytes:
        return library.safetensors(tensors, rng, {"ss_output_name": trained_as} if trained_as else None)

    with Registry.open(tmp_path / "home") as registry:
        add(registry, 1, "LORA", "renamed_v2.safetensors", made("my_style-000010"))
        add(registry, 2, "LoCon", "plain.safetensors", made(None))
        add(registry, 3, "LORA", "other.safetensors", made("plain"))
        add(registry, 4, "Checkpoint", "base.safetensors", made("base_as_trained"))
        found = registry.locate("lora", name="My_Style-000010")
        assert found is not None
        assert (found.installed.version.id, found.how) == (1, "its trainer's name")
        by_file = registry.locate("lora", name="plain")
        assert by_file is not None
        assert (by_file.installed.version.id, by_file.how) == (2, "name")  # the file's own name goes first
        assert registry.locate("checkpoint", name="base_as_trained") is None
        assert registry.locate("lora", name="base_as_trained") is None
        assert registry.locate("lora", name="nobody") is None
        found.path.unlink()
        assert registry.locate("lora", name="my_style-000010") is None  # gone from the disk: no traceback
