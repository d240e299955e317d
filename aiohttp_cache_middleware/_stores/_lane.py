"""The threads of a store: each runs its work in order."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

T = TypeVar("T")

IDLE: Final = 2.0
"""Seconds without work after which the thread ends; so a store that is forgotten leaves none behind."""
DEADLINE = 0.25
"""Seconds that a lookup waits for a lane, to open the store or a body."""


class Lane:
    """
    Runs jobs one after the other in a daemon thread, which is there only while there is work.

    Args:
        name: Name of the thread.
        owner: Kept while there is work, so that the interpreter's end and a fork find it.

    Attributes:
        at_end: Run in the thread when it ends, to give back what belongs to it.
        is_paused: Whether it is in the middle of nothing, and stays so.
    """

    def __init__(self, name: str, owner: object) -> None:
        self._name = name
        self._owner = weakref.ref(owner)
        self.at_end: weakref.WeakMethod[Callable[[], object]] | None = None
        self._jobs: deque[tuple[Callable[[], object], object]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._at_work = threading.Lock()
        self.is_paused = False
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._has_no_thread = False  # while the caller of `run` does the work

    def run(self, job: Callable[[], object]) -> None:
        """Queue *job*, which must not raise."""
        with self._changed:
            self._jobs.append((job, self._owner()))
            if self._thread is not None or self._has_no_thread:
                self._changed.notify()
                return
            self._has_no_thread = not self._starts_thread()
            if not self._has_no_thread:
                return
        self._work_without_thread()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue *job*; what it returns or raises comes by the future."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 (whatever it is belongs to whoever waits)
                future.set_exception(error)
            else:
                future.set_result(result)

        self.run(work)
        return future

    def is_current(self) -> bool:
        """Tell whether the caller runs in this lane."""
        return self._thread is threading.current_thread()

    def pause(self, timeout: float) -> bool:
        """Wait for the job under way and let none begin until `resume`; tell whether it ended in *timeout* seconds."""
        self.is_paused = not self.is_current() and self._at_work.acquire(timeout=timeout)
        return self.is_paused

    def resume(self) -> None:
        """Go on after a `pause`."""
        self.is_paused = False
        self._at_work.release()

    def stop(self, timeout: float) -> bool:
        """End the thread when what is queued has been done; tell whether it ended within *timeout* seconds."""
        with self._changed:
            thread, self._stopping = self._thread, True
            self._changed.notify()
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            self._stopping = False
        return thread is None or not thread.is_alive()

    def _starts_thread(self) -> bool:
        """Start the thread, if it can be: at the interpreter's end Python 3.12 refuses, 3.11 waits for ever."""
        if sys.is_finalizing():
            return False
        # daemon: a lane that is stuck behind a lock must not keep the process from exiting.
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
        return self._thread is not None

    def _work(self) -> None:
        while True:
            while (work := self._next()) is not None:
                try:
                    with self._at_work:
                        work[0]()
                except BaseException:
                    with self._changed:
                        self._thread = None  # the next job finds another one
                    raise
                del work  # what it refers to may be waiting to go
            if self.at_end is not None and (at_end := self.at_end()) is not None:
                with self._at_work:
                    at_end()
                del at_end
            with self._changed:
                if not self._jobs:
                    self._thread = None
                    return

    def _work_without_thread(self) -> None:
        """Do what is queued here and now, rather than lose it."""
        try:
            while self._jobs:
                with self._at_work:
                    self._jobs.popleft()[0]()
            if self.at_end is not None and (at_end := self.at_end()) is not None:
                at_end()
        finally:
            self._has_no_thread = False

    def _next(self) -> tuple[Callable[[], object], object] | None:
        with self._changed:
            if not self._jobs and not self._stopping:
                self._changed.wait_for(lambda: self._jobs or self._stopping, IDLE)
            return self._jobs.popleft() if self._jobs else None


class Lanes:
    """
    The threads of one store, *owner*.

    Attributes:
        writer: Changes rows; may wait for both others.
        files: Reads and writes large bodies; may wait for the opener.
        opener: Opens the store; waits for none.
    """

    def __init__(self, owner: object) -> None:
        self.writer = Lane("http-cache-writer", owner)
        self.files = Lane("http-cache-files", owner)
        self.opener = Lane("http-cache-opener", owner)

    def pause(self, deadline: float) -> list[Lane]:
        """Have no thread in the middle of a job; give those that wait now, by *deadline* (monotonic)."""
        # Whoever may wait for another comes before it.
        lanes = (self.writer, self.files, self.opener)
        return [lane for lane in lanes if lane.pause(max(0.0, deadline - time.monotonic()))]

    def stop(self, deadline: float) -> bool:
        """End all threads when what is queued has been done; tell whether they ended by *deadline* (monotonic)."""
        # The writer first: it waits for bodies to land, and leaves what it lets go to the opener.
        lanes = (self.writer, self.opener, self.files)
        return all(lane.stop(max(0.0, deadline - time.monotonic())) for lane in lanes)


async def in_time(future: Future[T], began: float, deadline: float | None = None) -> T:
    """
    Await *future* until *deadline* seconds (by default `DEADLINE`) after *began* (monotonic), and let it go on then.

    Raises:
        asyncio.TimeoutError: It is not done by then.
    """
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    seconds = DEADLINE if deadline is None else deadline
    await asyncio.wait((waiting,), timeout=max(0.0, began + seconds - time.monotonic()))
    # A busy loop hears of the deadline and of what came long before it at the same time.
    if not future.done():
        raise asyncio.TimeoutError
    return future.result()
