"""What becomes of a part beside what is stored already (RFC 9111 §3.4; RFC 9110 §15.3.7.3)."""

from __future__ import annotations

import re

from multidict import MultiMapping

from .._model import StoredResponse
from ._ranges import PARTIAL, is_within, stored_part

_STRONG = re.compile(r'"[^"]*"')


def to_keep(stored: StoredResponse | None, new: StoredResponse) -> StoredResponse | None:
    """
    Give what to store now that a part has arrived where *stored* is; ``None``: nothing.

    A complete response makes way only for one that is complete too, or that shows it to be out of date.

    Args:
        new: A 206 whose content has arrived.
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
    if held is not None and is_same_representation(stored.fields, new.fields) and is_within(part[:2], held[:2]):
        return None
    return new


def as_complete(stored: StoredResponse) -> StoredResponse:
    """Make a 200 of a 206 whose content is the whole (RFC 9110 §15.3.7.3)."""
    gone = {"content-range", "content-length"}
    headers = (
        *[header for header in stored.headers if header[0].lower() not in gone],
        ("Content-Length", str(stored.size)),
    )
    raw = stored.raw_headers and (
        *[header for header in stored.raw_headers if header[0].decode("latin-1").lower() not in gone],
        (b"Content-Length", str(stored.size).encode()),
    )
    return stored.replace(status=200, reason="OK", headers=headers, raw_headers=raw)


def is_same_representation(one: MultiMapping[str], other: MultiMapping[str]) -> bool:
    """Tell whether two responses are of one representation, byte for byte: their strong entity tags agree."""
    tag = strong_tag(one)
    return tag is not None and tag == strong_tag(other)


def strong_tag(fields: MultiMapping[str]) -> str | None:
    """
    Give the entity tag if it is a strong one, as it was sent; ``None`` if not (RFC 9110 §8.8.1).

    One without quotes is none here: what it means is a guess, and a wrong one would mix two representations.
    """
    tag = fields.get("ETag")
    return tag if tag is not None and _STRONG.fullmatch(tag) else None


def _is_another(stored: StoredResponse, new: StoredResponse) -> bool:
    tag, other = strong_tag(stored.fields), strong_tag(new.fields)
    return tag is not None and other is not None and tag != other
