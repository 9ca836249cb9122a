"""Threads, where a rule is in between: prune, patch_state."""

from __future__ import annotations

from collections.abc import Sequence

from matins.domain.access import Scope
from matins.domain.errors import Conflict, Invalid, ThreadNotFound
from matins.domain.ids import ThreadId
from matins.storage import checkpoints, runs, threads
from matins.storage.pool import Conn


async def prune(conn: Conn, thread_ids: Sequence[ThreadId], *, strategy: str, scope: Scope) -> int:
    """Delete threads, or with `keep_latest` all their checkpoints but the newest; give how many were there.

    Must be in a transaction: all of them are pruned, or none.
    Raises: Conflict when a run is in flight on one that is to keep its latest; Invalid when one cannot be pruned.
    """
    if strategy == "delete":
        return len(await threads.delete(conn, list(thread_ids), scope=scope))
    pruned = 0
    for thread_id in sorted(
        set(thread_ids)
    ):  # in one order, so that two who prune do not wait for each other
        if await threads.lock(conn, thread_id, scope=scope) is None:
            continue
        if await runs.in_flight(conn, thread_id):
            raise Conflict(f"Thread {thread_id} has in-flight runs")
        if await checkpoints.list_delta_threads(conn, thread_ids=[str(thread_id)]):
            raise Invalid(
                f"Thread {thread_id} uses a DeltaChannel, whose value is made of all its checkpoints"
            )
        await checkpoints.keep_latest(conn, thread_id=str(thread_id))
        pruned += 1
    return pruned


async def patch_state(conn: Conn, thread_id: ThreadId, *, metadata: bytes, scope: Scope) -> None:
    """Merge metadata shallowly into the thread's and, but for the keys that LangGraph uses, its newest checkpoint's.

    Must be in a transaction.
    Raises: ThreadNotFound; Conflict when a run is in flight, whose checkpoints these are.
    """
    if await threads.lock(conn, thread_id, scope=scope) is None:
        raise ThreadNotFound(thread_id)
    if await runs.in_flight(conn, thread_id):
        raise Conflict(f"Thread {thread_id} has in-flight runs")
    await threads.update(conn, thread_id, scope=scope, metadata=metadata)
    await checkpoints.merge_metadata(conn, thread_id=str(thread_id), metadata=metadata)
