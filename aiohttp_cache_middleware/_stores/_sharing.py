"""One store object for all caches of a process that are kept in one directory in the same way."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, TypeAlias

from ._location import store_directory

if TYPE_CHECKING:
    from ._disk import DiskStore

_Way: TypeAlias = tuple[str, int | None, tuple[bytes, ...], bool]

_stores: weakref.WeakValueDictionary[_Way, DiskStore] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def disk_store(
    directory: str | os.PathLike[str] | None,
    *,
    max_size: int | None,
    secret_keys: tuple[bytes, ...] = (),
    compress: bool = False,
) -> DiskStore:
    """
    Give the store in *directory* that is in use in this process, or a new one.

    So what one cache accepted is there for another at once, not only when it is written. Closing the one closes
    the store for the other too, which opens it again at its next request.

    Raises:
        TypeError: *directory* is no path.
        ValueError: It is a file.
    """
    from ._disk import DiskStore  # a third of what this package takes to import

    path = store_directory(directory)
    way = (os.path.abspath(path), max_size, secret_keys, compress)  # noqa: PTH100 (keeps a symbolic link, which is looked at)
    with _lock:
        store = _stores.get(way)
        if store is None:
            store = DiskStore(path, max_size=max_size, secret_keys=secret_keys, compress=compress)
            _stores[way] = store
        return store
