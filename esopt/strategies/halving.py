"""Several starts of one search; the better half goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from .._parts import check_instance
from ..noise import Array, check_seed, child
from ..protocols import State, Strategy
from ..records import Evals, Info, Population
from .cmaes import CMAES


@dataclass(frozen=True, eq=False)
class HalvingState:
    """State of :class:`Halving`: those of all ``searches``, dropped ones as they were, and whose ``turn`` it is.

    For each search, (k,): ``left`` says whether it is still in, ``used`` counts its generations of this round, and
    ``best`` is the lowest value of the round.
    """

    seed: int
    generation: int
    searches: tuple[State, ...]
    turn: int
    left: NDArray[np.bool_]
    used: NDArray[np.int64]
    best: Array

    @property
    def inner(self) -> State:
        """State of the search whose turn it is."""
        return self.searches[self.turn]

    @property
    def mean(self) -> Array:
        """Mean of that search."""
        return cast(Array, self.inner.mean)


@dataclass(frozen=True, eq=False)
class Halving:
    """Start ``inner`` several times, and go on with what is best: for functions where some starts end badly.

    The searches begin at the same point, with child seeds, and take turns. After a round, ``generations`` of each, the
    half with the lowest values in that round goes on, rounded down, until one search is left: it has the rest of the
    budget. A search that its stop rules end waits for the end of the round.

    Parameters
    ----------
    inner : any strategy.
    starts : searches of the first round; 3 become 1, and 4 become 2.
    generations : of each search in a round.

    References
    ----------
    Jamieson and Talwalkar (2016), Non-stochastic best arm identification and hyperparameter optimization.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> def wells(x): return float(np.sum((np.abs(x) - 3.0) ** 2 + x))  # four, -6.5 in the deepest
    >>> once = esopt.CMAES(sigma=2.0)
    >>> [sum(esopt.minimize(wells, [1.0, 1.0], strategy=strategy, evaluations=600, seed=k).value < -6.0
    ...      for k in range(20)) for strategy in (once, esopt.Halving(once, starts=4, generations=4))]
    [14, 18]
    """

    keeps_values: ClassVar[bool] = True

    inner: Any = field(default_factory=CMAES)
    starts: int = 3
    generations: int = 3

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        for name in ("starts", "generations"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a positive whole number, got {number!r}. Pass for example 3.")

    def init(self, x0: Array, seed: int) -> HalvingState:
        """Return the state before the first generation, with all searches at ``x0`` (d,)."""
        seeds = [child(check_seed(seed), number) for number in range(self.starts)]
        searches = tuple(self.inner.init(x0, own) for own in seeds)
        return HalvingState(
            seed,
            *(0, searches, 0),
            *(np.ones(self.starts, np.bool_), np.zeros(self.starts, np.int64), np.full(self.starts, math.inf)),
        )

    def ask(self, state: HalvingState) -> Population:
        """Return the population of the search whose turn it is."""
        return cast(Population, self.inner.ask(state.inner))

    def tell(self, state: HalvingState, evals: Evals) -> tuple[HalvingState, Info]:
        """Return the state after the update of that search, and who is next.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        turn = state.turn
        search, info = self.inner.tell(state.inner, evals)
        searches = (*state.searches[:turn], search, *state.searches[turn + 1 :])
        used, best = state.used.copy(), state.best.copy()
        used[turn] += 1
        best[turn] = np.fmin(best[turn], np.fmin.reduce(evals.values, initial=math.inf))
        after = replace(state, generation=state.generation + 1, searches=searches, used=used, best=best)
        if state.left.sum() > 1:
            after = self._follow(after)
            note = f"search {turn + 1}, {int(after.left.sum())} left"
            info = replace(info, choices={**info.choices, "start": note})
        return after, replace(info, generation=state.generation)

    def stop(self, state: HalvingState) -> dict[str, float]:
        """Return the reasons of the last search that is left; none before that."""
        return {} if state.left.sum() > 1 else cast(dict[str, float], self.inner.stop(state.inner))

    def _follow(self, state: HalvingState) -> HalvingState:
        """Return the state with the next search on turn, after the end of a round if this is one."""
        left, used, best = state.left, state.used, state.best
        while True:
            ready = left & (used < self.generations)
            ready &= [
                not (in_turn and self.inner.stop(search)) for in_turn, search in zip(ready, state.searches, strict=True)
            ]
            if not ready.any() and left.sum() > 1:
                places = np.flatnonzero(left)
                order = places[np.argsort(best[places], kind="stable")]
                left, used, best = np.zeros_like(left), np.zeros_like(used), np.full_like(best, math.inf)
                left[order[: order.size // 2]] = True
                continue
            places = np.flatnonzero(ready if ready.any() else left)
            return replace(state, turn=int(places[np.argmin(used[places])]), left=left, used=used, best=best)
