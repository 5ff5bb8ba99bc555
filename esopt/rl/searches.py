"""Searches one after another that share a budget of environment steps: some end badly, however long they go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from .._parts import check_instance
from ..evaluators._rows import check_count
from ..noise import Array, check_seed, child
from ..protocols import State, Strategy
from ..records import Evals, Info, Population

_OWN = 2**32 - 1
"""Makes seeds that no start of a strategy with several of its own has: those are children of the seed that it gets."""


@dataclass(frozen=True, eq=False)
class SearchesState:
    """State of :class:`Searches`: of the last search of each kind, the ``number`` of the one that is on, and ``used``.

    ``used`` are the steps of all searches.
    """

    seed: int
    generation: int
    x0: Array
    number: int
    used: int
    kinds: tuple[State, ...]

    @property
    def inner(self) -> State:
        """State of the search that is on."""
        return self.kinds[self.number % len(self.kinds)]

    @property
    def mean(self) -> Array:
        """Mean of the search that is on."""
        return cast(Array, self.inner.mean)


@dataclass(frozen=True, eq=False)
class Searches:
    """Begin ``inner`` anew, with another seed, at the end of each share of the environment steps but the last one.

    A search that its own stop rules end before that is followed by the next one at once.

    Parameters
    ----------
    inner : any strategy. The first search has the bits of ``inner`` alone.
    _steps : of a share, those of checks included; None for one search.
    _count : shares.
    other : the strategy of every second search, None for ``inner``: where one kind of search fails another one may not
        (an algorithm portfolio).

    Notes
    -----
    The shares are no part of a run's configuration. If it is resumed with a larger budget, the search that was on goes
    on to the end of the share that it is in now.

    References
    ----------
    Huberman, Lukose, Hogg (1997), An economics approach to hard computational problems, for portfolios.

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
    other: Any = None

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        if self.other is not None:
            check_instance("other", self.other, Strategy, "CMAES()")
        for name in ("_steps", "_count"):
            check_count(name, getattr(self, name))

    @property
    def grows(self) -> bool:
        """Whether every search takes larger populations than it asked for."""
        return all(getattr(kind, "grows", False) for kind in self._kinds)

    def init(self, x0: Array, seed: int) -> SearchesState:
        """Return the state before the first generation of the first search, around ``x0`` (d,)."""
        kinds = tuple(self._begin(x0, check_seed(seed), number) for number in range(len(self._kinds)))
        return SearchesState(seed, 0, kinds[0].mean, 0, 0, kinds)

    def ask(self, state: SearchesState) -> Population:
        """Return the population of the search that is on."""
        return cast(Population, self._kind(state.number).ask(state.inner))

    def tell(self, state: SearchesState, evals: Evals) -> tuple[SearchesState, Info]:
        """Return the state after the update; that of the next search if this one has had its share, or has stopped.

        Raises
        ------
        EvaluationError  as the search that is on does.
        """
        kind, number = self._kind(state.number), state.number
        inner, info = kind.tell(state.inner, evals)
        used = state.used + evals.steps
        left = self._left(used)
        if left < self._left(state.used) or (left and kind.stop(inner)):
            number += 1
            inner = self._begin(state.x0, state.seed, number)
            info = replace(info, choices={**info.choices, "search": f"number {number + 1} begins"})
        at = number % len(state.kinds)
        kinds = (*state.kinds[:at], inner, *state.kinds[at + 1 :])
        after = SearchesState(state.seed, state.generation + 1, state.x0, number, used, kinds)
        return after, replace(info, generation=state.generation)

    def stop(self, state: SearchesState) -> dict[str, float]:
        """Return the reasons of the search in the last share; none before that."""
        return {} if self._left(state.used) else cast(dict[str, float], self._kind(state.number).stop(state.inner))

    @property
    def _kinds(self) -> tuple[Any, ...]:
        return (self.inner,) if self.other is None else (self.inner, self.other)

    def _kind(self, number: int) -> Any:
        """Return the strategy of a search."""
        return self._kinds[number % len(self._kinds)]

    def _begin(self, x0: Array, seed: int, number: int) -> State:
        """Return the first state of a search."""
        own = seed if number == 0 else child(child(seed, number), _OWN)
        return cast(State, self._kind(number).init(x0, own))

    def _left(self, used: int) -> int:
        """Return how many shares follow the one that ``used`` steps lie in."""
        return 0 if self._steps is None else max(0, self._count - 1 - used // self._steps)
