"""How a stored response is shown to a request that wants less than all of it (RFC 9111 §4.3.2; RFC 9110 §13, §14)."""

from __future__ import annotations

from multidict import istr

from .._model import Request, StoredResponse
from ._fields import CONDITIONS, date_field, field_members, parse_date, parse_entity_tag, strongly_equal, weakly_equal
from ._once import once
from ._outcomes import PARTIAL, Answer
from ._ranges import answer_from_part, holds_wanted, is_byte_range, partial_answer

_IF_NONE_MATCH, _IF_MODIFIED_SINCE, _IF_MATCH, _IF_UNMODIFIED_SINCE, _IF_RANGE = CONDITIONS
_RANGE = istr("Range")

DESCRIBING_CONTENT = frozenset(
    {"content-encoding", "content-language", "content-length", "content-range", "content-type"}
)
"""Fields that a 304 leaves out: they describe content it does not have (RFC 9110 §15.4.5)."""


@once
def is_special(request: Request) -> bool:
    """Tell whether *request* may want something else than a stored response as it stands."""
    return request.method != "GET" or _RANGE in request.headers or is_conditional(request)


@once
def is_conditional(request: Request) -> bool:
    """Tell whether the caller made *request* conditional."""
    return any(name in request.headers for name in CONDITIONS)


def only_the_origin_can_tell(request: Request, stored: StoredResponse) -> str | None:
    """
    Tell why *stored*, though fresh, is no answer to what *request* asks in particular; ``None``: it is one.

    ``If-Match`` and ``If-Unmodified-Since`` are for the origin (§4.3.2). Ranges count in the bytes of the
    representation; of one with a content coding we keep the decoded ones.
    """
    if not is_special(request):
        return None
    headers = request.headers
    if _IF_MATCH in headers or _IF_UNMODIFIED_SINCE in headers:
        return "§4.3.2 If-Match and If-Unmodified-Since are for the origin"
    range_field = headers.get(_RANGE)
    if range_field is None or request.method != "GET" or stored.status != 200:
        return None
    if not is_byte_range(range_field):
        return "RFC 9110 §14.2 a range unit we do not know"
    if "Content-Encoding" in stored.fields:
        return "RFC 9110 §14.1 a range of an encoded representation"
    return None


def is_answered_by_part(request: Request, stored: StoredResponse) -> bool:
    """
    Tell whether a stored 206 may answer *request*: only one that is for bytes within it (RFC 9111 §3.3).

    Of conditions it meets ``If-Range`` alone, and only one that holds: where not, the whole is the answer.
    """
    headers = request.headers
    if any(name in headers for name in CONDITIONS if name is not _IF_RANGE):
        return False
    return holds_wanted(stored, request) and _if_range_holds(headers.get(_IF_RANGE), stored)


def answer_to(request: Request, stored: StoredResponse, secret: bytes) -> Answer | None:
    """
    Give how *stored* is shown to *request*: 304, 206, 416, without a body for HEAD; ``None``: as it stands.

    Also for a response that has just been validated. Preconditions come first, in the order of RFC 9110 §13.2.2.
    """
    if not is_special(request):
        return None
    if is_not_modified(request, stored):
        return _not_modified(stored)
    if request.method == "HEAD":
        return Answer(stored.status, stored.reason, stored.headers, ranges=())
    if stored.status == PARTIAL:
        return answer_from_part(stored, request)
    range_field = request.headers.get(_RANGE)
    if range_field is None or stored.status != 200 or only_the_origin_can_tell(request, stored):
        return None
    if not _if_range_holds(request.headers.get(_IF_RANGE), stored):
        return None
    return partial_answer(stored, range_field, secret)


def is_not_modified(request: Request, stored: StoredResponse) -> bool:
    """
    Tell whether the caller's own copy is as good as *stored* (§4.3.2).

    ``If-None-Match`` goes before ``If-Modified-Since``, which counts only as one valid date. Neither means
    anything for a response that is not a success (RFC 9110 §13.2.1).
    """
    if not 200 <= stored.status < 300:
        return False
    tags = field_members(request.headers, _IF_NONE_MATCH)
    if tags:
        return _has_one_of(tags, stored)
    since = request.headers.getall(_IF_MODIFIED_SINCE, [])
    if len(since) != 1:
        return False
    moment = parse_date(since[0], stored.response_time)
    return moment is not None and _modified_time(stored) <= moment


def _has_one_of(tags: tuple[str, ...], stored: StoredResponse) -> bool:
    if "*" in tags:
        return True
    own = parse_entity_tag(stored.fields.get("ETag"))
    return own is not None and any(
        (tag := parse_entity_tag(text)) is not None and weakly_equal(own, tag) for text in tags
    )


def _modified_time(stored: StoredResponse) -> float:
    """Give ``Last-Modified``, else ``Date``, else when it was received (§4.3.2)."""
    for name in ("Last-Modified", "Date"):
        moment = date_field(stored.fields, name, stored.response_time)
        if moment is not None:
            return moment
    return stored.response_time


def _if_range_holds(validator: str | None, stored: StoredResponse) -> bool:
    """
    Tell whether the part the caller has belongs to *stored* (RFC 9110 §13.1.5): a strong tag, or the exact date.

    A date is strong enough only if it is a minute older than ``Date`` (RFC 9110 §8.8.2.2).
    """
    if validator is None:
        return True
    if '"' in validator:
        tag, own = parse_entity_tag(validator), parse_entity_tag(stored.fields.get("ETag"))
        return tag is not None and own is not None and strongly_equal(tag, own)
    modified = date_field(stored.fields, "Last-Modified", stored.response_time)
    date = date_field(stored.fields, "Date", stored.response_time)
    if modified is None or date is None or date - modified < 60:
        return False
    return validator == stored.fields.get("Last-Modified")


def _not_modified(stored: StoredResponse) -> Answer:
    headers = tuple([header for header in stored.headers if header[0].lower() not in DESCRIBING_CONTENT])
    return Answer(304, "Not Modified", headers, ranges=())
