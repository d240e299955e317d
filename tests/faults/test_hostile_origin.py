"""An origin that breaks off, talks nonsense or exaggerates: the caller sees what he would see without a cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from aiohttp_cache_middleware import get_cache
from tests.faults.harness import Make, everything_in, written

OK = b"HTTP/1.1 200 OK\r\n"
MANY = b"".join(b"X-Field-%d: value %d\r\n" % (number, number) for number in range(10_000))

ANSWERS = {
    "a body cut short": OK + b"Content-Length: 1000\r\n\r\nhello",
    "a large body cut short": OK + b"Content-Length: 2000000\r\n\r\n" + b"a" * 1_500_000,
    "chunks cut short": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a chunk cut short": OK + b"Transfer-Encoding: chunked\r\n\r\n50\r\nhello",
    "a chunk size that is none": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    "gzip that is none": OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "gzip without its end": OK
    + b"Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xcbH",
    "garbage": b"\x00\xff\xfe garbage \r\n\r\n" * 100,
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "header fields without end": OK + b"X-A: 1\r\n",
    "a field name that is none": OK + b"X-\xc3\xa9 : 1\r\nContent-Length: 5\r\n\r\nhello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "10,000 header fields": OK + MANY + b"Content-Length: 5\r\n\r\nhello",
    "one huge header field": OK + b"X-Huge: " + b"x" * 300_000 + b"\r\nContent-Length: 5\r\n\r\nhello",
    "bytes that are no text": OK + b'ETag: "\xff"\r\nX-Odd: \xff\xfe\xe9\x80\r\nContent-Length: 5\r\n\r\nhello',
    "a reason that is no text": b"HTTP/1.1 200 \xff\xfe\r\nContent-Length: 5\r\n\r\nhello",
    "a body until the connection closes": OK + b"\r\nhello",
    "odd dates": OK + b"Date: yesterday\r\nExpires: \xff\r\nAge: -1\r\nCache-Control: max-age=\xff, =, ;,\r\n"
    b"Vary: ,,\xff,\r\nLast-Modified: 0\r\nContent-Length: 5\r\n\r\nhello",
    "a date before all dates": OK + b"Date: Mon, 01 Jan 0001 00:00:00 GMT\r\nAge: 99999999999999999999\r\n"
    b"Cache-Control: max-age=99999999999999999999\r\nContent-Length: 5\r\n\r\nhello",
}
WHOLE = {"bytes that are no text", "a reason that is no text", "odd dates"}
"""Answers that are odd but whole: they are stored in the default mode."""


class RawOrigin:
    """A server that sends bytes and closes."""

    def __init__(self) -> None:
        self.answer = b""
        self.count = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.count += 1
            writer.write(self.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def raw() -> AsyncIterator[RawOrigin]:
    one = RawOrigin()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    yield one
    server.close()


async def outcome(session: ClientSession, url: str) -> tuple[object, ...]:
    """Give all that a caller sees."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            head = response.status, response.reason, response.raw_headers, tuple(response.headers.items())
            try:
                return *head, await response.read()
            except Exception as error:
                return *head, type(error), str(error)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("cache_control", [False, True], ids=["default", "http"])
@pytest.mark.parametrize("what", ANSWERS)
async def test_what_an_odd_origin_sends_arrives_as_without_a_cache(
    make: Make, raw: RawOrigin, what: str, cache_control: bool
) -> None:
    raw.answer = ANSWERS[what]
    url = raw.url
    lenient = {"max_line_size": 1_000_000, "max_field_size": 1_000_000}
    async with ClientSession(**lenient) as plain:  # type: ignore[arg-type]
        expected = await outcome(plain, url)
    session = make(cache_control=cache_control, **lenient)
    for _ in range(3):
        found = await outcome(session, url)
        if cache_control and len(found) == len(expected):  # which adds Age and Cache-Status
            found = tuple(two if isinstance(two, tuple) else one for one, two in zip(found, expected, strict=True))
        assert found == expected
        await get_cache(session).responses.count()
    if "cut" in what or what in ("garbage", "nothing", "gzip that is none"):
        assert await get_cache(session).responses.count() == 0
        assert raw.count >= 4
    if what in WHOLE and not cache_control:
        assert get_cache(session).stats.hits == 2
    report = await get_cache(session).verify()
    assert report.ok


async def test_header_fields_beyond_the_records_limit_are_passed_on_and_not_stored(
    make: Make, raw: RawOrigin, tmp_path: Path
) -> None:
    raw.answer = OK + b"X-Huge: " + b"x" * 300_000 + b"\r\nContent-Length: 5\r\n\r\nhello"
    session = make(max_line_size=1_000_000, max_field_size=1_000_000)
    async with session.get(raw.url) as response:
        assert len(response.headers["X-Huge"]) == 300_000
        assert await response.read() == b"hello"
    with pytest.raises(Exception, match="too large for a record"):
        await written(session)
    assert b"x" * 100 not in everything_in(tmp_path / "cache")
    assert await get_cache(session).responses.count() == 0
