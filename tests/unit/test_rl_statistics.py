"""Interquartile means and bootstrap intervals: closed forms, all resamples listed, scipy, coverage."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from esopt.rl import bootstrap_interval, interquartile_mean

mean = partial(np.mean, axis=-1)


def test_interquartile_mean_of_known_numbers():
    assert interquartile_mean([7.0]) == 7.0
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0  # too few to leave any out
    assert interquartile_mean([-1e9, 2.0, 3.0, 1e9]) == 2.5
    assert interquartile_mean(np.arange(10.0) ** 2) == np.mean([4.0, 9.0, 16.0, 25.0, 36.0, 49.0])
    assert interquartile_mean([[0.0, 1.0, 2.0, 30.0], [5.0, 5.0, 6.0, -7.0]]).tolist() == [1.5, 5.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_interquartile_mean_is_scipys_trimmed_mean(scores):
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-12, abs=1e-9)


def test_interval_agrees_with_all_resamples_listed():
    strata = [np.array([0.0, 1.0, 7.0]), np.array([2.5, 3.25, 11.0])]
    each = [list(itertools.product(stratum, repeat=3)) for stratum in strata]
    every = np.array([[*a, *b] for a, b in itertools.product(*each)])  # 27 * 27, equally likely
    exact = np.sort(stats.trim_mean(every, 0.25, axis=1))
    for level in (0.95, 0.8, 0.5):
        found = bootstrap_interval(strata, level=level)
        for bound, share in ((found.low, (1 - level) / 2), (found.high, (1 + level) / 2)):
            # The quantile of a discrete law: between those of shares that 50,000 draws cannot tell apart.
            near, far = np.quantile(exact, [max(0.0, share - 0.008), min(1.0, share + 0.008)])
            assert near - 1e-12 <= bound <= far + 1e-12
    assert found.value == pytest.approx(stats.trim_mean(np.concatenate(strata), 0.25), rel=1e-12)


def test_strata_are_resampled_apart():
    # The mean of all runs: only the spread within an environment counts, with the weight of its runs.
    rng = np.random.default_rng(1)
    strata = [rng.normal(0.0, 1.0, 40), rng.normal(1000.0, 3.0, 60)]
    found = bootstrap_interval(strata, statistic=mean)
    error = np.sqrt(sum(len(s) * s.var() for s in strata)) / 100

    assert found.value == pytest.approx(np.concatenate(strata).mean(), rel=1e-12)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.05 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.05 * error)


def test_interval_is_scipys():
    scores = np.random.default_rng(2).gamma(2.0, size=25)
    ours = bootstrap_interval([scores], level=0.9)
    theirs = stats.bootstrap(
        (scores,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=50_000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(0),
        batch=5_000,
    ).confidence_interval
    width = theirs.high - theirs.low

    assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.02 * width)


def test_intervals_hold_the_truth_as_often_as_they_say():
    # 400 data sets of 40 normal runs: 94 % is expected; half the width would give 0.67, twice the width 0.9998.
    rng = np.random.default_rng(3)
    hits = 0
    for seed in range(400):
        found = bootstrap_interval([rng.normal(5.0, 2.0, 40)], replicates=1000, seed=seed)
        hits += found.low <= 5.0 <= found.high
    assert 0.915 <= hits / 400 <= 0.97


def test_equal_seeds_give_equal_intervals_however_many_replicates_fit_a_piece(monkeypatch):
    scores = [np.arange(9.0) ** 2, np.arange(5.0)]
    found = bootstrap_interval(scores, replicates=3000, seed=2**63)
    monkeypatch.setattr("esopt.rl.statistics._NUMBERS", 1000)

    assert bootstrap_interval(scores, replicates=3000, seed=2**63) == found
    assert bootstrap_interval(scores, replicates=3000, seed=1) != found


def test_equal_runs_have_no_spread_and_one_run_has_no_interval():
    assert bootstrap_interval([[3.0, 3.0], [3.0, 3.0]]) == (3.0, 3.0, 3.0)
    value, low, high = bootstrap_interval([[3.0], [4.0, 5.0]])
    assert value == 4.0
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([], {}, "got nothing. Pass a list of one"),
        ([[1.0, 2.0], []], {}, r"got \(2,\), \(0,\)"),
        ([1.0, 2.0], {}, r"got \(\), \(\)"),
        ([[1.0], [1.0, np.nan]], {}, "environment 1 has a score that is not finite"),
        ([[1.0, 2.0]], {"level": 95}, "level must lie between 0 and 1, got 95"),
        ([[1.0, 2.0]], {"replicates": 0}, "replicates must be a positive whole number, got 0"),
        ([[1.0, 2.0]], {"seed": -1}, "seed must be in"),
    ],
)
def test_bad_arguments(scores, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(scores, **options)


def test_interquartile_mean_of_nothing_or_nan():
    with pytest.raises(ValueError, match="got no numbers"):
        interquartile_mean([])
    with pytest.raises(ValueError, match="not finite"):
        interquartile_mean([1.0, np.inf])
