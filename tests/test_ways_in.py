"""The ways onto a session: a session made for it, a TraceConfig, the middleware alone."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import (
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    TCPConnector,
    TraceConfig,
    web,
)

from aiohttp_cache_middleware import (
    CachedResponse,
    CacheMiddleware,
    CacheOptions,
    DiskStore,
    MemoryStore,
    NoCacheError,
    cache_trace_config,
    get_cache,
    make_cached_session,
)
from aiohttp_cache_middleware import _session as session_module
from tests.asking import ask, is_hit
from tests.conftest import Origin

# --- make_cached_session ---


async def test_the_session_is_a_plain_one(tmp_path: Path) -> None:
    async with make_cached_session(tmp_path) as session:
        assert type(session) is ClientSession


async def test_a_repeated_request_does_not_reach_the_origin(make: Callable[..., ClientSession], origin: Origin) -> None:
    session = make()
    first = await ask(session, origin.url("/a"))
    second = await ask(session, origin.url("/a"))
    assert (first.from_cache, second.from_cache) == (False, True)
    assert await first.text() == await second.text() == "/a #1"
    assert origin.count == 1


async def test_options_of_the_cache_and_of_the_session_stand_side_by_side(tmp_path: Path, origin: Origin) -> None:
    async with make_cached_session(
        tmp_path, base_url=origin.url("/"), headers={"X-Mine": "1"}, timeout=ClientTimeout(total=5), expire_after=60
    ) as session:
        assert not await is_hit(session, "/a")
        assert await is_hit(session, "/a")
        assert get_cache(session).expire_after == 60
        assert session.timeout == ClientTimeout(total=5)
    assert origin.seen[0].headers["X-Mine"] == "1"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("expire_afer", "expire_after"), ("conector", "connector"), ("trace_config", "trace_configs")],
)
async def test_an_unknown_name_is_a_type_error_that_names_what_was_meant(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}.*{meant}"):
        make_cached_session(tmp_path, **{name: 1})  # type: ignore[arg-type]


async def test_a_wrong_value_raises_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expire_after.*-5"):
        make_cached_session(tmp_path, expire_after=-5)


@pytest.mark.parametrize("options", [{"directory": "x"}, {"expire_after": 60}], ids=["directory", "option"])
async def test_a_cache_that_exists_takes_no_options(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"cache.*{next(iter(options))}"):
        make_cached_session(cache=CacheMiddleware(store=MemoryStore()), **options)


async def test_only_a_cache_serves_as_cache() -> None:
    with pytest.raises(TypeError, match="cache: expected a CacheMiddleware"):
        make_cached_session(cache=MemoryStore())  # type: ignore[arg-type]


async def test_a_directory_that_is_a_file_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"directory.*file"):
        CacheMiddleware(tmp_path / "file")


@pytest.mark.parametrize("option", [{"secret_key": "key"}, {"max_size": 1000}, {"compress": True}])
async def test_what_is_a_stores_own_affair_is_not_said_beside_it(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(TypeError, match=f"^{name}: "):
        CacheMiddleware(store=MemoryStore(), **option)


async def test_a_store_in_a_directory_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^directory: expected a path"):
        DiskStore("", max_size=None)


async def test_a_directory_and_a_store_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="directory"):
        CacheMiddleware(tmp_path, store=MemoryStore())


async def test_the_directory_may_be_named_with_a_string(tmp_path: Path, origin: Origin) -> None:
    async with make_cached_session(str(tmp_path / "deep" / "down")) as session:
        await ask(session, origin.url("/a"))
    assert (tmp_path / "deep" / "down").stat().st_mode & 0o777 == 0o700


async def test_the_default_directory_is_the_users(origin: Origin) -> None:
    async with make_cached_session() as session:
        await ask(session, origin.url("/a"))
    directory = Path(os.environ["XDG_CACHE_HOME"]) / "aiohttp_cache_middleware"
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_own_middlewares_are_kept_and_see_hits(make: Callable[..., ClientSession], origin: Origin) -> None:
    seen: list[bool] = []

    async def watch(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        assert isinstance(response, CachedResponse)
        seen.append(response.from_cache)
        return response

    session = make(middlewares=(watch,))
    await ask(session, origin.url("/a"))
    await ask(session, origin.url("/a"))
    assert seen == [False, True]


class Context(SimpleNamespace):
    """A trace context of the caller's own."""


def recording(contexts: list[object]) -> TraceConfig:
    trace_config = TraceConfig()

    async def start(session: ClientSession, context: SimpleNamespace, params: object) -> None:
        contexts.append(context.trace_request_ctx)

    async def end(session: ClientSession, context: SimpleNamespace, params: object) -> None:
        contexts.append("end")

    trace_config.on_request_start.append(start)
    trace_config.on_request_end.append(end)
    return trace_config


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        pytest.param({"mine": 1}, {"mine": 1}, id="a context of the caller's"),
        pytest.param(None, None, id="none"),
        pytest.param(CacheOptions(expire_after=5), None, id="only options"),
        pytest.param(CacheOptions(trace_request_ctx={"mine": 1}), {"mine": 1}, id="a context inside options"),
    ],
)
async def test_own_trace_configs_see_their_own_context(
    make: Callable[..., ClientSession], origin: Origin, given: Any, seen: object
) -> None:
    contexts: list[object] = []
    session = make(trace_configs=[recording(contexts)])
    for _ in range(2):
        await ask(session, origin.url("/a"), trace_request_ctx=given)
    assert contexts == [seen, "end"] * 2
    assert origin.count == 1


async def test_own_trace_configs_see_the_context_of_a_block(make: Callable[..., ClientSession], origin: Origin) -> None:
    contexts: list[object] = []
    session = make(trace_configs=[recording(contexts)])
    with CacheOptions(trace_request_ctx="the block's"):
        await ask(session, origin.url("/a"))
        await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(expire_after=5))
        await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(trace_request_ctx="its own"))
        await ask(session, origin.url("/a"), trace_request_ctx="its own")
    assert contexts[::2] == ["the block's", "the block's", "its own", "its own"]


async def test_one_own_trace_config_may_serve_several_sessions(
    make: Callable[..., ClientSession], origin: Origin, tmp_path: Path
) -> None:
    contexts: list[object] = []
    trace_config = recording(contexts)
    for name in ("one", "two"):
        session = make(tmp_path / name, trace_configs=[trace_config])
        await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(trace_request_ctx=name))
    assert contexts == ["one", "end", "two", "end"]


async def test_one_own_trace_config_may_serve_any_number_of_sessions(origin: Origin) -> None:
    contexts: list[object] = []
    trace_config = recording(contexts)
    cache = CacheMiddleware(store=MemoryStore())
    for _ in range(sys.getrecursionlimit()):
        await make_cached_session(cache=cache, trace_configs=[trace_config]).close()
    async with make_cached_session(cache=cache, trace_configs=[trace_config]) as session:
        await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(trace_request_ctx="mine"))
    assert contexts == ["mine", "end"]


async def test_a_trace_config_of_ours_takes_options_wherever_else_it_serves(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    caching = cache_trace_config(cache=cache)
    async with make_cached_session(cache=cache, trace_configs=[caching]) as session:
        await ask(session, origin.url("/a"))
    async with ClientSession(trace_configs=[caching]) as session:
        assert await is_hit(session, origin.url("/a"))
        assert not await is_hit(session, origin.url("/a"), trace_request_ctx=CacheOptions(refresh=True))


class Mine(ClientResponse):
    """A response class of the caller's."""

    def shout(self) -> str:
        return self.reason.upper() if self.reason else ""


async def test_an_own_response_class_is_kept(make: Callable[..., ClientSession], origin: Origin) -> None:
    session = make(response_class=Mine)
    for _ in range(2):
        response = await ask(session, origin.url("/a"))
        assert isinstance(response, Mine)
        assert isinstance(response, CachedResponse)
        assert response.shout() == "OK"
    assert response.from_cache


async def test_closing_the_session_keeps_what_was_read(tmp_path: Path, origin: Origin) -> None:
    for expected in (False, True):
        async with make_cached_session(tmp_path) as session:
            assert await is_hit(session, origin.url("/a")) is expected


async def test_closing_the_session_closes_the_store_that_it_made(tmp_path: Path, origin: Origin) -> None:
    async with make_cached_session(tmp_path) as session:
        cache = get_cache(session)
        await ask(session, origin.url("/a"))
    assert not cache._core.store.is_open


async def test_a_cache_that_was_passed_in_stays_open(tmp_path: Path, origin: Origin) -> None:
    async with CacheMiddleware(tmp_path) as cache:
        async with make_cached_session(cache=cache) as session:
            await ask(session, origin.url("/a"))
        assert cache._core.store.is_open
        async with make_cached_session(cache=cache) as session:
            assert await is_hit(session, origin.url("/a"))


@pytest.mark.parametrize("owner", [True, False], ids=["owned", "shared"])
async def test_an_own_connector_is_kept(tmp_path: Path, origin: Origin, owner: bool) -> None:
    connector = TCPConnector(limit=3)
    async with make_cached_session(tmp_path, connector=connector, connector_owner=owner) as session:
        assert session.connector is connector
        await ask(session, origin.url("/a"))
        cache = get_cache(session)
    assert connector.closed is owner
    await connector.close()
    await cache.aclose()
    async with make_cached_session(tmp_path) as session:
        assert await is_hit(session, origin.url("/a"))


# --- cache_trace_config ---


async def test_a_trace_config_makes_a_session_cached(tmp_path: Path, origin: Origin) -> None:
    async with ClientSession(trace_configs=[cache_trace_config(tmp_path)]) as session:
        assert not await is_hit(session, origin.url("/a"))
        assert await is_hit(session, origin.url("/a"))
        await get_cache(session).aclose()


async def test_it_can_be_appended_to_a_live_session(tmp_path: Path, origin: Origin) -> None:
    async with ClientSession() as session:
        await (await session.get(origin.url("/a"))).read()
        session.trace_configs.append(cache_trace_config(tmp_path))
        assert not await is_hit(session, origin.url("/a"))
        assert await is_hit(session, origin.url("/a"))
        await get_cache(session).aclose()
    assert origin.count == 2


async def test_a_session_may_say_that_it_has_no_middlewares(origin: Origin) -> None:
    trace_config = cache_trace_config(cache=CacheMiddleware(store=MemoryStore()))
    no_middlewares: Any = None  # which aiohttp takes for none
    async with ClientSession(middlewares=no_middlewares, trace_configs=[trace_config]) as session:
        cache = get_cache(session)
        assert [await is_hit(session, origin.url("/a")) for _ in range(2)] == [False, True]
        assert get_cache(session) is cache


def test_it_comes_frozen_and_needs_no_loop(tmp_path: Path) -> None:
    assert cache_trace_config(tmp_path).on_request_start.frozen


@pytest.mark.parametrize("has_own_context", [False, True])
async def test_its_receivers_may_be_taken_over(origin: Origin, *, has_own_context: bool) -> None:
    """As by who makes one TraceConfig of several, perhaps with a context of its own."""
    theirs = cache_trace_config(cache=CacheMiddleware(store=MemoryStore()))
    both = TraceConfig() if has_own_context else TraceConfig(theirs.trace_config_ctx)  # type: ignore[arg-type]
    for name in ("on_request_start", "on_request_redirect", "on_request_end", "on_request_exception"):
        getattr(both, name).extend(getattr(theirs, name))
    origin.text("/go", "go on", 302, Location="/a")
    async with ClientSession(trace_configs=[both]) as session:
        assert [await is_hit(session, origin.url("/a")) for _ in range(2)] == [False, True]
        assert await is_hit(session, origin.url("/go"))


async def test_one_serves_many_sessions(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    trace_config = cache_trace_config(cache=cache)
    for expected in (False, True, True):
        async with ClientSession(trace_configs=[trace_config]) as session:
            assert await is_hit(session, origin.url("/a")) is expected
            assert get_cache(session) is cache


@pytest.mark.parametrize("trace_configs", [1, 2], ids=["once", "twice"])
async def test_it_never_installs_twice(origin: Origin, trace_configs: int) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(
        middlewares=[cache], trace_configs=[cache_trace_config(cache=cache) for _ in range(trace_configs)]
    ) as session:
        for _ in range(2):
            await ask(session, origin.url("/a"))
        assert session._middlewares == (cache,) or list(session._middlewares) == [cache]
    assert (cache.stats.misses, cache.stats.hits) == (1, 1)


async def test_it_keeps_the_middlewares_of_the_session(origin: Origin) -> None:
    seen: list[str] = []

    async def watch(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        seen.append(request.url.path)
        return await handler(request)

    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(middlewares=[watch], trace_configs=[cache_trace_config(cache=cache)]) as session:
        for _ in range(2):
            await ask(session, origin.url("/a"))
    assert seen == ["/a", "/a"]
    assert origin.count == 1


async def test_it_carries_options_of_a_request(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(trace_configs=[cache_trace_config(cache=cache)]) as session:
        await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(disabled=True))
        assert not await is_hit(session, origin.url("/a"))
        assert await is_hit(session, origin.url("/a"), trace_request_ctx={"something": "else"})


async def test_a_wrong_option_raises_at_once() -> None:
    with pytest.raises(TypeError, match=r"expire_afer.*expire_after"):
        cache_trace_config(expire_afer=1)  # type: ignore[call-arg]


async def test_it_makes_a_session_cached_whose_response_class_is_the_callers(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(trace_configs=[cache_trace_config(cache=cache)], response_class=Mine) as session:
        for expected in (False, True):
            response = await ask(session, origin.url("/a"))
            assert isinstance(response, Mine)
            assert response.from_cache is expected


class Final(ClientResponse):
    """A response class of the caller's that wants no subclasses."""

    def __init_subclass__(cls) -> None:
        raise RuntimeError("final")


@pytest.mark.parametrize("response_class", [Final, partial(Mine)], ids=["final", "no class"])
async def test_a_response_class_that_can_not_be_ours_makes_no_request_worse(
    origin: Origin, response_class: Any
) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    for way_in in ({"middlewares": [cache]}, {"trace_configs": [cache_trace_config(cache=cache)]}):
        async with ClientSession(response_class=response_class, **way_in) as session:
            async with session.get(origin.url("/a")) as response:
                assert type(response) in (Final, Mine)
            with CacheOptions(only_if_cached=True):
                assert (await ask(session, origin.url("/a"))).status == 504
    assert origin.count == 2
    with pytest.raises(TypeError, match="response_class"):
        make_cached_session(cache=cache, response_class=response_class)


async def test_a_request_whose_response_can_not_be_ours_makes_stored_ones_invalid_all_the_same(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore(), cache_control=True)
    origin.text("/a", "a", Cache_Control="max-age=60")
    async with ClientSession(middlewares=[cache]) as session:
        await ask(session, origin.url("/a"))
        async with ClientSession(middlewares=[cache], response_class=Final) as other:
            await (await other.put(origin.url("/a"))).read()
        assert not await is_hit(session, origin.url("/a"))


# --- CacheMiddleware ---


async def test_the_middleware_alone(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(middlewares=[cache]) as session:
        assert not await is_hit(session, origin.url("/a"))
        assert await is_hit(session, origin.url("/a"))


async def test_the_middleware_alone_obeys_a_block(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(middlewares=[cache]) as session:
        with CacheOptions(disabled=True):
            await ask(session, origin.url("/a"))
        with CacheOptions(expire_after=0):
            await ask(session, origin.url("/a"))
        assert not await is_hit(session, origin.url("/a"))


async def test_the_middleware_alone_stores_no_hop_but_what_it_led_to(origin: Origin) -> None:
    @origin.on("/from")
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound("/to")

    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(middlewares=[cache]) as session:
        for _ in range(2):
            response = await ask(session, origin.url("/from"))
            assert len(response.history) == 1
        assert response.from_cache
    assert (origin.count_of("/from"), origin.count_of("/to")) == (2, 1)


def test_it_can_be_made_outside_a_loop_and_used_from_one_after_the_other(tmp_path: Path) -> None:
    cache = CacheMiddleware(tmp_path)

    async def one_loop() -> tuple[bool, bool]:
        served = Origin()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", served.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/a"
        try:
            async with ClientSession(middlewares=[cache]) as session:
                return await is_hit(session, url), await is_hit(session, url)
        finally:
            await runner.cleanup()

    assert asyncio.run(one_loop()) == (False, True)
    assert asyncio.run(one_loop()) == (False, True)
    asyncio.run(cache.aclose())


async def test_it_can_be_given_to_one_request(origin: Origin) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession() as session:
        await ask(session, origin.url("/a"), middlewares=[cache])
        assert await is_hit(session, origin.url("/a"), middlewares=[cache])
        async with session.get(origin.url("/a")) as response:
            assert type(response) is ClientResponse
    assert origin.count == 2


async def test_a_request_with_middlewares_of_its_own_goes_without(
    make: Callable[..., ClientSession], origin: Origin
) -> None:
    session = make()
    await ask(session, origin.url("/a"))
    assert not await is_hit(session, origin.url("/a"), middlewares=())
    assert await is_hit(session, origin.url("/a"), middlewares=(get_cache(session),))


# --- get_cache ---


async def test_get_cache_finds_what_is_installed(tmp_path: Path) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    async with make_cached_session(cache=cache) as session:
        assert get_cache(session) is cache
    async with ClientSession(middlewares=[cache]) as session:
        assert get_cache(session) is cache
    async with ClientSession(trace_configs=[cache_trace_config(cache=cache)]) as session:
        assert get_cache(session) is cache  # before its first request


async def test_get_cache_says_clearly_that_there_is_none() -> None:
    async with ClientSession() as session:
        with pytest.raises(NoCacheError, match="has no cache: make it with make_cached_session"):
            get_cache(session)


@pytest.mark.parametrize("what", [None, "session", TraceConfig()], ids=["None", "a string", "a TraceConfig"])
def test_what_is_no_session_has_no_cache(what: Any) -> None:
    with pytest.raises(TypeError, match=r"session: expected an aiohttp\.ClientSession"):
        get_cache(what)


# --- with other middlewares ---


async def test_a_retry_in_front_sees_the_answer_of_each_attempt(
    make: Callable[..., ClientSession], origin: Origin
) -> None:
    @origin.on("/flaky")
    async def flaky(request: web.Request) -> web.Response:
        return web.Response(status=503 if origin.count < 3 else 200, text="done")

    async def retry(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        for _ in range(5):
            response = await handler(request)
            if response.status != 503:
                break
            response.release()
        return response

    session = make(middlewares=(retry,))
    first = await ask(session, origin.url("/flaky"))
    second = await ask(session, origin.url("/flaky"))
    assert (first.status, first.from_cache, second.from_cache) == (200, False, True)
    assert origin.count == 3


@pytest.mark.parametrize("name", ["Authorization", "Cookie"])
async def test_what_a_middleware_behind_changes_keeps_the_response_out(origin: Origin, name: str) -> None:
    async def sign(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers[name] = "session=alice"
        return await handler(request)

    cache = CacheMiddleware(store=MemoryStore())
    async with ClientSession(middlewares=[cache, sign], trace_configs=[cache_trace_config(cache=cache)]) as session:
        for _ in range(2):
            assert not await is_hit(session, origin.url("/a"))
    assert await cache.responses.count() == 0
    assert origin.count == 2


async def test_what_a_middleware_in_front_adds_is_part_of_the_key(
    make: Callable[..., ClientSession], origin: Origin
) -> None:
    user = "alice"

    async def sign(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers["Authorization"] = f"Bearer {user}"
        return await handler(request)

    session = make(middlewares=(sign,))
    await ask(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"))
    user = "bob"
    assert not await is_hit(session, origin.url("/a"))


# --- not HTTP ---


@pytest.mark.parametrize("way", ["session", "trace config", "middleware"])
async def test_web_sockets_are_never_touched(origin: Origin, way: str) -> None:
    @origin.on("/ws")
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    cache = CacheMiddleware(store=MemoryStore())
    session = {
        "session": lambda: make_cached_session(cache=cache),
        "trace config": lambda: ClientSession(trace_configs=[cache_trace_config(cache=cache)]),
        "middleware": lambda: ClientSession(middlewares=[cache]),
    }[way]()
    async with session:
        for _ in range(2):
            async with session.ws_connect(origin.url("/ws")) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "HELLO"
    assert origin.count == 2
    assert await cache.responses.count() == 0


@pytest.mark.parametrize("store", [5, MemoryStore, "memory"])
def test_what_is_no_store_is_refused_at_once(store: Any) -> None:
    with pytest.raises(TypeError, match="store: expected a store"):
        CacheMiddleware(store=store)


# --- what a session leaves behind ---


@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
@pytest.mark.parametrize("way", ["factory", "trace config"])
async def test_a_session_that_is_dropped_unclosed_goes_as_without_a_cache(
    tmp_path: Path, origin: Origin, way: str
) -> None:
    cache = CacheMiddleware(tmp_path)
    if way == "factory":
        session = make_cached_session(cache=cache)
    else:
        session = ClientSession(trace_configs=[cache_trace_config(cache=cache)])
    await ask(session, origin.url("/a"))
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    await cache.aclose()


async def test_a_request_closed_in_another_context_ends_quietly(make: Callable[..., ClientSession]) -> None:
    """As a task that is still pending when its loop is closed."""
    session = make()

    async def never(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    request = session._request("GET", "http://site.com/", middlewares=(never,))
    contextvars.copy_context().run(request.send, None)
    request.close()


async def test_a_constructor_that_somebody_wrapped_hides_no_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ClientSession.__init__

    def wrapped(self: ClientSession, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)

    monkeypatch.setattr(ClientSession, "__init__", wrapped)
    session_module._session_arguments.cache_clear()
    try:
        async with make_cached_session(tmp_path, headers={"X-Mine": "1"}, expire_after=60) as session:
            assert session.headers["X-Mine"] == "1"
        with pytest.raises(TypeError, match="expire_aftr"):
            make_cached_session(tmp_path, expire_aftr=60)  # type: ignore[call-arg]
    finally:
        session_module._session_arguments.cache_clear()
