"""What the evaluators share: calling Python functions row by row, and saying clearly what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from ..noise import Array
from ..objective import ALONG_PROBES, CONSTRAINTS, DERIVATIVES, PARTS, Objective
from ..records import Evals, Population
from ._policy import LINES, POPULATION, Failure, Policy, call_again, name_candidate
from ._results import _BadResult, derivatives, expected, number

Seeds = NDArray[np.int64] | None

SHAPE = "shape"
"""Kind of failure of a candidate for which f returned something else than a number."""

GO_ON = 'Pass on_error="nan" to count such candidates as failed and go on.'

_VALUES = frozenset({"values"})
_CHUNK_ROWS = 64
_CHUNK_NUMBERS = 1 << 20


def as_objective(objective: Objective | Callable[..., Any]) -> Objective:
    """Return ``objective``, a plain function wrapped."""
    return objective if isinstance(objective, Objective) else Objective(objective)


def check_count(name: str, count: object) -> None:
    """Refuse a count that is neither None nor a positive integer."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1):
        raise ValueError(f"{name} must be a positive integer or None, got {count!r}. Pass for example {name}=2.")


def wanted_derivatives(population: Population, objective: Objective, evaluator: object) -> tuple[str, ...]:
    """Return the needs besides values, in the order of their computation; an error where there is no function for one.

    "constraints" becomes those of "constraints" and "equalities" that the objective has.

    Raises
    ------
    ValueError  for needs that are not known or have no function, and for missing probes.
    """
    if population.needs == _VALUES:
        return ()
    name = type(evaluator).__name__
    unknown = population.needs - {"values", "constraints", *DERIVATIVES}
    if unknown:
        raise ValueError(
            f"the population needs {', '.join(sorted(unknown))}, but {name} computes values, {', '.join(DERIVATIVES)}. "
            "Use an estimator that needs nothing else."
        )
    wanted = tuple(need for need in DERIVATIVES if need in population.needs)
    for need in wanted:
        part, words, _ = DERIVATIVES[need]
        if getattr(objective, part) is None:
            raise ValueError(
                f"the population needs {words}, but the objective of {name} has none. "
                f"Pass {part}=..., or use an estimator that needs values only, such as Score() or "
                "Auto((Score(), Score(Linear())))."
            )
        if need in ALONG_PROBES:
            _check_probes(population, words)
    if "constraints" in population.needs:
        there = tuple(need for need, kind in CONSTRAINTS.items() if getattr(objective, kind.part) is not None)
        if not there:
            raise ValueError(
                f"the population needs constraints, but the objective of {name} has none. "
                "Pass constraints=..., equalities=... or both, or use the strategy without AugmentedLagrangian()."
            )
        wanted = (*there, *wanted)
    return wanted


def _check_probes(population: Population, words: str) -> None:
    probes = population.probes
    if probes is None or (probes.n, probes.dim) != (population.n, population.dim):
        got = "no probes" if probes is None else f"probes of shape {(probes.n, probes.dim)}"
        raise ValueError(
            f"the population needs {words}, but has {got}. "
            f"Pass probes=, noise of shape {(population.n, population.dim)}, one direction for each noise row."
        )


@dataclass
class _Table:
    """What was found so far about ``len(values)`` rows; ``found`` holds derivatives by need, nan until written.

    ``failures`` counts what failed, ``notes`` names the first few of each kind.
    """

    values: Array
    wanted: tuple[str, ...] = ()
    found: dict[str, Array] = field(default_factory=dict)
    steps: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    notes: list[Failure] = field(default_factory=list)

    @classmethod
    def empty(cls, count: int, n: int, dim: int, wanted: tuple[str, ...]) -> _Table:
        """Return a table of ``count`` rows, ``n`` of them noise rows, that count as failed until they are written."""
        shapes = {"grads": (count, dim), "hvps": (n, dim), "jvps": (n,)}
        found = {need: np.full(shapes[need], np.nan) for need in wanted if need in shapes}
        return cls(np.full(count, np.nan), wanted, found)

    def count(self, kind: str, times: int = 1) -> None:
        """Count ``times`` failures of ``kind``."""
        if times:
            self.failures[kind] = self.failures.get(kind, 0) + times

    def fail(self, kind: str, row: int, what: str, part: str = "f", count: int = 1) -> None:
        """Count ``count`` failures of ``kind``, and note who failed and why, unless that is known of many others."""
        self.count(kind, count)
        if sum(note.kind == kind for note in self.notes) < LINES:
            self.notes.append(Failure(kind, row, what, part, count))

    def keep(self, need: str, start: int, rows: Array, known: NDArray[np.bool_]) -> None:
        """Keep the derivatives ``rows``, (m, ...), of rows ``start`` on where they are finite, and count the others.

        ``known``, (m,): whose values are known; others get nothing.
        """
        usable = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
        self.count(PARTS[need].failure, int((known & ~usable).sum()))
        usable &= known
        self._column(need, rows.shape[1:])[start : start + len(rows)][usable] = rows[usable]

    def keep_one(self, need: str, at: int, row: Array, candidate: int) -> None:
        """Keep the derivative of one row if it is finite, or count that of the ``candidate`` as failed."""
        column = self._column(need, row.shape)
        if np.isfinite(row).all():
            column[at] = row
        else:
            self.fail(PARTS[need].failure, candidate, "not finite", PARTS[need].part)

    def head(self, count: int) -> _Table:
        """Return the first ``count`` rows with all the counts, of a table whose other rows are not known."""
        found = {need: rows[:count] for need, rows in self.found.items()}
        return _Table(self.values[:count], self.wanted, found, self.steps, self.failures, self.notes)

    def put(self, start: int, other: _Table) -> None:
        """Copy the rows of ``other`` to ``start`` on, and add its counts."""
        self.values[start : start + len(other.values)] = other.values
        for need, rows in other.found.items():
            try:
                self._column(need, rows.shape[1:])[start : start + len(rows)] = rows
            except _BadResult as error:
                part = PARTS[need].part
                raise TypeError(f"{part} returned {error}. Return the same shape for every candidate.") from None
        self.steps += other.steps
        for kind, times in other.failures.items():
            self.count(kind, times)

    def _column(self, need: str, shape: tuple[int, ...]) -> Array:
        """Return the column of ``need``; those of unknown width are made once the ``shape`` of one is known."""
        column = self.found.get(need)
        if column is None:
            column = self.found[need] = np.full((len(self.values), *shape), np.nan)
        if column.shape[1:] != shape:
            kinds = (
                "matrices for some candidates and diagonals" if need == "hessians" else f"{shape[0]} numbers for some"
            )
            raise _BadResult(f"{kinds} for others" if need == "hessians" else f"{kinds}, {column.shape[1]} for others")
        return column

    def evals(self, dim: int) -> Evals:
        """Return the finished record. Hessians that nobody saw are nan, and diagonals, for want of a shape.

        Constraints that nobody saw are one column of nan.
        """
        if self.found or self.wanted:
            if "hessians" in self.wanted and "hessians" not in self.found:
                self.found["hessians"] = np.full((len(self.values), dim), np.nan)
            for need in CONSTRAINTS:
                if need in self.wanted and need not in self.found:
                    self.found[need] = np.full((len(self.values), 1), np.nan)
            return Evals(self.values, steps=self.steps, failures=self.failures, **self.found)
        return Evals(self.values, steps=self.steps, failures=self.failures)


class _Fault(NamedTuple):
    """Why the evaluation stops at ``row``: ``error`` was raised by the function ``part``, or says what it returned."""

    row: int
    error: Exception
    part: str
    raised: bool


def chunks(population: Population, start: int, stop: int) -> Iterator[tuple[int, Array]]:
    """Yield (first row, rows) of about 8 MiB, in whole mirrored pairs."""
    height = max(2, min(_CHUNK_ROWS, _CHUNK_NUMBERS // max(1, population.dim)) // 2 * 2)
    for first in range(start, stop, height):
        yield first, population.rows(first, min(first + height, stop))


def probe_rows(population: Population, start: int, stop: int) -> Array | None:
    """Return the probes of the noise rows among start ... stop, (m, d) float64; None if there are no probes."""
    if population.probes is None:
        return None
    stop = min(stop, population.n)
    return np.array(population.probes.rows(min(start, stop), stop), np.float64)


def call_rows(
    objective: Objective,
    rows: Array,
    first: int,
    seeds: Seeds,
    probes: Array | None,
    policy: Policy,
    table: _Table,
    at: int,
) -> _Fault | None:
    """Evaluate ``rows`` (m, d), candidates ``first`` on, into ``table`` from ``at`` on; stop at the first fault.

    ``seeds`` (m,) or None; ``probes`` (up to m, d) or None. A row whose value is nan gets no derivatives; a derivative
    that is not finite is nan and counts as a failure of its kind, and the value stays.
    """
    wanted = table.wanted
    for i, row in enumerate(rows):
        seed = 0 if seeds is None else int(seeds[i])
        fault = call_one(objective, row, first + i, seed, policy, table, at + i)
        if fault is not None:
            return fault
        value = table.values[at + i]
        if wanted and value == value:
            probe = probes[i] if probes is not None and i < len(probes) else None
            fault = derive(objective, row, first + i, seed, probe, policy, table, at + i, wanted)
            if fault is not None:
                return fault
    return None


def call_one(
    objective: Objective, row: Array, candidate: int, seed: int, policy: Policy, table: _Table, at: int
) -> _Fault | None:
    """Write the value of one row to ``table`` at ``at``; nan if f failed as often as the policy lets it try.

    It fails where it raises, and where it returns no number.
    """
    left = policy.retries
    while True:
        try:
            value, steps = number(objective.f(*objective.arguments(row.copy(), seed)))
        except Exception as error:
            raised = not isinstance(error, _BadResult)
            if policy.raises:
                return _Fault(candidate, error, "f", raised=raised)
            what = name_error(error) if raised else f"f returned {error}".replace("\n", " ")
            if left:
                left -= 1
                table.fail("retried", candidate, what)
                continue
            table.fail("exception" if raised else SHAPE, candidate, what)
            return None
        table.values[at] = value
        table.steps += steps
        if value != value:
            table.fail("nan", candidate, "f returned nan")
        return None


def name_error(error: BaseException) -> str:
    """Return the type and the words of an exception in one line, for the log."""
    return f"{type(error).__name__}: {words(error)}".replace("\n", " ")[:500]


def words(error: BaseException) -> str:
    """Return what an exception says; its own class may raise then."""
    try:
        return str(error)
    except Exception as another:
        return f"(no text: its __str__ raised {type(another).__name__})"


def derive(
    objective: Objective,
    row: Array,
    candidate: int,
    seed: int,
    probe: Array | None,
    policy: Policy,
    table: _Table,
    at: int,
    wanted: tuple[str, ...],
) -> _Fault | None:
    """Compute the derivatives ``wanted`` of one ``row`` into ``table`` at ``at``; those along a probe if it has one.

    An exception ends the row: it gets no further derivatives.
    """
    shape = row.shape if objective.shape is None else objective.shape
    for need in wanted:
        part = PARTS[need].part
        if need in ALONG_PROBES and probe is None:
            continue
        for left in range(policy.retries, -1, -1):
            x, *rest = objective.arguments(row.copy(), seed)
            if need in ALONG_PROBES and probe is not None:
                rest.insert(0, probe.copy().reshape(shape))
            try:
                result = getattr(objective, part)(x, *rest)
            except Exception as error:
                if policy.raises:
                    return _Fault(candidate, error, part, raised=True)
                table.fail("retried" if left else "exception", candidate, name_error(error), part)
            else:
                break
        else:
            break
        try:
            table.keep_one(need, at, derivatives(need, result, shape), candidate)
        except _BadResult as error:
            return _Fault(candidate, error, part, raised=False)
    return None


def stop_at(fault: _Fault, objective: Objective, population: Population) -> Exception:
    """Return the error that ends an evaluation; raise it ``from fault.error`` if the user's function raised."""
    row, part = fault.row, fault.part
    who = name_candidate(row, objective, population)
    if not fault.raised and isinstance(fault.error, _BadResult):
        shape = (population.dim,) if objective.shape is None else objective.shape
        advice = "Return a float." if part in ("f", "jvp") else "Return one number for each element of x."
        advice = "Return a float array." if part in ("hess", "constraints", "equalities") else advice
        return TypeError(f"{part} returned {fault.error} for {who}. Expected {expected(part, shape)}. {advice}")
    what = f"raised {type(fault.error).__name__}: {words(fault.error)}" if fault.raised else str(fault.error)
    error = EvaluationError(
        f"{who} {what}{'' if part == 'f' else f' (in {part})'}.\n"
        f"Reproduce it with: {call_again(row, part, objective, population)}, where {POPULATION}. {GO_ON}"
    )
    error.x = population[row] if objective.shape is None else population[row].reshape(objective.shape)
    error.seed = int(population.seeds[row]) if objective.seeded else None
    return error
