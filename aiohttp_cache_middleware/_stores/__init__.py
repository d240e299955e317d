"""Where responses are kept: on disk by default, in memory for tests and short-lived programs."""

from typing import TYPE_CHECKING

from ._protocol import BodyReader, BodySpool, Report, Store
from ._sharing import disk_store

if TYPE_CHECKING:
    from ._disk import DiskStore
    from ._memory import MemoryStore

__all__ = ["BodyReader", "BodySpool", "DiskStore", "MemoryStore", "Report", "Store", "disk_store"]


def __getattr__(name: str) -> object:
    """Import a store when somebody asks for it: they take a third of what the whole package takes to import."""
    if name == "DiskStore":
        from ._disk import DiskStore

        return DiskStore
    if name == "MemoryStore":
        from ._memory import MemoryStore

        return MemoryStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
