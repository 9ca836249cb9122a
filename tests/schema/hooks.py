"""What schemathesis, which loads this module, is told about the server: what there is, and what JSON Schema cannot say.

Every other valid case of an operation is sent to what exists, and where a field must name something it does. The rest
of the case stays as it was made. SCHEMA_SERVER is where the server is, SCHEMA_SINK where its webhooks may go, and
SCHEMA_DELIVERY a delivery that was made there.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any, Final

import httpx
import schemathesis
from schemathesis import Case, HookContext

SOON_SECONDS: Final = 0.05
INTEGERS: Final = range(-(2**63), 2**64)
USES: Final = 10

KNOWN: Final[dict[str, object]] = {
    "assistant_id": "echo",
    "graph_id": "echo",
    "schedule": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "end_time": "2099-01-01T00:00:00Z",
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-01-03T00:00:00Z",
}
"""What is there, by the field that names it."""

UNKNOWN: Final = ("checkpoint", "checkpoint_id", "command", "context", "supersteps", "thread_id")
"""Fields that fit what a case has made up only by chance."""

MAKING: Final = re.compile(
    r"/assistants|/threads|/threads/{thread_id}/state|.*/runs(/(batch|stream|wait|crons|crons/{cron_id}(/backfill)?))?"
)
"""The paths where such fields count."""


class Seeds:
    """What exists on the server, made when it is needed and used some times."""

    def __init__(self) -> None:
        self._http = httpx.Client(base_url=os.environ["SCHEMA_SERVER"], timeout=60)
        self._made: dict[str, dict[str, str]] = {}
        self._left: Counter[str] = Counter()

    def of(self, method: str, path: str) -> dict[str, str]:
        """Give what the parameters of a path name."""
        kind = "crons" if path.startswith("/runs/crons/") else path.split("/")[1]
        if path.endswith("/cancel"):
            return self._make("running")
        if method == "DELETE":
            return self._make(kind)
        if not self._left[kind]:
            self._made[kind] = self._make(kind)
            self._left[kind] = USES
        self._left[kind] -= 1
        return self._made[kind]

    def _make(self, kind: str) -> dict[str, str]:
        if kind == "webhooks":
            return {"delivery_id": os.environ["SCHEMA_DELIVERY"]}
        if kind == "assistants":
            made = self._post("/assistants", graph_id="echo")
        elif kind == "crons":
            made = self._post("/runs/crons", assistant_id="echo", schedule=KNOWN["schedule"])
        else:
            runs = f"/threads/{self._post('/threads')['thread_id']}/runs"
            asked = {"messages": [{"role": "user", "content": "hi"}]}
            delay = 3600 if kind == "running" else 0
            made = self._post(runs, assistant_id="echo", input=asked, after_seconds=delay)
            if not delay:
                self._http.get(f"{runs}/{made['run_id']}/join").raise_for_status()
        return {name: value for name, value in made.items() if name.endswith("_id")}

    def _post(self, path: str, **asked: object) -> Any:
        answer = self._http.post(path, json=asked)
        answer.raise_for_status()
        return answer.json()


SEEDS: Final = Seeds()
CASES: Final[Counter[str]] = Counter()


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: object) -> None:
    """Lead a case to what exists; start runs soon, for whatever waits for a run waits as long, perhaps ten years."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    label = f"{case.method} {case.path}"
    CASES[label] += 1
    body: Any = case.body
    bodies: list[dict[str, Any]] = [
        each for each in (body if isinstance(body, list) else [body]) if isinstance(each, dict)
    ]
    for each in bodies:
        each.update(storable(each))
        if each.get("after_seconds"):
            each["after_seconds"] = SOON_SECONDS
        if "webhook" in each:
            each["webhook"] = os.environ["SCHEMA_SINK"]
    if CASES[label] % 2 == 0 or case.meta.phase.name.value == "stateful":
        return
    if case.path_parameters:
        seeds = SEEDS.of(case.method, case.path)
        for name in case.path_parameters:
            if name in seeds:
                case.path_parameters[name] = seeds[name]
    if case.path == "/runs/cancel":
        for each in bodies:
            if each.get("run_ids"):
                running = SEEDS.of(case.method, case.path)
                each.update(thread_id=running["thread_id"], run_ids=[running["run_id"]])
    for each in bodies if MAKING.fullmatch(case.path) else ():
        each.update({name: value for name, value in KNOWN.items() if name in each})
        for name in UNKNOWN:
            each.pop(name, None)
        if case.path.endswith("/crons"):  # either says when; the schema cannot
            each.pop("after_seconds", None)
            each.setdefault("schedule", KNOWN["schedule"])


def storable(value: Any) -> Any:
    """Give JSON with no integer beyond 64 bits, and none written as 1.0: to JSON Schema both are integers."""
    if isinstance(value, dict):
        return {name: storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, float) and value.is_integer() and int(value) in INTEGERS:
        return int(value)
    if isinstance(value, int) and value not in INTEGERS:
        return 0
    return value
