"""Parts of a stored body (RFC 9110 §14, §15.3.7, §15.5.17)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from .._model import Header, StoredResponse
from ._fields import members
from ._outcomes import Answer

MAX_RANGES = 32
"""More parts than this in one request are a mistake or an attack; the whole body is the answer (§14.2)."""

Range = tuple[int, int]
"""First byte and the byte after the last."""

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
        malformed, too many ranges, or ranges that ask for more than twice the body.
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
            start, stop = max(0, size - int(suffix)), size
        else:
            if last and int(last) < int(first):
                return None
            start, stop = int(first), min(int(last) + 1, size) if last else size
        if start < stop:
            ranges.append((start, stop))
    return tuple(ranges) if sum(stop - start for start, stop in ranges) <= 2 * size else None


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
    return Answer(206, "Partial Content", _replaced(stored, described), ranges)


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
    return Answer(206, "Partial Content", _replaced(stored, changed), ranges, encoded)


def _replaced(stored: StoredResponse, new: Sequence[Header], drop: Sequence[str] = ()) -> tuple[Header, ...]:
    gone = {name.lower() for name, _ in new} | {"content-range", *drop}
    return (*[header for header in stored.headers if header[0].lower() not in gone], *new)
