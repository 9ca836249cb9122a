"""Arguments to one of the commands. Exit codes: 0 done, 1 failed, 2 the configuration or the call is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matins import __version__
from matins.cli import crons
from matins.cli.migrate import migrate
from matins.cli.node import Node, run

Config = Annotated[Path, typer.Option(help="The langgraph.json to serve.")]
Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")]

app = typer.Typer(
    name="matins",
    help="A self-hosted agent server that speaks the LangGraph Server API, with cron jobs you can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def dev(
    config: Config = Path("langgraph.json"),
    host: Host = "127.0.0.1",
    port: Port = 2024,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the embedded database lives.  [default: .matins beside the config]"),
    ] = None,
    reload: Annotated[bool, typer.Option(help="Reload graphs when their code changes.")] = True,
    browser: Annotated[bool, typer.Option(help="Open the API's documentation in a browser.")] = False,
) -> None:
    """Serve a langgraph.json on this machine, with a database of its own and code that reloads."""
    node = Node(config, host, port, workers=1, reloads=reload, is_dev=True, opens_browser=browser)
    raise typer.Exit(run(node, data_dir=data_dir))


@app.command()
def serve(
    config: Config = Path("langgraph.json"),
    host: Host = "127.0.0.1",
    port: Port = 2024,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run graphs.")] = 1,
    roles: Annotated[
        str, typer.Option(help="What this node does: api,worker,scheduler, or scheduler alone.")
    ] = "",
) -> None:
    """Serve a langgraph.json on the PostgreSQL database that DATABASE_URI names."""
    raise typer.Exit(run(Node(config, host, port, workers=workers, roles=roles), data_dir=None))


app.command(name="migrate")(migrate)
app.add_typer(crons.app)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command that the arguments name."""
    app()
