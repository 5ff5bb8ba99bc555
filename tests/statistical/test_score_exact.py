"""Score is unbiased with the exact variance of the theory, for every baseline: all nodes, agreement to 1e-12.

The estimate is a polynomial of the noise, so the average of the real estimator over all combinations of nodes is its
expectation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from esopt import AtMean, LeaveOneOut, MovingAverage, NoBaseline, Score
from esopt.baselines.moving_average import MovingAverageState
from esopt.estimators.score import ScoreState
from tests.reference import oracles
from tests.statistical import exact
from tests.statistical.exact import Array

KINDS = ["scalar", "diagonal"]
NODES = 5  # the squared estimate of the scale has degree 8


def variances(kind: str, dim: int, pair: bool, beta: float, units: int) -> dict[str, Any]:
    """Variances with a fixed baseline, beta = m - b (E1 to E4, E9, S1, S3, D1, D2), over the number of units."""
    sigma = exact.sigma_of(kind, dim)
    _, a, h, _ = exact.quadratic(dim).at(exact.mean(dim), sigma)
    by_mean = oracles.score_mean_pair(a) if pair else oracles.score_mean(a, h, beta)
    if kind == "scalar":
        scale: Any = oracles.score_sigma(a, h, beta, pair=pair) / sigma[0] ** 2
    else:
        scale = oracles.score_log_scale(a, h, beta, pair=pair)
    value = oracles.variance_of_value(a, h, pair=pair)
    return {"mean": by_mean / sigma**2 / units, "scale": scale / units, "value": value / units}


def fixed_baselines(dim: int, sigma: Array) -> dict[str, tuple[Score, Any, float]]:
    """Estimator, state and the constant that is subtracted."""
    problem, at = exact.quadratic(dim), exact.mean(dim)
    m = problem.smoothed(at, sigma)
    h = problem.at(at, sigma)[2]
    average = Score(MovingAverage(0.5), with_scale=True)
    return {
        "none (E1)": (Score(NoBaseline(), with_scale=True), None, 0.0),
        "at mean (E3)": (Score(AtMean(), with_scale=True), None, float(problem.f(at))),
        "average (E2)": (average, ScoreState(MovingAverageState(0.65, 0.5)), 1.3),
        "average, true mean (E4)": (average, ScoreState(MovingAverageState(m, 1.0)), m),
        "average, best (E5)": (
            average,
            ScoreState(MovingAverageState(m + np.trace(h) / dim, 1.0)),
            m + float(np.trace(h)) / dim,
        ),
        "leave one out, alone (E1)": (Score(LeaveOneOut(), with_scale=True), None, 0.0),
        "average, fresh and alone (E1)": (average, None, 0.0),
    }


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", list(fixed_baselines(1, np.ones(1))))
def test_one_unit(name: str, dim: int, kind: str, pair: bool) -> None:
    """One row, or one mirrored pair."""
    sigma = exact.sigma_of(kind, dim)
    estimator, state, b = fixed_baselines(dim, sigma)[name]
    found = exact.run(estimator, exact.quadratic(dim), kind, 1, dim, NODES, pair=pair, state=state)
    beta = exact.quadratic(dim).smoothed(exact.mean(dim), sigma) - b

    exact.unbiased(found, exact.quadratic(dim), kind, dim)
    exact.varies(found, variances(kind, dim, pair, beta, 1))


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("units", "dim"), [(2, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("name", ["none (E1)", "at mean (E3)", "average (E2)"])
def test_several_units(name: str, units: int, dim: int, kind: str, pair: bool) -> None:
    """The variance goes with 1 / units, and the squared standard errors expect exactly it."""
    sigma = exact.sigma_of(kind, dim)
    estimator, state, b = fixed_baselines(dim, sigma)[name]
    found = exact.run(estimator, exact.quadratic(dim), kind, units, dim, NODES, pair=pair, state=state)
    beta = exact.quadratic(dim).smoothed(exact.mean(dim), sigma) - b
    expected = variances(kind, dim, pair, beta, units)

    exact.unbiased(found, exact.quadratic(dim), kind, dim)
    exact.varies(found, expected)
    exact.errors(found, expected)


def left_out(kind: str, dim: int, pair: bool, units: int) -> dict[str, Any]:
    """Variances with the leave-one-out mean: E8, S4 and what follows for pairs and coordinates."""
    sigma = exact.sigma_of(kind, dim)
    _, a, h, _ = exact.quadratic(dim).at(exact.mean(dim), sigma)
    y = oracles.variance_of_value(a, h, pair=pair)
    if pair:
        by_mean = oracles.score_mean_pair(a) / units  # the difference of a pair has no baseline
    else:
        by_mean = oracles.leave_one_out(oracles.score_mean(a, h, 0.0), y, 1.0, a, units)
    if kind == "scalar":
        single = oracles.score_sigma(a, h, 0.0, pair=pair)
        scale = oracles.leave_one_out(single, y, 2.0 * dim, np.trace(h), units) / sigma[0] ** 2
    else:
        scale = oracles.leave_one_out(oracles.score_log_scale(a, h, 0.0, pair=pair), y, 2.0, np.diag(h), units)
    return {"mean": by_mean / sigma**2, "scale": scale, "value": y / units}


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("units", "dim"), [(2, 1), (3, 1), (2, 2)])
def test_leave_one_out(units: int, dim: int, kind: str, pair: bool) -> None:
    """E8, S4; the squared standard errors are low by (true gradient / (units - 1))^2, the covariance of two units."""
    found = exact.run(Score(LeaveOneOut(), with_scale=True), exact.quadratic(dim), kind, units, dim, NODES, pair=pair)
    expected = left_out(kind, dim, pair, units)
    exact.unbiased(found, exact.quadratic(dim), kind, dim)
    exact.varies(found, expected)

    shared = {key: np.square(found[key].mean / (units - 1)) for key in ("mean", "scale")}
    if pair:
        shared["mean"] = np.zeros(dim)
    exact.errors(found, {**{key: expected[key] - shared[key] for key in shared}, "value": expected["value"]})


@pytest.mark.parametrize(("units", "dim", "kind"), [(3, 2, "scalar"), (2, 3, "diagonal")])
def test_leave_one_out_of_more(units: int, dim: int, kind: str) -> None:
    """4^6 combinations of 4 nodes, which are exact for the variance of the mean's gradient."""
    found = exact.run(Score(LeaveOneOut(), with_scale=True), exact.quadratic(dim), kind, units, dim, 4, pair=False)
    expected = left_out(kind, dim, False, units)

    exact.unbiased(found, exact.quadratic(dim), kind, dim)
    exact.varies(found, {key: expected[key] for key in ("mean", "value")})


def test_totals_are_those_of_the_theory() -> None:
    """The sums over coordinates, written as the tables have them (E1, E3, E4, E8, S4, D1)."""
    dim, sigma, n = 3, 0.7, 3
    c, a, h, _ = exact.quadratic(dim).at(exact.mean(dim), np.ones(dim))
    h1, h2, aa = np.trace(h), (h * h).sum(), a @ a
    q, m = sigma**2 * h2, c + 0.5 * sigma**2 * h1
    centred = (dim + 1) * aa + (dim / 2 + 2) * q
    rows = {
        name: variances("scalar", dim, False, m - b, 1)["mean"].sum() for name, b in (("E1", 0.0), ("E3", c), ("E4", m))
    }

    assert rows["E1"] == pytest.approx(dim * m**2 / sigma**2 + centred + 2 * m * h1, rel=1e-14)
    assert rows["E3"] == pytest.approx((dim + 1) * aa + (dim + 4) / 4 * sigma**2 * (h1**2 + 2 * h2), rel=1e-14)
    assert rows["E4"] == pytest.approx(centred, rel=1e-14)
    e8 = centred / n + ((dim + 1) * aa + dim / 2 * q) / (n * (n - 1))
    assert left_out("scalar", dim, False, n)["mean"].sum() == pytest.approx(e8, rel=1e-14)
    s1 = (2 * dim + 8) * aa + (dim + 12) * q + sigma**2 * h1**2
    s4 = s1 / n + (sigma**2 * h1**2 + 2 * dim * (sigma**2 * aa + 0.5 * sigma**4 * h2) / sigma**2) / (n * (n - 1))
    assert left_out("scalar", dim, False, n)["scale"] == pytest.approx(s4, rel=1e-14)
    d = exact.sigma_of("diagonal", dim)
    at, ht = d * a, d[:, None] * h * d
    beta = 0.3
    d1 = 2 * dim * beta**2 + 8 * beta * np.trace(ht) + (2 * dim + 8) * (at @ at) + (dim + 8) * (ht * ht).sum()
    assert variances("diagonal", dim, False, beta, 1)["scale"].sum() == pytest.approx(
        d1 + 5 * np.square(np.diag(ht)).sum(), rel=1e-14
    )


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "baseline", [NoBaseline(), LeaveOneOut(), AtMean(), MovingAverage()], ids=lambda b: type(b).__name__
)
def test_unbiased_on_a_cubic(baseline: Any, kind: str, pair: bool) -> None:
    """Two units in two dimensions: f - baseline times He_2 has degree 5."""
    found = exact.run(Score(baseline, with_scale=True), exact.cubic(2), kind, 2, 2, 3, pair=pair)

    exact.unbiased(found, exact.cubic(2), kind, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_pairs_on_a_separable_cubic(dim: int, kind: str) -> None:
    """E9 on the cubic of the theory: quadratics cannot tell a pair's variance from that of its linear part."""
    b, t = exact.cubic(dim).b, exact.cubic(dim).t
    problem = oracles.Polynomial(0.7, b, -np.diag(t * exact.mean(dim)), t)  # H = 0 at the mean
    sigma = exact.sigma_of(kind, dim)
    found = exact.run(Score(with_scale=True), problem, kind, 1, dim, NODES, pair=True)
    _, a, h, t = problem.at(exact.mean(dim), sigma)

    assert not h.any()
    exact.unbiased(found, problem, kind, dim)
    total = (found["mean"].variance * sigma**2).sum()
    assert abs(total - oracles.cubic_mean_pair(a, t)) < 1e-12 * (found["mean"].square * sigma**2).sum()
