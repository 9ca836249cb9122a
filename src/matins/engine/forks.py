"""A cron's run on a copy of its thread, and what becomes of it: what it said in the end is posted to the thread.

    fire -> a fresh thread, its run -> the worker copies the thread's state -> settled, the copy deleted, and a
                                                                              run that posts waits on the thread

The last three are one transaction, so it is posted once. The posting is an ordinary run of the thread, which waits
for its turn there and starts no node.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec

from matins.domain.access import EVERYONE
from matins.domain.ids import RunId, ThreadId, uuid7
from matins.domain.runs import NewRun, Run, RunKwargs, RunStatus
from matins.storage import firing, queue, threads
from matins.storage.pool import Conn

_KEPT: Final = ("content", "id", "name", "response_metadata", "usage_metadata")
"""What is posted of a message: no calls of tools, whose results are not there."""


class _Kwargs(msgspec.Struct):
    forked_from: UUID | None = None


class _Values(msgspec.Struct):
    messages: list[Any] = []


async def settle(conn: Conn, run: Run, end: queue.End) -> Run | None:
    """Settle a run, as queue.settle does; of a copy's that is a success, post what it said. Must be in a transaction.

    Raises: LeaseLost.
    """
    source = msgspec.json.decode(run.kwargs, type=_Kwargs).forked_from if run.temporary else None
    if source is None:
        return await queue.settle(conn, run.held, end)
    thread = await threads.lock(conn, ThreadId(source), scope=EVERYONE)  # first, as whoever deletes it does
    ended = await queue.settle(conn, run.held, end)
    if thread is None or ended is None or ended.status is not RunStatus.SUCCESS or end.has_next:
        return ended
    message = _said(end.values)
    if message is not None:
        await _post(conn, run, thread.thread_id, message)
    return ended


def _said(values: bytes | None) -> dict[str, Any] | None:
    """Give what a conversation ends with, if that is the assistant's word."""
    try:
        messages = msgspec.json.decode(values or b"{}", type=_Values).messages
    except msgspec.ValidationError:
        return None
    last = messages[-1] if messages else None
    if not isinstance(last, dict) or last.get("type") != "ai" or not last.get("content"):
        return None
    return {name: last[name] for name in _KEPT if last.get(name)}


async def _post(conn: Conn, run: Run, thread_id: ThreadId, message: dict[str, Any]) -> None:
    worked = msgspec.json.decode(run.kwargs, type=RunKwargs)
    kwargs = RunKwargs(
        graph_id=worked.graph_id,
        config=worked.config,
        context=worked.context,
        command={"update": {"messages": [message]}},
        posts=True,
    )
    whose = {"graph_id": worked.graph_id, "assistant_id": str(run.assistant_id)}
    await firing.post(
        conn,
        NewRun(
            run_id=RunId(uuid7()),
            thread_id=thread_id,
            assistant_id=run.assistant_id,
            metadata=msgspec.json.encode({**whose, "posted_by": str(run.run_id)}),
            kwargs=msgspec.json.encode(kwargs),
            creator=run.creator,
        ),
    )
    await threads.occupy(conn, thread_id, metadata=msgspec.json.encode(whose), config=None)
