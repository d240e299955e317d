"""
Frozen data that travels the path of a request; no I/O, no aiohttp.

Tuples where the fields are few: the class of a frozen dataclass takes 0.6 ms more of every import, and an instance 1 µs
more. For the same reason annotations are no strings here, which `NamedTuple` would compile.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import NamedTuple, TypeAlias

from multidict import CIMultiDict, CIMultiDictProxy

FOREVER = math.inf
"""An ``expires_time`` or lifetime without end."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Header: TypeAlias = tuple[str, str]
RawHeader: TypeAlias = tuple[bytes, bytes]


SHOWN_ETAG, SENT_ETAG = "Etag", "ETag"
"""How aiohttp shows a name of many responses, and how it is sent (RFC 9110 §8.8.3)."""


def encoded(headers: tuple[Header, ...]) -> tuple[RawHeader, ...]:
    """Give the bytes that aiohttp would show as these fields; some others where it shows no bytes so."""
    return tuple([(_encoded(SENT_ETAG if name == SHOWN_ETAG else name), _encoded(value)) for name, value in headers])


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def utc_datetime(posix_time: float) -> datetime | None:
    """Give *posix_time* as an aware UTC datetime; ``None`` for never, and for what no calendar has."""
    try:
        return _EPOCH + timedelta(seconds=posix_time)
    except (OverflowError, ValueError):
        return None


class Expiration(NamedTuple):
    """
    A normalised ``expire_after``: a lifetime in seconds, or a moment.

    Attributes:
        seconds: Lifetime counted from when a response is stored; ``inf`` is for ever, ``0`` is "do not cache".
        moment: POSIX time at which whatever is stored expires; `seconds` does not count then.
    """

    seconds: float = FOREVER
    moment: float | None = None

    @property
    def forbids_caching(self) -> bool:
        """Tell whether this is ``0``: neither read nor store."""
        return self.moment is None and self.seconds == 0

    def __str__(self) -> str:
        if self.moment is not None:
            return f"until {utc_datetime(self.moment) or 'the end of time'}"
        return "for ever" if self.seconds == FOREVER else f"{self.seconds:g} s"

    def expires_time(self, stored_time: float) -> float:
        """Give the POSIX time (or ``inf``) at which what was stored at *stored_time* expires."""
        return self.moment if self.moment is not None else stored_time + self.seconds


class Rules(NamedTuple):
    """
    The options in force for one request, resolved by precedence, as plain data for the policies.

    Attributes:
        override: ``expire_after`` given for this request (`CacheOptions`), else ``None``.
        default: ``expire_after`` by URL pattern or of the cache, else ``None``.
        stale_if_error: How long (seconds) after its expiry a response may stand in for a failing origin;
            ``0`` is off, ``inf`` is any time.
        refresh: Revalidate or refetch even what is fresh.
        only_if_cached: Never touch the network.
    """

    allowed_methods: frozenset[str] = frozenset({"GET", "HEAD"})
    allowed_codes: frozenset[int] | None = None
    override: Expiration | None = None
    default: Expiration | None = None
    stale_if_error: float = 0.0
    refresh: bool = False
    only_if_cached: bool = False


class Request:
    """
    What the cache knows of a request: its form on the wire, without aiohttp. Never changed.

    Attributes:
        method: Upper-case method.
        url: Absolute URL, normalised, without fragment and user-info.
        headers: All fields that will be sent, as they stand when the request reaches the cache.
    """

    def __init__(self, method: str, url: str, headers: CIMultiDictProxy[str]) -> None:
        self.method = method
        self.url = url
        self.headers = headers

    @cached_property
    def derived(self) -> dict[object, object]:
        """What the policies have worked out from it, by the function that did."""
        return {}


class BodyRef(NamedTuple):
    """
    A large body, kept beside its record under an `id` that is never used for another body.

    Attributes:
        id: Name of the body within its store.
        size: Length in bytes.
    """

    id: str
    size: int


Vary: TypeAlias = tuple[tuple[str, bytes], ...]
"""Selecting fields: (lower-case name, keyed digest of the request's value; ``b""`` where it is absent)."""


@dataclass(frozen=True, init=False)
class StoredResponse:
    """
    One stored response (RFC 9111 §3): status line, fields, times, and the body or where it is.

    Times are POSIX seconds. Instances are immutable and may be shared between callers and threads.

    Attributes:
        key: The entry's own key in the store (primary key, or the key of a variant).
        url: URL that was asked for: normalised, without fragment, credentials and ignored parameters.
        headers: Fields as aiohttp showed them, in order, duplicates kept.
        raw_headers: Fields as they came; ``None``: as `headers`, `encoded`.
        request_headers: Fields of the request, without credentials and ignored ones.
        request_time: When the request was sent that this response (or its last validation) answered.
        response_time: When this response (or its last validation) was received.
        created_time: When it was stored, or renewed by a 304.
        expires_time: When it stops being fresh; ``inf`` is never.
        vary: Selecting fields with their values; empty where any request is answered.
        body: The body itself while it is small, else a reference.
        redirects_to: For a redirect, the final URL it led to.
        set_cookie_time: When its ``Set-Cookie`` fields came, if it was renewed since; else ``None``.
        read_bufsize: aiohttp's limit on what its reader buffers, if that was raised for the request; else ``0``.
    """

    key: str
    method: str
    url: str
    status: int
    reason: str
    version: tuple[int, int]
    headers: tuple[Header, ...]
    request_time: float
    response_time: float
    created_time: float
    expires_time: float
    body: bytes | BodyRef
    raw_headers: tuple[RawHeader, ...] | None
    request_headers: tuple[Header, ...]
    vary: Vary
    redirects_to: str | None
    set_cookie_time: float | None
    read_bufsize: int

    def __init__(
        self,
        *,
        key: str,
        method: str,
        url: str,
        status: int,
        reason: str,
        version: tuple[int, int],
        headers: tuple[Header, ...],
        request_time: float,
        response_time: float,
        created_time: float,
        expires_time: float,
        body: bytes | BodyRef = b"",
        raw_headers: tuple[RawHeader, ...] | None = None,
        request_headers: tuple[Header, ...] = (),
        vary: Vary = (),
        redirects_to: str | None = None,
        set_cookie_time: float | None = None,
        read_bufsize: int = 0,
    ) -> None:
        # A frozen dataclass sets its fields one by one past its own guard, which takes four times as long for so many.
        fields = {
            "key": key,
            "method": method,
            "url": url,
            "status": status,
            "reason": reason,
            "version": version,
            "headers": headers,
            "request_time": request_time,
            "response_time": response_time,
            "created_time": created_time,
            "expires_time": expires_time,
            "body": body,
            "raw_headers": raw_headers,
            "request_headers": request_headers,
            "vary": vary,
            "redirects_to": redirects_to,
            "set_cookie_time": set_cookie_time,
            "read_bufsize": read_bufsize,
        }
        object.__setattr__(self, "__dict__", fields)

    @property
    def size(self) -> int:
        """Length of the body in bytes."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.size

    @cached_property
    def fields(self) -> CIMultiDictProxy[str]:
        """The headers as a case-insensitive multidict, made when first asked for."""
        return CIMultiDictProxy(CIMultiDict(self.headers))

    @cached_property
    def request_fields(self) -> CIMultiDictProxy[str]:
        """The request's headers as a case-insensitive multidict, made when first asked for."""
        return CIMultiDictProxy(CIMultiDict(self.request_headers))

    @cached_property
    def derived(self) -> dict[object, object]:
        """What the policies have worked out from it, by the function that did."""
        return {}

    def replace(self, **changes: object) -> "StoredResponse":
        """Give a copy with *changes*."""
        # dataclasses.replace() takes 8 µs for this many frozen fields; every stored response is copied twice.
        copy = object.__new__(StoredResponse)
        fields = self.__dict__ | changes
        fields.pop("derived", None)
        if "headers" in changes:
            fields.pop("fields", None)
        if "request_headers" in changes:
            fields.pop("request_fields", None)
        object.__setattr__(copy, "__dict__", fields)
        return copy


class Variant(NamedTuple):
    """One line of a `VariantIndex`: under which key the response for these selecting fields is kept."""

    key: str
    vary: Vary


class VariantIndex(NamedTuple):
    """
    What stands under a primary key once responses differ by ``Vary`` (RFC 9111 §4.1).

    Attributes:
        url: As in `StoredResponse`.
        variants: Most recently stored first.
    """

    url: str
    variants: tuple[Variant, ...]


Entry: TypeAlias = StoredResponse | VariantIndex
"""What a store keeps under a key."""


def has_expired(entry: Entry, now: float) -> bool:
    """Tell whether *entry* is a response that is not fresh any more; an index does not expire."""
    return isinstance(entry, StoredResponse) and entry.expires_time <= now


class OriginResponse(NamedTuple):
    """
    What the policies know of a response that has just come from the origin.

    Attributes:
        fields: Header fields, case-insensitive.
        request_time: POSIX time at which the request was sent.
        response_time: POSIX time at which the header fields were there.
    """

    status: int
    fields: CIMultiDictProxy[str]
    request_time: float
    response_time: float
    reason: str = ""
