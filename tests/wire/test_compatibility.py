"""What is promised is tested, what is tested is promised, and the page that says so is up to date."""

from __future__ import annotations

import inspect
import re

import pytest
from langgraph_sdk import get_client

from matins.api.app import OPERATIONS
from tests.wire.compatibility.document import PLACE, document
from tests.wire.compatibility.marks import Proof, covered
from tests.wire.compatibility.rows import Row, named, rows


@pytest.fixture(scope="module")
def promised() -> dict[tuple[str, str], Row]:
    return rows()


@pytest.fixture(scope="module")
def tested(promised: dict[tuple[str, str], Row]) -> dict[tuple[str, str], list[Proof]]:
    return covered(promised)


def test_every_promise_has_a_test(
    promised: dict[tuple[str, str], Row], tested: dict[tuple[str, str], list[Proof]]
) -> None:
    """A new field or route fails here: mark the test that shows it with @covers, or say that it is not there yet."""
    assert [place for place, row in promised.items() if not row.not_yet and place not in tested] == []


def test_every_mark_names_a_promise(
    promised: dict[tuple[str, str], Row], tested: dict[tuple[str, str], list[Proof]]
) -> None:
    assert {place: tests for place, tests in tested.items() if place not in promised} == {}


def test_what_is_not_there_yet_has_no_test(
    promised: dict[tuple[str, str], Row], tested: dict[tuple[str, str], list[Proof]]
) -> None:
    """One that has come is told of in its *.toml file, without `not_yet`."""
    assert [place for place, row in promised.items() if row.not_yet and place in tested] == []


def test_an_operation_is_mounted_or_not_there_yet(promised: dict[tuple[str, str], Row]) -> None:
    statuses = {named(each): {str(each.status), *map(str, each.other_statuses)} for each in OPERATIONS}
    for (subject, aspect), row in promised.items():
        if re.match("(GET|POST|PUT|PATCH|DELETE) /", subject):
            assert row.not_yet or subject in statuses, f"{subject} is not mounted"
            assert not (row.not_yet and aspect in statuses.get(subject, ())), f"{subject} has come"


def test_the_page_says_what_the_tests_say() -> None:
    assert PLACE.read_text("utf-8") == document(), "run `make docs`"


RUN = ("RunCreate", "RunOnThread", "RunWithoutThread")
CRON = ("CronCreate", "OfRuns")
OF_STATE = ("GET /threads/{thread_id}/state", "StateAt")
OPTIONS: dict[str, tuple[str, ...]] = {
    "assistants.count": ("AssistantCount",),
    "assistants.create": ("AssistantCreate",),
    "assistants.delete": ("DELETE /assistants/{assistant_id}",),
    "assistants.get_graph": ("GET /assistants/{assistant_id}/graph",),
    "assistants.get_subgraphs": ("GET /assistants/{assistant_id}/subgraphs/{namespace}",),
    "assistants.get_versions": ("Versions",),
    "assistants.search": ("AssistantCount", "AssistantSearch"),
    "assistants.set_latest": ("Latest",),
    "assistants.update": ("AssistantPatch",),
    "crons.count": ("CronCount",),
    "crons.create": CRON,
    "crons.create_for_thread": CRON,
    "crons.search": ("CronCount", "CronSearch"),
    "crons.update": ("CronPatch", "OfRuns"),
    "runs.cancel": ("POST /threads/{thread_id}/runs/{run_id}/cancel",),
    "runs.cancel_many": ("CancelMany", "POST /runs/cancel"),
    "runs.create": RUN,
    "runs.join_stream": ("GET /threads/{thread_id}/runs/{run_id}/stream",),
    "runs.list": ("GET /threads/{thread_id}/runs",),
    "runs.stream": RUN,
    "runs.wait": RUN,
    "threads.count": ("ThreadCount",),
    "threads.create": ("ThreadCreate",),
    "threads.get": ("GET /threads/{thread_id}",),
    "threads.get_history": ("History",),
    "threads.get_state": OF_STATE,
    "threads.join_stream": ("GET /threads/{thread_id}/stream",),
    "threads.prune": ("ThreadsPrune",),
    "threads.search": ("ThreadCount", "ThreadSearch"),
    "threads.update": ("ThreadPatch",),
    "threads.update_state": ("StateUpdate",),
}
"""Where the options of each method go; a method that is not here has none but what leads to the thing."""

LEADS = {"assistant_id", "cron_id", "namespace", "run_id", "thread_id"}
OWN = {
    *("headers", "params", "on_run_created", "raise_error", "version", "response_format", "last_event_id"),
    "return_minimal",  # a header
    "payloads",  # each of them the options of runs.create
}
PUT_INTO = {
    ("threads.create", "graph_id"): "metadata",
    ("threads.get_state", "checkpoint_id"): "the path",
}
SENT_AS = {"langsmith_tracing": "langsmith_tracer"}


def test_every_option_of_the_sdk_is_promised_or_not_there_yet(promised: dict[tuple[str, str], Row]) -> None:
    client = get_client(url="http://nowhere.example")
    missing = []
    for resource in ("assistants", "threads", "runs", "crons"):
        for name, method in inspect.getmembers(getattr(client, resource), inspect.ismethod):
            path = f"{resource}.{name}"
            if name.startswith("_") or path == "threads.stream":  # no call, but a connection of its own
                continue
            for option in inspect.signature(method).parameters.keys() - LEADS - OWN:
                aspect = SENT_AS.get(option, option)
                known = {
                    (subject, each) for subject in OPTIONS.get(path, ()) for each in (aspect, f"?{aspect}")
                }
                if not known & promised.keys() and (path, option) not in PUT_INTO:
                    missing.append((path, option))
    assert missing == []
