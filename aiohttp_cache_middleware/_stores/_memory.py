"""A store for tests and short-lived programs: nothing outlives the process."""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import chain
from typing import Final, NamedTuple

from .._errors import StoreError
from .._model import BodyRef, Entry, StoredResponse, has_expired
from .._options import parse_bytes
from ._protocol import BodyReader, BodySpool, Report

_OVERHEAD: Final = 1024
"""Bytes that an entry is taken to cost beside its body and fields."""


class _Kept(NamedTuple):
    entry: Entry
    tag: str
    is_kept_stale: bool
    size: int


class MemoryStore:
    """
    Keeps entries, bodies included, in memory; what was not used for the longest time goes first.

    Args:
        max_size: Bytes that entries may take, by estimate; ``None``: no bound.
        clock: Tells POSIX time.

    Raises:
        TypeError, ValueError: *max_size* is no number of bytes.
    """

    def __init__(self, *, max_size: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self._max_size = parse_bytes("max_size", max_size)
        self._most = math.inf if max_size is None else max_size // 2  # bytes that one entry may take
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._size = 0
        self._lock = threading.RLock()
        self._secret = secrets.token_bytes(32)

    def __repr__(self) -> str:
        return f"<MemoryStore with {len(self._kept)} entries>"

    @property
    def known_secret(self) -> bytes:
        """What `secret` gives."""
        return self._secret

    @property
    def is_open(self) -> bool:
        """Always."""
        return True

    @property
    def is_opening(self) -> bool:
        """Never."""
        return False

    async def secret(self, *, patient: bool = False) -> bytes:
        """Give the 32 bytes that key this store's digests."""
        return self._secret

    async def get(self, key: str) -> Entry | None:
        """Give the entry under *key*."""
        return self.peek(key)

    def peek(self, key: str) -> Entry | None:
        """Give the entry under *key*; nothing here ever waits."""
        with self._lock:
            if (kept := self._kept.get(key)) is None:
                return None
            self._kept.move_to_end(key)
            return kept.entry

    def put(
        self,
        key: str,
        entry: Entry,
        *,
        tag: str,
        is_kept_stale: bool = True,
        spool: BodySpool | None = None,
    ) -> bool:
        """Keep *entry*, its body in memory."""
        if spool is not None and isinstance(entry, StoredResponse):
            if spool.size > self._most:  # it has let go of the body
                return False
            entry = entry.replace(body=spool.load())
            spool.discard()
        kept = _Kept(entry, tag, is_kept_stale, _size(entry))
        if kept.size > self._most:
            return False
        with self._lock:
            self._forget(key)
            self._kept[key] = kept
            self._size += kept.size
            self._make_room()
        return True

    def delete(self, key: str) -> None:
        """Remove an entry, if there is one."""
        with self._lock:
            self._forget(key)

    async def remove(self, keys: Iterable[str]) -> None:
        """Remove entries."""
        for key in keys:
            self.delete(key)

    async def tagged(self, tag: str) -> list[str]:
        """Give the keys of all entries put with *tag*."""
        with self._lock:
            return [key for key, kept in self._kept.items() if kept.tag == tag]

    async def open_body(self, key: str, body: BodyRef) -> BodyReader | None:
        """Find nothing: bodies are in their entries here."""
        self.delete(key)
        return None

    def load_body(self, key: str, body: BodyRef) -> bytes:
        """Give the body of the entry under *key*: there is none beside a record here."""
        raise StoreError("a body is missing")

    def spool(self) -> BodySpool:
        """Make room for a large body that is arriving."""
        return MemorySpool(self._most)

    def claim(self, key: str) -> bool:
        """Tell that no other process is there."""
        return True

    def unclaim(self, key: str) -> None:
        """Do nothing: there was no claim."""

    async def scan(self) -> AsyncIterator[tuple[str, Entry]]:
        """Iterate over the entries that are there now."""
        with self._lock:
            items = [(key, kept.entry) for key, kept in self._kept.items()]
        for item in items:
            yield item

    async def rewrite(
        self, change: Callable[[str, Entry], Entry | None], *, expired_by: float | None = None
    ) -> tuple[int, int]:
        """Apply *change* to every entry, or to those that have expired."""
        replaced = removed = 0
        with self._lock:
            for key, kept in list(self._kept.items()):
                if expired_by is not None and not has_expired(kept.entry, expired_by):
                    continue
                new = change(key, kept.entry)
                if new is None:
                    self._forget(key)
                    removed += isinstance(kept.entry, StoredResponse)
                elif new is not kept.entry:
                    changed = kept._replace(entry=new, size=_size(new))
                    self._size += changed.size - kept.size
                    self._kept[key] = changed
                    replaced += 1
        return replaced, removed

    async def count(self) -> int:
        """Number of stored responses."""
        with self._lock:
            return sum(isinstance(kept.entry, StoredResponse) for kept in self._kept.values())

    async def volume(self) -> int:
        """Bytes that entries take, by estimate."""
        return self._size

    async def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    async def verify(self, *, repair: bool = False) -> Report:
        """Report how many entries there are: nothing can be damaged."""
        return Report(entries=len(self._kept), repaired=repair)

    async def flush(self) -> None:
        """Return at once: what was accepted is kept."""

    async def aclose(self) -> None:
        """Keep what is there: the store may be used again."""

    def _forget(self, key: str) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._size -= old.size

    def _make_room(self) -> None:
        if self._max_size is None or self._size <= self._max_size:
            return
        now = self._clock()
        useless = [k for k, kept in self._kept.items() if not kept.is_kept_stale and has_expired(kept.entry, now)]
        for key in (*useless, *list(self._kept)):
            if self._size <= self._max_size:
                return
            self._forget(key)


class MemorySpool:
    """A body on its way into memory; beyond *limit* bytes it is let go."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes accepted so far."""
        return self._size

    @property
    def pending(self) -> int:
        """Bytes that wait: none."""
        return 0

    def write(self, chunk: bytes) -> None:
        """Accept *chunk*."""
        self._size += len(chunk)
        if self._size > self._limit:
            self._chunks.clear()
        else:
            self._chunks.append(chunk)

    async def drain(self) -> None:
        """Let others run."""
        await asyncio.sleep(0)

    def load(self) -> bytes:
        """Give the whole body written so far; `StoreError` where that was too much."""
        if self._size > self._limit:
            raise StoreError("a body is too large to be kept in memory")
        return b"".join(self._chunks)

    def discard(self) -> None:
        """Let go of the body."""
        self._chunks.clear()


def _size(entry: Entry) -> int:
    if not isinstance(entry, StoredResponse):
        return _OVERHEAD
    return _OVERHEAD + entry.size + sum(map(len, chain.from_iterable(entry.headers)))
