"""A lane does its work in order, with a thread or without one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import pytest

from aiohttp_cache_middleware._stores._lane import Lane


class Owner:
    pass


@pytest.fixture
def no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the interpreter's end in some releases of Python, and where the system gives no more."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_jobs_run_in_order_in_another_thread() -> None:
    owner, done = Owner(), []
    lane = Lane("lane", owner)
    for number in range(3):
        lane.run(lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
    assert lane.submit(lambda: 7).result(timeout=5) == 7
    assert done == [(0, "lane"), (1, "lane"), (2, "lane")]
    assert lane.stop(5)


@pytest.mark.usefixtures("no_thread_can_be_started")
def test_without_a_thread_the_caller_does_the_work() -> None:
    owner = Owner()
    lane = Lane("lane", owner)
    assert lane.submit(threading.current_thread).result(timeout=0) is threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 // 0).result(timeout=0)
    assert lane.stop(0)


@pytest.mark.usefixtures("no_thread_can_be_started")
def test_work_that_makes_work_is_done_in_order_without_a_thread_too() -> None:
    owner, done = Owner(), []
    first, other = Lane("first", owner), Lane("other", owner)

    def job() -> None:
        first.run(lambda: done.append("queued by the job"))
        done.append("the job")
        assert other.submit(lambda: "from another lane").result(timeout=0) == "from another lane"

    first.run(job)
    assert done == ["the job", "queued by the job"]


@pytest.mark.usefixtures("no_thread_can_be_started")
def test_what_belongs_to_the_thread_is_given_back() -> None:
    class Holder:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    holder = Holder()
    close: Callable[[], object] = holder.close
    lane = Lane("lane", holder)
    lane.at_end = weakref.WeakMethod(close)
    lane.run(lambda: None)
    assert holder.closed == 1
