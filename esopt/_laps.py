"""Laps: generations that a strategy runs by itself in compiled code, between two looks at the clock.

A strategy offers them with ``run(state, address, goal) -> (state, Lap)``, an evaluator with ``entry()``, the address of
f. All bits are those of ask and tell. A generation that needs Python (f raised, nothing usable) ends the lap before it.
"""

from __future__ import annotations

import math
import time
from typing import Any

from .optimizer import Optimizer
from .protocols import Evaluator
from .records import Goal

# Kernels cannot be interrupted, so that Ctrl-C, budgets of seconds and checkpoints are looked at this often.
_SLICE_SECONDS = 0.02
# A generation that takes longer may be worth threads, and Python's share of it is small.
_LONG_SECONDS = 1e-3
# The usual generations after a slow lap, twice as many after the next: it may have been the machine.
_PATIENCE = 8


class Laps:
    """Runs generations of ``es`` in compiled code where strategy and evaluator allow it."""

    def __init__(self, es: Optimizer, evaluator: Evaluator, *, target: float | None, steps: int | None) -> None:
        entry = getattr(evaluator, "entry", None)
        self._es = es
        self._address = entry() if entry is not None and hasattr(es.strategy, "run") else None
        self._target = -math.inf if target is None else float(target)
        self._steps = math.inf if steps is None else steps
        self._count, self._pause, self._patience = 1, 0, _PATIENCE

    def run(self) -> bool:
        """Run a slice of generations; tell whether there were any."""
        es = self._es
        if self._address is None or self._pause:
            self._pause = max(0, self._pause - 1)
            return False
        generations = min(float(self._count), es.generations_left)
        steps = min(self._steps - es.progress.steps, 2.0**62)
        start = time.perf_counter()
        strategy: Any = es.strategy
        state, lap = strategy.run(es.state, self._address, Goal(int(generations), self._target, int(steps)))
        if not lap.generations:
            return False
        es.skip(state, lap)
        each = (time.perf_counter() - start) / lap.generations
        slow = each > _LONG_SECONDS and self._count > 1
        self._pause, self._patience = (self._patience, 2 * self._patience) if slow else (0, _PATIENCE)
        self._count = max(2, min(2 * self._count, int(_SLICE_SECONDS / each)))
        return True


def laps(es: Optimizer, evaluator: Evaluator, limits: Any) -> Laps | None:
    """Return what runs laps, or None where every generation has to be seen: callbacks, noisy functions."""
    if limits.callback is not None or limits.stochastic:
        return None
    return Laps(es, evaluator, target=limits.target, steps=limits.steps)
