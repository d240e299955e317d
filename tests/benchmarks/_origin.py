"""The origin of the benchmarks: a server on loopback, in a process of its own, that counts what reaches it."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeAlias

from aiohttp import web

CHUNKS, CHUNK_PAUSE = 20, 0.05  # the slow body: 1 second
COLD_PAUSE, UNCACHEABLE_PAUSE = 0.2, 0.1  # seconds

reached: Counter[str] = Counter()
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@lru_cache
def json_of(size: int) -> bytes:
    """Give JSON of *size* bytes that looks like what an API answers, and compresses like it."""
    rows: list[str] = []
    written = 0
    while written < size:
        n = len(rows)
        rows.append(json.dumps({"id": n, "name": f"item {n * 7919 % 9973}", "price": n * 104729 % 10007 / 100}))
        written += len(rows[-1]) + len(", ")
    return ("[" + ", ".join(rows)).ljust(size)[: size - 1].encode() + b"]"


def fresh(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "max-age=86400"})


async def data(request: web.Request) -> web.Response:
    return fresh(json_of(int(request.match_info["size"])))


async def cold(request: web.Request) -> web.Response:
    await asyncio.sleep(COLD_PAUSE)
    return fresh(b"[1]")


async def uncacheable(request: web.Request) -> web.Response:
    await asyncio.sleep(UNCACHEABLE_PAUSE)
    return web.Response(status=404, headers={"Cache-Control": "no-store"})


async def slow(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Cache-Control": "max-age=86400"})
    await response.prepare(request)
    for _ in range(CHUNKS):
        await response.write(bytes(1000))
        await asyncio.sleep(CHUNK_PAUSE)
    return response


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b"data: tick\n\n")
        await asyncio.sleep(CHUNK_PAUSE)


async def blob(request: web.Request) -> web.StreamResponse:
    megabytes = int(request.match_info["megabytes"])
    headers = {"Cache-Control": "max-age=86400", "Content-Length": str(megabytes << 20)}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for number in range(megabytes):
        await response.write(bytes([number % 256]) * (1 << 20))
    return response


async def count(request: web.Request) -> web.Response:
    return web.json_response(reached[request.query["path"]])


@web.middleware
async def counting(request: web.Request, handler: Handler) -> web.StreamResponse:
    reached[request.path] += 1
    return await handler(request)


def application() -> web.Application:
    app = web.Application(middlewares=[counting])
    app.add_routes(
        [
            web.get("/data/{size}/{number:.*}", data),
            web.get("/cold/{number}", cold),
            web.get("/uncacheable/{number}", uncacheable),
            web.get("/slow/{number}", slow),
            web.get("/events/{number}", events),
            web.get("/blob/{megabytes}/{number}", blob),
            web.get("/count", count),
        ]
    )
    return app


@contextmanager
def running_origin() -> Iterator[str]:
    """Start the origin and give its URL, without a slash at the end."""
    command = [sys.executable, "-m", "tests.benchmarks._origin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def reached_origin(url: str) -> int:
    """Tell how many requests for *url* reached the origin."""
    base, path = url[: url.index("/", 8)], url[url.index("/", 8) :]
    with urllib.request.urlopen(f"{base}/count?path={path}") as answer:
        return int(answer.read())


async def serve() -> None:
    runner = web.AppRunner(application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
