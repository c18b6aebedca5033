"""`python -m sdekit` is the `sdekit` command."""

from __future__ import annotations

from sdekit.cli import main

if __name__ == "__main__":  # worker processes import this module again
    main()
