"""``cache.explain``: what the cache would do with a request now, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._model import FOREVER
from ._policy import Complete, Forward, GatewayTimeout, Reuse, Revalidate
from ._request import Uncacheable

if TYPE_CHECKING:
    from ._core import Core
    from ._inquiries import Inquiries
    from ._lookup import Lookup
    from ._model import StoredResponse
    from ._options import CacheOptions
    from ._policy import Decision, Finding
    from ._request import Asked


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What the cache would do with a request, as data and (``str()``) as text.

    Attributes:
        method: Method of the request.
        url: Its URL, normalised.
        decision: ``"reuse"``, ``"serve stale"``, ``"revalidate"``, ``"complete"`` (ask for what a stored part
            lacks), ``"forward"``, ``"bypass"`` or ``"gateway timeout"``.
        why: The rule that decided, in HTTP mode with its section of RFC 9111.
        findings: Rule by rule what counts for the decision (`Finding`: section, rule, holds, detail).
        key: Primary key of the request; ``None`` where it has none.
        stored: What is stored under the key, a line each: its status, age and rest of life in seconds.
        may_be_stored: Whether the origin's answer might be stored, as far as the request decides that.
        why_not_stored: Why the last response for this request was not stored, if it is remembered.
    """

    method: str
    url: str
    decision: str
    why: str
    findings: tuple[Finding, ...] = ()
    key: str | None = None
    stored: tuple[str, ...] = ()
    may_be_stored: bool = False
    why_not_stored: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.method} {self.url}", f"  would: {self.decision} ({self.why})"]
        lines += [f"  {finding}" for finding in self.findings]
        lines += [f"  stored: {one}" for one in self.stored] or ["  stored: nothing"]
        if self.why_not_stored is not None:
            lines.append(f"  last time not stored: {self.why_not_stored}")
        if self.key is not None:
            lines.append(f"  key: {self.key}")
        return "\n".join(lines)


async def explain(
    core: Core,
    inquiries: Inquiries,
    lookup: Lookup,
    asked: Asked | Uncacheable,
    said: CacheOptions | None,
    *,
    is_disabled: bool,
) -> Explanation:
    """
    Go the way of a request up to the decision, and put that into words.

    Args:
        said: The options of the request, and of the blocks around it.
        is_disabled: Whether the request would go by.
    """
    inquiry = inquiries.about(asked, said)
    await lookup.make_ready(inquiry)
    key = None if isinstance(asked, Uncacheable) else inquiry.key or None
    stored = [] if key is None else lookup.candidates(inquiry, lookup.entry(inquiry))
    now, rules = core.clock(), inquiry.rules
    decision, findings = core.policy.explain(asked.request, stored, rules, now, secret=inquiry.secret)
    passes_by = "disabled" if is_disabled else asked.why if isinstance(asked, Uncacheable) else None
    if passes_by is not None:
        decision = Forward(may_be_stored=False, forward="bypass", why=passes_by)
    if isinstance(decision, Forward) and rules.only_if_cached:
        decision = GatewayTimeout(f"only_if_cached: {decision.why}")
    verb, may_be_stored = _in_words(decision)
    return Explanation(
        method=asked.request.method,
        url=asked.request.url,
        decision=verb,
        why=decision.why,
        findings=findings,
        key=key,
        stored=tuple(_line(one, now) for one in stored),
        may_be_stored=may_be_stored,
        why_not_stored=None if key is None else core.counters.reasons.get(key),
    )


def _in_words(decision: Decision) -> tuple[str, bool]:
    """Give what is done, and whether the origin's answer might be stored."""
    match decision:
        case Reuse():
            return "serve stale" if decision.is_stale else "reuse", decision.revalidate is not None
        case Revalidate():
            return "revalidate", True
        case Complete():
            return "complete", True
        case Forward():
            return "forward" if decision.may_be_stored else "bypass", decision.may_be_stored
        case GatewayTimeout():
            return "gateway timeout", False


def _line(stored: StoredResponse, now: float) -> str:
    age = f"{max(0.0, now - stored.created_time):.0f} s old"
    rest = stored.expires_time - now
    life = f"fresh for {rest:.0f} s" if rest > 0 else f"expired {-rest:.0f} s ago"
    if rest == FOREVER:
        life = "never expires"
    varies = f", varies by {', '.join(name for name, _ in stored.vary)}" if stored.vary else ""
    return f"{stored.method} {stored.status}, {stored.size} bytes, {age}, {life}{varies}"
