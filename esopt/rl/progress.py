"""What a training run says of each generation, and the file where it is kept."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Progress(NamedTuple):
    """What a callback sees after each generation; returns are sums of rewards, higher is better.

    ``mean_return`` and ``best_return`` are those of the generation's candidates, on episodes as long as theirs were
    (shorter at first with ``lengthening``). ``centre_return`` is the mean return of the centre that the generation
    started from, on whole episodes of its own; nan in generations without a check.
    ``steps`` and ``check_steps`` are the environment steps that candidates and checks took so far.
    """

    generation: int
    evaluations: int
    steps: int
    check_steps: int
    seconds: float
    mean_return: float
    best_return: float
    centre_return: float
    snr: float


_KINDS = [int if kind == "int" else float for kind in Progress.__annotations__.values()]


class ProgressFile:
    """A table of :class:`Progress` (csv), one line per generation, that a resumed run goes on with.

    Parameters
    ----------
    path : the file; None for none, but the rows are kept.
    resume : whether rows of an earlier part of the run are there; those from the first one that :meth:`add` repeats on
        are dropped.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, resume: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self.rows: list[Progress] = []
        if self.path is not None:
            if resume and self.path.exists():
                self.rows = _read(self.path)
            self._begun = False

    def add(self, row: Progress) -> None:
        """Keep a row, and write it."""
        if self.path is not None and not self._begun:
            self.rows = [old for old in self.rows if old.generation < row.generation]
            _write(self.path, [Progress._fields, *map(_texts, self.rows)], "w")
            self._begun = True
        self.rows.append(row)
        if self.path is not None:
            _write(self.path, [_texts(row)], "a")

    def history(self) -> dict[str, Array]:
        """Return one array per field."""
        table = np.array(self.rows, np.float64).reshape(-1, len(Progress._fields))
        return {name: table[:, k].copy() for k, name in enumerate(Progress._fields)}


def read_progress(path: str | os.PathLike[str]) -> Mapping[str, Array]:
    """Return what :attr:`esopt.rl.TrainResult.history` was, from ``progress.csv``."""
    file = ProgressFile(None)
    file.rows = _read(Path(path))
    return file.history()


def _texts(row: Progress) -> list[str]:
    return [repr(kind(value)) for kind, value in zip(_KINDS, row, strict=True)]


def _write(path: Path, lines: Sequence[Sequence[str]], mode: str) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def _read(path: Path) -> list[Progress]:
    """Return the whole rows of a file; a line that a kill cut short is no row."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines or tuple(lines[0]) != Progress._fields:
        raise ValueError(f"{path} is no table of progress. Expected the columns {', '.join(Progress._fields)}.")
    rows = []
    for line in lines[1:]:
        if len(line) != len(_KINDS):
            break
        rows.append(Progress._make(kind(text) for kind, text in zip(_KINDS, line, strict=True)))
    return rows
