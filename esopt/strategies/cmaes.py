"""CMA-ES: the covariance of the search learns the shape of the function."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._kernels import cma
from .._parts import check_instance
from ..noise import Array, Key, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Info, Population
from ..samplers.gaussian import Gaussian
from ._cma import check_size, check_values, constants, history_size, population_size, recent, triggered
from .gradient_es import check_sigma, fit_sigma

_UNKNOWN = np.empty(0)


@dataclass(frozen=True, eq=False)
class CMAState:
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

    @property
    def cov(self) -> Array:
        """Covariance of the search, (d, d)."""
        return self.sigma**2 * (self.factor @ self.factor.T)

    @property
    def scale(self) -> Array:
        """Factor of the covariance that candidates are made with, (d, d)."""
        return self.sigma * self.factor


@dataclass(frozen=True, eq=False)
class CMAES:
    """Covariance matrix adaptation: the default for up to some hundred dimensions, whatever the conditioning.

    Weighted recombination of the better half, cumulative step-size adaptation, rank-one and rank-mu updates, negative
    weights for the worse half; the eigendecomposition is repeated only when C has changed by then. Invariant under
    increasing transformations of f and under rotations.

    Parameters
    ----------
    sigma : initial standard deviation: a number, one per coordinate, or a factor (d, d); a third of the distance to
        where the optimum may be.
    n : population size; None for 4 + floor(3 ln d). Larger is more global and slower.
    active : use negative weights.
    sampler : joint law of the noise rows; n must be a multiple of its block.
    share : which candidates share an evaluation seed: "pair" (antithetic pairs), "generation" or "none".

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

    sigma: float | Array = 0.5
    n: int | None = None
    active: bool = True
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"

    def __post_init__(self) -> None:
        check_instance("sampler", self.sampler, Sampler, "Gaussian()")
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        check_size(self.n, self.sampler)

    def init(self, x0: Array, seed: int) -> CMAState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        dim = x0.size
        scale = fit_sigma(self.sigma, dim)
        spread = np.asarray(scale)
        factor = spread if spread.ndim == 2 else np.diag(np.broadcast_to(spread, dim))
        sigma = math.sqrt(float(np.square(factor).sum()) / dim)
        n = population_size(self.n, dim, self.sampler)
        zero, history = np.zeros(dim), np.full((2, history_size(dim, n)), np.nan)
        return CMAState(
            check_seed(seed), 0, np.array(x0, np.float64), sigma, sigma, factor / sigma, zero, zero, history,
            np.full(n, np.nan),
        )  # fmt: skip

    def ask(self, state: CMAState) -> Population:
        """Return this generation's population."""
        dim = state.mean.size
        noise = self.sampler.noise(Key(state.seed, state.generation), population_size(self.n, dim, self.sampler), dim)
        return Population(state.mean, state.scale, noise, share=self.share)

    def tell(self, state: CMAState, evals: Evals) -> tuple[CMAState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        dim = state.mean.size
        noise = self.sampler.noise(Key(state.seed, state.generation), population_size(self.n, dim, self.sampler), dim)
        values = check_values(evals, noise)
        weights, rates = constants(dim, noise.n, self.active, False)
        mean, sigma, factor, path_sigma, path_c = cma.tell_full(
            noise.rows(), values, state.generation, state.mean, state.sigma, state.factor, state.path_sigma,
            state.path_c, weights, rates,
        )  # fmt: skip
        after = CMAState(
            state.seed, state.generation + 1, mean, sigma, state.start, factor, path_sigma, path_c,
            cma.remember(state.history, values), values,
        )  # fmt: skip
        return after, Info(state.generation, None, evals.failures, {"sigma": sigma})

    def stop(self, state: CMAState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers: tolfun, tolfunhist, tolx, tolup, condition, ...."""
        if state.generation == 0:
            return {}
        if not (math.isfinite(state.sigma) and np.isfinite(state.mean).all()):
            return {"diverged": state.sigma}
        dim = state.mean.size
        deviations = np.sqrt(np.einsum("ij,ij->i", state.factor, state.factor))
        # The condition changes slowly, and costs as much as many generations.
        lengths = np.linalg.svd(state.factor, compute_uv=False) if state.generation % (10 * dim) == 0 else _UNKNOWN
        return triggered(
            cma.reasons(
                state.generation, recent(dim, state.latest.size), state.mean, state.sigma, state.start, deviations,
                state.factor, lengths, state.factor @ state.path_c, state.history, state.latest,
            )
        )  # fmt: skip
