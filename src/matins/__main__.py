"""`python -m matins` is `matins`."""

from __future__ import annotations

from matins.cli.main import main

if __name__ == "__main__":
    main()
