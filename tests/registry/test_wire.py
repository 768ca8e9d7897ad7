"""The hub's JSON goes through the wire models and comes back unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry import wire

ODD = {
    "id": 7,
    "name": None,
    "type": 3,
    "nsfw": "Soft",
    "tags": [{"name": "a"}, "b", 4],
    "allowCommercialUse": "{Image,RentCivit}",
    "modelVersions": [
        {"id": 8, "trainedWords": ["x", 5], "files": "none yet", "images": [{"url": "https://h/9.jpeg", "meta": []}]}
    ],
    "somethingNew": {"deep": [1.0, None]},
}


def models_of(answer: Any) -> list[tuple[type[wire.Wire], dict[str, Any]]]:
    if isinstance(answer, dict) and "modelVersions" in answer:
        return [(wire.Model, answer)]
    if isinstance(answer, dict) and "items" in answer:
        return [(wire.Model, item) for item in answer["items"] if "modelVersions" in item]
    if isinstance(answer, dict) and "files" in answer and "modelId" in answer:
        return [(wire.ModelVersion, answer)]
    return []


def test_recorded_answers_come_back_unchanged(shared: Path) -> None:
    seen = 0
    for path in sorted((shared / "fixtures" / "civitai-api").rglob("*.json")):
        for kind, answer in models_of(json.loads(path.read_text())):
            assert kind.model_validate(answer).dump() == answer, path
            seen += 1
    assert seen > 60


def test_values_of_unexpected_types_are_carried_not_fatal() -> None:
    model = wire.Model.model_validate(ODD)
    assert model.type is None
    assert model.tag_names == ["a", "b"]
    assert model.model_versions[0].files == []
    assert model.model_versions[0].trained_words == ["x"]
    assert model.dump() == ODD


@pytest.mark.parametrize("given", ["{Image,Rent}", ["Image", "Rent"], '{"Image","Rent"}'])
def test_commercial_use_has_three_spellings(given: Any) -> None:
    assert wire.commercial_uses(given) == {"Image", "Rent"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [("https://h/x/width=450/123.jpeg", 123), ("https://h/x/original=true/ab-cd.jpeg", None), ("", None)],
)
def test_an_image_without_id_has_it_in_its_url(url: str, expected: int | None) -> None:
    assert wire.Image(url=url).image_id == expected


def test_a_page_carries_numeric_and_text_cursors() -> None:
    page = wire.Page[wire.Image].model_validate({"items": [], "metadata": {"nextCursor": 12}})
    assert page.metadata.next_cursor == 12
