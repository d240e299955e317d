"""
The rows: `diskcache` with everything taken out that trusts what it finds on disk.

Records are rows of mode 1 (the bytes in the row), large bodies rows of mode 2 (a file): a body's key is its id, its
tag the key of the record that it belongs to. Only the writer's thread comes here; what is read on a request's way
goes through connections of its own (`_database`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import diskcache

from ._bodies import BodyFile, body_name, is_body_name, remove_body_file
from ._directory import open_private
from ._faults import DamagedError, Refused
from ._rows import KEPT_STALE, Delete, Put, Touch
from ._schema import MAX_RECORD, PAGE_SIZE, SETTINGS, wal_room

Expired: TypeAlias = tuple[float, int]
"""Where a record is among those that expire: (what its row says of when, row)."""
Rewritten: TypeAlias = tuple[object, float | None] | None
"""What becomes of a record: (record, when it expires), or ``None`` to remove it."""
Place = TypeVar("Place")

IN_ROW: Final = 1  # diskcache's MODE_RAW
IN_FILE: Final = 2  # diskcache's MODE_BINARY
_ROWS_PER_ROUND: Final = 64  # looked at to make room
_ROWS_AT_ONCE: Final = 10_000  # removed in one transaction, where all are
_FUTURE: Final = 60.0  # seconds ahead of the clock beyond which what is dated there is of no use
# Each statement is a time at which this thread has to wait for the loop's to let go of the interpreter, and the loop's
# then for it: of 50 concurrent misses that took as long as all the rest that storing does.
_PUTS_PER_STATEMENT: Final = 32

# diskcache's counters, which triggers keep up.
_FIND_OFF: Final = (
    "SELECT key FROM Settings WHERE key = 'count' AND value IS NOT (SELECT COUNT(*) FROM Cache)"
    " OR key = 'size' AND value IS NOT (SELECT coalesce(sum(size), 0) FROM Cache)"
)
_PUT_RIGHT: Final = (
    "UPDATE Settings SET value = CASE key WHEN 'count' THEN (SELECT COUNT(*) FROM Cache)"
    " ELSE (SELECT coalesce(sum(size), 0) FROM Cache) END WHERE key IN ('count', 'size')"
)
_COLUMNS: Final = "key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value"
_ROW: Final = "(?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REPLACE: Final = (
    "ON CONFLICT (key, raw) DO UPDATE SET"
    " store_time = excluded.store_time, expire_time = excluded.expire_time, access_time = excluded.access_time,"
    " access_count = excluded.access_count, tag = excluded.tag, size = excluded.size, mode = excluded.mode,"
    " filename = excluded.filename, value = excluded.value"
)


class RawDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps text keys and bytes only, so that no planted row runs code or names a file elsewhere (CVE-2025-69872)."""

    def put(self, key: object) -> tuple[str, bool]:
        """Give the database's form of a key."""
        if not isinstance(key, str):
            raise Refused("key refused: not text")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Give a key back from the database's form; pickled ones are refused, not read."""
        if not raw or not isinstance(key, str):
            raise Refused("key refused: not text")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, str | None, bytes | None]:
        """Give the columns of a value: bytes stay in the row, a `BodyFile` is already where it belongs."""
        if isinstance(value, BodyFile):
            return value.size, IN_FILE, value.name, None
        if not isinstance(value, bytes) or read:
            raise Refused("value refused: not bytes")
        return 0, IN_ROW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> Any:
        """Give a value back from its columns; pickles, text and files outside the store are refused, not read."""
        if mode == IN_ROW and isinstance(value, bytes) and not read:
            return value
        if mode != IN_FILE or not is_body_name(filename):
            raise Refused("row refused: neither bytes nor a body")
        path = Path(self._directory, str(filename))
        file = open(open_private(path, 0), "rb")  # noqa: SIM115, PTH123 (a descriptor that followed no link)
        if read:
            return file
        with file:
            return file.read()

    def filename(self, key: object = None, value: object = None) -> tuple[str, str]:
        """Refuse to make up a name: bodies bring their own."""
        raise Refused("value refused: not bytes")

    def remove(self, file_path: object) -> None:
        """Remove a body's file; any other name is left alone, and no directory is ever removed."""
        remove_body_file(Path(self._directory), file_path)


class Records(diskcache.Cache):  # type: ignore[misc]
    """
    The rows, for the one thread that writes.

    Args:
        directory: Where ``cache.db`` is; it must be there and have passed `check_schema`.
        max_size: Bytes that all files together may take; ``None``: no bound.
        synchronous: SQLite's setting of this name.
    """

    _held: sqlite3.Connection | None = None  # the thread's connection, for who can't ask the thread

    def __init__(self, directory: Path, max_size: int | None, *, synchronous: int = 1) -> None:
        self.wal_room = wal_room(max_size)
        try:
            super().__init__(
                str(directory),
                # Seconds that a write waits for other processes before it gives up and is tried again later.
                timeout=1.0,
                disk=RawDisk,
                sqlite_journal_size_limit=self.wal_room,
                sqlite_wal_autocheckpoint=max(8, self.wal_room // PAGE_SIZE // 2),
                **{**SETTINGS, "sqlite_synchronous": synchronous},
            )
        except BaseException:
            self.close_held()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        # As diskcache has it, but for two things: a fork empties a threading.local, and the child would try to close
        # what the thread was at just then, and wait for ever; and what it was not at, another thread has to close.
        con: sqlite3.Connection | None = getattr(self._local, "con", None)
        if con is None:
            con = self._local.con = self._held = sqlite3.connect(
                Path(self._directory, "cache.db"), timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            try:
                settings = con.execute("SELECT key, value FROM Settings").fetchall()
            except sqlite3.OperationalError:  # the database is being made
                settings = []
            for key, value in settings:
                if key.startswith("sqlite_"):
                    self.reset(key, value, update=False)
        return con

    def close_held(self) -> None:
        """Close the connection where its thread will not: it has ended, or was the parent's, in a child process."""
        if self._held is not None:
            self._held.close()

    def write(self, changes: Sequence[Put | Delete | Touch], *, now: float, room: int | None) -> list[str]:
        """
        Apply *changes* and then make room, in one transaction.

        Args:
            now: POSIX time.
            room: Bytes that pages and bodies may take together; ``None``: no bound.

        Returns:
            Keys of the entries that were replaced or removed, or that had to go to make room.
        """
        gone: list[str] = []
        with self._transact() as (sql, cleanup):
            for step in _steps(changes):
                match step:
                    case Delete():
                        if step.if_record is None or self._is(step.key, step.if_record, sql):
                            self._delete(step.key, sql, cleanup)
                        gone.append(step.key)
                    case Touch():
                        sql("UPDATE Cache SET store_time = ? WHERE key = ? AND raw = 1", (now, step.key))
                    case _:
                        gone += self._put(step, now, sql, cleanup)
            if room is not None:
                gone += self._make_room(room, now, sql, cleanup)
        return gone

    def used(self) -> int:
        """Bytes in pages and bodies; what is deleted but not yet given back does not count."""
        sql = self._sql
        ((pages,),) = sql("PRAGMA page_count").fetchall()
        ((free,),) = sql("PRAGMA freelist_count").fetchall()
        ((files,),) = sql("SELECT value FROM Settings WHERE key = 'size'").fetchall()
        return int((pages - free) * PAGE_SIZE + files)

    def responses(self) -> int:
        """Number of stored responses."""
        ((count,),) = self._sql("SELECT COUNT(*) FROM Cache WHERE mode = 1 AND access_count = 0").fetchall()
        return int(count)

    def last_row(self) -> int:
        """Give the last row there is: what is new comes after it."""
        ((rowid,),) = self._sql("SELECT coalesce(max(rowid), 0) FROM Cache").fetchall()
        return int(rowid)

    def page(self, after: int, size: int, last_row: int) -> list[tuple[int, str, object]]:
        """Give (rowid, key, record) of up to *size* records that follow the row *after*, up to *last_row*."""
        rows: list[tuple[int, str, object]] = self._sql(
            "SELECT rowid, key, CASE WHEN length(value) <= ? THEN value END FROM Cache"
            " WHERE rowid > ? AND rowid <= ? AND mode = 1 AND raw = 1 ORDER BY rowid LIMIT ?",
            (MAX_RECORD, after, last_row, size),
        ).fetchall()
        return rows

    def expired(self, after: Expired, before: float, size: int) -> list[tuple[Expired, str, object]]:
        """Give (where it is, key, record) of up to *size* records that follow *after* and expire *before* then."""
        rows = self._sql(
            "SELECT expire_time, rowid, key, CASE WHEN length(value) <= ? THEN value END FROM Cache"
            " WHERE (expire_time, rowid) > (?, ?) AND expire_time < ? AND mode = 1 AND raw = 1"
            " ORDER BY expire_time, rowid LIMIT ?",
            (MAX_RECORD, *after, before, size),
        ).fetchall()
        return [((expires, rowid), key, record) for expires, rowid, key, record in rows]

    def holds(self, key: str, record: object) -> bool:
        """Tell whether *record*, as `page` gave it, is still what is under *key*."""
        return bool(
            self._sql(
                "SELECT 1 FROM Cache WHERE key = ? AND raw = 1 AND CASE WHEN length(value) <= ? THEN value END IS ?",
                (key, MAX_RECORD, record),
            ).fetchall()
        )

    def rewrite(
        self, page: Callable[[], Sequence[tuple[Place, str, object]]], change: Callable[[str, object], Rewritten]
    ) -> tuple[Place | None, list[str], int]:
        """
        Apply *change* to the records of *page*, in one transaction.

        Args:
            page: Gives them, as `page` or `expired` do.
            change: ``change(key, record)`` gives the new record and when it expires, or ``None`` to remove it.

        Returns:
            Where the last one is (``None`` at the end), the keys that changed, and how many of them were replaced.
        """
        changed: list[str] = []
        replaced = 0
        with self._transact() as (sql, cleanup):
            rows = page()
            for _, key, record in rows:
                new = change(key, record)
                if new is not None and new[0] is record:
                    continue
                if new is None:
                    self._delete(key, sql, cleanup)
                else:
                    sql(
                        "UPDATE Cache SET value = ?, expire_time = ? + CASE WHEN expire_time < ? THEN 0 ELSE ? END"
                        " WHERE key = ? AND raw = 1",
                        (*new, KEPT_STALE, KEPT_STALE, key),
                    )
                    replaced += 1
                changed.append(key)
        return (rows[-1][0] if rows else None), changed, replaced

    def remove_all(self, last_row: int) -> bool:
        """Remove some of the rows up to *last_row*, with their files; tell whether there were any."""
        with self._transact() as (sql, cleanup):
            rows = sql(
                "SELECT rowid, filename FROM Cache WHERE rowid <= ? ORDER BY rowid LIMIT ?", (last_row, _ROWS_AT_ONCE)
            ).fetchall()
            if rows:
                sql("DELETE FROM Cache WHERE rowid <= ?", (rows[-1][0],))
            for _, filename in rows:
                cleanup(filename)
        return bool(rows)

    def body_names(self) -> set[str]:
        """Names of all body files that rows know of."""
        return {name for (name,) in self._sql("SELECT filename FROM Cache WHERE mode = 2").fetchall()}

    def bodies_without_record(self) -> list[tuple[str, str]]:
        """Give (id, file name) of bodies whose record is gone."""
        rows: list[tuple[str, str]] = self._sql(
            "SELECT key, filename FROM Cache AS body WHERE mode = 2 AND NOT EXISTS"
            " (SELECT 1 FROM Cache WHERE key = body.tag AND raw = 1 AND mode = 1)"
        ).fetchall()
        return rows

    def remove_bodies_without_record(self) -> None:
        """Remove the bodies whose record is gone."""
        if not self.bodies_without_record():
            return
        with self._transact() as (sql, cleanup):
            for identifier, _ in self.bodies_without_record():
                cleanup(body_name(identifier))
                sql("DELETE FROM Cache WHERE key = ? AND mode = 2", (identifier,))

    def problems(self) -> list[str]:
        """Tell what SQLite finds wrong with its pages and indexes, and which counters are off."""
        found = [text for (text,) in self._sql("PRAGMA integrity_check(20)").fetchall() if text != "ok"]
        off = self._sql(_FIND_OFF).fetchall()
        return [*found, *(f"{name} is off" for (name,) in off)]

    def mend(self) -> None:
        """
        Make indexes and counters anew from the rows.

        Raises:
            DamagedError: That is not enough.
        """
        try:
            self._sql("REINDEX").fetchall()
            self._sql(_PUT_RIGHT).fetchall()
        except sqlite3.IntegrityError as error:
            raise DamagedError("database has contradictory rows") from error
        if problems := self.problems():
            raise DamagedError(f"database is damaged: {problems[0]}")

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database and truncate it, unless a reader is in the way."""
        self._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _put(self, puts: Sequence[Put], now: float, sql: Any, cleanup: Any) -> list[str]:
        """Write records of different keys, with their bodies; give the keys that were there before."""
        keys = [put.key for put in puts]
        keeps = {put.key: put.keeps for put in puts}
        listed = _listed("?", len(keys))  # placeholders, and nothing else, make the statements below
        bodies = sql(f"SELECT key, tag, rowid, filename FROM Cache WHERE tag IN ({listed}) AND mode = 2", keys)  # noqa: S608 (placeholders)
        for identifier, key, rowid, filename in bodies.fetchall():
            if identifier != keeps[key]:
                cleanup(filename)
                sql("DELETE FROM Cache WHERE rowid = ?", (rowid,))
        existing = sql(f"SELECT key FROM Cache WHERE key IN ({listed}) AND raw = 1", keys).fetchall()  # noqa: S608 (placeholders)
        values: list[object] = []
        for put in puts:
            if (body := put.body) is not None:
                values += (body.id, now, None, now, 0, put.key, body.size, IN_FILE, body.name, None)
            values += (put.key, now, put.expire_time, now, int(put.is_index), put.tag, 0, IN_ROW, None, put.record)
        rows = _listed(_ROW, len(values) // _ROW.count("?"))
        sql(f"INSERT INTO Cache({_COLUMNS}) VALUES {rows} {_REPLACE}", values)  # noqa: S608 (placeholders)
        return [key for (key,) in existing]

    def _delete(self, key: str, sql: Any, cleanup: Any) -> None:
        # Whatever its mode: a planted row goes too, but no file that it names (`RawDisk.remove`).
        rows = sql(
            "SELECT rowid, filename FROM Cache WHERE key = ? AND raw = 1 OR tag = ? AND mode = 2", (key, key)
        ).fetchall()
        for rowid, filename in rows:
            cleanup(filename)
            sql("DELETE FROM Cache WHERE rowid = ?", (rowid,))

    def _is(self, key: str, record: bytes, sql: Any) -> bool:
        return bool(sql("SELECT 1 FROM Cache WHERE key = ? AND raw = 1 AND value = ?", (key, record)).fetchall())

    def _make_room(self, room: int, now: float, sql: Any, cleanup: Any) -> list[str]:
        """
        Remove the useless first, then what was not used for the longest time, and no more than needed.

        What a clock that ran ahead has dated in the future goes before the latter: it would stay until then, and what
        is stored now would go in its place.
        """
        gone: list[str] = []
        while (excess := self.used() - room) > 0:
            before = len(gone)
            for key, size in self._victims(now, sql):
                self._delete(key, sql, cleanup)
                gone.append(key)
                excess -= size
                if excess <= 0:
                    break
            if len(gone) == before:
                break
        return gone

    def _victims(self, now: float, sql: Any) -> Iterator[tuple[str, int]]:
        columns = (
            "SELECT key, length(value) + (SELECT coalesce(sum(size), 0) FROM Cache AS body"
            " WHERE body.tag = Cache.key AND body.mode = 2) FROM Cache WHERE mode = 1 AND raw = 1"
        )
        useless = sql(
            columns + " AND expire_time IS NOT NULL AND expire_time < ? ORDER BY expire_time LIMIT ?",
            (now, _ROWS_PER_ROUND),
        ).fetchall()
        # The next are looked for only when these were not enough, and then none of them is left.
        yield from useless
        if not useless:
            early = sql(
                columns + " AND store_time > ? ORDER BY store_time DESC LIMIT ?", (now + _FUTURE, _ROWS_PER_ROUND)
            ).fetchall()
            yield from early or sql(columns + " ORDER BY store_time LIMIT ?", (_ROWS_PER_ROUND,)).fetchall()


def _steps(changes: Iterable[Put | Delete | Touch]) -> Iterator[list[Put] | Delete | Touch]:
    """Give *changes* in order, with those together that one statement may write: some, and each key but once."""
    puts: dict[str, Put] = {}
    for change in changes:
        is_put = isinstance(change, Put)
        if puts and (not is_put or change.key in puts or len(puts) == _PUTS_PER_STATEMENT):
            yield list(puts.values())
            puts = {}
        if isinstance(change, Put):
            puts[change.key] = change
        else:
            yield change
    if puts:
        yield list(puts.values())


@lru_cache(maxsize=256)
def _listed(item: str, count: int) -> str:
    return ", ".join([item] * count)
