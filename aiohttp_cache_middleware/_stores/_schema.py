"""What the database of a store is like, and whether one that is found is; it is known without `diskcache`."""

from __future__ import annotations

import sqlite3
from typing import Final

from ._faults import DamagedError

MAX_RECORD: Final = 1024 * 1024
"""Bytes beyond which a record is none of ours, and is not even read."""
PAGE_SIZE: Final = 2048
"""Bytes per database page: a record of 2 KB wastes most of a page of 4 KB, and reading is as fast."""
SETTINGS: Final[dict[str, int | str]] = {
    "statistics": 0,  # counting hits would make every read a write
    "tag_index": 1,
    "eviction_policy": "least-recently-stored",
    "size_limit": 2**62,  # the limit is ours: see `Records.write`
    "cull_limit": 0,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2048,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,  # a file truncated under a mapping kills the process (SIGBUS)
    "sqlite_synchronous": 1,
    "sqlite_trusted_schema": 0,
    "disk_min_file_size": 2**62,
    "disk_pickle_protocol": 0,
}
"""What `diskcache` is told on every open: what is missing it would take from the table in the file."""

_COUNTERS: Final = frozenset({"count", "size", "hits", "misses"})
_SCALED: Final = frozenset({"sqlite_journal_size_limit", "sqlite_wal_autocheckpoint"})
_CACHE: Final = (
    "CREATE TABLE Cache ( rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, expire_time REAL,"
    " access_time REAL, access_count INTEGER DEFAULT 0, tag BLOB, size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0,"
    " filename TEXT, value BLOB)"
)


def _trigger(name: str, event: str, change: str, counter: str) -> str:
    what = f'UPDATE Settings SET value = value {change} WHERE key = "{counter}"'  # noqa: S608 (of what is below)
    return f"CREATE TRIGGER {name} AFTER {event} ON Cache FOR EACH ROW BEGIN {what}; END"


_SCHEMA: Final = {
    ("table", "Cache"): _CACHE,
    ("table", "Settings"): "CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)",
    ("index", "Cache_key_raw"): "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)",
    ("index", "Cache_expire_time"): "CREATE INDEX Cache_expire_time ON Cache (expire_time)",
    ("index", "Cache_store_time"): "CREATE INDEX Cache_store_time ON Cache (store_time)",
    ("index", "Cache_tag_rowid"): "CREATE INDEX Cache_tag_rowid ON Cache(tag, rowid)",
    ("index", "sqlite_autoindex_Settings_1"): "",
} | {
    ("trigger", name): _trigger(name, event, change, counter)
    for name, event, change, counter in (
        ("Settings_count_insert", "INSERT", "+ 1", "count"),
        ("Settings_count_delete", "DELETE", "- 1", "count"),
        ("Settings_size_insert", "INSERT", "+ NEW.size", "size"),
        ("Settings_size_update", "UPDATE", "+ NEW.size - OLD.size", "size"),
        ("Settings_size_delete", "DELETE", "- OLD.size", "size"),
    )
}
"""What `diskcache` makes, word by word: a trigger, or a column that is computed, runs whatever its name is."""


def wal_room(max_size: int | None) -> int:
    """Bytes set aside for the write-ahead log."""
    most = 4 * 1024 * 1024
    return most if max_size is None else max(32 * PAGE_SIZE, min(most, max_size // 32))


def check_schema(connection: sqlite3.Connection) -> None:
    """
    Look at a database before `diskcache` does, which would obey whatever its Settings table says.

    Raises:
        DamagedError: It has tables, triggers, views or settings that are not ours.
    """
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    if {(kind, name): " ".join((sql or "").split()) for kind, name, sql in rows} != _SCHEMA:
        raise DamagedError("database schema is not ours")
    found = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
    pinned = {key: found.pop(key, None) for key in SETTINGS}
    if pinned != SETTINGS or found.keys() != _COUNTERS | _SCALED:
        raise DamagedError("database settings are not ours")
    if not all(isinstance(value, int) for value in found.values()):
        raise DamagedError("database settings are not ours")
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    if page_size != PAGE_SIZE:
        raise DamagedError("database pages are not ours")
