"""Any gymnasium environment, played in worker processes that stay, with their environments, until they are closed.

A task is the recipe of the population, a range of episodes, their seeds and the normalisation; candidates are made
where they are played. Tasks are small and wait in a queue, so that episodes of different lengths balance. Answers
arrive in any order and are put in the order of the rows: the number of workers changes no bit.
"""

from __future__ import annotations

import faulthandler
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..evaluators._rows import check_count
from ..evaluators._tasks import dumps, loads, pack_error, unpack_error
from ..noise import Philox
from ..records import Population
from .engine import Array, Integers, Played
from .environments import EnvSource
from .gym_engine import Episode, EpisodeError, Fault, Rules, Stage, Table
from .policy import Policy

_PIECE_SECONDS = 0.02
_PIECES_PER_WORKER = 4
_IN_FLIGHT = 2
_DEATHS = 2
"""Episodes that were in progress when a worker died twice are to blame."""


class _Task(NamedTuple):
    """Units start ... stop of the rows of a recipe, or of rows from ``first`` on; folded, or to be normalised."""

    start: int
    stop: int
    episodes: int
    first: int
    source: Population | Array
    normalisation: tuple[Array, Array] | None
    seeds: Integers
    stop_at_fault: bool
    quiet: bool = False


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
    """What belongs to this process: the pool, the folder where workers say what they play, and how long it takes."""

    backend: Any = None
    folder: str = ""
    seconds: float = 0.0


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
    fails, as "died".
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

    @property
    def name(self) -> str:
        """How the episodes are played."""
        return f"gymnasium, in {self.workers} worker process{'es' if self.workers > 1 else ''}"

    def play(self, thetas: Array, seeds: Integers, *, quiet: bool = False) -> Played:
        """Play ``seeds`` (m, e) with the folded parameters ``thetas`` (m, dim), ``quiet`` without action noise."""
        table = Table(seeds, self.policy.observations.inputs, self.on_error)
        tasks = self._tasks(table, 0, len(table.seeds), np.asarray(thetas, np.float64), None)
        return self._play(table, [task._replace(quiet=quiet) for task in tasks])

    def play_population(self, population: Population, seeds: Integers, mean: Array, std: Array) -> Played:
        """Play ``seeds`` (m, e) with the rows of ``population``, normalised by ``mean`` and ``std`` (inputs,)."""
        table = Table(seeds, self.policy.observations.inputs, self.on_error)
        whole = (mean, std)
        if isinstance(population.noise, Philox):
            recipe = replace(population, extra=None, tags=(), probes=None)
            tasks = self._tasks(table, 0, population.n, recipe, whole)
        else:
            tasks = self._tasks(table, 0, population.n, population.rows(0, population.n), whole)
        if population.extra is not None:
            extra = population.rows(population.n, len(population))
            tasks += self._tasks(table, population.n, len(population), extra, whole)
        return self._play(table, tasks)

    def close(self) -> None:
        """End the processes; playing again would start new ones."""
        self._end(kill=False)

    def _tasks(
        self, table: Table, first: int, last: int, source: Population | Array, normalisation: tuple[Array, Array] | None
    ) -> list[_Task]:
        """Cut the rows first ... last into tasks; rows of an array travel with their task."""
        episodes, seeds = table.seeds.shape[1], table.seeds.ravel()
        units = (last - first) * episodes
        most = max(1, -(-units // (_PIECES_PER_WORKER * self.workers)))
        known = self._live.seconds
        size = min(most, max(1, round(_PIECE_SECONDS / known))) if known else max(1, most // 2)
        tasks = []
        for start in range(first * episodes, last * episodes, size):
            stop = min(start + size, last * episodes)
            low, high = start // episodes, -(-stop // episodes)
            own = source if isinstance(source, Population) else source[low - first : high - first]
            tasks.append(
                _Task(start, stop, episodes, low, own, normalisation, seeds[start:stop], self.on_error == "raise")
            )
        return tasks

    def _play(self, table: Table, tasks: list[_Task]) -> Played:
        """Run the tasks, again after a worker was lost, and return the finished record."""
        tried: dict[int, int] = {}
        try:
            while tasks:
                tasks = self._pass(tasks, table)
                if tasks:
                    tasks = self._after_loss(tasks, table, tried)
        except EpisodeError:
            raise
        except BaseException:
            self._end(kill=True)
            raise
        return table.played()

    def _pass(self, tasks: list[_Task], table: Table) -> list[_Task]:
        """Run tasks until they are done; return those that a lost worker left."""
        if self._live.backend is None:
            self._open()
        backend, queue = self._live.backend, SimpleQueue[Any]()
        left = {task.start: task for task in tasks}
        waiting, faults, coming, spent = 0, list[tuple[int, str, str, bytes]](), iter(tasks), 0.0
        try:
            while True:
                while waiting < _IN_FLIGHT * self.workers and not (faults and table.on_error == "raise"):
                    task = next(coming, None)
                    if task is None:
                        break
                    backend.submit(partial(_work, task), queue.put)
                    waiting += 1
                if not waiting:
                    break
                answer = queue.get().result()
                waiting -= 1
                faults += answer.faults
                spent += answer.seconds
                table.put_all(*answer[:5])
                del left[answer.start]
        except BrokenExecutor:
            return list(left.values())
        self._live.seconds = spent / max(1, sum(task.stop - task.start for task in tasks))
        for unit, kind, what, error in sorted(faults):
            table.fail(unit, Fault(kind, what, unpack_error(error) if error else None), int(table.lengths[unit]))
        return []

    def _after_loss(self, tasks: list[_Task], table: Table, tried: dict[int, int]) -> list[_Task]:
        """Decide what becomes of the episodes that were in progress; return what is to be played (again)."""
        progress = self._in_progress()
        self._end(kill=True)
        hung = {unit: where for unit, (timed_out, where) in progress.items() if timed_out}
        lost: dict[int, Fault] = {}
        for unit in hung or progress:
            tried[unit] = tried.get(unit, 0) + 1
            if hung and tried[unit] > self.retries:
                what = f"took more than {self.episode_timeout:g} seconds and was killed{hung[unit]}"
                lost[unit] = Fault("timeout", what)
            elif not hung and tried[unit] >= _DEATHS:
                lost[unit] = Fault("died", "killed its worker process, twice: a crash in native code, or no memory")
        if not progress:
            tried[-1] = tried.get(-1, 0) + 1
            if tried[-1] >= _DEATHS:
                raise EvaluationError(
                    "worker processes died before they played an episode. Expected the environment to be made there; "
                    "look for a crash in native code or too little memory. Play in this process to see it: workers=1."
                )
        for unit, fault in sorted(lost.items()):
            table.fail(unit, fault)
        return [piece for task in tasks for piece in _without(task, set(lost))]

    def _in_progress(self) -> dict[int, tuple[bool, str]]:
        """Return, by unit, what the workers wrote down last: whether it hung, and where."""
        found = {}
        for path in sorted(Path(self._live.folder).glob("*.txt")):
            header, _, rest = path.read_text("utf-8", "replace").partition("\n")
            if re.fullmatch(r"\d+", header):
                places = re.findall(r'File "(.*)", line (\d+) in (.*)', rest)
                where = f", in {places[0][2]} ({os.path.basename(places[0][0])}:{places[0][1]})" if places else ""
                found[int(header)] = ("Timeout" in rest, where)
        return found

    def _open(self) -> None:
        from joblib import cpu_count

        from ..evaluators._processes import _Processes

        live = self._live
        try:
            payload = dumps((self.env, self.policy, self.rules, self.episode_timeout))
        except Exception as error:
            raise TypeError(
                f"the environment cannot be sent to a worker process: {error}. Expected a gymnasium id, or a function "
                "without open files, locks and the like. Make those inside the function, or play with workers=1."
            ) from error
        live.folder = tempfile.mkdtemp(prefix="esopt-")
        threads = max(1, int(cpu_count()) // self.workers)
        live.backend = _Processes(threads, _receive, (payload, live.folder))
        live.backend.configure(self.workers)

    def _end(self, *, kill: bool) -> None:
        live = self._live
        backend, folder, live.backend, live.folder = live.backend, live.folder, None, ""
        if backend is not None:
            backend.terminate(kill=kill)
            shutil.rmtree(folder, ignore_errors=True)


def _without(task: _Task, lost: set[int]) -> Iterator[_Task]:
    """Yield the task without the units ``lost``, in pieces."""
    units = [unit for unit in range(task.start, task.stop) if unit not in lost]
    while units:
        start = units[0]
        stop = start
        while units and units[0] == stop:
            units.pop(0)
            stop += 1
        seeds = task.seeds[start - task.start : stop - task.start]
        source, first = task.source, task.first
        if not isinstance(source, Population):
            low, high = start // task.episodes, -(-stop // task.episodes)
            source, first = source[low - first : high - first], low
        yield task._replace(start=start, stop=stop, seeds=seeds, source=source, first=first)


@dataclass
class _Here:
    """In a worker process: what it was sent, and the stage once it is open."""

    payload: bytes = b""
    folder: str = ""
    stage: Stage | None = None
    timeout: float | None = None
    file: int = -1


_here = _Here()


def _receive(payload: bytes, folder: str) -> None:
    """In a worker, first of all: keep what was sent."""
    _here.payload, _here.folder = payload, folder


def _stage() -> Stage:
    """In a worker: return the stage; at its first use, make it."""
    if _here.stage is None:
        try:
            env, policy, rules, _here.timeout = loads(_here.payload)
        except Exception as error:
            raise EvaluationError(
                f"the environment cannot be rebuilt in a worker process: {type(error).__name__}: {error}. Expected a "
                "function whose modules can be imported there. Install them, or define it in the main script."
            ) from error
        stage = Stage(env, policy, rules)
        stage.open()
        path = os.path.join(_here.folder, f"{os.getpid()}.txt")
        _here.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        _here.stage = stage
    return _here.stage


def _work(task: _Task) -> _Answer:
    """In a worker: play the episodes of a task."""
    from .._kernels import threads

    begun = time.perf_counter()
    stage, count = _stage(), task.stop - task.start
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
        rows = task.source
        if isinstance(rows, Population):
            # Rows of a recipe count from its first one, those of an array from that of the task.
            first = task.start // task.episodes
            rows = rows.rows(first, -(-task.stop // task.episodes))
        else:
            first = task.first
        if task.normalisation is not None:
            rows = stage.policy.fold(rows, *task.normalisation)
        for at in range(count):
            unit = task.start + at
            episode = _watched(stage, rows[unit // task.episodes - first], task, at)
            answer.lengths[at] = episode.steps
            fault = episode.fault
            if fault is not None:
                packed = b"" if fault.error is None else pack_error(fault.error)
                answer.faults.append((unit, fault.kind, fault.what, packed))
                if task.stop_at_fault:
                    break
                continue
            answer.returns[at] = episode.total
            answer.sums[at], answer.squares[at] = episode.sums, episode.squares
    return answer._replace(seconds=time.perf_counter() - begun)


def _watched(stage: Stage, theta: Array, task: _Task, at: int) -> Episode:
    """Play an episode whose unit is written down, in a process that ends, and says where it was, if that takes long."""
    file, unit = _here.file, task.start + at
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, b"%d\n" % unit)
    if _here.timeout is not None:
        # A thread of C: it needs no interpreter lock, so that native code that hangs is ended too.
        faulthandler.dump_traceback_later(_here.timeout, exit=True, file=file)
    try:
        return stage.play(theta, int(task.seeds[at]), task.quiet)
    finally:
        if _here.timeout is not None:
            faulthandler.cancel_dump_traceback_later()
        os.ftruncate(file, 0)
