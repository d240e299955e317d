"""Asking for something and reading it to its end, in one word."""

from __future__ import annotations

from typing import Any, cast

from aiohttp import ClientSession

from aiohttp_cache_middleware import CachedResponse


async def ask(session: ClientSession, url: str, method: str = "GET", **request: Any) -> CachedResponse:
    """Give the response, read to its end and released."""
    async with session.request(method, url, **request) as response:
        await response.read()
        return cast("CachedResponse", response)


async def is_hit(session: ClientSession, url: str, method: str = "GET", **request: Any) -> bool:
    """Tell whether the cache answers."""
    return (await ask(session, url, method, **request)).from_cache
