"""Reuse, revalidate or forward (RFC 9111 §4)."""

from __future__ import annotations

import math

import pytest

from aiohttp_cache_middleware._model import Expiration, Rules
from aiohttp_cache_middleware._policy._outcomes import Complete, Decision, Forward, GatewayTimeout, Reuse, Revalidate
from tests.policy.making import DAY, T0, Fields, a_request, a_stored, an_answer, date, decided, stored_as

TAG = {"ETag": '"a"'}


def kind(decision: Decision) -> str:
    """Name a decision; a reuse that goes on in the background is another kind."""
    match decision:
        case Reuse():
            return "reuse" if decision.revalidate is None else "reuse and refresh"
        case Revalidate():
            return "revalidate"
        case Complete():
            return "complete"
        case Forward():
            return "forward"
        case GatewayTimeout():
            return "504"


def said(control: str, **fields: str) -> dict[str, str]:
    return {"Cache-Control": control, **fields}


@pytest.mark.parametrize(
    ("response", "after", "expected"),
    [
        pytest.param(said("max-age=60"), 59, "reuse", id="§4 fresh"),
        pytest.param(said("max-age=60"), 60, "forward", id="§4.2.4 stale, no validator"),
        pytest.param(said("max-age=60", **TAG), 60, "revalidate", id="§4.3 stale, a validator"),
        pytest.param({"Last-Modified": date(T0 - 1000)}, 99, "reuse", id="§4.2.2 heuristically fresh"),
        pytest.param({"Last-Modified": date(T0 - 1000)}, 100, "revalidate", id="§4.2.2 no longer"),
        pytest.param(said("max-age=60", Age="50"), 11, "forward", id="§4.2.3 Age counts"),
        pytest.param(said("max-age=60, no-cache", **TAG), 1, "revalidate", id="§5.2.2.4 no-cache, though fresh"),
        pytest.param(said('max-age=60, no-cache="x"'), 1, "reuse", id="§5.2.2.4 no-cache for a field"),
        pytest.param(said("max-age=60, must-revalidate", **TAG), 1, "reuse", id="§5.2.2.2 must-revalidate, fresh"),
        pytest.param(
            said("max-age=60, must-revalidate", **TAG), 61, "revalidate", id="§5.2.2.2 must-revalidate, stale"
        ),
        pytest.param(said("max-age=60, immutable", **TAG), 61, "revalidate", id="8246 §2 stale"),
        pytest.param(said("max-age=60, private"), 1, "reuse", id="§5.2.2.7 private"),
        pytest.param(said("max-age=60, s-maxage=1"), 9, "reuse", id="§5.2.2.10 s-maxage"),
        pytest.param(said("max-age=60"), -3600, "forward", id="a clock set back an hour"),
        pytest.param(said("max-age=1, stale-while-revalidate=9", **TAG), 5, "reuse and refresh", id="5861 §3 within"),
        pytest.param(said("max-age=1, stale-while-revalidate=9"), 5, "reuse and refresh", id="5861 §3 no validator"),
        pytest.param(said("max-age=1, stale-while-revalidate=9", **TAG), 10, "revalidate", id="5861 §3 after"),
        pytest.param(
            said("max-age=1, stale-while-revalidate=9, must-revalidate", **TAG),
            5,
            "revalidate",
            id="§5.2.2.2 over 5861 §3",
        ),
        pytest.param(
            said("max-age=1, stale-while-revalidate=9, no-cache", **TAG), 5, "revalidate", id="§5.2.2.4 over 5861 §3"
        ),
    ],
)
def test_response_directives(response: Fields, after: float, expected: str) -> None:
    assert kind(decided(a_stored(response), after=after)) == expected


@pytest.mark.parametrize(
    ("asked", "response", "after", "expected"),
    [
        pytest.param("max-age=10", "max-age=60", 10, "reuse", id="§5.2.1.1 young enough"),
        pytest.param("max-age=10", "max-age=60", 11, "revalidate", id="§5.2.1.1 too old"),
        pytest.param("max-age=0", "max-age=60", 0, "revalidate", id="§5.2.1.1 max-age=0, even at once"),
        pytest.param("max-age=x", "max-age=60", 1, "revalidate", id="§5.2.1.1 unintelligible"),
        pytest.param("max-age=0", "max-age=60, immutable", 1, "reuse", id="8246 §2 reload of what never changes"),
        pytest.param("no-cache", "max-age=60, immutable", 1, "revalidate", id="8246 §2 forced reload"),
        pytest.param("max-age=5", "max-age=60, immutable", 6, "revalidate", id="§5.2.1.1 immutable, and too old"),
        pytest.param("min-fresh=10", "max-age=60", 50, "reuse", id="§5.2.1.3 fresh long enough"),
        pytest.param("min-fresh=10", "max-age=60", 51, "revalidate", id="§5.2.1.3 not long enough"),
        pytest.param("min-fresh=x", "max-age=60", 1, "revalidate", id="§5.2.1.3 unintelligible"),
        pytest.param("max-stale=10", "max-age=60", 70, "reuse", id="§5.2.1.2 within"),
        pytest.param("max-stale=10", "max-age=60", 71, "revalidate", id="§5.2.1.2 beyond"),
        pytest.param("max-stale", "max-age=60", 1e6, "reuse", id="§5.2.1.2 any staleness"),
        pytest.param("max-stale=x", "max-age=60", 61, "revalidate", id="§5.2.1.2 unintelligible"),
        pytest.param("max-stale", "max-age=60, must-revalidate", 61, "revalidate", id="§5.2.2.2 over max-stale"),
        pytest.param("max-stale", "max-age=60, no-cache", 1, "revalidate", id="§5.2.2.4 over max-stale"),
        pytest.param("max-stale, max-age=65", "max-age=60", 66, "revalidate", id="§5.2.1.1 and too old for that"),
        pytest.param("no-cache", "max-age=60", 1, "revalidate", id="§5.2.1.4 no-cache"),
        pytest.param("NO-CACHE", "max-age=60", 1, "revalidate", id="§5.2 any case"),
        pytest.param("no-store", "max-age=60", 1, "forward", id="§5.2.1.5 no-store"),
        pytest.param("only-if-cached", "max-age=60", 1, "reuse", id="§5.2.1.7 usable"),
        pytest.param("only-if-cached", "max-age=60", 61, "504", id="§5.2.1.7 stale"),
        pytest.param("only-if-cached, max-stale", "max-age=60", 61, "reuse", id="§5.2.1.7 with max-stale"),
        pytest.param("only-if-cached, no-cache", "max-age=60", 1, "504", id="§5.2.1.7 with no-cache"),
        pytest.param("only-if-cached", "max-age=1, stale-while-revalidate=9", 5, "504", id="5861 §3 needs the network"),
        pytest.param("max-age=3", "max-age=1, stale-while-revalidate=9", 5, "revalidate", id="§5.2.1.1 over 5861 §3"),
        pytest.param("unknown=1", "max-age=60", 1, "reuse", id="§5.2.3 unknown"),
    ],
)
def test_request_directives(asked: str, response: str, after: float, expected: str) -> None:
    assert kind(decided(a_stored(said(response, **TAG)), said(asked), after=after)) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({"Pragma": "no-cache"}, "revalidate", id="§5.4 Pragma"),
        pytest.param({"Pragma": "No-Cache, x"}, "revalidate", id="§5.4 in a list, any case"),
        pytest.param(
            {"Pragma": "no-cache", "Cache-Control": "max-age=50"}, "reuse", id="§5.4 Cache-Control goes first"
        ),
        pytest.param({"Pragma": "other"}, "reuse", id="§5.4 something else"),
    ],
)
def test_pragma(asked: Fields, expected: str) -> None:
    assert kind(decided(a_stored(said("max-age=60", **TAG)), asked, after=1)) == expected


@pytest.mark.parametrize(
    ("rules", "after", "expected"),
    [
        pytest.param(Rules(refresh=True), 1, "revalidate", id="refresh"),
        pytest.param(Rules(only_if_cached=True), 1, "reuse", id="only_if_cached, fresh"),
        pytest.param(Rules(only_if_cached=True), 61, "504", id="only_if_cached, stale"),
        pytest.param(Rules(override=Expiration(0)), 1, "forward", id="expire_after=0 for the request"),
        pytest.param(Rules(override=Expiration(5)), 50, "reuse", id="expire_after counts when storing"),
        pytest.param(Rules(default=Expiration(0)), 1, "reuse", id="HTTP goes first"),
        pytest.param(Rules(allowed_codes=frozenset({404})), 1, "forward", id="allowed_codes hold on reading"),
        pytest.param(Rules(allowed_methods=frozenset({"HEAD"})), 1, "forward", id="allowed_methods hold on reading"),
    ],
)
def test_options(rules: Rules, after: float, expected: str) -> None:
    assert kind(decided(a_stored(said("max-age=60", **TAG)), after=after, rules=rules)) == expected


@pytest.mark.parametrize(
    ("decision", "forward", "may_be_stored"),
    [
        pytest.param(decided([]), "uri-miss", True, id="9211 §2.2 uri-miss"),
        pytest.param(decided([], said("no-store")), "bypass", False, id="9211 §2.2 bypass"),
        pytest.param(decided([], method="POST"), "method", False, id="9211 §2.2 method"),
        pytest.param(decided([], {"Range": "bytes=0-1"}), "uri-miss", True, id="9111 §3.3 a part may be stored"),
        pytest.param(decided([], {"Range": "bytes=0-1,3-4"}), "uri-miss", False, id="9111 §3.3 not several"),
        pytest.param(decided(a_stored(said("max-age=9")), after=10), "stale", True, id="9211 §2.2 stale"),
        pytest.param(decided(a_stored(said("max-age=9")), said("no-cache")), "request", True, id="9211 §2.2 request"),
    ],
)
def test_why_a_request_goes_out(decision: Decision, forward: str, may_be_stored: bool) -> None:
    assert isinstance(decision, Forward)
    assert (decision.forward, decision.may_be_stored) == (forward, may_be_stored)


def test_revalidation_says_what_and_why() -> None:
    """§4.3.1, RFC 9211 §2.2."""
    stored = a_stored(said("max-age=60", ETag='"a"'))
    stale, forced = decided(stored, after=61), decided(stored, said("no-cache"))
    assert isinstance(stale, Revalidate)
    assert (stale.candidates, stale.headers, stale.forward) == ((stored,), (("If-None-Match", '"a"'),), "stale")
    assert isinstance(forced, Revalidate)
    assert forced.forward == "request"


def test_the_age_is_the_current_one() -> None:
    """§4.2.3, §5.1."""
    decision = decided(a_stored(said("max-age=60", Age="30")), after=7)
    assert isinstance(decision, Reuse)
    assert (decision.age, decision.is_stale) == (37, False)


def test_a_stale_reuse_says_so() -> None:
    """§4.2.4."""
    decision = decided(a_stored(said("max-age=60")), said("max-stale"), after=61)
    assert isinstance(decision, Reuse)
    assert decision.is_stale


def test_a_refresh_in_the_background_is_conditional() -> None:
    """RFC 5861 §3."""
    stored = a_stored(said("max-age=1, stale-while-revalidate=9", **TAG))
    decision = decided(stored, after=5)
    assert isinstance(decision, Reuse)
    assert decision.revalidate == Revalidate((stored,), (("If-None-Match", '"a"'),))


# --- selecting (§4.1) ---


def a_variant(foo: str, etag: str = "", at: float = T0, control: str = "max-age=60", vary: str = "Foo") -> object:
    return stored_as(
        an_answer({"Cache-Control": control, "Vary": vary, "ETag": etag}, at=at), a_request({"Foo": foo} if foo else {})
    )


def test_the_variant_that_fits_is_reused() -> None:
    one, two = a_variant("1"), a_variant("2")
    decision = decided([one, two], {"Foo": "2"}, after=1)  # type: ignore[list-item]
    assert isinstance(decision, Reuse)
    assert decision.stored is two


def test_of_several_that_fit_the_most_recent_is_used() -> None:
    """§4: by Date, not by the order of storing."""
    new = a_stored(said("max-age=60", Date=date(T0 - 1)))
    old = a_stored(said("max-age=60", Date=date(T0 - 5)), at=T0 + 1)
    for candidates in ([old, new], [new, old]):
        decision = decided(candidates, after=2)
        assert isinstance(decision, Reuse)
        assert decision.stored is new


@pytest.mark.parametrize(
    ("variants", "headers"),
    [
        pytest.param([a_variant("1", '"a"'), a_variant("2", '"b"')], '"a", "b"', id="§4.1 all tags in one field"),
        pytest.param(
            [a_variant("1", '"a"'), a_variant("2", 'W/"w"'), a_variant("3", '"c"')], '"a", "c"', id="§4.1 strong ones"
        ),
        pytest.param([a_variant("1", '"a"')], None, id="§4.1 one tag alone may stand for all"),
        pytest.param([a_variant("1", '"a"'), a_variant("2", '"a"')], None, id="§4.1 one tag stands for all"),
        pytest.param([a_variant("1", 'W/"a"')], None, id="§4.1 none but weak ones"),
        pytest.param([a_variant("1")], None, id="§4.1 no tag"),
    ],
)
def test_a_variant_nobody_asked_for_yet(variants: list[object], headers: str | None) -> None:
    decision = decided(variants, {"Foo": "4"}, after=1)  # type: ignore[arg-type]
    assert decision.forward == "vary-miss"  # type: ignore[union-attr]
    if headers is None:
        assert isinstance(decision, Forward)
    else:
        assert isinstance(decision, Revalidate)
        assert decision.headers == (("If-None-Match", headers),)
        assert decision.fallback is None


def test_a_variant_of_another_request_is_never_a_fallback() -> None:
    stored = [a_variant("1", '"a"'), a_variant("2", '"b"')]
    decision = decided(stored, {"Foo": "3"}, rules=Rules(stale_if_error=math.inf))  # type: ignore[arg-type]
    assert isinstance(decision, Revalidate)
    assert decision.fallback is None


# --- HEAD (RFC 9110 §9.3.2) ---


def test_a_stored_get_answers_head() -> None:
    stored = a_stored(said("max-age=60", **{"Content-Length": "10"}))
    decision = decided(stored, method="HEAD", after=1)
    assert isinstance(decision, Reuse)
    assert decision.answer is not None
    assert (decision.answer.status, decision.answer.ranges) == (200, ())
    assert ("Content-Length", "10") in decision.answer.headers


def test_a_stored_head_never_answers_get() -> None:
    stored = stored_as(an_answer(said("max-age=60")), a_request(method="HEAD"), body=b"")
    assert kind(decided(stored, after=1)) == "forward"
    assert kind(decided(stored, method="HEAD", after=1)) == "reuse"


# --- when the origin fails (RFC 5861 §4) ---


@pytest.mark.parametrize(
    ("response", "asked", "option", "after", "stands_by"),
    [
        pytest.param("max-age=60, stale-if-error=9", {}, 0, 69, True, id="5861 §4 within"),
        pytest.param("max-age=60, stale-if-error=9", {}, 0, 70, False, id="5861 §4 after"),
        pytest.param("max-age=60", {}, 0, 61, False, id="§4.2.4 nobody allowed it"),
        pytest.param("max-age=60", {}, 9, 69, True, id="our option"),
        pytest.param("max-age=60", {}, math.inf, 9 * DAY, True, id="our option, any time"),
        pytest.param("max-age=60", said("stale-if-error=9"), 0, 69, True, id="5861 §4 in the request"),
        pytest.param("max-age=60", said("stale-if-error=1"), 99, 69, False, id="5861 §4 the request goes first"),
        pytest.param("max-age=60, stale-if-error=99, must-revalidate", {}, 99, 61, False, id="§5.2.2.2 over it"),
        pytest.param("max-age=60, stale-if-error=99, no-cache", {}, 99, 61, False, id="§5.2.2.4 over it"),
        pytest.param("max-age=60, stale-if-error=99", said("no-cache"), 99, 1, False, id="§5.2.1.4 over it"),
        pytest.param("max-age=60", {}, 99, -7200, False, id="from the future: who knows how stale"),
    ],
)
@pytest.mark.parametrize("fields", [{}, TAG], ids=["forwarded", "revalidated"])
def test_fallback(
    response: str, asked: Fields, option: float, after: float, stands_by: bool, fields: dict[str, str]
) -> None:
    stored = a_stored(said(response, ETag='"needed-to-be-stored"') | fields)
    decision = decided(stored, asked, after=after, rules=Rules(stale_if_error=option))
    assert isinstance(decision, Revalidate | Forward)
    assert (decision.fallback is not None) is stands_by
    if decision.fallback is not None:
        assert decision.fallback.is_stale
        assert decision.fallback.forward == "stale"


# --- the caller's own conditions (§4.3.2) ---


@pytest.mark.parametrize("name", ["If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range"])
def test_the_callers_condition_goes_out_as_it_is(name: str) -> None:
    stored = a_stored(said("max-age=60, stale-if-error=99", **TAG))
    decision = decided(stored, {name: '"x"'}, after=61)
    assert isinstance(decision, Forward)
    assert (decision.fallback is None) is (name in ("If-Match", "If-Unmodified-Since"))


@pytest.mark.parametrize("name", ["If-Match", "If-Unmodified-Since"])
def test_what_is_for_the_origin_is_passed_on_even_if_fresh(name: str) -> None:
    decision = decided(a_stored(said("max-age=60", **TAG)), {name: '"a"'}, after=1)
    assert isinstance(decision, Forward)
    assert decision.forward == "request"


def test_a_range_of_an_encoded_representation_is_passed_on() -> None:
    """RFC 9110 §14.1: we keep decoded bytes. RFC 9211 §2.2: nor is it a part that is stored."""
    stored = a_stored(said("max-age=60", **{"Content-Encoding": "gzip"}))
    decision = decided(stored, {"Range": "bytes=0-1"}, after=1)
    assert isinstance(decision, Forward)
    assert decision.forward == "request"
    assert kind(decided(stored, after=1)) == "reuse"


def test_a_range_in_another_unit_is_passed_on() -> None:
    """RFC 9110 §14.2."""
    assert kind(decided(a_stored(said("max-age=60")), {"Range": "lines=0-1"}, after=1)) == "forward"


@pytest.mark.parametrize(
    ("asked", "option", "may_be_stored"),
    [("bytes=0-1", 0.0, True), ("bytes=0-1", 99.0, True), ("bytes=0-1,3-4", 0.0, False), ("bytes=0-1,3-4", 99.0, True)],
)
def test_a_stale_range_goes_out_with_its_fallback(asked: str, option: float, may_be_stored: bool) -> None:
    """RFC 5861 §4."""
    decision = decided(a_stored(said("max-age=60")), {"Range": asked}, after=61, rules=Rules(stale_if_error=option))
    assert isinstance(decision, Forward)
    assert decision.may_be_stored is may_be_stored
    assert (decision.fallback is None) is (option == 0)
    if decision.fallback is not None:
        assert decision.fallback.answer is not None
        assert decision.fallback.answer.status == 206
