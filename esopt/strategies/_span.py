"""What large-scale strategies share: a covariance of low rank beside a diagonal, weights, and the start of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import cma, span, threads
from ..noise import Array, Noise, Philox
from ._cma import TOLERANCES, recent, triggered
from .gradient_es import Radius, fit_sigma

Single = NDArray[np.float32]

_CHUNK = 1 << 18
_NO_AXES, _UNKNOWN = np.empty((0, 0)), np.empty(0)


@dataclass(frozen=True, eq=False)
class Span:
    """The map eps -> scale * (base eps + V^T B V eps): a population's scale of low rank beside a diagonal.

    ``scale`` is (1,) or (d,), ``vectors`` V (m, d) float32, ``core`` B (m, m). The matrix B V V^T need not be
    symmetric: candidates have the covariance L L^T whatever the root L.
    """

    scale: Array
    base: float
    vectors: Single
    core: Array

    def apply(self, eps: Array) -> Array:
        """Return the image of every row, (r, d) to (r, d), in float64; the bits of a row are its own."""
        rows = np.ascontiguousarray(eps, np.float64)
        out = np.empty(rows.shape)
        span.apply(self.scale, self.base, self.vectors, self.core, rows, out)
        return out

    def displace(self, noise: Noise, mean: Array, start: int, out: NDArray[Any]) -> None:
        """Write mean + the image of eps[start : start + len(out)] to ``out``, some rows at a time."""
        if isinstance(noise, Philox) and noise.sampler.fused:
            work = out.size * (1 + len(self.vectors) // 8)
            kernel = span.population_parallel if threads.parallel(work) else span.population
            key = noise.key
            kernel(
                mean, self.scale, self.base, self.vectors, self.core, noise.mirrored, start, key.generation,
                key.stream, np.uint64(key.seed), out,
            )  # fmt: skip
            return
        height = max(1, _CHUNK // noise.dim)
        for first in range(0, len(out), height):
            part = out[first : first + height]
            part[...] = mean + self.apply(noise.rows(start + first, start + first + len(part)))


@lru_cache(maxsize=256)
def recombination(n: int) -> tuple[Array, float]:
    """Return weights (n,) of the better half, best first, zero for the others, and their mu_eff = 1 / sum w^2.

    w_i is proportional to log(mu + 1/2) - log(i) for i to mu = n // 2.
    """
    mu = n // 2
    weights = np.zeros(n)
    weights[:mu] = math.log(mu + 0.5) - np.log(np.arange(1, mu + 1))
    weights /= weights.sum()
    weights.flags.writeable = False
    return weights, float(1.0 / (weights @ weights))


def by_rank(values: Array, weights: Array) -> Array:
    """Return the weight of every row, (n,), for ``weights`` (n,) from best to worst; failures come last."""
    out = np.empty(weights.size)
    out[cma.order(values)] = weights
    return out


def start_scale(sigma: float | Array | Radius, dim: int, user: str) -> tuple[float, Array]:
    """Return the step size and the coordinates' scales relative to it, (1,) or (d,).

    Raises
    ------
    ValueError  for a factor.
    """
    scale = fit_sigma(sigma, dim)
    if np.ndim(scale) == 2:
        raise ValueError(f"{user} got a factor as sigma. Pass one number or one per coordinate, or use CMAES().")
    size = float(np.sqrt(np.mean(np.square(scale))))
    return size, np.atleast_1d(np.asarray(scale, np.float64)) / size


def stopped(state: Any, deviations: Array) -> dict[str, float]:
    """Return the stop rules of the CMA family that hold, those that need no axes of the covariance, and their numbers.

    ``deviations`` times ``state.sigma`` are the standard deviations, (1,) or (d,).
    """
    mean, latest = state.mean, state.latest
    if state.generation == 0:
        return {}
    if not (math.isfinite(state.sigma) and np.isfinite(mean).all()):
        return {"diverged": state.sigma}
    spread = np.array(np.broadcast_to(deviations, mean.shape)) if deviations.size != mean.size else deviations
    return triggered(
        cma.reasons(
            state.generation, recent(mean.size, latest.size), mean, state.sigma, state.start, spread, _NO_AXES,
            _UNKNOWN, np.zeros(mean.size), state.history, latest, TOLERANCES,
        )
    )  # fmt: skip
