"""What happens to a new run on a thread that has others in flight: a pure decision.

enqueue    waits its turn
reject     is refused
interrupt  those in flight end as they are; the new run starts on what they leave
rollback   those in flight are undone; the new run starts on what was before them
"""

from __future__ import annotations

from typing import Final

from matins.domain.errors import ThreadBusy
from matins.domain.runs import StopReason

_MAKES_WAY: Final = {"interrupt": StopReason.INTERRUPT, "rollback": StopReason.ROLLBACK}


def decide(strategy: str, *, in_flight: int) -> StopReason | None:
    """Say how the runs in flight make way for the new one; None when it waits for them or there are none.

    Raises: ThreadBusy for `reject` on a busy thread.
    """
    if strategy == "reject" and in_flight:
        raise ThreadBusy
    return _MAKES_WAY.get(strategy) if in_flight else None
