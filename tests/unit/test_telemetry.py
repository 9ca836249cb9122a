from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from matins import telemetry
telemetry.configure(level="INFO", as_json=sys.argv[1] == "json")
telemetry.log().error(telemetry.RUN_ENDED, run_id="7", trace="Traceback:\\n  File x\\nValueError: boom\\n")
"""


def logged(form: str) -> list[str]:
    # Structlog is configured for a whole process, so one of its own.
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True, timeout=30
    )
    return ended.stderr.splitlines()


def test_people_read_a_traceback_line_by_line() -> None:
    event, *trace = logged("text")
    assert "run.ended" in event
    assert "Traceback" not in event
    assert trace == ["Traceback:", "  File x", "ValueError: boom"]


def test_machines_read_an_event_with_its_traceback_in_one_line() -> None:
    [event] = logged("json")
    assert '"trace": "Traceback:\\n' in event


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_line_that_cannot_be_written_is_lost_and_raises_nothing(form: str) -> None:
    program = PROGRAM + "print('went on', flush=True)"
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-c", program, form],
            check=False,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            timeout=30,
        )
    assert process.stdout == "went on\n"
