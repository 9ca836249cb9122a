"""Where an attempt of a run begins: at its input, or where an attempt before it has stopped.

A run whose process died goes on from its newest checkpoint. LangGraph knows only "go on from here", so what it would
do twice, or pass by, is found out here: a command that was stored already, a breakpoint that was reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import RESUME, TASKS
from langgraph.constants import TAG_HIDDEN
from langgraph.types import Command, Send

from matins.domain.runs import RunKwargs
from matins.graphs.checkpoints import Saver
from matins.graphs.configure import forked, graph_input
from matins.graphs.registry import Graph
from matins.workers.protocol import Execute

_NO_TASK: Final = str(UUID(int=0))
"""Under this task LangGraph stores the writes that no node made."""


async def begin(
    graph: Graph, order: Execute, kwargs: RunKwargs, *, saver: Saver, config: RunnableConfig
) -> tuple[object, RunnableConfig] | None:
    """Give the input and the config to call the graph with; None when an earlier attempt had come to the end."""
    start, at = graph_input(kwargs), forked(config, kwargs)
    if order.attempt == 1:
        return start, at
    reached = await saver.aget_tuple(
        {"configurable": {"thread_id": str(order.thread_id), "checkpoint_ns": ""}}
    )
    if reached is not None and reached.metadata.get("run_id") == str(order.run_id):
        return None if await _has_stopped(graph, kwargs, reached) else (None, config)
    if isinstance(start, Command):
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
    stored = [channel for task_id, channel, _ in pending if task_id == _NO_TASK and channel != RESUME]
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
