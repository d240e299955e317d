"""The store's place in the file system: who may use it, how it is locked, and how a damaged one is set aside."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .._errors import StoreError

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("aiohttp_cache_middleware")

LIVE: Final = "v1"
"""Name of the store inside its directory: the layout's version. Another layout takes another name."""
_LOCK_TIMEOUT: Final = 10.0  # seconds
_SECRET_SIZE: Final = 32
# SQLite's WAL needs memory shared between all who use the file, which these do not give.
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2"}
    | {"glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "smb2", "smb3", "smbfs"}
)
_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600
# Through no link, into no child process, and on Windows without another idea of a line's end; and whatever somebody has
# put in its place: opening a pipe would wait for ever. For a file that one means nothing.
_AS_IT_IS: Final = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


def prepare(root: Path) -> None:
    """
    Make *root* (0700) if it is missing, and refuse it where somebody else could put entries into it.

    Raises:
        StoreError: It belongs to another user, is writable by others, or is on a network file system.
        OSError: It cannot be made.
    """
    _make_directories(root)
    for status in (os.lstat(root), root.stat()):  # the symbolic link, if it is one, and what it leads to
        if not _is_ours(status):
            raise StoreError("directory refused: it belongs to another user")
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError("directory refused: it is not a directory")
    if _others_may_write(status):
        raise StoreError("directory refused: others may write to it")
    if file_system_type(root) in _NETWORK_FILE_SYSTEMS:
        raise StoreError("directory refused: it is on a network file system")


def check_is_private(path: Path, *, is_directory: bool) -> None:
    """Raise `StoreError` unless *path* is for us alone, and a plain file or directory rather than a link to one."""
    status = os.lstat(path)
    right_kind = stat.S_ISDIR if is_directory else stat.S_ISREG
    is_linked = status.st_nlink > 1 and not is_directory  # what is written here would be written elsewhere too
    if not right_kind(status.st_mode) or not _is_ours(status) or is_linked:
        raise StoreError("directory refused: it holds a link or a file of another user")
    if _others_may_write(status):
        raise StoreError("directory refused: it holds what others may write to")


def make_private(path: Path) -> None:
    """Make one directory, 0700 whatever the umask; its parent must be there."""
    # Never makedirs(): a process whose store was set aside would bring the old path back to life.
    path.mkdir(mode=_PRIVATE_DIRECTORY)
    path.chmod(_PRIVATE_DIRECTORY)


def create_private(path: Path, content: bytes = b"") -> None:
    """Create one new file, 0600 whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _AS_IT_IS, _PRIVATE_FILE)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, _PRIVATE_FILE)
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def open_private(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open a file of ours, created 0600 if it is missing; never through a symbolic link."""
    return os.open(path, flags | _AS_IT_IS, _PRIVATE_FILE)


class Descriptor:
    """
    An open file's descriptor, closed once nobody refers to it any more.

    Not before, as by a thread that closes what another one is about to use: its number would be another file's then, of
    whatever the program has just opened.

    Attributes:
        number: What the system calls it.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.number)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the directory's lock against other processes (and other stores of this one) while opening or renaming."""
    descriptor = open_private(root / ".lock")
    try:
        _flock(descriptor)
        yield
    finally:
        os.close(descriptor)


def read_secret(root: Path) -> bytes:
    """Give the 32 bytes of the directory's ``secret`` file, made the first time; call it under `locked`."""
    path = root / "secret"
    with contextlib.suppress(FileNotFoundError):
        descriptor = open_private(path, os.O_RDONLY)
        try:
            check_is_private(path, is_directory=False)
            content = os.read(descriptor, _SECRET_SIZE + 1)
        finally:
            os.close(descriptor)
        if len(content) == _SECRET_SIZE:
            return content
        path.unlink()
    secret = secrets.token_bytes(_SECRET_SIZE)
    create_private(path, secret)
    return secret


def set_aside(root: Path) -> None:
    """
    Rename the live store to ``bad-...``, in place of an earlier one, with a warning; call it under `locked`.

    What is kept is the database, for whoever wants to know what happened; the bodies are of no use without it.
    """
    remove_set_aside(root)
    live, bad = root / LIVE, root / f"bad-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        live.rename(bad)
        logger.warning("the store in %s was damaged: it has been set aside as %s, and starts afresh", root, bad.name)
        shutil.rmtree(bad / "bodies", ignore_errors=True)


_ASIDE: Final = ("bad-*", ".new-*")


def remove_set_aside(root: Path) -> None:
    """Remove what was set aside, and stores that were never finished."""
    for pattern in _ASIDE:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def set_aside_bytes(root: Path) -> int:
    """Bytes of what was set aside, and of stores that were never finished."""
    return sum(disk_usage(path) for pattern in _ASIDE for path in root.glob(pattern))


def disk_usage(root: Path) -> int:
    """Bytes of all files below *root*."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    total += disk_usage(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def file_system_type(path: Path, mountinfo: str | None = None) -> str | None:
    """
    Give the type of the file system that *path* is on (``"ext4"``, ``"nfs4"``); ``None`` where it is not known.

    Args:
        mountinfo: What ``/proc/self/mountinfo`` says, where it is not to be read.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:  # not Linux
            return None
    real = f"{os.path.realpath(path)}/"
    best, found = 0, None
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        parts = mount.split(" ")
        if len(parts) < 5 or not rest:
            continue
        # proc(5): blanks and the like in a mount point are octal escapes.
        point = parts[4].encode("latin-1", "replace").decode("unicode_escape") if "\\" in parts[4] else parts[4]
        prefix = f"{point.rstrip('/')}/"
        if real.startswith(prefix) and len(prefix) >= best:
            best, found = len(prefix), rest.split(" ")[0]
    return found


def _make_directories(path: Path) -> None:
    """Make *path* and the parents it lacks, each 0700."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            make_private(directory)


def _is_ours(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _others_may_write(status: os.stat_result) -> bool:
    return os.name == "posix" and bool(status.st_mode & 0o022)


def _flock(descriptor: int) -> None:
    if sys.platform == "win32":
        return
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while not _try_flock(descriptor):
        if time.monotonic() > deadline:
            raise StoreError("directory is locked")
        time.sleep(0.005)


def hold(descriptor: int) -> bool:
    """Hold a file for as long as it is open in this process; tell whether nobody else does."""
    if sys.platform == "win32":
        return True
    return _try_flock(descriptor)


def is_held(path: Path) -> bool | None:
    """
    Tell whether a process that lives holds the file *path*; ``None`` where that can't be told.

    Raises:
        OSError: It is gone, or none that may be opened.
    """
    if sys.platform == "win32":
        return None
    descriptor = open_private(path, os.O_RDONLY)
    try:
        return not _try_flock(descriptor)
    finally:
        os.close(descriptor)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
