"""How long responses may be used: for all, by URL pattern, for one request."""

import asyncio
import tempfile
from datetime import timedelta

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, CacheOptions, make_cached_session


async def show(session: aiohttp.ClientSession, path: str, options: CacheOptions | None = None) -> None:
    """Make one request and print where it was answered and until when that holds."""
    async with session.get(path, trace_request_ctx=options) as response:
        await response.read()
        if isinstance(response, CachedResponse) and response.from_cache:
            until = f"{response.expires:%Y-%m-%d %H:%M:%S} UTC" if response.expires else "for ever"
            print(f"  {path:<16} cache   may be used until: {until}")
        else:
            print(f"  {path:<16} origin")


async def main() -> None:
    """Set expirations in every way there is."""

    async def anything(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    app = web.Application()
    app.router.add_get("/{path:.*}", anything)
    async with TestServer(app) as origin:
        here = f"{origin.host}:{origin.port}"
        with tempfile.TemporaryDirectory() as directory:
            session = make_cached_session(
                directory,
                base_url=origin.make_url("/"),
                expire_after=timedelta(hours=1),  # what no pattern names
                urls_expire_after={
                    f"{here}/images/": -1,  # for ever
                    f"{here}/prices/": 0.5,  # seconds
                    "*/live/": 0,  # on any host: not cached
                },
            )
            async with session:
                for round_, wait in (("first", 0.0), ("second", 0.0), ("0.6 seconds later", 0.6)):
                    await asyncio.sleep(wait)
                    print(f"{round_}:")
                    for path in ("/about", "/images/logo", "/prices/today", "/live/score"):
                        await show(session, path)

                print("one request that wants it otherwise:")
                await show(session, "/news", CacheOptions(expire_after=60))
                await show(session, "/news")


if __name__ == "__main__":
    asyncio.run(main())
