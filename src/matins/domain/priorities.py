"""Priority: which of the runs that wait on different threads comes first."""

from __future__ import annotations

from typing import Any, Final

import msgspec

MOST: Final = 5
"""What a user assigns is from -MOST, which comes first, to MOST."""

_STEP: Final = 100
"""Between two of these, more than the difference of a cron's run and the deepest child of a person's."""


class Asked(msgspec.Struct, kw_only=True):
    """What `priority.assign` decides by. Source: PriorityContext in langgraph_sdk/priority/types.py.

    `user`: the claims of whose run it is; None when nobody was asked who he is.
    """

    user: dict[str, Any] | None = None
    thread_id: str | None = None
    thread_metadata: dict[str, Any] = {}
    assistant_id: str
    graph_id: str
    assistant_metadata: dict[str, Any] = {}
    run_metadata: dict[str, Any] = {}
    cron_id: str | None = None


def priority_in_queue(assigned: int | None) -> int:
    """Give the priority of a person's run on a thread to which this was assigned; the highest is claimed first."""
    return -_STEP * (assigned or 0)
