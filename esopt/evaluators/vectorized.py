"""One call for many candidates: f takes a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..noise import Array
from ..objective import ALONG_PROBES, PARTS, Objective
from ..protocols import State
from ..records import Evals, Population
from ._policy import POPULATION, check_failed, check_limits, log_failures, read_policy
from ._results import _BadResult, derivatives, expected, numbers
from ._rows import (
    GO_ON,
    Seeds,
    _Table,
    as_objective,
    check_count,
    name_error,
    probe_rows,
    wanted_derivatives,
    words,
)


@dataclass(frozen=True)
class Vectorized:
    """Call f(rows) with a fresh float64 array (m, d), or (m, *shape); f returns the m values.

    Parameters
    ----------
    objective : a function of rows, or an :class:`esopt.Objective`; ``seeded``: f(rows, seeds) with seeds (m,) int64. It
        returns (m,) numbers or an :class:`esopt.Outcome` of them and their steps; grad returns the shape of the rows,
        hess (m, d, d) or (m, d), constraints and equalities (m, their number) or (m,). hvp(rows, vs) and jvp(rows, vs)
        take a direction for each row, and return the shape of the rows and (m,). nan marks a failed evaluation.
    chunk : rows per call; None for all in one call.
    on_error : "raise" stops with an :class:`esopt.EvaluationError` when f raises; "nan" makes the values of that call
        nan and counts as many of "exception"; "retry(k)" makes the call again first, up to k times.
    max_failures, timeout : as in :class:`esopt.Serial`.

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
    on_error: str = "raise"
    max_failures: float | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))
        check_count("chunk", self.chunk)
        read_policy(self.on_error)
        check_limits(self.max_failures, self.timeout, "Vectorized")

    def init(self) -> State:
        """Return the empty state."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and the derivatives that are needed."""
        objective = as_objective(self.objective)
        wanted = wanted_derivatives(population, objective, self)
        table = _Table.empty(len(population), population.n, population.dim, wanted)
        seeds = population.seeds if objective.seeded else None
        total = len(population)
        for start in range(0, total, self.chunk or max(total, 1)):
            stop = min(start + (self.chunk or total), total)
            self._call(objective, population, start, stop, None if seeds is None else seeds[start:stop], table)
        log_failures(table.notes, table.failures, objective, population)
        check_failed(table.values, table.failures, self.max_failures, population)
        return table.evals(population.dim), state

    def close(self) -> None:
        """Do nothing; there is nothing to give back."""

    def _call(
        self, objective: Objective, population: Population, start: int, stop: int, seeds: Seeds, table: _Table
    ) -> None:
        """Evaluate one batch; an exception in f or a derivative belongs to all of its rows."""
        count, values = stop - start, table.values[start:stop]
        policy = read_policy(self.on_error)
        for part in ("f", *(PARTS[need].part for need in table.wanted)):
            along = next((need for need in ALONG_PROBES if PARTS[need].part == part), None)
            probes = probe_rows(population, start, stop) if along else None
            count = stop - start if probes is None else len(probes)
            for left in range(policy.retries, -1, -1) if count else ():
                rows, own = population.rows(start, start + count), None if seeds is None else seeds[:count]
                try:
                    result = getattr(objective, part)(*_arguments(objective, rows, own, probes))
                except Exception as error:
                    if policy.raises:
                        raise self._fault(error, part, objective, population, start, count) from error
                    table.fail("retried" if left else "exception", start, name_error(error), part, count)
                    if not left:
                        return
                else:
                    self._keep(result, part, objective, population, start, count, values, table)
                    break

    def _keep(
        self,
        result: object,
        part: str,
        objective: Objective,
        population: Population,
        start: int,
        count: int,
        values: Array,
        table: _Table,
    ) -> None:
        """Write what the function ``part`` returned for ``count`` rows to the table, or raise TypeError."""
        shape = (population.dim,) if objective.shape is None else objective.shape
        try:
            if part == "f":
                values[:], steps = numbers(result, count)
                table.steps += steps
                table.count("nan", int(np.isnan(values).sum()))
            else:
                need = next(need for need, kind in PARTS.items() if kind.part == part)
                table.keep(need, start, derivatives(need, result, shape, count), ~np.isnan(values[:count]))
        except _BadResult as error:
            which, wanted = _which(population, start, start + count), expected(part, shape, count)
            raise TypeError(f"{part} returned {error} for {which}. Expected {wanted}. Return a float array.") from None

    def _fault(
        self, error: Exception, part: str, objective: Objective, population: Population, start: int, count: int
    ) -> EvaluationError:
        """Return the error that ends an evaluation."""
        which, cut = _which(population, start, start + count), f"rows({start}, {start + count})"
        v = f", population.probes.{cut}.astype(float)" if part in ("hvp", "jvp") else ""
        seeding = f", population.seeds[{start}:{start + count}]" if objective.seeded else ""
        return EvaluationError(
            f"{part} raised {type(error).__name__} for {which}: {words(error)}.\n"
            f"Reproduce it with: {part}(population.{cut}{v}{seeding}), where {POPULATION}. {GO_ON}"
        )


def _which(population: Population, start: int, stop: int) -> str:
    return f"candidates {start} to {stop - 1} of generation {population.noise.key.generation}"


def _arguments(objective: Objective, rows: Array, seeds: Seeds, probes: Array | None = None) -> tuple[Any, ...]:
    shape = (rows.shape[1],) if objective.shape is None else objective.shape
    along = () if probes is None else (probes.reshape(-1, *shape),)
    return (rows.reshape(-1, *shape), *along, *(() if seeds is None else (seeds.copy(),)), *objective.args)
