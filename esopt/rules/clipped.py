"""A limit on every coordinate of another rule's step."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np

from ..noise import Array
from ..protocols import Rule, State


@dataclass(frozen=True)
class Clipped:
    """The step of ``rule`` with every coordinate clipped to [-limit, limit].

    As the scale rule of PGPE, ``Clipped(SGD(0.1), 0.2)`` lets no sigma change by more than 20 % a generation.
    """

    rule: Rule
    limit: float

    def __post_init__(self) -> None:
        if isinstance(self.rule, type) or not isinstance(self.rule, Rule):
            raise TypeError(f"Clipped() got the rule {self.rule!r}. Pass an instance, for example SGD(0.1).")
        if not (isinstance(self.limit, Real) and self.limit > 0.0):
            raise ValueError(f"limit must be a positive number, got {self.limit!r}. Pass for example 0.2.")

    def init(self, dim: int) -> State:
        return self.rule.init(dim)

    def step(self, gradient: Array, state: State) -> tuple[Array, State]:
        """Return the clipped step (m,) and the state after it."""
        step, after = self.rule.step(gradient, state)
        return np.clip(step, -self.limit, self.limit), after
