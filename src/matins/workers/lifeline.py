"""Worker side: what ties a worker to its serving process, so that nothing survives it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def tie_to_parent() -> None:
    """Die with the serving process, and before it when memory is short.

    The kernel's promise counts from the call, so whoever has lost the parent already leaves at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if os.getppid() != int(os.environ.pop("MATINS_PARENT_PID")):
        end_the_session()


def end_the_session() -> None:
    """Kill this process and its children, now."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def take_link() -> socket.socket:
    """Take our end of the link out of the environment, so that no child of ours inherits it."""
    descriptor = int(os.environ.pop("MATINS_LINK_FD"))
    os.set_inheritable(descriptor, False)
    end = socket.socket(fileno=descriptor)
    end.setblocking(False)
    return end
