"""Processes, loops and threads: what the first stored the next one finds, and every process exits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from aiohttp_cache_middleware import CacheMiddleware, make_cached_session
from tests.asking import ask, is_hit
from tests.conftest import Origin

ROOT = Path(__file__).parent.parent

PRELUDE = """
import asyncio, sys
from aiohttp import ClientSession
from aiohttp_cache_middleware import CacheMiddleware, cache_trace_config, make_cached_session

directory, url = sys.argv[1:]

async def ask(session):
    async with session.get(url) as response:
        text = await response.text()
        print("hit" if response.from_cache else "miss", text[:20], flush=True)
"""


async def run(program: str, directory: Path, url: str, *, code: int = 0) -> str:
    """Run *program* in a process of its own; it must exit by itself, and complain of nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        "-W",
        "default",
        "-c",
        PRELUDE + textwrap.dedent(program),
        str(directory),
        url,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    # Only how long things take on a busy machine may be remarked on.
    assert [line for line in err.decode().splitlines() if not line.startswith("Executing ")] == []
    assert process.returncode == code
    return out.decode()


WAYS = {
    "a session, closed": """
        async def main():
            async with make_cached_session(directory) as session:
                await ask(session)
        asyncio.run(main())
    """,
    "a session with a connector of its own": """
        from aiohttp import TCPConnector
        async def main():
            async with make_cached_session(directory, connector=TCPConnector()) as session:
                await ask(session)
        asyncio.run(main())
    """,
    "a trace config, nothing closed but the session": """
        async def main():
            async with ClientSession(trace_configs=[cache_trace_config(directory)]) as session:
                await ask(session)
        asyncio.run(main())
    """,
    "a middleware, closed": """
        async def main():
            async with CacheMiddleware(directory) as cache, ClientSession(middlewares=[cache]) as session:
                await ask(session)
        asyncio.run(main())
    """,
    "a middleware, never closed": """
        cache = CacheMiddleware(directory)
        async def main():
            async with ClientSession(middlewares=[cache]) as session:
                await ask(session)
        asyncio.run(main())
    """,
    "exit at once, with writes pending": """
        async def main():
            async with ClientSession(middlewares=[CacheMiddleware(directory)]) as session:
                await ask(session)
                sys.exit(0)
        asyncio.run(main())
    """,
    "several loops one after the other": """
        cache = CacheMiddleware(directory)
        async def main():
            async with ClientSession(middlewares=[cache]) as session:
                await ask(session)
        for _ in range(3):
            asyncio.run(main())
    """,
    "an exception ends it": """
        async def main():
            async with make_cached_session(directory) as session:
                await ask(session)
                raise KeyError
        try:
            asyncio.run(main())
        except KeyError:
            pass
    """,
}


async def test_a_process_that_only_reads_imports_no_diskcache(directory: Path, origin: Origin) -> None:
    """It is two thirds of what a first hit would take."""
    program = """
        async def main():
            async with make_cached_session(directory) as session:
                await ask(session)
            print("diskcache" in sys.modules)
        asyncio.run(main())
    """
    assert (await run(program, directory, origin.url("/a"))).splitlines()[-1] == "True"
    assert (await run(program, directory, origin.url("/a"))).splitlines() == ["hit /a #1", "False"]


@pytest.mark.parametrize("first", WAYS)
async def test_a_second_process_finds_what_the_first_stored(origin: Origin, tmp_path: Path, first: str) -> None:
    assert (await run(WAYS[first], tmp_path / "cache", origin.url("/a"))).startswith("miss /a #1\n")
    assert await run(WAYS["a session, closed"], tmp_path / "cache", origin.url("/a")) == "hit /a #1\n"
    assert origin.count == 1


async def test_a_large_body_survives_the_process_too(origin: Origin, tmp_path: Path) -> None:
    origin.text("/large", b"0123456789" * 100_000)
    for said in ("miss", "hit"):
        out = await run(WAYS["exit at once, with writes pending"], tmp_path / "cache", origin.url("/large"))
        assert out == f"{said} 01234567890123456789\n"


async def test_a_process_exits_with_requests_under_way(origin: Origin, tmp_path: Path) -> None:
    never = asyncio.Event()

    @origin.on("/never")
    async def answer(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    out = await run(
        """
        async def main():
            async with make_cached_session(directory) as session:
                task = asyncio.create_task(ask(session))
                await asyncio.sleep(0.1)
                task.cancel()
                print("leaving", flush=True)
        asyncio.run(main())
        """,
        tmp_path / "cache",
        origin.url("/never"),
    )
    assert out == "leaving\n"
    never.set()


@pytest.mark.parametrize("kept", ["in a module", "by an exception that ends it"])
async def test_a_process_exits_with_a_body_read_in_part(origin: Origin, tmp_path: Path, kept: str) -> None:
    """Its spool is removed when the response goes, which may be after the interpreter's threads have."""
    origin.text("/large", bytes(3_000_000))
    out = await run(
        f"""
        import os
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Python complains of the response, which is not closed

        async def main():
            global response
            async with make_cached_session(directory) as session:
                response = await session.get(url)
                async for chunk in response.content.iter_chunked(65536):
                    if response.content.total_bytes > 600_000:
                        break
                print("leaving", flush=True)
                if {kept != "in a module"}:
                    held, response = response, None
                    raise ValueError
        asyncio.run(main())
        """,
        tmp_path / "cache",
        origin.url("/large"),
        code=0 if kept == "in a module" else 1,
    )
    assert out == "leaving\n"


async def test_several_processes_on_one_directory(origin: Origin, tmp_path: Path) -> None:
    program = """
        async def main():
            global url
            base = url
            async with make_cached_session(directory) as session:
                for number in range(30):
                    url = base + str(number)
                    await ask(session)
        asyncio.run(main())
    """
    outs = await asyncio.gather(*[run(program, tmp_path / "cache", origin.url("/")) for _ in range(3)])
    assert [len(out.splitlines()) for out in outs] == [30, 30, 30]
    assert (await run(program, tmp_path / "cache", origin.url("/"))).count("hit") == 30
    async with CacheMiddleware(tmp_path / "cache") as cache:
        assert (await cache.verify()).ok


# --- loops and threads ---


async def in_a_thread(work: Callable[[], object]) -> None:
    """Run *work* in a thread, while this loop's origin answers."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def target() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as caught:
            error = caught
        loop.call_soon_threadsafe(done.set_result, error)

    thread = threading.Thread(target=target)
    thread.start()
    error = await done
    thread.join()
    if error is not None:
        raise error


async def test_one_cache_in_several_loops_at_once(origin: Origin, tmp_path: Path) -> None:
    async with CacheMiddleware(tmp_path) as cache:

        async def main() -> None:
            async with ClientSession(middlewares=[cache]) as session:
                for number in [*range(20), *range(20)]:
                    assert await (await ask(session, origin.url(f"/{number}"))).text()
                assert await is_hit(session, origin.url("/0"))

        await asyncio.gather(*[in_a_thread(lambda: asyncio.run(main())) for _ in range(4)])
        assert await cache.responses.count() == 20
        assert (await cache.verify()).ok
        async with ClientSession(middlewares=[cache]) as session:
            assert await is_hit(session, origin.url("/0"))


async def test_one_session_after_the_other_in_loops_of_their_own(origin: Origin, tmp_path: Path) -> None:
    found: list[bool] = []

    async def main() -> None:
        async with make_cached_session(tmp_path) as session:
            found.append(await is_hit(session, origin.url("/a")))

    for _ in range(3):
        await in_a_thread(lambda: asyncio.run(main()))
    assert found == [False, True, True]
