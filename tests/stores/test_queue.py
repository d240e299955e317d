"""The queue of a disk store: when claims may end that guard what is still being written."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from aiohttp_cache_middleware._errors import StoreError
from aiohttp_cache_middleware._model import BodyRef
from aiohttp_cache_middleware._stores._queue import Change, Queue
from aiohttp_cache_middleware._stores._tier import Tier

from .samples import a_response


@pytest.fixture
def queue() -> Queue:
    return Queue(Tier())


def test_with_nothing_queued_a_job_is_for_the_caller(queue: Queue) -> None:
    assert not queue.run_when_settled(lambda: None)


def test_a_job_waits_for_all_that_was_accepted_before(queue: Queue) -> None:
    done: list[str] = []
    first, last = Change("a"), Change("b")
    queue.accept(first)
    queue.accept(last)
    assert queue.run_when_settled(lambda: done.append("one"))
    assert queue.run_when_settled(lambda: done.append("two"))
    queue.next_batch()
    queue.settle([first])
    assert done == []
    queue.settle([last])
    assert done == ["one", "two"]
    assert not queue.run_when_settled(lambda: None)


def test_what_is_settled_leaves_a_later_change_of_the_same_key(queue: Queue) -> None:
    """Or what was deleted meanwhile would show again until that is written."""
    stored, removal = Change("a"), Change("a")
    queue.accept(stored)
    batch = queue.next_batch()
    queue.accept(removal)
    queue.settle(batch)
    assert queue.pending["a"] is removal


def test_bodies_that_nobody_needs_or_that_failed_take_no_room(queue: Queue) -> None:
    """Or what is stored would be evicted for them."""

    def landing(key: str, number: int, size: int) -> Change:
        change = Change(key, a_response(number, body=BodyRef(f"{number}", size)))
        change.body = Future()
        queue.accept(change)
        return change

    first, second, third = landing("a", 1, 10), landing("a", 2, 200), landing("b", 3, 3000)
    assert queue.is_superseded(first)
    assert queue.landing_size == 3200
    assert third.body is not None
    third.body.set_exception(StoreError("the disk is full"))
    assert queue.landing_size == 200
    assert queue.next_batch() == [first, second, third]
    assert queue.landing_size == 0


def test_a_body_is_needed_by_what_only_renews_its_response(queue: Queue) -> None:
    response = a_response(1, body=BodyRef("1", 10))
    stored, renewed = Change("a", response), Change("a", response.replace(expires_time=5.0))
    stored.body = Future()
    queue.accept(stored)
    queue.accept(renewed)
    assert not queue.is_superseded(stored)
    assert queue.landing_size == 10
    queue.accept(Change("a", if_record=b"what is on disk"))  # which may not be there
    assert not queue.is_superseded(stored)
    queue.accept(Change("a"))
    assert queue.is_superseded(stored)
    assert queue.is_superseded(renewed)


def test_a_job_does_not_wait_for_what_is_accepted_later(queue: Queue) -> None:
    done: list[str] = []
    first = Change("a")
    queue.accept(first)
    queue.run_when_settled(lambda: done.append("one"))
    queue.accept(Change("b"))
    queue.settle([first])
    assert done == ["one"]


def test_giving_up_runs_jobs_even_of_removals_that_stay(queue: Queue) -> None:
    done: list[str] = []
    removal = Change("a")
    queue.accept(removal)
    queue.run_when_settled(lambda: done.append("one"))
    assert queue.give_up([]) == [removal]
    assert done == ["one"]
    assert not queue.run_when_settled(lambda: None)
    assert queue.resume()
    queue.settle(queue.next_batch())
    assert done == ["one"]
