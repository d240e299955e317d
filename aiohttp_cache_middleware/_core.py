"""What belongs together in one cache: its settings, its store, its counters."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._flights import Flights
from ._guard import GuardedStore
from ._key import stored_url
from ._policy import Policy, policy_for
from ._request import bare_url
from ._stats import Counters
from ._stores import Use

if TYPE_CHECKING:
    from aiohttp import ClientRequest

    from ._options import Settings
    from ._stores import Store


def posix_time() -> float:
    """Give the time; `time.time` is looked up at each call, so that who replaces it is obeyed."""
    return time.time()


class Core:
    """
    The parts of a cache.

    Attributes:
        settings: The options; replaced as a whole when one is set later.
        store: The store itself, for management: its errors are the caller's to see.
        guarded: The same store for requests, which never see an error.
        use: What of it ends when the cache is closed: others may share the store.
        clock: POSIX time, in seconds.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.clock: Callable[[], float] = posix_time
        self.counters = Counters()
        self.flights = Flights()
        self.guarded = GuardedStore(store, self.counters)
        self.use = Use(store)
        self.policy: Policy = policy_for(http=settings.cache_control)

    def shown_url(self, request: ClientRequest) -> str:
        """Give a request's URL as it may be logged."""
        return stored_url(bare_url(request.url), self.settings.ignored_params)
