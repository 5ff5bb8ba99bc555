"""Values and gradients mixed by their own precision, with a test for the jumps that gradients do not see."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._kernels import mixture, threads
from ..noise import Array, Law, Philox
from ..protocols import State
from ..records import Evals, Gradient, Population
from ._blocks import mean_value
from .score import Score, ScoreState

Rows = NDArray[np.intp]

_LEAST_BLOCKS = 4
"""Two halves, each with a variance of its own."""

_JUMP = 3.0
"""z-score above which the distance between the sides is a jump."""

_FEW = 16
"""Blocks up to which doubt is full; above, _FEW / B of it is left."""

_FAR = 10.0
"""A gradient this many times as far out as any block of the other half is left to the score."""

_LEAST_LAGS, _PAIRS = 8, 1024
"""tr C^2 comes from every block with as many of those before it, and from about as many pairs."""

_ROUNDING = 1e-10
"""Squared distance below which the sides agree, relative to the squared length of the gradients."""


@dataclass(frozen=True)
class Hybrid:
    """Least-variance mixture of :class:`Score` and :class:`Bonnet` from the same rows; turns to values at a jump.

    With S_b and P_b the averages of the two sides over block b, delta_b = S_b - P_b, B blocks, V_S, V_P and C the
    traces of their covariances, the weight on the gradients is

        w = (V_S - C) / (V_S + V_P - 2 C + B (c U + a se U)),   U = (|sum delta|^2 - sum |delta_b|^2) / (B (B - 1)),

    clipped to [0, 1]. U estimates the squared bias of the gradients' side, which is that of a jump. Where it is too
    large for chance, its z-score above 3, w is 0. Below, it counts by c = z - 1.5 + a, clipped to [0, 1]; and since few
    blocks do not show a jump, its standard error counts too: in full, a = 1, for 16 blocks or fewer, by a = 16 / B
    above.

    Every second block is weighted by what the other blocks say, so that the estimate is unbiased wherever both sides
    are. Near a jump it leans to the gradients, and its standard error includes the bias that this may leave, w^2 c U:
    95 % t-intervals from 32, 64 and 100 rows in pairs hold the gradient of a step in 90 to 96 % of cases for d = 2 and
    10, but in 58 % for d = 100 and 32 blocks. With fewer than four usable blocks it is the score alone. The chosen
    weight, z, w^2 c U and a sentence are in :attr:`Gradient.notes`.

    This caution has a price where f is smooth: measured up to 1.2 times the RMSE of gradients from 50 blocks, up to 1.8
    times from 16, and standard errors up to 1.7 times too large where the gradients have next to no error.

    Close to a step no other block announces a rare huge gradient. One that is ten times as far from its score, and from
    the mean gradient of its half, as any block of the other half is does not count: its block is the score. This biases
    the estimate by the part of E grad f that lies so far out: nothing for f with light tails, less than the error of
    the score near a step.

    Parameters
    ----------
    score : the side of the values, with its baseline; without the gradient of the scale, which Hybrid does not have.
    tangent : also subtract t . (x - mean) from the values and add t to the score, t the mean gradient of the other
        blocks of the same half times max(0, 1 - (2 / K)^2), K = |t|^2 over its variance. What a tangent explains then
        neither disturbs the score nor hides a jump; where one or two gradients made it, K <= 2. False pays in few
        dimensions where f goes up and down within one sigma.

    Notes
    -----
    Where both sides have heavy tails, its errors have too: for exp(a . x), |a| sigma = 0.8 and 128 pairs in d = 6 its
    squared z-scores average 2, those of either side alone 1.3, and its RMSE is 1.2 times that of the gradients.

    Needs values and gradients. Two passes over noise and gradients, with memory for some vectors (d,); noise without
    kernels of its own is held as rows, and so is all noise where the scale is a factor (d, d). Constants that a
    baseline has for each coordinate are left out.

    Without a jump U sqrt(B (B - 1) / (2 tr C^2)), C the covariance of delta, is a sum of squares less its mean; z is
    its normal score for k = (tr C)^2 / tr C^2 degrees of freedom (Wilson and Hilferty), taken over all blocks for the
    notes and over each half for the weights. tr C^2 is the mean of (delta_a . delta_b)^2 over all pairs of few blocks,
    and over about 1,000 pairs of near neighbours of many. It takes ten blocks or more to reach 3. Baselines and
    tangents from other blocks make U wrong by terms of order 1 / B^2, next to its error of order 1 / B.

    References
    ----------
    Parmas et al. (2018), PIPPS: flexible model-based policy search robust to the curse of chaos; Suh et al. (2022), Do
    differentiable simulators give better policy gradients?

    Examples
    --------
    >>> import numpy as np, esopt
    >>> def kink(x): return float(x @ x) + 10.0 * float(x[0] > 0.0)
    >>> es = esopt.GradientES(n=400, estimator=esopt.Hybrid())
    >>> steps = []
    >>> found = esopt.minimize(
    ...     kink, np.zeros(2), strategy=es, seed=1, generations=1, grad=lambda x: 2.0 * x, callback=steps.append
    ... )
    >>> steps[0].info.choices["side"].startswith("score: the gradients miss a jump")
    True
    """

    score: Score = field(default_factory=Score)
    tangent: bool = True

    def __post_init__(self) -> None:
        if self.score.with_scale:
            raise ValueError(
                "Hybrid() got Score(with_scale=True), but it mixes gradients of the mean only. Pass Score() without "
                "with_scale, or use Score or Bonnet alone where the scale moves."
            )

    @property
    def with_scale(self) -> bool:
        return False

    @property
    def raw_only(self) -> bool:
        return True

    def init(self, dim: int) -> ScoreState:
        return self.score.init(dim)

    def prepare(self, population: Population, state: ScoreState) -> Population:
        """Ask for gradients, and for what the baseline needs.

        Raises
        ------
        ValueError  for rows that are not Gaussian: the two sides then differ without a jump; for a scale that is
        neither a number, nor one per coordinate, nor a factor.
        """
        if population.factor is None:
            population.sigma("Hybrid()")
        law = population.noise.law
        if law is not Law.GAUSSIAN:
            raise ValueError(
                f"Hybrid() got noise that is {law.value}; values and gradients estimate the same thing for rows that "
                "are N(0, I). Use a sampler with Law.GAUSSIAN, or one of Score() and Bonnet()."
            )
        return self.score.prepare(population, state).needing("grads")

    def estimate(self, population: Population, evals: Evals, state: ScoreState) -> tuple[Gradient, ScoreState]:
        """Return the gradient, and the state with what the baseline learned.

        Raises
        ------
        ValueError  if there are no gradients.
        EvaluationError  if no block of rows is free of failures.
        """
        if evals.grads is None:
            raise ValueError(
                "Hybrid() got no gradients. Pass grad= to minimize, grads= to tell, or use the estimator Score."
            )
        noise = population.noise
        values = evals.values[: noise.n]
        utilities = values if evals.utilities is None else evals.utilities
        with np.errstate(invalid="ignore", over="ignore"):
            rows = np.isfinite(utilities) & np.isfinite(evals.grads[: noise.n].sum(axis=1))
        kept = np.flatnonzero(rows.reshape(-1, noise.block).all(axis=1))
        blocks = kept.size
        if blocks < _LEAST_BLOCKS:
            gradient, after = self.score.estimate(population, evals, state)
            side = f"score: {blocks} blocks with values and gradients, at least {_LEAST_BLOCKS} are needed for both"
            return replace(gradient, notes={"weight_on_gradients": 0.0, "side": side}), after
        used = _only(utilities, _rows_of(kept, noise.block))
        both = _Both(population, evals.grads, kept)
        terms = self._terms(both, population, evals, used, state.baseline)
        mean, error, notes = _mix(both, terms)
        value, value_stderr = mean_value(values, noise.block)
        gradient = Gradient(mean, error, blocks, value, value_stderr, len(population), notes=notes)
        return gradient, ScoreState(self.score.baseline.learn(used, population, gradient, state.baseline))

    def _terms(self, both: _Both, population: Population, evals: Evals, values: Array, state: State) -> _Terms:
        """Return what S_k is made of; each half has a baseline and tangents of its own."""
        block = population.noise.block
        totals, lengths, products = both.rest()
        slopes = _slopes(lengths) if self.tangent else np.zeros(both.kept.size)
        rows = _rows_of(both.kept, block)
        residuals = values.copy()
        residuals[rows] -= np.repeat(slopes, block) * products
        weights, known = np.zeros(values.size), np.zeros_like(totals)
        for first in (0, 1):
            own = _rows_of(both.kept[first::2], block)
            centered = self.score.baseline.center(_only(residuals, own), population, evals, state)
            weights[own] = centered.values[own] / block
            if centered.mean is not None:
                known[first] = centered.mean
        return _Terms(weights[rows], slopes, totals, known)


class _Terms(NamedTuple):
    """S_k = sum_i weights_i eps_i / sigma + slopes_k (T_h - P_k) + known_h, T_h the sum of P over the half of block k.

    Weights are those of all rows of the blocks, slopes (B,), totals T and known (2, d).
    """

    weights: Array
    slopes: Array
    totals: Array
    known: Array


class _Both:
    """The two sides of the blocks ``kept``, of which every second belongs to the second half."""

    def __init__(self, population: Population, grads: Array, kept: Rows) -> None:
        noise, key, factor = population.noise, population.noise.key, population.factor
        fused = isinstance(noise, Philox) and noise.sampler.fused and factor is None
        eps = np.empty((0, noise.dim), np.float32) if fused else np.ascontiguousarray(noise.rows())
        sigma = np.array(1.0 if factor is not None else population.sigma("Hybrid()"), np.float64, ndmin=1)
        # The kernels scale by coordinates: for a factor they get L eps and L^-T eps as rows, and the scale 1.
        self.steps = eps if factor is None else eps @ factor.T
        self.scores = eps if factor is None else np.ascontiguousarray(np.linalg.solve(factor.T, eps.T).T)
        address = key.generation, key.stream, np.uint64(key.seed)
        self.kept, self.block, self.grads = kept, noise.block, np.ascontiguousarray(grads, np.float64)
        self.tiles = -(-noise.dim // mixture.TILE)
        self._before = self.grads, kept, noise.block, sigma
        self._after = fused and noise.mirrored, *address
        self._parallel = threads.parallel(kept.size * noise.block * noise.dim)

    def rest(self) -> tuple[Array, Array, Array]:
        """Return T (2, d), |P_k|^2 and |T_h - P_k|^2 (2, B), and (T_h - P_k) . (x_i - mean) for every row."""
        totals, blocks = np.zeros((2, self.grads.shape[1])), self.kept.size
        lengths = np.empty((self.tiles, 2, blocks))
        products = np.empty((self.tiles, blocks * self.block))
        kernel = mixture.rest_parallel if self._parallel else mixture.rest
        kernel(*self._before, self.steps, *self._after, totals, lengths, products)
        return totals, lengths.sum(axis=0), products.sum(axis=0)

    def sides(
        self, terms: _Terms, centers: Array, dropped: NDArray[np.bool_], lags: int | None = None
    ) -> tuple[Array, Array]:
        """Return the sums over each half, (2, 5, d), and the products of blocks, (lags + 2, B); see the kernel."""
        columns, blocks = np.zeros((2, 5, self.grads.shape[1])), self.kept.size
        lags = min(blocks - 1, max(_LEAST_LAGS, -(-_PAIRS // blocks)) if lags is None else lags)
        products = np.zeros((self.tiles, lags + 2, blocks))
        kernel = mixture.sides_parallel if self._parallel else mixture.sides
        weights, slopes, totals, known = terms
        own = weights, slopes, totals, known, centers, dropped
        kernel(*self._before, self.scores, *self._after, *own, columns, products)
        return columns, products.sum(axis=0)

    def pathwise(self, numbers: Rows) -> Array:
        """Return the sum of P over the blocks with these numbers, (d,)."""
        rows = _rows_of(self.kept[numbers], self.block)
        return np.asarray(self.grads[rows].sum(axis=0) / self.block)


def _only(values: Array, rows: Rows) -> Array:
    """Return ``values`` at ``rows``, and nan elsewhere."""
    out = np.full(values.size, np.nan)
    out[rows] = values[rows]
    return out


def _rows_of(blocks: Rows, block: int) -> Rows:
    """Return the row numbers of the blocks with these numbers."""
    return np.asarray((blocks[:, None] * block + np.arange(block)).reshape(-1))


def _slopes(lengths: Array) -> Array:
    """Return the factors (B,) that make a tangent of T_h - P_k: one over the number of other blocks, and the shrinkage.

    With K = |t|^2 over its variance, both from the other blocks, t shrinks by max(0, 1 - (2 / K)^2): a mean that one or
    two blocks made alone has K <= 2.
    """
    out = np.empty(lengths.shape[1])
    for first in (0, 1):
        own, rest = lengths[:, first::2]
        others = own.size - 1
        # Added up from both ends: a total less its largest term is nothing but rounding.
        ends = np.zeros(1)
        of_others = np.append(ends, own[:-1].cumsum()) + np.append(own[:0:-1].cumsum()[::-1], ends)
        scatter = np.maximum(of_others - rest / others, 0.0) / max(others - 1, 1)
        ratio = np.divide(2.0 * others * scatter, rest, out=np.ones_like(rest), where=rest > 0.0)
        out[first::2] = np.maximum(0.0, 1.0 - ratio**2) / others if others > 1 else 0.0
    return out


def _mix(both: _Both, terms: _Terms) -> tuple[Array, Array, dict[str, float | str]]:
    """Return mean and standard error of the mixture, each half with the other's weight, and the notes."""
    blocks = both.kept.size
    sizes = np.array([blocks - blocks // 2, blocks // 2])
    dropped, centers = np.zeros(blocks, np.bool_), terms.totals / sizes[:, None]
    columns, products = both.sides(terms, centers, dropped)
    weights = [_weight(columns[half], products[:, half::2], centers[half]) for half in (1, 0)]
    reach, least = products[0] + products[-1], np.minimum(products[0], products[-1])
    for half in (0, 1):
        dropped[half::2] = least[half::2] > _FAR**2 * reach[1 - half :: 2].max()
    if dropped.any():
        lost = np.stack([both.pathwise(np.flatnonzero(dropped[half::2]) * 2 + half) for half in (0, 1)])
        left = sizes - [np.count_nonzero(dropped[half::2]) for half in (0, 1)]
        centers = (terms.totals - lost) / np.maximum(left, 1)[:, None]
        columns, products = both.sides(terms, centers, dropped)
    floor = max(_floor(products[:, half::2], centers[half]) for half in (0, 1))
    distance = _distance(columns[0, 0] + columns[1, 0], products[:-1], floor)
    z = distance.z
    mean, error = _mixture(columns, centers, sizes, np.array(weights))
    share = sum(w * np.count_nonzero(~dropped[half::2]) for half, w in enumerate(weights)) / blocks
    spread = columns[:, 1].sum(axis=0)
    allowance = share**2 * distance.bias(min(1.0, _FEW / blocks))
    error = np.asarray(np.hypot(error, np.sqrt(allowance * spread / max(float(spread.sum()), 1e-300))))
    side = "gradients" if share >= 0.75 else "score" if share <= 0.25 else "both"
    why = f"the gradients miss a jump (z = {z:.1f})" if z > _JUMP else "the least variance"
    notes: dict[str, float | str] = {
        "weight_on_gradients": share,
        "jump_z": z,
        "bias_allowed": float(allowance),
        "side": f"{side}: {why}",
    }
    return mean, error, notes


def _mixture(columns: Array, centers: Array, sizes: NDArray[np.intp], weights: Array) -> tuple[Array, Array]:
    """Return mean and standard error of P + (1 - w) delta over the blocks of both halves, each with its w."""
    blocks = int(sizes.sum())
    sums, squares = np.empty_like(centers), np.empty_like(centers)
    for half, (delta, delta_squares, q, q_squares, q_delta) in enumerate(columns):
        kept = 1.0 - weights[half]
        sums[half] = q + kept * delta
        squares[half] = q_squares + 2.0 * kept * q_delta + kept**2 * delta_squares
    mean = (sizes @ centers + sums.sum(axis=0)) / blocks
    off = centers - mean
    scatter = (squares + 2.0 * off * sums + sizes[:, None] * off**2).sum(axis=0)
    return mean, np.sqrt(np.maximum(scatter, 0.0) / (blocks * (blocks - 1)))


class _Distance(NamedTuple):
    """What blocks say: U, its normal score and its error where there is no jump, and the mean of |delta|^2."""

    squared: float
    z: float
    error: float
    length: float

    def bias(self, doubt: float) -> float:
        """Return the squared bias, as far as chance does not explain it."""
        return max(0.0, self.squared) * min(1.0, max(0.0, self.z - 1.5 + doubt))


def _distance(total: Array, products: Array, floor: float) -> _Distance:
    """Return U, z and the error from the sum of delta, (d,), and delta_k . delta_(k - lag), (lags + 1, m)."""
    size = products.shape[1]
    length = float(products[0].sum()) / size
    bias = (float(total @ total) - size * length) / (size * (size - 1))
    pairs = sum(size - lag for lag in range(1, len(products)))
    squares = float(np.square(products[1:]).sum()) / pairs
    error = math.sqrt(2.0 * squares / (size * (size - 1)))
    if abs(bias) <= floor or squares <= 0.0:
        return _Distance(bias, 0.0, error, length)
    # U sqrt(m (m - 1) / (2 tr C^2)) = (chi^2_k - k) / sqrt(2 k), and the cube root of chi^2_k / k is nearly normal.
    degrees = length**2 / squares
    ratio = max(0.0, 1.0 + bias / error * math.sqrt(2.0 / degrees))
    width = 2.0 / (9.0 * degrees)
    return _Distance(bias, (math.cbrt(ratio) - (1.0 - width)) / math.sqrt(width), error, length)


def _floor(products: Array, center: Array) -> float:
    """Return the squared distance of one half that is rounding."""
    return _ROUNDING * (float(products[-1].mean()) + float(center @ center))


def _weight(columns: Array, products: Array, center: Array) -> float:
    """Return the weight of the gradients that one half asks for, in [0, 1]; 1 where the sides agree."""
    delta, _, q, _, q_delta = columns
    size, floor = products.shape[1], _floor(products, center)
    distance = _distance(delta, products[:-1:2], floor)
    if distance.z > _JUMP:
        return 0.0
    # V_S - C is the covariance of S and delta, V_S + V_P - 2 C the variance of delta.
    spread = (size * distance.length - float(delta @ delta) / size) / (size - 1)
    gain = spread + (float(q_delta.sum()) - float(q @ delta) / size) / (size - 1)
    doubt = min(1.0, _FEW / (2.0 * size))
    total = spread + size * (distance.bias(doubt) + doubt * distance.error)
    return min(1.0, max(0.0, gain / total)) if total > floor else 1.0
