"""How a stored response is shown to a request that wants less than all of it (RFC 9111 §4.3.2; RFC 9110 §13, §14)."""

from __future__ import annotations

import pytest

from aiohttp_cache_middleware._policy._answering import answer_to
from aiohttp_cache_middleware._policy._outcomes import Answer
from aiohttp_cache_middleware._policy._ranges import MAX_RANGES, parse_ranges
from tests.policy.making import DAY, SECRET, T0, Fields, a_request, a_stored, date

BODY = b"0123456789"
MODIFIED = T0 - DAY


def shown(response: dict[str, str], asked: Fields, method: str = "GET", status: int = 200) -> Answer | None:
    stored = a_stored({"Cache-Control": "max-age=60", **response}, status, body=BODY)
    return answer_to(a_request(asked, method), stored, SECRET)


@pytest.mark.parametrize(
    ("response", "asked", "not_modified"),
    [
        pytest.param({"ETag": '"a"'}, {"If-None-Match": '"a"'}, True, id="9110 §13.1.2 strong tag"),
        pytest.param({"ETag": 'W/"a"'}, {"If-None-Match": 'W/"a"'}, True, id="9110 §13.1.2 weak tag"),
        pytest.param({"ETag": 'W/"a"'}, {"If-None-Match": '"a"'}, True, id="9110 §13.1.2 weak comparison"),
        pytest.param({"ETag": '"a"'}, {"If-None-Match": '"x", "a", "y"'}, True, id="9110 §13.1.2 one of a list"),
        pytest.param(
            {"ETag": '"a"'}, [("If-None-Match", '"x"'), ("If-None-Match", '"a"')], True, id="9110 §13.1.2 lines"
        ),
        pytest.param({"ETag": '"a,b"'}, {"If-None-Match": '"a,b"'}, True, id="9110 §8.8.3 a comma in a tag"),
        pytest.param({"ETag": '"a"'}, {"If-None-Match": '"b"'}, False, id="9110 §13.1.2 another tag"),
        pytest.param({}, {"If-None-Match": '"a"'}, False, id="9110 §13.1.2 no tag stored"),
        pytest.param({}, {"If-None-Match": "*"}, True, id="9110 §13.1.2 *"),
        pytest.param(
            {"Last-Modified": date(MODIFIED)}, {"If-Modified-Since": date(MODIFIED)}, True, id="§4.3.2 same date"
        ),
        pytest.param({"Last-Modified": date(MODIFIED)}, {"If-Modified-Since": date(T0)}, True, id="§4.3.2 later date"),
        pytest.param(
            {"Last-Modified": date(MODIFIED)},
            {"If-Modified-Since": date(MODIFIED - 1)},
            False,
            id="§4.3.2 earlier date",
        ),
        pytest.param({}, {"If-Modified-Since": date(T0)}, True, id="§4.3.2 Date instead of Last-Modified"),
        pytest.param({}, {"If-Modified-Since": date(T0 - 1)}, False, id="§4.3.2 Date, too late"),
        pytest.param(
            {"Date": "x"}, {"If-Modified-Since": date(T0)}, True, id="§4.3.2 the time of receipt instead of Date"
        ),
        pytest.param({}, {"If-Modified-Since": "x"}, False, id="9110 §13.1.3 no date: ignored"),
        pytest.param(
            {"ETag": '"a"', "Last-Modified": date(MODIFIED)},
            {"If-None-Match": '"b"', "If-Modified-Since": date(T0)},
            False,
            id="9110 §13.2.2 the tag goes first",
        ),
        pytest.param(
            {"ETag": '"a"', "Last-Modified": date(MODIFIED)},
            {"If-None-Match": '"a"', "If-Modified-Since": date(MODIFIED - 1)},
            True,
            id="9110 §13.2.2 the tag goes first, and matches",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_not_modified(response: dict[str, str], asked: Fields, not_modified: bool, method: str) -> None:
    answer = shown(response, asked, method)
    assert (answer is not None and answer.status == 304) is not_modified


def test_conditions_mean_nothing_for_an_error() -> None:
    """RFC 9110 §13.2.1."""
    assert shown({"ETag": '"a"'}, {"If-None-Match": '"a"'}, status=404) is None


def test_a_304_has_no_body_and_does_not_describe_one() -> None:
    """RFC 9110 §15.4.5."""
    answer = shown({"ETag": '"a"', "Content-Type": "text/plain", "Content-Location": "/x"}, {"If-None-Match": '"a"'})
    assert answer is not None
    names = [name for name, _ in answer.headers]
    assert {"ETag", "Date", "Cache-Control", "Content-Location"} <= set(names)
    assert "Content-Type" not in names
    assert answer.ranges == ()


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        pytest.param("bytes=0-1", ((0, 2),), id="9110 §14.1.2 first and last"),
        pytest.param("bytes=0-0", ((0, 1),), id="9110 §14.1.2 one byte"),
        pytest.param("bytes=7-", ((7, 10),), id="9110 §14.1.2 to the end"),
        pytest.param("bytes=-3", ((7, 10),), id="9110 §14.1.2 the last three"),
        pytest.param("bytes=-30", ((0, 10),), id="9110 §14.1.2 more than there is"),
        pytest.param("bytes=5-99", ((5, 10),), id="9110 §14.1.2 beyond the end"),
        pytest.param("Bytes=0-1", ((0, 2),), id="9110 §14.1 unit in any case"),
        pytest.param("bytes=0-1, 5-6,-1", ((0, 2), (5, 7), (9, 10)), id="9110 §14.1.2 several"),
        pytest.param("bytes=0-1,50-", ((0, 2),), id="9110 §14.1.2 those that can be satisfied"),
        pytest.param("bytes=10-", (), id="9110 §15.5.17 none can"),
        pytest.param("bytes=-0", (), id="9110 §15.5.17 the last none"),
        pytest.param("bytes=2-1", None, id="9110 §14.1.1 backwards: ignored"),
        pytest.param("bytes=a-b", None, id="9110 §14.1.1 malformed: ignored"),
        pytest.param("bytes=", None, id="9110 §14.1.1 nothing: ignored"),
        pytest.param("bytes=1", None, id="9110 §14.1.1 no dash: ignored"),
        pytest.param("bytes=0-" + "9" * 99, None, id="9110 §14.1.1 absurd: ignored"),
        pytest.param("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), None, id="9110 §14.2 too many: ignored"),
        pytest.param("bytes=0-,0-,0-", None, id="9110 §14.2 more than twice the body: ignored"),
    ],
)
def test_parse_ranges(value: str, ranges: tuple[tuple[int, int], ...] | None) -> None:
    assert parse_ranges(value, 10) == ranges


def test_one_part() -> None:
    """RFC 9110 §15.3.7.1."""
    answer = shown({"Content-Length": "10", "A": "1"}, {"Range": "bytes=2-4"})
    assert answer is not None
    assert (answer.status, answer.reason, answer.ranges, answer.frames) == (206, "Partial Content", ((2, 5),), ())
    assert {("Content-Range", "bytes 2-4/10"), ("Content-Length", "3"), ("A", "1")} <= set(answer.headers)
    assert [name for name, _ in answer.headers].count("Content-Length") == 1


def test_several_parts() -> None:
    """RFC 9110 §15.3.7.2."""
    answer = shown({"Content-Type": "text/plain"}, {"Range": "bytes=0-1,-2"})
    assert answer is not None
    assert answer.ranges == ((0, 2), (8, 10))
    headers = dict(answer.headers)
    boundary = headers["Content-Type"].removeprefix("multipart/byteranges; boundary=")
    pieces = [BODY[start:stop] for start, stop in answer.ranges]
    body = b"".join(frame + piece for frame, piece in zip(answer.frames, [*pieces, b""], strict=True))
    assert body.decode() == (
        f"--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01"
        f"\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89"
        f"\r\n--{boundary}--\r\n"
    )
    assert headers["Content-Length"] == str(len(body))


def test_no_part() -> None:
    """RFC 9110 §15.5.17."""
    answer = shown({"Content-Type": "text/plain"}, {"Range": "bytes=10-"})
    assert answer is not None
    assert (answer.status, answer.ranges) == (416, ())
    assert ("Content-Range", "bytes */10") in answer.headers


@pytest.mark.parametrize(
    ("response", "validator", "partial"),
    [
        pytest.param({"ETag": '"a"'}, '"a"', True, id="9110 §13.1.5 same tag"),
        pytest.param({"ETag": '"a"'}, '"b"', False, id="9110 §13.1.5 another tag"),
        pytest.param({"ETag": 'W/"a"'}, 'W/"a"', False, id="9110 §13.1.5 weak tags don't do"),
        pytest.param({}, '"a"', False, id="9110 §13.1.5 no tag stored"),
        pytest.param({"Last-Modified": date(MODIFIED)}, date(MODIFIED), True, id="9110 §13.1.5 same date"),
        pytest.param({"Last-Modified": date(MODIFIED)}, date(T0), False, id="9110 §13.1.5 not a later one"),
        pytest.param({"Last-Modified": date(T0 - 59)}, date(T0 - 59), False, id="9110 §8.8.2.2 a weak date"),
        pytest.param({}, date(T0), False, id="9110 §13.1.5 no date stored"),
    ],
)
def test_if_range(response: dict[str, str], validator: str, partial: bool) -> None:
    answer = shown(response, {"Range": "bytes=0-1", "If-Range": validator})
    assert (answer is not None) is partial


@pytest.mark.parametrize(
    ("asked", "method", "status"),
    [
        pytest.param({"Range": "bytes=2-1"}, "GET", 200, id="9110 §14.2 malformed"),
        pytest.param({"Range": "bytes=0-1"}, "GET", 404, id="9110 §14.2 not a 200"),
        pytest.param({}, "GET", 200, id="nothing special"),
    ],
)
def test_the_whole_response(asked: Fields, method: str, status: int) -> None:
    assert shown({}, asked, method, status) is None


def test_head_ignores_ranges() -> None:
    """RFC 9110 §14.2."""
    answer = shown({}, {"Range": "bytes=0-1"}, "HEAD")
    assert answer is not None
    assert (answer.status, answer.ranges) == (200, ())


def test_conditions_come_before_ranges() -> None:
    """RFC 9110 §13.2.2."""
    answer = shown({"ETag": '"a"'}, {"Range": "bytes=0-1", "If-None-Match": '"a"'})
    assert answer is not None
    assert answer.status == 304
