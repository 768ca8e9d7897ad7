"""Settings: defaults < configuration file < environment < flags, joined once at the edge.

The file is TOML (`hubctl config path` says where), one key per setting, plus a table of hubs:

    hub = "civitai"
    prefer_fp = "fp16"

    [hubs.nas]
    url = "http://nas.local:8765"

Each setting can be given as `HUBCTL_<NAME>` in the environment. `Settings.origins` says where each value came from.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubctl.errors import UsageError

BUILT_IN_HUBS: Mapping[str, str] = MappingProxyType(
    {"civitai": "https://civitai.com", "civitai.red": "https://civitai.red"}
)
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})


@dataclass(frozen=True)
class Settings:
    """Everything a run of hubctl can be told. Paths are absolute, rates are bytes per second, times are seconds."""

    home: Path = Path()
    hub: str = "civitai"  # a name of `hubs`, or a URL; several, comma-separated, are asked in order
    offline: bool = False
    connections: int = 4  # per file
    parallel: int = 3  # files at once
    limit_rate: int | None = None
    patience: int = 120  # how long a hub may be unreachable before giving up
    prefer_format: str = "SafeTensor"
    prefer_fp: str = "fp16"
    prefer_size: str = "pruned"
    allow_pickle: bool = False
    policy: str = "any"  # any · commercial: refuse what may not be used commercially
    nsfw: bool = False
    device: str = "auto"  # auto · cpu · cuda · mps
    dtype: str = "auto"  # auto · fp32 · fp16 · bf16
    link_kind: str = "auto"  # auto · reflink · hardlink · symlink · copy
    trash_days: int = 7
    hubs: Mapping[str, str] = field(default_factory=lambda: BUILT_IN_HUBS)
    config_path: Path = Path()
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unknown: tuple[str, ...] = ()  # keys of the file that mean nothing (to this version)

    @property
    def hub_names(self) -> tuple[str, ...]:
        """The hubs to ask, in order."""
        return tuple(name.strip() for name in self.hub.split(",") if name.strip())

    def hub_url(self, name: str) -> str:
        """The base URL of a hub given by name or URL, without a trailing slash."""
        if "://" in name:
            return _base(name)
        if name not in self.hubs:
            hint = f"known hubs: {', '.join(sorted(self.hubs))}; or give a URL"
            if re.fullmatch(r"localhost|[\w.-]+(\.\w+|:[0-9]+)/?", name):
                hint = f"if it is an address, write it whole: http://{name}"
            elif HUB_NAME.fullmatch(name):
                hint += f", or add one with `hubctl config set hubs.{name} URL`"
            raise UsageError(f"no hub is called `{name}`", hint=hint)
        return _base(self.hubs[name])


HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def _base(url: str) -> str:
    """A base URL; one with a name and password in it would end up in logs, queues and manifests."""
    if "@" in url.split("://", 1)[1].split("/", 1)[0]:
        raise UsageError("a hub's URL may not hold a name or password", hint="store the key with `hubctl login`")
    if not re.match(r"https?://[^/\s?#]", url, re.IGNORECASE):
        raise UsageError(f"`{url}` is no hub's URL", hint="write it with http:// or https://")
    return url.rstrip("/")


CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "policy": ("any", "commercial"),
        "device": ("auto", "cpu", "cuda", "mps"),
        "dtype": ("auto", "fp32", "fp16", "bf16"),
        "link_kind": ("auto", "reflink", "hardlink", "symlink", "copy"),
    }
)
LEAST_MOST: Mapping[str, tuple[int, int]] = MappingProxyType({"connections": (1, 16), "parallel": (1, 16)})
SETTABLE = tuple(f.name for f in fields(Settings) if f.name not in {"hubs", "config_path", "origins", "unknown"})


def default_config_path(environ: Mapping[str, str]) -> Path:
    if given := environ.get("HUBCTL_CONFIG"):
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_config_dir("hubctl", appauthor=False)) / "config.toml"


def default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("hubctl", appauthor=False))


def parse_value(name: str, value: Any, where: str) -> Any:
    """One setting's value as its type; a value that does not fit is refused with what would."""
    kind = next(str(f.type) for f in fields(Settings) if f.name == name)
    try:
        if kind == "bool":
            return _as_bool(value)
        if name == "limit_rate":
            return None if value in (None, "", "none") else parse_size(value)
        if kind.startswith("int"):
            number = int(value)
            least, most = LEAST_MOST.get(name, (0, 2**31))
            if not least <= number <= most:
                raise ValueError
            return number
        if kind == "Path":
            if not str(value).strip():  # would be the folder one happens to be in
                raise ValueError
            return Path(value).expanduser().absolute()
    except (TypeError, ValueError):
        raise UsageError(f"`{name}` cannot be `{value}` ({where})", hint=_what_fits(name, kind)) from None
    if name == "device" and re.fullmatch(r"cuda:[0-9]{1,2}", str(value)):
        return value
    if not isinstance(value, str) or (name in CHOICES and value not in CHOICES[name]):
        raise UsageError(f"`{name}` cannot be `{value}` ({where})", hint=_what_fits(name, kind))
    return value


def _what_fits(name: str, kind: str) -> str:
    if name in CHOICES:
        return "one of: " + ", ".join(CHOICES[name])
    if name in LEAST_MOST:
        return "a whole number from {} to {}".format(*LEAST_MOST[name])
    return {
        "Path": "a folder",
        "bool": "true or false",
        "int": "a whole number",
        "int | None": "a size such as 20M, or none",
    }.get(kind, "text")


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(value)


UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}


def parse_size(value: str | int) -> int:
    """`"20M"`, `"1.5GB"`, `"4GiB"` or a number → bytes. Raises ValueError."""
    if isinstance(value, int):
        return value
    text = value.strip().lower().removesuffix("/s").removesuffix("b")
    binary = text.endswith("i")
    text = text.removesuffix("i")
    unit = text[-1:] if text[-1:] in UNITS else ""
    factor = (1024 ** "kmgt".index(unit) * 1024) if binary and unit else UNITS[unit]
    size = float(text[: len(text) - len(unit)]) * factor
    if not 0 <= size < 2**63:
        raise ValueError(value)
    return int(size)


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    config_path: Path | None = None,
) -> Settings:
    """Join the four sources. `flags` holds only what was given. Raises UsageError naming the source of a bad value."""
    path = config_path or default_config_path(environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    hubs = dict(BUILT_IN_HUBS)
    unknown: list[str] = []

    def take(name: str, value: Any, where: str) -> None:
        values[name], origins[name] = parse_value(name, value, where), where

    for name, value in _read_file(path).items():
        if name == "hubs" and isinstance(value, dict):
            hubs.update(_hub_table(value, path))
        elif name in SETTABLE:
            take(name, value, str(path))
        else:
            unknown.append(name)
    if host := environ.get("CIVITAI_HOST"):
        hubs["civitai"] = host if "://" in host else f"https://{host}"
        origins["hubs.civitai"] = "CIVITAI_HOST"
    for name in SETTABLE:
        variable = f"HUBCTL_{name.upper()}"
        if environ.get(variable):  # an empty one is none
            take(name, environ[variable], variable)
    for name, value in (flags or {}).items():
        take(name, value, f"--{name.replace('_', '-')}")
    if "home" not in values:
        values["home"] = default_home()
    return replace(
        Settings(),
        **values,
        hubs=MappingProxyType(hubs),
        config_path=path,
        origins=MappingProxyType(origins),
        unknown=tuple(unknown),
    )


def _hub_table(table: dict[str, Any], path: Path) -> dict[str, str]:
    out = {}
    for name, entry in table.items():
        url = entry.get("url") if isinstance(entry, dict) else entry
        if not isinstance(url, str) or "://" not in url:
            raise UsageError(f"hub `{name}` in {path} has no URL", hint=f'write: [hubs.{name}] and url = "https://…"')
        out[name] = url
    return out


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint="mend the line, or move the file away") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from None


def save_value(path: Path, name: str, value: str) -> None:
    """Set one key (`prefer_fp`) or hub (`hubs.nas`) in the file, keeping comments and order; `none` removes it."""
    import tomlkit

    _read_file(path)  # refuses what cannot be read, with a sentence
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    clear = value.strip().lower() == "none"
    if name.startswith("hubs."):
        hub = name.removeprefix("hubs.")
        if not HUB_NAME.fullmatch(hub):
            raise UsageError(f"`{hub}` is no name for a hub", hint="letters, digits, dots and dashes")
        table = document.setdefault("hubs", tomlkit.table(is_super_table=True))
        if clear:
            table.pop(hub, None)
        elif re.match(r"https?://[^/\s]", value):
            entry = tomlkit.table()
            entry["url"] = value
            table[hub] = entry
        else:
            raise UsageError(f"`{value}` is no URL", hint="write it with http:// or https://")
    elif name in SETTABLE:
        if clear:
            document.pop(name, None)
        else:
            parsed = parse_value(name, value, "command line")
            if name == "hub":
                known = load(environ={}, config_path=path)
                for each in replace(known, hub=value).hub_names:
                    known.hub_url(each)
            document[name] = str(parsed) if isinstance(parsed, Path) else parsed
    else:
        raise UsageError(f"there is no setting `{name}`", hint="known: " + ", ".join((*SETTABLE, "hubs.<name>")))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(tomlkit.dumps(document), encoding="utf-8")
    beside.replace(path)
