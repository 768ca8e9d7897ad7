"""What the user said, kept where deleting the index cannot lose it.

    facts.jsonl     one line a change, newest last:   {"put": "user_note", "source": "civitai", "version_id": 11, …}
                                                      {"gone": "link", "path": "/ui/loras/a.safetensors"}

Notes, pins, last uses, UI folders, links, ignored updates and runs are rows of the index and nowhere else in it, so
triggers write each change of them to `outbox`, and the transaction that made the change appends those lines to the
file before it commits. Replaying the file gives the tables back. A line cut off by a power failure is skipped.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry.fs import write_atomic
from registry.migrations import FACTS, _as_line

logger = logging.getLogger(__name__)
LARGE = 4_000_000  # bytes; a longer journal is rewritten when it is mostly history


def path_of(home: Path) -> Path:
    return home / "facts.jsonl"


def flush(db: sqlite3.Connection, home: Path) -> None:
    """Append what this transaction changed. Called inside it, just before it commits."""
    lines = [row[0] for row in db.execute("SELECT line FROM outbox ORDER BY id")]
    if not lines:
        return
    handle = os.open(path_of(home), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        _end_line(handle)
        data = "".join(f"{line}\n" for line in lines).encode()
        while data:
            data = data[os.write(handle, data) :]
        size = os.fstat(handle).st_size
    finally:
        os.close(handle)
    db.execute("DELETE FROM outbox")
    if size > LARGE and size > 4 * _compact_size(db):
        compact(db, home)


def _end_line(handle: int) -> None:
    """Close a line that a kill or a full disk cut off, so that ours begins a new one."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.write(handle, b"\n")


def _compact_size(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM state WHERE key = 'facts_size'").fetchone()
    return int(row[0]) if row else 0


def compact(db: sqlite3.Connection, home: Path) -> None:
    """Rewrite the journal as the present state, without history."""
    text = "".join(
        f"{row[0]}\n" for table in FACTS for row in db.execute(f"SELECT {_as_line(db, table, '')} FROM {table}")
    )
    data = text.encode()
    write_atomic(path_of(home), data)
    db.execute("DELETE FROM outbox")  # the lines are in what was just written
    db.execute("INSERT OR REPLACE INTO state VALUES ('facts_size', ?)", (str(len(data)),))


def replay(db: sqlite3.Connection, home: Path) -> int:
    """Put the facts of the journal into the tables; returns how many lines were read."""
    count = 0
    columns = {table: [c[1] for c in db.execute(f"PRAGMA table_info({table})")] for table in FACTS}
    for fact in _read(home):
        table = str(fact.get("put") or fact.get("gone"))
        if table not in columns:
            continue
        known = {name: value for name, value in fact.items() if name in columns[table]}
        try:
            _apply(db, table, known, gone="gone" in fact)
        except sqlite3.Error as error:  # one odd line costs one fact
            logger.warning("a line of facts.jsonl was skipped: %s", error)
        count += 1
    db.execute("DELETE FROM outbox")  # what was just read needs no second line
    return count


def _read(home: Path) -> Iterator[dict[str, Any]]:
    try:
        file = path_of(home).open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                fact = json.loads(line)
            except ValueError:
                continue
            if isinstance(fact, dict):
                yield fact


def _apply(db: sqlite3.Connection, table: str, row: dict[str, Any], *, gone: bool) -> None:
    if gone:
        where = " AND ".join(f'"{name}" = ?' for name in row)
        if where:
            db.execute(f"DELETE FROM {table} WHERE {where}", tuple(row.values()))
        return
    if table == "run":
        row["plan"] = _plan_beside(row.get("output"))
    names = ", ".join(f'"{name}"' for name in row)
    db.execute(f"INSERT OR REPLACE INTO {table}({names}) VALUES ({','.join('?' * len(row))})", tuple(row.values()))


def _plan_beside(output: Any) -> str:
    """A run's plan, from the record written beside its picture."""
    try:
        record = json.loads(Path(str(output)).with_suffix(".json").read_bytes())
        return json.dumps(record["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return "{}"
