"""Where each UI looks: folders, kinds, name templates, and the settings that move them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from registry import layouts
from registry.errors import UsageError


@pytest.mark.parametrize(
    ("ui", "kind", "folder"),
    [
        ("comfyui", "checkpoint", "models/checkpoints"),
        ("comfyui", "unet", "models/diffusion_models"),
        ("comfyui", "lycoris", "models/loras"),
        ("comfyui", "embedding", "models/embeddings"),
        ("a1111", "embedding", "embeddings"),
        ("a1111", "lora", "models/Lora"),
        ("a1111", "unet", None),
        ("forge", "unet", "models/Stable-diffusion"),
        ("forge", "text_encoder", "models/text_encoder"),
        ("sdnext", "unet", "models/UNET"),
        ("sdnext", "controlnet", "models/control"),
        ("swarmui", "checkpoint", "Models/Stable-Diffusion"),
        ("fooocus", "vae", "models/vae"),
        ("fooocus", "hypernetwork", None),
    ],
)
def test_each_ui_has_its_folder_for_a_kind(ui: str, kind: str, folder: str | None) -> None:
    assert layouts.layout(ui).folder(kind) == folder


def test_invokeai_sorts_by_base_model() -> None:
    invoke = layouts.layout("invokeai")
    assert invoke.folder("lora", "Pony") == "models/sdxl/lora"
    assert invoke.folder("checkpoint", "SD 1.5") == "models/sd-1/main"
    assert invoke.folder("lora", "Something New") == "autoimport/lora"


@pytest.mark.parametrize(
    ("file_type", "detected", "model_type", "kind"),
    [
        ("VAE", "checkpoint", "Checkpoint", "vae"),  # a VAE beside a checkpoint is a VAE
        ("Model", "lora", "Checkpoint", "lora"),  # the header knows better than the page
        ("Pruned Model", None, "Checkpoint", "checkpoint"),
        ("Model", "unknown", "LoCon", "lycoris"),
        ("Negative", None, "TextualInversion", "embedding"),
        ("Text Encoder", None, "Checkpoint", "text_encoder"),
        ("Training Data", "lora", "LORA", None),
        ("Archive", None, "Poses", None),
        ("Model", None, "SomethingNew", "other"),
        (None, None, None, "other"),
    ],
)
def test_the_files_own_type_comes_first(
    file_type: str | None, detected: str | None, model_type: str | None, kind: str | None
) -> None:
    assert layouts.kind_of(file_type, detected, model_type) == kind


def test_base_models_belong_to_families() -> None:
    said = ["SD 1.5", "SD 1.5 LCM", "SD 2.1 768", "SDXL 1.0", "Pony", "Illustrious", "Flux.1 D", "Wan Video", None]
    assert [layouts.base_family(name) for name in said] == [
        "sd1", "sd1", "sd2", "sdxl", "sdxl", "sdxl", "flux1", "wan-video", "other",
    ]  # fmt: skip


VALUES = {
    "file_name": "thanos", "base_model": "SD 1.5", "first_tag": None, "model_name": "Thanos / Portrait",
    "version_id": 7, "author": "..", "sha8": "ab12cd34",
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{file_name}", "thanos.safetensors"),
        ("{base_model}/{first_tag}", "SD 1.5/untagged/thanos.safetensors"),  # folders only: the name stays
        ("{model_name}-{sha8}", "Thanos _ Portrait-ab12cd34.safetensors"),
        ("{author}/{file_name}", "unnamed/thanos.safetensors"),
        ("x/", "x/thanos.safetensors"),
    ],
)
def test_templates_make_names(template: str, path: str) -> None:
    layouts.check_template(template)
    assert str(layouts.file_path(template, VALUES, ".safetensors")) == path


@pytest.mark.parametrize("template", ["{nonsense}", "../{file_name}", "/abs/{file_name}", "{file_name", "", "a/../b"])
def test_templates_that_leave_the_folder_or_name_nothing_known_are_refused(template: str) -> None:
    with pytest.raises(UsageError):
        layouts.check_template(template)


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=100))
def test_no_name_of_a_stranger_leaves_the_folder(name: str, model: str, author: str) -> None:
    values = {"file_name": name, "model_name": model, "author": author}
    path = layouts.file_path("{author}/{model_name}/{file_name}", values, ".safetensors")
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert len(path.parts) == 3
    for part in path.parts:
        assert len(part.encode()) <= 180
        assert not set(part) & set('<>:"/\\|?*')
        assert part == part.rstrip(" .")
    assert path.suffix == ".safetensors"
    assert layouts.numbered(path, 42).name.endswith("-v42.safetensors")
    assert len(layouts.numbered(path, 42).name.encode()) <= 180


def test_numbered_keeps_the_suffix() -> None:
    assert layouts.numbered(PurePosixPath("a/b.v2.safetensors"), 9) == PurePosixPath("a/b.v2-v9.safetensors")


# --- what the UIs' own settings say -----------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_comfyui_reads_extra_model_paths(tmp_path: Path) -> None:
    text = (
        "a111:\n  base_path: ../webui\n  loras: |\n    models/Lora\n    models/LyCORIS\n  vae: models/VAE\n"
        "mine:\n  base_path: /mnt/big\n  is_default: true\n  checkpoints: sd\n  unknown_thing: 5\n"
    )
    write(tmp_path / "extra_model_paths.yaml", text)
    found = layouts.folders(layouts.layout("comfyui"), tmp_path)
    assert found["checkpoint"] == [Path("/mnt/big/sd"), tmp_path / "models/checkpoints"]  # is_default: written there
    assert found["lora"] == [
        tmp_path / "models/loras", tmp_path.parent / "webui/models/Lora", tmp_path.parent / "webui/models/LyCORIS",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "a: &a [*a]", "\x00", "a:\n  base_path: 5\n  loras: [x]\n"])
def test_a_broken_extra_model_paths_adds_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "extra_model_paths.yaml").write_bytes(text.encode())
    assert layouts.folders(layouts.layout("comfyui"), tmp_path)["lora"] == [tmp_path / "models/loras"]


def test_settings_of_the_other_uis_move_folders(tmp_path: Path) -> None:
    write(
        tmp_path / "a/webui-user.sh",
        '#export COMMANDLINE_ARGS="--ckpt-dir /no"\n'
        "export COMMANDLINE_ARGS=\"--xformers --ckpt-dir /mnt/sd --lora-dir '/mnt/my loras' --api\"\n",
    )
    found = layouts.folders(layouts.layout("a1111"), tmp_path / "a")
    assert found["checkpoint"][0] == Path("/mnt/sd")
    assert found["lora"][0] == Path("/mnt/my loras")
    write(tmp_path / "f/config.txt", '{"path_loras": ["/x/one", "/x/two"], "path_vae": "../vae"}')
    found = layouts.folders(layouts.layout("fooocus"), tmp_path / "f")
    assert found["lora"][:2] == [Path("/x/one"), Path("/x/two")]
    assert found["vae"][0] == tmp_path / "vae"
    write(tmp_path / "n/config.json", '{"lora_dir": "/nx/lora", "other": 1}')
    assert layouts.folders(layouts.layout("sdnext"), tmp_path / "n")["lora"][0] == Path("/nx/lora")
    write(tmp_path / "s/Data/Settings.fds", "#x\nPaths:\n\tModelRoot: Models;/mnt/more\n\tSDLoraFolder: Lora\n")
    found = layouts.folders(layouts.layout("swarmui"), tmp_path / "s")
    assert found["lora"][:2] == [tmp_path / "s/Models/Lora", Path("/mnt/more/Lora")]


@pytest.mark.parametrize(
    ("ui", "paths"),
    [
        ("comfyui", ["folder_paths.py", "extra_model_paths.yaml.example"]),
        ("comfyui", ["models/checkpoints/", "models/loras/"]),
        ("a1111", ["webui.py", "launch.py", "models/Stable-diffusion/"]),
        ("forge", ["webui.py", "launch.py", "modules_forge/"]),
        ("sdnext", ["webui.py", "launch.py", "models/UNET/", "html/locale_en.json"]),
        ("swarmui", ["Models/Lora/", "Data/Settings.fds"]),
        ("fooocus", ["fooocus_version.py", "models/checkpoints/", "models/loras/"]),
        ("invokeai", ["invokeai.yaml", "models/sd-1/main/"]),
        (None, ["pictures/", "a.safetensors"]),
    ],
)
def test_a_ui_is_recognised_by_what_only_it_has(tmp_path: Path, ui: str | None, paths: list[str]) -> None:
    for path in paths:
        if path.endswith("/"):
            (tmp_path / path).mkdir(parents=True)
        else:
            write(tmp_path / path, "")
    assert layouts.recognise(tmp_path) == ui


def test_an_unknown_ui_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as refused:
        layouts.layout("drawthings")
    assert "comfyui" in (refused.value.hint or "")


# --- our block in extra_model_paths.yaml ------------------------------------------------------------------------------

EXAMPLES = {
    "empty": "",
    "comments": "# Rename this to extra_model_paths.yaml\n#config for a1111 ui\n",
    "a block": "a111:\n    base_path: path/to/webui/  # mine\n    loras: |\n         models/Lora\n",
    "no newline at the end": "a111:\n  base_path: x",
    "crlf": "a111:\r\n  base_path: x\r\n",
    "umlauts": 'mine:\n  base_path: "/home/jürgen/модели"\n',
}


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_our_block_goes_in_and_out_without_touching_a_byte(text: str) -> None:
    view = Path('/home/me/hub "ctl"/views/comfyui')
    with_ours = layouts.with_block(text, layouts.yaml_block(view))
    read = yaml.safe_load(with_ours)
    assert read["hubctl"]["base_path"] == str(view)
    assert read["hubctl"]["loras"] == "loras"
    assert with_ours.startswith(text)
    assert layouts.with_block(with_ours, layouts.yaml_block(view)) == with_ours
    moved = layouts.with_block(with_ours, layouts.yaml_block(Path("/elsewhere")))
    assert yaml.safe_load(moved)["hubctl"]["base_path"] == "/elsewhere"
    assert layouts.with_block(moved, None) == text


@pytest.mark.parametrize(
    "text", ["a: [", "- a\n- b\n", "hubctl:\n  base_path: mine\n", "a: 1\n...\n", "{a: 1}\n", "a: &x 1\na: 2\n..."]
)
def test_a_file_our_block_does_not_fit_is_left_alone(text: str) -> None:
    with pytest.raises(UsageError):
        layouts.with_block(text, layouts.yaml_block(Path("/v")))
