"""Any gymnasium environment, played in worker processes that stay, with their environments, until they are closed.

A task is a range of episodes and their seeds; the recipe of the population and the normalisation travel once, and
candidates are made where they are played. Tasks are small and wait in a queue, so that episodes of different lengths
balance. Answers arrive in any order and are put in the order of the rows: the number of workers changes no bit.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..evaluators._pool import Outcome
from ..evaluators._rows import check_count
from ..evaluators._tasks import dumps, loads, pack_error, unpack_error
from ..noise import Philox
from ..records import Population
from .engine import Array, Integers, Played
from .environments import EnvSource
from .gym_engine import Episode, Fault, Rules, Stage, Table
from .policy import Policy

_LEAST_SECONDS, _MOST_SECONDS = 0.002, 0.1
"""How long a task should take: longer than its messages, which take a third of a millisecond of this process with
cold caches, and not so long that workers wait for the last one."""
_LONG_SECONDS = 0.02
"""An episode that takes so long does not wait behind another one, since it could not go to a worker that is free."""
_FIRST_TASKS = 8
"""Tasks for each worker while nobody knows how long an episode takes."""
_DEATHS = 2
"""Episodes that were in progress when a worker died twice are to blame."""

_numbers = itertools.count()


class _Recipe(NamedTuple):
    """What the tasks of one call share: the population, if its rows do not travel, and how episodes are played.

    Rows are folded already, or to be normalised. Unit 0 is the first episode of row ``offset`` of the population.
    """

    population: Population | None
    episodes: int
    normalisation: tuple[Array, Array] | None
    stop_at_fault: bool
    quiet: bool
    longest: int | None
    offset: int
    number: int


class _Task(NamedTuple):
    """Units start ... stop, their seeds, and the rows that they are episodes of, if these travel."""

    start: int
    stop: int
    rows: Array | None
    seeds: Integers


class _Call(NamedTuple):
    recipe: _Recipe
    task: _Task


class _Answer(NamedTuple):
    """What a worker found out about the units from ``start`` on; ``faults`` are (unit, kind, what, packed error)."""

    start: int
    returns: Array
    lengths: Integers
    sums: Array
    squares: Array
    faults: list[tuple[int, str, str, bytes]]
    seconds: float


@dataclass
class _Live:
    """What belongs to this process: the pool, and how long an episode takes."""

    pool: Any = None
    seconds: float = 0.0
    owner: int = field(default_factory=os.getpid)
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True, eq=False)
class Workers:
    """Plays episodes of any gymnasium environment in ``workers`` processes, with the bits of :class:`GymEngine`.

    Parameters
    ----------
    env, policy, rules, on_error : as in :class:`GymEngine`.
    workers : number of processes.
    episode_timeout : seconds after which an episode counts as hung: its process is killed, and the failure policy
        applies. None for never.
    retries : how often an episode that hung is played again before it fails.

    Notes
    -----
    When a worker dies, the episodes that were in progress are played again; one that was in progress at two deaths
    fails, as "died". Threads that play at the same time wait for each other. Not on Windows.
    """

    env: EnvSource
    policy: Policy
    workers: int
    rules: Rules = field(default_factory=Rules)
    on_error: str = "raise"
    episode_timeout: float | None = None
    retries: int = 0
    _live: _Live = field(default_factory=_Live, init=False, repr=False)

    def __post_init__(self) -> None:
        check_count("workers", self.workers)
        timeout = self.episode_timeout
        if timeout is not None and not 0.0 < timeout < np.inf:
            raise ValueError(f"episode_timeout must be seconds or None, got {timeout!r}. Pass for example 60.0.")
        if sys.platform == "win32":
            raise ValueError(
                "worker processes do not run on Windows: they are handed a socket by its number, which POSIX has only. "
                'Play in this process, with workers=1 and no episode_timeout; path="compiled" uses threads.'
            )

    @property
    def name(self) -> str:
        """How the episodes are played."""
        return f"gymnasium, in {self.workers} worker process{'es' if self.workers > 1 else ''}"

    def play(self, thetas: Array, seeds: Integers, *, quiet: bool = False, longest: int | None = None) -> Played:
        """Play ``seeds`` (m, e) with the folded parameters ``thetas`` (m, dim), ``quiet`` without action noise.

        ``longest`` cuts the episodes of this call earlier still.
        """
        table = Table(seeds, self.policy.observations.inputs, self.on_error)
        recipe = self._recipe(table)._replace(quiet=quiet, longest=longest)
        rows = np.asarray(thetas, np.float64)
        return self._play(table, recipe, self._tasks(table, 0, len(rows), rows))

    def play_population(
        self,
        population: Population,
        seeds: Integers,
        mean: Array,
        std: Array,
        start: int = 0,
        longest: int | None = None,
    ) -> Played:
        """Play ``seeds`` (m, e) with the last m rows of ``population``, normalised by ``mean`` and ``std`` (inputs,).

        Those are the rows from ``start`` on; errors count from there.
        """
        table = Table(seeds, self.policy.observations.inputs, self.on_error)
        n, total = max(0, population.n - start), len(population) - start
        recipe = self._recipe(table)._replace(normalisation=(mean, std), longest=longest, offset=start)
        tasks: list[_Task] = []
        if n and isinstance(population.noise, Philox):
            recipe = recipe._replace(population=replace(population, extra=None, tags=(), probes=None))
            tasks = self._tasks(table, 0, n, None)
        elif n:
            tasks = self._tasks(table, 0, n, population.rows(start, start + n))
        if total > n:
            tasks += self._tasks(table, n, total, population.rows(start + n, start + total))
        return self._play(table, recipe, tasks)

    def close(self) -> None:
        """End the processes; playing again would start new ones."""
        self._end(kill=False)

    def _recipe(self, table: Table) -> _Recipe:
        """Return the recipe of folded rows that travel."""
        return _Recipe(None, table.seeds.shape[1], None, self.on_error == "raise", False, None, 0, next(_numbers))

    def _tasks(self, table: Table, first: int, last: int, rows: Array | None) -> list[_Task]:
        """Cut the rows first ... last into tasks; ``rows``, if given, travel with them.

        A task is half of a worker's share of what is left, so that the last ones are small and all end together (guided
        self-scheduling, Polychronopoulos and Kuck 1987), between two times, and never more than a share of all.
        """
        episodes, seeds = table.seeds.shape[1], table.seeds.ravel()
        start, end, known = first * episodes, last * episodes, self._live.seconds
        share = -(-(end - start) // self.workers)
        least, most = 1, max(1, share // _FIRST_TASKS)
        if known:
            least, most = (max(1, min(share, round(seconds / known))) for seconds in (_LEAST_SECONDS, _MOST_SECONDS))
        tasks = []
        while start < end:
            stop = min(start + min(most, max(least, (end - start) // (2 * self.workers))), end)
            low, high = start // episodes, -(-stop // episodes)
            own = None if rows is None else rows[low - first : high - first]
            tasks.append(_Task(start, stop, own, seeds[start:stop]))
            start = stop
        return tasks

    def _play(self, table: Table, recipe: _Recipe, tasks: list[_Task]) -> Played:
        """Have the tasks done, again where a worker was lost, and return the finished record; one call at a time."""
        live = self._live
        if live.owner != os.getpid():  # a fork: the workers are its parent's, and so is whoever plays there
            live.pool, live.owner, live.lock = None, os.getpid(), Lock()
        with live.lock:
            try:
                faults = self._run(table, recipe, deque(tasks))
            except BaseException:
                self._end(kill=True)
                raise
        for unit, kind, what, error in sorted(faults):
            table.fail(unit, Fault(kind, what, unpack_error(error) if error else None), int(table.lengths[unit]))
        return table.played()

    def _run(self, table: Table, recipe: _Recipe, waiting: deque[_Task]) -> list[tuple[int, str, str, bytes]]:
        """Run tasks until they are done, or until one failed if that is to stop them; return what failed."""
        if self._live.pool is None:
            self._live.pool = self._open()
        pool, inbox = self._live.pool, SimpleQueue[tuple[_Task, Outcome]]()
        faults, tried = list[tuple[int, str, str, bytes]](), Counter[tuple[int, bool]]()
        out, spent, played = 0, 0.0, 0
        kept = self.workers if self._live.seconds >= _LONG_SECONDS else 0
        while True:
            while waiting and pool.room() > kept and not (faults and recipe.stop_at_fault):
                task = waiting.popleft()
                pool.submit(_Call(recipe, task), partial(_put, inbox, task))
                out += 1
            if not out:
                break
            task, outcome = inbox.get()
            out -= 1
            if outcome.error is not None:
                raise outcome.error
            if outcome.answer is None:
                fault = self._blame(outcome, tried) if outcome.begun else None
                faults += [fault] if fault else []
                waiting.extendleft(_without(task, fault[0], recipe.episodes) if fault else [task])
                continue
            answer: _Answer = outcome.answer
            faults += answer.faults
            spent, played = spent + answer.seconds, played + task.stop - task.start
            tried.pop((_NOWHERE, False), None)
            table.put_all(*answer[:5])
        self._live.seconds = spent / max(1, played)
        return faults

    def _blame(self, outcome: Outcome, tried: Counter[tuple[int, bool]]) -> tuple[int, str, str, bytes] | None:
        """Return the failure of the episode that was in progress in a worker that was lost; None to play it again."""
        header, _, rest = outcome.words.partition("\n")
        unit = int(header) if header.isdigit() else _NOWHERE
        hung = unit != _NOWHERE and "Timeout" in rest
        tried[unit, hung] += 1
        if unit == _NOWHERE:
            if tried[unit, hung] >= _DEATHS * self.workers:
                raise EvaluationError(
                    "worker processes died before they played an episode. Expected the environment to be made there; "
                    "look for a crash in native code or too little memory. Play in this process to see it: workers=1."
                )
        elif hung:
            if tried[unit, hung] > self.retries:
                what = f"took more than {self.episode_timeout:g} seconds and was killed{_place(rest)}"
                return unit, "timeout", what, b""
        elif tried[unit, hung] >= _DEATHS:
            return unit, "died", "killed its worker process, twice: a crash in native code, or no memory", b""
        return None

    def _open(self) -> Any:
        from joblib import cpu_count

        from ..evaluators._worker import Setup
        from ..evaluators._workers import Processes

        try:
            payload = dumps((self.env, self.policy, self.rules, self.episode_timeout))
        except Exception as error:
            raise TypeError(
                f"the environment cannot be sent to a worker process: {error}. Expected a gymnasium id, or a function "
                "without open files, locks and the like. Make those inside the function, or play with workers=1."
            ) from error
        return Processes(self.workers, max(1, int(cpu_count()) // self.workers), Setup(_Player, (payload,)))

    def _end(self, *, kill: bool) -> None:
        pool, self._live.pool = self._live.pool, None
        if pool is not None:
            pool.close(kill=kill)


_NOWHERE = -1
"""In place of a unit: no episode had begun."""


def _put(inbox: SimpleQueue[tuple[_Task, Outcome]], task: _Task, outcome: Outcome) -> None:
    inbox.put((task, outcome))


def _place(words: str) -> str:
    """Return where the main thread was, the last one in what faulthandler writes."""
    place = re.search(r'File "(.*)", line (\d+) in (.*)', words.rpartition("(most recent call first)")[2])
    return f", in {place[3]} ({os.path.basename(place[1])}:{place[2]})" if place else ""


def _without(task: _Task, unit: int, episodes: int) -> Iterator[_Task]:
    """Yield what is left of a task without ``unit``."""
    low = task.start // episodes
    for start, stop in ((task.start, unit), (unit + 1, task.stop)):
        if start < stop:
            rows = task.rows
            if rows is not None:
                rows = rows[start // episodes - low : -(-stop // episodes) - low]
            yield _Task(start, stop, rows, task.seeds[start - task.start : stop - task.start])


class _Player:
    """In a worker process: plays the episodes of tasks. ``notes`` says which one, and where it was when it hung."""

    def __init__(self, notes: int, payload: bytes) -> None:
        self._notes, self._payload = notes, payload
        self._stage: Stage | None = None
        self._timeout: float | None = None

    def __call__(self, recipe: _Recipe, task: _Task, begun: Callable[[], object] | None) -> _Answer:
        """Play the episodes of a task."""
        from .._kernels import threads

        clock = time.perf_counter()
        stage, count = self._open(), task.stop - task.start
        inputs = stage.policy.observations.inputs
        answer = _Answer(
            task.start,
            np.full(count, np.nan),
            np.zeros(count, np.int64),
            np.zeros((count, inputs)),
            np.zeros((count, inputs)),
            [],
            0.0,
        )
        with threads.limited(1):
            low, high = task.start // recipe.episodes, -(-task.stop // recipe.episodes)
            rows: Any = task.rows
            if rows is None and recipe.population is not None:
                rows = recipe.population.rows(recipe.offset + low, recipe.offset + high)
            if recipe.normalisation is not None:
                rows = stage.policy.fold(rows, *recipe.normalisation)
            for at in range(count):
                unit = task.start + at
                episode = self._watched(unit, rows[unit // recipe.episodes - low], int(task.seeds[at]), recipe)
                answer.lengths[at] = episode.steps
                fault = episode.fault
                if fault is not None:
                    packed = b"" if fault.error is None else pack_error(fault.error)
                    answer.faults.append((unit, fault.kind, fault.what, packed))
                    if recipe.stop_at_fault:
                        break
                    continue
                answer.returns[at] = episode.total
                answer.sums[at], answer.squares[at] = episode.sums, episode.squares
        return answer._replace(seconds=time.perf_counter() - clock)

    def _open(self) -> Stage:
        """Return the stage; at its first use, make it."""
        if self._stage is None:
            try:
                env, policy, rules, self._timeout = loads(self._payload)
            except Exception as error:
                raise EvaluationError(
                    f"the environment cannot be rebuilt in a worker process: {type(error).__name__}: {error}. Expected "
                    "a function whose modules can be imported there. Install them, or define it in the main script."
                ) from error
            stage = Stage(env, policy, rules)
            stage.open()
            self._stage = stage
        return self._stage

    def _watched(self, unit: int, theta: Array, seed: int, recipe: _Recipe) -> Episode:
        """Play an episode that is noted, in a process that ends, and notes where it was, if that takes long."""
        stage = self._open()
        os.ftruncate(self._notes, 0)
        os.lseek(self._notes, 0, os.SEEK_SET)
        os.write(self._notes, b"%d\n" % unit)
        if self._timeout is not None:
            # A thread of C: it needs no interpreter lock, so that native code that hangs is ended too.
            faulthandler.dump_traceback_later(self._timeout, exit=True, file=self._notes)
        try:
            return stage.play(theta, seed, recipe.quiet, recipe.longest)
        finally:
            if self._timeout is not None:
                faulthandler.cancel_dump_traceback_later()
            os.ftruncate(self._notes, 0)
