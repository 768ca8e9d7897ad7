"""The schema, once. Tables are created from these; reads and writes are plain SQL in `registry.index`, since importing
an ORM costs more than any query here.

Only `run`, `user_note`, `link` and `queue` hold facts found nowhere else; the rest is rebuilt from manifests.
"""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class ModelVersionRow(SQLModel, table=True):
    __tablename__ = "model_version"
    source: str = Field(primary_key=True)
    version_id: int = Field(primary_key=True)
    model_id: int = Field(index=True)
    name: str
    model_name: str = Field(index=True)
    type: str | None = Field(default=None, index=True)
    base_model: str | None = Field(default=None, index=True)
    creator: str | None = Field(default=None, index=True)
    trigger_words: str = "[]"  # JSON list, ready to paste
    settings: str | None = None  # JSON
    explicit: bool = True
    installed_at: str
    size: int = 0  # bytes of its files


class InstalledFileRow(SQLModel, table=True):
    __tablename__ = "installed_file"
    source: str = Field(primary_key=True)
    version_id: int = Field(primary_key=True)
    file_id: int = Field(primary_key=True)
    name: str
    stem: str = Field(index=True)  # casefolded
    role: str | None = None
    sha256: str = Field(index=True)
    size: int
    path: str  # below the home
    facts: str | None = None  # JSON


class FileHashRow(SQLModel, table=True):
    __tablename__ = "file_hash"
    value: str = Field(primary_key=True)  # lower-case hex
    source: str = Field(primary_key=True)
    version_id: int = Field(primary_key=True)
    file_id: int = Field(primary_key=True)
    kind: str = Field(primary_key=True)


class ImageRow(SQLModel, table=True):
    __tablename__ = "image"
    source: str = Field(primary_key=True)
    image_id: int = Field(primary_key=True)
    version_id: int = Field(index=True)
    position: int
    raw: str  # JSON


class UserNoteRow(SQLModel, table=True):
    __tablename__ = "user_note"
    source: str = Field(primary_key=True)
    version_id: int = Field(primary_key=True)
    pinned: bool = False
    notes: str | None = None
    words: str | None = None  # JSON list: own trigger words win over the hub's
    weight: float | None = None
    tags: str | None = None
    last_used_at: str | None = None


class RunRow(SQLModel, table=True):
    __tablename__ = "run"
    id: int | None = Field(default=None, primary_key=True)
    created_at: str
    image_id: int | None = Field(default=None, index=True)
    output: str
    similarity: float | None = None
    device: str
    seconds: float
    plan: str  # JSON
    versions: str  # JSON: which libraries
    used: str  # JSON list of version ids


class LinkRow(SQLModel, table=True):
    __tablename__ = "link"
    path: str = Field(primary_key=True)
    sha256: str = Field(index=True)
    source: str
    version_id: int
    layout: str
    kind: str
    created_at: str


class QueueRow(SQLModel, table=True):
    __tablename__ = "queue"
    ref: str = Field(primary_key=True)
    added_at: str


class SearchDocRow(SQLModel, table=True):
    __tablename__ = "search_doc"
    id: int | None = Field(default=None, primary_key=True)
    source: str = Field(index=True)
    version_id: int = Field(index=True)
    name: str
    trigger_words: str
    tags: str
    creator: str
    description: str


class MigrationRow(SQLModel, table=True):
    __tablename__ = "migration"
    name: str = Field(primary_key=True)
    applied_at: str


class StateRow(SQLModel, table=True):
    __tablename__ = "state"
    key: str = Field(primary_key=True)
    value: str


def create_statements() -> list[str]:
    """The schema as SQLite statements."""
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

    dialect = sqlite.dialect()
    out = []
    for table in SQLModel.metadata.sorted_tables:
        out.append(str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)))
        out += [
            str(CreateIndex(i, if_not_exists=True).compile(dialect=dialect)) for i in sorted(table.indexes, key=str)
        ]
    return out
