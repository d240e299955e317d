"""What is compared: plain aiohttp, the floor, this library in its forms, and the other caches that are installed."""

import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import aiohttp

from aiohttp_cache_middleware import (
    CacheMiddleware,
    CacheOptions,
    MemoryStore,
    cache_trace_config,
    get_cache,
    make_cached_session,
)

NO_TIMEOUT = aiohttp.ClientTimeout()


class Client(Protocol):
    """A client in use."""

    async def get(self, url: str, *, expire_after: float | None = None) -> int:
        """Fetch *url*, read the whole body, give its length."""

    def stream(self, url: str) -> AsyncGenerator[bytes, None]:
        """Fetch *url* and give the body as it comes; an empty chunk first, once the headers are there."""

    async def remove_expired(self) -> None:
        """Remove what has expired."""


class Aiohttp:
    """A client that is an aiohttp session, or looks like one."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, url: str, *, expire_after: float | None = None) -> int:
        options: Any = {} if expire_after is None else self.expiring(expire_after)
        async with self.session.get(url, **options) as response:
            return len(await response.read())

    def expiring(self, expire_after: float) -> dict[str, object]:
        return {"trace_request_ctx": CacheOptions(expire_after=expire_after)}

    async def stream(self, url: str) -> AsyncGenerator[bytes, None]:
        async with self.session.get(url, timeout=NO_TIMEOUT) as response:
            yield b""
            async for chunk in response.content.iter_chunked(1 << 16):
                yield chunk

    async def remove_expired(self) -> None:
        await get_cache(self.session).remove_expired_responses()


class AiohttpClientCache(Aiohttp):
    def expiring(self, expire_after: float) -> dict[str, object]:
        return {"expire_after": expire_after}

    async def remove_expired(self) -> None:
        session: Any = self.session
        await session.delete_expired_responses()


class Httpx:
    def __init__(self, client: Any) -> None:
        self.client = client

    async def get(self, url: str, *, expire_after: float | None = None) -> int:
        response = await self.client.get(url)
        return len(response.content)

    async def stream(self, url: str) -> AsyncGenerator[bytes, None]:
        async with self.client.stream("GET", url) as response:
            yield b""
            async for chunk in response.aiter_bytes():
                yield chunk

    async def remove_expired(self) -> None:
        raise NotImplementedError


Open: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Client]]


@dataclass(frozen=True)
class Kind:
    """
    A kind of client.

    Attributes:
        name: As it is shown.
        open: Makes one that keeps its entries in a directory.
        is_cache: Whether it is a cache (the floor counts as one where hits are compared).
        is_persistent: Whether another process finds what it stored.
        modules: What has to be installed.
        scenarios: Where it takes part; none: everywhere.
    """

    name: str
    open: Open
    is_cache: bool = True
    is_persistent: bool = True
    modules: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        return [module for module in self.modules if importlib.util.find_spec(module) is None]


@asynccontextmanager
async def plain(directory: Path) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Aiohttp(session)


@asynccontextmanager
async def floor(directory: Path) -> AsyncIterator[Client]:
    """All of aiohttp's own work for a request and nothing else: a middleware that has the response at hand."""
    ready: dict[str, aiohttp.ClientResponse] = {}

    async def from_memory(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        url = str(request.url)
        if url not in ready:
            response = await handler(request)
            await response.read()
            ready[url] = response
        ready[url]._released = False  # so that the body can be read again
        return ready[url]

    async with aiohttp.ClientSession(middlewares=[from_memory]) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def disk(directory: Path) -> AsyncIterator[Client]:
    async with make_cached_session(directory, max_size=None) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def disk_http(directory: Path) -> AsyncIterator[Client]:
    async with make_cached_session(directory, max_size=None, cache_control=True) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def disk_compressed(directory: Path) -> AsyncIterator[Client]:
    async with make_cached_session(directory, max_size=None, compress=True) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def disk_trace(directory: Path) -> AsyncIterator[Client]:
    caching = cache_trace_config(directory, max_size=None)
    async with aiohttp.ClientSession(trace_configs=[caching]) as session:
        yield Aiohttp(session)
        await get_cache(session).aclose()


@asynccontextmanager
async def memory(directory: Path) -> AsyncIterator[Client]:
    async with make_cached_session(cache=CacheMiddleware(store=MemoryStore())) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def memory_http(directory: Path) -> AsyncIterator[Client]:
    async with make_cached_session(cache=CacheMiddleware(store=MemoryStore(), cache_control=True)) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def client_cache_memory(directory: Path) -> AsyncIterator[Client]:
    from aiohttp_client_cache import CacheBackend, CachedSession

    async with CachedSession(cache=CacheBackend()) as session:
        yield AiohttpClientCache(session)


@asynccontextmanager
async def client_cache_sqlite(directory: Path) -> AsyncIterator[Client]:
    from aiohttp_client_cache import CachedSession, SQLiteBackend

    async with CachedSession(cache=SQLiteBackend(str(directory / "cache.sqlite"))) as session:
        yield AiohttpClientCache(session)


@asynccontextmanager
async def client_cache_files(directory: Path) -> AsyncIterator[Client]:
    from aiohttp_client_cache import CachedSession, FileBackend

    async with CachedSession(cache=FileBackend(str(directory))) as session:
        yield AiohttpClientCache(session)


@asynccontextmanager
async def hishel_sqlite(directory: Path) -> AsyncIterator[Client]:
    from hishel import AsyncSqliteStorage
    from hishel.httpx import AsyncCacheClient

    storage = AsyncSqliteStorage(database_path=directory / "cache.sqlite")
    async with AsyncCacheClient(storage=storage, timeout=None) as client:
        yield Httpx(client)


CLIENT_CACHE = ("aiohttp_client_cache", "aiosqlite", "aiofiles")

KINDS = (
    Kind("plain aiohttp", plain, is_cache=False, is_persistent=False),
    Kind("floor", floor, is_persistent=False),
    Kind("disk", disk),
    Kind("disk, HTTP mode", disk_http),
    Kind("disk, TraceConfig", disk_trace),
    Kind("disk, compressed", disk_compressed),
    Kind("memory", memory, is_persistent=False),
    Kind("memory, HTTP mode", memory_http, is_persistent=False),
    Kind("aiohttp-client-cache memory", client_cache_memory, is_persistent=False, modules=CLIENT_CACHE),
    Kind("aiohttp-client-cache SQLite", client_cache_sqlite, modules=CLIENT_CACHE),
    Kind("aiohttp-client-cache files", client_cache_files, modules=CLIENT_CACHE),
    Kind("hishel SQLite (httpx)", hishel_sqlite, modules=("hishel", "httpx", "anysqlite")),
)
