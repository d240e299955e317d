"""
The default mode: the options decide what is stored and for how long.

Of what the origin says only three things count: ``Vary``, validators, and ``private`` together with cookies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multidict import istr

from .._model import FOREVER, Expiration, Header, OriginResponse, Request, Rules, StoredResponse
from ._fields import CONDITIONS
from ._outcomes import (
    Complete,
    Decision,
    DoNotStore,
    Finding,
    Forward,
    GatewayTimeout,
    Reuse,
    Revalidate,
    Store,
    Storing,
    ToOrigin,
)
from ._selecting import selecting_names, selects
from ._stored_fields import may_be_sent, updated

DEFAULT_CODES = frozenset({200})
"""Status codes that are stored where the options name none."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Status codes that aiohttp follows."""

VALIDATED_METHODS = frozenset({"GET", "HEAD"})
"""Methods that a 304 answers; to others a condition that fails is a 412, and nothing is done (RFC 9110 §13.2.2)."""

_RANGE = istr("Range")
_ETAG, _LAST_MODIFIED = istr("ETag"), istr("Last-Modified")
_NEVER = Expiration()
_NOTHING_STORED, _VARY_MISS = Forward(), Forward(forward="vary-miss")

SHOWN_ON_GATEWAY_TIMEOUT: tuple[Header, ...] = ()
"""Nothing."""

CLOCK_TOLERANCE = 60.0
"""Seconds by which an entry may be dated in the future; beyond, the clock was set back and its age is unknown."""


def decide(request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes) -> Decision:
    """
    Decide whether what is *stored* answers *request*, which does not pass through, at *now*.

    Args:
        stored: What was found under the request's key; several where responses differ by ``Vary``.
        now: POSIX time, in seconds.
        secret: The store's secret, with which `StoredResponse.vary` was made.
    """
    newest = _selected(request, stored, rules, secret)
    if newest is not None and is_fresh(newest, now) and not rules.refresh:
        return Reuse(newest, _age(newest, now))
    if rules.only_if_cached:
        return GatewayTimeout()
    if newest is None:
        return _VARY_MISS if stored else _NOTHING_STORED
    fallback = _fallback(newest, rules, now)
    if conditions := validators(newest):
        return Revalidate((newest,), conditions, fallback)
    why = "refresh was asked for" if rules.refresh else "expired, can't be validated"
    return Forward(fallback, forward="request" if rules.refresh else "stale", why=why)


def explain(
    request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes
) -> tuple[Decision, tuple[Finding, ...]]:
    """
    Give what becomes of *request*, and every rule that counts for that; the arguments are those of `decide`.

    The response is used as it is where all rules hold.
    """
    newest = _selected(request, stored, rules, secret)
    findings = [*_of_request(request, rules)]
    detail = f"{len(stored)} found" if stored else "nothing stored"
    findings.append(Finding("options", "a stored response fits Vary and allowed_codes", newest is not None, detail))
    if newest is not None:
        findings += _of_stored(newest, rules, now)
    return passes_through(request, rules) or decide(request, stored, rules, now, secret=secret), tuple(findings)


def passes_through(request: Request, rules: Rules) -> Forward | None:
    """Tell whether *request* does not concern the cache at all, and why."""
    if request.method not in rules.allowed_methods:
        return Forward(may_be_stored=False, forward="method", why=f"method {request.method}")
    if _expiration(rules).forbids_caching:
        return Forward(may_be_stored=False, forward="bypass", why="expire_after=0")
    for name in CONDITIONS:
        if name in request.headers:
            return Forward(may_be_stored=False, forward="request", why=f"the caller's own {name}")
    if _RANGE in request.headers and not keeps_ranges_apart(rules):
        return Forward(may_be_stored=False, forward="partial", why="Range, and 206 is not in allowed_codes")
    return None


def keeps_ranges_apart(rules: Rules) -> bool:
    """Tell whether each ``Range`` has entries of its own."""
    return rules.allowed_codes is not None and 206 in rules.allowed_codes


def is_fresh(stored: StoredResponse, now: float) -> bool:
    """Tell whether *stored* has not expired; one from the future has, for its true age is unknown."""
    return now < stored.expires_time and stored.created_time <= now + CLOCK_TOLERANCE


def validators(stored: StoredResponse) -> tuple[Header, ...]:
    """Give the conditional fields that validate *stored* (RFC 9110 §13.1.2, §13.1.3)."""
    if stored.method not in VALIDATED_METHODS:
        return ()
    fields = stored.fields
    conditions: list[Header] = []
    if (etag := fields.get(_ETAG)) and may_be_sent(etag):
        conditions.append(("If-None-Match", etag))
    if (last_modified := fields.get(_LAST_MODIFIED)) and may_be_sent(last_modified):
        conditions.append(("If-Modified-Since", last_modified))
    return tuple(conditions)


def may_store(request: Request, response: OriginResponse, rules: Rules, now: float) -> Storing:
    """Decide whether the options allow *response* to be stored, and until when it is fresh."""
    if response.status not in _allowed_codes(rules):
        return DoNotStore(f"status {response.status} is not in allowed_codes")
    expires_time = _expiration(rules).expires_time(now)
    if expires_time <= now:
        return DoNotStore("expire_after leaves it no lifetime")
    return Store(
        expires_time,
        selecting_names(request, response),
        worth_keeping_stale=_is_worth_keeping_stale(request, response, rules),
    )


def freshen(stored: StoredResponse, response: OriginResponse, rules: Rules, now: float) -> StoredResponse:
    """Renew *stored* by a 304: its fields (RFC 9111 §3.2), its times by the options."""
    return updated(stored, response, now).replace(expires_time=_expiration(rules).expires_time(now))


def selected_by_304(candidates: Sequence[StoredResponse], response: OriginResponse) -> StoredResponse | None:
    """Give the stored response that a 304 confirms: here, the one whose validators were sent."""
    return candidates[0] if candidates else None


def invalidated_urls(request: Request, response: OriginResponse) -> tuple[str, ...]:
    """Give what *request* makes invalid: nothing, for in this mode the options alone decide."""
    return ()


def also_answered_by(method: str) -> tuple[str, ...]:
    """Give whose responses answer *method* too: nobody's, for GET and HEAD have entries of their own."""
    return ()


def reuse_validated(
    request: Request, stored: StoredResponse, asked: Revalidate | Complete, now: float, *, secret: bytes
) -> Reuse:
    """Give the whole response, whatever its age."""
    return Reuse(stored, _age(stored, now), forward=asked.forward, why="validated")


def freshened_by_answer(
    stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
) -> tuple[StoredResponse, ...]:
    """Tell what a 206, or a 304 to the caller's own condition, says of stored responses: nothing in this mode."""
    return ()


def completes(part: StoredResponse, response: OriginResponse) -> bool:
    """Tell whether a response brings what a part lacks: no, this mode makes no whole of parts."""
    return False


def completed(
    part: StoredResponse, response: OriginResponse, content: bytes, rules: Rules, now: float
) -> StoredResponse | None:
    """Give the whole of a part and the rest: none, as `completes` says."""
    return None


def to_keep(stored: StoredResponse | None, new: StoredResponse, max_size: int | None = None) -> StoredResponse | None:
    """Give what to store of a part: all of it, for each ``Range`` has an entry of its own."""
    return new


def may_store_hop(request: Request, response: OriginResponse, rules: Rules, now: float) -> Storing:
    """Decide whether a redirect may be stored if it leads to a stored response, whose lifetime it then gets."""
    if response.status not in REDIRECTS or "Location" not in response.fields:
        return DoNotStore("not a redirect")
    return Store(
        FOREVER,
        selecting_names(request, response),
        worth_keeping_stale=_is_worth_keeping_stale(request, response, rules),
    )


def may_keep(stored: StoredResponse) -> bool:
    """Tell whether *stored* may stay after it was freshened: always."""
    return True


def freshened_by_head(
    stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
) -> tuple[tuple[StoredResponse, ...], tuple[StoredResponse, ...]]:
    """Tell what a HEAD's answer says of stored GET responses: nothing in this mode."""
    return (), ()


def shown_on_reuse(reuse: Reuse, now: float, *, validated: bool = False, collapsed: bool = False) -> tuple[Header, ...]:
    """Give what a reused response shows in addition: nothing, it is as it was stored."""
    return ()


def shown_on_forward(
    forward: ToOrigin, status: int, storing: Storing | None, now: float, *, collapsed: bool = False
) -> tuple[Header, ...]:
    """Give what the origin's response shows in addition: nothing."""
    return ()


def _selected(request: Request, stored: Sequence[StoredResponse], rules: Rules, secret: bytes) -> StoredResponse | None:
    """Give the newest of *stored* that fits *request* and the lists, which hold on reading too; ``None``: none does."""
    allowed_codes = _allowed_codes(rules)
    newest: StoredResponse | None = None
    for one in stored:
        # A hop that was followed is judged by where it led.
        is_allowed = one.status in allowed_codes or one.redirects_to is not None
        is_newer = newest is None or one.created_time > newest.created_time
        if is_allowed and is_newer and (not one.vary or selects(one.vary, request.headers, secret)):
            newest = one
    return newest


def _of_request(request: Request, rules: Rules) -> Iterator[Finding]:
    conditions = [str(name) for name in CONDITIONS if name in request.headers]
    ranges = _RANGE not in request.headers or keeps_ranges_apart(rules)
    yield Finding(
        "options", "the method is in allowed_methods", request.method in rules.allowed_methods, request.method
    )
    expiration = _expiration(rules)
    yield Finding("options", "expire_after is not 0", not expiration.forbids_caching, str(expiration))
    yield Finding("options", "the caller sets no condition", not conditions, ", ".join(conditions) or "none")
    yield Finding("options", "no Range, or 206 in allowed_codes", ranges, request.headers.get(_RANGE, "no Range"))
    yield Finding("options", "no refresh was asked for", not rules.refresh, f"refresh={rules.refresh}")


def _of_stored(stored: StoredResponse, rules: Rules, now: float) -> Iterator[Finding]:
    age, left = _age(stored, now), stored.expires_time - now
    rest = "never expires" if left == FOREVER else f"{left:.0f} s left"
    yield Finding("options", "it has not expired", is_fresh(stored, now), f"age {age:.0f} s, {rest}")
    if is_fresh(stored, now):
        return
    conditions = validators(stored)
    detail = str(dict(conditions)) if conditions else f"no validator for {stored.method}"
    yield Finding("§4.3.1", "it can be validated", bool(conditions), detail)
    stands_in = _fallback(stored, rules, now) is not None
    yield Finding("options", "it stands in for a failing origin", stands_in, f"stale_if_error={rules.stale_if_error:g}")


def _expiration(rules: Rules) -> Expiration:
    return rules.override or rules.default or _NEVER


def _allowed_codes(rules: Rules) -> frozenset[int]:
    return DEFAULT_CODES if rules.allowed_codes is None else rules.allowed_codes


def _is_worth_keeping_stale(request: Request, response: OriginResponse, rules: Rules) -> bool:
    has_validator = _ETAG in response.fields or _LAST_MODIFIED in response.fields
    return (has_validator and request.method in VALIDATED_METHODS) or rules.stale_if_error > 0


def _age(stored: StoredResponse, now: float) -> float:
    # The clock may have stepped back since.
    return max(0.0, now - stored.created_time)


def _fallback(stored: StoredResponse, rules: Rules, now: float) -> Reuse | None:
    if now - stored.expires_time > rules.stale_if_error or rules.stale_if_error == 0:
        return None
    return Reuse(stored, _age(stored, now), is_stale=not is_fresh(stored, now), why="stale_if_error")
