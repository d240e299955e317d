"""Requests, answers and stored responses to ask the policy about; every test names only what it is about."""

from __future__ import annotations

from email.utils import formatdate

from multidict import CIMultiDict, CIMultiDictProxy

from aiohttp_cache_middleware._model import OriginResponse, Request, Rules, StoredResponse
from aiohttp_cache_middleware._policy import Decision
from aiohttp_cache_middleware._policy._decision import decide
from aiohttp_cache_middleware._policy._outcomes import Store
from aiohttp_cache_middleware._policy._selecting import selecting_values
from aiohttp_cache_middleware._policy._storing import may_store

T0 = 1_800_000_000.0
"""When the origin answers, unless a test says otherwise."""

SECRET = b"s" * 32
URL = "http://origin.test/thing"
DAY = 86_400

Fields = dict[str, str] | list[tuple[str, str]]


def date(moment: float) -> str:
    """Give an HTTP date."""
    return formatdate(moment, usegmt=True)


def fields_of(fields: Fields) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


def a_request(fields: Fields | None = None, method: str = "GET", url: str = URL) -> Request:
    return Request(method, url, fields_of(fields or {}))


def an_answer(
    fields: Fields | None = None, status: int = 200, *, at: float = T0, delay: float = 0.0, dated: bool = True
) -> OriginResponse:
    """Make an answer received at *at*, with a ``Date`` of that moment unless it has one or is not *dated*."""
    headers = CIMultiDict(fields or {})
    if dated:
        headers.setdefault("Date", date(at))
    return OriginResponse(status, CIMultiDictProxy(headers), at - delay, at)


def stored_as(
    answer: OriginResponse, request: Request | None = None, rules: Rules | None = None, body: bytes = b"0123456789"
) -> StoredResponse:
    """Store *answer* as the path would; fails where it may not be stored."""
    request = request or a_request()
    storing = may_store(request, answer, rules or Rules(), answer.response_time)
    assert isinstance(storing, Store), storing
    return StoredResponse(
        key="00",
        method=request.method,
        url=request.url,
        status=answer.status,
        reason="OK",
        version=(1, 1),
        headers=tuple((name, value) for name, value in answer.fields.items() if name.lower() not in storing.drop),
        request_time=answer.request_time,
        response_time=answer.response_time,
        created_time=answer.response_time,
        expires_time=storing.expires_time,
        body=body,
        vary=selecting_values(request.headers, storing.vary, SECRET),
    )


def a_stored(
    fields: Fields | None = None, status: int = 200, *, at: float = T0, body: bytes = b"0123456789"
) -> StoredResponse:
    """Make what is stored of an answer with *fields*."""
    return stored_as(an_answer(fields, status, at=at), body=body)


def a_part(start: int, stop: int, /, **fields: str) -> StoredResponse:
    """Make what is stored of a 206 with the bytes from *start* to *stop* of ten digits; ``A_B="..."`` names a field."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    said = {"Cache-Control": "max-age=60", "Content-Range": f"bytes {start}-{stop - 1}/10", **named}
    asked = a_request({"Range": f"bytes={start}-{stop - 1}"})
    return stored_as(an_answer(said, 206), asked, body=b"0123456789"[start:stop])


def decided(
    stored: StoredResponse | list[StoredResponse],
    asked: Fields | None = None,
    *,
    after: float = 0.0,
    method: str = "GET",
    rules: Rules | None = None,
) -> Decision:
    """Decide about a request with the fields *asked*, *after* seconds."""
    candidates = stored if isinstance(stored, list) else [stored]
    return decide(a_request(asked, method), candidates, rules or Rules(), T0 + after, secret=SECRET)
