"""What the operating system and a socket can say about a PostgreSQL that may or may not be ours.

Only questions; the one who asks sends the signals.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not: not everybody's init reaps."""
    try:
        os.kill(pid, 0)
        if sys.platform == "linux":
            status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
            return status.split()[0] not in {b"Z", b"X"}
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def processes_of(name: str) -> list[int]:
    """Every process of the server with this `cluster_name`.

    The postmaster bears the name as an argument, the others in their title. To read these takes no right over
    the process, unlike its working directory, which even root may not ask for in a container.
    """
    found = []
    for pid, words in _commands():
        title = words[0].startswith(f"postgres: {name}: ") or words[:2] == ["postgres:", f"{name}:"]
        started = f"cluster_name={name}" in words and any(word.endswith("/postgres") for word in words)
        if (title or started) and is_alive(pid):
            found.append(pid)
    return found


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Every process with its arguments, or the title that it gave itself instead."""
    if sys.platform == "linux":
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                command = (entry / "cmdline").read_bytes()
                yield int(entry.name), command.decode(errors="replace").split("\0")
        return
    listing = subprocess.run(["/bin/ps", "-axwwo", "pid=,command="], capture_output=True, check=False)
    for line in listing.stdout.decode(errors="replace").splitlines():
        pid, *words = line.split()
        yield int(pid), words or [""]


def accepts_sessions(path: Path) -> bool:
    """Whether the server behind this socket accepts sessions."""
    parameters = b"user\0matins\0database\0matins\0\0"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1)
        link.connect(str(path))
        link.sendall(struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters)
        reply = link.recv(512)
        link.sendall(b"X\0\0\0\4")
        # An error other than "the database system is starting up" (too many clients) is an answer too.
        return reply[:1] == b"R" or (reply[:1] == b"E" and b"C57P03" not in reply)
    return False
