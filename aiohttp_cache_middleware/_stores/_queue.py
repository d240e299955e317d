"""Changes that were accepted and are not yet committed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Final

from .._model import BodyRef, Entry, StoredResponse
from ._bodies import BodyFile, DiskSpool
from ._tier import Tier

QUEUE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes that may wait to be written; beyond, `DiskStore.put` accepts no more."""
BATCH: Final = 256
"""Changes per transaction."""

_BATCH_BYTES: Final = 2 * 1024 * 1024  # per transaction; so the limit is never exceeded by much
_OVERHEAD: Final = 1024  # bytes that a queued change costs beside its body


class Change:
    """
    A change that was accepted and is not yet committed.

    Attributes:
        entry: What `get` gives meanwhile; ``None``: it has been deleted.
        is_kept_stale: Whether the entry is of use when it has expired.
        body: A body that is landing.
        is_touch: Whether only the store time is renewed.
        if_record: The entry is deleted only if its record is still this one.
        jobs: What is to be done once it is settled.
    """

    def __init__(
        self,
        key: str,
        entry: Entry | None = None,
        tag: str = "",
        *,
        is_kept_stale: bool = True,
        is_touch: bool = False,
        if_record: bytes | None = None,
    ) -> None:
        self.key = key
        self.entry = entry
        self.tag = tag
        self.is_kept_stale = is_kept_stale
        self.is_touch = is_touch
        self.if_record = if_record
        self.body: Future[BodyFile] | None = None
        self.jobs: tuple[Callable[[], None], ...] = ()

    @property
    def is_removal(self) -> bool:
        """Whether the entry is deleted."""
        return self.entry is None and not self.is_touch

    @property
    def body_id(self) -> str | None:
        """Id of the entry's body, where that is in a file of its own."""
        entry = self.entry
        return entry.body.id if isinstance(entry, StoredResponse) and isinstance(entry.body, BodyRef) else None

    @property
    def body_size(self) -> int:
        """Bytes of its body on disk, which no row accounts for yet."""
        entry = self.entry
        if self.body is None or not isinstance(entry, StoredResponse) or self.has_failed:
            return 0
        return entry.size

    @property
    def has_failed(self) -> bool:
        """Whether its body could not be written."""
        return self.body is not None and self.body.done() and self.body.exception() is not None

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        entry = self.entry
        if isinstance(entry, StoredResponse) and isinstance(entry.body, bytes):
            return _OVERHEAD + len(entry.body)
        return _OVERHEAD


class Queue:
    """
    The changes in their order, and what reading finds of them meanwhile.

    Args:
        tier: Where entries are forgotten that a change replaces.

    Attributes:
        pending: By key, the last change that is more than a touch.
        landing: By id, bodies of changes.
        size: Bytes that all changes hold in memory, those in a batch included.
        is_draining: Whether somebody takes batches until there are none.
    """

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._lock = threading.RLock()
        self._changes: deque[Change] = deque()
        self._last: Change | None = None  # that was accepted and is not settled
        self.pending: dict[str, Change] = {}
        self.landing: dict[str, Future[BodyFile]] = {}
        self._with_body: dict[Change, None] = {}  # that are in no batch yet
        self.size = 0
        self.is_draining = False

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def landing_size(self) -> int:
        """Bytes of the bodies of changes that are in no batch yet, and will not be skipped."""
        with self._lock:
            return sum(change.body_size for change in self._with_body if not self.is_superseded(change))

    def is_superseded(self, change: Change) -> bool:
        """Tell whether a change accepted since takes the place of this one, and of its body's file."""
        later = self.pending.get(change.key)
        if later is None or later is change or later.if_record is not None or change.body_id is None:
            return False  # a removal that depends on what is on disk may leave this one there
        return later.body_id != change.body_id  # as that of a response which was only renewed since

    def has_room(self, size: int) -> bool:
        """Tell whether *size* bytes more may wait."""
        return self.size + size <= QUEUE_LIMIT

    def land(self, spool: DiskSpool) -> Future[BodyFile]:
        """Let the body in *spool* land; it is among those that do until its change is settled."""
        landing = self.landing[spool.id] = spool.land()
        return landing

    def accept(self, change: Change) -> bool:
        """Append *change*; tell whether somebody has to begin draining."""
        with self._lock:
            if not change.is_touch:
                self.pending[change.key] = change
                self._tier.forget(change.key)
            self.size += change.size
            if change.body is not None:
                self._with_body[change] = None
            self._changes.append(change)
            self._last = change
            begins, self.is_draining = not self.is_draining, True
        return begins

    def resume(self) -> bool:
        """Tell whether somebody has to begin draining: there are changes, and nobody is at it."""
        with self._lock:
            if self.is_draining or not self._changes:
                return False
            self._last = self._changes[-1]  # `give_up` waits for none of them any more
            self.is_draining = True
            return True

    def next_batch(self) -> list[Change]:
        """Take the changes of one transaction; when there are none, draining has ended."""
        batch: list[Change] = []
        size = 0
        with self._lock:
            while self._changes and len(batch) < BATCH and size < _BATCH_BYTES:
                batch.append(change := self._changes.popleft())
                # A batch waits for its bodies to land, and until it is written nothing of it can make room.
                size += change.size + change.body_size
                self._with_body.pop(change, None)
            if not batch:
                self.is_draining = False
        return batch

    def run_when_settled(self, job: Callable[[], None]) -> bool:
        """Have *job* run in the writer once all that was accepted is settled; ``False`` where it is already."""
        with self._lock:
            if self._last is None:
                return False
            self._last.jobs += (job,)
            return True

    def settle(self, batch: list[Change]) -> None:
        """Forget what is committed, or will never be."""
        with self._lock:
            for change in batch:
                self.size -= change.size
                if self.pending.get(change.key) is change:
                    del self.pending[change.key]
                if change.body is not None and change.body_id is not None:
                    self.landing.pop(change.body_id, None)
                if change is self._last:
                    self._last = None
        _run_jobs(batch)

    def give_up(self, batch: list[Change]) -> list[Change]:
        """
        End draining: drop what was to be stored, but keep what was to be removed until that succeeds.

        Returns:
            All changes that there were, *batch* first.
        """
        with self._lock:
            changes = [*batch, *self._changes]
            # They go with the next change, or with `flush`; until then `get` finds nothing under their keys.
            self._changes = deque(change for change in changes if change.is_removal)
            self._with_body.clear()
            self.is_draining = False
            self._last = None
            self.settle([change for change in changes if not change.is_removal])
        _run_jobs(changes)
        return changes


def _run_jobs(changes: Iterable[Change]) -> None:
    for change in changes:
        jobs, change.jobs = change.jobs, ()
        for job in jobs:
            job()
