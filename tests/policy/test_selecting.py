"""Which stored responses fit a request (RFC 9111 §4.1)."""

from __future__ import annotations

import pytest

from aiohttp_cache_middleware._policy._selecting import selecting_names, selecting_values, selects, vary_names
from tests.policy.making import SECRET, Fields, a_request, an_answer, fields_of


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        pytest.param({}, (), id="§4.1 no Vary"),
        pytest.param({"Vary": ""}, (), id="§4.1 empty"),
        pytest.param({"Vary": "Foo, BAR,foo"}, ("bar", "foo"), id="§4.1 names in any case, each once"),
        pytest.param([("Vary", "b"), ("vary", "a")], ("a", "b"), id="§4.1 several lines"),
        pytest.param({"Vary": "Accept Cookie"}, ("accept", "cookie"), id="white space separates too"),
        pytest.param({"Vary": "*"}, None, id="§4.1 *"),
        pytest.param({"Vary": "*, *"}, None, id="§4.1 * twice"),
        pytest.param({"Vary": ", *"}, None, id="§4.1 * after an empty member"),
        pytest.param({"Vary": "Foo, *"}, None, id="§4.1 * among names"),
        pytest.param([("Vary", ""), ("Vary", "*")], None, id="§4.1 * on a line of its own"),
    ],
)
def test_vary_names(fields: Fields, names: tuple[str, ...] | None) -> None:
    assert vary_names(fields_of(fields)) == names


@pytest.mark.parametrize(
    ("asked", "fields", "names"),
    [
        pytest.param({}, {"Vary": "Foo"}, ("foo",), id="§4.1 what Vary names"),
        pytest.param({}, {"Vary": "*, Foo"}, ("foo",), id="* is no name"),
        pytest.param({"Cookie": "a=1"}, {"Cache-Control": "private"}, ("cookie",), id="private, with cookies"),
        pytest.param({"Cookie": "a=1"}, {"Cache-Control": "private", "Vary": "A, Cookie"}, ("a", "cookie"), id="both"),
        pytest.param({"Cookie": "a=1"}, {"Cache-Control": "max-age=9"}, (), id="not private"),
        pytest.param({}, {"Cache-Control": "private"}, (), id="private, without cookies"),
    ],
)
def test_selecting_names(asked: Fields, fields: Fields, names: tuple[str, ...]) -> None:
    assert selecting_names(a_request(asked), an_answer(fields)) == names


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        pytest.param("foo", "1", "1", True, id="§4.1 equal"),
        pytest.param("foo", "1", "2", False, id="§4.1 other"),
        pytest.param("foo", None, None, True, id="§4.1 absent from both"),
        pytest.param("foo", None, "1", False, id="§4.1 absent when stored"),
        pytest.param("foo", "1", None, False, id="§4.1 absent now"),
        pytest.param("foo", "", None, False, id="§4.1 empty is not absent"),
        pytest.param("foo", "1,2", " 1, 2 ", True, id="§4.1 white space"),
        pytest.param("foo", "1, 2", "2, 1", False, id="§4.1 the order of an unknown field counts"),
        pytest.param("foo", "a", "A", False, id="§4.1 the case of an unknown field counts"),
        pytest.param("foo", '"a, b"', '"a,b"', False, id="§4.1 quoted white space counts"),
        pytest.param("accept-language", "en, de", "de, en", True, id="9110 §12.5.4 order"),
        pytest.param("accept-language", "en, de", "eN, De", True, id="9110 §12.5.4 case"),
        pytest.param("accept-language", "en,de", " en ,   de", True, id="9110 §12.5.4 white space"),
        pytest.param("accept-language", "en;q=1.0", "en", True, id="9110 §12.4.2 default weight"),
        pytest.param("accept-language", "en; q=0.50", "en;Q=0.5", True, id="9110 §12.4.2 spelling of a weight"),
        pytest.param("accept-language", "en;q=0", "en;q=0.000", True, id="9110 §12.4.2 zero"),
        pytest.param("accept-language", "en;q=0.5", "en;q=0.6", False, id="9110 §12.4.2 other weight"),
        pytest.param("accept-encoding", "gzip, br", "br,gzip,gzip", True, id="9110 §12.5.3"),
        pytest.param("accept-encoding", "gzip", "br", False, id="9110 §12.5.3 other coding"),
        pytest.param("accept", "text/html, A/b;q=.5", "a/b;q=.5, TEXT/html", True, id="9110 §12.5.1"),
        pytest.param("accept", "a/b;x=Y", "a/b;x=y", False, id="9110 §12.5.1 case of a parameter"),
        pytest.param("accept", 'a/b;x="1;q=1"', "a/b;x=1", False, id="9110 §12.5.1 quoted parameter"),
        pytest.param("cookie", "a=1,  b", "a=1,b", False, id="cookies are taken literally"),
        pytest.param("authorization", "Basic a", "basic a", False, id="credentials are taken literally"),
    ],
)
def test_normalisation(name: str, one: str | None, other: str | None, same: bool) -> None:
    headers = [fields_of({} if value is None else {name: value}) for value in (one, other)]
    assert selects(selecting_values(headers[0], [name], SECRET), headers[1], SECRET) is same
    assert selects(selecting_values(headers[1], [name], SECRET), headers[0], SECRET) is same


def test_field_lines_are_combined() -> None:
    stored = selecting_values(fields_of({"Foo": "1, 2"}), ["foo"], SECRET)
    assert selects(stored, fields_of([("Foo", "1"), ("Foo", "2")]), SECRET)


def test_every_field_must_agree() -> None:
    stored = selecting_values(fields_of({"A": "1", "B": "2"}), ["a", "b", "c"], SECRET)
    assert selects(stored, fields_of({"B": "2", "A": "1", "Other": "9"}), SECRET)
    assert not selects(stored, fields_of({"A": "1", "B": "3"}), SECRET)
    assert not selects(stored, fields_of({"A": "1", "B": "2", "C": ""}), SECRET)


def test_values_are_not_kept_in_clear() -> None:
    headers = fields_of({"Cookie": "session=hunter2"})
    ((name, digest),) = selecting_values(headers, ["cookie"], SECRET)
    assert (name, len(digest)) == ("cookie", 16)
    assert selecting_values(headers, ["cookie"], b"another") != ((name, digest),)
