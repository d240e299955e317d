"""What the path asks of a store. Every method raises `StoreError` and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple, Protocol

from .._model import BodyRef, Entry


class Report(NamedTuple):
    """
    What `Store.verify` found.

    Attributes:
        entries: How many entries were read.
        damaged: Keys of entries whose record or body is missing, wrong or undecodable.
        orphans: Names of files that no entry uses.
        problems: What is wrong with the database itself, in its own words.
        repaired: Whether what was found has been removed; a database that can't be mended is set aside as a whole.
    """

    entries: int = 0
    damaged: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """Tell whether nothing was found."""
        return not (self.damaged or self.orphans or self.problems)


class BodyReader(Protocol):
    """A large body, open for reading; still readable to its end when its entry is replaced or deleted."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, size: int) -> asyncio.Future[bytes]:
        """Read up to *size* bytes off the loop; ``b""`` at the end. One read at a time."""

    def load(self) -> bytes:
        """Give the whole body; blocks (a filter or somebody who inspects the store asked for it)."""

    def close(self) -> None:
        """Give back what is held; may be called at any time, from any thread, more than once."""


class BodySpool(Protocol):
    """A large body on its way in. Belongs to one response; `Store.put` or `discard` ends it."""

    @property
    def size(self) -> int:
        """Bytes accepted so far."""

    @property
    def pending(self) -> int:
        """Bytes accepted and not yet written: what this spool holds in memory."""

    def write(self, chunk: bytes) -> None:
        """Accept *chunk*; returns at once and never raises: a failure makes `put` refuse the body."""

    async def drain(self) -> None:
        """Wait until little is pending (back-pressure). Returns at once after a failure."""

    def load(self) -> bytes:
        """Give the whole body written so far; blocks (a filter asked for it)."""

    def discard(self) -> None:
        """Remove what was written."""


class Store(Protocol):
    """
    Keeps entries by key, in an evictable order, across processes where it can.

    A store may be made outside a loop, used from several loops (one after the other, or in several threads
    at once), and after a fork. Reads see what `put` and `delete` accepted before them. Writes are queued and
    never awaited by a request.
    """

    @property
    def known_secret(self) -> bytes | None:
        """What `secret` gives, if it can be had without waiting."""

    @property
    def is_open(self) -> bool:
        """Whether `peek` gives what `get` gives."""

    @property
    def is_opening(self) -> bool:
        """Whether it is about to open, which nothing has kept it from so far."""

    async def secret(self, *, patient: bool = False) -> bytes:
        """
        Give the 32 bytes that key this store's digests, the same for all who use the store; opens it if need be.

        While the store is open it answers at once, without suspending.

        Args:
            patient: Wait for the store to open, as somebody may who looks into it; a request has a deadline.
        """

    async def get(self, key: str) -> Entry | None:
        """Give the entry, or ``None`` where there is none that can be read and trusted."""

    def peek(self, key: str) -> Entry | None:
        """Give the entry as `get` does, if it can be had without waiting, else ``None``."""

    def put(
        self,
        key: str,
        entry: Entry,
        *,
        tag: str,
        is_kept_stale: bool = True,
        spool: BodySpool | None = None,
    ) -> bool:
        """
        Accept *entry* for storing; tell whether it was accepted.

        Args:
            tag: Groups entries of one URL, for `tagged`.
            is_kept_stale: Whether it is of use when it has expired, for revalidation perhaps; else it goes then before
                others do.
            spool: Where the body is; it takes the place of ``entry.body`` and is used up whatever the answer.
        """

    def delete(self, key: str) -> None:
        """Remove an entry, if there is one."""

    async def remove(self, keys: Iterable[str]) -> None:
        """Remove entries, and wait until that is kept."""

    async def tagged(self, tag: str) -> list[str]:
        """Give the keys of all entries put with *tag*."""

    async def open_body(self, key: str, body: BodyRef) -> BodyReader | None:
        """Open the body of the entry under *key*, checked; ``None`` if it is missing or wrong (the entry goes then)."""

    def load_body(self, key: str, body: BodyRef) -> bytes:
        """Give the body of the entry under *key*, checked; blocks (somebody who inspects the store asked for it)."""

    def spool(self) -> BodySpool:
        """Make room for a large body that is arriving."""

    def claim(self, key: str) -> bool:
        """
        Claim *key* for this process, as a hint to others that it is asking the origin; never blocks.

        Returns:
            ``False`` where another live process has claimed it. A claim ends with `unclaim` or with the process.
        """

    def unclaim(self, key: str) -> None:
        """Take back a claim, once others can see what was accepted before."""

    def scan(self) -> AsyncIterator[tuple[str, Entry]]:
        """Iterate over all entries, a page at a time, off the loop; bodies may be left out (``b""``)."""

    async def rewrite(
        self, change: Callable[[str, Entry], Entry | None], *, expired_by: float | None = None
    ) -> tuple[int, int]:
        """
        Apply *change* to every entry, off the loop: the same object keeps it, another replaces it, ``None`` removes it.

        Args:
            expired_by: Only to responses that have expired by this POSIX time, which takes no look at the others.

        Returns:
            How many were replaced and how many removed (of the latter only responses count, not indexes).
        """

    async def count(self) -> int:
        """Number of stored responses."""

    async def volume(self) -> int:
        """Bytes used, everything included."""

    async def clear(self) -> None:
        """Remove all entries."""

    async def verify(self, *, repair: bool = False) -> Report:
        """Check every record, body and file."""

    async def flush(self) -> None:
        """Wait until everything accepted so far is kept."""

    async def aclose(self) -> None:
        """Flush, then give back everything; the store opens again when it is next used."""
