"""Gradients from values alone: the score-function estimator.

grad_mean J = E[f(x) eps / sigma], dJ/dsigma = E[f(x) (|eps|^2 - d)] / sigma, dJ/dlog sigma_i = E[f(x) (eps_i^2 - 1)].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..baselines.leave_one_out import LeaveOneOut
from ..noise import Array, moment
from ..protocols import Baseline, State
from ..records import Evals, Gradient, Population, Scale
from ._blocks import mean_and_error, standard_error, usable_rows


@dataclass(frozen=True)
class ScoreState:
    """State of the baseline."""

    baseline: State


@dataclass(frozen=True)
class Score:
    """Average of (value - baseline) * eps / sigma: any f, noisy and discontinuous ones included.

    Unbiased with every baseline. Its variance per row with the mean baseline is (d + nu) Var f / sigma^2 - |grad J|^2, where
    nu = dlog Var f / dlog sigma. Where a shaping replaced the values, it estimates the gradient of the utilities and its standard errors are
    conditional on them.

    Parameters
    ----------
    baseline : control variate for the values.
    with_scale : also estimate the gradient of the scale.

    References
    ----------
    Williams (1992), Simple statistical gradient-following algorithms; Wierstra et al. (2014), Natural evolution strategies, eq. 3.
    """

    baseline: Baseline = field(default_factory=LeaveOneOut)
    with_scale: bool = False

    @property
    def raw_only(self) -> bool:
        return self.baseline.raw_only

    def init(self, dim: int) -> ScoreState:
        return ScoreState(self.baseline.init(dim))

    def prepare(self, population: Population, state: ScoreState) -> Population:
        return self.baseline.prepare(population, state.baseline)

    def estimate(self, population: Population, evals: Evals, state: ScoreState) -> tuple[Gradient, ScoreState]:
        """Return the gradient, and the state with what the baseline learned.

        Raises
        ------
        EvaluationError  if no block of rows is free of failures.
        """
        n, noise = population.n, population.noise
        values = evals.values[:n]
        utilities = values if evals.utilities is None else evals.utilities
        rows, blocks = usable_rows(np.isfinite(utilities), population)
        everything = blocks * noise.block == n
        kept = utilities if everything else np.where(rows, utilities, np.nan)
        weights = self.baseline.center(kept, population, evals, state.baseline).values / (blocks * noise.block)
        if not everything:
            weights = np.where(rows, weights, 0.0)
        mean, mean_stderr, scale, scale_stderr = self._moments(population, weights, blocks)
        finite = rows & np.isfinite(values)
        used = values if finite.all() else values[finite]
        value, value_stderr = mean_and_error(used, noise.block) if used.size % noise.block == 0 and used.size else (np.nan, np.nan)
        gradient = Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population), scale, scale_stderr)
        return gradient, ScoreState(self.baseline.learn(kept, population, state.baseline))

    def _moments(
        self, population: Population, weights: Array, blocks: int
    ) -> tuple[Array, Array, Scale | None, Scale | None]:
        noise, sigma = population.noise, population.scale
        diagonal = self.with_scale and np.ndim(sigma) == 1
        table = np.stack([weights, weights]) if diagonal else weights[None, :]
        sums, squares = moment(noise, table, (1, 2) if diagonal else (1,), squares=True)
        mean_stderr = standard_error(sums[0], squares[0], blocks)
        mean = sums[0]
        mean /= sigma
        mean_stderr /= sigma
        if diagonal:
            return mean, mean_stderr, sums[1], standard_error(sums[1], squares[1], blocks)
        if not self.with_scale:
            return mean, mean_stderr, None, None
        terms = weights * (noise.norms() - noise.dim)
        by_block = terms.reshape(-1, noise.block).sum(axis=1)
        total = by_block.sum(keepdims=True)
        stderr = standard_error(total, (by_block @ by_block)[None], blocks)
        return mean, mean_stderr, float(total[0] / sigma), float(stderr[0] / sigma)
