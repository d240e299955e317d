"""
The answers to a policy's questions, as data: a small type per outcome.

Tuples, as in `_model`.
"""

from typing import Literal, NamedTuple, TypeAlias

from .._model import Header, StoredResponse

PARTIAL = 206
"""Status of a response whose content is a part (RFC 9110 §15.3.7)."""

Why: TypeAlias = Literal[
    # RFC 9211 §2.2, the values of Cache-Status's fwd parameter
    "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial",
]  # fmt: skip


class Answer(NamedTuple):
    """
    How a stored response is shown when it is not shown as it stands (304, 206, 416, or HEAD from a stored GET).

    Attributes:
        status: Status code to show instead of the stored one.
        reason: Reason phrase to show.
        headers: All header fields to show.
        ranges: Parts of the stored body to send, as (start, stop) byte offsets; ``()`` sends no body,
            ``None`` the whole one.
        frames: What stands around the parts of a multipart/byteranges body: one frame before each of `ranges`, and
            one after the last.
    """

    status: int
    reason: str
    headers: tuple[Header, ...]
    ranges: tuple[tuple[int, int], ...] | None = None
    frames: tuple[bytes, ...] = ()


class Reuse(NamedTuple):
    """
    The stored response answers the request.

    Attributes:
        age: Current age in seconds, for the Age field (RFC 9111 §5.1).
        is_stale: Whether it is served though it has expired.
        revalidate: How to refresh it in the background (stale-while-revalidate, RFC 5861 §3), its `headers`
            empty where there is no validator; ``None``: no background refresh.
        answer: How to show it if not as it stands.
        forward: Why the origin was asked (RFC 9211 §2.2) where it confirmed the response or failed; else ``None``.
        why: One line for the log.
    """

    stored: StoredResponse
    age: float
    is_stale: bool = False
    revalidate: "Revalidate | None" = None
    answer: Answer | None = None
    forward: Why | None = None
    why: str = "fresh"


class Revalidate(NamedTuple):
    """
    Ask the origin whether a stored response still holds (RFC 9111 §4.3).

    Attributes:
        candidates: Stored responses whose validators are sent; a 304 selects among them.
        headers: Conditional fields to add to the request; never empty, but for a refresh in the background.
        fallback: What may be handed out when the origin fails (stale-if-error), else ``None``.
        forward: Why the request goes out, in the words of RFC 9211 §2.2.
    """

    candidates: tuple[StoredResponse, ...]
    headers: tuple[Header, ...]
    fallback: Reuse | None = None
    forward: Why = "stale"
    why: str = "stale, has a validator"


class Complete(NamedTuple):
    """
    Ask the origin for what a stored part lacks of the whole (RFC 9111 §3.4).

    Attributes:
        part: What is stored.
        headers: ``Range`` and ``If-Range`` to add to the request.
        fallback: ``None``: a part stands in for nothing.
        forward: Why the request goes out, in the words of RFC 9211 §2.2.
    """

    part: StoredResponse
    headers: tuple[Header, ...]
    fallback: None = None
    forward: Why = "partial"
    why: str = "§3.4 a part is stored: the origin is asked for the rest"


class Forward(NamedTuple):
    """
    Ask the origin.

    Attributes:
        fallback: What may be handed out when the origin fails (stale-if-error), else ``None``.
        may_be_stored: Whether the answer might be stored and so shared with identical requests in flight.
        forward: Why the request goes out, in the words of RFC 9211 §2.2.
    """

    fallback: Reuse | None = None
    may_be_stored: bool = True
    forward: Why = "uri-miss"
    why: str = "nothing stored"


class GatewayTimeout(NamedTuple):
    """Nothing usable is stored and the network must not be touched: 504 (RFC 9111 §5.2.1.7)."""

    why: str = "only-if-cached, nothing usable stored"


ToOrigin: TypeAlias = Forward | Revalidate | Complete
"""What a request asks the origin for."""

Decision: TypeAlias = Reuse | ToOrigin | GatewayTimeout


class Store(NamedTuple):
    """
    The response may be stored (RFC 9111 §3).

    Attributes:
        expires_time: POSIX time at which it stops being fresh, or ``inf``.
        vary: Lower-case names of the selecting fields; ``()`` where any request is answered.
        drop: Lower-case names of response fields that must not be stored (§3.1).
        worth_keeping_stale: Whether it is of use after it has expired (a validator, stale-if-error, ...).
    """

    expires_time: float
    vary: tuple[str, ...] = ()
    drop: frozenset[str] = frozenset()
    worth_keeping_stale: bool = True


class DoNotStore(NamedTuple):
    """
    The response may not be stored.

    Attributes:
        why: One line for the log and the statistics.
        invalidates: Whether what is stored under the same key must not be used any more.
    """

    why: str
    invalidates: bool = False


Storing: TypeAlias = Store | DoNotStore


class Finding(NamedTuple):
    """
    One rule and what it says of a request.

    Attributes:
        section: Where the rule is: a section of RFC 9111 or of another RFC, or ``options``.
        rule: What has to hold for a stored response to be used as it is.
        holds: Whether it does.
        detail: The values that decide it.
    """

    section: str
    rule: str
    holds: bool
    detail: str

    def __str__(self) -> str:
        return f"[{'x' if self.holds else ' '}] {self.section:<9} {self.rule}: {self.detail}"
