"""Gradients from gradients, and of the scale from second derivatives: the theorems of Bonnet and Price.

grad_mean J = E[grad f(x)]; with H the Hessian of f at x, dJ/dsigma = sigma E[tr H], dJ/dlog sigma_i = sigma_i^2
E[H_ii], and for a factor L of the covariance the local matrix 1/2 E[L^T H L].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .._parts import check_instance
from ..noise import PROBE, Array, Key, Law
from ..protocols import Sampler, State
from ..records import Evals, Gradient, Population, Scale
from ._blocks import mean_value, sum_with_error, usable_blocks
from ._full import local_matrix


@dataclass(frozen=True)
class Price:
    """Averages of the gradients and of the Hessians, or of their products with random probes.

    With exact Hessians the variance of the scale's gradient is zero on a quadratic. With one probe v in a row
    (Hutchinson: v . H v, v_i (H v)_i) it is 2 sigma^2 sum_{i != j} H_ij^2 for signs and 2 sigma^2 |H|_F^2 for normals,
    for a scalar scale, and a row costs one Hessian-vector product.

    Wrong where f has kinks or jumps: its Hessian almost everywhere does not see the step of the gradient, so that the
    scale's gradient of |x| comes out as zero, with zero apparent variance. Use Bonnet(with_scale=True) there, which
    needs first derivatives only and sees kinks.

    Parameters
    ----------
    probes : None for Hessians, full (d, d) or, where the scale is no factor, their diagonals (d,); or the sampler of
        the probes, for example Rademacher(), which needs Hessian-vector products only.

    Notes
    -----
    Probes are the sampler's noise at the population's seed and generation, in a stream of their own: they are
    independent of the candidates and come out again with the same bits.

    References
    ----------
    Price (1958), A useful theorem for nonlinear devices having Gaussian inputs; Hutchinson (1990), A stochastic
    estimator of the trace of the influence matrix for Laplacian smoothing splines.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> population = esopt.Population(np.ones(2), 0.5, esopt.Antithetic().noise(esopt.Key(1), 4, 2))
    >>> price = esopt.Price()
    >>> population, x = price.prepare(population, ()), population.rows()
    >>> evals = esopt.Evals((x**4).sum(axis=1), 4.0 * x**3, hessians=12.0 * x**2)  # diagonals
    >>> price.estimate(population, evals, ())[0].scale > 0.0
    True
    """

    probes: Sampler | None = None

    def __post_init__(self) -> None:
        if self.probes is not None:
            check_instance("probes", self.probes, Sampler, "Rademacher()")

    @property
    def with_scale(self) -> bool:
        return True

    @property
    def raw_only(self) -> bool:
        return True

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        """Ask for gradients, and for Hessians or their products with probes.

        Raises
        ------
        ValueError  for rows that are not Gaussian, and if a block of the probes is no part of one of the population.
        """
        law = population.noise.law
        if law is not Law.GAUSSIAN:
            raise ValueError(
                f"Price() got noise that is {law.value}; the gradient of the scale from second derivatives needs rows "
                "that are N(0, I). Use a sampler with Law.GAUSSIAN, or Bonnet(with_scale=True)."
            )
        if self.probes is None:
            return population.needing("grads", "hessians")
        seed, generation, _ = population.noise.key
        probes = self.probes.noise(Key(seed, generation, PROBE), population.n, population.dim)
        if population.noise.block % probes.block:
            raise ValueError(
                f"Price() got probes in blocks of {probes.block} for a population in blocks of "
                f"{population.noise.block}: errors would take dependent rows for independent ones. "
                "Pass probes=Rademacher(), whose rows are independent."
            )
        return replace(population, probes=probes).needing("grads", "hvps")

    def estimate(self, population: Population, evals: Evals, state: State) -> tuple[Gradient, State]:
        """Return the gradient.

        Raises
        ------
        ValueError  if gradients, or Hessians or their products, are missing or do not fit the scale.
        EvaluationError  if no block of rows is free of failures.
        """
        noise = population.noise
        if evals.grads is None:
            raise ValueError("Price() got no gradients. Pass grad= to minimize, or grads= to tell.")
        grads, values = evals.grads[: noise.n], evals.values[: noise.n]
        second = self._second(population, evals)
        sums = second.reshape(noise.n, -1).sum(axis=1)
        blocks, rows = usable_blocks(values + grads.sum(axis=1) + sums, population)
        if rows is not None:
            grads = np.where(rows[:, None], grads, 0.0)
            second = np.where(rows.reshape(-1, *[1] * (second.ndim - 1)), second, 0.0)
        weight = 1.0 / (blocks * noise.block)
        mean, mean_stderr = sum_with_error(grads, blocks, noise.block, weight)
        scale, scale_stderr = self._scale(population, second * weight, blocks)
        value, value_stderr = mean_value(values, noise.block)
        gradient = Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population), scale, scale_stderr)
        return gradient, state

    def _second(self, population: Population, evals: Evals) -> Array:
        """Return the Hessians of the noise rows, their diagonals, or the products with the probes."""
        if self.probes is not None:
            if evals.hvps is None or population.probes is None:
                raise ValueError(
                    "Price(probes=...) got no Hessian-vector products. Pass Objective(f, grad=..., hvp=...) to "
                    "minimize or hvps= to tell, for the directions of population.probes; or use Price() with Hessians."
                )
            return evals.hvps[: population.n]
        if evals.hessians is None:
            raise ValueError(
                "Price() got no Hessians. Pass Objective(f, grad=..., hess=...) to minimize, or hessians= to tell; or "
                "use Price(probes=Rademacher()) with hvp=, or Bonnet(with_scale=True) with gradients alone."
            )
        hessians = evals.hessians[: population.n]
        if population.factor is not None:
            if hessians.ndim != 3:
                raise ValueError(
                    f"Price() got diagonals of Hessians, {hessians.shape}, for a scale that is a factor. Pass full "
                    f"Hessians, (n, {population.dim}, {population.dim}), or one sigma per coordinate."
                )
            return hessians
        return hessians if hessians.ndim == 2 else np.einsum("ijj->ij", hessians)

    def _scale(self, population: Population, second: Array, blocks: int) -> tuple[Scale, Scale]:
        """Return the gradient in the scale, and its standard error, from weighted second derivatives."""
        noise, factor, probes = population.noise, population.factor, population.probes
        if factor is not None:
            if probes is None or self.probes is None:
                by_block = second.reshape(-1, noise.block, noise.dim, noise.dim).sum(axis=1)
                local = factor.T @ by_block @ factor
                local = 0.25 * (local + local.transpose(0, 2, 1))
                total, error = sum_with_error(local.reshape(len(local), -1), blocks)
                return total.reshape(factor.shape), error.reshape(factor.shape)

            def pair(rows: slice) -> tuple[Array, Array]:
                return 0.5 * (second[rows] @ factor), probes.rows(rows.start, rows.stop) @ factor

            return local_matrix(noise, pair, blocks, noise.block)
        terms = second if probes is None or self.probes is None else second * probes.rows()
        by_block = terms.reshape(-1, noise.block, noise.dim).sum(axis=1)
        sigma = population.sigma("Price()")
        if not isinstance(sigma, float):
            return sum_with_error(by_block * np.square(sigma), blocks)
        found, deviation = sum_with_error(by_block.sum(axis=1, keepdims=True) * sigma, blocks)
        return float(found[0]), float(deviation[0])
