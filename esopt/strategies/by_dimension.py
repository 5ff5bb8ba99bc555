"""One strategy for few parameters, another one for many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from .._parts import check_instance
from ..noise import Array
from ..protocols import State, Strategy
from ..records import Evals, Info, Population
from ._layers import keeps_values
from .cmaes import CMAES
from .gradient_es import GradientES


@dataclass(frozen=True, eq=False)
class ByDimension:
    """Search with ``few`` up to ``limit`` parameters, and with ``many`` from there on.

    For settings that are made before the problem is known: a covariance matrix is learned within a budget in few
    dimensions only, and a gradient alone is enough in many.

    Parameters
    ----------
    few, many : any strategies.
    limit : the largest dimension of ``few``.

    Notes
    -----
    The state is that of the one that searches.

    Examples
    --------
    >>> import esopt
    >>> either = esopt.ByDimension(esopt.CMAES(), esopt.SepCMA(), limit=20)
    >>> [type(either.init([0.0] * d, seed=1)).__name__ for d in (20, 21)]
    ['CMAState', 'SepCMAState']
    """

    few: Any = field(default_factory=CMAES)
    many: Any = field(default_factory=GradientES)
    limit: int = 100

    def __post_init__(self) -> None:
        check_instance("few", self.few, Strategy, "CMAES()")
        check_instance("many", self.many, Strategy, "GradientES()")
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 0:
            raise ValueError(f"limit must be a whole number, 0 or more, got {self.limit!r}. Pass for example 100.")

    @property
    def keeps_values(self) -> bool:
        """Whether one of the two compares values of different generations."""
        return any(keeps_values(strategy) for strategy in (self.few, self.many))

    def init(self, x0: Array, seed: int) -> State:
        """Return the state before the first generation, around ``x0`` (d,)."""
        return self.chosen(len(x0)).init(np.array(x0, np.float64), seed)

    def ask(self, state: State) -> Population:
        """Return this generation's population."""
        return cast(Population, self.chosen(state.mean.size).ask(state))

    def tell(self, state: State, evals: Evals) -> tuple[State, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  as the strategy that searches does.
        """
        return cast(tuple[State, Info], self.chosen(state.mean.size).tell(state, evals))

    def stop(self, state: State) -> dict[str, float]:
        """Return the reasons of the strategy that searches."""
        return cast(dict[str, float], self.chosen(state.mean.size).stop(state))

    def chosen(self, dim: int) -> Any:
        """Return the strategy for ``dim`` parameters."""
        return self.few if dim <= self.limit else self.many
