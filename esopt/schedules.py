"""Numbers that change with the generation: ``schedule(generation) -> float``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

Schedule = float | Callable[[int], float]
"""A number, or a function of the generation."""


def at(schedule: Schedule, generation: int) -> float:
    """Return the value of ``schedule`` in ``generation``."""
    return float(schedule(generation) if callable(schedule) else schedule)


def check_positive(name: str, schedule: Schedule) -> None:
    """Raise ValueError unless ``schedule`` is a positive finite number or a function."""
    if callable(schedule):
        return
    number = isinstance(schedule, Real) and not isinstance(schedule, bool)
    if not (number and 0.0 < schedule < math.inf):
        raise ValueError(f"{name} must be a positive number or a schedule, got {schedule!r}. Pass for example 0.01.")


def check_nonnegative(name: str, number: float) -> None:
    """Raise ValueError unless ``number`` is 0 or a positive finite number."""
    if isinstance(number, bool) or not (isinstance(number, Real) and 0.0 <= number < math.inf):
        raise ValueError(f"{name} must be 0 or a positive number, got {number!r}. Pass for example 0.01.")


def check_fraction(name: str, number: float) -> None:
    """Raise ValueError unless ``number`` is in [0, 1), as the weight of the past must be."""
    if not (isinstance(number, Real) and 0.0 <= number < 1.0):
        raise ValueError(f"{name} must be in [0, 1), got {number!r}. Pass for example 0.9.")


@dataclass(frozen=True)
class ExponentialDecay:
    """start * factor ** (generation / every), not below ``end``."""

    start: float
    factor: float
    every: int = 1
    end: float = 0.0

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_positive("factor", self.factor)
        check_positive("every", self.every)
        check_nonnegative("end", self.end)

    def __call__(self, generation: int) -> float:
        return float(max(self.end, self.start * self.factor ** (generation / self.every)))


@dataclass(frozen=True)
class LinearDecay:
    """From ``start`` to ``end`` in a straight line over ``generations``, then constant."""

    start: float
    end: float
    generations: int

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_nonnegative("end", self.end)
        check_positive("generations", self.generations)

    def __call__(self, generation: int) -> float:
        done = min(1.0, generation / self.generations)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class CosineDecay:
    """From ``start`` to ``end`` along half a cosine over ``generations``, then constant."""

    start: float
    end: float
    generations: int

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_nonnegative("end", self.end)
        check_positive("generations", self.generations)

    def __call__(self, generation: int) -> float:
        done = min(1.0, generation / self.generations)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class PowerDecay:
    """start * ((offset + 1) / (offset + 1 + generation)) ** power: the gains of stochastic approximation."""

    start: float
    power: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_nonnegative("power", self.power)
        check_nonnegative("offset", self.offset)

    def __call__(self, generation: int) -> float:
        return float(self.start * ((self.offset + 1.0) / (self.offset + 1.0 + generation)) ** self.power)
