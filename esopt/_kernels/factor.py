"""A matrix times rows of noise, each row by itself and in a fixed order: BLAS changes bits with the batch."""

import numpy as np

from .jit import kernel

_TILE, _ROWS = 256, 8


@kernel()
def _apply(columns, eps, out):
    """out[i] = sum_j columns[j] * eps[i, j], added in the order of j; ``columns`` (d, d) are those of the factor."""
    rows, dim = eps.shape
    total = np.empty((_ROWS, _TILE))
    for start in range(0, dim, _TILE):
        width = min(_TILE, dim - start)
        for first in range(0, rows, _ROWS):
            count = min(_ROWS, rows - first)
            total[:count, :width] = 0.0
            for j in range(dim):
                column = columns[j, start : start + width]
                for i in range(count):
                    e = eps[first + i, j]
                    sums = total[i]
                    for k in range(width):
                        sums[k] += column[k] * e
            out[first : first + count, start : start + width] = total[:count, :width]


def apply(factor, eps):
    """Return ``factor`` (d, d) times every row of ``eps`` (m, d), (m, d) float64; a row's bits are its own."""
    out = np.empty(eps.shape)
    _apply(np.ascontiguousarray(factor.T), np.ascontiguousarray(eps, np.float64), out)
    return out
