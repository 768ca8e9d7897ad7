"""Migrations: named functions, applied in order, each in one transaction with the record that it ran.

A new index is made from `registry.tables` in one go; these bring an older one to the same place, so each stays as it
was on the day it was written. A database with a name we do not know was written by a newer hubctl and is refused.
Before the first change an existing database is copied to `index.backup.db`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from registry.errors import TooNew
from registry.manifest import now

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: list[Migration] = []
FACTS = ("user_note", "ui", "link", "sidecar", "ignored", "lock_root", "queue", "run")
"""Tables that hold what is found nowhere else: every change of a row is also a line of facts.jsonl."""


def migration(function: Migration) -> Migration:
    MIGRATIONS.append(function)
    return function


@migration
def m001_tables(connection: sqlite3.Connection) -> None:
    """Versions, files, hashes, images, runs, notes, links."""
    for statement in _M001.split(";"):
        if statement.strip():
            connection.execute(statement)


_M001 = """
CREATE TABLE file_hash (
    value VARCHAR NOT NULL, source VARCHAR NOT NULL, version_id INTEGER NOT NULL, file_id INTEGER NOT NULL,
    kind VARCHAR NOT NULL, PRIMARY KEY (value, source, version_id, file_id, kind));
CREATE TABLE image (
    source VARCHAR NOT NULL, image_id INTEGER NOT NULL, version_id INTEGER NOT NULL, position INTEGER NOT NULL,
    raw VARCHAR NOT NULL, PRIMARY KEY (source, image_id));
CREATE INDEX ix_image_version_id ON image (version_id);
CREATE TABLE installed_file (
    source VARCHAR NOT NULL, version_id INTEGER NOT NULL, file_id INTEGER NOT NULL, name VARCHAR NOT NULL,
    stem VARCHAR NOT NULL, role VARCHAR, sha256 VARCHAR NOT NULL, size INTEGER NOT NULL, path VARCHAR NOT NULL,
    facts VARCHAR, PRIMARY KEY (source, version_id, file_id));
CREATE INDEX ix_installed_file_sha256 ON installed_file (sha256);
CREATE INDEX ix_installed_file_stem ON installed_file (stem);
CREATE TABLE link (
    path VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, source VARCHAR NOT NULL, version_id INTEGER NOT NULL,
    layout VARCHAR NOT NULL, kind VARCHAR NOT NULL, created_at VARCHAR NOT NULL, PRIMARY KEY (path));
CREATE INDEX ix_link_sha256 ON link (sha256);
CREATE TABLE migration (name VARCHAR NOT NULL, applied_at VARCHAR NOT NULL, PRIMARY KEY (name));
CREATE TABLE model_version (
    source VARCHAR NOT NULL, version_id INTEGER NOT NULL, model_id INTEGER NOT NULL, name VARCHAR NOT NULL,
    model_name VARCHAR NOT NULL, type VARCHAR, base_model VARCHAR, creator VARCHAR, trigger_words VARCHAR NOT NULL,
    settings VARCHAR, explicit BOOLEAN NOT NULL, installed_at VARCHAR NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (source, version_id));
CREATE INDEX ix_model_version_base_model ON model_version (base_model);
CREATE INDEX ix_model_version_creator ON model_version (creator);
CREATE INDEX ix_model_version_model_id ON model_version (model_id);
CREATE INDEX ix_model_version_model_name ON model_version (model_name);
CREATE INDEX ix_model_version_type ON model_version (type);
CREATE TABLE queue (ref VARCHAR NOT NULL, added_at VARCHAR NOT NULL, PRIMARY KEY (ref));
CREATE TABLE run (
    id INTEGER NOT NULL, created_at VARCHAR NOT NULL, image_id INTEGER, output VARCHAR NOT NULL, similarity FLOAT,
    device VARCHAR NOT NULL, seconds FLOAT NOT NULL, "plan" VARCHAR NOT NULL, versions VARCHAR NOT NULL,
    used VARCHAR NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_run_image_id ON run (image_id);
CREATE TABLE search_doc (
    id INTEGER NOT NULL, source VARCHAR NOT NULL, version_id INTEGER NOT NULL, name VARCHAR NOT NULL,
    trigger_words VARCHAR NOT NULL, tags VARCHAR NOT NULL, creator VARCHAR NOT NULL, description VARCHAR NOT NULL,
    PRIMARY KEY (id));
CREATE INDEX ix_search_doc_source ON search_doc (source);
CREATE INDEX ix_search_doc_version_id ON search_doc (version_id);
CREATE TABLE state ("key" VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE user_note (
    source VARCHAR NOT NULL, version_id INTEGER NOT NULL, pinned BOOLEAN NOT NULL, notes VARCHAR, words VARCHAR,
    weight FLOAT, tags VARCHAR, last_used_at VARCHAR, PRIMARY KEY (source, version_id));
"""


@migration
def m002_full_text(connection: sqlite3.Connection) -> None:
    """External-content FTS5 over search_doc, kept by triggers. `_` is a letter: trigger words look like my_char_v2."""
    columns = "name, trigger_words, tags, creator, description"
    connection.execute(
        f"CREATE VIRTUAL TABLE search_fts USING fts5({columns}, content='search_doc', content_rowid='id', "
        "prefix='2 3', tokenize=\"unicode61 remove_diacritics 2 tokenchars '_'\")"
    )
    new = ", ".join(f"new.{c.strip()}" for c in columns.split(","))
    old = ", ".join(f"old.{c.strip()}" for c in columns.split(","))
    insert = f"INSERT INTO search_fts(rowid, {columns}) VALUES (new.id, {new});"
    delete = f"INSERT INTO search_fts(search_fts, rowid, {columns}) VALUES ('delete', old.id, {old});"
    connection.execute(f"CREATE TRIGGER search_doc_ai AFTER INSERT ON search_doc BEGIN {insert} END")
    connection.execute(f"CREATE TRIGGER search_doc_ad AFTER DELETE ON search_doc BEGIN {delete} END")
    connection.execute(f"CREATE TRIGGER search_doc_au AFTER UPDATE ON search_doc BEGIN {delete} {insert} END")


@migration
def m003_library(connection: sqlite3.Connection) -> None:
    """What lists and `du` need in the rows, UI folders and what is known of files outside, and the facts journal."""
    for statement in _M003.split(";"):
        if statement.strip():
            connection.execute(statement)
    journal_triggers(connection)
    for table in FACTS:  # facts said before there was a journal
        connection.execute(f"INSERT INTO outbox(line) SELECT {_as_line(connection, table, '')} FROM {table}")
    connection.execute("DELETE FROM state WHERE key = 'generation'")  # every manifest is read again


_M003 = """
ALTER TABLE model_version ADD COLUMN name_key VARCHAR;
ALTER TABLE model_version ADD COLUMN tags VARCHAR;
ALTER TABLE model_version ADD COLUMN summary VARCHAR;
ALTER TABLE model_version ADD COLUMN stamp VARCHAR;
ALTER TABLE model_version ADD COLUMN sole_files INTEGER;
ALTER TABLE model_version ADD COLUMN sole_size INTEGER;
ALTER TABLE model_version ADD COLUMN sole_disk INTEGER;
ALTER TABLE model_version ADD COLUMN sole_linked INTEGER;
ALTER TABLE model_version ADD COLUMN sole_elsewhere INTEGER;
CREATE INDEX ix_model_version_name_key ON model_version (name_key);
CREATE INDEX ix_model_version_version_id ON model_version (version_id);
ALTER TABLE installed_file ADD COLUMN placed VARCHAR;
CREATE INDEX ix_installed_file_name ON installed_file (name COLLATE NOCASE);
CREATE INDEX ix_file_hash_version_id ON file_hash (version_id);
DROP INDEX ix_search_doc_source;
ALTER TABLE link ADD COLUMN inode INTEGER;
ALTER TABLE link ADD COLUMN ui VARCHAR;
CREATE INDEX ix_link_ui ON link (ui);
CREATE INDEX ix_link_version_id ON link (version_id);
CREATE TABLE blob (
    sha256 VARCHAR NOT NULL, size INTEGER NOT NULL, allocated INTEGER NOT NULL, links INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, verified_at VARCHAR, PRIMARY KEY (sha256));
CREATE TABLE ui (
    name VARCHAR NOT NULL, layout VARCHAR NOT NULL, root VARCHAR NOT NULL, kind VARCHAR NOT NULL, template VARCHAR,
    sidecars VARCHAR, added_at VARCHAR NOT NULL, PRIMARY KEY (name));
CREATE TABLE sidecar (path VARCHAR NOT NULL, written VARCHAR NOT NULL, PRIMARY KEY (path));
CREATE TABLE scan (
    path VARCHAR NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    device INTEGER NOT NULL, sha256 VARCHAR, autov1 VARCHAR, autov3 VARCHAR, facts VARCHAR, source VARCHAR,
    version_id INTEGER, checked_at VARCHAR NOT NULL, PRIMARY KEY (path));
CREATE INDEX ix_scan_sha256 ON scan (sha256);
CREATE INDEX ix_scan_size ON scan (size);
CREATE TABLE ignored (
    source VARCHAR NOT NULL, model_id INTEGER NOT NULL, version_id INTEGER NOT NULL,
    PRIMARY KEY (source, model_id, version_id));
CREATE TABLE lock_root (path VARCHAR NOT NULL, added_at VARCHAR NOT NULL, PRIMARY KEY (path));
CREATE TABLE moved (sha256 VARCHAR NOT NULL, PRIMARY KEY (sha256));
CREATE TABLE outbox (id INTEGER NOT NULL, line VARCHAR NOT NULL, PRIMARY KEY (id));
"""


def journal_triggers(connection: sqlite3.Connection) -> None:
    """(Re)make the triggers that put each change of a fact into the outbox. Run again when a fact gets a column.

    Those on `link` also say which blobs got or lost a name.
    """
    for table in FACTS:
        put, gone = _as_line(connection, table, "new."), _as_line(connection, table, "old.", gone=True)
        for event, line in (("INSERT", put), ("UPDATE", put), ("DELETE", gone)):
            connection.execute(f"DROP TRIGGER IF EXISTS {table}_fact_{event.lower()}")
            connection.execute(
                f"CREATE TRIGGER {table}_fact_{event.lower()} AFTER {event} ON {table} "
                f"BEGIN INSERT INTO outbox(line) VALUES ({line}); END"
            )
    for event, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")):  # OR IGNORE is lost in an upsert
        connection.execute(f"DROP TRIGGER IF EXISTS link_moved_{event.lower()}")
        connection.execute(
            f"CREATE TRIGGER link_moved_{event.lower()} AFTER {event} ON link "
            f"BEGIN INSERT INTO moved SELECT {row}.sha256 WHERE {row}.sha256 NOT IN (SELECT sha256 FROM moved); END"
        )


def _as_line(connection: sqlite3.Connection, table: str, row: str, *, gone: bool = False) -> str:
    """SQL for one row as a line of facts.jsonl: `{"put": table, …}` or `{"gone": table, key…}`."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    kept = [c[1] for c in columns if (c[5] or not gone) and (table, c[1]) != ("run", "plan")]  # a run's record has it
    pairs = ", ".join(f"""'{name}', {row}"{name}\"""" for name in kept)
    return f"json_object('{'gone' if gone else 'put'}', '{table}', {pairs})"


def applied(connection: sqlite3.Connection) -> set[str]:
    try:
        return {row[0] for row in connection.execute("SELECT name FROM migration")}
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return set()
        raise


def pending(connection: sqlite3.Connection) -> list[Migration]:
    """What is still to be applied. Raises TooNew."""
    done = applied(connection)
    unknown = done - {function.__name__ for function in MIGRATIONS}
    if unknown:
        raise TooNew(f"the index was written by a newer hubctl (it knows `{sorted(unknown)[-1]}`)")
    return [function for function in MIGRATIONS if function.__name__ not in done]


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a database up to date, or make a new one. Several processes may try at once."""
    todo = pending(connection)
    if len(todo) == len(MIGRATIONS):
        _in_one_go(connection, _create)
        return
    if todo:
        _back_up(connection, path)
    for function in todo:
        _in_one_go(connection, function)


def _in_one_go(connection: sqlite3.Connection, function: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if function.__name__ not in applied(connection):  # another process may have been faster
            function(connection)
            if function is not _create:
                _record(connection, function)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _create(connection: sqlite3.Connection) -> None:
    """A new index, as `registry.tables` has it."""
    if applied(connection):
        return
    from registry.tables import create_statements

    for statement in create_statements():
        connection.execute(statement)
    m002_full_text(connection)
    journal_triggers(connection)
    for function in MIGRATIONS:
        _record(connection, function)


def _record(connection: sqlite3.Connection, function: Migration) -> None:
    connection.execute("INSERT INTO migration(name, applied_at) VALUES (?, ?)", (function.__name__, now()))


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    """A copy beside; made under a name of its own, since another process may be doing the same."""
    beside = path.with_name(f"index.backup.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    connection.execute("VACUUM INTO ?", (str(beside),))
    beside.replace(path.with_name("index.backup.db"))
