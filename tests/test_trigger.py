"""Trigger words: sorted out, counted, ready to paste."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubctl import trigger

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


@given(st.lists(st.text(max_size=400), max_size=8))
def test_any_entries_give_bounded_single_lines(entries: list[str]) -> None:
    found = trigger.words(entries)
    assert len(found) <= trigger.MAX_WORDS
    assert all(w.text and "\n" not in w.text and len(w.text) <= trigger.MAX_LENGTH for w in found)
