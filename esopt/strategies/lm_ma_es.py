"""LM-MA-ES: a handful of directions stand for the covariance matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._kernels import cma, span
from .._parts import check_instance
from ..noise import Array, Share, check_seed, moment
from ..protocols import Move, Sampler, State, StepSize
from ..records import Evals, Info, Population
from ..samplers.gaussian import Gaussian
from ..step_sizes import CSA
from ._cma import check_values, history_size, population_size, with_probes
from ._drawn import Drawn
from ._span import Single, Span, by_rank, recombination, start_scale, stopped

# A map (1 - c) I + c v v^T with c |v|^2 below this is (1 - c) I to beyond the precision of the noise.
_NEGLIGIBLE = 1e-12


@dataclass(frozen=True, eq=False)
class LMMAState:
    """State of :class:`LMMAES`: ``vectors`` (m, d) are paths of the mean's steps and ``gram`` (m, m) their products."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    spread: Array
    vectors: Single
    gram: Array
    path_sigma: Array
    history: Array
    latest: Array
    step_size: State


@dataclass(frozen=True, eq=False)
class LMMAES(Drawn):
    """Limited-memory matrix adaptation: for thousands to millions of dimensions, where few directions matter.

    A candidate is mean + sigma T_m ... T_1 eps with T_j = (1 - c_j) I + c_j v_j v_j^T, where the v_j are m averages of
    the mean's steps, each over four times as many generations as the one before. Invariant under increasing
    transformations of f, and under rotations as far as the noise is.

    Parameters
    ----------
    sigma : initial standard deviation: a number, or one per coordinate.
    n : population size; None for 4 + floor(3 ln d).
    m : number of vectors; None for 4 + floor(3 ln d).
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".
    step_size : rule for sigma: :class:`CSA` (here by the path's squared length), :class:`TPA`, :class:`MSR`,
        :class:`PSR`, or one of your own.

    Notes
    -----
    O(m d) time for each candidate and O(m d) memory in all, whatever n. The product of the maps is applied at once, as
    a I + V^T B V with B from the vectors' products, so that V is read twice for a group of candidates. The paper's
    rates c_sigma = 2 n / d and c_c,j = n / (4^j d) are meant for n < d / 2: they end at 1, and c_j at 1/2.

    References
    ----------
    Loshchilov, Glasmachers, Beyer (2017), Limited-memory matrix adaptation for large scale black-box optimization,
    arXiv:1705.06693, algorithm 1.

    Examples
    --------
    >>> import esopt
    >>> def bowl(x): return sum((i + 1) * v * v for i, v in enumerate(x))
    >>> result = esopt.minimize(bowl, [1.0] * 100, strategy=esopt.LMMAES(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8)
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    m: int | None = None
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"
    step_size: StepSize = field(default_factory=CSA)

    def __post_init__(self) -> None:
        check_instance("step_size", self.step_size, StepSize, "CSA()")
        super().__post_init__()
        if self.m is not None and not (isinstance(self.m, int) and self.m >= 1):
            raise ValueError(f"m must be a positive number of vectors, got {self.m!r}. Pass for example m=20, or None.")

    def init(self, x0: Array, seed: int) -> LMMAState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        sigma, spread = start_scale(self.sigma, dim, "LMMAES()")
        n = population_size(self.n, dim, self.sampler)
        m = 4 + int(3.0 * math.log(dim)) if self.m is None else self.m
        history = np.full((2, history_size(dim, n)), np.nan)
        return LMMAState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, sigma, spread, np.zeros((m, dim), np.float32),
            np.zeros((m, m)), np.zeros(dim), history, np.full(n, np.nan), self.step_size.init(dim),
        )  # fmt: skip

    def ask(self, state: LMMAState) -> Population:
        """Return this generation's population."""
        base, core = _root(state)
        scale = Span(state.sigma * state.spread, base, state.vectors[: len(core)], core)
        population = Population(state.mean, scale, self._noise(state), share=self.share)
        return with_probes(population, self.step_size, state.sigma, state.step_size)

    def tell(self, state: LMMAState, evals: Evals) -> tuple[LMMAState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        noise = self._noise(state)
        values = check_values(evals, noise)
        weights, mass = recombination(noise.n)
        row = moment(noise, by_rank(values, weights))
        # Line 18 of algorithm 1; the rates are those of line 2.
        rate = min(1.0, 2.0 * noise.n / noise.dim)
        path = (1.0 - rate) * state.path_sigma + math.sqrt(mass * rate * (2.0 - rate)) * row
        change = min(1.0, 0.5 * rate * (span.dot(path, path) / noise.dim - 1.0))
        memory = np.minimum(1.0, noise.n / noise.dim * 0.25 ** np.arange(len(state.vectors)))
        keep, gain = 1.0 - memory, np.sqrt(mass * memory * (2.0 - memory))
        dots = span.project(state.vectors, row)
        cross = np.outer(gain, keep * dots)
        gram = np.outer(keep, keep) * state.gram + cross + cross.T + np.outer(gain, gain) * span.dot(row, row)
        base, core = _root(state)
        step = span.expand(base, state.vectors[: len(core)], core @ dots[: len(core)], row)
        shift, cumulated = state.spread * step, state.sigma * math.exp(change)
        move = Move(state.sigma, cumulated, values, state.latest, evals.values[noise.n :], weights, shift, row)
        sigma, known = self.step_size.adapt(move, state.step_size)
        after = LMMAState(
            state.seed, state.generation + 1, state.mean + state.sigma * state.spread * step, sigma, state.start,
            state.spread, span.advance(state.vectors, keep, gain, row), gram, path,
            cma.remember(state.history, values), values, known,
        )  # fmt: skip
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma})

    def stop(self, state: LMMAState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`, for a covariance near sigma^2 I."""
        return stopped(state, state.spread)


def _root(state: LMMAState) -> tuple[float, Array]:
    """Return a and B (k, k) of the product of the maps, a I + V^T B V with the first k vectors, those that matter."""
    known = min(state.generation, len(state.vectors))
    rates = np.minimum(0.5, 1.5 ** -np.arange(known, dtype=np.float64) / state.mean.size)
    matter = np.flatnonzero(rates * np.diagonal(state.gram)[:known] >= _NEGLIGIBLE)
    used = int(matter[-1]) + 1 if matter.size else 0
    rest = float(np.prod(1.0 - rates[used:]))
    base, core = span.dyads(state.gram, rates[:used])
    return rest * base, rest * core
