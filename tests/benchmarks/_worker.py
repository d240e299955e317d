"""A process of its own for what needs one: ``python -m tests.benchmarks._worker JOB '{"client": ...}'``."""

import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ._clients import KINDS, Client
from ._limits import LEAST
from ._measure import each, lag_of_the_loop, seconds

Result = dict[str, Any]
AT_ONCE = 20  # requests in flight while a store is filled


def peak_memory() -> float:
    """Give this process's highest resident memory so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage() starts from what the parent process had
        return int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024 * 1024 if sys.platform == "darwin" else 1024)


async def fill(client: Client, *, url: str, count: int, expire_after: float | None = None) -> Result:
    """Store `url/0`, `url/1`, ..."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await client.get(f"{url}/{number}", expire_after=expire_after)

    return {"seconds": await seconds(asyncio.gather(*(some() for _ in range(AT_ONCE))))}


async def read_at_random(client: Client, *, url: str, count: int, reads: int, warm: bool) -> Result:
    """Read stored URLs at random; *warm* reads all of them beforehand, for clients that have nothing else."""
    if warm:
        await fill(client, url=url, count=count)
    numbers = random.Random(count)
    return {"seconds": await each(lambda: client.get(f"{url}/{numbers.randrange(count)}"), reads)}


async def hit(client: Client, *, url: str, count: int, duration: float, warm: bool, start: float) -> Result:
    """Hit as often as can be between *start* (time.time) and *duration* seconds later."""
    if warm:
        await fill(client, url=url, count=count)
    await client.get(f"{url}/0")
    await asyncio.sleep(start - time.time())
    hits, end = 0, time.perf_counter() + duration
    while time.perf_counter() < end:
        await client.get(f"{url}/{hits % count}")
        hits += 1
    return {"hits": hits}


async def store(client: Client, *, url: str, per_second: float, duration: float) -> Result:
    """Store at a steady pace; errors are counted."""
    errors = stored = 0
    end = time.perf_counter() + duration
    while time.perf_counter() < end:
        try:
            await client.get(f"{url}{stored}")
        except Exception:
            errors += 1
        stored += 1
        await asyncio.sleep(1 / per_second)
    return {"stored": stored, "errors": errors}


async def download(client: Client, *, url: str) -> Result:
    """Read a large body in chunks."""
    before = peak_memory()
    size = 0
    started = time.perf_counter()
    async with lag_of_the_loop() as late:
        async for chunk in client.stream(url):
            size += len(chunk)
    took = time.perf_counter() - started
    return {"seconds": took, "megabytes": peak_memory() - before, "size": size, "lag": max(late, default=0.0)}


async def crowd(client: Client, *, url: str, count: int, start: float) -> Result:
    """Ask for one URL many times at once, at *start* (time.time)."""
    await asyncio.sleep(start - time.time())
    return {"seconds": await seconds(asyncio.gather(*(client.get(url) for _ in range(count))))}


async def remove(client: Client) -> Result:
    """Remove what has expired."""
    return {"seconds": await seconds(client.remove_expired())}


JOBS: dict[str, Callable[..., Awaitable[Result]]] = {
    job.__name__: job for job in (fill, read_at_random, hit, store, download, crowd, remove)
}


def start(job: str, client: str, directory: Path, **arguments: object) -> "subprocess.Popen[str]":
    """Start *job* in a new process."""
    task = json.dumps({"client": client, "directory": str(directory), **arguments})
    command = [sys.executable, "-m", "tests.benchmarks._worker", job, task]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> Result:
    """Wait for a process and give its result."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a worker failed: {process.args!r}")
    result: Result = json.loads(output)
    return result


async def run(job: str, client: str, directory: Path, **arguments: object) -> Result:
    """Do *job* in a new process, while the loop goes on."""
    return await asyncio.to_thread(finish, start(job, client, directory, **arguments))


async def main(job: str, client: str, directory: str, arguments: dict[str, Any]) -> Result:
    kind = next(kind for kind in (*KINDS, *LEAST) if kind.name == client)
    async with kind.open(Path(directory)) as opened:
        return await JOBS[job](opened, **arguments)


if __name__ == "__main__":
    task = json.loads(sys.argv[2])
    result = asyncio.run(main(sys.argv[1], task.pop("client"), task.pop("directory"), task))
    print(json.dumps(result))
