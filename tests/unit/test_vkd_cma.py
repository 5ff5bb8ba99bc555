"""VkD-CMA: the projection of a dense covariance, evaluations beside pycma's, the choice of k."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt.noise import INIT, Key
from esopt.strategies.vkd_cma import _project, _rates, _select
from tests.reference import full as twins
from tests.unit.test_large_scale import cigar, ellipsoid, evaluations, sphere

Array = NDArray[np.float64]

D = 12
X0 = np.linspace(-1.0, 2.0, D)


def wavy(x: Array) -> Array:
    """Curved differently in every direction, with a wave: no symmetry hides a mistake."""
    return np.square(x - 0.3) @ np.linspace(1.0, 200.0, D) + np.sin(3.0 * x).sum(axis=-1) + 9.0 * x[..., 0] * x[..., 1]


@cache
def turn(dim: int) -> Array:
    return np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]


def turned_cigar(x: Array) -> Array:
    return cigar(x @ turn(x.shape[-1]).T)


def turned_four(x: Array) -> Array:
    """Four long axes, not along coordinates."""
    y = x @ turn(x.shape[-1]).T
    return np.asarray(np.square(y[..., :4]).sum(axis=-1) + 1e6 * np.square(y[..., 4:]).sum(axis=-1))


@pytest.mark.parametrize(("n", "k"), [(10, 0), (10, 1), (11, 3), (40, 5)])
def test_the_paper(n: int, k: int) -> None:
    """Generations beside a dense transcription: mean, sigma, covariance; candidates have that covariance."""
    es = esopt.Optimizer(esopt.VkDCMA(sigma=0.02, n=n, k=k), X0, seed=3)
    twin = twins.VkDCMA(X0, 0.02, n, k)
    for generation in range(60):
        population = es.population()
        eps = population.noise.rows().astype(np.float64)
        assert len(population) == n
        x = es.ask()
        steps = (x - es.mean) / es.state.sigma
        cov = twin.sigma**2 * twin.C
        np.testing.assert_allclose(es.state.cov, cov, rtol=0.0, atol=1e-5 * cov.max())
        np.testing.assert_allclose(steps[: len(eps)], twin.sample(eps), rtol=0.0, atol=2e-5)
        if generation:
            length = np.sqrt(esopt.Gaussian().noise(Key(3, generation, INIT), 1, D).norms()[0])
            ahead = twin.ahead(length)
            np.testing.assert_allclose(steps[-2:], np.stack([ahead, -ahead]), rtol=0.0, atol=2e-5)
        values = wavy(x)
        twin.update(steps, values, generation > 0)
        es.tell(values)
        np.testing.assert_allclose(es.mean, twin.mean, rtol=0.0, atol=1e-5)
        assert es.state.sigma == pytest.approx(twin.sigma, rel=1e-9)

    assert twin.stalls > 0
    assert np.linalg.cond(twin.C) > 3.0
    assert es.state.lengths.size == k
    np.testing.assert_allclose(es.state.vectors @ es.state.vectors.T, np.eye(k), atol=1e-9)
    assert np.linalg.slogdet(es.state.cov / es.state.sigma**2)[1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("k", [2, None])
def test_scales_of_the_coordinates(k: int | None) -> None:
    """With x0 and sigma in other units in every coordinate, all candidates are the same in those units."""
    units = np.where(np.arange(D) < D - 1, 1e-3, 1e3)
    rows = []
    for scale in (np.ones(D), units):
        es = esopt.Optimizer(esopt.VkDCMA(sigma=0.3 * scale, k=k), X0 * scale, seed=4)
        for _ in range(120):
            es.tell(wavy(es.ask() / scale))
            assert es.stop() == {}
        rows.append(es.ask() / scale)

    assert np.abs(rows[0] - X0).max() > 0.3
    np.testing.assert_allclose(rows[0], rows[1], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(("columns", "k"), [(3, 0), (3, 2), (3, 5), (9, 4), (30, 4)])
def test_projection(columns: int, k: int) -> None:
    """Of a dense matrix a I + U U^T: its diagonal, its k longest axes, the mean of the other eigenvalues."""
    u = np.random.default_rng(2).normal(size=(D, columns)) * np.linspace(0.2, 3.0, columns)
    dense = 0.7 * np.eye(D) + u @ u.T
    vectors, lengths, growth = _project(u, 0.7, k)
    axes = len(vectors)
    inner = np.eye(D) + (vectors.T * lengths) @ vectors
    values = np.linalg.eigvalsh(dense)[::-1]
    beta = values[axes:].mean()

    assert axes == min(k, columns)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(axes), atol=1e-12)
    np.testing.assert_allclose(1.0 + lengths, values[:axes] / beta, rtol=1e-10)
    np.testing.assert_allclose(np.einsum("ij,jk,ik->i", vectors, dense, vectors), values[:axes], rtol=1e-10)
    np.testing.assert_allclose(np.diag(growth[:, None] * inner * growth), np.diag(dense), rtol=1e-12)


# f, d, k, evaluations: medians of three runs (two in 200 dimensions) of pycma 4.5 with GaussVkDSampler, sigma = 0.5,
# which adapts k. It ends with k = 1 or 2 on the first three functions, with 4 to 6 on the last.
FIGURES = [
    (sphere, 40, None, 3390),
    (cigar, 40, 0, 7860),
    (turned_cigar, 40, 2, 10320),
    (turned_cigar, 40, None, 10320),
    pytest.param(turned_four, 40, None, 28905, marks=pytest.mark.slow),
    pytest.param(sphere, 100, 0, 7803, marks=pytest.mark.slow),
    pytest.param(turned_cigar, 100, 2, 22763, marks=pytest.mark.slow),
    pytest.param(sphere, 200, None, 13975, marks=pytest.mark.slow),
    pytest.param(turned_cigar, 200, None, 43026, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("f", "dim", "k", "expected"), FIGURES)
def test_evaluations_are_those_of_pycma(f: Callable[[Array], Array], dim: int, k: int | None, expected: int) -> None:
    found = np.median([evaluations(esopt.VkDCMA(k=k), f, dim, seed, 60_000) for seed in (1, 2, 3)])

    assert abs(found / expected - 1.0) < 0.18


@pytest.mark.parametrize(("f", "least", "most"), [(ellipsoid, 0, 0), (turned_cigar, 1, 3)])
def test_k_fits_the_function(f: Callable[[Array], Array], least: int, most: int) -> None:
    """None is needed where coordinates do not depend on each other, one for the one long axis."""
    es, best = esopt.Optimizer(esopt.VkDCMA(), np.ones(20), seed=1), np.inf
    while best > 1e-8:
        values = f(es.ask())
        es.tell(values)
        best = min(best, float(values.min()))
        assert es.result.evaluations < 10_000

    assert least <= es.state.rank <= most
    assert es.state.rank == es.state.lengths.size


def settled(k: int, lengths: list[float]) -> Any:
    """A state in which nothing has changed for long."""
    state = esopt.VkDCMA().init(np.zeros(D), 1)
    trend = replace(state.trend, since=10 * D, log_axes=np.log1p(lengths + [0.0] * (D - k)))
    state = replace(state, rank=k, vectors=np.eye(D)[:k], lengths=np.array(lengths))
    return replace(state, trend=replace(trend, log_diagonal=np.log(state.diagonal)))


def test_k_grows_when_all_axes_are_long_and_settled() -> None:
    rates = _rates(D, 3, 5.0)
    grown = _select(settled(3, [100.0, 90.0, 31.0]), rates, 10)

    assert grown.rank == 5
    assert grown.trend.since == 0
    assert _select(settled(3, [100.0, 90.0, 28.0]), rates, 10).rank == 3
    moving = settled(3, [100.0, 90.0, 31.0])
    assert _select(replace(moving, trend=replace(moving.trend, change_sigma=-0.1)), rates, 10).rank == 3
    change = np.where(np.arange(D) == 4, 0.3, 0.0)
    assert _select(replace(moving, trend=replace(moving.trend, change_diagonal=change)), rates, 10).rank == 3
    assert _select(replace(moving, trend=replace(moving.trend, since=2 * D - 2)), rates, 10).rank == 3


def test_k_shrinks_by_the_axes_that_shorten() -> None:
    rates = _rates(D, 3, 5.0)
    state = settled(3, [100.0, 20.0, 10.0])
    change = np.where(np.arange(D) == 1, -0.1, 0.1)
    shrunk = _select(replace(state, trend=replace(state.trend, change_axes=change)), rates, 10)

    assert shrunk.rank == 2
    assert np.array_equal(shrunk.lengths, [100.0, 10.0])
    assert np.array_equal(shrunk.vectors, np.eye(D)[[0, 2]])
    np.testing.assert_allclose(shrunk.trend.log_axes[:4], [np.log(101.0), np.log(11.0), 0.0, 0.0], rtol=1e-12)
    again = _select(shrunk, _rates(D, 2, 5.0), 10)
    assert again.rank == 2
    assert np.array_equal(again.trend.log_axes, shrunk.trend.log_axes)
    assert (again.trend.change_axes[:2] > 0.0).all()
    assert _select(replace(state, trend=replace(state.trend, change_axes=-change)), rates, 10).rank == 2
    assert _select(state, rates, 10).rank == 3


def test_sigma_ignores_a_comparison_without_an_answer() -> None:
    """Two equal values, or two failures, along the last step."""
    strategy = esopt.VkDCMA(n=10, k=1)
    state = strategy.init(X0, 1)
    state, _ = strategy.tell(state, esopt.Evals(wavy(strategy.ask(state).rows())))
    values = np.arange(10.0)
    ends = []
    for ahead, back in ((3.0, 3.0), (np.nan, np.nan), (-1.0, 30.0), (30.0, -1.0), (5.5, np.nan)):
        values[-2:] = ahead, back
        ends.append(strategy.tell(state, esopt.Evals(values.copy()))[0].success)

    np.testing.assert_allclose(ends, [0.0, 0.0, 0.3, -0.3, 0.1], atol=1e-12)


def test_tell_holds_no_dense_matrix() -> None:
    dim = 3000
    strategy = esopt.VkDCMA(n=12, k=3)
    state = strategy.init(np.ones(dim), 1)
    for _ in range(2):
        state, _ = strategy.tell(state, esopt.Evals(cigar(strategy.ask(state).rows())))
    values = cigar(strategy.ask(state).rows())
    tracemalloc.start()
    try:
        strategy.tell(state, esopt.Evals(values))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 80 * 8 * dim < 0.05 * 8 * dim * dim


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: esopt.VkDCMA(k=-1), "k must be a number of directions, got -1"),
        (lambda: esopt.VkDCMA(n=3), "n must be at least 4 with the sampler Gaussian, got 3"),
        (lambda: esopt.VkDCMA(n=4, sampler=esopt.Orthogonal(4)), "n must be at least 8 with the sampler Orthogonal"),
        (lambda: esopt.VkDCMA(k=5).init(np.ones(5), 1), "k=5 in 5 dimensions"),
        (lambda: esopt.VkDCMA(sigma=np.eye(3)).init(np.ones(3), 0), "VkDCMA.. got a factor as sigma"),
    ],
)
def test_bad_settings(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
