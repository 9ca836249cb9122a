"""Heartbeat: tell a watcher elsewhere that the crons of this node are looked after. It alarms when it hears no more.

It goes to where the operator's environment says, inside or outside the network: the rules for webhooks, which are for
what clients ask, do not hold for it.
"""

from __future__ import annotations

from typing import Final

import anyio
import httpx
from anyio.abc import TaskStatus

from matins import telemetry
from matins.engine.looks import Looks

EVERY_SECONDS: Final = 60.0
TRY_SECONDS: Final = 10.0


class Heartbeat:
    """Asks for the watcher's address at the first look of the scheduler, and then after a look each minute."""

    def __init__(self, url: str, *, looks: Looks) -> None:
        self._url: Final = url
        self._looks: Final = looks

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Beat until cancelled. What fails is logged, and harms nothing."""
        task_status.started()
        async with httpx.AsyncClient(timeout=TRY_SECONDS, follow_redirects=True) as client:
            while True:
                await self._looks.next()
                trouble = await self._beat(client)
                if trouble is not None:  # not the address: it is a secret of the watcher's
                    telemetry.log().warning(telemetry.HEARTBEAT_FAILED, reason=trouble)
                await anyio.sleep(EVERY_SECONDS)

    async def _beat(self, client: httpx.AsyncClient) -> str | None:
        """Ask for the address; why nobody heard, or None."""
        with anyio.move_on_after(TRY_SECONDS):
            try:
                async with client.stream("GET", self._url) as response:
                    return None if response.is_success else f"it answered {response.status_code}"
            except Exception as refused:  # noqa: BLE001 - the wall of a loop iteration: the next beat may be heard
                return f"it cannot be reached: {type(refused).__name__}"
        return f"no answer within {TRY_SECONDS:g} s"
