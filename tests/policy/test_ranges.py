"""Stored parts of a representation (RFC 9111 §3.3; RFC 9110 §14.4, §15.3.7): which bytes, and whom they answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_cache_middleware._model import Rules
from aiohttp_cache_middleware._policy import Forward, Reuse, Revalidate
from aiohttp_cache_middleware._policy._outcomes import DoNotStore, Store
from aiohttp_cache_middleware._policy._ranges import Part, asks_for_one_part, content_range, stored_part
from aiohttp_cache_middleware._policy._storing import may_store
from tests.policy.making import T0, Fields, a_part, a_request, an_answer, decided, fields_of, stored_as

BODY = b"0123456789"
FRESH = {"Cache-Control": "max-age=60"}


def content_of(reuse: Reuse) -> bytes:
    """Give the content that a reused part shows."""
    body = reuse.stored.body
    assert isinstance(body, bytes)
    ranges = None if reuse.answer is None else reuse.answer.ranges
    return body if ranges is None else b"".join(body[start:stop] for start, stop in ranges)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        pytest.param(["bytes 2-4/10"], Part(2, 5, 10), id="9110 §14.4 a part"),
        pytest.param(["Bytes 0-9/10"], Part(0, 10, 10), id="9110 §14.1 units in any case"),
        pytest.param(["bytes 9-9/10"], Part(9, 10, 10), id="9110 §14.4 the last byte"),
        pytest.param(["bytes 4-2/10"], None, id="9110 §14.4 invalid: backwards"),
        pytest.param(["bytes 4-10/10"], None, id="9110 §14.4 invalid: beyond the end"),
        pytest.param(["bytes 2-4/*"], None, id="9110 §14.4 complete length unknown"),
        pytest.param(["bytes */10"], None, id="9110 §14.4 unsatisfied"),
        pytest.param(["lines 2-4/10"], None, id="9110 §14.4 another unit"),
        pytest.param(["bytes=2-4/10"], None, id="9110 §14.4 malformed"),
        pytest.param(["bytes 2-4/" + "9" * 99], None, id="9110 §14.4 absurd"),
        pytest.param(["bytes 2-4/10", "bytes 2-4/10"], None, id="9110 §14.4 twice"),
        pytest.param([], None, id="9110 §15.3.7.2 several parts have none"),
    ],
)
def test_content_range(lines: list[str], part: Part | None) -> None:
    assert content_range(fields_of([("Content-Range", line) for line in lines])) == part


@pytest.mark.parametrize(
    ("method", "asked", "one"),
    [
        pytest.param("GET", {"Range": "bytes=2-4"}, True, id="9110 §14.1.2 first and last"),
        pytest.param("GET", {"Range": "bytes=2-"}, True, id="9110 §14.1.2 to the end"),
        pytest.param("GET", {"Range": "bytes=-2"}, True, id="9110 §14.1.2 the last ones"),
        pytest.param("GET", {}, False, id="9110 §14.2 no range"),
        pytest.param("HEAD", {"Range": "bytes=2-4"}, False, id="9110 §14.2 GET alone knows ranges"),
        pytest.param("GET", {"Range": "bytes=2-4,6-7"}, False, id="9110 §14.1.2 several"),
        pytest.param("GET", {"Range": "bytes=2-4,"}, False, id="9110 §14.1.2 odd"),
        pytest.param("GET", [("Range", "bytes=2-4"), ("Range", "bytes=6-7")], False, id="9110 §5.3 two lines"),
        pytest.param("GET", {"Range": "lines=2-4"}, False, id="9110 §14.2 another unit"),
        pytest.param("GET", {"Range": "bytes=4-2"}, False, id="9110 §14.1.1 backwards"),
        pytest.param("GET", {"Range": "bytes=-0"}, False, id="9110 §14.1.2 nothing"),
    ],
)
def test_asks_for_one_part(method: str, asked: Fields, one: bool) -> None:
    assert asks_for_one_part(a_request(asked, method)) is one


@pytest.mark.parametrize(
    ("asked", "said", "why"),
    [
        pytest.param({}, {}, None, id="§3.3 the part that was asked for"),
        pytest.param({"Range": "bytes=-8"}, {}, None, id="9110 §15.3.7 a server may send less"),
        pytest.param({}, {"ETag": '"a"', "Cache-Control": "no-cache"}, None, id="§3.3 a validator will do"),
        pytest.param(
            {}, {"Cache-Control": "no-store, must-understand, max-age=9"}, None, id="§5.2.2.3 it is understood"
        ),
        pytest.param({}, {"Cache-Control": "no-store"}, "§5.2.2.5", id="§5.2.2.5 no-store"),
        pytest.param({"Cache-Control": "no-store"}, {}, "§5.2.1.5", id="§5.2.1.5 no-store in the request"),
        pytest.param({}, {"Vary": "*"}, "§4.1", id="§4.1 Vary: *"),
        pytest.param({}, {"Cache-Control": "max-age=0"}, "stale at once", id="§3 useless"),
        pytest.param({"Range": "bytes=0-1,2-4"}, {}, "§3.3", id="§3.3 several were asked for"),
        pytest.param({"If-Range": '"a"'}, {"ETag": '"a"'}, "§3.3", id="9110 §15.3.7 If-Range: fields may be missing"),
        pytest.param({"If-Match": '"a"'}, {"ETag": '"a"'}, "§3.3", id="§3.3 a precondition"),
        pytest.param({"Range": "bytes=0-1"}, {}, "§3.3", id="§3.3 more than was asked for"),
        pytest.param({}, {"Content-Range": "bytes 2-4/*"}, "§3.3", id="9110 §14.4 complete length unknown"),
        pytest.param({}, {"Content-Range": "bytes 2-4/4"}, "§3.3", id="9110 §14.4 invalid"),
        pytest.param({}, {"Content-Length": "2"}, "§3.3", id="9110 §8.6 a length that contradicts it"),
        pytest.param({}, {"Content-Encoding": "gzip"}, "§14.1", id="9110 §14.1 bytes of a coding, which we undo"),
    ],
)
def test_storing_a_part(asked: dict[str, str], said: dict[str, str], why: str | None) -> None:
    request = a_request({"Range": "bytes=2-4", **asked})
    answer = an_answer({**FRESH, "Content-Range": "bytes 2-4/10", **said}, 206)
    storing = may_store(request, answer, Rules(), T0)
    if why is None:
        assert isinstance(storing, Store)
    else:
        assert isinstance(storing, DoNotStore)
        assert why in storing.why
        assert not storing.invalidates


def test_allowed_codes_leave_out_parts() -> None:
    storing = may_store(
        a_request({"Range": "bytes=2-4"}),
        an_answer({**FRESH, "Content-Range": "bytes 2-4/10"}, 206),
        Rules(allowed_codes=frozenset({200})),
        T0,
    )
    assert isinstance(storing, DoNotStore)


@pytest.mark.parametrize(
    ("asked", "content", "where"),
    [
        pytest.param({"Range": "bytes=2-7"}, b"234567", "2-7", id="§3.3 all of it"),
        pytest.param({"Range": "bytes=3-5"}, b"345", "3-5", id="§3.3 within it"),
        pytest.param({"Range": "bytes=2-2"}, b"2", "2-2", id="§3.3 its first byte"),
        pytest.param({"Range": "bytes=7-7"}, b"7", "7-7", id="§3.3 its last byte"),
        pytest.param({"Range": "bytes=3-5", "If-Range": '"a"'}, b"345", "3-5", id="9110 §13.1.5 If-Range that holds"),
        pytest.param({"Range": "bytes=1-5"}, None, "", id="§3.3 begins before it"),
        pytest.param({"Range": "bytes=5-8"}, None, "", id="§3.3 ends after it"),
        pytest.param({"Range": "bytes=3-"}, None, "", id="§3.3 to an end it does not have"),
        pytest.param({"Range": "bytes=-1"}, None, "", id="§3.3 the last byte of the whole"),
        pytest.param({"Range": "bytes=3-4,5-6"}, None, "", id="9110 §14.2 several"),
        pytest.param({"Range": "bytes=10-"}, None, "", id="9110 §15.5.17 beyond the whole"),
        pytest.param({"Range": "lines=3-4"}, None, "", id="9110 §14.2 another unit"),
        pytest.param({"Range": "bytes=3-5", "If-Range": '"b"'}, None, "", id="9110 §13.1.5 If-Range that fails"),
        pytest.param({"Range": "bytes=3-5", "If-None-Match": '"a"'}, None, "", id="9110 §13.1.2 another condition"),
        pytest.param(
            {"Range": "bytes=3-5", "If-Range": '"a"', "If-Match": '"a"'},
            None,
            "",
            id="9110 §13.1.1 one beside If-Range",
        ),
        pytest.param({}, None, "", id="§3.3 the whole"),
    ],
)
def test_reusing_a_part(asked: Fields, content: bytes | None, where: str) -> None:
    decision = decided(a_part(2, 8, ETag='"a"', A="1"), asked, after=1)
    if content is None:
        assert isinstance(decision, Forward)
        return
    assert isinstance(decision, Reuse)
    assert content_of(decision) == content
    headers = dict(decision.stored.headers if decision.answer is None else decision.answer.headers)
    assert (headers["Content-Range"], headers["A"]) == (f"bytes {where}/10", "1")
    assert headers.get("Content-Length", str(len(content))) == str(len(content))
    assert decision.answer is None or decision.answer.status == 206


@pytest.mark.parametrize("asked", ["bytes=6-", "bytes=-4", "bytes=6-99"])
def test_a_part_that_reaches_the_end(asked: str) -> None:
    """RFC 9110 §14.1.2: ranges that leave the end open, by the complete length in ``Content-Range``."""
    decision = decided(a_part(5, 10), {"Range": asked}, after=1)
    assert isinstance(decision, Reuse)
    assert content_of(decision) == b"6789"


@given(
    st.tuples(st.integers(0, 9), st.integers(1, 10)),
    st.from_regex(r"bytes=(1?[0-9]-1?[0-9]?|-1?[0-9])", fullmatch=True),
)
def test_a_part_shows_what_the_whole_would(held: tuple[int, int], asked: str) -> None:
    """§3.3, §4: whatever is stored and asked, the bytes and ``Content-Range`` are those of the complete response."""
    start, stop = min(held), max(held)
    if start == stop:
        return
    from_part = decided(a_part(start, stop), {"Range": asked}, after=1)
    if not isinstance(from_part, Reuse):
        return
    whole = stored_as(an_answer(FRESH), body=BODY)
    from_whole = decided(whole, {"Range": asked}, after=1)
    assert isinstance(from_whole, Reuse)
    assert from_whole.answer is not None
    assert content_of(from_part) == content_of(from_whole)
    headers = from_part.stored.headers if from_part.answer is None else from_part.answer.headers
    assert dict(headers)["Content-Range"] == dict(from_whole.answer.headers)["Content-Range"]


def test_a_part_answers_no_head() -> None:
    """RFC 9110 §14.2: HEAD is about the whole."""
    assert isinstance(decided(a_part(2, 8), {"Range": "bytes=3-5"}, method="HEAD", after=1), Forward)


def test_content_of_another_length_than_it_says_answers_nothing() -> None:
    """§3.3: it was cut short, or ``Content-Range`` is wrong; neither tells which bytes these are."""
    stored = a_part(2, 8).replace(body=b"23456")
    assert stored_part(stored) is None
    assert isinstance(decided(stored, {"Range": "bytes=2-7"}, after=1), Forward)


def test_a_stale_part_is_validated_for_a_range_within_it_alone() -> None:
    """§4.3.1: a 304 to a request for the whole would confirm what can't answer it."""
    part = a_part(2, 8, ETag='"a"')
    revalidate = decided(part, {"Range": "bytes=3-5"}, after=61)
    assert isinstance(revalidate, Revalidate)
    assert revalidate.headers == (("If-None-Match", '"a"'),)
    assert isinstance(decided(part, {"Range": "bytes=0-5"}, after=61), Forward)


def test_another_variant_that_is_a_part_is_not_offered_for_the_whole() -> None:
    """§4.1, §4.3.1."""
    asked = a_request({"Range": "bytes=2-7", "Foo": "1"})
    said = {**FRESH, "Vary": "Foo", "ETag": '"a"', "Content-Range": "bytes 2-7/10"}
    part = stored_as(an_answer(said, 206), asked, body=BODY[2:8])
    assert isinstance(decided(part, {"Foo": "2"}), Forward)


@pytest.mark.parametrize(
    ("asked", "rules", "may_be_stored"),
    [
        pytest.param({"Range": "bytes=0-1"}, Rules(), True, id="§3.3 one part"),
        pytest.param({"Range": "bytes=0-1,3-4"}, Rules(), False, id="§3.3 several"),
        pytest.param({"Range": "lines=0-1"}, Rules(), False, id="§3.3 another unit"),
        pytest.param({"Range": "bytes=0-1", "If-Range": '"a"'}, Rules(), False, id="§3.3 a condition"),
        pytest.param({"Range": "bytes=0-1"}, Rules(allowed_codes=frozenset({200})), False, id="allowed_codes"),
        pytest.param({"Range": "bytes=0-1"}, Rules(allowed_codes=frozenset({200, 206})), True, id="allowed_codes, 206"),
    ],
)
def test_whether_the_answer_might_be_stored(asked: Fields, rules: Rules, may_be_stored: bool) -> None:
    decision = decided([], asked, rules=rules)
    assert isinstance(decision, Forward)
    assert decision.may_be_stored is may_be_stored
