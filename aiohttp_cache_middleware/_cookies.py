"""``restore_cookies``: what a hit's stored ``Set-Cookie`` may give back to a session's jar."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http.cookies import Morsel, SimpleCookie
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp.abc import AbstractCookieJar
    from yarl import URL

    from ._model import StoredResponse


def restore_cookies(
    jar: AbstractCookieJar, cookies: SimpleCookie, stored: StoredResponse, url: URL, now: float
) -> None:
    """
    Put *cookies* of a hit into *jar*: those that have not expired since, and that the jar does not hold.

    Args:
        cookies: What the stored ``Set-Cookie`` fields say.
        url: The request's URL, which the cookies came from.
        now: POSIX time, in seconds.
    """
    held = {(one.key, one["domain"], one["path"]) for one in jar}
    restored: SimpleCookie = SimpleCookie()
    for name, cookie in cookies.items():
        remaining = _remaining(cookie, stored.created_time, now)
        domain = cookie["domain"].lstrip(".") or url.raw_host or ""
        path = cookie["path"] if cookie["path"].startswith("/") else _default_path(url)
        if (remaining is not None and remaining <= 0) or (name, domain, path) in held:
            continue
        restored[name] = cookie
        if remaining is not None:
            restored[name]["max-age"] = str(int(remaining))
            restored[name]["expires"] = ""
    if restored:
        jar.update_cookies(restored, url)


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
    """Give the path of a cookie that names none (RFC 6265 §5.1.4)."""
    return url.raw_path.rpartition("/")[0] or "/"
