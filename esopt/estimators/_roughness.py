"""The criterion of values against gradients, as one generation shows it."""

from __future__ import annotations

import math

import numpy as np

from ..records import Evals, Population


def roughness(population: Population, evals: Evals) -> tuple[float, float] | None:
    """Return k = E|grad_eps f|^2 / Var f and d + nu = E[(f - mean)^2 |eps|^2] / Var f, or None without gradients."""
    scale, noise = population.scale, population.noise
    if evals.grads is None or not isinstance(scale, float | np.ndarray):
        return None
    values, grads = evals.values[: noise.n], evals.grads[: noise.n]
    # No copy of (n, d) numbers but for a factor, where d is small.
    with np.errstate(invalid="ignore", over="ignore"):
        if np.ndim(scale) == 2:
            slopes = np.square(grads @ scale).sum(axis=1)
        elif np.ndim(scale) == 1:
            slopes = np.einsum("ij,ij,j->i", grads, grads, np.square(scale))
        else:
            slopes = np.einsum("ij,ij->i", grads, grads) * scale**2
        rows = np.isfinite(values + slopes)
    if not rows.any():
        return None
    squares = np.square(values[rows] - values[rows].mean())
    spread = float(squares.mean())
    if not (0.0 < spread < math.inf):
        return None
    return float(slopes[rows].mean()) / spread, float((squares * noise.norms()[rows]).mean()) / spread
