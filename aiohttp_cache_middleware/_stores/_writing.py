"""Writing what was accepted, later and in batches, and making room for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Final, TypeVar

from .._codec import Codec, UnencodableError
from .._errors import StoreError
from .._model import VariantIndex
from ._bodies import BodyFile, DiskSpool, remove_body_file
from ._faults import Backoff, is_busy, store_error
from ._lane import Lane
from ._opening import Opening
from ._queue import BATCH, Change, Queue
from ._rows import Delete, Put, Touch, expire_time

if TYPE_CHECKING:
    from ._database import Database

T = TypeVar("T")

_LINGER: Final = 0.02  # seconds that the writer waits for company: one transaction for many costs a quarter each
_BUSY_LIMIT: Final = 30.0  # seconds for which a write tries again while others hold the lock
_PATIENCE: Final = 1.0  # seconds that an arriving body waits for room
_LANDING: Final = 0.01  # seconds between looks at the room while bodies land
_SLACK: Final = 1024 * 1024  # bytes by which arriving bodies may be ahead of the room made for them


class WriteBehind:
    """
    Writes in *lane*, the writer's.

    Args:
        queue: What is to be written.
        max_size: Bytes that all files together may take; ``None``: no bound.
        clock: Tells POSIX time.
    """

    def __init__(
        self,
        queue: Queue,
        lane: Lane,
        opening: Opening,
        codec: Codec,
        backoff: Backoff,
        *,
        max_size: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._lane = lane
        self._opening = opening
        self._codec = codec
        self._backoff = backoff
        self._max_size = max_size
        self._clock = clock
        self._hurry = threading.Event()
        self._lost: StoreError | None = None
        self._spools: weakref.WeakSet[DiskSpool] = weakref.WeakSet()
        self._spools_lock = threading.Lock()  # a set must not grow while it is gone through
        self._room_lock = threading.Lock()
        self._room_made = threading.Event()
        self._growth = 0
        self._is_making_room = False

    def accept(self, change: Change) -> None:
        """Have *change* written."""
        if self._queue.accept(change):
            self._lane.run(self._drain)

    async def flush(self) -> None:
        """Wait until everything accepted so far is kept; raise `StoreError` if something could not be."""
        if self._queue.resume():
            self._lane.run(self._drain)
        with self.hurrying():
            await self._settled()
        lost, self._lost = self._lost, None
        if lost is not None:
            raise lost

    async def run(self, job: Callable[[Database], T]) -> T:
        """Run *job* in the writer, with what was accepted before in place; raise `StoreError` where that fails."""
        self._backoff.raise_while_failing()

        def work() -> T:
            database = self._opening.opened_for_work()
            try:
                return job(database)
            except Exception as error:
                self._opening.note_damage(database, error)
                raise

        with self.hurrying():
            await self._settled()
            try:
                return await asyncio.wrap_future(self._lane.submit(work))
            except Exception as error:
                raise store_error(error) from error

    async def remove(self, changes: Sequence[Change]) -> None:
        """Have removals written, and wait for it; raise `StoreError` if one could not be, which stays queued then."""
        for change in changes:
            self.accept(change)
        with self.hurrying():
            await self._settled()
        if any(self._queue.pending.get(change.key) is change for change in changes):
            raise StoreError(self._backoff.cause or "a removal could not be written")

    async def _settled(self) -> None:
        """Wait until what was accepted so far is committed, or never will be."""
        settled: Future[None] = Future()

        def settle() -> None:
            if settled.set_running_or_notify_cancel():
                settled.set_result(None)

        if self._queue.run_when_settled(settle):
            await asyncio.wrap_future(settled)

    @contextlib.contextmanager
    def hurrying(self) -> Iterator[None]:
        """Wait for no company meanwhile."""
        self._hurry.set()
        try:
            yield
        finally:
            self._hurry.clear()

    def make_room_for(self, spool: DiskSpool) -> None:
        """Take note of a body that arrives, and needs room."""
        with self._spools_lock:
            self._spools.add(spool)

    def spools(self) -> list[DiskSpool]:
        """Give the bodies that arrive, or have arrived and are not on disk yet."""
        if not self._spools:  # as mostly; every response that is stored asks
            return []
        with self._spools_lock:
            return list(self._spools)

    def may_grow(self, size: int) -> bool:
        """Have room made for bodies while they arrive; ``False`` where that takes too long. In the lane of files."""
        if self._max_size is None:
            return True
        if self._backoff.is_failing:
            return False
        if self._opening.database is None:
            self._opening.home()  # opening takes its own time
        slack = max(_SLACK, self._max_size // 32)
        with self._room_lock:
            self._growth += size
            self._room_made.clear()
            is_late = self._growth > slack // 2 and not self._is_making_room
            self._is_making_room |= is_late
        if is_late:
            self._lane.run(self._make_room)
        return self._growth <= slack or self._room_made.wait(_PATIENCE)

    # Below: in the writer.

    def _drain(self) -> None:
        """Write a batch of what is queued; the rest in a job of its own, so that others have their turn."""
        if len(self._queue) < BATCH:
            self._hurry.wait(_LINGER)
        batch = self._queue.next_batch()
        if batch and self._write_batch(batch):
            self._lane.run(self._drain)

    def _write_batch(self, batch: list[Change]) -> bool:
        """Write *batch*; tell whether it is worth while to go on."""
        try:
            self._write_or_retry(batch)
        except Exception as error:  # noqa: BLE001 (the lane's thread outlives every failure)
            self._give_up(batch, store_error(error))
            return False
        self._backoff.note_success()
        self._queue.settle(batch)
        return True

    def _write_or_retry(self, batch: list[Change]) -> None:
        deadline = time.monotonic() + _BUSY_LIMIT
        while not self._write_unless_busy(batch):
            if time.monotonic() > deadline:
                raise StoreError("database is locked")

    def _write_unless_busy(self, batch: list[Change]) -> bool:
        database = self._opening.opened_for_work()
        try:
            self._write(database, batch)
        except Exception as error:
            if self._opening.note_damage(database, error):
                # What is set aside takes the bodies along.
                self._write(self._opening.opened_for_work(), [change for change in batch if change.body_id is None])
            elif is_busy(error):
                return False
            else:
                raise
        return True

    def _write(self, database: Database, batch: list[Change]) -> None:
        with_body = [change for change in batch if change.body is not None and not self._queue.is_superseded(change)]
        landing = [change.body for change in with_body if change.body is not None]
        while wait(landing, timeout=0).not_done:
            # Others arrive meanwhile, and all of them take room.
            database.marks.change(self._commit(database, [], sum(change.body_size for change in with_body)))
            wait(landing, timeout=_LANDING)
        rows = [row for change in batch if (row := self._row(change)) is not None]
        database.marks.change(self._commit(database, rows))
        with contextlib.suppress(Exception):  # what was written is written
            database.tidy()

    def _commit(self, database: Database, rows: list[Put | Delete | Touch], landing: int = 0) -> list[str]:
        """Write *rows* and make room for bodies that arrive, *landing* bytes more; give the keys of what is gone."""
        growth = self._growth
        arriving = sum(spool.arriving for spool in self.spools())
        room = database.room(arriving + self._queue.landing_size + landing)
        gone = database.records.write(rows, now=self._clock(), room=room)
        with self._room_lock:
            self._growth -= growth
        self._room_made.set()
        return gone

    def _make_room(self) -> None:
        self._is_making_room = False
        with contextlib.suppress(Exception):  # what fails here fails again with the next change, which tells
            self._write(self._opening.opened_for_work(), [])

    def _row(self, change: Change) -> Put | Delete | Touch | None:
        """Give what is to be written for *change*; nothing where its body did not land or it can't be encoded."""
        entry = change.entry
        if change.is_touch:
            return Touch(change.key)
        if self._queue.is_superseded(change):
            if change.body is not None:
                self._unlink(change.body)
            return None
        if entry is None:
            return Delete(change.key, change.if_record)
        try:
            record = self._codec.encode(change.key, entry)
            body = None if change.body is None else change.body.result()
        except (UnencodableError, StoreError) as error:
            if change.body is not None:
                self._unlink(change.body)
            self._lost = error if isinstance(error, StoreError) else StoreError(str(error))
            return None
        is_index = isinstance(entry, VariantIndex)
        expires = expire_time(entry, is_kept_stale=change.is_kept_stale)
        return Put(change.key, record, change.tag, expires, is_index, body, change.body_id)

    def _give_up(self, batch: list[Change], error: StoreError) -> None:
        """Drop what was to be stored; what was to be removed stays in the queue."""
        self._backoff.note_failure(error)
        self._lost = error
        with self._room_lock:
            self._growth = 0  # who waits for room waits in vain
        self._room_made.set()
        for change in self._queue.give_up(batch):
            if change.body is not None:
                self._unlink(change.body)

    def _unlink(self, landing: Future[BodyFile]) -> None:
        """Remove a body once it has landed; without waiting for that, as it may be waiting for the writer."""

        def unlink(landed: Future[BodyFile]) -> None:
            with contextlib.suppress(Exception):
                remove_body_file(self._opening.home(), landed.result().name)

        landing.add_done_callback(unlink)
