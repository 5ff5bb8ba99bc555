"""VkD-CMA-ES: a diagonal around k directions stands for the covariance matrix, and k can be found out on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._blas import serial
from .._kernels import cma
from ..noise import INIT, Array, Key, Noise, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Info, Population
from ..samplers.gaussian import Gaussian
from ._cma import check_values, constants, history_size, population_size
from ._drawn import Drawn
from ._span import Span, start_scale, stopped

# Akimoto, Hansen (2016), online model selection, section 3.2: what counts as a long axis, and as settled.
_LONG, _FACTOR, _SETTLED_SIGMA, _SETTLED_DIAGONAL = 30.0, 1.414, 0.1, 0.3
_SMOOTHING = 0.3
"""c_s: the weight of the latest comparison of the two candidates along the last step."""
_TAG = "two points"


@dataclass(frozen=True, eq=False)
class TrendState:
    """Averages of the changes of log sigma, of log diag C and of the logarithms of the k axes, and their last values.

    ``since`` counts the generations since k was last increased. All fixed in length, (d,), but for sigma.
    """

    since: int
    log_sigma: float
    log_diagonal: Array
    log_axes: Array
    change_sigma: float
    change_diagonal: Array
    change_axes: Array


@dataclass(frozen=True, eq=False)
class VkDState:
    """State of :class:`VkDCMA`: x ~ N(mean, sigma^2 D (I + V^T S V) D), ``vectors`` V orthonormal, det of C one.

    ``rank`` is k; ``vectors`` (m, d) and ``lengths`` (m,), the diagonal of S, are as many of them as were seen, m <= k.
    ``last`` (d,) is the last step of the mean over sigma, and ``success`` says how good it is to go on along it.
    """

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    deviations: Array
    vectors: Array
    lengths: Array
    rank: int
    last: Array
    success: float
    path_c: Array
    trend: TrendState
    history: Array
    latest: Array

    @property
    def diagonal(self) -> Array:
        """Diagonal of C, (d,): the variances of the coordinates over sigma^2."""
        return np.square(self.deviations) * (1.0 + self.lengths @ np.square(self.vectors))

    @property
    def cov(self) -> Array:
        """Covariance of the search, (d, d)."""
        inner = np.eye(self.mean.size) + (self.vectors.T * self.lengths) @ self.vectors
        return self.sigma**2 * self.deviations[:, None] * inner * self.deviations


@dataclass(frozen=True, eq=False)
class VkDCMA(Drawn):
    """CMA-ES restricted to D (I + V^T S V) D with k orthonormal rows of V: between :class:`SepCMA` and :class:`CMAES`.

    Rank-one and rank-mu updates are projected onto the model: the k longest axes are kept, the others are averaged,
    and D is set to keep every variance. Learning rates are near 2 / (d (k + 2)). Without a given ``k`` it starts from 0
    and becomes larger when all k axes are long and nothing else changes any more, smaller when axes shorten. Sigma
    follows the ranks of two candidates, one step ahead along the mean's last step and one back.
    Invariant under increasing transformations of f.

    Parameters
    ----------
    sigma : initial standard deviation: a number, or one per coordinate.
    n : population size, with the two candidates along the last step; None for 4 + floor(3 ln d).
    k : number of directions, less than d; None to adapt it.
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    O(d (n + k)^2) time for each generation and O(d (n + k)) memory. The two candidates along the last step take the
    place of two noise rows, or of a block of them. Changes are averaged before they are compared with the thresholds
    for k, as in the second paper; pycma's program compares those of single generations.

    References
    ----------
    Akimoto, Hansen (2016), Projection-based restricted covariance matrix adaptation for high dimension, GECCO;
    Akimoto, Hansen (2016), Online model selection for restricted covariance matrix adaptation, PPSN.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(30, 30)))
    >>> def cigar(x): return float((turn @ x)[0] ** 2 + 1e6 * ((turn @ x)[1:] ** 2).sum())
    >>> result = esopt.minimize(cigar, np.ones(30), strategy=esopt.VkDCMA(k=2), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8) and result.evaluations < 12_000
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    k: int | None = None
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self._given_up + max(2, self.sampler.block)
        if self.n is not None and self.n < least:
            raise ValueError(
                f"n must be at least {least} with the sampler {type(self.sampler).__name__}, got {self.n}: two "
                f"candidates lie on the last step. Pass n={least} or more."
            )
        if self.k is not None and not (isinstance(self.k, int) and self.k >= 0):
            raise ValueError(f"k must be a number of directions, got {self.k!r}. Pass for example k=2, or k=None.")

    def init(self, x0: Array, seed: int) -> VkDState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        sigma, spread = start_scale(self.sigma, dim, "VkDCMA()")
        if self.k is not None and self.k >= dim:
            raise ValueError(f"VkDCMA() got k={self.k} in {dim} dimensions. Pass a k below {dim}, or use CMAES().")
        n, zero = population_size(self.n, dim, self.sampler), np.zeros(dim)
        deviations = np.array(np.broadcast_to(spread, dim))
        volume = math.exp(float(np.log(deviations).mean()))
        start, sigma, deviations = sigma * float(deviations.max()), sigma * volume, deviations / volume
        trend = TrendState(0, math.log(sigma), 2.0 * np.log(deviations), zero, 0.0, zero, zero)
        return VkDState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, start, deviations, np.empty((0, dim)), np.empty(0),
            self.k or 0, zero, 0.0, zero, trend, np.full((2, history_size(dim, n)), np.nan), np.full(n, np.nan),
        )  # fmt: skip

    @property
    def _given_up(self) -> int:
        """Number of noise rows in whose place the two candidates are."""
        return -(-2 // self.sampler.block) * self.sampler.block

    def _noise(self, state: VkDState) -> Noise:
        dim = state.mean.size
        n = population_size(self.n, dim, self.sampler) - (self._given_up if state.generation else 0)
        return self.sampler.noise(Key(state.seed, state.generation), n, dim)

    def ask(self, state: VkDState) -> Population:
        """Return this generation's population; from the second on, its last rows lie on the last step of the mean."""
        spread = state.sigma * state.deviations
        scale: Array | Span = spread
        if state.lengths.size:
            core = np.diag(np.sqrt(1.0 + state.lengths) - 1.0)
            scale = Span(spread, 1.0, state.vectors.astype(np.float32), core)
        population = Population(state.mean, scale, self._noise(state), share=self.share)
        if not state.generation:
            return population
        step = spread * _ahead(state)
        return population.with_extra(_TAG, state.mean + np.stack([step, -step]))

    @serial
    def tell(self, state: VkDState, evals: Evals) -> tuple[VkDState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations of noise rows failed; the state is as before.
        """
        noise = self._noise(state)
        dim, known = noise.dim, check_values(evals, noise)
        values = evals.values[: noise.n + 2] if state.generation else known
        n = values.size
        weights, plain = constants(dim, n, False, False)
        mass, rates = plain[-1], _rates(dim, state.rank, plain[-1])
        order, weights = cma.order(values), weights[: n // 2]
        success, moving = state.success, True
        if state.generation:
            success += _SMOOTHING * (_gain(values, order) - success)
            moving = success < 0.5
        steps = _steps(state, noise, order[: n // 2])
        step = state.deviations * (weights @ steps)
        path_c = (1.0 - rates.path) * state.path_c
        if moving:
            path_c = path_c + math.sqrt(rates.path * (2.0 - rates.path) * mass) * step
        kept = 1.0 - rates.mu - rates.one + (0.0 if moving else rates.one * rates.path * (2.0 - rates.path))
        columns = np.concatenate(
            [
                state.vectors.T * np.sqrt(kept * state.lengths),
                steps.T * np.sqrt(rates.mu * weights),
                math.sqrt(rates.one) * (path_c / state.deviations)[:, None],
            ],
            axis=1,
        )
        vectors, lengths, growth = _project(columns, kept, state.rank)
        deviations = state.deviations * growth
        volume = math.exp((float(np.log(deviations).sum()) + 0.5 * float(np.log1p(lengths).sum())) / dim)
        after = VkDState(
            state.seed, state.generation + 1, state.mean + state.sigma * step,
            state.sigma * math.exp(success / (4.0 - 3.0 / dim)), state.start, deviations / volume, vectors, lengths,
            state.rank, step, success, path_c / volume, state.trend, cma.remember(state.history, values), known,
        )  # fmt: skip
        if self.k is None:
            after = _select(after, rates, n)
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma, "k": float(after.rank)})

    def stop(self, state: VkDState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`."""
        return stopped(state, np.sqrt(state.diagonal))


class _Rates(NamedTuple):
    """c_1, c_mu and c_c of a model with k directions."""

    one: float
    mu: float
    path: float


def _rates(dim: int, k: int, mass: float) -> _Rates:
    """Return the learning rates of a model of d (k + 1) numbers: section 4 of the second paper."""
    size = dim * (k + 1)
    one = 2.0 / (size + dim + 2.0 * (k + 2) + mass)
    mu = min(1.0 - one, 2.0 * (mass - 2.0 + 1.0 / mass) / (size + 4.0 * (k + 2) + mass))
    return _Rates(one, mu, math.sqrt(one))


def _ahead(state: VkDState) -> Array:
    """Return the last step over D, (d,), in the length of a normal vector: in the metric of C, a random one."""
    step = state.last / state.deviations
    along = state.vectors @ step
    square = float(step @ step) - float(np.square(along) @ (state.lengths / (1.0 + state.lengths)))
    size = Gaussian().noise(Key(state.seed, state.generation, INIT), 1, step.size).norms()[0]
    return step * math.sqrt(float(size) / square) if square > 0.0 else step


def _gain(values: Array, order: NDArray[np.int64]) -> float:
    """Return by how many ranks the step ahead is better than the step back, over n - 1; zero if none is."""
    n = values.size
    ahead, back = values[n - 2], values[n - 1]
    if ahead == back or (math.isnan(ahead) and math.isnan(back)):
        return 0.0
    places = np.empty(n)
    places[order] = np.arange(n)
    return float(places[n - 1] - places[n - 2]) / (n - 1.0)


def _steps(state: VkDState, noise: Noise, rows: NDArray[np.int64]) -> Array:
    """Return the steps of some candidates over sigma D, (m, d): their covariance is I + V^T S V."""
    z = np.zeros((rows.size, noise.dim))
    random = np.flatnonzero(rows < noise.n)
    for i in random:
        z[i] = noise.rows(rows[i], rows[i] + 1)[0]
    z += ((z @ state.vectors.T) * (np.sqrt(1.0 + state.lengths) - 1.0)) @ state.vectors
    if random.size < rows.size:
        ahead = _ahead(state)
        for i in np.flatnonzero(rows >= noise.n):
            z[i] = ahead if rows[i] == noise.n else -ahead
    return z


def _project(columns: Array, kept: float, k: int) -> tuple[Array, Array, Array]:
    """Return V, S and a factor for D, such that D (I + V^T S V) D is the projection of kept I + ``columns`` U U^T.

    Its k longest axes are kept, beta is the mean of its other eigenvalues, and the diagonal is kept: first paper,
    section 3.2.
    """
    dim, size = columns.shape
    total = float(np.square(columns).sum())
    if size < dim:
        values, turn = np.linalg.eigh(columns.T @ columns)
    else:
        values, turn = np.linalg.eigh(columns @ columns.T)
    k = min(k, int((values > 1e-14 * max(total, 1e-300)).sum()))
    longest = values[::-1][:k]
    vectors = turn[:, ::-1][:, :k]
    if size < dim:
        vectors = (columns @ vectors) / np.sqrt(longest)
    rest = max(0.0, total - float(longest.sum())) / (dim - k)
    lengths = np.maximum(0.0, (longest - rest) / (kept + rest))
    before, after = kept + np.square(columns).sum(axis=1), 1.0 + np.square(vectors) @ lengths
    return np.ascontiguousarray(vectors.T), lengths, np.sqrt(before / after)


def _select(state: VkDState, rates: _Rates, n: int) -> VkDState:
    """Return the state with k of the next generation: algorithm 2 of the second paper."""
    dim, k, old = state.mean.size, state.rank, state.trend
    speed = 0.5 * min(1.0, n / dim) / max(1.0, _LONG / 10.0)
    log_sigma, log_diagonal = math.log(state.sigma), np.log(state.diagonal)
    log_axes = np.zeros(dim)
    log_axes[: state.lengths.size] = np.log1p(state.lengths)
    trend = TrendState(
        old.since + 1, log_sigma, log_diagonal, log_axes,
        old.change_sigma + speed * (log_sigma - old.log_sigma - old.change_sigma),
        old.change_diagonal + (log_diagonal - old.log_diagonal - old.change_diagonal) / dim,
        old.change_axes + (log_axes - old.log_axes - old.change_axes) / dim,
    )  # fmt: skip
    long = log_axes[:k] > math.log(_LONG)
    learned = rates.one + rates.mu
    settled = abs(trend.change_sigma) < _SETTLED_SIGMA * speed
    settled = settled and float(np.abs(trend.change_diagonal).max()) < _SETTLED_DIAGONAL * learned
    wait = 2 * dim - 1
    vectors, lengths = state.vectors, state.lengths
    if trend.since > wait and k < dim - 1 and bool(long.all()) and settled:
        k, since = min(max(math.ceil(_FACTOR * k), k + 1), dim - 1), 0
    elif trend.since > k * wait and bool((~long & (trend.change_axes[:k] < 0.0)).any()):
        keep = long | (trend.change_axes[:k] >= 0.0)
        k, since = int(keep.sum()), trend.since
        # The averages belong to axes: they move up with theirs.
        trend = replace(trend, log_axes=_moved_up(log_axes, keep), change_axes=_moved_up(trend.change_axes, keep))
        vectors, lengths = vectors[keep[: len(vectors)]], lengths[keep[: len(lengths)]]
    else:
        since = trend.since
    return replace(state, rank=k, vectors=vectors, lengths=lengths, trend=replace(trend, since=since))


def _moved_up(numbers: Array, keep: NDArray[np.bool_]) -> Array:
    """Return ``numbers`` (d,) with those of the first axes that ``keep`` (k,) marks in front, and zeros behind them."""
    out = np.zeros(numbers.size)
    kept = numbers[: keep.size][keep]
    out[: kept.size] = kept
    return out
