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
_SCHEMA: Final = frozenset(
    {
        ("table", "Cache"),
        ("table", "Settings"),
        ("index", "Cache_key_raw"),
        ("index", "Cache_expire_time"),
        ("index", "Cache_store_time"),
        ("index", "Cache_tag_rowid"),
        ("index", "sqlite_autoindex_Settings_1"),
        ("trigger", "Settings_count_insert"),
        ("trigger", "Settings_count_delete"),
        ("trigger", "Settings_size_insert"),
        ("trigger", "Settings_size_update"),
        ("trigger", "Settings_size_delete"),
    }
)


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
    names = set(connection.execute("SELECT type, name FROM sqlite_master").fetchall())
    if names != _SCHEMA:
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
