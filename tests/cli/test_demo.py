"""The main journey on the demo hub, looking at pixels and at what a person reads."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rude import RudeHub

from registry import Registry

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "hubctl/demo/assets/images"
THRESHOLD = 0.98  # 1.0 where they were made; other processors round elsewhere (0.999 was the lowest seen)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"), dtype=np.int16)


@pytest.fixture
def ready(on_demo: Run) -> Run:
    """The LoRA, a checkpoint and the embedding, installed from the demo hub."""
    on_demo("install", "4201", "4100", "4301")
    return on_demo


def test_search_is_a_table_to_act_on(on_demo: Run) -> None:
    outcome = on_demo("search", "--type", "lora", "thanos")
    lines = [line.rstrip() for line in outcome.out.splitlines() if line.strip()]
    assert [line.split() for line in (lines[0], lines[2])] == [
        ["id", "name", "type", "base", "model", "creator", "downloads", "size", "trigger", "words", "here"],
        ["4201", "Thanos", "Portrait", "LORA", "SD", "1.5", "hubctl-demo", "4.1k", "478", "kB", "thnos"],
    ]
    assert "hubctl install 4201" in outcome.err


@pytest.mark.parametrize("spelling", ["lora", "LORA", "LoRA", "locon,lora", "ti", "embedding", "ckpt", "model", "vae"])
def test_type_names_are_taken_in_any_sensible_spelling(spelling: str, on_demo: Run) -> None:
    types = {word for each in spelling.split(",") for word in ("--type", each)}
    argv = [part for each in spelling.split(",") for part in ("--type", each)]
    assert types
    assert on_demo("search", *argv, "--json").json["count"] >= 1


def test_a_second_install_does_nothing_and_says_so(ready: Run) -> None:
    again = ready("install", "4201")
    assert "already installed, nothing to do" in again.err
    assert again.out.strip().endswith("Thanos Portrait - v1/thnos.safetensors")
    assert ready("install", "4201", "--json").json["installed"][0]["changed"] is False


def test_what_was_installed_is_known_offline_after_the_hub_is_gone(ready: Run) -> None:
    away = ("--hub", "http://127.0.0.1:9", "--offline")
    shown = ready("show", "4201", *away).out
    assert "thnos" in shown
    assert "DPM++ 2M Karras" in shown
    assert [row["id"] for row in ready("images", "4201", "--json", *away).json["items"]][:1] == [9001]
    assert ready("search", "--local", "titan", "-q").out == "4201\n"


@pytest.mark.parametrize("answer", [404, None])
def test_what_was_installed_is_shown_when_its_page_is_gone_or_nobody_answers(answer: int | None, ready: Run) -> None:
    with RudeHub(b"", answers={}) as empty:
        hub = empty.url if answer else "http://127.0.0.1:9"
        shown = ready("show", "4201", "--hub", hub)
        assert "<lora:thnos:1> thnos" in shown.out
        assert "showing what was recorded when it was installed" in shown.err
        assert [row["id"] for row in ready("images", "4201", "--json", "--hub", hub).json["items"]][:1] == [9001]
        assert ready("show", "4999", "--hub", hub, status=None).status in (4, 5)


def test_an_example_is_reproduced_and_the_run_recorded(ready: Run, demo_home: Path) -> None:
    made = ready("reproduce", "9001", "--yes", "--json").json
    assert made["similarity"]["score"] >= THRESHOLD
    assert made["deviations"] == []
    assert np.abs(pixels(made["image"]) - pixels(ASSETS / "9001.png")).max() <= 8
    with Image.open(made["image"]) as opened:
        assert opened.text["parameters"].startswith("thnos man in a black suit")
    record = json.loads(Path(made["record"]).read_text("utf-8"))
    assert record["schema"] == "hubctl.run/1"
    assert Path(made["compare"]).is_file()
    rows = ready("runs", "--json").json["items"]
    assert (rows[0]["image_id"], rows[0]["output"]) == (9001, made["image"])


def test_every_example_of_the_demo_is_reproduced(ready: Run) -> None:
    ready("install", "4110", "4401")
    ids = sorted(int(path.stem) for path in ASSETS.glob("*.png"))
    assert len(ids) >= 12
    made = ready("reproduce", *ids, "--yes", "--json").json
    scores = {item["source"]["image_id"] if "source" in item else n: item["similarity"]["score"]
              for n, item in enumerate(made["items"])}  # fmt: skip
    assert min(scores.values()) >= THRESHOLD, scores


def test_the_same_seed_gives_the_same_bytes(ready: Run, tmp_path: Path) -> None:
    argv = ("generate", "thnos man, sunset <lora:thnos:0.9>", "--model", "4100", "--seed", "3", "--steps", "8")
    first = ready(*argv, "--out", tmp_path / "a.png", "--json").json
    ready(*argv, "--out", tmp_path / "b.png")
    assert first["parameters"]["width"] == 96
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()


def test_the_lora_changes_the_picture(ready: Run, tmp_path: Path) -> None:
    with_it, without = tmp_path / "with.png", tmp_path / "without.png"
    common = ("--model", "4100", "--seed", "5", "--size", "96x96")
    ready("generate", "thnos man in a black suit <lora:thnos:0.9>", *common, "--out", with_it)
    ready("generate", "thnos man in a black suit", *common, "--out", without)
    face = np.s_[25:70, 35:60]
    titan, man = pixels(with_it)[face].mean((0, 1)), pixels(without)[face].mean((0, 1))
    assert titan[2] - titan[1] > 30  # purple: far more blue than green
    assert man[2] - man[1] < 15


def test_a_library_that_may_only_be_read_still_makes_pictures(ready: Run, home: Path, tmp_path: Path) -> None:
    from hubctl import generate, reproduce

    with Registry.open(home, read_only=True) as registry:
        parameters, found = generate.prepare("a robot", "4100", registry, asked={"seed": 1, "steps": 1})
        plan = reproduce.build(parameters, found, overrides={})
        made = reproduce.run(
            plan, registry=registry, name="robot", out=tmp_path / "robot.png", used=registry.installed()
        )
    assert made.image.is_file()
    assert made.unrecorded
    assert made.to_json()["recorded"] is False
    assert ready("runs", "--json").json["count"] == 0


def test_own_words_take_the_look_along(ready: Run) -> None:
    made = ready("reproduce", "9001", "--yes", "--prompt", "a robot, space", "--seed", "8", "--json").json
    assert made["parameters"]["prompt"] == "a robot, space <lora:thnos:0.9>"
    assert made["parameters"]["seed"] == 8
    assert (made["parameters"]["sampler"], made["parameters"]["schedule"]) == ("dpmpp_2m", "karras")


def test_a_plan_is_json_and_nothing_is_made(ready: Run) -> None:
    plan = ready("reproduce", "9001", "--yes", "--plan").json
    assert plan["schema"] == "hubctl.run-plan/1"
    assert plan["plan"]["steps"] == 20
    assert ready("runs", "--json").json["count"] == 0


def test_the_readme_shows_what_is_really_printed(process: Run, demo_hub: str, home: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    block = next(each for each in readme.split("```") if each.startswith("console\n$ hubctl search --type lora thanos"))
    environment = {
        **os.environ, "HUBCTL_HUB": demo_hub, "HUBCTL_DEVICE": "cpu", "COLUMNS": "120", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    for sample in re.split(r"^\$ hubctl ", block, flags=re.MULTILINE)[1:]:
        line, promised = sample.split("\n", 1)
        done = process(*shlex.split(line), env=environment, joined=True)
        assert done.returncode == 0, done.stdout
        assert settled(done.stdout.replace(str(home.resolve()), "…").replace(str(home), "…")) == settled(promised), line


def settled(text: str) -> list[str]:
    """Without what differs from day to day and from processor to processor."""
    text = re.sub(r"made in [0-9.]+ s", "made in a moment", text)
    text = re.sub(r"similarity with the original: .*", "similarity with the original", text)
    return [line.rstrip() for line in re.sub(r"/[0-9-]{10}/", "/today/", text).strip().splitlines()]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def failed(outcome: Any) -> str:
    assert outcome.json["schema"] == "hubctl.error/1"
    return str(outcome.json["error"]["code"])


def picture(path: Path, text: str | None) -> Path:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if text is not None:
        info.add_text("parameters", text)
    Image.new("RGB", (64, 64), "teal").save(path, pnginfo=info)
    return path


SETTINGS = "Steps: 4, Sampler: {sampler}, CFG scale: 7, Seed: 1, Size: 64x64, Model hash: {model}, Version: v1.10.1"


@pytest.mark.parametrize(
    ("argv", "status", "code"),
    [
        (("install", "999999"), 4, "not_found"),
        (("install", "nothing is called this"), 4, "not_found"),
        (("install", "urn:air:sd1:lora:civitai:1@2+x"), 2, "invalid_reference"),
        (("show", "4201", "--offline"), 10, "offline"),
        (("reproduce", "123456"), 4, "not_found"),
        (("reproduce", "9001", "--offline"), 10, "offline"),
        (("generate", "x", "--model", "4100"), 4, "not_found"),
        (("path", "4201"), 4, "not_found"),
        (("search", "--type", "spaceship"), 2, "invalid_reference"),
        (("whoami",), 3, "login_required"),
        (("search", "--creator", "nobody-at-all"), 4, "not_found"),
        (("list", "--home", __file__), 1, "no_permission"),
        (("install", "4201", "--home", __file__), 1, "no_permission"),
        (("reproduce", "9001", "--device", "tpu"), 2, "usage"),
        (("reproduce", "9001", "--dtype", "int3"), 2, "usage"),
        (("reproduce", "9001", "--offload", "all"), 2, "usage"),
        (("reproduce", "9001", "--cfg", "nan"), 2, "usage"),
        (("reproduce", "9001", "--set", "eta=inf"), 2, "usage"),
        (("config", "set", "nonsense", "1"), 2, "usage"),
        (("search", "x", "--hub", "nowhere"), 2, "usage"),
    ],
)
def test_refusals_have_names(argv: tuple[str, ...], status: int, code: str, on_demo: Run) -> None:
    assert failed(on_demo(*argv, "--json", status=status)) == code
    spoken = on_demo(*argv, status=status)
    assert spoken.out == ""
    assert spoken.err.startswith("error: ") or "\nerror: " in spoken.err


def test_a_number_that_is_nothing_there_is_refused_for_both_its_readings(on_demo: Run) -> None:
    outcome = on_demo("install", "999999", status=4)
    assert "has neither a model nor a version 999999" in outcome.err


@pytest.mark.parametrize("argv", [("whoami", "nas"), ("whoami", "--hub", "nas")])
def test_the_hint_names_the_hub_that_wants_a_key(argv: tuple[str, ...], on_demo: Run, demo_hub: str) -> None:
    on_demo("config", "set", "hubs.nas", demo_hub)
    assert "`hubctl login nas`" in on_demo(*argv, status=3).err
    assert "`hubctl login`" in on_demo("whoami", status=3).err


def test_doctor_says_once_which_hub_answers(on_demo: Run, demo_hub: str) -> None:
    checks = on_demo("doctor", "--json").json["checks"]
    (hub,) = (check for check in checks if check["name"].startswith("hub") and check["name"] != "hubctl")
    assert (hub["name"], hub["verdict"]) == ("hub", "note")
    assert hub["found"] == f"{demo_hub} answers; no API key"


def test_no_hint_repeats_what_a_url_should_not_hold(on_demo: Run) -> None:
    outcome = on_demo("search", "--hub", "http://me:secret@127.0.0.1:9", status=2)
    assert "hubctl login" in outcome.err
    assert "secret" not in outcome.err


def test_a_picture_that_says_nothing_is_refused_with_the_way_on(on_demo: Run, tmp_path: Path) -> None:
    outcome = on_demo("reproduce", picture(tmp_path / "mute.png", None), "--json", status=2)
    assert failed(outcome) == "no_parameters"
    assert "hubctl generate" in outcome.json["error"]["hint"]


def test_an_unknown_sampler_is_named_with_near_ones(ready: Run, tmp_path: Path) -> None:
    text = "a cat\n" + SETTINGS.format(sampler="Eulerish", model="625a41236c")
    outcome = ready("reproduce", picture(tmp_path / "odd.png", text), "--json", status=2)
    assert failed(outcome) == "unknown_sampler"
    assert "Eulerish" in outcome.json["error"]["message"]


def test_a_missing_checkpoint_is_named(ready: Run, tmp_path: Path) -> None:
    text = "a cat\n" + SETTINGS.format(sampler="Euler a", model="0123456789")
    outcome = ready("reproduce", picture(tmp_path / "gone.png", text), "--yes", "--json", status=4)
    assert failed(outcome) == "missing_resource"


def test_below_the_asked_similarity_is_exit_11_after_the_picture_was_made(ready: Run) -> None:
    outcome = ready("reproduce", "9001", "--yes", "--seed", "1", "--min-similarity", "0.99", status=11)
    assert "is below 0.99" in outcome.err
    assert ready("runs", "--json").json["count"] == 1


def test_strict_refuses_deviations_and_names_them(ready: Run, tmp_path: Path) -> None:
    text = "a cat\n" + SETTINGS.format(sampler="Euler a", model="625a41236c") + ', ADetailer model: "face.pt"'
    outcome = ready("reproduce", picture(tmp_path / "ad.png", text), "--yes", "--strict", "--json", status=2)
    assert "ADetailer" in outcome.json["error"]["message"]


def test_a_home_that_may_not_be_written_is_a_sentence(on_demo: Run, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert failed(on_demo("install", "4201", "--home", blocked / "home", "--json", status=1)) == "no_permission"


@pytest.mark.slow
def test_the_demo_walks_the_whole_way_in_processes_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "HUBCTL_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "hubctl", "demo", "--json"],
        env=environment, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    data = json.loads(done.stdout)
    assert data["schema"] == "hubctl.demo/1"
    assert Path(data["compare"]).is_file()
    assert len(data["pictures"]) == 4
