"""A stored response is shown as aiohttp's own, in every respect a caller can observe."""

from __future__ import annotations

import gc
import inspect
from datetime import datetime, timezone
from typing import Any

import aiohttp
import pytest
from aiohttp import (
    ClientRequest,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    CookieJar,
    HttpVersion10,
    HttpVersion11,
    hdrs,
)
from yarl import URL

from aiohttp_cache_middleware._model import BodyRef, StoredResponse
from aiohttp_cache_middleware._policy._outcomes import Answer
from aiohttp_cache_middleware._response import (
    CachedResponse,
    adopt,
    cached_class,
    gateway_timeout,
    replay,
)
from tests.bodies import SMALL, T0, FileReader, Replaying, Watching, a_stored_response, origin, stored_from

URL_ = "http://example.org/a?b=c#d"
LOOKS = [
    "status", "reason", "version", "method", "url", "real_url", "host", "ok", "headers", "raw_headers", "cookies",
    "links", "history", "content_type", "charset", "content_length", "content_disposition", "connection", "closed",
    "request_info",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/small", "/fancy", "/cookies", "/missing", "/empty", "/no-content", "/chunked"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_hit_looks_like_the_origins_response(path: str, method: str) -> None:
    async with origin() as server:
        url = server.make_url(path).with_fragment("part")
        async with ClientSession() as session, session.request(method, url) as response:
            stored = await stored_from(response)
            plain = {name: getattr(response, name) for name in LOOKS}, repr(response), response.get_encoding()
    async with ClientSession(middlewares=[Replaying(stored)]) as session, session.request(method, url) as response:
        await response.read()
        seen = {name: getattr(response, name) for name in LOOKS}, repr(response), response.get_encoding()
        assert isinstance(response, CachedResponse)
        assert isinstance(response, ClientResponse)
    assert seen == plain


async def test_same_fields_as_the_constructor_of_this_aiohttp_sets() -> None:
    class Theirs(ClientResponse):
        pass

    async with ClientSession(middlewares=[Replaying(a_stored_response())]) as session:
        ours = await session.get(URL_)
    async with ClientSession(middlewares=[Replaying(a_stored_response())], response_class=Theirs) as session:
        constructed = await session.get(URL_)
    assert vars(constructed).keys() - vars(ours).keys() <= {"_session", "_output_size"}
    for name in ("method", "_real_url", "_url", "_request_info", "_cache", "_traces", "_loop"):
        assert getattr(ours, name) == getattr(constructed, name)


async def test_cookies_are_shown_and_do_not_reach_the_jar() -> None:
    stored = a_stored_response(headers=(("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")))
    jar = CookieJar()
    async with (
        ClientSession(middlewares=[Replaying(stored)], cookie_jar=jar) as session,
        session.get("http://example.org/") as response,
    ):
        assert {name: morsel.value for name, morsel in response.cookies.items()} == {"a": "1", "b": "2"}
        assert response.cookies is response.cookies
    assert len(jar) == 0


async def test_cookies_another_middleware_sets_on_a_hit_do_reach_the_jar() -> None:
    async def adds_cookie(request: Any, handler: Any) -> Any:
        response = await handler(request)
        cookies = response.cookies
        cookies["mine"] = "1"
        response.cookies = cookies
        return response

    jar = CookieJar()
    async with (
        ClientSession(middlewares=[adds_cookie, Replaying(a_stored_response())], cookie_jar=jar) as session,
        session.get("http://example.org/") as response,
    ):
        assert response.cookies["mine"].value == "1"
    assert len(jar) == 1


async def test_redirects_are_followed_through_hits() -> None:
    async def hop(request: Any, handler: Any) -> Any:
        there = request.url.path == "/there"
        stored = a_stored_response() if there else a_stored_response(status=301, headers=(("Location", "/there"),))
        return replay(request, stored, now=T0, age=0.0, cache_key="k")

    async with ClientSession(middlewares=[hop]) as session, session.get("http://example.org/") as response:
        assert await response.text() == "hello"
        assert [each.status for each in response.history] == [301]
        assert response.url == URL("http://example.org/there")


async def test_raise_for_status() -> None:
    stored = a_stored_response(status=404, reason="Not Found")
    async with ClientSession(middlewares=[Replaying(stored)]) as session:
        response = await session.get(URL_)
        with pytest.raises(ClientResponseError, match="404, message='Not Found'"):
            response.raise_for_status()
        assert response.closed
    async with ClientSession(middlewares=[Replaying(stored)], raise_for_status=True) as session:
        with pytest.raises(ClientResponseError):
            await session.get(URL_)


async def test_old_and_odd_http_versions() -> None:
    for version, shown in [((1, 0), HttpVersion10), ((1, 1), HttpVersion11), ((0, 9), (0, 9))]:
        async with ClientSession(middlewares=[Replaying(a_stored_response(version=version))]) as session:
            assert (await session.get(URL_)).version == shown


# What is ours


async def test_where_a_hit_comes_from() -> None:
    response = await _replayed(a_stored_response(request_headers=(("Accept", "*/*"),)), age=7.5)
    assert response.from_cache is True
    assert response.created_at == datetime.fromtimestamp(T0, timezone.utc)
    assert response.expires == datetime.fromtimestamp(T0 + 60, timezone.utc)
    assert response.created_at.tzinfo is timezone.utc
    assert response.is_expired is False
    assert response.cache_key == "k"
    assert response.age == 7.5
    assert response.body == b"hello"
    assert response.size == 5
    assert dict(response.request_headers) == {"Accept": "*/*"}


@pytest.mark.parametrize(
    ("options", "is_expired"),
    [
        pytest.param({"now": T0 + 59}, False, id="before"),
        pytest.param({"now": T0 + 60}, True, id="at the moment"),
        pytest.param({"now": T0, "is_stale": True}, True, id="stale, says the policy"),
    ],
)
async def test_is_expired(options: dict[str, Any], is_expired: bool) -> None:
    assert (await _replayed(a_stored_response(), **options)).is_expired is is_expired


@pytest.mark.parametrize("expires_time", [float("inf"), 1e300], ids=["never", "beyond the calendar"])
async def test_expires_never(expires_time: float) -> None:
    response = await _replayed(a_stored_response(expires_time=expires_time))
    assert response.expires is None
    assert response.is_expired is False


async def test_where_a_response_of_the_origin_comes_from() -> None:
    watching = Watching()
    async with (
        origin() as server,
        ClientSession(middlewares=[watching]) as session,
        session.get(server.make_url("/small"), headers={"X-Mine": "1"}) as response,
    ):
        assert isinstance(response, CachedResponse)
        _is_not_from_the_cache(response)
        await response.read()
        assert response.body == SMALL
        assert response.size == len(SMALL)
        assert response.request_headers["X-Mine"] == "1"


async def test_what_tells_where_it_comes_from_gives_way_to_who_assigns_it() -> None:
    # aiohttp-client-cache does so with every response it has not made itself.
    async with ClientSession(middlewares=[Replaying(a_stored_response())]) as session, session.get(URL_) as response:
        for name in ("from_cache", "created_at", "expires", "is_expired"):
            setattr(response, name, None)
            assert getattr(response, name) is None


async def test_body_on_its_way_is_not_at_hand() -> None:
    watching = Watching()
    async with (
        origin() as server,
        ClientSession(middlewares=[watching]) as session,
        session.get(server.make_url("/large")),
    ):
        with pytest.raises(RuntimeError, match="on its way"):
            assert watching.responses[0].body


async def test_replayed_for_a_filter_or_a_follower_is_not_from_the_cache() -> None:
    response = await _replayed(a_stored_response(), from_cache=False)
    response.cache_key = None
    _is_not_from_the_cache(response)
    assert response.body == b"hello"


def _is_not_from_the_cache(response: CachedResponse) -> None:
    assert response.from_cache is False
    assert (response.created_at, response.expires, response.is_expired) == (None, None, None)
    assert (response.cache_key, response.age) == (None, None)


async def test_gateway_timeout() -> None:
    async def refuse(request: ClientRequest, handler: Any) -> ClientResponse:
        return gateway_timeout(request, "nothing stored")

    async with ClientSession(middlewares=[refuse]) as session, session.get(URL_) as response:
        assert isinstance(response, CachedResponse)
        assert (response.status, response.reason, response.ok) == (504, "Gateway Timeout", False)
        assert await response.text() == "nothing stored\n"
        assert response.content_length == 15
        _is_not_from_the_cache(response)


# Header fields


async def test_fields_added_and_dropped() -> None:
    stored = a_stored_response(
        headers=(("Age", "1"), ("ETag", '"1"'), ("X", "a"), ("X", "b")),
        raw_headers=((b"age", b"1"), (b"Etag", b'"1"'), (b"x", b"a"), (b"x", b"b")),
    )
    response = await _replayed(stored, add_headers=(("Age", "5"),), drop_headers=frozenset({"age"}))
    assert list(response.headers.items()) == [("ETag", '"1"'), ("X", "a"), ("X", "b"), ("Age", "5")]
    assert response.raw_headers == ((b"Etag", b'"1"'), (b"x", b"a"), (b"x", b"b"), (b"Age", b"5"))
    response = await _replayed(stored)
    assert response.headers["age"] == "1"
    assert response.raw_headers is stored.raw_headers


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(304, "Not Modified", (("ETag", '"1"'),), ()), id="§15.4.5 304"),
        pytest.param(Answer(304, "Not Modified", (("ETag", '"1"'),)), id="§15.4.5 304 with a body"),
        pytest.param(Answer(416, "Range Not Satisfiable", (("Content-Range", "bytes */5"),), ()), id="§15.5.17 416"),
    ],
)
async def test_answer_without_body(answer: Answer) -> None:
    for body in (b"hello", BodyRef("b", 5)):
        reader = None if body == b"hello" else FileReader(b"hello")
        response = await _replayed(a_stored_response(body=body), answer=answer, reader=reader)
        assert response.status == answer.status
        assert response.reason == answer.reason
        assert tuple(response.headers.items()) == answer.headers
        assert response.closed
        assert await response.read() == b""
        assert reader is None or reader.is_closed


# A response_class of the caller's


class Theirs(ClientResponse):
    """A response of the caller's, with state and a method of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return await super().read()


async def test_response_class_of_the_caller_keeps_working() -> None:
    async with origin() as server:
        for middleware in (Watching(), Replaying(a_stored_response(body=SMALL))):
            async with (
                ClientSession(middlewares=[middleware], response_class=Theirs) as session,
                session.get(server.make_url("/small")) as response,
            ):
                assert isinstance(response, Theirs)
                assert isinstance(response, CachedResponse)
                assert await response.read() == SMALL
                assert response.reads == 1


def test_cached_class() -> None:
    assert cached_class(ClientResponse) is CachedResponse
    assert cached_class(CachedResponse) is CachedResponse
    assert cached_class(cached_class(Theirs)) is cached_class(Theirs)
    assert issubclass(cached_class(Theirs), Theirs)
    assert cached_class(Theirs).__name__ == "CachedTheirs"


class Slotted(ClientResponse):
    __slots__ = ("more",)


@pytest.mark.parametrize("theirs", [ClientResponse, Theirs, Slotted])
async def test_response_another_middleware_made_is_adopted(theirs: type[ClientResponse]) -> None:
    async with (
        origin() as server,
        ClientSession(response_class=theirs) as session,
        session.get(server.make_url("/small")) as response,
    ):
        ours = adopt(response)
        assert ours is response
        assert isinstance(ours, CachedResponse)
        assert isinstance(ours, theirs)
        assert adopt(ours) is ours
        _is_not_from_the_cache(ours)
        assert await ours.read() == SMALL


def test_what_is_no_response_is_not_adopted() -> None:
    assert adopt(object()) is None


# Ends


async def test_let_go_before_it_was_started() -> None:
    async with ClientSession(response_class=CachedResponse) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://127.0.0.1:1/")
    response = CachedResponse.__new__(CachedResponse)
    content: object = response.content
    assert content is None
    del response
    gc.collect()


async def test_constructor_takes_what_this_aiohttp_passes() -> None:
    assert inspect.signature(CachedResponse.__init__) == inspect.signature(ClientResponse.__init__)


async def _replayed(stored: StoredResponse, **options: Any) -> CachedResponse:
    responses: list[CachedResponse] = []

    async def answer(request: ClientRequest, handler: Any) -> ClientResponse:
        responses.append(replay(request, stored, **{"now": T0, "age": 0.0, "cache_key": "k", **options}))
        return responses[-1]

    async with ClientSession(middlewares=[answer]) as session:
        await session.request(hdrs.METH_GET, URL_)
    return responses[0]
