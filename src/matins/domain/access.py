"""Who asks, and which rows they may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a caller may see or touch: those of one owner, or, with `owner` None, everyone's.

    Every storage function that touches a user's rows takes one, by keyword and without a default.
    """

    owner: str | None

    @property
    def mints_as(self) -> str:
        """The owner that new rows get."""
        return self.owner or ""


EVERYONE: Final = Scope(owner=None)
"""What the server itself uses: the scheduler, the reaper, a claim."""
