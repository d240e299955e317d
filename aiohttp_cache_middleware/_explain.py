"""``cache.explain``: what the cache would do with a request now, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._policy import Complete, Forward, GatewayTimeout, Reuse, Revalidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._model import Request, StoredResponse
    from ._policy import Decision, Finding


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


def explained(
    request: Request,
    key: str | None,
    stored: Sequence[StoredResponse],
    decision: Decision,
    findings: tuple[Finding, ...],
    now: float,
    why_not_stored: str | None,
) -> Explanation:
    """Put a decision into words."""
    match decision:
        case Reuse():
            verb, may_be_stored = ("serve stale" if decision.is_stale else "reuse"), decision.revalidate is not None
        case Revalidate():
            verb, may_be_stored = "revalidate", True
        case Complete():
            verb, may_be_stored = "complete", True
        case Forward():
            verb, may_be_stored = ("forward" if decision.may_be_stored else "bypass"), decision.may_be_stored
        case GatewayTimeout():
            verb, may_be_stored = "gateway timeout", False
    return Explanation(
        method=request.method,
        url=request.url,
        decision=verb,
        why=decision.why,
        findings=findings,
        key=key or None,
        stored=tuple(_line(one, now) for one in stored),
        may_be_stored=may_be_stored,
        why_not_stored=why_not_stored,
    )


def _line(stored: StoredResponse, now: float) -> str:
    age = f"{max(0.0, now - stored.created_time):.0f} s old"
    rest = stored.expires_time - now
    life = (
        "never expires"
        if rest == float("inf")
        else f"fresh for {rest:.0f} s"
        if rest > 0
        else f"expired {-rest:.0f} s ago"
    )
    varies = f", varies by {', '.join(name for name, _ in stored.vary)}" if stored.vary else ""
    return f"{stored.method} {stored.status}, {stored.size} bytes, {age}, {life}{varies}"
