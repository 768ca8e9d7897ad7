"""`hubctl generate` and `hubctl reproduce` as a person types them, on a real library with the miniature models."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from registry import Manifest, Registry, wire

SIZE = {"value": [96, 96]}
MODELS: tuple[tuple[int, str, str, str, list[str], dict[str, Any]], ...] = (
    (
        4100, "Tiny Toon", "Checkpoint", "tiny-toon-v1.safetensors", [],
        {"sampler": {"value": "DPM++ 2M Karras"}, "steps": {"value": 12}, "cfg_scale": {"value": 7}, "size": SIZE},
    ),
    (4150, "Tiny Ink", "Checkpoint", "tiny-ink-v1.safetensors", [], {"size": SIZE, "steps": {"value": 12}}),
    (4201, "Thanos Portrait", "LORA", "thnos.safetensors", ["thnos"], {"weight": {"value": 0.9}}),
    (4301, "Gruff Man", "TextualInversion", "gruffman.safetensors", ["gruffman"], {}),
    (4401, "Demo VAE", "VAE", "demo-vae.vae.safetensors", [], {}),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def pictures(self) -> list[Path]:
        return [Path(line) for line in self.out.splitlines() if line.endswith(".png")]


Run = Callable[..., Outcome]


def fill(home: Path, folder: Path) -> None:
    """A library with the miniature models, as an install leaves it."""
    with Registry.open(home) as registry:
        for number, name, kind, file_name, words, settings in MODELS:
            data = (folder / file_name).read_bytes()
            sha = hashlib.sha256(data).hexdigest()
            with registry.reserve(sha, size=len(data)) as partial:
                partial.write(data)
                partial.seal()
            file = {"id": number * 100, "name": file_name, "type": "Model", "hashes": {"SHA256": sha.upper()}}
            version = {
                "id": number * 10, "modelId": number, "name": "v1", "baseModel": "SD 1.5", "trainedWords": words,
                "files": [file],
            }  # fmt: skip
            model = {"id": number, "name": name, "type": kind}
            registry.add(
                Manifest(
                    "civitai", wire.Model.model_validate(model), wire.ModelVersion.model_validate(version),
                    {number * 100: sha},
                ),
                settings=settings,
            )  # fmt: skip


@pytest.fixture
def hubctl(home: Path, shared: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process, offline, in a library of its own."""
    from hubctl.cli import run

    fill(home, shared / "demo-model")
    monkeypatch.setenv("HUBCTL_OFFLINE", "true")
    monkeypatch.setenv("HUBCTL_DEVICE", "cpu")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*argv: object, status: int = 0) -> Outcome:
        capfd.readouterr()
        code = run([str(word) for word in argv])
        said = capfd.readouterr()
        assert code == status, said.out + said.err
        return Outcome(code, said.out, said.err)

    return call


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


THANOS = ("thnos man, black suit, red tie, dinner table with candles", "--model", 4100, "--seed", 5)


# --- generate ---------------------------------------------------------------------------------------------------------


def test_a_picture_starts_from_what_the_model_recommends(hubctl: Run, tmp_path: Path) -> None:
    target = tmp_path / "thanos.png"
    said = hubctl("generate", *THANOS, "--lora", "4201", "--out", target)
    assert said.out == f"{target}\n"
    assert "DPM++ 2M Karras, 12 steps, CFG 7, seed 5, 96×96" in said.err
    with Image.open(target) as image:
        assert image.size == (96, 96)
        text = image.info["parameters"]
    assert text.startswith("thnos man, black suit, red tie, dinner table with candles <lora:thnos:0.9>\nSteps: 12, ")
    assert "Model: tiny-toon-v1" in text
    assert "Model hash: " in text
    assert "Lora hashes" in text
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["schema"] == "hubctl.run/1"
    assert record["parameters"]["seed"] == 5
    assert record["deviations"] == []
    runs = hubctl("runs", "--json").json
    assert [row["output"] for row in runs["items"]] == [str(target)]


def test_the_lora_and_the_embedding_show_and_a_seed_repeats(hubctl: Run, tmp_path: Path) -> None:
    def make(name: str, *more: object) -> np.ndarray[Any, Any]:
        hubctl("generate", "man, top hat", "--model", "Tiny Toon", "--seed", 3, "--out", tmp_path / name, *more)
        return pixels(tmp_path / name)

    plain, again, lora = make("a.png"), make("b.png"), make("c.png", "--lora", "thnos:1")
    assert np.array_equal(plain, again)
    assert np.abs(plain - lora).mean() > 3
    hubctl("generate", "gruffman, top hat", "--model", 4100, "--seed", 3, "--out", tmp_path / "d.png")
    assert np.abs(plain - pixels(tmp_path / "d.png")).mean() > 3
    record = json.loads((tmp_path / "d.json").read_text())
    assert list(record["plan"]["embeddings"]) == ["gruffman"]


def test_several_pictures_count_the_seed_up_and_load_once(hubctl: Run, tmp_path: Path) -> None:
    said = hubctl(
        "generate", "cat", "--model", 4100, "--seed", 7, "--count", 3, "--steps", 4, "--out", tmp_path, "--json"
    )
    items = said.json["items"]
    assert [item["seed"] for item in items] == [7, 8, 9]
    assert [Path(item["image"]).name for item in items] == ["picture-7.png", "picture-8.png", "picture-9.png"]
    assert all(item["load_seconds"] < 0.01 for item in items[1:])
    hubctl("generate", "cat", "--model", 4100, "--seed", 9, "--steps", 4, "--out", tmp_path / "one.png")
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "picture-9.png"))


def test_files_that_were_never_installed(hubctl: Run, shared: Path, tmp_path: Path) -> None:
    folder = shared / "demo-model"
    hubctl(
        "generate", "thnos man", "--model", folder / "tiny-toon-v1.safetensors", "--lora",
        f"{folder / 'thnos.safetensors'}:0.7", "--vae", folder / "demo-vae.vae.safetensors", "--size", "96x96",
        "--steps", 4, "--out", tmp_path / "x.png",
    )  # fmt: skip
    assert "<lora:thnos:0.7>" in Image.open(tmp_path / "x.png").info["parameters"]


def test_a_word_that_would_wake_the_lora_is_suggested(hubctl: Run, tmp_path: Path) -> None:
    said = hubctl("generate", "a cat", "--model", 4100, "--lora", 4201, "--steps", 2, "--out", tmp_path / "x.png")
    assert "Thanos Portrait answers to `thnos`" in said.err


@pytest.mark.parametrize(
    ("argv", "status", "sentence"),
    [
        (("--model", "nothing"), 4, "no installed checkpoint is called `nothing`"),
        (("--model", "4201"), 4, "is a LORA, not a checkpoint"),
        (("--model", "4100", "--lora", "nothing"), 4, "no installed LoRA is called `nothing`"),
        (("--model", "4100", "--lora", "4201:99"), 2, "a weight of 99 cannot be meant"),
        (("--model", "4100", "--lora", "4201", "--lora", "4201"), 2, "asked for twice"),
        (("--model", "4100", "--size", "96"), 2, "is no size"),
        (("--model", "4100", "--sampler", "Eulr"), 2, "`Eulr` is no sampler hubctl knows"),
        (("--model", "4100", "--set", "clip_skp=2"), 2, "there is no setting `clip_skp`"),
        (("--model", "4100", "--set", "steps=many"), 2, "`many` is no value for `steps`"),
        (("--model", "4100", "--set", "schedule=Karas"), 2, "`Karas` is no value for `schedule`"),
        (("--model", "4100", "--denoise", "0.5"), 2, "need --init"),
        (("--model", "4100", "--init", "nowhere.png"), 4, "there is no picture `nowhere.png`"),
        (("--model", "4100", "--out", "x.jpg"), 2, "written as PNG"),
        (("--model", "4100", "--count", "2", "--out", "x.png"), 2, "several pictures cannot all be"),
        (("--model", "4100", "--device", "tpu"), 2, "`tpu` is no device"),
    ],
)
def test_what_cannot_be_meant(argv: tuple[str, ...], status: int, sentence: str, hubctl: Run) -> None:
    said = hubctl("generate", "a cat", *argv, status=status)
    assert said.out == ""
    assert sentence in said.err
    assert "hint:" in said.err
    assert "Traceback" not in said.err


def test_a_tag_nothing_here_answers_is_named(hubctl: Run) -> None:
    said = hubctl("generate", "a cat <lora:thno:1>", "--model", 4100, status=4)
    assert "no installed LoRA is called `thno`" in said.err
    assert "near: `thnos`" in said.err


def test_settings_by_the_names_a_webui_writes(hubctl: Run) -> None:
    said = hubctl(
        "generate", "a cat", "--model", 4100, "--plan", "--set", "hires upscale=2", "--set", "Hires steps=3",
        "--set", "Hires upscaler=Latent (nearest-exact)", "--set", "denoising strength=0.6", "--set", "eta ddim=0.3",
        "--set", "cfg=5", "--set", "Schedule type=Automatic", "--set", "RNG=NV",
    )  # fmt: skip
    plan = said.json["plan"]
    assert plan["hires"] | {"width": 192, "height": 192, "steps": 3, "denoise": 0.6} == plan["hires"]
    assert plan["hires"]["upscaler"] == "Latent (nearest-exact)"
    assert (plan["eta_ddim"], plan["cfg_scale"], plan["rng"], plan["schedule"]) == (0.3, 5.0, "nv", None)


# --- reproduce --------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(hubctl: Run, tmp_path: Path) -> Path:
    """A picture made here, as somebody might find it."""
    path = tmp_path / "found.png"
    hubctl("generate", *THANOS, "--lora", "4201", "--out", path)
    path.with_suffix(".json").unlink()
    return path


def test_what_was_made_here_comes_back_bit_for_bit(hubctl: Run, made: Path, tmp_path: Path) -> None:
    said = hubctl("reproduce", made, "--strict", "--min-similarity", 1.0)
    image, compare = said.pictures
    assert compare.name == f"{image.stem}-compare.png"
    assert np.array_equal(pixels(image), pixels(made))
    assert "identical, every pixel" in said.err
    assert "checkpoint tiny-toon-v1: here (by hash)" in said.err
    assert "lora thnos 0.9: here (by hash)" in said.err
    record = json.loads(image.with_suffix(".json").read_text())
    assert record["similarity"]["identical"] is True
    assert Image.open(image).info["parameters"] == Image.open(made).info["parameters"]


def test_the_same_look_with_another_subject(hubctl: Run, made: Path) -> None:
    said = hubctl("reproduce", made, "--prompt", "thnos wizard robe, space", "--seed", 9, "--json")
    document = said.json
    assert document["schema"] == "hubctl.run/1"
    assert document["settings_changed"] is True
    assert document["parameters"]["prompt"] == "thnos wizard robe, space <lora:thnos:0.9>"
    assert document["parameters"]["seed"] == 9
    assert document["similarity"]["score"] < 0.9
    assert document["error"] is None


def test_another_checkpoint(hubctl: Run, made: Path) -> None:
    document = hubctl("reproduce", made, "--model", "tiny ink", "--json").json
    assert "Model: tiny-ink-v1" in document["infotext"]
    assert "Model hash" in document["infotext"]
    assert 0.1 < document["similarity"]["score"] < 0.95


def test_another_vae(hubctl: Run, made: Path) -> None:
    document = hubctl("reproduce", made, "--vae", "demo vae", "--json").json
    assert "VAE: demo-vae.vae" in document["infotext"]
    assert document["similarity"]["score"] > 0.99  # the checkpoint's own, in a file of its own


def test_a_checkpoint_without_a_vae_is_told_before_the_work(hubctl: Run, shared: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(shared / "demo-model/tiny-toon-v1.safetensors")
    pruned = tmp_path / "pruned.safetensors"
    save_file({name: t for name, t in tensors.items() if not name.startswith("first_stage_model.")}, pruned)
    said = hubctl("generate", "owl", "--model", pruned, "--size", "96x96", "--steps", 1000, status=1)
    assert "`pruned.safetensors` has no VAE in it" in said.err
    assert "--vae" in said.err
    target = tmp_path / "x.png"
    hubctl("generate", "owl", "--model", pruned, "--vae", 4401, "--size", "64x64", "--steps", 2, "--out", target)
    assert target.exists()


def test_a_folder_is_never_written_over(hubctl: Run, tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        said = hubctl("generate", "owl", "--model", 4100, "--seed", 1, "--steps", 2, "--out", f"{tmp_path}/new/")
        names += [path.name for path in said.pictures]
    assert names == ["picture-1.png", "picture-1-2.png"]


def test_below_the_threshold_is_a_status_and_one_document(hubctl: Run, made: Path) -> None:
    said = hubctl("reproduce", made, "--seed", 6, "--min-similarity", 0.99, status=11)
    assert len(said.pictures) == 2
    assert "is below 0.99" in said.err
    document = hubctl("reproduce", made, "--seed", 6, "--min-similarity", 0.99, "--json", status=11).json
    assert document["error"]["code"] == "below_similarity"
    assert Path(document["image"]).exists()


def test_plan_and_dry_run_make_nothing(hubctl: Run, made: Path, home: Path) -> None:
    plan = hubctl("reproduce", made, "--plan").json
    assert plan["schema"] == "hubctl.run-plan/1"
    assert plan["plan"]["seed"] == 5
    look = hubctl("reproduce", made, "--dry-run", "--json").json
    assert [r["resolved_by"] for r in look["resources"]] == ["hash", "hash"]
    assert look["download_bytes"] == 0
    assert not (home / "runs").exists()


def test_solve_finds_what_was_cut_from_the_infotext(hubctl: Run, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    made = tmp_path / "a.png"
    hubctl("generate", *THANOS, "--set", "clip_skip=2", "--out", made)
    with Image.open(made) as image:
        info = PngInfo()
        info.add_text("parameters", image.info["parameters"].replace("Clip skip: 2, ", ""))
        cut = tmp_path / "cut.png"
        image.save(cut, pnginfo=info)
    assert "Clip skip" not in Image.open(cut).info["parameters"]
    plain = hubctl("reproduce", cut, "--json").json
    assert not plain["similarity"]["identical"]
    said = hubctl("reproduce", cut, "--solve")
    assert "clip skip: 2 fits best, similarity every pixel" in said.err
    assert "deviation: found by trying, not said in the settings: clip skip 2" in said.err
    assert "identical, every pixel" in said.err


def test_a_picture_made_from_a_picture(hubctl: Run, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "from.png"
    hubctl(
        "generate", "robot", "--model", 4100, "--seed", 4, "--init", made, "--denoise", 0.6, "--steps", 8,
        "--out", target,
    )  # fmt: skip
    assert "Denoising strength: 0.6" in Image.open(target).info["parameters"]
    without = hubctl("reproduce", target, "--json").json
    assert any("made from another picture" in sentence for sentence in without["deviations"])
    with_it = hubctl("reproduce", target, "--init", made, "--json").json
    assert with_it["similarity"]["identical"]
    assert with_it["deviations"] == []
    mask = tmp_path / "mask.png"
    Image.fromarray(np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 96, 0), 48, 1)).save(mask)
    hubctl("reproduce", target, "--init", made, "--mask", mask, "--set", "Mask blur=0", "--out", tmp_path / "half.png")
    left = np.abs(pixels(tmp_path / "half.png") - pixels(made))[:, :40].mean()
    right = np.abs(pixels(tmp_path / "half.png") - pixels(made))[:, 56:].mean()
    assert left < 2 < right


def test_several_go_by_checkpoint_and_some_may_fail(hubctl: Run, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name, model in (("1", 4100), ("2", 4150), ("3", 4100)):
        hubctl("generate", "owl", "--model", model, "--seed", 1, "--steps", 3, "--out", folder / f"{name}.png")
        (folder / f"{name}.json").unlink()
    Image.new("RGB", (8, 8)).save(folder / "4.png")
    said = hubctl("reproduce", folder, "--json", status=12)
    document = said.json
    assert document["count"] == 3
    # one load for both of the first checkpoint: they follow each other
    assert [Path(item["asked"]).stem for item in document["items"]] == ["1", "3", "2"]
    assert [item["load_seconds"] < 0.01 for item in document["items"]] == [False, True, False]
    assert all(item["similarity"]["identical"] for item in document["items"])
    assert [failure["error"]["code"] for failure in document["failures"]] == ["no_parameters"]

    listed = tmp_path / "list.txt"
    listed.write_text(f"# two\n{folder / '1.png'}\n" + json.dumps({"path": str(folder / "2.png")}) + "\n")
    said = hubctl("reproduce", "--from", listed, "--out", tmp_path / "out")
    assert [path.name for path in said.pictures] == ["1.png", "1-compare.png", "2.png", "2-compare.png"]
    assert "2 pictures, 2 of 2 at 0.9 or above" in said.err


@pytest.mark.parametrize(
    ("argv", "status", "sentence"),
    [
        ((), 2, "no image to reproduce"),
        (("./nowhere.png",), 2, "there is no file"),
        (("12345",), 10, "is not known here and --offline forbids asking"),
        (("some words",), 2, "is no image"),
        (("FOUND", "--rng", "dice"), 2, "`dice` is no value for `rng`"),
        (("FOUND", "--mask", "FOUND"), 2, "--mask needs --init"),
        (("FOUND", "--init", "nowhere.png"), 4, "there is no picture"),
        (("FOUND", "--out", "FOUND"), 2, "--out would overwrite"),
        (("FOUND", "--model", "4201"), 4, "is a LORA, not a checkpoint"),
        (("FOUND", "--set", "denoise"), 2, "has no value"),
        (("EMPTY",), 2, "says how the picture was made"),
    ],
)
def test_refusals_of_reproduce(argv: tuple[str, ...], status: int, sentence: str, hubctl: Run, made: Path) -> None:
    empty = made.with_name("empty.png")
    Image.new("RGB", (8, 8)).save(empty)
    words = {"FOUND": str(made), "EMPTY": str(empty)}
    before = made.read_bytes()
    said = hubctl("reproduce", *(words.get(word, word) for word in argv), status=status)
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert made.read_bytes() == before


def test_a_missing_checkpoint_is_named_and_strict_refuses(hubctl: Run, made: Path, home: Path) -> None:
    hubctl("rm", "4201", "--yes")
    said = hubctl("reproduce", made, "--strict", status=2)
    assert "--strict: the run would deviate: lora `thnos` is missing" in said.err
    said = hubctl("reproduce", made)
    assert "deviation: lora `thnos` is missing" in said.err
    hubctl("rm", "4100", "--yes")
    document = hubctl("reproduce", made, "--json", status=4).json
    assert document["error"]["code"] == "missing_resource"
    assert document["error"]["details"]["resources"][0]["name"] == "tiny-toon-v1"


def test_an_original_that_is_no_png(hubctl: Run, made: Path, tmp_path: Path) -> None:
    """A JPEG of the hub's: settings in EXIF, pixels re-encoded."""
    with Image.open(made) as image:
        text = image.info["parameters"]
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=90, exif=exif.tobytes())
    path = tmp_path / "hub.jpeg"
    path.write_bytes(file.getvalue())
    document = hubctl("reproduce", path, "--json").json
    assert 0.85 < document["similarity"]["score"] < 1
