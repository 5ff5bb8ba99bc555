"""The best constants: exact variances of theory.md E5, E6, S2 and D1, and that the estimated ones come near to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import (
    Evals,
    Gaussian,
    Given,
    Gradient,
    Key,
    LeaveOneOut,
    OptimalPerCoordinate,
    OptimalScalar,
    Population,
    Score,
)
from esopt.baselines.leave_one_out import leave_own_block_out
from esopt.estimators.score import ScoreState
from esopt.protocols import Centered, Offsets
from tests.reference import oracles, quadrature
from tests.statistical import exact
from tests.statistical.exact import Array

KINDS = ["scalar", "diagonal"]


@dataclass(frozen=True, eq=False)
class Fixed:
    """Constants that are given: ``b`` of the mean's gradient and ``by_scale`` of the scale's, numbers or (d,).

    The rows are in ``groups`` in turn, which differ in what is subtracted from the values themselves.
    """

    b: Any
    by_scale: Any
    groups: int = 1
    raw_only: bool = False

    def init(self, dim: int) -> tuple[()]:
        return ()

    def prepare(self, population: Population, state: Any) -> Population:
        return population

    def center(self, values: Array, population: Population, evals: Evals, state: Any) -> Centered:
        if np.ndim(self.b) == 0:
            return Centered(values - self.b, scale_values=values - self.by_scale)
        groups = np.arange(values.size) // population.noise.block % self.groups
        shift = np.arange(self.groups)[:, None]
        offsets = Offsets(groups, np.asarray(self.b) + shift, np.asarray(self.by_scale) + shift)
        return Centered(values + groups, offsets=offsets)

    def learn(self, values: Array, population: Population, gradient: Gradient, state: Any) -> Any:
        return state


def best(kind: str, dim: int, part: str) -> tuple[Any, Any, dict[str, Any]]:
    """The best constants for mean and scale, and the variances of one row with them."""
    sigma = exact.sigma_of(kind, dim)
    _, a, h, _ = exact.quadratic(dim).at(exact.mean(dim), sigma)
    m, extra = exact.quadratic(dim).smoothed(exact.mean(dim), sigma), np.diag(h)
    if part == "one number":
        extra = np.full(dim, extra.mean())
    # Per coordinate, (y - b) eps: beta^2 + 2 beta H_ii, and (y - b) He_2: 2 beta^2 + 8 beta H_ii.
    by_mean = oracles.score_mean(a, h, 0.0) + extra**2 - 2.0 * extra * np.diag(h)
    if kind == "scalar":
        scale: Any = (oracles.score_sigma(a, h, 0.0) - 8.0 * (extra**2).sum()) / sigma[0] ** 2
    else:
        scale = oracles.score_log_scale(a, h, 0.0) + 8.0 * extra**2 - 16.0 * extra * np.diag(h)
    if part == "one number":
        return m + extra[0], m + 2.0 * extra[0], {"mean": by_mean / sigma**2, "scale": scale}
    return m + extra, m + 2.0 * extra, {"mean": by_mean / sigma**2, "scale": scale}


@pytest.mark.parametrize("part", ["one number", "per coordinate"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_variance_with_the_best_constants(dim: int, kind: str, part: str) -> None:
    """One row: E5, E6, S2 and D1 at their best, to 1e-12; no other constant is better."""
    b, by_scale, expected = best(kind, dim, part)
    problem = exact.quadratic(dim)
    found = exact.run(Score(Fixed(b, by_scale), True), problem, kind, 1, dim, 5, pair=False)

    exact.unbiased(found, problem, kind, dim)
    exact.varies(found, expected)
    for shift in (-0.1, 0.1):
        worse = exact.run(Score(Fixed(b + shift, by_scale + shift), True), problem, kind, 1, dim, 5, pair=False)
        for key, unit in (("mean", exact.sigma_of(kind, dim) ** 2), ("scale", 1.0)):
            assert (found[key].variance * unit).sum() < (worse[key].variance * unit).sum()


def test_totals_are_those_of_the_theory() -> None:
    """E5, E6 and S2 as their table has them."""
    dim, sigma = 3, exact.SCALES["scalar"]
    _, a, h, _ = exact.quadratic(dim).at(exact.mean(dim), np.ones(dim))
    h1, h2, diagonal, aa = np.trace(h), (h * h).sum(), np.square(np.diag(h)).sum(), a @ a
    centred = (dim + 1) * aa + (dim / 2 + 2) * sigma**2 * h2
    number, coordinates = best("scalar", dim, "one number")[2], best("scalar", dim, "per coordinate")[2]

    assert number["mean"].sum() == pytest.approx(centred - sigma**2 * h1**2 / dim, rel=1e-13)
    assert coordinates["mean"].sum() == pytest.approx(centred - sigma**2 * diagonal, rel=1e-13)
    s1 = (2 * dim + 8) * aa + (dim + 12) * sigma**2 * h2 + sigma**2 * h1**2
    assert number["scale"] == pytest.approx(s1 - 8 * sigma**2 * h1**2 / dim, rel=1e-13)


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("units", "dim"), [(2, 1), (3, 1), (2, 2)])
def test_several_units_in_groups(units: int, dim: int, kind: str, pair: bool) -> None:
    """The variance goes with 1 / units, and the squared standard errors expect exactly it, whatever the groups."""
    b, by_scale, _ = best(kind, dim, "per coordinate")
    estimator = Score(Fixed(b, by_scale, groups=2), True)
    found = exact.run(estimator, exact.quadratic(dim), kind, units, dim, 5, pair=pair)

    exact.unbiased(found, exact.quadratic(dim), kind, dim)
    if not pair:
        expected = {key: value / units for key, value in best(kind, dim, "per coordinate")[2].items()}
        exact.varies(found, expected)
    exact.errors(found, {key: found[key].variance for key in ("mean", "scale")})


@pytest.mark.parametrize("pair", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("baseline", [OptimalScalar(), OptimalPerCoordinate()], ids=lambda b: type(b).__name__)
def test_unbiased_on_a_cubic(baseline: Any, kind: str, pair: bool) -> None:
    """Over all nodes of five rows or pairs, though the constants are no polynomials of the noise."""
    found = exact.run(Score(baseline, True), exact.cubic(1), kind, 5, 1, 3, pair=pair)

    exact.unbiased(found, exact.cubic(1), kind, 1)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_constants_by_hand(block: int) -> None:
    """Ratios of sums over the other blocks; second moments of the other half of the usable blocks."""
    eps = Gaussian().noise(Key(3), 8 * block, 3).rows().astype(float)
    values = 50.0 + eps @ [1.0, 2.0, 3.0] + np.square(eps).sum(axis=1)
    values[2 * block] = np.nan
    values[2 * block : 3 * block] = np.nan
    noise = Given(eps, block)
    population = Population(np.zeros(3), 0.5, noise)
    number = OptimalScalar().center(values, population, Evals(values), ())
    coordinates = OptimalPerCoordinate().center(values, population, Evals(values), ())
    by_block, norms = np.arange(8 * block) // block, np.square(eps).sum(axis=1)
    for own in (0, 1, 3, 7):
        rows, others = by_block == own, (by_block != own) & (by_block != 2)
        m, b = values[others].mean(), (values * norms)[others].sum() / norms[others].sum()
        np.testing.assert_allclose(number.values[rows], values[rows] - b, rtol=1e-12)
        np.testing.assert_allclose(number.scale_values[rows], values[rows] - (m + 2.0 * (b - m)), rtol=1e-12)

        half = np.isin(by_block, (1, 4, 6) if own in (0, 3, 7) else (0, 3, 5, 7))
        t = ((values[half] - values[half].mean())[:, None] * (np.square(eps[half]) - 1.0)).mean(axis=0)
        np.testing.assert_allclose(coordinates.values[rows], values[rows] - m, rtol=1e-12)
        for table, factor in ((coordinates.offsets.mean, 1.0), (coordinates.offsets.scale, 2.0)):
            expected = np.broadcast_to(factor * t, (block, 3))
            np.testing.assert_allclose(table[coordinates.offsets.groups[rows]], expected, rtol=1e-12)


@pytest.mark.parametrize("baseline", [OptimalScalar(), OptimalPerCoordinate()], ids=lambda b: type(b).__name__)
def test_few_blocks_leave_one_out(baseline: Any) -> None:
    population = Population(np.zeros(2), 0.5, Gaussian().noise(Key(3), 5, 2))
    values = np.array([1.0, np.nan, 4.0, np.nan, 9.0])
    centered = baseline.center(values, population, Evals(values), ())

    np.testing.assert_array_equal(centered.values, leave_own_block_out(values, 1))
    assert centered[1:] == (None, None, None, None)


@pytest.mark.parametrize("scale", [0.5, np.array([0.5, 0.2, 0.9])], ids=KINDS)
@pytest.mark.parametrize(
    "sampler", [Gaussian(), esopt.Antithetic(), esopt.Orthogonal(3)], ids=["rows", "pairs", "block"]
)
def test_estimate_and_errors_by_hand(sampler: Any, scale: Any) -> None:
    """Sums and squares by polarisation are those of the terms, block by block, in single precision too."""
    noise = sampler.noise(Key(5), 60, 3)
    population = Population(np.full(3, 2.0), scale, noise)
    x, eps = population.rows(), noise.rows().astype(float)
    values = 1e4 + np.square(x) @ [3.0, -1.0, 0.5]
    values[13] = np.nan
    gradient, _ = Score(OptimalPerCoordinate(), True).estimate(population, Evals(values), ScoreState(()))
    dropped = np.isnan(values).reshape(-1, noise.block).any(axis=1)
    kept = np.where(np.repeat(dropped, noise.block), np.nan, values)
    centered = OptimalPerCoordinate().center(kept, population, Evals(values), ())
    groups, *tables = centered.offsets
    by_mean, by_log = (
        ((centered.values[:, None] - table[groups]) * he).reshape(-1, noise.block, 3).mean(axis=1)[~dropped]
        for table, he in zip(tables, (eps, eps**2 - 1.0), strict=True)
    )
    by_scale = by_log if np.ndim(scale) else by_log.sum(axis=1) / scale
    for terms, found, error in (
        (by_mean / scale, gradient.mean, gradient.mean_stderr),
        (by_scale, gradient.scale, gradient.scale_stderr),
    ):
        size = np.abs(terms).max()
        np.testing.assert_allclose(found, terms.mean(axis=0), rtol=0, atol=2e-6 * size)
        np.testing.assert_allclose(error, terms.std(axis=0, ddof=1) / np.sqrt(len(terms)), rtol=1e-5)


ROWS, GENERATIONS = 200, 1500


def errors_of_the_constants(problem: Any, mean: Array, sigma: float, m: float, b: float) -> dict[str, Array]:
    """What the errors of the estimated constants add to mean and scale, times n: their variances, by quadrature."""

    def constants(eps: Array) -> Array:
        y, squares = float(problem.f(mean + sigma * eps[0])), np.square(eps[0])
        number = (y - b) * squares.mean()
        return np.array([y - m, number, 2.0 * number - (y - m), *((y - m) * (squares - 1.0))])

    mean_only, number, by_scale, *each = quadrature.moments(constants, 1, 2, 8).variance
    t = 2.0 * sum(each)  # from half of the rows
    return {
        "none": np.array([2.0 * mean_only, 4.0 * mean_only]),
        "number": np.array([2.0 * number, 4.0 * by_scale]),
        "coordinates": np.array([2.0 * mean_only + t, 4.0 * mean_only + 8.0 * t]),
    }


def test_the_estimated_constants_reach_the_least_variance() -> None:
    """Two dimensions, 200 rows: a quarter and a third less variance, as in the theory but for terms of 1 / n."""
    sigma, mean = 0.7, np.array([0.02, 0.05])
    problem = oracles.Polynomial(3.0, np.zeros(2), np.diag([4.0, 1.0]), np.zeros(2))
    _, a, h, _ = problem.at(mean, np.full(2, sigma))
    plain = np.array([oracles.score_mean(a, h, 0.0).sum(), oracles.score_sigma(a, h, 0.0)])
    gains = {"none": 0.0, "number": np.trace(h) ** 2 / 2.0, "coordinates": np.square(np.diag(h)).sum()}
    several = {"none": LeaveOneOut(), "number": OptimalScalar(), "coordinates": OptimalPerCoordinate()}
    m = problem.smoothed(mean, np.full(2, sigma))
    more = errors_of_the_constants(problem, mean, sigma, m, m + np.trace(h) / 2.0)
    truth = problem.mean_gradient(mean, np.full(2, sigma)) * sigma
    off: dict[str, list[Any]] = {name: [] for name in several}
    declared: dict[str, list[Any]] = {name: [] for name in several}
    for generation in range(GENERATIONS):
        population = Population(mean, sigma, Gaussian().noise(Key(8, generation), ROWS, 2))
        evals = Evals(problem.f(population.rows()))
        for name, baseline in several.items():
            g, _ = Score(baseline, True).estimate(population, evals, ScoreState(()))
            off[name].append([np.square(g.mean * sigma - truth).sum(), (g.scale * sigma - np.trace(h)) ** 2])
            declared[name].append([np.square(g.mean_stderr).sum() * sigma**2, (g.scale_stderr * sigma) ** 2])
    for name, gain in gains.items():
        found, said = np.array(off[name]) * ROWS, np.array(declared[name]) * ROWS
        expected = plain - gain * np.array([1.0, 8.0]) + more[name] / ROWS
        for measured in (found, said):
            z = (measured.mean(axis=0) - expected) / measured.std(axis=0) * np.sqrt(GENERATIONS)
            slack = 0.03 * expected / measured.std(axis=0) * np.sqrt(GENERATIONS)
            assert (np.abs(z) < 4.0 + slack).all(), name
    for better in ("number", "coordinates"):
        apart = np.array(off["none"]) - np.array(off[better])
        assert (apart.mean(axis=0) > 5.0 * apart.std(axis=0) / np.sqrt(GENERATIONS)).all(), better


@pytest.mark.parametrize("baseline", [OptimalScalar(), OptimalPerCoordinate()], ids=lambda b: type(b).__name__)
def test_errors_do_not_depend_on_the_level_of_the_values(baseline: Any) -> None:
    population = Population(np.zeros(4), 0.3, Gaussian().noise(Key(2), 40, 4))
    values = np.square(population.rows()).sum(axis=1)
    a, _ = Score(baseline, True).estimate(population, Evals(values), ScoreState(()))
    b, _ = Score(baseline, True).estimate(population, Evals(values + 2.0**20), ScoreState(()))

    np.testing.assert_allclose(b.mean, a.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b.mean_stderr, a.mean_stderr, rtol=1e-5)
    np.testing.assert_allclose(b.scale_stderr, a.scale_stderr, rtol=1e-5)


def test_a_factor() -> None:
    """One number serves a factor; constants for each coordinate of the noise do not."""
    population = Population(np.zeros(3), np.tril(np.ones((3, 3))), Gaussian().noise(Key(1), 40, 3))
    for baseline in (OptimalPerCoordinate(), esopt.Quadratic()):
        with pytest.raises(ValueError, match=rf"{type(baseline).__name__}\(\) got the scale a factor \(3, 3\)"):
            Score(baseline).prepare(population, ScoreState(baseline.init(3)))
    with pytest.raises(ValueError, match="a baseline for each coordinate got the scale a factor"):
        Score(Fixed(np.ones(3), np.ones(3)), True).estimate(population, Evals(np.ones(40)), ScoreState(()))
    values = np.square(population.rows()).sum(axis=1)
    g, _ = Score(OptimalScalar(), True).estimate(population, Evals(values), ScoreState(()))
    centered = OptimalScalar().center(values, population, Evals(values), ())
    eps = population.noise.rows().astype(float)
    local = 0.5 * (eps.T @ (centered.scale_values[:, None] * eps) - np.eye(3) * centered.scale_values.sum()) / 40
    np.testing.assert_allclose(g.scale, local, rtol=1e-6, atol=1e-6 * np.abs(local).max())


def test_a_generation_without_noise_is_the_mean() -> None:
    """Where all other rows are zero, so is |eps|^2."""
    noise = Given(np.zeros((6, 2)))
    centered = OptimalScalar().center(np.arange(6.0), Population(np.zeros(2), 1.0, noise), Evals(np.arange(6.0)), ())
    np.testing.assert_allclose(centered.values, leave_own_block_out(np.arange(6.0), 1))
