"""Candidates from elsewhere, for strategies that take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._parts import check_injectable
from ._told import as_array, name_type
from .protocols import State


def inject(
    strategy: Any, state: State, shape: tuple[int, ...], x: ArrayLike | None, gradient: ArrayLike | None
) -> State:
    """Return the state of ``strategy`` with the candidates ``x`` and the one against ``gradient``.

    Raises
    ------
    TypeError  if the strategy cannot do that, or for anything but real numbers.
    ValueError  for arrays of another shape than x0's (candidates: with or without a leading axis), or not finite.
    """
    check_injectable(strategy)
    if x is None and gradient is None:
        raise ValueError("inject() got neither x nor gradient. Pass a candidate, several of them, or a gradient.")
    rows = np.empty((0, state.mean.size))
    if x is not None:
        rows = _check("x", x, shape)
    if gradient is not None:
        slope = _check("gradient", gradient, shape)
        if len(slope) != 1 or not slope.any():
            raise ValueError("inject() got a gradient that is zero, or several. Pass one gradient of f, not zero.")
        rows = np.concatenate([rows, strategy.toward(state, slope[0])[None]])
    return strategy.inject(state, rows)


def _check(name: str, given: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return ``given`` as rows (k, d); raise unless it is one or several finite arrays of ``shape``."""
    array = as_array(given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"inject() got {name} of {name_type(array)}. Pass real numbers of shape {shape}.")
    if shape not in (array.shape, array.shape[1:]):
        raise ValueError(f"inject() got {name} of shape {array.shape}. Pass {shape}, or several, (k, *{shape}).")
    rows = array.reshape(-1, int(np.prod(shape))).astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(f"inject() got {name} with entries that are not finite. Leave those candidates out.")
    return rows
