"""Eight processes on one home: no lost update, no deadlock, no `database is locked`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import command, peers, prepare, promises
from stocked import put

from registry import Registry

Served = tuple[Path, tuple[str, ...]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The first peer's library, and the addresses of both."""
    root = tmp_path_factory.mktemp("peers")
    with peers(root) as hubs:
        yield root / "peer0", hubs


def test_eight_processes_do_everything_at_once(tmp_path: Path, served: Served) -> None:
    everything_at_once(tmp_path, served, seeds=range(8), steps=15)


@pytest.mark.slow
@pytest.mark.parametrize("round", range(int(os.environ.get("HUBCTL_ROUNDS", "5"))))
def test_twelve_processes_do_everything_for_long(tmp_path: Path, served: Served, round: int) -> None:
    """What two processes can do to each other between a look and a step shows once in some hundred runs."""
    everything_at_once(tmp_path, served, seeds=range(100 * round, 100 * round + 12), steps=40)


def everything_at_once(tmp_path: Path, served: Served, *, seeds: range, steps: int) -> None:
    first_peer, hubs = served
    world = prepare(tmp_path / "world", hubs, first_peer)
    mine = world.mine()
    at_work = [
        subprocess.Popen(command(world, seed, steps), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in seeds
    ]
    for each in at_work:
        out, err = each.communicate(timeout=240)
        assert each.returncode == 0, err
        assert len(out.split()) == steps
        assert "Traceback" not in err
        assert "locked" not in err
    promises(world, mine)


def test_no_update_is_lost(home: Path) -> None:
    with Registry.open(home) as registry:
        put(registry, b"shared")
    script = (
        "import pathlib, sys\nsys.path.insert(0, " + repr(str(Path(__file__).parents[1])) + ")\n"
        "from stocked import put\nfrom registry import Registry\nn = int(sys.argv[1])\n"
        f"r = Registry.open(pathlib.Path({str(home)!r}))\n"
        "for k in range(10):\n"
        "    i = n * 100 + k\n"
        "    put(r, b'%d' % i, model_id=i, version_id=i)\n"
        "    r.enqueue(f'{n}-{k}'); r.note(i, notes=f'of {n}'); r.touch(11); r.installed(limit=5)\n"
        "r.close()"
    )
    at_work = [subprocess.Popen([sys.executable, "-c", script, str(n)], stderr=subprocess.PIPE) for n in range(1, 9)]
    assert [each.communicate(timeout=120)[1] for each in at_work] == [b""] * 8
    for again in (False, True):
        if again:
            for path in home.glob("index.db*"):
                path.unlink()
        with Registry.open(home) as registry:
            assert registry.count()[0] == 81
            assert len(registry.queued()) == 80
            assert {item.notes for item in registry.installed() if item.version_id != 11} == {
                f"of {n}" for n in range(1, 9)
            }
            assert registry.check() == []


def test_removing_does_not_wait_for_a_download(home: Path) -> None:
    """Somebody holds the home open, a download half done; models can be removed and pruned meanwhile."""
    with Registry.open(home) as registry:
        put(registry, b"one")
    with Registry.open(home) as first, first.reserve("ab" * 32, size=1000) as partial:
        partial.write(b"x" * 500)
        start = time.monotonic()
        with Registry.open(home) as second:
            second.remove(second.plan_remove([("civitai", 11)]))
        assert time.monotonic() - start < 5
        partial.write(b"y" * 100)
        assert partial.tell() == 600
