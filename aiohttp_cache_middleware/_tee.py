"""The body to the caller and, if it arrives whole, to the store."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._response import CachedResponse, read_ahead, unread, watch_body

if TYPE_CHECKING:
    from ._stores import BodySpool

MEMORY_LIMIT = 256 * 1024
"""Bytes of a body held in memory; what is larger goes to a spool."""

PENDING_LIMIT = 4 * 1024 * 1024
"""Bytes that may wait for the disk before the caller's reading waits too."""

DISK_PATIENCE = 2.0
"""Seconds for which a caller's reading waits for a disk that is behind; then the body is not stored."""

READ_AHEAD = 1024 * 1024
"""Bytes of a body that arrive for those who wait, whether the leader's caller reads or not."""

OPEN_PATIENCE = 1.0
"""Seconds after its fields for which a body of unknown length is waited for: it may be a stream without end."""

TOO_LARGE = "larger than max_body_size"
NO_ROOM = "the store has no room for a large body"
TOO_SLOW = "the store takes too long to write a large body"


class Capture:
    """
    Copies a body while the caller reads it, and hands the copy on once it is whole.

    It is whole when the origin's end of body has arrived intact and the caller has read to it, or let go of a
    body that he never touched, or others wait for it (`hurry`). In every other case it is dropped; also when the
    caller drops a response without a word, for it lives no longer than the response and its stream.

    Args:
        response: Whose body to copy; watched at once, and not kept alive.
        max_size: Bytes beyond which the body is not wanted; ``None``: no limit.
        spool: Makes room for a large body; ``None``: there is none.
        keep: Called once with the whole body: bytes, or a spool that holds it.
        drop: Called once with the reason, if `keep` never will be.
    """

    def __init__(
        self,
        response: CachedResponse,
        *,
        max_size: int | None,
        spool: Callable[[], BodySpool | None],
        keep: Callable[[bytes | BodySpool], None],
        drop: Callable[[str], None],
    ) -> None:
        self._response = weakref.ref(response)
        self._loop = asyncio.get_running_loop()
        self._start_time = self._loop.time()
        self._max_size = max_size
        self._make_spool = spool
        self._keep = keep
        self._drop = drop
        self._chunks: list[bytes] = []
        self._spool: BodySpool | None = None
        self._is_over = False
        self._has_arrived = False
        self._is_hurried = False
        self.size = 0
        watch_body(response, self)

    @property
    def congested(self) -> bool:
        """Whether the disk is behind, so that the caller's next read should wait for `drain`."""
        return self._spool is not None and self._spool.pending > PENDING_LIMIT

    def data(self, chunk: bytes) -> None:
        """Copy what the caller takes."""
        if self._is_over:
            return
        self.size += len(chunk)
        if self._max_size is not None and self.size > self._max_size:
            self.lost(TOO_LARGE)
        elif self._spool is not None:
            self._spool.write(chunk)
        else:
            self._chunks.append(chunk)
            if self.size > MEMORY_LIMIT:
                self._move_to_spool()

    async def drain(self) -> None:
        """Wait until the disk has caught up; not for one that stands still."""
        if self._spool is None or self._is_over:
            return
        try:
            await asyncio.wait_for(self._spool.drain(), DISK_PATIENCE)
        except asyncio.TimeoutError:
            self.lost(TOO_SLOW)

    def arrived(self) -> None:
        """The origin's end of body is here, intact."""
        self._has_arrived = True
        if self._is_hurried:
            self._finish_with_unread()

    def hurry(self) -> bool:
        """
        Others wait: let the body arrive, and do not wait for the caller to read it.

        Returns:
            Whether waiting is worth while: it is not for a body of which more than `READ_AHEAD` has arrived, nor for
            one of unknown length that has been arriving for longer than `OPEN_PATIENCE`.
        """
        self._is_hurried = True
        if self._has_arrived:
            self._finish_with_unread()
        response = self._response()
        if self._is_over or response is None:
            return self._is_over
        read_ahead(response, READ_AHEAD)
        is_late = response.content_length is None and self._loop.time() > self._start_time + OPEN_PATIENCE
        return response.size <= READ_AHEAD and not is_late

    def ended(self) -> None:
        """The caller has read everything."""
        if not self._is_over:
            self._finish()

    def released(self) -> None:
        """The caller lets go: what arrived whole and untouched is kept, what was read in part is not."""
        if self._has_arrived and self.size == 0:
            self._finish_with_unread()
        self.lost("released before its end was read")

    def closed(self) -> None:
        """The caller gives up."""
        self.lost("closed before its end was read")

    def lost(self, why: str) -> None:
        """The copy cannot become whole."""
        if self._is_over:
            return
        drop = self._drop
        spool = self._end()
        if spool is not None:
            spool.discard()
        drop(why)

    def __del__(self) -> None:
        if self._is_over:
            return
        try:
            # Garbage is collected in any thread.
            self._loop.call_soon_threadsafe(self._drop, "dropped before its end was read")
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._drop("dropped before its end was read")

    def _move_to_spool(self) -> None:
        self._spool = self._make_spool()
        if self._spool is None:
            self.lost(NO_ROOM)
            return
        for chunk in self._chunks:
            self._spool.write(chunk)
        self._chunks.clear()

    def _finish_with_unread(self) -> None:
        response = self._response()
        if self._is_over or response is None:
            return
        rest = unread(response)
        if rest is None:
            return
        for chunk in rest:
            self.data(chunk)
        self.ended()

    def _finish(self) -> None:
        keep, body = self._keep, b"".join(self._chunks)
        spool = self._end()
        keep(body if spool is None else spool)

    def _end(self) -> BodySpool | None:
        """Let go of everything, for the response may live on for long; give the spool, whose end is the caller's."""
        self._is_over = True
        spool, self._spool = self._spool, None
        self._chunks.clear()
        self._keep = self._drop = _nothing_more
        return spool


def _nothing_more(_: object) -> None:
    """Stand in for what has been called."""
