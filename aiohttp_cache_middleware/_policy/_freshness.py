"""Freshness lifetime and current age (RFC 9111 §4.2)."""

from __future__ import annotations

import math

from multidict import MultiMapping, istr

from .._model import OriginResponse, Rules, StoredResponse
from ._fields import GREATEST_DELTA, CacheControl, cache_control, date_field, delta_seconds, parse_date
from ._once import once

HEURISTIC_FRACTION = 0.1
"""Share of the time since ``Last-Modified`` for which a response is taken to be fresh (§4.2.2)."""

LONGEST_HEURISTIC = 86_400.0
"""Seconds; §4.2.2 leaves the bound to us. Beyond a day nobody should be surprised by a guess."""

CLOCK_TOLERANCE = 60.0
"""Seconds by which a stored response may come from the future; beyond, the clock has stepped and it is stale."""

HEURISTICALLY_CACHEABLE = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""Status codes whose responses may be fresh without saying so (RFC 9110 §15.1)."""


# --- age (§4.2.3) ---

# Looked up in every decision: an istr is found in half the time.
_AGE, _DATE = istr("Age"), istr("Date")


def age_value(fields: MultiMapping[str]) -> int:
    """
    Give the ``Age`` field in seconds; ``0`` where there is none.

    Of a list, or of several lines, the first member counts; one that is not a plain number is ignored (§5.1).
    """
    value = fields.get(_AGE)
    if value is None:
        return 0
    return delta_seconds(value.partition(",")[0].strip(" \t")) or 0


def corrected_initial_age(fields: MultiMapping[str], request_time: float, response_time: float) -> float:
    """
    Tell how old a response was when it was received; never negative.

    A ``Date`` that is missing or no date counts as the moment of receipt (RFC 9110 §6.6.1).
    """
    date_value = date_field(fields, _DATE, response_time)
    # In whole seconds, as Date is: what it leaves out is no age, and would eat up a lifetime of a second.
    apparent_age = 0.0 if date_value is None else max(0.0, math.floor(response_time) - date_value)
    # The wall clock may step back between request and response.
    response_delay = max(0.0, response_time - request_time)
    return max(apparent_age, age_value(fields) + response_delay)


@once
def initial_age(stored: StoredResponse) -> float:
    """Tell how old *stored* was when it was received."""
    return corrected_initial_age(stored.fields, stored.request_time, stored.response_time)


def current_age(stored: StoredResponse, now: float) -> float:
    """
    Tell how old *stored* is at *now*: seconds since the origin generated or validated it; never negative.

    Args:
        now: POSIX time, in seconds.
    """
    # The wall clock may step back between two runs; a negative stay is no stay.
    resident_time = max(0.0, now - stored.response_time)
    return initial_age(stored) + resident_time


# --- lifetime (§4.2.1, §4.2.2) ---


def explicit_lifetime(fields: MultiMapping[str], directives: CacheControl, response_time: float) -> float | None:
    """
    Give the freshness lifetime that the origin states, in seconds; ``None`` where it states none (§4.2.1).

    ``max-age`` goes before ``Expires``, even where it can't be understood (then ``0``). An ``Expires`` that is
    not a date is in the past (§5.3), and so is one of several that differ in that.
    """
    if directives.max_age is not None:
        return directives.max_age
    expires_lines = fields.getall("Expires", None)
    if expires_lines is None:
        return None
    moments = [parse_date(line, response_time) for line in expires_lines]
    date_value = date_field(fields, _DATE, response_time)
    start = response_time if date_value is None else date_value
    return min(0.0 if moment is None else max(0.0, moment - start) for moment in moments)


def heuristic_lifetime(status: int, fields: MultiMapping[str], directives: CacheControl, response_time: float) -> float:
    """
    Guess a freshness lifetime, in seconds, from ``Last-Modified`` (§4.2.2).

    ``0`` where there is no such date, for a status that is not heuristically cacheable unless ``public`` or
    ``private`` marks the response, and for a response with ``Pragma: no-cache``: whoever sends that to caches that
    know nothing better means it.
    """
    if not is_cacheable_by_default(status, directives) or "no-cache" in fields.get("Pragma", "").lower():
        return 0.0
    last_modified = date_field(fields, "Last-Modified", response_time)
    if last_modified is None:
        return 0.0
    date_value = date_field(fields, _DATE, response_time)
    unchanged_for = (response_time if date_value is None else date_value) - last_modified
    return min(max(0.0, unchanged_for * HEURISTIC_FRACTION), LONGEST_HEURISTIC)


def is_cacheable_by_default(status: int, directives: CacheControl) -> bool:
    """Tell whether a response may be stored, and be fresh, without stating a lifetime (§3, §4.2.2)."""
    return status in HEURISTICALLY_CACHEABLE or not directives.names.isdisjoint(("public", "private"))


def expires_time(response: OriginResponse, rules: Rules, now: float) -> float:
    """
    Tell when *response* stops being fresh: POSIX time, in the past for one that never is.

    A lifetime given with the request goes before what the origin states, that before the ``expire_after`` of the
    URL or the cache, that before our guess. Ours count from *now*, the origin's from when it made the response.
    """
    if rules.override is not None:
        return rules.override.expires_time(now)
    directives = cache_control(response.fields)
    lifetime = explicit_lifetime(response.fields, directives, response.response_time)
    if lifetime is None and rules.default is not None:
        return rules.default.expires_time(now)
    if lifetime is None:
        lifetime = heuristic_lifetime(response.status, response.fields, directives, response.response_time)
    age = corrected_initial_age(response.fields, response.request_time, response.response_time)
    return response.response_time - age + min(lifetime, GREATEST_DELTA)


# --- what is stored ---


def is_fresh(stored: StoredResponse, now: float) -> bool:
    """
    Tell whether *stored* has not expired at *now*.

    Received in the future means the clock was set back: its true age is unknown, so it counts as stale.
    """
    return now < stored.expires_time and stored.response_time <= now + CLOCK_TOLERANCE


def staleness(stored: StoredResponse, now: float) -> float:
    """Give the seconds since *stored* expired; negative while it is fresh, ``inf`` if it comes from the future."""
    if stored.response_time > now + CLOCK_TOLERANCE:
        return math.inf
    return now - stored.expires_time
