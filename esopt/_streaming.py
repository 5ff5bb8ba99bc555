"""One generation from an evaluator that returns it in parts, so that a checkpoint in between holds what is finished."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EvaluationError
from .evaluators._policy import check_failed
from .evaluators._rows import SHAPE
from .objective import ALONG_PROBES, PARTS
from .optimizer import Optimizer
from .protocols import Evaluator, State
from .records import Evals, Part

_FAILED = ("exception", "nan", "timeout", "died", SHAPE)
"""Kinds of failures that are those of a value."""


def evaluate(
    es: Optimizer, evaluator: Evaluator, state: State, after: Callable[[], object] | None
) -> tuple[Evals, State]:
    """Return what ``evaluator`` finds about the candidates that are pending, with what was told of the others.

    Parameters
    ----------
    after : called after every part, for evaluators that have a ``stream``; None to evaluate all at once.

    Raises
    ------
    EvaluationError  what the evaluator says; a checkpoint then holds what was finished, and nothing that failed.
    """
    stream: Any = getattr(evaluator, "stream", None)
    if stream is None or after is None:
        return evaluator.evaluate(es.population(), state)
    population, pending = es.population(), es.pending
    try:
        if pending.size:
            with closing(stream(population, state, None if pending.size == len(population) else pending)) as parts:
                for part in parts:
                    es.collect(part)
                    after()
        evals = es.collected()
        if pending.size < len(population):  # the evaluator has counted the failures of its own rows only
            check_failed(evals.values, evals.failures, getattr(evaluator, "max_failures", None), population)
    except EvaluationError:
        _forget_failed(es)
        raise
    return evals, state


def check_first(es: Optimizer, evals: Evals) -> None:
    """Raise TypeError if f returned no number for any candidate of the first generation: no failure, but a mistake."""
    size = evals.values.size
    if es.generation == 0 and evals.failures.get(SHAPE, 0) == size > 0:
        raise TypeError(
            f"f returned no number for any of the {size} candidates of the first generation. Expected a number (lower "
            "is better, nan for a failed evaluation) or an esopt.Outcome of two numbers. Leave out on_error, and the "
            "error will say what it returned."
        )


def _forget_failed(es: Optimizer) -> None:
    """Forget the candidates of the open generation that failed, to evaluate them again on resuming."""
    gathering, es._open = es._open, None
    for rows, evals in () if gathering is None else gathering.parts:
        good = ~np.isnan(evals.values)
        if good.all():
            es.collect(Part(rows, evals))
        elif good.any():
            es.collect(_chosen(rows, evals, good, es.population().n))


def _chosen(rows: NDArray[np.int64], evals: Evals, good: NDArray[np.bool_], n: int) -> Part:
    """Return the ``good`` rows of a part, of a population of ``n`` noise rows."""
    noise = good[rows < n]
    tables = {name: getattr(evals, name) for name in PARTS}
    known: dict[str, Any] = {
        name: table[noise if name in ALONG_PROBES else good] for name, table in tables.items() if table is not None
    }
    failures = {kind: count for kind, count in evals.failures.items() if kind not in _FAILED}
    return Part(rows[good], replace(evals, values=evals.values[good], failures=failures, **known))


def forget(es: Optimizer) -> None:
    """Forget the values of a generation from which nothing could be learned, to evaluate it again on resuming."""
    es._open = None


def known(es: Optimizer) -> tuple[object, int]:
    """Return what tells two moments of a run apart if anything was told or learned between them."""
    return es._run, 0 if es._open is None else len(es._open.parts)
