"""sep-CMA-ES: one variance per coordinate, linear in time and space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..noise import Array, check_seed
from ..protocols import State
from ._cma import Family, history_size, population_size
from .gradient_es import fit_sigma


@dataclass(frozen=True, eq=False)
class SepCMAState:
    """State of :class:`SepCMA`: x ~ N(mean, sigma^2 diag(variances))."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    variances: Array
    path_sigma: Array
    path_c: Array
    history: Array
    latest: Array
    injected: Array
    step_size: State

    @property
    def shape(self) -> Array:
        """What the covariance is made of: :attr:`variances`."""
        return self.variances

    @property
    def cov(self) -> Array:
        """Variances of the search, (d,)."""
        return self.sigma**2 * self.variances

    @property
    def scale(self) -> Array:
        """Standard deviations of the search, (d,)."""
        return self.sigma * np.sqrt(self.variances)


@dataclass(frozen=True, eq=False)
class SepCMA(Family):
    """CMA-ES with a diagonal covariance: for separable functions, and for hundreds of dimensions and more.

    The updates of :class:`CMAES` with learning rates (d + 2) / 3 times as large. Invariant under increasing
    transformations of f, not under rotations.

    Parameters
    ----------
    sigma : initial standard deviation: a number, or one per coordinate.
    n : population size; None for 4 + floor(3 ln d).
    active : use negative weights.
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".
    step_size : rule for sigma: :class:`CSA`, :class:`TPA`, :class:`MSR`, :class:`PSR`, or one of your own.

    References
    ----------
    Ros and Hansen (2008), A simple modification in CMA-ES achieving linear time and space complexity.

    Examples
    --------
    >>> import esopt
    >>> def ellipsoid(x): return sum(10.0 ** (6 * i / 9) * v * v for i, v in enumerate(x))
    >>> result = esopt.minimize(ellipsoid, [1.0] * 10, strategy=esopt.SepCMA(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8) and result.evaluations < 5000
    True
    """

    def init(self, x0: Array, seed: int) -> SepCMAState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        scale = fit_sigma(self.sigma, dim)
        if np.ndim(scale) == 2:
            raise ValueError("SepCMA() got a factor as sigma. Pass one number or one per coordinate, or use CMAES().")
        variances = np.broadcast_to(np.square(scale), dim)
        sigma = math.sqrt(float(variances.mean()))
        n = population_size(self.n, dim, self.sampler)
        zero, history = np.zeros(dim), np.full((2, history_size(dim, n)), np.nan)
        return SepCMAState(
            check_seed(seed),
            0,
            np.array(x0, np.float64),
            sigma,
            sigma,
            variances / sigma**2,
            zero,
            zero,
            history,
            np.full(n, np.nan),
            np.empty((0, dim)),
            self.step_size.init(dim),
        )
