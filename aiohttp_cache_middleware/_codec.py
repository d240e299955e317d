"""
How an entry stands on disk: a small fixed header, bounded msgpack metadata, the body, one seal over all.

::

    format u8 | kind u8 | metadata length u32 | body length u32 | seal, 16 bytes | metadata | body

The body is as it is, compressed (`_deflate`), or in a file of its own, as the kind says. The seal (`_seal`) covers the
cache key, the header, the metadata and the body, so a record answers only the key that it was written for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from hmac import compare_digest
from itertools import chain
from types import NoneType
from typing import Any, Final

import msgpack

from ._deflate import deflated, inflated
from ._model import (
    SENT_ETAG,
    SHOWN_ETAG,
    BodyRef,
    Entry,
    RawHeader,
    StoredResponse,
    Variant,
    VariantIndex,
    Vary,
    encoded,
)
from ._packing import pack
from ._seal import Hasher, hashers

FORMAT: Final = 1
"""Number of the record layout; another layout takes another number, and its records are misses here."""
MAX_METADATA: Final = 256 * 1024
"""Bytes of metadata (status line, fields, request facts) beyond which a response is not stored."""
MAX_BODY: Final = 0xFFFF_FFFF
"""Bytes of body that one record can hold."""

_HEADER: Final = struct.Struct("<BBII")
_DIGEST_SIZE: Final = 16
_PREFIX: Final = _HEADER.size + _DIGEST_SIZE
_RESPONSE, _RESPONSE_WITH_BODY_FILE, _INDEX, _RESPONSE_DEFLATED = range(4)

_LATEST: Final = 2.0**35
"""POSIX time that no clock shows."""

# Types of a response's facts, in order; which of the last ones may be missing makes the variants.
_TYPES: Final = frozenset(
    (str, str, int, str, int, int, tuple, raw, tuple, float, float, float, float, tuple, redirects_to, reference, *rare)
    for raw in (tuple, NoneType)
    for redirects_to in (str, NoneType)
    for reference in (tuple, NoneType)
    for rare in ((), (float, int), (NoneType, int))  # most responses have no such facts
)


def _refuse_map(_: object) -> None:
    raise UndecodableError("a map, of which there are none")


# Bounds keep a hostile record from costing more memory and time than its own size.
_unpacker_options: Final[dict[str, Any]] = {
    "use_list": False,
    "raw": False,
    "unicode_errors": "surrogatepass",
    "strict_map_key": True,
    "max_str_len": MAX_METADATA,
    "max_bin_len": MAX_METADATA,
    "max_array_len": 65_536,
    "max_map_len": 0,
    "object_hook": _refuse_map,  # the empty ones: 64 bytes for each of the record's
    "max_ext_len": 0,
}


class UndecodableError(ValueError):
    """A record is damaged, of another format, under another key, or made without the secret."""


class UnencodableError(ValueError):
    """An entry is too large, or holds what may not be stored."""


class Codec:
    """
    Turns entries into records and back.

    Args:
        secret_keys: The first one seals, any of them may have sealed what is read; without any the seal tells damage,
            but not tampering.
        compress: Whether bodies that get smaller by it are written compressed; they are read either way.
    """

    def __init__(self, secret_keys: Sequence[bytes] = (), *, compress: bool = False) -> None:
        self._compress = compress
        self._hashers = hashers(secret_keys, _DIGEST_SIZE)

    def encode(self, key: str, entry: Entry) -> bytes:
        """
        Give the record of *entry* under *key*.

        Raises:
            UnencodableError: Its metadata exceeds `MAX_METADATA`, or a field holds CR, LF or NUL.
        """
        kind, facts, body = (
            _facts_of_index(entry)
            if isinstance(entry, VariantIndex)
            else _facts_of_response(entry, compress=self._compress)
        )
        try:
            metadata = pack(facts)
        except (ValueError, TypeError, OverflowError) as error:
            raise UnencodableError(str(error)) from error
        if len(metadata) > MAX_METADATA or len(body) > MAX_BODY:
            raise UnencodableError("too large for a record")
        header = _HEADER.pack(FORMAT, kind, len(metadata), len(body))
        digest = _digest(self._hashers[0], key, header, metadata, body)
        return b"".join((header, digest, metadata, body))

    def decode(self, key: str, record: object) -> Entry:
        """
        Give the entry that *record* holds, if it was written under *key* and is unchanged.

        Raises:
            UndecodableError: It was not, or it is of another format.
        """
        if not isinstance(record, bytes) or len(record) < _PREFIX or record[0] != FORMAT:
            raise UndecodableError("not a record of this format")
        _, kind, metadata_size, body_size = _HEADER.unpack_from(record)
        if metadata_size > MAX_METADATA or len(record) != _PREFIX + metadata_size + body_size:
            raise UndecodableError("wrong length")
        header, digest = record[: _HEADER.size], record[_HEADER.size : _PREFIX]
        content = memoryview(record)[_PREFIX:]
        for hasher in self._hashers:
            if compare_digest(_digest(hasher, key, header, content), digest):
                break
        else:
            raise UndecodableError("wrong checksum")
        try:
            facts = msgpack.unpackb(content[:metadata_size], **_unpacker_options)
            if kind == _INDEX:
                return _index(facts)
            return _response(key, kind, facts, record[_PREFIX + metadata_size :])
        except UndecodableError:
            raise
        except Exception as error:  # msgpack's errors have no common base
            raise UndecodableError(f"malformed metadata: {type(error).__name__}") from error


def _digest(hasher: Hasher, key: str, header: bytes, *parts: bytes | memoryview) -> bytes:
    digest = hasher.copy()
    encoded = key.encode("utf-8", "surrogatepass")
    digest.update(b"%d:%b%b" % (len(encoded), encoded, header))
    for part in parts:
        digest.update(part)
    return digest.digest()


def _facts_of_response(response: StoredResponse, *, compress: bool) -> tuple[int, tuple[object, ...], bytes]:
    reference: tuple[str, int] | None = None
    if not isinstance(response.body, bytes):
        kind, body, reference = _RESPONSE_WITH_BODY_FILE, b"", (response.body.id, response.body.size)
    elif compress and (shorter := deflated(response.body)) is not None:
        kind, body, reference = _RESPONSE_DEFLATED, shorter, ("", response.size)
    else:
        kind, body = _RESPONSE, response.body
    headers, sent = tuple(chain.from_iterable(response.headers)), tuple(chain.from_iterable(response.request_headers))
    text = _checked(headers)
    _checked(sent)
    raw = None if response.raw_headers is None else tuple(chain.from_iterable(response.raw_headers))
    if raw is not None and _is_encoded(raw, response, headers, text):
        raw = None
    facts: tuple[object, ...] = (
        response.method,
        response.url,
        response.status,
        response.reason,
        *response.version,
        headers,
        None if raw is None else tuple(map(bytes, raw)),
        sent,
        float(response.request_time),
        float(response.response_time),
        float(response.created_time),
        float(response.expires_time),
        response.vary,
        response.redirects_to,
        reference,
    )
    if response.set_cookie_time is not None or response.read_bufsize:
        facts = (*facts, response.set_cookie_time, response.read_bufsize)
    return kind, facts, body


def _is_encoded(raw: tuple[bytes, ...], response: StoredResponse, headers: tuple[str, ...], text: str) -> bool:
    """Tell whether *raw* is what `encoded` makes of *headers* which, line by line, are *text*."""
    names = headers[::2]
    if SHOWN_ETAG in names:
        sent = [SENT_ETAG if name == SHOWN_ETAG else name for name in names]
        text = "\n".join(chain.from_iterable(zip(sent, headers[1::2], strict=True)))
    try:
        # At once, for a third of the time: no part of *text* holds what joins them.
        return len(raw) == len(headers) and b"\n".join(raw) == text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return response.raw_headers == encoded(response.headers)


def _facts_of_index(index: VariantIndex) -> tuple[int, tuple[object, ...], bytes]:
    return _INDEX, (index.url, tuple((variant.key, variant.vary) for variant in index.variants)), b""


def _response(key: str, kind: int, facts: tuple[Any, ...], body: bytes) -> StoredResponse:
    if tuple(map(type, facts)) not in _TYPES:
        raise UndecodableError("facts of the wrong type")
    method, url, status, reason, major, minor, headers, raw, sent, *times, vary, redirects_to, reference = facts[:16]
    request_time, response_time, created_time, expires_time = times
    set_cookie_time, read_bufsize = facts[16:] or (None, 0)
    # What is no number fails every comparison; only an expiry may be infinite.
    if not (
        100 <= status <= 999
        and abs(request_time) < _LATEST
        and abs(response_time) < _LATEST
        and abs(created_time) < _LATEST
        and abs(set_cookie_time or 0.0) < _LATEST
        and 0 <= read_bufsize < 2**31
        and expires_time > -math.inf
    ):
        raise UndecodableError("facts that can't be")
    _checked(headers + sent)
    return StoredResponse(
        key=key,
        method=method,
        url=url,
        status=status,
        reason=reason,
        version=(major, minor),
        headers=_pairs(headers),
        request_time=request_time,
        response_time=response_time,
        created_time=created_time,
        expires_time=expires_time,
        body=_body(kind, body, reference),
        raw_headers=None if raw is None else _raw_fields(raw),
        request_headers=_pairs(sent),
        vary=_vary(vary),
        redirects_to=redirects_to,
        set_cookie_time=set_cookie_time,
        read_bufsize=read_bufsize,
    )


def _index(facts: tuple[Any, ...]) -> VariantIndex:
    url, variants = facts
    _check_types(str, url, *(key for key, _ in variants))
    return VariantIndex(url, tuple(Variant(key, _vary(vary)) for key, vary in variants))


def _body(kind: int, body: bytes, reference: Any) -> bytes | BodyRef:
    if kind == _RESPONSE:
        return body
    identifier, size = reference
    _check_types(str, identifier)
    _check_types(int, size)
    return inflated(body, size) if kind == _RESPONSE_DEFLATED else BodyRef(identifier, size)


def _vary(vary: Any) -> Vary:
    for name, digest in vary:
        _check_types(str, name)
        _check_types(bytes, digest)
    return tuple(vary)


def _raw_fields(flat: tuple[bytes, ...]) -> tuple[RawHeader, ...]:
    b"".join(flat)  # raises TypeError for anything but bytes
    return _pairs(flat)


def _pairs(flat: tuple[Any, ...]) -> tuple[tuple[Any, Any], ...]:
    if len(flat) % 2:
        raise UndecodableError("a field without value")
    parts = iter(flat)
    return tuple(zip(parts, parts, strict=False))


def _checked(flat: tuple[str, ...]) -> str:
    """Give the names and values of fields line by line; refuse what would be more of them once sent (RFC 9110 §5.5)."""
    text = "\n".join(flat)  # raises TypeError for anything but str
    if text.count("\n") >= max(1, len(flat)) or "\r" in text or "\0" in text:
        raise UnencodableError("a field holds CR, LF or NUL")
    return text


def _check_types(expected: type, *values: object) -> None:
    for value in values:
        if type(value) is not expected:
            raise UndecodableError(f"{type(value).__name__} where {expected.__name__} is due")
