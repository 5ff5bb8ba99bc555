"""A pool over a backend that is registered with joblib: Dask, Ray, or one's own."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Any

from ._pool import Futures


class Backend(Futures):
    """Tasks go to joblib's backend ``name``, each by itself and not through ``joblib.Parallel``.

    A task that is given up is abandoned, with its worker; see :class:`Futures`.
    """

    def __init__(self, name: str, workers: int, ahead: int = 1) -> None:
        from joblib import Parallel, parallel_config
        from joblib.parallel import get_active_backend

        with parallel_config(backend=name, n_jobs=workers):
            self._backend, _ = get_active_backend()
        parallel = Parallel(n_jobs=workers, backend=self._backend, batch_size=1, max_nbytes=None)
        self._parallel = parallel.__enter__()
        super().__init__(_Submitter(self._backend), workers, ahead, end=self._leave)
        self.shared = bool(getattr(self._backend, "supports_sharedmem", False))

    def _leave(self, kill: bool) -> None:
        if kill:
            self._backend.abort_everything(ensure_ready=False)
        self._parallel.__exit__(None, None, None)


class _Submitter:
    """A backend of joblib as an executor."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def submit(self, call: Any) -> Future[Any]:
        """Submit a call; its future is done when the backend says so."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._backend.submit(call, partial(self._arrived, future))
        return future

    def _arrived(self, future: Future[Any], out: Any) -> None:
        try:
            future.set_result(self._backend.retrieve_result_callback(out))
        except BaseException as error:
            future.set_exception(error)
