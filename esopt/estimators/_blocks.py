"""Blocks of dependent rows: which are usable, and standard errors from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from ..noise import Array
from ..records import Population


def usable_rows(finite: NDArray[np.bool_], population: Population) -> tuple[NDArray[np.bool_], int]:
    """Return which rows belong to a block without failures, (n,), and the number of such blocks.

    Raises
    ------
    EvaluationError  if no block is left.
    """
    block = population.noise.block
    if finite.all():
        return finite, finite.size // block
    good = finite.reshape(-1, block).all(axis=1)
    if not good.any():
        what = "candidate" if block == 1 else f"block of {block} candidates"
        raise EvaluationError(
            f"no usable {what} in generation {population.noise.key.generation}: {int((~finite).sum())} of {finite.size} evaluations failed.\n"
            "Check the objective at es.mean, or start from a point and with a sigma where it can be evaluated."
        )
    return np.repeat(good, block), int(good.sum())


def standard_error(total: Array, block_squares: Array, blocks: int) -> Array:
    """Return the standard error of ``total`` = sum_b s_b from sum_b s_b^2, both (d,); overwrites ``block_squares``.

    With T_b = B s_b the estimate is the mean of T_b; its squared error is (B sum s_b^2 - total^2) / (B - 1).
    """
    if blocks < 2:
        return np.full_like(total, np.nan)
    block_squares *= blocks
    block_squares -= total * total
    np.maximum(block_squares, 0.0, out=block_squares)
    block_squares /= blocks - 1
    return np.sqrt(block_squares, out=block_squares)


def mean_and_error(rows: Array, block: int) -> tuple[float, float]:
    """Return the mean of (m,) numbers in blocks, and its standard error from the means of the blocks (nan for one block)."""
    mean = float(rows.sum()) / rows.size
    blocks = rows.size // block
    if blocks < 2:
        return mean, float("nan")
    deviations = rows.reshape(blocks, block).sum(axis=1) / block - mean
    return mean, float(np.sqrt(deviations @ deviations / (blocks * (blocks - 1))))
