"""Candidates that the CMA family did not draw from its present mean and covariance: injected ones, and late ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._kernels import factor
from ..noise import Array
from ..records import Arrivals

_FAR = 1e100
"""Injected candidates further away than this are looked at from there."""


def arrived(state: Any, shape: Array, arrivals: Arrivals) -> Array:
    """Return the noise (n + k, d) that makes the candidates that arrived out of the present mean and covariance.

    Those drawn from it keep theirs; others are treated as injected ones: :func:`white`.
    """
    older = np.ones(len(arrivals.points), np.bool_)
    older[: arrivals.noise.n] = arrivals.lags[: arrivals.noise.n] > 0
    rows = np.empty(arrivals.points.shape)
    rows[: arrivals.noise.n] = arrivals.noise.rows()
    rows[older] = white(arrivals.points[older], state.mean, state.sigma, shape)
    return rows


def white(rows: Array, mean: Array, sigma: float, shape: Array) -> Array:
    """Return the noise (k, d) that would have made the candidates ``rows``, shortened to what noise may be.

    Hansen (2011), Injecting external solutions into CMA-ES, eq. 4: at most sqrt(d) + 2 d / (d + 2) long.
    """
    far = rows - mean
    peak = np.abs(far).max(axis=1, initial=0.0, keepdims=True)
    away = far * (_FAR / np.maximum(peak, _FAR)) / sigma  # squares of its entries stay finite
    eps = _solve(shape, away.T).T if shape.ndim == 2 else away / np.sqrt(shape)
    longest = math.sqrt(mean.size) + 2.0 * mean.size / (mean.size + 2.0)
    lengths = np.sqrt(np.square(eps).sum(axis=1, keepdims=True))
    shortened: Array = eps * np.minimum(1.0, longest / np.maximum(lengths, 1e-300))
    return shortened


def _solve(matrix: Array, columns: Array) -> Array:
    """Return A^-1 ``columns``, by elimination without BLAS: the bits depend on no number of threads."""
    table = np.concatenate([matrix, columns], axis=1)
    dim = len(matrix)
    for j in range(dim):
        pivot = j + int(np.abs(table[j:, j]).argmax())
        if pivot != j:
            table[[j, pivot], j:] = table[[pivot, j], j:]
        table[j, j + 1 :] /= table[j, j]
        table[j + 1 :, j + 1 :] -= table[j + 1 :, j, None] * table[j, j + 1 :]
    for j in range(dim - 1, 0, -1):
        table[:j, dim:] -= table[:j, j, None] * table[j, dim:]
    return table[:, dim:]


def toward(state: Any, shape: Array, gradient: Array) -> Array:
    """Return mean - sqrt(d) * sigma * C g / |C^1/2 g|, (d,); ``shape`` as in :func:`learn`."""
    if shape.ndim == 2:
        inner = factor.apply(shape.T, gradient[None])
        step = factor.apply(shape, inner)[0]
    else:
        inner = np.sqrt(shape) * gradient
        step = np.sqrt(shape) * inner
    length = math.sqrt(float(np.square(inner).sum()))
    mean: Array = state.mean - (math.sqrt(gradient.size) * state.sigma / length) * step
    return mean
