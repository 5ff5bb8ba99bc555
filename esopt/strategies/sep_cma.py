"""sep-CMA-ES: one variance per coordinate, linear in time and space."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._parts import check_instance
from ..noise import Array, Share, check_seed
from ..protocols import Sampler
from ..records import Evals, Goal, Info, Lap, Population
from ..samplers.gaussian import Gaussian
from ._cma import check_size, history_size, lap, learn, populate, population_size, reasons, toward
from .gradient_es import check_sigma, fit_sigma


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

    @property
    def cov(self) -> Array:
        """Variances of the search, (d,)."""
        return self.sigma**2 * self.variances

    @property
    def scale(self) -> Array:
        """Standard deviations of the search, (d,)."""
        return self.sigma * np.sqrt(self.variances)


@dataclass(frozen=True, eq=False)
class SepCMA:
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

    sigma: float | Array = 0.5
    n: int | None = None
    active: bool = True
    sampler: Sampler = field(default_factory=Gaussian)
    share: Share = "pair"

    def __post_init__(self) -> None:
        check_instance("sampler", self.sampler, Sampler, "Gaussian()")
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        check_size(self.n, self.sampler)

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
        )

    def ask(self, state: SepCMAState) -> Population:
        """Return this generation's population."""
        return populate(self, state)

    def tell(self, state: SepCMAState, evals: Evals) -> tuple[SepCMAState, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        after = SepCMAState(*learn(self, state, state.variances, evals))
        return after, Info(state.generation, None, evals.failures, {"sigma": after.sigma})

    def run(self, state: SepCMAState, address: Any, goal: Goal) -> tuple[SepCMAState, Lap]:
        """Return the state after generations in compiled code, and what happened; ``address`` is that of f."""
        fields, laps = lap(self, state, state.variances, address, goal)
        return SepCMAState(*fields), laps

    def inject(self, state: SepCMAState, rows: Array) -> SepCMAState:
        """Return the state whose next population also holds the candidates ``rows`` (k, d), from elsewhere.

        They are evaluated and ranked with the others; what they add to mean and covariance is shortened to the length
        that noise may have: Hansen (2011), Injecting external solutions into CMA-ES.
        """
        return replace(state, injected=np.concatenate([state.injected, rows]))

    def toward(self, state: SepCMAState, gradient: Array) -> Array:
        """Return the candidate that lies against a ``gradient`` (d,) of f, in the metric of the search, to inject it.

        mean - sqrt(d) * sigma * C g / |C^1/2 g|: Hansen (2011), section 4.
        """
        return toward(state, state.variances, gradient)

    def stop(self, state: SepCMAState) -> dict[str, float]:
        """Return the stop rules that hold and their numbers: tolfun, tolfunhist, tolx, tolup, condition, ...."""
        return reasons(state, state.variances)
