"""SIGKILL at random moments: the next command works, and every promise holds.

The worker does random work on one home and asks hubs that processes beside it serve; it is killed after a random time,
the promises are checked, and it goes on from what the kill left.
`HUBCTL_KILLS=500 pytest -m slow tests/registry/test_kill.py` is the long run.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import Work, peers, prepare, promises


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The first peer's library, and the addresses of both."""
    root = tmp_path_factory.mktemp("peers")
    with peers(root) as hubs:
        yield root / "peer0", hubs


Served = tuple[Path, tuple[str, ...]]


def kill_at_random(tmp_path: Path, served: Served, kills: int, seed: int) -> list[str]:
    """Returns the step that each kill interrupted."""
    first_peer, hubs = served
    world = prepare(tmp_path / "world", hubs, first_peer)
    mine = world.mine()
    rng = random.Random(seed)
    interrupted = []
    for number in range(kills):
        steps = killed(Work(world, seed * 10_000 + number), after=rng.random() * 0.25)
        interrupted.append(steps[-1])
        try:
            promises(world, mine)
        except AssertionError as error:
            raise AssertionError(f"after kill {number} of seed {seed}, during {steps}: {error}") from error
    return interrupted


def killed(work: Work, *, after: float) -> list[str]:
    """Let a process of its own work, and kill it so many seconds after its first step; returns its steps."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child ends here, one way or the other
        os.dup2(writer, 1)
        sys.stdout = os.fdopen(1, "w")
        try:
            work.run()
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as said:
        first = said.readline()
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
        out = first + said.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, out
    return out.split()


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, served: Served) -> None:
    assert len(set(kill_at_random(tmp_path, served, 20, seed=1))) > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_five_hundred_times(tmp_path: Path, served: Served) -> None:
    kills = int(os.environ.get("HUBCTL_KILLS", "500"))
    interrupted = kill_at_random(tmp_path, served, kills, seed=int(os.environ.get("HUBCTL_SEED", "2")))
    sys.stderr.write("\n" + ", ".join(f"{name} {interrupted.count(name)}" for name in sorted(set(interrupted))) + "\n")
