"""Recommended settings: what a text says, what images agree on, and how the two are joined."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubctl import advice, recommend
from hubctl.advice import Said, Subject, read
from hubctl.parameters import GenerationParameters, Hires, ResourceRef
from registry import wire

ROOT = Path(__file__).resolve().parents[1]


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_recommend", ROOT / "bench/recommend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCH = load_bench()


def said(text: str, **about: Any) -> dict[str, Said]:
    """The clearest statement of each setting in a text."""
    subject = Subject(**{"names": ("mylora",), "version": "v2.0", "base_model": "SD 1.5", **about})
    out: dict[str, Said] = {}
    for each in read(text, subject):
        if each.name not in out or each.confidence > out[each.name].confidence:
            out[each.name] = each
    return out


# --- text -------------------------------------------------------------------------------------------------------------


TABLE = BENCH.table()


@pytest.mark.parametrize(
    "row",
    [row for row in TABLE if row["set"] not in {"fresh", "audit", "audit-2"}],
    ids=lambda row: f"{row['lang']}-{row['text'][:40]}",
)
def test_a_sentence_is_read_as_a_person_reads_it(row: dict[str, Any]) -> None:
    _, wrong, missed = BENCH.judge(row)
    assert (wrong, missed) == (set(), set()), dict(BENCH.read_row(row))


@pytest.mark.parametrize(("group", "share"), [("fresh", 0.9), ("audit", 0.97), ("audit-2", 0.97)])
def test_sentences_nobody_tuned_for_are_mostly_read_right(group: str, share: float) -> None:
    right, wrong, missed = (
        sum(len(BENCH.judge(row)[i]) for row in TABLE if row["set"] == group) for i in range(3)
    )  # fmt: skip
    assert right / (right + wrong) > share
    assert right / (right + missed) > share


def test_the_size_of_training_pictures_is_not_the_size_to_make() -> None:
    sheet = "<p>Source: scans<br>Resolution: 1024x1024<br>Image Count: 377</p>"
    assert "size" not in said(sheet)
    assert said("<p>Resolution: 512x768<br>Sampler: Euler a<br>Trained with care</p>")["size"].value == [512, 768]
    assert said("<p>Trained on 40 images</p><p>Recommended resolution: 512x768</p>")["size"].value == [512, 768]


def test_a_limit_below_which_it_looks_bad_is_a_floor() -> None:
    found = said("Less than 20 steps looks unfinished.")["steps"]
    assert (found.value, found.low, found.high) == (None, 20, None)
    found = said("You can go as low as 0.4.")["weight"]
    assert (found.value, found.low, found.high) == (None, 0.4, None)


def test_of_sizes_with_equal_votes_the_usual_one_is_chosen() -> None:
    def pictures(*shapes: tuple[int, int]) -> list[Any]:
        return [image(width=wide, height=high) for wide, high in shapes]

    assert settle(pictures((760, 760), (512, 512))).settings["size"].value == [512, 512]
    assert settle(pictures((760, 760), (760, 760), (512, 512))).settings["size"].value == [760, 760]


def test_the_weight_of_a_guide_is_nobody_elses() -> None:
    assert "weight" not in said("ControlNet openpose weight 0.6 helps with hands.")
    assert said("Weight 0.7, with ControlNet too.")["weight"].value == 0.7


def test_a_range_has_bounds_and_a_limit_has_no_value() -> None:
    found = said("Strength 0.7-0.9, never above 1.2")["weight"]
    assert (found.value, found.low, found.high) == (0.8, 0.7, 0.9)
    limit = said("Do not exceed a strength of 1")["weight"]
    assert (limit.value, limit.low, limit.high) == (None, None, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "Combine it with <lora:add_detail:0.5>",
        'Looks great with <a href="https://civitai.com/models/999">Glow</a> at weight 0.3',
        "In v1 the best weight was 0.4",
        "Previous versions: strength 0.4",
        "Trained for 2000 steps, batch size 2, weight decay 0.1",
        "ControlNet weight 0.6",
        "The text encoder weight was 0.5 in training",
    ],
)
def test_numbers_of_others_are_left_to_them(text: str) -> None:
    assert "weight" not in said(text, model_id=1)


def test_settings_of_another_base_or_variant_are_not_ours() -> None:
    page = "<h3>SDXL</h3><p>Weight: 0.9</p><h3>SD 1.5</h3><p>Weight: 0.6</p>"
    assert said(page)["weight"].value == 0.6
    assert said(page, base_model="SDXL 1.0")["weight"].value == 0.9
    assert said("LCM version: 6 steps, CFG 1.5", kind="checkpoint") == {}
    assert said("LCM version: 6 steps, CFG 1.5", kind="checkpoint", version="LCM")["steps"].value == 6


def test_a_checkpoint_has_no_weight() -> None:
    assert "weight" not in said("Use LoRAs at a weight of 0.6", kind="checkpoint")


def test_a_recommendation_is_surer_than_a_remark_and_that_than_a_condition() -> None:
    sure = [
        said(text)["weight"].confidence
        for text in ("Recommended weight: 0.8", "weight 0.8", "if it is too strong, lower the weight to 0.8")
    ]
    assert sure == sorted(sure, reverse=True)
    assert len(set(sure)) == 3


def test_the_phrase_is_kept_as_proof_and_short() -> None:
    long = "words " * 60 + "recommended weight 0.75 " + "words " * 60
    found = said(long)["weight"]
    assert "0.75" in found.phrase
    assert len(found.phrase) <= advice.said.MAX_PHRASE + 2


HOSTILE = [
    "1" * 100_000, "0.7 " * 30_000, "weight 0.7 " * 10_000, "clip skip clip " * 8_000, "(" * 100_000,
    "(a:" * 40_000, "-" * 100_000, "a-" * 50_000, "euler_a_" * 15_000, "vae aaaaaa " * 10_000, "<lora:" * 16_000,
    "v1 v2 " * 16_000, "权重" * 50_000, "<li>weight<ul>" * 6_000, "<p>weight 0.7</p>" * 8_000, "512x" * 25_000,
    "8/" * 50_000, "don't go above " * 7_000, "Negative prompt: " + "a," * 50_000, "<a b='" * 30_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_text_takes_linear_time(text: str) -> None:
    start = time.process_time()
    read(text, Subject())
    assert time.process_time() - start < 20


@given(st.text(max_size=300) | st.text("weightstrngclp kCFG0123456789.,-~:%()[]<>xv权重步", max_size=120))
def test_any_text_is_read_without_raising_and_within_what_can_be_meant(text: str) -> None:
    for each in read(text, Subject(names=("a",))):
        assert 0 < each.confidence <= 1
        if each.name == "weight" and each.value is not None:
            assert -5 <= each.value <= 5
        if each.name == "clip_skip" and each.value is not None:
            assert 1 <= each.value <= 12


@given(st.floats(0.1, 2).map(lambda v: round(v, 2)), st.sampled_from(["Weight: {}", "use it at {} strength", "权重{}"]))
def test_a_plain_weight_is_always_found(value: float, form: str) -> None:
    assert said(form.format(value))["weight"].value == value


# --- images -----------------------------------------------------------------------------------------------------------

VERSION = {
    "id": 11,
    "modelId": 1,
    "name": "v1.0",
    "baseModel": "SD 1.5",
    "files": [{"id": 1, "name": "thing_v1.safetensors", "hashes": {"AutoV3": "ABCDEF012345"}}],
}


def version(**more: Any) -> wire.ModelVersion:
    return wire.ModelVersion.model_validate({**VERSION, **more})


def image(weight: float | None = 0.8, *, name: str = "thing_v1", **more: Any) -> GenerationParameters:
    lora = () if weight is None else (ResourceRef("lora", name, weight=weight),)
    given: dict[str, Any] = {"sampler": "dpmpp_2m", "schedule": "karras", "steps": 25, "cfg_scale": 7.0,
                             "width": 512, "height": 768, "resources": lora}  # fmt: skip
    return GenerationParameters(**{**given, **more})


def settle(examples: list[Any], description: str | None = None, **more: Any) -> recommend.RecommendedSettings:
    pairs = [each if isinstance(each, tuple) else (each, 0) for each in examples]
    given = {"model_type": "LORA", "model_description": description, **more}
    return recommend.settle(
        given.pop("version", version()), pairs, given.pop("facts", None), given.pop("user", None), **given
    )


def test_the_images_vote_and_the_outlier_is_named() -> None:
    weight = settle([image(w) for w in (0.8, 0.8, 0.75, 0.8, 2.5)]).settings["weight"]
    assert (weight.value, weight.source, weight.n, weight.outliers) == (0.8, "images", 5, (2.5,))
    assert weight.low == 0.75
    assert weight.share == 0.8


def test_reactions_count_but_one_loved_image_does_not_outvote_four() -> None:
    loved = (image(cfg_scale=12.0), 5_000)
    assert settle([loved, *[image(cfg_scale=5.0)] * 4]).value("cfg_scale") == 5.0
    assert settle([loved, image(cfg_scale=5.0)]).value("cfg_scale") == 12.0


def test_the_weight_is_never_another_files() -> None:
    assert "weight" not in settle([image(0.3, name="add_detail")]).settings
    both = image(0.3, name="add_detail")
    both = GenerationParameters(resources=(*both.resources, ResourceRef("lora", "thing_v1", weight=0.9)))
    assert settle([both]).value("weight") == 0.9


@pytest.mark.parametrize(
    "resource",
    [
        ResourceRef("lora", "style/thing_v1", weight=0.6),
        ResourceRef("lora", "renamed", weight=0.6, hash="abcdef012345"),
        ResourceRef("lora", None, weight=0.6, version_id=11),
        ResourceRef("lora", "thing-000008", weight=0.6),
    ],
)
def test_the_file_is_known_by_name_hash_version_and_training_name(resource: ResourceRef) -> None:
    assert settle([GenerationParameters(resources=(resource,))]).value("weight") == 0.6


def test_a_version_id_of_another_version_beats_a_like_name() -> None:
    other = ResourceRef("lora", "thing_v1", weight=0.6, version_id=99)
    assert "weight" not in settle([GenerationParameters(resources=(other,))]).settings


def test_the_schedule_is_the_one_used_with_the_sampler() -> None:
    found = settle([image(), image(), image(sampler="euler_ancestral", schedule=None)])
    assert (found.value("sampler"), found.value("schedule")) == ("dpmpp_2m", "karras")
    assert "schedule" not in settle([image(sampler="euler", schedule=None)]).settings


def test_upscaled_pictures_do_not_recommend_their_size() -> None:
    assert settle([image(width=2304, height=2816, denoise=0.3), image()]).value("size") == [512, 768]


def test_miniature_models_have_miniature_sizes() -> None:
    assert settle([image(width=96, height=96)]).value("size") == [96, 96]
    assert settle([], "CFG 6-8, 96x96").value("size") == [96, 96]
    assert "size" not in settle([], "aspect ratio 16x9, 12x24 tiles").settings


def test_hires_is_recommended_when_half_of_the_images_use_it() -> None:
    hires = image(hires=Hires(upscale=2.0, upscaler="4x-UltraSharp", denoise=0.4))
    found = settle([hires, hires, image()]).settings["hires"]
    assert found.value == {"upscale": 2.0, "upscaler": "4x-UltraSharp", "denoise": 0.4, "steps": None}
    assert "hires" not in settle([hires, image(), image()]).settings


def test_negative_prompt_and_embeddings_are_shared_ones() -> None:
    prompts = ["EasyNegative, blurry, watermark", "EasyNegative, blurry, watermark, frame", "EasyNegative, blurry"]
    found = settle([image(negative_prompt=p) for p in prompts])
    assert found.value("negative_embeddings") == ["EasyNegative"]
    assert found.value("negative_prompt") == "EasyNegative, blurry, watermark"


# --- joined -----------------------------------------------------------------------------------------------------------


def test_within_the_creators_range_the_images_say_where() -> None:
    weight = settle([image(0.9)] * 4, "Recommended strength: 0.6-1.0").settings["weight"]
    assert (weight.value, weight.low, weight.high, weight.source, weight.n) == (0.9, 0.6, 1.0, "creator+images", 4)
    assert weight.confidence > 0.9
    assert any("0.6-1.0" in each for each in weight.evidence)


def test_where_they_differ_the_clear_word_wins_and_the_difference_is_written_down() -> None:
    weight = settle([image(1.0)] * 4, "Recommended strength: 0.6").settings["weight"]
    assert (weight.value, weight.source) == (0.6, "creator")
    assert any("but 1 in 4 of 4 images" in each for each in weight.evidence)
    assert weight.confidence < settle([], "Recommended strength: 0.6").settings["weight"].confidence


def test_many_images_outweigh_a_hint() -> None:
    text = "If it is too strong you might try to lower the weight to 0.3"
    assert settle([image(0.9)] * 6, text).value("weight") == 0.9


def test_limits_hold() -> None:
    weight = settle([image(1.4)] * 3, "Don't go above 1.0 weight").settings["weight"]
    assert (weight.value, weight.high) == (1.0, 1.0)
    assert settle([image(steps=12)], "At least 20 steps").value("steps") == 20


def test_about_this_version_counts_more_than_the_page() -> None:
    found = settle([], "<p>Weight: 0.5</p>", version=version(description="<p>Weight: 0.9</p>"))
    assert found.value("weight") == 0.9


def test_of_several_samplers_the_images_choose() -> None:
    found = settle([image()] * 3, "Samplers: Euler a, DPM++ 2M Karras").settings["sampler"]
    assert (found.value, found.source, found.alternatives) == ("dpmpp_2m", "creator+images", ("euler_ancestral",))


def test_the_users_own_value_wins() -> None:
    found = settle([image()] * 3, "Weight 0.8", user={"weight": 0.55, "sampler": "Euler a", "steps": None})
    assert found.settings["weight"].to_json()["source"] == "user"
    assert (found.value("weight"), found.value("sampler"), found.value("steps")) == (0.55, "euler_ancestral", 25)


def test_the_header_speaks_when_nobody_else_does() -> None:
    facts = {
        "kind": "lora",
        "metadata": {"ss_clip_skip": "2", "ss_resolution": "(768, 768)", "ss_sd_model_name": "nai.ckpt"},
    }
    found = settle([], None, facts=facts)
    assert (found.value("clip_skip"), found.value("size"), found.value("base_checkpoint")) == (2, [768, 768], "nai")
    assert {setting.source for setting in found.settings.values()} == {"header"}
    assert settle([image(clip_skip=1)], None, facts=facts).settings["clip_skip"].source == "images"


def test_the_kind_is_known_without_being_told() -> None:
    told = [
        version(model={"type": "LORA"}), version(air="urn:air:sd1:lora:civitai:1@11"),
    ]  # fmt: skip
    for each in told:
        assert settle([], "Weight: 0.7", version=each, model_type=None).value("weight") == 0.7
    assert settle([], "Weight: 0.7", facts={"kind": "lora"}, model_type=None).value("weight") == 0.7


def test_nothing_said_gives_nothing() -> None:
    assert settle([]).to_json() == {}


def test_json_is_plain_and_complete() -> None:
    data = json.loads(json.dumps(settle([image()] * 2, "Weight 0.7-0.9, VAE: kl-f8-anime2").to_json()))
    assert list(data) == [name for name in recommend.FIELDS if name in data]
    for entry in data.values():
        assert set(entry) == {"value", "source", "confidence", "low", "high", "n", "share", "evidence", "outliers",
                              "alternatives"}  # fmt: skip
        assert entry["source"] in {"creator", "images", "creator+images", "header", "user"}
        assert 0 < entry["confidence"] <= 1


def test_the_line_to_paste_is_infotext() -> None:
    from hubctl import infotext

    hires = Hires(upscale=2.0, upscaler="4x-UltraSharp", denoise=0.4)
    line = recommend.infotext_line(settle([image(clip_skip=2, hires=hires)]).to_json())
    assert line.startswith("Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 7, Size: 512x768, Clip skip: 2")
    read_back = infotext.parse(f"a cat\n{line}")
    assert (read_back.sampler, read_back.schedule, read_back.clip_skip) == ("dpmpp_2m", "karras", 2)
    assert read_back.hires is not None
    assert (read_back.hires.upscale, read_back.hires.denoise) == (2.0, 0.4)


numbers = st.lists(st.tuples(st.floats(-3, 3).map(lambda v: round(v, 2)), st.floats(1, 3)), min_size=1, max_size=30)


@given(numbers)
def test_the_consensus_is_a_value_somebody_used_within_its_spread(votes: list[tuple[float, float]]) -> None:
    found = recommend.consensus(votes, 0.1)
    assert found is not None
    assert found.value in {value for value, _ in votes}
    assert found.low <= found.value <= found.high
    assert found.value not in found.outliers
    assert 0 < found.share <= 1


@given(numbers, st.randoms())
def test_the_order_of_the_images_does_not_matter(votes: list[tuple[float, float]], chance: Any) -> None:
    shuffled = list(votes)
    chance.shuffle(shuffled)
    assert recommend.consensus(votes, 0.1) == recommend.consensus(shuffled, 0.1)


def test_recorded_pages_give_what_a_reader_finds_there(shared: Path) -> None:
    """Held against pages read by hand."""
    expected = {
        59245: {"weight": 0.75, "sampler": "dpmpp_2m", "clip_skip": 2},
        80196: {"weight": 0.5, "cfg_scale": 10.0},
        94176: {"vae": "baked in", "sampler": "dpmpp_sde", "steps": 25, "clip_skip": 1},
        215485: {"steps": 4, "sampler": "lcm", "schedule": "sgm_uniform"},
        102372: {"vae": "vae-ft-mse-840000-ema-pruned", "clip_skip": 1},
    }
    from hubctl import install

    met = set()
    for model, each in BENCH.recorded([shared / "fixtures/civitai-api"]):
        if model.id in expected and model.id not in met:
            met.add(model.id)
            found = recommend.settle(
                each, install.examples_of(each.images), None, None,
                model_description=model.description, model_type=model.type, model_name=model.name,
            )  # fmt: skip
            assert {name: found.value(name) for name in expected[model.id]} == expected[model.id]
    assert met == set(expected)
