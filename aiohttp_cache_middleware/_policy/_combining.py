"""Parts of one representation together: with each other, and beside the whole (RFC 9111 §3.4; RFC 9110 §15.3.7.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

from .._model import OriginResponse, Rules, StoredResponse
from ._outcomes import PARTIAL, Complete
from ._ranges import DIGESTS, Part, content_range, is_within, stored_part
from ._stored_fields import may_be_sent
from ._validation import freshen

GREATEST_COMBINED = 256 * 1024
"""Bytes that parts may come to together: what a body held in memory may have."""

DESCRIBING_A_PART = ("Content-Type", *DIGESTS)
"""Fields of a 206 that say nothing of the whole (RFC 9110 §15.3.7, RFC 9530 §2)."""

_STRONG = re.compile(r'"[^"]*"')


# --- the same representation? (RFC 9110 §8.8.1) ---


def is_same_representation(one: MultiMapping[str], other: MultiMapping[str]) -> bool:
    """Tell whether two responses are of one representation, byte for byte: their strong entity tags agree."""
    tag = strong_tag(one)
    return tag is not None and tag == strong_tag(other)


def strong_tag(fields: MultiMapping[str]) -> str | None:
    """
    Give the entity tag if it is a strong one, as it was sent; ``None`` if not.

    One without quotes is none here: what it means is a guess, and a wrong one would mix two representations.
    """
    tag = fields.get("ETag")
    return tag if tag is not None and _STRONG.fullmatch(tag) else None


def _is_another(stored: StoredResponse, new: StoredResponse) -> bool:
    tag, other = strong_tag(stored.fields), strong_tag(new.fields)
    return tag is not None and other is not None and tag != other


# --- a part arrives ---


def freshened_by_part(
    stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
) -> tuple[StoredResponse, ...]:
    """Give which of *stored* a 206 renews, as renewed: all of the same representation, whole or in part (§3.4)."""
    if content_range(response.fields) is None:
        return ()  # several parts, or what can't be understood
    fields = CIMultiDict(response.fields)
    for name in DESCRIBING_A_PART:
        fields.popall(name, None)
    response = response._replace(fields=CIMultiDictProxy(fields))
    renewed = [
        freshen(one, response, rules, now)
        for one in stored
        if one.status in (200, PARTIAL) and is_same_representation(one.fields, response.fields)
    ]
    return tuple(renewed)


def to_keep(stored: StoredResponse | None, new: StoredResponse, max_size: int | None = None) -> StoredResponse | None:
    """
    Give what to store now that a part has arrived where *stored* is; ``None``: nothing.

    A complete response makes way only for one that is complete too, or that shows it to be out of date. Two parts
    that touch become one.

    Args:
        stored: As renewed by the part's fields (`freshened_by_part`).
        new: A 206 whose content has arrived.
        max_size: Bytes; no more are stored.
    """
    part = stored_part(new)
    if part is None:
        return None
    if part == (0, part.complete, part.complete):
        return as_complete(new)
    if stored is None:
        return new
    if stored.status == 200 and not _is_another(stored, new):
        return None
    held = stored_part(stored) if stored.status == PARTIAL else None
    if held is None or not is_same_representation(stored.fields, new.fields):
        return new
    if is_within(part[:2], held[:2]):
        return None
    limit = GREATEST_COMBINED if max_size is None else min(max_size, GREATEST_COMBINED)
    return joined(stored, new, limit) or new


# --- parts that make a larger one ---


def joined(stored: StoredResponse, new: StoredResponse, limit: int) -> StoredResponse | None:
    """
    Give *stored* with the content of *new* too, complete if that is all of it (RFC 9110 §15.3.7.3).

    Args:
        stored: A part, renewed by the fields of *new*, another part of the same representation.
        limit: The greatest length, in bytes.

    Returns:
        ``None`` where there is a gap between the two, where they are too large, or not at hand.
    """
    held, part = stored_part(stored), stored_part(new)
    if held is None or part is None or held.complete != part.complete or stored.vary != new.vary:
        return None
    if not (isinstance(stored.body, bytes) and isinstance(new.body, bytes)):
        return None
    (first, content), (second, rest) = sorted([(held, stored.body), (part, new.body)])
    union = Part(first.start, max(first.stop, second.stop), held.complete)
    if first.stop < second.start or union.stop - union.start > limit:
        return None
    whole = stored.replace(body=content + rest[first.stop - second.start :])
    if union == (0, union.complete, union.complete):
        return as_complete(whole)
    return _described(whole, (("Content-Range", f"bytes {union.start}-{union.stop - 1}/{union.complete}"),))


def as_complete(stored: StoredResponse) -> StoredResponse:
    """Make a 200 of a 206 whose content is the whole (RFC 9110 §15.3.7.3)."""
    return _described(stored, ()).replace(status=200, reason="OK")


def _described(stored: StoredResponse, fields: tuple[tuple[str, str], ...]) -> StoredResponse:
    """Give *stored* with the fields that say which content it has: its length, and *fields*."""
    gone = {"content-range", "content-length", *DIGESTS}
    added = (*fields, ("Content-Length", str(stored.size)))
    headers = (*[header for header in stored.headers if header[0].lower() not in gone], *added)
    raw = stored.raw_headers and (
        *[header for header in stored.raw_headers if header[0].decode("latin-1").lower() not in gone],
        *[(name.encode(), value.encode()) for name, value in added],
    )
    return stored.replace(headers=headers, raw_headers=raw)


# --- the whole is asked for, a part is stored ---


def to_complete(stored: StoredResponse) -> Complete | None:
    """
    Give how to ask the origin for what *stored* lacks of the whole; ``None`` if it is no part, or not worth it.

    That is one range, before or behind it, of a small representation with a strong entity tag. ``If-Range`` gets
    the whole if it has changed; so a stale part is as good as a fresh one.
    """
    missing, tag = _missing(stored), strong_tag(stored.fields)
    if missing is None or tag is None or not may_be_sent(tag):
        return None
    asked = f"bytes={missing.start}-" if missing.stop == missing.complete else f"bytes=0-{missing.stop - 1}"
    return Complete(stored, (("Range", asked), ("If-Range", tag)))


def _missing(stored: StoredResponse) -> Part | None:
    """Give the one part that *stored* lacks, if both are small and it is at hand."""
    held = stored_part(stored) if stored.status == PARTIAL and isinstance(stored.body, bytes) else None
    if held is None or held.complete > GREATEST_COMBINED:
        return None
    if held.start == 0:
        return Part(held.stop, held.complete, held.complete)
    return Part(0, held.start, held.complete) if held.stop == held.complete else None


def completes(part: StoredResponse, response: OriginResponse) -> bool:
    """
    Tell whether *response*, of which only the fields are there, brings exactly what *part* lacks.

    It has to tell its length, for that is what will be read before anybody gets the whole.
    """
    missing, fields = _missing(part), response.fields
    return (
        response.status == PARTIAL
        and missing is not None
        and content_range(fields) == missing
        and fields.get("Content-Length") == str(missing.stop - missing.start)
        and "Content-Encoding" not in fields
        and is_same_representation(part.fields, fields)
    )


def completed(
    part: StoredResponse, response: OriginResponse, content: bytes, rules: Rules, now: float
) -> StoredResponse | None:
    """Give the whole of *part* and the *content* of a *response* that `completes` it; ``None`` if it does not."""
    missing = _missing(part)
    if missing is None or len(content) != missing.stop - missing.start:
        return None
    renewed = freshen(part, response, rules, now)
    described = ("Content-Range", f"bytes {missing.start}-{missing.stop - 1}/{missing.complete}")
    return joined(renewed, renewed.replace(headers=(described,), body=content), GREATEST_COMBINED)
