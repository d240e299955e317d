"""Bodies an origin sends, ways to read them, and ways they reach the caller; for the tests of `_response`."""

from __future__ import annotations

import asyncio
import gzip
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, web
from aiohttp.test_utils import BaseTestServer, TestServer

from aiohttp_cache_middleware._model import BodyRef, StoredResponse
from aiohttp_cache_middleware._response import CachedResponse, cached_class, replay, watch_body

SMALL = b'{"lines": [1, 2]}\n'
LINES = b"".join(b"line number %d\n" % n for n in range(6_000)) + bytes(64_000) + b"\n" * 100
LARGE = LINES + (b"x" * 9_999 + b"\n") * 470  # 5 MB
Reading = Callable[[ClientResponse], Awaitable[Any]]


# What the origin sends


async def _small(request: web.Request) -> web.StreamResponse:
    return web.Response(body=SMALL, content_type="application/json")


async def _chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for n in range(20 if request.method == "GET" else 0):
        await response.write(b"line %d\nand more" % n)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def _large(request: web.Request) -> web.StreamResponse:
    return web.Response(body=LARGE, content_type="text/plain")


async def _empty(request: web.Request) -> web.StreamResponse:
    return web.Response()


async def _gzipped(request: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(LINES, mtime=0), headers={"Content-Encoding": "gzip"})


async def _no_content(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


async def _cookies(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="cookies")
    response.set_cookie("a", "1", path="/", httponly=True)
    response.set_cookie("b", "two words")
    return response


async def _fancy(request: web.Request) -> web.StreamResponse:
    return web.Response(
        text="fancy ü",
        status=203,
        reason="Quite Fine",
        headers={
            "Link": '</next>; rel="next", <https://example.org/>; rel=prev',
            "Content-Disposition": 'attachment; filename="a b.txt"',
            "ETag": '"1"',
            "X-Repeated": "one",
        },
        charset="iso-8859-1",
    )


async def _missing(request: web.Request) -> web.StreamResponse:
    return web.Response(text="nothing here", status=404)


async def _redirect(request: web.Request) -> web.StreamResponse:
    return web.Response(text="go on", status=302, headers={"Location": "/small"})


@asynccontextmanager
async def origin() -> AsyncIterator[BaseTestServer]:
    """Serve all of the above on loopback."""
    app = web.Application()
    for name, handler in {
        "small": _small,
        "chunked": _chunked,
        "large": _large,
        "empty": _empty,
        "gzip": _gzipped,
        "no-content": _no_content,
        "cookies": _cookies,
        "fancy": _fancy,
        "missing": _missing,
        "redirect": _redirect,
    }.items():
        app.router.add_get(f"/{name}", handler)
    async with TestServer(app) as server:
        yield server


@asynccontextmanager
async def raw_origin(*parts: bytes, holds: bool = False) -> AsyncIterator[str]:
    """Answer every request with *parts*, then close the connection or, if it *holds*, say nothing more."""
    done = asyncio.Event()
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.005)  # so that the client has the header before the body breaks
            if holds:
                await done.wait()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}/"
    finally:
        done.set()
        server.close()
        await asyncio.gather(*serving)


@dataclass(frozen=True)
class Body:
    """A request whose response has a body of a kind."""

    path: str
    method: str = "GET"
    session: dict[str, Any] = field(default_factory=dict)


BODIES = {
    "small": Body("/small"),
    "chunked": Body("/chunked"),
    "5 MB": Body("/large"),
    "empty": Body("/empty"),
    "gzip": Body("/gzip"),
    "gzip, auto_decompress=False": Body("/gzip", session={"auto_decompress": False}),
    "HEAD": Body("/small", method="HEAD"),
    "204": Body("/no-content"),
}
BODILESS = frozenset({"HEAD", "204"})


# How it is read. What is read in pieces of no promised size is joined.


async def _read_n(response: ClientResponse) -> Any:
    pieces = []
    while piece := await response.content.read(30_000):
        pieces.append(piece)
    return b"".join(pieces)


async def _readany(response: ClientResponse) -> Any:
    pieces = []
    while piece := await response.content.readany():
        pieces.append(piece)
    return b"".join(pieces)


async def _readchunk(response: ClientResponse) -> Any:
    pieces = []
    while (piece := await response.content.readchunk()) != (b"", False):
        pieces.append(piece[0])
    return b"".join(pieces)


async def _iter_chunks(response: ClientResponse) -> Any:
    whole, collected = [], b""
    async for data, is_end_of_chunk in response.content.iter_chunks():
        collected += data
        if is_end_of_chunk:
            whole.append(collected)
            collected = b""
    return b"".join(whole), collected


async def _readline(response: ClientResponse) -> Any:
    return [line async for line in response.content]


async def _readuntil(response: ClientResponse) -> Any:
    lines = []
    while line := await response.content.readuntil(b"1\n"):
        lines.append(line)
    return lines


async def _readexactly(response: ClientResponse) -> Any:
    return await response.content.readexactly(10), await response.content.readexactly(6 * 1024 * 1024)


async def _read_nowait(response: ClientResponse) -> Any:
    pieces = [await response.content.read(5)]
    while not response.content.at_eof():
        pieces.append(await response.content.read(1))
        pieces.append(response.content.read_nowait())
    return b"".join(pieces)


async def _wait_eof(response: ClientResponse) -> Any:
    task = asyncio.ensure_future(response.content.read())
    await response.content.wait_eof()
    return await task, response.content.is_eof(), response.content.at_eof(), response.content.total_bytes


async def _on_eof(response: ClientResponse) -> Any:
    called: list[str] = []
    response.content.on_eof(lambda: called.append("end"))
    return await response.read(), called


async def _twice(response: ClientResponse) -> Any:
    return await response.read(), await response.read(), await response.content.read(), response.closed


async def _part_then_all(response: ClientResponse) -> Any:
    return await response.content.read(3), await response.read()


async def _after_release(response: ClientResponse) -> Any:
    await response.read()
    response.release()
    return await response.read()


async def _content_after_release(response: ClientResponse) -> Any:
    response.release()
    return await response.content.read()


async def _after_close(response: ClientResponse) -> Any:
    response.close()
    return await response.text()


async def _iter_chunked(response: ClientResponse) -> Any:
    return b"".join([piece async for piece in response.content.iter_chunked(10_000)])


async def _iter_any(response: ClientResponse) -> Any:
    return b"".join([piece async for piece in response.content.iter_any()])


READINGS: dict[str, Reading] = {
    "response.read": lambda response: response.read(),
    "text": lambda response: response.text(),
    "json": lambda response: response.json(),
    "json of any type": lambda response: response.json(content_type=None),
    "read": lambda response: response.content.read(),
    "read(0)": lambda response: response.content.read(0),
    "read(n)": _read_n,
    "readany": _readany,
    "readchunk": _readchunk,
    "readline": _readline,
    "readuntil": _readuntil,
    "readexactly": _readexactly,
    "read_nowait": _read_nowait,
    "iter_chunked": _iter_chunked,
    "iter_any": _iter_any,
    "iter_chunks": _iter_chunks,
    "wait_eof": _wait_eof,
    "on_eof": _on_eof,
    "twice": _twice,
    "part, then all": _part_then_all,
    "after release": _after_release,
    "content after release": _content_after_release,
    "after close": _after_close,
    "empty separator": lambda response: response.content.readuntil(b""),
}
QUIRKS = frozenset({"readchunk", "iter_chunks"})
"""What aiohttp's one stream of all empty bodies answers differently to its first caller and to all later ones."""


async def outcome(reading: Reading, response: ClientResponse) -> Any:
    """What a caller sees: a value or an exception."""
    try:
        return await reading(response)
    except Exception as error:
        return type(error), str(error)


# How it reaches the caller


class Recorder:
    """Follows a body and remembers what it is told."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.events: list[str] = []
        self.congested = False
        self.room = asyncio.Event()
        self.over = asyncio.Event()

    def data(self, chunk: bytes) -> None:
        assert chunk
        assert "ended" not in self.events
        assert "lost" not in self.events
        self._chunks.append(chunk)

    @property
    def taken(self) -> bytes:
        """All that was told."""
        return b"".join(self._chunks)

    async def drain(self) -> None:
        self.events.append("drain")
        await self.room.wait()
        self.congested = False

    def arrived(self) -> None:
        self._tell("arrived")

    def ended(self) -> None:
        self._tell("ended")

    def lost(self, why: str) -> None:
        assert why
        self._tell("lost")

    def released(self) -> None:
        self.events.append("released")

    def closed(self) -> None:
        self.events.append("closed")

    def _tell(self, event: str) -> None:
        assert event not in self.events
        self.events.append(event)
        self.over.set()


class Watching:
    """A middleware that lets each body be followed."""

    def __init__(self) -> None:
        self.recorders: list[Recorder] = []
        self.responses: list[CachedResponse] = []

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.response_class = cached_class(request.response_class)
        response = await handler(request)
        assert isinstance(response, CachedResponse)
        self.recorders.append(Recorder())
        self.responses.append(response)
        watch_body(response, self.recorders[-1])
        return response


@dataclass
class Replaying:
    """A middleware that answers everything with one stored response."""

    stored: StoredResponse
    reader: Callable[[], Any] = lambda: None
    options: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        options = {"now": T0, "age": 7.0, "cache_key": "k", **self.options}
        return replay(request, self.stored, reader=self.reader(), **options)


T0 = 1_000_000_000.0


def a_stored_response(**changes: Any) -> StoredResponse:
    values: dict[str, Any] = {
        "key": "k",
        "method": "GET",
        "url": "http://example.org/",
        "status": 200,
        "reason": "OK",
        "version": (1, 1),
        "headers": (("Content-Type", "text/plain"), ("Content-Length", "5")),
        "request_time": T0,
        "response_time": T0,
        "created_time": T0,
        "expires_time": T0 + 60,
        "body": b"hello",
    }
    return StoredResponse(**values | changes)


async def stored_from(response: ClientResponse) -> StoredResponse:
    """Read a response of aiohttp's as the cache would store it."""
    assert response.version is not None
    assert response.reason is not None
    return a_stored_response(
        url=str(response.url),
        status=response.status,
        reason=response.reason,
        version=tuple(response.version),
        headers=tuple(response.headers.items()),
        raw_headers=response.raw_headers,
        body=await response.read(),
    )


class FileReader:
    """A body on disk: read off the loop, as the store's is, and it remembers how it was used."""

    def __init__(self, body: bytes, size: int | None = None, pause: float = 0) -> None:
        self.size = len(body) if size is None else size
        self.most = 0
        self.read_so_far = 0
        self.is_closed = False
        self._file = io.BytesIO(body)
        self._pause = pause

    def read(self, size: int) -> asyncio.Future[bytes]:
        self.most = max(self.most, size)
        return asyncio.get_running_loop().run_in_executor(None, self._read, size)

    def _read(self, size: int) -> bytes:
        time.sleep(self._pause)
        data = self._file.read(size)
        self.read_so_far += len(data)
        return data

    def load(self) -> bytes:
        return self._file.getvalue()

    def close(self) -> None:
        self.is_closed = True


def on_disk(stored: StoredResponse) -> Replaying:
    """Answer with *stored*, its body being on disk."""
    assert isinstance(stored.body, bytes)
    body = stored.body
    if not body:
        return Replaying(stored)
    return Replaying(stored.replace(body=BodyRef("b", len(body))), lambda: FileReader(body))


async def see(url: Any, body: Body, reading: Reading, *middlewares: Any) -> Any:
    """Send the request of *body* through *middlewares* and read the response."""
    session = ClientSession(middlewares=middlewares, **body.session)
    async with session, session.request(body.method, url) as response:
        return await asyncio.wait_for(outcome(reading, response), 30)
