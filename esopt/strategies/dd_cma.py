"""dd-CMA-ES: a full covariance that a diagonal decodes, so that bad scaling is learned quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .._blas import serial
from .._kernels import cma
from ..noise import Array, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Info
from ..samplers.gaussian import Gaussian
from ._cma import TOLERANCES, check_values, history_size, population_size, recent, triggered
from ._drawn import Drawn
from .gradient_es import fit_sigma

_THRESHOLD = 2.0
"""beta_thresh: from this square root of the correlations' condition number on, the diagonal is damped."""


class _Rates(NamedTuple):
    """Signed weights and learning rates, of the full matrix or of the diagonal."""

    weights: Array
    one: float
    mu: float
    path: float
    mass: float


@dataclass(frozen=True, eq=False)
class DDCMAState:
    """State of :class:`DDCMA`: x ~ N(mean, sigma^2 D C D).

    ``root`` is the symmetric root of C and ``lengths`` are its eigenvalues, both as of the last decomposition. The
    ``sums`` say how much of their stationary variance the paths have: of p_sigma, p_c and p_D.
    """

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    deviations: Array
    matrix: Array
    root: Array
    inverse: Array
    lengths: Array
    path_sigma: Array
    path_c: Array
    path_d: Array
    sums: Array
    history: Array
    latest: Array

    @property
    def cov(self) -> Array:
        """Covariance of the search, (d, d)."""
        return self.scale @ self.scale.T

    @property
    def scale(self) -> Array:
        """Factor of the covariance that candidates are made with, (d, d)."""
        return self.sigma * self.deviations[:, None] * self.root


@dataclass(frozen=True, eq=False)
class DDCMA(Drawn):
    """CMA-ES with diagonal decoding: for some tens to some hundreds of dimensions of unknown scaling.

    The diagonal D learns as fast as :class:`SepCMA` while the coordinates hardly depend on each other, and is damped by
    the condition number of the correlations when they do. Negative weights. Invariant under increasing
    transformations of f.

    Parameters
    ----------
    sigma : initial standard deviation: a number, or one per coordinate.
    n : population size; None for 4 + floor(3 ln d).
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    O(n d^2) time for each generation, O(d^3) every 1 / (10 d (c_1 + c_mu)) generations, O(d^2) memory.

    References
    ----------
    Akimoto, Hansen (2020), Diagonal acceleration for covariance matrix adaptation evolution strategies, Evolutionary
    Computation 28, algorithm 1 and table 1.

    Examples
    --------
    >>> import esopt
    >>> def ellipsoid(x): return sum(10.0 ** (6 * i / 19) * v * v for i, v in enumerate(x))
    >>> result = esopt.minimize(ellipsoid, [1.0] * 20, strategy=esopt.DDCMA(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8) and result.evaluations < 9000
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"

    def init(self, x0: Array, seed: int) -> DDCMAState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        scale = fit_sigma(self.sigma, dim)
        if np.ndim(scale) == 2:
            raise ValueError("DDCMA() got a factor as sigma. Pass one number or one per coordinate, or use CMAES().")
        spread = np.broadcast_to(np.asarray(scale, np.float64), dim)
        sigma = math.sqrt(float(np.square(spread).mean()))
        n = population_size(self.n, dim, self.sampler)
        zero, eye = np.zeros(dim), np.eye(dim)
        return DDCMAState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, sigma, spread / sigma, eye, eye, eye, np.ones(dim),
            zero, zero, zero, np.zeros(3), np.full((2, history_size(dim, n)), np.nan), np.full(n, np.nan),
        )  # fmt: skip

    @serial
    def tell(self, state: DDCMAState, evals: Evals) -> tuple[DDCMAState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        noise = self._noise(state)
        values, dim = check_values(evals, noise), noise.dim
        full, diagonal = _rates(dim, noise.n, dim * (dim + 1) // 2), _rates(dim, noise.n, dim)
        rows = cma.order(values)
        z = noise.rows().astype(np.float64)[rows]
        failed = np.isnan(values[rows])
        lengths = np.maximum(np.square(z).sum(axis=1), 1e-300)
        white = np.maximum(full.weights, 0.0) @ z
        step = state.root @ white
        # Cumulative step-size adaptation; the sums normalise paths that start from zero.
        rate = (full.mass + 2.0) / (dim + full.mass + 5.0)
        damping = 1.0 + rate + 2.0 * max(0.0, math.sqrt((full.mass - 1.0) / (dim + 1.0)) - 1.0)
        path_sigma = (1.0 - rate) * state.path_sigma + math.sqrt(rate * (2.0 - rate) * full.mass) * white
        known = (1.0 - rate) ** 2 * state.sums[0] + rate * (2.0 - rate)
        expected = math.sqrt(dim) * (1.0 - 1.0 / (4.0 * dim) + 1.0 / (21.0 * dim * dim))
        square = float(path_sigma @ path_sigma)
        change = min(1.0, rate / damping * (math.sqrt(square) / expected - math.sqrt(known)))
        moving = square / known < (2.0 + 4.0 / (dim + 1.0)) * dim
        path_c, share_c = _path(state.path_c, state.sums[1], full, moving, state.deviations * step)
        path_d, share_d = _path(state.path_d, state.sums[2], diagonal, moving, state.deviations * step)
        signed = _signed(diagonal.weights, lengths / dim, failed)
        own = state.inverse @ (path_d / state.deviations)
        growth = diagonal.one * (np.square(own) - share_d)
        growth += diagonal.mu * (signed @ np.square(z) - diagonal.weights.sum())
        beta = max(1.0, float(state.lengths.max() / state.lengths.min()) - _THRESHOLD + 1.0)
        y, own = z @ state.root, path_c / state.deviations
        matrix = (1.0 - full.one * share_c - full.mu * full.weights.sum()) * state.matrix
        matrix += full.one * np.outer(own, own)
        matrix += full.mu * ((y.T * _signed(full.weights, lengths / dim, failed)) @ y)
        deviations = state.deviations * np.exp(np.clip(growth / (2.0 * beta), -1.0, 1.0))
        root, inverse, spectrum = state.root, state.inverse, state.lengths
        if (state.generation + 1) % max(1, int(1.0 / (10.0 * dim * (full.one + full.mu)))) == 0:
            deviations, matrix, root, inverse, spectrum = _decode(deviations, matrix)
        after = DDCMAState(
            state.seed, state.generation + 1, state.mean + state.sigma * state.deviations * step,
            state.sigma * math.exp(change), state.start, deviations, matrix, root, inverse, spectrum, path_sigma,
            path_c, path_d, np.array([known, share_c, share_d]), cma.remember(state.history, values), values,
        )  # fmt: skip
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma, "damping": beta})

    def stop(self, state: DDCMAState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`; the condition is that of C."""
        if state.generation == 0:
            return {}
        if not (math.isfinite(state.sigma) and np.isfinite(state.mean).all()):
            return {"diverged": state.sigma}
        deviations = state.deviations * np.sqrt(np.diagonal(state.matrix))
        return triggered(
            cma.reasons(
                state.generation, recent(state.mean.size, state.latest.size), state.mean, state.sigma, state.start,
                deviations, state.deviations[:, None] * state.root, state.lengths, state.path_c, state.history,
                state.latest, TOLERANCES,
            )
        )  # fmt: skip


@lru_cache(maxsize=256)
def _rates(dim: int, n: int, parameters: int) -> _Rates:
    """Return weights and rates for a model with that many parameters: table 1 of the paper."""
    raw = math.log((n + 1) / 2.0) - np.log(np.arange(1, n + 1))
    best, worst = np.maximum(raw, 0.0), np.minimum(raw, 0.0)
    mass = float(best.sum() ** 2 / np.square(best).sum())
    mass_worst = float(worst.sum() ** 2 / np.square(worst).sum())
    one = 1.0 / (2.0 * (parameters / dim + 1.0) * (dim + 1.0) ** 0.75 + mass / 2.0)
    mu = min((mass + 1.0 / mass - 2.0 + n / (2.0 * (n + 5.0))) * one, 1.0 - one)
    size = min(1.0 + one / mu, 1.0 + 2.0 * mass_worst / (mass + 2.0))
    weights = best / best.sum() - size * worst / worst.sum()
    weights.flags.writeable = False
    return _Rates(weights, one, mu, math.sqrt(mass * one) / 2.0, mass)


def _path(path: Array, share: float, rates: _Rates, moving: bool, step: Array) -> tuple[Array, float]:
    """Return a path after ``step``, unless it stalls, and its share of the stationary variance."""
    c = rates.path
    gain = c * (2.0 - c) if moving else 0.0
    return (1.0 - c) * path + math.sqrt(gain * rates.mass) * step, (1.0 - c) ** 2 * float(share) + gain


def _signed(weights: Array, lengths: Array, failed: Array) -> Array:
    """Return the weights with the negative ones divided by |z|^2 / d, and zero for failures."""
    return np.where(weights < 0.0, np.where(failed, 0.0, weights / lengths), weights)


def _decode(deviations: Array, matrix: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Return D, the correlations C, the symmetric root of C, its inverse and its eigenvalues, for the same D C D."""
    own = np.sqrt(np.maximum(np.diagonal(matrix), 1e-300))
    matrix = matrix / own / own[:, None]
    matrix = 0.5 * (matrix + matrix.T)
    values, vectors = np.linalg.eigh(matrix)
    lengths = np.sqrt(np.maximum(values, 1e-14 * values[-1]))
    return deviations * own, matrix, (vectors * lengths) @ vectors.T, (vectors / lengths) @ vectors.T, lengths
