"""Assistant: a graph with a name, a configuration and a history of versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from matins.domain.ids import AssistantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What an assistant was at some time. `config`, `context` and `metadata` are encoded JSON."""

    assistant_id: AssistantId
    graph_id: str
    name: str
    description: str | None
    config: bytes
    context: bytes
    metadata: bytes
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistant(Version):
    """An assistant as stored: what its active version says, and when it was changed last."""

    updated_at: datetime
