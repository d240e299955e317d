"""A persistent HTTP response cache for aiohttp's client."""

from ._errors import CacheError, NoCacheError, StoreError
from ._manage import StoredEntry
from ._middleware import CacheMiddleware
from ._options import CacheOptions
from ._response import CachedResponse
from ._session import get_cache, make_cached_session
from ._stats import CacheStats
from ._stores import DiskStore, MemoryStore
from ._trace import cache_trace_config

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
