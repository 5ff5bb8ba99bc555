"""What a run has used and found so far: the bookkeeping of an optimizer, and what a checkpoint holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ._describe import describe, differences
from ._open import NO_PAST, NOTHING, Gathering, Open, Past
from .errors import CheckpointError
from .noise import Array
from .objective import Objective
from .protocols import State
from .records import Evals, Info, Lap, Population


@dataclass(frozen=True, eq=False)
class Progress:
    """What a run has used and found so far.

    ``value`` is the last generation's estimate of J with its standard error, ``failures`` a JSON object of counts.
    Under constraints ``best_value`` is inf while no candidate was feasible; ``best_x`` is then the least infeasible.
    """

    generation: int
    evaluations: int
    gradients: int
    steps: int
    seconds: float
    best_x: Array
    best_value: float
    value: float
    value_stderr: float
    failures: str


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that a checkpoint holds; ``objective`` is its description in JSON, empty where it is not known.

    ``open`` is what was told of the present generation, ``past`` the generations that were closed too early for some.
    """

    strategy: State
    evaluator: State
    progress: Progress
    objective: str
    open: Open = NOTHING
    past: Past = NO_PAST


def freeze(run: Run, gathering: Gathering, seconds: float) -> Run:
    """Return ``run`` with what was gathered of its open generation, after so many ``seconds``, for a checkpoint."""
    return replace(run, open=gathering.frozen(), progress=replace(run.progress, seconds=seconds))


@dataclass(frozen=True, eq=False)
class Flight:
    """What an asynchronous run has between ask and tell.

    Parameters
    ----------
    log : (m, 3)  generation, row, and the generation in which it was told (-1 if in none) of what was counted so far.
    issued : rows of the present generation that were handed out.
    flying : (w, 2)  generation and row of the candidates that are being evaluated.
    landed : (l, 2)  those that arrived and were not told, in the order of arrival.
    values, steps, failures : (l,), (l,) and a JSON list of counts: what was found about them.
    generations, seeds, numbers, sizes : (k,)  recipes of the generations they are of: seed and generation of the noise
        and the number of its rows.
    means, scales : (k, d) and (k, ...)  and where it was drawn.
    points, values_told : (b, d) and (b,)  what was told last, before the map.
    """

    log: NDArray[np.int64]
    issued: int
    flying: NDArray[np.int64]
    landed: NDArray[np.int64]
    values: Array
    steps: NDArray[np.int64]
    failures: str
    generations: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    means: Array
    scales: Array
    points: Array
    values_told: Array


@dataclass(frozen=True, eq=False)
class AsyncRun:
    """What a checkpoint of an asynchronous run holds."""

    run: Run
    flight: Flight


def pack(run: Run, flight: Flight | None) -> tuple[Run | AsyncRun, str]:
    """Return the tree of a checkpoint, and what it is in words."""
    return (run, "run") if flight is None else (AsyncRun(run, flight), "asynchronous run")


def unpack(tree: Run | AsyncRun) -> tuple[Run, Flight | None]:
    """Return what :func:`pack` got."""
    return (tree.run, tree.flight) if isinstance(tree, AsyncRun) else (tree, None)


def start(x0: Array) -> Progress:
    """Return the progress before the first generation."""
    return Progress(0, 0, 0, 0, 0.0, x0.copy(), np.inf, np.nan, np.nan, "{}")


def advance(progress: Progress, population: Population, evals: Evals, info: Info, seconds: float) -> Progress:
    """Return the progress after a generation in which a strategy learned ``info`` from ``evals``."""
    values = evals.values
    least = int(values.argmin())  # the first nan, if there is one
    lowest = best_value = float(values[least])
    if not math.isfinite(best_value):
        # Where values are ranked -inf is the best there is; where infinite values count as failures it is none.
        usable = np.where(np.isfinite(values) if "infinite" in info.failures else ~np.isnan(values), values, np.inf)
        least = int(usable.argmin())
        best_value = float(usable[least])
    better = best_value < progress.best_value
    if info.best is not None:
        least, better = info.best, info.best >= 0
        best_value = float(values[least]) if info.scalars.get("violation", 0.0) == 0.0 else math.inf
    value, value_stderr = centre(values, info, lowest)
    failures, count = progress.failures, len(population)
    if info.failures:
        failures = json.dumps(add_counts(json.loads(failures), info.failures))
        count -= info.failures.get("late", 0)
    return Progress(
        progress.generation + 1,
        progress.evaluations + count,
        progress.gradients + (0 if evals.grads is None else count),
        progress.steps + evals.steps,
        seconds,
        population[least] if better else progress.best_x,
        best_value if better else progress.best_value,
        value,
        value_stderr,
        failures,
    )


def count(progress: Progress, population: Population, evals: Evals, seconds: float) -> Progress:
    """Return the progress after evaluations that nothing was learned from."""
    info = Info(progress.generation, failures=evals.failures)
    value, value_stderr = progress.value, progress.value_stderr
    after = advance(progress, population, evals, info, seconds)
    return replace(after, generation=progress.generation, value=value, value_stderr=value_stderr)


def advance_lap(progress: Progress, lap: Lap, seconds: float) -> Progress:
    """Return the progress after a lap: that of :func:`advance` after each of its generations."""
    better = lap.value < progress.best_value
    value, value_stderr = centre(lap.values, Info(progress.generation), float(lap.values.min()))
    failures = progress.failures
    if lap.nans:
        failures = json.dumps(add_counts(json.loads(failures), {"nan": lap.nans}))
    return Progress(
        progress.generation + lap.generations,
        progress.evaluations + lap.evaluations,
        progress.gradients,
        progress.steps + lap.steps,
        seconds,
        lap.x if better else progress.best_x,
        lap.value if better else progress.best_value,
        value,
        value_stderr,
        failures,
    )


def centre(values: Array, info: Info, lowest: float) -> tuple[float, float]:
    """Return the estimate of J and its standard error; without a gradient, the mean of the finite values, and nan.

    ``lowest`` of the values is nan if one of them is.
    """
    if info.gradient is not None:
        return float(info.gradient.value), float(info.gradient.value_stderr)
    finite, total = values, float(values.sum()) if math.isfinite(lowest) else math.nan  # inf - inf warns
    if not math.isfinite(total):
        finite = finite[np.isfinite(finite)]
        total = float(finite.sum())
    return total / finite.size if finite.size else np.nan, np.nan


def failures_of(progress: Progress) -> dict[str, int]:
    """Return the failed evaluations so far, by kind."""
    counts: dict[str, int] = json.loads(progress.failures)
    return counts


def add_counts(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of two counts by kind."""
    return {kind: counts.get(kind, 0) + more.get(kind, 0) for kind in sorted({*counts, *more})}


def describe_objective(objective: Objective) -> str:
    """Return the description of an objective that a checkpoint holds, in JSON."""
    about = describe(objective)
    del about["shape"]  # that of x0 is compared already
    for part in ("hess", "hvp", "jvp", "constraints", "equalities"):
        if about[part] is None:
            del about[part]  # files of earlier versions do not have them
    return json.dumps({"class": "Run", "objective": about}, allow_nan=False)


def compare_objectives(there: str, here: str, name: str) -> None:
    """Raise CheckpointError unless two descriptions agree; ``name`` is that of the file."""
    lines = "\n  ".join(differences(json.loads(there), json.loads(here)))
    if lines:
        raise CheckpointError(
            f"{name} was written by a different configuration:\n  {lines}\n"
            "Build it with the saved settings, or start a new run with another file."
        )
