"""Gaussian factors multiplied out to matrices of low rank."""

import math

from numba import njit

from .philox import F32


@njit(cache=True, nogil=True)
def outer(out, factors, rank):
    """out[i, :] = sum_s A[s, i] B[s, :] / sqrt(rank) for factors (rank * (m + n)): A (rank, m), then B (rank, n)."""
    m, n = out.shape
    right = rank * m
    scale = F32(1.0 / math.sqrt(rank))
    for i in range(m):
        target = out[i]
        for s in range(rank):
            a = F32(scale * factors[s * m + i])
            b = factors[right + s * n : right + (s + 1) * n]
            if s == 0:
                for j in range(n):
                    target[j] = F32(a * b[j])
            else:
                for j in range(n):
                    target[j] = F32(target[j] + F32(a * b[j]))
