"""
Hours in a minute: processes at work on one directory that are killed, while its files are damaged under them.

``SOAK_MINUTES=10 pytest -m slow -s tests/faults/test_soak.py`` takes longer, and says how often what happened.
"""

from __future__ import annotations

import ast
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from aiohttp_cache_middleware import get_cache
from aiohttp_cache_middleware._stores._directory import disk_usage
from tests.conftest import Clock, Origin
from tests.faults.harness import Make, body_files, database_of, is_right, serve_known_content, start, works_again

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

MINUTES = float(os.environ.get("SOAK_MINUTES", "0.3"))
WORKERS = 4
MAX_SIZE = 12_000_000

WORKER = """
import aiohttp, collections
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))

async def work(seed):
    dice, counts = random.Random(seed), collections.Counter()
    while not ends:
        async with make_cached_session(directory, max_size=12_000_000) as session:
            cache = get_cache(session)
            for _ in range(dice.randrange(300)):
                if ends:
                    break
                path = dice.choice(["/", "/", "/", "/", "/large"]) + str(dice.randrange(20))
                try:
                    match dice.randrange(40):
                        case 0:
                            await cache.delete(url=base + path)
                        case 1:
                            await cache.remove_expired_responses()
                        case 2 if dice.random() < 0.1:
                            await cache.clear()
                except aiohttp_cache_middleware.StoreError:
                    counts["management that failed"] += 1  # as it may while the store is being damaged
                try:
                    with CacheOptions(refresh=dice.random() < 0.2):
                        asked = await asyncio.gather(*(fetch(session, path) for _ in range(3)))
                except aiohttp.ClientPayloadError:
                    counts["bodies damaged while they were read"] += 1
                    continue
                hits = [one.from_cache for one in asked]
                counts["requests"] += 3
                counts["hits"] += sum(hits)
    print(dict(counts))

import aiohttp_cache_middleware
asyncio.run(work(int(rest[0])))
"""


@pytest.fixture
def clock() -> Clock:
    """The time of day, as the other processes know no other."""
    return Clock(time.time())


def damage(directory: Path, dice: random.Random) -> str:
    """Do something to the files of a store at work; tell what."""
    what = dice.choice(["a body", "a body", "a body", "the marks", "the log", "the database", "a body's name"])
    bodies = body_files(directory)
    try:
        if what == "the database":
            size = database_of(directory).stat().st_size
            with database_of(directory).open("r+b") as file:
                file.seek(dice.randrange(size))
                file.write(dice.randbytes(1000))
        elif what == "the log":
            os.truncate(directory / "v1" / "cache.db-wal", dice.randrange(100_000))
        elif what == "the marks":
            (directory / "v1" / "marks").write_bytes(dice.randbytes(100))
        elif bodies and what == "a body":
            with dice.choice(bodies).open("r+b") as file:
                file.seek(dice.randrange(1000))
                file.write(b"\xff")
        elif bodies:
            dice.choice(bodies).unlink()
    except FileNotFoundError:
        return "nothing"
    return what


async def test_processes_that_are_killed_while_files_are_damaged(make: Make, origin: Origin, directory: Path) -> None:
    serve_known_content(origin)
    dice, counts, peak = random.Random(1), Counter[str](), 0
    numbers = iter(range(1_000_000))
    workers = [await start(WORKER, directory, origin.url(""), str(next(numbers))) for _ in range(WORKERS)]
    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end:
        await asyncio.sleep(dice.uniform(0.1, 1))
        assert all(worker.returncode is None for worker in workers), await workers[0].communicate()
        if dice.random() < 0.5:
            worker = workers.pop(0)
            worker.send_signal(signal.SIGKILL)
            await worker.communicate()
            workers.append(await start(WORKER, directory, origin.url(""), str(next(numbers))))
            counts["killed"] += 1
        else:
            counts[f"damaged: {damage(directory, dice)}"] += 1
        peak = max(peak, disk_usage(directory / "v1"))
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        out, err = await worker.communicate()
        assert worker.returncode in (0, -signal.SIGTERM), err.decode()  # the latter: it had hardly begun
        counts.update(ast.literal_eval(out.decode() or "{}"))
    session = make(max_size=MAX_SIZE)
    for number in range(20):
        await is_right(session, origin, f"/{number}")
        await is_right(session, origin, f"/large{number}")
    await works_again(session, origin)
    assert (await get_cache(session).verify()).ok
    assert list(directory.glob("v1/spool/*")) == []
    print(f"\n{MINUTES} minutes: {dict(sorted(counts.items()))}, at most {peak / 1e6:.1f} MB")
