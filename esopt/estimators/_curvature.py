"""The Hessian of J in the coordinates of x where the scale is a factor L, with errors in those coordinates.

H = L^-T (2 S) L^-1 of the local matrix S, block by block: with e_i = L^-T eps_i, values give sum w_i (e_i e_i^T -
Sigma^-1), gradients the symmetric part of sum g_i e_i^T.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..noise import Array, Given
from ..protocols import Estimator, State
from ..records import Evals, Gradient, Population
from ._blocks import mean_value, usable_blocks
from ._full import chunks, local_matrix
from .price import Price
from .score import Score


def curvature(population: Population, evals: Evals, estimator: Estimator, state: State) -> Gradient:
    """Return the estimate whose ``scale`` is half the Hessian in x; ``population`` has a factor.

    Raises
    ------
    ValueError  for a baseline that is not one number for all coordinates.
    """
    factor = population.factor
    if factor is None:
        raise ValueError(f"curvature() got the scale {population.scale!r}. Pass a factor (d, d).")
    inverse: Array = np.linalg.inv(factor).astype(np.float64)
    if isinstance(estimator, Score):
        return _from_values(population, evals, estimator, state, inverse)
    if not isinstance(estimator, Price):
        population = replace(population, noise=_mapped(population, inverse))
    return estimator.estimate(replace(population, scale=np.eye(population.dim)), evals, state)[0]


def _mapped(population: Population, inverse: Array) -> Given:
    """Return the rows L^-T eps_i."""
    noise = population.noise
    rows = np.empty((noise.n, noise.dim))
    for part in chunks(noise.n, noise.dim, noise.block):
        rows[part] = noise.rows(part.start, part.stop) @ inverse
    if noise.mirrored:
        rows[1::2] = -rows[::2]
    return Given(rows, noise.block, noise.mirrored, noise.key, noise.law)


def _from_values(population: Population, evals: Evals, estimator: Score, state: State, inverse: Array) -> Gradient:
    noise, values = population.noise, evals.values[: population.n]
    blocks, rows = usable_blocks(values, population, pairs=True)
    kept = values if rows is None else np.where(rows, values, np.nan)
    centered = estimator.baseline.center(kept, population, evals, state.baseline)
    if centered.offsets is not None or centered.scale is not None:
        raise ValueError(
            f"smoothed_hessian() got the baseline {estimator.baseline!r} and a factor as sigma; such a baseline "
            "differs between coordinates. Pass one that subtracts a number, as LeaveOneOut() does, or one sigma per "
            "coordinate."
        )
    by_row = centered.values if centered.scale_values is None else centered.scale_values
    half = 0.5 * by_row / (noise.n if rows is None else np.count_nonzero(rows))
    half = half if rows is None else np.where(rows, half, 0.0)
    folded = 2 if noise.mirrored else 1
    if noise.mirrored:
        half = half[::2] + half[1::2]

    def pair(part: slice) -> tuple[Array, Array]:
        eps = noise.rows(part.start, part.stop)[::folded] @ inverse
        return eps * half[part.start // folded : part.stop // folded, None], eps

    size = noise.block // folded
    constants = half.reshape(-1, size).sum(axis=1)
    scale, error = local_matrix(noise, pair, blocks, size, constants, inverse.T @ inverse)
    value, value_stderr = mean_value(values, noise.block)
    nothing = np.full(noise.dim, np.nan)
    return Gradient(nothing, nothing, blocks, value, value_stderr, len(population), scale, error)
