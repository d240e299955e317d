"""
Field values: lists, dates, entity tags, numbers, Cache-Control (RFC 9110 §5.6, §8.8; RFC 9111 §1.2, §5).

Nothing here raises on what a peer sent. What cannot be understood has a meaning, given beside each rule, and
where RFC 9111 leaves a choice it is the one that makes a response stale rather than fresh (§4.2.1).
"""

import calendar
import math
import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from multidict import MultiMapping, istr

GREATEST_DELTA = 2**31
"""What a larger number of seconds counts as (RFC 9111 §1.2.2)."""

CONDITIONS = tuple(
    istr(name) for name in ("If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range")
)
"""Request fields that make a request conditional (RFC 9110 §13.1); `istr` is found three times as fast as `str`."""

TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
"""Pattern of a token, by what it is made of (RFC 9110 §5.6.2)."""

# Patterns are compiled when they are first used: all together would take a tenth of what importing this package does.
_QUOTED_OR_COMMA = r'(?s)"(?:[^"\\]|\\.)*(?P<closed>")?|,'
_ESCAPED = r"(?s)\\(.)"


# --- lists (RFC 9110 §5.6.1) ---


def members(value: str) -> tuple[str, ...]:
    """
    Split a list at its commas, not inside quoted strings; empty members are left out (RFC 9110 §5.6.1.2).

    A quote that is never closed is an ordinary character, so that nothing hides behind it.
    """
    parts = value.split(",") if '"' not in value else _split_around_quotes(value)
    return tuple([stripped for part in parts if (stripped := part.strip(" \t"))])


def _split_around_quotes(value: str) -> list[str]:
    parts = []
    start = 0
    for match in re.finditer(_QUOTED_OR_COMMA, value):
        if match.group() == ",":
            parts.append(value[start : match.start()])
            start = match.end()
        elif match["closed"] is None:
            break
    else:
        return [*parts, value[start:]]
    # The open quote is in the member that has begun; every comma from there on separates.
    return [*parts, *value[start:].split(",")]


def combined(fields: MultiMapping[str], name: str) -> str | None:
    """Give all field lines called *name* as one value (RFC 9110 §5.3); ``None`` where there is none."""
    lines = fields.getall(name, None)
    return None if lines is None else lines[0] if len(lines) == 1 else ", ".join(lines)


def field_members(fields: MultiMapping[str], name: str) -> tuple[str, ...]:
    """Give the members of the list field *name*, from all its lines."""
    value = combined(fields, name)
    return members(value) if value else ()


def unquoted(value: str) -> str:
    """Give the content of a quoted string; anything else as it stands."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(_ESCAPED, r"\1", value[1:-1])
    return value


# --- numbers (RFC 9111 §1.2.2) ---


def delta_seconds(value: str | None) -> int | None:
    """
    Parse a number of seconds; ``None`` for everything that is not plain ASCII digits.

    Numbers above 2^31 are 2^31; leading zeros don't count.
    """
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    digits = value.lstrip("0")
    # int() refuses numbers of thousands of digits, hence the length first.
    return GREATEST_DELTA if len(digits) > 10 else min(int(digits or "0"), GREATEST_DELTA)


# --- dates (RFC 9110 §5.6.7) ---

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH = r"(?P<month>[a-z]{3})"
_DAY_NAME = r"(?:mon|tue|wed|thu|fri|sat|sun)"
# Letters in any case, no zone but GMT: RFC 9111 §4.2. The day of the week is redundant and not compared.
_DATE_FORMATS = (
    rf"{_DAY_NAME}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} gmt",
    rf"(?:mon|tues|wednes|thurs|fri|satur|sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} gmt",
    rf"{_DAY_NAME} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_CLOCK} (?P<year>[0-9]{{4}})",
)


def parse_date(value: str, now: float) -> float | None:
    """
    Parse an HTTP date in any of its three formats.

    Args:
        value: A field value.
        now: POSIX time; decides the century of a two-digit year (at most 50 years ahead).

    Returns:
        POSIX time, or ``None`` for anything else: another zone, a day that does not exist, other separators.
    """
    return _parse_date(value, 1970 + int(now // 31_556_952))


@lru_cache(maxsize=1024)
def _parse_date(value: str, this_year: int) -> float | None:
    matches = (re.fullmatch(pattern, value, re.IGNORECASE | re.ASCII) for pattern in _DATE_FORMATS)
    match = next(filter(None, matches), None)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    second = min(int(match["second"]), 60)
    try:
        moment = datetime(year, _MONTHS[match["month"].lower()], int(match["day"]))
        moment = moment.replace(hour=int(match["hour"]), minute=int(match["minute"]), second=min(second, 59))
    except (KeyError, ValueError):
        return None
    return float(calendar.timegm(moment.timetuple()))


def date_field(fields: MultiMapping[str], name: str, now: float) -> float | None:
    """
    Give the moment a date field states; ``None`` where it is missing or not a date.

    Of several lines the first counts.
    """
    value = fields.get(name)
    return None if value is None else parse_date(value, now)


# --- entity tags (RFC 9110 §8.8.3) ---


class EntityTag(NamedTuple):
    """
    An entity tag.

    Attributes:
        opaque: What stands between the quotes; of a tag sent without quotes, all of it.
        weak: Whether it is marked ``W/``.
    """

    opaque: str
    weak: bool = False


def parse_entity_tag(value: str | None) -> EntityTag | None:
    """
    Parse one entity tag; ``None`` where there is none.

    One without quotes is taken as a strong tag of that text: some origins send such, and compare what they get back.
    """
    if not value:
        return None
    if value.startswith("W/"):
        return EntityTag(value[2:].strip('"'), weak=True)
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return EntityTag(value[1:-1])
    return EntityTag(value)


def weakly_equal(one: EntityTag, other: EntityTag) -> bool:
    """Compare weakly: for GET and HEAD with If-None-Match (RFC 9110 §8.8.3.2)."""
    return one.opaque == other.opaque


def strongly_equal(one: EntityTag, other: EntityTag) -> bool:
    """Compare strongly: for If-Match and If-Range; a weak tag equals nothing (RFC 9110 §8.8.3.2)."""
    return one.opaque == other.opaque and not (one.weak or other.weak)


# --- Cache-Control (RFC 9111 §5.2) ---


class CacheControl(NamedTuple):
    """
    The directives of a request or a response that mean something to a private cache.

    Times are seconds. ``s-maxage``, ``proxy-revalidate`` and ``no-transform`` are for others.

    Attributes:
        names: Lower-case names of all directives, known or not.
        max_age: Freshness lifetime, or the greatest age a request accepts; ``0`` if it cannot be understood.
        no_cache: Validate before every use; also when its argument cannot be understood.
        no_cache_fields: Lower-case field names that ``no-cache="..."`` is limited to.
        max_stale: How far past its expiry a response is accepted; without argument any, unintelligible none.
        min_fresh: How long it must remain fresh; unintelligible: for ever, which asks the origin.
        stale_while_revalidate: RFC 5861 §3; absent or unintelligible: ``0``.
        stale_if_error: RFC 5861 §4; unintelligible: ``0``.
    """

    names: frozenset[str] = frozenset()
    max_age: float | None = None
    no_cache: bool = False
    no_cache_fields: frozenset[str] = frozenset()
    no_store: bool = False
    only_if_cached: bool = False
    must_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    max_stale: float | None = None
    min_fresh: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float | None = None


# A name that is an istr is found in a multidict in half the time; these are looked up in every decision.
_CACHE_CONTROL = istr("Cache-Control")


def cache_control(fields: MultiMapping[str]) -> CacheControl:
    """Give the directives of all ``Cache-Control`` lines."""
    value = combined(fields, _CACHE_CONTROL)
    return _NO_DIRECTIVES if value is None else parse_cache_control(value)


@lru_cache(maxsize=512)
def parse_cache_control(value: str) -> CacheControl:
    """
    Parse ``Cache-Control``: names in any case, arguments as token or quoted string, unknown directives ignored.

    Of a time given more than once the most restrictive value counts (§4.2.1: the first, or stale). White space
    around ``=`` is not allowed and makes a time unintelligible, like signs, fractions and single quotes.
    """
    arguments: dict[str, list[str | None]] = {}
    for directive in members(value):
        name, equals, argument = directive.partition("=")
        arguments.setdefault(name.strip().lower(), []).append(
            unquoted(argument) if equals and name == name.strip() else None
        )
    no_cache_fields = _field_names(arguments.get("no-cache", ()))
    return CacheControl(
        names=frozenset(arguments),
        max_age=_shortest(arguments.get("max-age")),
        no_cache="no-cache" in arguments and not no_cache_fields,
        no_cache_fields=no_cache_fields,
        no_store="no-store" in arguments,
        only_if_cached="only-if-cached" in arguments,
        must_revalidate="must-revalidate" in arguments,
        must_understand="must-understand" in arguments,
        immutable="immutable" in arguments,
        max_stale=math.inf if arguments.get("max-stale") == [None] else _shortest(arguments.get("max-stale")),
        min_fresh=_longest(arguments.get("min-fresh")),
        stale_while_revalidate=_shortest(arguments.get("stale-while-revalidate")) or 0.0,
        stale_if_error=_shortest(arguments.get("stale-if-error")),
    )


def _shortest(arguments: Iterable[str | None] | None) -> float | None:
    """Give the least of several times, ``0`` for one that can't be understood; ``None`` without any."""
    return None if arguments is None else min(float(delta_seconds(argument) or 0) for argument in arguments)


def _longest(arguments: Iterable[str | None] | None) -> float | None:
    """Give the greatest of several times, ``inf`` for one that can't be understood; ``None`` without any."""
    if arguments is None:
        return None
    times = [delta_seconds(argument) for argument in arguments]
    return max(math.inf if time is None else float(time) for time in times)


def _field_names(arguments: Iterable[str | None]) -> frozenset[str]:
    """Give the lower-case names that every argument is a list of; empty if one is missing or holds something else."""
    names: set[str] = set()
    for argument in arguments:
        listed = members(argument or "")
        if not listed or not all(re.fullmatch(TCHARS, name) for name in listed):
            return frozenset()
        names.update(name.lower() for name in listed)
    return frozenset(names)


_NO_DIRECTIVES = CacheControl()
