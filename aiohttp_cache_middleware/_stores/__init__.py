"""Where responses are kept: on disk by default, in memory for tests and short-lived programs."""

from ._disk import DiskStore
from ._location import store_directory
from ._memory import MemoryStore
from ._protocol import BodyReader, BodySpool, Report, Store

__all__ = ["BodyReader", "BodySpool", "DiskStore", "MemoryStore", "Report", "Store", "store_directory"]
