"""The default store: `diskcache` rows and body files in one directory, shared by any number of processes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .._codec import Codec, UndecodableError
from .._errors import StoreError
from .._model import BodyRef, Entry, StoredResponse
from .._options import parse_bytes, parse_flag, parse_secret_keys
from ._bodies import BodySeal, DiskSpool
from ._faults import Backoff, store_error
from ._lane import Lane, Lanes, in_turn
from ._leases import Leases
from ._management import Management
from ._opening import Opening
from ._processes import CLOSING, remember
from ._protocol import BodyReader, BodySpool, Report
from ._queue import Change, Queue
from ._sharing import location
from ._tier import Kept, Tier
from ._verified import VerifiedBodies
from ._writing import WriteBehind

if TYPE_CHECKING:
    from ._database import Database

IN_RECORD: Final = 256 * 1024
"""Bytes of body that are kept in the record itself; a larger one is a file, which is cheaper from there on."""

_LOOK_AGAIN: Final = 0.2  # seconds between looks at the directory and at commits that left no mark: 0.1 ms each
_ENDING: Final = 1.0  # seconds that closing waits for threads, which have nothing left to do, to be gone
_RENEW: Final = 3600.0  # seconds after which an entry in use is moved away from eviction


class DiskStore:
    """
    Keeps entries in *directory*. Making one does no I/O: the store is opened when it is first used.

    Args:
        directory: Made (0700) if it is missing.
        max_size: Bytes that all files together may take; ``None``: no bound.
        secret_keys: Authenticate what is stored: the first key writes, all of them read; ``()``: nothing does.
        compress: Whether bodies that get smaller by it are kept compressed, as far as they are kept in records.
        clock: Tells POSIX time, in seconds.

    Raises:
        TypeError, ValueError: An argument makes no sense.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_size: int | None,
        secret_keys: str | bytes | Sequence[str | bytes] = (),
        compress: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = Path(os.path.abspath(location(directory)))  # noqa: PTH100 (keeps a symbolic link, which is looked at)
        self._max_size = parse_bytes("max_size", max_size)
        keys = () if secret_keys == () else parse_secret_keys("secret_keys", secret_keys)
        self._codec = Codec(keys, compress=parse_flag("compress", compress))
        self._seal = BodySeal(keys)
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
        self._queue = Queue(self._tier)
        self._writing = WriteBehind(
            self._queue,
            self._lanes.writer,
            self._opening,
            self._codec,
            self._backoff,
            max_size=self._max_size,
            clock=self._clock,
        )
        self._management = Management(self._root, self._writing, self._codec, self._tier, self._bodies)
        self._pending = self._queue.pending  # nearer by one step, as every request looks into it
        self._checked_time = 0.0
        self._touched: dict[str, float] = {}

    # Opening

    @property
    def known_secret(self) -> bytes | None:
        """What `secret` gives, once the store has been opened."""
        return self._opening.secret

    @property
    def is_open(self) -> bool:
        """Whether rows can be read without waiting."""
        return self._opening.database is not None

    @property
    def is_opening(self) -> bool:
        """Whether the directory is being opened."""
        return self._opening.is_under_way

    async def secret(self, *, patient: bool = False) -> bytes:
        """Give the 32 bytes of the directory's secret file; *patient*: however long opening takes."""
        if patient and not self.is_open:
            await self._writing.run(lambda _: None)
        return (await self._opening.opened()).secret

    # Reading

    async def get(self, key: str) -> Entry | None:
        """Give the entry under *key*; read on the calling thread."""
        if self._opening.database is None and key not in self._pending:
            await self._opening.opened()
        return self.peek(key)

    def peek(self, key: str) -> Entry | None:
        """Give the entry under *key* if it can be had without waiting; nothing can while the store is not open."""
        if (change := self._pending.get(key)) is not None:
            return change.entry
        database = self._opening.database
        if database is None:
            return None
        try:
            now = time.monotonic()
            if now - self._checked_time > _LOOK_AGAIN:
                self._checked_time = now
                self._look_again(database)
            kept = self._tier.get(key, database.marks, now) or self._load(database, key)
            if kept is None:
                return None
            if kept.store_time + _RENEW < self._clock():
                self._renew(key)
            return kept.entry
        except Exception as error:
            raise self._read_failed(database, error) from error

    def _load(self, database: Database, key: str) -> Kept | None:
        # The mark before the row: a change in between then shows. An old one makes it only be read once more.
        mark = database.marks.of(key)
        row = database.reader.row(key)
        if row is None:
            return None
        record, store_time = row
        try:
            entry = self._codec.decode(key, record)
        except UndecodableError:
            self.delete(key)
            return None
        kept = Kept(mark, entry, float(store_time))
        self._tier.keep(key, kept)
        return kept

    def _look_again(self, database: Database) -> None:
        """See changes that left no mark: of the directory, and of a process that died after its commit."""
        if not database.is_current():
            raise _GoneError
        database.marks.look(self._checked_time)
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
        self._writing.accept(Change(key, is_touch=True))

    async def tagged(self, tag: str) -> list[str]:
        """Give the keys of all entries put with *tag*."""
        database = await self._opening.opened()
        # Looked at before the rows too: what is committed after they are read would be in neither.
        before = list(self._pending.items())
        try:
            keys = dict.fromkeys(database.reader.tagged(tag))
        except Exception as error:
            raise self._read_failed(database, error) from error
        for key, change in before + list(self._pending.items()):
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
        is_kept_stale: bool = True,
        spool: BodySpool | None = None,
    ) -> bool:
        """Accept *entry* for storing; refuses while the store fails (`StoreError`) and when too much is queued."""
        try:
            self._backoff.raise_while_failing()
            spool = spool if spool is not None else self._spool_if_large(entry)
            change = Change(key, entry, tag, is_kept_stale=is_kept_stale)
            if not self._has_room(change.size, spool):
                return False
            if isinstance(spool, DiskSpool) and isinstance(entry, StoredResponse):
                change.body = self._queue.land(spool)
                change.entry = entry.replace(body=BodyRef(spool.id, spool.size))
            self._writing.accept(change)
            return True
        finally:
            if spool is not None:
                spool.discard()

    def delete(self, key: str) -> None:
        """Remove an entry; never refused for want of room, as what must not be used any more would stay."""
        self._writing.accept(Change(key))

    async def remove(self, keys: Iterable[str]) -> None:
        """Remove entries, and wait until they are; `StoreError` where that fails: they stay hidden, and it goes on."""
        await self._writing.remove([Change(key) for key in keys])

    def _spool_if_large(self, entry: Entry) -> BodySpool | None:
        if isinstance(entry, StoredResponse) and isinstance(entry.body, bytes) and len(entry.body) > IN_RECORD:
            spool = self.spool()
            spool.write(entry.body)
            return spool
        return None

    def _has_room(self, size: int, spool: BodySpool | None) -> bool:
        total = size if spool is None else spool.size
        if self._max_size is not None and total > self._max_size // 2:
            return False
        return self._queue.has_room(size + self._waiting_for_files())

    def _waiting_for_files(self) -> int:
        """Bytes of bodies, accepted or not, that are in memory until the lane of files has written them."""
        return sum(spool.pending for spool in self._writing.spools())

    # Large bodies

    def spool(self) -> DiskSpool:
        """Make room for a large body that is arriving; refuses (`StoreError`) while too much waits to be written."""
        if not self._queue.has_room(self._waiting_for_files()):
            raise StoreError("too much waits to be written")
        limit = math.inf if self._max_size is None else self._max_size // 2
        spool = DiskSpool(self._lanes.files, self._opening.home, self._seal, limit, self._writing.may_grow)
        self._writing.make_room_for(spool)
        return spool

    async def open_body(self, key: str, body: BodyRef) -> BodyReader | None:
        """Open the body of the entry under *key*; it is verified whole before the first byte is given."""
        database = await self._opening.opened()
        try:
            if (landing := self._queue.landing.get(body.id)) is not None:
                await in_turn(self._lanes.files, landing)
            reader = await self._bodies.open(database.home, body)
            if reader is None:
                self._drop_without_body(database, key, body)
            return reader
        except asyncio.TimeoutError:
            raise StoreError("opening a body takes too long") from None
        except StoreError:
            raise
        except Exception as error:
            raise store_error(error) from error

    def _drop_without_body(self, database: Database, key: str, body: BodyRef) -> None:
        """Remove the entry under *key* if it is the one with *body*, and not what another process puts there now."""
        self._tier.forget(key)
        row = None if key in self._pending else database.reader.row(key)
        if row is None or not isinstance(row[0], bytes):
            return
        with contextlib.suppress(UndecodableError):
            entry = self._codec.decode(key, row[0])
            if isinstance(entry, StoredResponse) and entry.body == body:
                self._writing.accept(Change(key, if_record=row[0]))

    def load_body(self, key: str, body: BodyRef) -> bytes:
        """Give the body of the entry under *key*, checked; blocks."""
        try:
            if (landing := self._queue.landing.get(body.id)) is not None:
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
        unclaim = partial(self._leases.unclaim, key)
        if not self._queue.run_when_settled(unclaim):
            unclaim()

    # Management

    def scan(self) -> AsyncIterator[tuple[str, Entry]]:
        """Iterate over all entries, a page at a time; what can't be read is left out."""
        return self._management.scan()

    async def rewrite(
        self, change: Callable[[str, Entry], Entry | None], *, expired_by: float | None = None
    ) -> tuple[int, int]:
        """Apply *change* to every entry, or to the expired ones; what can't be read is removed and not counted."""
        return await self._management.rewrite(change, expired_by=expired_by)

    async def count(self) -> int:
        """Number of stored responses."""
        return await self._management.count()

    async def volume(self) -> int:
        """Bytes of all files in the directory."""
        return await self._management.volume()

    async def clear(self) -> None:
        """Remove all entries."""
        await self._management.clear()

    async def verify(self, *, repair: bool = False) -> Report:
        """
        Check the database, every record, body and file; *repair* removes what is damaged or left over.

        A database that can't be read is set aside, as whenever that comes to light.
        """
        return await self._management.verify(repair=repair)

    # The end

    async def flush(self) -> None:
        """
        Wait until everything accepted so far is kept.

        Raises:
            StoreError: Something accepted since the last call could not be kept.
        """
        await self._writing.flush()

    async def aclose(self) -> None:
        """Flush for at most `CLOSING` seconds, then give back everything; the store opens again when it is used."""
        try:
            await asyncio.wait_for(self.flush(), CLOSING)
        except asyncio.TimeoutError:
            raise StoreError("closing takes too long") from None
        finally:
            # In order: the writer lets go of the store, then closes its own connection, and the opener the others.
            for lane, job in (
                (self._lanes.files, _nothing),
                (self._lanes.writer, self._opening.close),
                (self._lanes.writer, _nothing),
                (self._lanes.opener, _nothing),
            ):
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.wrap_future(lane.submit(job)), 1.0)
            self._leases.close()
            self._lanes.end()
            deadline = time.monotonic() + _ENDING
            while self._lanes.are_running and time.monotonic() < deadline:  # noqa: ASYNC110 (threads set no such event)
                await asyncio.sleep(0.001)

    def close_now(self, timeout: float = CLOSING) -> bool:
        """Write what is queued and give back everything; blocks for at most *timeout* seconds, then tells ``False``."""
        deadline = time.monotonic() + timeout
        try:
            with self._writing.hurrying():
                if (self.is_open or self._queue) and not self._queue.run_when_settled(self._opening.close):
                    self._lanes.writer.run(self._opening.close)
                return self._lanes.stop(deadline)
        finally:
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
