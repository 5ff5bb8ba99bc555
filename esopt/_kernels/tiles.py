"""Weighted moments of explicit rows, for noise that is not regenerated inside the sum."""

import numpy as np

from .jit import kernel


@kernel()
def moments(tile, weights, degrees, block, row, column, sums, squares):
    """Add sum_i w[k, i] He_degree(eps_i) to sums[k], and squared sums over blocks to squares[k] (or shape (0, d)).

    ``tile`` holds whole blocks of eps from (row, column) on. Everything in float64, blocks in order, and rows in order
    inside a block.
    """
    height, width = tile.shape
    partial = np.empty(width)
    for k in range(weights.shape[0]):
        total = sums[k, column : column + width]
        for first in range(0, height, block):
            partial[:] = 0.0
            for i in range(first, min(first + block, height)):
                w, eps = weights[k, row + i], tile[i]
                if degrees[k] == 1:
                    for j in range(width):
                        partial[j] += w * eps[j]
                else:
                    for j in range(width):
                        e = np.float64(eps[j])
                        partial[j] += w * (e * e - 1.0)
            for j in range(width):
                total[j] += partial[j]
            if squares.shape[0]:
                total_squares = squares[k, column : column + width]
                for j in range(width):
                    total_squares[j] += partial[j] * partial[j]
