"""Deliver what runs have reported, until each report has arrived or was tried often enough.

Every node does it, none leads: a delivery is claimed for a while, and when its claim runs out without a word, as after
a `kill -9`, it is made again with the same `webhook-id`. So each arrives at least once. A host that hangs has its
own few places and takes none of the others'; no run waits for any.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from matins import telemetry
from matins.domain.errors import Unavailable
from matins.domain.webhooks import MOST_TRIES, pause_s
from matins.engine.lease import Lease
from matins.engine.streams.wake import Wake
from matins.engine.webhooks.sender import NotDelivered, Sender
from matins.storage import webhooks
from matins.storage.pool import Pool

POLL_SECONDS: Final = 1.0
BREATH_SECONDS: Final = 0.05
"""The pause after a look that found nothing."""

AT_ONCE: Final = 64
AT_ONCE_PER_HOST: Final = 8

DELIVERED_SECONDS: Final = 24 * 3600.0
"""How long a delivery that was made can be looked up and made again."""

DEAD_SECONDS: Final = 30 * 24 * 3600.0
"""How long one that was given up can be."""

_TIDY_SECONDS: Final = 3600.0
_BITE: Final = 1000


class Courier:
    """Delivers what is due, for as long as it runs.

    Where webhooks are disabled, `delivers` is false: what is due is then dead at once, with that reason, and can be
    replayed when they are not.
    """

    def __init__(
        self, *, pool: Pool, sender: Sender, lease: Lease, wake: Wake, delivers: bool = True
    ) -> None:
        self._pool: Final = pool
        self._sender: Final = sender
        self._lease: Final = lease
        self._wake: Final = wake
        self._delivers: Final = delivers
        self._under_way: Final[Counter[str]] = Counter()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Deliver until cancelled. One bad look does not end it."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._tidy)
            task_status.started()
            while True:
                started = 0
                try:
                    if self._lease.is_held:
                        started = await self._look(group)
                except Unavailable as away:
                    telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
                except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next look may do better
                    telemetry.log().exception(telemetry.LOOP_FAILED)
                if not started:
                    await anyio.sleep(BREATH_SECONDS)
                await self._wake.wait(POLL_SECONDS)

    async def _look(self, group: TaskGroup) -> int:
        """Start what is due, as far as there is room, and give how much; what ends wakes us for the rest."""
        if self._under_way.total() >= AT_ONCE:
            return 0
        rooms: dict[str, int] = {}
        left = AT_ONCE - self._under_way.total()
        hosts = await self._pool.run(webhooks.due_hosts, transaction=False)
        for host in sorted(hosts, key=self._under_way.__getitem__):
            room = min(left, AT_ONCE_PER_HOST - self._under_way[host])
            if room > 0:
                rooms[host] = room
                left -= room
        if not rooms:
            return 0
        started = await self._pool.run(partial(webhooks.claim, rooms=rooms))
        for claimed in started:
            self._under_way[claimed.host] += 1
            group.start_soon(self._deliver, claimed)
        return len(started)

    async def _deliver(self, claimed: webhooks.Claimed) -> None:
        try:
            if not self._delivers:
                await self._failed(claimed, "webhooks are disabled", is_last=True)
                return
            if claimed.attempt > MOST_TRIES:  # the last try's end was lost with its node
                await self._failed(claimed, "nothing is known of the last try")
                return
            try:
                await self._sender.send(claimed)
            except NotDelivered as reason:
                await self._failed(claimed, str(reason))
                return
            await self._pool.run(partial(webhooks.settle, delivery_id=claimed.delivery_id))
            telemetry.log().debug(
                telemetry.WEBHOOK_DELIVERED, delivery_id=str(claimed.delivery_id), attempt=claimed.attempt
            )
        except Unavailable as away:  # its claim runs out, and it is delivered again
            telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
        except Exception:  # noqa: BLE001 - the wall of one delivery: the others go on, and its claim runs out
            telemetry.log().exception(telemetry.LOOP_FAILED, delivery_id=str(claimed.delivery_id))
        finally:
            self._under_way[claimed.host] -= 1
            if not self._under_way[claimed.host]:
                del self._under_way[claimed.host]
            self._wake()

    async def _failed(self, claimed: webhooks.Claimed, reason: str, *, is_last: bool = False) -> None:
        after_s = None if is_last else pause_s(claimed.attempt)
        await self._pool.run(partial(webhooks.retry, claimed=claimed, after_s=after_s, error=reason))
        event = telemetry.WEBHOOK_FAILED if after_s is not None else telemetry.WEBHOOK_DEAD
        telemetry.log().warning(
            event,
            delivery_id=str(claimed.delivery_id),
            of=str(claimed.run_id or claimed.cron_id),
            host=claimed.host,
            attempt=claimed.attempt,
            reason=reason,
        )

    async def _tidy(self) -> None:
        """Forget what ended long ago, in bites that hold nobody up."""
        while True:
            forgotten = _BITE
            try:
                while forgotten >= _BITE:
                    forgotten = await self._pool.run(
                        partial(
                            webhooks.forget, delivered_s=DELIVERED_SECONDS, dead_s=DEAD_SECONDS, limit=_BITE
                        )
                    )
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: it may be done in an hour
                telemetry.log().exception(telemetry.LOOP_FAILED)
            await anyio.sleep(_TIDY_SECONDS)
