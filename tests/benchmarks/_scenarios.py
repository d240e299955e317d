"""What is measured. A scenario yields figures; `SCENARIOS` has them all, in the order of the report."""

import asyncio
import itertools
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TypeAlias

from multidict import CIMultiDict, CIMultiDictProxy

from aiohttp_cache_middleware._model import Request, Rules, StoredResponse
from aiohttp_cache_middleware._policy import Reuse, policy_for

from . import _worker
from ._clients import Client, Kind
from ._measure import Figure, each, lag_of_the_loop, seconds, summarize, turns
from ._origin import reached_origin

PATIENCE = 2.0  # seconds to wait for the first byte of a body that never ends
MICROSECONDS, MILLISECONDS = 1e6, 1e3


@dataclass(frozen=True)
class Bench:
    """
    What a scenario works with.

    Attributes:
        origin: URL of the origin, without a slash at the end.
        kinds: The clients to compare.
        directory: Where their stores go.
        quick: Whether to do as little as shows that it works.
        huge: Whether to fill a store with a million entries.
    """

    origin: str
    kinds: tuple[Kind, ...]
    directory: Path
    quick: bool = False
    huge: bool = False

    def times(self, normal: int, quick: int) -> int:
        """Choose how often."""
        return quick if self.quick else normal

    def room(self, name: str, scenario: str) -> Path:
        """Give a directory for one client in one scenario."""
        room = self.directory / scenario / "".join(letter if letter.isalnum() else "-" for letter in name)
        room.mkdir(parents=True, exist_ok=True)
        return room

    def caches(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in self.kinds if kind.is_cache)

    def persistent(self, *others: str) -> tuple[Kind, ...]:
        return tuple(kind for kind in self.kinds if kind.is_persistent or kind.name in others)

    @asynccontextmanager
    async def opened(self, scenario: str, kinds: Iterable[Kind]) -> AsyncIterator[dict[str, Client]]:
        """Open one client of each kind."""
        async with AsyncExitStack() as stack:
            yield {
                kind.name: await stack.enter_async_context(kind.open(self.room(kind.name, scenario))) for kind in kinds
            }


Scenario: TypeAlias = Callable[[Bench], AsyncGenerator[Figure, None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def at(origin: str, size: int, number: int | str = 0) -> str:
    return f"{origin}/data/{size}/{number}"


def named(size: int) -> str:
    return f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} KB"


@scenario
async def hot(bench: Bench) -> AsyncGenerator[Figure, None]:
    """One stored response, asked for again and again."""
    for size, batch, base in ((1_000, 100, "floor"), (100_000, 30, "floor"), (10_000_000, 3, "plain aiohttp")):
        url = at(bench.origin, size)
        async with bench.opened("hot", bench.kinds) as clients:
            for client in clients.values():
                await client.get(url)
                await client.get(url)
            samples: dict[str, list[float]] = defaultdict(list)
            for name, client in turns(clients, bench.times(20, 1)):
                samples[name] += await each(partial(client.get, url), bench.times(batch, 2))
        for name in clients:
            yield summarize(f"hit {named(size)}", name, samples[name], unit="µs", scale=MICROSECONDS, base=base)


@scenario
async def decision(bench: Bench) -> AsyncGenerator[Figure, None]:
    """Deciding about a request for a small response that is stored and fresh, and nothing else."""
    fields = CIMultiDict({"Cache-Control": "max-age=60", "Date": formatdate(0, usegmt=True), "ETag": '"a"'})
    asked = CIMultiDictProxy(CIMultiDict({"Host": "example.com", "Accept": "*/*", "User-Agent": "Python aiohttp"}))
    count = bench.times(20_000, 10)
    for name, http in (("disk", False), ("disk, HTTP mode", True)):
        policy, rules = policy_for(http=http), Rules()
        stored = StoredResponse(
            key="",
            method="GET",
            url="http://example.com/",
            status=200,
            reason="OK",
            version=(1, 1),
            headers=tuple(fields.items()),
            request_time=0.0,
            response_time=0.0,
            created_time=0.0,
            expires_time=60.0,
            body=b"[]",
        )
        samples: dict[str, list[float]] = {"first time": [], "again": []}
        for _ in range(count):
            request, entry = Request("GET", stored.url, asked), stored.replace(body=b"[1]")
            for taken in samples.values():
                began = time.perf_counter()
                made = policy.decide(request, [entry], rules, 1.0, secret=b"")
                taken.append(time.perf_counter() - began)
                assert isinstance(made, Reuse)
        for what, taken in samples.items():
            yield summarize(f"decision, {what}", name, taken, unit="µs", scale=MICROSECONDS)


@scenario
async def random(bench: Bench) -> AsyncGenerator[Figure, None]:
    """Many stored responses, read at random by a process that has just started."""
    count, reads = bench.times(10_000, 20), bench.times(5_000, 20)
    url = f"{bench.origin}/data/2000"
    kinds = {kind.name: kind for kind in bench.persistent("floor")}
    for kind in bench.persistent():
        await _worker.run("fill", kind.name, bench.room(kind.name, "random"), url=url, count=count)
    samples: dict[str, list[float]] = defaultdict(list)
    first: dict[str, list[float]] = defaultdict(list)
    for name, kind in turns(kinds, bench.times(3, 1)):
        room, warm = bench.room(name, "random"), not kind.is_persistent
        result = await _worker.run("read_at_random", name, room, url=url, count=count, reads=reads, warm=warm)
        first[name].append(result["seconds"][0])
        samples[name] += result["seconds"][1:]
    for name, kind in kinds.items():
        what = f"one of {count:,} × 2 KB"
        yield summarize(what, name, samples[name], unit="µs", scale=MICROSECONDS, base="floor")
        if kind.is_persistent:
            yield summarize("first hit of the process", name, first[name], unit="ms", scale=MILLISECONDS)


@scenario
async def concurrent(bench: Bench) -> AsyncGenerator[Figure, None]:
    """A hundred tasks that hit at once."""
    url, tasks, hits = at(bench.origin, 1_000), bench.times(100, 5), bench.times(20, 2)
    per_hit: dict[str, list[float]] = defaultdict(list)
    latency: dict[str, list[float]] = defaultdict(list)
    async with bench.opened("concurrent", bench.caches()) as clients:
        for client in clients.values():
            await client.get(url)
        for name, client in turns(clients, bench.times(10, 1)):
            started = time.perf_counter()
            latencies = await asyncio.gather(*(each(partial(client.get, url), hits) for _ in range(tasks)))
            per_hit[name].append((time.perf_counter() - started) / (tasks * hits))
            latency[name] += itertools.chain.from_iterable(latencies)
    for name in clients:
        yield summarize(f"per hit, {tasks} tasks", name, per_hit[name], unit="µs", scale=MICROSECONDS, base="floor")
        yield summarize("latency", name, latency[name], unit="ms", scale=MILLISECONDS)


@scenario
async def miss(bench: Bench) -> AsyncGenerator[Figure, None]:
    """Responses that are stored, alone and fifty at once, against a request without a cache."""
    numbers = itertools.count()
    kinds = [kind for kind in bench.kinds if not kind.name.startswith("floor")]
    for size, at_once in ((1_000, 1), (1_000, 50), (1_000_000, 1), (1_000_000, 50)):
        batch = bench.times(100 if size < 1_000_000 else max(10, at_once), at_once)
        elapsed: dict[str, list[float]] = defaultdict(list)
        processor: dict[str, list[float]] = defaultdict(list)
        async with bench.opened("miss", kinds) as clients:
            for client in clients.values():  # connections, stores, and the origin's body are made
                await client.get(at(bench.origin, size, next(numbers)))
            for name, client in turns(clients, bench.times(10, 1)):
                before = time.process_time()
                for _ in range(batch // at_once):
                    urls = [at(bench.origin, size, next(numbers)) for _ in range(at_once)]
                    took = await seconds(asyncio.gather(*(client.get(url) for url in urls)))
                    elapsed[name].append(took / at_once)
                processor[name].append((time.process_time() - before) / batch)
        for name in clients:
            what = f"{named(size)}, {at_once} at once"
            base = "plain aiohttp"
            yield summarize(what, name, elapsed[name], unit="µs", scale=MICROSECONDS, base=base)
            yield summarize(f"CPU, {what}", name, processor[name], unit="µs", scale=MICROSECONDS, base=base)


async def until_headers_and_first_byte(client: Client, url: str) -> tuple[float, float]:
    """Tell after how many seconds the headers were there, and the first byte of the body."""
    async with aclosing(client.stream(url)) as chunks:
        started = time.perf_counter()
        await anext(chunks)
        headers = time.perf_counter() - started
        await anext(chunks)
        return headers, time.perf_counter() - started


@scenario
async def first_byte(bench: Bench) -> AsyncGenerator[Figure, None]:
    """A body that takes a second, and one that never ends (waited for two seconds at most)."""
    kinds = [kind for kind in bench.kinds if kind.name != "floor"]
    slow: dict[str, list[float]] = defaultdict(list)
    endless: dict[str, list[float]] = defaultdict(list)
    numbers = itertools.count()
    async with bench.opened("first_byte", kinds) as clients:
        for client in clients.values():  # connections and stores are made
            await client.get(at(bench.origin, 1_000))
        for name, client in turns(clients, bench.times(5, 1)):
            _, first = await until_headers_and_first_byte(client, f"{bench.origin}/slow/{next(numbers)}")
            slow[name].append(first)
            try:
                events = until_headers_and_first_byte(client, f"{bench.origin}/events/{next(numbers)}")
                headers, _ = await asyncio.wait_for(events, PATIENCE)
            except asyncio.TimeoutError:
                headers = PATIENCE
            endless[name].append(headers)
    for name in clients:
        yield summarize("first byte of a 1 s body", name, slow[name], unit="ms", scale=MILLISECONDS)
        yield summarize("headers of an event stream", name, endless[name], unit="ms", scale=MILLISECONDS)


@scenario
async def stampede(bench: Bench) -> AsyncGenerator[Figure, None]:
    """Many at once for what nobody has asked for yet, and for what can't be stored."""
    kinds = [kind for kind in bench.kinds if kind.name != "floor"]
    numbers = itertools.count()
    crowd, small = bench.times(100, 10), 20
    async with bench.opened("stampede", kinds) as clients:
        for client in clients.values():  # connections and stores are made
            await client.get(at(bench.origin, 1_000))
        for name, client in clients.items():
            url = f"{bench.origin}/cold/{next(numbers)}"
            took = await seconds(asyncio.gather(*(client.get(url) for _ in range(crowd))))
            what = f"{crowd} for a cold URL of 200 ms"
            yield Figure(f"{what}: reached the origin", name, "requests", reached_origin(url))
            yield Figure(what, name, "ms", took * MILLISECONDS)
            url = f"{bench.origin}/uncacheable/{next(numbers)}"
            for turn in ("first time", "again"):  # the first time, nobody can know
                took = await seconds(asyncio.gather(*(client.get(url) for _ in range(small))))
                yield Figure(f"{small} uncacheable of 100 ms, {turn}", name, "ms", took * MILLISECONDS)
    processes, each_of_them = bench.times(4, 2), bench.times(25, 3)
    for kind in bench.persistent("plain aiohttp"):
        url = f"{bench.origin}/cold/{next(numbers)}"
        room = bench.room(kind.name, "stampede-processes")
        start = time.time() + bench.times(3, 2)
        jobs = [
            _worker.run("crowd", kind.name, room, url=url, count=each_of_them, start=start) for _ in range(processes)
        ]
        await asyncio.gather(*jobs)
        what = f"{processes} processes × {each_of_them}: reached the origin"
        yield Figure(what, kind.name, "requests", reached_origin(url))


@scenario
async def large(bench: Bench) -> AsyncGenerator[Figure, None]:
    """A large body, stored on a miss and read again on a hit, each in a new process."""
    megabytes = bench.times(300, 3)
    rounds = bench.times(3, 1)
    kinds = {kind.name: kind for kind in bench.persistent("plain aiohttp")}
    results: dict[tuple[str, str], list[_worker.Result]] = defaultdict(list)
    for number in range(rounds):
        for name, _ in turns(kinds, 1):
            url = f"{bench.origin}/blob/{megabytes}/{number}"
            for turn in ("miss", "hit"):
                results[name, turn].append(await _worker.run("download", name, bench.room(name, "large"), url=url))
    for (name, turn), found in results.items():
        what, base = f"{megabytes} MB, {turn}", "plain aiohttp"
        yield summarize(what, name, [each_["seconds"] for each_ in found], unit="s", scale=1, base=base)
        memory = [each_["megabytes"] for each_ in found]
        yield summarize(f"{what}: memory", name, memory, unit="MB", scale=1)
        yield summarize(f"{what}: loop lag", name, [each_["lag"] for each_ in found], unit="ms", scale=MILLISECONDS)


@scenario
async def lag(bench: Bench) -> AsyncGenerator[Figure, None]:
    """Four other processes store a hundred responses a second into the directory, while this one hits and misses."""
    duration, writers = bench.times(8, 1), bench.times(4, 1)
    numbers = itertools.count()
    for kind in bench.persistent("plain aiohttp", "floor"):
        room, hot_url = bench.room(kind.name, "lag"), at(bench.origin, 1_000)
        prefixes = [at(bench.origin, 2_000, f"{kind.name.replace(' ', '-')}-{writer}-") for writer in range(writers)]
        others = [
            asyncio.create_task(
                _worker.run("store", kind.name, room, url=prefix, per_second=100, duration=duration + 2)
            )
            for prefix in prefixes
        ]
        await asyncio.sleep(bench.times(2, 1))  # until they are up
        errors, misses = 0, []
        async with kind.open(room) as client:
            await client.get(hot_url)
            async with lag_of_the_loop() as late:
                end = time.perf_counter() + duration
                while time.perf_counter() < end:
                    try:
                        await client.get(hot_url)
                        misses.append(await seconds(client.get(at(bench.origin, 1_000, f"m{next(numbers)}"))))
                    except Exception:
                        errors += 1
                    await asyncio.sleep(0.01)
            results = await asyncio.gather(*others)
            asked_again = [f"{prefix}{number}" for prefix in prefixes for number in range(bench.times(50, 5))]
            for url in asked_again:
                await client.get(url)
        lost = sum(reached_origin(url) > 1 for url in asked_again)
        late.sort()
        p999 = late[int(len(late) * 0.999)] * MILLISECONDS
        yield Figure("loop lag, 99.9th percentile", kind.name, "ms", p999, base="floor")
        yield Figure("loop lag, maximum", kind.name, "ms", late[-1] * MILLISECONDS, base="floor")
        yield summarize("miss", kind.name, misses, unit="ms", scale=MILLISECONDS)
        yield Figure("errors", kind.name, "requests", errors + sum(result["errors"] for result in results))
        if kind.is_persistent:
            yield Figure(f"lost of {len(asked_again)} looked up", kind.name, "stores", lost)


@scenario
async def processes(bench: Bench) -> AsyncGenerator[Figure, None]:
    """One, two and four processes hitting one directory."""
    duration, count = bench.times(3, 1), bench.times(1_000, 5)
    url = f"{bench.origin}/data/1000"
    kinds = bench.persistent("floor")
    for kind in bench.persistent():
        await _worker.run("fill", kind.name, bench.room(kind.name, "processes"), url=url, count=count)
    for number in (1, 2) if bench.quick else (1, 2, 4):
        for kind in kinds:
            start = time.time() + 1 + number * bench.times(1, 0) + (0 if kind.is_persistent else bench.times(2, 0))
            jobs = [
                _worker.run(
                    "hit",
                    kind.name,
                    bench.room(kind.name, "processes"),
                    url=url,
                    count=count,
                    duration=duration,
                    warm=not kind.is_persistent,
                    start=start,
                )
                for _ in range(number)
            ]
            hits = sum(result["hits"] for result in await asyncio.gather(*jobs))
            yield Figure(f"{number} at once", kind.name, "hits/s", hits / duration, base="floor")


@scenario
async def imports(bench: Bench) -> AsyncGenerator[Figure, None]:
    """Importing, in a new interpreter."""
    modules = {"plain aiohttp": "aiohttp", "disk": "aiohttp_cache_middleware"}
    if any(kind.name.startswith("aiohttp-client-cache") for kind in bench.kinds):
        modules["aiohttp-client-cache SQLite"] = "aiohttp_client_cache"
    if any(kind.name.startswith("hishel") for kind in bench.kinds):
        modules["hishel SQLite (httpx)"] = "hishel.httpx"
    samples: dict[str, list[float]] = defaultdict(list)
    for name, module in turns(modules, bench.times(15, 1)):
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        output = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", code])
        samples[name].append(float(output))
    for name in modules:
        yield summarize("import", name, samples[name], unit="ms", scale=MILLISECONDS, base="plain aiohttp")


def space_taken(directory: Path) -> int:
    """Give the bytes that *directory* takes on disk, in whole blocks."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


@scenario
async def space(bench: Bench) -> AsyncGenerator[Figure, None]:
    """Bytes on disk for each byte of body, once the session is closed."""
    for size, count in ((2_000, bench.times(2_000, 20)), (100_000, bench.times(200, 5))):
        for kind in bench.persistent():
            room = bench.room(kind.name, f"space-{size}")
            await _worker.run("fill", kind.name, room, url=f"{bench.origin}/data/{size}", count=count)
            yield Figure(f"{named(size)} JSON", kind.name, "× body", space_taken(room) / (size * count))


@scenario
async def growth(bench: Bench) -> AsyncGenerator[Figure, None]:
    """What hits, stores and cleaning up cost in a store of many entries, in a new process."""
    sizes = [10, 20] if bench.quick else [1_000, 10_000, 100_000] + [1_000_000] * bench.huge
    url = f"{bench.origin}/data/1000"
    for size in sizes:
        for kind in bench.persistent():
            if size > 10_000 and kind.name not in {"disk", "aiohttp-client-cache SQLite"}:
                continue
            name, room, reads = kind.name, bench.room(kind.name, "growth"), bench.times(1_000, 10)
            await _worker.run("fill", name, room, url=url, count=size)
            found = await _worker.run("read_at_random", name, room, url=url, count=size, reads=reads, warm=False)
            what = f"{size:,} entries"
            first, *others = found["seconds"]
            yield Figure(f"first hit of the process, {what}", name, "ms", first * MILLISECONDS)
            yield summarize(f"hit, {what}", name, others, unit="µs", scale=MICROSECONDS)
            count = bench.times(500, 10)
            filled = await _worker.run("fill", name, room, url=f"{url}/more-{size}", count=count)
            yield Figure(f"store, {what}", name, "µs", filled["seconds"] / count * MICROSECONDS)
            if not name.startswith("hishel"):
                expired = f"{url}/expired-{size}"
                await _worker.run("fill", name, room, url=expired, count=bench.times(200, 5), expire_after=0.1)
                await asyncio.sleep(0.2)
                removed = await _worker.run("remove", name, room)
                yield Figure(f"remove 200 expired, {what}", name, "ms", removed["seconds"] * MILLISECONDS)
