"""HTTP decides (RFC 9111): freshness, revalidation with an entity tag, stale-while-revalidate."""

import asyncio
import tempfile

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import get_cache, make_cached_session


async def show(session: aiohttp.ClientSession, path: str, remark: str) -> None:
    """Make one request; Cache-Status (RFC 9211) and Age say what the cache did."""
    async with session.get(path) as response:
        text = await response.text()
        status = response.headers.get("Cache-Status", "-")
        print(f"{path:<9} {text:<10} Age: {response.headers.get('Age', '-'):<3} {remark}\n{'':<20} {status}")


async def main() -> None:
    """Watch a tagged page and a page that may be served stale."""
    answered: list[int] = []
    edition = 1

    async def tagged(request: web.Request) -> web.Response:
        tag = f'"{edition}"'
        headers = {"ETag": tag, "Cache-Control": "max-age=2"}
        if request.headers.get("If-None-Match") == tag:
            answered.append(304)
            return web.Response(status=304, headers=headers)
        answered.append(200)
        return web.Response(text=f"edition {edition}", headers=headers)

    async def ticker(request: web.Request) -> web.Response:
        answered.append(200)
        headers = {"Cache-Control": "max-age=2, stale-while-revalidate=60"}
        return web.Response(text=f"tick {edition}", headers=headers)

    app = web.Application()
    app.add_routes([web.get("/tagged", tagged), web.get("/ticker", ticker)])
    async with TestServer(app) as origin:
        with tempfile.TemporaryDirectory() as directory:
            async with make_cached_session(directory, base_url=origin.make_url("/"), cache_control=True) as session:
                await show(session, "/tagged", "stored, fresh for two seconds")
                await show(session, "/ticker", "stored, fresh for two seconds")
                await show(session, "/tagged", "fresh: no request")
                await asyncio.sleep(2.1)
                await show(session, "/tagged", "stale: the origin answered 304, no body was sent")
                edition = 2
                await show(session, "/ticker", "stale: served at once, refreshed in the background")
                await asyncio.sleep(0.5)  # time for that
                await show(session, "/ticker", "what the refresh brought")
                await asyncio.sleep(2.1)
                await show(session, "/tagged", "stale, and changed: a new body")
                print(f"\nthe origin answered {answered}\n{get_cache(session).stats}")


if __name__ == "__main__":
    asyncio.run(main())
