"""What the writer asks of the database."""

from __future__ import annotations

from typing import NamedTuple

from ._bodies import BodyFile


class Put(NamedTuple):
    """
    A record to write.

    Attributes:
        is_index: Whether it is an index of variants, which does not count as a response.
        body: Its new body; ``None`` where it has none or keeps the one named by `keeps`.
        keeps: Id of the body that the record points to.
    """

    key: str
    record: bytes
    tag: str
    useless_time: float | None
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
