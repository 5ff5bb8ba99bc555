"""What a run returns: one record for every strategy, printed as a table and readable like scipy's OptimizeResult."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .history import History
from .noise import Array

_SENTENCES = {
    "target": "the target value was reached",
    "settled": "checks beyond the target got no better",
    "evaluations": "the budget of evaluations is used up",
    "generations": "the budget of generations is used up",
    "steps": "the budget of steps is used up",
    "seconds": "the time is up",
    "arrivals": "the arrival log ends here",
    "callback": "the callback stopped the run",
    "interrupted": "the run was interrupted",
    "terminated": "a signal asked the process to end",
    "failed": "a whole generation failed",
    "exception": "an exception ended the run",
    "diverged": "the mean is not finite any more; use a smaller learning rate",
    "scale": "sigma left the range of numbers: the run has converged, or the objective is flat or unbounded",
}
_SCIPY = ("x", "fun", "success", "status", "message", "nfev", "njev", "nit")


def _show(number: float) -> str:
    """Return counts with all their digits, other numbers with six."""
    return f"{number:.0f}" if abs(number) < 1e15 and number % 1.0 == 0.0 else f"{number:.6g}"


class Point(NamedTuple):
    """A candidate and its value."""

    x: Array
    value: float


@dataclass(frozen=True, eq=False)
class Result:
    """Outcome of a run.

    ``x`` and ``value`` are the best point evaluated for a deterministic objective; for a noisy one they are the final
    mean and its re-evaluated value with ``value_stderr``, because the best of many noisy values is a lucky draw. That
    draw stays available as ``best``. Under constraints ``x`` is the best feasible point, or, before there is one, the
    point with the least violation; then ``best.value`` is inf.

    Parameters
    ----------
    x : point recommended, in the shape of x0.
    value : its value.
    value_stderr : standard error of ``value``; 0 for a deterministic objective.
    mean : final mean of the search distribution, in the shape of x0.
    best : the lowest value seen, and where; -inf counts, unless ``failures`` has "infinite" ones.
    reason : why the run stopped, each with its number; empty while it could go on. "failed" names the generation in
        which no usable value was found.
    evaluations, gradients, generations, steps : what it took (calls of f, calls of its gradient, updates, cost units).
    seconds : wall-clock time, final evaluations and earlier parts of a resumed run included.
    failures : failed evaluations by kind; and how often a "checkpoint" or the "history" could not be written.
    evaluator : what evaluated the candidates.
    strategy : what proposed them.
    history : what :meth:`plot` draws, if the run kept it.
    violation : sum of what ``x`` violates its constraints by; 0 where it is feasible, or has none.
    multipliers : Lagrange multipliers of the constraints, then of the equalities, at the time when ``x`` was found;
        None without.
    evaluator_state : what the evaluator knew after the last generation.
    arrivals : the log of an asynchronous run, a record for each candidate in the order of arrival: the ``generation``
        and ``row`` it was drawn as, and the generation in which it was ``told``, -1 for none. None for other runs.
    """

    x: Array
    value: float
    value_stderr: float
    mean: Array
    best: Point
    reason: Mapping[str, float]
    evaluations: int
    gradients: int
    generations: int
    steps: int
    seconds: float
    failures: Mapping[str, int]
    evaluator: str
    strategy: str
    history: History | None = None
    violation: float = 0.0
    multipliers: Array | None = None
    evaluator_state: Any = ()
    arrivals: NDArray[np.void] | None = None

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the run and return the path of the picture; see :meth:`esopt.History.plot`.

        Raises
        ------
        ValueError  if the run kept no history.
        ModuleNotFoundError  without matplotlib.
        """
        if self.history is None:
            raise ValueError("the run kept no history to draw. Pass history=True to minimize().")
        return self.history.plot(path, title=f"{self.strategy}: {self.message}")

    @property
    def fun(self) -> float:
        """Alias of ``value`` (scipy)."""
        return self.value

    @property
    def nfev(self) -> int:
        """Alias of ``evaluations`` (scipy)."""
        return self.evaluations

    @property
    def njev(self) -> int:
        """Alias of ``gradients`` (scipy)."""
        return self.gradients

    @property
    def nit(self) -> int:
        """Alias of ``generations`` (scipy)."""
        return self.generations

    @property
    def feasible(self) -> bool:
        """Whether ``x`` satisfies its constraints."""
        return self.violation == 0.0

    @property
    def success(self) -> bool:
        """Whether the run has a finite value of a feasible point, and neither diverged nor failed."""
        return (
            bool(np.isfinite(self.value))
            and self.feasible
            and not {"diverged", "failed", "exception"} & set(self.reason)
        )

    @property
    def status(self) -> int:
        """0 for success, 1 otherwise (scipy)."""
        return 0 if self.success else 1

    @property
    def message(self) -> str:
        """Why the run stopped, in words."""
        if not self.reason:
            return "The run has not stopped yet."
        return "; ".join(f"{_SENTENCES.get(name, name)} ({name}={_show(at)})" for name, at in self.reason.items())

    def keys(self) -> Iterator[str]:
        """Names for ``result[name]`` and ``dict(result)``: those of scipy's OptimizeResult."""
        return iter(_SCIPY)

    def values(self) -> Iterator[Any]:
        """Return what :meth:`keys` name, in their order."""
        return (getattr(self, name) for name in _SCIPY)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Return pairs of a name and what it names."""
        return zip(self.keys(), self.values(), strict=True)

    def get(self, name: str, default: Any = None) -> Any:
        """Return ``result[name]``, or ``default`` if there is no such name."""
        return getattr(self, name) if name in self else default

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __len__(self) -> int:
        return len(_SCIPY)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in _SCIPY

    def __getitem__(self, name: str) -> Any:
        if name not in _SCIPY:
            raise KeyError(name)
        return getattr(self, name)

    def __str__(self) -> str:
        error = f" +- {self.value_stderr:.3g}" if self.value_stderr > 0.0 else ""
        rows = {
            "value": f"{self.value:.10g}{error}",
            "x": np.array2string(self.x, precision=6, threshold=8, max_line_width=80).replace("\n", "\n" + " " * 14),
            "violation": "" if self.feasible else f"{self.violation:.3g} (no feasible point found)",
            "reason": self.message,
            "evaluations": f"{self.evaluations}" + (f" (and {self.gradients} gradients)" if self.gradients else ""),
            "generations": f"{self.generations}",
            "steps": f"{self.steps}" if self.steps else "",
            "seconds": f"{self.seconds:.3g}",
            "failures": ", ".join(f"{kind}: {count}" for kind, count in self.failures.items()),
            "strategy": self.strategy,
            "evaluator": self.evaluator,
        }
        return "\n".join(f"{name:>12}: {text}" for name, text in rows.items() if text)
