"""A filter decides by what is in a response whether it is kept: here, a job that is not done yet is not."""

import asyncio
import json
import tempfile

from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, make_cached_session


def is_done(response: CachedResponse) -> bool:
    """Keep an answer once the job it tells about is finished. Asked when storing and again when reusing."""
    return bool(json.loads(response.body)["state"] == "done")


async def main() -> None:
    """Poll a job until it is done, and once more."""
    polls = 0

    async def job(request: web.Request) -> web.Response:
        nonlocal polls
        polls += 1
        return web.json_response({"state": "done" if polls >= 3 else "running"})

    app = web.Application()
    app.router.add_get("/job/7", job)
    async with TestServer(app) as origin:
        with tempfile.TemporaryDirectory() as directory:
            async with make_cached_session(directory, base_url=origin.make_url("/"), filter_fn=is_done) as session:
                for _ in range(5):
                    async with session.get("/job/7") as response:
                        state = (await response.json())["state"]
                        source = "cache" if isinstance(response, CachedResponse) and response.from_cache else "origin"
                        print(f"{source:<7} {state}")
    print(f"5 polls, {polls} reached the origin")


if __name__ == "__main__":
    asyncio.run(main())
