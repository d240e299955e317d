"""What field values mean, also those that are broken (RFC 9110 §5.6, §8.8; RFC 9111 §1.2.2, §5.2)."""

from __future__ import annotations

import math

import pytest

from aiohttp_cache_middleware._policy._fields import (
    GREATEST_DELTA,
    EntityTag,
    combined,
    delta_seconds,
    members,
    parse_cache_control,
    parse_date,
    parse_entity_tag,
    strongly_equal,
    weakly_equal,
)
from tests.policy.making import T0, fields_of


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        pytest.param("a, b", ("a", "b"), id="9110 §5.6.1 list"),
        pytest.param(" a ,\tb ", ("a", "b"), id="9110 §5.6.3 white space"),
        pytest.param(",a,,b,", ("a", "b"), id="9110 §5.6.1.2 empty members"),
        pytest.param("", (), id="9110 §5.6.1.2 nothing"),
        pytest.param('x="a, b", c', ('x="a, b"', "c"), id="9110 §5.6.4 comma in a quoted string"),
        pytest.param(r'x="a\", b", c', (r'x="a\", b"', "c"), id="9110 §5.6.4 quoted pair"),
        pytest.param('x="a, no-store', ('x="a', "no-store"), id="an unclosed quote hides nothing"),
        pytest.param('y="1", x="a, b\\', ('y="1"', 'x="a', "b\\"), id="an unclosed quote after a closed one"),
    ],
)
def test_members(value: str, parts: tuple[str, ...]) -> None:
    assert members(value) == parts


def test_field_lines_are_combined_in_order() -> None:
    fields = fields_of([("Vary", "a"), ("X", "1"), ("vary", "b")])
    assert combined(fields, "Vary") == "a, b"
    assert combined(fields, "x") == "1"
    assert combined(fields, "Y") is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("0", 0, id="§1.2.2 zero"),
        pytest.param("003600", 3600, id="§1.2.2 leading zeros"),
        pytest.param("2147483648", GREATEST_DELTA, id="§1.2.2 2^31"),
        pytest.param("99999999999", GREATEST_DELTA, id="§1.2.2 overflow"),
        pytest.param("9" * 10_000, GREATEST_DELTA, id="§1.2.2 more digits than int() takes"),
        pytest.param("-1", None, id="negative"),
        pytest.param("+1", None, id="signed"),
        pytest.param("1.0", None, id="fraction"),
        pytest.param("1e3", None, id="exponent"),
        pytest.param(" 1", None, id="space"),
        pytest.param("'1'", None, id="single quotes"),
        pytest.param("\u0661", None, id="digits of another script"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_delta_seconds(value: str | None, seconds: int | None) -> None:
    assert delta_seconds(value) == seconds


NOON = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", NOON, id="9110 §5.6.7 IMF-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", NOON, id="9110 §5.6.7 RFC 850"),
        pytest.param("Sun Nov  6 08:49:37 1994", NOON, id="9110 §5.6.7 asctime"),
        pytest.param("SUN, 06 nov 1994 08:49:37 gmt", NOON, id="§4.2 any case"),
        pytest.param("Mon, 06 Nov 1994 08:49:37 GMT", NOON, id="wrong day of the week"),
        pytest.param("Sun, 06 Nov 1994 08:49:60 GMT", NOON + 22, id="9110 §5.6.7 leap second"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 UTC", None, id="§4.2 UTC"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 AEST", None, id="§4.2 another zone"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 +0000", None, id="an offset"),
        pytest.param("Sun, 06 Nov 1994 08:49:37", None, id="no zone"),
        pytest.param("Sun, 06 Nov 94 08:49:37 GMT", None, id="two-digit year"),
        pytest.param("Sun 06 Nov 1994 08:49:37 GMT", None, id="no comma"),
        pytest.param("Sun, 06  Nov  1994 08:49:37 GMT", None, id="two spaces"),
        pytest.param("Sun, 06-Nov-1994 08:49:37 GMT", None, id="dashes"),
        pytest.param("Sun, 06 Nov 1994 08.49.37 GMT", None, id="periods"),
        pytest.param("Sun, 06 Nov 1994 8:49:37 GMT", None, id="one-digit hour"),
        pytest.param("Sun, 06 Nov 1994 25:49:37 GMT", None, id="hour 25"),
        pytest.param("Thu, 30 Feb 2023 08:49:37 GMT", None, id="30 February"),
        pytest.param("Sun, 06 Nop 1994 08:49:37 GMT", None, id="no such month"),
        pytest.param("Sun, 06 Nov 0000 08:49:37 GMT", None, id="year 0"),
        pytest.param("0", None, id="zero"),
        pytest.param("", None, id="empty"),
    ],
)
def test_parse_date(value: str, moment: float | None) -> None:
    assert parse_date(value, T0) == moment


@pytest.mark.parametrize(
    ("year", "full_year"),
    [
        pytest.param("50", 2050, id="ahead"),
        pytest.param("77", 2077, id="50 ahead"),
        pytest.param("78", 1978, id="51 ahead"),
    ],
)
def test_a_two_digit_year_is_at_most_50_years_ahead(year: str, full_year: int) -> None:
    short, full = f"Friday, 01-Jul-{year} 00:00:00 GMT", f"Fri, 01 Jul {full_year} 00:00:00 GMT"
    in_2027 = T0
    assert parse_date(short, in_2027) == parse_date(full, in_2027)


@pytest.mark.parametrize(
    ("value", "attribute", "meaning"),
    [
        pytest.param("max-age=60", "max_age", 60, id="§5.2.2.1 max-age"),
        pytest.param("MaX-AgE=60", "max_age", 60, id="§5.2 any case"),
        pytest.param('max-age="60"', "max_age", 60, id="§5.2 quoted argument"),
        pytest.param("foo, max-age=60, bar=1", "max_age", 60, id="§5.2.3 unknown directives"),
        pytest.param('ext="max-age=60", max-age=1', "max_age", 1, id="§5.2 inside a quoted string"),
        pytest.param('max-age=1, ext="max-age=60"', "max_age", 1, id="§5.2 inside a quoted string, after"),
        pytest.param("max-age=60, max-age=1", "max_age", 1, id="§4.2.1 twice, the shorter"),
        pytest.param("max-age=1, max-age=60", "max_age", 1, id="§4.2.1 twice, the shorter first"),
        pytest.param("max-age=60, max-age=x", "max_age", 0, id="§4.2.1 twice, one broken"),
        pytest.param("max-age", "max_age", 0, id="§4.2.1 without argument"),
        pytest.param("max-age=", "max_age", 0, id="§4.2.1 empty"),
        pytest.param("max-age=-60", "max_age", 0, id="§4.2.1 negative"),
        pytest.param("max-age=60.5", "max_age", 0, id="§4.2.1 fraction"),
        pytest.param("max-age='60'", "max_age", 0, id="§4.2.1 single-quoted"),
        pytest.param("max-age=60a", "max_age", 0, id="§4.2.1 letters"),
        pytest.param("max-age =60", "max_age", 0, id="§4.2.1 space before ="),
        pytest.param("max-age= 60", "max_age", 0, id="§4.2.1 space after ="),
        pytest.param("s-maxage=60", "max_age", None, id="§5.2.2.10 s-maxage is for shared caches"),
        pytest.param("No-StOrE", "no_store", True, id="§5.2.2.5 any case"),
        pytest.param("no-store=1", "no_store", True, id="§5.2.2.5 with an argument"),
        pytest.param('x="no-store"', "no_store", False, id="§5.2.2.5 in a quoted string"),
        pytest.param('x="no-store', "no_store", False, id="§5.2.2.5 as part of a broken value"),
        pytest.param('x="a, no-store', "no_store", True, id="§5.2.2.5 behind an unclosed quote"),
        pytest.param("no-cache", "no_cache", True, id="§5.2.2.4 no-cache"),
        pytest.param('no-cache="Set-Cookie"', "no_cache", False, id="§5.2.2.4 limited to fields"),
        pytest.param('no-cache="A, b"', "no_cache_fields", {"a", "b"}, id="§5.2.2.4 the fields"),
        pytest.param("no-cache=A", "no_cache_fields", {"a"}, id="§5.2 as a token"),
        pytest.param('no-cache=""', "no_cache", True, id="§5.2.2.4 limited to nothing"),
        pytest.param('no-cache="a b"', "no_cache", True, id="§5.2.2.4 not field names"),
        pytest.param('no-cache="a", no-cache', "no_cache", True, id="§5.2.2.4 limited and not"),
        pytest.param("max-stale", "max_stale", math.inf, id="§5.2.1.2 any staleness"),
        pytest.param("max-stale=5", "max_stale", 5, id="§5.2.1.2 max-stale"),
        pytest.param("max-stale=x", "max_stale", 0, id="§5.2.1.2 unintelligible: none"),
        pytest.param("min-fresh=5, min-fresh=7", "min_fresh", 7, id="§5.2.1.3 twice, the longer"),
        pytest.param("min-fresh=x", "min_fresh", math.inf, id="§5.2.1.3 unintelligible: ask"),
        pytest.param("stale-while-revalidate=9", "stale_while_revalidate", 9, id="5861 §3"),
        pytest.param("stale-while-revalidate=x", "stale_while_revalidate", 0, id="5861 §3 unintelligible"),
        pytest.param("stale-if-error=9", "stale_if_error", 9, id="5861 §4"),
        pytest.param("immutable", "immutable", True, id="8246 §2"),
        pytest.param("must-understand", "must_understand", True, id="§5.2.2.3"),
    ],
)
def test_cache_control(value: str, attribute: str, meaning: object) -> None:
    assert getattr(parse_cache_control(value), attribute) == meaning


def test_any_directive_can_be_asked_for() -> None:
    assert "private" in parse_cache_control('Private="x", foo').names
    assert "public" not in parse_cache_control("private").names


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        pytest.param('"a"', EntityTag("a"), id="9110 §8.8.3 strong"),
        pytest.param('W/"a"', EntityTag("a", weak=True), id="9110 §8.8.3 weak"),
        pytest.param('""', EntityTag(""), id="9110 §8.8.3 empty"),
        pytest.param("a", EntityTag("a"), id="without quotes"),
        pytest.param("", None, id="nothing"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_parse_entity_tag(value: str | None, tag: EntityTag | None) -> None:
    assert parse_entity_tag(value) == tag


@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        pytest.param('W/"1"', 'W/"1"', False, True, id="9110 §8.8.3.2 both weak"),
        pytest.param('W/"1"', 'W/"2"', False, False, id="9110 §8.8.3.2 others"),
        pytest.param('W/"1"', '"1"', False, True, id="9110 §8.8.3.2 one weak"),
        pytest.param('"1"', '"1"', True, True, id="9110 §8.8.3.2 both strong"),
    ],
)
def test_comparison(one: str, other: str, strong: bool, weak: bool) -> None:
    first, second = parse_entity_tag(one), parse_entity_tag(other)
    assert first is not None
    assert second is not None
    assert strongly_equal(first, second) is strong
    assert weakly_equal(first, second) is weak
