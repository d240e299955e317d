"""One thread that runs the store's work in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

T = TypeVar("T")

IDLE: Final = 2.0
"""Seconds without work after which the thread ends; so a store that is forgotten leaves none behind."""


class Lane:
    """
    Runs jobs one after the other in a daemon thread, which is there only while there is work.

    Args:
        name: Name of the thread.
        at_end: Run in the thread when it ends, to give back what belongs to it.
    """

    def __init__(self, name: str, at_end: Callable[[], object] | None = None) -> None:
        self._name = name
        self._at_end = at_end
        self._jobs: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._at_work = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def run(self, job: Callable[[], object]) -> None:
        """Queue *job*, which must not raise."""
        with self._changed:
            self._jobs.append(job)
            if self._thread is None:
                # daemon: a lane that is stuck behind a lock must not keep the process from exiting.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

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
        return not self.is_current() and self._at_work.acquire(timeout=timeout)

    def resume(self) -> None:
        """Go on after a `pause`."""
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

    def _work(self) -> None:
        while True:
            while (job := self._next()) is not None:
                try:
                    with self._at_work:
                        job()
                except BaseException:
                    with self._changed:
                        self._thread = None  # the next job finds another one
                    raise
                del job  # what it refers to may be waiting to go
            if self._at_end is not None:
                with self._at_work:
                    self._at_end()
            with self._changed:
                if not self._jobs:
                    self._thread = None
                    return

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            if not self._jobs and not self._stopping:
                self._changed.wait_for(lambda: self._jobs or self._stopping, IDLE)
            return self._jobs.popleft() if self._jobs else None
