"""What a run under constraints has besides: which strategy handles them, and what its result says about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ._lagrangian import violations
from .noise import Array
from .objective import Objective
from .protocols import State, Strategy
from .records import Evals
from .result import Point, Result
from .strategies.augmented_lagrangian import AugmentedLagrangian, LagrangianState

_SIDES = ("lower", "upper", "equal")


class Constraints(NamedTuple):
    """g(x) <= 0 and h(x) = 0, as :class:`esopt.Objective` takes them."""

    constraints: Callable[..., Any] | None
    equalities: Callable[..., Any] | None


def as_constraints(
    constraints: Any,
    equalities: Callable[..., Any] | None,
    shape: tuple[int, ...] | None = None,
    *,
    vectorized: bool = False,
) -> Constraints:
    """Return the constraints of :func:`esopt.minimize`, which may be scipy's.

    Parameters
    ----------
    constraints : a function, one of scipy's ``NonlinearConstraint``, ``LinearConstraint`` and dictionaries
        ``{"type": "ineq", "fun": c, "args": ()}``, where c(x) >= 0 or, of type "eq", c(x) = 0, or a sequence of such.
        Several functions come before scipy's.
    equalities : a function.
    shape : that of x0, if known.
    vectorized : whether functions get all candidates at once. scipy's get one x each, all the same.

    Raises
    ------
    TypeError  for anything else.
    ValueError  for a matrix that does not fit x, and for bounds that nothing satisfies.
    """
    if constraints is None or callable(constraints):
        return Constraints(constraints, equalities)
    several = constraints if isinstance(constraints, Sequence) else (constraints,)
    functions = tuple(one for one in several if callable(one))
    bounds = [_two_sided(one, shape) for one in several if not callable(one)]
    parts = {side: tuple(replace(b, side=side) for b in bounds if b.any(side)) for side in _SIDES}
    g, h = (*functions, *parts["upper"], *parts["lower"]), parts["equal"]
    if h and equalities is not None:
        raise TypeError("minimize() got equalities twice, as a function and as scipy's. Pass one of them.")
    return Constraints(_Stacked(g, vectorized) if g else None, _Stacked(h, vectorized) if h else equalities)


@dataclass(frozen=True, eq=False)
class _Side:
    """One side of low <= c(x) <= high: what must be <= 0, or, where both are equal, 0."""

    function: Any
    low: Array
    high: Array
    args: tuple[Any, ...] = ()
    side: str = ""

    def chosen(self, side: str) -> Any:
        if side == "equal":
            return self.low == self.high
        return (self.low != self.high) & np.isfinite(self.low if side == "lower" else self.high)

    def any(self, side: str) -> bool:
        """Return whether there is such a side."""
        return bool(np.any(self.chosen(side)))

    def __call__(self, x: Array) -> Array:
        values = self.function(x, *self.args) if callable(self.function) else np.asarray(self.function) @ np.ravel(x)
        c, low, high = np.broadcast_arrays(np.atleast_1d(np.asarray(values, np.float64)), self.low, self.high)
        off = low - c if self.side == "lower" else c - high
        return np.asarray(off[np.broadcast_to(self.chosen(self.side), c.shape)])


@dataclass(frozen=True, eq=False)
class _Stacked:
    """Several constraints one after the other: functions, with the arguments of f, and scipy's, which take x alone."""

    parts: tuple[Any, ...]
    rows: bool

    def __call__(self, x: Array, *rest: Any) -> Array:
        return np.concatenate([self._columns(part, x, rest) for part in self.parts], axis=-1)

    def _columns(self, part: Any, x: Array, rest: tuple[Any, ...]) -> Array:
        if isinstance(part, _Side):
            return np.stack([part(row) for row in x]) if self.rows else part(x)
        values = np.asarray(part(x, *rest))
        if values.dtype.kind not in "fiu":
            raise TypeError(f"a constraint returned type {values.dtype}. Return a number, at most 0 where it holds.")
        return values[..., None] if values.ndim == int(self.rows) else values


def _two_sided(constraint: Any, shape: tuple[int, ...] | None) -> _Side:
    if isinstance(constraint, dict) and constraint.get("type") in ("ineq", "eq") and callable(constraint.get("fun")):
        high = math.inf if constraint["type"] == "ineq" else 0.0
        return _Side(constraint["fun"], np.asarray(0.0), np.asarray(high), tuple(constraint.get("args", ())))
    function = getattr(constraint, "fun", getattr(constraint, "A", None))
    if function is None or not (hasattr(constraint, "lb") and hasattr(constraint, "ub")):
        raise TypeError(
            f"constraints must be a function, or scipy's, got {type(constraint).__name__}. Pass g of x, where "
            "g(x) <= 0 is allowed, or for example scipy.optimize.LinearConstraint(A, lb, ub)."
        )
    if not callable(function):
        function = np.atleast_2d(function.toarray() if hasattr(function, "toarray") else function)
        if shape is not None and function.shape[1] != math.prod(shape):
            raise ValueError(
                f"constraints have a matrix of shape {function.shape} for x0 of shape {shape}. Pass one column for "
                "each coordinate of the flat x0."
            )
    lower, upper = np.asarray(constraint.lb, np.float64), np.asarray(constraint.ub, np.float64)
    if not (lower <= upper).all():
        raise ValueError(f"constraints have lb = {lower} above ub = {upper}: nothing satisfies them. Pass lb <= ub.")
    return _Side(function, lower, upper)


def is_constrained(objective: Objective | None) -> bool:
    """Return whether ``objective`` has constraints."""
    return objective is not None and not (objective.constraints is None and objective.equalities is None)


def constrain(strategy: Strategy, objective: Objective | None, *, stochastic: bool) -> Strategy:
    """Return ``strategy``, under constraints if the objective has some and it does not handle them yet.

    Raises
    ------
    ValueError  for constraints of a stochastic f.
    """
    if not is_constrained(objective):
        return strategy
    if stochastic:
        raise ValueError(
            "constraints and a stochastic f: no candidate is known to be the best, and minimize() cannot say which is "
            "feasible. Use Optimizer(AugmentedLagrangian(snes()), x0) with ask and tell, and take only its mean: the "
            "multipliers follow the noise."
        )
    return strategy if _handler(strategy) is not None else AugmentedLagrangian(strategy)


def _handler(strategy: Any) -> AugmentedLagrangian | None:
    while not isinstance(strategy, AugmentedLagrangian) and strategy is not None:
        strategy = getattr(strategy, "inner", None)
    return strategy


def _state(state: Any) -> LagrangianState | None:
    while not isinstance(state, LagrangianState) and state is not None:
        state = getattr(state, "inner", None)
    return state


def mark(result: Result, state: State) -> Result:
    """Return the result with what the strategy's ``state`` knows of constraints, if there are any."""
    found = _state(state)
    if found is None:
        return result
    value = found.value if found.value < math.inf else math.nan
    return replace(result, value=value, violation=found.violation, multipliers=found.found.copy())


def settle(result: Result, strategy: Strategy, evals: Evals, value: float) -> Result:
    """Return the result after the evaluation of the final mean, the mean if that is better."""
    handler, violation = _handler(strategy), result.violation
    if handler is not None:
        violation = float(violations(evals, handler.tolerance)[0])
    if not (value < math.inf and (violation, value) < (result.violation, result.value)):
        return result
    x = result.mean
    best = Point(x.copy(), value if violation == 0.0 else math.inf)
    return replace(result, x=x.copy(), value=value, best=best, violation=violation)
