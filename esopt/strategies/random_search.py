"""Random search: the baseline that every other strategy has to beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .._parts import check_instance
from ..noise import Array, Key, check_seed
from ..protocols import Sampler
from ..records import Evals, Info, Population, Scale
from ..samplers.gaussian import Gaussian
from ._cma import check_size, check_values
from .gradient_es import check_sigma, fit_sigma


@dataclass(frozen=True, eq=False)
class RandomState:
    """State of :class:`RandomSearch`: where it samples, and the best row so far as the mean."""

    seed: int
    generation: int
    x0: Array
    scale: Scale
    mean: Array
    value: float


@dataclass(frozen=True, eq=False)
class RandomSearch:
    """Sample around x0, always from the same normal distribution; ``mean`` is the best candidate so far.

    For comparison only: it learns nothing. On noisy functions the best candidate is the luckiest one.

    Parameters
    ----------
    sigma : standard deviation: a number, one per coordinate, or a factor (d, d).
    n : candidates per generation.
    sampler : joint law of the noise rows; n must be a multiple of its block.

    Examples
    --------
    >>> import esopt
    >>> result = esopt.minimize(lambda x: float(x @ x), [1.0, 1.0], strategy=esopt.RandomSearch(1.0), evaluations=1000)
    >>> bool(result.value < 0.1)
    True
    """

    keeps_values: ClassVar[bool] = True

    sigma: float | Array = 0.5
    n: int = 16
    sampler: Sampler = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        check_instance("sampler", self.sampler, Sampler, "Gaussian()")
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        check_size(self.n, self.sampler)

    def init(self, x0: Array, seed: int) -> RandomState:
        """Return the state before the first generation, around ``x0`` (d,)."""
        here = np.array(x0, np.float64)
        return RandomState(check_seed(seed), 0, here, fit_sigma(self.sigma, x0.size), here.copy(), np.inf)

    def ask(self, state: RandomState) -> Population:
        """Return this generation's population."""
        noise = self.sampler.noise(Key(state.seed, state.generation), int(self.n), state.x0.size)
        return Population(state.x0, state.scale, noise)

    def tell(self, state: RandomState, evals: Evals) -> tuple[RandomState, Info]:
        """Return the state with the best row so far.

        Raises
        ------
        EvaluationError  if all evaluations failed; the state is as before.
        """
        population = self.ask(state)
        values = check_values(evals, population.noise)
        best = int(np.nanargmin(values))
        better = bool(values[best] < state.value)
        mean = population[best] if better else state.mean
        value = float(values[best]) if better else state.value
        after = RandomState(state.seed, state.generation + 1, state.x0, state.scale, mean, value)
        return after, Info(state.generation, None, evals.failures)

    def stop(self, state: RandomState) -> dict[str, float]:
        """Return no reason ever."""
        return {}
