"""Blocks of dependent rows: which are usable, and standard errors from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._kernels import threads, vectors
from ..errors import EvaluationError
from ..noise import Array
from ..records import Population, Scale


def usable_blocks(
    values: Array, population: Population, *, pairs: bool = False
) -> tuple[int, NDArray[np.bool_] | None]:
    """Return the number of blocks without failures, and which rows belong to them: (n,), or None for all.

    With ``pairs``, where every block has a failure, the mirrored pairs without one count as a single block: each of
    them is unbiased by itself.

    Raises
    ------
    EvaluationError  if no block is left.
    """
    block = population.noise.block
    count = int(vectors.usable_blocks(values, block))
    if count * block == values.size:
        return count, None
    finite = np.isfinite(values)
    whole = finite.reshape(-1, 2).all(axis=1) if pairs and population.noise.mirrored else finite[:0]
    if count == 0 and whole.any():
        return 1, np.repeat(whole, 2)
    if count == 0:
        what = "candidate" if block == 1 else f"block of {block} candidates"
        raise EvaluationError(
            f"no usable {what} in generation {population.noise.key.generation}: "
            f"{int((~finite).sum())} of {finite.size} evaluations failed.\n"
            "Check the objective at es.mean, or start from a point and with a sigma where it can be evaluated."
        )
    return count, np.repeat(finite.reshape(-1, block).all(axis=1), block)


def divide_with_error(total: Array, block_squares: Array, blocks: int, divisor: Scale = 1.0) -> tuple[Array, Array]:
    """Return total / divisor and its standard error, (d,) each, in the memory of the first two arguments.

    ``total`` is sum_b s_b over independent blocks, ``block_squares`` sum_b s_b^2; nan errors for a single block.
    """
    vectors.divide_with_error(total, block_squares, blocks, np.atleast_1d(np.asarray(divisor, np.float64)))
    return total, block_squares


def scalar_with_error(terms: Array, block: int, blocks: int, divisor: float) -> tuple[float, float]:
    """Return sum(terms) / divisor and its standard error for the (n,) terms of rows in blocks."""
    by_block = terms.reshape(-1, block).sum(axis=1)
    total, error = divide_with_error(by_block.sum(keepdims=True), (by_block @ by_block)[None], blocks, divisor)
    return float(total[0]), float(error[0])


def mean_value(values: Array, block: int) -> tuple[float, float]:
    """Return the mean of the usable blocks of values, and its standard error (nan for fewer than two blocks).

    Where every block has a failure it is the mean of the usable values.
    """
    mean, error = vectors.block_mean(values, block)
    if mean != mean and block > 1:
        mean = vectors.block_mean(values, 1)[0]
    return float(mean), float(error)


def sum_with_error(rows: Array, blocks: int, block: int = 1, weight: float = 1.0) -> tuple[Array, Array]:
    """Return weight * the sum of ``rows`` (n, d), (d,), and its standard error from blocks of ``block`` rows.

    Deviations are taken first, so that exact agreement gives 0. Rows of unusable blocks are zero and count neither
    way.
    """
    dim = rows.shape[1]
    total, squares = np.empty(dim), np.empty(dim if blocks > 1 else 0)
    kernel = vectors.block_moments_parallel if threads.parallel(rows.size) else vectors.block_moments
    kernel(np.require(rows, np.float64, ["C", "W"]), block, blocks, total, squares)
    error = np.sqrt(squares * (blocks / (blocks - 1))) if blocks > 1 else np.full(dim, np.nan)
    return total * weight, error * abs(weight)
