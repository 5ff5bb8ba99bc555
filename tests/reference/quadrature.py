"""Expectations over independent standard normals by tensor Gauss-Hermite rules: exact for polynomials.

q nodes per coordinate integrate degree 2q - 1 in each coordinate. The estimator under test is run on every
combination of nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rule(q: int) -> tuple[Array, Array]:
    """Nodes and weights, (q,) each, for the standard normal law."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(q)
    return nodes, weights / weights.sum()


def grid(coordinates: int, q: int) -> Iterator[tuple[Array, float]]:
    """Every combination of nodes, (coordinates,), and its weight."""
    nodes, weights = rule(q)
    for choice in itertools.product(range(q), repeat=coordinates):
        at = list(choice)
        yield nodes[at], float(np.prod(weights[at]))


class Moments(NamedTuple):
    """Mean and variance of every entry of a vector, and the mean square that the variance is the difference from."""

    mean: Array
    variance: Array
    square: Array


def moments(estimate: Callable[[Array], Array], units: int, dim: int, q: int) -> Moments:
    """Mean and variance of ``estimate(eps)`` over ``units`` independent normal rows eps (units, dim)."""
    points, weights = zip(*grid(units * dim, q), strict=True)
    found = np.array([estimate(point.reshape(units, dim)) for point in points])
    w = np.array(weights)[:, None]
    mean = (w * found).sum(axis=0)
    return Moments(mean, (w * np.square(found - mean)).sum(axis=0), (w * np.square(found)).sum(axis=0))
