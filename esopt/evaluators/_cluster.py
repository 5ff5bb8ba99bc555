"""Workers of a cluster, on other machines perhaps: what Dask and Ray have in common here.

A worker gets the objective once, when it joins, and the recipe of a population once, with its first task. Tasks and
answers are bytes of our own making, which are counted. What a worker was given when it is lost is evaluated again.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, NamedTuple

import numpy as np

from ..errors import EvaluationError
from ..noise import Key
from ..records import Population
from ..samplers.antithetic import Antithetic
from ._pool import Done, Outcome
from ._tasks import Answer, Call, Recipe, Task, dumps, known_objective, loads, pack_error, receive, unpack_error

PATIENCE = 60.0
"""Seconds without any worker after which a generation is given up."""

_STARTS = 3
"""Workers in a row that may be lost before they are ready."""

_RECIPES = 8
"""Recipes that a worker keeps: as many as there are populations at a time."""


@dataclass(eq=False)
class Seat:
    """A worker that takes up to ``places`` tasks at a time.

    ``tasks`` are those it has, in the order in which they were sent; ``hung`` those that were given up and occupy it
    still. ``recipes`` are the numbers of those it knows. ``sent`` and ``received`` are bytes.
    """

    name: str
    places: int = 1
    handle: Any = None
    ready: bool = False
    gone: bool = False
    alone: bool = False
    tasks: dict[int, None] = field(default_factory=dict)
    hung: set[int] = field(default_factory=set)
    recipes: list[int] = field(default_factory=list)
    sent: int = 0
    received: int = 0

    @property
    def free(self) -> int:
        """Places without a task that hangs."""
        return max(0, self.places - len(self.hung))


@dataclass(eq=False)
class _Job:
    call: Call
    done: Done
    seat: Seat | None = None
    begun: float = 0.0

    @property
    def rows(self) -> set[tuple[int, int]]:
        task = self.call.task
        return {(self.call.recipe.number, row) for row in range(task.start, task.stop)}


class Parcel(NamedTuple):
    """What travels to a worker: a task, and the bytes of its recipe unless the worker has it."""

    token: str
    number: int
    recipe: bytes
    task: Task


class Cluster(ABC):
    """A pool of workers with ``workers`` places, each of which has ``ahead`` more tasks waiting for it.

    ``payload`` is the objective under ``token``. A subclass says how workers are found, sent to and ended.
    """

    shared, own = False, True

    def __init__(self, workers: int, ahead: int, token: str, payload: bytes) -> None:
        self.workers, self.ahead = workers, ahead
        self.token, self.payload = token, payload
        self.seats: list[Seat] = []
        self.left: list[Seat] = []
        self.closed = False
        self.lock = RLock()
        self._jobs: dict[int, _Job] = {}
        self._backlog: deque[int] = deque()
        self._suspects: set[tuple[int, int]] = set()
        self._count = self._lost = self._false_starts = 0
        self._recipe: tuple[int, bytes] = (-1, b"")

    @abstractmethod
    def _send(self, seat: Seat, number: int, parcel: bytes) -> None:
        """Send the parcel; :meth:`_answered`, :meth:`_raised` or :meth:`_leave` is called later, in any thread."""

    @abstractmethod
    def _abandon(self, seat: Seat, number: int) -> None:
        """Deal with a worker that has a task which nobody waits for any more."""

    @abstractmethod
    def _fill(self) -> None:
        """Look for workers for the places that are free."""

    @abstractmethod
    def _release(self) -> None:
        """End or release all workers."""

    def room(self) -> int:
        """Return how many more tasks may be submitted now."""
        return self.workers * (1 + self.ahead) - len(self._jobs)

    def submit(self, call: Call, done: Done) -> int:
        """Queue ``call`` for the next worker that has a place."""
        with self.lock:
            number = self._count = self._count + 1
            self._jobs[number] = _Job(call, done)
            self._backlog.append(number)
            self._dispatch()
        return number

    def running(self, number: int) -> float:
        """Return the seconds since a task was sent, 0.0 while it waits for a worker or, perhaps, for another task."""
        with self.lock:
            job = self._jobs.get(number)
            return 0.0 if self.ahead or job is None or job.seat is None else time.monotonic() - job.begun

    def kill(self, number: int) -> None:
        """Give a task up."""
        with self.lock:
            job = self._jobs.pop(number, None)
            if job is None:
                return
            if job.seat is None:
                self._backlog.remove(number)
            else:
                del job.seat.tasks[number]
                job.seat.hung.add(number)
                self._abandon(job.seat, number)
        job.done(Outcome(begun=True))

    def take_lost(self) -> int:
        """Return how many workers ended unasked since the last call, beside those that were at a task."""
        with self.lock:
            lost, self._lost = self._lost, 0
        return lost

    def rest(self) -> None:
        """Forget which rows were in progress when a worker was lost."""
        with self.lock:
            self._suspects.clear()

    def close(self, *, kill: bool) -> None:
        """Forget what is under way, and release the workers."""
        with self.lock:
            self.closed = True
            self._jobs.clear()
            self._backlog.clear()
        self._release()

    def traffic(self) -> list[tuple[int, int]]:
        """Return the bytes that were sent to and received from each worker so far, lost ones included."""
        with self.lock:
            return [(seat.sent, seat.received) for seat in (*self.left, *self.seats)]

    def _dispatch(self) -> None:
        """Send waiting tasks to workers that have a place."""
        while self._backlog:
            job = self._jobs[self._backlog[0]]
            suspect = bool(self._suspects and self._suspects & job.rows)
            free = [seat for seat in self.seats if self._has_room(seat, suspect)]
            if not free:
                return
            seat, number = min(free, key=lambda one: len(one.tasks) / one.free), self._backlog.popleft()
            parcel = dumps(Parcel(self.token, job.call.recipe.number, self._recipe_for(seat, job), job.call.task))
            job.seat, job.begun = seat, time.monotonic()
            seat.tasks[number], seat.alone = None, suspect
            seat.sent += len(parcel)
            self._send(seat, number, parcel)

    def _has_room(self, seat: Seat, suspect: bool) -> bool:
        """Say whether a worker can take one more task; one that may have ended a worker is sent to an idle one."""
        if not seat.ready or (seat.tasks and (seat.alone or (suspect and seat.places > 1))):
            return False
        return len(seat.tasks) < seat.free * (1 + self.ahead)

    def _recipe_for(self, seat: Seat, job: _Job) -> bytes:
        """Return the recipe of a job if the worker does not have it."""
        recipe = job.call.recipe
        if recipe.number in seat.recipes:
            return b""
        seat.recipes = [*seat.recipes[-_RECIPES + 1 :], recipe.number]
        if self._recipe[0] != recipe.number:
            self._recipe = (recipe.number, dumps(recipe))
        return self._recipe[1]

    def _joined(self, seat: Seat) -> None:
        """Go on with a worker that has the objective now."""
        with self.lock:
            seat.ready, self._false_starts = True, 0
            self._dispatch()

    def _answered(self, seat: Seat, number: int, reply: bytes) -> None:
        """Take the reply to a task; an empty one says that the worker had lost the recipe."""
        found = loads(reply) if reply else None
        with self.lock:
            seat.received += len(reply)
            seat.hung.discard(number)
            seat.tasks.pop(number, None)
            job = self._jobs.get(number)
            if job is not None and found is None:
                seat.recipes, job.seat = [], None
                self._backlog.appendleft(number)
            else:
                self._jobs.pop(number, None)
            self._dispatch()
        if job is not None and found is not None:
            job.done(Outcome(found) if isinstance(found, Answer) else Outcome(error=unpack_error(found)))

    def _raised(self, seat: Seat, number: int, error: BaseException) -> None:
        """Take an error that does not come from the user's function."""
        with self.lock:
            seat.hung.discard(number)
            seat.tasks.pop(number, None)
            job = self._jobs.pop(number, None)
        if job is not None:
            job.done(Outcome(error=error))

    def _leave(self, seat: Seat, *, asked: bool, why: object = "") -> None:
        """Take a worker that is lost from the table, give its tasks back, and look for another worker.

        One task in progress is known to have been there when it ended; of several none is, and they are evaluated alone
        from now on.
        """
        with self.lock:
            if seat.gone:
                return
            seat.gone = True
            if seat in self.seats:
                self.seats.remove(seat)
            self.left.append(seat)
            taken = {number: self._jobs.pop(number) for number in seat.tasks if number in self._jobs}
            progress = [] if asked else list(taken)[: seat.places]
            blamed = progress[0] if len(progress) == 1 and (seat.places == 1 or seat.alone) else -1
            if blamed < 0 and not asked:
                self._lost += 1
                self._suspects.update(*(taken[number].rows for number in progress))
            self._false_starts += not asked and not seat.ready
            starts = self._false_starts
        for number, job in taken.items():
            job.done(Outcome(begun=number == blamed))
        if starts >= _STARTS:
            self._fail(
                EvaluationError(
                    f"{starts} workers in a row were lost before they had the objective. {why}\nExpected them to "
                    "import esopt and what f needs. Look at the log of the cluster, or for too little memory."
                )
            )
        elif not self.closed:
            self._fill()

    def _fail(self, error: BaseException) -> None:
        """End all tasks with an error."""
        with self.lock:
            jobs = list(self._jobs.values())
            self._jobs.clear()
            self._backlog.clear()
        for job in jobs:
            job.done(Outcome(error=error))

    @property
    def waiting(self) -> bool:
        """Whether there are tasks."""
        return bool(self._jobs)


_recipes: dict[tuple[str, int], Recipe] = {}
"""In a worker: the latest recipes, by the token of their objective and their number."""


def welcome(token: str, payload: bytes) -> str:
    """In a worker: take the objective, rebuild it, make a candidate, and return the version of this library.

    Making one takes seconds in a fresh process, which would count as time of the first evaluation.
    """
    from .._kernels import threads

    receive(token, payload)
    known_objective(token)
    with threads.limited(1):
        Population(np.zeros(2), 1.0, Antithetic().noise(Key(0), 2, 2)).rows()
    return _version()


def _version() -> str:
    """Return the version of the package, which is always imported before a module of it."""
    return str(sys.modules[__package__.partition(".")[0]].__dict__["__version__"])


def check_version(there: str, name: str) -> None:
    """Raise EvaluationError unless worker ``name`` has the version of this library that this process has."""
    if there != _version():
        raise EvaluationError(
            f"the worker {name} has esopt {there}, and this process has {_version()}. Expected the same version: "
            "candidates are made where they are evaluated. Install it there."
        )


def answer(parcel: bytes) -> bytes:
    """In a worker: evaluate a task and return the answer; nothing if the recipe or the objective is not known here."""
    token, number, packed, task = loads(parcel)
    if packed:
        _recipes[token, number] = loads(packed)
        for old in list(_recipes)[: -4 * _RECIPES]:
            _recipes.pop(old, None)
    recipe = _recipes.get((token, number))
    if recipe is None:
        return b""
    try:
        found = Call(token, b"", None, recipe, task)()
    except BaseException as error:
        return dumps(pack_error(error))
    return dumps(found) if found.table is not None else b""
