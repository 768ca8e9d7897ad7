"""The routes: a Civitai-compatible hub, read only, over any catalog.

    GET  /api/v1/models                           /api/v1/models/{id}
    GET  /api/v1/model-versions/{id}              …/mini/{id}   …/by-hash/{hash}
    POST /api/v1/model-versions/by-hash           …/by-hash/ids
    GET  /api/v1/images  /creators  /tags  /enums  /me
    GET  /api/download/models/{version id}        whole or in ranges, ETag "sha256:…"
    GET  /images/{source}/{image id}.{suffix}     pictures that are kept here

With a token every route asks for it. Without one the server is for this machine: it answers only to its own names, so
that a web page which points its host name at 127.0.0.1 learns nothing, and not to pages of other origins at all.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry import pictures
from registry.errors import KnownError
from registry.http import query, views, vocabulary
from registry.http.catalog import Catalog, Holding, Json, StoredImage, milliseconds
from registry.http.files import FileAnswer, disposition
from registry.http.query import Params, Refusal, refuse
from registry.http.server import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)
LARGEST_ANSWER = 16 << 20  # bytes of one page; what does not fit is behind the cursor
LARGEST_BODY = 2 << 20
MOST_HASHES, MOST_IDS = 100, 10_000
SCANNED = 2000  # images looked at for one page of them
IMMUTABLE = "max-age=31536000, immutable"
LOGIN = "The creator of this asset requires you to be logged in to download it"
HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")


def create_app(catalog: Catalog, token: str | None = None) -> Starlette:
    """The hub as an ASGI application. `token` is what clients must send; None asks for none."""
    hub = Hub(catalog, token)
    versions = "/api/v1/model-versions"
    routes = [
        Route("/api/v1/models", hub.models),
        Route("/api/v1/models/{id}", hub.model),
        Route(f"{versions}/by-hash", hub.by_hashes, methods=["POST"]),
        Route(f"{versions}/by-hash/ids", hub.ids_by_hash, methods=["POST"]),
        Route(f"{versions}/by-hash/{{hash}}", hub.by_hash),
        Route(f"{versions}/mini/{{id}}", hub.mini),
        Route(f"{versions}/{{id}}", hub.version),
        Route("/api/v1/images", hub.images),
        Route("/api/v1/creators", hub.creators),
        Route("/api/v1/tags", hub.tags),
        Route("/api/v1/enums", hub.enums),
        Route("/api/v1/me", hub.me),
        Route("/api/download/models/{id}", hub.download),
        Route("/images/{source}/{name}", hub.picture),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _http_error,
            KnownError: _for_now,
            sqlite3.OperationalError: _for_now,
            Exception: _unexpected,
        },
    )
    app.router.redirect_slashes = False
    return app


# --- answers ----------------------------------------------------------------------------------------------------------


def answer(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encoded(data), status, {"Cache-Control": "no-cache", **(headers or {})}, "application/json")


def encoded(data: Any) -> bytes:
    """JSON, also of what is none in strangers' data: NaN becomes null, half a surrogate pair its escape."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_without_nan(data), ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(_without_nan(data), separators=(",", ":")).encode()


def _without_nan(data: Any) -> Any:
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    return [_without_nan(item) for item in data] if isinstance(data, list | tuple) else data


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer(error.body, error.status, error.headers)


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "Not found", 405: "Method not allowed"}.get(error.status_code, "Bad request")
    return answer({"error": text}, error.status_code, error.headers)


def _for_now(_: Request, error: Exception) -> Response:
    """The library is being worked on: locked, or moved from under us."""
    logger.warning("could not answer: %s", error)
    return answer({"error": "Server busy, please retry shortly."}, 503, {"Retry-After": "2"})


def _unexpected(_: Request, error: Exception) -> Response:
    return answer({"message": "An unexpected error occurred", "error": type(error).__name__}, 500)


# --- who may ask ------------------------------------------------------------------------------------------------------


class Guard:
    """Stands before every route: the token, or else the manners of a server that is for this machine only."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(scope)) is not None:
            await problem(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
            return
        await self.app(scope, receive, _with_nosniff(send))

    def _problem(self, scope: Scope) -> Response | None:
        asked = Headers(scope=scope)
        host = HOST.fullmatch(asked.get("host", ""))
        if host is None:
            return answer({"error": "Bad request"}, 400)
        if self.token is not None:
            return None if self._has_token(scope, asked) else self._unauthorized(scope)
        bound = (scope.get("server") or ("127.0.0.1",))[0]
        if is_loopback(bound) and not is_loopback(host[1].strip("[]")):
            return answer({"error": "Forbidden", "message": "this server answers to 127.0.0.1 and localhost only"}, 403)
        if _is_foreign(asked):
            return answer({"error": "Forbidden", "message": "pages of other origins may not ask"}, 403)
        return None

    def _has_token(self, scope: Scope, asked: Headers) -> bool:
        """A header beats the query, whatever its scheme is called; compared in constant time."""
        if "authorization" in asked:
            words = asked["authorization"].encode("latin-1", "replace").split()
            given = words[1] if len(words) > 1 else b""
        else:
            pairs = parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=1000)
            given = next((value for name, value in pairs if name == "token"), "").encode("utf-8", "replace")
        assert self.token is not None
        return hmac.compare_digest(given, self.token)

    def _unauthorized(self, scope: Scope) -> Response:
        body = {"error": "Unauthorized"}
        if scope["path"].startswith("/api/download/"):
            body["message"] = LOGIN
        return answer(body, 401, {"WWW-Authenticate": "Bearer"})


def _is_foreign(asked: Headers) -> bool:
    """A browser asking for a page from elsewhere; following a link to here is fine."""
    origin = asked.get("origin")
    if origin is not None and origin.split("://")[-1] != asked.get("host"):
        return True
    return asked.get("sec-fetch-site") == "cross-site" and asked.get("sec-fetch-mode") != "navigate"


def _with_nosniff(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
        await send(message)

    return sending


# --- routes -----------------------------------------------------------------------------------------------------------


class Hub:
    """One method per route; they run in worker threads."""

    def __init__(self, catalog: Catalog, token: str | None) -> None:
        self.catalog, self.token = catalog, token

    def _face(self, request: Request) -> views.Face:
        def name(source: str, image_id: int) -> str | None:
            path = self.catalog.picture(source, image_id)
            return f"{path.parent.name}/{path.name}" if path else None

        return views.Face(_base(request), name)

    def _holding(self, version_id: int) -> Holding | None:
        return self.catalog.holding(version_id)

    # --- models -------------------------------------------------------------------------------------------------------

    def models(self, request: Request) -> Response:
        cards, params = self.catalog.cards(), _params(request)
        types = {card.type for card in cards.values()}
        wanted = query.model_query(params, types=types, anonymous=self.token is None)
        if wanted.username is not None and not any(c.creator.lower() == wanted.username for c in cards.values()):
            raise Refusal(404, {"message": "User not found"})
        now = _now()
        found = self.catalog.search(wanted.text) if wanted.text else None
        page = query.model_page(cards, wanted, now, found)
        face, items, used = self._face(request), _Items(), 0
        for card in page.cards:
            holdings = [h for v in card.versions if wanted.keeps(v, now) and (h := self._holding(v.id))]
            if holdings and not items.add(views.model(face, holdings, wanted)):
                break
            used += 1
        metadata: Json = {}
        if (page.more or used < len(page.cards)) and wanted.limit > 0 and used:
            metadata = _next(request, params, page.cursor(used))
        if wanted.page is not None:
            metadata |= {"currentPage": wanted.page, "pageSize": wanted.limit}
        return items.page(metadata)

    def model(self, request: Request) -> Response:
        number = query.path_id(request.path_params["id"])
        card = self.catalog.cards().get(number)
        holdings = [h for v in card.versions if (h := self._holding(v.id))] if card else []
        if not holdings:
            raise refuse(404, f"No model with id {number}")
        return answer(views.model(self._face(request), holdings))

    # --- versions -----------------------------------------------------------------------------------------------------

    def version(self, request: Request) -> Response:
        number = query.path_id(request.path_params["id"], missing="Missing modelVersionId")
        holding = self._holding(number)
        if holding is None:
            raise refuse(404, "Model not found")
        return answer(views.version(self._face(request), holding))

    def mini(self, request: Request) -> Response:
        number = query.path_id(request.path_params["id"], missing="Missing modelVersionId")
        read = query.Reader(_params(request))
        file_id = read.number("modelFileId", 0, query.LARGEST_ID)
        read.check()
        holding = self._holding(number)
        if holding is None:
            raise refuse(404, "Model not found")
        found = views.mini(self._face(request), holding, file_id)
        if found is None:
            raise refuse(404, f"Model file {file_id} not found in version {number}")
        return answer(found)

    def by_hash(self, request: Request) -> Response:
        value = request.path_params["hash"]
        found = {version_id for _, version_id in self.catalog.with_hashes([value])} if len(value) <= 128 else set()
        published = (
            {v.id: v.published for card in self.catalog.cards().values() for v in card.versions} if found else {}
        )
        for version_id in sorted(found, key=lambda number: (published.get(number, 0), number)):
            if (holding := self._holding(version_id)) is not None:
                return answer(views.version(self._face(request), holding))
        raise refuse(404, "Model not found")

    async def by_hashes(self, request: Request) -> Response:
        values = await _hashes(request, MOST_HASHES)
        return await run_in_threadpool(self._by_hashes, request, values)

    def _by_hashes(self, request: Request, values: Sequence[str]) -> Response:
        face, items = self._face(request), _Items()
        for version_id in dict.fromkeys(version_id for _, version_id in self.catalog.with_hashes(values, "SHA256")):
            if (holding := self._holding(version_id)) is not None:
                shown = views.version(face, holding)
                items.add(shown) or items.add({**shown, "images": [], "description": None})
        return items.array()

    async def ids_by_hash(self, request: Request) -> Response:
        values = await _hashes(request, MOST_IDS)
        return await run_in_threadpool(self._ids_by_hash, values)

    def _ids_by_hash(self, values: Sequence[str]) -> Response:
        model_of = {v.id: card.id for card in self.catalog.cards().values() for v in card.versions}
        found = dict.fromkeys(self.catalog.with_hashes(values, "SHA256"))
        return answer(
            [
                {"modelVersionId": version_id, "modelId": model_of[version_id], "hash": value.upper()}
                for value, version_id in found
                if version_id in model_of
            ]
        )

    # --- images -------------------------------------------------------------------------------------------------------

    def images(self, request: Request) -> Response:
        params, cards = _params(request), self.catalog.cards()
        wanted = query.image_query(params, base_models={v.base_model for c in cards.values() for v in c.versions})
        start = query.image_cursor(wanted)
        face, now = self._face(request), _now()
        if wanted.version_id is not None and wanted.image_id is None:
            shown, cursor = self._of_version(wanted, start or 0, now)
        else:
            shown, cursor = self._of_all(wanted, start, now)
        items, last = _Items(), None
        for image, after in shown:
            if not items.add(views.image(face, image, wanted)):
                cursor = last
                break
            last = after
        metadata: Json = {}
        if cursor is not None and wanted.limit > 0:
            metadata = _next(request, params, cursor if wanted.exact else str(cursor))
        if wanted.page is not None:
            metadata |= {"currentPage": wanted.page, "pageSize": wanted.limit}
        return items.page(metadata)

    def _of_version(
        self, wanted: query.ImageQuery, start: int, now: int
    ) -> tuple[list[tuple[StoredImage, int | None]], int | None]:
        """Images of one version with the cursor after each: a place in the order asked for."""
        found = [image for image in self.catalog.version_images(wanted.version_id or 0) if _fits(image, wanted, now)]
        match wanted.sort:
            case "Newest" | "Oldest":
                found.sort(key=lambda image: image.id, reverse=wanted.sort == "Newest")
            case "Most Comments":
                found.sort(key=lambda image: -views.reactions(image, "commentCount"))
            case _:  # ties stay as the hub showed them
                found.sort(
                    key=lambda image: -views.reactions(image, "likeCount", "heartCount", "laughCount", "cryCount")
                )
        start = start or ((wanted.page or 1) - 1) * wanted.limit
        page = found[start : start + max(wanted.limit, 1)]
        end = start + len(page)
        return [(image, start + i) for i, image in enumerate(page, 1)], end if end < len(found) else None

    def _of_all(
        self, wanted: query.ImageQuery, after: int | None, now: int
    ) -> tuple[list[tuple[StoredImage, int | None]], int | None]:
        """Images of everything else by id, a bounded number looked at: a short page with a cursor is a normal one."""
        found: list[tuple[StoredImage, int | None]] = []
        seen: set[int] = set()
        skip = 0 if wanted.cursor else ((wanted.page or 1) - 1) * wanted.limit
        limit, batch = max(wanted.limit, 1), 250
        for _ in range(SCANNED // batch):
            candidates, following = self.catalog.images(wanted, after, batch)
            for image in candidates:
                if image.id in seen or not _fits(image, wanted, now):
                    continue
                seen.add(image.id)
                if skip:
                    skip -= 1
                    continue
                if len(found) == limit:
                    return found, found[-1][1]
                found.append((image, image.id))
            after = following
            if after is None:
                break
        return found, after

    # --- the rest -----------------------------------------------------------------------------------------------------

    def creators(self, request: Request) -> Response:
        params = _params(request)
        wanted = query.name_query(params)
        counts: dict[str, Json] = {}
        for card in self.catalog.cards().values():
            if card.creator and wanted.text in card.creator.casefold():
                link = f"{_base(request)}/api/v1/models?username={quote(card.creator, errors='replace')}"
                item = counts.setdefault(card.creator, {"username": card.creator, "modelCount": 0, "link": link})
                item["modelCount"] += 1
                if card.creator_image:
                    item["image"] = card.creator_image
        names = sorted(counts, key=str.casefold)
        start = (wanted.page - 1) * wanted.limit
        shown = [counts[name] for name in names[start : start + wanted.limit]]
        pages = -(-len(names) // wanted.limit)
        metadata: Json = {
            "totalItems": len(names),
            "currentPage": wanted.page,
            "pageSize": wanted.limit,
            "totalPages": pages,
        }
        if wanted.page < pages:
            metadata["nextPage"] = _url(request, params, page=wanted.page + 1)
        if wanted.page > 1:
            metadata["prevPage"] = _url(request, params, page=wanted.page - 1)
        return answer({"items": shown, "metadata": metadata})

    def tags(self, request: Request) -> Response:
        """`totalPages` is always 1 and `nextPage` never there, as on the hub: ask on until a page is empty."""
        wanted = query.name_query(_params(request))
        counts: dict[str, int] = {}
        for card in self.catalog.cards().values():
            for tag in card.tags:
                if tag.casefold().startswith(wanted.text):
                    counts[tag] = counts.get(tag, 0) + 1
        names = sorted(counts, key=lambda name: (-counts[name], name.casefold()))
        start = (wanted.page - 1) * wanted.limit
        base = f"{_base(request)}/api/v1/models?tag="
        return answer(
            {
                "items": [{"name": name, "link": base + name} for name in names[start : start + wanted.limit]],
                "metadata": {"totalItems": 0, "currentPage": wanted.page, "pageSize": wanted.limit, "totalPages": 1},
            }
        )

    def enums(self, request: Request) -> Response:
        cards = self.catalog.cards().values()
        base_models = [v.base_model for card in cards for v in card.versions if v.base_model]
        return answer(
            {
                "ModelType": _and(vocabulary.MODEL_TYPES, (card.type for card in cards if card.type)),
                "ModelFileType": list(vocabulary.FILE_TYPES),
                "ActiveBaseModel": list(vocabulary.ACTIVE_BASE_MODELS),
                "BaseModel": _and(vocabulary.BASE_MODELS, base_models),
                "BaseModelType": list(vocabulary.BASE_MODEL_TYPES),
            }
        )

    def me(self, request: Request) -> Response:
        """There is one account: whoever has the token."""
        if self.token is None:
            raise refuse(401, "Unauthorized")
        return answer(
            {"id": 1, "username": "hubctl", "status": "active", "isMember": False, "subscriptions": []},
            headers={"Cache-Control": "max-age=0, private, no-cache"},
        )

    # --- bytes --------------------------------------------------------------------------------------------------------

    def download(self, request: Request) -> Response:
        number = query.path_id(request.path_params["id"], missing="Missing modelVersionId")
        read = query.Reader(_params(request))
        file_id = read.number("fileId", 0, query.LARGEST_ID)
        choices = {"type": None, "format": vocabulary.FILE_FORMATS, "size": ("full", "pruned")}
        wanted = {name: value for name, options in choices.items() if (value := _choice(read, name, options))}
        wanted |= {name: value for name in ("fp", "quantType") if (value := read.text(name))}
        if read.issues:
            raise refuse(400, f"✖ {read.issues[0]['message']}\n  → at {read.issues[0]['path'][0]}")
        holding = self._holding(number)
        shown = views.version(self._face(request), holding)["files"] if holding else []
        if file_id is not None:
            described = next((file for file in shown if file["id"] == file_id), None)
        else:
            described = views.chosen_file(shown, wanted)
        held = next((f for f in holding.files if described and f.id == described["id"]), None) if holding else None
        if held is None or described is None:
            raise refuse(404, "File not found")
        scope = "public" if self.token is None else "private"
        lifetime = IMMUTABLE if file_id is not None else "no-cache"  # which file a bare version means may change
        return FileAnswer(
            held.path,
            size=held.size,
            etag=f'"sha256:{held.sha256}"',
            media_type="application/octet-stream",
            headers={
                "Content-Disposition": disposition(str(described.get("name") or held.sha256[:12])),
                "Cache-Control": f"{scope}, {lifetime}",
            },
        )

    def picture(self, request: Request) -> Response:
        source, name = request.path_params["source"], request.path_params["name"]
        found = re.fullmatch(r"([0-9]{1,10})\.([a-z0-9]{3,5})", name)
        path = self.catalog.picture(source, int(found[1])) if found else None
        if path is None or path.name != name or path.suffix[1:] not in pictures.MEDIA_TYPES:
            raise refuse(404, "Not found")
        try:
            status = path.stat()
        except OSError:
            raise refuse(404, "Not found") from None
        return FileAnswer(
            path,
            size=None,
            etag=f'"{status.st_size:x}-{status.st_mtime_ns:x}"',
            media_type=pictures.MEDIA_TYPES[path.suffix[1:]],
            headers={"Cache-Control": "max-age=86400", "Content-Security-Policy": "default-src 'none'; sandbox"},
        )


# --- parts ------------------------------------------------------------------------------------------------------------


class _Items:
    """Items of one answer, encoded as they come, up to a size that a client will take."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, item: Json) -> bool:
        """Whether there was room; the first always has it."""
        try:
            data = encoded(item)
        except RecursionError:
            logger.warning("left out %s: it is nested too deeply", item.get("id"))
            return True
        if self._parts and self._size + len(data) > LARGEST_ANSWER:
            return False
        self._parts.append(data)
        self._size += len(data)
        return True

    def page(self, metadata: Json) -> Response:
        body = b'{"items":[' + b",".join(self._parts) + b'],"metadata":' + encoded(metadata) + b"}"
        return Response(body, headers={"Cache-Control": "no-cache"}, media_type="application/json")

    def array(self) -> Response:
        body = b"[" + b",".join(self._parts) + b"]"
        return Response(body, headers={"Cache-Control": "no-cache"}, media_type="application/json")


def _fits(image: StoredImage, wanted: query.ImageQuery, now: int) -> bool:
    data = image.data
    days = vocabulary.PERIODS[wanted.period]
    return not (
        not views.bit_of(data) & wanted.mask & query.EVERYTHING
        or data.get("minor") is True
        or data.get("poi") is True
        or (wanted.image_id is not None and image.id != wanted.image_id)
        or (wanted.version_id is not None and image.version_id != wanted.version_id)
        or (wanted.username is not None and str(data.get("username")).lower() != wanted.username.lower())
        or (wanted.post_id is not None and data.get("postId") != wanted.post_id)
        or (wanted.type is not None and (data.get("type") or "image") != wanted.type)
        or (wanted.base_models and data.get("baseModel") not in wanted.base_models)
        or (wanted.requiring_meta and not views.visible_meta(data))
        or (days is not None and milliseconds(data.get("createdAt")) < now - days * query.DAY_MS)
        or wanted.tags  # what a hub tags its images with is not recorded
        or wanted.user_id is not None
    )


def _choice(read: query.Reader, name: str, options: Sequence[str] | None) -> str | None:
    return read.text(name) if options is None else read.choice(name, options)


def _and(known: Any, more: Any) -> list[str]:
    return list(dict.fromkeys([*known, *more]))


def _now() -> int:
    return int(time.time() * 1000)


def _params(request: Request) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=2000)
    except ValueError:
        raise refuse(400, "Too many parameters") from None
    out: dict[str, list[str]] = {}
    for name, value in pairs:
        out.setdefault(name, []).append(value)
    return out


def _base(request: Request) -> str:
    scheme = "https" if request.scope.get("scheme") in ("https", "wss") else "http"
    return f"{scheme}://{request.headers['host']}"


def _url(request: Request, params: Params, **changed: str | int) -> str:
    """This request's own address with some parameters changed; a token in it is not repeated."""
    kept = [(name, v) for name, values in params.items() if name not in changed and name != "token" for v in values]
    return f"{_base(request)}{request.scope['path']}?{urlencode([*kept, *changed.items()])}"


def _next(request: Request, params: Params, cursor: str | int) -> Json:
    return {"nextCursor": cursor, "nextPage": _url(request, params, cursor=cursor)}


async def _hashes(request: Request, most: int) -> list[str]:
    """The body of a look-up by hash: a bare list of SHA256. Raises Refusal."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise refuse(400, "Request must include an array of SHA256 Hashes. []")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise refuse(413, "Body exceeds the limit")
    try:
        data = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise refuse(400, "Invalid JSON") from None
    if not isinstance(data, list) or len(data) > most or not all(isinstance(v, str) and len(v) == 64 for v in data):
        issue = {"code": "invalid_type", "path": [], "message": f"expected at most {most} strings of 64 characters"}
        raise refuse(400, f"Request must include an array of SHA256 Hashes. {json.dumps([issue])}")
    return data
