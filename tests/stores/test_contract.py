"""What every store promises."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from math import inf

import pytest

from aiohttp_cache_middleware import StoreError
from aiohttp_cache_middleware._model import BodyRef, Entry, StoredResponse, Variant, VariantIndex
from aiohttp_cache_middleware._stores import DiskStore, MemoryStore, Store

from .samples import T0, Clock, a_response, key_of

LARGE = os.urandom(700_000)


async def body_of(store: Store, key: str) -> bytes:
    entry = await store.get(key)
    assert isinstance(entry, StoredResponse)
    if isinstance(entry.body, bytes):
        return entry.body
    reader = await store.open_body(key, entry.body)
    assert reader is not None
    assert reader.size == entry.size
    pieces = []
    while piece := await reader.read(100_000):
        pieces.append(piece)
    assert reader.load() == b"".join(pieces)
    reader.close()
    reader.close()
    return b"".join(pieces)


def put(store: Store, number: int, **changes: object) -> bool:
    return store.put(key_of(number), a_response(number, **changes), tag=f"tag {number % 2}")


async def keys(store: Store) -> set[str]:
    return {key async for key, _ in store.scan()}


async def test_nothing_is_there_at_first(store: Store) -> None:
    assert await store.get(key_of(1)) is None
    assert await store.count() == 0
    assert await keys(store) == set()
    store.delete(key_of(1))


@pytest.mark.parametrize("flushed", [False, True])
async def test_what_was_put_is_there(store: Store, flushed: bool) -> None:
    assert put(store, 1)
    if flushed:
        await store.flush()
    assert await store.get(key_of(1)) == a_response(1)
    assert await store.get(key_of(2)) is None


@pytest.mark.parametrize("flushed", [False, True])
async def test_what_was_put_last_counts(store: Store, flushed: bool) -> None:
    put(store, 1, body=b"first")
    if flushed:
        await store.flush()
        assert await body_of(store, key_of(1)) == b"first"
    put(store, 1, body=b"second")
    if flushed:
        await store.flush()
    assert await body_of(store, key_of(1)) == b"second"
    assert await store.count() == 1


@pytest.mark.parametrize("flushed", [False, True])
async def test_what_was_deleted_is_gone(store: Store, flushed: bool) -> None:
    put(store, 1)
    if flushed:
        await store.flush()
    store.delete(key_of(1))
    assert await store.get(key_of(1)) is None
    await store.flush()
    assert await store.get(key_of(1)) is None
    assert await store.count() == 0


async def test_indexes_are_kept_and_do_not_count_as_responses(store: Store) -> None:
    index = VariantIndex("http://example.org/", (Variant(key_of(2), (("accept", b"\x01"),)), Variant(key_of(3), ())))
    store.put(key_of(1), index, tag="tag")
    await store.flush()
    assert await store.get(key_of(1)) == index
    assert await store.count() == 0


@pytest.mark.parametrize("flushed", [False, True])
async def test_entries_are_found_by_their_tag(store: Store, flushed: bool) -> None:
    for number in range(6):
        put(store, number)
    if flushed:
        await store.flush()
    store.delete(key_of(4))
    assert sorted(await store.tagged("tag 0")) == [key_of(0), key_of(2)]
    assert await store.tagged("tag 2") == []


async def test_a_tag_is_replaced_with_its_entry(store: Store) -> None:
    put(store, 1)
    await store.flush()
    store.put(key_of(1), a_response(1), tag="another")
    assert await store.tagged("tag 1") == []
    assert await store.tagged("another") == [key_of(1)]


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
async def test_bodies_of_any_size_come_back_as_they_were(store: Store, size: int) -> None:
    body = os.urandom(size)
    put(store, 1, body=body)
    assert await body_of(store, key_of(1)) == body
    await store.flush()
    assert await body_of(store, key_of(1)) == body


@pytest.mark.parametrize("sizes", [[0], [1] * 50, [200_000] * 20, [5_000_000]])
async def test_a_spooled_body_takes_the_place_of_the_entrys(store: Store, sizes: list[int]) -> None:
    chunks = [os.urandom(size) for size in sizes]
    spool = store.spool()
    for chunk in chunks:
        spool.write(chunk)
        await spool.drain()
        assert spool.pending <= max(1024 * 1024, len(chunk))
    assert spool.size == sum(sizes)
    assert spool.load() == b"".join(chunks)
    assert store.put(key_of(1), a_response(1), tag="tag", spool=spool)
    spool.discard()
    spool.write(b"too late")
    assert await body_of(store, key_of(1)) == b"".join(chunks)
    await store.flush()
    assert await body_of(store, key_of(1)) == b"".join(chunks)


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_a_spooled_body_beyond_half_the_room_is_refused(
    kind: str, make_disk_store: Callable[..., DiskStore]
) -> None:
    store: Store = MemoryStore(max_size=1_000_000) if kind == "memory" else make_disk_store(max_size=1_000_000)
    spool = store.spool()
    spool.write(LARGE)
    with pytest.raises(StoreError):
        spool.load()
    assert not store.put(key_of(1), a_response(1), tag="tag", spool=spool)
    assert await store.get(key_of(1)) is None


async def test_a_spool_may_be_given_up(store: Store) -> None:
    spool = store.spool()
    spool.write(LARGE)
    spool.discard()
    spool.discard()
    await spool.drain()
    await store.flush()
    assert await store.count() == 0


async def test_freshening_keeps_the_body(store: Store) -> None:
    put(store, 1, body=LARGE)
    await store.flush()
    entry = await store.get(key_of(1))
    assert isinstance(entry, StoredResponse)
    store.put(key_of(1), entry.replace(status=203), tag="tag 1")
    await store.flush()
    freshened = await store.get(key_of(1))
    assert isinstance(freshened, StoredResponse)
    assert freshened.status == 203
    assert await body_of(store, key_of(1)) == LARGE


async def test_an_open_body_is_read_to_its_end_whatever_happens_to_its_entry(store: Store) -> None:
    put(store, 1, body=LARGE)
    entry = await store.get(key_of(1))
    assert isinstance(entry, StoredResponse)
    if isinstance(entry.body, bytes):
        pytest.skip("this store keeps bodies in entries")
    reader = await store.open_body(key_of(1), entry.body)
    assert reader is not None
    first = await reader.read(10)
    put(store, 1, body=b"another")
    await store.flush()
    await store.clear()
    assert first + await reader.read(len(LARGE)) == LARGE
    assert await reader.read(1) == b""
    reader.close()


async def test_a_body_that_is_not_there_takes_its_entry_along(store: Store) -> None:
    missing = BodyRef("0" * 32, 10)
    store.put(key_of(1), a_response(1, body=missing), tag="tag")
    await store.flush()
    assert await store.open_body(key_of(1), missing) is None
    assert await store.get(key_of(1)) is None


async def test_a_body_of_an_older_response_leaves_the_newer_entry_alone(store: Store) -> None:
    put(store, 1, body=LARGE)
    old = await store.get(key_of(1))
    assert isinstance(old, StoredResponse)
    if isinstance(old.body, bytes):
        pytest.skip("this store keeps bodies in entries")
    put(store, 1, body=b"newer")
    await store.flush()
    assert await store.open_body(key_of(1), old.body) is None
    assert await body_of(store, key_of(1)) == b"newer"


async def test_what_is_useless_is_still_there_until_its_room_is_needed(store: Store, clock: Clock) -> None:
    store.put(key_of(1), a_response(1), tag="tag", is_kept_stale=False)
    await store.flush()
    clock.advance(1000)
    assert await store.get(key_of(1)) == a_response(1)
    assert await keys(store) == {key_of(1)}
    assert await store.count() == 1


async def test_scanning_gives_every_entry_once(store: Store) -> None:
    for number in range(300):
        put(store, number)
    found = [(key, entry) async for key, entry in store.scan()]
    assert sorted(key for key, _ in found) == [key_of(number) for number in range(300)]
    assert all(isinstance(entry, StoredResponse) and entry.key == key for key, entry in found)


async def test_scanning_may_be_given_up(store: Store) -> None:
    for number in range(300):
        put(store, number)
    async for key, _ in store.scan():
        assert key
        break
    assert await store.count() == 300


async def test_rewriting_keeps_replaces_and_removes(store: Store) -> None:
    for number in range(300):
        put(store, number)
    store.put("f" * 40, VariantIndex("http://example.org/", ()), tag="tag")

    def change(key: str, entry: Entry) -> Entry | None:
        if not isinstance(entry, StoredResponse):
            return None
        number = int(key, 16)
        return (entry, entry.replace(status=203), None)[number % 3]

    assert await store.rewrite(change) == (100, 100)
    for number, status in ((0, 200), (1, 203)):
        entry = await store.get(key_of(number))
        assert isinstance(entry, StoredResponse)
        assert entry.status == status
    assert await store.get(key_of(2)) is None
    assert await store.get("f" * 40) is None
    assert await store.count() == 200


@pytest.mark.parametrize("is_kept_stale", [True, False])
async def test_rewriting_what_has_expired_looks_at_nothing_else(store: Store, is_kept_stale: bool) -> None:
    expires = [T0 + 10, T0 + 20 - 1e-3, T0 + 20, T0 + 20 + 1e-3, T0 + 30, inf, 0.0, -1e9, 1e300]
    for number, expires_time in enumerate(expires * 40):
        entry = a_response(number, expires_time=expires_time)
        store.put(key_of(number), entry, tag="tag", is_kept_stale=is_kept_stale)
    store.put("f" * 40, VariantIndex("http://example.org/", ()), tag="tag")
    seen: list[float] = []

    def remove(key: str, entry: Entry) -> Entry | None:
        assert isinstance(entry, StoredResponse)
        seen.append(entry.expires_time)
        return None if entry.expires_time > 0 else entry

    assert await store.rewrite(remove, expired_by=T0 + 20) == (0, 120)
    assert sorted(seen) == sorted([T0 + 10, T0 + 20 - 1e-3, T0 + 20, 0.0, -1e9] * 40)
    assert await store.count() == 6 * 40


@pytest.mark.parametrize("is_kept_stale", [True, False])
async def test_what_was_rewritten_expires_at_its_new_time(store: Store, is_kept_stale: bool) -> None:
    store.put(key_of(1), a_response(1, expires_time=T0 + 10), tag="tag", is_kept_stale=is_kept_stale)

    def renew(key: str, entry: Entry) -> Entry:
        assert isinstance(entry, StoredResponse)
        return entry.replace(expires_time=T0 + 20)

    await store.rewrite(renew)
    assert await store.rewrite(lambda *_: None, expired_by=T0 + 15) == (0, 0)
    assert await store.rewrite(lambda *_: None, expired_by=T0 + 25) == (0, 1)


async def test_clearing_removes_everything(store: Store) -> None:
    for number in range(300):
        put(store, number, body=LARGE if number < 2 else b"small")
    assert await store.count() == 300
    await store.clear()
    assert await store.count() == 0
    assert await store.get(key_of(5)) is None
    assert await store.tagged("tag 0") == []
    put(store, 1)
    assert await store.get(key_of(1)) == a_response(1)


async def test_a_sound_store_verifies(store: Store) -> None:
    for number in range(3):
        put(store, number, body=LARGE)
    report = await store.verify()
    assert report.ok
    assert report.entries == 3


async def test_volume_counts_everything(store: Store) -> None:
    put(store, 1, body=LARGE)
    put(store, 2)
    await store.flush()
    assert await store.volume() > len(LARGE)


async def test_the_secret_stays_the_same(store: Store) -> None:
    secret = await store.secret()
    assert len(secret) == 32
    await store.clear()
    assert await store.secret() == secret


async def test_a_closed_store_opens_again(store: Store) -> None:
    put(store, 1)
    put(store, 2, body=LARGE)
    secret = await store.secret()
    await store.aclose()
    assert await store.get(key_of(1)) == a_response(1)
    assert await body_of(store, key_of(2)) == LARGE
    assert await store.secret() == secret
    await store.aclose()
    await store.aclose()


async def test_a_claim_may_be_taken_back(store: Store) -> None:
    assert store.claim(key_of(1))
    store.unclaim(key_of(1))
    assert store.claim(key_of(1))
    store.unclaim(key_of(1))
    store.unclaim(key_of(2))


def test_loops_may_come_and_go(store: Store) -> None:
    async def use(number: int) -> None:
        put(store, number)
        put(store, number + 10, body=LARGE)
        assert await body_of(store, key_of(number + 10)) == LARGE
        for earlier in range(number + 1):
            assert await store.get(key_of(earlier)) is not None

    for number in range(3):
        asyncio.run(use(number))


def test_loops_in_several_threads_share_a_store(store: Store) -> None:
    failures: list[BaseException] = []

    async def use(thread: int) -> None:
        for number in range(50):
            key = thread * 1000 + number
            assert put(store, key)
            assert await store.get(key_of(key)) == a_response(key)
            if number % 10 == 0:
                await store.flush()
                assert await store.get(key_of(key)) == a_response(key)

    def run(thread: int) -> None:
        try:
            asyncio.run(use(thread))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert asyncio.run(store.count()) == 150


def test_a_store_made_outside_a_loop_takes_entries_outside_one(store: Store) -> None:
    assert put(store, 1)
    assert asyncio.run(store.get(key_of(1))) == a_response(1)
