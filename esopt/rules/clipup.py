"""ClipUp: normalised steps with a speed limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..noise import Array
from ..schedules import Schedule, at, check_fraction, check_positive
from .momentum import MomentumState


def _length(vector: Array) -> float:
    """Return the Euclidean norm, for any scale of numbers and without BLAS, whose bits depend on its threads."""
    largest = float(np.abs(vector).max())
    if not 0.0 < largest < np.inf:
        return largest
    return largest * float(np.sqrt(np.square(vector / largest).sum()))


@dataclass(frozen=True)
class ClipUp:
    """velocity = clip(momentum * velocity - lr * gradient / |gradient|), clipped to length ``max_speed``.

    Parameters
    ----------
    max_speed : longest step, in units of the parameters; a positive number or a schedule.
    lr : length of one normalised step; None for max_speed / 2.
    momentum : in [0, 1).

    References
    ----------
    Toklu, Liskowski, Srivastava (2020), ClipUp: a simple and powerful optimizer for distribution-based policy
    evolution, algorithm 2.
    """

    max_speed: Schedule = 0.15
    lr: Schedule | None = None
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_positive("max_speed", self.max_speed)
        if self.lr is not None:
            check_positive("lr", self.lr)
        check_fraction("momentum", self.momentum)

    def init(self, dim: int) -> MomentumState:
        return MomentumState(0, np.zeros(dim))

    def step(self, gradient: Array, state: MomentumState) -> tuple[Array, MomentumState]:
        """Return the step (m,) and the state after it."""
        limit = at(self.max_speed, state.count)
        rate = limit / 2.0 if self.lr is None else at(self.lr, state.count)
        velocity = self.momentum * state.velocity
        length = _length(gradient)
        if length > 0.0:
            velocity -= rate * (gradient / length)
        speed = _length(velocity)
        if speed > limit:
            velocity *= limit / speed
        return velocity.copy(), MomentumState(state.count + 1, velocity)
