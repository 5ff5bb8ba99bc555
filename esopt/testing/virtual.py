"""Workers with a clock of their own: asynchronous runs without processes and without waiting."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._async import only
from ..evaluators.serial import Serial
from ..noise import Array, child
from ..objective import Objective
from ..protocols import State
from ..records import Evals, Part, Population

Seconds = Callable[[Array, int], float]
"""How long an evaluation takes, from the candidate (d,) and its number in the order of beginning."""


def heavy_tailed(seed: int = 0, most: float = 100.0) -> Seconds:
    """Return times that do not depend on the candidate: 1 / u for uniform u, from 1 to ``most`` seconds.

    Half of them are below 2 seconds; the mean is 1 + ln ``most``.
    """

    def seconds(x: Array, number: int) -> float:
        return min(most, 1.0 / ((child(seed, number) + 1) / 2.0**64))

    return seconds


@dataclass
class VirtualWorkers:
    """An evaluator whose ``workers`` take ``seconds`` of a virtual clock for each evaluation.

    Deterministic: candidates begin in the order in which they are submitted, as soon as a worker is free, and of those
    that end at the same time the first one arrives first. ``now`` is the time on the clock and ``busy`` the seconds of
    work that was finished.

    Examples
    --------
    >>> import esopt
    >>> from esopt.testing import VirtualWorkers, heavy_tailed
    >>> four = VirtualWorkers(lambda x: (x**2).sum(), 4, heavy_tailed())
    >>> found = esopt.minimize(None, [1.0] * 5, evaluator=four, mode="async", evaluations=500)
    >>> found.value < 0.01, four.busy / four.now > 3.5
    (True, True)
    """

    objective: Objective | Callable[..., Any]
    workers: int
    seconds: Seconds
    on_error: str = "raise"
    now: float = 0.0
    busy: float = 0.0
    begun: int = 0
    _tickets: int = 0
    _running: list[tuple[float, int, float, int, int, Population]] = field(default_factory=list)
    _waiting: list[tuple[int, int, Population]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._serial = Serial(self.objective, on_error=self.on_error)
        self.objective = self._serial.objective

    def init(self) -> State:
        """Return the empty state."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return the evaluations of all rows; the clock goes on until the last worker is done."""
        ends, began = [self.now] * self.workers, self.now
        for row in range(len(population)):
            start = heapq.heappop(ends)
            seconds = self.seconds(population[row], self.begun)
            self.begun += 1
            self.busy += seconds
            heapq.heappush(ends, start + seconds)
        self.now = max(*ends, began)
        return self._serial.evaluate(population, state)

    def submit(self, population: Population, rows: NDArray[np.int64]) -> int:
        """Begin with ``rows`` as soon as workers are free."""
        self._tickets += 1
        for row in rows.tolist():
            self._waiting.append((self._tickets, row, population))
        self._begin()
        return self._tickets

    def wait(self, seconds: float | None = None) -> list[tuple[int, Part]]:
        """Go on to the next time at which an evaluation ends, and return it."""
        if not self._running:
            return []
        self.now, _, took, ticket, row, population = heapq.heappop(self._running)
        self.busy += took
        self._begin()
        evals, _ = self._serial.evaluate(only(population, row), ())
        return [(ticket, Part(np.array([row]), evals))]

    def drop(self, ticket: int) -> None:
        """Forget the rows of a ticket; their workers are free at once."""
        self._running = [entry for entry in self._running if entry[3] != ticket]
        heapq.heapify(self._running)
        self._waiting = [entry for entry in self._waiting if entry[0] != ticket]

    def close(self) -> None:
        """Do nothing; there is nothing to give back."""

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self.workers:
            ticket, row, population = self._waiting.pop(0)
            seconds = self.seconds(population[row], self.begun)
            heapq.heappush(self._running, (self.now + seconds, self.begun, seconds, ticket, row, population))
            self.begun += 1
