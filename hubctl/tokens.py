"""Hub tokens: where they are looked for, and the one file we write.

    CIVITAI_TOKEN, CIVITAI_API_KEY, CIVITAI_API_TOKEN   environment, for the Civitai family of hosts only
    HUBCTL_TOKEN                                        environment, for the hub of `--hub`, when that is one hub
    keyring                                             when the extra is installed
    credentials.toml beside the configuration           mode 0600, written by `hubctl login`
    ~/.config/civitai/config.yaml                       the official client's file: read, never written

A token is only ever handed to the transport together with the origin it is for.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hubctl.errors import NoPermission

CIVITAI_VARIABLES = ("CIVITAI_TOKEN", "CIVITAI_API_KEY", "CIVITAI_API_TOKEN")
CIVITAI_DOMAINS = ("civitai.com", "civitai.red", "civitai.green")
SERVICE = "hubctl"


@dataclass(frozen=True)
class Token:
    """A secret and where it was found. Its text never shows in a repr."""

    value: str = field(repr=False)
    source: str


def origin(url: str) -> str:
    """`https://civitai.com/api/…` → `https://civitai.com`, lower case, default ports dropped."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port and parts.port != {"http": 80, "https": 443}.get(parts.scheme) else ""
    return f"{parts.scheme}://{(parts.hostname or '').lower()}{port}"


def is_civitai(url: str) -> bool:
    host = (urlsplit(url).hostname or "").lower()
    return any(host == domain or host.endswith("." + domain) for domain in CIVITAI_DOMAINS)


def find(url: str, config_path: Path, environ: Mapping[str, str] = os.environ, *, alone: bool = True) -> Token | None:
    """The token for a hub's base URL, from the first source that has one.

    `alone` says that no other hub is asked: HUBCTL_TOKEN does not say which of several it is for.
    """
    family = is_civitai(url) or _is_named_host(url, environ)
    for name in (*(CIVITAI_VARIABLES if family else ()), *(("HUBCTL_TOKEN",) if alone else ())):
        if value := environ.get(name, "").strip():
            return Token(value, name)
    key = "https://civitai.com" if is_civitai(url) else origin(url)
    return _from_keyring(key) or _from_file(key, config_path) or (_from_official_client() if is_civitai(url) else None)


def _is_named_host(url: str, environ: Mapping[str, str]) -> bool:
    """Whether this is the host that CIVITAI_HOST puts in the place of civitai.com."""
    host = environ.get("CIVITAI_HOST", "")
    return bool(host) and origin(url) == origin(host if "://" in host else f"https://{host}")


def credentials_path(config_path: Path) -> Path:
    return config_path.with_name("credentials.toml")


def store(url: str, value: str, config_path: Path) -> str:
    """Keep a token; returns where ("keyring" or the file's path). Raises NoPermission."""
    key = "https://civitai.com" if is_civitai(url) else origin(url)
    if _keyring_set(key, value):
        return "keyring"
    path = credentials_path(config_path)
    entries = _entries(path)
    entries[key] = value
    _write(path, entries)
    return str(path)


def forget(url: str, config_path: Path) -> bool:
    """Remove a stored token everywhere we may have put it; whether there was one."""
    key = "https://civitai.com" if is_civitai(url) else origin(url)
    path = credentials_path(config_path)
    entries = _entries(path)
    had = entries.pop(key, None) is not None
    if had:
        _write(path, entries)
    return _keyring_delete(key) or had


def _entries(path: Path) -> dict[str, str]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}
    tokens = data.get("tokens")
    return {k: v for k, v in tokens.items() if isinstance(v, str)} if isinstance(tokens, dict) else {}


def _write(path: Path, entries: Mapping[str, str]) -> None:
    import tomlkit

    document = tomlkit.document()
    document["tokens"] = dict(entries)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(tomlkit.dumps(document))
        beside.replace(path)
    except OSError as error:
        raise NoPermission(f"{path} cannot be written: {error.strerror}", hint="set CIVITAI_TOKEN instead") from None


def _from_file(key: str, config_path: Path) -> Token | None:
    path = credentials_path(config_path)
    value = _entries(path).get(key)
    return Token(value, str(path)) if value else None


def _from_official_client() -> Token | None:
    """The `token:` (or `api_key:`) line of the official client's YAML; nothing else of YAML is needed."""
    path = Path.home() / ".config" / "civitai" / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")[:65536]
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^\s*(?:token|api_?key):\s*[\"']?([\w.\-]{8,512})[\"']?\s*$", text, re.MULTILINE | re.IGNORECASE)
    return Token(found.group(1), str(path)) if found else None


def _from_keyring(key: str) -> Token | None:
    try:
        import keyring

        value = keyring.get_password(SERVICE, key)
    except Exception:  # no keyring, a locked one, a headless box: all mean "not there"
        return None
    return Token(value, "keyring") if value else None


def _keyring_set(key: str, value: str) -> bool:
    try:
        import keyring

        keyring.set_password(SERVICE, key, value)
    except Exception:
        return False
    return True


def _keyring_delete(key: str) -> bool:
    try:
        import keyring

        keyring.delete_password(SERVICE, key)
    except Exception:
        return False
    return True
