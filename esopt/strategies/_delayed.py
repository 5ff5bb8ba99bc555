"""Gradients from candidates that were drawn in earlier generations, or told before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..noise import Given
from ..records import Arrivals, Evals, Population, Transform


def arrived(population: Population, evals: Evals, arrivals: Arrivals) -> tuple[Population, Evals]:
    """Return the population with the noise that its rows were drawn with, and its evaluations.

    The gradient is delayed: that of the mean at which a candidate was drawn. Values that were told before get the noise
    that makes their candidates from the present mean, sqrt(d) long at most. Mirrored noise has no place for them.
    """
    noise = arrivals.noise
    scale = population.scale
    if not arrivals.again or noise.mirrored or noise.block > 1 or isinstance(scale, Transform) or np.ndim(scale) == 2:
        return replace(population, noise=noise), replace(evals, values=evals.values[: noise.n])
    far = (arrivals.points[noise.n :] - population.mean) / np.asarray(scale)
    lengths = np.sqrt(np.square(far).sum(axis=1, keepdims=True))
    again = far * np.minimum(1.0, np.sqrt(population.dim) / np.maximum(lengths, 1e-300))
    rows = np.concatenate([np.asarray(noise.rows(), np.float64), again])
    return replace(population, noise=Given(rows, 1, False, noise.key, noise.law)), evals
