"""This library as a hub, asked over real sockets: shapes, filters, cursors, ranges, and what hostile clients get."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shelves import PNG, Json, content, image, keep, model, put

from hubctl.hubs import query as client_words
from registry import Manifest, Registry, wire
from registry.errors import Busy, KnownError, UsageError, VerificationFailed
from registry.http import Card, Holding, RegistryCatalog, create_app, query, running, serve, vocabulary
from registry.http.catalog import HeldFile, StoredImage
from registry.http.files import disposition, parse_range
from registry.http.server import bind, check

TOKEN = "sekrit-7Qx"


class Asked:
    """A server's answers, by path."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url = url
        self.client = httpx.Client(base_url=url, headers=headers, timeout=20)

    def __call__(self, path: str, status: int = 200, **headers: str) -> Any:
        response = self.client.get(path, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def ids(self, path: str) -> list[int]:
        return [item["id"] for item in self(path)["items"]]


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    with Registry.open(home) as opened:
        yield opened


@pytest.fixture
def ask(registry: Registry) -> Iterator[Asked]:
    with running(create_app(RegistryCatalog(registry))) as url:
        asked = Asked(url)
        with asked.client:
            yield asked


def without_urls(data: Any) -> Any:
    """Everything but the addresses, which are this server's own, and the AIR, which it adds to a model's versions."""
    if isinstance(data, dict):
        return {key: without_urls(value) for key, value in data.items() if key not in ("downloadUrl", "url", "air")}
    return [without_urls(item) for item in data] if isinstance(data, list) else data


def recorded_models(shared: Path) -> list[Json]:
    found = []
    for path in sorted((shared / "fixtures/civitai-api").rglob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        items = data.get("items", [data]) if isinstance(data, dict) else []
        found += [item for item in items if isinstance(item, dict) and item.get("modelVersions")]
    return list({item["id"]: item for item in found}.values())


def recorded_versions(shared: Path) -> list[Json]:
    found = []
    for path in sorted((shared / "fixtures/civitai-api").rglob("*version*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("modelId") and data.get("files"):
            found.append(data)
    return found


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_recorded_models_come_back_as_they_were(shared: Path, registry: Registry, ask: Asked) -> None:
    models = recorded_models(shared)
    expected = {data["id"]: put(registry, data) for data in models}
    served = 0
    for number, data in expected.items():
        if not all(version["files"] for version in data["modelVersions"]):
            continue  # a version without a file is nothing that could be here
        assert without_urls(ask(f"/api/v1/models/{number}")) == without_urls(data)
        served += 1
    assert served >= 20
    listed = {item["id"]: item for item in walk(ask, "/api/v1/models?limit=7&nsfw=true")}
    shown = [number for number in expected if number in listed and not expected[number].get("minor")]
    assert len(shown) >= 20
    for number in shown:
        assert listed[number].keys() == expected[number].keys()


def test_addresses_are_the_servers_own(registry: Registry, ask: Asked) -> None:
    put(registry, model(3, version={"images": [{"url": "https://cdn.test/x/width=450/88.jpeg", "nsfwLevel": 1}]}))
    registry.put_picture(88, PNG)
    version = ask("/api/v1/models/3")["modelVersions"][0]
    assert version["downloadUrl"] == f"{ask.url}/api/download/models/31"
    assert version["files"][0]["downloadUrl"] == f"{ask.url}/api/download/models/31?fileId=301"
    assert version["images"][0]["url"] == f"{ask.url}/images/civitai/88.png"
    assert httpx.get(version["images"][0]["url"]).content == PNG
    through_name = httpx.get(ask.url.replace("127.0.0.1", "localhost") + "/api/v1/models/3").json()
    assert "//localhost:" in through_name["modelVersions"][0]["downloadUrl"]


def test_recorded_versions_come_back_with_everything_they_had(shared: Path, registry: Registry, ask: Asked) -> None:
    versions = recorded_versions(shared)
    assert len(versions) >= 3
    for data in versions:
        files = {file["id"]: keep(registry, content(file["id"])) for file in data["files"]}
        named = {"id": data["modelId"], "type": "LORA", **data.get("model", {}), "modelVersions": []}
        registry.add(
            Manifest("civitai", wire.Model.model_validate(named), wire.ModelVersion.model_validate(data), files)
        )
        answer = ask(f"/api/v1/model-versions/{data['id']}")
        assert {key: answer[key] for key in data.keys() - {"files", "images", "downloadUrl", "model"}} == {
            key: data[key] for key in data.keys() - {"files", "images", "downloadUrl", "model"}
        }
        assert data.get("model", {}).items() <= answer["model"].items()
        assert without_urls(answer["images"]) == without_urls(data.get("images", []))
        for before, after in zip(data["files"], answer["files"], strict=True):
            assert before.keys() <= after.keys()
            assert isinstance(after["primary"], bool)
        assert answer["air"].startswith("urn:air:")


def test_an_image_has_the_shape_of_the_route_it_is_asked_for_on(shared: Path, registry: Registry, ask: Asked) -> None:
    recorded = json.loads(
        (shared / "fixtures/civitai-api/civitai-civitai-developer-docs/documented-examples.json").read_text()
    )["images: images"]["items"][0]
    put(registry, model(3, version={"images": [recorded]}))
    assert ask("/api/v1/images?modelVersionId=31&withMeta=true&nsfw=Soft")["items"] == [recorded]
    on_model = ask("/api/v1/models/3")["modelVersions"][0]["images"][0]
    on_version = ask("/api/v1/model-versions/31")["images"][0]
    models = recorded_models(shared)
    newer = [i for m in models for v in m["modelVersions"] for i in v.get("images", []) if "nsfwLevel" in i]
    assert set.intersection(*(set(i) for i in newer)) <= on_model.keys()
    assert "meta" not in on_model
    older = [i for v in recorded_versions(shared) for i in v.get("images", []) if "meta" in i and "nsfwLevel" in i]
    assert set.intersection(*(set(i) for i in older)) - {"metadata", "availability"} <= on_version.keys()
    assert (on_version["nsfwLevel"], on_version["meta"]) == (2, recorded["meta"])


def test_an_image_recorded_with_its_version_is_one_of_the_gallery(registry: Registry, ask: Asked) -> None:
    shape = {
        "url": "https://cdn.test/k/width=450/77.jpeg", "nsfwLevel": 4, "width": 8, "height": 8, "type": "image",
        "hasMeta": True, "meta": {"prompt": "x"},
    }  # fmt: skip
    hidden = {**shape, "url": "https://cdn.test/k/width=450/78.jpeg", "hasMeta": False}
    put(registry, model(3, version={"images": [shape, hidden]}))
    shown = {i["id"]: i for i in ask("/api/v1/images?modelVersionId=31&withMeta=1&browsingLevel=31")["items"]}
    assert (shown[77]["nsfwLevel"], shown[77]["nsfw"], shown[77]["browsingLevel"]) == ("Mature", True, 4)
    assert shown[77]["meta"] == {"prompt": "x"}
    assert shown[78]["meta"] is None
    assert ask.ids("/api/v1/images?modelVersionId=31") == []


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("imageId=71", None),
        ("imageId=71&withMeta=true", {"id": 71, "meta": {"prompt": "picture 71", "seed": 71}}),
        ("imageId=71&withMeta=true&flatMeta=true", {"prompt": "picture 71", "seed": 71}),
        ("modelId=3&withMeta=true", {"id": 71, "meta": {"prompt": "picture 71", "seed": 71}}),
        ("modelVersionId=31&withMeta=true", {"prompt": "picture 71", "seed": 71}),
        ("modelVersionId=31&withMeta=true&flatMeta=false", {"id": 71, "meta": {"prompt": "picture 71", "seed": 71}}),
        ("withMeta=true", {"prompt": "picture 71", "seed": 71}),
    ],
)
def test_meta_is_wrapped_where_the_hub_wraps_it(registry: Registry, ask: Asked, parameters: str, expected: Any) -> None:
    put(registry, model(3, version={"images": [image(71, meta={"meta": {"meta": image(71)["meta"]}})]}))
    assert [item["meta"] for item in ask(f"/api/v1/images?{parameters}")["items"]] == [expected]


def test_only_what_is_here_is_offered(registry: Registry, ask: Asked) -> None:
    data = model(3)
    first = data["modelVersions"][0]
    data["modelVersions"] = [{**first, "id": 32, "files": [{**first["files"][0], "id": 302}]}, first]
    put(registry, data, versions={31})
    assert [v["id"] for v in ask("/api/v1/models/3")["modelVersions"]] == [31]
    ask("/api/v1/model-versions/32", 404)
    ask("/api/download/models/32", 404)
    registry.blob_path(registry.installed()[0].files[0].sha256).unlink()
    assert ask("/api/v1/models/3", 404) == {"error": "No model with id 3"}
    assert ask.ids("/api/v1/models") == []


def test_a_file_that_is_not_here_is_not_offered_and_another_is_the_primary(registry: Registry, ask: Asked) -> None:
    data = model(3)
    [file] = data["modelVersions"][0]["files"]
    other = {**file, "id": 309, "name": "full.ckpt", "metadata": {"format": "PickleTensor"}}
    del other["primary"]
    data["modelVersions"][0]["files"] = [file, other]
    registry.add(
        Manifest(
            "civitai",
            wire.Model.model_validate(data),
            wire.ModelVersion.model_validate(data["modelVersions"][0]),
            {309: keep(registry, b"pickled")},
        )
    )
    [shown] = ask("/api/v1/models/3")["modelVersions"][0]["files"]
    assert (shown["id"], shown["primary"], shown["sizeKB"] * 1024) == (309, True, 7)
    assert shown["hashes"].keys() == {"SHA256", "AutoV2"}  # what was declared is of other bytes
    ask("/api/download/models/31?fileId=301", 404)
    assert ask.client.get("/api/download/models/31").content == b"pickled"


def test_an_archived_model_is_here_all_the_same(registry: Registry, ask: Asked) -> None:
    put(registry, model(3, mode="Archived"))
    assert "mode" not in ask("/api/v1/models/3")


def test_what_changes_meanwhile_is_seen(registry: Registry, ask: Asked, home: Path) -> None:
    put(registry, model(1))
    assert ask.ids("/api/v1/models") == [1]
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nfrom registry import Registry\nfrom shelves import model, put\n"
        f"with Registry.open(Path({str(home)!r})) as r: put(r, model(2))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert sorted(ask.ids("/api/v1/models")) == [1, 2]
    registry.remove(registry.plan_remove([("civitai", 11)]))
    assert ask.ids("/api/v1/models") == [2]
    ask("/api/v1/model-versions/11", 404)


def test_a_number_belongs_to_one_hub(registry: Registry, ask: Asked) -> None:
    put(registry, model(1), source="civitai")
    put(registry, model(1, name="Something else", version_id=99), source="nas")
    put(registry, model(2, name="Mine"), source="nas")
    assert ask("/api/v1/models/1")["name"] == "Model 1"
    ask("/api/v1/model-versions/99", 404)
    assert sorted(ask.ids("/api/v1/models")) == [1, 2]
    put(registry, model(1, version_id=12), source="nas")  # the same model, mirrored
    assert {v["id"] for v in ask("/api/v1/models/1")["modelVersions"]} == {11, 12}


def test_mini(registry: Registry, ask: Asked) -> None:
    put(registry, model(3))
    found = ask("/api/v1/model-versions/mini/31?modelFileId=301")
    assert found["air"] == "urn:air:sd1:lora:civitai:3@31+301"
    assert found["downloadUrls"] == [f"{ask.url}/api/download/models/31?fileId=301"]
    assert (found["fileName"], found["format"]) == ("m3.safetensors", "SafeTensor")
    assert ask("/api/v1/model-versions/mini/31?modelFileId=5", 404) == {"error": "Model file 5 not found in version 31"}


def test_vocabularies_are_those_the_client_knows(registry: Registry, ask: Asked) -> None:
    put(registry, model(3, type="Hologram", version={"baseModel": "SD 9"}))
    enums = ask("/api/v1/enums")
    assert set(client_words.MODEL_TYPES) | {"Hologram"} == set(enums["ModelType"])
    assert set(client_words.BASE_MODELS) | {"SD 9"} <= set(enums["BaseModel"])
    assert set(enums["ActiveBaseModel"]) < set(enums["BaseModel"])
    assert set(client_words.SORTS) == set(vocabulary.MODEL_SORTS) == set(query.ORDERS)
    assert ask.ids("/api/v1/models?types=Hologram&baseModels=SD+9") == [3]


def test_creators_and_tags(registry: Registry, ask: Asked) -> None:
    for number in range(1, 6):
        put(registry, model(number, creator={"username": f"maker{number % 2}"}, tags=["hero", f"tag {number}"]))
    found = ask("/api/v1/creators?limit=1")
    assert found["items"] == [
        {"username": "maker0", "modelCount": 2, "link": f"{ask.url}/api/v1/models?username=maker0"}
    ]
    assert found["metadata"]["totalItems"] == 2
    assert [i["username"] for i in httpx.get(found["metadata"]["nextPage"]).json()["items"]] == ["maker1"]
    assert [i["username"] for i in ask("/api/v1/creators?query=KER1")["items"]] == ["maker1"]
    assert [i["name"] for i in ask("/api/v1/tags?limit=2")["items"]] == ["hero", "tag 1"]
    assert ask("/api/v1/tags?query=Tag&page=3&limit=2")["items"] == [
        {"name": "tag 5", "link": f"{ask.url}/api/v1/models?tag=tag 5"}
    ]
    assert ask("/api/v1/tags?page=4&limit=2")["items"] == []
    assert ask("/api/v1/tags?limit=0", 400)[0]["path"] == ["limit"]


# --- filters and cursors ----------------------------------------------------------------------------------------------


def walk(ask: Asked, path: str, *, most: int = 200) -> list[Json]:
    """Every item, following nextPage."""
    items, pages = [], 0
    while path and pages < most:
        page = ask(path.removeprefix(ask.url))
        items += page["items"]
        path, pages = page["metadata"].get("nextPage", ""), pages + 1
        assert ("nextCursor" in page["metadata"]) == bool(path)
    return items


@pytest.fixture
def varied(registry: Registry) -> None:
    soft, hard = image(55), image(56, nsfwLevel="X", nsfw=True, browsingLevel=8)
    put(registry, model(1, name="Thanos Portrait", tags=["villain", "Comic Book"]))
    put(registry, model(2, type="Checkpoint", creator={"username": "Some One"}))
    put(registry, model(3, version={"baseModel": "SDXL 1.0"}, creator={"username": "odd.name"}))
    put(registry, model(4, nsfwLevel=28, version={"images": [hard]}))
    put(registry, model(5, nsfwLevel=31, minor=True, version={"images": [soft, hard]}))
    put(registry, model(6, poi=True))
    put(registry, model(7, allowCommercialUse="{Image,Rent}", availability="EarlyAccess"))
    put(registry, model(8, version={"publishedAt": "2999-01-01T00:00:00.000Z", "supportsGeneration": True}))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", {1, 2, 3, 5, 7, 8}),
        ("nsfw=true", {1, 2, 3, 4, 7, 8}),
        ("nsfw=FALSE", {1, 2, 3, 5, 7, 8}),
        ("types=Checkpoint", {2}),
        ("types=Checkpoint&types=LORA", {1, 2, 3, 5, 7, 8}),
        ("types[]=Checkpoint", {1, 2, 3, 5, 7, 8}),
        ("baseModels=SDXL+1.0", {3}),
        ("baseModels=sdxl+1.0", set()),
        ("baseModels=SDXL+1.0,SD+1.5", set()),
        ("tag=comic+book", {1}),
        ("tagname=VILLAIN", {1}),
        ("tag=unheard", set()),
        ("username=Some+One", None),
        ("username=some_one", None),
        ("user=Some+One", {2}),
        ("user=odd.name", {3}),
        ("username=MAKER", {1, 5, 7, 8}),
        ("query=thanos", {1}),
        ("query=than", {1}),
        ("query=word3", {3}),
        ("query=%22%22+OR+*", set()),
        ("query=model&types=Checkpoint", {2}),
        ("query=", {1, 2, 3, 5, 7, 8}),
        ("ids=1,2&ids=3", {1, 2, 3}),
        ("modelVersionIds=11,31", {1, 3}),
        ("period=Week", {8}),
        ("supportsGeneration=false", {8}),
        ("availability=EarlyAccess", {7}),
        ("allowCommercialUse=Rent&allowCommercialUse=Sell", {7}),
        ("fileFormats=SafeTensor&fileFormats=SafeTensor", {1, 2, 3, 5, 7, 8}),
        ("fileFormats=GGUF&fileFormats=GGUF", set()),
        ("earlyAccess=true", set()),
        ("unknown=1", {1, 2, 3, 5, 7, 8}),
    ],
)
@pytest.mark.usefixtures("varied")
def test_filters(ask: Asked, parameters: str, expected: set[int] | None) -> None:
    if expected is None:
        assert ask(f"/api/v1/models?{parameters}", 404) == {"message": "User not found"}
    else:
        assert set(ask.ids(f"/api/v1/models?{parameters}")) == expected


@pytest.mark.usefixtures("varied")
def test_pictures_in_lists_keep_to_the_maturity_asked_for(ask: Asked) -> None:
    [found] = ask("/api/v1/models?ids=5")["items"]
    assert [i["id"] for i in found["modelVersions"][0]["images"]] == [55]
    assert [i["id"] for i in ask("/api/v1/models/5")["modelVersions"][0]["images"]] == [55, 56]


@pytest.mark.parametrize("sort", vocabulary.MODEL_SORTS)
def test_cursors_visit_each_model_once_in_every_order(registry: Registry, ask: Asked, sort: str) -> None:
    for number in range(1, 12):
        put(registry, model(number))
    path = f"/api/v1/models?sort={sort.replace(' ', '+')}"
    whole = ask(f"{path}&limit=100")
    assert whole["metadata"] == {}
    order = [item["id"] for item in whole["items"]]
    assert sorted(order) == list(range(1, 12))
    for limit in (1, 4, 10, 11):
        assert [item["id"] for item in walk(ask, f"{path}&limit={limit}")] == order
    likes = [item["stats"]["thumbsUpCount"] for item in whole["items"]]
    dates = [item["modelVersions"][0]["publishedAt"] for item in whole["items"]]
    if sort == "Highest Rated":
        assert likes == sorted(likes, reverse=True)
    if sort in ("Newest", "Oldest"):
        assert dates == sorted(dates, reverse=sort == "Newest")


def test_a_cursor_survives_what_comes_and_goes(registry: Registry, ask: Asked) -> None:
    for number in range(1, 7):
        put(registry, model(number))
    first = ask("/api/v1/models?sort=Most+Downloaded&limit=2")
    assert [i["id"] for i in first["items"]] == [6, 5]
    registry.remove(registry.plan_remove([("civitai", 51)]))
    put(registry, model(9))
    following = ask(first["metadata"]["nextPage"].removeprefix(ask.url))
    assert [i["id"] for i in following["items"]] == [4, 3]


def test_text_search_is_walked_too(registry: Registry, ask: Asked) -> None:
    for number in range(1, 10):
        put(registry, model(number, name=f"Robot {number}", description="<p>robot</p>"))
    assert sorted(i["id"] for i in walk(ask, "/api/v1/models?query=robot&limit=2")) == list(range(1, 10))


def test_page_moves_nothing_but_shows_in_the_metadata(registry: Registry, ask: Asked) -> None:
    for number in range(1, 5):
        put(registry, model(number))
    found = ask("/api/v1/models?page=3&limit=2")
    assert found["metadata"]["currentPage"] == 3
    assert found["metadata"]["pageSize"] == 2
    assert [i["id"] for i in found["items"]] == ask.ids("/api/v1/models?limit=2")
    assert ask("/api/v1/models?limit=0")["metadata"] == {}
    assert len(ask("/api/v1/models?limit=0")["items"]) == 1


def test_a_page_is_never_larger_than_a_client_takes(registry: Registry, ask: Asked) -> None:
    for number in range(1, 101):
        put(registry, model(number, description="ö" * 150_000))
    response = ask.client.get("/api/v1/models")
    assert len(response.content) < 20 << 20
    assert 10 < len(response.json()["items"]) < 100
    assert len(walk(ask, "/api/v1/models")) == 100


@pytest.mark.parametrize("sort", ["Most+Reactions", "Most+Comments", "Newest", "Oldest"])
@pytest.mark.parametrize("scope", ["", "modelVersionId=31&", "modelId=3&", "username=painter&", "postId=2&"])
def test_images_are_walked_in_every_order(registry: Registry, ask: Asked, scope: str, sort: str) -> None:
    put(registry, model(3, version={"images": [image(n) for n in range(20, 27)]}))
    registry.put_images(31, [wire.Image.model_validate(image(n)) for n in range(27, 30)])
    put(registry, model(4, version={"images": [image(n) for n in range(40, 43)]}))
    expected = {*range(20, 30), *(range(40, 43) if scope in ("", "username=painter&") else ())}
    path = f"/api/v1/images?{scope}sort={sort}"
    order = ask.ids(f"{path}&limit=200")
    assert set(order) == expected
    for limit in (1, 3):
        assert [i["id"] for i in walk(ask, f"{path}&limit={limit}")] == order
    if sort in ("Newest", "Oldest"):
        assert order == sorted(order, reverse=sort == "Newest")
    if scope.startswith("modelVersionId") and sort == "Most+Reactions":
        assert [n % 5 for n in order] == sorted((n % 5 for n in order), reverse=True)


def test_the_cursor_of_exact_questions_is_a_number(registry: Registry, ask: Asked) -> None:
    put(registry, model(3, version={"images": [image(n) for n in range(20, 27)]}))
    assert ask("/api/v1/images?modelId=3&limit=2")["metadata"]["nextCursor"] == 25
    assert ask("/api/v1/images?modelVersionId=31&limit=2")["metadata"]["nextCursor"] == "2"
    assert ask("/api/v1/images?imageId=24")["metadata"] == {}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("type=video", [23]),
        ("nsfw=None", [20, 21, 23]),
        ("nsfw=Soft", [20, 21, 22, 23]),
        ("nsfw=true", [24]),
        ("browsingLevel=2", [22]),
        ("browsingLevel=31", [20, 21, 22, 23, 24]),
        ("baseModels=SDXL+1.0", [21]),
        ("requiringMeta=true", [20, 21, 23]),
        ("period=Day", []),
        ("username=nobody", []),
        ("postId=7", []),
        ("tags=5", []),
    ],
)
def test_filters_of_images(registry: Registry, ask: Asked, parameters: str, expected: list[int]) -> None:
    images = [
        image(20),
        image(21, baseModel="SDXL 1.0"),
        image(22, nsfwLevel="Soft", browsingLevel=2, meta=None),
        image(23, type="video"),
        image(24, nsfwLevel="X", browsingLevel=16),
        image(25, minor=True),
        image(26, nsfwLevel="Blocked", browsingLevel=32),
    ]
    put(registry, model(3, version={"images": images}))
    assert sorted(ask.ids(f"/api/v1/images?modelVersionId=31&{parameters}")) == expected
    assert sorted(ask.ids(f"/api/v1/images?modelId=3&{parameters}")) == expected


# --- refusals ---------------------------------------------------------------------------------------------------------

ZOD = {"name": "ZodError"}


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/api/v1/models?limit=101", 400, ZOD),
        ("/api/v1/models?limit=ten", 400, ZOD),
        ("/api/v1/models?limit=9999999999999999999999", 400, ZOD),
        ("/api/v1/models?types=lora", 400, ZOD),
        ("/api/v1/models?types=LORA,LoCon", 400, ZOD),
        ("/api/v1/models?sort=Best", 400, ZOD),
        ("/api/v1/models?period=Decade", 400, ZOD),
        ("/api/v1/models?nsfw=maybe", 400, ZOD),
        ("/api/v1/models?nsfw=", 400, ZOD),
        ("/api/v1/models?browsingLevel=1", 400, ZOD),
        ("/api/v1/models?excludedUserIds=1", 400, ZOD),
        ("/api/v1/models?fileFormats=GGUF", 400, ZOD),
        ("/api/v1/models?query=a&query=b", 400, ZOD),
        ("/api/v1/models?ids=x", 400, ZOD),
        ("/api/v1/models?page=0", 400, ZOD),
        ("/api/v1/models?favorites=false", 401, "Unauthorized"),
        ("/api/v1/models?page=2&query=a", 400, "Cannot use page param with query search. Use cursor-based pagination."),
        ("/api/v1/models?page=11&limit=100", 429, "You've requested too many pages, please use cursors instead"),
        ("/api/v1/models/0", 400, "✖"),
        ("/api/v1/models/2147483648", 400, "✖"),
        ("/api/v1/models/-1", 400, "✖"),
        ("/api/v1/models/one", 400, "✖ Invalid input: expected number, received NaN\n  → at id"),
        ("/api/v1/models/٣", 400, "✖"),
        ("/api/v1/models/5", 404, "No model with id 5"),
        ("/api/v1/model-versions/0", 400, "Missing modelVersionId"),
        ("/api/v1/model-versions/5", 404, "Model not found"),
        ("/api/v1/model-versions/by-hash/e3b0c44298fc", 404, "Model not found"),
        ("/api/v1/model-versions/by-hash/zz", 404, "Model not found"),
        ("/api/v1/model-versions/mini/x", 400, "✖"),
        ("/api/v1/images?limit=201", 400, ZOD),
        ("/api/v1/images?username=a.b", 400, ZOD),
        ("/api/v1/images?baseModels=SD+0.1", 400, ZOD),
        ("/api/v1/images?cursor=feed:x", 400, ZOD),
        ("/api/v1/images?imageId=x", 400, ZOD),
        ("/api/v1/images?page=11&limit=100", 429, "You've requested too many pages, please use cursors instead"),
        ("/api/v1/images?sort=Random", 400, "Random sort requires a collectionId"),
        ("/api/v1/me", 401, "Unauthorized"),
        ("/api/download/models/5", 404, "File not found"),
        ("/api/download/models/x", 400, "✖"),
        ("/api/download/models/5?size=huge", 400, "✖"),
        ("/api/v1/collections", 404, "Not found"),
        ("/", 404, "Not found"),
        ("/api/v1/models/", 404, "Not found"),
    ],
)
def test_refusals_have_the_hubs_shape(ask: Asked, path: str, status: int, body: Any) -> None:
    error = ask(path, status)["error"]
    if body is ZOD:
        assert error["name"] == "ZodError"
        [issue, *_] = json.loads(error["message"])
        assert issue.keys() >= {"code", "path", "message"}
    else:
        assert error.startswith(body)


@pytest.mark.parametrize("cursor", ["x", "1", "1|2", "1|2|3|4", "1|2|x", "-1|2|3", "9" * 40, "|||", "%00"])
def test_a_cursor_of_another_order_is_refused(ask: Asked, cursor: str) -> None:
    assert ask(f"/api/v1/models?cursor={cursor}", 400)["message"].startswith("Invalid cursor: expected 3 value(s)")


def test_other_methods(ask: Asked) -> None:
    for method in ("POST", "DELETE", "OPTIONS", "PUT"):
        response = ask.client.request(method, "/api/v1/models")
        assert (response.status_code, response.json()) == (405, {"error": "Method not allowed"})
    assert ask.client.head("/api/v1/models").status_code == 200


# --- hashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AutoV1", "AutoV2", "AutoV3", "SHA256", "CRC32", "BLAKE3"])
def test_any_kind_of_hash_finds_its_version(registry: Registry, ask: Asked, kind: str) -> None:
    expected = put(registry, model(0xABC))
    put(registry, model(0xABD))
    value = expected["modelVersions"][0]["files"][0]["hashes"][kind]
    for text in (value.upper(), value.lower()):
        assert ask(f"/api/v1/model-versions/by-hash/{text}")["modelId"] == 0xABC
    ask(f"/api/v1/model-versions/by-hash/{value[:-1]}", 404)


def test_a_long_autov3_is_found_by_its_twelve_digits_and_the_earliest_of_several_wins(
    registry: Registry, ask: Asked
) -> None:
    digits = "813EA5FB1C67F3CBF1C4DFF5D392EE5E073A2C41DCF3AB36CF6CDD872C4E7690"
    for number in (5, 3, 4):
        data = model(number)
        data["modelVersions"][0]["files"][0]["hashes"] = {"AutoV3": digits if number == 5 else digits[:12]}
        put(registry, data)
    assert ask(f"/api/v1/model-versions/by-hash/{digits[:12]}")["id"] == 31


def test_many_hashes_at_once(registry: Registry, ask: Asked) -> None:
    hashes = [
        put(registry, model(number))["modelVersions"][0]["files"][0]["hashes"]["SHA256"] for number in range(1, 5)
    ]
    asked = [hashes[2].lower(), "0" * 64, hashes[0], hashes[0]]
    found = ask.client.post("/api/v1/model-versions/by-hash", json=asked).json()
    assert {version["id"] for version in found} == {31, 11}
    assert all(version["downloadUrl"].startswith(ask.url) for version in found)
    ids = ask.client.post("/api/v1/model-versions/by-hash/ids", json=[*asked, *(f"{n:064x}" for n in range(9000))])
    assert sorted(ids.json(), key=lambda item: item["modelId"]) == [
        {"modelVersionId": 11, "modelId": 1, "hash": hashes[0]},
        {"modelVersionId": 31, "modelId": 3, "hash": hashes[2]},
    ]
    assert ask.client.post("/api/v1/model-versions/by-hash", json=[]).json() == []


@pytest.mark.parametrize(
    "body", ["{}", "[1]", '["ab"]', "nonsense", "[" * 100_000, json.dumps(["0" * 64] * 101), '"' + "0" * 64 + '"', ""]
)
def test_a_body_that_is_no_list_of_hashes(ask: Asked, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = ask.client.post("/api/v1/model-versions/by-hash", content=body, headers=headers)
    assert response.status_code == 400
    assert isinstance(response.json()["error"], str)
    assert ask.client.post("/api/v1/model-versions/by-hash", content="[]").status_code == 400


def test_a_body_without_end_is_cut_off(ask: Asked) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b'"' + b"0" * (1 << 16)

    headers = {"Content-Type": "application/json"}
    try:
        response = ask.client.post("/api/v1/model-versions/by-hash/ids", content=endless(), headers=headers)
        assert response.status_code == 413
    except httpx.TransportError:
        pass  # hung up on while still talking
    assert ask("/api/v1/tags")["items"] == []


# --- downloads --------------------------------------------------------------------------------------------------------

BYTES = bytes(range(256)) * 40


@pytest.fixture
def file(registry: Registry, ask: Asked) -> str:
    put(registry, model(3), data=lambda _: BYTES)
    return f"{ask.url}/api/download/models/31?fileId=301"


@pytest.mark.parametrize(
    ("header", "status", "span"),
    [
        (None, 200, (0, 10240)),
        ("bytes=0-", 206, (0, 10240)),
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=100-199", 206, (100, 200)),
        ("BYTES = 100 - 199", 206, (100, 200)),
        ("bytes=10000-99999", 206, (10000, 10240)),
        ("bytes=-40", 206, (10200, 10240)),
        ("bytes=-99999", 206, (0, 10240)),
        ("bytes=10239-", 206, (10239, 10240)),
        ("bytes=10240-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=99999999999999999999-", 200, (0, 10240)),
        ("bytes=9-3", 200, (0, 10240)),
        ("bytes=-", 200, (0, 10240)),
        ("bytes=a-b", 200, (0, 10240)),
        ("bytes=٣-", 200, (0, 10240)),
        ("lines=0-5", 200, (0, 10240)),
        ("bytes=0-1,5-6", 200, (0, 10240)),
        ("bytes=" + ",".join("0-" for _ in range(5000)), 200, (0, 10240)),
    ],
)
def test_ranges(file: str, header: str | None, status: int, span: tuple[int, int] | None) -> None:
    headers = {"Range": header.encode()} if header else {}
    response = httpx.get(file, headers=headers)
    assert response.status_code == status
    if span is None:
        assert response.headers["content-range"] == "bytes */10240"
        return
    assert response.content == BYTES[slice(*span)]
    assert response.headers["content-length"] == str(span[1] - span[0])
    assert response.headers["accept-ranges"] == "bytes"
    if status == 206:
        assert response.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/10240"


def test_a_file_is_continued_only_while_it_is_the_same(registry: Registry, file: str) -> None:
    [held] = registry.installed()[0].files
    etag = httpx.head(file).headers["etag"]
    assert etag == f'"sha256:{held.sha256}"'
    part = {"Range": "bytes=5-"}
    assert httpx.get(file, headers={**part, "If-Range": etag}).content == BYTES[5:]
    for other in ('"sha256:00"', f"W/{etag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        response = httpx.get(file, headers={**part, "If-Range": other})
        assert (response.status_code, response.content) == (200, BYTES)
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        response = httpx.get(file, headers={"If-None-Match": known})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)


def test_head_tells_everything_and_sends_nothing(file: str) -> None:
    response = httpx.head(file, headers={"Range": "bytes=5-6"})
    assert response.status_code == 200
    assert response.headers["content-length"] == "10240"
    assert response.headers["content-disposition"] == 'attachment; filename="m3.safetensors"'
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.content == b""


def test_twenty_at_once_get_their_own_ranges(registry: Registry, ask: Asked) -> None:
    data = os.urandom(6 << 20)
    put(registry, model(3), data=lambda _: data)
    step = -(-len(data) // 20)

    def fetch(number: int) -> bytes:
        headers = {"Range": f"bytes={number * step}-{(number + 1) * step - 1}"}
        response = httpx.get(f"{ask.url}/api/download/models/31", headers=headers, timeout=60)
        assert response.status_code == 206
        return response.content

    with ThreadPoolExecutor(20) as pool:
        assert b"".join(pool.map(fetch, range(20))) == data


def test_a_client_that_hangs_up_takes_nothing_down(registry: Registry, ask: Asked) -> None:
    data = os.urandom(24 << 20)
    put(registry, model(3), data=lambda _: data)
    for _ in range(5):
        with httpx.stream("GET", f"{ask.url}/api/download/models/31") as response:
            next(response.iter_raw())
    assert ask.client.get("/api/download/models/31", headers={"Range": "bytes=-9"}).content == data[-9:]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", 301),
        ("fileId=302", 302),
        ("fileId=302&format=SafeTensor", 302),
        ("format=PickleTensor", 302),
        ("type=Model&format=SafeTensor&size=full&fp=fp32", 303),
        ("fp=fp32", None),  # the hub's way: 301 scores best, then it does not fit
        ("type=VAE", 304),
        ("type=Config", None),
        ("format=GGUF", None),
        ("fileId=999", None),
    ],
)
def test_which_file_a_download_means(registry: Registry, ask: Asked, parameters: str, expected: int | None) -> None:
    data = model(3)
    shapes = [
        (301, "Model", {"format": "SafeTensor", "size": "pruned", "fp": "fp16"}),
        (302, "Model", {"format": "PickleTensor", "size": "pruned", "fp": "fp16"}),
        (303, "Model", {"format": "SafeTensor", "size": "full", "fp": "fp32"}),
        (304, "VAE", {"format": "SafeTensor"}),
    ]
    data["modelVersions"][0]["files"] = [
        {"id": number, "name": f"{number}.bin", "type": kind, "metadata": known} for number, kind, known in shapes
    ]
    put(registry, data)
    response = ask.client.get(f"/api/download/models/31?{parameters}")
    assert response.status_code == (200 if expected else 404)
    if expected:
        assert response.content == content(expected)
        immutable = "immutable" in response.headers["cache-control"]
        assert immutable == ("fileId" in parameters)  # which file a bare version means may change


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        'a"; evil="b.safetensors',
        "x\r\nSet-Cookie: a=b",
        "naïve 😀 %41.pt",
        "",
        "\ud800.pt",
        "a" * 999,
    ],
)
def test_names_of_strangers_stay_one_header(registry: Registry, ask: Asked, name: str) -> None:
    data = model(3)
    data["modelVersions"][0]["files"][0]["name"] = name.encode("utf-8", "replace").decode()
    put(registry, data)
    response = ask.client.get("/api/download/models/31")
    assert response.content == content(301)
    assert "set-cookie" not in response.headers
    assert "/" not in response.headers["content-disposition"].replace("UTF-8''", "")


@given(st.text(max_size=300))
def test_any_name_makes_a_header(name: str) -> None:
    header = disposition(name.encode("utf-8", "replace").decode())
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_range_lies_in_the_file(start: int, end: int, size: int) -> None:
    for header in (f"bytes={start}-{end}", f"bytes={start}-", f"bytes=-{end}"):
        if (found := parse_range(header, size)) is not None:
            assert 0 <= found[0] <= found[1] <= size


@given(st.text(max_size=100))
def test_any_range_header_is_answered(text: str) -> None:
    found = parse_range(text, 100)
    assert found is None or 0 <= found[0] <= found[1] <= 100


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "suffix", "media"),
    [
        (b"\x89PNG\r\n\x1a\n", "png", "image/png"),
        (b"\xff\xd8\xff\xe0", "jpeg", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "webp", "image/webp"),
        (b"GIF89a", "gif", "image/gif"),
        (b"\x00\x00\x00\x20ftypavif", "avif", "image/avif"),
        (b"\x00\x00\x00\x20ftypisom", "mp4", "video/mp4"),
        (b"\x1a\x45\xdf\xa3", "webm", "video/webm"),
    ],
)
def test_pictures_are_what_their_bytes_are(
    registry: Registry, ask: Asked, start: bytes, suffix: str, media: str
) -> None:
    registry.put_picture(88, PNG)
    kept = registry.put_picture(88, start + b"rest")
    assert kept.name == f"88.{suffix}"
    assert registry.picture(88) == kept
    put(registry, model(3, version={"images": [image(88)]}))
    url = ask("/api/v1/images?imageId=88")["items"][0]["url"]
    assert url == f"{ask.url}/images/civitai/88.{suffix}"
    response = httpx.get(url)
    assert (response.content, response.headers["content-type"]) == (start + b"rest", media)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(url, headers={"Range": "bytes=1-2"}).content == start[1:3]


def test_what_is_no_picture_is_not_kept(registry: Registry) -> None:
    for data in (b"", b"<svg onload=alert(1)>", b"<html>", b"MZ"):
        with pytest.raises(VerificationFailed):
            registry.put_picture(1, data)
    assert registry.picture(1) is None
    assert registry.put_picture(1, PNG, source="../../evil").is_relative_to(registry.home / "images")


@pytest.mark.parametrize(
    "path",
    [
        "/images/civitai/../../index.db", "/images/..%2f..%2f..%2fetc/passwd", "/images/civitai/..%2f..%2findex.db",
        "/images/%2e%2e/index.db", "/images/civitai/88.db", "/images/civitai/88", "/images/civitai/%00.png",
        "/images/civitai/088.png", "/images/civitai/88.jpeg", "/images/nobody/88.png", "/images//88.png",
        "/api/download/models/..%2f..%2findex.db", "/api/v1/model-versions/by-hash/..%2f..%2f", "//etc/passwd",
        "/api/v1/models/../../../index.db",
    ],
)  # fmt: skip
def test_paths_lead_nowhere_else(registry: Registry, ask: Asked, path: str) -> None:
    registry.put_picture(88, PNG)
    status, body = raw(ask.url, f"GET {path} HTTP/1.1")
    assert status in (400, 404)
    assert b"error" in body


def raw(url: str, *lines: str) -> tuple[int, bytes]:
    """A request as typed: nothing is normalised on the way."""
    import socket

    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        text = "\r\n".join((*lines, *(() if any(x.startswith("Host:") for x in lines) else (f"Host: {host}:{port}",))))
        connection.sendall((text + "\r\nConnection: close\r\n\r\n").encode())
        data = b""
        while piece := connection.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(registry: Registry) -> Iterator[Asked]:
    put(registry, model(3, version={"images": [image(88)]}))
    registry.put_picture(88, PNG)
    with running(create_app(RegistryCatalog(registry), token=TOKEN)) as url:
        asked = Asked(url)
        with asked.client:
            yield asked


EVERYWHERE = (
    "/api/v1/models", "/api/v1/models/3", "/api/v1/model-versions/31", "/api/v1/images", "/api/v1/tags",
    "/api/v1/creators", "/api/v1/enums", "/api/v1/me", "/api/download/models/31", "/images/civitai/88.png", "/nowhere",
)  # fmt: skip


@pytest.mark.parametrize("path", EVERYWHERE)
def test_a_token_is_asked_for_everywhere(locked: Asked, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer"}):
        response = locked.client.get(path, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"] == "Unauthorized"
        assert ("message" in response.json()) == path.startswith("/api/download")
    good = 404 if path == "/nowhere" else 200
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"token {TOKEN}"}):
        assert locked.client.get(path, headers=headers).status_code == good
    assert locked.client.get(path, params={"token": TOKEN}).status_code == good
    wrong = {"Authorization": "Bearer wrong"}
    assert locked.client.get(path, params={"token": TOKEN}, headers=wrong).status_code == 401


def test_the_token_is_neither_repeated_nor_logged(
    registry: Registry, locked: Asked, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    put(registry, model(4))
    page = locked.client.get("/api/v1/models", params={"token": TOKEN, "limit": 1})
    assert TOKEN not in page.text
    assert "limit=1" in page.json()["metadata"]["nextPage"]
    locked.client.get("/api/v1/creators", params={"token": TOKEN, "limit": 1})
    locked.client.get("/api/v1/models/x", params={"token": TOKEN})
    raw(locked.url, f"GET /bad\x00path?token={TOKEN} HTTP/1.1")
    said = capfd.readouterr()
    mine = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert TOKEN not in said.out + said.err + mine
    assert locked.client.get("/api/v1/me", params={"token": TOKEN}).json()["username"]


def test_a_name_that_was_pointed_at_this_machine_learns_nothing(ask: Asked, locked: Asked) -> None:
    port = ask.url.rsplit(":", 1)[1]
    for host in ("evil.test", f"evil.test:{port}", "127.0.0.1.evil.test", "192.168.0.9", "[2001:db8::1]"):
        status, body = raw(ask.url, "GET /api/v1/models HTTP/1.1", f"Host: {host}")
        assert (status, json.loads(body)["error"]) == (403, "Forbidden")
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1", "127.9.9.9", "[::1]:80"):
        assert raw(ask.url, "GET /api/v1/models HTTP/1.1", f"Host: {host}")[0] == 200
    for host in ("a b", "x/../y", "", "h:port", "a@b"):
        assert raw(ask.url, "GET /api/v1/models HTTP/1.1", f"Host: {host}")[0] == 400
    assert raw(locked.url, f"GET /api/v1/models?token={TOKEN} HTTP/1.1", "Host: nas.local")[0] == 200


def test_behind_a_proxy_with_tls_addresses_are_secure(registry: Registry, ask: Asked) -> None:
    put(registry, model(3))
    found = ask("/api/v1/model-versions/31", **{"X-Forwarded-Proto": "https"})
    assert found["downloadUrl"].startswith("https://127.0.0.1:")
    assert ask("/api/v1/model-versions/31", **{"X-Forwarded-Proto": "javascript"})["downloadUrl"].startswith("http://")


def test_pages_of_other_origins_may_not_ask(ask: Asked) -> None:
    refused = ({"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"})
    for headers in refused:
        assert ask.client.get("/api/v1/models", headers=headers).status_code == 403
    allowed = (
        {"Origin": ask.url}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, {"Sec-Fetch-Site": "none"},
    )  # fmt: skip
    for headers in allowed:
        response = ask.client.get("/api/v1/models", headers=headers)
        assert response.status_code == 200
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "nas.local", "example.org", "localhost.evil.test"])
def test_other_machines_need_a_token(ask: Asked, host: str) -> None:
    with pytest.raises(UsageError, match="needs --token"):
        serve(create_app(RegistryCatalog(Registry(Path("nowhere")))), host=host)
    check(host, "t0ken")


@pytest.mark.parametrize("token", ["", " ", "a b", "tökén", "a\n"])
def test_a_token_can_be_sent_as_a_header(token: str) -> None:
    with pytest.raises(UsageError):
        check("127.0.0.1", token)


def test_a_taken_port_is_said(ask: Asked) -> None:
    with (
        pytest.raises(Busy, match="is taken"),
        running(create_app(RegistryCatalog(Registry(Path("x")))), port=int(ask.url.rsplit(":", 1)[1])),
    ):
        pass
    with pytest.raises(KnownError):
        bind("nonsense.invalid", 0)


# --- strangers' data --------------------------------------------------------------------------------------------------


def test_json_that_is_none_still_goes_out_as_json(registry: Registry, ask: Asked) -> None:
    odd = {"prompt": "a \ud83d half", "cfgScale": float("nan"), "deep": [[float("inf")]], "seed": 2**80}
    put(
        registry, model(3, version={"images": [image(88, meta=odd)]}, stats="none", creator=[], tags="x", nsfwLevel="?")
    )
    put(registry, model(4, description="\ud800", stats={"thumbsUpCount": float("nan")}))
    put(registry, model(5, creator={"username": "z\ud800"}, tags=["\udfff"]))
    [shown] = ask("/api/v1/images?imageId=88&withMeta=true&flatMeta=true")["items"]
    assert (shown["meta"]["cfgScale"], shown["meta"]["deep"], shown["meta"]["seed"]) == (None, [[None]], 2**80)
    assert sorted(ask.ids("/api/v1/models")) == [3, 4, 5]
    assert ask("/api/v1/creators")["items"][0]["username"] == "maker"
    assert len(ask("/api/v1/tags")["items"]) == 2


def test_one_item_nobody_can_write_down_does_not_spoil_a_page(registry: Registry, ask: Asked) -> None:
    put(registry, model(3, version={"images": [image(88)]}))
    deep: Any = {"prompt": "x"}
    for _ in range(940):
        deep = {"d": deep}
    row = ("civitai", 89, 31, 1, json.dumps(image(89, meta={"prompt": "x", "d": deep})))
    with registry.transaction() as db:
        db.execute("INSERT INTO image(source, image_id, version_id, position, raw) VALUES (?,?,?,?,?)", row)
    assert 88 in ask.ids("/api/v1/images?withMeta=true")


def test_a_damaged_manifest_hides_one_version_only(registry: Registry, ask: Asked) -> None:
    put(registry, model(3))
    put(registry, model(4))
    path = registry.home / "manifests/civitai/3/31.json"
    path.write_bytes(b'{"format": 1, "model"')
    ask("/api/v1/model-versions/31", 404)
    ask("/api/download/models/31", 404)
    assert ask.ids("/api/v1/models?sort=Oldest") == [4]


PARAMETERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["limit", "page", "cursor", "query", "types", "sort", "ids", "nsfw", "tag", "username", "baseModels",
             "imageId", "modelVersionId", "browsingLevel", "token", "period", "fileFormats"]
        ),
        st.one_of(st.text(max_size=30), st.integers().map(str), st.sampled_from(["true", "LORA", "1|2|3", "Newest"])),
    ),
    max_size=6,
)  # fmt: skip


@given(PARAMETERS)
def test_any_parameters_are_understood_or_refused(pairs: Sequence[tuple[str, str]]) -> None:
    params: dict[str, list[str]] = {}
    for name, value in pairs:
        params.setdefault(name, []).append(value)
    cards = {n: Card(n, f"m{n}", "LORA", (query.VersionCard(n, "civitai"),), likes=n % 2) for n in range(1, 9)}
    for read in (
        lambda: query.model_page(cards, query.model_query(params), 10**12, [3, 99]),
        lambda: query.model_page(cards, query.model_query(params), 10**12),
        lambda: query.image_cursor(query.image_query(params)),
        lambda: query.name_query(params),
    ):
        try:
            read()
        except query.Refusal as refusal:
            assert 400 <= refusal.status < 500
            json.dumps(refusal.body)


# --- other catalogs ---------------------------------------------------------------------------------------------------


class OneModel:
    """The smallest catalog there is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cards(self) -> Mapping[int, Card]:
        return {1: Card(1, "One", "LORA", (query.VersionCard(2, "mine"),))}

    def search(self, text: str) -> Sequence[int]:
        return [1] if text in "one" else []

    def holding(self, version_id: int) -> Holding | None:
        if version_id != 2:
            return None
        held = HeldFile(3, self.path, "ab" * 32, self.path.stat().st_size, {})
        return Holding("mine", 1, 2, {"id": 1, "name": "One", "type": "LORA"}, {"id": 2, "name": "v"}, (held,))

    def with_hashes(self, values: Sequence[str], kind: str | None = None) -> list[tuple[str, int]]:
        return [(value, 2) for value in values if value.lower() == "ab" * 32]

    def version_images(self, version_id: int) -> list[StoredImage]:
        return []

    def images(self, query: query.ImageQuery, after: int | None, count: int) -> tuple[list[StoredImage], None]:
        return [], None

    def picture(self, source: str, image_id: int) -> Path | None:
        return None


def test_anything_can_be_a_catalog(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"bytes")
    with running(create_app(OneModel(path))) as url:
        ask = Asked(url)
        assert ask("/api/v1/models/1")["modelVersions"][0]["files"][0]["primary"] is True
        assert ask.ids("/api/v1/models?query=one") == [1]
        assert ask("/api/v1/model-versions/by-hash/" + "AB" * 32)["id"] == 2
        assert ask.client.get("/api/download/models/2").content == b"bytes"
        path.write_bytes(b"other bytes")
        assert ask.client.get("/api/download/models/2").content == b"other bytes"


# --- the command ------------------------------------------------------------------------------------------------------


def test_serve_runs_until_ctrl_c(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, model(3))
    command = [sys.executable, "-m", "hubctl", "serve", "--port", "0", "--json", "--token", TOKEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            text = ""
            while not text.rstrip().endswith("}"):
                text += process.stdout.readline()
            said = json.loads(text)
            assert (said["schema"], said["models"], said["token"]) == ("hubctl.serve/1", 1, True)
            assert TOKEN not in text
            response = httpx.get(f"{said['url']}/api/v1/models?token={TOKEN}")
            assert response.json()["items"][0]["id"] == 3
            assert httpx.get(f"{said['url']}/api/v1/models").status_code == 401
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr.read() == ""
        finally:
            guard.cancel()
            process.kill()
