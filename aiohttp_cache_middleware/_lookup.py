"""From a request to the stored responses that might answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._key import primary_key
from ._model import StoredResponse, VariantIndex
from ._policy import selects

if TYPE_CHECKING:
    from ._core import Core
    from ._inquiries import Inquiry
    from ._model import Entry

_LOOKS = 5  # into a store that is closed under each of them


class Lookup:
    """Gives requests their keys, and finds what is stored under them; reads on the calling thread."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def make_ready(self, inquiry: Inquiry) -> bool:
        """Open the store, if that can be done in time, and give the request its key; without a store it has none."""
        is_open = await self._core.guarded.secret() is not None
        return self.has_key(inquiry) and is_open

    def entry_at_once(self, inquiry: Inquiry) -> Entry | None:
        """Give what stands under the request's key, as far as that can be told without waiting."""
        return self.entry(inquiry) if self.has_key(inquiry) else None

    async def entry_once_open(self, inquiry: Inquiry) -> Entry | None:
        """Open the store and give what stands under the request's key; again, if another user closes it in between."""
        for _ in range(_LOOKS):
            is_open = await self.make_ready(inquiry)
            entry = self.entry(inquiry)
            if entry is not None or not is_open or self._core.guarded.is_open:
                return entry
        return None

    def entry(self, inquiry: Inquiry, method: str | None = None) -> Entry | None:
        """Give what stands under the request's key, or under that of the same request with *method*."""
        if not inquiry.key:
            return None
        return self._core.guarded.peek(inquiry.key if method is None else self.key(inquiry, method))

    def candidates(self, inquiry: Inquiry, entry: Entry | None) -> list[StoredResponse]:
        """Give the stored responses that might answer, of which *entry* stands under the request's key."""
        found = [entry] if isinstance(entry, StoredResponse) else self.responses(inquiry, entry)
        for method in inquiry.other_methods:
            found += self.responses(inquiry, self.entry(inquiry, method))
        return found

    def responses(self, inquiry: Inquiry, entry: Entry | None) -> list[StoredResponse]:
        """Give the responses of *entry*: those that ``Vary`` selects or, where it selects none, all of them."""
        if not isinstance(entry, VariantIndex):
            return [] if entry is None else [entry]
        headers = inquiry.asked.request.headers
        selected = [one for one in entry.variants if selects(one.vary, headers, inquiry.secret)]
        found = [self._core.guarded.peek(one.key) for one in selected or entry.variants]
        return [one for one in found if isinstance(one, StoredResponse)]

    def selected(self, inquiry: Inquiry, method: str | None = None) -> list[StoredResponse]:
        """Give the stored responses that ``Vary`` selects, of the request or of the same one with *method*."""
        headers = inquiry.asked.request.headers
        found = self.responses(inquiry, self.entry(inquiry, method))
        return [one for one in found if selects(one.vary, headers, inquiry.secret)]

    def has_key(self, inquiry: Inquiry) -> bool:
        """Give the request its key, if the store has told its secret."""
        secret = self._core.guarded.known_secret
        if secret is None:
            return False
        if inquiry.secret is not secret:
            # The key first: other threads may share the inquiry, and go by the secret.
            inquiry.key = self._key(inquiry, secret)
            inquiry.secret = secret
        return True

    def key(self, inquiry: Inquiry, method: str | None = None) -> str:
        """Give the request's key, or that of the same request with *method*."""
        return self._key(inquiry, inquiry.secret, method)

    def _key(self, inquiry: Inquiry, secret: bytes, method: str | None = None) -> str:
        settings = self._core.settings
        return primary_key(
            inquiry.asked,
            method=method,
            namespace=inquiry.namespace,
            ignored_params=settings.ignored_params,
            include_headers=settings.include_headers,
            with_range=self._core.policy.keeps_ranges_apart(inquiry.rules),
            secret=secret,
        )
