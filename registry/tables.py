"""The schema, once. A new index is created from these; reads and writes are plain SQL, since importing an ORM costs
more than any query here. An older index is brought here by `registry.migrations`; a test holds that both ways agree.

    derived from manifests and blobs      model_version  installed_file  file_hash  search_doc  image  blob
    derived from folders outside          scan
    said by the user (`registry.facts`)   user_note  ui  link  sidecar  ignored  lock_root  queue  run
    of the database itself                state  migration  outbox  moved
"""

from __future__ import annotations

from sqlmodel import Field, Index, SQLModel, text


class ModelVersionRow(SQLModel, table=True):
    __tablename__ = "model_version"
    source: str = Field(primary_key=True)
    version_id: int = Field(primary_key=True, index=True)
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
    name_key: str | None = Field(default=None, index=True)  # model_name casefolded
    tags: str | None = None  # JSON list
    summary: str | None = None  # JSON: what lists show besides
    stamp: str | None = None  # mtime and size of the manifest these rows were read from
    # of its blobs that no other version uses, so that `du` can add versions up (`registry.usage`)
    sole_files: int | None = None
    sole_size: int | None = None
    sole_disk: int | None = None  # allocated
    sole_linked: int | None = None  # of that: nobody but UI folders of ours shows it
    sole_elsewhere: int | None = None  # of that: has names hubctl did not make


class InstalledFileRow(SQLModel, table=True):
    __tablename__ = "installed_file"
    __table_args__ = (Index("ix_installed_file_name", text("name COLLATE NOCASE")),)
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
    placed: str | None = None  # hardlink · symlink · copy: how `path` shows the blob


class BlobRow(SQLModel, table=True):
    """What `stat` said when the blob was last looked at."""

    __tablename__ = "blob"
    sha256: str = Field(primary_key=True)
    size: int
    allocated: int
    links: int  # names of the inode
    mtime_ns: int
    verified_at: str | None = None  # its bytes were last read and found right


class FileHashRow(SQLModel, table=True):
    __tablename__ = "file_hash"
    value: str = Field(primary_key=True)  # lower-case hex
    source: str = Field(primary_key=True)
    version_id: int = Field(primary_key=True, index=True)
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
    version_id: int = Field(index=True)
    layout: str
    kind: str
    created_at: str
    inode: int | None = None
    ui: str | None = Field(default=None, index=True)  # name in `ui`


class UiRow(SQLModel, table=True):
    """A UI folder that shows what is installed."""

    __tablename__ = "ui"
    name: str = Field(primary_key=True)
    layout: str
    root: str
    kind: str  # auto · reflink · hardlink · symlink · copy
    template: str | None = None
    sidecars: str | None = None  # which to write
    added_at: str


class SidecarRow(SQLModel, table=True):
    """What was written last beside a linked file: what differs from it was edited by hand and stays."""

    __tablename__ = "sidecar"
    path: str = Field(primary_key=True)
    written: str  # JSON


class ScanRow(SQLModel, table=True):
    """A file outside the store that was looked at: unchanged while size, mtime and inode are."""

    __tablename__ = "scan"
    path: str = Field(primary_key=True)
    size: int = Field(index=True)
    mtime_ns: int
    inode: int
    device: int
    sha256: str | None = Field(default=None, index=True)
    autov1: str | None = None
    autov3: str | None = None
    facts: str | None = None  # JSON
    source: str | None = None
    version_id: int | None = None
    checked_at: str


class IgnoredRow(SQLModel, table=True):
    """Updates the user does not want to hear of; version 0 is the whole model."""

    __tablename__ = "ignored"
    source: str = Field(primary_key=True)
    model_id: int = Field(primary_key=True)
    version_id: int = Field(primary_key=True, default=0)


class QueueRow(SQLModel, table=True):
    __tablename__ = "queue"
    ref: str = Field(primary_key=True)
    added_at: str


class SearchDocRow(SQLModel, table=True):
    __tablename__ = "search_doc"
    id: int | None = Field(default=None, primary_key=True)
    source: str
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


class LockRootRow(SQLModel, table=True):
    """A hubctl.lock somewhere: what it names is not pruned."""

    __tablename__ = "lock_root"
    path: str = Field(primary_key=True)
    added_at: str


class MovedRow(SQLModel, table=True):
    """Blobs whose links changed in this transaction: they are measured again before it commits."""

    __tablename__ = "moved"
    sha256: str = Field(primary_key=True)


class OutboxRow(SQLModel, table=True):
    """Lines on their way to facts.jsonl, put here by triggers in the transaction that changed a fact."""

    __tablename__ = "outbox"
    id: int | None = Field(default=None, primary_key=True)
    line: str


def create_statements() -> list[str]:
    """The schema as SQLite statements."""
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

    dialect = sqlite.dialect()
    out = []
    for table in SQLModel.metadata.sorted_tables:
        out.append(str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)))
        out += [
            str(CreateIndex(i, if_not_exists=True).compile(dialect=dialect))
            for i in sorted(table.indexes, key=lambda i: str(i.name))
        ]
    return out
