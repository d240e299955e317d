"""Any input at all: keys, fields and records either mean something or are refused, with no exception but ours."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiohttp_cache_middleware._codec import Codec, UndecodableError
from aiohttp_cache_middleware._key import primary_key, stored_url, url_tag
from aiohttp_cache_middleware._model import (
    FOREVER,
    Expiration,
    OriginResponse,
    Request,
    Rules,
    StoredResponse,
    VariantIndex,
)
from aiohttp_cache_middleware._policy import policy_for, selecting_values, selects
from aiohttp_cache_middleware._request import Asked, Uncacheable, asked_for
from aiohttp_cache_middleware._variants import place
from tests.faults.test_hostile_store import facts, sealed

SECRET = b"s" * 32
NOW = 1_700_000_000.0
PROFILES = [pytest.param(200, id="few"), pytest.param(25_000, marks=pytest.mark.slow, id="many")]
"""Inputs per test; four tests together have the 100,000 of the slow run."""


def fuzz(test: Any, inputs: int) -> None:
    """Run a test that Hypothesis feeds, with so many inputs."""
    settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(test)()


# --- what comes in ---

names = st.sampled_from(
    [
        "Cache-Control",
        "Pragma",
        "Vary",
        "ETag",
        "Last-Modified",
        "Date",
        "Expires",
        "Age",
        "Range",
        "If-None-Match",
        "If-Modified-Since",
        "If-Range",
        "Content-Range",
        "Location",
        "Content-Length",
        "Authorization",
        "Cookie",
        "Accept",
    ]
)
spice = st.sampled_from(
    [
        "max-age=",
        "no-cache",
        "no-store",
        "private",
        '="',
        '"',
        ",",
        ";",
        "=",
        "-1",
        "9" * 30,
        "W/",
        "*",
        "\t",
        " ",
        "\xff",
        "bytes=",
        "0-",
        "-5",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "\udcff",
        "\ud800",
        "q=0.5",
    ]
)
free = st.text(st.characters(exclude_characters="\r\n\0"), max_size=12)
values = st.lists(spice | free, max_size=6).map("".join)
fields = st.lists(st.tuples(names, values), max_size=8)
statuses = st.sampled_from([200, 203, 204, 206, 301, 302, 304, 404, 410, 412, 416, 500, 503, 599])
rules = st.builds(
    Rules,
    allowed_methods=st.just(frozenset({"GET", "HEAD", "POST"})),
    allowed_codes=st.none() | st.just(frozenset({200, 206})),
    override=st.none() | st.builds(Expiration, seconds=st.sampled_from([0.0, 60.0, FOREVER])),
    default=st.none() | st.builds(Expiration, seconds=st.sampled_from([0.0, 60.0, FOREVER])),
    stale_if_error=st.sampled_from([0.0, 10.0, FOREVER]),
    refresh=st.booleans(),
    only_if_cached=st.booleans(),
)
methods = st.sampled_from(["GET", "HEAD", "POST", "DELETE"])


def multidict(pairs: list[tuple[str, str]]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.mark.parametrize("inputs", PROFILES)
def test_policies_understand_any_fields(inputs: int) -> None:
    @given(st.booleans(), methods, fields, fields, statuses, rules, st.floats(-1e5, 1e9))
    def test(http: bool, method: str, asked: Any, answered: Any, status: int, in_force: Rules, later: float) -> None:
        policy = policy_for(http=http)
        request = Request(method, "http://example.org/a?b=c", multidict(asked))
        origin = OriginResponse(status, multidict(answered), NOW - 1, NOW)
        storing = policy.may_store(request, origin, in_force, NOW)
        policy.may_store_hop(request, origin, in_force, NOW)
        policy.invalidated_urls(request, origin)
        stored = StoredResponse(
            "0" * 40,
            "GET",
            "http://example.org/a?b=c",
            status,
            "",
            (1, 1),
            tuple(answered),
            NOW - 1,
            NOW,
            NOW,
            getattr(storing, "expires_time", NOW),
            b"0123456789",
            vary=selecting_values(request.headers, getattr(storing, "vary", ()), SECRET),
        )
        place(stored.key, None, stored)
        decision = policy.decide(request, [stored], in_force, NOW + later, secret=SECRET)
        assert decision.why is not None
        for _, value in getattr(decision, "headers", ()):
            value.encode()
        policy.freshen(stored, origin, in_force, NOW + later)

    fuzz(test, inputs)


@pytest.mark.parametrize("inputs", PROFILES)
def test_what_selects_is_what_was_asked(inputs: int) -> None:
    @given(fields, fields)
    def test(one: Any, other: Any) -> None:
        asked = sorted({name.lower() for name, _ in one + other})
        vary = selecting_values(multidict(one), asked, SECRET)
        assert selects(vary, multidict(one), SECRET)
        selects(vary, multidict(other), SECRET)

    fuzz(test, inputs)


# --- keys ---

url_text = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("%2F%zz+&=?;:/@#.[]\\ "), max_size=30)


@pytest.mark.parametrize("inputs", PROFILES)
def test_keys_of_any_request(inputs: int) -> None:
    contents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}) | st.fixed_dictionaries(
        {
            "data": st.binary(max_size=50)
            | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
            | st.dictionaries(st.text("abc&=%", min_size=1, max_size=4), st.text("abc&=%é", max_size=9), max_size=4),
            "headers": st.fixed_dictionaries(
                {"Content-Type": st.sampled_from(["application/json", "application/x-www-form-urlencoded", "x/y"])}
            ),
        }
    )
    loop = asyncio.new_event_loop()

    @given(st.sampled_from(["GET", "POST"]), url_text, contents, st.frozensets(st.text("abc", min_size=1, max_size=2)))
    def test(method: str, path: str, content: dict[str, Any], ignored: frozenset[str]) -> None:
        try:
            url = URL("http://example.org/") / path if "/" not in path[:1] else URL(f"http://example.org{path}")
        except ValueError:
            return  # yarl refuses it, and so does aiohttp
        try:
            asked = loop.run_until_complete(asked_for(method, url, **content))
        except (TypeError, ValueError):
            return  # aiohttp refuses it
        if isinstance(asked, Uncacheable):
            return
        key = key_of(asked, "", ignored)
        assert key == key_of(asked, "", ignored)
        assert len(key) == 40
        assert key != key_of(asked, "a", ignored)
        url_tag(asked.request.url, SECRET, ignored)
        stored_url(asked, ignored)

    def key_of(asked: Asked, namespace: str, ignored: frozenset[str]) -> str:
        return primary_key(
            asked, namespace=namespace, ignored_params=ignored, include_headers=True, with_range=True, secret=SECRET
        )

    try:
        fuzz(test, inputs)
    finally:
        loop.close()


# --- records ---

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize("inputs", PROFILES)
def test_records_of_any_content(inputs: int) -> None:
    codec = Codec()

    @given(st.data())
    def test(data: st.DataObject) -> None:
        match data.draw(st.sampled_from(["bytes", "junk", "facts", "metadata"])):
            case "bytes":
                record = data.draw(st.binary(max_size=200))
            case "metadata":
                record = sealed("key", data.draw(st.binary(max_size=100)), kind=data.draw(st.integers(0, 3)))
            case "junk":
                record = sealed("key", packed(data.draw(junk)), kind=data.draw(st.integers(0, 3)))
            case _:
                content = facts()
                for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
                    content[position] = data.draw(junk)
                record = sealed("key", packed(content), data.draw(st.binary(max_size=9)))
        try:
            entry = codec.decode("key", record)
        except UndecodableError:
            return
        assert codec.decode("key", codec.encode("key", entry)) == entry
        assert isinstance(entry, StoredResponse | VariantIndex)
        if isinstance(entry, StoredResponse):
            policy_for(http=True).decide(
                Request("GET", "http://example.org/", multidict([])), [entry], Rules(), NOW, secret=SECRET
            )

    def packed(value: object) -> bytes:
        content: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
        return content

    fuzz(test, inputs)
