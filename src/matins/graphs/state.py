"""What the API asks about a thread's state: read it, list its history, change it.

Parameters and answers are JSON. The shapes are the API's ThreadState; a thread that has no checkpoint has an
empty one. Whether the thread exists and who may see it is settled before a call gets here.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.types import PregelTask, StateSnapshot, StateUpdate

from matins.domain.access import EVERYONE
from matins.domain.errors import BadRequest, Conflict, Error, ThreadNotFound
from matins.domain.frames import STATE_UPDATE, Frame
from matins.domain.ids import ThreadId
from matins.domain.thread_state import checkpoint_named, selected
from matins.domain.threads import resting_status
from matins.graphs.checkpoints import Saver
from matins.graphs.configure import clients_own, command_of
from matins.graphs.invoke import has_next, interrupts_of
from matins.graphs.lending import RAISED, opened
from matins.graphs.registry import Registry
from matins.graphs.serde import encode
from matins.storage import checkpoints, frames, runs, thread_state, threads
from matins.storage.pool import Conn, Pool

Json = dict[str, Any]


class _Written(msgspec.Struct, kw_only=True):
    """What one node wrote in a superstep."""

    as_node: str
    values: Any = None
    command: Json | None = None

    def update(self) -> StateUpdate:
        """As LangGraph takes it."""
        written: Any = command_of(self.command) if self.command else self.values
        return StateUpdate(written, self.as_node)


class _Asked(msgspec.Struct, kw_only=True):
    """The parameters of every call; each uses its own."""

    graph_id: str
    thread_id: UUID
    checkpoint_id: str | None = None
    checkpoint: Json | None = None
    subgraphs: bool = False
    limit: int = 1
    before: str | Json | None = None
    metadata: Json | None = None
    values: Any = None
    as_node: str | None = None
    supersteps: list[list[_Written]] | None = None
    """What nodes wrote, step by step, in place of `values` and `as_node`."""
    select: list[str] = []
    config: Json = {}
    """The thread's: what its last run was called with, which a factory may ask for."""

    def updates(self) -> list[list[StateUpdate]]:
        """What is to be written, step by step."""
        if self.supersteps is None:
            return [[StateUpdate(self.values, self.as_node)]]
        return [[written.update() for written in step] for step in self.supersteps]

    def place(self) -> RunnableConfig:
        """The thread, or the checkpoint of it that was named."""
        named = self.checkpoint or {}
        coordinates = {
            key: named[key] for key in ("checkpoint_ns", "checkpoint_id", "checkpoint_map") if named.get(key)
        }
        if self.checkpoint_id:
            coordinates["checkpoint_id"] = self.checkpoint_id
        own = clients_own(self.config.get("configurable"))
        return {"configurable": {**own, **coordinates, "thread_id": str(self.thread_id)}}


async def answer(method: str, params: bytes, *, registry: Registry, pool: Pool) -> bytes:
    """Answer a Call: `state`, `history` or `update_state`.

    Raises: BadRequest, Conflict, ThreadNotFound, GraphNotFound.
    """
    try:
        asked = msgspec.json.decode(params, type=_Asked)
    except msgspec.DecodeError as bad:
        raise BadRequest(str(bad)) from bad
    match method:
        case "state":
            return encode(await _state(asked, registry, pool))
        case "history":
            return encode(await _history(asked, registry, pool))
        case "update_state":
            return encode(await _update_once(asked, registry, pool))
        case _:
            raise BadRequest(f"Unknown call: {method}")


async def _state(asked: _Asked, registry: Registry, pool: Pool) -> Json:
    config = asked.place()
    saver = Saver.reading(pool, allowed=registry.allowed)
    async with opened(registry, asked.graph_id, config, checkpointer=saver, access="threads.read") as graph:
        return selected(
            thread_state_of(await graph.aget_state(config, subgraphs=asked.subgraphs)), asked.select
        )


async def _history(asked: _Asked, registry: Registry, pool: Pool) -> list[Json]:
    config = asked.place()
    config["configurable"].pop("checkpoint_id", None)
    saver = Saver.reading(pool, allowed=registry.allowed)
    async with opened(registry, asked.graph_id, config, checkpointer=saver, access="threads.read") as graph:
        history = graph.aget_state_history(
            config, filter=asked.metadata, before=_before(asked.before), limit=asked.limit
        )
        return [selected(thread_state_of(snapshot), asked.select) async for snapshot in history]


def _before(named: str | Json | None) -> RunnableConfig | None:
    return {"configurable": {"checkpoint_id": checkpoint_named(named)}} if named else None


async def _update_once(asked: _Asked, registry: Registry, pool: Pool) -> Json:
    """Update in one transaction; one whose COMMIT was not answered is found again, and not done twice."""
    tried: list[Json] = []

    async def work(conn: Conn) -> Json:
        for updated in tried:
            place = updated["checkpoint"]
            if await checkpoints.search(
                conn,
                thread_id=place["thread_id"],
                checkpoint_ns=place["checkpoint_ns"],
                checkpoint_id=place["checkpoint_id"],
            ):
                return updated
        tried.append(await _update(asked, registry, conn))
        return tried[-1]

    return await pool.run(work)


async def _update(asked: _Asked, registry: Registry, conn: Conn) -> Json:
    """Write a checkpoint and what the thread shows of it, in the transaction of `conn`."""
    thread_id = ThreadId(asked.thread_id)
    if await threads.lock(conn, thread_id, scope=EVERYONE) is None:
        raise ThreadNotFound(thread_id)
    if await runs.in_flight(conn, thread_id):
        raise Conflict(f"Thread {thread_id} has in-flight runs")
    config = asked.place()
    config["configurable"].setdefault("checkpoint_ns", "")
    config["metadata"] = {"graph_id": asked.graph_id}
    saver = Saver.for_thread(conn, allowed=registry.allowed)
    async with opened(registry, asked.graph_id, config, checkpointer=saver, access="threads.update") as graph:
        try:
            written = await graph.abulk_update_state(config, asked.updates())
        except Error:
            raise
        except InvalidUpdateError as refused:
            raise BadRequest(str(refused)) from refused
        except RAISED as raised:
            # The values went through the user's reducers and writers; what these refuse is the caller's
            # mistake.
            raise BadRequest(f"The update was refused: {type(raised).__name__}: {raised}") from raised
        newest = await graph.aget_state({"configurable": {"thread_id": str(thread_id)}})
    values = encode(newest.values)
    is_followed = await thread_state.write_state(
        conn,
        thread_id,
        values=values,
        interrupts=encode(interrupts_of(newest)),
        status=resting_status(failed=False, has_next=has_next(newest)),
    )
    checkpoint = _checkpoint(written)
    if is_followed:
        update = b'{"checkpoint":%b,"values":%b}' % (encode(checkpoint), values)
        await frames.append_to_thread(conn, thread_id, Frame(STATE_UPDATE, update))
    return {
        "checkpoint": checkpoint,
        "configurable": checkpoint,
        "checkpoint_id": (checkpoint or {}).get("checkpoint_id"),
    }


def thread_state_of(snapshot: StateSnapshot) -> Json:
    """Give a snapshot as the API's ThreadState. Source: observed, wire contract of ThreadState."""
    checkpoint, parent = _checkpoint(snapshot.config), _checkpoint(snapshot.parent_config)
    return {
        "values": snapshot.values,
        "next": snapshot.next,
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": snapshot.metadata,
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [{"id": each.id, "value": each.value} for each in snapshot.interrupts],
        "checkpoint_id": checkpoint and checkpoint["checkpoint_id"],
        "parent_checkpoint_id": parent and parent["checkpoint_id"],
    }


def _task(task: PregelTask) -> Json:
    nested = task.state
    return {
        "id": task.id,
        "name": task.name,
        "path": task.path,
        "error": repr(task.error) if isinstance(task.error, Exception) else task.error,
        "interrupts": [{"id": each.id, "value": each.value} for each in task.interrupts],
        "checkpoint": None if nested is None or isinstance(nested, StateSnapshot) else nested["configurable"],
        "state": thread_state_of(nested) if isinstance(nested, StateSnapshot) else None,
        "result": task.result,
    }


def _checkpoint(config: RunnableConfig | None) -> Json | None:
    """Give the coordinates of a checkpoint; None when the config names a thread alone."""
    named: Json = (config or {}).get("configurable", {})
    if not named.get("checkpoint_id"):
        return None
    keys = ("checkpoint_id", "thread_id", "checkpoint_ns", "checkpoint_map")
    return {key: named[key] for key in keys if key in named}
