"""One generation from an evaluator that returns it in parts, so that a checkpoint in between holds what is finished."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from .optimizer import Optimizer
from .protocols import Evaluator, State
from .records import Evals


def evaluate(
    es: Optimizer, evaluator: Evaluator, state: State, after: Callable[[], object] | None
) -> tuple[Evals, State]:
    """Return what ``evaluator`` finds about the candidates that are pending, with what was told of the others.

    Parameters
    ----------
    after : called after every part, for evaluators that have a ``stream``; None to evaluate all at once.
    """
    stream: Any = getattr(evaluator, "stream", None)
    if stream is None or after is None:
        return evaluator.evaluate(es.population(), state)
    population, pending = es.population(), es.pending
    if pending.size:
        with closing(stream(population, state, None if pending.size == len(population) else pending)) as parts:
            for part in parts:
                es.collect(part)
                after()
    return es.collected(), state


def forget(es: Optimizer) -> None:
    """Forget the values of a generation from which nothing could be learned, to evaluate it again on resuming."""
    es._open = None


def known(es: Optimizer) -> tuple[object, int]:
    """Return what tells two moments of a run apart if anything was told or learned between them."""
    return es._run, 0 if es._open is None else len(es._open.parts)
