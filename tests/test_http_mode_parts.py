"""HTTP mode, parts of a representation where a table does not reach: large ones, many at once, failures, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import (
    ClientHandlerType,
    ClientPayloadError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    web,
)

from aiohttp_cache_middleware import CachedResponse, CacheMiddleware, MemoryStore, get_cache
from aiohttp_cache_middleware._policy._ranges import parse_ranges
from tests.asking import ask, is_hit
from tests.conftest import Origin
from tests.exchanges import settle

Make = Callable[..., ClientSession]

LARGE = bytes(range(256)) * 4096
"""1 MiB: too large to be kept in its record."""

FRESH = {"Cache-Control": "max-age=60"}


@pytest.fixture
async def http(make: Make) -> ClientSession:
    session = make(cache_control=True)
    await get_cache(session).urls()  # opens the store; a request on a busy machine would not wait for that
    return session


def file(origin: Origin, path: str, content: bytes, **fields: str) -> str:
    """Have *path* answered as a file is, in parts where they are asked for; give its URL."""
    headers = {**FRESH, **{name.replace("_", "-"): value for name, value in fields.items()}}

    @origin.on(path)
    async def answer(request: web.Request) -> web.Response:
        asked = request.headers.get("Range")
        tag = request.headers.get("If-Range")
        ranges = parse_ranges(asked, len(content)) if asked and tag in (None, headers.get("ETag")) else None
        if not ranges:
            return web.Response(body=content, headers=headers)
        start, stop = ranges[0]
        described = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return web.Response(status=206, body=content[start:stop], headers=described)

    return origin.url(path)


def content_of(response: CachedResponse) -> bytes:
    """What was read of a response that has been released: aiohttp has no public way to it but `text()`."""
    return response._body or b""


async def part(session: ClientSession, url: str, asked: str) -> CachedResponse:
    return await ask(session, url, headers={"Range": f"bytes={asked}"})


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        pytest.param("100-600099", LARGE[100:600_100], id="§3.3 all of it"),
        pytest.param("300000-300009", LARGE[300_000:300_010], id="§3.3 a few bytes of it"),
        pytest.param("100-500000", LARGE[100:500_001], id="§3.3 most of it"),
    ],
)
async def test_a_large_part(http: ClientSession, origin: Origin, asked: str, content: bytes) -> None:
    url = file(origin, "/large", LARGE)
    await part(http, url, "100-600099")
    response = await part(http, url, asked)
    assert (response.status, response.from_cache, origin.count) == (206, True, 1)
    assert content_of(response) == content
    assert response.headers["Content-Length"] == str(len(content))
    assert not await is_hit(http, url)


async def test_a_large_part_that_is_the_whole(http: ClientSession, origin: Origin) -> None:
    """RFC 9110 §15.3.7.3; how most players begin."""
    url = file(origin, "/large", LARGE)
    assert (await part(http, url, "0-")).status == 206
    whole = await ask(http, url)
    assert (whole.status, whole.from_cache, content_of(whole) == LARGE) == (200, True, True)
    assert content_of(await part(http, url, "-3")) == LARGE[-3:]
    assert origin.count == 1


async def test_a_large_part_does_not_displace_the_whole(http: ClientSession, origin: Origin) -> None:
    """§3.4; nor does it leave a file behind."""
    url = file(origin, "/large", LARGE, ETag='"a"')
    await ask(http, url)
    response = await ask(http, url, headers={"Range": "bytes=0-599999", "Cache-Control": "no-cache"})
    assert (response.status, response.from_cache) == (206, False)
    assert await is_hit(http, url)
    assert (await get_cache(http).verify()).ok


async def test_a_part_outlives_the_process(make: Make, origin: Origin) -> None:
    first, second = make(cache_control=True), make(cache_control=True)
    url = file(origin, "/x", b"0123456789")
    await get_cache(first).urls()
    await part(first, url, "2-7")
    await get_cache(first).aclose()
    await get_cache(second).urls()
    assert content_of(await part(second, url, "3-4")) == b"34"
    assert origin.count == 1


@pytest.mark.parametrize("announced", [5, 7], ids=["shorter", "longer"])
async def test_a_part_of_another_length_than_it_says(http: ClientSession, origin: Origin, announced: int) -> None:
    """§3.3: without Content-Length only the end of the body tells."""

    @origin.on("/x")
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=206, headers={**FRESH, "Content-Range": f"bytes 0-{announced - 1}/10"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"012345")
        return response

    for _ in range(2):
        response = await part(http, origin.url("/x"), "0-8")
        assert (content_of(response), response.from_cache) == (b"012345", False)
    assert await get_cache(http).responses.count() == 0


async def test_a_part_that_is_cut_short_is_not_stored(http: ClientSession, origin: Origin) -> None:
    """§3.3."""

    @origin.on("/x")
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=206, headers={**FRESH, "Content-Range": "bytes 0-5/10"})
        response.content_length = 6
        await response.prepare(request)
        await response.write(b"012")
        assert request.transport is not None
        request.transport.close()
        return response

    for _ in range(2):
        with pytest.raises(ClientPayloadError):
            await part(http, origin.url("/x"), "0-5")
    assert origin.count == 2


async def test_a_part_without_vary_ends_no_variants(http: ClientSession, origin: Origin) -> None:
    """§4.1: an origin that forgets Vary in a 206 says nothing about the variants."""
    for foo in "12":
        origin.text("/x", foo * 10, Cache_Control="max-age=60", Vary="Foo")
        await ask(http, origin.url("/x"), headers={"Foo": foo})
    origin.text("/x", "33", 206, Cache_Control="max-age=60", Content_Range="bytes 0-1/10")
    await ask(http, origin.url("/x"), headers={"Range": "bytes=0-1", "Foo": "3"})
    assert [await is_hit(http, origin.url("/x"), headers={"Foo": foo}) for foo in "12"] == [True, True]


async def test_parts_asked_for_at_once_do_not_wait_for_each_other(http: ClientSession, origin: Origin) -> None:
    """What a download manager does: each range is a request of its own, the same range is one."""
    waiting: list[str] = []
    all_are_here = asyncio.Event()

    @origin.on("/x")
    async def answer(request: web.Request) -> web.Response:
        start, stop = (int(text) for text in request.headers["Range"].removeprefix("bytes=").split("-"))
        waiting.append(request.headers["Range"])
        if len(waiting) == 3:
            all_are_here.set()
        await all_are_here.wait()
        fields = {**FRESH, "Content-Range": f"bytes {start}-{stop}/10"}
        return web.Response(status=206, body=b"0123456789"[start : stop + 1], headers=fields)

    asked = ["0-2", "3-5", "6-8", "0-2", "3-5", "6-8"]
    responses = await asyncio.wait_for(asyncio.gather(*(part(http, origin.url("/x"), one) for one in asked)), 10)
    assert [content_of(response) for response in responses] == [b"012", b"345", b"678"] * 2
    assert set(waiting) == {"bytes=0-2", "bytes=3-5", "bytes=6-8"}


async def test_a_part_in_flight_keeps_nobody_from_the_whole(http: ClientSession, origin: Origin) -> None:
    go_on = asyncio.Event()

    @origin.on("/x")
    async def answer(request: web.Request) -> web.Response:
        if "Range" in request.headers:
            await go_on.wait()
        return web.Response(body=b"0123456789", headers=FRESH)

    ranged = asyncio.ensure_future(part(http, origin.url("/x"), "0-2"))
    while origin.count == 0:
        await asyncio.sleep(0)
    whole = await asyncio.wait_for(ask(http, origin.url("/x")), 4)
    assert content_of(whole) == b"0123456789"
    go_on.set()
    assert (await ranged).status == 200


async def test_a_part_is_for_those_whose_credentials_fetched_it(http: ClientSession, origin: Origin) -> None:
    url = file(origin, "/x", b"0123456789", ETag='"a"')
    alice, bob = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))
    await ask(http, url, headers={"Range": "bytes=0-4", **alice})
    for headers in (bob, {}):
        assert not await is_hit(http, url, headers={"Range": "bytes=0-4", **headers})
    assert await is_hit(http, url, headers={"Range": "bytes=1-2", **alice})
    assert ranges_seen(origin) == ["bytes=0-4"] * 3


async def test_the_filter_is_asked_about_a_part(make: Make, origin: Origin) -> None:
    seen: list[tuple[int, bytes]] = []

    def refuse(response: CachedResponse) -> bool:
        seen.append((response.status, response.body))
        return False

    session = make(cache_control=True, filter_fn=refuse)
    await get_cache(session).urls()
    url = file(origin, "/x", b"0123456789")
    assert [(await part(session, url, "2-4")).from_cache for _ in range(2)] == [False, False]
    assert seen == [(206, b"234")] * 2


async def test_the_filter_is_asked_about_what_is_stored_whatever_of_it_is_wanted(make: Make, origin: Origin) -> None:
    seen: list[tuple[str, int, bytes, bytes]] = []

    async def whole(response: CachedResponse) -> bool:
        seen.append((response.method, response.status, await response.read(), response.body))
        return response.status == 200

    session = make(cache_control=True, filter_fn=whole)
    await get_cache(session).urls()
    origin.text("/x", TEN, ETag='"a"', Cache_Control="max-age=60")
    url = origin.url("/x")
    await ask(session, url)
    await settle(session)
    wanted = [("HEAD", {}), ("GET", {"Range": "bytes=2-4"}), ("GET", {"If-None-Match": '"a"'})]
    answers = [await ask(session, url, method, headers=headers) for method, headers in wanted]
    assert [(answer.status, answer.from_cache) for answer in answers] == [(200, True), (206, True), (304, True)]
    assert seen == [("GET", 200, TEN, TEN)] * 4


async def test_a_part_that_the_default_mode_kept_is_not_taken_for_ours(make: Make, origin: Origin) -> None:
    """The two modes may share a directory: neither shows the other's part as the whole, or as another range."""
    url = file(origin, "/x", b"0123456789")
    default, http = make(allowed_codes=(200, 206)), make(cache_control=True)
    await get_cache(default).urls()
    await part(default, url, "2-4")
    await get_cache(default).aclose()
    await get_cache(http).urls()
    assert not await is_hit(http, url, headers={"Range": "bytes=2-4"})
    await get_cache(http).aclose()
    await get_cache(default).urls()
    assert not await is_hit(default, url)
    assert not await is_hit(default, url, headers={"Range": "bytes=3-3"})
    assert content_of(await part(default, url, "2-4")) == b"234"


async def test_explain_a_part(http: ClientSession, origin: Origin) -> None:
    url = file(origin, "/x", b"0123456789")
    await part(http, url, "2-7")
    cache = get_cache(http)
    assert (await cache.explain("GET", url, headers={"Range": "bytes=3-5"})).decision == "reuse"
    beyond = await cache.explain("GET", url, headers={"Range": "bytes=5-8"})
    assert (beyond.decision, beyond.why) == ("forward", "§3.3 the stored part does not hold what is asked for")
    assert [line.partition(",")[0] for line in beyond.stored] == ["GET 206"]


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        pytest.param((0, 100_000), (100_000, 250_000), True, id="§3.4 small ones become one"),
        pytest.param((0, 200_000), (200_000, 400_000), False, id="§3.4 too large together for a record"),
        pytest.param((0, 300_000), (300_000, 300_010), False, id="§3.4 a large one is not read for that"),
    ],
)
async def test_parts_that_touch(
    http: ClientSession, origin: Origin, first: tuple[int, int], second: tuple[int, int], is_one: bool
) -> None:
    url = file(origin, "/large", LARGE, ETag='"a"')
    for start, stop in (first, second):
        assert content_of(await part(http, url, f"{start}-{stop - 1}")) == LARGE[start:stop]
    across = await part(http, url, f"{first[1] - 5}-{second[0] + 4}")
    assert (content_of(across), across.from_cache) == (LARGE[first[1] - 5 : second[0] + 5], is_one)


# --- the whole of a part and the rest: RFC 9111 §3.4 ---

TEN = b"0123456789"


def ranges_seen(origin: Origin) -> list[str | None]:
    return [one.headers.get("Range") for one in origin.seen]


async def whole_after_part(session: ClientSession, url: str) -> CachedResponse:
    """Have the first half stored, then ask for everything."""
    await part(session, url, "0-4")
    return await ask(session, url)


async def test_the_rest_completes_a_part(make: Make, origin: Origin) -> None:
    session = make(cache_control=True)
    await get_cache(session).urls()
    url = file(origin, "/x", TEN, ETag='"a"')
    response = await whole_after_part(session, url)
    assert (response.status, response.reason, content_of(response), response.from_cache) == (200, "OK", TEN, True)
    assert ranges_seen(origin) == ["bytes=0-4", "bytes=5-"]
    assert "Range" not in response.request_info.headers
    await get_cache(session).aclose()
    await get_cache(session).urls()
    assert await is_hit(session, url)
    assert (await get_cache(session).verify()).ok


async def test_many_who_ask_for_the_whole_complete_it_once(http: ClientSession, origin: Origin) -> None:
    url = file(origin, "/x", TEN, ETag='"a"')
    await part(http, url, "0-4")
    responses = await asyncio.gather(*(ask(http, url) for _ in range(5)))
    assert [content_of(response) for response in responses] == [TEN] * 5
    assert origin.count == 2


@pytest.mark.parametrize(
    ("status", "fields", "content"),
    [
        pytest.param(206, {"Content-Range": "bytes 5-9/10", "ETag": '"b"'}, b"fghij", id="If-Range was ignored"),
        pytest.param(206, {"Content-Range": "bytes 5-9/10"}, b"56789", id="no tag"),
        pytest.param(206, {"Content-Range": "bytes 5-8/10", "ETag": '"a"'}, b"5678", id="not all of the rest"),
        pytest.param(206, {"ETag": '"a"', "Content-Type": "multipart/byteranges; boundary=x"}, b"", id="multipart"),
        pytest.param(416, {"Content-Range": "bytes */5"}, b"", id="416"),
        pytest.param(403, {}, b"ranges are forbidden here", id="403"),
    ],
)
async def test_what_does_not_complete_a_part_is_not_shown(
    http: ClientSession, origin: Origin, status: int, fields: dict[str, str], content: bytes
) -> None:
    """The caller has asked for the whole: he gets it, by a second request."""
    url = file(origin, "/x", TEN, ETag='"a"')
    as_a_file = origin.handlers["/x"]

    @origin.on("/x")
    async def answer(request: web.Request) -> web.StreamResponse:
        if "If-Range" in request.headers:
            return web.Response(status=status, headers={**FRESH, **fields}, body=content)
        return await as_a_file(request)

    response = await whole_after_part(http, url)
    assert (response.status, content_of(response), response.from_cache) == (200, TEN, False)
    assert ranges_seen(origin) == ["bytes=0-4", "bytes=5-", None]
    assert await is_hit(http, url)


@pytest.mark.parametrize("status", [401, 404, 410, 429])
async def test_an_error_that_no_range_has_caused_is_the_answer(
    http: ClientSession, origin: Origin, status: int
) -> None:
    url = file(origin, "/x", TEN, ETag='"a"')
    as_a_file = origin.handlers["/x"]

    @origin.on("/x")
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status) if "If-Range" in request.headers else await as_a_file(request)

    assert (await whole_after_part(http, url)).status == status
    assert ranges_seen(origin) == ["bytes=0-4", "bytes=5-"]


async def test_several_parts_renew_nothing(http: ClientSession, origin: Origin) -> None:
    """Their fields describe what carries them (RFC 9110 §14.6)."""
    url = file(origin, "/x", TEN, ETag='"a"', Content_Type="text/plain")
    as_a_file = origin.handlers["/x"]
    await ask(http, url)

    @origin.on("/x")
    async def answer(request: web.Request) -> web.StreamResponse:
        fields = {**FRESH, "ETag": '"a"', "Content-Type": "multipart/byteranges; boundary=b"}
        return web.Response(status=206, headers=fields, body=b"--b--")

    several = {"Range": "bytes=0-1,4-5", "Cache-Control": "no-cache"}
    assert (await ask(http, url, headers=several)).status == 206
    origin.handlers["/x"] = as_a_file
    hit = await ask(http, url)
    assert (hit.from_cache, hit.content_type, content_of(hit)) == (True, "text/plain", TEN)


@pytest.mark.parametrize("is_chunked", [True, False], ids=["without a length", "cut short"])
async def test_a_rest_that_may_not_end_well(http: ClientSession, origin: Origin, is_chunked: bool) -> None:
    url = file(origin, "/x", TEN, ETag='"a"')
    as_a_file = origin.handlers["/x"]

    @origin.on("/x")
    async def answer(request: web.Request) -> web.StreamResponse:
        if "If-Range" not in request.headers:
            return await as_a_file(request)
        headers = {**FRESH, "ETag": '"a"', "Content-Range": "bytes 5-9/10"}
        response = web.StreamResponse(status=206, headers=headers)
        if is_chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = 5
        await response.prepare(request)
        await response.write(b"567")
        if not is_chunked:
            assert request.transport is not None
            request.transport.close()
        return response

    response = await whole_after_part(http, url)
    assert (response.status, content_of(response), response.from_cache) == (200, TEN, False)


async def test_a_rest_that_does_not_come_in_time(http: ClientSession, origin: Origin) -> None:
    """The caller's own timeout counts, and is his to see."""
    url = file(origin, "/x", TEN, ETag='"a"')
    as_a_file = origin.handlers["/x"]
    never = asyncio.Event()

    @origin.on("/x")
    async def answer(request: web.Request) -> web.StreamResponse:
        if "If-Range" not in request.headers:
            return await as_a_file(request)
        response = web.StreamResponse(
            status=206, headers={**FRESH, "ETag": '"a"', "Content-Range": "bytes 5-9/10", "Content-Length": "5"}
        )
        await response.prepare(request)
        await response.write(b"5")
        await never.wait()
        return response

    await part(http, url, "0-4")
    with pytest.raises(asyncio.TimeoutError):
        await ask(http, url, timeout=ClientTimeout(sock_read=0.05))
    assert origin.count == 2
    never.set()


async def test_a_whole_that_is_larger_than_what_may_be_stored(make: Make, origin: Origin) -> None:
    session = make(cache_control=True, max_body_size=9)
    await get_cache(session).urls()
    url = file(origin, "/x", TEN, ETag='"a"')
    assert content_of(await whole_after_part(session, url)) == TEN
    assert content_of(await part(session, url, "0-4")) == TEN[:5]
    assert content_of(await ask(session, url)) == TEN
    assert ranges_seen(origin) == ["bytes=0-4", "bytes=5-", "bytes=5-"]


async def test_a_whole_that_the_filter_refuses(make: Make, origin: Origin) -> None:
    session = make(cache_control=True, filter_fn=lambda response: response.status == 206)
    await get_cache(session).urls()
    url = file(origin, "/x", TEN, ETag='"a"')
    response = await whole_after_part(session, url)
    assert (content_of(response), response.from_cache) == (TEN, False)


async def test_other_credentials_behind_the_cache_complete_nothing(origin: Origin) -> None:
    """What the key does not know of must not be mixed with what is stored."""

    async def sign_in(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if "If-Range" in request.headers:
            request.headers["Authorization"] = "secret"
        return await handler(request)

    cache = CacheMiddleware(store=MemoryStore(), cache_control=True)
    async with ClientSession(middlewares=[cache, sign_in]) as session:
        response = await whole_after_part(session, file(origin, "/x", TEN, ETag='"a"'))
    assert (content_of(response), response.from_cache) == (TEN, False)
    assert ranges_seen(origin) == ["bytes=0-4", "bytes=5-", None]


async def test_explain_completing(http: ClientSession, origin: Origin) -> None:
    url = file(origin, "/x", TEN, ETag='"a"')
    await part(http, url, "0-4")
    explanation = await get_cache(http).explain("GET", url)
    assert (explanation.decision, explanation.may_be_stored) == ("complete", True)
    assert explanation.why.startswith("§3.4")
