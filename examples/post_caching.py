"""Caching POST: a search API, where the body says what is asked for, and some of it does not matter."""

import asyncio
import tempfile

from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, get_cache, make_cached_session


async def main() -> None:
    """Search for the same thing in different words."""
    asked: list[object] = []

    async def search(request: web.Request) -> web.Response:
        query = await request.json()
        asked.append(query)
        return web.json_response({"found": [f"{query['words']} {number}" for number in range(3)]})

    app = web.Application()
    app.router.add_post("/search", search)
    async with TestServer(app) as origin:
        with tempfile.TemporaryDirectory() as directory:
            session = make_cached_session(
                directory,
                base_url=origin.make_url("/"),
                allowed_methods=("GET", "POST"),
                ignored_params=("token", "request_id"),  # neither compared nor written to disk
            )
            queries = [
                ({"words": "teapot", "limit": 3, "request_id": 1}, "first time"),
                ({"limit": 3, "words": "teapot", "request_id": 2}, "other order, other request_id"),
                ({"words": "kettle", "limit": 3, "request_id": 3}, "another question"),
            ]
            async with session:
                for query, remark in queries:
                    async with session.post("/search?token=secret", json=query) as response:
                        await response.read()
                        source = "cache" if isinstance(response, CachedResponse) and response.from_cache else "origin"
                        print(f"{source:<7} {remark}")
                print(f"kept under {sorted(await get_cache(session).urls())}: no token")
    print(f"{len(queries)} searches, {len(asked)} reached the origin")


if __name__ == "__main__":
    asyncio.run(main())
