"""What the disk store does not believe: damaged, planted and foreign files."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import diskcache
import pytest

from aiohttp_cache_middleware._errors import StoreError
from aiohttp_cache_middleware._model import StoredResponse
from aiohttp_cache_middleware._stores import DiskStore
from aiohttp_cache_middleware._stores._database import Database
from aiohttp_cache_middleware._stores._directory import file_system_type
from aiohttp_cache_middleware._stores._records import RawDisk, Records

from .samples import a_response, key_of

Make = Callable[..., DiskStore]
LARGE = bytes(600_000)


def put(store: DiskStore, number: int, **changes: object) -> bool:
    return store.put(key_of(number), a_response(number, **changes), tag="tag")


@pytest.fixture
async def filled(disk_store: DiskStore) -> DiskStore:
    """A store with a small entry 1 and a large one 2, closed."""
    put(disk_store, 1)
    put(disk_store, 2, body=LARGE)
    await disk_store.aclose()
    return disk_store


def execute(directory: Path, statement: str, *parameters: object) -> None:
    connection = sqlite3.connect(directory / "v1" / "cache.db")
    with connection:
        connection.execute(statement, parameters)
    connection.close()


def body_file(directory: Path) -> Path:
    (path,) = directory.glob("v1/bodies/*/*.body")
    return path


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Trap, "sprung", True)


def test_rows_that_can_not_be_opened_leave_no_connection(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        Records(tmp_path, None)
    gc.collect()  # which would complain of it, in Python 3.13


class TestRows:
    @pytest.mark.parametrize("position", [0, 1, 6, 15, 30, -1])
    async def test_a_flipped_bit_in_a_record_is_a_miss(self, filled: DiskStore, directory: Path, position: int) -> None:
        connection = sqlite3.connect(directory / "v1" / "cache.db")
        ((value,),) = connection.execute("SELECT value FROM Cache WHERE key = ?", (key_of(1),))
        connection.close()
        changed = bytearray(value)
        changed[position] ^= 4
        execute(directory, "UPDATE Cache SET value = ? WHERE key = ?", bytes(changed), key_of(1))
        assert (await filled.verify()).damaged == (key_of(1),)
        assert await filled.get(key_of(1)) is None
        await filled.flush()
        assert await filled.count() == 1

    async def test_a_record_answers_only_the_key_it_was_written_for(self, filled: DiskStore, directory: Path) -> None:
        execute(directory, "UPDATE Cache SET key = ? WHERE key = ?", key_of(9), key_of(1))
        assert await filled.get(key_of(9)) is None

    @pytest.mark.parametrize("value", [None, 1, "text", b"", b"\x02" * 100])
    async def test_a_row_that_holds_no_record_is_a_miss(
        self, filled: DiskStore, directory: Path, value: object
    ) -> None:
        execute(directory, "UPDATE Cache SET value = ? WHERE key = ?", value, key_of(1))
        assert await filled.get(key_of(1)) is None
        assert [key async for key, _ in filled.scan()] == [key_of(2)]
        assert await filled.rewrite(lambda key, entry: entry) == (0, 0)

    async def test_a_planted_pickle_does_not_run(self, filled: DiskStore, directory: Path) -> None:
        trap = pickle.dumps(Trap())
        execute(directory, "UPDATE Cache SET mode = 4, value = ? WHERE key = ?", trap, key_of(1))
        execute(directory, "INSERT INTO Cache(key, raw, mode, value) VALUES (?, 0, 1, ?)", trap, trap)
        assert await filled.get(key_of(1)) is None
        assert [key async for key, _ in filled.scan()] == [key_of(2)]
        await filled.verify(repair=True)
        await filled.clear()
        assert not Trap.sprung

    async def test_a_planted_file_name_is_neither_read_nor_removed(self, filled: DiskStore, directory: Path) -> None:
        (precious := directory.parent / "empty" / "precious").parent.mkdir()
        precious.write_bytes(b"mine")
        execute(directory, "UPDATE Cache SET filename = ?, mode = 2 WHERE key = ?", "../../empty/precious", key_of(1))
        put(filled, 1)
        await filled.flush()
        execute(directory, "UPDATE Cache SET filename = ?, mode = 2 WHERE key = ?", "../../empty/precious", key_of(1))
        filled.delete(key_of(1))
        await filled.clear()
        assert precious.read_bytes() == b"mine"

    @pytest.mark.parametrize("value", [1, "text", None, [1]])
    def test_the_disk_stores_bytes_only(self, tmp_path: Path, value: object) -> None:
        disk = RawDisk(str(tmp_path))
        with pytest.raises(OSError, match="refused"):
            disk.store(value, False)
        with pytest.raises(OSError, match="refused"):
            disk.put(value if value != "text" else b"text")
        with pytest.raises(OSError, match="refused"):
            disk.filename()

    @pytest.mark.parametrize("mode", [1, 2, 3, 4])
    def test_the_disk_reads_no_file_elsewhere(self, tmp_path: Path, mode: int) -> None:
        (elsewhere := tmp_path / "elsewhere").write_bytes(b"precious")
        disk = RawDisk(str(tmp_path / "cache"))
        for name in ("../elsewhere", str(elsewhere)):
            with pytest.raises(OSError, match="refused"):
                disk.fetch(mode, name, None, False)

    def test_the_disk_keeps_diskcache_itself_from_unpickling(self, tmp_path: Path) -> None:
        with diskcache.Cache(str(tmp_path), disk=diskcache.Disk) as plain:
            plain.set("pickled", {"a": "dict"})
            plain.set(("pickled", "key"), b"value")
            plain.set("text", "text" * 50_000)
        with diskcache.Cache(str(tmp_path), disk=RawDisk) as careful:
            assert careful.get("pickled") is None
            assert careful.get("text") is None
            with pytest.raises(OSError, match="refused"):
                list(careful)


class TestBodies:
    @pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "missing", "link", "swapped"])
    async def test_a_body_that_is_not_the_one_written_is_never_served(
        self, filled: DiskStore, directory: Path, damage: str
    ) -> None:
        entry = await filled.get(key_of(2))
        assert isinstance(entry, StoredResponse)
        assert not isinstance(entry.body, bytes)
        reader = await filled.open_body(key_of(2), entry.body)
        assert reader is not None
        reader.close()
        path = body_file(directory)
        content = path.read_bytes()
        match damage:
            case "flipped":
                path.write_bytes(content[:300_000] + b"\1" + content[300_001:])
            case "shorter":
                os.truncate(path, len(content) - 1)
            case "longer":
                path.write_bytes(content + b"\0")
            case "missing":
                path.unlink()
            case "link":
                path.rename(directory.parent / "elsewhere")
                path.symlink_to(directory.parent / "elsewhere")
            case _:
                put(filled, 3, body=b"\1" * len(LARGE))
                await filled.flush()
                (other,) = set(directory.glob("v1/bodies/*/*.body")) - {path}
                other.rename(path)
        assert key_of(2) in (await filled.verify()).damaged
        with pytest.raises(StoreError, match=r"a body is (missing|not what was stored)"):
            filled.load_body(key_of(2), entry.body)
        assert await filled.open_body(key_of(2), entry.body) is None
        assert await filled.get(key_of(2)) is None

    async def test_a_body_that_is_cut_after_it_was_verified_has_no_end(
        self, filled: DiskStore, directory: Path
    ) -> None:
        entry = await filled.get(key_of(2))
        assert isinstance(entry, StoredResponse)
        assert not isinstance(entry.body, bytes)
        reader = await filled.open_body(key_of(2), entry.body)
        assert reader is not None
        os.truncate(body_file(directory), len(LARGE) // 2)
        with pytest.raises(StoreError, match="changed while"):
            reader.load()
        with pytest.raises(StoreError, match="changed while"):
            await reader.read(len(LARGE))
        reader.close()

    async def test_verify_can_repair(self, filled: DiskStore, directory: Path) -> None:
        body_file(directory).unlink()
        report = await filled.verify(repair=True)
        assert report.repaired
        assert report.damaged == (key_of(2),)
        assert (await filled.verify()).ok
        assert await filled.count() == 1


class TestSecretKeys:
    async def test_entries_made_without_the_key_are_misses(self, filled: DiskStore, make_disk_store: Make) -> None:
        store = make_disk_store(secret_keys=(b"key",))
        assert await store.get(key_of(1)) is None

    async def test_keys_may_be_rotated(self, make_disk_store: Make) -> None:
        put(old := make_disk_store(secret_keys=(b"old",)), 1)
        put(old, 2, body=LARGE)
        await old.flush()
        rotated = make_disk_store(secret_keys=(b"new", b"old"))
        assert await rotated.get(key_of(1)) == a_response(1)
        entry = await rotated.get(key_of(2))
        assert isinstance(entry, StoredResponse)
        assert not isinstance(entry.body, bytes)
        reader = await rotated.open_body(key_of(2), entry.body)
        assert reader is not None
        reader.close()
        put(rotated, 3)
        await rotated.flush()
        assert await make_disk_store(secret_keys=(b"new",)).get(key_of(3)) == a_response(3)
        assert await make_disk_store(secret_keys=(b"other",)).get(key_of(3)) is None


class TestDamage:
    """What happens to the database; entries are lost, and nothing else."""

    @pytest.mark.parametrize(
        ("damage", "is_set_aside"),
        [
            pytest.param(lambda path: path.write_bytes(b"not a database" * 1000), True, id="text"),
            pytest.param(lambda path: path.write_bytes(b""), True, id="empty"),
            pytest.param(lambda path: os.truncate(path, 3000), True, id="truncated"),
            pytest.param(lambda path: path.write_bytes(bytes(path.stat().st_size)), True, id="zeroed"),
            pytest.param(lambda path: path.unlink(), True, id="missing"),
            pytest.param(lambda path: shutil.rmtree(path.parent), False, id="directory missing"),
            pytest.param(lambda path: shutil.rmtree(path.parents[1]), False, id="root missing"),
        ],
    )
    @pytest.mark.parametrize("running", [False, True])
    async def test_the_store_begins_anew(
        self, filled: DiskStore, directory: Path, damage: Callable[[Path], object], is_set_aside: bool, running: bool
    ) -> None:
        if running:
            assert await filled.get(key_of(1)) is not None
        # A log that is still there mends most damage by itself, which is as good.
        log = directory / "v1" / "cache.db-wal"
        mends_itself = log.exists() and log.stat().st_size > 0
        damage(directory / "v1" / "cache.db")
        filled._checked_time = 0.0
        for _ in range(3):
            try:
                put(filled, 3)
                await filled.flush()
                await filled.get(key_of(1))
            except StoreError:
                filled._backoff.failing_until = 0.0
        assert put(filled, 3)
        await filled.flush()
        assert await filled.get(key_of(3)) == a_response(3)
        assert (await filled.verify()).ok
        assert len(list(directory.glob("bad-*"))) <= 1
        if is_set_aside and not running and not mends_itself:
            assert len(list(directory.glob("bad-*"))) == 1
            assert await filled.count() == 1

    async def test_what_is_written_when_damage_shows_is_kept(self, filled: DiskStore, directory: Path) -> None:
        await filled.aclose()
        assert await filled.get(key_of(1)) is not None
        (directory / "v1" / "cache.db").write_bytes(b"not a database" * 1000)
        put(filled, 3)
        put(filled, 4, body=LARGE)
        await filled.flush()
        assert await filled.get(key_of(3)) == a_response(3)
        assert await filled.get(key_of(4)) is None  # its body went with what was set aside
        assert (await filled.verify()).ok

    def test_what_comes_in_place_of_a_damaged_store_is_not_set_aside_too(self, directory: Path) -> None:
        one, other = Database.open(directory, None), Database.open(directory, None)
        one.close()
        one.set_aside()
        new = Database.open(directory, None)
        other.close()
        other.set_aside()
        assert new.is_current()
        new.close()

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
            "CREATE VIEW v AS SELECT * FROM Cache",
            "DROP TABLE Settings",
            "DROP INDEX Cache_tag_rowid",
            "INSERT INTO Settings VALUES ('_directory', '/tmp')",
            "UPDATE Settings SET value = 67108864 WHERE key = 'sqlite_mmap_size'",
            "UPDATE Settings SET value = 'x' WHERE key = 'size'",
        ],
    )
    async def test_a_schema_that_is_not_ours_is_set_aside(
        self, filled: DiskStore, directory: Path, statement: str
    ) -> None:
        execute(directory, statement)
        assert await filled.get(key_of(1)) is None
        assert len(list(directory.glob("bad-*"))) == 1
        assert put(filled, 1)
        assert await filled.count() == 1

    async def test_a_trigger_of_ours_that_does_something_else_is_set_aside(
        self, filled: DiskStore, directory: Path
    ) -> None:
        execute(directory, "DROP TRIGGER Settings_count_insert")
        execute(
            directory,
            "CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache BEGIN UPDATE Cache SET value = 'planted'; END",
        )
        assert await filled.get(key_of(1)) is None
        assert len(list(directory.glob("bad-*"))) == 1

    async def test_a_database_with_pages_of_another_size_is_set_aside(self, filled: DiskStore, directory: Path) -> None:
        with contextlib.closing(sqlite3.connect(directory / "v1" / "cache.db", isolation_level=None)) as connection:
            for statement in ("journal_mode = delete", "page_size = 4096"):
                connection.execute(f"PRAGMA {statement}").fetchall()
            connection.execute("VACUUM")
            connection.execute("PRAGMA journal_mode = wal").fetchall()
        assert await filled.get(key_of(1)) is None
        assert len(list(directory.glob("bad-*"))) == 1

    async def test_the_secret_survives(self, filled: DiskStore, directory: Path, make_disk_store: Make) -> None:
        secret = await filled.secret()
        await filled.aclose()
        (directory / "v1" / "cache.db").write_bytes(b"?" * 5000)
        assert await make_disk_store().secret() == secret

    @pytest.mark.parametrize("size", [0, 5, 31, 33])
    async def test_a_secret_of_another_length_is_made_anew(
        self, filled: DiskStore, directory: Path, make_disk_store: Make, size: int
    ) -> None:
        """It would be easier to guess, and with it what keys stand for."""
        await filled.aclose()
        (directory / "secret").write_bytes(b"?" * size)
        secret = await make_disk_store().secret()
        assert len(secret) == 32
        assert b"?" * 5 not in secret
        assert (directory / "secret").read_bytes() == secret


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
class TestDirectory:
    @pytest.fixture(params=[0o000, 0o022, 0o077])
    def umask(self, request: pytest.FixtureRequest) -> Iterator[None]:
        before = os.umask(request.param)
        yield
        os.umask(before)

    @pytest.mark.usefixtures("umask")
    async def test_directories_are_0700_and_files_0600_whatever_the_umask(
        self, make_disk_store: Make, tmp_path: Path
    ) -> None:
        store = make_disk_store(directory=tmp_path / "a" / "b")
        put(store, 1, body=LARGE)
        store.claim(key_of(1))
        spool = store.spool()
        spool.write(LARGE)
        spool.load()
        await store.flush()
        for path in (tmp_path / "a", *(tmp_path / "a").rglob("*")):
            assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        spool.discard()

    async def test_an_existing_directory_of_the_users_serves(self, make_disk_store: Make, tmp_path: Path) -> None:
        (readable := tmp_path / "readable").mkdir()
        readable.chmod(0o755)
        assert await make_disk_store(directory=readable).get(key_of(1)) is None

    async def test_a_link_to_a_directory_of_the_users_serves(self, make_disk_store: Make, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "target")
        assert await make_disk_store(directory=tmp_path / "link").get(key_of(1)) is None

    async def test_a_directory_others_may_write_to_is_refused(self, make_disk_store: Make, directory: Path) -> None:
        directory.mkdir()
        directory.chmod(0o777)
        store = make_disk_store()
        with pytest.raises(StoreError, match="refused"):
            await store.get(key_of(1))
        assert list(directory.iterdir()) == []

    @pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root gives files away")
    @pytest.mark.parametrize("place", [".", "v1", "v1/cache.db", "link"])
    async def test_what_belongs_to_another_user_is_refused(
        self, filled: DiskStore, directory: Path, make_disk_store: Make, place: str
    ) -> None:
        if place == "link":
            (link := directory.parent / "link").symlink_to(directory)
            os.chown(link, 12345, 12345, follow_symlinks=False)
            directory = link
        else:
            os.chown(directory / place, 12345, 12345)
        with pytest.raises(StoreError, match="refused"):
            await make_disk_store(directory=directory).get(key_of(1))

    @pytest.mark.parametrize("place", ["v1", "v1/cache.db", "v1/bodies"])
    async def test_links_inside_are_not_followed(self, filled: DiskStore, directory: Path, place: str) -> None:
        (directory / place).rename(directory.parent / "elsewhere")
        (directory / place).symlink_to(directory.parent / "elsewhere")
        with pytest.raises(StoreError, match="refused"):
            await filled.get(key_of(1))

    async def test_after_a_refusal_the_store_may_become_usable(self, make_disk_store: Make, directory: Path) -> None:
        directory.mkdir()
        directory.chmod(0o777)
        store = make_disk_store()
        with pytest.raises(StoreError, match="refused"):
            await store.get(key_of(1))
        with pytest.raises(StoreError, match="refused"):
            put(store, 1)
        directory.chmod(0o700)
        store._backoff.failing_until = 0.0
        assert put(store, 1)
        await store.flush()
        assert await store.count() == 1

    async def test_a_file_in_place_of_the_directory_is_an_error_of_ours(
        self, make_disk_store: Make, directory: Path
    ) -> None:
        store = make_disk_store()
        directory.write_bytes(b"")
        with pytest.raises(StoreError):
            await store.get(key_of(1))
        with pytest.raises(ValueError, match="is a file"):
            make_disk_store()

    async def test_nothing_is_done_before_the_first_use(self, make_disk_store: Make, directory: Path) -> None:
        make_disk_store()
        assert not directory.exists()

    @pytest.mark.parametrize(
        ("path", "expected"),
        [("/data/cache", "ext4"), ("/data/net/cache", "nfs4"), ("/data/net work", "cifs"), ("/", "overlay")],
    )
    def test_network_file_systems_are_recognised(self, path: str, expected: str) -> None:
        mounts = (
            "24 23 0:50 / /data/net rw - nfs4 server:/export rw\n"
            "22 1 0:20 / / rw - overlay overlay rw\n"
            "23 22 254:1 / /data rw,noatime shared:1 - ext4 /dev/vda rw\n"
            "25 23 0:51 / /data/net\\040work rw - cifs //server/share rw\n"
            "garbage\n"
        )
        assert file_system_type(Path(path), mounts) == expected
