"""Worker side: notices that the loop does not turn, and names the line of user code that holds it.

A thread, since the loop cannot watch itself. What holds the GIL holds this thread too: then the line is
logged when the GIL is free again, if the loop still stands; the serving side notices either way.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

import matins
from matins import telemetry

BLOCKED_SECONDS: Final = 1.0
"""A loop that stands still for longer is reported, once per standstill."""

_LOOK_SECONDS: Final = 0.25
_NOT_THE_USERS: Final = (
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
    sysconfig.get_path("platlib"),
    str(Path(matins.__file__).parent),
    "<frozen",
)


class Watchdog(threading.Thread):
    """Watches the loop of the thread that builds it. Call `turned` from that loop, again and again."""

    def __init__(self) -> None:
        super().__init__(name="matins-watchdog", daemon=True)
        self._watched = threading.get_ident()
        self._turned_at = time.monotonic()

    def turned(self) -> None:
        """Say that the loop turns."""
        self._turned_at = time.monotonic()

    def run(self) -> None:
        """Look, for as long as the process lives."""
        reported = 0.0
        while True:
            time.sleep(_LOOK_SECONDS)
            turned_at = self._turned_at
            if time.monotonic() - turned_at > BLOCKED_SECONDS and turned_at != reported:
                reported = turned_at
                frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the documented way
                if frame is not None:
                    culprit = _culprit(frame)
                    telemetry.log().warning(
                        telemetry.WORKER_BLOCKED,
                        at=f"{culprit.f_code.co_filename}:{culprit.f_lineno}",
                        function=culprit.f_code.co_qualname,
                    )


def _culprit(innermost: FrameType) -> FrameType:
    """Give the innermost frame of the user's own code, or the innermost of all."""
    frame: FrameType | None = innermost
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_NOT_THE_USERS):
            return frame
        frame = frame.f_back
    return innermost
