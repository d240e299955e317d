"""Damage to the store's files: nothing wrong is served, what was not touched is still there, and it goes on."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError

from aiohttp_cache_middleware import get_cache
from aiohttp_cache_middleware._stores import DiskStore
from tests.asking import ask
from tests.conftest import Origin
from tests.faults.harness import (
    Make,
    Ticker,
    body_files,
    database_of,
    execute,
    is_intact,
    is_right,
    run,
    works_again,
    written,
)

pytestmark = pytest.mark.usefixtures("content")

PATHS = [*(f"/{number}" for number in range(40)), "/large0", "/large1", "/large2"]


def truncate(part: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * part))


def overwrite(start: float, stop: float, what: bytes = b"\0") -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(int(size * start))
            file.write((what * size)[: int(size * (stop - start))])

    return damage


def flip(seed: int, share: float = 1e-4) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        dice = random.Random(seed)
        content = bytearray(path.read_bytes())
        for _ in range(max(1, int(len(content) * share))):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        with path.open("r+b") as file:
            file.write(content)

    return damage


def replace_by_text(path: Path) -> None:
    path.write_text("this is no database\n" * 1000)


def replace_by_new_text_file(path: Path) -> None:
    path.unlink()
    path.touch(mode=0o600)
    replace_by_text(path)


def remove_log(path: Path) -> None:
    path.with_name("cache.db-wal").unlink(missing_ok=True)


def garble_log(path: Path) -> None:
    log = path.with_name("cache.db-wal")
    if log.exists():
        flip(7, 1e-2)(log)


def remove_live_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def garble_marks(path: Path) -> None:
    flip(3, 1e-1)(path.with_name("marks"))


def empty_marks(path: Path) -> None:
    os.truncate(path.with_name("marks"), 0)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "emptied": truncate(0),
    "truncated to half": truncate(0.5),
    "truncated within a page": truncate(0.77),
    "zeroed": overwrite(0, 1),
    "zeroed in part": overwrite(0.3, 0.6),
    "header zeroed": overwrite(0, 0.001),
    "text written over it": replace_by_text,
    "text file in its place": replace_by_new_text_file,
    "missing": Path.unlink,
    "its directory missing": remove_live_directory,
    "all missing": lambda path: shutil.rmtree(path.parents[1]),
    "log missing": remove_log,
    "log garbled": garble_log,
    "marks garbled": garble_marks,
    "marks emptied": empty_marks,
    "token missing": lambda path: path.with_name("token").unlink(),
    "secret garbled": lambda path: (path.parents[1] / "secret").write_bytes(b"?" * 32),
    "secret cut": lambda path: (path.parents[1] / "secret").write_bytes(b"?" * 5),
    "bodies missing": lambda path: shutil.rmtree(path.with_name("bodies")),
    "spool missing": lambda path: shutil.rmtree(path.with_name("spool")),
    **{f"bits flipped, {seed}": flip(seed) for seed in range(8)},
    **{f"many bits flipped, {seed}": flip(seed, 1e-2) for seed in range(2)},
}

UNTOUCHED = {"marks garbled", "marks emptied", "token missing", "bodies missing", "spool missing"}
"""Damage after which all records are still there."""


@pytest.mark.parametrize("running", [False, True], ids=["closed", "running"])
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_store(
    make: Make, origin: Origin, directory: Path, damage: str, running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    session = make()
    for path in PATHS:
        await is_right(session, origin, path)
    await written(session)
    if not running:
        await session.close()
        session = make()
    DAMAGE[damage](database_of(directory))
    with caplog.at_level(logging.WARNING):
        async with Ticker() as ticker:
            hits = [await is_right(session, origin, path) for path in PATHS]
            for _ in range(2):
                for path in PATHS:
                    await is_right(session, origin, path)
        await works_again(session, origin)
    assert ticker.longest < 0.5  # a machine that does nothing else: 50 ms
    if damage in UNTOUCHED:
        assert list(directory.glob("bad-*")) == []
        # Who notices in the middle of a run looks once into the store that he has.
        assert hits[:40].count(True) >= 39 if running else all(hits[:40])
        assert all(hits) or damage == "bodies missing"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(set(messages)) <= 3  # once per cause
    told = sum("has been set aside" in message for message in messages)
    assert told == len(list(directory.glob("bad-*"))) <= 1
    await session.close()
    assert is_intact(directory)
    again = make()
    hits = [await is_right(again, origin, path) for path in PATHS]
    await is_right(again, origin, "/150")
    await written(again)
    assert [await is_right(again, origin, path) for path in [*PATHS, "/150"]].count(True) == len(PATHS) + 1 or any(hits)


@pytest.mark.parametrize("running", [False, True], ids=["closed", "running"])
@pytest.mark.parametrize(
    "what",
    ["missing", "cut", "longer", "flipped", "flipped in secret", "swapped", "emptied", "a link", "a directory"],
)
async def test_a_damaged_body_is_fetched_again_and_the_others_stay(
    make: Make, origin: Origin, directory: Path, what: str, running: bool
) -> None:
    session = make()
    for path in PATHS:
        await is_right(session, origin, path)
    await written(session)
    assert [await is_right(session, origin, path) for path in PATHS] == [True] * len(PATHS)
    if not running:
        await session.close()
        session = make()
    first, second, _ = body_files(directory)
    content = first.read_bytes()
    match what:
        case "missing":
            first.unlink()
        case "cut":
            os.truncate(first, len(content) - 100)
        case "longer":
            first.write_bytes(content + b"more")
        case "flipped" | "flipped in secret":
            status = first.stat()
            first.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
            if what == "flipped in secret":
                os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "swapped":
            first.write_bytes(second.read_bytes())
            second.write_bytes(content)
        case "emptied":
            first.write_bytes(b"")
        case "a link":
            first.rename(directory.parent / "elsewhere")
            first.symlink_to(directory.parent / "elsewhere")
        case _:
            first.unlink()
            first.mkdir()
    bad = 2 if what == "swapped" else 1
    report = await get_cache(session).verify()
    assert len(report.damaged) == bad
    assert not report.repaired
    assert [await is_right(session, origin, path) for path in PATHS].count(False) == bad
    assert [await is_right(session, origin, path) for path in PATHS] == [True] * len(PATHS)
    await written(session)
    assert (await get_cache(session).verify()).damaged == ()


async def test_a_body_that_is_cut_while_it_is_read_ends_in_aiohttps_error_not_in_a_short_body(
    make: Make, origin: Origin, directory: Path
) -> None:
    origin.text("/huge", bytes(8_000_000))
    session = make()
    async with session.get(origin.url("/huge")) as response:
        assert len(await response.read()) == 8_000_000
    await written(session)
    async with session.get(origin.url("/huge")) as response:
        await response.content.readexactly(10)
        os.truncate(body_files(directory)[0], 4_000_000)
        with pytest.raises(ClientPayloadError):
            await response.read()
    async with session.get(origin.url("/huge")) as response:
        assert len(await response.read()) == 8_000_000


async def test_a_body_that_is_changed_while_it_is_read_ends_in_aiohttps_error(
    make: Make, origin: Origin, directory: Path
) -> None:
    """It has been verified, and is wrong from now on."""

    origin.text("/huge", bytes(8_000_000))
    session = make()
    async with session.get(origin.url("/huge")) as response:
        await response.read()
    await written(session)
    async with session.get(origin.url("/huge")) as response:
        assert await response.content.readexactly(10) == bytes(10)
        with body_files(directory)[0].open("r+b") as file:
            file.seek(7_000_000)
            file.write(b"?")
        with pytest.raises(ClientPayloadError):
            await response.read()
    async with session.get(origin.url("/huge")) as response:
        assert await response.read() == bytes(8_000_000)


async def test_a_body_that_was_verified_while_it_was_new_is_verified_again(
    make: Make, origin: Origin, directory: Path
) -> None:
    """What is changed within one step of the file system's time shows in no stamp."""
    session = make()
    await is_right(session, origin, "/large1")
    await written(session)
    (body,) = body_files(directory)
    assert await is_right(session, origin, "/large1")
    status = body.stat()
    content = body.read_bytes()
    with body.open("r+b") as file:
        file.write(bytes([content[0] ^ 1]))
    os.utime(body, ns=(status.st_atime_ns, status.st_mtime_ns))
    store = get_cache(session)._core.store
    assert isinstance(store, DiskStore)
    for identifier, stamp in store._bodies._verified.items():
        now = body.stat()
        store._bodies._verified[identifier] = stamp._replace(change_time=now.st_ctime_ns)  # as within one step
    assert not await is_right(session, origin, "/large1")


async def test_one_flipped_bit_anywhere_in_a_record_makes_it_a_miss_and_leaves_the_others(
    make: Make, origin: Origin, directory: Path
) -> None:
    session = make()
    for path in PATHS:
        await is_right(session, origin, path)
    await session.close()
    ((key, record),) = execute(directory, "SELECT key, value FROM Cache WHERE mode = 1 ORDER BY rowid LIMIT 1")
    for position in sorted({*range(30), *range(30, len(record), 41), len(record) - 1}):
        changed = bytearray(record)
        changed[position] ^= 1 << position % 8
        execute(directory, "UPDATE Cache SET value = ? WHERE key = ?", bytes(changed), key)
        session = make()
        report = await get_cache(session).verify()
        assert report.damaged == (key,)
        assert not await is_right(session, origin, PATHS[0])
        assert await is_right(session, origin, PATHS[1])
        await session.close()


async def test_a_damaged_database_is_set_aside_once_under_a_name_that_says_so(
    make: Make, origin: Origin, directory: Path
) -> None:
    for damaged in range(3):
        session = make()
        await is_right(session, origin, "/1")
        assert await is_right(session, origin, "/1")
        await session.close()
        assert len(list(directory.glob("bad-*"))) == min(damaged, 1)
        replace_by_text(database_of(directory))


async def test_several_sessions_set_a_damaged_store_aside_once(make: Make, origin: Origin, directory: Path) -> None:
    # With other bounds they are other stores, as those of other processes are.
    sessions = [make(max_size=(number + 1) * 2**30) for number in range(4)]
    assert len({id(get_cache(session)._core.store) for session in sessions}) == 4
    for session in sessions:
        await is_right(session, origin, "/1")
        await written(session)
    replace_by_text(database_of(directory))
    for _ in range(3):
        for session in sessions:
            for path in PATHS[:10]:
                await is_right(session, origin, path)
    await works_again(sessions[0], origin)
    token = (directory / "v1" / "token").read_bytes()
    for session in sessions:
        await works_again(session, origin)
    await is_right(sessions[0], origin, "/150")
    await written(sessions[0])
    assert all([await is_right(session, origin, "/150") for session in sessions])  # they are in one store again
    assert len(list(directory.glob("bad-*"))) == 1
    assert (directory / "v1" / "token").read_bytes() == token  # nobody set aside what came in its place


MEETING_DAMAGE = """
gate, opened = os.pipe()
there, here = os.pipe()
children = []
for number in range(6):
    child = os.fork()
    if not child:
        os.close(opened)

        async def main():
            async with make_cached_session(directory, expire_after=3600) as session:
                if rest[0] == "running":
                    await get_cache(session).responses.count()
                os.write(here, b"!")
                os.read(gate, 1)  # until all are there
                for path in ["/1", "/2", f"/{number + 10}"]:
                    await fetch(session, path)
                await get_cache(session).responses.count()

        try:
            asyncio.run(main())
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    children.append(child)
for _ in children:
    os.read(there, 1)
if rest[0] == "running":
    with open(directory + "/v1/cache.db", "r+b") as file:
        file.write(b"this is no database\\n" * 1000)
os.close(opened)
assert {os.waitpid(child, 0)[1] for child in children} == {0}
"""


@pytest.mark.parametrize("damage", ["running", "text written over it", "emptied", "missing"])
async def test_processes_that_meet_a_damaged_store_at_once_set_it_aside_once(
    make: Make, origin: Origin, directory: Path, damage: str
) -> None:
    for _ in range(3):
        session = make()
        for path in PATHS[:20]:
            await is_right(session, origin, path)
        await session.close()
        shutil.rmtree(next(directory.glob("bad-*"), directory / "none"), ignore_errors=True)
        if damage != "running":
            DAMAGE[damage](database_of(directory))
        await run(MEETING_DAMAGE, directory, origin.url(""), damage, errors=None)
        set_aside = len(list(directory.glob("bad-*")))
        assert set_aside == 1 or (damage == "running" and set_aside == 0)  # the log may mend it
        session = make()
        # Whoever set aside what came in its place would have taken some of this along.
        assert await get_cache(session).responses.count() == 8 or set_aside == 0
        assert (await get_cache(session).verify()).ok
        await session.close()


TRUNCATED = """
async def main():
    async with make_cached_session(directory) as session:
        for number in range(100):
            await fetch(session, f"/{number}")
    # The log has gone into the database, which is read from now on; of how long it is, the next log tells.
    async with make_cached_session(directory) as session:
        await fetch(session, "/150")
        await get_cache(session).responses.count()
        assert (await fetch(session, "/1")).from_cache
        os.truncate(directory + "/v1/cache.db", int(rest[0]))
        for number in range(100):
            await fetch(session, f"/{number}")

asyncio.run(main())
"""


@pytest.mark.parametrize("size", [0, 4096, 20_000])
async def test_a_database_that_is_truncated_while_it_is_read_kills_nobody(
    origin: Origin, directory: Path, size: int
) -> None:
    """It would, mapped into memory: by SIGBUS."""
    await run(TRUNCATED, directory, origin.url(""), str(size), errors=None)


async def test_verify_finds_and_repair_removes_what_belongs_to_nothing(
    make: Make, origin: Origin, directory: Path
) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await is_right(session, origin, "/large1")
    await written(session)
    (body,) = body_files(directory)
    orphan = body.with_name("0" * 30 + ".body")
    shutil.copy(body, orphan)
    assert (await get_cache(session).verify()).ok  # it might be arriving
    os.utime(orphan, (0, 0))
    name = orphan.relative_to(directory / "v1").as_posix()
    assert (await get_cache(session).verify()).orphans == (name,)
    report = await get_cache(session).verify(repair=True)
    assert (report.orphans, report.damaged, report.repaired, report.entries) == ((name,), (), True, 2)
    assert (await get_cache(session).verify()).ok
    assert body_files(directory) == [body]
    assert await is_right(session, origin, "/large1")


async def test_a_store_that_was_full_when_it_was_damaged_keeps_as_much_again(
    make: Make, origin: Origin, directory: Path
) -> None:
    """What is set aside counts for the size, and must not leave hardly any room for anything else."""
    origin.text("/many", "x" * 3000)
    kept = []
    for _ in range(3):
        session = make(max_size=2_000_000)
        for number in range(600):
            await ask(session, origin.url(f"/many?{number}"))
        await written(session)
        kept.append(await get_cache(session).responses.count())
        await session.close()
        if len(kept) == 1:
            overwrite(0, 0.01, b"garbage!")(database_of(directory))
    assert min(kept) > 0.9 * max(kept) > 100
