"""Where a webhook may lead: checked when a run or a cron is created, and again each time that it is delivered.

A URL comes from a client and is called from inside our network. So its host is resolved once, every address that it
has is checked, and what is then connected to is one of these addresses and no name: a name server that answers
something else a moment later changes nothing. The URL is read by the same parser that the request is made with.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.to_thread
import httpx

from matins.domain.addresses import LOOPBACK, Network, blocked
from matins.domain.errors import Invalid
from matins.manifest.webhooks import Webhooks

LOOKUP_SECONDS: Final = 5.0
"""How long looking up the hosts of a request may take."""

_LOOKUPS: Final = 16
"""How many hosts are looked up at once: in threads of their own number, so that a name server that does not answer
keeps no other part waiting for a thread."""

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook leads: its URL, and the addresses that its host had when it was checked."""

    url: httpx.URL
    addresses: tuple[str, ...]


def look_up(host: str, port: int) -> list[str]:
    """Give the addresses of a host; it blocks. Raises: OSError, UnicodeError when there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Guard:
    """Lets URLs pass that the configuration allows and whose every address is public.

    `networks` may be reached although they are not public: a sink inside the network of the server.
    """

    def __init__(
        self,
        rules: Webhooks,
        *,
        networks: Sequence[Network] = (),
        look_up: Callable[[str, int], list[str]] = look_up,
    ) -> None:
        self._rules: Final = rules
        self._networks: Final = (*networks, *(LOOPBACK if rules.allows_loopback else ()))
        self._look_up: Final = look_up
        self._limiter: Final = anyio.CapacityLimiter(_LOOKUPS)

    async def check(self, urls: Iterable[str | None]) -> None:
        """Refuse webhooks that may not be delivered. None stands for no webhook.

        Raises: Invalid.
        """
        refused: list[Invalid] = []

        async def one(url: httpx.URL) -> None:
            try:
                await self._target(url)
            except Invalid as error:
                refused.append(error)

        hosts = {
            (read.host, read.port): read for url in dict.fromkeys(urls) if url and (read := self._read(url))
        }
        async with anyio.create_task_group() as group:
            for url in hosts.values():
                group.start_soon(one, url)
        if refused:
            raise refused[0]

    async def resolve(self, url: str) -> Target:
        """Give where a webhook leads now.

        Raises: Invalid when it may not be delivered.
        """
        return await self._target(self._read(url))

    def _read(self, text: str) -> httpx.URL:
        """Give a URL that the configuration allows, whatever its host's addresses. Raises: Invalid."""
        rules = self._rules
        if rules.max_url_length is not None and len(text) > rules.max_url_length:
            raise Invalid(f"Webhook URL is longer than {rules.max_url_length} characters")
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as bad:
            raise Invalid(f"Webhook is not a valid URL: {bad}") from None
        if not url.scheme:
            raise Invalid(self._relative())
        if url.scheme not in _PORTS:
            raise Invalid(f"Webhook host blocked: scheme '{url.scheme[:50]}' not allowed")
        host = url.raw_host.decode("ascii")
        if len(host) > 253 or not _HOST.fullmatch(host):
            raise Invalid("Webhook is not a valid URL: it names no host")
        if url.userinfo:  # whoever sees the run would read it
            raise Invalid("Webhook must not hold a user name or a password")
        if rules.require_https and url.scheme != "https":
            raise Invalid("Webhook must use https")
        port = url.port if url.port is not None else _PORTS[url.scheme]
        if not 0 < port < 65536:
            raise Invalid("Webhook is not a valid URL: its port is out of range")
        if rules.allowed_ports is not None and port not in rules.allowed_ports:
            raise Invalid(f"Webhook host blocked: port {port} not allowed")
        if rules.allowed_domains is not None and not _is_among(host.rstrip("."), rules.allowed_domains):
            raise Invalid(f"Webhook host blocked: domain '{host}' not allowed")
        return url

    def _relative(self) -> str:
        if self._rules.allows_loopback:
            return "Webhook must be a URL in full: a relative one is not delivered, also not to this server"
        return (
            "Loopback webhooks (relative URLs and localhost) are disabled by default. A webhook must be a URL in full. "
            "Set webhooks.url.disable_loopback to false to allow localhost."
        )

    async def _target(self, url: httpx.URL) -> Target:
        host = url.raw_host.decode("ascii")
        try:
            with anyio.fail_after(LOOKUP_SECONDS):
                addresses = await anyio.to_thread.run_sync(
                    self._look_up,
                    host,
                    url.port or _PORTS[url.scheme],
                    limiter=self._limiter,
                    abandon_on_cancel=True,
                )
        except (OSError, UnicodeError, TimeoutError):
            addresses = []
        if not addresses:
            raise Invalid("Webhook host blocked: DNS resolution failed")
        for address in addresses:
            kind = blocked(address, allowed=self._networks)
            if kind is not None:
                raise Invalid(f"Webhook host blocked: {kind} IP range")
        return Target(url, tuple(addresses))


def _is_among(host: str, domains: Sequence[str]) -> bool:
    return any(host.endswith(domain[1:]) if domain.startswith("*.") else host == domain for domain in domains)
