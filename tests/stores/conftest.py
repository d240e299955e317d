from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aiohttp_cache_middleware._stores import DiskStore, MemoryStore, Store

from .samples import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make_disk_store(directory: Path, clock: Clock) -> AsyncIterator[Callable[..., DiskStore]]:
    stores: list[DiskStore] = []

    def make(**options: object) -> DiskStore:
        arguments: dict[str, object] = {"max_size": None, "clock": clock, **options}
        stores.append(DiskStore(arguments.pop("directory", directory), **arguments))  # type: ignore[arg-type]
        return stores[-1]

    yield make
    for store in stores:
        store.close_now()


@pytest.fixture
async def disk_store(make_disk_store: Callable[..., DiskStore]) -> DiskStore:
    return make_disk_store()


@pytest.fixture(params=["memory", "disk", "disk with secret keys", "disk with a limit", "disk, compressed"])
async def store(request: pytest.FixtureRequest, make_disk_store: Callable[..., DiskStore], clock: Clock) -> Store:
    one: Store
    match request.param:
        case "memory":
            one = MemoryStore(clock=clock)
        case "disk":
            one = make_disk_store()
        case "disk with secret keys":
            one = make_disk_store(secret_keys=(b"new", b"old"))
        case "disk, compressed":
            one = make_disk_store(compress=True)
        case _:
            one = make_disk_store(max_size=64 * 1024 * 1024)
    await one.secret(patient=True)  # a busy machine may take longer to open it than a request waits
    return one
