"""Averages of several evaluations of each candidate: rows, seeds, failures, and what an average is worth."""

from __future__ import annotations

import numpy as np
import pytest

import esopt
from esopt._repeated import Repeated, average, repeat

X0 = np.array([1.0, -2.0, 0.5])


def seeded(x: np.ndarray, seed: int) -> float:
    return float(x @ x) + float(np.random.default_rng(seed).standard_normal())


def test_rows_come_times_over_and_every_copy_has_its_own_seed() -> None:
    inner = esopt.GradientES(n=6, estimator=esopt.Score(esopt.AtMean()))
    strategy = esopt.Averaged(inner, 4)
    state = strategy.init(X0, 1)
    plain, population = inner.ask(state), strategy.ask(state)
    rows, once = population.rows(), plain.rows()

    np.testing.assert_array_equal(rows[:24], np.tile(once[:6], (4, 1)))
    np.testing.assert_array_equal(rows[24:], np.tile(once[6:], (4, 1)))
    seeds = population.seeds[:24].reshape(4, 6)
    assert np.array_equal(seeds[:, ::2], seeds[:, 1::2])
    assert len(set(seeds[:, ::2].ravel())) == 12
    assert len(set(population.seeds[24:])) == len(population) - 24


@pytest.mark.parametrize("sampler", [esopt.Gaussian(), esopt.Antithetic(), esopt.Orthogonal(3)])
def test_repeated_noise_is_what_explicit_rows_would_be(sampler: esopt.Gaussian) -> None:
    noise = Repeated(sampler.noise(esopt.Key(3), 6, 4), 3)
    rows = np.asarray(noise.rows(), np.float64)
    weights = np.linspace(-1.0, 2.0, 18)

    for start, stop in ((0, 18), (4, 9), (5, 17), (6, 6)):
        np.testing.assert_array_equal(noise.rows(start, stop), rows[start:stop])
        out = np.empty((stop - start, 4))
        noise.displace(np.ones(4), np.full(1, 2.0), start, out)
        np.testing.assert_allclose(out, 1.0 + 2.0 * rows[start:stop], rtol=1e-6)
    np.testing.assert_allclose(esopt.moment(noise, weights), weights @ rows, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(noise.dot(np.ones((1, 4))), rows.sum(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(noise.norms(), np.square(rows).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(noise.weighted(rows)[0], np.square(rows).sum(axis=0), rtol=1e-5)
    assert noise.resize(12).n == 12
    with pytest.raises(ValueError, match="multiple of 3"):
        noise.resize(7)


def test_failures_are_left_out_of_their_averages() -> None:
    population = esopt.Population(np.zeros(2), 1.0, esopt.Gaussian().noise(esopt.Key(1), 3, 2), np.zeros((1, 2)))
    values = np.array([1.0, np.nan, np.nan, 3.0, 4.0, np.nan, 5.0, 7.0])
    grads = np.arange(16.0).reshape(8, 2)
    after, noise = average(esopt.Evals(values, grads), population, 2)

    np.testing.assert_array_equal(after.values, [2.0, 4.0, np.nan, 6.0])
    np.testing.assert_array_equal(after.grads, [[3, 4], [5, 6], [7, 8], [13, 14]])
    assert noise == pytest.approx(np.std([1.0, 3.0], ddof=1))


def test_without_noise_averages_change_nothing() -> None:
    plain = esopt.minimize(seeded_less, X0, strategy=esopt.CMAES(n=8), generations=20, seed=4)
    averaged = esopt.minimize(seeded_less, X0, strategy=esopt.Averaged(esopt.CMAES(n=8), 4), generations=20, seed=4)

    np.testing.assert_array_equal(plain.mean, averaged.mean)
    assert averaged.evaluations - 1 == 4 * (plain.evaluations - 1)


def seeded_less(x: np.ndarray) -> float:
    return float(x @ x)


def test_the_noise_is_measured_and_the_error_of_a_gradient_falls_with_times() -> None:
    """On f = noise alone the variance of the estimate is that of the noise over times; within 4 standard errors."""

    def spread(times: int) -> tuple[float, float]:
        strategy = esopt.Averaged(esopt.GradientES(n=20, sigma=1.0, rule=esopt.SGD(1e-9)), times)
        es, rng, found, noise = esopt.Optimizer(strategy, np.zeros(5), seed=2), np.random.default_rng(3), [], []
        for _ in range(200):
            info = es.tell(2.0 * rng.standard_normal(len(es.population())))
            found.append(info.gradient.mean)
            noise.append(info.scalars["noise"])
        return float(np.var(found)), float(np.sqrt(np.square(noise).mean()))

    few, noise = spread(2)
    many, _ = spread(8)

    assert noise == pytest.approx(2.0, rel=4.0 / np.sqrt(2 * 200 * 20))
    assert few / many == pytest.approx(4.0, rel=4.0 * np.sqrt(2 * 2 / 1000))


def test_any_evaluator_sees_the_same_seeds() -> None:
    strategy = esopt.Averaged(esopt.CMAES(n=6), 3)
    serial = esopt.minimize(seeded, X0, strategy=strategy, seeded=True, generations=5)
    threads = esopt.minimize(
        None, X0, strategy=strategy, evaluator=esopt.Joblib(esopt.Objective(seeded, seeded=True), 2, "threading"),
        generations=5,
    )  # fmt: skip

    np.testing.assert_array_equal(serial.x, threads.x)
    assert serial.value == threads.value


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="times must be a positive whole number"):
        esopt.Averaged(times=0)
    with pytest.raises(ValueError, match='share="pair"'):
        esopt.Averaged(esopt.CMAES(share="generation"))
    with pytest.raises(TypeError, match="CMAES"):
        esopt.Averaged(esopt.CMAES)
    assert repeat(esopt.CMAES().ask(esopt.CMAES().init(X0, 1)), 1).n == 7
