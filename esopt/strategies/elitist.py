"""A search whose best candidate is seen again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from .._parts import check_injectable, check_instance
from ..noise import Array
from ..protocols import State, Strategy
from ..records import Evals, Info, Population
from .cmaes import CMAES


@dataclass(frozen=True, eq=False)
class Elitist:
    """Evaluate the best candidate of a generation again in the next one: for good values that are rare.

    It keeps its place for as long as no other is better, and draws the mean towards it; where values are random, or
    change, it has to be the best every time. That is one evaluation more for each generation but the first.

    Parameters
    ----------
    inner : a strategy that takes candidates from elsewhere, such as :class:`CMAES`, which bounds how far one may draw.

    Notes
    -----
    The state is that of ``inner``. It goes around :class:`Restarts`, not inside; candidates of one's own go to
    ``inner``, not to this; runs are neither compiled nor asynchronous.

    References
    ----------
    Hansen (2011), Injecting external solutions into CMA-ES.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> strategy = esopt.Elitist(esopt.CMAES(n=8))
    >>> state = strategy.init(np.array([1.0, 2.0]), seed=1)
    >>> rows = strategy.ask(state).rows()
    >>> state, _ = strategy.tell(state, esopt.Evals((rows**2).sum(axis=1)))
    >>> following = strategy.ask(state).rows()
    >>> len(rows), len(following), bool((following[8] == rows[(rows**2).sum(axis=1).argmin()]).all())
    (8, 9, True)
    """

    inner: Any = field(default_factory=CMAES)

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")
        check_injectable(self.inner)

    def init(self, x0: Array, seed: int) -> State:
        """Return the state of ``inner`` before the first generation, around ``x0`` (d,)."""
        return self.inner.init(x0, seed)

    def ask(self, state: State) -> Population:
        """Return the population of ``inner``, with the best candidate of the last generation as an explicit row."""
        return cast(Population, self.inner.ask(state))

    def tell(self, state: State, evals: Evals) -> tuple[State, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        population, values = self.ask(state), evals.values
        after, info = self.inner.tell(state, evals)
        if np.isnan(values).all():
            return after, info
        best = population[int(np.nanargmin(values))]
        return self.inner.inject(after, best[None, :]), info

    def stop(self, state: State) -> dict[str, float]:
        """Return the reasons of ``inner``."""
        return cast(dict[str, float], self.inner.stop(state))
