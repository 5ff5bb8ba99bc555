"""What a gradient costs, measured in values."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .objective import Objective

_REPEATS = 9
_SECONDS = 2e-3
_LONGEST = 10_000


def gradient_cost(
    f: Callable[..., Any] | Objective, grad: Callable[..., Any] | None, x: ArrayLike, *, seed: int = 0
) -> float:
    """Measure what a gradient costs in values, for ``compare_estimators(grad_cost=...)`` and the like.

    Parameters
    ----------
    f, grad : functions of x; or an :class:`esopt.Objective`, with None for its own gradient.
    x : where to call them, in the shape that they expect. For functions of a batch, a batch.
    seed : passed on if the objective is ``seeded``.

    Returns
    -------
    float  a ratio of times, each the least of 9 that take about 2 ms, because other work on the machine only ever adds
    to them. Both are called before, so that compilation does not count.

    Raises
    ------
    ValueError  if there is no gradient.

    Notes
    -----
    It times calls from Python, with their overhead. Where :class:`esopt.Compiled` calls f from a compiled loop, or f
    takes less than about a microsecond, it says little.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> cost = esopt.gradient_cost(lambda x: (x**2).sum(), lambda x: 2.0 * x, np.ones(1000))
    >>> 0.01 < cost < 100.0
    True
    """
    objective = f if isinstance(f, Objective) else Objective(f, grad)
    slope = objective.grad if grad is None else grad
    if slope is None:
        raise ValueError("gradient_cost() got no gradient. Pass grad, or an Objective that has one.")
    point = np.array(x, np.float64)
    arguments = (point, seed, *objective.args) if objective.seeded else (point, *objective.args)
    functions = objective.f, slope
    counts = [_calls(function, arguments) for function in functions]
    rounds = [
        [_time(function, arguments, count) for function, count in zip(functions, counts, strict=True)]
        for _ in range(_REPEATS)
    ]
    value, gradient = map(min, zip(*rounds, strict=True))
    return float(gradient / value)


def _calls(function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Warm up, and return how many calls take long enough to be timed."""
    _time(function, arguments, 1)
    each = min(_time(function, arguments, 1) for _ in range(2))
    return min(_LONGEST, 1 + int(_SECONDS / each))


def _time(function: Callable[..., Any], arguments: tuple[Any, ...], count: int) -> float:
    """Return the seconds of one call, from ``count`` of them; x is copied for each, as evaluators do."""
    x, *rest = arguments
    start = time.perf_counter()
    for _ in range(count):
        function(x.copy(), *rest)
    return max((time.perf_counter() - start) / count, 1e-9)
