"""What the user's functions returned: read, or refused in words."""

from __future__ import annotations

import math

import numpy as np

from ..noise import Array
from ..objective import CONSTRAINTS, Outcome


class _BadResult(Exception):
    """What a function returned, in words; and what was expected, where that is not plain from the function."""


def number(result: object) -> tuple[float, int]:
    """Return the value and the steps in what an objective returned."""
    if isinstance(result, float):
        return float(result), 0
    if isinstance(result, Outcome):
        return number(result.value)[0], steps_of(result.steps)
    array = _real(result)
    if array.size != 1:
        raise _BadResult(describe(result))
    return float(array.reshape(-1)[0]), 0


def numbers(result: object, count: int) -> tuple[Array, int]:
    """Return the values (count,) and the sum of the steps in what a function of rows returned."""
    if isinstance(result, Outcome):
        return numbers(result.value, count)[0], steps_of(result.steps)
    array = _real(result)
    if array.shape != (count,):
        raise _BadResult(describe(result))
    return array.astype(np.float64), 0


def steps_of(steps: object) -> int:
    """Return the steps of an outcome: one non-negative integer, or the sum of an array of them."""
    array = np.asarray(steps)
    if array.dtype.kind not in "iu" or (array < 0).any():
        raise _BadResult(f"an Outcome with steps={steps!r}, which are not non-negative integers")
    return int(array.sum())


def derivatives(need: str, result: object, shape: tuple[int, ...], count: int | None = None) -> Array:
    """Return what the function of ``need`` returned for x of ``shape``, or for ``count`` of them, flat and float64.

    Returns
    -------
    (d,) for "grads" and "hvps", (d,) or (d, d) for "hessians", () for "jvps", any number of constraints; of rows, with
    ``count`` in front.
    """
    array = _real(result)
    batch = () if count is None else (count,)
    flat: tuple[int, ...] = (math.prod(shape),)
    if need in CONSTRAINTS:
        columns = array.shape[len(batch) :]
        # A Boolean would be a number with the wrong sign: True, "it holds", is 1, and a violation.
        good = array.dtype != np.bool_ and array.shape[: len(batch)] == batch and len(columns) < 2 and 0 not in columns
        flat = columns or (1,)
    elif need == "jvps":
        good, flat = array.shape == batch or (count is None and array.size == 1), ()
    elif need != "hessians":
        good = array.shape == (*batch, *shape)
    elif array.shape in ((*batch, *shape, *shape), (*batch, *flat, *flat)):
        good, flat = True, flat * 2
    else:
        good = array.shape in ((*batch, *shape), (*batch, *flat))
    if not good:
        raise _BadResult(describe(result))
    return array.astype(np.float64).reshape((*batch, *flat))


def expected(part: str, shape: tuple[int, ...], count: int | None = None) -> str:
    """Return in words what the function ``part`` of x of ``shape``, or of ``count`` of them, may return."""
    batch, dim = () if count is None else (count,), math.prod(shape)
    if part == "f" and count is None:
        return "a number (lower is better, nan for a failed evaluation) or an esopt.Outcome of two numbers"
    if part == "f":
        return f"shape {batch}, one number for each row, or an esopt.Outcome of such values"
    if part in CONSTRAINTS:
        return (
            "a number or an array (m,), not Booleans"
            if count is None
            else f"shape {batch} or {(count, 'm')}".replace("'", "")
        )
    if part == "jvp":
        return "a number" if count is None else f"shape {batch}, one number for each row"
    if part == "hess":
        full, diagonal, an = (*batch, dim, dim), (*batch, dim), "an array of " if count is None else ""
        return f"{an}shape {full}, or the diagonal, {diagonal}; the same for every candidate"
    if count is None:
        return f"an array of shape {shape}, the shape of x"
    return f"shape {(*batch, *shape)}, the shape of the rows"


def describe(result: object) -> str:
    """Name what was returned: its type, and its shape if it has one."""
    if result is None:
        return "None"
    if hasattr(result, "shape"):
        return f"an array of shape {tuple(result.shape)} and type {getattr(result, 'dtype', type(result).__name__)}"
    return f"{result!r}, of type {type(result).__name__}"[-200:]


def _real(result: object) -> Array:
    """Return an array of real numbers."""
    try:
        array = np.asarray(result)
    except Exception as error:
        raise _BadResult(describe(result)) from error
    if array.dtype.kind not in "fiub":
        raise _BadResult(describe(result))
    return array
