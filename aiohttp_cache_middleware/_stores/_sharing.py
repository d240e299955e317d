"""Which directory a store is in, and one store object for all caches of a process that keep it in the same way."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .._errors import StoreError

if TYPE_CHECKING:
    from ._disk import DiskStore
    from ._protocol import Store

_Way: TypeAlias = tuple[str, int | None, tuple[bytes, ...], bool]

_stores: weakref.WeakValueDictionary[_Way, DiskStore] = weakref.WeakValueDictionary()
# By the store's id, which is no other's while a `Use` keeps it: a store of the caller's may have no hash.
_users: weakref.WeakValueDictionary[int, weakref.WeakSet[Use]] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _begin_anew() -> None:
    """In a child process: some thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def disk_store(
    directory: str | os.PathLike[str] | None,
    *,
    max_size: int | None,
    secret_keys: tuple[bytes, ...] = (),
    compress: bool = False,
) -> DiskStore:
    """
    Give the store in *directory* that is in use in this process, or a new one.

    So what one cache accepted is there for another at once, not only when it is written.

    Raises:
        TypeError: *directory* is no path.
        ValueError: It is a file, or empty.
    """
    from ._disk import DiskStore  # a third of what this package takes to import

    path = location(directory)
    way = (os.path.abspath(path), max_size, secret_keys, compress)  # noqa: PTH100 (keeps a symbolic link, which is looked at)
    with _lock:
        store = _stores.get(way)
        if store is None:
            store = DiskStore(path, max_size=max_size, secret_keys=secret_keys, compress=compress)
            _stores[way] = store
        return store


def location(directory: str | os.PathLike[str] | None) -> Path:
    """
    Give the directory that was asked for, or the per-user cache directory.

    Raises:
        TypeError: *directory* is no path.
        ValueError: It is a file, or empty.
    """
    if directory is None:
        import platformdirs  # not needed by those who name a directory

        return Path(platformdirs.user_cache_dir("aiohttp_cache_middleware", appauthor=False))
    try:
        path = Path(directory)
    except TypeError:
        raise TypeError(f"directory: expected a str or os.PathLike[str], got {directory!r}") from None
    if not os.fspath(directory):
        raise ValueError("directory: expected a path, got an empty one")
    if path.exists() and not path.is_dir():
        raise ValueError(f"directory: {str(directory)!r} is a file, not a directory")
    return path


class Use:
    """
    The use that one cache makes of a store; the last one that ends closes it.

    Who goes on after that opens it again, and is not counted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        with _lock:
            self._users = _users.setdefault(id(store), weakref.WeakSet())
            self._users.add(self)

    def leave(self) -> bool:
        """End the use; tell whether nobody else uses the store."""
        with _lock:
            self._users.discard(self)
            return not self._users

    async def end(self) -> None:
        """
        Close the store, or if others use it wait until all that was accepted is kept.

        Raises:
            StoreError: Something could not be kept, or not in time.
        """
        if self.leave():
            await self._store.aclose()
            return
        from ._processes import CLOSING  # a store is there by now

        try:
            await asyncio.wait_for(self._store.flush(), CLOSING)
        except asyncio.TimeoutError:
            raise StoreError("closing takes too long") from None
