"""The public API, as the commands call it: an answer, or one line on stderr and the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import typer

from matins import __version__

DEFAULT_URL: Final = "http://127.0.0.1:2024"
PATIENCE_SECONDS: Final = 60.0

_HERE: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered: its JSON as it came, and read; how many there are, and whether there are more."""

    text: str
    value: Any
    total: str | None
    has_more: bool


class Client:
    """Calls one server."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url: Final = url.rstrip("/")
        self._headers: Final = {
            "user-agent": f"matins/{__version__}",
            **({"x-api-key": api_key} if api_key else {}),
        }

    def call(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> Reply:
        """Call the server. Where it refuses, or cannot be reached, the command ends with code 1."""
        import httpx  # noqa: PLC0415 - takes as long to import as all the rest of a command: `--help` need not wait for it

        host = urlsplit(self._url).hostname
        try:
            response = httpx.request(
                method,
                self._url + path,
                json=body,
                params={name: value for name, value in (query or {}).items() if value is not None},
                headers=self._headers,
                timeout=PATIENCE_SECONDS,
                trust_env=host not in _HERE,  # a proxy is for what is elsewhere
            )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            refuse(f"--url must read http://host:port, not {self._url!r}", code=2)
        except httpx.TimeoutException:
            refuse(f"{self._url} did not answer within {PATIENCE_SECONDS:g} s")
        except httpx.RequestError as away:
            refuse(
                f"no server can be reached at {self._url} ({away}): start one with `matins dev`, or name another with "
                "--url or MATINS_URL"
            )
        try:
            value = json.loads(response.text)
        except ValueError:
            refuse(f"{self._url}{path} answered {response.status_code} and no JSON: is it Matins?")
        if not response.is_success:
            refuse(self._detail(method, path, response.status_code, value))
        headers = response.headers
        return Reply(response.text, value, headers.get("x-pagination-total"), "x-pagination-next" in headers)

    def _detail(self, method: str, path: str, status: int, value: Any) -> str:
        detail = value.get("detail") if isinstance(value, dict) else None
        if detail in ("Not Found", "Method Not Allowed"):  # of the path, not of what it names
            return f"the server at {self._url} has no {method} {path}: it is older than this command, or elsewhere"
        return detail if isinstance(detail, str) else f"{method} {path} was answered with {status}"


def refuse(line: str, *, code: int = 1) -> NoReturn:
    """End the command with a line on stderr: 1, it failed; 2, the call is wrong."""
    typer.echo(f"matins: {' '.join(line.split())}", err=True)
    raise typer.Exit(code)
