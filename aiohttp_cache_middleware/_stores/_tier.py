"""Entries that were read lately, kept decoded for as long as nobody has changed them."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .._model import Entry, StoredResponse
from ._directory import Descriptor, create_private, open_private

ENTRIES: Final = 4096
"""Most entries kept in memory."""
BYTES: Final = 32 * 1024 * 1024
"""Most bytes of bodies kept in memory."""

TRUST: Final = 0.001
"""
Seconds for which marks that were read count as read: that is a system call, 4 to 8 of the 6 to 10 µs that a hit costs
here. What this process changes is seen at once, and nobody can tell from outside that another's change is seen a
millisecond after its commit.
"""

_SLOTS: Final = 4096
_SLOT_SIZE: Final = 8


class Kept:
    """
    A decoded entry, with the mark of its slot from before it was read.

    Attributes:
        store_time: The time from which eviction counts.
        size: Bytes of body in memory.
        looks: Which look at the marks it was last compared with.
    """

    __slots__ = ("entry", "looks", "mark", "size", "store_time")

    def __init__(self, mark: bytes, entry: Entry, store_time: float) -> None:
        self.mark = mark
        self.entry = entry
        self.store_time = store_time
        self.size = len(entry.body) if isinstance(entry, StoredResponse) and isinstance(entry.body, bytes) else 0
        self.looks = 0


class Marks:
    """
    A small file that all processes share: the slot of a key gets another mark after each change of its entry.

    Marks are random rather than counted, so two that change a slot at once never give it a value that it has had.
    Read by `os.pread` rather than a mapping: 0.4 µs more, but a file truncated by somebody is no SIGBUS.

    Attributes:
        looks: How often they were read.
        look_time: When that was last, by the clock of who asked for it.
    """

    def __init__(self, path: Path) -> None:
        self._file: Descriptor | None = Descriptor(open_private(path))
        self.looks = 0
        self.look(-math.inf)

    @staticmethod
    def create(path: Path) -> None:
        """Make the file."""
        create_private(path, secrets.token_bytes(_SLOTS * _SLOT_SIZE))

    def look(self, now: float) -> None:
        """Read the marks, at *now*."""
        # All of them, which takes hardly longer; the time last, as other threads go by it.
        file = self._opened()
        self._read = _read_at(file.number, _SLOTS * _SLOT_SIZE, 0)
        self.looks += 1
        self.look_time = now

    def of(self, key: str) -> bytes:
        """Give the mark of *key* as it was at the last `look`; ``b""`` where there is none: nothing may be kept."""
        offset = _offset(key)
        return self._read[offset : offset + _SLOT_SIZE]

    def change(self, keys: Iterable[str]) -> None:
        """Let all processes know, after the commit, that the entries under *keys* have changed."""
        file = self._opened()
        for key in keys:
            _write_at(file.number, secrets.token_bytes(_SLOT_SIZE), _offset(key))

    def change_all(self) -> None:
        """Let all processes know that every entry may have changed."""
        file = self._opened()
        _write_at(file.number, secrets.token_bytes(_SLOTS * _SLOT_SIZE), 0)

    def close(self) -> None:
        """Give back the file; a thread that is at it goes on with it to its end."""
        self._file = None

    def _opened(self) -> Descriptor:
        file = self._file
        if file is None:
            raise OSError(errno.EBADF, "the marks have been closed")
        return file


class Tier:
    """The entries themselves: least recently used go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: str, marks: Marks, now: float) -> Kept | None:
        """Give the entry under *key* unless its mark has changed."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if now - marks.look_time > TRUST:
            marks.look(now)
        if kept.looks != marks.looks:
            looks = marks.looks
            if kept.mark != marks.of(key):
                return None
            kept.looks = looks
            with contextlib.suppress(KeyError):  # another thread may have let go of it meanwhile
                self._kept.move_to_end(key)
        return kept

    def keep(self, key: str, kept: Kept) -> None:
        """Remember an entry."""
        if not kept.mark or kept.size > BYTES // 8:
            return
        with self._lock:
            self._forget(key)
            self._kept[key] = kept
            self._size += kept.size
            while len(self._kept) > ENTRIES or self._size > BYTES:
                self._size -= self._kept.popitem(last=False)[1].size

    def forget(self, key: str) -> None:
        """Forget the entry under *key*."""
        if key in self._kept:
            with self._lock:
                self._forget(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def _forget(self, key: str) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._size -= old.size


if sys.platform != "win32":
    _read_at, _write_at = os.pread, os.pwrite
else:  # pragma: no cover (Windows)
    _moving = threading.Lock()

    def _read_at(descriptor: int, size: int, offset: int) -> bytes:
        with _moving:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, size)

    def _write_at(descriptor: int, data: bytes, offset: int) -> int:
        with _moving:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, data)


def _offset(key: str) -> int:
    return zlib.crc32(key.encode()) % _SLOTS * _SLOT_SIZE
