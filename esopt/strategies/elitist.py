"""A search whose best candidate is seen again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._parts import check_injectable
from ..protocols import State
from ..records import Evals, Info
from ._around import Around


@dataclass(frozen=True, eq=False)
class Elitist(Around):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_injectable(self.inner)

    def tell(self, state: State, evals: Evals) -> tuple[State, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        population, values = self.ask(state), evals.values
        after, info = super().tell(state, evals)
        if np.isnan(values).all():
            return after, info
        best = population[int(np.nanargmin(values))]
        return self.inner.inject(after, best[None, :]), info
