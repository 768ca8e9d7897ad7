"""Any hub that speaks Civitai's v1 API: civitai.com, its sister sites, and `hubctl serve`.

Quirks this client knows (the numbers are those of real clients' bug trackers): cursors are opaque and pages may be
short or empty; `types` repeat as keys; a false switch is sent by leaving it out; an unknown tag returns everything; a
POST by hash gives URLs without a host; images wrap their `meta` up to three times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

from hubctl.errors import HubError, InvalidReference, NotFound
from hubctl.hubs.query import SearchQuery
from hubctl.hubs.refusals import looks_like_html
from hubctl.hubs.transport import USER_AGENT, Transport, read_bounded, same_hub
from registry import wire

STRANGERS = 200  # consecutive models without the tag that was asked for before we stop
EMPTY_PAGES = 20  # consecutive pages without anything new before we stop following cursors
PAGE = 100
IMAGES_PAGE = 100
HASHES_PER_CALL, IDS_PER_CALL = 100, 10_000
LARGEST_ID = 2**31 - 1
LARGEST_PICTURE = 128 * 1024 * 1024
EVERYTHING = "31"  # browsing level mask: PG … XXX
PERMANENTLY_EMPTY = "E3B0C44298FC"
GENERATION_KEYS = frozenset({"prompt", "negativePrompt", "seed", "steps", "sampler", "cfgScale", "comfy", "resources"})

T = TypeVar("T", bound=wire.Wire)


class Civitai:
    """A hub by its base URL. Every method raises HubError (or NotFound) with a sentence; see `hubctl.errors`."""

    def __init__(
        self,
        base_url: str,
        *,
        name: str | None = None,
        token: str | None = None,
        offline: bool = False,
        timeout: float = 30.0,
        patience: float = 120.0,
        user_agent: str = USER_AGENT,
        cache_dir: Path | None = None,
        lan: bool | None = None,
    ) -> None:
        self.transport = Transport(
            base_url,
            name=name or urlsplit(base_url).hostname or base_url,
            token=token,
            offline=offline,
            timeout=timeout,
            patience=patience,
            user_agent=user_agent,
            cache_dir=cache_dir,
            lan=lan,
        )

    @property
    def name(self) -> str:
        return self.transport.name

    @property
    def url(self) -> str:
        return self.transport.base_url

    def close(self) -> None:
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.close()

    # --- models -------------------------------------------------------------------------------------------------------

    def search(self, query: SearchQuery) -> Iterator[wire.Model]:
        """Models, at most `query.limit`, each once; cursors are followed as far as the caller iterates."""
        what = f"models of a user `{query.creator}`" if query.creator else "models"
        found = self._follow(
            "/api/v1/models", _search_params(query), wire.Model, what, key=lambda m: m.id, cursor=query.cursor
        )
        kept = without = 0
        for model in found:
            if not _carries_tag(model, query.tag):
                without += 1
                if without > STRANGERS:  # an unknown tag: the hub dropped the filter and lists everything
                    return
                continue
            yield model
            kept, without = kept + 1, 0
            if kept >= query.limit:
                return

    def model(self, model_id: int) -> wire.Model:
        data = self._get(f"/api/v1/models/{_checked(model_id)}", None, f"model {model_id}")
        return self._parsed(wire.Model, data, f"model {model_id}")

    def models(self, ids: Iterable[int]) -> Iterator[wire.Model]:
        """Many models, a hundred per call. Those the hub keeps out of lists are left out: ask for them one by one."""
        wanted = sorted({_checked(model_id) for model_id in ids})
        for start in range(0, len(wanted), PAGE):
            batch = wanted[start : start + PAGE]
            params = [("ids", ",".join(map(str, batch))), ("limit", str(PAGE)), ("nsfw", "true")]
            for model in self._follow("/api/v1/models", params, wire.Model, "models", key=lambda m: m.id):
                if model.id in batch:
                    yield model

    def version(self, version_id: int) -> wire.ModelVersion:
        what = f"version {version_id}"
        data = self._get(f"/api/v1/model-versions/{_checked(version_id)}", None, what)
        return _with_clean_images(self._parsed(wire.ModelVersion, data, what))

    def by_hash(self, value: str) -> wire.ModelVersion:
        """The version that has a file with this hash, of any of the six kinds."""
        digits = _clean_hash(value)
        data = self._get(f"/api/v1/model-versions/by-hash/{digits}", None, f"a file with hash {digits[:16]}")
        return _with_clean_images(self._parsed(wire.ModelVersion, data, "that version"))

    def by_hashes(self, values: Iterable[str]) -> dict[str, wire.ModelVersion]:
        """SHA256 (lower case) → version, for those the hub knows; a hundred per call."""
        wanted = sorted({_clean_hash(value) for value in values})
        if any(len(value) != 64 for value in wanted):
            raise InvalidReference("only SHA256 hashes can be looked up many at a time")
        out: dict[str, wire.ModelVersion] = {}
        for start in range(0, len(wanted), HASHES_PER_CALL):
            batch = wanted[start : start + HASHES_PER_CALL]
            answer = self.transport.post_json("/api/v1/model-versions/by-hash", batch, what="files by hash")
            for item in answer if isinstance(answer, list) else []:
                if isinstance(item, dict):
                    version = self._with_own_urls(self._parsed(wire.ModelVersion, item, "a version"))
                    for file in version.files:
                        if file.sha256 and file.sha256.upper() in batch:
                            out[file.sha256] = version
        return out

    def ids_by_hash(self, values: Iterable[str]) -> dict[str, tuple[int, int]]:
        """SHA256 (lower case) → (model id, version id); ten thousand per call."""
        wanted = sorted({_clean_hash(value) for value in values})
        out: dict[str, tuple[int, int]] = {}
        for start in range(0, len(wanted), IDS_PER_CALL):
            batch = wanted[start : start + IDS_PER_CALL]
            answer = self.transport.post_json("/api/v1/model-versions/by-hash/ids", batch, what="ids by hash")
            for item in answer if isinstance(answer, list) else []:
                match item:
                    case {"hash": str(value), "modelId": int(model_id), "modelVersionId": int(version_id)}:
                        out[value.lower()] = (model_id, version_id)
        return out

    def _with_own_urls(self, version: wire.ModelVersion) -> wire.ModelVersion:
        """POST by-hash answers with `https://undefined/…`: keep path and query, put our own base in front."""

        def own(url: str | None) -> str | None:
            parts = urlsplit(url or "")
            if parts.hostname != "undefined":
                return url
            return self.url + parts.path + (f"?{parts.query}" if parts.query else "")

        files = [file.model_copy(update={"download_url": own(file.download_url)}) for file in version.files]
        return version.model_copy(update={"files": files, "download_url": own(version.download_url)})

    # --- images -------------------------------------------------------------------------------------------------------

    def images(
        self,
        *,
        model_version_id: int | None = None,
        model_id: int | None = None,
        limit: int = 20,
        nsfw: bool = False,
    ) -> Iterator[wire.Image]:
        """Example images with their `meta` unwrapped, newest pages lazily. A model is asked version by version,
        since hubs time out (and answer with nothing) when asked for all of a model at once."""
        versions = [model_version_id] if model_version_id is not None else []
        if model_version_id is None:
            if model_id is None:
                raise InvalidReference("images of which model or version?")
            versions = [version.id for version in self.model(model_id).model_versions]
        kept = 0
        for version_id in versions:
            params = [("modelVersionId", str(_checked(version_id))), ("limit", str(max(1, min(IMAGES_PAGE, limit))))]
            params += [("withMeta", "true"), ("flatMeta", "true"), *([("browsingLevel", EVERYTHING)] if nsfw else [])]
            for image in self._follow("/api/v1/images", params, wire.Image, "images", key=lambda i: i.image_id):
                if kept >= limit:
                    return
                yield _flat(image)
                kept += 1

    def image(self, image_id: int) -> wire.Image:
        """One image with its parameters. Raises NotFound also when the hub answers with another image."""
        what = f"image {image_id}"
        params = [("imageId", str(_checked(image_id))), ("withMeta", "true"), ("flatMeta", "true")]
        params += [("browsingLevel", EVERYTHING), ("limit", "1")]
        page = self._parsed(wire.Page[wire.Image], self._get("/api/v1/images", params, what), what)
        for image in page.items:
            if image.id == image_id:
                return _flat(image)
        raise NotFound(
            f"{self.name} does not have {what}", hint="it may be hidden, removed, or for signed-in users only"
        )

    def picture(self, url: str, *, limit: int = LARGEST_PICTURE) -> bytes:
        """The bytes of an image. The key is not sent to media hosts; a web page in its place is refused."""

        def fetch() -> bytes:
            with self.transport.stream(self._absolute(url), what="the picture") as response:
                if response.status_code != 200:
                    raise self.transport.refused(response, "the picture")
                return read_bounded(response, limit, "the picture", 600.0)

        data: bytes = self.transport.patiently(fetch)
        if looks_like_html(data):
            raise HubError(f"{self.name} answered with a web page instead of the picture")
        return data

    # --- the rest -----------------------------------------------------------------------------------------------------

    def creators(self, text: str | None = None, *, limit: int = 20) -> list[dict[str, Any]]:
        return self._listed("/api/v1/creators", text, limit, "creators")

    def tags(self, text: str | None = None, *, limit: int = 20) -> list[dict[str, Any]]:
        return self._listed("/api/v1/tags", text, limit, "tags")

    def enums(self) -> dict[str, list[str]]:
        """The hub's vocabularies: ModelType, BaseModel, …"""
        data = self._get("/api/v1/enums", None, "its vocabularies")
        named = data.items() if isinstance(data, dict) else ()
        return {key: [v for v in values if isinstance(v, str)] for key, values in named if isinstance(values, list)}

    def me(self) -> dict[str, Any]:
        """The account of our key. Raises LoginRequired without one, TokenRejected with a bad one."""
        data = self._get("/api/v1/me", None, "your account")
        if not isinstance(data, dict):
            raise HubError(f"{self.name} does not say whose key this is")
        return data

    def download_url(self, version: wire.ModelVersion, file: wire.ModelFile) -> str:
        """The route of exactly this file: by its id, since advertised URLs depend on the caller's preferences.

        A hub that gives another path than the API's own is taken at its word.
        """
        advertised = urlsplit(file.download_url or "")
        if advertised.path and not advertised.path.startswith(("/api/download/models/", "/download/models/")):
            return self._absolute(file.download_url or "")
        owner = re.search(r"/download/models/([0-9]{1,10})", advertised.path)
        # A linked VAE is listed with a version it does not belong to: its own URL says which one does.
        return f"{self.url}/api/download/models/{owner[1] if owner else version.id}?fileId={file.id}"

    def download_urls(self, version: wire.ModelVersion, file: wire.ModelFile) -> list[str]:
        """Where to ask for the file, one after the other: the exact route, then what the hub advertised for it.

        The latter may lead to a sibling of the file, so it is only worth asking when a SHA256 tells them apart.
        """
        exact, advertised = self.download_url(version, file), file.download_url or version.download_url
        if not file.sha256 or not advertised or not same_hub(self._absolute(advertised), self.url):
            return [exact]
        return list(dict.fromkeys([exact, self._absolute(advertised)]))

    # --- parts --------------------------------------------------------------------------------------------------------

    def _absolute(self, url: str) -> str:
        return self.url + url if url.startswith("/") else url

    def _get(self, path: str, params: list[tuple[str, str]] | None, what: str) -> Any:
        return self.transport.get_json(path, params, what=what)

    def _listed(self, path: str, text: str | None, limit: int, what: str) -> list[dict[str, Any]]:
        params = [("limit", str(max(1, min(200, limit)))), *([("query", text)] if text else [])]
        data = self._get(path, params, what)
        items = data.get("items") if isinstance(data, dict) else None
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def _parsed(self, kind: type[T], data: Any, what: str) -> T:
        try:
            return kind.model_validate(data)
        except ValueError:  # pydantic's ValidationError is one
            raise HubError(
                f"{self.name} answered something that is not {what}",
                hint="is this the address of a Civitai-compatible hub?",
            ) from None

    def _follow(
        self,
        path: str,
        params: list[tuple[str, str]],
        kind: type[T],
        what: str,
        *,
        key: Callable[[T], int | None],
        cursor: str | None = None,
    ) -> Iterator[T]:
        """Items of all pages, each once."""
        seen: set[int] = set()
        used: set[str] = set()
        idle = 0
        while True:
            data = self._get(path, params + ([("cursor", cursor)] if cursor else []), what)
            page = self._page(data, what)
            fresh = [item for item in self._items(page, kind) if key(item) is None or key(item) not in seen]
            for item in fresh:
                if (identity := key(item)) is not None:
                    if identity in seen:
                        continue
                    seen.add(identity)
                yield item
            idle = 0 if fresh else idle + 1
            following = page.metadata.next_cursor
            cursor = str(following) if following not in (None, "") else None
            if cursor is None or cursor in used or idle >= EMPTY_PAGES:
                return
            used.add(cursor)

    def _page(self, data: Any, what: str) -> wire.Page[dict[str, Any]]:
        if not isinstance(data, dict) or not isinstance(data.get("items"), list):
            raise HubError(
                f"{self.name} answered something that is no list of {what}",
                hint="is this the address of a Civitai-compatible hub?",
            )
        return wire.Page[dict[str, Any]].model_validate(
            {**data, "items": [item for item in data["items"] if isinstance(item, dict)]}
        )

    def _items(self, page: wire.Page[dict[str, Any]], kind: type[T]) -> Iterator[T]:
        for item in page.items:
            try:
                yield kind.model_validate(item)
            except ValueError:
                continue  # one unreadable entry does not spoil a page


def _search_params(query: SearchQuery) -> list[tuple[str, str]]:
    """`types` and `baseModels` repeat as keys; everything false is left out (hubs read "false" as true)."""
    params = [("limit", str(max(1, min(PAGE, query.limit))))]
    params += [("query", query.text)] if query.text else []
    params += [("types", name) for name in query.types]
    params += [("baseModels", name) for name in query.base_models]
    params += [("tag", query.tag)] if query.tag else []
    if query.creator:
        plain = re.fullmatch(r"[A-Za-z0-9_]+", query.creator) is not None
        params += [("username" if plain else "user", query.creator)]
    params += [("sort", query.sort)] if query.sort else []
    params += [("period", query.period)] if query.period else []
    params += [("nsfw", "true")] if query.nsfw else []
    return params


def _carries_tag(model: wire.Model, tag: str | None) -> bool:
    return tag is None or tag.casefold() in (name.casefold() for name in model.tag_names)


def _checked(number: int) -> int:
    if not 0 < number <= LARGEST_ID:
        raise InvalidReference(f"{number} is no id", hint=f"ids are whole numbers from 1 to {LARGEST_ID}")
    return number


def _clean_hash(value: str) -> str:
    digits = value.strip().removeprefix("0x").removeprefix("0X").upper()
    if not re.fullmatch(r"[0-9A-F]{8,64}", digits):
        raise InvalidReference("that is no hash", hint="hashes have 8, 10, 12 or 64 hex digits")
    if digits.startswith(PERMANENTLY_EMPTY):
        raise InvalidReference("that is the hash of an empty file: it identifies nothing")
    return quote(digits)


def _flat(image: wire.Image) -> wire.Image:
    """`meta` without the wrappings it came in."""
    meta = image.meta
    while meta is not None and "meta" in meta and not GENERATION_KEYS & meta.keys():
        inner = meta["meta"]
        meta = inner if isinstance(inner, dict) else None
    return image if meta is image.meta else image.model_copy(update={"meta": meta})


def _with_clean_images(version: wire.ModelVersion) -> wire.ModelVersion:
    """`hasMeta: false` beside a `meta` means its uploader hid it: so do we."""
    if not any(image.meta for image in version.images):
        return version
    images = [
        image.model_copy(update={"meta": None}) if image.has_meta is False else _flat(image) for image in version.images
    ]
    return version.model_copy(update={"images": images})
