"""langgraph.json: what is configured, checked and named.

No LangGraph here: the parent and the CLI read it too.

Every refusal is one line that names the file and the key. What this server does not use is kept or ignored,
never an error; a key that nobody knows is a warning, with the key that was probably meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

_KNOWN: Final = {
    "": ["$schema", "dependencies", "graphs", "env", "python_version", "node_version", "api_version",
    "base_image", "image_distro", "pip_config_file", "pip_installer", "source", "dockerfile_lines",
    "keep_pkg_tools", "_INTERNAL_docker_tag", "store", "checkpointer", "auth", "encryption", "http",
    "webhooks", "ui", "ui_config"], "store": ["path", "index", "ttl"], "store.index": ["dims", "embed",
    "fields"], "store.ttl": ["default_ttl", "refresh_on_read", "sweep_interval_minutes"], "checkpointer":
    ["path", "ttl", "serde"], "checkpointer.ttl": ["strategy", "default_ttl", "sweep_interval_minutes",
    "sweep_limit"], "checkpointer.serde": ["allowed_json_modules", "allowed_msgpack_modules",
    "pickle_fallback"], "auth": ["path", "disable_studio_auth", "openapi", "cache"], "auth.cache":
    ["cache_keys", "ttl_seconds", "max_size"], "encryption": ["path"], "http": ["app", "disable_assistants",
    "disable_threads", "disable_runs", "disable_store", "disable_mcp", "disable_a2a", "disable_ui",
    "disable_meta", "disable_webhooks", "cors", "configurable_headers", "logging_headers", "middleware_order",
    "enable_custom_route_auth", "mount_prefix"], "http.cors": ["allow_origins", "allow_methods",
    "allow_headers", "allow_credentials", "allow_origin_regex", "expose_headers", "max_age"], "webhooks":
    ["env_prefix", "url", "headers"], "webhooks.url": ["require_https", "allowed_domains", "allowed_ports",
    "max_url_length", "disable_loopback"],
}  # fmt: skip
"""The keys of each section. Source: the schema of langgraph.json that langgraph-cli documents."""

_SECTIONS: Final = ("auth", "http", "store", "checkpointer", "encryption", "webhooks")
_UNSAFE: Final = {"auth": ": whoever reaches the port may read and change everything"}
_GRAPH_KEYS: Final = ["path", "description"]
_ENV_LINE: Final = re.compile(
    r"^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(?:(?P<quote>['\"])|(?P<plain>.*))",
    re.MULTILINE,
)
# Each to the end of its last line: what follows the closing quote is a comment.
_ENV_QUOTED: Final = {"'": re.compile(r"([^']*)'.*"), '"': re.compile(r'((?:[^"\\]|\\[\s\S])*)".*')}
_ENV_ESCAPE: Final = re.compile(r"\\(.)")


class ManifestError(Exception):
    """langgraph.json cannot be used. The text is one line that names the file and the key."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """Where a graph is found: a file by `path`, or a module by name; and the variable in it."""

    id: str
    path: Path | None
    module: str | None
    attribute: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """langgraph.json as read. `sections` keeps `auth`, `http`, `store` ... as they stand, unread."""

    path: Path
    graphs: dict[str, GraphSpec]
    dependencies: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    env_file: Path | None = None
    allowed_types: frozenset[tuple[str, str]] = frozenset()
    """(module, class) of `checkpointer.serde.allowed_msgpack_modules`."""
    sections: dict[str, dict[str, object]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def watched(self) -> tuple[Path, ...]:
        """What a change of may change the graphs: directories (for their `*.py`) and single files."""
        found = [
            *self.dependencies,
            *(spec.path.parent for spec in self.graphs.values() if spec.path),
            self.path,
        ]
        if self.env_file:
            found.append(self.env_file)
        return tuple(dict.fromkeys(found))

    def export(self, environ: MutableMapping[str, str]) -> None:
        """Set what `env` says and `environ` does not: the environment of the process wins."""
        for name, value in self.env.items():
            environ.setdefault(name, value)


def read(path: Path) -> Manifest:
    """Read and check a langgraph.json.

    Raises: ManifestError naming the file and the key.
    """
    path = path.resolve()
    content = _parse(path)
    warnings = _unknown_keys(path, content)
    env, env_file = _env(path, content.get("env"))
    dependencies, ignored = _dependencies(path, content.get("dependencies"))
    sections = {
        name: _mapping(path, name, content[name]) for name in _SECTIONS if content.get(name) is not None
    }
    serde = sections.get("checkpointer", {}).get("serde")
    unsupported = [
        f"{path}: {name}: not supported yet, ignored{_UNSAFE.get(name, '')}"
        for name, section in sections.items()
        if section != {"serde": serde}
        or not isinstance(serde, dict)
        or [*serde] != ["allowed_msgpack_modules"]
    ]
    return Manifest(
        path=path,
        graphs=_graphs(path, content.get("graphs"), warnings),
        dependencies=dependencies,
        env=env,
        env_file=env_file,
        allowed_types=_allowed_types(path, serde),
        sections=sections,
        warnings=warnings + ignored + unsupported,
    )


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


def _parse(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as unreadable:
        raise ManifestError(f"{path}: cannot be read: {unreadable}") from unreadable
    except json.JSONDecodeError as bad:
        raise ManifestError(f"{path}:{bad.lineno}: not JSON: {bad.msg} (column {bad.colno})") from bad
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: must hold a JSON object, not {_kind(content)}")
    return content


def _graphs(path: Path, value: object, warnings: list[str]) -> dict[str, GraphSpec]:
    if value is None:
        raise ManifestError(f"{path}: graphs: missing; name at least one graph")
    found: dict[str, GraphSpec] = {}
    for graph_id, entry in _mapping(path, "graphs", value).items():
        key = f"graphs.{graph_id}"
        description: str | None = None
        location: object = entry
        if isinstance(entry, dict):
            location, description = entry.get("path"), entry.get("description")
            warnings += _did_you_mean(path, key, entry, _GRAPH_KEYS)
            if location is None:
                raise ManifestError(f"{path}: {key}.path: missing")
            if not isinstance(description, str | None):
                raise ManifestError(f"{path}: {key}.description: must be a string, not {_kind(description)}")
        if not isinstance(location, str):
            raise ManifestError(f"{path}: {key}: must be a string or an object, not {_kind(location)}")
        found[graph_id] = _graph(path, graph_id, location, description)
    if not found:
        raise ManifestError(f"{path}: graphs: empty; name at least one graph")
    return found


def _graph(path: Path, graph_id: str, location: str, description: str | None) -> GraphSpec:
    key = f"graphs.{graph_id}"
    where, colon, attribute = location.rpartition(":")
    if not colon or not where or not attribute.isidentifier():
        raise ManifestError(
            f'{path}: {key}: {location!r} must read "./file.py:variable" or "package.module:variable"'
        )
    if where.endswith((".ts", ".js", ".mts", ".mjs", ".cts", ".cjs", ".tsx", ".jsx")):
        raise ManifestError(f"{path}: {key}: {where!r} is a JavaScript graph; only Python graphs are served")
    if where.endswith(".py") or "/" in where:
        file = _place(path, key, where)
        if not file.is_file():
            raise ManifestError(f"{path}: {key}: no such file: {where}")
        return GraphSpec(graph_id, file, None, attribute, description)
    if not all(part.isidentifier() for part in where.split(".")):
        raise ManifestError(f"{path}: {key}: {where!r} is neither a .py file nor a module name")
    return GraphSpec(graph_id, None, where, attribute, description)


def _dependencies(path: Path, value: object) -> tuple[tuple[Path, ...], list[str]]:
    if value is None:
        return (), []
    if not isinstance(value, list):
        raise ManifestError(f"{path}: dependencies: must be a list, not {_kind(value)}")
    found: list[Path] = []
    warnings: list[str] = []
    for position, entry in enumerate(value):
        key = f"dependencies[{position}]"
        if not isinstance(entry, str):
            raise ManifestError(f"{path}: {key}: must be a string, not {_kind(entry)}")
        if not entry.startswith("."):
            warnings.append(
                f"{path}: {key}: {entry!r} is not installed from here; install it in the environment"
            )
            continue
        directory = _place(path, key, entry)
        if not directory.is_dir():
            raise ManifestError(f"{path}: {key}: no such directory: {entry}")
        found.append(directory)
        if (directory / "pyproject.toml").is_file() and (directory / "src").is_dir():
            found.append(directory / "src")  # a project whose packages live under src/
    return tuple(dict.fromkeys(found)), warnings


def _env(path: Path, value: object) -> tuple[dict[str, str], Path | None]:
    if value is None:
        return {}, None
    if isinstance(value, str):
        file = _place(path, "env", value)
        try:
            return parse_env(file.read_text(encoding="utf-8-sig"), path=file), file
        except FileNotFoundError:
            raise ManifestError(f"{path}: env: no such file: {value}") from None
        except (OSError, UnicodeDecodeError) as unreadable:
            raise ManifestError(f"{path}: env: {value} cannot be read: {unreadable}") from unreadable
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: env: must be a mapping or the path of a file, not {_kind(value)}")
    found: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, (dict, list)) or entry is None:
            raise ManifestError(f"{path}: env.{name}: must be a string, not {_kind(entry)}")
        if not name or "=" in name or "\0" in f"{name}{entry}":
            raise ManifestError(f"{path}: env.{name!r}: no variable can have that name or value")
        found[name] = entry if isinstance(entry, str) else json.dumps(entry)
    return found, None


def _allowed_types(path: Path, serde: object) -> frozenset[tuple[str, str]]:
    """Read `allowed_msgpack_modules`: [module, class] pairs, or "module.Class"."""
    named = serde.get("allowed_msgpack_modules") if isinstance(serde, dict) else None
    key = "checkpointer.serde.allowed_msgpack_modules"
    if not isinstance(named, list | None):
        raise ManifestError(f"{path}: {key}: must be a list, not {_kind(named)}")
    found: set[tuple[str, str]] = set()
    for position, entry in enumerate(named or ()):
        module, _, name = entry.rpartition(".") if isinstance(entry, str) else ("", "", "")
        parts = [module, name] if isinstance(entry, str) else entry
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) and p for p in parts):
            raise ManifestError(f'{path}: {key}[{position}]: must be ["module", "Class"] or "module.Class"')
        found.add((parts[0], parts[1]))
    return frozenset(found)


def _place(path: Path, key: str, named: str) -> Path:
    """Give where a path in the file leads to."""
    place = path.parent / named
    try:
        place = place.resolve()
        place.stat()
    except FileNotFoundError:
        pass  # said by the caller, who knows what it should be
    except (OSError, ValueError) as unusable:  # a name that is too long; a NUL
        raise ManifestError(f"{path}: {key}: {named!r} cannot be used: {unusable}") from unusable
    return place


def _mapping(path: Path, key: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: {key}: must be an object, not {_kind(value)}")
    return value


def _unknown_keys(path: Path, content: Mapping[str, object]) -> list[str]:
    warnings: list[str] = []
    for section, known in _KNOWN.items():
        inside: object = content
        for part in section.split(".") if section else ():
            inside = inside.get(part) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            warnings += _did_you_mean(path, section, inside, known)
    return warnings


def _did_you_mean(path: Path, section: str, inside: Mapping[str, object], known: list[str]) -> list[str]:
    warnings: list[str] = []
    for key in inside:
        if key in known:
            continue
        near = get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        name = f"{section}.{key}" if section else key
        warnings.append(f"{path}: {name}: unknown key, ignored{hint}")
    return warnings


def _kind(value: object) -> str:
    """The JSON name of a value's type."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
