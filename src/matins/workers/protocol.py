"""What the serving process and a worker say to each other.

One message a frame, MessagePack, as tagged arrays. Payloads that neither side of the link needs to look into
are already-encoded JSON in `bytes`.

    serving process                              worker
        | <------------------------------- Ready |   its graphs are imported
        | Execute ---------------------------->  |
        | <----------------------------- Started |   a lane took it; or Refused: nothing was run
        | <-------------- Events, Events, Events |
        | <------------------------------- Spent |   a model was called for a cron's run; before its Settled
        | Credit ----------------------------->  |   that much of its events was consumed
        | Stop ------------------------------->  |   at any time; the lane answers with Settled all the same
        | <----------------------------- Settled |   exactly one for each Started
        | Call ------------------------------->  |
        | <------------------------------- Taken |   it began: it may be what blocks the loop from here on
        | <------------------------------ Answer |   exactly one for each Call
        | <-------------------------------- Beat |   the worker's loop turns
        | Drain ------------------------------>  |   take nothing new; exit when the last lane is done

No message waits for another run: a lane may have WINDOW_OCTETS of events under way, then it waits for Credit,
while the frames of its siblings, answers and beats go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias
from uuid import UUID

import msgspec

from matins.domain.frames import Frame

BEAT_SECONDS: Final = 0.05
"""How often a worker's loop says that it turns."""

OFFER_SECONDS: Final = 1.0
"""How long an Execute may lie unread before the worker must refuse it: the run is then given to another."""

WINDOW_OCTETS: Final = 256 * 1024
"""How much a lane may have sent that is not yet consumed. 25 MB/s when a consumer needs 10 ms for a batch."""

_FRAME_OCTETS: Final = 64  # what an empty frame counts: a million of them are not free either


CONNECTIONS: Final = 8
"""How many connections to the database a worker holds: a statement takes a millisecond, so ten lanes share them."""


STORE_CONNECTIONS: Final = 2
"""How many more it may open for LangGraph's store, once a graph uses that."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The root of all messages."""


class Execute(Message, frozen=True, array_like=True):
    """Run this. `kwargs` is domain.runs.RunKwargs as JSON; `metadata` and `creator` JSON objects.

    `offered_at` is CLOCK_MONOTONIC seconds, comparable between processes of one machine, stamped by the pool:
    a worker that reads the offer more than OFFER_SECONDS later answers Refused and runs nothing. By `token` the
    graph's calls of the server are known as this attempt's; it is for the socket between the two alone. `tokens_left`
    and `usd_left`: what it may still spend, where it is to be held to that.
    """

    run_id: UUID
    thread_id: UUID
    attempt: int
    assistant_id: UUID
    kwargs: bytes
    metadata: bytes
    offered_at: float = 0.0
    creator: bytes | None = None
    cron_id: UUID | None = None
    token: str = ""
    tokens_left: int | None = None
    usd_left: float | None = None


class Stop(Message, frozen=True, array_like=True):
    """End that attempt. `reason` is a domain.runs.StopReason."""

    run_id: UUID
    attempt: int
    reason: str


class Credit(Message, frozen=True, array_like=True):
    """Events of that attempt were consumed: `octets` of its window are free again."""

    run_id: UUID
    attempt: int
    octets: int


class Call(Message, frozen=True, array_like=True):
    """Ask for something that needs a graph: `method` names it, `params` are JSON."""

    call_id: int
    method: str
    params: bytes


class Drain(Message, frozen=True, array_like=True):
    """Take nothing new and exit when the last lane is done."""


class Ready(Message, frozen=True, array_like=True):
    """The graphs are imported. `graphs` is JSON: id -> {"name": str | null, "description": str | null}.

    `assigns_priority`: whether it can be asked which threads come first.
    """

    graphs: bytes
    assigns_priority: bool = False


class Failed(Message, frozen=True, array_like=True):
    """A graph could not be imported; the worker exits. `message` is one clear line."""

    message: str
    trace: str


class Beat(Message, frozen=True, array_like=True):
    """The worker's loop turns."""


class Started(Message, frozen=True, array_like=True):
    """A lane took the run."""

    run_id: UUID
    attempt: int


class Refused(Message, frozen=True, array_like=True):
    """The offer was stale, withdrawn by a Stop behind it, or the worker is draining: nothing was run."""

    run_id: UUID
    attempt: int


class Events(Message, frozen=True, array_like=True):
    """What the run streamed, in order."""

    run_id: UUID
    attempt: int
    frames: list[Frame]


class Spent(Message, frozen=True, array_like=True):
    """A model was called: what it took, in tokens and US dollars, None when the price of `model` is not known."""

    run_id: UUID
    attempt: int
    input_tokens: int
    output_tokens: int
    tokens: int
    usd: float | None
    model: str


class Settled(Message, frozen=True, array_like=True):
    """The run is over in this process. Nothing of it executes any more.

    `outcome`: `success`, `error`, `timeout`, `stopped` (by a Stop: see `reason`), `lost` (the fence refused
    it) or `skipped` (its cron's condition wants no run, and nothing was done: see `reason`).
    `values`: the root state as JSON, or None when there is none (yet). `interrupts`: the thread's pending
    interrupts, task id -> list, as JSON. `has_next`: the last checkpoint has nodes left to run.
    `error`: domain.runs.RunError as JSON. `reply`: what `wait` and `join` answer, as JSON.
    `is_untouched`: it was refused before it wrote anything. `output`: of a cron's run, what it said in the end.
    `is_transient`: of a run that its policy has tried again, the error may pass; its `error` frame was not sent.
    """

    run_id: UUID
    attempt: int
    outcome: str
    values: bytes | None = None
    interrupts: bytes = b"{}"
    has_next: bool = False
    checkpoint_id: str | None = None
    error: bytes | None = None
    reply: bytes = b"null"
    reason: str | None = None
    is_untouched: bool = False
    output: str | None = None
    is_transient: bool = False


class Taken(Message, frozen=True, array_like=True):
    """The answering of a Call began."""

    call_id: int


class Answer(Message, frozen=True, array_like=True):
    """The reply to a Call: JSON in `result`, or the refusal: `error` is the class name of a domain error."""

    call_id: int
    result: bytes = b"null"
    error: str | None = None
    message: str = ""


ToWorker: TypeAlias = Execute | Stop | Credit | Call | Drain
FromWorker: TypeAlias = Ready | Failed | Beat | Started | Refused | Events | Spent | Settled | Taken | Answer


def octets(frames: Sequence[Frame]) -> int:
    """Give what these frames take of a lane's window. Both ends count by this."""
    return sum(len(frame.data) for frame in frames) + _FRAME_OCTETS * len(frames)
