"""What an unsafe method makes invalid (RFC 9111 §4.4)."""

from __future__ import annotations

from yarl import URL

from .._model import OriginResponse, Request

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PRI", "PROPFIND", "QUERY", "REPORT", "SEARCH", "TRACE"})
"""Methods registered as safe; one that nobody knows is not (RFC 9110 §16.1.1)."""


def invalidated_urls(request: Request, response: OriginResponse) -> tuple[str, ...]:
    """
    Give the URLs whose stored responses must not be used any more.

    After a non-error answer to an unsafe method: the target, and what ``Location`` and ``Content-Location`` name
    if it has the same origin (or anybody could empty another's cache). What is no URL is ignored.
    """
    if request.method in SAFE_METHODS or not 200 <= response.status < 400:
        return ()
    urls = [request.url]
    for name in ("Location", "Content-Location"):
        for reference in response.fields.getall(name, ()):
            url = _same_origin_url(request.url, reference)
            if url is not None:
                urls.append(url)
    return tuple(dict.fromkeys(urls))


def _same_origin_url(target: str, reference: str) -> str | None:
    """Resolve *reference*, to the normal form in which requests have their URL; ``None`` for another origin."""
    try:
        base = URL(target)
        url = base.join(URL(reference)).with_fragment(None)
        # As text, for a default port that is written out makes no other origin.
        if not url.absolute or str(url.origin()) != str(base.origin()):
            return None
        text = str(url.with_user(None))
    except (ValueError, TypeError):
        return None
    return text if "/" in text[len("https://") :] else f"{text}/"
