"""Management: what a cache tells of itself, and what can be done to what it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aiohttp import InvalidURL
from multidict import CIMultiDictProxy
from yarl import URL

from ._key import url_tag
from ._model import FOREVER, BodyRef, Entry, StoredResponse, utc_datetime
from ._options import parse_expire_after
from ._request import bare_url

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._core import Core
    from ._options import ExpireAfter
    from ._stats import CacheStats
    from ._stores import Report

T = TypeVar("T")

_FIRST_MOMENT, _LAST_MOMENT = -62_135_596_800.0, 253_402_300_799.0
"""POSIX times between which there are datetimes."""

DRAIN_PATIENCE = 10.0
"""Seconds for which closing waits for background work."""


class Listing(Generic[T]):
    """What can be iterated over (``async for``), a page at a time, or had as a list (``await``)."""

    def __init__(self, iterate: Callable[[], AsyncIterator[T]]) -> None:
        self._iterate = iterate

    def __aiter__(self) -> AsyncIterator[T]:
        return self._iterate()

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self._as_list().__await__()

    async def _as_list(self) -> list[T]:
        return [one async for one in self._iterate()]


class StoredEntry:
    """
    A stored response, for those who look into a cache.

    Attributes:
        key: Its key in `CacheMiddleware.responses`.
        method: Method of the request.
        url: URL of the request, without fragment, credentials and ignored parameters.
        status: Status code.
        reason: Reason phrase.
        headers: Header fields of the response.
        request_headers: Header fields of the request, without credentials and ignored ones.
        size: Length of the body, in bytes.
    """

    def __init__(self, core: Core, stored: StoredResponse) -> None:
        self._core = core
        self._stored = stored
        self.key = stored.key
        self.method = stored.method
        self.url = stored.url
        self.status = stored.status
        self.reason = stored.reason
        self.size = stored.size

    def __repr__(self) -> str:
        return f"<StoredEntry {self.method} {self.url} [{self.status}] {self.size} bytes>"

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Header fields of the response."""
        return self._stored.fields

    @property
    def request_headers(self) -> CIMultiDictProxy[str]:
        """Header fields of the request, without credentials and ignored ones."""
        return self._stored.request_fields

    @property
    def created_at(self) -> datetime:
        """When it was stored, or renewed by a 304; aware, UTC."""
        return datetime.fromtimestamp(self._stored.created_time, timezone.utc)

    @property
    def expires(self) -> datetime | None:
        """When it expires; aware, UTC; ``None``: never."""
        return utc_datetime(self._stored.expires_time)

    @property
    def is_expired(self) -> bool:
        """Whether it has expired by now."""
        return self._core.clock() >= self._stored.expires_time

    @property
    def body(self) -> bytes:
        """
        The whole body. A large one is loaded from disk when asked for, which blocks.

        Raises:
            StoreError: It is gone, or not what was stored.
        """
        body = self._stored.body
        return self._core.store.load_body(self.key, body) if isinstance(body, BodyRef) else body


class _Mapping(Generic[T]):
    """An asynchronous mapping from strings, made anew from the store each time."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def keys(self) -> Listing[str]:
        """Iterate over the keys."""
        return Listing(self._keys)

    def values(self) -> Listing[T]:
        """Iterate over the values."""
        return Listing(self._values)

    def items(self) -> Listing[tuple[str, T]]:
        """Iterate over (key, value)."""
        return Listing(self._items)

    def __aiter__(self) -> AsyncIterator[str]:
        return self._keys()

    async def _keys(self) -> AsyncIterator[str]:
        async for key, _ in self._items():
            yield key

    async def _values(self) -> AsyncIterator[T]:
        async for _, value in self._items():
            yield value

    def _items(self) -> AsyncIterator[tuple[str, T]]:
        raise NotImplementedError  # what there is, each mapping tells


class Responses(_Mapping[StoredEntry]):
    """All stored responses, as an asynchronous mapping from key to `StoredEntry`."""

    async def get(self, key: str) -> StoredEntry | None:
        """Give the response under *key*, ``None`` if there is none."""
        stored = await _stored_under(self._core, key)
        return None if stored is None else StoredEntry(self._core, stored)

    async def count(self) -> int:
        """Give the number of stored responses."""
        return await self._core.store.count()

    async def delete(self, key: str) -> bool:
        """Remove the response under *key*; tell whether there was one."""
        if await _stored_under(self._core, key) is None:
            return False
        await self._core.store.remove([key])
        return True

    async def _items(self) -> AsyncIterator[tuple[str, StoredEntry]]:
        async for key, entry in self._core.store.scan():
            if isinstance(entry, StoredResponse):
                yield key, StoredEntry(self._core, entry)


class Redirects(_Mapping[str]):
    """Stored redirects, as an asynchronous mapping from a URL to the URL it led to; both are strings."""

    async def get(self, url: str | URL) -> str | None:
        """Give the URL that *url* led to; ``None`` if no redirect is stored for it."""
        for stored in await _stored_for(self._core, url):
            if (led_to := _led_to(stored)) is not None:
                return led_to
        return None

    async def count(self) -> int:
        """Give the number of stored redirects."""
        return len(await self.keys())

    async def _items(self) -> AsyncIterator[tuple[str, str]]:
        async for _, entry in self._core.store.scan():
            if isinstance(entry, StoredResponse) and (led_to := _led_to(entry)) is not None:
                yield entry.url, led_to


def _led_to(stored: StoredResponse) -> str | None:
    if stored.redirects_to is not None:
        return stored.redirects_to
    location = stored.fields.get("Location")
    if not 300 <= stored.status < 400 or location is None:
        return None
    try:
        return str(URL(stored.url).join(URL(location)))
    except ValueError:
        return None


def absolute(url: str | URL) -> URL:
    """
    Check a URL that was given.

    Raises:
        TypeError: It is neither a string nor a `URL`.
        aiohttp.InvalidURL: It is not absolute, or none at all.
    """
    if not isinstance(url, (str, URL)):
        raise TypeError(f"url: expected a str or yarl.URL, got {url!r}")
    try:
        parsed = URL(url)
    except ValueError as error:
        raise InvalidURL(url, str(error)) from error
    if not parsed.absolute:
        raise InvalidURL(url, "expected an absolute URL")
    return parsed


def check_method(method: object) -> None:
    """
    Check a method that was given, if one was.

    Raises:
        TypeError: It is no string.
    """
    if method is not None and not isinstance(method, str):
        raise TypeError(f"method: expected a str, got {method!r}")


async def _stored_under(core: Core, key: str) -> StoredResponse | None:
    if not isinstance(key, str):
        raise TypeError(f"key: expected a str, got {key!r}")
    await core.store.secret(patient=True)
    entry = await core.store.get(key)
    return entry if isinstance(entry, StoredResponse) else None


async def _stored_for(core: Core, url: str | URL) -> list[StoredResponse]:
    url = absolute(url)
    bare = bare_url(url)
    tag = url_tag(bare, await core.store.secret(patient=True), core.settings.ignored_params)
    found = [await core.store.get(key) for key in await core.store.tagged(tag)]
    return [one for one in found if isinstance(one, StoredResponse)]


_DISABLED: ContextVar[tuple[int, ...]] = ContextVar("aiohttp_cache_middleware_disabled", default=())


class _Disabled(AbstractContextManager[None], AbstractAsyncContextManager[None]):
    """Has a cache neither read nor write, in this context."""

    def __init__(self, cache: Management) -> None:
        self._cache = cache

    def __enter__(self) -> None:
        _DISABLED.set((*_DISABLED.get(), id(self._cache)))

    def __exit__(self, *error: object) -> None:
        # Nothing is kept here: the same object may be entered by many tasks at once.
        disabled = list(_DISABLED.get())
        with suppress(ValueError):  # it may end where it did not begin, as fixtures of tests do
            disabled.remove(id(self._cache))
        _DISABLED.set(tuple(disabled))

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__()


class Management:
    """
    The management API of a cache. It sees the whole store: all namespaces, methods and variants.

    Where a request goes on without a broken store, what is asked here raises `StoreError`.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._core.store!r}>"

    @property
    def expire_after(self) -> ExpireAfter:
        """
        How long responses that are stored from now on may be used.

        May be set to all that `CacheMiddleware` takes. It reads as seconds, an aware `datetime`, ``-1`` (for ever)
        or ``None`` (not said).

        Raises:
            TypeError, ValueError: When it is set to what is no expiration.
        """
        expiration = self._core.settings.expire_after
        if expiration is None:
            return None
        if expiration.moment is not None:
            # As a float `datetime.max` is rounded up to the year 10000.
            return datetime.fromtimestamp(min(max(expiration.moment, _FIRST_MOMENT), _LAST_MOMENT), timezone.utc)
        return -1 if expiration.seconds == FOREVER else expiration.seconds

    @expire_after.setter
    def expire_after(self, value: ExpireAfter) -> None:
        self._core.settings = replace(self._core.settings, expire_after=parse_expire_after("expire_after", value))

    @property
    def stats(self) -> CacheStats:
        """What has been counted since the cache was made: a snapshot."""
        return self._core.counters.snapshot()

    @property
    def responses(self) -> Responses:
        """All stored responses, as an asynchronous mapping."""
        return Responses(self._core)

    @property
    def redirects(self) -> Redirects:
        """All stored redirects: URL to the URL it led to, as an asynchronous mapping."""
        return Redirects(self._core)

    def disabled(self) -> _Disabled:
        """
        Neither read nor write in a block: ``with cache.disabled():`` or ``async with cache.disabled():``.

        It counts for the task that entered it and those it starts inside; other tasks don't see it.
        """
        return _Disabled(self)

    @property
    def is_disabled(self) -> bool:
        """Whether a block of `disabled` is around the caller."""
        return id(self) in _DISABLED.get()

    def urls(self) -> Listing[str]:
        """
        List the URLs of all stored responses, each once: ``async for url in cache.urls()``, or ``await`` it.

        Raises:
            StoreError: The store can't be asked.
        """
        return Listing(self._urls)

    async def _urls(self) -> AsyncIterator[str]:
        seen: set[str] = set()
        async for _, entry in self._core.store.scan():
            if isinstance(entry, StoredResponse) and entry.url not in seen:
                seen.add(entry.url)
                yield entry.url

    async def contains(
        self, url: str | URL | None = None, *, key: str | None = None, method: str | None = None
    ) -> bool:
        """
        Tell whether something is stored, fresh or not.

        Args:
            url: For this URL, with any headers, body and namespace;
            key: or under this key of `responses`.
            method: Only responses to this method.

        Raises:
            TypeError: Not exactly one of *url* and *key* was given.
            aiohttp.InvalidURL: *url* is not absolute.
            StoreError: The store can't be asked.
        """
        return bool(await self._selected(url, key, method))

    async def delete(self, url: str | URL | None = None, *, key: str | None = None, method: str | None = None) -> int:
        """
        Remove what is stored for a URL or under a key; the arguments are those of `contains`.

        Returns:
            How many responses were removed.

        Raises:
            TypeError: Not exactly one of *url* and *key* was given.
            aiohttp.InvalidURL: *url* is not absolute.
            StoreError: The store can't be asked, or could not remove them.
        """
        selected = await self._selected(url, key, method)
        await self._core.store.remove([stored.key for stored in selected])
        return len(selected)

    async def _selected(self, url: str | URL | None, key: str | None, method: str | None) -> list[StoredResponse]:
        check_method(method)
        if url is not None and key is None:
            found = await _stored_for(self._core, url)
        elif key is not None and url is None:
            stored = await _stored_under(self._core, key)
            found = [] if stored is None else [stored]
        else:
            raise TypeError("url, key: give exactly one of them")
        return [one for one in found if method is None or one.method == method.upper()]

    async def clear(self) -> None:
        """
        Remove everything that is stored, of all caches that use the store.

        Raises:
            StoreError: It could not be removed.
        """
        await self._core.store.clear()

    async def remove_expired_responses(self, expire_after: ExpireAfter = None) -> int:
        """
        Remove what has expired, also what could still be revalidated.

        Args:
            expire_after: If given, first becomes the expiration of all stored responses, counted from when
                each was created; in all shapes that `CacheMiddleware` takes.

        Returns:
            How many responses were removed.

        Raises:
            TypeError, ValueError: *expire_after* is no expiration.
            StoreError: The store can't be asked, or could not remove them.
        """
        expiration = parse_expire_after("expire_after", expire_after)
        now = self._core.clock()

        def change(key: str, entry: Entry) -> Entry | None:
            if not isinstance(entry, StoredResponse):
                return entry
            if expiration is not None:
                expires_time = expiration.expires_time(entry.created_time)
                entry = entry if expires_time == entry.expires_time else entry.replace(expires_time=expires_time)
            return entry if now < entry.expires_time else None

        _, removed = await self._core.store.rewrite(change, expired_by=now if expiration is None else None)
        return removed

    async def verify(self, *, repair: bool = False) -> Report:
        """
        Check every record, body and file of the store.

        Args:
            repair: Remove what is damaged or belongs to nothing.

        Returns:
            A `Report`: ``ok``, or what is wrong: ``damaged`` keys, ``orphans`` (files), ``problems``.

        Raises:
            StoreError: The store can't be opened.
        """
        return await self._core.store.verify(repair=repair)

    async def aclose(self) -> None:
        """
        Finish what is under way and keep what was accepted, for at most 10 s; then give back files and threads.

        Those are given back by the last cache of the process that uses the directory. A cache opens again when it is
        next used.
        """
        try:
            await self._core.flights.aclose(DRAIN_PATIENCE)
        except BaseException:  # whoever is the last then closes the store
            self._core.use.leave()
            raise
        await self._core.guarded.end(self._core.use)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
