"""Identifiers, and how each is minted. They are UUIDs; ours are version 7, so that they sort by time of birth."""

from __future__ import annotations

import os
import time
from typing import Final, NewType
from uuid import UUID, uuid5

AssistantId = NewType("AssistantId", UUID)
ThreadId = NewType("ThreadId", UUID)
RunId = NewType("RunId", UUID)
CronId = NewType("CronId", UUID)
NodeId = NewType("NodeId", UUID)

# Source: observed on the wire; it is none of the namespaces that RFC 4122 predefines.
_SYSTEM_ASSISTANTS: Final = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


def uuid7() -> UUID:
    """Give a new version 7 UUID: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562)."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def system_assistant_id(graph_id: str) -> AssistantId:
    """Give the id of the assistant that stands for a graph of langgraph.json, the same on every server."""
    return AssistantId(uuid5(_SYSTEM_ASSISTANTS, graph_id))
