"""What a run looked like: a few hundred points of it, kept in memory, saved and drawn."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import checkpoint
from ._progress import Progress
from .errors import CheckpointError
from .noise import Array
from .records import Info, Population, Transform

_COORDINATES = 100
_MATRIX = 512
"""Dimensions up to which a factor is decomposed into axes."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Arrays of a :class:`History`, one row for each generation kept; nan where a strategy has no such number.

    ``best`` and ``median`` are those of a generation, ``lowest`` the best so far. ``sigma`` is the root mean square of
    the standard deviations of the coordinates. ``mean`` and ``deviations`` are those of the ``coordinates``, at most
    100 of them; ``axes`` are as many square roots of eigenvalues of the covariance, in increasing order, the first and
    the last included. ``scalars`` are the columns of what the strategy reported under ``names``, a list in JSON.
    """

    stride: int
    dim: int
    names: str
    coordinates: NDArray[np.int64]
    generation: NDArray[np.int64]
    evaluations: NDArray[np.int64]
    best: Array
    median: Array
    lowest: Array
    sigma: Array
    mean: Array
    deviations: Array
    axes: Array
    scalars: Array

    @property
    def axis_ratio(self) -> Array:
        """Longest over shortest axis."""
        return np.asarray(self.axes[:, -1] / self.axes[:, 0])


class History:
    """A record of a run: at most ``points`` generations, evenly spaced, of at most 100 coordinates.

    ``minimize(..., history=True)`` keeps one as ``result.history``; with ask and tell, call :meth:`record` after each
    ``tell``.

    Parameters
    ----------
    points : generations kept at most; when there are more, every second one is dropped.
    path : the file that :meth:`save` writes to if it is given no other.

    Notes
    -----
    O(points * min(d, 100)) memory. Where the scale is a factor, every generation kept takes O(d^3) time up to d = 512,
    and the axes are unknown beyond.

    Examples
    --------
    >>> import esopt
    >>> es, history = esopt.Optimizer(esopt.CMAES(), [1.0, 2.0], seed=1), esopt.History()
    >>> for _ in range(20):
    ...     values = [(x**2).sum() for x in es.ask()]
    ...     info = es.tell(values)
    ...     history.record(es.progress, es.population(), values, info)
    >>> history.trace.mean.shape
    (20, 2)
    """

    def __init__(self, points: int = 1000, path: str | os.PathLike[str] | None = None) -> None:
        if isinstance(points, bool) or not isinstance(points, int) or points < 2:
            raise ValueError(f"points must be a whole number from 2 on, got {points!r}. Pass for example points=1000.")
        self.points, self.path = points, path
        self._stride, self._dim = 1, 0
        self._rows: list[tuple[int, int, Array, dict[str, float]]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, progress: Progress, population: Population, values: object, info: Info | None = None) -> None:
        """Keep the generation that was just told, or not, if it is between two points.

        Parameters
        ----------
        progress : that of the optimizer, ``es.progress``.
        population : the next one, ``es.population()``, for its mean and scale.
        values : (n,)  what was told.
        info : what ``tell`` returned.
        """
        if progress.generation % self._stride:
            return
        self._dim = population.dim
        kept = _kept(self._dim)
        deviations, axes = _spread(population)
        told = np.asarray(values, np.float64)
        finite = told[np.isfinite(told)]
        best, median = (float(finite.min()), float(np.median(finite))) if finite.size else (np.nan, np.nan)
        sigma = float(np.sqrt(np.square(deviations).mean()))
        numbers = np.array([best, median, progress.best_value, sigma])
        row = np.concatenate([numbers, population.mean[kept], deviations[kept], axes[kept]])
        scalars = {} if info is None else {name: float(number) for name, number in info.scalars.items()}
        self._rows.append((progress.generation, progress.evaluations, row, scalars))
        if len(self._rows) > self.points:
            self._stride *= 2
            self._rows = [row for row in self._rows if row[0] % self._stride == 0]

    def until(self, generation: int) -> None:
        """Forget what came after ``generation``."""
        self._rows = [row for row in self._rows if row[0] <= generation]

    @property
    def trace(self) -> Trace:
        """What was recorded, as arrays."""
        names = sorted({name for _, _, _, scalars in self._rows for name in scalars})
        kept = _kept(self._dim)
        width = kept.size
        table = np.array([row for _, _, row, _ in self._rows]).reshape(-1, 4 + 3 * width)
        scalars = np.array([[own.get(name, np.nan) for name in names] for _, _, _, own in self._rows], np.float64)
        return Trace(
            self._stride,
            self._dim,
            json.dumps(names),
            kept,
            np.array([row[0] for row in self._rows], np.int64),
            np.array([row[1] for row in self._rows], np.int64),
            table[:, 0].copy(),
            table[:, 1].copy(),
            table[:, 2].copy(),
            table[:, 3].copy(),
            table[:, 4 : 4 + width].copy(),
            table[:, 4 + width : 4 + 2 * width].copy(),
            table[:, 4 + 2 * width :].copy(),
            scalars.reshape(len(self._rows), len(names)),
        )

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the history to ``path`` (.npz), atomically; ``numpy.load(path)["mean"]`` works too."""
        target = self.path if path is None else path
        if target is None:
            raise ValueError("the history has no path of its own. Pass save(path).")
        checkpoint.save(target, self.trace, configuration="history", kind="history")

    @classmethod
    def load(cls, path: str | os.PathLike[str], points: int = 1000) -> History:
        """Return the history saved at ``path``, to be continued or drawn.

        Raises
        ------
        CheckpointError  if the file is damaged, or something else.
        """
        history = cls(points, path)
        trace = checkpoint.load(path, history.trace, configuration="history", kind="history")
        try:
            history._fill(trace)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{os.path.basename(os.fspath(path))} is damaged: its parts do not fit together ({error}).\n"
                "Restore it from a copy, or pass another file."
            ) from None
        return history

    def _fill(self, trace: Trace) -> None:
        """Take over what a file holds.

        Raises
        ------
        ValueError, TypeError  if its parts do not fit together.
        """
        names = json.loads(trace.names)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("the names of its scalars are no list of names")
        if (
            trace.stride < 1
            or trace.dim < 0
            or (len(trace.mean) and trace.mean.shape[1] != min(trace.dim, _COORDINATES))
        ):
            raise ValueError(f"a stride of {trace.stride} and {trace.dim} coordinates")
        if not trace.mean.shape == trace.deviations.shape == trace.axes.shape:
            raise ValueError(f"arrays of shapes {trace.mean.shape}, {trace.deviations.shape} and {trace.axes.shape}")
        columns = np.column_stack([trace.best, trace.median, trace.lowest, trace.sigma])
        table = np.concatenate([columns, trace.mean, trace.deviations, trace.axes], axis=1)
        self._stride, self._dim = trace.stride, trace.dim
        for generation, evaluations, row, numbers in zip(
            trace.generation.tolist(), trace.evaluations.tolist(), table, trace.scalars.tolist(), strict=True
        ):
            own = {name: number for name, number in zip(names, numbers, strict=True) if number == number}
            self._rows.append((generation, evaluations, row, own))

    def plot(self, path: str | os.PathLike[str], *, title: str = "") -> Path:
        """Draw the run: values, sigma and axis ratio, mean, axes, deviations, and what the strategy reported.

        Parameters
        ----------
        path : where to write; the suffix decides on the format.
        title : line above the picture.

        Raises
        ------
        ValueError  if nothing was recorded.
        ModuleNotFoundError  without matplotlib.
        """
        if not self._rows:
            raise ValueError("the history is empty: nothing to draw. Record at least one generation.")
        from ._panel import draw_panel

        return draw_panel(self.trace, path, title)


def begin_history(history: bool | str | os.PathLike[str], generation: int) -> History | None:
    """Return what ``minimize(history=...)`` records into: None, a new history, or the file's up to ``generation``.

    A file is written at once, so that a run does not end with one that cannot be.
    """
    if isinstance(history, (bool, np.bool_)):
        return History() if history else None
    if not isinstance(history, (str, os.PathLike)):
        raise TypeError(f"history must be True or the name of a file, got {history!r}. Pass for example history=True.")
    if generation and os.path.exists(history):
        earlier = History.load(history)
        earlier.until(generation)
        return earlier
    new = History(path=history)
    new.save()
    return new


def _kept(dim: int) -> NDArray[np.int64]:
    """Return the coordinates that are kept: all, or 100 evenly spaced."""
    return np.linspace(0, max(dim - 1, 0), min(dim, _COORDINATES)).round().astype(np.int64)


def _spread(population: Population) -> tuple[Array, Array]:
    """Return the standard deviations of the coordinates and the lengths of the axes in increasing order, (d,) each."""
    scale, dim = population.scale, population.dim
    if isinstance(scale, float):
        return np.full(dim, scale), np.full(dim, scale)
    if isinstance(scale, np.ndarray) and scale.ndim == 1:
        return scale, np.sort(scale)
    unknown = np.full(dim, np.nan)
    if dim > _MATRIX and not isinstance(scale, np.ndarray):
        return unknown, unknown
    factor = scale if isinstance(scale, np.ndarray) else _matrix(scale, dim)
    deviations = np.sqrt(np.einsum("ij,ij->i", factor, factor))
    if dim > _MATRIX or not np.isfinite(factor).all():
        return deviations, unknown
    return deviations, np.asarray(np.linalg.svd(factor, compute_uv=False)[::-1], np.float64)


def _matrix(transform: Transform, dim: int) -> Array:
    return np.asarray(transform.apply(np.eye(dim))).T
