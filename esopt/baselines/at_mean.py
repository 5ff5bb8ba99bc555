"""The value at the centre of the search distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..protocols import Centered, State
from ..records import Evals, Gradient, Population
from .leave_one_out import leave_own_block_out

_TAG = "mean"


@dataclass(frozen=True)
class AtMean:
    """Subtract f(mean): forward differences along random directions, for one more evaluation a generation.

    Unbiased; with a Hessian h I its curvature variance is (d + 2) / 2 times that of the mean baseline, so it is seldom
    the best choice. Where f(mean) itself failed, the leave-one-out mean takes its place.
    """

    @property
    def raw_only(self) -> bool:
        return True

    def init(self, dim: int) -> State:
        return ()

    def prepare(self, population: Population, state: State) -> Population:
        return population.with_extra(_TAG, population.mean)

    def center(self, values: Array, population: Population, evals: Evals, state: State) -> Centered:
        at_mean = evals.values[population.tagged(_TAG)[0]]
        if not np.isfinite(at_mean):
            return Centered(leave_own_block_out(values, population.noise.block))
        return Centered(values - at_mean)

    def learn(self, values: Array, population: Population, gradient: Gradient, state: State) -> State:
        return state
