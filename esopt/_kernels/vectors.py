"""Passes over vectors that numpy would make one operation at a time: block statistics, error bars, Adam.

Where a kernel divides, ``error_model="numpy"`` leaves out the test for zero, which would keep LLVM from vectorising.
"""

import math

import numpy as np

from .jit import kernel


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
