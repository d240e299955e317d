"""What holds whatever anybody sends (RFC 9111; Hypothesis)."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiohttp_cache_middleware._model import Expiration, Rules, StoredResponse
from aiohttp_cache_middleware._policy._answering import answer_to
from aiohttp_cache_middleware._policy._decision import decide, decide_by_rules
from aiohttp_cache_middleware._policy._fields import (
    GREATEST_DELTA,
    delta_seconds,
    members,
    parse_cache_control,
    parse_date,
    parse_entity_tag,
)
from aiohttp_cache_middleware._policy._freshness import current_age, is_fresh
from aiohttp_cache_middleware._policy._invalidation import invalidated_urls
from aiohttp_cache_middleware._policy._outcomes import DoNotStore, Forward, Reuse, Revalidate, Store
from aiohttp_cache_middleware._policy._ranges import parse_ranges
from aiohttp_cache_middleware._policy._selecting import selecting_values, selects, vary_names
from aiohttp_cache_middleware._policy._storing import may_store
from aiohttp_cache_middleware._policy._validation import freshen, freshen_from_head, selected_by_304
from tests.policy.making import SECRET, T0, a_request, an_answer, date, decided, fields_of, stored_as

pytestmark = pytest.mark.filterwarnings("error")

anything = st.text(st.characters(exclude_categories=["Cc"]), max_size=60)
fragments = st.sampled_from(
    [
        *'",;=\\ \t*-',
        *("max-age", "no-cache", "no-store", "must-revalidate", "stale-while-revalidate", "max-stale", "private"),
        *("=60", "=0", '="a, b"', "=99999999999999", "W/", '"a"', "bytes=", "0-4", "GMT"),
        "Sun, 06 Nov 1994 08:49:37 GMT",
    ]
)
likely = st.lists(fragments, max_size=8).map("".join)
dates = st.integers(-(10**6), 10**6).map(lambda offset: date(T0 + offset))
values = st.one_of(anything, likely, dates)
names = st.sampled_from(
    [
        *("Cache-Control", "Expires", "Date", "Age", "Vary", "ETag", "Last-Modified", "Pragma", "Connection"),
        *("Location", "Content-Length", "Content-Range", "Content-Encoding", "Content-Location", "Set-Cookie", "X"),
    ]
)
asked_names = st.sampled_from(
    [
        *("Cache-Control", "Pragma", "If-None-Match", "If-Modified-Since", "If-Match", "If-Range", "Range"),
        *("Accept", "Cookie"),
    ]
)
answers = st.lists(st.tuples(names, values), max_size=8)
requests = st.lists(st.tuples(asked_names, values), max_size=4)
statuses = st.sampled_from([200, 201, 203, 204, 206, 301, 302, 304, 404, 410, 500, 503, 599])
moments = st.floats(-1e5, 1e7)
expirations = st.none() | st.builds(Expiration, st.sampled_from([0.0, 60.0, float("inf")]))
rules = st.builds(
    Rules, override=expirations, default=expirations, stale_if_error=st.sampled_from([0.0, 60.0, float("inf")])
)

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(values)
def test_parsing_never_raises(value: str) -> None:
    members(value)
    parse_cache_control(value)
    parse_date(value, T0)
    parse_entity_tag(value)
    parse_ranges(value, 10)
    assert delta_seconds(value) is None or 0 <= cast("int", delta_seconds(value)) <= GREATEST_DELTA
    for name in ("accept", "accept-language", "cookie", "foo"):
        fields = fields_of({name: value})
        assert selects(selecting_values(fields, [name], SECRET), fields, SECRET)
    vary_names(fields_of({"Vary": value}))


@quick
@given(answers, requests, statuses, rules, moments, st.sampled_from(["GET", "HEAD", "POST"]))
def test_no_decision_raises_and_a_reuse_is_right(
    answer: list[tuple[str, str]],
    asked: list[tuple[str, str]],
    status: int,
    in_force: Rules,
    after: float,
    method: str,
) -> None:
    origin = an_answer(answer, status)
    invalidated_urls(a_request(method="POST"), origin)
    storing = may_store(a_request(), origin, in_force, T0)
    if isinstance(storing, DoNotStore):
        return
    stored = stored_as(origin, rules=in_force)
    match decided(stored, asked, after=after, method=method, rules=in_force):
        case Reuse() as reuse:
            assert reuse.stored is stored
            assert reuse.age >= 0
            assert selects(stored.vary, fields_of(asked), SECRET)
        case Revalidate() as revalidate:
            assert revalidate.headers
        case _:
            pass
    request = a_request(asked, method)
    shown = answer_to(request, stored, SECRET)
    for start, stop in (shown.ranges or ()) if shown is not None else ():
        assert 0 <= start < stop <= stored.size


@quick
@given(
    answers,
    requests,
    statuses,
    st.builds(
        Rules,
        allowed_methods=st.sampled_from([frozenset({"GET", "HEAD"}), frozenset({"HEAD"})]),
        allowed_codes=st.sampled_from([None, None, frozenset({200}), frozenset({404})]),
        override=expirations,
        refresh=st.sampled_from([False, False, True]),
        only_if_cached=st.booleans(),
    ),
    st.floats(-100, 100),
    st.sampled_from(["GET", "GET", "HEAD", "POST"]),
)
def test_what_is_decided_at_once_is_what_the_rules_say(
    answer: list[tuple[str, str]],
    asked: list[tuple[str, str]],
    status: int,
    in_force: Rules,
    after: float,
    method: str,
) -> None:
    origin = an_answer([("Cache-Control", "max-age=60"), *answer], status)
    if not isinstance(may_store(a_request(), origin, Rules(), T0), Store):
        return
    stored, request = stored_as(origin), a_request(asked, method)
    by_rules = decide_by_rules(request, [stored], in_force, T0 + after, secret=SECRET)
    assert decide(request, [stored], in_force, T0 + after, secret=SECRET) == by_rules


@quick
@given(answers, statuses, rules)
def test_what_says_no_store_is_never_stored(answer: list[tuple[str, str]], status: int, in_force: Rules) -> None:
    """§5.2.2.5, whatever else is said."""
    origin = an_answer([*answer, ("Cache-Control", "no-store")], status)
    if "must-understand" in str(answer):
        return
    if '"' in "".join(value for name, value in answer if name == "Cache-Control"):
        return  # A quote may take in what follows it.
    assert isinstance(may_store(a_request(), origin, in_force, T0), DoNotStore)
    assert isinstance(
        may_store(a_request([("Cache-Control", "no-store")]), an_answer(answer), in_force, T0), DoNotStore
    )


@quick
@given(answers, st.lists(st.floats(0, 1e7), min_size=2, max_size=6).map(sorted))
def test_no_response_grows_younger_or_fresher(answer: list[tuple[str, str]], delays: list[float]) -> None:
    """§4.2.3."""
    origin = an_answer([*answer, ("ETag", '"needed"')])
    storing = may_store(a_request(), origin, Rules(), T0)
    if not isinstance(storing, Store):
        return
    stored = stored_as(origin)
    ages = [current_age(stored, T0 + delay) for delay in delays]
    assert ages == sorted(ages)
    freshness = [is_fresh(stored, T0 + delay) for delay in delays]
    assert freshness == sorted(freshness, reverse=True)


@quick
@given(answers, answers, rules)
def test_validation_never_raises_and_keeps_the_bytes(
    first: list[tuple[str, str]], second: list[tuple[str, str]], in_force: Rules
) -> None:
    """§4.3.4, §4.3.5."""
    origin = an_answer([("Cache-Control", "max-age=60"), ("ETag", '"a"'), *first])
    if not isinstance(may_store(a_request(), origin, Rules(), T0), Store):
        return
    stored = stored_as(origin)
    confirmed = an_answer(second, 304, at=T0 + 60)
    selected_by_304([stored, stored], confirmed)
    freshened = freshen(stored, confirmed, in_force, T0 + 60)
    assert (freshened.body, freshened.status, freshened.key) == (stored.body, stored.status, stored.key)
    assert freshened.fields.getall("Content-Length", []) == stored.fields.getall("Content-Length", [])
    head = freshen_from_head(stored, an_answer(second, 200, at=T0 + 60), in_force, T0 + 60)
    assert not isinstance(head, StoredResponse) or head.body == stored.body


@quick
@given(st.lists(st.sampled_from(["en", "de;q=0.5", "FR", "*;q=0.1"]), min_size=1, max_size=4), st.randoms())
def test_the_order_of_preferences_selects_nothing_else(ranges: list[str], random: object) -> None:
    """RFC 9110 §12.5.4."""
    shuffled = sorted(ranges, key=lambda _: cast("float", random.random()))  # type: ignore[attr-defined]
    stored = selecting_values(fields_of({"Accept-Language": ", ".join(ranges)}), ["accept-language"], SECRET)
    assert selects(stored, fields_of({"Accept-Language": ",".join(shuffled)}), SECRET)


def test_forward_is_the_answer_to_nothing_stored() -> None:
    assert isinstance(decided([]), Forward)
