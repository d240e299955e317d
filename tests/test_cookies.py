"""Cookies: shown on a hit, never replayed into the jar unless asked for, and part of the key where the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.cookies import Morsel
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar, web
from yarl import URL

from aiohttp_cache_middleware import CacheOptions, get_cache
from tests.asking import ask, is_hit
from tests.conftest import Clock, Origin

Make = Callable[..., ClientSession]


def jar_of(session: ClientSession) -> dict[str, str]:
    return {cookie.key: cookie.value for cookie in session.cookie_jar}


def setting(origin: Origin, path: str, *set_cookies: str, **headers: str) -> None:
    @origin.on(path)
    async def answer(request: web.Request) -> web.Response:
        response = web.Response(text="hello", headers=headers)
        for one in set_cookies:
            response.headers.add("Set-Cookie", one)
        return response


def unsafe_jar() -> CookieJar:
    """A jar that takes cookies of an IP address, which the origin's host is."""
    return CookieJar(unsafe=True)


async def test_a_stored_cookie_is_shown_and_does_not_touch_the_jar(make: Make, origin: Origin) -> None:
    setting(origin, "/login", "user=alice; Path=/", "theme=dark")
    async with make(cookie_jar=unsafe_jar()) as session:
        first = await ask(session, origin.url("/login"))
        assert jar_of(session) == {"user": "alice", "theme": "dark"}
    session = make(cookie_jar=unsafe_jar())
    second = await ask(session, origin.url("/login"))
    assert second.from_cache
    for response in (first, second):
        assert {name: cookie.value for name, cookie in response.cookies.items()} == {"user": "alice", "theme": "dark"}
    assert second.headers.getall("Set-Cookie") == ["user=alice; Path=/", "theme=dark"]
    assert jar_of(session) == {}


async def test_restore_cookies_gives_them_back(make: Make, origin: Origin) -> None:
    setting(origin, "/login", "user=alice; Path=/")
    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/login"))
    session = make(cookie_jar=unsafe_jar(), restore_cookies=True)
    assert await is_hit(session, origin.url("/login"))
    assert jar_of(session) == {"user": "alice"}


class Unlisted(CookieJar):
    """A jar of the caller's that can't be iterated over, which aiohttp never does."""

    def __iter__(self) -> Iterator[Morsel[str]]:
        raise NotImplementedError


async def test_a_jar_that_fails_harms_no_hit(make: Make, origin: Origin) -> None:
    setting(origin, "/login", "user=alice; Path=/")
    session = make(cookie_jar=Unlisted(), restore_cookies=True)
    assert [await is_hit(session, origin.url("/login")) for _ in range(2)] == [False, True]


async def test_restore_cookies_replaces_none_that_the_jar_holds(make: Make, origin: Origin) -> None:
    setting(origin, "/login", "user=alice; Path=/")
    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/login"))
    setting(origin, "/other", "user=bob; Path=/")
    session = make(cookie_jar=unsafe_jar(), restore_cookies=True)
    await ask(session, origin.url("/other"))
    assert await is_hit(session, origin.url("/login"))
    assert jar_of(session) == {"user": "bob"}


@pytest.mark.parametrize(
    ("set_cookie", "is_restored"),
    [
        ("user=alice; Max-Age=60", False),
        ("user=alice; Max-Age=600", True),
        ("user=alice; Max-Age=0", False),
        ("user=alice; Expires=Tue, 14 Nov 2023 22:14:20 GMT", False),
        ("user=alice; Expires=Wed, 15 Nov 2073 22:14:20 GMT", True),
        ("user=alice; Max-Age=600; Expires=Tue, 14 Nov 2023 22:14:20 GMT", True),
        ("user=alice; Expires=nonsense", True),
    ],
)
async def test_restore_cookies_revives_none_that_has_expired(
    make: Make, origin: Origin, clock: Clock, set_cookie: str, is_restored: bool
) -> None:
    setting(origin, "/login", set_cookie)
    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/login"))
    clock.advance(100)
    session = make(cookie_jar=unsafe_jar(), restore_cookies=True)
    assert await is_hit(session, origin.url("/login"))
    assert bool(jar_of(session)) is is_restored


async def test_cookies_that_servers_put_into_the_jar_are_not_part_of_the_key(make: Make, origin: Origin) -> None:
    @origin.on("/balanced")
    async def answer(request: web.Request) -> web.Response:
        response = web.Response(text="hello")
        response.set_cookie("balancer", str(origin.count))
        return response

    session = make(cookie_jar=unsafe_jar())
    await ask(session, origin.url("/balanced?1"))
    await ask(session, origin.url("/balanced?2"))
    assert origin.seen[1].headers["Cookie"] == "balancer=1"
    assert await is_hit(session, origin.url("/balanced?1"))


async def test_a_sessions_own_cookies_are_not_part_of_the_key(make: Make, origin: Origin) -> None:
    async with make(cookies={"a": "1"}, cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/a"))
        assert origin.seen[0].headers["Cookie"] == "a=1"
    session = make(cookies={"a": "2"}, cookie_jar=unsafe_jar())
    assert await is_hit(session, origin.url("/a"))


@pytest.mark.parametrize(
    "passed",
    [{"cookies": {"user": "alice"}}, {"headers": {"Cookie": "user=alice"}}],
    ids=["cookies=", "header"],
)
async def test_cookies_that_the_caller_passes_are_part_of_the_key(
    make: Make, origin: Origin, passed: dict[str, Any]
) -> None:
    session = make()
    await ask(session, origin.url("/a"), **passed)
    assert origin.seen[0].headers["Cookie"] == "user=alice"
    assert await is_hit(session, origin.url("/a"), cookies={"user": "alice"})
    assert not await is_hit(session, origin.url("/a"), cookies={"user": "bob"})
    assert not await is_hit(session, origin.url("/a"))


async def test_ignoring_cookie_turns_that_off(make: Make, origin: Origin) -> None:
    session = make(ignored_params=["cookie"])
    await ask(session, origin.url("/a"), cookies={"user": "alice"})
    assert await is_hit(session, origin.url("/a"), cookies={"user": "bob"})


@pytest.mark.parametrize(
    "headers",
    [{"Vary": "Cookie", "Cache-Control": "max-age=60"}, {"Cache-Control": "max-age=60, PRIVATE"}],
    ids=["Vary: Cookie", "private"],
)
@pytest.mark.parametrize("cache_control", [False, True], ids=["default mode", "HTTP mode"])
async def test_a_response_for_these_cookies_answers_only_requests_with_the_same(
    make: Make, origin: Origin, headers: dict[str, str], cache_control: bool
) -> None:
    setting(origin, "/a", **headers)
    session = make(cookie_jar=unsafe_jar(), cache_control=cache_control)
    session.cookie_jar.update_cookies({"user": "alice"})
    await ask(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"))
    session.cookie_jar.update_cookies({"user": "bob"})
    assert not await is_hit(session, origin.url("/a"))
    session.cookie_jar.clear()
    assert not await is_hit(session, origin.url("/a"))
    session.cookie_jar.update_cookies({"user": "alice"})
    assert await is_hit(session, origin.url("/a"))


async def test_private_without_cookies_is_for_any_request(make: Make, origin: Origin) -> None:
    setting(origin, "/a", **{"Cache-Control": "private"})
    session = make()
    await ask(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"))


async def test_a_cookie_that_comes_with_a_304_reaches_the_jar(make: Make, origin: Origin) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        response = web.Response(status=304 if "If-None-Match" in request.headers else 200, headers={"ETag": '"1"'})
        response.set_cookie("count", str(origin.count))
        return response

    session = make(cookie_jar=unsafe_jar())
    await ask(session, origin.url("/a"))
    assert await is_hit(session, origin.url("/a"), trace_request_ctx=CacheOptions(refresh=True))
    assert jar_of(session) == {"count": "2"}


async def test_a_redirect_that_sets_a_cookie_does_so_once(make: Make, origin: Origin) -> None:
    @origin.on("/login")
    async def answer(request: web.Request) -> web.Response:
        response = web.Response(status=302, headers={"Location": "/home"})
        response.set_cookie("user", "alice")
        return response

    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/login"))
        assert jar_of(session) == {"user": "alice"}
    session = make(cookie_jar=unsafe_jar())
    response = await ask(session, origin.url("/login"))
    assert response.from_cache
    assert response.history[0].cookies["user"].value == "alice"
    assert jar_of(session) == {}
    assert await get_cache(session).responses.count() == 2


@pytest.mark.parametrize("cache_control", [False, True])
async def test_restore_cookies_counts_a_lifetime_from_when_the_cookie_came(
    make: Make, origin: Origin, clock: Clock, cache_control: bool
) -> None:
    @origin.on("/login")
    async def answer(request: web.Request) -> web.Response:
        if "If-None-Match" in request.headers:
            return web.Response(status=304, headers={"ETag": '"a"'})
        return web.Response(text="", headers={"ETag": '"a"', "Set-Cookie": "user=alice; Max-Age=60"})

    async with make(expire_after=10, cookie_jar=unsafe_jar(), cache_control=cache_control) as session:
        await ask(session, origin.url("/login"))
        for _ in range(2):
            clock.advance(50)
            assert (await ask(session, origin.url("/login"))).cookies["user"].value == "alice"
    session = make(cookie_jar=unsafe_jar(), restore_cookies=True, cache_control=cache_control)
    assert await is_hit(session, origin.url("/login"))
    assert jar_of(session) == {}


async def test_restore_cookies_replaces_none_of_the_sessions_own(make: Make, origin: Origin) -> None:
    setting(origin, "/login", "user=alice; Path=/", "theme=dark; Path=/")
    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/login"))
    session = make(cookie_jar=unsafe_jar(), cookies={"user": "mine"}, restore_cookies=True)
    assert await is_hit(session, origin.url("/login"))
    sent = session.cookie_jar.filter_cookies(URL(origin.url("/login")))
    assert {name: cookie.value for name, cookie in sent.items()} == {"user": "mine", "theme": "dark"}


async def test_restore_cookies_knows_paths_as_the_jar_does(make: Make, origin: Origin) -> None:
    setting(origin, "/ä/x", "user=alice")
    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/ä/x"))
    setting(origin, "/ä/y", "user=bob")
    session = make(cookie_jar=unsafe_jar(), restore_cookies=True)
    await ask(session, origin.url("/ä/y"))
    assert await is_hit(session, origin.url("/ä/x"))
    assert jar_of(session) == {"user": "bob"}


async def test_restore_cookies_gives_back_two_of_one_name(make: Make, origin: Origin) -> None:
    setting(origin, "/m/x", "a=1; Path=/", "a=2; Path=/m")
    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/m/x"))
    session = make(cookie_jar=unsafe_jar(), restore_cookies=True)
    assert await is_hit(session, origin.url("/m/x"))
    assert {(cookie["path"], cookie.value) for cookie in session.cookie_jar} == {("/", "1"), ("/m", "2")}


async def test_restore_cookies_revives_none_that_the_same_response_deletes(make: Make, origin: Origin) -> None:
    setting(origin, "/login", "a=1; Path=/", "a=; Max-Age=0; Path=/", "b=2; Path=/")
    async with make(cookie_jar=unsafe_jar()) as session:
        await ask(session, origin.url("/login"))
        assert jar_of(session) == {"b": "2"}
    session = make(cookie_jar=unsafe_jar(), restore_cookies=True)
    assert await is_hit(session, origin.url("/login"))
    assert jar_of(session) == {"b": "2"}


async def test_a_cookie_of_the_jar_may_hold_a_semicolon(make: Make, origin: Origin) -> None:
    setting(origin, "/login", 'a="b;c"; Path=/')
    session = make(cookie_jar=unsafe_jar())
    await ask(session, origin.url("/login"))
    await ask(session, origin.url("/page"))
    session.cookie_jar.clear()
    assert await is_hit(session, origin.url("/page"))
