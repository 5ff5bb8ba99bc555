"""Engines play episodes: rows of parameters and seeds in, returns, lengths and sums of the observations out.

A :class:`World` is an environment as two compiled functions; :class:`CompiledEngine` plays whole episodes of it, the
policy included, without coming back to Python. Other engines step environments that are Python objects.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .._kernels import episodes as kernels
from .._kernels import threads as threading
from .._kernels.draws import normal as normal
from .._kernels.draws import uniform as uniform
from .._kernels.objective import CompileError, Entry, enabled, jitted
from .policy import Policy
from .seats import Seat, Seats

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# Less is not worth a thread: waking one takes some microseconds.
_SERIAL_SECONDS = 100e-6
# Kernels cannot be interrupted, so that Ctrl-C is looked at this often.
_SLICE_SECONDS = 0.25
# Shorter calls say nothing about the time of a step.
_LEAST_SECONDS = 50e-6
# Where steps take less and policies take turns, a thread has so many episodes at a time.
_SHORT_STEP, _LANES = 100e-9, 2
_ENDLESS = 2**62

_ARGUMENTS = {"reset": "state, seed, observation", "step": "state, action, observation"}
_DO = {
    "reset": "Write the observation into the third argument, and return nothing.",
    "step": "Write the observation into the third argument, and return two numbers: (reward, terminated).",
}


class Played(NamedTuple):
    """What came of m rows of parameters, each in e episodes.

    Attributes
    ----------
    returns : (m, e)  sum of the rewards of an episode; nan where it failed: an exception, a reward that is nan, or
        observations that are not finite.
    lengths : (m, e)  steps that were taken, those of failed episodes included.
    sums, squares : (m, inputs)  of the observations that were acted on and of their squares: in step order within an
        episode, then in the order of the episodes. Failed episodes and what comes after an end are left out.
    failures : failed episodes by kind, where the engine knows more than that the return is nan.
    """

    returns: Array
    lengths: Integers
    sums: Array
    squares: Array
    failures: Mapping[str, int] = MappingProxyType({})

    @property
    def failed(self) -> int:
        """Number of episodes that failed."""
        return int(np.count_nonzero(np.isnan(self.returns)))

    @property
    def counts(self) -> Integers:
        """Number of observations (m,) in the sums of each row."""
        lengths = np.where(np.isnan(self.returns), 0, self.lengths) if self.failed else self.lengths
        counts: Integers = lengths.sum(axis=1)
        return counts


class Engine(Protocol):
    """Plays episodes. Equal arguments give equal bits, whatever the number of threads or processes."""

    @property
    def name(self) -> str:
        """How the episodes are played, for people."""

    def play(self, thetas: Array, seeds: Integers, *, quiet: bool = False, longest: int | None = None) -> Played:
        """Play ``seeds`` (m, e), one number an episode, with the folded parameters ``thetas`` (m, dim) of its row.

        ``quiet``: without action noise, if the engine is to make any. ``longest``: a cut for this call.
        """

    def close(self) -> None:
        """Give back threads, processes and environments; playing again may start new ones."""


@dataclass(frozen=True, eq=False)
class World:
    """An environment as two functions that numba compiled.

    ::

        reset(state, seed, observation)                              writes state and observation
        step(state, action, observation) -> (reward, terminated)     the same; a number and a truth value

    All arrays are float64 and the episode's alone: ``state`` (s,) is what :attr:`new_state` returned and keeps what it
    likes there from step to step, ``observation`` is (inputs,), ``action`` (actions,). ``seed`` is uint64 and the only
    source of chance: ``esopt.rl.uniform(seed, index)`` and ``esopt.rl.normal(seed, index)`` are numbers from it. An
    exception makes the episode's return nan.

    Attributes
    ----------
    name : for people; the gymnasium id where there is one.
    inputs, actions : how many numbers an observation and an action have; a discrete action is one number.
    max_steps : after so many steps an episode is cut.
    reset, step : the functions, under ``numba.njit``.
    new_state : makes a ``state``, one-dimensional float64, for as many episodes as are played at the same time; later
        episodes follow in it. The arrays are kept as long as they are played with, so that a subclass of array, or an
        address in it, can keep other things alive.
    spaces : makes the gymnasium spaces of observations and actions, for ``Policy.linear(world)`` and the like; or None.
    """

    name: str
    inputs: int
    actions: int
    max_steps: int
    reset: Callable[..., Any]
    step: Callable[..., Any]
    new_state: Callable[[], Array]
    spaces: Callable[[], tuple[Any, Any]] | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "actions", "max_steps"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
                raise ValueError(f"World() got {name}={number!r}. Pass a positive whole number.")
        for name, expected in _ARGUMENTS.items():
            function = getattr(self, name)
            if not callable(function) or not jitted(function):
                raise TypeError(
                    f"World() got a plain {type(function).__name__} as {name}, but numba must have compiled it. "
                    f"Decorate {name}({expected}) with @numba.njit."
                )
            taken = list(inspect.signature(getattr(function, "py_func", function)).parameters)
            if len(taken) != 3:
                raise TypeError(
                    f"World() got {name}({', '.join(taken)}), but {name} takes three arguments. "
                    f"Write it as {name}({expected})."
                )
        if not callable(self.new_state):
            raise TypeError(
                f"World() got {type(self.new_state).__name__} as new_state, but each thread has states of its own. "
                "Pass a function, for example new_state=lambda: numpy.zeros(4)."
            )

    @property
    def observation_space(self) -> Any:
        """The gymnasium space of observations; ValueError without :attr:`spaces`."""
        return self._spaces()[0]

    @property
    def action_space(self) -> Any:
        """The gymnasium space of actions; ValueError without :attr:`spaces`."""
        return self._spaces()[1]

    def _spaces(self) -> tuple[Any, Any]:
        if self.spaces is None:
            raise ValueError(f"{self.name} has no spaces. Pass World(..., spaces=lambda: (observation, action)).")
        return self.spaces()


class CompiledEngine:
    """Plays whole episodes of a :class:`World` in compiled code, on threads.

    Threads take one episode after the other from a counter that they share, so that episodes of different lengths even
    out. No bit depends on their number. Short calls, as of a few episodes of CartPole, stay on one thread. Where steps
    are as short as CartPole's, a thread has two episodes at a time, so that it waits less for the step before.

    Parameters
    ----------
    world : the environment.
    policy : what acts; only its architecture counts, the parameters are those of :meth:`play`.
    threads : threads to use at most; None for numba's setting.
    max_steps : cuts episodes earlier than the world does.
    action_noise : standard deviation of the Gaussian noise that is added to every output of the policy at every step,
        before it becomes an action; a function of the episode's seed and the step alone.

    Raises
    ------
    ValueError, TypeError  for functions, spaces and arguments that do not fit, before anything is played.

    Notes
    -----
    Sums of observations are kept by episode while a call lasts, (m, e, inputs).
    """

    name = "compiled episodes"

    def __init__(
        self,
        world: World,
        policy: Policy,
        *,
        threads: int | None = None,
        max_steps: int | None = None,
        action_noise: float = 0.0,
    ) -> None:
        for name, number in (("threads", threads), ("max_steps", max_steps)):
            if number is not None and (not _whole(number) or number < 1):
                raise ValueError(f"CompiledEngine() got {name}={number!r}. Pass a positive whole number, or None.")
        if not 0.0 <= action_noise < np.inf:
            raise ValueError(f"CompiledEngine() got action_noise={action_noise}. Pass a finite number, 0 for none.")
        if not enabled():
            raise ValueError("CompiledEngine() needs numba, which is switched off. Unset NUMBA_DISABLE_JIT.")
        form = policy.form
        inputs = policy.observations.inputs
        if (inputs, len(form.layout)) != (world.inputs, world.actions):
            raise ValueError(
                f"the policy takes {inputs} numbers and gives {len(form.layout)}, but {world.name} has "
                f"observations of {world.inputs} and actions of {world.actions}. Make the policy from the world's own "
                "spaces, for example with Policy.linear(world)."
            )
        self.world, self.dim = world, policy.dim
        self.max_steps = min(world.max_steps, max_steps or world.max_steps)
        self._threads = threads
        layout = np.ascontiguousarray(form.layout, np.float64)
        self._form = form.sizes, form.activation, form.kind, layout, world.actions
        self._turns = kernels.takes_turns(form.sizes, form.kind, layout)
        self._seats = Seats(world.name, world.new_state, _LANES, kernels.room_size(form.sizes, world.actions))
        size = self._seats[0, 1].states[0].size
        self._entries = _entries(world.reset, world.step, size, world.inputs, world.actions)
        self._action_noise = float(action_noise)
        self._step_seconds = self._episode_seconds = np.nan
        self._lock = Lock()
        self._pool: tuple[int, int, ThreadPoolExecutor] | None = None
        nothing = np.empty((0, self.dim)), np.empty((0, 0), np.int64)
        self._run(*nothing, self._results(0, 0), 0.0)  # compiled before anything is timed

    def play(self, thetas: Array, seeds: Integers, *, quiet: bool = False, longest: int | None = None) -> Played:
        """Play ``seeds`` (m, e), one number an episode, with the folded parameters ``thetas`` (m, dim) of its row.

        ``quiet``: without action noise. ``longest``: cut episodes earlier still, in this call.

        Raises
        ------
        ValueError  for shapes that do not fit.
        """
        rows, numbers = np.ascontiguousarray(thetas, np.float64), np.ascontiguousarray(seeds, np.int64)
        if rows.ndim != 2 or rows.shape[1] != self.dim or numbers.ndim != 2 or len(numbers) != len(rows):
            raise ValueError(
                f"play() got parameters of shape {rows.shape} and seeds of shape {numbers.shape}. "
                f"Pass (m, {self.dim}) and (m, episodes)."
            )
        found = self._results(*numbers.shape)
        with self._lock:
            self._run(rows, numbers, found, 0.0 if quiet else self._action_noise, longest)
            if numbers.size:
                self._episode_seconds = self._step_seconds * float(found.lengths.mean())
        return found._replace(sums=_in_order(found.sums), squares=_in_order(found.squares))

    def close(self) -> None:
        """Give back the threads and their states; playing again makes new ones."""
        with self._lock:
            if self._pool is not None:
                self._pool[2].shutdown()
            self._pool = None
            self._seats.clear()

    def _run(self, thetas: Array, seeds: Integers, found: Played, noise: float, longest: int | None = None) -> None:
        """Play everything: alone what is short, the rest with helpers, which stop when the episodes run out."""
        counter = np.zeros(1, np.int64)
        cut = self.max_steps if longest is None else min(self.max_steps, int(longest))
        threads = min(threading.threads() if self._threads is None else self._threads, seeds.size)
        turns = self._turns and noise == 0.0
        many = turns and self._step_seconds < _SHORT_STEP and seeds.size >= 2 * _LANES * threads
        lanes = _LANES if many else 1

        def work(seat: Seat, budget: int) -> int:
            return int(self._kernel(counter, budget, seat.arguments(lanes), thetas, seeds, found, noise, cut, turns))

        alone = not self._episode_seconds * seeds.size > _SERIAL_SECONDS
        own = self._seats[0, lanes]
        helpers: list[Future[int]] = []
        try:
            try:
                done = False
                while not done:
                    if not alone and not helpers:
                        helpers = self._start(threads - 1, lanes, work)
                    seconds = _SERIAL_SECONDS if alone else _SLICE_SECONDS
                    budget = 1 if np.isnan(self._step_seconds) else max(1, int(seconds / self._step_seconds))
                    began = time.perf_counter()
                    steps = work(own, budget)
                    elapsed = time.perf_counter() - began
                    done, alone = steps < 0, False
                    steps = -1 - steps if done else steps
                    if steps and (elapsed > _LEAST_SECONDS or np.isnan(self._step_seconds)):
                        self._step_seconds = elapsed / steps
            finally:
                counter[0] = _ENDLESS
                for helper in helpers:
                    if not helper.cancel():
                        helper.result()
        except BaseException:  # Ctrl-C at any moment: threads that may still play keep their seats for themselves
            self._seats.clear()
            self._pool = None
            raise

    def _results(self, rows: int, episodes: int) -> Played:
        shape = rows, episodes
        sums, squares = np.empty((2, *shape, self.world.inputs))
        return Played(np.empty(shape), np.empty(shape, np.int64), sums, squares)

    def _kernel(
        self,
        counter: Integers,
        budget: int,
        seat: tuple[NDArray[np.uintp], Array, Integers],
        thetas: Array,
        seeds: Integers,
        found: Played,
        noise: float,
        cut: int,
        turns: bool,
    ) -> Any:
        reset, step = self._entries
        given = turns, thetas, seeds, *self._form, cut, noise, *found[:4]
        return kernels.play(counter, budget, reset.address, step.address, *seat, *given)

    def _start(self, count: int, lanes: int, work: Callable[[Seat, int], int]) -> list[Future[int]]:
        """Let ``count`` threads work until nothing is left; none of them survives a fork."""
        if count == 0:
            return []
        if self._pool is None or self._pool[:2] != (os.getpid(), count):
            self._pool = os.getpid(), count, ThreadPoolExecutor(count, "esopt-episodes")
        seats = [self._seats[thread, lanes] for thread in range(1, count + 1)]
        return [self._pool[2].submit(work, seat, _ENDLESS) for seat in seats]


def _in_order(parts: Array) -> Array:
    """Return the sum of ``parts`` (m, e, inputs) over the episodes, one after the other."""
    if parts.shape[1] == 1:
        return parts[:, 0]
    total = np.zeros((len(parts), parts.shape[2]))
    for episode in range(parts.shape[1]):
        total += parts[:, episode]
    return total


def _whole(number: object) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


@lru_cache(maxsize=64)
def _entries(
    reset: Callable[..., Any], step: Callable[..., Any], size: int, inputs: int, actions: int
) -> tuple[Entry, Entry]:
    """Compile the functions of a world; the second engine of a world need not."""
    makers: dict[str, Callable[..., Entry]] = {"reset": kernels.reset_entry, "step": kernels.step_entry}
    found = []
    for (name, make), function in zip(makers.items(), (reset, step), strict=True):
        try:
            found.append(make(function, size, inputs, actions))
        except CompileError as error:
            raise TypeError(f"the world's {name}({_ARGUMENTS[name]}) does not fit: {error}.\n{_DO[name]}") from error
    return found[0], found[1]
