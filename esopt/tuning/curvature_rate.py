"""Steps of one over the curvature along the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..protocols import State
from ..records import Gradient, Population
from ..schedules import check_fraction, check_positive


@dataclass(frozen=True, eq=False)
class CurvatureState:
    """Where the last generation was, its gradient and squared errors, (d,) each, and their sum.

    ``size`` is the mean square of its blocks over their number.
    ``change`` over ``distance`` is the averaged secant, ``factor`` the last one, 0 before the first generation.
    """

    mean: Array
    gradient: Array
    squares: Array
    variance: float
    size: float
    change: float
    distance: float
    factor: float


@dataclass(frozen=True)
class CurvatureRate:
    """The factor 1 / L, L the curvature of J along the steps that were taken, for ``rule=SGD(1.0)``.

    L is (g' - g) . s / |s|^2 for the step s between two generations with the gradients g and g', less what the noise of
    g puts into it: a step -c g makes -g . s too large by c W, W the total variance of g. Numerators and denominators
    are averaged over generations, each divided by the mean squares of the blocks of g and g', so that generations count
    alike; the share 2 / B of the signal that the noise term loses by that (see tuning/_parts.py) is put back. A single
    secant that is larger than the average, by more than two of its standard errors, counts at once: too long a step
    shows itself in the next generation.

    The first step is as long as the search is wide, |s|^2 = trace of the covariance. The factor grows by ``growth`` a
    generation at most, which is also what it does where no curvature is seen.

    Parameters
    ----------
    decay : weight of the past in the averages, in [0, 1).
    growth : largest factor between two generations, above 1.

    References
    ----------
    Barzilai, Borwein (1988), Two-point step size gradient methods, for the secant.
    """

    decay: float = 0.95
    growth: float = 1.5

    def __post_init__(self) -> None:
        check_fraction("decay", self.decay)
        check_positive("growth - 1", self.growth - 1.0)

    def init(self, dim: int) -> CurvatureState:
        nowhere = np.zeros(dim)
        return CurvatureState(nowhere, nowhere, nowhere, 0.0, 0.0, 0.0, 0.0, 0.0)

    def factor(self, gradient: Gradient, population: Population, state: State) -> tuple[float, CurvatureState]:
        """Return 1 / L."""
        squares = np.square(np.nan_to_num(gradient.mean_stderr))
        length, variance = float(gradient.mean @ gradient.mean), float(squares.sum())
        size = variance + (length - variance) / gradient.blocks
        change, distance, factor = state.change, state.distance, state.factor
        if factor == 0.0:
            factor = math.sqrt(_spread(population) / length) if length > 0.0 else 0.0
        else:
            step = population.mean - state.mean
            moved, before = float(step @ step), float(state.gradient @ state.gradient)
            newest = -math.inf
            if moved > 0.0 and before > 0.0:
                along = -float(step @ state.gradient) / before
                noise = along * (state.variance - 2.0 / gradient.blocks * (before - state.variance))
                secant = float((gradient.mean - state.gradient) @ step) - noise
                error = math.sqrt(float((squares + state.squares) @ np.square(step)))
                change = self.decay * change + secant / (size + state.size)
                distance = self.decay * distance + moved / (size + state.size)
                newest = (secant - 2.0 * error) / moved
            curvature = max(change / distance if distance > 0.0 else 0.0, newest)
            longest = self.growth * factor
            factor = min(longest, 1.0 / curvature) if curvature > 0.0 else longest
        after = CurvatureState(population.mean, gradient.mean, squares, variance, size, change, distance, factor)
        return factor, after


def _spread(population: Population) -> float:
    """Return the trace of the covariance of the candidates."""
    factor = population.factor
    scale = population.sigma("CurvatureRate()") if factor is None else factor
    return scale * scale * population.dim if isinstance(scale, float) else float(np.square(scale).sum())
