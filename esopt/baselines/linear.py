"""The tangent plane that earlier generations saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..protocols import Centered, State
from ..records import Evals, Gradient, Population
from .leave_one_out import leave_own_block_out


@dataclass(frozen=True, eq=False)
class LinearState:
    """Exponentially weighted sum of earlier gradients, (d,), and the sum of its weights."""

    total: Array
    weight: float


@dataclass(frozen=True)
class Linear:
    """Subtract c . (x - mean), c the average of earlier estimates, and add c to the new one; then leave-one-out.

    Unbiased: this generation's values play no part in c. On a quadratic the gradient a in every variance becomes a - c:
    it pays where the gradient changes little between generations. Costs one more pass over the noise. The scale is one
    number, one per coordinate or a factor L, where c . (x - mean) = (L^T c) . eps.

    Parameters
    ----------
    decay : weight of the past in [0, 1); the fewer rows for each dimension, the closer to 1.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}. The default is 0.9.")

    @property
    def raw_only(self) -> bool:
        return False

    def init(self, dim: int) -> LinearState:
        return LinearState(np.zeros(dim), 0.0)

    def prepare(self, population: Population, state: State) -> Population:
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: LinearState) -> Centered:
        if state.weight == 0.0:
            return Centered(leave_own_block_out(values, population.noise.block))
        tangent, factor = state.total / state.weight, population.factor
        local = tangent * population.sigma("Linear()") if factor is None else tangent @ factor
        residuals = values - population.noise.dot(local[None, :])
        return Centered(leave_own_block_out(residuals, population.noise.block), tangent)

    def learn(self, values: Array, population: Population, gradient: Gradient, state: LinearState) -> LinearState:
        total = self.decay * state.total + (1.0 - self.decay) * gradient.mean
        return LinearState(total, self.decay * state.weight + 1.0 - self.decay)
