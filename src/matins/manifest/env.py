"""`env` of langgraph.json: a mapping, or a .env file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from matins.manifest.reading import ManifestError, kind, place

_ENV_LINE: Final = re.compile(
    r"^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(?:(?P<quote>['\"])|(?P<plain>.*))",
    re.MULTILINE,
)
# Each to the end of its last line: what follows the closing quote is a comment.
_ENV_QUOTED: Final = {"'": re.compile(r"([^']*)'.*"), '"': re.compile(r'((?:[^"\\]|\\[\s\S])*)".*')}
_ENV_ESCAPE: Final = re.compile(r"\\(.)")


def read(path: Path, value: object) -> tuple[dict[str, str], Path | None]:
    """Give the variables, and the file that they stand in. Raises: ManifestError."""
    if value is None:
        return {}, None
    if isinstance(value, str):
        file = place(path, "env", value)
        try:
            return parse_env(file.read_text(encoding="utf-8-sig"), path=file), file
        except FileNotFoundError:
            raise ManifestError(f"{path}: env: no such file: {value}") from None
        except (OSError, UnicodeDecodeError) as unreadable:
            raise ManifestError(f"{path}: env: {value} cannot be read: {unreadable}") from unreadable
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: env: must be a mapping or the path of a file, not {kind(value)}")
    found: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, (dict, list)) or entry is None:
            raise ManifestError(f"{path}: env.{name}: must be a string, not {kind(entry)}")
        if not name or "=" in name or "\0" in f"{name}{entry}":
            raise ManifestError(f"{path}: env.{name!r}: no variable can have that name or value")
        found[name] = entry if isinstance(entry, str) else json.dumps(entry)
    return found, None


def parse_env(text: str, *, path: Path = Path(".env")) -> dict[str, str]:
    r"""Give the variables of a .env file: `KEY=VALUE` lines, `export`, quotes and comments allowed.

    A quoted value may go over several lines. Between double quotes a backslash escapes: `\n`, `\"`.
    Raises: ManifestError for a quote that is not closed, naming `path` and the line.
    """
    found: dict[str, str] = {}
    position = 0
    while (match := _ENV_LINE.search(text, position)) is not None:
        position = match.end()
        name, quote = match["name"], match["quote"]
        if quote is None:
            value = match["plain"].split(" #", 1)[0].strip()
            found[name] = "" if value.startswith("#") else value
            continue
        quoted = _ENV_QUOTED[quote].match(text, position)
        if quoted is None:
            line = text.count("\n", 0, position) + 1
            raise ManifestError(f"{path}:{line}: {name}: the quote {quote} is not closed")
        position = quoted.end()
        found[name] = quoted[1] if quote == "'" else _ENV_ESCAPE.sub(_unescaped, quoted[1])
    return found


def _unescaped(escape: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}.get(escape[1], escape[0])
