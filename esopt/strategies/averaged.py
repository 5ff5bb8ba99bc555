"""Several evaluations of every candidate, averaged: the plainest treatment of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from .._parts import check_instance
from .._repeated import average, repeat
from ..noise import Array
from ..protocols import State, Strategy
from ..records import Evals, Info, Population
from .cmaes import CMAES


@dataclass(frozen=True, eq=False)
class Averaged:
    """Evaluate every candidate of ``inner`` ``times`` times, each time with another seed, and tell it the averages.

    Divides the variance of the noise by ``times``, and the number of generations that a budget pays for too. A failed
    evaluation is left out of its average; a candidate fails if all of its evaluations do.

    Parameters
    ----------
    inner : any strategy whose candidates do not share one seed in a generation.
    times : evaluations of each candidate.

    Notes
    -----
    The state is that of ``inner``. ``info.scalars["noise"]`` is the standard deviation of one evaluation, pooled over
    the candidates.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> rng = np.random.default_rng(1)
    >>> def noisy(x): return float(x @ x) + 0.1 * rng.standard_normal()
    >>> es = esopt.Optimizer(esopt.Averaged(esopt.CMAES(n=8), 5), [1.0, 2.0], seed=1)
    >>> info = es.tell([noisy(x) for x in es.ask()])
    >>> len(es.ask()), 0.05 < info.scalars["noise"] < 0.2
    (40, True)
    """

    inner: Any = field(default_factory=CMAES)
    times: int = 10

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        check_times("times", self.times)
        check_share("Averaged", self.inner)

    def init(self, x0: Array, seed: int) -> State:
        """Return the state of ``inner`` before the first generation, around ``x0`` (d,)."""
        return self.inner.init(x0, seed)

    def ask(self, state: State) -> Population:
        """Return the population of ``inner``, every row ``times`` over."""
        return repeat(self.inner.ask(state), int(self.times))

    def tell(self, state: State, evals: Evals) -> tuple[State, Info]:
        """Return the state after the update with the averages, and what was learned.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        averages, noise = average(evals, self.inner.ask(state), int(self.times))
        after, info = self.inner.tell(state, averages)
        scalars: Mapping[str, float] = info.scalars if math.isnan(noise) else {**info.scalars, "noise": noise}
        return after, replace(info, scalars=scalars)

    def stop(self, state: State) -> dict[str, float]:
        """Return the reasons of ``inner``."""
        return cast(dict[str, float], self.inner.stop(state))


def check_times(name: str, times: object) -> None:
    """Raise ValueError unless ``times`` is a positive whole number."""
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise ValueError(f"{name} must be a positive whole number, got {times!r}. Pass for example {name}=10.")


def check_share(user: str, inner: object) -> None:
    """Raise ValueError if ``inner`` gives one seed to a generation: the copies of a row would have it too."""
    if getattr(inner, "share", "pair") == "generation":
        raise ValueError(
            f'{user}() got a strategy with share="generation", where evaluating a candidate again changes nothing. '
            'Use share="pair" or share="none".'
        )
