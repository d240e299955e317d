"""Values as msgpack, for records and for what is under a key's digest."""

from __future__ import annotations

import threading

import msgpack


class _OfThread(threading.local):
    """A packer per thread: making one takes as long as packing, and its buffer is fetched from the system each time."""

    def __init__(self) -> None:
        # Text that can't be sent can still be stored and compared: aiohttp shows undecodable bytes as lone surrogates,
        # JSON may spell them.
        self.packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogatepass")


_of_thread = _OfThread()


def pack(value: object) -> bytes:
    """
    Give *value* as msgpack.

    Raises:
        ValueError, TypeError, OverflowError: It is not made of what msgpack knows, or too large.
    """
    packed: bytes = _of_thread.packer.pack(value)
    return packed
