"""Whose run it is, as LangGraph and users' graphs read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec


class User(Mapping[str, Any]):
    """The user of a run, by what was claimed of him: each claim is an item and an attribute.

    Source: BaseUser in langgraph_sdk/auth/types.py.
    """

    def __init__(self, claims: Mapping[str, Any]) -> None:
        identity = str(claims["identity"])
        self._claims: dict[str, Any] = {
            "display_name": identity,
            "is_authenticated": True,
            "permissions": [],
            **claims,
            "identity": identity,
        }

    @property
    def identity(self) -> str:
        """What names him."""
        return str(self._claims["identity"])

    @property
    def display_name(self) -> str:
        """What people call him."""
        return str(self._claims["display_name"])

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody has checked who he is."""
        return bool(self._claims["is_authenticated"])

    @property
    def permissions(self) -> Sequence[str]:
        """What he may do."""
        return list(self._claims["permissions"] or ())

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_claims"][name]
        except KeyError:
            raise AttributeError(f"The user has no {name!r}") from None

    def __getitem__(self, key: str) -> Any:
        return self._claims[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def __repr__(self) -> str:
        return f"User({self.identity!r})"


def user_of(creator: bytes | None) -> User | None:
    """Give the user that the creator of a run is; None when nobody was asked who he is."""
    claims = msgspec.json.decode(creator) if creator else None
    return User(claims) if isinstance(claims, dict) and claims.get("identity") else None
