"""The first rule: whatever happens to the store, a request is answered as if there were no cache."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, web

from aiohttp_cache_middleware import CacheMiddleware, CacheOptions, MemoryStore, StoreError, get_cache
from aiohttp_cache_middleware._policy import _http
from aiohttp_cache_middleware._stores import DiskStore, Store
from tests.asking import ask, is_hit
from tests.conftest import Clock, Origin

Make = Callable[..., ClientSession]

STORE_METHODS = ["secret", "peek", "put", "delete", "tagged", "open_body", "spool", "claim", "unclaim"]
"""What the path of a request asks of a store."""


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class BrokenStore:
    """A store in which some methods raise."""

    def __init__(self, broken: list[str], error: Exception, store: Store | None = None) -> None:
        self._store = store or MemoryStore()
        self._broken = broken
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name == "known_secret" and "secret" in self._broken:
            return None  # as a store that can't be opened
        if name == "is_open" and "secret" in self._broken:
            return False
        if name not in self._broken:
            return getattr(self._store, name)

        def fail(*args: object, **kwargs: object) -> Any:
            raise self._error

        return fail() if name in ("known_secret", "is_opening") else fail


def caching(store: Any, **options: Any) -> CacheMiddleware:
    broken: Store = store
    return CacheMiddleware(store=broken, **options)


ERRORS = [StoreError("database is locked"), OSError(28, "No space left on device"), ValueError("a bug")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "broken",
    [[name] for name in STORE_METHODS] + [["secret", "is_opening"], STORE_METHODS],
    ids=lambda names: "+".join(names),
)
async def test_a_store_whose_methods_raise(
    origin: Origin, broken: list[str], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    @origin.on("/1")
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/a"})

    origin.text("/a", "hello", Vary="X-One")
    origin.text("/large", bytes(2**21))
    cache = caching(BrokenStore(broken, error))
    with caplog.at_level(logging.WARNING):
        async with ClientSession(middlewares=[cache]) as session:
            for _ in range(3):
                response = await ask(session, origin.url("/1"))
                assert (response.status, await response.text()) == (200, "hello")
                large = await ask(session, origin.url("/large"))
                assert len(await large.text()) == 2**21
                await ask(session, origin.url("/a"), "POST")
    assert len(warnings_of(caplog)) <= 1  # one cause, one warning
    if broken != ["delete"] and broken != ["open_body"] and broken != ["tagged"]:  # a MemoryStore's bodies are inside
        assert len(warnings_of(caplog)) == 1
        assert cache.stats.store_errors > 0


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("broken", ["tagged", "delete"])
async def test_a_store_in_which_nothing_can_be_made_invalid(
    origin: Origin, broken: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    origin.text("/a", "hello", Cache_Control="max-age=60")
    cache = caching(BrokenStore([broken], error), cache_control=True)
    with caplog.at_level(logging.WARNING):
        async with ClientSession(middlewares=[cache]) as session:
            for method in ("GET", "POST", "POST"):
                assert (await ask(session, origin.url("/a"), method)).status == 200
    assert len(warnings_of(caplog)) == 1
    assert cache.stats.store_errors == 2


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_store_whose_large_bodies_can_not_be_opened(origin: Origin, tmp_path: Path, error: Exception) -> None:
    origin.text("/large", bytes(2**21))
    cache = caching(BrokenStore(["open_body"], error, DiskStore(tmp_path / "cache", max_size=None)))
    async with ClientSession(middlewares=[cache]) as session:
        for _ in range(3):
            assert len(await (await ask(session, origin.url("/large"))).text()) == 2**21
    assert cache.stats.store_errors == 2
    await cache.aclose()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("broken", ["secret", "known_secret"])
async def test_many_at_once_without_a_secret(origin: Origin, broken: str, error: Exception) -> None:
    store = BrokenStore([], error)
    cache = caching(store)
    store._broken.append(broken)
    async with ClientSession(middlewares=[cache]) as session:
        for response in await asyncio.gather(*(ask(session, origin.url("/a")) for _ in range(5))):
            assert response.status == 200
    assert cache.stats.store_errors > 0


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_only_if_cached_without_a_store(origin: Origin, error: Exception) -> None:
    cache = caching(BrokenStore(STORE_METHODS, error))
    async with ClientSession(middlewares=[cache]) as session:
        with CacheOptions(only_if_cached=True):
            assert (await ask(session, origin.url("/a"))).status == 504
    assert origin.count == 0


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_http_mode_without_a_store(origin: Origin, error: Exception) -> None:
    origin.text("/a", "hello", Cache_Control="max-age=60", ETag='"1"')
    cache = caching(BrokenStore(STORE_METHODS, error), cache_control=True)
    async with ClientSession(middlewares=[cache]) as session:
        for method in ("GET", "HEAD", "POST", "GET"):
            assert (await ask(session, origin.url("/a"), method)).status == 200
    assert origin.count == 4


# --- real directories ---


def a_file(directory: Path) -> None:
    directory.touch()


def under_a_file(directory: Path) -> None:
    directory.parent.rmdir()
    directory.parent.touch()


def a_broken_link(directory: Path) -> None:
    directory.symlink_to(directory.parent / "missing" / "deeper")


def not_a_database(directory: Path) -> None:
    for name in ("cache.db", "current"):
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / name).write_bytes(b"this is no database" * 1000)


def not_writable(directory: Path) -> None:
    directory.mkdir(mode=0o500)


def writable_by_all(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)


@pytest.fixture
async def parent(tmp_path: Path) -> AsyncIterator[Path]:
    """A directory for the directory, so that it can be made unusable after a cache was made for it."""
    parent = tmp_path / "parent"
    parent.mkdir()
    yield parent
    for path in (parent, *parent.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)


@pytest.mark.parametrize(
    "spoil",
    [a_file, under_a_file, a_broken_link, not_a_database, not_writable, writable_by_all],
    ids=lambda f: f.__name__,
)
async def test_a_directory_that_can_not_be_used(
    origin: Origin, parent: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    if spoil is not_writable and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    cache = CacheMiddleware(parent / "cache")
    spoil(parent / "cache")
    with caplog.at_level(logging.WARNING):
        async with ClientSession(middlewares=[cache]) as session:
            for number in (1, 2, 3):
                response = await ask(session, origin.url(f"/{number}"))
                assert (response.from_cache, await response.text()) == (False, f"/{number} #1")
            store_works = await is_hit(session, origin.url("/1"))
    # Whether it was set aside (then it works) or refused: it was said at most once, and never raised.
    assert len(set(warnings_of(caplog))) == len(warnings_of(caplog)) <= 2
    assert store_works or warnings_of(caplog)
    if store_works:
        await cache.aclose()


async def test_a_directory_that_is_deleted_while_it_is_used(
    make: Make, origin: Origin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = make()
    await ask(session, origin.url("/a"))
    await get_cache(session).responses.count()  # what was accepted has been written
    shutil.rmtree(tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            response = await ask(session, origin.url(f"/{number}"))
            assert (response.status, await response.text()) == (200, f"/{number} #1")
    assert len(warnings_of(caplog)) <= 2


async def test_a_directory_that_comes_back_is_used_again(origin: Origin, parent: Path) -> None:
    directory = parent / "cache"
    async with CacheMiddleware(directory) as cache, ClientSession(middlewares=[cache]) as session:
        await ask(session, origin.url("/a"))
        await cache.responses.count()
        shutil.rmtree(directory)
        await cache.aclose()  # what was open is given back
        # The first request may still be keyed with the lost directory's secret: then it is stored in vain.
        assert not await is_hit(session, origin.url("/a"))
        await ask(session, origin.url("/a"))
        assert await is_hit(session, origin.url("/a"))
        assert await cache.urls() == [origin.url("/a")]


async def test_what_a_directory_that_came_back_keeps_can_be_removed_from_it(
    origin: Origin, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiohttp_cache_middleware._stores._disk._LOOK_AGAIN", -1.0)  # at each request
    directory = parent / "cache"
    async with CacheMiddleware(directory) as cache, ClientSession(middlewares=[cache]) as session:
        for _ in range(2):
            await ask(session, origin.url("/a"))
        await cache.responses.count()
        shutil.rmtree(directory)
        await ask(session, origin.url("/a"))
        await cache.responses.count()  # it has been made again
        await ask(session, origin.url("/a"))
        assert await cache.delete(origin.url("/a")) == 1
        assert not await is_hit(session, origin.url("/a"))


async def test_a_database_that_is_overwritten_while_it_is_used(make: Make, origin: Origin, tmp_path: Path) -> None:
    session = make()
    await ask(session, origin.url("/a"))
    await get_cache(session).responses.count()
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file() and path.suffix == ".db":
            path.write_bytes(b"garbage" * 10_000)
    for number in range(20):
        response = await ask(session, origin.url(f"/{number}"))
        assert (response.status, await response.text()) == (200, f"/{number} #1")


async def test_a_filter_that_is_cancelled_or_raises_anything_reaches_nobody(make: Make, origin: Origin) -> None:
    def broken(response: object) -> bool:
        raise RecursionError

    session = make(filter_fn=broken)
    assert (await ask(session, origin.url("/a"))).status == 200


async def test_closing_a_session_whose_store_fails_raises_nothing(origin: Origin, tmp_path: Path, make: Make) -> None:
    session = make(tmp_path / "gone")
    await ask(session, origin.url("/a"))
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    (tmp_path / "gone").touch()
    await session.close()


class Wrapper:
    """Looks like a response; as people wrap them in middlewares, or make them up with less than is there."""

    def __init__(self, response: ClientResponse, without: frozenset[str]) -> None:
        self._wrapped = response
        self._without = without

    def __getattr__(self, name: str) -> Any:
        if name in self._without:
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    async def __aenter__(self) -> Wrapper:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._wrapped.release()


@pytest.mark.parametrize("without", [frozenset(), frozenset({"headers", "reason"})], ids=["all", "the least"])
async def test_what_only_looks_like_a_response_is_passed_on(
    make: Callable[..., ClientSession], origin: Origin, without: frozenset[str]
) -> None:
    async def wrap(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return Wrapper(await handler(request), without)  # type: ignore[return-value]

    cache = get_cache(make())
    async with ClientSession(middlewares=[cache, wrap]) as session, session.get(origin.url("/a")) as response:
        got: object = response
        assert isinstance(got, Wrapper)
        assert await got.text() == "/a #1"
    assert cache.stats.stores == 0


async def test_a_response_that_does_not_tell_its_request_is_passed_on(
    make: Callable[..., ClientSession], origin: Origin
) -> None:
    async def forget(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        response._request_info = None  # type: ignore[assignment]
        return response

    cache = get_cache(make())
    async with ClientSession(middlewares=[cache, forget]) as session:
        for number in (1, 2):
            assert await (await ask(session, origin.url("/a"))).text() == f"/a #{number}"
    assert (cache.stats.stores, sum(cache.stats.not_stored.values())) == (0, 2)


async def test_without_a_store_nobody_waits_for_another_request(
    make: Callable[..., ClientSession], origin: Origin, tmp_path: Path
) -> None:
    together = asyncio.Event()

    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        if origin.count >= 3:
            together.set()
        await asyncio.wait_for(together.wait(), 3)
        return web.Response(text="a")

    (tmp_path / "refused").mkdir()
    (tmp_path / "refused").chmod(0o777)
    session = make(tmp_path / "refused")
    await get_cache(session)._core.guarded.secret()  # which can't be opened
    for _ in range(2):
        responses = await asyncio.gather(*[ask(session, origin.url("/a")) for _ in range(3)])
        assert [response.status for response in responses] == [200] * 3


async def test_a_store_of_the_callers_need_not_be_hashable(origin: Origin) -> None:
    class Unhashable(MemoryStore):
        __hash__ = None  # type: ignore[assignment]

    store = Unhashable()
    for is_cached in (False, True):
        async with CacheMiddleware(store=store) as cache, ClientSession(middlewares=[cache]) as session:
            assert await is_hit(session, origin.url("/a")) is is_cached


RULES = sorted(name for name in _http.__all__ if callable(getattr(_http, name)) and name != "explain")
"""What the path of a request asks of the HTTP mode."""


@pytest.mark.parametrize("rule", RULES)
async def test_no_rule_of_http_that_fails_harms_a_request(
    make: Make, origin: Origin, clock: Clock, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """As one that computes with a clock which shows no time at all."""

    def fail(*args: object, **kwargs: object) -> Any:
        raise ValueError("a bug")

    session = make(cache_control=True)

    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        headers = {"ETag": '"1"', "Cache-Control": "max-age=60, stale-while-revalidate=60", "Vary": "Accept"}
        if request.headers.get("If-None-Match") == '"1"':
            return web.Response(status=304, headers=headers)
        if "Range" in request.headers:
            part = {"Content-Range": "bytes 0-1/5"}
            return web.Response(status=206, body=b"he", headers=headers | part)
        return web.Response(text="hello", headers=headers)

    await ask(session, origin.url("/a"))
    await get_cache(session)._core.store.flush()
    monkeypatch.setattr(_http, rule, fail)
    for step in (0, 70, 200):
        clock.advance(step)
        for verb in ("GET", "HEAD", "POST", "GET"):
            async with session.request(verb, origin.url("/a")) as response:
                assert response.status == 200
                assert await response.text() == ("" if verb == "HEAD" else "hello")
        async with session.get(origin.url("/a"), headers={"Range": "bytes=0-1"}) as response:
            assert response.status == 206
            assert await response.read() == b"he"
        async with session.get(origin.url("/a"), headers={"If-None-Match": '"1"'}) as response:
            assert response.status == 304
    monkeypatch.undo()
    async with session.get(origin.url("/a")) as response:
        assert await response.text() == "hello"
