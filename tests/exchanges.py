"""Exchanges between a caller, the cache and the origin, as data: for tables of what HTTP says (`test_http_mode`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import TypeAlias

from aiohttp import ClientSession, web
from multidict import CIMultiDict

from aiohttp_cache_middleware import CachedResponse, CacheMiddleware, get_cache
from tests.asking import ask
from tests.conftest import Clock, Handler, Origin

Fields: TypeAlias = Mapping[str, str | int] | Sequence[tuple[str, str | int]]
"""Field lines; a number is a date, in seconds from the moment of the exchange."""

PATH = "/thing"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """
    One request, what the origin says if it is asked, and what is to be seen of both.

    Attributes:
        after: Seconds since the exchange before.
        asks: Fields of the request.
        body: Content of the request.
        says: Fields of the origin's answer; ``Date`` is the moment of the exchange unless it is among them.
        code: Status of the origin's answer; ``0``: it closes the connection.
        content: Body of the origin's answer; ``None``: ``#1``, ``#2``, ..., so that the body tells the exchange.
        hit: Whether the caller is told that the cache answered.
        reaches: How many requests reach the origin.
        sees: What the origin sees in these fields of the request; ``None``: they are not there.
        status: What the caller gets; ``None``: `code`.
        text: What the caller reads; ``None``: not of interest.
        shows: What the caller sees in these fields of the response; ``None``: they are not there.
    """

    after: float = 0
    method: str = "GET"
    path: str = PATH
    asks: Fields | None = None
    body: bytes | None = None
    says: Fields | None = None
    code: int = 200
    content: bytes | None = None
    hit: bool = False
    reaches: int | None = None
    sees: dict[str, str | None] | None = None
    status: int | None = None
    text: str | None = None
    shows: dict[str, str | None] | None = None


async def play(exchanges: Sequence[Exchange], session: ClientSession, origin: Origin, clock: Clock) -> None:
    """Have *exchanges* happen in turn, and compare; refreshes in the background end before the next one begins."""
    for number, one in enumerate(exchanges, 1):
        clock.advance(one.after)
        origin.handlers[one.path] = _answering(one, number, clock)
        before = origin.count
        response = await ask(
            session,
            origin.url(one.path),
            one.method,
            headers=field_lines(one.asks, clock),
            data=one.body,
            allow_redirects=False,
        )
        await settle(session)
        seen = origin.seen[before:]
        step = f"exchange {number}"
        assert response.from_cache is one.hit, f"{step}: {response.headers.get('Cache-Status')}"
        reaches = one.reaches if one.reaches is not None else not one.hit
        assert len(seen) == reaches, f"{step}: {len(seen)} requests reached the origin"
        assert response.status == (one.code if one.status is None else one.status), step
        if one.text is not None:
            assert await response.text() == one.text, step
        for name, value in (one.shows or {}).items():
            assert _value(response, name) == value, f"{step}: {name}"
        for name, value in (one.sees or {}).items():
            assert [request.headers.get(name) for request in seen] == [value], f"{step}: {name}"


async def settle(session: ClientSession) -> None:
    """Wait for the refreshes in the background."""
    await settle_cache(get_cache(session))


async def settle_cache(cache: CacheMiddleware) -> None:
    """Wait for the refreshes in the background of *cache*."""
    await cache._core.flights.aclose(10)


def _value(response: CachedResponse, name: str) -> str | None:
    lines = response.headers.getall(name, None)
    return None if lines is None else ", ".join(lines)


def field_lines(fields: Fields | None, clock: Clock) -> CIMultiDict[str]:
    """Give *fields* as they are sent at the time of *clock*."""
    pairs = fields.items() if isinstance(fields, Mapping) else fields or ()
    return CIMultiDict(
        (name, formatdate(clock.now + value, usegmt=True) if isinstance(value, int) else value) for name, value in pairs
    )


def _answering(one: Exchange, number: int, clock: Clock) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        if one.code == 0:
            assert request.transport is not None
            request.transport.close()
        headers = field_lines(one.says, clock)
        headers.setdefault("Date", formatdate(clock.now, usegmt=True))
        content = f"#{number}".encode() if one.content is None else one.content
        return web.Response(status=one.code or 500, body=content, headers=headers)

    return answer
