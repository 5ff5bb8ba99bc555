"""The constants that minimise the variance: one for all coordinates, or one for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..noise import Array, moment
from ..protocols import Centered, Offsets, State
from ..records import Evals, Gradient, Population
from .leave_one_out import leave_own_block_out

_LEAST_BLOCKS = 4
"""Usable blocks below which the best constant is not worth estimating, and the leave-one-out mean takes its place."""


@dataclass(frozen=True)
class OptimalScalar:
    """Subtract b = E[y |eps|^2] / d, the constant with the least total variance of the mean's gradient times sigma.

    Estimated by sum y |eps|^2 / sum |eps|^2 over all other blocks; unbiased. On a quadratic with Hessian H and
    m = E y it is m + sigma^2 tr H / d, and the variance per row is that with the baseline m less
    sigma^2 (tr H)^2 / d: a factor of up to 1 + 2 / (d + 2). The gradient of the scale uses m + 2 (b - m), which is its
    own best constant on a quadratic, m + 2 sigma^2 tr H / d, and gains 8 sigma^2 (tr H)^2 / d (8 (tr H)^2 / d in
    log sigma_i, H scaled by sigma).

    For few dimensions and values with much curvature: in many it is the leave-one-out mean, at the price of one more
    pass over the noise. The mean's gradient from antithetic pairs does not depend on it. With fewer than four usable
    blocks it is the leave-one-out mean.

    References
    ----------
    Greensmith, Bartlett, Baxter (2004), Variance reduction techniques for gradient estimates in reinforcement learning.

    Examples
    --------
    >>> import numpy as np, esopt
    >>> def errors(baseline):
    ...     sphere = dict(f=lambda x: float(x @ x), x=np.zeros(2), sigma=1.0, n=1000, seed=0, sampler=esopt.Gaussian())
    ...     return np.linalg.norm(esopt.smoothed_gradient(**sphere, baseline=baseline).mean_stderr)
    >>> bool(errors(esopt.OptimalScalar()) < 0.85 * errors(esopt.LeaveOneOut()))
    True
    """

    @property
    def raw_only(self) -> bool:
        return False

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: State) -> Centered:
        block = population.noise.block
        plain = leave_own_block_out(values, block)
        kept = _usable(values, block)
        if kept.size < _LEAST_BLOCKS:
            return Centered(plain)
        level = float(values.reshape(-1, block)[kept].mean())
        norms = population.noise.norms()
        tops = ((values - level) * norms).reshape(-1, block).sum(axis=1)
        bottoms = norms.reshape(-1, block).sum(axis=1)
        top, bottom = tops[kept].sum() - tops, bottoms[kept].sum() - bottoms
        mean_of_others = values - plain
        # Other blocks without any noise have a mean and nothing else.
        ratio = np.repeat(level + top / np.where(bottom > 0.0, bottom, 1.0), block)
        best = np.where(np.repeat(bottom > 0.0, block), ratio, mean_of_others)
        return Centered(values - best, scale_values=values - (2.0 * best - mean_of_others))

    def learn(self, values: Array, population: Population, gradient: Gradient, state: State) -> State:
        return state


@dataclass(frozen=True)
class OptimalPerCoordinate:
    """Subtract b_i = E[y eps_i^2] in coordinate i, the constants with the least variance of the mean's gradient.

    b_i = m + t_i with m = E y and t_i = E[y He_2(eps_i)]. m is estimated by the mean of all other blocks, t_i by
    1/n sum (y - mean(y)) He_2(eps_i) over the half of the blocks that a block is not in (every second one); unbiased.
    On a quadratic t_i = sigma^2 H_ii, and the variance per row is that with the baseline m less sigma^2 sum_i H_ii^2:
    a factor of up to 1 + 2 / (d + 2). The gradient of the scale uses m + 2 t_i, its own best constants there, and gains
    8 sum_i H_ii^2 in log sigma_i (H scaled by sigma).

    The estimates of t_i cost variance of their own, a share of 4 / n of the whole or more: for n well above 2 d, and a
    Hessian near to a diagonal one. The mean's gradient from antithetic pairs does not depend on it. With fewer than
    four usable blocks it is the leave-one-out mean. Takes one more pass over the noise, and more sums in the last one
    for the standard errors; memory for a dozen vectors (d,).

    Raises
    ------
    ValueError  for a scale that is neither one number nor one per coordinate: the coordinates of the noise are then not
    those of the gradient.

    References
    ----------
    Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.

    Examples
    --------
    >>> import numpy as np, esopt
    >>> def errors(baseline):
    ...     sphere = dict(f=lambda x: float(x @ x), x=np.zeros(2), sigma=1.0, n=1000, seed=0, sampler=esopt.Gaussian())
    ...     return np.linalg.norm(esopt.smoothed_gradient(**sphere, baseline=baseline).mean_stderr)
    >>> bool(errors(esopt.OptimalPerCoordinate()) < 0.85 * errors(esopt.LeaveOneOut()))
    True
    """

    @property
    def raw_only(self) -> bool:
        return False

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        population.sigma("OptimalPerCoordinate()")
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: State) -> Centered:
        noise = population.noise
        plain = leave_own_block_out(values, noise.block)
        kept = _usable(values, noise.block)
        if kept.size < _LEAST_BLOCKS:
            return Centered(plain)
        by_block = values.reshape(-1, noise.block)
        weights = np.zeros((2, *by_block.shape))
        groups = np.zeros(len(by_block), np.intp)
        for half in (0, 1):
            own, others = kept[half::2], kept[1 - half :: 2]
            groups[own] = half
            weights[half, others] = (by_block[others] - by_block[others].mean()) / by_block[others].size
        extra = moment(noise, weights.reshape(2, -1), 2)
        return Centered(plain, offsets=Offsets(np.repeat(groups, noise.block), extra, 2.0 * extra))

    def learn(self, values: Array, population: Population, gradient: Gradient, state: State) -> State:
        return state


def _usable(values: Array, block: int) -> NDArray[np.intp]:
    """Return the numbers of the blocks without a failure."""
    return np.flatnonzero(np.isfinite(values.reshape(-1, block)).all(axis=1))
