"""The opened directory of a store: opened when somebody needs it, let go when it is damaged, replaced or done with."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .._errors import StoreError
from ._faults import Backoff, is_damage, store_error
from ._lane import Lane, Lanes, in_time
from ._tier import Tier

if TYPE_CHECKING:
    from ._database import Database

IMPORTING: Final = 2.0
"""Seconds that the first lookup of a process waits for the import of `diskcache` and `sqlite3` before."""


class Opening:
    """
    Opens *root* in the opener, and closes each connection in the lane that it belongs to.

    Args:
        tier: What was read; forgotten when the directory is let go.
        backoff: Told when opening fails, and asked before the next attempt.
        secret: What is known of an earlier opening.

    Attributes:
        database: The open directory; ``None`` while it is not open.
        secret: Its secret, once it has been opened.
    """

    def __init__(
        self,
        root: Path,
        max_size: int | None,
        lanes: Lanes,
        tier: Tier,
        backoff: Backoff,
        secret: bytes | None = None,
    ) -> None:
        self._root = root
        self._max_size = max_size
        self._lanes = lanes
        self._tier = tier
        self._backoff = backoff
        self.database: Database | None = None
        self.secret = secret
        self._lock = threading.RLock()
        self._when_forgotten: weakref.finalize[..., Opening] | None = None
        self._database_to_be: Future[Database] | None = None
        self._opening_time = 0.0
        self._importing: Future[None] = Future()  # of the opening that was begun last
        lanes.writer.at_end = weakref.WeakMethod(self._close_records)

    @property
    def is_under_way(self) -> bool:
        """Whether the directory is being opened."""
        return self._database_to_be is not None and not self._database_to_be.done()

    async def opened(self) -> Database:
        """Give the open directory; raise `StoreError` where it is not there in time."""
        database = self.database
        if database is not None:
            return database
        opening = self._begin()
        try:
            # One deadline for all: when it is over, nobody who comes later waits again. Importing is not the store's
            # fault, and takes most of the time where several processes start at once.
            await in_time(self._importing, self._opening_time, IMPORTING)
            return await in_time(opening, self._opening_time)
        except asyncio.TimeoutError:
            raise StoreError("opening takes too long") from None
        except Exception as error:
            raise store_error(error) from error

    def opened_for_work(self) -> Database:
        """Give the open directory, and wait for it: to a lane other than the opener."""
        database = self.database
        if database is None or not database.is_current():
            database = self._lanes.opener.submit(self._open).result()
        return database

    def home(self) -> Path:
        """Give the path of the open directory; waits, as `opened_for_work` does."""
        return self.opened_for_work().home

    def note_damage(self, database: Database, error: Exception) -> bool:
        """Tell whether *error* means that *database* is damaged, and have it set aside then."""
        if not is_damage(error):
            return False
        self._let_go(database, is_damaged=True)
        return True

    def close(self) -> None:
        """Give back what is open; in the writer."""
        if (database := self.database) is not None:
            self._let_go(database)

    def leave_to_parent(self) -> None:
        """Let go of everything, in a child process."""
        if self.database is not None:
            self.database.leave_to_parent(is_writer_at_rest=self._lanes.writer.is_paused)
        if self._when_forgotten is not None:
            self._when_forgotten.detach()

    def _begin(self) -> Future[Database]:
        with self._lock:
            if self._database_to_be is None or self._database_to_be.done():
                self._backoff.raise_while_failing()
                self._opening_time = time.monotonic()
                self._importing = self._lanes.opener.submit(self._import)
                self._database_to_be = self._lanes.opener.submit(self._open)
                # Whoever waited may have given up; the error has been noted.
                self._database_to_be.add_done_callback(lambda future: future.exception())
            return self._database_to_be

    def _import(self) -> None:
        """Import what opening needs; its time counts from here."""
        from . import _database

        if _database.is_new(self._root):
            from . import _records  # noqa: F401 (so that building does not import it)
        self._opening_time = time.monotonic()

    def _open(self) -> Database:
        """Open the directory if it is not; in the opener."""
        database = self.database
        if database is not None:
            if database.is_current():
                return database
            self._let_go(database)
        from ._database import Database

        try:
            database = Database.open(self._root, self._max_size)
        except Exception as error:
            self._backoff.note_failure(store_error(error))
            raise store_error(error) from error
        self.secret = database.secret
        self.database = database
        # Not by `__del__`: the collector of cycles may come to a connection first, which then complains.
        self._when_forgotten = weakref.finalize(self, _give_back, database, self._lanes.writer, self._lanes.opener)
        self._when_forgotten.atexit = False
        return database

    def _let_go(self, database: Database, *, is_damaged: bool = False) -> None:
        """Close *database* and, if it is damaged, set it aside, so that the next who needs the store opens it anew."""
        with self._lock:
            if self.database is not database:
                return
            self.database = None
            if self._when_forgotten is not None:
                self._when_forgotten.detach()
        self._tier.clear()

        def close() -> None:
            with contextlib.suppress(Exception):  # whoever opens the store next meets the same trouble, and tells
                database.close()
                if is_damaged:
                    database.set_aside()

        self._lanes.writer.run(database.close_records)
        self._lanes.opener.run(close)

    def _close_records(self) -> None:
        if self.database is not None:
            self.database.close_records()


def _give_back(database: Database, writer: Lane, opener: Lane) -> None:
    """Close what a store that is forgotten has open, once what it accepted is written."""
    writer.run(database.close_records)
    opener.run(database.close)
