"""From aiohttp's request to what it asks of the cache; worked out once for requests that are alike."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ._exchange import Inquiry
from ._options import in_force
from ._policy import Forward
from ._request import Asked, Uncacheable, is_asked_again, snapshot_request

if TYPE_CHECKING:
    from aiohttp import ClientRequest
    from yarl import URL

    from ._core import Core
    from ._options import CacheOptions

REMEMBERED: Final = 2048
"""Inquiries kept: 12 µs of a hit's work are done once for each of them."""


class Inquiries:
    """Understands requests, and remembers what those that are plain asked."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._remembered: OrderedDict[tuple[str, URL], Inquiry] = OrderedDict()

    def remembered(self, request: ClientRequest) -> Inquiry | None:
        """Give what a request like *request*, made without options of its own, has asked before."""
        inquiry = self._remembered.get((request.method, request.url))
        if inquiry is None or inquiry.settings is not self._core.settings:
            return None
        return inquiry if is_asked_again(inquiry.asked, request) else None

    async def understand(self, request: ClientRequest, said: CacheOptions | None) -> Inquiry:
        """
        Give what *request* asks, made with the options *said*.

        Suspends only to read a body from a file; raises whatever a payload or a cookie jar of the caller's raises.
        """
        read_body = request.method in self._core.settings.allowed_methods
        asked = await snapshot_request(request, read_body=read_body)
        inquiry = self.about(asked, said)
        # What identifies somebody is not kept in memory for longer than it takes.
        inquiry.is_plain = said is None and isinstance(asked, Asked) and asked.is_anonymous
        return inquiry

    def remember(self, request: ClientRequest, inquiry: Inquiry) -> None:
        """Remember what *request* asks; of use where it has a stored answer, for that is asked for again."""
        inquiry.is_plain = False
        self._remembered[request.method, request.url] = inquiry
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def about(self, asked: Asked | Uncacheable, said: CacheOptions | None) -> Inquiry:
        """Give what a request that is known as *asked* asks."""
        core = self._core
        rules = in_force(core.settings, asked.request.url, said)
        if isinstance(asked, Uncacheable):
            passing: Forward | None = Forward(may_be_stored=False, forward="bypass", why=asked.why)
            asked = Asked(asked.request)
        else:
            passing = core.policy.passes_through(asked.request, rules)
        namespace = core.settings.namespace if said is None or said.namespace is None else said.namespace
        return Inquiry(
            asked, rules, core.settings, namespace, passing, core.policy.also_answered_by(asked.request.method)
        )
