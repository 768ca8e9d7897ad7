"""Which file of a version is installed, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubctl import choose
from hubctl.errors import NotFound, UnsafeFile
from registry.wire import Model, ModelVersion


def version(*files: dict, **more: object) -> ModelVersion:
    rows = [
        {"id": i, "type": "Model", "sizeKB": 100.0, "pickleScanResult": "Success", **f} for i, f in enumerate(files, 1)
    ]
    return ModelVersion.model_validate({"id": 7, "files": rows, **more})


def meta(format: str | None = None, size: str | None = None, fp: str | None = None) -> dict:
    return {k: v for k, v in {"format": format, "size": size, "fp": fp}.items() if v}


def prefs(**changes: object) -> choose.DefaultPrefs:
    return choose.DefaultPrefs(**changes)


def test_safetensors_before_the_primary_pickle() -> None:
    v = version(
        {"name": "a.ckpt", "primary": True, "metadata": meta("PickleTensor", "pruned", "fp16")},
        {"name": "a.safetensors", "metadata": meta("SafeTensor", "full", "fp32")},
    )
    choice = choose.file(v)
    assert choice.file.name == "a.safetensors"
    assert "SafeTensor as preferred" in choice.reasons
    assert [(f.name, why) for f, why in choice.rejected] == [("a.ckpt", "a pickle (the hub's scan says Success)")]


def test_size_then_precision_as_preferred() -> None:
    v = version(
        {"name": "full32.safetensors", "metadata": meta("SafeTensor", "full", "fp32"), "primary": True},
        {"name": "full16.safetensors", "metadata": meta("SafeTensor", "full", "fp16")},
        {"name": "pruned32.safetensors", "metadata": meta("SafeTensor", "pruned", "fp32")},
    )
    assert choose.file(v).file.name == "pruned32.safetensors"
    assert choose.file(v, prefs(size="full")).file.name == "full16.safetensors"
    assert choose.file(v, prefs(size="full", fp="fp32")).file.name == "full32.safetensors"


def test_ornaments_are_never_the_model() -> None:
    v = version(
        {"name": "x.vae.safetensors", "type": "VAE", "metadata": meta("SafeTensor", "pruned", "fp16")},
        {"name": "x.yaml", "type": "Config"},
        {"name": "x.zip", "type": "Training Data"},
        {"name": "x.safetensors", "type": "Pruned Model"},
    )
    choice = choose.file(v)
    assert choice.file.name == "x.safetensors"
    assert len(choice.rejected) == 3


def test_a_vae_model_and_a_negative_embedding_are_their_own_weights() -> None:
    assert choose.file(version({"name": "v.safetensors", "type": "VAE"}), model_type="VAE").file.id == 1
    v = version({"name": "neg.pt", "type": "Negative"})
    with pytest.raises(UnsafeFile, match="a pickle"):
        choose.file(v, model_type="TextualInversion")
    assert choose.file(v, prefs(allow_pickle=True), model_type="TextualInversion").warnings == (
        "a pickle can run code when it is loaded; the hub's scan found nothing",
    )


def test_a_preference_nothing_fits_is_said() -> None:
    v = version(
        {"name": "a.safetensors", "metadata": meta("SafeTensor", "pruned", "fp16")},
        {"name": "b.safetensors", "metadata": meta("SafeTensor", "pruned", "fp32")},
    )
    assert "fp16, since none is bf16" in choose.file(v, prefs(fp="bf16")).reasons


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["a.safetensors", "b.ckpt", "c.gguf", "d.pt", "e.zip"]),
                "type": st.sampled_from(["Model", "Pruned Model", "VAE", "Training Data", "Config"]),
                "sizeKB": st.one_of(st.none(), st.floats(0, 1e7)),
                "primary": st.booleans(),
                "virusScanResult": st.sampled_from(["Success", "Danger", None]),
                "metadata": st.builds(
                    meta,
                    st.sampled_from([None, "SafeTensor", "PickleTensor"]),
                    st.sampled_from([None, "full", "pruned"]),
                ),
            }
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_any_version_gives_a_safe_file_or_a_refusal(files: list[dict], allow_pickle: bool) -> None:
    v = version(*files)
    try:
        choice = choose.file(v, prefs(allow_pickle=allow_pickle))
    except (NotFound, UnsafeFile):
        return
    assert choice.file.virus_scan_result != "Danger"
    assert allow_pickle or not choice.file.name.endswith((".ckpt", ".pt"))
    assert len(choice.rejected) == len(files) - 1
    assert choice.reasons


def test_harmful_files_are_refused_even_when_named() -> None:
    v = version(
        {"name": "a.ckpt", "pickleScanResult": "Danger"}, {"name": "b.safetensors", "virusScanResult": "Danger"}
    )
    with pytest.raises(UnsafeFile, match="virus scan"):
        choose.file(v, prefs(allow_pickle=True))
    with pytest.raises(UnsafeFile):
        choose.file(v, prefs(allow_pickle=True), file_id=1)


def test_a_pickle_needs_a_word() -> None:
    v = version({"name": "a.ckpt", "pickleScanResult": "Error"})
    with pytest.raises(UnsafeFile, match="scan says Error"):
        choose.file(v)
    assert choose.file(v, prefs(allow_pickle=True)).file.id == 1


def test_a_pickle_called_safetensor_is_still_a_pickle() -> None:
    v = version({"name": "a.pt", "metadata": meta("SafeTensor")}, {"name": "a.safetensors"})
    assert choose.file(v).file.name == "a.safetensors"
    assert any("suffix" in w for w in choose.file(v, prefs(allow_pickle=True), file_id=1).warnings)


def test_equal_names_are_told_apart() -> None:
    v = version(
        {"name": "m.safetensors", "metadata": meta(fp="fp16")}, {"name": "m.safetensors", "metadata": meta(fp="fp32")}
    )
    choice = choose.file(v)
    assert choice.file.id == 1
    assert any("this is file 1" in w for w in choice.warnings)


def test_nothing_there_and_no_such_file() -> None:
    with pytest.raises(NotFound):
        choose.file(version())
    with pytest.raises(NotFound, match="no file 9"):
        choose.file(version({"name": "a.safetensors"}), file_id=9)


def test_every_recorded_version_gets_a_file_or_a_named_refusal(shared: Path) -> None:
    chosen = 0
    for path in (shared / "fixtures/civitai-api/dfanr-civitaimodellist/models").glob("*.json"):
        model = Model.model_validate(json.loads(path.read_text(encoding="utf-8")))
        for each in model.model_versions:
            try:
                choice = choose.file(each, model_type=model.type)
            except (NotFound, UnsafeFile) as error:
                assert error.message
                continue
            chosen += 1
            safe_names = [
                f.name for f in each.files if f.name.endswith(".safetensors") and f.type in {"Model", "Pruned Model"}
            ]
            assert not safe_names or choice.file.name.endswith(".safetensors")
    assert chosen > 40
