"""Shapings against obvious versions: ranks with ties from scipy, weights from their formulas, ARS from its paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

import esopt
from esopt.records import Population
from esopt.shaping import cma_weights, nes_weights

Array = np.ndarray[Any, Any]

finite = st.floats(allow_nan=False, allow_infinity=False)
few = st.sampled_from([0.0, 1.0, -1.0, 2.0])
failing = st.one_of(finite, few, st.sampled_from([math.nan, math.inf, -math.inf]))
SHAPINGS = [
    esopt.Raw(),
    esopt.Standardize(),
    esopt.CenteredRanks(),
    esopt.TopFraction(0.5),
    esopt.RecombinationWeights(),
    esopt.RecombinationWeights(cma_weights),
]


def population(n: int, block: int = 1) -> Population:
    sampler = esopt.Antithetic() if block == 2 else esopt.Gaussian()
    return Population(np.zeros(2), 0.1, sampler.noise(esopt.Key(3), n, 2))


def shaped(shaping: Any, values: Any, block: int = 1) -> Array:
    values = np.asarray(values, np.float64)
    return shaping.shape(values, population(values.size, block))


def ranks(values: Any) -> Array:
    """0 for the best; ties share the average, nan is worst and ties with nan."""
    values = np.asarray(values, np.float64)
    order = np.unique(values)  # nan last, once
    codes = [order.size - 1 if math.isnan(v) else int(np.searchsorted(order, v)) for v in values]
    return rankdata(codes, method="average") - 1.0


def averaged(values: Any, by_rank: Array) -> Array:
    """by_rank averaged over the ranks that equal values take."""
    low, high = [rankdata(ranks(values), method=m).astype(int) for m in ("min", "max")]
    return np.array([by_rank[a - 1 : b].mean() for a, b in zip(low, high, strict=True)])


@given(st.lists(failing, min_size=2, max_size=30))
def test_centered_ranks_are_scipys(values: list[float]):
    expected = ranks(values) / (len(values) - 1) - 0.5

    np.testing.assert_allclose(shaped(esopt.CenteredRanks(), values), expected, atol=1e-14)


def test_centered_ranks_by_hand():
    values = [3.0, math.nan, -math.inf, 3.0, math.inf, math.nan]

    expected = np.array([1.5, 4.5, 0.0, 1.5, 3.0, 4.5]) / 5 - 0.5
    np.testing.assert_allclose(shaped(esopt.CenteredRanks(), values), expected, rtol=1e-15)
    assert shaped(esopt.CenteredRanks(), [7.0]).tolist() == [0.0]


@given(st.lists(failing, min_size=1, max_size=30), st.sampled_from([nes_weights, cma_weights]))
def test_recombination_weights_go_to_the_ranks(values: list[float], weights):
    n, there = len(values), len(values) - sum(map(math.isnan, values))
    by_rank = weights(n)
    if 2 <= there < n:  # the others as if there were only those, above what failures get
        by_rank = np.append(weights(there) - weights(there)[-1] + by_rank[-1], np.full(n - there, by_rank[-1]))
    expected = -n * averaged(values, by_rank)

    found = shaped(esopt.RecombinationWeights(weights), values)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_failures_leave_the_selection_as_sharp_as_it_is_without_them():
    there, nan = [3.0, 1.0, 2.0, 5.0, 4.0, 6.0], math.nan
    for weights in (nes_weights, cma_weights):
        alone = shaped(esopt.RecombinationWeights(weights), there) / len(there)
        beside = shaped(esopt.RecombinationWeights(weights), [*there, nan, nan, nan, nan]) / 10
        assert (beside[6:] == beside.max()).all()
        np.testing.assert_allclose(beside[:6] - beside[6], alone - alone.max(), atol=1e-15)
    assert abs(shaped(esopt.RecombinationWeights(), [*there, nan, nan, nan, nan]).sum()) < 1e-13


def test_equal_values_give_no_direction():
    for shaping in (esopt.CenteredRanks(), esopt.RecombinationWeights(), esopt.Standardize(), esopt.TopFraction()):
        np.testing.assert_allclose(shaped(shaping, np.full(6, 2.5)), 0.0, atol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 101])
def test_nes_weights(n: int):
    raw = [max(0.0, math.log(n / 2 + 1) - math.log(k)) for k in range(1, n + 1)]
    expected = [u / math.fsum(raw) - 1 / n for u in raw]

    np.testing.assert_allclose(nes_weights(n), expected, rtol=1e-12, atol=1e-15)
    assert abs(nes_weights(n).sum()) < 1e-14


@pytest.mark.parametrize("n", [2, 3, 7, 10, 101])
def test_cma_weights(n: int):
    raw = [math.log((n + 1) / 2) - math.log(k) if k <= n // 2 else 0.0 for k in range(1, n + 1)]

    np.testing.assert_allclose(cma_weights(n), [w / math.fsum(raw) for w in raw], rtol=1e-12)
    assert np.count_nonzero(cma_weights(n)) == n // 2


def test_cma_weights_of_one():
    assert cma_weights(1).tolist() == [1.0]


@given(st.lists(st.one_of(few, st.floats(-100, 100)), min_size=2, max_size=20))
def test_standardize_is_a_z_score(values: list[float]):
    deviation = np.std(values)
    found = shaped(esopt.Standardize(), values)

    if deviation > 1e-10:
        np.testing.assert_allclose(found, (np.array(values) - np.mean(values)) / deviation, rtol=1e-6, atol=1e-9)
    elif len(set(values)) == 1:
        np.testing.assert_allclose(found, 0.0, atol=1e-12)


def test_standardize_leaves_failures_out():
    found = shaped(esopt.Standardize(), [1.0, math.nan, 3.0, math.inf, 5.0])

    expected = np.array([-1.0, math.nan, 0.0, math.nan, 1.0]) / np.std([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@given(st.integers(-1000, 1010), st.sampled_from([esopt.Standardize(), esopt.TopFraction(0.5)]))
def test_normalised_utilities_do_not_see_the_scale_of_the_values(power: int, shaping):
    values = np.array([1.0, 1.5, -2.0, 0.25, 3.0, -1.0, 0.5, 2.0])

    found = shaped(shaping, np.ldexp(values, power), 2)
    np.testing.assert_allclose(found, shaped(shaping, values, 2), rtol=1e-12)
    assert np.abs(found).max() > 0.5


def ars(values: Array, top: int) -> Array:
    """Mania et al., algorithm 2: utilities whose average with eps is the paper's sum over the best directions."""
    pairs = values.reshape(-1, 2)
    best = sorted(range(len(pairs)), key=lambda k: pairs[k].min())[:top]
    deviation = np.std(pairs[best])
    out = np.zeros_like(pairs)
    for k in best:
        # sum over kept pairs (v+ - v-) eps / (top * deviation) = average over all rows of utility * eps * 2
        out[k] = pairs[k] * len(pairs) / (top * deviation)
    return out


@pytest.mark.parametrize("top", [1, 3, 8])
def test_top_fraction_is_the_ars_update(top: int):
    values = np.random.default_rng(4).standard_normal(16)
    rows = np.random.default_rng(5).standard_normal((8, 3)).repeat(2, axis=0) * np.tile([1.0, -1.0], 8)[:, None]

    found = shaped(esopt.TopFraction(top / 8), values, 2)
    np.testing.assert_allclose(found @ rows, ars(values, top).reshape(-1) @ rows, rtol=1e-11)


def test_top_fraction_drops_the_block_of_a_failure():
    found = shaped(esopt.TopFraction(1.0), [1.0, 2.0, math.nan, 0.0, 4.0, 3.0, 5.0, math.inf], 2)

    kept = np.array([1.0, 2.0, 4.0, 3.0])
    usable = (kept - 2.5) / np.std(kept)
    nan = [math.nan, math.nan]
    np.testing.assert_allclose(found, [*usable[:2], *nan, *usable[2:], *nan], rtol=1e-14)


def test_top_fraction_keeps_one_block_at_least():
    found = shaped(esopt.TopFraction(0.01), [5.0, 6.0, 1.0, 9.0, 7.0, 7.0], 2)

    np.testing.assert_allclose(found, np.array([0.0, 0.0, -3.0, 3.0, 0.0, 0.0]), rtol=1e-14)


def test_raw_is_the_values_with_infinities_as_failures():
    values = np.array([1e300, -1e-300, math.inf, -math.inf, math.nan])

    np.testing.assert_array_equal(shaped(esopt.Raw(), values), [1e300, -1e-300, *[math.nan] * 3])


@given(st.lists(failing, min_size=2, max_size=24).filter(lambda v: len(v) % 2 == 0), st.sampled_from(SHAPINGS))
def test_better_is_never_worse(values: list[float], shaping):
    """Lower stays better, failures are nan or rank last, and the argument is left alone."""
    given_values = np.array(values)
    found = shaped(shaping, given_values, 2)

    np.testing.assert_array_equal(given_values, values)
    assert found.shape == given_values.shape
    assert not np.isinf(found).any()
    if shaping.ranks:
        assert not np.isnan(found).any()
        order = np.argsort(given_values, kind="stable")
        assert (np.diff(found[order]) >= -1e-12).all()
    else:
        assert np.isnan(found[~np.isfinite(given_values)]).all()


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_rank_shapings_see_the_order_alone(values: list[int], random):
    numbers = np.array(values, np.float64)
    for shaping in (esopt.CenteredRanks(), esopt.RecombinationWeights()):
        expected = shaped(shaping, numbers)
        np.testing.assert_array_equal(shaped(shaping, np.exp(numbers)), expected)
        shuffle = list(range(len(values)))
        random.shuffle(shuffle)
        np.testing.assert_array_equal(shaped(shaping, numbers[shuffle]), expected[shuffle])


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, math.nan])
def test_fraction_must_be_a_fraction(fraction: float):
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\]"):
        esopt.TopFraction(fraction)
