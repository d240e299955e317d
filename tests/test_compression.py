"""``compress``: less room on disk, and nothing else that a caller could notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import aiohttp
import pytest

from aiohttp_cache_middleware import CachedResponse, get_cache

from .conftest import Origin

Make: TypeAlias = Callable[..., aiohttp.ClientSession]

JSON = json.dumps([{"id": number, "name": f"item {number}"} for number in range(2000)]).encode()


async def fetched(session: aiohttp.ClientSession, url: str) -> tuple[bytes, bool]:
    async with session.get(url) as response:
        assert isinstance(response, CachedResponse)
        return await response.read(), response.from_cache


async def test_a_directory_takes_less_room(make: Make, origin: Origin, tmp_path: Path) -> None:
    taken = {}
    for compress in (False, True):
        room = tmp_path / str(compress)
        session = make(elsewhere=room, compress=compress)
        for number in range(20):
            origin.text(f"/{number}", JSON)
            await fetched(session, origin.url(f"/{number}"))
        await get_cache(session).aclose()
        taken[compress] = sum(path.stat().st_size for path in room.rglob("*") if path.is_file())
    assert taken[False] > 20 * len(JSON)
    assert taken[True] < 20 * len(JSON) / 2


@pytest.mark.parametrize("writes", [False, True])
async def test_what_was_written_one_way_is_read_the_other_way(make: Make, origin: Origin, writes: bool) -> None:
    origin.text("/a", JSON)
    writer = make(compress=writes)
    assert await fetched(writer, origin.url("/a")) == (JSON, False)
    await get_cache(writer).aclose()

    reader = make(compress=not writes)
    async with reader.get(origin.url("/a")) as response:
        assert isinstance(response, CachedResponse)
        assert response.from_cache
        assert response.content_length == len(JSON)
        assert [chunk async for chunk in response.content.iter_chunked(len(JSON))] == [JSON]
    stored = await get_cache(reader).responses.get(response.cache_key or "")
    assert stored is not None
    assert (stored.body, stored.size) == (JSON, len(JSON))
    assert origin.count == 1


async def test_nothing_is_wrong_with_compressed_entries(make: Make, origin: Origin) -> None:
    origin.text("/a", JSON)
    session = make(compress=True)
    await fetched(session, origin.url("/a"))
    cache = get_cache(session)
    report = await cache.verify()
    assert report.ok
    await cache.remove_expired_responses(expire_after=60)  # which writes every entry again
    assert await fetched(session, origin.url("/a")) == (JSON, True)
