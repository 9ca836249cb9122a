"""langgraph.json: what is configured, checked and named.

No LangGraph here: the parent and the CLI read it too.

Every refusal is one line that names the file and the key. What this server does not use is kept or ignored,
never an error; a key that nobody knows is a warning, with the key that was probably meant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from matins.manifest import checkpointer
from matins.manifest import crons as crons_section
from matins.manifest import env as env_section
from matins.manifest import http as http_section
from matins.manifest import prices as prices_section
from matins.manifest import webhooks as webhooks_section
from matins.manifest.checkpointer import Sweeping
from matins.manifest.http import HttpSection
from matins.manifest.prices import Price
from matins.manifest.reading import ManifestError, did_you_mean, kind, mapping, place, text
from matins.manifest.variables import Variable, variable

_KNOWN: Final = {
    "": ["$schema", "dependencies", "graphs", "env", "python_version", "node_version", "api_version",
    "base_image", "image_distro", "pip_config_file", "pip_installer", "source", "dockerfile_lines",
    "keep_pkg_tools", "_INTERNAL_docker_tag", "store", "checkpointer", "auth", "encryption", "http",
    "webhooks", "ui", "ui_config", "priority", "prices", "crons"],
    "store": ["path", "index", "ttl"], "store.index": ["dims", "embed", "fields"],
    "store.ttl": ["default_ttl", "refresh_on_read", "sweep_interval_minutes"], "checkpointer":
    ["path", "ttl", "serde"], "checkpointer.ttl": ["strategy", "default_ttl", "sweep_interval_minutes",
    "sweep_limit"], "checkpointer.serde": ["allowed_json_modules", "allowed_msgpack_modules",
    "pickle_fallback"], "auth": ["path", "disable_studio_auth", "openapi", "cache"], "auth.cache":
    ["cache_keys", "ttl_seconds", "max_size"], "encryption": ["path"], "priority": ["path"],
    "http": ["app", "disable_assistants", "disable_threads", "disable_runs", "disable_store", "disable_mcp",
    "disable_a2a", "disable_ui",
    "disable_meta", "disable_webhooks", "cors", "configurable_headers", "logging_headers", "middleware_order",
    "enable_custom_route_auth", "mount_prefix"], "http.configurable_headers": ["includes", "excludes", "include",
    "exclude"], "http.logging_headers": ["includes", "excludes", "include", "exclude"], "http.cors":
    ["allow_origins", "allow_methods", "allow_headers", "allow_credentials", "allow_origin_regex",
    "expose_headers", "max_age"], "webhooks":
    ["env_prefix", "url", "headers"], "webhooks.url": ["require_https", "allowed_domains", "allowed_ports",
    "max_url_length", "disable_loopback"],
}  # fmt: skip
"""The keys of each section. Source: the schema of langgraph.json that langgraph-cli documents."""

_SECTIONS: Final = ("auth", "http", "store", "checkpointer", "encryption", "webhooks")
_NOT_YET: Final = ("auth", "store", "checkpointer.path",
    "checkpointer.serde.allowed_json_modules", "checkpointer.serde.pickle_fallback", "encryption",
)  # fmt: skip
_UNSAFE: Final = {"auth": ": whoever reaches the port may read and change everything"}
_GRAPH_KEYS: Final = ["path", "description"]


@dataclass(frozen=True, slots=True)
class GraphSpec(Variable):
    """Where a graph is found."""

    id: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """langgraph.json as read. `sections` keeps `auth`, `http`, `store` ... as they stand, unread."""

    path: Path
    graphs: dict[str, GraphSpec]
    sweeping: Sweeping
    """`checkpointer.ttl`."""
    dependencies: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    env_file: Path | None = None
    allowed_types: frozenset[tuple[str, str]] = frozenset()
    """(module, class) of `checkpointer.serde.allowed_msgpack_modules`."""
    http: HttpSection = field(default_factory=HttpSection)
    webhooks: webhooks_section.Webhooks = field(default_factory=webhooks_section.Webhooks)
    priority: Variable | None = None
    """`priority.path`: whom to ask which threads come first."""
    prices: dict[str, Price] = field(default_factory=dict)
    crons: dict[str, object] = field(default_factory=dict)
    """Declarations of crons as they stand, by key."""
    sections: dict[str, dict[str, object]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def watched(self) -> tuple[Path, ...]:
        """What a change of may change the graphs: directories (for their `*.py`) and single files."""
        found = [
            *self.dependencies,
            *(spec.path.parent for spec in self.graphs.values() if spec.path),
            *([self.http.app.path.parent] if self.http.app and self.http.app.path else []),
            *([self.priority.path.parent] if self.priority and self.priority.path else []),
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
    env, env_file = env_section.read(path, content.get("env"))
    dependencies, ignored = _dependencies(path, content.get("dependencies"))
    sections = {
        name: mapping(path, name, content[name]) for name in _SECTIONS if content.get(name) is not None
    }
    serde = sections.get("checkpointer", {}).get("serde")
    http = http_section.read(path, content.get("http"), warnings)
    unsupported = [
        f"{path}: {key}: not supported yet, ignored{_UNSAFE.get(key, '')}"
        for key in _NOT_YET
        if _at(content, key) is not None
    ]
    return Manifest(
        path=path,
        graphs=_graphs(path, content.get("graphs"), warnings),
        dependencies=dependencies,
        env=env,
        env_file=env_file,
        allowed_types=checkpointer.allowed_types(path, serde),
        http=http,
        webhooks=webhooks_section.read(path, content.get("webhooks")),
        priority=_priority(path, content.get("priority")),
        prices=prices_section.read(path, content.get("prices")),
        crons=crons_section.read(path, content.get("crons"), warnings),
        sweeping=checkpointer.sweeping(path, sections.get("checkpointer")),
        sections=sections,
        warnings=warnings + ignored + unsupported,
    )


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
        raise ManifestError(f"{path}: must hold a JSON object, not {kind(content)}")
    return content


def _graphs(path: Path, value: object, warnings: list[str]) -> dict[str, GraphSpec]:
    if value is None:
        raise ManifestError(f"{path}: graphs: missing; name at least one graph")
    found: dict[str, GraphSpec] = {}
    for graph_id, entry in mapping(path, "graphs", value).items():
        key = f"graphs.{graph_id}"
        description: str | None = None
        location: object = entry
        if isinstance(entry, dict):
            location, description = entry.get("path"), entry.get("description")
            warnings += did_you_mean(path, key, entry, _GRAPH_KEYS)
            if location is None:
                raise ManifestError(f"{path}: {key}.path: missing")
            if not isinstance(description, str | None):
                raise ManifestError(f"{path}: {key}.description: must be a string, not {kind(description)}")
        if not isinstance(location, str):
            raise ManifestError(f"{path}: {key}: must be a string or an object, not {kind(location)}")
        named = variable(path, key, location, of="graph")
        found[graph_id] = GraphSpec(named.path, named.module, named.attribute, graph_id, description)
    if not found:
        raise ManifestError(f"{path}: graphs: empty; name at least one graph")
    return found


def _priority(path: Path, value: object) -> Variable | None:
    if value is None:
        return None
    named = text(path, "priority.path", mapping(path, "priority", value).get("path"))
    if named is None:
        raise ManifestError(f"{path}: priority.path: missing")
    return variable(path, "priority.path", named, of="priority")


def _dependencies(path: Path, value: object) -> tuple[tuple[Path, ...], list[str]]:
    if value is None:
        return (), []
    if not isinstance(value, list):
        raise ManifestError(f"{path}: dependencies: must be a list, not {kind(value)}")
    found: list[Path] = []
    warnings: list[str] = []
    for position, entry in enumerate(value):
        key = f"dependencies[{position}]"
        if not isinstance(entry, str):
            raise ManifestError(f"{path}: {key}: must be a string, not {kind(entry)}")
        if not entry.startswith("."):
            warnings.append(
                f"{path}: {key}: {entry!r} is not installed from here; install it in the environment"
            )
            continue
        directory = place(path, key, entry)
        if not directory.is_dir():
            raise ManifestError(f"{path}: {key}: no such directory: {entry}")
        found.append(directory)
        if (directory / "pyproject.toml").is_file() and (directory / "src").is_dir():
            found.append(directory / "src")  # a project whose packages live under src/
    return tuple(dict.fromkeys(found)), warnings


def _unknown_keys(path: Path, content: Mapping[str, object]) -> list[str]:
    warnings: list[str] = []
    for section, known in _KNOWN.items():
        inside = _at(content, section)
        if isinstance(inside, dict):
            warnings += did_you_mean(path, section, inside, known)
    return warnings


def _at(content: Mapping[str, object], key: str) -> object:
    """Give what stands under a key whose parts are joined by dots; None when there is nothing."""
    inside: object = content
    for part in key.split(".") if key else ():
        inside = inside.get(part) if isinstance(inside, dict) else None
    return inside
