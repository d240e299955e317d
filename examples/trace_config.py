"""A session that is made elsewhere, by code that only lets trace configs through, or one that is already live."""

import asyncio
import tempfile

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, cache_trace_config, get_cache


async def show(session: aiohttp.ClientSession, remark: str) -> None:
    """Make one request and print where it was answered."""
    async with session.get("/report") as response:
        await response.read()
        source = "cache" if isinstance(response, CachedResponse) and response.from_cache else "origin"
    print(f"  {source:<7} {remark}")


async def main() -> None:
    """Attach the cache by a TraceConfig: at the start, later, and to several sessions."""

    async def report(request: web.Request) -> web.Response:
        return web.Response(text="all is well")

    app = web.Application()
    app.router.add_get("/report", report)
    async with TestServer(app) as origin:
        url = origin.make_url("/")
        with tempfile.TemporaryDirectory() as directory:
            caching = cache_trace_config(directory, expire_after=3600)

            print("a session given the trace config when it is made:")
            async with aiohttp.ClientSession(url, trace_configs=[caching]) as session:
                await show(session, "first time")
                await show(session, "again")
                cache = get_cache(session)
                print(f"  its cache knows {sorted(await cache.urls())}")

            print("a live session, to which it is appended:")
            async with aiohttp.ClientSession(url) as session:
                await show(session, "not cached yet")
                session.trace_configs.append(caching)
                await show(session, "the other session's answer")
            await cache.aclose()


if __name__ == "__main__":
    asyncio.run(main())
