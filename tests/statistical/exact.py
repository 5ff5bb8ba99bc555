"""Running an estimator on quadrature nodes, for the exact tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from esopt import Evals, Given, Population
from esopt.protocols import Estimator
from tests.reference import quadrature
from tests.reference.oracles import Polynomial
from tests.reference.quadrature import Moments

Array = NDArray[np.float64]

SCALES = {"scalar": 0.7, "diagonal": np.array([0.7, 1.1, 0.4])}


def mean(dim: int) -> Array:
    """Where J is differentiated."""
    return np.array([0.5, -0.4, 0.8])[:dim]


def quadratic(dim: int) -> Polynomial:
    """With a full, indefinite Hessian, different in every coordinate."""
    q = np.array([[1.5, 0.4, -0.3], [0.4, -0.6, 0.2], [-0.3, 0.2, 0.9]])[:dim, :dim]
    return Polynomial(1.9, np.array([-1.0, 0.7, 0.5])[:dim], q, np.zeros(dim))


def cubic(dim: int) -> Polynomial:
    """The quadratic with third derivatives."""
    even = quadratic(dim)
    return Polynomial(even.c, even.b, even.q, np.array([0.8, -1.2, 0.5])[:dim])


def scale_of(kind: str, dim: int) -> Any:
    """The scale as a population has it: a float or (d,)."""
    scale = SCALES[kind]
    return scale if isinstance(scale, float) else scale[:dim]


def sigma_of(kind: str, dim: int) -> Array:
    """The same as (d,)."""
    return np.broadcast_to(np.asarray(scale_of(kind, dim)), dim).astype(np.float64)


def run(
    estimator: Estimator, problem: Any, kind: str, units: int, dim: int, q: int, *, pair: bool, state: Any = None
) -> dict[str, Moments]:
    """Moments of the estimate, and of its squared standard errors, over ``units`` rows or mirrored pairs.

    Keys: mean (d,), scale () or (d,), value, and with "_error2" behind them the squared standard errors.
    """
    at, scale = mean(dim), scale_of(kind, dim)
    state = estimator.init(dim) if state is None else state
    sizes: dict[str, int] = {}

    def estimate(eps: Array) -> Array:
        rows = np.stack([eps, -eps], axis=1).reshape(-1, dim) if pair else eps
        population = estimator.prepare(Population(at, scale, Given(rows, 2 if pair else 1, pair)), state)
        x = population.rows()
        gradient, _ = estimator.estimate(population, Evals(problem.f(x), problem.grad(x)), state)
        found = {"mean": gradient.mean, "scale": gradient.scale, "value": gradient.value}
        if units > 1:
            found["mean_error2"] = np.square(gradient.mean_stderr)
            found["scale_error2"] = np.square(gradient.scale_stderr)
            found["value_error2"] = np.square(gradient.value_stderr)
        sizes.update({key: np.size(value) for key, value in found.items()})
        return np.concatenate([np.atleast_1d(value) for value in found.values()])

    both = quadrature.moments(estimate, units, dim, q)
    cuts = np.cumsum(list(sizes.values()))[:-1]
    parts = zip(*(np.split(part, cuts) for part in both), strict=True)
    return {key: Moments(*part) for key, part in zip(sizes, parts, strict=True)}


def agree(found: Array, expected: Any, size: Array, tolerance: float = 1e-12) -> bool:
    """Whether every entry is as expected, relative to ``size``, the mean square that variances are differences from."""
    expected = np.atleast_1d(expected)
    return found.shape == expected.shape and bool(np.all(np.abs(found - expected) <= tolerance * (size + 1e-3)))


def unbiased(found: dict[str, Moments], problem: Any, kind: str, dim: int) -> None:
    """Compare the means with the closed forms."""
    at, sigma = mean(dim), sigma_of(kind, dim)
    by_log = problem.log_scale_gradient(at, sigma)
    scale = by_log.sum() / sigma[0] if kind == "scalar" else by_log
    expected = {"mean": problem.mean_gradient(at, sigma), "scale": scale, "value": problem.smoothed(at, sigma)}
    for key, value in expected.items():
        assert agree(found[key].mean, value, np.sqrt(found[key].square)), key


def varies(found: dict[str, Moments], expected: dict[str, Any]) -> None:
    """Compare the variances."""
    for key, value in expected.items():
        assert agree(found[key].variance, value, found[key].square), key


def errors(found: dict[str, Moments], expected: dict[str, Any]) -> None:
    """Compare the mean squares of the standard errors."""
    for key, value in expected.items():
        assert agree(found[f"{key}_error2"].mean, value, found[key].square), key
