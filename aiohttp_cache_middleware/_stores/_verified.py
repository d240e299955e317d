"""Large bodies that are there: opened, and verified whole before the first byte is given."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from .._errors import StoreError
from .._model import BodyRef
from ._bodies import VERIFIED_AT_ONCE, BodySeal, DiskBodyReader, Stamp, open_body_file
from ._lane import Lane, in_turn

_VERIFIED: Final = 1024  # bodies remembered as verified
_STEP: Final = 100_000_000  # ns; 10 ms at most where it is known


class _Verification:
    """
    A body that is being verified, for all who open it meanwhile.

    Attributes:
        reader: The one whose file is hashed.
        is_whole: What comes of it.
        tells_changes: Whether what is changed from now on has another stamp.
        waiting: How many wait for it; only under the lock of `VerifiedBodies`.
    """

    def __init__(self, reader: DiskBodyReader, is_whole: Future[bool]) -> None:
        self.reader = reader
        self.is_whole = is_whole
        # Time in a file system goes in steps: what is changed within one of them, once more, has the same stamp.
        self.tells_changes = time.time_ns() - reader.stamp.change_time > _STEP
        self.waiting = 0


class VerifiedBodies:
    """Opens bodies; *files* is the lane where they are read, *seal* checks them."""

    def __init__(self, files: Lane, seal: BodySeal) -> None:
        self._files = files
        self._seal = seal
        self._verified: dict[str, Stamp] = {}
        self._verifying: dict[tuple[str, Stamp], _Verification] = {}
        self._joining = threading.RLock()  # loops in several threads may ask; so may a finalizer, in the middle of it

    async def open(self, home: Path, body: BodyRef) -> DiskBodyReader | None:
        """
        Open *body*; ``None`` where it is missing or wrong.

        Raises:
            asyncio.TimeoutError: The lane is held up, or has too much else to do, while the body is opened or verified.
        """
        opening = self._files.submit(lambda: open_body_file(home, body.id, body.size, self._files))
        reader = await in_turn(self._files, opening)
        if reader is None:
            return None
        if self._verified.get(body.id) == reader.stamp:
            return reader
        if not await self._verify(reader, body):
            reader.close()
            return None
        return reader

    async def _verify(self, reader: DiskBodyReader, body: BodyRef) -> bool:
        """
        Tell whether *reader* gives *body* as it was stored.

        Once for all who ask at the same time: a thousand who have waited for the same large body would have it hashed
        a thousand times otherwise, most of them beyond their deadline.
        """
        key = body.id, reader.stamp
        with self._joining:
            verification = self._verifying.get(key)
            if verification is None or verification.is_whole.done():
                verification = _Verification(reader, reader.verify(self._seal.hashers(body.id)))
                self._verifying[key] = verification
            verification.waiting += 1
        try:
            is_whole = await self._outcome(verification)
        finally:
            with self._joining:
                verification.waiting -= 1
                if not verification.waiting:
                    verification.is_whole.cancel()
                    if self._verifying.get(key) is verification:
                        del self._verifying[key]
        if is_whole and verification.tells_changes:
            if len(self._verified) >= _VERIFIED:
                self._verified.clear()
            self._verified[body.id] = reader.stamp
        return is_whole

    async def _outcome(self, verification: _Verification) -> bool:
        """Wait for what comes of it; the loop is troubled only where that takes long."""
        while True:
            before = verification.reader.position
            try:
                return await in_turn(self._files, verification.is_whole)
            except asyncio.TimeoutError:
                if verification.reader.position - before < VERIFIED_AT_ONCE:
                    raise

    def load(self, home: Path, body: BodyRef) -> bytes:
        """
        Give the bytes of *body*; blocks.

        Raises:
            StoreError: It is missing or wrong.
        """
        reader = open_body_file(home, body.id, body.size, self._files)
        if reader is None:
            raise StoreError("a body is missing")
        with contextlib.closing(reader):
            return reader.load_verified(self._seal.hashers(body.id))

    def is_sound(self, home: Path, body: BodyRef) -> bool:
        """Tell whether *body* is there as it was stored; blocks."""
        reader = open_body_file(home, body.id, body.size, self._files)
        if reader is None:
            return False
        with contextlib.closing(reader):
            return self._check(reader, body)

    def _check(self, reader: DiskBodyReader, body: BodyRef) -> bool:
        hashers = self._seal.hashers(body.id)
        while (is_whole := reader.check_some(hashers)) is None:
            pass
        return is_whole
