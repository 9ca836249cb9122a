"""What `wait` and `join` answer for a run that has ended and that nobody here listened to: from what is on record."""

from __future__ import annotations

import msgspec

from matins.domain.access import EVERYONE
from matins.domain.configs import Json
from matins.domain.errors import Unavailable
from matins.domain.runs import Run, RunKwargs, RunStatus
from matins.domain.threads import Thread, question, questions
from matins.storage import runs, threads
from matins.storage.pool import Conn, Pool
from matins.workers.pool import Pool as Workers


async def on_record(pool: Pool, workers: Workers, run: Run) -> bytes:
    """Give the answer of a run that has ended.

    Raises: Unavailable when its thread went with it, or the desk does not answer.
    """

    async def work(conn: Conn) -> tuple[Run | None, Thread | None, str | None]:
        return (
            await runs.get(conn, run.run_id, thread_id=None, scope=EVERYONE),
            await threads.get(conn, run.thread_id, scope=EVERYONE),
            await threads.newest_checkpoint(conn, run.thread_id),
        )

    ended, thread, newest = await pool.run(work)
    if ended is None and thread is not None:
        return b"{}"  # undone, or deleted: there is nothing to tell
    if ended is None or thread is None:
        message = "The run's result is gone: its thread was deleted when it ended."
        raise Unavailable(message)
    if ended.status in (RunStatus.ERROR, RunStatus.TIMEOUT) and ended.error is not None:
        return b'{"__error__":' + ended.error + b"}"
    if ended.status is RunStatus.INTERRUPTED:
        return b"{}"
    if ended.last_checkpoint_id in (None, newest):
        return _with_interrupts(thread.values, questions(thread.interrupts))
    asked: Json = {
        "graph_id": msgspec.json.decode(run.kwargs, type=RunKwargs).graph_id,
        "thread_id": str(run.thread_id),
        "checkpoint_id": ended.last_checkpoint_id,
        "config": msgspec.json.decode(thread.config, type=dict[str, object]),
    }
    answer = await workers.call("state", msgspec.json.encode(asked), timeout_s=30)
    state = msgspec.json.decode(answer, type=_State)
    return _with_interrupts(bytes(state.values), [question(each) for each in state.interrupts])


class _State(msgspec.Struct):
    """What is needed of a state that was asked for."""

    values: msgspec.Raw
    interrupts: list[Json]


def _with_interrupts(values: bytes | None, interrupts: list[Json]) -> bytes:
    """Give a state as `wait` answers it: with the interrupts that wait for an answer, if any."""
    if not interrupts:
        return values or b"{}"
    state = msgspec.json.decode(values, type=dict[str, msgspec.Raw]) if values and values[:1] == b"{" else {}
    return msgspec.json.encode({**state, "__interrupt__": interrupts})
