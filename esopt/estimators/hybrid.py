"""Values and gradients mixed by their own precision, with a test for the jumps that gradients do not see."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..noise import Array, Law, Noise
from ..protocols import State
from ..records import Evals, Gradient, Population
from ._blocks import mean_value
from .score import Score, ScoreState

Rows = NDArray[np.intp]

_LEAST_BLOCKS = 4
"""Two halves, each with a variance of its own."""

_JUMP = 3.0
"""z-score above which the distance between the sides is a jump."""

_ROUNDING = 1e-10
"""Squared distance below which the sides agree, relative to the squared length of the gradients."""


@dataclass(frozen=True)
class Hybrid:
    """Least-variance mixture of :class:`Score` and :class:`Bonnet` from the same rows; turns to values at a jump.

    With S_b and P_b the averages of the two sides over block b, delta_b = S_b - P_b, B blocks, V_S, V_P and C the
    traces of their covariances, the weight on the gradients is

        w = (V_S - C) / (V_S + V_P - 2 C + B max(0, U)),    U = (|sum delta|^2 - sum |delta_b|^2) / (B (B - 1)),

    clipped to [0, 1]. U estimates the squared bias of the gradients' side, which is that of a jump. Where it is too
    large for chance (z > 3), w is 0.

    Every second block is weighted by what the other blocks say, so that the estimate is unbiased wherever both sides
    are, and near a jump it leans to the gradients by no more than pays in mean squared error. With fewer than four
    usable blocks it is the score alone. The chosen weight, z and a sentence are in :attr:`Gradient.notes`.

    Parameters
    ----------
    score : the side of the values, with its baseline; without the gradient of the scale, which Hybrid does not have.
    tangent : also subtract t . (x - mean) from the values and add t to the score, t the mean gradient of the other
        blocks. What a tangent explains then neither disturbs the score nor hides a jump. False pays in few dimensions
        where f goes up and down within one sigma.

    Notes
    -----
    Needs values and gradients, and memory for a few arrays of B x d numbers; the test multiplies them, at a cost of
    B d min(B, d). Without a jump U sqrt(B (B - 1) / (2 tr C^2)), C the covariance of delta, is a sum of squares less
    its mean; z is its normal score for k = (tr C)^2 / tr C^2 degrees of freedom (Wilson and Hilferty), taken over all
    blocks for the notes and over each half for the weights. It takes ten blocks or more to reach 3. The estimate of w
    costs variance: by chance B max(0, U) is up to about sqrt(2 / d) of the rest of the denominator. Baselines and
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
        ValueError  for rows that are not Gaussian: the two sides then differ without a jump.
        """
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
        values, grads = evals.values[: noise.n], evals.grads[: noise.n]
        utilities = values if evals.utilities is None else evals.utilities
        rows = np.isfinite(utilities) & np.isfinite(grads).all(axis=1)
        kept = np.flatnonzero(rows.reshape(-1, noise.block).all(axis=1))
        blocks = kept.size
        if blocks < _LEAST_BLOCKS:
            gradient, after = self.score.estimate(population, evals, state)
            side = f"score: {blocks} blocks with values and gradients, at least {_LEAST_BLOCKS} are needed for both"
            return replace(gradient, notes={"weight_on_gradients": 0.0, "side": side}), after
        used = _only(utilities, _rows_of(kept, noise.block))
        pathwise = grads.reshape(-1, noise.block, noise.dim)[kept].mean(axis=1)
        score = self._score_terms(population, evals, used, pathwise, kept, state.baseline)
        mixed, notes = _mix(score, pathwise)
        mean = mixed.mean(axis=0)
        mixed -= mean
        error = np.sqrt(np.einsum("ij,ij->j", mixed, mixed) / (blocks * (blocks - 1)))
        value, value_stderr = mean_value(values, noise.block)
        gradient = Gradient(mean, error, blocks, value, value_stderr, len(population), notes=notes)
        return gradient, ScoreState(self.score.baseline.learn(used, population, gradient, state.baseline))

    def _score_terms(
        self, population: Population, evals: Evals, values: Array, pathwise: Array, kept: Rows, state: State
    ) -> Array:
        """Return S_b of the blocks ``kept``, (B, d); each half has a baseline and tangents of its own."""
        noise, block = population.noise, population.noise.block
        tangents = np.zeros((noise.n // block, noise.dim))
        residuals, known = values, []
        if self.tangent:
            for half, terms in ((kept[first::2], pathwise[first::2]) for first in (0, 1)):
                tangents[half] = (terms.sum(axis=0) - terms) / (len(half) - 1)
            residuals = values - noise.dot(np.repeat(tangents * population.sigma("Hybrid()"), block, axis=0))
        weights = np.zeros(noise.n)
        for half in (kept[0::2], kept[1::2]):
            rows = _rows_of(half, block)
            centered = self.score.baseline.center(_only(residuals, rows), population, evals, state)
            weights[rows] = centered.values[rows] / block
            known.append(centered.mean)
        terms = _block_sums(noise, weights)
        terms /= population.sigma("Hybrid()")
        terms += tangents
        terms = terms if kept.size == len(terms) else terms[kept]
        for first, mean in enumerate(known):
            if mean is not None:
                terms[first::2] += mean
        return terms


def _block_sums(noise: Noise, weights: Array) -> Array:
    """Return the sum of weights * eps over every block, (n / block, d)."""
    sums = np.empty((noise.n // noise.block, noise.dim))
    for rows, columns, eps in noise.tiles():
        weighted = (eps * weights[rows, None]).reshape(-1, noise.block, eps.shape[1])
        sums[rows.start // noise.block : rows.stop // noise.block, columns] = weighted.sum(axis=1)
    return sums


def _only(values: Array, rows: Rows) -> Array:
    """Return ``values`` at ``rows``, and nan elsewhere."""
    out = np.full(values.size, np.nan)
    out[rows] = values[rows]
    return out


def _rows_of(blocks: Rows, block: int) -> Rows:
    """Return the row numbers of the blocks with these numbers."""
    return np.asarray((blocks[:, None] * block + np.arange(block)).reshape(-1))


def _mix(score: Array, pathwise: Array) -> tuple[Array, dict[str, float | str]]:
    """Return the mixed terms of all blocks, (B, d), each half with the other's weight, and the notes."""
    delta = score - pathwise
    floor = _ROUNDING * float(np.vdot(pathwise, pathwise)) / len(pathwise)
    z = _jump_z(delta, floor)
    weights = [_weight(score[first::2], delta[first::2], floor) for first in (0, 1)]
    mixed, share = np.empty_like(score), 0.0
    for first, weight in ((0, weights[1]), (1, weights[0])):
        mixed[first::2] = weight * pathwise[first::2] + (1.0 - weight) * score[first::2]
        share += weight * len(score[first::2]) / len(score)
    side = "gradients" if share >= 0.75 else "score" if share <= 0.25 else "both"
    why = f"the gradients miss a jump (z = {z:.1f})" if z > _JUMP else "the least variance"
    return mixed, {"weight_on_gradients": share, "jump_z": z, "side": f"{side}: {why}"}


def _weight(score: Array, delta: Array, floor: float) -> float:
    """Return the weight of the gradients, in [0, 1]; 1 where the sides agree."""
    if _jump_z(delta, floor) > _JUMP:
        return 0.0
    degrees = len(delta) - 1
    spread = delta - delta.mean(axis=0)
    # V_S - C is the covariance of S and delta, V_S + V_P - 2 C the variance of delta.
    gain = float(np.vdot(score - score.mean(axis=0), spread)) / degrees
    total = float(np.vdot(spread, spread)) / degrees + len(delta) * max(0.0, _squared_bias(delta))
    return min(1.0, max(0.0, gain / total)) if total > floor else 1.0


def _squared_bias(delta: Array) -> float:
    """Return U, the mean of delta_i . delta_j over i != j."""
    total = delta.sum(axis=0)
    return float(total @ total - np.vdot(delta, delta)) / (len(delta) * (len(delta) - 1))


def _jump_z(delta: Array, floor: float) -> float:
    """Return the normal score of U without a jump; 0 where U is zero but for rounding."""
    pairs, bias = len(delta) * (len(delta) - 1), _squared_bias(delta)
    gram = delta @ delta.T if len(delta) <= delta.shape[1] else delta.T @ delta
    own = np.einsum("ij,ij->i", delta, delta)
    squares = float(np.vdot(gram, gram) - own @ own) / pairs
    if abs(bias) <= floor or squares <= 0.0:
        return 0.0
    # U sqrt(pairs / (2 tr C^2)) = (chi^2_k - k) / sqrt(2 k), and the cube root of chi^2_k / k is nearly normal.
    degrees = float(own.mean()) ** 2 / squares
    ratio = max(0.0, 1.0 + bias * math.sqrt(pairs / (squares * degrees)))
    width = 2.0 / (9.0 * degrees)
    return (math.cbrt(ratio) - (1.0 - width)) / math.sqrt(width)
