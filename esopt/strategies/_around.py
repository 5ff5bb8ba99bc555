"""A strategy around another one whose state it shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from .._parts import check_instance
from ..noise import Array
from ..protocols import State, Strategy
from ..records import Evals, Info, Population
from .cmaes import CMAES


@dataclass(frozen=True, eq=False)
class Around:
    """The strategy ``inner``, of which a subclass changes one thing."""

    inner: Any = field(default_factory=CMAES)

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Strategy, "CMAES()")

    def init(self, x0: Array, seed: int) -> State:
        """Return the state of ``inner`` before the first generation, around ``x0`` (d,)."""
        return self.inner.init(x0, seed)

    def ask(self, state: State) -> Population:
        """Return the population of ``inner``."""
        return cast(Population, self.inner.ask(state))

    def tell(self, state: State, evals: Evals) -> tuple[State, Info]:
        """Return the state after the update, and what was learned.

        Raises
        ------
        EvaluationError  as ``inner`` does.
        """
        return cast(tuple[State, Info], self.inner.tell(state, evals))

    def stop(self, state: State) -> dict[str, float]:
        """Return the reasons of ``inner``."""
        return cast(dict[str, float], self.inner.stop(state))
