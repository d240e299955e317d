"""The network: forward a request or revalidate, one in flight per key, and see what the answer is good for."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientHandlerType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ServerDisconnectedError,
    hdrs,
)
from multidict import CIMultiDict, CIMultiDictProxy

from ._flights import Flight
from ._guard import logger
from ._keep import Keeper
from ._key import url_tag
from ._model import OriginResponse, StoredResponse
from ._policy import CONDITIONS, PARTIAL, REDIRECTS, Complete, Forward, Reuse, Revalidate, ToOrigin
from ._response import (
    CachedResponse,
    adopt,
    gateway_timeout,
    hand_over_cookies,
    show_fields,
    tell_listeners_only,
    timer_of,
)
from ._variants import variant_key

if TYPE_CHECKING:
    from ._core import Core
    from ._exchange import Exchange
    from ._lookup import Lookup
    from ._model import Entry, Header

SERVER_FAILURES = frozenset({500, 502, 503, 504})
"""Status codes for which stale-if-error stands in (RFC 5861 §4)."""

OBJECTIONS = frozenset(range(400, 500)) - {401, 404, 407, 410, 429}
"""Status codes that may object to the ``Range`` and ``If-Range`` that we have added (RFC 9110 §15.5)."""

CREDENTIALS = ("Authorization", "Cookie")
"""Request fields that a middleware behind the cache must leave alone if the response is to be stored."""

REFRESH_PATIENCE = 300.0
"""Seconds that a refresh in the background may take (aiohttp's own default for a request)."""

NOT_MODIFIED = 304
"""Status of an answer that confirms what the asker holds (RFC 9110 §15.4.5)."""

_NO_FIELDS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())

UNUSABLE = Forward(forward="miss", why="what is stored can't be used")


class Arrival(NamedTuple):
    """
    What has come back from the origin, and for what.

    Attributes:
        decision: Why it was asked.
        response: What aiohttp gave; `origin` is what the policies know of it.
        flight: Those who wait for it.
        tampered: Why it may not be stored whatever the policy says, else ``None``.
    """

    exchange: Exchange
    decision: ToOrigin
    response: ClientResponse
    origin: OriginResponse
    flight: Flight
    tampered: str | None


class ReuseFunction(Protocol):
    """How a stored response is handed out; ``None`` if it can't be."""

    def __call__(
        self, exchange: Exchange, reuse: Reuse, *, validated: bool = False
    ) -> Awaitable[CachedResponse | None]: ...


class Origin:
    """
    Takes requests to the origin, and what comes back to the caller and to the keeper.

    Args:
        answer: Starts the path again, for a request whose answer another one has brought.
        reuse: Hands out a stored response.
    """

    def __init__(
        self,
        core: Core,
        lookup: Lookup,
        keeper: Keeper,
        *,
        answer: Callable[[Exchange], Awaitable[ClientResponse]],
        reuse: ReuseFunction,
    ) -> None:
        self._core = core
        self._lookup = lookup
        self._keeper = keeper
        self._answer = answer
        self._reuse = reuse

    async def bypass(self, request: ClientRequest, handler: ClientHandlerType, why: str) -> ClientResponse:
        """Let a request go by that the cache has nothing to do with."""
        self._core.counters.bypasses[why] += 1
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s: bypass, %s", request.method, self._core.shown_url(request), why)
        return await handler(request)

    async def pass_through(self, exchange: Exchange, forward: Forward) -> ClientResponse:
        """Let a request go by whose response is not stored; it may make others invalid."""
        core = self._core
        if exchange.rules.only_if_cached:
            return gateway_timeout(
                exchange.request, f"only_if_cached: {forward.why}", core.policy.SHOWN_ON_GATEWAY_TIMEOUT
            )
        request_time = core.clock()
        response = await self.bypass(exchange.request, exchange.handler, forward.why)
        try:
            await self._invalidate(exchange, self._origin_response(response, request_time))
            if isinstance(response, CachedResponse):
                show_fields(response, core.policy.shown_on_forward(forward, response.status, None, core.clock()))
        except Exception as error:  # noqa: BLE001 (the first rule)
            core.guarded.failed(error)
        return response

    async def fetch(self, exchange: Exchange, decision: ToOrigin) -> ClientResponse:
        """Ask the origin, or wait for somebody who is asking it already."""
        if isinstance(decision, Forward) and not decision.may_be_stored:
            return await self.pass_through(exchange, decision)
        if exchange.scope is not None:
            exchange.scope.goes_on()
        flights = self._core.flights
        key = self._flight_key(exchange)
        # Without a store nothing can be brought.
        may_be_stored = exchange.key or self._core.guarded.is_opening
        if may_be_stored and not exchange.has_waited and not flights.is_uncacheable(key):
            exchange.has_waited = True
            try:
                with _timed(exchange, decision):
                    is_brought = await self._is_brought_by_another(exchange, key)
            except asyncio.TimeoutError as error:
                return await self._stand_in(exchange, decision, error)
            if is_brought:
                return await self._answer(exchange)
        flight = flights.lead(key, partial(self._core.guarded.unclaim, key))
        try:
            return await self._ask_origin(exchange, decision, flight)
        except BaseException:
            flight.land(stored=False)
            raise

    def _flight_key(self, exchange: Exchange) -> str:
        """
        Give what identical requests have in common: those for different parts don't wait for each other.

        Without a store that tells its secret the key is good for sharing, and for nothing else.
        """
        key = exchange.key or self._lookup.key(exchange.inquiry)
        asked = exchange.asked.request.headers.get(hdrs.RANGE)
        return key if asked is None else variant_key(key, (("range", asked.encode("utf-8", "surrogateescape")),))

    async def _is_brought_by_another(self, exchange: Exchange, key: str) -> bool:
        flight = self._core.flights.get(key)
        if flight is not None:
            if self._core.flights.is_outdated(flight, self._keeper.tag(exchange)):
                return False
            if flight.leads_on and exchange.scope is not None and exchange.scope.holds_hops:
                return False  # it may lead to where this request comes from, and wait for it in turn
            is_brought = await flight.wait()
            if flight.is_given_up:
                self._core.flights.note_uncacheable(key)
                exchange.waited_in_vain = not is_brought
            if is_brought:
                exchange.is_answered_by_another()
            return is_brought
        if not exchange.key or not await self._core.flights.wait_elsewhere(self._core.guarded, key):
            return False
        # It may have failed, or be late: then what is stored is what was there before.
        if _is_newer(self._lookup.entry(exchange.inquiry), exchange.entry):
            exchange.is_answered_by_another()
        return True

    async def _ask_origin(self, exchange: Exchange, decision: ToOrigin, flight: Flight) -> ClientResponse:
        """Send the request, and take what comes back."""
        core = self._core
        conditions = () if isinstance(decision, Forward) else decision.headers
        core.counters.revalidations += isinstance(decision, Revalidate) and bool(conditions)
        request_time = core.clock()
        try:
            response = await _send(exchange, decision, conditions)
        except (ClientError, asyncio.TimeoutError, OSError) as error:
            stale = await self._stand_in(exchange, decision, error)
            flight.land(stored=False)
            return stale
        origin = self._origin_response(response, request_time)
        try:
            tampered = self._tampered(exchange, response)
            return await self._take(Arrival(exchange, decision, response, origin, flight, tampered))
        except BaseException:
            response.close()  # nobody else has it yet
            raise

    async def _stand_in(self, exchange: Exchange, decision: ToOrigin, error: Exception) -> ClientResponse:
        """Give the stored response that stands in where the origin's is not to be had, else raise *error*."""
        fallback = self._brought_meanwhile(exchange) or decision.fallback
        stored = None if fallback is None else await self._reuse(exchange, fallback)
        if stored is None:
            raise error
        method, url = exchange.request.method, self._core.shown_url(exchange.request)
        logger.debug("%s %s: the origin failed, a stored response stands in: %r", method, url, error)
        return stored

    def _brought_meanwhile(self, exchange: Exchange) -> Reuse | None:
        """Give what was brought after this request had waited for it in vain, which has cost it time."""
        if not exchange.waited_in_vain:
            return None
        entry = self._lookup.entry(exchange.inquiry)
        if not _is_newer(entry, exchange.entry):
            return None
        exchange.is_answered_by_another()
        core, inquiry = self._core, exchange.inquiry
        stored = self._lookup.candidates(inquiry, entry)
        decision = core.policy.decide(
            exchange.asked.request, stored, exchange.rules, core.clock(), secret=exchange.secret
        )
        return decision if isinstance(decision, Reuse) else None

    def _tampered(self, exchange: Exchange, response: ClientResponse) -> str | None:
        """Tell why a response may not be stored whose request was changed behind the cache, where no key tells that."""
        try:
            seen, sent = exchange.asked.request.headers, response.request_info.headers
            if sent == seen:
                return None
            ignored = {name.lower() for name in exchange.inquiry.settings.ignored_params}
            for name in CREDENTIALS:
                if name.lower() not in ignored and sent.getall(name, []) != seen.getall(name, []):
                    return f"a middleware behind the cache changed {name}"
        except Exception as error:  # noqa: BLE001 (a middleware may make up a response, and what it is an answer to)
            self._core.guarded.failed(error)
            return "it does not tell which request it answers"
        return None

    async def _take(self, arrival: Arrival) -> ClientResponse:
        """Find out what the origin's response is good for."""
        decision, response = arrival.decision, arrival.response
        if decision.fallback is not None and response.status in SERVER_FAILURES:
            stale = await self._reuse(arrival.exchange, decision.fallback)
            if stale is not None:
                response.close()
                arrival.flight.land(stored=False)
                return stale
        if response.status == NOT_MODIFIED and isinstance(decision, Revalidate):
            return await self._freshen(arrival, decision)
        if isinstance(decision, Complete) and (response.status == PARTIAL or response.status in OBJECTIONS):
            return await self._complete(arrival, decision)
        return await self._receive(arrival)

    async def _receive(self, arrival: Arrival) -> ClientResponse:
        """Hand the origin's response to the caller, and a copy of it to the store if it may be stored."""
        core, exchange, origin, flight = self._core, arrival.exchange, arrival.origin, arrival.flight
        response = adopt(arrival.response)
        # A store that was not open in time may be by now, or soon.
        has_key = exchange.key or self._lookup.has_key(exchange.inquiry)
        if response is None or not (has_key or core.guarded.is_opening):
            why = "the response's class can't be ours" if has_key else "there is no store"
            core.counters.bypasses[why] += 1
            core.flights.note_uncacheable(flight.key)
            flight.land(stored=False)
            return arrival.response
        core.counters.misses += not exchange.is_background
        response.cache_key = exchange.key
        if origin.status in REDIRECTS and exchange.scope is not None:
            exchange.scope.note_redirect(exchange.key)
        try:
            tell_listeners_only(response)
            await self._invalidate(exchange, origin)
            if arrival.tampered is None:
                self._update_by_head(exchange, origin, flight)
                if origin.status in (PARTIAL, NOT_MODIFIED):
                    self._update_by_answer(exchange, origin, flight)
            storing = self._keeper.receive(exchange, response, origin, flight, arrival.tampered)
            shown = core.policy.shown_on_forward(
                arrival.decision, origin.status, storing, core.clock(), collapsed=exchange.is_collapsed
            )
        except Exception as error:  # noqa: BLE001 (the first rule)
            core.guarded.failed(error)
            flight.land(stored=False)
            return response
        await self._keeper.hop_arrives(exchange, response)
        show_fields(response, shown)
        return response

    async def _freshen(self, arrival: Arrival, decision: Revalidate) -> ClientResponse:
        """Renew the stored response that a 304 confirms, and reuse it (RFC 9111 §4.3.4)."""
        exchange = arrival.exchange
        arrival.response.release()
        confirmed = self._confirmed(arrival, decision)
        if confirmed is not None:
            freshened, reuse = confirmed
            if arrival.tampered is not None and freshened.redirects_to is None:
                self._keeper.drop_hops(exchange)  # they would live on with what is not renewed
            replayed = await self._reuse(exchange, reuse, validated=True)
            if replayed is not None:
                if arrival.tampered is not None:
                    arrival.flight.land(stored=False)
                elif freshened.redirects_to is not None:
                    self._keeper.hold_renewed_hop(exchange, freshened, arrival.flight)
                else:
                    self._keeper.renew(exchange, freshened, arrival.flight)
                    arrival.flight.land(stored=True)
                hand_over_cookies(arrival.response, replayed)
                return replayed
        # The origin confirmed what is not there (any more): ask for the whole response.
        return await self._ask_origin(exchange, UNUSABLE, arrival.flight)

    def _confirmed(self, arrival: Arrival, decision: Revalidate) -> tuple[StoredResponse, Reuse] | None:
        """Give the stored response that a 304 confirms, renewed, and how it is handed out."""
        core, exchange, now = self._core, arrival.exchange, self._core.clock()
        try:
            selected = core.policy.selected_by_304(decision.candidates, arrival.origin)
            if selected is None:
                return None
            freshened = core.policy.freshen(selected, arrival.origin, exchange.rules, now)
            asked, secret = exchange.asked.request, exchange.secret
            return freshened, core.policy.reuse_validated(asked, freshened, decision, now, secret=secret)
        except Exception as error:  # noqa: BLE001 (the first rule)
            core.guarded.failed(error)
            return None

    async def _complete(self, arrival: Arrival, decision: Complete) -> ClientResponse:
        """Make the whole of a stored part and the rest, and reuse it (RFC 9111 §3.4)."""
        core, exchange, response = self._core, arrival.exchange, arrival.response
        whole = None if arrival.tampered is not None else await self._whole(arrival, decision.part)
        response.release()
        if whole is not None:
            now = core.clock()
            reuse = core.policy.reuse_validated(exchange.asked.request, whole, decision, now, secret=exchange.secret)
            replayed = await self._reuse(exchange, reuse, validated=True)
            if replayed is not None:
                fits = core.settings.max_body_size is None or whole.size <= core.settings.max_body_size
                if fits:
                    self._keeper.renew(exchange, whole, arrival.flight)
                arrival.flight.land(stored=fits)
                hand_over_cookies(response, replayed)
                return replayed
        # What came is of no use, or the origin objects to a range: ask for what the caller has asked for.
        return await self._ask_origin(exchange, UNUSABLE, arrival.flight)

    async def _whole(self, arrival: Arrival, part: StoredResponse) -> StoredResponse | None:
        """Read what *part* lacks, which is little, and give both together; ``None`` if it is not what was asked for."""
        core = self._core
        if not core.policy.completes(part, arrival.origin):
            return None
        try:
            rest = await arrival.response.read()
        except asyncio.TimeoutError:
            raise
        except ClientError:
            return None
        try:
            return core.policy.completed(part, arrival.origin, rest, arrival.exchange.rules, core.clock())
        except Exception as error:  # noqa: BLE001 (the first rule)
            core.guarded.failed(error)
            return None

    async def _invalidate(self, exchange: Exchange, origin: OriginResponse) -> None:
        """Remove what the request has made invalid (RFC 9111 §4.4)."""
        core = self._core
        for url in core.policy.invalidated_urls(exchange.asked.request, origin):
            secret = await core.guarded.secret()
            if secret is None:
                return
            tag = url_tag(url, secret, core.settings.ignored_params)
            core.flights.note_invalidated(tag)
            for key in await core.guarded.tagged(tag):
                core.guarded.delete(key)

    def _update_by_head(self, exchange: Exchange, origin: OriginResponse, flight: Flight) -> None:
        """Renew or remove the stored responses that the answer to a HEAD speaks of too (RFC 9111 §4.3.5)."""
        core = self._core
        for method in exchange.inquiry.other_methods:
            stored = self._lookup.selected(exchange.inquiry, method)
            renewed, invalid = core.policy.freshened_by_head(stored, origin, exchange.rules, core.clock())
            for one in renewed:
                self._keeper.renew(exchange, one, flight)
            for one in invalid:
                core.guarded.delete(one.key)

    def _update_by_answer(self, exchange: Exchange, origin: OriginResponse, flight: Flight) -> None:
        """Renew what a 206 is a part of (RFC 9111 §3.4), or a 304 to the caller's own condition names (§4.3.4)."""
        core, stored = self._core, self._lookup.selected(exchange.inquiry)
        for one in core.policy.freshened_by_answer(stored, origin, exchange.rules, core.clock()):
            self._keeper.renew(exchange, one, flight)

    def _origin_response(self, response: ClientResponse, request_time: float) -> OriginResponse:
        # What a middleware makes up may have no more than aiohttp asks for.
        fields = getattr(response, "headers", _NO_FIELDS)
        reason = getattr(response, "reason", None) or ""
        return OriginResponse(response.status, fields, request_time, self._core.clock(), reason)

    def refresh_in_background(self, exchange: Exchange, revalidate: Revalidate) -> None:
        """Revalidate a response that was handed out stale (RFC 5861 §3); one at a time per key."""
        request = copy.copy(exchange.request)
        request.headers = request.headers.copy()
        for name in CONDITIONS:
            # They are about what the caller has: a 304 to them would be taken for one about what is stored.
            request.headers.popall(name, None)
        background = exchange.in_background(request)

        async def refresh() -> None:
            if not self._core.guarded.claim(exchange.key):
                return  # another process is at it
            flight = self._core.flights.lead(exchange.key, partial(self._core.guarded.unclaim, exchange.key))
            try:
                async with await self._ask_origin(background, revalidate, flight) as response:
                    async for _ in response.content.iter_any():
                        pass
            except (ClientError, asyncio.TimeoutError, OSError) as error:
                logger.debug("%s: refresh in the background failed: %r", self._core.shown_url(request), error)
            finally:
                flight.land(stored=False)

        async def refresh_in_time() -> None:
            await asyncio.wait_for(refresh(), REFRESH_PATIENCE)

        self._core.flights.refresh(exchange.key, refresh_in_time)


def _is_newer(entry: Entry | None, before: Entry | None) -> bool:
    if isinstance(entry, StoredResponse) and isinstance(before, StoredResponse):
        return entry.created_time > before.created_time
    return entry != before


def _something_may_stand_in(exchange: Exchange, decision: ToOrigin) -> bool:
    return decision.fallback is not None or exchange.waited_in_vain


def _timed(exchange: Exchange, decision: ToOrigin) -> AbstractContextManager[object]:
    """Make a timeout of the request's cancellation where something may stand in; else aiohttp does, afterwards."""
    return timer_of(exchange.request) if _something_may_stand_in(exchange, decision) else nullcontext()


async def _send(exchange: Exchange, decision: ToOrigin, conditions: tuple[Header, ...]) -> ClientResponse:
    """
    Send the request with *conditions* added.

    Where something may stand in, an error is not the end: so what aiohttp does about it afterwards happens here. It
    retries once over a new connection, and makes a timeout of its cancellation.
    """
    request, handler = exchange.request, exchange.handler
    if not (conditions or _something_may_stand_in(exchange, decision)):
        return await handler(request)
    with _conditional(request, conditions), _timed(exchange, decision):
        try:
            return await handler(request)
        except ClientConnectorError:
            raise
        except (ClientOSError, ServerDisconnectedError):
            # Otherwise aiohttp comes here again, and finds what has been brought meanwhile.
            if decision.fallback is None or request.method not in ("GET", "HEAD"):
                raise
            return await handler(request)


@contextmanager
def _conditional(request: ClientRequest, conditions: tuple[Header, ...]) -> Iterator[None]:
    """Add *conditions* to the request while it is under way; a retry must not send them again."""
    if not conditions:
        yield
        return
    request.headers.update(conditions)
    try:
        yield
    finally:
        for name, _ in conditions:  # and nothing else: what a middleware behind the cache changed must show
            request.headers.popall(name, None)
