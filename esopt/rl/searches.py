"""Searches one after another that share a budget of environment steps: some end badly, however long they go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from .._parts import check_instance
from ..evaluators._rows import check_count
from ..noise import Array, check_seed, child
from ..protocols import State, Strategy
from ..records import Evals, Info, Population


@dataclass(frozen=True, eq=False)
class SearchesState:
    """State of :class:`Searches`: that of the search which is on, its ``number``, and the steps ``used`` by all."""

    seed: int
    generation: int
    x0: Array
    number: int
    used: int
    inner: State

    @property
    def mean(self) -> Array:
        """Mean of the search that is on."""
        return cast(Array, self.inner.mean)


@dataclass(frozen=True, eq=False)
class Searches:
    """Begin ``inner`` anew, with a child seed, at the end of each share of the environment steps but the last one.

    A search that its own stop rules end before that is followed by the next one at once.

    Parameters
    ----------
    inner : any strategy. The first search has the bits of ``inner`` alone.
    _steps : of a share, those of checks included; None for one search.
    _count : shares.

    Notes
    -----
    The shares are no part of a run's configuration. If it is resumed with a larger budget, the search that was on goes
    on to the end of the share that it is in now.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> from esopt.rl import Searches
    >>> strategy = Searches(esopt.CMAES(n=4), 100, 2)
    >>> state, numbers = strategy.init(np.zeros(2), seed=1), []
    >>> for _ in range(6):
    ...     state, _ = strategy.tell(state, esopt.Evals(strategy.ask(state).rows().sum(axis=1), steps=40))
    ...     numbers.append(state.number)
    >>> numbers
    [0, 0, 1, 1, 1, 1]
    """

    inner: Any
    _steps: int | None = None
    _count: int = 1

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        for name in ("_steps", "_count"):
            check_count(name, getattr(self, name))

    @property
    def grows(self) -> bool:
        """Whether ``inner`` takes larger populations than it asked for."""
        return bool(getattr(self.inner, "grows", False))

    def init(self, x0: Array, seed: int) -> SearchesState:
        """Return the state before the first generation of the first search, around ``x0`` (d,)."""
        inner = self.inner.init(x0, check_seed(seed))
        return SearchesState(seed, 0, inner.mean, 0, 0, inner)

    def ask(self, state: SearchesState) -> Population:
        """Return the population of the search that is on."""
        return cast(Population, self.inner.ask(state.inner))

    def tell(self, state: SearchesState, evals: Evals) -> tuple[SearchesState, Info]:
        """Return the state after the update; that of the next search if this one has had its share, or has stopped.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        inner, info = self.inner.tell(state.inner, evals)
        used, number = state.used + evals.steps, state.number
        left = self._left(used)
        if left < self._left(state.used) or (left and self.inner.stop(inner)):
            number += 1
            inner = self.inner.init(state.x0, child(state.seed, number))
            info = replace(info, choices={**info.choices, "search": f"number {number + 1} begins"})
        after = SearchesState(state.seed, state.generation + 1, state.x0, number, used, inner)
        return after, replace(info, generation=state.generation)

    def stop(self, state: SearchesState) -> dict[str, float]:
        """Return the reasons of the search in the last share; none before that."""
        return {} if self._left(state.used) else cast(dict[str, float], self.inner.stop(state.inner))

    def _left(self, used: int) -> int:
        """Return how many shares follow the one that ``used`` steps lie in."""
        return 0 if self._steps is None else max(0, self._count - 1 - used // self._steps)
