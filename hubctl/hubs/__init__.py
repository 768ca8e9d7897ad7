"""Hubs: where models come from. `open_hub` gives one, or several asked in order of preference.

with open_hub("https://civitai.com", token=…) as hub:
    for model in hub.search(SearchQuery(text="thanos", types=("LORA",))): …
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from hubctl.hubs.query import SearchQuery
    from hubctl.hubs.transport import Transport
    from registry import wire

BUILT_IN = {"civitai": "hubctl.hubs.civitai:Civitai"}
NAMED_URLS = {"civitai": "https://civitai.com", "civitai.red": "https://civitai.red"}


class Hub(Protocol):
    """What a hub can do. Everything raises HubError, NotFound or Offline with a sentence for a person."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def transport(self) -> Transport: ...
    def search(self, query: SearchQuery) -> Iterator[wire.Model]: ...
    def model(self, model_id: int) -> wire.Model: ...
    def models(self, ids: Iterable[int]) -> Iterator[wire.Model]: ...
    def version(self, version_id: int) -> wire.ModelVersion: ...
    def by_hash(self, value: str) -> wire.ModelVersion: ...
    def by_hashes(self, values: Iterable[str]) -> dict[str, wire.ModelVersion]: ...
    def ids_by_hash(self, values: Iterable[str]) -> dict[str, tuple[int, int]]: ...
    def images(
        self, *, model_version_id: int | None = None, model_id: int | None = None, limit: int = 20, nsfw: bool = False
    ) -> Iterator[wire.Image]: ...
    def image(self, image_id: int) -> wire.Image: ...
    def picture(self, url: str, *, limit: int = ...) -> bytes: ...
    def creators(self, text: str | None = None, *, limit: int = 20) -> list[dict[str, Any]]: ...
    def tags(self, text: str | None = None, *, limit: int = 20) -> list[dict[str, Any]]: ...
    def enums(self) -> dict[str, list[str]]: ...
    def me(self) -> dict[str, Any]: ...
    def download_url(self, version: wire.ModelVersion, file: wire.ModelFile) -> str: ...
    def download_urls(self, version: wire.ModelVersion, file: wire.ModelFile) -> list[str]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None: ...


def open_hub(
    hub: str | Sequence[tuple[str, str, str | None]],
    *,
    token: str | None = None,
    tokens: Mapping[str, str] | None = None,
    offline: bool = False,
    user_agent: str | None = None,
    timeout: float = 30.0,
    patience: float = 120.0,
    cache_dir: Path | None = None,
    lan: bool | None = None,
    kind: str = "civitai",
) -> Hub:
    """A hub by name or URL, or several as (name, URL, key) in order of preference.

    `tokens` maps base URLs to keys; `cache_dir` holds the machine's call budget. Nothing is asked of the network yet.
    """
    from hubctl import plugins
    from hubctl.hubs.transport import USER_AGENT

    if isinstance(hub, str):
        url = NAMED_URLS.get(hub, hub)
        hub = [(hub, url, token or (tokens or {}).get(url))]
    make = plugins.load("hubctl.hubs", BUILT_IN, kind)
    opened: list[Hub] = [
        make(
            url,
            name=name if "://" not in name else None,
            token=key,
            offline=offline,
            timeout=timeout,
            patience=patience,
            user_agent=user_agent or USER_AGENT,
            cache_dir=cache_dir,
            lan=lan,
        )
        for name, url, key in hub
    ]
    if len(opened) == 1:
        return opened[0]
    from hubctl.hubs.several import Several

    return Several(opened)


def source_of(version: wire.ModelVersion, hub: Hub) -> str:
    """Whose ids a version's numbers are: what its AIR says, else the hub's own name; Civitai's sister sites are one."""
    from hubctl.hubs.transport import same_hub
    from registry import AIR
    from registry.errors import InvalidReference

    try:
        air = AIR.parse(version.air or "")
    except InvalidReference:
        air = None
    if air is not None and air.version == str(version.id):
        return air.source
    return "civitai" if same_hub(hub.url, NAMED_URLS["civitai"]) else hub.name


__all__ = ["Hub", "open_hub", "source_of"]
