"""
The least that a cache has to do (``--least``): no rules, no safety, nothing but the work.

Each leaves out what makes a cache right (freshness, `Vary`, credentials, checksums, identical requests at once, files
that are damaged); what a cache takes beyond these is the price of that, and no cache takes less.
"""

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_cache_middleware._model import StoredResponse
from aiohttp_cache_middleware._response import CachedResponse, replay

from ._clients import Aiohttp, Client, Kind, Open, floor, plain

LINGER = 0.02  # seconds that the writer waits for company
PIECE = 1 << 20  # bytes of a large body that are written at once
WAITING = 4 * PIECE  # bytes of one that may wait for the disk
READ_AT_ONCE = 1 << 18  # bytes of one, on a hit


def key_of(request: ClientRequest) -> str:
    return blake2b(f"{request.method} {request.url}".encode(), digest_size=20).hexdigest()


def response_to(request: ClientRequest, row: bytes) -> ClientResponse:
    """Make a response of the caller's own, which no two can share."""
    url, status, reason, headers, body = msgpack.unpackb(row, use_list=False)
    stored = StoredResponse(
        key="",
        method=request.method,
        url=url,
        status=status,
        reason=reason,
        version=(1, 1),
        headers=headers,
        request_time=0.0,
        response_time=0.0,
        created_time=0.0,
        expires_time=0.0,
        body=body,
    )
    request.response_class = CachedResponse
    return replay(request, stored, now=0.0, age=0.0, cache_key="")


async def row_of(response: ClientResponse) -> bytes:
    body = await response.read()
    facts = (str(response.url), response.status, response.reason, tuple(response.headers.items()), body)
    row: bytes = msgpack.packb(facts)
    return row


class Rows:
    """Rows in SQLite, written by a thread in batches."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "rows.db"
        self._waiting: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = wal")
            connection.execute("CREATE TABLE IF NOT EXISTS Rows (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._reader = self._connect()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def get(self, key: str) -> bytes | None:
        rows = self._reader.execute("SELECT value FROM Rows WHERE key = ?", (key,)).fetchall()
        return rows[0][0] if rows else None

    def put(self, key: str, row: bytes) -> None:
        self._waiting.put((key, row))

    async def aclose(self) -> None:
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)
        self._reader.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA synchronous = normal")
        return connection

    def _write(self) -> None:
        is_over = False
        with closing(self._connect()) as connection:
            while not is_over:
                batch: list[Any] = [self._waiting.get()]
                time.sleep(LINGER)
                while not self._waiting.empty():
                    batch.append(self._waiting.get())
                is_over = None in batch
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO Rows VALUES (?, ?)", [row for row in batch if row])
                connection.execute("COMMIT")


def behind_a_trace_config(least: Open) -> Open:
    """Give the same in a session that has a TraceConfig which does nothing; `make_cached_session` can't do without."""

    @asynccontextmanager
    async def opened(directory: Path) -> AsyncIterator[Client]:
        async with least(directory) as client:
            assert isinstance(client, Aiohttp)
            middlewares: Any = client.session._middlewares
            traces = [aiohttp.TraceConfig()]
            async with aiohttp.ClientSession(middlewares=middlewares, trace_configs=traces) as session:
                yield Aiohttp(session)

    return opened


@asynccontextmanager
async def from_memory(directory: Path) -> AsyncIterator[Client]:
    """A response made of a row in memory."""
    rows: dict[str, bytes] = {}

    async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        row = rows.get(key := key_of(request))
        if row is None:
            response = await handler(request)
            rows[key] = await row_of(response)
            return response
        return response_to(request, row)

    async with aiohttp.ClientSession(middlewares=[middleware]) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def from_rows(directory: Path) -> AsyncIterator[Client]:
    """A response made of a row in SQLite; on a miss the row is written by a thread, later and in a batch."""
    rows = Rows(directory)

    async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        row = rows.get(key := key_of(request))
        if row is None:
            response = await handler(request)
            rows.put(key, await row_of(response))
            return response
        return response_to(request, row)

    try:
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            yield Aiohttp(session)
    finally:
        await rows.aclose()


class Copying(Aiohttp):
    """Copies a body to a file while it is read, and reads it from there the next time; all in a thread."""

    def __init__(self, session: aiohttp.ClientSession, directory: Path) -> None:
        super().__init__(session)
        self.directory = directory
        self._waiting = 0

    async def stream(self, url: str) -> AsyncGenerator[bytes, None]:
        path = self.directory / blake2b(url.encode(), digest_size=20).hexdigest()
        chunks = self._from_file(path) if path.exists() else self._copied(super().stream(url), path)
        async for chunk in chunks:
            yield chunk

    async def _from_file(self, path: Path) -> AsyncGenerator[bytes, None]:
        yield b""
        with path.open("rb", buffering=0) as file:
            while chunk := await asyncio.to_thread(file.read, READ_AT_ONCE):
                yield chunk

    async def _copied(self, chunks: AsyncGenerator[bytes, None], path: Path) -> AsyncGenerator[bytes, None]:
        pieces: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        thread = threading.Thread(target=self._write, args=(path, pieces))
        thread.start()
        gathered: list[bytes] = []
        async for chunk in chunks:
            gathered.append(chunk)
            self._waiting += len(chunk)
            if len(gathered) * len(chunk) >= PIECE:
                pieces.put(gathered)
                gathered = []
            while self._waiting > WAITING:
                await asyncio.sleep(0.001)
            yield chunk
        pieces.put(gathered)
        pieces.put([])
        await asyncio.to_thread(thread.join)

    def _write(self, path: Path, pieces: "queue.SimpleQueue[list[bytes]]") -> None:
        with path.open("wb", buffering=0) as file:
            while some := pieces.get():
                file.write(b"".join(some)) if not hasattr(os, "writev") else os.writev(file.fileno(), some)
                self._waiting -= sum(map(len, some))


@asynccontextmanager
async def from_files(directory: Path) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Copying(session, directory)


HITS = ("hot", "random", "concurrent", "processes")

IN_A_SESSION = ("hot", "concurrent")

LEAST = (
    Kind("floor, empty TraceConfig", behind_a_trace_config(floor), is_persistent=False, scenarios=IN_A_SESSION),
    Kind("plain aiohttp, empty TraceConfig", behind_a_trace_config(plain), is_cache=False, scenarios=("miss",)),
    Kind("least: a row in memory", from_memory, is_persistent=False, scenarios=(*IN_A_SESSION, "miss")),
    Kind(
        "least: a row in memory, empty TraceConfig",
        behind_a_trace_config(from_memory),
        is_persistent=False,
        scenarios=(*IN_A_SESSION, "miss"),
    ),
    Kind("least: a row in SQLite", from_rows, scenarios=(*HITS, "miss")),
    Kind("least: a body in a file", from_files, scenarios=("large",)),
)
"""Kinds that are no caches to be used."""
