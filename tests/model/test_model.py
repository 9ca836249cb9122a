"""The server against the model: MODEL_EXAMPLES examples of 30 steps each, from MODEL_SEED or a seed that is printed.

An example that fails is printed as the calls that lead there; with MODEL_SHRINK set, as few of them as can be.
"""

from __future__ import annotations

import os
import random
import sys

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine
from tests.model.world import World

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "200"))
SEED = int(os.environ.get("MODEL_SEED", random.randrange(2**32)))


@pytest.mark.timeout(0)  # as many examples as are asked for
def test_the_server_does_what_the_model_does(world: World) -> None:
    class Seeded(Machine):
        pass

    Seeded.world = world
    sys.stdout.write(f"\n{EXAMPLES} examples; MODEL_SEED={SEED} does the same again\n")
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        stateful_step_count=30,
        print_blob=True,
        report_multiple_bugs=False,
        # To wait for what never comes, again for each way to make an example shorter, takes an hour.
        phases=[
            hypothesis.Phase.generate,
            *([hypothesis.Phase.shrink] if "MODEL_SHRINK" in os.environ else []),
        ],
        database=None,
    )
    run_state_machine_as_test(hypothesis.seed(SEED)(Seeded), settings=settings)
    sys.stdout.write("".join(f"{count:6} {what}\n" for what, count in world.fired.most_common()))
    kills, steps = world.fired["kill_worker"], world.fired.total()
    assert kills * 50 <= steps
