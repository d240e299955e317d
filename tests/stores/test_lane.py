"""A lane does its work in order, with a thread or without one."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from aiohttp_cache_middleware._stores import _lane as lane_module
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


def in_time(work: Callable[[], object]) -> None:
    """Do *work* in a thread that may hang."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("when", ["__init__", "_set_ident"], ids=["the thread is made", "it starts, and is waited for"])
def test_a_finalizer_may_queue_a_job_while(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may run one at any time, in any thread: it must not wait for what that thread holds."""
    owner, done = Owner(), threading.Event()
    lane = Lane("lane", owner)
    original = getattr(threading.Thread, when)

    def finalize(self: threading.Thread, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        if "lane" in (options.get("name"), getattr(self, "_name", None)):
            lane.run(done.set)

    def work() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, when, finalize)
            lane.run(lambda: None)

    in_time(work)
    assert done.wait(5)
    assert lane.stop(5)


def test_what_is_queued_when_the_thread_has_just_ended_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, done = Owner(), threading.Event()
    lane = Lane("lane", owner)
    ends = lane._ends

    def ends_and_another_job_comes() -> bool:
        has_ended = ends()
        if has_ended and not done.is_set():
            lane._jobs.put((done.set, owner))  # by one who found the lock taken
        return has_ended

    monkeypatch.setattr(lane, "_ends", ends_and_another_job_comes)
    lane.run(lambda: None)
    lane.stop(5)
    assert done.wait(5)
    assert lane.stop(5)


def test_what_is_queued_while_the_thread_ends_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDLE", 0.0)
    owner = Owner()
    lane = Lane("lane", owner)
    for number in range(2000):
        assert lane.submit(lambda number=number: number).result(timeout=5) == number  # type: ignore[misc]


def test_a_pause_is_had_though_jobs_never_end() -> None:
    owner, going = Owner(), threading.Event()
    lane = Lane("lane", owner)
    going.set()

    def job() -> None:
        time.sleep(0.005)  # the lock is free for a moment only
        if going.is_set():
            lane.run(job)

    lane.run(job)
    for _ in range(5):
        assert lane.pause(0.25)
        lane.resume()
    going.clear()
    assert lane.stop(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_followed_by_another() -> None:
    owner = Owner()
    lane = Lane("lane", owner)

    def die() -> None:
        raise KeyboardInterrupt

    lane.run(die)
    if (thread := lane._last_thread) is not None:
        thread.join(5)
    assert lane.submit(lambda: 7).result(timeout=5) == 7
    assert lane.stop(5)


async def test_what_came_before_the_deadline_counts_though_the_loop_hears_of_it_later() -> None:
    owner = Owner()
    lane = Lane("lane", owner)
    answer = lane.submit(lambda: 7)
    answer.result(timeout=5)
    assert await lane_module.in_time(answer, time.monotonic() - 1, 0.25) == 7
    with pytest.raises(asyncio.TimeoutError):
        await lane_module.in_time(lane.submit(lambda: time.sleep(0.2)), time.monotonic() - 1, 0.25)
    assert lane.stop(5)


@pytest.mark.impatient
async def test_whoever_waits_his_turn_waits_while_the_lane_gets_on_with_others() -> None:
    owner = Owner()
    lane = Lane("lane", owner)
    for _ in range(5):
        lane.run(lambda: time.sleep(lane_module.DEADLINE / 3))
    assert await lane_module.in_turn(lane, lane.submit(lambda: 7)) == 7
    assert lane.stop(5)


@pytest.mark.impatient
async def test_nobody_waits_his_turn_while_the_lane_stands_still() -> None:
    owner, go_on = Owner(), threading.Event()
    lane = Lane("lane", owner)
    lane.run(go_on.wait)
    waiting = asyncio.ensure_future(lane_module.in_turn(lane, lane.submit(lambda: 7)))
    await asyncio.wait([waiting], timeout=lane_module.QUEUEING / 2)
    assert waiting.done()
    assert isinstance(waiting.exception(), asyncio.TimeoutError)
    go_on.set()
    assert lane.stop(5)


@pytest.mark.impatient
async def test_nobody_waits_his_turn_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "QUEUEING", 0.5)
    owner, going = Owner(), threading.Event()
    lane = Lane("lane", owner)
    going.set()

    def others() -> None:
        time.sleep(0.01)
        if going.is_set():
            lane.run(others)

    lane.run(others)
    never: Future[None] = Future()
    waiting = asyncio.ensure_future(lane_module.in_turn(lane, never))
    await asyncio.wait([waiting], timeout=20)
    assert waiting.done()
    assert isinstance(waiting.exception(), asyncio.TimeoutError)
    going.clear()
    assert lane.stop(5)


def test_a_thread_that_is_to_end_does_what_is_queued_and_waits_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDLE", 1e6)
    owner, done = Owner(), []
    lane = Lane("lane", owner)
    lane.run(lambda: done.append(1))
    (thread,) = [one for one in threading.enumerate() if one.name == "lane"]
    lane.end()
    lane.run(lambda: done.append(2))
    thread.join(5)
    assert not thread.is_alive()
    assert lane.submit(lambda: done.append(3)).result(timeout=5) is None
    assert done == [1, 2, 3]
    assert lane.stop(5)
