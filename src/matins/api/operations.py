"""What an operation of the API is: the row of the route table, from which routes and document are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matins.api.parts import Handler


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query."""

    name: str
    kind: Any = str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    `request` and `response` are shapes, or None for no body. `media` names a response that is no JSON.
    `other_statuses` says when it succeeds with another status than `status`; such an answer tells nothing more.
    """

    method: str
    path: str
    handler: Handler
    request: Any = None
    response: Any = None
    status: int = 200
    other_statuses: Mapping[int, str] = field(default_factory=dict)
    query: tuple[Parameter, ...] = ()
    media: str = "application/json"

    @property
    def tag(self) -> str:
        """The resource: the handler's module."""
        return self.handler.__module__.rpartition(".")[2]

    @property
    def operation_id(self) -> str:
        """The resource and what is done with it, unique in the table."""
        return f"{self.tag}_{self.handler.__name__.rstrip('_')}"

    @property
    def summary(self) -> str:
        """What it does: the first line of the handler's docstring."""
        return (self.handler.__doc__ or "").partition("\n")[0]
