"""Storing: from a response that may be stored to entries in the store."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import ClientError, hdrs

from ._flights import Flight
from ._guard import logger
from ._key import gives_away, stored_request_headers, stored_response_headers, stored_url, url_tag
from ._model import BodyRef, OriginResponse, StoredResponse, VariantIndex, Vary
from ._policy import PARTIAL, REDIRECTS, DoNotStore, Store, Storing, names_added, selecting_values, selects
from ._response import CachedResponse, is_decoded, is_left_unread, raised_read_bufsize, replay, whole_body
from ._scope import Hop, RequestScope
from ._tee import MEMORY_LIMIT, NO_ROOM, READ_AHEAD, TOO_LARGE, Capture
from ._variants import entry_key, place

if TYPE_CHECKING:
    from multidict import MultiMapping

    from ._core import Core
    from ._exchange import Exchange
    from ._lookup import Lookup
    from ._model import Entry, RawHeader
    from ._stores import BodySpool

OPENING_PATIENCE = 0.5
"""Seconds for which those who wait for a response wait for the store to open too."""

LATE_PATIENCE = 10.0
"""Seconds for which a response waits for the store to open, long after it has reached its caller."""

HOP_PATIENCE = 0.25
"""Seconds for which a redirect waits for its body, which mostly comes with its header fields."""

LATE_ROOM = 16 * 1024 * 1024
"""Bytes of responses that may wait for the store to open; each counts for `LATE_OVERHEAD` beside its body."""

LATE_OVERHEAD = 4096

REJECTED = "rejected by filter_fn"
TOO_LATE = "the store takes too long to open"
GIVES_AWAY = "it leads to a URL with an ignored parameter"
USELESS_PART = "a part of no use beside what is stored"
OUTDATED = "an unsafe request has been answered since it was asked for"

UNCACHEABLE = frozenset({TOO_LARGE, NO_ROOM, REJECTED, "the store did not accept it"})
"""Why a response was not stored that the next one will not be stored for either."""

ENDLESS = frozenset({"text/event-stream", "multipart/x-mixed-replace"})
"""Media types of responses that have no end: they pass through, never held, never stored."""

UNAUTHORIZED = 401
"""Status of an answer that challenges the asker (RFC 9110 §15.5.2)."""


class Arriving(NamedTuple):
    """
    A response that will be stored once its body is whole.

    Attributes:
        exchange: What it answers.
        template: What will be stored, but for the body.
        storing: What the policy says of it.
        flight: Those who wait for it.
        hops: Redirects that led to it.
    """

    exchange: Exchange
    template: StoredResponse
    storing: Store
    flight: Flight
    hops: tuple[Hop, ...]


class Keeper:
    """Takes responses that arrive, and stores those that may be."""

    def __init__(self, core: Core, lookup: Lookup) -> None:
        self._core = core
        self._lookup = lookup
        self._late_size = 0

    def receive(
        self, exchange: Exchange, response: CachedResponse, origin: OriginResponse, flight: Flight, tampered: str | None
    ) -> Storing:
        """
        Take a response whose header fields have arrived; its body is copied while the caller reads it.

        Args:
            tampered: Why it may not be stored though the policy might allow it.
        """
        forbidden = tampered or self._gives_away(response)
        storing = DoNotStore(forbidden) if forbidden else self._judge(exchange, response, origin)
        if isinstance(storing, Store):
            template = self._template(exchange, response, origin, storing)
            hops = self._hops_that_end_here(exchange, origin.status, origin.fields)
            arriving = Arriving(exchange, template, storing, flight, hops)
            drop = partial(self._dropped, arriving)
            if not exchange.key:
                self._capture(response, partial(self._keep_when_open, arriving), drop, (flight,), spool=_none)
                return storing
            response.cache_key = entry_key(exchange.key, template.vary)
            flights = (flight, *(hop.flight for hop in hops))
            self._capture(response, partial(self._keep, arriving), drop, flights, spool=self._core.guarded.spool)
            return storing
        if storing.invalidates and exchange.key:
            self._invalidate(exchange)
        hop = self._core.policy.may_store_hop(exchange.asked.request, origin, exchange.rules, origin.response_time)
        if isinstance(hop, Store) and exchange.scope is not None and exchange.key and forbidden is None:
            self._hold_hop(exchange.scope, exchange, response, origin, hop, flight)
        else:
            self._not_stored(exchange.key, storing.why)
            self._core.flights.note_uncacheable(flight.key)
            flight.land(stored=False)
        return storing

    def _invalidate(self, exchange: Exchange) -> None:
        """Remove what is stored for this very request; other variants stay."""
        existing = self._core.guarded.peek(exchange.key)
        variants = existing.variants if isinstance(existing, VariantIndex) else ()
        headers = exchange.asked.request.headers
        chosen = [one.key for one in variants if selects(one.vary, headers, exchange.secret)]
        for key in chosen if variants else [exchange.key]:
            self._core.guarded.delete(key)

    def renew(self, exchange: Exchange, stored: StoredResponse, flight: Flight) -> None:
        """Store a response again that *flight* has renewed; it has a validator, so it never becomes useless."""
        tag = self.tag(exchange)
        if self._core.flights.is_outdated(flight, tag):
            return
        try:
            may_keep = self._core.policy.may_keep(stored)
        except Exception as error:  # noqa: BLE001 (the first rule)
            self._core.guarded.failed(error)
            may_keep = False
        if may_keep:
            self._core.guarded.put(stored.key, self._renewed(exchange, stored), tag=tag)
        else:
            self._core.guarded.delete(stored.key)

    def hold_renewed_hop(self, exchange: Exchange, stored: StoredResponse, flight: Flight) -> None:
        """Keep a redirect in hand that the origin has renewed: it lives as long as what it leads to now."""
        if exchange.scope is None:  # nobody will tell
            flight.land(stored=False)
            return
        hop = Hop(self, exchange.key, self.tag(exchange), flight)
        exchange.scope.arrive(hop)
        if not gives_away(stored.fields, self._core.settings.ignored_params):
            hop.response = self._renewed(exchange, stored)

    def keep_hops(self, exchange: Exchange, led_to: StoredResponse) -> None:
        """Store the hops that led to a response which is stored."""
        if hops := self._hops_that_end_here(exchange, led_to.status, led_to.fields):
            self._keep_hops(exchange, hops, led_to)

    def drop_hops(self, exchange: Exchange) -> None:
        """Let go of the hops that led here: what they led to is not stored."""
        if exchange.scope is not None:
            for hop in exchange.scope.take_followed(self):
                hop.drop()

    async def hop_arrives(self, exchange: Exchange, response: CachedResponse) -> None:
        """Wait for the body of a redirect: aiohttp does not read it when it follows, so what is late is lost."""
        hop = None if exchange.scope is None else exchange.scope.arrived_of(self)
        if hop is not None and hop.response is None:
            with suppress(asyncio.TimeoutError, ClientError):
                await asyncio.wait_for(response.content.wait_eof(), HOP_PATIENCE)

    async def passes_filter(self, response: CachedResponse) -> bool:
        """Ask the filter whether a stored response may be used."""
        verdict = self._ask_filter(response)
        return verdict if isinstance(verdict, bool) else await verdict

    def tag(self, exchange: Exchange) -> str:
        """Give what groups the entries of the request's URL."""
        return url_tag(exchange.asked.request.url, exchange.secret, self._core.settings.ignored_params)

    # --- may it be stored? ---

    def _renewed(self, exchange: Exchange, stored: StoredResponse) -> StoredResponse:
        """Give what to store of a response that the answer to this request has renewed, perhaps with a new ``Vary``."""
        stored = self._without_ignored(stored)
        added = self._selecting_values(exchange, names_added(stored))
        return stored.replace(vary=tuple(sorted((*stored.vary, *added)))) if added else stored

    def _without_ignored(self, stored: StoredResponse) -> StoredResponse:
        ignored = self._core.settings.ignored_params
        if not ignored or hdrs.CONTENT_LOCATION not in stored.fields:
            return stored
        return stored.replace(headers=stored_response_headers(stored.headers, ignored), raw_headers=None)

    def _gives_away(self, response: CachedResponse) -> str | None:
        ignored = self._core.settings.ignored_params
        return GIVES_AWAY if ignored and gives_away(response.headers, ignored) else None

    def _judge(self, exchange: Exchange, response: CachedResponse, origin: OriginResponse) -> Storing:
        media_type = response.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
        if media_type in ENDLESS:
            return DoNotStore(f"{media_type} has no end")
        if is_left_unread(response):
            return DoNotStore("its body is not read (read_until_eof=False)")
        if is_decoded(response) is (not exchange.asked.decoded):
            return DoNotStore("auto_decompress= of this request is not its session's")
        if response.status == UNAUTHORIZED and _challenges_by_digest(response):
            return DoNotStore("its Digest challenge is for this request only")
        size, limit = response.content_length, self._core.settings.max_body_size
        if size is not None and limit is not None and size > limit and response.method != "HEAD":
            return DoNotStore(TOO_LARGE)
        return self._core.policy.may_store(exchange.asked.request, origin, exchange.rules, origin.response_time)

    def _template(
        self, exchange: Exchange, response: CachedResponse, origin: OriginResponse, storing: Store
    ) -> StoredResponse:
        """Make what will be stored, but for the body."""
        headers = tuple(response.headers.items())
        raw_headers: tuple[RawHeader, ...] | None = response.raw_headers
        if drop := storing.drop:
            headers = tuple(one for one in headers if one[0].lower() not in drop)
            raw_headers = tuple(one for one in response.raw_headers if one[0].decode("latin-1").lower() not in drop)
        ignored = self._core.settings.ignored_params
        if ignored and hdrs.CONTENT_LOCATION in response.headers:
            headers, raw_headers = stored_response_headers(headers, ignored), None
        request = exchange.asked.request
        version = response.version
        return StoredResponse(
            key=exchange.key,
            method=request.method,
            url=stored_url(request.url, ignored),
            status=response.status,
            reason=response.reason or "",
            version=(version.major, version.minor) if version is not None else (1, 1),
            headers=headers,
            raw_headers=raw_headers,
            request_headers=stored_request_headers(exchange.asked, ignored),
            request_time=origin.request_time,
            response_time=origin.response_time,
            created_time=origin.response_time,
            expires_time=storing.expires_time,
            vary=self._selecting_values(exchange, storing.vary),
            read_bufsize=raised_read_bufsize(response, exchange.request),
        )

    def _selecting_values(self, exchange: Exchange, names: tuple[str, ...]) -> Vary:
        """Give what a request says in the fields *names*; those that are ignored select nothing."""
        if not names:
            return ()
        ignored = {name.lower() for name in self._core.settings.ignored_params}
        names = tuple([name for name in names if name not in ignored])
        return selecting_values(exchange.asked.request.headers, names, exchange.secret)

    # --- the body ---

    def _capture(
        self,
        response: CachedResponse,
        keep: Callable[[bytes | BodySpool], None],
        drop: Callable[[str], None],
        flights: tuple[Flight, ...],
        *,
        spool: Callable[[], BodySpool | None],
    ) -> None:
        """Copy the body; those of *flights* wait for nothing that the caller does."""
        limit = self._core.settings.max_body_size
        # Small bodies have mostly arrived with the header fields: nothing to watch then.
        if (body := whole_body(response)) is not None:
            if limit is None or len(body) <= limit:
                keep(body)
            else:
                drop(TOO_LARGE)
            return
        capture = Capture(response, max_size=limit, spool=spool, keep=keep, drop=drop)
        for flight in flights:
            if (response.content_length or 0) > READ_AHEAD:
                flight.land(stored=False)
            else:
                flight.when_followed(capture.hurry)

    def _dropped(self, arriving: Arriving, why: str) -> None:
        self._not_stored(arriving.exchange.key, why)
        if why in UNCACHEABLE:
            self._core.flights.note_uncacheable(arriving.flight.key)
        for hop in arriving.hops:
            hop.drop()
        arriving.flight.land(stored=False)

    def _not_stored(self, key: str, why: str) -> None:
        self._core.counters.count_not_stored(key, why)
        logger.debug("not stored: %s", why)

    def _keep_when_open(self, arriving: Arriving, body: bytes | BodySpool) -> None:
        """Store a response that has arrived before the store was open; the hops that led to it have no key."""
        for hop in arriving.hops:
            hop.drop()
        arriving = arriving._replace(hops=())
        exchange, template, storing, flight, _ = arriving
        size = LATE_OVERHEAD + (len(body) if isinstance(body, bytes) else body.size)
        if self._late_size + size > LATE_ROOM:
            self._dropped(arriving, TOO_LATE)
            return
        self._late_size += size

        async def keep() -> None:
            try:
                await self._core.guarded.wait_until_open(OPENING_PATIENCE)
                if not self._core.guarded.is_open:
                    flight.land(stored=False)  # who follows it has waited long enough
                    await self._core.guarded.wait_until_open(LATE_PATIENCE)
            except BaseException:  # the loop ends
                flight.land(stored=False)
                raise
            finally:
                self._late_size -= size
            if not self._lookup.has_key(exchange.inquiry):
                self._dropped(arriving, TOO_LATE)
                return
            exchange.entry = self._lookup.entry(exchange.inquiry)
            vary = self._selecting_values(exchange, storing.vary)
            self._keep(arriving._replace(template=template.replace(key=exchange.key, vary=vary)), body)

        flight.leader = None  # nobody needs to read any more for it to land
        self._core.flights.run(keep())

    def _keep(self, arriving: Arriving, body: bytes | BodySpool) -> None:
        """Store a response that has arrived whole, if the filter agrees."""
        if self._core.settings.filter_fn is None:
            self._place(arriving, body)
            return
        verdict = self._ask_filter(self._as_filtered(arriving.exchange, arriving.template, body))
        store, refuse = partial(self._place, arriving, body), partial(self._refused, arriving, body, REJECTED)
        if isinstance(verdict, bool):
            (store if verdict else refuse)()
        else:
            # Nobody needs to read any more for this flight to land: waiting for it is safe for everyone.
            arriving.flight.leader = None
            self._core.flights.run(_decide_later(verdict, store, refuse))

    def _as_filtered(self, exchange: Exchange, template: StoredResponse, body: bytes | BodySpool) -> CachedResponse:
        return replay(
            exchange.request,
            template.replace(body=_described(body)),
            now=self._core.clock(),
            age=None,
            cache_key=exchange.key,
            from_cache=False,
            load=None if isinstance(body, bytes) else body.load,
        )

    def _ask_filter(self, response: CachedResponse) -> bool | Awaitable[bool]:
        """Ask the filter; one that fails says no."""
        if self._core.settings.filter_fn is None:
            return True
        try:
            verdict = self._core.settings.filter_fn(response)
            return _awaited(verdict) if inspect.isawaitable(verdict) else bool(verdict)
        except Exception:  # noqa: BLE001 (whatever a filter of the caller's raises)
            return _filter_failed()

    def _refused(self, arriving: Arriving, body: bytes | BodySpool, why: str) -> None:
        if not isinstance(body, bytes):
            body.discard()
        self._dropped(arriving, why)

    def _place(self, arriving: Arriving, body: bytes | BodySpool) -> None:
        exchange, template, storing, flight, hops = arriving
        tag = self.tag(exchange)
        if self._core.flights.is_outdated(flight, tag):
            self._refused(arriving, body, OUTDATED)
            return
        new, existing = self._beside_stored(exchange, template.replace(body=_described(body)))
        if new is None:
            self._refused(arriving, body, USELESS_PART)
            return
        new, spool = (new, None) if isinstance(body, bytes) else (new.replace(body=b""), body)
        placement = place(exchange.key, existing, new)
        accepted = True
        for key, entry in placement.puts:
            if isinstance(entry, StoredResponse):
                accepted = self._core.guarded.put(
                    key, entry, tag=tag, is_kept_stale=storing.worth_keeping_stale, spool=spool
                )
            elif accepted:
                accepted = self._core.guarded.put(key, entry, tag=tag)
        for key in placement.deletes:
            self._core.guarded.delete(key)
        if not accepted:
            self._dropped(arriving, "the store did not accept it")
            return
        self._core.counters.stores += 1
        self._core.flights.note_cacheable(flight.key)
        self._keep_hops(exchange, hops, template)
        flight.land(stored=True)

    def _beside_stored(self, exchange: Exchange, new: StoredResponse) -> tuple[StoredResponse | None, Entry | None]:
        """Give what to store of *new* (``None``: nothing), and what stands under its primary key."""
        core = self._core
        if new.status != PARTIAL or core.policy.keeps_ranges_apart(exchange.rules):
            # Only variants depend on what has been stored meanwhile; looking again would cost a row more.
            return new, core.guarded.peek(exchange.key) if new.vary else exchange.entry
        existing = beside = core.guarded.peek(exchange.key)
        if isinstance(existing, VariantIndex):
            if not new.vary:
                return None, existing  # a part must not end all variants
            beside = core.guarded.peek(entry_key(exchange.key, new.vary))
        stored = beside if isinstance(beside, StoredResponse) else None
        return core.policy.to_keep(stored, new, core.settings.max_body_size), existing

    # --- redirects ---

    def _hops_that_end_here(self, exchange: Exchange, status: int, fields: MultiMapping[str]) -> tuple[Hop, ...]:
        """Take the hops that led to a response; none, if that is a redirect which leads on."""
        leads_on = status in REDIRECTS and hdrs.LOCATION in fields
        return () if exchange.scope is None or leads_on else exchange.scope.take_followed(self)

    def _hold_hop(
        self,
        scope: RequestScope,
        exchange: Exchange,
        response: CachedResponse,
        origin: OriginResponse,
        storing: Store,
        flight: Flight,
    ) -> None:
        """Keep a redirect in hand until it is known whether it was followed, and to what."""
        hop = Hop(self, exchange.key, self.tag(exchange), flight)
        hop.is_kept_stale = storing.worth_keeping_stale
        scope.arrive(hop)
        template = self._template(exchange, response, origin, storing)

        def keep(body: bytes | BodySpool) -> None:
            if isinstance(body, bytes):
                hop.response = template.replace(body=body)
            else:
                body.discard()

        if (body := whole_body(response)) is not None:
            keep(body)
            return
        capture = Capture(
            response,
            max_size=MEMORY_LIMIT,
            spool=self._core.guarded.spool,
            keep=keep,
            drop=partial(self._not_stored, exchange.key),
        )
        capture.hurry()

    def _keep_hops(self, exchange: Exchange, hops: tuple[Hop, ...], led_to: StoredResponse) -> None:
        expires_time = led_to.expires_time
        for hop in hops:
            if hop.key == exchange.key:
                # It led to its own URL, by way of a cookie: what it led to is stored in its place.
                hop.flight.land(stored=True)
                continue
            if hop.response is None:
                hop.drop()
                continue
            stored = hop.response.replace(expires_time=expires_time, redirects_to=led_to.url)
            placement = place(hop.key, self._core.guarded.peek(hop.key), stored)
            for key, entry in placement.puts:
                self._core.guarded.put(key, entry, tag=hop.tag, is_kept_stale=hop.is_kept_stale)
            for key in placement.deletes:
                self._core.guarded.delete(key)
            self._core.counters.stores += 1
            hop.flight.land(stored=True)


def _none() -> None:
    """Give no room for a large body."""


def _described(body: bytes | BodySpool) -> bytes | BodyRef:
    """Give a body as a stored response has it."""
    return body if isinstance(body, bytes) else BodyRef("", body.size)


def _challenges_by_digest(response: CachedResponse) -> bool:
    """Tell whether a 401 gives a nonce: it ages, and what is tried with a new one has the key of the request before."""
    return any("digest" in value.lower() for value in response.headers.getall(hdrs.WWW_AUTHENTICATE, ()))


def _filter_failed() -> bool:
    logger.exception("filter_fn failed: the response is not cached")
    return False


async def _awaited(verdict: Awaitable[bool]) -> bool:
    try:
        return bool(await verdict)
    except asyncio.CancelledError:
        raise
    except Exception:  # noqa: BLE001 (whatever a filter of the caller's raises)
        return _filter_failed()


async def _decide_later(verdict: Awaitable[bool], store: Callable[[], None], refuse: Callable[[], None]) -> None:
    is_wanted = False
    try:
        is_wanted = await verdict
    finally:
        (store if is_wanted else refuse)()
