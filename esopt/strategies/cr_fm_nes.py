"""CR-FM-NES: a diagonal and one direction stand for the covariance matrix, learned by the natural gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._kernels import cma, span
from ..noise import INIT, Array, Key, Noise, Share, check_seed, moment, project
from ..protocols import Sampler
from ..records import Evals, Info, Population
from ..samplers.antithetic import Antithetic
from ..samplers.gaussian import Gaussian
from ._cma import check_values, history_size, population_size
from ._distance_weights import constants, far, ordered, speed
from ._drawn import Drawn
from ._span import Span, stopped
from .gradient_es import fit_sigma


@dataclass(frozen=True, eq=False)
class CRFMNESState:
    """State of :class:`CRFMNES`: x ~ N(mean, sigma^2 D (I + v v^T) D), D diagonal with det D^2 (1 + |v|^2) = 1."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    vector: Array
    deviations: Array
    path_sigma: Array
    path_c: Array
    history: Array
    latest: Array


@dataclass(frozen=True, eq=False)
class CRFMNES(Drawn):
    """Cost-reduced fast-moving natural evolution strategy: for hundreds of dimensions and more.

    Weights grow with the distance while the mean moves (|p_sigma| at least its expectation under random selection), so
    that the search expands fast; three learning rates of sigma follow how far it has converged. Failed and infinite
    values are ranked last, the shorter steps first. Invariant under increasing transformations of f, not under
    rotations.

    Parameters
    ----------
    sigma : initial standard deviation: a number, or one per coordinate.
    n : population size, even; None for 4 + floor(3 ln d), rounded up to even.
    sampler : joint law of the noise rows; n must be a multiple of its block. The method is made for antithetic rows.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    O(n d) time for each generation and O(d) memory. The gradients with respect to v and D are linear in sums over the
    candidates, so that they need sum w z, sum w <v, z> z and sum w z^2 and no candidate. The rank-one term acts only
    in the movement phase, where sigma does not shrink either. Its rate c_1 (d - 5) / 6 is taken as zero for d < 5.

    References
    ----------
    Nomura, Ono (2022), Fast moving natural evolution strategy for high-dimensional problems, arXiv:2201.11422; the
    gradients are those of Akimoto, Auger, Hansen (2014), Comparison-based natural gradient optimization in high
    dimension (VD-CMA).

    Examples
    --------
    >>> import esopt
    >>> def ellipsoid(x): return sum(10.0 ** (6 * i / 19) * v * v for i, v in enumerate(x))
    >>> result = esopt.minimize(ellipsoid, [1.0] * 20, strategy=esopt.CRFMNES(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8)
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    sampler: Sampler = field(default_factory=Antithetic)
    share: Share = "pair"

    def init(self, x0: Array, seed: int) -> CRFMNESState:
        """Return the state before the first generation, around ``x0`` (d,); v is random with |v| near 1."""
        dim = x0.size
        scale = fit_sigma(self.sigma, dim)
        if np.ndim(scale) == 2:
            raise ValueError("CRFMNES() got a factor as sigma. Pass one number or one per coordinate, or use CMAES().")
        spread = np.broadcast_to(np.asarray(scale, np.float64), dim)
        sigma = float(np.exp(np.log(spread).mean()))
        n = population_size(self.n, dim, self.sampler)
        vector = Gaussian().noise(Key(check_seed(seed), 1, INIT), 1, dim).rows()[0] / math.sqrt(dim)
        zero, history = np.zeros(dim), np.full((2, history_size(dim, n)), np.nan)
        return CRFMNESState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, float(spread.max()), vector.astype(np.float64),
            spread / sigma, zero, zero, history, np.full(n, np.nan),
        )  # fmt: skip

    def ask(self, state: CRFMNESState) -> Population:
        """Return this generation's population."""
        square = span.dot(state.vector, state.vector)
        core = np.full((1, 1), 1.0 / (math.sqrt(1.0 + square) + 1.0))
        scale = Span(state.sigma * state.deviations, 1.0, state.vector[None, :].astype(np.float32), core)
        return Population(state.mean, scale, self._noise(state), share=self.share)

    def tell(self, state: CRFMNESState, evals: Evals) -> tuple[CRFMNESState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        noise = self._noise(state)
        values, dim = check_values(evals, noise), noise.dim
        rates, lengths = constants(dim, noise.n), noise.norms()
        rows, feasible = ordered(values, lengths)
        ranks = np.empty(noise.n)
        ranks[rows] = rates.ranks
        # Evolution path of sigma, with the weights of the ranks alone: it tells the phase.
        signed = ranks - 1.0 / noise.n
        white = moment(noise, signed)
        path = (1.0 - rates.sigma) * state.path_sigma + math.sqrt(
            rates.sigma * (2.0 - rates.sigma) * rates.mass
        ) * white
        reached = math.sqrt(span.dot(path, path)) / rates.expected
        weights = far(ranks, lengths, rates.distance * math.sqrt(feasible / noise.n)) if reached >= 1.0 else signed
        step, along, second, crossed, squares, total = _sums(noise, weights, state.vector)
        fade = (4.0 + rates.mass / dim) / (dim + 4.0 + 2.0 * rates.mass / dim)
        push = math.sqrt(fade * (2.0 - fade) * rates.mass)
        path_c = (1.0 - fade) * state.path_c + push * state.deviations * step
        eta = math.tanh((min(0.02 * feasible, 3.0 * math.log(dim)) + 5.0) / (0.23 * dim + 25.0))
        second, crossed, squares, total = eta * second, eta * crossed, eta * squares, eta * total
        if reached >= 1.0:
            one = 2.0 / ((dim + 1.3) ** 2 + rates.mass) * max(0.0, (dim - 5.0) / 6.0) * feasible / noise.n
            own = path_c / state.deviations
            inner = span.dot(along, own)
            second, crossed = second + one * np.square(own), crossed + one * inner * own
            squares, total = squares + one * inner * inner, total + one
        turn, growth = _natural(state.vector, second, crossed, squares, total)
        vector = state.vector + turn
        deviations = state.deviations * np.maximum(1.0 + growth, 1e-2)
        volume = np.log(deviations).mean() + 0.5 * math.log1p(span.dot(vector, vector)) / dim
        change = float(weights @ (lengths - dim)) / dim
        rate = speed(reached, feasible, dim)
        change = 0.0 if reached >= 1.0 and change < 0.0 else 0.5 * rate * change
        after = CRFMNESState(
            state.seed, state.generation + 1, state.mean + state.sigma * state.deviations * step,
            state.sigma * math.exp(min(1.0, change)), state.start, vector, deviations / math.exp(volume), path, path_c,
            cma.remember(state.history, values), values,
        )  # fmt: skip
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma})

    def stop(self, state: CRFMNESState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`."""
        return stopped(state, state.deviations * np.sqrt(1.0 + np.square(state.vector)))


def _sums(noise: Noise, weights: Array, vector: Array) -> tuple[Array, Array, Array, Array, float, float]:
    """Return sum w y, the direction u of ``vector``, and sum w y^2, sum w <u, y> y, sum w <u, y>^2, sum w.

    y = z + k <u, z> u with k = sqrt(1 + |v|^2) - 1, so that <u, y> = (1 + k) <u, z>.
    """
    length = math.sqrt(span.dot(vector, vector))
    unit, root = vector / length, math.sqrt(1.0 + length * length)
    along = project(noise, unit)
    first, crossed, second = moment(noise, np.stack([weights, weights * along, weights]), (1, 1, 2))
    total, squares = float(weights.sum()), float(weights @ np.square(along))
    lifted = (root - 1.0) * squares * unit
    second = second + total + (root - 1.0) * unit * (2.0 * crossed + lifted)
    step = first + (root - 1.0) * float(weights @ along) * unit
    return step, unit, second, root * (crossed + lifted), root * root * squares, total


def _natural(vector: Array, second: Array, crossed: Array, squares: float, total: float) -> tuple[Array, Array]:
    """Return the natural gradients for v and for log D, (d,) each.

    They are linear in ``second`` = sum w y^2, ``crossed`` = sum w <u, y> y, ``squares`` = sum w <u, y>^2 and ``total``
    = sum w, u the direction of v. Akimoto, Auger, Hansen (2014), theorem 3 and the four steps below it.
    """
    square = span.dot(vector, vector)
    unit = vector / math.sqrt(square)
    fourth, gamma, local = square * square, 1.0 + square, unit * unit
    reach = math.sqrt(fourth + (2.0 * gamma - math.sqrt(gamma)) / float(local.max())) / (2.0 + square)
    alpha = min(1.0, reach)
    t = crossed - 0.5 * (squares + gamma * total) * unit
    b = -(1.0 - alpha * alpha) * fourth / gamma + 2.0 * alpha * alpha
    inverse = 1.0 / (2.0 - (b + 2.0 * alpha * alpha) * local)
    s = second - square / gamma * unit * crossed - total
    s -= alpha / gamma * ((2.0 + square) * (t * unit) - square * span.dot(unit, t) * local)
    scaled = inverse * local
    # The determinant is positive; it rounds to zero once v, in a run that diverges, has become a coordinate axis.
    s = s * inverse - b / max(2.0**-53, 1.0 + b * span.dot(local, scaled)) * span.dot(scaled, s) * scaled
    t = t - alpha * ((2.0 + square) * (s * unit) - span.dot(local, s) * unit)
    return t / math.sqrt(square), s
