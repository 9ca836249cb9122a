"""Matins itself, as a user starts it: a real process on a real port, and all the processes it starts.

    with servers.start(ROOT / "examples/langgraph.json", tmp_path) as server:
        get_client(url=server.url)
        os.kill(server.serving, signal.SIGKILL)
        server.wait_ready()

What a server prints goes to `server.log` and, at the end, to the test's output, where pytest shows it for a test
that failed. At the end the parent gets a SIGTERM, and whatever of the server outlives that fails the test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from matins.embedded import EmbeddedPostgres
from matins.embedded.processes import is_alive, processes_of

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "examples" / "langgraph.json"

READY_SECONDS: Final = 60.0
"""How long a start may take: a cluster is made, and LangGraph is imported on a machine that is doing other things."""

STOP_SECONDS: Final = 15.0

_MARK: Final = "MATINS_TEST_SERVER"  # an environment variable, inherited by every process of one server
_TAIL_LINES: Final = 60
_LOOK_SECONDS: Final = 0.01


class Server:
    """A server that was started by `command`; `start` may be called again after `stop` or `kill`.

    `data_dir` is where its embedded PostgreSQL lives, when it has one.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int,
        log: Path,
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.port: Final = port
        self.url: Final = f"http://127.0.0.1:{port}"
        self.log: Final = log
        self.data_dir: Final = data_dir
        self.started_in_s = 0.0
        self._command: Final = list(command)
        self._env: Final = dict(env or {})
        self._cwd: Final = cwd
        self._mark: Final = uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, timeout_s: float = READY_SECONDS) -> None:
        """Start it and wait until it answers `GET /ok`."""
        began = time.monotonic()
        self.launch()
        self.wait_ready(timeout_s=timeout_s)
        self.started_in_s = time.monotonic() - began

    def launch(self) -> None:
        """Start it and wait for nothing. It leads a process group, so that `interrupt` is what Ctrl-C is."""
        assert self._process is None or self._process.poll() is not None, "it is running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=_own_environment() | self._env | {_MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, *, timeout_s: float = READY_SECONDS) -> None:
        """Wait until it answers `GET /ok`, as after a start or a kill of one of its processes."""
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            code = self.process.poll()
            assert code is None, f"the server exited with code {code}:\n{self.tail()}"
            assert time.monotonic() < deadline, f"not ready after {timeout_s:g} s:\n{self.tail()}"
            time.sleep(_LOOK_SECONDS)

    def wait_exit(self, *, timeout_s: float = STOP_SECONDS) -> int:
        """Wait until its parent process has ended; gives the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server still runs after {timeout_s:g} s:\n{self.tail()}") from None

    def answers(self) -> bool:
        """Whether it answers `GET /ok` with 200 now."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as link:
            link.settimeout(5)
            link.sendall(b"GET /ok HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            return link.recv(64).startswith(b"HTTP/1.1 200")
        return False

    def stop(self, *, timeout_s: float = STOP_SECONDS) -> int:
        """SIGTERM to the parent; waits until all its processes are gone and gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.wait_exit(timeout_s=timeout_s)
        self.wait_gone()
        return code

    def interrupt(self, *, timeout_s: float = STOP_SECONDS) -> int:
        """Ctrl-C in its terminal: SIGINT to the process group; waits as `stop` does."""
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.wait_exit(timeout_s=timeout_s)
        self.wait_gone()
        return code

    def kill(self) -> None:
        """SIGKILL to the parent; waits until nothing of it runs any more but its PostgreSQL, which lives on."""
        self.process.kill()
        self.process.wait()
        self.wait_gone(but_postgres=True)

    def kill_everything(self) -> None:
        """SIGKILL to every process at once, PostgreSQL's among them, as when the machine loses its power."""
        everything = [*self.pids, *self.postgres_pids]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: none sees another die
            for pid in everything:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.process.wait()
        self.wait_gone()

    def wait_gone(self, *, but_postgres: bool = False, timeout_s: float = 5.0) -> None:
        """Wait until no process of it is left; a process that stays is an error."""
        deadline = time.monotonic() + timeout_s
        while left := self.pids + ([] if but_postgres else self.postgres_pids):
            assert time.monotonic() < deadline, (
                f"these were left running: {[(pid, _command(pid)) for pid in left]}\n{self.tail()}"
            )
            time.sleep(_LOOK_SECONDS)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """What was started: with `matins`, the parent."""
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether the process that was started lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        """All its processes but PostgreSQL's, whoever started them (on Linux; elsewhere the parent alone)."""
        if sys.platform != "linux":
            return [self.process.pid] if self.is_running else []
        wanted = f"{_MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile, or is none of ours
                if wanted in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                    found.append(int(entry.name))
        return sorted(found)

    @property
    def serving(self) -> int:
        """The serving process."""
        [pid] = self._running("matins.server")
        return pid

    @property
    def workers(self) -> list[int]:
        """The run workers and the desk: alike but for what they are asked to do. The eldest first."""
        return self._running("matins.workers.host")

    @property
    def database_uri(self) -> str:
        """The DSN of the embedded PostgreSQL."""
        assert self.data_dir is not None
        return EmbeddedPostgres(self.data_dir).uri

    @property
    def postmaster(self) -> int:
        """The embedded PostgreSQL's first process."""
        assert self.data_dir is not None
        return int((self.data_dir / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def postgres_pids(self) -> list[int]:
        """All processes of the embedded PostgreSQL."""
        if self.data_dir is None:
            return []
        return processes_of(EmbeddedPostgres(self.data_dir)._socket_dir.name)

    def tail(self) -> str:
        """The end of what it printed."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_TAIL_LINES:])

    def clear_away(self) -> None:
        """Leave nothing running, whatever state it is in; what did not end by itself is an error."""
        try:
            if self.is_running:
                self.stop()
            self.wait_gone(but_postgres=True)
        finally:
            for pid in self.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.data_dir is not None and self.postgres_pids:  # after a kill it lives on, to be adopted
                postgres = EmbeddedPostgres(self.data_dir)
                postgres.start()
                postgres.stop()
            if self.data_dir is not None:  # a killed one leaves its socket's directory behind
                shutil.rmtree(EmbeddedPostgres(self.data_dir)._socket_dir, ignore_errors=True)
            sys.stdout.write(f"== {' '.join(self._command)}\n{self.tail()}\n")

    def _running(self, module: str) -> list[int]:
        return [pid for pid in self.pids if f"-m {module}" in _command(pid)]


@contextmanager
def start(
    config: Path,
    directory: Path,
    *,
    command: str = "dev",
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    port: int | None = None,
    data_dir: Path | None = None,
) -> Iterator[Server]:
    """Run `matins dev` on a free port, ready, for the length of the block.

    Its log and, with `dev` and no DATABASE_URI in `env`, its database live in `directory`. `command` may be `serve`;
    `args` follow the others. No DATABASE_URI of the caller's environment reaches it.
    """
    port = port or free_port()
    embeds = command == "dev" and "DATABASE_URI" not in (env or {})
    data_dir = (data_dir or directory / ".matins") if embeds else None
    server = Server(
        [
            *(sys.executable, "-m", "matins", command),
            *("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
            *(("--data-dir", str(data_dir)) if data_dir else ()),
            *args,
        ],
        port=port,
        log=directory / f"server-{port}.log",
        data_dir=data_dir,
        env=env,
    )
    with clearing_away(server):
        server.start()
        yield server


@contextmanager
def clearing_away(server: Server) -> Iterator[Server]:
    """Leave nothing of a server at the end of the block."""
    try:
        yield server
    finally:
        server.clear_away()


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _own_environment() -> dict[str, str]:
    """Give our environment without what would turn a server into another than the one the test means."""
    ours = ("MATINS_", "DATABASE_", "POSTGRES_", "BG_JOB_", "LANGGRAPH_", "LOG_", "N_JOBS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _command(pid: int) -> str:
    """Give a process's command line, for people and for telling one from another."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "ended"
