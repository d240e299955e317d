"""A backend that calls another service for its users: one session, one cache, nobody sees another's data."""

import asyncio
import tempfile

from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, CacheOptions, make_cached_session


async def main() -> None:
    """Call a service for two users, who are told apart by a token, then by a namespace."""
    asked: list[str] = []

    async def profile(request: web.Request) -> web.Response:
        user = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers["X-User"]
        asked.append(user)
        return web.json_response({"user": user})

    app = web.Application()
    app.router.add_get("/profile", profile)
    async with TestServer(app) as origin:
        with tempfile.TemporaryDirectory() as directory:
            async with make_cached_session(directory, base_url=origin.make_url("/"), expire_after=60) as session:

                async def show(headers: dict[str, str]) -> None:
                    async with session.get("/profile", headers=headers) as response:
                        user = (await response.json())["user"]
                        source = "cache" if isinstance(response, CachedResponse) and response.from_cache else "origin"
                        print(f"  {source:<7} {user}")

                print("Authorization is part of the key (as a keyed hash, never written in clear):")
                for user in ("ada", "bob", "ada", "bob"):
                    await show({"Authorization": f"Bearer {user}"})

                print("a header the cache knows nothing about is not; a namespace does it:")
                for user in ("ada", "bob", "ada", "bob"):
                    with CacheOptions(namespace=user):
                        await show({"X-User": user})
    print(f"8 requests, {len(asked)} reached the origin")


if __name__ == "__main__":
    asyncio.run(main())
