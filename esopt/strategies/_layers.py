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
    inside = ", ".join(name_layers(each) for each in _inside(strategy))
    return type(strategy).__name__ + (f"({inside})" if inside else "")


def keeps_values(strategy: Any) -> bool:
    """Return whether a strategy, or one inside, compares values of different generations: a class that does says so.

    Such a class has ``keeps_values = True``. It needs an f that does not change.
    """
    return bool(getattr(strategy, "keeps_values", False)) or any(map(keeps_values, _inside(strategy)))


def _inside(strategy: Any) -> list[Any]:
    """Return what is ``inner`` of a strategy and, in one of two kinds, the ``other``."""
    return [each for each in (getattr(strategy, name, None) for name in ("inner", "other")) if each is not None]
