"""Connections to `index.db`: WAL, foreign keys, a patient busy handler; writers begin immediately.

Default transactions of Python's sqlite3 start as readers: four processes doing read-modify-write lose most of their
updates without an error. `BEGIN IMMEDIATE` is what prevents it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from registry.ballast import has_room
from registry.errors import Busy, NoPermission, NoSpace, NotFound, VerificationFailed
from registry.migrations import migrate, pending

WAIT_MS = 30_000


class DamagedIndex(VerificationFailed):
    """SQLite cannot read it."""

    def __init__(self, error: sqlite3.DatabaseError, path: Path | str = "index.db") -> None:
        super().__init__(
            f"the index {path} is damaged: {error}", hint="`hubctl reindex` makes it anew from the manifests"
        )


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open (and where needed make or migrate) the index. Raises NoPermission, TooNew, NotFound, VerificationFailed."""
    if read_only and not path.exists():
        raise NotFound(f"there is no library in {path.parent}", hint="it is made with the first `hubctl install`")
    try:
        connection = _open(path, "ro" if read_only else "rwc")
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            migrate(connection, path)
        elif pending(connection):
            connection.close()
            connect(path).close()  # a reader may bring an older index up to date, where it may write
            return connect(path, read_only=True)
    except sqlite3.OperationalError as error:
        raise _named(error, path) from None
    except sqlite3.DatabaseError as error:
        raise DamagedIndex(error, path) from None
    return connection


@contextmanager
def legible() -> Iterator[None]:
    """What is read in here is as SQLite wrote it. Raises DamagedIndex."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if type(error) is sqlite3.DatabaseError:  # the others are about what was asked
            raise DamagedIndex(error) from error
        raise


def in_memory(path: Path) -> sqlite3.Connection:
    """A database that is not on disk, with what the one at `path` holds if there is one."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if path.exists():
        with contextlib.closing(_open(path, "ro")) as there:
            there.backup(connection)
    connection.row_factory = sqlite3.Row
    return connection


def _open(path: Path, mode: str) -> sqlite3.Connection:
    connection = _connection(path, f"mode={mode}")
    if mode == "ro":
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:  # a folder that may only be read has no room for WAL's own files
            connection.close()
            connection = _connection(path, "mode=ro&immutable=1")
    return connection


def _connection(path: Path, options: str) -> sqlite3.Connection:
    name = quote(str(path))  # `#`, `?` and `%` are letters of a folder's name here
    connection = sqlite3.connect(
        f"file:{name}?{options}", uri=True, isolation_level=None, check_same_thread=False, timeout=WAIT_MS / 1000
    )
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout={WAIT_MS}")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _named(error: sqlite3.OperationalError, path: Path | str = "index.db") -> Exception:
    text = str(error)
    is_io = "disk I/O error" in text  # also what SQLite says where there is no room for WAL's own files
    if "full" in text or (is_io and not has_room(Path(path).parent)):
        return NoSpace("the disk is full: the index could not be written")
    if is_io:  # nothing is known of the index: it stays where it is
        return NoPermission(
            f"the index {path} cannot be read or written: {text}", hint="is the disk failing, or was it unplugged?"
        )
    if "readonly" in text or "unable to open" in text or "read-only" in text:
        return NoPermission(
            f"the index {path} cannot be opened for writing", hint="check who owns the folder, or use --home"
        )
    if "locked" in text:
        return Busy(f"the index {path} is in use by another process", hint="wait a moment and try again")
    return VerificationFailed(f"the index {path} cannot be used: {text}", hint="`hubctl reindex` makes it anew")


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One write transaction. Raises Busy, NoSpace, NoPermission, DamagedIndex."""
    try:
        with legible():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk ends it by itself
                    connection.execute("ROLLBACK")
                raise
    except sqlite3.OperationalError as error:
        raise _named(error) from error
