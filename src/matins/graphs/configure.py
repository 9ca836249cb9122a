"""What a run is called with: the RunnableConfig, the context and the input, from its stored kwargs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send
from langgraph.version import __version__ as langgraph_version

from matins import __version__
from matins.domain import policies
from matins.domain.policies import Policy
from matins.domain.runs import RunKwargs
from matins.graphs.contexts import fitted
from matins.graphs.registry import Graph
from matins.graphs.users import user_of
from matins.workers.protocol import Execute

_STRICT_RESUME: Final = "__pregel_strict_resume"
"""LangGraph's key for refusing an answer to an interrupt that does not wait; older ones do not know it."""

_PASSED: Final = ("recursion_limit", "max_concurrency", "run_name")
_COORDINATES: Final = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")


def run_config(order: Execute, kwargs: RunKwargs) -> RunnableConfig:
    """Give the config of a run: the client's, and over it what the server says of the run.

    Keys that LangGraph keeps for itself (`__...`) are dropped: they could reach into its machinery. The
    coordinates of a checkpoint to fork from are not in it: see `forked`.
    """
    asked = kwargs.config
    configurable = clients_own({**kwargs.context, **_mapping(asked.get("configurable"))})
    thread_id, run_id, assistant_id = str(order.thread_id), str(order.run_id), str(order.assistant_id)
    user = user_of(order.creator)
    configurable.update(
        thread_id=thread_id,
        run_id=run_id,
        assistant_id=assistant_id,
        graph_id=kwargs.graph_id,
        user_id=user.identity if user else "",
        langgraph_auth_user=user,
        langgraph_auth_user_id=user.identity if user else "",
        langgraph_auth_permissions=user.permissions if user else [],
    )
    if kwargs.strict_resume:
        configurable[_STRICT_RESUME] = True
    if order.cron_id is not None:
        configurable["cron_id"] = str(order.cron_id)
    metadata = {**_mapping(asked.get("metadata")), **_mapping(msgspec.json.decode(order.metadata))}
    metadata.update(
        graph_id=kwargs.graph_id,
        assistant_id=assistant_id,
        run_attempt=order.attempt,
        langgraph_version=langgraph_version,
        matins_version=__version__,
        thread_id=thread_id,
        run_id=run_id,
    )
    config: dict[str, Any] = {"configurable": configurable, "metadata": metadata, "run_id": order.run_id}
    if tags := asked.get("tags"):
        config["tags"] = tags
    config.update({key: asked[key] for key in _PASSED if asked.get(key) is not None})
    return cast("RunnableConfig", config)


def clients_own(configurable: object) -> dict[str, Any]:
    """Give what a client may say in `configurable`: nothing that LangGraph or we say there.

    These are LangGraph's own keys, the coordinates of a checkpoint, and who the user is.
    """
    return {
        key: value
        for key, value in _mapping(configurable).items()
        if not key.startswith(("__", "langgraph_auth_")) and key not in _COORDINATES
    }


def forked(config: RunnableConfig, kwargs: RunKwargs) -> RunnableConfig:
    """Give the config with the checkpoint the client wants to start from, if it named one."""
    named = {**_mapping(kwargs.config.get("configurable")), **(kwargs.checkpoint or {})}
    start = {key: named[key] for key in _COORDINATES if named.get(key)}
    if not start:
        return config
    forked = config.copy()
    forked["configurable"] = {**config.get("configurable", {}), "checkpoint_ns": "", **start}
    return forked


def context_for(graph: Graph, kwargs: RunKwargs) -> object:
    """Give the context: the client's, or else its `configurable`, each as far as the graph's schema knows it.

    None when there is none and the schema cannot be built from nothing.
    """
    asked = kwargs.context or _mapping(kwargs.config.get("configurable"))
    return fitted(graph.context_schema, asked)


def policy_of(kwargs: RunKwargs) -> Policy:
    """Give the policy of a cron's run; the default for any other."""
    return policies.DEFAULT if kwargs.policy is msgspec.UNSET else policies.read(kwargs.policy)


def graph_input(kwargs: RunKwargs) -> object:
    """Give what the graph starts from: a Command when there is one, else the input as the client sent it.

    A command that commands nothing continues from the last checkpoint, as null does.
    """
    return kwargs.input if kwargs.command is None else command_of(kwargs.command)


def command_of(command: Any) -> Command[Any] | None:
    """Give a command as LangGraph takes it, or None for one that commands nothing."""
    asked = _mapping(command)
    update, goto = asked.get("update"), asked.get("goto")
    if isinstance(update, list):
        update = [tuple(item) if isinstance(item, list) and len(item) == 2 else item for item in update]
    if update is None and goto is None and asked.get("resume") is None:
        return None
    targets = goto if isinstance(goto, list) else [] if goto is None else [goto]
    return Command(update=update, resume=asked.get("resume"), goto=[_target(target) for target in targets])


def _target(target: Any) -> Send | str:
    return Send(target["node"], target.get("input")) if isinstance(target, dict) else target


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
