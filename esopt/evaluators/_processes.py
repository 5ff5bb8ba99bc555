"""Worker processes of one's own, behind joblib's interface.

joblib's own "loky" backend shares a single pool among all users of joblib in a process: whoever asks for other
settings replaces it under the others. Here loky's workers belong to one evaluator.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor
from joblib.parallel import ParallelBackendBase

from ._workers import THREADS


class _Processes(ParallelBackendBase):  # type: ignore[misc, unused-ignore]
    """Fresh processes with ``threads`` threads each, which run ``initializer(*arguments)`` before anything else.

    They ignore SIGINT: Ctrl-C reaches every process of a terminal, and this one ends its workers itself.
    """

    supports_retrieve_callback = True

    def __init__(
        self, threads: int, initializer: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(nesting_level=0)
        self._settings = {
            "env": dict.fromkeys(THREADS, str(threads)),
            "initializer": _begin,
            "initargs": (initializer, arguments),
        }
        self._executor: Any = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of workers."""
        return n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Prepare the pool; its processes start with the first task."""
        self.parallel = parallel
        self._executor = ProcessPoolExecutor(n_jobs, **self._settings)
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Any:
        """Queue a task; ``callback`` gets its future."""
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the result of a future, or raise its exception."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill the processes with what they are doing; the evaluator is closed after that."""
        self.terminate(kill=True)

    def terminate(self, kill: bool = False) -> None:
        """End the processes and wait for it."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=kill)


def _begin(initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    """In a worker: what is done first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer is not None:
        initializer(*arguments)
