"""Products of matrices in which the bits of a row are its own: BLAS changes them with the batch and its threads."""

import numpy as np
from numba import njit, prange

from . import threads
from .jit import kernel

_TILE, _ROWS = 256, 8


@njit(nogil=True)
def _piece(columns, coefficients, out, first, start):
    """Rows from ``first`` and columns from ``start`` of :func:`accumulate`; sums stay in the first-level cache."""
    count, width = min(_ROWS, out.shape[0] - first), min(_TILE, out.shape[1] - start)
    size, whole = columns.shape[0], columns.shape[0] // 4 * 4
    for j in range(0, whole, 4):
        c0, c1 = columns[j, start : start + width], columns[j + 1, start : start + width]
        c2, c3 = columns[j + 2, start : start + width], columns[j + 3, start : start + width]
        for i in range(first, first + count):
            e0, e1, e2, e3 = coefficients[i, j], coefficients[i, j + 1], coefficients[i, j + 2], coefficients[i, j + 3]
            sums = out[i, start : start + width]
            for k in range(width):
                sums[k] = (((sums[k] + c0[k] * e0) + c1[k] * e1) + c2[k] * e2) + c3[k] * e3
    for j in range(whole, size):
        column = columns[j, start : start + width]
        for i in range(first, first + count):
            e, sums = coefficients[i, j], out[i, start : start + width]
            for k in range(width):
                sums[k] += column[k] * e


@kernel()
def accumulate(columns, coefficients, out):
    """out[i] += sum_j coefficients[i, j] * columns[j], added in the order of j; all contiguous float64."""
    for start in range(0, out.shape[1], _TILE):
        for first in range(0, out.shape[0], _ROWS):
            _piece(columns, coefficients, out, first, start)


@kernel(parallel=True)
def accumulate_parallel(columns, coefficients, out):
    """Parallel twin of :func:`accumulate`."""
    tiles = (out.shape[1] + _TILE - 1) // _TILE
    for piece in prange(tiles * ((out.shape[0] + _ROWS - 1) // _ROWS)):
        _piece(columns, coefficients, out, piece // tiles * _ROWS, piece % tiles * _TILE)


def apply(factor, eps):
    """Return ``factor`` (d, d) times every row of ``eps`` (m, d), (m, d) float64; a row's bits are its own."""
    out = np.zeros(eps.shape)
    many = threads.parallel(eps.size * factor.shape[0] // 8)
    product = accumulate_parallel if many else accumulate
    product(np.ascontiguousarray(factor.T), np.ascontiguousarray(eps, np.float64), out)
    return out
