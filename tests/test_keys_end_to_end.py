"""Which requests share an entry and which don't, seen from outside."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, Fingerprint, FormData, MultipartWriter
from yarl import URL

from aiohttp_cache_middleware import get_cache
from tests.asking import ask, is_hit
from tests.conftest import Origin

Make = Callable[..., ClientSession]
Ask = dict[str, Any]


def a_form(**fields: str) -> FormData:
    form = FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    return form


def a_multipart(*parts: str) -> MultipartWriter:
    writer = MultipartWriter("mixed")
    for part in parts:
        writer.append(part)
    return writer


SAME: list[Any] = [
    pytest.param("/?a=1&b=2", {}, "/?b=2&a=1", {}, id="the order of the query"),
    pytest.param("/?a=1", {}, "/", {"params": {"a": "1"}}, id="params= and a query in the URL"),
    pytest.param("/?a=1&b=2", {}, "/?b=2", {"params": [("a", "1")]}, id="a query in both"),
    pytest.param("/?a=x%20y&b%20c=1", {}, "/", {"params": {"b c": "1", "a": "x y"}}, id="blanks in a query"),
    pytest.param("/#one", {}, "/#two", {}, id="fragment"),
    pytest.param("/a/../b", {}, "/b", {}, id="dot segments"),
    pytest.param("/%7Ea", {}, "/~a", {}, id="percent-encoding"),
    pytest.param("/ä", {}, "/%C3%A4", {}, id="not ASCII"),
    pytest.param("", {}, "/", {}, id="empty path"),
    pytest.param("/", {"headers": {"X-Any": "1"}}, "/", {"headers": {"X-Any": "2"}}, id="headers by default"),
]

DIFFERENT: list[Any] = [
    pytest.param("/?a=1&a=2", {}, "/?a=2&a=1", {}, id="the order of one name's values"),
    pytest.param("/?a=1&a=1", {}, "/?a=1", {}, id="repeated names all count"),
    pytest.param("/?a=1", {}, "/?a=", {}, id="values"),
    pytest.param("/?a", {}, "/?a=", {}, id="a name without ="),
    pytest.param("/?a=1%26b=2", {}, "/?a=1&b=2", {}, id="an encoded separator"),
    pytest.param("/?a=x%2By", {}, "/?a=x+y", {}, id="a plus and a blank"),
    pytest.param("/x%20y", {}, "/x+y", {}, id="a plus and a blank in the path"),
    pytest.param("/a%2Fb", {}, "/a/b", {}, id="an encoded slash"),
    pytest.param("/a", {}, "/A", {}, id="case of the path"),
    pytest.param("/a", {}, "/a/", {}, id="a slash at the end"),
    pytest.param("/", {}, "/", {"headers": {"Host": "other"}}, id="Host"),
    pytest.param("/", {}, "/", {"ssl": False}, id="ssl=False"),
    pytest.param("/", {}, "/", {"ssl": Fingerprint(bytes(32))}, id="fingerprint"),
    pytest.param("/", {}, "/", {"ssl": ssl.create_default_context()}, id="a context of its own"),
    pytest.param("/", {}, "/", {"headers": {"Authorization": "Bearer 1"}}, id="Authorization"),
]

SAME_BODIES: list[Any] = [
    pytest.param({"data": {"a": "1", "b": "2"}}, {"data": {"b": "2", "a": "1"}}, id="form: order of names"),
    pytest.param({"data": {"a": "1 2"}}, {"data": FormData({"a": "1 2"})}, id="form: dict and FormData"),
    pytest.param(
        {"data": {"a": "x y"}},
        {"data": b"a=x%20y", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        id="form: spelling",
    ),
    pytest.param({"json": {"a": [{"x": 1, "y": 2}]}}, {"json": {"a": [{"y": 2, "x": 1}]}}, id="JSON: at every depth"),
    pytest.param(
        {"json": {"a": 1}},
        {"data": b'{"a":1}', "headers": {"Content-Type": "application/json"}},
        id="JSON: white space",
    ),
    pytest.param({"data": a_form(a="1")}, {"data": a_form(a="1")}, id="multipart: boundary"),
    pytest.param({"data": a_multipart("x")}, {"data": a_multipart("x")}, id="multipart/mixed: boundary"),
    pytest.param({"data": b"raw"}, {"data": b"raw"}, id="raw"),
]

DIFFERENT_BODIES: list[Any] = [
    pytest.param({"data": b'{"a": 1}'}, {"json": {"a": 1}}, id="raw and JSON"),
    pytest.param({"data": {"a": "1"}}, {"data": b"a=1"}, id="form and raw"),
    pytest.param({"data": {"a": "1"}}, {"json": {"a": "1"}}, id="form and JSON"),
    pytest.param({"data": {"a": "1"}}, {"params": {"a": "1"}}, id="form and query"),
    pytest.param({"data": [("a", "1"), ("a", "2")]}, {"data": [("a", "2"), ("a", "1")]}, id="form: one name's values"),
    pytest.param({"json": {"a": 1}}, {"json": {"a": "1"}}, id="JSON: types"),
    pytest.param({"json": {"a": 1}}, {"json": {"a": True}}, id="JSON: 1 and true"),
    pytest.param({"json": [1, 2]}, {"json": [2, 1]}, id="JSON: lists have an order"),
    pytest.param({"data": a_form(a="1")}, {"data": a_form(a="2")}, id="multipart: values"),
    pytest.param({"data": a_multipart("x", "y")}, {"data": a_multipart("y", "x")}, id="multipart: order"),
    pytest.param({"data": b"raw"}, {"data": b"raw "}, id="raw"),
    pytest.param({"data": b""}, {"data": b"x"}, id="empty and not"),
]


@pytest.mark.parametrize(("path", "first", "other_path", "second"), SAME)
async def test_requests_that_share_an_entry(
    make: Make, origin: Origin, path: str, first: Ask, other_path: str, second: Ask
) -> None:
    session = make()
    await ask(session, origin.url(path), **first)
    assert await is_hit(session, origin.url(other_path), **second)


@pytest.mark.parametrize(("path", "first", "other_path", "second"), DIFFERENT)
async def test_requests_that_do_not(
    make: Make, origin: Origin, path: str, first: Ask, other_path: str, second: Ask
) -> None:
    session = make()
    for expected in (False, True):
        assert await is_hit(session, origin.url(path), **first) is expected
        assert await is_hit(session, origin.url(other_path), **second) is expected


@pytest.mark.parametrize(("first", "second"), SAME_BODIES)
async def test_bodies_that_share_an_entry(make: Make, origin: Origin, first: Ask, second: Ask) -> None:
    session = make(allowed_methods=("POST",))
    await ask(session, origin.url("/"), "POST", **first)
    assert await is_hit(session, origin.url("/"), "POST", **second)


@pytest.mark.parametrize(("first", "second"), DIFFERENT_BODIES)
async def test_bodies_that_do_not(make: Make, origin: Origin, first: Ask, second: Ask) -> None:
    session = make(allowed_methods=("POST",))
    assert not await is_hit(session, origin.url("/"), "POST", **first)
    assert not await is_hit(session, origin.url("/"), "POST", **second)


async def test_scheme_host_and_default_port_are_normalised(make: Make, origin: Origin) -> None:
    session = make()
    url = URL(origin.url("/a"))
    await ask(session, str(url))
    assert await is_hit(session, str(url).replace("http:", "HTTP:"))
    cache = get_cache(session)
    assert await cache.contains(url=str(url).replace("http:", "HTTP:"))


@pytest.mark.parametrize("include_headers", [True, ["Accept", "X-One"]], ids=repr)
async def test_included_headers_are_part_of_the_key(make: Make, origin: Origin, include_headers: Any) -> None:
    session = make(include_headers=include_headers)
    await ask(session, origin.url("/"), headers={"X-One": "1"})
    assert await is_hit(session, origin.url("/"), headers={"x-one": "1"})
    assert not await is_hit(session, origin.url("/"), headers={"X-One": "2"})
    assert not await is_hit(session, origin.url("/"))
    assert await is_hit(session, origin.url("/"), headers={"X-Other": "1"}) is (include_headers is not True)


async def test_a_sessions_default_headers_count_and_aiohttps_own_do_not(make: Make, origin: Origin) -> None:
    async with make(include_headers=True, headers={"X-One": "1"}) as session:
        await ask(session, origin.url("/"))
    async with make(include_headers=True) as session:
        assert await is_hit(session, origin.url("/"), headers={"X-One": "1"})
        assert not await is_hit(session, origin.url("/"))
    session = make(include_headers=True, skip_auto_headers=["User-Agent", "Accept-Encoding"])
    assert await is_hit(session, origin.url("/"))


def made(request: Ask) -> Ask:
    """Make what can be sent only once."""
    return {name: value() if isinstance(value, partial) else value for name, value in request.items()}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"params": {"a": "1", "token": "x"}}, {"params": {"a": "1"}}, id="query"),
        pytest.param({"params": {"a": "1", "token": "x"}}, {"params": {"token": "y", "a": "1"}}, id="query values"),
        pytest.param({"data": {"a": "1", "token": "x"}}, {"data": {"a": "1"}}, id="form"),
        pytest.param({"data": partial(a_form, a="1", token="x")}, {"data": partial(a_form, a="1")}, id="multipart"),
        pytest.param({"json": {"a": 1, "token": "x"}}, {"json": {"a": 1}}, id="JSON"),
        pytest.param({"headers": {"Token": "x"}}, {}, id="header"),
    ],
)
@pytest.mark.parametrize("option", ["ignored_params", "ignored_parameters"])
async def test_an_ignored_name_counts_as_absent(
    make: Make, origin: Origin, option: str, first: Ask, second: Ask
) -> None:
    session = make(allowed_methods=("POST",), include_headers=True, **{option: ["token"]})
    await ask(session, origin.url("/"), "POST", **made(first))
    assert await is_hit(session, origin.url("/"), "POST", **made(second))


async def test_an_ignored_name_deeper_in_json_counts(make: Make, origin: Origin) -> None:
    session = make(allowed_methods=("POST",), ignored_params=["token"])
    await ask(session, origin.url("/"), "POST", json={"a": {"token": 1}})
    assert not await is_hit(session, origin.url("/"), "POST", json={"a": {"token": 2}})


async def a_generator(data: bytes) -> Any:
    for index in range(len(data)):
        yield data[index : index + 1]


async def test_a_body_that_can_be_read_only_once_is_sent_right_and_not_cached(make: Make, origin: Origin) -> None:
    session = make(allowed_methods=("POST",))
    for _ in range(2):
        assert not await is_hit(session, origin.url("/"), "POST", data=a_generator(b"piece by piece"))
    assert [one.body for one in origin.seen] == [b"piece by piece"] * 2
    assert await get_cache(session).responses.count() == 0


async def test_a_file_is_sent_right_and_compared_by_its_content(make: Make, origin: Origin, tmp_path: Path) -> None:
    session = make(allowed_methods=("POST",))
    hits = []
    for content in (b"one", b"two", b"one"):
        (tmp_path / "upload").write_bytes(content)
        with (tmp_path / "upload").open("rb") as file:
            hits.append(await is_hit(session, origin.url("/"), "POST", data=file))
    assert hits == [False, False, True]
    assert [one.body for one in origin.seen] == [b"one", b"two"]


async def test_whoever_decodes_bodies_and_whoever_does_not_share_nothing(make: Make, origin: Origin) -> None:
    import gzip

    packed = gzip.compress(b"hello")
    origin.text("/", packed, Content_Encoding="gzip")
    async with make() as session:
        for _ in range(2):
            decoded = await ask(session, origin.url("/"))
            assert await decoded.text() == "hello"
            assert decoded.headers["Content-Encoding"] == "gzip"
    session = make(auto_decompress=False)
    hits = []
    for _ in range(2):
        async with session.get(origin.url("/")) as response:
            assert await response.read() == packed
            hits.append(response.from_cache)  # type: ignore[attr-defined]
    assert hits == [False, True]


async def test_base_url(make: Make, origin: Origin) -> None:
    session = make(base_url=origin.url("/api/"))
    await ask(session, "users")
    assert await is_hit(session, origin.url("/api/users"))
