"""`webhooks` of langgraph.json: where runs may report to, and what is said with each report.

Also read from the variable LANGGRAPH_WEBHOOKS, which holds the section as JSON and then counts instead of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from matins.manifest.reading import ManifestError, flag, kind, mapping, section, text, texts

_DEFAULT_PREFIX: Final = "LG_WEBHOOK_"
_VARIABLE: Final = re.compile(r"\$\{\{\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_DOMAIN: Final = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_OURS: Final = {
    "connection", "content-length", "content-type", "host", "transfer-encoding", "webhook-id", "webhook-signature",
    "webhook-timestamp",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Where webhooks may lead. None allows any. `source`: what a refusal names as the place of its key.

    `headers` are as written, with the variables that they name.
    """

    source: Path = Path("langgraph.json")
    require_https: bool = False
    allowed_domains: tuple[str, ...] | None = None
    allowed_ports: frozenset[int] | None = None
    max_url_length: int | None = None
    allows_loopback: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def filled_in(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Give the headers with the values of their variables.

        Raises: ManifestError when a variable is not set, or cannot stand in a header; its value is not shown.
        """
        return {name: self._filled_in(name, value, environ) for name, value in self.headers.items()}

    def _filled_in(self, header: str, value: str, environ: Mapping[str, str]) -> str:
        key = f"webhooks.headers.{header}"

        def named(variable: re.Match[str]) -> str:
            if variable[1] not in environ:
                raise ManifestError(f"{self.source}: {key}: the variable {variable[1]} is not set")
            if not _HEADER_VALUE.fullmatch(environ[variable[1]]):
                raise ManifestError(f"{self.source}: {key}: {variable[1]} holds what no header can")
            return environ[variable[1]]

        return _VARIABLE.sub(named, value).strip()


def instead(of: Webhooks, variable: object) -> Webhooks:
    """Give the section of the file, or what LANGGRAPH_WEBHOOKS holds instead of it. Raises: ManifestError."""
    return of if variable is None else read(Path("LANGGRAPH_WEBHOOKS"), variable)


def read(path: Path, value: object) -> Webhooks:
    """Read the section. With a `url` in it, HTTPS is required unless it says otherwise.

    Raises: ManifestError.
    """
    content = section(path, "webhooks", value)
    prefix = text(path, "webhooks.env_prefix", content.get("env_prefix"))
    if prefix == "":
        raise ManifestError(f"{path}: webhooks.env_prefix: empty; any variable could be sent away")
    headers = _headers(path, content.get("headers"), _DEFAULT_PREFIX if prefix is None else prefix)
    if content.get("url") is None:
        return Webhooks(path, headers=headers)
    key, url = "webhooks.url", mapping(path, "webhooks.url", content["url"])
    longest = url.get("max_url_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise ManifestError(f"{path}: {key}.max_url_length: must be a whole number of at least 1")
    return Webhooks(
        path,
        require_https=flag(path, f"{key}.require_https", url.get("require_https"), default=True),
        allowed_domains=_domains(path, f"{key}.allowed_domains", url.get("allowed_domains")),
        allowed_ports=_ports(path, f"{key}.allowed_ports", url.get("allowed_ports")),
        max_url_length=longest,
        allows_loopback=not flag(path, f"{key}.disable_loopback", url.get("disable_loopback"), default=True),
        headers=headers,
    )


def _headers(path: Path, value: object, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, template in section(path, "webhooks.headers", value).items():
        key = f"webhooks.headers.{name}"
        if not isinstance(template, str):
            raise ManifestError(f"{path}: {key}: must be a string, not {kind(template)}")
        if not _HEADER_NAME.fullmatch(name):
            raise ManifestError(f"{path}: webhooks.headers: {name!r} is no name of a header")
        if name.lower() in _OURS:
            raise ManifestError(f"{path}: {key}: this header is set by the server")
        literal = _VARIABLE.sub("", template)
        if "${{" in literal:
            raise ManifestError(f"{path}: {key}: a variable must read ${{{{ env.{prefix}NAME }}}}")
        if not _HEADER_VALUE.fullmatch(literal):
            raise ManifestError(f"{path}: {key}: holds what no header can")
        for variable in _VARIABLE.findall(template):
            if not variable.startswith(prefix):
                raise ManifestError(f"{path}: {key}: {variable} does not begin with {prefix} (env_prefix)")
        found[name] = template
    return found


def _domains(path: Path, key: str, value: object) -> tuple[str, ...] | None:
    named = texts(path, key, value)
    for domain in named or ():
        if not _DOMAIN.fullmatch(domain.lower().rstrip(".")) and not _is_address(domain):
            raise ManifestError(
                f'{path}: {key}: {domain!r} must read "corp.com" or "*.corp.com", without scheme, port or path'
            )
    return None if named is None else tuple(domain.lower().rstrip(".") for domain in named)


def _is_address(domain: str) -> bool:
    try:
        ip_address(domain)
    except ValueError:
        return False
    return True


def _ports(path: Path, key: str, value: object) -> frozenset[int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(port) is int and 0 < port < 65536 for port in value):
        raise ManifestError(f"{path}: {key}: must be a list of ports, 1 to 65535")
    return frozenset(value)
