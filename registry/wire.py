"""The Civitai v1 JSON, once, in both directions: the hub client parses with it, the HTTP face dumps with it.

Rules that follow from how hubs behave: unknown keys are kept, a key that was absent stays absent (`dump` gives back
what was parsed), vocabularies are open strings, dates stay strings, and a value of an unexpected type in a field we do
not need never makes a whole answer unreadable.

    dump(Model.model_validate(answer)) == answer
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

T = TypeVar("T")


class Wire(BaseModel):
    """camelCase outside, snake_case inside; extras kept."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", protected_namespaces=())

    _odd: dict[str, Any] = PrivateAttr(default_factory=dict)  # alias → value of a type we did not expect

    @model_validator(mode="wrap")
    @classmethod
    def _remember_odd_values(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        parsed = handler(data)
        if isinstance(data, dict):
            for name, info in cls.model_fields.items():
                alias = info.alias or name
                if alias in data and _replaced(data[alias], getattr(parsed, name)):
                    parsed._odd[alias] = data[alias]  # noqa: SLF001
        return parsed

    @model_serializer(mode="wrap")
    def _with_odd_values(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        out: dict[str, Any] = handler(self)
        out.update(self._odd)
        return out

    def dump(self) -> dict[str, Any]:
        """The JSON object this was parsed from, or would be sent as: only keys that were set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _replaced(given: Any, kept: Any) -> bool:
    """Whether a lenient field now holds something else than what was given."""
    if given is None or kept is None:
        return given is not kept
    return isinstance(kept, list | dict) and (not isinstance(given, list | dict) or len(kept) != len(given))


def _only(*kinds: type) -> BeforeValidator:
    """A value of another type reads as None (bool is no number here); `Wire` remembers what was there."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            return value if bool in kinds else None
        if int in kinds and float not in kinds and isinstance(value, float) and value.is_integer():
            return int(value)
        return value if isinstance(value, kinds) else None

    return BeforeValidator(check)


Int = Annotated[int | None, _only(int)]
Num = Annotated[int | float | None, _only(int, float)]
Text = Annotated[str | None, _only(str)]
Bool = Annotated[bool | None, _only(bool)]


def _strings(value: Any) -> Any:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _objects(value: Any) -> Any:
    return [item for item in value if isinstance(item, dict | BaseModel)] if isinstance(value, list) else []


def _object(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else None


Strings = Annotated[list[str], BeforeValidator(_strings)]


class FileMetadata(Wire):
    format: Text = None  # SafeTensor · PickleTensor · GGUF · Diffusers · …
    fp: Text = None  # fp32 · fp16 · bf16 · fp8 · nf4 · …
    size: Text = None  # full · pruned
    quant_type: Text = None


class ModelFile(Wire):
    id: int
    name: str = ""
    type: Text = None  # Model · Pruned Model · VAE · Negative · Config · Training Data · …
    size_kb: Num = Field(default=None, alias="sizeKB")  # KiB, as the API has it
    metadata: Annotated[FileMetadata | None, BeforeValidator(_object)] = None
    hashes: Annotated[dict[str, Any], BeforeValidator(lambda v: v if isinstance(v, dict) else {})] = {}
    primary: Bool = None
    pickle_scan_result: Text = None
    virus_scan_result: Text = None
    download_url: Text = None

    @property
    def sha256(self) -> str | None:
        """Lower-case hex of the whole file, as the hub declares it."""
        value = self.hashes.get("SHA256")
        return value.lower() if isinstance(value, str) and len(value) == 64 else None

    @property
    def size_bytes(self) -> int | None:
        """Bytes, from KiB; hand-edited rows may be off by a little."""
        return None if self.size_kb is None else round(self.size_kb * 1024)


class Stats(Wire):
    download_count: Int = None
    thumbs_up_count: Int = None
    thumbs_down_count: Int = None
    comment_count: Int = None
    rating: Num = None  # older answers


class Creator(Wire):
    username: Text = None
    image: Text = None


class Image(Wire):
    """An example image. `nsfw_level` is an int on models and versions, a word on /images; `meta` may be nested."""

    id: Int = None
    url: Text = None
    width: Int = None
    height: Int = None
    hash: Text = None  # BlurHash
    type: Text = None  # image · video · audio
    nsfw_level: Annotated[int | str | None, _only(int, str)] = None
    browsing_level: Int = None
    meta: Annotated[dict[str, Any] | None, _only(dict)] = None
    has_meta: Bool = None
    post_id: Int = None
    username: Text = None
    base_model: Text = None
    created_at: Text = None
    stats: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = None
    model_version_ids: Annotated[
        list[int], BeforeValidator(lambda v: [i for i in v if isinstance(i, int)] if isinstance(v, list) else [])
    ] = []

    @property
    def image_id(self) -> int | None:
        """The id, or the number in the URL's file name: the only place models routes give it."""
        if self.id is not None:
            return self.id
        stem = (self.url or "").rsplit("/", 1)[-1].split(".", 1)[0]
        return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 11 else None


class ModelVersion(Wire):
    id: int
    model_id: Int = None  # absent inside a model
    name: Annotated[str, BeforeValidator(lambda v: v if isinstance(v, str) else "")] = ""
    base_model: Text = None
    base_model_type: Text = None
    air: Text = None
    description: Text = None  # HTML
    trained_words: Strings = []
    clip_skip: Int = None
    settings: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = None
    created_at: Text = None
    updated_at: Text = None
    published_at: Text = None
    availability: Text = None
    usage_control: Text = None
    early_access_ends_at: Text = None
    early_access_deadline: Text = None
    nsfw_level: Int = None
    stats: Annotated[Stats | None, BeforeValidator(_object)] = None
    model: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = None  # {name, type, nsfw, poi, mode?}
    files: Annotated[list[ModelFile], BeforeValidator(_objects)] = []
    images: Annotated[list[Image], BeforeValidator(_objects)] = []
    download_url: Text = None


class Model(Wire):
    id: int
    name: Annotated[str, BeforeValidator(lambda v: v if isinstance(v, str) else "")] = ""
    type: Text = None
    description: Text = None  # HTML
    nsfw: Annotated[bool | str | None, _only(bool, str)] = None
    nsfw_level: Int = None
    poi: Bool = None
    minor: Bool = None
    mode: Text = None  # Archived · TakenDown
    availability: Text = None
    tags: Annotated[
        list[Any], BeforeValidator(lambda v: v if isinstance(v, list) else [])
    ] = []  # strings; old answers: {"name": …}
    creator: Annotated[Creator | None, BeforeValidator(_object)] = None
    stats: Annotated[Stats | None, BeforeValidator(_object)] = None
    allow_no_credit: Bool = None
    allow_commercial_use: Any = None  # "{Image,Rent}", "Sell" or a list: `commercial_uses`
    allow_derivatives: Bool = None
    allow_different_license: Bool = None
    model_versions: Annotated[list[ModelVersion], BeforeValidator(_objects)] = []

    @property
    def tag_names(self) -> list[str]:
        named = (tag.get("name") if isinstance(tag, dict) else tag for tag in self.tags)
        return [name for name in named if isinstance(name, str)]

    @property
    def commercial_uses(self) -> frozenset[str]:
        """None · Image · RentCivit · Rent · Sell, from any of the three spellings hubs use."""
        return commercial_uses(self.allow_commercial_use)


def commercial_uses(value: Any) -> frozenset[str]:
    """`"{Image,RentCivit}"`, `["Image"]` or `"Sell"` → the set of words; nothing known → empty."""
    if isinstance(value, str):
        value = value.strip("{}").split(",")
    if not isinstance(value, list):
        return frozenset()
    return frozenset(word.strip().strip('"') for word in value if isinstance(word, str) and word.strip())


class PageMetadata(Wire):
    next_cursor: Annotated[
        str | int | None, BeforeValidator(lambda v: v if isinstance(v, str | int) and not isinstance(v, bool) else None)
    ] = None
    next_page: Text = None
    current_page: Int = None
    page_size: Int = None
    total_items: Int = None
    total_pages: Int = None


class Page(Wire, Generic[T]):
    items: list[T] = []
    metadata: Annotated[PageMetadata, BeforeValidator(lambda v: v if isinstance(v, dict | BaseModel) else {})] = (
        PageMetadata()
    )

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        return iter(self.items)
