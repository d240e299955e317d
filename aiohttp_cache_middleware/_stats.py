"""What has been counted since a cache was made."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

REASONS = 1024
"""Keys for which it is remembered why a response was not stored."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """
    A snapshot of a cache's counters.

    Attributes:
        hits: Requests answered from the store, stale hits and revalidated ones included.
        misses: Requests that concerned the cache and were answered by the origin, or by nobody (the 504s).
        stale_hits: Hits that had expired (``stale_if_error``, stale-while-revalidate, ``max-stale``).
        revalidations: Conditional requests sent to the origin, whatever came back.
        stores: Responses accepted for storing.
        not_stored: Responses of misses that were not stored, by reason.
        bypasses: Requests that did not concern the cache, by reason.
        store_errors: Failures of the store; the requests went on without it.
        bytes_from_cache: Bytes of bodies that hits had to offer.
    """

    hits: int
    misses: int
    stale_hits: int
    revalidations: int
    stores: int
    not_stored: Mapping[str, int]
    bypasses: Mapping[str, int]
    store_errors: int
    bytes_from_cache: int


class Counters:
    """
    The counters behind `CacheStats`.

    A count may be lost when two loops in two threads count at once: they are for people, not for accounting.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.stale_hits = 0
        self.revalidations = 0
        self.stores = 0
        self.not_stored: Counter[str] = Counter()
        self.reasons: OrderedDict[str, str] = OrderedDict()
        self.bypasses: Counter[str] = Counter()
        self.store_errors = 0
        self.bytes_from_cache = 0

    def count_not_stored(self, key: str, why: str) -> None:
        """Count a response that was not stored, and remember why, for who asks about its *key*."""
        self.not_stored[why] += 1
        self.reasons.pop(key, None)
        self.reasons[key] = why
        while len(self.reasons) > REASONS:
            self.reasons.popitem(last=False)

    def snapshot(self) -> CacheStats:
        """Give the counters as they stand."""
        return CacheStats(
            hits=self.hits,
            misses=self.misses,
            stale_hits=self.stale_hits,
            revalidations=self.revalidations,
            stores=self.stores,
            not_stored=dict(self.not_stored),
            bypasses=dict(self.bypasses),
            store_errors=self.store_errors,
            bytes_from_cache=self.bytes_from_cache,
        )
