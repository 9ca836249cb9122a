"""Ask the desk about a thread: what needs its graph at hand."""

from __future__ import annotations

from typing import Final

import msgspec

from matins.api.parts import Parts
from matins.domain.threads import Thread

CALL_SECONDS: Final = 60
"""How long a state may take to read or write: more than any graph's factory and reducers should, less than clients
wait for a reply that sends no heartbeat."""


async def ask(parts: Parts, method: str, thread: Thread, graph_id: str, params: dict[str, object]) -> bytes:
    """Give the answer, as JSON. Raises: what the desk refuses with; Unavailable."""
    of_thread = {"thread_id": thread.thread_id, "config": msgspec.Raw(thread.config)}
    asked = msgspec.json.encode({"graph_id": graph_id, **of_thread, **params})
    return await parts.workers.call(method, asked, timeout_s=CALL_SECONDS)
