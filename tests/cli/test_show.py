"""`show`, `recommend` and `images`: what a person reads before and after installing, against real hubs on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rude import RudeHub

from hubctl.text import width
from registry import Registry

ARMOR, TURBO, NEGATIVE = 59245, 215485, 82188


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Iterator[str]:
    """A hub that serves recorded model pages."""
    answers = {}
    for path in sorted((shared / "fixtures/civitai-api").rglob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        listed = data.get("items", [data]) if isinstance(data, dict) else []
        for model in [each for each in listed if isinstance(each, dict) and "modelVersions" in each]:
            answers.setdefault(f"/api/v1/models/{model['id']}", _answer(model))
            for version in model["modelVersions"]:
                whole = {**version, "modelId": model["id"], "model": {"name": model["name"], "type": model["type"]}}
                answers.setdefault(f"/api/v1/model-versions/{version['id']}", _answer(whole))
    answers["/api/v1/images"] = _answer({"items": [], "metadata": {}})
    with RudeHub(b"", answers=answers) as rude:
        yield rude.url


def _answer(body: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


@pytest.fixture
def on_recorded(hubctl: Any, recorded: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HUBCTL_HUB", recorded)
    return hubctl


def test_the_page_says_first_what_to_paste(on_recorded: Any) -> None:
    shown = on_recorded("show", ARMOR).out
    lines = shown.splitlines()
    assert lines[0] == "Armor Suit(盔甲套装) LoRa · v1.0"
    assert lines[1].startswith("LORA for SD 1.5 · by ")
    assert "<lora:ArmorSuit_v1:0.75> armorsuit" in shown
    assert "Steps: 37, Sampler: DPM++ 2M Karras, CFG scale: 7, Size: 512x768, Clip skip: 2" in shown
    order = [lines.index(title) for title in ("To paste", "Recommended settings", "Files", "Rights", "About")]
    assert order == sorted(order)


def test_each_setting_has_value_range_confidence_and_source_in_one_line(on_recorded: Any) -> None:
    shown = on_recorded("show", ARMOR).out
    weight = next(line for line in shown.splitlines() if line.strip().startswith("weight"))
    assert weight.split() == ["weight", "0.75", "0.7", "–", "1", "96%", "creator", "and", "3", "images"]


def test_a_negative_embedding_is_said_to_belong_in_the_negative_prompt(on_recorded: Any) -> None:
    shown = on_recorded("show", NEGATIVE).out
    line = next(line for line in shown.splitlines() if "Negative_Model-EX" in line)
    assert line.split() == ["negative", "prompt", "Negative_Model-EX"]


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_prose_and_tables_fit_the_terminal(on_recorded: Any, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = on_recorded("show", TURBO).out
    kept_whole = ("prompt", "negative prompt", "settings", "with embeddings")  # pasted: one line each
    for line in shown.splitlines():
        if not line.strip().startswith(kept_whole) and "http" not in line:
            assert width(line) <= columns, line
        assert line == line.rstrip()


def test_verbose_shows_the_proof_the_whole_text_and_whole_hashes(on_recorded: Any) -> None:
    brief, full = on_recorded("show", TURBO), on_recorded("show", TURBO, "-v")
    assert "more lines with -v" in brief.err
    assert "Twitter: https://twitter.com/ShiroppoTwit" in full.out
    assert "“5-Sampling steps: 4”" in full.out
    assert "a599c42a9f" in brief.out
    assert len(next(word for word in full.out.split() if word.startswith("a599c42a9f"))) == 64


def test_json_holds_everything(on_recorded: Any) -> None:
    shown = on_recorded("show", ARMOR, "--json").json
    assert shown["schema"] == "hubctl.show/1"
    assert set(shown) == {
        "schema", "model", "version", "usage", "trigger_words", "trigger_word_details", "recommended", "rights",
        "description", "about_version", "examples", "installed", "files_here", "installed_versions", "update", "notes",
        "pinned",
    }  # fmt: skip
    assert shown["trigger_words"] == ["armorsuit"]
    assert shown["usage"]["prompt"] == "<lora:ArmorSuit_v1:0.75> armorsuit"
    assert shown["recommended"]["weight"]["source"] == "creator+images"
    assert shown["description"].splitlines()[0] == "这是一个盔甲套装的Lora"
    assert shown["examples"] == {"images": 3, "with_parameters": 3}
    assert shown["installed"] is False


def test_quiet_gives_what_the_next_command_takes(on_recorded: Any) -> None:
    assert on_recorded("show", ARMOR, "-q").out == "59245@63688\n"
    assert on_recorded("recommend", ARMOR, "-q").out == "<lora:ArmorSuit_v1:0.75> armorsuit\n"


def test_recommend_proves_each_value(on_recorded: Any) -> None:
    shown = on_recorded("recommend", ARMOR).out
    assert "“推荐权重:0.7~1”" in shown
    assert "3 of 3 example images" in shown
    why = [line.split() for line in shown.partition("Why")[2].splitlines()]
    assert sum(line[:3] == ["the", "rest", "3"] for line in why) == 1  # what all images agree on is told once
    data = on_recorded("recommend", ARMOR, "--json").json
    assert data["schema"] == "hubctl.recommend/1"
    assert (data["model_id"], data["version_id"]) == (ARMOR, 63688)
    assert data["settings"]["weight"]["value"] == 0.75


def test_images_fit_and_name_what_can_be_replayed(on_recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = on_recorded("images", ARMOR)
    assert all(width(line) <= 80 for line in shown.out.splitlines())
    assert "DPM++ 2M Karras" in shown.out
    assert "hubctl reproduce" in shown.err
    full = on_recorded("images", ARMOR, "-v").out
    assert "negative prompt" in full
    rows = on_recorded("images", ARMOR, "--json").json["items"]
    assert all({"id", "parameters", "reactions", "resources", "resources_here"} <= set(row) for row in rows)


@pytest.mark.parametrize("ref", [3846, 9557, 78826, 29408, 7371, 4398, 94176])
def test_pages_of_every_kind_are_shown(on_recorded: Any, ref: int) -> None:
    shown = on_recorded("show", ref, "-v")
    assert str(ref) in shown.out
    assert "None" not in shown.out.split("About")[0].replace("None (it", "")
    assert on_recorded("show", ref, "--json").json["model"]["id"] == ref


def test_what_is_installed_is_shown_without_a_hub(on_demo: Any) -> None:
    found = on_demo("search", "--json").json["items"]
    ref = next(item["id"] for item in found if str(item.get("type", "")).upper() == "LORA")
    before = on_demo("show", ref)
    assert "install it" in before.err
    on_demo("install", ref)
    after = on_demo("show", ref, "--local")
    assert "here: " in after.out
    assert "install it" not in after.err
    offline = on_demo("show", ref, "--offline", "--json").json
    assert offline["installed"] is True
    assert Path(offline["files_here"][0]).is_file()
    assert offline["recommended"]
    assert on_demo("recommend", ref, "--offline", "--json").json["settings"] == offline["recommended"]


def test_the_users_weight_and_words_are_what_is_pasted(on_demo: Any, home: Path) -> None:
    found = on_demo("search", "--json").json["items"]
    ref = next(item["id"] for item in found if str(item.get("type", "")).upper() == "LORA")
    on_demo("install", ref)
    with Registry.open(home) as registry:
        item = registry.find(str(ref))[0]
        said = {"notes": "softer in the evening", "weight": 0.35, "words": ["mine", "yours"]}
        registry.note(item.version.id, source=item.source, **said)
    shown = on_demo("show", ref, "--local").out
    assert ":0.35> mine, yours" in shown
    assert "your note: softer in the evening" in shown
    assert on_demo("recommend", ref, "--json").json["settings"]["weight"]["source"] == "user"


def test_not_here_and_no_hub_is_a_refusal(hubctl: Any) -> None:
    refused = hubctl("show", "4711", "--offline", status=10)
    assert "not installed" in refused.err
