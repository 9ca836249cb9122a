"""What happens to a new run on a thread that has others in flight: a pure decision.

`enqueue` waits its turn; `reject` is refused. `interrupt` and `rollback` are not decided here yet.
"""

from __future__ import annotations

from matins.domain.errors import Invalid, ThreadBusy


def decide(strategy: str, *, in_flight: int) -> None:
    """Let the new run in, or refuse it.

    Raises: ThreadBusy for `reject` on a busy thread; Invalid for a strategy that is not supported yet.
    """
    if strategy not in ("enqueue", "reject"):
        message = f"multitask_strategy '{strategy}' is not supported yet: use 'enqueue' or 'reject'"
        raise Invalid(message)
    if strategy == "reject" and in_flight:
        raise ThreadBusy
