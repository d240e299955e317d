"""What is remembered of requests: only what another request would ask again, and never who asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import ClientRequest, ClientSession
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_cache_middleware import CacheMiddleware, MemoryStore, get_cache
from aiohttp_cache_middleware import _inquiries as module
from aiohttp_cache_middleware._inquiries import Inquiries, Inquiry
from aiohttp_cache_middleware._lookup import Lookup
from aiohttp_cache_middleware._options import CacheOptions
from tests.asking import ask
from tests.conftest import Origin

PLAIN: dict[str, Any] = {"method": "GET", "url": "http://site.com/a?x=1"}


def request(session: ClientSession, *, method: str, url: str, **arguments: Any) -> ClientRequest:
    return ClientRequest(method, URL(url), session=session, loop=asyncio.get_running_loop(), **arguments)


Make = Callable[..., ClientSession]


async def asked(
    inquiries: Inquiries, session: ClientSession, options: CacheOptions | None = None, **how: Any
) -> Inquiry:
    """Ask as somebody who gets a stored answer."""
    one = request(session, **how)
    inquiry = await inquiries.understand(one, options)
    if inquiry.is_plain:
        inquiries.remember(one, inquiry)
    return inquiry


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
def cache() -> CacheMiddleware:
    return CacheMiddleware(store=MemoryStore(), include_headers=True, allowed_methods=("GET", "POST"))


@pytest.fixture
def inquiries(cache: CacheMiddleware) -> Inquiries:
    return cache._inquiries


async def test_the_same_request_asks_the_same(inquiries: Inquiries, session: ClientSession) -> None:
    inquiry = await asked(inquiries, session, **PLAIN)
    assert inquiries.remembered(request(session, **PLAIN)) is inquiry


@pytest.mark.parametrize(
    "other",
    [
        {"method": "HEAD"},
        {"url": "http://site.com/a?x=2"},
        {"url": "http://user@site.com/a?x=1"},
        {"headers": {"X-One": "1"}},
        {"headers": {"Accept": "text/html"}},
        {"headers": {"Range": "bytes=0-1"}},
        {"headers": {"Host": "elsewhere"}},
        {"headers": {"Authorization": "Bearer x"}},
        {"cookies": {"a": "1"}},
        {"data": b"x"},
        {"ssl": False},
        {"server_hostname": "elsewhere"},
    ],
    ids=str,
)
async def test_a_request_that_differs_asks_anew(
    inquiries: Inquiries, session: ClientSession, other: dict[str, Any]
) -> None:
    await asked(inquiries, session, **PLAIN)
    assert inquiries.remembered(request(session, **{**PLAIN, **other})) is None


async def test_another_session_that_decodes_otherwise_asks_anew(inquiries: Inquiries, session: ClientSession) -> None:
    await asked(inquiries, session, **PLAIN)
    async with ClientSession(auto_decompress=False) as other:
        assert inquiries.remembered(request(other, **PLAIN)) is None


@pytest.mark.parametrize(
    "personal",
    [
        {"headers": {"Authorization": "Bearer x"}},
        {"headers": {"Cookie": "a=1"}},
        {"cookies": {"a": "1"}},
        {"url": "http://user:password@site.com/a"},
        {"method": "POST", "data": b"x"},
    ],
    ids=str,
)
async def test_nothing_personal_is_remembered(
    inquiries: Inquiries, session: ClientSession, personal: dict[str, Any]
) -> None:
    await asked(inquiries, session, **{**PLAIN, **personal})
    assert inquiries.remembered(request(session, **{**PLAIN, **personal})) is None
    assert not inquiries._remembered


async def test_what_was_asked_with_options_is_not_remembered(inquiries: Inquiries, session: ClientSession) -> None:
    await asked(inquiries, session, CacheOptions(expire_after=1), **PLAIN)
    assert inquiries.remembered(request(session, **PLAIN)) is None


async def test_other_options_are_obeyed_at_once(
    cache: CacheMiddleware, inquiries: Inquiries, session: ClientSession
) -> None:
    await asked(inquiries, session, **PLAIN)
    cache.expire_after = 7
    assert inquiries.remembered(request(session, **PLAIN)) is None


async def test_what_was_asked_before_the_options_changed_is_not_remembered_after(
    cache: CacheMiddleware, inquiries: Inquiries, session: ClientSession
) -> None:
    one = request(session, **PLAIN)
    inquiry = await inquiries.understand(one, None)
    cache.expire_after = 0
    inquiries.remember(one, inquiry)  # its answer was slow
    assert inquiries.remembered(request(session, **PLAIN)) is None


async def test_memory_is_bounded(inquiries: Inquiries, session: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    for number in range(3):
        await asked(inquiries, session, method="GET", url=f"http://site.com/{number}")
    assert inquiries.remembered(request(session, method="GET", url="http://site.com/0")) is None
    assert inquiries.remembered(request(session, method="GET", url="http://site.com/2")) is not None


async def test_a_mutable_request_does_not_change_what_is_remembered(
    inquiries: Inquiries, session: ClientSession
) -> None:
    first = request(session, **PLAIN)
    inquiries.remember(first, await inquiries.understand(first, None))
    first.headers["X-One"] = "1"
    assert inquiries.remembered(first) is None
    assert inquiries.remembered(request(session, **PLAIN)) is not None


async def test_what_is_asked_but_once_is_not_remembered(make: Make, origin: Origin) -> None:
    session = make()
    inquiries = get_cache(session)._inquiries
    for number in range(3):
        await ask(session, origin.url(f"/{number}"))
    assert not inquiries._remembered
    await ask(session, origin.url("/0"))
    assert len(inquiries._remembered) == 1


NAMES = st.sampled_from(["Accept", "accept", "X-One", "x-one", "Range", "Host", "Authorization", "Cookie"])
ASKED = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "HEAD", "POST"]),
        "url": st.sampled_from(
            ["http://h", "http://h/", "http://h/#f", "http://h:80/", "http://h/?", "http://h/?a=1", "http://h/%61"]
        ),
        "headers": st.lists(st.tuples(NAMES, st.sampled_from(["", "1", "2"])), max_size=3),
    },
    optional={"data": st.sampled_from([b"", b"1"]), "ssl": st.just(False)},
)


@given(st.lists(ASKED, min_size=2, max_size=6))
def test_what_is_remembered_has_the_key_it_would_have_anew(requests: list[dict[str, Any]]) -> None:
    async def ask() -> None:
        cache = CacheMiddleware(store=MemoryStore(), include_headers=True, allowed_methods=("GET", "POST"))
        inquiries, lookup = cache._inquiries, Lookup(cache._core)
        async with ClientSession() as session:
            for one in requests:
                remembered = inquiries.remembered(request(session, **one))
                anew = await asked(inquiries, session, **one)
                if remembered is not None:
                    assert lookup.has_key(remembered)
                    assert lookup.has_key(anew)
                    assert remembered.key == anew.key
                    assert remembered.passing == anew.passing

    asyncio.run(ask())
