"""Which stored responses fit a request: ``Vary`` (RFC 9111 §4.1, RFC 9110 §12.5.5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b

from multidict import MultiMapping, istr

from .._model import OriginResponse, Request, StoredResponse, Vary
from ._fields import cache_control, combined, members

ABSENT = b""
"""Stands in a `Vary` for a field the request does not have; it matches only its absence."""

_COOKIE, _VARY = istr("Cookie"), istr("Vary")
_WEIGHT = r"(?i)q=([01])(?:\.([0-9]{0,3}))?"


def vary_names(fields: MultiMapping[str]) -> tuple[str, ...] | None:
    """
    Give the names of the request fields a response was selected by.

    White space separates like a comma: nobody means one name by ``Accept Accept-Language``.

    Args:
        fields: Fields of the response.

    Returns:
        Lower-case names, sorted, each once; ``None`` where ``*`` is among them: no request matches (§4.1).
    """
    names = _names_in_vary(fields)
    return None if "*" in names else tuple(sorted(names))


def selecting_names(request: Request, response: OriginResponse) -> tuple[str, ...]:
    """
    Give the names of the request fields that a response is stored by; `*` is none.

    ``Cookie`` is one where a private response was fetched with cookies, even if ``Vary`` does not say so: it is for
    whoever they stand for, and a session may send those of another one next time.
    """
    names = _names_in_vary(response.fields) - {"*"}
    if _COOKIE in request.headers and "private" in cache_control(response.fields).names:
        names.add("cookie")
    return tuple(sorted(names))


def names_added(stored: StoredResponse) -> tuple[str, ...]:
    """Give the names in the ``Vary`` of *stored* that it is not selected by yet: an update has brought them (§3.2)."""
    known = {name for name, _ in stored.vary}
    return tuple(sorted(_names_in_vary(stored.fields) - {"*"} - known))


def _names_in_vary(fields: MultiMapping[str]) -> set[str]:
    value = combined(fields, _VARY)
    return set(value.lower().replace(",", " ").split()) if value else set()


def selecting_values(headers: MultiMapping[str], names: Iterable[str], secret: bytes) -> Vary:
    """
    Give what a request says in the fields *names*, as keyed digests of normalised values.

    Args:
        headers: Fields of the request.
        names: Lower-case names, in the order of the result.
        secret: Key of the digests, at most 64 bytes: what a stored `Vary` tells about credentials is of no use
            without it.
    """
    return tuple([(name, _digest(name, combined(headers, name), secret)) for name in names])


def selects(stored_vary: Vary, headers: MultiMapping[str], secret: bytes) -> bool:
    """Tell whether a request with *headers* agrees with *stored_vary* in every selecting field (§4.1)."""
    return all(digest == _digest(name, combined(headers, name), secret) for name, digest in stored_vary)


def _digest(name: str, value: str | None, secret: bytes) -> bytes:
    if value is None:
        return ABSENT
    normalised = _NORMALISED.get(name, _without_spaces)(value)
    return blake2b(f"{name}:{normalised}".encode("utf-8", "surrogatepass"), digest_size=16, key=secret).digest()


# --- normal forms: what §4.1 permits ---


def _exact(value: str) -> str:
    return value.strip()


def _without_spaces(value: str) -> str:
    """Leave out the white space around commas; in a field we know nothing of, no more than that is safe."""
    return ",".join(members(value)) if "," in value else value.strip()


def _preferences(value: str) -> str:
    """
    Normalise a list of weighted ranges: their order, case and the spelling of weights don't matter.

    RFC 9110 §12.5 gives the order no meaning, in §12.5.4 not even where some origins see one.
    """
    return ",".join(sorted({_preference(member.lower()) for member in members(value)}))


def _media_preferences(value: str) -> str:
    """Normalise ``Accept``: as `_preferences`, but parameter values of media types may depend on case (§12.5.1)."""
    return ",".join(sorted({_preference(_lower_type(member)) for member in members(value)}))


def _lower_type(member: str) -> str:
    media_range, semicolon, parameters = member.partition(";")
    return media_range.lower() + semicolon + parameters


def _preference(member: str) -> str:
    if ";" not in member:
        return member
    if '"' in member:  # A semicolon may be quoted: leave it as it stands.
        return member
    parts = [part.strip() for part in member.split(";")]
    return ";".join(filter(None, [parts[0], *map(_weight, parts[1:])]))


def _weight(parameter: str) -> str:
    """Give a weight its shortest form, the default weight none (RFC 9110 §12.4.2); other parameters as they are."""
    match = re.fullmatch(_WEIGHT, parameter)
    if match is None:
        return parameter
    decimals = (match[2] or "").rstrip("0")
    if match[1] == "1":
        return parameter if decimals else ""
    return f"q=0.{decimals}" if decimals else "q=0"


_NORMALISED: dict[str, Callable[[str], str]] = {
    "accept": _media_preferences,
    "accept-charset": _preferences,
    "accept-encoding": _preferences,
    "accept-language": _preferences,
    # Who is asking: nothing is normalised.
    "authorization": _exact,
    "cookie": _exact,
    "proxy-authorization": _exact,
}
