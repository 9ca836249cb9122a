"""What langgraph.json names as "./file.py:variable" or "package.module:variable": where it is, and its import.

Importing runs the user's code: for processes in which it may run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from matins.manifest.reading import ManifestError, place


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a file, by `path`, or of a `module`."""

    path: Path | None
    module: str | None
    attribute: str


def variable(path: Path, key: str, named: str, *, of: str) -> Variable:
    """Read what stands under `key`; `of` says what it is. Raises: ManifestError."""
    where, colon, attribute = named.rpartition(":")
    if not colon or not where or not attribute.isidentifier():
        raise ManifestError(
            f'{path}: {key}: {named!r} must read "./file.py:variable" or "package.module:variable"'
        )
    if where.endswith((".ts", ".js", ".mts", ".mjs", ".cts", ".cjs", ".tsx", ".jsx")):
        raise ManifestError(f"{path}: {key}: {where!r} is a JavaScript {of}; only Python {of}s are served")
    if where.endswith(".py") or "/" in where:
        file = place(path, key, where)
        if not file.is_file():
            raise ManifestError(f"{path}: {key}: no such file: {where}")
        return Variable(file, None, attribute)
    if not all(part.isidentifier() for part in where.split(".")):
        raise ManifestError(f"{path}: {key}: {where!r} is neither a .py file nor a module name")
    return Variable(None, where, attribute)


def make_importable(directories: Sequence[Path]) -> None:
    """Let the user's modules be found; the first directory first."""
    for directory in reversed(directories):
        if str(directory) not in sys.path:
            sys.path.insert(0, str(directory))


def module_of(named: Variable, directories: Sequence[Path]) -> ModuleType:
    """Import the module that a variable is in; `directories` may be those of importable packages.

    Raises: whatever the user's code raises, SystemExit included.
    """
    if named.path is None:
        return importlib.import_module(named.module or "")
    # By its own dotted name where that finds this very file, so that a class has one identity however it is
    # imported.
    for directory in directories:
        if not named.path.is_relative_to(directory):
            continue
        name = ".".join(named.path.relative_to(directory).with_suffix("").parts)
        if str(directory) not in sys.path or not all(part.isidentifier() for part in name.split(".")):
            continue
        present = sys.modules.get(name)
        if present is not None:
            if getattr(present, "__file__", None) == str(named.path):
                return present
            continue
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None and Path(found.origin).resolve() == named.path:
            return importlib.import_module(name)
    return _module_from_file(named.path)


def _module_from_file(path: Path) -> ModuleType:
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    located = importlib.util.spec_from_file_location(name, path)
    if located is None or located.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(located)
    sys.modules[name] = module  # before running it: dataclasses and pickles look their module up
    try:
        located.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def described(raised: BaseException) -> str:
    """Say in a line what the user's code raised, and where: the innermost place that is not a library's."""
    return f"{_place(raised)}{type(raised).__name__}: {raised}"


def _place(raised: BaseException) -> str:
    """Give "file:line: " of the innermost frame that is neither ours nor the import machinery's."""
    if isinstance(raised, SyntaxError) and raised.filename:
        return f"{raised.filename}:{raised.lineno}: "
    ours = str(Path(__file__).parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(raised.__traceback__)
        if not frame.filename.startswith(ours) and "importlib" not in frame.filename
    ]
    mine = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{mine[-1].filename}:{mine[-1].lineno}: " if mine else ""
