"""Populations are recipes: rows, extra rows, seeds and sizes; gradients know their signal-to-noise ratio."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import esopt
from esopt import Antithetic, Evals, Gaussian, Given, Gradient, Key, Population

KEY = Key(seed=7, generation=3)
MEAN = np.array([1.0, -2.0, 0.5])


def make(n: int = 6, k: int = 0, scale: Any = 0.5, sampler: Any = None) -> Population:
    population = Population(MEAN, scale, (sampler or Antithetic()).noise(KEY, n, 3))
    return population.with_extra("own", np.arange(3.0 * k).reshape(k, 3)) if k else population


@pytest.mark.parametrize("scale", [0.5, np.array([0.1, 1.0, 10.0])])
@pytest.mark.parametrize("sampler", [Gaussian(), Antithetic()])
def test_rows_are_mean_plus_scaled_noise(scale: Any, sampler: Any):
    population = make(scale=scale, sampler=sampler)

    expected = MEAN + scale * population.noise.rows().astype(np.float64)
    np.testing.assert_array_equal(population.rows(), expected)
    np.testing.assert_array_equal(np.asarray(population), expected)
    np.testing.assert_array_equal(np.asarray(population, np.float32), expected.astype(np.float32))


@given(st.integers(0, 8), st.integers(0, 8), st.sampled_from([0, 2]))
def test_any_piece_of_the_rows_is_a_piece_of_all_rows(start: int, stop: int, k: int):
    population = make(k=k)
    start, stop = sorted((min(start, len(population)), min(stop, len(population))))

    np.testing.assert_array_equal(population.rows(start, stop), population.rows()[start:stop])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_fill_an_array_of_ones_own(dtype: type):
    population = make(k=2)
    out = np.full((8, 3), np.nan, dtype)

    assert population.rows(out=out) is out
    np.testing.assert_allclose(out, population.rows(), rtol=1e-6 if dtype is np.float32 else 0)


def test_index():
    population = make(k=2)

    assert len(population) == 8
    assert (population.n, population.dim) == (6, 3)
    for i in range(8):
        np.testing.assert_array_equal(population[i], population.rows()[i])
        np.testing.assert_array_equal(population[i - 8], population.rows()[i])
    for i in (8, -9):
        with pytest.raises(IndexError, match=f"candidate {i} of a population of 8"):
            population[i]


def test_antithetic_rows_mirror_each_other_about_the_mean():
    rows = make(scale=1.0).rows() - MEAN

    np.testing.assert_allclose(rows[::2], -rows[1::2], atol=1e-15)
    assert np.abs(rows).min() > 0.0


def test_extra_rows_follow_the_noise_under_their_tags():
    population = make().with_extra("mean", MEAN).with_extra("own", np.ones((2, 3)))

    assert population.tags == ("mean", "own", "own")
    assert population.tagged("mean").tolist() == [6]
    assert population.tagged("own").tolist() == [7, 8]
    assert population.tagged("else").tolist() == []
    np.testing.assert_array_equal(population.rows()[6:], [MEAN, [1, 1, 1], [1, 1, 1]])
    assert population.with_extra("mean", np.zeros(3)) is population


def test_resizing_keeps_rows_and_seeds():
    small, large = make(4), make(4).resize(10)

    np.testing.assert_array_equal(large.rows()[:4], small.rows())
    np.testing.assert_array_equal(large.seeds[:4], small.seeds)


def test_needs_accumulate():
    population = make()

    assert population.needs == {"values"}
    assert population.needing("grads").needing("grads").needs == {"values", "grads"}
    assert population.needs == {"values"}


def test_pairs_share_their_seed():
    seeds = make(6, k=2).seeds

    assert seeds[0] == seeds[1]
    assert seeds[4] == seeds[5]
    assert len(set(seeds.tolist())) == 3 + 2
    assert (seeds >= 0).all()
    assert (seeds < 2**32).all()
    assert len(set(make(6, sampler=Gaussian()).seeds.tolist())) == 6


def test_given_noise_makes_rows_in_float64():
    rows = np.array([[1e-9, 1.0, 0.0], [-1e-9, -1.0, 0.0]])
    population = Population(np.zeros(3), 2.0, Given(rows, block=2, mirrored=True))

    np.testing.assert_array_equal(population.rows(), 2.0 * rows)


FACTOR = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.1, 0.7]])


@pytest.mark.parametrize("sampler", [Gaussian(), Antithetic()])
def test_rows_of_a_factor_are_mean_plus_factor_times_noise(sampler: Any):
    population = Population(MEAN, FACTOR, sampler.noise(Key(7), 6, 3))
    expected = MEAN + population.noise.rows().astype(np.float64) @ FACTOR.T

    np.testing.assert_allclose(population.rows(), expected, rtol=0.0, atol=1e-14)
    assert not population.separable
    assert population.factor is population.scale


def test_rows_of_a_factor_do_not_depend_on_their_neighbours():
    rows = np.random.default_rng(0).standard_normal((300, 300))
    population = Population(np.zeros(300), rows, Antithetic().noise(Key(7), 20, 300))
    whole = population.rows()

    np.testing.assert_array_equal(np.stack([population[i] for i in range(20)]), whole)
    np.testing.assert_array_equal(whole[::2], -whole[1::2])


def test_rows_of_a_transform_are_what_it_says():
    class Doubled:
        def apply(self, eps: Any) -> Any:
            return 2.0 * eps

    noise = Gaussian().noise(Key(7), 4, 3)
    np.testing.assert_array_equal(Population(MEAN, Doubled(), noise).rows(), Population(MEAN, 2.0, noise).rows())


def test_sigma_refuses_a_factor_for_who_cannot_use_it():
    with pytest.raises(ValueError, match=r"Score\(\) got the scale a factor \(3, 3\)"):
        Population(MEAN, FACTOR, Gaussian().noise(Key(7), 4, 3)).sigma("Score()")


def test_evals_default_to_values_alone():
    evals = Evals(np.zeros(3))

    assert (evals.grads, evals.utilities, evals.steps, dict(evals.failures)) == (None, None, 0, {})


def gradient(mean: Any, stderr: Any) -> Gradient:
    return Gradient(np.array(mean, np.float64), np.array(stderr, np.float64), 4, 0.0, 0.0, 8)


def test_snr_is_signal_over_variance():
    assert gradient([3.0, 4.0], [1.0, 2.0]).snr == pytest.approx(25.0 / 5.0 - 1.0, rel=1e-14)
    assert gradient([0.1, 0.0], [1.0, 1.0]).snr == 0.0
    assert gradient([3.0, 4.0], [0.0, 0.0]).snr == math.inf
    assert math.isnan(gradient([3.0, 4.0], [math.nan, math.nan]).snr)


def test_snr_is_unbiased_where_it_is_not_clipped():
    """Mean of |g|^2 / variance - 1 over many estimates is |true gradient|^2 / variance."""
    random = np.random.default_rng(3)
    true, error = np.array([2.0, -1.0, 3.0]), np.array([0.3, 0.2, 0.4])
    found = [gradient(true + error * random.standard_normal(3), error).snr for _ in range(4000)]
    exact = true @ true / (error @ error)

    assert abs(np.mean(found) - exact) < 4.0 * np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(exact, rel=0.02)


def test_a_population_takes_numbers_and_lists_and_refuses_what_does_not_fit():
    noise = esopt.Gaussian().noise(esopt.Key(1), 8, 3)
    population = esopt.Population([1, 2, 3], 2, noise)

    assert population.mean.dtype == np.float64
    assert type(population.scale) is float
    np.testing.assert_array_equal(population[2:5], population.rows()[2:5])
    np.testing.assert_array_equal(population[6:2:-2], population.rows()[6:2:-2])
    np.testing.assert_array_equal(population[5:2], np.empty((0, 3)))
    for start, stop in ((5, 12), (-1, 3), (4, 2)):
        with pytest.raises(IndexError, match="of a population of 8"):
            population.rows(start, stop)
    with pytest.raises(ValueError, match="out has shape"):
        population.rows(0, 2, out=np.empty((3, 3)))
    with pytest.raises(ValueError, match="mean has shape"):
        esopt.Population(np.zeros(5), 1.0, noise)
    with pytest.raises(ValueError, match="scale has shape"):
        esopt.Population(np.zeros(3), np.ones(2), noise)
