"""Code that takes a session is not changed: it is given another session."""

import asyncio
import tempfile

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_cache_middleware import make_cached_session


class Library:
    """Somebody's API client, written for a plain aiohttp session and unaware of any cache."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def title(self, number: int) -> str:
        """Look up the title of a book."""
        async with self._session.get(f"/books/{number}") as response:
            response.raise_for_status()
            book = await response.json()
            return str(book["title"])


async def read_the_catalogue(session: aiohttp.ClientSession) -> None:
    """Work with the client: three books, asked for again and again."""
    library = Library(session)
    for _ in range(5):
        for number in (1, 2, 3):
            await library.title(number)


async def main() -> None:
    """Run the same code with a plain session and with a cached one."""
    asked: list[str] = []

    async def book(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"title": f"Volume {request.match_info['number']}"})

    app = web.Application()
    app.router.add_get("/books/{number}", book)
    async with TestServer(app) as origin:
        url = origin.make_url("/")
        with tempfile.TemporaryDirectory() as directory:
            async with aiohttp.ClientSession(url) as session:
                await read_the_catalogue(session)
            print(f"aiohttp.ClientSession(): 15 look-ups, {len(asked)} reached the origin")

            asked.clear()
            async with make_cached_session(directory, base_url=url) as session:
                await read_the_catalogue(session)
            print(f"make_cached_session():   15 look-ups, {len(asked)} reached the origin")
            print(f"and its type is still {type(session).__name__}")


if __name__ == "__main__":
    asyncio.run(main())
