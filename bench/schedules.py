"""What a next date costs: `python bench/schedules.py`.

Prints the average and the worst time of a call, over the corpus, 10,000 random schedules and a list made to
hurt. It is thread time, so other load on the machine does not count; for each input the best of three calls
counts; each call parses anew, as for a schedule never seen before.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from matins.domain.errors import Invalid
from matins.domain.schedule_grammar import parse
from matins.domain.schedules import next_after

CORPUS = Path(__file__).parents[1] / "tests" / "unit" / "data" / "cron_corpus.json"

NASTY = [
    "1," * 5_000 + "1 * * * *",
    "* * * * " + ",".join(["0-7/1"] * 20_000),
    ",".join(["*/1"] * 60) + " * * * *",
    "0 0 " + ",".join(f"{n}W" for n in range(1, 32)) + " * " + ",".join(f"{n}#5" for n in range(7)),
    "0 0 29 2 */7",
    "0 0 29 2 MON#5",
    "0 0 */29 2 SUN#5",
    "59 23 31 12 *",
    "0 0 * 2 SAT#5",
    "0 0 30 2 *",
    "0 0 31 2,4,6,9,11 *",
    "0 0 31W 2 *",
    "0 0 30W,31W 2 *",
    "* 2 * 3 SUN#2",
    "*/59 2 * 3 SUN#2",
    "0-59 0-23 1-31 1-12 0-7",
    "0-59 1-2 * * *",
    "*/" + "9" * 200 + " * * * *",
    "9" * 240 + " * * * *",
    "-" * 250,
    "/" * 250,
    "," * 250,
    "* " * 128,
    "@every " + "9" * 200 + "h",
    "@every 999999999h",
    "@every 438000h",
]
MOMENTS = [
    datetime(2024, 3, 10, 6, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 11, 3, 6, 0, 1, tzinfo=UTC),
    datetime(2025, 10, 26, 1, 0, 1, tzinfo=UTC),
    datetime(2011, 12, 30, 9, 59, 59, tzinfo=UTC),
    datetime(2088, 3, 1, tzinfo=UTC),
    datetime(4025, 3, 1, tzinfo=UTC),
]


class Input(NamedTuple):
    expression: str
    zone: str
    after: datetime


class Figures(NamedTuple):
    inputs: int
    average_s: float
    worst_s: float
    worst_input: Input


def random_expression(rng: random.Random) -> str:
    def field(low: int, high: int) -> str:
        a, b = sorted(rng.choices(range(low, high + 1), k=2))
        step = rng.randint(1, high)
        return rng.choice(["*", f"*/{step}", f"{a}", f"{a}-{b}", f"{a}-{b}/{step}", f"{a},{b}"])

    nth = rng.randint(1, 5)
    days = rng.choice([field(1, 31), field(1, 31), "L", "LW", f"{rng.randint(1, 31)}W"])
    week_days = rng.choice([field(0, 7), "*", "*", f"{rng.randint(0, 7)}L", f"{rng.randint(0, 7)}#{nth}"])
    return " ".join([field(0, 59), field(0, 23), days, field(1, 12), week_days])


def inputs(random_count: int) -> Iterator[Input]:
    cases = json.loads(CORPUS.read_text("utf-8"))["cases"]
    zones = sorted({case["tz"] for case in cases})
    for case in cases:
        yield Input(case["expr"], case["tz"], datetime.fromisoformat(case["from"]))
    for expression in NASTY:
        for zone in ("UTC", "America/New_York", "Pacific/Apia", "Antarctica/Troll"):
            for moment in MOMENTS:
                yield Input(expression, zone, moment)
    rng = random.Random(20260801)
    for _ in range(random_count):
        moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(60 * 365 * 86400))
        yield Input(random_expression(rng), rng.choice(zones), moment)


def cost_s(each: Input) -> float:
    parse.cache_clear()
    start = time.thread_time()
    with contextlib.suppress(Invalid):  # a refusal has to be as quick
        next_after(*each)
    return time.thread_time() - start


def measure(random_count: int = 10_000) -> Figures:
    costs = {each: min(cost_s(each) for _ in range(3)) for each in inputs(random_count)}
    worst = max(costs, key=lambda each: costs[each])
    return Figures(len(costs), sum(costs.values()) / len(costs), costs[worst], worst)


if __name__ == "__main__":
    figures = measure()
    worst = figures.worst_input
    print(f"{figures.inputs} inputs, best of three calls each, thread time, parsed anew")
    print(f"average {figures.average_s * 1e6:8.1f} us")
    print(f"worst   {figures.worst_s * 1e6:8.1f} us   {worst.expression[:60]!r}, {worst.zone}, {worst.after}")
    sys.exit(figures.average_s >= 0.001 or figures.worst_s >= 0.010)
