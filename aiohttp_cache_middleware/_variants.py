"""How the responses of one primary key stand in a store when they differ by ``Vary`` (RFC 9111 §4.1); pure."""

from hashlib import blake2b
from typing import NamedTuple

from ._model import Entry, StoredResponse, Variant, VariantIndex, Vary

MAX_VARIANTS = 32
"""Variants kept for one primary key; the one stored first goes first."""


class Placement(NamedTuple):
    """What to write and what to remove so that a response can be found again."""

    puts: tuple[tuple[str, Entry], ...]
    deletes: tuple[str, ...] = ()


def place(primary: str, existing: Entry | None, new: StoredResponse) -> Placement:
    """
    Find a place for *new*.

    A response that answers any request stands under the primary key itself, and ends all variants. One with
    selecting fields has a key of its own; under the primary key is then an index. So no entry ever has to move.

    Args:
        existing: What stands under the primary key now.
    """
    variants = existing.variants if isinstance(existing, VariantIndex) else ()
    if not new.vary:
        own = new if new.key == primary else new.replace(key=primary)
        return Placement(((primary, own),), tuple([one.key for one in variants]))
    variant = Variant(variant_key(primary, new.vary), new.vary)
    others = tuple(one for one in variants if one.key != variant.key)
    index = VariantIndex(new.url, (variant, *others[: MAX_VARIANTS - 1]))
    puts: tuple[tuple[str, Entry], ...] = ((variant.key, new.replace(key=variant.key)),)
    if index != existing:
        puts = (*puts, (primary, index))
    return Placement(puts, tuple(one.key for one in others[MAX_VARIANTS - 1 :]))


def entry_key(primary: str, vary: Vary) -> str:
    """Give the key under which `place` puts a response with these selecting fields."""
    return variant_key(primary, vary) if vary else primary


def variant_key(primary: str, vary: Vary) -> str:
    """Give the key of the variant that these selecting fields name; unambiguous, for the digests are of one length."""
    digest = blake2b(bytes.fromhex(primary), digest_size=20)
    for name, value in vary:
        encoded = name.encode("utf-8", "surrogatepass")  # an origin may name anything
        digest.update(b"%d:%b%d:%b" % (len(encoded), encoded, len(value), value))
    return digest.hexdigest()
