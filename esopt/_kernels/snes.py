"""Many generations of SNES without a return to Python, in the bits of GradientES: the kernels are the same."""

import math

import numpy as np

from .gaussian import fold, moment, population
from .jit import kernel
from .laps import evaluate
from .philox import F32
from .ranks import average_over_ties


@kernel(error_model="numpy")
def run(address, limits, seed, mirrored, generation, mean, scale, tables, rates, safe):
    """Run generations until the first of ``limits`` (generations, target, steps), or until a stop rule may hold.

    ``tables`` (n, n) are utilities, best first, by how many rows failed; ``rates`` those of the mean and of the scale.
    Goes on while scales are between the numbers of ``safe`` (lowest, highest, share of the furthest coordinate of the
    mean).

    Returns how many, mean, scale, the latest values, the lowest finite value (inf for none) and its x, the number of
    nan values, and the steps.
    """
    generations, target, most = limits
    n, dim = len(tables), mean.size
    x, utilities, latest = np.empty((n, dim)), np.empty(n), np.empty(n)
    kinds, largest = np.array([1, 2], np.int64), np.empty(2)
    coefficients = np.empty((2, n // 2 if mirrored else n), F32)
    squares = np.empty((0, dim))
    best, best_x, failed, steps, done = math.inf, mean, 0, 0, 0
    while done < generations:
        population(mean, scale, mirrored, 0, generation, 0, seed, x)
        values = np.empty(n)
        used = evaluate(address, x, values)
        if used < 0:
            break
        nans = 0
        for i in range(n):
            nans += math.isnan(values[i])
        average_over_ties(values, tables[nans], utilities)
        weights = np.empty((2, n))
        for i in range(n):
            weights[0, i] = weights[1, i] = utilities[i] / n
        fold(weights, kinds, mirrored, coefficients, largest)
        sums = np.zeros((2, dim))
        moment(coefficients, kinds, generation, 0, seed, sums, squares)
        mean, scale = mean.copy(), scale.copy()
        furthest, low, high = 0.0, math.inf, 0.0
        for j in range(dim):
            slope = sums[0, j] * largest[0] / scale[j]
            mean[j] = mean[j] + slope * (scale[j] * scale[j]) * rates[0]
            scale[j] = scale[j] * (1.0 + math.expm1(rates[1] * (sums[1, j] * largest[1])))
            furthest, low, high = max(furthest, abs(mean[j])), min(low, scale[j]), max(high, scale[j])
        generation, done, steps, latest, failed = generation + 1, done + 1, steps + used, values, failed + nans
        for i in range(n):
            if math.isfinite(values[i]) and values[i] < best:
                best, best_x = values[i], x[i].copy()
        fine = safe[0] < low and high < safe[1] and low > safe[2] * furthest
        if not fine or best <= target or steps >= most:
            break
    return done, mean, scale, latest, best, best_x, failed, steps
