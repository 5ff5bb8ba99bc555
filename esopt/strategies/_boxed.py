"""Bounds and integers of a run: where their wrappers go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..maps import Map
from .augmented_lagrangian import AugmentedLagrangian
from .bounded import Bounded
from .margin import with_margin


def boxed(strategy: Any, box: Map) -> Any:
    """Return ``strategy`` inside ``box``, with a margin where that rounds.

    An :class:`esopt.AugmentedLagrangian` stays outside: the penalty of a box belongs to the search, and not to the
    values of candidates that it compares and reports.
    """
    if isinstance(strategy, AugmentedLagrangian):
        return replace(strategy, inner=boxed(strategy.inner, box))
    return Bounded(with_margin(strategy, box), box)
