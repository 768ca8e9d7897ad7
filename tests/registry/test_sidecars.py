"""Sidecars of five tools: read with suspicion, written field by field, hand edits kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import sidecars

SHA = "ab" * 32
VERSION = {
    "id": 11,
    "modelId": 1,
    "name": "v1",
    "baseModel": "SD 1.5",
    "trainedWords": ["thnos, red"],
    "description": "<p>first</p>",
    "model": {"name": "Thanos", "type": "LORA", "nsfw": False, "poi": False},
    "files": [{"id": 5, "name": "thanos.safetensors", "primary": True, "hashes": {"SHA256": SHA.upper()}}],
    "images": [{"url": "https://x/1.jpeg"}],
}


def card(tmp_path: Path, **more: Any) -> sidecars.Card:
    model = {"id": 1, "name": "Thanos", "type": "LORA", "nsfw": False, "tags": ["hero"], "description": "<p>a &amp; b"}
    version = {key: value for key, value in VERSION.items() if key not in {"model", "modelId"}}
    values: dict[str, Any] = {
        "path": tmp_path / "thanos.safetensors", "kind": "lora", "sha256": SHA, "size": 100, "mtime": 1.5e9,
        "source": "civitai", "model": model, "version": version, "words": ("thnos", "red"), "weight": 0.8,
        "file": VERSION["files"][0],  # type: ignore[index]
    }  # fmt: skip
    return sidecars.Card(**{**values, **more})


def put(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize("tool", sidecars.ENDINGS)
def test_what_we_write_we_read(tool: str, tmp_path: Path) -> None:
    (tmp_path / "thanos.safetensors").write_bytes(b"x")
    put(tmp_path / f"thanos{sidecars.ENDINGS[tool]}", sidecars.content(tool, card(tmp_path)))
    said = sidecars.read(tmp_path / "thanos.safetensors")
    assert said.files == (f"thanos{sidecars.ENDINGS[tool]}",)
    if tool != "swarm":
        assert (said.model_id, said.version_id, said.sha256) == (1, 11, SHA)
    if tool in {"civitai", "lora-manager"}:
        assert said.version is not None
        assert said.version["files"][0]["id"] == 5
        assert said.name == "Thanos"
    if tool == "a1111":
        assert (said.words, said.weight, said.base_model) == ("thnos, red", 0.8, "SD 1.5")
        assert said.description == "a & b"


def test_the_persons_editor_comes_before_what_tools_copied(tmp_path: Path) -> None:
    model = tmp_path / "t.safetensors"
    model.write_bytes(b"x")
    put(tmp_path / "t.civitai.info", VERSION)
    put(tmp_path / "t.json", {"activation text": "mine", "preferred weight": 0.65, "notes": "for portraits"})
    put(tmp_path / "t.metadata.json", {"notes": "other", "usage_tips": '{"strength": 0.9}', "size": 7, "sha256": SHA})
    (tmp_path / "t.preview.png").write_bytes(b"\x89PNG")
    said = sidecars.read(model)
    assert (said.words, said.weight, said.notes) == ("mine", 0.65, "for portraits")
    assert (said.model_id, said.version_id, said.size, said.sha256) == (1, 11, 7, SHA)
    assert said.preview == "t.preview.png"
    assert sidecars.own_words(said, VERSION["trainedWords"]) == ["mine"]  # type: ignore[arg-type]


def test_words_copied_from_the_hub_are_nobodys_own() -> None:
    said = sidecars.Said(words="red, <lora:thanos:1> thnos")
    assert sidecars.own_words(said, ["thnos, red"]) is None
    assert sidecars.own_words(sidecars.Said(), ["thnos"]) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 100_000, '{"id": "' + "9" * 5000 + '"}', '{"files": {"a": 1}, "id": 1e400}',
     '{"id": true, "modelId": -4, "trainedWords": {"a": 1}, "model": [], "files": [3, null]}', "\x00\xff",
     '{"usage_tips": "[[[", "sha256": 5, "Hashes": [], "civitai": "x", "preferred weight": "NaN"}'],
)  # fmt: skip
def test_a_broken_sidecar_says_nothing(tmp_path: Path, text: str) -> None:
    model = tmp_path / "t.safetensors"
    model.write_bytes(b"x")
    for ending in sidecars.ENDINGS.values():
        (tmp_path / f"t{ending}").write_bytes(text.encode("latin-1"))
    said = sidecars.read(model)
    assert (said.version_id, said.sha256, said.weight, said.version) == (None, None, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
OBJECT = st.dictionaries(st.text(max_size=4), JSON, max_size=5)


@given(st.dictionaries(st.sampled_from(["id", "modelId", "files", "model", "notes", "civitai", "size", "tags"]), JSON))
def test_reading_anything_never_fails(data: dict[str, Any]) -> None:
    for reader in sidecars._READERS.values():
        reader(data)


# --- merging ----------------------------------------------------------------------------------------------------------


def test_hand_edits_and_unknown_keys_stay_through_every_update() -> None:
    first = sidecars.merge(None, {"notes": "ours", "activation text": "a", "preferred weight": 0.8}, None)
    assert first.changed
    theirs = {**first.data, "notes": "my own", "their tool": {"x": [1]}}
    second = sidecars.merge(theirs, {"notes": "newer", "activation text": "b", "preferred weight": 0.8}, first.written)
    assert second.data == {"notes": "my own", "activation text": "b", "preferred weight": 0.8, "their tool": {"x": [1]}}
    assert second.kept == ("notes",)
    third = sidecars.merge(second.data, {"notes": "newest", "activation text": "b"}, second.written)
    assert third.data == {"notes": "my own", "activation text": "b", "their tool": {"x": [1]}}  # no weight any more
    assert sidecars.theirs(third.data, third.written) == {"notes": "my own", "their tool": {"x": [1]}}


def test_what_another_tool_wrote_stays_and_its_empty_fields_are_filled() -> None:
    theirs = {"activation text": "", "preferred weight": 0, "notes": "hand-made", "sd version": "Unknown"}
    ours = {"activation text": "thnos", "preferred weight": 0.8, "notes": "ours", "sd version": "SD1"}
    merged = sidecars.merge(theirs, ours, None)
    assert merged.data == {**ours, "notes": "hand-made"}
    again = sidecars.merge(merged.data, {**ours, "activation text": "thanos"}, merged.written)
    assert again.data["activation text"] == "thanos"
    assert sidecars.theirs(again.data, again.written) == theirs  # empty as it was
    assert sidecars.merge({"nsfw": False}, {"nsfw": True}, None).data == {"nsfw": False}  # said, not empty


def test_a_field_a_person_cleared_or_took_out_stays_so() -> None:
    first = sidecars.merge(None, {"notes": "ours", "words": "a"}, None)
    cleared = sidecars.merge({"notes": "", "words": "a"}, {"notes": "ours", "words": "a"}, first.written)
    assert cleared.data["notes"] == ""
    gone = sidecars.merge({"words": "a"}, {"notes": "ours", "words": "a"}, first.written)
    assert "notes" not in gone.data


def test_objects_are_merged_inside() -> None:
    first = sidecars.merge({"civitai": {"theirs": 1}}, {"civitai": {"id": 5, "name": "a"}}, None)
    assert first.data == {"civitai": {"theirs": 1, "id": 5, "name": "a"}}
    second = sidecars.merge(
        {"civitai": {"theirs": 1, "id": 5, "name": "mine"}}, {"civitai": {"id": 6, "name": "b"}}, first.written
    )
    assert second.data == {"civitai": {"theirs": 1, "id": 6, "name": "mine"}}


@given(OBJECT, OBJECT, OBJECT)
def test_merging_keeps_every_key_and_settles(
    theirs: dict[str, Any], ours: dict[str, Any], newer: dict[str, Any]
) -> None:
    first = sidecars.merge(json.loads(json.dumps(theirs)), ours, None)
    assert theirs.keys() <= first.data.keys()
    again = sidecars.merge(json.loads(json.dumps(first.data)), ours, first.written)
    assert not again.changed
    assert again.data == first.data
    for key in theirs.keys() - ours.keys():
        assert first.data[key] == theirs[key]
    if "/" in json.dumps([theirs, ours]):
        return  # what we remember joins names of fields by it; no tool has one in a name
    left = sidecars.theirs(first.data, first.written)
    assert all(left[key] == value for key, value in theirs.items() if not isinstance(value, dict | None))
    assert sidecars.theirs(sidecars.merge(None, ours, None).data, sidecars.merge(None, ours, None).written) == {}
    edited = dict.fromkeys(first.data, "edited by hand")
    kept = sidecars.merge(dict(edited), newer, first.written)
    assert all(kept.data[key] == "edited by hand" for key in edited)


def test_only_what_we_wrote_and_nobody_changed_is_ours() -> None:
    merged = sidecars.merge(None, {"a": 1, "b": {"c": [2], "d": 3}}, None)
    assert sidecars.theirs(merged.data, merged.written) == {}
    assert sidecars.theirs({**merged.data, "notes": "mine"}, merged.written) == {"notes": "mine"}
    assert sidecars.theirs({"a": 2, "b": {"c": [2], "d": 4}}, merged.written) == {"a": 2, "b": {"d": 4}}
    assert sidecars.theirs(merged.data, None) == merged.data


def test_what_another_tool_wrote_is_its_own_though_we_say_the_same() -> None:
    theirs = {"id": 5, "name": "v1", "notes": ""}
    merged = sidecars.merge(theirs, {"id": 5, "name": "v1", "notes": "ours"}, None)
    assert sidecars.theirs(merged.data, merged.written) == theirs
    assert sidecars.merge(theirs, {"id": 5}, None).written == "{}"


def test_what_was_about_to_be_written_is_ours_whether_it_was_or_not() -> None:
    first = sidecars.merge(None, {"a": 1, "gone": 2}, None)
    second = sidecars.merge(first.data, {"a": 3, "new": [4]}, first.written)
    meanwhile = sidecars.either(first.written, second.written)
    for data in (first.data, second.data):
        assert sidecars.theirs(data, meanwhile) == {}
        assert sidecars.theirs({**data, "a": 9}, meanwhile) == {"a": 9}


def test_our_own_words_are_not_read_back_as_a_persons(tmp_path: Path) -> None:
    model = tmp_path / "t.safetensors"
    model.write_bytes(b"x")
    merged = sidecars.merge(None, {"activation text": "hub words", "notes": "hub note"}, None)
    path = put(tmp_path / "t.json", {**merged.data, "notes": "I changed this"})
    said = sidecars.read(model, ours={str(path): merged.written})
    assert said.words is None
    assert said.notes == "I changed this"


@pytest.mark.parametrize("text", ['{"a": 1, "notes": ""}', '{\n  "a": 1,\n  "b": "é"\n}\n', '{\n    "b": "\\u00e9"\n}'])
def test_a_sidecar_keeps_the_form_it_has(text: str) -> None:
    assert sidecars.dump(json.loads(text), text.encode()).decode() == text


def test_html_becomes_text() -> None:
    assert sidecars.plain("<p>One <b>two</b></p><ul><li>x</li></ul>&lt;3") == "One two\nx\n<3"
    assert sidecars.plain(None) == ""
