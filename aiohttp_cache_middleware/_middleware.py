"""The whole path of a request, one step a line."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientHandlerType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ServerDisconnectedError,
)

from ._cookies import restore_cookies
from ._core import Core
from ._exchange import Exchange, Inquiry
from ._explain import Explanation, explained
from ._guard import logger
from ._keep import Keeper
from ._key import primary_key, stored_url, url_tag
from ._manage import Management
from ._model import BodyRef, OriginResponse, StoredResponse, VariantIndex
from ._options import CacheOptions, Settings, active_block, in_force, merged
from ._origin import Flight, wait_elsewhere
from ._policy import Forward, GatewayTimeout, Reuse, Revalidate, selects
from ._request import Asked, Uncacheable, asked_for, is_untouchable, snapshot_request
from ._response import (
    CachedResponse,
    adopt,
    cached_class,
    gateway_timeout,
    hand_over_cookies,
    replay,
    show_fields,
    timer_of,
)
from ._scope import RequestScope, scope_of
from ._stores import disk_store

if TYPE_CHECKING:
    from typing_extensions import Unpack
    from yarl import URL

    from ._model import Entry, Header
    from ._options import CacheSettings
    from ._policy import Decision
    from ._stores import BodyReader, Store

SERVER_FAILURES = frozenset({500, 502, 503, 504})
"""Status codes for which stale-if-error stands in (RFC 5861 §4)."""

CREDENTIALS = ("Authorization", "Cookie")
"""Request fields that a middleware behind the cache must leave alone if the response is to be stored."""

_REPLACED = frozenset({"age"})

REFRESH_PATIENCE = 300.0
"""Seconds that a refresh in the background may take (aiohttp's own default for a request)."""


class CacheMiddleware(Management):
    """
    The cache itself: an aiohttp client middleware that also carries the management API.

    It can be made outside a running loop, shared by many sessions, and used from several loops, one after the
    other or at once in several threads.

    Alone in ``ClientSession(middlewares=[retry, auth, cache])`` it knows no ``trace_request_ctx`` (``with
    CacheOptions(...)`` serves) nor which redirects are followed (hops are not stored in the default mode);
    ``trace_configs=[cache_trace_config(cache=cache)]`` beside it gives both.

    Args:
        directory: Where responses are kept, made when first used; by default the per-user cache directory.
        store: A store to use instead of one on disk; then *directory* must not be given.
        **options: Options of the cache (`Settings` and the README say what each means).

    Raises:
        TypeError: An option is unknown or has the wrong type.
        ValueError: An option's value makes no sense, or *directory* is a file.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        store: Store | None = None,
        **options: Unpack[CacheSettings],
    ) -> None:
        settings = Settings.from_options(**options)
        if store is not None and directory is not None:
            raise TypeError(f"directory: {directory!r} was given together with a store")
        super().__init__(Core(settings, store if store is not None else _store(directory, settings)))
        self._keeper = Keeper(self._core)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Answer from the store when the policy allows it, else from the origin."""
        if is_untouchable(request):
            return await handler(request)
        if request.response_class is not CachedResponse:
            request.response_class = cached_class(request.response_class)
        scope = scope_of(request.session)
        said = merged(None if scope is None else scope.options, active_block())
        if self.is_disabled or (said is not None and said.disabled):
            return await self._bypass(request, handler, "disabled")
        try:
            asked = await snapshot_request(request, read_body=request.method in self._core.settings.allowed_methods)
        except Exception as error:  # noqa: BLE001 (a payload or a cookie jar of the caller's may do anything)
            self._core.guarded.failed(error)
            return await self._bypass(request, handler, "the request can't be understood")
        if isinstance(asked, Uncacheable):
            exchange = self._exchange(request, handler, Asked(asked.request), scope, said)
            return await self._pass_through(exchange, Forward(may_be_stored=False, forward="bypass", why=asked.why))
        exchange = self._exchange(request, handler, asked, scope, said)
        if forward := self._core.policy.passes_through(asked.request, exchange.rules):
            return await self._pass_through(exchange, forward)
        return await self._answer(exchange)

    def _exchange(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        asked: Asked,
        scope: RequestScope | None,
        said: CacheOptions | None,
    ) -> Exchange:
        return Exchange(
            request=request,
            handler=handler,
            asked=asked,
            rules=in_force(self._core.settings, asked.request.url, said),
            namespace=self._namespace(said),
            scope=scope,
        )

    def _namespace(self, said: CacheOptions | None) -> str:
        return self._core.settings.namespace if said is None or said.namespace is None else said.namespace

    async def _answer(self, exchange: Exchange) -> ClientResponse:
        """Look up, decide, and act on the decision."""
        try:
            stored = await self._look_up(exchange)
            now = self._core.clock()
            decision = self._core.policy.decide(
                exchange.asked.request, stored, exchange.rules, now, secret=exchange.secret
            )
        except Exception as error:  # noqa: BLE001 (the first rule)
            self._core.guarded.failed(error)
            decision = _NO_DECISION
        if logger.isEnabledFor(logging.DEBUG):
            shown = self._shown_url(exchange.request)
            logger.debug("%s %s: %s, %s", exchange.request.method, shown, type(decision).__name__, decision.why)
        match decision:
            case Reuse():
                response = await self._reuse(exchange, decision)
                return response if response is not None else await self._fetch(exchange, _UNUSABLE)
            case Revalidate() | Forward():
                return await self._fetch(exchange, decision)
            case GatewayTimeout():
                self._core.counters.misses += 1
                return gateway_timeout(exchange.request, decision.why)

    async def explain(self, method: str, url: str | URL, **request: Any) -> Explanation:
        """
        Tell what the cache would do with a request now, and why; nothing is sent, nothing changes.

        Only ``filter_fn`` is not asked, which might still refuse what would be reused.

        Args:
            method: As for `aiohttp.ClientSession.request`.
            url: Absolute.
            **request: As for `aiohttp.ClientSession.request`: ``params``, ``headers``, ``data``, ``json``,
                ``cookies``, ``auth``; and ``trace_request_ctx=CacheOptions(...)``.

        Raises:
            TypeError: An argument that says nothing about the request itself.
            aiohttp.InvalidURL: *url* is not absolute.
        """
        options = request.pop("trace_request_ctx", None)
        asked = await asked_for(method, url, **request)
        said = merged(options if isinstance(options, CacheOptions) else None, active_block())
        why = asked.why if isinstance(asked, Uncacheable) else None
        if self.is_disabled or (said is not None and said.disabled):
            why = "disabled"
        if isinstance(asked, Uncacheable):
            asked = Asked(asked.request)
        rules = in_force(self._core.settings, asked.request.url, said)
        inquiry = Inquiry(asked=asked, rules=rules, namespace=self._namespace(said))
        stored = await self._look_up(inquiry)
        now = self._core.clock()
        decision, findings = self._core.policy.explain(asked.request, stored, rules, now, secret=inquiry.secret)
        if why is not None:
            decision = Forward(may_be_stored=False, forward="bypass", why=why)
        if isinstance(decision, Forward) and rules.only_if_cached and why != "disabled":
            decision = GatewayTimeout(f"only_if_cached: {decision.why}")
        last = self._core.counters.reasons.get(inquiry.key)
        return explained(asked.request, inquiry.key, stored, decision, findings, now, last)

    def _shown_url(self, request: ClientRequest) -> str:
        """Give a URL as it may be logged."""
        return stored_url(request.url, self._core.settings.ignored_params)

    # --- lookup ---

    async def _look_up(self, inquiry: Inquiry) -> list[StoredResponse]:
        """Give the stored responses that might answer; without a store, none."""
        core = self._core
        if not (inquiry.key or self._has_key(inquiry)):
            await core.guarded.secret()
            if not self._has_key(inquiry):
                return []
        found = await self._responses(inquiry, await core.guarded.get(inquiry.key))
        for method in core.policy.also_answered_by(inquiry.asked.request.method):
            found += await self._responses(inquiry, await core.guarded.get(self._key(inquiry, method)))
        return found

    async def _responses(self, inquiry: Inquiry, entry: Entry | None) -> list[StoredResponse]:
        """Give the responses of *entry*: those that ``Vary`` selects or, where it selects none, all of them."""
        if not isinstance(entry, VariantIndex):
            return [] if entry is None else [entry]
        headers = inquiry.asked.request.headers
        selected = [one for one in entry.variants if selects(one.vary, headers, inquiry.secret)]
        found = [await self._core.guarded.get(one.key) for one in selected or entry.variants]
        return [one for one in found if isinstance(one, StoredResponse)]

    def _has_key(self, inquiry: Inquiry) -> bool:
        """Give the request its key, if the store has told its secret."""
        secret = self._core.guarded.known_secret
        if secret is None:
            return False
        inquiry.secret = secret
        inquiry.key = self._key(inquiry)
        return True

    def _key(self, inquiry: Inquiry, method: str | None = None) -> str:
        settings = self._core.settings
        return primary_key(
            inquiry.asked,
            method=method,
            namespace=inquiry.namespace,
            ignored_params=settings.ignored_params,
            include_headers=settings.include_headers,
            with_range=self._core.policy.keeps_ranges_apart(inquiry.rules),
            secret=inquiry.secret,
        )

    # --- reuse ---

    async def _reuse(self, exchange: Exchange, reuse: Reuse, *, validated: bool = False) -> CachedResponse | None:
        """Hand out a stored response; ``None`` if its body is gone or the filter rejects it."""
        core, stored = self._core, reuse.stored
        now = core.clock()
        reader: BodyReader | None = None
        if isinstance(stored.body, BodyRef):
            reader = await core.guarded.open_body(stored.key, stored.body)
            if reader is None:
                return None
        shown = core.policy.shown_on_reuse(reuse, now, validated=validated, collapsed=exchange.is_collapsed)
        response = replay(
            exchange.request,
            stored,
            now=now,
            age=reuse.age,
            cache_key=stored.key,
            is_stale=reuse.is_stale,
            reader=reader,
            answer=reuse.answer,
            add_headers=shown,
            drop_headers=_REPLACED if shown else frozenset(),
        )
        if core.settings.filter_fn is not None and not await self._keeper.passes_filter(response):
            response.close()
            return None
        if not exchange.is_background:
            core.counters.hits += 1
            core.counters.stale_hits += reuse.is_stale
            core.counters.bytes_from_cache += stored.size
        if reuse.revalidate is not None:
            self._refresh_in_background(exchange, reuse.revalidate)
        if exchange.scope is not None and exchange.scope.followed:
            self._keeper.keep_hops(exchange, stored)
        if core.settings.restore_cookies:
            restore_cookies(exchange.request.session.cookie_jar, response.cookies, stored, response.url, now)
        return response

    def _refresh_in_background(self, exchange: Exchange, revalidate: Revalidate) -> None:
        """Revalidate a response that was handed out stale (RFC 5861 §3); one at a time per key."""
        request = copy.copy(exchange.request)
        request.headers = request.headers.copy()
        background = replace(exchange, request=request, scope=None, is_background=True)

        async def refresh() -> None:
            if not self._core.guarded.claim(exchange.key):
                return  # another process is at it
            flight = self._core.flights.lead(exchange.key, partial(self._core.guarded.unclaim, exchange.key))
            try:
                async with await self._ask_origin(background, revalidate, flight) as response:
                    async for _ in response.content.iter_any():
                        pass
            except (ClientError, asyncio.TimeoutError, OSError) as error:
                logger.debug("%s: refresh in the background failed: %r", self._shown_url(request), error)
            finally:
                flight.land(stored=False)

        async def refresh_in_time() -> None:
            await asyncio.wait_for(refresh(), REFRESH_PATIENCE)

        self._core.flights.refresh(exchange.key, refresh_in_time)

    # --- origin ---

    async def _bypass(self, request: ClientRequest, handler: ClientHandlerType, why: str) -> ClientResponse:
        """Let a request go by that the cache has nothing to do with."""
        self._core.counters.bypasses[why] += 1
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s: bypass, %s", request.method, self._shown_url(request), why)
        return await handler(request)

    async def _pass_through(self, exchange: Exchange, forward: Forward) -> ClientResponse:
        """Let a request go by whose response is not stored; it may make others invalid."""
        core = self._core
        if exchange.rules.only_if_cached:
            return gateway_timeout(exchange.request, f"only_if_cached: {forward.why}")
        request_time = core.clock()
        response = await self._bypass(exchange.request, exchange.handler, forward.why)
        await self._invalidate(exchange, self._origin_response(response, request_time))
        if isinstance(response, CachedResponse):
            show_fields(response, core.policy.shown_on_forward(forward, response.status, None, core.clock()))
        return response

    async def _fetch(self, exchange: Exchange, decision: Forward | Revalidate) -> ClientResponse:
        """Ask the origin, or wait for somebody who is asking it already."""
        if isinstance(decision, Forward) and not decision.may_be_stored:
            return await self._pass_through(exchange, decision)
        flights = self._core.flights
        if not exchange.key:
            return await self._ask_origin(exchange, decision, flights.alone())
        if not exchange.has_waited and not flights.is_uncacheable(exchange.key):
            exchange.has_waited = True
            if await self._is_brought_by_another(exchange):
                exchange.is_collapsed = True
                # What was fetched while this request waited is as new as if it had been fetched for it.
                exchange.rules = replace(exchange.rules, refresh=False)
                return await self._answer(exchange)
        flight = flights.lead(exchange.key, partial(self._core.guarded.unclaim, exchange.key))
        try:
            return await self._ask_origin(exchange, decision, flight)
        except BaseException:
            flight.land(stored=False)
            raise

    async def _is_brought_by_another(self, exchange: Exchange) -> bool:
        flight = self._core.flights.get(exchange.key)
        if flight is not None:
            return await flight.wait()
        return await wait_elsewhere(self._core.guarded, exchange.key, self._core.flights)

    async def _ask_origin(self, exchange: Exchange, decision: Forward | Revalidate, flight: Flight) -> ClientResponse:
        """Send the request, and take what comes back."""
        core, request, fallback = self._core, exchange.request, decision.fallback
        conditions = decision.headers if isinstance(decision, Revalidate) else ()
        core.counters.revalidations += bool(conditions)
        credentials = _credentials(request)
        request_time = core.clock()
        try:
            response = await _send(exchange, conditions, has_fallback=fallback is not None)
        except (ClientError, asyncio.TimeoutError, OSError) as error:
            stale = None if fallback is None else await self._reuse(exchange, fallback)
            if stale is None:
                raise
            logger.debug(
                "%s %s: the origin failed, stale response: %r", request.method, self._shown_url(request), error
            )
            flight.land(stored=False)
            return stale
        origin = self._origin_response(response, request_time)
        try:
            return await self._take(exchange, decision, response, origin, flight, _tampered(credentials, response))
        except BaseException:
            response.close()  # nobody else has it yet
            raise

    async def _take(
        self,
        exchange: Exchange,
        decision: Forward | Revalidate,
        response: ClientResponse,
        origin: OriginResponse,
        flight: Flight,
        tampered: str | None,
    ) -> ClientResponse:
        """Find out what the origin's response is good for."""
        if decision.fallback is not None and origin.status in SERVER_FAILURES:
            stale = await self._reuse(exchange, decision.fallback)
            if stale is not None:
                response.close()
                flight.land(stored=False)
                return stale
        if origin.status == 304 and isinstance(decision, Revalidate):
            return await self._freshen(exchange, decision, response, origin, flight)
        return await self._receive(exchange, decision, response, origin, flight, tampered)

    async def _receive(
        self,
        exchange: Exchange,
        decision: Forward | Revalidate,
        response: ClientResponse,
        origin: OriginResponse,
        flight: Flight,
        tampered: str | None,
    ) -> ClientResponse:
        """Hand the origin's response to the caller, and a copy of it to the store if it may be stored."""
        core = self._core
        ours = response if isinstance(response, CachedResponse) else adopt(response)
        # A store that was not open in time may be by now.
        if ours is None or not (exchange.key or self._has_key(exchange)):
            core.counters.bypasses["there is no store"] += 1
            flight.land(stored=False)
            return response
        core.counters.misses += not exchange.is_background
        await self._invalidate(exchange, origin)
        await self._update_by_head(exchange, origin)
        ours.cache_key = exchange.key
        try:
            storing = self._keeper.receive(exchange, ours, origin, flight, tampered)
        except Exception as error:  # noqa: BLE001 (the first rule)
            core.guarded.failed(error)
            flight.land(stored=False)
            return ours
        await self._keeper.hop_arrives(exchange, ours)
        show_fields(
            ours,
            core.policy.shown_on_forward(
                decision, origin.status, storing, core.clock(), collapsed=exchange.is_collapsed
            ),
        )
        return ours

    async def _freshen(
        self,
        exchange: Exchange,
        decision: Revalidate,
        response: ClientResponse,
        origin: OriginResponse,
        flight: Flight,
    ) -> ClientResponse:
        """Renew the stored response that a 304 confirms, and reuse it (RFC 9111 §4.3.4)."""
        core, now = self._core, self._core.clock()
        response.release()
        selected = core.policy.selected_by_304(decision.candidates, origin)
        if selected is not None:
            freshened = core.policy.freshen(selected, origin, exchange.rules, now)
            reuse = core.policy.reuse_validated(
                exchange.asked.request, freshened, decision, now, secret=exchange.secret
            )
            replayed = await self._reuse(exchange, reuse, validated=True)
            if replayed is not None:
                self._keeper.renew(exchange, freshened)
                flight.land(stored=True)
                hand_over_cookies(response, replayed)
                return replayed
        # The origin confirmed what is not there (any more): ask for the whole response.
        return await self._ask_origin(exchange, _UNUSABLE, flight)

    async def _invalidate(self, exchange: Exchange, origin: OriginResponse) -> None:
        """Remove what the request has made invalid (RFC 9111 §4.4)."""
        core = self._core
        for url in core.policy.invalidated_urls(exchange.asked.request, origin):
            secret = await core.guarded.secret()
            if secret is None:
                return
            for key in await core.guarded.tagged(url_tag(url, secret, core.settings.ignored_params)):
                core.guarded.delete(key)

    async def _update_by_head(self, exchange: Exchange, origin: OriginResponse) -> None:
        """Renew or remove the stored responses that the answer to a HEAD speaks of too (RFC 9111 §4.3.5)."""
        core = self._core
        for method in core.policy.also_answered_by(exchange.asked.request.method):
            found = await self._responses(exchange, await core.guarded.get(self._key(exchange, method)))
            stored = [one for one in found if selects(one.vary, exchange.asked.request.headers, exchange.secret)]
            renewed, invalid = core.policy.freshened_by_head(stored, origin, exchange.rules, core.clock())
            for one in renewed:
                self._keeper.renew(exchange, one)
            for one in invalid:
                core.guarded.delete(one.key)

    def _origin_response(self, response: ClientResponse, request_time: float) -> OriginResponse:
        return OriginResponse(
            response.status, response.headers, request_time, self._core.clock(), response.reason or ""
        )


def _store(directory: str | os.PathLike[str] | None, settings: Settings) -> Store:
    return disk_store(directory, max_size=settings.max_size, secret_keys=settings.secret_keys)


_UNUSABLE = Forward(forward="miss", why="what is stored can't be used")
_NO_DECISION = Forward(may_be_stored=False, forward="bypass", why="no decision could be made")


async def _send(exchange: Exchange, conditions: tuple[Header, ...], *, has_fallback: bool) -> ClientResponse:
    """
    Send the request with *conditions* added.

    Where a stale response stands by, an error is not the end: so what aiohttp does about it afterwards happens
    here. It retries once over a new connection, and makes a timeout of its cancellation.
    """
    request, handler = exchange.request, exchange.handler
    with _conditional(request, conditions), timer_of(request) if has_fallback else nullcontext():
        try:
            return await handler(request)
        except ClientConnectorError:
            raise
        except (ClientOSError, ServerDisconnectedError):
            if not has_fallback or request.method not in ("GET", "HEAD"):
                raise
            return await handler(request)


@contextmanager
def _conditional(request: ClientRequest, conditions: tuple[Header, ...]) -> Iterator[None]:
    """Add *conditions* to the request while it is under way; a retry must not send them again."""
    if not conditions:
        yield
        return
    headers = request.headers.copy()
    request.headers.update(conditions)
    try:
        yield
    finally:
        request.headers.clear()
        request.headers.extend(headers)


def _credentials(request: ClientRequest) -> tuple[list[str], ...]:
    return tuple(request.headers.getall(name, []) for name in CREDENTIALS)


def _tampered(before: tuple[list[str], ...], response: ClientResponse) -> str | None:
    """Tell why a response may not be stored whose request was changed behind the cache; the key doesn't know of it."""
    sent = response.request_info.headers
    for name, values in zip(CREDENTIALS, before, strict=True):
        if sent.getall(name, []) != values:
            return f"a middleware behind the cache changed {name}"
    return None
