"""One opened store directory: its rows for the writer, connections of their own for those who read, its marks."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ._bodies import BODIES, SPOOLS, body_files, is_body_name
from ._directory import (
    LIVE,
    check_is_private,
    create_private,
    disk_usage,
    is_held,
    locked,
    make_private,
    open_private,
    prepare,
    read_secret,
    remove_set_aside,
    set_aside,
    set_aside_bytes,
)
from ._faults import DamagedError, is_damage
from ._schema import MAX_RECORD, PAGE_SIZE, check_schema, wal_room
from ._tier import Marks

if TYPE_CHECKING:
    from ._records import Records

_READ_TIMEOUT: Final = 0.005
"""Seconds that a read on the loop's thread waits for a lock."""
_READER_CACHE: Final = 2 * 1024  # KiB of pages per reader
_ORPHAN_AGE: Final = 120.0  # seconds after which a body that no row knows is left over: writing gives up long before
_UNTOUCHED: Final = 3600.0  # seconds after which a spool is left over where the system has no locks that tell
_ARRIVING: Final = 60.0  # seconds for which it counts where it arrives, rather than among what is left over
_ABANDONED_AGE: Final = 1.0  # seconds; a spool is new for a moment before a process holds it
_DATABASE, _TOKEN, _MARKS, _SWEPT = "cache.db", "token", "marks", "swept"
_ASIDE: Final = 8  # the part of the room that a damaged store may take which was set aside
_SWEEP_EVERY: Final = 24 * 3600.0  # seconds
_SWEEP_WHEN_OPENED: Final = 120.0  # seconds since the last sweep: the process before may have been killed
_LOOK_EVERY: Final = 1.0  # seconds between two looks for abandoned spools
# Held until the process ends: closing what another thread was at when the parent forked would wait for ever.
_left_by_fork: list[object] = []


class Reader:
    """A connection that only reads, of one thread; closed by whoever comes first, its thread's end or the store's."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",  # rw, as reading a WAL may mean to recover it; never creates
            uri=True,
            timeout=_READ_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        # Not by `__del__`: the collector of cycles may come to the connection first, which then complains.
        weakref.finalize(self, self._connection.close).atexit = False
        self.lock = threading.Lock()
        self.version = -1
        try:
            self._connection.execute("PRAGMA query_only = 1")
            self._connection.execute("PRAGMA trusted_schema = 0")
            self._connection.execute("PRAGMA mmap_size = 0").fetchall()
            self._connection.execute(f"PRAGMA cache_size = -{_READER_CACHE}")
            check_schema(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def row(self, key: str) -> tuple[object, float] | None:
        """Give (record, store time) under *key*, whether or not it is of use; in one go, so no lock stays."""
        with self.lock:
            rows = self._connection.execute(
                "SELECT CASE WHEN length(value) <= ? THEN value END, store_time FROM Cache WHERE key = ? AND raw = 1",
                (MAX_RECORD, key),
            ).fetchall()
        return rows[0] if rows else None

    def tagged(self, tag: str) -> list[str]:
        """Give the keys of records with *tag*."""
        with self.lock:
            rows = self._connection.execute(
                "SELECT key FROM Cache WHERE tag = ? AND mode = 1 AND raw = 1", (tag,)
            ).fetchall()
        return [key for (key,) in rows]

    def has_news(self) -> bool:
        """Tell whether somebody else committed since the last call."""
        with self.lock:
            ((version,),) = self._connection.execute("PRAGMA data_version").fetchall()
        is_news: bool = version != self.version
        self.version = version
        return is_news

    def close(self) -> None:
        """Close the connection, when no thread is reading from it."""
        with self.lock:
            self._connection.close()

    def close_at_rest(self) -> bool:
        """Close the connection unless a thread is reading from it; tell which."""
        is_at_rest = self.lock.acquire(blocking=False)
        if is_at_rest:
            self._connection.close()
            self.lock.release()
        return is_at_rest


class Database:
    """
    One opened store directory.

    Attributes:
        home: Its path.
        secret: The 32 bytes that key digests.
        marks: The marks of its entries' slots.
        other_bytes: Bytes of files that are neither pages nor bodies in use, as of the last sweep.
    """

    def __init__(self, root: Path, max_size: int | None, secret: bytes) -> None:
        self.root = root
        self.home = root / LIVE
        self.secret = secret
        self._max_size = max_size
        for name, is_directory in ((".", True), (_TOKEN, False), (_DATABASE, False), (BODIES, True), (SPOOLS, True)):
            _check_exists(self.home / name, is_directory=is_directory)
        written = [self.home / name for name in (f"{_DATABASE}-wal", f"{_DATABASE}-shm", _MARKS, _SWEPT)]
        for path in (*written, root / "leases"):
            with contextlib.suppress(FileNotFoundError):
                check_is_private(path, is_directory=False)
        self._identity = self._look()
        self._spare: Reader | None = Reader(self.home / _DATABASE)
        # By thread; a thread that ended leaves its reader to the next one with its identifier.
        self._readers: dict[int, Reader] = {}
        self._opening = threading.Lock()
        self._closing = threading.Lock()  # by two threads at once, and neither is the last, who takes the log in
        self._records: Records | None = None
        self._swept_time, self._sweep_every = 0.0, _SWEEP_WHEN_OPENED
        self._next_look = 0.0
        self.other_bytes = 0
        self.marks = Marks(self.home / _MARKS)

    @classmethod
    def open(cls, root: Path, max_size: int | None) -> Database:
        """
        Open the store in *root*, made if it is missing; one that is damaged is set aside first.

        Raises:
            StoreError: The directory must not be used.
            OSError: It cannot be used.
            sqlite3.Error: It cannot be used now.
        """
        prepare(root)
        with locked(root):
            secret = read_secret(root)
            if is_new(root):
                _build(root, max_size)
            _restore(root / LIVE)
            try:
                return cls(root, max_size, secret)
            except (DamagedError, sqlite3.DatabaseError) as error:
                if not is_damage(error):
                    raise
            set_aside(root)
            _build(root, max_size)
            return cls(root, max_size, secret)

    @property
    def records(self) -> Records:
        """The rows, for the writing thread; made when first needed, as that takes the database's write lock."""
        if self._records is None:
            # Once more: diskcache would try for a minute to make something of a file that was emptied meanwhile.
            Reader(self.home / _DATABASE).close()
            from ._records import Records  # two thirds of a first hit: who only reads needs no diskcache

            self._records = Records(self.home, self._max_size)
        return self._records

    @property
    def reader(self) -> Reader:
        """The calling thread's reading connection."""
        thread = threading.get_ident()
        reader = self._readers.get(thread)
        if reader is None:
            with self._opening:
                reader, self._spare = self._spare, None
            reader = self._readers[thread] = reader or Reader(self.home / _DATABASE)
        return reader

    def is_current(self) -> bool:
        """Tell whether the directory is still the one that was opened."""
        try:
            return self._look() == self._identity
        except OSError:
            return False

    def set_aside(self) -> None:
        """Set this directory aside as damaged, unless another process already did; `close` it first."""
        with locked(self.root):
            try:
                is_same = self._look()[:2] == self._identity[:2]
            except FileNotFoundError:
                is_same = not (self.home / _TOKEN).exists()
            if is_same:
                set_aside(self.root)

    def room(self, arriving: int) -> int | None:
        """Bytes that pages and bodies may take, while *arriving* bytes of bodies are not yet among them."""
        if self._max_size is None:
            return None
        return max(0, self._max_size - wal_room(self._max_size) - self.other_bytes - arriving)

    def tidy(self) -> None:
        """Keep the log within its room, and remove what killed processes left behind; in the writing thread."""
        if _size(self.home / f"{_DATABASE}-wal") > wal_room(self._max_size):
            self.records.checkpoint()
        now = time.time()
        if not 0 <= self._next_look - now <= _LOOK_EVERY:
            self._next_look = now + _LOOK_EVERY
            if abandoned := self._abandoned():
                _remove(abandoned)
                self._sweep_every = _ORPHAN_AGE  # who was killed may have left bodies too
        if not 0 <= now - self._swept_time < self._sweep_every:
            self._swept_time, self.other_bytes = self._last_sweep()
            if not 0 <= now - self._swept_time < self._sweep_every:
                self.sweep()

    def sweep(self) -> None:
        """Remove what killed processes left behind, and measure what remains beside the rows."""
        _remove(self.orphans())
        if self._max_size is not None and set_aside_bytes(self.root) > self._max_size // _ASIDE:
            remove_set_aside(self.root)  # or there would hardly be room for anything else
        self.records.remove_bodies_without_record()
        arriving = sum(map(_size, self.orphans(_ARRIVING)))
        # What counts as left over may still get its row: it is looked at again once that would have come.
        self._swept_time, self._sweep_every = time.time(), _ORPHAN_AGE if self.orphans(0.0) else _SWEEP_EVERY
        self.other_bytes = self._other_bytes() + arriving
        descriptor = open_private(self.home / _SWEPT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            os.write(descriptor, str(self.other_bytes).encode())
        finally:
            os.close(descriptor)

    def _other_bytes(self) -> int:
        """Measure what is neither pages nor log, nor a body."""
        counted = [self.home / _DATABASE, self.home / f"{_DATABASE}-wal", *body_files(self.home), *self._spools()]
        return max(0, disk_usage(self.root) - sum(map(_size, counted)))

    def _last_sweep(self) -> tuple[float, int]:
        """Give the time of the last sweep, by whichever process, and what it measured."""
        try:
            descriptor = open_private(self.home / _SWEPT, os.O_RDONLY)
            try:
                return os.fstat(descriptor).st_mtime, int(os.read(descriptor, 32))
            finally:
                os.close(descriptor)
        except (OSError, ValueError):
            return 0.0, 0

    def _spools(self) -> list[Path]:
        return list((self.home / SPOOLS).glob("*.part"))

    def _abandoned(self) -> list[Path]:
        """Give the spools that no process fills any more."""
        abandoned = []
        for path in self._spools():
            with contextlib.suppress(OSError):
                age = time.time() - path.lstat().st_mtime
                held = is_held(path) if age > _ABANDONED_AGE else True
                if held is False or (held is None and age > _UNTOUCHED):  # None: the system has no such locks
                    abandoned.append(path)
        return abandoned

    def orphans(self, age: float = _ORPHAN_AGE) -> list[Path]:
        """Give abandoned spools, and the bodies that no row knows and nobody has touched for *age* seconds."""
        files = body_files(self.home)  # before the names: a body whose row is written meanwhile is then among them
        known = self.records.body_names()
        orphans = self._abandoned()
        for path in files:
            name = path.relative_to(self.home).as_posix()
            with contextlib.suppress(FileNotFoundError):
                if is_body_name(name) and name not in known and time.time() - path.lstat().st_mtime > age:
                    orphans.append(path)
        return orphans

    def close_records(self) -> None:
        """Close the writer's connection; in its thread. It opens again when it is next used."""
        if self._records is not None:
            with self._closing:
                self._records.close()
                self._records.close_held()  # of a thread that has ended without coming here

    def close(self) -> None:
        """Close everything but the writer's connection; from any thread."""
        with self._opening:
            spare, self._spare = self._spare, None
        with self._closing:
            for reader in (spare, *self._readers.copy().values()):
                if reader is not None:
                    reader.close()
        self.marks.close()

    def leave_to_parent(self, *, is_writer_at_rest: bool) -> None:
        """
        Let go of everything, in a child process, before it opens its own.

        A connection that is still open here counts for SQLite as one that holds its lock on the database, though only
        the parent's does: then the child's own ones take none, and the parent, closing as the last who seems to be
        there, removes the log that the child goes on writing to.
        """
        readers = (self._spare, *self._readers.values())
        _left_by_fork.extend(reader for reader in readers if reader is not None and not reader.close_at_rest())
        if self._records is not None:
            if is_writer_at_rest:
                self._records.close_held()
            else:
                _left_by_fork.append(self._records)
        self.marks.close()

    def _look(self) -> tuple[int, int, int]:
        token = os.stat(self.home / _TOKEN)  # noqa: PTH116 (half the cost of Path.stat, and on a request's way)
        database = os.stat(self.home / _DATABASE)  # noqa: PTH116
        return token.st_ino, token.st_mtime_ns, database.st_ino


def is_new(root: Path) -> bool:
    """Tell whether the store in *root* is still to be made."""
    return not os.path.lexists(root / LIVE)


def _restore(home: Path) -> None:
    """Make anew what is missing and holds nothing that can't be missed; not in what is no store."""
    if not home.is_symlink() and os.path.lexists(home / _DATABASE):
        for name in (BODIES, SPOOLS):
            if not os.path.lexists(home / name):
                make_private(home / name)
        if not os.path.lexists(home / _TOKEN):
            create_private(home / _TOKEN, secrets.token_bytes(16))


def _build(root: Path, max_size: int | None) -> None:
    """Make a new store beside its place, whole, and rename it in."""
    new = root / f".new-{secrets.token_hex(8)}"
    try:
        _build_in(new, max_size)
        new.rename(root / LIVE)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # a full disk would get fuller with each attempt
        raise


def _build_in(new: Path, max_size: int | None) -> None:
    from ._records import Records

    make_private(new)
    for name in (BODIES, SPOOLS):
        make_private(new / name)
    create_private(new / _TOKEN, secrets.token_bytes(16))
    Marks.create(new / _MARKS)
    create_private(new / _DATABASE)
    # Nothing can get lost yet, and waiting for a busy disk would make the first requests miss.
    _execute(
        new / _DATABASE,
        "PRAGMA synchronous = OFF",
        # Before the WAL mode, after which a page size has no effect.
        f"PRAGMA page_size = {PAGE_SIZE}",
        "PRAGMA auto_vacuum = 1",
        "PRAGMA user_version = 1",
        "PRAGMA journal_mode = wal",
    )
    Records(new, max_size, synchronous=0).close()
    _execute(
        new / _DATABASE,
        "PRAGMA synchronous = OFF",
        "UPDATE Settings SET value = 1 WHERE key = 'sqlite_synchronous'",  # what the settings pin
    )


def _execute(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def _check_exists(path: Path, *, is_directory: bool) -> None:
    try:
        check_is_private(path, is_directory=is_directory)
    except FileNotFoundError as error:
        raise DamagedError(f"{path.name} is missing") from error


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
