"""Working a fact out once of data that never changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Protocol, TypeVar

T = TypeVar("T")


class Unchanging(Protocol):
    """Data that keeps what others have worked out from it, by the function that did."""

    @property
    def derived(self) -> dict[object, object]: ...


U = TypeVar("U", bound=Unchanging)

_UNKNOWN = object()


def once(work: Callable[[U], T]) -> Callable[[U], T]:
    """
    Remember what *work* gives with its argument.

    Requests that are alike share one `Request`, and hits one `StoredResponse`: a decision is half as long so.
    """

    @wraps(work)
    def remembered(source: U) -> T:
        derived = source.derived
        fact = derived.get(work, _UNKNOWN)  # to fail and be caught would take the first time twice as long
        if fact is _UNKNOWN:
            fact = derived[work] = work(source)
        return fact  # type: ignore[return-value]  # what `work` gave for it

    return remembered
