"""Check the condition of a cron before the cron is stored: only a worker can tell whether there is one."""

from __future__ import annotations

from typing import Final

import msgspec

from matins.domain.policies import Given
from matins.workers.pool import Pool as Workers

PATIENCE_SECONDS: Final = 30.0
"""How long importing it may take."""


async def check(workers: Workers, given: Given) -> None:
    """Pass when the given fields of a policy name a condition that can be asked, or none.

    Raises: Invalid naming the field; Unavailable when no worker answers in time.
    """
    if given.get("condition") is not None:
        asked = msgspec.json.encode({"condition": given["condition"]})
        await workers.call("condition", asked, timeout_s=PATIENCE_SECONDS)
