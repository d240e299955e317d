"""Decide: reuse, revalidate or forward (RFC 9111 §4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .._model import Request, Rules, StoredResponse
from ._answering import answer_to, is_answered_by_part, is_conditional, is_special, only_the_origin_can_tell
from ._combining import to_complete
from ._fields import CacheControl, cache_control, date_field
from ._freshness import current_age, is_fresh, staleness
from ._once import once
from ._outcomes import PARTIAL, Complete, Decision, Forward, GatewayTimeout, Reuse, Revalidate, ToOrigin, Why
from ._selecting import selects
from ._storing import STORABLE_METHODS, may_store_answer_to
from ._validation import conditions, may_be_offered, tells_variants_apart

_NO_CACHE = CacheControl(no_cache=True)
_FRESH = "§4.2 fresh"


def decide(request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes) -> Decision:
    """
    Decide whether what is *stored* answers *request* at *now* (§4).

    Args:
        stored: What was found for the URL: all variants, and for HEAD those of GET too.
        now: POSIX time, in seconds.
        secret: The store's secret, with which `StoredResponse.vary` was made.
    """
    # What all that follows comes to for most hits, in a third of the time.
    if len(stored) == 1 and _is_plainly_reusable(request, stored[0], rules, now):
        return Reuse(stored[0], current_age(stored[0], now), why=_FRESH)
    return decide_by_rules(request, stored, rules, now, secret=secret)


def decide_by_rules(
    request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes
) -> Decision:
    """Decide as `decide` does, going through the rules one by one."""
    decision = _with_network(request, stored, rules, now, secret)
    if isinstance(decision, Reuse) or not (rules.only_if_cached or request_directives(request).only_if_cached):
        return decision
    return GatewayTimeout(f"§5.2.1.7 only-if-cached; {decision.why}")


def _with_network(
    request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, secret: bytes
) -> Reuse | ToOrigin:
    """Decide for a request that may reach the origin."""
    asked = request_directives(request)
    if why := _bypasses(rules, asked):
        return Forward(may_be_stored=False, forward="bypass", why=why)
    if request.method not in STORABLE_METHODS or request.method not in rules.allowed_methods:
        return Forward(may_be_stored=False, forward="method", why=f"§4 responses to {request.method} are not reused")
    candidates = [one for one in stored if _is_for(request, one, rules)]
    selected = _selected(candidates, request, secret)
    if selected is None:
        completing = _to_complete(request, stored, rules, secret)
        return completing or _without_selected(request, stored, candidates, rules)
    said = response_directives(selected)
    return _with_selected(_Case(request, selected, candidates, rules, asked, said, now, secret))


@once
def request_directives(request: Request) -> CacheControl:
    """Give the request's directives; ``Pragma: no-cache`` is one where there is no ``Cache-Control`` (§5.4)."""
    headers = request.headers
    directives = cache_control(headers)
    if not directives.names and "no-cache" in headers.get("Pragma", "").lower():
        return _NO_CACHE
    return directives


@once
def response_directives(stored: StoredResponse) -> CacheControl:
    """Give the directives of a stored response."""
    return cache_control(stored.fields)


# --- with nothing special on any side ---


def _is_plainly_reusable(request: Request, stored: StoredResponse, rules: Rules, now: float) -> bool:
    return (
        _asks_plainly(request)
        and _answers_plainly(stored)
        and is_fresh(stored, now)
        and not rules.refresh
        and rules.allowed_codes is None
        and rules.override is None
        and "GET" in rules.allowed_methods
    )


@once
def _asks_plainly(request: Request) -> bool:
    """Tell whether *request* is a GET for all of it that says nothing about how it wants to be answered."""
    return not is_special(request) and request_directives(request) == CacheControl()


@once
def _answers_plainly(stored: StoredResponse) -> bool:
    """Tell whether *stored* answers every such request for as long as it is fresh."""
    is_whole = stored.method == "GET" and stored.status != PARTIAL
    return is_whole and not stored.vary and not response_directives(stored).no_cache


# --- whatever is stored ---


def _bypasses(rules: Rules, asked: CacheControl) -> str | None:
    if asked.no_store:
        return "§5.2.1.5 the request says no-store"
    if rules.override is not None and rules.override.forbids_caching:
        return "expire_after=0"
    return None


# --- selecting (§4.1) ---


def _is_for(request: Request, stored: StoredResponse, rules: Rules) -> bool:
    """Tell whether *stored* is for this method and holds what is asked for, and would still be stored by the rules."""
    if stored.method != request.method and not (request.method == "HEAD" and stored.method == "GET"):
        return False
    if stored.status == PARTIAL and not is_answered_by_part(request, stored):
        return False
    return rules.allowed_codes is None or stored.status in rules.allowed_codes


def _selected(candidates: Sequence[StoredResponse], request: Request, secret: bytes) -> StoredResponse | None:
    """Give the most recent response that fits the request's selecting fields."""
    fitting = [one for one in candidates if not one.vary or selects(one.vary, request.headers, secret)]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    return max(fitting, key=_recency)


def selected_for(
    request: Request, stored: Sequence[StoredResponse], rules: Rules, secret: bytes
) -> StoredResponse | None:
    """Give the one of all that is *stored* that the decision is about; ``None`` if none fits."""
    return _selected([one for one in stored if _is_for(request, one, rules)], request, secret)


def _recency(stored: StoredResponse) -> tuple[float, float]:
    date_value = date_field(stored.fields, "Date", stored.response_time)
    return (stored.response_time if date_value is None else date_value, stored.response_time)


def _to_complete(request: Request, stored: Sequence[StoredResponse], rules: Rules, secret: bytes) -> Complete | None:
    """Give how to make the whole that is asked for of a stored part (§3.4); ``None`` where that can't be done."""
    parts = [one for one in stored if one.status == PARTIAL and selects(one.vary, request.headers, secret)]
    if not parts or is_special(request):
        return None
    if rules.allowed_codes is not None and not {200, PARTIAL} <= rules.allowed_codes:
        return None
    return to_complete(max(parts, key=_recency))


def _without_selected(
    request: Request, stored: Sequence[StoredResponse], candidates: Sequence[StoredResponse], rules: Rules
) -> Forward | Revalidate:
    may_be_stored = may_store_answer_to(request, rules)
    if not candidates and any(one.status == PARTIAL for one in stored):
        why = "§3.3 the stored part does not hold what is asked for"
        return Forward(may_be_stored=may_be_stored, forward="partial", why=why)
    if not candidates:
        return Forward(may_be_stored=may_be_stored)
    variants = [] if is_special(request) else [one for one in candidates if may_be_offered(one)]
    if not tells_variants_apart(variants):
        return Forward(may_be_stored=may_be_stored, forward="vary-miss", why="§4.1 no stored response fits Vary")
    # Their entity tags alone: a date of one of them would go with the tags of all.
    headers = tuple([header for header in conditions(variants[0], variants[1:]) if header[0] == "If-None-Match"])
    return Revalidate(
        tuple(variants), headers, forward="vary-miss", why="§4.1 no variant fits, the origin may know one"
    )


# --- with a selected response ---


class _Case(NamedTuple):
    """What a decision about one selected response depends on; a tuple, being made in a third of the time."""

    request: Request
    stored: StoredResponse
    candidates: Sequence[StoredResponse]
    rules: Rules
    asked: CacheControl
    said: CacheControl
    now: float
    secret: bytes

    def reuse(self, why: str, *, revalidate: Revalidate | None = None, forward: Why | None = None) -> Reuse:
        return Reuse(
            self.stored,
            current_age(self.stored, self.now),
            is_stale=not is_fresh(self.stored, self.now),
            revalidate=revalidate,
            answer=answer_to(self.request, self.stored, self.secret),
            forward=forward,
            why=why,
        )


def _with_selected(case: _Case) -> Reuse | ToOrigin:
    """Go through the conditions of §4 for a response that fits the request."""
    why: str | None
    if why := only_the_origin_can_tell(case.request, case.stored):
        return Forward(may_be_stored="Range" not in case.request.headers, forward="request", why=why)
    if why := _must_be_validated(case):
        return _validated(case, why, "request" if _by_request(case) else "stale")
    if is_fresh(case.stored, case.now):
        if why := _not_fresh_enough(case):
            return _validated(case, why, "request")
        return case.reuse(_FRESH)
    return _with_stale(case)


def _by_request(case: _Case) -> bool:
    return case.asked.no_cache or case.rules.refresh


def _must_be_validated(case: _Case) -> str | None:
    """Tell why not even a fresh response may be used without asking."""
    if case.asked.no_cache:
        return "§5.2.1.4 the request says no-cache"
    if case.rules.refresh:
        return "refresh was asked for"
    if case.said.no_cache:
        return "§5.2.2.4 the response says no-cache"
    return None


def _not_fresh_enough(case: _Case) -> str | None:
    """Tell why a fresh response is not what the request accepts (§5.2.1.1, §5.2.1.3)."""
    asked, stored = case.asked, case.stored
    if asked.max_age is not None:
        # RFC 8246 §2: max-age=0 is how clients reload, and reloading gains nothing here.
        if asked.max_age == 0 and not case.said.immutable:
            return "§5.2.1.1 the request says max-age=0"
        if 0 < asked.max_age < current_age(stored, case.now):
            return f"§5.2.1.1 the request says max-age={asked.max_age:.0f}"
    if asked.min_fresh is not None and stored.expires_time - case.now < asked.min_fresh:
        return f"§5.2.1.3 the request says min-fresh={asked.min_fresh:.0f}"
    return None


def _with_stale(case: _Case) -> Reuse | ToOrigin:
    """Serve stale where both sides allow it (§4.2.4), else validate."""
    said, asked = case.said, case.asked
    stale_for = staleness(case.stored, case.now)
    if not said.must_revalidate and not _too_old(case):
        if asked.max_stale is not None and stale_for <= asked.max_stale:
            return case.reuse(f"§5.2.1.2 max-stale, stale for {stale_for:.0f} s")
        may_refresh = not (asked.only_if_cached or case.rules.only_if_cached)
        # A request that states what it accepts has not accepted more.
        accepts_any = asked.max_age is None and asked.min_fresh is None and asked.max_stale is None
        if accepts_any and may_refresh and stale_for < said.stale_while_revalidate:
            refresh = Revalidate((case.stored,), conditions(case.stored))
            return case.reuse(f"RFC 5861 §3 stale-while-revalidate, stale for {stale_for:.0f} s", revalidate=refresh)
    return _validated(case, f"§4.2 stale for {stale_for:.0f} s", "stale")


def _too_old(case: _Case) -> bool:
    max_age = case.asked.max_age
    return max_age is not None and current_age(case.stored, case.now) > max_age


# --- asking the origin (§4.3) ---


def _validated(case: _Case, why: str, forward: Why) -> Forward | Revalidate:
    """
    Validate the selected response, or forward the request where it has no validator.

    The caller's own conditional request goes out as it is: the answer, perhaps a 304, is for him (§4.3.2).
    """
    fallback = _fallback(case, forward)
    # Only what might be stored is asked for with a fallback at hand.
    may_be_stored = fallback is not None or may_store_answer_to(case.request, case.rules)
    if is_conditional(case.request):
        return Forward(fallback, may_be_stored, forward, why)
    others = [one for one in case.candidates if one is not case.stored and may_be_offered(one)]
    headers = conditions(case.stored, others)
    if headers:
        return Revalidate((case.stored, *others), headers, fallback, forward, why)
    return Forward(fallback, may_be_stored, forward, f"{why}; no validator")


def _fallback(case: _Case, forward: Why) -> Reuse | None:
    """
    Give what may be served if the origin fails: RFC 5861 §4, or our option of the same name.

    The request's directive goes before the response's and the option. Nothing is served that must be validated
    (§5.2.2.2, §5.2.2.4), or that the request wanted validated.
    """
    said, asked = case.said, case.asked
    if said.must_revalidate or said.no_cache or asked.no_cache:
        return None
    allowed = asked.stale_if_error
    if allowed is None:
        allowed = max(said.stale_if_error or 0.0, case.rules.stale_if_error)
    stale_for = staleness(case.stored, case.now)
    if allowed <= 0 or stale_for > allowed:
        return None
    return case.reuse(f"RFC 5861 §4 stale-if-error, stale for {max(0.0, stale_for):.0f} s", forward=forward)
