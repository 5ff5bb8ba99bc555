"""Strategies around strategies, and their states: what is inside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def layers(outer: Any) -> Iterator[Any]:
    """Yield a strategy, or a state, and what is ``inner`` of it, from the outside to the inside."""
    while outer is not None:
        yield outer
        outer = getattr(outer, "inner", None)


def name_layers(strategy: Any) -> str:
    """Return the names of a strategy and of those inside, for example "Bounded(Portfolio)"."""
    names = [type(layer).__name__ for layer in layers(strategy)]
    return "(".join(names) + ")" * (len(names) - 1)


def keeps_values(strategy: Any) -> bool:
    """Return whether a strategy, or one inside, compares values of different generations: a class that does says so.

    Such a class has ``keeps_values = True``. It needs an f that does not change.
    """
    return any(getattr(layer, "keeps_values", False) for layer in layers(strategy))
