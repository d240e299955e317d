"""A part beside what is stored already (RFC 9111 §3.4; RFC 9110 §15.3.7.3)."""

from __future__ import annotations

import pytest

from aiohttp_cache_middleware._model import BodyRef, StoredResponse
from aiohttp_cache_middleware._policy._combining import strong_tag, to_keep
from tests.policy.making import a_stored, fields_of
from tests.policy.test_ranges import a_part

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
