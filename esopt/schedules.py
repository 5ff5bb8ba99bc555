"""Numbers that change with the generation: ``schedule(generation) -> float``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = float | Callable[[int], float]
"""A number, or a function of the generation."""


def at(schedule: Schedule, generation: int) -> float:
    """Return the value of ``schedule`` in ``generation``."""
    return float(schedule(generation)) if callable(schedule) else schedule


def check_positive(name: str, schedule: Schedule) -> None:
    """Raise ValueError unless ``schedule`` is a positive finite number or a function."""
    if callable(schedule):
        return
    if not (isinstance(schedule, (int, float)) and 0.0 < schedule < math.inf):
        raise ValueError(f"{name} must be a positive number or a schedule, got {schedule!r}.")


@dataclass(frozen=True)
class ExponentialDecay:
    """start * factor ** (generation / every), not below ``end``."""

    start: float
    factor: float
    every: int = 1
    end: float = 0.0

    def __call__(self, generation: int) -> float:
        return float(max(self.end, self.start * self.factor ** (generation / self.every)))


@dataclass(frozen=True)
class LinearDecay:
    """From ``start`` to ``end`` in a straight line over ``generations``, then constant."""

    start: float
    end: float
    generations: int

    def __call__(self, generation: int) -> float:
        done = min(1.0, generation / self.generations)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class CosineDecay:
    """From ``start`` to ``end`` along half a cosine over ``generations``, then constant."""

    start: float
    end: float
    generations: int

    def __call__(self, generation: int) -> float:
        done = min(1.0, generation / self.generations)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * done))
