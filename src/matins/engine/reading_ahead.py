"""Read crons that will be due in a moment, and work out what firing them will write: without lock or write.

So at the instant little is left to do. As many are read as there is time for, a chunk after the other: a herd that is
due at the same instant is worked out before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.budgets import UNLIMITED, Ceilings
from matins.domain.crons import LATE, Cron
from matins.domain.errors import Invalid, NotFound
from matins.domain.ids import AssistantId
from matins.engine import assistants, spending
from matins.engine.firing import Prepared, prepare
from matins.storage import crons, fires
from matins.storage.pool import Conn, Pool

AHEAD: Final = timedelta(seconds=1)

BEHIND: Final = 20
"""How many may be so late that their slots are missed: a long downtime must not hold up what is due now."""

CHUNKS: Final = 20
"""How many chunks are read ahead at most."""

OCTETS: Final = 32 * 1024 * 1024
"""And how large their payloads may be together."""


class ReadingAhead:
    """Reads crons that are due, or will be within AHEAD. `now` gives the database's time as far as is known here."""

    def __init__(
        self, *, pool: Pool, graphs: assistants.Graphs, ceilings: Ceilings, now: Callable[[], datetime]
    ) -> None:
        self._pool: Final = pool
        self._graphs: Final = graphs
        self._ceilings: Final = ceilings
        self._now: Final = now

    async def read(self, *, chunk: int) -> list[Prepared]:
        """Give the crons in the order in which they are due, those that are long overdue first.

        At least one chunk, when there are so many; no more than fit before the first of them is due.
        """
        now, found, octets = self._now(), list[Prepared](), 0
        behind = await self._pool.run(
            lambda conn: crons.due(conn, until=now - LATE, limit=min(BEHIND, chunk)), transaction=False
        )
        read = 0
        for number in range(CHUNKS):
            most = max(1, chunk - len(behind)) if number == 0 else chunk
            ahead = await self._pool.run(
                lambda conn, most=most, skip=read: crons.due(  # type: ignore[misc]
                    conn, after=now - LATE, until=now + AHEAD, limit=most, skip=skip
                ),
                transaction=False,
            )
            read, is_last = read + len(ahead), len(ahead) < most
            if number == 0:
                ahead = [*behind, *ahead]
            if not ahead:
                break
            found += await self._pool.run(lambda conn, of=ahead: self._prepare(conn, of), transaction=False)  # type: ignore[misc]
            octets += sum(len(cron.payload) for cron in ahead)
            first = found[0].cron.due_at
            is_time = number > 0 and first is not None and first <= self._now()
            if is_last or is_time or octets > OCTETS:
                break
        return found

    async def _prepare(self, conn: Conn, ahead: list[Cron]) -> list[Prepared]:
        """Find what each cron's slots need: its assistant, once for all that share it, its payload, its last slot."""
        found: dict[AssistantId, Assistant | str] = {}
        for assistant_id in {cron.assistant_id for cron in ahead}:
            try:
                found[assistant_id] = await assistants.resolve(
                    conn, str(assistant_id), graphs=self._graphs, scope=EVERYONE
                )
            except (NotFound, Invalid):
                found[assistant_id] = f"its assistant {assistant_id} does not exist"
        prepared = [prepare(cron, found[cron.assistant_id]) for cron in ahead]
        left = await spending.rooms(
            conn,
            [(each.cron, each.policy) for each in prepared if each.trouble is None],
            self._ceilings,
            now=self._now(),
        )
        spaced = [each.cron.cron_id for each in prepared if each.policy.min_interval_seconds]
        last = await fires.newest_fired(conn, spaced) if spaced else {}
        return [
            replace(each, room=left.get(cron_id, UNLIMITED), last_fired=last.get(cron_id))
            if (cron_id := each.cron.cron_id) in left or cron_id in last
            else each
            for each in prepared
        ]
