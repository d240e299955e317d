"""What the caller is told of the cache: ``Cache-Status`` (RFC 9211)."""

from __future__ import annotations

import math

from ._outcomes import Why

CACHE_NAME = "aiohttp_cache_middleware"
"""How this cache calls itself in ``Cache-Status``."""


def cache_status(
    *,
    forward: Why | None = None,
    forward_status: int | None = None,
    ttl: float | None = None,
    stored: bool = False,
    collapsed: bool = False,
) -> str:
    """
    Tell in the words of RFC 9211 what the cache did with a request.

    Args:
        forward: Why the request went to the origin; ``None``: it did not, a hit.
        forward_status: What the origin answered; ``None``: it was not asked, or failed.
        ttl: Seconds for which the response is still fresh, negative if it is stale; ``None``: not known.
        stored: Whether the origin's answer is being stored.
        collapsed: Whether the request has waited for the answer to an identical one in flight, which came.
    """
    if forward is None and not collapsed:
        status = f"{CACHE_NAME}; hit"
    else:
        # What was collapsed is no hit: it waited for a response that was not there yet (RFC 9211 §2.6).
        status = f"{CACHE_NAME}; fwd={forward or 'miss'}"
        if forward_status is not None:
            status += f"; fwd-status={forward_status}"
        if stored:
            status += "; stored"
        if collapsed:
            # True says that what was waited for has been used, so that nothing had to be forwarded (RFC 9211 §2.6).
            status += "; collapsed" if forward is None else "; collapsed=?0"
    if ttl is not None and math.isfinite(ttl):
        status += f"; ttl={math.floor(ttl)}"
    return status
