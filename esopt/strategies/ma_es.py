"""MA-ES: CMA-ES with neither a covariance matrix nor its path, only a factor that is multiplied."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._blas import serial
from .._kernels import cma
from ..noise import Array, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Info
from ..samplers.gaussian import Gaussian
from ._cma import Rates, check_values, constants, history_size, population_size, reasons, units
from ._drawn import Drawn
from ._factored import Factored
from .gradient_es import start_factor


@dataclass(frozen=True, eq=False)
class MAESState(Factored):
    """State of :class:`MAES`: x ~ N(mean, sigma^2 M M^T) with ``factor`` M."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    factor: Array
    path_sigma: Array
    history: Array
    latest: Array

    @property
    def path_c(self) -> Array:
        """Path of the covariance in the coordinates of the noise: the one of sigma, (d,)."""
        return self.path_sigma


@dataclass(frozen=True, eq=False)
class MAES(Drawn):
    """Matrix adaptation evolution strategy: the simplest member of the CMA family, for study and comparison.

    The factor M of C = M M^T becomes M (I + c_1 / 2 (p p^T - I) + c_mu / 2 (sum w z z^T - I)), with the path p of the
    noise, which also adapts sigma: to first order in the rates that is :class:`CMAES` without negative weights.
    Invariant under increasing transformations of f and under rotations.

    Parameters
    ----------
    sigma : initial standard deviation: a number, one per coordinate, or a factor (d, d).
    n : population size; None for 4 + floor(3 ln d).
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

    Notes
    -----
    O(n d^2) time for each generation and O(d^2) memory. The rates are those of :class:`CMAES`.

    References
    ----------
    Beyer, Sendhoff (2017), Simplify your covariance matrix adaptation evolution strategy, IEEE Transactions on
    Evolutionary Computation 21, figure 3.

    Examples
    --------
    >>> import esopt
    >>> def ellipsoid(x): return sum(10.0 ** (6 * i / 9) * v * v for i, v in enumerate(x))
    >>> result = esopt.minimize(ellipsoid, [1.0] * 10, strategy=esopt.MAES(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8) and result.evaluations < 9000
    True
    """

    sigma: float | Array = 0.5
    n: int | None = None
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"

    def init(self, x0: Array, seed: int) -> MAESState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        sigma, factor = start_factor(self.sigma, dim)
        n = population_size(self.n, dim, self.sampler)
        return MAESState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, sigma, factor / sigma, np.zeros(dim),
            np.full((2, history_size(dim, n)), np.nan), np.full(n, np.nan),
        )  # fmt: skip

    @serial
    def tell(self, state: MAESState, evals: Evals) -> tuple[MAESState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        noise = self._noise(state)
        values = check_values(evals, noise)
        weights, plain = constants(noise.dim, noise.n, False, False)
        rates = Rates(*plain)
        z, white, _ = cma.select(noise.rows(), values, weights)
        step = state.factor @ white
        path, _, change, _ = cma.paths(
            white, step, state.generation, rates.sigma, rates.damping, rates.path, rates.mass, state.path_sigma,
            state.path_sigma,
        )  # fmt: skip
        factor = (1.0 - 0.5 * rates.one - 0.5 * rates.mu) * state.factor
        factor += 0.5 * rates.one * np.outer(state.factor @ path, path)
        factor += 0.5 * rates.mu * ((state.factor @ z.T) * weights) @ z
        after = MAESState(
            state.seed, state.generation + 1, state.mean + state.sigma * step, state.sigma * math.exp(change),
            state.start, factor, path, cma.remember(state.history, values), values,
        )  # fmt: skip
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma})

    def stop(self, state: MAESState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers, as :meth:`CMAES.stop`."""
        return reasons(state, state.factor, units(self.sigma, state.mean.size))
