"""Why a request is answered as it is, rule by rule (RFC 9111 §4): the rules of `_decision`, asked one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .._model import FOREVER, Request, Rules, StoredResponse
from ._answering import only_the_origin_can_tell
from ._decision import decide, request_directives, selected_for
from ._fields import cache_control
from ._freshness import current_age, explicit_lifetime, is_fresh, staleness
from ._outcomes import Decision, Finding
from ._storing import STORABLE_METHODS
from ._validation import conditions


def explain(
    request: Request, stored: Sequence[StoredResponse], rules: Rules, now: float, *, secret: bytes
) -> tuple[Decision, tuple[Finding, ...]]:
    """
    Give what `decide` decides, and every rule it depends on; the arguments are the same.

    The response is used as it is where all rules hold; a stale one also where RFC 5861 or ``max-stale`` allow it.
    """
    findings = list(_of_request(request, rules))
    selected = selected_for(request, stored, rules, secret)
    detail = f"{len(stored)} found" if stored else "nothing stored"
    findings.append(Finding("§4.1", "a stored response fits the request", selected is not None, detail))
    if selected is not None:
        findings += [*_of_freshness(request, selected, rules, now), *_of_stale(selected, now)]
    return decide(request, stored, rules, now, secret=secret), tuple(findings)


def _of_request(request: Request, rules: Rules) -> Iterator[Finding]:
    asked = request_directives(request)
    control = request.headers.get("Cache-Control", "no Cache-Control")
    is_reusable = request.method in STORABLE_METHODS and request.method in rules.allowed_methods
    yield Finding("§4", "the method may be answered from a cache", is_reusable, request.method)
    yield Finding("§5.2.1.5", "the request does not say no-store", not asked.no_store, control)
    yield Finding("§5.2.1.4", "the request does not say no-cache", not asked.no_cache, control)
    yield Finding("options", "no refresh was asked for", not rules.refresh, f"refresh={rules.refresh}")
    is_allowed = rules.override is None or not rules.override.forbids_caching
    said = "not given for the request" if rules.override is None else str(rules.override)
    yield Finding("options", "expire_after is not 0", is_allowed, said)


def _of_freshness(request: Request, stored: StoredResponse, rules: Rules, now: float) -> Iterator[Finding]:
    asked, said = request_directives(request), cache_control(stored.fields)
    age, remaining = current_age(stored, now), stored.expires_time - now
    lifetime = explicit_lifetime(stored.fields, said, stored.response_time)
    source = "by the options or by heuristics" if lifetime is None else f"lifetime {lifetime:.0f} s stated"
    why = only_the_origin_can_tell(request, stored)
    yield Finding("§4.3.2", "it is for a cache to answer", why is None, why or "no condition or range in the way")
    yield Finding("§5.2.2.4", "the response does not say no-cache", not said.no_cache, _control(stored))
    rest = "never expires" if remaining == FOREVER else f"{remaining:.0f} s left"
    yield Finding("§4.2", "it is fresh", is_fresh(stored, now), f"age {age:.0f} s, {rest}, {source}")
    young = asked.max_age is None or age <= asked.max_age
    yield Finding("§5.2.1.1", "it is young enough for the request", young, f"max-age={asked.max_age}")
    lasting = asked.min_fresh is None or remaining >= asked.min_fresh
    yield Finding("§5.2.1.3", "it stays fresh long enough for the request", lasting, f"min-fresh={asked.min_fresh}")


def _of_stale(stored: StoredResponse, now: float) -> Iterator[Finding]:
    """Tell what else can be done with a stale response; no rule for a fresh one."""
    if is_fresh(stored, now):
        return
    said, stale_for = cache_control(stored.fields), staleness(stored, now)
    within = stale_for < said.stale_while_revalidate and not said.must_revalidate
    yield Finding("§5.2.2.2", "it may be served stale", not said.must_revalidate, _control(stored))
    yield Finding("5861 §3", "it is within stale-while-revalidate", within, f"stale for {stale_for:.0f} s")
    validators = conditions(stored)
    yield Finding(
        "§4.3.1", "it can be validated", bool(validators), str(dict(validators)) if validators else "no validator"
    )


def _control(stored: StoredResponse) -> str:
    return ", ".join(stored.fields.getall("Cache-Control", ["no Cache-Control"]))
