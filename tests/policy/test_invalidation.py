"""What an unsafe method makes invalid (RFC 9111 §4.4)."""

from __future__ import annotations

import pytest

from aiohttp_cache_middleware._policy._invalidation import invalidated_urls
from tests.policy.making import Fields, a_request, an_answer

TARGET = "http://origin.test/a/b?x=1"


@pytest.mark.parametrize(
    ("method", "status", "invalidates"),
    [
        *[pytest.param(method, 200, True, id=f"§4.4 {method}") for method in ("POST", "PUT", "DELETE", "PATCH")],
        pytest.param("M-SEARCH", 200, True, id="§4.4 a method of unknown safety"),
        *[
            pytest.param(method, 200, False, id=f"9110 §9.2.1 {method}")
            for method in ("GET", "HEAD", "OPTIONS", "TRACE")
        ],
        pytest.param("POST", 303, True, id="§4.4 a redirect is no error"),
        pytest.param("POST", 404, False, id="§4.4 client error"),
        pytest.param("POST", 500, False, id="§4.4 server error"),
    ],
)
def test_target(method: str, status: int, invalidates: bool) -> None:
    urls = invalidated_urls(a_request(method=method, url=TARGET), an_answer({}, status))
    assert urls == ((TARGET,) if invalidates else ())


@pytest.mark.parametrize(
    ("fields", "others"),
    [
        pytest.param({"Location": "/c"}, ["http://origin.test/c"], id="§4.4 Location"),
        pytest.param({"Content-Location": "c?y=2"}, ["http://origin.test/a/c?y=2"], id="§4.4 Content-Location"),
        pytest.param({"Location": "HTTP://ORIGIN.test:80/c#f"}, ["http://origin.test/c"], id="§4.4 normalised"),
        pytest.param({"Location": "http://u:p@origin.test/c"}, ["http://origin.test/c"], id="§4.4 without user-info"),
        pytest.param({"Location": "http://origin.test"}, ["http://origin.test/"], id="9110 §4.2.3 no path"),
        pytest.param({"Location": ""}, [], id="§4.4 the target itself"),
        pytest.param({"Location": "https://origin.test/c"}, [], id="§4.4 another scheme"),
        pytest.param({"Location": "http://origin.test:8080/c"}, [], id="§4.4 another port"),
        pytest.param({"Location": "//other.test/c"}, [], id="§4.4 another host"),
        pytest.param({"Location": "http://[broken/"}, [], id="§4.4 no URL"),
        pytest.param({"Location": "mailto:a@b"}, [], id="§4.4 no origin"),
        pytest.param(
            {"Location": "/c", "Content-Location": "/d"},
            ["http://origin.test/c", "http://origin.test/d"],
            id="§4.4 both",
        ),
    ],
)
def test_named_by_the_answer(fields: Fields, others: list[str]) -> None:
    urls = invalidated_urls(a_request(method="POST", url=TARGET), an_answer(fields))
    assert urls == (TARGET, *others)
