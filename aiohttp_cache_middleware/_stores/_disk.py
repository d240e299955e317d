"""The default store: `diskcache` rows and body files in one directory, shared by any number of processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from .._codec import Codec, UndecodableError, UnencodableError
from .._errors import StoreError
from .._model import BodyRef, Entry, StoredResponse, VariantIndex
from ._bodies import BodyFile, BodySeal, DiskSpool
from ._faults import Backoff, is_busy, is_damage, store_error
from ._lane import Lane, Lanes
from ._leases import Leases
from ._opening import Opening
from ._processes import CLOSING, remember
from ._protocol import BodyReader, BodySpool, Report
from ._tier import Kept, Tier
from ._verified import VerifiedBodies

if TYPE_CHECKING:
    from ._database import Database
    from ._records import Delete, Put, Touch

T = TypeVar("T")

QUEUE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that may wait to be written; beyond, `DiskStore.put` accepts no more."""
IN_RECORD: Final = 256 * 1024
"""Bytes of body that are kept in the record itself; a larger one is a file, which is cheaper from there on."""

_LINGER: Final = 0.02  # seconds that the writer waits for company: one transaction for many costs a quarter each
_BATCH: Final = 256  # changes per transaction
_BATCH_BYTES: Final = 2 * 1024 * 1024  # per transaction; so the limit is never exceeded by much
_LOOK_AGAIN: Final = 0.05  # seconds between looks at the directory and at commits that left no mark
_RENEW: Final = 3600.0  # seconds after which an entry in use is moved away from eviction
_BUSY_LIMIT: Final = 30.0  # seconds for which a write tries again while others hold the lock
_PAGE: Final = 128  # records per step of a scan
_PATIENCE: Final = 1.0  # seconds that an arriving body waits for room
_LANDING: Final = 0.01  # seconds between looks at the room while bodies land
_SLACK: Final = 1024 * 1024  # bytes by which arriving bodies may be ahead of the room made for them
_OVERHEAD: Final = 1024  # bytes that a queued change costs beside its body


@dataclass(slots=True, eq=False)
class _Change:
    """
    A change that was accepted and is not yet committed.

    Attributes:
        entry: What `get` gives meanwhile; ``None``: it has been deleted.
        body: A body that is landing.
        is_touch: Whether only the store time is renewed.
    """

    key: str
    entry: Entry | None = None
    tag: str = ""
    useless_time: float | None = None
    body: Future[BodyFile] | None = None
    is_touch: bool = False

    @property
    def body_size(self) -> int:
        """Bytes of its body on disk, which no row accounts for yet."""
        entry = self.entry
        return entry.size if self.body is not None and isinstance(entry, StoredResponse) else 0

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        entry = self.entry
        if isinstance(entry, StoredResponse) and isinstance(entry.body, bytes):
            return _OVERHEAD + len(entry.body)
        return _OVERHEAD


class DiskStore:
    """
    Keeps entries in *directory*. Making one does no I/O: the store is opened when it is first used.

    Args:
        directory: Made (0700) if it is missing.
        max_size: Bytes that all files together may take; ``None``: no bound.
        secret_keys: Authenticate what is stored: the first key writes, all of them read; ``()``: nothing does.
        clock: Tells POSIX time, in seconds.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_size: int | None,
        secret_keys: tuple[bytes, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = Path(os.path.abspath(directory))  # noqa: PTH100 (keeps a symbolic link, which is looked at)
        self._max_size = max_size
        self._codec = Codec(secret_keys)
        self._seal = BodySeal(secret_keys)
        self._clock = clock
        self._leases = Leases(self._root)
        self._start(secret=None)
        remember(self)

    def __repr__(self) -> str:
        return f"DiskStore({str(self._root)!r})"

    def _start(self, secret: bytes | None) -> None:
        """Begin with nothing open and nothing queued: when made, and in a child process, which knows the *secret*."""
        self._lanes = Lanes(self)
        self._bodies = VerifiedBodies(self._lanes.files, self._seal)
        self._tier = Tier()
        self._backoff = Backoff()
        self._opening = Opening(self._root, self._max_size, self._lanes, self._tier, self._backoff, secret)
        self._lock = threading.RLock()
        self._checked_time = 0.0
        self._queue: deque[_Change] = deque()
        self._pending: dict[str, _Change] = {}
        self._pending_size = 0
        self._landing: dict[str, Future[BodyFile]] = {}
        self._landing_size = 0
        self._growth = 0
        self._is_making_room = False
        self._room_made = threading.Event()
        self._spools: weakref.WeakSet[DiskSpool] = weakref.WeakSet()
        self._touched: dict[str, float] = {}
        self._is_draining = False
        self._hurry = threading.Event()
        self._lost: StoreError | None = None

    # Opening

    @property
    def known_secret(self) -> bytes | None:
        """What `secret` gives, once the store has been opened."""
        return self._opening.secret

    @property
    def is_open(self) -> bool:
        """Whether rows can be read without waiting."""
        return self._opening.database is not None

    async def secret(self, *, patient: bool = False) -> bytes:
        """Give the 32 bytes of the directory's secret file; *patient*: however long opening takes."""
        if patient and not self.is_open:
            await self._manage(lambda _: None)
        secret = self._opening.secret
        return secret if secret is not None else (await self._opening.opened()).secret

    # Reading

    async def get(self, key: str) -> Entry | None:
        """Give the entry under *key*; read on the calling thread."""
        if self._opening.database is None and key not in self._pending:
            await self._opening.opened()
        return self.peek(key)

    def peek(self, key: str) -> Entry | None:
        """Give the entry under *key* if it can be had without waiting; nothing can while the store is not open."""
        if (change := self._pending.get(key)) is not None and not change.is_touch:
            return change.entry
        database = self._opening.database
        if database is None:
            return None
        try:
            return self._read(database, key)
        except Exception as error:
            raise self._read_failed(database, error) from error

    def _read(self, database: Database, key: str) -> Entry | None:
        now = time.monotonic()
        if now - self._checked_time > _LOOK_AGAIN:
            self._checked_time = now
            self._look_again(database)
        kept = self._tier.trusted(key, now)
        if kept is None:
            # The mark before the row: a change in between then shows.
            mark = database.marks.of(key)
            kept = self._tier.get(key, mark, now) or self._load(database, key, mark, now)
            if kept is None:
                return None
        if kept.store_time + _RENEW < self._clock():
            self._renew(key)
        return kept.entry

    def _load(self, database: Database, key: str, mark: bytes, now: float) -> Kept | None:
        row = database.reader.row(key)
        if row is None:
            return None
        record, store_time = row
        try:
            entry = self._codec.decode(key, record)
        except UndecodableError:
            self.delete(key)
            return None
        kept = Kept(mark, entry, float(store_time), now)
        self._tier.keep(key, kept)
        return kept

    def _look_again(self, database: Database) -> None:
        """See changes that left no mark: of the directory, and of a process that died after its commit."""
        if not database.is_current():
            raise _GoneError
        if database.reader.has_news():
            self._tier.clear()

    def _read_failed(self, database: Database, error: Exception) -> StoreError:
        """Tell what a failed read means, and have a store that is damaged set aside."""
        if isinstance(error, _GoneError):
            return StoreError("directory was replaced or removed")
        self._opening.note_damage(database, error)
        return store_error(error)

    def _renew(self, key: str) -> None:
        now = self._clock()
        if now - self._touched.get(key, -_RENEW) < _RENEW:
            return
        if len(self._touched) > 10_000:
            self._touched.clear()
        self._touched[key] = now
        self._accept(_Change(key, is_touch=True))

    async def tagged(self, tag: str) -> list[str]:
        """Give the keys of all entries put with *tag*."""
        database = await self._opening.opened()
        try:
            keys = dict.fromkeys(database.reader.tagged(tag))
        except Exception as error:
            raise self._read_failed(database, error) from error
        for key, change in list(self._pending.items()):
            if change.entry is not None and change.tag == tag:
                keys[key] = None
            else:
                keys.pop(key, None)
        return list(keys)

    # Writing

    def put(
        self,
        key: str,
        entry: Entry,
        *,
        tag: str,
        useless_in: float | None = None,
        spool: BodySpool | None = None,
    ) -> bool:
        """Accept *entry* for storing; refuses while the store fails (`StoreError`) and when too much is queued."""
        try:
            self._backoff.raise_while_failing()
            spool = spool if spool is not None else self._spool_if_large(entry)
            useless_time = None if useless_in is None else self._clock() + useless_in
            change = _Change(key, entry, tag, useless_time)
            if not self._has_room(change, spool):
                return False
            if isinstance(spool, DiskSpool) and isinstance(entry, StoredResponse):
                self._landing[spool.id] = change.body = spool.land()
                change.entry = entry.replace(body=BodyRef(spool.id, spool.size))
            self._accept(change)
            return True
        finally:
            if spool is not None:
                spool.discard()

    def delete(self, key: str) -> None:
        """Remove an entry; never refused for want of room, as what must not be used any more would stay."""
        self._accept(_Change(key))

    def _spool_if_large(self, entry: Entry) -> BodySpool | None:
        if isinstance(entry, StoredResponse) and isinstance(entry.body, bytes) and len(entry.body) > IN_RECORD:
            spool = self.spool()
            spool.write(entry.body)
            return spool
        return None

    def _has_room(self, change: _Change, spool: BodySpool | None) -> bool:
        size, waiting = (change.size, 0) if spool is None else (spool.size, spool.pending)
        if self._max_size is not None and size > self._max_size // 2:
            return False
        return self._pending_size + change.size + waiting <= QUEUE_LIMIT

    def _accept(self, change: _Change) -> None:
        with self._lock:
            if not change.is_touch:
                self._pending[change.key] = change
                self._tier.forget(change.key)
            self._pending_size += change.size
            self._landing_size += change.body_size
            self._queue.append(change)
            if self._is_draining:
                return
            self._is_draining = True
        self._lanes.writer.run(self._drain)

    def _drain(self) -> None:
        """Write what is queued; in the writer."""
        while True:
            if len(self._queue) < _BATCH:
                self._hurry.wait(_LINGER)
            batch = self._next_batch()
            if not batch or not self._write_batch(batch):
                return

    def _write_batch(self, batch: list[_Change]) -> bool:
        """Write *batch*; tell whether it is worth while to go on."""
        try:
            self._write_or_retry(batch)
        except Exception as error:  # noqa: BLE001 (the lane's thread outlives every failure)
            self._give_up(batch, store_error(error))
            return False
        self._backoff.note_success()
        self._settle(batch)
        return True

    def _next_batch(self) -> list[_Change]:
        batch: list[_Change] = []
        size = 0
        with self._lock:
            while self._queue and len(batch) < _BATCH and size < _BATCH_BYTES:
                batch.append(change := self._queue.popleft())
                # A batch waits for its bodies to land, and until it is written nothing of it can make room.
                size += change.size + change.body_size
                self._landing_size -= change.body_size
            if not batch:
                self._is_draining = False
        return batch

    def _write_or_retry(self, batch: list[_Change]) -> None:
        deadline = time.monotonic() + _BUSY_LIMIT
        while not self._write_unless_busy(batch):
            if time.monotonic() > deadline:
                raise StoreError("database is locked")

    def _write_unless_busy(self, batch: list[_Change]) -> bool:
        database = self._opening.opened_for_work()
        try:
            self._write(database, batch)
        except Exception as error:
            if self._opening.note_damage(database, error):
                self._write(self._opening.opened_for_work(), batch)
            elif is_busy(error):
                return False
            else:
                raise
        return True

    def _write(self, database: Database, batch: list[_Change]) -> None:
        landing = [change.body for change in batch if change.body is not None]
        while wait(landing, timeout=0).not_done:
            # Others arrive meanwhile, and all of them take room.
            database.marks.change(self._commit(database, [], sum(change.body_size for change in batch)))
            wait(landing, timeout=_LANDING)
        evicted = self._commit(database, [row for change in batch if (row := self._row(change)) is not None])
        database.marks.change((*(change.key for change in batch if not change.is_touch), *evicted))
        with contextlib.suppress(Exception):  # what was written is written
            database.tidy()

    def _commit(self, database: Database, rows: list[Put | Delete | Touch], landing: int = 0) -> list[str]:
        """Write *rows* and make room for bodies that arrive, *landing* bytes more; give the keys that had to go."""
        growth = self._growth
        arriving = sum(spool.arriving for spool in list(self._spools))
        room = database.room(arriving + self._landing_size + landing)
        evicted = database.records.write(rows, now=self._clock(), room=room)
        with self._lock:
            self._growth -= growth
        self._room_made.set()
        return evicted

    def _may_grow(self, size: int) -> bool:
        """Have room made for bodies while they arrive; ``False`` where that takes too long. In the lane of files."""
        if self._max_size is None:
            return True
        self._opening.home()  # opening takes its own time
        slack = max(_SLACK, self._max_size // 32)
        with self._lock:
            self._growth += size
            self._room_made.clear()
            is_late = self._growth > slack // 2 and not self._is_making_room
            self._is_making_room |= is_late
        if is_late:
            self._lanes.writer.run(self._make_room)
        return self._growth <= slack or self._room_made.wait(_PATIENCE)

    def _make_room(self) -> None:
        self._is_making_room = False
        with contextlib.suppress(Exception):  # what fails here fails again with the next change, which tells
            self._write(self._opening.opened_for_work(), [])

    def _row(self, change: _Change) -> Put | Delete | Touch | None:
        """Give what is to be written for *change*; nothing where its body did not land or it can't be encoded."""
        from ._records import Delete, Put, Touch

        entry = change.entry
        if change.is_touch:
            return Touch(change.key)
        if entry is None:
            return Delete(change.key)
        try:
            record = self._codec.encode(change.key, entry)
            body = None if change.body is None else change.body.result()
        except (UnencodableError, StoreError) as error:
            if change.body is not None:
                self._unlink(change.body)
            self._lost = error if isinstance(error, StoreError) else StoreError(str(error))
            return None
        is_index = isinstance(entry, VariantIndex)
        keeps = entry.body.id if isinstance(entry, StoredResponse) and isinstance(entry.body, BodyRef) else None
        return Put(change.key, record, change.tag, change.useless_time, is_index, body, keeps)

    def _settle(self, batch: list[_Change]) -> None:
        """Forget what is committed, or will never be."""
        with self._lock:
            for change in batch:
                self._pending_size -= change.size
                if self._pending.get(change.key) is change:
                    del self._pending[change.key]
                if change.body is not None and isinstance(change.entry, StoredResponse):
                    self._landing.pop(getattr(change.entry.body, "id", ""), None)

    def _give_up(self, batch: list[_Change], error: StoreError) -> None:
        """Drop what was to be stored, but keep what was to be removed until that succeeds."""
        self._backoff.note_failure(error)
        self._lost = error
        self._settle([change for change in batch if change.entry is not None or change.is_touch])
        with self._lock:
            rest = [*batch, *self._queue]
            dropped = [change for change in self._queue if change.entry is not None or change.is_touch]
            # They go with the next change, or with `flush`; until then `get` finds nothing under their keys.
            self._queue = deque(change for change in rest if change.entry is None and not change.is_touch)
            self._landing_size = 0
            self._is_draining = False
            self._settle(dropped)
        for change in rest:
            if change.body is not None:
                self._unlink(change.body)

    def _resume(self) -> None:
        with self._lock:
            if self._is_draining or not self._queue:
                return
            self._is_draining = True
        self._lanes.writer.run(self._drain)

    def _unlink(self, landed: Future[BodyFile]) -> None:
        with contextlib.suppress(Exception):
            (self._opening.home() / landed.result().name).unlink()

    # Large bodies

    def spool(self) -> DiskSpool:
        """Make room for a large body that is arriving."""
        limit = float("inf") if self._max_size is None else self._max_size // 2
        spool = DiskSpool(self._lanes.files, self._opening.home, self._seal, limit, self._may_grow)
        self._spools.add(spool)
        return spool

    async def open_body(self, key: str, body: BodyRef) -> BodyReader | None:
        """Open the body of the entry under *key*; it is verified whole before the first byte is given."""
        database = await self._opening.opened()
        try:
            if (landing := self._landing.get(body.id)) is not None:
                await asyncio.shield(asyncio.wrap_future(landing))
            reader = await self._bodies.open(database.home, body)
        except (TimeoutError, asyncio.TimeoutError):
            raise StoreError("opening a body takes too long") from None
        except StoreError:
            raise
        except Exception as error:
            raise store_error(error) from error
        if reader is None:
            entry = await self.get(key)
            if isinstance(entry, StoredResponse) and isinstance(entry.body, BodyRef) and entry.body.id == body.id:
                self.delete(key)
        return reader

    def load_body(self, key: str, body: BodyRef) -> bytes:
        """Give the body of the entry under *key*, checked; blocks."""
        try:
            if (landing := self._landing.get(body.id)) is not None:
                landing.result(timeout=CLOSING)
            return self._bodies.load(self._opening.home(), body)
        except StoreError:
            raise
        except Exception as error:
            raise store_error(error) from error

    # Processes

    def claim(self, key: str) -> bool:
        """Claim *key* for this process; a hint, so ``True`` wherever it can't be told."""
        return self._leases.claim(key)

    def unclaim(self, key: str) -> None:
        """Take back a claim, once what was accepted before is there for others to see."""
        leases = self._leases
        if self._is_draining:
            self._lanes.writer.run(lambda: leases.unclaim(key))
        else:
            leases.unclaim(key)

    # Management: in the writer, so what was accepted before is there

    async def _manage(self, job: Callable[[Database], T]) -> T:
        self._backoff.raise_while_failing()

        def work() -> T:
            database = self._opening.opened_for_work()
            try:
                return job(database)
            except Exception as error:
                self._opening.note_damage(database, error)
                raise

        self._hurry.set()
        try:
            return await asyncio.wrap_future(self._lanes.writer.submit(work))
        except Exception as error:
            raise store_error(error) from error
        finally:
            self._hurry.clear()

    async def scan(self) -> AsyncIterator[tuple[str, Entry]]:
        """Iterate over all entries, a page at a time; what can't be read is left out."""
        after = -1

        def page(database: Database) -> tuple[int | None, list[tuple[str, Entry]]]:
            rows = database.records.page(after, _PAGE)
            entries = []
            for _, key, record in rows:
                with contextlib.suppress(UndecodableError):
                    entries.append((key, self._codec.decode(key, record)))
            return (rows[-1][0] if rows else None), entries

        while True:
            last, entries = await self._manage(page)
            for item in entries:
                yield item
            if last is None:
                return
            after = last

    async def rewrite(self, change: Callable[[str, Entry], Entry | None]) -> tuple[int, int]:
        """Apply *change* to every entry; what can't be read is removed and not counted."""
        after: int | None = -1
        replaced = removed = 0

        def rewrite(key: str, record: object) -> object:
            nonlocal removed
            try:
                entry = self._codec.decode(key, record)
                new = change(key, entry)
                if new is not None:
                    return record if new is entry else self._codec.encode(key, new)
            except (UndecodableError, UnencodableError):
                return None
            removed += isinstance(entry, StoredResponse)
            return None

        while after is not None:
            start = after

            def page(database: Database) -> tuple[int | None, int]:
                last, changed = database.records.rewrite(start, _PAGE, rewrite)  # noqa: B023 (called in this round)
                database.marks.change(key for key, _ in changed)
                self._tier.clear()
                return last, sum(record is not None for _, record in changed)

            after, count = await self._manage(page)
            replaced += count
        return replaced, removed

    async def count(self) -> int:
        """Number of stored responses."""
        return await self._manage(lambda database: database.records.responses())

    async def volume(self) -> int:
        """Bytes of all files in the directory."""
        from ._directory import disk_usage

        return await self._manage(lambda _: disk_usage(self._root))

    async def clear(self) -> None:
        """Remove all entries."""

        def clear(database: Database) -> bool:
            more = database.records.remove_all()
            database.marks.change_all()
            self._tier.clear()
            return more

        while await self._manage(clear):
            pass

    async def verify(self, *, repair: bool = False) -> Report:
        """
        Check the database, every record, body and file; *repair* removes what is damaged or left over.

        A database that can't be read is set aside, as whenever that comes to light.
        """
        try:
            return await self._verify(repair=repair)
        except StoreError as error:
            if error.__cause__ is None or not is_damage(error.__cause__):
                raise
            return Report(problems=(error.cause,), repaired=True)

    async def _verify(self, *, repair: bool) -> Report:
        problems = await self._manage(lambda database: database.records.problems())
        if problems and repair:
            await self._manage(lambda database: database.records.mend())
        # Before the entries: one whose body goes here is damaged.
        orphans = await self._manage(functools.partial(self._orphans, repair=repair))
        entries = 0
        damaged: list[str] = []
        after: int | None = -1
        while after is not None:
            start = after

            def page(database: Database) -> tuple[int | None, int, list[str]]:
                rows = database.records.page(start, _PAGE)  # noqa: B023 (called in this round)
                bad = [key for _, key, record in rows if not self._is_sound(database, key, record)]
                return (rows[-1][0] if rows else None), len(rows), bad

            after, count, bad = await self._manage(page)
            entries += count
            damaged += bad
        if repair:
            for key in damaged:
                self.delete(key)
            await self.flush()
        return Report(entries, tuple(damaged), tuple(orphans), tuple(problems), repaired=repair)

    def _is_sound(self, database: Database, key: str, record: object) -> bool:
        try:
            entry = self._codec.decode(key, record)
        except UndecodableError:
            return False
        if not isinstance(entry, StoredResponse) or not isinstance(entry.body, BodyRef):
            return True
        return self._bodies.is_sound(database.home, entry.body)

    def _orphans(self, database: Database, *, repair: bool) -> list[str]:
        files = database.orphans()
        without_record = database.records.bodies_without_record()
        if repair:
            for path in files:
                with contextlib.suppress(OSError):
                    path.unlink()
            database.records.remove_bodies(identifier for identifier, _ in without_record)
        return [*(path.relative_to(database.home).as_posix() for path in files), *(name for _, name in without_record)]

    # The end

    async def flush(self) -> None:
        """
        Wait until everything accepted so far is kept.

        Raises:
            StoreError: Something accepted since the last call could not be kept.
        """
        self._resume()
        self._hurry.set()
        try:
            await asyncio.wrap_future(self._lanes.writer.submit(_nothing))
        finally:
            self._hurry.clear()
        lost, self._lost = self._lost, None
        if lost is not None:
            raise lost

    async def aclose(self) -> None:
        """Flush for at most `CLOSING` seconds, then give back everything; the store opens again when it is used."""
        try:
            await asyncio.wait_for(self.flush(), CLOSING)
        except (TimeoutError, asyncio.TimeoutError):
            raise StoreError("closing takes too long") from None
        finally:
            # In order: the writer lets go of the store, then closes its own connection, and the opener the others.
            for lane, job in (
                (self._lanes.files, _nothing),
                (self._lanes.writer, self._opening.close),
                (self._lanes.writer, _nothing),
                (self._lanes.opener, _nothing),
            ):
                with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.wrap_future(lane.submit(job)), 1.0)
            self._leases.close()

    def close_now(self, timeout: float = CLOSING) -> bool:
        """Write what is queued and give back everything; blocks for at most *timeout* seconds, then tells ``False``."""
        deadline = time.monotonic() + timeout
        self._hurry.set()
        try:
            if self._opening.database is not None or self._queue:
                self._lanes.writer.run(self._opening.close)
            return self._lanes.stop(deadline)
        finally:
            self._hurry.clear()
            self._leases.close()

    def _pause_lanes(self, deadline: float) -> list[Lane]:
        """Have no thread in the middle of a job; give those that wait now, by *deadline* (monotonic)."""
        return self._lanes.pause(deadline)

    def _begin_anew(self) -> None:
        """In a child process: threads, locks and connections are the parent's."""
        self._opening.leave_to_parent()
        self._leases = Leases(self._root)
        self._start(self._opening.secret)


class _GoneError(Exception):
    """The directory is not the one that was opened."""


def _nothing() -> None:
    """Be the job that is done when all before it are."""
