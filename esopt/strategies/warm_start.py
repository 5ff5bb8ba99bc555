"""A first mean and covariance for CMA-ES from what earlier, similar runs found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..noise import Array
from ..schedules import check_nonnegative, check_positive


class WarmStart(NamedTuple):
    """Where to begin: ``mean`` (d,) as x0, and a factor of the covariance (d, d) as the sigma of :class:`CMAES`."""

    mean: Array
    factor: Array


def warm_start(solutions: Iterable[Any], *, gamma: float = 0.1, alpha: float = 0.1) -> WarmStart:
    """Return the normal distribution closest to the promising region of a similar function.

    Every one of the best ``gamma`` N solutions stands for a normal distribution N(x_i, alpha^2 I); of their mixture the
    mean and the covariance alpha^2 I + (1 / M) sum_i (x_i - mean)(x_i - mean)^T are taken.

    Parameters
    ----------
    solutions : pairs (x, value), lower is better, or results of :func:`esopt.minimize`; those without a finite value
        are left out.
    gamma : share of the solutions that counts as promising; at least one does.
    alpha : standard deviation around each of them: 0.1 for coordinates that go from 0 to 1, in proportion for others.

    References
    ----------
    Nomura, Watanabe, Akimoto, Ozaki, Onishi (2021), Warm starting CMA-ES for hyperparameter optimization,
    arXiv:2012.06932, eqs. 7-9 and the settings of section 5.

    Examples
    --------
    >>> import esopt, numpy as np
    >>> def shifted(x, by): return float(((x - by) ** 2).sum())
    >>> points = esopt.Halton().noise(esopt.Key(1), 200, 3).rows()
    >>> start = esopt.warm_start([(x, shifted(x, 0.4)) for x in points])
    >>> strategy = esopt.CMAES(sigma=start.factor)
    >>> warm = esopt.minimize(shifted, start.mean, args=(0.5,), strategy=strategy, target=1e-8)
    >>> bool(warm.value <= 1e-8)
    True
    """
    check_nonnegative("gamma", gamma)
    check_positive("alpha", alpha)
    if not (isinstance(gamma, Real) and 0.0 < gamma <= 1.0):
        raise ValueError(f"gamma must be in (0, 1], got {gamma}. The paper takes 0.1.")
    points, values = _unpack(solutions)
    usable = np.flatnonzero(np.isfinite(values))
    if not usable.size:
        raise ValueError(f"warm_start() got {values.size} solutions, none with a finite value. Pass pairs (x, value).")
    best = usable[np.argsort(values[usable], kind="stable")][: max(1, math.floor(gamma * usable.size))]
    promising = points[best]
    mean = promising.mean(axis=0)
    away = promising - mean
    cov = alpha * alpha * np.eye(mean.size) + away.T @ away / len(promising)
    return WarmStart(mean, np.linalg.cholesky(cov))


def _unpack(solutions: Iterable[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points (N, d) and values (N,)."""
    points, values = [], []
    for solution in solutions:
        x, value = (solution.x, solution.value) if hasattr(solution, "value") else solution
        points.append(np.asarray(x, np.float64).reshape(-1))
        values.append(float(value))
    if len({x.size for x in points}) > 1:
        raise ValueError(
            f"warm_start() got points of sizes {sorted({x.size for x in points})}. Pass points of one size."
        )
    if not points:
        raise ValueError("warm_start() got no solutions. Pass pairs (x, value) of an earlier run.")
    return np.array(points), np.array(values)
