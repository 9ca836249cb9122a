"""The parent of a node: owns the listening socket and the embedded database, keeps a serving process running.

Standard library only, so that it starts at once and little in it can break. No HTTP, no SQL, no LangGraph and
nothing of a user's lives here.

The serving process is spawned by exec in a session of its own (Ctrl-C reaches the parent alone) with
  MATINS_LISTEN_FD     the listening socket, the same one in every generation: connections that come while
                       nobody serves wait in its queue and are answered by the successor
  MATINS_CONTROL_FD    one end of a socketpair, lines of JSON; its EOF is the parent's death
  MATINS_PREDECESSOR   the node id of the serving process that died before this one, or nothing
  DATABASE_URI         of the embedded database, when there is one
and says on the control socket {"kind": "node", "node_id": ...}, {"kind": "ready"},
{"kind": "worker", "pid": n} and {"kind": "worker_gone", "pid": n}. Other kinds are ignored.

A death is known by waitpid alone. Before the successor starts, the workers that the dead one left (each leads
a process group) are killed and reaped: on Linux orphans become the parent's children.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from matins.embedded import EmbeddedPostgres, EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BACKLOG: Final = 2048  # connections that wait while a successor starts
TICK_S: Final = 0.1  # how often the database is looked at; a death of a child of ours wakes the loop itself
QUICK_DEATH_S: Final = 5.0
BACK_OFF_S: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)  # by the number of quick deaths in a row
SPAWN_AGAIN_S: Final = 1.0
KILL_AFTER_GRACE_S: Final = 2.0
REAP_TIMEOUT_S: Final = 2.0
PR_SET_CHILD_SUBREAPER: Final = 36


def run(
    *,
    host: str,
    port: int,
    command: Sequence[str],
    environment: Mapping[str, str],
    postgres: EmbeddedPostgres | None,
    grace_s: float,
) -> int:
    """Run a node until SIGTERM, SIGINT or, but for nohup, SIGHUP; the exit code.

    `command` is the serving process, `environment` all of its environment but what this module adds.
    `postgres` is not yet started; it is started and stopped here. Call it from the main thread.
    Codes: 1 when the port is taken or the database does not start, said in one line; the serving process's
    own when it exits before it was ever ready, so 2 for a wrong configuration; 0 after a signal.
    """
    try:
        listener = _listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _say(f"port {port} on {host} is taken: choose another with --port (make dev PORT={port + 1})")
        else:
            _say(f"cannot listen on {host}, port {port}: {error.strerror}")
        return 1
    with listener:
        if postgres is not None and (code := _start(postgres)) is not None:
            return code
        with _signals() as wakeups:
            try:
                node = _Parent(
                    listener,
                    wakeups,
                    command=command,
                    environment=environment,
                    postgres=postgres,
                    grace_s=grace_s,
                )
                return node.run()
            finally:
                if postgres is not None:
                    postgres.stop()


@dataclass(slots=True)
class _Serving:
    """One generation of the serving process."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    started: float
    heard: bytearray = field(default_factory=bytearray)
    node_id: str = ""
    workers: set[int] = field(default_factory=set)


class _Parent:
    def __init__(
        self,
        listener: socket.socket,
        wakeups: socket.socket,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        postgres: EmbeddedPostgres | None,
        grace_s: float,
    ) -> None:
        self._listener = listener
        self._wakeups = wakeups
        self._command = list(command)
        self._environment = dict(environment)
        if postgres is not None:
            self._environment["DATABASE_URI"] = postgres.uri
        self._postgres = postgres
        self._grace_s = grace_s
        self._selector = selectors.DefaultSelector()
        self._serving: _Serving | None = None
        self._predecessor = ""
        self._was_ready = False  # any generation
        self._quick_deaths = 0
        self._start_at = 0.0  # when the next generation is due
        self._stopping = False
        self._kill_at = float("inf")
        self._mender: threading.Thread | None = None
        self._mend_at = 0.0

    def run(self) -> int:
        _adopt_orphans()
        self._selector.register(self._wakeups, selectors.EVENT_READ)
        while True:
            if self._serving is None:
                if self._stopping:
                    return 0
                if time.monotonic() >= self._start_at:
                    try:
                        self._spawn()
                    except OSError as error:  # no memory, too many processes or files: it may pass
                        self._start_at = time.monotonic() + SPAWN_AGAIN_S
                        _say(f"cannot start the serving process: {error}; tried again in {SPAWN_AGAIN_S:g} s")
            self._wait()
            self._reap()
            if (serving := self._serving) is not None and serving.process.returncode is not None:
                code = self._bury(serving)
                if code is not None:
                    return code
            if self._serving is not None and time.monotonic() >= self._kill_at:
                self._signal(signal.SIGKILL)
                self._kill_at = float("inf")
            self._watch_postgres()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        descriptors = (self._listener.fileno(), theirs.fileno())
        environment = self._environment | {
            "MATINS_LISTEN_FD": str(descriptors[0]),
            "MATINS_CONTROL_FD": str(descriptors[1]),
            "MATINS_PREDECESSOR": self._predecessor,
        }
        try:
            with theirs:
                process = subprocess.Popen(
                    self._command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self._serving = _Serving(process, ours, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ)

    def _wait(self) -> None:
        """Sleep until a signal, a control message, or the next instant at which something is due."""
        due = [TICK_S, self._kill_at - time.monotonic()]
        if self._serving is None:
            due.append(self._start_at - time.monotonic())
        for key, _ in self._selector.select(max(0.0, min(due))):
            if key.fileobj is self._wakeups:
                for number in self._wakeups.recv(4096):
                    self._handle(number)
            elif self._serving is not None and not self._listen_to(self._serving):
                self._selector.unregister(self._serving.control)  # only waitpid says that it is dead

    def _handle(self, number: int) -> None:
        if number in {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} and not self._stopping:
            self._stopping = True
            self._kill_at = time.monotonic() + self._grace_s + KILL_AFTER_GRACE_S
            self._listener.close()  # from now on the serving process alone decides what is still accepted
            self._signal(signal.SIGTERM)
        elif number == signal.SIGINT:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._serving is not None and self._serving.process.returncode is None:
            os.kill(self._serving.process.pid, number)  # not yet reaped, so the pid is still its own

    def _listen_to(self, serving: _Serving) -> bool:
        """Read what the serving process has said so far; False when it will say no more."""
        open_ended = True
        with contextlib.suppress(BlockingIOError):
            while chunk := serving.control.recv(1 << 16):
                serving.heard += chunk
            open_ended = False
        *lines, rest = serving.heard.split(b"\n")
        serving.heard = bytearray(rest)
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # not ours to judge
                self._obey(serving, json.loads(line))
        return open_ended

    def _obey(self, serving: _Serving, message: dict[str, object]) -> None:
        match message["kind"], message:
            case "node", {"node_id": str(node_id)}:
                serving.node_id = node_id
            case "worker", {"pid": int(pid)} if pid > 1:  # 0 and 1 would mean "my group" and "everybody"
                serving.workers.add(pid)
            case "worker_gone", {"pid": int(pid)}:
                serving.workers.discard(pid)
            case "ready", _:
                self._was_ready = True
            case _:
                pass  # said by, or to, another version

    def _reap(self) -> None:
        """Take every dead child: the serving process, orphans, a postmaster (`postgres` copes with that)."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0] != 0:
                pid, status = found
                if self._serving is not None and pid == self._serving.process.pid:
                    self._serving.process.returncode = os.waitstatus_to_exitcode(status)

    def _bury(self, serving: _Serving) -> int | None:
        """Clear away a dead serving process; the parent's own exit code if it is not to be replaced."""
        self._listen_to(serving)  # workers named in messages still on their way must not be missed
        with contextlib.suppress(KeyError):
            self._selector.unregister(serving.control)
        serving.control.close()
        for group in (serving.process.pid, *serving.workers):
            _end_group(group)
        self._serving = None
        self._predecessor = serving.node_id or self._predecessor
        code = serving.process.returncode
        if self._stopping:
            return 0
        if not self._was_ready and code > 0:
            return code
        lived_s = time.monotonic() - serving.started
        self._quick_deaths = self._quick_deaths + 1 if lived_s < QUICK_DEATH_S else 1
        delay_s = BACK_OFF_S[min(self._quick_deaths, len(BACK_OFF_S)) - 1]
        self._start_at = time.monotonic() + delay_s
        how = f"was ended by {_name_of(-code)}" if code < 0 else f"exited with code {code}"
        _say(f"the serving process (pid {serving.process.pid}) {how}; its successor starts in {delay_s:g} s")
        return None

    def _watch_postgres(self) -> None:
        """Have a dead database started again, in a thread: a crash recovery may take seconds."""
        if self._postgres is None or self._stopping or time.monotonic() < self._mend_at:
            return
        if (self._mender is None or not self._mender.is_alive()) and not self._postgres.is_running():
            self._mender = threading.Thread(target=self._mend, args=[self._postgres], daemon=True)
            self._mender.start()

    def _mend(self, postgres: EmbeddedPostgres) -> None:
        begun = time.monotonic()
        try:
            if postgres.ensure_running():
                _say(f"PostgreSQL died and was started again in {time.monotonic() - begun:.1f} s")
        except (EmbeddedPostgresError, OSError) as error:  # OSError: its directory is gone, the disk is full
            self._mend_at = time.monotonic() + 1.0
            _say(str(error))


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # "localhost" is both: most programs, and our own printed address, mean 127.0.0.1.
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _start(postgres: EmbeddedPostgres) -> int | None:
    """Start the database; the exit code if it does not start, or if a signal ended the wait."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in _endings()}
    try:
        postgres.start()
    except EmbeddedPostgresError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return None


def _endings() -> list[signal.Signals]:
    """The signals that end a node; not that of a closing terminal where it is ignored, as under nohup."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket on which each signal arrives as a byte, and nothing else happens."""
    numbers = (*_endings(), signal.SIGCHLD)
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)


def _adopt_orphans() -> None:
    """Become the one to whom the kernel gives what a dead serving process leaves (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_group(group: int) -> None:
    """Kill and reap what is left of a process group that a dead serving process led or started.

    On Linux only a group in which a child of ours still is, so never a stranger that was given an old number.
    """
    if group == os.getpgrp():
        return
    if sys.platform != "linux":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        return
    deadline = time.monotonic() + REAP_TIMEOUT_S
    # Suppressed: none of ours is left, or only one of another account.
    with contextlib.suppress(ChildProcessError, PermissionError):
        while time.monotonic() < deadline:
            if os.waitpid(-group, os.WNOHANG)[0] == 0:
                os.killpg(group, signal.SIGKILL)
                time.sleep(0.001)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk or a closed pipe costs the line, not the node
        sys.stderr.write(f"matins: {line}\n")
        sys.stderr.flush()
