"""Workers of Dask: tasks of our own, each sent to a worker of our choice.

joblib's backend for Dask finds the client, and no more: it evaluates the tasks of a lost worker again without a word,
so that deaths cannot be counted; a future that fails leaves its callback uncalled; and a task that hangs keeps its
place. The scheduler's own events say at once which worker was lost, and what it was at.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from ..errors import EvaluationError
from ._cluster import PATIENCE, Cluster, Seat, answer, check_version, welcome

_LOOK_SECONDS = 1.0
"""How often the list of workers is compared with that of the scheduler, while there is work."""

_pools: WeakKeyDictionary[Any, WeakSet[DaskPool]] = WeakKeyDictionary()
"""Pools by client: a client tells one listener of an event."""


def find_client() -> Any:
    """Return the client of Dask that joblib's backend "dask" uses."""
    from joblib import parallel_config
    from joblib.parallel import get_active_backend

    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ImportError('Joblib(backend="dask") needs Dask. Install it with: pip install "pyesopt[dask]"') from error
    active, _ = get_active_backend()
    if hasattr(active, "client"):
        return active.client
    try:
        with parallel_config(backend="dask"):
            return get_active_backend()[0].client
    except ValueError as error:
        raise ValueError(
            'Joblib(backend="dask") found no client of Dask. Expected one before the first evaluation. '
            'Call client = dask.distributed.Client() for this machine, or Client("scheduler:8786") for a cluster.'
        ) from error


class DaskPool(Cluster):
    """A pool of ``workers`` threads of the workers of a Dask cluster.

    A task that hangs is left to itself, and its thread is not used until it comes back. If all threads that there are
    hang, their workers are restarted by their nannies.
    """

    def __init__(self, workers: int, ahead: int, token: str, payload: bytes) -> None:
        super().__init__(workers, ahead, token, payload)
        self.client = find_client()
        self._futures: dict[int, Any] = {}
        self._alone_since = time.monotonic()
        self._looking = False
        self._restarting: set[str] = set()
        _pools.setdefault(self.client, WeakSet()).add(self)
        self._seat(self.client.nthreads())

    def submit(self, call: Any, done: Any) -> int:
        """Queue ``call``; while there is work, look after the list of workers."""
        with self.lock:
            number = super().submit(call, done)
            if not self._looking:
                self._looking, self._alone_since = True, time.monotonic()
                self._soon(self._look)
        return number

    def _soon(self, call: Any, *arguments: Any) -> None:
        """Run a coroutine, or a function, in the client's event loop."""
        self.client.loop.add_callback(call, *arguments)

    def _fill(self) -> None:
        self._soon(self._refresh)

    async def _refresh(self) -> None:
        """Compare the list of workers with the scheduler's."""
        try:
            there = await self.client.nthreads()
        except Exception as error:
            if not self.closed:
                self._fail(EvaluationError(f"the Dask scheduler does not answer: {error}. Look whether it runs."))
            return
        if self.closed:
            return
        for seat in [seat for seat in self.seats if seat.name not in there]:
            self._leave(seat, asked=False)  # its last word was missed
        self._seat(there)

    def _seat(self, there: dict[str, int]) -> None:
        """Take workers of ``there``, threads by address, until there are places enough."""
        with self.lock:
            known = {seat.name for seat in self.seats}
            fresh, places = [], sum(seat.free for seat in self.seats)
            for address, threads in there.items():
                if address not in known and places < self.workers:
                    fresh.append(Seat(address, min(threads, self.workers - places)))
                    places += fresh[-1].places
            self.seats += fresh
            if places:
                self._alone_since = time.monotonic()
            hanging = set() if places else {seat.name for seat in self.seats} - self._restarting
            self._restarting |= hanging
        for seat in fresh:
            self._soon(self._welcome, seat)
        if hanging:
            self._soon(self._restart, sorted(hanging))

    async def _look(self) -> None:
        """While there is work: see who joined and who went, and do not wait for ever."""
        while True:
            with self.lock:
                if self.closed or not self.waiting:
                    self._looking = False
                    return
            await asyncio.sleep(_LOOK_SECONDS)
            await self._refresh()
            if time.monotonic() - self._alone_since > PATIENCE:
                self._fail(
                    EvaluationError(
                        f"the Dask cluster has had no worker that is free for {PATIENCE:g} seconds. Expected one that "
                        "does not hang in f. Start workers, or restart them: client.restart()."
                    )
                )

    async def _restart(self, addresses: list[str]) -> None:
        try:
            await self.client.restart_workers(addresses, timeout=PATIENCE, raise_for_error=False)
        except KeyError:
            pass  # one of them has gone meanwhile; if that leaves others, they are seen to in a moment
        except Exception as error:
            self._fail(
                EvaluationError(
                    f"all workers of Dask hang in f, and could not be restarted: {error}\nExpected workers with a "
                    "nanny, as LocalCluster and `dask worker` start them. Restart them, or raise timeout."
                )
            )
        finally:
            self._restarting.difference_update(addresses)

    async def _welcome(self, seat: Seat) -> None:
        """Send the objective to a worker that joined."""
        self.client.subscribe_topic(seat.name, partial(_tell_pools, self.client, seat.name))
        future = self._task(seat, welcome, self.token, self.payload)
        seat.sent += len(self.payload)
        try:
            check_version(await future, seat.name)
        except asyncio.CancelledError:
            if not self.closed and not self.client.asynchronous:
                raise
        except EvaluationError as error:
            self._fail(error)
        except Exception as error:
            if not self.closed and not seat.gone:
                self._fail(
                    EvaluationError(
                        f"the Dask worker {seat.name} cannot begin: {type(error).__name__}: {error}. Expected it to "
                        "import esopt and what f needs. Install them there."
                    )
                )
        else:
            self._joined(seat)

    def _task(self, seat: Seat, function: Any, *arguments: Any) -> Any:
        return self.client.submit(function, *arguments, workers=[seat.name], pure=False)

    def _send(self, seat: Seat, number: int, parcel: bytes) -> None:
        self._futures[number] = self._task(seat, answer, parcel)
        self._soon(self._collect, seat, number)

    async def _collect(self, seat: Seat, number: int) -> None:
        """Wait for the answer to a task."""
        future = self._futures[number]
        try:
            reply = await future
        except Exception as error:
            if seat.gone or self.closed:
                return
            if future.status == "error":
                self._raised(seat, number, error)
            else:
                self._raised(seat, number, EvaluationError(f"Dask gave a task up: {error}. Look at the scheduler."))
        else:
            self._answered(seat, number, reply)
        finally:
            self._futures.pop(number, None)

    def _abandon(self, seat: Seat, number: int) -> None:
        self._fill()

    def lose(self, address: str, *, asked: bool) -> None:
        """Take note that a worker is gone; drop its futures, which the scheduler would evaluate again."""
        for seat in [seat for seat in self.seats if seat.name == address]:
            dropped = [future for number in (*seat.tasks, *seat.hung) if (future := self._futures.pop(number, None))]
            self._leave(seat, asked=asked or address in self._restarting)
            if dropped:
                self._soon(self._cancel, dropped)

    async def _cancel(self, futures: list[Any]) -> None:
        await self.client.cancel(futures)

    def _release(self) -> None:
        _pools[self.client].discard(self)
        futures, self._futures = list(self._futures.values()), {}
        names = {seat.name for seat in self.seats} - {seat.name for pool in _pools[self.client] for seat in pool.seats}
        self.left, self.seats = [*self.left, *self.seats], []
        if self.client.status == "running":
            for name in names:
                self.client.unsubscribe_topic(name)
            self.client.cancel(futures)


def _tell_pools(client: Any, address: str, event: tuple[float, Any]) -> None:
    """Tell all pools of a client that a worker is gone; one that was asked to go was not lost."""
    message = event[1]
    if isinstance(message, dict) and message.get("action") == "remove-worker":
        for pool in list(_pools.get(client, ())):
            pool.lose(address, asked=bool(message.get("expected")))
