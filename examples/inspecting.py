"""What is in the cache, why a request would or would not be answered by it, and how to clean up."""

import asyncio
import tempfile

from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import get_cache, make_cached_session


async def main() -> None:
    """Fill a cache, look into it, and empty it."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=request.path * 10)

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound("/page/1")

    app = web.Application()
    app.add_routes([web.get("/page/{number}", page), web.get("/old", moved)])
    async with TestServer(app) as origin:
        url = origin.make_url
        with tempfile.TemporaryDirectory() as directory:
            async with make_cached_session(directory, expire_after=3600) as session:
                cache = get_cache(session)
                for path in ("/page/1", "/page/2", "/page/3", "/old", "/page/2"):
                    async with session.get(url(path)) as response:
                        await response.read()

                print(f"{await cache.responses.count()} responses:")
                async for stored in cache.responses.values():
                    print(f"  {stored.method} {stored.url} -> {stored.status}, {stored.size} bytes")
                async for source, target in cache.redirects.items():
                    print(f"  {source} leads to {target}")

                print(await cache.explain("GET", url("/page/1")))
                print(await cache.explain("GET", url("/page/9")))

                print(f"page 3 stored: {await cache.contains(url=url('/page/3'))}")
                await cache.delete(url=url("/page/3"))
                print(f"page 3 stored: {await cache.contains(url=url('/page/3'))}")

                # Everything older than a moment ago goes: the new expiration counts from when each was stored.
                await asyncio.sleep(0.05)
                print(f"removed as expired: {await cache.remove_expired_responses(expire_after=0.01)}")
                await cache.clear()
                print(f"left: {await cache.responses.count()}")

                print(f"statistics: {cache.stats}")


if __name__ == "__main__":
    asyncio.run(main())
