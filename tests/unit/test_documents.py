"""What the documents say of the code, where a test can tell whether it is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from matins.domain.runs import NEXT, RunStatus

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def diagram() -> str:
    """Draw the life of a run from its table of transitions."""
    lines = ["stateDiagram-v2", f"    [*] --> {RunStatus.PENDING.value}"]
    lines += [
        f"    {before.value} --> {after.value}: {change.value}" for (before, change), after in NEXT.items()
    ]
    lines += [f"    {status.value} --> [*]" for status in RunStatus if status.is_terminal]
    return "\n".join(lines) + "\n"


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_drawn_life_of_a_run_is_the_table_of_its_transitions() -> None:
    assert re.findall(r"```mermaid\n(stateDiagram.*?)```", ARCHITECTURE, re.DOTALL) == [diagram()]


def test_the_tree_of_the_architecture_names_only_what_exists() -> None:
    found = re.search(r"```text\n(src/matins/\n.*?)```", ARCHITECTURE, re.DOTALL)
    assert found is not None
    folders: list[str] = []
    missing: list[str] = []
    for line in found[1].splitlines():
        entry = re.match(r"( *)([\w./*]+)", line)
        if entry is None or len(entry[1]) > 8:
            continue  # the end of a sentence
        folders[len(entry[1]) // 2 :] = [entry[2]]
        if not list(ROOT.glob("".join(folders))):
            missing.append("".join(folders))
    assert missing == []
    assert len(folders) > 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    lost = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert lost == []


@pytest.mark.parametrize("decision", DECISIONS, ids=named)
def test_every_decision_says_why_what_and_at_what_cost(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Choice", "Cost"]
    assert len(text.splitlines()) <= 60  # one page


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(decision.name[:4]) for decision in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    assert DECISIONS
