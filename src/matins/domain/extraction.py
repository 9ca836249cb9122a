"""Paths into a thread, as a search takes them: `values.messages[-1].content`."""

from __future__ import annotations

import re
from typing import Final

from matins.domain.errors import Invalid

ROOTS: Final = ("config", "interrupts", "metadata", "values")

_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(-?\d{1,9})\]")


def parse(path: str) -> list[str]:
    """Give the steps of a path: one of ROOTS, then keys, and places in arrays; negative ones count from the end.

    Raises: Invalid.
    """
    root = re.split(r"[.\[]", path, maxsplit=1)[0]
    if root not in ROOTS:
        message = f"Extract path '{path[:200]}' must start with one of: {', '.join(ROOTS)}"
        raise Invalid(message)
    steps, at = [root], len(root)
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            message = (
                f"Extract path '{path[:200]}' must go on with .key or [number] after '{path[:at][:200]}'"
            )
            raise Invalid(message)
        steps.append(step[1] or step[2])
        at = step.end()
    return steps
