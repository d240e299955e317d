"""Bounds: of the disk, of one body, of variants, of what waits to be written, and of time."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_cache_middleware import StoreError, get_cache
from aiohttp_cache_middleware._model import VariantIndex
from aiohttp_cache_middleware._stores import DiskStore, _lane
from aiohttp_cache_middleware._stores._bodies import DiskBodyReader
from tests.asking import ask, is_hit
from tests.conftest import Clock, Origin
from tests.faults.harness import LARGE, Make, body_files, execute, is_right, serve_known_content, written

MIB = 1024 * 1024


def usage(directory: Path) -> int:
    # By inode: a body that is moved to its place while we look must not count twice.
    found = [path.lstat() for path in directory.rglob("*") if path.is_file()]
    return sum({status.st_ino: status.st_size for status in found}.values())


def serve_sizes(origin: Origin) -> None:
    """Have ``/size/number`` answered by that many bytes."""

    @origin.on("/sized")
    async def sized(request: web.Request) -> web.Response:
        body = random.Random(request.query["n"]).randbytes(int(request.query["size"]))
        return web.Response(body=body, headers={"Cache-Control": "max-age=360000000"})


# --- the disk ---


@pytest.mark.parametrize(
    ("max_size", "sizes", "requests"),
    [
        pytest.param(8 * MIB, [100, 3000, 60_000], 1500, id="small bodies"),
        pytest.param(16 * MIB, [100, 300_000, 2_000_000], 150, id="large bodies"),
        pytest.param(64 * MIB, [1000, 100_000, 700_000, 5_000_000], 400, id="all"),
    ],
)
async def test_the_size_holds_under_load_with_everything_counted(
    make: Make, origin: Origin, directory: Path, max_size: int, sizes: list[int], requests: int
) -> None:
    serve_sizes(origin)
    session = make(max_size=max_size)
    allowed = max_size + max(max_size // 10, 4 * MIB)
    peak = written_bytes = 0

    async def work(start: int) -> None:
        nonlocal peak, written_bytes
        for number in range(start, requests, 8):
            size = sizes[number % len(sizes)]
            response = await ask(session, origin.url(f"/sized?n={number}&size={size}"))
            assert response.size == size
            written_bytes += size
            peak = max(peak, usage_or_zero(directory))

    await asyncio.gather(*(work(start) for start in range(8)))
    await written(session)
    assert written_bytes > 2 * max_size  # or there was nothing to bound
    assert max(peak, usage(directory)) <= allowed
    assert usage(directory) > max_size // 3  # the room is used
    assert (await get_cache(session).verify()).ok


def usage_or_zero(directory: Path) -> int:
    try:
        return usage(directory)
    except FileNotFoundError:  # a file went while we looked
        return 0


async def test_one_body_takes_at_most_half_and_evicts_no_more_than_its_room(make: Make, origin: Origin) -> None:
    serve_sizes(origin)
    session = make(max_size=20 * MIB)
    for number in range(40):
        await ask(session, origin.url(f"/sized?n={number}&size=100000"))
    await ask(session, origin.url(f"/sized?n=0&size={11 * MIB}"))
    await written(session)
    assert not await is_hit(session, origin.url(f"/sized?n=0&size={11 * MIB}"))
    assert await get_cache(session).responses.count() == 40
    await ask(session, origin.url(f"/sized?n=1&size={9 * MIB}"))
    assert await is_hit(session, origin.url(f"/sized?n=1&size={9 * MIB}"))
    assert await get_cache(session).responses.count() == 41


async def test_a_body_that_will_not_be_kept_takes_no_more_room_while_it_arrives(
    make: Make, origin: Origin, directory: Path
) -> None:
    @origin.on("/endless")
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(bytes(MIB))
        return response

    session = make(max_size=8 * MIB)
    peak = 0
    async with session.get(origin.url("/endless")) as response:
        async for _ in response.content.iter_chunked(MIB):
            peak = max(peak, usage_or_zero(directory))
    await written(session)
    assert max(peak, usage(directory)) <= 12 * MIB
    assert await get_cache(session).responses.count() == 0


async def test_bodies_that_arrive_while_nothing_can_be_evicted_take_no_room(
    make: Make, origin: Origin, directory: Path
) -> None:
    serve_sizes(origin)
    session = make(max_size=8 * MIB)
    for number in range(3):
        await ask(session, origin.url(f"/sized?n={number}&size={5 * MIB // 2}"))
    await written(session)
    store = get_cache(session)._core.store
    assert isinstance(store, DiskStore)
    go_on = threading.Event()
    store._lanes.writer.run(go_on.wait)
    try:
        for number in range(3, 6):
            response = await ask(session, origin.url(f"/sized?n={number}&size={3 * MIB}"))
            assert response.size == 3 * MIB
        await asyncio.wrap_future(store._lanes.files.submit(lambda: None))  # what will be written of them is written
        assert usage(directory) <= 12 * MIB
    finally:
        go_on.set()
    with pytest.raises(StoreError):
        await written(session)
    assert (await get_cache(session).verify()).ok


async def test_max_body_size(make: Make, origin: Origin, directory: Path) -> None:
    serve_sizes(origin)
    session = make(max_body_size=500_000)
    for size, stored in ((500_000, True), (500_001, False)):
        for _ in range(2):
            response = await ask(session, origin.url(f"/sized?n=1&size={size}"))
            assert response.size == size
        assert response.from_cache is stored
    assert len(body_files(directory)) == 1
    assert get_cache(session).stats.not_stored["larger than max_body_size"] == 2


async def test_variants_of_one_url_are_bounded(make: Make, origin: Origin, directory: Path) -> None:
    origin.text("/a", "hello", Vary="X-One")
    session = make()
    for number in range(3 * 32):
        await ask(session, origin.url("/a"), headers={"X-One": str(number)})
    await written(session)
    assert await get_cache(session).responses.count() == 32
    entries = [entry async for _, entry in get_cache(session)._core.store.scan()]
    assert [len(entry.variants) for entry in entries if isinstance(entry, VariantIndex)] == [32]
    assert execute(directory, "SELECT COUNT(*) FROM Cache") == [(33,)]
    assert await is_hit(session, origin.url("/a"), headers={"X-One": str(3 * 32 - 1)})


# --- memory ---


async def test_beyond_64_mib_waiting_responses_are_not_stored_but_counted_and_arrive(
    make: Make, origin: Origin
) -> None:
    serve_sizes(origin)
    session = make()
    cache = get_cache(session)
    await ask(session, origin.url("/sized?n=0&size=10"))
    await written(session)
    store = cache._core.store
    assert isinstance(store, DiskStore)
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A disk that does nothing: the lane that writes waits for us.
    store._lanes.writer.run(lambda: asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result())
    for number in range(300):
        response = await ask(session, origin.url(f"/sized?n={number}&size=250000"))
        assert response.size == 250_000
        assert store._queue.size <= 64 * MIB
    not_stored = cache.stats.not_stored["the store did not accept it"]
    assert 20 < not_stored < 60
    assert cache.stats.stores == 301 - not_stored
    go_on.set()
    await written(session)
    assert store._queue.size == 0
    assert await cache.responses.count() == 301 - not_stored
    assert await is_hit(session, origin.url("/sized?n=1&size=250000"))


@pytest.mark.impatient
async def test_a_disk_that_stands_still_holds_no_request_for_longer_than_the_deadline(
    make: Make, origin: Origin
) -> None:
    serve_known_content(origin)
    serve_sizes(origin)
    session = make()
    await is_right(session, origin, "/large1")
    await written(session)
    store = get_cache(session)._core.store
    assert isinstance(store, DiskStore)
    go_on = threading.Event()
    store._lanes.files.run(go_on.wait)
    try:
        # A body that can't be opened; the same, fetched again, that can't be written; another that can't.
        for path in ("/large1", "/large1", "/large2", "/large2"):
            assert not await asyncio.wait_for(is_right(session, origin, path), 10)
        # More than may wait for the disk.
        response = await asyncio.wait_for(ask(session, origin.url(f"/sized?n=1&size={12 * MIB}")), 5)
        assert response.size == 12 * MIB
        assert get_cache(session).stats.not_stored["the store takes too long to write a large body"] == 1
    finally:
        go_on.set()
    await written(session)
    assert await is_right(session, origin, "/large1")
    assert await is_right(session, origin, "/large2")


@pytest.mark.impatient
async def test_a_disk_that_stands_still_while_a_body_is_verified_holds_no_request_for_longer_than_the_deadline(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_known_content(origin)
    session = make()
    await is_right(session, origin, "/large1")
    await written(session)
    go_on = threading.Event()
    check = DiskBodyReader.check_some
    monkeypatch.setattr(DiskBodyReader, "check_some", lambda *arguments: go_on.wait() and check(*arguments))
    try:
        assert not await asyncio.wait_for(is_right(session, origin, "/large1"), 2)
    finally:
        go_on.set()
    await written(session)
    assert await is_right(session, origin, "/large1")


@pytest.mark.impatient
async def test_a_disk_that_is_slow_and_goes_on_is_waited_for(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_sizes(origin)
    session = make()
    url = origin.url(f"/sized?n=1&size={40 * MIB}")
    await ask(session, url)
    await written(session)
    check = DiskBodyReader.check_some

    def check_slowly(*arguments: Any) -> bool | None:
        time.sleep(0.05)  # for 4 MiB
        return check(*arguments)

    monkeypatch.setattr(DiskBodyReader, "check_some", check_slowly)
    monkeypatch.setattr(_lane, "QUEUEING", 0.0)  # for others; here is nobody else
    began = time.monotonic()
    assert (await ask(session, url)).from_cache
    assert time.monotonic() - began > 2 * 0.25


@pytest.mark.impatient
async def test_many_large_bodies_at_once_wait_for_each_other(
    make: Make, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going to the origin, as from a disk that stands still, would take longer, and all of them would."""
    serve_known_content(origin)
    session = make()
    paths = [f"/large{number}" for number in range(10)]
    for path in paths:
        await is_right(session, origin, path)
    await written(session)
    check = DiskBodyReader.check_some

    def check_slowly(*arguments: Any) -> bool | None:
        time.sleep(0.05)
        return check(*arguments)

    monkeypatch.setattr(DiskBodyReader, "check_some", check_slowly)
    assert await asyncio.gather(*(is_right(session, origin, path) for path in paths)) == [True] * 10


@pytest.mark.parametrize("times", [1, 5])
async def test_removals_that_can_not_be_written_hold_up_nothing_and_are_not_forgotten(
    make: Make, origin: Origin, directory: Path, times: int
) -> None:
    serve_known_content(origin)
    session = make()
    for number in range(20):
        await is_right(session, origin, f"/{number}")
    await written(session)
    cache = get_cache(session)
    keys = await cache.responses.keys()
    execute(directory, "CREATE TRIGGER t BEFORE DELETE ON Cache BEGIN SELECT RAISE(ABORT, 'no'); END")
    for _ in range(times):
        for key in keys[:10]:
            cache._core.store.delete(key)
        with pytest.raises(StoreError):
            await written(session)  # comes back, rather than trying for ever
    execute(directory, "DROP TRIGGER t")
    await written(session)
    assert [await cache.contains(key=key) for key in keys] == [False] * 10 + [True] * 10
    left = execute(directory, "SELECT key FROM Cache")  # what is not only taken for gone
    assert sorted(left) == sorted((key,) for key in keys[10:])


# --- time ---


@pytest.mark.parametrize("cache_control", [False, True])
@pytest.mark.parametrize(
    ("step", "fresh"),
    [
        pytest.param(-30, True, id="back by half a minute"),
        pytest.param(-90, False, id="back by more than a minute"),
        pytest.param(-86_400, False, id="back by a day"),
        pytest.param(86_400, False, id="forward by a day"),
    ],
)
async def test_a_clock_that_steps_makes_no_entry_immortal(
    make: Make, origin: Origin, clock: Clock, cache_control: bool, step: float, fresh: bool
) -> None:
    origin.text("/a", "hello", Cache_Control="max-age=3600")
    session = make(cache_control=cache_control, expire_after=3600)
    await ask(session, origin.url("/a"))
    await written(session)
    clock.advance(step)
    assert await is_hit(session, origin.url("/a")) is fresh
    assert await is_hit(session, origin.url("/a"))
    clock.advance(-step)
    await ask(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"))
    clock.advance(3601)
    assert not await is_hit(session, origin.url("/a"))


@pytest.mark.parametrize("cache_control", [False, True])
@pytest.mark.parametrize("step", [600, 86_400, 365 * 86_400])
async def test_a_full_store_keeps_what_is_new_after_the_clock_ran_ahead(
    make: Make, origin: Origin, clock: Clock, cache_control: bool, step: float
) -> None:
    """What it was filled with then is of no use until that time comes, and must not stay in the way."""
    serve_sizes(origin)
    session = make(cache_control=cache_control, expire_after=10 * step, max_size=4 * MIB)
    store = get_cache(session)._core.store
    assert isinstance(store, DiskStore)
    store._clock = store._writing._clock = clock
    clock.advance(step)
    for number in range(60):
        await ask(session, origin.url(f"/sized?n={number}&size=100000"))
    await written(session)
    clock.advance(-step)
    for _ in range(2):
        hits = [await is_hit(session, origin.url(f"/sized?n={100 + number}&size=100000")) for number in range(15)]
        await written(session)
    assert all(hits)


async def test_a_clock_that_steps_keeps_the_store_sound(
    make: Make, origin: Origin, clock: Clock, directory: Path
) -> None:
    serve_known_content(origin)
    session = make(max_size=8 * MIB)
    store = get_cache(session)._core.store
    assert isinstance(store, DiskStore)
    store._clock = store._writing._clock = clock
    for step in (0, 86_400, -86_400, -86_400, 10 * 365 * 86_400, -20 * 365 * 86_400):
        clock.advance(step)
        for number in range(20):
            await is_right(session, origin, f"/large{number}")
            await is_right(session, origin, f"/{number}")
        await written(session)
        assert usage(directory) <= 12 * MIB
    assert LARGE * 20 > 8 * MIB
    assert (await get_cache(session).verify()).ok
