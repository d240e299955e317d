"""HTTP mode next to caches that others wrote: what a shared cache does too, it does as they do."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import parsedate
from typing import TypeAlias

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict

from aiohttp_cache_middleware import get_cache, make_cached_session
from tests.asking import ask
from tests.conftest import Clock, Handler, Origin, Seen
from tests.exchanges import Fields, field_lines
from tests.oracles import UnavailableError, running

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """
    One request, and what the origin says if it is asked.

    Attributes:
        path: Where to, below the path of the case.
        asks: Fields of the request.
        says: Fields of the origin's answer; an empty ``Date`` is none, ``{path}`` the path of the case.
        code: Status of the origin's answer. A 200 becomes a 304 for a caller who has what `says` describes.
    """

    method: str = "GET"
    path: str = ""
    asks: Fields | None = None
    says: Fields | None = None
    code: int = 200


Turns: TypeAlias = tuple[Turn, ...]
Said: TypeAlias = dict[str, str | int]

HOUR, DAY = 3600, 86_400
FRESH: Said = {"Cache-Control": "max-age=3600"}
STALE: Said = {"Cache-Control": "max-age=3600", "Date": -2 * HOUR}
TAG: Said = {"ETag": '"a"'}
DATED: Said = {"Last-Modified": -10 * DAY}
BOTH: Said = {**TAG, **DATED}


def twice(says: Fields, code: int = 200, asks: Fields | None = None) -> Turns:
    """One answer, and a second request to which the origin would say the same."""
    return Turn(says=says, code=code), Turn(asks=asks, says=says, code=code)


# --- what all are asked ---

LIFETIMES: dict[str, Fields] = {
    "§5.2.2.1 max-age": FRESH,
    "§5.2.2.1 max-age=0": {"Cache-Control": "max-age=0"},
    "§5.2.2.1 max-age before Expires": {**FRESH, "Expires": -HOUR},
    "§5.2.2.1 max-age=0 before Expires": {"Cache-Control": "max-age=0", "Expires": HOUR},
    "§5.2 MAX-AGE": {"Cache-Control": "MAX-AGE=3600"},
    "§5.2 max-age as a quoted string": {"Cache-Control": 'max-age="3600"'},
    "§5.2 unknown directives": {"Cache-Control": "x, y=1, max-age=3600"},
    "§5.2 no-store inside a quoted string": {"Cache-Control": 'x="a, no-store, b", max-age=3600'},
    "RFC 9110 §5.3 two lines": [("Cache-Control", "public"), ("Cache-Control", "max-age=3600")],
    "RFC 9110 §5.6.1 empty members": {"Cache-Control": ", ,max-age=3600,"},
    "§4.2.1 max-age is no number": {"Cache-Control": "max-age=x"},
    "§4.2.1 max-age is negative": {"Cache-Control": "max-age=-3600"},
    "§4.2.1 max-age is a fraction": {"Cache-Control": "max-age=3600.5"},
    "§4.2.1 max-age twice": {"Cache-Control": "max-age=3600, max-age=0"},
    "§1.2.2 max-age beyond 2^31": {"Cache-Control": "max-age=99999999999"},
    "§5.2.2.2 must-revalidate": {"Cache-Control": "max-age=3600, must-revalidate"},
    "§5.2.2.3 must-understand": {"Cache-Control": "max-age=3600, no-store, must-understand"},
    "§5.2.2.4 no-cache": {"Cache-Control": "max-age=3600, no-cache"},
    "§5.2.2.4 No-Cache": {"Cache-Control": "max-age=3600, No-Cache"},
    "§5.2.2.4 no-cache of a field": {"Cache-Control": 'max-age=3600, no-cache="x"', "X": "1"},
    "§5.2.2.5 no-store": {"Cache-Control": "max-age=3600, no-store"},
    "§5.2.2.5 no-store, a second line": [("Cache-Control", "max-age=3600"), ("Cache-Control", "no-store")],
    "§5.2.2.9 public": {"Cache-Control": "public, max-age=3600"},
    "RFC 8246 immutable": {"Cache-Control": "max-age=3600, immutable"},
    "§5.3 Expires": {"Expires": HOUR},
    "§5.3 Expires is over": {"Expires": -HOUR},
    "§5.3 Expires: 0": {"Expires": "0"},
    "§5.3 Expires is Date": {"Date": -60, "Expires": -60},
    "§5.3 Expires before an old Date": {"Date": -HOUR, "Expires": -2 * HOUR},
    "§5.3 Expires, long after a Date long ago": {"Date": -2 * HOUR, "Expires": HOUR},
    "§5.3 Expires, over since a Date long ago": {"Date": -2 * HOUR, "Expires": -HOUR},
    "§5.3 Expires of RFC 850": {"Expires": "Thursday, 18-Aug-50 02:01:18 GMT"},
    "§5.3 Expires of asctime": {"Expires": "Thu Aug 18 02:01:18 2050"},
    "§5.3 two Expires, one is over": [("Expires", HOUR), ("Expires", "0")],
    "RFC 9110 §6.6.1 no Date, max-age": {**FRESH, "Date": ""},
    "RFC 9110 §6.6.1 no Date, Expires": {"Date": "", "Expires": HOUR},
    "RFC 9110 §6.6.1 no Date, Expires is over": {"Date": "", "Expires": -HOUR},
    "RFC 9110 §6.6.1 Date is no date": {**FRESH, "Date": "x"},
    "§4.2.3 Age": {**FRESH, "Age": "1800"},
    "§4.2.3 Age is over": {**FRESH, "Age": "7200"},
    "§4.2.3 Age is over, Expires": {"Expires": HOUR, "Age": "7200"},
    "§4.2.3 Age beyond 2^31": {**FRESH, "Age": "99999999999"},
    "§4.2.3 an old Date": {**FRESH, "Date": -HOUR // 2},
    "§4.2.3 too old a Date": STALE,
    "§4.2.3 an old Date, and Age": {**FRESH, "Date": -HOUR // 2, "Age": "1900"},
    "§4.2.3 Date ahead": {**FRESH, "Date": HOUR // 2},
    "§5.1 Age is no number": {**FRESH, "Age": "x"},
    "§5.1 Age is negative": {**FRESH, "Age": "-7200"},
    "§5.1 Age twice, the first is over": [*FRESH.items(), ("Age", "7200"), ("Age", "0")],
    "§5.1 Age twice, the second is over": [*FRESH.items(), ("Age", "0"), ("Age", "7200")],
    "§5.1 Age as a list": {**FRESH, "Age": "0, 7200"},
    "§5.4 Pragma in a response says nothing": {**FRESH, "Pragma": "no-cache"},
    "RFC 9110 §8.4 gzip": {**FRESH, "Content-Encoding": "gzip"},
    "RFC 6265 §7.2 Set-Cookie": {**FRESH, "Set-Cookie": "a=b"},
    "§4.2.2 nothing to guess from": {},
    "§4.2.2 a tag only": TAG,
}
FRESHNESS = {name: twice(says) for name, says in LIFETIMES.items()}

LASTING = {
    f"§3 {code} with a lifetime": twice(FRESH, code)
    for code in (203, 204, 300, 301, 302, 303, 308, 400, 403, 404, 405, 410, 500, 501, 503)
}

VARY: Said = {**FRESH, "Vary": "Foo"}


def foo(value: str, says: Fields = VARY) -> Turn:
    return Turn(asks={"Foo": value} if value else {}, says=says)


SELECTING = {
    **{f"§4.1 Foo: {then}, then {now}": (foo(then), foo(now)) for then in ("1", "") for now in ("1", "2", "")},
    **{
        f"§4.1 Vary: {names}": (
            Turn(asks={"Foo": "1", "Bar": "1"}, says={**FRESH, "Vary": names}),
            Turn(asks={"Foo": "1", "Bar": "2"}, says={**FRESH, "Vary": names}),
        )
        for names in ("foo", "Foo, Bar", "Baz", "*", "Foo, *")
    },
    "§4.1 Vary in two lines": tuple(
        Turn(asks={"Foo": "1", "Bar": bar}, says=[*FRESH.items(), ("Vary", "Foo"), ("Vary", "Bar")]) for bar in "12"
    ),
    "§4.1 white space": (foo("1,2"), foo("1, 2")),
    "§4.1 one line or two": (foo("1, 2"), Turn(asks=[("Foo", "1"), ("Foo", "2")], says=VARY)),
    "§4.1 the case of a value": (foo("a"), foo("A")),
    "§4.1 both variants stay": (foo("1"), foo("2"), foo("1"), foo("2")),
    "§4.1 one that does not vary": (foo("1"), foo("2", FRESH), foo("3")),
}

CONDITIONS: tuple[tuple[str, str | int], ...] = (
    ("If-None-Match", '"a"'),
    ("If-None-Match", 'W/"a"'),
    ("If-None-Match", '"b"'),
    ("If-None-Match", '"b", "a"'),
    ("If-None-Match", "*"),
    ("If-Modified-Since", -10 * DAY),
    ("If-Modified-Since", -5 * DAY),
    ("If-Modified-Since", -20 * DAY),
    ("If-Modified-Since", "x"),
)


def conditional(says: Fields) -> dict[str, Turns]:
    return {
        f"{name}: {f'{value // DAY} days' if isinstance(value, int) else value}": twice(says, asks={name: value})
        for name, value in CONDITIONS
    }


CONDITIONAL = {
    **{f"§4.3.2 {name}": turns for name, turns in conditional({**FRESH, **BOTH}).items()},
    "§4.3.2 If-None-Match before If-Modified-Since": twice(
        {**FRESH, **BOTH}, asks={"If-None-Match": '"b"', "If-Modified-Since": -5 * DAY}
    ),
    "§4.3.2 of 404": twice({**FRESH, **BOTH}, 404, asks={"If-None-Match": '"a"'}),
    "RFC 9110 §13.1.1 If-Match": twice({**FRESH, **BOTH}, asks={"If-Match": '"a"'}),
}

VALIDATORS: Said = {
    "its tag": '"a"',
    "another tag": '"b"',
    "a weak tag": 'W/"a"',
    "its date": -10 * DAY,
    "a later date": -9 * DAY,
}

RANGES = {
    **{
        f"RFC 9110 §14.2 {text}": twice({**FRESH, **TAG}, asks={"Range": text})
        for text in ("bytes=0-1", "bytes=3-", "bytes=-2", "bytes=0-99", "bytes=99-", "bytes=4-2", "x=1-2")
    },
    **{
        f"RFC 9110 §13.1.5 If-Range: {name}": twice({**FRESH, **BOTH}, asks={"Range": "bytes=0-1", "If-Range": value})
        for name, value in VALIDATORS.items()
    },
    "RFC 9110 §13.2.2 If-None-Match before Range": twice(
        {**FRESH, **TAG}, asks={"Range": "bytes=0-1", "If-None-Match": '"a"'}
    ),
    "RFC 9110 §14.2 HEAD": (Turn(says=FRESH), Turn(method="HEAD", asks={"Range": "bytes=0-1"}, says=FRESH)),
}

PLAIN = {
    "§2 another query": (Turn(says=FRESH), Turn(path="?a=1", says=FRESH), Turn(path="?a=2", says=FRESH)),
    "§2 a query again": (Turn(path="?a=1", says=FRESH), Turn(path="?a=1", says=FRESH)),
    "§2 the order of a query": (Turn(path="?a=1&b=2", says=FRESH), Turn(path="?b=2&a=1", says=FRESH)),
    "§4 HEAD of a fresh one": (Turn(says=FRESH), Turn(method="HEAD", says=FRESH)),
    "§4 HEAD of a fresh 404": (Turn(says=FRESH, code=404), Turn(method="HEAD", says=FRESH, code=404)),
    "§4 HEAD after HEAD": (Turn(method="HEAD", says=FRESH), Turn(method="HEAD", says=FRESH)),
    "§4 GET after HEAD": (Turn(method="HEAD", says=FRESH), Turn(says=FRESH)),
    "§4 GET after POST": (Turn(method="POST", says=FRESH), Turn(says=FRESH)),
    "§4 POST after POST": (Turn(method="POST", says=FRESH), Turn(method="POST", says=FRESH)),
}

# --- what squid alone is asked ---

GUESSED = {
    **{
        f"§4.2.2 {code}, changed ten days ago": twice(DATED, code)
        for code in (200, 203, 204, 300, 301, 302, 308, 403, 404, 410, 501, 503)
    },
    "§4.2.2 a tenth is over": twice({"Last-Modified": -10 * DAY, "Date": -2 * DAY}),
    "§4.2.2 a tenth is not over": twice({"Last-Modified": -10 * DAY, "Date": -HOUR}),
    "§4.2.2 a tenth is over by Age": twice({"Last-Modified": -10 * DAY, "Age": "172800"}),
    "§4.2.2 changed in the future": twice({"Last-Modified": DAY}),
    "§4.2.2 Last-Modified is no date": twice({"Last-Modified": "x"}),
    "§4.2.2 not where Expires is over": twice({**DATED, "Expires": "0"}),
    "§4.2.2 a query does not matter": (Turn(path="?a=1", says=DATED), Turn(path="?a=1", says=DATED)),
}

REQUESTS = {
    **{
        f"{section}, {age}": twice({**says, **TAG}, asks={name: directive})
        for section, name, directive in (
            ("§5.2.1.1 max-age=0", "Cache-Control", "max-age=0"),
            ("§5.2.1.1 max-age less than the age", "Cache-Control", "max-age=100"),
            ("§5.2.1.1 max-age more than the age", "Cache-Control", "max-age=3000"),
            ("§5.2.1.2 max-stale", "Cache-Control", "max-stale"),
            ("§5.2.1.2 max-stale, enough", "Cache-Control", "max-stale=5000"),
            ("§5.2.1.2 max-stale, not enough", "Cache-Control", "max-stale=100"),
            ("§5.2.1.3 min-fresh, less than there is", "Cache-Control", "min-fresh=100"),
            ("§5.2.1.3 min-fresh, more than there is", "Cache-Control", "min-fresh=3000"),
            ("§5.2.1.4 no-cache", "Cache-Control", "no-cache"),
            ("§5.2.1.5 no-store", "Cache-Control", "no-store"),
            ("§5.2.1.7 only-if-cached", "Cache-Control", "only-if-cached"),
            ("§5.4 Pragma: no-cache", "Pragma", "no-cache"),
        )
        for age, says in (("fresh", {**FRESH, "Date": -HOUR // 2}), ("stale", STALE))
    },
    "§5.2.1.2 max-stale, must-revalidate": twice(
        {"Cache-Control": "max-age=3600, must-revalidate", "Date": -2 * HOUR, **TAG},
        asks={"Cache-Control": "max-stale"},
    ),
    "§5.2.1.2 max-stale, no-cache": twice(
        {"Cache-Control": "max-age=3600, no-cache", **TAG}, asks={"Cache-Control": "max-stale"}
    ),
    "§5.2.1.4 no-cache without a validator": twice(FRESH, asks={"Cache-Control": "no-cache"}),
    "§5.2.1.4 no-cache, and again": (*twice(FRESH, asks={"Cache-Control": "no-cache"}), Turn(says=FRESH)),
    "§5.2.1.5 no-store, and again": (Turn(asks={"Cache-Control": "no-store"}, says=FRESH), Turn(says=FRESH)),
    "§5.2.1.7 only-if-cached, no-cache": twice(FRESH, asks={"Cache-Control": "only-if-cached, no-cache"}),
    "§5.2.1.7 only-if-cached, another variant": (
        foo("1"),
        Turn(asks={"Foo": "2", "Cache-Control": "only-if-cached"}, says=VARY),
    ),
    "§5.2.1.7 only-if-cached, nothing stored": (Turn(asks={"Cache-Control": "only-if-cached"}),),
    "§5.4 Pragma beside Cache-Control": twice(FRESH, asks={"Pragma": "no-cache", "Cache-Control": "max-age=3600"}),
}


def then(says: Fields, *turns: Turn) -> Turns:
    """A stale one with a tag, *turns*, and a last request that the origin answers with *says*."""
    return Turn(says={**STALE, **TAG}), *turns, Turn(says=says)


NEW: Said = {**FRESH, **TAG}
OTHER: Said = {**FRESH, "ETag": '"b"'}

VALIDATING = {
    "§4.3.1 a tag": twice({**STALE, **TAG}),
    "§4.3.1 a weak tag": twice({**STALE, "ETag": 'W/"a"'}),
    "§4.3.1 a date": twice({**STALE, **DATED}),
    "§4.3.1 a tag and a date": twice({**STALE, **BOTH}),
    "§4.3.1 neither": twice(STALE),
    "§4.3.1 a tag, stored as no-cache": twice({"Cache-Control": "no-cache", **TAG}),
    "§4.3.1 a tag, must-revalidate": twice({"Cache-Control": "max-age=0, must-revalidate", **TAG}),
    "§4.3.1 a tag, Age is over": twice({**FRESH, "Age": "7200", **TAG}),
    "§4.3.1 a variant": (foo("1", {**VARY, **STALE, **TAG}), foo("1", {**VARY, **STALE, **TAG})),
    "§4.3.1 HEAD of a stale one": (Turn(says={**STALE, **TAG}), Turn(method="HEAD", says={**STALE, **TAG})),
    "§4.3.1 a range of a stale one": twice({**STALE, **TAG}, asks={"Range": "bytes=0-1"}),
    "§4.3.3 a new one replaces it": then(OTHER, Turn(says=OTHER)),
    "§4.3.3 404 ends it": then(NEW, Turn(code=404)),
    "§4.3.3 500 does not": then(NEW, Turn(code=500)),
    "§4.3.3 503 does not": then(NEW, Turn(code=503)),
    "§5.2.2.2 503, must-revalidate": (
        Turn(says={"Cache-Control": "max-age=3600, must-revalidate", "Date": -2 * HOUR, **TAG}),
        Turn(code=503),
    ),
    "§4.3.3 500 without a validator": (Turn(says=STALE), Turn(code=500), Turn(says=FRESH)),
    "RFC 5861 §4 stale-if-error": (
        Turn(says={"Cache-Control": "max-age=3600, stale-if-error=7200", "Date": -2 * HOUR, **TAG}),
        Turn(code=503),
    ),
    "§4.3.4 a 304 renews it": then(NEW, Turn(says=NEW)),
    "§4.3.4 a 304 to a range renews it": then(NEW, Turn(asks={"Range": "bytes=0-1"}, says=NEW)),
    "§4.3.4 a 304 to the caller's condition renews it": then(NEW, Turn(asks={"If-None-Match": '"a"'}, says=NEW)),
    "§4.3.4 a 304 renews a dated one": (
        Turn(says={**STALE, **DATED}),
        Turn(says={**FRESH, **DATED}),
        Turn(says={**FRESH, **DATED}),
    ),
    "§4.3.4 a 304 ends an Age": (Turn(says={**FRESH, "Age": "7200", **TAG}), Turn(says=NEW), Turn(says=NEW)),
    "§4.3.4 a 304 says no-cache": then(NEW, Turn(says={"Cache-Control": "no-cache", **TAG})),
    "§5.2.2.5 a 304 says no-store": then(NEW, Turn(says={"Cache-Control": "no-store", **TAG})),
    "§4.3.5 HEAD renews it": (Turn(says=STALE), Turn(method="HEAD", says=FRESH), Turn(says=FRESH)),
    "§4.3.5 HEAD shows another tag": (
        Turn(says=NEW),
        Turn(method="HEAD", asks={"Cache-Control": "no-cache"}, says=OTHER),
        Turn(says=OTHER),
    ),
    "§3 no-cache, answered with no-store": (
        Turn(says=FRESH),
        Turn(asks={"Cache-Control": "no-cache"}, says={"Cache-Control": "no-store"}),
        Turn(says=FRESH),
    ),
    "§4.3.2 nothing stored": (Turn(asks={"If-None-Match": '"a"'}, says=NEW), Turn(says=NEW)),
    "RFC 9110 §14.2 a range, answered with the whole": (
        Turn(asks={"Range": "bytes=0-1"}, says=FRESH),
        Turn(says=FRESH),
    ),
    **{f"§4.3.2 stale, {name}": turns for name, turns in conditional({**STALE, **BOTH}).items()},
}

INVALIDATING = {
    **{
        f"§4.4 {method}": (Turn(says=FRESH), Turn(method=method), Turn(says=FRESH))
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")
    },
    **{
        f"§4.4 POST, {code}": (Turn(says=FRESH), Turn(method="POST", code=code), Turn(says=FRESH))
        for code in (201, 204, 303, 400, 404, 500)
    },
    "§4.4 all variants": (foo("1"), foo("2"), Turn(method="POST"), foo("1"), foo("2")),
    "§4.4 HEAD after POST": (Turn(says=FRESH), Turn(method="POST"), Turn(method="HEAD", says=FRESH)),
    **{
        f"§4.4 {name}: {reference}": (
            Turn(path="thing", says=FRESH),
            Turn(method="POST", path="form", says={name: reference}, code=201),
            Turn(path="thing", says=FRESH),
        )
        for name in ("Location", "Content-Location")
        for reference in ("{path}thing", "thing", "http://other.test{path}thing")
    },
}

SHARED = FRESHNESS | LASTING | SELECTING | PLAIN
CASES: dict[str, dict[str, Turns]] = {
    "squid": SHARED | CONDITIONAL | RANGES | GUESSED | REQUESTS | VALIDATING | INVALIDATING,
    # These two obey no Cache-Control of a request, never keep what is stale on arrival, and invalidate nothing.
    "varnish": SHARED | CONDITIONAL | RANGES,
    "nginx": SHARED,
}
"""What is compared with each."""


# --- where they differ ---


@dataclass(frozen=True)
class Deviation:
    """
    What an oracle does otherwise, and why that is no fault of ours.

    Attributes:
        oracles: Their names, with spaces between them.
        told: What is seen of it (`play`), but for the first turn.
        why: Against which section it is, or which section leaves a choice.
    """

    oracles: str
    told: str
    why: str
    cases: tuple[str, ...]


def lasting(*codes: int) -> tuple[str, ...]:
    return tuple(f"§3 {code} with a lifetime" for code in codes)


def guessed(*codes: int) -> tuple[str, ...]:
    return tuple(f"§4.2.2 {code}, changed ten days ago" for code in codes)


DEVIATIONS = (
    # Fields of the response
    Deviation("squid", "asked #2", "§5.2 names of directives have no case", ("§5.2 MAX-AGE",)),
    Deviation("squid", "stored #1", "§5.2 names of directives have no case", ("§5.2.2.4 No-Cache",)),
    Deviation(
        "squid varnish nginx",
        "asked #2",
        "§5.2 recipients ought to take both forms",
        ("§5.2 max-age as a quoted string",),
    ),
    Deviation(
        "varnish nginx",
        "asked #2",
        "RFC 9110 §5.6.4 a comma in a quoted string separates nothing",
        ("§5.2 no-store inside a quoted string",),
    ),
    Deviation(
        "squid varnish",
        "stored #1",
        "§4.2.1 encourages to take what is invalid as stale",
        ("§4.2.1 max-age is a fraction",),
    ),
    Deviation(
        "squid varnish nginx",
        "stored #1",
        "§4.2.1 leaves the choice: the first, or stale",
        ("§4.2.1 max-age twice", "§5.3 two Expires, one is over"),
    ),
    Deviation(
        "squid varnish nginx",
        "asked #2",
        "§5.2.2.3 is for caches that know must-understand",
        ("§5.2.2.3 must-understand",),
    ),
    Deviation(
        "squid varnish nginx",
        "asked #2",
        "§5.2.2.4 lets caches take it for no-cache",
        ("§5.2.2.4 no-cache of a field",),
    ),
    Deviation(
        "squid",
        "asked #2",
        "RFC 9110 §6.6.1 the time of receipt stands in for Date",
        ("RFC 9110 §6.6.1 no Date, max-age", "RFC 9110 §6.6.1 Date is no date"),
    ),
    Deviation(
        "varnish",
        "stored #1",
        "§4.2.3 counts the age from Date",
        ("§5.3 Expires, over since a Date long ago", "§4.2.3 too old a Date"),
    ),
    Deviation(
        "nginx",
        "stored #1",
        "§4.2.3 counts Age, and the age from Date",
        (
            "§4.2.3 Age is over",
            "§4.2.3 Age is over, Expires",
            "§4.2.3 Age beyond 2^31",
            "§4.2.3 too old a Date",
            "§5.1 Age twice, the first is over",
        ),
    ),
    Deviation("squid", "stored #1", "§4.2.3 counts the age from Date, also for a guess", ("§4.2.2 a tenth is over",)),
    Deviation(
        "varnish nginx",
        "asked #2",
        "§3 a cache need not store; this is for what several users share",
        ("RFC 6265 §7.2 Set-Cookie",),
    ),
    Deviation("varnish nginx", "asked #2", "§3 they keep nothing that is stale on arrival", ("§4.2.2 a tag only",)),
    # Status codes
    Deviation(
        "squid",
        "asked #2",
        "§3 a cache need not store",
        (
            *lasting(303, 400, 403, 404, 405, 500, 501, 503),
            *guessed(404, 501),
        ),
    ),
    Deviation(
        "squid",
        "asked",
        "§3 a cache need not store",
        (*lasting(204), *guessed(204), "§4 HEAD of a fresh 404"),
    ),
    Deviation("squid", "validated #2", "§3 a cache need not store; the condition is the caller's", ("§4.3.2 of 404",)),
    Deviation(
        "varnish",
        "asked #2",
        "§3 a cache need not store",
        lasting(303, 308, 400, 403, 405, 500, 501, 503),
    ),
    # Selecting
    Deviation("squid varnish nginx", "asked #2", "§4.1 allows to normalise, and not to", ("§4.1 white space",)),
    Deviation("varnish nginx", "asked #2", "§4.1 allows to combine lines", ("§4.1 one line or two",)),
    Deviation("varnish nginx", "stored #1", "§4.1 a list that has * never matches", ("§4.1 Vary: Foo, *",)),
    Deviation(
        "squid varnish nginx",
        "asked #2",
        "§2 ours: the order of a query does not matter (README, Keys)",
        ("§2 the order of a query",),
    ),
    Deviation("varnish nginx", "stored #1", "§3 HEAD goes out as GET, whose answer is stored", ("§4 GET after HEAD",)),
    # Parts and conditions, of what is fresh
    Deviation(
        "varnish",
        "stored #1",
        "RFC 9110 §13.1.2 has a list of tags, and *",
        ('§4.3.2 If-None-Match: "b", "a"', "§4.3.2 If-None-Match: *"),
    ),
    Deviation("squid varnish", "stored #1", "RFC 9110 §13.1.1 caches can ignore it", ("RFC 9110 §13.1.1 If-Match",)),
    Deviation("squid", "stored #1", "RFC 9110 §14.2 a server may ignore ranges", ("RFC 9110 §14.2 bytes=99-",)),
    Deviation("varnish", "stored 416", "RFC 9110 §14.2 invalid: ignored or rejected", ("RFC 9110 §14.2 bytes=4-2",)),
    Deviation("squid", "stored #1", "RFC 9110 §14.2 a proxy may discard an unknown unit", ("RFC 9110 §14.2 x=1-2",)),
    Deviation("varnish", "stored 416", "RFC 9110 §14.2 an unknown unit is no invalid range", ("RFC 9110 §14.2 x=1-2",)),
    Deviation(
        "squid", "stored 206 '12'", "RFC 9110 §13.1.5 only the very date", ("RFC 9110 §13.1.5 If-Range: a later date",)
    ),
    Deviation("squid varnish", "stored 206", "RFC 9110 §14.2 Range is for GET", ("RFC 9110 §14.2 HEAD",)),
    # What a request says
    Deviation(
        "squid",
        "asked #2",
        "§5.2.1.4 leaves the choice: it asks for the whole again",
        tuple(
            f"{name}, {age}" for name in ("§5.2.1.4 no-cache", "§5.4 Pragma: no-cache") for age in ("fresh", "stale")
        ),
    ),
    Deviation("squid", "asked | asked #3", "§5.2.1.4 leaves the choice, as above", ("§4.3.5 HEAD shows another tag",)),
    Deviation("squid", "stored #1", "§5.2.1.5 does not forbid to reuse", ("§5.2.1.5 no-store, fresh",)),
    Deviation("squid", "validated #1", "§5.2.1.5 does not forbid to reuse", ("§5.2.1.5 no-store, stale",)),
    # Validation
    Deviation("squid", "asked #2", "§4.3.1 a weak tag is a validator too", ("§4.3.1 a weak tag",)),
    Deviation(
        "squid", "asked #2", "§4.3.1 sends what it has; it is ignored there", ("§4.2.2 Last-Modified is no date",)
    ),
    Deviation(
        "squid",
        "validated #1",
        "§4.3.2 the caller's condition holds: he has no need of the body",
        tuple(f"§4.3.2 stale, If-None-Match: {tags}" for tags in ('"a"', 'W/"a"', '"b", "a"', "*")),
    ),
    Deviation(
        "squid",
        "validated #1 | stored #1",
        "§4.3.2 as above; both renew what is stored",
        ("§4.3.4 a 304 to the caller's condition renews it",),
    ),
    Deviation(
        "squid",
        "validated #1",
        "§4.3.2 leaves the choice: it puts its own condition for the caller's",
        ("§4.3.2 stale, If-Modified-Since: -20 days", "§4.3.2 stale, If-Modified-Since: x"),
    ),
    Deviation(
        "squid",
        "validated 200 #1 | validated #1",
        "§4.3.3 leaves the choice: forward the failure, or serve stale",
        ("§4.3.3 500 does not", "§4.3.3 503 does not"),
    ),
    Deviation("squid", "asked 200 #1 | asked #3", "§4.3.3 as above", ("§4.3.3 500 without a validator",)),
    Deviation(
        "squid",
        "validated #1 | validated #1",
        "§5.1 Age is since the last validation",
        ("§4.3.4 a 304 ends an Age",),
    ),
    Deviation(
        "squid",
        "validated #1 | validated #1",
        "§5.2.2.5 says of a 304 what it says of every response",
        ("§5.2.2.5 a 304 says no-store",),
    ),
    Deviation("squid", "asked | asked #3", "§4.3.5 a HEAD that agrees renews", ("§4.3.5 HEAD renews it",)),
    # Invalidation
    Deviation(
        "squid",
        "asked #2 | asked #3 | asked #4 | stored #2",
        "§4.4 all that is stored for the URL",
        ("§4.4 all variants",),
    ),
    Deviation(
        "squid",
        "asked #2 | stored #1",
        "§4.4 it resolves only references that begin with a slash",
        ("§4.4 Location: thing", "§4.4 Content-Location: thing"),
    ),
)
"""All of them, as of squid 5.7, varnish 7.1 and nginx 1.22; one that is no more makes its test fail."""

DEVIATION_OF = {
    (oracle, case): deviation
    for deviation in DEVIATIONS
    for oracle in deviation.oracles.split()
    for case in deviation.cases
}

# --- playing ---

CONDITIONAL_FIELDS = ("If-None-Match", "If-Modified-Since")


def content(number: int) -> bytes:
    """Give the body of the origin's answer to the request of this *number*, 1 to 9."""
    return f"{number}23456789".encode()


def is_current(request: web.Request, fields: Mapping[str, str]) -> bool:
    """Tell whether the copy that a conditional request speaks of is what *fields* describe."""
    tag, modified = fields.get("ETag", ""), fields.get("Last-Modified", "")
    if (tags := request.headers.get("If-None-Match")) is not None:
        return tags == "*" or tag.removeprefix("W/") in [one.strip().removeprefix("W/") for one in tags.split(",")]
    since, moment = parsedate(request.headers.get("If-Modified-Since", "")), parsedate(modified)
    return since is not None and moment is not None and moment <= since


def answering(turn: Turn, fields: CIMultiDict[str], body: Callable[[], bytes]) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        if turn.code == 200 and request.method in ("GET", "HEAD") and is_current(request, fields):
            return web.Response(status=304, headers=fields)
        sent = gzip.compress(body()) if "gzip" in fields.getall("Content-Encoding", []) else body()
        return web.Response(status=turn.code, body=None if turn.code == 204 else sent, headers=fields)

    return answer


async def play(turns: Turns, session: ClientSession, url: str, path: str, origin: Origin) -> list[str]:
    """Have *turns* happen one after the other, and `tell` what can be seen of each."""
    clock = Clock(time.time())
    first, told = origin.count, []
    lines = [line for turn in turns for fields in (turn.says, turn.asks) for line in field_lines(fields, clock).items()]
    validators = {value for name, value in lines if name in {"ETag", "Last-Modified", *CONDITIONAL_FIELDS}}
    for turn in turns:
        fields = CIMultiDict((name, line.format(path=path)) for name, line in field_lines(turn.says, clock).items())
        origin.handlers[f"{path}{turn.path}".partition("?")[0]] = answering(
            turn, fields, lambda: content(origin.count - first)
        )
        before = origin.count
        asks = field_lines(turn.asks, clock)
        response = await ask(session, url + path + turn.path, turn.method, headers=asks, allow_redirects=False)
        told.append(tell(turn, origin.seen[before:], validators, response.status, await response.text()))
    return told


def tell(turn: Turn, seen: list[Seen], validators: set[str], status: int, text: str) -> str:
    """
    Tell what can be seen of a turn.

    Returns:
        What reached the origin: ``stored`` is nothing, ``asked`` a request, ``validated`` one with a condition; then
        the status, if it is not that of the origin's answer, and the body: ``#1`` is all that the origin said to the
        first request of the case. Of an error that is the cache's own the status is enough.
    """
    # Where there is no validator, squid makes one of the date: what nobody has said is no condition.
    conditions = [one for one in seen if any(one.headers.get(name) in validators for name in CONDITIONAL_FIELDS)]
    words = ["validated" if conditions else "asked" if seen else "stored"]
    if len(seen) > 1:
        words.append(f"{len(seen)} times")
    if status != turn.code:
        words.append(str(status))
    if text and (status == turn.code or status < 400):
        words.append(f"#{text[0]}" if text.encode() == content(int(text[0])) else repr(text))
    return " ".join(words)


# --- caches ---


async def without_empty_date(_: web.Request, response: web.StreamResponse) -> None:
    if response.headers.get("Date") == "":
        del response.headers["Date"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def counted() -> AsyncIterator[Origin]:
    """One origin for all of them."""
    one = Origin()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.answer)
    app.on_response_prepare.append(without_empty_date)
    one.server = TestServer(app)
    await one.server.start_server()
    yield one
    await one.server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cached(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClientSession]:
    """Ours."""
    async with make_cached_session(tmp_path_factory.mktemp("ours"), cache_control=True) as session:
        await get_cache(session).urls()  # opens the store
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain() -> AsyncIterator[ClientSession]:
    """What asks the oracles."""
    async with ClientSession() as session:
        yield session


@pytest.fixture(scope="module")
def front(counted: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Give the URL of an oracle by its name; it is started when it is first wanted."""
    assert counted.server is not None
    origin = counted.server.port
    assert origin is not None
    known: dict[str, str | UnavailableError] = {}
    with ExitStack() as stack:

        def url_of(name: str) -> str:
            if name not in known:
                try:
                    known[name] = stack.enter_context(running(name, tmp_path_factory.mktemp(name), origin))
                except UnavailableError as error:
                    known[name] = error
            url = known[name]
            if isinstance(url, UnavailableError):
                pytest.skip(str(url))
            return url

        yield url_of


@pytest.mark.parametrize(("oracle", "case"), [(oracle, case) for oracle, cases in CASES.items() for case in cases])
async def test_same_exchange_same_outcome(
    oracle: str,
    case: str,
    front: Callable[[str], str],
    counted: Origin,
    cached: ClientSession,
    plain: ClientSession,
) -> None:
    url, turns = front(oracle), CASES[oracle][case]
    number = list(CASES[oracle]).index(case)
    theirs = await play(turns, plain, url, f"/{oracle}/{number}/", counted)
    ours = await play(turns, cached, counted.url(""), f"/{oracle}/{number}/ours/", counted)
    deviation = DEVIATION_OF.get((oracle, case))
    if deviation is None:
        assert ours == theirs
    else:
        assert ours != theirs, f"{oracle} does as we do: no deviation any more"
        assert theirs == [ours[0], *deviation.told.split(" | ")], deviation.why


async def test_deviations_are_of_cases_that_there_are() -> None:
    assert [(oracle, case) for oracle, case in DEVIATION_OF if case not in CASES[oracle]] == []
    assert len(DEVIATION_OF) == sum(len(one.oracles.split()) * len(one.cases) for one in DEVIATIONS)
