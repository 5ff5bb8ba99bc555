"""Worker processes or threads through joblib, for any Python function."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, NamedTuple

from ..errors import EvaluationError
from ..noise import Array, Philox
from ..objective import ALONG_PROBES, Objective
from ..protocols import State
from ..records import Evals, Population
from ._rows import (
    OnError,
    Seeds,
    _Fault,
    _Table,
    as_objective,
    call_rows,
    check_count,
    check_policy,
    chunks,
    probe_rows,
    stop_at,
    wanted_derivatives,
)
from .serial import Serial

_TASKS_PER_WORKER = 4
_KEPT = 4

_objectives: dict[str, Objective | bytes] = {}
"""In a worker process: the latest objectives that were sent to it, by token; bytes until they are needed."""


class _Task(NamedTuple):
    """Rows start ... stop of a recipe; or explicit rows, candidates from ``start`` on, with their ``probes``."""

    start: int
    stop: int
    source: Population | Array
    seeds: Seeds
    probes: Array | None
    dim: int
    wanted: tuple[str, ...]
    on_error: OnError


class _Answer(NamedTuple):
    """What a worker found; ``table`` is None if it does not have the objective."""

    task: _Task | None
    start: int
    table: _Table | None
    fault: _Fault | None
    error: bytes = b""


@dataclass
class _Live:
    """What belongs to this process and not to a checkpoint: the open joblib context and what its workers were sent."""

    parallel: Any = None
    shared: bool = False
    token: str = ""
    payload: bytes = b""
    limits: Any = None


@dataclass(frozen=True)
class Joblib:
    """Evaluate candidates in ``workers`` processes or threads, with the bits of :class:`esopt.Serial`.

    A task is the recipe of the population and a range of rows: candidates are made where they are evaluated. The
    function is sent to each worker once, when it starts. Workers stay warm from one generation to the next, until
    :meth:`close`.

    Parameters
    ----------
    objective : a function of x, or an :class:`esopt.Objective`, as in :class:`esopt.Serial`.
    workers : number of workers. One worker is this process itself, for the backends "loky" and "threading".
    backend : "loky" for processes, "threading" for functions that release the interpreter lock, or a backend that is
        registered with joblib, such as "dask" or "ray". "multiprocessing" is refused: it forks, which OpenMP does not
        survive.
    threads_per_worker : threads of linear algebra and OpenMP in each worker; None for cores / workers. Kernels of this
        library, and the user's numba functions with ``parallel=True``, use one thread in a worker.
    chunk : rows per task, rounded up to whole mirrored pairs; None for about four tasks per worker.
    on_error : as in :class:`esopt.Serial`.

    Raises
    ------
    EvaluationError  also if a worker dies.

    Examples
    --------
    >>> import numpy as np
    >>> from esopt import Gaussian, Joblib, Key, Population
    >>> population = Population(np.zeros(2), 1.0, Gaussian().noise(Key(seed=1), n=8, dim=2))
    >>> evaluator = Joblib(lambda x: x.sum(), workers=2, backend="threading")
    >>> evals, state = evaluator.evaluate(population, evaluator.init())
    >>> evaluator.close()
    >>> bool((evals.values == np.asarray(population).sum(axis=1)).all())
    True
    """

    objective: Objective | Callable[..., Any]
    workers: int
    backend: str = "loky"
    threads_per_worker: int | None = None
    chunk: int | None = None
    on_error: OnError = "raise"
    _live: _Live = field(default_factory=_Live, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))
        if self.workers is None:
            raise ValueError("workers must be a positive integer, got None. Pass for example workers=2.")
        check_count("workers", self.workers)
        check_count("threads_per_worker", self.threads_per_worker)
        check_count("chunk", self.chunk)
        check_policy(self.on_error)
        if self.backend == "multiprocessing":
            raise ValueError(
                'Joblib() got backend="multiprocessing", which forks this process; a fork of a process that has '
                "used OpenMP threads hangs. Expected a backend that starts fresh processes, or threads. "
                'Use backend="loky" or backend="threading".'
            )

    def init(self) -> State:
        """Return the empty state; workers start with the first evaluation."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and the derivatives that are needed."""
        objective = as_objective(self.objective)
        wanted = wanted_derivatives(population, objective, self)
        if self.workers == 1 and self.backend in ("loky", "threading"):
            return Serial(objective, self.on_error).evaluate(population, state)
        table = _Table.empty(len(population), population.n, population.dim, wanted)
        try:
            faults = self._evaluate(population, objective, table)
        except BrokenExecutor as error:
            self.close()
            raise EvaluationError(
                f"a worker process died in generation {population.noise.key.generation}: {error}\n"
                "Expected f to return or to raise; look for a crash in native code, os._exit or too little memory. "
                "Use Serial() to find the candidate, or fewer workers."
            ) from error
        except BaseException:
            self.close()
            raise
        if faults:
            fault = min(faults)
            raise stop_at(fault, objective, population) from (fault.error if fault.raised else None)
        return table.evals(population.dim), state

    def close(self) -> None:
        """Stop the workers; the next evaluation would start new ones."""
        live, parallel = self._live, self._live.parallel
        live.parallel, live.payload, live.token, live.limits = None, b"", "", None
        if parallel is not None:
            parallel.__exit__(None, None, None)

    def _evaluate(self, population: Population, objective: Objective, table: _Table) -> list[_Fault]:
        """Fill ``table`` in the order in which results arrive; return what stopped the tasks, if anything did."""
        live = self._live
        if live.parallel is None:
            self._open(objective)
        faults: list[_Fault] = []
        missing = list(self._pass(self._tasks(population, objective, table.wanted), objective, table, faults, 0))
        while missing:
            # A worker that joined later, or that another user of joblib started, does not have the function yet.
            missing = list(self._pass(iter(missing), objective, table, faults, self.workers))
        return faults

    def _pass(
        self, tasks: Iterator[_Task], objective: Objective, table: _Table, faults: list[_Fault], payloads: int
    ) -> Iterator[_Task]:
        """Run tasks, the first few of them with the objective; yield those whose worker did not have it."""
        stopped = [] if payloads else faults
        broken: TypeError | None = None
        with self._limited():
            for answer in self._live.parallel(self._calls(tasks, objective, stopped, payloads)):
                if answer.task is not None:
                    yield answer.task
                elif answer.table is not None and broken is None:
                    try:
                        table.put(answer.start, answer.table)
                    except TypeError as mixed:
                        broken = mixed  # raised once all answers are in: joblib warns of those that nobody fetched
                if answer.fault is not None:
                    error = _unpack_error(answer.error) if answer.error else answer.fault.error
                    faults.append(answer.fault._replace(error=error))
        if broken is not None:
            raise broken

    def _tasks(self, population: Population, objective: Objective, wanted: tuple[str, ...]) -> Iterator[_Task]:
        """Cut the population into tasks, in the order of its rows; probes travel if they are of use."""
        if not any(need in wanted for need in ALONG_PROBES):
            population = replace(population, probes=None)
        n, total, pair = population.n, len(population), 2 if population.noise.mirrored else 1
        seeds = population.seeds if objective.seeded else None
        size = self.chunk or -(-total // (_TASKS_PER_WORKER * self.workers))
        size = -(-size // pair) * pair
        short = isinstance(population.noise, Philox) and isinstance(population.probes, (Philox, NoneType))
        recipe = replace(population, extra=None, tags=()) if short else None
        for first, last, source in ((0, n, recipe), (n, total, None)):
            for start in range(first, last, size):
                stop = min(start + size, last)
                own = None if seeds is None else seeds[start:stop]
                rows = population.rows(start, stop) if source is None else source
                probes = probe_rows(population, start, stop) if source is None else None
                yield _Task(start, stop, rows, own, probes, population.dim, wanted, self.on_error)

    def _calls(
        self, tasks: Iterator[_Task], objective: Objective, stopped: list[_Fault], payloads: int
    ) -> Iterator[Any]:
        """Wrap tasks for joblib, which asks for the next one when a worker is free; after a fault there are no more."""
        from joblib import delayed

        live = self._live
        call = delayed(_work)
        for number, task in enumerate(tasks):
            if stopped:
                return
            if live.shared:
                yield call(task, objective, "", b"", self._limited)
            else:
                yield call(task, None, live.token, live.payload if number < payloads else b"")

    def _open(self, objective: Objective) -> None:
        """Enter a joblib context that stays open, and prepare what its workers will need."""
        from joblib import Parallel, parallel_config
        from joblib.parallel import get_active_backend

        live, backend = self._live, None
        if self.backend != "loky":
            with parallel_config(backend=self.backend, n_jobs=self.workers):
                backend, _ = get_active_backend()
        live.shared = bool(getattr(backend, "supports_sharedmem", False))
        if not live.shared:
            live.token, live.payload = os.urandom(16).hex(), _pack_objective(objective, self._threads)
        if backend is None:
            from ._processes import _Processes

            backend = _Processes(self._threads, _receive, (live.token, live.payload))
        parallel = Parallel(
            n_jobs=self.workers,
            backend=backend,
            return_as="generator_unordered" if backend.supports_return_generator else "list",
            batch_size=1,
            max_nbytes=None,
        )
        parallel.__enter__()
        live.parallel = parallel

    @property
    def _threads(self) -> int:
        """Threads of linear algebra in each worker."""
        from joblib import cpu_count

        return self.threads_per_worker or max(1, int(cpu_count()) // self.workers)

    def _limited(self, api: str | None = None) -> AbstractContextManager[Any]:
        """Limit the threads of linear algebra in this process (OpenMP: of this thread) while it has worker threads."""
        live = self._live
        if not live.shared:
            return nullcontext()
        if live.limits is None:
            from threadpoolctl import ThreadpoolController

            live.limits = ThreadpoolController()
        limit: AbstractContextManager[Any] = live.limits.limit(limits=self._threads, user_api=api)
        return limit


class _WorkerTraceback(Exception):
    """The traceback of an exception in a worker process, as text; the cause of the exception as it arrives here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _dumps(value: object) -> bytes:
    import cloudpickle  # type: ignore[import-untyped, unused-ignore]

    return bytes(cloudpickle.dumps(value))


def _loads(payload: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(payload)


def _pack_objective(objective: Objective, threads: int) -> bytes:
    """Return the objective as bytes that a fresh process understands, even if it is a lambda of the main script."""
    try:
        return _dumps((objective, threads))
    except Exception as error:
        raise TypeError(
            f"the objective cannot be sent to a worker process: {error}. Expected a function without open files, "
            'locks, generators and the like. Make those inside the function, or use backend="threading".'
        ) from error


def _receive(token: str, payload: bytes) -> None:
    """In a worker: keep the bytes of an objective; of several, the latest."""
    _objectives[token] = payload
    for old in list(_objectives)[:-_KEPT]:
        del _objectives[old]


def _known_objective(token: str) -> Objective | None:
    """In a worker: return the objective of ``token`` if it was sent; its first use rebuilds it and limits threads."""
    from threadpoolctl import threadpool_limits

    known = _objectives.get(token)
    if isinstance(known, bytes):
        try:
            known, threads = _loads(known)
        except Exception as error:
            raise EvaluationError(
                f"the objective cannot be rebuilt in a worker process: {type(error).__name__}: {error}. Expected a "
                "function whose modules can be imported there. Install them, or define it in the main script."
            ) from error
        _objectives[token] = known
        threadpool_limits(threads)
    return known


def _work(
    task: _Task,
    objective: Objective | None,
    token: str,
    payload: bytes,
    limited: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> _Answer:
    """In a worker: evaluate one task with serial kernels."""
    from .._kernels import threads

    if payload and token not in _objectives:
        _receive(token, payload)
    objective = objective or _known_objective(token)
    if objective is None:
        return _Answer(task, task.start, None, None)
    table = _table(task)
    fault = None
    with threads.limited(1), limited("openmp"):
        for first, rows, probes in _pieces(task):
            at = first - task.start
            seeds = None if task.seeds is None else task.seeds[at : at + len(rows)]
            fault = call_rows(objective, rows, first, seeds, probes, task.on_error, table, at)
            if fault is not None:
                break
    if fault is None or not token:
        return _Answer(None, task.start, table, fault)
    return _Answer(None, task.start, table, fault._replace(error=RuntimeError()), _pack_error(fault.error))


def _table(task: _Task) -> _Table:
    """Return an empty table for the task's rows; a task has noise rows or explicit rows, never both."""
    count, recipe = task.stop - task.start, isinstance(task.source, Population)
    probed = count if recipe else 0 if task.probes is None else len(task.probes)
    return _Table.empty(count, probed, task.dim, task.wanted)


def _pieces(task: _Task) -> Iterator[tuple[int, Array, Array | None]]:
    """Yield (first row, rows, probes)."""
    source = task.source
    if isinstance(source, Population):
        for first, rows in chunks(source, task.start, task.stop):
            yield first, rows, probe_rows(source, first, first + len(rows)) if task.wanted else None
    else:
        yield task.start, source, task.probes


def _pack_error(error: Exception) -> bytes:
    """Return an exception and its traceback as bytes; one that cannot be sent becomes a RuntimeError of its text."""
    text = "".join(traceback.format_exception(error))
    try:
        payload = _dumps((error, text))
        _loads(payload)
    except Exception:
        payload = _dumps((RuntimeError(f"{type(error).__name__}: {error}"), text))
    return payload


def _unpack_error(payload: bytes) -> Exception:
    error, text = _loads(payload)
    found: Exception = error
    found.__cause__ = _WorkerTraceback(text)
    return found
