"""Large bodies that are there: opened, and verified whole before the first byte is given."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final

from .._errors import StoreError
from .._model import BodyRef
from ._bodies import VERIFIED_AT_ONCE, BodySeal, DiskBodyReader, Stamp, open_body_file
from ._lane import Lane, in_time

_VERIFIED: Final = 1024  # bodies remembered as verified
_STEP: Final = 100_000_000  # ns; 10 ms at most where it is known


class VerifiedBodies:
    """Opens bodies; *files* is the lane where they are read, *seal* checks them."""

    def __init__(self, files: Lane, seal: BodySeal) -> None:
        self._files = files
        self._seal = seal
        self._verified: dict[str, Stamp] = {}

    async def open(self, home: Path, body: BodyRef) -> DiskBodyReader | None:
        """
        Open *body*; ``None`` where it is missing or wrong.

        Raises:
            asyncio.TimeoutError: The lane is held up, while the body is opened or verified.
        """
        opening = self._files.submit(lambda: open_body_file(home, body.id, body.size, self._files))
        reader = await in_time(opening, time.monotonic())
        if reader is None:
            return None
        stamp = reader.stamp
        if self._verified.get(body.id) == stamp:
            return reader
        # Time in a file system goes in steps: what is changed within one of them, once more, has the same stamp.
        tells_changes = time.time_ns() - stamp.change_time > _STEP
        if not await self._verify(reader, body):
            reader.close()
            return None
        if tells_changes:
            if len(self._verified) >= _VERIFIED:
                self._verified.clear()
            self._verified[body.id] = stamp
        return reader

    async def _verify(self, reader: DiskBodyReader, body: BodyRef) -> bool:
        """Tell whether *reader* gives *body* as it was stored; the loop is troubled only where that takes long."""
        verifying = reader.verify(self._seal.hashers(body.id))
        try:
            while True:
                before = reader.position
                try:
                    return await in_time(verifying, time.monotonic())
                except asyncio.TimeoutError:
                    if reader.position - before < VERIFIED_AT_ONCE:
                        raise
        finally:
            verifying.cancel()

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
