"""
The decisions: pure functions of (request, stored, rules, now); no aiohttp, asyncio, clock, I/O or log.

Both modes are policies behind the same questions; nothing else asks which mode is on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .._model import Header, OriginResponse, Request, Rules, StoredResponse
from . import _configured
from ._configured import REDIRECTS
from ._fields import CONDITIONS
from ._outcomes import (
    PARTIAL,
    Answer,
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
from ._selecting import names_added, selecting_values, selects


class Policy(Protocol):
    """
    The questions. Times are POSIX seconds.

    Attributes:
        SHOWN_ON_GATEWAY_TIMEOUT: Fields that a 504 of ours shows in addition.
    """

    SHOWN_ON_GATEWAY_TIMEOUT: tuple[Header, ...]

    def passes_through(self, request: Request, rules: Rules) -> Forward | None:
        """Tell whether *request* goes to the origin whatever is stored, and why."""

    def keeps_ranges_apart(self, rules: Rules) -> bool:
        """Tell whether each ``Range`` has entries of its own."""

    def also_answered_by(self, method: str) -> tuple[str, ...]:
        """Give the other methods whose stored responses may answer a request with *method*."""

    def decide(
        self, request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes
    ) -> Decision:
        """Decide whether what is *stored* answers *request*."""

    def explain(
        self, request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes
    ) -> tuple[Decision, tuple[Finding, ...]]:
        """Give what `passes_through` and `decide` make of *request*, and every rule that counts for that."""

    def reuse_validated(
        self, request: Request, stored: StoredResponse, asked: Revalidate | Complete, now: float, *, secret: bytes
    ) -> Reuse:
        """Give the answer to *request* once the origin, *asked* about it, has confirmed or completed *stored*."""

    def may_store(self, request: Request, response: OriginResponse, rules: Rules, now: float) -> Storing:
        """Decide whether *response* to *request*, which does not pass through, may be stored, and until when fresh."""

    def to_keep(
        self, stored: StoredResponse | None, new: StoredResponse, max_size: int | None = None
    ) -> StoredResponse | None:
        """Give what to store of a part that has arrived where *stored* is; ``None``: nothing."""

    def may_store_hop(self, request: Request, response: OriginResponse, rules: Rules, now: float) -> Storing:
        """Decide the same for a redirect that `may_store` refused, if it leads to a response that is stored."""

    def freshen(self, stored: StoredResponse, response: OriginResponse, rules: Rules, now: float) -> StoredResponse:
        """Renew *stored* by a 304 (or by the answer to a HEAD)."""

    def may_keep(self, stored: StoredResponse) -> bool:
        """Tell whether *stored* may stay in the store after it was freshened."""

    def selected_by_304(self, candidates: Sequence[StoredResponse], response: OriginResponse) -> StoredResponse | None:
        """Give the stored response that a 304 confirms."""

    def freshened_by_answer(
        self, stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
    ) -> tuple[StoredResponse, ...]:
        """Give which stored responses a 206, or a 304 to the caller's own condition, renews, as renewed."""

    def freshened_by_head(
        self, stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
    ) -> tuple[tuple[StoredResponse, ...], tuple[StoredResponse, ...]]:
        """Give which stored GET responses the answer to a HEAD renews, as renewed, and which it makes invalid."""

    def completes(self, part: StoredResponse, response: OriginResponse) -> bool:
        """Tell whether *response* brings what a stored part lacks of the whole."""

    def completed(
        self, part: StoredResponse, response: OriginResponse, content: bytes, rules: Rules, now: float
    ) -> StoredResponse | None:
        """Give the whole of a stored part and the *content* of the response that completes it."""

    def invalidated_urls(self, request: Request, response: OriginResponse) -> tuple[str, ...]:
        """Give the URLs whose stored responses *request* makes invalid."""

    def shown_on_reuse(
        self, reuse: Reuse, now: float, *, validated: bool = False, collapsed: bool = False
    ) -> tuple[Header, ...]:
        """Give the fields that a reused response shows in addition (its own ``Age`` gives way)."""

    def shown_on_forward(
        self,
        forward: ToOrigin,
        status: int,
        storing: Storing | None,
        now: float,
        *,
        collapsed: bool = False,
    ) -> tuple[Header, ...]:
        """Give the fields that the origin's response shows in addition."""


def policy_for(*, http: bool) -> Policy:
    """Give the policy of a mode: HTTP decides, or the options do."""
    if not http:
        return _configured
    from . import _http  # not needed in the default mode

    return _http


__all__ = [
    "CONDITIONS",
    "PARTIAL",
    "REDIRECTS",
    "Answer",
    "Complete",
    "Decision",
    "DoNotStore",
    "Finding",
    "Forward",
    "GatewayTimeout",
    "Policy",
    "Reuse",
    "Revalidate",
    "Store",
    "Storing",
    "ToOrigin",
    "names_added",
    "policy_for",
    "selecting_values",
    "selects",
]
