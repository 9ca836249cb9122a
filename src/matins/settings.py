"""The environment, read once into one frozen value. Names that operators already use are accepted."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from matins.domain.addresses import Network
from matins.domain.budgets import DEFAULT_CEILINGS, Ceilings

_DATABASE: Final = ("DATABASE_URI", "POSTGRES_URI", "POSTGRES_URI_CUSTOM", "DATABASE_URL")


ROLES: Final = ["api", "worker", "scheduler"]
"""What a node does: answer clients, run graphs, fire crons."""


class SettingsError(Exception):
    """A variable has a value that makes no sense. The text is one line that names it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How this node runs.

    `workers`: run workers beside the desk (`MATINS_WORKERS`). `lanes`: runs at once in each (`N_JOBS_PER_WORKER`).
    `grace_s`: how long runs may finish at a shutdown (`BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS`).
    `limit_s`: how long a run may take before it is stopped (`BG_JOB_TIMEOUT_SECS`; 0 for no limit).
    `stream_ttl_s`: how long streams can be replayed (`RESUMABLE_STREAM_TTL_SECONDS`).
    `is_alone`: no other node can be on this database (`MATINS_ALONE`). `where`: what a person calls that database
    (`MATINS_DATA`). `reloads`: watch the code (`MATINS_RELOAD`). `is_dev`: greet a person (`MATINS_DEV`).
    `fires_only`: of what a node does, it fires crons and nothing else (`MATINS_ROLES`).
    `webhooks`: what counts instead of the section of langgraph.json (`LANGGRAPH_WEBHOOKS`). `webhook_secrets`: what
    reports are signed with (`MATINS_WEBHOOK_SECRET`). `webhook_networks`: where they may go though it is not public
    (`MATINS_WEBHOOK_NETWORKS`). `ceilings`: what crons may do, whatever their policies say (`MATINS_CRON_RUNS_PER_DAY`,
    `MATINS_CRONS_PER_USER`; 0 for no limit). `heartbeat_url`: what is asked for while crons are looked after
    (`MATINS_HEARTBEAT_URL`).
    """

    database_uri: str
    config: Path
    workers: int = 1
    lanes: int = 10
    connections: int = 20
    grace_s: float = 180.0
    limit_s: float = 3600.0
    stream_ttl_s: float = 86400.0
    is_alone: bool = False
    is_dev: bool = False
    reloads: bool = False
    url: str = "http://127.0.0.1:2024"
    where: str = ""
    log_level: str = "INFO"
    log_json: bool = False
    webhooks: dict[str, object] | None = None
    webhook_secrets: tuple[str, ...] = ()
    webhook_networks: tuple[Network, ...] = ()
    ceilings: Ceilings = DEFAULT_CEILINGS
    fires_only: bool = False
    heartbeat_url: str | None = None


def database_uri(environ: Mapping[str, str]) -> str | None:
    """Give the database that the environment names, by the first of the names that people use for it.

    Raises: SettingsError when it is no address of a PostgreSQL database. The text shows nothing of it: passwords.
    """
    name = next((name for name in _DATABASE if environ.get(name)), None)
    if name is None:
        return None
    uri = environ[name]
    try:
        parts = urlsplit(uri)
        is_postgres = parts.scheme.split("+")[0] in ("postgres", "postgresql")
        is_address = is_postgres and not parts.fragment and "@" not in parts.path
        if "," not in parts.netloc:
            _ = parts.port
    except ValueError:
        is_address = False
    if not is_address:
        message = (
            f"{name} must read postgresql://user:password@host:port/database; in the password, write '#' as %23, "
            "'/' as %2F, '@' as %40, '[' as %5B"
        )
        raise SettingsError(message)
    return uri


def read(environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises: SettingsError.
    """
    uri = database_uri(environ)
    if uri is None:
        message = (
            "DATABASE_URI is not set: name a PostgreSQL database, or use `matins dev`, which brings its own"
        )
        raise SettingsError(message)
    return Settings(
        database_uri=uri,
        config=Path(environ.get("MATINS_CONFIG", "langgraph.json")),
        workers=_number(environ, "MATINS_WORKERS", 1, at_least=1),
        lanes=_number(environ, "N_JOBS_PER_WORKER", 10, at_least=1),
        connections=_number(environ, "LANGGRAPH_POSTGRES_POOL_MAX_SIZE", 20, at_least=2),
        grace_s=float(_number(environ, "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS", 180, at_least=0)),
        limit_s=float(_number(environ, "BG_JOB_TIMEOUT_SECS", 3600, at_least=0)) or math.inf,
        stream_ttl_s=float(_number(environ, "RESUMABLE_STREAM_TTL_SECONDS", 86400, at_least=1)),
        is_alone=_flag(environ, "MATINS_ALONE"),
        is_dev=_flag(environ, "MATINS_DEV"),
        fires_only=_roles(environ) == ROLES[-1:],
        reloads=_flag(environ, "MATINS_RELOAD"),
        url=environ.get("MATINS_URL", "http://127.0.0.1:2024"),
        where=environ.get("MATINS_DATA", ""),
        ceilings=Ceilings(
            runs_per_day=_number(environ, "MATINS_CRON_RUNS_PER_DAY", 1500, at_least=0) or math.inf,
            crons_per_user=_number(environ, "MATINS_CRONS_PER_USER", 100, at_least=0) or math.inf,
        ),
        log_level=_level(environ),
        log_json=_flag(environ, "LOG_JSON"),
        webhooks=_section(environ, "LANGGRAPH_WEBHOOKS"),
        webhook_secrets=_secrets(environ, "MATINS_WEBHOOK_SECRET"),
        webhook_networks=_networks(environ, "MATINS_WEBHOOK_NETWORKS"),
        heartbeat_url=_address(environ, "MATINS_HEARTBEAT_URL"),
    )


def _roles(environ: Mapping[str, str]) -> list[str]:
    """Give what the node does, in the order of ROLES."""
    named = environ.get("MATINS_ROLES", ",".join(ROLES)).replace(" ", "").split(",")
    found = [role for role in ROLES if role in named]
    if set(named) - set(ROLES) or found not in (list(ROLES), list(ROLES[-1:])):
        message = f"MATINS_ROLES must be {','.join(ROLES)}, which is all a node can do, or {ROLES[-1]} alone"
        raise SettingsError(message)
    return found


def _number(environ: Mapping[str, str], name: str, default: int, *, at_least: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    try:
        number = int(text)
    except ValueError:
        number = at_least - 1
    if number < at_least:
        message = f"{name} must be a whole number of at least {at_least}, not {text!r}"
        raise SettingsError(message)
    return number


def _flag(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in ("1", "true", "yes", "on")


def _level(environ: Mapping[str, str]) -> str:
    level = environ.get("LOG_LEVEL", "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        message = f"LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {level!r}"
        raise SettingsError(message)
    return level


def _section(environ: Mapping[str, str], name: str) -> dict[str, object] | None:
    """Give a section of langgraph.json that stands in a variable, as JSON."""
    text = environ.get(name)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        raise SettingsError(f"{name} must be a JSON object") from None


def _secrets(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Give secrets, separated by spaces. Source: Standard Webhooks, 24 to 64 bytes in base64."""
    secrets = tuple(environ.get(name, "").split())
    for secret in secrets:
        try:
            encoded = secret.removeprefix("whsec_").rstrip("=")
            is_secret = 24 <= len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)) <= 64
        except ValueError:
            is_secret = False
        if not is_secret or not secret.startswith("whsec_"):
            message = f"{name} must read whsec_ and 24 to 64 bytes in base64; several are separated by spaces"
            raise SettingsError(message) from None
    return secrets


def _address(environ: Mapping[str, str], name: str) -> str | None:
    """Give an address of the web. The text of a refusal shows nothing of it: it may be a secret."""
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        _ = parts.port
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable()
    except ValueError:
        is_address = False
    if not is_address or " " in text:
        raise SettingsError(f"{name} must read https://host/path or http://host/path") from None
    return text


def _networks(environ: Mapping[str, str], name: str) -> tuple[Network, ...]:
    found: list[Network] = []
    for text in environ.get(name, "").replace(",", " ").split():
        try:
            found.append(ip_network(text))
        except ValueError:
            message = f"{name} must name networks such as 10.0.0.0/8, not {text!r}"
            raise SettingsError(message) from None
    return tuple(found)
