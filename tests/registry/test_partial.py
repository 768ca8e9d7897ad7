"""Whose a partial is: threads, processes, machines that share a folder, and ends at the worst moment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from registry import BlobStore, Partial, partial
from registry.errors import Busy
from registry.partial import holder, host_name, open_partial, stale

DATA = os.urandom(300_000)
SHA = hashlib.sha256(DATA).hexdigest()
NOBODY = 2**22 + 1  # above every process number Linux gives out


def reserve(folder: Path, sha256: str = SHA, size: int = len(DATA)) -> Partial:
    return open_partial(folder / "partial", BlobStore(folder / "blobs"), sha256=sha256, size=size, key=None)


def left_behind(folder: Path, host: str, pid: int, *, age: float = 0.0) -> Path:
    """A partial with half of the data, by a process that is gone."""
    with reserve(folder) as mine:
        mine.write_at(0, DATA[: len(DATA) // 2])
        mine.checkpoint()
    path = folder / "partial" / f"{SHA}.{host}.{pid}.part"
    mine.journal.rename(path.with_suffix(".json"))
    mine.path.rename(path)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_threads_that_want_the_same_file_get_one_each(tmp_path: Path) -> None:
    """Two versions on the hub may be one and the same file, and are then installed side by side."""
    count = 12
    gate, lock = threading.Barrier(count), threading.Lock()
    got: list[Partial] = []
    failed: list[BaseException] = []

    def take() -> None:
        gate.wait()
        try:
            mine = reserve(tmp_path)
        except BaseException as error:
            failed.append(error)
        else:
            with lock:
                got.append(mine)

    threads = [threading.Thread(target=take) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len({each.path for each in got}) == count
    for each in got:
        each.write_at(0, DATA)
    assert {each.seal(SHA).sha256 for each in got} == {SHA}
    assert not list((tmp_path / "partial").iterdir())


def test_what_was_refused_leaves_its_name_free(tmp_path: Path) -> None:
    from registry.errors import NoSpace

    with pytest.raises(NoSpace):
        reserve(tmp_path, size=1 << 60)
    with reserve(tmp_path) as mine:
        assert mine.path.name == f"{SHA}.{host_name()}.{os.getpid()}.part"


@pytest.mark.parametrize("step", ["link", "rename", "unlink"])
def test_a_take_over_that_ends_in_the_middle_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As if killed right after one of its steps."""
    left_behind(tmp_path, host_name(), NOBODY)
    where, name = (os, "link") if step == "link" else (Path, step)
    real = getattr(where, name)

    def then_die(*args: object, **more: object) -> None:
        real(*args, **more)
        if "missing_ok" not in more:  # that removal comes before the first step
            raise KeyboardInterrupt

    monkeypatch.setattr(where, name, then_die)
    with pytest.raises(KeyboardInterrupt):
        reserve(tmp_path)
    monkeypatch.undo()
    with reserve(tmp_path) as mine:
        assert mine.received == len(DATA) // 2


def test_journals_follow_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(tmp_path, host_name(), NOBODY)

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    with reserve(tmp_path) as mine:
        assert mine.received == len(DATA) // 2
    assert len(list((tmp_path / "partial").iterdir())) == 2


def test_somebody_who_looks_at_an_abandoned_partial_does_not_hide_it(tmp_path: Path) -> None:
    path = left_behind(tmp_path, host_name(), NOBODY)
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with reserve(tmp_path) as mine:
            assert mine.received == len(DATA) // 2


def test_those_who_only_look_do_not_take_each_other_for_the_owner(tmp_path: Path) -> None:
    path = left_behind(tmp_path, host_name(), NOBODY)
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert holder(tmp_path / "partial", sha256=SHA, key=None) is None


# --- machines that share a folder -------------------------------------------------------------------------------------


def test_another_machine_s_fresh_partial_is_left_alone_and_an_old_one_taken(tmp_path: Path) -> None:
    fresh = left_behind(tmp_path, "nas-two", 7)
    with reserve(tmp_path) as mine:
        assert mine.received == 0
    assert fresh.exists()
    os.utime(fresh, (1, 1))
    with reserve(tmp_path) as mine:
        assert mine.received == len(DATA) // 2


def test_a_clock_that_is_ahead_of_the_nas_takes_nothing_from_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = left_behind(tmp_path, "nas-two", 7)
    real = time.time
    monkeypatch.setattr("registry.partial.time.time", lambda: real() + 3600)
    with reserve(tmp_path) as mine:
        assert mine.received == 0
    assert fresh.exists()


def test_another_machine_s_lock_counts_whatever_the_dates_say(tmp_path: Path) -> None:
    path = left_behind(tmp_path, "nas-two", 7, age=10 * 86400)
    with path.open("rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        assert stale(tmp_path / "partial", older_than=86400, now=time.time()) == []
        who = holder(tmp_path / "partial", sha256=SHA, key=None)
    assert who is not None
    assert (who.host, who.pid) == ("nas-two", 7)
    assert stale(tmp_path / "partial", older_than=86400, now=time.time()) == [path]


def test_bytes_somebody_put_in_our_place_get_no_name(tmp_path: Path) -> None:
    """Where locks do not reach, another process may take over a partial whose owner is alive."""
    with reserve(tmp_path) as mine:
        mine.write_at(0, DATA)
        other = tmp_path / "other"
        other.write_bytes(bytes(len(DATA)))
        other.replace(mine.path)
        with pytest.raises(Busy):
            mine.seal(SHA)
        with pytest.raises(Busy):
            mine.checkpoint()
    assert not list((tmp_path / "blobs").rglob("*"))


def test_a_container_of_the_same_name_and_number_keeps_its_file(tmp_path: Path) -> None:
    """Containers that share a folder often share host name and process number too."""
    folder = tmp_path / "partial"
    with reserve(tmp_path) as mine:
        mine.write_at(0, DATA[:1000])
        taken = mine.path
        with partial._OPEN_LOCK:  # as another process sees it, which does not know what is open in this one
            partial._OPEN.discard(taken)
        with reserve(tmp_path) as second:
            assert second.path != taken
            second.write_at(0, DATA)
            assert second.seal(SHA).size == len(DATA)
        assert taken.exists()
        assert folder.exists()
