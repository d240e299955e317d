"""Which responses may be stored (RFC 9111 §3)."""

from __future__ import annotations

from .._model import OriginResponse, Request, Rules
from ._answering import is_conditional
from ._fields import CacheControl, cache_control
from ._freshness import expires_time, explicit_lifetime, is_cacheable_by_default
from ._outcomes import PARTIAL, DoNotStore, Store, Storing
from ._ranges import asks_for_one_part, content_range, is_within, wanted_range
from ._selecting import selecting_names, vary_names
from ._stored_fields import not_stored_fields

STORABLE_METHODS = frozenset({"GET", "HEAD"})
"""Methods whose responses this cache can reuse: of POST only later GETs could make use (RFC 9110 §9.3.3)."""

UNDERSTOOD_STATUSES = frozenset(
    {200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 305, 307, 308}
    | {400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 417, 421, 422, 426}
    | {500, 501, 502, 503, 504, 505}
)
"""Status codes of RFC 9110 §15 whose caching requirements are met here (§5.2.2.3)."""

OF_ONE_REQUEST = frozenset({412, 416})
"""Answers to a precondition or a ``Range`` of the request, which no key holds (RFC 9110 §15.5.13, §15.5.17)."""

SUPERSEDING_STATUSES = frozenset({200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 410})
"""Answers to GET after which an older stored one is known to be out of date, even if they can't be stored."""


def may_store(request: Request, response: OriginResponse, rules: Rules, now: float) -> Storing:
    """
    Decide whether *response* may be stored, until when it is fresh, and without which fields (§3).

    ``Authorization`` needs no rule here: keys tell credentials apart. Whether the body is complete is for the
    caller to see.

    Args:
        now: POSIX time, in seconds.
    """
    directives = cache_control(response.fields)
    if why := _forbidden_by_request(request, rules):
        return DoNotStore(why)
    if why := _not_storable_status(response.status, rules):
        return DoNotStore(why)
    if response.status == PARTIAL and (why := _no_storable_part(request, response)):
        return DoNotStore(why)
    supersedes = response.status in SUPERSEDING_STATUSES and "Range" not in request.headers
    if why := _forbidden_by_response(response, directives, rules):
        return DoNotStore(why, invalidates=supersedes)
    expires = expires_time(response, rules, now)
    if not _is_useful(response, directives, rules, expires):
        return DoNotStore("§3 stale at once and nothing to validate it with", invalidates=supersedes)
    return Store(
        expires,
        selecting_names(request, response),
        not_stored_fields(response.fields),
        # Stale, it can be validated, or served under max-stale, RFC 5861 or our stale_if_error.
        worth_keeping_stale=_has_validator(response) or _may_be_served_stale(directives),
    )


def may_store_answer_to(request: Request, rules: Rules) -> bool:
    """Tell whether the answer to *request* might be stored, as far as its ``Range`` decides that (§3.3)."""
    if "Range" not in request.headers:
        return True
    allows_parts = rules.allowed_codes is None or PARTIAL in rules.allowed_codes
    return allows_parts and asks_for_one_part(request) and not is_conditional(request)


def _forbidden_by_request(request: Request, rules: Rules) -> str | None:
    if request.method not in STORABLE_METHODS:
        return f"§3 responses to {request.method} are not reused"
    if request.method not in rules.allowed_methods:
        return f"allowed_methods leaves out {request.method}"
    if cache_control(request.headers).no_store:
        return "§5.2.1.5 the request says no-store"
    if rules.override is not None and rules.override.forbids_caching:
        return "expire_after=0"
    return None


def _not_storable_status(status: int, rules: Rules) -> str | None:
    if status < 200:
        return f"§3 status {status} is not final"
    if status == 304:
        return "§4.3.4 a 304 is not a response of its own"
    if status in OF_ONE_REQUEST:
        return f"status {status} is for this request only"
    if rules.allowed_codes is not None and status not in rules.allowed_codes:
        return f"allowed_codes leaves out {status}"
    return None


def _no_storable_part(request: Request, response: OriginResponse) -> str | None:
    """
    Tell why a 206 may not be stored (§3.3); ``None``: it is one part, it is plain which, and nothing else is odd.

    One that answers ``If-Range`` may leave out fields that the caller has already (RFC 9110 §15.3.7).
    """
    if not asks_for_one_part(request) or is_conditional(request):
        return "§3.3 a 206 to what is no request for one part alone"
    part = content_range(response.fields)
    if part is None:
        return "§3.3 a 206 that does not tell which part of how much it is"
    wanted = wanted_range(request, part.complete)
    if wanted is None or not is_within(part[:2], wanted):
        return "§3.3 another part than was asked for"
    if "Content-Encoding" in response.fields:
        return "RFC 9110 §14.1 a part of an encoded representation"
    if response.fields.get("Content-Length", str(part.stop - part.start)) != str(part.stop - part.start):
        return "§3.3 Content-Length contradicts Content-Range"
    return None


def _forbidden_by_response(response: OriginResponse, directives: CacheControl, rules: Rules) -> str | None:
    if directives.must_understand and response.status not in UNDERSTOOD_STATUSES:
        return f"§5.2.2.3 must-understand, and status {response.status} is not understood"
    if directives.no_store and not directives.must_understand:
        return "§5.2.2.5 no-store"
    if vary_names(response.fields) is None:
        return "§4.1 Vary: * matches no request"
    if explicit_lifetime(response.fields, directives, response.response_time) is None:
        if not is_cacheable_by_default(response.status, directives):
            return f"§3 status {response.status} states no lifetime"
        if rules.override is None and rules.default is not None and rules.default.forbids_caching:
            return "expire_after=0"
    return None


def _has_validator(response: OriginResponse) -> bool:
    return bool(response.fields.get("ETag") or response.fields.get("Last-Modified"))


def _may_be_served_stale(directives: CacheControl) -> bool:
    return not (directives.must_revalidate or directives.no_cache)


def _is_useful(response: OriginResponse, directives: CacheControl, rules: Rules, expires: float) -> bool:
    """Tell whether a later request is at all likely to use the response."""
    if _has_validator(response):
        return True
    if directives.no_cache:
        return False
    lifetime = explicit_lifetime(response.fields, directives, response.response_time) or 0
    if lifetime > 0 or expires > response.response_time:
        return True
    stale_windows = (directives.stale_while_revalidate, directives.stale_if_error or 0, rules.stale_if_error)
    return _may_be_served_stale(directives) and max(stale_windows) > 0
