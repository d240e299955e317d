"""Users kept apart, and their secrets off the disk."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, CookieJar, web
from yarl import URL

from aiohttp_cache_middleware import CacheOptions, cache_trace_config, get_cache
from aiohttp_cache_middleware._model import has_expired
from tests.asking import ask, is_hit
from tests.conftest import Clock, Origin

Make = Callable[..., ClientSession]

SECRET = "hunter2secret"
"""What must not be found on disk."""


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def echo_user(origin: Origin) -> None:
    @origin.on("/me")
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("Authorization") or request.headers.get("Cookie") or "nobody")


@pytest.mark.parametrize(
    ("alice", "bob"),
    [
        pytest.param(
            {"headers": {"Authorization": "Bearer alice"}}, {"headers": {"Authorization": "Bearer bob"}}, id="bearer"
        ),
        pytest.param(
            {"headers": {"Authorization": basic("alice", "1")}},
            {"headers": {"Authorization": basic("alice", "2")}},
            id="password",
        ),
        pytest.param({"cookies": {"user": "alice"}}, {"cookies": {"user": "bob"}}, id="cookies"),
        pytest.param({"headers": {"Cookie": "u=alice"}}, {"headers": {"Cookie": "u=bob"}}, id="Cookie"),
        pytest.param({"headers": {"Authorization": "Bearer alice"}}, {}, id="nobody"),
    ],
)
async def test_two_users_of_one_session_never_see_each_others_responses(
    make: Make, origin: Origin, alice: dict[str, Any], bob: dict[str, Any]
) -> None:
    echo_user(origin)
    session = make()
    texts = []
    for user in (alice, bob, alice, bob):
        response = await ask(session, origin.url("/me"), **user)
        texts.append((await response.text(), response.from_cache))
    assert texts[0][0] != texts[1][0]
    assert texts[2:] == [(texts[0][0], True), (texts[1][0], True)]


async def test_user_info_in_the_url_is_a_credential(make: Make, origin: Origin) -> None:
    echo_user(origin)
    session = make()

    def as_user(user: str) -> str:
        return str(URL(origin.url("/me")).with_user(user).with_password(SECRET))

    for expected in (False, True):
        for user in ("alice", "bob"):
            response = await ask(session, as_user(user))
            assert response.from_cache is expected
            assert await response.text() == basic(user, SECRET)
    assert not await is_hit(session, origin.url("/me"))
    assert await get_cache(session).urls() == [origin.url("/me")]


async def test_a_sessions_own_credentials_count_too(make: Make, origin: Origin) -> None:
    echo_user(origin)
    for user in ("alice", "bob"):
        async with make(headers={"Authorization": f"Bearer {user}"}) as session:
            response = await ask(session, origin.url("/me"))
            assert (response.from_cache, await response.text()) == (False, f"Bearer {user}")


async def test_ignoring_authorization_turns_that_off(make: Make, origin: Origin) -> None:
    session = make(ignored_params=["Authorization"])
    await ask(session, origin.url("/me"), headers={"Authorization": "Bearer alice"})
    assert await is_hit(session, origin.url("/me"), headers={"Authorization": "Bearer bob"})


def digest(user: str) -> Callable[[ClientRequest, ClientHandlerType], Any]:
    """Sign as a digest client does: the count, and so the response, are new with each request."""
    count = 0

    async def sign(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        nonlocal count
        count += 1
        request.headers["Authorization"] = (
            f'Digest username="{user}", realm="here", nonce="n{count}", uri="/me", nc={count:08}, response="r{count}"'
        )
        return await handler(request)

    return sign


async def test_of_a_digest_user_and_realm_count(make: Make, origin: Origin) -> None:
    session = make(middlewares=(digest("alice"),))
    await ask(session, origin.url("/me"))
    assert await is_hit(session, origin.url("/me"))
    other = (digest("bob"), get_cache(session))
    assert not await is_hit(session, origin.url("/me"), middlewares=other)


async def test_digest_authentication_works_as_without_a_cache(make: Make, origin: Origin) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    if not hasattr(aiohttp, "DigestAuthMiddleware"):
        pytest.skip("this aiohttp has no DigestAuthMiddleware")

    welcomed = 0

    @origin.on("/me")
    async def answer(request: web.Request) -> web.Response:
        nonlocal welcomed
        if "Authorization" in request.headers:
            welcomed += 1
            return web.Response(text="welcome")
        challenge = f'Digest realm="here", nonce="{origin.count}", qop="auth", algorithm=MD5'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    def auth() -> Any:
        return aiohttp.DigestAuthMiddleware(login="alice", password=SECRET)

    async with make(middlewares=(auth(),)) as session:
        for expected in (False, True):
            response = await ask(session, origin.url("/me"))
            assert (response.status, await response.text(), response.from_cache) == (200, "welcome", expected)
    # A client that starts anew is challenged anew, and then finds what is stored.
    session = make(middlewares=(auth(),))
    assert await is_hit(session, origin.url("/me"))
    assert not await is_hit(make(), origin.url("/me"))
    assert welcomed == 1


@pytest.mark.parametrize("options", [{"allowed_codes": range(200, 500)}, {"cache_control": True}], ids=["list", "HTTP"])
async def test_a_digest_challenge_is_for_one_request(make: Make, origin: Origin, options: dict[str, Any]) -> None:
    """With a nonce that has aged a client is challenged once more; its next try must reach the origin."""
    nonce = ""

    @origin.on("/me")
    async def answer(request: web.Request) -> web.Response:
        if f'nonce="{nonce}"' in request.headers.get("Authorization", ""):
            return web.Response(text="welcome")
        challenge = f'Digest realm="here", nonce="{nonce}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge, "Cache-Control": "max-age=60"})

    session = make(**options)
    old, new = ({"Authorization": f'Digest username="alice", realm="here", nonce="{one}"'} for one in "ab")
    for accepted, headers, status in (("a", {}, 401), ("a", {}, 401), ("b", old, 401), ("b", new, 200)):
        nonce = accepted
        response = await ask(session, origin.url("/me"), headers=headers)
        assert (response.status, response.from_cache) == (status, False)


# --- what is written down ---


def everything_in(directory: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "request_with_secret",
    [
        pytest.param({"headers": {"Authorization": f"Bearer {SECRET}"}}, id="Authorization"),
        pytest.param({"headers": {"Proxy-Authorization": SECRET}}, id="Proxy-Authorization"),
        pytest.param({"headers": {"X-Api-Key": SECRET}}, id="X-Api-Key"),
        pytest.param({"cookies": {"session": SECRET}}, id="cookies="),
        pytest.param({"headers": {"Cookie": f"session={SECRET}"}}, id="Cookie"),
        pytest.param({"params": {"token": SECRET}}, id="ignored query parameter"),
        pytest.param({"headers": {"token": SECRET}}, id="ignored header"),
        pytest.param({"data": {"token": SECRET}}, id="ignored form field"),
        pytest.param({"json": {"token": SECRET}}, id="ignored JSON field"),
        pytest.param({"json": {"password": SECRET}}, id="body"),
        pytest.param({"namespace": SECRET}, id="namespace"),
    ],
)
@pytest.mark.parametrize("vary", ["", "Authorization, Cookie, X-Api-Key, Token"], ids=["", "Vary"])
async def test_secrets_of_a_request_are_not_found_on_disk(
    make: Make, origin: Origin, tmp_path: Path, request_with_secret: dict[str, Any], vary: str
) -> None:
    origin.text("/me", "public marker", Vary=vary)
    request = dict(request_with_secret)
    options = CacheOptions(namespace=request.pop("namespace", None))
    async with make(allowed_methods=("POST",), ignored_params=["token"], include_headers=True) as session:
        for expected in (False, True):
            response = await ask(session, origin.url("/me"), "POST", trace_request_ctx=options, **request)
            assert response.from_cache is expected
    on_disk = everything_in(tmp_path / "cache")
    assert b"public marker" in on_disk
    assert SECRET.encode() not in on_disk


OF_CREDENTIALS = """
    Authorization Cookie Proxy-Authorization Api-Key ApiKey X-Access-Token X-Amz-Security-Token X-Api-Key X-Api-Token
    X-Auth-Key X-Auth-Token X-Authorization X-CSRF-Token X-Goog-Api-Key X-Session-Token X-Vault-Token X-XSRF-Token
    Private-Token Job-Token
"""


@pytest.mark.parametrize("name", OF_CREDENTIALS.split())
async def test_no_field_that_is_known_for_credentials_is_found_on_disk(
    make: Make, origin: Origin, tmp_path: Path, name: str
) -> None:
    async with make() as session:
        await ask(session, origin.url("/me"), headers={name: SECRET, "X-Other": "a public marker"})
        assert origin.seen[0].headers[name] == SECRET
    on_disk = everything_in(tmp_path / "cache")
    assert b"a public marker" in on_disk
    assert SECRET.encode() not in on_disk


async def test_user_info_and_passwords_are_not_found_on_disk(make: Make, origin: Origin, tmp_path: Path) -> None:
    async with make() as session:
        await ask(session, str(URL(origin.url("/me")).with_user("alice").with_password(SECRET)))
    on_disk = everything_in(tmp_path / "cache")
    assert origin.url("/me").encode() in on_disk
    assert SECRET.encode() not in on_disk
    assert basic("alice", SECRET).removeprefix("Basic ").encode() not in on_disk


async def test_cookies_of_the_jar_are_not_found_on_disk(make: Make, origin: Origin, tmp_path: Path) -> None:
    origin.text("/me", "public marker", Vary="Cookie", Cache_Control="private")
    async with make(cookie_jar=CookieJar(unsafe=True), cookies={"session": SECRET}) as session:
        await ask(session, origin.url("/me"))
        assert SECRET in origin.seen[0].headers["Cookie"]
    on_disk = everything_in(tmp_path / "cache")
    assert b"public marker" in on_disk
    assert SECRET.encode() not in on_disk


async def test_ignored_parameters_are_removed_from_what_is_stored_and_shown(make: Make, origin: Origin) -> None:
    session = make(ignored_params=["token"])
    await ask(session, origin.url("/me?token=1&a=2"), headers={"Token": "x", "X-Kept": "y"})
    (entry,) = await get_cache(session).responses.values()
    assert entry.url == origin.url("/me?a=2")
    assert "Token" not in entry.request_headers
    assert entry.request_headers["X-Kept"] == "y"
    assert await get_cache(session).urls() == [origin.url("/me?a=2")]
    # The caller sees his own request.
    response = await ask(session, origin.url("/me?token=1&a=2"))
    assert response.from_cache
    assert str(response.url) == origin.url("/me?token=1&a=2")


async def test_a_middleware_behind_the_cache_may_change_what_is_ignored(make: Make, origin: Origin) -> None:
    async def authorize(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers["Authorization"] = "Bearer x"
        return await handler(request)

    cache = get_cache(make(ignored_params=["authorization"]))
    async with ClientSession(middlewares=[cache, authorize]) as session:
        assert [await is_hit(session, origin.url("/a")) for _ in range(2)] == [False, True]


async def test_an_ignored_parameter_is_not_written_down_as_where_a_response_is(
    make: Make, origin: Origin, directory: Path
) -> None:
    origin.text("/a", "a", Content_Location="/a?token=SECRET&c=1", X_Other="Other")
    session = make(ignored_params=["token"])
    await ask(session, origin.url("/a"))
    response = await ask(session, origin.url("/a"))
    assert response.from_cache
    assert response.headers["Content-Location"] == "/a?c=1"
    assert (b"Content-Location", b"/a?c=1") in response.raw_headers
    await session.close()
    assert not [path for path in directory.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]


async def test_an_ignored_parameter_is_not_written_down_as_where_a_request_came_from(
    make: Make, origin: Origin
) -> None:
    session = make(ignored_params=["token"])
    await ask(session, origin.url("/a"), headers={"Referer": origin.url("/b?token=SECRET&c=1")})
    (stored,) = await get_cache(session).responses.values()
    assert stored.request_headers["Referer"] == origin.url("/b?c=1")


@pytest.mark.parametrize("http", [False, True], ids=["options", "HTTP"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_was_asked_with_credentials_from_behind_the_cache_renews_nothing(
    make: Make, origin: Origin, clock: Clock, method: str, http: bool
) -> None:
    async def authorize(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers["Authorization"] = "Bearer alice"
        return await handler(request)

    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        fields = {"ETag": '"1"', "X-User": request.headers.get("Authorization", "nobody")}
        if "If-None-Match" in request.headers:
            return web.Response(status=304, headers=fields)
        return web.Response(text="for all", headers=fields)

    everybody = make(expire_after=10, cache_control=http)
    await ask(everybody, origin.url("/a"))
    clock.advance(11)
    async with ClientSession(middlewares=[get_cache(everybody), authorize]) as alices:
        response = await ask(alices, origin.url("/a"), method)
        assert (response.status, response.headers["X-User"]) == (200, "Bearer alice")
    (stored,) = await get_cache(everybody).responses.values()
    assert (stored.headers["X-User"], stored.is_expired) == ("nobody", True)


async def test_what_renews_nothing_renews_no_redirect_that_led_to_it(make: Make, origin: Origin, clock: Clock) -> None:
    async def authorize(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if request.url.path == "/b":
            request.headers["Authorization"] = "Bearer alice"
        return await handler(request)

    @origin.on("/a")
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/b"})

    @origin.on("/b")
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=304 if "If-None-Match" in request.headers else 200, headers={"ETag": '"1"'})

    everybody = make(expire_after=10)
    cache = get_cache(everybody)
    await ask(everybody, origin.url("/a"))
    clock.advance(11)
    traced = [cache_trace_config(cache=cache)]
    async with ClientSession(middlewares=[cache, authorize], trace_configs=traced) as alices:
        assert (await ask(alices, origin.url("/a"))).status == 200
    assert [has_expired(entry, clock()) async for _, entry in cache._core.store.scan()] == [True, True]


@pytest.mark.parametrize("http", [False, True], ids=["options", "HTTP"])
async def test_an_ignored_parameter_is_not_written_down_when_a_response_is_renewed(
    make: Make, origin: Origin, clock: Clock, http: bool
) -> None:
    @origin.on("/a")
    async def answer(request: web.Request) -> web.Response:
        fields = {"ETag": '"1"', "Content-Location": f"/a?{request.query_string}&c=1"}
        return web.Response(status=304 if "If-None-Match" in request.headers else 200, headers=fields)

    session = make(expire_after=10, ignored_params=["token"], cache_control=http)
    await ask(session, origin.url("/a?token=ALICE"))
    clock.advance(11)
    assert await is_hit(session, origin.url("/a?token=BOB"))
    assert (await ask(session, origin.url("/a"))).headers["Content-Location"] == "/a?c=1"
    assert origin.count == 2
