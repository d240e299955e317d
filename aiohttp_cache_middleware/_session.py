"""A way in: a plain `ClientSession` with the cache installed."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aiohttp import ClientResponse, ClientSession, TCPConnector, TraceConfig

from ._errors import NoCacheError
from ._middleware import CacheMiddleware
from ._options import OPTION_NAMES, CacheOptions, CacheSettings, active_block, merged, unknown_option
from ._response import cached_class
from ._trace import CacheTraceConfig, given_or_new, installed_cache

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from aiohttp import BaseConnector, BasicAuth, ClientRequest, ClientTimeout, ClientWebSocketResponse, HttpVersion
    from aiohttp.abc import AbstractCookieJar
    from aiohttp.client_middlewares import ClientMiddlewareType
    from aiohttp.typedefs import JSONEncoder, LooseCookies, LooseHeaders, StrOrURL
    from typing_extensions import Unpack


class SessionOptions(CacheSettings, total=False):
    """Options of the cache, and the arguments of `aiohttp.ClientSession` beside them."""

    base_url: StrOrURL | None
    connector: BaseConnector | None
    loop: AbstractEventLoop | None
    cookies: LooseCookies | None
    headers: LooseHeaders | None
    proxy: StrOrURL | None
    proxy_auth: BasicAuth | None
    skip_auto_headers: Iterable[str] | None
    auth: BasicAuth | None
    json_serialize: JSONEncoder
    json_serialize_bytes: Callable[[Any], bytes] | None
    request_class: type[ClientRequest]
    response_class: type[ClientResponse]
    ws_response_class: type[ClientWebSocketResponse]
    version: HttpVersion
    cookie_jar: AbstractCookieJar | None
    connector_owner: bool
    raise_for_status: bool | Callable[[ClientResponse], Awaitable[None]]
    read_timeout: float | None
    conn_timeout: float | None
    timeout: ClientTimeout
    auto_decompress: bool
    trust_env: bool
    requote_redirect_url: bool
    trace_configs: list[TraceConfig] | None
    read_bufsize: int
    max_line_size: int
    max_field_size: int
    max_headers: int
    fallback_charset_resolver: Callable[[ClientResponse, bytes], str]
    middlewares: Sequence[ClientMiddlewareType]
    ssl_shutdown_timeout: float | None


def make_cached_session(
    directory: str | os.PathLike[str] | None = None,
    *,
    cache: CacheMiddleware | None = None,
    **options: Unpack[SessionOptions],
) -> ClientSession:
    """
    Make a plain `aiohttp.ClientSession` whose responses are cached.

    The cache is the innermost middleware: the caller's own see a hit as they would see the origin's answer.

    Args:
        directory: Where responses are kept, made (0700) when first used; by default the per-user cache directory.
        cache: A cache that exists and stays open when the session is closed; then neither *directory* nor
            options of the cache may be given.
        **options: Options of the cache (see `CacheMiddleware`) and arguments of `aiohttp.ClientSession`, side by
            side; ``middlewares``, ``trace_configs`` and ``response_class`` are kept beside the cache's own.

    Raises:
        TypeError: A name is neither an option of the cache nor an argument of `ClientSession`, or *cache* is
            given together with options of the cache.
        ValueError: An option's value makes no sense, or *directory* is a file.
        RuntimeError: There is no running event loop (as `ClientSession` itself).
    """
    cache_options: dict[str, Any] = {}
    session_options: dict[str, Any] = {}
    for name, value in options.items():
        if name in OPTION_NAMES:
            cache_options[name] = value
        elif name in _session_arguments():
            session_options[name] = value
        else:
            raise unknown_option(name, OPTION_NAMES | _session_arguments())
    own = cache is None
    cache = given_or_new(directory, cache, cache_options)  # type: ignore[arg-type]
    return _build(cache, own, session_options)


def get_cache(session: ClientSession) -> CacheMiddleware:
    """
    Give the cache that is installed on *session*, or will be at its next request, by whichever way in.

    Raises:
        NoCacheError: There is none (a `LookupError`).
        TypeError: *session* is no `aiohttp.ClientSession`.
    """
    if not isinstance(session, ClientSession):
        raise TypeError(f"session: expected an aiohttp.ClientSession, got {session!r}")
    cache = installed_cache(session)
    if cache is None:
        raise NoCacheError(
            f"{session!r} has no cache: make it with make_cached_session(), or attach cache_trace_config() "
            "or a CacheMiddleware to it"
        )
    return cache


def _build(cache: CacheMiddleware, own: bool, options: dict[str, Any]) -> ClientSession:
    theirs: Iterable[TraceConfig] = options.pop("trace_configs", None) or ()
    trace_configs = [CacheTraceConfig(cache), *(_seeing_their_own_context(one) for one in theirs)]
    middlewares = (*(options.pop("middlewares", None) or ()), cache)
    response_class = cached_class(options.pop("response_class", None) or ClientResponse)
    if own and options.get("connector") is None:
        # What ClientSession would hand on to the connector that it makes.
        arguments = {name: options[name] for name in ("loop", "ssl_shutdown_timeout") if name in options}
        options["connector"] = _ClosingConnector(cache, **arguments)
    # A plain session has no other hook for its end, and a connector of the caller's is not ours to change: then the
    # cache is drained when nobody refers to it any more, or at the interpreter's exit.
    return ClientSession(middlewares=middlewares, trace_configs=trace_configs, response_class=response_class, **options)


def _seeing_their_own_context(trace_config: TraceConfig) -> TraceConfig:
    """Let the caller's TraceConfig see the context that he passed inside `CacheOptions`, as without us."""
    make_context = trace_config.trace_config_ctx
    # Once, however many sessions it serves; one of ours takes the options themselves.
    if not isinstance(make_context, _OwnContext) and not isinstance(trace_config, CacheTraceConfig):
        trace_config.trace_config_ctx = _OwnContext(make_context)  # type: ignore[method-assign]
    return trace_config


class _OwnContext:
    """A `TraceConfig.trace_config_ctx` that is given what stands inside `CacheOptions`."""

    def __init__(self, make_context: Callable[..., Any]) -> None:
        self._make_context = make_context

    def __call__(self, trace_request_ctx: object = None) -> Any:
        own = trace_request_ctx if isinstance(trace_request_ctx, CacheOptions) else None
        said = merged(own, active_block())
        if said is not None and (own is not None or trace_request_ctx is None):
            trace_request_ctx = said.trace_request_ctx
        while isinstance(trace_request_ctx, CacheOptions):
            trace_request_ctx = trace_request_ctx.trace_request_ctx
        return self._make_context(trace_request_ctx=trace_request_ctx)


class _ClosingConnector(TCPConnector):
    """The connector of a session that made its own cache: what closes the one closes the other."""

    def __init__(self, cache: CacheMiddleware, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._cache = cache

    def close(self, **kwargs: Any) -> Awaitable[None]:  # type: ignore[override]
        return _Closing(super().close(**kwargs), self._cache)


class _Closing:
    """Awaits the end of the connector, then of the cache; costs nothing if nobody awaits it."""

    def __init__(self, connector: Awaitable[None], cache: CacheMiddleware) -> None:
        self._connector = connector
        self._cache = cache

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._connector.__await__()
        yield from self._cache.aclose().__await__()


@lru_cache(maxsize=1)
def _session_arguments() -> frozenset[str]:
    parameters = inspect.signature(ClientSession).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        # Somebody has wrapped the constructor, as tracers do, and hides what it takes.
        return frozenset(SessionOptions.__annotations__) - OPTION_NAMES
    return frozenset(parameters)
