"""CMA-ES: the covariance of the search learns the shape of the function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array, check_seed
from ..protocols import State
from ._cma import Family, history_size, population_size
from ._factored import Factored
from .gradient_es import start_factor


@dataclass(frozen=True, eq=False)
class CMAState(Factored):
    """State of :class:`CMAES`: x ~ N(mean, sigma^2 A A^T); ``path_c`` is A^-1 times the path of the mean."""

    seed: int
    generation: int
    mean: Array
    sigma: float
    start: float
    factor: Array
    path_sigma: Array
    path_c: Array
    history: Array
    latest: Array
    injected: Array
    step_size: State

    @property
    def shape(self) -> Array:
        """What the covariance is made of: :attr:`factor`."""
        return self.factor


@dataclass(frozen=True, eq=False)
class CMAES(Family):
    """Covariance matrix adaptation: the default for up to some hundred dimensions, whatever the conditioning.

    Weighted recombination of the better half, cumulative step-size adaptation, rank-one and rank-mu updates, negative
    weights for the worse half. A factor of C is updated directly: nothing is decomposed. Invariant under increasing
    transformations of f and under rotations.

    Parameters
    ----------
    sigma : initial standard deviation: a number, one per coordinate, or a factor (d, d); a third of the distance to
        where the optimum may be.
    n : population size; None for 4 + floor(3 ln d). Larger is more global and slower.
    active : use negative weights.
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".
    step_size : rule for sigma: :class:`CSA`, :class:`TPA`, :class:`MSR`, :class:`PSR`, or one of your own.
    tolfun : a run ends when recent values differ by less than this ("tolfun"), best ones by a tenth ("tolfunhist").
    tolx : a run ends when steps are shorter than this share of the first sigma ("tolx").

    Notes
    -----
    O(n d^2) time for each generation and O(d^2) memory. ``state.cov``, ``state.mean`` and ``state.scale`` can be read
    at any time.

    References
    ----------
    Hansen (2016), The CMA evolution strategy: a tutorial, arXiv:1604.00772, appendix A; Jastrebski and Arnold (2006),
    Improving evolution strategies through active covariance matrix adaptation.

    Examples
    --------
    >>> import esopt
    >>> def ellipsoid(x): return sum(10.0 ** (6 * i / 9) * v * v for i, v in enumerate(x))
    >>> result = esopt.minimize(ellipsoid, [1.0] * 10, strategy=esopt.CMAES(), target=1e-8, seed=1)
    >>> bool(result.value <= 1e-8) and result.evaluations < 7000
    True
    """

    def init(self, x0: Array, seed: int) -> CMAState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        sigma, factor = start_factor(self.sigma, dim)
        n = population_size(self.n, dim, self.sampler)
        zero, history = np.zeros(dim), np.full((2, history_size(dim, n)), np.nan)
        return CMAState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, sigma, factor / sigma, zero, zero, history,
            np.full(n, np.nan), np.empty((0, dim)), self.step_size.init(dim),
        )  # fmt: skip
