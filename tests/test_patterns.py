"""`urls_expire_after`: which URLs a pattern means."""

from __future__ import annotations

import doctest
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_cache_middleware import _options
from aiohttp_cache_middleware._model import Expiration
from aiohttp_cache_middleware._options import CacheSettings, Settings, UrlPatterns

MINUTE = Expiration(60.0)


def matches(pattern: str | re.Pattern[str], url: str) -> bool:
    return UrlPatterns({pattern: 60}).match(str(URL(url))) is not None


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        pytest.param("site.com", "http://site.com/", id="host alone"),
        pytest.param("site.com", "https://site.com/any/where?q=1", id="anything below a host"),
        pytest.param("site.com/resource/", "http://site.com/resource/", id="implied ** is empty"),
        pytest.param("site.com/resource/", "https://site.com/resource/a/b?q=1", id="implied **"),
        pytest.param("site.com/resource", "http://site.com/resources", id="implied ** ends no word"),
        pytest.param("site.com/*/end", "http://site.com/a/b/end", id="* crosses /"),
        pytest.param("site.com/**/end", "http://site.com/a/b/end", id="** crosses /"),
        pytest.param("site.com/page?", "http://site.com/page1", id="? is one character"),
        pytest.param("*.site.com", "http://a.b.site.com/x", id="* in the host"),
        pytest.param("*", "http://site.com:8080/x", id="everything"),
        pytest.param("*/api/", "http://site.com:8080/api/x", id="any host"),
        pytest.param("SITE.com/", "http://site.COM/x", id="host in any case"),
        pytest.param("site.com:8080/", "http://site.com:8080/x", id="port"),
        pytest.param("site.com:*", "http://site.com:8080/x", id="any port"),
        pytest.param("site.com:*", "http://site.com/x", id="any port, also the default one"),
        pytest.param("site.com:80", "http://site.com/x", id="default port, spelt out"),
        pytest.param("site.com", "http://site.com:80/x", id="default port in the URL"),
        pytest.param("site.com", "https://site.com:443/x", id="default port of https"),
        pytest.param("https://site.com/", "https://site.com/x", id="scheme"),
        pytest.param("HTTPS://site.com/", "https://site.com/x", id="scheme in any case"),
        pytest.param("http*://site.com/", "https://site.com/x", id="glob over the scheme"),
        pytest.param("*://site.com/", "http://site.com/x", id="any scheme"),
        pytest.param("site.com/search?q=", "http://site.com/search?q=1", id="query"),
        pytest.param("site.com/search?q=a b", "http://site.com/search?q=a%20b", id="a blank in the query"),
        pytest.param("site.com/search?q=a b", "http://site.com/search?q=a+b", id="a blank that is a plus"),
        pytest.param("site.com/search?q=a+b", "http://site.com/search?q=a%20b", id="a plus that is a blank"),
        pytest.param("site.com/?to=http://x", "http://site.com/?to=http://x/y", id="a scheme in the query is none"),
        pytest.param("site.com/?f[a]=1", "http://site.com/?f[a]=1&x", id="brackets are themselves"),
        pytest.param("[::1]:8080/x", "http://[::1]:8080/x", id="IPv6"),
        pytest.param("[::1]", "http://[::1]/x", id="IPv6 with the default port"),
        pytest.param("bücher.de", "http://bücher.de/x", id="host in its own letters"),
        pytest.param("xn--bcher-kva.de", "http://bücher.de/x", id="host in ASCII"),
        pytest.param("site.com/bücher/", "http://site.com/bücher/x", id="path in its own letters"),
        pytest.param("site.com/b%C3%BCcher/", "http://site.com/bücher/x", id="path percent-encoded"),
        pytest.param(re.compile(r"\.jpg$"), "http://site.com/a.jpg", id="regular expression, searched"),
        pytest.param(re.compile(r"^https://site"), "https://site.com/", id="regular expression, whole URL"),
    ],
)
def test_pattern_matches(pattern: str | re.Pattern[str], url: str) -> None:
    assert matches(pattern, url)


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        pytest.param("site.com", "http://site.com.evil.org/", id="a longer host"),
        pytest.param("site.com", "http://www.site.com/", id="a host below"),
        pytest.param("site.com", "http://site.com:8080/", id="another port"),
        pytest.param("site.com:8080", "http://site.com/", id="a port that is not there"),
        pytest.param("site.com:443", "http://site.com/", id="another scheme's default port"),
        pytest.param("*.site.com", "http://evil.org/?q=a.site.com", id="a host in the query"),
        pytest.param("*.site.com", "http://evil.org/a.site.com", id="a host in the path"),
        pytest.param("*.site.com", "http://a.site.com@evil.org/", id="a host in the user-info"),
        pytest.param("*.site.com", "http://site.com/", id="no host below"),
        pytest.param("site.com/a", "http://site.com/A", id="a path in another case"),
        pytest.param("site.com/a/", "http://site.com/b/a/", id="a path is matched from its start"),
        pytest.param("https://site.com", "http://site.com/", id="another scheme"),
        pytest.param("site.com/page?", "http://site.com/page", id="? is not nothing"),
        pytest.param("site.com/[ab]", "http://site.com/a", id="brackets are no class"),
        pytest.param(re.compile("^site"), "http://site.com/", id="regular expression"),
    ],
)
def test_pattern_does_not_match(pattern: str | re.Pattern[str], url: str) -> None:
    assert not matches(pattern, url)


def test_the_first_match_wins() -> None:
    in_order: dict[str | re.Pattern[str], int] = {"site.com/a/": 60, "site.com": 5, re.compile(""): 1}
    patterns = UrlPatterns(in_order)
    assert patterns.match("http://site.com/a/b") == MINUTE
    assert patterns.match("http://site.com/b") == Expiration(5.0)
    assert patterns.match("http://other.com/") == Expiration(1.0)


def test_none_is_a_match_that_states_nothing() -> None:
    patterns = UrlPatterns({"site.com/a/": None, "site.com": 5})
    assert patterns.match("http://site.com/a/b") is None


def test_params_and_a_query_in_the_url_are_the_same() -> None:
    patterns = UrlPatterns({"site.com/?q=1": 60})
    assert patterns.match(str(URL("http://site.com/").extend_query({"q": "1"}))) == MINUTE


def test_keys_of_both_kinds_and_of_one_type_check() -> None:
    # Run by mypy as much as by pytest: a mapping's key type is invariant.
    regular = {re.compile(r"\.png$"): 60}
    globs = {"site.com": 60}
    for options in (
        CacheSettings(urls_expire_after=regular),
        CacheSettings(urls_expire_after=globs),
        CacheSettings(urls_expire_after={re.compile(r"\.png$"): 60, "site.com": -1}),
    ):
        assert Settings.from_options(**options).url_patterns.match("http://site.com/a.png") == MINUTE


def test_no_patterns_match_nothing() -> None:
    assert not UrlPatterns({})
    assert UrlPatterns({}).match("http://site.com/") is None


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        pytest.param(7, TypeError, id="int"),
        pytest.param(b"site.com", TypeError, id="bytes"),
        pytest.param(re.compile(b"site"), TypeError, id="regular expression over bytes"),
        pytest.param("", ValueError, id="empty"),
        pytest.param("/path", ValueError, id="no host"),
        pytest.param("https://", ValueError, id="scheme alone"),
    ],
)
def test_a_pattern_that_is_none(pattern: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="urls_expire_after") as caught:
        UrlPatterns({pattern: 60})
    assert repr(pattern) in str(caught.value)


def test_a_wrong_expiration_names_its_pattern() -> None:
    with pytest.raises(ValueError, match=r"urls_expire_after\['site\.com'\].*-7"):
        UrlPatterns({"site.com": -7})


def test_what_is_no_url_matches_no_glob() -> None:
    assert UrlPatterns({"*": 60}).match("no url") is None


def test_the_docstrings_example() -> None:
    assert doctest.testmod(_options) == (0, 3)


def test_matching_takes_linear_time() -> None:
    # By backtracking this would take longer than the universe has existed.
    assert not matches("site.com/" + "*a" * 30 + "b", "http://site.com/" + "a" * 5000)


@given(st.text(max_size=30), st.text(max_size=30))
def test_matching_never_raises(pattern: str, url: str) -> None:
    try:
        patterns = UrlPatterns({pattern: 60})
    except ValueError:
        return
    patterns.match(url)
    patterns.match(f"http://site.com/{url}")
    patterns.match(f"http://xn--{url}/")
