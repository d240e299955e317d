"""
Where responses are kept: on disk by default, in memory for tests and short-lived programs.

- `_protocol`: what the path asks of a store; `_memory`: the simple one
- `_sharing`: which directory, and one store object for all who use it
- `_disk`: reads and accepts, and is put together from
    - `_queue`, `_rows`, `_writing`: what was accepted, what it comes to, and how it is written later; room
    - `_opening`: who waits for the directory to open, and when it is let go
    - `_verified`: large bodies, checked before they are given
    - `_management`: what goes over all entries
    - `_lane`, `_processes`: threads; the interpreter's end and forks
    - `_leases`: claims between processes
- `_database`: the opened directory: `_schema` (what it must look like), `_records` (rows), `_bodies` (files), `_tier`
  (what was read lately, and marks of what others change), `_directory` (permissions, locks, setting aside)
- `_faults`: what errors mean, and for how long a store that fails is left alone
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._sharing import Use, disk_store

if TYPE_CHECKING:
    from ._disk import DiskStore
    from ._memory import MemoryStore
    from ._protocol import BodyReader, BodySpool, Report, Store

__all__ = ["BodyReader", "BodySpool", "DiskStore", "MemoryStore", "Report", "Store", "Use", "disk_store"]


_HOMES = {
    "BodyReader": "_protocol",
    "BodySpool": "_protocol",
    "DiskStore": "_disk",
    "MemoryStore": "_memory",
    "Report": "_protocol",
    "Store": "_protocol",
}


def __getattr__(name: str) -> object:
    """Import what somebody asks for: together they take a third of what the whole package takes to import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
