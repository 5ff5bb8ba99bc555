"""Finished training runs in a file, one line of JSON each: for tables that go on where they were interrupted."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from .._describe import differences


class Run(NamedTuple):
    """A finished run of an environment, a preset and a seed.

    ``mean_return`` is the trained policy's over ``episodes`` held-out episodes, ``start_return`` the untrained one's
    over those of a check. ``steps``, ``check_steps`` and ``evaluation_steps`` are the environment steps of candidates,
    of checks of the centre, and of those held-out episodes. ``seconds`` and ``cpu_seconds`` (of all threads and
    processes) are of the whole run, evaluation included, as is compilation where it was the first.
    """

    env: str
    preset: str
    seed: int
    mean_return: float
    start_return: float
    episodes: int
    generations: int
    steps: int
    check_steps: int
    evaluation_steps: int
    seconds: float
    cpu_seconds: float
    reason: str
    path: str


_BEGIN = b'{"env": '
_FLOATS = tuple(name for name, kind in Run.__annotations__.items() if kind == "float")


class RunFile:
    """Runs by environment, preset and seed, each with a description of its settings.

    Parameters
    ----------
    path : the file, made with the first run; None for none. A last line that was cut off is dropped with the next run.

    Raises
    ------
    ValueError  for lines that are no runs.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        self._runs: dict[tuple[str, str, int], tuple[Run, Any]] = {}
        self._cut: int | None = None  # bytes up to a line that was cut off
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def find(self, env: str, preset: str, seed: int, settings: Any) -> Run | None:
        """Return the finished run, if there is one.

        Raises
        ------
        ValueError  if it had other settings.
        """
        run, before = self._runs.get((env, preset, seed), (None, None))
        if run is None:
            return None
        lines = differences(before, settings)
        if lines:
            listed = "\n".join(f"  {line}" for line in lines)
            raise ValueError(
                f"{self.path} has a run of {env}, {preset}, seed {seed} with other settings:\n{listed}\n"
                "Pass the settings of that run, another name for the preset, or another file."
            )
        return run

    def add(self, run: Run, settings: Any) -> None:
        """Keep a run, and write it."""
        self._runs[run.env, run.preset, run.seed] = run, settings
        if self.path is None:
            return
        content = {**run._asdict(), "settings": settings}
        content |= {name: None for name in _FLOATS if not math.isfinite(content[name])}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._cut is not None:
            os.truncate(self.path, self._cut)
            self._cut = None
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        whole = path.read_bytes()
        *lines, last = whole.split(b"\n")
        if last and last.startswith(_BEGIN[: len(last)]):
            self._cut = len(whole) - len(last)
        elif last:
            lines.append(last)
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                settings = content.pop("settings")
                content |= {name: math.nan for name in _FLOATS if content[name] is None}
                run = Run(**content)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"line {number} of {path} is no finished run ({type(error).__name__}: {error}). "
                    "Expected one run per line, as table() writes them. Mend or remove the line, or pass another file."
                ) from error
            self._runs[run.env, run.preset, run.seed] = run, settings
