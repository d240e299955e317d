"""What all stores of a process go through together: its end, and its forks."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from typing import Final, Protocol

from ._lane import Lane

CLOSING: Final = 10.0
"""Seconds that closing and the interpreter's exit wait for what is queued."""
FORKING: Final = 0.25
"""Seconds that a fork waits for what the threads are at."""


class _Store(Protocol):
    """A store with threads."""

    def close_now(self, timeout: float) -> bool:
        """Write what is queued and give back everything, within *timeout* seconds."""

    def _pause_lanes(self, deadline: float) -> list[Lane]:
        """Have no thread in the middle of a job; give those that wait now, by *deadline* (monotonic)."""

    def _begin_anew(self) -> None:
        """In a child process: threads, locks and connections are the parent's."""


_stores: weakref.WeakSet[_Store] = weakref.WeakSet()
_paused: list[Lane] = []  # while the process forks


def remember(store: _Store) -> None:
    """Have *store* take part, for as long as somebody refers to it; its lanes do while they have work."""
    _stores.add(store)


def _close_all() -> None:
    """At exit: give every store its chance to write, all together within `CLOSING` seconds."""
    deadline = time.monotonic() + CLOSING
    for store in list(_stores):
        store.close_now(max(0.1, deadline - time.monotonic()))


def _pause_all() -> None:
    """Before a fork: locks inside SQLite that a thread holds then would be locked in the child for ever."""
    deadline = time.monotonic() + FORKING
    for store in list(_stores):
        _paused.extend(store._pause_lanes(deadline))  # noqa: SLF001 (not for users of a store)


def _resume_all() -> None:
    while _paused:
        _paused.pop().resume()


def _begin_anew_all() -> None:
    _paused.clear()
    for store in list(_stores):
        store._begin_anew()  # noqa: SLF001 (not for users of a store)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause_all, after_in_parent=_resume_all, after_in_child=_begin_anew_all)
