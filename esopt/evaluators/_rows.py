"""What the evaluators share: calling a Python function row by row, and saying clearly what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from ..noise import Array
from ..objective import Objective, Outcome
from ..records import Evals, Population

OnError = Literal["raise", "nan"]
Seeds = NDArray[np.int64] | None

POPULATION = "population = es.population() of that generation (or strategy.ask(state))"
GO_ON = 'Pass on_error="nan" to count such candidates as failed and go on.'

_VALUES = frozenset({"values"})
_CHUNK_ROWS = 64
_CHUNK_NUMBERS = 1 << 20


def as_objective(objective: Objective | Callable[..., Any]) -> Objective:
    """Return ``objective``, a plain function wrapped."""
    return objective if isinstance(objective, Objective) else Objective(objective)


def check_policy(on_error: object) -> None:
    """Refuse anything but the two policies."""
    if on_error not in ("raise", "nan"):
        raise ValueError(
            f'on_error must be "raise" or "nan", got {on_error!r}. Pass "nan" to go on without failed candidates.'
        )


def check_count(name: str, count: object) -> None:
    """Refuse a count that is neither None nor a positive integer."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1):
        raise ValueError(f"{name} must be a positive integer or None, got {count!r}. Pass for example {name}=2.")


def wants_grads(population: Population, objective: Objective, evaluator: object) -> bool:
    """Whether the population asks for gradients; an error where it asks for more than there is."""
    if population.needs == _VALUES:
        return False
    name = type(evaluator).__name__
    unknown = population.needs - {"values", "grads"}
    if unknown:
        raise ValueError(
            f"the population needs {', '.join(sorted(unknown))}, but {name} computes values and grads. "
            "Use an estimator that needs nothing else."
        )
    if "grads" not in population.needs:
        return False
    if objective.grad is None:
        raise ValueError(
            f"the population needs gradients, but the objective of {name} has none. "
            "Pass grad=..., or use an estimator that needs values only, such as Score()."
        )
    return True


@dataclass
class _Table:
    """What was found so far about ``len(values)`` rows."""

    values: Array
    grads: Array | None = None
    steps: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, n: int, dim: int, grads: bool) -> _Table:
        """Return a table of ``n`` rows that count as failed until they are written."""
        return cls(np.full(n, np.nan), np.full((n, dim), np.nan) if grads else None)

    def count(self, kind: str, times: int = 1) -> None:
        """Count ``times`` failures of ``kind``."""
        if times:
            self.failures[kind] = self.failures.get(kind, 0) + times

    def put(self, start: int, other: _Table) -> None:
        """Copy the rows of ``other`` to ``start`` on, and add its counts."""
        self.values[start : start + len(other.values)] = other.values
        if self.grads is not None and other.grads is not None:
            self.grads[start : start + len(other.values)] = other.grads
        self.steps += other.steps
        for kind, times in other.failures.items():
            self.count(kind, times)

    def evals(self) -> Evals:
        """Return the finished record."""
        return Evals(self.values, self.grads, steps=self.steps, failures=self.failures)


class _Fault(NamedTuple):
    """Why the evaluation stops at ``row``: ``error`` was raised by the function ``part``, or says what it returned."""

    row: int
    error: Exception
    part: Literal["f", "grad"]
    raised: bool


class _BadResult(Exception):
    """What a function returned, in words."""


def chunks(population: Population, start: int, stop: int) -> Iterator[tuple[int, Array]]:
    """Yield (first row, rows) of about 8 MiB, in whole mirrored pairs."""
    height = max(2, min(_CHUNK_ROWS, _CHUNK_NUMBERS // max(1, population.dim)) // 2 * 2)
    for first in range(start, stop, height):
        yield first, population.rows(first, min(first + height, stop))


def call_rows(
    objective: Objective, rows: Array, first: int, seeds: Seeds, on_error: OnError, table: _Table, at: int
) -> _Fault | None:
    """Evaluate ``rows`` (m, d), candidates ``first`` on, into ``table`` from ``at`` on; stop at the first fault.

    ``seeds`` (m,) or None. A row whose value is nan gets no gradient; a gradient that is not finite is nan and counts
    as a failure "gradient", and its value stays.
    """
    for i, row in enumerate(rows):
        seed = 0 if seeds is None else int(seeds[i])
        part: Literal["f", "grad"] = "f"
        arguments = objective.arguments(row.copy(), seed)
        try:
            value, steps = number(objective.f(*arguments))
            table.values[at + i] = value
            table.steps += steps
            if value != value:
                table.count("nan")
            elif table.grads is not None and objective.grad is not None:
                part = "grad"
                found = gradient(
                    objective.grad(*objective.arguments(row.copy(), seed)),
                    row.shape if objective.shape is None else objective.shape,
                )
                if np.isfinite(found).all():
                    table.grads[at + i] = found.reshape(-1)
                else:
                    table.count("gradient")
        except _BadResult as error:
            return _Fault(first + i, error, part, raised=False)
        except Exception as error:
            if on_error == "raise":
                return _Fault(first + i, error, part, raised=True)
            table.count("exception")
    return None


def number(result: object) -> tuple[float, int]:
    """Return the value and the steps in what an objective returned."""
    if isinstance(result, float):
        return float(result), 0
    if isinstance(result, Outcome):
        return number(result.value)[0], steps_of(result.steps)
    try:
        array = np.asarray(result)
    except Exception as error:
        raise _BadResult(describe(result)) from error
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise _BadResult(describe(result))
    return float(array.reshape(-1)[0]), 0


def steps_of(steps: object) -> int:
    """Return the steps of an outcome: one non-negative integer, or the sum of an array of them."""
    array = np.asarray(steps)
    if array.dtype.kind not in "iu" or (array < 0).any():
        raise _BadResult(f"an Outcome with steps={steps!r}, which are not non-negative integers")
    return int(array.sum())


def gradient(result: object, shape: tuple[int, ...]) -> Array:
    """Return what a gradient function returned as float64."""
    try:
        array = np.asarray(result)
    except Exception as error:
        raise _BadResult(describe(result)) from error
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise _BadResult(describe(result))
    return array.astype(np.float64)


def describe(result: object) -> str:
    """Name what was returned: its type, and its shape if it has one."""
    if result is None:
        return "None"
    if hasattr(result, "shape"):
        return f"an array of shape {tuple(result.shape)} and type {getattr(result, 'dtype', type(result).__name__)}"
    return f"{result!r}, of type {type(result).__name__}"[-200:]


def stop_at(fault: _Fault, objective: Objective, population: Population) -> Exception:
    """Return the error that ends an evaluation; raise it ``from fault.error`` if the user's function raised."""
    row, part = fault.row, fault.part
    seed = str(population.seeds[row]) if objective.seeded else ""
    who = f"candidate {row} of generation {population.noise.key.generation}" + (f" (seed {seed})" if seed else "")
    if not fault.raised:
        wanted = "a number (lower is better, nan for a failed evaluation) or an esopt.Outcome of two numbers"
        advice = "Return a float."
        if part == "grad":
            shape = (population.dim,) if objective.shape is None else objective.shape
            wanted, advice = f"an array of shape {shape}, the shape of x", "Return one number for each element of x."
        return TypeError(f"{part} returned {fault.error} for {who}. Expected {wanted}. {advice}")
    x = f"population[{row}]" + ("" if objective.shape is None else f".reshape({objective.shape})")
    arguments = ", ".join([x, *([seed] if seed else []), *(["*args"] if objective.args else [])])
    error = EvaluationError(
        f"{who} raised {type(fault.error).__name__}: {fault.error}{'' if part == 'f' else ' (in grad)'}.\n"
        f"Reproduce it with: {part}({arguments}), where {POPULATION}. {GO_ON}"
    )
    error.x = population[row] if objective.shape is None else population[row].reshape(objective.shape)
    error.seed = int(population.seeds[row]) if objective.seeded else None
    return error
