"""Late values with importance weights: an independent reference, no bias, honest errors, less variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Antithetic, Evals, Gaussian, Key, Population, Score
from esopt.testing._problems import exponential

A = np.array([0.9, -1.2, 0.4])
PROBLEM = exponential(A)
MEAN = np.array([0.3, -0.2, 0.1])
SHIFTS = (np.array([0.45, 0.1, 0.3]), np.array([-0.15, 0.3, 0.2]))
SIGMAS = (0.5, 0.65, 0.45)
SCALES = {"one sigma": SIGMAS, "each its own": tuple(s * np.array([1.0, 0.8, 1.3]) for s in SIGMAS)}


def strata(seed: int, sampler: Any, scales: Any) -> tuple[Population, list[tuple[Population, Any]], Evals]:
    """This generation, two of the past with their late values, and the values of this one."""
    now = Population(MEAN, scales[0], sampler.noise(Key(seed, 2), 8, 3))
    stale = []
    for index, (shift, used) in enumerate(zip(SHIFTS, ([0, 1, 4, 5, 6, 7], [2, 3]), strict=True)):
        past = Population(MEAN + shift, scales[index + 1], sampler.noise(Key(seed, index), 8, 3))
        values = np.full(8, np.nan)
        values[used] = PROBLEM.f(past.rows())[used]
        stale.append((past, values))
    return now, stale, Evals(PROBLEM.f(now.rows()), stale=tuple(stale))


def density(x: Any, population: Population) -> Any:
    scale = np.broadcast_to(population.scale, 3)
    return np.exp(-0.5 * np.square((x - population.mean) / scale).sum(axis=1)) / scale.prod()


def reference(now: Population, stale: Any, evals: Evals, block: int, *, weighted: bool) -> tuple[Any, Any, float]:
    """The same sums, row by row: gradients of the mean and of log sigma, and the effective sample size."""
    values = evals.values
    sums = values.reshape(-1, block).sum(axis=1)
    own = (values.sum() - sums) / (values.size - block)
    rows, centered = [now.rows()], [values - np.repeat(own, block)]
    for past, late in stale:
        used = np.isfinite(late)
        rows.append(past.rows()[used])
        centered.append(late[used] - values.mean())
    x, f = np.concatenate(rows), np.concatenate(centered)
    counts = [len(part) for part in rows]
    mixture = sum(c * density(x, p) for c, p in zip(counts, [now, *[past for past, _ in stale]], strict=True))
    weights = density(x, now) * len(x) / mixture if weighted else np.ones(len(x))
    z = (x - now.mean) / now.scale
    mean = (weights * f) @ z / len(x) / now.scale
    return mean, (weights * f) @ (z**2 - 1.0) / len(x), float(weights.sum() ** 2 / (weights**2).sum())


@pytest.mark.parametrize("sampler", [Antithetic(), Gaussian()], ids=["pairs", "rows"])
@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
def test_equals_the_reference(scales: Any, sampler: Any) -> None:
    estimator = Score(with_scale=True)
    now, stale, evals = strata(7, sampler, scales)
    found, _ = estimator.estimate(now, evals, estimator.init(3))
    mean, scale, effective = reference(now, stale, evals, sampler.block, weighted=True)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    expected = scale if np.ndim(scales[0]) else scale.sum() / scales[0]
    np.testing.assert_allclose(found.scale, expected, rtol=1e-5)
    assert found.notes["effective sample size"] == pytest.approx(effective, rel=1e-5)
    assert found.notes["late rows"] == 8.0
    assert found.evaluations == 16
    assert found.blocks == 16 // sampler.block


@pytest.mark.parametrize(
    ("scales", "sampler", "baseline"),
    [
        (SCALES["one sigma"], Antithetic(), esopt.LeaveOneOut()),
        (SCALES["each its own"], Gaussian(), esopt.LeaveOneOut()),
        (SCALES["each its own"], Antithetic(), esopt.NoBaseline()),
    ],
    ids=["pairs", "rows", "no baseline"],
)
def test_no_bias_and_honest_errors(scales: Any, sampler: Any, baseline: Any) -> None:
    runs, estimator = 700, Score(baseline, with_scale=True)
    truth_scale = np.atleast_1d(PROBLEM.scale_gradient(MEAN, scales[0]))
    truth = np.concatenate([PROBLEM.mean_gradient(MEAN, scales[0]), truth_scale])
    off, variances, naive = np.empty((runs, truth.size)), np.empty((runs, truth.size)), np.empty((runs, 3))
    for seed in range(runs):
        now, stale, evals = strata(seed, sampler, scales)
        found, _ = estimator.estimate(now, evals, estimator.init(3))
        off[seed] = np.concatenate([found.mean, np.atleast_1d(found.scale)]) - truth
        variances[seed] = np.square(np.concatenate([found.mean_stderr, np.atleast_1d(found.scale_stderr)]))
        naive[seed] = reference(now, stale, evals, sampler.block, weighted=False)[0] - truth[:3]
    z = np.abs(off.mean(axis=0) / off.std(axis=0)) * np.sqrt(runs)
    assert z.max() < 4.0
    # Without weights there is a bias that the same test sees.
    assert (np.abs(naive.mean(axis=0) / naive.std(axis=0)) * np.sqrt(runs)).max() > 6.0
    if not isinstance(baseline, esopt.NoBaseline):
        ratio = np.square(off).mean(axis=0) / variances.mean(axis=0)
        assert (ratio > 0.7).all()
        assert (ratio < 1.4).all()


def test_late_rows_reduce_the_variance() -> None:
    estimator, scales = Score(), SCALES["one sigma"]
    both = np.empty((300, 2, 3))
    for seed in range(300):
        now, _, evals = strata(seed, Antithetic(), scales)
        for index, told in enumerate((evals, Evals(evals.values))):
            both[seed, index] = estimator.estimate(now, told, estimator.init(3))[0].mean
    spread = both.var(axis=0).sum(axis=1)
    assert spread[0] < 0.75 * spread[1]


@pytest.mark.parametrize("sampler", [esopt.Paired(), Gaussian()], ids=["pairs", "rows"])
def test_a_whole_run_is_not_biased(sampler: Any) -> None:
    """Late values of a generation whose other values moved the mean: given that mean, the next gradient is unbiased."""
    runs, strategy = 400, esopt.GradientES(sigma=0.5, n=12, sampler=sampler, rule=esopt.SGD(0.08))
    off, used = np.empty((runs, 3)), 0
    for seed in range(runs):
        es = esopt.Optimizer(strategy, MEAN, seed=seed, stale="reweight")
        values = PROBLEM.f(es.ask())
        told = [0, 1, 2, 3, 4, 5, 7, 8]
        es.tell(values[told], rows=told)
        es.close_generation()
        mean = es.mean
        es.tell(values[[6, 9, 10, 11]], rows=[6, 9, 10, 11], generation=0)
        info = es.tell(PROBLEM.f(es.ask()))
        assert info.gradient is not None
        off[seed] = info.gradient.mean - PROBLEM.mean_gradient(mean, 0.5)
        used += "effective sample size" in info.scalars
    assert used > 0.85 * runs
    assert (np.abs(off.mean(axis=0) / off.std(axis=0)) * np.sqrt(runs)).max() < 4.0
