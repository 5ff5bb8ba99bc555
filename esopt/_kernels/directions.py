"""Rows with chosen directions and lengths: orthogonal Gaussian blocks, and points on a sphere.

Sums run in float64 over ``LANES`` interleaved partial sums that are added in order, so that the bits depend on the
rows alone, neither on the width of the machine's vectors nor on the number of threads.
"""

import math

import numpy as np
from numba import njit

from .gaussian import fill_row
from .jit import kernel
from .philox import F32

LANES = 16
UNROLLED = 4 * LANES

# Below this part of its length a row is taken to lie in the span of those before it.
_DEPENDENT = 1e-10


@njit
def _dot(a, b, lanes):
    """Return a . b for float64 rows; ``lanes`` is scratch of LANES entries."""
    size = a.size
    unrolled = size - size % UNROLLED
    whole = size - size % LANES
    for j in range(LANES):
        lanes[j] = 0.0
    for s in range(0, unrolled, UNROLLED):
        for j in range(LANES):
            t, u, v, w = s + j, s + LANES + j, s + 2 * LANES + j, s + 3 * LANES + j
            lanes[j] += (a[t] * b[t] + a[u] * b[u]) + (a[v] * b[v] + a[w] * b[w])
    for s in range(unrolled, whole, LANES):
        for j in range(LANES):
            lanes[j] += a[s + j] * b[s + j]
    for j in range(size - whole):
        lanes[j] += a[whole + j] * b[whole + j]
    total = 0.0
    for j in range(LANES):
        total += lanes[j]
    return total


@njit
def _project_out(x, basis, coefficients, lanes):
    """Replace x by x - sum_j (basis[j] . x) basis[j], all products with the x from before."""
    count = basis.shape[0]
    for j in range(count):
        coefficients[j] = _dot(basis[j], x, lanes)
    whole = count - count % 4
    for j in range(0, whole, 4):
        c0, c1, c2, c3 = coefficients[j], coefficients[j + 1], coefficients[j + 2], coefficients[j + 3]
        q0, q1, q2, q3 = basis[j], basis[j + 1], basis[j + 2], basis[j + 3]
        for t in range(x.size):
            x[t] -= (c0 * q0[t] + c1 * q1[t]) + (c2 * q2[t] + c3 * q3[t])
    for j in range(whole, count):
        c0, q0 = coefficients[j], basis[j]
        for t in range(x.size):
            x[t] -= c0 * q0[t]


@kernel()
def _direction(x, basis, length, coefficients, lanes):
    """Make x a unit vector that is orthogonal to the basis: classical Gram-Schmidt, done twice.

    Two rows of floats may be parallel, once in about 1e10 pairs for two columns; coordinate vectors then take the
    place of the second one.
    """
    for attempt in range(x.size + 1):
        _project_out(x, basis, coefficients, lanes)
        _project_out(x, basis, coefficients, lanes)
        left = math.sqrt(_dot(x, x, lanes))
        if left > _DEPENDENT * length:
            for t in range(x.size):
                x[t] /= left
            return
        x[:] = 0.0
        x[min(attempt, x.size - 1)] = 1.0
        length = 1.0


@kernel()
def orthogonal(out, row, generation, stream, seed):
    """Write a block of orthogonal rows (k, d), made from Gaussian rows ``row`` ... ``row + k - 1``.

    Row i has the direction of Gaussian row i less its parts along the rows before it, and the length of Gaussian row
    i. Beyond d rows a new set of orthogonal rows begins.
    """
    rows, dim = out.shape
    basis = np.empty((min(rows, dim), dim))
    coefficients, lanes = np.empty(min(rows, dim)), np.empty(LANES)
    for i in range(rows):
        fill_row(out[i], 0, row + i, generation, stream, seed)
        at = i % dim
        x = basis[at]
        for t in range(dim):
            x[t] = out[i, t]
        length = math.sqrt(_dot(x, x, lanes))
        _direction(x, basis[:at], length, coefficients, lanes)
        for t in range(dim):
            out[i, t] = F32(length * x[t])


@kernel()
def sphere(out, row, column, dim, generation, stream, seed):
    """Write the rectangle of ``out.shape`` at (row, column): Gaussian rows scaled to length sqrt(dim)."""
    noise, x, lanes = np.empty(dim, np.float32), np.empty(dim), np.empty(LANES)
    for i in range(out.shape[0]):
        fill_row(noise, 0, row + i, generation, stream, seed)
        for t in range(dim):
            x[t] = noise[t]
        factor = math.sqrt(dim / _dot(x, x, lanes))
        part, target = x[column : column + out.shape[1]], out[i]
        for t in range(part.size):
            target[t] = F32(factor * part[t])
