"""Forward gradients: exact with candidates and directions on nodes, and standard errors over dependent rows."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt import (
    Antithetic,
    Evals,
    EvaluationError,
    Forward,
    Gaussian,
    Given,
    Key,
    Law,
    Orthogonal,
    Population,
    Rademacher,
)
from esopt.noise import PROBE
from tests.reference import quadrature
from tests.reference.oracles import Cosine, Exponential
from tests.statistical import exact

Array = NDArray[np.float64]


def estimate(problem: Any, population: Population, estimator: Forward | None = None) -> esopt.Gradient:
    """The estimate with the products that an evaluator would compute."""
    x, probes = population.rows(), population.probes
    assert probes is not None
    jvps = np.einsum("ij,ij->i", problem.grad(x[: population.n]), probes.rows())
    return (estimator or Forward()).estimate(population, Evals(problem.f(x), jvps=jvps), ())[0]


def injected(kind: str, eps: Array, v: Array, *, pair: bool = False) -> Population:
    """A population with these noise rows and these directions."""
    noise = Given(np.stack([eps, -eps], axis=1).reshape(len(v), -1), 2, True) if pair else Given(eps)
    dim = eps.shape[1]
    population = Forward().prepare(Population(exact.mean(dim), exact.scale_of(kind, dim), noise), ())
    return replace(population, probes=Given(v))


def variance(problem: Any, kind: str, dim: int, *, signs: bool) -> Array:
    """E21b for each coordinate: E (w.v)^2 v_i^2 = |w|^2 + 2 w_i^2 (w_i^2 cancels for signs), w = grad f(x)."""
    sigma = exact.sigma_of(kind, dim)
    _, a, h, _ = problem.at(exact.mean(dim), sigma)
    slopes = h / sigma[:, None]  # grad f = a / sigma + slopes . eps
    squares = (a / sigma) ** 2 + np.square(slopes).sum(axis=1)
    own = 0.0 if signs else 2.0 * squares
    return np.asarray(squares.sum() + own - (a / sigma) ** 2)


@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
@pytest.mark.parametrize(("units", "dim"), [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)])
def test_normal_directions(units: int, dim: int, kind: str) -> None:
    """E21b with nodes for eps and v: mean, variance, and what the squared standard errors expect."""
    problem = exact.quadratic(dim)

    def both(nodes: Array) -> Array:
        g = estimate(problem, injected(kind, nodes[:units], nodes[units:]))
        return np.concatenate([g.mean, np.square(g.mean_stderr) if units > 1 else np.zeros(dim)])

    found = quadrature.moments(both, 2 * units, dim, 3)
    expected = variance(problem, kind, dim, signs=False) / units
    truth = problem.mean_gradient(exact.mean(dim), exact.sigma_of(kind, dim))
    assert exact.agree(found.mean[:dim], truth, np.sqrt(found.square[:dim]))
    assert exact.agree(found.variance[:dim], expected, found.square[:dim])
    if units > 1:
        assert exact.agree(found.mean[dim:], expected, found.square[:dim])


@pytest.mark.parametrize("kind", ["scalar", "diagonal"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_signs(dim: int, kind: str) -> None:
    """E21b with every combination of signs, on a quadratic, and the mean on a cubic."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=dim)))
    truth, sigma = (
        exact.quadratic(dim).mean_gradient(exact.mean(dim), exact.sigma_of(kind, dim)),
        exact.sigma_of(kind, dim),
    )

    def over_signs(problem: Any, power: int) -> Any:
        def average(eps: Array) -> Array:
            return np.mean([estimate(problem, injected(kind, eps, v[None, :])).mean ** power for v in signs], axis=0)

        return average

    mean = quadrature.moments(over_signs(exact.quadratic(dim), 1), 1, dim, 3).mean
    second = quadrature.moments(over_signs(exact.quadratic(dim), 2), 1, dim, 3).mean
    cubic = quadrature.moments(over_signs(exact.cubic(dim), 1), 1, dim, 3).mean
    assert exact.agree(mean, truth, np.sqrt(second))
    assert exact.agree(second - truth**2, variance(exact.quadratic(dim), kind, dim, signs=True), second)
    assert exact.agree(cubic, exact.cubic(dim).mean_gradient(exact.mean(dim), sigma), np.sqrt(second) + np.abs(cubic))


def test_totals_are_those_of_the_theory() -> None:
    """E21b: (d + 2)(|a|^2 + q) - |a|^2 with normals, d (|a|^2 + q) - |a|^2 with signs."""
    dim, sigma = 3, exact.SCALES["scalar"]
    problem = exact.quadratic(dim)
    a = problem.mean_gradient(exact.mean(dim), np.full(dim, sigma))
    aa, q = a @ a, sigma**2 * np.square(problem.q).sum()

    assert variance(problem, "scalar", dim, signs=False).sum() == pytest.approx((dim + 2) * (aa + q) - aa, rel=1e-14)
    assert variance(problem, "scalar", dim, signs=True).sum() == pytest.approx(dim * (aa + q) - aa, rel=1e-14)


def test_one_pair_of_candidates_with_a_direction_each() -> None:
    """The even part of the gradient cancels within a pair only if the directions agree: they do not, and need not."""
    problem, dim = exact.quadratic(2), 2

    def both(nodes: Array) -> Array:
        return estimate(problem, injected("scalar", nodes[:1], nodes[1:], pair=True)).mean

    found = quadrature.moments(both, 3, dim, 3)
    assert exact.agree(found.mean, problem.mean_gradient(exact.mean(2), np.full(2, 0.7)), np.sqrt(found.square))


@pytest.mark.parametrize(
    "problem", [Exponential(np.array([0.8, -0.5, 0.3])), Cosine(np.array([1.1, -0.7, 0.4]))], ids=["exp", "cos"]
)
@pytest.mark.parametrize("probes", [Rademacher(), Gaussian(), Orthogonal(3)], ids=["signs", "normal", "orthogonal"])
@pytest.mark.parametrize("scale", [0.8, np.array([0.9, 0.7, 1.0])], ids=["scalar", "diagonal"])
def test_unbiased_where_there_is_no_polynomial(problem: Any, probes: Any, scale: Any) -> None:
    mean, sigma, estimator = np.array([0.6, -0.2, 0.9]), np.broadcast_to(scale, 3), Forward(probes)
    noise = Antithetic().noise(Key(4), 60_000, 3)
    g = estimate(problem, estimator.prepare(Population(mean, scale, noise), ()), estimator)
    truth = problem.mean_gradient(mean, sigma)

    assert g.blocks == (10_000 if isinstance(probes, Orthogonal) else 30_000)
    assert (np.abs(g.mean - truth) < 4.0 * g.mean_stderr).all()
    assert np.linalg.norm(truth) > 20.0 * np.linalg.norm(g.mean_stderr)
    assert abs(g.value - problem.smoothed(mean, sigma)) < 4.0 * g.value_stderr


def test_directions_are_fresh_and_independent_of_the_noise() -> None:
    estimator = Forward(Gaussian())
    first, second = (
        estimator.prepare(Population(np.zeros(50), 1.0, Gaussian().noise(Key(5, generation), 400, 50)), ())
        for generation in (0, 1)
    )
    assert first.needs == {"values", "jvps"}
    assert first.probes is not None
    assert second.probes is not None
    assert first.probes.key == Key(5, 0, PROBE)
    v, eps = first.probes.rows().astype(np.float64), first.noise.rows()
    for other in (eps, second.probes.rows()):
        assert abs(np.mean(v * other)) * math.sqrt(v.size) < 4.0


@dataclass(frozen=True)
class Wide:
    """A sampler whose block is another one."""

    size: int
    mirrored: bool = False
    separable: bool = True
    fused: bool = False
    law: Law = Law.GAUSSIAN

    @property
    def block(self) -> int:
        return self.size

    def noise(self, key: Key, n: int, dim: int) -> esopt.Philox:
        return esopt.Philox(self, key, n, dim)

    def fill(self, key: Key, row: int, column: int, dim: int, out: NDArray[np.float32]) -> None:
        Gaussian().fill(key, row, column, dim, out)


@pytest.mark.parametrize(
    ("block", "of_probes", "together"),
    [(1, 1, 1), (2, 1, 2), (1, 4, 4), (4, 6, 12), (2, 4, 4), (72, 1, 72), (8, 9, 72)],
)
def test_groups_share_neither_noise_nor_directions(block: int, of_probes: int, together: int) -> None:
    """Estimate and standard error against the plain formula over the groups of rows."""
    n, dim, problem, estimator = 144, 3, exact.cubic(3), Forward(Wide(of_probes))
    population = estimator.prepare(Population(exact.mean(3), 0.7, Wide(block).noise(Key(6), n, dim)), ())
    assert population.probes is not None
    v = population.probes.rows().astype(np.float64)
    terms = np.einsum("ij,ij->i", problem.grad(population.rows()), v)[:, None] * v
    groups = terms.reshape(-1, together, dim).mean(axis=1)
    g = estimate(problem, population, estimator)

    assert g.blocks == n // together
    np.testing.assert_allclose(g.mean, groups.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(g.mean_stderr, groups.std(axis=0, ddof=1) / math.sqrt(len(groups)), rtol=1e-6)


@pytest.mark.parametrize("kind", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["values", "jvps"])
def test_a_failure_drops_all_that_depend_on_the_row(where: str, kind: float) -> None:
    """Blocks of 2 candidates and of 3 directions: row 8 takes rows 6 to 11 with it."""
    n, problem, estimator = 18, exact.cubic(3), Forward(Wide(3))
    population = estimator.prepare(Population(exact.mean(3), 0.7, Antithetic().noise(Key(7), n, 3)), ())
    assert population.probes is not None
    x, v = population.rows(), population.probes.rows().astype(np.float64)
    found = {"values": problem.f(x), "jvps": np.einsum("ij,ij->i", problem.grad(x), v)}
    keep = np.r_[0:6, 12:18]
    groups = (found["jvps"][:, None] * v)[keep].reshape(2, 6, 3).mean(axis=1)
    found[where][8] = kind
    g, _ = estimator.estimate(population, Evals(**found), ())

    assert g.blocks == 2
    np.testing.assert_allclose(g.mean, groups.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(g.mean_stderr, np.abs(groups[0] - groups[1]) / 2.0, rtol=1e-6)
    found[where][:] = kind
    with pytest.raises(EvaluationError, match="no usable block of 2 candidates"):
        estimator.estimate(population, Evals(**found), ())


def test_one_group_has_no_standard_error() -> None:
    noise = Gaussian().noise(Key(1), 4, 3)
    population = Forward(Wide(4)).prepare(Population(exact.mean(3), 0.7, noise), ())
    g = estimate(exact.cubic(3), population, Forward(Wide(4)))

    assert g.blocks == 1
    assert np.isfinite(g.mean).all()
    assert np.isnan(g.mean_stderr).all()


@pytest.mark.parametrize("sigma", [0.3, np.array([0.1, 0.3, 0.5]), np.diag([0.2, 0.3, 0.4]) + 0.1])
def test_a_smoothed_gradient_from_products(sigma: Any) -> None:
    """End to end, for every kind of scale."""
    h = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]])
    x = np.array([0.4, -0.3, 0.8])
    f = esopt.Objective(lambda x: 0.5 * float(x @ h @ x), jvp=lambda x, v: float(v @ h @ x))
    g = esopt.smoothed_gradient(f, x, sigma=sigma, n=4000, seed=1, estimator=Forward())

    assert (np.abs(g.mean - h @ x) < 4.0 * g.mean_stderr).all()
    assert np.linalg.norm(h @ x) > 20.0 * np.linalg.norm(g.mean_stderr)


def test_a_strategy_descends_with_it() -> None:
    f = esopt.Objective(lambda x: float(x @ x), jvp=lambda x, v: 2.0 * float(x @ v))
    strategy = esopt.GradientES(sigma=0.01, n=8, estimator=Forward(), rule=esopt.SGD(0.1))
    result = esopt.minimize(f, np.ones(5), strategy=strategy, seed=0, generations=100)

    assert float(result.mean @ result.mean) < 1e-3


def test_refusals() -> None:
    population = Population(np.zeros(3), 1.0, Gaussian().noise(Key(0), 4, 3))
    with pytest.raises(ValueError, match=r"Forward\(\) got 4 rows for probes in blocks of 3.\s+Use n = 6"):
        Forward(Wide(3)).prepare(population, ())
    with pytest.raises(ValueError, match=r"Forward\(\) got no products.*Pass an esopt.Objective with jvp="):
        Forward().estimate(Forward().prepare(population, ()), Evals(np.zeros(4)), ())
    with pytest.raises(TypeError, match="probes must be an instance, got the class Rademacher"):
        Forward(Rademacher)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the values as they are"):
        esopt.GradientES(estimator=Forward(), shaping=esopt.CenteredRanks())
