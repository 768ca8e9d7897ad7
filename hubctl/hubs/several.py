"""Several hubs in order of preference, as one: a machine nearby first, the public hub when it does not have it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hubctl.errors import HubUnavailable, InvalidReference, KnownError, LoginRequired, NotFound, UsageError

if TYPE_CHECKING:
    from hubctl.hubs import Hub
    from hubctl.hubs.query import SearchQuery
    from hubctl.hubs.transport import Transport
    from registry import wire

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Several:
    """Each question goes to the hubs in turn until one answers. Named after the last, which is the fullest.

    Raises the last hub's error, but an unreachable hub's only when no other said something more telling.
    """

    def __init__(self, hubs: Sequence[Hub]) -> None:
        if not hubs:
            raise UsageError("no hub is configured", hint="`hubctl config set hub civitai`")
        self.hubs = tuple(hubs)

    @property
    def name(self) -> str:
        return self.hubs[-1].name

    @property
    def url(self) -> str:
        return self.hubs[-1].url

    @property
    def transport(self) -> Transport:
        return self.hubs[-1].transport

    def transport_for(self, url: str) -> Transport:
        """The transport of the hub a URL belongs to, with that hub's key."""
        from hubctl.hubs.transport import same_hub

        return next((hub.transport for hub in self.hubs if same_hub(url, hub.url)), self.transport)

    def _first(self, ask: Callable[[Hub], T]) -> T:
        telling: KnownError | None = None
        for hub in self.hubs:
            try:
                return ask(hub)
            except (InvalidReference, UsageError):
                raise
            except KnownError as error:
                logger.info("%s: %s", hub.name, error.message)
                if telling is None or not isinstance(error, HubUnavailable):
                    telling = error
        assert telling is not None
        raise telling

    def search(self, query: SearchQuery) -> Iterator[wire.Model]:
        """Models of the first hub that finds any."""

        def some(hub: Hub) -> Iterator[wire.Model]:
            found = hub.search(query)
            first = next(found, None)
            if first is None:
                raise NotFound(f"{hub.name} finds nothing")
            return chain([first], found)

        try:
            yield from self._first(some)
        except NotFound:
            return

    def model(self, model_id: int) -> wire.Model:
        return self._first(lambda hub: hub.model(model_id))

    def models(self, ids: Iterable[int]) -> Iterator[wire.Model]:
        """From the fullest hub: a nearby one knows only what somebody installed there."""
        return self.hubs[-1].models(ids)

    def version(self, version_id: int) -> wire.ModelVersion:
        return self._first(lambda hub: hub.version(version_id))

    def by_hash(self, value: str) -> wire.ModelVersion:
        return self._first(lambda hub: hub.by_hash(value))

    def by_hashes(self, values: Iterable[str]) -> dict[str, wire.ModelVersion]:
        return self._united([value.lower() for value in values], lambda hub, rest: hub.by_hashes(rest))

    def ids_by_hash(self, values: Iterable[str]) -> dict[str, tuple[int, int]]:
        return self._united([value.lower() for value in values], lambda hub, rest: hub.ids_by_hash(rest))

    def _united(self, wanted: list[str], ask: Callable[[Hub, list[str]], dict[str, T]]) -> dict[str, T]:
        """What any hub knows; each is asked only for what the ones before it did not know."""
        out: dict[str, T] = {}
        failure: KnownError | None = None
        for hub in self.hubs:
            rest = [value for value in wanted if value not in out]
            try:
                out.update(ask(hub, rest) if rest else {})
            except KnownError as error:
                failure = error
        if failure is not None and not out:
            raise failure
        return out

    def images(
        self, *, model_version_id: int | None = None, model_id: int | None = None, limit: int = 20, nsfw: bool = False
    ) -> Iterator[wire.Image]:
        def some(hub: Hub) -> Iterator[wire.Image]:
            found = hub.images(model_version_id=model_version_id, model_id=model_id, limit=limit, nsfw=nsfw)
            first = next(found, None)
            if first is None:
                raise NotFound(f"{hub.name} has no images of it")
            return chain([first], found)

        try:
            yield from self._first(some)
        except NotFound:
            return

    def image(self, image_id: int) -> wire.Image:
        return self._first(lambda hub: hub.image(image_id))

    def picture(self, url: str, **limits: int) -> bytes:
        return self._first(lambda hub: hub.picture(url, **limits))

    def creators(self, text: str | None = None, *, limit: int = 20) -> list[dict[str, Any]]:
        return self._first(lambda hub: hub.creators(text, limit=limit))

    def tags(self, text: str | None = None, *, limit: int = 20) -> list[dict[str, Any]]:
        return self._first(lambda hub: hub.tags(text, limit=limit))

    def enums(self) -> dict[str, list[str]]:
        return self._first(lambda hub: hub.enums())

    def me(self) -> dict[str, Any]:
        """The account at the first hub we hold a key for."""
        for hub in self.hubs:
            if hub.transport.login.token:
                return hub.me()
        raise LoginRequired("no hub has a key stored")

    def download_url(self, version: wire.ModelVersion, file: wire.ModelFile) -> str:
        return self.download_urls(version, file)[0]

    def download_urls(self, version: wire.ModelVersion, file: wire.ModelFile) -> list[str]:
        """Bytes are asked by hash from the nearest hub that has them; they are verified all the same.

        A file without a hash is fetched where its own URL points to.
        """
        from hubctl.hubs.transport import same_hub

        out: list[str] = []
        for hub in self.hubs[:-1]:
            try:
                if file.sha256:
                    nearby = hub.by_hash(file.sha256)
                    same = next((each for each in nearby.files if each.sha256 == file.sha256), None)
                    if same is not None:
                        out.append(hub.download_url(nearby, same))
                elif file.download_url and same_hub(file.download_url, hub.url):
                    return hub.download_urls(version, file)
            except KnownError as error:
                logger.info("%s: %s", hub.name, error.message)
        return list(dict.fromkeys(out + self.hubs[-1].download_urls(version, file)))

    def close(self) -> None:
        for hub in self.hubs:
            hub.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.close()
