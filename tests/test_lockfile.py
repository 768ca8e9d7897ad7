"""hubctl.toml and hubctl.lock: what people write stays as they wrote it, what hubctl writes is the same everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubctl import export, lockfile
from hubctl.errors import NotFound, UsageError
from hubctl.lockfile import Locked, Need


def entry(number: int = 1, **more: object) -> Locked:
    made = Locked(
        name=f"model-{number}",
        ref=f"{number}",
        source="civitai",
        model_id=number,
        version_id=number * 10,
        file_id=number * 100,
        file=f"m{number}.safetensors",
        sha256=f"{number:064x}",
        size=1000 * number,
        model=f"Model {number}",
        version="v1",
        type="LORA",
        base_model="SD 1.5",
        creator="maker",
        air=f"urn:air:sd1:lora:civitai:{number}@{number * 10}",
        licence={"allowNoCredit": False, "allowCommercialUse": "{Image}"},
    )
    return replace(made, **more)


names = st.text(min_size=1, max_size=60)


@given(st.lists(st.tuples(names, names, names), max_size=5))
def test_a_lock_is_read_back_as_it_was_written(strange: list[tuple[str, str, str]]) -> None:
    entries = [entry(n + 1, model=a, version=b, file=c) for n, (a, b, c) in enumerate(strange)]
    text = lockfile.dump_lock(entries)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hubctl.lock"
        lockfile.write_lock(path, entries)
        assert path.read_text("utf-8") == text
        assert lockfile.read_lock(path) == tuple(entries)


def test_the_order_of_needs_does_not_change_a_byte() -> None:
    entries = [entry(3), entry(1), entry(2)]
    assert lockfile.dump_lock(entries) == lockfile.dump_lock(sorted(entries, key=lambda e: e.name))


def test_adding_a_need_keeps_comments_and_order(tmp_path: Path) -> None:
    path = tmp_path / "hubctl.toml"
    path.write_text('# ours\n[models]\n# the hero\nthanos = "4201"  # keep\n\n[ui]\ncomfyui = "ComfyUI"\n')
    lockfile.add_need(tmp_path, Need("toon", "4100@41001", fp="fp16"))
    text = path.read_text()
    assert text.startswith('# ours\n[models]\n# the hero\nthanos = "4201"  # keep\n')
    assert lockfile.load(tmp_path).needs == (Need("thanos", "4201"), Need("toon", "4100@41001", fp="fp16"))
    assert lockfile.load(tmp_path).uis == {"comfyui": "ComfyUI"}


def test_a_changed_line_makes_its_entry_stale(tmp_path: Path) -> None:
    lockfile.add_need(tmp_path, Need("model-1", "1"))
    lockfile.write_lock(tmp_path / "hubctl.lock", [entry(1), entry(2)])
    assert lockfile.load(tmp_path).outdated() == ["model-2"]
    lockfile.add_need(tmp_path, Need("model-1", "1", fp="fp32"))
    assert lockfile.load(tmp_path).outdated() == ["model-1", "model-2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models]\nx = 3\n", "has no ref"),
        ("[models]\nx = { ref = '1', colour = 'red' }\n", "unknown key `colour`"),
        ("models = 'all'\n", "must be tables"),
        ("[models\n", "not valid TOML"),
        ("[ui]\ncomfyui = 3\n", "is no folder"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "hubctl.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        lockfile.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "format = 2\n",
        "format = 1\n[[model]]\nname = 'x'\n",
        lockfile.dump_lock([entry(1, sha256="../../etc/passwd")]),
    ],
)
def test_a_damaged_or_newer_lock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "hubctl.lock").write_text(text)
    with pytest.raises(UsageError):
        lockfile.read_lock(tmp_path / "hubctl.lock")


def test_without_a_project_the_way_to_start_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        lockfile.load(tmp_path)
    assert "hubctl add" in (caught.value.hint or "")


def test_credits_name_makers_and_rights_and_escape_strangers_names() -> None:
    text = export.credits_markdown([entry(1, model="<b>*x*</b>\n# y")])
    assert "\\<b\\>\\*x\\*\\</b\\> # y" in text
    assert "by maker" in text
    assert "commercial use: Image; credit: required" in text
    assert "https://civitai.com/models/1?modelVersionId=10" in text
