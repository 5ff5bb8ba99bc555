"""A numba function evaluated in compiled code, on all threads, without a matrix of candidates."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._kernels import objective as kernels
from .._kernels import threads as threading
from ..noise import Array, Philox
from ..objective import Objective
from ..protocols import State
from ..records import Evals, Population
from ._policy import Policy, check_failed, check_limits, log_failures, read_policy
from ._results import _BadResult, describe
from ._rows import (
    _Fault,
    _Table,
    as_objective,
    call_one,
    check_count,
    chunks,
    derive,
    probe_rows,
    stop_at,
    wanted_derivatives,
)
from .serial import Serial

# Less is not worth a thread: waking one takes some microseconds.
_SERIAL_SECONDS = 30e-6
# How much an estimate may rise in one measurement. The slower way is tried again when that costs a quarter of what was
# spent since the last try, in the end a sixty-fourth.
_RISE, _PATIENCE = 1.25, (4.0, 64.0)
# Kernels cannot be interrupted, so that Ctrl-C is looked at this often.
_SLICE_SECONDS = 0.25

# A shorter measurement says nothing.
_PROBE_SECONDS = 100e-6

_NO_NUMBERS, _NO_ROWS = np.empty(0, np.int64), np.empty((0, 0))


@dataclass
class _Live:
    """What belongs to this process, not to a checkpoint: machine code, and what a unit costs in seconds."""

    value: Any = None
    gradient: Any = None
    threaded: bool = False
    known: bool = False
    serial: float = 0.0
    parallel: float = 0.0
    threads: bool = False
    spent: float = 0.0
    patience: float = _PATIENCE[0]


@dataclass(frozen=True)
class Compiled:
    """Call a function that numba compiled, f(x) or f(x, seed), from a compiled loop; x is (d,) or ``shape``, float64.

    Candidates are made one by one in the thread that evaluates them: the (n, d) matrix never exists, memory is
    O(threads * d), and every candidate has the bits of ``population.rows()``. Whether threads are worth their cost is
    measured; no bit depends on it.

    Parameters
    ----------
    objective : a function under ``numba.njit``, or an :class:`esopt.Objective` of one; ``grad`` must be under ``njit``
        too. It returns a number or an :class:`esopt.Outcome`. ``args`` become constants of the compiled code, arrays
        read-only.
    threads : threads to use at most; None for numba's setting. A function with ``parallel=True`` of its own runs on its
        own threads.
    on_error, max_failures, timeout : as in :class:`esopt.Serial`. An exception in compiled code is found in exactly its
        own row; under "raise" and "retry(k)" the row is then evaluated again in Python.

    Notes
    -----
    The function must not write to anything but its own x. nan and derivatives are treated as in :class:`esopt.Serial`.
    Only values and gradients are computed in the compiled loop: ``hess``, ``hvp`` and ``jvp``, under ``njit`` or not,
    are called from Python, one row after the other.

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
    on_error: str = "raise"
    max_failures: float | None = None
    timeout: float | None = None
    _live: _Live = field(default_factory=_Live, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        objective = as_objective(self.objective)
        object.__setattr__(self, "objective", objective)
        check_count("threads", self.threads)
        read_policy(self.on_error)
        check_limits(self.max_failures, self.timeout, "Compiled")
        for name, function in (("f", objective.f), ("grad", objective.grad)):
            if function is not None and not kernels.jitted(function):
                raise TypeError(
                    f"Compiled() got a plain {type(function).__name__} as {name}, but numba must have compiled it. "
                    f"Decorate {name} with @numba.njit, or use Serial() or Joblib()."
                )

    def init(self) -> State:
        """Return the empty state."""
        return ()

    def evaluate(self, population: Population, state: State) -> tuple[Evals, State]:
        """Return values (n + k,) and the derivatives that are needed."""
        objective = as_objective(self.objective)
        wanted = wanted_derivatives(population, objective, self)
        grads = "grads" in wanted
        if not kernels.enabled():
            return Serial(objective, self.on_error, self.max_failures).evaluate(population, state)
        if self._live.value is None or (grads and self._live.gradient is None):
            self._compile(objective, grads)
        total = len(population)
        found = _Found(
            population.seeds if objective.seeded else _NO_NUMBERS,
            np.empty(total),
            np.empty(total, np.int64),
            np.empty((total, population.dim)) if grads else _NO_ROWS,
            np.empty(total, np.int64) if grads else _NO_NUMBERS,
        )
        if self.threads is None:
            failed = self._evaluate(population, found)
        else:
            with threading.limited(min(self.threads, threading.threads())):
                failed = self._evaluate(population, found)
        if failed or self._live.value.outcome or wanted not in ((), ("grads",)):
            return self._report(found, objective, population, wanted).evals(population.dim), state
        return Evals(found.values, found.grads if grads else None), state

    def entry(self) -> np.uintp | None:
        """Return the address of f for strategies that call it in their own kernels; None if that cannot be.

        A function with a seed, or with threads of its own, is left to :meth:`evaluate`.
        """
        objective = as_objective(self.objective)
        if objective.seeded or not kernels.enabled() or kernels.threaded(objective.f):
            return None
        if self._live.value is None:
            self._compile(objective, False)
        return np.uintp(self._live.value.address)

    def close(self) -> None:
        """Do nothing; there is nothing to give back."""

    def _compile(self, objective: Objective, grads: bool) -> None:
        """Make the C functions, once for each instance and process."""
        for number, arg in enumerate(objective.args):
            if isinstance(arg, (list, dict, set)):
                raise TypeError(
                    f"Compiled() got a {type(arg).__name__} as args[{number}], but args become constants of compiled "
                    "code. Pass an array, a tuple or a number, or use Serial()."
                )
        part, live, frozen = "f", self._live, kernels.freeze(objective.args)
        try:
            if live.value is None:
                live.threaded = kernels.threaded(objective.f) or kernels.threaded(objective.grad)
                make = kernels.value_entry if frozen else _value_entry
                live.value = make(objective.f, frozen, objective.seeded, objective.shape)
            if grads and live.gradient is None:
                part = "grad"
                live.gradient = kernels.gradient_entry(objective.grad, frozen, objective.seeded, objective.shape)
        except (kernels.CompileError, *kernels.FAILURES) as error:
            raise TypeError(
                f"Compiled() cannot use {part}: {error}.\n"
                f"Expected a numba function of x{', seed' if objective.seeded else ''} and {len(objective.args)} args. "
                f"{_advice(objective.f if part == 'f' else objective.grad, objective)}"
                f"Try {part}(np.zeros(d), ...) by itself, or use Serial()."
            ) from error

    def _evaluate(self, population: Population, found: _Found) -> int:
        """Fill ``found``; return how many rows failed."""
        noise, live, extra = population.noise, self._live, population.extra
        addresses = live.value.address, (live.gradient or live.value).address
        if isinstance(noise, Philox) and noise.sampler.fused and population.separable and population.map is None:
            n, mirrored, key = noise.n, noise.mirrored, noise.key
            mean, scale = _plain(population.mean), _plain(np.atleast_1d(population.sigma("Compiled()")))
            rows = _NO_ROWS if extra is None else _plain(extra)
            address = key.generation, key.stream, np.uint64(key.seed)
            units = (n + 1) // 2 if mirrored else n
            return self._run(units + len(rows), (*addresses, mean, scale, n, mirrored, *address, rows, *found))
        failed, recipe = 0, (np.empty(population.dim), np.ones(1), 0, False, 0, 0, np.uint64(0))
        for first, rows in chunks(population, 0, len(population)):
            part = (column[first : first + len(rows)] for column in found)
            failed += self._run(len(rows), (*addresses, *recipe, rows, *part))
        return failed

    def _run(self, units: int, arguments: tuple[Any, ...]) -> int:
        """Evaluate all units, serially or in parallel as the measured cost suggests, in slices that Ctrl-C can stop."""
        live, first, failed = self._live, 0, 0
        if not live.serial:
            kernels.evaluate(0, 0, *arguments)
        while first < units:
            parallel = self._wants_threads(units - first) and threading.parallel(threading.SMALL)
            workers = threading.threads() if parallel else 1
            if parallel and not live.parallel:
                kernels.evaluate_parallel(workers, 1, 0, 0, *arguments)
            count = min(units - first, self._slice(parallel))
            start = time.perf_counter()
            if parallel:
                batch = max(1, min(64, count // (8 * workers)))
                failed += kernels.evaluate_parallel(workers, batch, first, first + count, *arguments)
            else:
                failed += kernels.evaluate(first, first + count, *arguments)
            self._learn(parallel, count, time.perf_counter() - start)
            first += count
        return failed

    def _slice(self, parallel: bool) -> int:
        """Units of the next slice: few until their cost is known, then as many as Ctrl-C can wait for."""
        live = self._live
        each = live.parallel if parallel and live.parallel else live.serial
        return max(1, int((_SLICE_SECONDS if live.known else _PROBE_SECONDS) / each)) if each else 1

    def _learn(self, parallel: bool, count: int, seconds: float) -> None:
        """Keep what a unit costs. Other work on the machine only ever adds to it, so that a rise is believed slowly."""
        live, each = self._live, seconds / count
        if parallel:
            live.parallel = min(each, _RISE * live.parallel) if live.parallel else each
        else:
            live.serial = min(each, _RISE * live.serial) if live.known else each
            live.known = live.known or seconds > _PROBE_SECONDS / 2
        if live.threads == parallel:
            live.spent += seconds
        else:
            live.threads, live.spent, live.patience = parallel, seconds, min(2.0 * live.patience, _PATIENCE[1])

    def _wants_threads(self, units: int) -> bool:
        """Take the faster way, and the other one when a try would cost little of what was spent since the last."""
        live = self._live
        if not live.known or live.threaded or units == 1 or units * live.serial < _SERIAL_SECONDS:
            return False
        faster = live.parallel < live.serial
        other = live.serial if faster else live.parallel
        return not faster if live.threads == faster and live.spent > live.patience * units * other > 0.0 else faster

    def _report(self, found: _Found, objective: Objective, population: Population, wanted: tuple[str, ...]) -> _Table:
        """Count the failures and compute what the kernels do not, or raise the first fault."""
        policy = read_policy(self.on_error)
        notes, grad_notes, missing = found.notes, found.grad_notes, np.isnan(found.values)
        raised, grad_raised = notes == kernels.RAISED, grad_notes == kernels.RAISED
        negative, reshaped = (notes < 0) & ~raised, grad_notes == kernels.RESHAPED
        stop = np.zeros(len(population), bool)
        for faults in (negative, reshaped, raised, grad_raised) if policy.raises else (negative, reshaped):
            stop[: len(faults)] |= faults
        table = _Table.empty(len(population), population.n, population.dim, tuple(n for n in wanted if n != "grads"))
        usable = ~missing
        usable[: len(grad_raised)] &= ~grad_raised
        row = int(np.argmax(stop)) if stop.any() else len(population)
        fault = self._derive(objective, population, usable[:row], table)
        if fault is None and row < len(population):
            fault = _repeat(row, "f" if notes[row] < 0 else "grad", objective, population, bool(raised[row]))
        if fault is not None:
            raise stop_at(fault, objective, population) from (fault.error if fault.raised else None)
        table.values = found.values
        if "grads" in wanted:
            table.found["grads"] = found.grads
        table.steps = int(notes[~raised].sum())
        for at in np.flatnonzero(raised):
            _retry(int(at), "f", objective, population, policy, table)
        for at in np.flatnonzero(grad_raised):
            _retry(int(at), "grad", objective, population, policy, table)
        table.count("nan", int((missing & ~raised).sum()))
        table.count("gradient", int((grad_notes == kernels.UNBOUNDED).sum()))
        log_failures(table.notes, table.failures, objective, population)
        check_failed(table.values, table.failures, self.max_failures, population)
        return table

    def _derive(
        self, objective: Objective, population: Population, usable: NDArray[np.bool_], table: _Table
    ) -> _Fault | None:
        """Compute the derivatives of ``table`` for the ``usable`` rows, row by row in Python."""
        if not table.wanted:
            return None
        seeds = population.seeds if objective.seeded else _NO_NUMBERS
        for first, rows in chunks(population, 0, len(usable)):
            probes = probe_rows(population, first, first + len(rows))
            for i in np.flatnonzero(usable[first : first + len(rows)]):
                at, probe = first + int(i), probes[i] if probes is not None and i < len(probes) else None
                seed = int(seeds[at]) if objective.seeded else 0
                fault = derive(objective, rows[i], at, seed, probe, read_policy(self.on_error), table, at, table.wanted)
                if fault is not None:
                    return fault
        return None


@lru_cache(maxsize=64)
def _value_entry(function: Any, args: tuple[()], seeded: bool, shape: tuple[int, ...] | None) -> Any:
    """Return the C function of a function without args, compiled once for several runs."""
    return kernels.value_entry(function, args, seeded, shape)


def _advice(function: Any, objective: Objective) -> str:
    """Return a sentence on the probable mistake, if it is a forgotten seed."""
    try:
        taken = len(inspect.signature(function.py_func).parameters)
    except (TypeError, ValueError):
        return ""
    if not objective.seeded and taken == len(objective.args) + 2:
        return "It takes one argument more: if that is the seed, set seeded=True. "
    return ""


class _Found(NamedTuple):
    """What the kernels read and write row by row; ``grads`` and ``grad_notes`` are empty without gradients."""

    seeds: NDArray[np.int64]
    values: Array
    notes: NDArray[np.int64]
    grads: Array
    grad_notes: NDArray[np.int64]


def _plain(array: Array) -> Array:
    """Return ``array`` contiguous, writable and float64: kernels are compiled for that alone."""
    return array if array.flags.carray and array.dtype == np.float64 else np.array(array, np.float64, order="C")


def _retry(
    row: int, part: Literal["f", "grad"], objective: Objective, population: Population, policy: Policy, table: _Table
) -> None:
    """Count a row where ``part`` raised; under a policy of retries, evaluate it again in Python."""
    if not policy.retries:
        table.fail("exception", row, "raised in compiled code", part)
        return
    table.fail("retried", row, "raised in compiled code", part)
    again, x = policy._replace(retries=policy.retries - 1), population[row]
    seed = int(population.seeds[row]) if objective.seeded else 0
    fault = call_one(objective, x, row, seed, again, table, row) if part == "f" else None
    if fault is None and "grads" in table.found and not np.isnan(table.values[row]):
        fault = derive(objective, x, row, seed, None, again, table, row, ("grads",))
    if fault is not None:
        raise stop_at(fault, objective, population)


def _repeat(row: int, part: Literal["f", "grad"], objective: Objective, population: Population, raised: bool) -> _Fault:
    """Evaluate a row again in Python to see what went wrong."""
    function = objective.f if part == "f" else objective.grad
    seed = int(population.seeds[row]) if objective.seeded else 0
    x, *rest = objective.arguments(population[row], seed)
    try:
        result = function(x, *kernels.freeze(rest)) if function is not None else None
    except Exception as error:
        return _Fault(row, error, part, raised=True)
    if raised:
        return _Fault(
            row, RuntimeError("an error in compiled code that did not happen again in Python"), part, raised=True
        )
    return _Fault(row, _BadResult(describe(result)), part, raised=False)
