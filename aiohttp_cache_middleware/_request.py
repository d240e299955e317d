"""
aiohttp's request as plain data: what the cache and its keys need to know of it, taken without changing it.

Private names of aiohttp are read in `_value_of`, `_start_of` and `_connector_ssl`, and nowhere else here.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import ssl
import stat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from aiohttp import (
    BytesPayload,
    ClientRequest,
    ClientSession,
    DummyCookieJar,
    Fingerprint,
    JsonPayload,
    MultipartWriter,
    hdrs,
)
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.payload import IOBasePayload, Payload
from multidict import CIMultiDictProxy
from yarl import URL

from ._model import Header, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import BaseConnector

GREATEST_FILE: Final = 2**20
"""Bytes; a larger file is not read to compare requests."""
GREATEST_BODY: Final = 2**23
"""Bytes; a larger body in memory is not hashed: that would hold the loop for more than 10 ms."""

AUTOMATIC_HEADERS: Final = frozenset(
    {(name.lower(), value) for name, value in ClientRequest.DEFAULT_HEADERS.items()}
    | {(hdrs.USER_AGENT.lower(), SERVER_SOFTWARE)}
)
"""What aiohttp sends when the caller says nothing: (lower-case name, value)."""

ConnectionFact: TypeAlias = tuple[str, bytes]


class Part(NamedTuple):
    """
    A part of a multipart body.

    Attributes:
        name: Name of the form field; ``None`` if it is none.
        headers: Its header fields, without the boundary of a multipart within; ``None``: they are still in `content`.
        content: Its content before any transfer encoding, or the parts of a multipart within.
    """

    name: str | None
    headers: tuple[Header, ...] | None
    content: bytes | tuple[Part, ...]


class Body(NamedTuple):
    """
    A request's body, as far as requests are compared by it.

    Attributes:
        content_type: Value of Content-Type, without the boundary.
        content_encoding: Value of Content-Encoding.
        compress: How aiohttp will compress `content`; ``""``: not at all.
        content: The body before aiohttp's own encodings; of a multipart body its parts.
    """

    content_type: str
    content_encoding: str
    compress: str
    content: bytes | tuple[Part, ...]


class Asked(NamedTuple):
    """
    A request as the cache sees it; a tuple, because a frozen dataclass takes 1 µs longer to make.

    Attributes:
        request: What the policies know of it.
        body: ``None`` where it has none.
        authorization: Credentials in Authorization, one tuple per field line: the value, or of Digest, whose
            values change with each request, ``("Digest", realm, username)``.
        caller_cookies: Cookies, as ``name=value``, that are sent beyond those of the session's jar.
        host_override: Value of Host where it is not the URL's.
        connection: What tells its connection from an ordinary one: TLS settings, a socket's path.
        decoded: Whether the session decodes response bodies (``auto_decompress``).
    """

    request: Request
    body: Body | None = None
    authorization: tuple[tuple[str, ...], ...] = ()
    caller_cookies: tuple[str, ...] = ()
    host_override: str | None = None
    connection: tuple[ConnectionFact, ...] = ()
    decoded: bool = True

    @property
    def is_anonymous(self) -> bool:
        """Whether it has no credentials and no body."""
        headers = self.request.headers
        return self.body is None and hdrs.AUTHORIZATION not in headers and hdrs.COOKIE not in headers


class Uncacheable(NamedTuple):
    """
    The request cannot be compared with others.

    Attributes:
        why: One line for the log.
        request: The request all the same, for what it may invalidate.
    """

    why: str
    request: Request


def is_untouchable(request: ClientRequest) -> bool:
    """Tell whether *request* is none of a cache's business: a tunnel, or the start of another protocol."""
    return hdrs.UPGRADE in request.headers or request.method == hdrs.METH_CONNECT


def is_asked_again(asked: Asked, request: ClientRequest) -> bool:
    """Tell whether `snapshot_request` would give *asked*, which has no body, of *request*, made for the same URL."""
    session = request.session
    return (
        request.headers == asked.request.headers
        and not request.body
        and session.auto_decompress is asked.decoded
        and _connection_facts(request, session.connector) == asked.connection
    )


async def snapshot_request(request: ClientRequest, *, read_body: bool = True) -> Asked | Uncacheable:
    """
    Take down what the cache needs to know of *request*, which stays as it is and can be sent.

    Suspends only to read a body from a file. Bodies that can be read but once are left alone.

    Args:
        read_body: Not needed where no key is made of the request; `Asked.body` is ``None`` then.
    """
    headers = request.headers
    plain = Request(request.method, bare_url(request.url), CIMultiDictProxy(headers.copy()))
    if hdrs.AUTHORIZATION in headers and any(
        re.search(_SIGNATURE, value) for value in headers.getall(hdrs.AUTHORIZATION)
    ):
        return Uncacheable("its Authorization is a signature, another for each request", plain)
    body = None
    if read_body and (payload := request.body):
        try:
            body = _body(request, await _content_of(payload))
        except _IncomparableError as error:
            return Uncacheable(str(error), plain)
    host = headers.get(hdrs.HOST)
    return Asked(
        plain,
        body,
        _authorization(request) if hdrs.AUTHORIZATION in headers else (),
        _caller_cookies(request) if hdrs.COOKIE in headers else (),
        None if host == request.url.host_port_subcomponent else host,
        _connection_facts(request, request.session.connector),
        request.session.auto_decompress,
    )


_HOW_IT_IS_MADE: Final = frozenset(
    {"allow_redirects", "auto_decompress", "max_field_size", "max_headers", "max_line_size", "max_redirects"}
    | {"middlewares", "proxy", "proxy_auth", "proxy_headers", "raise_for_status", "read_bufsize", "read_until_eof"}
    | {"timeout", "upload_tracker"}
)


async def asked_for(method: str, url: str | URL, **request: Any) -> Asked | Uncacheable:
    """
    Give what `snapshot_request` would say of a request that is not made.

    Args:
        **request: As for `aiohttp.ClientSession.request`, as far as it is about the request itself: ``params``,
            ``headers``, ``data``, ``json``, ``cookies``, ``auth``, ``compress``, ``ssl``, ``server_hostname``; what
            says how it is made is left aside.

    Raises:
        TypeError: An unknown argument.
        aiohttp.InvalidURL: *url* is not absolute.
    """
    request = {name: value for name, value in request.items() if name not in _HOW_IT_IS_MADE}
    if (json := request.pop("json", None)) is not None:
        request["data"] = JsonPayload(json)
    for name, as_ssl in _OLD_TLS_SETTINGS.items():
        if (value := request.pop(name, None)) is not None:
            request["ssl"] = as_ssl(value)
    loop = asyncio.get_running_loop()
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:
        made = ClientRequest(method, URL(url), loop=loop, session=session, **request)
        asked = await snapshot_request(made)
        return Uncacheable("a tunnel, or another protocol", asked.request) if is_untouchable(made) else asked


_OLD_TLS_SETTINGS: Final[dict[str, Callable[[Any], ssl.SSLContext | bool | Fingerprint]]] = {
    "verify_ssl": bool,
    "fingerprint": Fingerprint,
    "ssl_context": lambda context: context,
}
"""Arguments that ``ssl`` has replaced, and how it says the same."""


def bare_url(url: URL) -> str:
    """Give *url* in its normal form, without user-info and fragment; no path is the path ``/`` (RFC 9110 §4.2.3)."""
    text = str(url)
    if "@" in text or "#" in text:
        url = url.with_fragment(None)
        text = str(url.with_user(None) if url.absolute else url)
    # Nothing but scheme and host: yarl gives every other absolute URL its path.
    return text + "/" if text.find("/", 8) < 0 and url.absolute else text


# --- bodies ---


class _IncomparableError(Exception):
    """A body cannot be read twice, or not in good time; says why."""


_TOO_LARGE: Final = "the request's body is too large to compare"
_ONLY_ONCE: Final = "the request's body can be read only once"


async def _content_of(payload: object) -> bytes | tuple[Part, ...]:
    match payload:
        case bytes() | bytearray():  # pragma: no cover - assigned to `request.body` before aiohttp 3.12.7
            return _bounded(bytes(payload), GREATEST_BODY)
        case BytesPayload():
            if (payload.size or 0) > GREATEST_BODY:
                raise _IncomparableError(_TOO_LARGE)
            return bytes(_value_of(payload))
        case IOBasePayload():
            if isinstance(_value_of(payload), io.BytesIO):
                return _read(payload, GREATEST_BODY)
            return await asyncio.get_running_loop().run_in_executor(None, _read_regular, payload)
        case MultipartWriter():
            return tuple([await _part(payload) for payload, _, _ in payload])
        case _:
            raise _IncomparableError(_ONLY_ONCE)


def _bounded(content: bytes, bound: int) -> bytes:
    if len(content) > bound:
        raise _IncomparableError(_TOO_LARGE)
    return content


async def _part(payload: Payload) -> Part:
    headers = tuple((name, _without_boundary(value)) for name, value in payload.headers.items())
    name = _field_name(payload.headers.get(hdrs.CONTENT_DISPOSITION, ""))
    return Part(name, headers, await _content_of(payload))


def _read_regular(payload: IOBasePayload) -> bytes:
    if not _is_regular(_value_of(payload)):
        raise _IncomparableError(_ONLY_ONCE)
    return _read(payload, GREATEST_FILE)


def _read(payload: IOBasePayload, bound: int) -> bytes:
    """Read what aiohttp would send from a file, and leave the file where aiohttp expects it."""
    file = _value_of(payload)
    try:
        start = _start_of(payload)
        file.seek(start)
        content = file.read(bound + 1)
        file.seek(start)
        return _bounded(content.encode(payload.encoding or "utf-8") if isinstance(content, str) else content, bound)
    except (OSError, ValueError) as error:  # closed, not seekable, cannot be encoded: aiohttp will say so
        raise _IncomparableError("the request's body cannot be read") from error


def _is_regular(file: object) -> bool:
    # What else has a descriptor (pipes, sockets, devices) may have no end, or no second reading.
    if not isinstance(file, (io.BufferedReader, io.BufferedRandom, io.FileIO, io.TextIOWrapper)):
        return False
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):  # it is closed, or has no descriptor
        return False


def _body(request: ClientRequest, content: bytes | tuple[Part, ...]) -> Body:
    content_type = request.headers.get(hdrs.CONTENT_TYPE, "")
    if isinstance(content, bytes) and (multipart := re.match(_MULTIPART, content_type)) is not None:
        content = tuple(_raw_parts(content, multipart["boundary"].strip('"').encode()))
    return Body(
        _without_boundary(content_type),
        request.headers.get(hdrs.CONTENT_ENCODING, ""),
        str(request.compress or ""),
        content,
    )


_MULTIPART = r'(?is)(multipart/[^"]*?);\s*boundary=(?P<boundary>"[^"]+"|[^;\s]+)(.*)'


def _without_boundary(content_type: str) -> str:
    return re.sub(_MULTIPART, r"\1\3", content_type)


def _raw_parts(content: bytes, boundary: bytes) -> Iterator[Part]:
    """Cut a multipart body that came as bytes at its delimiters (RFC 2046 §5.1.1)."""
    delimiter = rb"(?:\A|(?<=\r\n))--" + re.escape(boundary) + rb"(?=(?:--)?[ \t]*(?:\r\n|\Z))"
    for piece in re.split(delimiter, content):
        disposition = re.search(_DISPOSITION, piece.partition(b"\r\n\r\n")[0])
        yield Part(_field_name(disposition[1].decode("utf-8", "replace")) if disposition else None, None, piece)


_DISPOSITION = rb"(?im)^content-disposition:[ \t]*([^\r\n]*)"


_FIELD_NAME = r'(?i);\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))'


def _field_name(disposition: str) -> str | None:
    match = re.search(_FIELD_NAME, disposition)
    # aiohttp sends what is no token percent-encoded, or with backslashes (`quote_fields=False`).
    return None if match is None else unquote(re.sub(r"\\(.)", r"\1", match[1] or match[2] or ""))


def _value_of(payload: Payload) -> Any:
    # Public are only methods that consume or (before aiohttp 3.12.7) close what they read.
    return payload._value  # noqa: SLF001


def _start_of(payload: IOBasePayload) -> int:
    """Tell where aiohttp begins to read: newer releases go back there when they send again."""
    start: int | None = getattr(payload, "_start_position", None)
    position: int = _value_of(payload).tell() if start is None else start
    return position


# --- credentials ---

_DIGEST_PARAMETER = r'([^\s=,]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]*)'


# AWS (SigV4), OAuth 1, HTTP Message Signatures and their like: no two requests would have one key.
_SIGNATURE = r"(?i)[ ,](?:oauth_)?signature\s*="


def _authorization(request: ClientRequest) -> tuple[tuple[str, ...], ...]:
    return tuple(map(_credential, request.headers.getall(hdrs.AUTHORIZATION)))


def _credential(value: str) -> tuple[str, ...]:
    """Tell whose credentials these are; a Digest's nonce, count and response are new each time (RFC 7616 §3.4)."""
    scheme, _, parameters = value.strip().partition(" ")
    if scheme.lower() == "digest":
        said = {name.lower(): text for name, text in re.findall(_DIGEST_PARAMETER, parameters)}
        user = said.get("username", said.get("username*"))
        if user is not None:
            return ("Digest", said.get("realm", ""), user)
    return (value,)


def _caller_cookies(request: ClientRequest) -> tuple[str, ...]:
    sent = [pair.strip() for line in request.headers.getall(hdrs.COOKIE) for pair in line.split(";")]
    jar = request.session.cookie_jar.filter_cookies(request.url)
    # Cut like the field: a value may hold a semicolon.
    of_the_jar = {piece.strip() for one in jar.values() for piece in f"{one.key}={one.coded_value}".split(";")}
    return tuple(sorted((pair for pair in sent if pair and pair not in of_the_jar), key=_cookie_name))


def _cookie_name(pair: str) -> str:
    return pair.partition("=")[0]


# --- connections ---


def _connection_facts(request: ClientRequest, connector: BaseConnector | None) -> tuple[ConnectionFact, ...]:
    """
    Tell what makes the request's connection lead elsewhere, or be trusted more or less, than an ordinary one.

    A proxy does not count: those who rotate proxies want one entry. A verifying context of the session's
    connector does not either: it has no name that another process would know it by; ``namespace`` separates.
    """
    asked_ssl, general_ssl = request.ssl, _connector_ssl(connector)
    path = getattr(connector, "path", None)  # of a UnixConnector or NamedPipeConnector
    if asked_ssl is True and general_ssl is True and path is None and request.server_hostname is None:
        return ()
    facts = _tls_facts(asked_ssl) if asked_ssl is not True else _general_tls_facts(general_ssl)
    if request.server_hostname is not None:
        facts += (("server-hostname", request.server_hostname.encode()),)
    if path is not None:
        facts += (("path", os.fsencode(path)),)
    return facts


_UNVERIFIED: Final = (("unverified", b""),)


def _tls_facts(setting: ssl.SSLContext | bool | Fingerprint) -> tuple[ConnectionFact, ...]:
    if isinstance(setting, ssl.SSLContext):
        return (("context", _token(setting)),)
    if isinstance(setting, Fingerprint):
        return (("fingerprint", setting.fingerprint),)
    return () if setting else _UNVERIFIED


def _general_tls_facts(setting: ssl.SSLContext | bool | Fingerprint) -> tuple[ConnectionFact, ...]:
    if isinstance(setting, ssl.SSLContext):
        return _UNVERIFIED if setting.verify_mode is ssl.CERT_NONE else ()
    return _tls_facts(setting)


_tokens: WeakKeyDictionary[ssl.SSLContext, bytes] = WeakKeyDictionary()


def _token(context: ssl.SSLContext) -> bytes:
    """Give a name for *context* that no other one has or will have: what it trusts cannot be seen."""
    return _tokens.setdefault(context, os.urandom(16))


def _connector_ssl(connector: BaseConnector | None) -> ssl.SSLContext | bool | Fingerprint:
    setting: ssl.SSLContext | bool | Fingerprint = getattr(connector, "_ssl", True)
    return setting
