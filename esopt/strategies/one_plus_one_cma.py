"""The (1+1)-CMA-ES: one point, one candidate, and a factor of the covariance that learns from hits and misses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .._kernels import cma
from .._parts import check_flags, check_instance
from ..noise import Array, Key, Noise, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Info, Population
from ..samplers.gaussian import Gaussian
from ._cma import check_values, history_size, reasons, units
from ._factored import Factored
from .gradient_es import check_sigma, start_factor

_THRESHOLD = 0.44
"""p_thresh: above this rate of success the path stands still, since sigma is too small."""
_ANCESTORS = 5
"""A miss is unlearned if it is worse than its ancestor of this order; the first one is the current parent."""
_TAG = "start"


@dataclass(frozen=True, eq=False)
class OnePlusOneState(Factored):
    """State of :class:`OnePlusOneCMA`: x ~ N(mean, sigma^2 A A^T); ``path_c`` is A^-1 times the path of the hits.

    ``parents`` (5,) are the values of the current parent and of those before it, newest first; inf if there were fewer.
    """

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    factor: Array
    path_c: Array
    success: float
    parents: Array
    history: Array
    latest: Array


@dataclass(frozen=True, eq=False)
class OnePlusOneCMA:
    """Elitist covariance matrix adaptation: a parent and one candidate, for smooth functions with one optimum.

    The parent is replaced by a candidate that is no worse. The step size follows the rate of success, hits make their
    direction longer and bad misses make theirs shorter. It takes 0.6 of the evaluations of :class:`CMAES` on a sphere
    and a cigar, as many on an ellipsoid and 1.6 times as many on a discus, in 10 and 20 dimensions; a value that noise
    made too good is kept for ever. Invariant under increasing transformations of f and under rotations. A failed
    evaluation is no success and nothing else, unless there was no value yet: where ``x0`` and all candidates since have
    failed, ``tell`` raises an error.

    Parameters
    ----------
    sigma : initial standard deviation: a number, one per coordinate, or a factor (d, d).
    n : candidates in a generation, of which the best is compared with the parent: the (1+n)-CMA-ES.
    active : learn from misses that are worse than the fifth ancestor of the candidate, the parent four successes ago.
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    O(d^2) time for each candidate and O(d^2) memory: the factor A is updated directly and A^-1 is not needed, because
    the path is kept in the coordinates of the noise. The first generation also evaluates ``x0``. ``state.mean`` is the
    parent, the best point so far. With n > 1 a generation without success unlearns its worst candidate.

    References
    ----------
    Igel, Suttorp, Hansen (2006), A computational efficient covariance matrix update and a (1+1)-CMA for evolution
    strategies; Arnold, Hansen (2010), Active covariance matrix adaptation for the (1+1)-CMA-ES; the constants for n > 1
    are those of Igel, Hansen, Roth (2007), Covariance matrix adaptation for multi-objective optimization, table 1.

    Examples
    --------
    >>> import esopt
    >>> def ellipsoid(x): return sum(10.0 ** (6 * i / 9) * v * v for i, v in enumerate(x))
    >>> result = esopt.minimize(ellipsoid, [1.0] * 10, strategy=esopt.OnePlusOneCMA(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8) and result.evaluations < 4000
    True
    """

    keeps_values: ClassVar[bool] = True

    sigma: float | Array = 0.5
    n: int = 1
    active: bool = True
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"

    def __post_init__(self) -> None:
        check_flags(active=self.active)
        check_instance("sampler", self.sampler, Sampler, "Gaussian()")
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        block = self.sampler.block
        whole = isinstance(self.n, (int, np.integer)) and not isinstance(self.n, bool)
        if not (whole and self.n >= 1 and self.n % block == 0):
            raise ValueError(
                f"n must be at least 1 and a multiple of {block} with the sampler {type(self.sampler).__name__}, got "
                f"n={self.n!r}. Pass for example n={block}."
            )

    def init(self, x0: Array, seed: int) -> OnePlusOneState:
        """Return the state before the first generation, at ``x0`` (d,)."""
        dim = x0.size
        sigma, factor = start_factor(self.sigma, dim)
        return OnePlusOneState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, sigma, factor / sigma, np.zeros(dim),
            _target(self.n), np.full(_ANCESTORS, math.inf), np.full((2, history_size(dim, self.n)), np.nan),
            np.full(self.n, np.nan),
        )  # fmt: skip

    def _noise(self, state: OnePlusOneState) -> Noise:
        return self.sampler.noise(Key(state.seed, state.generation), self.n, state.mean.size)

    def ask(self, state: OnePlusOneState) -> Population:
        """Return this generation's candidates; the first generation's last row is the point where the run starts."""
        population = Population(state.mean, state.scale, self._noise(state), share=self.share)
        return population.with_extra(_TAG, state.mean) if state.generation == 0 else population

    def tell(self, state: OnePlusOneState, evals: Evals) -> tuple[OnePlusOneState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if nothing but failures is known so far, ``x0`` included; the state is as before.
        """
        values, dim = evals.values[: self.n], state.mean.size
        parents = state.parents
        if state.generation == 0:
            start = float(evals.values[self.n])
            parents = np.concatenate([[math.inf if math.isnan(start) else start], parents[1:]])
        if parents[0] == math.inf:
            check_values(evals, self._noise(state), int(state.generation == 0))
        rows = cma.order(values)
        best, worst = int(rows[0]), int(rows[-1])
        hit = bool(values[best] <= parents[0])
        hits = float((values <= parents[0]).mean())
        target = _target(self.n)
        rate = target * self.n / (2.0 + target * self.n)
        success = (1.0 - rate) * state.success + rate * hits
        mean, factor, path = state.mean, state.factor, state.path_c
        if hit:
            population = self.ask(state)
            mean = population.rows(best, best + 1)[0]
            factor, path = _learn(factor, path, _row(population.noise, best), success)
            parents = np.concatenate([[values[best]], parents[:-1]])
        elif self.active and values[worst] > parents[-1]:
            factor, path = _unlearn(factor, path, _row(self._noise(state), worst))
        change = (success - target) / (1.0 - target) / (1.0 + dim / (2.0 * self.n))
        after = OnePlusOneState(
            state.seed, state.generation + 1, mean, state.sigma * math.exp(change), state.start, factor, path, success,
            parents, cma.remember(state.history, values), values,
        )  # fmt: skip
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma, "success": success})

    def stop(self, state: OnePlusOneState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`, with the candidates' values."""
        return reasons(state, state.factor, units(self.sigma, state.mean.size))


def _target(n: int) -> float:
    """Return the rate of success that sigma is to keep."""
    return 1.0 / (5.0 + math.sqrt(n) / 2.0)


def _row(noise: Noise, row: int) -> Array:
    return np.asarray(noise.rows(row, row + 1)[0], np.float64)


def _learn(factor: Array, path: Array, z: Array, success: float) -> tuple[Array, Array]:
    """Return A and the local path for (1 - c) C + c s s^T, s the path with the step A z in it.

    While hits are frequent the step is left out, and C keeps what the shorter path lost: Igel et al., section 3.
    """
    dim = z.size
    c, c_path = 2.0 / (dim * dim + 6.0), 2.0 / (dim + 2.0)
    fading = c_path * (2.0 - c_path)
    path = (1.0 - c_path) * path
    if success < _THRESHOLD:
        return _update(factor, path + math.sqrt(fading) * z, path + math.sqrt(fading) * z, 1.0 - c, c)
    return _update(factor, path, path, 1.0 - c + c * fading, c)


def _unlearn(factor: Array, path: Array, z: Array) -> tuple[Array, Array]:
    """Return A and the local path for (1 + c) C - c (A z) (A z)^T: Arnold, Hansen (2010), section 3.

    c is cut so that no length along A z falls below a half of its square.
    """
    square = float(z @ z)
    c = 0.4 / (z.size**1.6 + 1.0)
    if c * (2.0 * square - 1.0) > 1.0:
        c = 1.0 / (2.0 * square - 1.0)
    return _update(factor, path, z, 1.0 + c, -c)


def _update(factor: Array, path: Array, z: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    """Return a factor of alpha C + beta (A z) (A z)^T, C = A A^T, and the local path in its coordinates.

    The factor is A M with M = sqrt(alpha) (I + b z z^T), so that the path becomes M^-1 times the path.
    """
    square, root = float(z @ z), math.sqrt(alpha)
    if square == 0.0:
        return root * factor, path / root
    stretch = math.sqrt(1.0 + beta / alpha * square)
    after = root * (factor + ((stretch - 1.0) / square) * np.outer(factor @ z, z))
    local = (path + ((1.0 / stretch - 1.0) / square * float(z @ path)) * z) / root
    return after, local
