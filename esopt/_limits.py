"""What :func:`esopt.minimize` watches besides the optimizer's own budgets."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ._progress import Progress
from ._told import check_limit, check_target
from .records import Step


@dataclass(frozen=True)
class Limits:
    """What the loop watches besides the optimizer's own budgets."""

    steps: int | None
    seconds: float | None
    target: float | None
    stochastic: bool
    callback: Callable[[Step], Any] | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_seconds: float

    def __post_init__(self) -> None:
        check_limit("steps", self.steps)
        check_limit("seconds", self.seconds, whole=False)
        check_target(self.target)
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be a function, got {type(self.callback).__name__}. Pass callback=function.")
        if not (isinstance(self.checkpoint_seconds, Real) and self.checkpoint_seconds >= 0.0):
            raise ValueError(f"checkpoint_seconds must be 0 or more, got {self.checkpoint_seconds!r}.")
        if self.checkpoint is None:
            return
        if not isinstance(self.checkpoint, (str, os.PathLike)):
            raise TypeError(
                f"checkpoint must be the name of a file, got {self.checkpoint!r}. Pass checkpoint='run.npz'."
            )
        path = os.fspath(self.checkpoint)
        if not path:
            raise ValueError("checkpoint is an empty name. Pass the name of a file, or leave it out for none.")
        folder = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "no such folder for checkpoint=; make it first", folder)
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "checkpoint= is a folder; pass the name of a file in it", path)
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"checkpoint= is a device or a pipe, {path}. Pass the name of a file.")
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write a checkpoint into this folder", folder)

    def used_up(self, progress: Progress) -> dict[str, float]:
        """Return the reasons to stop that a strategy does not know of."""
        reasons: dict[str, float] = {}
        if self.steps is not None and progress.steps >= self.steps:
            reasons["steps"] = float(progress.steps)
        if self.seconds is not None and progress.seconds >= self.seconds:
            reasons["seconds"] = progress.seconds
        return reasons


def count_final(final: int, evaluations: int | None, *, stochastic: bool) -> int:
    """Return how many evaluations the final mean gets, and check that the budget leaves some for the search."""
    advice = "Pass for example final_evaluations=30; a function without noise gets one."
    if isinstance(final, (bool, np.bool_)) or not isinstance(final, Real):
        raise TypeError(f"final_evaluations must be a number, got {type(final).__name__}. {advice}")
    if not (0 <= final < math.inf and final % 1 == 0):
        raise ValueError(f"final_evaluations must be a whole number, 0 or more, got {final}. {advice}")
    final = int(final) if stochastic else 1
    check_limit("evaluations", evaluations)
    if evaluations is not None and evaluations <= final:
        raise ValueError(
            f"evaluations={evaluations} leaves nothing beside the {final} of the final mean. Give a larger budget."
        )
    return final
