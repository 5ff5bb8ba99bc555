"""The end of a run: the evaluation of the final mean, and the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ._constrained import settle
from ._progress import add_counts
from ._signals import name_of
from .noise import EVAL, Key, Philox
from .optimizer import Optimizer
from .protocols import Evaluator
from .records import Evals, Population
from .result import Result
from .samplers.gaussian import Gaussian

_FINAL = 2**32 - 1
"""Generation that addresses the seeds of the final evaluation; no run gets there."""


def finish(
    es: Optimizer, evaluator: Evaluator, reasons: dict[str, float], lost: Evals | None, final: int, *, stochastic: bool
) -> Result:
    """Evaluate the final mean, unless the user is waiting, and return the result.

    ``lost`` is what a strategy could not use, ``final`` how often the mean is to be evaluated. A run that ended for
    its steps or seconds spends no more on that than on a generation. An exception there costs nothing but the
    evaluation: the result is that of an interrupted run, and the exception is counted.
    """
    result = _so_far(es, evaluator, reasons)
    if lost is not None:
        result = _count(result, len(es.population()), lost, es.seconds)
    if {"interrupted", "terminated", "diverged"} & reasons.keys() or final == 0:
        return result
    if "steps" in reasons or "seconds" in reasons:
        final = min(final, len(es.population()))
    noise = Philox(Gaussian(), Key(es.population().noise.key.seed, _FINAL, EVAL), final, es.state.mean.size)
    try:
        needs = es.population().needs & {"constraints"} | {"values"}
        own = es.evaluator_state if es.generation else evaluator.init()
        evals, _ = evaluator.evaluate(Population(es.state.mean, 0.0, noise, needs=needs, share="none"), own)
    except KeyboardInterrupt as interrupt:
        return replace(result, reason={**reasons, name_of(interrupt): float(es.generation)})
    except Exception:
        return replace(result, failures=add_counts(result.failures, {"exception": 1}), seconds=es.seconds)
    # -inf is the best there is, but a failure where values are averaged, or the strategy counts it as one.
    averaged = stochastic or "infinite" in result.failures
    result = _count(result, final, evals, es.seconds, averaged)
    finite = evals.values[np.isfinite(evals.values) if averaged else ~np.isnan(evals.values)]
    if stochastic:
        value = float(finite.mean()) if finite.size else np.nan
        error = float(finite.std(ddof=1) / np.sqrt(finite.size)) if finite.size > 1 else np.nan
        return replace(result, value=value, value_stderr=error)
    return settle(result, es.strategy, evals, float(finite[0]) if finite.size else np.nan)


def failed(es: Optimizer, evaluator: Evaluator) -> Result:
    """Return the result of a run that an exception ended."""
    return _so_far(es, evaluator, {"exception": float(es.generation)})


def _so_far(es: Optimizer, evaluator: Evaluator, reasons: dict[str, float]) -> Result:
    """Return the result of what was told."""
    return replace(es.result, reason=reasons, evaluator=type(evaluator).__name__, evaluator_state=es.evaluator_state)


def _count(result: Result, rows: int, evals: Evals, seconds: float, infinite_fails: bool = True) -> Result:
    """Return the result with the cost of ``rows`` evaluations that nothing was learned from, and their failures."""
    infinite = int(np.isinf(evals.values).sum()) if infinite_fails else 0
    failures = {**evals.failures, "infinite": infinite} if infinite else evals.failures
    return replace(
        result,
        evaluations=result.evaluations + rows,
        gradients=result.gradients + (0 if evals.grads is None else rows),
        steps=result.steps + evals.steps,
        seconds=seconds,
        failures=add_counts(result.failures, failures),
    )
