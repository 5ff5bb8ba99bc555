"""Any executor of concurrent.futures: threads, processes, or a cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..objective import Objective
from ._layers import refuse_work_queue
from ._live import Live, Streaming
from ._policy import check_limits, read_policy
from ._pool import Futures, Threads
from ._rows import as_objective, check_count
from ._stream import Settings, Streams
from ._tasks import new_token, pack_objective


@dataclass(frozen=True)
class Executor(Streaming):
    """Evaluate candidates on an executor, with the bits of :class:`esopt.Serial`.

    ``executor.submit`` is all that is used: ``concurrent.futures.ThreadPoolExecutor`` and ``ProcessPoolExecutor``,
    loky's, ``client.get_executor()`` of Dask, ``mpi4py.futures.MPIPoolExecutor``. The executor stays its owner's:
    :meth:`close` cancels what waits and leaves it open.

    Parameters
    ----------
    objective : a function of x, or an :class:`esopt.Objective`, as in :class:`esopt.Serial`. A worker process is sent
        it once.
    executor : the executor. One whose processes are forked is refused: OpenMP does not survive that. Each of
        its processes gets cores / workers threads of linear algebra.
    workers : number of its workers; None to ask the executor, and to take the number of cores if it does not say.
    chunk, on_error, max_failures : as in :class:`esopt.Joblib`.
    timeout : seconds for one evaluation. What takes longer has failed, but an executor cannot end it: its worker is
        not used until it comes back. The clock begins when the candidate is submitted, before a new process has started
        and imported this library: allow some seconds for that. Refused for threads.

    Raises
    ------
    EvaluationError  also if the executor breaks, as those of processes do when a worker dies, or if all workers hang.
        :class:`esopt.Joblib` replaces such workers.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import esopt
    >>> with ThreadPoolExecutor(2) as threads:
    ...     evaluator = esopt.Executor(lambda x: float(x @ x), threads)
    ...     result = esopt.minimize(None, [1.0, 2.0], evaluator=evaluator, evaluations=2000)
    >>> bool(result.value < 1e-9)
    True
    """

    objective: Objective | Callable[..., Any]
    executor: Any = field(repr=False, compare=False)
    workers: int | None = None
    chunk: int | None = None
    on_error: str = "raise"
    max_failures: float | None = None
    timeout: float | None = None
    _live: Live = field(default_factory=Live, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))
        if not callable(getattr(self.executor, "submit", None)):
            raise TypeError(
                f"executor must have submit(function), got {type(self.executor).__name__}. "
                "Pass for example ThreadPoolExecutor(2)."
            )
        check_count("workers", self.workers)
        check_count("chunk", self.chunk)
        read_policy(self.on_error)
        check_limits(self.max_failures, self.timeout, "Executor(ThreadPoolExecutor)" * self._shared)
        _refuse_forks(self.executor)

    def close(self) -> None:
        """Cancel what waits; the executor stays open."""
        self._live.close(kill=False)

    @property
    def _shared(self) -> bool:
        return isinstance(self.executor, ThreadPoolExecutor)

    def _start(self) -> Streams:
        from joblib import cpu_count

        objective, policy, cores = as_objective(self.objective), read_policy(self.on_error), int(cpu_count())
        own = getattr(self.executor, "_max_workers", None)
        workers = self.workers or (own if isinstance(own, int) else cores)
        threads = max(1, cores // workers)
        settings = Settings(objective, self, workers, policy, self.chunk, self.max_failures, self.timeout)
        if self._shared:
            refuse_work_queue(objective)
            return Streams(Threads(workers, threads, self.executor), settings)
        payload = pack_objective(objective, threads)
        pool = Futures(self.executor, workers, int(self.timeout is None))
        return Streams(pool, settings._replace(token=new_token(), payload=payload))


def _refuse_forks(executor: Any) -> None:
    """Refuse an executor whose processes are forks of this one, where that can be seen."""
    context = getattr(executor, "_mp_context", None) or getattr(executor, "_context", None)
    method = getattr(context, "get_start_method", lambda: None)()
    if method == "fork":
        raise ValueError(
            f"Executor() got a {type(executor).__name__} that forks this process; a fork of a process that has used "
            "OpenMP threads hangs. Expected one that starts fresh processes. Use "
            'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")), or Joblib(f, workers=...).'
        )
