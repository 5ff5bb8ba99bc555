"""Between ask and tell in an asynchronous run: who is in flight, who has landed, and which generation they become.

A generation is the next n results to arrive, whatever they were drawn from. Everything here is a function of the order
of arrival, so that the log of it replays the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._progress import Flight, add_counts
from ._streaming import check_first
from .errors import EvaluationError
from .evaluators._policy import check_failed
from .noise import Array, Given, Key
from .optimizer import Optimizer
from .records import Arrivals, Evals, Info, Population

LOG = np.dtype([("generation", np.int64), ("row", np.int64), ("told", np.int64)])
"""One record for each candidate in the order of arrival: its generation, its row, and the generation in which it was
told, -1 for one that came too late."""

_NEVER = -1

Place = tuple[int, int]
"""Generation and row of a candidate."""


class Unit(NamedTuple):
    """Rows that depend on each other, of one generation, and what came of each; ``at`` is their place in the log."""

    generation: int
    first: int
    found: tuple[Evals, ...]
    at: int


class _Telling(NamedTuple):
    """What is told to a generation: until the tell has gone through it has not landed anywhere else."""

    generation: int
    seed: int
    units: list[Unit]
    points: Array
    values: Array


@dataclass
class Airport:
    """Candidates of ``es`` in flight and landed.

    ``max_lag`` is how many generations old a candidate may be when it is told. ``again`` says that values are exact:
    the best of a generation are then ranked again with the next one, at most one for each late result and for every
    four news. ``max_failures`` is as in an evaluator, which sees candidates one by one here. ``keep`` names generations
    whose recipes a replay still needs; ``failed`` says that what failed is to be evaluated again by a resumed run.
    """

    es: Optimizer
    max_lag: int
    again: bool
    max_failures: float | None = None
    recipes: dict[int, Population] = field(default_factory=dict)
    issued: int = 0
    flying: dict[Place, None] = field(default_factory=dict)
    apart: dict[Place, dict[int, Evals]] = field(default_factory=dict)
    landed: list[Unit] = field(default_factory=list)
    log: list[list[int]] = field(default_factory=list)
    keep: frozenset[int] = frozenset()
    failed: bool = False
    points: Array = field(default_factory=lambda: np.empty((0, 0)))
    values: Array = field(default_factory=lambda: np.empty(0))
    _telling: _Telling | None = None

    def __post_init__(self) -> None:
        self.points = np.empty((0, self.es.state.mean.size))
        self.recipes[self.es.generation] = self.es.population()

    def issue(self) -> list[Place]:
        """Return the next rows of the newest generation that depend on each other; none if no budget is left."""
        population, generation = self.es.population(), self.es.generation
        block = population.noise.block
        outstanding = len(self.flying) + self._waiting() + block
        if outstanding > self.es.generations_left // 1 * population.n:
            return []
        rows = range(self.issued, self.issued + block)
        self.issued += block
        places = [(generation, row) for row in rows]
        self.recipe(places[-1])
        self.flying.update(dict.fromkeys(places))
        return places

    def recipe(self, place: Place) -> Population:
        """Return the population of a generation, with as many rows as it takes to have that of ``place``."""
        population = self.recipes[place[0]]
        n = population.n
        while n <= place[1]:
            n *= 2
        if n != population.n:
            population = self.recipes[place[0]] = population.resize(n)
        return population

    def land(self, place: Place, evals: Evals) -> None:
        """Take in what came of one candidate."""
        generation, row = place
        block = self.recipes[generation].noise.block
        first = row // block * block
        del self.flying[place]
        parts = self.apart.setdefault((generation, first), {})
        parts[row] = evals
        if len(parts) < block:
            return
        del self.apart[generation, first]
        found = tuple(parts[r] for r in range(first, first + block))
        unit = Unit(generation, first, found, len(self.log))
        self.log += [[generation, r, _NEVER] for r in range(first, first + block)]
        if self._expired(unit):
            self._drop([unit], "outdated")
        else:
            self.landed.append(unit)

    def ready(self) -> bool:
        """Whether a generation has landed."""
        return sum(len(unit.found) for unit in self.landed) >= self.es.population().n

    def check(self) -> None:
        """Raise what ends a run before the next n results are told."""
        population = self.es.population()
        evals = gather(self.landed[: population.n // population.noise.block])
        check_first(self.es, evals)
        try:
            check_failed(evals.values, evals.failures, self.max_failures, population)
        except EvaluationError:
            self.failed = True
            raise

    def tell(self) -> tuple[Evals, Info]:
        """Tell the next n results; return them, and what was learned.

        Raises
        ------
        EvaluationError  if nothing usable is among them; they stay where they are.
        """
        es, population = self.es, self.es.population()
        block = population.noise.block
        units = sorted(self.landed[: population.n // block], key=lambda unit: (unit.generation, unit.first))
        evals = gather(units)
        points = self._points(units)
        self._telling = _Telling(es.generation, population.noise.key.seed, units, points, evals.values)
        if [(unit.generation, unit.first) for unit in units] == [
            (es.generation, row) for row in range(0, population.n, block)
        ]:
            info = es.learn(evals, es.evaluator_state)
        else:
            told = self._with_origin(units, points, evals)
            info = es.learn(told, es.evaluator_state, news=(_explicit(population, points), evals))
        self._settle()
        return evals, info

    def _settle(self) -> None:
        """Put away what was told; an interrupt may have come in between."""
        telling, es = self._telling, self.es
        if telling is None or telling.generation == es.generation:
            return
        for unit in telling.units:
            for at in range(unit.at, unit.at + len(unit.found)):
                self.log[at][2] = telling.generation
        told = {unit.at for unit in telling.units}
        self.landed, self.issued = [unit for unit in self.landed if unit.at not in told], 0
        self.recipes[es.generation] = es.population()
        same = es.population().noise.key.seed == telling.seed
        kept = slice(None) if same and self.again else slice(0)
        self.points, self.values, self._telling = telling.points[kept], telling.values[kept], None
        expired = [unit for unit in self.landed if self._expired(unit)]
        self.landed = [unit for unit in self.landed if not self._expired(unit)]
        self._drop(expired, "outdated")
        needed = {es.generation, *(place[0] for place in (*self.flying, *self.apart))} | (self.keep & {*self.recipes})
        needed |= {unit.generation for unit in self.landed}
        self.recipes = {generation: self.recipes[generation] for generation in sorted(needed)}

    def empty(self) -> None:
        """Count what has landed and will not be told any more."""
        self._settle()
        self._drop(self.landed)
        self.landed = []

    def record(self) -> NDArray[np.void]:
        """Return the log, a record array of :data:`LOG`."""
        return np.array([tuple(entry) for entry in self.log], LOG)

    def _waiting(self) -> int:
        return sum(len(unit.found) for unit in self.landed) + sum(len(parts) for parts in self.apart.values())

    def _expired(self, unit: Unit) -> bool:
        """Whether a result is too old, or of a run that a restart has ended."""
        newest, own = self.es.population().noise.key.seed, self.recipes[unit.generation].noise.key.seed
        return self.es.generation - unit.generation > self.max_lag or own != newest

    def _drop(self, units: Sequence[Unit], kind: str = "") -> None:
        """Count evaluations that nothing is learned from, as failures of a ``kind`` if there is one."""
        if not units:
            return
        evals = gather(units)
        failures = add_counts(evals.failures, {kind: evals.values.size} if kind else {})
        self.es.count(_explicit(self.es.population(), self._points(units)), replace(evals, failures=failures))

    def _points(self, units: Sequence[Unit]) -> Array:
        """Return the candidates before the map, (n, d)."""
        return np.concatenate(
            [replace(self.recipe((g, stop - 1)), map=None).rows(a, stop) for g, a, stop in _runs(units)]
        )

    def _with_origin(self, units: Sequence[Unit], points: Array, evals: Evals) -> Evals:
        """Return the evaluations with where they come from, and the best of those before, one for each late result."""
        now, population = self.es.generation, self.es.population()
        rows = [self.recipes[g].noise.rows(start, stop) for g, start, stop in _runs(units)]
        own = population.noise
        noise = Given(np.concatenate(rows), own.block, own.mirrored, own.key, own.law)
        lags = np.repeat([now - unit.generation for unit in units], own.block)
        again = min(int((lags > 0).sum()), lags.size // 4)
        best = np.argsort(self.values, kind="stable")[:again]
        best = best[~np.isnan(self.values[best])]
        origin = Arrivals(
            np.concatenate([points, self.points[best]]), noise, np.concatenate([lags, np.ones(best.size, np.int64)])
        )
        return replace(evals, values=np.concatenate([evals.values, self.values[best]]), arrivals=origin)

    def freeze(self) -> Flight:
        """Return all this as a record for a checkpoint."""
        self._settle()
        parts = [(unit.generation, unit.first + i, e) for unit in self.landed for i, e in enumerate(unit.found)]
        parts += [(place[0], row, e) for place, own in self.apart.items() for row, e in own.items()]
        lost = [(g, r) for g, r, e in parts if self.failed and np.isnan(e.values).any()]
        parts = [part for part in parts if part[:2] not in lost]
        waiting = {at for unit in self.landed for at in range(unit.at, unit.at + len(unit.found))}
        log = [entry for at, entry in enumerate(self.log) if at not in waiting]
        found = gather([Unit(g, r, (e,), 0) for g, r, e in parts])
        populations = list(self.recipes.values())
        return Flight(
            np.array(log, np.int64).reshape(-1, 3),
            self.issued,
            np.array([*self.flying, *lost], np.int64).reshape(-1, 2),
            np.array([(g, r) for g, r, _ in parts], np.int64).reshape(-1, 2),
            found.values,
            np.array([e.steps for _, _, e in parts], np.int64),
            json.dumps([dict(e.failures) for _, _, e in parts]),
            np.array(list(self.recipes), np.int64),
            np.array([p.noise.key.seed for p in populations], np.uint64),
            np.array([p.noise.key.generation for p in populations], np.int64),
            np.array([p.n for p in populations], np.int64),
            np.array([p.mean for p in populations]),
            np.array([p.scale for p in populations], np.float64),
            self.points,
            self.values,
        )

    def thaw(self, flight: Flight) -> list[Place]:
        """Take over what a checkpoint holds; return who is to be evaluated again."""
        now = self.es.population()
        for generation, seed, number, n, mean, scale in zip(
            flight.generations.tolist(),
            flight.seeds.tolist(),
            flight.numbers.tolist(),
            flight.sizes.tolist(),
            flight.means,
            flight.scales,
            strict=True,
        ):
            noise = replace(now.noise, key=Key(seed, number), n=n)  # type: ignore[type-var]
            scale = float(scale) if np.ndim(scale) == 0 else np.array(scale)
            self.recipes[generation] = replace(now, mean=np.array(mean), scale=scale, noise=noise)
        self.issued, self.log = flight.issued, flight.log.tolist()
        self.points, self.values = flight.points, flight.values_told
        counts = json.loads(flight.failures)
        landed: list[Place] = [(g, r) for g, r in flight.landed.tolist()]
        for place, value, steps, failures in zip(
            landed, flight.values.tolist(), flight.steps.tolist(), counts, strict=True
        ):
            self.flying[place] = None
            self.land(place, Evals(np.array([value]), steps=steps, failures=failures))
        flying: list[Place] = [(g, r) for g, r in flight.flying.tolist()]
        self.flying.update(dict.fromkeys(flying))
        return flying


def _runs(units: Sequence[Unit]) -> list[tuple[int, int, int]]:
    """Return (generation, start, stop) of the rows of ``units``, those that follow each other in one."""
    runs: list[tuple[int, int, int]] = []
    for unit in units:
        generation, start, stop = unit.generation, unit.first, unit.first + len(unit.found)
        if runs and runs[-1][::2] == (generation, start):
            start = runs.pop()[1]
        runs.append((generation, start, stop))
    return runs


def gather(units: Sequence[Unit]) -> Evals:
    """Return the evaluations of all ``units`` in one record."""
    found = [evals for unit in units for evals in unit.found]
    failures: dict[str, int] = {}
    for evals in found:
        failures = add_counts(failures, evals.failures) if evals.failures else failures
    values = np.concatenate([evals.values for evals in found]) if found else np.empty(0)
    return Evals(values, steps=sum(evals.steps for evals in found), failures=failures)


def _explicit(population: Population, points: Array) -> Population:
    """Return a population of the candidates ``points`` (n, d), given before the map."""
    none = Given(np.empty((0, population.dim)), key=population.noise.key)
    return replace(population, noise=none, extra=points, tags=(), probes=None)
