"""The outcome of a run so far, for people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ._constrained import mark
from ._progress import Run, failures_of
from .protocols import Strategy
from .result import Point, Result
from .strategies.augmented_lagrangian import AugmentedLagrangian
from .strategies.bounded import Bounded
from .strategies.margin import Margin


def _name(strategy: Strategy) -> str:
    """Return the strategy's class; within bounds, constraints or on integers, in brackets that of the one inside."""
    name = type(strategy).__name__
    return f"{name}({_name(strategy.inner)})" if isinstance(strategy, (Bounded, AugmentedLagrangian, Margin)) else name


def summarise(run: Run, strategy: Strategy, shape: tuple[int, ...], reason: dict[str, float], *, noisy: bool) -> Result:
    """Return the result of a ``run`` that stopped, or not yet, for ``reason``; ``shape`` is that of x.

    It is the best point, or for a ``noisy`` objective the mean, with the last estimate of J.
    """
    progress = run.progress
    best = Point(progress.best_x.reshape(shape).copy(), progress.best_value)
    mean = np.array(run.strategy.mean).reshape(shape)
    result = Result(
        x=mean.copy() if noisy else best.x.copy(),
        value=progress.value if noisy else best.value,
        value_stderr=progress.value_stderr if noisy else 0.0,
        mean=mean,
        best=best,
        reason=reason,
        evaluations=progress.evaluations,
        gradients=progress.gradients,
        generations=progress.generation,
        steps=progress.steps,
        seconds=progress.seconds,
        failures=failures_of(progress),
        evaluator="ask/tell",
        strategy=_name(strategy),
    )
    marked = mark(result, run.strategy)
    if noisy and marked is not result:  # nothing is known of the mean's constraints
        return replace(marked, value=result.value, violation=np.nan)
    return marked
