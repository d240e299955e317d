"""Freshness lifetime and current age (RFC 9111 §4.2)."""

from __future__ import annotations

import math

import pytest

from aiohttp_cache_middleware._model import Expiration, Rules
from aiohttp_cache_middleware._policy._freshness import (
    corrected_initial_age,
    current_age,
    expires_time,
    is_fresh,
    staleness,
)
from tests.policy.making import DAY, T0, Fields, a_stored, an_answer, date

AGO = date(T0 - 30 * DAY)


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        pytest.param({"Cache-Control": "max-age=60"}, 60, id="§4.2.1 max-age"),
        pytest.param({"Expires": date(T0 + 60)}, 60, id="§4.2.1 Expires minus Date"),
        pytest.param({"Cache-Control": "max-age=60", "Expires": date(T0 + 999)}, 60, id="§5.3 max-age goes first"),
        pytest.param({"Cache-Control": "max-age=60", "Expires": "0"}, 60, id="§5.3 even over a broken Expires"),
        pytest.param({"Cache-Control": "max-age=0", "Expires": date(T0 + 999)}, 0, id="§5.3 and when it is 0"),
        pytest.param(
            {"Cache-Control": "max-age=x", "Expires": date(T0 + 999)}, 0, id="§4.2.1 a broken max-age is stale"
        ),
        pytest.param({"Cache-Control": "s-maxage=60"}, 0, id="§5.2.2.10 s-maxage is for shared caches"),
        pytest.param({"Expires": date(T0 - 1)}, 0, id="§5.3 past"),
        pytest.param({"Expires": date(T0)}, 0, id="§5.3 present"),
        pytest.param({"Expires": "0"}, 0, id="§5.3 0 is in the past"),
        pytest.param({"Expires": "tomorrow", "Last-Modified": AGO}, 0, id="§5.3 no date: no heuristics either"),
        pytest.param([("Expires", date(T0 + 9)), ("Expires", date(T0 + 60))], 9, id="§4.2.1 two, the earlier"),
        pytest.param([("Expires", date(T0 + 9)), ("Expires", "x")], 0, id="§4.2.1 two, one broken"),
        pytest.param({"Expires": date(T0 + 30), "Date": date(T0 + 10)}, 20, id="§4.2.1 Date ahead of us"),
        pytest.param({"Expires": date(T0 + 30), "Date": "x"}, 30, id="§4.2.1 no valid Date"),
        pytest.param({"Cache-Control": "max-age=99999999999"}, 2**31, id="§1.2.2 overflow"),
        pytest.param({"Last-Modified": date(T0 - 1000)}, 100, id="§4.2.2 a tenth of the time unchanged"),
        pytest.param({"Last-Modified": AGO}, DAY, id="§4.2.2 at most a day"),
        pytest.param({"Last-Modified": date(T0 + 1000)}, 0, id="§4.2.2 modified in the future"),
        pytest.param({"Last-Modified": "x"}, 0, id="§4.2.2 modified at no date"),
        pytest.param({"Last-Modified": AGO, "Pragma": "no-cache"}, 0, id="§5.4 Pragma in a response"),
        pytest.param({"Cache-Control": "max-age=60", "Pragma": "no-cache"}, 60, id="§5.4 Pragma beside a lifetime"),
        pytest.param({}, 0, id="§4.2.2 nothing to guess from"),
    ],
)
def test_lifetime(fields: Fields, lifetime: float) -> None:
    assert expires_time(an_answer(fields), Rules(), T0) == T0 + lifetime


@pytest.mark.parametrize(
    ("status", "control", "is_guessed"),
    [
        *[(status, "", True) for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)],
        *[(status, "", False) for status in (201, 202, 302, 303, 307, 403, 500, 502, 503, 504, 599)],
        pytest.param(599, "public", True, id="§4.2.2 public marks it"),
        pytest.param(403, "private", True, id="§3 private marks it for us"),
    ],
)
def test_heuristics_by_status(status: int, control: str, is_guessed: bool) -> None:
    """RFC 9110 §15.1, RFC 9111 §4.2.2."""
    answer = an_answer({"Last-Modified": AGO, "Cache-Control": control}, status)
    assert (expires_time(answer, Rules(), T0) > T0) is is_guessed


@pytest.mark.parametrize(
    ("fields", "rules", "expires"),
    [
        pytest.param({}, Rules(default=Expiration(60)), T0 + 60, id="expire_after where nothing is stated"),
        pytest.param({"Last-Modified": AGO}, Rules(default=Expiration(60)), T0 + 60, id="expire_after over heuristics"),
        pytest.param({}, Rules(default=Expiration()), math.inf, id="expire_after for ever"),
        pytest.param(
            {"Cache-Control": "max-age=9"}, Rules(default=Expiration(60)), T0 + 9, id="HTTP over expire_after"
        ),
        pytest.param({"Expires": "0"}, Rules(default=Expiration(60)), T0, id="broken freshness over expire_after"),
        pytest.param(
            {"Cache-Control": "max-age=9"}, Rules(override=Expiration(60)), T0 + 60, id="per request over HTTP"
        ),
        pytest.param({}, Rules(override=Expiration(moment=T0 + 5)), T0 + 5, id="per request, a moment"),
    ],
)
def test_precedence_of_lifetimes(fields: Fields, rules: Rules, expires: float) -> None:
    assert expires_time(an_answer(fields), rules, T0) == expires


@pytest.mark.parametrize(
    ("fields", "delay", "age"),
    [
        pytest.param({}, 0, 0, id="§4.2.3 fresh from the origin"),
        pytest.param({"Age": "20"}, 0, 20, id="§5.1 Age"),
        pytest.param({"Age": "20"}, 3, 23, id="§4.2.3 response delay"),
        pytest.param({"Date": date(T0 - 30), "Age": "20"}, 0, 30, id="§4.2.3 apparent age"),
        pytest.param({"Date": date(T0 - 30), "Age": "40"}, 0, 40, id="§4.2.3 the greater one"),
        pytest.param({"Date": date(T0 + 30)}, 0, 0, id="§4.2.3 Date ahead of us"),
        pytest.param({"Date": "x"}, 2, 2, id="§4.2.3 no valid Date"),
        pytest.param({}, -5, 0, id="the clock stepped back under way"),
        pytest.param({"Age": "abc"}, 0, 0, id="§5.1 no number: ignored"),
        pytest.param({"Age": "-7"}, 0, 0, id="§5.1 negative: ignored"),
        pytest.param({"Age": "7.5"}, 0, 0, id="§5.1 fraction: ignored"),
        pytest.param({"Age": "20, 0"}, 0, 20, id="§5.1 a list: the first member"),
        pytest.param({"Age": "0, 20"}, 0, 0, id="§5.1 a list: the first member, 0"),
        pytest.param([("Age", "20"), ("Age", "0")], 0, 20, id="§5.1 two lines: the first"),
        pytest.param({"Age": "2147483649"}, 0, 2**31, id="§1.2.2 overflow"),
    ],
)
def test_initial_age(fields: Fields, delay: float, age: float) -> None:
    answer = an_answer(fields, delay=delay)
    assert corrected_initial_age(answer.fields, answer.request_time, answer.response_time) == age


@pytest.mark.parametrize(
    ("fields", "now", "age"),
    [
        pytest.param({}, T0 + 7, 7, id="§4.2.3 resident time"),
        pytest.param({"Age": "20"}, T0 + 7, 27, id="§4.2.3 resident time and Age"),
        pytest.param({"Age": "20"}, T0 - 7, 20, id="a clock set back makes nothing younger"),
    ],
)
def test_current_age(fields: dict[str, str], now: float, age: float) -> None:
    assert current_age(a_stored({"Cache-Control": "max-age=9", **fields}), now) == age


@pytest.mark.parametrize(
    ("now", "fresh"),
    [
        pytest.param(T0, True, id="§4.2 at once"),
        pytest.param(T0 + 59.9, True, id="§4.2 just before"),
        pytest.param(T0 + 60, False, id="§4.2 age equals lifetime"),
        pytest.param(T0 - 59, True, id="a small step back"),
        pytest.param(T0 - 61, False, id="received in the future"),
        pytest.param(0.0, False, id="received decades in the future"),
    ],
)
def test_is_fresh(now: float, fresh: bool) -> None:
    stored = a_stored({"Cache-Control": "max-age=60"})
    assert is_fresh(stored, now) is fresh
    assert (staleness(stored, now) < 0) is fresh


def test_no_clock_step_makes_an_entry_immortal() -> None:
    stored = a_stored({"Cache-Control": "max-age=60"}, at=T0 + 365 * DAY)
    assert not is_fresh(stored, T0)
    assert staleness(stored, T0) == math.inf


def test_what_date_leaves_out_of_a_second_is_no_age() -> None:
    """§4.2.3: ``Date`` is in whole seconds; a lifetime of one second would else be over at once."""
    answer = an_answer({"Cache-Control": "max-age=1"}, at=T0 + 0.9)
    assert answer.fields["Date"] == date(T0)
    assert expires_time(answer, Rules(), T0 + 0.9) == pytest.approx(T0 + 1.9)
