"""
The whole path of a request, one step a line.

- request: `_request` (as plain data), `_key`, `_inquiries` (what it asks, worked out once for those that are alike),
  `_exchange` (that, on its path), `_scope` (the caller's call that it belongs to)
- lookup: `_lookup`, `_guard` (the store as a request sees it, which never fails), `_stores`, `_codec` (records, with
  `_packing`, `_deflate` and `_seal`)
- decision: `_policy`, by the rules that `_options` puts in force
- answer: `_response` and `_stream` (aiohttp's objects), `_cookies`
- network: `_origin`, `_flights` (one request in flight per key, refreshes in the background)
- storing: `_keep` (what arrives), `_tee` (its body), `_variants` (where it stands)

Around it: `_session` and `_trace` (ways in), `_manage`, `_explain` and `_stats` (for people), `_core` (what belongs
together in one cache), `_model` (the data that travels), `_errors`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from multidict import istr

from ._cookies import restore_cookies
from ._core import Core
from ._exchange import Exchange
from ._guard import logger
from ._inquiries import Inquiries
from ._keep import Keeper
from ._lookup import Lookup
from ._manage import Management, absolute, check_method
from ._model import BodyRef
from ._options import CacheOptions, Settings, active_block, merged
from ._origin import UNUSABLE, Origin
from ._policy import REDIRECTS, Complete, Forward, GatewayTimeout, Reuse, Revalidate
from ._request import asked_for, is_untouchable
from ._response import CachedResponse, can_be_ours, gateway_timeout, replay
from ._scope import scope_of
from ._stores import disk_store

if TYPE_CHECKING:
    from typing_extensions import Unpack
    from yarl import URL

    from ._explain import Explanation
    from ._model import Header
    from ._options import CacheSettings
    from ._stores import BodyReader, Store

HITS_IN_A_TURN = 256
"""Hits after which the loop gets a turn, some 15 ms: nothing else in a hit waits, as reading from a socket would."""

_AGE = istr("Age")
_REPLACED = frozenset({"age"})
_NOT_OURS = Forward(may_be_stored=False, forward="bypass", why="the response's class can't be ours")
_NO_DECISION = Forward(may_be_stored=False, forward="bypass", why="no decision could be made")


class CacheMiddleware(Management):
    """
    The cache itself: an aiohttp client middleware that also carries the management API.

    It can be made outside a running loop, shared by many sessions, and used from several loops, one after the
    other or at once in several threads.

    Alone in ``ClientSession(middlewares=[retry, auth, cache])`` it knows no ``trace_request_ctx`` (``with
    CacheOptions(...)`` serves) nor which redirects are followed (hops are not stored in the default mode);
    ``trace_configs=[cache_trace_config(cache=cache)]`` beside it gives both.

    Args:
        directory: Where responses are kept, made (0700) when first used; by default the per-user cache directory.
        store: A store to use instead of one on disk (`MemoryStore`, `DiskStore`); then *directory* must not be
            given, nor ``max_size``, ``compress`` and ``secret_key``, which are the store's own affair.
        expire_after: How long a stored response may be used: seconds, a `timedelta`, a `datetime` (naive means
            UTC) or an HTTP date string; ``None`` (the default) or ``-1``: for ever; ``0``: do not cache.
        urls_expire_after: The same per URL: ``{"site.com/path/": 60, "*.site.com": -1}``, a glob over host, then
            path and query, with an implied ``**`` at the end, or a compiled regular expression; first match wins.
        allowed_methods: Methods that are cached; by default GET and HEAD.
        allowed_codes: Status codes that are cached; ``None`` (the default): 200, or what HTTP allows in its mode.
        ignored_params (or ignored_parameters): Names of query parameters, form fields, top-level JSON fields and
            headers that neither count when requests are compared nor are written to disk.
        include_headers: Whether request headers are part of the key: ``False`` (the default), ``True`` for all
            but aiohttp's automatic ones, or their names.
        restore_cookies: Whether the ``Set-Cookie`` of a hit goes into the session's cookie jar; by default not.
        filter_fn: ``fn(response) -> bool``, sync or async, asked with a `CachedResponse` before it is stored and
            again before it is used; by default none.
        cache_control: ``False`` (the default): these options decide; ``True``: HTTP does (RFC 9111).
        stale_if_error: Whether an expired response stands in for a failing origin: ``False`` (the default),
            ``True``, or for how long after its expiry, in seconds or as a `timedelta`.
        max_size: Bytes on disk, everything included; 1 GiB by default; ``None``: no bound.
        max_body_size: Bytes; larger bodies are not stored; ``None`` (the default): no bound.
        compress: Whether bodies that get smaller by it are kept compressed on disk, up to 256 KiB; by default not.
        secret_key: A `str` or `bytes`, or several (the first writes, all read), that authenticates what is
            stored; by default none.
        namespace: Separates the entries of users or purposes in one store; ``""`` by default.

    Raises:
        TypeError: An option is unknown or has the wrong type.
        ValueError: An option's value makes no sense, or *directory* is a file or empty.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        store: Store | None = None,
        **options: Unpack[CacheSettings],
    ) -> None:
        settings = Settings.from_options(**options)
        if store is None:
            store = disk_store(
                directory, max_size=settings.max_size, secret_keys=settings.secret_keys, compress=settings.compress
            )
        elif isinstance(store, type) or not hasattr(store, "known_secret"):
            raise TypeError(f"store: expected a store such as MemoryStore(), got {store!r}")
        elif directory is not None:
            raise TypeError(f"directory: {directory!r} was given together with a store")
        elif of_the_store := {"max_size", "compress", "secret_key"} & options.keys():
            raise TypeError(f"{min(of_the_store)}: given together with a store, whose own affair that is")
        super().__init__(Core(settings, store))
        self._hits_in_this_turn = 0
        self._inquiries = Inquiries(self._core)
        self._lookup = Lookup(self._core)
        self._keeper = Keeper(self._core, self._lookup)
        self._origin = Origin(self._core, self._lookup, self._keeper, answer=self._answer, reuse=self._reuse)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Answer from the store when the policy allows it, else from the origin."""
        if is_untouchable(request):
            return await handler(request)
        is_ours = request.response_class is CachedResponse or can_be_ours(request)
        scope = scope_of(request)
        said = merged(None if scope is None else scope.options, active_block())
        if self.is_disabled or (said is not None and said.disabled):
            return await self._bypass(request, handler, said, "disabled")
        try:
            inquiry = self._inquiries.remembered(request) if said is None else None
            if inquiry is None:
                inquiry = await self._inquiries.understand(request, said)
        except Exception as error:  # noqa: BLE001 (a payload or a cookie jar of the caller's may do anything)
            self._core.guarded.failed(error)
            return await self._bypass(request, handler, said, "the request can't be understood")
        exchange = Exchange(inquiry, request, handler, scope)
        passing = inquiry.passing if is_ours else _NOT_OURS
        if passing is not None:
            return await self._origin.pass_through(exchange, passing)
        return await self._answer(exchange)

    async def _bypass(
        self, request: ClientRequest, handler: ClientHandlerType, said: CacheOptions | None, why: str
    ) -> ClientResponse:
        """Let a request go by as if there were no cache, unless it must not reach the network."""
        if said is not None and said.only_if_cached:
            return gateway_timeout(request, f"only_if_cached: {why}", self._core.policy.SHOWN_ON_GATEWAY_TIMEOUT)
        return await self._origin.bypass(request, handler, why)

    async def _answer(self, exchange: Exchange) -> ClientResponse:
        """Look up, decide, and act on the decision."""
        inquiry = exchange.inquiry
        try:
            exchange.entry = self._lookup.entry_at_once(inquiry)
            if exchange.entry is None and not self._core.guarded.is_open:
                exchange.entry = await self._lookup.entry_once_open(inquiry)
            stored = self._lookup.candidates(inquiry, exchange.entry)
            now = self._core.clock()
            decision = self._core.policy.decide(
                inquiry.asked.request, stored, inquiry.rules, now, secret=inquiry.secret
            )
        except Exception as error:  # noqa: BLE001 (the first rule)
            self._core.guarded.failed(error)
            decision = _NO_DECISION
        if logger.isEnabledFor(logging.DEBUG):
            shown = self._core.shown_url(exchange.request)
            logger.debug("%s %s: %s, %s", exchange.request.method, shown, type(decision).__name__, decision.why)
        match decision:
            case Reuse():
                if inquiry.is_plain:
                    self._inquiries.remember(exchange.request, inquiry)
                is_useless = decision.stored.status in REDIRECTS and _leads_in_a_circle(exchange)
                response = None if is_useless else await self._reuse(exchange, decision)
                return response if response is not None else await self._without(exchange)
            case Revalidate() | Complete() | Forward():
                return await self._origin.fetch(exchange, decision)
            case GatewayTimeout():
                return self._gateway_timeout(exchange, decision)

    async def _without(self, exchange: Exchange) -> ClientResponse:
        """Answer though what is stored can't be used: its body is gone, the filter rejects it, it leads in a circle."""
        core, inquiry = self._core, exchange.inquiry
        decision = core.policy.decide(inquiry.asked.request, (), inquiry.rules, core.clock(), secret=inquiry.secret)
        if isinstance(decision, GatewayTimeout):
            return self._gateway_timeout(exchange, decision)
        return await self._origin.fetch(exchange, UNUSABLE)

    def _gateway_timeout(self, exchange: Exchange, decision: GatewayTimeout) -> CachedResponse:
        self._core.counters.misses += 1
        return gateway_timeout(exchange.request, decision.why, self._core.policy.SHOWN_ON_GATEWAY_TIMEOUT)

    async def _reuse(self, exchange: Exchange, reuse: Reuse, *, validated: bool = False) -> CachedResponse | None:
        """Hand out a stored response; ``None`` if its body is gone or the filter rejects it."""
        core, stored = self._core, reuse.stored
        self._hits_in_this_turn += 1
        if self._hits_in_this_turn >= HITS_IN_A_TURN:
            self._hits_in_this_turn = 0  # before others come along, of whom each would wait too
            await asyncio.sleep(0)
        # A hop is judged by where it led.
        is_filtered = core.settings.filter_fn is not None and stored.redirects_to is None
        if is_filtered and not await self._passes_filter(exchange, reuse):
            return None
        now = core.clock()
        reader: BodyReader | None = None
        if isinstance(stored.body, BodyRef):
            reader = await core.guarded.open_body(stored.key, stored.body)
            if reader is None:
                return None
        try:
            shown = core.policy.shown_on_reuse(reuse, now, validated=validated, collapsed=exchange.is_collapsed)
        except Exception as error:  # noqa: BLE001 (the first rule)
            core.guarded.failed(error)
            shown = ()
        response = self._replayed(exchange.request, reuse, now, reader, shown)
        if not exchange.is_background:
            core.counters.hits += 1
            core.counters.stale_hits += reuse.is_stale
            core.counters.bytes_from_cache += stored.size
        if reuse.revalidate is not None:
            self._origin.refresh_in_background(exchange, reuse.revalidate)
        if exchange.scope is not None:
            if stored.status in REDIRECTS:
                exchange.scope.note_redirect(exchange.key)
            if exchange.scope.followed:
                self._keeper.keep_hops(exchange, stored)
        if core.settings.restore_cookies:
            try:
                restore_cookies(exchange.request.session.cookie_jar, stored, response.url, now)
            except Exception as error:  # noqa: BLE001 (a cookie jar of the caller's may do anything)
                core.guarded.failed(error)
        return response

    async def _passes_filter(self, exchange: Exchange, reuse: Reuse) -> bool:
        """
        Ask the filter about what is stored, whatever of it the request wants.

        It gets a response of its own: what it reads or closes, the caller does not notice.
        """
        stored, reader = reuse.stored, None
        if isinstance(stored.body, BodyRef):
            reader = await self._core.guarded.open_body(stored.key, stored.body)
            if reader is None:
                return False
        try:
            request = exchange.request
            if request.method != stored.method:  # a HEAD that a stored GET answers
                request = copy(request)
                request.method = stored.method
            now = self._core.clock()
            return await self._keeper.passes_filter(self._replayed(request, reuse._replace(answer=None), now, reader))
        finally:
            if reader is not None:
                reader.close()

    def _replayed(
        self,
        request: ClientRequest,
        reuse: Reuse,
        now: float,
        reader: BodyReader | None,
        shown: tuple[Header, ...] = (),
    ) -> CachedResponse:
        """Make a response of a stored one, with *shown* among its fields."""
        stored = reuse.stored
        body = stored.body
        return replay(
            request,
            stored,
            now=now,
            age=reuse.age,
            cache_key=stored.key,
            is_stale=reuse.is_stale,
            reader=reader,
            load=partial(self._core.store.load_body, stored.key, body) if isinstance(body, BodyRef) else None,
            answer=reuse.answer,
            add_headers=shown,
            drop_headers=_REPLACED if shown and _AGE in stored.fields else frozenset(),
        )

    async def explain(self, method: str, url: str | URL, **request: Any) -> Explanation:
        """
        Tell what the cache would do with a request now, and why; nothing is sent, nothing changes.

        Only ``filter_fn`` is not asked, which might still refuse what would be reused.

        Args:
            method: As for `aiohttp.ClientSession.request`.
            url: Absolute.
            **request: As for `aiohttp.ClientSession.request`: ``params``, ``headers``, ``data``, ``json``,
                ``cookies``, ``auth``; and ``trace_request_ctx=CacheOptions(...)``. What only says how it is made
                (``timeout``, ``allow_redirects``, ...) may be there and is left aside.

        Returns:
            An `Explanation`: ``decision``, ``why`` and the ``findings`` rule by rule; `str` makes text of it.

        Raises:
            TypeError: An argument that ``request`` does not know.
            aiohttp.InvalidURL: *url* is not absolute.
        """
        from ._explain import explain  # for people, so not with every import

        check_method(method)
        options = request.pop("trace_request_ctx", None)
        said = merged(options if isinstance(options, CacheOptions) else None, active_block())
        asked = await asked_for(method, absolute(url), **request)
        is_disabled = self.is_disabled or (said is not None and said.disabled is True)
        return await explain(self._core, self._inquiries, self._lookup, asked, said, is_disabled=is_disabled)


def _leads_in_a_circle(exchange: Exchange) -> bool:
    """
    Tell whether the caller's call has been redirected from this URL before.

    The origin may answer otherwise now, for a cookie it has set on the way, or since one of two redirects was stored.
    """
    scope = exchange.scope
    return scope is not None and not scope.is_over and exchange.key in scope.redirected
