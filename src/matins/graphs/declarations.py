"""The crons that the project declares: `crons` of langgraph.json and of the files in schedules/ beside it.

A file's `crons` is a dict, key -> fields, or a function that gives one. Files whose names
begin with `_` are left alone.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from matins import telemetry
from matins.domain.declarations import Found, Unreadable
from matins.graphs.serde import encode
from matins.manifest import Manifest
from matins.manifest.crons import FIELDS
from matins.manifest.reading import did_you_mean
from matins.manifest.variables import Variable, described, module_of

METHOD: Final = "crons"


class Declarations:
    """The declarations of one project. `importing` is held while a module of the user's is imported."""

    def __init__(self, manifest: Manifest, importing: threading.Lock) -> None:
        self._manifest: Final = manifest
        self._importing: Final = importing

    async def answer(self) -> bytes:
        """Answer a Call with all that is declared, as Findings. The user's code runs in a thread."""
        found = await asyncio.to_thread(self._find)
        return encode({name: list(map(msgspec.structs.asdict, each)) for name, each in found.items()})

    def _find(self) -> dict[str, Sequence[msgspec.Struct]]:
        found: dict[str, Found] = {}
        unreadable: list[Unreadable] = []
        config = self._manifest.path
        _add(found, config.name, self._manifest.crons)
        for file in sorted((config.parent / "schedules").glob("*.py")):
            if file.name.startswith("_"):
                continue
            place = f"schedules/{file.name}"
            try:
                declared = self._crons_of(file.resolve())
            except BaseException as raised:  # noqa: BLE001 - a wall: the user's code, which may even call sys.exit()
                telemetry.log().error(
                    telemetry.CRONS_UNREADABLE,
                    place=place,
                    trace="".join(traceback.format_exception(raised)),
                )
                unreadable.append(Unreadable(place=place, trouble=described(raised)))
                continue
            for key, entry in declared.items():
                if isinstance(entry, Mapping):
                    for warning in did_you_mean(file, f"crons.{key}", entry, FIELDS):
                        telemetry.log().warning(telemetry.CONFIG_WARNING, text=warning)
            _add(found, place, declared)
        return {"crons": list(found.values()), "unreadable": unreadable}

    def _crons_of(self, file: Path) -> Mapping[Any, Any]:
        """Give what a file declares. Raises: what it raises; TypeError when that is no dict."""
        with self._importing:
            roots = (*self._manifest.dependencies, self._manifest.path.parent)
            module = module_of(Variable(file, None, "crons"), roots)
        declared = getattr(module, "crons", None)
        if callable(declared):
            declared = declared()
        if not isinstance(declared, Mapping):
            message = f"`crons` must be a dict or a function that gives one, not {type(declared).__name__}"
            raise TypeError(message)
        return declared


def _add(found: dict[str, Found], place: str, declared: Mapping[Any, Any]) -> None:
    """Add what a place declares; a key that another place has too is declared by neither."""
    for name, entry in declared.items():
        key: str = msgspec.json.decode(encode(str(name)))  # as text that can be stored
        if (other := found.get(key)) is not None:
            found[key] = Found(key=key, place=place, trouble=f"{key!r} is declared in {other.place} too")
        elif isinstance(entry, Mapping):
            found[key] = Found(key=key, place=place, fields=dict(entry))
        else:
            trouble = f"{key!r} must be an object, not {type(entry).__name__}"
            found[key] = Found(key=key, place=place, trouble=trouble)
