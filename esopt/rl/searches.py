"""Searches one after another that share a budget of environment steps: some end badly, however long they go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from ..noise import Array, check_seed, child
from ..protocols import State
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
    """Begin ``inner`` anew, with a child seed, whenever the search that is on has taken its share of the steps.

    Parameters
    ----------
    inner : any strategy. The first search has the bits of ``inner`` alone.
    _steps : of a search, those of checks included; None for one search. No part of a run's configuration, so that it
        may be resumed with a larger budget.
    """

    inner: Any
    _steps: int | None = None

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
        """Return the state after the update; that of the next search once this one has had its share.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        inner, info = self.inner.tell(state.inner, evals)
        used, number = state.used + evals.steps, state.number
        if self._steps is not None and used // self._steps > number:
            number = used // self._steps
            inner = self.inner.init(state.x0, child(state.seed, number))
            info = replace(info, choices={**info.choices, "search": f"number {number + 1} begins"})
        after = SearchesState(state.seed, state.generation + 1, state.x0, number, used, inner)
        return after, replace(info, generation=state.generation)

    def stop(self, state: SearchesState) -> dict[str, float]:
        """Return the reasons of the search that is on."""
        return cast(dict[str, float], self.inner.stop(state.inner))
