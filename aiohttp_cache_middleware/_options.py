"""
The options of a cache and of one request: every default with its unit, checked when it is given.

Whatever is wrong raises here, naming option and value, so that nothing behind this module checks again.
"""

from __future__ import annotations

import fnmatch
import math
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias, TypedDict
from urllib.parse import unquote, unquote_plus

from yarl import URL

from ._model import FOREVER, Expiration, Rules
from ._policy._fields import TCHARS, parse_date

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._response import CachedResponse

ExpireAfter: TypeAlias = int | float | timedelta | datetime | str | None
"""``None``: not said; ``-1``: for ever; seconds; a moment (naive: UTC), also as an HTTP date; ``0``: do not cache."""

FilterFn: TypeAlias = "Callable[[CachedResponse], bool | Awaitable[bool]]"


class CacheSettings(TypedDict, total=False):
    """The options of a cache as they are given; `CacheMiddleware` says what they mean."""

    expire_after: ExpireAfter
    # Keys are str or re.Pattern[str]. A mapping is invariant in them: naming the union would refuse dict[Pattern, int].
    urls_expire_after: Mapping[Any, ExpireAfter] | None
    allowed_methods: Collection[str]
    allowed_codes: Collection[int] | None
    ignored_params: Collection[str] | None
    ignored_parameters: Collection[str] | None
    include_headers: bool | Collection[str]
    restore_cookies: bool
    filter_fn: FilterFn | None
    cache_control: bool
    stale_if_error: bool | float | timedelta
    max_size: int | None
    max_body_size: int | None
    compress: bool
    secret_key: str | bytes | Sequence[str | bytes] | None
    namespace: str


# --- values ---


def parse_expire_after(option_name: str, value: object) -> Expiration | None:
    """
    Understand an ``expire_after``.

    Args:
        option_name: How the caller called it, for the error.
        value: See `ExpireAfter`.

    Returns:
        The expiration, or ``None`` where none was given.

    Raises:
        ValueError: It has a sensible type and no sensible value: negative (but -1), NaN, a bool, not an HTTP date.
        TypeError: It has another type.
    """
    match value:
        case None | Expiration():
            return value
        case bool():
            return _refuse(ValueError, option_name, value, "a time; a bool is none")
        case int() | float():
            return Expiration(FOREVER if value == -1 else _seconds(option_name, value))
        case timedelta():
            return Expiration(_seconds(option_name, value))
        case datetime():
            moment = value if value.utcoffset() is not None else value.replace(tzinfo=timezone.utc)
            return Expiration(moment=moment.timestamp())
        case str():
            # The clock only decides the century of a two-digit year.
            date = parse_date(value, time.time())
            if date is None:
                return _refuse(ValueError, option_name, value, "an HTTP date")
            return Expiration(moment=date)
        case _:
            return _refuse(TypeError, option_name, value, "seconds, a timedelta, a datetime or an HTTP date")


def _seconds(name: str, value: float | timedelta) -> float:
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except OverflowError:
        seconds = math.nan
    return seconds if seconds >= 0 else _refuse(ValueError, name, value, "seconds, 0 or more")


def _parse_stale_if_error(name: str, value: object) -> float:
    match value:
        case bool():
            return math.inf if value else 0.0
        case int() | float() | timedelta():
            return _seconds(name, value)
        case _:
            return _refuse(TypeError, name, value, "a bool, seconds or a timedelta")


def parse_flag(name: str, value: object) -> bool:
    """Check what is on or off."""
    return value if isinstance(value, bool) else _refuse(TypeError, name, value, "True or False")


def _parse_text(name: str, value: object) -> str:
    return value if isinstance(value, str) else _refuse(TypeError, name, value, "a string")


def _parse_names(name: str, value: object) -> frozenset[str]:
    # A lone string is a collection of letters, and never what was meant.
    if value is None:
        return frozenset()
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        _refuse(TypeError, name, value, "a collection of names")
    names = list(value)
    if not all(isinstance(one, str) for one in names):
        _refuse(TypeError, name, value, "names that are strings")
    return frozenset(names)


def _parse_methods(name: str, value: object) -> frozenset[str]:
    methods = _parse_names(name, value)
    if not methods or not all(re.fullmatch(TCHARS, method) for method in methods):
        _refuse(ValueError, name, value, "at least one method")
    return frozenset(method.upper() for method in methods)


def _parse_codes(name: str, value: object) -> frozenset[int] | None:
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        _refuse(TypeError, name, value, "a collection of status codes")
    codes = list(value)
    if not all(isinstance(code, int) and not isinstance(code, bool) for code in codes):
        _refuse(TypeError, name, value, "status codes that are ints")
    if not codes or not all(100 <= code <= 599 for code in codes):
        _refuse(ValueError, name, value, "at least one status code, 100 to 599")
    return frozenset(map(int, codes))


def _parse_headers(name: str, value: object) -> bool | frozenset[str]:
    return value if isinstance(value, bool) else frozenset(one.lower() for one in _parse_names(name, value))


def _parse_filter(name: str, value: object) -> FilterFn | None:
    return value if value is None or callable(value) else _refuse(TypeError, name, value, "a function or None")


def parse_bytes(name: str, value: object) -> int | None:
    """Check a number of bytes; ``None`` is no bound."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(TypeError, name, value, "an int, in bytes, or None")
    return value if value > 0 else _refuse(ValueError, name, value, "a positive number of bytes")


def parse_secret_keys(name: str, value: object) -> tuple[bytes, ...]:
    """Check one secret key, or several."""
    if value is None:
        return ()
    keys = (value,) if isinstance(value, (str, bytes)) else value
    if not isinstance(keys, Sequence) or not all(isinstance(key, (str, bytes)) for key in keys):
        # The value is a secret, or close to one: only its type is told.
        raise TypeError(f"{name}: expected a str, bytes or a sequence of them, got {type(value).__name__}")
    if not keys or not all(keys):
        raise ValueError(f"{name}: a key must not be empty")
    try:
        return tuple(key.encode() if isinstance(key, str) else key for key in keys)
    except UnicodeEncodeError:  # which would show the key
        raise ValueError(f"{name}: a key that is a str must be encodable") from None


def _refuse(error: type[Exception], name: str, value: object, expected: str) -> NoReturn:
    raise error(f"{name}: expected {expected}, got {value!r}")


def unknown_option(name: str, known: Iterable[str]) -> TypeError:
    """Make the error for an unknown option, with the *known* name that was probably meant."""
    import difflib  # not needed unless somebody errs

    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return TypeError(f"unexpected option {name!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else ""))


# --- urls_expire_after ---

_DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
_URL = r"(?s)([^:/?#]+)://(?:[^/?#@]*@)?([^/?#]*)/?(.*)"
_NETLOC = r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?"


class _UrlParts(NamedTuple):
    whole: str
    scheme: str
    hosts: tuple[str, ...]
    """Every way to write the host: with its port, and without it where it is the default one."""
    rests: tuple[str, ...]
    """Every way to write path and query, without the leading slash: as it stands, and as people write it."""


class _Glob(NamedTuple):
    """
    A glob over a URL: `*` is any run of characters (also of ``/``), `?` any one; all others are themselves.

    `fnmatch` makes regular expressions of it that never go back over a `*`: linear time, whatever the URL.
    """

    scheme: re.Pattern[str]
    host: re.Pattern[str]
    rest: re.Pattern[str]

    def matches(self, url: _UrlParts) -> bool:
        return bool(
            self.scheme.match(url.scheme)
            and any(map(self.host.match, url.hosts))
            and any(map(self.rest.match, url.rests))
        )


class _Regex(NamedTuple):
    pattern: re.Pattern[str]

    def matches(self, url: _UrlParts) -> bool:
        return self.pattern.search(url.whole) is not None


class UrlPatterns:
    """
    ``urls_expire_after``, compiled: an expiration per URL, by the first pattern that matches.

    >>> patterns = UrlPatterns({"*.site.com/static/": 60, "site.com": None})
    >>> patterns.match("https://cdn.site.com/static/logo.png")
    Expiration(seconds=60.0, moment=None)
    >>> patterns.match("http://evil.org/?q=cdn.site.com/static/") is None
    True

    Args:
        patterns: Glob (host, then path and query, with an implied ``**`` at the end) or compiled regular
            expression (searched in the whole URL) to `ExpireAfter`, in the order in which they are tried.

    Raises:
        TypeError: A pattern is neither a string nor a `re.Pattern` of strings.
        ValueError: A pattern has no host, or an expiration is nonsense.
    """

    def __init__(self, patterns: Mapping[Any, Any]) -> None:
        self._patterns = tuple(
            (_compiled(pattern), parse_expire_after(f"urls_expire_after[{pattern!r}]", value))
            for pattern, value in patterns.items()
        )

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, url: str) -> Expiration | None:
        """Give the expiration that the first matching pattern states for *url*; ``None``: ``expire_after`` decides."""
        parts = _split(url)
        return next((expiration for pattern, expiration in self._patterns if pattern.matches(parts)), None)


def _compiled(pattern: object) -> _Glob | _Regex:
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        return _Regex(pattern)
    if not isinstance(pattern, str):
        _refuse(TypeError, "urls_expire_after", pattern, "patterns that are strings or compiled regular expressions")
    before, separator, after = pattern.partition("://")
    scheme, url = (before, after) if separator and "/" not in before else ("http*", pattern)
    host, _, rest = url.partition("/")
    if not host:
        _refuse(ValueError, "urls_expire_after", pattern, "a pattern that begins with a host ('*' for any)")
    return _Glob(_glob(scheme.lower()), _glob(host.lower()), _glob(rest + "*"))


def _glob(pattern: str) -> re.Pattern[str]:
    # Brackets stand in IPv6 addresses and in queries: they are no character classes here.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))


def _split(url: str) -> _UrlParts:
    match = re.match(_URL, url)
    if match is None:
        return _UrlParts(url, "", (), (url,))
    scheme, netloc, rest = match[1].lower(), match[2].lower(), match[3]
    return _UrlParts(url, scheme, _host_forms(scheme, netloc), _rest_forms(rest))


def _rest_forms(rest: str) -> tuple[str, ...]:
    """Give path and query with and without percent-encoding; a blank in a query is also a plus."""
    if "%" not in rest and "+" not in rest:
        return (rest,)
    path, mark, query = rest.partition("?")
    return rest, path + mark + query.replace("%20", "+"), unquote(rest), unquote(path) + mark + unquote_plus(query)


def _host_forms(scheme: str, netloc: str) -> tuple[str, ...]:
    match = re.match(_NETLOC, netloc)
    name, port = match.groups() if match else (netloc, None)
    names = (name, _readable(name)) if "xn--" in name else (name,)
    default_port = _DEFAULT_PORTS.get(scheme)
    with_port = tuple(f"{one}:{port or default_port}" for one in names)
    return with_port if port and port != default_port else names + with_port


def _readable(host: str) -> str:
    """Give an internationalised host name as people write it; one that is none, as it stands."""
    try:
        return URL.build(scheme="http", host=host).host or host
    except ValueError:
        return host


# --- the options of a cache ---


@dataclass(frozen=True)
class Settings:
    """
    The options of a cache, checked; made by `from_options`.

    Attributes:
        expire_after: How long a stored response may be used; ``None``: for ever, or by HTTP in that mode.
        url_patterns: The same per URL; comes first.
        allowed_methods: Upper-case methods that are cached.
        allowed_codes: Status codes that are cached; ``None``: what the mode allows.
        ignored_params: Query parameters, form and JSON fields, and headers that neither count nor are stored.
        include_headers: Whether request headers are part of the key, or (lower-case) which ones.
        restore_cookies: Whether a hit's ``Set-Cookie`` reaches the session's jar.
        filter_fn: Asked before a response is stored and before it is used.
        cache_control: Whether HTTP decides (RFC 9111).
        stale_if_error: Seconds after its expiry for which a response may stand in for a failing origin;
            ``0`` is off, ``inf`` any time.
        max_size: Bytes on disk, everything included; ``None``: no bound.
        max_body_size: Bytes; larger bodies are not stored.
        compress: Whether bodies that get smaller by it are kept compressed.
        secret_keys: The first writes, all read; ``()``: entries are not authenticated.
        namespace: Separates entries within a store.
    """

    expire_after: Expiration | None = None
    url_patterns: UrlPatterns = field(default_factory=lambda: UrlPatterns({}))
    allowed_methods: frozenset[str] = frozenset({"GET", "HEAD"})
    allowed_codes: frozenset[int] | None = None
    ignored_params: frozenset[str] = frozenset()
    include_headers: bool | frozenset[str] = False
    restore_cookies: bool = False
    filter_fn: FilterFn | None = None
    cache_control: bool = False
    stale_if_error: float = 0.0
    max_size: int | None = 2**30
    max_body_size: int | None = None
    compress: bool = False
    secret_keys: tuple[bytes, ...] = field(default=(), repr=False)
    namespace: str = ""

    @classmethod
    def from_options(cls, **options: Unpack[CacheSettings]) -> Settings:
        """
        Check *options* and make settings of them.

        Raises:
            TypeError: An unknown option, one given twice under two names, or a value of the wrong type.
            ValueError: A value that makes no sense.
        """
        settings: dict[str, Any] = {}
        for name, value in options.items():
            if name not in _OPTIONS:
                raise unknown_option(name, OPTION_NAMES)
            attribute, parse = _OPTIONS[name]
            if attribute in settings:
                raise TypeError(f"{name}: given twice, under two names")
            settings[attribute] = parse(name, value)
        return cls(**settings)

    def rules_for(self, url: str) -> Rules:
        """Give the rules for *url* where nothing was said for the request itself."""
        return self._rules_by_url(url) if self.url_patterns else self._rules

    @cached_property
    def _rules(self) -> Rules:
        return self._make_rules(self.expire_after)

    @cached_property
    def _rules_by_url(self) -> Callable[[str], Rules]:
        # Remembered: 0.2 µs instead of 6 with two patterns.
        return lru_cache(maxsize=1024)(lambda url: self._make_rules(self.url_patterns.match(url) or self.expire_after))

    def _make_rules(self, default: Expiration | None) -> Rules:
        return Rules(
            allowed_methods=self.allowed_methods,
            allowed_codes=self.allowed_codes,
            default=default,
            stale_if_error=self.stale_if_error,
        )


def _parse_url_patterns(name: str, value: object) -> UrlPatterns:
    if value is not None and not isinstance(value, Mapping):
        _refuse(TypeError, name, value, "a mapping of patterns")
    return UrlPatterns(value or {})


_OPTIONS: Mapping[str, tuple[str, Callable[[str, object], object]]] = {
    "expire_after": ("expire_after", parse_expire_after),
    "urls_expire_after": ("url_patterns", _parse_url_patterns),
    "allowed_methods": ("allowed_methods", _parse_methods),
    "allowed_codes": ("allowed_codes", _parse_codes),
    "ignored_params": ("ignored_params", _parse_names),
    "ignored_parameters": ("ignored_params", _parse_names),
    "include_headers": ("include_headers", _parse_headers),
    "restore_cookies": ("restore_cookies", parse_flag),
    "filter_fn": ("filter_fn", _parse_filter),
    "cache_control": ("cache_control", parse_flag),
    "stale_if_error": ("stale_if_error", _parse_stale_if_error),
    "max_size": ("max_size", parse_bytes),
    "max_body_size": ("max_body_size", parse_bytes),
    "compress": ("compress", parse_flag),
    "secret_key": ("secret_keys", parse_secret_keys),
    "namespace": ("namespace", _parse_text),
}
"""Name of an option: (attribute of `Settings`, how to understand a value)."""

OPTION_NAMES = frozenset(_OPTIONS)


# --- the options of one request ---


@dataclass(frozen=True, slots=True, init=False)
class CacheOptions:
    """
    Settings for one request, or for all requests made in a ``with`` block.

    Used as ``session.get(url, trace_request_ctx=CacheOptions(expire_after=60))`` or ``with CacheOptions(...):``
    around any number of requests. A block counts in the task that entered it and in tasks started inside; what a
    request says wins over its block, and an inner block over the outer one. The same object may be entered
    again, and by many tasks at once.

    Args:
        expire_after: How long what is stored now may be used: seconds, a `timedelta`, a `datetime` (naive means
            UTC) or an HTTP date string; ``-1``: for ever; ``0``: neither read nor store.
        refresh: Revalidate or refetch, however fresh the stored response is.
        only_if_cached: Never touch the network; a ``504 Gateway Timeout`` response where nothing usable is stored.
        disabled: Neither read nor write.
        namespace: Use entries of this namespace instead of the cache's.
        stale_if_error: Whether an expired response stands in for a failing origin: a bool, or for how long after
            its expiry, in seconds or as a `timedelta`.
        trace_request_ctx: What the caller's own TraceConfigs shall see.

    ``None`` says nothing: then the block around, the URL's pattern or the cache decides.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value makes no sense.
    """

    expire_after: Expiration | None
    refresh: bool | None
    only_if_cached: bool | None
    disabled: bool | None
    namespace: str | None
    stale_if_error: float | None
    trace_request_ctx: object = field(compare=False)

    def __init__(
        self,
        *,
        expire_after: ExpireAfter = None,
        refresh: bool | None = None,
        only_if_cached: bool | None = None,
        disabled: bool | None = None,
        namespace: str | None = None,
        stale_if_error: bool | float | timedelta | None = None,
        trace_request_ctx: object = None,
    ) -> None:
        said = {
            "expire_after": parse_expire_after("expire_after", expire_after),
            "refresh": _said(parse_flag, "refresh", refresh),
            "only_if_cached": _said(parse_flag, "only_if_cached", only_if_cached),
            "disabled": _said(parse_flag, "disabled", disabled),
            "namespace": _said(_parse_text, "namespace", namespace),
            "stale_if_error": _said(_parse_stale_if_error, "stale_if_error", stale_if_error),
            "trace_request_ctx": trace_request_ctx,
        }
        for name, value in said.items():
            object.__setattr__(self, name, value)

    def __enter__(self) -> Self:
        _BLOCK.set(_Block(self, _BLOCK.get()))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # No token is kept: the same object may be entered many times, by many tasks.
        block = _BLOCK.get()
        _BLOCK.set(None if block is None else block.outer)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def _said(parse: Callable[[str, object], Any], name: str, value: object) -> Any:
    return None if value is None else parse(name, value)


class _Block:
    """A ``with`` block that has been entered, and what is in force in it."""

    __slots__ = ("options", "outer")

    def __init__(self, entered: CacheOptions, outer: _Block | None) -> None:
        self.outer = outer
        self.options: CacheOptions | None = merged(entered, None if outer is None else outer.options)


_BLOCK: ContextVar[_Block | None] = ContextVar("aiohttp_cache_middleware_block", default=None)


def active_block() -> CacheOptions | None:
    """Give what the ``with CacheOptions(...)`` blocks around the caller say, if there are any."""
    block = _BLOCK.get()
    return None if block is None else block.options


def merged(inner: CacheOptions | None, outer: CacheOptions | None) -> CacheOptions | None:
    """Give what *inner* says, and what *outer* says where *inner* says nothing."""
    if inner is None or outer is None:
        return outer if inner is None else inner
    both = CacheOptions()
    for one in fields(CacheOptions):
        own = getattr(inner, one.name)
        object.__setattr__(both, one.name, getattr(outer, one.name) if own is None else own)
    return both


def in_force(settings: Settings, url: str, said: CacheOptions | None) -> Rules:
    """
    Resolve the rules for one request: per request, then per URL, then ``expire_after``.

    Args:
        url: The request's normalised URL.
        said: What the request and the blocks around it say.
    """
    rules = settings.rules_for(url)
    if said is None:
        return rules
    return Rules(
        allowed_methods=rules.allowed_methods,
        allowed_codes=rules.allowed_codes,
        override=said.expire_after,
        default=rules.default,
        stale_if_error=rules.stale_if_error if said.stale_if_error is None else said.stale_if_error,
        refresh=said.refresh is True,
        only_if_cached=said.only_if_cached is True,
    )
