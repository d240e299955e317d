"""From aiohttp's request to what it asks of the cache; worked out once for requests that are alike."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ._options import in_force
from ._policy import Forward
from ._request import Asked, Uncacheable, is_asked_again, snapshot_request

if TYPE_CHECKING:
    from aiohttp import ClientRequest
    from yarl import URL

    from ._core import Core
    from ._model import Rules
    from ._options import CacheOptions, Settings

REMEMBERED: Final = 2048
"""Inquiries kept: 12 µs of a hit's work are done once for each of them."""


class Inquiry:
    """
    What a request asks of the cache; shared by all requests that ask the same.

    Attributes:
        asked: What the cache knows of the request.
        rules: The options in force for it.
        settings: The cache's options that they came from.
        namespace: The namespace in force for it.
        passing: Why it does not concern the cache; ``None`` where it does.
        other_methods: Methods whose stored responses may answer it too.
        key: Primary key; empty while the store has not told its secret.
        secret: The store's secret that `key` was made with.
        is_plain: Whether it may be remembered, and is not yet.
    """

    key: str = ""
    secret: bytes = b""
    is_plain: bool = False

    def __init__(
        self,
        asked: Asked,
        rules: Rules,
        settings: Settings,
        namespace: str,
        passing: Forward | None,
        other_methods: tuple[str, ...],
    ) -> None:
        self.asked = asked
        self.rules = rules
        self.settings = settings
        self.namespace = namespace
        self.passing = passing
        self.other_methods = other_methods


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
