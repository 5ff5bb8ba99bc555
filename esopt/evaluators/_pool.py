"""Where tasks are evaluated: what a pool of workers promises, and one over any executor of concurrent.futures."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, Protocol

from ..errors import EvaluationError
from ._tasks import Answer, Call


class Outcome(NamedTuple):
    """What became of a task: an ``answer``, or an ``error`` beside the user's exceptions, or it was lost.

    A lost task was ``begun`` if its worker was at it when it ended; ``words`` is what that noted last.
    """

    answer: Any = None
    error: BaseException | None = None
    begun: bool = False
    words: str = ""


Done = Callable[[Outcome], object]


class Pool(Protocol):
    """Workers. ``shared``: they see the memory of this process; ``own``: they have the objective already.

    ``done`` is called once for each task, in any thread, and must return at once.
    """

    shared: bool
    own: bool

    def room(self) -> int:
        """Return how many more tasks may be submitted now."""
        ...

    def submit(self, call: Call, done: Done) -> int:
        """Evaluate ``call`` on some worker; return a number for the task."""
        ...

    def running(self, number: int) -> float:
        """Return for how many seconds a worker has been at a task, 0.0 if that is not known to have begun."""
        ...

    def kill(self, number: int) -> None:
        """Give a running task up: end its worker, or leave that alone; its outcome is "lost", soon."""
        ...

    def take_lost(self) -> int:
        """Return how many workers ended unasked since the last call, and were at no task."""
        ...

    def rest(self) -> None:
        """There is nothing to do for now."""
        ...

    def close(self, *, kill: bool) -> None:
        """End the workers, whatever they are doing if ``kill``, and wait for it."""
        ...


class _Job(NamedTuple):
    future: Future[Any]
    done: Done
    begun: float


class Futures:
    """A pool over an executor of concurrent.futures: a task that is given up is left to itself, and so is its worker.

    Parameters
    ----------
    executor : anything with ``submit(function) -> future``.
    workers : number of its workers.
    ahead : tasks that may wait for a worker, for each of them.
    shared : whether its workers are threads of this process.
    end : called by :meth:`close`; None to leave the executor to its owner.
    """

    own = False

    def __init__(
        self,
        executor: Any,
        workers: int,
        ahead: int = 1,
        *,
        shared: bool = False,
        end: Callable[[bool], object] | None = None,
    ) -> None:
        self.shared = shared
        self._executor = executor
        self._workers, self._ahead = workers, ahead
        self._end = end
        self._jobs: dict[int, _Job] = {}
        self._hung: set[int] = set()
        self._count = 0
        self._lock = Lock()

    def room(self) -> int:
        """Return how many more tasks may be submitted; workers that hang take none."""
        with self._lock:
            left = self._workers - len(self._hung)
            if left <= 0 and not self._jobs:
                raise EvaluationError(
                    f"all {self._workers} workers hang: {len(self._hung)} evaluations took longer than timeout, and "
                    "this executor cannot end them. Raise timeout, or use Joblib(f, workers=...), which kills them."
                )
            return left * (1 + self._ahead) - len(self._jobs)

    def submit(self, call: Call, done: Done) -> int:
        """Submit ``call`` to the executor."""
        with self._lock:
            number = self._count = self._count + 1
        future: Future[Any] = self._executor.submit(call)
        with self._lock:
            self._jobs[number] = _Job(future, done, time.monotonic())
        future.add_done_callback(partial(self._arrived, number))
        return number

    def running(self, number: int) -> float:
        """Return the seconds since a task was submitted: with a timeout none waits for a worker."""
        job = self._jobs.get(number)
        return 0.0 if job is None or self._ahead else time.monotonic() - job.begun

    def kill(self, number: int) -> None:
        """Give a task up; its worker is not used until it comes back."""
        with self._lock:
            job = self._jobs.pop(number, None)
            if job is None:
                return
            if not job.future.done():
                self._hung.add(number)
        job.future.cancel()
        job.done(Outcome(begun=True))

    def take_lost(self) -> int:
        """Return 0: an executor that loses a worker is broken, or has dealt with it."""
        return 0

    def rest(self) -> None:
        """Do nothing."""

    def close(self, *, kill: bool) -> None:
        """Cancel what waits, and end the executor if it is one's own."""
        with self._lock:
            jobs = list(self._jobs.values())
            self._jobs.clear()
        for job in jobs:
            job.future.cancel()
        if self._end is not None:
            self._end(kill)

    def _arrived(self, number: int, future: Future[Any]) -> None:
        with self._lock:
            self._hung.discard(number)
            job = self._jobs.pop(number, None)
        if job is not None:
            job.done(_outcome(future))


def _outcome(future: Future[Any]) -> Outcome:
    """Return what a future says."""
    try:
        answer = future.result()
    except CancelledError:
        return Outcome()
    except BrokenExecutor as error:
        fault = EvaluationError(
            f"the executor lost a worker and takes no more tasks: {error}\nExpected f to return or to raise; look for "
            "a crash in native code, os._exit or too little memory. Use Joblib(f, workers=...), which replaces workers "
            "that die, or Serial(f) to find the candidate."
        )
        fault.__cause__ = error
        return Outcome(error=fault)
    except BaseException as error:
        return Outcome(error=error)
    return Outcome(answer)


class Threads(Futures):
    """Worker threads of this process, each with ``threads`` of linear algebra while there is work.

    The threads are those of ``executor``, which stays open, or one's own.
    """

    def __init__(self, workers: int, threads: int, executor: ThreadPoolExecutor | None = None) -> None:
        own = executor or ThreadPoolExecutor(workers, thread_name_prefix="esopt")
        end = None if executor else partial(own.shutdown, cancel_futures=True)
        super().__init__(own, workers, shared=True, end=None if end is None else lambda kill: end(wait=not kill))
        self._threads = threads
        self._limits: Any = None
        self._limited = ExitStack()
        self._working = False

    def submit(self, call: Call, done: Done) -> int:
        """Queue ``call``, and limit the threads of BLAS in this process; those of OpenMP are limited in the worker."""
        if self._limits is None:
            from threadpoolctl import ThreadpoolController

            self._limits = ThreadpoolController()
        if not self._working:
            self._limited.enter_context(self._limits.limit(limits=self._threads))
            self._working = True
        return super().submit(partial(_limited, self._limits, self._threads, call), done)  # type: ignore[arg-type]

    def rest(self) -> None:
        """Give the threads back."""
        self._working = False
        self._limited.close()

    def close(self, *, kill: bool) -> None:
        """End the threads once they are done; a thread cannot be killed."""
        super().close(kill=kill)
        self.rest()


def _limited(limits: Any, threads: int, call: Call) -> Answer:
    with limits.limit(limits=threads, user_api="openmp"):
        return call()


class Inline:
    """A pool of one worker, which is this thread: a task is done when it is submitted."""

    shared, own = True, False

    def __init__(self) -> None:
        self._free = True

    def room(self) -> int:
        """Return 1: one task at a time, so that the others can still be given up."""
        return 1

    def submit(self, call: Call, done: Done) -> int:
        """Evaluate ``call``."""
        done(Outcome(call()))
        return 0

    def running(self, number: int) -> float:
        """Return 0.0."""
        return 0.0

    def kill(self, number: int) -> None:
        """Do nothing: nothing is ever running."""

    def take_lost(self) -> int:
        """Return 0."""
        return 0

    def rest(self) -> None:
        """Do nothing."""

    def close(self, *, kill: bool) -> None:
        """Do nothing."""
