"""The HTTP mode, as a whole: a private cache by RFC 9111, behind the questions of `Policy`."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate

from multidict import istr

from .._model import Header, OriginResponse, Request, Rules, StoredResponse
from . import _explaining
from ._answering import answer_to
from ._cache_status import CACHE_NAME, cache_status
from ._combining import completed, completes, freshened_by_part, to_keep
from ._decision import decide, request_directives
from ._fields import GREATEST_DELTA
from ._freshness import current_age
from ._invalidation import invalidated_urls
from ._outcomes import (
    PARTIAL,
    Complete,
    Decision,
    DoNotStore,
    Finding,
    Forward,
    Reuse,
    Revalidate,
    Store,
    Storing,
    ToOrigin,
)
from ._selecting import vary_names
from ._storing import STORABLE_METHODS, may_store
from ._validation import forbids_storing, freshen, freshen_from_head, freshened_by_304, selected_by_304

__all__ = [
    "SHOWN_ON_GATEWAY_TIMEOUT",
    "also_answered_by",
    "completed",
    "completes",
    "decide",
    "explain",
    "freshen",
    "freshened_by_answer",
    "freshened_by_head",
    "invalidated_urls",
    "keeps_ranges_apart",
    "may_keep",
    "may_store",
    "may_store_hop",
    "passes_through",
    "reuse_validated",
    "selected_by_304",
    "shown_on_forward",
    "shown_on_reuse",
    "to_keep",
]

SHOWN_ON_GATEWAY_TIMEOUT: tuple[Header, ...] = (("Cache-Status", f"{CACHE_NAME}; detail=only-if-cached"),)
"""Such a 504 is neither a hit nor forwarded (RFC 9211 §2)."""

_DATE = istr("Date")  # looked up in every hit: an istr is found in half the time


def passes_through(request: Request, rules: Rules) -> Forward | None:
    """
    Tell whether *request* goes to the origin whatever is stored, by its method (§4).

    One that says only-if-cached does not: `decide` refuses it (§5.2.1.7).
    """
    if request.method in STORABLE_METHODS and request.method in rules.allowed_methods:
        return None
    if request_directives(request).only_if_cached:
        return None
    return Forward(may_be_stored=False, forward="method", why=f"method {request.method}")


def explain(
    request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes
) -> tuple[Decision, tuple[Finding, ...]]:
    """Give what becomes of *request*, and every rule that counts for that."""
    decision, findings = _explaining.explain(request, stored, rules, now, secret=secret)
    return passes_through(request, rules) or decision, findings


def also_answered_by(method: str) -> tuple[str, ...]:
    """Give whose responses answer *method* too: a stored GET answers HEAD (§4)."""
    return ("GET",) if method == "HEAD" else ()


def keeps_ranges_apart(rules: Rules) -> bool:
    """Tell whether each ``Range`` has entries of its own: no, a part stands where the complete response would."""
    return False


def reuse_validated(
    request: Request, stored: StoredResponse, asked: Revalidate | Complete, now: float, *, secret: bytes
) -> Reuse:
    """Give the answer to *request* once the origin has confirmed *stored* (§4.3.3), or completed it (§3.4)."""
    answer = answer_to(request, stored, secret)
    return Reuse(stored, current_age(stored, now), answer=answer, forward=asked.forward, why="§4.3.3 validated")


def may_store_hop(request: Request, response: OriginResponse, rules: Rules, now: float) -> Storing:
    """Decide about a redirect that `may_store` refused: each hop is a response like any other here."""
    return DoNotStore("RFC 9111 decides about each hop")


def may_keep(stored: StoredResponse) -> bool:
    """Tell whether *stored* may stay after it was freshened: not if the 304 said no-store (§5.2.2.5) or ``Vary: *``."""
    return not forbids_storing(stored) and vary_names(stored.fields) is not None


def freshened_by_answer(
    stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
) -> tuple[StoredResponse, ...]:
    """Give which stored responses a 206 (§3.4), or a 304 to the caller's own condition (§4.3.4), renews, as renewed."""
    freshened_by = freshened_by_part if response.status == PARTIAL else freshened_by_304
    return freshened_by(stored, response, rules, now)


def freshened_by_head(
    stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
) -> tuple[tuple[StoredResponse, ...], tuple[StoredResponse, ...]]:
    """Give which stored GET responses the answer to a HEAD renews, as renewed, and which it makes invalid (§4.3.5)."""
    outcomes = [(one, freshen_from_head(one, response, rules, now)) for one in stored]
    renewed = [outcome for one, outcome in outcomes if outcome is not None and outcome is not one]
    return tuple(renewed), tuple([one for one, outcome in outcomes if outcome is None])


def shown_on_reuse(reuse: Reuse, now: float, *, validated: bool = False, collapsed: bool = False) -> tuple[Header, ...]:
    """
    Give ``Age`` (§5.1) and ``Cache-Status`` (RFC 9211) of a reused response.

    One that came without ``Date`` shows when it was received (RFC 9110 §6.6.1).
    """
    status = cache_status(
        forward=reuse.forward,
        forward_status=(PARTIAL if reuse.forward == "partial" else 304) if validated else None,
        ttl=reuse.stored.expires_time - now,
        stored=validated and may_keep(reuse.stored),
        collapsed=collapsed,
    )
    age = str(min(int(reuse.age), GREATEST_DELTA))
    date = () if _DATE in reuse.stored.fields else (("Date", formatdate(reuse.stored.response_time, usegmt=True)),)
    return (("Age", age), ("Cache-Status", status), *date)


def shown_on_forward(
    forward: ToOrigin, status: int, storing: Storing | None, now: float, *, collapsed: bool = False
) -> tuple[Header, ...]:
    """Give ``Cache-Status`` (RFC 9211) of the origin's response."""
    will_store = isinstance(storing, Store)
    ttl = storing.expires_time - now if isinstance(storing, Store) else None
    line = cache_status(forward=forward.forward, forward_status=status, ttl=ttl, stored=will_store, collapsed=collapsed)
    return (("Cache-Status", line),)
