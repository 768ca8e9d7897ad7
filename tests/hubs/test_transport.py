"""The hub client against real sockets: recorded answers, every error shape, tokens, cursors, budgets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rude import TOKEN, RudeHub

from hubctl import errors, plugins
from hubctl.hubs import open_hub
from hubctl.hubs.civitai import Civitai
from hubctl.hubs.query import SearchQuery
from hubctl.hubs.ratelimit import CallBudget
from hubctl.hubs.redact import redact
from hubctl.hubs.refusals import Answer, refusal, retry_after, said
from hubctl.hubs.transport import Login, is_private, same_hub

JSON = {"Content-Type": "application/json"}


def answer(body: Any, status: int = 200, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, JSON | {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()


def connect(rude: RudeHub, **options: Any) -> Civitai:
    return Civitai(rude.url, **{"token": TOKEN, "timeout": 1.0, "patience": 3.0, **options})


def model(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "name": f"m{number}", "type": "LORA", "modelVersions": [], **more}


# --- recorded answers -------------------------------------------------------------------------------------------------


def test_recorded_models_are_read_over_the_wire(shared: Path) -> None:
    recorded = sorted((shared / "fixtures/civitai-api/dfanr-civitaimodellist/models").glob("*.json"))[:20]
    bodies = {}
    for path in recorded:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and "modelVersions" in data:
            bodies[f"/api/v1/models/{data['id']}"] = (data["id"], data)
    assert bodies
    with (
        RudeHub(b"", answers={route: answer(data) for route, (_, data) in bodies.items()}) as rude,
        connect(rude) as hub,
    ):
        for number, data in bodies.values():
            assert hub.model(number).dump() == data


def test_recorded_lists_are_read_over_the_wire(shared: Path) -> None:
    page = json.loads((shared / "fixtures/civitai-api/stepwisecliche-civitai-api/models-list-page1.json").read_text())
    with RudeHub(b"", answers={"/api/v1/models": answer(page)}) as rude, connect(rude) as hub:
        found = list(hub.search(SearchQuery(limit=1000)))
    assert [each.id for each in found] == list(dict.fromkeys(item["id"] for item in page["items"]))


# --- search and cursors -----------------------------------------------------------------------------------------------


def test_search_sends_what_hubs_understand() -> None:
    with RudeHub(b"", answers={"/api/v1/models": answer({"items": [], "metadata": {}})}) as rude, connect(rude) as hub:
        query = SearchQuery("thanos", ("LORA", "LoCon"), ("SD 1.5",), "hero", "some.one", "Newest", "Week", False, 5)
        assert list(hub.search(query)) == []
        path = rude.requests[0][1]
    assert "types=LORA&types=LoCon" in path
    assert "user=some.one" in path
    assert "nsfw" not in path
    assert TOKEN not in path


def test_cursors_are_followed_over_empty_pages_and_duplicates() -> None:
    base = "/api/v1/models?limit=4&query=x"
    pages = {
        base: {"items": [model(1), model(2)], "metadata": {"nextCursor": "a|1"}},
        base + "&cursor=a%7C1": {"items": [], "metadata": {"nextCursor": 7}},
        base + "&cursor=7": {"items": [model(2), {"id": "odd"}, model(3)], "metadata": {"nextCursor": "z"}},
        base + "&cursor=z": {"items": [model(4), model(5)], "metadata": {"nextCursor": "never"}},
    }
    with RudeHub(b"", answers={path: answer(body) for path, body in pages.items()}) as rude, connect(rude) as hub:
        assert [each.id for each in hub.search(SearchQuery("x", limit=4))] == [1, 2, 3, 4]


def test_a_hub_that_repeats_its_cursor_or_has_only_empty_pages_ends() -> None:
    endless = {"items": [model(1)], "metadata": {"nextCursor": "same"}}
    with RudeHub(b"", answers={"/api/v1/models": answer(endless)}) as rude, connect(rude) as hub:
        assert len(list(hub.search(SearchQuery(limit=100)))) == 1
        assert len(rude.requests) == 2


def test_an_unknown_tag_does_not_list_everything() -> None:
    page = {"items": [model(n, tags=["other"]) for n in range(1, 5)] + [model(9, tags=["Hero"])], "metadata": {}}
    with RudeHub(b"", answers={"/api/v1/models": answer(page)}) as rude, connect(rude) as hub:
        assert [each.id for each in hub.search(SearchQuery(tag="hero"))] == [9]


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_meta_is_unwrapped(depth: int) -> None:
    meta: Any = {"prompt": "a cat", "seed": 1}
    for _ in range(depth):
        meta = {"id": 5, "meta": meta}
    page = {"items": [{"id": 5, "url": "u", "meta": meta}], "metadata": {}}
    with RudeHub(b"", answers={"/api/v1/images": answer(page)}) as rude, connect(rude) as hub:
        assert hub.image(5).meta == {"prompt": "a cat", "seed": 1}
        with pytest.raises(errors.NotFound):
            hub.image(6)  # an old server ignores imageId


def test_a_page_in_the_place_of_a_picture_is_refused() -> None:
    page = (200, {"Content-Type": "text/html"}, b"<!doctype html>")
    with RudeHub(b"", answers={"/p.jpeg": page}) as rude, connect(rude) as hub, pytest.raises(errors.HubError):
        hub.picture(rude.url + "/p.jpeg")


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_many_hashes_at_once() -> None:
    sha = "ab" * 32
    url = "https://undefined/api/download/models/2?fileId=3"
    item = {"id": 2, "modelId": 1, "files": [{"id": 3, "hashes": {"SHA256": sha.upper()}, "downloadUrl": url}]}
    found = {
        "/api/v1/model-versions/by-hash": answer([None, item, item]),
        "/api/v1/model-versions/by-hash/ids": answer([{"modelVersionId": 2, "modelId": 1, "hash": sha.upper()}]),
    }
    with RudeHub(b"", answers=found) as rude, connect(rude) as hub:
        version = hub.by_hashes([sha, "cd" * 32])[sha]
        assert version.files[0].download_url == rude.url + "/api/download/models/2?fileId=3"
        assert hub.ids_by_hash([sha]) == {sha: (1, 2)}
        with pytest.raises(errors.InvalidReference):
            hub.by_hash("e3b0c44298fc")


# --- refusals ---------------------------------------------------------------------------------------------------------

SHAPES = {
    '{"error":"text"}': "text",
    json.dumps(
        {"error": {"name": "ZodError", "message": '[{"path":["types"],"message":"Invalid"}]'}}
    ): "types: Invalid",
    '{"error":"✖ Invalid input\\n  → at id"}': "✖ Invalid input → at id",
    '{"message":"text"}': "text",
    '[{"code":"x","path":["limit"],"message":"too big"}]': "limit: too big",
    '{"name":"ZodError","message":"bad"}': "bad",
    '{"message":"An unexpected error occurred","error":{"a":1}}': "An unexpected error occurred",
    '{"error":"Not here","code":"REGION_BLOCKED"}': "Not here",
    '{"error":"Early Access","deadline":"2031-01-01","message":"pay"}': "pay",
    '{"error":{"json":{"message":"UNAUTHORIZED","code":-32001}}}': "UNAUTHORIZED",
    "plain text": "plain text",
    "<!DOCTYPE html><p>x": "",
    "": "",
}


@pytest.mark.parametrize("body", SHAPES)
def test_the_sentence_is_found_in_every_shape(body: str) -> None:
    assert said(body.encode()) == SHAPES[body]


@given(st.binary(max_size=2000))
def test_any_body_gives_a_printable_sentence(body: bytes) -> None:
    text = said(body)
    assert text.isprintable()
    assert len(text) <= 300
    refusal(Answer(418, {}, body, "http://x/"), "hub", "it", with_token=False)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"error": "No model with id 5"}, errors.NotFound),
        (451, {"error": "x", "code": "REGION_BLOCKED"}, errors.RegionBlocked),
        (400, {"error": "bad"}, errors.HubError),
        (429, {"error": "You've requested too many pages, please use cursors instead"}, errors.HubError),
        (410, {"error": "archived"}, errors.Archived),
        (403, {"error": "no"}, errors.NoAccess),
    ],
)
def test_statuses_have_names(status: int, body: Any, kind: type[errors.KnownError]) -> None:
    with RudeHub(b"", answers={"/api/v1/models/5": answer(body, status)}) as rude, connect(rude) as hub:
        with pytest.raises(kind):
            hub.model(5)
        assert len(rude.requests) == 1  # nothing of this gets better by asking again


def test_a_busy_hub_is_asked_again_and_given_up() -> None:
    busy = answer({"error": "Server busy, please retry shortly."}, 503, Retry_After="0")
    with RudeHub(b"", answers={"/api/v1/models/5": busy}) as rude, connect(rude, patience=0.3) as hub:
        with pytest.raises(errors.HubUnavailable):
            hub.model(5)
        assert 2 <= len(rude.requests) < 15
    slow_down = answer({"error": "Rate limit exceeded"}, 429, Retry_After="3600")
    with RudeHub(b"", answers={"/api/v1/models/5": slow_down}) as rude, connect(rude) as hub:
        with pytest.raises(errors.RateLimited) as caught:
            hub.model(5)
        assert caught.value.retry_after == 3600
        assert len(rude.requests) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<!doctype html><p>hello", errors.HubError),
        (b"<!doctype html><title>Just a moment...</title>", errors.BlockedByEdge),
        (b'{"id": 5, "na', errors.HubUnavailable),
        (b'{"name": "no id"}', errors.HubError),
        (b"[" * 100_000, errors.HubUnavailable),
    ],
)
def test_answers_that_are_no_answer(body: bytes, kind: type[errors.KnownError]) -> None:
    answers = {"/api/v1/models/5": (200, JSON, body)}
    with RudeHub(b"", answers=answers) as rude, connect(rude, patience=0.5) as hub, pytest.raises(kind):
        hub.model(5)


def test_me_tells_a_missing_key_from_a_bad_one() -> None:
    with RudeHub(b"") as rude:
        assert connect(rude).me() == {"id": 1}
        with pytest.raises(errors.LoginRequired):
            connect(rude, token=None).me()
        with pytest.raises(errors.TokenRejected):
            connect(rude, token="old").me()


def test_nobody_there_and_offline() -> None:
    with RudeHub(b"") as rude:
        gone = rude.url
    with pytest.raises(errors.HubUnavailable, match="cannot be reached"):
        Civitai(gone, patience=1.0).model(1)
    with pytest.raises(errors.Offline):
        Civitai(gone, offline=True).model(1)


# --- who gets the token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://civitai.com/api", True), ("https://civitai.red/x", True), ("https://api.civitai.com/x", True),
        ("https://www.civitai.green/x", True), ("http://civitai.com/x", False), ("https://civitai.com:8443/x", False),
        ("https://civitai.com.evil.test/x", False), ("https://evilcivitai.com/x", False),
        ("https://image.civitai.com/x", False), ("https://x.r2.cloudflarestorage.com/x", False),
        ("https://civitai.com@evil.test/x", False),
    ],
)  # fmt: skip
def test_the_token_goes_to_the_family_only(url: str, sent: bool) -> None:
    assert bool(Login("https://civitai.com", "abc").headers_for(url)) is sent
    assert "abc" not in repr(Login("https://civitai.com", "abc"))


def test_origins_and_private_addresses() -> None:
    assert same_hub("http://nas:80/x", "http://NAS")
    assert not same_hub("http://nas:8080/x", "http://nas")
    for host in (
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "169.254.169.254",
        "::1",
        "[fd00::1]",
        "0.0.0.0",
        "100.64.0.1",
    ):
        assert is_private(host)
    for host in ("1.1.1.1", "2606:4700:4700::1111", "[::ffff:1.1.1.1]", "64:ff9b::101:101"):
        assert not is_private(host)
    assert is_private("looks-public.test", lambda *_: [(0, 0, 0, "", ("10.0.0.1", 0))])


def test_netrc_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with RudeHub(b"", answers={"/api/v1/enums": answer({"ModelType": ["LORA"]})}) as rude:
        assert connect(rude, token=None).enums() == {"ModelType": ["LORA"]}
        assert "Authorization" not in rude.requests[0][2]


def test_a_proxy_of_the_environment_is_used_but_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    page = answer({"ModelType": ["LORA"]})
    with RudeHub(b"", answers={"http://hub.test/api/v1/enums": page, "/api/v1/enums": page}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pa55word@127.0.0.1:{proxy.port}")
        with Civitai("http://hub.test", token=TOKEN, patience=1.0, lan=True) as hub:
            assert hub.enums() == {"ModelType": ["LORA"]}
        host, path, headers = proxy.requests[0]
        assert (host, path) == ("hub.test", "http://hub.test/api/v1/enums")
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        assert connect(proxy).enums() == {"ModelType": ["LORA"]}  # loopback needs none
        monkeypatch.setenv("NO_PROXY", "hub.test")
        with (
            Civitai("http://hub.test", patience=0.5) as hub,
            pytest.raises(errors.HubUnavailable, match=r"hub\.test cannot be reached"),
        ):
            hub.enums()


@pytest.mark.parametrize("proxy", ["nonsense://x", "http://[::1", "socks5://127.0.0.1:1"])
def test_a_proxy_nobody_can_use_is_a_sentence(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if proxy.startswith("socks"):
        monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(errors.UsageError) as caught:
        Civitai("http://hub.test").enums()
    assert "proxy" in caught.value.message.lower()


def test_certificates_are_those_of_the_system() -> None:
    import truststore

    from hubctl.hubs import transport

    assert isinstance(transport._certificates(), truststore.SSLContext)


def test_bulk_speaks_http_1() -> None:
    """One fast stream per connection: several must not be folded into one."""
    with (
        RudeHub(b"", answers={"/api/v1/enums": answer({})}) as rude,
        connect(rude) as hub,
        hub.transport.stream(rude.url + "/api/v1/enums") as response,
    ):
        assert response.http_version == "HTTP/1.1"


def test_secrets_do_not_survive_redaction(caplog: pytest.LogCaptureFixture) -> None:
    signed = "https://x.r2.test/f?X-Amz-Signature=abc123&X-Amz-Credential=me&b=1 https://u:pw@h/x?token=t0k&limit=5"
    clean = redact(signed + " Authorization: Bearer abcdef123 {'token': 'zzz'}")
    assert not any(secret in clean for secret in ("abc123", "=me", "pw@", "t0k", "abcdef123", "zzz"))
    assert "limit=5" in clean
    assert redact("the hub wants a token to download it") == "the hub wants a token to download it"
    caplog.set_level(logging.DEBUG)
    with RudeHub(b"", answers={"/api/v1/me": answer({})}) as rude:
        connect(rude, token="sekrit999").picture(rude.url + "/api/v1/me?sig=sekrit888")
    assert "sekrit" not in caplog.text


def test_a_key_is_hidden_wherever_a_hub_repeats_it() -> None:
    key = "k3y/with+odd=signs"
    said_so = answer({"message": f"the key {key} (k3y%2Fwith%2Bodd%3Dsigns) is not known"}, 400)
    with RudeHub(b"", token=key, answers={"/api/v1/models/5": said_so}) as rude, connect(rude, token=key) as hub:
        with pytest.raises(errors.HubError) as caught:
            hub.model(5)
        assert "the key *** (***) is not known" in caught.value.message
    headers = "[(b'Set-Cookie', b'sid=c00kie'), (b'X', b'y')] socks5://u:pr0xypw@h:1"
    assert not any(secret in redact(headers) for secret in ("c00kie", "pr0xypw"))


def test_headers_that_never_end_are_given_up() -> None:
    """A byte now and then, each in time: it is the answer that has to be."""
    rude = RudeHub(b"x" * 1000, misdeeds={"loris": 1000})
    with rude, connect(rude, timeout=0.3, patience=1.0) as hub, pytest.raises(errors.HubUnavailable, match="slowly"):
        hub.picture(rude.link)


@given(st.from_regex(r"[A-Za-z0-9]{12,40}", fullmatch=True), st.sampled_from(["token", "sig", "X-Amz-Signature", "q"]))
def test_any_query_value_is_hidden(secret: str, name: str) -> None:
    assert secret not in redact(f"GET https://host.test/a/b?limit=3&{name}={secret}")


# --- several hubs, budgets, plugins -----------------------------------------------------------------------------------


def test_hubs_are_asked_in_order_and_bytes_come_from_nearby() -> None:
    sha = "ab" * 32
    file = {"id": 3, "hashes": {"SHA256": sha.upper()}}
    near = {f"/api/v1/model-versions/by-hash/{sha.upper()}": answer({"id": 9, "files": [file | {"id": 4}]})}
    far = {"/api/v1/models/1": answer(model(1, modelVersions=[{"id": 2, "files": [file]}]))}
    with (
        RudeHub(b"", answers=near) as nas,
        RudeHub(b"", answers=far) as public,
        open_hub([("nas", nas.url, None), ("public", public.url, TOKEN)], patience=1.0) as hub,
    ):
        assert hub.name == "public"
        version = hub.model(1).model_versions[0]
        assert hub.download_url(version, version.files[0]).startswith(nas.url + "/api/download/models/9?fileId=4")
        with pytest.raises(errors.NotFound):
            hub.version(77)


def test_the_call_budget_is_shared_through_its_folder(tmp_path: Path) -> None:
    first, second = (CallBudget(tmp_path, "https://h", rate=10, burst=3) for _ in range(2))
    waits = [(first, second)[n % 2].reserve() for n in range(6)]
    assert waits[:3] == [0, 0, 0]
    assert waits[-1] > 0.1
    second.pause(50)
    assert first.reserve() > 40
    assert CallBudget(tmp_path, "https://other").reserve() == 0
    (tmp_path / "api-budget.json").write_text("{damaged")
    assert first.reserve() == 0


def test_retry_after_in_both_spellings() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after({"retry-after": "12"}) == 12
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, now) == 60
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "nan"}) is None
    assert retry_after({"retry-after": "-5"}) == 0
    assert retry_after({"retry-after": "99999999999999"}) == 30 * 86400
    assert retry_after({"retry-after": "Wed, 31 Dec 9999 23:59:59 GMT"}, now) == 30 * 86400
    dated = {"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": "Thu, 01 Jan 2026 00:00:30 GMT"}
    assert retry_after(dated) == 30  # by the server's clock, whatever ours says


@given(st.text(max_size=40))
def test_any_retry_after_is_a_bounded_wait(value: str) -> None:
    wait = retry_after({"retry-after": value, "date": value})
    assert wait is None or 0 <= wait <= 30 * 86400


def test_plugins_are_found_by_name() -> None:
    assert plugins.load("hubctl.hubs", {"civitai": "hubctl.hubs.civitai:Civitai"}, "civitai") is Civitai
    with pytest.raises(errors.UsageError):
        plugins.load("hubctl.hubs", {}, "no-such-hub")
