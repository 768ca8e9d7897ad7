"""Migrations: named functions, applied in order, each in one transaction with the record that it ran.

A database with a name we do not know was written by a newer hubctl and is refused. Before the first change to an
existing database it is copied to `index.backup.db`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from registry.errors import TooNew
from registry.manifest import now

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: list[Migration] = []


def migration(function: Migration) -> Migration:
    MIGRATIONS.append(function)
    return function


@migration
def m001_tables(connection: sqlite3.Connection) -> None:
    """The tables of `registry.tables`."""
    from registry.tables import create_statements

    for statement in create_statements():
        connection.execute(statement)


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


def applied(connection: sqlite3.Connection) -> set[str]:
    try:
        return {row[0] for row in connection.execute("SELECT name FROM migration")}
    except sqlite3.OperationalError:
        return set()


def pending(connection: sqlite3.Connection) -> list[Migration]:
    """What is still to be applied. Raises TooNew."""
    done = applied(connection)
    unknown = done - {function.__name__ for function in MIGRATIONS}
    if unknown:
        raise TooNew(f"the index was written by a newer hubctl (it knows `{sorted(unknown)[-1]}`)")
    return [function for function in MIGRATIONS if function.__name__ not in done]


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a database up to date."""
    todo = pending(connection)
    if todo and applied(connection):
        backup = path.with_name("index.backup.db")
        backup.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(backup),))
    for function in todo:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if function.__name__ not in applied(connection):  # another process may have been faster
                function(connection)
                connection.execute("INSERT INTO migration(name, applied_at) VALUES (?, ?)", (function.__name__, now()))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
