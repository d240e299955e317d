"""A large file twice, with a progress bar: chunks come as they arrive, from the origin and from the cache."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, make_cached_session

MEGABYTE = 1 << 20
SIZE = 20 * MEGABYTE


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar (with `rich`, where it is installed) and give the function that moves it by some bytes."""
    try:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    except ImportError:
        print(f"{title}: {total // MEGABYTE} MB")
        yield lambda size: None
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns) as progress:
            task = progress.add_task(title, total=total)
            yield lambda size: progress.advance(task, size)


async def download(session: aiohttp.ClientSession, title: str) -> None:
    """Read the file in chunks, none of which is held back by the cache."""
    started = time.perf_counter()
    async with session.get("/film") as response:
        first_byte = None
        with progress_bar(title, response.content_length or SIZE) as advance:
            async for chunk in response.content.iter_chunked(1 << 16):
                first_byte = first_byte or time.perf_counter() - started
                advance(len(chunk))
        source = "cache" if isinstance(response, CachedResponse) and response.from_cache else "origin"
    seconds = time.perf_counter() - started
    print(f"{source:<7} first bytes after {(first_byte or 0) * 1000:.0f} ms, all of it after {seconds * 1000:.0f} ms")


async def main() -> None:
    """Download from an origin that sends a megabyte every 20 ms."""

    async def film(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(SIZE)})
        await response.prepare(request)
        for _ in range(SIZE // MEGABYTE):
            await response.write(bytes(MEGABYTE))
            await asyncio.sleep(0.02)
        return response

    app = web.Application()
    app.router.add_get("/film", film)
    async with TestServer(app) as origin:
        with tempfile.TemporaryDirectory() as directory:
            async with make_cached_session(directory, base_url=origin.make_url("/")) as session:
                await download(session, "first time")
                await download(session, "second time")


if __name__ == "__main__":
    asyncio.run(main())
