"""What the server does to a cron by itself, and tells its webhook: in the transaction of what it tells of."""

from __future__ import annotations

from matins import telemetry
from matins.domain.alerts import Kind, alert, webhook_of
from matins.domain.crons import Cron
from matins.domain.fires import Outcome
from matins.storage import crons, fires, webhooks
from matins.storage.pool import Conn


async def pause(conn: Conn, cron: Cron, reason: str, *, waiting: Outcome = Outcome.SKIPPED) -> None:
    """Switch a cron off with a reason that people read, unless it was edited since; what waits of it is given up.

    The caller has its row. `waiting`: what becomes of slots that wait to be caught up.
    """
    await fires.give_up(conn, cron.cron_id, reason, outcome=waiting)
    if await crons.pause(conn, cron, reason):
        telemetry.log().error(telemetry.CRON_PAUSED, cron_id=str(cron.cron_id), reason=reason)
        await tell(conn, cron, Kind.PAUSED, reason)


async def tell(conn: Conn, cron: Cron, kind: Kind, reason: str) -> None:
    """Tell the cron's webhook, if it has one."""
    url = webhook_of(cron)
    if url is not None:
        now, _ = await crons.clock(conn)
        payload = alert(kind, cron, reason=reason, at=now)
        await webhooks.insert_alert(conn, cron.cron_id, owner=cron.owner, url=url, payload=payload)
