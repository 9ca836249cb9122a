"""What a person reads who has started `matins dev`."""

from __future__ import annotations

import sys
from contextlib import suppress

from matins import __version__
from matins.settings import Settings


def greet(settings: Settings, graphs: list[str]) -> None:
    """Say where everything is and what to try next."""
    ask = (
        f"""curl -s {settings.url}/runs/wait -H 'content-type: application/json' \\
      -d '{{"assistant_id": "echo", "input": {{"messages": [{{"role": "user", "content": "hello"}}]}}}}'"""
        if "echo" in graphs
        else f"curl -s {settings.url}/assistants/search -d '{{}}'"
    )
    greeting = f"""
  Matins {__version__} is ready.

    API    {settings.url}
    Docs   {settings.url}/docs
    Graphs {", ".join(sorted(graphs))}
    Data   {settings.where}

  Try next:

    {ask}

  Ctrl-C stops it; threads, runs and crons stay.

"""
    with suppress(OSError):  # nobody reads it
        sys.stdout.write(greeting)
        sys.stdout.flush()
