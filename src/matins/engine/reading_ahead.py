"""Read crons that will be due in a moment, and work out what firing them will write: without lock or write.

So at the instant little is left to do. What was worked out is kept from look to look, for as long as the cron and its
assistant are what they were: a herd that is due at the same instant is worked out before it, bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Final

import anyio.lowlevel

from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.budgets import UNLIMITED, Ceilings
from matins.domain.crons import LATE, Cron
from matins.domain.errors import Invalid, NotFound
from matins.domain.ids import AssistantId, CronId
from matins.engine import assistants, spending
from matins.engine.firing import Prepared, prepare
from matins.engine.looks import LOOK_SECONDS
from matins.storage import crons, fires
from matins.storage.pool import Conn, Pool

AHEAD: Final = timedelta(seconds=5)

BEHIND: Final = 20
"""How many may be so late that their slots are missed: a long downtime must not hold up what is due now."""

MOST: Final = 10_000
"""How many are read ahead at most."""

OCTETS: Final = 32 * 1024 * 1024
"""And how large their payloads may be together."""

_BREATH: Final = 20  # how many are worked out before others have their turn


class ReadingAhead:
    """Reads crons that are due, or will be within AHEAD. `now` gives the database's time as far as is known here."""

    def __init__(
        self, *, pool: Pool, graphs: assistants.Graphs, ceilings: Ceilings, now: Callable[[], datetime]
    ) -> None:
        self._pool: Final = pool
        self._graphs: Final = graphs
        self._ceilings: Final = ceilings
        self._now: Final = now
        self._kept: dict[CronId, Prepared] = {}

    async def read(self, *, chunk: int) -> tuple[list[Prepared], bool]:
        """Give the crons that are due before the next look, in that order, those that are long overdue first.

        And whether all that are due within AHEAD are worked out. So many are at a time, until they all are, or the
        first of them is due, or a look has lasted long enough.
        """
        began, now = time.monotonic(), self._now()

        async def look(conn: Conn) -> list[crons.Due]:
            behind = await crons.due(conn, until=now - LATE, limit=min(BEHIND, chunk))
            return behind + await crons.due(conn, after=now - LATE, until=now + AHEAD, limit=MOST)

        wanted = await self._pool.run(look, transaction=False)
        self._kept = await self._still_true(wanted)
        missing = [each.cron_id for each in wanted if each.cron_id not in self._kept]
        octets = sum(len(each.cron.payload) for each in self._kept.values())
        while missing and octets <= OCTETS:
            part, missing = missing[:chunk], missing[chunk:]
            prepared = await self._pool.run(partial(self._prepare, part), transaction=False)
            self._kept |= {each.cron.cron_id: each for each in prepared}
            octets += sum(len(each.cron.payload) for each in prepared)
            if wanted[0].due_at <= self._now() or time.monotonic() - began > LOOK_SECONDS:
                break
        first_missing = missing[0] if missing else None
        soon = self._now() + timedelta(seconds=LOOK_SECONDS)
        near = [
            kept
            for each in takewhile(lambda each: each.due_at <= soon and each.cron_id != first_missing, wanted)
            if (kept := self._kept.get(each.cron_id)) is not None and _is_same(kept.cron, each)
        ]
        near = await self._pool.run(lambda conn: self._limited(conn, near), transaction=False)
        return near, not missing or octets > OCTETS

    def forget(self) -> None:
        """Keep nothing: no cron will be due for a while."""
        self._kept = {}

    async def _still_true(self, wanted: Sequence[crons.Due]) -> dict[CronId, Prepared]:
        """Give those of what is kept that would be worked out the same way again."""
        same = {
            each.cron_id: kept
            for each in wanted
            if (kept := self._kept.get(each.cron_id)) is not None and _is_same(kept.cron, each)
        }
        if not same:
            return same
        ids = {kept.cron.assistant_id for kept in same.values()}
        found = await self._pool.run(lambda conn: self._assistants(conn, ids), transaction=False)
        return {
            cron_id: kept for cron_id, kept in same.items() if kept.assistant == found[kept.cron.assistant_id]
        }

    async def _assistants(self, conn: Conn, ids: set[AssistantId]) -> dict[AssistantId, Assistant | str]:
        """Give each assistant, once for all crons that share it, or the reason why there is none."""
        found: dict[AssistantId, Assistant | str] = {}
        for assistant_id in ids:
            try:
                found[assistant_id] = await assistants.resolve(
                    conn, str(assistant_id), graphs=self._graphs, scope=EVERYONE
                )
            except (NotFound, Invalid):
                found[assistant_id] = f"its assistant {assistant_id} does not exist"
        return found

    async def _prepare(self, ids: list[CronId], conn: Conn) -> list[Prepared]:
        """Work out what each cron will write, from the cron and its assistant."""
        ahead = await crons.get_many(conn, ids)
        found = await self._assistants(conn, {cron.assistant_id for cron in ahead})
        prepared: list[Prepared] = []
        for at in range(0, len(ahead), _BREATH):
            prepared += [prepare(cron, found[cron.assistant_id]) for cron in ahead[at : at + _BREATH]]
            await anyio.lowlevel.checkpoint()
        return prepared

    async def _limited(self, conn: Conn, near: list[Prepared]) -> list[Prepared]:
        """Give them with what each may still spend, and its last slot, where that counts: as it is now."""
        sound = [(each.cron, each.policy) for each in near if each.trouble is None]
        left = await spending.rooms(conn, sound, self._ceilings, now=self._now())
        spaced = [cron.cron_id for cron, policy in sound if policy.min_interval_seconds]
        last = await fires.newest_fired(conn, spaced) if spaced else {}
        return [
            replace(each, room=left.get(cron_id, UNLIMITED), last_fired=last.get(cron_id))
            if (cron_id := each.cron.cron_id) in left or cron_id in last
            else each
            for each in near
        ]


def _is_same(cron: Cron, due: crons.Due) -> bool:
    """Whether a cron is still as it was read."""
    return (cron.revision, cron.next_run_date) == (due.revision, due.next_run_date)
