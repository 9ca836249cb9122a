"""One try to deliver a report: a POST to an address that was checked, signed, without following anything."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Final

import anyio
import httpx
from standardwebhooks import Webhook

from matins import __version__
from matins.domain.errors import Invalid
from matins.domain.webhooks import sent
from matins.engine.webhooks.guard import Guard, Target
from matins.storage.webhooks import Claimed

TRY_SECONDS: Final = 10.0
"""How long a sink may take to answer, from the first address that is tried on."""

CONNECT_SECONDS: Final = 3.0
_REPLY_BYTES: Final = 64 * 1024
_ADDRESSES: Final = 3


class NotDelivered(Exception):
    """A try failed. The text says why, in words of ours: nothing of a sink's answer is kept."""


class Sender:
    """Delivers reports.

    `headers` go with each. `secrets`: each signs it as Standard Webhooks says; the receiver needs to know one.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        headers: Mapping[str, str],
        secrets: Sequence[str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard: Final = guard
        self._headers: Final = {
            "user-agent": f"matins/{__version__}",
            **{k.lower(): v for k, v in headers.items()},
        }
        self._signers: Final = [Webhook(secret) for secret in secrets]
        self._tls: Final = tls or httpx.create_ssl_context()

    async def send(self, claimed: Claimed) -> None:
        """Deliver a report; returns when the sink has answered with a status of success.

        Raises: NotDelivered.
        """
        try:
            target = await self._guard.resolve(claimed.url)
        except Invalid as refused:
            raise NotDelivered(str(refused)) from None
        body = sent(claimed.payload, claimed.claimed_at)
        headers = {**self._headers, **self._signed(claimed, body), "content-type": "application/json"}
        status: int | None = None
        reason = ""
        with anyio.move_on_after(TRY_SECONDS) as patience:
            for address in target.addresses[:_ADDRESSES]:
                try:
                    status = await self._post(target, address, headers, body.encode())
                    break
                except (httpx.ConnectError, httpx.ConnectTimeout) as away:
                    reason = f"it cannot be reached: {str(away)[:200] or type(away).__name__}"
                except httpx.HTTPError:
                    reason = "the connection broke before an answer came"
                    break
        if status is not None and 200 <= status < 300:
            return
        if status is not None:
            reason = f"it answered {status}"
        elif patience.cancelled_caught:
            reason = f"no answer within {TRY_SECONDS:g} s"
        raise NotDelivered(reason)

    def _signed(self, claimed: Claimed, body: str) -> dict[str, str]:
        """Give the headers that name the report and, with a secret, prove whose it is. Source: Standard Webhooks."""
        name = str(claimed.delivery_id)
        told = {"webhook-id": name, "webhook-timestamp": str(int(claimed.claimed_at.timestamp()))}
        if self._signers:
            told["webhook-signature"] = " ".join(
                signer.sign(name, claimed.claimed_at, body) for signer in self._signers
            )
        return told

    async def _post(self, target: Target, address: str, headers: Mapping[str, str], body: bytes) -> int:
        """Post to one address and give the status. The name stays what the sink and its certificate know."""
        name = target.url.raw_host.decode("ascii").rstrip(".")
        port = f":{target.url.port}" if target.url.port else ""
        shown = f"[{name}]" if ":" in name else name
        # A client of its own: no connection is used again, which was made for another name at the same address.
        async with httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(TRY_SECONDS, connect=CONNECT_SECONDS),
        ) as client:
            request = client.build_request(
                "POST",
                target.url.copy_with(host=address),
                headers={
                    **headers,
                    "host": shown + port,
                    "connection": "close",
                    "accept-encoding": "identity",
                },
                content=body,
                extensions={} if _is_address(target, address) else {"sni_hostname": name},
            )
            response = await client.send(request, stream=True)
            try:
                await _read_a_little(response)
            finally:
                await response.aclose()
            return response.status_code


def _is_address(target: Target, address: str) -> bool:
    return target.url.host.strip("[]") == address


async def _read_a_little(response: httpx.Response) -> None:
    """Let the sink finish what it has to say, up to a bound: the status has been said."""
    size = 0
    try:
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > _REPLY_BYTES:
                return
    except httpx.HTTPError:
        return
