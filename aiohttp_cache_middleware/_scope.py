"""What one call of the caller's carries across the redirect hops it makes: options and hops on the way."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ._flights import clock
from ._options import CacheOptions

if TYPE_CHECKING:
    from aiohttp import ClientRequest

    from ._flights import Flight
    from ._model import StoredResponse

FOLLOWING_PATIENCE = 0.1
"""
Seconds for which those who wait for a redirect wait for the request that it leads to. That comes at once, unless
something in front of the cache holds it back, such as a limit on requests, which may count those who wait.
"""


class Hop:
    """
    A redirect that is stored once it has led to a response that is.

    Attributes:
        owner: Whose it is: a session may have several caches.
        flight: Who waits for it.
        response: What to store; ``None`` until its body has arrived.
        key: Its primary key.
        tag: The tag of its URL.
        deadline: Monotonic time by which the next request must have come for waiting to be worth while.
        is_kept_stale: Whether it is of use when it has expired; one that a 304 has renewed is.
    """

    response: StoredResponse | None = None
    deadline: float = math.inf
    is_kept_stale: bool = True

    def __init__(self, owner: object, key: str, tag: str, flight: Flight) -> None:
        self.owner = owner
        self.key = key
        self.tag = tag
        self.flight = flight
        flight.leads_on = True
        flight.when_followed(self.hurry)

    def hurry(self) -> bool:
        """Tell those who wait whether that is worth while."""
        return clock() < self.deadline

    def drop(self) -> None:
        """Note that it will not be stored."""
        self.flight.land(stored=False)


class RequestScope(SimpleNamespace):  # as aiohttp types it
    """
    One ``session.request(...)`` from its `on_request_start` to its end; the context of a TraceConfig of ours.

    Args:
        trace_request_ctx: As the caller passed it; `CacheOptions` are the request's own.

    Attributes:
        options: The `CacheOptions` that came as ``trace_request_ctx``.
        arrived: The hop that arrived last, of each cache; it is followed, or it is the caller's response.
        followed: Hops that were followed, oldest first.
        redirected: Keys of requests that were answered by a redirect, stored or not.
        is_over: Whether the call has ended; a middleware of the caller's may still send its requests.
    """

    # Defaults of the class: most requests change neither, and each costs a hit its time.
    arrived: tuple[Hop, ...] = ()
    followed: tuple[Hop, ...] = ()
    redirected: frozenset[str] = frozenset()
    is_over: bool = False

    def __init__(self, trace_request_ctx: object = None) -> None:
        self.options = trace_request_ctx if isinstance(trace_request_ctx, CacheOptions) else None

    @property
    def holds_hops(self) -> bool:
        """Whether others may wait for what this call leads to."""
        return bool(self.arrived or self.followed)

    def leave(self) -> None:
        """End: drop the hops that led to nothing."""
        self.is_over = True
        if self.arrived or self.followed:
            self.follow()
            hops, self.followed = self.followed, ()
            for hop in hops:
                hop.drop()

    def arrive(self, hop: Hop) -> None:
        """Take a redirect, in place of one that came before to the same request (of a middleware that retries)."""
        if self.is_over:  # nobody will tell whether it is followed
            hop.drop()
            return
        if (replaced := self.arrived_of(hop.owner)) is not None:
            replaced.drop()
        self.arrived = (*[one for one in self.arrived if one is not replaced], hop)

    def arrived_of(self, owner: object) -> Hop | None:
        """Give the hop that arrived last and is *owner*'s."""
        return next((one for one in self.arrived if one.owner is owner), None)

    def follow(self) -> None:
        """Note that aiohttp follows the hop that arrived last."""
        if self.arrived:
            self.followed += self.arrived
            self.arrived = ()
            for hop in self.followed:
                hop.deadline = clock() + FOLLOWING_PATIENCE

    def goes_on(self) -> None:
        """Note that the request has come that the hops have led to so far."""
        for hop in self.followed:
            hop.deadline = math.inf

    def note_redirect(self, key: str) -> None:
        """Note that a redirect answers the request with *key*."""
        self.redirected |= {key}

    def take_followed(self, owner: object) -> tuple[Hop, ...]:
        """Give the hops of *owner* that led here; he stores or drops them."""
        hops = self.followed
        self.followed = tuple([one for one in hops if one.owner is not owner])
        return tuple([one for one in hops if one.owner is owner])


def scope_of(request: ClientRequest) -> RequestScope | None:
    """
    Give the scope that *request* belongs to, if a TraceConfig of ours opened one.

    aiohttp hands the traces of a call on to each request that it makes for it, but has no public name for them: they
    are read here. A `ContextVar`, set by `on_request_start` and reset by `on_request_end`, takes 5 % of a hit's work.
    """
    for trace in request._traces:  # noqa: SLF001
        scope = trace._trace_config_ctx  # noqa: SLF001
        if isinstance(scope, RequestScope):
            return scope
    return None
