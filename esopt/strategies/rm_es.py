"""Rm-ES: earlier paths of the mean stand for the covariance matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .._kernels import cma, span
from .._parts import check_instance
from ..noise import Array, Share, check_seed, moment
from ..protocols import Move, Sampler, State, StepSize
from ..records import Evals, Info, Population
from ..samplers.gaussian import Gaussian
from ..step_sizes import CSA, PSR
from ._cma import check_values, history_size, population_size, with_probes
from ._drawn import Drawn
from ._span import Single, Span, by_rank, recombination, start_scale, stopped


@dataclass(frozen=True, eq=False)
class RMState:
    """State of :class:`RMES`: ``vectors`` (m, d) are paths, oldest first, and ``times`` (m,) their generations."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    spread: Array
    path: Array
    vectors: Single
    times: NDArray[np.int64]
    history: Array
    latest: Array
    step_size: State


@dataclass(frozen=True, eq=False)
class RMES(Drawn):
    """Rank-m evolution strategy: a few long valleys in very many dimensions, at the cost of few vectors.

    Candidates have the covariance sigma^2 ((1 - c)^m I + c sum_j (1 - c)^(m - j) p_j p_j^T), where the p_j are paths
    of the mean at least ``gap`` generations apart, as far as there are so many. Sigma follows the ranks of a
    generation's better half among those of the one before, :class:`PSR`. ``m=1`` is R1-ES. Invariant under increasing
    transformations of f, and under rotations as far as the noise is.

    Parameters
    ----------
    sigma : initial standard deviation: a number, or one per coordinate.
    n : population size; None for 4 + floor(3 ln d).
    m : number of paths.
    gap : generations between two paths; None for d.
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".
    step_size : rule for sigma: :class:`PSR`, :class:`MSR`, :class:`TPA`; there is no path for :class:`CSA`.

    Notes
    -----
    O(m d) time for each candidate and O(m d) memory. The paper draws the steps along the paths from normals of their
    own; here one root a I + V^T B V of the same covariance is applied to the noise.

    References
    ----------
    Li, Zhang (2018), A simple yet efficient evolution strategy for large-scale black-box optimization, IEEE
    Transactions on Evolutionary Computation 22, algorithms 1 and 2.

    Examples
    --------
    >>> import esopt
    >>> def cigar(x): return x[0] ** 2 + 1e6 * sum(v * v for v in x[1:])
    >>> result = esopt.minimize(cigar, [1.0] * 20, strategy=esopt.RMES(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8)
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    m: int = 2
    gap: int | None = None
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"
    step_size: StepSize = field(default_factory=lambda: PSR(0.3, parents=True))

    def __post_init__(self) -> None:
        check_instance("step_size", self.step_size, StepSize, "PSR()")
        if isinstance(self.step_size, CSA):
            raise ValueError("RMES() got step_size=CSA(), but keeps no path for sigma. Pass PSR(), MSR() or TPA().")
        super().__post_init__()
        if not (isinstance(self.m, int) and self.m >= 1):
            raise ValueError(f"m must be a positive number of paths, got {self.m!r}. Pass for example m=2.")
        if self.gap is not None and not (isinstance(self.gap, int) and self.gap >= 0):
            raise ValueError(f"gap must be a number of generations, got {self.gap!r}. Pass for example gap=100.")

    def init(self, x0: Array, seed: int) -> RMState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        sigma, spread = start_scale(self.sigma, dim, "RMES()")
        n = population_size(self.n, dim, self.sampler)
        return RMState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, sigma, spread, np.zeros(dim),
            np.zeros((self.m, dim), np.float32), np.zeros(self.m, np.int64),
            np.full((2, history_size(dim, n)), np.nan), np.full(n, np.nan), self.step_size.init(dim),
        )  # fmt: skip

    def _scale(self, state: RMState) -> Span:
        """Return the population's scale; unused paths are zero and count in the power of 1 - c, as in the paper."""
        c = 1.0 / (3.0 * math.sqrt(state.mean.size) + 5.0)
        masses = np.asarray(c * (1.0 - c) ** np.arange(self.m - 1.0, -1.0, -1.0), np.float64)
        gram = np.array([span.project(state.vectors, row.astype(np.float64)) for row in state.vectors])
        base, core = _root((1.0 - c) ** self.m, masses, gram)
        return Span(state.sigma * state.spread, base, state.vectors, core)

    def ask(self, state: RMState) -> Population:
        """Return this generation's population."""
        population = Population(state.mean, self._scale(state), self._noise(state), share=self.share)
        return with_probes(population, self.step_size, state.sigma, state.step_size)

    def tell(self, state: RMState, evals: Evals) -> tuple[RMState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        noise = self._noise(state)
        values = check_values(evals, noise)
        weights, mass = recombination(noise.n)
        row = moment(noise, by_rank(values, weights))
        scale = self._scale(state)
        step = span.expand(scale.base, scale.vectors, scale.core @ span.project(scale.vectors, row), row)
        rate = 2.0 / (noise.dim + 7.0)
        path = (1.0 - rate) * state.path + math.sqrt(rate * (2.0 - rate) * mass) * step
        vectors, times = self._keep(state, path)
        shift = state.spread * step
        move = Move(state.sigma, None, values, state.latest, evals.values[noise.n :], weights, shift, row)
        sigma, known = self.step_size.adapt(move, state.step_size)
        after = RMState(
            state.seed, state.generation + 1, state.mean + state.sigma * state.spread * step, sigma, state.start,
            state.spread, path, vectors, times, cma.remember(state.history, values), values, known,
        )  # fmt: skip
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma})

    def _keep(self, state: RMState, path: Array) -> tuple[Single, NDArray[np.int64]]:
        """Return paths and times with the newest path in: the oldest goes, or one that is too close to the next."""
        after = state.generation + 1
        gap = state.mean.size if self.gap is None else self.gap
        between = np.diff(state.times)
        crowded = state.generation >= self.m and between.size and int(between.min()) <= gap
        drop = int(between.argmin()) + 1 if crowded else 0
        vectors = np.concatenate([np.delete(state.vectors, drop, 0), path[None, :].astype(np.float32)])
        return vectors, np.append(np.delete(state.times, drop), after)

    def stop(self, state: RMState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`, for a covariance near sigma^2 I."""
        return stopped(state, state.spread)


def _root(alpha: float, masses: Array, gram: Array) -> tuple[float, Array]:
    """Return a and B of the symmetric root a I + V^T B V of alpha I + V^T diag(masses) V, for gram = V V^T."""
    base, roots = math.sqrt(alpha), np.sqrt(masses)
    values, vectors = np.linalg.eigh(roots[:, None] * gram * roots)
    # (sqrt(alpha + x) - sqrt(alpha)) / x, without the division by zero.
    factors = 1.0 / (np.sqrt(alpha + np.maximum(values, 0.0)) + base)
    return base, roots[:, None] * ((vectors * factors) @ vectors.T) * roots
