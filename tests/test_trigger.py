"""Trigger words: sorted out, counted, ready to paste."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubctl import trigger
from registry import wire

HEADER = {"trained_words": ["thnos", "armor"], "tag_frequency": {"thnos": 384, "armor": 190}}


def texts(*args: object, **kwargs: object) -> list[str]:
    return [word.text for word in trigger.words(*args, **kwargs)]


def test_commas_newlines_tags_and_repeats_are_sorted_out() -> None:
    assert texts(["thnos, purple skin,", "Thnos\narmor", "<lora:x:0.8>", "(a, b:1.2)"]) == [
        "thnos", "purple skin", "armor", "(a, b:1.2)",
    ]  # fmt: skip


def test_a_whole_prompt_stays_one_phrase() -> None:
    prompt = "armor suit, 1girl, solo, <lora:suit:0.7>, night city, neon lights, standing, rain"
    assert len(texts([prompt])) == 1
    assert "<lora" not in texts([prompt])[0]


def test_words_of_one_entry_share_a_group() -> None:
    assert [w.group for w in trigger.words(["a, b", "c"])] == [0, 0, 1]


def test_chinese_commas_part_words_too() -> None:
    assert texts(["盔甲，头盔、剑"]) == ["盔甲", "头盔", "剑"]


def test_the_users_words_win_and_the_hubs_beat_the_header() -> None:
    assert texts(["hub"], header=HEADER, user=["mine"]) == ["mine"]
    assert texts(["hub"], header=HEADER, user=[]) == []
    assert texts(["hub"], header=HEADER) == ["hub"]


def test_header_words_carry_the_count_of_training_pictures() -> None:
    assert next((w.text, w.count, w.source) for w in trigger.words([], header=HEADER)) == ("thnos", 384, "header")
    assert trigger.words(["Thnos"], header=HEADER)[0].count == 384


def test_example_prompts_are_asked_last_and_need_agreement() -> None:
    prompts = [f"masterpiece, (thnos), scene {n}" for n in range(5)]
    assert texts([], prompts=prompts) == ["thnos"]
    assert texts([], prompts=prompts[:3]) == []


def test_the_line_to_paste() -> None:
    assert trigger.paste_line("thnos", 0.8, ["thnos", "armor"]) == "<lora:thnos:0.8> thnos, armor"
    assert trigger.paste_line("x", None, []) == "<lora:x:1>"


def test_what_creators_write_instead_of_a_word_is_no_word() -> None:
    assert texts(["None", "N/A", "no trigger words needed", "See version notes", "thnos"]) == ["thnos"]
    assert texts(["use the embedding name in the negative prompt"]) == []


def usage(kind: str, trained: list[str], *, weight: float | None = 0.8, **more: Any) -> trigger.Usage:
    return trigger.usage(kind, "file_v1", weight, trigger.words(trained), **more)


def test_what_to_paste_for_each_kind_of_file() -> None:
    assert usage("LORA", ["thnos, armor"]).prompt == "<lora:file_v1:0.8> thnos, armor"
    assert usage("LoCon", []).prompt == "<lora:file_v1:0.8>"
    assert usage("Hypernetwork", [], weight=None).prompt == "<hypernet:file_v1:1>"
    assert usage("TextualInversion", ["token"]).prompt == "file_v1"
    assert usage("Checkpoint", ["style a", "style b"]).prompt == "style a, style b"


def test_a_negative_embedding_belongs_in_the_negative_prompt() -> None:
    found = usage("TextualInversion", [], negative=True)
    assert (found.prompt, found.negative) == ("", "file_v1")


def test_several_outfits_are_a_choice_and_not_one_prompt() -> None:
    found = usage("LORA", ["anna", "red dress, pearls", "armor, sword"])
    assert found.prompt == "<lora:file_v1:0.8> anna, red dress, pearls"
    assert found.others == ("armor, sword",)


def test_many_styles_of_a_checkpoint_are_offered_to_choose_from() -> None:
    found = usage("Checkpoint", [f"style {n}" for n in range(9)])
    assert found.prompt == ""
    assert len(found.others) == 9


def model(**more: Any) -> wire.Model:
    return wire.Model.model_validate({"id": 1, "name": "Hands", "type": "TextualInversion", **more})


def version(**more: Any) -> wire.ModelVersion:
    return wire.ModelVersion.model_validate({"id": 2, "name": "v1", **more})


@pytest.mark.parametrize(
    ("of_model", "of_version"),
    [
        ({}, {"files": [{"id": 1, "name": "x.pt", "type": "Negative"}]}),
        ({}, {"files": [{"id": 1, "name": "bad-hands-5.pt"}]}),
        ({"name": "Deep Negative"}, {}),
        ({"tags": ["negative embedding"]}, {}),
        ({"description": "<p>Put it into the <b>negative prompt</b>.</p>"}, {}),
        ({"description": "<p>获得更好的手部，将emb放置在负面prompt中</p>"}, {}),
    ],
)
def test_negative_embeddings_are_known(of_model: dict[str, Any], of_version: dict[str, Any]) -> None:
    assert trigger.is_negative(model(**of_model), version(**of_version))


def test_other_files_are_not_negative() -> None:
    assert not trigger.is_negative(model(name="Badger", description="a nice badger"), version())
    assert not trigger.is_negative(model(name="Negative space", type="LORA"), version())
    assert trigger.is_negative(model(), version(), {"metadata": {"modelspec.is_negative_embedding": "true"}})


def test_the_file_a_prompt_names_is_the_model_and_not_its_training_data() -> None:
    files = [
        {"id": 1, "name": "data.zip", "type": "Training Data"},
        {"id": 2, "name": "thing.safetensors", "type": "Model"},
    ]
    assert trigger.file_stem(version(files=files)) == "thing"
    assert trigger.file_stem(version(files=[])) is None


def test_a_checkpoints_habits_are_no_trigger_words() -> None:
    images = [{"meta": {"prompt": f"hdr photo, scene {n}"}} for n in range(6)]
    assert trigger.of(version(images=images), model_type="Checkpoint") == ()
    assert [w.text for w in trigger.of(version(images=images), model_type="LORA")] == ["hdr photo"]


@given(st.lists(st.text(max_size=400), max_size=8))
def test_any_entries_give_bounded_single_lines(entries: list[str]) -> None:
    found = trigger.words(entries)
    assert len(found) <= trigger.MAX_WORDS
    assert all(w.text and "\n" not in w.text and len(w.text) <= trigger.MAX_LENGTH for w in found)
