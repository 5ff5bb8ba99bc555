"""minimize(mode="async"): the loop that keeps every worker busy, and its replay from a log of arrivals."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._flight import LOG, Airport, Place
from ._progress import Flight
from .errors import EvaluationError
from .noise import Given
from .optimizer import Optimizer
from .protocols import Evaluator, State, Strategy
from .records import Evals, Info, Part, Population

_TICK = 1.0
"""Seconds between two looks at the clock while nothing arrives."""

After = Callable[[Evals | None, Info | None], dict[str, float]]
"""What the loop does after a tell, or with two None after any arrival: returns reasons to stop."""


def check_asynchronous(strategy: Strategy, population: Population) -> None:
    """Raise TypeError unless ``strategy`` can learn from candidates of earlier generations."""
    if getattr(strategy, "asynchronous", False) and len(population) == population.n and population.needs == {"values"}:
        return
    raise TypeError(
        f'mode="async" got {strategy!r}, which learns from the candidates of one generation only. Use CMAES() or '
        "SepCMA() with CSA(), snes(), openai_es(), ars(), pgpe() or another GradientES with Score(), also in "
        'Restarts() and bounds; or leave out mode="async".'
    )


def check_mode(mode: str, max_lag: int, arrivals: object, checkpoint: object) -> None:
    """Refuse what minimize() cannot make an asynchronous run of.

    Raises
    ------
    TypeError, ValueError  for a mode that there is not, a lag that is no count, and something else than a log.
    """
    if mode not in ("sync", "async"):
        raise ValueError(f'mode must be "sync" or "async", got {mode!r}.')
    if isinstance(max_lag, (bool, np.bool_)) or not isinstance(max_lag, (int, np.integer)) or max_lag < 0:
        raise ValueError(f"max_lag must be a whole number of generations, 0 or more, got {max_lag!r}.")
    if arrivals is None:
        return
    if mode == "sync":
        raise ValueError('arrivals= replays an asynchronous run. Pass mode="async" too, or leave it out.')
    if not (isinstance(arrivals, np.ndarray) and arrivals.dtype == LOG and arrivals.ndim == 1):
        raise TypeError(
            f"arrivals must be a record array with {', '.join(LOG.names or ())}, got {type(arrivals).__name__}. "
            "Pass result.arrivals."
        )
    if checkpoint is not None:
        raise ValueError("arrivals= replays a run from its start. Leave out checkpoint.")


class Flights:
    """An asynchronous run of ``es``, or a replay of one."""

    def __init__(
        self, es: Optimizer, evaluator: Evaluator, max_lag: int, arrivals: NDArray[np.void] | None, *, exact: bool
    ) -> None:
        check_asynchronous(es.strategy, es.population())
        self._es, self._evaluator, self._arrivals = es, evaluator, arrivals
        self._airport = Airport(es, int(max_lag), exact, getattr(evaluator, "max_failures", None))
        es.flight = self._airport.freeze()
        self._again: list[Place] = []

    def resume(self) -> None:
        """Take over what was in flight in a checkpoint, if one was loaded."""
        if self._es.flight is not None:
            self._again = self._airport.thaw(self._es.flight)

    def run(self, state: State, after: After) -> dict[str, float]:
        """Run until there is a reason to stop; return the reasons."""
        es, evaluator = self._es, self._evaluator
        able = all(hasattr(evaluator, name) for name in ("submit", "wait", "drop", "workers"))
        workers = evaluator if able else Single(_without_limit(evaluator), state)
        if self._arrivals is not None:
            return replay(es, workers, self._airport, self._arrivals, after)
        return fly(es, workers, self._airport, self._again, after)

    @property
    def landed(self) -> int:
        """How many candidates have arrived so far."""
        return len(self._airport.log)

    @property
    def log(self) -> NDArray[np.void]:
        """What arrived, in its order: :data:`LOG`."""
        return self._airport.record()

    def freeze(self) -> Flight:
        """Return what is in flight, for a checkpoint."""
        return self._airport.freeze()

    def empty(self) -> None:
        """Count what has landed and will not be told any more."""
        self._airport.empty()


def _without_limit(evaluator: Any) -> Any:
    """Return an evaluator that sees single candidates, and so is not the one to say how many of several may fail."""
    limited = is_dataclass(evaluator) and getattr(evaluator, "max_failures", None) is not None
    return replace(evaluator, max_failures=None) if limited else evaluator


@dataclass
class Single:
    """One worker made of an evaluator that knows whole populations only."""

    evaluator: Evaluator
    state: Any
    queue: deque[tuple[int, Population, NDArray[np.int64]]] = field(default_factory=deque)
    count: int = 0

    @property
    def workers(self) -> int:
        return 1

    def submit(self, population: Population, rows: NDArray[np.int64]) -> int:
        """Put rows into the queue."""
        self.count += 1
        self.queue.append((self.count, population, rows))
        return self.count

    def drop(self, ticket: int) -> None:
        """Forget what is in the queue."""
        self.queue.clear()

    def wait(self, seconds: float | None = None) -> list[tuple[int, Part]]:
        """Evaluate what came first, a row at a time, because counts are those of a whole population."""
        ticket, population, rows = self.queue.popleft()
        parts = []
        for row in rows.tolist():
            evals, self.state = self.evaluator.evaluate(only(population, row), self.state)
            parts.append((ticket, Part(np.array([row]), evals)))
        return parts


@dataclass(frozen=True, eq=False)
class _One(Population):
    """One row of the population ``whole``, with its seed."""

    whole: Population | None = None
    row: int = 0

    @property
    def seeds(self) -> NDArray[np.int64]:
        return self._all.seeds[self.row : self.row + 1]

    @property
    def _all(self) -> Population:
        return self if self.whole is None else self.whole

    def rows(self, start: int = 0, stop: int | None = None, out: NDArray[Any] | None = None) -> NDArray[Any]:
        stop = 1 if stop is None else stop
        if not 0 <= start <= stop <= 1:
            raise IndexError(f"rows {start} to {stop} of a population of 1. Pass 0 and 1.")
        return self._all.rows(self.row + start, self.row + stop, out)


def only(population: Population, row: int) -> Population:
    """Return a population of one row of another, with its seed and in its bits."""
    noise = Given(np.asarray(population.noise.rows(row, row + 1), np.float64), key=population.noise.key)
    return _One(population.mean, population.scale, noise, whole=population, row=row)


def fly(es: Optimizer, evaluator: Any, airport: Airport, again: list[Place], after: After) -> dict[str, float]:
    """Keep the workers of ``evaluator`` busy until there is a reason to stop; return the reasons.

    ``again`` are candidates that were in flight when a checkpoint was written.
    """
    own = getattr(getattr(evaluator, "executor", None), "_max_workers", None)  # as esopt.Executor asks it
    count = evaluator.workers or (own if isinstance(own, int) else os.cpu_count() or 1)
    tickets: dict[Any, int] = {}
    queue = deque(again)
    reasons = after(None, None) or _tell(airport, after)  # what has landed may be a generation already
    try:
        while not reasons:
            while len(tickets) < count:
                if not queue:
                    queue.extend(airport.issue())
                if not queue:
                    break
                place = queue.popleft()
                tickets[evaluator.submit(airport.recipe(place), np.array([place[1]]))] = place[0]
            if not tickets:
                return {"evaluations": float(es.progress.evaluations)}
            for ticket, part in evaluator.wait(_TICK):
                airport.land((tickets.pop(ticket), int(part.rows[0])), part.evals)
            reasons = _tell(airport, after) or after(None, None)
        return reasons
    finally:
        for ticket in tickets:
            evaluator.drop(ticket)


def replay(es: Optimizer, evaluator: Any, airport: Airport, log: NDArray[np.void], after: After) -> dict[str, float]:
    """Do again what ``log`` says, whatever evaluates; return the reasons to stop."""
    airport.keep = frozenset(log["generation"].tolist())
    at, reasons = 0, after(None, None)
    while at < len(log) and not (reasons and (log["told"][at:] >= 0).any()):
        generation, mine = es.generation, np.flatnonzero(log["told"] == es.generation)
        stop = int(mine[-1]) + 1 if mine.size and not reasons else len(log)
        _land(evaluator, airport, log[at:stop])
        at = stop
        if not reasons:
            reasons = _tell(airport, after)
            if es.generation - generation != min(mine.size, 1) and not reasons:
                raise _foreign()
    expected = log[:at].copy()
    expected["told"][expected["told"] >= es.generation] = -1
    if not np.array_equal(airport.record(), expected):
        raise _foreign()
    return reasons or {"arrivals": float(at)}


def _foreign() -> ValueError:
    return ValueError(
        "arrivals is the log of another run: its candidates do not fit the generations of this one. "
        "Pass the same strategy, x0, seed, bounds and max_lag."
    )


def _land(evaluator: Any, airport: Airport, entries: NDArray[np.void]) -> None:
    """Evaluate what ``entries`` of a log name, and let them land in their order."""
    places = list(zip(entries["generation"].tolist(), entries["row"].tolist(), strict=True))
    tickets: dict[Any, int] = {}
    found: dict[Place, Evals] = {}
    for generation in sorted({place[0] for place in places}):
        rows = np.array(sorted(row for own, row in places if own == generation))
        if generation not in airport.recipes or rows[0] < 0:
            raise _foreign()
        population = airport.recipe((generation, int(rows[-1])))
        tickets[evaluator.submit(population, rows)] = generation
    while len(found) < len(places):
        for ticket, part in evaluator.wait(None):
            for place, evals in _split(tickets[ticket], part):
                found[place] = evals
    for place in places:
        airport.flying[place] = None
        airport.land(place, found[place])


def _split(generation: int, part: Part) -> list[tuple[Place, Evals]]:
    """Return the rows of a part one by one; its counts and steps go with the first."""
    evals, rows = part.evals, part.rows.tolist()
    rest = Evals(evals.values)
    return [
        ((generation, row), replace(rest if i else evals, values=evals.values[i : i + 1], grads=None))
        for i, row in enumerate(rows)
    ]


def _tell(airport: Airport, after: After) -> dict[str, float]:
    """Tell every generation that has landed; return reasons to stop.

    Raises
    ------
    EvaluationError  if more of one have failed than may, or all of the first.
    TypeError  if f returned no number for any candidate of the first.
    """
    while airport.ready():
        airport.check()
        try:
            evals, info = airport.tell()
        except EvaluationError:
            airport.failed = True
            if airport.es.generation == 0:
                raise
            return {"failed": float(airport.es.generation)}
        reasons = after(evals, info)
        if reasons:
            return reasons
    return {}
