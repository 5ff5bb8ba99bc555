"""The command line: ``esopt train ENV`` trains a policy, ``esopt evaluate`` and ``esopt render`` look at it.

Needs the extra ``cli``; typer, rich and matplotlib are imported when a command runs. The only package that prints.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

_EXTRA = ("typer", "rich", "matplotlib")


def main() -> None:
    """Run the command line; the entry point of ``esopt`` and of ``python -m esopt.cli``."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        print(
            f'esopt: the command line needs {", ".join(missing)}. Install the extra "cli": pip install "pyesopt[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(1)
    from .app import app

    app(prog_name="esopt")
