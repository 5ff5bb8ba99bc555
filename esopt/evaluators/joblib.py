"""Worker processes or threads, for any Python function; and the clusters that joblib knows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..objective import Objective
from ..protocols import State
from ..records import Evals, Population
from ._layers import refuse_work_queue
from ._live import Live, Streaming
from ._policy import check_limits, read_policy
from ._pool import Inline, Pool, Threads
from ._rows import as_objective, check_count
from ._stream import Settings, Streams
from ._tasks import new_token, objective_work, pack_objective
from .serial import Serial


@dataclass(frozen=True)
class Joblib(Streaming):
    """Evaluate candidates in ``workers`` processes or threads, with the bits of :class:`esopt.Serial`.

    A task is the recipe of the population and a range of rows: candidates are made where they are evaluated. The
    function is sent to each worker once, when it starts. Workers stay warm from one generation to the next, until
    :meth:`close`.

    Parameters
    ----------
    objective : a function of x, or an :class:`esopt.Objective`, as in :class:`esopt.Serial`.
    workers : number of workers. One worker is this process itself, for the backends "loky" and "threading".
    backend : "loky" for processes (not on Windows), "threading" for functions that release the interpreter lock, "dask"
        or "ray" for the workers of a cluster to which this process is connected, or a backend that is registered with
        joblib. "multiprocessing" is refused: it forks, which OpenMP does not survive.
    threads_per_worker : threads of linear algebra and OpenMP in each worker; None for cores / workers, on a cluster
        for 1. Kernels of this library, and the user's numba functions with ``parallel=True``, use one thread in a
        worker.
    chunk : rows per task, rounded up to whole mirrored pairs; None for about four tasks per worker.
    on_error, max_failures : as in :class:`esopt.Serial`.
    timeout : seconds for one evaluation, in processes: its worker is killed then, another takes its place, and the
        candidate has failed ("timeout"), or is evaluated again under "retry(k)". Every task is a single row then, and
        its time is that of the functions of the objective. None for any time.

    Notes
    -----
    If a worker process ends, its rows are evaluated again elsewhere and nothing else is lost; the bits are the same,
    and ``failures`` counts it as "killed". A candidate that was alone in its process and killed it twice (under
    "retry(k)": k + 1 times) has failed, as "died". Processes end by themselves when this one does, however it ends; one
    in native code that keeps the interpreter lock, when that returns. Each leads a process group, and what f has
    started there ends with it. A script needs no guard of ``__name__``.

    On Dask and Ray, tasks of our own are sent to workers of our choice, and not through joblib's backends: that of Dask
    evaluates the tasks of lost workers again without counting them, that of Ray fails as a whole. Ray ends a task that
    hangs with its worker; on Dask it is left to itself, and its worker unused until it returns, or restarted if all of
    them hang.

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
    on_error: str = "raise"
    max_failures: float | None = None
    timeout: float | None = None
    _live: Live = field(default_factory=Live, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))
        if self.workers is None:
            raise ValueError("workers must be a positive integer, got None. Pass for example workers=2.")
        check_count("workers", self.workers)
        check_count("threads_per_worker", self.threads_per_worker)
        check_count("chunk", self.chunk)
        read_policy(self.on_error)
        check_limits(self.max_failures, self.timeout, 'Joblib(backend="threading")' * (self.backend == "threading"))
        if self.backend == "multiprocessing":
            raise ValueError(
                'Joblib() got backend="multiprocessing", which forks this process; a fork of a process that has '
                "used OpenMP threads hangs. Expected a backend that starts fresh processes, or threads. "
                'Use backend="loky" or backend="threading".'
            )
        if self.backend == "loky" and not self._here and sys.platform == "win32":
            raise ValueError(
                'Joblib() got backend="loky" on Windows, where its worker processes do not run: they are handed a '
                'socket as only POSIX systems can. Expected threads or an executor. Use backend="threading", or '
                "Executor(f, concurrent.futures.ProcessPoolExecutor(2)) below the guard of __name__."
            )

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and the derivatives that are needed."""
        objective = as_objective(self.objective)
        if self._here:
            return Serial(objective, self.on_error, self.max_failures).evaluate(population, state)
        return super().evaluate(population, state)

    def close(self) -> None:
        """Stop the workers, in the middle of what was given up; the next evaluation would start new ones."""
        self._live.close(kill=self._live.busy)

    @property
    def _here(self) -> bool:
        """Whether the one worker is this process."""
        return self.workers == 1 and self.timeout is None and self.backend in ("loky", "threading")

    @property
    def _threads(self) -> int:
        """Threads of linear algebra in each worker; the processors of other machines are not known."""
        from joblib import cpu_count

        if self.backend in ("dask", "ray"):
            return self.threads_per_worker or 1
        return self.threads_per_worker or max(1, int(cpu_count()) // self.workers)

    def _start(self) -> Streams:
        """Return new workers."""
        objective, policy, token = as_objective(self.objective), read_policy(self.on_error), new_token()
        settings = Settings(objective, self, self.workers, policy, self.chunk, self.max_failures, self.timeout)
        if self._here:
            return Streams(Inline(), settings)
        if self.backend == "threading":
            refuse_work_queue(objective)
            return Streams(Threads(self.workers, self._threads), settings)
        payload = pack_objective(objective, self._threads)
        return Streams(self._pool(token, payload), settings._replace(token=token, payload=payload))

    def _pool(self, token: str, payload: bytes) -> Pool:
        """Return processes of one's own, or those of a backend of joblib."""
        ahead = int(self.timeout is None)
        if self.backend == "loky":
            from ._worker import Setup
            from ._workers import Processes

            return Processes(self.workers, self._threads, Setup(objective_work, (token, payload)), ahead=ahead)
        if self.backend == "dask":
            from ._dask import DaskPool

            return DaskPool(self.workers, ahead, token, payload)
        if self.backend == "ray":
            from ._ray import RayPool

            return RayPool(self.workers, ahead, token, payload)
        from ._backends import Backend

        return Backend(self.backend, self.workers, ahead)
