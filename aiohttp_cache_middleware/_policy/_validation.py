"""Conditional requests, and what a 304 or a HEAD changes (RFC 9111 §4.3, §3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from multidict import CIMultiDict

from .._model import Header, OriginResponse, Rules, StoredResponse
from ._fields import EntityTag, cache_control, date_field, parse_entity_tag, strongly_equal, weakly_equal
from ._freshness import expires_time
from ._outcomes import PARTIAL
from ._ranges import content_range
from ._stored_fields import may_be_sent, updated, without_unvalidated

IDENTIFYING = frozenset({"authorization", "cookie"})
"""Selecting fields that tell users apart: one user's variants are not offered for another's request."""


# --- asking (§4.3.1) ---


def conditions(stored: StoredResponse, others: Iterable[StoredResponse] = ()) -> tuple[Header, ...]:
    """
    Give the conditional fields that validate *stored*, as the origin wrote them; ``()`` without a validator.

    Args:
        others: Further variants, whose strong entity tags are offered too.
    """
    fields = stored.fields
    tags = [etag for etag in (fields.get("ETag"), *map(_strong_etag, others)) if etag and may_be_sent(etag)]
    headers = [("If-None-Match", ", ".join(dict.fromkeys(tags)))] if tags else []
    if (last_modified := fields.get("Last-Modified")) and may_be_sent(last_modified):
        headers.append(("If-Modified-Since", last_modified))
    return tuple(headers)


def may_be_offered(variant: StoredResponse) -> bool:
    """
    Tell whether a variant selected by another request may be offered to the origin for this one (§4.1).

    Only with a strong entity tag, which names one representation, and not across users: an origin that uses one
    tag for several would otherwise make us show the wrong one.
    """
    return bool(_strong_etag(variant)) and IDENTIFYING.isdisjoint(name for name, _ in variant.vary)


def tells_variants_apart(variants: Iterable[StoredResponse]) -> bool:
    """
    Tell whether the origin is known to give variants tags of their own, so that it may be offered them (§4.1).

    It is by two of them. One alone may stand for all that it has; offering that, some would get the wrong one.
    """
    return len({_strong_etag(variant) for variant in variants}) > 1


def _strong_etag(stored: StoredResponse) -> str:
    etag = stored.fields.get("ETag", "")
    return "" if etag.startswith("W/") else etag


# --- what a 304 selects (§4.3.4) ---


def selected_by_304(candidates: Sequence[StoredResponse], response: OriginResponse) -> StoredResponse | None:
    """
    Give the stored response that a 304 is about; ``None`` if it is about none, which then asks for a full one.

    Entity tags decide before dates. Two of our own choices: a tag that differs only in being weak still selects
    (compressing proxies weaken tags in a 200 and not in a 304), and a 304 without any validator selects the only
    response we asked about.
    """
    tag = parse_entity_tag(response.fields.get("ETag"))
    if tag is not None:
        return _latest_with_tag(candidates, tag, strongly_equal) or _latest_with_tag(candidates, tag, weakly_equal)
    modified = response.fields.get("Last-Modified")
    if modified is not None:
        return _latest(one for one in candidates if _same_moment(one.fields.get("Last-Modified"), modified, response))
    return candidates[0] if len(candidates) == 1 else None


def _latest_with_tag(
    candidates: Iterable[StoredResponse], tag: EntityTag, equal: Callable[[EntityTag, EntityTag], bool]
) -> StoredResponse | None:
    return _latest(
        one for one in candidates if (own := parse_entity_tag(one.fields.get("ETag"))) is not None and equal(own, tag)
    )


def _latest(candidates: Iterable[StoredResponse]) -> StoredResponse | None:
    return max(candidates, key=lambda one: one.response_time, default=None)


def _same_moment(one: str | None, other: str, response: OriginResponse) -> bool:
    """Compare two dates by what they mean, so that another format is no other date; what is no date, literally."""
    if one is None or one == other:
        return one == other
    moments = {date_field(CIMultiDict({"Date": value}), "Date", response.response_time) for value in (one, other)}
    return len(moments) == 1 and None not in moments


# --- freshening (§3.2, §4.3.4) ---


def freshen(stored: StoredResponse, response: OriginResponse, rules: Rules, now: float) -> StoredResponse:
    """
    Renew *stored* by a 304 (or a matching HEAD): its fields, its times, its lifetime; its bytes stay.

    The result has the lifetime that its updated fields state; a 304 that forbids storing makes a result
    that does so too (`forbids_storing`), and may only be shown.
    """
    renewed = without_unvalidated(updated(stored, response, now))
    as_received = OriginResponse(stored.status, renewed.fields, response.request_time, response.response_time)
    return renewed.replace(expires_time=expires_time(as_received, rules, now))


def forbids_storing(stored: StoredResponse) -> bool:
    """Tell whether the fields of *stored*, after freshening, forbid to keep it (§5.2.2.5)."""
    directives = cache_control(stored.fields)
    return directives.no_store and not directives.must_understand


def freshened_by_304(
    stored: Sequence[StoredResponse], response: OriginResponse, rules: Rules, now: float
) -> tuple[StoredResponse, ...]:
    """
    Give which of *stored* a 304 to the caller's own condition renews, as renewed (§4.3.4): one at most.

    We have not asked about these, so the 304 must name what it confirms. One without an entity tag is about no
    response that has one (RFC 9110 §15.4.5).
    """
    if parse_entity_tag(response.fields.get("ETag")) is None:
        stored = [one for one in stored if "ETag" not in one.fields] if "Last-Modified" in response.fields else ()
    selected = selected_by_304(stored, response)
    return () if selected is None else (freshen(selected, response, rules, now),)


# --- HEAD (§4.3.5) ---


def freshen_from_head(
    stored: StoredResponse, response: OriginResponse, rules: Rules, now: float
) -> StoredResponse | None:
    """
    Tell what a response to HEAD makes of the stored response to GET of the same URL, whole or in part.

    Returns:
        *stored*, renewed, if a 200 has the same validators and length; itself if the status says nothing about
        it; ``None`` if it is another representation by now, or gone, or not gone any more.
    """
    if response.status in (404, 410):
        return None
    if response.status != stored.status and not (response.status == 200 and stored.status == PARTIAL):
        return None if response.status == 200 else stored
    theirs, ours = response.fields, stored.fields
    tag = parse_entity_tag(theirs.get("ETag"))
    own_tag = parse_entity_tag(ours.get("ETag"))
    if tag is not None and (own_tag is None or not weakly_equal(tag, own_tag)):
        return None
    modified = theirs.get("Last-Modified")
    if modified is not None and not _same_moment(ours.get("Last-Modified"), modified, response):
        return None
    length = theirs.get("Content-Length")
    if length is not None and length != _length(stored):
        return None
    return freshen(stored, response, rules, now)


def _length(stored: StoredResponse) -> str | None:
    """Give the length that GET stated, of the whole, else that of a body which was not decoded."""
    part = content_range(stored.fields) if stored.status == PARTIAL else None
    if part is not None:
        return str(part.complete)
    return stored.fields.get("Content-Length") or (None if "Content-Encoding" in stored.fields else str(stored.size))
