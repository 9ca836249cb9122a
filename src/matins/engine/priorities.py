"""Ask the user's `priority.assign` about threads whose first run is about to be made, and about crons.

Asked before the transaction, for it may take its time; what is stored first counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from matins.domain.access import Scope
from matins.domain.assistants import Assistant
from matins.domain.errors import Unavailable
from matins.domain.ids import CronId, ThreadId
from matins.domain.priorities import Asked
from matins.domain.threads import Thread
from matins.engine import assistants
from matins.storage import threads
from matins.storage.pool import Conn, Pool
from matins.workers.pool import Pool as Workers

PATIENCE_SECONDS: Final = 5.0
"""How long a run or a cron waits to hear its priority before it is made without one."""


class Priorities:
    """What is assigned to threads and crons."""

    def __init__(self, *, pool: Pool, workers: Workers) -> None:
        self._pool: Final = pool
        self._workers: Final = workers

    async def assign(
        self,
        assistant_id: str,
        *,
        thread_id: ThreadId | None,
        metadata: Mapping[str, object],
        scope: Scope,
        creator: bytes | None = None,
        cron_id: CronId | None = None,
    ) -> int | None:
        """Give the priority to store with a new run's thread, or with a new cron.

        None when nobody assigns any, the thread has its own, or the function failed. `metadata` is the run's.
        Raises: Invalid, NotFound when there is no such assistant.
        """
        if not self._workers.assigns_priority:
            return None

        async def look(conn: Conn) -> tuple[Thread | None, Assistant]:
            thread = None if thread_id is None else await threads.get(conn, thread_id, scope=scope)
            return thread, await assistants.resolve(conn, assistant_id, graphs=self._workers, scope=scope)

        thread, assistant = await self._pool.run(look)
        if thread is not None and thread.priority is not None:
            return None
        asked = Asked(
            user=msgspec.json.decode(creator) if creator else None,
            thread_id=str(thread_id) if thread_id else None,
            thread_metadata=msgspec.json.decode(thread.metadata) if thread else {},
            assistant_id=str(assistant.assistant_id),
            graph_id=assistant.graph_id,
            assistant_metadata=msgspec.json.decode(assistant.metadata),
            run_metadata=dict(metadata),
            cron_id=str(cron_id) if cron_id else None,
        )
        try:
            answer = await self._workers.call(
                "priority", msgspec.json.encode(asked), timeout_s=PATIENCE_SECONDS
            )
        except Unavailable:
            return None
        return msgspec.json.decode(answer, type=int | None)
