"""The parabola that earlier generations saw: tangent plane and diagonal curvature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array, moment
from ..protocols import Centered, State
from ..records import Evals, Gradient, Population
from .leave_one_out import leave_own_block_out


@dataclass(frozen=True, eq=False)
class QuadraticState:
    """Exponentially weighted sums of earlier gradients and curvatures, (d,) each, and the sum of their weights."""

    gradients: Array
    curvatures: Array
    weight: float


@dataclass(frozen=True)
class Quadratic:
    """Subtract q(x) = c . (x - mean) + 1/2 sum_i h_i ((x_i - mean_i)^2 - sigma_i^2); then leave-one-out.

    c and h are the averages of earlier generations' estimates of grad J and of the diagonal of E[Hessian],
    E[y He_2(eps_i)] / sigma_i^2. What q contributes is known and added back: c in the mean, h_i sigma_i^2 in
    log sigma_i. Unbiased: this generation's values play no part in c and h. On a quadratic with gradient a and Hessian
    H every variance becomes that for a - c and H - diag(h): nothing is left if H is diagonal and does not change.

    It pays where gradient and curvature change little between generations, and for many rows: the errors of c and h add
    a share of about (1 - decay) d / n to the variance. Costs two more passes over the noise,
    and three more to learn h unless the estimator has the gradient of a sigma per coordinate.

    Parameters
    ----------
    decay : weight of the past in [0, 1); the fewer rows for each dimension, the closer to 1.

    Raises
    ------
    ValueError  for a scale that is neither one number nor one per coordinate.

    Examples
    --------
    >>> import numpy as np, esopt
    >>> es = esopt.GradientES(n=100, sampler=esopt.Gaussian(), estimator=esopt.Score(esopt.Quadratic()))
    >>> steps = []
    >>> found = esopt.minimize(
    ...     lambda x: float(x @ x), np.ones(5), strategy=es, seed=0, generations=60, callback=steps.append
    ... )
    >>> errors = [np.linalg.norm(step.info.gradient.mean_stderr) for step in steps]
    >>> bool(errors[-1] < 0.1 * errors[0])
    True
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}. The default is 0.9.")

    @property
    def raw_only(self) -> bool:
        return False

    def init(self, dim: int) -> QuadraticState:
        return QuadraticState(np.zeros(dim), np.zeros(dim), 0.0)

    def prepare(self, population: Population, state: State) -> Population:
        population.sigma("Quadratic()")
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: QuadraticState) -> Centered:
        residuals = leave_own_block_out(_residuals(values, population, state), population.noise.block)
        if state.weight == 0.0:
            return Centered(residuals)
        sigma = population.sigma("Quadratic()")
        return Centered(residuals, state.gradients / state.weight, state.curvatures / state.weight * np.square(sigma))

    def learn(self, values: Array, population: Population, gradient: Gradient, state: QuadraticState) -> QuadraticState:
        squares = np.square(population.sigma("Quadratic()"))
        if isinstance(gradient.scale, np.ndarray) and gradient.scale.ndim == 1:
            curvature = gradient.scale / squares
        else:
            curvature = self._curvature(values, population, state) / squares
        new = 1.0 - self.decay
        return QuadraticState(
            self.decay * state.gradients + new * gradient.mean,
            self.decay * state.curvatures + new * curvature,
            self.decay * state.weight + new,
        )

    def _curvature(self, values: Array, population: Population, state: QuadraticState) -> Array:
        """Return this generation's estimate of sigma_i^2 E[d^2 f / dx_i^2], (d,), with the known part added back."""
        noise = population.noise
        residuals = leave_own_block_out(_residuals(values, population, state), noise.block)
        usable = np.isfinite(residuals)
        found = moment(noise, np.where(usable, residuals, 0.0) / usable.sum(), 2)
        if state.weight > 0.0:
            found += state.curvatures / state.weight * np.square(population.sigma("Quadratic()"))
        return found


def _residuals(values: Array, population: Population, state: QuadraticState) -> Array:
    """Return the values less q, (n,)."""
    if state.weight == 0.0:
        return values
    sigma = population.sigma("Quadratic()")
    slope = state.gradients / state.weight * sigma
    bend = 0.5 * state.curvatures / state.weight * np.square(sigma)
    noise = population.noise
    return values - noise.dot(slope[None, :]) - (noise.norms(bend) - float(bend.sum()))
