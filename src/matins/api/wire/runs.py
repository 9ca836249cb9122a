"""Shapes of runs."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from matins.api.wire.json import Checkpoint, Config, Json, Limit, Offset, compact, instant
from matins.domain.errors import Invalid
from matins.domain.runs import Run as Stored
from matins.engine.requests import RunRequest

Mode: TypeAlias = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"
]
Nodes: TypeAlias = Literal["*"] | list[str]
Durability: TypeAlias = Literal["sync", "async", "exit"]
Webhook: TypeAlias = Annotated[
    str, msgspec.Meta(min_length=1, max_length=65536, extra_json_schema={"format": "uri"})
]

_COMMANDS = frozenset({"update", "resume", "goto"})


class Run(msgspec.Struct, kw_only=True):
    """A run. `kwargs` is what it executes and opaque. Source: observed, keys in this order."""

    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    metadata: msgspec.Raw
    status: str
    kwargs: msgspec.Raw
    multitask_strategy: str
    created_at: str
    updated_at: str
    langsmith_session_name: None = None


COLUMNS = frozenset(Run.__struct_fields__)


def run(stored: Stored) -> Run:
    """Give a stored run as clients see it."""
    return Run(
        run_id=stored.run_id,
        thread_id=stored.thread_id,
        assistant_id=stored.assistant_id,
        metadata=compact(stored.metadata),
        status=stored.status.value,
        kwargs=msgspec.Raw(stored.kwargs),
        multitask_strategy=stored.multitask_strategy,
        created_at=instant(stored.created_at),
        updated_at=instant(stored.updated_at),
    )


def created(stored: Stored) -> Run:
    """Give a run that was just created: clients are told `pending` even when it was started at once."""
    shown = run(stored)
    shown.status = "pending"
    return shown


class RunCreate(msgspec.Struct, kw_only=True):
    """What creates a run, on a thread or without one."""

    assistant_id: str
    input: Any = None
    command: Json | None = None
    metadata: Json = {}
    config: Config = msgspec.field(default_factory=Config)
    context: Json = {}
    webhook: Webhook | msgspec.UnsetType = msgspec.UNSET
    interrupt_before: Nodes | msgspec.UnsetType = msgspec.UNSET
    interrupt_after: Nodes | msgspec.UnsetType = msgspec.UNSET
    stream_mode: Mode | list[Mode] = "values"
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    feedback_keys: list[str] | msgspec.UnsetType = msgspec.UNSET
    on_disconnect: Literal["cancel", "continue"] = "continue"
    after_seconds: Annotated[float, msgspec.Meta(ge=0, le=315_360_000)] = 0
    durability: Durability | msgspec.UnsetType = msgspec.UNSET
    checkpoint_during: bool = True

    def request(self) -> RunRequest:
        """Give it as the engine takes it.

        Raises: Invalid.
        """
        if self.command and not _COMMANDS & self.command.keys():
            raise Invalid(f"command must have at least one of {', '.join(sorted(_COMMANDS))}")
        return RunRequest(
            assistant_id=self.assistant_id,
            input=self.input,
            command=self.command or None,
            metadata=self.metadata,
            config=self.config.plain(),
            context=self.context,
            webhook=self.webhook or None,
            interrupt_before=self.interrupt_before or None,
            interrupt_after=self.interrupt_after or None,
            stream_mode=[self.stream_mode] if isinstance(self.stream_mode, str) else list(self.stream_mode),
            stream_subgraphs=self.stream_subgraphs,
            stream_resumable=self.stream_resumable,
            feedback_keys=self.feedback_keys or None,
            after_seconds=self.after_seconds,
            durability=self.durability or ("async" if self.checkpoint_during else "exit"),
            **self.placed(),
        )

    def placed(self) -> dict[str, Any]:
        """The fields that only a run on a thread has, or only one without. Raises: Invalid."""
        return {}


class RunOnThread(RunCreate, kw_only=True):
    """What creates a run on a thread. `checkpoint_id` is short for a checkpoint of the root graph."""

    checkpoint: Checkpoint | msgspec.UnsetType = msgspec.UNSET
    checkpoint_id: str | msgspec.UnsetType | None = msgspec.UNSET
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"] = "enqueue"
    if_not_exists: Literal["create", "reject"] = "reject"
    strict_resume: bool = False

    def placed(self) -> dict[str, Any]:
        """The fields of a run on a thread. Raises: Invalid."""
        checkpoint = self.checkpoint.plain() if self.checkpoint else {}
        if self.checkpoint_id:
            checkpoint["checkpoint_id"] = self.checkpoint_id
        if "checkpoint_id" in checkpoint:
            try:
                UUID(str(checkpoint["checkpoint_id"]))
            except ValueError:
                raise Invalid("Invalid checkpoint ID") from None
        return {
            "checkpoint": checkpoint or None,
            "multitask_strategy": self.multitask_strategy,
            "if_not_exists": self.if_not_exists,
            "strict_resume": self.strict_resume,
        }


class RunWithoutThread(RunCreate, kw_only=True):
    """What creates a run on a thread of its own, which goes when the run has ended unless it is kept."""

    on_completion: Literal["delete", "keep"] = "delete"

    def placed(self) -> dict[str, Any]:
        """The fields of a run without a thread."""
        return {"on_completion": self.on_completion}


LARGEST_BATCH: Final = 1000

Batch: TypeAlias = Annotated[list[RunWithoutThread], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]
"""What creates several runs, each without a thread."""


class CancelMany(msgspec.Struct, kw_only=True):
    """Which runs to cancel: all in a status, or some of a thread."""

    status: Literal["pending", "running", "all"] | msgspec.UnsetType = msgspec.UNSET
    thread_id: UUID | msgspec.UnsetType = msgspec.UNSET
    run_ids: Annotated[list[UUID], msgspec.Meta(max_length=1000)] | msgspec.UnsetType = msgspec.UNSET


Chosen: TypeAlias = Annotated[
    CancelMany,
    msgspec.Meta(
        extra_json_schema={
            "anyOf": [
                {
                    "required": ["status"],
                    "properties": {"thread_id": False, "run_ids": {"maxItems": 0}},
                },
                {
                    "required": ["thread_id", "run_ids"],
                    "properties": {"status": False, "run_ids": {"minItems": 1}},
                },
            ]
        }
    ),
]
"""Runs are chosen in one way or the other."""


class RunSearch(msgspec.Struct, kw_only=True):
    """Which runs to find, of all threads. `metadata` finds a cron's runs: `{"cron_id": ...}`."""

    metadata: Json = {}
    status: (
        Literal["pending", "running", "success", "error", "timeout", "interrupted"] | msgspec.UnsetType
    ) = msgspec.UNSET
    thread_id: UUID | msgspec.UnsetType = msgspec.UNSET
    assistant_id: UUID | msgspec.UnsetType = msgspec.UNSET
    limit: Limit = 10
    offset: Offset = 0
    select: list[
        Literal[
            "run_id",
            "thread_id",
            "assistant_id",
            "metadata",
            "status",
            "kwargs",
            "multitask_strategy",
            "created_at",
            "updated_at",
        ]
    ] = []
