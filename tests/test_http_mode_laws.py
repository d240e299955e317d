"""What holds whatever fields are sent: the whole path in HTTP mode, between a fake origin and a store in memory."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_cache_middleware import CacheMiddleware
from aiohttp_cache_middleware._model import StoredResponse
from aiohttp_cache_middleware._policy._fields import cache_control
from aiohttp_cache_middleware._response import replay
from aiohttp_cache_middleware._stores import MemoryStore
from tests.asking import ask
from tests.conftest import Clock, set_clock
from tests.exchanges import settle_cache

DIRECTIVES = [
    "max-age=5",
    "max-age=x",
    "no-store",
    "No-Store",
    "no-cache",
    'no-cache="x"',
    "must-understand",
    "must-revalidate",
    "stale-while-revalidate=9",
    "stale-if-error=9",
    "immutable",
    "max-stale",
    "min-fresh=3",
    'x="no-store, max-age=9"',
    "public",
]
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), max_size=12)
CONTROL = st.lists(st.sampled_from(DIRECTIVES), max_size=2).map(", ".join)
LIFETIME = st.sampled_from(["max-age=5", "max-age=50"]).map(lambda value: [("Cache-Control", value)])
TAGS = st.sampled_from(['"a"', '"b"', 'W/"a"', "a", '"a", "b"', "*"])
DATES = st.sampled_from(["Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:29 GMT", "0"])


def fields(names: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[list[tuple[str, str]]]:
    lines = st.one_of([st.tuples(st.just(name), st.one_of(values, TEXT)) for name, values in names.items()])
    return st.lists(lines, max_size=3)


ASKS = fields(
    {
        "Cache-Control": CONTROL,
        "Pragma": st.just("no-cache"),
        "If-None-Match": TAGS,
        "If-Modified-Since": DATES,
        "Foo": st.sampled_from("12"),
    }
)
SAYS = fields(
    {
        "Cache-Control": CONTROL,
        "ETag": TAGS,
        "Last-Modified": DATES,
        "Expires": DATES,
        "Date": DATES,
        "Age": st.sampled_from(["0", "3", "-1"]),
        "Vary": st.sampled_from(["Foo", "*", "foo, Bar"]),
        "Location": st.just("/a"),
        "Connection": st.sampled_from(["ETag", "Cache-Control", "Date"]),
    }
)


class Turn(NamedTuple):
    """One request, and what the origin says if it is asked."""

    method: str
    path: str
    asks: list[tuple[str, str]]
    status: int
    says: list[tuple[str, str]]
    after: int


TURNS = st.builds(
    Turn,
    st.sampled_from(["GET"] * 8 + ["HEAD", "POST"]),
    st.sampled_from(["/a", "/a", "/b"]),
    st.one_of(st.just([]), ASKS),
    st.sampled_from([200, 200, 200, 200, 304, 404, 500, 204, 412]),
    st.builds(list.__add__, st.one_of(LIFETIME, st.just([])), SAYS),
    st.integers(0, 12),
)


@given(st.lists(TURNS, min_size=2, max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_hit_is_what_the_origin_said_of_that_url_and_no_store_is_never_kept(turns: list[Turn]) -> None:
    asyncio.run(_take(turns))


async def _take(turns: list[Turn]) -> None:
    cache, clock = CacheMiddleware(store=MemoryStore(), cache_control=True), Clock()
    set_clock(cache, clock)
    said: dict[str, set[bytes]] = {"/a": set(), "/b": set()}
    turn = turns[0]

    async def origin(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        body = b"" if turn.status in (204, 304) or request.method == "HEAD" else f"{turn.path} {clock.now}".encode()
        if request.method == "GET":
            said[turn.path].add(body)
        return replay(request, _answer(turn, body), now=clock.now, age=None, cache_key=None, from_cache=False)

    async with ClientSession(middlewares=[cache, origin]) as session:
        for turn in turns:
            clock.advance(turn.after)
            response = await ask(
                session, f"http://origin.test{turn.path}", turn.method, headers=turn.asks, allow_redirects=False
            )
            await settle_cache(cache)
            if response.from_cache and response.status == 200 and turn.method == "GET":
                assert (await response.text()).encode() in said[turn.path]
            async for stored in cache.responses.values():
                directives = cache_control(stored.headers)
                assert not directives.no_store or directives.must_understand
    await cache.aclose()


def _answer(turn: Turn, body: bytes) -> StoredResponse:
    return StoredResponse(
        key="",
        method=turn.method,
        url="",
        status=turn.status,
        reason="",
        version=(1, 1),
        headers=tuple(turn.says),
        request_time=0,
        response_time=0,
        created_time=0,
        expires_time=0,
        body=body,
    )
