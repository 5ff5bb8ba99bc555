"""What searches have in common whose generations are rows of a sampler around a mean."""

from __future__ import annotations

from typing import Any

from .._parts import check_instance
from ..noise import Array, Key, Noise, Share
from ..protocols import Sampler
from ..records import Population
from ._cma import check_size, population_size
from .gradient_es import check_sigma


class Drawn:
    """Checks of the settings ``sigma``, ``n``, ``sampler`` and ``share``, the noise of a generation, a plain ask."""

    sigma: float | Array
    n: int | None
    sampler: Sampler
    share: Share

    def __post_init__(self) -> None:
        check_instance("sampler", self.sampler, Sampler, "Gaussian()")
        object.__setattr__(self, "sigma", check_sigma(self.sigma))
        check_size(self.n, self.sampler)

    def ask(self, state: Any) -> Population:
        """Return this generation's population."""
        return Population(state.mean, state.scale, self._noise(state), share=self.share)

    def _noise(self, state: Any) -> Noise:
        dim = state.mean.size
        return self.sampler.noise(Key(state.seed, state.generation), population_size(self.n, dim, self.sampler), dim)
