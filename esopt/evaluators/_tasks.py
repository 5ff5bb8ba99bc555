"""A piece of a generation as it travels to a worker, and what comes back."""

from __future__ import annotations

import itertools
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from ..noise import Array, Philox
from ..objective import ALONG_PROBES, Objective
from ..records import Population
from ._policy import Policy
from ._rows import Seeds, _Fault, _Table, call_rows, chunks, name_error, probe_rows

_KEPT = 4
_numbers = itertools.count()

_objectives: dict[str, Objective | bytes] = {}
"""In a worker process: the latest objectives that were sent to it, by token; bytes until they are needed."""


class Recipe(NamedTuple):
    """What the tasks of one population share: the population without its explicit rows, or None if rows travel.

    ``number`` tells recipes of one process apart.
    """

    number: int
    population: Population | None
    dim: int
    wanted: tuple[str, ...]
    policy: Policy


class Task(NamedTuple):
    """Candidates start ... stop, all noise rows or all explicit; with their ``rows`` and ``probes`` if these travel."""

    start: int
    stop: int
    rows: Array | None
    probes: Array | None
    seeds: Seeds

    def one(self, row: int) -> Task:
        """Return the task of a single ``row``."""
        at = row - self.start
        rows, probes, seeds = self.rows, self.probes, self.seeds
        return Task(
            row,
            row + 1,
            None if rows is None else rows[at : at + 1],
            None if probes is None else probes[at : at + 1],
            None if seeds is None else seeds[at : at + 1],
        )


class Answer(NamedTuple):
    """What a worker found; ``table`` is None if it does not have the objective."""

    table: _Table | None
    fault: _Fault | None = None
    error: bytes = b""


class Call(NamedTuple):
    """A task and all that is needed for it; calling it, wherever that is, evaluates it.

    The objective is given where memory is shared; else it is the one of ``token`` in the worker process, which gets it
    by ``payload`` if it may not have it yet.
    """

    token: str
    payload: bytes
    objective: Objective | None
    recipe: Recipe
    task: Task

    def __call__(self) -> Answer:
        """Evaluate the task with serial kernels."""
        if self.payload and self.token not in _objectives:
            receive(self.token, self.payload)
        objective = self.objective or known_objective(self.token)
        if objective is None:
            return Answer(None)
        answer = work(self.recipe, self.task, objective)
        return answer if self.objective is not None else portable(answer)


def new_token() -> str:
    """Return a name for an objective that no other has."""
    return os.urandom(16).hex()


def make_recipe(population: Population, wanted: tuple[str, ...], policy: Policy) -> Recipe:
    """Return what tasks share; probes travel if they are of use."""
    short = isinstance(population.noise, Philox) and (
        not any(need in wanted for need in ALONG_PROBES) or isinstance(population.probes, (Philox, NoneType))
    )
    own = replace(population, extra=None, tags=(), probes=_probes(population, wanted)) if short else None
    return Recipe(next(_numbers), own, population.dim, wanted, policy)


def _probes(population: Population, wanted: tuple[str, ...]) -> Any:
    return population.probes if any(need in wanted for need in ALONG_PROBES) else None


def cut(
    population: Population, recipe: Recipe, seeded: bool, size: int, rows: NDArray[np.int64] | None = None
) -> Iterator[Task]:
    """Yield tasks of about ``size`` rows in the order of the rows, whole mirrored pairs; a size of 0 is single rows."""
    pair = 2 if population.noise.mirrored and size else 1
    size = -(-max(1, size) // pair) * pair
    seeds = population.seeds if seeded else None
    for first, last in _runs(population, rows):
        explicit = first >= population.n
        start = first
        while start < last:
            stop = min(last, start - start % pair + size) if not explicit else min(last, start + size)
            travel = explicit or recipe.population is None
            probes = None
            if travel and not explicit and _probes(population, recipe.wanted) is not None:
                probes = probe_rows(population, start, stop)
            yield Task(
                start,
                stop,
                population.rows(start, stop) if travel else None,
                probes,
                None if seeds is None else seeds[start:stop],
            )
            start = stop


def _runs(population: Population, rows: NDArray[np.int64] | None) -> list[tuple[int, int]]:
    """Return the ranges of consecutive ``rows``, noise rows apart from explicit ones."""
    n, total = population.n, len(population)
    if rows is None:
        return [(first, last) for first, last in ((0, n), (n, total)) if first < last]
    if not len(rows):
        return []
    breaks = np.flatnonzero((np.diff(rows) != 1) | (rows[1:] == n)) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, breaks)]


def work(recipe: Recipe, task: Task, objective: Objective, begun: Callable[[], object] | None = None) -> Answer:
    """Evaluate a task with serial kernels; call ``begun`` when its rows are there and the user's functions are next."""
    from .._kernels import threads

    count = task.stop - task.start
    recipe_rows = task.rows is None
    probed = count if recipe_rows else 0 if task.probes is None else len(task.probes)
    table = _Table.empty(count, probed, recipe.dim, recipe.wanted)
    fault = None
    with threads.limited(1):
        for first, rows, probes in _pieces(recipe, task):
            at = first - task.start
            if begun is not None:
                begun()
            seeds = None if task.seeds is None else task.seeds[at : at + len(rows)]
            fault = call_rows(objective, rows, first, seeds, probes, recipe.policy, table, at)
            if fault is not None:
                break
    return Answer(table, fault)


def _pieces(recipe: Recipe, task: Task) -> Iterator[tuple[int, Array, Array | None]]:
    """Yield (first row, rows, probes)."""
    source = recipe.population
    if task.rows is not None:
        yield task.start, task.rows, task.probes
    elif source is not None:
        for first, rows in chunks(source, task.start, task.stop):
            yield first, rows, probe_rows(source, first, first + len(rows)) if recipe.wanted else None


def portable(answer: Answer) -> Answer:
    """Return an answer that any process understands: without the user's exception, which travels as bytes."""
    if answer.fault is None:
        return answer
    return Answer(answer.table, answer.fault._replace(error=RuntimeError()), pack_error(answer.fault.error))


def fault_of(answer: Answer) -> _Fault | None:
    """Return the fault in an answer, with the exception as it was there."""
    if answer.fault is None or not answer.error:
        return answer.fault
    return answer.fault._replace(error=unpack_error(answer.error))


class WorkerTraceback(Exception):
    """The traceback of an exception in a worker process, as text; the cause of the exception as it arrives here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def dumps(value: object) -> bytes:
    """Return ``value`` as bytes that another process understands, even if it is a lambda of the main script."""
    import cloudpickle  # type: ignore[import-untyped, unused-ignore]

    return bytes(cloudpickle.dumps(value))


def loads(payload: bytes) -> Any:
    """Return what another process of this run has sent; never for bytes from a file."""
    import cloudpickle

    return cloudpickle.loads(payload)


def pack_objective(objective: Objective, threads: int) -> bytes:
    """Return the objective as bytes, with the number of threads of linear algebra."""
    try:
        return dumps((objective, threads))
    except Exception as error:
        raise TypeError(
            f"the objective cannot be sent to a worker process: {error}. Expected a function without open files, "
            'locks, generators and the like. Make those inside the function, or use backend="threading".'
        ) from error


def receive(token: str, payload: bytes) -> None:
    """In a worker: keep the bytes of an objective; of several, the latest."""
    _objectives[token] = payload
    for old in list(_objectives)[:-_KEPT]:
        del _objectives[old]


def objective_work(
    notes: int, token: str, payload: bytes
) -> Callable[[Recipe, Task, Callable[[], object] | None], Any]:
    """In a worker process of one's own: return what does its tasks; there is nothing to note."""
    receive(token, payload)
    return partial(_known_work, token)


def _known_work(token: str, recipe: Recipe, task: Task, begun: Callable[[], object] | None) -> Answer:
    objective = known_objective(token)
    if objective is None:
        raise RuntimeError("a worker process has lost its objective")
    return portable(work(recipe, task, objective, begun))


def known_objective(token: str) -> Objective | None:
    """In a worker: return the objective of ``token`` if it was sent; its first use rebuilds it and limits threads."""
    from threadpoolctl import threadpool_limits

    known = _objectives.get(token)
    if isinstance(known, bytes):
        try:
            known, threads = loads(known)
        except Exception as error:
            raise EvaluationError(
                f"the objective cannot be rebuilt in a worker process: {type(error).__name__}: {error}. Expected a "
                "function whose modules can be imported there. Install them, or define it in the main script."
            ) from error
        _objectives[token] = known
        threadpool_limits(threads)
    return known


def pack_error(error: BaseException) -> bytes:
    """Return an exception and its traceback as bytes; one that cannot be sent becomes a RuntimeError of its text."""
    try:
        own = dumps(error)
        loads(own)
    except Exception:
        own = b""
    return dumps((own, name_error(error), "".join(traceback.format_exception(error))))


def unpack_error(payload: bytes) -> Any:
    """Return the exception, with its traceback over there as its cause; what cannot be rebuilt, a RuntimeError."""
    own, name, text = loads(payload)
    try:
        error = loads(own) if own else RuntimeError(name)
    except Exception:
        error = RuntimeError(name)
    error.__cause__ = WorkerTraceback(text)
    return error
