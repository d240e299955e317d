"""Redirects: each hop an entry of its own, stored only when it led to a response that is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from copy import copy
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, CookieJar, TooManyRedirects, web
from aiohttp.test_utils import TestServer
from yarl import URL

from aiohttp_cache_middleware import (
    CachedResponse,
    CacheMiddleware,
    CacheOptions,
    MemoryStore,
    cache_trace_config,
    get_cache,
)
from tests.asking import ask, is_hit
from tests.conftest import T0, Clock, Origin

Make = Callable[..., ClientSession]
NOW = datetime.fromtimestamp(T0, timezone.utc)


def redirect(origin: Origin, path: str, to: str, status: int = 302, **headers: str) -> None:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    @origin.on(path)
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=f"from {path}", headers={"Location": to, **fields})


@pytest.fixture
async def other_origin() -> AsyncIterator[Origin]:
    one = Origin()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.answer)
    one.server = TestServer(app, host="localhost")
    await one.server.start_server()
    yield one
    await one.server.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_repeated_request_makes_no_network_hop(make: Make, origin: Origin, status: int) -> None:
    redirect(origin, "/1", "/2", status)
    redirect(origin, "/2", "/3?q=1", status)
    session = make()
    first = await ask(session, origin.url("/1"))
    second = await ask(session, origin.url("/1"))
    assert origin.count == 3
    assert await first.text() == await second.text() == "/3 #1"
    assert second.from_cache
    for response in (first, second):
        assert [str(hop.url) for hop in response.history] == [origin.url("/1"), origin.url("/2")]
        assert [hop.status for hop in response.history] == [status, status]
        assert str(response.url) == origin.url("/3?q=1")
        assert str(response.real_url) == origin.url("/3?q=1")


@pytest.mark.parametrize(
    ("fields", "options"), [({"ETag": '"1"'}, {}), ({}, {"stale_if_error": True})], ids=["validator", "stale_if_error"]
)
async def test_an_expired_hop_that_is_of_use_goes_no_sooner_than_others(
    make: Make, origin: Origin, clock: Clock, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    redirect(origin, "/1", "/2", **fields)
    origin.text("/2", "the end", ETag='"2"')
    origin.text("/large", b"x" * 6000)
    store = MemoryStore(max_size=20_000, clock=clock)
    cache = CacheMiddleware(store=store, urls_expire_after={"*/1": 10, "*/2": 10}, **options)
    session = make(cache=cache)
    await ask(session, origin.url("/large"))
    await ask(session, origin.url("/1"))
    clock.advance(10)
    for number in range(2):
        await ask(session, origin.url("/large"), params={"number": str(number)})
    assert await cache.contains(origin.url("/1"))
    assert not await cache.contains(origin.url("/large"))


async def test_the_hops_of_a_hit_are_hits(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2", X_Hop="1")
    session = make()
    await ask(session, origin.url("/1"))
    (hop,) = (await ask(session, origin.url("/1"))).history
    assert hop.from_cache  # type: ignore[attr-defined]
    assert hop.headers["X-Hop"] == "1"
    assert hop.headers["Location"] == "/2"


async def test_the_final_url_asked_directly_is_a_hit(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    session = make()
    await ask(session, origin.url("/1"))
    response = await ask(session, origin.url("/2"))
    assert (response.from_cache, response.history) == (True, ())


async def test_a_final_url_that_is_stored_already_lets_the_hop_be_stored(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    session = make()
    await ask(session, origin.url("/2"))
    await ask(session, origin.url("/1"))
    await ask(session, origin.url("/1"))
    assert (origin.count_of("/1"), origin.count_of("/2")) == (1, 1)


@pytest.mark.parametrize("way", ["not cacheable", "not ok", "endless"])
async def test_a_hop_that_led_to_nothing_that_is_stored_is_not_stored(make: Make, origin: Origin, way: str) -> None:
    redirect(origin, "/1", "/2")
    if way == "endless":
        origin.text("/2", "data: 1\n\n", Content_Type="text/event-stream")
    else:
        origin.text("/2", status=404 if way == "not cacheable" else 500)
    session = make()
    for _ in range(2):
        await ask(session, origin.url("/1"))
    assert (origin.count_of("/1"), origin.count_of("/2")) == (2, 2)
    assert await get_cache(session).responses.count() == 0


async def test_what_the_caller_did_not_read_leaves_no_hop(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")

    @origin.on("/2")
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(bytes(2**16))
        return response

    session = make()
    response = await session.get(origin.url("/1"))
    await response.content.read(10)
    response.close()
    assert await get_cache(session).responses.count() == 0


async def test_a_large_final_body_keeps_its_hops(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    origin.text("/2", bytes(2**21))
    session = make()
    for _ in range(2):
        assert len(await (await ask(session, origin.url("/1"))).text()) == 2**21
    assert origin.count == 2


async def test_without_following_nothing_is_stored(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    session = make()
    for _ in range(2):
        response = await ask(session, origin.url("/1"), allow_redirects=False)
        assert (response.status, response.from_cache) == (302, False)
    assert origin.count_of("/1") == 2
    assert await get_cache(session).responses.count() == 0


async def test_without_following_it_is_stored_where_the_codes_allow_it(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    session = make(allowed_codes=(200, 302))
    await ask(session, origin.url("/1"), allow_redirects=False)
    response = await ask(session, origin.url("/1"), allow_redirects=False)
    assert (response.status, response.from_cache, response.headers["Location"]) == (302, True, "/2")


async def test_a_hop_that_was_followed_may_answer_who_does_not_follow(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    session = make()
    await ask(session, origin.url("/1"))
    response = await ask(session, origin.url("/1"), allow_redirects=False)
    assert (response.status, response.from_cache, await response.text()) == (302, True, "from /1")


async def test_a_loop_ends_as_without_a_cache_and_stores_nothing(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    redirect(origin, "/2", "/1")
    session = make()
    for _ in range(2):
        with pytest.raises(TooManyRedirects) as caught:
            await ask(session, origin.url("/1"))
        assert len(caught.value.history) == 10
    assert await get_cache(session).responses.count() == 0


async def test_too_many_redirects_on_hits_as_on_misses(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    redirect(origin, "/2", "/3")
    session = make()
    await ask(session, origin.url("/1"))
    for url in (origin.url("/1"), origin.url("/1?another")):
        with pytest.raises(TooManyRedirects):
            await ask(session, url, max_redirects=1)


async def test_a_hop_lives_as_long_as_what_it_led_to(make: Make, origin: Origin, clock: Clock) -> None:
    redirect(origin, "/1", "/2")
    session = make(urls_expire_after={"127.0.0.1:*/2": 10}, expire_after=1000)
    await ask(session, origin.url("/1"))
    (hop,) = (await ask(session, origin.url("/1"))).history
    assert hop.expires == NOW + timedelta(seconds=10)  # type: ignore[attr-defined]
    clock.advance(10)
    await ask(session, origin.url("/1"))
    assert (origin.count_of("/1"), origin.count_of("/2")) == (2, 2)


async def test_a_hop_that_is_revalidated_lives_as_long_as_what_it_led_to(
    make: Make, origin: Origin, clock: Clock
) -> None:
    @origin.on("/1")
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"1"':
            return web.Response(status=304, headers={"ETag": '"1"'})
        return web.Response(status=302, headers={"Location": "/2", "ETag": '"1"'})

    session = make(urls_expire_after={"127.0.0.1:*/2": 10})
    await ask(session, origin.url("/1"))
    clock.advance(10)
    (hop,) = (await ask(session, origin.url("/1"))).history
    assert hop.from_cache  # type: ignore[attr-defined]
    (hop,) = (await ask(session, origin.url("/1"))).history
    assert hop.expires == NOW + timedelta(seconds=20)  # type: ignore[attr-defined]
    assert (origin.count_of("/1"), origin.count_of("/2")) == (2, 2)
    clock.advance(10)
    origin.text("/2", status=404)
    for _ in range(2):  # it leads to nothing that is stored: so it is not renewed
        await ask(session, origin.url("/1"))
    assert origin.count_of("/1") == 4


async def test_options_of_a_request_hold_for_all_its_hops(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    session = make()
    for _ in range(2):
        await ask(session, origin.url("/1"), trace_request_ctx=CacheOptions(expire_after=0))
    assert origin.count == 4
    assert await get_cache(session).responses.count() == 0


async def test_the_redirect_of_a_post(make: Make, origin: Origin) -> None:
    redirect(origin, "/form", "/result", 303)
    session = make()
    for _ in range(2):
        response = await ask(session, origin.url("/form"), "POST", data={"a": "1"})
        assert (response.method, await response.text()) == ("GET", "/result #1")
    assert response.from_cache  # the result, while the POST itself was made twice
    assert (origin.count_of("/form"), origin.count_of("/result")) == (2, 1)


async def test_the_redirect_of_a_post_that_is_cached(make: Make, origin: Origin) -> None:
    redirect(origin, "/form", "/result", 303)
    session = make(allowed_methods=("GET", "POST"))
    for _ in range(2):
        response = await ask(session, origin.url("/form"), "POST", data={"a": "1"})
    assert response.from_cache
    assert (origin.count_of("/form"), origin.count_of("/result")) == (1, 1)
    await ask(session, origin.url("/form"), "POST", data={"a": "2"})
    assert origin.count_of("/form") == 2


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_that_keeps_method_and_body(make: Make, origin: Origin, status: int) -> None:
    redirect(origin, "/form", "/target", status)
    session = make(allowed_methods=("GET", "POST"))
    for _ in range(2):
        response = await ask(session, origin.url("/form"), "POST", json={"a": 1})
        assert response.method == "POST"
    assert response.from_cache
    assert [one.body for one in origin.seen] == [b'{"a": 1}'] * 2


async def test_to_another_origin(make: Make, origin: Origin, other_origin: Origin) -> None:
    redirect(origin, "/1", other_origin.url("/2"))
    session = make()
    for _ in range(2):
        response = await ask(session, origin.url("/1"), headers={"Authorization": "Bearer secret"})
        assert str(response.url) == other_origin.url("/2")
    assert response.from_cache
    assert (origin.count, other_origin.count) == (1, 1)
    assert "Authorization" not in other_origin.seen[0].headers
    # aiohttp drops the credentials on the way: what is stored there is for everybody.
    assert await is_hit(session, other_origin.url("/2"))
    await ask(session, origin.url("/1"))
    assert (origin.count, other_origin.count) == (2, 1)


async def test_redirects_tell_where_a_url_led(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    redirect(origin, "/2", "/3")
    session = make()
    await ask(session, origin.url("/1"))
    redirects = get_cache(session).redirects
    led_to = {origin.url("/1"): origin.url("/3"), origin.url("/2"): origin.url("/3")}
    assert dict(await redirects.items()) == led_to
    assert {url async for url in redirects} == set(led_to)
    assert await redirects.get(origin.url("/1")) == origin.url("/3")
    assert await redirects.get(origin.url("/3")) is None
    assert await redirects.count() == 2
    assert set(await redirects.values()) == {origin.url("/3")}


async def test_hops_are_known_to_a_session_with_a_trace_config(origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    cache = CacheMiddleware(store=MemoryStore())
    for trace_config in (cache_trace_config(cache=cache), cache_trace_config(cache=cache)):
        async with ClientSession(trace_configs=[trace_config]) as session:
            await ask(session, origin.url("/1"))
    assert origin.count == 2


async def test_a_redirect_without_a_location_is_an_ordinary_response(make: Make, origin: Origin) -> None:
    origin.text("/1", status=302)
    session = make()
    for _ in range(2):
        response = await ask(session, origin.url("/1"))
        assert (response.status, response.from_cache) == (302, False)


async def test_a_location_with_a_fragment(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2#part")
    session = make()
    for _ in range(2):
        response = await ask(session, origin.url("/1"))
        assert str(response.real_url) == origin.url("/2#part")
        assert str(response.url) == origin.url("/2")
    assert response.from_cache


async def test_stale_if_error_bridges_a_redirect_too(make: Make, origin: Origin, clock: Clock) -> None:
    redirect(origin, "/1", "/2")
    session = make(expire_after=10, stale_if_error=True)
    await ask(session, origin.url("/1"))
    origin.text("/1", status=503)
    origin.text("/2", status=503)
    clock.advance(20)
    response = await ask(session, origin.url("/1"))
    assert (response.status, response.from_cache, response.is_expired) == (200, True, True)


@pytest.mark.parametrize("options", [{}, {"cache_control": True}, {"allowed_codes": (200, 308)}], ids=str)
async def test_a_redirect_that_hands_an_ignored_parameter_on_is_not_stored(
    make: Make, origin: Origin, directory: Path, options: dict[str, Any]
) -> None:
    @origin.on("/v1")
    async def answer(request: web.Request) -> web.Response:
        location = f"/v1/?{request.query_string}"
        return web.Response(status=308, headers={"Location": location, "Cache-Control": "max-age=60"})

    origin.text("/v1/", "the end", Cache_Control="max-age=60")
    session = make(ignored_params=["api_key"], **options)
    for key in ("ALICE", "BOB"):
        response = await ask(session, origin.url("/v1"), params={"api_key": key})
        assert str(response.url) == origin.url(f"/v1/?api_key={key}")
    assert (origin.count_of("/v1"), origin.count_of("/v1/")) == (2, 1)
    assert await get_cache(session).urls() == [origin.url("/v1/")]
    await session.close()
    assert not [path for path in directory.rglob("*") if path.is_file() and b"ALICE" in path.read_bytes()]


async def test_a_filter_is_not_asked_about_hops(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    origin.text("/2", "ok")
    session = make(filter_fn=lambda response: response.status == 200 and response.body == b"ok")
    for _ in range(2):
        response = await ask(session, origin.url("/1"))
    assert response.from_cache
    assert origin.count == 2


async def test_a_redirect_that_leads_nowhere_is_the_end(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2", 302)
    origin.text("/2", "the end", status=301)
    session = make(allowed_codes=(200, 301))
    for _ in range(3):
        assert await (await ask(session, origin.url("/1"))).text() == "the end"
    assert (origin.count_of("/1"), origin.count_of("/2")) == (1, 1)


async def test_a_hop_in_the_middle_is_not_what_another_led_to(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2", 302)
    redirect(origin, "/2", "/3", 301)
    origin.text("/3", status=404)
    session = make(allowed_codes=(200, 301))
    await ask(session, origin.url("/1"))
    assert await get_cache(session).urls() == [origin.url("/2")]
    origin.text("/3", "the end")
    for _ in range(2):
        await ask(session, origin.url("/1"))
    assert (origin.count_of("/1"), origin.count_of("/2"), origin.count_of("/3")) == (2, 1, 2)
    assert await get_cache(session).redirects.get(origin.url("/1")) == origin.url("/3")


def cookie_gate(origin: Origin, path: str, by_way_of: str, **headers: str) -> None:
    """Have *path* answered once *by_way_of* has set a cookie, as sites do that want to know whether one comes back."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    @origin.on(path)
    async def answer(request: web.Request) -> web.Response:
        if "seen" in request.cookies:
            return web.Response(text="the page", headers=fields)
        return redirection(by_way_of, path, fields)

    if by_way_of != path:

        @origin.on(by_way_of)
        async def set_cookie(request: web.Request) -> web.Response:
            return redirection(path, by_way_of, fields)

    def redirection(to: str, here: str, fields: dict[str, str]) -> web.Response:
        cookie = {"Set-Cookie": "seen=1; Path=/"} if here == by_way_of else {}
        return web.Response(status=302, headers={"Location": to, **cookie, **fields})


@pytest.mark.parametrize("by_way_of", ["/page", "/cookie"])
@pytest.mark.parametrize("options", [{}, {"allowed_codes": (200, 302)}, {"cache_control": True}], ids=str)
async def test_a_page_that_redirects_to_itself_until_it_has_set_a_cookie(
    make: Make, origin: Origin, by_way_of: str, options: dict[str, Any]
) -> None:
    cookie_gate(origin, "/page", by_way_of, Cache_Control="max-age=60")
    session = make(cookie_jar=CookieJar(unsafe=True), **options)
    first = await ask(session, origin.url("/page"))
    assert await first.text() == "the page"
    assert len(first.history) == (1 if by_way_of == "/page" else 2)
    reached = origin.count
    for _ in range(2):
        response = await ask(session, origin.url("/page"))
        assert (await response.text(), response.from_cache) == ("the page", True)
    assert origin.count == reached


async def test_redirects_that_lead_in_a_circle_since_one_was_stored_are_asked_for_again(
    make: Make, origin: Origin
) -> None:
    redirect(origin, "/old", "/new")
    session = make()
    await ask(session, origin.url("/old"))
    redirect(origin, "/new", "/old")
    del origin.handlers["/old"]
    await get_cache(session).delete(origin.url("/new"))
    for hit in (False, True):
        response = await ask(session, origin.url("/new"))
        assert (str(response.url), response.status, response.from_cache) == (origin.url("/old"), 200, hit)


async def test_each_of_two_caches_of_one_session_keeps_its_own_hops(origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    caches = [CacheMiddleware(store=MemoryStore()) for _ in range(2)]
    session = ClientSession(trace_configs=[cache_trace_config(cache=cache) for cache in caches])
    async with session:
        await ask(session, origin.url("/1"))
        for cache in (None, *caches):
            if cache is not None:
                await cache.clear()
            response = await ask(session, origin.url("/1"))
            assert (response.from_cache, len(response.history), origin.count) == (True, 1, 2)


async def test_what_a_middleware_sends_again_when_the_call_is_over_leaves_no_hop_behind(
    make: Make, origin: Origin
) -> None:
    redirect(origin, "/1", "/2")
    sent: list[tuple[ClientRequest, ClientHandlerType]] = []

    async def remember(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        sent.append((copy(request), handler))
        return await handler(request)

    async def send_again() -> bool:
        (request, handler), *_ = sent
        async with await handler(copy(request)) as response:
            return cast("CachedResponse", response).from_cache

    session = make(middlewares=[remember])
    cache = get_cache(session)
    await ask(session, origin.url("/1"))
    assert [await send_again() for _ in range(2)] == [True, True]
    await cache.delete(origin.url("/1"))
    assert [await send_again() for _ in range(2)] == [False, False]
    assert not cache._core.flights._here().flights  # for which others would wait


async def test_redirects_that_a_middleware_follows_are_not_waited_for(make: Make, origin: Origin) -> None:
    redirect(origin, "/1", "/2")
    redirect(origin, "/2", "/3")

    async def follow(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        while (response := await handler(request)).status == 302:
            request.url = request.url.join(URL(response.headers["Location"]))
        return response

    session = make(middlewares=[follow])
    assert await (await ask(session, origin.url("/1"))).text() == "/3 #1"
    assert not get_cache(session)._core.flights._here().flights
