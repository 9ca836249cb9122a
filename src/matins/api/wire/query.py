"""Kinds of the query's parameters, as the document describes them; an empty one is an absent one."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from matins.api.wire.runs import COLUMNS
from matins.domain.thread_state import FIELDS

_COLUMNS: Final = "|".join(sorted(COLUMNS))
_FIELDS: Final = "|".join(FIELDS)

Column: TypeAlias = Annotated[str, msgspec.Meta(pattern=f"^({_COLUMNS})?$")]
"""A field of a run."""

StateField: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"^({_FIELDS}|values\.[^,]+)?$")]
"""A field of a state, or one of its values; a comma would begin another."""

Names: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^([^\[]|$)",
        description="Names with commas between them; may be repeated, or be a JSON array of strings.",
    ),
]
"""Names of which those that nobody knows are passed over."""

Xray: TypeAlias = Annotated[
    str, msgspec.Meta(pattern="^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|0*[1-9][0-9]{0,2})?$")
]
"""Whether to draw subgraphs, or how deep."""

MaybeId: TypeAlias = Annotated[
    str, msgspec.Meta(pattern="^([0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})?$")
]
Action: TypeAlias = Literal["", "interrupt", "rollback"]
DeliveryStatus: TypeAlias = Literal["", "pending", "delivered", "dead"]
ThreadMode: TypeAlias = Literal["", "run_modes", "lifecycle", "state_update"]
FireOutcome: TypeAlias = Literal["", "fired", "missed", "skipped", "failed", "waiting"]
FireStatus: TypeAlias = Literal[
    "", "pending", "running", "success", "error", "timeout", "interrupted", "deleted"
]
FireTrigger: TypeAlias = Literal["", "schedule", "catch_up", "manual", "backfill"]
Instant: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Some: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1000)]
"""How many runs to list, perhaps none."""
