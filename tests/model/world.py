"""The real server, with what a test needs to drive it and to see it: HTTP, its database, the gate of its graphs."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from tests.model.gate import Gate, Knock, gate
from tests.model.model import Place, Thread
from tests.support import databases, servers

HERE: Final = Path(__file__).parent
GRAPHS: Final = ("paced", "nested")
AT_ONCE: Final = 4

Database = psycopg.Connection[tuple[Any, ...]]


@dataclass(slots=True)
class Known:
    """A thread of the server's and what the model says of it. `ids`: its root checkpoints as last seen, oldest first.

    `zombies`: attempts that have lost their run and do not know it. `unended`: the runs whose end nobody has seen yet.
    """

    thread_id: str
    graph: str
    model: Thread = field(default_factory=Thread)
    ids: list[str] = field(default_factory=list)
    seen: Place = field(default_factory=Place)
    zombies: list[Knock] = field(default_factory=list)
    unended: set[str] = field(default_factory=set)


class World:
    """A running server. `patience_s`: how long it may take to get where the model is already."""

    def __init__(self, http: httpx.Client, database: Database, kept: Gate, *, patience_s: float = 30) -> None:
        self.http: Final = http
        self.database: Final = database
        self.gate: Final = kept
        self.patience_s = patience_s
        self.fired: Counter[str] = Counter()
        self.found: list[str] = []
        self._clients: Final = ThreadPoolExecutor(4 * AT_ONCE)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def post_at_once(self, path: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
        """Post them all in the same moment."""
        return list(self._clients.map(lambda body: self.http.post(path, json=body), bodies))

    def new_thread(self, graph: str) -> Known:
        return Known(self.post("/threads").json()["thread_id"], graph)

    def settled(self, known: Known, *, possible: list[Thread] | None = None) -> None:
        """Wait until the thread is as its model says, in all that a client can see; of several models, as one of them.

        Raises: AssertionError that names the differences.
        """
        models = possible or [known.model]
        self._await(known, models)
        deadline = time.monotonic() + self.patience_s
        while True:
            differences = []
            for model in models:
                different = self.differences(known, model, is_one_of_several=len(models) > 1)
                if not different:
                    known.model = model
                    model.low = model.place.depth
                    return
                differences.append(different)
            if time.monotonic() > deadline:
                raise AssertionError("\n\n".join("\n".join(each) for each in differences))
            time.sleep(0.005)  # nothing tells of the rest: one of several models, or a thread behind its runs

    def _await(self, known: Known, models: list[Thread]) -> None:
        """Wait for the events that lead there: runs that end, or are undone, and one that comes to the gate."""
        in_flight = {run.name for model in models for run in model.in_flight}
        for name in sorted(known.unended - in_flight):
            ended = self._clients.submit(self.http.get, f"/threads/{known.thread_id}/runs/{name}/join")
            with suppress(TimeoutError):
                ended.result(self.patience_s)
            known.unended.remove(name)
        if len(models) == 1 and (running := models[0].running) is not None:
            self.gate.until(
                lambda: self.waiting(known),
                what=f"{running.name} at {models[0].at}",
                patience_s=2 * self.patience_s,
            )

    def waiting(self, known: Known) -> list[Knock]:
        """Those of the thread who stand at the gate and have a right to."""
        return [knock for knock in self.gate.waiting(known.thread_id) if knock not in known.zombies]

    def differences(
        self, known: Known, model: Thread, *, is_last: bool = False, is_one_of_several: bool = False
    ) -> list[str]:
        """Compare what the API shows with the model; the checkpoints only if they should have changed, or at last.

        They alone may tell one of several models from another.
        """
        found: list[str] = []

        def same(what: str, seen: object, wanted: object) -> None:
            if seen != wanted:
                found.append(f"{what}: the server says {seen}, the model {wanted}")

        path = f"/threads/{known.thread_id}"
        thread = self.http.get(path).json()
        same("status", thread["status"], model.status)
        same("values", thread["values"], model.shown)
        if model.was_written:
            asks = [each["value"] for task in thread.get("interrupts", {}).values() for each in task]
            same("interrupts", asks, [model.asks] if model.asks else [])
            same("error", (thread.get("error") or {}).get("error"), model.error)
        runs = self.http.get(f"{path}/runs?limit=1000").json()
        seen_runs = [(run["run_id"], run["status"], run["multitask_strategy"]) for run in runs]
        same("runs", seen_runs, [(run.name, run.status, run.strategy) for run in reversed(model.runs)])
        found += self._gate_differences(known, model)
        has_changed = model.place != known.seen or model.low < model.place.depth
        if not found and (has_changed or is_one_of_several or is_last):
            found += self._state_differences(known, model, is_last=is_last)
        return found

    def _gate_differences(self, known: Known, model: Thread) -> list[str]:
        run, at = model.running, model.at
        seen = [(knock.run_id, knock.step) for knock in self.waiting(known)]
        wanted = [(run.name, at[0])] if run and at else []
        return [] if seen == wanted else [f"at the gate: {seen}, in the model {wanted}"]

    def _state_differences(self, known: Known, model: Thread, *, is_last: bool) -> list[str]:
        """Compare the newest state, and which checkpoints there are; at last each of them, as the API shows it."""
        place, path = model.place, f"/threads/{known.thread_id}"
        rows = self.database.execute(
            "SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = '' ORDER BY checkpoint_id",
            [known.thread_id],
        )
        ids = [row[0] for row in rows.fetchall()]
        if len(ids) != place.depth:
            return [f"checkpoints: the server has {len(ids)}, the model {place.depth}"]
        if ids[: model.low] != known.ids[: model.low]:
            return [f"the oldest {model.low} checkpoints have changed"]
        if ids:
            newest = self.http.get(f"{path}/state").json()
            asks = [each["value"] for each in newest["interrupts"]]
            seen = newest["values"], newest["next"], asks
            wanted = place.values, place.next, [place.asked] if place.asked else []
            if seen != wanted:
                return [f"state: the server says {seen}, the model {wanted}"]
        if is_last:
            history = self.post(f"{path}/history", limit=1000).json()
            if (shown := [state["checkpoint_id"] for state in reversed(history)]) != ids:
                return [f"history: the server shows {shown}, and has {ids}"]
        known.ids, known.seen = ids, place
        return []

    def take_away(self, known: Known) -> list[Knock]:
        """Take the run away from its attempt, as another node does that believes ours to be dead; gives who lost it."""
        run, lost = known.model.running, self.waiting(known)
        assert run is not None
        known.zombies += lost
        self.database.execute(
            "UPDATE matins.run SET status = 'pending', node_id = NULL WHERE run_id = %s AND status = 'running'",
            [run.name],
        )
        self.database.execute("SELECT pg_notify('matins', 'another-node q')")
        return lost

    def kill(self, knock: Knock) -> None:
        """Kill the process of the one who stands at the gate."""
        os.kill(knock.pid, signal.SIGKILL)
        self.gate.until(lambda: knock.is_gone, what=f"the death of {knock}")

    def clear(self) -> None:
        """Leave no thread, and forget what was written down."""
        self.database.execute("DELETE FROM matins.thread")
        self.gate.forget()
        self.violations()

    def violations(self) -> list[str]:
        """Give what the audit has written down since it was asked last."""
        return [
            f"{thread_id}: {what}"
            for thread_id, what in self.database.execute("DELETE FROM audit.violation RETURNING *").fetchall()
        ]

    def slowest_stop_s(self) -> float:
        """Give how long a run went on after somebody wished it to stop, at the most, by the database's clock."""
        row = self.database.execute(
            "SELECT extract(epoch FROM max(took))::float FROM audit.stopped"
        ).fetchone()
        assert row is not None
        return float(row[0])

    def leftovers(self, thread_ids: list[str]) -> int:
        """Count what threads that were deleted have left behind."""
        tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        counts = " + ".join(
            f"(SELECT count(*) FROM {table} WHERE thread_id = ANY(%(ids)s))" for table in tables
        )
        row = self.database.execute(f"SELECT {counts}".encode(), {"ids": thread_ids}).fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def world(postgres: str, directory: Path, *, env: Mapping[str, str] | None = None) -> Iterator[World]:
    """Run a server with an audited database of its own and the gate, for the length of the block."""
    config, path = HERE / "graphs" / "langgraph.json", directory / "gate"
    with (
        databases.database(postgres) as uri,
        gate(path) as kept,
        psycopg.connect(uri, autocommit=True) as database,
    ):
        database.execute((HERE / "audit.sql").read_bytes())
        environment = {"DATABASE_URI": uri, "GATE": str(path), **(env or {})}
        with (
            servers.start(config, directory, args=["--no-reload"], env=environment) as server,
            httpx.Client(base_url=server.url, timeout=120) as http,
        ):
            yield World(http, database, kept)
            kept.open_all()
