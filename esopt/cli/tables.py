"""The table of what presets reach: options that take several values, and the work behind ``esopt table``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from .commands import _guarded
from .display import duration

if TYPE_CHECKING:
    from ..rl.run_file import Run

_SEVERAL = ("--envs", "--presets")


class SeveralValues(TyperCommand):
    """A command with ``--envs A B`` for ``--envs A --envs B``, which is all that typer knows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        return super().parse_args(ctx, repeated(args))


def repeated(args: list[str]) -> list[str]:
    """Return ``args`` with the option before each of its values."""
    found: list[str] = []
    option = ""
    for arg in args:
        if arg.startswith("-"):
            option = arg if arg in _SEVERAL else ""
            found.append(arg)
        else:
            found += [option, arg] if option and found[-1] != option else [arg]
    return found


def table(
    envs: list[str], presets: list[str], seeds: range, steps: int | None, file: Path, settings: dict[str, Any]
) -> int:
    """Train what is missing in ``file`` and print the table."""

    def work() -> None:
        from ..rl.learning_table import table

        def show(run: Run) -> None:
            what = f"{run.env}, {run.preset}, seed {run.seed}: mean return {run.mean_return:.1f}"
            print(
                f"{what}, {run.steps + run.check_steps:,} steps, {duration(run.seconds)}", file=sys.stderr, flush=True
            )

        given = {name: value for name, value in settings.items() if value is not None}
        print(table(envs, presets, seeds, steps=steps, file=file, callback=show, **given))

    return _guarded(work, f"interrupted; finished runs are in {file}, and the same command goes on from there.")
