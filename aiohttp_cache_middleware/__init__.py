"""A persistent HTTP response cache for aiohttp's client."""

from typing import TYPE_CHECKING

from ._errors import CacheError, NoCacheError, StoreError
from ._manage import StoredEntry
from ._middleware import CacheMiddleware
from ._options import CacheOptions
from ._response import CachedResponse
from ._session import get_cache, make_cached_session
from ._stats import CacheStats
from ._trace import cache_trace_config

if TYPE_CHECKING:
    from ._stores import DiskStore, MemoryStore

__all__ = [
    "CacheError",
    "CacheMiddleware",
    "CacheOptions",
    "CacheStats",
    "CachedResponse",
    "DiskStore",
    "MemoryStore",
    "NoCacheError",
    "StoreError",
    "StoredEntry",
    "cache_trace_config",
    "get_cache",
    "make_cached_session",
]


def __getattr__(name: str) -> object:
    """Import a store when somebody chooses one by name."""
    if name in ("DiskStore", "MemoryStore"):
        from . import _stores

        return getattr(_stores, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
