"""Gradients from values alone: the score-function estimator.

grad_mean J = E[f(x) eps / sigma], dJ/dsigma = E[f(x) (|eps|^2 - d)] / sigma, dJ/dlog sigma_i = E[f(x) (eps_i^2 - 1)];
for a factor L of the covariance E[f(x) L^-T eps] and 1/2 E[f(x) (eps eps^T - I)], the local matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._parts import check_instance
from ..baselines.leave_one_out import LeaveOneOut
from ..noise import Array, Law, moment
from ..protocols import Baseline, State
from ..records import Evals, Gradient, Population, Scale
from ._apart import known_scale, moments_apart
from ._blocks import divide_with_error, mean_value, scalar_with_error, usable_blocks
from ._full import scores
from ._reweighted import reweighted


@dataclass(frozen=True)
class ScoreState:
    """State of the baseline."""

    baseline: State


@dataclass(frozen=True)
class Score:
    """Average of (value - baseline) * eps / sigma: any f, noisy and discontinuous ones included.

    Unbiased with every baseline. Its variance per row with the mean baseline is (d + nu) Var f / sigma^2 - |grad J|^2,
    where nu = dlog Var f / dlog sigma. Where a shaping replaced the values, it estimates the gradient of the utilities
    and its standard errors are conditional on them.

    Parameters
    ----------
    baseline : control variate for the values.
    with_scale : also estimate the gradient of the scale. For Gaussian rows only.

    Notes
    -----
    For another law of the rows (sphere, signs, low rank) the mean's gradient is E[f(x) eps / sigma] under that law: a
    finite-difference gradient smoothed by a kernel of its own, which is grad J for polynomials of degree 2 and differs
    from it beyond. The scale's gradient rests on Stein's identity for |eps|^2, which holds for Gaussian rows alone.

    References
    ----------
    Williams (1992), Simple statistical gradient-following algorithms; Wierstra et al. (2014), Natural evolution
    strategies, eq. 3.
    """

    baseline: Baseline = field(default_factory=LeaveOneOut)
    with_scale: bool = False

    def __post_init__(self) -> None:
        check_instance("baseline", self.baseline, Baseline, "LeaveOneOut()")

    @property
    def raw_only(self) -> bool:
        return self.baseline.raw_only

    def init(self, dim: int) -> ScoreState:
        return ScoreState(self.baseline.init(dim))

    def prepare(self, population: Population, state: ScoreState) -> Population:
        """Add what the baseline needs.

        Raises
        ------
        ValueError  with ``with_scale`` for rows that are not Gaussian.
        """
        law = population.noise.law
        if self.with_scale and law is not Law.GAUSSIAN:
            raise ValueError(
                f"Score(with_scale=True) got noise that is {law.value}; the gradient of the scale from values needs "
                "rows that are N(0, I). Use a sampler with Law.GAUSSIAN, Bonnet(with_scale=True), or keep the scale."
            )
        return self.baseline.prepare(population, state.baseline)

    def estimate(self, population: Population, evals: Evals, state: ScoreState) -> tuple[Gradient, ScoreState]:
        """Return the gradient, and the state with what the baseline learned.

        Raises
        ------
        EvaluationError  if no block of rows is free of failures.
        """
        noise = population.noise
        values = evals.values[: noise.n]
        utilities = values if evals.utilities is None else evals.utilities
        blocks, rows = usable_blocks(utilities, population, pairs=True)
        kept = utilities if rows is None else np.where(rows, utilities, np.nan)
        centered = self.baseline.center(kept, population, evals, state.baseline)
        value, value_stderr = mean_value(values, noise.block)
        if evals.stale:
            found = reweighted(population, rows, values, centered.values, evals.stale, with_scale=self.with_scale)
            notes = {"effective sample size": found.effective, "late rows": float(found.late)}
            about = found.blocks, value, value_stderr, len(population) + found.late
            gradient = Gradient(found.mean, found.mean_stderr, *about, found.scale, found.scale_stderr, notes)
            return gradient, ScoreState(self.baseline.learn(kept, population, gradient, state.baseline))
        weights = centered.values / (noise.n if rows is None else np.count_nonzero(rows))
        if rows is not None:
            weights = np.where(rows, weights, 0.0)
        if centered.offsets is None and (centered.scale_values is None or not self.with_scale):
            mean, mean_stderr, scale, scale_stderr = self._moments(population, weights, blocks)
        else:
            mean, mean_stderr, scale, scale_stderr = moments_apart(
                population, weights, centered, blocks, rows, self.with_scale
            )
        if centered.mean is not None:
            mean += centered.mean
        if centered.scale is not None and scale is not None:
            scale = scale + known_scale(centered.scale, population)
        gradient = Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population), scale, scale_stderr)
        return gradient, ScoreState(self.baseline.learn(kept, population, gradient, state.baseline))

    def _moments(
        self, population: Population, weights: Array, blocks: int
    ) -> tuple[Array, Array, Scale | None, Scale | None]:
        if population.factor is not None:
            return scores(population.noise, weights, population.factor, blocks, weights if self.with_scale else None)
        noise, sigma = population.noise, population.sigma("Score()")
        diagonal = self.with_scale and not isinstance(sigma, float)
        table = np.stack([weights, weights]) if diagonal else weights[None, :]
        sums, squares = moment(noise, table, (1, 2) if diagonal else (1,), squares=True)
        mean, mean_stderr = divide_with_error(sums[0], squares[0], blocks, sigma)
        if diagonal:
            return mean, mean_stderr, *divide_with_error(sums[1], squares[1], blocks)
        if isinstance(sigma, float) and self.with_scale:
            terms = weights * (noise.norms() - noise.dim)
            return mean, mean_stderr, *scalar_with_error(terms, noise.block, blocks, sigma)
        return mean, mean_stderr, None, None
