"""Settings from four sources, and the file that one of them is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubctl.cli import run
from hubctl.config import SETTABLE, load, parse_size, save_value
from hubctl.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    file.write_text('connections = 2\nparallel = 5\nprefer_fp = "fp32"\nhome = "/srv/models"\n')
    settings = load({"connections": 7}, {"HUBCTL_PARALLEL": "6", "HUBCTL_CONNECTIONS": "3"}, file)
    assert (settings.connections, settings.parallel, settings.prefer_fp) == (7, 6, "fp32")
    assert (settings.patience, settings.home) == (120, Path("/srv/models"))
    assert settings.origins["connections"] == "--connections"
    assert settings.origins["parallel"] == "HUBCTL_PARALLEL"
    assert settings.origins["prefer_fp"] == str(file)
    assert "patience" not in settings.origins


@pytest.mark.parametrize(
    ("text", "size"),
    [("20M", 20_000_000), ("1.5GB", 1_500_000_000), ("4GiB", 4 * 2**30), ("300", 300), ("10k/s", 10_000), (7, 7)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connections", "many"), ("connections", "-1"), ("limit_rate", "fast"), ("limit_rate", "-5M"),
        ("limit_rate", "nan"), ("offline", "perhaps"), ("device", "tpu"), ("policy", "none of it"),
        ("patience", "1.5h"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_naming_where_it_stands(name: str, value: str, file: Path) -> None:
    with pytest.raises(UsageError, match=f"HUBCTL_{name.upper()}") as caught:
        load({}, {f"HUBCTL_{name.upper()}": value}, file)
    assert caught.value.hint
    file.write_text(f"{name} = {json.dumps(value)}\n")
    with pytest.raises(UsageError, match=r"config\.toml"):
        load({}, {}, file)


@given(st.text(max_size=30))
def test_any_size_is_read_or_refused(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ValueError:
        return


def test_hubs(file: Path) -> None:
    file.write_text(
        'hub = "nas, civitai"\n[hubs.nas]\nurl = "http://nas.local:8765/"\n[hubs]\nplain = "https://p.test"\n'
    )
    settings = load({}, {"CIVITAI_HOST": "mirror.test"}, file)
    assert settings.hub_names == ("nas", "civitai")
    assert [settings.hub_url(name) for name in ("nas", "plain", "civitai", "https://x.test/")] == [
        "http://nas.local:8765",
        "https://p.test",
        "https://mirror.test",
        "https://x.test",
    ]
    with pytest.raises(UsageError, match="name or password") as refused:
        settings.hub_url("https://me:secret@nas.local")
    assert "secret" not in refused.value.message
    with pytest.raises(UsageError, match="no hub is called `nsa`") as caught:
        settings.hub_url("nsa")
    assert "nas" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text", ["connections = ", "[hubs.nas]\nurl = 5", '[hubs.nas]\nurl = "nas"', "\xff\xfe", "a = [1,"]
)
def test_a_broken_file_is_a_sentence(text: str, file: Path) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        load({}, {}, file)
    assert caught.value.hint


def test_what_is_saved_is_read_and_the_rest_of_the_file_stays(file: Path) -> None:
    file.write_text("# mine\nparallel = 2  # few\n")
    save_value(file, "prefer_fp", "fp32")
    save_value(file, "limit_rate", "20M")
    save_value(file, "hubs.nas", "http://nas:1")
    text = file.read_text()
    assert "# mine" in text
    assert "parallel = 2  # few" in text
    settings = load({}, {}, file)
    assert (settings.prefer_fp, settings.limit_rate, settings.hub_url("nas")) == ("fp32", 20_000_000, "http://nas:1")
    for name in ("prefer_fp", "limit_rate", "hubs.nas"):
        save_value(file, name, "none")
    settings = load({}, {}, file)
    assert (settings.prefer_fp, settings.limit_rate, "nas" in settings.hubs) == ("fp16", None, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_such", "1"),
        ("connections", "x"),
        ("connections", "0"),
        ("connections", "17"),
        ("parallel", "0"),
        ("home", ""),
        ("hubs.nas", "nas"),
        ("hubs.", "http://nas"),
        ("hubs.a/b", "http://nas"),
        ("hub", "nowhere"),
        ("hub", "civitai, nowhere"),
        ("hub", "ftp://nas"),
        ("device", "z"),
    ],
)
def test_nothing_is_written_for_what_does_not_fit(name: str, value: str, file: Path) -> None:
    with pytest.raises(UsageError):
        save_value(file, name, value)
    assert not file.exists()


def test_an_empty_variable_is_none(file: Path) -> None:
    settings = load({}, {"HUBCTL_HOME": "", "HUBCTL_HUB": "", "HUBCTL_CONNECTIONS": ""}, file)
    assert (settings.hub, settings.connections, settings.home) == ("civitai", 4, load({}, {}, file).home)


@pytest.mark.parametrize(
    ("hub", "hint"),
    [
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("nas.local", "http://nas.local"),
        ("localhost", "http://localhost"),
        ("nas", "`hubctl config set hubs.nas URL`"),
        ("ftp://nas", "http://"),
    ],
)
def test_what_is_no_hub_is_refused_with_the_way_to_name_it(hub: str, hint: str, file: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load({}, {}, file).hub_url(hub)
    assert hint in (caught.value.hint or "")


def test_a_value_that_does_not_fit_is_mended_with_config_set(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text('connections = "many"\n')
    assert run(["config"]) == 2
    assert run(["config", "path"]) == 0
    assert run(["config", "set", "connections", "3"]) == 0
    assert run(["config"]) == 0
    assert "connections" in capfd.readouterr().out


def test_config_on_the_command_line(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "set", "prefer_fp", "bf16"]) == 0
    assert run(["config", "path"]) == 0
    assert capfd.readouterr().out.strip() == str(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text('prefer_fp = "bf16"\nprefer_fb = "typo"\n')
    assert run(["config"]) == 0
    shown = capfd.readouterr()
    assert "prefer_fb" in shown.err
    assert all(name in shown.out for name in SETTABLE)
    assert run(["config", "show", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["settings"]["prefer_fp"] == {"value": "bf16", "from": str(tmp_path / "config.toml")}
    assert run(["config", "set", "nonsense", "1"]) == 2
    (tmp_path / "config.toml").write_text("this is not TOML")
    assert run(["config", "set", "prefer_fp", "fp32"]) == 2
    assert "not valid TOML" in capfd.readouterr().err
