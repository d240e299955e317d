"""The first rule: whatever happens to the store, a request goes on as if there were no cache."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ._errors import StoreError

if TYPE_CHECKING:
    from ._model import BodyRef, Entry
    from ._stats import Counters
    from ._stores import BodyReader, BodySpool, Store, Use

logger = logging.getLogger("aiohttp_cache_middleware")


class GuardedStore:
    """
    What the path of a request sees of the store: the same questions, and never an exception.

    A failure is an answer ("not there", "not accepted"), a count, and one warning per cause.
    """

    def __init__(self, store: Store, counters: Counters) -> None:
        self._store = store
        self._counters = counters
        self._warned: set[str] = set()

    @property
    def known_secret(self) -> bytes | None:
        """The store's secret; ``None``: the store is not open (yet)."""
        try:
            return self._store.known_secret
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return None

    @property
    def is_open(self) -> bool:
        """Whether `peek` finds all there is."""
        return self._store.is_open

    @property
    def is_opening(self) -> bool:
        """Whether the store may soon be open."""
        try:
            return self._store.is_opening
        except Exception as error:  # noqa: BLE001 (the first rule)
            self.failed(error)
            return False

    async def secret(self) -> bytes | None:
        """Open the store and give the store's secret; ``None``: there is no store to speak of."""
        try:
            return await self._store.secret()
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return None

    async def wait_until_open(self, seconds: float) -> None:
        """Give a store that is being opened *seconds* more."""
        try:
            await asyncio.wait_for(self._store.secret(patient=True), seconds)
        except asyncio.TimeoutError:
            self.failed(StoreError("opening takes too long"))
        except Exception as error:  # noqa: BLE001
            self.failed(error)

    def peek(self, key: str) -> Entry | None:
        """Give the entry if it can be had without waiting, ``None`` if it can't; read on the calling thread."""
        try:
            return self._store.peek(key)
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return None

    def put(
        self, key: str, entry: Entry, *, tag: str, is_kept_stale: bool = True, spool: BodySpool | None = None
    ) -> bool:
        """Tell whether the entry was accepted."""
        try:
            return self._store.put(key, entry, tag=tag, is_kept_stale=is_kept_stale, spool=spool)
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return False

    def delete(self, key: str) -> None:
        """Remove an entry if it can be done."""
        try:
            self._store.delete(key)
        except Exception as error:  # noqa: BLE001
            self.failed(error)

    async def tagged(self, tag: str) -> list[str]:
        """Give the keys put with *tag*, as far as they can be had."""
        try:
            return await self._store.tagged(tag)
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return []

    async def open_body(self, key: str, body: BodyRef) -> BodyReader | None:
        """Open a large body; ``None`` if it can't be had whole."""
        try:
            return await self._store.open_body(key, body)
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return None

    def spool(self) -> BodySpool | None:
        """Make room for a large body; ``None`` if there is none."""
        try:
            return self._store.spool()
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return None

    def claim(self, key: str) -> bool:
        """Claim *key*; where it can't be done, nobody waits."""
        try:
            return self._store.claim(key)
        except Exception as error:  # noqa: BLE001
            self.failed(error)
            return True

    def unclaim(self, key: str) -> None:
        """Take back a claim."""
        try:
            self._store.unclaim(key)
        except Exception as error:  # noqa: BLE001
            self.failed(error)

    async def end(self, use: Use) -> None:
        """End the *use* of the store; what could not be kept is told in a warning."""
        try:
            await use.end()
        except Exception as error:  # noqa: BLE001
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Take note of a failure, which is never the caller's."""
        self._counters.store_errors += 1
        cause = error.cause if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        if cause in self._warned:
            logger.debug("the cache failed again: %s", cause)
        else:
            self._warned.add(cause)
            logger.warning(
                "the cache failed, requests go on without it: %s, %r",
                cause,
                self._store,
                exc_info=None if isinstance(error, StoreError) else error,
            )
