"""The machine against servers that have bugs: it finds each of them, in EXAMPLES examples of 30 steps at the most.

What the bugs are, tests/model/bugs/sitecustomize.py shows. One server has them all, one at a time.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from matins.engine import forks
from matins.engine.queue.lane import Lanes
from matins.engine.runs import Runs
from matins.storage import sql
from tests.model.bugs.sitecustomize import REWRITTEN
from tests.model.machine import Machine
from tests.model.world import World
from tests.model.world import world as running_world

BUGS = Path(__file__).parent / "bugs"
EXAMPLES = 60
SEED = int(os.environ.get("MODEL_SEED", "7"))  # the same each time: what is found does not hang on luck
INDEX = "CREATE UNIQUE INDEX run_one_running_per_thread ON matins.run (thread_id) WHERE status = 'running'"


@pytest.fixture(scope="module")
def bug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bug") / "bug"
    path.write_text("none", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def infested(postgres: str, bug: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    paths = os.pathsep.join(filter(None, (str(BUGS), os.environ.get("PYTHONPATH"))))
    environment = {"SEEDED_BUG": str(bug), "PYTHONPATH": paths}
    with running_world(postgres, tmp_path_factory.mktemp("infested"), env=environment) as running:
        yield running


def run(world: World, *, examples: int) -> None:
    class Watching(Machine):
        pass

    Watching.world = world
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=30,
        phases=[hypothesis.Phase.generate],  # which is found is enough
        report_multiple_bugs=False,
        database=None,
    )
    run_state_machine_as_test(hypothesis.seed(SEED)(Watching), settings=settings)


def test_what_the_bugs_change_is_there() -> None:
    """A bug that changes nothing would be one that nobody has to find."""
    for name, rewritten in REWRITTEN.items():
        for subject, query, text, _ in rewritten:
            assert text in sql.load(subject)[query].text, name
    assert "ended_at" in sql.load("queue")["end_run"].text
    assert "threads.lock" in inspect.getsource(Runs._insert)
    assert "forks.settle" in inspect.getsource(Lanes._settle)
    assert "queue.settle" in inspect.getsource(forks.settle)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", [*REWRITTEN, "settle in two transactions", "reject looks without the lock"])
def test_the_machine_finds(name: str, infested: World, bug: Path) -> None:
    without_index = name == "two run at once"
    if without_index:
        infested.database.execute("DROP INDEX matins.run_one_running_per_thread")
    infested.found.clear()
    infested.patience_s = 2  # what it finds would not be otherwise later on
    bug.write_text(name, encoding="utf-8")
    try:
        with pytest.raises((AssertionError, Flaky)):  # flaky, since it may look otherwise a second time
            run(infested, examples=EXAMPLES)
    finally:
        bug.write_text("none", encoding="utf-8")
        infested.clear()
        if without_index:
            infested.database.execute(INDEX)
    assert infested.found
    sys.stdout.write(f"\n{name}: {infested.found[0]}\n")


@pytest.mark.timeout(0)
def test_the_machine_finds_nothing_where_no_bug_is(infested: World) -> None:
    infested.patience_s = 30
    run(infested, examples=3)
