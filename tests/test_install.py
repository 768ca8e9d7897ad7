"""Installing through the command line from hubs that misbehave: what a person reads, what is kept, what is recorded."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rude import FOREVER, PNG, SIGNATURE_MARK, TOKEN, RudeHub, lora

from hubctl import errors, tokens
from hubctl import install as journey
from hubctl.cli import run
from hubctl.hubs import ratelimit
from registry import BlobStore, Registry
from registry.partial import open_partial

GRUFFMAN = Path(journey.__file__).with_name("demo") / "assets/gruffman.pt"
MB = 1 << 20


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of `--progress json`."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]


Hubctl = Callable[..., Outcome]


@pytest.fixture
def hubctl(home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Hubctl:
    """A command line in this process: `hubctl("install", "4201")`."""
    monkeypatch.setenv("HUBCTL_TOKEN", TOKEN)
    monkeypatch.setenv("HUBCTL_PATIENCE", "1")
    monkeypatch.setattr("hubctl.hubs.transport.FIRST_WAIT", 0.05)

    def call(*argv: object) -> Outcome:
        capfd.readouterr()
        status = run([str(arg) for arg in argv])
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@contextlib.contextmanager
def rude_hub(monkeypatch: pytest.MonkeyPatch, data: bytes | None = None, **more: Any) -> Iterator[RudeHub]:
    """A hub that offers one LoRA, and is the hub of every command line meanwhile."""
    with RudeHub(lora(60_000) if data is None else data, **more) as rude:
        rude.offer()
        monkeypatch.setenv("HUBCTL_HUB", rude.url)
        yield rude


def source_of(rude: RudeHub) -> str:
    return rude.url


def blobs(home: Path) -> list[Path]:
    return [path for path in (home / "blobs").rglob("*") if path.is_file()]


# --- the good case ----------------------------------------------------------------------------------------------------


def test_an_install_and_what_it_leaves(hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch) as rude:
        plan = hubctl("install", "4201", "--dry-run")
        assert plan.status == 0
        assert "because the only file with the model's weights" in plan.err
        assert not blobs(home)
        done = hubctl("install", "4201")
        assert done.status == 0, done.err
        path = Path(done.out.strip())
        assert path.read_bytes() == rude.data
        assert path.name == "rude.safetensors"
        asked = len(rude.requests)
        again = hubctl("install", "4201")
        assert again.out == done.out
        assert "already installed, nothing to do" in again.err
        assert len(rude.requests) - asked <= 2  # what it means, and nothing more
    with Registry.open(home) as registry:
        assert registry.queued() == []
        (item,) = registry.installed()
        assert item.files[0].facts["declared"] is True
        assert item.files[0].facts["kind"] == "lora"
        preview = registry.picture(1001, source=item.source)
        assert preview is not None
        assert preview.read_bytes() == PNG
    assert not list((home / "partial").glob("*"))


def test_a_preview_that_cannot_be_had_loses_no_install(hubctl: Hubctl, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch) as rude:
        rude.answers["/picture/1001.png"] = (200, {"Content-Type": "text/html"}, b"<!doctype html>")
        assert hubctl("install", "4201").status == 0


def test_the_same_file_asked_for_twice_is_fetched_once(hubctl: Hubctl, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch) as rude:
        done = hubctl("install", "4201", "4201@130072", rude.sha256[:10], "--json")
        assert done.status == 0
        assert len(done.json["installed"]) == 1
        assert rude.storage_requests() == 1


# --- every refusal has a name -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """How a refusal is brought about, and what must be said."""

    code: str
    exit: int
    hint: str
    misdeed: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    offer: dict[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] = ("install", "4201@130072")
    data: bytes | None = None
    prepare: Callable[[RudeHub, Path], Any] | None = None


def no_token(rude: RudeHub, home: Path) -> None:
    os.environ.pop("HUBCTL_TOKEN")


def page(status: int, body: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "text/html", **headers}, body.encode()


def hold_partial(rude: RudeHub, home: Path) -> Any:
    """Somebody has begun the same file and does not get on."""
    partial = open_partial(home / "partial", BlobStore(home / "blobs"), sha256=rude.sha256, size=0, key=None)
    partial.write(b"beginning")
    partial.checkpoint()
    os.utime(partial.path, (0, 0))
    return partial


def both(rude: RudeHub, home: Path) -> None:
    """130072 is the version of one model and the id of another."""
    body = {"id": 130072, "name": "Other", "type": "Checkpoint", "modelVersions": [{"id": 5, "files": []}]}
    rude.answers["/api/v1/models/130072"] = (200, {"Content-Type": "application/json"}, json.dumps(body).encode())


BROKEN = (10**6).to_bytes(8, "little") + b'{"a": 1}' + bytes(50_000)

REFUSALS = {
    "nobody logged in": Row("login_required", 3, "hubctl login", prepare=no_token),
    "the login page": Row("login_required", 3, "hubctl login", misdeed="login"),
    "an old key": Row("token_rejected", 3, "make a new one", env={"HUBCTL_TOKEN": "old"}),
    "early access": Row("early_access", 3, "it opens on 2031-02-03", misdeed="early_access"),
    "no access": Row("no_access", 3, "page", misdeed="no_access"),
    "downloads disabled": Row("downloads_disabled", 3, "generation on the site", misdeed="disabled"),
    "generation only": Row(
        "downloads_disabled", 3, "generation on the site", offer={"version": {"usageControl": "Generation"}}
    ),
    "archived, on asking": Row("archived", 4, "--hub", misdeed="archived"),
    "archived, by its mode": Row("archived", 4, "--hub", offer={"model": {"mode": "Archived"}}),
    "taken down": Row("taken_down", 4, "--hub", offer={"model": {"mode": "TakenDown"}}),
    "no such model": Row("not_found", 4, "search", argv=("install", "model:77")),
    "the file is gone": Row("not_found", 4, "search", misdeed="hub_404"),
    "another region": Row("region_blocked", 3, "--hub", misdeed="region"),
    "the gatekeeper": Row("blocked_by_edge", 5, "wait a while", misdeed="edge"),
    "slow down": Row("rate_limited", 6, "wait", misdeed="slow_down"),
    "too much today": Row("rate_limited", 6, "in some hours", misdeed="volume"),
    "trouble": Row("hub_unavailable", 5, "continues", misdeed="storage_500"),
    "a web page": Row("verification_failed", 7, "nothing was kept", misdeed="html"),
    "a message": Row("verification_failed", 7, "nothing was kept", misdeed="json"),
    "half of it": Row("verification_failed", 7, "record or its file", misdeed="fewer"),
    "compressed": Row("verification_failed", 7, "proxy", misdeed="gzip"),
    "the wrong hash": Row("verification_failed", 7, "record or its file", offer={"hashes": {"SHA256": "AB" * 32}}),
    "a broken header": Row("verification_failed", 7, "", data=BROKEN),
    "zeros": Row("verification_failed", 7, "", data=bytes(70_000)),
    "a pickle": Row("unsafe_file", 7, "--allow-pickle", offer={"name": "rude.ckpt"}),
    "a pickle by another name": Row(
        "unsafe_file", 7, "--allow-pickle", data=GRUFFMAN.read_bytes(), offer={"name": "rude.safetensors"}
    ),
    "a pickle that runs programs": Row(
        "unsafe_file", 7, "no option", data=b"cos\nsystem\n(S'echo'\ntR.", offer={"name": "rude.pt"},
        argv=("install", "4201@130072", "--allow-pickle"),
    ),
    "the hub's scan": Row("unsafe_file", 7, "", offer={"file": {"virusScanResult": "Danger"}}),
    "too large for the disk": Row("no_space", 8, "hubctl prune", offer={"file": {"sizeKB": 1e12}}),
    "another process": Row("busy", 9, "wait for it", prepare=hold_partial),
    "offline": Row("offline", 10, "--offline", argv=("install", "4201", "--offline")),
    "not for commerce": Row(
        "policy_forbids", 3, "policy", env={"HUBCTL_POLICY": "commercial"},
        offer={"model": {"allowCommercialUse": "{None}"}},
    ),
    "several, one of them bad": Row("partial_batch", 12, "reasons are above", argv=("install", "4201", "model:77")),
    "an odd reference": Row("invalid_reference", 2, "", argv=("install", "https://rude.test/user/me")),
    "an image": Row("invalid_reference", 2, "hubctl reproduce", argv=("install", "image:5")),
    "one number, two things": Row("ambiguous", 2, "which", argv=("install", "130072"), prepare=both),
    "options that do not go together": Row("usage", 2, "by itself", argv=("install", "1", "2", "--file", "3")),
    "a proxy nobody knows": Row("usage", 2, "HTTPS_PROXY", env={"HTTP_PROXY": "nonsense://x"}),
}  # fmt: skip


def without_figures(text: str) -> str:
    """Free space and seconds differ between two runs."""
    return re.sub(r"[\d.]+", "#", text)


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_is_named(name: str, hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = REFUSALS[name]
    for key, value in row.env.items():
        monkeypatch.setenv(key, value)
    with rude_hub(monkeypatch, row.data) as rude:
        rude.offer(**row.offer)
        rude.misdeeds = {row.misdeed: FOREVER} if row.misdeed else {}
        held = row.prepare(rude, home) if row.prepare else None
        spoken = hubctl(*row.argv)
        written = hubctl(*row.argv, "--json")
        requests = len(rude.requests)
        if held is not None:
            held.abandon()
    assert (spoken.status, written.status) == (row.exit, row.exit), spoken.err
    assert "error: " in spoken.err
    assert row.hint in spoken.err
    assert "Traceback" not in spoken.err + written.err
    assert spoken.out == "" or row.code == "partial_batch"
    assert requests < 80
    if row.code == "partial_batch":
        assert [failure["error"]["code"] for failure in written.json["failures"]] == ["not_found"]
    else:
        error = written.json["error"]
        assert error["code"] == row.code
        assert without_figures(error["message"]) in without_figures(spoken.err)
        assert not error["message"].strip().isdigit()
        assert not blobs(home)


def test_a_pickle_is_taken_at_a_word(hubctl: Hubctl, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch, GRUFFMAN.read_bytes()) as rude:
        rude.offer(name="gruffman.pt", model={"type": "TextualInversion"})
        assert hubctl("install", "4201").status == 7
        done = hubctl("install", "4201", "--allow-pickle")
        assert done.status == 0
        assert "a pickle can run code" in done.err


# --- what is verified, and by what ------------------------------------------------------------------------------------


def hashes_of(data: bytes, *kinds: str) -> dict[str, str]:
    from registry import hashes

    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"hubctl-test-{os.getpid()}.safetensors"
    path.write_bytes(data)
    try:
        return hashes.hash_file(path, kinds)
    finally:
        path.unlink()


@pytest.mark.parametrize("kind", ["AutoV2", "BLAKE3", "CRC32", "AutoV3", "AutoV1"])
def test_without_a_sha256_another_hash_speaks(
    kind: str, hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rude_hub(monkeypatch, lora(1_200_000)) as rude:
        right = hashes_of(rude.data, kind)
        wrong = {kind: "0" * len(right[kind])}
        rude.offer(hashes=wrong)
        refused = hubctl("install", "4201", "--json")
        assert refused.status == 7
        assert refused.json["error"]["code"] == "verification_failed"
        assert kind in refused.json["error"]["message"]
        assert not blobs(home)
        rude.offer(hashes=right)
        done = hubctl("install", "4201", "--json")
        assert done.status == 0, done.out
    assert any("no SHA256" in note for note in done.json["installed"][0]["notes"])
    with Registry.open(home) as registry:
        facts = registry.installed()[0].files[0].facts
    assert facts["declared"] is False
    assert facts["verified_by"] == ["size", kind]


def test_nothing_but_a_size_is_said_to_be_little(hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch) as rude:
        rude.offer(hashes={})
        done = hubctl("install", "4201")
        assert done.status == 0
        assert "verified by size only" in done.err
        again = hubctl("install", "4201")
        assert "nothing to do" in again.err


@pytest.mark.parametrize("kind", ["BLAKE3", "AutoV3"])
def test_a_wrong_sha256_beside_another_hash_that_is_right_is_accepted_and_told(
    hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with rude_hub(monkeypatch) as rude:
        rude.offer(hashes={"SHA256": "AB" * 32, **hashes_of(rude.data, kind)})
        done = hubctl("install", "4201")
        assert done.status == 0, done.err
        assert "the hub's SHA256 of this file is wrong" in done.err
        assert "nothing to do" in hubctl("install", "4201").err


def test_what_the_bytes_are_is_held_against_what_the_hub_says(hubctl: Hubctl, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch) as rude:
        rude.offer(model={"type": "Checkpoint"}, version={"baseModel": "SDXL 1.0"})
        done = hubctl("install", "4201", "--json")
    notes = " / ".join(done.json["installed"][0]["notes"])
    assert "the hub calls it a checkpoint, its tensors are those of a lora" in notes
    assert "sd1 family" in notes


def test_the_advertised_link_is_asked_when_the_exact_one_is_gone(
    hubctl: Hubctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rude_hub(monkeypatch) as rude:
        gone = (404, {"Content-Type": "application/json"}, b'{"error": "File not found"}')
        rude.answers["/api/download/models/130072?fileId=7"] = gone
        assert hubctl("install", "4201").status == 0


# --- secrets ----------------------------------------------------------------------------------------------------------

ALL = [
    "nothing", "cut", "reset", "empty_answer", "ignore_range", "lie_start", "no_content_range", "range_416",
    "no_length", "flip", "fewer", "more", "gzip", "html", "json", "storage_500", "expired", "hub_503", "hub_404",
    "rate_limit", "slow_down", "volume", "loop", "login", "early_access", "no_access", "disabled", "archived",
    "region", "edge", "rename",
]  # fmt: skip


@pytest.mark.slow
def test_no_misdeed_brings_a_secret_to_light(
    hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything printed, logged (our client libraries' own logs too) and written, over all misdeeds."""
    caplog.set_level(logging.DEBUG)
    written, secrets = "", {TOKEN}
    for number, misdeed in enumerate(ALL):
        for once in (True, False):
            monkeypatch.setenv("HUBCTL_PATIENCE", "1" if once else "0")
            with rude_hub(monkeypatch, lora(40_000, seed=number)) as rude:
                rude.misdeeds = {misdeed: 1 if once else FOREVER}
                outcome = hubctl("install", "4201", *(("-v", "--progress", "json") if once else ("-v", "--json")))
                written += outcome.out + outcome.err
                secrets |= {
                    path.split(SIGNATURE_MARK + "=")[1] for _, path, _ in rude.requests if SIGNATURE_MARK in path
                }
            written += everything_below(home)
            subprocess.run(["rm", "-rf", str(home)], check=True)
    assert len(secrets) > len(ALL)
    assert "httpcore" in caplog.text
    assert not [secret for secret in secrets if secret in written + caplog.text]


def test_a_key_in_a_pasted_link_is_not_kept(hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch) as rude:
        link = f"{rude.url}/api/download/models/130072?fileId=7&token=pasted-k3y-77"
        done = hubctl("install", link, "--json")
        assert done.status == 0, done.err
        assert "fileId=7" in done.out
        added = hubctl("add", link, "--project", str(home))
        assert added.status == 0, added.err
        assert "fileId=7" in (home / "hubctl.toml").read_text()
        assert "pasted-k3y-77" not in done.out + done.err + added.out + added.err + everything_below(home)


def everything_below(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


# --- several at once --------------------------------------------------------------------------------------------------


def offer_many(rude: RudeHub, count: int, size: int = 200_000) -> list[str]:
    """Models 101, 102, … with versions 1001, 1002, …, each with bytes of its own; returns what to ask for."""
    refs = []
    for number in range(1, count + 1):
        rude.files[1000 + number] = lora(size, seed=number)
        refs.append(rude.offer(10_000 + number, 1000 + number, name=f"file{number}.safetensors"))
    return refs


def test_one_that_fails_does_not_stop_the_others(hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch) as rude:
        refs = offer_many(rude, 5)
        bad = json.dumps({"error": "Early Access", "deadline": "2031-02-03T00:00:00.000Z"}).encode()
        rude.answers["/api/download/models/1003?fileId=7"] = (403, {"Content-Type": "application/json"}, bad)
        done = hubctl("install", *refs, "model:999", "--progress", "json", "--json")
        assert done.status == 12
        assert len(done.json["installed"]) == 4
        assert {f["ref"]: f["error"]["code"] for f in done.json["failures"]} == {
            "10003@1003": "early_access",
            "model:999": "not_found",
        }
        kinds = {event["event"] for event in done.events}
        assert {"began", "progress", "overall", "ended"} <= kinds
        whole = [event for event in done.events if event["event"] == "overall"][-1]
        assert whole["done"] == sum(len(rude.files[1000 + n]) for n in (1, 2, 4, 5))
        with Registry.open(home) as registry:
            assert [journey.Wanted.parse(text).ref for text in registry.queued()] == ["10003@1003"]
        del rude.answers["/api/download/models/1003?fileId=7"]
        again = hubctl("install", "--resume", "--json")
        assert again.status == 0
        assert [each["version"]["id"] for each in again.json["installed"]] == [1003]
        assert "nothing was under way" in hubctl("install", "--resume").err


@pytest.mark.slow
def test_soak_two_hundred_installs_with_random_faults(
    hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer in six is spoilt in some way. Whatever did not get through is got by `--resume`; nothing is lost."""
    monkeypatch.setenv("HUBCTL_PARALLEL", "8")
    monkeypatch.setenv("HUBCTL_PATIENCE", "20")
    with rude_hub(monkeypatch, luck=0.17) as rude:
        refs = offer_many(rude, 200, size=50_000)
        done = hubctl("install", *refs, "-q")
        rounds = 1
        while done.status == 12 and rounds < 5:
            done = hubctl("install", "--resume", "-q")
            rounds += 1
        assert done.status == 0, done.err
    with Registry.open(home) as registry:
        assert registry.queued() == []
        here = {item.version.id: item.files[0].path.read_bytes() for item in registry.installed()}
    assert here == rude.files
    assert not list((home / "partial").glob("*"))


def test_the_bandwidth_limit_is_for_all_files_together(
    hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratelimit.shared.cache_clear()
    with rude_hub(monkeypatch) as rude:
        refs = offer_many(rude, 3)
        begun = time.monotonic()
        assert hubctl("install", *refs, "--limit-rate", "400k").status == 0
        took = time.monotonic() - begun
    assert took > 3 * 200_000 / 400_000 - 0.4


def test_files_that_fit_alone_but_not_together_are_not_begun(hubctl: Hubctl, monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.statvfs("/tmp").f_bavail * os.statvfs("/tmp").f_frsize
    with rude_hub(monkeypatch) as rude:
        refs = []
        for number in (1, 2):
            rude.offer(number, number + 10, hashes={"SHA256": f"{number}" * 64}, file={"sizeKB": free * 0.7 / 1024})
            refs.append(f"{number}@{number + 10}")
        done = hubctl("install", *refs)
        assert done.status == 8
        assert "together" in done.err
        assert rude.storage_requests() == 0


# --- nearby first -----------------------------------------------------------------------------------------------------


def test_bytes_come_from_nearby_and_are_listed_under_the_public_hub(
    hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rude_hub(monkeypatch) as public, RudeHub(public.data, token=None) as nas:
        nas.offer(9, 99)
        write_hubs(nas=nas.url, far=public.url)
        monkeypatch.setenv("HUBCTL_HUB", "nas,far")
        tokens.store(public.url, TOKEN, Path(os.environ["HUBCTL_CONFIG"]))
        done = hubctl("install", "4201@130072", "--json")
        assert done.status == 0, done.out
        assert public.storage_requests() == 0
        assert nas.storage_requests() == 1
        assert done.json["installed"][0]["hub"] == "far"
        assert not any("Authorization" in headers for _, _, headers in nas.requests)  # the key is for one hub


def test_a_nearby_hub_with_other_bytes_or_none_is_passed_over(
    hubctl: Hubctl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for misdeed in ("flip", "html", "storage_500", "fewer"):
        with rude_hub(monkeypatch, lora(60_000, seed=len(misdeed))) as public, RudeHub(public.data, token=None) as nas:
            nas.offer(9, 99)
            nas.misdeeds = {misdeed: FOREVER}
            write_hubs(nas=nas.url, far=public.url)
            monkeypatch.setenv("HUBCTL_HUB", "nas,far")
            tokens.store(public.url, TOKEN, Path(os.environ["HUBCTL_CONFIG"]))
            done = hubctl("install", "4201@130072", "--progress", "json", "-q")
            assert done.status == 0, done.err
            assert Path(done.out.strip()).read_bytes() == public.data
            assert "elsewhere" in {event["event"] for event in done.events}
        subprocess.run(["rm", "-rf", str(home)], check=True)


def write_hubs(**urls: str) -> None:
    lines = [f'[hubs.{name}]\nurl = "{url}"\n' for name, url in urls.items()]
    Path(os.environ["HUBCTL_CONFIG"]).write_text("\n".join(lines))


# --- processes --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(*argv: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "hubctl", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def wait_for_bytes(home: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(path.stat().st_size >= count for path in (home / "partial").glob("*.part")):
            return
        time.sleep(0.02)
    raise AssertionError("the download did not get going")


@pytest.fixture
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCTL_TOKEN", TOKEN)


@pytest.mark.usefixtures("environment")
def test_ctrl_c_is_quick_keeps_what_came_and_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch, lora(4 * MB), held=500_000) as rude:
        with process("install", "4201") as started:
            wait_for_bytes(home, 300_000)
            started.send_signal(signal.SIGINT)
            out, err = started.communicate(timeout=60)  # the rest would never come
        assert started.returncode == 130, err
        assert "MB of `rude.safetensors` are kept" in err
        assert "the same command continues" in err
        assert "Traceback" not in err
        assert out == ""
        rude.release()
        had = next((home / "partial").glob("*.part")).stat().st_size
        with process("install", "--resume") as started:
            out, err = started.communicate(timeout=60)
        assert started.returncode == 0, err
        assert "going on at" in err
        assert had >= 300_000
        assert Path(out.strip()).read_bytes() == rude.data
        ranges = [headers.get("Range", "") for _, path, headers in rude.requests if path.startswith("/storage")]
        assert ranges[-1].startswith("bytes=")
        assert not ranges[-1].startswith("bytes=0-")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("misdeed", ["stall", "hub_503"])
def test_ctrl_c_twice_ends_whatever_hangs(home: Path, monkeypatch: pytest.MonkeyPatch, misdeed: str) -> None:
    monkeypatch.setenv("HUBCTL_PATIENCE", "3000")
    with rude_hub(monkeypatch, lora(4 * MB), misdeeds={misdeed: FOREVER}, retry_after="300", held=1000) as rude:
        with process("install", "4201") as started:
            deadline = time.monotonic() + 60
            while not any(path.startswith("/api/download") for _, path, _ in rude.requests):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            started.send_signal(signal.SIGINT)
            time.sleep(0.1)
            with contextlib.suppress(ProcessLookupError):
                started.send_signal(signal.SIGINT)
            _, err = started.communicate(timeout=60)  # left alone it would hang for minutes
        assert started.returncode == 130, err
        assert "Traceback" not in err


@pytest.mark.usefixtures("environment")
def test_two_processes_fetch_a_file_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch, lora(3 * MB), held=1 * MB) as rude, process("install", "4201") as first:
        wait_for_bytes(home, 100_000)
        with process("install", "4201", "--progress", "json") as second:
            waiting = read_until(second, "waiting")
            assert f'"pid": {first.pid}' in waiting
            rude.release()
            out, err = second.communicate(timeout=60)
            first_out, first_err = first.communicate(timeout=60)
        assert (first.returncode, second.returncode) == (0, 0), first_err + err
        assert first_out == out
        assert rude.storage_requests() <= 2


@pytest.mark.usefixtures("environment")
def test_when_the_other_process_dies_the_one_that_waits_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rude_hub(monkeypatch, lora(3 * MB), held=1 * MB) as rude, process("install", "4201") as first:
        wait_for_bytes(home, 100_000)
        with process("install", "4201", "--progress", "json") as second:
            read_until(second, "waiting")
            first.kill()
            rude.release()
            out, err = second.communicate(timeout=60)
        assert second.returncode == 0, err
        assert Path(out.strip()).read_bytes() == rude.data


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """The first line of what it says that has this word."""
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError(f"it ended without a word of `{word}`")


@pytest.mark.usefixtures("environment")
def test_a_disk_that_fills_up_is_said_and_survived(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MB, 2 * MB))

    with rude_hub(monkeypatch, lora(4 * MB)) as rude:
        with process("install", "4201", preexec_fn=small) as started:
            _, err = started.communicate(timeout=30)
        assert started.returncode == 8, err
        assert "the disk filled up with" in err
        assert "hubctl prune" in err
        with process("install", "4201") as started:
            out, err = started.communicate(timeout=30)
        assert started.returncode == 0, err
        assert Path(out.strip()).read_bytes() == rude.data
        assert "going on at" in err


@pytest.mark.usefixtures("environment")
def test_a_home_that_may_not_be_written_is_a_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rude_hub(monkeypatch):
        home.mkdir()
        home.chmod(0o555)
        if os.geteuid() == 0:  # root may write anywhere: a home below a file is nobody's
            (tmp_path / "file").write_bytes(b"")
            monkeypatch.setenv("HUBCTL_HOME", str(tmp_path / "file" / "home"))
        with process("install", "4201") as started:
            _, err = started.communicate(timeout=30)
        home.chmod(0o755)
    assert started.returncode == 1
    assert "Traceback" not in err
    assert "--home" in err


# --- references and queue entries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        journey.Wanted("4201@130072", "nas,civitai", 7, True),
        journey.Wanted("more details", None),
        journey.Wanted('it\'s "odd" --hub x', "http://h:1", None, False),
    ],
)
def test_queue_entries_come_back(entry: journey.Wanted) -> None:
    assert journey.Wanted.parse(str(entry)) == entry


def test_a_queue_entry_of_plain_words_is_a_reference() -> None:
    assert journey.Wanted.parse("Thanos Portrait") == journey.Wanted("Thanos Portrait")
    assert journey.Wanted.parse("it's") == journey.Wanted("it's")


def test_a_pickled_dictionary_is_judged_before_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(errors.UnsafeFile):
        journey.look_at(path, "x.pt", allow_pickle=False)
