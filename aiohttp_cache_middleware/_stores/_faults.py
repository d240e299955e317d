"""What an exception of SQLite, diskcache or the file system means for the store, and for how long."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from typing import Final

from .._errors import StoreError

# By message: sqlite_errorcode came with Python 3.11, and diskcache's own errors have none.
_DAMAGE: Final = (
    "file is not a database",
    "database disk image is malformed",
    "malformed database schema",
    "no such table",
    "no such column",
    "file is encrypted or is not a database",
)
_KNOWN: Final = (
    *_DAMAGE,
    "database is locked",
    "database table is locked",
    "disk I/O error",
    "database or disk is full",
    "attempt to write a readonly database",
    "unable to open database file",
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0  # seconds between attempts on a store that fails


class DamagedError(Exception):
    """The store on disk is not one that we made; it is set aside."""


class Refused(OSError):  # noqa: N818 (named for what happened; an OSError, so that diskcache's get() takes it as a miss)
    """A row asks for something that our stores never hold: a pickle, or a file outside the directory."""


def is_damage(error: BaseException) -> bool:
    """Tell whether *error* means that the database itself is unusable, rather than busy, full or forbidden."""
    if isinstance(error, DamagedError):
        return True
    return isinstance(error, sqlite3.DatabaseError) and str(error).startswith(_DAMAGE)


def is_busy(error: BaseException) -> bool:
    """Tell whether *error* means that another process holds the database's lock."""
    # diskcache raises Timeout when a transaction cannot begin; naming it here would import diskcache.
    return type(error).__name__ == "Timeout" or (
        isinstance(error, sqlite3.OperationalError) and "is locked" in str(error)
    )


def store_error(error: BaseException) -> StoreError:
    """Give the error that leaves the store in place of *error*, with a text that is stable per cause."""
    if isinstance(error, StoreError):
        return error
    if is_busy(error):
        return StoreError("database is locked")
    if isinstance(error, sqlite3.Error):
        text = str(error)
        return StoreError(next((known for known in _KNOWN if text.startswith(known)), type(error).__name__))
    if isinstance(error, OSError) and error.errno is not None:
        return StoreError(f"{os.strerror(error.errno)} ({errno.errorcode.get(error.errno, error.errno)})")
    if isinstance(error, DamagedError | Refused):
        return StoreError(str(error))
    return StoreError(type(error).__name__)


class Backoff:
    """
    Leaves a store that fails alone for a while, and longer each time.

    Attributes:
        failing_until: The end of the pause, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._failure: StoreError | None = None
        self._pause = 0.0
        self.failing_until = 0.0

    def note_failure(self, error: StoreError) -> None:
        """Begin a pause, unless there is one."""
        self._failure = error
        if time.monotonic() < self.failing_until:
            return  # one trouble, met by several at once
        self._pause = min(max(_FIRST_PAUSE, 2 * self._pause), _LONGEST_PAUSE)
        self.failing_until = time.monotonic() + self._pause

    def note_success(self) -> None:
        """Forget the failures before."""
        self._failure, self._pause = None, 0.0

    @property
    def cause(self) -> str | None:
        """What the last failure was; ``None`` after a success."""
        return None if self._failure is None else self._failure.cause

    @property
    def is_failing(self) -> bool:
        """Whether there is a pause."""
        return self._failure is not None and time.monotonic() < self.failing_until

    def raise_while_failing(self) -> None:
        """Raise `StoreError`, with the cause of the last failure, during a pause."""
        if self._failure is not None and time.monotonic() < self.failing_until:
            raise StoreError(self._failure.cause)
