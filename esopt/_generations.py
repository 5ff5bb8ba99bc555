"""Generations until there is a reason to stop: budgets, targets, callbacks, signals, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ._async import Flights
from ._laps import laps
from ._limits import Limits
from ._outcome import failed, finish
from ._saving import Saver, resume
from ._signals import Signals, name_of
from ._streaming import check_first, evaluate, forget
from .errors import EvaluationError
from .history import History, begin_history
from .optimizer import Optimizer
from .protocols import Evaluator, State
from .records import Evals, Info, Step
from .result import Result


def run(
    es: Optimizer,
    evaluator: Evaluator,
    flights: Flights | None,
    limits: Limits,
    history: bool | str | os.PathLike[str],
    final: int,
) -> Result:
    """Begin or resume, run generations, evaluate the final mean; leave no worker and no handler behind."""
    with Signals(active=limits.checkpoint is not None) as signals:
        try:
            state = resume(es, limits.checkpoint, evaluator.init())
            if flights is not None:
                flights.resume()
            kept = begin_history(history, es.generation)
            saver = Saver(es, limits, kept, signals, flights)
            reasons, lost = _generations(es, evaluator, flights, state, limits, kept, saver)
            result = finish(es, evaluator, reasons, lost, final, stochastic=limits.stochastic)
            return replace(saver.mark(result), history=kept, arrivals=None if flights is None else flights.log)
        except EvaluationError as error:
            result = failed(es, evaluator)
            error.result = replace(result, arrivals=None if flights is None else flights.log)
            raise
        finally:
            evaluator.close()


def _generations(
    es: Optimizer,
    evaluator: Evaluator,
    flights: Flights | None,
    state: State,
    limits: Limits,
    kept: History | None,
    saver: Saver,
) -> tuple[dict[str, float], Evals | None]:
    """Run generations until there is a reason to stop; return them, and what a strategy could not use at the end.

    However the run ends, what it has learned is saved; a file that was complete already is not written again.
    """
    try:
        try:
            if flights is not None:
                return _arrivals(es, flights, state, limits, kept, saver), None
            return _until_stop(es, evaluator, state, limits, kept, saver)
        finally:
            try:
                saver.save()
            finally:
                if flights is not None:
                    flights.empty()
    except KeyboardInterrupt as interrupt:
        return {**es.stop(), name_of(interrupt): float(es.generation)}, None


def _until_stop(
    es: Optimizer, evaluator: Evaluator, state: State, limits: Limits, kept: History | None, saver: Saver
) -> tuple[dict[str, float], Evals | None]:
    compiled = laps(es, evaluator, limits) if kept is None else None  # a history wants every generation
    while not (reasons := {**es.stop(), **limits.used_up(es.progress)}):
        saver.check()
        evals, info = None, None
        if compiled is None or not compiled.run():
            evals, state = evaluate(es, evaluator, state, None if limits.checkpoint is None else saver.save_if_due)
            check_first(es, evals)
            try:
                info = es.learn(evals, state)
            except EvaluationError:
                forget(es)
                if es.generation == 0:
                    raise
                return {"failed": float(es.generation)}, evals
        if kept is not None and evals and info:
            kept.record(es.progress, es.population(), evals.values, info)
        saver.save_if_due()
        if limits.callback is not None and evals and info:
            if _wants_stop(limits.callback, _step(es, evals, info, saver.news())):
                return {**es.stop(), "callback": float(es.generation)}, None
        del info  # two vectors that the next generation has no use for
    return reasons, None


def _arrivals(
    es: Optimizer, flights: Flights, state: State, limits: Limits, kept: History | None, saver: Saver
) -> dict[str, float]:
    """Run generations of whatever arrives until there is a reason to stop; return the reasons."""

    def after(evals: Evals | None, info: Info | None) -> dict[str, float]:
        saver.check()
        if kept is not None and evals and info:
            kept.record(es.progress, es.population(), evals.values, info)
        saver.save_if_due()
        if limits.callback is not None and evals and info:
            if _wants_stop(limits.callback, _step(es, evals, info, saver.news())):
                return {**es.stop(), "callback": float(es.generation)}
        return {**es.stop(), **limits.used_up(es.progress)}

    return flights.run(state, after)


def _wants_stop(callback: Callable[[Step], Any], step: Step) -> bool:
    try:
        callback(step)
    except StopIteration:
        return True
    return False


def _step(es: Optimizer, evals: Evals, info: Info, unsaved: dict[str, int]) -> Step:
    progress = es.progress
    finite = evals.values[np.isfinite(evals.values)]
    return Step(
        progress.generation,
        progress.evaluations,
        progress.steps,
        progress.seconds,
        es.mean,
        float(finite.mean()) if finite.size else np.nan,
        progress.best_value,
        evals.values,
        {**info.failures, **unsaved},
        info,
        es.evaluator_state,
    )
