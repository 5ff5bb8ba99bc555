"""A numba function evaluated in compiled code, on all threads, without a matrix of candidates."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..noise import Array, Philox
from ..objective import Objective
from ..protocols import State
from ..records import Evals, Population
from ._rows import BadResult, Fault, OnError, Table, as_objective, check_count, check_policy, chunks, describe, stop_at, wants_grads
from .serial import Serial

# Below the first, threads cost more than they save; from the second on they pay even on a busy machine.
_SERIAL_SECONDS = 30e-6
_PARALLEL_SECONDS = 2e-3
# Kernels cannot be interrupted, so that Ctrl-C is looked at this often.
_SLICE_SECONDS = 0.25

_NO_SEEDS = np.empty(0, np.int64)


@dataclass
class _Live:
    """What belongs to this process and not to a checkpoint: machine code, and seconds per unit as measured (0: not yet)."""

    value: Any = None
    gradient: Any = None
    serial: float = 0.0
    parallel: float = 0.0


@dataclass(frozen=True)
class Compiled:
    """Call a function that numba compiled, f(x) or f(x, seed), from a compiled loop; x is (d,) or ``shape``, float64.

    Candidates are made one by one in the thread that evaluates them: the (n, d) matrix never exists, memory is O(threads * d), and
    every candidate has the bits of ``population.rows()``. Whether threads are worth their cost is measured; no bit depends on it.

    Parameters
    ----------
    objective : a function under ``numba.njit``, or an :class:`esopt.Objective` of one; ``grad`` must be under ``njit`` too. It returns a
        number or an :class:`esopt.Outcome`. ``args`` become constants of the compiled code, arrays read-only.
    threads : threads to use at most; None for numba's setting. A function with ``parallel=True`` of its own runs on its own threads.
    on_error : as in :class:`esopt.Serial`. An exception in compiled code is found in exactly its own row; the row is then evaluated
        again in Python for the exception itself.

    Notes
    -----
    The function must not write to anything but its own x. nan and gradients are treated as in :class:`esopt.Serial`.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from esopt import Compiled, Gaussian, Key, Population
    >>> population = Population(np.zeros(2), 1.0, Gaussian().noise(Key(seed=1), n=3, dim=2))
    >>> evals, state = Compiled(numba.njit(lambda x: x[0] + x[1])).evaluate(population, ())
    >>> bool((evals.values == np.asarray(population).sum(axis=1)).all())
    True
    """

    objective: Objective | Callable[..., Any]
    threads: int | None = None
    on_error: OnError = "raise"
    _live: _Live = field(default_factory=_Live, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from .._kernels import objective as kernels

        objective = as_objective(self.objective)
        object.__setattr__(self, "objective", objective)
        check_count("threads", self.threads)
        check_policy(self.on_error)
        for name, function in (("f", objective.f), ("grad", objective.grad)):
            if function is not None and not kernels.jitted(function):
                raise TypeError(
                    f"Compiled() got a {name} that is a plain {type(function).__name__}. It needs a function compiled by numba: "
                    f"decorate {name} with @numba.njit, or use Serial() or Joblib()."
                )

    def init(self) -> State:
        """Return the empty state."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and, where they are needed, gradients (n + k, d)."""
        from .._kernels import objective as kernels
        from .._kernels import threads

        objective = as_objective(self.objective)
        grads = wants_grads(population, objective, self)
        if not kernels.enabled():
            return Serial(objective, self.on_error).evaluate(population, state)
        self._compile(objective, grads)
        run = _Run(population, objective, grads)
        limit = nullcontext() if self.threads is None else threads.limited(min(self.threads, threads.threads()))
        with limit:
            self._evaluate(run, population)
        return self._report(run, objective, population).evals(), state

    def close(self) -> None:
        """Do nothing; there is nothing to give back."""

    def _compile(self, objective: Objective, grads: bool) -> None:
        """Make the C functions, once for each instance and process."""
        from .._kernels import objective as kernels

        part, live, frozen = "f", self._live, kernels.freeze(objective.args)
        try:
            if live.value is None:
                live.value = kernels.value_entry(objective.f, frozen, objective.seeded, objective.shape)
            if grads and live.gradient is None:
                part = "grad"
                live.gradient = kernels.gradient_entry(objective.grad, frozen, objective.seeded, objective.shape)
        except kernels.CompileError as error:
            raise TypeError(
                f"Compiled() cannot use {part}: {error}.\n"
                f"Expected a numba function of x{', seed' if objective.seeded else ''} and {len(objective.args)} args. "
                f"Try {part}(np.zeros(d), ...) by itself, or use Serial()."
            ) from error

    def _evaluate(self, run: _Run, population: Population) -> None:
        noise, live = population.noise, self._live
        addresses = live.value.address, (live.gradient or live.value).address
        if isinstance(noise, Philox) and noise.sampler.fused:
            pairs = -(-noise.n // 2) if noise.mirrored else noise.n
            scale = np.atleast_1d(np.asarray(population.scale, np.float64))
            address = noise.n, noise.mirrored, *noise._address
            arguments = (*addresses, _plain(population.mean), _plain(scale), *address, run.extra, *run.columns(0, len(population)))
            self._run(pairs + len(run.extra), arguments)
            return
        for first, rows in chunks(population, 0, len(population)):
            nothing = np.empty(population.dim), np.ones(1), 0, False, 0, 0, np.uint64(0)
            self._run(len(rows), (*addresses, *nothing, rows, *run.columns(first, first + len(rows))))

    def _run(self, units: int, arguments: tuple[Any, ...]) -> None:
        """Evaluate all units, serially or in parallel as the measured cost suggests, in slices that Ctrl-C can stop."""
        from .._kernels import objective as kernels
        from .._kernels import threads

        live, first = self._live, 0
        if not live.serial:
            kernels.evaluate(0, 0, *arguments)
        while first < units:
            workers = threads.threads()
            wanted = self._wants_threads(units - first) and not kernels.threaded(live.value.function)
            parallel = wanted and threads.parallel(threads.SMALL)
            each = live.parallel if parallel and live.parallel else live.serial
            count = max(1, min(units - first, int(_SLICE_SECONDS / each) if each else 1))
            start = time.perf_counter()
            if parallel:
                batch = max(1, min(64, count // (8 * workers)))
                kernels.evaluate_parallel(workers, batch, first, first + count, *arguments)
                live.parallel = (time.perf_counter() - start) / count
            else:
                kernels.evaluate(first, first + count, *arguments)
                live.serial = (time.perf_counter() - start) / count
                live.parallel *= 0.98
            first += count

    def _wants_threads(self, units: int) -> bool:
        """Compare the two measured speeds; an old bad one of threads fades until they get another try."""
        total = units * self._live.serial
        if total < _SERIAL_SECONDS or units == 1:
            return False
        return total > _PARALLEL_SECONDS or self._live.parallel < self._live.serial

    def _report(self, run: _Run, objective: Objective, population: Population) -> Table:
        from .._kernels.objective import RAISED, RESHAPED, UNBOUNDED

        table = Table(run.values, run.grads if run.with_grads else None)
        failed = np.isnan(run.values)
        if not (failed.any() or run.grad_notes.any() or self._live.value.outcome):
            return table
        raised, grad_raised = run.notes == RAISED, run.grad_notes == RAISED
        reshaped, negative = run.grad_notes == RESHAPED, (run.notes < 0) & ~raised
        stop = np.zeros(len(population), bool)
        for faults in (negative, reshaped, raised, grad_raised) if self.on_error == "raise" else (negative, reshaped):
            stop[: len(faults)] |= faults
        if stop.any():
            row = int(np.argmax(stop))
            fault = _repeat(row, "f" if raised[row] or negative[row] else "grad", objective, population)
            raise stop_at(fault, objective, population) from (fault.error if fault.raised else None)
        table.count("exception", int(raised.sum()) + int(grad_raised.sum()))
        table.count("nan", int((failed & ~raised).sum()))
        table.count("gradient", int((run.grad_notes == UNBOUNDED).sum()))
        table.steps = int(run.notes[~raised].sum())
        return table


class _Run:
    """The arrays of one call, as the kernels want them."""

    def __init__(self, population: Population, objective: Objective, grads: bool) -> None:
        total, dim = len(population), population.dim
        self.extra = np.empty((0, dim)) if population.extra is None else _plain(population.extra)
        self.seeds = population.seeds if objective.seeded else _NO_SEEDS
        self.with_grads = grads
        self.values = np.empty(total)
        self.notes: NDArray[np.int64] = np.empty(total, np.int64)
        self.grads = np.empty((total if grads else 0, dim))
        self.grad_notes: NDArray[np.int64] = np.empty(total if grads else 0, np.int64)

    def columns(self, start: int, stop: int) -> tuple[Any, ...]:
        """Return the arrays that the kernels write to, for rows start ... stop."""
        parts = self.seeds, self.values, self.notes, self.grads, self.grad_notes
        return tuple(part[start:stop] for part in parts)


def _plain(array: Array) -> Array:
    """Return ``array`` contiguous, writable and float64: kernels are compiled for that alone."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable and array.dtype == np.float64 else np.array(array, np.float64)


def _repeat(row: int, part: Literal["f", "grad"], objective: Objective, population: Population) -> Fault:
    """Evaluate a row again in Python to see what went wrong."""
    function = objective.f if part == "f" else objective.grad
    seed = int(population.seeds[row]) if objective.seeded else 0
    from .._kernels.objective import freeze

    x, *rest = objective.arguments(population[row], seed)
    try:
        result = function(x, *freeze(rest)) if function is not None else None
    except Exception as error:
        return Fault(row, error, part, raised=True)
    if part == "grad":
        return Fault(row, BadResult(describe(result)), part, raised=False)
    return Fault(row, BadResult(describe(result)), part, raised=False)
