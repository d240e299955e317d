"""What tells that a record or a body is as it was written: a checksum, or a MAC where there are secret keys."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol
from zlib import crc32


class Hasher(Protocol):
    """Takes bytes piece by piece and gives their digest; hashlib's are such."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""

    def digest(self) -> bytes:
        """Give the digest of all that was taken."""

    def copy(self) -> Hasher:
        """Give another one that has taken the same."""


class Checksum:
    """
    A CRC-32: it tells damage in a fifth of BLAKE2b's time, which was the greatest part of a stored 300 MB.

    Who damages on purpose could make any other digest too that has no key.
    """

    __slots__ = ("_crc", "_size")

    def __init__(self, size: int, crc: int = 0) -> None:
        self._size = size
        self._crc = crc

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""
        self._crc = crc32(data, self._crc)

    def digest(self) -> bytes:
        """Give the checksum, with zeros before it up to the size asked for."""
        return self._crc.to_bytes(self._size, "big")

    def copy(self) -> Checksum:
        """Give another one that has taken the same."""
        return Checksum(self._size, self._crc)


def hashers(secret_keys: Sequence[bytes], size: int) -> list[Hasher]:
    """
    Give a hasher for each key (BLAKE2b), or the one there is without any; they are there to be copied.

    The first one's digest, of *size* bytes, is written; any of theirs may be in what is read.
    """
    keyed: list[Hasher] = [blake2b(digest_size=size, key=_derived(secret)) for secret in secret_keys]
    return keyed or [Checksum(size)]


def _derived(secret: bytes) -> bytes:
    """Give the key that stands for *secret*, whatever its length."""
    return blake2b(secret, digest_size=32, person=b"cache record key").digest()
