"""Every program of README.md, in the order of the page, as a reader would run it.

A fenced block is one of
- a program: `sh`, `python` or `js`, which must end with exit code 0;
- a server: a program below the comment `<!-- runs until it is stopped -->`, which runs until the next server block;
- a file: any block below the comment `<!-- file: NAME -->`, written into the reader's own project.
Anything else has no verdict, and that fails the test.

What differs from the page is what `Reader` replaces: the port, the address, the database, and where `make dev` keeps
its data, so that a developer's own is not touched.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import servers

pytestmark = pytest.mark.timeout(300)

README = servers.ROOT / "README.md"
SDKS = ("sdk-1.15", "sdk-2.0")
LONGEST_PROGRAM_SECONDS = 60

BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
RUNS_ON = "runs until it is stopped"
FILE = re.compile(r"file: (?P<name>[\w./-]+)")


@dataclass(frozen=True)
class Block:
    line: int
    note: str
    language: str
    text: str

    @property
    def verdict(self) -> str:
        """What the block is, or nothing."""
        if FILE.fullmatch(self.note):
            return "file"
        if self.note == RUNS_ON:
            return "server" if self.language == "sh" else ""
        return "program" if self.language in {"sh", "python", "js"} and not self.note else ""


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer(page):
        line = page.count("\n", 0, found.start("language")) + 1
        yield Block(line, found["note"] or "", found["language"], found["text"])


class Reader:
    """Someone who does what the page says, in this checkout and in a project, with a terminal for the server."""

    def __init__(self, directory: Path, *, database: str, stack: ExitStack) -> None:
        self.directory = directory
        self.project = directory / "project"
        self.port = servers.free_port()
        self.served: servers.Server | None = None
        self._replaced = {
            "make dev": f"make dev PORT={self.port} DATA_DIR={directory / '.matins'}",
            "matins dev": f"matins dev --port {self.port}",
            "matins serve": f"matins serve --port {self.port}",
            "http://127.0.0.1:2024": f"http://127.0.0.1:{self.port}",
            "postgresql://matins@localhost/matins": database,
        }
        self._stack = stack
        self.project.mkdir()
        binaries = servers.ROOT / ".venv" / "bin"  # as in an activated environment
        self._env = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}

    def follow(self, block: Block) -> None:
        text = re.sub(
            "|".join(map(re.escape, self._replaced)), lambda found: self._replaced[found[0]], block.text
        )
        match block.verdict, block.language:
            case "file", _:
                named = FILE.fullmatch(block.note)
                assert named is not None
                (self.project / named["name"]).write_text(text, encoding="utf-8")
            case "server", _:
                self._serve(text)
            case _, "sh":
                self._run("bash", "-euo", "pipefail", "-c", text)
            case _, "python":
                self._run("python", "-c", text)
            case _, _:
                for sdk in SDKS:
                    self._run("node", self._module(text, sdk))

    def _serve(self, text: str) -> None:
        """Stop the server in the terminal, by Ctrl-C, and start another."""
        if self.served is not None:
            self.served.interrupt()
        makes = text.startswith("make ")
        embeds = "DATABASE_URI" not in text
        home = self.directory if makes else self.project
        self.served = servers.Server(
            ["bash", "-euc", text],
            port=self.port,
            log=self.directory / f"{'make' if makes else 'matins'}-{embeds}.log",
            data_dir=home / ".matins" if embeds else None,
            env=self._env,
            cwd=servers.ROOT if makes else self.project,
        )
        self._stack.enter_context(servers.clearing_away(self.served))
        self.served.start()

    def _run(self, *command: str) -> None:
        assert self.served is None or self.served.is_running, self.served.tail()
        ended = subprocess.run(
            command,
            cwd=self.project,
            env=os.environ | self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_PROGRAM_SECONDS,
            check=False,
        )
        said = f"{ended.stdout}\n{ended.stderr}\n{self.served.tail() if self.served else ''}"
        assert ended.returncode == 0, f"exit code {ended.returncode}\n{said}"

    def _module(self, text: str, sdk: str) -> str:
        """Write a JavaScript program where `npm install @langchain/langgraph-sdk` would have put this version."""
        directory = self.directory / sdk
        scope = directory / "node_modules" / "@langchain"
        if not scope.exists():
            scope.mkdir(parents=True)
            (scope / "langgraph-sdk").symlink_to(servers.ROOT / "tests" / "js" / "node_modules" / sdk)
        program = directory / "program.mjs"
        program.write_text(text, encoding="utf-8")
        return str(program)


def test_every_program_of_the_readme_does_what_it_says(tmp_path: Path, empty_database: str) -> None:
    page = list(blocks(README.read_text(encoding="utf-8")))
    assert page
    assert [f"line {block.line}: {block.language}" for block in page if not block.verdict] == []
    with ExitStack() as stack:
        reader = Reader(tmp_path, database=empty_database, stack=stack)
        for block in page:
            try:
                reader.follow(block)
            except BaseException as failed:
                failed.add_note(f"README.md, line {block.line}:\n{block.text}")
                raise


def test_no_block_of_the_readme_is_overlooked() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(list(blocks(text)))


@pytest.mark.parametrize(
    ("page", "verdict"),
    [
        ("```sh\nmake\n```\n", "program"),
        ("<!-- runs until it is stopped -->\n```sh\nmake dev\n```\n", "server"),
        ("<!-- file: a.json -->\n```json\n{}\n```\n", "file"),
        ("```json\n{}\n```\n", ""),
        ("```\nmake\n```\n", ""),
        ("<!-- not now -->\n```sh\nmake\n```\n", ""),
        ("<!-- runs until it is stopped -->\n```python\nprint()\n```\n", ""),
    ],
    ids=["shell", "server", "file", "json", "none", "unknown-note", "python-server"],
)
def test_a_block_gets_a_verdict_or_none(page: str, verdict: str) -> None:
    assert [block.verdict for block in blocks(page)] == [verdict]
