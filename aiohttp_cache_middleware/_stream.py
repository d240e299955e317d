"""aiohttp's streams of a body: one that is watched while the caller reads it, one that is fed from memory or disk."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import deque
from itertools import chain, pairwise, zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import EMPTY_PAYLOAD, ClientPayloadError, StreamReader

from ._errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._stores._protocol import BodyReader

PIECE_SIZE = 256 * 1024
"""Bytes read from disk at a time while the caller reads in pieces; a large hit holds two of them at most."""

WHOLE_PIECE_SIZE = 64 * 1024 * 1024
"""
Bytes read from disk at a time when the caller wants the whole body in memory anyway: one piece needs no joining, which
takes four times as long as reading 10 MB.
"""

Ranges = tuple[tuple[int, int], ...]
"""Parts of a body, as (start, stop) byte offsets."""

_TELLS_DECODING = "total_compressed_bytes" in StreamReader.__slots__  # aiohttp 3.13
_READUNTIL_HAS_MAX_SIZE = "max_size" in inspect.signature(StreamReader.readuntil).parameters  # aiohttp 3.13


class BodyWatcher(Protocol):
    """
    Follows a body on its way from the origin to the caller. Nothing here may raise.

    All that `data` was given, and then what `WatchedStream.unread` gives, is the body as far as it has arrived.
    """

    @property
    def congested(self) -> bool:
        """Whether the caller's next read should wait for `drain` first."""

    async def drain(self) -> None:
        """Wait until there is room again (back-pressure)."""

    def data(self, chunk: bytes) -> None:
        """Take note of what the caller takes: every byte once, in order."""

    def arrived(self) -> None:
        """The origin's end of body is here, intact; some of it may still be unread."""

    def ended(self) -> None:
        """The caller has taken everything; nothing more is told, but `released` and `closed`."""

    def lost(self, why: str) -> None:
        """What was noted can't become the whole body any more; nothing more is told, but `released` and `closed`."""

    def released(self) -> None:
        """The caller (or aiohttp, following a redirect) releases the response; told before anything is torn down."""

    def closed(self) -> None:
        """The caller (or aiohttp, after a failure) closes the response; told before anything is torn down."""


class _FailureListener:
    """Stands where `StreamReader.wait_eof` would put a future, and so hears at once of a stream's failure."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        self._tell = tell

    def done(self) -> bool:
        return False

    def set_result(self, _: None) -> None:
        """The end of body is heard of through `on_eof`."""

    def set_exception(self, exc: BaseException) -> None:
        self._tell(exc)


class WatchedStream(StreamReader):
    """
    Another stream, with somebody watching what is read from it.

    Every reading method is the source's own, so that flow control, errors, timeouts and cancellation are
    aiohttp's. The base class is not initialised: what is not defined here is looked up in the source (`__getattr__`),
    which serves the inherited methods that only look (``at_eof``, ``exception``, ``__repr__``) and the iterators.

    Args:
        source: The stream aiohttp feeds; nothing has been read from it.
        watcher: Told what passes, from `start` on.
    """

    __slots__ = ("_failure_listener", "_has_arrived", "_limits", "_source", "_taken", "_watcher")

    def __init__(self, source: StreamReader, watcher: BodyWatcher) -> None:
        self._source = source
        self._watcher: BodyWatcher | None = watcher
        self._taken = source._cursor  # bytes the watcher has been told of
        self._has_arrived = False
        self._limits = source.get_read_buffer_limits()  # as they would be without read_ahead
        self._failure_listener = _FailureListener(self._failed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def start(self) -> None:
        """Tell the watcher from now on; at once, where the body has arrived or has failed already."""
        failure = self._source.exception()
        if failure is not None:
            self._failed(failure)
            return
        self._listen()
        self._source.on_eof(self._arrive)

    def unread(self) -> list[bytes] | None:
        """Give what has arrived and the watcher doesn't know yet; ``None`` in the middle of a reading method."""
        known = self._taken - self._source._cursor  # bytes the caller has put back
        return buffered(self._source, known) if known >= 0 else None

    def read_ahead(self, limit: int) -> None:
        """Let up to *limit* bytes arrive whatever the caller reads."""
        source = self._source
        source._low_water = max(source._low_water, limit // 2)
        source._high_water = max(source._high_water, limit)
        if hasattr(source, "_high_water_chunks"):
            source._high_water_chunks = max(source._high_water_chunks, limit // 16)  # as aiohttp has it
        if source.is_eof() or source.exception() is not None:
            return
        # It may have been paused anywhere below the new mark.
        if source._protocol._reading_paused and source._size <= source._high_water:
            source._protocol.resume_reading()

    async def read(self, n: int = -1) -> bytes:
        if n < 0:
            return await super().read(n)  # a loop over our readany
        if n > 0:
            self._raise_limits(n)
        await self._room()
        return self._note(await self._source.read(n))

    async def readany(self) -> bytes:
        await self._room()
        return self._note(await self._source.readany())

    async def readchunk(self) -> tuple[bytes, bool]:
        await self._room()
        data, is_end_of_chunk = await self._source.readchunk()
        return self._note(data), is_end_of_chunk

    async def readuntil(self, separator: bytes = b"\n", **options: int | None) -> bytes:
        await self._room()
        if _READUNTIL_HAS_MAX_SIZE:
            options["max_size"] = options.get("max_size") or self._limits[1]
        else:
            # How long a line may be is the high-water mark here: back to what the caller expects.
            self._source._low_water, self._source._high_water = self._limits
        try:
            return self._note(await self._source.readuntil(separator, **options))
        except BaseException:
            if self._source._cursor > self._taken:
                self._lose("a line was given up half read")
            raise

    def read_nowait(self, n: int = -1) -> bytes:
        return self._note(self._source.read_nowait(n))

    async def wait_eof(self) -> None:
        source = self._source
        waiter: object = source._eof_waiter
        if waiter is self._failure_listener:
            source._eof_waiter = None
        try:
            await source.wait_eof()
        finally:
            failure = source.exception()
            if failure is not None:
                self._failed(failure)
            elif source._eof_waiter is None:
                self._listen()

    def get_read_buffer_limits(self) -> tuple[int, int]:
        return self._limits

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        if exc_cause is None:
            self._source.set_exception(exc)
        else:
            self._source.set_exception(exc, exc_cause)
        self._failed(exc)

    def unread_data(self, data: bytes) -> None:
        self._source.unread_data(data)

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        return bool(self._source.feed_data(data, size))

    def feed_eof(self) -> None:
        self._source.feed_eof()

    def begin_http_chunk_receiving(self) -> None:
        self._source.begin_http_chunk_receiving()

    def end_http_chunk_receiving(self) -> None:
        self._source.end_http_chunk_receiving()

    if hasattr(StreamReader, "set_read_chunk_size"):  # aiohttp 3.14

        def set_read_chunk_size(self, n: int) -> None:
            self._raise_limits(n)
            self._source.set_read_chunk_size(n)

    def _raise_limits(self, n: int) -> None:
        if hasattr(StreamReader, "set_read_chunk_size") and n > self._limits[0]:
            self._limits = (n, n * 2)

    async def _room(self) -> None:
        # Before anything is taken: a reader that is cancelled here has lost nothing.
        if self._watcher is not None and self._watcher.congested:
            await self._watcher.drain()

    def _note(self, data: bytes) -> bytes:
        """Tell the watcher of *data*, which has just been taken from the source, except what had been put back."""
        if self._watcher is None:
            return data
        fresh = self._source._cursor - self._taken
        if fresh > len(data):
            self._lose("something was taken from the body unnoticed")
        elif fresh > 0:
            self._taken += fresh
            self._watcher.data(data[-fresh:])
        if self._source.is_eof():
            self._arrive()
        return data

    def _arrive(self) -> None:
        # Between a reading method's taking from the buffer and its return (aiohttp 3.14 parses more in between;
        # readuntil collects pieces) the watcher doesn't know all that is gone; `_note` calls again.
        if self._watcher is None or self._source._cursor > self._taken:
            return
        if not self._has_arrived:
            self._has_arrived = True
            self._watcher.arrived()
        if self._source.at_eof():
            watcher, self._watcher = self._watcher, None
            watcher.ended()

    def _listen(self) -> None:
        if self._watcher is not None and not self._source.is_eof():
            self._source._eof_waiter = self._failure_listener  # type: ignore[assignment]

    def _failed(self, exc: BaseException) -> None:
        self._lose(str(exc) or type(exc).__name__)

    def _lose(self, why: str) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.lost(why)


def buffered(stream: StreamReader, skip: int = 0) -> list[bytes]:
    """Give what has arrived in aiohttp's *stream* and is not read yet, but for the first *skip* bytes."""
    if stream is EMPTY_PAYLOAD:
        return []
    pieces: list[bytes] = []
    skip += stream._buffer_offset
    for piece in stream._buffer:
        if skip < len(piece):
            pieces.append(piece[skip:])
        skip = max(0, skip - len(piece))
    return pieces


def stream_is_decoded(stream: StreamReader) -> bool | None:
    """Tell whether aiohttp decodes what comes in *stream*; ``None`` where that can't be told."""
    if type(stream) is not StreamReader or not _TELLS_DECODING:
        return None
    return stream.total_compressed_bytes is not None


def is_untouched(stream: StreamReader) -> bool:
    """Tell whether nothing has been read from *stream* and it is one of aiohttp's own."""
    return stream is EMPTY_PAYLOAD or (type(stream) is StreamReader and stream._cursor == 0)


class _Nothing:
    """The protocol of a stream that is complete: there is nothing to pause or to resume."""

    connected = True
    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


def memory_stream(
    body: bytes,
    *,
    limit: int,
    loop: asyncio.AbstractEventLoop,
    line_limit: int = 0,
    is_chunked: bool = False,
    raw_size: int | None = None,
) -> StreamReader:
    """
    Make a stream that has received *body* and its end.

    Args:
        limit: aiohttp's ``read_bufsize``: half of what a line may measure,
        line_limit: but for a line of this many bytes.
        is_chunked: Whether the body came in chunks: then it is one, so that code which collects data until
            ``readchunk`` tells the end of a chunk gets it.
        raw_size: What ``total_raw_bytes`` tells, where it is not the length of *body*.
    """
    stream = StreamReader(_Nothing(), max(limit, line_limit // 2), loop=loop)  # type: ignore[arg-type]
    _feed(stream, body, is_chunked)
    _tell_raw_size(stream, raw_size)
    stream.feed_eof()
    return stream


def empty_stream() -> StreamReader:
    """Make a stream of the kind aiohttp gives where there is no body; not the one which all its responses share."""
    stream = type(EMPTY_PAYLOAD)()  # type: ignore[call-arg]  # EmptyStreamReader, which has no public name
    _tell_raw_size(stream, None)
    return stream


def _tell_raw_size(stream: StreamReader, raw_size: int | None) -> None:
    """Set what ``total_raw_bytes`` tells; ``None``: the bytes of the body."""
    if _TELLS_DECODING:
        stream.total_compressed_bytes = raw_size


def _feed(stream: StreamReader, data: bytes, is_chunked: bool) -> None:
    if is_chunked:
        stream.begin_http_chunk_receiving()
    stream.feed_data(data)
    if is_chunked:
        stream.end_http_chunk_receiving()


def cut(body: bytes, ranges: Iterable[tuple[int, int]], frames: Sequence[bytes] = ()) -> bytes:
    """
    Cut *ranges* out of *body*, in the order asked for, each after its frame.

    Args:
        frames: Empty, or one for each range and one for the end (multipart/byteranges, RFC 9110 §14.6).
    """
    parts = (body[start:stop] for start, stop in ranges)
    return b"".join(chain.from_iterable(zip_longest(frames, parts, fillvalue=b"")))


def are_in_order(ranges: Ranges) -> bool:
    """Tell whether one pass over the body serves *ranges*: ascending, and none overlaps another."""
    return all(before[1] <= after[0] for before, after in pairwise(ranges))


class Pump:
    """
    Feeds a stream from a body on disk, in the place of a connection's protocol.

    One read at a time, no task. The stream's own water marks pause and resume it, so that memory stays within the marks
    and one piece. The reader is closed at the end, on failure, and when nobody needs it any more.

    Args:
        reader: Where the body is; ours to close.
        ranges: The parts wanted, in order.
        frames: As in `cut`.
    """

    connected = True

    def __init__(self, reader: BodyReader, ranges: Ranges, frames: Sequence[bytes] = ()) -> None:
        self.reader = reader
        self.piece_size = PIECE_SIZE
        self._ranges = deque(ranges)
        self._frames = deque(frames)
        self._position = 0
        self._stream: Callable[[], _DiskStream | None] = lambda: None
        self._is_chunked = False
        self._raw_size: int | None = None
        self._is_pulling = False
        self._is_closed = False
        self._reading_paused = False

    def __del__(self) -> None:
        self.close()

    def stream(
        self,
        *,
        limit: int,
        loop: asyncio.AbstractEventLoop,
        is_chunked: bool,
        line_limit: int = 0,
        raw_size: int | None = None,
    ) -> StreamReader:
        """Make the stream and start to feed it (see `memory_stream`)."""
        stream = _DiskStream(self, limit, loop=loop)  # type: ignore[arg-type]
        stream.line_limit = line_limit
        self._stream = weakref.ref(stream)  # a stream that is dropped unread takes the pump with it
        self._is_chunked = is_chunked
        self._raw_size = raw_size
        self._pull()
        return stream

    def close(self) -> None:
        """Give back the reader."""
        if not self._is_closed:
            self._is_closed = True
            self.reader.close()

    def pause_reading(self) -> None:
        """Feed no more (called by the stream at its high-water mark)."""
        self._reading_paused = True

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on (called by the stream below its low-water mark, and at its end)."""
        self._reading_paused = False
        self._pull()

    def _pull(self) -> None:
        if self._is_pulling or self._reading_paused or self._is_closed:
            return
        try:
            reading = self.reader.read(self.piece_size)
        except StoreError as error:
            self._fail(error)
        else:
            self._is_pulling = True
            reading.add_done_callback(self._push)

    def _fail(self, cause: BaseException | None) -> None:
        self.close()
        stream = self._stream()
        if stream is not None:
            stream.set_exception(ClientPayloadError("Response payload is not completed"), cause)

    def _push(self, reading: asyncio.Future[bytes]) -> None:
        self._is_pulling = False
        failure = asyncio.CancelledError() if reading.cancelled() else reading.exception()
        stream = self._stream()
        if stream is None or self._is_closed:
            self.close()
            return
        piece = b"" if failure is not None else reading.result()
        if not piece and self._ranges:
            self._fail(failure)
            return
        data = self._cut(piece)
        if data:
            _feed(stream, data, self._is_chunked)
        if self._raw_size is not None:  # of which nobody knows what stands for this part of the body
            _tell_raw_size(stream, round(self._raw_size * self._position / self.reader.size))
        if self._ranges:
            self._pull()
        else:
            self.close()
            stream.feed_eof()

    def _cut(self, piece: bytes) -> bytes:
        """Give what is wanted of *piece*, the next of the body, with the frames that fall into it."""
        begin, end = self._position, self._position + len(piece)
        self._position = end
        data: list[bytes] = []
        while self._ranges and self._ranges[0][0] < end:
            start, stop = self._ranges[0]
            if start >= begin and self._frames:
                data.append(self._frames.popleft())
            data.append(piece[max(start - begin, 0) : stop - begin])
            if stop > end:
                break
            self._ranges.popleft()
        if not self._ranges:
            data.extend(self._frames)
        return b"".join(data) if len(data) > 1 else data[0] if data else b""


class _DiskStream(StreamReader):
    """
    A stream that is fed by a `Pump`, and stops it when it fails (``close`` and ``release`` make it fail).

    Attributes:
        line_limit: Bytes that a line may measure, however few are held otherwise.
    """

    __slots__ = ("__weakref__", "line_limit")

    line_limit: int

    async def readuntil(self, separator: bytes = b"\n", **options: int | None) -> bytes:
        if _READUNTIL_HAS_MAX_SIZE:
            options["max_size"] = options.get("max_size") or max(self.line_limit, self._high_water)
            return await super().readuntil(separator, **options)
        high_water = self._high_water
        self._high_water = max(self.line_limit, high_water)
        try:
            return await super().readuntil(separator)
        finally:
            self._high_water = high_water

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        if exc_cause is not None:
            exc.__cause__ = exc_cause
        super().set_exception(exc)
        self._protocol.close()  # type: ignore[attr-defined]
