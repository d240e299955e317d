"""
Any input at all: keys, fields and records either mean something or are refused, with no exception but ours.

Hypothesis looks for the odd ones, and 100,000 inputs are thrown together at random, by seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgpack
from aiohttp import ClientRequest, ClientSession, DummyCookieJar, JsonPayload
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiohttp_cache_middleware._codec import Codec, UndecodableError
from aiohttp_cache_middleware._key import primary_key, stored_url, url_tag
from aiohttp_cache_middleware._model import FOREVER, Expiration, OriginResponse, Request, Rules, StoredResponse
from aiohttp_cache_middleware._policy import policy_for, selecting_values, selects
from aiohttp_cache_middleware._request import Asked, Uncacheable, asked_for
from aiohttp_cache_middleware._variants import place
from tests.faults.test_hostile_store import facts, sealed

Fields: TypeAlias = list[tuple[str, str]]

SECRET = b"s" * 32
NOW = 1_700_000_000.0
AT_RANDOM = 25_000
"""Inputs of each of the four tests that throw them together."""

NAMES = [
    *("Cache-Control", "Pragma", "Vary", "ETag", "Last-Modified", "Date", "Expires", "Age", "Range", "If-None-Match"),
    *("If-Modified-Since", "If-Range", "Content-Range", "Location", "Content-Length", "Authorization", "Cookie"),
    *("Accept", "Accept-Language", "Connection", "Content-Type"),
]
SPICE = [
    *("max-age=", "s-maxage=", "no-cache", "no-store", "private", "must-understand", "stale-if-error=", "min-fresh="),
    *('="', '"', ",", ";", "=", "-1", "0", "60", "9" * 30, "1e3", "W/", "*", "\t", " ", "\xff", "é", "\x7f", "\\"),
    *("bytes=", "0-", "-5", "5-1", "/", "Mon, 01 Jan 0001 00:00:00 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"),
    *("Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "\udcff", "\ud800", "q=0.5", "x", "http://b/"),
]
STATUSES = [100, 200, 203, 204, 206, 226, 301, 302, 304, 404, 410, 412, 416, 500, 503, 599]
METHODS = ["GET", "HEAD", "POST", "DELETE"]
LIFETIMES = [None, Expiration(0.0), Expiration(60.0), Expiration(FOREVER), Expiration(moment=NOW)]
URL_SPICE = [*"abc%&=?;:/@#.[]\\ +é\x7f", "%2F", "%zz", "%00", "..", "//", "\U0001f600", "&a=", "a=b"]


def seeds() -> Iterator[random.Random]:
    return (random.Random(seed) for seed in range(AT_RANDOM))


def multidict(pairs: Fields) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


# --- fields ---


def some_fields(dice: random.Random) -> Fields:
    return [(dice.choice(NAMES), "".join(dice.choices(SPICE, k=dice.randrange(6)))) for _ in range(dice.randrange(8))]


def some_rules(dice: random.Random) -> Rules:
    return Rules(
        allowed_methods=frozenset({"GET", "HEAD", "POST"}),
        allowed_codes=dice.choice([None, frozenset({200, 206})]),
        override=dice.choice(LIFETIMES),
        default=dice.choice(LIFETIMES),
        stale_if_error=dice.choice([0.0, 10.0, FOREVER]),
        refresh=dice.random() < 0.2,
        only_if_cached=dice.random() < 0.2,
    )


def understand(
    http: bool, method: str, asked: Fields, status: int, answered: Fields, rules: Rules, later: float
) -> None:
    """Put every question to a policy."""
    policy = policy_for(http=http)
    request = Request(method, "http://example.org/a?b=c", multidict(asked))
    origin = OriginResponse(status, multidict(answered), NOW - 1, NOW)
    storing = policy.may_store(request, origin, rules, NOW)
    policy.may_store_hop(request, origin, rules, NOW)
    policy.invalidated_urls(request, origin)
    stored = StoredResponse(
        key="0" * 40,
        method="GET",
        url="http://example.org/a?b=c",
        status=status,
        reason="",
        version=(1, 1),
        headers=tuple(answered),
        request_time=NOW - 1,
        response_time=NOW,
        created_time=NOW,
        expires_time=getattr(storing, "expires_time", NOW),
        body=b"0123456789",
        vary=selecting_values(request.headers, getattr(storing, "vary", ()), SECRET),
    )
    place(stored.key, None, stored)
    decision = policy.decide(request, [stored], rules, NOW + later, secret=SECRET)
    for _, value in getattr(decision, "headers", ()):
        assert not {"\r", "\n", "\0"} & set(value)
        value.encode()  # what is sent to the origin can be sent
    policy.freshen(stored, origin, rules, NOW + later)
    policy.freshened_by_head([stored], origin, rules, NOW + later)
    policy.freshened_by_answer([stored], origin, rules, NOW + later)


values = st.lists(st.sampled_from(SPICE) | st.text(st.characters(exclude_characters="\r\n\0"), max_size=12), max_size=6)
fields = st.lists(st.tuples(st.sampled_from(NAMES), values.map("".join)), max_size=8)


@settings(deadline=None)
@given(
    st.booleans(),
    st.sampled_from(METHODS),
    fields,
    st.sampled_from(STATUSES),
    fields,
    st.randoms(),
    st.floats(-1e5, 1e9),
)
def test_policies_understand_any_fields(
    http: bool, method: str, asked: Fields, status: int, answered: Fields, dice: random.Random, later: float
) -> None:
    understand(http, method, asked, status, answered, some_rules(dice), later)


def test_policies_understand_fields_at_random() -> None:
    for dice in seeds():
        http, method, status = dice.random() < 0.7, dice.choice(METHODS), dice.choice(STATUSES)
        understand(
            http, method, some_fields(dice), status, some_fields(dice), some_rules(dice), dice.uniform(-1e5, 1e6)
        )


def is_selected_by_itself(one: Fields, other: Fields) -> None:
    asked = sorted({name.lower() for name, _ in one + other})
    vary = selecting_values(multidict(one), asked, SECRET)
    assert selects(vary, multidict(one), SECRET)
    selects(vary, multidict(other), SECRET)


@given(fields, fields)
def test_what_selects_is_what_was_asked(one: Fields, other: Fields) -> None:
    is_selected_by_itself(one, other)


def test_what_selects_is_what_was_asked_at_random() -> None:
    for dice in seeds():
        is_selected_by_itself(some_fields(dice), some_fields(dice))


# --- keys ---


class Runner:
    """Runs one coroutine after the other (`asyncio.Runner` came with Python 3.11)."""

    def __enter__(self) -> Runner:
        self._loop = asyncio.new_event_loop()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.close()

    def run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)


def some_request(dice: random.Random) -> tuple[str, dict[str, Any]]:
    path = "/" + "".join(dice.choices(URL_SPICE, k=dice.randrange(12)))
    text = "".join(dice.choices(URL_SPICE, k=dice.randrange(12)))
    body: dict[str, Any] = dice.choice(
        [{}, {"data": text}, {"data": text.encode()}, {"data": {"a": text, text or "b": "c"}}, {"json": [text, 1, {}]}]
    )
    types = ["application/json", "application/x-www-form-urlencoded", "x/y", "+json", ""]
    return path, body | {"headers": {"Content-Type": dice.choice(types), "X-A": text.strip("\x7f")}}


async def is_refused_by_aiohttp(method: str, path: str, content: dict[str, Any]) -> bool:
    try:
        content = {("data" if name == "json" else name): value for name, value in content.items()}
        if isinstance(content.get("data"), list):
            content["data"] = JsonPayload(content["data"])
        async with ClientSession(cookie_jar=DummyCookieJar()) as session:
            loop = asyncio.get_running_loop()
            ClientRequest(method, URL(f"http://example.org{path}"), loop=loop, session=session, **content)
    except (TypeError, ValueError):
        return True
    return False


def has_a_key(runner: Runner, method: str, path: str, ignored: frozenset[str], content: dict[str, Any]) -> None:
    try:
        asked = runner.run(asked_for(method, URL(f"http://example.org{path}"), **content))
    except (TypeError, ValueError):
        assert runner.run(is_refused_by_aiohttp(method, path, content))
        return
    if isinstance(asked, Uncacheable):
        return
    key = key_of(asked, "", ignored)
    assert len(key) == 40
    assert key == key_of(asked, "", ignored)
    assert key != key_of(asked, "a", ignored)
    url_tag(asked.request.url, SECRET, ignored)
    assert URL(stored_url(asked.request.url, ignored)).host == "example.org"


def key_of(asked: Asked, namespace: str, ignored: frozenset[str]) -> str:
    return primary_key(
        asked, namespace=namespace, ignored_params=ignored, include_headers=True, with_range=True, secret=SECRET
    )


@given(
    st.sampled_from(METHODS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.frozensets(st.text("abc", min_size=1, max_size=2)),
    st.binary(max_size=50) | st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
)
def test_keys_of_any_request(method: str, path: str, ignored: frozenset[str], data: bytes | str) -> None:
    with Runner() as runner:
        has_a_key(runner, method, "/" + path, ignored, {"data": data})


def test_keys_of_requests_at_random() -> None:
    with Runner() as runner:
        for dice in seeds():
            path, content = some_request(dice)
            ignored = frozenset(dice.choices(["a", "b", "c", "X-A", "é"], k=dice.randrange(3)))
            has_a_key(runner, dice.choice(METHODS), path, ignored, content)


# --- records ---


def packed(value: object) -> bytes:
    content: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return content


def some_junk(dice: random.Random, depth: int = 4) -> object:
    if depth and dice.random() < 0.3:
        return [some_junk(dice, depth - 1) for _ in range(dice.randrange(5))]
    return dice.choice(
        [
            *(
                None,
                True,
                0,
                -1,
                2**64 - 1,
                -(2**63),
                1.5,
                float("nan"),
                float("inf"),
                -float("inf"),
                "",
                "a\r\n",
                "\ud800",
            ),
            *("0" * 40, b"", dice.randbytes(8), [], {}, {"a": 1}, 200, "ETag", dice.random() * 1e18),
        ]
    )


def some_record(dice: random.Random) -> bytes:
    kind = dice.randrange(4)
    match dice.randrange(5):
        case 0:
            return dice.randbytes(dice.randrange(200))
        case 1:
            return sealed("key", dice.randbytes(dice.randrange(100)), kind=kind)
        case 2:
            return sealed("key", packed(some_junk(dice)), kind=kind)
        case 3:
            metadata = bytearray(packed(facts(headers=["ETag", '"1"'], vary=[["accept", b"1" * 16]])))
            for _ in range(dice.randrange(1, 4)):
                metadata[dice.randrange(len(metadata))] = dice.randrange(256)
            return sealed("key", bytes(metadata), b"body", kind=kind)
        case _:
            content = facts()
            for _ in range(dice.randrange(1, 4)):
                content[dice.randrange(len(content))] = some_junk(dice)
            return sealed("key", packed(content), b"body", kind=dice.choice([0, 0, 1]))


def is_understood_or_refused(record: bytes) -> None:
    try:
        entry = Codec().decode("key", record)
    except UndecodableError:
        return
    assert Codec().decode("key", Codec().encode("key", entry)) == entry
    if isinstance(entry, StoredResponse):
        request = Request("GET", "http://example.org/", multidict([]))
        for http in (False, True):
            policy_for(http=http).decide(request, [entry], Rules(), NOW, secret=SECRET)


@given(st.binary(max_size=200), st.integers(0, 3), st.booleans())
def test_records_of_any_bytes(metadata: bytes, kind: int, has_checksum: bool) -> None:
    is_understood_or_refused(sealed("key", metadata, kind=kind) if has_checksum else metadata)


@given(st.randoms(use_true_random=False))
def test_records_of_any_facts(dice: random.Random) -> None:
    is_understood_or_refused(some_record(dice))


def test_records_at_random() -> None:
    for dice in seeds():
        is_understood_or_refused(some_record(dice))
