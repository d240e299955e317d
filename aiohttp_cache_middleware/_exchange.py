"""One request on its path, and what has been found out about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest

    from ._model import Entry, Rules
    from ._request import Asked
    from ._scope import RequestScope


@dataclass(slots=True, eq=False, kw_only=True)
class Inquiry:
    """
    A question to the store.

    Attributes:
        asked: What the cache knows of the request.
        rules: The options in force for it.
        namespace: The namespace in force for it.
        key: Primary key; empty where there is no store to look into.
        secret: The store's secret.
        entry: What stood under the key when it was looked up.
    """

    asked: Asked
    rules: Rules
    namespace: str
    key: str = ""
    secret: bytes = b""
    entry: Entry | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Exchange(Inquiry):
    """
    A request on its path.

    Attributes:
        request: aiohttp's request; `handler` takes it towards the origin.
        scope: The caller's call it belongs to, where a TraceConfig of ours told.
        has_waited: Whether it has waited for another request's response, which it does once.
        is_collapsed: Whether another request brought what answers it (RFC 9211 §2.7).
        is_background: Whether it is a refresh of ours that no caller waits for.
    """

    request: ClientRequest
    handler: ClientHandlerType
    scope: RequestScope | None = None
    has_waited: bool = False
    is_collapsed: bool = False
    is_background: bool = False
