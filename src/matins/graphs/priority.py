"""The user's `priority.assign`: which threads come first.

Source: langgraph_sdk/priority.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from langgraph_sdk import Priority, PriorityContext

from matins import telemetry
from matins.domain.priorities import MOST, Asked
from matins.graphs.registry import GraphFailed
from matins.graphs.users import User
from matins.manifest import Manifest
from matins.manifest.variables import described, make_importable, module_of

if TYPE_CHECKING:
    from langgraph_sdk.auth.types import BaseUser

METHOD: Final = "priority"


class Assigner:
    """Asks the user's function. Build it with `load`."""

    def __init__(self, priority: Priority | None) -> None:
        self._assign: Final = None if priority is None else priority._assign_handler  # noqa: SLF001 - nothing public

    @classmethod
    def load(cls, manifest: Manifest) -> Assigner:
        """Import what `priority.path` names; without it nothing is ever assigned.

        Raises: GraphFailed when it cannot be imported, or is no Priority.
        """
        named = manifest.priority
        if named is None:
            return cls(None)
        key = f"{manifest.path}: priority.path"
        make_importable(manifest.dependencies)
        try:
            found = getattr(module_of(named, (*manifest.dependencies, manifest.path.parent)), named.attribute)
        except KeyboardInterrupt:
            raise
        except (
            BaseException
        ) as raised:  # a wall: importing runs the user's code, which may even call sys.exit()
            trace = "".join(traceback.format_exception(raised))
            raise GraphFailed(f"{key}: {described(raised)}", trace) from raised
        if not isinstance(found, Priority):
            raise GraphFailed(
                f"{key}: {named.attribute!r} is {type(found).__name__}, not a langgraph_sdk.Priority"
            )
        return cls(found)

    @property
    def assigns(self) -> bool:
        """Whether there is a function to ask."""
        return self._assign is not None

    async def answer(self, params: bytes) -> bytes:
        """Answer a Call with the thread's priority, or null when the function failed: the log says how."""
        asked = msgspec.json.decode(params, type=Asked)
        try:
            given = None if self._assign is None else await self._assign(_context(asked))
            return msgspec.json.encode(_priority_of(given))
        except Exception:  # noqa: BLE001 - a wall: what comes first is no reason to refuse a run
            telemetry.log().exception(
                telemetry.PRIORITY_FAILED, thread_id=asked.thread_id, graph_id=asked.graph_id
            )
            return b"null"


def _context(asked: Asked) -> PriorityContext:
    user = User({"identity": "", "is_authenticated": False, **(asked.user or {})})
    return PriorityContext(
        user=cast("BaseUser", user),
        permissions=user.permissions,
        thread_id=asked.thread_id,
        thread_metadata=asked.thread_metadata,
        assistant_id=asked.assistant_id,
        graph_id=asked.graph_id,
        assistant_metadata=asked.assistant_metadata,
        run_metadata=asked.run_metadata,
        cron_id=asked.cron_id,
    )


def _priority_of(given: Any) -> int:
    """Give the priority that is meant. Raises: TypeError, ValueError."""
    if given is None:
        return 0
    if not isinstance(given, dict):
        message = f"priority.assign must give a dict or None, not {type(given).__name__}"
        raise TypeError(message)
    priority = given.get("priority")
    if priority is None:
        return 0
    if type(priority) is not int or not -MOST <= priority <= MOST:
        message = f"priority must be a whole number from {-MOST} to {MOST}, not {priority!r}"
        raise ValueError(message)
    return priority
