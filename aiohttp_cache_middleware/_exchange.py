"""One request on its path: what it asks of the cache, and what has been found out since."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest

    from ._inquiries import Inquiry
    from ._model import Entry, Rules
    from ._request import Asked
    from ._scope import RequestScope


class Exchange:
    """
    A request on its path.

    Attributes:
        request: aiohttp's request; `handler` takes it towards the origin.
        inquiry: What it asks of the cache.
        asked: What the cache knows of the request.
        scope: The caller's call it belongs to, where a TraceConfig of ours told.
        entry: What stood under its key when that was looked up.
        has_waited: Whether it has waited for another request's response, which it does once.
        waited_in_vain: Whether that response was still under way when waiting for it had become too long.
        is_collapsed: Whether another request brought what answers it (RFC 9211 §2.6).
        is_background: Whether it is a refresh of ours that no caller waits for.
    """

    # Defaults of the class, not of a dataclass: most requests change none of them, and each costs a hit its time.
    entry: Entry | None = None
    has_waited: bool = False
    waited_in_vain: bool = False
    is_collapsed: bool = False
    is_background: bool = False

    def __init__(
        self, inquiry: Inquiry, request: ClientRequest, handler: ClientHandlerType, scope: RequestScope | None
    ) -> None:
        self.inquiry = inquiry
        self.asked: Asked = inquiry.asked
        self.request = request
        self.handler = handler
        self.scope = scope

    @property
    def rules(self) -> Rules:
        """The options in force."""
        return self.inquiry.rules

    @property
    def key(self) -> str:
        """Primary key; empty where there is no store to look into."""
        return self.inquiry.key

    @property
    def secret(self) -> bytes:
        """The store's secret."""
        return self.inquiry.secret

    def is_answered_by_another(self) -> None:
        """Note that what is stored was fetched while this request waited: it is as new as if fetched for it."""
        self.is_collapsed = True
        if self.rules.refresh:
            self.inquiry = copy(self.inquiry)
            self.inquiry.rules = self.rules._replace(refresh=False)

    def in_background(self, request: ClientRequest) -> Exchange:
        """Give the same for *request*, which nobody waits for."""
        background = Exchange(self.inquiry, request, self.handler, None)
        background.entry = self.entry
        background.has_waited = self.has_waited
        background.is_background = True
        return background
