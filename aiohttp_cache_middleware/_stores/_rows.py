"""What the writer asks of the database."""

from __future__ import annotations

from math import isfinite
from typing import Final, NamedTuple

from .._model import Entry, StoredResponse
from ._bodies import BodyFile

KEPT_STALE: Final = 2.0**45
"""
What is added to the time when an entry expires that is of use beyond it: no clock shows so late a time, so it is not
taken for useless, and one index finds all that has expired.
"""


class Put(NamedTuple):
    """
    A record to write.

    Attributes:
        expire_time: When it expires, as `expire_time` gives it.
        is_index: Whether it is an index of variants, which does not count as a response.
        body: Its new body; ``None`` where it has none or keeps the one named by `keeps`.
        keeps: Id of the body that the record points to.
    """

    key: str
    record: bytes
    tag: str
    expire_time: float | None
    is_index: bool
    body: BodyFile | None = None
    keeps: str | None = None


class Delete(NamedTuple):
    """
    A record to remove, with its bodies.

    Attributes:
        if_record: Any other record stays.
    """

    key: str
    if_record: bytes | None = None


class Touch(NamedTuple):
    """A record that is in use, to be evicted later."""

    key: str


def expire_time(entry: Entry, *, is_kept_stale: bool) -> float | None:
    """Give what stands in the row for the time when *entry* expires; ``None``: never."""
    if not isinstance(entry, StoredResponse) or not isfinite(entry.expires_time):
        return None
    return max(0.0, entry.expires_time) + (KEPT_STALE if is_kept_stale else 0.0)
