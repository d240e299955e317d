"""The header fields of a stored response: which are stored (RFC 9111 §3.1), what later ones change (§3.2)."""

from __future__ import annotations

from email.utils import formatdate

from multidict import MultiMapping

from .._model import Header, OriginResponse, RawHeader, StoredResponse, encoded
from ._fields import cache_control, field_members

HOP_BY_HOP = frozenset(
    {
        # RFC 9110 §7.6.1 and RFC 9111 §3.1; the last two are what old clients and proxies send.
        "connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "keep-alive",
        "proxy-connection",
    }
)
"""Fields that are for one connection, or between us and a proxy."""

FOR_ALL_RECIPIENTS = frozenset({"age", "cache-control", "date", "expires", "vary"})
"""Fields that ``Connection`` or ``no-cache`` cannot take away: without them a response could look fresher (§7.6.1)."""

NEVER_UPDATED = frozenset({"content-length", "content-encoding", "content-range"})
"""Fields that describe the stored bytes: no later response changes those (§3.2)."""


def not_stored_fields(fields: MultiMapping[str]) -> frozenset[str]:
    """
    Give the lower-case names of fields that must not be stored (§3.1).

    Those for one connection, those that ``Connection`` names, and those that ``no-cache="..."`` names: to leave
    these out is one way never to reuse them unvalidated (§5.2.2.4). ``private="..."`` is for shared caches.
    """
    named = {name.lower() for name in field_members(fields, "Connection")} | cache_control(fields).no_cache_fields
    return HOP_BY_HOP | (named - FOR_ALL_RECIPIENTS) if named else HOP_BY_HOP


def updated(stored: StoredResponse, response: OriginResponse, now: float) -> StoredResponse:
    """Give *stored* with the fields and the times that *response* renews (§3.2); it expires when it did."""
    headers, raw_headers = _updated_fields(stored, response)
    return stored.replace(
        headers=headers,
        raw_headers=raw_headers,
        request_time=response.request_time,
        response_time=response.response_time,
        created_time=now,
        set_cookie_time=_set_cookie_time(stored, response),
    )


def without_unvalidated(stored: StoredResponse) -> StoredResponse:
    """Give *stored* without the fields that its ``no-cache="..."`` names (§5.2.2.4); an update brings either."""
    named = cache_control(stored.fields).no_cache_fields - FOR_ALL_RECIPIENTS
    if named.isdisjoint([name.lower() for name in stored.fields]):
        return stored
    headers = tuple([one for one in stored.headers if one[0].lower() not in named])
    raw_headers = stored.raw_headers and tuple(
        [one for one in stored.raw_headers if one[0].decode("latin-1").lower() not in named]
    )
    return stored.replace(headers=headers, raw_headers=raw_headers)


def _updated_fields(
    stored: StoredResponse, response: OriginResponse
) -> tuple[tuple[Header, ...], tuple[RawHeader, ...] | None]:
    """
    Give the fields of *stored*, decoded and raw, updated by those of *response* (§3.2).

    ``Age`` never outlives the response it came with, and a response without ``Date`` gets one: both say when
    *stored* was last known to be good.
    """
    ignored = NEVER_UPDATED | not_stored_fields(response.fields)
    new = [(name, value) for name, value in response.fields.items() if name.lower() not in ignored]
    if "Date" not in response.fields:
        new.append(("Date", formatdate(response.response_time, usegmt=True)))
    replaced = {name.lower() for name, _ in new} | {"age"}
    headers = (*[header for header in stored.headers if header[0].lower() not in replaced], *new)
    if stored.raw_headers is None:
        return headers, None
    kept = [header for header in stored.raw_headers if header[0].decode("latin-1").lower() not in replaced]
    return headers, (*kept, *encoded(tuple(new)))


def _set_cookie_time(stored: StoredResponse, response: OriginResponse) -> float | None:
    """Give when the ``Set-Cookie`` fields came that *stored*, updated by *response*, keeps; ``None``: it keeps none."""
    if "Set-Cookie" in response.fields or "Set-Cookie" not in stored.fields:
        return None
    return stored.created_time if stored.set_cookie_time is None else stored.set_cookie_time


def may_be_sent(value: str) -> bool:
    """
    Tell whether a stored field value may be sent again (RFC 9110 §5.5): it holds no control characters.

    Nor bytes that were no UTF-8, which aiohttp shows as surrogates and can't send as they came.
    """
    if value.isascii() and value.isprintable():  # as nearly all of them are
        return True
    return not any((char < " " and char != "\t") or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in value)
