"""What is taken down of a request, and that it is sent as if nobody had looked."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, FormData, hdrs, web
from aiohttp.test_utils import TestServer
from yarl import URL

from aiohttp_cache_middleware._request import (
    AUTOMATIC_HEADERS,
    GREATEST_BODY,
    GREATEST_FILE,
    Asked,
    Body,
    Uncacheable,
    asked_for,
    bare_url,
    is_untouchable,
    snapshot_request,
)


async def echo(request: web.Request) -> web.Response:
    headers = {"Sent-Content-Type": request.headers.get("Content-Type", "")}
    return web.Response(body=await request.read(), headers=headers)


@pytest.fixture
async def url() -> AsyncIterator[URL]:
    app = web.Application(client_max_size=2**25)
    app.router.add_route("*", "/{path:.*}", echo)
    async with TestServer(app) as server:
        yield server.make_url("/some/path")


@dataclass
class Watcher:
    """A middleware that takes down each request twice, as before a retry, and then sends it."""

    seen: list[Asked | Uncacheable] = field(default_factory=list)
    untouchable: list[bool] = field(default_factory=list)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        self.untouchable.append(is_untouchable(request))
        first, second = await snapshot_request(request), await snapshot_request(request)
        assert _without_headers(first) == _without_headers(second)
        self.seen.append(first)
        return await handler(request)

    @property
    def asked(self) -> Asked:
        (asked,) = self.seen
        assert isinstance(asked, Asked)
        return asked

    @property
    def body(self) -> Body:
        assert self.asked.body is not None
        return self.asked.body


def _without_headers(asked: Asked | Uncacheable) -> object:
    return asked.why if isinstance(asked, Uncacheable) else asked[1:]


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
async def session(watcher: Watcher) -> AsyncIterator[ClientSession]:
    # A jar that takes cookies of IP addresses, as the loopback server's.
    async with ClientSession(middlewares=[watcher], cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


def unsent(session: ClientSession, method: str, url: URL, **request: Any) -> ClientRequest:
    return ClientRequest(method, url, session=session, loop=asyncio.get_running_loop(), **request)


async def sent(session: ClientSession, url: URL, **request: Any) -> bytes:
    """Send a request and give the body that reached the server."""
    async with session.post(url, **request) as response:
        return await response.read()


# --- the request itself ---


async def test_a_plain_request(session: ClientSession, watcher: Watcher, url: URL) -> None:
    async with session.get(url, params={"a": "1"}):
        asked = watcher.asked
    assert asked.request.method == "GET"
    assert asked.request.url == f"{url}?a=1"
    assert asked.request.headers["Host"] == f"{url.host}:{url.port}"
    assert asked[1:] == (None, (), (), None, (), True)
    assert {(name.lower(), value) for name, value in asked.request.headers.items() if name != "Host"} == (
        AUTOMATIC_HEADERS
    )


async def test_headers_are_a_copy(session: ClientSession, url: URL) -> None:
    request = unsent(session, "GET", url)
    asked = await snapshot_request(request)
    request.headers["Authorization"] = "added later"
    assert "Authorization" not in asked.request.headers


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        ("http://user:password@site.com/a@b?c@d#e", "http://site.com/a@b?c@d"),
        ("http://site.com/a#b", "http://site.com/a"),
        ("HTTP://SITE.com:80/a/../b?q=%41", "http://site.com/b?q=A"),
        ("http://site.com", "http://site.com/"),
        ("http://eve@site.com#top", "http://site.com/"),
        ("http://site.com?to=/", "http://site.com/?to=/"),
        ("/path#fragment", "/path"),
        ("", ""),
    ],
)
def test_bare_url(given: str, bare: str) -> None:
    assert bare_url(URL(given)) == bare


@pytest.mark.parametrize("auto_decompress", [True, False])
async def test_whether_the_session_decodes(watcher: Watcher, url: URL, auto_decompress: bool) -> None:
    async with ClientSession(middlewares=[watcher], auto_decompress=auto_decompress) as session, session.get(url):
        assert watcher.asked.decoded is auto_decompress


async def test_a_request_for_another_protocol_is_untouchable(
    session: ClientSession, watcher: Watcher, url: URL
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(url)
    async with session.get(url):
        pass
    assert watcher.untouchable == [True, False]
    assert is_untouchable(unsent(session, "CONNECT", url))


# --- credentials ---


@pytest.mark.parametrize(
    ("headers", "authorization"),
    [
        ({}, ()),
        ({"Authorization": "Bearer abc"}, (("Bearer abc",),)),
        (
            {"authorization": 'Digest username="eve", realm="x, y", nonce="1, username=bob", nc=00000001, uri="/"'},
            (("Digest", '"x, y"', '"eve"'),),
        ),
        ({"Authorization": "DIGEST username*=UTF-8''eve, realm=x"}, (("Digest", "x", "UTF-8''eve"),)),
        ({"Authorization": 'Digest realm="x"'}, (('Digest realm="x"',),)),
    ],
    ids=["none", "Bearer", "Digest", "Digest with a long name", "Digest without a user"],
)
async def test_authorization(
    session: ClientSession,
    watcher: Watcher,
    url: URL,
    headers: dict[str, str],
    authorization: tuple[tuple[str, ...], ...],
) -> None:
    async with session.get(url, headers=headers):
        assert watcher.asked.authorization == authorization


async def test_user_info_in_the_url_is_a_credential(session: ClientSession, watcher: Watcher, url: URL) -> None:
    async with session.get(url.with_user("eve").with_password("geheim")):
        assert watcher.asked.authorization == (("Basic ZXZlOmdlaGVpbQ==",),)
        assert watcher.asked.request.url == str(url)


async def test_cookies_of_the_jar_are_not_the_callers(session: ClientSession, watcher: Watcher, url: URL) -> None:
    session.cookie_jar.update_cookies({"balancer": "7", "quoted": "a b"}, url)
    async with session.get(url):
        assert watcher.asked.caller_cookies == ()


async def test_cookies_passed_with_the_request(session: ClientSession, watcher: Watcher, url: URL) -> None:
    session.cookie_jar.update_cookies({"balancer": "7", "user": "bob"}, url)
    async with session.get(url, cookies={"user": "eve", "b": "2", "a": "1"}):
        assert watcher.asked.caller_cookies == ("a=1", "b=2", "user=eve")


async def test_cookies_passed_as_a_header(session: ClientSession, watcher: Watcher, url: URL) -> None:
    async with session.get(url, headers={"Cookie": "b=2;a=1; b=1"}):
        assert watcher.asked.caller_cookies == ("a=1", "b=2", "b=1")


# --- connections ---


async def test_another_host_header(session: ClientSession, watcher: Watcher, url: URL) -> None:
    async with session.get(url, headers={"Host": "other.com"}):
        assert watcher.asked.host_override == "other.com"


async def facts(session: ClientSession, url: URL, **request: Any) -> object:
    asked = await snapshot_request(unsent(session, "GET", url, **request))
    assert isinstance(asked, Asked)
    return asked.connection


async def test_tls_settings_of_a_request(session: ClientSession, url: URL) -> None:
    assert await facts(session, url, ssl=True) == ()
    assert await facts(session, url, ssl=False) == (("unverified", b""),)
    assert await facts(session, url, ssl=aiohttp.Fingerprint(b"f" * 32)) == (("fingerprint", b"f" * 32),)
    assert await facts(session, url, server_hostname="other.com") == (("server-hostname", b"other.com"),)


async def test_a_context_of_its_own_is_known_by_itself_alone(session: ClientSession, url: URL) -> None:
    one, other = ssl.create_default_context(), ssl.create_default_context()
    assert await facts(session, url, ssl=one) == await facts(session, url, ssl=one) != ()
    assert await facts(session, url, ssl=one) != await facts(session, url, ssl=other)
    names = set()
    for _ in range(3):  # contexts may get the address of one that is gone, but never its name
        names.add(await facts(session, url, ssl=ssl.create_default_context()))
        gc.collect()
    assert len(names) == 3


@pytest.mark.parametrize(
    ("setting", "meaning"),
    [
        (True, ()),
        (False, (("unverified", b""),)),
        (aiohttp.Fingerprint(b"f" * 32), (("fingerprint", b"f" * 32),)),
        (ssl.create_default_context(), ()),
        (ssl._create_unverified_context(), (("unverified", b""),)),
    ],
    ids=["default", "unverified", "fingerprint", "verifying context", "context that does not verify"],
)
async def test_tls_settings_of_a_session(url: URL, setting: Any, meaning: object) -> None:
    async with ClientSession(connector=aiohttp.TCPConnector(ssl=setting)) as session:
        assert await facts(session, url) == meaning


async def test_a_unix_socket_is_another_server(url: URL, tmp_path: Path) -> None:
    async with ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "socket"))) as session:
        assert await facts(session, url) == (("path", os.fsencode(tmp_path / "socket")),)


# --- bodies that are read ---


def form_data() -> FormData:
    form = FormData()
    form.add_field("name", "value")
    form.add_field("file", io.BytesIO(b"content"), filename="a.txt")
    return form


@pytest.mark.parametrize(
    ("data", "content", "content_type"),
    [
        pytest.param(lambda: b"bytes", b"bytes", "application/octet-stream", id="bytes"),
        pytest.param(lambda: bytearray(b"bytes"), b"bytes", "application/octet-stream", id="bytearray"),
        pytest.param(lambda: memoryview(b"bytes"), b"bytes", "application/octet-stream", id="memoryview"),
        pytest.param(lambda: "grün", "grün".encode(), "text/plain; charset=utf-8", id="str"),
        pytest.param(lambda: {"a": ["1", "2"]}, b"a=1&a=2", "application/x-www-form-urlencoded", id="form"),
        pytest.param(lambda: io.BytesIO(b"bytes"), b"bytes", "application/octet-stream", id="BytesIO"),
        pytest.param(lambda: io.StringIO("grün"), "grün".encode(), "text/plain; charset=utf-8", id="StringIO"),
        pytest.param(lambda: aiohttp.JsonPayload({"a": 1}), b'{"a": 1}', "application/json", id="JSON"),
    ],
)
async def test_a_body_in_memory(
    session: ClientSession, watcher: Watcher, url: URL, data: Callable[[], object], content: bytes, content_type: str
) -> None:
    assert await sent(session, url, data=data()) == content
    assert watcher.body == Body(content_type, "", "", content)


async def test_json(session: ClientSession, watcher: Watcher, url: URL) -> None:
    assert await sent(session, url, json={"a": 1}) == b'{"a": 1}'
    assert watcher.body == Body("application/json", "", "", b'{"a": 1}')


async def test_a_bytesio_is_read_from_where_it_stands(session: ClientSession, watcher: Watcher, url: URL) -> None:
    data = io.BytesIO(b"head and tail")
    data.seek(9)
    assert await sent(session, url, data=data) == b"tail"
    assert watcher.body.content == b"tail"


@pytest.mark.parametrize("buffering", [-1, 0], ids=["buffered", "raw"])
async def test_a_regular_file(
    session: ClientSession, watcher: Watcher, url: URL, tmp_path: Path, buffering: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb", buffering=buffering) as file:
        assert await sent(session, url, data=file) == b"content"
    assert watcher.body.content == b"content"


async def test_a_text_file(session: ClientSession, watcher: Watcher, url: URL, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("grün", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        assert await sent(session, url, data=file) == "grün".encode()
    assert watcher.body.content == "grün".encode()


async def test_multipart_is_known_by_its_parts(session: ClientSession, watcher: Watcher, url: URL) -> None:
    body = await sent(session, url, data=form_data())
    assert b"value" in body
    assert b"content" in body
    await sent(session, url, data=form_data())
    first, second = watcher.seen
    assert isinstance(first, Asked)
    assert isinstance(second, Asked)
    assert first.body == second.body
    assert first.body is not None
    assert first.body.content_type == "multipart/form-data"
    assert isinstance(first.body.content, tuple)
    assert [(part.name, part.content) for part in first.body.content] == [("name", b"value"), ("file", b"content")]


async def test_multipart_within_multipart(session: ClientSession, watcher: Watcher, url: URL) -> None:
    for _ in range(2):
        inner = aiohttp.MultipartWriter("mixed")
        inner.append("text")
        outer = aiohttp.MultipartWriter("mixed")
        outer.append(inner)
        await sent(session, url, data=outer)
    assert _without_headers(watcher.seen[0]) == _without_headers(watcher.seen[1])


def raw_multipart(boundary: str) -> dict[str, Any]:
    body = f'--{boundary}\r\nContent-Disposition: form-data; name="a"\r\n\r\n1 --{boundary}\r\n--{boundary}--\r\n'
    return {"data": body.encode(), "headers": {"Content-Type": f'multipart/form-data; boundary="{boundary}"; x=y'}}


async def test_multipart_that_comes_as_bytes(session: ClientSession, watcher: Watcher, url: URL) -> None:
    for boundary in ("abc", "abc", "[.*]"):
        assert await sent(session, url, **raw_multipart(boundary)) == raw_multipart(boundary)["data"]
    first, again, other = watcher.seen
    assert _without_headers(first) == _without_headers(again)
    assert _without_headers(first) != _without_headers(other)  # its value contains the boundary
    assert isinstance(first, Asked)
    assert first.body is not None
    assert first.body.content_type == "multipart/form-data; x=y"
    assert isinstance(first.body.content, tuple)
    assert [part.name for part in first.body.content] == [None, "a", None]


@pytest.mark.parametrize("quote_fields", [True, False])
async def test_a_form_field_is_known_by_its_plain_name(
    session: ClientSession, watcher: Watcher, url: URL, quote_fields: bool
) -> None:
    form = FormData(quote_fields=quote_fields)
    form.add_field('g"r u n', "value", content_type="text/plain")
    await sent(session, url, data=form)
    assert isinstance(watcher.body.content, tuple)
    assert [part.name for part in watcher.body.content] == ['g"r u n']


async def test_encodings_are_part_of_a_body(session: ClientSession, watcher: Watcher, url: URL) -> None:
    await sent(session, url, data=b"x" * 100, compress="gzip")
    assert (watcher.body.content_encoding, watcher.body.compress, watcher.body.content) == ("gzip", "gzip", b"x" * 100)


async def test_a_body_assigned_by_another_middleware(session: ClientSession, watcher: Watcher, url: URL) -> None:
    request = unsent(session, "POST", url)
    request.body = b"assigned"
    asked = await snapshot_request(request)
    assert isinstance(asked, Asked)
    assert asked.body is not None
    assert asked.body.content == b"assigned"


# --- bodies that are not read ---


async def numbers() -> AsyncIterator[bytes]:
    yield b"one "
    yield b"two"


async def test_a_generator_is_read_by_the_server_alone(session: ClientSession, watcher: Watcher, url: URL) -> None:
    assert await sent(session, url, data=numbers()) == b"one two"
    (asked,) = watcher.seen
    assert isinstance(asked, Uncacheable)
    assert asked.why == "the request's body can be read only once"
    assert (asked.request.method, asked.request.url) == ("POST", str(url))


async def test_a_generator_within_multipart(session: ClientSession, watcher: Watcher, url: URL) -> None:
    writer = aiohttp.MultipartWriter("mixed")
    writer.append(numbers())
    assert b"one two" in await sent(session, url, data=writer)
    assert isinstance(watcher.seen[0], Uncacheable)


async def test_a_socket_is_read_by_the_server_alone(session: ClientSession, watcher: Watcher, url: URL) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"through a socket")
        theirs.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as stream:
            assert await sent(session, url, data=stream) == b"through a socket"
    assert isinstance(watcher.seen[0], Uncacheable)


async def test_a_pipe_is_read_by_the_server_alone(session: ClientSession, watcher: Watcher, url: URL) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"through a pipe")
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert await sent(session, url, data=pipe) == b"through a pipe"
    assert isinstance(watcher.seen[0], Uncacheable)


async def test_a_large_file_is_sent_and_not_compared(
    session: ClientSession, watcher: Watcher, url: URL, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (GREATEST_FILE + 1))
    with path.open("rb") as file:
        assert len(await sent(session, url, data=file)) == GREATEST_FILE + 1
    (asked,) = watcher.seen
    assert isinstance(asked, Uncacheable)
    assert "too large" in asked.why


async def test_a_large_body_in_memory_is_sent_and_not_compared(
    session: ClientSession, watcher: Watcher, url: URL
) -> None:
    large = "x" * (GREATEST_BODY + 1)
    for data in (io.BytesIO(large.encode()), aiohttp.BytesPayload(b"")):
        if isinstance(data, aiohttp.BytesPayload):
            # aiohttp warns of bytes that are not in a BytesIO.
            with pytest.warns(ResourceWarning):
                data = aiohttp.BytesPayload(large.encode())
        assert len(await sent(session, url, data=data)) == GREATEST_BODY + 1
    for asked in watcher.seen:
        assert isinstance(asked, Uncacheable)
        assert "too large" in asked.why


async def test_a_closed_file_is_left_to_aiohttp(session: ClientSession, url: URL, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    for file in (path.open("rb"), io.BytesIO(b"content")):
        request = unsent(session, "POST", url, data=file)
        file.close()
        assert isinstance(await snapshot_request(request), Uncacheable)


async def test_a_file_that_is_no_file(session: ClientSession, url: URL) -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

    for file in (Endless(), io.BufferedReader(Endless())):
        request = unsent(session, "POST", url, data=file)
        assert isinstance(await snapshot_request(request), Uncacheable)


async def test_a_body_need_not_be_read(session: ClientSession, url: URL) -> None:
    asked = await snapshot_request(unsent(session, "POST", url, data=numbers()), read_body=False)
    assert isinstance(asked, Asked)
    assert asked.body is None


# --- requests that are not made ---


def told(asked: Asked | Uncacheable | None) -> object:
    assert isinstance(asked, Asked)
    return vars(asked.request), asked[1:]


async def test_asked_for_says_what_a_real_request_says(session: ClientSession, watcher: Watcher, url: URL) -> None:
    request: dict[str, Any] = {
        "params": {"a": "1"},
        "headers": {"X-Test": "1", "Authorization": "Bearer abc"},
        "json": {"a": 1},
        "cookies": {"user": "eve"},
        "ssl": False,
    }
    async with session.post(url, **request):
        pass
    asked = await asked_for("POST", str(url), **request)
    assert told(asked) == told(watcher.asked)


async def test_asked_for_leaves_aside_how_a_request_is_made() -> None:
    made = await asked_for("GET", "http://site.com/", allow_redirects=False, timeout=aiohttp.ClientTimeout(1))
    assert told(made) == told(await asked_for("GET", "http://site.com/"))


async def test_asked_for_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="allow_redirect"):
        await asked_for("GET", "http://site.com/", allow_redirect=False)
    with pytest.raises(aiohttp.InvalidURL):
        await asked_for("GET", "/relative")


async def test_asked_for_names_a_body_that_cannot_be_compared() -> None:
    assert isinstance(await asked_for("POST", "http://site.com/", data=numbers()), Uncacheable)


def test_automatic_headers_are_those_of_aiohttp() -> None:
    assert {name for name, _ in AUTOMATIC_HEADERS} == {
        hdrs.ACCEPT.lower(),
        hdrs.ACCEPT_ENCODING.lower(),
        hdrs.USER_AGENT.lower(),
    }


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256 Credential=K/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=ab12",
        'OAuth realm="", oauth_nonce="1", oauth_signature="x%3D", oauth_token="t"',
        'Signature keyId="k",algorithm="rsa-sha256",signature="x"',
    ],
)
async def test_a_signed_request_is_not_cached(session: ClientSession, authorization: str) -> None:
    """No other would have its key: entries would only fill the disk."""
    request = unsent(session, "GET", URL("http://site.com/"), headers={"Authorization": authorization})
    asked = await snapshot_request(request)
    assert isinstance(asked, Uncacheable)
    assert "signature" in asked.why


@pytest.mark.parametrize("authorization", ["OAuth token", "Bearer signature", "Basic eA==", "Signature"])
async def test_a_token_is_no_signature(session: ClientSession, authorization: str) -> None:
    request = unsent(session, "GET", URL("http://site.com/"), headers={"Authorization": authorization})
    assert isinstance(await snapshot_request(request), Asked)
