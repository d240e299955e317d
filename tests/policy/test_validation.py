"""Conditional requests, and what a 304 or a HEAD changes (RFC 9111 §4.3, §3.2)."""

from __future__ import annotations

import pytest

from aiohttp_cache_middleware._model import Expiration, Rules, StoredResponse, encoded
from aiohttp_cache_middleware._policy._validation import (
    conditions,
    forbids_storing,
    freshen,
    freshen_from_head,
    freshened_by_304,
    may_be_offered,
    selected_by_304,
)
from tests.policy.making import DAY, T0, Fields, a_request, a_stored, an_answer, date, stored_as

MODIFIED = date(T0 - 100 * DAY)
FRESH = ("Cache-Control", "max-age=60")


def kept(*fields: tuple[str, str], at: float = T0, body: bytes = b"0123456789") -> StoredResponse:
    return a_stored([FRESH, *fields], at=at, body=body)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        pytest.param([("ETag", '"a"')], (("If-None-Match", '"a"'),), id="§4.3.1 strong tag"),
        pytest.param([("ETag", 'W/"a"')], (("If-None-Match", 'W/"a"'),), id="§4.3.1 weak tag"),
        pytest.param([("ETag", "a")], (("If-None-Match", "a"),), id="§4.3.1 as the origin wrote it"),
        pytest.param([("Last-Modified", MODIFIED)], (("If-Modified-Since", MODIFIED),), id="§4.3.1 date"),
        pytest.param(
            [("Last-Modified", MODIFIED), ("ETag", '"a"')],
            (("If-None-Match", '"a"'), ("If-Modified-Since", MODIFIED)),
            id="§4.3.1 both",
        ),
        pytest.param([], (), id="§4.3.1 nothing to ask with"),
    ],
)
def test_conditions(fields: list[tuple[str, str]], headers: tuple[tuple[str, str], ...]) -> None:
    assert conditions(kept(*fields)) == headers


def test_all_strong_tags_go_into_one_field() -> None:
    """§4.3.1."""
    one, same, weak = kept(("ETag", '"a"')), kept(("ETag", '"a"')), kept(("ETag", 'W/"w"'))
    other = kept(("ETag", '"b"'))
    assert conditions(one, [same, weak, other]) == (("If-None-Match", '"a", "b"'),)


@pytest.mark.parametrize(
    ("fields", "asked", "offered"),
    [
        pytest.param({"ETag": '"a"', "Vary": "Foo"}, {"Foo": "1"}, True, id="§4.1 a strong tag"),
        pytest.param({"ETag": 'W/"a"', "Vary": "Foo"}, {"Foo": "1"}, False, id="§4.1 a weak one may stand for several"),
        pytest.param({"Vary": "Foo"}, {"Foo": "1"}, False, id="§4.1 no tag"),
        pytest.param({"ETag": '"a"', "Vary": "Cookie"}, {"Cookie": "a=b"}, False, id="another user's"),
        pytest.param({"ETag": '"a"', "Vary": "Authorization"}, {}, False, id="another user's, without credentials"),
    ],
)
def test_may_be_offered(fields: dict[str, str], asked: Fields, offered: bool) -> None:
    stored = stored_as(an_answer({"Cache-Control": "max-age=9", **fields}), a_request(asked))
    assert may_be_offered(stored) is offered


@pytest.mark.parametrize(
    ("candidates", "answer", "index"),
    [
        pytest.param([{"ETag": '"a"'}, {"ETag": '"b"'}], {"ETag": '"b"'}, 1, id="§4.3.4 strong tag"),
        pytest.param([{"ETag": '"a"'}], {"ETag": '"b"'}, None, id="§4.3.4 another tag selects nothing"),
        pytest.param([{"ETag": 'W/"a"'}, {"ETag": 'W/"b"'}], {"ETag": 'W/"b"'}, 1, id="§4.3.4 weak tag"),
        pytest.param([{"ETag": 'W/"a"'}], {"ETag": '"a"'}, 0, id="a tag weakened in the 200 only"),
        pytest.param([{"ETag": 'W/"a"'}, {"ETag": '"a"'}], {"ETag": '"a"'}, 1, id="§4.3.4 the strong one rather"),
        pytest.param([{"Last-Modified": MODIFIED}], {"Last-Modified": MODIFIED}, 0, id="§4.3.4 date"),
        pytest.param([{"Last-Modified": MODIFIED}], {"Last-Modified": date(T0)}, None, id="§4.3.4 another date"),
        pytest.param(
            [{"ETag": '"a"', "Last-Modified": MODIFIED}], {"Last-Modified": MODIFIED}, 0, id="§4.3.4 one of two"
        ),
        pytest.param([{"ETag": '"a"'}], {"Last-Modified": MODIFIED}, None, id="§4.3.4 a date we don't have"),
        pytest.param([{"ETag": '"a"'}], {}, 0, id="§4.3.4 none, and only one asked about"),
        pytest.param([{"ETag": '"a"'}, {"ETag": '"b"'}], {}, None, id="§4.3.4 none, and several asked about"),
        pytest.param([], {"ETag": '"a"'}, None, id="§4.3.4 nothing asked about"),
    ],
)
def test_selected_by_304(candidates: list[dict[str, str]], answer: Fields, index: int | None) -> None:
    stored = [kept(*fields.items()) for fields in candidates]
    selected = selected_by_304(stored, an_answer(answer, 304))
    assert selected is (None if index is None else stored[index])


@pytest.mark.parametrize(
    ("fields", "answer", "renewed"),
    [
        pytest.param({"ETag": '"a"'}, {"ETag": '"a"'}, True, id="§4.3.4 its tag"),
        pytest.param({"ETag": '"a"'}, {"ETag": '"b"'}, False, id="§4.3.4 another tag"),
        pytest.param({"Last-Modified": MODIFIED}, {"Last-Modified": MODIFIED}, True, id="§4.3.4 its date"),
        pytest.param({"Last-Modified": MODIFIED}, {"Last-Modified": date(T0)}, False, id="§4.3.4 another date"),
        pytest.param(
            {"ETag": '"a"', "Last-Modified": MODIFIED},
            {"Last-Modified": MODIFIED},
            False,
            id="RFC 9110 §15.4.5 a date, where there would be a tag",
        ),
        pytest.param({"ETag": '"a"'}, {}, False, id="§4.3.4 nothing"),
        pytest.param({}, {}, False, id="§4.3.4 nothing, as it has nothing"),
        pytest.param({"ETag": '"a"'}, {"ETag": ""}, False, id="RFC 9110 §8.8.3 what is no tag"),
    ],
)
def test_freshened_by_304(fields: dict[str, str], answer: Fields, renewed: bool) -> None:
    stored = kept(*fields.items())
    freshened = freshened_by_304([stored], an_answer(answer, 304, at=T0 + 50), Rules(), T0 + 50)
    assert [one.response_time for one in freshened] == [T0 + 50] * renewed


def test_the_same_moment_in_another_format_is_the_same_date() -> None:
    stored = kept(("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"))
    assert selected_by_304([stored], an_answer({"Last-Modified": "Sun Nov  6 08:49:37 1994"}, 304)) is stored


def test_of_several_with_one_tag_the_latest_is_selected() -> None:
    """§4.3.4."""
    old, new = kept(("ETag", 'W/"a"'), at=T0), kept(("ETag", 'W/"a"'), at=T0 + 5)
    assert selected_by_304([new, old], an_answer({"ETag": 'W/"a"'}, 304)) is new


@pytest.mark.parametrize(
    ("name", "old", "new", "shown"),
    [
        pytest.param("X-Test", "1", "2", "2", id="§3.2 replaced"),
        pytest.param("X-Test", "1", None, "1", id="§3.2 kept where the 304 is silent"),
        pytest.param("X-Test", None, "2", "2", id="§3.2 added"),
        pytest.param("Content-Foo", "1", "2", "2", id="§3.2 other Content- fields"),
        pytest.param("Content-Type", "text/plain", "text/html", "text/html", id="§3.2 Content-Type"),
        pytest.param("Set-Cookie", "a=b", "a=c", "a=c", id="§3.2 Set-Cookie"),
        pytest.param("Content-Length", "10", "5", "10", id="§3.2 never Content-Length"),
        pytest.param("Content-Encoding", "gzip", "br", "gzip", id="§3.2 never Content-Encoding: we keep decoded bytes"),
        pytest.param("Content-Range", None, "bytes 0-1/2", None, id="§3.2 never Content-Range"),
        pytest.param("Transfer-Encoding", None, "chunked", None, id="§3.1 hop by hop"),
    ],
)
def test_freshened_fields(name: str, old: str | None, new: str | None, shown: str | None) -> None:
    stored = kept(*([] if old is None else [(name, old)]), ("ETag", '"a"'))
    answer = an_answer({"ETag": '"a"', **({} if new is None else {name: new})}, 304, at=T0 + 99)
    freshened = freshen(stored, answer, Rules(), T0 + 99)
    assert freshened.fields.getall(name, [None]) == [shown]
    assert (freshened.body, freshened.status) == (stored.body, 200)


def test_all_lines_of_a_field_are_replaced() -> None:
    """§3.2."""
    stored = kept(("ETag", '"a"'), ("X", "1"), ("X", "2"))
    answer = an_answer([("ETag", '"a"'), ("x", "3"), ("X", "4")], 304, at=T0 + 9)
    assert freshen(stored, answer, Rules(), T0 + 9).fields.getall("X") == ["3", "4"]


def test_fields_named_by_connection_do_not_update() -> None:
    """§3.1, §3.2."""
    answer = an_answer({"Connection": "X", "X": "2"}, 304, at=T0 + 9)
    assert freshen(kept(("X", "1")), answer, Rules(), T0 + 9).fields["X"] == "1"


@pytest.mark.parametrize(
    ("control", "said"),
    [
        pytest.param("max-age=60", {"Cache-Control": 'no-cache="X"'}, id="named by the 304"),
        pytest.param("max-age=60", {"Cache-Control": 'no-cache="X"', "X": "2"}, id="named and brought by the 304"),
        pytest.param('max-age=60, no-cache="X"', {"X": "2"}, id="brought by the 304"),
    ],
)
def test_fields_that_no_cache_names_do_not_stay(control: str, said: dict[str, str]) -> None:
    """§5.2.2.4, §3.2: later requests would get them unvalidated."""
    stored = a_stored({"Cache-Control": control, "ETag": '"a"', "X": "1", "Y": "1"})
    stored = stored.replace(raw_headers=encoded(stored.headers))
    freshened = freshen(stored, an_answer(said, 304), Rules(), T0)
    assert freshened.fields.keys() & {"X", "Y"} == {"Y"}
    assert freshened.raw_headers == encoded(freshened.headers)


def test_raw_fields_are_updated_alike() -> None:
    stored = kept(("X-A", "1"), ("X-B", "1")).replace(raw_headers=((b"x-A", b"1"), (b"X-B", b"1"), (b"Age", b"7")))
    freshened = freshen(stored, an_answer({"X-B": "\N{LATIN SMALL LETTER U WITH DIAERESIS}"}, 304), Rules(), T0)
    assert freshened.raw_headers == ((b"x-A", b"1"), (b"X-B", b"\xc3\xbc"), (b"Date", date(T0).encode()))


def test_times_are_renewed() -> None:
    """§4.2.3, §4.3.4."""
    stored = kept(("ETag", '"a"'), ("Age", "50"))
    freshened = freshen(stored, an_answer({"ETag": '"a"'}, 304, at=T0 + 100, delay=2), Rules(), T0 + 100)
    assert (freshened.request_time, freshened.response_time) == (T0 + 98, T0 + 100)
    assert freshened.created_time == T0 + 100
    assert freshened.expires_time == T0 + 98 + 60
    assert "Age" not in freshened.fields


def test_a_304_brings_its_own_lifetime_and_age() -> None:
    """§4.3.4."""
    answer = an_answer({"Cache-Control": "max-age=1000", "Age": "10"}, 304, at=T0 + 100)
    freshened = freshen(kept(("ETag", '"a"')), answer, Rules(), T0 + 100)
    assert freshened.expires_time == T0 + 100 + 990


def test_a_304_without_date_gets_one() -> None:
    """RFC 9110 §6.6.1; else the old date would make it old at once."""
    freshened = freshen(kept(("ETag", '"a"')), an_answer({}, 304, at=T0 + DAY, dated=False), Rules(), T0 + DAY)
    assert freshened.fields.getall("Date") == [date(T0 + DAY)]
    assert freshened.expires_time == T0 + DAY + 60


def test_options_count_again() -> None:
    freshened = freshen(a_stored({"ETag": '"a"'}), an_answer({}, 304), Rules(default=Expiration(50)), T0)
    assert freshened.expires_time == T0 + 50


@pytest.mark.parametrize(
    ("control", "forbidden"),
    [
        pytest.param("no-store", True, id="§5.2.2.5 no-store in the 304"),
        pytest.param("no-store, must-understand", False, id="§5.2.2.3 must-understand"),
        pytest.param("max-age=9", False, id="§4.3.4 neither"),
    ],
)
def test_a_304_may_forbid_storing(control: str, forbidden: bool) -> None:
    freshened = freshen(kept(("ETag", '"a"')), an_answer({"Cache-Control": control}, 304), Rules(), T0)
    assert forbids_storing(freshened) is forbidden


TAGGED = (("ETag", '"a"'), ("Last-Modified", MODIFIED), ("Content-Length", "10"))


@pytest.mark.parametrize(
    ("stored", "answer", "status", "outcome"),
    [
        pytest.param(TAGGED, {"ETag": '"a"'}, 200, "renewed", id="§4.3.5 same tag"),
        pytest.param(TAGGED, {"ETag": '"b"'}, 200, "invalid", id="§4.3.5 another tag"),
        pytest.param(TAGGED, {"Last-Modified": MODIFIED}, 200, "renewed", id="§4.3.5 same date"),
        pytest.param(TAGGED, {"Last-Modified": date(T0)}, 200, "invalid", id="§4.3.5 another date"),
        pytest.param(TAGGED, {"ETag": '"a"', "Content-Length": "10"}, 200, "renewed", id="§4.3.5 same length"),
        pytest.param(TAGGED, {"ETag": '"a"', "Content-Length": "11"}, 200, "invalid", id="§4.3.5 another length"),
        pytest.param((), {"Content-Length": "10"}, 200, "renewed", id="§4.3.5 length of the body itself"),
        pytest.param(
            (("Content-Encoding", "gzip"),), {"Content-Length": "10"}, 200, "invalid", id="§4.3.5 unknown length"
        ),
        pytest.param((), {}, 200, "renewed", id="§4.3.5 nothing to the contrary"),
        pytest.param((), {"ETag": '"a"'}, 200, "invalid", id="§4.3.5 a tag that was not there"),
        pytest.param(TAGGED, {"ETag": '"a"'}, 404, "invalid", id="gone"),
        pytest.param(TAGGED, {"ETag": '"b"'}, 503, "same", id="§4.3.5 an error says nothing"),
    ],
)
def test_freshen_from_head(stored: tuple[tuple[str, str], ...], answer: Fields, status: int, outcome: str) -> None:
    before = kept(*stored)
    after = freshen_from_head(before, an_answer(answer, status, at=T0 + 99), Rules(), T0 + 99)
    if outcome == "invalid":
        assert after is None
    elif outcome == "same":
        assert after is before
    else:
        assert isinstance(after, StoredResponse)
        assert (after.expires_time, after.body) == (T0 + 99 + 60, before.body)
