"""Downloads against a hub that misbehaves: the right bytes or the right named error, no good name on bad bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
import shutil
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rude import FOREVER, PASSWORD, SIGNATURE_MARK, TOKEN, RudeHub, lora

from hubctl import errors
from hubctl.hubs.download import Download, Job, Stopped, Tuning, fetch, fetch_many
from hubctl.hubs.ratelimit import RateLimiter
from hubctl.hubs.segments import Segment, Transfer, ignore
from hubctl.hubs.transport import Transport
from registry import BlobStore, Partial
from registry.partial import holder, open_partial

EAGER = Tuning(smallest_split=64 << 10, fast=1e12, measure_seconds=0.02)
SMALL, MULTI = 40_000, 3 << 20


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first wait of a back-off, a tenth of what people get."""
    monkeypatch.setattr("hubctl.hubs.transport.FIRST_WAIT", 0.05)


def payload(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def reserve(folder: Path, rude: RudeHub, *, declared: bool = True) -> Partial:
    return open_partial(
        folder / "partial",
        BlobStore(folder / "blobs"),
        sha256=rude.sha256 if declared else None,
        size=len(rude.data),
        key=rude.link,
    )


def hub(rude: RudeHub, **options: object) -> Transport:
    given: dict = {"name": "rude", "token": TOKEN, "timeout": 0.4, "patience": 2.5, "lan": True, **options}
    return Transport(rude.url, **given)


# misdeed: how often it is done, and what must come of it (None: the right bytes)
MISDEEDS: dict[str, tuple[int, type[errors.KnownError] | None]] = {
    "nothing": (0, None),
    "cut": (2, None),
    "reset": (2, None),
    "stall": (1, None),
    "trickle": (1, None),
    "empty_answer": (2, None),
    "ignore_range": (FOREVER, None),
    "lie_start": (FOREVER, None),
    "no_content_range": (FOREVER, None),
    "range_416": (1, None),
    "no_length": (FOREVER, None),
    "flip": (1, None),
    "fewer": (FOREVER, errors.VerificationFailed),
    "more": (FOREVER, errors.VerificationFailed),
    "gzip": (FOREVER, errors.VerificationFailed),
    "html": (FOREVER, errors.VerificationFailed),
    "json": (FOREVER, errors.VerificationFailed),
    "storage_500": (2, None),
    "expired": (2, None),
    "hub_503": (2, None),
    "hub_404": (1, None),
    "rate_limit": (2, None),
    "volume": (FOREVER, errors.RateLimited),
    "loop": (FOREVER, errors.HubError),
    "login": (FOREVER, errors.LoginRequired),
    "early_access": (FOREVER, errors.EarlyAccess),
    "disabled": (FOREVER, errors.DownloadsDisabled),
    "archived": (FOREVER, errors.Archived),
    "region": (FOREVER, errors.RegionBlocked),
    "edge": (FOREVER, errors.BlockedByEdge),
    "no_access": (FOREVER, errors.NoAccess),
    "slow_down": (FOREVER, errors.RateLimited),
    "rename": (FOREVER, None),
    "change": (1, errors.VerificationFailed),
    "stumble": (1, None),
    "wrong_total": (1, None),
    "small_lie": (2, None),
    "multipart": (FOREVER, None),
    "short_range": (FOREVER, None),
    "open_total": (FOREVER, None),
    "part_unasked": (FOREVER, None),
    "whole_from_zero": (FOREVER, None),
    "chunked": (FOREVER, None),
    "http10": (FOREVER, None),
    "hints": (FOREVER, None),
    "weak_etag": (FOREVER, None),
    "loris": (1, None),
    "end_reset": (2, None),
    "long_header": (1, None),
    "two_lengths": (FOREVER, errors.HubUnavailable),
    "garbage": (FOREVER, errors.HubUnavailable),
    "odd_status": (FOREVER, errors.HubError),
    "empty_file": (1, None),
    "only_empty_files": (FOREVER, errors.VerificationFailed),
    "retry_date": (2, None),
    "retry_odd": (2, None),
    "retry_absurd": (FOREVER, errors.RateLimited),
    "storm": (FOREVER, errors.RateLimited),
    "elsewhere": (FOREVER, errors.HubError),
    "credentials": (FOREVER, None),
}
# the same misdeed on another number of occasions
ALIAS = {"stumble": "ignore_range", "only_empty_files": "empty_file"}
# refusals that say nothing against the bytes that are here
INNOCENT = {
    "volume", "loop", "login", "early_access", "disabled", "archived", "region", "edge", "no_access", "slow_down",
    "html", "json", "gzip", "fewer", "more", "two_lengths", "garbage", "odd_status", "only_empty_files", "retry_absurd",
    "storm", "elsewhere",
}  # fmt: skip
# answers that are odd once: what is here is neither thrown away nor fetched again
HARMLESS_ONCE = {
    "cut", "reset", "stall", "empty_answer", "range_416", "storage_500", "expired", "hub_503", "hub_404",
    "rate_limit", "rename", "stumble", "wrong_total", "small_lie", "short_range", "open_total", "chunked", "weak_etag",
    "loris", "end_reset", "long_header", "empty_file", "retry_date", "retry_odd", "credentials",
}  # fmt: skip
WAYS = ("fresh", "resumed", "segmented")
# names in headers are a stranger's: none of them is ever a path
TRAVERSAL = {"Content-Disposition": "attachment; filename=\"../../../evil.sh\"; filename*=UTF-8''..%2F..%2Fevil.sh"}


@dataclass(frozen=True)
class Cell:
    """What came of a misdeed, and what is on disk afterwards."""

    rude: RudeHub
    error: errors.KnownError | None
    content: bytes = b""
    received: int = 0


def attempt(folder: Path, misdeed: str, way: str, size: int) -> Cell:
    """One cell of the matrix."""
    data = payload(size)
    speed = 12e6 if way == "segmented" else None
    patience = 2.5 if MISDEEDS[misdeed][1] else 30.0  # a busy machine may take its time with what ends well
    with (
        patch("registry.partial.CHUNK", 1 << 20),  # so that three megabytes are several
        RudeHub(data, per_connection=speed, extra=TRAVERSAL, redirect_to="file:///etc/passwd") as rude,
        hub(rude, patience=patience).closing() as transport,
        reserve(folder, rude) as partial,
    ):
        if way == "resumed":
            partial.write_at(0, data[: size // 3])
            partial.meta.update(total=size, etag=rude.etag)
            partial.checkpoint()
        rude.misdeeds[ALIAS.get(misdeed, misdeed)] = MISDEEDS[misdeed][0]
        try:
            done = fetch(
                transport, rude.link, partial, size=size, sha256=rude.sha256,
                connections=4 if way == "segmented" else 1, tuning=EAGER,
            )  # fmt: skip
            blob = partial.seal(rude.sha256)
            content = (folder / "blobs" / blob.sha256[:2] / blob.sha256).read_bytes()
            return Cell(rude, None, content, done.received)
        except errors.KnownError as error:
            return Cell(rude, error)


@pytest.mark.parametrize("size", [SMALL, MULTI], ids=["small", "multi"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_matrix(tmp_path: Path, misdeed: str, way: str, size: int) -> None:
    cell = attempt(tmp_path, misdeed, way, size)
    rude, error, expected = cell.rude, cell.error, MISDEEDS[misdeed][1]
    if expected is None:
        assert error is None
        assert cell.content == rude.data
        if way == "resumed" and misdeed in HARMLESS_ONCE:
            assert cell.received <= size - size // 3
    else:
        assert isinstance(error, expected)
        assert error.message
        assert error.hint
        assert not list((tmp_path / "blobs").rglob("*/*"))  # no good name on anything
    assert {path.name for path in tmp_path.iterdir()} <= {"blobs", "partial"}
    assert len(rude.requests) < 80
    if way == "resumed" and misdeed in INNOCENT:
        with open_partial(
            tmp_path / "partial", BlobStore(tmp_path / "blobs"), sha256=rude.sha256, size=0, key=None
        ) as p:
            assert p.received == size // 3  # what was good is kept


def test_several_connections_are_used_when_the_line_is_slow(tmp_path: Path) -> None:
    with RudeHub(payload(MULTI), per_connection=3e6) as rude, reserve(tmp_path, rude) as partial:
        fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, connections=4, tuning=EAGER)
        assert rude.most_active > 1
        assert partial.digest() == rude.sha256


def test_each_segment_renews_its_own_link(tmp_path: Path) -> None:
    with (
        RudeHub(payload(MULTI), per_connection=3e6, misdeeds={"cut": 3}, lifetime=0.2) as rude,
        reserve(tmp_path, rude) as partial,
    ):
        transport = hub(rude, patience=30.0)
        fetch(transport, rude.link, partial, size=MULTI, sha256=rude.sha256, connections=3, tuning=EAGER)
        assert partial.digest() == rude.sha256


def test_a_changed_file_starts_over_and_says_so(tmp_path: Path) -> None:
    events: list[str] = []
    data = payload(MULTI)
    new = bytes(byte ^ 0x55 for byte in data)
    with RudeHub(data, misdeeds={"change": 1}) as rude, reserve(tmp_path, rude, declared=False) as partial:
        partial.write_at(0, data[: MULTI // 2])
        partial.meta.update(total=MULTI, etag='"v1"')
        partial.checkpoint()
        fetch(hub(rude), rude.link, partial, size=MULTI, on_event=lambda kind, **facts: events.append(kind))
        assert partial.digest() == hashlib.sha256(new).hexdigest()
    assert "restarted" in events


def test_only_damaged_ranges_are_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.partial.CHUNK", 1 << 20)
    data = payload(MULTI)
    events: list[tuple[str, dict]] = []
    with RudeHub(data) as rude, reserve(tmp_path, rude) as partial:
        for at in range(0, MULTI, 1 << 20):
            partial.write_at(at, data[at : at + (1 << 20)])
            partial.checkpoint()
        partial.meta.update(total=MULTI, etag=rude.etag)
        with partial.path.open("r+b") as file:  # the disk lies about one chunk
            file.seek((1 << 20) + 5)
            file.write(b"damage")
        partial.discard([])
        done = fetch(
            hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, on_event=lambda k, **f: events.append((k, f))
        )
        assert partial.digest() == rude.sha256
    assert done.received <= 1 << 20
    assert ("repair", {"count": 1, "bytes": 1 << 20}) in events


def test_a_lying_hash_is_refused_after_one_more_try(tmp_path: Path) -> None:
    with RudeHub(payload(SMALL)) as rude, reserve(tmp_path, rude) as partial:
        with pytest.raises(errors.VerificationFailed) as caught:
            fetch(hub(rude), rude.link, partial, size=SMALL, sha256="0" * 64)
        assert caught.value.details["found"] == rude.sha256
        assert rude.storage_requests() == 2


def test_a_public_hub_may_not_send_us_to_a_private_address(tmp_path: Path) -> None:
    with RudeHub(payload(SMALL)) as rude, reserve(tmp_path, rude) as partial:
        with pytest.raises(errors.HubError, match="private address"):
            fetch(hub(rude, lan=False), rude.link, partial, size=SMALL)
        assert rude.storage_requests() == 0


@pytest.mark.parametrize(
    "where",
    [
        "http://10.0.0.1/x", "http://[::ffff:10.0.0.1]/x", "http://[::ffff:127.0.0.1]/x", "http://[64:ff9b::a00:1]/x",
        "http://[2002:a00:1::]/x", "http://[::1]:1/x", "http://127.1/x", "http://2130706433/x", "http://0x7f000001/x",
        "http://0/x", "http://169.254.169.254/latest/meta-data", "http://[fe80::1%25eth0]/x", "http://224.0.0.1/x",
        "//192.168.1.1/x",
    ],
)  # fmt: skip
def test_every_spelling_of_a_private_address_is_known(tmp_path: Path, where: str) -> None:
    with RudeHub(payload(SMALL), misdeeds={"elsewhere": FOREVER}, redirect_to=where) as rude:
        with reserve(tmp_path, rude) as partial, pytest.raises(errors.HubError, match="private address"):
            fetch(hub(rude, lan=False), rude.link, partial, size=SMALL, sha256=rude.sha256)
        assert len(rude.requests) == 1


def test_a_name_that_turns_private_when_it_is_connected_to_gets_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public while the redirect is judged, loopback a moment later."""
    monkeypatch.setattr("hubctl.hubs.transport.is_private", lambda host: False)
    with RudeHub(payload(SMALL)) as rude, reserve(tmp_path, rude) as partial:
        with pytest.raises(errors.HubError, match="private address"):
            fetch(hub(rude, lan=False), rude.link, partial, size=SMALL, sha256=rude.sha256)
        assert rude.storage_requests() == 0


@pytest.mark.parametrize(
    "where",
    [
        "file:///etc/passwd", "ftp://h/x", "gopher://h/x", "data:text/html,x", "javascript:1", "http://h:99999/x",
        "http://h:0x50/x", "http://[::1/x", "http://xn--/x", "http://h/" + "a" * 70_000, "https:",
    ],
    ids=lambda where: where[:24],
)  # fmt: skip
def test_an_address_nobody_can_go_to_is_a_sentence(tmp_path: Path, where: str) -> None:
    with (
        RudeHub(payload(SMALL), misdeeds={"elsewhere": FOREVER}, redirect_to=where) as rude,
        reserve(tmp_path, rude) as partial,
        pytest.raises(errors.HubError) as caught,
    ):
        fetch(hub(rude), rude.link, partial, size=SMALL, sha256=rude.sha256)
    assert caught.value.hint
    assert len(caught.value.message) < 300


def test_signed_links_of_the_hub_s_own_host_are_renewed_too(tmp_path: Path) -> None:
    """A hub that keeps its files itself: what it says of a link is not what it says of the file."""
    with RudeHub(payload(MULTI), storage="127.0.0.1", token=None, misdeeds={"expired": 2, "cut": 2}) as rude:
        with reserve(tmp_path, rude) as partial:
            fetch(hub(rude, token=None), rude.link, partial, size=MULTI, sha256=rude.sha256, tuning=EAGER)
            assert partial.digest() == rude.sha256
        rude.misdeeds["expired"] = FOREVER
        with reserve(tmp_path / "2", rude) as partial, pytest.raises(errors.HubUnavailable):
            fetch(hub(rude, token=None), rude.link, partial, size=MULTI, sha256=rude.sha256)


def test_a_file_that_is_json_is_gone_on_with_like_any_other(tmp_path: Path) -> None:
    """A workflow of two megabytes, cut twice: the rest of it is no error message."""
    data = json.dumps({"nodes": [{"id": n, "type": "KSampler"} for n in range(60_000)]}).encode()
    with (
        RudeHub(data, content_type="application/json", misdeeds={"cut": 2}) as rude,
        reserve(tmp_path, rude) as partial,
    ):
        done = fetch(hub(rude), rude.link, partial, size=len(data), sha256=rude.sha256, connections=1)
        assert partial.digest() == rude.sha256
    assert done.received == len(data)


def test_a_server_that_never_continues_a_file_is_asked_thrice_before_what_is_here_is_given_up(tmp_path: Path) -> None:
    said: list[str] = []
    with RudeHub(payload(MULTI), misdeeds={"ignore_range": FOREVER}) as rude, reserve(tmp_path, rude) as partial:
        partial.write_at(0, rude.data[: MULTI // 2])
        partial.meta.update(total=MULTI, etag=rude.etag)
        partial.checkpoint()
        fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, on_event=lambda k, **f: said.append(k))
        assert partial.digest() == rude.sha256
        assert rude.storage_requests() == 4
    assert [kind for kind in said if kind in {"retry", "restarted"}] == ["retry", "retry", "restarted"]


def test_no_cookie_is_kept_or_sent(tmp_path: Path) -> None:
    cookie = {"Set-Cookie": "session=c00kie-value; Path=/"}
    with RudeHub(payload(MULTI), extra=cookie, misdeeds={"cut": 2}) as rude, reserve(tmp_path, rude) as partial:
        fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
        assert len(rude.requests) >= 6
        assert not any("cookie" in name.lower() for _, _, headers in rude.requests for name in headers)


def test_a_hub_that_stays_away_is_given_up_and_the_partial_kept(tmp_path: Path) -> None:
    data = payload(MULTI)
    with RudeHub(data, misdeeds={"storage_500": FOREVER}) as rude, reserve(tmp_path, rude) as partial:
        partial.write_at(0, data[:1000])
        partial.meta.update(total=MULTI, etag=rude.etag)
        with pytest.raises(errors.HubUnavailable):
            fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
        assert partial.received == 1000


def test_stop_keeps_what_came_and_the_next_try_continues(tmp_path: Path) -> None:
    data = payload(MULTI)
    stop = threading.Event()
    with RudeHub(data, per_connection=4e6) as rude:

        def watch(done: int, total: int | None) -> None:
            if done > 1 << 20:
                stop.set()

        with reserve(tmp_path, rude) as partial, pytest.raises(Stopped):
            fetch(
                hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, connections=1, stop=stop, on_bytes=watch
            )  # fmt: skip
        rude.per_connection = None
        with reserve(tmp_path, rude) as partial:
            had = partial.received
            done = fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
            assert had >= 1 << 20
            assert done.received == MULTI - had


def test_a_limit_of_bytes_per_second_is_kept(tmp_path: Path) -> None:
    with RudeHub(payload(MULTI)) as rude, reserve(tmp_path, rude) as partial:
        begun = time.monotonic()
        fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, limit_rate=4_000_000)
        assert time.monotonic() - begun > 0.5


def test_no_key_is_login_required_and_a_bad_one_is_named(tmp_path: Path) -> None:
    with RudeHub(payload(SMALL)) as rude, reserve(tmp_path, rude) as partial:
        with pytest.raises(errors.LoginRequired):
            fetch(hub(rude, token=None), rude.link, partial, size=SMALL)
        with pytest.raises(errors.TokenRejected):
            fetch(hub(rude, token="old"), rude.link, partial, size=SMALL)


def test_the_key_goes_to_the_hub_only(tmp_path: Path) -> None:
    with RudeHub(payload(SMALL)) as rude, reserve(tmp_path, rude) as partial:
        fetch(hub(rude), rude.link, partial, size=SMALL, sha256=rude.sha256)
        for host, path, headers in rude.requests:
            assert ("Authorization" in headers) == host.startswith("127.0.0.1")
            assert TOKEN not in path
            assert headers["User-Agent"].startswith("hubctl/")


def test_no_secret_is_written_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    data = payload(MULTI)
    with RudeHub(data, misdeeds={"cut": 1, "expired": 1, "storage_500": FOREVER}) as rude:
        with reserve(tmp_path, rude) as partial:
            partial.write_at(0, data[:1000])
            with pytest.raises(errors.KnownError) as caught:
                fetch(
                    hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256,
                    on_event=lambda kind, **facts: said.append(repr((kind, facts))),
                )  # fmt: skip
        rude.misdeeds.clear()
        with reserve(tmp_path, rude) as partial:
            fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
    signatures = {path.split(SIGNATURE_MARK + "=")[1] for _, path, _ in rude.requests if SIGNATURE_MARK in path}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    everything = caplog.text + "".join(said) + str(caught.value.to_json()) + written.decode()
    assert signatures
    assert not any(secret in everything for secret in {TOKEN, *signatures})


@pytest.mark.parametrize("misdeed", ["echo", "hub_echo", "token_in_url", "credentials", "expired", "odd_status"])
@pytest.mark.parametrize("often", [1, FOREVER])
def test_a_secret_in_an_odd_place_stays_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, misdeed: str, often: int
) -> None:
    """Repeated in an error's words, put into a query or before a host: in no log, event, error or file."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with RudeHub(payload(SMALL), misdeeds={misdeed: often}) as rude, reserve(tmp_path, rude) as partial:
        try:
            fetch(
                hub(rude), rude.link, partial, size=SMALL, sha256=rude.sha256,
                on_event=lambda kind, **facts: said.append(repr((kind, facts))),
            )  # fmt: skip
        except errors.KnownError as error:
            said.append(json.dumps(error.to_json()) + repr(error.__context__) + repr(error.__cause__))
        partial.checkpoint()
        secrets = {path.split(SIGNATURE_MARK + "=")[1] for _, path, _ in rude.requests if SIGNATURE_MARK in path}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json")).decode()
    everything = caplog.text + "".join(said) + written
    assert "httpcore" in everything  # the library's own words are among them
    assert not [secret for secret in {TOKEN, PASSWORD, *secrets} if secret in everything]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.sampled_from(["cut", "reset", "empty_answer", "expired", "hub_503"]), max_size=4),
    n=st.integers(1, 4),
)
def test_any_interleaving_of_cuts_and_resumes_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[str], n: int
) -> None:
    folder = tmp_path_factory.mktemp("cuts")
    with RudeHub(payload(300_000), per_connection=30e6) as rude:
        for cut in [*cuts, None]:
            rude.misdeeds = {cut: 1} if cut else {}
            with reserve(folder, rude) as partial:
                try:
                    fetch(
                        hub(rude, patience=0.0 if cut else 3.0), rude.link, partial, size=300_000, sha256=rude.sha256,
                        connections=n, tuning=Tuning(smallest_split=32 << 10, fast=1e12, measure_seconds=0.0),
                    )  # fmt: skip
                except errors.HubUnavailable:
                    continue
                assert partial.seal(rude.sha256).sha256 == rude.sha256
                return
        raise AssertionError("the last try had no misdeed and did not finish")


def test_many_at_once_and_one_that_fails(tmp_path: Path) -> None:
    with RudeHub(payload(SMALL)) as rude:

        def one(number: int) -> Job:
            def run(stop: threading.Event) -> int:
                if number == 1:
                    raise errors.NotFound("gone")
                with reserve(tmp_path / str(number), rude) as partial:
                    return fetch(hub(rude), rude.link, partial, size=SMALL, sha256=rude.sha256, stop=stop).size

            return Job(str(number), run)

        results = fetch_many([one(number) for number in range(4)], parallel=2)
    assert [result.value for result in results] == [SMALL, None, SMALL, SMALL]
    assert isinstance(results[1].error, errors.NotFound)


KILLED = """
import sys
from pathlib import Path
from hubctl.hubs import download, segments
from hubctl.hubs.transport import Transport
from registry import BlobStore
from registry.partial import open_partial
folder, base, link, token, sha, size = sys.argv[1:]
segments.CHECKPOINT_SECONDS = 0.05
store = BlobStore(Path(folder) / "blobs")
with open_partial(Path(folder) / "partial", store, sha256=sha, size=int(size), key=link) as partial:
    print("begun", flush=True)
    download.fetch(Transport(base, name="rude", token=token, lan=True), link, partial, size=int(size), sha256=sha)
"""


def test_sigkill_loses_at_most_what_was_not_flushed(tmp_path: Path) -> None:
    with RudeHub(payload(MULTI), per_connection=2e6) as rude:
        arguments = [str(tmp_path), rude.url, rude.link, TOKEN, rude.sha256, str(MULTI)]
        with subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(100):
                time.sleep(0.05)
                if any(b'"chunks": [[' in path.read_bytes() for path in (tmp_path / "partial").glob("*.json")):
                    break
            process.kill()
        rude.per_connection = None
        with reserve(tmp_path, rude) as partial:
            had = partial.received
            done = fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
            assert had > 0
            assert done.received == MULTI - had
            assert partial.seal(rude.sha256).size == MULTI


@pytest.mark.slow
def test_soak_two_hundred_files_with_random_faults(tmp_path: Path) -> None:
    """Eight at a time, each with a fault of its own (some with two): nothing is lost, nothing is left."""
    chance = random.Random(7)
    faults = ["cut", "reset", "expired", "hub_503", "empty_answer", "ignore_range", "flip", "lie_start", "rename"]
    plans = [({chance.choice(faults): chance.randint(1, 2) for _ in range(2)}, seed) for seed in range(200)]

    def one(misdeeds: dict[str, int], seed: int) -> Job:
        def run(stop: threading.Event) -> str:
            with RudeHub(payload(200_000, seed=seed)) as rude, reserve(tmp_path, rude) as partial:
                rude.chance = random.Random(seed)
                rude.misdeeds = dict(misdeeds)
                fetch(
                    hub(rude, patience=20.0), rude.link, partial, size=200_000, sha256=rude.sha256, tuning=EAGER,
                    connections=3, stop=stop,
                )  # fmt: skip
                return partial.seal(rude.sha256).sha256

        return Job(f"{seed} {misdeeds}", run)

    results = fetch_many([one(*plan) for plan in plans], parallel=8)
    assert {result.name: result.error for result in results if result.error} == {}
    expected = {hashlib.sha256(payload(200_000, seed=seed)).hexdigest() for _, seed in plans}
    assert {result.value for result in results} == expected
    assert {path.name for path in (tmp_path / "blobs").rglob("*/*")} == expected
    assert not list((tmp_path / "partial").glob("*"))


def test_a_server_that_restarts_in_the_middle_is_waited_for(tmp_path: Path) -> None:
    data = payload(MULTI)
    with RudeHub(data, per_connection=2e6) as rude, reserve(tmp_path, rude) as partial:
        transport, link, sha = hub(rude, patience=20.0), rude.link, rude.sha256
        failed: list[BaseException] = []

        def run() -> None:
            try:
                fetch(transport, link, partial, size=MULTI, sha256=sha, connections=1)
            except errors.KnownError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while partial.received < 1 << 20:
            time.sleep(0.02)
        rude.restart(away=3.0)
        thread.join(30)
        assert not failed
        assert partial.digest() == sha


def test_a_server_that_comes_back_with_another_etag_for_the_same_bytes_is_gone_on_with(tmp_path: Path) -> None:
    data = payload(MULTI)
    said: list[tuple[str, dict]] = []
    with RudeHub(data, etag='"v2"') as rude, reserve(tmp_path, rude) as partial:
        partial.write_at(0, data[: MULTI // 2])
        partial.meta.update(total=MULTI, etag='"v1"')
        partial.checkpoint()
        done = fetch(
            hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, on_event=lambda k, **f: said.append((k, f))
        )
        assert partial.digest() == rude.sha256
    assert done.received <= MULTI - MULTI // 2
    assert [kind for kind, _ in said if kind in {"kept", "restarted"}] == ["kept"]


def test_a_server_that_comes_back_with_another_file_starts_over_and_says_so(tmp_path: Path) -> None:
    """Same length, other bytes, other ETag: what is here is of no use, and the promised SHA256 is the new file's."""
    said: list[str] = []
    with RudeHub(payload(MULTI, seed=2), etag='"v2"') as rude, reserve(tmp_path, rude) as partial:
        partial.write_at(0, payload(MULTI)[: MULTI // 2])
        partial.meta.update(total=MULTI, etag='"v1"')
        partial.checkpoint()
        fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, on_event=lambda k, **f: said.append(k))
        assert partial.digest() == rude.sha256
    assert "restarted" in said
    assert "kept" not in said


def test_a_line_that_damages_every_fetch_somewhere_is_beaten_by_comparing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two whole fetches with a wrong byte each: only where they differ is fetched a third time."""
    monkeypatch.setattr("registry.partial.CHUNK", 1 << 18)
    said: list[tuple[str, dict]] = []
    with RudeHub(payload(MULTI), misdeeds={"flip": 2}) as rude, reserve(tmp_path, rude) as partial:
        done = fetch(
            hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, connections=1,
            on_event=lambda k, **f: said.append((k, f)),
        )  # fmt: skip
        assert partial.digest() == rude.sha256
    assert done.received <= 2 * MULTI + 2 * (1 << 18)
    assert [facts["count"] for kind, facts in said if kind == "repair"] == [2]


def test_blake3_settles_a_wrong_sha256(tmp_path: Path) -> None:
    from blake3 import blake3

    with RudeHub(payload(SMALL)) as rude, reserve(tmp_path, rude) as partial:
        done = fetch(
            hub(rude), rude.link, partial, size=SMALL, sha256="0" * 64, blake3=blake3(rude.data).hexdigest().upper()
        )
        assert done.verified_by == "BLAKE3"
        blob = partial.seal()
        assert (blob.sha256, blob.declared) == (rude.sha256, False)


def test_the_tensors_settle_a_wrong_sha256_that_comes_twice(tmp_path: Path) -> None:
    """AutoV3 is short and leaves the header out: it speaks last, and only beside the right size."""
    from registry.hashes import hash_file

    data = lora(SMALL)
    (tmp_path / "x").write_bytes(data)
    autov3 = hash_file(tmp_path / "x", ["AutoV3"])["AutoV3"]
    with RudeHub(data) as rude, reserve(tmp_path, rude) as partial:
        given: dict = {"sha256": "0" * 64, "autov3": autov3.lower()}
        done = fetch(hub(rude), rude.link, partial, size=len(data), **given)
        assert done.verified_by == "AutoV3"
        assert rude.storage_requests() == 2
        for more in ({"size": len(data) - 2000}, {"size": len(data), "autov3": "ab" * 6}):
            with pytest.raises(errors.VerificationFailed):
                fetch(hub(rude), rude.link, partial, **{**given, **more})


# --- what a crash can leave -------------------------------------------------------------------------------------------


def half(folder: Path, rude: RudeHub) -> tuple[Path, Path]:
    """A partial with its first two thirds on disk, left by a process that is gone; (data, journal)."""
    with reserve(folder, rude) as partial:
        for at in range(0, 2 << 20, 1 << 18):
            partial.write_at(at, rude.data[at : at + (1 << 18)])
        partial.meta.update(total=MULTI, etag=rude.etag)
        partial.checkpoint()
    (data,) = (folder / "partial").glob("*.part")
    return data, data.with_suffix(".json")


def truncate(path: Path, length: int) -> None:
    with path.open("r+b") as file:
        file.truncate(length)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


CRASHES = {
    "the tail of the data is missing": lambda data, journal: truncate(data, 1_500_000),
    "the tail of the data is zeros": lambda data, journal: overwrite(data, 1_900_000, bytes(100_000)),
    "a page in the middle is of somebody else": lambda data, journal: overwrite(data, 700_000, b"x" * 4096),
    "the data is gone": lambda data, journal: truncate(data, 0),
    "data beyond what the journal claims": lambda data, journal: overwrite(data, 2 << 20, b"y" * 50_000),
    "the journal is cut off": lambda data, journal: truncate(journal, 150),
    "the journal is empty": lambda data, journal: truncate(journal, 0),
    "the journal is missing": lambda data, journal: journal.unlink(),
    "the journal is zeros": lambda data, journal: journal.write_bytes(bytes(500)),
    "the journal is another thing": lambda data, journal: journal.write_text('["chunks", 1]'),
    "the journal lies": lambda data, journal: journal.write_text('{"meta": [], "chunks": [[0, 3000000, "ab"]]}'),
    "the journal has odd words": lambda data, journal: journal.write_text(
        '{"meta": {"total": "x"}, "chunks": [["a"]]}'
    ),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_whatever_a_power_cut_leaves_the_right_bytes_come_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    monkeypatch.setattr("registry.partial.CHUNK", 1 << 18)
    with RudeHub(payload(MULTI)) as rude:
        CRASHES[crash](*half(tmp_path, rude))
        with reserve(tmp_path, rude) as partial:
            done = fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
            assert partial.seal(rude.sha256).sha256 == rude.sha256
    if "data" in crash or "page" in crash:
        assert done.received <= MULTI - (1 << 20) or crash == "the data is gone"  # what was good was not fetched again


def test_a_dead_process_whose_number_another_program_has_now_leaves_its_partial_all_the_same(tmp_path: Path) -> None:
    """After a restart of the machine the number in the name may belong to anything."""
    with RudeHub(payload(MULTI)) as rude:
        data, journal = half(tmp_path, rude)
        name = data.name.replace(f".{os.getpid()}.", f".{os.getppid()}.")  # alive, and no hubctl
        data.rename(data.with_name(name))
        journal.rename(journal.with_name(name).with_suffix(".json"))
        with reserve(tmp_path, rude) as partial:
            assert partial.received == 2 << 20


def test_a_partial_somebody_is_at_work_on_is_left_alone(tmp_path: Path) -> None:
    with RudeHub(payload(MULTI)) as rude, reserve(tmp_path, rude) as first:
        first.write_at(0, rude.data[:1000])
        first.checkpoint()
        who = holder(tmp_path / "partial", sha256=rude.sha256, key=None)
        assert who is not None
        assert who.pid == os.getpid()
        with reserve(tmp_path, rude) as second:
            assert second.path != first.path
            assert second.received == 0
    assert holder(tmp_path / "partial", sha256=rude.sha256, key=None) is None


def test_a_machine_that_slept_connects_anew_at_once(tmp_path: Path) -> None:
    """The wall clock jumps, the server has forgotten us and says nothing: no waiting for the time-out."""
    said: list[str] = []
    jumped = threading.Event()

    def wall() -> float:
        return time.monotonic() + (3600.0 if jumped.is_set() else 0.0)

    with RudeHub(payload(MULTI), misdeeds={"hang": 1}) as rude, reserve(tmp_path, rude) as partial:
        threading.Timer(0.3, jumped.set).start()
        begun = time.monotonic()
        fetch(
            hub(rude, timeout=20.0, patience=60.0), rude.link, partial, size=MULTI, sha256=rude.sha256, connections=1,
            on_event=lambda kind, **facts: said.append(kind), tuning=Tuning(wall=wall),
        )  # fmt: skip
        assert time.monotonic() - begun < 18
        assert partial.digest() == rude.sha256
    assert said.count("woke") == 1


def test_a_connection_that_lags_is_relieved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One segment crawls: those who are done take over half of what it has left, again and again."""
    monkeypatch.setattr("hubctl.hubs.segments.LAG", 0.3)
    monkeypatch.setattr("hubctl.hubs.segments.SMALLEST_REST", 64 << 10)
    with RudeHub(payload(MULTI), per_connection=4e6) as rude, reserve(tmp_path, rude) as partial:
        rude.crawl = (MULTI // 2, 50_000)  # from the middle on, at first
        fetch(
            hub(rude, patience=20.0), rude.link, partial, size=MULTI, sha256=rude.sha256, connections=2,
            tuning=Tuning(smallest_split=1 << 20, fast=1e12, measure_seconds=0.02),
        )  # fmt: skip
        assert partial.digest() == rude.sha256
        assert rude.storage_requests() > 2  # the crawling one alone would need half a minute


def crews(folder: Path, paces: list[float], *, connections: int = 16, limit: int | None = None) -> list[int]:
    """How many connections there were after each second of a download that went at such a pace (bytes/s)."""
    size = 1 << 40
    store = BlobStore(folder / "blobs")
    with open_partial(folder / "partial", store, sha256=None, size=0, key="x") as partial:
        transport = Transport("http://127.0.0.1:1", name="rude", lan=True)
        job = Download(
            transport, "http://127.0.0.1:1/x", partial, size, None, connections, RateLimiter(limit), ignore, ignore,
            None, "it", Tuning(measure_seconds=0.5),
        )  # fmt: skip
        transfer = Transfer(job, total=size, ranges=True, active=[Segment(0, size)], begun=0.0, first_byte=0.1)
        transfer._hire = lambda: transfer.workers.append(threading.current_thread())  # type: ignore[method-assign]
        transfer._hire()
        counts, now = [], 1.0
        for pace in paces:
            if transfer.watched_bytes is None:  # the new ones are at work by now
                now += 0.5
                transfer._widen(now)
            now += 1.0
            transfer.arrived += int(pace)
            transfer._widen(now)
            counts.append(len(transfer.workers))
    return counts


def test_more_connections_are_tried_only_while_they_help(tmp_path: Path) -> None:
    assert crews(tmp_path, [6e6, 6.1e6, 6e6, 6e6]) == [4, 4, 4, 4]  # a line that is full with one
    assert crews(tmp_path, [1e6, 4e6, 8e6, 16e6, 16e6]) == [4, 8, 16, 16, 16]  # a cap per connection
    assert crews(tmp_path, [1e6, 4e6, 4.2e6, 9e6]) == [4, 8, 8, 8]  # once it did not help, it is not tried again
    assert crews(tmp_path, [1e6, 4e6, 8e6], connections=6) == [4, 6, 6]
    assert crews(tmp_path, [4e8, 4e8]) == [1, 1]  # this machine is what takes the time
    assert crews(tmp_path, [9e5, 9e5], limit=1_000_000) == [1, 1]  # our own limit is
    assert crews(tmp_path, [1e5, 4e5], limit=1_000_000) == [4, 8]


def test_on_a_full_disk_the_journal_is_written_in_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with RudeHub(payload(MULTI)) as rude:
        with reserve(tmp_path, rude) as partial:
            monkeypatch.setattr("registry.partial.write_atomic", full)
            partial.write_at(0, rude.data[: 2 << 20])
            partial.meta.update(total=MULTI, etag=rude.etag)
            partial.checkpoint()
        monkeypatch.undo()
        with reserve(tmp_path, rude) as partial:
            done = fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
            assert done.received == MULTI - (2 << 20)
            assert partial.digest() == rude.sha256


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate nobody has signed but itself, and a server's context with it."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


def test_over_tls_with_the_certificates_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    cert, context = certificate
    with RudeHub(payload(MULTI), tls=context, misdeeds={"cut": 1}) as rude, reserve(tmp_path, rude) as partial:
        with pytest.raises(errors.HubUnavailable, match="certificate"):
            fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256, tuning=EAGER)
        assert partial.digest() == rude.sha256


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_parser_nobody_vouches_for_is_read_the_slow_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Straight from the socket or through the parser: the same bytes, also when the line is cut."""
    if not known:
        monkeypatch.setattr("hubctl.hubs.transport.KNOWN_PARSERS", frozenset())
    with RudeHub(payload(MULTI), misdeeds={"cut": 2}) as rude, reserve(tmp_path, rude) as partial:
        fetch(hub(rude), rude.link, partial, size=MULTI, sha256=rude.sha256)
        assert partial.digest() == rude.sha256
