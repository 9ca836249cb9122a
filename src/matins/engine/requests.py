"""What a client asks of a run, and what the run is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from matins.domain.assistants import Assistant
from matins.domain.configs import Json, merged_config, mirrored, section
from matins.domain.runs import RunKwargs


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a client asks for when it creates a run. Source: wire contract of run creation."""

    assistant_id: str
    input: object = None
    command: object = None
    checkpoint: Json | None = None
    metadata: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    context: Json = field(default_factory=dict)
    webhook: str | None = None
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    stream_mode: list[str] = field(default_factory=lambda: ["values"])
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    multitask_strategy: str = "enqueue"
    if_not_exists: str = "reject"
    after_seconds: float = 0
    durability: str = "async"
    strict_resume: bool = False
    on_completion: str = "delete"
    feedback_keys: list[str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the request, what the operator wants graphs to see in `configurable`: over what the client put there."""


def kwargs_of(request: RunRequest, assistant: Assistant, *, temporary: bool) -> RunKwargs:
    """Give what a run executes: the request's, over what the assistant brings."""
    config, context = mirrored(request.config, request.context)
    base_config = msgspec.json.decode(assistant.config, type=dict[str, object])
    config = merged_config(base_config, config)
    config["configurable"] = {**section(config, "configurable"), **request.headers}
    base_context = msgspec.json.decode(assistant.context, type=dict[str, object])
    return RunKwargs(
        graph_id=assistant.graph_id,
        input=request.input,
        command=request.command,
        config=config,
        context={**base_context, **context},
        stream_mode=request.stream_mode,
        stream_subgraphs=request.stream_subgraphs,
        resumable=request.stream_resumable,
        interrupt_before=request.interrupt_before,
        interrupt_after=request.interrupt_after,
        checkpoint=request.checkpoint,
        durability=request.durability,
        strict_resume=request.strict_resume,
        temporary=temporary,
        webhook=request.webhook,
        feedback_keys=request.feedback_keys,
    )


def metadata_of(metadata: Mapping[str, object], assistant: Assistant) -> Json:
    """Give a run's metadata: the assistant's, what the client said, and whose run it is."""
    return {
        **msgspec.json.decode(assistant.metadata, type=dict[str, object]),
        **metadata,
        "graph_id": assistant.graph_id,
        "assistant_id": str(assistant.assistant_id),
    }
