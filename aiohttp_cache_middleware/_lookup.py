"""From a request to the stored responses that might answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._key import primary_key
from ._model import StoredResponse, VariantIndex
from ._policy import selects

if TYPE_CHECKING:
    from ._core import Core
    from ._exchange import Inquiry
    from ._model import Entry


class Lookup:
    """Gives requests their keys, and finds what is stored under them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def look_up(self, inquiry: Inquiry) -> list[StoredResponse]:
        """Give the stored responses that might answer; without a store, none."""
        core = self._core
        if not (inquiry.key or self.has_key(inquiry)):
            await core.guarded.secret()
            if not self.has_key(inquiry):
                return []
        entry = inquiry.entry = await core.guarded.get(inquiry.key)
        found = [entry] if isinstance(entry, StoredResponse) else await self.responses(inquiry, entry)
        for method in core.policy.also_answered_by(inquiry.asked.request.method):
            found += await self.responses(inquiry, await core.guarded.get(self.key(inquiry, method)))
        return found

    async def responses(self, inquiry: Inquiry, entry: Entry | None) -> list[StoredResponse]:
        """Give the responses of *entry*: those that ``Vary`` selects or, where it selects none, all of them."""
        if not isinstance(entry, VariantIndex):
            return [] if entry is None else [entry]
        headers = inquiry.asked.request.headers
        selected = [one for one in entry.variants if selects(one.vary, headers, inquiry.secret)]
        found = [await self._core.guarded.get(one.key) for one in selected or entry.variants]
        return [one for one in found if isinstance(one, StoredResponse)]

    def has_key(self, inquiry: Inquiry) -> bool:
        """Give the request its key, if the store has told its secret."""
        secret = self._core.guarded.known_secret
        if secret is None:
            return False
        inquiry.secret = secret
        inquiry.key = self.key(inquiry)
        return True

    def key(self, inquiry: Inquiry, method: str | None = None) -> str:
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
