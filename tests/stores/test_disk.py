"""What the disk store promises beyond the contract: room, other processes, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import pytest

from aiohttp_cache_middleware._errors import StoreError
from aiohttp_cache_middleware._model import BodyRef, StoredResponse
from aiohttp_cache_middleware._stores import BodyReader, DiskStore, _bodies, _verified
from aiohttp_cache_middleware._stores import _database as database_module
from aiohttp_cache_middleware._stores import _queue as queue_module
from aiohttp_cache_middleware._stores._bodies import BodyFile, DiskBodyReader, Stamp, body_name, open_body_file
from aiohttp_cache_middleware._stores._queue import Change
from aiohttp_cache_middleware._stores._records import Records
from aiohttp_cache_middleware._stores._tier import Marks

from .samples import T0, Clock, a_response, key_of

MIB = 1024 * 1024
Make = Callable[..., DiskStore]


def put(store: DiskStore, number: int, **changes: object) -> bool:
    return store.put(key_of(number), a_response(number, **changes), tag="tag")


async def present(store: DiskStore, numbers: range) -> list[int]:
    return [number for number in numbers if await store.get(key_of(number)) is not None]


def disk_stamp(store: DiskStore, body: BodyRef) -> Stamp:
    return Stamp.of((store._opening.home() / body_name(body.id)).stat())


def start(directory: Path, code: str) -> subprocess.Popen[str]:
    """Start another process that has a `store` on *directory*."""
    head = f"""
        import asyncio, os, sys
        from tests.stores.samples import a_response, key_of
        from aiohttp_cache_middleware._stores import DiskStore
        store = DiskStore({str(directory)!r}, max_size=None)
        def put(number, **changes):
            return store.put(key_of(number), a_response(number, **changes), tag="tag")
    """
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(code)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


def run(directory: Path, code: str) -> str:
    with start(directory, code) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return output.strip()


class TestRoom:
    async def test_the_limit_holds_with_everything_counted(self, make_disk_store: Make, directory: Path) -> None:
        limit = 8 * MIB
        store = make_disk_store(max_size=limit)
        for number in range(150):
            assert put(store, number, body=os.urandom(1000 * (number % 100)))
            if number % 10 == 0:
                assert put(store, 1000 + number, body=os.urandom(600_000))
            if number % 25 == 0:
                await store.flush()
                assert await store.volume() <= limit + 4 * MIB
        await store.flush()
        assert await store.volume() <= 1.1 * limit
        assert await store.volume() >= limit / 2
        assert (await store.verify()).ok

    async def test_the_oldest_goes_first(self, make_disk_store: Make, clock: Clock) -> None:
        store = make_disk_store(max_size=4 * MIB)
        for number in range(40):
            clock.advance(1)
            put(store, number, body=os.urandom(200_000))
            await store.flush()
        left = await present(store, range(40))
        assert left == list(range(40 - len(left), 40))
        assert 10 <= len(left) < 20

    async def test_what_is_useless_goes_before_what_is_old(self, make_disk_store: Make, clock: Clock) -> None:
        store = make_disk_store(max_size=4 * MIB)
        for number in range(10):
            clock.advance(1)
            entry = a_response(number, body=os.urandom(200_000), expires_time=T0 + 5)
            store.put(key_of(number), entry, tag="", is_kept_stale=number != 7)
        clock.advance(60)
        for number in range(10, 40):
            clock.advance(1)
            put(store, number, body=os.urandom(200_000))
            await store.flush()
            if (left := await present(store, range(10))) != list(range(10)):
                break
        assert left == [0, 1, 2, 3, 4, 5, 6, 8, 9]

    async def test_what_is_used_is_renewed_once_an_hour(self, make_disk_store: Make, clock: Clock) -> None:
        store = make_disk_store(max_size=4 * MIB)
        for number in range(10):
            clock.advance(1)
            put(store, number, body=os.urandom(200_000))
        await store.flush()
        clock.advance(3601)
        await store.get(key_of(0))
        for number in range(10, 20):
            clock.advance(1)
            put(store, number, body=os.urandom(200_000))
        await store.flush()
        left = await present(store, range(10))
        assert 0 in left
        assert 1 not in left

    async def test_no_more_goes_than_room_is_needed(self, make_disk_store: Make, clock: Clock) -> None:
        store = make_disk_store(max_size=8 * MIB)
        for number in range(200):
            clock.advance(1)
            put(store, number, body=os.urandom(100_000))
            await store.flush()
        before = await store.count()
        put(store, 1000, body=os.urandom(2_000_000))
        await store.flush()
        # 20 by their size; the log beside them takes its share, more or less of it.
        assert 15 <= before + 1 - await store.count() <= 32

    async def test_a_body_of_more_than_half_the_limit_is_refused_and_nothing_goes(self, make_disk_store: Make) -> None:
        store = make_disk_store(max_size=2 * MIB)
        put(store, 1)
        assert not put(store, 2, body=bytes(MIB + 1))
        spool = store.spool()
        spool.write(bytes(MIB + 1))
        assert not store.put(key_of(3), a_response(3), tag="tag", spool=spool)
        await store.flush()
        assert await present(store, range(5)) == [1]

    async def test_beyond_64_mib_waiting_nothing_more_is_accepted(
        self, make_disk_store: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queue_module, "QUEUE_LIMIT", MIB)
        store = make_disk_store()
        gate = threading.Event()
        store._lanes.writer.run(gate.wait)
        accepted = [put(store, number, body=bytes(200_000)) for number in range(10)]
        assert accepted == [True] * 5 + [False] * 5
        store.delete(key_of(0))
        gate.set()
        await store.flush()
        assert await present(store, range(10)) == [1, 2, 3, 4]
        assert put(store, 9)

    async def test_bodies_that_wait_for_their_files_count_too(
        self, make_disk_store: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queue_module, "QUEUE_LIMIT", 4 * MIB)
        store = make_disk_store()
        await store.secret()
        gate = threading.Event()
        store._lanes.files.run(gate.wait)
        for number in range(4):
            spool = store.spool()
            spool.write(bytes(MIB))
            accepted = store.put(key_of(number), a_response(number, body=b""), tag="tag", spool=spool)
            assert accepted is (number < 3)
        with pytest.raises(StoreError, match="too much waits"):
            store.spool()
        with pytest.raises(StoreError, match="too much waits"):
            put(store, 4, body=bytes(MIB))
        assert not put(store, 5)
        gate.set()
        await store.flush()
        assert await present(store, range(10)) == [0, 1, 2]
        assert put(store, 5, body=bytes(MIB))

    async def test_a_record_takes_little_more_than_its_response(self, make_disk_store: Make) -> None:
        store = make_disk_store()
        for number in range(500):
            put(store, number, body=os.urandom(2048))
        await store.aclose()
        assert await store.volume() < 500 * 2048 * 1.5 + 200_000


class TestProcesses:
    async def test_a_second_process_finds_what_the_first_stored(self, disk_store: DiskStore, directory: Path) -> None:
        put(disk_store, 1)
        put(disk_store, 2, body=bytes(MIB))
        await disk_store.flush()
        code = """
            async def main():
                assert await store.get(key_of(1)) == a_response(1)
                body = await store.open_body(key_of(2), (await store.get(key_of(2))).body)
                assert body.load() == bytes(1024 * 1024)
                body.close()
                print(await store.count())
            asyncio.run(main())
        """
        assert run(directory, code) == "2"

    async def test_another_process_changes_are_seen_at_once(self, disk_store: DiskStore, directory: Path) -> None:
        put(disk_store, 1)
        put(disk_store, 2)
        await disk_store.flush()
        for number in (1, 2, 3):
            await disk_store.get(key_of(number))
        run(directory, "put(1, status=203); put(3); store.delete(key_of(2)); asyncio.run(store.flush())")
        changed = await disk_store.get(key_of(1))
        assert isinstance(changed, StoredResponse)
        assert changed.status == 203
        assert await present(disk_store, range(5)) == [1, 3]
        run(directory, "asyncio.run(store.clear())")
        assert await present(disk_store, range(5)) == []

    async def test_a_commit_that_left_no_mark_is_seen_all_the_same(
        self, disk_store: DiskStore, directory: Path
    ) -> None:
        """As of a process that was killed in between."""
        put(disk_store, 1)
        await disk_store.flush()
        assert await disk_store.get(key_of(1)) == a_response(1)
        with contextlib.closing(sqlite3.connect(directory / "v1" / "cache.db")) as connection, connection:
            connection.execute("DELETE FROM Cache")
        disk_store._checked_time = 0.0
        assert await disk_store.get(key_of(1)) is None

    async def test_a_directory_that_another_process_made_anew_is_the_one_in_use(
        self, disk_store: DiskStore, directory: Path
    ) -> None:
        put(disk_store, 1)
        await disk_store.flush()
        shutil.rmtree(directory)
        run(directory, "put(2); asyncio.run(store.flush())")
        put(disk_store, 3)
        await disk_store.flush()
        assert await present(disk_store, range(5)) == [2, 3]
        assert run(directory, "print(asyncio.run(store.get(key_of(3))) == a_response(3))") == "True"

    def test_what_was_accepted_survives_the_interpreters_end(self, directory: Path, make_disk_store: Make) -> None:
        run(directory, "put(1); put(2, body=bytes(1_000_000))")
        store = make_disk_store()
        assert asyncio.run(store.count()) == 2
        assert asyncio.run(store.verify()).ok

    def test_what_was_accepted_survives_the_loops_end(self, directory: Path, make_disk_store: Make) -> None:
        code = """
            async def main():
                await store.get(key_of(1))
                put(1)
            asyncio.run(main())
            assert asyncio.run(store.get(key_of(1))) == a_response(1)
        """
        run(directory, code)
        assert asyncio.run(make_disk_store().count()) == 1

    def test_what_was_accepted_survives_a_store_that_is_forgotten(self, directory: Path, make_disk_store: Make) -> None:
        run(directory, "put(1); put(2, body=bytes(1_000_000)); del store")
        store = make_disk_store()
        assert asyncio.run(store.count()) == 2
        assert asyncio.run(store.verify()).ok

    def test_an_unclosed_store_that_is_forgotten_leaves_no_warning(self, directory: Path) -> None:
        code = """
            import gc, threading
            async def main():
                put(1)
                await store.flush()
                await store.get(key_of(1))
            asyncio.run(main())
            del store
            gc.collect()
        """
        run(directory, code)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_and_its_parent_both_go_on(self, directory: Path, make_disk_store: Make) -> None:
        code = """
            async def use(number):
                assert await store.get(key_of(1)) == a_response(1)
                put(number)
                put(number + 10, body=bytes(1_000_000))
                await store.flush()
            put(1)
            asyncio.run(use(2))
            child = os.fork()
            asyncio.run(use(3 if child else 4))
            if child:
                assert os.waitpid(child, 0)[1] == 0
                assert asyncio.run(store.get(key_of(4))) == a_response(4)
            else:
                store.close_now()
                os._exit(0)
        """
        run(directory, code)
        store = make_disk_store()
        assert asyncio.run(present(store, range(20))) == [1, 2, 3, 4, 12, 13, 14]
        assert asyncio.run(store.verify()).ok

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_keeps_what_it_stores_though_its_parent_closes(
        self, directory: Path, make_disk_store: Make
    ) -> None:
        """SQLite would have the parent remove the log, with a child that only seems to have its own locks."""
        code = """
            put(1)
            asyncio.run(store.flush())
            asyncio.run(store.get(key_of(1)))
            told, may_go_on = os.pipe(), os.pipe()
            child = os.fork()
            if child:
                os.read(told[0], 1)
                asyncio.run(store.aclose())
                os.write(may_go_on[1], b"x")
                assert os.waitpid(child, 0)[1] == 0
            else:
                put(2)
                asyncio.run(store.flush())
                os.write(told[1], b"x")
                os.read(may_go_on[0], 1)
                put(3)
                asyncio.run(store.flush())
                os._exit(0)
        """
        run(directory, code)
        store = make_disk_store()
        assert asyncio.run(present(store, range(5))) == [1, 2, 3]
        assert asyncio.run(store.verify()).ok

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.parametrize("lane", ["writer", "files", "opener"])
    def test_a_fork_waits_for_what_a_thread_is_at(self, lane: str, directory: Path) -> None:
        code = f"""
            import threading, time
            begun, ended = threading.Event(), threading.Event()
            def work():
                begun.set()
                time.sleep(0.1)  # time for the fork to come too early
                ended.set()
            store._lanes.{lane}.run(work)
            begun.wait()
            child = os.fork()
            if not child:
                os._exit(0 if ended.is_set() else 1)
            assert os.waitpid(child, 0)[1] == 0
            put(1)
            asyncio.run(store.flush())
        """
        run(directory, code)

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
    async def test_a_killed_writer_damages_nothing(self, directory: Path, make_disk_store: Make) -> None:
        code = """
            store.put("0" * 40, a_response(), tag="tag")
            asyncio.run(store.flush())
            print("ready", flush=True)
            for number in range(1_000_000):
                put(number % 50, body=os.urandom(400_000 if number % 5 == 0 else 2_000))
                if number % 20 == 0:
                    asyncio.run(store.flush())
        """
        for _ in range(3):
            with start(directory, code) as process:
                assert process.stdout is not None
                process.stdout.readline()
                process.send_signal(signal.SIGKILL)
        store = make_disk_store()
        assert (await store.verify()).damaged == ()
        assert await store.count() >= 1

    async def test_a_claim_ends_when_others_can_see_what_was_accepted(
        self, disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await disk_store.secret()
        go_on = threading.Event()
        disk_store._lanes.writer.run(go_on.wait)
        seen: list[tuple[str, bool]] = []
        monkeypatch.setattr(
            disk_store._leases, "unclaim", lambda key: seen.append((key, key_of(1) in disk_store._pending))
        )
        put(disk_store, 1)
        disk_store.unclaim(key_of(1))
        assert seen == []
        go_on.set()
        await disk_store.flush()
        disk_store.unclaim(key_of(2))  # there is nothing to wait for
        assert seen == [(key_of(1), False), (key_of(2), False)]

    async def test_a_claim_keeps_other_processes_from_asking_too(self, disk_store: DiskStore, directory: Path) -> None:
        await disk_store.secret()
        ask = "print(store.claim(key_of(1)), store.claim(key_of(2)))"
        assert disk_store.claim(key_of(1))
        assert run(directory, ask) == "False True"
        disk_store.unclaim(key_of(1))
        assert run(directory, ask) == "True True"

    @pytest.mark.slow
    async def test_many_processes_may_begin_at_once(self, directory: Path, make_disk_store: Make) -> None:
        code = (
            "number = int(sys.stdin.readline())\nfor n in range(20): put(number * 100 + n)\nasyncio.run(store.flush())"
        )
        processes = [start(directory, code) for _ in range(4)]
        for number, process in enumerate(processes):
            assert process.stdin is not None
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
        for process in processes:
            with process:
                assert process.wait(30) == 0
        assert await make_disk_store().count() == 80


class TestLocks:
    async def test_reads_go_on_and_writes_wait_while_another_process_writes(
        self, disk_store: DiskStore, directory: Path
    ) -> None:
        put(disk_store, 1)
        await disk_store.flush()
        other = sqlite3.connect(directory / "v1" / "cache.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        put(disk_store, 2)
        assert await disk_store.get(key_of(1)) == a_response(1)
        assert await disk_store.get(key_of(2)) == a_response(2)
        assert await disk_store.get(key_of(3)) is None
        flushing = asyncio.ensure_future(disk_store.flush())
        await asyncio.sleep(0.05)
        assert not flushing.done()
        other.execute("ROLLBACK")
        other.close()
        await flushing
        assert await disk_store.count() == 2

    async def test_reading_holds_no_lock_and_leaves_no_write(self, disk_store: DiskStore, directory: Path) -> None:
        put(disk_store, 1)
        await disk_store.flush()
        log = directory / "v1" / "cache.db-wal"
        before = log.stat().st_mtime_ns, log.stat().st_size
        for _ in range(10):
            await disk_store.get(key_of(1))
            await disk_store.get(key_of(2))
        assert (log.stat().st_mtime_ns, log.stat().st_size) == before

    async def test_tagged_finds_what_is_committed_while_it_reads(
        self, disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await disk_store.secret(patient=True)
        put(disk_store, 1)
        await disk_store.flush()
        database = disk_store._opening.database
        assert database is not None
        tagged, writer = database.reader.tagged, disk_store._lanes.writer

        def tagged_before_the_commit(tag: str) -> list[str]:
            keys = tagged(tag)
            writer.resume()
            while disk_store._pending:
                time.sleep(0.001)
            return keys

        monkeypatch.setattr(database.reader, "tagged", tagged_before_the_commit)
        assert writer.pause(10)
        put(disk_store, 2)
        disk_store.delete(key_of(1))
        assert await disk_store.tagged("tag") == [key_of(2)]


class TestBodies:
    async def test_small_bodies_make_no_files(self, disk_store: DiskStore, directory: Path) -> None:
        put(disk_store, 1, body=bytes(256 * 1024))
        await disk_store.flush()
        assert list(directory.glob("v1/bodies/*/*")) == []

    async def test_no_file_outlives_its_entry(self, disk_store: DiskStore, directory: Path) -> None:
        def files() -> int:
            return len([*directory.glob("v1/bodies/*/*"), *directory.glob("v1/spool/*")])

        put(disk_store, 1, body=bytes(MIB))
        await disk_store.flush()
        assert files() == 1
        put(disk_store, 1, body=bytes(MIB))
        put(disk_store, 2, body=bytes(MIB))
        await disk_store.flush()
        assert files() == 2
        put(disk_store, 1, body=b"small")
        disk_store.delete(key_of(2))
        disk_store.spool().write(bytes(MIB))
        await disk_store.flush()
        await disk_store.aclose()
        assert files() == 0

    async def test_a_spool_that_cannot_be_written_is_refused_and_leaves_the_older_entry(
        self, disk_store: DiskStore, directory: Path
    ) -> None:
        put(disk_store, 1)
        await disk_store.flush()
        (directory / "v1" / "spool").rmdir()
        (directory / "v1" / "spool").touch()
        spool = disk_store.spool()
        spool.write(bytes(3 * MIB))
        await spool.drain()
        spool.write(bytes(3 * MIB))
        await spool.drain()
        with pytest.raises(StoreError):
            spool.load()
        disk_store.put(key_of(1), a_response(1, status=203), tag="tag", spool=spool)
        with pytest.raises(StoreError):
            await disk_store.flush()
        assert await disk_store.get(key_of(1)) == a_response(1)

    async def test_a_body_that_arrives_while_files_are_measured_is_not_taken_for_left_over(
        self, disk_store: DiskStore, directory: Path, make_disk_store: Make
    ) -> None:
        put(disk_store, 1, body=bytes(MIB))
        await disk_store.flush()
        spool = disk_store.spool()
        spool.write(bytes(3 * MIB))
        await spool.drain()
        left = directory / "v1" / "bodies" / "ab" / f"{'0' * 30}.body"
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(bytes(MIB))
        for path, others in ((left, 0), (None, MIB)):
            if path is None:
                os.utime(left, (time.time() - 90, time.time() - 90))
            (directory / "v1" / "swept").unlink()
            store = make_disk_store()
            put(store, 2)
            await store.aclose()
            assert others <= int((directory / "v1" / "swept").read_bytes()) < others + MIB // 2
        spool.discard()

    async def test_what_counts_as_left_over_is_looked_at_again(
        self, make_disk_store: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may have been arriving; and what is left over indeed has to go then, in a process that stays."""
        store = make_disk_store()
        put(store, 1)
        await store.flush()
        left = directory / "v1" / "bodies" / "ab" / f"{'0' * 30}.body"
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(bytes(MIB))
        os.utime(left, (time.time() - 90, time.time() - 90))
        database = store._opening.database
        assert database is not None
        database._swept_time = 0.0
        (directory / "v1" / "swept").unlink()
        put(store, 2)
        await store.flush()
        assert left.exists()
        assert database.other_bytes >= MIB
        now = time.time() + 121
        monkeypatch.setattr(time, "time", lambda: now)
        put(store, 3)
        await store.flush()
        assert not left.exists()
        assert database.other_bytes < MIB

    async def test_what_a_killed_process_left_is_swept(
        self, disk_store: DiskStore, directory: Path, make_disk_store: Make
    ) -> None:
        put(disk_store, 1, body=bytes(MIB))
        await disk_store.aclose()
        (known,) = directory.glob("v1/bodies/*/*")
        (folder := directory / "v1" / "bodies" / "ab").mkdir(exist_ok=True)
        left = [folder / f"{'0' * 30}.body", directory / "v1" / "spool" / "1.part"]
        young, foreign = folder / f"{'1' * 30}.body", [folder / "notes.txt", folder / "notes.body"]
        for path in (*left, young, *foreign):
            path.write_bytes(b"?")
        for path in (*left, known, *foreign):
            os.utime(path, (0, 0))
        (directory / "v1" / "swept").unlink()
        report = await disk_store.verify()
        assert set(report.orphans) == {path.relative_to(directory / "v1").as_posix() for path in left}
        put(make_disk_store(), 2)
        await make_disk_store().verify()
        store = make_disk_store()
        put(store, 3)
        await store.flush()
        assert [path for path in (*left, known, young, *foreign) if path.exists()] == [known, young, *foreign]
        assert (await store.verify()).ok

    async def test_what_a_killed_process_left_goes_though_another_has_swept_before_its_time(
        self, disk_store: DiskStore, directory: Path
    ) -> None:
        """Its spool tells that it was killed; a body of it goes two minutes later, not with the next day's sweep."""
        put(disk_store, 1)
        await disk_store.flush()
        database = disk_store._opening.database
        assert database is not None
        (folder := directory / "v1" / "bodies" / "ab").mkdir()
        left = [directory / "v1" / "spool" / "1.part", folder / f"{'0' * 30}.body"]
        for path in left:
            path.write_bytes(b"?")
            os.utime(path, (0, 0))
        for seconds_ago in (60, 121):  # since the last sweep, whoever made it
            os.utime(directory / "v1" / "swept", (time.time() - seconds_ago,) * 2)
            database._swept_time, database._next_look = 0.0, 0.0
            put(disk_store, 2)
            await disk_store.flush()
            assert [path.exists() for path in left] == [False, seconds_ago == 60]

    @pytest.mark.parametrize("how", ["swept", "repaired"])
    async def test_a_body_without_record_goes(
        self, disk_store: DiskStore, directory: Path, make_disk_store: Make, how: str
    ) -> None:
        put(disk_store, 1, body=bytes(MIB))
        put(disk_store, 2)
        await disk_store.aclose()
        with contextlib.closing(sqlite3.connect(directory / "v1" / "cache.db")) as connection, connection:
            connection.execute("DELETE FROM Cache WHERE key = ?", (key_of(1),))
        (body,) = directory.glob("v1/bodies/*/*")
        store = make_disk_store()
        assert (await store.verify()).orphans == (body.relative_to(directory / "v1").as_posix(),)
        if how == "swept":
            (directory / "v1" / "swept").unlink()
            put(store, 3)
            await store.flush()
        else:
            await store.verify(repair=True)
        assert (await store.verify()).ok
        assert not body.exists()

    async def test_a_planted_reference_opens_nothing_elsewhere(self, disk_store: DiskStore, directory: Path) -> None:
        reference = BodyRef("../../../secret", 10)
        seal = crc32(f"{reference.id}\n".encode() + bytes(10)).to_bytes(32, "big")
        (directory.parent / "secret.body").write_bytes(bytes(10) + seal)
        await disk_store.secret()
        assert await disk_store.open_body(key_of(1), reference) is None


class TestFilesOfOthers:
    """What the program itself has open is nobody's business here."""

    @pytest.mark.parametrize("what", ["change", "change_all"])
    def test_marks_that_are_closed_under_a_change_write_into_no_other_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        """Its descriptor's number goes to the next file that the program opens."""
        Marks.create(tmp_path / "marks")
        marks = Marks(tmp_path / "marks")
        opened: list[BinaryIO] = []

        def close_and_open(size: int) -> bytes:
            if not opened:
                marks.close()
                opened.extend((tmp_path / f"file {number}").open("wb") for number in range(10))
            return bytes(size)

        monkeypatch.setattr("secrets.token_bytes", close_and_open)
        marks.change(["a", "b"]) if what == "change" else marks.change_all()
        for file in opened:
            file.close()
            assert Path(file.name).read_bytes() == b""
        with pytest.raises(OSError, match="closed"):
            marks.change(["a"])

    async def test_a_body_that_can_not_be_opened_just_now_stays(
        self, disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(disk_store, 1, body=bytes(MIB))
        await disk_store.flush()
        entry = await disk_store.get(key_of(1))
        assert isinstance(entry, StoredResponse)
        assert isinstance(entry.body, BodyRef)

        def no_more_files(path: Path, flags: int = 0) -> int:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(_bodies, "open_private", no_more_files)
            with pytest.raises(StoreError, match="Too many open files"):
                await disk_store.open_body(key_of(1), entry.body)
            with pytest.raises(StoreError):
                await disk_store.verify(repair=True)
        assert (await disk_store.verify()).entries == 1
        reader = await disk_store.open_body(key_of(1), entry.body)
        assert reader is not None
        reader.close()

    @pytest.mark.filterwarnings("error")
    async def test_a_reader_that_nobody_takes_closes_without_a_complaint(self, disk_store: DiskStore) -> None:
        put(disk_store, 1, body=bytes(MIB))
        await disk_store.flush()
        entry = await disk_store.get(key_of(1))
        assert isinstance(entry, StoredResponse)
        assert isinstance(entry.body, BodyRef)
        for _ in range(3):
            reader = await disk_store.open_body(key_of(1), entry.body)
            cycle: list[object] = [reader]
            cycle.append(cycle)
            del reader, cycle
            asking = asyncio.ensure_future(disk_store.open_body(key_of(1), entry.body))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            del asking
        await disk_store.flush()
        gc.collect()


class TestReadingLargeBodies:
    """From memory where the system has them there, from the disk in a thread otherwise."""

    @staticmethod
    async def opened(store: DiskStore, body: bytes) -> DiskBodyReader:
        put(store, 1, body=body)
        await store.flush()
        entry = await store.get(key_of(1))
        assert isinstance(entry, StoredResponse)
        assert isinstance(entry.body, BodyRef)
        reader = await store.open_body(key_of(1), entry.body)
        assert isinstance(reader, DiskBodyReader)
        return reader

    @staticmethod
    async def pieces(reader: DiskBodyReader, size: int) -> list[bytes]:
        pieces = []
        while piece := await reader.read(size):
            pieces.append(piece)
        return pieces

    @pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system tells nobody what it has in memory")
    async def test_what_the_system_has_in_memory_needs_no_thread(self, disk_store: DiskStore) -> None:
        body = os.urandom(MIB + 5)
        reader = await self.opened(disk_store, body)
        with contextlib.closing(reader):
            first = reader.read(1000)
            assert first.done()
            assert b"".join([await first, *await self.pieces(reader, 100_000)]) == body

    @pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system tells nobody what it has in memory")
    async def test_the_loop_waits_for_no_disk(self, disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
        body = os.urandom(MIB)
        reader = await self.opened(disk_store, body)
        asked: list[int] = []

        def would_have_to_wait(descriptor: int, buffers: object, offset: int, flags: int = 0) -> int:
            asked.append(flags)
            raise BlockingIOError

        monkeypatch.setattr(os, "preadv", would_have_to_wait)
        with contextlib.closing(reader):
            first = reader.read(1000)
            assert not first.done()
            assert await first == body[:1000]
        assert asked == [os.RWF_NOWAIT]

    async def test_a_piece_of_any_size_comes_in_one(self, disk_store: DiskStore) -> None:
        """Joining several takes four times as long as reading one."""
        body = os.urandom(3 * MIB)
        reader = await self.opened(disk_store, body)
        with contextlib.closing(reader):
            assert await reader.read(2 * MIB) == body[: 2 * MIB]
            assert await reader.read(64 * MIB) == body[2 * MIB :]

    @pytest.mark.parametrize("how", ["dropped from memory", "unknown to the system", "in use", "told of no byte"])
    async def test_every_other_way_gives_the_same(
        self, disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        body = os.urandom(MIB + 5)
        reader = await self.opened(disk_store, body)
        with contextlib.closing(reader):
            first = b""
            match how:
                case "dropped from memory" if hasattr(os, "posix_fadvise"):
                    os.fsync(reader._file.fileno())
                    os.posix_fadvise(reader._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                case "unknown to the system":
                    monkeypatch.setattr(_bodies, "_CAN_READ_NOWAIT", False)
                case "in use":
                    reader._moving.acquire()
                    reading = reader.read(1000)
                    assert not reading.done()
                    reader._moving.release()
                    first = await reading
                case _:  # as some versions of Linux told the end of a file that was not in memory
                    monkeypatch.setattr(os, "preadv", lambda *arguments: 0, raising=False)
            assert b"".join([first, *await self.pieces(reader, 100_000)]) == body

    async def test_reading_and_loading_do_not_disturb_each_other(self, disk_store: DiskStore) -> None:
        body = os.urandom(MIB + 5)
        reader = await self.opened(disk_store, body)
        with contextlib.closing(reader):
            first = await reader.read(1000)
            assert reader.load() == body
            assert b"".join([first, *await self.pieces(reader, 300_000)]) == body

    async def test_a_body_that_is_closed_under_a_read_is_read_from_no_other_file(
        self, disk_store: DiskStore, tmp_path: Path
    ) -> None:
        """Its descriptor's number goes to the next file that the program opens."""
        body = os.urandom(MIB)
        reader = await self.opened(disk_store, body)
        (tmp_path / "other").write_bytes(bytes(MIB))
        opened: list[BinaryIO] = []

        class ClosedMeanwhile(FileIO):
            def read(self, *arguments: Any) -> bytes:
                reader.close()
                opened.extend((tmp_path / "other").open("rb") for _ in range(10))
                return super().read(*arguments) or b""

        reader._file = ClosedMeanwhile(reader._file.fileno(), "rb", closefd=False)
        assert await reader.read(MIB) == body
        for file in opened:
            file.close()

    async def test_the_thread_and_whoever_loads_never_move_the_file_at_the_same_time(
        self, disk_store: DiskStore
    ) -> None:
        body = os.urandom(MIB)
        reader = await self.opened(disk_store, body)
        moved: list[bool] = []

        class Watched(FileIO):
            def seek(self, *arguments: Any) -> int:
                moved.append(reader._moving.locked())
                return super().seek(*arguments)

            def read(self, *arguments: Any) -> bytes:
                moved.append(reader._moving.locked())
                return super().read(*arguments) or b""

        with contextlib.closing(reader):
            reader._file = Watched(reader._file.fileno(), "rb", closefd=False)
            assert await reader.read(MIB) == reader.load() == body
        assert moved == [True] * len(moved) != []

    @pytest.mark.parametrize("what", ["reading", "loading"])
    async def test_a_disk_that_fails_is_the_stores_failure(self, disk_store: DiskStore, what: str) -> None:
        reader = await self.opened(disk_store, os.urandom(MIB))

        class Failing(FileIO):
            def read(self, *_: object) -> bytes:
                raise OSError(5, "Input/output error")

        with contextlib.closing(reader):
            reader._file = Failing(reader._file.fileno(), "rb", closefd=False)
            with pytest.raises(StoreError, match="Input/output error"):
                await reader.read(MIB) if what == "reading" else reader.load()

    @pytest.mark.parametrize("size", [1000, 300_000], ids=["from memory", "by the thread"])
    @pytest.mark.parametrize("is_cut", [False, True])
    async def test_a_body_that_was_changed_meanwhile_or_closed_is_not_read_on(
        self, disk_store: DiskStore, directory: Path, size: int, is_cut: bool
    ) -> None:
        reader = await self.opened(disk_store, os.urandom(MIB))
        await reader.read(size)
        (path,) = directory.glob("v1/bodies/*/*")
        status = path.stat()
        if is_cut:
            os.truncate(path, 900_000)
        os.utime(path, ns=(1, status.st_mtime_ns if is_cut else 1))
        with pytest.raises(StoreError, match="changed"):
            await reader.read(size)
        reader.close()
        with pytest.raises(StoreError, match="closed"):
            await reader.read(size)


class TestWritingLargeBodies:
    async def test_a_disk_that_takes_less_at_a_time_than_it_is_given_gets_the_rest(
        self, disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write_some(descriptor: int, pieces: Sequence[bytes]) -> int:
            return os.write(descriptor, b"".join(pieces)[:1000])

        monkeypatch.setattr(os, "writev", write_some, raising=False)
        body = os.urandom(3 * MIB)
        put(disk_store, 1, body=body)
        await disk_store.flush()
        entry = await disk_store.get(key_of(1))
        assert isinstance(entry, StoredResponse)
        assert isinstance(entry.body, BodyRef)
        assert disk_store.load_body(key_of(1), entry.body) == body


class TestVerifyingLargeBodies:
    """Whoever opens a large body has it verified, and all who open it meanwhile share that."""

    @pytest.fixture
    async def body(self, disk_store: DiskStore) -> BodyRef:
        put(disk_store, 1, body=os.urandom(MIB))
        await disk_store.flush()
        entry = await disk_store.get(key_of(1))
        assert isinstance(entry, StoredResponse)
        assert isinstance(entry.body, BodyRef)
        return entry.body

    @pytest.fixture
    def verifying(self, monkeypatch: pytest.MonkeyPatch) -> list[Future[bool]]:
        """What has begun; each ends when the test says so."""
        begun: list[Future[bool]] = []

        def verify(*_: object) -> Future[bool]:
            begun.append(Future())
            return begun[-1]

        monkeypatch.setattr(DiskBodyReader, "verify", verify)
        return begun

    @staticmethod
    async def opening(store: DiskStore, body: BodyRef, count: int) -> list[asyncio.Task[BodyReader | None]]:
        """Have tasks open *body* until all of them wait for what comes of verifying it."""

        def waiting() -> int:
            return sum(one.waiting for one in store._bodies._verifying.values())

        before = waiting()
        tasks = [asyncio.ensure_future(store.open_body(key_of(1), body)) for _ in range(count)]
        for _ in range(5000):
            if waiting() == before + count:
                break
            await asyncio.sleep(0.001)
        assert waiting() == before + count
        return tasks

    @staticmethod
    async def are_open(tasks: list[asyncio.Task[BodyReader | None]]) -> bool:
        readers = [reader for reader in await asyncio.gather(*tasks) if reader is not None]
        for reader in readers:
            reader.close()
        return len(readers) == len(tasks) == len(set(map(id, readers)))

    async def test_a_disk_that_fails_meanwhile_is_no_wrong_body(
        self, disk_store: DiskStore, body: BodyRef, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> bool | None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(DiskBodyReader, "check_some", fail)
            with pytest.raises(StoreError, match="Input/output error"):
                await disk_store.open_body(key_of(1), body)
        assert await disk_store.get(key_of(1)) is not None
        reader = await disk_store.open_body(key_of(1), body)
        assert reader is not None
        reader.close()

    @pytest.mark.impatient
    async def test_a_disk_that_hardly_moves_is_not_waited_for(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]]
    ) -> None:
        (task,) = await self.opening(disk_store, body, 1)
        (verification,) = disk_store._bodies._verifying.values()
        for _ in range(500):
            if task.done():
                break
            verification.reader._position += 1
            await asyncio.sleep(0.01)
        assert task.done()
        assert isinstance(task.exception(), StoreError)
        assert verifying[0].cancelled()

    async def test_others_have_their_turn_while_a_body_is_verified(
        self, disk_store: DiskStore, body: BodyRef, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader = await disk_store.open_body(key_of(1), body)
        assert isinstance(reader, DiskBodyReader)
        done: list[str] = []

        def check_some(*_: object) -> bool | None:
            done.append("a part")
            return True if len(done) > 3 else None

        monkeypatch.setattr(DiskBodyReader, "check_some", check_some)
        go_on = threading.Event()
        disk_store._lanes.files.run(go_on.wait)
        verifying = reader.verify([])
        disk_store._lanes.files.run(lambda: done.append("another job"))
        go_on.set()
        assert await asyncio.wrap_future(verifying)
        assert done == ["a part", "another job", "a part", "a part"]
        reader.close()

    async def test_nothing_more_is_hashed_that_nobody_waits_for(
        self, disk_store: DiskStore, body: BodyRef, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader = await disk_store.open_body(key_of(1), body)
        assert isinstance(reader, DiskBodyReader)
        parts: list[int] = []
        monkeypatch.setattr(DiskBodyReader, "check_some", lambda *_: parts.append(1))  # there is always more
        verifying = reader.verify([])
        while not parts:
            await asyncio.sleep(0.001)
        verifying.cancel()
        for _ in range(2):
            before = len(parts)
            await asyncio.wrap_future(disk_store._lanes.files.submit(lambda: None))
        assert len(parts) == before
        reader.close()

    async def test_many_who_open_one_at_once_have_it_verified_once(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]]
    ) -> None:
        tasks = await self.opening(disk_store, body, 50)
        assert len(verifying) == 1
        verifying[0].set_result(True)
        assert await self.are_open(tasks)
        assert disk_store._bodies._verifying == {}

    async def test_many_who_open_a_wrong_one_at_once_all_get_none(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]]
    ) -> None:
        while time.time_ns() - disk_stamp(disk_store, body).change_time <= _verified._STEP:
            await asyncio.sleep(0.01)
        tasks = await self.opening(disk_store, body, 3)
        verifying[0].set_result(False)
        assert await asyncio.gather(*tasks) == [None] * 3
        assert await disk_store.get(key_of(1)) is None
        assert disk_store._bodies._verified == {}

    async def test_who_gives_up_leaves_the_others_what_he_began(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]]
    ) -> None:
        first = await self.opening(disk_store, body, 1)
        others = await self.opening(disk_store, body, 2)
        first[0].cancel()
        await asyncio.wait(first)
        verifying[0].set_result(True)
        assert await self.are_open(others)
        assert len(verifying) == 1

    async def test_the_last_who_gives_up_ends_it(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]]
    ) -> None:
        tasks = await self.opening(disk_store, body, 2)
        for task in tasks:
            assert not verifying[0].cancelled()
            task.cancel()
            await asyncio.wait([task])
        assert verifying[0].cancelled()
        tasks = await self.opening(disk_store, body, 1)
        verifying[1].set_result(True)
        assert await self.are_open(tasks)

    async def test_nobody_joins_what_is_over(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]]
    ) -> None:
        tasks = await self.opening(disk_store, body, 1)
        (verification,) = disk_store._bodies._verifying.values()
        verification.waiting += 1  # in another thread's loop, which has not heard of it yet
        verifying[0].set_result(True)
        assert await self.are_open(tasks)
        tasks = [asyncio.ensure_future(disk_store.open_body(key_of(1), body))]
        for _ in range(5000):
            if len(verifying) == 2:
                break
            await asyncio.sleep(0.001)
        verifying[1].set_result(True)
        assert await self.are_open(tasks)

    async def test_a_lookup_that_the_collector_ends_in_the_middle_of_another_waits_for_nothing(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]]
    ) -> None:
        """Its end takes the lock that the thread may hold just then."""
        reader = open_body_file(disk_store._opening.home(), body.id, body.size, disk_store._lanes.files)
        assert reader is not None
        abandoned = disk_store._bodies._verify(reader, body)
        abandoned.send(None)
        joining = disk_store._bodies._joining
        with joining:
            assert joining.acquire(blocking=False)  # or what follows would never end
            joining.release()
            abandoned.close()
        assert verifying[0].cancelled()
        reader.close()

    async def test_what_has_been_changed_since_is_verified_anew(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]], directory: Path
    ) -> None:
        before = await self.opening(disk_store, body, 1)
        (path,) = directory.glob("v1/bodies/*/*")
        os.utime(path, ns=(1, 1))
        since = await self.opening(disk_store, body, 1)
        verifying[0].set_result(True)
        verifying[1].set_result(False)
        assert await self.are_open(before)
        assert await asyncio.gather(*since) == [None]

    @pytest.mark.parametrize("is_new", [True, False])
    async def test_only_what_was_verified_when_it_was_no_longer_new_is_remembered(
        self, disk_store: DiskStore, body: BodyRef, verifying: list[Future[bool]], is_new: bool
    ) -> None:
        """Whenever whoever shares it came: what was hashed before may have been changed within one step of time."""
        bodies = disk_store._bodies
        while not is_new and time.time_ns() - disk_stamp(disk_store, body).change_time <= _verified._STEP:
            await asyncio.sleep(0.01)
        tasks = await self.opening(disk_store, body, 1)
        while time.time_ns() - disk_stamp(disk_store, body).change_time <= _verified._STEP:
            await asyncio.sleep(0.01)
        tasks += await self.opening(disk_store, body, 1)
        verifying[0].set_result(True)
        assert await self.are_open(tasks)
        assert list(bodies._verified) == ([] if is_new else [body.id])


class TestBodiesThatAreGone:
    async def test_clearing_leaves_no_body_of_what_was_replaced_meanwhile(
        self, make_disk_store: Make, monkeypatch: pytest.MonkeyPatch, directory: Path
    ) -> None:
        ours, theirs = make_disk_store(), make_disk_store()
        put(ours, 1, body=bytes(MIB))
        await ours.flush()
        last_row = ours._management._last_row

        async def replace_after_that() -> int:
            row = await last_row()
            put(theirs, 1, body=bytes(2 * MIB))
            await theirs.flush()
            return row

        monkeypatch.setattr(ours._management, "_last_row", replace_after_that)
        await ours.clear()
        assert (await theirs.verify()).ok
        assert list(directory.glob("v1/bodies/*/*")) == []

    async def test_an_entry_replaced_by_another_process_meanwhile_stays(self, make_disk_store: Make) -> None:
        ours, theirs = make_disk_store(), make_disk_store()
        put(ours, 1, body=bytes(MIB))
        await ours.flush()
        old = await ours.get(key_of(1))
        assert isinstance(old, StoredResponse)
        assert isinstance(old.body, BodyRef)
        put(theirs, 1, body=bytes(2 * MIB))
        await theirs.flush()
        assert ours._tier._kept[key_of(1)].entry == old  # as where the other's change is not seen yet
        assert await ours.open_body(key_of(1), old.body) is None
        await ours.flush()
        new = await theirs.get(key_of(1))
        assert isinstance(new, StoredResponse)
        assert new.size == 2 * MIB
        assert isinstance(await ours.get(key_of(1)), StoredResponse)

    async def test_a_record_that_changed_before_the_removal_stays(self, make_disk_store: Make) -> None:
        store = make_disk_store()
        put(store, 1)
        await store.flush()
        store._writing.accept(Change(key_of(1), if_record=b"what stood there before"))
        await store.flush()
        assert await store.get(key_of(1)) is not None

    async def test_the_writer_never_waits_for_a_body_it_gives_up(self, make_disk_store: Make) -> None:
        """The body may be waiting for room, which only the writer can make."""
        store = make_disk_store()
        await store.secret()
        landing: Future[BodyFile] = Future()
        store._writing._unlink(landing)  # returns at once
        file = BodyFile("ab" * 16, 1)
        path = store._opening.home() / file.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        landing.set_result(file)
        assert not path.exists()


class TestUnderLoad:
    """What is asked while changes never cease to come is answered all the same."""

    @pytest.fixture
    async def load(self, disk_store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DiskStore]:
        monkeypatch.setattr(queue_module, "BATCH", 8)
        for number in range(300):
            put(disk_store, number)
        stopping = threading.Event()

        def store_on_and_on() -> None:
            number = 1000
            while not stopping.is_set():
                if len(disk_store._queue) < 32:
                    put(disk_store, number := number + 1)

        thread = threading.Thread(target=store_on_and_on, daemon=True)
        thread.start()
        yield disk_store
        stopping.set()
        thread.join()

    @pytest.mark.parametrize("asked", ["count", "flush", "scan", "rewrite", "clear", "verify", "remove"])
    async def test_it_ends(self, load: DiskStore, asked: str) -> None:
        async def ask() -> None:
            match asked:
                case "scan":
                    assert {key_of(number) for number in range(300)} <= {key async for key, _ in load.scan()}
                case "rewrite":
                    await load.rewrite(lambda key, entry: entry)
                case "remove":
                    await load.remove([key_of(1)])
                    assert await load.get(key_of(1)) is None
                case _:
                    await getattr(load, asked)()

        await asyncio.wait_for(ask(), 20)

    async def test_what_comes_meanwhile_is_left_for_later(self, disk_store: DiskStore) -> None:
        for number in (1, 2):
            put(disk_store, number)
        last_row = await disk_store._management._last_row()
        put(disk_store, 3)
        await disk_store._writing.run(lambda database: database.records.remove_all(last_row))
        disk_store._tier.clear()
        assert await present(disk_store, range(5)) == [3]


class TestOthersReplace:
    async def test_what_another_process_replaces_while_it_is_looked_at_is_not_damaged(
        self, disk_store: DiskStore, make_disk_store: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(disk_store, 1, body=bytes(MIB))
        await disk_store.flush()
        other = make_disk_store()
        bodies, is_sound = disk_store._bodies, disk_store._bodies.is_sound

        def after_it_was_replaced(home: Path, body: BodyRef) -> bool:
            monkeypatch.setattr(bodies, "is_sound", is_sound)
            put(other, 1, body=bytes(MIB), status=203)
            assert other.close_now()
            return is_sound(home, body)

        monkeypatch.setattr(bodies, "is_sound", after_it_was_replaced)
        report = await disk_store.verify(repair=True)
        assert (report.entries, report.damaged) == (1, ())
        found = await disk_store.get(key_of(1))
        assert isinstance(found, StoredResponse)
        assert found.status == 203

    async def test_a_repair_removes_what_was_damaged_and_nothing_that_took_its_place(
        self, disk_store: DiskStore, make_disk_store: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in (1, 2):
            put(disk_store, number, body=bytes(MIB))
        await disk_store.flush()
        for path in disk_store._opening.home().glob("bodies/*/*"):
            path.unlink()
        remove = disk_store._writing.remove
        other = make_disk_store()

        async def after_one_was_replaced(changes: Sequence[Change]) -> None:
            put(other, 1, status=203)
            await other.flush()
            await remove(changes)

        monkeypatch.setattr(disk_store._writing, "remove", after_one_was_replaced)
        assert len((await disk_store.verify(repair=True)).damaged) == 2
        assert await present(make_disk_store(), range(5)) == [1]


class TestTheEnd:
    async def test_closing_leaves_no_thread(self, disk_store: DiskStore) -> None:
        put(disk_store, 1, body=bytes(MIB))
        await disk_store.aclose()
        lanes = disk_store._lanes
        threads = [lane._last_thread for lane in (lanes.writer, lanes.opener, lanes.files)]
        assert [thread.is_alive() for thread in threads if thread is not None] == [False] * 3

    @pytest.mark.parametrize("how", ["aclose", "close_now"])
    async def test_its_connections_are_closed_one_after_the_other(
        self, disk_store: DiskStore, directory: Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """Of two that close at once none is the last for SQLite, and the log would stay."""
        happened: list[str] = []

        def slowly(close: Callable[[Any], None]) -> Callable[[Any], None]:
            def closing(connection: Any) -> None:
                happened.append("begins")
                time.sleep(0.05)
                close(connection)
                happened.append("ends")

            return closing

        put(disk_store, 1)
        await disk_store.flush()
        for connection in (database_module.Reader, Records):
            monkeypatch.setattr(connection, "close", slowly(connection.close))
        await disk_store.aclose() if how == "aclose" else disk_store.close_now()
        assert happened == ["begins", "ends"] * (len(happened) // 2)
        assert len(happened) >= 4
        assert not list(directory.glob("v1/*-wal"))

    async def test_a_removal_does_not_fail_for_what_failed_before(self, disk_store: DiskStore) -> None:
        put(disk_store, 1)
        assert put(disk_store, 2, headers=(("X-Large", "x" * MIB),))  # found out by the writer
        await asyncio.sleep(0)
        await disk_store.count()
        await disk_store.remove([key_of(1)])
        with pytest.raises(StoreError, match="too large"):
            await disk_store.flush()

    async def test_a_store_that_can_not_be_made_leaves_nothing_behind(
        self, make_disk_store: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path, *statements: str) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(database_module, "_execute", fail)
            store = make_disk_store()
            with pytest.raises(StoreError):
                await store.secret(patient=True)
        assert [path.name for path in directory.iterdir() if path.is_dir()] == []
