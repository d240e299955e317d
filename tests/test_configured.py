"""The default mode: what the options say decides what is stored, and for how long."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientSession, ClientTimeout, web

from aiohttp_cache_middleware import CachedResponse, CacheOptions, get_cache
from aiohttp_cache_middleware._model import Rules
from aiohttp_cache_middleware._policy import _configured
from tests.asking import ask, is_hit
from tests.conftest import T0, Clock, Origin
from tests.policy.making import a_part, an_answer

NOW = datetime.fromtimestamp(T0, timezone.utc)
MINUTE_LATER = NOW + timedelta(minutes=1)

Make = Callable[..., ClientSession]


async def store_first(make: Make, url: str, **options: Any) -> None:
    """Have another session store what *url* answers, and end."""
    async with make(**options) as session:
        await ask(session, url)


# --- expire_after ---


@pytest.mark.parametrize(
    "expire_after",
    [
        pytest.param(60, id="int"),
        pytest.param(60.0, id="float"),
        pytest.param(timedelta(minutes=1), id="timedelta"),
        pytest.param(MINUTE_LATER, id="aware datetime"),
        pytest.param(MINUTE_LATER.astimezone(timezone(timedelta(hours=5))), id="datetime in a zone"),
        pytest.param(MINUTE_LATER.replace(tzinfo=None), id="naive datetime is UTC"),
        pytest.param(format_datetime(MINUTE_LATER, usegmt=True), id="HTTP date"),
    ],
)
@pytest.mark.parametrize("way", ["cache", "request", "block", "pattern", "later"])
async def test_a_lifetime(make: Make, origin: Origin, clock: Clock, expire_after: Any, way: str) -> None:
    session = make(
        expire_after=expire_after if way == "cache" else 1,
        urls_expire_after={"127.0.0.1:*": expire_after} if way == "pattern" else {},
    )
    if way == "later":
        get_cache(session).expire_after = expire_after
    options = CacheOptions(expire_after=expire_after)
    if way == "block":
        with options:
            await ask(session, origin.url("/a"))
    else:
        await ask(session, origin.url("/a"), trace_request_ctx=options if way == "request" else None)

    clock.advance(59)
    hit = await ask(session, origin.url("/a"))
    assert (hit.from_cache, hit.created_at, hit.expires, hit.is_expired) == (True, NOW, MINUTE_LATER, False)
    assert hit.age == 59
    clock.advance(1)
    assert not await is_hit(session, origin.url("/a"))


@pytest.mark.parametrize("expire_after", [None, -1, -1.0])
async def test_for_ever(make: Make, origin: Origin, clock: Clock, expire_after: float | None) -> None:
    session = make(expire_after=expire_after)
    await ask(session, origin.url("/a"))
    clock.advance(100 * 365 * 86400)
    hit = await ask(session, origin.url("/a"))
    assert (hit.from_cache, hit.expires, hit.is_expired) == (True, None, False)


@pytest.mark.parametrize("zero", [0, 0.0, timedelta(0)], ids=repr)
@pytest.mark.parametrize("way", ["cache", "request", "block", "pattern"])
async def test_zero_neither_reads_nor_stores_and_what_is_stored_stays(
    make: Make, origin: Origin, zero: Any, way: str
) -> None:
    await store_first(make, origin.url("/a"))
    session = make(
        expire_after=zero if way == "cache" else None,
        urls_expire_after={"127.0.0.1:*": zero} if way == "pattern" else {},
    )
    options = CacheOptions(expire_after=zero)
    for path in ("/a", "/b", "/b"):
        if way == "block":
            with options:
                assert not await is_hit(session, origin.url(path))
        else:
            assert not await is_hit(session, origin.url(path), trace_request_ctx=options if way == "request" else None)
    assert await (await ask(make(), origin.url("/a"))).text() == "/a #1"
    assert not await get_cache(session).contains(url=origin.url("/b"))


async def test_a_moment_in_the_past_stores_nothing(make: Make, origin: Origin) -> None:
    session = make(expire_after=NOW - timedelta(days=1))
    for _ in range(2):
        assert not await is_hit(session, origin.url("/a"))
    assert await get_cache(session).responses.count() == 0


async def test_a_lifetime_counts_when_a_response_is_stored_not_when_it_is_read(
    make: Make, origin: Origin, clock: Clock
) -> None:
    session = make(expire_after=60)
    await ask(session, origin.url("/a"))
    get_cache(session).expire_after = 5
    clock.advance(30)
    assert await is_hit(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"), trace_request_ctx=CacheOptions(expire_after=5))


@pytest.mark.parametrize(
    ("request_says", "pattern_says", "cache_says", "lifetime"),
    [
        (10, 20, 30, 10),
        (None, 20, 30, 20),
        (None, None, 30, 30),
        (-1, 20, 30, None),
        (None, -1, 30, None),
        (10, 0, 0, 10),
    ],
)
async def test_precedence(
    make: Make,
    origin: Origin,
    request_says: int | None,
    pattern_says: int | None,
    cache_says: int,
    lifetime: int | None,
) -> None:
    session = make(expire_after=cache_says, urls_expire_after={"127.0.0.1:*": pattern_says})
    options = CacheOptions(expire_after=request_says)
    await ask(session, origin.url("/a"), trace_request_ctx=options)
    hit = await ask(session, origin.url("/a"), trace_request_ctx=options)
    assert hit.expires == (None if lifetime is None else NOW + timedelta(seconds=lifetime))
    assert hit.from_cache


async def test_what_the_request_says_wins_over_the_block_and_the_inner_over_the_outer(
    make: Make, origin: Origin
) -> None:
    session = make(expire_after=1)
    with CacheOptions(expire_after=10):
        await ask(session, origin.url("/outer"))
        with CacheOptions(expire_after=20):
            await ask(session, origin.url("/inner"))
            await ask(session, origin.url("/request"), trace_request_ctx=CacheOptions(expire_after=30))
    for path, seconds in (("/outer", 10), ("/inner", 20), ("/request", 30)):
        assert (await ask(session, origin.url(path))).expires == NOW + timedelta(seconds=seconds)


async def test_patterns_look_at_path_and_query_and_the_first_counts(make: Make, origin: Origin) -> None:
    session = make(
        urls_expire_after={
            "127.0.0.1:*/a/static": 10,
            "127.0.0.1:*/a": 20,
            re.compile(r"[?&]page=\d+"): 30,
            "*": 40,
        }
    )
    for path, params, seconds in (
        ("/a/static/x", None, 10),
        ("/a/x", None, 20),
        ("/b?page=7", None, 30),
        ("/c", {"page": "7"}, 30),
        ("/d", None, 40),
    ):
        for _ in range(2):
            response = await ask(session, origin.url(path), params=params)
        assert response.expires == NOW + timedelta(seconds=seconds), path


async def test_without_validator_an_expired_response_is_fetched_anew(make: Make, origin: Origin, clock: Clock) -> None:
    session = make(expire_after=10)
    await ask(session, origin.url("/a"))
    clock.advance(10)
    assert await (await ask(session, origin.url("/a"))).text() == "/a #2"
    assert await is_hit(session, origin.url("/a"))


# --- the lists, and the filter ---


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_a_method_is_cached_where_the_list_has_it(make: Make, origin: Origin, method: str) -> None:
    session = make()
    assert [await is_hit(session, origin.url("/a"), method) for _ in range(2)] == [False, False]
    session = make(allowed_methods=("GET", method.lower()))
    assert [await is_hit(session, origin.url("/a"), method) for _ in range(2)] == [False, True]


async def test_get_and_head_are_cached_by_default_each_for_itself(make: Make, origin: Origin) -> None:
    session = make()
    assert [await is_hit(session, origin.url("/a"), method) for method in ("GET", "HEAD", "GET", "HEAD")] == [
        False,
        False,
        True,
        True,
    ]


async def test_allowed_methods_hold_on_reading_too(make: Make, origin: Origin) -> None:
    await store_first(make, origin.url("/a"))
    session = make(allowed_methods=("POST",))
    assert not await is_hit(session, origin.url("/a"))


@pytest.mark.parametrize("status", [201, 204, 206, 301, 404, 410, 500])
async def test_a_status_is_cached_where_the_list_has_it(make: Make, origin: Origin, status: int) -> None:
    origin.text("/a", status=status)
    session = make()
    assert [await is_hit(session, origin.url("/a")) for _ in range(2)] == [False, False]
    async with make(allowed_codes=(status,)) as session:
        assert [await is_hit(session, origin.url("/a")) for _ in range(2)] == [False, True]
    assert not await is_hit(make(), origin.url("/a"))  # the list holds on reading too


async def test_a_list_without_200_leaves_200_out(make: Make, origin: Origin) -> None:
    session = make(allowed_codes=(404,))
    assert [await is_hit(session, origin.url("/a")) for _ in range(2)] == [False, False]


class Filter:
    """A filter whose call is a coroutine."""

    def __init__(self, verdict: Callable[[CachedResponse], bool]) -> None:
        self.verdict = verdict

    async def __call__(self, response: CachedResponse) -> bool:
        await asyncio.sleep(0)
        return self.verdict(response)


def as_function(verdict: Callable[[CachedResponse], bool]) -> Callable[[CachedResponse], bool | Awaitable[bool]]:
    return verdict


def as_coroutine_function(verdict: Callable[[CachedResponse], bool]) -> Callable[[CachedResponse], Awaitable[bool]]:
    async def fn(response: CachedResponse) -> bool:
        await asyncio.sleep(0)
        return verdict(response)

    return fn


FILTER_KINDS = pytest.mark.parametrize(
    "kind", [as_function, as_coroutine_function, Filter], ids=["function", "coroutine function", "callable object"]
)


async def settle() -> None:
    """Let an asynchronous filter come to its verdict."""
    for _ in range(20):
        await asyncio.sleep(0)


@FILTER_KINDS
async def test_the_filter_decides_what_is_stored(make: Make, origin: Origin, kind: Callable[..., Any]) -> None:
    seen: list[tuple[bool, bytes, int]] = []

    def verdict(response: CachedResponse) -> bool:
        assert isinstance(response, CachedResponse)
        seen.append((response.from_cache, response.body, response.size))
        return b"keep" in response.body

    origin.text("/good", "keep me")
    origin.text("/bad", "no")
    session = make(filter_fn=kind(verdict))
    hits = []
    for path in ("/good", "/good", "/bad", "/bad"):
        hits.append(await is_hit(session, origin.url(path)))
        await settle()
    assert hits == [False, True, False, False]
    assert seen == [(False, b"keep me", 7), (True, b"keep me", 7), (False, b"no", 2), (False, b"no", 2)]
    assert not await get_cache(session).contains(url=origin.url("/bad"))


@FILTER_KINDS
async def test_the_filter_decides_what_is_used(make: Make, origin: Origin, kind: Callable[..., Any]) -> None:
    await store_first(make, origin.url("/a"))
    session = make(filter_fn=kind(lambda response: not response.from_cache))
    response = await ask(session, origin.url("/a"))
    assert (response.from_cache, await response.text()) == (False, "/a #2")


@FILTER_KINDS
@pytest.mark.parametrize("when", ["storing", "reading"])
async def test_a_filter_that_raises_means_do_not_cache(
    make: Make, origin: Origin, kind: Callable[..., Any], when: str, caplog: pytest.LogCaptureFixture
) -> None:
    def verdict(response: CachedResponse) -> bool:
        if response.from_cache is (when == "reading"):
            raise KeyError("oops")
        return True

    session = make(filter_fn=kind(verdict))
    for _ in range(2):
        response = await ask(session, origin.url("/a"))
        await settle()
    assert (response.from_cache, await response.text()) == (False, "/a #2")
    assert "filter_fn failed" in caplog.text
    assert "oops" in caplog.text


class Undecided:
    """A verdict that is neither true nor false, as the arrays of numpy are."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@FILTER_KINDS
@pytest.mark.parametrize("when", ["storing", "reading"])
async def test_a_verdict_that_is_neither_true_nor_false_means_do_not_cache(
    make: Make, origin: Origin, kind: Callable[..., Any], when: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = make(filter_fn=kind(lambda response: Undecided() if response.from_cache is (when == "reading") else True))
    for _ in range(2):
        response = await ask(session, origin.url("/a"))
        await settle()
    assert (response.from_cache, await response.text()) == (False, "/a #2")
    assert "filter_fn failed" in caplog.text


async def test_the_filter_may_use_what_aiohttp_offers(make: Make, origin: Origin) -> None:
    async def wanted(response: CachedResponse) -> bool:
        return bool((await response.json())["ok"]) and response.status == 200 and response.url.path == "/a"

    origin.text("/a", '{"ok": true}', Content_Type="application/json")
    session = make(filter_fn=wanted)
    first = await ask(session, origin.url("/a"))
    await settle()
    second = await ask(session, origin.url("/a"))
    assert (first.from_cache, second.from_cache) == (False, True)
    assert await second.json() == {"ok": True}


async def _reads(response: CachedResponse) -> None:
    assert await response.read()


async def _reads_from_the_stream(response: CachedResponse) -> None:
    assert await response.content.read()


async def _leaves_its_context(response: CachedResponse) -> None:
    async with response:
        pass


async def _closes(response: CachedResponse) -> None:
    assert response.body
    response.close()


async def _marks(response: CachedResponse) -> None:
    response.status = 418
    response.from_cache = False


@pytest.mark.parametrize("does", [_reads, _reads_from_the_stream, _leaves_its_context, _closes, _marks])
@pytest.mark.parametrize("size", [1000, 1_000_000], ids=["small", "large"])
@pytest.mark.parametrize("streams", [False, True], ids=["read", "streamed"])
async def test_what_a_filter_does_to_its_response_nobody_else_notices(
    make: Make, origin: Origin, does: Callable[[CachedResponse], Awaitable[None]], size: int, streams: bool
) -> None:
    asked: list[bool] = []

    async def wanted(response: CachedResponse) -> bool:
        asked.append(response.from_cache)
        await does(response)
        return True

    origin.text("/a", b"x" * size)
    await store_first(make, origin.url("/a"))
    async with make(filter_fn=wanted).get(origin.url("/a")) as response:
        assert isinstance(response, CachedResponse)
        body = b"".join([chunk async for chunk in response.content.iter_any()]) if streams else await response.read()
        assert (response.from_cache, response.status, body) == (True, 200, b"x" * size)
    assert asked == [True]


async def test_the_filter_is_not_asked_about_a_body_that_was_cut_short(make: Make, origin: Origin) -> None:
    asked: list[bytes] = []

    @origin.on("/cut")
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"only this")
        assert request.transport is not None
        request.transport.close()
        return response

    def note(response: CachedResponse) -> bool:
        asked.append(response.body)
        return True

    session = make(filter_fn=note)
    with pytest.raises(ClientPayloadError):
        await ask(session, origin.url("/cut"))
    assert asked == []


# --- Vary ---


async def test_variants_are_kept_side_by_side(make: Make, origin: Origin) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        language = request.headers.get("Accept-Language", "none")
        return web.Response(text=language, headers={"Vary": "Accept-Language"})

    session = make()
    asked: list[dict[str, str]] = [{"Accept-Language": "de"}, {"Accept-Language": "en"}, {}]
    for expected in (False, True):
        for headers in asked:
            response = await ask(session, origin.url("/a"), headers=headers)
            assert response.from_cache is expected
            assert await response.text() == headers.get("Accept-Language", "none")


async def test_several_names_in_vary_must_all_agree(make: Make, origin: Origin) -> None:
    origin.text("/a", Vary="X-One, x-two")
    session = make()
    await ask(session, origin.url("/a"), headers={"X-One": "1", "X-Two": "2"})
    assert await is_hit(session, origin.url("/a"), headers={"x-two": "2", "x-one": "1"})
    assert not await is_hit(session, origin.url("/a"), headers={"X-One": "1", "X-Two": "3"})
    assert not await is_hit(session, origin.url("/a"), headers={"X-One": "1"})


async def test_a_star_among_names_in_vary_is_no_name(make: Make, origin: Origin) -> None:
    origin.text("/a", Vary="*, X-One")
    session = make()
    await ask(session, origin.url("/a"), headers={"X-One": "1"})
    assert await is_hit(session, origin.url("/a"), headers={"X-One": "1", "Accept": "text/html"})
    assert not await is_hit(session, origin.url("/a"), headers={"X-One": "2"})


async def test_a_lifetime_counts_from_the_moment_of_storing(make: Make, origin: Origin) -> None:
    """To the microsecond, though the clock goes on between one look and the next."""
    session = make(expire_after=60)
    get_cache(session)._core.clock = partial(next, itertools.count(T0, 0.5))
    await ask(session, origin.url("/a"))
    hit = await ask(session, origin.url("/a"))
    assert hit.expires is not None
    assert hit.created_at is not None
    assert hit.expires - hit.created_at == timedelta(seconds=60)


async def test_vary_star_is_taken_as_none(make: Make, origin: Origin) -> None:
    origin.text("/a", Vary="*")
    session = make()
    await ask(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"), headers={"Accept": "text/html"})


async def test_ignored_names_in_vary_do_not_count(make: Make, origin: Origin) -> None:
    origin.text("/a", Vary="X-Request-Id, Accept")
    session = make(ignored_params=["x-request-id"])
    await ask(session, origin.url("/a"), headers={"X-Request-Id": "1"})
    assert await is_hit(session, origin.url("/a"), headers={"X-Request-Id": "2"})
    assert not await is_hit(session, origin.url("/a"), headers={"X-Request-Id": "2", "Accept": "text/html"})


@pytest.mark.parametrize("include_headers", [False, True, ["X-Other"]], ids=repr)
async def test_vary_counts_whatever_include_headers_says(make: Make, origin: Origin, include_headers: Any) -> None:
    origin.text("/a", Vary="X-One")
    session = make(include_headers=include_headers)
    await ask(session, origin.url("/a"), headers={"X-One": "1"})
    assert await is_hit(session, origin.url("/a"), headers={"X-One": "1"})
    assert not await is_hit(session, origin.url("/a"), headers={"X-One": "2"})


async def test_a_variant_that_expired_is_revalidated_by_itself(make: Make, origin: Origin, clock: Clock) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        tag = f'"{request.headers.get("X-One")}"'
        headers = {"Vary": "X-One", "ETag": tag}
        return web.Response(status=304 if request.headers.get("If-None-Match") == tag else 200, headers=headers)

    session = make(expire_after=10)
    for value in ("1", "2"):
        await ask(session, origin.url("/a"), headers={"X-One": value})
    clock.advance(10)
    for value in ("1", "2"):
        assert await is_hit(session, origin.url("/a"), headers={"X-One": value})
        assert origin.seen[-1].headers["If-None-Match"] == f'"{value}"'


async def test_a_304_that_names_more_in_vary_lets_that_select(make: Make, origin: Origin, clock: Clock) -> None:
    """Names that are ignored aside."""

    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        if "If-None-Match" in request.headers:
            return web.Response(status=304, headers={"Vary": "X-One, X-Two, X-Ignored, *"})
        return web.Response(headers={"Vary": "X-One", "ETag": '"1"'})

    session = make(expire_after=10, ignored_params=["X-Ignored"])
    asked = {"X-One": "1", "X-Two": "2", "X-Ignored": "3"}
    await ask(session, origin.url("/a"), headers=asked)
    clock.advance(10)
    for headers in (asked, {**asked, "X-Ignored": "4"}):
        assert await is_hit(session, origin.url("/a"), headers=headers)
    assert origin.count == 2
    for headers in ({**asked, "X-One": "2"}, {**asked, "X-Two": "1"}):
        assert not await is_hit(session, origin.url("/a"), headers=headers)


# --- revalidation ---


VALIDATORS = pytest.mark.parametrize(
    ("validator", "condition"),
    [
        pytest.param(("ETag", '"1"'), "If-None-Match", id="ETag"),
        pytest.param(("ETag", 'W/"1"'), "If-None-Match", id="weak ETag"),
        pytest.param(("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), "If-Modified-Since", id="Last-Modified"),
    ],
)


def with_validator(origin: Origin, name: str, value: str, condition: str) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get(condition) == value:
            return web.Response(status=304, headers={name: value, "X-Count": str(origin.count)})
        return web.Response(text="the whole response", headers={name: value, "X-Count": str(origin.count)})


@VALIDATORS
async def test_a_304_renews_and_the_caller_gets_the_whole_response(
    make: Make, origin: Origin, clock: Clock, validator: tuple[str, str], condition: str
) -> None:
    with_validator(origin, *validator, condition)
    session = make(expire_after=10)
    await ask(session, origin.url("/a"))
    clock.advance(10)
    response = await ask(session, origin.url("/a"))
    assert (response.status, response.from_cache, response.is_expired) == (200, True, False)
    assert await response.text() == "the whole response"
    assert response.headers["X-Count"] == "2"  # freshened (RFC 9111 §3.2)
    assert response.created_at == NOW + timedelta(seconds=10)
    assert response.expires == NOW + timedelta(seconds=20)
    clock.advance(9)
    again = await ask(session, origin.url("/a"))
    assert (again.from_cache, again.headers["X-Count"], await again.text()) == (True, "2", "the whole response")
    assert origin.count == 2
    # The caller's own request shows nothing of the conditions.
    assert condition not in response.request_info.headers


async def test_both_validators_are_sent(make: Make, origin: Origin, clock: Clock) -> None:
    origin.text("/a", ETag='"1"', Last_Modified="Sun, 06 Nov 1994 08:49:37 GMT")
    session = make(expire_after=10)
    await ask(session, origin.url("/a"))
    clock.advance(10)
    await ask(session, origin.url("/a"))
    assert origin.seen[1].headers["If-None-Match"] == '"1"'
    assert origin.seen[1].headers["If-Modified-Since"] == "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
async def test_a_method_that_knows_no_304_is_asked_anew(make: Make, origin: Origin, clock: Clock, method: str) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        is_unchanged = request.headers.get("If-None-Match") == '"1"'  # RFC 9110 §13.1.2: then nothing is done
        return web.Response(status=412 if is_unchanged else 200, text="done", headers={"ETag": '"1"'})

    session = make(allowed_methods=(method,), expire_after=10)
    await ask(session, origin.url("/a"), method)
    clock.advance(10)
    response = await ask(session, origin.url("/a"), method)
    assert (response.status, response.from_cache, await response.text()) == (200, False, "done")
    assert await is_hit(session, origin.url("/a"), method)


async def test_a_changed_resource_takes_the_place_of_the_old(make: Make, origin: Origin, clock: Clock) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"version {origin.count}", headers={"ETag": f'"{origin.count}"'})

    session = make(expire_after=10)
    await ask(session, origin.url("/a"))
    clock.advance(10)
    response = await ask(session, origin.url("/a"))
    assert (response.from_cache, await response.text()) == (False, "version 2")
    response = await ask(session, origin.url("/a"))
    assert (response.from_cache, await response.text()) == (True, "version 2")


@pytest.mark.parametrize("failure", ["500", "404", "no connection", "cut short"])
async def test_a_failed_refetch_loses_nothing(make: Make, origin: Origin, clock: Clock, failure: str) -> None:
    is_failing = False

    @origin.on("/a")
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if not is_failing:
            status = 304 if "If-None-Match" in request.headers else 200
            return web.Response(text=None if status == 304 else "good", status=status, headers={"ETag": '"1"'})
        if failure == "no connection":
            request.transport.close()
        if failure == "cut short":
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"only this")
            request.transport.close()
            return response
        return web.Response(status=int(failure) if failure.isdigit() else 200, text="bad")

    session = make(expire_after=10)
    await ask(session, origin.url("/a"))
    clock.advance(10)
    is_failing = True
    if failure.isdigit():
        assert (await ask(session, origin.url("/a"))).status == int(failure)
    else:
        with pytest.raises(ClientError):
            await ask(session, origin.url("/a"))
    is_failing = False
    response = await ask(session, origin.url("/a"))
    assert (response.from_cache, await response.text()) == (True, "good")
    assert "If-None-Match" in origin.seen[-1].headers


async def test_the_callers_own_conditional_request_passes_through(make: Make, origin: Origin) -> None:
    with_validator(origin, "ETag", '"1"', "If-None-Match")
    session = make()
    await ask(session, origin.url("/a"))
    response = await ask(session, origin.url("/a"), headers={"If-None-Match": '"1"'})
    assert (response.status, response.from_cache) == (304, False)
    assert await is_hit(session, origin.url("/a"))
    assert origin.count == 2


# --- per request ---


@VALIDATORS
async def test_refresh_revalidates_what_is_fresh(
    make: Make, origin: Origin, validator: tuple[str, str], condition: str
) -> None:
    with_validator(origin, *validator, condition)
    session = make()
    await ask(session, origin.url("/a"))
    response = await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(refresh=True))
    assert (response.from_cache, await response.text(), origin.count) == (True, "the whole response", 2)


async def test_refresh_fetches_anew_what_has_no_validator(make: Make, origin: Origin) -> None:
    session = make()
    await ask(session, origin.url("/a"))
    response = await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(refresh=True))
    assert (response.from_cache, await response.text()) == (False, "/a #2")
    assert await (await ask(session, origin.url("/a"))).text() == "/a #2"


async def test_refresh_of_what_is_not_stored_stores_it(make: Make, origin: Origin) -> None:
    session = make()
    await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(refresh=True))
    assert await is_hit(session, origin.url("/a"))


async def test_only_if_cached_never_touches_the_network(make: Make, origin: Origin, clock: Clock) -> None:
    session = make(expire_after=10)
    only = CacheOptions(only_if_cached=True)
    missing = await ask(session, origin.url("/a"), trace_request_ctx=only)
    assert (missing.status, missing.reason, missing.ok) == (504, "Gateway Timeout", False)
    assert (missing.from_cache, missing.created_at, missing.expires, missing.is_expired) == (False, None, None, None)
    assert origin.count == 0
    await ask(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"), trace_request_ctx=only)
    clock.advance(10)
    assert (await ask(session, origin.url("/a"), trace_request_ctx=only)).status == 504
    assert (await ask(session, origin.url("/a"), "POST", trace_request_ctx=only)).status == 504
    assert origin.count == 1


async def test_only_if_cached_holds_where_the_cache_is_disabled(make: Make, origin: Origin) -> None:
    session = make()
    await ask(session, origin.url("/a"))
    both = CacheOptions(only_if_cached=True, disabled=True)
    assert (await ask(session, origin.url("/a"), trace_request_ctx=both)).status == 504
    with get_cache(session).disabled(), CacheOptions(only_if_cached=True):
        assert (await ask(session, origin.url("/a"))).status == 504
    assert origin.count == 1


async def test_only_if_cached_with_a_body_that_cannot_be_compared(make: Make, origin: Origin) -> None:
    async def body() -> Any:
        yield b"once"

    session = make(allowed_methods=("POST",))
    response = await ask(
        session, origin.url("/a"), "POST", data=body(), trace_request_ctx=CacheOptions(only_if_cached=True)
    )
    assert (response.status, origin.count) == (504, 0)


async def test_disabled_neither_reads_nor_writes(make: Make, origin: Origin) -> None:
    session = make()
    await ask(session, origin.url("/a"))
    disabled = CacheOptions(disabled=True)
    response = await ask(session, origin.url("/a"), trace_request_ctx=disabled)
    assert (response.from_cache, await response.text()) == (False, "/a #2")
    await ask(session, origin.url("/b"), trace_request_ctx=disabled)
    assert await (await ask(session, origin.url("/a"))).text() == "/a #1"
    assert not await is_hit(session, origin.url("/b"))


async def test_a_namespace_separates(make: Make, origin: Origin) -> None:
    async with make(namespace="alice") as session:
        await ask(session, origin.url("/a"))
        assert not await is_hit(session, origin.url("/a"), trace_request_ctx=CacheOptions(namespace="bob"))
        assert await is_hit(session, origin.url("/a"))
    session = make()
    assert not await is_hit(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"), trace_request_ctx=CacheOptions(namespace="alice"))


# --- stale_if_error ---


def failing_later(origin: Origin, failure: str) -> None:
    """Have ``/a`` answer once, then fail."""

    @origin.on("/a")
    async def answer(request: web.Request) -> web.StreamResponse:
        if origin.count == 1:
            return web.Response(text="good")
        if failure == "disconnect":
            assert request.transport is not None
            request.transport.close()
        elif failure.endswith("timeout"):
            await asyncio.sleep(30)
        return web.Response(status=int(failure) if failure.isdigit() else 200, text="bad")


FAILURES = pytest.mark.parametrize(
    "failure", ["500", "502", "503", "504", "disconnect", "total timeout", "read timeout"]
)


def timeout_for(failure: str) -> ClientTimeout:
    return ClientTimeout(
        total=0.05 if failure == "total timeout" else None, sock_read=0.05 if failure == "read timeout" else None
    )


@FAILURES
@pytest.mark.parametrize("way", ["cache", "time", "request"])
async def test_the_expired_response_stands_in_for_a_failing_origin(
    make: Make, origin: Origin, clock: Clock, failure: str, way: str
) -> None:
    failing_later(origin, failure)
    session = make(expire_after=10, stale_if_error={"cache": True, "time": timedelta(hours=1), "request": False}[way])
    stale_if_error = CacheOptions(stale_if_error=True) if way == "request" else None
    await ask(session, origin.url("/a"), trace_request_ctx=stale_if_error)
    clock.advance(20)
    response = await ask(session, origin.url("/a"), timeout=timeout_for(failure), trace_request_ctx=stale_if_error)
    assert (response.status, await response.text()) == (200, "good")
    assert (response.from_cache, response.is_expired) == (True, True)
    assert response.expires == NOW + timedelta(seconds=10)
    assert get_cache(session).stats.stale_hits == 1


@FAILURES
async def test_without_it_the_caller_sees_the_failure(make: Make, origin: Origin, clock: Clock, failure: str) -> None:
    failing_later(origin, failure)
    session = make(expire_after=10)
    await ask(session, origin.url("/a"))
    clock.advance(20)
    if failure.isdigit():
        assert (await ask(session, origin.url("/a"))).status == int(failure)
    else:
        with pytest.raises(asyncio.TimeoutError if "timeout" in failure else ClientError):
            await ask(session, origin.url("/a"), timeout=timeout_for(failure))


async def test_it_ends_after_the_time_given(make: Make, origin: Origin, clock: Clock) -> None:
    failing_later(origin, "503")
    session = make(expire_after=10, stale_if_error=60)
    await ask(session, origin.url("/a"))
    clock.advance(70)
    assert await is_hit(session, origin.url("/a"))
    clock.advance(1)
    assert (await ask(session, origin.url("/a"))).status == 503


@pytest.mark.parametrize("status", [400, 404, 501, 505])
async def test_other_answers_are_no_failure(make: Make, origin: Origin, clock: Clock, status: int) -> None:
    failing_later(origin, str(status))
    session = make(expire_after=10, stale_if_error=True)
    await ask(session, origin.url("/a"))
    clock.advance(20)
    response = await ask(session, origin.url("/a"))
    assert (response.status, response.from_cache) == (status, False)


async def test_an_origin_that_is_gone(make: Make, origin: Origin, clock: Clock) -> None:
    session = make(expire_after=10, stale_if_error=True)
    await ask(session, origin.url("/a"))
    url = origin.url("/a")
    assert origin.server is not None
    await origin.server.close()
    clock.advance(20)
    response = await ask(session, url)
    assert (response.from_cache, response.is_expired, await response.text()) == (True, True, "/a #1")


async def test_who_waits_for_an_origin_that_times_out_gets_it_too(make: Make, origin: Origin, clock: Clock) -> None:
    failing_later(origin, "total timeout")
    session = make(expire_after=10, stale_if_error=True)
    await ask(session, origin.url("/a"))
    clock.advance(20)
    timeouts = [ClientTimeout(total=seconds) for seconds in (1.0, 0.2, 0.2)]
    responses = await asyncio.gather(*[ask(session, origin.url("/a"), timeout=timeout) for timeout in timeouts])
    assert [(response.from_cache, response.is_expired) for response in responses] == [(True, True)] * 3
    assert origin.count == 2


async def test_a_cancelled_request_is_no_failure(make: Make, origin: Origin, clock: Clock) -> None:
    failing_later(origin, "total timeout")
    session = make(expire_after=10, stale_if_error=True)
    await ask(session, origin.url("/a"))
    clock.advance(20)
    task = asyncio.create_task(ask(session, origin.url("/a")))
    while origin.count < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stale_response_is_followed_by_a_fresh_one_when_the_origin_is_back(
    make: Make, origin: Origin, clock: Clock
) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503 if origin.count == 2 else 200, text=f"#{origin.count}")

    session = make(expire_after=10, stale_if_error=True)
    texts = []
    for _ in range(3):
        response = await ask(session, origin.url("/a"))
        texts.append((await response.text(), response.from_cache))
        clock.advance(20)
    assert texts == [("#1", False), ("#1", True), ("#3", False)]


# --- a request that fails is never cached ---


async def test_raise_for_status_acts_on_hits_as_on_misses(make: Make, origin: Origin) -> None:
    origin.text("/a", status=404)
    session = make(allowed_codes=(404,), raise_for_status=True)
    for _ in range(2):
        with pytest.raises(ClientError, match="404"):
            await session.get(origin.url("/a"))
    session = make(allowed_codes=(404,))
    for _ in range(2):
        with pytest.raises(ClientError, match="404"):
            await session.get(origin.url("/a"), raise_for_status=True)


async def test_ranges_pass_through_unless_206_is_allowed(make: Make, origin: Origin) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        if "Range" not in request.headers:
            return web.Response(text="whole")
        return web.Response(status=206, text=request.headers["Range"])

    session = make()
    for range_ in ("bytes=0-1", "bytes=0-1", "bytes=2-3"):
        response = await ask(session, origin.url("/a"), headers={"Range": range_})
        assert (response.from_cache, await response.text()) == (False, range_)
    session = make(allowed_codes=(200, 206))
    for expected in (False, True):
        for headers in ({"Range": "bytes=0-1"}, {"Range": "bytes=2-3"}, {}):
            response = await ask(session, origin.url("/a"), headers=headers)
            assert (response.from_cache, await response.text()) == (expected, headers.get("Range", "whole"))


async def test_parts_stay_what_they_are(make: Make, origin: Origin) -> None:
    """Parts that HTTP mode would combine: here each range has an entry of its own, as the origin answered it."""

    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        fields = {"ETag": '"a"', "Cache-Control": "no-store"}
        if "Range" not in request.headers:
            return web.Response(text="0123456789", headers=fields)
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        content = "0123456789"[int(first) : int(last or 9) + 1]
        described = {**fields, "Content-Range": f"bytes {first}-{last or 9}/10"}
        return web.Response(status=206, text=content, headers=described)

    session = make(allowed_codes=(200, 206))
    asked = [{"Range": "bytes=0-4"}, {"Range": "bytes=5-9"}, {"Range": "bytes=1-2"}, {"Range": "bytes=0-"}, {}]
    contents = ["01234", "56789", "12", "0123456789", "0123456789"]
    for expected in (False, True):
        for headers, content in zip(asked, contents, strict=True):
            response = await ask(session, origin.url("/a"), headers=headers)
            assert (response.from_cache, await response.text()) == (expected, content)
            assert response.status == (206 if headers else 200)
    assert [one.headers.get("Range") for one in origin.seen] == [one.get("Range") for one in asked]


def test_parts_are_nothing_to_combine() -> None:
    """What the HTTP mode asks about parts has one answer here."""
    part = a_part(0, 5, ETag='"a"')
    answer = an_answer({"ETag": '"a"', "Content-Range": "bytes 5-9/10", "Content-Length": "5"}, 206)
    assert _configured.to_keep(a_part(5, 10, ETag='"a"'), part) is part
    assert not _configured.freshened_by_answer([part], answer, Rules(), T0)
    assert not _configured.completes(part, answer)
    assert _configured.completed(part, answer, b"56789", Rules(), T0) is None


async def test_only_if_cached_holds_for_what_turns_out_unusable(
    make: Callable[..., ClientSession], origin: Origin
) -> None:
    wanted = True
    session = make(filter_fn=lambda response: wanted)
    await ask(session, origin.url("/a"))
    wanted = False
    with CacheOptions(only_if_cached=True):
        assert (await ask(session, origin.url("/a"))).status == 504
    assert origin.count == 1
