"""A real origin on loopback that counts what reaches it, a clock to be advanced, and sessions that end."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDictProxy

from aiohttp_cache_middleware import CacheMiddleware, get_cache, make_cached_session
from aiohttp_cache_middleware._stores import _lane

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

T0 = 1_700_000_000.0
"""Where test clocks start: POSIX seconds."""


class Clock:
    """POSIX time that moves when it is told to."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Seen:
    """A request that reached the origin."""

    method: str
    path: str
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass
class Origin:
    """
    A server that counts. Paths answer ``GET /path -> "path #n"`` unless a handler is given with `on`.

    Attributes:
        seen: What reached it, in order.
    """

    seen: list[Seen] = field(default_factory=list)
    handlers: dict[str, Handler] = field(default_factory=dict)
    server: TestServer | None = None

    def url(self, path: str = "/") -> str:
        assert self.server is not None
        return f"http://{self.server.host}:{self.server.port}{path}"

    @property
    def count(self) -> int:
        return len(self.seen)

    def count_of(self, path: str) -> int:
        return sum(one.path.partition("?")[0] == path for one in self.seen)

    def on(self, path: str) -> Callable[[Handler], Handler]:
        """Have *path* answered by the decorated handler."""

        def register(handler: Handler) -> Handler:
            self.handlers[path] = handler
            return handler

        return register

    def text(self, path: str, body: str | bytes = "", status: int = 200, **headers: str) -> None:
        """Have *path* answered with fixed content; ``Cache_Control="..."`` names a header."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        async def handler(request: web.Request) -> web.Response:
            content = body.encode() if isinstance(body, str) else body
            return web.Response(body=content, status=status, headers=fields)

        self.handlers[path] = handler

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.method, request.path_qs, request.headers, await request.read()))
        handler = self.handlers.get(request.path)
        if handler is not None:
            return await handler(request)
        return web.Response(text=f"{request.path} #{self.count_of(request.path)}")


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lookups wait for a busy machine longer than for a user's, but in tests marked ``impatient``."""
    if request.node.get_closest_marker("impatient") is None:
        monkeypatch.setattr(_lane, "DEADLINE", 10.0)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin of the test's own."""
    one = Origin()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.answer)
    one.server = TestServer(app)
    await one.server.start_server()
    yield one
    await one.server.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The store's directory, as `make` uses it."""
    return tmp_path / "cache"


@pytest.fixture
def clock() -> Clock:
    """The clock that `make` gives to its caches."""
    return Clock()


@pytest.fixture
async def make(directory: Path, clock: Clock) -> AsyncIterator[Callable[..., ClientSession]]:
    """Make cached sessions on one directory, with the test's clock; they are closed at the end."""
    async with AsyncExitStack() as stack:

        def make_session(elsewhere: Path | None = None, **options: Any) -> ClientSession:
            if "cache" not in options:
                options["directory"] = elsewhere or directory
            session = make_cached_session(**options)
            set_clock(get_cache(session), clock)
            stack.push_async_callback(session.close)
            return session

        yield make_session


def set_clock(cache: CacheMiddleware, clock: Clock) -> None:
    """Have *cache* read *clock*."""
    cache._core.clock = clock


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def default_directory_is_temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests out of the user's own cache, and of each other's; nothing is made, as few tests use it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / f"xdg-{next(_numbers)}"))
