"""What one call of the caller's carries across the redirect hops it makes: options and hops on the way."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from ._flights import Flight
    from ._model import StoredResponse
    from ._options import CacheOptions


@dataclass(slots=True, eq=False)
class Hop:
    """
    A redirect that is stored once it has led to a response that is.

    Attributes:
        flight: Who waits for it.
        response: What to store; ``None`` until its body has arrived.
        key: Its primary key.
        tag: The tag of its URL.
    """

    key: str
    tag: str
    flight: Flight
    response: StoredResponse | None = None

    def drop(self) -> None:
        """Note that it will not be stored."""
        self.flight.land(stored=False)


@dataclass(slots=True, eq=False)
class RequestScope:
    """
    One ``session.request(...)`` from its `on_request_start` to its end.

    Attributes:
        session: The session it belongs to; a request that another session makes meanwhile is not in it.
        options: The `CacheOptions` that came as ``trace_request_ctx``.
        arrived: The hop that arrived last; it is followed, or it is the caller's response.
        followed: Hops that were followed, oldest first.
    """

    session: ClientSession
    options: CacheOptions | None = None
    arrived: Hop | None = None
    followed: list[Hop] = field(default_factory=list)

    @property
    def has_hops(self) -> bool:
        """Whether there were redirects whose fate is open."""
        return self.arrived is not None or bool(self.followed)

    def follow(self) -> None:
        """Note that aiohttp follows the hop that arrived last."""
        if self.arrived is not None:
            self.followed.append(self.arrived)
            self.arrived = None

    def take_followed(self) -> tuple[Hop, ...]:
        """Give the hops that led here; whoever takes them stores or drops them."""
        hops = tuple(self.followed)
        self.followed.clear()
        return hops

    def end(self) -> None:
        """Drop the hops that led to nothing."""
        self.follow()
        for hop in self.take_followed():
            hop.drop()


_SCOPE: ContextVar[RequestScope | None] = ContextVar("aiohttp_cache_middleware_scope", default=None)

enter = _SCOPE.set
leave = _SCOPE.reset


def scope_of(session: ClientSession) -> RequestScope | None:
    """Give the scope of the request that *session* makes in this context, if a TraceConfig of ours opened one."""
    scope = _SCOPE.get()
    return scope if scope is not None and scope.session is session else None
