"""LRA-CMA-ES beside a naive transcription of the paper, and what its learning rates do."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from tests.reference.lra import LRA


def bent(x: np.ndarray) -> np.ndarray:
    return np.square(x - 0.3) @ np.logspace(0, 2, x.shape[-1]) + np.sin(3.0 * x).sum(axis=-1) + x[..., 0] * x[..., 1]


@pytest.mark.parametrize("dim", [2, 7])
def test_twenty_generations_are_those_of_the_paper(dim: int) -> None:
    x0 = np.linspace(-1.0, 2.0, dim)
    es, twin = esopt.Optimizer(esopt.LRACMAES(sigma=0.7, active=False), x0, seed=3), LRA(x0, 0.7)
    rates = []
    for _ in range(20):
        eps = es.population().noise.rows().astype(np.float64)
        values = bent(es.ask())
        es.tell(values)
        twin.update(eps, values)
        rates.append(es.state.rate_cov.eta)
        np.testing.assert_allclose(es.mean, twin.m, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(es.state.cov, twin.sigma**2 * twin.C, rtol=1e-9)
        np.testing.assert_allclose(
            (es.state.sigma, es.state.rate_mean.eta, es.state.rate_cov.eta),
            (twin.sigma, twin.eta_m, twin.eta_S),
            rtol=1e-9,
        )

    assert min(rates) < 0.9


def test_rates_fall_where_values_are_noise_and_stay_where_they_are_not() -> None:
    rng = np.random.default_rng(1)
    lost, clear = (esopt.Optimizer(esopt.LRACMAES(sigma=0.1), np.ones(5), seed=1) for _ in range(2))
    for _ in range(150):
        lost.tell(rng.standard_normal(len(lost.ask())))
        clear.tell(clear.ask() @ np.ones(5))

    assert lost.state.rate_mean.eta < 0.1
    assert clear.state.rate_mean.eta > 0.3


def test_noise_of_constant_size_is_overcome_at_the_default_population() -> None:
    """|mean|^2 under noise of standard deviation 1 falls below what CMA-ES is left with by a factor of ten."""

    def left(strategy: esopt.LRACMAES | esopt.CMAES, seed: int) -> float:
        rng = np.random.default_rng(seed)
        es = esopt.Optimizer(strategy, np.full(10, 3.0), seed=seed)
        for _ in range(1000):
            es.tell(np.square(es.ask()).sum(axis=1) + rng.standard_normal(len(es.population())))
        return float(np.square(es.mean).sum())

    with_rates = np.median([left(esopt.LRACMAES(sigma=2.0), seed) for seed in range(3)])
    without = np.median([left(esopt.CMAES(sigma=2.0), seed) for seed in range(3)])

    assert with_rates < 0.1 * without


def test_a_factor_as_sigma_is_the_first_covariance() -> None:
    factor = np.array([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, -1.0, 0.2]])
    state = esopt.LRACMAES(sigma=factor).init(np.zeros(3), 1)

    np.testing.assert_allclose(state.cov, factor @ factor.T, rtol=1e-12)
    assert np.linalg.det(state.root) == pytest.approx(1.0)
