"""Engines play episodes: rows of parameters and seeds in, returns, lengths and sums of the observations out.

A :class:`World` is an environment as two compiled functions; :class:`CompiledEngine` plays whole episodes of it, the
policy included, without coming back to Python. Other engines step environments that are Python objects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .._kernels.objective import jitted

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


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
    def counts(self) -> Integers:
        """Number of observations (m,) in the sums of each row."""
        return np.where(np.isnan(self.returns), 0, self.lengths).sum(axis=1)


class Engine(Protocol):
    """Plays episodes. Equal arguments give equal bits, whatever the number of threads or processes."""

    @property
    def name(self) -> str:
        """How the episodes are played, for people."""

    def play(self, thetas: Array, seeds: Integers, *, quiet: bool = False) -> Played:
        """Play ``seeds`` (m, e), one number an episode, with the folded parameters ``thetas`` (m, dim) of its row.

        ``quiet``: without action noise, if the engine is to make any.
        """

    def close(self) -> None:
        """Give back threads, processes and environments; playing again may start new ones."""


@dataclass(frozen=True, eq=False)
class World:
    """An environment as two functions that numba compiled.

    ::

        reset(state, seed, observation)                              writes state and observation
        step(state, action, observation) -> (reward, terminated)     the same; a number and a truth value

    All arrays are float64 and belong to the thread: ``state`` (s,) is what :attr:`new_state` returned and keeps what it
    likes there from step to step, ``observation`` is (inputs,), ``action`` (actions,). ``seed`` is uint64 and the only
    source of chance: ``esopt.rl.uniform(seed, index)`` and ``esopt.rl.normal(seed, index)`` are numbers from it. An
    exception makes the episode's return nan.

    Attributes
    ----------
    name : for people; the gymnasium id where there is one.
    inputs, actions : how many numbers an observation and an action have; a discrete action is one number.
    max_steps : after so many steps an episode is cut.
    reset, step : the functions, under ``numba.njit``.
    new_state : makes a thread's own ``state``, one-dimensional float64. The arrays are kept as long as they are played
        with, so that a subclass of array, or an address in it, can keep other things alive.
    spaces : makes the gymnasium spaces of observations and actions, or None if nobody needs them.
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
        arguments = {"reset": "state, seed, observation", "step": "state, action, observation"}
        for name, expected in arguments.items():
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
                f"World() got {type(self.new_state).__name__} as new_state, but each thread makes its own. "
                "Pass a function, for example new_state=lambda: numpy.zeros(4)."
            )
