"""The cache among other middlewares, a retry and digest authentication: what adds credentials comes first."""

import asyncio
import hashlib
import tempfile

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, DigestAuthMiddleware, web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import CachedResponse, make_cached_session


async def retry(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Ask again, up to three times, while the server is busy."""
    for _ in range(2):
        response = await handler(request)
        if response.status != 503:
            return response
        response.release()
    return await handler(request)


def is_authorized(request: web.Request) -> bool:
    """Check a digest (RFC 7616, MD5, qop=auth) for the user Ada, whose password is 'engine'."""
    field = request.headers.get("Authorization", "")
    if not field.startswith("Digest "):
        return False
    given = dict(part.strip().split("=", 1) for part in field[len("Digest ") :].split(","))
    given = {name: value.strip('"') for name, value in given.items()}

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    user = md5("ada:notes:engine")
    asked = md5(f"{request.method}:{given['uri']}")
    return given["response"] == md5(f"{user}:{given['nonce']}:{given['nc']}:{given['cnonce']}:auth:{asked}")


async def main() -> None:
    """Fetch protected notes from a server that is busy at first."""
    answered: list[int] = []

    async def notes(request: web.Request) -> web.Response:
        if not answered:
            answered.append(503)
            return web.Response(status=503)
        if not is_authorized(request):
            answered.append(401)
            challenge = 'Digest realm="notes", nonce="0123456789", qop="auth", algorithm=MD5'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        answered.append(200)
        return web.Response(text="the engine weaves algebraic patterns")

    app = web.Application()
    app.router.add_get("/notes", notes)
    async with TestServer(app) as origin:
        with tempfile.TemporaryDirectory() as directory:
            session = make_cached_session(
                directory,
                base_url=origin.make_url("/"),
                middlewares=[retry, DigestAuthMiddleware("ada", "engine")],  # the cache is put behind them
            )
            async with session:
                for _ in range(3):
                    answered_before = len(answered)
                    async with session.get("/notes") as response:
                        text = await response.text()
                        source = "cache" if isinstance(response, CachedResponse) and response.from_cache else "origin"
                        print(f"{source:<7} {text!r}, the origin answered {answered[answered_before:]}")


if __name__ == "__main__":
    asyncio.run(main())
