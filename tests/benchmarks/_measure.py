"""How things are measured: one after the other in turns, so that what the machine does meets all alike."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """
    One number of the report.

    Attributes:
        what: What was measured; with the unit it is a line of the table.
        client: The column.
        median: In *unit*.
        p99: 99th percentile, where there were enough samples to speak of one.
        base: The client whose median makes the ratio; ``""`` where a ratio says nothing.
    """

    what: str
    client: str
    unit: str
    median: float
    p99: float | None = None
    base: str = ""


def summarize(what: str, client: str, samples: Sequence[float], *, unit: str, scale: float, base: str = "") -> Figure:
    """Make a figure of *samples*, each multiplied by *scale*."""
    ordered = sorted(samples)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * scale if len(ordered) >= 20 else None
    return Figure(what, client, unit, statistics.median(ordered) * scale, p99, base)


def turns(subjects: Mapping[str, T], rounds: int) -> Iterator[tuple[str, T]]:
    """Give every subject its turn *rounds* times, beginning with another one each time: A B C, B C A, ..."""
    items = list(subjects.items())
    for number in range(rounds):
        start = number % len(items)
        yield from items[start:] + items[:start]


async def seconds(action: Awaitable[object]) -> float:
    """Tell how long *action* takes."""
    started = time.perf_counter()
    await action
    return time.perf_counter() - started


async def each(action: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Do *action* again and again; give how long each took."""
    return [await seconds(action()) for _ in range(times)]


@asynccontextmanager
async def lag_of_the_loop() -> AsyncIterator[list[float]]:
    """Collect by how many seconds a ticker of 1 ms comes late while the block runs."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - before - 0.001)

    ticker = asyncio.create_task(tick())
    try:
        yield late
    finally:
        ticker.cancel()
