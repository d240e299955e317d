"""Where a store is kept when it is kept on disk."""

from __future__ import annotations

import os
from pathlib import Path


def store_directory(directory: str | os.PathLike[str] | None) -> Path:
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
