from __future__ import annotations

import runpy
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "schedules.py"


def test_next_date_costs_under_1_ms_on_average_and_under_10_ms_at_worst() -> None:
    figures = runpy.run_path(str(BENCH))["measure"]()
    assert figures.inputs > 10_000
    assert figures.average_s < 0.001
    assert figures.worst_s < 0.010, figures.worst_input
