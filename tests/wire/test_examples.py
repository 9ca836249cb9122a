"""The three programs that do what the API's page on crons shows, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.servers import Server

EXAMPLES = servers.EXAMPLES.parent
NODE = Path(sys.executable).with_name("node")
MODULES = servers.ROOT / "tests" / "js" / "node_modules"


def run(server: Server, *command: str | Path, cwd: Path = EXAMPLES) -> str:
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"MATINS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_python_program_makes_a_cron_on_a_thread_and_deletes_it(server: Server) -> None:
    said = run(server, sys.executable, EXAMPLES / "cron.py")
    assert "'schedule': '27 15 * * *'" in said
    assert "deleted" in said


@pytest.mark.parametrize("sdk", ["sdk-1.15", "sdk-2.0"])
def test_the_javascript_program_makes_a_cron_on_a_thread_and_deletes_it(
    server: Server, sdk: str, tmp_path: Path
) -> None:
    program = tmp_path / "cron.mjs"
    program.write_text((EXAMPLES / "cron.mjs").read_text())
    scope = tmp_path / "node_modules" / "@langchain"
    scope.mkdir(parents=True)
    (scope / "langgraph-sdk").symlink_to(MODULES / sdk)
    said = run(server, NODE, program, cwd=tmp_path)
    assert "27 15 * * *" in said
    assert "deleted" in said


def test_the_curl_program_shows_what_is_missing_then_makes_a_cron_and_deletes_it(server: Server) -> None:
    said = run(server, "sh", EXAMPLES / "cron.sh")
    assert '\\"schedule\\" is a required property' in said
    assert "(422)" in said
    assert "deleted" in said
