"""BFGS with finite differences: the local search for smooth functions, in the form of ask and tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, Given, Key, check_seed
from ..records import Evals, Info, Population
from .gradient_es import check_sigma, fit_sigma

_START, _DIFFERENCES, _LINE = 0, 1, 2
_ARMIJO = 1e-4
_SHRINK = (0.1, 0.5)
_RELATIVE = {False: 1.5e-8, True: 6.0e-6}
"""Step of the differences relative to max(|x_i|, sigma): square and cube root of the rounding error."""


@dataclass(frozen=True, eq=False)
class QuasiNewtonState:
    """State of :class:`QuasiNewton`: where it is, what it knows there, and the point of the line that is next."""

    seed: int
    generation: int
    mean: Array
    value: float
    sigma: Array
    phase: int
    central: bool
    known: bool
    gradient: Array
    inverse: Array
    direction: Array
    step: float
    trials: int
    progress: float
    failed: int


@dataclass(frozen=True, eq=False)
class QuasiNewton:
    """BFGS: gradients from differences along coordinates, d evaluations each, and a backtracking line search.

    For smooth functions, from where the next optimum is down-hill; a few hundred d evaluations solve what is well
    behaved. Forward differences first, central ones when those are too coarse to go on. A generation is one
    gradient, or one point of a line. Not for noise.

    Parameters
    ----------
    sigma : length of the first step, a number or one per coordinate.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithms 3.1 and 6.1, eqs. 6.17, 6.20, 8.1 and 8.7.

    Examples
    --------
    >>> import esopt
    >>> def bowl(x): return sum((i + 1) * (v - 3.0) ** 2 for i, v in enumerate(x))
    >>> found = esopt.minimize(bowl, [0.0] * 5, strategy=esopt.QuasiNewton(), evaluations=200)
    >>> bool(found.value < 1e-9)
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", check_sigma(self.sigma))

    def init(self, x0: Array, seed: int) -> QuasiNewtonState:
        """Return the state before the first generation, at ``x0`` (d,)."""
        dim = x0.size
        scale = fit_sigma(self.sigma, dim)
        if np.ndim(scale) == 2:
            raise ValueError("QuasiNewton() got a factor as sigma. Pass one number or one per coordinate.")
        sigma = np.array(np.broadcast_to(scale, dim))
        zero = np.zeros(dim)
        return QuasiNewtonState(
            check_seed(seed), 0, np.array(x0, np.float64), math.nan, sigma, _START, False, False, zero,
            np.diag(sigma**2), zero, 1.0, 0, math.inf, 0,
        )  # fmt: skip

    def ask(self, state: QuasiNewtonState) -> Population:
        """Return the points of this generation: the start, those of the differences, or one of the line."""
        dim = state.mean.size
        if state.phase == _START:
            rows = state.mean[None, :]
        elif state.phase == _DIFFERENCES:
            steps = np.diag(self._steps(state))
            rows = state.mean + (np.concatenate([steps, -steps]) if state.central else steps)
        else:
            rows = (state.mean + state.step * state.direction)[None, :]
        noise = Given(np.empty((0, dim)), key=Key(state.seed, state.generation))
        return Population(state.mean, state.sigma, noise, rows, ("point",) * len(rows), share="none")

    def tell(self, state: QuasiNewtonState, evals: Evals) -> tuple[QuasiNewtonState, Info]:
        """Return the state after the points of :meth:`ask`, and what was learned.

        Raises
        ------
        EvaluationError  if the start itself cannot be evaluated; the state is as before.
        """
        ahead = replace(state, generation=state.generation + 1)
        if state.phase == _START:
            if not math.isfinite(float(evals.values[0])):
                raise EvaluationError(
                    f"f(x0) is {evals.values[0]}: a local search cannot begin there. Start from another point."
                )
            after = replace(ahead, value=float(evals.values[0]), phase=_DIFFERENCES)
        elif state.phase == _DIFFERENCES:
            after = self._turn(ahead, evals.values)
        else:
            after = self._move(ahead, float(evals.values[0]))
        return after, Info(state.generation, None, evals.failures, {"step": state.step})

    def stop(self, state: QuasiNewtonState) -> dict[str, float]:
        """Return reasons to stop: "gradient" (it is zero), "line" (central differences show no way down)."""
        if state.failed == 0:
            return {}
        return {"gradient" if state.failed == 1 else "line": state.value}

    def _steps(self, state: QuasiNewtonState) -> Array:
        return _RELATIVE[state.central] * np.maximum(np.abs(state.mean), state.sigma)

    def _turn(self, state: QuasiNewtonState, values: Array) -> QuasiNewtonState:
        """Update the inverse Hessian with the new gradient, and choose the direction."""
        dim, steps = state.mean.size, self._steps(state)
        if state.central:
            gradient = (values[:dim] - values[dim:]) / (2.0 * steps)
        else:
            gradient = (values - state.value) / steps
        gradient = np.where(np.isfinite(gradient), gradient, 0.0)
        inverse = state.inverse
        if state.known:
            moved, change = state.step * state.direction, gradient - state.gradient
            inverse = _update(inverse, moved, change, first=state.trials < 0)
        direction = -inverse @ gradient
        slope = float(gradient @ direction)
        if not slope < 0.0:
            inverse = np.diag(state.sigma**2)
            direction = -inverse @ gradient
            slope = float(gradient @ direction)
        if slope == 0.0:
            return replace(state, failed=1) if state.central else replace(state, central=True, known=False)
        length = math.sqrt(float(np.square(direction / state.sigma).sum()))
        first = not state.known and inverse is state.inverse
        step = 1.0 / length if first or length > 10.0 else 1.0
        return replace(
            state, phase=_LINE, gradient=gradient, inverse=inverse, direction=direction, step=step, trials=0, known=True
        )

    def _move(self, state: QuasiNewtonState, value: float) -> QuasiNewtonState:
        """Accept the point of the line, or come closer."""
        slope = float(state.gradient @ state.direction)
        if value <= state.value + _ARMIJO * state.step * slope:
            there = state.mean + state.step * state.direction
            return replace(state, mean=there, value=value, phase=_DIFFERENCES, progress=state.value - value)
        if state.trials >= 12 or state.step * np.abs(state.direction / state.sigma).max() < 1e-13:
            if state.central:
                return replace(state, failed=2)
            # Forward differences are too coarse here.
            fresh = np.diag(state.sigma**2)
            return replace(state, central=True, phase=_DIFFERENCES, known=False, inverse=fresh)
        curved = 2.0 * (value - state.value - state.step * slope)
        share = -state.step * slope / curved if math.isfinite(curved) and curved > 0.0 else _SHRINK[0]
        return replace(state, step=state.step * min(max(share, _SHRINK[0]), _SHRINK[1]), trials=state.trials + 1)


def _update(inverse: Array, moved: Array, change: Array, *, first: bool) -> Array:
    """Return the BFGS update of the inverse Hessian; unchanged where f is not convex along the step."""
    bent = float(moved @ change)
    if not bent > 1e-10 * math.sqrt(float(moved @ moved) * float(change @ change)):
        return inverse
    across = inverse @ change
    scale = (1.0 + float(change @ across) / bent) / bent
    mixed = np.outer(across, moved) / bent
    after: Array = inverse + scale * np.outer(moved, moved) - mixed - mixed.T
    return after
