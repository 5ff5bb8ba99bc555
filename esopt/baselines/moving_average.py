"""The average of earlier generations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..protocols import Centered, State
from ..records import Evals, Gradient, Population
from .leave_one_out import leave_own_block_out


@dataclass(frozen=True)
class MovingAverageState:
    """Exponentially weighted sum of earlier means and the sum of its weights."""

    total: float
    weight: float


@dataclass(frozen=True)
class MovingAverage:
    """Subtract an exponential moving average of the earlier generations' mean values.

    Unbiased: this generation's values play no part. The first generation, with no history, uses the leave-one-out mean.

    Parameters
    ----------
    decay : weight of the past in [0, 1).
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}. The default is 0.9.")

    @property
    def raw_only(self) -> bool:
        return False

    def init(self, dim: int) -> MovingAverageState:
        return MovingAverageState(0.0, 0.0)

    def prepare(self, population: Population, state: State) -> Population:
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: MovingAverageState) -> Centered:
        if state.weight == 0.0:
            return Centered(leave_own_block_out(values, population.noise.block))
        return Centered(values - state.total / state.weight)

    def learn(
        self, values: Array, population: Population, gradient: Gradient, state: MovingAverageState
    ) -> MovingAverageState:
        average = float(np.nanmean(values))
        return MovingAverageState(
            self.decay * state.total + (1.0 - self.decay) * average, self.decay * state.weight + 1.0 - self.decay
        )
