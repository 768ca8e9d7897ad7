"""API keys: where they are looked for and in which order, how they are kept, who gets to see them."""

from __future__ import annotations

import io
import json
import stat
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from rude import TOKEN, RudeHub

from hubctl import tokens
from hubctl.cli import run

CIVITAI = "https://civitai.com"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration path in an empty home of a user without a keyring."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    return tmp_path / "config" / "config.toml"


class Keyring(types.ModuleType):
    """What the extra of that name offers, kept in a dictionary."""

    def __init__(self) -> None:
        super().__init__("keyring")
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, key: str) -> str | None:
        return self.kept.get((service, key))

    def set_password(self, service: str, key: str, value: str) -> None:
        self.kept[service, key] = value

    def delete_password(self, service: str, key: str) -> None:
        del self.kept[service, key]


def found(url: str, config: Path, environ: dict[str, str] | None = None, **more: Any) -> str | None:
    token = tokens.find(url, config, environ or {}, **more)
    return token.value if token else None


def test_the_order_of_the_sources(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = tmp_path / ".config" / "civitai" / "config.yaml"
    official.parent.mkdir(parents=True)
    official.write_text("default:\n  token: of-the-official-client\n")
    assert found(CIVITAI, config) == "of-the-official-client"
    tokens.store(CIVITAI, "in-the-file", config)
    assert found(CIVITAI, config) == "in-the-file"
    keyring = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    assert tokens.store(CIVITAI, "in-the-keyring", config) == "keyring"
    assert found(CIVITAI, config) == "in-the-keyring"
    environ: dict[str, str] = {}
    for name in ("HUBCTL_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY", "CIVITAI_TOKEN"):
        environ[name] = f"of {name}"
        assert found(CIVITAI, config, environ) == f"of {name}"
    assert official.read_text().count("official") == 1  # read, never written


def test_a_key_is_for_its_hub_and_the_family_shares_one(config: Path) -> None:
    tokens.store("https://civitai.red", "family", config)
    tokens.store("http://nas:8765/", "nas", config)
    environ = {"CIVITAI_TOKEN": "secret"}
    for host in ("civitai.com", "www.civitai.com", "civitai.red", "civitai.green"):
        assert found(f"https://{host}", config) == "family"
        assert found(f"https://{host}", config, environ) == "secret"
    assert found("http://nas:8765", config, environ) == "nas"
    for stranger in ("http://nas:8766", "https://nas:8765", "https://civitai.com.evil.test", "https://evilcivitai.com"):
        assert found(stranger, config, environ) is None
    assert found("https://mirror.test", config, environ | {"CIVITAI_HOST": "mirror.test"}) == "secret"


def test_one_variable_is_not_for_several_hubs(config: Path) -> None:
    environ = {"HUBCTL_TOKEN": "for the one hub"}
    assert found("http://nas:1", config, environ) == "for the one hub"
    assert found("http://nas:1", config, environ, alone=False) is None


def test_the_file_is_ours_alone_and_forgets(config: Path) -> None:
    where = Path(tokens.store(CIVITAI, "a", config))
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    tokens.store("http://nas:1", 'odd "key"', config)
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert found("http://nas:1", config) == 'odd "key"'
    assert tokens.forget(CIVITAI, config)
    assert not tokens.forget(CIVITAI, config)
    assert found(CIVITAI, config) is None
    assert "a" not in json.dumps(where.read_text().split("[tokens]")[0])


@pytest.mark.parametrize("text", ["", "tokens = 5", "[tokens", "[tokens]\n'https://civitai.com' = 7", "\0\1"])
def test_a_damaged_file_has_no_key(config: Path, text: str) -> None:
    config.parent.mkdir(parents=True)
    tokens.credentials_path(config).write_text(text)
    assert found(CIVITAI, config) is None
    tokens.store(CIVITAI, "new", config)
    assert found(CIVITAI, config) == "new"


def test_a_token_does_not_show(config: Path) -> None:
    tokens.store(CIVITAI, "sekrit", config)
    assert "sekrit" not in repr(tokens.find(CIVITAI, config, {}))


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def rude(home: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HUBCTL_CONFIG", str(config))
    with RudeHub(b"") as rude:
        monkeypatch.setenv("HUBCTL_HUB", rude.url)
        yield rude


def typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_login_whoami_logout(rude: RudeHub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["whoami"]) == 3
    assert "hubctl login" in capfd.readouterr().err
    typed(TOKEN + "\n", monkeypatch)
    assert run(["login"]) == 0
    said = capfd.readouterr()
    assert TOKEN not in said.out + said.err
    assert run(["whoami", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["account"] == {"id": 1}
    assert document["token_from"].endswith("credentials.toml")
    assert run(["logout"]) == 0
    assert "forgotten" in capfd.readouterr().err
    assert run(["logout"]) == 0
    assert "no stored key" in capfd.readouterr().err


@pytest.mark.parametrize(("text", "status"), [("wrong-key\n", 3), ("\n", 2), ("two words\n", 2), ("x" * 3000, 2)])
def test_a_key_that_does_not_fit_is_not_kept(
    rude: RudeHub, config: Path, monkeypatch: pytest.MonkeyPatch, text: str, status: int
) -> None:
    typed(text, monkeypatch)
    assert run(["login"]) == status
    assert not tokens.credentials_path(config).exists()


def test_a_key_can_be_kept_without_asking_anybody(rude: RudeHub, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed("unchecked-key\n", monkeypatch)
    assert run(["login", "--offline"]) == 0
    assert found(rude.url, config) == "unchecked-key"
    assert rude.requests == []
