"""The threads of a store: each runs its work in order."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

IDLE: Final = 2.0
"""Seconds without work after which the thread ends; so a store that is forgotten leaves none behind."""
DEADLINE = 0.25
"""Seconds that a lookup waits for a lane, to open the store or a body."""
QUEUEING: Final = 2.0
"""Seconds that a lookup waits for a lane which gets on with what others have asked for before."""


class Lane:
    """
    Runs jobs one after the other in a daemon thread, which is there only while there is work.

    A finalizer may queue a job, and it may run at any time: in the middle of any of these methods, in this thread and
    in others. So who queues a job never waits for a lock.

    Args:
        name: Name of the thread.
        owner: Kept while there is work, so that the interpreter's end and a fork find it.

    Attributes:
        at_end: Run in the thread when it ends, to give back what belongs to it.
        done: How many jobs have been done.
        is_paused: Whether it is in the middle of nothing, and stays so.
    """

    def __init__(self, name: str, owner: object) -> None:
        self._name = name
        self._owner = weakref.ref(owner)
        self.at_end: weakref.WeakMethod[Callable[[], object]] | None = None
        self._jobs: SimpleQueue[tuple[Callable[[], object], object]] = SimpleQueue()  # its `put` is reentrant
        self._changing = threading.Lock()  # held while the thread is made or ends
        self._at_work = threading.Lock()
        self._may_work = threading.Event()
        self._may_work.set()
        self.done = 0
        self.is_paused = False
        self._thread: threading.Thread | None = None
        self._last_thread: threading.Thread | None = None
        self._hurries = False  # to its end; only the thread changes it

    def run(self, job: Callable[[], object]) -> None:
        """Queue *job*, which must not raise."""
        self._jobs.put((job, self._owner()))
        self._ensure_thread()

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

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that takes jobs."""
        return self._thread is not None

    @property
    def is_alive(self) -> bool:
        """Whether the system still has a thread of it."""
        return self._last_thread is not None and self._last_thread.is_alive()

    def is_current(self) -> bool:
        """Tell whether the caller runs in this lane."""
        return self._thread is threading.current_thread()

    def pause(self, timeout: float) -> bool:
        """Wait for the job under way and let none begin until `resume`; tell whether it ended in *timeout* seconds."""
        if self.is_current():
            return False
        self._may_work.clear()  # the lock alone goes to whoever has just had it: half a second's wait under load
        self.is_paused = self._at_work.acquire(timeout=timeout)
        if not self.is_paused:
            self._may_work.set()
        return self.is_paused

    def resume(self) -> None:
        """Go on after a `pause`."""
        self.is_paused = False
        self._at_work.release()
        self._may_work.set()

    def end(self) -> None:
        """Have the thread end as soon as there is no more to do, rather than wait for more."""
        if self.is_running:
            self._jobs.put((self._hurry, None))

    def stop(self, timeout: float) -> bool:
        """End the thread when what is queued has been done; tell whether it ended within *timeout* seconds."""
        thread = self._thread
        if thread is None:
            return True
        self.end()
        thread.join(timeout)
        return not thread.is_alive()

    def _ensure_thread(self) -> None:
        # Who finds the lock taken leaves it to its holder, who looks again once it is free.
        while self._thread is None and not self._jobs.empty() and self._changing.acquire(blocking=False):
            try:
                if not self.is_running and not self._starts_thread():
                    self._work_without_thread()
            finally:
                self._changing.release()

    def _starts_thread(self) -> bool:
        """Start the thread, if it can be: at the interpreter's end Python 3.12 refuses, 3.11 waits for ever."""
        if sys.is_finalizing():
            return False
        # daemon: a lane that is stuck behind a lock must not keep the process from exiting.
        self._thread = self._last_thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = self._last_thread = None
        return self._thread is not None

    def _work(self) -> None:
        try:
            while True:
                if (work := self._next()) is not None:
                    self._do(work[0])
                    del work  # what it refers to may be waiting to go
                elif self._ends():
                    break
        except BaseException:
            self._thread = None  # the next job finds another one
            raise
        self._ensure_thread()  # for what was queued meanwhile

    def _next(self) -> tuple[Callable[[], object], object] | None:
        with suppress(Empty):
            return self._jobs.get(timeout=0 if self._hurries else IDLE)
        return None

    def _ends(self) -> bool:
        """Give back what belongs to the thread, and end unless there is more to do."""
        self._hurries = False
        self._do_at_end()
        with self._changing:
            if not self._jobs.empty():
                return False
            self._thread = None
            return True

    def _work_without_thread(self) -> None:
        """Do what is queued here and now, rather than lose it."""
        with suppress(Empty):
            while True:
                self._do(self._jobs.get_nowait()[0])
        self._do_at_end()

    def _do_at_end(self) -> None:
        if self.at_end is not None and (at_end := self.at_end()) is not None:
            self._do(at_end)

    def _do(self, job: Callable[[], object]) -> None:
        if not self._may_work.is_set():
            self._may_work.wait()
        with self._at_work:
            job()
            self.done += 1

    def _hurry(self) -> None:
        self._hurries = True


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

    def end(self) -> None:
        """Have all threads end as soon as there is no more to do."""
        for lane in (self.writer, self.opener, self.files):
            lane.end()

    @property
    def are_running(self) -> bool:
        """Whether the system still has a thread of one of them."""
        return self.writer.is_alive or self.opener.is_alive or self.files.is_alive

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


async def in_turn(lane: Lane, future: Future[T]) -> T:
    """
    Await *future*, of a job that *lane* comes to: not while it stands still, nor for longer than `QUEUEING`.

    Raises:
        asyncio.TimeoutError: It is not done by then, or the lane has done nothing at all for `DEADLINE` seconds.
    """
    began = time.monotonic()
    while True:
        done = lane.done
        try:
            return await in_time(future, time.monotonic())
        except asyncio.TimeoutError:
            if lane.done == done or time.monotonic() - began >= QUEUEING:
                raise
