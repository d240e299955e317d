"""A way in: a `TraceConfig` that makes any session cached, and carries per-request options."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

from aiohttp import ClientSession, TraceConfig
from aiosignal import Signal

from ._middleware import CacheMiddleware
from ._scope import RequestScope

if TYPE_CHECKING:
    from aiohttp import (
        TraceRequestEndParams,
        TraceRequestExceptionParams,
        TraceRequestRedirectParams,
        TraceRequestStartParams,
    )
    from typing_extensions import Unpack

    from ._options import CacheSettings


class CacheTraceConfig(TraceConfig):
    """The TraceConfig that `cache_trace_config` returns; `cache` is what it installs."""

    def __init__(self, cache: CacheMiddleware) -> None:
        super().__init__(RequestScope)
        self.cache = cache
        self.on_request_redirect.append(_follow)
        self.on_request_exception.append(_leave)
        self._starting, self._ending = _Starting(self), _Ending(self)
        for signal in (self._starting, self._ending):
            # For who looks at its receivers, or takes them over.
            signal.append(signal.send)  # type: ignore[arg-type]  # mypy takes a bare Signal for one without arguments
            signal.freeze()
        self.freeze()

    @property
    def on_request_start(self) -> _Starting:  # type: ignore[override]  # a Signal, whose parameters are named below
        """Puts the cache where it belongs."""
        return self._starting

    @property
    def on_request_end(self) -> _Ending:  # type: ignore[override]  # likewise
        """Ends the scope of the request."""
        return self._ending


# Every request sends the first two. To do the work there, not in a receiver that is awaited, saves 3 % of a hit's.
# The scope is another's where one TraceConfig is made of several, with a context of its own.


class _Starting(Signal):
    _owner: CacheTraceConfig

    async def send(  # type: ignore[override]  # with what aiohttp sends, instead of anything
        self, session: ClientSession, scope: SimpleNamespace, params: TraceRequestStartParams
    ) -> None:
        install(session, self._owner.cache)


class _Ending(Signal):
    async def send(  # type: ignore[override]  # likewise
        self, session: ClientSession, scope: SimpleNamespace, params: TraceRequestEndParams
    ) -> None:
        if isinstance(scope, RequestScope):
            scope.leave()


async def _follow(session: ClientSession, scope: SimpleNamespace, params: TraceRequestRedirectParams) -> None:
    if isinstance(scope, RequestScope):
        scope.follow()


async def _leave(session: ClientSession, scope: SimpleNamespace, params: TraceRequestExceptionParams) -> None:
    if isinstance(scope, RequestScope):
        scope.leave()


def cache_trace_config(
    directory: str | os.PathLike[str] | None = None,
    *,
    cache: CacheMiddleware | None = None,
    **options: Unpack[CacheSettings],
) -> TraceConfig:
    """
    Make a `TraceConfig` that makes every session it is attached to cached.

    Attach it by ``ClientSession(trace_configs=[...])`` or append it to a live session's ``trace_configs``;
    it is frozen already. One may serve many sessions. At a session's next request it puts the cache at the end
    of the session's middleware chain, once; a request that is made with ``middlewares=`` of its own goes without.

    Args:
        directory: Where responses are kept, made (0700) when first used; by default the per-user cache directory.
        cache: A cache that exists; then neither *directory* nor *options* may be given.
        **options: Options of the cache; `CacheMiddleware` says what each means.

    Raises:
        TypeError: An option is unknown, or *cache* is given together with others.
        ValueError: An option's value makes no sense, or *directory* is a file.
    """
    return CacheTraceConfig(given_or_new(directory, cache, options))


def given_or_new(
    directory: str | os.PathLike[str] | None, cache: CacheMiddleware | None, options: CacheSettings
) -> CacheMiddleware:
    """Give the *cache* that was passed in, or make one."""
    if cache is None:
        return CacheMiddleware(directory, **options)
    if not isinstance(cache, CacheMiddleware):
        raise TypeError(f"cache: expected a CacheMiddleware, got {cache!r}")
    if directory is not None or options:
        names = ", ".join((["directory"] if directory is not None else []) + sorted(options))
        raise TypeError(f"cache: an existing cache has its options already; also given: {names}")
    return cache


def install(session: ClientSession, cache: CacheMiddleware) -> None:
    """
    Put *cache* into the middleware chain of *session*, innermost, unless it is there.

    aiohttp reads the chain anew for every request, after `on_request_start`, but has no public name to set it:
    this is the one place where we do.
    """
    middlewares = session._middlewares  # noqa: SLF001
    if not middlewares or (middlewares[-1] is not cache and cache not in middlewares):
        session._middlewares = (*(middlewares or ()), cache)  # noqa: SLF001


def installed_cache(session: ClientSession) -> CacheMiddleware | None:
    """Give the cache of *session*: in its chain, or waiting in a TraceConfig for its first request."""
    for middleware in session._middlewares or ():  # noqa: SLF001
        if isinstance(middleware, CacheMiddleware):
            return middleware
    for trace_config in session.trace_configs:
        if isinstance(trace_config, CacheTraceConfig):
            return trace_config.cache
    return None
