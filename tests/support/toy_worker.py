"""A worker whose "graphs" are the functions below: real processes and lanes, without LangGraph and Postgres.

An order's `kwargs` name the function and what it gets: `["echo", 3]`. What goes on until a test says so waits for a
file, the gate.

What the "code" says (the file that is given as langgraph.json):

    crash                   the process ends at once
    broken ...              it reports Failed; with "hangs" in the text it stands still afterwards
    first come, PATH        the first process is good; each other one reports Failed as soon as PATH.go exists
    anything else           the graphs, as they stand
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec

from matins import telemetry
from matins.domain.errors import Conflict, GraphNotFound
from matins.domain.frames import Frame
from matins.domain.runs import StopReason
from matins.workers.lanes import Emit, Lanes
from matins.workers.lifeline import take_link, tie_to_parent
from matins.workers.link import Link, connect
from matins.workers.protocol import Execute, Failed, FromWorker, Ready, Settled, ToWorker
from matins.workers.watchdog import Watchdog


class Stopping:
    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.task: asyncio.Task[object] | None = None

    def ask(self, reason: StopReason) -> None:
        self.reason = self.reason or reason
        if self.task is not None:
            self.task.cancel()


async def execute(order: Execute, emit: Emit, stop: Stopping, _tell: object) -> Settled:
    stop.task = asyncio.current_task()
    name, argument = msgspec.json.decode(order.kwargs)
    settled = Settled(order.run_id, order.attempt, "success", values=str(os.getpid()).encode())
    try:
        await FUNCTIONS[name](argument, emit)
    except asyncio.CancelledError:
        if stop.reason is None:  # no Stop: the function cancelled itself
            raise
        if stop.task is not None:
            stop.task.uncancel()
        return msgspec.structs.replace(settled, outcome="stopped", reason=stop.reason)
    return settled


async def echo(times: int, emit: Emit) -> None:
    for number in range(times):
        await emit([Frame("custom", str(number).encode())])


async def flood(times: int, emit: Emit) -> None:
    kilobyte = b"x" * 1024
    for _ in range(times):
        await emit([Frame("custom", kilobyte)])


async def batches(times: int, emit: Emit) -> None:
    for _ in range(times // 50):
        await emit([Frame("custom", b'{"n":12345,"text":"hello"}') for _ in range(50)])


async def sleep(seconds: float, emit: Emit) -> None:
    await emit([Frame("custom", b'"asleep"')])
    await anyio.sleep(seconds)


async def block(seconds: float, emit: Emit) -> None:
    await emit([Frame("custom", b'"blocking"')])
    time.sleep(seconds)  # noqa: ASYNC251 - what users do


async def block_until(gate: str, emit: Emit) -> None:
    await emit([Frame("custom", b'"blocking"')])
    _block_until(gate)


async def hold_gil_until(gate: str, emit: Emit) -> None:
    await emit([Frame("custom", b'"burning"')])
    _hold_gil_until(gate)


async def wait_until(gate: str, emit: Emit) -> None:
    await emit([Frame("custom", b'"waiting"')])
    await _exists(gate)


async def compute(seconds: float, emit: Emit) -> None:
    for _ in range(2):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            sum(range(1000))
        await emit([Frame("custom", b"1")])
        await anyio.lowlevel.checkpoint()


async def stubborn(seconds: float, emit: Emit) -> None:
    await emit([Frame("custom", b'"deaf"')])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            await asyncio.sleep(deadline - time.monotonic())  # noqa: TID251 - native, to swallow
        except asyncio.CancelledError:
            continue


async def leave(code: int, emit: Emit) -> None:
    await emit([Frame("custom", b'"leaving"')])
    await anyio.sleep(0.05)
    os._exit(code)


async def segfault(_: object, emit: Emit) -> None:
    await emit([Frame("custom", b'"falling"')])
    await anyio.sleep(0.05)
    ctypes.string_at(0)


async def fail(message: str, emit: Emit) -> None:
    raise ValueError(message)


async def exit_program(message: str, emit: Emit) -> None:
    sys.exit(message)


async def cancel_itself(_: object, emit: Emit) -> None:
    _cancel_this_task()
    await anyio.sleep(600)


async def spawn_child(path: str, emit: Emit) -> None:
    child = subprocess.Popen(["sleep", "600"])  # noqa: ASYNC220
    await emit([Frame("custom", str(child.pid).encode())])
    await anyio.sleep(600)


FUNCTIONS = {
    function.__name__: function
    for function in (
        echo,
        flood,
        batches,
        sleep,
        block,
        block_until,
        hold_gil_until,
        wait_until,
        compute,
        stubborn,
        leave,
        segfault,
        fail,
        exit_program,
        cancel_itself,
        spawn_child,
    )
}


async def answer(method: str, params: bytes) -> bytes:
    match method:
        case "pid":
            return str(os.getpid()).encode()
        case "unknown":
            raise GraphNotFound("nothing", ["echo"])
        case "update_state":
            if params:
                _say_that_it_began(params.decode())
                await _exists(params.decode())
            raise Conflict("The thread is busy")
        case "wait_until":
            _say_that_it_began(params.decode())
            await _exists(params.decode())
            return str(os.getpid()).encode()
        case "block_until":
            _say_that_it_began(params.decode())
            _block_until(params.decode())
            return b"null"
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit_program":
            sys.exit("so long")
        case "cancel_itself":
            _cancel_this_task()
            await anyio.sleep(600)
        case _:
            pass
    raise ValueError(method)


def _say_that_it_began(gate: str) -> None:
    Path(f"{gate}.{os.getpid()}").touch()


def _block_until(gate: str) -> None:
    while not Path(gate).exists():
        time.sleep(0.01)


def _hold_gil_until(gate: str) -> None:
    while not Path(gate).exists():
        pow(7, 700_000)  # some 0.3 s in which no other thread gets a turn


async def _exists(gate: str) -> None:
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - nobody could set an event
        await anyio.sleep(0.005)


def _cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def run(end: socket.socket) -> None:
    lanes: Lanes[Stopping] | None = None
    leaving = False

    def received(batch: list[ToWorker]) -> None:
        if lanes is not None:
            lanes.received(batch)

    def lost() -> None:
        if not leaving:
            os._exit(1)

    link: Link[ToWorker, FromWorker] = await connect(end, received=received, lost=lost, incoming=ToWorker)
    code = os.environ["MATINS_CODE"]
    if code == "crash":
        os._exit(9)
    if code.startswith("first come, "):
        gate = code.removeprefix("first come, ")
        try:
            Path(gate).open("x").close()  # noqa: ASYNC230 - nothing else goes on yet
        except FileExistsError:
            await _exists(f"{gate}.go")
            code = "broken, for it is not the first"
    if code.startswith("broken"):
        link.post(Failed(code, "trace"))
        if "hangs" in code:
            link.flush()
            time.sleep(600)  # noqa: ASYNC251 - as a thread of the user's that never ends
    else:
        watchdog = Watchdog()
        watchdog.start()
        lanes = Lanes(execute=execute, stopping=Stopping, answer=answer, beat=watchdog.turned)
        link.post(Ready(code.encode()))
        await lanes.run(link)
    leaving = True
    link.close()
    await link.closed.wait()


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    tie_to_parent()
    telemetry.configure(level="INFO", as_json=False)
    os.environ["MATINS_CODE"] = Path(os.environ["MATINS_CONFIG"]).read_text(encoding="utf-8")
    anyio.run(run, take_link())
