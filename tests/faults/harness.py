"""What the tests of faults share: known content, programs in processes of their own, hands in the store's files."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from aiohttp_cache_middleware import StoreError, get_cache
from tests.asking import ask
from tests.conftest import Origin

Make = Callable[..., ClientSession]

ROOT = Path(__file__).parents[2]
LARGE = 700_000
"""Bytes of a body that is kept in a file of its own."""
RECOVERY = 20.0
"""Seconds within which a store must work again once nothing is in its way."""

PRELUDE = """
import asyncio, os, random, signal, sys, time
from aiohttp import ClientSession
from aiohttp_cache_middleware import CacheMiddleware, CacheOptions, cache_trace_config, get_cache, make_cached_session
from tests.faults.harness import LARGE, content_of

directory, base, *rest = sys.argv[1:]

async def fetch(session, path, **request):
    async with session.get(base + path, **request) as response:
        body = await response.read()
        assert response.status == 504 or body == content_of(path), path
        return response
"""


def content_of(path: str) -> bytes:
    """Give the body that the origin has for *path*; large where the path says so."""
    size = LARGE if path.startswith("/large") else 300
    return (path.encode() + b" ") * (size // (len(path) + 1) + 1)


def serve_known_content(origin: Origin) -> None:
    """Have all paths answered by `content_of`, so that whatever is served can be checked."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content_of(request.path), headers={"X-Path": request.path})

    for path in ("/", *(f"/{number}" for number in range(200)), *(f"/large{number}" for number in range(20))):
        origin.handlers[path] = answer


async def is_right(session: ClientSession, origin: Origin, path: str) -> bool:
    """Ask for *path*, insist on the right answer, and tell whether the cache gave it."""
    response = await ask(session, origin.url(path))
    assert response.status == 200
    assert response.headers["X-Path"] == path
    assert await response.text() == content_of(path).decode()
    return response.from_cache


async def written(session: ClientSession) -> None:
    """Wait until what was accepted for storing is on disk."""
    await get_cache(session)._core.store.flush()


async def works_again(session: ClientSession, origin: Origin, path: str = "/199") -> None:
    """Insist that the store keeps things, within `RECOVERY`, and that all it holds is sound."""
    deadline = time.monotonic() + RECOVERY
    while True:
        await is_right(session, origin, path)
        if await is_right(session, origin, path) and (await on_disk(session)):
            break
        assert time.monotonic() < deadline, "the store does not work again"
        await asyncio.sleep(0.05)
    await get_cache(session).verify(repair=True)
    await is_right(session, origin, path)
    assert await is_right(session, origin, path)
    report = await get_cache(session).verify()
    assert report.ok, report


async def on_disk(session: ClientSession) -> bool:
    """Tell whether what was accepted for storing could be written, and the store answers."""
    try:
        await written(session)
        return await get_cache(session).responses.count() > 0
    except StoreError:
        return False


# --- the files ---


def database_of(directory: Path) -> Path:
    return directory / "v1" / "cache.db"


def body_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("v1/bodies/*/*.body"))


def execute(directory: Path, statement: str, *parameters: object) -> list[Any]:
    """Run *statement* on the database as somebody does who has the file."""
    connection = sqlite3.connect(database_of(directory), timeout=10)
    try:
        with connection:
            return connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()


def is_intact(directory: Path) -> bool:
    """Have SQLite look at every page and index."""
    return execute(directory, "PRAGMA integrity_check") == [("ok",)]


def everything_in(directory: Path) -> bytes:
    """Give the bytes of all files."""
    return b"\0".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


# --- processes ---


async def start(program: str, directory: Path, url: str, *rest: str, **options: Any) -> asyncio.subprocess.Process:
    """Start *program*, after `PRELUDE`, in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "default"),
        *("-c", PRELUDE + textwrap.dedent(program), str(directory), url, *rest),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        **options,
    )


async def run(program: str, directory: Path, url: str, *rest: str, errors: str | None = "", **options: Any) -> str:
    """Run *program*; it must exit by itself, and say *errors* (``None``: whatever) on standard error."""
    process = await start(program, directory, url, *rest, **options)
    try:
        out, err = await asyncio.wait_for(process.communicate(), 240)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    assert errors is None or err.decode() == errors
    return out.decode()


class Ticker:
    """Tells for how long the loop was held at most, within a block."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Ticker:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0.01)
        self._task.cancel()

    async def _tick(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before), now
