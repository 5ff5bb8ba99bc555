"""Gradient descent with heavy-ball momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..schedules import Schedule, at, check_fraction, check_positive


@dataclass(frozen=True, eq=False)
class MomentumState:
    """Number of steps taken and velocity (m,)."""

    count: int
    velocity: Array


@dataclass(frozen=True)
class Momentum:
    """velocity = beta * velocity - lr * gradient; the step is the velocity.

    Parameters
    ----------
    lr : learning rate, a positive number or a schedule.
    beta : momentum in [0, 1).

    References
    ----------
    Polyak (1964), Some methods of speeding up the convergence of iteration methods.
    """

    lr: Schedule = 0.1
    beta: float = 0.9

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        check_fraction("beta", self.beta)

    def init(self, dim: int) -> MomentumState:
        return MomentumState(0, np.zeros(dim))

    def step(self, gradient: Array, state: MomentumState) -> tuple[Array, MomentumState]:
        """Return the step (m,) and the state after it."""
        velocity = self.beta * state.velocity
        velocity -= at(self.lr, state.count) * gradient
        return velocity.copy(), MomentumState(state.count + 1, velocity)
