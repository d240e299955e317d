"""Plain aiohttp, a miss and a hit, side by side: whatever a caller can observe is the same."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, ClientTimeout, TraceConfig, web

from aiohttp_cache_middleware import CachedResponse, make_cached_session
from tests.conftest import Origin

Observe: TypeAlias = Callable[[ClientResponse], Any]

LINES = b"first line\nsecond line\r\n\nlast"


def serve(origin: Origin) -> None:
    """Have *origin* answer with one response of each kind, never twice a different one."""

    @origin.on("/rich")
    async def rich(request: web.Request) -> web.Response:
        response = web.Response(
            body="Grüße\n".encode("latin-1"),
            reason="Fine",
            headers={
                "Content-Type": "text/plain; charset=ISO-8859-1",
                "Content-Disposition": 'attachment; filename="greeting.txt"; size=6',
                "Link": '</next>; rel="next"; title="Next", </prev>; rel=prev',
                "x-lower-case": "kept",
                "Date": "Sun, 06 Nov 1994 08:49:37 GMT",
                "Server": "origin",
                "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT",
            },
        )
        for one in ("a=1; Path=/; HttpOnly", "b=2; Max-Age=60", "b=3; Path=/other"):
            response.headers.add("Set-Cookie", one)
        response.headers.add("X-Twice", "1")
        response.headers.add("X-Twice", "2")
        return response

    date = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}

    def fixed(path: str, body: bytes, status: int = 200, **headers: str) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        @origin.on(path)
        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=body, status=status, headers={**date, **fields})

    fixed("/json", b'{"a": [1, 2.5, null, "\xc3\xa4"]}', Content_Type="application/json")
    fixed("/broken-json", b'{"a": ', Content_Type="application/json")
    fixed("/html", b"<p>not JSON</p>", Content_Type="text/html")
    fixed("/lines", LINES, Content_Type="text/plain")
    fixed("/empty", b"")
    fixed("/204", b"", 204)
    fixed("/404", b"not here", 404)
    fixed("/500", b"broken", 500)
    fixed("/large", bytes(range(256)) * 4096, Content_Type="application/octet-stream")
    fixed("/gzip", gzip.compress(b"unpacked", mtime=0), Content_Encoding="gzip", Content_Type="text/plain")
    fixed("/not-text", b"\xff\xfe\x80", Content_Type="text/plain; charset=utf-8")
    fixed("/unknown-charset", b"hello", Content_Type="text/plain; charset=klingon")
    fixed("/odd-type", b"hello", Content_Type="nonsense")

    @origin.on("/chunked")
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=date)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(LINES)
        return response

    @origin.on("/from")
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={**date, "Location": "/lines?redirected#part"})


# --- what is observed ---


async def nothing(response: ClientResponse) -> None:
    return None


def attribute(name: str) -> Observe:
    def observe(response: ClientResponse) -> Any:
        return getattr(response, name)

    return observe


async def first_twice_the_same(response: ClientResponse) -> Any:
    return await response.read(), await response.read(), await response.text()


async def by_readline(response: ClientResponse) -> Any:
    lines = []
    while line := await response.content.readline():
        lines.append(line)
    return lines, response.content.at_eof()


async def by_lines(response: ClientResponse) -> Any:
    return [line async for line in response.content]


async def by_readuntil(response: ClientResponse) -> Any:
    return await response.content.readuntil(b"line"), await response.content.readuntil(b"\n")


async def by_readexactly(response: ClientResponse) -> Any:
    return await response.content.readexactly(3), await response.content.readexactly(2)


async def beyond_the_end(response: ClientResponse) -> Any:
    return await response.content.readexactly(10**9)


async def by_read(response: ClientResponse) -> Any:
    pieces = [await response.content.read(4), await response.content.read(), await response.content.read()]
    return pieces, response.content.at_eof()


async def by_readany(response: ClientResponse) -> Any:
    pieces = []
    while piece := await response.content.readany():
        pieces.append(piece)
    return b"".join(pieces), response.content.at_eof(), response.content.is_eof()


async def by_chunks_of_700(response: ClientResponse) -> Any:
    chunks = [chunk async for chunk in response.content.iter_chunked(700)]
    return b"".join(chunks), max(map(len, chunks), default=0) <= 700  # where they are cut is the network's choice


async def by_any(response: ClientResponse) -> Any:
    return b"".join([chunk async for chunk in response.content.iter_any()])


async def by_wire_chunks(response: ClientResponse) -> Any:
    if response.status == 204 or response.content_length == 0:
        return None  # aiohttp shares one empty stream, whose iteration ends but once
    chunks = [chunk async for chunk in response.content.iter_chunks()]
    return b"".join(data for data, _ in chunks)


async def after_partly_reading(response: ClientResponse) -> Any:
    return await response.content.read(3), await response.read(), await response.read()


async def at_the_end(response: ClientResponse) -> Any:
    await response.read()
    return (response.closed, response.content.at_eof(), response.content.is_eof(), response.content.total_bytes)


async def text(response: ClientResponse) -> Any:
    return await response.text()


async def text_as_latin_1(response: ClientResponse) -> Any:
    return await response.text("latin-1")


async def text_with_errors_replaced(response: ClientResponse) -> Any:
    return await response.text(errors="replace")


async def json(response: ClientResponse) -> Any:
    return await response.json()


async def json_of_any_type(response: ClientResponse) -> Any:
    return await response.json(content_type=None)


async def json_with_a_parser(response: ClientResponse) -> Any:
    return await response.json(loads=lambda text: text.upper())


async def encoding(response: ClientResponse) -> Any:
    await response.read()
    return response.get_encoding()


def encoding_before_reading(response: ClientResponse) -> Any:
    return response.get_encoding()


def raised(response: ClientResponse) -> Any:
    response.raise_for_status()


async def read_after_release(response: ClientResponse) -> Any:
    response.release()
    return response.closed, await response.read()


async def read_after_close(response: ClientResponse) -> Any:
    response.close()
    return response.closed, await response.read()


async def read_after_the_block(response: ClientResponse) -> Any:
    async with response:
        await response.read()
    return response.closed, await response.text(), await response.read()


async def what_the_stream_tells_after_the_block(response: ClientResponse) -> Any:
    async with response:
        await response.read()
    return response.content.total_bytes, response.content.at_eof(), response.content.is_eof()


async def stream_after_the_block(response: ClientResponse) -> Any:
    async with response:
        pass
    return await response.content.read()


async def stream_after_reading(response: ClientResponse) -> Any:
    await response.read()
    return await response.content.read(), await response.content.readany()


async def links(response: ClientResponse) -> Any:
    return {key: dict(link) for key, link in response.links.items()}


async def cookies(response: ClientResponse) -> Any:
    return {name: (cookie.value, dict(cookie)) for name, cookie in response.cookies.items()}


async def history(response: ClientResponse) -> Any:
    return [(hop.status, hop.url, hop.headers["Location"], hop.closed) for hop in response.history]


async def request_info(response: ClientResponse) -> Any:
    info = response.request_info
    return info.url, info.method, info.headers, info.real_url


async def headers(response: ClientResponse) -> Any:
    fields = response.headers
    return list(fields.items()), fields.getall("X-Twice", None), fields.get("X-LOWER-Case")


ATTRIBUTES = [
    "url", "real_url", "host", "method", "version", "status", "reason", "ok", "raw_headers", "content_type", "charset",
    "content_length", "content_disposition",
]  # fmt: skip

PATHS = [
    "/rich", "/json", "/broken-json", "/html", "/lines", "/empty", "/204", "/404", "/500", "/large", "/gzip",
    "/not-text", "/unknown-charset", "/odd-type", "/chunked", "/from",
]  # fmt: skip

SEEN_WITHOUT_READING: list[tuple[str, Observe]] = [
    *((name, attribute(name)) for name in ATTRIBUTES),
    *(
        (observe.__name__, observe)
        for observe in (headers, links, cookies, history, request_info, encoding_before_reading, raised)
    ),
]

READING: list[tuple[str, Observe]] = [
    (observe.__name__, observe)
    for observe in (
        first_twice_the_same, by_readline, by_lines, by_readuntil, by_readexactly, beyond_the_end, by_read, by_readany,
        by_chunks_of_700, by_any, by_wire_chunks, after_partly_reading, at_the_end, text, text_as_latin_1,
        text_with_errors_replaced, json, json_of_any_type, json_with_a_parser, encoding, read_after_release,
        read_after_close, read_after_the_block, what_the_stream_tells_after_the_block, stream_after_the_block,
        stream_after_reading,
    )
]  # fmt: skip


async def outcome(observe: Observe, response: ClientResponse) -> Any:
    """Give what was observed, or which error was raised and what it says."""
    try:
        seen = observe(response)
        return await seen if isinstance(seen, Awaitable) else seen
    except Exception as error:
        return type(error), str(error), getattr(error, "status", None), getattr(error, "message", None)


class Three:
    """The three sessions whose responses are compared, alike but for the cache."""

    def __init__(self, origin: Origin, plain: ClientSession, cached: ClientSession) -> None:
        self._origin = origin
        self._plain = plain
        self._cached = cached
        self._given: list[ClientResponse] = []

    async def responses(self, path: str, **request: Any) -> tuple[ClientResponse, CachedResponse, CachedResponse]:
        """Give a plain response, a miss and a hit, unread."""
        url = self._origin.url(path)
        method = request.pop("method", "GET")
        plain = await self._plain.request(method, url, **request)
        # A miss that is not read may not have arrived yet; so one that was read comes before the hit.
        miss = await self._cached.request(method, url, headers={"X-Miss": "1"}, **request)
        async with self._cached.request(method, url, **request) as first:
            await first.content.read()
        hit = await self._cached.request(method, url, **request)
        assert isinstance(miss, CachedResponse)
        assert isinstance(hit, CachedResponse)
        assert (miss.from_cache, hit.from_cache) == (False, True)
        self._given += (plain, miss, hit)
        return plain, miss, hit

    async def hit(self, path: str) -> CachedResponse:
        """Give one more hit, unread."""
        response = await self._cached.get(self._origin.url(path))
        assert isinstance(response, CachedResponse)
        assert response.from_cache
        self._given.append(response)
        return response

    def close(self) -> None:
        """Close what was given."""
        for response in self._given:
            response.close()


@pytest.fixture
async def three(origin: Origin, tmp_path: Path) -> AsyncIterator[Callable[..., Three]]:
    serve(origin)
    async with AsyncExitStack() as stack:

        def make_three(**options: Any) -> Three:
            plain = ClientSession(**options)
            cached = make_cached_session(
                tmp_path,
                allowed_codes=range(200, 600),
                allowed_methods=("GET", "HEAD", "POST"),
                include_headers=["X-Miss"],
                **options,
            )
            stack.push_async_callback(plain.close)
            stack.push_async_callback(cached.close)
            both = Three(origin, plain, cached)
            stack.callback(both.close)
            return both

        yield make_three


def without_mark(seen: Any) -> Any:
    """Leave out the header that lets a miss be asked for beside a hit."""
    if isinstance(seen, tuple) and len(seen) == 4 and hasattr(seen[2], "items"):
        return (*seen[:2], {name: value for name, value in seen[2].items() if name != "X-Miss"}, seen[3])
    return seen


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_seen_without_reading(three: Callable[..., Three], path: str) -> None:
    plain, miss, hit = await three().responses(path)
    for name, observe in SEEN_WITHOUT_READING:
        expected = without_mark(await outcome(observe, plain))
        assert without_mark(await outcome(observe, miss)) == expected, f"{name} of a miss"
        assert without_mark(await outcome(observe, hit)) == expected, f"{name} of a hit"


async def test_what_is_seen_of_a_request_that_a_middleware_leads_elsewhere(three: Callable[..., Three]) -> None:
    async def lead_elsewhere(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.url = request.url.with_path("/rich")
        return await handler(request)

    plain, miss, hit = await three(middlewares=[lead_elsewhere]).responses("/here#there")
    for name, observe in SEEN_WITHOUT_READING:
        expected = without_mark(await outcome(observe, plain))
        assert without_mark(await outcome(observe, miss)) == expected, f"{name} of a miss"
        assert without_mark(await outcome(observe, hit)) == expected, f"{name} of a hit"


@pytest.mark.parametrize(("name", "observe"), READING, ids=[name for name, _ in READING])
@pytest.mark.parametrize("auto_decompress", [True, False], ids=["decoded", "as it came"])
async def test_reading(three: Callable[..., Three], name: str, observe: Observe, auto_decompress: bool) -> None:
    both = three(auto_decompress=auto_decompress)
    for path in PATHS:
        plain, miss, hit = await both.responses(path)
        expected = await outcome(observe, plain)
        assert await outcome(observe, miss) == expected, f"{name} of {path}, a miss"
        assert await outcome(observe, hit) == expected, f"{name} of {path}, a hit"


@pytest.mark.parametrize("path", ["/rich", "/204", "/404", "/lines", "/large"])
async def test_head(three: Callable[..., Three], path: str) -> None:
    plain, miss, hit = await three().responses(path, method="HEAD")
    for name, observe in [*SEEN_WITHOUT_READING, ("read", first_twice_the_same)]:
        expected = without_mark(await outcome(observe, plain))
        assert without_mark(await outcome(observe, miss)) == expected, f"{name} of a miss"
        assert without_mark(await outcome(observe, hit)) == expected, f"{name} of a hit"


async def test_it_is_a_client_response_that_can_be_used_in_a_block(three: Callable[..., Three]) -> None:
    for response in await three().responses("/lines"):
        assert isinstance(response, ClientResponse)
        async with response as entered:
            assert entered is response
            assert await entered.read() == LINES
        assert response.closed
        assert response.connection is None


async def test_a_hit_holds_no_connection(three: Callable[..., Three]) -> None:
    for path in ("/lines", "/large"):
        _, _, hit = await three().responses(path)
        assert hit.connection is None


async def test_each_caller_gets_an_object_of_his_own(three: Callable[..., Three]) -> None:
    both = three()
    for path in ("/lines", "/large"):
        _, _, one = await both.responses(path)
        other = await both.hit(path)
        assert await one.content.read(3) == (await other.content.read(3))
        one.cookies["planted"] = "1"
        one.close()
        assert not other.closed or path == "/lines"  # aiohttp too calls closed what has arrived whole
        assert len(await other.read()) == other.size - 3
        assert "planted" not in other.cookies
        assert "planted" not in (await both.hit(path)).cookies
        assert not hasattr(other.headers, "add")  # what may be shared can't be changed


@pytest.mark.parametrize("raise_for_status", [True, False, None])
async def test_raise_for_status_of_the_session(three: Callable[..., Three], raise_for_status: bool | None) -> None:
    both = three(raise_for_status=bool(raise_for_status))
    seen = []
    for session, headers_ in ((both._plain, {}), (both._cached, {"X-Miss": "1"}), (both._cached, {"X-Miss": "1"})):
        try:
            async with session.get(both._origin.url("/404"), headers=headers_) as response:
                seen.append((response.status, await response.text()))
        except Exception as error:
            seen.append((type(error), str(error)))  # type: ignore[arg-type]
    assert seen[0] == seen[1] == seen[2]


async def test_a_timeout_is_the_same_error(origin: Origin, three: Callable[..., Three]) -> None:
    waiting = asyncio.Event()

    @origin.on("/slow")
    async def slow(request: web.Request) -> web.Response:
        await waiting.wait()
        return web.Response()

    both = three()
    errors = []
    for session, timeout in itertools.product(
        (both._plain, both._cached), (ClientTimeout(total=0.02), ClientTimeout(sock_read=0.02))
    ):
        with pytest.raises(asyncio.TimeoutError) as caught:
            await session.get(origin.url("/slow"), timeout=timeout)
        errors.append(type(caught.value))
    waiting.set()
    assert errors[:2] == errors[2:]


async def test_an_origin_that_is_not_there_is_the_same_error(three: Callable[..., Three]) -> None:
    both = three()
    errors = []
    for session in (both._plain, both._cached):
        with pytest.raises(OSError, match="Cannot connect") as caught:
            await session.get("http://127.0.0.1:1/")
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


async def test_trace_configs_see_start_headers_and_end(origin: Origin, three: Callable[..., Three]) -> None:
    signals = ("request_start", "request_end", "request_exception", "request_redirect", "response_chunk_received")

    def recording(events: list[str]) -> TraceConfig:
        trace_config = TraceConfig()
        for name in signals:

            async def note(session: Any, context: Any, params: Any, name: str = name) -> None:
                events.append(f"{name} {params.url.path}")

            getattr(trace_config, f"on_{name}").append(note)
        return trace_config

    serve(origin)
    recorded: list[list[str]] = []
    plain_events: list[str] = []
    async with (
        ClientSession(trace_configs=[recording(plain_events)]) as session,
        session.get(origin.url("/from")) as response,
    ):
        await response.read()
    cached_events: list[str] = []
    async with make_cached_session(trace_configs=[recording(cached_events)]) as session:
        for _ in range(2):
            async with session.get(origin.url("/from")) as response:
                await response.read()
            recorded.append(list(cached_events))
            cached_events.clear()
    assert recorded == [plain_events, plain_events]
