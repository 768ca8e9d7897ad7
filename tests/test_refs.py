"""What a person may type, and what must be refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hubctl import refs
from hubctl.errors import InvalidReference
from hubctl.hubs import query
from hubctl.refs import AirRef, AmbiguousId, HashRef, ImageRef, ModelRef, ModelVersionRef, NameRef, PathRef, VersionRef

READ = {
    "4201": AmbiguousId(4201),
    " 4201 ": AmbiguousId(4201),
    "4201@130072": ModelVersionRef(4201, 130072),
    "model:4201": ModelRef(4201),
    "version:130072": VersionRef(130072),
    "image:9173928": ImageRef(9173928),
    "https://civitai.com/models/4201": ModelRef(4201),
    "https://civitai.com/models/4201/realistic-vision": ModelRef(4201),
    "https://civitai.red/models/4201?modelVersionId=130072": ModelVersionRef(4201, 130072),
    "https://www.civitai.com/models/4201/x?modelVersionId=130072#c": ModelVersionRef(4201, 130072),
    "HTTPS://CIVITAI.GREEN/models/4201": ModelRef(4201),
    "https://civitai.com/api/v1/models/4201": ModelRef(4201),
    "https://civitai.com/api/v1/model-versions/130072": VersionRef(130072),
    "https://civitai.com/api/download/models/130072?type=Model&fileId=7": VersionRef(130072, 7),
    "https://api.civitai.com/download/models/130072": VersionRef(130072),
    "https://civitai.com/images/9173928": ImageRef(9173928),
    "http://127.0.0.1:8642/models/1": ModelRef(1),
    "civitai.com/models/4201/realistic-vision?modelVersionId=130072": ModelVersionRef(4201, 130072),
    "www.civitai.red/images/9173928": ImageRef(9173928),
    "https://civitai.blue/models/4201": ModelRef(4201),
    "https://civitai.com/model-versions/130072": VersionRef(130072),
    "https://civitai.com/api/v1/model-versions/by-hash/abcdef1234": HashRef("ABCDEF1234", "AutoV2"),
    "https://image.civitai.com/xG1nkqKTMzGDvpLrqFT7WA/0d1f/width=450/9173928.jpeg": ImageRef(9173928),
    "https://image-b2.civitai.com/file/civitai/9173928.png": ImageRef(9173928),
    "0xABCDEF1234": HashRef("ABCDEF1234", "AutoV2"),
    "abcdef123456": HashRef("ABCDEF123456", "AutoV3"),
    "ab" * 32: HashRef("AB" * 32, "SHA256 or BLAKE3"),
    "hash:12345678": HashRef("12345678", "AutoV1 or CRC32"),
    "more  details": NameRef("more details"),
    "Ümläut ✨ LoRA": NameRef("Ümläut ✨ LoRA"),
}


@pytest.mark.parametrize("text", READ)
def test_reads(text: str) -> None:
    assert refs.parse(text) == READ[text]


@pytest.mark.parametrize("text", ["urn:air:sd1:lora:civitai:4201@130072", "civitai:4201@130072"])
def test_reads_airs(text: str) -> None:
    found = refs.parse(text)
    assert isinstance(found, AirRef)
    assert (found.air.id, found.air.version) == ("4201", "130072")


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "0@1", "4201@99999999999", "version:abc", "e3b0c44298fc", "0xe3b0c44298fc", "https://civitai.com/user/x",
        "https://civitai.com/models/abc", "https://", "http://[::1", "urn:air:", "./no-such-file.png", "a\x1b[2Jb",
        "x" * 5000,        "https://civitai.com/models/4201?modelVersionId=-1", "hash:xyz", "n" * 300,
    ],
)  # fmt: skip
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        refs.parse(text)
    assert caught.value.hint
    assert "\x1b" not in caught.value.message


def test_an_existing_file_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert refs.parse("picture.png") == PathRef(Path("picture.png"))


@given(st.text(max_size=3000))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidReference):
        assert refs.parse(text) is not None


@given(st.integers(1, refs.LARGEST_ID), st.integers(1, refs.LARGEST_ID), st.sampled_from(["com", "red", "green"]))
def test_urls_say_what_ids_say(model: int, version: int, domain: str) -> None:
    page = f"https://civitai.{domain}/models/{model}/any-slug?modelVersionId={version}"
    assert refs.parse(page) == refs.parse(f"{model}@{version}")


HOSTS = st.sampled_from(["civitai.com", "civitai.red", "www.civitai.com", "civitai.green", "nas.local:8642"])


@given(st.integers(1, refs.LARGEST_ID), st.integers(1, refs.LARGEST_ID), HOSTS)
def test_every_route_of_a_hub_says_the_same(version: int, file: int, host: str) -> None:
    said = {
        refs.parse(f"https://{host}/api/v1/model-versions/{version}"),
        refs.parse(f"https://{host}/model-versions/{version}"),
        refs.parse(f"https://{host}/api/download/models/{version}"),
        refs.parse(f"version:{version}"),
    }
    assert said == {VersionRef(version)}
    assert refs.parse(f"https://{host}/api/download/models/{version}?type=Model&fileId={file}") == VersionRef(
        version, file
    )


@given(st.sampled_from([8, 10, 12, 64]), st.data(), st.sampled_from(["", "0x", "hash:", "hash:0x"]))
def test_hashes_are_read_in_any_spelling(length: int, data: st.DataObject, lead: str) -> None:
    digits = data.draw(st.text("0123456789abcdefABCDEF", min_size=length, max_size=length))
    assume(not digits.isdigit() and not digits.lower().startswith("e3b0c44298fc"))
    found = refs.parse(lead + digits)
    assert isinstance(found, HashRef)
    assert found.value == digits.upper()
    assert refs.parse(lead + digits.lower()) == found


@given(st.text("0123456789abcdef-:/@?=.%& civitaomdels", max_size=120))
def test_text_of_the_right_letters_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidReference):
        refs.parse(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("lora", ("LORA",)), ("LORA", ("LORA",)), ("loras", ("LORA",)), ("locon", ("LoCon",)), ("lycoris", ("LoCon",)),
        ("ti", ("TextualInversion",)), ("embedding", ("TextualInversion",)), ("embeddings", ("TextualInversion",)),
        ("textual-inversion", ("TextualInversion",)), ("Textual Inversion", ("TextualInversion",)),
        ("ckpt", ("Checkpoint",)), ("model", ("Checkpoint",)), ("checkpoints", ("Checkpoint",)), ("vae", ("VAE",)),
        ("control-net", ("Controlnet",)), ("pose", ("Poses",)), ("workflow", ("Workflows", "ComfyWorkflows")),
    ],
)  # fmt: skip
def test_type_words(text: str, names: tuple[str, ...]) -> None:
    assert query.model_type(text) == names


@pytest.mark.parametrize(
    ("text", "name"),
    [("sd1.5", "SD 1.5"), ("SD 1.5", "SD 1.5"), ("sd-1.5", "SD 1.5"), ("sdxl", "SDXL 1.0"), ("flux.1 d", "Flux.1 D"),
     ("pony", "Pony"), ("illustrious", "Illustrious"), ("Brand New 7", "Brand New 7")],
)  # fmt: skip
def test_base_model_words(text: str, name: str) -> None:
    assert query.base_model(text) == name


def test_other_words_and_near_misses() -> None:
    assert query.sort_name("downloads") == "Most Downloaded"
    assert query.period_name("all time") == "AllTime"
    assert query.model_types(["lora,locon", "lora"]) == ("LORA", "LoCon")
    with pytest.raises(InvalidReference) as caught:
        query.model_type("chekpoint")
    assert "Checkpoint" in (caught.value.hint or "")
    for ask in (query.model_type, query.base_model, query.sort_name, query.period_name):
        with pytest.raises(InvalidReference):
            ask("z" * 10_000)
