"""What we raise. Nothing here ever reaches a caller's request."""

from __future__ import annotations


class CacheError(Exception):
    """Base of every error of this package's own."""


class StoreError(CacheError):
    """
    A store could not do what it was asked; raised by the management of a cache, requests go on without the store.

    Args:
        cause: A short, stable description ("database is locked"); one warning is logged per cause.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class NoCacheError(CacheError, LookupError):
    """A session has no cache installed (:func:`get_cache`)."""
