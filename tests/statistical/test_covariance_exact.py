"""The gradient of the covariance from values, gradients and second derivatives has the exact mean and variance of the
theory (S1 to S8, D1 to D5, F1 to F5): all nodes, agreement to 1e-12.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esopt import Bonnet, Evals, Given, Linear, NoBaseline, Population, Price, Rademacher, Score
from esopt.baselines.linear import LinearState
from esopt.baselines.moving_average import MovingAverage, MovingAverageState
from esopt.estimators.score import ScoreState
from esopt.protocols import Estimator
from tests.reference import quadrature
from tests.reference.oracles import Polynomial
from tests.reference.quadrature import Moments
from tests.statistical import exact
from tests.statistical.exact import Array

FACTOR = np.array([[0.7, -0.2, 0.1], [0.3, 1.1, -0.4], [-0.2, 0.5, 0.6]])
SCALES: dict[str, Any] = {**exact.SCALES, "factor": FACTOR}


def scale_of(kind: str, dim: int) -> Any:
    scale = SCALES[kind]
    return scale if isinstance(scale, float) else scale[(slice(dim),) * scale.ndim]


def factor_of(kind: str, dim: int) -> Array:
    scale = scale_of(kind, dim)
    return scale if np.ndim(scale) == 2 else np.diag(np.broadcast_to(scale, dim))


def hessians(problem: Polynomial, x: Array) -> Array:
    return problem.q + (x * problem.t)[:, :, None] * np.eye(x.shape[1])


def local(problem: Polynomial, dim: int, kind: str = "factor") -> tuple[float, Array, Array]:
    """Value, gradient and Hessian at the mean in the coordinates of eps."""
    at, factor = exact.mean(dim), factor_of(kind, dim)
    return float(problem.f(at)), factor.T @ problem.grad(at), factor.T @ hessians(problem, at[None])[0] @ factor


def truth(problem: Polynomial, kind: str, dim: int) -> dict[str, Any]:
    """Gradient of the mean and of the scale."""
    at, factor, scale = exact.mean(dim), factor_of(kind, dim), scale_of(kind, dim)
    _, _, h = local(problem, dim, kind)
    spread = np.diag(factor @ factor.T)
    by_scale = {"scalar": np.trace(h) / np.mean(scale), "diagonal": np.diag(h), "factor": 0.5 * h}
    return {"mean": problem.grad(at) + 0.5 * problem.t * spread, "scale": by_scale[kind]}


def run(
    estimator: Estimator,
    problem: Polynomial,
    kind: str,
    units: int,
    dim: int,
    q: int,
    *,
    pair: bool = False,
    state: Any = (),
    probes: Array | None = None,
    diagonals: bool = False,
) -> dict[str, Moments]:
    """Moments of mean, scale and, for several units, of the squares of their errors; all of them flat."""
    at, scale = exact.mean(dim), scale_of(kind, dim)
    shapes: dict[str, int] = {}

    def estimate(eps: Array) -> Array:
        rows = np.stack([eps, -eps], axis=1).reshape(-1, dim) if pair else eps
        population = estimator.prepare(Population(at, scale, Given(rows, 2 if pair else 1, pair)), state)
        x = population.rows()
        second = hessians(problem, x)
        hvps = None
        if probes is not None:
            population = replace(population, probes=Given(probes))
            hvps = np.einsum("ijk,ik->ij", second, probes)
        given = np.einsum("ijj->ij", second) if diagonals else second
        evals = Evals(problem.f(x), problem.grad(x), hessians=given, hvps=hvps)
        gradient, _ = estimator.estimate(population, evals, state)
        found = {"mean": gradient.mean, "scale": gradient.scale}
        assert np.shape(gradient.scale) == np.shape(scale)
        if kind == "factor":
            np.testing.assert_array_equal(gradient.scale, gradient.scale.T)
            np.testing.assert_array_equal(gradient.scale_stderr, gradient.scale_stderr.T)
        if units > 1:
            found |= {"mean_error2": gradient.mean_stderr**2, "scale_error2": np.square(gradient.scale_stderr)}
        shapes.update({key: np.size(value) for key, value in found.items()})
        return np.concatenate([np.ravel(value) for value in found.values()])

    both = quadrature.moments(estimate, units, dim, q)
    cuts = np.cumsum(list(shapes.values()))[:-1]
    return {
        key: Moments(*part)
        for key, part in zip(shapes, zip(*(np.split(p, cuts) for p in both), strict=True), strict=True)
    }


def unbiased(found: dict[str, Moments], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        assert exact.agree(found[key].mean, np.ravel(value), np.sqrt(found[key].square)), key


def errors_are_variances(found: dict[str, Moments]) -> None:
    for key in ("mean", "scale"):
        assert exact.agree(found[f"{key}_error2"].mean, found[key].variance, found[key].square), key


def total(found: Moments, expected: float) -> bool:
    return abs(float(found.variance.sum()) - expected) <= 1e-12 * float(found.square.sum())


def full_score(a: Array, h: Array, beta: float, *, pair: bool) -> float:
    """F1 and F2: total variance of (y - b)(eps eps^T - I) / 2 with beta = m - b."""
    d, h1, h2 = a.size, float(np.trace(h)), float((h * h).sum())
    odd = 0.0 if pair else (d + 1) * (d + 4) * float(a @ a)
    return 0.25 * (d * (d + 1) * beta**2 + 4 * (d + 1) * beta * h1 + odd + 0.5 * (d + 2) * (d + 7) * h2 + 2 * h1**2)


def full_slopes(a: Array, h: Array, *, pair: bool) -> float:
    """F3 and F4."""
    d, h1, h2 = a.size, float(np.trace(h)), float((h * h).sum())
    return 0.125 * ((0.0 if pair else (d + 1) * float(a @ a)) + (d + 2) * h2 + h1**2)


BASELINES = {
    "none": (NoBaseline(), ScoreState(())),
    "average": (MovingAverage(0.5), ScoreState(MovingAverageState(0.65, 0.5))),
    "tangent": (Linear(0.5), ScoreState(LinearState(np.array([0.3, -0.6, 0.2]), 0.5))),
}


def baseline(name: str, dim: int) -> tuple[Score, ScoreState]:
    part, state = BASELINES[name]
    if name == "tangent":
        state = ScoreState(LinearState(np.array([0.3, -0.6, 0.2])[:dim], 0.5))
    return Score(part, with_scale=True), state


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("name", "b"), [("none", 0.0), ("average", 1.3)])
def test_values_of_one_unit(name: str, b: float, dim: int, pair: bool) -> None:
    """F1, F2."""
    problem = exact.quadratic(dim)
    estimator, state = baseline(name, dim)
    found = run(estimator, problem, "factor", 1, dim, 5, pair=pair, state=state)
    c, a, h = local(problem, dim)

    unbiased(found, truth(problem, "factor", dim))
    assert total(found["scale"], full_score(a, h, c + 0.5 * np.trace(h) - b, pair=pair))


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize(("units", "dim"), [(3, 1), (2, 2)])
@pytest.mark.parametrize("name", ["none", "average", "tangent"])
def test_values_of_several_units(name: str, units: int, dim: int, pair: bool) -> None:
    """Squared errors of mean and matrix expect the variances; a control variate changes no expectation."""
    problem = exact.quadratic(dim)
    estimator, state = baseline(name, dim)
    found = run(estimator, problem, "factor", units, dim, 5, pair=pair, state=state)

    unbiased(found, truth(problem, "factor", dim))
    if name != "tangent":  # its leave-one-out mean ties the units together
        errors_are_variances(found)


@pytest.mark.parametrize("name", ["none", "average", "tangent"])
@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
def test_values_of_a_cubic(name: str, pair: bool) -> None:
    estimator, state = baseline(name, 2)
    found = run(estimator, exact.cubic(2), "factor", 2, 2, 3, pair=pair, state=state)

    unbiased(found, truth(exact.cubic(2), "factor", 2))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_best_constant(dim: int) -> None:
    """S2: with b = m + 2 sigma^2 tr H / d the variance is that at b = m less 8 sigma^2 (tr H)^2 / d."""
    problem, sigma = exact.quadratic(dim), exact.SCALES["scalar"]
    c, _, h = local(problem, dim, "scalar")
    h1 = float(np.trace(h))
    found = []
    for b in (c + 0.5 * h1, c + 0.5 * h1 + 2.0 * h1 / dim):
        state = ScoreState(MovingAverageState(b, 1.0))
        found.append(run(Score(MovingAverage(), with_scale=True), problem, "scalar", 1, dim, 5, state=state)["scale"])

    gain = float((found[0].variance - found[1].variance).sum())
    assert abs(gain - 8.0 * h1**2 / (dim * sigma**2)) <= 1e-12 * float(found[0].square.sum())


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize(("units", "dim"), [(1, 1), (1, 2), (1, 3), (2, 2)])
def test_gradients(units: int, dim: int, pair: bool) -> None:
    """F3, F4."""
    problem = exact.quadratic(dim)
    found = run(Bonnet(with_scale=True), problem, "factor", units, dim, 3, pair=pair)
    _, a, h = local(problem, dim)

    unbiased(found, truth(problem, "factor", dim))
    assert total(found["scale"], full_slopes(a, h, pair=pair) / units)
    if units > 1:
        errors_are_variances(found)


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
def test_gradients_of_a_cubic(pair: bool) -> None:
    found = run(Bonnet(with_scale=True), exact.cubic(3), "factor", 1, 3, 3, pair=pair)

    unbiased(found, truth(exact.cubic(3), "factor", 3))


@pytest.mark.parametrize("diagonals", [False, True])
@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", list(SCALES))
def test_hessians(kind: str, pair: bool, diagonals: bool) -> None:
    """S7, D5, F5: exact on a quadratic, unbiased with the right errors on a cubic."""
    if kind == "factor" and diagonals:
        pytest.skip("diagonals do not say enough")
    still = run(Price(), exact.quadratic(2), kind, 2, 2, 2, pair=pair, diagonals=diagonals)
    found = run(Price(), exact.cubic(2), kind, 2, 2, 3, pair=pair, diagonals=diagonals)

    unbiased(still, truth(exact.quadratic(2), kind, 2))
    assert np.abs(still["scale"].variance).max() < 1e-30
    assert still["scale_error2"].mean.max() < 1e-30
    unbiased(found, truth(exact.cubic(2), kind, 2))
    errors_are_variances(found)
    assert (found["scale"].variance.max() > 1e-3) == (not pair)  # the third derivative is odd


def probe_nodes(law: str, units: int, dim: int) -> list[tuple[Array, float]]:
    """Probes (units, dim) and their weights: all signs, or Gauss-Hermite nodes that serve degree 5."""
    if law == "signs":
        choices = itertools.product((-1.0, 1.0), repeat=units * dim)
        return [(np.array(choice).reshape(units, dim), 0.5 ** (units * dim)) for choice in choices]
    return [(point.reshape(units, dim), weight) for point, weight in quadrature.grid(units * dim, 3)]


def over_probes(problem: Polynomial, kind: str, law: str, units: int, dim: int, q: int) -> dict[str, Moments]:
    """Moments over the noise and the probes of every row."""
    estimator = Price(Rademacher())
    parts = [
        (weight, run(estimator, problem, kind, units, dim, q, probes=probes))
        for probes, weight in probe_nodes(law, units, dim)
    ]
    found = {}
    for key in parts[0][1]:
        mean = sum(weight * part[key].mean for weight, part in parts)
        square = sum(weight * part[key].square for weight, part in parts)
        found[key] = Moments(mean, square - mean**2, square)
    return found


@pytest.mark.parametrize("law", ["signs", "normals"])
@pytest.mark.parametrize("kind", list(SCALES))
@pytest.mark.parametrize(("units", "dim"), [(1, 1), (1, 2), (1, 3), (2, 2)])
def test_probes(kind: str, law: str, units: int, dim: int) -> None:
    """S8: 2 sigma^2 (|H|^2 - sum H_ii^2) for signs, 2 sigma^2 |H|^2 for normals; errors for every shape."""
    problem = exact.quadratic(dim)
    found = over_probes(problem, kind, law, units, dim, 2)

    unbiased(found, truth(problem, kind, dim))
    if units > 1:
        errors_are_variances(found)
    if kind == "scalar":
        left_out = np.square(np.diag(problem.q)).sum() if law == "signs" else 0.0
        expected = 2.0 * SCALES["scalar"] ** 2 * (np.square(problem.q).sum() - left_out) / units
        assert total(found["scale"], expected)


@pytest.mark.parametrize("kind", list(SCALES))
def test_probes_of_a_cubic(kind: str) -> None:
    found = over_probes(exact.cubic(2), kind, "signs", 2, 2, 2)

    unbiased(found, truth(exact.cubic(2), kind, 2))
    errors_are_variances(found)
