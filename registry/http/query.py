"""Query strings → what is wanted; what is wanted → which cards, in which order, up to which cursor. No I/O.

    ?types=LORA&types=DoRA&sort=Newest  →  ModelQuery  →  ([Card, …], "1722530000000|4201")

The hub has its habits, and clients were written against them: arrays repeat their key, three kinds of booleans, `page`
that moves nothing, a 429 for deep pages, error bodies in several shapes. A cursor is the sort key of the last item, so
a page costs the same however deep it lies and a model that comes or goes shifts nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.http import vocabulary

LARGEST_ID = 2**31 - 1
LARGEST_PAGE_START = 1000  # page × limit
DAY_MS = 86_400_000
PG, EVERYTHING, BLOCKED = 1, 31, 32
TYPED = (  # parameters no query string can give: their presence is the error
    "browsingLevel", "collectionId", "collectionTagId", "allowNoCredit", "allowDerivatives", "allowDifferentLicense",
    "pending", "disablePoi", "disableMinor", "isFeatured", "poiOnly", "minorOnly",
)  # fmt: skip
TRUE, FALSE = {"true", "1", "yes", "on", "y", "enabled"}, {"false", "0", "no", "off", "n", "disabled"}
Params = Mapping[str, Sequence[str]]


class Refusal(Exception):
    """An answer that is no success: status and JSON body, in the shape the hub uses there."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}")
        self.status, self.body, self.headers = status, body, dict(headers or {})


def refuse(status: int, text: str) -> Refusal:
    return Refusal(status, {"error": text})


# --- what there is to choose from -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VersionCard:
    """What lists go by, of one version that is here."""

    id: int
    source: str
    base_model: str = ""
    published: int = 0  # milliseconds since 1970
    early_access_until: int = 0
    covered: bool = False  # by the hub's own generator
    trained_there: bool = False
    formats: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Card:
    """What lists go by, of one model with at least one version here. `level` is a mask of maturity bits."""

    id: int
    name: str
    type: str
    versions: tuple[VersionCard, ...]
    creator: str = ""
    creator_image: str | None = None
    tags: tuple[str, ...] = ()
    level: int = PG
    minor: bool = False
    poi: bool = False
    availability: str = "Public"
    uses: frozenset[str] = frozenset()
    downloads: int = 0
    likes: int = 0
    comments: int = 0
    collected: int = 0
    pictures: int = 0

    @property
    def published(self) -> int:
        return max((version.published for version in self.versions), default=0)


# --- reading parameters -----------------------------------------------------------------------------------------------


class Reader:
    """Reads parameters one by one and collects what is wrong with them, as the hub's validator does."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.issues: list[dict[str, Any]] = []

    def issue(self, name: str, message: str, code: str = "invalid_type", **more: Any) -> None:
        self.issues.append({"code": code, **more, "path": [name], "message": message})

    def has(self, name: str) -> bool:
        return name in self.params

    def text(self, name: str) -> str | None:
        values = self.params.get(name, ())
        if len(values) > 1:
            self.issue(name, "Invalid input: expected string, received array", expected="string")
            return None
        return values[0] if values else None

    def number(self, name: str, low: int, high: int | None = None) -> int | None:
        """A whole number; an empty value is 0, as JavaScript has it."""
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"\s*(?:[+-]?[0-9]{1,15}(?:\.0{1,9})?)?\s*", value):
            self.issue(name, "Invalid input: expected number, received NaN", expected="number")
            return None
        number = int(float(value)) if value.strip() else 0
        if number < low:
            self.issue(name, f"Too small: expected number to be >={low}", "too_small", origin="number", minimum=low)
        elif high is not None and number > high:
            self.issue(name, f"Too big: expected number to be <={high}", "too_big", origin="number", maximum=high)
        return number

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.text(name)
        if value is None:
            return default
        if value.lower() in TRUE | FALSE:
            return value.lower() in TRUE
        self.issue(name, "Invalid option: expected a boolean word", "invalid_value", values=sorted(TRUE | FALSE))
        return default

    def present(self, name: str) -> bool:
        """Any text at all means true, "false" included."""
        return any(self.params.get(name, ()))

    def choice(self, name: str, options: Collection[str], default: str | None = None) -> str | None:
        value = self.text(name)
        if value is None:
            return default
        if value not in options:
            self._not_among(name, options)
        return value

    def many(self, name: str, options: Collection[str] | None = None) -> tuple[str, ...]:
        """A key that repeats; commas are no separators here."""
        values = tuple(self.params.get(name, ()))
        if options is not None and not set(values) <= set(options):
            self._not_among(name, options)
        return values

    def listed(self, name: str, options: Collection[str] | None = None) -> tuple[str, ...]:
        """A key that repeats or holds a comma list."""
        values = tuple(part.strip() for value in self.params.get(name, ()) for part in value.split(","))
        if options is not None and not set(values) <= set(options):
            self._not_among(name, options)
        return values

    def ids(self, name: str) -> frozenset[int]:
        found = set()
        for part in self.listed(name):
            if part and not re.fullmatch(r"[0-9]{1,10}", part):
                self.issue(name, "Invalid input: expected number, received NaN", expected="number")
            else:
                found.add(int(part or 0))
        return frozenset(found)

    def _not_among(self, name: str, options: Collection[str]) -> None:
        shown = "|".join(f'"{option}"' for option in options)
        self.issue(name, f"Invalid option: expected one of {shown}", "invalid_value", values=list(options))

    def check(self) -> None:
        """Raises Refusal when anything was wrong: 400 with the issues as text inside the JSON."""
        if self.issues:
            raise Refusal(400, {"error": {"name": "ZodError", "message": json.dumps(self.issues, indent=2)}})


def path_id(text: str, *, missing: str | None = None) -> int:
    """The id in a path. Raises Refusal in the shape of the id routes."""
    if not re.fullmatch(r"[+-]?[0-9]{1,15}", text):
        raise refuse(400, "✖ Invalid input: expected number, received NaN\n  → at id")
    number = int(text)
    if number == 0 and missing:
        raise refuse(400, missing)
    if not 0 < number <= LARGEST_ID:
        wrong = "Too small: expected number to be >0" if number <= 0 else f"Too big: expected int to be <={LARGEST_ID}"
        raise refuse(400, f"✖ {wrong}\n  → at id")
    return number


def check_page(page: int | None, limit: int) -> None:
    if page is not None and page * limit > LARGEST_PAGE_START:
        raise refuse(429, "You've requested too many pages, please use cursors instead")


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelQuery:
    limit: int = 100
    page: int | None = None
    cursor: str | None = None
    text: str | None = None
    tag: str | None = None
    username: str | None = None  # lower case, as compared
    types: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    sort: str = "Highest Rated"
    period: str = "AllTime"
    ids: frozenset[int] | None = None
    version_ids: frozenset[int] | None = None
    nsfw: bool = False
    primary_only: bool = False
    early_access: bool = False
    supports_generation: bool = False
    trained_there: bool = False
    formats: tuple[str, ...] = ()
    availability: str | None = None
    uses: tuple[str, ...] = ()

    @property
    def mask(self) -> int:
        return EVERYTHING if self.nsfw else PG

    def keeps(self, version: VersionCard, now: int) -> bool:
        """Whether a listed model shows this version."""
        return not (
            (self.base_models and version.base_model not in self.base_models)
            or (self.supports_generation and not version.covered)
            or (self.early_access and version.early_access_until <= now)
        )

    def matches(self, card: Card, now: int) -> bool:
        if not card.level & self.mask or card.poi or (self.nsfw and card.minor):
            return False
        days = vocabulary.PERIODS[self.period]
        return not (
            (self.types and card.type not in self.types)
            or (self.tag is not None and self.tag not in (tag.casefold() for tag in card.tags))
            or (self.username is not None and card.creator.lower() != self.username)
            or (self.ids is not None and card.id not in self.ids)
            or (self.version_ids is not None and self.version_ids.isdisjoint(v.id for v in card.versions))
            or (days is not None and card.published < now - days * DAY_MS)
            or (self.availability is not None and card.availability != self.availability)
            or (self.uses and card.uses.isdisjoint(self.uses))
            or (self.formats and not any(v.formats & set(self.formats) for v in card.versions))
            or (self.trained_there and not any(v.trained_there for v in card.versions))
            or not any(self.keeps(version, now) for version in card.versions)
        )


def model_query(params: Params, *, types: Iterable[str] = (), anonymous: bool = True) -> ModelQuery:
    """Raises Refusal. `types` are model types the library holds besides the known ones."""
    read = Reader(params)
    limit = read.number("limit", 0, 100)
    limit = 100 if limit is None else limit
    cursor = read.text("cursor") or None
    page = read.number("page", 1)
    text = (read.text("query") or "").strip() or None
    formats = read.many("fileFormats", vocabulary.FILE_FORMATS)
    if len(formats) == 1:
        read.issue("fileFormats", "Invalid input: expected array, received string", expected="array")
    for name in params:
        if name in TYPED or re.fullmatch(r"excluded[A-Za-z]{0,20}Ids", name):
            read.issue(name, "Invalid input: expected boolean, received string", expected="boolean")
    read.choice("periodMode", ("published", "stats"))
    read.choice("checkpointType", ("Trained", "Merge"))  # the hub does not tell which is which: nothing to filter by
    query = ModelQuery(
        limit=limit,
        page=None if cursor else page,
        cursor=cursor,
        text=text,
        tag=_folded(read.text("tag") or read.text("tagname")),
        username=_username(read),
        types=read.many("types", dict.fromkeys((*vocabulary.MODEL_TYPES, *types))),
        base_models=read.many("baseModels"),
        sort=read.choice("sort", vocabulary.MODEL_SORTS, "Highest Rated") or "Highest Rated",
        period=read.choice("period", vocabulary.PERIODS, "AllTime") or "AllTime",
        ids=read.ids("ids") if read.has("ids") else None,
        version_ids=read.ids("modelVersionIds") if read.has("modelVersionIds") else None,
        nsfw=read.flag("nsfw"),
        primary_only=read.flag("primaryFileOnly"),
        early_access=read.present("earlyAccess"),
        supports_generation=read.present("supportsGeneration"),
        trained_there=read.present("fromPlatform"),
        formats=formats,
        availability=read.choice("availability", vocabulary.AVAILABILITIES),
        uses=read.many("allowCommercialUse", vocabulary.COMMERCIAL_USES),
    )
    read.flag("favorites")
    read.flag("hidden")
    read.check()
    if anonymous and (read.has("favorites") or read.has("hidden")):
        raise refuse(401, "Unauthorized")
    if text and page is not None and not cursor:
        raise refuse(400, "Cannot use page param with query search. Use cursor-based pagination.")
    if not cursor:
        check_page(page, limit)
    return query


def _folded(text: str | None) -> str | None:
    return text.casefold() if text else None


def _username(read: Reader) -> str | None:
    """`username` is normalised as the hub does it, so that odd names are only found by `user`."""
    if name := read.text("username"):
        return re.sub(r"[^A-Za-z0-9_]", "", name.replace(" ", "_", 1)).lower()
    name = read.text("user")
    return name.lower() if name else None


Values = tuple[int, ...]
ORDERS: Mapping[str, tuple[int, Callable[[Card], Values]]] = {  # direction, and what stands in the cursor
    "Highest Rated": (-1, lambda card: (card.likes, card.downloads, card.id)),
    "Most Liked": (-1, lambda card: (card.likes, card.downloads, card.id)),
    "Most Downloaded": (-1, lambda card: (card.downloads, card.likes, card.id)),
    "Most Discussed": (-1, lambda card: (card.comments, card.likes, card.id)),
    "Most Collected": (-1, lambda card: (card.collected, card.likes, card.id)),
    "Most Images": (-1, lambda card: (card.pictures, card.likes, card.id)),
    "Newest": (-1, lambda card: (card.published, card.id)),
    "Oldest": (1, lambda card: (card.published, card.id)),
}


@dataclass(frozen=True)
class Slice:
    """A page of cards. `cursor` gives what follows its first n, so that a page too large to send can be cut."""

    cards: list[Card]
    more: bool
    cursor: Callable[[int], str]


def model_page(cards: Mapping[int, Card], query: ModelQuery, now: int, found: Sequence[int] | None = None) -> Slice:
    """One page. `found` are the ids a text search gave, best first: their order stays, the cursor counts along it.

    Raises Refusal for a cursor that does not belong to this order.
    """
    wanted = max(query.limit, 1)
    if found is not None:
        start = _parts(query.cursor, 1)[0] if query.cursor else 0
        hits = [card for number in found if (card := cards.get(number)) and query.matches(card, now)][start:]
        return Slice(hits[:wanted], len(hits) > wanted, lambda count: str(start + count))
    direction, values = ORDERS[query.sort]

    def key(card: Card) -> Values:
        return tuple(direction * value for value in values(card))

    hits = sorted((card for card in cards.values() if query.matches(card, now)), key=key)
    if query.cursor:
        after = tuple(direction * part for part in _parts(query.cursor, 2 if query.sort in ("Newest", "Oldest") else 3))
        hits = [card for card in hits if key(card) > after]
    page = hits[:wanted]
    return Slice(page, len(hits) > wanted, lambda count: "|".join(map(str, values(page[count - 1]))))


def _parts(cursor: str, arity: int) -> tuple[int, ...]:
    parts = cursor.split("|")
    if len(parts) != arity or not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts):
        raise Refusal(
            400,
            {"message": f"Invalid cursor: expected {arity} value(s) for this sort, received {min(len(parts), 99)}"},
        )
    return tuple(int(part) for part in parts)


# --- images -----------------------------------------------------------------------------------------------------------

LEVEL_WORDS: Mapping[str, int] = {"None": 1, "Soft": 3, "Mature": 7, "X": 31, "Blocked": 32}


@dataclass(frozen=True)
class ImageQuery:
    limit: int = 100
    page: int | None = None
    cursor: str | None = None
    image_id: int | None = None
    post_id: int | None = None
    model_id: int | None = None
    version_id: int | None = None
    username: str | None = None
    period: str = "AllTime"
    sort: str = "Most Reactions"
    mask: int = PG
    type: str | None = None
    base_models: tuple[str, ...] = ()
    with_meta: bool = False
    requiring_meta: bool = False
    flat_meta: bool = False
    with_tags: bool = False
    tags: frozenset[int] = frozenset()
    user_id: int | None = None

    @property
    def exact(self) -> bool:
        """Whether the hub would ask its database: then cursors are numbers and `meta` is wrapped once."""
        return self.image_id is not None or (self.model_id is not None and self.version_id is None)


def image_query(params: Params, *, base_models: Iterable[str] = ()) -> ImageQuery:
    """Raises Refusal."""
    read = Reader(params)
    limit = read.number("limit", 0, 200)
    limit = 100 if limit is None else limit
    page = read.number("page", 1)
    cursor = read.text("cursor") or None
    username = read.text("username")
    if username is not None and not re.fullmatch(r"[A-Za-z0-9_]*", username):
        read.issue("username", "Invalid string: must match pattern /^[A-Za-z0-9_]*$/", "invalid_format")
    mask = _mask(read)
    number = {name: read.number(name, 0, LARGEST_ID) for name in ("imageId", "postId", "modelId", "modelVersionId")}
    exact = number["imageId"] is not None or (number["modelId"] is not None and number["modelVersionId"] is None)
    query = ImageQuery(
        limit=limit,
        page=page,
        cursor=cursor,
        image_id=number["imageId"],
        post_id=number["postId"],
        model_id=number["modelId"],
        version_id=number["modelVersionId"],
        username=username or None,
        period=read.choice("period", vocabulary.PERIODS, "AllTime") or "AllTime",
        sort=read.choice("sort", vocabulary.IMAGE_SORTS, "Most Reactions") or "Most Reactions",
        mask=mask,
        type=read.choice("type", ("image", "video", "audio")),
        base_models=read.listed("baseModels", dict.fromkeys((*vocabulary.BASE_MODELS, *base_models))),
        with_meta=read.flag("withMeta"),
        requiring_meta=read.flag("requiringMeta"),
        flat_meta=read.flag("flatMeta", default=not exact),
        with_tags=read.flag("withTags"),
        tags=read.ids("tags"),
        user_id=read.number("userId", 0, LARGEST_ID),
    )
    read.check()
    if not cursor:
        check_page(page, limit)
    if query.sort == "Random":
        raise Refusal(400, {"error": "Random sort requires a collectionId", "code": "BAD_REQUEST"})
    return query


def _mask(read: Reader) -> int:
    if read.has("browsingLevel"):
        return (read.number("browsingLevel", 0) or 0) & (EVERYTHING | BLOCKED)
    word = read.text("nsfw")
    if word is None:
        return PG
    if word in LEVEL_WORDS:
        return LEVEL_WORDS[word]
    return EVERYTHING & 60 if read.flag("nsfw") else PG


def image_cursor(query: ImageQuery) -> int | None:
    """The number in a cursor. Raises Refusal."""
    if query.cursor is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}(?:\|[0-9]{1,15})?", query.cursor):
        read = Reader({})
        read.issue("cursor", "Invalid cursor", "custom")
        read.check()
    return int(query.cursor.split("|")[0])


# --- creators and tags ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NameQuery:
    limit: int
    page: int
    text: str


def name_query(params: Params) -> NameQuery:
    """Raises Refusal whose body is the bare list of issues, as these two routes have it."""
    read = Reader(params)
    limit = read.number("limit", 1, 200)
    page = read.number("page", 0)
    text = (read.text("query") or "").casefold()
    if read.issues:
        raise Refusal(400, read.issues)
    return NameQuery(20 if limit is None else limit, max(1, 1 if page is None else page), text)
