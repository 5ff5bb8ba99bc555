"""Rows made of Gaussian vectors and of matrices of low rank."""

import math

import numpy as np
from numba import njit

from .gaussian import fill_row
from .jit import kernel
from .philox import F32


@njit
def _outer(out, factors, m, n, rank):
    """Write sum_s A[s, i] B[s, j] / sqrt(rank) to out[i n + j], for factors A (rank, m) and then B (rank, n)."""
    scale = F32(1.0 / math.sqrt(rank))
    for i in range(m):
        target = out[i * n : (i + 1) * n]
        for s in range(rank):
            a = F32(scale * factors[s * m + i])
            b = factors[rank * m + s * n : rank * m + (s + 1) * n]
            if s == 0:
                for j in range(n):
                    target[j] = F32(a * b[j])
            else:
                for j in range(n):
                    target[j] = F32(target[j] + F32(a * b[j]))


@kernel()
def fill(out, row, column, parts, rank, generation, stream, seed):
    """Write the rectangle of ``out.shape`` at (row, column) of rows made of ``parts`` (p, 2).

    A part (m, n) is a matrix of low rank, (k, 0) a plain vector; each takes the next r (m + n) or k columns of the
    row's Gaussian noise.
    """
    dim, width = 0, 0
    for p in range(parts.shape[0]):
        m, n = parts[p, 0], parts[p, 1]
        dim += m * n if n else m
        width += rank * (m + n) if n else m
    factors, whole = np.empty(width, F32), np.empty(dim, F32)
    for i in range(out.shape[0]):
        fill_row(factors, 0, row + i, generation, stream, seed)
        at, start = 0, 0
        for p in range(parts.shape[0]):
            m, n = parts[p, 0], parts[p, 1]
            if n:
                _outer(whole[at:], factors[start:], m, n, rank)
                at, start = at + m * n, start + rank * (m + n)
            else:
                for j in range(m):
                    whole[at + j] = factors[start + j]
                at, start = at + m, start + m
        for j in range(out.shape[1]):
            out[i, j] = whole[column + j]
