"""What must not be on disk is looked for in every byte of the directory, while bodies arrive and afterwards."""

from __future__ import annotations

import asyncio
import base64
import random
from pathlib import Path

import pytest
from aiohttp import web

from aiohttp_cache_middleware import CacheOptions, get_cache
from tests.asking import ask, is_hit
from tests.conftest import Origin
from tests.faults.harness import Make, everything_in, written

SECRET = "hunter2" * 3
BASIC = base64.b64encode(f"alice:{SECRET}".encode()).decode()
MARKER = b"a marker that must not touch the disk, "


@pytest.mark.parametrize("size", [100, 200_000, 3_000_000])
@pytest.mark.parametrize("who", ["response", "request"])
async def test_no_store_content_never_touches_the_disk(
    make: Make, origin: Origin, directory: Path, size: int, who: str
) -> None:
    half, go_on = size // 2, asyncio.Event()
    content = (MARKER * (size // len(MARKER) + 1))[:size]

    @origin.on("/secret")
    async def secret(request: web.Request) -> web.StreamResponse:
        # But for no-store there is every reason to keep it.
        control = "no-store, max-age=60" if who == "response" else "max-age=60"
        fields = {"Cache-Control": control, "ETag": '"1"', "Content-Length": str(size)}
        response = web.StreamResponse(headers=fields)
        await response.prepare(request)
        await response.write(content[:half])
        await go_on.wait()
        await response.write(content[half:])
        return response

    origin.text("/public", "a public marker", Cache_Control="max-age=60")
    session = make(cache_control=True)
    await ask(session, origin.url("/public"))
    headers = {"Cache-Control": "no-store"} if who == "request" else {}
    async with session.get(origin.url("/secret"), headers=headers) as response:
        await response.content.readexactly(half)
        await get_cache(session).responses.count()
        assert MARKER not in everything_in(directory)  # nor in a file of what is still arriving
        go_on.set()
        assert await response.content.read() == content[half:]
    await session.close()
    on_disk = everything_in(directory)
    assert b"a public marker" in on_disk
    assert MARKER not in on_disk


async def test_what_is_not_stored_in_the_end_leaves_no_file(make: Make, origin: Origin, directory: Path) -> None:
    @origin.on("/cut")
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "5000000"})
        await response.prepare(request)
        for _ in range(40):
            await response.write(MARKER * 2000)
        assert request.transport is not None
        request.transport.abort()
        return response

    session = make()
    with pytest.raises(Exception, match=r"(?i)payload|connection|reset"):
        await ask(session, origin.url("/cut"))
    await get_cache(session).responses.count()
    await session.close()
    assert MARKER not in everything_in(directory)


async def test_credentials_of_any_kind_are_nowhere_in_clear(make: Make, origin: Origin, directory: Path) -> None:
    origin.text("/me", "a public marker", Vary="Authorization, Cookie, X-Api-Key", ETag='"1"')
    base = origin.url("/me")
    async with make(ignored_params=["token"], include_headers=True, allowed_methods=("GET", "POST")) as session:
        await ask(session, base, headers={"Authorization": f"Bearer {SECRET}"})
        await ask(session, base, headers={"X-Api-Key": SECRET, "Proxy-Authorization": SECRET})
        await ask(session, base, headers={"Authorization": f"Basic {BASIC}"})
        await ask(session, base, cookies={"session": SECRET})
        await ask(session, base.replace("//", f"//alice:{SECRET}@"))
        await ask(session, base, params={"token": SECRET})
        await ask(session, base, "POST", data={"password": SECRET})
        await ask(session, base, trace_request_ctx=CacheOptions(namespace=SECRET))
        with CacheOptions(refresh=True):
            await ask(session, base, cookies={"session": SECRET})
        await ask(session, base, "DELETE", headers={"Authorization": SECRET})
    async with make(secret_key=SECRET) as session:
        await ask(session, base)
    on_disk = everything_in(directory)
    assert b"a public marker" in on_disk
    assert SECRET.encode() not in on_disk
    assert BASIC.encode() not in on_disk


async def test_digests_of_credentials_can_not_be_guessed_without_the_directorys_secret(
    make: Make, origin: Origin, tmp_path: Path
) -> None:
    """The same credentials have other keys in another directory."""
    keys = []
    for name in ("one", "two"):
        async with make(tmp_path / name) as session:
            await ask(session, origin.url("/me"), headers={"Authorization": "Bearer a"})
            keys += await get_cache(session).responses.keys()
    assert len(set(keys)) == 2


async def test_users_and_namespaces_are_kept_apart_under_load(make: Make, origin: Origin) -> None:
    @origin.on("/me")
    async def me(request: web.Request) -> web.Response:
        await asyncio.sleep(random.random() / 100)
        return web.Response(text=request.headers["Authorization"])

    session = make()

    async def ask_as(user: int, namespace: str) -> None:
        for _ in range(5):
            options = CacheOptions(namespace=namespace)
            headers = {"Authorization": f"{user}"}
            response = await ask(session, origin.url("/me"), headers=headers, trace_request_ctx=options)
            assert await response.text() == f"{user}"

    await asyncio.gather(*(ask_as(user, space) for user in range(20) for space in ("", "a")))
    await written(session)
    assert await get_cache(session).responses.count() == 40
    assert not await is_hit(session, origin.url("/me"), headers={"Authorization": "99"})
