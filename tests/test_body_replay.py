"""The body of a stored response: from memory or from disk, it reads as plain aiohttp's from the origin."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientResponse, ClientSession, TraceConfig

from aiohttp_cache_middleware._errors import StoreError
from aiohttp_cache_middleware._model import BodyRef, StoredResponse
from aiohttp_cache_middleware._policy._outcomes import Answer
from tests.bodies import (
    BODIES,
    BODILESS,
    LARGE,
    QUIRKS,
    READINGS,
    SMALL,
    Body,
    FileReader,
    Reading,
    Replaying,
    a_stored_response,
    on_disk,
    origin,
    outcome,
    see,
    stored_from,
)

URL = "http://example.org/"


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("reading", READINGS)
async def test_hit_reads_as_the_origins_response(reading: str, name: str) -> None:
    if name in BODILESS and reading in QUIRKS:
        pytest.skip("aiohttp's stream of all empty bodies answers only the first caller")
    body = BODIES[name]
    async with origin() as server:
        url = server.make_url(body.path)
        plain = await see(url, body, READINGS[reading])
        stored = await see(url, body, stored_from)
    assert await see(url, body, READINGS[reading], Replaying(stored)) == plain, "from memory"
    assert await see(url, body, READINGS[reading], on_disk(stored)) == plain, "from disk"


async def test_each_caller_reads_a_body_of_his_own() -> None:
    async with ClientSession(middlewares=[Replaying(a_stored_response())]) as session:
        one, other = await session.get(URL), await session.get(URL)
        assert await one.content.read(2) == b"he"
        one.close()
        assert await other.read() == b"hello"
        assert await other.content.read() == b""


@pytest.mark.parametrize("length", ["7 bytes", "²"])
async def test_a_length_that_is_none_is_no_length(length: str) -> None:
    stored = a_stored_response(headers=(("Content-Encoding", "gzip"), ("Content-Length", length)))
    async with ClientSession(middlewares=[Replaying(stored)]) as session, session.get(URL) as response:
        assert await response.content.read() == b"hello"


async def test_chunked_response_ends_its_chunk() -> None:
    stored = a_stored_response(headers=(("Transfer-Encoding", "chunked"),))
    for replaying in (Replaying(stored), on_disk(stored)):
        async with ClientSession(middlewares=[replaying]) as session, session.get(URL) as response:
            assert [chunk async for chunk in response.content.iter_chunks()] == [(b"hello", True)]


@pytest.mark.parametrize("reading", ["response.read", "twice", "text", "part, then all"])
@pytest.mark.parametrize("replaying", [Replaying, on_disk])
async def test_traces_hear_of_the_chunk_once(reading: str, replaying: Callable[[StoredResponse], Replaying]) -> None:
    async def heard(*middlewares: Any) -> list[bytes]:
        chunks: list[bytes] = []

        async def on_chunk(session: Any, context: Any, params: Any) -> None:
            chunks.append(params.chunk)

        tracing = TraceConfig()
        tracing.on_response_chunk_received.append(on_chunk)
        async with (
            ClientSession(middlewares=middlewares, trace_configs=[tracing]) as session,
            session.get(url) as response,
        ):
            await outcome(READINGS[reading], response)
        return chunks

    async with origin() as server:
        url = server.make_url("/small")
        assert await heard() == await heard(replaying(a_stored_response(body=SMALL)))


async def test_failing_trace_closes_the_response() -> None:
    async def on_chunk(session: Any, context: Any, params: Any) -> None:
        raise ZeroDivisionError

    tracing = TraceConfig()
    tracing.on_response_chunk_received.append(on_chunk)
    async with ClientSession(middlewares=[Replaying(a_stored_response())], trace_configs=[tracing]) as session:
        response = await session.get(URL)
        with pytest.raises(ZeroDivisionError):
            await response.read()
        assert response._released


# From disk


class Disk:
    """Answers with a body on disk and keeps the readers it handed out."""

    def __init__(self, body: bytes = LARGE, **options: Any) -> None:
        self.readers: list[FileReader] = []
        size = options.pop("size", len(body))
        stored = a_stored_response(body=BodyRef("b", size))
        self.replaying = Replaying(stored, lambda: self._open(body, size), options)

    def _open(self, body: bytes, size: int) -> FileReader:
        self.readers.append(FileReader(body, size))
        return self.readers[-1]

    def session(self, **options: Any) -> ClientSession:
        return ClientSession(middlewares=[self.replaying], **options)


async def test_nothing_is_read_before_somebody_asks() -> None:
    disk = Disk()
    async with disk.session() as session, session.get(URL) as response:
        assert not response.closed
        assert disk.readers[0].read_so_far == 0
    assert disk.readers[0].read_so_far == 0
    assert disk.readers[0].is_closed


async def test_closed_at_the_end_as_aiohttps() -> None:
    disk = Disk()
    async with disk.session() as session:
        response = await session.get(URL)
        assert await response.content.read(1) == LARGE[:1]
        before = response.closed
        assert len(await response.content.read()) == len(LARGE) - 1
        assert (before, response.closed) == (False, True)
        assert disk.readers[0].is_closed


async def test_memory_is_bounded_while_the_caller_does_not_read() -> None:
    disk = Disk()
    async with disk.session() as session, session.get(URL) as response:
        held = 0
        taken = 0
        async for piece in response.content.iter_chunked(1000):
            taken += len(piece)
            if taken % 500_000 == 0:
                await asyncio.sleep(0.01)
            held = max(held, disk.readers[0].read_so_far - taken)
        assert taken == len(LARGE)
        assert held <= 1536 * 1024
        assert disk.readers[0].most <= 512 * 1024


async def test_read_of_the_whole_body_takes_it_in_one_piece() -> None:
    disk = Disk()
    async with disk.session() as session, session.get(URL) as response:
        assert await response.read() == LARGE
    assert disk.readers[0].most >= len(LARGE)


@pytest.mark.parametrize("ends", ["close", "release"])
@pytest.mark.parametrize("asked", [False, True], ids=["untouched", "begun"])
async def test_letting_go_closes_the_reader(ends: str, asked: bool) -> None:
    disk = Disk()
    async with disk.session() as session:
        response = await session.get(URL)
        if asked:
            await response.content.read(1)
        getattr(response, ends)()
        assert response.closed
        assert disk.readers[0].is_closed


@pytest.mark.parametrize("asked", [False, True], ids=["untouched", "begun"])
async def test_response_dropped_unread_closes_the_reader_without_a_warning(asked: bool) -> None:
    asyncio.get_running_loop().set_debug(True)
    disk = Disk()
    async with disk.session() as session:
        response: ClientResponse | None = await session.get(URL)
        assert response is not None
        if asked:
            assert await response.content.read(1)
            await asyncio.sleep(0.05)  # a read ahead may be on its way
        gc.collect()
        gc.disable()
        try:
            response = None
            assert disk.readers[0].is_closed
        finally:
            gc.enable()


async def test_cancelled_reading_goes_on_afterwards() -> None:
    disk = Disk()
    async with disk.session() as session, session.get(URL) as response:
        task = asyncio.ensure_future(response.content.read(10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await response.content.readexactly(10) == LARGE[:10]


async def test_body_shorter_than_it_should_be_fails_as_one_cut_off() -> None:
    disk = Disk(b"short", size=100)
    async with disk.session() as session, session.get(URL) as response:
        assert await response.content.readexactly(5) == b"short"
        with pytest.raises(ClientPayloadError, match="not completed"):
            await response.read()
        assert disk.readers[0].is_closed


@pytest.mark.parametrize("fails", ["at once", "later", "cancelled"])
async def test_disk_failure_is_a_payload_error(fails: str) -> None:
    class Failing(FileReader):
        def read(self, size: int) -> asyncio.Future[bytes]:
            if fails == "at once":
                raise StoreError("closed")
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            if fails == "later":
                future.set_exception(StoreError("disk I/O error"))
            else:
                future.cancel()
            return future

    reader = Failing(b"", 100)
    replaying = Replaying(a_stored_response(body=BodyRef("b", 100)), lambda: reader)
    async with ClientSession(middlewares=[replaying]) as session, session.get(URL) as response:
        with pytest.raises(ClientPayloadError) as failure:
            await response.read()
        assert isinstance(failure.value.__cause__, asyncio.CancelledError if fails == "cancelled" else StoreError)
        assert reader.is_closed


async def test_large_body_without_reader_is_loaded_when_asked_for() -> None:
    replaying = Replaying(
        a_stored_response(body=BodyRef("b", 5)), options={"load": lambda: b"HELLO", "from_cache": False}
    )
    async with ClientSession(middlewares=[replaying]) as session, session.get(URL) as response:
        assert response.body == b"HELLO"  # type: ignore[attr-defined]
        assert await response.text() == "HELLO"


# Parts of a body (RFC 9110 §14)


@pytest.mark.parametrize(
    ("ranges", "frames", "shown"),
    [
        pytest.param(None, (), b"0123456789", id="whole"),
        pytest.param((), (), b"", id="no body"),
        pytest.param(((2, 5),), (), b"234", id="§14.2 one range"),
        pytest.param(((0, 1), (8, 10)), (b"<a>", b"<b>", b"<end>"), b"<a>0<b>89<end>", id="§14.6 multipart"),
        pytest.param(((3, 5), (5, 7)), (b"<", b"|", b">"), b"<34|56>", id="adjacent"),
        pytest.param(((8, 10), (0, 1)), (b"<a>", b"<b>", b"<end>"), b"<a>89<b>0<end>", id="backwards"),
        pytest.param(((1, 4), (2, 3)), (b"<", b"|", b">"), b"<123|2>", id="overlapping"),
    ],
)
@pytest.mark.parametrize("piece_size", [0, 1, 3, 100], ids=["memory", "piece 1", "piece 3", "piece 100"])
async def test_parts(
    ranges: tuple[tuple[int, int], ...] | None, frames: tuple[bytes, ...], shown: bytes, piece_size: int
) -> None:
    class Pieces(FileReader):
        def read(self, size: int) -> asyncio.Future[bytes]:
            return super().read(piece_size)

    answer = Answer(206, "Partial Content", (("X-Answer", "yes"),), ranges, frames)
    body = b"0123456789"
    reader = Pieces(body)
    stored = a_stored_response(body=BodyRef("b", 10) if piece_size else body)
    replaying = Replaying(stored, lambda: reader if piece_size else None, {"answer": answer})
    async with ClientSession(middlewares=[replaying]) as session, session.get(URL) as response:
        assert (response.status, response.reason) == (206, "Partial Content")
        assert dict(response.headers) == {"X-Answer": "yes"}
        assert await response.read() == shown
        assert response.body == body  # type: ignore[attr-defined]
    assert reader.is_closed or not piece_size


@pytest.mark.parametrize("reading", ["response.read", "readany", "twice"])
async def test_uvloop_and_debug_mode(reading: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def both() -> None:
        for replaying in (Replaying(a_stored_response(body=LARGE)), on_disk(a_stored_response(body=LARGE))):
            await see(URL, Body("/"), _check(READINGS[reading]), replaying)

    def _check(read: Reading) -> Reading:
        async def check(response: ClientResponse) -> None:
            seen = await read(response)
            assert (seen[0] if isinstance(seen, tuple) else seen) == LARGE

        return check

    await asyncio.to_thread(lambda: asyncio.run(both(), debug=True))
    await asyncio.to_thread(lambda: uvloop.new_event_loop().run_until_complete(both()))
