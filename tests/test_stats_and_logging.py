"""What is counted, and what is logged: one line per decision, saying why."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web

from aiohttp_cache_middleware import CacheMiddleware, CacheOptions, MemoryStore, get_cache
from tests.asking import ask
from tests.conftest import Clock, Origin, set_clock

Make = Callable[..., ClientSession]

LOGGER = "aiohttp_cache_middleware"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def test_counters(make: Make, origin: Origin, clock: Clock) -> None:
    failing = False

    @origin.on("/tagged")
    async def answer(request: web.Request) -> web.Response:
        if failing:
            return web.Response(status=503)
        return web.Response(
            status=304 if "If-None-Match" in request.headers else 200, text=None, body=b"12345", headers={"ETag": '"1"'}
        )

    origin.text("/404", status=404)
    session = make(expire_after=10, stale_if_error=True)
    cache = get_cache(session)
    await ask(session, origin.url("/tagged"))  # a miss, stored
    await ask(session, origin.url("/tagged"))  # a hit
    clock.advance(20)
    await ask(session, origin.url("/tagged"))  # revalidated: a hit
    clock.advance(20)
    failing = True
    await ask(session, origin.url("/tagged"))  # a stale hit, after an attempt to revalidate
    await ask(session, origin.url("/404"))  # a miss, not stored
    await ask(session, origin.url("/a"), "POST")  # does not concern the cache
    await ask(session, origin.url("/a"), trace_request_ctx=CacheOptions(disabled=True))
    await ask(session, origin.url("/none"), trace_request_ctx=CacheOptions(only_if_cached=True))
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.stale_hits) == (3, 3, 1)
    assert (stats.revalidations, stats.stores, stats.store_errors) == (2, 1, 0)
    assert dict(stats.not_stored) == {"status 404 is not in allowed_codes": 1}
    assert dict(stats.bypasses) == {"method POST": 1, "disabled": 1}
    assert stats.bytes_from_cache == 3 * 5


async def test_a_snapshot_can_be_exported(make: Make, origin: Origin) -> None:
    session = make()
    await ask(session, origin.url("/a"), "POST")
    stats = get_cache(session).stats
    assert dataclasses.asdict(stats)["bypasses"] == {"method POST": 1}
    assert pickle.loads(pickle.dumps(stats)) == stats


@pytest.mark.parametrize(
    ("method", "request_", "why"),
    [
        ("POST", {}, "method POST"),
        ("GET", {"headers": {"Range": "bytes=0-1"}}, "Range, and 206 is not in allowed_codes"),
        ("GET", {"headers": {"If-None-Match": '"1"'}}, "the caller's own If-None-Match"),
        ("GET", {"trace_request_ctx": CacheOptions(expire_after=0)}, "expire_after=0"),
        ("GET", {"trace_request_ctx": CacheOptions(disabled=True)}, "disabled"),
    ],
)
async def test_a_bypass_says_why(
    make: Make, origin: Origin, caplog: pytest.LogCaptureFixture, method: str, request_: dict[str, Any], why: str
) -> None:
    session = make()
    with caplog.at_level(logging.DEBUG, LOGGER):
        await ask(session, origin.url("/a"), method, **request_)
    assert get_cache(session).stats.bypasses == {why: 1}
    assert lines(caplog) == [f"{method} {origin.url('/a')}: bypass, {why}"]


async def test_each_decision_is_one_line(
    make: Make, origin: Origin, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    session = make(expire_after=10)
    url = origin.url("/a")
    logged = []
    for options in (None, None, CacheOptions(refresh=True), CacheOptions(only_if_cached=True)):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, LOGGER):
            await ask(session, url, trace_request_ctx=options)
        logged.append(lines(caplog))
    clock.advance(10)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, LOGGER):
        await ask(session, url)
    logged.append(lines(caplog))
    decisions = [[line.partition(": ")[2] for line in one] for one in logged]
    assert all(len(one) == 1 for one in logged), logged
    assert [one[0].split(",")[0] for one in decisions] == ["Forward", "Reuse", "Forward", "Reuse", "Forward"]
    assert decisions[2][0] == "Forward, refresh was asked for"
    assert decisions[4][0] == "Forward, expired, can't be validated"
    assert all(one[0].startswith(f"GET {url}: ") for one in logged)
    assert all(len(one[0].partition(", ")[2]) > 3 for one in decisions)  # each says why


async def test_what_is_not_stored_says_why(make: Make, origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    origin.text("/404", status=404)
    session = make()
    with caplog.at_level(logging.DEBUG, LOGGER):
        await ask(session, origin.url("/404"))
    assert lines(caplog)[-1] == "not stored: status 404 is not in allowed_codes"


async def test_nothing_is_logged_above_debug_in_normal_use(
    make: Make, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    session = make(filter_fn=lambda response: response.size < 10)
    with caplog.at_level(logging.INFO):
        for path in ("/a", "/a", "/long-enough"):
            await ask(session, origin.url(path))
    assert lines(caplog) == []


async def test_credentials_are_never_logged(origin: Origin, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    cache = CacheMiddleware(store=MemoryStore())
    set_clock(cache, clock)
    url = origin.url("/a").replace("http://", "http://alice:hunter2secret@")
    async with ClientSession(middlewares=[cache]) as session:
        with caplog.at_level(logging.DEBUG, LOGGER):
            await ask(session, url, cookies={"session": "hunter2secret"})
            await ask(session, url, cookies={"session": "hunter2secret"})
            await ask(session, url, "POST", cookies={"session": "hunter2secret"})
            with cache.disabled():
                await ask(session, url)
    assert lines(caplog)
    assert "hunter2secret" not in caplog.text


async def test_a_response_tells_its_own_story(make: Make, origin: Origin, clock: Clock) -> None:
    session = make(expire_after=10)
    miss = await ask(session, origin.url("/a"))
    clock.advance(3)
    hit = await ask(session, origin.url("/a"))
    assert (miss.age, hit.age) == (None, 3)
    assert miss.cache_key == hit.cache_key
    assert hit.cache_key is not None
