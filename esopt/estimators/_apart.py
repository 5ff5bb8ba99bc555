"""Moments of values whose baseline is not one number: another one for the scale, or one for each coordinate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..noise import Array, moment
from ..protocols import Centered, Offsets
from ..records import Population, Scale
from ._blocks import divide_with_error, scalar_with_error
from ._full import scores

Moments = tuple[Array, Array, Scale | None, Scale | None]


def known_scale(by_log: Array, population: Population) -> Scale:
    """Return a control variate's gradient in log sigma_i, (d,), as that in the scale of ``population``.

    Raises
    ------
    ValueError  for a factor.
    """
    sigma = population.sigma("Score() with a baseline that adds to the gradient of the scale")
    return float(by_log.sum()) / sigma if isinstance(sigma, float) else by_log


def moments_apart(
    population: Population,
    weights: Array,
    centered: Centered,
    blocks: int,
    rows: NDArray[np.bool_] | None,
    with_scale: bool,
) -> Moments:
    """Return the gradient of the mean and its standard error, and those of the scale, None without ``with_scale``.

    ``weights`` (n,) are those of the mean's gradient; ``rows`` (n,) are in the ``blocks`` usable blocks, None for all.

    Raises
    ------
    ValueError  for offsets with a factor.
    """
    noise, offsets = population.noise, centered.offsets
    unit = np.full(noise.n, 1.0 / (noise.n if rows is None else np.count_nonzero(rows)))
    by_scale = weights if centered.scale_values is None else centered.scale_values * unit
    if rows is not None:
        unit, by_scale = np.where(rows, unit, 0.0), np.where(rows, by_scale, 0.0)
    if population.factor is not None and offsets is None:
        return scores(noise, weights, population.factor, blocks, by_scale if with_scale else None)
    sigma = population.sigma("Score() with a baseline for each coordinate")
    # A constant drops out of the difference of a mirrored pair.
    parts = [_Coordinates(weights, unit, None if noise.mirrored else offsets, scale=False)]
    if with_scale and not isinstance(sigma, float):
        parts.append(_Coordinates(by_scale, unit, offsets, scale=True))
    degrees = [degree for degree, part in enumerate(parts, 1) for _ in part.table]
    sums, squares = moment(noise, np.concatenate([part.table for part in parts]), degrees, squares=True)
    first = len(parts[0].table)
    mean, error = divide_with_error(*parts[0].combine(sums[:first], squares[:first]), blocks, sigma)
    if not with_scale:
        return mean, error, None, None
    if not isinstance(sigma, float):
        return mean, error, *divide_with_error(*parts[1].combine(sums[first:], squares[first:]), blocks)
    terms = by_scale * (noise.norms() - noise.dim)
    if offsets is not None:
        for group, row in enumerate(offsets.scale):
            terms -= np.where(offsets.groups == group, unit, 0.0) * (noise.norms(row) - row.sum())
    return mean, error, *scalar_with_error(terms, noise.block, blocks, sigma)


class _Coordinates:
    """Sums of (w - o_i u) He(eps_i), and of their squares by block, for a vector o in each group of blocks.

    With the block sums s of w He, t of u He: sum (s - o t)^2 = sum s^2 - 2 o sum s t + o^2 sum t^2, and
    2 sum s t = sum (s + t)^2 - sum s^2 - sum t^2 over the blocks of a group. So moments of w, and of u and w + u in
    each group, are all it takes, however many coordinates.
    """

    def __init__(self, weights: Array, unit: Array, offsets: Offsets | None, *, scale: bool) -> None:
        if offsets is None:
            self.rows, self.table = np.empty((0, 0)), weights[None, :]
            return
        # Both of one size, as the weights of a moment are rounded to single precision.
        size = float(np.sqrt(weights @ weights / (unit @ unit))) or 1.0
        self.rows = (offsets.scale if scale else offsets.mean) / size
        units = np.where(offsets.groups == np.arange(len(self.rows))[:, None], size * unit, 0.0)
        self.table = np.concatenate([weights[None, :], units, weights + units])

    def combine(self, sums: Array, squares: Array) -> tuple[Array, Array]:
        """Return the sums and the sums of squares, (d,) each, from those of the table."""
        total, square, groups = sums[0], squares[0].copy(), len(self.rows)
        for group, row in enumerate(self.rows):
            own, both = squares[1 + group], squares[1 + groups + group]
            total = total - row * sums[1 + group]
            square += row * (row * own - (both - squares[0] - own))
        return total, square
