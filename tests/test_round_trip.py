"""Our client against our server: what one machine has, another finds, reads and installs."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shelves import PNG, content, image, keep, model, put

from hubctl import errors
from hubctl.config import Settings, load
from hubctl.hubs.civitai import Civitai
from hubctl.hubs.query import SearchQuery
from registry import Registry
from registry.http import RegistryCatalog, create_app, running

LORA = Path(__file__).parents[1] / "hubctl/demo/assets/thnos.safetensors"


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Registry]:
    """The library of the other machine."""
    with Registry.open(tmp_path / "there") as registry:
        yield registry


@pytest.fixture
def hub(there: Registry) -> Iterator[Civitai]:
    with running(create_app(RegistryCatalog(there))) as url, Civitai(url, name="nas", patience=5) as client:
        yield client


def ids(hub: Civitai, **query: Any) -> list[int]:
    return [found.id for found in hub.search(SearchQuery(**query))]


# --- finding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {1, 2, 3, 4}),
        ({"text": "thanos"}, {1}),
        ({"text": "nothing like it"}, set()),
        ({"types": ("Checkpoint",)}, {2}),
        ({"types": ("Checkpoint", "LORA")}, {1, 2, 3, 4}),
        ({"base_models": ("SDXL 1.0",)}, {3}),
        ({"tag": "Villain"}, {1}),
        ({"tag": "unheard"}, set()),
        ({"creator": "maker"}, {1, 3, 4}),
        ({"creator": "odd.name"}, {2}),
        ({"nsfw": True}, {1, 2, 3, 4, 5}),
        ({"period": "Week"}, {4}),
        ({"sort": "Newest", "limit": 1}, {4}),
        ({"sort": "Most Downloaded", "limit": 2}, {4, 3}),
        ({"text": "model", "types": ("LORA",), "base_models": ("SD 1.5",), "tag": "hero", "creator": "maker"}, {4}),
    ],
)
def test_search_with_every_filter(there: Registry, hub: Civitai, query: dict[str, Any], expected: set[int]) -> None:
    put(there, model(1, name="Thanos Portrait", tags=["villain"]))
    put(there, model(2, type="Checkpoint", creator={"username": "odd.name"}))
    put(there, model(3, version={"baseModel": "SDXL 1.0"}))
    put(there, model(4, version={"publishedAt": "2999-01-01T00:00:00.000Z"}))
    put(there, model(5, nsfwLevel=28))
    assert set(ids(hub, **query)) == expected


def test_a_long_list_is_followed_to_its_end(there: Registry, hub: Civitai) -> None:
    for number in range(1, 131):
        put(there, model(number, name=f"Robot {number}"))
    assert ids(hub, limit=1000, sort="Oldest") != []
    assert sorted(ids(hub, limit=1000)) == list(range(1, 131))
    assert sorted(ids(hub, limit=1000, text="robot")) == list(range(1, 131))
    assert len(ids(hub, limit=105)) == 105


def test_an_unknown_creator_is_not_found(there: Registry, hub: Civitai) -> None:
    put(there, model(1))
    with pytest.raises(errors.NotFound):
        ids(hub, creator="nobody")


def test_a_model_and_a_version_are_read_whole(there: Registry, hub: Civitai) -> None:
    put(there, model(3, description="<p>Strength 0.8</p>", allowCommercialUse="{Image}"))
    found = hub.model(3)
    assert (found.name, found.type, found.tag_names, found.commercial_uses) == ("Model 3", "LORA", ["hero"], {"Image"})
    version = hub.version(31)
    assert (version.model_id, version.trained_words, version.air) == (3, ["word3"], "urn:air:sd1:lora:civitai:3@31")
    assert version.files[0].sha256 == hashlib.sha256(content(301)).hexdigest()
    assert version.files[0].size_bytes == len(content(301))
    for missing in (lambda: hub.model(9), lambda: hub.version(9), lambda: hub.image(9), lambda: hub.by_hash("ab" * 32)):
        with pytest.raises(errors.NotFound):
            missing()


def test_hashes_in_all_their_forms(there: Registry, hub: Civitai) -> None:
    [version] = put(there, model(3))["modelVersions"]
    hashes = version["files"][0]["hashes"]
    for value in hashes.values():
        assert hub.by_hash(value).id == 31
    assert hub.by_hash(f"0x{hashes['AutoV3'].lower()}").id == 31
    sha256 = hashes["SHA256"].lower()
    found = hub.by_hashes([sha256, "cd" * 32])
    assert {key: each.id for key, each in found.items()} == {sha256: 31}
    assert found[sha256].files[0].download_url == f"{hub.url}/api/download/models/31?fileId=301"
    assert hub.ids_by_hash([sha256, "cd" * 32]) == {sha256: (3, 31)}


def test_images_and_their_bytes(there: Registry, hub: Civitai) -> None:
    put(there, model(3, version={"images": [image(n) for n in range(80, 90)]}))
    put(there, model(4, version={"images": [image(95, nsfwLevel="X", browsingLevel=8)]}))
    there.put_picture(88, PNG)
    found = hub.image(88)
    assert found.meta == {"prompt": "picture 88", "seed": 88}
    assert hub.picture(found.url or "") == PNG
    assert hub.image(95).image_id == 95
    assert sorted(i.image_id or 0 for i in hub.images(model_id=3, limit=50)) == list(range(80, 90))
    assert len(list(hub.images(model_version_id=31, limit=4))) == 4
    assert list(hub.images(model_version_id=41)) == []
    assert [i.image_id for i in hub.images(model_version_id=41, nsfw=True)] == [95]
    shown = hub.version(31).images
    assert 88 in {i.image_id for i in shown}
    assert all(i.meta for i in shown)


def test_lists_of_names(there: Registry, hub: Civitai) -> None:
    put(there, model(3, tags=["hero", "titan"]))
    assert [entry["username"] for entry in hub.creators("mak")] == ["maker"]
    assert [entry["name"] for entry in hub.tags("ti")] == ["titan"]
    assert "LORA" in hub.enums()["ModelType"]


# --- the key ----------------------------------------------------------------------------------------------------------


def test_a_wrong_key_and_none_at_all_are_told_apart(there: Registry) -> None:
    put(there, model(3, version={"images": [image(88)]}))
    there.put_picture(88, PNG)
    with running(create_app(RegistryCatalog(there), token="right-key")) as url:
        with Civitai(url, name="nas", token="right-key") as hub:
            assert hub.me()["status"] == "active"
            assert ids(hub) == [3]
            assert hub.picture(hub.image(88).url or "") == PNG
        for key, refusal in (("wrong", errors.TokenRejected), (None, errors.LoginRequired)):
            with Civitai(url, name="nas", token=key) as hub:
                for ask in (
                    lambda hub=hub: ids(hub),
                    lambda hub=hub: hub.model(3),
                    lambda hub=hub: hub.by_hashes(["ab" * 32]),
                    lambda hub=hub: hub.me(),
                    lambda hub=hub: hub.picture(f"{hub.url}/images/civitai/88.png"),
                ):
                    with pytest.raises(refusal):
                        ask()


# --- installing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(home: Path) -> Settings:
    return dataclasses.replace(load({"home": str(home)}), connections=2)


def lora(there: Registry, data: bytes) -> None:
    shown = [image(88, meta={"prompt": "thnos <lora:thnos:0.9>", "seed": 5, "steps": 20}), image(89)]
    named = {"id": 301, "name": "thnos.safetensors", "type": "Model", "metadata": {"format": "SafeTensor"}}
    version = {"files": [{**named, "primary": True}], "images": shown, "trainedWords": ["thnos"]}
    put(there, model(3, name="Thanos", version=version), data=lambda _: data)
    there.put_picture(88, PNG)


def test_what_is_there_is_installed_here(there: Registry, hub: Civitai, settings: Settings) -> None:
    pytest.importorskip("registry.detect")
    pytest.importorskip("hubctl.recommend")
    from hubctl import install

    lora(there, LORA.read_bytes())
    for text in ("3", "3@31", "thanos", hashlib.sha256(LORA.read_bytes()).hexdigest(), f"{hub.url}/models/3"):
        with Registry.open(settings.home / text[:2]) as here:
            plan = install.plan(text, hub, here, settings)
            assert plan.size == LORA.stat().st_size
            done = install.execute(plan, hub, here, settings)
            assert done.path.read_bytes() == LORA.read_bytes()
            assert done.installed.trigger_words == ("thnos",)
            kept = here.images(31, source="civitai")  # whose ids these are, not where the bytes came from
            assert {i.image_id: i.meta for i in kept}[88] == {
                "prompt": "thnos <lora:thnos:0.9>",
                "seed": 5,
                "steps": 20,
            }
            assert not install.execute(install.plan(text, hub, here, settings), hub, here, settings).changed


def test_a_third_machine_installs_from_the_second(there: Registry, hub: Civitai, settings: Settings) -> None:
    pytest.importorskip("registry.detect")
    pytest.importorskip("hubctl.recommend")
    from hubctl import install

    lora(there, LORA.read_bytes())
    with Registry.open(settings.home) as here, Registry.open(settings.home / "third") as third:
        install.execute(install.plan("3", hub, here, settings), hub, here, settings)
        with running(create_app(RegistryCatalog(here))) as url, Civitai(url, name="second") as second:
            done = install.execute(install.plan("3", second, third, settings), second, third, settings)
            assert done.path.read_bytes() == LORA.read_bytes()
            assert second.image(88).meta == hub.image(88).meta
            assert second.model(3).dump().keys() == hub.model(3).dump().keys()


def test_a_download_is_resumed_and_verified(there: Registry, hub: Civitai, home: Path) -> None:
    from hubctl.hubs.download import fetch

    data = bytes(range(256)) * 40_000
    sha256 = keep(there, data)
    put(there, model(3), data=lambda _: data)
    url = hub.download_url(hub.version(31), hub.version(31).files[0])
    stop = threading.Event()
    with Registry.open(home) as here:
        with pytest.raises(KeyboardInterrupt), here.reserve(sha256, size=len(data), key=url) as partial:

            def cut(done: int, total: int | None) -> None:
                if done > 3_000_000 and not stop.is_set():
                    stop.set()
                    raise KeyboardInterrupt

            fetch(hub.transport, url, partial, size=len(data), sha256=sha256, limit_rate=8_000_000, on_bytes=cut)
        resumed: list[int] = []
        with here.reserve(sha256, size=len(data), key=url) as partial:
            fetch(
                hub.transport,
                url,
                partial,
                size=len(data),
                sha256=sha256,
                on_event=lambda kind, **facts: resumed.append(facts.get("offset", 0)) if kind == "resumed" else None,
            )
            blob = partial.seal(sha256)
        assert blob.sha256 == sha256
        assert here.blob_path(sha256).read_bytes() == data
    assert resumed
    assert resumed[0] > 0


def test_a_file_that_was_replaced_there_is_refused_here(there: Registry, hub: Civitai, home: Path) -> None:
    """The same id, other bytes than were promised: named, and nothing is kept under a good name."""
    from hubctl.hubs.download import fetch

    promised = put(there, model(3))["modelVersions"][0]["files"][0]["hashes"]["SHA256"].lower()
    url = hub.download_url(hub.version(31), hub.version(31).files[0])
    there.blob_path(promised).chmod(0o644)
    there.blob_path(promised).write_bytes(b"x" * len(content(301)))
    with (
        Registry.open(home) as here,
        here.reserve(promised, size=len(content(301)), key=url) as partial,
        pytest.raises(errors.VerificationFailed),
    ):
        fetch(hub.transport, url, partial, size=len(content(301)), sha256=promised)
    with Registry.open(home) as here:
        assert not here.has(promised)


def test_the_hub_may_be_named_after_the_command(
    there: Registry, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hubctl.cli import run

    put(there, model(3))
    with running(create_app(RegistryCatalog(there), token="right-key")) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBCTL_TOKEN", "right-key")
        assert run(["whoami", "--hub", url, "--json"]) == 0
        assert url in capsys.readouterr().out
        patch.setenv("HUBCTL_TOKEN", "wrong-key")
        assert run(["search", "--hub", url, "--json"]) == 3
        assert "token_rejected" in capsys.readouterr().out
