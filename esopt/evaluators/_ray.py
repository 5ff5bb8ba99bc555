"""Workers of Ray: one actor for each, which holds the objective.

joblib's backend for Ray is a multiprocessing pool: when a worker dies, the call ends with an error for all of its
tasks, answers do not come as they are found, and nothing that hangs can be ended. So actors of our own stand behind
``backend="ray"``. Ray neither restarts them nor tries a task again: that is decided, and counted, here.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Any

from ..errors import EvaluationError
from ._cluster import Cluster, Seat, answer, check_version, welcome


class _Worker:
    """In an actor: what Ray calls."""

    def welcome(self, token: str, payload: bytes) -> str:
        return welcome(token, payload)

    def answer(self, parcel: bytes) -> bytes:
        return answer(parcel)


class RayPool(Cluster):
    """A pool of ``workers`` actors on the Ray that this process is connected to.

    Each asks for one processor; if the cluster has fewer than ``workers``, they share what there is. A task that hangs
    is ended with its actor, and another actor takes the place.
    """

    def __init__(self, workers: int, ahead: int, token: str, payload: bytes) -> None:
        super().__init__(workers, ahead, token, payload)
        try:
            import ray
        except ImportError as error:
            raise ImportError('Joblib(backend="ray") needs Ray. Install it with: pip install "pyesopt[ray]"') from error
        if not ray.is_initialized():
            raise ValueError(
                'Joblib(backend="ray") found no connection to Ray. Expected one before the first evaluation. '
                'Call ray.init() for this machine, or ray.init(address="auto") for a cluster.'
            )
        self._ray = ray
        processors = 1 if workers <= ray.cluster_resources().get("CPU", 0.0) else 0
        self._actor = ray.remote(_Worker).options(
            num_cpus=processors, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._payload = ray.put(payload)
        self._made = 0
        self._fill()

    def _fill(self) -> None:
        with self.lock:
            fresh = [self._add() for _ in range(self.workers - len(self.seats))]
        for seat in fresh:
            seat.sent += len(self.payload)
            _then(seat.handle.welcome.remote(self.token, self._payload), partial(self._welcomed, seat))

    def _add(self) -> Seat:
        self._made += 1
        seat = Seat(f"actor {self._made}", handle=self._actor.remote())
        self.seats.append(seat)
        return seat

    def _welcomed(self, seat: Seat, future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            try:
                check_version(future.result(), seat.name)
            except EvaluationError as wrong:
                self._fail(wrong)
            else:
                self._joined(seat)
        elif isinstance(error, self._ray.exceptions.RayActorError):
            self._leave(seat, asked=self.closed, why=error)
        else:
            self._fail(error if isinstance(error, EvaluationError) else EvaluationError(f"{seat.name}: {error}"))

    def _send(self, seat: Seat, number: int, parcel: bytes) -> None:
        _then(seat.handle.answer.remote(parcel), partial(self._arrived, seat, number))

    def _arrived(self, seat: Seat, number: int, future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            self._answered(seat, number, future.result())
        elif isinstance(error, self._ray.exceptions.RayActorError):
            self._leave(seat, asked=self.closed, why=error)
        else:
            self._raised(seat, number, error)

    def _abandon(self, seat: Seat, number: int) -> None:
        self._ray.kill(seat.handle)
        self._leave(seat, asked=True)

    def _release(self) -> None:
        with self.lock:
            seats, self.seats = self.seats, []
            self.left += seats
        for seat in seats:
            seat.gone = True
            if self._ray.is_initialized():
                self._ray.kill(seat.handle)
            seat.handle = None
        self._payload = None


def _then(reference: Any, call: Any) -> None:
    """Call ``call`` with the future of a reference, in a thread of Ray's, once it is done."""
    reference.future().add_done_callback(call)
