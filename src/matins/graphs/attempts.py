"""Where an attempt of a run begins: at its input, or where an attempt before it has stopped.

A run whose process died goes on from its newest checkpoint. LangGraph knows only "go on from here", so what it would
do twice, or pass by, is found out here: a command that was stored already, a breakpoint that was reached.

What a run of a cron goes on with, when its policy answers its questions for it, is here too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import RESUME, TASKS
from langgraph.constants import TAG_HIDDEN
from langgraph.types import Command, Send

from matins.domain.policies import Answer
from matins.domain.runs import RunKwargs
from matins.graphs import openings
from matins.graphs.checkpoints import Saver
from matins.graphs.configure import forked, graph_input, policy_of
from matins.graphs.openings import NO_TASK
from matins.graphs.registry import Graph
from matins.storage.pool import Pool
from matins.workers.protocol import Execute

ANSWERS: Final = 25
"""How often an attempt is answered by its policy: a graph that asks again and again must end."""

Start: TypeAlias = tuple[object, RunnableConfig]
"""The input and the config to call the graph with."""


async def starts(
    graph: Graph, order: Execute, kwargs: RunKwargs, *, saver: Saver, config: RunnableConfig, pool: Pool
) -> AsyncGenerator[Start, None]:
    """Give what to call the graph with, once the call before has ended; nothing when there is nothing to do.

    The first is where the attempt begins. More follow while the graph asks and the run's policy answers.
    """
    begun = await _begin(graph, order, kwargs, saver=saver, config=config, pool=pool)
    if begun is not None:
        yield begun
    answer = policy_of(kwargs).on_interrupt
    if not isinstance(answer, Answer) or answer.resume_with is msgspec.UNSET:
        return
    for _ in range(ANSWERS):
        state = await graph.aget_state({"configurable": {"thread_id": str(order.thread_id)}})
        if not state.interrupts:
            return
        yield Command(resume={asked.id: answer.resume_with for asked in state.interrupts}), config


async def _begin(
    graph: Graph, order: Execute, kwargs: RunKwargs, *, saver: Saver, config: RunnableConfig, pool: Pool
) -> Start | None:
    """Give where the attempt begins; None when there is nothing to do: an earlier attempt had come to the end."""
    start, at = graph_input(kwargs), forked(config, kwargs)
    if order.attempt > 1:
        reached = await saver.aget_tuple(
            {"configurable": {"thread_id": str(order.thread_id), "checkpoint_ns": ""}}
        )
        if reached is not None and reached.metadata.get("run_id") == str(order.run_id):
            if openings.is_opening(reached):
                return None if kwargs.posts else openings.begun(start, config)
            return None if await _has_stopped(graph, kwargs, reached) else (None, config)
    if kwargs.posts:
        await openings.post(graph, kwargs, config, saver=saver)
        return None
    if await openings.opened(kwargs, at, saver=saver, pool=pool):
        return openings.begun(start, config)
    if order.attempt > 1 and isinstance(start, Command):
        start = _not_yet_stored(start, await saver.aget_tuple(at))
    return start, at


def _not_yet_stored(command: Command[Any], base: CheckpointTuple | None) -> Command[Any] | None:
    """Give what an earlier attempt has not stored of a command that it was started with.

    LangGraph stores the writes of a command at once, on the checkpoint that it starts from, and those of its update
    and its gotos would count twice. They are told by their channels: messages among them got ids.
    """
    targets = command.goto if isinstance(command.goto, list) else []  # as graph_input makes it
    asked = [TASKS if isinstance(target, Send) else f"branch:to:{target}" for target in targets]
    if isinstance(command.update, (dict, list)):
        asked += [item if isinstance(item, str) else item[0] for item in command.update]
    pending = (base and base.pending_writes) or []
    stored = [channel for task_id, channel, _ in pending if task_id == NO_TASK and channel != RESUME]
    if not asked or stored[-len(asked) :] != asked:
        return command
    return None if command.resume is None else Command(resume=command.resume)


async def _has_stopped(graph: Graph, kwargs: RunKwargs, reached: CheckpointTuple) -> bool:
    """Whether the run was at its end, or at a breakpoint: to LangGraph, going on from there means to pass it."""
    thread: RunnableConfig = {"configurable": {"thread_id": reached.config["configurable"]["thread_id"]}}
    state = await graph.aget_state(thread)
    ahead = {task.name for task in state.tasks}  # not `next`: it leaves out those that have written
    if not ahead:
        return True
    source = reached.metadata.get("source")
    before = kwargs.interrupt_before or graph.interrupt_before_nodes
    if source in ("input", "loop") and _names(before, ahead, graph):
        return True
    after = kwargs.interrupt_after or graph.interrupt_after_nodes
    if source != "loop" or not after:
        return False
    if kwargs.durability == "exit" or reached.parent_config is None:
        # The step before left no checkpoint: its nodes are those that saw the newest versions.
        seen = {
            name: max(versions.values())
            for name, versions in reached.checkpoint["versions_seen"].items()
            if versions and name in graph.nodes
        }
        behind = {name for name, version in seen.items() if version == max(seen.values())}
    else:
        behind = {task.name for task in (await graph.aget_state(reached.parent_config)).tasks}
    return _names(after, behind, graph)


def _names(breakpoints: str | Sequence[str], nodes: set[str], graph: Graph) -> bool:
    if breakpoints == "*":
        return any(TAG_HIDDEN not in (graph.nodes[name].tags or ()) for name in nodes if name in graph.nodes)
    return not nodes.isdisjoint(breakpoints)
