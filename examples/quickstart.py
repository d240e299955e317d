"""
The cache in one look: which requests came from where, how long each took, how many reached the origin.

Run it: ``python examples/quickstart.py``. It starts an origin of its own and leaves nothing behind.
"""

import asyncio
import tempfile
import time

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, CacheOptions, make_cached_session

reached_the_origin: list[str] = []


async def weather(request: web.Request) -> web.Response:
    """Answer after 100 ms, as a busy server would."""
    reached_the_origin.append(request.path_qs)
    await asyncio.sleep(0.1)
    return web.json_response({"city": request.query.get("city", "Oslo"), "degrees": 21})


async def moved(request: web.Request) -> web.Response:
    """Redirect to where the weather is."""
    reached_the_origin.append(request.path_qs)
    raise web.HTTPFound("/weather?city=Rome")


async def show(session: aiohttp.ClientSession, url: str, remark: str, options: CacheOptions | None = None) -> None:
    """Make one request and print a line about it."""
    started = time.perf_counter()
    async with session.get(url, trace_request_ctx=options) as response:
        await response.read()
        milliseconds = (time.perf_counter() - started) * 1000
        source = "cache" if isinstance(response, CachedResponse) and response.from_cache else "origin"
    print(f"{url:<34} {source:<7} {milliseconds:>7.1f} ms   {remark}")


async def main() -> None:
    """Ask a slow origin, twice and more."""
    app = web.Application()
    app.add_routes([web.get("/weather", weather), web.get("/forecast", moved)])
    async with TestServer(app) as origin:
        url = origin.make_url("/")
        with tempfile.TemporaryDirectory() as directory:
            print(f"{'GET':<34} {'from':<7} {'time':>10}")
            async with make_cached_session(directory, base_url=url, expire_after=3600) as session:
                await show(session, "/weather?city=Oslo&unit=c", "first time: the origin is asked, the answer is kept")
                await show(session, "/weather?city=Oslo&unit=c", "the same again")
                await show(session, "/weather?unit=c&city=Oslo", "the order of parameters does not matter")
                await show(session, "/forecast", "a redirect: two answers from the origin")
                await show(session, "/forecast", "both hops are kept")
                await show(session, "/weather?city=Rome", "and so is what it led to")
                await show(session, "/weather?city=Rome", "fresh, please", CacheOptions(refresh=True))

                print("\n20 requests at once for a URL nobody has asked for:")
                before = len(reached_the_origin)
                crowd = [session.get("/weather?city=Lima") for _ in range(20)]
                for response in await asyncio.gather(*crowd):
                    await response.read()
                print(f"  {len(reached_the_origin) - before} reached the origin, 20 were answered")

            print("\nAnother session, as after a restart of the program:")
            async with make_cached_session(directory, base_url=url, expire_after=3600) as session:
                await show(session, "/weather?city=Oslo&unit=c", "read from disk")

    print(f"\n28 requests, {len(reached_the_origin)} reached the origin: {', '.join(reached_the_origin)}")


if __name__ == "__main__":
    asyncio.run(main())
