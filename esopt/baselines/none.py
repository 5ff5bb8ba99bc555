"""No baseline."""

from __future__ import annotations

from dataclasses import dataclass

from ..noise import Array
from ..protocols import Centered, State
from ..records import Evals, Gradient, Population


@dataclass(frozen=True)
class NoBaseline:
    """Leave the values as they are: unbiased, variance d m^2 / sigma^2 on top of every other estimate (m = E f)."""

    @property
    def raw_only(self) -> bool:
        return False

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: State) -> Centered:
        return Centered(values)

    def learn(self, values: Array, population: Population, gradient: Gradient, state: State) -> State:
        return state
