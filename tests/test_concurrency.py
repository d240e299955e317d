"""Many requests at once: one of them asks the origin, and the others are never worse off for having waited."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import (
    ClientError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    CookieJar,
    TCPConnector,
    web,
)

from aiohttp_cache_middleware import (
    CachedResponse,
    CacheMiddleware,
    CacheOptions,
    DiskStore,
    get_cache,
    make_cached_session,
)
from aiohttp_cache_middleware import _flights as flights_module
from aiohttp_cache_middleware import _middleware as middleware_module
from aiohttp_cache_middleware import _scope as scope_module
from aiohttp_cache_middleware import _tee as tee_module
from aiohttp_cache_middleware._keep import Keeper
from aiohttp_cache_middleware._model import Entry
from aiohttp_cache_middleware._tee import READ_AHEAD
from tests.asking import ask, is_hit
from tests.conftest import Clock, Origin

Make = Callable[..., ClientSession]
T = TypeVar("T")


@pytest.fixture(autouse=True)
def nobody_gives_up_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be healed by a follower's limited patience fails in these tests."""
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 1e6)
    monkeypatch.setattr(flights_module, "ELSEWHERE_PATIENCE", 1e6)
    monkeypatch.setattr(tee_module, "OPEN_PATIENCE", 1e6)


async def soon(work: Awaitable[T]) -> T:
    """Await what must not hang."""
    return await asyncio.wait_for(work, 20)


class Gate:
    """A path whose response is held until it is let go, piece by piece."""

    def __init__(
        self, origin: Origin, path: str = "/", *, body: bytes = b"body", rest: bytes = b"", **fields: str
    ) -> None:
        self.origin, self.path, self.body, self.rest = origin, path, body, rest
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}
        self.status = 200
        self.header = asyncio.Event()
        self.end = asyncio.Event()
        origin.handlers[path] = self.answer

    @property
    def count(self) -> int:
        return self.origin.count_of(self.path)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await self.header.wait()
        response = web.StreamResponse(status=self.status, headers=self.fields)
        await response.prepare(request)
        await response.write(self.body)
        await self.end.wait()
        await response.write(self.rest)
        return response

    def open(self) -> None:
        self.header.set()
        self.end.set()

    async def reached(self, count: int = 1) -> None:
        """Wait until so many requests have come."""
        await until(lambda: self.count >= count)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until *condition* holds."""

    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await soon(wait())


async def followed(session: ClientSession) -> None:
    """Wait until somebody waits for a flight."""
    flights = get_cache(session)._core.flights._here().flights
    await until(lambda: any(flight.has_followers for flight in flights.values()))


def flying(session: ClientSession) -> int:
    return len(get_cache(session)._core.flights._here().flights)


async def followers(session: ClientSession, url: str, count: int = 3) -> list[asyncio.Task[CachedResponse]]:
    """Have tasks wait for the request that is under way."""
    tasks = [asyncio.ensure_future(ask(session, url)) for _ in range(count)]
    await followed(session)
    return tasks


# One asks for all


@pytest.mark.parametrize("count", [2, 100, 1000])
async def test_one_of_many_asks_the_origin(origin: Origin, make: Make, count: int) -> None:
    gate = Gate(origin, body=b"x" * 5000)
    session = make(connector=TCPConnector(limit=0))
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(count)]
    await gate.reached()
    gate.open()
    responses = await soon(asyncio.gather(*asking))
    assert gate.count == 1
    assert [response.from_cache for response in responses].count(False) == 1
    assert {response.body for response in responses} == {b"x" * 5000}
    assert flying(session) == 0


async def test_requests_that_differ_do_not_wait_for_each_other(origin: Origin, make: Make) -> None:
    gate = Gate(origin)
    session = make()
    waiting = asyncio.ensure_future(ask(session, origin.url()))
    await gate.reached()
    assert not await is_hit(session, origin.url("/other"))
    assert not await is_hit(session, origin.url("/other?page=2"))
    gate.open()
    await soon(waiting)


async def test_one_of_many_revalidates(origin: Origin, make: Make, clock: Clock) -> None:
    gate = Gate(origin, ETag='"1"')
    gate.open()
    session = make(expire_after=10)
    await ask(session, origin.url())
    clock.advance(20)
    gate.header.clear()
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(10)]
    await gate.reached(2)
    gate.status = 304
    gate.body = b""
    gate.open()
    assert [response.from_cache for response in await soon(asyncio.gather(*asking))] == [True] * 10
    assert gate.count == 2


async def test_follower_has_limited_patience(origin: Origin, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 0.05)
    gate = Gate(origin)
    session = make()
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(4)]
    await gate.reached(4)
    gate.open()
    assert {response.body for response in await soon(asyncio.gather(*asking))} == {b"body"}


async def test_follower_that_is_cancelled_disturbs_nobody(origin: Origin, make: Make) -> None:
    gate = Gate(origin)
    session = make()
    leader = asyncio.ensure_future(ask(session, origin.url()))
    await gate.reached()
    first, second, third = await followers(session, origin.url())
    second.cancel()
    gate.open()
    assert [(await soon(one)).from_cache for one in (leader, first, third)] == [False, True, True]
    assert second.cancelled()
    assert gate.count == 1


async def test_one_cache_in_many_loops_at_once(tmp_path: Path, origin: Origin) -> None:
    origin.text("/", "hello")
    failures: list[BaseException] = []

    with_cache = CacheMiddleware(tmp_path / "cache")

    async def work(number: int) -> None:
        async with make_cached_session(cache=with_cache) as session:
            for round_ in range(20):
                url = origin.url(f"/{round_ % 7}")
                for response in await asyncio.gather(*(ask(session, url) for _ in range(5))):
                    assert response.body.startswith(b"/%d #" % (round_ % 7))

    def run(number: int) -> None:
        try:
            asyncio.run(work(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    await until(lambda: not any(thread.is_alive() for thread in threads))  # the origin is in this loop
    await with_cache.aclose()
    assert failures == []
    assert origin.count <= 4 * 7


# The leader


async def test_leader_fails_and_all_go_ahead_at_once(origin: Origin, make: Make) -> None:
    go_on = asyncio.Event()
    all_are_here = asyncio.Event()

    @origin.on("/")
    async def handler(request: web.Request) -> web.StreamResponse:
        if origin.count == 1:
            await go_on.wait()
            assert isinstance(request.transport, asyncio.Transport)
            request.transport.write(b"nonsense\r\n\r\n")  # aiohttp does not try that again
            request.transport.close()
            return web.Response()
        if origin.count == 6:
            all_are_here.set()
        await all_are_here.wait()
        return web.Response(text="fine")

    session = make()
    leader = asyncio.ensure_future(ask(session, origin.url()))
    await until(lambda: origin.count)
    waiting = await followers(session, origin.url(), 5)
    go_on.set()
    assert {response.body for response in await soon(asyncio.gather(*waiting))} == {b"fine"}
    with pytest.raises(ClientError):
        await leader


async def test_what_suits_nobody_who_waited_lets_all_go_ahead_at_once(
    origin: Origin, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a response turns out to vary: they have waited once, and do not wait for each other."""
    wait, waiting = flights_module.Flight.wait, 0

    async def counted(self: flights_module.Flight) -> bool:
        nonlocal waiting
        waiting += 1
        return await wait(self)

    monkeypatch.setattr(flights_module.Flight, "wait", counted)
    gate = Gate(origin, Vary="X-One")
    session = make()
    asking = [asyncio.ensure_future(ask(session, origin.url(), headers={"X-One": str(n)})) for n in range(6)]
    await gate.reached()
    await until(lambda: waiting == 5)
    gate.end.set()
    gate.header.set()
    await soon(asking[0])
    gate.header.clear()
    try:
        await gate.reached(6)
    finally:
        gate.open()
    assert {response.body for response in await soon(asyncio.gather(*asking))} == {b"body"}


async def test_cache_that_fails_at_the_leaders_response_holds_nobody_up(
    origin: Origin, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    gate = Gate(origin)
    session = make()
    monkeypatch.setattr(Keeper, "receive", fail)
    leader = asyncio.ensure_future(ask(session, origin.url()))
    await gate.reached()
    waiting = await followers(session, origin.url())
    gate.open()
    assert {one.body for one in await soon(asyncio.gather(leader, *waiting))} == {b"body"}
    assert gate.count == 4
    assert flying(session) == 0


async def test_patience_counts_from_the_start_of_what_is_waited_for() -> None:
    flight = flights_module.Flights().lead("key", lambda: None)
    flight.started -= flights_module.FOLLOWER_PATIENCE - 0.05
    waiting = asyncio.ensure_future(flight.wait())
    await asyncio.wait([waiting], timeout=20)
    assert waiting.done()
    assert waiting.result() is False
    assert flight.is_given_up


@pytest.mark.parametrize("is_header_there", [False, True])
async def test_leader_is_cancelled(origin: Origin, make: Make, is_header_there: bool) -> None:
    gate = Gate(origin, rest=b"rest")
    session = make()
    leader = asyncio.ensure_future(ask(session, origin.url()))
    await gate.reached()
    if is_header_there:
        gate.header.set()
        await asyncio.sleep(0.02)
    waiting = await followers(session, origin.url())
    leader.cancel()
    await gate.reached(4)
    gate.open()
    assert {response.body for response in await soon(asyncio.gather(*waiting))} == {b"bodyrest"}
    assert flying(session) == 0


async def test_leader_never_reads(origin: Origin, make: Make) -> None:
    gate = Gate(origin, rest=b"x" * 900_000)
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    waiting = await followers(session, origin.url())
    gate.end.set()
    assert {one.size for one in await soon(asyncio.gather(*waiting))} == {900_004}
    assert gate.count == 1
    assert len(await response.read()) == 900_004


async def test_who_waits_has_a_body_when_its_end_arrives(
    origin: Origin, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights_module, "URGE_INTERVAL", 1e6)  # nobody looks again how it comes on
    gate = Gate(origin, body=b"1" * 1000, rest=b"x" * 100_000)
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    waiting = await followers(session, origin.url())
    gate.end.set()
    assert {one.size for one in await soon(asyncio.gather(*waiting))} == {101_000}
    assert gate.count == 1
    assert len(await response.read()) == 101_000


async def test_leader_reads_slowly(origin: Origin, make: Make) -> None:
    gate = Gate(origin, body=b"1" * 1000, rest=b"x" * 900_000)
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    assert await response.content.readexactly(10) == b"1" * 10
    waiting = await followers(session, origin.url())
    gate.end.set()
    assert {one.body for one in await soon(asyncio.gather(*waiting))} == {b"1" * 1000 + b"x" * 900_000}
    assert gate.count == 1
    assert await response.content.read() == b"1" * 990 + b"x" * 900_000


@pytest.mark.parametrize("size", [READ_AHEAD + 1, 5 * READ_AHEAD])
@pytest.mark.parametrize("states_length", [False, True])
async def test_nobody_waits_for_a_large_body_that_the_leader_does_not_read(
    origin: Origin, make: Make, size: int, states_length: bool
) -> None:
    gate = Gate(origin, body=bytes(size))
    if states_length:
        gate.fields["Content-Length"] = str(size)
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(3)]
    await gate.reached(4)
    gate.end.set()
    assert {one.size for one in await soon(asyncio.gather(*asking))} == {size}
    assert len(await response.read()) == size


async def test_nobody_waits_for_a_body_that_says_it_will_be_large(origin: Origin, make: Make) -> None:
    gate = Gate(origin, body=b"x", rest=bytes(READ_AHEAD), Content_Length=str(READ_AHEAD + 1))
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(3)]
    await gate.reached(4)
    gate.end.set()
    assert {one.size for one in await soon(asyncio.gather(*asking))} == {READ_AHEAD + 1}
    response.close()


async def test_leader_never_reads_and_others_waited_before_he_could(origin: Origin, make: Make) -> None:
    gate = Gate(origin, rest=b"x" * 100_000)
    session = make()
    leader = asyncio.ensure_future(session.get(origin.url()))
    await gate.reached()
    waiting = await followers(session, origin.url())
    gate.header.set()
    response = await soon(leader)
    gate.end.set()
    assert {one.size for one in await soon(asyncio.gather(*waiting))} == {100_004}
    assert gate.count == 1
    response.close()


@pytest.mark.parametrize("end", [ClientResponse.close, ClientResponse.release])
async def test_leader_gives_up_early(origin: Origin, make: Make, end: Callable[[ClientResponse], Any]) -> None:
    gate = Gate(origin, rest=b"rest")
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    waiting = await followers(session, origin.url())
    end(response)
    await gate.reached(4)
    gate.open()
    assert {one.body for one in await soon(asyncio.gather(*waiting))} == {b"bodyrest"}


async def test_response_dropped_without_a_word_holds_nobody_up(origin: Origin, make: Make) -> None:
    gate = Gate(origin, rest=b"rest")
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    gate.end.set()
    await until(response.content.is_eof)
    assert flying(session) == 1
    del response
    gc.collect()
    await asyncio.sleep(0)
    assert flying(session) == 0
    assert await soon(is_hit(session, origin.url())) is False
    assert gate.count == 2


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_task_that_holds_an_unread_response_asks_again(origin: Origin, make: Make, is_open: bool) -> None:
    gate = Gate(origin, body=b"1" * 70_000, rest=b"2" * 70_000)
    session = make()
    gate.header.set()

    async def ask_twice() -> None:
        async with session.get(origin.url()) as first:
            if is_open:
                gate.end.set()
            async with session.get(origin.url()) as second:
                gate.end.set()
                assert await second.read() == await first.read() == b"1" * 70_000 + b"2" * 70_000

    await soon(ask_twice())


async def test_a_task_that_holds_a_response_fetched_by_another_asks_again(origin: Origin, make: Make) -> None:
    gate = Gate(origin, body=bytes(200_000), rest=b"rest")
    session = make()
    gate.open()
    held = await asyncio.gather(session.get(origin.url()), session.get(origin.url("/other")))
    assert (await soon(ask(session, origin.url()))).size == 200_004
    for response in held:
        response.close()


# What can't be stored is not waited for


UNCACHEABLE: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "status": ({}, {}),
    "event stream": ({}, {"Content-Type": "text/event-stream"}),
    "no-store": ({"cache_control": True}, {"Cache-Control": "no-store"}),
    "filter": ({"filter_fn": lambda _: False}, {}),
    "max_body_size": ({"max_body_size": 1000}, {}),
}


@pytest.mark.parametrize(("options", "fields"), [pytest.param(*case, id=name) for name, case in UNCACHEABLE.items()])
async def test_uncacheable_response(
    origin: Origin, make: Make, options: dict[str, Any], fields: dict[str, str], request: pytest.FixtureRequest
) -> None:
    gate = Gate(origin, body=b"x" * 5000)
    gate.fields = fields
    gate.status = 404 if "status" in request.node.name else 200
    session = make(**options)
    leader = asyncio.ensure_future(ask(session, origin.url()))
    await gate.reached()
    waiting = await followers(session, origin.url(), 5)
    # All are let go at once when it turns out, ...
    gate.open()
    await soon(leader)
    gate.header.clear()
    await soon(asyncio.gather(*waiting)) if gate.count == 6 else await gate.reached(6)
    # ... and from then on nobody waits at all.
    later = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(5)]
    await gate.reached(11)
    gate.open()
    assert {one.from_cache for one in await soon(asyncio.gather(*waiting, *later))} == {False}
    assert flying(session) == 0


async def test_what_becomes_cacheable_again_is_waited_for_again(
    origin: Origin, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(origin)
    gate.open()
    gate.status = 500
    session = make()
    await ask(session, origin.url())
    gate.status = 200
    await ask(session, origin.url())
    await get_cache(session).clear()
    gate.header.clear()
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(5)]
    await gate.reached(3)
    gate.open()
    await soon(asyncio.gather(*asking))
    assert gate.count == 3


async def test_uncacheable_urls_are_forgotten_in_time_and_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(flights_module, "clock", lambda: now)
    monkeypatch.setattr(flights_module, "UNCACHEABLE_KEYS", 2)
    flights = flights_module.Flights()
    for key in ("a", "b", "a", "c"):
        flights.note_uncacheable(key)
    assert [flights.is_uncacheable(key) for key in "abc"] == [True, False, True]
    now = flights_module.UNCACHEABLE_MEMORY
    assert not flights.is_uncacheable("a")


async def test_store_that_accepts_nothing_holds_nobody_up(origin: Origin, make: Make, monkeypatch: Any) -> None:
    gate = Gate(origin)
    session = make()
    monkeypatch.setattr(get_cache(session)._core.store, "put", lambda *_, **__: False)
    leader = asyncio.ensure_future(ask(session, origin.url()))
    await gate.reached()
    waiting = await followers(session, origin.url(), 5)
    gate.open()
    await soon(asyncio.gather(leader, *waiting))
    gate.header.clear()
    later = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(5)]
    await gate.reached(11)
    gate.open()
    await soon(asyncio.gather(*later))


# The filter


@pytest.mark.parametrize("verdict", [True, False])
async def test_async_filter_of_a_large_body(origin: Origin, make: Make, tmp_path: Path, verdict: bool) -> None:
    gate = Gate(origin, body=b"x" * 900_000)
    asked = asyncio.Event()
    answer = asyncio.Event()

    async def filter_fn(response: CachedResponse) -> bool:
        assert response.body == b"x" * 900_000
        asked.set()
        await answer.wait()
        return verdict

    session = make(filter_fn=filter_fn)
    gate.open()
    # The task that has read the response waits for it as anybody does: what is missing is the filter's word.
    await ask(session, origin.url())
    await soon(asked.wait())
    waiting = await followers(session, origin.url())
    answer.set()
    assert {one.from_cache for one in await soon(asyncio.gather(*waiting))} == {verdict}
    await get_cache(session)._core.flights.aclose(5)
    await get_cache(session)._core.store.flush()
    assert len([*(tmp_path / "cache").rglob("*.body")]) == verdict
    await until(lambda: not [*(tmp_path / "cache").rglob("*.part")])


async def test_who_has_read_a_response_waits_for_the_word_of_an_async_filter_too(origin: Origin, make: Make) -> None:
    answer = asyncio.Event()

    async def filter_fn(response: CachedResponse) -> bool:
        await answer.wait()
        return True

    gate = Gate(origin)
    gate.open()
    session = make(filter_fn=filter_fn)
    await ask(session, origin.url())

    async def give_it_once_somebody_waits() -> None:
        await followed(session)
        answer.set()

    giving = asyncio.ensure_future(give_it_once_somebody_waits())
    await ask(session, origin.url())  # by the same task
    assert gate.count == 1
    await giving


# Redirects


async def test_many_follow_one_redirect(origin: Origin, make: Make) -> None:
    gate = Gate(origin, "/end")
    origin.text("/", "go on", 302, Location="/end")
    session = make()
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(50)]
    await gate.reached()
    gate.open()
    responses = await soon(asyncio.gather(*asking))
    assert {(one.body, len(one.history)) for one in responses} == {(b"body", 1)}
    assert origin.count_of("/") == 1
    assert gate.count == 1


async def test_redirect_whose_body_comes_late_is_stored(origin: Origin, make: Make) -> None:
    @origin.on("/")
    async def redirect(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=302, headers={"Location": "/end"})
        await response.prepare(request)
        await response.write(b"go ")
        await asyncio.sleep(0.01)
        await response.write(b"on")
        return response

    session = make()
    await ask(session, origin.url())
    response = await ask(session, origin.url())
    assert [one.from_cache for one in (response, *response.history)] == [True, True]  # type: ignore[attr-defined]
    assert origin.count == 2


async def test_redirect_whose_end_is_not_read_holds_nobody_up(origin: Origin, make: Make) -> None:
    gate = Gate(origin, "/end", body=bytes(200_000), rest=b"rest")
    origin.text("/", "go on", 302, Location="/end")
    session = make()
    gate.header.set()
    response = await asyncio.ensure_future(session.get(origin.url()))
    waiting = await followers(session, origin.url())
    gate.end.set()
    assert {one.size for one in await soon(asyncio.gather(*waiting))} == {200_004}
    assert gate.count == 1
    response.close()


async def test_redirect_to_what_is_not_stored_holds_nobody_up(origin: Origin, make: Make) -> None:
    gate = Gate(origin, "/end")
    gate.status = 500
    origin.text("/", "go on", 302, Location="/end")
    session = make()
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(5)]
    await gate.reached()
    gate.open()
    assert {one.status for one in await soon(asyncio.gather(*asking))} == {500}
    assert flying(session) == 0


async def test_redirects_that_lead_to_each_other_do_not_wait_for_each_other(origin: Origin, make: Make) -> None:
    both_asked = asyncio.Event()

    def gate(path: str, to: str) -> None:
        """Let who has a cookie in; have others fetch one, once both paths have been asked for."""

        @origin.on(path)
        async def answer(request: web.Request) -> web.Response:
            if "seen" in request.cookies:
                return web.Response(text="the page")
            if origin.count == 2:
                both_asked.set()
            await both_asked.wait()
            return web.Response(status=302, headers={"Location": to, "Set-Cookie": "seen=1; Path=/"})

    gate("/page", "/other")
    gate("/other", "/page")
    session = make(cookie_jar=CookieJar(unsafe=True))
    asking = [asyncio.ensure_future(ask(session, origin.url(path))) for path in ("/page", "/other")]
    assert {one.body for one in await soon(asyncio.gather(*asking))} == {b"the page"}
    assert flying(session) == 0


async def test_a_limit_in_front_that_counts_who_waits_for_a_redirect(origin: Origin, make: Make) -> None:
    one_at_a_time = asyncio.Lock()

    async def limit(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async with one_at_a_time:
            return await handler(request)

    origin.text("/", "go on", 302, Location="/end")
    session = make(middlewares=[limit])
    asking = [asyncio.ensure_future(ask(session, origin.url())) for _ in range(5)]
    assert {one.body for one in await soon(asyncio.gather(*asking))} == {b"/end #1"}
    assert flying(session) == 0


async def test_who_waits_for_a_redirect_gives_up_unless_the_next_request_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Clock()
    monkeypatch.setattr(scope_module, "clock", now)
    scope = scope_module.RequestScope()
    hop = scope_module.Hop(object(), "key", "tag", flights_module.Flights().lead("key", lambda: None))
    scope.arrive(hop)
    now.advance(60)
    assert hop.hurry()  # it has not been followed yet
    for _ in range(2):
        scope.follow()
        assert hop.hurry()
        now.advance(scope_module.FOLLOWING_PATIENCE)
        assert not hop.hurry()
        scope.goes_on()
        assert hop.hurry()
        scope.arrive(scope_module.Hop(object(), "next", "tag", flights_module.Flights().lead("next", lambda: None)))


# Across processes

ANOTHER_PROCESS = """
import asyncio, sys
from aiohttp_cache_middleware import make_cached_session

async def main():
    directory, url, count = sys.argv[1:]
    async with make_cached_session(directory) as session:
        async def ask():
            async with session.get(url) as response:
                return await response.text()
        async with session.get(url + "?warm"):
            pass
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print(set(await asyncio.gather(*(ask() for _ in range(int(count))))), flush=True)

asyncio.run(main())
"""


async def test_processes_ask_the_origin_once(origin: Origin, tmp_path: Path) -> None:
    @origin.on("/")
    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2 if not request.query_string else 0)
        return web.Response(text="body")

    command = [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / "cache"), origin.url(), "25"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [await asyncio.create_subprocess_exec(*command, **pipes) for _ in range(4)]  # type: ignore[arg-type]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    said = [await process.communicate() for process in processes]
    assert {out for out, _ in said} == {b"{'body'}\n"}
    assert sum(not one.path.endswith("warm") for one in origin.seen) == 1


@pytest.fixture
async def elsewhere(tmp_path: Path, make: Make, origin: Origin) -> AsyncIterator[Callable[[str], None]]:
    """Have another process claim a key until it ends."""
    script = """
import sys
from pathlib import Path
from aiohttp_cache_middleware._stores._leases import Leases
leases = Leases(Path(sys.argv[1]))
assert leases.claim(sys.argv[2])
print("claimed", flush=True)
sys.stdin.readline()
"""
    processes: list[subprocess.Popen[str]] = []

    def claim(key: str) -> None:
        command = [sys.executable, "-c", script, str(tmp_path / "cache"), key]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline() == "claimed\n"

    yield claim
    for process in processes:
        process.communicate("")


@pytest.mark.skipif(sys.platform == "win32", reason="no claims there")
async def test_process_that_asks_for_long_is_waited_for_within_bounds(
    origin: Origin, make: Make, elsewhere: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights_module, "ELSEWHERE_PATIENCE", 0.05)
    gate = Gate(origin)
    gate.open()
    session = make()
    key = (await ask(session, origin.url())).cache_key
    assert key is not None
    await get_cache(session).clear()
    elsewhere(key)
    first = await soon(ask(session, origin.url()))
    assert (first.from_cache, gate.count) == (False, 2)


async def test_what_takes_long_elsewhere_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "ELSEWHERE_PATIENCE", 0.05)

    class Store:
        def claim(self, key: str) -> bool:
            return False

    flights = flights_module.Flights()
    assert await soon(flights.wait_elsewhere(Store(), "key"))  # type: ignore[arg-type]
    assert flights.is_uncacheable("key")


async def test_claim_ends_with_the_wait_for_it(origin: Origin, make: Make, tmp_path: Path) -> None:
    gate = Gate(origin)
    gate.open()
    session = make()
    key = (await ask(session, origin.url())).cache_key
    core = get_cache(session)._core
    claims = [False, False, True]
    held: set[str] = set()

    class Store:
        def claim(self, key: str) -> bool:
            if claimed := claims.pop(0):
                held.add(key)
            return claimed

        def unclaim(self, key: str) -> None:
            held.discard(key)

    assert key is not None
    assert await soon(core.flights.wait_elsewhere(Store(), key))  # type: ignore[arg-type]
    assert held == set()


# In the background


def swr(origin: Origin) -> Gate:
    gate = Gate(origin, Cache_Control="max-age=10, stale-while-revalidate=1000", Date="Tue, 14 Nov 2023 22:13:20 GMT")
    gate.open()
    return gate


async def stale(session: ClientSession, origin: Origin, clock: Clock, *paths: str) -> None:
    for path in paths:
        await ask(session, origin.url(path))
    clock.advance(20)


async def test_one_refresh_per_key_and_nobody_waits_for_it(origin: Origin, make: Make, clock: Clock) -> None:
    gate = swr(origin)
    session = make(cache_control=True)
    await stale(session, origin, clock, "/")
    gate.header.clear()
    for _ in range(5):
        assert (await soon(ask(session, origin.url()))).from_cache
    await gate.reached(2)
    gate.open()
    await get_cache(session)._core.flights.aclose(5)
    assert gate.count == 2


async def test_what_another_process_refreshes_is_left_to_it(
    origin: Origin, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = swr(origin)
    session = make(cache_control=True)
    await stale(session, origin, clock, "/")
    monkeypatch.setattr(get_cache(session)._core.guarded, "claim", lambda key: False)
    assert (await soon(ask(session, origin.url()))).from_cache
    await get_cache(session)._core.flights.aclose(5)
    assert gate.count == 1


async def test_refreshes_are_bounded(origin: Origin, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "MAX_BACKGROUND", 2)
    gate = swr(origin)
    session = make(cache_control=True)
    urls = [f"/?{n}" for n in range(5)]
    await stale(session, origin, clock, *urls)
    gate.header.clear()
    for url in urls:
        assert (await soon(ask(session, origin.url(url)))).from_cache
    await gate.reached(7)
    gate.open()
    await get_cache(session)._core.flights.aclose(5)
    assert gate.count == 7


@pytest.mark.parametrize("is_answered", [False, True])
async def test_refresh_is_finished_or_cancelled_at_the_end(
    origin: Origin,
    make: Make,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_answered: bool,
) -> None:
    monkeypatch.setattr("aiohttp_cache_middleware._manage.DRAIN_PATIENCE", 5.0 if is_answered else 0.01)
    gate = swr(origin)
    session = make(cache_control=True)
    await stale(session, origin, clock, "/")
    gate.header.clear()
    await ask(session, origin.url())
    await gate.reached(2)
    if is_answered:
        gate.open()
    await soon(get_cache(session).aclose())
    flights = get_cache(session)._core.flights._here()
    assert not flights.refreshes
    assert not flights.flights
    assert not session.connector._acquired  # type: ignore[union-attr]
    gate.open()
    gc.collect()
    assert caplog.records == []


def test_loop_that_ends_during_a_refresh_leaves_no_orphan(tmp_path: Path) -> None:
    script = """
import asyncio, sys, warnings, gc, logging
from aiohttp import web
from aiohttp_cache_middleware import CacheMiddleware, make_cached_session

async def main(cache):
    held = asyncio.Event()
    seen = []
    async def handler(request):
        seen.append(request)
        if len(seen) > 1:
            await held.wait()
        return web.Response(text="x", headers={"Cache-Control": "max-age=0, stale-while-revalidate=1000"})
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = "http://127.0.0.1:%d/" % runner.addresses[0][1]
    async with make_cached_session(cache=cache) as session:
        await cache.clear()  # opens the store, however long it takes
        for _ in range(3):
            async with session.get(url) as response:
                await response.read()
        while len(seen) < 2:
            await asyncio.sleep(0.001)
        print([response.from_cache, len(seen)])
    held.set()
    await runner.cleanup()

logging.basicConfig()
asyncio.run(main(CacheMiddleware(sys.argv[1], cache_control=True)), debug=False)
gc.collect()
"""
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "cache")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("[True, 2]\n", "")


async def test_refresh_that_fails_is_noticed_by_nobody(
    origin: Origin, make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = swr(origin)
    session = make(cache_control=True)
    await stale(session, origin, clock, "/")

    @origin.on("/")
    async def fails(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    assert (await ask(session, origin.url())).from_cache
    await get_cache(session)._core.flights.aclose(5)
    assert (await ask(session, origin.url())).body == gate.body
    await get_cache(session)._core.flights.aclose(5)
    gc.collect()
    assert caplog.records == []


async def test_refresh_that_fails_in_a_way_nobody_thought_of_is_noticed_by_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    flights = flights_module.Flights()
    flights.refresh("key", fail)
    assert list(flights._here().refreshes) == ["key"]
    await flights.aclose(5)
    await asyncio.sleep(0)
    assert flights._here().refreshes == {}
    gc.collect()
    assert caplog.records == []


async def test_refresh_on_demand_is_collapsed(origin: Origin, make: Make) -> None:
    gate = Gate(origin)
    gate.open()
    session = make()
    await ask(session, origin.url())
    gate.header.clear()
    again = CacheOptions(refresh=True)
    asking = [asyncio.ensure_future(ask(session, origin.url(), trace_request_ctx=again)) for _ in range(5)]
    await gate.reached(2)
    gate.open()
    await soon(asyncio.gather(*asking))
    assert gate.count == 2


# --- never worse than without a cache: waiting, and the loop ---


async def test_a_body_that_may_have_no_end_is_not_waited_for_long(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a watch or a log that is followed: chunked, slow, and nothing in its fields says so."""
    monkeypatch.setattr(tee_module, "OPEN_PATIENCE", 0.1)
    monkeypatch.setattr(flights_module, "URGE_INTERVAL", 0.01)
    gate = Gate(origin)
    gate.header.set()
    session = make()

    async def get() -> ClientResponse:
        # In a task of its own: nobody waits for a response that his own task may hold.
        return await soon(asyncio.ensure_future(session._request("GET", origin.url("/"))))

    first = await get()
    second = await get()
    assert gate.count == 2
    assert isinstance(first, CachedResponse)
    assert first.cache_key is not None
    is_noted = get_cache(session)._core.flights.is_uncacheable(first.cache_key)
    third = await get()  # does not even begin to wait
    assert gate.count == 3
    gate.open()
    assert is_noted
    for response in (first, second, third):
        assert await response.read() == b"body"
    assert await is_hit(session, origin.url("/"))


async def test_a_body_of_known_length_is_waited_for(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tee_module, "OPEN_PATIENCE", 0.0)
    gate = Gate(origin, body=b"bo", rest=b"dy", Content_Length="4")
    gate.header.set()
    session = make()
    first = await soon(asyncio.ensure_future(session._request("GET", origin.url("/"))))
    second = asyncio.ensure_future(ask(session, origin.url("/")))
    await asyncio.sleep(0.2)
    gate.open()
    assert await first.read() == b"body"
    assert (await soon(second)).from_cache
    assert gate.count == 1


async def test_who_waited_in_vain_gets_what_came_meanwhile_if_his_own_time_is_too_short(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cache both would have got their answers: waiting must not cost anybody his."""
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 0.1)

    @origin.on("/slow")
    async def answer(request: web.Request) -> web.Response:
        number = origin.count
        await asyncio.sleep(0.3 if number == 1 else 30)
        return web.Response(text=f"#{number}")

    session = make()
    timeout = ClientTimeout(total=1)
    responses = await asyncio.gather(*[ask(session, origin.url("/slow"), timeout=timeout) for _ in range(2)])
    assert [await response.text() for response in responses] == ["#1", "#1"]
    assert origin.count == 2


async def test_who_waited_in_vain_for_what_is_to_be_fetched_anew_gets_it(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 0.1)

    @origin.on("/slow")
    async def answer(request: web.Request) -> web.Response:
        number = origin.count
        await asyncio.sleep({1: 0, 2: 0.3}.get(number, 30))
        return web.Response(text=f"#{number}")

    session = make()
    await ask(session, origin.url("/slow"))
    clock.advance(1)
    timeout = ClientTimeout(total=1)
    with CacheOptions(refresh=True):
        responses = await asyncio.gather(*[ask(session, origin.url("/slow"), timeout=timeout) for _ in range(2)])
    assert [await response.text() for response in responses] == ["#2", "#2"]


async def test_who_waited_in_vain_asks_no_oftener_than_without_a_cache(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 0.05)

    @origin.on("/slow")
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with ClientSession() as plain:
        await asyncio.gather(*[ask(plain, origin.url("/slow")) for _ in range(2)], return_exceptions=True)
    without = origin.count
    await asyncio.gather(*[ask(session, origin.url("/slow")) for session in [make()] * 2], return_exceptions=True)
    assert origin.count <= 2 * without


@pytest.mark.parametrize("failing", ["both", "the first"])
async def test_who_waited_in_vain_sees_his_own_error_if_nothing_came(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 0.1)

    @origin.on("/slow")
    async def answer(request: web.Request) -> web.Response:
        number = origin.count
        await asyncio.sleep(30 if failing == "both" or number == 1 else 0.1)
        return web.Response(text=f"#{number}")

    session = make()
    timeout = ClientTimeout(total=0.5)
    outcomes = await asyncio.gather(
        *[ask(session, origin.url("/slow"), timeout=timeout) for _ in range(2)], return_exceptions=True
    )
    assert isinstance(outcomes[0], asyncio.TimeoutError)
    assert isinstance(outcomes[1], asyncio.TimeoutError if failing == "both" else CachedResponse)


async def test_whoever_waited_too_long_is_not_followed_by_others(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 0.1)
    gate = Gate(origin)
    session = make()
    first = asyncio.ensure_future(ask(session, origin.url("/")))
    await gate.reached(1)
    second = asyncio.ensure_future(ask(session, origin.url("/")))
    await gate.reached(2)
    monkeypatch.setattr(flights_module, "FOLLOWER_PATIENCE", 1e6)
    third = asyncio.ensure_future(ask(session, origin.url("/")))
    await soon(gate.reached(3))
    gate.open()
    for response in await soon(asyncio.gather(first, second, third)):
        assert await response.text() == "body"


async def test_hits_without_pause_leave_the_loop_its_turns(make: Make, origin: Origin) -> None:
    session = make()
    await ask(session, origin.url("/"))
    hits = 0

    async def poll() -> None:
        nonlocal hits
        while hits < 100 * middleware_module.HITS_IN_A_TURN:  # for ever, but for a loop that never gets its turn
            hits += await is_hit(session, origin.url("/"))

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(poll(), 0.2)
    assert hits > middleware_module.HITS_IN_A_TURN


async def test_of_many_that_hit_at_once_one_gives_the_loop_its_turn(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make()
    await ask(session, origin.url("/"))
    turns, sleep = 0, asyncio.sleep

    async def counting(delay: float) -> None:
        nonlocal turns
        turns += 1
        await sleep(delay)

    async def hit() -> None:
        for _ in range(20):
            assert await is_hit(session, origin.url("/"))

    monkeypatch.setattr(asyncio, "sleep", counting)
    await asyncio.gather(*[hit() for _ in range(100)])
    assert turns == 100 * 20 // middleware_module.HITS_IN_A_TURN


@pytest.mark.parametrize("is_late", [False, True], ids=["the other fails", "the other is late"])
async def test_a_refresh_is_not_answered_by_what_was_there_before(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """Another process asks for the same, and nothing comes of it."""
    monkeypatch.setattr(flights_module, "ELSEWHERE_PATIENCE", 0.1)
    session = make()
    await ask(session, origin.url("/"))
    claims = iter([False, not is_late])
    monkeypatch.setattr(get_cache(session)._core.guarded, "claim", lambda key: next(claims, not is_late))
    with CacheOptions(refresh=True):
        refreshed = await ask(session, origin.url("/"))
    assert not refreshed.from_cache
    assert origin.count == 2


async def test_who_has_waited_for_another_process_in_vain_does_not_wait_again(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a third one keeps the database locked: what was fetched elsewhere can't be written."""
    monkeypatch.setattr(flights_module, "ELSEWHERE_PATIENCE", 0.1)
    session = make()
    await ask(session, origin.url("/first"))
    claims: list[str] = []

    def claim(key: str) -> bool:
        claims.append(key)
        return False

    monkeypatch.setattr(get_cache(session)._core.guarded, "claim", claim)
    await ask(session, origin.url("/a"))
    waited = len(claims)
    assert waited > 1
    for path in ("/b", "/c"):
        await ask(session, origin.url(path))
    assert len(claims) == waited + 2


async def test_who_closes_costs_nobody_else_a_hit(
    origin: Origin, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A session for each request is a habit of many; all of a process share one store."""
    origin.text("/large", bytes(500_000))
    paths = ["/large", *(f"/{number}" for number in range(10))]
    async with make_cached_session(directory) as session:
        for path in paths:
            await ask(session, origin.url(path))

    async def session_per_request(number: int) -> list[bool]:
        hits = []
        for turn in range(20):
            async with make_cached_session(directory) as session:
                hits.append(await is_hit(session, origin.url(paths[(number + turn) % len(paths)])))
        return hits

    assert await asyncio.gather(*map(session_per_request, range(8))) == [[True] * 20] * 8
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_the_last_who_closes_closes_the_store(origin: Origin, directory: Path) -> None:
    one, other = CacheMiddleware(directory), CacheMiddleware(directory)
    async with ClientSession(middlewares=[one]) as session:
        await ask(session, origin.url("/a"))
    await one.aclose()
    assert one._core.store.is_open
    async with ClientSession(middlewares=[other]) as session:
        assert await is_hit(session, origin.url("/a"))
    await other.aclose()
    assert not other._core.store.is_open
    async with ClientSession(middlewares=[one]) as session:
        assert await is_hit(session, origin.url("/a"))
    await one.aclose()
    assert not one._core.store.is_open


async def test_a_cache_that_was_forgotten_keeps_no_store_open(origin: Origin, directory: Path) -> None:
    forgotten = CacheMiddleware(directory)
    store = forgotten._core.store
    async with make_cached_session(directory) as session:
        await ask(session, origin.url("/a"))
        del forgotten
        gc.collect()
    assert not store.is_open


async def test_a_store_that_is_closed_under_a_request_is_looked_into_again(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make()
    await ask(session, origin.url("/a"))
    store = get_cache(session)._core.store
    peek = store.peek

    def closed_just_before(key: str) -> Entry | None:
        monkeypatch.setattr(store, "peek", peek)
        assert isinstance(store, DiskStore)
        assert store.close_now()
        return store.peek(key)

    await store.flush()
    monkeypatch.setattr(store, "peek", closed_just_before)
    assert await is_hit(session, origin.url("/a"))
