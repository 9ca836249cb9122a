"""docs/reference/compatibility.md: the rows as a document."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.wire.compatibility.marks import Proof, covered
from tests.wire.compatibility.rows import SECTIONS, Row, Subject, subjects

PLACE: Final = Path(__file__).parents[3] / "docs" / "reference" / "compatibility.md"

_HEAD: Final = """\
# Compatibility

What Matins promises of the LangGraph Server API, row by row: which test shows it, and where Matins differs from
`langgraph dev` and why. The differences that are listed are all that are known; in the last column, "there" is
`langgraph dev`. Tests marked *SDKs* speak through the official clients, two of Python and two of JavaScript; the others
speak plain HTTP.

This page is generated from the tests and from the code, by `make docs`; a row without a test fails the tests.
"""


def document() -> str:
    """Give the document."""
    everything = subjects()
    tests = covered({(row.subject, row.aspect): row for each in everything for row in each.rows.values()})
    not_yet = [row for subject in everything for row in subject.rows.values() if row.not_yet]
    count = sum(len(subject.rows) for subject in everything)
    parts = [_HEAD, f"{count} rows, {len(not_yet)} of them not built yet.\n"]
    for section, title in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [_table(each, tests) for each in everything if each.section == section]
    return "\n".join(parts)


def _table(subject: Subject, tests: dict[tuple[str, str], list[Proof]]) -> str:
    lines = [f"### {_heading(subject)}", ""]
    if subject.used:
        lines += ["In " + ", ".join(f"`{name}`" for name in subject.used) + ".", ""]
    lines += ["| What | Covered by | Differs from `langgraph dev`, and why |", "|---|---|---|"]
    lines += [_line(row, tests.get((row.subject, row.aspect), [])) for row in subject.rows.values()]
    return "\n".join(lines) + "\n"


def _heading(subject: Subject) -> str:
    is_code = subject.used or "/" in subject.name or "_" in subject.name
    return f"`{subject.name}`" if is_code else subject.name


def _line(row: Row, tests: list[Proof]) -> str:
    aspect = row.aspect if " " in row.aspect else f"`{row.aspect}`"
    if aspect.split(" ")[0].isalpha():
        aspect = aspect[0].upper() + aspect[1:]
    what = f"{aspect}: {row.says}" if row.says else aspect
    how = "*not yet*" if row.not_yet else "<br>".join(_link(test) for test in tests)
    return f"| {_cell(what)} | {how} | {_cell(row.differs)} |"


def _link(test: Proof) -> str:
    said = test.name.removeprefix("test_").replace("_", " ")
    return f"[{said}](../../{test.place}){' (SDKs)' if test.with_sdks else ''}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
