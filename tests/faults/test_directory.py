"""The directory itself: gone, forbidden, full, not ours, on a network; requests go on, and the store comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiohttp_cache_middleware import CacheMiddleware, get_cache
from aiohttp_cache_middleware._stores import DiskStore, _directory
from tests.conftest import Origin
from tests.faults.harness import Make, body_files, execute, is_right, run, works_again, written

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
NOBODY = 65534

pytestmark = [
    pytest.mark.usefixtures("content"),
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions"),
]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- gone ---


async def test_a_directory_that_is_deleted_and_comes_back(make: Make, origin: Origin, directory: Path) -> None:
    session = make()
    for _ in range(3):
        for number in range(10):
            await is_right(session, origin, f"/{number}")
        await is_right(session, origin, "/large0")
        shutil.rmtree(directory, ignore_errors=True)
    for number in range(10):
        await is_right(session, origin, f"/{number}")
    await works_again(session, origin)
    assert directory.is_dir()


async def test_a_directory_in_whose_place_a_file_stands_until_it_is_removed(
    make: Make, origin: Origin, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await written(session)
    shutil.rmtree(directory)
    directory.touch()
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            assert not await is_right(session, origin, f"/{number + 2}") or number > 0
            await is_right(session, origin, "/large0")
        assert warnings_of(caplog)
        assert all(str(directory) in one for one in warnings_of(caplog))
        assert len(warnings_of(caplog)) == len(set(warnings_of(caplog)))
    directory.unlink()
    await works_again(session, origin)


# --- not ours ---


def writable(name: str, mode: int) -> Callable[[Path], None]:
    return lambda directory: (directory / name).chmod(mode)


def given_away(name: str) -> Callable[[Path], None]:
    return lambda directory: os.chown(directory / name, NOBODY, NOBODY)


def link_of_somebody_else(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))
    directory.symlink_to(directory.with_name("elsewhere"))
    os.chown(directory, NOBODY, NOBODY, follow_symlinks=False)


def link_to_somebody_elses(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))
    directory.symlink_to(directory.with_name("elsewhere"))
    os.chown(directory, NOBODY, NOBODY)


def linked(name: str) -> Callable[[Path], None]:
    def replace(directory: Path) -> None:
        outside = directory.with_name("elsewhere")
        (directory / name).rename(outside)
        (directory / name).symlink_to(outside)

    return replace


def hard_linked(name: str) -> Callable[[Path], None]:
    def replace(directory: Path) -> None:
        outside = directory.with_name("elsewhere")
        if (directory / name).exists():
            (directory / name).rename(outside)
        else:
            outside.write_text("a letter")
            outside.chmod(0o600)
        os.link(outside, directory / name)

    return replace


NOT_OURS: dict[str, Callable[[Path], None]] = {
    "others may write to it": writable(".", 0o702),
    "its group may write to it": writable(".", 0o720),
    "others may write to what is in it": writable("v1", 0o777),
    "others may write to its bodies": writable("v1/bodies", 0o777),
    "it belongs to somebody else": given_away("."),
    "its database belongs to somebody else": given_away("v1/cache.db"),
    "its secret belongs to somebody else": given_away("secret"),
    "it is somebody else's link": link_of_somebody_else,
    "it is a link to what is somebody else's": link_to_somebody_elses,
    **{
        f"{name} is a second name of a file": hard_linked(name)
        for name in ("v1/marks", "v1/swept", "v1/cache.db", "v1/cache.db-wal", "v1/token", "leases", "secret")
    },
    **{
        f"{name} is a link": linked(name)
        for name in ("v1", "v1/cache.db", "v1/bodies", "v1/token", "v1/marks", "v1/spool", ".lock", "secret")
    },
}


@pytest.mark.parametrize("what", NOT_OURS)
async def test_a_directory_that_is_not_safely_ours_is_not_used(
    make: Make, origin: Origin, directory: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not IS_ROOT and "somebody else" in what:
        pytest.skip("only root can give files away")
    session = make()
    await is_right(session, origin, "/1")
    await is_right(session, origin, "/large1")
    await session.close()
    NOT_OURS[what](directory)
    elsewhere = directory.with_name("elsewhere")
    before = content_below(elsewhere)
    session = make()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not await is_right(session, origin, "/1")
            assert not await is_right(session, origin, "/large1")
    assert len(warnings_of(caplog)) == 1
    await session.close()
    assert content_below(elsewhere) == before


@pytest.mark.parametrize("name", ["swept", "marks"])
async def test_a_pipe_that_is_put_in_a_files_place_stops_nothing(
    make: Make, origin: Origin, directory: Path, name: str
) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await written(session)
    (directory / "v1" / name).unlink(missing_ok=True)
    os.mkfifo(directory / "v1" / name)
    store = get_cache(session)._core.store
    assert isinstance(store, DiskStore)
    assert store._opening.database is not None
    store._opening.database._swept_time = 0.0
    for number in range(2, 5):
        await is_right(session, origin, f"/{number}")
    await asyncio.wait_for(written(session), 5)
    await asyncio.wait_for(session.close(), 5)
    (directory / "v1" / name).unlink()
    session = make()
    await works_again(session, origin)


async def test_a_link_among_the_bodies_leads_nowhere(make: Make, origin: Origin, directory: Path) -> None:
    """Made by somebody who could write there: nothing outside is written, read or removed."""
    session = make()
    await is_right(session, origin, "/1")
    await is_right(session, origin, "/large1")
    await written(session)
    (body,) = body_files(directory)
    elsewhere = directory.with_name("elsewhere")
    elsewhere.mkdir()
    folders = [directory / "v1" / "bodies" / f"{number:02x}" for number in range(256)]
    (elsewhere / body.name).write_bytes(body.read_bytes())
    (elsewhere / f"{'0' * 30}.body").write_bytes(b"somebody else's")
    os.utime(elsewhere / f"{'0' * 30}.body", (0, 0))
    shutil.rmtree(body.parent)
    for folder in folders:
        folder.symlink_to(elsewhere)
    before = content_below(elsewhere)
    for number in range(1, 6):
        assert not await is_right(session, origin, f"/large{number}")
    await get_cache(session).verify(repair=True)
    await get_cache(session).clear()
    assert content_below(elsewhere) == before
    for folder in folders:
        folder.unlink()
    await works_again(session, origin)
    await is_right(session, origin, "/large1")
    await written(session)
    assert await is_right(session, origin, "/large1")


def content_below(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {".": path.read_bytes()}
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_nobody_else_can_read_what_is_stored_whatever_the_umask(
    make: Make, origin: Origin, directory: Path, umask: int
) -> None:
    directory.parent.chmod(0o2755)  # which hands this bit on to what is made in it
    before = os.umask(umask)
    try:
        session = make()
        await is_right(session, origin, "/1")
        await is_right(session, origin, "/large1")
        await written(session)
        paths = [directory, *directory.rglob("*")]
        assert {stat.S_IMODE(path.lstat().st_mode) for path in paths if path.is_dir()} == {0o700}
        assert {stat.S_IMODE(path.lstat().st_mode) for path in paths if not path.is_dir()} == {0o600}
        assert body_files(directory)
    finally:
        os.umask(before)


@pytest.mark.parametrize("file_system", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"])
async def test_a_network_file_system_is_refused(
    make: Make,
    origin: Origin,
    directory: Path,
    file_system: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = f"24 23 0:50 / {directory.parent} rw - {file_system} server:/export rw\n"
    read = _directory.file_system_type
    monkeypatch.setattr(_directory, "file_system_type", lambda path: read(path, line))
    session = make()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert not await is_right(session, origin, "/1")
    assert ["network file system" in message for message in warnings_of(caplog)] == [True]
    assert not (directory / "v1").exists()


# --- forbidden: as an ordinary user, for root may do everything ---


FORBIDDING = """
import logging, pathlib
logging.basicConfig(format="%(message)s", stream=sys.stdout)
home = pathlib.Path(directory) / "cache"

def allow(directories, files):
    for path in (home, *home.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
    for path in (*sorted(home.rglob("*"), reverse=True), home):
        path.chmod(directories if path.is_dir() else files)

async def main():
    session = make_cached_session(home)
    await fetch(session, "/1")
    await fetch(session, "/large1")
    await get_cache(session).responses.count()
    if rest[0] == "closed":
        await session.close()
        session = make_cached_session(home)
    allow(0o500, 0o400)
    began = time.monotonic()
    for _ in range(3):
        for number in range(10):
            await fetch(session, f"/{number}")
        await fetch(session, "/large1")
        await fetch(session, "/large2")
    assert time.monotonic() - began < 20  # 36 requests, none of which waits for anything
    allow(0o700, 0o600)
    deadline = time.monotonic() + 30
    while not ((await fetch(session, "/100")).from_cache and await get_cache(session).responses.count()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert (await get_cache(session).verify()).ok
    print("old:", (await fetch(session, "/1")).from_cache, (await fetch(session, "/large1")).from_cache)
    await session.close()

asyncio.run(main())
"""


def obey_permissions() -> None:
    """Take from root, in a process about to start, what lets it pass over permissions (capabilities(7))."""
    if IS_ROOT:
        import ctypes

        drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
        for capability in (dac_override, dac_read_search):
            if ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0):
                raise OSError("root stays root")


@pytest.mark.skipif(IS_ROOT and sys.platform != "linux", reason="root may write anywhere")
@pytest.mark.parametrize("state", ["closed", "running"])
async def test_a_read_only_directory(origin: Origin, tmp_path: Path, state: str) -> None:
    out = (await run(FORBIDDING, tmp_path, origin.url(""), state, preexec_fn=obey_permissions)).splitlines()
    assert "old: True True" in out
    assert 1 < len(out) == len(set(out)) <= 5  # one warning per cause


# --- full ---


FILLING = """
import logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)

async def main():
    async with make_cached_session(directory) as session:
        await fetch(session, "/1")
        await get_cache(session).responses.count()
        for _ in range(2):
            for number in range(20):
                await fetch(session, f"/{number}")
                await fetch(session, f"/large{number}")
        print("old:", (await fetch(session, "/1")).status)

asyncio.run(main())
"""


async def test_a_full_file_system(make: Make, origin: Origin, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if not IS_ROOT or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount], check=False).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        ballast = mount / "ballast"
        session = make(mount / "cache")
        await is_right(session, origin, "/1")
        await is_right(session, origin, "/large1")
        await written(session)
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        for _ in range(2):
            for number in range(20):
                await is_right(session, origin, f"/{number}")
                await is_right(session, origin, f"/large{number}")
        assert await is_right(session, origin, "/1")
        assert await is_right(session, origin, "/large1")
        ballast.unlink()
        await works_again(session, origin)
        assert await is_right(session, origin, "/1")
        assert list(mount.glob("cache/v1/spool/*")) == []
        known = {name for (name,) in execute(mount / "cache", "SELECT filename FROM Cache WHERE mode = 2")}
        assert {path.relative_to(mount / "cache" / "v1").as_posix() for path in body_files(mount / "cache")} == known
        await session.close()
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


async def test_files_may_not_grow(make: Make, origin: Origin, directory: Path) -> None:
    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    out = (await run(FILLING, directory, origin.url(""), preexec_fn=limit)).splitlines()
    assert out[-1].startswith("old: 200") or "old: 200" in out
    assert len(out) == len(set(out)) <= 4
    session = make()
    for number in range(20):
        await is_right(session, origin, f"/{number}")
        await is_right(session, origin, f"/large{number}")
    await works_again(session, origin)


async def test_a_cache_whose_directory_can_not_be_made_says_so_once(
    origin: Origin, tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make
) -> None:
    (tmp_path / "file").touch()
    cache = CacheMiddleware(tmp_path / "file" / "cache")
    session = make(cache=cache)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert not await is_right(session, origin, "/1")
    assert len(warnings_of(caplog)) == 1
    assert get_cache(session).stats.store_errors >= 5
