"""du, prune, trash, pin, rm, verify and list, as a person types them, against a demo hub on loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stocked import files_du, put

from registry import Registry

Run = Callable[..., Any]


def stock(home: Path, count: int) -> None:
    with Registry.open(home) as registry:
        for number in range(1, count + 1):
            put(
                registry, b"%d" % number * 5000, model_id=number, version_id=100 + number, name=f"{number}.ckpt",
                installed_at=f"2020-01-{1 + number % 28:02d}T00:00:00+00:00",
            )  # fmt: skip


def test_du_prints_what_the_disk_says(hubctl: Run, home: Path) -> None:
    assert "nothing is installed" in hubctl("du").err
    stock(home, 3)
    said = hubctl("du", "--json").json
    assert said["total"]["on_disk"] == said["total"]["freeable"] == files_du(home / "blobs")
    assert (said["measured"], said["groups"]) == (True, 1)
    assert hubctl("du", "-q").out == f"{files_du(home / 'blobs')}\n"
    assert "█" in hubctl("du", "--by", "base-model").out
    assert "cannot group by `colour`" in hubctl("du", "--by", "colour", status=2).err


def test_duplicates_say_what_adopt_would_share(hubctl: Run, home: Path, tmp_path: Path) -> None:
    stock(home, 1)
    outside = tmp_path / "Downloads"
    outside.mkdir()
    (outside / "x.ckpt").write_bytes(b"1" * 5000)
    said = hubctl("du", "--duplicates", outside, "--json").json
    assert [each["ref"] for each in said["items"]] == ["1@101"]
    assert said["wasted"] == files_du(outside)
    assert f"hubctl adopt {outside}" in hubctl("du", "--duplicates", outside).err
    assert hubctl("du", "--duplicates", tmp_path / "nowhere", status=4)


def test_prune_shows_asks_and_can_be_taken_back(hubctl: Run, home: Path) -> None:
    stock(home, 4)
    hubctl("pin", "2@102")
    dry = hubctl("prune", "--unused", "90", "--dry-run")
    assert "Nothing was done" in dry.err
    assert "pinned" in dry.err
    assert len(hubctl("list", "-q").out.split()) == 4
    assert "--yes" in hubctl("prune", "--unused", "90", status=2).err  # nobody is there to answer
    plan = hubctl("prune", "--unused", "90", "--dry-run", "--json").json["plan"]
    assert plan["frees"] == 3 * files_du(home / "blobs") // 4
    assert "moved to the trash" in hubctl("prune", "--unused", "90", "--yes").err
    assert hubctl("list", "-q").out == "2@102\n"
    assert len(hubctl("trash", "list", "-q").out.split()) == 3
    back = hubctl("trash", "restore", "3@103")
    assert Path(back.out.strip()).read_bytes() == b"3" * 5000
    before = files_du(home / "blobs")
    freed = hubctl("trash", "empty", "--yes", "--json").json["freed"]
    assert before - files_du(home / "blobs") == freed > 0
    assert sorted(hubctl("list", "-q").out.split()) == ["2@102", "3@103"]
    assert "the trash is empty" in hubctl("trash", "list").err


def test_prune_without_options_takes_only_rubbish(hubctl: Run, home: Path) -> None:
    stock(home, 2)
    assert "nothing to prune" in hubctl("prune").err
    part = home / "partial" / f"{'ab' * 32}.elsewhere.1.part"
    part.write_bytes(b"x" * 9000)
    os.utime(part, (time.time() - 3 * 86400,) * 2)
    assert "1 other thing deleted" in hubctl("prune", "--yes").err
    assert not part.exists()
    assert len(hubctl("list", "-q").out.split()) == 2
    assert hubctl("prune", "--redownloadable", status=2)
    assert "is no size" in hubctl("prune", "--free", "lots", status=2).err


def test_a_budget_that_cannot_be_met_says_so(hubctl: Run, home: Path) -> None:
    stock(home, 2)
    hubctl("pin", "1@101")
    outcome = hubctl("prune", "--free", "1G", "--dry-run")
    assert "short of what was asked for" in outcome.err
    assert hubctl("prune", "--max-size", "1G", "--dry-run", "--json").json["plan"]["items"] == []


def test_a_lock_that_cannot_be_read_is_told_of(hubctl: Run, home: Path, tmp_path: Path) -> None:
    """On a drive that is away it may lock anything; one that was deleted locks nothing."""
    stock(home, 1)
    with Registry.open(home) as registry:
        registry.add_lock_root(tmp_path / "away" / "hubctl.lock")
        registry.add_lock_root(tmp_path / "hubctl.lock")
    said = hubctl("prune", "--unused", "9", "--dry-run").err
    assert said.count("is not protected now") == 1
    assert str(tmp_path / "away" / "hubctl.lock") in said


def test_what_was_set_aside_is_named_and_goes_when_asked_for(hubctl: Run, home: Path) -> None:
    stock(home, 1)
    (home / "damaged").mkdir()
    (home / "damaged" / "x.1").write_bytes(b"x" * 9000)
    assert "`hubctl prune --damaged`" in hubctl("du").err
    said = hubctl("prune", "--damaged", "--yes", "--json").json
    assert [item["path"] for item in said["plan"]["items"]] == [str(home / "damaged" / "x.1")]
    assert said["report"]["freed"] == said["plan"]["frees"] > 0
    assert "damaged" not in hubctl("du").err


def test_what_the_hub_still_has_may_go(on_demo: Run, home: Path, demo_hub: str) -> None:
    on_demo("install", "4201", "-q")
    stock(home, 1)  # of a hub this one is not
    plan = on_demo("prune", "--unused", "0", "--redownloadable", "--dry-run", "--json").json["plan"]
    assert [item["reasons"][-1] for item in plan["items"]] == ["can be downloaded again"]
    assert len(plan["kept"]) == 1
    offline = on_demo("prune", "--unused", "0", "--redownloadable", "--dry-run", "--json", "--offline").json["plan"]
    assert offline["items"] == []


def test_verify_fetches_bad_bytes_again(on_demo: Run, home: Path) -> None:
    path = Path(on_demo("install", "4201", "-q").out.strip())
    good = path.read_bytes()
    assert "as they should be" in on_demo("verify").err
    path.chmod(0o644)
    path.write_bytes(b"broken")
    found = on_demo("verify", status=7)
    assert "its bytes changed" in found.out
    assert "--repair" in found.err
    assert on_demo("verify", "--json", status=7).json["problems"][0]["kind"] == "blob"
    assert "✓ repaired" in on_demo("verify", "--repair").err
    assert path.read_bytes() == good
    assert "as they should be" in on_demo("verify", "--all").err
    assert [each.read_bytes() for each in (home / "damaged").iterdir()] == [b"broken"]


def test_rm_goes_to_the_trash_or_at_once(hubctl: Run, home: Path) -> None:
    stock(home, 2)
    assert "restore 1@101" in hubctl("rm", "1@101", "--yes").err
    assert hubctl("trash", "list", "-q").out == "1@101\n"
    hubctl("rm", "2@102", "--now", "--yes")
    assert hubctl("trash", "list", "-q").out == "1@101\n"
    assert hubctl("trash", "restore", "--all", "--json").json["restored"] == ["1@101"]
    assert hubctl("trash", "restore", status=2)
    assert hubctl("trash", "restore", "nothing", status=4)


def test_a_table_is_a_page_and_a_script_gets_everything(
    hubctl: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubctl.cli.list.PAGE", 3)
    stock(home, 7)
    first = hubctl("list")
    assert "1–3 of 7 versions" in first.err
    assert "--page 2" in first.err
    assert "7–7 of 7" in hubctl("list", "--page", "3").err
    assert "there is no page 4" in hubctl("list", "--page", "4").err
    assert len(hubctl("list", "-q").out.split()) == 7
    said = hubctl("list", "--json").json
    assert (said["count"], said["total"]) == (7, 7)
    assert hubctl("list", "-q", "--limit", "2", "--page", "2", "--sort", "size").out.split() == ["3@103", "4@104"]
    assert hubctl("list", "--sort", "colour", status=2)


def test_reindex_after_everything_about_the_index_is_lost(hubctl: Run, home: Path) -> None:
    stock(home, 2)
    hubctl("pin", "1@101")
    for path in home.glob("index.db*"):
        path.write_bytes(b"not a database")
    assert hubctl("list", status=7)
    assert "2 versions indexed" in hubctl("reindex").err
    assert [each["pinned"] for each in hubctl("list", "--json").json["items"]] == [True, False]
