"""Gradients from values along a preferred subspace: guided evolution strategies.

The search covariance is sigma^2 S^2 with S^2 = alpha I + (1 - alpha) (d / k) U U^T, U (d, k) orthonormal, trace d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._parts import check_instance
from ..baselines.leave_one_out import LeaveOneOut
from ..baselines.linear import Linear
from ..baselines.optimal import OptimalPerCoordinate
from ..baselines.quadratic import Quadratic
from ..noise import Array, moment, project
from ..protocols import Baseline, State
from ..records import Evals, Gradient, Population, Scale
from ._blocks import divide_with_error, mean_value, usable_blocks

_NUMBERS = 1 << 15
"""Entries of the noise that are moved at a time, so that they stay in the cache."""

_DEPENDENT = 1e-8
"""A direction whose part outside the others is shorter than this share of it adds nothing to them."""


@dataclass(frozen=True, eq=False)
class GuidedState:
    """State of the baseline, the last gradients, newest first, (m, d), and the basis of the subspace, (d, k)."""

    baseline: State
    past: Array
    basis: Array


@dataclass(frozen=True, eq=False)
class _GuidedScale:
    """The map eps to sigma * S eps, S = p I + r U U^T the symmetric root of S^2."""

    sigma: Scale
    basis: Array
    alpha: float

    @property
    def root(self) -> tuple[float, float]:
        """The numbers p and r of S."""
        dim, k = self.basis.shape
        inside, outside = math.sqrt(self.alpha + (1.0 - self.alpha) * dim / k), math.sqrt(self.alpha)
        return outside, inside - outside

    @property
    def inverse_root(self) -> tuple[float, float]:
        """Those of the inverse of S."""
        outside, change = self.root
        return 1.0 / outside, 1.0 / (outside + change) - 1.0 / outside

    def apply(self, eps: Array) -> Array:
        """Return sigma * S eps_i for every row, (m, d); one direction after the other, each row by itself."""
        outside, change = self.root
        out, directions = np.empty(eps.shape), np.ascontiguousarray(self.basis.T)
        height = max(1, _NUMBERS // eps.shape[1])
        for start in range(0, len(eps), height):
            rows = eps[start : start + height]
            moved = outside * rows
            for direction in directions:
                moved += (change * (rows * direction).sum(axis=1))[:, None] * direction
            np.multiply(moved, self.sigma, out=out[start : start + height])
        return out


@dataclass(frozen=True, eq=False)
class Guided:
    """Score with more of its search along a subspace that is given, or spanned by the last estimates.

    With a the gradient of a linear f and S^2 the covariance above, ``unbiased`` multiplies the score by the inverse of
    S: an antithetic pair then has the variance (a' S^2 a) tr S^-2 + |a|^2. Otherwise it is the published estimator,
    which expects S^2 a / d and has the variance ((a' S^2 a) d + |S^2 a|^2) / d^2.

    Parameters
    ----------
    subspace : (d, k) or (d,), spans the subspace; None to learn it.
    past : how many of the latest estimates span the subspace that is learned. Without any the search is isotropic.
    alpha : share of the search that ignores the subspace, in (0, 1]; 0 only for the biased form.
    unbiased : for the gradient of J; False for the published estimator, which favours the subspace.
    baseline : control variate for the values; only one that subtracts numbers.

    Notes
    -----
    J is smoothed by the guided covariance: on a quadratic its gradient is that of isotropic smoothing, elsewhere it is
    not. The unbiased form is precise inside the subspace and pays for it outside: where the subspace holds more of a
    than one at random, its total variance is above the (d + 1) |a|^2 of Score. Where a step need not be unbiased, the
    published form points closer to the gradient. For rows that are not Gaussian see the notes of :class:`esopt.Score`.
    The published perturbations of total variance s^2 are those of sigma = s / sqrt(d); its factor beta is 1. The
    estimates that span the subspace are of earlier generations only.

    References
    ----------
    Maheswaranathan, Metz, Tucker, Choi, Sohl-Dickstein (2019), Guided evolutionary strategies, eqs. 2 and 3.

    Examples
    --------
    >>> import numpy as np, esopt
    >>> guided = esopt.Guided(subspace=np.eye(20)[:, :1])
    >>> g = esopt.smoothed_gradient(lambda x: float(x @ x), np.ones(20), n=4000, estimator=guided)
    >>> bool(g.mean_stderr[0] < 0.5 * g.mean_stderr[1:].min())
    True
    """

    subspace: Array | None = None
    past: int = 1
    alpha: float = 0.5
    unbiased: bool = True
    baseline: Baseline = field(default_factory=LeaveOneOut)

    def __post_init__(self) -> None:
        check_instance("baseline", self.baseline, Baseline, "LeaveOneOut()")
        if isinstance(self.baseline, (Linear, OptimalPerCoordinate, Quadratic)):
            raise ValueError(_more_than_numbers(self.baseline))
        if isinstance(self.past, bool) or not isinstance(self.past, (int, np.integer)) or self.past < 1:
            raise ValueError(f"past must be a positive whole number, got {self.past!r}. The default is 1.")
        if not (0.0 < self.alpha <= 1.0 or (self.alpha == 0.0 and not self.unbiased)):
            raise ValueError(
                f"alpha must be in (0, 1], got {self.alpha!r}. The default is 0.5; 0 is for unbiased=False alone."
            )
        if self.subspace is not None:
            object.__setattr__(self, "subspace", _check_subspace(self.subspace))

    @property
    def with_scale(self) -> bool:
        return False

    @property
    def raw_only(self) -> bool:
        return self.baseline.raw_only

    def init(self, dim: int) -> GuidedState:
        """Return the state before the first generation.

        Raises
        ------
        ValueError  for a subspace of another dimension.
        """
        known = np.zeros((dim, 0)) if self.subspace is None else self.subspace
        if len(known) != dim:
            raise ValueError(
                f"Guided() got a subspace of shape {known.shape} in {dim} dimensions. Pass directions as columns of "
                f"length {dim}."
            )
        return GuidedState(self.baseline.init(dim), np.zeros((0, dim)), _orthonormal(known.T))

    def prepare(self, population: Population, state: GuidedState) -> Population:
        """Stretch the scale along the subspace, and add what the baseline needs.

        Raises
        ------
        ValueError  for a scale that is neither a number nor one per coordinate.
        """
        sigma = population.sigma("Guided()")
        prepared = self.baseline.prepare(population, state.baseline)
        return replace(prepared, scale=_GuidedScale(sigma, state.basis, self.alpha)) if state.basis.size else prepared

    def estimate(self, population: Population, evals: Evals, state: GuidedState) -> tuple[Gradient, GuidedState]:
        """Return the gradient, and the state with what it adds to the subspace and to the baseline.

        Raises
        ------
        ValueError  for a baseline that subtracts more than numbers.
        EvaluationError  if no block of rows is free of failures.
        """
        noise = population.noise
        values = evals.values[: noise.n]
        utilities = values if evals.utilities is None else evals.utilities
        blocks, rows = usable_blocks(utilities, population)
        kept = utilities if rows is None else np.where(rows, utilities, np.nan)
        centered = self.baseline.center(kept, population, evals, state.baseline)
        if centered.mean is not None or centered.offsets is not None:
            raise ValueError(_more_than_numbers(self.baseline))
        weights = centered.values / (blocks * noise.block)
        if rows is not None:
            weights = np.where(rows, weights, 0.0)
        mean, mean_stderr = self._moments(population, weights, blocks)
        value, value_stderr = mean_value(values, noise.block)
        gradient = Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population))
        baseline = self.baseline.learn(kept, population, gradient, state.baseline)
        return gradient, self._learn(mean, baseline, state)

    def _moments(self, population: Population, weights: Array, blocks: int) -> tuple[Array, Array]:
        """Return M sum_b e_b / sigma and its standard error, e_b the block sums of weights * eps, M = p I + r U U^T."""
        noise, scale = population.noise, population.scale
        if not isinstance(scale, _GuidedScale):
            total, squares = moment(noise, weights, squares=True)
            return divide_with_error(total, squares, blocks, population.sigma("Guided()"))
        basis = scale.basis
        along = np.array([project(noise, direction) for direction in np.ascontiguousarray(basis.T)]) * weights
        # t_bj = e_b . u_j, (k, B).
        t = along.reshape(len(along), -1, noise.block).sum(axis=2)
        table = np.concatenate([weights[None, :], weights * np.repeat(t, noise.block, axis=1)])
        sums, block_squares = moment(noise, table, squares=True)
        p, r = scale.inverse_root if self.unbiased else scale.root
        total = p * sums[0] + r * np.einsum("dk,k->d", basis, t.sum(axis=1))
        # sum_b (M e_b)^2 = p^2 sum e_b^2 + 2 p r sum_j u_j sum_b t_bj e_b + r^2 sum_jl u_j u_l sum_b t_bj t_bl
        crossed = np.einsum("dk,kd->d", basis, sums[1:])
        gram = np.einsum("dl,dl->d", np.einsum("dk,kl->dl", basis, np.einsum("kb,lb->kl", t, t)), basis)
        squares = p * p * block_squares[0] + 2.0 * p * r * crossed + r * r * gram
        size = 1.0 if self.unbiased else float(noise.dim)
        return divide_with_error(total, squares, blocks, np.asarray(scale.sigma) * size)

    def _learn(self, mean: Array, baseline: State, state: GuidedState) -> GuidedState:
        """Return the state whose subspace the estimate ``mean`` has joined, unless the subspace is given."""
        if self.subspace is not None or not (np.isfinite(mean).all() and mean.any()):
            return replace(state, baseline=baseline)
        past = np.concatenate([mean[None, :], state.past])[: self.past]
        return GuidedState(baseline, past, _orthonormal(past))


def _more_than_numbers(baseline: Baseline) -> str:
    return (
        f"Guided() got the baseline {baseline}, which subtracts functions of x or numbers of each coordinate, but the "
        "coordinates of its noise are not those of x. Use LeaveOneOut() or another baseline that subtracts one number."
    )


def _check_subspace(subspace: Any) -> Array:
    """Return ``subspace`` as (d, k) floats whose columns are independent."""
    columns = np.array(subspace, np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or not columns.size or not np.isfinite(columns).all():
        raise ValueError(f"subspace must be finite numbers (d, k), got shape {np.shape(subspace)}. Pass k directions.")
    rank = _orthonormal(columns.T).shape[1]
    if rank < columns.shape[1]:
        raise ValueError(
            f"the {columns.shape[1]} columns of subspace {columns.shape} span {rank} dimensions. Pass independent ones."
        )
    return columns


def _orthonormal(rows: Array) -> Array:
    """Return an orthonormal basis of the span of ``rows`` (m, d), (d, k <= m), by Gram-Schmidt, twice.

    In a fixed order without BLAS, whose bits depend on the number of its threads.
    """
    basis: list[Array] = []
    for row in rows:
        unit = row / (np.abs(row).max() or 1.0)
        length = math.sqrt(float(np.square(unit).sum()))
        for _ in range(2):
            for known in basis:
                unit = unit - float((unit * known).sum()) * known
        left = math.sqrt(float(np.square(unit).sum()))
        if left > _DEPENDENT * length:
            unit = unit / left
            basis.append(unit)
    return np.array(basis).reshape(len(basis), rows.shape[1]).T.copy()
