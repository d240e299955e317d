"""Claims on keys, for processes that would ask the origin the same."""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from pathlib import Path

from ._directory import open_private

if sys.platform != "win32":
    import fcntl


class Leases:
    """
    A byte of a file per key, locked by whoever claims it; the system takes the lock back when the process dies.

    Only a hint: two keys may share a byte, and where it can't be told, everybody has the claim.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "leases"
        self._descriptor: int | None = None

    def claim(self, key: str) -> bool:
        """Claim *key*; tell whether no other process has it. Never blocks."""
        if sys.platform == "win32":
            return True
        try:
            descriptor = self._open()
        except OSError:
            return True
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except (BlockingIOError, PermissionError):  # "held" is the one or the other, by the system
            return False
        except OSError:
            return True
        return True

    def unclaim(self, key: str) -> None:
        """Take back a claim."""
        if sys.platform != "win32" and self._descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _offset(key))

    def close(self) -> None:
        """Take back all claims."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = open_private(self._path)
        return self._descriptor


def _offset(key: str) -> int:
    return zlib.crc32(key.encode())
