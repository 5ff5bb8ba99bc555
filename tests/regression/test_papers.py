"""The named strategies are those of the papers: 20 generations beside a naive transcription with the same noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from tests.reference import strategies as twins

Array = NDArray[np.float64]

D = 12
X0 = np.linspace(-1.0, 2.0, D)


def wavy(x: Array) -> Array:
    """Curved differently in every direction, with a wave: no symmetry hides a mistake."""
    return np.square(x - 0.3) @ np.linspace(0.2, 2.0, D) + np.sin(3.0 * x).sum(axis=-1) + 0.2 * x[..., 0] * x[..., 1]


def side_by_side(strategy: esopt.GradientES, twin: Any, generations: int) -> tuple[float, float]:
    """Return the largest difference of the means in a run, relative to the way travelled, and of the sigmas."""
    es = esopt.Optimizer(strategy, X0, seed=3)
    apart, apart_sigma = 0.0, 0.0
    for _ in range(generations):
        eps = es.population().noise.rows().astype(np.float64)
        twin.update(eps, wavy(twin.mean + twin.sigma * eps))
        es.tell(wavy(es.ask()))
        apart = max(apart, float(np.abs(es.mean - twin.mean).max()))
        apart_sigma = max(apart_sigma, float(np.abs(es.state.scale / twin.sigma - 1.0).max()))
    return apart / float(np.abs(twin.mean - X0).max()), apart_sigma


@pytest.mark.parametrize(("n", "decay"), [(8, 0.005), (40, 0.0), (30, 0.1)])
def test_openai_es(n: int, decay: float) -> None:
    strategy = esopt.openai_es(n=n, sigma=0.05, lr=0.02, weight_decay=decay)

    assert max(side_by_side(strategy, twins.OpenAIES(X0, 0.05, 0.02, decay), 20)) < 1e-6


@pytest.mark.parametrize(("n", "top"), [(16, 8), (16, 3), (2, 1), (60, 10)])
@pytest.mark.parametrize("generations", [1, 20])
def test_ars(n: int, top: int, generations: int) -> None:
    strategy = esopt.ars(n=n, top=top, sigma=0.06, lr=0.04)

    assert max(side_by_side(strategy, twins.ARS(X0, 0.06, 0.04, top), generations)) < 1e-6


@pytest.mark.parametrize("n", [4, 20, 100])
def test_pgpe(n: int) -> None:
    strategy = esopt.pgpe(n=n, max_speed=0.1, sigma_lr=0.3)

    assert max(side_by_side(strategy, twins.PGPE(X0, 0.1, 0.3), 20)) < 1e-6


def test_snes() -> None:
    twin = twins.SNES(X0, 0.6)

    assert esopt.snes().rows(D) == twin.n == 11
    assert max(side_by_side(esopt.snes(sigma=0.6), twin, 20)) < 1e-6


def test_xnes() -> None:
    twin = twins.XNES(X0, 0.6)
    es = esopt.Optimizer(esopt.xnes(sigma=0.6), X0, seed=3)

    assert es.population().n == twin.n == 11
    for _ in range(20):
        eps = es.population().noise.rows().astype(np.float64)
        twin.update(eps, wavy(twin.mean + eps @ (twin.sigma * twin.b).T))
        es.tell(wavy(es.ask()))
        np.testing.assert_allclose(es.mean, twin.mean, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(es.state.scale, twin.sigma * twin.b, rtol=0.0, atol=1e-9)


def test_diagonal_natural_gaussian_is_snes() -> None:
    score = esopt.Score(esopt.NoBaseline(), with_scale=True)
    natural = esopt.NaturalGaussian(sigma=0.6, sampler=esopt.Gaussian(), estimator=score)
    one, other = (esopt.Optimizer(strategy, X0, seed=3) for strategy in (natural, esopt.snes(sigma=0.6)))

    for _ in range(20):
        for es in (one, other):
            es.tell(wavy(es.ask()))
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)
    np.testing.assert_allclose(one.state.scale, other.state.scale, rtol=1e-12)
