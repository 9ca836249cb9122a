"""Start a node: check the configuration, then become the parent of its processes."""

from __future__ import annotations

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from matins import parent
from matins.embedded import EmbeddedPostgres, EmbeddedPostgresError
from matins.manifest import read
from matins.manifest.reading import ManifestError
from matins.settings import SettingsError
from matins.settings import read as read_settings

CONFIGURATION_ERROR: Final = 2
DEV_GRACE_SECONDS: Final = 0
"""Ctrl-C in development hands runs back at once; they go on at the next start."""


@dataclass(frozen=True, slots=True)
class Node:
    """What to serve, and where."""

    config: Path
    host: str
    port: int
    workers: int
    reloads: bool = False
    is_dev: bool = False
    roles: str = ""
    opens_browser: bool = False

    @property
    def url(self) -> str:
        """Where a person reaches it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compares, binds nothing
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def run(node: Node, *, data_dir: Path | None) -> int:
    """Run a node until it is told to stop; the exit code.

    In development the database is an embedded one, in `data_dir` or beside the configuration, unless DATABASE_URI
    names one and `data_dir` is not given: the other names that `serve` hears may well mean the project's own.
    """
    environment = dict(os.environ)
    try:
        manifest = read(node.config)
    except ManifestError as error:
        return _refuse(str(error))
    from_manifest = manifest.env.keys() - environment.keys()
    manifest.export(environment)
    environment |= {
        "MATINS_CONFIG": str(node.config.resolve()),
        # A reload must not take these for the operator's.
        "MATINS_FROM_MANIFEST": ",".join(sorted(from_manifest)),
        "MATINS_WORKERS": str(node.workers),
        "MATINS_URL": node.url,
    }
    if node.roles:
        environment["MATINS_ROLES"] = node.roles
    if node.is_dev:
        environment |= {"MATINS_DEV": "1", "MATINS_RELOAD": "1" if node.reloads else "0"}
        environment.setdefault("BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS", str(DEV_GRACE_SECONDS))
    postgres = None
    environment["MATINS_DATA"] = "the database that DATABASE_URI names"
    if node.is_dev and (data_dir is not None or not environment.get("DATABASE_URI")):
        data_dir = data_dir or node.config.resolve().parent / ".matins"
        try:
            postgres = EmbeddedPostgres(data_dir)
        except EmbeddedPostgresError as error:
            return _refuse(str(error), code=1)
        environment |= {"MATINS_ALONE": "1", "MATINS_DATA": str(data_dir)}
    try:
        settings = read_settings(
            {**environment, "DATABASE_URI": "postgresql:///"} if postgres else environment
        )
    except SettingsError as error:
        return _refuse(str(error))
    if node.opens_browser:
        webbrowser.open(node.url + "/docs")
    return parent.run(
        host=node.host,
        port=node.port,
        # -P: a file in the directory that we stand in must not shadow a module of ours.
        command=[sys.executable, "-P", "-m", "matins.server"],
        environment=environment,
        postgres=postgres,
        grace_s=settings.grace_s,
    )


def _refuse(line: str, *, code: int = CONFIGURATION_ERROR) -> int:
    typer.echo(f"matins: {line}", err=True)
    return code
