"""DX-NES-IC: an exponential natural evolution strategy that moves fast, and whose failures are constraints."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._blas import serial
from .._kernels import cma
from ..noise import Array, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Info
from ..samplers.antithetic import Antithetic
from ._cma import check_values, history_size, population_size, reasons, units
from ._distance_weights import constants, far, ordered, speed
from ._drawn import Drawn
from ._factored import Factored
from .gradient_es import start_factor


@dataclass(frozen=True, eq=False)
class DXNESICState(Factored):
    """State of :class:`DXNESIC`: x ~ N(mean, sigma^2 B B^T), ``factor`` B of determinant one; ``gamma`` expands it."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    factor: Array
    path_sigma: Array
    gamma: float
    history: Array
    latest: Array

    @property
    def path_c(self) -> Array:
        """Path of the covariance, which this strategy has not: zero, (d,)."""
        return np.zeros(self.mean.size)


@dataclass(frozen=True, eq=False)
class DXNESIC(Drawn):
    """Distance-weighted exponential NES for implicit constraints: points where f is nan or infinite are infeasible.

    The full-matrix relative of :class:`CRFMNES`. While the mean moves (|p_sigma| at least its expectation under random
    selection) weights grow with the distance, and directions whose variance increased are expanded once more; two
    further phases, stagnation and convergence, have learning rates of their own. Infeasible candidates are ranked
    last, the shorter steps first, and the fewer feasible ones there are, the less is learned. Invariant under
    increasing transformations of f, and under rotations but for the axes of the very first expansion.

    Parameters
    ----------
    sigma : initial standard deviation: a number, one per coordinate, or a factor (d, d).
    n : population size, even; None for 4 + floor(3 ln d), rounded up to even.
    sampler : joint law of the noise rows; n must be a multiple of its block. The method is made for antithetic rows.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    O(n d^2 + d^3) time for each generation and O(d^2) memory. The rate 1 / (3 (d - 1)) of gamma is that of d = 2 in
    one dimension, where nothing can be expanded.

    References
    ----------
    Nomura, Sakai, Fukushima, Ono (2021), Distance-weighted exponential natural evolution strategy for implicitly
    constrained black-box function optimization, CEC; Fukushima, Nagata, Kobayashi, Ono (2011), Proposal of
    distance-weighted exponential natural evolution strategies, CEC.

    Examples
    --------
    >>> import esopt, math
    >>> def corner(x): return sum((v + 1.0) ** 2 for v in x) if min(x) >= 0.0 else math.inf
    >>> strategy = esopt.DXNESIC()
    >>> result = esopt.minimize(corner, [1.0] * 5, strategy=strategy, seed=1, evaluations=4000)
    >>> bool(result.value - 5.0 < 1e-6)
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    sampler: Sampler = field(default_factory=Antithetic)
    share: Share = "pair"

    @serial
    def init(self, x0: Array, seed: int) -> DXNESICState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        _, factor = start_factor(self.sigma, dim)
        sigma = math.exp(float(np.linalg.slogdet(factor)[1]) / dim)
        start, n = float(np.linalg.norm(factor, axis=1).max()), population_size(self.n, dim, self.sampler)
        return DXNESICState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, start, factor / sigma, np.zeros(dim), 1.0,
            np.full((2, history_size(dim, n)), np.nan), np.full(n, np.nan),
        )  # fmt: skip

    @serial
    def tell(self, state: DXNESICState, evals: Evals) -> tuple[DXNESICState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        noise = self._noise(state)
        values, dim = check_values(evals, noise), noise.dim
        rates, z = constants(dim, noise.n), noise.rows().astype(np.float64)
        lengths = np.square(z).sum(axis=1)
        rows, feasible = ordered(values, lengths)
        ranks = np.empty(noise.n)
        ranks[rows] = rates.ranks
        weights = ranks - 1.0 / noise.n
        gain = math.sqrt(rates.sigma * (2.0 - rates.sigma) * rates.mass)
        path = (1.0 - rates.sigma) * state.path_sigma + gain * (weights @ z)
        reached = math.sqrt(float(path @ path)) / rates.expected
        if reached >= 1.0:
            weights = far(ranks, lengths, rates.distance * math.sqrt(feasible / noise.n))
        gradient = (z.T * weights) @ z - float(weights.sum()) * np.eye(dim)
        change = float(np.trace(gradient)) / dim
        change_b = _speed_b(reached, feasible, dim) * (gradient - change * np.eye(dim))
        sigma = state.sigma * math.exp(0.5 * speed(reached, feasible, dim) * change)
        factor, count, gamma = _expand(state.factor, change_b, state.gamma, noise.n, reached >= 1.0)
        after = DXNESICState(
            state.seed, state.generation + 1, state.mean + state.sigma * (state.factor @ (weights @ z)),
            sigma * gamma ** (count / dim), state.start, factor, path, gamma, cma.remember(state.history, values),
            values,
        )  # fmt: skip
        scalars = {"sigma": after.sigma, "phase": reached, "feasible": float(feasible)}
        return after, Info(state.generation, None, evals.failures, scalars)

    def stop(self, state: DXNESICState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`."""
        return reasons(state, state.factor, units(self.sigma, state.mean.size))


def _speed_b(reached: float, feasible: int, dim: int) -> float:
    """Return the learning rate of B: movement, stagnation, convergence."""
    share = 180.0 if reached >= 1.0 else 168.0 if reached >= 0.1 else 12.0
    return share * dim * math.tanh(0.02 * feasible) / (47.0 * dim * dim + 6400.0)


def _expand(factor: Array, change: Array, gamma: float, n: int, moving: bool) -> tuple[Array, int, float]:
    """Return B exp(``change`` / 2), where ``moving`` expanded and brought back to determinant one; how many; gamma.

    With B = U S V^T, the variance along the axis u_i of B B^T grows by tau_i = v_i^T exp(change) v_i - 1. Those that
    grew are multiplied by gamma, which follows the largest tau.
    """
    dim = len(factor)
    values, vectors = np.linalg.eigh(change)
    roots = (vectors * np.exp(0.5 * values)) @ vectors.T
    axes, _, local = np.linalg.svd(factor)
    grown = np.square(local @ roots).sum(axis=1) - 1.0
    rate = 1.0 / (3.0 * max(1, dim - 1))
    wanted = math.sqrt(1.0 + min(1.0, dim / n) * float(grown.max()))
    gamma = max(1.0, (1.0 - rate) * gamma + rate * wanted)
    after = factor @ roots
    if not moving:
        return after, 0, gamma
    chosen = axes[:, grown > 0.0]
    count = chosen.shape[1]
    return (after + (gamma - 1.0) * chosen @ (chosen.T @ after)) / gamma ** (count / dim), count, gamma
