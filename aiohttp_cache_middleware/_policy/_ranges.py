"""Parts of a body: what is asked for, what is sent, what is stored of one (RFC 9110 §14, §15.3.7, §15.5.17)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from multidict import MultiMapping, istr

from .._model import Header, Request, StoredResponse
from ._fields import members
from ._outcomes import PARTIAL, Answer

MAX_RANGES = 32
"""More parts than this in one request are a mistake or an attack; the whole body is the answer (§14.2)."""

DIGESTS = ("content-digest", "content-md5")
"""Fields that hold for the content of one response, so not for a part of it, or for more (RFC 9530 §2)."""

Range = tuple[int, int]
"""First byte and the byte after the last."""

_ANY_SIZE = 10**18
"""A length that no range which can be parsed goes beyond."""

_RANGE_FIELD = istr("Range")
_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18})")


def is_byte_range(value: str) -> bool:
    """Tell whether a ``Range`` is in bytes; another unit means something to the origin only."""
    return value.partition("=")[0].strip().lower() == "bytes"


def parse_ranges(value: str, size: int) -> tuple[Range, ...] | None:
    """
    Parse a ``Range`` in bytes (§14.1.2).

    Args:
        size: Length of the body in bytes.

    Returns:
        What can be satisfied, in the order asked for, ``()`` if nothing can; ``None`` for a field to be ignored:
        malformed, too many ranges, ranges that ask for more than twice the body, or the last bytes of an empty one.
    """
    listed = members(value.partition("=")[2])
    if not 0 < len(listed) <= MAX_RANGES:
        return None
    ranges: list[Range] = []
    for member in listed:
        match = _RANGE.fullmatch(member)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            if not size and int(suffix):
                return None  # the last bytes of nothing: satisfied, but by no part that could be described
            start, stop = max(0, size - int(suffix)), size
        else:
            if last and int(last) < int(first):
                return None
            start, stop = int(first), min(int(last) + 1, size) if last else size
        if start < stop:
            ranges.append((start, stop))
    return tuple(ranges) if sum(stop - start for start, stop in ranges) <= 2 * size else None


# --- a request for one part (§14.2) ---


def asks_for_one_part(request: Request) -> bool:
    """Tell whether *request* is for one range of bytes, whatever the length of what it is a part of."""
    return wanted_range(request, _ANY_SIZE) is not None


def is_within(inner: Range, outer: Range) -> bool:
    """Tell whether one range lies wholly within another."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def wanted_range(request: Request, size: int) -> Range | None:
    """
    Give the one range that *request* is for; ``None`` if it is for none, for several, or for what is not there.

    Args:
        size: Length of the complete representation in bytes.
    """
    lines = request.headers.getall(_RANGE_FIELD, ())
    if request.method != "GET" or len(lines) != 1 or "," in lines[0] or not is_byte_range(lines[0]):
        return None
    ranges = parse_ranges(lines[0], size)
    return ranges[0] if ranges else None


# --- a stored part (§14.4, §15.3.7) ---


class Part(NamedTuple):
    """Where a part belongs: its first byte, the byte after its last, and the length of the whole."""

    start: int
    stop: int
    complete: int


def content_range(fields: MultiMapping[str]) -> Part | None:
    """
    Parse the ``Content-Range`` of a single part (§14.4).

    Returns:
        ``None`` for one that is missing, invalid, not in bytes, or leaves open how long the whole is; and for
        several.
    """
    lines = fields.getall("Content-Range", ())
    match = _CONTENT_RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None:
        return None
    first, last, complete = map(int, match.groups())
    return Part(first, last + 1, complete) if first <= last < complete else None


def stored_part(stored: StoredResponse) -> Part | None:
    """Give what a stored 206 holds; ``None`` where its content is longer or shorter than it says."""
    part = content_range(stored.fields)
    return part if part is not None and part.stop - part.start == stored.size else None


def holds_wanted(stored: StoredResponse, request: Request) -> bool:
    """Tell whether the one range that *request* is for lies wholly within the stored part (RFC 9111 §3.3)."""
    part = stored_part(stored)
    wanted = None if part is None else wanted_range(request, part.complete)
    return part is not None and wanted is not None and is_within(wanted, part[:2])


def answer_from_part(stored: StoredResponse, request: Request) -> Answer | None:
    """Give the 206 that answers *request* from a stored part that `holds_wanted`; ``None``: all of it does."""
    part = stored_part(stored)
    wanted = None if part is None else wanted_range(request, part.complete)
    if part is None or wanted is None or wanted == part[:2]:
        return None
    start, stop = wanted
    described = (("Content-Range", f"bytes {start}-{stop - 1}/{part.complete}"), ("Content-Length", str(stop - start)))
    return Answer(PARTIAL, stored.reason, _replaced(stored, described), ((start - part.start, stop - part.start),))


# --- parts of a stored complete response ---


def partial_answer(stored: StoredResponse, value: str, secret: bytes) -> Answer | None:
    """
    Give the 206 or 416 that answers a ``Range`` in bytes from a stored 200; ``None``: the whole body does.

    Args:
        secret: Makes the boundary between several parts, so that no origin can put it into a body.
    """
    size = stored.size
    ranges = parse_ranges(value, size)
    if ranges is None:
        return None
    if not ranges:
        unsatisfied = (("Content-Range", f"bytes */{size}"), ("Content-Length", "0"))
        return Answer(416, "Range Not Satisfiable", _replaced(stored, unsatisfied, drop=("content-type",)), ranges=())
    if len(ranges) > 1:
        return _multipart_answer(stored, ranges, secret)
    start, stop = ranges[0]
    described = (("Content-Range", f"bytes {start}-{stop - 1}/{size}"), ("Content-Length", str(stop - start)))
    return Answer(PARTIAL, "Partial Content", _replaced(stored, described), ranges)


def _multipart_answer(stored: StoredResponse, ranges: tuple[Range, ...], secret: bytes) -> Answer:
    """Give several parts as ``multipart/byteranges`` (§14.6)."""
    boundary = blake2b(f"{stored.key} {ranges}".encode(), digest_size=16, key=secret).hexdigest()
    content_type = stored.fields.get("Content-Type")
    described = f"Content-Type: {content_type}\r\n" if content_type else ""
    frames = [
        f"\r\n--{boundary}\r\n{described}Content-Range: bytes {start}-{stop - 1}/{stored.size}\r\n\r\n"
        for start, stop in ranges
    ]
    frames = [frames[0].lstrip("\r\n"), *frames[1:], f"\r\n--{boundary}--\r\n"]
    encoded = tuple([frame.encode("utf-8", "surrogateescape") for frame in frames])
    length = sum(map(len, encoded)) + sum(stop - start for start, stop in ranges)
    changed = (("Content-Type", f"multipart/byteranges; boundary={boundary}"), ("Content-Length", str(length)))
    return Answer(PARTIAL, "Partial Content", _replaced(stored, changed), ranges, encoded)


def _replaced(stored: StoredResponse, new: Sequence[Header], drop: Sequence[str] = ()) -> tuple[Header, ...]:
    gone = {name.lower() for name, _ in new} | {"content-range", *DIGESTS, *drop}
    return (*[header for header in stored.headers if header[0].lower() not in gone], *new)
