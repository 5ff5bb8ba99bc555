"""One Python call per candidate, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..objective import Objective
from ..protocols import State
from ..records import Evals, Population
from ._policy import check_failed, check_limits, log_failures, read_policy
from ._rows import (
    _Table,
    as_objective,
    call_rows,
    chunks,
    probe_rows,
    stop_at,
    wanted_derivatives,
)


@dataclass(frozen=True)
class Serial:
    """Call f(x) for one candidate after the other; x is a fresh float64 array.

    Rows are made a few at a time, so the (n, d) matrix never exists when d is large.

    Parameters
    ----------
    objective : a function of x, or an :class:`esopt.Objective`. It returns a number or an :class:`esopt.Outcome`; nan
        marks a failed evaluation and is counted as "nan". +-inf is a value like any other.
    on_error : "raise" stops with an :class:`esopt.EvaluationError` when f raises, and a TypeError when it returns no
        number; "nan" makes the value nan and counts an "exception" or a "shape"; "retry(k)" evaluates the candidate
        again first, up to k times, with the same seed.
    max_failures : how many candidates of a generation may be nan before that is an :class:`esopt.EvaluationError`: a
        whole number, or a share between 0 and 1; None for any number.
    timeout : None; a call in this process cannot be ended. :class:`esopt.Joblib` has timeouts.

    Notes
    -----
    Where the population asks for derivatives, a row whose value is nan gets none, and one that is not finite becomes
    nan and is counted as "gradient", "hessian", "hvp" or "jvp"; its value stays. Explicit rows get no products with
    probes.

    Examples
    --------
    >>> import numpy as np
    >>> from esopt import Gaussian, Key, Population, Serial
    >>> population = Population(np.zeros(2), 1.0, Gaussian().noise(Key(seed=1), n=3, dim=2))
    >>> evals, state = Serial(lambda x: x.sum()).evaluate(population, ())
    >>> bool((evals.values == np.asarray(population).sum(axis=1)).all())
    True
    """

    objective: Objective | Callable[..., Any]
    on_error: str = "raise"
    max_failures: float | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))
        read_policy(self.on_error)
        check_limits(self.max_failures, self.timeout, "Serial")

    def init(self) -> State:
        """Return the empty state."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and the derivatives that are needed."""
        objective, policy = as_objective(self.objective), read_policy(self.on_error)
        wanted = wanted_derivatives(population, objective, self)
        table = _Table.empty(len(population), population.n, population.dim, wanted)
        seeds = population.seeds if objective.seeded else None
        for first, rows in chunks(population, 0, len(population)):
            own = None if seeds is None else seeds[first : first + len(rows)]
            probes = probe_rows(population, first, first + len(rows)) if wanted else None
            fault = call_rows(objective, rows, first, own, probes, policy, table, first)
            if fault is not None:
                raise stop_at(fault, objective, population) from (fault.error if fault.raised else None)
        log_failures(table.notes, table.failures, objective, population)
        check_failed(table.values, table.failures, self.max_failures, population)
        return table.evals(population.dim), state

    def close(self) -> None:
        """Do nothing; there is nothing to give back."""
