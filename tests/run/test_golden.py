"""Golden-set equality: infotext in, the WebUI's own latents and pixels out. All cases are slow; a dozen run always."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import golden
import pytest

from hubctl import infotext
from hubctl.run import plan as run_plan
from hubctl.run.runner import ModelCache

QUICK = (
    "s00-euler_a-automatic-10", "s03-dpmpp_sde-karras-8", "s17-ddim-automatic-12", "s21-lcm-sgm_uniform-6",
    "s44-lms-automatic-15", "f05-emphasis-original", "f08-and", "f14-alternate-sde", "f24-unicode", "l-two",
    "t3-both-clip2", "r07-subseed", "h3-latent-nearestexact", "i9-inpaint", "o9-refiner", "x13-hires-latent",
)  # fmt: skip


def _cases() -> list[golden.Case]:
    roots = golden.fallbacks()
    return list(golden.cases(roots[0])) if roots else []


CASES = _cases()
RUNS = [
    pytest.param(
        case,
        flavour,
        id=f"{case.name}-{flavour}",
        marks=()
        if case.name in QUICK and flavour == ("a1111" if case.name.startswith("s4") else "forge")
        else pytest.mark.slow,
    )
    for case in CASES
    for flavour in case.flavours
]
SMALL = [pytest.param(case, id=case.name) for case in CASES if Path(str(case.data["model"])).stem != golden.BIG]


@pytest.fixture(scope="module")
def files(shared: Path) -> golden.Files:
    recipes = golden.recipes_of(shared / "golden" / "webui")
    if recipes is None:
        pytest.skip("the golden set is not here")
    return golden.Files(recipes)


@pytest.fixture(scope="module")
def cache() -> ModelCache:
    return ModelCache()


@pytest.mark.parametrize(("case", "flavour"), RUNS)
@pytest.mark.timeout(1200)
def test_a_case_comes_out_as_the_webui_made_it(
    case: golden.Case, flavour: str, files: golden.Files, cache: ModelCache, tmp_path: Path
) -> None:
    report = golden.check(case, flavour, files, tmp_path, cache)
    assert report.problems == []


@pytest.mark.skipif(not CASES, reason="the golden set is not here")
def test_the_two_flavours_are_told_apart(files: golden.Files, cache: ModelCache, tmp_path: Path) -> None:
    """Equal to one program is not equal to the other: the tolerance is finer than their difference."""
    import numpy as np

    case = next(case for case in CASES if case.name == "s42-euler_a-automatic-12")
    apart = np.abs(case.arrays["latents_forge"] - case.arrays["latents_a1111"]).max()
    report = golden.check(case, "forge", files, tmp_path, cache)
    assert report.latents is not None
    assert report.latents < apart / 10


# --- what is written into the picture ---------------------------------------------------------------------------------


@pytest.fixture
def planned(case: golden.Case, files: golden.Files, tmp_path: Path) -> golden.Planned:
    return golden.plan_of(case, "forge", files, tmp_path)


@pytest.mark.parametrize("case", SMALL)
def test_infotext_and_case_agree(planned: golden.Planned, case: golden.Case) -> None:
    assert planned.differs == []


@pytest.mark.parametrize("case", SMALL)
def test_what_is_written_equals_the_webuis_infotext(planned: golden.Planned, case: golden.Case) -> None:
    """Every key both know, whether the settings are carried along or written anew from fields."""
    expected = infotext.parse(case.blocks[0]).raw
    made = run_plan.describe(planned.plan)
    carried = infotext.parse(infotext.a1111.write(made)).raw
    assert {key: carried.get(key) for key in expected} == dict(expected)
    anew = infotext.parse(infotext.a1111.write(replace(made, raw=_unnamed(made.raw), sources=MappingProxyType({}))))
    for key in expected.keys() & anew.raw.keys() - {"Version", "Model hash"}:
        assert _value(anew.raw[key]) == _value(expected[key]), key
    assert anew.generator == infotext.parse(case.blocks[0]).generator
    for name in ("prompt", "negative_prompt"):
        assert getattr(anew, name).strip() == str(case.params.get(name, "")).strip()
    again = run_plan.build(anew, locate=golden.locate_in(golden.Files(golden.recipes_of(case.folder.parent) or Path())))
    for name in SAME:
        assert getattr(again, name) == getattr(planned.plan, name), name


SAME = (
    "sampler", "schedule", "steps", "seed", "cfg_scale", "width", "height", "clip_skip", "rng", "eta", "ensd", "hires",
    "flavour", "loras",
)  # fmt: skip


def _unnamed(raw: Any) -> Any:
    """Settings without a field of their own; the rest must come from fields."""
    return {key: value for key, value in raw.items() if key in infotext.a1111._KEPT_KEYS}


def _value(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


@pytest.mark.parametrize("case", SMALL[:3])
def test_a_plan_survives_its_json(planned: golden.Planned) -> None:
    data = json.loads(json.dumps(planned.plan.to_json()))
    again = run_plan.RunPlan.from_json(data)
    assert again.digest() == planned.plan.digest()
    assert replace(again, parameters={}) == replace(planned.plan, parameters={})
