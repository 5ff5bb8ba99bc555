"""Populations in, parts of them out in the order of completion: tasks, what is lost, and what fails."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..objective import Objective
from ..records import Evals, Part, Population
from ._policy import Failure, Journal, Policy, failed_error, too_many
from ._pool import Outcome, Pool
from ._rows import _Fault, _Table, stop_at, wanted_derivatives
from ._tasks import Call, Task, cut, fault_of, make_recipe

_TASKS_PER_WORKER = 4
_WAKE_SECONDS = 1.0
"""Ctrl-C is looked at this often where waiting cannot be interrupted."""


class Settings(NamedTuple):
    """What a stream is told by its evaluator, whose name is in ``user``."""

    objective: Objective
    user: object
    workers: int
    policy: Policy
    chunk: int | None = None
    max_failures: float | None = None
    timeout: float | None = None
    token: str = ""
    payload: bytes = b""


@dataclass(eq=False)
class _Job:
    """One population on its way. ``left``: rows without an answer; ``counts``: events for the next part."""

    ticket: int
    population: Population
    call: Call
    coming: Iterator[Task]
    left: int
    journal: Journal
    again: deque[Task] = field(default_factory=deque)
    flying: int = 0
    fault: _Fault | None = None
    tried: dict[int, int] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def next(self) -> Task | None:
        """Return the next task; after a fault only those that may hold an earlier one."""
        while self.again:
            task = self.again.popleft()
            if self.fault is None or task.start < self.fault.row:
                return task
        return next(self.coming, None) if self.fault is None else None

    def stop(self, fault: _Fault) -> None:
        """Keep the first fault, in the order of the rows."""
        if self.fault is None or fault.row < self.fault.row:
            self.fault = fault


class _Flight(NamedTuple):
    job: _Job
    task: Task
    number: int


class Streams:
    """All that one pool is doing."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self.settings = settings
        self._inbox: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
        self._jobs: dict[int, _Job] = {}
        self._flights: dict[int, _Flight] = {}
        self._expired: set[int] = set()
        self._numbers = itertools.count()
        self._payloads = 0 if pool.shared or pool.own else settings.workers
        self._deaths = max(2, 1 + settings.policy.retries)

    def submit(self, population: Population, rows: NDArray[np.int64] | None = None) -> int:
        """Evaluate ``rows`` of a population, all of them for None; return its ticket."""
        settings, pool = self.settings, self._pool
        objective = settings.objective
        recipe = make_recipe(population, wanted_derivatives(population, objective, settings.user), settings.policy)
        chosen = None if rows is None else _check_rows(rows, len(population))
        count = len(population) if chosen is None else len(chosen)
        size = settings.chunk or -(-count // (_TASKS_PER_WORKER * settings.workers))
        tasks = cut(population, recipe, objective.seeded, 0 if settings.timeout else max(1, size), chosen)
        call = Call(settings.token, b"", objective if pool.shared else None, recipe, Task(0, 0, None, None, None))
        ticket = next(self._numbers)
        if count:
            self._jobs[ticket] = _Job(ticket, population, call, tasks, count, Journal(objective, population))
            self._fill()
        return ticket

    def wait(self, seconds: float | None = None) -> list[tuple[int, Part]]:
        """Return the parts that are there, as soon as there are any, or nothing after ``seconds``.

        Without anything under way, return at once.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        return [(job.ticket, as_part(start, table)) for job, start, table in self._step(until)]

    def tables(self, ticket: int) -> Iterator[tuple[int, _Table]]:
        """Yield (first row, table) of one population in the order of completion; nothing else may be under way."""
        while ticket in self._jobs:
            for _, start, table in self._step(math.inf):
                yield start, table

    def drop(self, ticket: int) -> None:
        """Give up what is unfinished of a population: waiting tasks are forgotten, late answers dropped."""
        job = self._jobs.pop(ticket, None)
        if job is not None:
            job.journal.end()

    @property
    def busy(self) -> bool:
        """Whether any worker has something to do."""
        return bool(self._flights)

    def close(self, *, kill: bool) -> None:
        """End the pool."""
        self._jobs.clear()
        self._pool.close(kill=kill)

    def _step(self, until: float) -> list[tuple[_Job, int, _Table]]:
        """Hand out tasks and wait until something is found, or until the clock says ``until``."""
        found: list[tuple[_Job, int, _Table]] = []
        self._fill()
        self._stop()
        while self._flights and not found:
            try:
                arrived = [self._inbox.get(timeout=self._patience(until))]
            except Empty:
                self._expire()
                if time.monotonic() >= until:
                    break
                continue
            while not self._inbox.empty():
                arrived.append(self._inbox.get())
            for number, outcome in arrived:
                found += self._settle(number, outcome)
            self._fill()
            if not found:
                self._stop()
        if not self._flights:
            self._pool.rest()
        return found

    def _stop(self) -> None:
        """Raise what ends a population: its first fault, once no earlier row is under way, or too many failures."""
        most = self.settings.max_failures
        for ticket, job in list(self._jobs.items()):
            fault = job.fault
            if fault is not None and not job.flying and all(task.start > fault.row for task in job.again):
                self.drop(ticket)
                raise stop_at(fault, self.settings.objective, job.population) from (
                    fault.error if fault.raised else None
                )
            if too_many(job.failed, most, len(job.population)):
                self.drop(ticket)
                raise failed_error(job.failed, job.failures, most, job.population)

    def _fill(self) -> None:
        """Hand out tasks, the population that came first first, while there is room for them."""
        while self._inbox.empty() and self._jobs and self._pool.room() > 0:
            for job in self._jobs.values():
                task = job.next()
                if task is not None:
                    break
            else:
                return
            number = next(self._numbers)
            call = job.call._replace(task=task, payload=self._payload())
            self._flights[number] = _Flight(job, task, -1)
            own = self._pool.submit(call, partial(_put, self._inbox, number))
            self._flights[number] = _Flight(job, task, own)
            job.flying += 1

    def _payload(self) -> bytes:
        """Return the objective for the first few tasks, where workers do not have it."""
        if self._payloads <= 0:
            return b""
        self._payloads -= 1
        return self.settings.payload

    def _patience(self, until: float) -> float:
        """Return for how many seconds to wait for the next outcome."""
        wait = min(_WAKE_SECONDS, max(0.0, until - time.monotonic()))
        timeout = self.settings.timeout
        if timeout is not None:
            spent = max(self._pool.running(flight.number) for flight in self._flights.values())
            wait = min(wait, max(0.001, timeout - spent))
        return wait

    def _expire(self) -> None:
        """Give up the tasks whose time is over."""
        timeout = self.settings.timeout
        if timeout is None:
            return
        for number, flight in list(self._flights.items()):
            if number not in self._expired and self._pool.running(flight.number) >= timeout:
                self._expired.add(number)
                self._pool.kill(flight.number)

    def _settle(self, number: int, outcome: Outcome) -> list[tuple[_Job, int, _Table]]:
        """Deal with what became of a task; return what is known now."""
        flight, expired = self._flights.pop(number), number in self._expired
        self._expired.discard(number)
        job, task = flight.job, flight.task
        job.flying -= 1
        if outcome.error is not None:
            raise outcome.error
        if self._jobs.get(job.ticket) is not job:
            return []
        if outcome.answer is None:
            table = self._after_loss(job, task, expired=expired, begun=outcome.begun)
            return [] if table is None else self._deliver(job, task.start, table)
        if outcome.answer.table is None:
            self._payloads = max(1, self._payloads)
            job.again.appendleft(task)
            return []
        table, fault = outcome.answer.table, fault_of(outcome.answer)
        if fault is not None:
            job.stop(fault)
            table = table.head(fault.row - task.start)
        return self._deliver(job, task.start, table)

    def _deliver(self, job: _Job, start: int, table: _Table) -> list[tuple[_Job, int, _Table]]:
        """Count what is in a table, which is the answer to as many rows."""
        lost = self._pool.take_lost()
        if lost:
            job.counts["killed"] = job.counts.get("killed", 0) + lost
        for kind, times in job.counts.items():
            table.count(kind, times)
        job.counts = {}
        job.journal.add(table.notes, table.failures)
        job.left -= len(table.values)
        job.failed += int(np.isnan(table.values).sum())
        for kind, times in table.failures.items():
            job.failures[kind] = job.failures.get(kind, 0) + times
        if job.left <= 0 and not too_many(job.failed, self.settings.max_failures, len(job.population)):
            self.drop(job.ticket)
        return [(job, start, table)] if len(table.values) else []

    def _after_loss(self, job: _Job, task: Task, *, expired: bool, begun: bool) -> _Table | None:
        """Evaluate the rows of a lost task again, or return the table of a row that is given up."""
        row, settings = task.start, self.settings
        if begun and expired:
            tried = job.tried[row] = job.tried.get(row, 0) + 1
            what = f"took more than {settings.timeout:g} seconds and was ended"
            if tried > settings.policy.retries:
                return self._give_up(job, task, "timeout", what)
            _count(job, "retried", Failure("retried", row, what))
            job.again.append(task)
            return None
        if begun and task.stop - row == 1:
            deaths = job.deaths[row] = job.deaths.get(row, 0) + 1
            if deaths >= self._deaths:
                what = f"killed its worker process, {deaths} times: a crash in native code, or no memory"
                return self._give_up(job, task, "died", what)
        if begun:
            _count(job, "killed", Failure("killed", row, "its worker process was lost; it is evaluated again"))
        job.again.extend([task.one(each) for each in range(row, task.stop)] if begun else [task])
        return None

    def _give_up(self, job: _Job, task: Task, kind: str, what: str) -> _Table | None:
        """Return the table of a row that failed, or note the fault that ends the population."""
        if self.settings.policy.raises:
            job.stop(_Fault(task.start, RuntimeError(what), "f", raised=False))
            return None
        recipe = job.call.recipe
        table = _Table.empty(1, int(task.start < job.population.n), recipe.dim, recipe.wanted)
        table.fail(kind, task.start, what)
        return table


def _count(job: _Job, kind: str, note: Failure) -> None:
    """Count an event, in the next part of the population, and log it."""
    job.counts[kind] = job.counts.get(kind, 0) + 1
    job.journal.add([note], {})


def as_part(start: int, table: _Table) -> Part:
    evals = Evals(table.values, steps=table.steps, failures=table.failures, **table.found)
    return Part(np.arange(start, start + len(table.values)), evals)


def _check_rows(rows: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return ``rows``, increasing; ValueError unless they are different rows of a population of ``total``."""
    chosen = np.unique(np.asarray(rows, np.int64))
    if chosen.size != np.size(rows) or (chosen.size and not 0 <= chosen[0] <= chosen[-1] < total):
        raise ValueError(f"rows must be different rows of a population of {total}, got {rows!r}. Pass es.pending.")
    return chosen


def _put(inbox: SimpleQueue[tuple[int, Outcome]], number: int, outcome: Outcome) -> None:
    inbox.put((number, outcome))
