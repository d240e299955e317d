"""
Large bodies, each a file of its own that is never changed once it is there.

A file is the body followed by a seal over its id and its bytes (`BodySeal`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from hmac import compare_digest
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

from .._errors import StoreError
from .._seal import Hasher, hashers
from ._directory import Descriptor, check_is_private, hold, make_private, open_private
from ._faults import store_error
from ._lane import Lane

BODIES: Final = "bodies"
"""Directory, within the store, of bodies that are whole."""
SPOOLS: Final = "spool"
"""Directory, within the store, of bodies that are still arriving."""
PIECE: Final = 1024 * 1024
"""Bytes written at once: a quarter of it costs a seventh more, in thread switches; twice as many gain nothing."""
HIGH_WATER: Final = 1024 * 1024
"""Bytes that may be pending in a spool before `DiskSpool.drain` waits."""
_READ_AT_ONCE: Final = 256 * 1024  # bytes; what stays in the processor's cache is hashed faster
_CAN_READ_NOWAIT: Final = hasattr(os, "RWF_NOWAIT")  # preadv2(2) of Linux
VERIFIED_AT_ONCE: Final = 4 * 1024 * 1024
"""Bytes of a body verified before other jobs of the lane get their turn."""
_DIGEST_SIZE: Final = 32
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR})
_BODY_NAME: Final = r"bodies/[0-9a-f]{2}/[0-9a-f]{30}\.body"


class BodyFile(NamedTuple):
    """A body's file, by its name in the store, and its length with all that the file holds."""

    id: str
    size: int

    @property
    def name(self) -> str:
        """Path within the store."""
        return body_name(self.id)


def body_name(identifier: str) -> str:
    """Give the path, within the store, of the file that holds the body *identifier*."""
    return f"{BODIES}/{identifier[:2]}/{identifier[2:]}.body"


def is_body_name(name: object) -> bool:
    """Tell whether *name* is a path that `body_name` makes, and so cannot lead out of the store."""
    return isinstance(name, str) and re.fullmatch(_BODY_NAME, name) is not None


class BodySeal:
    """Makes and checks the digest at a body's end."""

    size: Final = _DIGEST_SIZE

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._hashers = hashers(secret_keys, _DIGEST_SIZE)

    def hashers(self, identifier: str) -> list[Hasher]:
        """Give a hasher per key, to be fed with the body; the first one's digest is written."""
        copies = [hasher.copy() for hasher in self._hashers]
        for hasher in copies:
            hasher.update(f"{identifier}\n".encode())
        return copies


class DiskSpool:
    """A body on its way to disk: gathered into pieces here, hashed and written in the lane."""

    def __init__(
        self,
        lane: Lane,
        home: Callable[[], Path],
        seal: BodySeal,
        limit: float,
        may_grow: Callable[[int], bool] = lambda size: True,
    ) -> None:
        """
        Make a spool; nothing is written before the first piece is full.

        Args:
            lane: Where files are written.
            home: Gives the store's directory, opening the store if need be; called in the lane.
            limit: Bytes beyond which the body would not be kept, so that writing on is useless.
            may_grow: Called in the lane with the number of bytes about to be written; ``False``: there is no room.
        """
        self.id = secrets.token_hex(16)
        self._lane = lane
        self._home_of_store = home
        self._hasher = seal.hashers(self.id)[0]
        self._limit = limit
        self._may_grow = may_grow
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._accepted = 0
        self._written = 0  # only the lane changes it
        self._file: FileIO | None = None
        self._home = Path()
        self._failed = False
        self._ended = False

    @property
    def size(self) -> int:
        """Bytes accepted so far."""
        return self._accepted

    @property
    def pending(self) -> int:
        """Bytes accepted and not yet written."""
        return self._accepted - self._written

    @property
    def arriving(self) -> int:
        """Bytes that are on disk, or will be in a moment, and that no row accounts for yet."""
        return 0 if self._ended or self._failed else self._accepted

    def write(self, chunk: bytes) -> None:
        """Accept *chunk*; never raises."""
        if self._ended:
            return
        self._accepted += len(chunk)
        self._gathered.append(chunk)
        self._gathered_size += len(chunk)
        if self._accepted > self._limit:
            self._failed = True
        if self._gathered_size >= PIECE:
            self._send()

    async def drain(self) -> None:
        """Wait until little is pending."""
        while self.pending > HIGH_WATER and not self._failed:
            # The lane keeps order: when this comes back, all pieces before it have been written.
            await asyncio.wrap_future(self._lane.submit(lambda: None))

    def load(self) -> bytes:
        """
        Give the whole body written so far; blocks.

        Raises:
            StoreError: It could not be written or read.
        """
        self._send()
        return self._lane.submit(self._read).result()

    def discard(self) -> None:
        """Remove what was written."""
        if not self._ended:
            self._ended = True
            self._accepted -= self._gathered_size  # which is written no more
            self._gathered, self._gathered_size = [], 0
            self._lane.run(self._remove)

    def land(self) -> Future[BodyFile]:
        """
        End the body: write the rest and its digest, and move the file to where bodies are kept.

        The future raises `StoreError` where that fails; nothing is left then.
        """
        self._ended = True
        self._send()
        return self._lane.submit(self._land)

    def __del__(self) -> None:
        self.discard()

    def _send(self) -> None:
        pieces, self._gathered, self._gathered_size = self._gathered, [], 0
        if pieces:
            self._lane.run(partial(self._write, pieces))

    # Below: in the lane.

    def _write(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        try:
            if not self._failed and not self._may_grow(size):
                self._failed = True
            if not self._failed:
                # Joining holds the interpreter, which few large pieces are not worth.
                self._append(pieces if len(pieces) <= 8 else [b"".join(pieces)])
        except Exception:  # noqa: BLE001 (whatever the disk did, the body is not kept and the caller not troubled)
            self._failed = True
        if self._failed:
            self._remove()
        self._written += size

    def _append(self, pieces: list[bytes]) -> None:
        for data in pieces:
            self._hasher.update(data)
        self._write_all(pieces)

    def _write_all(self, pieces: list[bytes]) -> None:
        if self._file is None:
            self._home = self._home_of_store()
            _make_way(self._path().parent)
            descriptor = open_private(self._path(), os.O_RDWR | os.O_CREAT | os.O_EXCL)
            self._file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115, PTH123 (kept open; a safe descriptor)
            hold(descriptor)  # or others would take it for what a killed process has left
        done = _write_together(self._file.fileno(), pieces)
        if done < sum(map(len, pieces)):  # as where the disk is full
            view = memoryview(b"".join(pieces))[done:]
            while view:
                view = view[self._file.write(view) :]

    def _land(self) -> BodyFile:
        try:
            if self._failed:
                raise StoreError("a body could not be written")
            self._write_all([self._hasher.digest()])
            target = self._home / body_name(self.id)
            _make_way(target.parents[1])
            _make_way(target.parent)
            self._path().rename(target)
        except Exception as error:
            self._failed = True
            raise store_error(error) from error
        finally:
            self._remove()  # closes; the file itself has gone to its place
        return BodyFile(self.id, self._accepted + _DIGEST_SIZE)

    def _read(self) -> bytes:
        if self._failed:
            raise StoreError("a body could not be written")
        if self._file is None:
            return b""
        self._file.seek(0)
        pieces = []
        while piece := self._file.read(VERIFIED_AT_ONCE):
            pieces.append(piece)
        return b"".join(pieces)

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                self._path().unlink()

    def _path(self) -> Path:
        return self._home / SPOOLS / f"{self.id}.part"


class Stamp(NamedTuple):
    """
    What changes when a file does.

    Attributes:
        change_time: In ns; that of the last change of the file or of its names, which nobody can set.
    """

    inode: int
    size: int
    modification_time: int
    change_time: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Make one of what the system tells."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class DiskBodyReader:
    """
    A body's file, held open: it can be read to its end whatever becomes of its entry.

    Attributes:
        stamp: From when it was opened; what is read later is of no use if the content has changed since.
    """

    def __init__(self, descriptor: int, size: int, stamp: Stamp, lane: Lane) -> None:
        # A file that owns its descriptor would complain where the collector of cycles comes to it first.
        self._descriptor: Descriptor | None = Descriptor(descriptor)
        self._file = FileIO(descriptor, "rb", closefd=False)
        self._size = size
        self.stamp = stamp
        self._lane = lane
        self._position = 0
        self._moving = threading.Lock()
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        """Length of the body in bytes."""
        return self._size

    @property
    def position(self) -> int:
        """How much of the body has been read, or verified."""
        return self._position

    def read(self, size: int) -> asyncio.Future[bytes]:
        """
        Read up to *size* bytes; the future raises `StoreError` where that fails.

        A piece that the system has in memory is read at once (300 MB take two thirds of the time that asking the lane
        for each piece takes), whatever may have to wait for a disk in the lane.
        """
        piece = self._read_cached(size) if size <= _READ_AT_ONCE else None
        if piece is None:
            return asyncio.wrap_future(self._lane.submit(partial(self._read_on, size)))
        reading = asyncio.get_running_loop().create_future()
        reading.set_result(piece)
        return reading

    def load(self) -> bytes:
        """Give the whole body; blocks."""
        try:
            with self._at_work() as descriptor:
                self._file.seek(0)
                body = _read_fully(self._file, self._size)
                self._check_unchanged(descriptor)
        except OSError as error:
            raise store_error(error) from error
        return body

    def load_verified(self, hashers: list[Hasher]) -> bytes:
        """Give the whole body, if the digest at its end fits; blocks."""
        with self._at_work():
            self._file.seek(0)
            body, digest = _read_fully(self._file, self._size), _read_fully(self._file, _DIGEST_SIZE + 1)
        for hasher in hashers:
            hasher.update(body)
        if not any(compare_digest(hasher.digest(), digest) for hasher in hashers):
            raise StoreError("a body is not what was stored")
        return body

    def close(self) -> None:
        """Give back the file; a read that is under way, on a disk that stands still perhaps, is not waited for."""
        self._descriptor = None

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[Descriptor]:
        """Have the file for oneself; it stays open to the end of the block, though it may be closed meanwhile."""
        descriptor = self._descriptor
        if descriptor is None:
            raise StoreError("a body was closed")
        with self._moving:
            yield descriptor

    def verify(self, hashers: list[Hasher]) -> Future[bool]:
        """Hash the whole body in the lane, part by part; the future tells whether the digest at its end fits."""
        verified: Future[bool] = Future()

        def go_on() -> None:
            if verified.cancelled():
                return
            try:
                is_whole = self.check_some(hashers)
            except Exception as error:  # noqa: BLE001 (it belongs to whoever waits)
                if verified.set_running_or_notify_cancel():
                    verified.set_exception(error)
                return
            if is_whole is None:
                self._lane.run(go_on)
            elif verified.set_running_or_notify_cancel():
                verified.set_result(is_whole)

        self._lane.run(go_on)
        return verified

    def check_some(self, hashers: list[Hasher]) -> bool | None:
        """
        Hash the next part of the body.

        Returns:
            ``None`` while there is more, then whether the digest at its end fits.
        """
        with self._at_work():
            self._file.seek(self._position)
            end = min(self._size, self._position + VERIFIED_AT_ONCE)
            if self._position < end:
                buffer = memoryview(bytearray(_READ_AT_ONCE))
                while count := self._file.readinto(buffer[: end - self._position]):
                    self._position += count
                    for hasher in hashers:
                        hasher.update(buffer[:count])
                if self._position == end:
                    return None
            digest = _read_fully(self._file, _DIGEST_SIZE + 1)
            whole, self._position = self._position == self._size, 0
        return whole and any(compare_digest(hasher.digest(), digest) for hasher in hashers)

    def _read_on(self, size: int) -> bytes:
        try:
            with self._at_work() as descriptor:
                self._file.seek(self._position)
                data = self._file.read(min(size, self._size - self._position))
                self._position += len(data)
                self._check_unchanged(descriptor)
        except OSError as error:
            raise store_error(error) from error
        return data

    def _read_cached(self, size: int) -> bytes | None:
        """Read on if that takes no longer than copying; ``None`` where it may, or anything is wrong."""
        descriptor = self._descriptor
        if not _CAN_READ_NOWAIT or descriptor is None or not self._moving.acquire(blocking=False):
            return None
        try:
            self._buffer = self._buffer or bytearray(_READ_AT_ONCE)  # kept: the system clears what is new
            view = memoryview(self._buffer)[: min(size, self._size - self._position)]
            count = os.preadv(descriptor.number, [view], self._position, os.RWF_NOWAIT)
            self._check_unchanged(descriptor)
        except (OSError, StoreError):
            return None
        finally:
            self._moving.release()
        self._position += count
        return bytes(view[:count]) or None

    def _check_unchanged(self, descriptor: Descriptor) -> None:
        now, verified = Stamp.of(os.fstat(descriptor.number)), self.stamp
        # Not the change time: it is another once the entry has gone, whose body can be read to its end.
        if (now.size, now.modification_time) != (verified.size, verified.modification_time):
            raise StoreError("a body was changed while it was read")


def open_body_file(home: Path, identifier: str, size: int, lane: Lane) -> DiskBodyReader | None:
    """
    Open a body's file; ``None`` where it is missing or of another length, or *identifier* is none of ours.

    Raises:
        OSError: It may be there, and can't be opened now.
    """
    name = body_name(identifier)
    if not is_body_name(name):
        return None
    try:
        check_is_private((home / name).parent, is_directory=True)
        descriptor = open_private(home / name, os.O_RDONLY)
    except StoreError:
        return None
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size + _DIGEST_SIZE:
        os.close(descriptor)
        return None
    return DiskBodyReader(descriptor, size, Stamp.of(status), lane)


def body_files(home: Path) -> list[Path]:
    """Give the files where bodies are kept; through no link."""
    try:
        with os.scandir(home / BODIES) as entries:
            parents = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [path for parent in parents for path in parent.glob("*.body")]


def _write_together(descriptor: int, pieces: list[bytes]) -> int:
    """Write what can be written at once of *pieces*, for each call has to wait for the interpreter; tell how much."""
    return os.writev(descriptor, pieces) if hasattr(os, "writev") else 0


def _make_way(directory: Path) -> None:
    """Make *directory*, in the home of a store or one below, unless it is there; refuse a link."""
    try:
        make_private(directory)
    except FileExistsError:
        check_is_private(directory, is_directory=True)


def remove_body_file(home: Path, name: object) -> None:
    """Remove a body's file, if *name* is one's; through no link. What can't be removed is left for the sweep."""
    if is_body_name(name):
        path = home / str(name)
        with contextlib.suppress(OSError, StoreError):
            check_is_private(path.parent, is_directory=True)
            path.unlink()


def _read_fully(file: FileIO, size: int) -> bytes:
    """Read *size* bytes, or what there is."""
    parts = []
    while size > 0 and (data := file.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
