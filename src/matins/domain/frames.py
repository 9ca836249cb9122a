"""Frame: one unit of a stream."""

from __future__ import annotations

from typing import Final

import msgspec


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """An event and its encoded payload.

    `event` may carry a namespace after `|`; `data` is one line of compact JSON; `seq` is the thread's sequence
    number when the frame is kept for replay, else 0 (no `id:` line is sent).
    """

    event: str
    data: bytes
    seq: int = 0


METADATA: Final = "metadata"
ERROR: Final = "error"
STATE_UPDATE: Final = "state_update"
