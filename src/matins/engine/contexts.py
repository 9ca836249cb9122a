"""Check what a cron's runs are to see of their thread before the cron is stored: only its graph can tell."""

from __future__ import annotations

from typing import Final

import msgspec

from matins.domain import policies
from matins.domain.access import Scope
from matins.domain.errors import Invalid
from matins.domain.policies import Given
from matins.engine import assistants
from matins.storage.pool import Pool
from matins.workers.pool import Pool as Workers

PATIENCE_SECONDS: Final = 60.0
"""How long making the graph may take."""


async def check(pool: Pool, workers: Workers, policy: Given, assistant_id: str, *, scope: Scope) -> None:
    """Refuse to cut or to copy what the assistant's graph does not keep as messages; it is only asked about these.

    Raises: Invalid, NotFound; what the desk refuses with; Unavailable.
    """
    context = policies.read(policy).context
    if context not in ("last_n", "fork"):
        return
    assistant = await pool.run(
        lambda conn: assistants.resolve(conn, assistant_id, graphs=workers, scope=scope)
    )
    asked = {"graph_id": assistant.graph_id, "config": msgspec.Raw(assistant.config)}
    answer = await workers.call("holds_messages", msgspec.json.encode(asked), timeout_s=PATIENCE_SECONDS)
    if not msgspec.json.decode(answer, type=bool):
        raise Invalid(
            f"policy.context_policy: '{context}' needs a graph with `messages` whose reducer is LangGraph's "
            f"add_messages, and without a DeltaChannel; '{assistant.graph_id}' is none"
        )
