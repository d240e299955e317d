"""Entries and a clock; without pytest, as other processes start with this."""

from __future__ import annotations

from aiohttp_cache_middleware._model import StoredResponse

T0 = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def key_of(number: int) -> str:
    return f"{number:040x}"


def a_response(number: int = 1, **changes: object) -> StoredResponse:
    response = StoredResponse(
        key=key_of(number),
        method="GET",
        url=f"http://example.org/{number}",
        status=200,
        reason="OK",
        version=(1, 1),
        headers=(("Content-Type", "text/plain"), ("ETag", f'"{number}"')),
        request_time=T0 - 1,
        response_time=T0,
        created_time=T0,
        expires_time=T0 + 60,
        body=b"body %d" % number,
    )
    return response.replace(**changes)
