"""Multiplicative steps of the scale: the natural gradient in log sigma."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._kernels import vectors
from ..noise import Array
from ..schedules import Schedule, at, check_positive
from .sgd import SGDState


@dataclass(frozen=True)
class Exponential:
    """exp(-lr / 2 * gradient) - 1, so that a relative change multiplies by the exponential.

    1/2 is the inverse Fisher information of log sigma_i; that of a single sigma is 1 / (2 d), which GradientES takes
    into account by averaging its gradient over coordinates.

    Parameters
    ----------
    lr : a positive number or a schedule; None for (3 + log m) / (5 sqrt m), m the number of sigmas.

    References
    ----------
    Wierstra et al. (2014), Natural evolution strategies, algorithm 6 and table 1.
    """

    lr: Schedule | None = None

    def __post_init__(self) -> None:
        if self.lr is not None:
            check_positive("lr", self.lr)

    def init(self, dim: int) -> SGDState:
        return SGDState(0)

    def step(self, gradient: Array, state: SGDState) -> tuple[Array, SGDState]:
        """Return the relative step (m,) and the state after it."""
        step = np.empty(gradient.size)
        vectors.expm1(-0.5 * self.rate(gradient.size, state.count) * gradient, step)
        return step, SGDState(state.count + 1)

    def rate(self, dim: int, count: int) -> float:
        """Return the learning rate of ``dim`` sigmas in step ``count``."""
        return (3.0 + math.log(dim)) / (5.0 * math.sqrt(dim)) if self.lr is None else at(self.lr, count)
