"""`matins migrate`: bring the database to the present schema, or print what that would take."""

from __future__ import annotations

import os
from typing import Annotated

import anyio
import typer

from matins.domain.errors import Error
from matins.settings import SettingsError, database_uri
from matins.storage import migrate as migrations


def migrate(
    sql: Annotated[
        bool,
        typer.Option("--sql", help="Print all migrations as a script for psql instead of applying them."),
    ] = False,
) -> None:
    """Apply missing migrations to the database that DATABASE_URI names."""
    if sql:
        typer.echo(migrations.script())
        return
    try:
        uri = database_uri(os.environ)
    except SettingsError as error:
        typer.echo(f"matins: {error}", err=True)
        raise typer.Exit(2) from None
    if uri is None:
        typer.echo("matins: DATABASE_URI is not set: name the PostgreSQL database to migrate", err=True)
        raise typer.Exit(2)
    try:
        applied = anyio.run(migrations.migrate, uri)
    except Error as error:
        typer.echo(f"matins: {error}", err=True)
        raise typer.Exit(1) from None
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("nothing to apply: the database is at the present schema")
