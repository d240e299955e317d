"""HTTP mode end to end, by the sections of RFC 9111 (others are named): what the origin sees, what the caller gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiohttp import ClientSession

from aiohttp_cache_middleware import get_cache
from tests.conftest import Clock, Origin
from tests.exchanges import Exchange, Fields, play

Make = Callable[..., ClientSession]

FRESH = {"Cache-Control": "max-age=3600"}
TAGGED = {"Cache-Control": "max-age=10", "ETag": '"a"'}
MONDAY = "Mon, 13 Nov 2023 22:13:20 GMT"
"""A day before test clocks start."""

STORED = Exchange(says=FRESH)


@pytest.fixture
async def http(make: Make) -> ClientSession:
    session = make(cache_control=True)
    await get_cache(session).urls()  # opens the store; a request on a busy machine would not wait for that
    return session


def case(name: str, *exchanges: Exchange) -> object:
    return pytest.param(exchanges, id=name)


def stored(name: str, says: Fields, code: int = 200, after: float = 0) -> object:
    """An answer that is reused *after* some seconds."""
    return case(name, Exchange(says=says, code=code), Exchange(after=after, hit=True, status=code))


def not_reused(name: str, says: Fields, code: int = 200, after: float = 0) -> object:
    """An answer after which the origin is asked again."""
    return case(name, Exchange(says=says, code=code), Exchange(after=after, text="#2"))


STORING = [
    *[
        stored(f"§3 {code} with a lifetime", FRESH, code)
        for code in (200, 201, 203, 299, 301, 302, 303, 307, 308, 400, 403, 404, 410, 499, 500, 502, 503, 504, 599)
    ],
    stored("§3 204", FRESH, 204),
    not_reused("§3 no lifetime, nothing to guess it from", {}),
    not_reused("§5.2.2.5 no-store", {"Cache-Control": "max-age=60, no-store"}),
    not_reused("§5.2.2.5 No-StOrE", {"Cache-Control": "No-StOrE", "Expires": 60}),
    stored("§5.2.2.3 no-store, must-understand", {"Cache-Control": "no-store, must-understand, max-age=60"}),
    not_reused(
        "§5.2.2.3 a status that is not understood", {"Cache-Control": "no-store, must-understand, max-age=9"}, 599
    ),
    stored("§5.2.2.7 private", {"Cache-Control": "private, max-age=60"}),
    stored("§5.2.2.7 private=field", {"Cache-Control": 'private="x", max-age=60', "X": "1"}),
    not_reused("§5.2.2.10 s-maxage is for shared caches", {"Cache-Control": "s-maxage=3600, max-age=1"}, after=1),
    not_reused("§5.2.2.10 s-maxage alone states nothing", {"Cache-Control": "s-maxage=3600"}),
    not_reused("§4.1 Vary: *", {**FRESH, "Vary": "*"}),
    not_reused("§4.1 Vary with * in a list", [*FRESH.items(), ("Vary", ""), ("Vary", "Accept, *")]),
    not_reused("§3.3 206", {**FRESH, "Content-Range": "bytes 0-1/9"}, 206),
    case(
        "RFC 9110 §13, §14 412 and 416 answer one request only",
        Exchange(asks={"If-Match": '"b"'}, says=FRESH, code=412),
        Exchange(says={"Cache-Control": "max-age=1", "ETag": '"a"'}),
        Exchange(after=5, asks={"Range": "bytes=9-"}, says=FRESH, code=416, sees={"If-None-Match": '"a"'}),
        Exchange(sees={"If-None-Match": '"a"'}, text="#4"),
    ),
    case(
        "§5.2.1.5 a request with no-store",
        Exchange(asks={"Cache-Control": "no-store"}, says=FRESH),
        Exchange(says=FRESH, text="#2"),
        Exchange(asks={"Cache-Control": "no-store"}, text="#3"),
        Exchange(hit=True, text="#2"),
    ),
    case(
        "§3 a newer answer that may not be stored ends the older one",
        Exchange(says=FRESH),
        Exchange(asks={"Cache-Control": "no-cache"}, says={"Cache-Control": "no-store"}, text="#2"),
        Exchange(text="#3"),
    ),
    case("§2 another URL is another thing", STORED, Exchange(path="/other", text="#2")),
    stored("RFC 6265 §7.2 Set-Cookie is stored like any field", {**FRESH, "Set-Cookie": "a=b"}),
]

FRESHNESS = [
    stored("§5.2.2.1 max-age", {"Cache-Control": "max-age=10"}, after=9.9),
    not_reused("§5.2.2.1 max-age is over", {"Cache-Control": "max-age=10"}, after=10),
    stored("§5.2.2.1 max-age=1 at once", {"Cache-Control": "max-age=1"}, after=0.5),
    not_reused("§5.2.2.1 max-age=1 after a second", {"Cache-Control": "max-age=1"}, after=1),
    not_reused("§5.2.2.1 max-age=0", {"Cache-Control": "max-age=0", "Expires": 60}),
    stored("§5.2.2.1 max-age before Expires", {"Cache-Control": "max-age=60", "Expires": -60}, after=9),
    stored("§5.2.2.1 MaX-AgE, unknown directives", {"Cache-Control": 'x="max-age=0", y, MaX-AgE=60'}, after=9),
    not_reused("§1.2.2 negative", {"Cache-Control": "max-age=-60", "Expires": 60}),
    not_reused("§1.2.2 a fraction", {"Cache-Control": "max-age=60.0"}),
    stored("§1.2.2 beyond 2^31", {"Cache-Control": "max-age=99999999999"}, after=86_400),
    stored("§1.2.2 leading zeros", {"Cache-Control": "max-age=0060"}, after=9),
    stored("§5.2 as a quoted string", {"Cache-Control": 'max-age="60"'}, after=9),
    not_reused(
        "§4.2.1 the least of several", [("Cache-Control", "max-age=60"), ("Cache-Control", "max-age=1")], after=1
    ),
    stored("§5.3 Expires", {"Expires": 10}, after=9),
    not_reused("§5.3 Expires is over", {"Expires": 10}, after=10),
    not_reused("§5.3 Expires equals Date", {"Expires": 0}),
    not_reused("§5.3 Expires: 0", {"Expires": "0"}),
    not_reused("§5.3 Expires in another zone", {"Expires": "Thu, 18 Aug 2050 02:01:18 UTC"}),
    not_reused("§5.3 Expires before Date, both ahead", {"Date": 400, "Expires": 300}),
    not_reused("§5.3 several Expires, one of them over", [("Expires", 60), ("Expires", "0")]),
    stored("RFC 9110 §5.6.7 RFC 850 date", {"Expires": "Thursday, 18-Aug-50 02:01:18 GMT"}),
    stored("RFC 9110 §5.6.7 asctime date", {"Expires": "Thu Aug  8 02:01:18 2050"}),
    stored("RFC 9110 §6.6.1 Date is no date", {"Date": "foo", "Expires": 10}),
    not_reused("§4.2.3 Age", {"Cache-Control": "max-age=60", "Age": "60"}),
    not_reused("§4.2.3 Age and a slow Date", {"Date": -10, "Expires": 10, "Age": "25"}),
    not_reused("§4.2.3 an old Date", {"Date": -7200, "Cache-Control": "max-age=3600"}),
    not_reused("§5.1 the first Age counts", [("Cache-Control", "max-age=60"), ("Age", "60"), ("Age", "0")]),
    stored("§5.1 Age is no number", {"Cache-Control": "max-age=60", "Age": "-60"}),
    *[
        stored(f"§4.2.2 heuristic, {code}", {"Last-Modified": -86_400}, code, after=8_639)
        for code in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)
    ],
    *[
        not_reused(f"§4.2.2 no heuristic, {code}", {"Last-Modified": -86_400}, code)
        for code in (201, 302, 403, 503, 599)
    ],
    stored("§4.2.2 heuristic, 599 is public", {"Last-Modified": -86_400, "Cache-Control": "public"}, 599, after=9),
    not_reused("§4.2.2 heuristic lifetime is over", {"Last-Modified": -86_400}, after=8_640),
    not_reused("§5.4 Pragma: no-cache keeps from guessing", {"Last-Modified": -86_400, "Pragma": "no-cache"}),
]


def varied(foo: str | None, /, **more: object) -> Exchange:
    return Exchange(asks={} if foo is None else {"Foo": foo}, **more)  # type: ignore[arg-type]


VARY = {**FRESH, "Vary": "Foo"}

SELECTING = [
    case("§4.1 the same", varied("1", says=VARY), varied("1", hit=True)),
    case("§4.1 another", varied("1", says=VARY), varied("2", text="#2")),
    case("§4.1 absent now", varied("1", says=VARY), varied(None, text="#2")),
    case("§4.1 absent then", varied(None, says=VARY), varied("1", text="#2")),
    case("§4.1 absent both times", varied(None, says=VARY), varied(None, hit=True)),
    case(
        "§4.1 white space, combined lines",
        varied("1,2", says=VARY),
        Exchange(asks=[("Foo", "1"), ("Foo", "2")], hit=True),
    ),
    case(
        "§4.1 order, case and weights of languages",
        Exchange(asks={"Accept-Language": "en, de;q=0.5"}, says={**FRESH, "Vary": "accept-language"}),
        Exchange(asks={"Accept-Language": "DE;q=0.50 ,EN"}, hit=True),
    ),
    case(
        "§4.1 two variants stay",
        varied("1", says=VARY),
        varied("2", says=VARY),
        varied("1", hit=True, text="#1"),
        varied("2", hit=True, text="#2"),
    ),
    case(
        "§4.1 one that does not vary ends the variants",
        varied("1", says=VARY),
        varied("2", says=FRESH),
        varied("1", hit=True, text="#2"),
    ),
    case(
        "§4.1 all tags in one If-None-Match; the 304 names the variant",
        varied("1", says={**VARY, "ETag": '"1"'}),
        varied("2", says={**VARY, "ETag": '"2"'}, sees={"If-None-Match": None}),
        varied(
            "3",
            code=304,
            says={**VARY, "ETag": '"2"'},
            status=200,
            text="#2",
            hit=True,
            reaches=1,
            sees={"If-None-Match": '"2", "1"'},
        ),
    ),
    case(
        "§3 one that may not be stored ends its own variant only",
        varied("1", says=VARY),
        varied("2", says=VARY),
        Exchange(asks={"Foo": "1", "Cache-Control": "no-cache"}, says={"Cache-Control": "no-store"}),
        varied("2", hit=True, text="#2"),
        varied("1", text="#5"),
    ),
    case(
        "§4.3.4 a 304 renews the right variant",
        varied("1", says={"Vary": "Foo", "Cache-Control": "max-age=10", "ETag": '"1"'}),
        varied("2", says={"Vary": "Foo", "Cache-Control": "max-age=10", "ETag": '"2"'}),
        varied("1", after=20, code=304, status=200, hit=True, reaches=1, text="#1", says={"ETag": '"1"', **FRESH}),
        varied("1", hit=True, text="#1"),
        varied("2", text="#5"),
    ),
    case(
        "§4.3.1 variants of other users are not offered",
        Exchange(asks={"Authorization": "a"}, says={**FRESH, "Vary": "Authorization", "ETag": '"1"'}),
        Exchange(asks={"Authorization": "b"}, sees={"If-None-Match": None}, text="#2"),
    ),
]


def directive(value: str, /, **more: object) -> Exchange:
    return Exchange(asks={"Cache-Control": value}, **more)  # type: ignore[arg-type]


REQUESTS = [
    case("§5.2.1.1 max-age=0", STORED, directive("max-age=0", text="#2")),
    case("§5.2.1.1 max-age, old enough", STORED, directive("max-age=9", after=9, hit=True)),
    case("§5.2.1.1 max-age, too old", STORED, directive("max-age=9", after=9.5, text="#2")),
    case("§5.2.1.1 max-age counts Age", Exchange(says={**FRESH, "Age": "1800"}), directive("max-age=600", text="#2")),
    case("§5.2.1.2 max-stale=5", Exchange(says=TAGGED), directive("max-stale=5", after=15, hit=True)),
    case("§5.2.1.2 max-stale=5, staler", Exchange(says=TAGGED), directive("max-stale=5", after=16, text="#2")),
    case("§5.2.1.2 max-stale", Exchange(says=TAGGED), directive("max-stale", after=9_999, hit=True, text="#1")),
    case(
        "§5.2.2.2 max-stale against must-revalidate",
        Exchange(says={"Cache-Control": "max-age=10, must-revalidate", "ETag": '"a"'}),
        directive("max-stale", after=11, text="#2"),
    ),
    case("§5.2.1.3 min-fresh", Exchange(says=TAGGED), directive("min-fresh=5", after=5, hit=True)),
    case("§5.2.1.3 min-fresh, not enough left", Exchange(says=TAGGED), directive("min-fresh=5", after=6, text="#2")),
    case("§5.2.1.4 no-cache", STORED, directive("no-cache", text="#2", sees={"Cache-Control": "no-cache"})),
    case(
        "§5.2.1.4 no-cache validates",
        Exchange(says={**FRESH, "ETag": '"a"'}),
        directive("no-cache", code=304, status=200, hit=True, reaches=1, sees={"If-None-Match": '"a"'}),
    ),
    case("§5.2.1.7 only-if-cached, nothing stored", directive("only-if-cached", status=504, reaches=0)),
    case("§5.2.1.7 only-if-cached, stored", STORED, directive("only-if-cached", hit=True)),
    case(
        "§5.2.1.7 only-if-cached, stale",
        Exchange(says=TAGGED),
        directive("only-if-cached", after=11, status=504, reaches=0),
    ),
    *[
        case(
            f"§5.2.1.7 only-if-cached, {method}",
            STORED,
            directive("only-if-cached", method=method, body=b"x", status=504, reaches=0),
            Exchange(hit=True, text="#1"),
        )
        for method in ("POST", "DELETE", "OPTIONS")
    ],
    case("§5.4 Pragma: no-cache", STORED, Exchange(asks={"Pragma": "no-cache"}, text="#2")),
    case(
        "§5.4 Pragma beside Cache-Control",
        STORED,
        Exchange(asks={"Pragma": "no-cache", "Cache-Control": "x"}, hit=True),
    ),
    case("§5.4 Pragma: foo", STORED, Exchange(asks={"Pragma": "foo"}, hit=True)),
    case(
        "RFC 8246 §2 immutable is not reloaded while fresh",
        Exchange(says={"Cache-Control": "max-age=10, immutable", "ETag": '"a"'}),
        directive("max-age=0", after=9, hit=True),
        directive("max-age=0", after=1, code=304, status=200, hit=True, reaches=1, sees={"Cache-Control": "max-age=0"}),
    ),
]

WITH_TAG = Exchange(says={**FRESH, "ETag": '"a"', "Last-Modified": MONDAY, "Content-Language": "de"})


def conditional(text: str, *, matches: bool, name: str = "If-None-Match") -> Exchange:
    if matches:
        return Exchange(
            asks={name: text},
            hit=True,
            status=304,
            text="",
            shows={"ETag": '"a"', "Content-Language": None, "Age": "0"},
        )
    return Exchange(asks={name: text}, hit=True, status=200, text="#1")


CONDITIONAL = [
    *[
        case(f"§4.3.2 If-None-Match {text}", WITH_TAG, conditional(text, matches=matches))
        for text, matches in [
            ('"a"', True),
            ('W/"a"', True),
            ('"b", "a"', True),
            ("*", True),
            ('"b"', False),
            ('"A"', False),
        ]
    ],
    *[
        case(f"§4.3.2 If-Modified-Since {text}", WITH_TAG, conditional(text, matches=matches, name="If-Modified-Since"))
        for text, matches in [
            (MONDAY, True),
            ("Monday, 13-Nov-23 22:13:20 GMT", True),
            ("Mon, 13 Nov 2023 22:13:19 GMT", False),
            ("yesterday", False),
        ]
    ],
    case(
        "§4.3.2 If-None-Match goes before If-Modified-Since",
        WITH_TAG,
        Exchange(asks={"If-None-Match": '"b"', "If-Modified-Since": MONDAY}, hit=True, status=200, text="#1"),
    ),
    case(
        "§4.3.2 without Last-Modified, Date serves",
        STORED,
        Exchange(after=9, asks={"If-Modified-Since": 0}, hit=True, status=304),
    ),
    case(
        "§4.3.2 nothing stored: passed on",
        Exchange(asks={"If-None-Match": '"a"'}, code=304, sees={"If-None-Match": '"a"'}),
    ),
    case(
        "§4.3.2 a stale one: the caller's condition is passed on, the 304 is his",
        Exchange(says=TAGGED),
        Exchange(after=11, asks={"If-None-Match": '"x"'}, code=304, sees={"If-None-Match": '"x"'}),
    ),
    case(
        "§4.3.4 that 304 renews what it names",
        Exchange(says=TAGGED),
        Exchange(after=11, asks={"If-None-Match": '"x", "a"'}, code=304, says={**FRESH, "ETag": '"a"', "X": "2"}),
        Exchange(after=9, hit=True, status=200, text="#1", shows={"X": "2", "Age": "9"}),
    ),
    case(
        "§4.3.4 and nothing else",
        Exchange(says=TAGGED),
        Exchange(after=11, asks={"If-None-Match": '"x"'}, code=304, says={**FRESH, "ETag": '"x"'}),
        Exchange(code=304, status=200, hit=True, reaches=1, text="#1", sees={"If-None-Match": '"a"'}),
    ),
    case("§4.3.2 If-Match is for the origin", WITH_TAG, Exchange(asks={"If-Match": '"a"'}, text="#2")),
    case("§4.3.2 If-Unmodified-Since too", WITH_TAG, Exchange(asks={"If-Unmodified-Since": 0}, text="#2")),
]

TEN = Exchange(says={**FRESH, "ETag": '"a"', "Content-Type": "text/plain"}, content=b"0123456789")


def part(text: str, content: str, where: str, **asks: str) -> Exchange:
    more = {name.replace("_", "-"): value for name, value in asks.items()}
    return Exchange(
        asks={"Range": text, **more},
        hit=True,
        status=206,
        text=content,
        shows={"Content-Range": f"bytes {where}/10", "Content-Length": str(len(content)), "ETag": '"a"'},
    )


def whole(text: str, **asks: str) -> Exchange:
    more = {name.replace("_", "-"): value for name, value in asks.items()}
    return Exchange(
        asks={"Range": text, **more}, hit=True, status=200, text="0123456789", shows={"Content-Range": None}
    )


RANGES = [
    case("RFC 9110 §14.1.2 first and last", TEN, part("bytes=2-4", "234", "2-4")),
    case("RFC 9110 §14.1.2 to the end", TEN, part("bytes=7-", "789", "7-9")),
    case("RFC 9110 §14.1.2 the last ones", TEN, part("bytes=-3", "789", "7-9")),
    case("RFC 9110 §14.1.2 beyond the end", TEN, part("bytes=8-99", "89", "8-9")),
    case("RFC 9110 §14.2 malformed: ignored", TEN, whole("bytes=4-2")),
    case("RFC 9110 §14.2 another unit: for the origin", TEN, Exchange(asks={"Range": "lines=1-2"}, code=206)),
    case(
        "RFC 9110 §15.5.17 416",
        TEN,
        Exchange(asks={"Range": "bytes=10-"}, hit=True, status=416, text="", shows={"Content-Range": "bytes */10"}),
    ),
    *[
        case(
            f"RFC 9110 §14.1.2 of nothing, {text}",
            Exchange(says=FRESH, content=b""),
            Exchange(asks={"Range": text}, hit=True, status=status, text="", shows={"Content-Range": where}),
        )
        for text, status, where in [
            ("bytes=-5", 200, None),
            ("bytes=-0", 416, "bytes */0"),
            ("bytes=0-", 416, "bytes */0"),
        ]
    ],
    case("RFC 9110 §13.1.5 If-Range, its tag", TEN, part("bytes=-1", "9", "9-9", If_Range='"a"')),
    case("RFC 9110 §13.1.5 If-Range, another tag", TEN, whole("bytes=-1", If_Range='"b"')),
    case("RFC 9110 §13.1.5 If-Range, a weak tag", TEN, whole("bytes=-1", If_Range='W/"a"')),
    case("RFC 9110 §14.2 HEAD knows no ranges", TEN, Exchange(method="HEAD", asks={"Range": "bytes=1-2"}, hit=True)),
    case(
        "§4.3 a range of a stale one is answered after validation",
        Exchange(says=TAGGED, content=b"0123456789"),
        Exchange(
            after=11, asks={"Range": "bytes=0-1"}, code=304, says=FRESH, status=206, hit=True, reaches=1, text="01"
        ),
        part("bytes=1-2", "12", "1-2"),
    ),
]

VALIDATED = {"code": 304, "status": 200, "hit": True, "reaches": 1}


def validated(*, after: float = 11, **more: object) -> Exchange:
    return Exchange(after=after, **{**VALIDATED, **more})  # type: ignore[arg-type]


def got(text: str, where: str, says: Fields = FRESH, content: str | None = None, **more: object) -> Exchange:
    """The origin answers a range with a part of the ten digits."""
    start, _, last = where.partition("-")
    asks = {"Range": text, **more.pop("asks", {})}  # type: ignore[dict-item]
    return Exchange(
        asks=asks,
        code=206,
        says=[*dict(says).items(), ("Content-Range", f"bytes {where}/10")],
        content="0123456789"[int(start) : int(last) + 1].encode() if content is None else content.encode(),
        sees={"Range": text},
        **more,  # type: ignore[arg-type]
    )


def reused(text: str, content: str, where: str, **asks: str) -> Exchange:
    """A stored part answers."""
    more = {name.replace("_", "-"): value for name, value in asks.items()}
    shows: dict[str, str | None] = {"Content-Range": f"bytes {where}/10", "Content-Length": str(len(content))}
    return Exchange(asks={"Range": text, **more}, hit=True, status=206, text=content, shows=shows)


def rest(text: str, where: str, says: Fields, **more: object) -> Exchange:
    """The whole is asked for; the origin gives what a stored part of the ten digits lacks."""
    start, _, last = where.partition("-")
    shows = {"Content-Range": None, "Content-Length": "10", **more.pop("shows", {})}  # type: ignore[dict-item]
    return Exchange(
        code=206,
        says=[*dict(says).items(), ("Content-Range", f"bytes {where}/10")],
        content="0123456789"[int(start) : int(last) + 1].encode(),
        sees={"Range": text, "If-Range": '"a"'},
        status=200,
        hit=True,
        reaches=1,
        text="0123456789",
        shows=shows,
        **more,  # type: ignore[arg-type]
    )


NO_RANGE: dict[str, str | None] = {"Range": None, "If-Range": None}
TAGGED_FRESH = {**FRESH, "ETag": '"a"'}
BY_FOO = {**FRESH, "Vary": "Foo"}
PART_OF_WHOLE = reused("bytes=3-7", "34567", "3-7")

PARTS = [
    case("§3.3 the same range again", got("bytes=2-4", "2-4"), reused("bytes=2-4", "234", "2-4")),
    case("§3.3 the last bytes again", got("bytes=-5", "5-9"), reused("bytes=-5", "56789", "5-9")),
    case("§3.3 the same bytes, said in another way", got("bytes=-5", "5-9"), reused("bytes=5-", "56789", "5-9")),
    case("§3.3 bytes within", got("bytes=2-7", "2-7"), reused("bytes=3-5", "345", "3-5")),
    case("§3.3 to the end, which the part reaches", got("bytes=-5", "5-9"), reused("bytes=6-", "6789", "6-9")),
    case("§3.3 the last byte", got("bytes=-5", "5-9"), reused("bytes=-1", "9", "9-9")),
    case(
        "§3.3 less than was asked for is what it says it is",
        got("bytes=2-7", "2-4"),
        got("bytes=2-7", "2-4"),
        reused("bytes=2-4", "234", "2-4"),
    ),
    case("§3.3 bytes that are not all there", got("bytes=2-4", "2-4"), got("bytes=3-5", "3-5")),
    case("§3.3 to an end that is not there", got("bytes=2-4", "2-4"), got("bytes=3-", "3-9")),
    case("§3.3 never for the whole", got("bytes=0-4", "0-4"), Exchange(text="#2", sees={"Range": None})),
    case("§3.3 nor for HEAD", got("bytes=0-4", "0-4"), Exchange(method="HEAD", asks={"Range": "bytes=0-4"})),
    case("§3.3 nor for several ranges", got("bytes=0-4", "0-4"), Exchange(asks={"Range": "bytes=0-1,3-4"}, text="#2")),
    case("§4.2 once it is stale, the origin is asked", got("bytes=0-4", "0-4"), got("bytes=0-4", "0-4", after=3600)),
    case(
        "§4.3 and says that it still holds",
        got("bytes=0-4", "0-4", TAGGED),
        Exchange(
            after=11,
            asks={"Range": "bytes=1-2"},
            code=304,
            says=TAGGED_FRESH,
            status=206,
            hit=True,
            reaches=1,
            text="12",
            sees={"If-None-Match": '"a"', "Range": "bytes=1-2"},
        ),
        reused("bytes=0-3", "0123", "0-3"),
    ),
    case(
        "§4.3 or has another one",
        got("bytes=0-4", "0-4", TAGGED),
        got("bytes=0-4", "0-4", {**FRESH, "ETag": '"b"'}, "abcde", after=11),
        reused("bytes=0-1", "ab", "0-1"),
    ),
    case(
        "§4.2.4 stale, if the origin fails",
        got("bytes=0-4", "0-4", {"Cache-Control": "max-age=1, stale-if-error=9"}),
        Exchange(after=5, asks={"Range": "bytes=0-4"}, code=503, hit=True, reaches=1, status=206, text="01234"),
    ),
    case(
        "§5.2.1.7 only-if-cached",
        got("bytes=2-4", "2-4"),
        reused("bytes=3-4", "34", "3-4", Cache_Control="only-if-cached"),
        directive("only-if-cached", code=504, reaches=0),
    ),
    case(
        "§5.2.2.5 no-store",
        got("bytes=0-4", "0-4", {"Cache-Control": "max-age=9, no-store"}),
        got("bytes=0-4", "0-4"),
    ),
    case("§3 neither lifetime nor validator", got("bytes=0-4", "0-4", {}), got("bytes=0-4", "0-4")),
    case(
        "§4.1 for the same variant alone",
        got("bytes=0-4", "0-4", BY_FOO, asks={"Foo": "1"}),
        got("bytes=0-4", "0-4", BY_FOO, "abcde", asks={"Foo": "2"}),
        reused("bytes=1-2", "12", "1-2", Foo="1"),
        reused("bytes=1-2", "bc", "1-2", Foo="2"),
        varied("1", text="#5"),
    ),
    case("§4.4 invalidated", got("bytes=0-4", "0-4"), Exchange(method="POST"), got("bytes=0-4", "0-4")),
    case(
        "RFC 9110 §13.1.5 If-Range",
        got("bytes=0-4", "0-4", TAGGED_FRESH),
        reused("bytes=1-2", "12", "1-2", If_Range='"a"'),
        Exchange(asks={"Range": "bytes=1-2", "If-Range": '"b"'}, text="#3"),
    ),
    case(
        "RFC 9110 §13.1.5 an answer to If-Range is not stored",
        got("bytes=0-4", "0-4", TAGGED_FRESH, asks={"If-Range": '"a"'}),
        got("bytes=0-4", "0-4"),
    ),
    *[
        case(f"§3.3 not stored: {name}", got("bytes=2-4", where, {**FRESH, **says}, content), got("bytes=2-4", "2-4"))
        for name, where, says, content in [
            ("shorter than Content-Range says", "2-4", {}, "23"),
            ("longer", "2-4", {}, "2345"),
            ("other bytes than were asked for", "3-5", {}, "345"),
            ("an encoded representation", "2-4", {"Content-Encoding": "x"}, "234"),
        ]
    ],
    case(
        "RFC 9110 §14.4 not stored: complete length unknown",
        Exchange(asks={"Range": "bytes=0-1"}, says={**FRESH, "Content-Range": "bytes 0-1/*"}, code=206, content=b"01"),
        got("bytes=0-1", "0-1"),
    ),
    case(
        "RFC 9110 §15.3.7.2 not stored: several parts",
        Exchange(asks={"Range": "bytes=0-1,3-4"}, says={**FRESH, "Content-Type": "multipart/byteranges"}, code=206),
        got("bytes=0-1", "0-1"),
    ),
    case(
        "§3.4 the newer of two parts is kept",
        got("bytes=0-4", "0-4"),
        got("bytes=5-6", "5-6"),
        reused("bytes=6-6", "6", "6-6"),
        got("bytes=0-4", "0-4"),
    ),
    case(
        "§3.4 a part does not displace the whole",
        Exchange(says=TAGGED, content=b"0123456789"),
        got("bytes=0-4", "0-4", after=11),
        validated(says=TAGGED_FRESH, after=0, text="0123456789"),
    ),
    case(
        "§3.4 but renews its fields",
        Exchange(says={**TAGGED, "X": "1", "Y": "1"}, content=b"0123456789"),
        got("bytes=0-4", "0-4", {**TAGGED_FRESH, "X": "2"}, after=11),
        Exchange(after=99, hit=True, status=200, text="0123456789", shows={"X": "2", "Y": "1", "Content-Length": "10"}),
        reused("bytes=3-4", "34", "3-4"),
    ),
    case(
        "§3.4 a 206 with no-store ends what it is a part of",
        Exchange(says=TAGGED, content=b"0123456789"),
        got("bytes=0-4", "0-4", {"Cache-Control": "no-store", "ETag": '"a"'}, after=11),
        Exchange(text="#3", sees={"If-None-Match": None}),
    ),
    case(
        "§3.4 the stored fields are those of a part of the whole",
        Exchange(says={**FRESH, "X": "1"}, content=b"0123456789"),
        Exchange(asks={"Range": "bytes=0-1"}, says={"X": "2"}, hit=True, status=206, text="01", shows={"X": "1"}),
    ),
    case(
        "§3.4 parts that touch become one",
        got("bytes=0-2", "0-2", {**TAGGED_FRESH, "X": "1", "Y": "1"}),
        got("bytes=3-5", "3-5", {**TAGGED_FRESH, "X": "2"}, after=9),
        Exchange(
            after=1,
            asks={"Range": "bytes=1-4"},
            hit=True,
            status=206,
            text="1234",
            shows={"Content-Range": "bytes 1-4/10", "X": "2", "Y": "1", "Age": "1"},
        ),
        got("bytes=5-", "5-9", TAGGED_FRESH),
        Exchange(hit=True, status=200, text="0123456789", shows={"Content-Range": None, "Content-Length": "10"}),
        PART_OF_WHOLE,
    ),
    case(
        "§3.4 not those of different representations",
        got("bytes=0-2", "0-2", TAGGED_FRESH),
        got("bytes=3-5", "3-5", {**FRESH, "ETag": '"b"'}, "def"),
        got("bytes=2-3", "2-3", {**FRESH, "ETag": '"b"'}, "cd"),
        reused("bytes=2-5", "cdef", "2-5"),
        got("bytes=0-2", "0-2", TAGGED_FRESH),
    ),
    case(
        "§3.4, §4.1 each variant has a part",
        got("bytes=0-2", "0-2", {**TAGGED_FRESH, "Vary": "Foo"}, asks={"Foo": "1"}),
        got("bytes=0-2", "0-2", {**TAGGED_FRESH, "ETag": '"b"', "Vary": "Foo"}, "abc", asks={"Foo": "2"}),
        got("bytes=3-4", "3-4", {**TAGGED_FRESH, "Vary": "Foo"}, asks={"Foo": "1"}),
        reused("bytes=1-4", "1234", "1-4", Foo="1"),
        reused("bytes=1-2", "bc", "1-2", Foo="2"),
    ),
    case(
        "§3.4 unless it shows that the whole is out of date",
        Exchange(says=TAGGED, content=b"0123456789"),
        got("bytes=0-4", "0-4", {**FRESH, "ETag": '"b"'}, "abcde", after=11),
        reused("bytes=0-4", "abcde", "0-4"),
        Exchange(text="#4", sees={"If-None-Match": None}),
    ),
    case(
        "§3.4 the whole takes the place of a part",
        got("bytes=0-4", "0-4"),
        Exchange(says=FRESH, content=b"0123456789"),
        PART_OF_WHOLE,
    ),
    case(
        "RFC 9110 §15.3.7.3 a part that is the whole",
        got("bytes=0-", "0-9"),
        Exchange(hit=True, status=200, text="0123456789", shows={"Content-Range": None, "Content-Length": "10"}),
        PART_OF_WHOLE,
    ),
    case(
        "RFC 9110 §14.2 the whole in answer to a range",
        Exchange(asks={"Range": "bytes=0-1"}, says=FRESH, content=b"0123456789"),
        PART_OF_WHOLE,
    ),
    case(
        "§3.4 the whole is asked for: the rest of it will do",
        got("bytes=0-4", "0-4", {**TAGGED_FRESH, "X": "1", "Y": "1"}),
        rest("bytes=5-", "5-9", {**TAGGED_FRESH, "X": "2"}, after=9, shows={"X": "2", "Y": "1", "Age": "0"}),
        Exchange(after=3599, hit=True, text="0123456789", shows={"X": "2", "Y": "1", "Content-Range": None}),
        PART_OF_WHOLE,
    ),
    case("§3.4 what stands before it", got("bytes=-5", "5-9", TAGGED_FRESH), rest("bytes=0-4", "0-4", TAGGED_FRESH)),
    case(
        "§3.4 a stale part too: If-Range validates it",
        got("bytes=0-4", "0-4", TAGGED),
        rest("bytes=5-", "5-9", TAGGED_FRESH, after=99),
        Exchange(after=99, hit=True, text="0123456789"),
    ),
    case(
        "§5.2.1.4 also where the request says no-cache",
        got("bytes=0-4", "0-4", TAGGED_FRESH),
        rest("bytes=5-", "5-9", TAGGED_FRESH, asks={"Cache-Control": "no-cache"}),
    ),
    case(
        "RFC 9110 §13.1.5 the whole, if it has changed",
        got("bytes=0-4", "0-4", TAGGED_FRESH),
        Exchange(says={**FRESH, "ETag": '"b"'}, text="#2", sees={"Range": "bytes=5-", "If-Range": '"a"'}),
        Exchange(hit=True, text="#2", shows={"ETag": '"b"'}),
    ),
    case(
        "§3.4 a failure is the answer",
        got("bytes=0-4", "0-4", TAGGED_FRESH),
        Exchange(code=503, sees={"Range": "bytes=5-"}),
        rest("bytes=5-", "5-9", TAGGED_FRESH),
    ),
    *[
        case(f"§3.4 not completed: {name}", stored_part, Exchange(asks=asks, says=FRESH, text="#2", sees=NO_RANGE))
        for name, stored_part, asks in [
            ("no strong tag", got("bytes=0-4", "0-4"), {}),
            ("a weak tag", got("bytes=0-4", "0-4", {**FRESH, "ETag": 'W/"a"'}), {}),
            ("both ends are missing", got("bytes=3-4", "3-4", TAGGED_FRESH), {}),
            ("another variant", got("bytes=0-4", "0-4", {**TAGGED_FRESH, "Vary": "Foo"}), {"Foo": "1"}),
            ("the request says no-store", got("bytes=0-4", "0-4", TAGGED_FRESH), {"Cache-Control": "no-store"}),
            ("a condition of the caller's", got("bytes=0-4", "0-4", TAGGED_FRESH), {"If-None-Match": '"x"'}),
        ]
    ],
    case(
        "§3.4 HEAD needs no content",
        got("bytes=0-4", "0-4", TAGGED_FRESH),
        Exchange(method="HEAD", sees=NO_RANGE),
    ),
    case(
        "§5.2.2.5 the rest with no-store: shown, not stored",
        got("bytes=0-4", "0-4", TAGGED_FRESH),
        rest("bytes=5-", "5-9", {"Cache-Control": "no-store", "ETag": '"a"'}),
        Exchange(text="#3", sees=NO_RANGE),
    ),
    case(
        "§3.4, §4.1 each variant is completed",
        got("bytes=0-4", "0-4", {**TAGGED_FRESH, "Vary": "Foo"}, asks={"Foo": "1"}),
        got("bytes=0-4", "0-4", {**FRESH, "ETag": '"b"', "Vary": "Foo"}, "abcde", asks={"Foo": "2"}),
        rest("bytes=5-", "5-9", {**TAGGED_FRESH, "Vary": "Foo"}, asks={"Foo": "1"}),
        reused("bytes=1-2", "bc", "1-2", Foo="2"),
        varied("1", hit=True, text="0123456789"),
    ),
    case(
        "RFC 9211 §2 a part that is completed",
        got("bytes=0-4", "0-4", TAGGED_FRESH),
        rest(
            "bytes=5-",
            "5-9",
            TAGGED_FRESH,
            shows={"Cache-Status": "aiohttp_cache_middleware; fwd=partial; fwd-status=206; stored; ttl=3600"},
        ),
    ),
    case(
        "RFC 9211 §2 a part that is stored, and reused",
        got(
            "bytes=0-4",
            "0-4",
            shows={"Cache-Status": "aiohttp_cache_middleware; fwd=uri-miss; fwd-status=206; stored; ttl=3600"},
        ),
        Exchange(
            after=1,
            asks={"Range": "bytes=0-4"},
            hit=True,
            status=206,
            shows={"Cache-Status": "aiohttp_cache_middleware; hit; ttl=3599", "Age": "1"},
        ),
    ),
]

VALIDATING = [
    case(
        "§4.3.1 ETag",
        Exchange(says=TAGGED),
        validated(sees={"If-None-Match": '"a"', "If-Modified-Since": None}, text="#1"),
    ),
    case(
        "§4.3.1 Last-Modified",
        Exchange(says={"Cache-Control": "max-age=10", "Last-Modified": MONDAY}),
        validated(sees={"If-Modified-Since": MONDAY, "If-None-Match": None}),
    ),
    case(
        "§4.3.1 both; a weak tag as it came",
        Exchange(says={"Cache-Control": "max-age=10", "ETag": 'W/"a"', "Last-Modified": MONDAY}),
        validated(sees={"If-Modified-Since": MONDAY, "If-None-Match": 'W/"a"'}),
    ),
    case(
        "§3.2 a 304 updates fields, not those of the content",
        Exchange(says={**TAGGED, "X": "1", "Y": "1"}),
        validated(
            says={"ETag": '"a"', "X": "2", "Content-Encoding": "x"},
            shows={"X": "2", "Y": "1", "Content-Encoding": None},
        ),
        Exchange(hit=True, text="#1", shows={"X": "2", "Y": "1"}),
    ),
    case(
        "§4.3.4 a 304 renews the lifetime",
        Exchange(says=TAGGED),
        validated(says={"Cache-Control": "max-age=100"}),
        Exchange(after=99, hit=True, text="#1"),
        validated(after=2),
    ),
    case(
        "§4.3.4 without new fields it counts anew",
        Exchange(says=TAGGED),
        validated(),
        Exchange(after=9, hit=True, shows={"Age": "9"}),
        validated(after=1),
    ),
    *[
        case(
            f"§3.2, §4.1 a 304 to {method} brings Vary: the response is for the request it answers",
            varied("1", says=TAGGED),
            varied("1", after=11, method=method, **VALIDATED, says=VARY, shows={"Vary": "Foo"}),
            varied("1", hit=True, text="#1"),
            varied("2", says=VARY, text="#4"),
            varied("2", hit=True, text="#4"),
        )
        for method in ("GET", "HEAD")
    ],
    case(
        "§3.2, §4.1 a 304 names another field in Vary",
        varied("1", says={**TAGGED, "Vary": "Foo"}),
        validated(asks={"Foo": "1", "Bar": "1"}, says={**FRESH, "Vary": "Bar"}),
        Exchange(asks={"Foo": "1", "Bar": "1"}, hit=True, text="#1"),
        Exchange(asks={"Foo": "1", "Bar": "2"}, text="#4"),
    ),
    case(
        "§3.2, §4.1 a 304 names none: what selected still does",
        varied("1", says={**TAGGED, "Vary": "Foo"}),
        varied("1", after=11, **VALIDATED, says=FRESH),
        varied("1", hit=True, text="#1", shows={"Vary": "Foo"}),
        varied("2", text="#4"),
    ),
    case(
        "§3.2, §4.1 a 304 to the caller's condition brings Vary",
        varied("1", says=TAGGED),
        Exchange(after=11, asks={"Foo": "2", "If-None-Match": '"a"'}, code=304, says={**VARY, "ETag": '"a"'}),
        varied("2", hit=True, text="#1"),
        varied("1", text="#4"),
    ),
    case(
        "§3.2, §4.1 a HEAD brings Vary",
        varied("1", says=TAGGED),
        varied("1", after=11, method="HEAD", says={**VARY, "ETag": '"a"'}),
        varied("1", hit=True, text="#1"),
        varied("2", text="#4"),
    ),
    case(
        "§4.1 a 304 with Vary: * is shown and ends the stored one",
        Exchange(says=TAGGED),
        validated(says={**FRESH, "Vary": "*"}, text="#1"),
        Exchange(text="#3", sees={"If-None-Match": None}),
    ),
    case(
        "§4.3.3 a full answer replaces it",
        Exchange(says=TAGGED),
        Exchange(after=11, says=FRESH, sees={"If-None-Match": '"a"'}),
        Exchange(hit=True, text="#2"),
    ),
    case(
        "§4.3.3 a server's failure is handed on, and loses nothing",
        Exchange(says=TAGGED),
        Exchange(after=11, code=503),
        validated(after=1, text="#1"),
    ),
    case(
        "§5.2.2.5 a 304 with no-store is shown and ends the stored one",
        Exchange(says=TAGGED),
        validated(says={"Cache-Control": "no-store"}, text="#1"),
        Exchange(text="#3", sees={"If-None-Match": None}),
    ),
    case(
        "§5.2.2.4 no-cache is validated each time",
        Exchange(says={"Cache-Control": "max-age=60, no-cache", "ETag": '"a"'}),
        validated(after=0),
        validated(after=0),
    ),
    not_reused("§5.2.2.4 no-cache without a validator", {"Cache-Control": "max-age=60, no-cache"}),
    not_reused("§5.2.2.4 No-CaChE", {"Cache-Control": "max-age=60, No-CaChE", "Expires": 60}),
]

HEAD = [
    case(
        "§4 a stored GET answers HEAD",
        TEN,
        Exchange(method="HEAD", hit=True, text="", shows={"Content-Length": "10", "ETag": '"a"'}),
    ),
    case("§4 a stored HEAD does not answer GET", Exchange(method="HEAD", says=FRESH), Exchange(text="#2")),
    case("§4 a stored HEAD answers HEAD", Exchange(method="HEAD", says=FRESH), Exchange(method="HEAD", hit=True)),
    case(
        "§4.3.5 HEAD renews a stored GET",
        Exchange(says={**TAGGED, "X": "1"}, content=b"0123456789"),
        Exchange(after=11, method="HEAD", says={**FRESH, "ETag": '"a"', "X": "2"}, content=b"0123456789"),
        Exchange(after=99, hit=True, text="0123456789", shows={"X": "2"}),
    ),
    case(
        "§4.3.5 HEAD with another tag invalidates it",
        Exchange(says={**TAGGED, **FRESH}),
        Exchange(method="HEAD", asks={"Cache-Control": "no-cache"}, says={"ETag": '"b"'}),
        Exchange(text="#3", sees={"If-None-Match": None}),
    ),
    case(
        "§4.3.5 HEAD with another length invalidates it",
        Exchange(says=FRESH, content=b"0123456789"),
        Exchange(method="HEAD", asks={"Cache-Control": "no-cache"}, content=b"0123"),
        Exchange(text="#3"),
    ),
    case(
        "§4.3.5 HEAD that succeeds invalidates a failure",
        Exchange(says=FRESH, code=404),
        Exchange(method="HEAD", asks={"Cache-Control": "no-cache"}),
        Exchange(text="#3"),
    ),
    case(
        "§4.3.5 HEAD that fails says nothing",
        Exchange(says=FRESH),
        Exchange(method="HEAD", asks={"Cache-Control": "no-cache"}, code=403),
        Exchange(hit=True, text="#1"),
    ),
    case(
        "§4.3.5 HEAD renews a stored part",
        got("bytes=0-4", "0-4", TAGGED),
        Exchange(after=11, method="HEAD", says={**TAGGED_FRESH, "X": "2"}, content=b"0123456789"),
        reused("bytes=1-2", "12", "1-2"),
    ),
    *[
        case(
            f"§4.3.5 HEAD with another {name} invalidates a stored part",
            got("bytes=0-4", "0-4", TAGGED_FRESH),
            Exchange(method="HEAD", says=says, content=content),
            got("bytes=0-4", "0-4", TAGGED_FRESH),
        )
        for name, says, content in [
            ("tag", {"ETag": '"b"'}, b"0123456789"),
            ("length", {"ETag": '"a"'}, b"012345678"),
        ]
    ],
    case(
        "§4.3.5 HEAD speaks of the variant it would have got",
        varied("1", says={**VARY, "ETag": '"1"'}),
        varied("2", method="HEAD", says={**VARY, "ETag": '"2"'}),
        varied("1", hit=True, text="#1"),
    ),
    case(
        "§4.3.1 HEAD validates a stored GET",
        Exchange(says=TAGGED, content=b"0123456789"),
        validated(method="HEAD", says=FRESH, text="", sees={"If-None-Match": '"a"'}),
        Exchange(after=99, hit=True, text="0123456789"),
    ),
]

SWR = {"Cache-Control": "max-age=10, stale-while-revalidate=10", "ETag": '"a"'}
SIE = {"Cache-Control": "max-age=10, stale-if-error=10"}

STALE = [
    not_reused("§4.2.4 stale is not served without a word", {"Cache-Control": "max-age=10"}, after=11),
    case("§4.2.4 nor when the origin fails", Exchange(says=TAGGED), Exchange(after=11, code=503)),
    case(
        "RFC 5861 §3 served stale, replaced in the background",
        Exchange(says=SWR),
        Exchange(
            after=11, says={**FRESH, "ETag": '"b"'}, hit=True, reaches=1, text="#1", sees={"If-None-Match": '"a"'}
        ),
        Exchange(hit=True, text="#2", shows={"ETag": '"b"'}),
    ),
    case(
        "RFC 5861 §3 confirmed in the background",
        Exchange(says=SWR),
        Exchange(after=11, code=304, status=200, hit=True, reaches=1, text="#1"),
        Exchange(after=9, hit=True, text="#1", shows={"Age": "9"}),
    ),
    case(
        "RFC 5861 §3 without a validator",
        Exchange(says={"Cache-Control": "max-age=10, stale-while-revalidate=10"}),
        Exchange(after=11, says=FRESH, hit=True, reaches=1, text="#1"),
        Exchange(hit=True, text="#2"),
    ),
    case(
        "RFC 5861 §3 the caller's condition is not about what is stored",
        Exchange(says={"Cache-Control": "max-age=10, stale-while-revalidate=10"}),
        Exchange(
            after=11,
            asks={"If-Modified-Since": 0, "If-None-Match": '"x"'},
            says=FRESH,
            hit=True,
            reaches=1,
            text="#1",
            sees={"If-Modified-Since": None, "If-None-Match": None},
        ),
        Exchange(hit=True, text="#2"),
    ),
    case("RFC 5861 §3 too stale", Exchange(says=SWR), Exchange(after=20, text="#2")),
    case(
        "§5.2.2.2 must-revalidate against stale-while-revalidate",
        Exchange(says={"Cache-Control": "max-age=10, stale-while-revalidate=10, must-revalidate"}),
        Exchange(after=11, text="#2"),
    ),
    *[
        case(
            f"RFC 5861 §4 {code}",
            Exchange(says=SIE),
            Exchange(after=11, code=code, status=200, hit=True, reaches=1, text="#1"),
        )
        for code in (500, 502, 503, 504)
    ],
    *[case(f"RFC 5861 §4 not {code}", Exchange(says=SIE), Exchange(after=11, code=code)) for code in (404, 501)],
    case("RFC 5861 §4 too stale", Exchange(says=SIE), Exchange(after=21, code=500)),
    case(
        "RFC 5861 §4 the request's directive",
        Exchange(says=TAGGED),
        directive("stale-if-error=5", after=15, code=500, status=200, hit=True, reaches=1, text="#1"),
        directive("stale-if-error=5", after=1, code=500),
    ),
    case(
        "RFC 5861 §4, RFC 9211 §2.2 a fresh one that the request does not accept",
        Exchange(says=SIE),
        directive(
            "max-age=0",
            after=1,
            code=500,
            status=200,
            hit=True,
            reaches=1,
            text="#1",
            shows={"Cache-Status": "aiohttp_cache_middleware; fwd=request; ttl=9"},
        ),
    ),
    case(
        "RFC 5861 §4 the connection breaks",
        Exchange(says=SIE),
        Exchange(after=11, code=0, status=200, hit=True, reaches=2, text="#1", shows={"Age": "11"}),
    ),
    case(
        "§5.2.2.2 must-revalidate against stale-if-error",
        Exchange(says={"Cache-Control": "max-age=10, stale-if-error=10, must-revalidate"}),
        Exchange(after=11, code=500),
    ),
]

INVALIDATING = [
    *[
        case(f"§4.4 {method}", STORED, Exchange(method=method, body=b"x"), Exchange(text="#3"))
        for method in ("POST", "PUT", "DELETE", "PATCH", "M-SEARCH")
    ],
    *[
        case(f"§4.4 {method} is safe", STORED, Exchange(method=method), Exchange(hit=True, text="#1"))
        for method in ("OPTIONS", "PROPFIND", "TRACE", "REPORT")
    ],
    case("§4.4 a redirect is no error", STORED, Exchange(method="POST", code=303), Exchange(text="#3")),
    *[
        case(f"§4.4 not after {code}", STORED, Exchange(method="POST", code=code), Exchange(hit=True, text="#1"))
        for code in (400, 404, 500)
    ],
    *[
        case(
            f"§4.4 {name}: {reference}",
            STORED,
            Exchange(path="/form", method="POST", says={name: reference}, code=201),
            Exchange(text="#3") if ends else Exchange(hit=True, text="#1"),
        )
        for name in ("Location", "Content-Location")
        for reference, ends in [
            ("/thing", True),
            ("thing", True),
            ("./x/../thing#f", True),
            ("http://other.test/thing", False),
        ]
    ],
    case(
        "§4.4 all variants, all methods",
        varied("1", says=VARY),
        varied("2", says=VARY),
        varied("2", method="HEAD", hit=True),
        Exchange(method="DELETE", code=204),
        varied("1", text="#5"),
        varied("2", text="#6"),
        varied("3", method="HEAD"),
    ),
]

SHOWN = [
    case("§5.1 Age", STORED, Exchange(after=5.9, hit=True, shows={"Age": "5"})),
    case("§5.1 Age goes on", Exchange(says={**FRESH, "Age": "30"}), Exchange(after=3, hit=True, shows={"Age": "33"})),
    case(
        "RFC 9110 §6.6.1 Date stays",
        Exchange(says={**FRESH, "Date": MONDAY, "Cache-Control": "max-age=999999"}),
        Exchange(after=3, hit=True, shows={"Date": MONDAY}),
    ),
    *[
        case(f"§3.1 {name} is not stored", Exchange(says={**FRESH, name: "x"}), Exchange(hit=True, shows={name: None}))
        for name in (
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authentication-Info",
            "Proxy-Connection",
            "TE",
            "Upgrade",
        )
    ],
    case(
        "RFC 9110 §7.6.1 nor what Connection names",
        Exchange(says={**FRESH, "Connection": "a, B", "A": "1", "b": "2", "c": "3"}),
        Exchange(hit=True, shows={"A": None, "B": None, "C": "3", "Connection": None, "Cache-Control": "max-age=3600"}),
    ),
    case(
        "§5.2.2.4 nor what no-cache names",
        Exchange(says=[("Cache-Control", 'no-cache="a, b"'), ("Cache-Control", "max-age=60"), ("A", "1"), ("c", "3")]),
        Exchange(hit=True, shows={"A": None, "C": "3"}),
    ),
    case(
        "RFC 9211 §2 a miss that is stored, a hit, a validation",
        Exchange(
            says=TAGGED,
            shows={"Cache-Status": "aiohttp_cache_middleware; fwd=uri-miss; fwd-status=200; stored; ttl=10"},
        ),
        Exchange(after=1, hit=True, shows={"Cache-Status": "aiohttp_cache_middleware; hit; ttl=9"}),
        validated(
            after=10, shows={"Cache-Status": "aiohttp_cache_middleware; fwd=stale; fwd-status=304; stored; ttl=10"}
        ),
        validated(
            after=0,
            asks={"Cache-Control": "no-cache"},
            shows={"Cache-Status": "aiohttp_cache_middleware; fwd=request; fwd-status=304; stored; ttl=10"},
        ),
    ),
    case(
        "RFC 9211 §2.5 a validation after which it is not kept",
        Exchange(says=TAGGED),
        validated(
            says={"Cache-Control": "max-age=10, no-store"},
            shows={"Cache-Status": "aiohttp_cache_middleware; fwd=stale; fwd-status=304; ttl=10"},
        ),
    ),
    case(
        "RFC 9211 §2.2 why it was forwarded",
        Exchange(method="POST", shows={"Cache-Status": "aiohttp_cache_middleware; fwd=method; fwd-status=200"}),
        directive("no-store", shows={"Cache-Status": "aiohttp_cache_middleware; fwd=bypass; fwd-status=200"}),
        directive(
            "only-if-cached",
            status=504,
            reaches=0,
            shows={"Cache-Status": "aiohttp_cache_middleware; detail=only-if-cached"},
        ),
        varied("1", says={**VARY, "ETag": '"a"'}),
        varied("2", says={**VARY, "ETag": '"b"'}, sees={"If-None-Match": None}),
        varied(
            "3",
            **VALIDATED,
            says={"ETag": '"b"'},
            shows={"Cache-Status": "aiohttp_cache_middleware; fwd=vary-miss; fwd-status=304; stored; ttl=3600"},
        ),
    ),
    case(
        "RFC 9211 §2.1 the origin's caches come first",
        Exchange(says={**FRESH, "Cache-Status": "cdn; hit"}),
        Exchange(hit=True, shows={"Cache-Status": "cdn; hit, aiohttp_cache_middleware; hit; ttl=3600"}),
    ),
]


@pytest.mark.parametrize(
    "exchanges",
    [
        *STORING,
        *FRESHNESS,
        *SELECTING,
        *REQUESTS,
        *CONDITIONAL,
        *RANGES,
        *PARTS,
        *VALIDATING,
        *HEAD,
        *STALE,
        *INVALIDATING,
        *SHOWN,
    ],
)
async def test_exchanges(exchanges: tuple[Exchange, ...], http: ClientSession, origin: Origin, clock: Clock) -> None:
    await play(exchanges, http, origin, clock)
