"""The parent of a node, with real processes: a toy serving process that answers one line per connection."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from matins.embedded.processes import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(60)

PARENT = """
import json, os, sys
from pathlib import Path
from matins.embedded import EmbeddedPostgres
from matins.parent import run
options = json.loads(sys.argv[1])
data_dir = options.pop("data_dir")
postgres = EmbeddedPostgres(Path(data_dir)) if data_dir else None
sys.exit(run(**options, environment=dict(os.environ), postgres=postgres))
"""

SERVING = """
import json, os, signal, socket, subprocess, sys, threading
listener = socket.socket(fileno=int(os.environ["MATINS_LISTEN_FD"]))
control = socket.socket(fileno=int(os.environ["MATINS_CONTROL_FD"]))

def tell(**message):
    control.sendall(json.dumps(message).encode() + b"\\n")

def outlive_no_parent():
    control.recv(1)
    os._exit(0)

def new_worker():
    worker = subprocess.Popen(
        ["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    tell(kind="worker", pid=worker.pid)
    return [worker.pid, int(worker.stdout.readline())]

def leave(*_):
    os.write(1, b"told to leave\\n")
    os._exit(0)

def stubborn():
    signal.signal(signal.SIGTERM, lambda *_: print("not yet", flush=True))

threading.Thread(target=outlive_no_parent, daemon=True).start()
signal.signal(signal.SIGTERM, leave)
tell(kind="node", node_id=f"node-{os.getpid()}")
control.sendall(b'{"kind": "a later part says this"}\\nno JSON\\n[1]\\n{"kind": "worker", "pid": "x"}\\n')
tell(kind="ready")
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as stream:
        match stream.readline().split():
            case ["who"]:
                answer = {
                    "pid": os.getpid(),
                    "predecessor": os.environ["MATINS_PREDECESSOR"],
                    "uri": os.environ.get("DATABASE_URI"),
                    "leader": os.getsid(0) == os.getpid(),
                    "fds": [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")],
                }
            case ["worker"]:
                answer = new_worker()
            case ["stubborn"]:
                answer = stubborn()
            case ["exit", code]:
                os._exit(int(code))
        stream.write(json.dumps(answer) + "\\n")
"""


@dataclass
class Node:
    process: subprocess.Popen[str]
    port: int

    def connect(self, request: str) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        link.sendall(request.encode() + b"\n")
        return link

    def ask(self, request: str) -> Any:
        return answer(self.connect(request))

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def kill_serving(self) -> dict[str, Any]:
        """`kill -9` the serving process and wait for its end; what it said of itself.

        A connection that comes between the signal and the end may be accepted by the dying and lost with it.
        """
        who: dict[str, Any] = self.ask("who")
        os.kill(who["pid"], signal.SIGKILL)
        await_death(who["pid"])
        return who


def answer(link: socket.socket) -> Any:
    with link, link.makefile("r") as stream:
        return json.loads(stream.readline())


def await_death(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        assert select.select([descriptor], [], [], 20)[0]
        os.close(descriptor)


def halt(pid: int) -> None:
    """SIGSTOP, and wait until no thread runs any more."""
    os.kill(pid, signal.SIGSTOP)
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks):
        os.sched_yield()  # the kernel offers no event for it


@contextlib.contextmanager
def parent(
    script: str,
    *,
    port: int = 0,
    grace_s: float = 5,
    data_dir: Path | None = None,
    ignores_hang_up: bool = False,
    executable: str = sys.executable,
) -> Iterator[Any]:
    options = {
        "host": "127.0.0.1",
        "port": port,
        "command": [executable, "-c", script],
        "grace_s": grace_s,
        "data_dir": str(data_dir) if data_dir else None,
    }
    with subprocess.Popen(
        [*(["nohup"] if ignores_hang_up else []), sys.executable, "-c", PARENT, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(20)


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    with contextlib.ExitStack() as stack:

        def start(*, grace_s: float = 5, data_dir: Path | None = None) -> Node:
            process = stack.enter_context(parent(SERVING, grace_s=grace_s, data_dir=data_dir))
            return Node(process, int(process.stdout.readline()))

        yield start


def test_the_serving_process_leads_a_session_and_inherits_two_sockets_and_no_lock(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    who = node(data_dir=tmp_path / ".matins").ask("who")
    assert who["leader"]
    assert who["predecessor"] == ""
    assert not [name for name in who["fds"] if ".matins" in name]


def test_a_connection_that_waits_over_a_kill_is_answered_by_the_successor(node: Callable[..., Node]) -> None:
    running = node()
    who = running.ask("who")
    halt(who["pid"])  # so that nobody accepts
    waiting = running.connect("who")
    os.kill(who["pid"], signal.SIGKILL)
    successor = answer(waiting)
    assert successor["pid"] != who["pid"]
    assert successor["predecessor"] == f"node-{who['pid']}"


def test_workers_and_their_children_are_dead_before_the_successor_serves(node: Callable[..., Node]) -> None:
    running = node()
    workers = [pid for _ in range(3) for pid in running.ask("worker")]
    assert all(is_alive(pid) for pid in workers)
    running.kill_serving()
    running.ask("who")
    assert not [pid for pid in workers if is_alive(pid)]
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "a zombie was left"


def test_workers_are_dead_after_an_orderly_end_too(node: Callable[..., Node]) -> None:
    running = node()
    workers = running.ask("worker")
    running.process.terminate()
    assert running.process.wait(20) == 0
    assert not [pid for pid in workers if is_alive(pid)]


def test_quick_deaths_in_a_row_are_backed_off_and_said(node: Callable[..., Node]) -> None:
    running = node()
    first = running.kill_serving()
    running.kill_serving()
    running.connect("exit 2").close()  # after the first `ready` no code ends the node
    running.ask("who")
    running.process.terminate()
    said = running.errors().splitlines()
    assert said[0] == (
        f"matins: the serving process (pid {first['pid']}) was ended by SIGKILL; its successor starts in 0 s"
    )
    assert said[1].endswith("was ended by SIGKILL; its successor starts in 0.2 s")
    assert said[2].endswith("exited with code 2; its successor starts in 0.5 s")
    assert len(said) == 3


@pytest.mark.parametrize("code", [2, 7])
def test_an_exit_before_the_first_ready_is_the_node_s_exit(code: int) -> None:
    with parent(f"import sys; sys.exit({code})") as process:
        assert process.wait(20) == code
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_node_in_an_orderly_way_with_code_0(
    node: Callable[..., Node], tmp_path: Path, number: signal.Signals
) -> None:
    running = node(data_dir=tmp_path / ".matins")
    pid = running.ask("who")["pid"]
    running.process.send_signal(number)
    assert running.line() == "told to leave"
    assert running.process.wait(20) == 0
    assert not is_alive(pid)
    assert running.errors() == ""


def test_a_second_ctrl_c_kills_at_once(node: Callable[..., Node]) -> None:
    running = node(grace_s=50)
    pid = running.ask("who")["pid"]
    running.ask("stubborn")
    running.process.send_signal(signal.SIGINT)
    assert running.line() == "not yet"
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(20) == 0
    assert not is_alive(pid)


def test_a_stubborn_serving_process_is_killed_when_the_grace_is_over(node: Callable[..., Node]) -> None:
    running = node(grace_s=0)
    running.ask("stubborn")
    begun = time.monotonic()
    running.process.terminate()
    assert running.line() == "not yet"
    assert running.process.wait(20) == 0
    assert time.monotonic() - begun >= 2


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    with parent(SERVING, ignores_hang_up=True) as process:
        running = Node(process, int(process.stdout.readline()))
        running.process.send_signal(signal.SIGHUP)
        pid = running.ask("who")["pid"]
        running.process.send_signal(signal.SIGHUP)
        assert running.ask("who")["pid"] == pid
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.5)


def test_a_closed_terminal_ends_a_node_whose_database_is_still_starting(tmp_path: Path) -> None:
    with parent(SERVING, data_dir=tmp_path / ".matins") as process:
        while not (tmp_path / ".matins" / "lock").exists():
            assert process.poll() is None
            os.sched_yield()  # it says nothing before it serves
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 0
        assert process.stdout.read() == ""


def test_a_taken_port_is_one_clear_line(node: Callable[..., Node]) -> None:
    running = node()
    with parent(SERVING, port=running.port) as process:
        assert process.wait(20) == 1
        assert process.stderr.read() == (
            f"matins: port {running.port} on 127.0.0.1 is taken: choose another with --port"
            f" (make dev PORT={running.port + 1})\n"
        )


def test_a_directory_in_use_is_one_clear_line(node: Callable[..., Node], tmp_path: Path) -> None:
    running = node(data_dir=tmp_path / ".matins")
    with parent(SERVING, data_dir=tmp_path / ".matins") as process:
        assert process.wait(20) == 1
        said = process.stderr.read()
    assert f"in use by another Matins (pid {running.process.pid})" in said
    assert len(said.splitlines()) == 1


def test_a_killed_postmaster_is_started_again_while_the_node_serves(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    running = node(data_dir=tmp_path / ".matins")
    uri = running.ask("who")["uri"]
    postmaster = int((tmp_path / ".matins/postgres/postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    await_death(postmaster)
    assert running.process.stderr is not None
    assert "PostgreSQL died and was started again in" in running.process.stderr.readline()
    with psycopg.connect(uri) as connection:
        assert connection.execute("select 1").fetchall() == [(1,)]
    assert running.ask("who")["predecessor"] == "", "the serving process was not disturbed"


def test_a_data_directory_that_vanishes_is_said_once_a_second_and_the_node_can_be_ended(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    running = node(data_dir=tmp_path / ".matins")
    postmaster = int((tmp_path / ".matins/postgres/postmaster.pid").read_text().split()[0])
    (tmp_path / ".matins").rename(tmp_path / "moved")
    assert running.process.stderr is not None
    begun = time.monotonic()
    os.kill(postmaster, signal.SIGKILL)
    await_death(postmaster)
    first = running.process.stderr.readline()
    second = running.process.stderr.readline()
    assert time.monotonic() - begun >= 1
    running.process.terminate()
    assert running.process.wait(20) == 0
    said = [first, second, *running.errors().splitlines()]
    assert all(line.startswith("matins: ") and "No such file" in line for line in said), said


def test_a_serving_process_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    absent = tmp_path / "python"
    with parent(SERVING, executable=str(absent)) as process:
        said = process.stderr.readline()
        assert said.startswith(
            "matins: cannot start the serving process: [Errno 2] No such file or directory"
        )
        absent.symlink_to(sys.executable)
        running = Node(process, int(process.stdout.readline()))
        assert running.ask("who")["predecessor"] == ""


def test_after_a_kill_of_the_parent_the_next_one_adopts_the_database(
    node: Callable[..., Node], tmp_path: Path
) -> None:
    data_dir = tmp_path / ".matins"
    first = node(data_dir=data_dir)
    serving = first.ask("who")["pid"]
    pid_file = data_dir / "postgres/postmaster.pid"
    postmaster = pid_file.read_text().split()[0]
    first.process.kill()
    await_death(serving)
    second = node(data_dir=data_dir)
    assert pid_file.read_text().split()[0] == postmaster
    second.process.terminate()
    assert second.process.wait(20) == 0
    assert not is_alive(int(postmaster))
