"""Every command: help with an example, shared options on both sides, refusals that are sentences, a page in docs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stocked import put

from hubctl.cli import COMMANDS, load
from registry import Registry

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


def test_every_error_name_is_on_its_page_and_every_name_there_is_one(shared: Path) -> None:
    source = "\n".join(
        path.read_text("utf-8") for part in ("hubctl", "registry") for path in (ROOT / part).rglob("*.py")
    )
    names = set(re.findall(r'^    code\b[^=\n]* = "([a-z_]+)"', source, re.MULTILINE)) | {"error"}
    rows = re.findall(r"^\| +[0-9–]+ \| ([^|]+) \|", (ROOT / "docs/errors.md").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"`([a-z_]+)`", " ".join(rows))) == names
    conventions = (shared / "docs/conventions.md").read_text("utf-8")
    taken = re.findall(r"^\| ([a-z_]+(?: / [a-z_]+)*) \| [^|]+ \| [0-9]+ \|", conventions, re.MULTILINE)
    assert len(taken) > 15
    assert {name for each in taken for name in each.split(" / ")} <= names


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


@pytest.mark.parametrize(
    "argv", [("search", "--limit", "none"), ("list", "--unheard-of"), ("instal",), ("trash", "instal"), ("rm",), ()]
)
def test_a_line_that_cannot_be_read_is_refused_as_json_when_it_asks_for_it(argv: tuple[str, ...], hubctl: Run) -> None:
    for line in ((*argv, "--json"), ("--json", *argv)):
        outcome = hubctl(*line, status=2)
        assert (outcome.json["schema"], outcome.json["error"]["code"]) == ("hubctl.error/1", "usage")
        assert outcome.err == ""


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


ROWS = [
    ("4201", "Thanos Portrait", "LORA", "hubctl-demo", "478 kB", "thnos"),
    ("4301", "Gruffman", "TextualInversion", "hubctl-demo", "1.2 kB", "gruffman"),
    ("4401", "鎧の勇者 シリーズ", "VAE", "somebody", "873 kB", ""),
]


def drawn(capfd: pytest.CaptureFixture[str], rows: Any = ROWS) -> list[str]:
    from hubctl.cli import _out

    capfd.readouterr()
    heads = [("id", "right"), "name", "type", "creator", ("size", "right"), "trigger words"]
    _out.table(heads, rows, spare=("creator", "size", "trigger words"))
    return capfd.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [45, 60, 80, 100])
def test_a_table_fits_its_terminal_and_breaks_no_word(
    columns: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubctl.text import width

    monkeypatch.setenv("COLUMNS", str(columns))
    lines = drawn(capfd)
    assert max(map(width, lines)) <= columns
    assert all(line == line.rstrip() for line in lines)
    words = {word for line in lines for word in line.split()}
    assert {"4201", "Thanos", "Portrait", "TextualInversion", "Gruffman"} <= words
    assert ("hubctl-demo" in words) == (columns >= 80)


def test_without_a_terminal_a_row_is_a_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "a name of many words " * 12
    lines = drawn(capfd, [*ROWS, ("1", long, "LORA", long, "1 kB", long)])
    assert len(lines) == 2 + len(ROWS) + 1
    assert lines[-1].count("a name of many words") == 36


def test_a_line_break_in_a_name_makes_no_line(hubctl: Run, capfd: pytest.CaptureFixture[str]) -> None:
    from hubctl.cli import _out

    hubctl("config", "path")
    _out.say("\nmodel a\n✓ verified\r\nby nobody")
    assert capfd.readouterr().err == "\nmodel a ✓ verified by nobody\n"
    assert drawn(capfd, [("1", "a\nb", "", "", "", "")])[-1].split() == ["1", "a", "b"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_who_answers_no_is_told_that_nothing_was_done(hubctl: Run, home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
    person, terminal = os.openpty()
    os.write(person, b"n\n")  # waits there until it is read
    person_only = {key: value for key, value in os.environ.items() if key not in ("AI_AGENT", "AGENT", "CLAUDECODE")}
    done = subprocess.run(
        [sys.executable, "-m", "hubctl", "rm", "1"],
        stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, env=person_only, timeout=120,
    )  # fmt: skip
    os.close(terminal)
    said = os.read(person, 4096).decode()
    os.close(person)
    assert (done.returncode, done.stdout) == (130, b"")
    assert "move 1 version to the trash? [y/N]" in said
    assert said.rstrip().endswith("nothing was done")
    assert hubctl("list", "-q").out == "1@11\n"


def test_what_is_installed_is_removed_by_what_it_is_called_only(hubctl: Run, home: Path) -> None:
    """A number that is no id here must not find the one model whose description has it."""
    with Registry.open(home) as registry:
        put(registry, b"one", model="Model 7 of many")
    for ref in ("7", "version:7", "https://civitai.com/models/7", "2@11"):
        assert hubctl("rm", ref, "--yes", "--json", status=4).json["error"]["code"] == "not_found"
    assert hubctl("list", "-q").out == "1@11\n"


@pytest.mark.parametrize("command", ["show", "images", "recommend", "path"])
def test_a_number_that_is_a_model_and_a_version_here_is_refused_with_both(
    command: str, hubctl: Run, home: Path
) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one", model_id=5, version_id=11)
        put(registry, b"two", model_id=6, version_id=5)
    outcome = hubctl(command, "5", "--offline", status=2)
    assert "5@11" in outcome.err
    assert "6@5" in outcome.err
    assert hubctl(command, "5@11", "--offline", "--json").json["schema"] == f"hubctl.{command}/1"


@pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors")
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_no_accident(closed: tuple[int, ...], hubctl: Run, home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"one")
    for argv, status in ((["list"], 0), (["rm", "1"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "hubctl", *argv],
            preexec_fn=lambda: [os.close(number) for number in closed],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
    assert hubctl("list", "-q").out == "1@11\n"
    with Registry.open(home) as registry:
        assert registry.check() == []


def test_ctrl_c_while_the_command_line_is_loaded_is_no_traceback() -> None:
    script = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from hubctl.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
