"""HTTP mode where a table of exchanges does not reach: large bodies, many at once, failures, options, explanations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, ServerDisconnectedError, web

from aiohttp_cache_middleware import CachedResponse, CacheOptions, get_cache
from tests.asking import ask, is_hit
from tests.conftest import T0, Clock, Origin
from tests.exchanges import settle

Make = Callable[..., ClientSession]

LARGE = bytes(range(256)) * 4096
"""1 MiB: too large to be kept in its record."""

SWR = "max-age=10, stale-while-revalidate=60"


@pytest.fixture
async def http(make: Make) -> ClientSession:
    session = make(cache_control=True)
    await get_cache(session).urls()  # opens the store; a request on a busy machine would not wait for that
    return session


def date(moment: float) -> str:
    return formatdate(moment, usegmt=True)


def content_of(response: CachedResponse) -> bytes:
    """What was read of a response that has been released: aiohttp has no public way to it but `text()`."""
    return response._body or b""


# --- large bodies: RFC 9110 §14, §15.3.7, §15.5.17; RFC 9111 §4.3 ---


@pytest.mark.parametrize(
    ("range_field", "status", "content"),
    [
        pytest.param("bytes=0-9", 206, LARGE[:10], id="first"),
        pytest.param("bytes=300000-", 206, LARGE[300_000:], id="to the end"),
        pytest.param("bytes=-5", 206, LARGE[-5:], id="last"),
        pytest.param(f"bytes={len(LARGE)}-", 416, b"", id="416"),
    ],
)
async def test_a_part_of_a_large_body(
    http: ClientSession, origin: Origin, range_field: str, status: int, content: bytes
) -> None:
    origin.text("/large", LARGE, Cache_Control="max-age=60")
    await ask(http, origin.url("/large"))
    response = await ask(http, origin.url("/large"), headers={"Range": range_field})
    assert (response.status, content_of(response), response.from_cache) == (status, content, True)
    assert origin.count == 1


@pytest.mark.parametrize("size", [pytest.param(100, id="in the record"), pytest.param(len(LARGE), id="beside it")])
@pytest.mark.parametrize("ranges", [[(0, 5), (50, 60)], [(50, 60), (0, 5)]], ids=["in order", "backwards"])
async def test_several_parts(http: ClientSession, origin: Origin, size: int, ranges: list[tuple[int, int]]) -> None:
    body = LARGE[:size]
    origin.text("/parts", body, Cache_Control="max-age=60", Content_Type="image/png")
    await ask(http, origin.url("/parts"))
    asked = ", ".join(f"{start}-{stop - 1}" for start, stop in ranges)
    response = await ask(http, origin.url("/parts"), headers={"Range": f"bytes={asked}"})
    content = content_of(response)
    assert (response.status, response.content_type) == (206, "multipart/byteranges")
    assert int(response.headers["Content-Length"]) == len(content)
    parts = content.split(f"--{_boundary(response)}".encode())[1:-1]
    assert [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts] == [
        body[start:stop] for start, stop in ranges
    ]
    assert f"Content-Range: bytes {ranges[0][0]}-{ranges[0][1] - 1}/{size}".encode() in parts[0]


def _boundary(response: CachedResponse) -> str:
    return response.headers["Content-Type"].partition("boundary=")[2]


async def test_a_304_and_a_head_of_a_large_body(http: ClientSession, origin: Origin, clock: Clock) -> None:
    @origin.on("/large")
    async def answer(request: web.Request) -> web.Response:
        fields = {"ETag": '"a"', "Cache-Control": "max-age=10", "Date": date(clock.now)}
        if request.headers.get("If-None-Match") == '"a"':
            return web.Response(status=304, headers=fields)
        return web.Response(body=LARGE, headers=fields)

    url = origin.url("/large")
    await ask(http, url)
    assert (await ask(http, url, headers={"If-None-Match": '"a"'})).status == 304
    assert content_of(await ask(http, url, "HEAD")) == b""
    clock.advance(11)
    validated = await ask(http, url)
    assert (validated.status, content_of(validated) == LARGE, validated.from_cache) == (200, True, True)
    assert (origin.count, await is_hit(http, url)) == (2, True)


async def test_a_304_for_a_body_that_is_gone_is_followed_by_a_whole_answer(
    http: ClientSession, origin: Origin, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§4.3.4: the origin confirms what is not there any more."""
    origin.text("/large", LARGE, Cache_Control="max-age=10", ETag='"a"')
    url = origin.url("/large")
    await ask(http, url)

    @origin.on("/large")
    async def answer(request: web.Request) -> web.Response:
        if "If-None-Match" in request.headers:
            return web.Response(status=304, headers={"ETag": '"a"'})
        return web.Response(body=b"new", headers={"Cache-Control": "max-age=10", "Date": date(clock.now)})

    async def gone(key: str, body: object) -> None:
        return None

    clock.advance(11)
    monkeypatch.setattr(get_cache(http)._core.store, "open_body", gone)
    response = await ask(http, url)
    assert (content_of(response), response.status, response.from_cache) == (b"new", 200, False)
    assert [one.headers.get("If-None-Match") for one in origin.seen] == [None, '"a"', None]
    assert await is_hit(http, url)


async def test_a_304_that_names_another_response_is_followed_by_a_whole_answer(
    http: ClientSession, origin: Origin, clock: Clock
) -> None:
    """§4.3.4: a tag that we do not have selects nothing."""
    origin.text("/x", "old", Cache_Control="max-age=10", ETag='"a"')
    await ask(http, origin.url("/x"))

    @origin.on("/x")
    async def answer(request: web.Request) -> web.Response:
        if "If-None-Match" in request.headers:
            return web.Response(status=304, headers={"ETag": '"b"'})
        return web.Response(text="new", headers={"ETag": '"b"'})

    clock.advance(11)
    assert await (await ask(http, origin.url("/x"))).text() == "new"


# --- many at once: RFC 5861 §3, RFC 9211 §2.6 ---


async def test_one_refresh_at_a_time_while_stale(http: ClientSession, origin: Origin, clock: Clock) -> None:
    origin.text("/x", "old", Cache_Control=SWR, Date=date(T0))
    url = origin.url("/x")
    await ask(http, url)
    may_answer = asyncio.Event()

    @origin.on("/x")
    async def answer(request: web.Request) -> web.Response:
        await may_answer.wait()
        return web.Response(text="new", headers={"Cache-Control": SWR, "Date": date(clock.now)})

    clock.advance(11)
    responses = await asyncio.gather(*(ask(http, url) for _ in range(20)))
    assert {await response.text() for response in responses} == {"old"}
    assert all(response.is_expired for response in responses)
    may_answer.set()
    await settle(http)
    assert origin.count == 2
    stats = get_cache(http).stats
    assert (stats.hits, stats.stale_hits, stats.misses) == (20, 20, 1)
    fresh = await ask(http, url)
    assert (await fresh.text(), fresh.from_cache, fresh.is_expired) == ("new", True, False)


async def test_a_refresh_that_fails_leaves_what_is_stored(http: ClientSession, origin: Origin, clock: Clock) -> None:
    origin.text("/x", "old", Cache_Control=SWR, Date=date(T0))
    await ask(http, origin.url("/x"))
    origin.handlers["/x"] = _hang_up
    clock.advance(11)
    for _ in range(2):
        assert await (await ask(http, origin.url("/x"))).text() == "old"
        await settle(http)


async def _hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def test_who_waits_for_an_identical_request_is_told(http: ClientSession, origin: Origin) -> None:
    may_answer = asyncio.Event()

    @origin.on("/x")
    async def answer(request: web.Request) -> web.Response:
        await may_answer.wait()
        return web.Response(text="x", headers={"Cache-Control": "max-age=60"})

    asking = [asyncio.create_task(ask(http, origin.url("/x"))) for _ in range(3)]
    while not origin.count:
        await asyncio.sleep(0)
    may_answer.set()
    statuses = sorted(
        [response.headers["Cache-Status"].partition("; ttl")[0] for response in await asyncio.gather(*asking)]
    )
    assert statuses == [
        "aiohttp_cache_middleware; fwd=miss; collapsed",
        "aiohttp_cache_middleware; fwd=miss; collapsed",
        "aiohttp_cache_middleware; fwd=uri-miss; fwd-status=200; stored",
    ]
    assert origin.count == 1


async def test_who_waits_for_what_must_be_validated_is_told(http: ClientSession, origin: Origin) -> None:
    """RFC 9211 §2.6: he had to ask for himself."""
    may_answer = asyncio.Event()

    @origin.on("/x")
    async def answer(request: web.Request) -> web.Response:
        await may_answer.wait()
        status = 304 if "If-None-Match" in request.headers else 200
        return web.Response(status=status, headers={"Cache-Control": "no-cache", "ETag": '"a"'})

    asking = [asyncio.create_task(ask(http, origin.url("/x"))) for _ in range(2)]
    while not origin.count:
        await asyncio.sleep(0)
    may_answer.set()
    statuses = [one.headers["Cache-Status"].partition("; ttl")[0] for one in await asyncio.gather(*asking)]
    assert statuses == [
        "aiohttp_cache_middleware; fwd=uri-miss; fwd-status=200; stored",
        "aiohttp_cache_middleware; fwd=stale; fwd-status=304; stored; collapsed=?0",
    ]
    assert origin.count == 2


@pytest.mark.parametrize("is_stored", [False, True], ids=["a new one", "a validation"])
async def test_what_was_asked_for_before_a_write_is_not_kept_after_it(
    http: ClientSession, origin: Origin, clock: Clock, is_stored: bool
) -> None:
    """§4.4: the origin may have answered it with what was there before."""
    may_answer = asyncio.Event()
    state = "old"

    @origin.on("/x")
    async def answer(request: web.Request) -> web.Response:
        nonlocal state
        if request.method == "PUT":
            state = "new"
            return web.Response(status=204)
        before, fields = state, {"Cache-Control": "max-age=60", "ETag": f'"{state}"'}
        if before == "old":
            await may_answer.wait()
        if request.headers.get("If-None-Match") == fields["ETag"]:
            return web.Response(status=304, headers=fields)
        return web.Response(text=before, headers=fields)

    if is_stored:
        may_answer.set()
        await ask(http, origin.url("/x"))
        clock.advance(60)
        may_answer.clear()
    asked_before = origin.count
    early = asyncio.create_task(ask(http, origin.url("/x")))
    while origin.count == asked_before:
        await asyncio.sleep(0)
    await ask(http, origin.url("/x"), "PUT")
    late = await asyncio.wait_for(ask(http, origin.url("/x")), 4)
    may_answer.set()
    assert [await response.text() for response in (await early, late)] == ["old", "new"]
    hit = await ask(http, origin.url("/x"))
    assert (hit.from_cache, await hit.text()) == (True, "new")


# --- an origin that fails: RFC 5861 §4 ---


async def _never(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


@pytest.mark.parametrize("failing", [pytest.param(_hang_up, id="connection"), pytest.param(_never, id="timeout")])
async def test_stale_if_error(
    http: ClientSession, origin: Origin, clock: Clock, failing: Callable[[web.Request], Awaitable[web.Response]]
) -> None:
    origin.text("/x", "old", Cache_Control="max-age=10, stale-if-error=10", Date=date(T0))
    url = origin.url("/x")
    await ask(http, url)
    origin.handlers["/x"] = failing
    clock.advance(11)
    response = await ask(http, url, timeout=ClientTimeout(total=0.2))
    assert (await response.text(), response.from_cache, response.is_expired) == ("old", True, True)
    clock.advance(10)
    with pytest.raises((ServerDisconnectedError, TimeoutError, asyncio.TimeoutError)):
        await ask(http, url, timeout=ClientTimeout(total=0.2))


async def test_stale_if_error_as_an_option(make: Make, origin: Origin, clock: Clock) -> None:
    session = make(cache_control=True, stale_if_error=10)
    origin.text("/x", "old", Cache_Control="max-age=10", Date=date(T0))
    origin.text("/must", "old", Cache_Control="max-age=10, must-revalidate", Date=date(T0))
    for path in ("/x", "/must"):
        await ask(session, origin.url(path))
        origin.text(path, status=503)
    clock.advance(11)
    assert (await ask(session, origin.url("/x"))).status == 200
    assert (await ask(session, origin.url("/must"))).status == 503


# --- invalidation: §4.4 ---


async def test_a_body_that_can_be_read_once_is_sent_and_invalidates(http: ClientSession, origin: Origin) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    origin.text("/x", "x", Cache_Control="max-age=60")
    await ask(http, origin.url("/x"))
    await ask(http, origin.url("/x"), "POST", data=chunks())
    assert origin.seen[-1].body == b"one two"
    assert not await is_hit(http, origin.url("/x"))


async def test_every_query_is_a_url_of_its_own(http: ClientSession, origin: Origin) -> None:
    origin.text("/x", "x", Cache_Control="max-age=60")
    for query in ("?a=1", "?a=2"):
        await ask(http, origin.url(f"/x{query}"))
    await ask(http, origin.url("/x"), "DELETE", params={"a": "1"})
    assert [await is_hit(http, origin.url(f"/x{query}")) for query in ("?a=1", "?a=2")] == [False, True]


# --- what passes before the final response, and redirects: RFC 9110 §15.2, §15.4 ---


async def test_interim_responses_are_not_the_response(http: ClientSession) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nCache-Control: no-store\r\n\r\n"
        )
        writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nfinal")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert not await is_hit(http, url)
        response = await ask(http, url)
        assert (response.from_cache, response.status, await response.text()) == (True, 200, "final")
        assert "Link" not in response.headers


@pytest.mark.parametrize(
    ("cache_control", "reaching"),
    [pytest.param("max-age=60", ["/new"], id="stated"), pytest.param("no-store", ["/old", "/new"], id="no-store")],
)
async def test_each_hop_is_stored_by_what_it_says(
    http: ClientSession, origin: Origin, cache_control: str, reaching: list[str]
) -> None:
    origin.text("/old", status=301, Location="/new", Cache_Control=cache_control)
    origin.text("/new", "new")
    for _ in range(2):
        response = await ask(http, origin.url("/old"))
    assert ([one.status for one in response.history], response.url.path) == ([301], "/new")
    assert [one.path for one in origin.seen[2:]] == reaching


# --- what the caller sees ---


async def test_times_are_in_step_with_freshness(http: ClientSession, origin: Origin, clock: Clock) -> None:
    origin.text("/x", "x", Cache_Control="max-age=60", Age="20", Date=date(T0))
    first = await ask(http, origin.url("/x"))
    assert (first.expires, first.is_expired, first.created_at, first.age) == (None, None, None, None)
    clock.advance(10)
    hit = await ask(http, origin.url("/x"))
    start = datetime.fromtimestamp(T0, timezone.utc)
    assert hit.age == pytest.approx(30)
    assert (hit.created_at, hit.is_expired) == (start, False)
    assert hit.expires is not None
    assert hit.expires - start == timedelta(seconds=40)
    stale = await ask(http, origin.url("/x"), headers={"Cache-Control": "max-stale"})
    clock.advance(60)
    stale = await ask(http, origin.url("/x"), headers={"Cache-Control": "max-stale"})
    assert (stale.is_expired, stale.from_cache) == (True, True)


async def test_the_origin_s_raw_fields_may_be_anything(http: ClientSession) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nEtag: "\xff"\r\nX: \xe4\r\nContent-Length: 1\r\n\r\nx'
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        first, hit = await ask(http, url), await ask(http, url)
        assert hit.from_cache
        assert (b"X", b"\xe4") in hit.raw_headers
        assert hit.headers["ETag"] == first.headers["ETag"]


async def test_what_came_without_a_date_gets_that_of_its_receipt(http: ClientSession, clock: Clock) -> None:
    """RFC 9110 §6.6.1."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\nx")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert "Date" not in (await ask(http, url)).headers
        for method in ("GET", "HEAD"):
            clock.advance(5)
            hit = await ask(http, url, method)
            assert (hit.from_cache, hit.headers.getall("Date")) == (True, [date(T0)])
            assert (b"Date", date(T0).encode()) in hit.raw_headers


async def test_set_cookie_of_a_hit_is_shown_and_leaves_the_jar_alone(http: ClientSession, origin: Origin) -> None:
    origin.text("/x", "x", Cache_Control="max-age=60", Set_Cookie="a=b")
    await ask(http, origin.url("/x"))
    http.cookie_jar.clear()
    hit = await ask(http, origin.url("/x"))
    assert (hit.from_cache, hit.cookies["a"].value, len(http.cookie_jar)) == (True, "b", 0)


# --- where HTTP is silent the options speak ---


@pytest.mark.parametrize(
    ("options", "asked", "says", "lifetime"),
    [
        pytest.param({"expire_after": 30}, None, {}, 30, id="expire_after where nothing is stated"),
        pytest.param({"expire_after": -1}, None, {}, 86_400 * 3650, id="for ever where nothing is stated"),
        pytest.param({"expire_after": 30}, None, {"Last-Modified": date(T0 - 10_000)}, 30, id="before a heuristic"),
        pytest.param({"expire_after": 30}, None, {"Cache-Control": "max-age=60"}, 60, id="after max-age"),
        pytest.param({"expire_after": 30}, None, {"Expires": date(T0 + 60)}, 60, id="after Expires"),
        pytest.param({"expire_after": 30}, None, {"Cache-Control": "max-age=0"}, 0, id="after max-age=0"),
        pytest.param({"expire_after": 0}, None, {"Cache-Control": "max-age=60"}, 60, id="0 is a default too"),
        pytest.param({"expire_after": 0}, None, {}, 0, id="0 where nothing is stated"),
        pytest.param(
            {"expire_after": 30, "urls_expire_after": {"127.0.0.1:*/x": 40}}, None, {}, 40, id="the pattern first"
        ),
        pytest.param({"expire_after": 30}, 50, {"Cache-Control": "max-age=60"}, 50, id="the request before all"),
        pytest.param({}, 50, {"Cache-Control": "max-age=0"}, 50, id="the request before max-age=0"),
        pytest.param({}, 50, {"Cache-Control": "no-store"}, 0, id="but not before no-store"),
        pytest.param({}, 0, {"Cache-Control": "max-age=60"}, 0, id="the request's 0"),
    ],
)
async def test_who_decides_how_long(
    make: Make,
    origin: Origin,
    clock: Clock,
    options: dict[str, Any],
    asked: int | None,
    says: dict[str, str],
    lifetime: float,
) -> None:
    session = make(cache_control=True, **options)
    url = origin.url("/x")

    _say(origin, "/x", {"Date": date(T0), **says})
    context = None if asked is None else CacheOptions(expire_after=asked)
    await ask(session, url, trace_request_ctx=context)
    if lifetime:
        clock.advance(lifetime - 1)
        assert await is_hit(session, url)
        clock.advance(1)
        assert lifetime > 86_400 or not await is_hit(session, url)
    else:
        assert not await is_hit(session, url)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"allowed_codes": (404,)}, id="allowed_codes"),
        pytest.param({"allowed_methods": ("HEAD",)}, id="allowed_methods"),
        pytest.param({"filter_fn": lambda response: response.status != 200}, id="filter_fn"),
        pytest.param({"max_body_size": 1}, id="max_body_size"),
    ],
)
async def test_options_limit_what_http_allows(make: Make, origin: Origin, options: dict[str, Any]) -> None:
    origin.text("/x", "xy", Cache_Control="max-age=60")
    strict, lax = make(cache_control=True, **options), make(cache_control=True)
    assert [await is_hit(strict, origin.url("/x")) for _ in range(2)] == [False, False]
    await ask(lax, origin.url("/x"))
    assert await is_hit(lax, origin.url("/x"))
    assert not await is_hit(strict, origin.url("/x")) or "max_body_size" in options


@pytest.mark.parametrize(
    ("options", "hit", "status"),
    [
        pytest.param(CacheOptions(refresh=True), False, 200, id="refresh"),
        pytest.param(CacheOptions(only_if_cached=True), True, 200, id="only_if_cached"),
        pytest.param(CacheOptions(disabled=True), False, 200, id="disabled"),
        pytest.param(CacheOptions(namespace="other"), False, 200, id="namespace"),
        pytest.param(CacheOptions(namespace="other", only_if_cached=True), False, 504, id="only_if_cached elsewhere"),
    ],
)
async def test_options_of_a_request(
    http: ClientSession, origin: Origin, options: CacheOptions, hit: bool, status: int
) -> None:
    origin.text("/x", "x", Cache_Control="max-age=60")
    await ask(http, origin.url("/x"))
    response = await ask(http, origin.url("/x"), trace_request_ctx=options)
    assert (response.from_cache, response.status) == (hit, status)


async def test_what_came_in_chunks_ends_its_chunk(http: ClientSession, origin: Origin) -> None:
    """Code that collects until a chunk ends gets all of a hit, though Transfer-Encoding is not stored (§3.1)."""

    @origin.on("/x")
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Cache-Control": "max-age=60"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"one")
        return response

    await ask(http, origin.url("/x"))
    async with http.get(origin.url("/x")) as response:
        assert "Transfer-Encoding" not in response.headers
        assert [chunk async for chunk in response.content.iter_chunks()] == [(b"one", True)]


# --- explain ---


def _say(origin: Origin, path: str, fields: dict[str, str]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="x", headers=fields)

    origin.handlers[path] = answer


@pytest.mark.parametrize(
    ("says", "asks", "after", "decision", "why", "failing"),
    [
        pytest.param(None, {}, 0, "forward", "nothing stored", {"§4.1"}, id="nothing stored"),
        pytest.param({"Cache-Control": "max-age=60"}, {}, 1, "reuse", "§4.2 fresh", set(), id="fresh"),
        pytest.param(
            {"Cache-Control": "max-age=60", "ETag": '"a"'},
            {},
            61,
            "revalidate",
            "§4.2 stale for 1 s",
            {"§4.2", "5861 §3"},
            id="stale",
        ),
        pytest.param({"Cache-Control": SWR}, {}, 11, "serve stale", "RFC 5861 §3", {"§4.2", "§4.3.1"}, id="5861"),
        pytest.param(
            {"Cache-Control": "max-age=60"},
            {"Cache-Control": "no-store"},
            1,
            "bypass",
            "§5.2.1.5",
            {"§5.2.1.5"},
            id="no-store",
        ),
        pytest.param(
            {"Cache-Control": "max-age=1"},
            {"Cache-Control": "only-if-cached"},
            2,
            "gateway timeout",
            "§5.2.1.7",
            {"§4.2", "5861 §3", "§4.3.1"},
            id="504",
        ),
    ],
)
async def test_explain(
    http: ClientSession,
    origin: Origin,
    clock: Clock,
    says: dict[str, str] | None,
    asks: dict[str, str],
    after: float,
    decision: str,
    why: str,
    failing: set[str],
) -> None:
    url = origin.url("/x")
    if says is not None:
        _say(origin, "/x", {"Date": date(T0), **says})
        await ask(http, url)
    clock.advance(after)
    explanation = await get_cache(http).explain("GET", url, headers=asks)
    assert (explanation.decision, explanation.why[: len(why)]) == (decision, why)
    assert {finding.section for finding in explanation.findings if not finding.holds} == failing
    assert all(str(finding) in str(explanation) for finding in explanation.findings)
    assert origin.count == (says is not None)


async def test_explain_tells_why_the_last_answer_was_not_stored(http: ClientSession, origin: Origin) -> None:
    origin.text("/x", "x", Cache_Control="no-store")
    await ask(http, origin.url("/x"))
    explanation = await get_cache(http).explain("GET", origin.url("/x"))
    assert explanation.why_not_stored == "§5.2.2.5 no-store"
    assert "last time not stored: §5.2.2.5 no-store" in str(explanation)


@pytest.mark.parametrize(
    ("options", "request_", "decision", "failing"),
    [
        pytest.param({}, {}, "reuse", [], id="fresh"),
        pytest.param({}, {"headers": {"If-Match": "*"}}, "bypass", ["the caller sets no condition"], id="a condition"),
        pytest.param(
            {}, {"headers": {"Range": "bytes=1-"}}, "bypass", ["no Range, or 206 in allowed_codes"], id="Range"
        ),
        pytest.param(
            {},
            {"trace_request_ctx": CacheOptions(refresh=True)},
            "revalidate",
            ["no refresh was asked for"],
            id="refresh",
        ),
        pytest.param(
            {}, {"trace_request_ctx": CacheOptions(expire_after=0)}, "bypass", ["expire_after is not 0"], id="0"
        ),
        pytest.param({}, {"trace_request_ctx": CacheOptions(disabled=True)}, "bypass", [], id="disabled"),
        pytest.param({}, {"timeout": ClientTimeout(1), "allow_redirects": False}, "reuse", [], id="how it is made"),
        pytest.param({}, {"proxy": "http://proxy:1", "proxy_headers": {"A": "b"}}, "reuse", [], id="by which way"),
        pytest.param({}, {"verify_ssl": False}, "forward", ["a stored response fits Vary and allowed_codes"], id="TLS"),
        pytest.param(
            {},
            {"headers": {"Upgrade": "websocket"}},
            "bypass",
            ["a stored response fits Vary and allowed_codes"],
            id="another protocol",
        ),
        pytest.param(
            {"expire_after": 1},
            {},
            "revalidate",
            ["it has not expired", "it stands in for a failing origin"],
            id="expired",
        ),
    ],
)
async def test_explain_in_the_default_mode(
    make: Make,
    origin: Origin,
    clock: Clock,
    options: dict[str, Any],
    request_: dict[str, Any],
    decision: str,
    failing: list[str],
) -> None:
    session = make(**options)
    origin.text("/x", "x", ETag='"a"')
    await ask(session, origin.url("/x"))
    clock.advance(2)
    explanation = await get_cache(session).explain("GET", origin.url("/x"), **request_)
    assert explanation.decision == decision
    assert [finding.rule for finding in explanation.findings if not finding.holds] == failing


@pytest.mark.parametrize("http_mode", [True, False])
@pytest.mark.parametrize(
    ("expire_after", "said"),
    [
        (-1, "for ever"),
        (90, "90 s"),
        (datetime(2100, 1, 1, tzinfo=timezone.utc), "until 2100-01-01 00:00:00+00:00"),
    ],
)
async def test_explain_says_for_how_long_in_words(
    make: Make, origin: Origin, http_mode: bool, expire_after: Any, said: str
) -> None:
    session = make(cache_control=http_mode)
    origin.text("/x", "x")
    options = CacheOptions(expire_after=expire_after)
    await ask(session, origin.url("/x"), trace_request_ctx=options)
    explanation = await get_cache(session).explain("GET", origin.url("/x"), trace_request_ctx=options)
    assert f"expire_after is not 0: {said}" in str(explanation).replace("expire_after=", "")
    assert ("never expires" in str(explanation)) is (expire_after == -1)
    assert "inf" not in str(explanation)


async def test_explain_what_has_no_key(make: Make, origin: Origin) -> None:
    async def once() -> AsyncIterator[bytes]:
        yield b"a"

    session = make(allowed_methods=("GET", "POST"))
    await ask(session, origin.url("/x"), "POST")
    explanation = await get_cache(session).explain("POST", origin.url("/x"), data=once())
    assert (explanation.decision, explanation.key, explanation.stored) == ("bypass", None, ())


async def test_explain_what_has_no_key_tells_nothing_of_others(make: Make, origin: Origin) -> None:
    async def once() -> AsyncIterator[bytes]:
        yield b"a"

    origin.text("/x", status=500)
    session = make(allowed_methods=("GET", "POST"))
    await ask(session, origin.url("/x"), "POST")
    assert (await get_cache(session).explain("POST", origin.url("/x"))).why_not_stored is not None
    assert (await get_cache(session).explain("POST", origin.url("/x"), data=once())).why_not_stored is None


@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=0-2"}])
async def test_what_tells_its_length_has_no_chunk(http: ClientSession, origin: Origin, asked: dict[str, str]) -> None:
    origin.text("/x", "onetwo", Cache_Control="max-age=60")
    if asked:

        @origin.on("/x")
        async def chunked(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Cache-Control": "max-age=60"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(b"onetwo")
            return response

    await ask(http, origin.url("/x"))
    async with http.get(origin.url("/x"), headers=asked) as response:
        assert [ends for _, ends in [chunk async for chunk in response.content.iter_chunks()]] == [False]
