"""Passes over vectors that numpy would make one operation at a time: block statistics, error bars, Adam.

Where a kernel divides, ``error_model="numpy"`` leaves out the test for zero, which would keep LLVM from vectorising.
"""

import math

import numpy as np
from numba import njit, prange

from .jit import kernel

_TILE = 256


@kernel()
def usable_blocks(values, block):
    """Return the number of blocks of ``block`` entries without a nan or infinity."""
    count = 0
    for first in range(0, values.size, block):
        good = True
        for i in range(first, first + block):
            good = good and math.isfinite(values[i])
        count += good
    return count


@kernel()
def furthest(values):
    """Return the largest magnitude, or nan if there is one."""
    largest = 0.0
    for i in range(values.size):
        if math.isnan(values[i]):
            return math.nan
        largest = max(largest, abs(values[i]))
    return largest


@kernel()
def block_mean(values, block):
    """Return the mean over the usable blocks, and its standard error from their means (nan for fewer than two)."""
    total, count = 0.0, 0
    means = np.empty(values.size // block)
    for b in range(means.size):
        s = 0.0
        for i in range(b * block, (b + 1) * block):
            s += values[i]
        if math.isfinite(s):
            means[count] = s / block
            total += means[count]
            count += 1
    if count == 0:
        return math.nan, math.nan
    mean = total / count
    if count == 1:
        return mean, math.nan
    squares = 0.0
    for b in range(count):
        squares += (means[b] - mean) ** 2
    return mean, math.sqrt(squares / (count * (count - 1)))


@njit(nogil=True)
def _block_tile(tile, rows, block, blocks, total, squares):
    start = tile * _TILE
    width, count = min(_TILE, rows.shape[1] - start), rows.shape[0] // block
    sums, mean = np.empty((count, width)), np.zeros(width)
    for b in range(count):
        own = sums[b]
        own[:] = rows[b * block, start : start + width]
        for k in range(b * block + 1, (b + 1) * block):
            row = rows[k]
            for j in range(width):
                own[j] += row[start + j]
        for j in range(width):
            mean[j] += own[j]
    total[start : start + width] = mean
    if squares.size == 0:
        return
    for j in range(width):
        mean[j] = mean[j] / blocks
    square = np.zeros(width)
    for b in range(count):
        own = sums[b]
        for j in range(width):
            deviation = own[j] - mean[j]
            square[j] += deviation * deviation
    for j in range(width):
        squares[start + j] = max(0.0, square[j] - (count - blocks) * mean[j] * mean[j])


@kernel()
def block_moments(rows, block, blocks, total, squares):
    """Write the sum of ``rows`` (n, d) to ``total``, and the squared deviations of its block sums to ``squares``.

    Deviations are from total / ``blocks``, the number of usable blocks; the others are zero and count neither way.
    ``squares`` may have size 0.
    """
    for tile in range((rows.shape[1] + _TILE - 1) // _TILE):
        _block_tile(tile, rows, block, blocks, total, squares)


@kernel(parallel=True)
def block_moments_parallel(rows, block, blocks, total, squares):
    """Parallel twin of :func:`block_moments`."""
    for tile in prange((rows.shape[1] + _TILE - 1) // _TILE):
        _block_tile(tile, rows, block, blocks, total, squares)


@kernel(error_model="numpy")
def divide_with_error(total, squares, blocks, divisor):
    """In place: total <- total / divisor, squares <- its standard error.

    ``total`` = sum_b s_b and ``squares`` = sum_b s_b^2 over ``blocks`` blocks; the estimate is the mean of T_b = B
    s_b, and its squared error (B sum s_b^2 - total^2) / (B - 1), nan for one block. ``divisor`` has one entry, or one
    per column.
    """
    for j in range(total.size):
        s = divisor[0] if divisor.size == 1 else divisor[j]
        t = total[j]
        if blocks < 2:
            squares[j] = math.nan
        else:
            squares[j] = math.sqrt(max(0.0, (blocks * squares[j] - t * t) / (blocks - 1))) / s
        total[j] = t / s


@kernel()
def expm1(values, out):
    """Write exp(v) - 1 to ``out``, as other kernels have it: numpy's own has other bits."""
    for j in range(values.size):
        out[j] = math.expm1(values[j])


@kernel(error_model="numpy")
def adam(gradient, first, second, beta1, beta2, rate, epsilon, first_out, second_out, step):
    """One step of Adam: averages to ``first_out`` and ``second_out``, -rate * m / (sqrt(v) + epsilon) to ``step``."""
    for j in range(gradient.size):
        g = gradient[j]
        m = beta1 * first[j] + (1.0 - beta1) * g
        v = beta2 * second[j] + (1.0 - beta2) * g * g
        first_out[j] = m
        second_out[j] = v
        step[j] = -rate * m / (math.sqrt(v) + epsilon)
