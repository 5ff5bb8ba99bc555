"""Plain gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from ..noise import Array
from ..schedules import Schedule, at, check_positive


@dataclass(frozen=True)
class SGDState:
    """Number of steps taken."""

    count: int


@dataclass(frozen=True)
class SGD:
    """step = -lr * gradient.

    Parameters
    ----------
    lr : learning rate, a positive number or a schedule.
    """

    lr: Schedule = 0.1

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)

    def init(self, dim: int) -> SGDState:
        return SGDState(0)

    def step(self, gradient: Array, state: SGDState) -> tuple[Array, SGDState]:
        """Return the step (m,) and the state after it."""
        return gradient * -at(self.lr, state.count), SGDState(state.count + 1)
