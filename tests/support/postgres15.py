"""The system's PostgreSQL 15, the oldest that is supported, where it is installed."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

BINARIES: Final = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a server in an empty folder with a short path; gives the DSN of its only database."""
    account: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        entry = pwd.getpwnam("nobody")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    cluster = folder / "cluster"

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(BINARIES / program), "-D", str(cluster), *arguments],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
            **account,
        )

    run("initdb", "-U", "tester", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://tester@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")
