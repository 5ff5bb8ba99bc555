"""BFGS with finite differences: the local search for smooth functions, in the form of ask and tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import EvaluationError
from ..noise import Array, Given, Key, check_seed
from ..records import Evals, Info, Population
from .gradient_es import check_sigma, fit_sigma

_START, _DIFFERENCES, _LINE = 0, 1, 2
_REASONS = ("", "gradient", "line", "converged")
_ARMIJO = 1e-4
_SHRINK = (0.1, 0.5)
_FARTHER = 4.0
_WORTH = 0.1
"""One more point of the line has to promise this share of what was gained on it."""
_TRIALS = 12
_RELATIVE = {False: 1.5e-8, True: 6.0e-6}
"""Step of the differences relative to max(|x_i|, sigma): square and cube root of the rounding error."""
_ROUNDING = 1e-13
_GUESS = 0.1
"""First guess of the inverse Hessian over sigma^2."""


@dataclass(frozen=True, eq=False)
class QuasiNewtonState:
    """State of :class:`QuasiNewton`: where it is, what it knows there, and the point of the line that is next.

    ``kept`` is the best step of the line so far and f there, zeros if none; ``progress`` is what the last line gained,
    ``iterations`` counts lines; ``failed`` numbers the reasons to stop.
    """

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
    kept: Array
    progress: float
    failed: int
    iterations: int

    @property
    def turning(self) -> bool:
        """Whether a line has ended, or none has begun."""
        return self.phase != _LINE

    @property
    def gain(self) -> float:
        """What the next line may gain, as the quadratic model or the last line says; infinite if unknown."""
        if self.iterations < 2 or not self.known:
            return math.inf
        return max(-0.5 * float(self.gradient @ self.direction), self.progress)


@dataclass(frozen=True, eq=False)
class QuasiNewton:
    """BFGS: gradients from differences along coordinates, d evaluations each, and a line search by parabolas.

    For smooth functions, from where the next optimum is down-hill; some ten to a hundred d evaluations solve what is
    well behaved. Forward differences first, central ones when those are too coarse to go on. A generation is one
    gradient, or one point of a line: since a gradient is dear, a line is searched until another point promises
    less than a tenth of what was gained. Not for noise.

    Parameters
    ----------
    sigma : length of the first step, a number or one per coordinate.

    References
    ----------
    Nocedal and Wright (2006), Numerical optimization, algorithms 3.1 and 6.1, eqs. 6.17, 8.1 and 8.7.

    Examples
    --------
    >>> import esopt
    >>> def bowl(x): return sum((i + 1) * (v - 3.0) ** 2 for i, v in enumerate(x))
    >>> found = esopt.minimize(bowl, [0.0] * 5, strategy=esopt.QuasiNewton(), evaluations=200)
    >>> bool(found.value < 1e-9)
    True
    """

    keeps_values: ClassVar[bool] = True

    sigma: float | Array = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", check_sigma(self.sigma))

    def init(self, x0: Array, seed: int) -> QuasiNewtonState:
        """Return the state before the first generation, at ``x0`` (d,)."""
        dim = x0.size
        scale = fit_sigma(self.sigma, dim)
        if np.ndim(scale) == 2:
            raise ValueError("QuasiNewton() got a factor as sigma. Pass one number or one per coordinate.")
        sigma = np.array(np.broadcast_to(scale, dim))
        zero, kept = np.zeros(dim), np.zeros(2)
        return QuasiNewtonState(
            check_seed(seed), 0, np.array(x0, np.float64), math.nan, sigma, _START, False, False, zero,
            _GUESS * np.diag(sigma**2), zero, 1.0, 0, kept, math.inf, 0, 0,
        )  # fmt: skip

    def ask(self, state: QuasiNewtonState) -> Population:
        """Return the points of this generation: the start, those of the differences, or one of the line."""
        dim = state.mean.size
        if state.phase == _START:
            rows = state.mean[None, :]
        elif state.phase == _DIFFERENCES:
            steps = np.diag(_steps(state))
            rows = state.mean + (np.concatenate([steps, -steps]) if state.central else steps)
        else:
            rows = (state.mean + state.step * state.direction)[None, :]
        noise = Given(np.empty((0, dim)), key=Key(state.seed, state.generation))
        return Population(state.mean, state.sigma, noise, rows, ("point",) * len(rows), share="none")

    def tell(self, state: QuasiNewtonState, evals: Evals) -> tuple[QuasiNewtonState, Info]:
        """Return the state after the points of :meth:`ask`, and what was learned.

        Raises
        ------
        EvaluationError  if the start or a whole gradient cannot be evaluated; the state is as before.
        """
        ahead, values = replace(state, generation=state.generation + 1), evals.values
        if state.phase == _START:
            if not math.isfinite(float(values[0])):
                raise EvaluationError(
                    f"f(x0) is {values[0]}: a local search cannot begin there. Start from another point."
                )
            after = replace(ahead, value=float(values[0]), phase=_DIFFERENCES)
        elif state.phase == _DIFFERENCES:
            if np.isnan(values).all():
                raise EvaluationError(
                    f"all {values.size} evaluations of generation {state.generation} failed.\n"
                    "Check the objective near es.mean, or start from another point."
                )
            after = _turn(ahead, values)
        else:
            after = _move(ahead, float(values[0]))
        return after, Info(state.generation, None, evals.failures, {"step": state.step})

    def stop(self, state: QuasiNewtonState) -> dict[str, float]:
        """Return a reason to stop, with f.

        "gradient": it is zero. "line": central differences show no way down. "converged": gains are rounding errors.
        """
        return {_REASONS[state.failed]: state.value} if state.failed else {}


def _steps(state: QuasiNewtonState) -> Array:
    return _RELATIVE[state.central] * np.maximum(np.abs(state.mean), state.sigma)


def _turn(state: QuasiNewtonState, values: Array) -> QuasiNewtonState:
    """Update the inverse Hessian with the new gradient, and choose the direction."""
    dim, steps = state.mean.size, _steps(state)
    with np.errstate(invalid="ignore"):  # of infinite values
        if state.central:
            gradient = (values[:dim] - values[dim:]) / (2.0 * steps)
        else:
            gradient = (values - state.value) / steps
    gradient = np.where(np.isfinite(gradient), gradient, 0.0)
    inverse = state.inverse
    if state.known:
        inverse = _update(inverse, state.step * state.direction, gradient - state.gradient)
    direction = -inverse @ gradient
    slope = float(gradient @ direction)
    if not slope < 0.0:
        inverse = np.diag(state.sigma**2)
        direction = -inverse @ gradient
        slope = float(gradient @ direction)
    noise = _ROUNDING * abs(state.value)
    if -0.5 * slope <= noise and state.progress <= 10.0 * noise:
        return replace(state, failed=3)
    if slope == 0.0:
        return replace(state, failed=1) if state.central else replace(state, central=True, known=False)
    length = math.sqrt(float(np.square(direction / state.sigma).sum()))
    first = not state.known and state.iterations == 0
    step = 1.0 / length if first or length > 10.0 else 1.0
    return replace(
        state, phase=_LINE, gradient=gradient, inverse=inverse, direction=direction, step=step, trials=0, known=True
    )


def _move(state: QuasiNewtonState, value: float) -> QuasiNewtonState:
    """Accept a point of the line, come closer, or go farther."""
    slope, step = float(state.gradient @ state.direction), state.step
    found, reached = (float(number) for number in state.kept)
    curved = 2.0 * (value - state.value - step * slope)
    if value <= state.value + _ARMIJO * step * slope and (found == 0.0 or value < reached):
        gain, share = state.value - value, _FARTHER
        # The parabola through f, the slope and this point has its vertex at share * step.
        if curved > 0.0:
            share = min(-step * slope / curved, _FARTHER)
        more = -(step * slope * share + 0.5 * curved * share * share) - gain
        if state.trials < _TRIALS and math.isfinite(gain) and (curved <= 0.0 or more > _WORTH * gain):
            return replace(state, step=step * share, trials=state.trials + 1, kept=np.array([step, value]))
        return _accept(state, step, value)
    if found > 0.0:
        return _accept(state, found, reached)
    if state.trials >= _TRIALS or step * np.abs(state.direction / state.sigma).max() < 1e-13:
        # Forward differences are too coarse here, or there is no way down.
        return (
            replace(state, failed=2) if state.central else replace(state, central=True, phase=_DIFFERENCES, known=False)
        )
    share = -step * slope / curved if math.isfinite(curved) and curved > 0.0 else _SHRINK[0]
    return replace(state, step=step * min(max(share, _SHRINK[0]), _SHRINK[1]), trials=state.trials + 1)


def _accept(state: QuasiNewtonState, step: float, value: float) -> QuasiNewtonState:
    return replace(
        state, mean=state.mean + step * state.direction, value=value, step=step, phase=_DIFFERENCES,
        progress=state.value - value, kept=np.zeros(2), iterations=state.iterations + 1,
    )  # fmt: skip


def _update(inverse: Array, moved: Array, change: Array) -> Array:
    """Return the BFGS update of the inverse Hessian; unchanged where f is not convex along the step."""
    bent = float(moved @ change)
    if not bent > 1e-10 * math.sqrt(float(moved @ moved) * float(change @ change)):
        return inverse
    across = inverse @ change
    scale = (1.0 + float(change @ across) / bent) / bent
    mixed = np.outer(across, moved) / bent
    after: Array = inverse + scale * np.outer(moved, moved) - mixed - mixed.T
    return after
