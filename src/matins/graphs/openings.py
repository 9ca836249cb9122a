"""What a cron's run finds on its thread before it begins, as its policy says; and how what it said gets home.

    last_n   the newest messages
    fresh    nothing
    fork     what its cron's thread holds, on a thread of its own

Each is one checkpoint that the run puts before LangGraph is called, behind its fence: what was there before stays in
the history, undoing the run takes it away, and an attempt that finds it begins there. No node starts for it, and no
edge is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import BinaryOperatorAggregate, DeltaChannel
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.types import RESUME
from langgraph.graph.message import add_messages

from matins.domain.ids import ThreadId
from matins.domain.runs import RunKwargs
from matins.graphs.checkpoints import Saver
from matins.graphs.configure import policy_of
from matins.graphs.registry import Graph
from matins.storage import threads
from matins.storage.pool import Pool

NO_TASK: Final = str(UUID(int=0))
"""Under this task LangGraph stores the writes that no node made."""

_MESSAGES: Final = "messages"

_MARK: Final = "matins_opening"
"""In a checkpoint's metadata: the run that put it has not begun yet."""

_RESUMING: Final = "__pregel_resuming"
"""LangGraph's key for going on from a checkpoint, as it would from one that the same run has put."""

_COUNTERS: Final = "counters_since_delta_snapshot"
"""In a checkpoint's metadata: what LangGraph counts of its DeltaChannels."""

# Called without messages it gives a reducer.
_FORMATTING: Final[Any] = add_messages(format=None)  # type: ignore[call-arg]


def holds_messages(graph: Graph) -> bool:
    """Whether the graph's state can be cut or copied: LangGraph's add_messages is the reducer of its `messages`.

    The value of a DeltaChannel is spread over the checkpoints of a thread, so one of them cannot stand for it.
    """
    channel = graph.channels.get(_MESSAGES)
    if any(isinstance(each, DeltaChannel) for each in graph.channels.values()):
        return False
    return isinstance(channel, BinaryOperatorAggregate) and (
        channel.operator is add_messages or getattr(channel.operator, "func", None) is _FORMATTING.func
    )


async def opened(kwargs: RunKwargs, at: RunnableConfig, *, saver: Saver, pool: Pool) -> bool:
    """Put the checkpoint that a run is to begin at; False when it begins at what there is. `at`: where that is."""
    policy = policy_of(kwargs)
    if policy.context == "append":
        return False
    base = await (_home(kwargs, saver, pool) if policy.context == "fork" else saver.aget_tuple(at))
    if base is None:
        return False
    match policy.context:
        case "fresh":  # without a parent: a DeltaChannel would be read on from there
            await _put(saver, at, empty_checkpoint(), base)
        case "fork":
            copied = _copied(base, _messages(base), saver)
            await _put(saver, at, copied, base, versions=copied["channel_versions"], carried=_unapplied(base))
        case "last_n":
            messages = _messages(base) or []
            kept = newest(messages, policy.last_n or len(messages))
            if len(kept) == len(messages):
                return False
            await _put(saver, at, _copied(base, kept, saver), base, parent=base, carried=_unapplied(base))
    return True


def is_opening(reached: CheckpointTuple) -> bool:
    """Whether the run that put the checkpoint has not begun."""
    return _MARK in reached.metadata


def begun(start: object, config: RunnableConfig) -> tuple[object, RunnableConfig]:
    """Give what to call the graph with at the opening of the same run: LangGraph would pass the input by."""
    if start is None:
        return start, config
    beginning = config.copy()
    beginning["configurable"] = {**config.get("configurable", {}), _RESUMING: False}
    return start, beginning


def newest(messages: Sequence[BaseMessage], most: int) -> list[BaseMessage]:
    """Give the newest `most` messages, and all of the system's, which do not count.

    They begin with a human's, and not between a call of a tool and its result. When none of the newest is a human's,
    that is the whole newest turn, however long it is.
    """
    said = [at for at, message in enumerate(messages) if message.type != "system"]
    if len(said) <= most:
        return list(messages)
    answered = {
        message.tool_call_id: at for at, message in enumerate(messages) if isinstance(message, ToolMessage)
    }
    starts: list[int] = []
    is_whole_until = -1  # a tool's result is still to come, up to there
    for at in said:
        message = messages[at]
        if at > is_whole_until:
            starts.append(at)
        if isinstance(message, AIMessage):
            results = [answered.get(call["id"] or "", -1) for call in message.tool_calls]
            is_whole_until = max([is_whole_until, *results])
    humans = [at for at in starts if messages[at].type == "human"] or starts
    first = next((at for at in humans if at >= said[-most]), humans[-1])
    return [message for at, message in enumerate(messages) if at >= first or message.type == "system"]


async def post(graph: Graph, kwargs: RunKwargs, place: RunnableConfig, *, saver: Saver) -> None:
    """Add to a thread what a copy of it has said, as the run's command has it. Nothing of the graph is run.

    A thread that waits for an answer goes on waiting: the message is noted on its checkpoint, and becomes part of the
    next one. Repeated, it adds nothing.
    """
    said = [AIMessage.model_validate(each) for each in kwargs.command["update"][_MESSAGES]]  # type: ignore[index]
    base = await saver.aget_tuple(place)
    if base is not None and (await graph.aget_state(place)).tasks:
        await saver.aput_writes(base.config, [*_unapplied(base, whole=True), (_MESSAGES, said)], NO_TASK)
        return
    before = CheckpointTuple(place, empty_checkpoint(), {"step": -2}) if base is None else base
    messages = add_messages(_messages(before) or [], said)  # type: ignore[arg-type]
    posted = _copied(before, cast("list[BaseMessage]", messages), saver)
    await _put(saver, place, posted, before, parent=base, carried=_unapplied(before))


async def _home(kwargs: RunKwargs, saver: Saver, pool: Pool) -> CheckpointTuple | None:
    """Give the checkpoint at which the thread that is copied is at rest: not one of a run that is at work there."""
    if kwargs.forked_from is msgspec.UNSET:
        return None
    source = ThreadId(kwargs.forked_from)
    resting = await pool.run(lambda conn: threads.resting_checkpoint(conn, source), transaction=False)
    if resting is None:
        return None
    return await saver.aget_tuple(
        {"configurable": {"thread_id": str(source), "checkpoint_ns": "", "checkpoint_id": resting}}
    )


def _messages(base: CheckpointTuple) -> list[BaseMessage] | None:
    """Give the messages of a checkpoint, with those that are noted on it; None when it has none."""
    messages = base.checkpoint["channel_values"].get(_MESSAGES)
    for task_id, channel, value in base.pending_writes or ():
        if (task_id, channel) == (NO_TASK, _MESSAGES):
            messages = add_messages(messages or [], value)
    return cast("list[BaseMessage] | None", messages)


def _unapplied(base: CheckpointTuple, *, whole: bool = False) -> list[tuple[str, Any]]:
    """Give what a command has noted on a checkpoint, but for an answer; its messages only when it is to be `whole`."""
    left_out = {RESUME} if whole else {RESUME, _MESSAGES}
    noted = base.pending_writes or ()
    return [
        (channel, value)
        for task_id, channel, value in noted
        if task_id == NO_TASK and channel not in left_out
    ]


def _copied(base: CheckpointTuple, messages: list[BaseMessage] | None, saver: Saver) -> Checkpoint:
    """Give a checkpoint like another, with these messages."""
    values, versions = {**base.checkpoint["channel_values"]}, {**base.checkpoint["channel_versions"]}
    if messages is not None:
        values[_MESSAGES] = messages
        latest = max((str(version) for version in versions.values()), default=None)
        versions[_MESSAGES] = saver.get_next_version(latest, None)
    return {**base.checkpoint, "channel_values": values, "channel_versions": versions}


async def _put(
    saver: Saver,
    place: RunnableConfig,
    checkpoint: Checkpoint,
    base: CheckpointTuple,
    *,
    parent: CheckpointTuple | None = None,
    versions: ChannelVersions | None = None,
    carried: Sequence[tuple[str, Any]] = (),
) -> None:
    """Put a checkpoint that follows `base`, with what is noted on it.

    `versions` of the channels whose values are to be stored; else of those that `base` has not.
    """
    step = base.metadata.get("step", -2) + 1
    made: Checkpoint = {**checkpoint, "id": str(uuid6(clock_seq=step)), "ts": empty_checkpoint()["ts"]}
    known = base.checkpoint["channel_versions"]
    stored = versions or {
        name: version for name, version in made["channel_versions"].items() if known.get(name) != version
    }
    where = {**place.get("configurable", {}), "checkpoint_ns": "", "checkpoint_id": None}
    if carried:  # first: what is there when the checkpoint is must be all of it
        at: RunnableConfig = {"configurable": {**where, "checkpoint_id": made["id"]}}
        await saver.aput_writes(at, carried, NO_TASK)
    if parent is not None:
        where["checkpoint_id"] = parent.config["configurable"]["checkpoint_id"]
    metadata: Any = {
        **{key: value for key, value in base.metadata.items() if key == _COUNTERS},
        "source": "update",
        "step": step,
        "parents": {},
        _MARK: True,
    }
    following: RunnableConfig = {"configurable": where, "metadata": place.get("metadata", {})}
    await saver.aput(following, made, metadata, stored)
