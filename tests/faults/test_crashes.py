"""Processes that hold locks, are killed, fork, or end with writes pending; loops that close, and threads."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from aiohttp_cache_middleware import CacheMiddleware, _keep, get_cache
from tests.asking import ask
from tests.conftest import Clock, Origin
from tests.faults.harness import (
    Make,
    Ticker,
    body_files,
    is_intact,
    is_right,
    run,
    serve_known_content,
    start,
    works_again,
    written,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork and signals")


@pytest.fixture(autouse=True)
def content(origin: Origin) -> None:
    serve_known_content(origin)


@pytest.fixture
def clock() -> Clock:
    """The time of day, as the other processes know no other."""
    return Clock(time.time())


# --- locks of others ---

HOLDING = """
import fcntl, sqlite3
what, seconds = rest
if what == "flock":
    lock = os.open(directory + "/.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
else:
    connection = sqlite3.connect(directory + "/v1/cache.db", timeout=10, isolation_level=None)
    if what == "exclusive mode":
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN IMMEDIATE" if what == "write lock" else "BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(seconds))
"""


@pytest.mark.parametrize("seconds", [1, 10])
@pytest.mark.impatient
@pytest.mark.parametrize("what", ["write lock", "exclusive lock", "exclusive mode"])
@pytest.mark.parametrize("running", [False, True], ids=["closed", "running"])
async def test_another_process_holds_the_databases_lock(
    make: Make, origin: Origin, directory: Path, what: str, seconds: int, running: bool
) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await is_right(session, origin, "/large1")
    await written(session)
    if not running or what == "exclusive mode":  # which waits for all others to leave
        await session.close()
        session = make()
    holder = await start(HOLDING, directory, origin.url(""), what, str(seconds))
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    async with Ticker() as ticker:
        for number in range(2, 20):
            await is_right(session, origin, f"/{number}")
            await is_right(session, origin, "/large1")
        hits = [await is_right(session, origin, f"/{number}") for number in range(1, 20)]
    assert holder.returncode is None  # nobody waited for it
    assert ticker.longest < 0.5  # a machine that does nothing else: 10 ms
    if what != "exclusive mode":  # the others let readers in, and what waits to be written is read from memory
        assert all(hits)
    await holder.communicate()
    await works_again(session, origin)
    assert await is_right(session, origin, "/1")
    assert await is_right(session, origin, "/large1")
    if what != "exclusive mode":  # what waited longer than SQLite does was written in the end
        await session.close()
        session = make()
        assert all([await is_right(session, origin, f"/{number}") for number in range(1, 20)])


@pytest.mark.impatient
@pytest.mark.parametrize("cache_control", [False, True], ids=["default mode", "HTTP mode"])
async def test_what_arrives_while_the_store_opens_is_stored_when_it_has(
    make: Make, origin: Origin, directory: Path, cache_control: bool
) -> None:
    directory.mkdir(mode=0o700)
    holder = await start(HOLDING, directory, origin.url(""), "flock", "2")
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    origin.text("/varied", "v", Vary="X-One", Cache_Control="max-age=60")
    session = make(cache_control=cache_control, expire_after=60)
    began = time.monotonic()
    assert [await is_right(session, origin, f"/{number}") for number in range(5)] == [False] * 5
    async with session.get(origin.url("/varied"), headers={"X-One": "1"}) as response:
        assert await response.text() == "v"
    assert time.monotonic() - began < 1.5  # nobody has waited for it to open
    await holder.communicate()
    await get_cache(session)._core.flights.aclose(10)
    before = origin.count
    assert [await is_right(session, origin, f"/{number}") for number in range(5)] == [True] * 5
    for value in ("1", "2"):
        async with session.get(origin.url("/varied"), headers={"X-One": value}) as response:
            assert await response.text() == "v"
    assert origin.count == before + 1
    stats = get_cache(session).stats
    assert (stats.hits, stats.misses, stats.stores) == (6, 7, 7)


@pytest.mark.impatient
async def test_what_waits_for_the_store_to_open_is_bounded(
    make: Make, origin: Origin, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_keep, "LATE_ROOM", 2 * (_keep.LATE_OVERHEAD + 100))
    directory.mkdir(mode=0o700)
    holder = await start(HOLDING, directory, origin.url(""), "flock", "1")
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    origin.text("/a", "a" * 100)
    session = make()
    for number in range(3):
        async with session.get(origin.url(f"/a?{number}")) as response:
            assert await response.text() == "a" * 100
    await holder.communicate()
    await get_cache(session)._core.flights.aclose(10)
    stats = get_cache(session).stats
    assert (stats.misses, stats.stores, dict(stats.not_stored)) == (3, 2, {_keep.TOO_LATE: 1})


@pytest.mark.impatient
async def test_opening_that_takes_long_holds_no_request_for_longer_than_the_deadline(
    make: Make, origin: Origin, directory: Path
) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await session.close()
    session = make()
    holder = await start(HOLDING, directory, origin.url(""), "flock", "4")
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    began = time.monotonic()
    async with Ticker() as ticker:
        for number in range(20):  # one of them waits for the deadline, not all
            await is_right(session, origin, f"/{number}")
    assert holder.returncode is None
    assert time.monotonic() - began < 1
    assert ticker.longest < 0.5
    await holder.communicate()
    await works_again(session, origin)
    assert await is_right(session, origin, "/1")


# --- killed ---

KILLED = """
cache = CacheMiddleware(directory)

async def store_for_ever(seed):
    dice = random.Random(seed)
    async with ClientSession(middlewares=[cache]) as session:
        while True:
            path = dice.choice(["/", "/", "/", "/large"]) + str(dice.randrange(20))
            with CacheOptions(refresh=dice.random() < 0.5):
                await fetch(session, path)
            if dice.random() < 0.1:
                await cache.delete(url=base + path)

dice = random.Random(int(rest[1]))
for number in range(int(rest[0])):
    child = os.fork()
    if not child:
        try:
            asyncio.run(store_for_ever(number))
        finally:
            os._exit(1)
    time.sleep(dice.uniform(0.1, 0.3))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
"""


async def test_a_writer_that_is_killed_again_and_again(make: Make, origin: Origin, directory: Path) -> None:
    session = make()
    await is_right(session, origin, "/100")
    await is_right(session, origin, "/large15")
    await session.close()
    await run(KILLED, directory, origin.url(""), "100", "1")
    session = make()
    report = await get_cache(session).verify()
    assert (report.damaged, report.problems) == ((), ())
    assert report.entries > 2
    for number in range(20):
        await is_right(session, origin, f"/{number}")
        await is_right(session, origin, f"/large{number}")
    assert await is_right(session, origin, "/100")
    assert await is_right(session, origin, "/large15")
    async for stored in get_cache(session).responses.values():
        assert stored.body
    await session.close()
    assert is_intact(directory)
    assert list(directory.glob("bad-*")) == []


ARRIVING_FOR_EVER = """
children = []
for number in range(4):
    child = os.fork()
    if not child:
        async def main():
            async with make_cached_session(directory, max_size=16 * 2**20) as session:
                async with session.get(f"{base}/held?{os.getpid()}") as response:
                    await response.content.readexactly(6 * 2**20)
                    while sum(part.stat().st_size for part in Path(directory).glob("v1/spool/*")) < 5 * 2**20:
                        await asyncio.sleep(0.01)
                    print("arriving", flush=True)
                    await asyncio.sleep(60)
        asyncio.run(main())
    children.append(child)
    time.sleep(0.1)
sys.stdin.readline()
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


async def test_the_size_holds_though_processes_are_killed_while_bodies_arrive(
    make: Make, origin: Origin, directory: Path
) -> None:
    @origin.on("/held")
    async def held(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(7 * 2**20)})
        await response.prepare(request)
        await response.write(bytes(6 * 2**20))
        await asyncio.sleep(60)
        return response

    for _ in range(2):
        program = "from pathlib import Path\n" + ARRIVING_FOR_EVER
        process = await start(program, directory, origin.url(""), stdin=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(4):
            assert await process.stdout.readline() == b"arriving\n"
        await process.communicate(b"\n")
    left = list(directory.glob("v1/spool/*"))
    assert sum(part.stat().st_size for part in left) > 20 * 2**20
    session = make(max_size=16 * 2**20)
    await asyncio.sleep(1.1)  # a spool that is new may not be held yet
    for number in range(5):
        await is_right(session, origin, f"/{number}")
        await is_right(session, origin, f"/large{number}")
    await written(session)
    assert list(directory.glob("v1/spool/*")) == []
    assert (await get_cache(session).verify()).ok


async def test_what_another_process_is_fetching_is_not_swept(make: Make, origin: Origin, directory: Path) -> None:
    """It is alive, though its body has not come on for hours."""
    gate = asyncio.Event()

    @origin.on("/held")
    async def held(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(4 * 2**20)})
        await response.prepare(request)
        await response.write(bytes(3 * 2**20))
        await gate.wait()
        await response.write(bytes(2**20))
        return response

    fetching = """
    async def main():
        async with make_cached_session(directory) as session:
            async with session.get(base + "/held") as response:
                await response.content.readexactly(5 * 2**19)
                print("arriving", flush=True)
                assert len(await response.content.read()) == 3 * 2**19
    asyncio.run(main())
    """
    process = await start(fetching, directory, origin.url(""))
    assert process.stdout is not None
    assert await process.stdout.readline() == b"arriving\n"
    deadline = time.monotonic() + 10
    while not (parts := list(directory.glob("v1/spool/*"))):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    os.utime(parts[0], (0, 0))
    session = make()
    await is_right(session, origin, "/1")
    await written(session)
    await get_cache(session).verify(repair=True)
    gate.set()
    assert await process.communicate() == (b"", b"")
    assert (await ask(session, origin.url("/held"))).from_cache


async def test_what_killed_processes_left_behind_is_swept(make: Make, origin: Origin, directory: Path) -> None:
    @origin.on("/huge")
    async def huge(request: web.Request) -> web.Response:
        return web.Response(body=bytes(4 * 2**20))

    left = """
    async def main():
        async with ClientSession(middlewares=[CacheMiddleware(directory)]) as session:
            await fetch(session, "/1")
            async with session.get(base + "/huge") as response:
                await response.content.readexactly(3 * 2**20)
                await asyncio.sleep(0.3)
                os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(main())
    """
    process = await start(left, directory, origin.url(""))
    await process.communicate()
    (spool,) = directory.glob("v1/spool/*")
    os.utime(spool, (time.time() - 5, time.time() - 5))
    session = make()
    await is_right(session, origin, "/2")
    await written(session)
    assert list(directory.glob("v1/spool/*")) == []
    assert (await get_cache(session).verify()).ok


# --- many processes ---

MIXED = """
async def work(seed):
    dice = random.Random(seed)
    cache = CacheMiddleware(directory, max_size=20_000_000)
    await cache.responses.count()  # opened however busy the machine is: a request would go on without it
    async with ClientSession(middlewares=[cache]) as session:
        for number in range(int(rest[1])):
            path = dice.choice(["/", "/", "/", "/", "/large"]) + str(dice.randrange(20))
            match dice.randrange(20):
                case 0:
                    await cache.delete(url=base + path)
                case 1:
                    await cache.contains(url=base + path)
                case 2 if seed == 0 and number % 3 == 0:
                    await cache.clear()
                case 3:
                    await cache.remove_expired_responses()
                case 4:
                    await fetch(session, path, trace_request_ctx=CacheOptions(only_if_cached=True))
                case 5 | 6:
                    with CacheOptions(refresh=True):
                        await fetch(session, path)
                case 7:
                    with CacheOptions(only_if_cached=True):
                        await fetch(session, path)
                case 8:
                    await asyncio.gather(*(fetch(session, path) for _ in range(5)))
                case _:
                    await fetch(session, path)
    await cache.aclose()
    assert not cache.stats.store_errors, cache.stats

children = []
for seed in range(int(rest[0])):
    child = os.fork()
    if not child:
        try:
            asyncio.run(work(seed))
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    children.append(child)
assert {os.waitpid(child, 0)[1] for child in children} == {0}
"""


async def test_processes_at_work_on_one_directory(make: Make, origin: Origin, directory: Path) -> None:
    await run(MIXED, directory, origin.url(""), "8", "500")
    session = make()
    report = await get_cache(session).verify()
    assert report.ok
    for number in range(20):
        await is_right(session, origin, f"/{number}")
        await is_right(session, origin, f"/large{number}")
    await session.close()
    assert is_intact(directory)
    assert list(directory.glob("bad-*")) == []


# --- fork ---

FORKED = """
cache = CacheMiddleware(directory)

async def work(paths):
    async with ClientSession(middlewares=[cache]) as session:
        return [(await fetch(session, path)).from_cache for path in paths]

asyncio.run(cache.responses.count())  # opened, however busy the machine is
common = ["/1", "/2", "/large1", "/large2"]
asyncio.run(work(common))  # leaves writes pending and files open
children = []
for number in range(4):
    child = os.fork()
    if not child:
        asyncio.run(work([f"/{number + 10}", f"/large{number + 10}"]))
        found = asyncio.run(work([f"/{number + 10}", f"/large{number + 10}"]))
        asyncio.run(cache.aclose())
        os._exit(0 if found == [True, True] else 1)
    children.append(child)
assert asyncio.run(work([*common, "/30"])) == [True] * 4 + [False]
assert {os.waitpid(child, 0)[1] for child in children} == {0}
"""


FORKED_MEANWHILE = """
import threading
from aiohttp_cache_middleware._stores import _sharing
CacheMiddleware(directory)
held, go_on = threading.Event(), threading.Event()

def make_a_cache():
    with _sharing._lock:
        held.set()
        go_on.wait()

threading.Thread(target=make_a_cache).start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(20)

    async def main():
        async with make_cached_session(directory) as session:
            await fetch(session, "/1")

    asyncio.run(main())
    os._exit(0)
go_on.set()
assert os.waitpid(child, 0)[1] == 0
"""


async def test_a_fork_while_a_thread_makes_a_cache(origin: Origin, directory: Path) -> None:
    await run(FORKED_MEANWHILE, directory, origin.url(""), errors=None)


async def test_fork_after_use(make: Make, origin: Origin, directory: Path) -> None:
    await run(FORKED, directory, origin.url(""), errors=None)
    session = make()
    assert (await get_cache(session).verify()).ok
    for path in ["/1", "/large2", *(f"/{number + 10}" for number in range(4)), "/large13", "/30"]:
        assert await is_right(session, origin, path), path
    await session.close()
    assert is_intact(directory)


# --- loops, threads and ends ---


async def test_a_loop_that_closes_with_writes_pending(make: Make, origin: Origin, directory: Path) -> None:
    cache = CacheMiddleware(directory)
    paths = [*(f"/{number}" for number in range(100)), *(f"/large{number}" for number in range(10))]

    async def main() -> None:
        await cache.responses.count()  # opened, however busy the machine is
        async with ClientSession(middlewares=[cache]) as session:
            for path in paths:
                await is_right(session, origin, path)

    await in_a_thread(main)
    session = make(max_size=2**33)  # a store of its own, which sees what is on disk
    other = get_cache(session)
    assert other._core.store is not cache._core.store
    deadline = time.monotonic() + 10
    while not all([await other.contains(url=origin.url(path)) for path in paths]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    for path in paths:
        assert await is_right(session, origin, path), path
    assert (await other.verify()).ok
    await cache.aclose()


async def in_a_thread(*mains: object) -> None:
    """Run each of *mains* in a loop and thread of its own, all at once, while the origin's loop goes on."""
    errors: list[BaseException] = []

    def target(main: object) -> None:
        try:
            asyncio.run(main())  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=target, args=(main,)) for main in mains]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.01)
    assert errors == []


async def test_two_loops_in_two_threads(make: Make, origin: Origin, directory: Path) -> None:
    async with CacheMiddleware(directory) as cache:

        async def main() -> None:
            async with ClientSession(middlewares=[cache]) as session:
                for _ in range(3):
                    for number in range(20):
                        await is_right(session, origin, f"/{number}")
                        await is_right(session, origin, f"/large{number % 3}")
                    await cache.delete(url=origin.url("/5"))

        await in_a_thread(main, main)
        assert (await cache.verify()).ok
        assert await cache.responses.count() in (22, 23)


ENDING = """
async def main():
    cache = CacheMiddleware(directory)
    await cache.responses.count()  # opened, however busy the machine is
    session = ClientSession(middlewares=[cache])
    await asyncio.gather(*(fetch(session, f"/{number}") for number in range(50)), fetch(session, "/large1"))
    await session.close()
    if rest[0] == "sys.exit":
        sys.exit(0)
    if rest[0] == "signal":
        signal.raise_signal(signal.SIGINT)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize("how", ["end", "sys.exit", "signal"])
async def test_an_interpreter_that_exits_with_writes_pending(
    make: Make, origin: Origin, directory: Path, how: str
) -> None:
    await run(ENDING, directory, origin.url(""), how)
    session = make()
    for path in [*(f"/{number}" for number in range(50)), "/large1"]:
        assert await is_right(session, origin, path), path
    assert (await get_cache(session).verify()).ok
    assert len(body_files(directory)) == 1


async def test_an_interpreter_exits_though_the_database_is_locked(make: Make, origin: Origin, directory: Path) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await session.close()
    holder = await start(HOLDING, directory, origin.url(""), "write lock", "60")
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    began = time.monotonic()
    in_a_hurry = ENDING.replace("    await cache.responses.count()", "    #")
    await run(in_a_hurry, directory, origin.url(""), "end", errors=None)
    assert time.monotonic() - began < 20  # it waits for ten seconds, not for the lock
    holder.kill()
    await holder.communicate()
    session = make()
    await works_again(session, origin)
    assert await is_right(session, origin, "/1")
