"""A body watched on its way from the origin: the caller sees what plain aiohttp shows; the watcher, all of it."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientSession,
    ClientTimeout,
    StreamReader,
    TCPConnector,
    TraceConfig,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_cache_middleware._response import read_ahead, unread, whole_body
from aiohttp_cache_middleware._stream import WatchedStream
from tests.bodies import (
    BODIES,
    BODILESS,
    LARGE,
    QUIRKS,
    READINGS,
    SMALL,
    Body,
    Reading,
    Recorder,
    Watching,
    origin,
    outcome,
    raw_origin,
    see,
)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("reading_name", READINGS)
async def test_caller_sees_what_plain_aiohttp_shows(reading_name: str, name: str) -> None:
    if name in BODILESS and reading_name in QUIRKS:
        pytest.skip("aiohttp's stream of all empty bodies answers only the first caller; it is passed on as it is")
    body, reading = BODIES[name], READINGS[reading_name]
    watching = Watching()
    async with origin() as server:
        url = server.make_url(body.path)
        assert await see(url, body, reading, watching) == await see(url, body, reading)
        whole = await see(url, body, READINGS["response.read"])
    (recorder,) = watching.recorders
    assert ("ended" in recorder.events) ^ ("lost" in recorder.events)
    if "ended" in recorder.events:
        assert recorder.taken == whole
        assert recorder.events.index("arrived") < recorder.events.index("ended")
    else:
        assert whole.startswith(recorder.taken)


BROKEN = {
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"hello\n"),
    "broken chunking": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\nZZ\r\n"),
    "chunks cut off": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"),
    "not gzip": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Encoding: gzip\r\n\r\n", b"0123456789"),
    "broken gzip": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\nContent-Encoding: gzip\r\n\r\n",
        zlib.compressobj(wbits=31).compress(b"x") + bytes(190),
    ),
}
WHOLE_READINGS = sorted(
    READINGS.keys()
    - {"read(0)", "after release", "content after release", "after close", "empty separator"}
    - {"wait_eof"}  # waits for ever in plain aiohttp, if the body has failed before
)


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("reading", WHOLE_READINGS)
async def test_broken_body_fails_as_in_plain_aiohttp_and_is_lost(reading: str, broken: str) -> None:
    if broken == "broken chunking" and reading not in {"response.read", "readline"}:
        pytest.skip("aiohttp waits for its timeout here, which takes long; two kinds of reading are enough")
    watching = Watching()
    body = Body("/", session={"timeout": ClientTimeout(total=0.3)})
    async with raw_origin(*BROKEN[broken]) as url:
        plain = await see(url, body, _kind_of(READINGS[reading]))
        assert await see(url, body, _kind_of(READINGS[reading]), watching) == plain
    (recorder,) = watching.recorders
    assert "arrived" not in recorder.events
    assert recorder.events.count("lost") == 1


def _kind_of(reading: Reading) -> Reading:
    """Of an error its type alone: the text may say how much of the body had arrived."""

    async def kind(response: Any) -> Any:
        seen = await outcome(reading, response)
        return seen[0] if isinstance(seen, tuple) and isinstance(seen[0], type) else seen

    return kind


HELD = (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"hello\nand")


@pytest.mark.parametrize(
    "timeout", [ClientTimeout(sock_read=0.05), ClientTimeout(total=0.05)], ids=["sock_read", "total"]
)
@pytest.mark.parametrize("reading", ["response.read", "read", "readline", "readexactly", "wait_eof"])
async def test_timeout_in_mid_body(reading: str, timeout: ClientTimeout) -> None:
    if reading == "wait_eof" and timeout.total:
        pytest.skip("aiohttp leaves the reading task of this way behind")
    watching = Watching()
    body = Body("/", session={"timeout": timeout})
    async with raw_origin(*HELD, holds=True) as url:
        plain = await see(url, body, _kind_of(READINGS[reading]))
        assert await see(url, body, _kind_of(READINGS[reading]), watching) == plain
        assert issubclass(plain, asyncio.TimeoutError)
    assert watching.recorders[0].events.count("lost") == 1


@pytest.mark.parametrize("reading", ["response.read", "read", "readline", "readany", "readchunk"])
async def test_cancelled_reading(reading: str) -> None:
    watching = Watching()
    async with (
        raw_origin(*HELD, holds=True) as url,
        ClientSession(middlewares=[watching]) as session,
        session.get(url) as response,
    ):
        task = asyncio.ensure_future(READINGS[reading](response))
        while watching.recorders[0].taken != b"hello\nand" and reading != "readline":
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert watching.recorders[0].events.count("lost") == 1


async def test_cancelled_line_is_lost_only_if_something_was_taken() -> None:
    stream, recorder, watched = _a_stream()
    for _ in range(2):
        task = asyncio.ensure_future(watched.readline())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ("lost" in recorder.events) == bool(stream.total_bytes)
        stream.feed_data(b"half a line")


@pytest.mark.parametrize("ends", ["release", "close"])
async def test_letting_go_in_mid_body_gives_the_connection_back(ends: str) -> None:
    watching = Watching()
    connector = TCPConnector(limit=1)
    async with (
        raw_origin(*HELD, holds=True) as url,
        ClientSession(middlewares=[watching], connector=connector) as session,
    ):
        response = await session.get(url)
        assert await response.content.readline() == b"hello\n"
        getattr(response, ends)()
        with pytest.raises(ClientConnectionError):
            await response.content.read()
        (await session.get(url)).close()  # there is a free place again
    assert watching.recorders[0].events == [f"{ends}d".replace("eed", "ed"), "lost"]


async def test_released_redirect_has_its_body_still() -> None:
    watching = Watching()
    bodies: list[list[bytes] | None] = []
    seen: list[str] = []

    async def on_redirect(session: Any, context: Any, params: Any) -> None:
        bodies.append(unread(params.response))
        seen.extend(watching.recorders[0].events)

    tracing = TraceConfig()
    tracing.on_request_redirect.append(on_redirect)
    async with (
        origin() as server,
        ClientSession(middlewares=[watching], trace_configs=[tracing]) as session,
        session.get(server.make_url("/redirect")) as response,
    ):
        assert await response.read() == SMALL
    assert bodies == [[b"go on"]]
    assert seen == ["arrived"]
    assert watching.recorders[0].events[:3] == ["arrived", "released", "lost"]


async def test_failure_of_the_origin_is_told_at_once_though_nobody_reads() -> None:
    watching = Watching()
    async with (
        raw_origin(*BROKEN["cut off"]) as url,
        ClientSession(middlewares=[watching]) as session,
        session.get(url),
    ):
        await watching.recorders[0].over.wait()
        assert watching.recorders[0].events == ["lost"]


async def test_arrival_is_told_though_nobody_reads_and_the_rest_is_there() -> None:
    stream, recorder, watched = _a_stream()
    stream.feed_data(b"one ")
    stream.feed_data(b"two ")
    assert await watched.read(2) == b"on"
    stream.feed_data(b"three")
    assert recorder.events == []
    stream.feed_eof()
    assert recorder.events == ["arrived"]
    assert recorder.taken == b"on"
    assert watched.unread() == [b"e ", b"two ", b"three"]
    assert await watched.read() == b"e two three"
    assert recorder.events == ["arrived", "ended"]


async def test_end_after_the_last_byte_was_taken() -> None:
    stream, recorder, watched = _a_stream()
    stream.feed_data(b"all")
    assert await watched.readany() == b"all"
    assert recorder.events == []
    stream.feed_eof()
    assert recorder.events == ["arrived", "ended"]


async def test_end_in_the_middle_of_a_line_is_told_when_the_watcher_has_it_all() -> None:
    stream, recorder, watched = _a_stream()
    stream.feed_data(b"no end of line")
    task = asyncio.ensure_future(watched.readline())
    await asyncio.sleep(0)
    assert watched.unread() is None
    stream.feed_eof()
    assert recorder.events == []
    assert await task == b"no end of line"
    assert recorder.events == ["arrived", "ended"]
    assert recorder.taken == b"no end of line"


async def test_already_failed_body_is_lost_at_once() -> None:
    stream = _source()
    stream.set_exception(ValueError("broken"))
    recorder = Recorder()
    WatchedStream(stream, recorder).start()
    assert recorder.events == ["lost"]


async def test_body_read_by_another_middleware() -> None:
    async def reads_all(request: Any, handler: Any) -> Any:
        response = await handler(request)
        await response.read()
        return response

    async def reads_some(request: Any, handler: Any) -> Any:
        response = await handler(request)
        await response.content.read(3)
        return response

    async with origin() as server:
        url = server.make_url("/small")
        watching = Watching()
        assert await see(url, Body("/small"), READINGS["response.read"], watching, reads_all) == SMALL
        assert watching.recorders[0].events[:2] == ["arrived", "ended"]
        assert watching.recorders[0].taken == SMALL
        watching = Watching()
        assert await see(url, Body("/small"), READINGS["response.read"], watching, reads_some) == SMALL[3:]
        assert watching.recorders[0].events[0] == "lost"


async def test_whole_body_of_what_has_arrived() -> None:
    async with origin() as server, ClientSession() as session:
        async with session.get(server.make_url("/small")) as response:
            await response.content.wait_eof()
            assert whole_body(response) == SMALL
            assert await response.content.read(1) == SMALL[:1]
            assert whole_body(response) is None
        async with session.get(server.make_url("/small")) as response:
            await response.read()
            assert whole_body(response) == SMALL
    async with raw_origin(*HELD, holds=True) as url, ClientSession() as session, session.get(url) as response:
        assert whole_body(response) is None


# Back-pressure and read-ahead


@pytest.mark.parametrize(
    "reading", ["read(n)", "readany", "readchunk", "readline", "readuntil", "iter_chunked", "read"]
)
async def test_caller_waits_while_the_watcher_has_no_room(reading: str) -> None:
    stream, recorder, watched = _a_stream()
    stream.feed_data(b"line 1\nline 2\n")
    stream.feed_eof()
    recorder.congested = True

    class Response:
        content = watched

    task = asyncio.ensure_future(READINGS[reading](Response()))  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    assert recorder.events == ["arrived", "drain"]
    assert recorder.taken == b""
    recorder.room.set()
    await task
    assert recorder.taken == b"line 1\nline 2\n"


async def test_cancelled_while_waiting_for_room_loses_nothing() -> None:
    stream, recorder, watched = _a_stream()
    stream.feed_data(b"all")
    stream.feed_eof()
    recorder.congested = True
    task = asyncio.ensure_future(watched.readany())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    recorder.room.set()
    assert await watched.readany() == b"all"
    assert recorder.events[-1] == "ended"


async def test_without_reading_aiohttp_holds_the_origin_back() -> None:
    watching = Watching()
    async with (
        origin() as server,
        ClientSession(middlewares=[watching]) as session,
        session.get(server.make_url("/large")) as response,
    ):
        _low, high = response.content.get_read_buffer_limits()
        total = -1
        while total != response.content.total_bytes:
            total = response.content.total_bytes
            await asyncio.sleep(0.02)
        assert high < total < len(LARGE)


async def test_read_ahead_pulls_the_body_whatever_the_caller_does() -> None:
    watching = Watching()
    async with (
        origin() as server,
        ClientSession(middlewares=[watching]) as session,
        session.get(server.make_url("/large")) as response,
    ):
        limits = response.content.get_read_buffer_limits()
        read_ahead(watching.responses[0], len(LARGE) + 1)
        await watching.recorders[0].over.wait()
        assert watching.recorders[0].events == ["arrived"]
        assert b"".join(unread(response) or []) == LARGE
        assert response.content.get_read_buffer_limits() == limits
        assert await response.read() == LARGE
    assert watching.recorders[0].events[:2] == ["arrived", "ended"]


async def test_read_ahead_stops_at_its_limit() -> None:
    watching = Watching()
    async with (
        origin() as server,
        ClientSession(middlewares=[watching]) as session,
        session.get(server.make_url("/large")) as response,
    ):
        read_ahead(watching.responses[0], 1024 * 1024)
        total = -1
        while total != response.content.total_bytes:
            total = response.content.total_bytes
            await asyncio.sleep(0.02)
        assert 512 * 1024 < total < 2 * 1024 * 1024


@pytest.mark.parametrize("ahead", [False, True], ids=["", "read ahead"])
async def test_longest_line_is_as_long_as_in_plain_aiohttp(ahead: bool) -> None:
    outcomes: list[list[Any]] = []
    for watch in (False, True):
        stream = _source()
        recorder = Recorder()
        reader = WatchedStream(stream, recorder) if watch else stream
        if isinstance(reader, WatchedStream):
            reader.start()
            if ahead:
                reader.read_ahead(2**20)
        _low, high = reader.get_read_buffer_limits()
        stream.feed_data(b"x" * (high - 1) + b"\n")
        stream.feed_data(b"x" * high + b"\n")
        stream.feed_eof()
        outcomes.append([])
        for _ in range(2):
            try:
                outcomes[-1].append(await reader.readline())
            except Exception as error:
                outcomes[-1].append((type(error), str(error)))
        if watch:
            assert "lost" in recorder.events
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0][1], tuple)


@pytest.mark.skipif(not hasattr(StreamReader, "set_read_chunk_size"), reason="since aiohttp 3.14")
@pytest.mark.parametrize("how", ["set_read_chunk_size", "read"])
async def test_larger_pieces_raise_the_limits_as_in_plain_aiohttp(how: str) -> None:
    plain = _source()
    _stream, _, watched = _a_stream()
    seen = []
    for reader in (plain, watched):
        reader.feed_data(b"hello")
        if how == "read":
            assert await reader.read(2**20) == b"hello"
        else:
            reader.set_read_chunk_size(2**20)
        seen.append(reader.get_read_buffer_limits())
    assert seen[0] == seen[1] != _source().get_read_buffer_limits()


async def test_two_readers_at_once_are_refused_as_in_plain_aiohttp() -> None:
    _stream, _recorder, watched = _a_stream()
    task = asyncio.ensure_future(watched.readany())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already waiting"):
        await watched.readany()
    with pytest.raises(RuntimeError, match="waiting for incoming data"):
        watched.read_nowait()
    task.cancel()


async def test_callers_own_exception_on_the_stream() -> None:
    stream, recorder, watched = _a_stream()
    task = asyncio.ensure_future(watched.readany())
    await asyncio.sleep(0)
    watched.set_exception(ValueError("mine"), KeyError("cause"))
    with pytest.raises(ValueError, match="mine"):
        await task
    assert recorder.events == ["lost"]
    assert isinstance(watched.exception(), ValueError)
    assert watched.exception() is stream.exception()


async def test_failure_is_told_though_somebody_waits_for_the_end() -> None:
    stream, recorder, watched = _a_stream()
    task = asyncio.ensure_future(watched.wait_eof())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    task = asyncio.ensure_future(watched.wait_eof())
    await asyncio.sleep(0)
    stream.set_exception(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await task
    assert recorder.events == ["lost"]


async def test_failure_is_told_at_once_though_somebody_has_waited_for_the_end() -> None:
    stream, recorder, watched = _a_stream()
    task = asyncio.ensure_future(watched.wait_eof())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stream.set_exception(ValueError("broken"))
    assert recorder.events == ["lost"]


@pytest.mark.parametrize("then", [0, 2, 10])
async def test_what_somebody_takes_from_the_source_itself_is_noticed(then: int) -> None:
    """As a middleware behind the cache may that has kept the stream: the copy would lack it."""
    stream, recorder, watched = _a_stream()
    stream.feed_data(b"hello")
    assert await stream.read(4) == b"hell"
    assert await watched.read(then) == b"o"[:then]
    stream.feed_eof()
    assert await watched.read() == b"o"[then:]
    assert recorder.events == ["lost"]
    assert recorder.taken == b""


# Laws


class _Protocol:
    connected = True
    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


def _source() -> StreamReader:
    return StreamReader(_Protocol(), 2**16, loop=asyncio.get_running_loop())  # type: ignore[arg-type]


def _a_stream() -> tuple[StreamReader, Recorder, WatchedStream]:
    stream, recorder = _source(), Recorder()
    watched = WatchedStream(stream, recorder)
    watched.start()
    return stream, recorder, watched


STEPS = st.one_of(
    st.tuples(st.just("feed"), st.binary(min_size=1, max_size=5)),
    st.tuples(st.just("read"), st.integers(1, 6)),
    st.tuples(st.just("readany"), st.none()),
    st.tuples(st.just("readchunk"), st.none()),
    st.tuples(st.just("readline"), st.none()),
    st.tuples(st.just("read_nowait"), st.integers(1, 6)),
    st.tuples(st.just("unread_data"), st.integers(1, 3)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=20))
def test_law_told_and_unread_make_up_what_arrived(steps: list[tuple[str, Any]]) -> None:
    asyncio.run(_follow(steps))


async def _follow(steps: list[tuple[str, Any]]) -> None:
    stream, recorder, watched = _a_stream()
    plain = _source()
    sent, last = b"", b""
    for name, argument in [*steps, ("feed", b"\n"), ("eof", None)]:
        if name == "feed":
            sent += argument
            stream.feed_data(argument)
            plain.feed_data(argument)
        elif name == "eof":
            stream.feed_eof()
            plain.feed_eof()
        elif name == "unread_data":
            if last:
                with pytest.warns(DeprecationWarning, match="unread_data"):
                    watched.unread_data(last[-argument:])
                with pytest.warns(DeprecationWarning, match="unread_data"):
                    plain.unread_data(last[-argument:])
                last = b""
        elif stream._buffer and (name != "readline" or b"\n" in b"".join(stream._buffer)[stream._buffer_offset :]):
            seen, expected = [getattr(each, name) for each in (watched, plain)]
            seen, expected = [call() if argument is None else call(argument) for call in (seen, expected)]
            if name != "read_nowait":
                seen, expected = await seen, await expected
            assert seen == expected
            last = seen[0] if name == "readchunk" else seen
        assert "lost" not in recorder.events
        assert recorder.taken + b"".join(watched.unread() or []) == sent
    assert await watched.read() == await plain.read()
    assert recorder.taken == sent
    assert recorder.events == ["arrived", "ended"]


def test_every_public_name_of_aiohttps_stream_has_been_thought_of() -> None:
    delegated = {
        "begin_http_chunk_receiving",
        "end_http_chunk_receiving",
        "feed_data",
        "feed_eof",
        "get_read_buffer_limits",
        "read",
        "read_nowait",
        "readany",
        "readchunk",
        "readuntil",
        "set_exception",
        "set_read_chunk_size",
        "unread_data",
        "wait_eof",
    }
    looks_only = {"at_eof", "exception", "is_eof", "on_eof", "total_bytes", "total_compressed_bytes", "total_raw_bytes"}
    calls_others = {"iter_any", "iter_chunked", "iter_chunks", "readexactly", "readline"}
    public = {name for name in dir(StreamReader) if not name.startswith("_")}
    assert public <= delegated | looks_only | calls_others
    assert public & delegated == {name for name in vars(WatchedStream) if name in public}


async def test_looks_like_its_source() -> None:
    stream, _, watched = _a_stream()
    stream.feed_data(b"hello")
    assert watched.total_bytes == 5
    assert repr(watched) == repr(stream).replace("StreamReader", "WatchedStream")
    assert not watched.is_eof()
    stream.feed_eof()
    assert watched.is_eof()
    assert not watched.at_eof()
