"""Requests on their way to the origin: one in flight per key, and refreshes in the background."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ._guard import logger

if TYPE_CHECKING:
    from ._guard import GuardedStore

FOLLOWER_PATIENCE = 5.0
"""Seconds after its start beyond which nobody waits for a flight: he goes to the origin himself."""

URGE_INTERVAL = 0.05
"""Seconds between two looks at how a body comes on for which others wait."""

UNCACHEABLE_MEMORY = 10.0
"""Seconds for which a key whose response could not be stored is not waited for (hit-for-miss)."""

UNCACHEABLE_KEYS = 4096
"""Keys remembered so."""

INVALIDATED_URLS = 4096
"""URLs remembered of which what was under way is out of date."""

ELSEWHERE_PATIENCE = 2.0
"""Seconds for which a process waits for what another one is fetching."""

ELSEWHERE_INTERVAL = 0.01
"""Seconds between two looks at what another process is fetching; doubled up to ten times this."""

MAX_BACKGROUND = 64
"""Refreshes in the background at a time, per loop; beyond, the stale response is served without one."""

clock = time.monotonic


class Flight:
    """
    One request on its way, and those who wait for what it brings.

    It keeps nothing of the leader's alive: a response that he drops takes the flight down with it.

    Attributes:
        key: What the requests that may wait for it have in common.
        is_given_up: Whether waiting for it has proved too long.
        leads_on: Whether it has brought a redirect, which is stored once it has led to something.
    """

    __slots__ = ("_landed", "_on_landing", "_urging", "_urgings", "is_given_up", "key", "leader", "leads_on", "started")

    def __init__(self, key: str, on_landing: Callable[[Flight], None]) -> None:
        self.key = key
        task = asyncio.current_task()
        self.leader = None if task is None else weakref.ref(task)
        self.started = clock()
        self.is_given_up = False
        self.leads_on = False
        self._landed: asyncio.Future[bool] | None = None  # until somebody waits
        self._on_landing: Callable[[Flight], None] | None = on_landing
        self._urgings: weakref.WeakMethod[Callable[[], bool]] | None = None
        self._urging: asyncio.TimerHandle | None = None

    def land(self, *, stored: bool) -> None:
        """End the flight, for all who wait at once; a second landing counts for nothing."""
        if self._on_landing is not None:
            on_landing, self._on_landing = self._on_landing, None
            if self._urging is not None:
                self._urging.cancel()
            on_landing(self)
            landed = self._landed
            if landed is not None and not landed.done() and not landed.get_loop().is_closed():
                landed.set_result(stored)

    @property
    def has_followers(self) -> bool:
        """Whether somebody waits, or has waited."""
        return self._landed is not None

    def when_followed(self, hurry: Callable[[], bool]) -> None:
        """
        Have *hurry* called again and again while somebody waits.

        Args:
            hurry: A method, which is not kept alive; tells whether waiting is still worth while.
        """
        self._urgings = weakref.WeakMethod(hurry)
        if self.has_followers:
            self._urge()

    def may_be_followed(self) -> bool:
        """
        Tell whether waiting is safe.

        A task that waits for itself would wait for ever: it may hold the leader's response, unread.
        """
        leader = None if self.leader is None else self.leader()
        is_own = leader is not None and leader is asyncio.current_task()
        return not is_own and clock() < self.started + FOLLOWER_PATIENCE

    async def wait(self) -> bool:
        """
        Wait for the landing, as long as is reasonable; tell whether the response has been stored.

        Only of a flight that `Flights.get` gave just now, which is under way.
        """
        landed = self._landed
        if landed is None:
            landed = self._landed = asyncio.get_running_loop().create_future()
            self._urge()
        remaining = self.started + FOLLOWER_PATIENCE - clock()
        await asyncio.wait((landed,), timeout=max(0.0, remaining))
        self.is_given_up |= not landed.done()
        return landed.done() and landed.result()

    def _urge(self) -> None:
        hurry = None if self._urgings is None else self._urgings()
        if self._urging is not None:
            self._urging.cancel()
        if hurry is None or self._on_landing is None:
            return
        if hurry():
            self._urging = asyncio.get_running_loop().call_later(URGE_INTERVAL, self._urge)
        else:
            self.is_given_up = True
            self.land(stored=False)


class _LoopState:
    """What belongs to one event loop."""

    __slots__ = ("flights", "refreshes", "works")

    def __init__(self) -> None:
        self.flights: dict[str, Flight] = {}
        self.refreshes: dict[str, asyncio.Task[None]] = {}
        self.works: set[asyncio.Task[None]] = set()


class Flights:
    """All flights of a cache, by loop and key."""

    def __init__(self) -> None:
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = weakref.WeakKeyDictionary()
        self._uncacheable: OrderedDict[str, float] = OrderedDict()
        self._invalidated: OrderedDict[str, float] = OrderedDict()
        self._waits_elsewhere_from = 0.0  # monotonic time before which nobody waits for another process

    def get(self, key: str) -> Flight | None:
        """Give the flight for *key* if there is one that may be waited for."""
        flight = self._here().flights.get(key)
        return flight if flight is not None and flight.may_be_followed() else None

    def lead(self, key: str, landed: Callable[[], None]) -> Flight:
        """
        Start a flight for *key*; one that is under way goes on for those who wait for it.

        Args:
            landed: Called when it lands.
        """
        flights = self._here().flights

        def forget(flight: Flight) -> None:
            if flights.get(key) is flight:
                del flights[key]
            landed()

        flight = Flight(key, forget)
        flights[key] = flight
        return flight

    def is_uncacheable(self, key: str) -> bool:
        """Tell whether the response for *key* lately proved uncacheable."""
        until = self._uncacheable.get(key)
        return until is not None and clock() < until

    def note_uncacheable(self, key: str) -> None:
        """Remember that nobody should wait for *key*."""
        self._uncacheable.pop(key, None)  # the newest last; in one step each, as loops in other threads do the same
        self._uncacheable[key] = clock() + UNCACHEABLE_MEMORY
        while len(self._uncacheable) > UNCACHEABLE_KEYS:
            self._uncacheable.popitem(last=False)

    def note_cacheable(self, key: str) -> None:
        """Forget what `note_uncacheable` noted."""
        self._uncacheable.pop(key, None)

    def note_invalidated(self, tag: str) -> None:
        """Remember that an unsafe request has changed what the URL of *tag* has: what is under way may be older."""
        self._invalidated.pop(tag, None)  # as in `note_uncacheable`
        self._invalidated[tag] = clock()
        while len(self._invalidated) > INVALIDATED_URLS:
            self._invalidated.popitem(last=False)

    def is_outdated(self, flight: Flight, tag: str) -> bool:
        """Tell whether the URL of *tag* has been invalidated since *flight* started."""
        moment = self._invalidated.get(tag)
        return moment is not None and flight.started <= moment

    async def wait_elsewhere(self, store: GuardedStore, key: str) -> bool:
        """
        Wait while another process asks the origin for *key*, for a bounded time.

        Returns:
            Whether there was one to wait for: then it is worth looking into the store again. If not, *key* is claimed,
            unless nobody waits for other processes just now.
        """
        if store.claim(key) or clock() < self._waits_elsewhere_from:
            return False
        deadline = clock() + ELSEWHERE_PATIENCE
        interval = ELSEWHERE_INTERVAL
        while clock() < deadline:
            await asyncio.sleep(interval)
            if store.claim(key):
                # What the other one brought is probably there: nobody asks now.
                store.unclaim(key)
                return True
            interval = min(interval * 2, ELSEWHERE_INTERVAL * 10)
        # Not for this key again, nor for a while for any: perhaps what is fetched elsewhere can't be written.
        self.note_uncacheable(key)
        self._waits_elsewhere_from = clock() + UNCACHEABLE_MEMORY
        return True

    def refresh(self, key: str, refresh: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *refresh* in the background, unless one for *key* runs or there are too many."""
        refreshes = self._here().refreshes
        if key in refreshes or len(refreshes) >= MAX_BACKGROUND:
            return
        task = asyncio.get_running_loop().create_task(refresh())
        refreshes[key] = task

        def done(task: asyncio.Task[None]) -> None:
            refreshes.pop(key, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.debug("a refresh in the background failed: %r", error)

        task.add_done_callback(done)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run short work that must not get lost; `aclose` waits for it."""
        works = self._here().works
        task = asyncio.get_running_loop().create_task(work)
        works.add(task)
        task.add_done_callback(works.discard)

    async def aclose(self, patience: float) -> None:
        """Wait for this loop's background refreshes, *patience* seconds at most; then cancel them."""
        here = self._here()
        tasks = [*here.refreshes.values(), *here.works]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=patience)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _here(self) -> _LoopState:
        loop = asyncio.get_running_loop()
        state = self._loops.get(loop)
        if state is None:
            state = self._loops[loop] = _LoopState()
        return state
