"""Claims on keys, for processes that would ask the origin the same."""

from __future__ import annotations

import contextlib
import sys
import zlib
from pathlib import Path

from ._directory import Descriptor, open_private

if sys.platform != "win32":
    import fcntl


class Leases:
    """
    A byte of a file per key, locked by whoever claims it; the system takes the lock back when the process dies.

    Only a hint: two keys may share a byte, and where it can't be told, everybody has the claim.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "leases"
        self._file: Descriptor | None = None

    def claim(self, key: str) -> bool:
        """Claim *key*; tell whether no other process has it. Never blocks."""
        if sys.platform == "win32":
            return True
        try:
            file = self._open()
        except OSError:
            return True
        try:
            fcntl.lockf(file.number, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except (BlockingIOError, PermissionError):  # "held" is the one or the other, by the system
            return False
        except OSError:
            return True
        return True

    def unclaim(self, key: str) -> None:
        """Take back a claim."""
        file = self._file
        if sys.platform != "win32" and file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(file.number, fcntl.LOCK_UN, 1, _offset(key))

    def close(self) -> None:
        """Take back all claims."""
        self._file = None

    def _open(self) -> Descriptor:
        file = self._file
        if file is None:
            file = self._file = Descriptor(open_private(self._path))
        return file


def _offset(key: str) -> int:
    return zlib.crc32(key.encode())
