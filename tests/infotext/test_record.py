"""hubctl's own records: read back, and refused when a stranger changed what they hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubctl import infotext
from hubctl.errors import NoParameters
from hubctl.infotext import a1111, comfy
from hubctl.parameters import GenerationParameters, Hires, ResourceRef

P = GenerationParameters(
    prompt="a cat", steps=20, cfg_scale=7, seed=3, hires=Hires(upscale=2.0), resources=(ResourceRef("lora", "x", 0.5),),
    warnings=("one",),
).to_json()  # fmt: skip


def record(**changed: Any) -> str:
    return json.dumps({"schema": "hubctl.run/1", "parameters": {**P, **changed}})


def test_a_sound_record_is_read() -> None:
    assert infotext.parse(record()).to_json() == P


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": 3}, {"steps": "20"}, {"cfg_scale": "7"}, {"seed": [1]}, {"steps": True}, {"hires": {"upscale": "y"}},
        {"hires": 3}, {"raw": [1]}, {"sources": 3}, {"resources": [{"kind": 3}]}, {"resources": [{"name": "x"}]},
        {"resources": [{"kind": "lora", "weight": "x"}]}, {"warnings": [3]}, {"generator": {"name": 3}},
        {"refiner": {"checkpoint": 3}}, {"refiner": {"switch_at": "late"}},
    ],
)  # fmt: skip
def test_a_record_of_other_types_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(NoParameters):
        infotext.parse(record(**changed))


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "kind", "upscale"]), inner),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(P)), junk, max_size=3))
def test_what_is_read_can_be_written(changed: dict[str, Any]) -> None:
    try:
        parameters = infotext.parse(record(**changed))
    except NoParameters:
        return
    json.dumps(parameters.to_json())
    a1111.write(parameters)
    comfy.write(parameters)
