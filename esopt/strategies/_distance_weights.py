"""What the fast-moving natural evolution strategies share: weights that grow with the distance, phases, constraints."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..noise import Array


class Constants(NamedTuple):
    """Rank weights (n,), their mu_eff, the rate of p_sigma, its expected length, and alpha where all are feasible."""

    ranks: Array
    mass: float
    sigma: float
    expected: float
    distance: float


@lru_cache(maxsize=256)
def constants(dim: int, n: int) -> Constants:
    """Return what Fukushima et al. (2011), section 3, and all that followed take, for a dimension and a population."""
    raw = np.maximum(0.0, math.log(n / 2.0 + 1.0) - np.log(np.arange(1, n + 1)))
    ranks = raw / raw.sum()
    ranks.flags.writeable = False
    mass = float(1.0 / (ranks @ ranks))
    # (1 + h^2) exp(h^2 / 2) / 0.24 = d + 10 by Newton's method, halved steps as in the authors' program.
    h = 6.0
    for _ in range(200):
        value = (1.0 + h * h) * math.exp(h * h / 2.0) / 0.24 - 10.0 - dim
        h -= 0.5 * value / (h * (3.0 + h * h) * math.exp(h * h / 2.0) / 0.24)
    return Constants(
        ranks=ranks,
        mass=mass,
        sigma=(mass + 2.0) / (dim + mass + 5.0),
        expected=math.sqrt(dim) * (1.0 - 1.0 / (4.0 * dim) + 1.0 / (21.0 * dim * dim)),
        distance=h * min(1.0, math.sqrt(n / dim)),
    )


def ordered(values: Array, lengths: Array) -> tuple[NDArray[np.intp], int]:
    """Return the rows from best to worst and how many are feasible: the others (nan, inf) follow by their length."""
    usable = values < math.inf
    keys = np.where(usable, values, 0.0)
    return np.lexsort((np.where(usable, 0.0, lengths), keys, ~usable)), int(usable.sum())


def far(ranks: Array, lengths: Array, alpha: float) -> Array:
    """Return weights that grow with the distance: proportional to rank weight times exp(alpha |z|), less 1 / n."""
    distances = alpha * np.sqrt(lengths)
    raw = ranks * np.exp(distances - distances.max())
    total = float(raw.sum())
    return np.asarray((raw / total if total > 0.0 else ranks) - 1.0 / ranks.size)


def speed(reached: float, feasible: int, dim: int) -> float:
    """Return the learning rate of sigma: movement, stagnation, convergence."""
    if reached >= 1.0:
        return 1.0
    if reached >= 0.1:
        return math.tanh((0.024 * feasible + 0.7 * dim + 20.0) / (dim + 12.0))
    return 2.0 * math.tanh((0.025 * feasible + 0.75 * dim + 10.0) / (dim + 4.0))
