"""Records: what was encoded comes back, and nothing else is believed."""

from __future__ import annotations

import math
import random
import tracemalloc
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_cache_middleware._codec import MAX_METADATA, Codec, UndecodableError, UnencodableError
from aiohttp_cache_middleware._deflate import LEAST, MOST
from aiohttp_cache_middleware._model import BodyRef, Entry, StoredResponse, Variant, VariantIndex, encoded

keys = st.text("0123456789abcdef", min_size=1, max_size=40)
# Lone surrogates too: aiohttp shows bytes that are no UTF-8 as such.
text = st.text(st.characters(exclude_characters="\r\n\0") | st.characters(categories=["Cs"]), max_size=20)
times = st.floats(-(2.0**35), 2.0**35, exclude_min=True, exclude_max=True)
fields = st.lists(st.tuples(text | st.sampled_from(["Etag", "ETag"]), text), max_size=5).map(tuple)
raw_fields = st.none() | st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5).map(tuple)
vary = st.lists(st.tuples(text, st.binary(max_size=16)), max_size=3).map(tuple)
sizes = st.integers(0, 2**40)
repeated = st.builds(lambda piece, times: piece * times, st.binary(max_size=200), st.integers(1, 3000))
bodies = repeated | st.builds(BodyRef, id=keys, size=sizes)
responses = st.builds(
    StoredResponse,
    key=st.just(""),
    method=text,
    url=text,
    status=st.integers(100, 999),
    reason=text,
    version=st.tuples(st.integers(0, 3), st.integers(0, 9)),
    headers=fields,
    request_time=times,
    response_time=times,
    created_time=times,
    expires_time=times | st.just(math.inf),
    body=bodies,
    raw_headers=raw_fields,
    request_headers=fields,
    vary=vary,
    redirects_to=st.none() | text,
    set_cookie_time=st.none() | times,
    read_bufsize=st.just(0) | st.integers(0, 2**31 - 1),
)
indexes = st.builds(
    VariantIndex, url=text, variants=st.lists(st.builds(Variant, key=keys, vary=vary), max_size=4).map(tuple)
)
entries = responses | indexes
codecs = st.builds(Codec, st.lists(st.binary(max_size=80), max_size=2), compress=st.booleans())

A_RESPONSE = StoredResponse(
    key="k",
    method="GET",
    url="http://x/",
    status=200,
    reason="OK",
    version=(1, 1),
    headers=(("A", "b"),),
    request_time=1,
    response_time=2,
    created_time=3,
    expires_time=math.inf,
    body=b"body",
    vary=(("a", b"1"),),
)


def with_key(entry: Entry, key: str) -> Entry:
    return entry.replace(key=key) if isinstance(entry, StoredResponse) else entry


@given(codecs, keys, entries)
def test_decode_undoes_encode(codec: Codec, key: str, entry: Entry) -> None:
    entry = with_key(entry, key)
    # Fields that came as they are shown are written once.
    if isinstance(entry, StoredResponse) and entry.raw_headers == encoded(entry.headers):
        entry = entry.replace(raw_headers=None)
    assert codec.decode(key, codec.encode(key, entry)) == entry


@pytest.mark.parametrize(
    ("shown", "raw", "written"),
    [
        pytest.param((("A", "b"),), ((b"A", b"b"),), None, id="as shown"),
        pytest.param((("ETag", "b"),), ((b"etag", b"b"),), ((b"etag", b"b"),), id="another case"),
        pytest.param((("A", "\udcff"),), ((b"A", b"\xff"),), None, id="not UTF-8"),
        pytest.param(
            (("A", "b"), ("Etag", "c")), ((b"A", b"b"), (b"ETag", b"c")), None, id="ETag, as aiohttp shows it"
        ),
        pytest.param((("Etag", "c"),), ((b"Etag", b"c"),), ((b"Etag", b"c"),), id="sent as aiohttp shows it"),
        pytest.param((("A", "Etag"),), ((b"A", b"ETag"),), ((b"A", b"ETag"),), id="a value of that name"),
        pytest.param((("A", "Etag"),), ((b"A", b"Etag"),), None, id="a value that is no name"),
    ],
)
def test_fields_are_written_twice_only_where_they_came_otherwise(shown: Any, raw: Any, written: Any) -> None:
    record = Codec().encode("k", A_RESPONSE.replace(headers=shown, raw_headers=raw))
    decoded = Codec().decode("k", record)
    assert isinstance(decoded, StoredResponse)
    assert decoded.raw_headers == written


@given(keys, entries, st.data())
def test_no_changed_byte_goes_unnoticed(key: str, entry: Entry, data: st.DataObject) -> None:
    codec = Codec()
    record = bytearray(codec.encode(key, entry))
    position = data.draw(st.integers(0, len(record) - 1))
    record[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UndecodableError):
        codec.decode(key, bytes(record))


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(A_RESPONSE, id="a response"),
        pytest.param(A_RESPONSE.replace(body=BodyRef("0" * 32, 7)), id="a response with a body file"),
        pytest.param(A_RESPONSE.replace(body=b"a" * LEAST), id="a compressed response"),
        pytest.param(VariantIndex("http://x/", (Variant("k", ()),)), id="an index"),
        pytest.param(VariantIndex("http://x/", ()), id="an empty index"),
    ],
)
def test_no_flipped_bit_goes_unnoticed(entry: Entry) -> None:
    """Nor one of the header, which would make another kind of it: a body file's response one without body."""
    codec = Codec(compress=True)
    record = codec.encode("k", entry)
    for bit in range(8 * len(record)):
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UndecodableError):
            codec.decode("k", bytes(changed))


@given(keys, keys, entries)
def test_a_record_answers_its_own_key_only(key: str, other: str, entry: Entry) -> None:
    record = Codec().encode(key, entry)
    if key != other:
        with pytest.raises(UndecodableError):
            Codec().decode(other, record)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_undecodable(record: bytes) -> None:
    for candidate in (record, b"\1" + record, b"\1\0" + record):
        with pytest.raises(UndecodableError):
            Codec().decode("key", candidate)


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=30,
)


def sealed(metadata: bytes, kind: int = 0, body: bytes = b"") -> bytes:
    """Give a record with a right checksum over any metadata, as only somebody with the keys could make."""
    from aiohttp_cache_middleware import _codec

    header = _codec._HEADER.pack(_codec.FORMAT, kind, len(metadata), len(body))
    return header + _codec._digest(Codec()._hashers[0], "key", header, metadata, body) + metadata + body


@settings(max_examples=300)
@given(junk, st.integers(0, 255))
def test_metadata_of_the_wrong_shape_is_undecodable(facts: object, kind: int) -> None:
    try:
        packed = msgpack.packb(facts)
    except OverflowError:
        return
    with pytest.raises(UndecodableError):
        Codec().decode("key", sealed(packed, kind))


def facts_of(response: StoredResponse) -> list[Any]:
    from aiohttp_cache_middleware import _codec

    return list(_codec._facts_of_response(response, compress=False)[1])


@settings(max_examples=300)
@given(st.integers(0, 15), junk)
def test_a_single_wrong_fact_is_undecodable_or_of_the_right_type(position: int, value: object) -> None:
    facts = facts_of(A_RESPONSE)
    facts[position] = value
    try:
        entry = Codec().decode("key", sealed(msgpack.packb(facts)))
    except (UndecodableError, OverflowError):
        return
    assert isinstance(entry, StoredResponse)
    assert Codec().decode("key", Codec().encode("key", entry)) == entry or math.isnan(
        entry.request_time + entry.response_time + entry.created_time + entry.expires_time
    )


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param(b"\x91" * 200_000, id="deep nesting"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array of 4 G"),
        pytest.param(b"\xdd\x01\x00\x00\x00", id="array of 16 M"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of 4 G"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="string of 4 GB"),
        pytest.param(b"\xc9\xff\xff\xff\xff\x01", id="extension of 4 GB"),
        pytest.param(b"\xd6\xff\x00\x00\x00\x00", id="timestamp"),
        pytest.param(b"\xc1", id="reserved"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xdc\xff\xff" + b"\x80" * 65_535, id="many empty maps"),
    ],
)
def test_hostile_msgpack_is_refused_and_takes_no_memory(metadata: bytes) -> None:
    for kind in range(4):
        record = sealed(metadata, kind)
        tracemalloc.start()
        try:
            with pytest.raises(UndecodableError):
                Codec().decode("key", record)
            assert tracemalloc.get_traced_memory()[1] < 2**21
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("position", [6, 8])
def test_fields_that_would_be_sent_as_several_are_neither_written_nor_read(position: int) -> None:
    name = {6: "headers", 8: "request_headers"}[position]
    facts = facts_of(A_RESPONSE)
    for value in ("a\r\nSet-Cookie: b", "a\nb", "a\0"):
        with pytest.raises(UnencodableError):
            Codec().encode("key", A_RESPONSE.replace(**{name: (("A", value),)}))
        facts[position] = ("A", value)
        with pytest.raises(UndecodableError):
            Codec().decode("key", sealed(msgpack.packb(facts)))


def test_metadata_is_bounded() -> None:
    huge = A_RESPONSE.replace(headers=(("A", "b" * MAX_METADATA),))
    with pytest.raises(UnencodableError):
        Codec().encode("key", huge)
    facts = facts_of(A_RESPONSE.replace(headers=(("A", "b" * 8),) * (MAX_METADATA // 10)))
    with pytest.raises(UndecodableError):
        Codec().decode("key", sealed(msgpack.packb(facts)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", 99),
        ("status", 1000),
        *(
            (name, value)
            for name in ("request_time", "response_time", "created_time")
            for value in (math.nan, math.inf)
        ),
        *((name, -(2.0**35)) for name in ("request_time", "response_time", "created_time")),
        ("expires_time", math.nan),
        ("expires_time", -math.inf),
    ],
)
def test_facts_that_can_not_be_are_undecodable(name: str, value: float) -> None:
    record = Codec().encode("key", A_RESPONSE.replace(**{name: value}))
    with pytest.raises(UndecodableError):
        Codec().decode("key", record)


def test_a_newer_format_is_undecodable() -> None:
    record = Codec().encode("key", A_RESPONSE)
    with pytest.raises(UndecodableError):
        Codec().decode("key", b"\2" + record[1:])


def test_records_are_read_with_any_of_the_keys_and_written_with_the_first() -> None:
    old, new, both = Codec([b"old"]), Codec([b"new"]), Codec([b"new", b"old"])
    response = A_RESPONSE.replace(key="key")
    assert both.decode("key", old.encode("key", response)) == response
    assert new.decode("key", both.encode("key", response)) == response
    for codec, other in ((old, new), (Codec(), new), (new, Codec())):
        with pytest.raises(UndecodableError):
            other.decode("key", codec.encode("key", response))


def noise(size: int) -> bytes:
    return random.Random(0).randbytes(size)


@pytest.mark.parametrize(
    ("body", "gets_smaller"),
    [
        pytest.param(b"a" * LEAST, True, id="the least"),
        pytest.param(b"a" * (LEAST - 1), False, id="less"),
        pytest.param(b"a" * MOST, True, id="the most"),
        pytest.param(b"a" * (MOST + 1), False, id="more"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(noise(1000), False, id="short noise"),
        pytest.param(noise(100_000), False, id="long noise"),
        pytest.param(noise(8000) + b"a" * 100_000, False, id="noise at its beginning"),
        pytest.param(noise(1000) + b"a" * 100, False, id="hardly smaller"),
    ],
)
def test_bodies_are_compressed_where_that_is_wanted_and_pays(body: bytes, gets_smaller: bool) -> None:
    plain, compressing = Codec(), Codec(compress=True)
    response = A_RESPONSE.replace(body=body)
    as_it_is, record = plain.encode("k", response), compressing.encode("k", response)
    assert (len(record) < 0.9 * len(as_it_is)) is gets_smaller
    # Whoever reads need not have written.
    assert plain.decode("k", record) == compressing.decode("k", as_it_is) == response


@pytest.mark.parametrize(
    ("body", "size"),
    [
        pytest.param(zlib.compress(b"a" * 1000), 999, id="more than said"),
        pytest.param(zlib.compress(b"a" * 1000), 1001, id="less than said"),
        pytest.param(zlib.compress(b"a" * 1000)[:-6], 1000, id="cut off"),
        pytest.param(zlib.compress(b"a" * 1000) + b"b", 1000, id="something after it"),
        pytest.param(b"a" * 1000, 1000, id="not compressed"),
        pytest.param(b"", 1000, id="nothing"),
        pytest.param(zlib.compress(b"a" * (MOST + 1)), MOST + 1, id="too much"),
        pytest.param(zlib.compress(b"a"), 1, id="too little"),
        pytest.param(zlib.compress(b"a" * 1000), -1, id="a negative size"),
    ],
)
def test_a_compressed_body_is_what_was_said_or_undecodable(body: bytes, size: int) -> None:
    facts = facts_of(A_RESPONSE)
    facts[-1] = ("", size)
    with pytest.raises(UndecodableError):
        Codec().decode("key", sealed(msgpack.packb(facts), 3, body))


def test_a_body_that_would_inflate_to_gigabytes_takes_no_memory() -> None:
    layer = zlib.compress(bytes(64 * 1024 * 1024), 9)
    facts = facts_of(A_RESPONSE)
    facts[-1] = ("", MOST)
    record = sealed(msgpack.packb(facts), 3, layer)
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableError):
            Codec().decode("key", record)
        assert tracemalloc.get_traced_memory()[1] < 4 * MOST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("set_cookie_time", "read_bufsize"), [(None, 0), (1.5, 0), (None, 2**20), (1.5, 2**31 - 1)])
def test_rare_facts_come_back_and_others_have_no_place_in_a_record(
    set_cookie_time: float | None, read_bufsize: int
) -> None:
    entry = A_RESPONSE.replace(set_cookie_time=set_cookie_time, read_bufsize=read_bufsize)
    assert Codec().decode("k", Codec().encode("k", entry)) == entry
    assert len(facts_of(entry)) == (18 if set_cookie_time or read_bufsize else 16)


@pytest.mark.parametrize(
    "rare", [(1e300, 0), (float("nan"), 0), (None, -1), (None, 2**31), (1.5,), (1.5, 0, 0), (None, None), ("", 0)]
)
def test_rare_facts_that_can_not_be_are_undecodable(rare: tuple[object, ...]) -> None:
    with pytest.raises(UndecodableError):
        Codec().decode("key", sealed(msgpack.packb([*facts_of(A_RESPONSE), *rare])))
