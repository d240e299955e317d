"""A part beside what is stored already (RFC 9111 §3.4; RFC 9110 §15.3.7.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_cache_middleware._model import BodyRef, Rules, StoredResponse
from aiohttp_cache_middleware._policy._combining import (
    GREATEST_COMBINED,
    completed,
    completes,
    freshened_by_part,
    joined,
    strong_tag,
    to_complete,
    to_keep,
)
from aiohttp_cache_middleware._policy._outcomes import Complete, Decision, Forward, GatewayTimeout
from aiohttp_cache_middleware._tee import MEMORY_LIMIT
from tests.policy.making import T0, Fields, a_part, a_stored, an_answer, decided, fields_of

WHOLE = a_stored({"Cache-Control": "max-age=60", "ETag": '"a"'})


@pytest.mark.parametrize(
    ("fields", "tag"),
    [
        pytest.param({"ETag": '"a"'}, '"a"', id="9110 §8.8.3 strong"),
        pytest.param({"ETag": 'W/"a"'}, None, id="9110 §8.8.3 weak"),
        pytest.param({"ETag": "a"}, None, id="9110 §8.8.3 without quotes"),
        pytest.param({"ETag": '"'}, None, id="9110 §8.8.3 half a tag"),
        pytest.param({"ETag": '"a", "b"'}, None, id="9110 §8.8.3 two tags"),
        pytest.param({"Last-Modified": "x"}, None, id="9110 §8.8.2 a date is not strong enough for us"),
    ],
)
def test_strong_tag(fields: dict[str, str], tag: str | None) -> None:
    assert strong_tag(fields_of(fields)) == tag


@pytest.mark.parametrize(
    ("stored", "new", "is_kept"),
    [
        pytest.param(None, a_part(2, 5), True, id="§3.3 nothing stored"),
        pytest.param(WHOLE, a_part(2, 5, ETag='"a"'), False, id="§3.4 a complete one of the same representation"),
        pytest.param(WHOLE, a_part(2, 5), False, id="§3.4 a complete one, and no telling"),
        pytest.param(WHOLE, a_part(2, 5, ETag='W/"b"'), False, id="§3.4 a weak tag tells nothing"),
        pytest.param(WHOLE, a_part(2, 5, ETag='"b"'), True, id="§3.4 a complete one that is out of date"),
        pytest.param(a_stored({"Cache-Control": "max-age=60"}, 404), a_part(2, 5), True, id="§3.4 an error before"),
        pytest.param(a_part(0, 2), a_part(5, 9), True, id="§3.4 another part"),
        pytest.param(a_part(2, 8, ETag='"a"'), a_part(3, 4, ETag='"a"'), False, id="§3.4 a part of a part"),
        pytest.param(a_part(2, 8, ETag='"a"'), a_part(3, 4, ETag='"b"'), True, id="§3.4 a part of something newer"),
        pytest.param(a_part(2, 8), a_part(3, 4), True, id="§3.4 without a strong tag the newer part counts"),
        pytest.param(None, a_part(2, 8).replace(body=b"2"), False, id="§3.3 cut short"),
        pytest.param(None, a_part(2, 8).replace(body=BodyRef("", 6)), True, id="§3.3 a large one"),
    ],
)
def test_what_is_kept(stored: StoredResponse | None, new: StoredResponse, is_kept: bool) -> None:
    assert to_keep(stored, new) == (new if is_kept else None)


@pytest.mark.parametrize("stored", [None, WHOLE, a_part(2, 5)], ids=["nothing", "a whole", "a part"])
def test_a_part_that_is_the_whole_is_complete(stored: StoredResponse | None) -> None:
    """RFC 9110 §15.3.7.3."""
    raw = ((b"content-RANGE", b"bytes 0-9/10"), (b"A", b"1"))
    kept = to_keep(stored, a_part(0, 10, A="1").replace(raw_headers=raw))
    assert kept is not None
    assert (kept.status, kept.reason, kept.body) == (200, "OK", b"0123456789")
    assert "Content-Range" not in kept.fields
    assert (kept.fields["Content-Length"], kept.fields["A"]) == ("10", "1")
    assert kept.raw_headers == ((b"A", b"1"), (b"Content-Length", b"10"))


# --- parts of one representation together ---


def tagged(start: int, stop: int, tag: str = '"a"') -> StoredResponse:
    return a_part(start, stop, ETag=tag)


@pytest.mark.parametrize(
    ("stored", "new", "content", "where"),
    [
        pytest.param(tagged(0, 3), tagged(3, 5), b"01234", "0-4", id="§3.4 the next bytes"),
        pytest.param(tagged(3, 5), tagged(1, 3), b"1234", "1-4", id="§3.4 the bytes before"),
        pytest.param(tagged(1, 4), tagged(3, 6), b"12345", "1-5", id="§3.4 they overlap"),
        pytest.param(tagged(3, 6), tagged(1, 4), b"12345", "1-5", id="§3.4 they overlap the other way"),
        pytest.param(tagged(3, 5), tagged(2, 8), b"234567", "2-7", id="§3.4 one holds the other"),
        pytest.param(tagged(0, 3), tagged(4, 6), b"45", "4-5", id="§3.4 a gap: the newer"),
        pytest.param(a_part(0, 3), a_part(3, 5), b"34", "3-4", id="9110 §15.3.7.3 no validator"),
        pytest.param(tagged(0, 3, 'W/"a"'), tagged(3, 5, 'W/"a"'), b"34", "3-4", id="9110 §15.3.7.3 a weak one"),
        pytest.param(tagged(0, 3, "a"), tagged(3, 5, "a"), b"34", "3-4", id="9110 §15.3.7.3 one without quotes"),
        pytest.param(tagged(0, 3), tagged(3, 5, '"b"'), b"34", "3-4", id="9110 §15.3.7.3 another one"),
        pytest.param(
            tagged(0, 3),
            a_part(3, 5, ETag='"a"', Content_Range="bytes 3-4/11"),
            b"34",
            "3-4",
            id="§3.4 another complete length",
        ),
        pytest.param(
            tagged(0, 3), tagged(3, 5).replace(vary=(("foo", b"1"),)), b"34", "3-4", id="§4.1 another variant"
        ),
        pytest.param(
            tagged(0, 3).replace(body=BodyRef("x", 3)), tagged(3, 5), b"34", "3-4", id="§3.4 one that is not at hand"
        ),
    ],
)
def test_two_parts(stored: StoredResponse, new: StoredResponse, content: bytes, where: str) -> None:
    kept = to_keep(stored, new)
    assert kept is not None
    assert (kept.status, kept.body) == (206, content)
    assert kept.fields["Content-Range"].startswith(f"bytes {where}/")


@pytest.mark.parametrize("limit", [4, 5])
def test_two_parts_that_are_too_large_together(limit: int) -> None:
    kept = to_keep(tagged(0, 3), tagged(3, 5), limit)
    assert kept is not None
    assert kept.body == (b"01234" if limit == 5 else b"34")


def test_what_is_combined_fits_where_small_bodies_go() -> None:
    """`StoredResponse.body` holds as many bytes and no more; what is larger has to be a file."""
    assert GREATEST_COMBINED == MEMORY_LIMIT


def test_two_parts_that_make_the_whole() -> None:
    """RFC 9110 §15.3.7.3."""
    whole = to_keep(tagged(0, 6), tagged(4, 10))
    assert whole is not None
    assert (whole.status, whole.body, whole.fields["Content-Length"]) == (200, b"0123456789", "10")
    assert "Content-Range" not in whole.fields


numbers = st.integers(0, 10)
bounds = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair))).filter(lambda pair: pair[0] < pair[1])


@given(bounds, bounds)
def test_parts_together_hold_the_bytes_of_both(one: tuple[int, int], other: tuple[int, int]) -> None:
    """§3.4: whatever they are, each byte is where it belongs."""
    union = joined(tagged(*one), tagged(*other), 10)
    start, stop = min(one[0], other[0]), max(one[1], other[1])
    is_gap = one[1] < other[0] or other[1] < one[0]
    assert (union is None) is is_gap
    if union is not None:
        assert union.body == b"0123456789"[start:stop]
        assert union.status == (200 if (start, stop) == (0, 10) else 206)


def test_a_part_renews_what_it_is_a_part_of() -> None:
    """§3.4, §3.2."""
    old = a_part(0, 3, ETag='"a"', A="1", B="1").replace(expires_time=T0)
    others = [tagged(0, 3, '"b"'), a_part(0, 3), a_stored({"Cache-Control": "max-age=9", "ETag": '"a"'}, 404)]
    answer = an_answer(
        {"ETag": '"a"', "A": "2", "Content-Range": "bytes 5-6/10", "Cache-Control": "max-age=100"}, 206, at=T0 + 50
    )
    (renewed,) = freshened_by_part([*others, old], answer, Rules(), T0 + 50)
    assert (renewed.fields["A"], renewed.fields["B"]) == ("2", "1")
    assert (renewed.fields["Content-Range"], renewed.body) == ("bytes 0-2/10", b"012")
    assert renewed.expires_time == T0 + 150


# --- the whole is asked for ---


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        pytest.param(tagged(0, 6), "bytes=6-", id="§3.4 the rest"),
        pytest.param(tagged(6, 10), "bytes=0-5", id="§3.4 what stands before it"),
        pytest.param(tagged(2, 6), None, id="§3.4 both: two requests would not be better than one"),
        pytest.param(a_part(0, 6), None, id="9110 §15.3.7.3 no validator"),
        pytest.param(tagged(0, 6, 'W/"a"'), None, id="9110 §15.3.7.3 a weak one"),
        pytest.param(tagged(0, 6, '"\udcff"'), None, id="9110 §5.5 a tag that can't be sent"),
        pytest.param(tagged(0, 6).replace(body=BodyRef("x", 6)), None, id="§3.4 not at hand"),
        pytest.param(tagged(0, 6).replace(body=b"01"), None, id="§3.3 not what it says it is"),
        pytest.param(
            a_part(0, 6, ETag='"a"', Content_Range=f"bytes 0-5/{GREATEST_COMBINED + 1}"), None, id="§3.4 too large"
        ),
        pytest.param(WHOLE, None, id="§3.4 complete"),
    ],
)
def test_what_is_asked_for(stored: StoredResponse, asked: str | None) -> None:
    completing = to_complete(stored)
    assert (completing and completing.headers) == (asked and (("Range", asked), ("If-Range", '"a"')))


@pytest.mark.parametrize(
    ("status", "fields", "does"),
    [
        pytest.param(206, {}, True, id="§3.4 exactly what is missing"),
        pytest.param(200, {}, False, id="§3.4 no 206"),
        pytest.param(206, {"ETag": '"b"'}, False, id="9110 §15.3.7.3 another representation"),
        pytest.param(206, {"ETag": 'W/"a"'}, False, id="9110 §15.3.7.3 only weakly the same"),
        pytest.param(206, {"ETag": ""}, False, id="9110 §15.3.7.3 no validator"),
        pytest.param(206, {"Content-Range": "bytes 6-8/10", "Content-Length": "3"}, False, id="9110 §14.4 less"),
        pytest.param(206, {"Content-Range": "bytes 6-9/11"}, False, id="9110 §14.4 another length"),
        pytest.param(206, {"Content-Range": ""}, False, id="9110 §14.4 none"),
        pytest.param(206, {"Content-Length": ""}, False, id="9110 §8.6 no telling how much will come"),
        pytest.param(206, {"Content-Length": "5"}, False, id="9110 §8.6 another length than that"),
        pytest.param(206, {"Content-Encoding": "gzip"}, False, id="9110 §14.1 encoded"),
    ],
)
def test_completes(status: int, fields: dict[str, str], does: bool) -> None:
    said = {"ETag": '"a"', "Content-Range": "bytes 6-9/10", "Content-Length": "4", **fields}
    answer = an_answer({name: value for name, value in said.items() if value}, status)
    assert completes(tagged(0, 6), answer) is does


def test_completed() -> None:
    """§3.4: the fields are the new ones where there are new ones; what describes the content is the whole's."""
    part = a_part(0, 6, ETag='"a"', A="1", B="1", Content_Length="6").replace(raw_headers=((b"A", b"1"), (b"B", b"1")))
    answer = an_answer(
        {"ETag": '"a"', "Content-Range": "bytes 6-9/10", "Content-Length": "4", "A": "2"}, 206, at=T0 + 9
    )
    whole = completed(part, answer, b"6789", Rules(), T0 + 9)
    assert whole is not None
    assert (whole.status, whole.body, whole.response_time) == (200, b"0123456789", T0 + 9)
    assert (whole.fields["A"], whole.fields["B"], whole.fields["Content-Length"]) == ("2", "1", "10")
    assert "Content-Range" not in whole.fields
    assert dict(whole.raw_headers or ())[b"A"] == b"2"


@pytest.mark.parametrize("content", [b"678", b"67890"])
def test_what_is_cut_short_completes_nothing(content: bytes) -> None:
    answer = an_answer({"ETag": '"a"', "Content-Range": "bytes 6-9/10"}, 206)
    assert completed(tagged(0, 6), answer, content, Rules(), T0) is None


def test_only_a_part_is_completed() -> None:
    assert completed(WHOLE, an_answer({"ETag": '"a"'}, 206), b"", Rules(), T0) is None


@pytest.mark.parametrize(
    ("asked", "rules", "expected"),
    [
        pytest.param({}, Rules(), Complete, id="§3.4 the whole"),
        pytest.param({}, Rules(allowed_codes=frozenset({200, 206})), Complete, id="allowed_codes, both"),
        pytest.param({}, Rules(allowed_codes=frozenset({206})), Forward, id="allowed_codes without 200"),
        pytest.param({}, Rules(allowed_codes=frozenset({200})), Forward, id="allowed_codes without 206"),
        pytest.param({}, Rules(only_if_cached=True), GatewayTimeout, id="only_if_cached"),
        pytest.param({"Cache-Control": "only-if-cached"}, Rules(), GatewayTimeout, id="§5.2.1.7 only-if-cached"),
        pytest.param({"Range": "bytes=5-7"}, Rules(), Forward, id="§3.3 a range that is not all there"),
        pytest.param({"If-Modified-Since": "x"}, Rules(), Forward, id="§4.3.2 a condition of the caller's"),
    ],
)
def test_deciding_to_complete(asked: Fields, rules: Rules, expected: type[Decision]) -> None:
    assert isinstance(decided(tagged(0, 6), asked, rules=rules), expected)


def test_what_describes_a_part_does_not_describe_the_whole() -> None:
    """RFC 9530 §2: a digest of content is of the content it came with."""
    stored = a_stored({"Cache-Control": "max-age=60", "ETag": '"a"', "Content-Type": "text/plain"})
    part = an_answer(
        {
            "Content-Range": "bytes 0-1/10",
            "ETag": '"a"',
            "Content-Type": "text/html",
            "Content-Digest": "sha-256=:x:",
            "Content-MD5": "x",
            "X-New": "1",
        },
        206,
    )
    (renewed,) = freshened_by_part([stored], part, Rules(), T0)
    assert renewed.fields["Content-Type"] == "text/plain"
    assert renewed.fields["X-New"] == "1"
    assert "Content-Digest" not in renewed.fields
    assert "Content-MD5" not in renewed.fields


def test_joined_parts_have_no_digest_of_one_of_them() -> None:
    digest = {"ETag": '"a"', "Content_Digest": "sha-256=:x:"}
    whole = joined(a_part(0, 5, **digest), a_part(5, 10, **digest), 100)
    assert whole is not None
    assert whole.status == 200
    assert "Content-Digest" not in whole.fields


def test_several_parts_freshen_nothing() -> None:
    several = an_answer({"ETag": '"a"', "Content-Type": "multipart/byteranges; boundary=b"}, 206)
    assert freshened_by_part([WHOLE], several, Rules(), T0) == ()
