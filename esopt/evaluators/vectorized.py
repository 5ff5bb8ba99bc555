"""One call for many candidates: f takes a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..noise import Array
from ..objective import Objective, Outcome
from ..protocols import State
from ..records import Evals, Population
from ._rows import (
    GO_ON,
    POPULATION,
    OnError,
    Seeds,
    _BadResult,
    _Table,
    as_objective,
    check_count,
    check_policy,
    describe,
    gradient,
    steps_of,
    wants_grads,
)


@dataclass(frozen=True)
class Vectorized:
    """Call f(rows) with a fresh float64 array (m, d), or (m, *shape); f returns the m values.

    Parameters
    ----------
    objective : a function of rows, or an :class:`esopt.Objective`; ``seeded``: f(rows, seeds) with seeds (m,) int64. It
        returns (m,) numbers or an :class:`esopt.Outcome` of them and their steps; grad returns the shape of the rows.
        nan marks a failed evaluation.
    chunk : rows per call; None for all in one call.
    on_error : "raise" stops with an :class:`esopt.EvaluationError` when f raises; "nan" makes the values of that call
        nan and counts as many of "exception".

    Notes
    -----
    The chunk changes no bit if f treats every row by itself; a matrix product inside f may not.

    Examples
    --------
    >>> import numpy as np
    >>> from esopt import Gaussian, Key, Population, Vectorized
    >>> population = Population(np.zeros(2), 1.0, Gaussian().noise(Key(seed=1), n=3, dim=2))
    >>> evals, state = Vectorized(lambda rows: rows.sum(axis=1)).evaluate(population, ())
    >>> bool((evals.values == np.asarray(population).sum(axis=1)).all())
    True
    """

    objective: Objective | Callable[..., Any]
    chunk: int | None = None
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))
        check_count("chunk", self.chunk)
        check_policy(self.on_error)

    def init(self) -> State:
        """Return the empty state."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and, where they are needed, gradients (n + k, d)."""
        objective = as_objective(self.objective)
        table = _Table.empty(len(population), population.dim, wants_grads(population, objective, self))
        seeds = population.seeds if objective.seeded else None
        total = len(population)
        for start in range(0, total, self.chunk or max(total, 1)):
            stop = min(start + (self.chunk or total), total)
            self._call(objective, population, start, stop, None if seeds is None else seeds[start:stop], table)
        return table.evals(), state

    def close(self) -> None:
        """Do nothing; there is nothing to give back."""

    def _call(
        self, objective: Objective, population: Population, start: int, stop: int, seeds: Seeds, table: _Table
    ) -> None:
        part, count = "f", stop - start
        which = f"candidates {start} to {stop - 1} of generation {population.noise.key.generation}"
        wanted = f"({count},), one number for each row, or an esopt.Outcome of such values"
        arguments = _arguments(objective, population.rows(start, stop), seeds)
        try:
            values, steps = _numbers(objective.f(*arguments), count)
            table.values[start:stop] = values
            table.steps += steps
            table.count("nan", int(np.isnan(values).sum()))
            if table.grads is not None and objective.grad is not None:
                arguments = _arguments(objective, population.rows(start, stop), seeds)
                part, wanted = "grad", f"{arguments[0].shape}, the shape of the rows"
                grads = gradient(objective.grad(*arguments), arguments[0].shape).reshape(count, -1)
                usable, known = np.isfinite(grads).all(axis=1), ~np.isnan(values)
                table.grads[start:stop][usable & known] = grads[usable & known]
                table.count("gradient", int((known & ~usable).sum()))
        except _BadResult as error:
            message = f"{part} returned {error} for {which}. Expected shape {wanted}. Return a float array."
            raise TypeError(message) from None
        except Exception as error:
            if self.on_error == "raise":
                seeding = f", population.seeds[{start}:{stop}]" if objective.seeded else ""
                raise EvaluationError(
                    f"{part} raised {type(error).__name__} for {which}: {error}.\n"
                    f"Reproduce it with: {part}(population.rows({start}, {stop}){seeding}), where {POPULATION}. {GO_ON}"
                ) from error
            table.count("exception", count)


def _arguments(objective: Objective, rows: Array, seeds: Seeds) -> tuple[Any, ...]:
    shaped = rows if objective.shape is None else rows.reshape(len(rows), *objective.shape)
    return (shaped, *objective.args) if seeds is None else (shaped, seeds.copy(), *objective.args)


def _numbers(result: object, count: int) -> tuple[Array, int]:
    """Return the values (count,) and the sum of the steps."""
    if isinstance(result, Outcome):
        return _numbers(result.value, count)[0], steps_of(result.steps)
    try:
        array = np.asarray(result)
    except Exception as error:
        raise _BadResult(describe(result)) from error
    if array.shape != (count,) or array.dtype.kind not in "fiub":
        raise _BadResult(describe(result))
    return array.astype(np.float64), 0
