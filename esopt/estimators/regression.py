"""Gradients from values alone: the slope of the plane through them.

With values y_i at mean + L eps_i, least squares of y on eps has the slope L^T grad J in the limit of many rows: the
slope of a regression on rows with mean 0 and covariance I is E[y eps].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..noise import Array
from ..protocols import State
from ..records import Evals, Gradient, Population
from ._blocks import mean_value, usable_blocks

_TAG = "past"
# Eigenvalues of the Gram matrix below this share of the largest are taken for zero: singular values below 1e-6.
_RANK = 1e-12


@dataclass(frozen=True, eq=False)
class RegressionState:
    """The last estimates of the mean's gradient, newest first, (up to ``recycle``, d)."""

    past: Array


@dataclass(frozen=True)
class Regression:
    """Slope of the least-squares plane through the values: exact on linear functions, on quadratics for pairs.

    Rows are fitted with an intercept. Mirrored pairs are fitted without one, by half their differences: what is even
    in f plays no part. A pair, or a row, is one direction.

    **More directions than dimensions** (more than d pairs, more than d + 1 rows): ordinary least squares. Consistent
    for every f; unbiased on quadratics, from pairs without error; elsewhere the bias falls with the number of rows.
    On a quadratic the total variance from n rows is about (d / 2 + 2) sigma^2 |H|_F^2 / n, that of :class:`Score`
    without its gradient term; near d + 2 rows it is several times more. Standard errors leave out one block at a time
    (HC3), so that values may be noisier in some places than in others and rows of a block may depend on each other.

    **Fewer directions**: the solution of minimum norm, which is the gradient's projection on the directions seen. Its
    mean is k / d of the gradient for k random directions, its mean squared error (1 - k / d) |grad|^2: shorter than
    the gradient, never longer on a linear f. Standard errors are nan: they could not see what is missing. ``notes``
    say which of the two it was.

    Parameters
    ----------
    recycle : how many of the last estimates to try again, on both sides of the mean at the distance of the other rows:
        2 evaluations each and generation. With fewer directions than dimensions the estimate is then the projection on
        the last estimates and the new directions. On a linear f, with P new orthogonal directions and rho the cosine
        between the last estimate and the gradient, it keeps rho^2 + (1 - rho^2) P / (d - 1) of the gradient's squared
        length. The first generation has no past and is that much smaller. Needs values as they are.

    Notes
    -----
    For any law of the rows with mean 0 and covariance I; one that is not Gaussian smooths by a kernel of its own, as
    with :class:`Score`. With d independent pairs, or d + 1 independent rows, the design is nearly singular and
    whatever is not linear (not quadratic, for pairs) is amplified: take ``Antithetic(Orthogonal())``, whose
    directions are as far apart as they can be.

    Squared standard errors are right on average. Where a few blocks carry most of the variance, though, most of them
    are too small: on exp(a . x) with |a| sigma = 0.8 and d = 6, the error over the standard error has a variance of 2.6
    from 128 pairs and 1.65 from 512, in place of 1; with :class:`Score` it has 1.25 and 1.05.

    Recycling pays with :class:`esopt.SGD`. A rule that averages over generations, as Adam does, carries the past
    already, and takes what was recycled for new evidence. The two sides of a recycled direction do not share an
    evaluation seed, unless all rows do (``share="generation"``).

    Keeps n d numbers while it computes, and costs O(n d min(n, d)) operations.

    References
    ----------
    Conn, Scheinberg, Vicente (2009), Introduction to derivative-free optimization, sections 2.3 and 4.3 (regression
    and minimum-norm gradients). Meier, Mujika, Gauy, Steger (2019), Improving gradient estimation in evolutionary
    strategies with past descent directions. Long, Ervin (2000), Using heteroscedasticity consistent standard errors
    in the linear regression model (HC3).

    Examples
    --------
    >>> import esopt
    >>> g = esopt.smoothed_gradient(lambda x: x @ [1.0, 2.0], [0.0, 0.0], n=8, estimator=esopt.Regression())
    >>> g.mean.round(6).tolist()
    [1.0, 2.0]
    """

    recycle: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.recycle, (int, np.integer)) and not isinstance(self.recycle, bool)
        if not (whole and self.recycle >= 0):
            raise ValueError(
                f"recycle must be a whole number of directions, got {self.recycle!r}. Pass 0 for none, or 1."
            )

    @property
    def with_scale(self) -> bool:
        return False

    @property
    def raw_only(self) -> bool:
        return self.recycle > 0

    def init(self, dim: int) -> RegressionState:
        return RegressionState(np.zeros((0, dim)))

    def prepare(self, population: Population, state: RegressionState) -> Population:
        """Add both sides of the recycled directions.

        Raises
        ------
        ValueError  for a scale that is neither a number, nor one per coordinate, nor a factor.
        """
        if not self.recycle:
            return population
        directions = _directions(state.past, population)
        if not len(directions):
            return population
        steps = _apply(directions, population)
        sides = np.stack([steps, -steps], axis=1).reshape(-1, population.dim)
        return population.with_extra(_TAG, population.mean + sides)

    def estimate(self, population: Population, evals: Evals, state: State) -> tuple[Gradient, State]:
        """Return the gradient, and the state with it as the newest of the past.

        Raises
        ------
        EvaluationError  if no block of rows is free of failures.
        """
        noise = population.noise
        values = evals.values[: noise.n]
        utilities = values if evals.utilities is None else evals.utilities
        blocks, used = usable_blocks(utilities, population)
        x, y = _design(population, utilities, used)
        own = len(y)
        if self.recycle and len(state.past):
            x, y = self._with_past(x, y, population, evals, state)
        fit = _fit(x, y, intercept=not noise.mirrored)
        mean, mean_stderr = _unscale(fit.slope[None], population)[0], np.full(noise.dim, np.nan)
        if fit.rank == noise.dim and blocks > 1:
            size = noise.block // 2 if noise.mirrored else noise.block
            mean_stderr = _jackknife(fit, own, size, population)
        value, value_stderr = mean_value(values, noise.block)
        notes = _notes(fit.rank, noise.dim)
        gradient = Gradient(mean, mean_stderr, blocks, value, value_stderr, len(population), notes=notes)
        if not self.recycle:
            return gradient, state
        return gradient, RegressionState(np.concatenate([mean[None], state.past])[: self.recycle])

    def _with_past(
        self, x: Array, y: Array, population: Population, evals: Evals, state: RegressionState
    ) -> tuple[Array, Array]:
        """Return the design and the values with those of the recycled directions, less those that failed."""
        sides = evals.values[population.tagged(_TAG)].reshape(-1, 2)
        found = np.isfinite(sides).all(axis=1)
        directions, sides = _directions(state.past, population)[found], sides[found]
        if population.noise.mirrored:
            return np.concatenate([x, directions]), np.concatenate([y, 0.5 * (sides[:, 0] - sides[:, 1])])
        both = np.stack([directions, -directions], axis=1).reshape(-1, population.dim)
        return np.concatenate([x, both]), np.concatenate([y, sides.ravel()])


def _apply(eps: Array, population: Population) -> Array:
    """Return L eps_i for the rows, (m, d)."""
    factor = population.factor
    return eps * population.sigma("Regression()") if factor is None else eps @ factor.T


def _unscale(slopes: Array, population: Population) -> Array:
    """Return L^-T b_i for slopes b_i in the coordinates of the noise, (m, d)."""
    factor = population.factor
    if factor is None:
        return np.asarray(slopes / population.sigma("Regression()"))
    return np.asarray(np.linalg.solve(factor.T, slopes.T).T, np.float64)


def _directions(past: Array, population: Population) -> Array:
    """Return L^T g_i of the past gradients, newest first, orthonormalised, times sqrt(d): (at most k, d)."""
    factor = population.factor
    slopes = past * population.sigma("Regression()") if factor is None else past @ factor
    basis = np.zeros((0, population.dim))
    for slope in slopes:
        length = float(np.linalg.norm(slope))
        if not 0.0 < length < np.inf or len(basis) == population.dim:
            continue
        left = slope / length
        for _ in range(2):  # The second time removes what rounding left.
            left = left - (basis @ left) @ basis
        rest = float(np.linalg.norm(left))
        if rest > 1e-6:
            basis = np.concatenate([basis, left[None] / rest])
    return np.asarray(basis * np.sqrt(population.dim), np.float64)


def _design(population: Population, values: Array, used: NDArray[np.bool_] | None) -> tuple[Array, Array]:
    """Return the usable rows of noise and their values; of pairs the positive rows, and half the differences."""
    noise = population.noise
    step = 2 if noise.mirrored else 1
    x = np.empty((noise.n // step, noise.dim))
    for rows, columns, eps in noise.tiles():
        x[rows.start // step : rows.stop // step, columns] = eps[::step]
    y = 0.5 * (values[::2] - values[1::2]) if noise.mirrored else values
    return (x, y) if used is None else (x[used[::step]], y[used[::step]])


class _Fit(NamedTuple):
    """Least squares with the design (m, d) centred if there is an intercept; ``inverse`` is (X^T X)^+ if m >= d."""

    x: Array
    slope: Array
    residuals: Array
    inverse: Array
    rank: int
    intercept: bool


def _fit(x: Array, y: Array, *, intercept: bool) -> _Fit:
    """Return the least-squares solution of minimum norm, by the Gram matrix of the shorter side.

    The squared condition number of the Gram matrix is made good by one step of refinement.
    """
    if intercept:
        x, y = x - x.mean(axis=0), y - y.mean()
    wide = len(x) < x.shape[1]
    eigenvalues, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = eigenvalues > _RANK * max(eigenvalues[-1], 0.0)
    inverse = (vectors[:, kept] / eigenvalues[kept]) @ vectors[:, kept].T

    def solve(right: Array) -> Array:
        found: Array = x.T @ (inverse @ right) if wide else inverse @ (x.T @ right)
        return found

    slope = solve(y)
    slope = slope + solve(y - x @ slope)
    return _Fit(x, slope, y - x @ slope, inverse, int(kept.sum()), intercept)


def _jackknife(fit: _Fit, own: int, size: int, population: Population) -> Array:
    """Return the standard errors, (d,), from leaving out blocks of ``size`` of the ``own`` rows; nan if that fails.

    slope - slope without block b = (X^T X)^-1 X_b^T (I - H_bb)^-1 r_b, with the hat matrix H and the residuals r. The
    rows after the first ``own`` are both sides of a recycled direction, or its half difference: a block each.
    """
    total, blocks = np.zeros(population.dim), 0
    rest = len(fit.x) - own
    for rows, length in ((slice(0, own), size), (slice(own, own + rest), 2 if fit.intercept else 1)):
        x = fit.x[rows].reshape(-1, length, population.dim)
        residuals = fit.residuals[rows].reshape(-1, length, 1)
        influence = x @ fit.inverse
        left = np.eye(length) - influence @ x.transpose(0, 2, 1) - (1.0 / len(fit.x) if fit.intercept else 0.0)
        if len(x) and np.linalg.eigvalsh(left).min() < 1e-9:
            return np.full(population.dim, np.nan)  # Without this block the rest has no unique solution.
        by_block = (np.linalg.solve(left, residuals).transpose(0, 2, 1) @ influence)[:, 0]
        total += np.square(_unscale(by_block, population)).sum(axis=0)
        blocks += len(x)
    return np.asarray(np.sqrt(total * (blocks - 1) / blocks))


def _notes(rank: int, dim: int) -> dict[str, float | str]:
    if rank == dim:
        return {"rank": float(rank), "regression": "least squares"}
    what = f"minimum norm: the projection on {rank} of {dim} dimensions, on average {rank / dim:.3g} of the gradient"
    return {"rank": float(rank), "regression": what}
