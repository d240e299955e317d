"""What a cache tells of itself, and what can be done to what it holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, InvalidURL, web
from yarl import URL

from aiohttp_cache_middleware import CacheMiddleware, CacheStats, DiskStore, MemoryStore, StoreError
from aiohttp_cache_middleware._model import FOREVER, StoredResponse
from tests.asking import ask, is_hit
from tests.conftest import T0, Clock, Origin, set_clock

NOW = datetime.fromtimestamp(T0, timezone.utc)


@pytest.fixture(params=["memory", "disk"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[CacheMiddleware]:
    async with CacheMiddleware(
        store=MemoryStore() if request.param == "memory" else DiskStore(tmp_path / "cache", max_size=None),
        expire_after=60,
        allowed_methods=("GET", "HEAD", "POST"),
    ) as cache:
        set_clock(cache, clock)
        yield cache


@pytest.fixture
async def session(cache: CacheMiddleware) -> AsyncIterator[ClientSession]:
    async with ClientSession(middlewares=[cache]) as session:
        yield session


def test_a_cache_shows_where_it_keeps(tmp_path: Path) -> None:
    assert repr(CacheMiddleware(tmp_path / "cache")) == f"<CacheMiddleware on DiskStore({str(tmp_path / 'cache')!r})>"
    assert repr(CacheMiddleware(store=MemoryStore())) == "<CacheMiddleware on <MemoryStore with 0 entries>>"


# --- disabled ---


@pytest.mark.parametrize("way", ["with", "async with"])
async def test_disabled_neither_reads_nor_writes(
    cache: CacheMiddleware, session: ClientSession, origin: Origin, way: str
) -> None:
    await ask(session, origin.url("/a"))

    async def ask_both() -> list[bool]:
        return [await is_hit(session, origin.url(path)) for path in ("/a", "/b", "/b")]

    if way == "with":
        with cache.disabled():
            assert cache.is_disabled
            assert await ask_both() == [False, False, False]
    else:
        async with cache.disabled():
            assert await ask_both() == [False, False, False]
    assert not cache.is_disabled
    assert await (await ask(session, origin.url("/a"))).text() == "/a #1"
    assert not await cache.contains(url=origin.url("/b"))


async def test_disabled_is_over_when_the_body_raises(cache: CacheMiddleware) -> None:
    with pytest.raises(KeyError), cache.disabled():
        raise KeyError
    with pytest.raises(KeyError):
        async with cache.disabled():
            raise KeyError
    assert not cache.is_disabled


async def test_disabled_may_be_nested_and_ends_one_by_one(cache: CacheMiddleware) -> None:
    block = cache.disabled()
    with block:
        with block, cache.disabled():
            assert cache.is_disabled
        assert cache.is_disabled
    assert not cache.is_disabled


async def test_disabled_may_be_entered_by_several_tasks_at_once(cache: CacheMiddleware) -> None:
    block = cache.disabled()
    has_entered, may_leave = asyncio.Event(), asyncio.Event()

    async def inner() -> bool:
        with block:
            has_entered.set()
            await may_leave.wait()
        return cache.is_disabled

    with block:
        task = asyncio.create_task(inner())
        await has_entered.wait()
    assert not cache.is_disabled
    may_leave.set()
    assert await task  # it was started inside


async def test_disabled_is_for_its_own_task_and_its_own_cache(
    cache: CacheMiddleware, session: ClientSession, origin: Origin
) -> None:
    await ask(session, origin.url("/a"))
    entered, done = asyncio.Event(), asyncio.Event()

    async def stay_inside() -> bool:
        with cache.disabled():
            entered.set()
            await done.wait()
            return await is_hit(session, origin.url("/a"))

    inside = asyncio.create_task(stay_inside())
    await entered.wait()
    with CacheMiddleware(store=MemoryStore()).disabled():
        assert await is_hit(session, origin.url("/a"))
    done.set()
    assert not await inside


# --- looking ---


async def test_a_stored_response_tells_about_itself(
    cache: CacheMiddleware, session: ClientSession, origin: Origin, clock: Clock
) -> None:
    origin.text("/a", "hello", X_One="1", Cache_Control="max-age=1")
    await ask(session, origin.url("/a?q=1#part"), headers={"X-Mine": "2", "Authorization": "Bearer secret"})
    clock.advance(5)
    ((key, entry),) = await cache.responses.items()
    assert entry.key == key
    assert (entry.method, entry.url, entry.status, entry.reason) == ("GET", origin.url("/a?q=1"), 200, "OK")
    assert (entry.body, entry.size) == (b"hello", 5)
    assert entry.headers["x-one"] == "1"
    assert entry.request_headers["x-mine"] == "2"
    assert "Authorization" not in entry.request_headers
    assert (entry.created_at, entry.expires) == (NOW, NOW + timedelta(seconds=60))
    assert origin.url("/a") in repr(entry)
    is_expired = [entry.is_expired]
    clock.advance(55)
    assert [*is_expired, entry.is_expired] == [False, True]


async def test_a_response_that_never_expires(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    cache.expire_after = -1
    await ask(session, origin.url("/a"))
    (entry,) = await cache.responses.values()
    assert entry.expires is None
    assert not entry.is_expired


async def test_responses_are_an_asynchronous_mapping(
    cache: CacheMiddleware, session: ClientSession, origin: Origin
) -> None:
    for path in ("/a", "/b"):
        await ask(session, origin.url(path))
    responses = cache.responses
    keys = await responses.keys()
    assert len(keys) == await responses.count() == 2
    assert {key async for key in responses} == set(keys)
    assert {key async for key in responses.keys()} == set(keys)  # noqa: SIM118 (no dict)
    assert {entry.url async for entry in responses.values()} == {origin.url("/a"), origin.url("/b")}
    assert {key: entry.key async for key, entry in responses.items()} == dict(zip(keys, keys, strict=True))
    entry = await responses.get(keys[0])
    assert entry is not None
    assert entry.key == keys[0]
    assert await responses.get("0" * 40) is None


async def test_a_response_knows_its_key(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    await ask(session, origin.url("/a"))
    response = await ask(session, origin.url("/a"))
    assert response.cache_key is not None
    entry = await cache.responses.get(response.cache_key)
    assert entry is not None
    assert entry.url == origin.url("/a")


async def test_a_response_can_be_deleted(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    for path in ("/a", "/b"):
        await ask(session, origin.url(path))
    (key,) = [key async for key, entry in cache.responses.items() if entry.url == origin.url("/a")]
    assert await cache.responses.delete(key)
    assert not await cache.responses.delete(key)
    assert not await is_hit(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/b"))


async def test_a_large_body_can_be_looked_at(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    origin.text("/a", bytes(range(256)) * 4096)
    await ask(session, origin.url("/a"))
    (entry,) = await cache.responses.values()
    assert entry.size == 2**20
    assert entry.body == bytes(range(256)) * 4096


async def test_urls_are_listed_once_each(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        return web.Response(headers={"Vary": "X-One"})

    assert await cache.urls() == []
    for value in ("1", "2"):
        await ask(session, origin.url("/a"), headers={"X-One": value})
    await ask(session, origin.url("/b"))
    await ask(session, origin.url("/b"), "HEAD")
    assert sorted(await cache.urls()) == sorted([origin.url("/a"), origin.url("/b")])
    assert sorted([url async for url in cache.urls()]) == sorted(await cache.urls())


@pytest.mark.parametrize("as_type", [str, URL], ids=["str", "URL"])
async def test_contains_and_delete_by_url(
    cache: CacheMiddleware, session: ClientSession, origin: Origin, as_type: Callable[[str], Any]
) -> None:
    await ask(session, origin.url("/a?x=1&y=2"))
    await ask(session, origin.url("/a?x=1&y=2"), "HEAD")
    await ask(session, origin.url("/a?x=1&y=2"), "POST", json={"a": 1})
    await ask(session, origin.url("/b"))
    url = as_type(origin.url("/a?y=2&x=1#part"))
    assert await cache.contains(url=url)
    assert await cache.contains(url)
    assert await cache.contains(url=url, method="head")
    assert not await cache.contains(url=url, method="PUT")
    assert not await cache.contains(url=as_type(origin.url("/a")))
    assert await cache.delete(url=url, method="post") == 1
    assert await cache.delete(url=url) == 2
    assert await cache.delete(url=url) == 0
    assert not await cache.contains(url=url)
    assert not await is_hit(session, origin.url("/a?x=1&y=2"))
    assert await cache.contains(url=origin.url("/b"))


async def test_contains_and_delete_by_key(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    await ask(session, origin.url("/a"))
    (key,) = await cache.responses.keys()
    assert await cache.contains(key=key)
    assert await cache.delete(key=key) == 1
    assert not await cache.contains(key=key)
    assert await cache.delete(key=key) == 0


@pytest.mark.parametrize("arguments", [{}, {"url": "http://a.example/", "key": "0" * 40}], ids=["neither", "both"])
async def test_exactly_one_of_url_and_key(cache: CacheMiddleware, arguments: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="url, key: give exactly one"):
        await cache.contains(**arguments)
    with pytest.raises(TypeError, match="url, key: give exactly one"):
        await cache.delete(**arguments)


async def test_all_variants_of_a_url_are_deleted(
    cache: CacheMiddleware, session: ClientSession, origin: Origin
) -> None:
    origin.text("/a", Vary="X-One")
    for value in ("1", "2", "3"):
        await ask(session, origin.url("/a"), headers={"X-One": value})
    assert await cache.responses.count() == 3
    assert await cache.delete(url=origin.url("/a")) == 3
    assert await cache.responses.count() == 0


async def test_what_is_stored_is_contained_whether_fresh_or_not(
    cache: CacheMiddleware, session: ClientSession, origin: Origin, clock: Clock
) -> None:
    origin.text("/a", ETag='"1"')
    await ask(session, origin.url("/a"))
    clock.advance(60)
    assert await cache.contains(url=origin.url("/a"))


# --- cleaning ---


async def test_clear(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    for path in ("/a", "/b"):
        await ask(session, origin.url(path))
    await cache.clear()
    assert await cache.responses.count() == 0
    assert await cache.urls() == []
    assert not await is_hit(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"))


async def test_what_has_expired_is_removed(
    cache: CacheMiddleware, session: ClientSession, origin: Origin, clock: Clock
) -> None:
    for path in ("/old", "/older"):
        origin.text(path, ETag='"1"')  # worth keeping, for revalidation
        await ask(session, origin.url(path))
    clock.advance(30)
    await ask(session, origin.url("/new"))
    assert await cache.remove_expired_responses() == 0
    clock.advance(30)
    assert await cache.remove_expired_responses() == 2
    assert await cache.urls() == [origin.url("/new")]


async def test_a_new_expiration_is_applied_first_counted_from_when_each_was_created(
    cache: CacheMiddleware, session: ClientSession, origin: Origin, clock: Clock
) -> None:
    for path in ("/a", "/b", "/c"):
        await ask(session, origin.url(path))
        clock.advance(10)
    assert await cache.remove_expired_responses(expire_after=timedelta(seconds=15)) == 2
    (entry,) = await cache.responses.values()
    assert entry.url == origin.url("/c")
    assert entry.expires == NOW + timedelta(seconds=35)


async def test_an_expiration_can_be_lengthened(
    cache: CacheMiddleware, session: ClientSession, origin: Origin, clock: Clock
) -> None:
    await ask(session, origin.url("/a"))
    assert await cache.remove_expired_responses(expire_after=-1) == 0
    clock.advance(10**8)
    hit = await ask(session, origin.url("/a"))
    assert (hit.from_cache, hit.expires) == (True, None)


async def test_zero_expires_everything(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    await ask(session, origin.url("/a"))
    assert await cache.remove_expired_responses(expire_after=0) == 1
    assert await cache.responses.count() == 0


async def test_a_wrong_expiration_changes_nothing(
    cache: CacheMiddleware, session: ClientSession, origin: Origin
) -> None:
    await ask(session, origin.url("/a"))
    with pytest.raises(ValueError, match=r"expire_after.*-3"):
        await cache.remove_expired_responses(expire_after=-3)
    assert await cache.responses.count() == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (60, 60),
        (timedelta(minutes=1), 60),
        (NOW, NOW),
        (datetime.max, datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)),
        (datetime.min, datetime.min.replace(tzinfo=timezone.utc)),
        ("Tue, 14 Nov 2023 22:13:20 GMT", NOW),
        (-1, -1),
        (None, None),
        (0, 0),
    ],
)
async def test_expire_after_can_be_set_and_read(cache: CacheMiddleware, value: Any, shown: object) -> None:
    cache.expire_after = value
    assert cache.expire_after == shown


@pytest.mark.parametrize("nonsense", [-2, True, "soon", float("nan")], ids=repr)
async def test_expire_after_set_to_nonsense_stays_what_it_was(cache: CacheMiddleware, nonsense: Any) -> None:
    with pytest.raises(ValueError, match="expire_after"):
        cache.expire_after = nonsense
    assert cache.expire_after == 60


# --- checking and closing ---


async def test_verify_finds_nothing_wrong(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    origin.text("/large", bytes(2**20))
    for path in ("/a", "/large"):
        await ask(session, origin.url(path))
    report = await cache.verify()
    assert (report.ok, report.entries, report.damaged) == (True, 2, ())


async def test_a_closed_cache_opens_again_when_it_is_used(
    cache: CacheMiddleware, session: ClientSession, origin: Origin
) -> None:
    await ask(session, origin.url("/a"))
    await cache.aclose()
    await cache.aclose()
    assert await is_hit(session, origin.url("/a"))
    assert await cache.urls() == [origin.url("/a")]


async def test_a_cache_is_an_asynchronous_context_manager(tmp_path: Path, origin: Origin) -> None:
    for expected in (False, True):
        async with CacheMiddleware(tmp_path) as cache, ClientSession(middlewares=[cache]) as session:
            assert await is_hit(session, origin.url("/a")) is expected


async def test_stats_are_a_snapshot(cache: CacheMiddleware, session: ClientSession, origin: Origin) -> None:
    before = cache.stats
    await ask(session, origin.url("/a"))
    assert isinstance(before, CacheStats)
    assert (before.misses, cache.stats.misses) == (0, 1)
    with pytest.raises(AttributeError):
        before.misses = 7  # type: ignore[misc]


async def test_who_manages_a_store_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    cache = CacheMiddleware(tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").touch()
    with pytest.raises(StoreError):
        await cache.urls()
    with pytest.raises(StoreError):
        await cache.contains(url="http://a.example/")


# --- many entries ---

MANY = 100_000


@pytest.mark.slow
async def test_a_store_of_many_entries_is_managed_a_page_at_a_time(tmp_path: Path, clock: Clock) -> None:
    store = DiskStore(tmp_path / "cache", max_size=None)
    for number in range(MANY):
        key = f"{number:040x}"
        response = StoredResponse(
            key=key,
            method="GET",
            url=f"http://example.org/{number}",
            status=200,
            reason="OK",
            version=(1, 1),
            headers=(("ETag", '"1"'),),
            request_time=T0,
            response_time=T0,
            created_time=T0,
            expires_time=T0 + 10 if number % 2 else FOREVER,
            body=b"%d" % number,
        )
        while not store.put(key, response, tag=key):
            await store.flush()
    await store.flush()
    cache = CacheMiddleware(store=store)
    set_clock(cache, clock)
    async with cache:
        assert await cache.responses.count() == MANY
        pages = 0
        async for _ in cache.urls():
            pages += 1
            if pages == 10:
                break  # need not go through all of them
        entry = await cache.responses.get(f"{7:040x}")
        assert entry is not None
        assert entry.body == b"7"
        clock.advance(20)
        assert await cache.remove_expired_responses() == MANY // 2
        assert await cache.responses.count() == MANY // 2
        await cache.clear()
        assert await cache.responses.count() == 0


async def test_a_method_may_be_given_in_any_case(
    session: ClientSession, cache: CacheMiddleware, origin: Origin
) -> None:
    await ask(session, origin.url("/a"))
    (key,) = await cache.responses.keys()
    assert await cache.contains(key=key, method="get")
    assert await cache.contains(url=origin.url("/a"), method="get")


async def test_a_url_has_to_be_absolute(cache: CacheMiddleware) -> None:
    for ask_for in (cache.contains, cache.delete, cache.redirects.get):
        with pytest.raises(InvalidURL, match="/relative"):
            await ask_for("/relative")


@pytest.mark.parametrize("url", [7, b"http://a.example/", "http://[::1", "http://a.example:99999/"], ids=repr)
async def test_what_is_no_url_is_named(cache: CacheMiddleware, url: Any) -> None:
    for ask_for in (cache.contains, cache.delete, cache.redirects.get, partial(cache.explain, "GET")):
        with pytest.raises((TypeError, InvalidURL), match=re.escape(str(url))):
            await ask_for(url)


async def test_what_is_no_key_and_no_method_is_named(cache: CacheMiddleware) -> None:
    for ask_for in (cache.contains, cache.delete):
        with pytest.raises(TypeError, match=r"key: .* got 7"):
            await ask_for(key=7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"method: .* got 7"):
            await ask_for("http://a.example/", method=7)  # type: ignore[arg-type]
    for look_for in (cache.responses.get, cache.responses.delete):
        with pytest.raises(TypeError, match=r"key: .* got 7"):
            await look_for(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"method: .* got 7"):
        await cache.explain(7, "http://a.example/")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "1 GB"], ids=repr)
def test_a_stores_size_is_a_number_of_bytes(tmp_path: Path, size: Any) -> None:
    for make_store in (MemoryStore, partial(DiskStore, tmp_path)):
        with pytest.raises((TypeError, ValueError), match=f"max_size: .* got {size!r}"):
            make_store(max_size=size)


def test_a_stores_secret_keys_are_checked_when_they_are_given(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="secret_keys"):
        DiskStore(tmp_path, max_size=None, secret_keys=7)  # type: ignore[arg-type]


def test_whether_a_store_compresses_is_checked_when_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"compress: .* got 'zlib'"):
        DiskStore(tmp_path, max_size=None, compress="zlib")  # type: ignore[arg-type]


async def test_a_stores_one_secret_key_is_no_sequence_of_letters(tmp_path: Path, origin: Origin) -> None:
    for key in ("geheim", b"geheim", ["geheim"]):
        cache = CacheMiddleware(store=DiskStore(tmp_path, max_size=None, secret_keys=key))
        async with cache, ClientSession(middlewares=[cache]) as session:
            await ask(session, origin.url("/a"))
    assert origin.count == 1
