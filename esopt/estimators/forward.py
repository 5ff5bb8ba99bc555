"""Gradients from directional derivatives: forward gradients at the candidates.

grad J = E[(grad f(x) . v) v], v independent of x with mean 0 and covariance I.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from .._parts import check_instance
from ..noise import PROBE, Array, Key, Noise, moment
from ..protocols import Sampler, State
from ..records import Evals, Gradient, Population
from ..samplers.rademacher import Rademacher
from ._blocks import divide_with_error, mean_value, usable_blocks

_ROWS = 64


@dataclass(frozen=True)
class Forward:
    """Average of Jacobian-vector products times their directions, one for each candidate.

    Unbiased where Bonnet is: f has no jumps. On a quadratic with gradient a and Hessian H its variance for a row is
    d (|a|^2 + sigma^2 |H|^2) - |a|^2 with signs for v, and d + 2 instead of d with normals: that of the score with a
    perfect baseline or worse, but free of the noise and the rounding that a difference of values divides by sigma.

    Parameters
    ----------
    probes : joint law of the directions v. Their blocks need not be those of the noise rows: standard errors are over
        groups of rows that share neither.

    Notes
    -----
    The directions come from the same seed and generation as the noise, in a stream of their own. Works for every
    scale and law of the noise, since only the candidates depend on them.

    References
    ----------
    Baydin, Pearlmutter, Syme, Wood, Torr (2022), Gradients without backpropagation; Silver et al. (2022), Learning by
    directional gradient descent.

    Examples
    --------
    >>> import numpy as np, esopt
    >>> f = esopt.Objective(lambda x: float(x @ x), jvp=lambda x, v: 2.0 * float(x @ v))
    >>> g = esopt.smoothed_gradient(f, np.ones(3), n=2000, estimator=esopt.Forward())
    >>> bool((np.abs(g.mean - 2.0) < 4.0 * g.mean_stderr).all())
    True
    """

    probes: Sampler = field(default_factory=Rademacher)

    def __post_init__(self) -> None:
        check_instance("probes", self.probes, Sampler, "Rademacher()")

    @property
    def with_scale(self) -> bool:
        return False

    @property
    def raw_only(self) -> bool:
        return True

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        """Ask the evaluator for products of the gradient with one direction for each noise row.

        Raises
        ------
        ValueError  unless the number of noise rows is a multiple of the probes' block.
        """
        noise = population.noise
        probes = self.probes.noise(Key(noise.key.seed, noise.key.generation, PROBE), noise.n, noise.dim)
        if noise.n % probes.block:
            raise ValueError(
                f"Forward() got {noise.n} rows for probes in blocks of {probes.block}. "
                f"Use n = {-(-noise.n // probes.block) * probes.block}, or probes=Rademacher()."
            )
        return replace(population.needing("jvps"), probes=probes)

    def estimate(self, population: Population, evals: Evals, state: State) -> tuple[Gradient, State]:
        """Return the gradient.

        Raises
        ------
        ValueError  if there are no products.
        EvaluationError  if no block of rows is free of failures.
        """
        noise, probes = population.noise, population.probes
        if evals.jvps is None or probes is None:
            raise ValueError(
                "Forward() got no products of the gradient with its probes. Pass an esopt.Objective with jvp=, or use "
                "one of the estimators Bonnet() (gradients) and Score() (values)."
            )
        values, block = evals.values[: noise.n], math.lcm(noise.block, probes.block)
        found = values + evals.jvps
        whole = np.isfinite(found).reshape(-1, block).all(axis=1)
        count, rows = usable_blocks(np.where(np.repeat(whole, block), found, np.nan), population)
        blocks = count * noise.block // block
        weights = evals.jvps / (blocks * block)
        sums, squares = _sums(probes, weights if rows is None else np.where(rows, weights, 0.0), block)
        mean, mean_stderr = divide_with_error(sums, squares, blocks)
        value, value_stderr = mean_value(values, noise.block)
        return Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population)), state


def _sums(probes: Noise, weights: Array, block: int) -> tuple[Array, Array]:
    """Return sum_i weights_i v_i and the sum of the squared sums of ``block`` rows, a multiple of the probes' block."""
    if block == probes.block:
        return moment(probes, weights, squares=True)
    total, squares = np.zeros(probes.dim), np.zeros(probes.dim)
    height = max(1, _ROWS // block) * block
    for start in range(0, probes.n, height):
        stop = min(start + height, probes.n)
        terms = weights[start:stop, None] * probes.rows(start, stop)
        by_block = terms.reshape(-1, block, probes.dim).sum(axis=1)
        total += by_block.sum(axis=0)
        squares += np.square(by_block).sum(axis=0)
    return total, squares
