"""What may be stored, and which fields of it (RFC 9111 §3)."""

from __future__ import annotations

import pytest

from aiohttp_cache_middleware._model import Expiration, Rules
from aiohttp_cache_middleware._policy._outcomes import DoNotStore, Store
from aiohttp_cache_middleware._policy._storing import may_store
from tests.policy.making import T0, Fields, a_request, an_answer, date

FRESH = {"Cache-Control": "max-age=60"}


@pytest.mark.parametrize(
    "status", [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599]
)
def test_any_final_status_with_a_lifetime_is_stored(status: int) -> None:
    """§3, §5.2.2.1."""
    assert isinstance(may_store(a_request(), an_answer(FRESH, status), Rules(), T0), Store)


@pytest.mark.parametrize(
    ("asked", "fields", "status", "section"),
    [
        pytest.param({"Cache-Control": "no-store"}, FRESH, 200, "§5.2.1.5", id="§5.2.1.5 no-store in the request"),
        pytest.param({}, {"Cache-Control": "no-store"}, 200, "§5.2.2.5", id="§5.2.2.5 no-store"),
        pytest.param({}, {"Cache-Control": "max-age=9, NO-STORE"}, 200, "§5.2.2.5", id="§5.2.2.5 beside max-age"),
        pytest.param(
            {}, {"Cache-Control": "no-store, must-understand, max-age=9"}, 599, "§5.2.2.3", id="§5.2.2.3 not understood"
        ),
        pytest.param(
            {}, {"Cache-Control": "must-understand, max-age=9"}, 299, "§5.2.2.3", id="§5.2.2.3 without no-store"
        ),
        pytest.param({}, {**FRESH, "Vary": "*"}, 200, "§4.1", id="§4.1 Vary: *"),
        pytest.param({}, FRESH, 100, "§3", id="§3 interim"),
        pytest.param({}, FRESH, 206, "§3.3", id="§3.3 a part nobody asked for"),
        pytest.param({}, FRESH, 304, "§4.3.4", id="§4.3.4 not modified"),
        pytest.param({}, FRESH, 412, "this request only", id="RFC 9110 §15.5.13 a precondition failed"),
        pytest.param({}, FRESH, 416, "this request only", id="RFC 9110 §15.5.17 no such range"),
        pytest.param({}, {"ETag": '"a"'}, 201, "§3", id="§3 no lifetime, not cacheable by default"),
        pytest.param({}, {"Last-Modified": date(T0 - 9999)}, 500, "§3", id="§3 an error without lifetime"),
        pytest.param({}, {}, 200, "stale at once", id="§3 useless: neither lifetime nor validator"),
        pytest.param({}, {"Cache-Control": "no-cache, max-age=9"}, 200, "stale at once", id="§5.2.2.4 never usable"),
        pytest.param({}, {"Cache-Control": "max-age=0"}, 200, "stale at once", id="§3 useless: max-age=0"),
    ],
)
def test_not_stored(asked: Fields, fields: Fields, status: int, section: str) -> None:
    storing = may_store(a_request(asked), an_answer(fields, status), Rules(), T0)
    assert isinstance(storing, DoNotStore)
    assert section in storing.why


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({"Cache-Control": "no-store, must-understand, max-age=9"}, 200, id="§5.2.2.3 understood"),
        pytest.param({"Cache-Control": "private, max-age=9"}, 200, id="§5.2.2.7 private, for a private cache"),
        pytest.param({"Cache-Control": 'private="x", max-age=9'}, 200, id="§5.2.2.7 private fields"),
        pytest.param({"Cache-Control": "no-cache", "ETag": '"a"'}, 200, id="§5.2.2.4 can be validated"),
        pytest.param({"ETag": '"a"'}, 200, id="§4.3 stale at once, can be validated"),
        pytest.param({"Cache-Control": "max-age=0, stale-if-error=9"}, 200, id="5861 §4 a stand-in for errors"),
        pytest.param({"Cache-Control": "max-age=0, stale-while-revalidate=9"}, 200, id="5861 §3"),
        pytest.param({"Cache-Control": "max-age=15", "Age": "20"}, 200, id="§5.2.1.2 for max-stale"),
        pytest.param({"Cache-Control": "public", "ETag": '"a"'}, 599, id="§3 public marks any status"),
        pytest.param({**FRESH, "Set-Cookie": "a=b"}, 200, id="§7.3 cookies do not hinder"),
        pytest.param({**FRESH, "Pragma": "no-cache"}, 200, id="§5.4 Pragma means nothing in a response"),
    ],
)
def test_stored(fields: Fields, status: int) -> None:
    assert isinstance(may_store(a_request(), an_answer(fields, status), Rules(), T0), Store)


def test_credentials_do_not_hinder_a_private_cache() -> None:
    """§3.5 is for shared caches."""
    asked = a_request({"Authorization": "Basic x", "Cookie": "a=b"})
    assert isinstance(may_store(asked, an_answer(FRESH), Rules(), T0), Store)


@pytest.mark.parametrize(
    ("method", "stored"),
    [("GET", True), ("HEAD", True), ("POST", False), ("PUT", False), ("OPTIONS", False), ("QUERY", False)],
)
def test_methods(method: str, stored: bool) -> None:
    """§3, RFC 9110 §9.2.3: whatever the options allow."""
    rules = Rules(allowed_methods=frozenset({"GET", "HEAD", "POST", "PUT", "OPTIONS", "QUERY"}))
    assert isinstance(may_store(a_request(method=method), an_answer(FRESH), rules, T0), Store) is stored


@pytest.mark.parametrize(
    ("rules", "fields", "why"),
    [
        pytest.param(Rules(allowed_codes=frozenset({404})), FRESH, "allowed_codes", id="allowed_codes limits"),
        pytest.param(Rules(allowed_methods=frozenset({"HEAD"})), FRESH, "allowed_methods", id="allowed_methods limits"),
        pytest.param(Rules(override=Expiration(0)), FRESH, "expire_after", id="expire_after=0 for the request"),
        pytest.param(
            Rules(default=Expiration(0)), {"ETag": '"a"'}, "expire_after", id="expire_after=0, nothing stated"
        ),
        pytest.param(
            Rules(override=Expiration(60)), {"Cache-Control": "no-store"}, "§5.2.2.5", id="never over no-store"
        ),
        pytest.param(Rules(default=Expiration()), {"Cache-Control": "no-store"}, "§5.2.2.5", id="nor expire_after=-1"),
        pytest.param(
            Rules(default=Expiration()), {"Cache-Control": "max-age=0"}, "stale at once", id="HTTP goes first"
        ),
        pytest.param(
            Rules(allowed_codes=frozenset({206}), override=Expiration(9)),
            {"Vary": "*"},
            "allowed_codes",
            id="both limit",
        ),
    ],
)
def test_options_limit(rules: Rules, fields: Fields, why: str) -> None:
    storing = may_store(a_request(), an_answer(fields), rules, T0)
    assert isinstance(storing, DoNotStore)
    assert why in storing.why


@pytest.mark.parametrize(
    ("rules", "fields", "expires"),
    [
        pytest.param(Rules(default=Expiration(60)), {}, T0 + 60, id="expire_after fills what HTTP leaves open"),
        pytest.param(Rules(default=Expiration(0)), FRESH, T0 + 60, id="HTTP over expire_after=0"),
        pytest.param(Rules(override=Expiration(5)), {"Cache-Control": "max-age=0"}, T0 + 5, id="per request over HTTP"),
    ],
)
def test_options_fill(rules: Rules, fields: Fields, expires: float) -> None:
    storing = may_store(a_request(), an_answer(fields), rules, T0)
    assert isinstance(storing, Store)
    assert storing.expires_time == expires


@pytest.mark.parametrize(
    ("fields", "dropped", "kept"),
    [
        pytest.param(
            {},
            {"connection", "keep-alive", "te", "transfer-encoding", "upgrade"},
            {"set-cookie", "content-type"},
            id="9110 §7.6.1 hop by hop",
        ),
        pytest.param(
            {},
            {"proxy-authenticate", "proxy-authentication-info", "proxy-authorization", "proxy-connection"},
            set(),
            id="§3.1 of a proxy",
        ),
        pytest.param({"Connection": "A, b"}, {"a", "b"}, {"c"}, id="9110 §7.6.1 named by Connection"),
        pytest.param(
            {"Connection": "close, Cache-Control, Vary"},
            {"close"},
            {"cache-control", "vary"},
            id="9110 §7.6.1 never Cache-Control",
        ),
        pytest.param({"Cache-Control": 'max-age=9, no-cache="A, b"'}, {"a", "b"}, {"c"}, id="§5.2.2.4 no-cache fields"),
        pytest.param(
            {"Cache-Control": 'max-age=9, private="a"'}, set(), {"a"}, id="§5.2.2.7 private fields are for us"
        ),
    ],
)
def test_fields_not_stored(fields: dict[str, str], dropped: set[str], kept: set[str]) -> None:
    storing = may_store(a_request(), an_answer({"Cache-Control": "max-age=9", **fields}), Rules(), T0)
    assert isinstance(storing, Store)
    assert dropped <= storing.drop
    assert storing.drop.isdisjoint(kept)


@pytest.mark.parametrize(
    ("fields", "keep"),
    [
        pytest.param({"ETag": '"a"', "Cache-Control": "max-age=9, must-revalidate"}, True, id="§4.3 validator"),
        pytest.param({"Cache-Control": "max-age=9"}, True, id="§4.2.4 may be served stale"),
        pytest.param({"Cache-Control": "max-age=9, must-revalidate"}, False, id="§5.2.2.2 never again"),
    ],
)
def test_worth_keeping_stale(fields: Fields, keep: bool) -> None:
    storing = may_store(a_request(), an_answer(fields), Rules(), T0)
    assert isinstance(storing, Store)
    assert storing.worth_keeping_stale is keep


@pytest.mark.parametrize(
    ("asked", "fields", "status", "invalidates"),
    [
        pytest.param({}, {"Cache-Control": "no-store"}, 200, True, id="§4 a newer one that can't be kept"),
        pytest.param({}, {"Cache-Control": "max-age=0"}, 200, True, id="§4 a newer one that is useless"),
        pytest.param({}, {"Cache-Control": "no-store"}, 410, True, id="§4 it is gone"),
        pytest.param({}, {"Cache-Control": "no-store"}, 503, False, id="§4 an error says nothing about it"),
        pytest.param({"Range": "bytes=0-1"}, {"Cache-Control": "no-store"}, 200, False, id="§3.3 a range"),
        pytest.param({"Cache-Control": "no-store"}, FRESH, 200, False, id="§5.2.1.5 the request's own wish"),
        pytest.param({}, FRESH, 304, False, id="§4.3.3 a 304"),
    ],
)
def test_invalidates_what_is_older(asked: Fields, fields: Fields, status: int, invalidates: bool) -> None:
    storing = may_store(a_request(asked), an_answer(fields, status), Rules(), T0)
    assert isinstance(storing, DoNotStore)
    assert storing.invalidates is invalidates
