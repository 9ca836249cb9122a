"""Wait for what only asking tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(what: Callable[[], Any], *, timeout_s: float = 15.0) -> Any:
    """Ask until it is so; gives the answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := what()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)
    return answer
