"""`http` of langgraph.json: where the API is served, which of it, to whom, and the user's application beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from matins.manifest.reading import ManifestError, flag, number, section, text, texts
from matins.manifest.variables import Variable, variable

RESOURCES: Final = ("assistants", "threads", "runs", "store", "mcp", "a2a", "ui", "meta", "webhooks")
"""What `disable_*` can name."""

SECRET: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-api-key", "x-service-key", "x-tenant-id"}
)
"""The headers that are never passed on or logged, whatever is included. Source: observed on the wire, and cookies."""

_ORDERS: Final = ("middleware_first", "auth_first")
_PREFIX: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True)
class Headers:
    """Which headers of a request are meant: those that `includes` fits and `excludes` does not, but no secrets."""

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def of(self, sent: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """Give those that are meant, by their names in lower case. One that was sent twice is joined by commas."""
        found: dict[str, str] = {}
        if self.includes:
            for raw_name, raw_value in sent:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
                if (
                    name not in SECRET
                    and self._included.fullmatch(name)
                    and not self._excluded.fullmatch(name)
                ):
                    found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    @cached_property
    def _included(self) -> re.Pattern[str]:
        return _any_of(self.includes)

    @cached_property
    def _excluded(self) -> re.Pattern[str]:
        return _any_of(self.excludes)


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other origins may call, and how. All may, when nothing is said."""

    allow_origins: tuple[str, ...] = ("*",)
    allow_origin_regex: str | None = None
    allow_methods: tuple[str, ...] = ("*",)
    allow_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    expose_headers: tuple[str, ...] = ()
    max_age_s: int = 600


@dataclass(frozen=True, slots=True)
class HttpSection:
    """How the API is served. `cors` is None when the file does not speak of it; `mount_prefix` "" or "/some/path"."""

    app: Variable | None = None
    cors: Cors | None = None
    mount_prefix: str = ""
    disabled: frozenset[str] = frozenset()
    configurable_headers: Headers = field(default_factory=Headers)
    logging_headers: Headers = field(default_factory=Headers)
    middleware_order: str = "middleware_first"
    enable_custom_route_auth: bool = False

    @property
    def delivers_webhooks(self) -> bool:
        """Whether webhooks are called at all."""
        return "webhooks" not in self.disabled


def read(path: Path, value: object, warnings: list[str]) -> HttpSection:
    """Read the section; what has no effect is added to `warnings`. Raises: ManifestError."""
    http = section(path, "http", value)
    order = text(path, "http.middleware_order", http.get("middleware_order")) or _ORDERS[0]
    if order not in _ORDERS:
        raise ManifestError(
            f"{path}: http.middleware_order: must be one of {', '.join(_ORDERS)}, not {order!r}"
        )
    is_guarded = flag(
        path, "http.enable_custom_route_auth", http.get("enable_custom_route_auth"), default=False
    )
    if is_guarded:
        warnings.append(
            f"{path}: http.enable_custom_route_auth: has no effect yet: whoever reaches the port may use the "
            "routes of http.app"
        )
    if order == "auth_first":
        warnings.append(f"{path}: http.middleware_order: has no effect yet: nobody is asked who they are")
    app = text(path, "http.app", http.get("app"))
    return HttpSection(
        app=None if app is None else variable(path, "http.app", app, of="application"),
        cors=None if http.get("cors") is None else _cors(path, http["cors"], warnings),
        mount_prefix=_mount_prefix(path, http.get("mount_prefix")),
        disabled=frozenset(
            each
            for each in RESOURCES
            if flag(path, f"http.disable_{each}", http.get(f"disable_{each}"), default=False)
        ),
        configurable_headers=_headers(path, "http.configurable_headers", http.get("configurable_headers")),
        logging_headers=_headers(path, "http.logging_headers", http.get("logging_headers")),
        middleware_order=order,
        enable_custom_route_auth=is_guarded,
    )


def _mount_prefix(path: Path, value: object) -> str:
    named = (text(path, "http.mount_prefix", value) or "").rstrip("/")
    if named and not _PREFIX.fullmatch(named):
        raise ManifestError(f'{path}: http.mount_prefix: {named!r} must read "/some/path"')
    return named


def _cors(path: Path, value: object, warnings: list[str]) -> Cors:
    cors = section(path, "http.cors", value)
    regex = text(path, "http.cors.allow_origin_regex", cors.get("allow_origin_regex"))
    try:
        re.compile(regex or "")
    except re.error as bad:
        key = "http.cors.allow_origin_regex"
        raise ManifestError(f"{path}: {key}: {regex!r} is no regular expression: {bad}") from bad
    anyone = () if regex else ("*",)
    origins = texts(path, "http.cors.allow_origins", cors.get("allow_origins"))
    origins = anyone if origins is None else origins
    credentials = flag(path, "http.cors.allow_credentials", cors.get("allow_credentials"), default=False)
    if credentials and "*" in origins:
        warnings.append(
            f"{path}: http.cors.allow_credentials: with allow_origins '*' every page may act as whoever visits it"
        )
    methods = texts(path, "http.cors.allow_methods", cors.get("allow_methods"))
    headers = texts(path, "http.cors.allow_headers", cors.get("allow_headers"))
    max_age = number(path, "http.cors.max_age", cors.get("max_age"), least=0)
    return Cors(
        allow_origins=origins,
        allow_origin_regex=regex,
        allow_methods=("*",) if methods is None else tuple(method.upper() for method in methods),
        allow_headers=("*",) if headers is None else headers,
        allow_credentials=credentials,
        expose_headers=texts(path, "http.cors.expose_headers", cors.get("expose_headers")) or (),
        max_age_s=600 if max_age is None else int(max_age),
    )


def _headers(path: Path, key: str, value: object) -> Headers:
    """Read which headers are meant; the keys may be spelled `include` and `exclude`, as was observed."""
    headers = section(path, key, value)
    found: dict[str, tuple[str, ...]] = {}
    for plural, singular in (("includes", "include"), ("excludes", "exclude")):
        named: list[str] = []
        for spelled in (plural, singular):
            named += texts(path, f"{key}.{spelled}", headers.get(spelled)) or ()
        found[plural] = tuple(name.lower() for name in named)
    return Headers(**found)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """Give what fits one of the patterns, in which `*` stands for any characters; of none, nothing fits."""
    return re.compile("|".join(re.escape(each).replace(r"\*", ".*") for each in patterns) or r"(?!)")
