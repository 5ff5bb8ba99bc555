"""Many generations of a strategy without a return to Python: draw, evaluate, tell and stop, with the kernels of each.

The user's function is called by address (see ``objective``). A lap ends before a generation that needs Python: one in
which the function raised, or of which nothing can be learned.
"""

import math

import numpy as np
from numba import njit

from .cma import judge, tell
from .factor import accumulate
from .gaussian import fill_row
from .jit import kernel
from .objective import _call_value, _part, _pointer
from .philox import F32


@njit(nogil=True)
def draw(eps, mirrored, generation, seed):
    """Write the noise of a generation, stream 0, to ``eps`` (n, d) float32."""
    per = 2 if mirrored else 1
    for row in range(0, eps.shape[0], per):
        fill_row(eps[row], 0, row // per, generation, 0, seed)
        if mirrored:
            for j in range(eps.shape[1]):
                eps[row + 1, j] = -eps[row, j]


@njit(nogil=True)
def displace(eps, mean, sigma, shape, x):
    """Write the candidates to ``x`` (n, d), in the bits of a Population; ``shape`` as in ``cma.tell``."""
    n, dim = eps.shape
    if shape.ndim == 2:
        x[:] = 0.0
        accumulate(np.ascontiguousarray((sigma * shape).T), eps.astype(np.float64), x)
        for i in range(n):
            for j in range(dim):
                x[i, j] = mean[j] + x[i, j]
    else:
        scale = sigma * np.sqrt(shape)
        for i in range(n):
            for j in range(dim):
                x[i, j] = mean[j] + scale[j] * np.float64(eps[i, j])


@njit(nogil=True)
def evaluate(address, x, values):
    """Write f of every row to ``values``; return the steps, or -1 for a generation that Python must look at."""
    n, dim = x.shape
    own, note, steps, usable = np.empty(dim), np.zeros(1, np.int64), 0, False
    for i in range(n):
        _part(own, 0, dim)[:] = x[i]  # f may write to its argument
        values[i] = _call_value(address, _pointer(own, 0), dim, 0, _pointer(note, 0))
        if note[0] < 0 or values[i] == -math.inf:
            return -1
        steps += note[0]
        usable = usable or not math.isnan(values[i])
    return steps if usable else -1


@kernel(error_model="numpy")
def run(address, limits, seed, mirrored, generation, recent, start, mean, sigma, shape, units, path_sigma, path_c,
        history, latest, weights, rates, tolerances):  # fmt: skip
    """Run generations until the first of ``limits`` (generations, target, steps), or until a stop rule holds.

    Returns how many, mean ... latest (as ``cma.tell`` takes them), the lowest finite value (inf for none) and its x,
    the number of nan values, and the steps.
    """
    generations, target, most = limits
    n, dim = weights.size, mean.size
    eps, x = np.empty((n, dim), F32), np.empty((n, dim))
    best, best_x, failed, steps, done = math.inf, mean, 0, 0, 0
    lengths = np.empty(0)
    while done < generations:
        draw(eps, mirrored, generation, seed)
        displace(eps, mean, sigma, shape, x)
        values = np.empty(n)
        used = evaluate(address, x, values)
        if used < 0:
            break
        mean, sigma, shape, path_sigma, path_c, history = tell(
            eps, values, generation, mean, sigma, shape, path_sigma, path_c, history, weights, rates
        )  # fmt: skip
        generation, done, steps, latest = generation + 1, done + 1, steps + used, values
        for i in range(n):
            failed += math.isnan(values[i])
            if math.isfinite(values[i]) and values[i] < best:
                best, best_x = values[i], x[i].copy()
        _, found, finite = judge(
            generation, recent, mean, sigma, start, shape, units, lengths, path_c, history, latest, tolerances
        )  # fmt: skip
        if found or not finite or best <= target or steps >= most:
            break
    return done, mean, sigma, shape, path_sigma, path_c, history, latest, best, best_x, failed, steps
