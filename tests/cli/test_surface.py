"""Every command: help with an example, shared options on both sides, refusals that are sentences, a page in docs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubctl.cli import COMMANDS, load

Run = Callable[..., Any]  # the fixture `hubctl` of conftest.py

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("--json", "--quiet", "--verbose", "--yes", "--no-input", "--offline", "--home", "--hub")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_shared_options(name: str, hubctl: Run) -> None:
    help_text = hubctl(name, "--help").out
    for option in SHARED:
        assert option in help_text
    holds_others = getattr(load(name), "commands", None)
    assert "Example: hubctl" in help_text or holds_others


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(re.search(rf"hubctl {re.escape(name)}\b", page.read_text("utf-8")) for page in pages)


def test_options_count_before_and_after_the_command(hubctl: Run, tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    before = hubctl("--json", "--home", home, "config", "show").json
    after = hubctl("config", "show", "--home", home, "--json").json
    assert before["settings"]["home"] == after["settings"]["home"] == {"value": str(home), "from": "--home"}


def test_an_unknown_command_is_a_sentence_with_the_near_ones(hubctl: Run) -> None:
    outcome = hubctl("instal", status=2)
    assert "there is no command `instal`" in outcome.err
    assert "`install`" in outcome.err
    assert outcome.out == ""


def test_a_bad_option_value_is_a_usage_error_as_json_too(hubctl: Run) -> None:
    outcome = hubctl("search", "--limit", "none", "--json", status=2)
    assert outcome.json["schema"] == "hubctl.error/1"
    assert outcome.json["error"]["code"] == "usage"


def test_json_goes_to_stdout_alone(hubctl: Run) -> None:
    for argv in (["list"], ["du"], ["runs"], ["config", "show"]):
        outcome = hubctl(*argv, "--json")
        assert json.loads(outcome.out)["schema"].startswith("hubctl.")
        assert outcome.err == ""


def test_names_from_strangers_are_shown_as_plain_text(hubctl: Run, capfd: pytest.CaptureFixture[str]) -> None:
    from hubctl.cli import _out

    capfd.readouterr()
    _out.table(["name"], [["[red]x[/red] \x1b[31mred\x1b[0m\a ‮gnp.exe"]])
    shown = capfd.readouterr().out
    assert "[red]x[/red]" in shown
    assert "\x1b" not in shown
    assert "\a" not in shown
    assert "‮" not in shown
