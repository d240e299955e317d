"""``Cache-Status`` (RFC 9211)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiohttp_cache_middleware._policy._cache_status import cache_status


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, "hit", id="9211 §2.1 hit"),
        pytest.param({"ttl": 59.9}, "hit; ttl=59", id="9211 §2.4 ttl"),
        pytest.param({"ttl": -0.5}, "hit; ttl=-1", id="9211 §2.4 stale"),
        pytest.param({"ttl": math.inf}, "hit", id="9211 §2.4 for ever has no number"),
        pytest.param({"forward": "uri-miss"}, "fwd=uri-miss", id="9211 §2.2 fwd"),
        pytest.param(
            {"forward": "stale", "forward_status": 304}, "fwd=stale; fwd-status=304", id="9211 §2.3 fwd-status"
        ),
        pytest.param({"forward": "miss", "stored": True, "ttl": 5}, "fwd=miss; stored; ttl=5", id="9211 §2.5 stored"),
        pytest.param({"collapsed": True}, "fwd=miss; collapsed", id="9211 §2.6 brought by another request"),
        pytest.param({"forward": "stale", "collapsed": True}, "fwd=stale; collapsed=?0", id="9211 §2.6 but not usable"),
    ],
)
def test_cache_status(facts: dict[str, Any], expected: str) -> None:
    assert cache_status(**facts) == f"aiohttp_cache_middleware; {expected}"
