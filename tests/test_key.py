"""Primary keys: what tells requests apart, what does not, and what of a request may be written down."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiohttp_cache_middleware._key import (
    CREDENTIAL_HEADERS,
    GREATEST_JSON,
    primary_key,
    stored_request_headers,
    stored_url,
    url_tag,
)
from aiohttp_cache_middleware._model import Header, Request
from aiohttp_cache_middleware._request import AUTOMATIC_HEADERS, Asked, Body, Part, bare_url

SECRET = b"0123456789abcdef" * 2
SITE = "http://site.com/"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


def an_asked(
    url: str = SITE,
    *,
    method: str = "GET",
    headers: Iterable[Header] = (),
    body: Body | None = None,
    **facts: Any,
) -> Asked:
    return Asked(Request(method, bare_url(URL(url)), CIMultiDictProxy(CIMultiDict(headers))), body, **facts)


def posted(content: bytes | tuple[Part, ...], content_type: str = JSON, **facts: str) -> Asked:
    encodings = {"content_encoding": "", "compress": "", **facts}
    return an_asked(method="POST", body=Body(content_type, content=content, **encodings))


def key(asked: Asked, *ignored: str, **options: Any) -> str:
    settings: dict[str, Any] = {"namespace": "", "include_headers": False, "with_range": False, "secret": SECRET}
    return primary_key(asked, ignored_params=frozenset(ignored), **{**settings, **options})


def test_a_key_is_forty_hexadecimal_digits() -> None:
    assert len(key(an_asked())) == 40
    assert int(key(an_asked()), 16)


def test_keys_stay_as_they_are() -> None:
    """Entries on disk are found by them: a change of any takes a new `KEY_FORMAT`."""
    assert key(an_asked()) == "f802c4b54091f2be9da52107d5aa811ab490b2d9"
    assert key(posted(b'{"b": [1, 2.0], "a": null}')) == "1fbc4751e87e561f14580782b4739548ce60a27c"


# --- URLs ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("http://site.com/?a=1&b=2", "http://site.com/?b=2&a=1", id="order of names"),
        pytest.param("HTTP://SITE.com/", "http://site.com/", id="scheme and host in any case"),
        pytest.param("http://site.com:80/", "http://site.com/", id="default port"),
        pytest.param("http://site.com", "http://site.com/", id="no path"),
        pytest.param("http://site.com/a/./b/../c", "http://site.com/a/c", id="dot segments"),
        pytest.param("http://site.com/%7Ea?%41=%62", "http://site.com/~a?A=b", id="percent-encoding"),
        pytest.param("http://site.com/ü?ü=ü", "http://site.com/%C3%BC?%C3%BC=%C3%BC", id="letters"),
        pytest.param("http://bücher.de/", "http://xn--bcher-kva.de/", id="host names"),
    ],
)
def test_one_url(one: str, other: str) -> None:
    assert key(an_asked(one)) == key(an_asked(other))
    assert url_tag(bare_url(URL(one)), SECRET) == url_tag(bare_url(URL(other)), SECRET)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("http://site.com/?a=1&a=2", "http://site.com/?a=2&a=1", id="order of one name's values"),
        pytest.param("http://site.com/?a=1", "http://site.com/?a=1&a=1", id="all repetitions count"),
        pytest.param("http://site.com/?a=", "http://site.com/", id="blank and absent"),
        pytest.param("http://site.com/?a", "http://site.com/", id="valueless and absent"),
        pytest.param("http://site.com/?a", "http://site.com/?a=", id="valueless and blank"),
        pytest.param("http://site.com/?a=1%262", "http://site.com/?a=1&2", id="an encoded delimiter"),
        pytest.param("http://site.com/?a=1%2B1", "http://site.com/?a=1+1", id="an encoded plus"),
        pytest.param("http://site.com/?a=%FF", "http://site.com/?a=%FE", id="bytes that are no text"),
        pytest.param("http://site.com/a%2Fb", "http://site.com/a/b", id="an encoded slash"),
        pytest.param("http://site.com/a", "http://site.com/A", id="path in another case"),
        pytest.param("http://site.com/", "https://site.com/", id="scheme"),
        pytest.param("http://site.com/", "http://site.com:8080/", id="port"),
        pytest.param("http://site.com/", "http://other.com/", id="host"),
    ],
)
def test_two_urls(one: str, other: str) -> None:
    assert key(an_asked(one)) != key(an_asked(other))
    assert url_tag(bare_url(URL(one)), SECRET) != url_tag(bare_url(URL(other)), SECRET)


def test_one_name_keeps_its_order_however_it_is_spelt() -> None:
    def as_sent(query: str) -> str:
        return key(Asked(Request("GET", f"{SITE}?{query}", CIMultiDictProxy(CIMultiDict()))))

    assert as_sent("%61=1&a=2") != as_sent("a=2&%61=1")


# --- all else that counts ---

ORDINARY = an_asked()


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        pytest.param(an_asked(method="HEAD"), {}, id="method"),
        pytest.param(ORDINARY, {"namespace": "alice"}, id="namespace"),
        pytest.param(ORDINARY, {"secret": b"another"}, id="secret"),
        pytest.param(an_asked(decoded=False), {}, id="decoding"),
        pytest.param(an_asked(authorization=(("Bearer a",),)), {}, id="Authorization"),
        pytest.param(an_asked(caller_cookies=("a=1",)), {}, id="cookies"),
        pytest.param(an_asked(host_override="other.com"), {}, id="Host"),
        pytest.param(an_asked(connection=(("unverified", b""),)), {}, id="TLS settings"),
        pytest.param(an_asked(body=Body("", "", "", b"")), {}, id="body"),
        pytest.param(an_asked(headers=[("A", "1")]), {"include_headers": True}, id="any header"),
        pytest.param(an_asked(headers=[("A", "1")]), {"include_headers": frozenset({"a"})}, id="header"),
        pytest.param(an_asked(headers=[("Range", "bytes=0-1")]), {"with_range": True}, id="Range"),
        pytest.param(an_asked(headers=[("If-Range", '"1"')]), {"with_range": True}, id="If-Range"),
    ],
)
def test_what_counts(asked: Asked, options: dict[str, Any]) -> None:
    assert key(asked, **options) != key(ORDINARY)


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        pytest.param(an_asked(headers=[("A", "1")]), {}, id="a header"),
        pytest.param(an_asked(headers=[("Range", "bytes=0-1")]), {}, id="Range"),
    ],
)
def test_what_does_not_count(asked: Asked, options: dict[str, Any]) -> None:
    assert key(asked, **options) == key(ORDINARY, **options)


def test_another_method_may_be_put_in_place() -> None:
    assert key(an_asked(method="HEAD"), method="GET") == key(an_asked())


def test_a_digest_is_known_by_its_user() -> None:
    def of(*credential: str) -> str:
        return key(an_asked(authorization=(credential,)))

    assert of("Digest", "realm", "eve") == of("Digest", "realm", "eve")
    assert of("Digest", "realm", "eve") != of("Digest", "realm", "bob")
    assert of("Digest", "realm", "eve") != of("Digest realm eve")


# --- headers ---


def test_all_headers_are_those_that_aiohttp_does_not_send_by_itself() -> None:
    automatic = [*AUTOMATIC_HEADERS, ("Host", "site.com"), ("Content-Length", "3"), ("Cookie", "of=the jar")]
    every = {"include_headers": True}
    assert key(an_asked(headers=automatic), **every) == key(an_asked(headers=[("Host", "site.com")]), **every)
    assert key(an_asked(headers=[("Accept", "text/html")]), **every) != key(an_asked(headers=automatic), **every)


def test_header_names_count_in_any_case_and_any_order() -> None:
    one = an_asked(headers=[("A", "1"), ("b", "2"), ("a", "3")])
    other = an_asked(headers=[("B", "2"), ("a", "1"), ("A", "3")])
    another = an_asked(headers=[("b", "2"), ("a", "3"), ("a", "1")])
    for include in (True, frozenset({"a", "b"})):
        assert key(one, include_headers=include) == key(other, include_headers=include)
        assert key(one, include_headers=include) != key(another, include_headers=include)


def test_named_headers_are_all_that_count() -> None:
    one, other = an_asked(headers=[("a", "1"), ("b", "1")]), an_asked(headers=[("a", "1"), ("b", "2")])
    assert key(one, include_headers=frozenset({"a"})) == key(other, include_headers=frozenset({"a"}))


# --- ignored parameters ---


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        pytest.param(an_asked(f"{SITE}?a=1&token=x&token"), an_asked(f"{SITE}?a=1"), id="query"),
        pytest.param(an_asked(f"{SITE}?token=x"), an_asked(SITE), id="all of the query"),
        pytest.param(posted(b"a=1&token=x", FORM), posted(b"a=1", FORM), id="form"),
        pytest.param(posted(b"token=x", FORM), posted(b"", FORM), id="all of the form"),
        pytest.param(posted(b'{"a": 1, "token": 2}'), posted(b'{"a": 1}'), id="JSON"),
        pytest.param(
            posted((Part("a", (), b"1"), Part("token", (), b"x"))), posted((Part("a", (), b"1"),)), id="multipart"
        ),
    ],
)
def test_an_ignored_parameter_equals_an_absent_one(present: Asked, absent: Asked) -> None:
    assert key(present, "token") == key(absent, "token")
    assert key(present) != key(absent)
    assert key(present, "TOKEN") != key(absent, "TOKEN")


@pytest.mark.parametrize("name", ["my token", "ütf", "a%b", "a+b"])
def test_an_ignored_parameter_is_known_by_its_plain_name(name: str) -> None:
    with_query = an_asked(str(URL(SITE).extend_query({"a": "1", name: "x"})))
    assert key(with_query, name) == key(an_asked(f"{SITE}?a=1"), name)
    form = str(URL(SITE).extend_query({"a": "1", name: "x"})).partition("?")[2].encode()
    assert key(posted(form, FORM), name) == key(posted(b"a=1", FORM), name)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (an_asked(authorization=(("Bearer a",),)), "Authorization"),
        (an_asked(caller_cookies=("a=1",)), "cookie"),
        (an_asked(host_override="other.com"), "HOST"),
    ],
    ids=["Authorization", "Cookie", "Host"],
)
def test_an_ignored_credential_is_out_of_the_key(asked: Asked, name: str) -> None:
    assert key(asked, name) == key(ORDINARY, name)


def test_an_ignored_header_is_out_of_the_key() -> None:
    for include in (True, frozenset({"x-token"})):
        ignoring = key(an_asked(headers=[("X-Token", "1")]), "x-TOKEN", include_headers=include)
        assert ignoring == key(ORDINARY, "x-TOKEN", include_headers=include)


def test_json_fields_are_ignored_at_the_top_alone() -> None:
    assert key(posted(b'{"a": {"token": 1}}'), "token") != key(posted(b'{"a": {}}'), "token")
    assert key(posted(b'[{"token": 1}]'), "token") != key(posted(b"[{}]"), "token")


# --- bodies ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b'{"a": 1, "b": {"c": 2, "d": 3}}', b'{"b": {"d": 3, "c": 2}, "a": 1}', id="order of keys"),
        pytest.param(b'[{"a": 1, "b": 2}]', b'[{"b":2,"a":1}]', id="order of keys in lists"),
        pytest.param(b'{"a":1}', b' {"a" : 1}\n', id="white space"),
        pytest.param('{"ü": 1}'.encode(), rb'{"\u00fc": 1}', id="escapes"),
    ],
)
def test_one_json(one: bytes, other: bytes) -> None:
    assert key(posted(one)) == key(posted(other))
    vendor = "application/vnd.site+json; charset=utf-8"
    assert key(posted(one, vendor)) == key(posted(other, vendor))
    assert key(posted(one, "text/plain")) != key(posted(other, "text/plain"))


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b"1", b"1.0", id="int and float"),
        pytest.param(b"1", b"true", id="int and bool"),
        pytest.param(b"0", b"false", id="zero and bool"),
        pytest.param(b"1", b'"1"', id="number and string"),
        pytest.param(b"null", b'"null"', id="null and string"),
        pytest.param(b"NaN", b'"NaN"', id="NaN and string"),
        pytest.param(b"Infinity", b"-Infinity", id="infinities"),
        pytest.param(b"1" * 5000, b"1" * 4999 + b"2", id="numbers too big for Python"),
        pytest.param(b"0.1", b"0.10000000000000000001", id="numbers too fine for a float"),
        pytest.param(b'{"a": 1}', b'[["a", 1]]', id="object and list of pairs"),
        pytest.param(b'{"a": 1}', b'{"a": [1]}', id="value and list of it"),
        pytest.param(b"{}", b"[]", id="empty object and empty list"),
        pytest.param(b"[1, 2]", b"[2, 1]", id="order of lists"),
        pytest.param(b'{"a": 1, "a": 2}', b'{"a": 2, "a": 1}', id="order of a repeated key"),
        pytest.param(b'{"a": 1, "a": 2}', b'{"a": 2}', id="a repeated key"),
        pytest.param(rb'"\ud800"', rb'"\ud801"', id="lone surrogates"),
        pytest.param(b"{", b"{{", id="no JSON at all"),
        pytest.param(b"\xff", b"\xfe", id="no text at all"),
        pytest.param(DEEP, DEEP + b" ", id="nested too deeply to be parsed"),
        pytest.param(b" " * GREATEST_JSON + b"1", b"1" + b" " * GREATEST_JSON, id="too large to be parsed"),
    ],
)
def test_two_jsons(one: bytes, other: bytes) -> None:
    assert key(posted(one)) != key(posted(other))
    assert key(posted(one)) == key(posted(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [(b"a=1&b=2", b"b=2&a=1"), (b"a=%31+", b"%61=1%20")],
    ids=["order of names", "encoding"],
)
def test_one_form(one: bytes, other: bytes) -> None:
    assert key(posted(one, FORM)) == key(posted(other, FORM))
    assert key(posted(one, f"{FORM}; charset=x")) == key(posted(other, f"{FORM}; charset=x"))


@pytest.mark.parametrize(
    ("one", "other"),
    [(b"a=1&a=2", b"a=2&a=1"), (b"a=", b"a"), (b"a=1", b"a=1&a=1"), (b"a=%FF", b"a=%FE"), (b"a=1%26b", b"a=1&b")],
    ids=["order of one name's values", "blank and valueless", "repetitions", "no text", "an encoded delimiter"],
)
def test_two_forms(one: bytes, other: bytes) -> None:
    assert key(posted(one, FORM)) != key(posted(other, FORM))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(posted(b"1", JSON), posted(b"1", "text/plain"), id="Content-Type"),
        pytest.param(posted(b"1"), posted(b"1", content_encoding="gzip"), id="Content-Encoding"),
        pytest.param(posted(b"1"), posted(b"1", compress="gzip"), id="compress"),
        pytest.param(posted(b"a=1", FORM), posted(b"a=1", "text/plain"), id="form and text"),
        pytest.param(posted((Part("a", (), b"1"),)), posted((Part("a", (("b", "c"),), b"1"),)), id="a part's header"),
        pytest.param(posted((Part("a", (), b"1"),)), posted((Part("a", None, b"1"),)), id="a part from bytes"),
        pytest.param(
            posted((Part(None, (), b"1"), Part(None, (), b"2"))),
            posted((Part(None, (), b"2"), Part(None, (), b"1"))),
            id="order of parts",
        ),
        pytest.param(
            posted((Part(None, (), b""),)), posted((Part(None, (), (Part(None, (), b""),)),)), id="parts within a part"
        ),
    ],
)
def test_two_bodies(one: Asked, other: Asked) -> None:
    assert key(one) != key(other)


# --- laws ---

Pairs: TypeAlias = "list[tuple[str, str | None]]"
"""Names with values; ``None`` is no value at all."""

pairs = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, "", "1", "a"])), max_size=4)


def spelt(some: Pairs) -> str:
    return "&".join(name if value is None else f"{name}={value}" for name, value in some)


def by_name(some: Iterable[tuple[str, Any]]) -> object:
    """Say what counts of names with values: each name's values in order."""
    members: dict[str, list[Any]] = {}
    for name, value in some:
        members.setdefault(name, []).append(value)
    return frozenset((name, tuple(values)) for name, values in members.items())


class Members(list[tuple[str, Any]]):
    """The members of a JSON object, in order and with repetitions."""


json_values = st.recursive(
    st.sampled_from(["1", "1.0", "true", "null", '"a"', '"1"']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from(["a", "b"]), inner), max_size=3).map(Members)
    ),
    max_leaves=6,
)


def json_text(value: Any) -> str:
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(name)}:{json_text(one)}" for name, one in value) + "}"
    return "[" + ",".join(map(json_text, value)) + "]" if isinstance(value, list) else str(value)


def json_meaning(value: Any) -> object:
    if isinstance(value, Members):
        return "object", by_name((name, json_meaning(one)) for name, one in value)
    return ("list", tuple(map(json_meaning, value))) if isinstance(value, list) else value


parts = st.lists(st.builds(Part, st.none(), st.sampled_from([(), (("A", "1"),), None]), st.sampled_from([b"", b"a"])))

bodies: st.SearchStrategy[tuple[Body | None, object]] = st.one_of(
    st.just((None, None)),
    pairs.map(lambda some: (Body(FORM, "", "", spelt(some).encode()), ("form", by_name(some)))),
    json_values.map(lambda value: (Body(JSON, "", "", json_text(value).encode()), ("json", json_meaning(value)))),
    json_values.map(lambda value: (Body("", "", "", json_text(value).encode()), ("raw", json_text(value)))),
    parts.map(lambda some: (Body(JSON, "", "", tuple(some)), ("parts", tuple(some)))),
)

headers = st.lists(st.tuples(st.sampled_from(["A", "a", "B", "Range"]), st.sampled_from(["", "1", "a"])), max_size=3)

texts = st.sampled_from(["", "a", "1"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, object]:
    """Draw a request from few enough that equal ones are common; give its key, and all that may count in it."""
    query, (body, body_meaning), fields = draw(pairs), draw(bodies), draw(headers)
    path, namespace, method = draw(texts), draw(texts), draw(st.sampled_from(["GET", "POST"]))
    authorization = draw(st.lists(st.lists(texts, min_size=1, max_size=3).map(tuple), max_size=2).map(tuple))
    cookies = draw(st.lists(texts, max_size=2).map(tuple))
    host = draw(st.none() | texts)
    connection = draw(st.lists(st.tuples(texts, texts.map(str.encode)), max_size=2).map(tuple))
    decoded = draw(st.booleans())
    asked = an_asked(
        f"{SITE}{path}?{spelt(query)}",
        method=method,
        headers=fields,
        body=body,
        authorization=authorization,
        caller_cookies=cookies,
        host_override=host or None,
        connection=connection,
        decoded=decoded,
    )
    meaning = (
        (path, by_name(query), method, namespace, body_meaning, authorization, cookies, host or None, connection),
        (decoded, by_name((name.lower(), value) for name, value in fields)),
    )
    return key(asked, namespace=namespace, include_headers=True), meaning


@given(requests(), requests())
def test_requests_have_one_key_exactly_if_they_are_equal(one: tuple[str, object], other: tuple[str, object]) -> None:
    assert (one[0] == other[0]) == (one[1] == other[1])


@given(pairs, pairs)
def test_queries_have_one_key_exactly_if_they_are_equal(one: Pairs, other: Pairs) -> None:
    keys = [key(an_asked(f"{SITE}?{spelt(some)}")) for some in (one, other)]
    assert (keys[0] == keys[1]) == (by_name(one) == by_name(other))


@given(pairs, pairs)
def test_forms_have_one_key_exactly_if_they_are_equal(one: Pairs, other: Pairs) -> None:
    keys = [key(posted(spelt(some).encode(), FORM)) for some in (one, other)]
    assert (keys[0] == keys[1]) == (by_name(one) == by_name(other))


@given(json_values, json_values)
def test_jsons_have_one_key_exactly_if_they_are_equal(one: Any, other: Any) -> None:
    keys = [key(posted(json_text(value).encode())) for value in (one, other)]
    assert (keys[0] == keys[1]) == (json_meaning(one) == json_meaning(other))


@given(st.data(), pairs)
def test_any_reordering_of_names_is_allowed(data: st.DataObject, some: Pairs) -> None:
    others = data.draw(st.permutations(some))
    reordered = sorted(others, key=lambda pair: others.index(next(one for one in others if one[0] == pair[0])))
    in_order = [pair for name in dict(reordered) for pair in some if pair[0] == name]
    assert key(an_asked(f"{SITE}?{spelt(some)}")) == key(an_asked(f"{SITE}?{spelt(in_order)}"))


@given(st.binary(), st.sampled_from([JSON, FORM, "text/plain", "multipart/form-data", "application/x+json"]))
@example(b'"\\ud800"', JSON)
@example(DEEP[99_400:100_600], JSON)
def test_any_body_has_a_key(content: bytes, content_type: str) -> None:
    assert key(posted(content, content_type)) == key(posted(content, content_type), "no such name")


@given(st.text(), st.text())
def test_any_namespace_has_a_key_of_its_own(one: str, other: str) -> None:
    assert (key(ORDINARY, namespace=one) == key(ORDINARY, namespace=other)) == (one == other)


# --- tags, and what is written down ---


def test_a_tag_is_no_key_and_depends_on_the_secret() -> None:
    assert url_tag(SITE, SECRET) != url_tag(SITE, b"another")
    assert url_tag(SITE, SECRET) != key(an_asked(SITE))


def test_a_tag_leaves_out_ignored_parameters() -> None:
    assert url_tag(f"{SITE}?a=1&token=x", SECRET, frozenset({"token"})) == url_tag(f"{SITE}?a=1", SECRET)


def test_a_long_secret_counts_to_its_end() -> None:
    assert url_tag(SITE, b"x" * 100 + b"1") != url_tag(SITE, b"x" * 100 + b"2")


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("http://eve:geheim@site.com/?b=1&token=x&a=2#top", "http://site.com/?b=1&a=2"),
        ("http://site.com/?token=x", "http://site.com/"),
        ("http://site.com/?%74oken=x&to%20ken=y", "http://site.com/?to%20ken=y"),
        ("http://site.com/token=x", "http://site.com/token=x"),
    ],
)
def test_a_stored_url_has_no_secrets(url: str, stored: str) -> None:
    bare = bare_url(URL(url))
    assert stored_url(bare, frozenset({"token"})) == stored
    assert stored_url(bare, frozenset()) == str(URL(url).with_user(None).with_fragment(None))


def test_stored_request_headers_have_no_secrets() -> None:
    secrets = [(name.title(), "geheim") for name in CREDENTIAL_HEADERS]
    asked = an_asked(headers=[("Accept", "*/*"), *secrets, ("X-Trace", "7"), ("accept", "text/html")])
    kept = (("Accept", "*/*"), ("X-Trace", "7"), ("accept", "text/html"))
    assert stored_request_headers(asked, frozenset()) == kept
    assert stored_request_headers(asked, frozenset({"x-TRACE"})) == (kept[0], kept[2])
