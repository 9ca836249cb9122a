"""What is compatible with the LangGraph Server API, row by row, and which test says so.

    @covers("POST /threads", "409")
    @covers("ThreadCreate", "thread_id", "if_exists")
    def test_an_id_that_is_taken_is_a_conflict_unless_that_is_fine(sdk: Sdk) -> None: ...

A row is a subject and an aspect of it. `rows` reads most of them off the code (every mounted operation with its
statuses and its query, every field of every shape), the rest, and all differences, from the *.toml files beside it.
`python -m tests.wire.compatibility` writes docs/reference/compatibility.md from the rows and the tests' marks;
tests/wire/test_compatibility.py fails for a row without a test, so nobody adds a field without one.
"""

from __future__ import annotations

import pytest


def covers(subject: str, *aspects: str) -> pytest.MarkDecorator:
    """Mark a test as one that shows these aspects of a subject; "*" stands for those of which no file tells more."""
    return pytest.mark.covers(subject, *aspects)
