"""``restore_cookies``: what a hit's stored ``Set-Cookie`` may give back to a session's jar."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http.cookies import Morsel
from typing import TYPE_CHECKING

from ._response import parse_cookies

if TYPE_CHECKING:
    from aiohttp.abc import AbstractCookieJar
    from yarl import URL

    from ._model import StoredResponse


def restore_cookies(jar: AbstractCookieJar, stored: StoredResponse, url: URL, now: float) -> None:
    """
    Put the cookies of a hit into *jar*: those that have not expired since, and that the jar does not hold.

    Args:
        stored: The stored response, whose ``Set-Cookie`` fields count.
        url: The request's URL, which the cookies came from.
        now: POSIX time, in seconds.
    """
    set_cookies = stored.fields.getall("Set-Cookie", ())
    if not set_cookies:
        return
    held = {(one.key, one["domain"], one["path"]) for one in jar}
    of_all_hosts = {name for name, domain, _ in held if not domain}  # a session's own ``cookies=``
    came = stored.created_time if stored.set_cookie_time is None else stored.set_cookie_time
    restored: dict[tuple[str, str, str], Morsel[str]] = {}  # two of one name may differ in their path
    for set_cookie in set_cookies:
        for name, cookie in parse_cookies((set_cookie,)).items():
            domain = cookie["domain"].lstrip(".") or url.raw_host or ""
            path = cookie["path"] if cookie["path"].startswith("/") else _default_path(url)
            restored[name, domain, path] = cookie
    for which, cookie in restored.items():
        remaining = _remaining(cookie, came, now)
        is_held = which in held or which[0] in of_all_hosts
        if is_held or (remaining is not None and remaining <= 0):
            continue
        if remaining is not None:
            cookie["max-age"] = str(int(remaining))
            cookie["expires"] = ""
        jar.update_cookies([(which[0], cookie)], url)


def _remaining(cookie: Morsel[str], stored_time: float, now: float) -> float | None:
    """Give the seconds for which *cookie* is still valid; ``None``: to the end of the session (RFC 6265 §5.3)."""
    try:
        if cookie["max-age"]:
            return stored_time + int(cookie["max-age"]) - now
        if cookie["expires"]:
            return parsedate_to_datetime(cookie["expires"]).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        pass
    return None


def _default_path(url: URL) -> str:
    """Give the path of a cookie that names none (RFC 6265 §5.1.4), as aiohttp's jar spells it."""
    return url.path.rpartition("/")[0] or "/"
