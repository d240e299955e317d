"""What each option accepts, what it means, and how it says that a value is wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import http
import math
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_cache_middleware._model import FOREVER, Expiration, Rules
from aiohttp_cache_middleware._options import (
    OPTION_NAMES,
    CacheOptions,
    Settings,
    active_block,
    in_force,
    merged,
    parse_expire_after,
    unknown_option,
)

URL = "http://site.com/"
MOMENT = datetime(1994, 11, 6, 8, 49, 37, tzinfo=timezone.utc)
MINUTE = Expiration(60.0)


# --- expire_after ---


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        pytest.param(None, None, id="None is not said"),
        pytest.param(-1, Expiration(FOREVER), id="-1 is for ever"),
        pytest.param(-1.0, Expiration(FOREVER), id="-1.0 is for ever"),
        pytest.param(math.inf, Expiration(FOREVER), id="inf is for ever"),
        pytest.param(60, MINUTE, id="int seconds"),
        pytest.param(0.5, Expiration(0.5), id="float seconds"),
        pytest.param(timedelta(minutes=1), MINUTE, id="timedelta"),
        pytest.param(MOMENT, Expiration(moment=784111777.0), id="aware datetime"),
        pytest.param(MOMENT.replace(tzinfo=None), Expiration(moment=784111777.0), id="naive datetime is UTC"),
        pytest.param(
            MOMENT.astimezone(timezone(timedelta(hours=5))), Expiration(moment=784111777.0), id="datetime in a zone"
        ),
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", Expiration(moment=784111777.0), id="IMF-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", Expiration(moment=784111777.0), id="RFC 850 date"),
        pytest.param("Sun Nov  6 08:49:37 1994", Expiration(moment=784111777.0), id="asctime date"),
    ],
)
def test_expire_after(value: object, meaning: Expiration | None) -> None:
    assert parse_expire_after("expire_after", value) == meaning


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, timedelta(0)])
def test_every_zero_forbids_caching(zero: object) -> None:
    expiration = parse_expire_after("expire_after", zero)
    assert expiration is not None
    assert expiration.forbids_caching


@pytest.mark.parametrize(
    "nonsense",
    [-2, -0.5, math.nan, -math.inf, True, False, timedelta(seconds=-1), 10**400, "", "60", "tomorrow", "2030-01-01"],
    ids=repr,
)
@pytest.mark.parametrize("option", ["expire_after", "my_name"])
def test_nonsense_is_a_value_error_that_names_option_and_value(nonsense: object, option: str) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        parse_expire_after(option, nonsense)
    assert repr(nonsense) in str(caught.value)


@pytest.mark.parametrize("value", [[], {}, b"60", object()], ids=repr)
def test_another_type_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="expire_after"):
        parse_expire_after("expire_after", value)


@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.timedeltas(), st.datetimes(), st.none()))
def test_a_value_of_a_known_type_is_understood_or_a_value_error(value: object) -> None:
    try:
        expiration = parse_expire_after("expire_after", value)
    except ValueError:
        return
    assert expiration is None or expiration.moment is not None or expiration.seconds >= 0


# --- the options of a cache ---


def test_defaults() -> None:
    settings = Settings.from_options()
    assert settings.expire_after is None
    assert not settings.url_patterns
    assert settings.allowed_methods == {"GET", "HEAD"}
    assert settings.allowed_codes is None
    assert settings.ignored_params == frozenset()
    assert settings.include_headers is False
    assert settings.stale_if_error == 0
    assert settings.max_size == 1024**3
    assert settings.max_body_size is None
    assert settings.secret_keys == ()
    assert settings.namespace == ""
    assert settings.filter_fn is None
    assert not settings.restore_cookies
    assert not settings.cache_control
    assert not settings.compress


def keep_all(_: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("option", "value", "attribute", "meaning"),
    [
        ("expire_after", 60, "expire_after", MINUTE),
        ("allowed_methods", ["get", "Post"], "allowed_methods", {"GET", "POST"}),
        ("allowed_codes", (200, http.HTTPStatus.NOT_FOUND), "allowed_codes", {200, 404}),
        ("allowed_codes", None, "allowed_codes", None),
        ("ignored_params", ["Token"], "ignored_params", {"Token"}),
        ("ignored_parameters", {"token"}, "ignored_params", {"token"}),
        ("ignored_params", None, "ignored_params", frozenset()),
        ("include_headers", True, "include_headers", True),
        ("include_headers", ["Accept"], "include_headers", {"accept"}),
        ("restore_cookies", True, "restore_cookies", True),
        ("filter_fn", keep_all, "filter_fn", keep_all),
        ("filter_fn", None, "filter_fn", None),
        ("cache_control", True, "cache_control", True),
        ("stale_if_error", False, "stale_if_error", 0.0),
        ("stale_if_error", True, "stale_if_error", math.inf),
        ("stale_if_error", 60, "stale_if_error", 60.0),
        ("stale_if_error", timedelta(hours=1), "stale_if_error", 3600.0),
        ("max_size", 10_000, "max_size", 10_000),
        ("max_size", None, "max_size", None),
        ("max_body_size", 10, "max_body_size", 10),
        ("compress", True, "compress", True),
        ("secret_key", "geheim", "secret_keys", (b"geheim",)),
        ("secret_key", b"geheim", "secret_keys", (b"geheim",)),
        ("secret_key", ["new", b"old"], "secret_keys", (b"new", b"old")),
        ("secret_key", None, "secret_keys", ()),
        ("namespace", "alice", "namespace", "alice"),
    ],
)
def test_option(option: str, value: object, attribute: str, meaning: object) -> None:
    assert getattr(settings_of({option: value}), attribute) == meaning


def settings_of(options: dict[str, Any]) -> Settings:
    return Settings.from_options(**options)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("expire_after", -2, ValueError),
        ("urls_expire_after", {"site.com": -2}, ValueError),
        ("urls_expire_after", ["site.com"], TypeError),
        ("urls_expire_after", {7: 60}, TypeError),
        ("allowed_methods", (), ValueError),
        ("allowed_methods", ("",), ValueError),
        ("allowed_methods", ("GET /",), ValueError),
        ("allowed_methods", "GET", TypeError),
        ("allowed_methods", (1,), TypeError),
        ("allowed_methods", (["GET"],), TypeError),
        ("allowed_codes", (), ValueError),
        ("allowed_codes", (99,), ValueError),
        ("allowed_codes", (True,), TypeError),
        ("allowed_codes", ("200",), TypeError),
        ("allowed_codes", 200, TypeError),
        ("ignored_params", "token", TypeError),
        ("ignored_params", 1, TypeError),
        ("ignored_params", (["token"],), TypeError),
        ("include_headers", "Accept", TypeError),
        ("include_headers", 1, TypeError),
        ("include_headers", (["Accept"],), TypeError),
        ("restore_cookies", 1, TypeError),
        ("filter_fn", "yes", TypeError),
        ("cache_control", "no", TypeError),
        ("stale_if_error", -1, ValueError),
        ("stale_if_error", math.nan, ValueError),
        ("stale_if_error", "1h", TypeError),
        ("stale_if_error", None, TypeError),
        ("max_size", 0, ValueError),
        ("max_size", -1, ValueError),
        ("max_size", 1e9, TypeError),
        ("max_size", True, TypeError),
        ("max_body_size", "1 MB", TypeError),
        ("compress", "zstd", TypeError),
        ("namespace", None, TypeError),
        ("namespace", b"alice", TypeError),
    ],
)
def test_a_wrong_value_is_an_error_that_names_option_and_value(
    option: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=option) as caught:
        settings_of({option: value})
    culprit = next(iter(value.values())) if isinstance(value, dict) and 7 not in value else value
    assert repr(culprit) in str(caught.value) or "7" in str(caught.value)


@pytest.mark.parametrize("value", [b"", "", [], ["good", ""], "\ud800"], ids=repr)
def test_an_empty_or_unencodable_secret_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="secret_key"):
        settings_of({"secret_key": value})


def test_a_secret_is_never_shown() -> None:
    assert "geheim" not in repr(Settings.from_options(secret_key="geheim"))
    with pytest.raises(TypeError, match="secret_key") as caught:
        settings_of({"secret_key": ["geheim", 7]})
    assert "geheim" not in str(caught.value)


def test_an_unknown_option_names_the_one_that_was_meant() -> None:
    with pytest.raises(TypeError, match=r"'expire_afer'; did you mean 'expire_after'\?"):
        settings_of({"expire_afer": 60})


def test_an_option_may_not_be_given_under_both_its_names() -> None:
    with pytest.raises(TypeError, match="given twice"):
        Settings.from_options(ignored_params=["a"], ignored_parameters=["b"])


def test_a_name_nothing_is_known_near() -> None:
    assert str(unknown_option("x", ())) == "unexpected option 'x'"


def test_option_names_are_those_that_are_typed() -> None:
    from aiohttp_cache_middleware._options import CacheSettings

    assert frozenset(CacheSettings.__annotations__) == OPTION_NAMES


# --- the options of one request ---


def test_what_is_not_said_is_none() -> None:
    said = CacheOptions()
    assert (said.expire_after, said.refresh, said.only_if_cached, said.disabled) == (None,) * 4
    assert (said.namespace, said.stale_if_error, said.trace_request_ctx) == (None,) * 3


def test_what_is_said_is_checked_at_once() -> None:
    said = CacheOptions(expire_after=60, refresh=True, stale_if_error=True, namespace="alice")
    assert (said.expire_after, said.refresh, said.stale_if_error, said.namespace) == (MINUTE, True, math.inf, "alice")


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("expire_after", -2, ValueError),
        ("expire_after", True, ValueError),
        ("refresh", "yes", TypeError),
        ("only_if_cached", 1, TypeError),
        ("disabled", 0, TypeError),
        ("namespace", 1, TypeError),
        ("stale_if_error", -1, ValueError),
    ],
)
def test_a_wrong_value_for_a_request(option: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{option}.*{re.escape(repr(value))}"):
        CacheOptions(**{option: value})


def test_options_cannot_be_changed() -> None:
    said = CacheOptions(refresh=True)
    with pytest.raises(AttributeError):
        said.refresh = False  # type: ignore[misc]


def test_options_of_other_trace_contexts_are_equal() -> None:
    assert CacheOptions(refresh=True, trace_request_ctx={}) == CacheOptions(refresh=True)


def test_merging_prefers_what_the_inner_says() -> None:
    inner, outer = CacheOptions(expire_after=60, refresh=False), CacheOptions(refresh=True, namespace="alice")
    assert merged(inner, outer) == CacheOptions(expire_after=60, refresh=False, namespace="alice")
    assert merged(inner, None) is inner
    assert merged(None, outer) is outer
    assert merged(None, None) is None


# --- blocks ---


def test_a_block_is_in_force_inside_and_nowhere_else() -> None:
    options = CacheOptions(refresh=True)
    with options as entered:
        assert entered is options
        assert active_block() == options
    assert active_block() is None


def test_an_inner_block_adds_to_the_outer_one() -> None:
    with CacheOptions(expire_after=60, namespace="alice"):
        with CacheOptions(namespace="bob"):
            assert active_block() == CacheOptions(expire_after=60, namespace="bob")
        assert active_block() == CacheOptions(expire_after=60, namespace="alice")


def test_a_block_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), CacheOptions(refresh=True):
        raise KeyError
    assert active_block() is None


def test_the_same_options_may_be_entered_twice() -> None:
    options = CacheOptions(refresh=True)
    with options:
        with options:
            assert active_block() == options
        assert active_block() == options
    assert active_block() is None


async def test_a_block_counts_in_its_own_task_and_in_those_started_inside() -> None:
    options = CacheOptions(refresh=True)
    entered, done = asyncio.Event(), asyncio.Event()

    async def stay_inside() -> None:
        async with options:
            entered.set()
            await done.wait()

    async def look() -> CacheOptions | None:
        return active_block()

    inside = [asyncio.create_task(stay_inside()) for _ in range(3)]
    await entered.wait()
    assert active_block() is None
    async with options:
        child = asyncio.create_task(look())
    done.set()
    await asyncio.gather(*inside)
    assert await child == options


def test_leaving_a_block_where_none_is_entered_does_nothing() -> None:
    CacheOptions().__exit__(None, None, None)  # as when a generator is closed in another context
    assert active_block() is None


# --- what is in force ---


@pytest.mark.parametrize(
    ("options", "said", "override", "default"),
    [
        pytest.param({}, None, None, None, id="nothing is said"),
        pytest.param({"expire_after": 60}, None, None, MINUTE, id="expire_after"),
        pytest.param(
            {"expire_after": 60, "urls_expire_after": {"site.com": 5}}, None, None, Expiration(5.0), id="by URL first"
        ),
        pytest.param(
            {"expire_after": 60, "urls_expire_after": {"site.com": None}}, None, None, MINUTE, id="None falls through"
        ),
        pytest.param(
            {"expire_after": 60, "urls_expire_after": {"other.com": 5}}, None, None, MINUTE, id="no match falls through"
        ),
        pytest.param(
            {"urls_expire_after": {"site.com": 5}},
            CacheOptions(expire_after=60),
            MINUTE,
            Expiration(5.0),
            id="by request first",
        ),
    ],
)
def test_precedence(
    options: dict[str, Any], said: CacheOptions | None, override: Expiration | None, default: Expiration | None
) -> None:
    rules = in_force(settings_of(options), URL, said)
    assert (rules.override, rules.default) == (override, default)


def test_rules_carry_the_settings() -> None:
    settings = Settings.from_options(allowed_methods=["POST"], allowed_codes=[404], stale_if_error=5)
    assert in_force(settings, URL, None) == Rules(
        allowed_methods=frozenset({"POST"}), allowed_codes=frozenset({404}), stale_if_error=5
    )


def test_rules_carry_what_the_request_says() -> None:
    settings = Settings.from_options(stale_if_error=5)
    said = CacheOptions(refresh=True, only_if_cached=True)
    assert in_force(settings, URL, said) == Rules(stale_if_error=5, refresh=True, only_if_cached=True)
    assert in_force(settings, URL, CacheOptions(stale_if_error=False)).stale_if_error == 0


def test_rules_are_made_once_where_nothing_is_said() -> None:
    for options in ({}, {"urls_expire_after": {"site.com": 5}}):
        settings = settings_of(options)
        assert in_force(settings, URL, None) is in_force(settings, URL, None)


def test_options_of_a_request_may_be_replaced() -> None:
    options = dataclasses.replace(CacheOptions(expire_after=60, stale_if_error=5), refresh=True)
    assert options == CacheOptions(expire_after=60, stale_if_error=5, refresh=True)
