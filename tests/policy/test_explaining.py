"""Why a request is answered as it is, rule by rule."""

from __future__ import annotations

import pytest

from aiohttp_cache_middleware._model import Rules, StoredResponse
from aiohttp_cache_middleware._policy._explaining import explain
from aiohttp_cache_middleware._policy._outcomes import Finding, Reuse
from tests.policy.making import SECRET, T0, Fields, a_request, a_stored, decided

STORED = a_stored({"Cache-Control": "max-age=60, stale-while-revalidate=9", "ETag": '"a"'})


def failing(
    stored: list[StoredResponse], asked: Fields, after: float, method: str = "GET", rules: Rules | None = None
) -> set[str]:
    in_force = rules or Rules()
    decision, findings = explain(a_request(asked, method), stored, in_force, T0 + after, secret=SECRET)
    assert decision == decided(stored, asked, after=after, method=method, rules=in_force)
    assert all(str(finding) for finding in findings)
    return {finding.section for finding in findings if not finding.holds}


@pytest.mark.parametrize(
    ("asked", "after", "sections"),
    [
        pytest.param({}, 1, set(), id="§4.2 fresh: every rule holds"),
        pytest.param({}, 61, {"§4.2"}, id="§4.2 stale"),
        pytest.param({}, 99, {"§4.2", "5861 §3"}, id="5861 §3 too stale"),
        pytest.param({"Cache-Control": "no-store"}, 1, {"§5.2.1.5"}, id="§5.2.1.5"),
        pytest.param({"Pragma": "no-cache"}, 1, {"§5.2.1.4"}, id="§5.4"),
        pytest.param({"Cache-Control": "max-age=5, min-fresh=55"}, 6, {"§5.2.1.1", "§5.2.1.3"}, id="§5.2.1"),
        pytest.param({"If-Match": "*"}, 1, {"§4.3.2"}, id="§4.3.2"),
    ],
)
def test_rules_that_do_not_hold(asked: Fields, after: float, sections: set[str]) -> None:
    assert failing([STORED], asked, after) == sections


def test_nothing_stored() -> None:
    assert failing([], {}, 0) == {"§4.1"}


def test_a_method_and_an_option_that_forbid_it() -> None:
    assert failing([STORED], {}, 1, method="POST") == {"§4", "§4.1"}
    assert failing([STORED], {}, 1, rules=Rules(refresh=True)) == {"options"}


def test_a_finding_can_be_printed() -> None:
    decision, findings = explain(a_request(), [STORED], Rules(), T0 + 7, secret=SECRET)
    assert isinstance(decision, Reuse)
    fresh = next(finding for finding in findings if finding.section == "§4.2")
    assert fresh == Finding("§4.2", "it is fresh", True, "age 7 s, 53 s left, lifetime 60 s stated")
    assert str(fresh) == "[x] §4.2      it is fresh: age 7 s, 53 s left, lifetime 60 s stated"
