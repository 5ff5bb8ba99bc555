"""Adam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._kernels import vectors
from ..noise import Array
from ..schedules import Schedule, at, check_fraction, check_positive


@dataclass(frozen=True, eq=False)
class AdamState:
    """Number of steps taken, and averages of the gradient and of its square, (m,)."""

    count: int
    first: Array
    second: Array


@dataclass(frozen=True)
class Adam:
    """step = -lr * m / (sqrt(v) + epsilon), m and v the bias-corrected averages of gradient and squared gradient.

    Parameters
    ----------
    lr : learning rate, a positive number or a schedule; about the length of a step per coordinate.
    beta1, beta2 : weights of the past in [0, 1).
    epsilon : positive; keeps the quotient finite.

    References
    ----------
    Kingma, Ba (2015), Adam: a method for stochastic optimization, algorithm 1.
    """

    lr: Schedule = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        check_fraction("beta1", self.beta1)
        check_fraction("beta2", self.beta2)
        if callable(self.epsilon):
            raise ValueError(f"epsilon must be a positive number, got {self.epsilon!r}. The default is 1e-8.")
        check_positive("epsilon", self.epsilon)

    def init(self, dim: int) -> AdamState:
        return AdamState(0, np.zeros(dim), np.zeros(dim))

    def step(self, gradient: Array, state: AdamState) -> tuple[Array, AdamState]:
        """Return the step (m,) and the state after it."""
        count = state.count + 1
        first, second, step = np.empty_like(gradient), np.empty_like(gradient), np.empty_like(gradient)
        # Section 2, last paragraph: both bias corrections folded into the rate and epsilon.
        root = (1.0 - self.beta2**count) ** 0.5
        rate = at(self.lr, state.count) * root / (1.0 - self.beta1**count)
        vectors.adam(
            gradient, state.first, state.second, self.beta1, self.beta2, rate, self.epsilon * root, first, second, step
        )
        return step, AdamState(count, first, second)
