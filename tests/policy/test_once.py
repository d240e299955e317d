"""Facts are worked out once of data that never changes, and not carried over to what has been changed."""

from __future__ import annotations

from aiohttp_cache_middleware._model import StoredResponse
from aiohttp_cache_middleware._policy._freshness import initial_age
from aiohttp_cache_middleware._policy._once import once
from tests.policy.making import T0, a_stored

FRESH = {"Cache-Control": "max-age=60"}


def test_work_is_done_once_for_each() -> None:
    seen: list[StoredResponse] = []

    @once
    def work(stored: StoredResponse) -> int:
        seen.append(stored)
        return len(seen)

    first, second = a_stored(FRESH), a_stored(FRESH)
    assert (work(first), work(first), work(second), work(first)) == (1, 1, 2, 1)


def test_different_work_on_one() -> None:
    @once
    def one(stored: StoredResponse) -> str:
        return "one"

    @once
    def two(stored: StoredResponse) -> str:
        return "two"

    stored = a_stored(FRESH)
    assert (one(stored), two(stored), one(stored)) == ("one", "two", "one")


def test_a_changed_copy_is_asked_anew() -> None:
    stored = a_stored(FRESH).replace(headers=(("Age", "7"),), request_time=T0, response_time=T0)
    assert initial_age(stored) == 7
    assert initial_age(stored.replace(headers=(("Age", "9"),))) == 9
    assert initial_age(stored.replace(response_time=T0 + 2)) == 9


def test_what_was_worked_out_does_not_count_when_compared() -> None:
    one, other = a_stored(FRESH), a_stored(FRESH)
    initial_age(one)
    assert one == other
