"""Somebody else writes into the directory: nothing of his is run, followed, served or sent."""

from __future__ import annotations

import os
import pickle
import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import msgpack
import pytest
from aiohttp import web

from aiohttp_cache_middleware import get_cache
from aiohttp_cache_middleware._codec import Codec
from aiohttp_cache_middleware._stores._bodies import body_name
from tests.asking import ask
from tests.conftest import T0, Clock, Origin
from tests.faults.harness import Make, body_files, database_of, execute, is_right, written

pytestmark = pytest.mark.usefixtures("content")


def sealed(key: str, metadata: bytes, body: bytes = b"", *, layout: int = 1, kind: int = 0) -> bytes:
    """Make a record with the right checksum, as anybody can who knows the layout and needs no secret key."""
    header = struct.pack("<BBII", layout, kind, len(metadata), len(body))
    encoded = key.encode()
    digest = crc32(b"%d:%b%b" % (len(encoded), encoded, header) + metadata + body).to_bytes(16, "big")
    return header + digest + metadata + body


def facts(**changes: object) -> list[object]:
    """Give the facts of a response as the records hold them."""
    plain: dict[str, object] = {
        "method": "GET",
        "url": "http://example.org/",
        "status": 200,
        "reason": "OK",
        "major": 1,
        "minor": 1,
        "headers": ["X-Planted", "1"],
        "raw": None,
        "sent": [],
        "request_time": T0,
        "response_time": T0,
        "created_time": T0,
        "expires_time": float("inf"),
        "vary": [],
        "redirects_to": None,
        "reference": None,
    }
    return list((plain | changes).values())


def plant(directory: Path, record: bytes) -> None:
    execute(directory, "UPDATE Cache SET value = ? WHERE mode = 1", record)


def key_in(directory: Path) -> str:
    ((key,),) = execute(directory, "SELECT key FROM Cache WHERE mode = 1")
    return str(key)


async def test_planting_is_possible_without_a_secret_key(make: Make, origin: Origin, directory: Path) -> None:
    """So that the tests below are known to plant what would otherwise be served."""
    session = make()
    await is_right(session, origin, "/1")
    await session.close()
    plant(directory, sealed(key_in(directory), msgpack.packb(facts()), b"planted"))
    response = await ask(make(), origin.url("/1"))
    assert await response.text() == "planted"
    assert response.headers["X-Planted"] == "1"


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "an unknown layout": lambda key: sealed(key, msgpack.packb(facts()), b"planted", layout=2),
    "an unknown kind": lambda key: sealed(key, msgpack.packb(facts()), b"planted", kind=9),
    "another key's record": lambda key: sealed("0" * 40, msgpack.packb(facts()), b"planted"),
    "nested deeply": lambda key: sealed(key, nested(200_000)),
    "an array of absurd length": lambda key: sealed(key, b"\xdd\xff\xff\xff\xff"),
    "a map of absurd length": lambda key: sealed(key, b"\xdf\xff\xff\xff\xff"),
    "a string of absurd length": lambda key: sealed(key, b"\xdb\xff\xff\xff\xff"),
    "an extension type": lambda key: sealed(key, msgpack.packb(msgpack.ExtType(1, b"x" * 10))),
    "a timestamp": lambda key: sealed(key, b"\xd6\xff\x00\x00\x00\x00"),
    "many empty maps": lambda key: sealed(key, b"\xdd\x00\x03\xff\x00" + b"\x80" * 0x3FF00),
    "metadata beyond the limit": lambda key: sealed(key, msgpack.packb(facts(headers=["X-A", "x" * 8] * 30_000))),
    "a text beyond the limit": lambda key: sealed(key, msgpack.packb(facts(reason="x" * 300_000))),
    "nothing": lambda key: b"",
    "only a header": lambda key: sealed(key, b"")[:26],
    "a pickle": lambda key: pickle.dumps(facts()),
    "a huge body": lambda key: sealed(key, msgpack.packb(facts()), bytes(50_000_000)),
    "a lifetime that is no number": lambda key: sealed(key, msgpack.packb(facts(created_time=float("nan")))),
    "created at no time": lambda key: sealed(key, msgpack.packb(facts(created_time=float("-inf")))),
    "expires at no time": lambda key: sealed(key, msgpack.packb(facts(expires_time=float("nan")))),
    "received at no time": lambda key: sealed(key, msgpack.packb(facts(response_time=float("nan")))),
    "requested at no time": lambda key: sealed(key, msgpack.packb(facts(request_time=float("inf")))),
    "a status below all": lambda key: sealed(key, msgpack.packb(facts(status=99))),
    "a reason that is none": lambda key: sealed(key, msgpack.packb(facts(reason=None))),
    "a URL that is no text": lambda key: sealed(key, msgpack.packb(facts(url=7))),
    "a version that is no number": lambda key: sealed(key, msgpack.packb(facts(major="1"))),
    "a status beyond all": lambda key: sealed(key, msgpack.packb(facts(status=2**40))),
    "line breaks in a field": lambda key: sealed(key, msgpack.packb(facts(headers=["ETag", '"1"\r\nX-Evil: 1']))),
    "line breaks in a name": lambda key: sealed(key, msgpack.packb(facts(headers=["X-Evil: 1\r\nETag", '"1"']))),
    "a field without value": lambda key: sealed(key, msgpack.packb(facts(headers=["ETag"]))),
    "a body elsewhere": lambda key: sealed(key, msgpack.packb(facts(reference=["../../../elsewhere", 7])), kind=1),
    "a body of negative size": lambda key: sealed(key, msgpack.packb(facts(reference=["0" * 32, -7])), kind=1),
    "a body without size": lambda key: sealed(key, msgpack.packb(facts(reference=["0" * 32, "7"])), kind=1),
    "a body whose name is no text": lambda key: sealed(key, msgpack.packb(facts(reference=[7, 7])), kind=1),
    "a body that is nowhere": lambda key: sealed(key, msgpack.packb(facts()), kind=1),
    "an index without end": lambda key: sealed(
        key, msgpack.packb(["http://example.org/", [[key, []]] * 60_000]), kind=2
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_planted_record_is_a_miss(make: Make, origin: Origin, directory: Path, what: str) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await session.close()
    plant(directory, HOSTILE[what](key_in(directory)))
    session = make()
    assert not await is_right(session, origin, "/1")
    assert await is_right(session, origin, "/1")
    await written(session)
    assert (await get_cache(session).verify()).ok


@pytest.mark.parametrize("what", HOSTILE)
async def test_management_goes_past_a_planted_record(make: Make, origin: Origin, directory: Path, what: str) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await session.close()
    plant(directory, HOSTILE[what](key := key_in(directory)))
    session = make()
    cache = get_cache(session)
    assert (await cache.verify()).damaged == (key,)
    assert len(await cache.urls()) <= 1
    async for stored in cache.responses.values():
        assert stored.created_at is not None
        assert stored.is_expired in (True, False)
    await cache.contains(url=origin.url("/1"))
    await cache.remove_expired_responses(expire_after=60)
    await cache.verify(repair=True)
    assert (await cache.verify()).ok


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


PLANTED_ROWS = {
    "a pickled value": "UPDATE Cache SET mode = 4, value = :trap WHERE mode = 1",
    "a pickled key": "UPDATE Cache SET raw = 0, key = :trap WHERE rowid = (SELECT min(rowid) FROM Cache)",
    "another pickled row": "INSERT INTO Cache (key, raw, mode, value, store_time) VALUES (:trap, 0, 4, :trap, 0)",
    "a text": "UPDATE Cache SET value = 'planted' WHERE mode = 1",
    "a number": "UPDATE Cache SET value = 7 WHERE mode = 1",
    "a file elsewhere": "UPDATE Cache SET mode = 2, filename = '../../precious/file', value = NULL WHERE mode = 1",
    "an absolute file": "UPDATE Cache SET mode = 2, filename = :precious, value = NULL WHERE mode = 1",
    "a text file elsewhere": "UPDATE Cache SET mode = 3, filename = '../../precious/file', value = NULL WHERE mode = 1",
    "a body elsewhere": "UPDATE Cache SET filename = '../../precious/file' WHERE mode = 2",
    "an absolute body": "UPDATE Cache SET filename = :precious WHERE mode = 2",
    "more rows with files elsewhere": "INSERT INTO Cache (key, raw, mode, filename, tag, size, store_time)"
    " VALUES ('0', 1, 2, '../../precious/file', (SELECT key FROM Cache WHERE mode = 1 LIMIT 1), 9, 0)",
}


@pytest.mark.parametrize("what", PLANTED_ROWS)
async def test_planted_rows_run_nothing_and_name_no_file_elsewhere(
    make: Make, origin: Origin, directory: Path, what: str
) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await is_right(session, origin, "/large1")
    await session.close()
    (precious := directory.parent / "precious" / "file").parent.mkdir()
    precious.write_bytes(b"precious")
    sprung = directory.parent / "sprung"
    connection = sqlite3.connect(database_of(directory))
    with connection:
        connection.execute(PLANTED_ROWS[what], {"trap": pickle.dumps(Trap(sprung)), "precious": str(precious)})
    connection.close()
    session = make()
    cache = get_cache(session)
    for _ in range(2):
        await is_right(session, origin, "/1")
        await is_right(session, origin, "/large1")
        await cache.urls()
        await cache.delete(url=origin.url("/1"))
        await cache.delete(url=origin.url("/large1"))
        await is_right(session, origin, "/1")
    await cache.remove_expired_responses(expire_after=1)
    await cache.verify(repair=True)
    await cache.clear()
    await is_right(session, origin, "/1")
    assert await is_right(session, origin, "/1")
    assert precious.read_bytes() == b"precious"
    assert not sprung.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
        "CREATE VIEW v AS SELECT * FROM Cache",
        "ALTER TABLE Cache ADD COLUMN more GENERATED ALWAYS AS (zeroblob(9)) VIRTUAL",
        "INSERT INTO Settings VALUES ('_directory', '/tmp')",
        "INSERT INTO Settings VALUES ('disk_x', 1)",
        "UPDATE Settings SET value = 'none' WHERE key = 'eviction_policy'",
        "UPDATE Settings SET value = 67108864 WHERE key = 'sqlite_mmap_size'",
        "DROP TABLE Settings",
    ],
)
async def test_a_database_with_a_will_of_its_own_is_set_aside(
    make: Make, origin: Origin, directory: Path, statement: str
) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await session.close()
    execute(directory, statement)
    session = make()
    assert not await is_right(session, origin, "/1")
    assert await is_right(session, origin, "/1")
    assert len(list(directory.glob("bad-*"))) == 1


async def test_a_planted_body_name_leads_nowhere_else(make: Make, origin: Origin, directory: Path) -> None:
    session = make()
    await is_right(session, origin, "/1")
    await session.close()
    # Sealed as a body of this name would be, so that nothing but its place is wrong with it.
    identifier, elsewhere = "../../../elsewhere", directory.with_name("elsewhere.body")
    elsewhere.write_bytes(b"planted" + crc32(f"{identifier}\nplanted".encode()).to_bytes(32, "big"))
    assert (directory / "v1" / body_name(identifier)).resolve() == elsewhere.resolve()
    plant(directory, sealed(key_in(directory), msgpack.packb(facts(reference=[identifier, 7])), kind=1))
    session = make()
    assert len((await get_cache(session).verify()).damaged) == 1
    assert not await is_right(session, origin, "/1")
    assert await is_right(session, origin, "/1")
    assert elsewhere.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes in the file system")
async def test_a_pipe_in_a_bodys_place_holds_nobody(make: Make, origin: Origin, directory: Path) -> None:
    session = make()
    await is_right(session, origin, "/large1")
    await written(session)
    (body,) = body_files(directory)
    body.unlink()
    os.mkfifo(body, 0o600)
    assert not await is_right(session, origin, "/large1")
    assert await is_right(session, origin, "/large1")


# --- the secret key ---


async def store_with(make: Make, origin: Origin, secret_key: Any) -> None:
    session = make(secret_key=secret_key)
    await is_right(session, origin, "/1")
    await is_right(session, origin, "/large1")
    await session.close()


KEYS = [
    pytest.param("a", "a", True, id="the same"),
    pytest.param(b"a", "a", True, id="as bytes or text"),
    pytest.param("a", ["b", "a"], True, id="rotated"),
    pytest.param(["b", "a"], "b", True, id="the first one writes"),
    pytest.param(["b", "a"], "a", False, id="the second one does not write"),
    pytest.param("a", "b", False, id="changed"),
    pytest.param("a", None, False, id="absent when reading"),
    pytest.param(None, "a", False, id="absent when writing"),
]


@pytest.mark.parametrize(("writing", "reading", "found"), KEYS)
async def test_entries_are_found_with_a_key_that_made_them(
    make: Make, origin: Origin, writing: Any, reading: Any, found: bool
) -> None:
    await store_with(make, origin, writing)
    session = make(secret_key=reading)
    assert await is_right(session, origin, "/1") is found
    assert await is_right(session, origin, "/large1") is found


async def test_with_a_secret_key_nothing_can_be_planted(make: Make, origin: Origin, directory: Path) -> None:
    session = make(secret_key="a")
    await is_right(session, origin, "/1")
    await session.close()
    key = key_in(directory)
    for forged in (sealed(key, msgpack.packb(facts()), b"planted"), Codec((b"guess",)).encode(key, stored_like(key))):
        plant(directory, forged)
        session = make(secret_key="a")
        assert not await is_right(session, origin, "/1")
        await session.close()


def stored_like(key: str) -> Any:
    return Codec().decode(key, sealed(key, msgpack.packb(facts()), b"planted"))


async def test_with_a_secret_key_a_body_can_not_be_exchanged(make: Make, origin: Origin, directory: Path) -> None:
    await store_with(make, origin, "a")
    (body,) = body_files(directory)
    identifier = body.parent.name + body.stem
    planted = bytes(body.stat().st_size - 32)
    body.write_bytes(planted + crc32(f"{identifier}\n".encode() + planted).to_bytes(32, "big"))
    assert not await is_right(make(secret_key="a"), origin, "/large1")


async def test_without_one_the_same_exchange_goes_unnoticed(make: Make, origin: Origin, directory: Path) -> None:
    """So that the test above is known to exchange it rightly."""
    await store_with(make, origin, None)
    (body,) = body_files(directory)
    identifier = body.parent.name + body.stem
    planted = bytes(body.stat().st_size - 32)
    body.write_bytes(planted + crc32(f"{identifier}\n".encode() + planted).to_bytes(32, "big"))
    assert await (await ask(make(), origin.url("/large1"))).text() == planted.decode()


# --- what is sent again ---


@pytest.mark.parametrize("cache_control", [False, True])
@pytest.mark.parametrize("value", ['"1"\r\nX-Evil: 1', '"1"\nX-Evil: 1', '"1"\0', "\udcff", '"é"'])
@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
async def test_no_planted_validator_breaks_a_request(
    make: Make, origin: Origin, directory: Path, clock: Clock, name: str, value: str, cache_control: bool
) -> None:
    session = make(cache_control=cache_control, expire_after=60)
    await is_right(session, origin, "/1")
    await session.close()
    metadata = msgpack.packb(facts(headers=[name, value], expires_time=T0 + 60), unicode_errors="surrogatepass")
    plant(directory, sealed(key_in(directory), metadata, b"planted"))
    clock.advance(61)
    session = make(cache_control=cache_control, expire_after=60)
    for _ in range(3):
        await is_right(session, origin, "/1")
    assert all("X-Evil" not in seen.headers for seen in origin.seen)


@pytest.mark.parametrize("cache_control", [False, True])
async def test_an_origins_own_odd_validators_break_no_request(
    make: Make, origin: Origin, clock: Clock, cache_control: bool
) -> None:
    @origin.on("/odd")
    async def odd(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.write(
            b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "\xff\xfe"\r\nLast-Modified: \xe9\r\n\r\nok'
        )
        request.transport.close()
        raise web.HTTPOk

    session = make(cache_control=cache_control, expire_after=60)
    for _ in range(3):
        assert await (await ask(session, origin.url("/odd"))).text() == "ok"
        clock.advance(61)
    assert len(origin.seen) == 3
    assert not any({"If-None-Match", "If-Modified-Since"} & set(seen.headers) for seen in origin.seen)
