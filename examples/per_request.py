"""Options for one request, by trace_request_ctx, and for a block of code, by ``with CacheOptions(...)``."""

import asyncio
import tempfile

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, CacheOptions, get_cache, make_cached_session


async def show(session: aiohttp.ClientSession, remark: str, options: CacheOptions | None = None) -> None:
    """Make one request and print where it was answered."""
    async with session.get("/page", trace_request_ctx=options) as response:
        body = (await response.text()).strip()
        if isinstance(response, CachedResponse) and response.from_cache:
            source = "cache"
        else:
            source = "nobody" if response.status == 504 else "origin"
    print(f"{source:<7} {response.status}   {remark:<44} {body}")


async def main() -> None:
    """Ask for one page in many ways."""
    edition = 0

    async def page(request: web.Request) -> web.Response:
        nonlocal edition
        edition += 1
        return web.Response(text=f"edition {edition}")

    app = web.Application()
    app.router.add_get("/page", page)
    async with TestServer(app) as origin:
        with tempfile.TemporaryDirectory() as directory:
            async with make_cached_session(directory, base_url=origin.make_url("/")) as session:
                await show(session, "nothing may be asked, nothing is stored", CacheOptions(only_if_cached=True))
                await show(session, "stored for a minute", CacheOptions(expire_after=60))
                await show(session, "again")
                await show(session, "the origin is asked, whatever is stored", CacheOptions(refresh=True))
                await show(session, "around the cache: neither read nor stored", CacheOptions(disabled=True))
                await show(session, "as before")
                with CacheOptions(namespace="guest"):  # every request in the block, also those of code you call
                    await show(session, "another namespace has entries of its own")
                    await show(session, "again")
                with get_cache(session).disabled():
                    await show(session, "a block without a cache")


if __name__ == "__main__":
    asyncio.run(main())
