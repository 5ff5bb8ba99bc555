"""Gradients from gradients: Bonnet's theorem.

grad_mean J = E[grad f(x)], dJ/dsigma = E[grad f(x) . eps], dJ/dlog sigma_i = E[sigma_i d_i f(x) eps_i]; for a factor L
of the covariance 1/4 E[L^T grad f(x) eps^T + eps grad f(x)^T L], the local matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..protocols import State
from ..records import Evals, Gradient, Population, Scale
from ._blocks import divide_with_error, mean_value, scalar_with_error, sum_with_error, usable_blocks
from ._full import slopes


@dataclass(frozen=True)
class Bonnet:
    """Average of the gradients at the candidates.

    Unbiased where f has no jumps (absolutely continuous along lines). On a quadratic its variance per row is sigma^2
    |H|_F^2, and zero for antithetic pairs. On a step function it is wrong, with zero apparent variance.

    Parameters
    ----------
    with_scale : also estimate the gradient of the scale, by the first-order form of Price's theorem.

    References
    ----------
    Bonnet (1964), Transformations des signaux aleatoires; Price (1958), A useful theorem for nonlinear devices.
    """

    with_scale: bool = False

    @property
    def raw_only(self) -> bool:
        return True

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        """Ask the evaluator for gradients."""
        return population.needing("grads")

    def estimate(self, population: Population, evals: Evals, state: State) -> tuple[Gradient, State]:
        """Return the gradient.

        Raises
        ------
        ValueError  if there are no gradients.
        EvaluationError  if no block of rows is free of failures.
        """
        if evals.grads is None:
            raise ValueError(
                "Bonnet() got no gradients. Pass grad= to minimize, grads= to tell, or use the estimator Score."
            )
        noise = population.noise
        grads, values = evals.grads[: noise.n], evals.values[: noise.n]
        blocks, used = noise.n // noise.block, grads
        mean, mean_stderr = sum_with_error(grads, blocks, noise.block, 1.0 / noise.n)
        if not (np.isfinite(values).all() and np.isfinite(mean).all()):
            blocks, rows = usable_blocks(values + grads.sum(axis=1), population)
            used = grads if rows is None else np.where(rows[:, None], grads, 0.0)
            mean, mean_stderr = sum_with_error(used, blocks, noise.block, 1.0 / (blocks * noise.block))
        weight = 1.0 / (blocks * noise.block)
        scale, scale_stderr = self._scale(population, used, weight, blocks) if self.with_scale else (None, None)
        value, value_stderr = mean_value(values, noise.block)
        gradient = Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population), scale, scale_stderr)
        return gradient, state

    def _scale(self, population: Population, grads: Array, weight: float, blocks: int) -> tuple[Scale, Scale]:
        if population.factor is not None:
            return slopes(population.noise, grads * weight, population.factor, blocks)
        noise, sigma = population.noise, population.sigma("Bonnet()")
        if isinstance(sigma, float):
            return scalar_with_error(noise.dot(grads) * weight, noise.block, blocks, 1.0)
        return divide_with_error(*noise.weighted(grads * (sigma * weight), squares=True), blocks)
