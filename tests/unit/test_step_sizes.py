"""Step-size rules: their formulas, their drift under random selection, convergence, and large populations."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

import esopt
from esopt import CMAES, CSA, LMMAES, MSR, PSR, RMES, TPA, SepCMA
from esopt.records import Goal
from esopt.strategies._cma import Rates, constants

Array = NDArray[np.float64]


def sphere(x: Array) -> Array:
    return np.asarray(np.square(x).sum(axis=1))


def ellipsoid(x: Array) -> Array:
    return np.asarray(np.square(x) @ 1e6 ** np.linspace(0.0, 1.0, x.shape[1]))


def wavy(x: Array) -> Array:
    return np.square(x - 0.3) @ np.linspace(0.2, 20.0, x.shape[1]) + np.sin(3.0 * x).sum(axis=1)


def slope(x: Array) -> Array:
    return x[:, 0]


@cache
def evaluations(strategy: Any, f: Any, dim: int, seeds: tuple[int, ...] = (1, 2, 3, 4, 5)) -> float:
    """Median of the evaluations to 1e-8 from (1, ..., 1)."""
    counts = []
    for seed in seeds:
        state, best, used = strategy.init(np.ones(dim), seed), np.inf, 0
        while best > 1e-8 and used < 200_000:
            values = f(strategy.ask(state).rows())
            state, _ = strategy.tell(state, esopt.Evals(values))
            best, used = min(best, float(values.min())), used + values.size
        counts.append(float(used) if best <= 1e-8 else math.inf)
    return float(np.median(counts))


# ---- Formulas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [CMAES(n=11, step_size=MSR()), RMES(n=11, step_size=MSR())], ids=repr)
def test_median_success(strategy: Any) -> None:
    """K counts rows below a number that lies between two values of the generation before; one row fails."""
    es, q, before = esopt.Optimizer(strategy, np.ones(6), seed=2), 0.0, None
    for generation in range(12):
        values, sigma = wavy(es.ask()), es.state.sigma
        values[generation % 3 :: 8] = np.nan
        es.tell(values)
        if before is not None:
            last = np.where(np.isnan(values), np.inf, values)
            ordered = np.sort(np.where(np.isnan(before), np.inf, before))
            # 0.3 * 11 = 3.3: the fourth best value, and the fifth with a weight of 0.3.
            k = 0.7 * sum(v < ordered[3] for v in last) + 0.3 * sum(v < ordered[4] for v in last)
            q = 0.7 * q + 0.3 * (2.0 / 11.0 * (k - 6.0))
        assert es.state.sigma == pytest.approx(sigma * math.exp(q / (2.0 - 2.0 / 6.0)), rel=1e-12)
        before = values


def test_population_success() -> None:
    es, s, before = esopt.Optimizer(SepCMA(n=10, step_size=PSR(0.2)), np.ones(6), seed=2), 0.0, None
    for _ in range(12):
        values, sigma = np.round(wavy(es.ask())), es.state.sigma
        es.tell(values)
        if before is not None:
            ranks = rankdata(np.concatenate([before, values]))
            s = 0.7 * s + 0.3 * ((ranks[:10] - ranks[10:]).sum() / 100.0 - 0.2)
        assert es.state.sigma == pytest.approx(sigma * math.exp(s), rel=1e-12)
        before = values


@pytest.mark.parametrize(
    "strategy",
    [
        CMAES(n=9, step_size=TPA()),
        CMAES(n=9, step_size=TPA(damping=3.0, exponent=1.0), sigma=np.array([0.1, 1.0, 0.3, 0.5, 0.2])),
        SepCMA(n=9, step_size=TPA()),
        LMMAES(n=9, step_size=TPA()),
        RMES(n=9, step_size=TPA()),
    ],
    ids=repr,
)
def test_two_points(strategy: Any) -> None:
    """They lie on the line of the last step, as far away as noise goes, and their ranks among all set sigma."""
    rule = strategy.step_size
    es, s = esopt.Optimizer(strategy, np.ones(5), seed=2), 0.0
    means = [es.mean.copy()]
    for generation in range(12):
        rows, sigma, population = es.ask(), es.state.sigma, es.population()
        values = wavy(rows)
        assert len(rows) == 9 + 2 * (generation > 0)
        if generation:
            ahead, behind = rows[9] - es.mean, rows[10] - es.mean
            step = means[-1] - means[-2]
            np.testing.assert_allclose(ahead, -behind, rtol=1e-9)
            assert ahead @ step == pytest.approx(np.linalg.norm(ahead) * np.linalg.norm(step), rel=1e-9)
            assert population.tags == ("step size",) * 2
            if generation == 1 and not isinstance(strategy, RMES):  # where a new path makes all steps shorter
                # In the metric of the noise that the step was made with; sigma has not moved yet.
                first = strategy.ask(strategy.init(np.ones(5), 2))
                white = ahead / (0.5 if isinstance(strategy, LMMAES) else first.deviations)
                assert np.linalg.norm(white) == pytest.approx(math.sqrt(5.0), rel=1e-3)
            ranks = np.array([(values < v).sum() for v in values])
            z = (ranks[10] - ranks[9]) / 10.0
            s = 0.7 * s + 0.3 * np.sign(z) * abs(z) ** rule.exponent
        es.tell(values)
        damping = 0.7 + math.log(5.0) if rule.damping is None else rule.damping
        assert es.state.sigma == pytest.approx(sigma * math.exp(s / damping), rel=1e-12)
        means.append(es.mean.copy())


@pytest.mark.parametrize("rule", [TPA(), MSR(), PSR()], ids=repr)
@pytest.mark.parametrize("make", [CMAES, SepCMA])
def test_only_sigma_is_the_rule_s(rule: Any, make: Any) -> None:
    """From one state the rules make the same mean, covariance and paths."""
    plain, other = make(n=8), make(n=8, step_size=rule)
    a, b = plain.init(np.ones(4), 3), other.init(np.ones(4), 3)
    for _ in range(2):
        values = wavy(other.ask(b).rows())
        before = b
        b, _ = other.tell(b, esopt.Evals(values))
    a = replace(a, **{name: getattr(before, name) for name in vars(a) if name != "step_size"})
    a, _ = plain.tell(a, esopt.Evals(values[:8]))
    for name in ("mean", "shape", "path_sigma", "path_c", "history", "latest"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.sigma != b.sigma


def test_a_large_sep_cma_takes_any_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Populations that are not held learn the same sigma, with injected rows or without."""
    ends = []
    for limit in (1 << 18, 0):
        monkeypatch.setattr("esopt.strategies._cma._LARGE", limit)
        es = esopt.Optimizer(SepCMA(n=8, step_size=TPA()), np.ones(6), seed=3)
        for generation in range(20):
            if generation == 7:
                es.inject(np.zeros(6))
                assert es.population().tags == ("injected", "step size", "step size")
            es.tell(wavy(es.ask()))
        ends.append(es.state.sigma)

    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


# ---- Random selection -----------------------------------------------------------------------------------------------


def drift(rule: Any, sampler: Any, dim: int = 16, n: int = 16, generations: int = 2500) -> tuple[float, float]:
    """Return the mean change of log sigma where values are noise, and its standard error."""
    strategy = SepCMA(n=n, sampler=sampler, step_size=rule)
    state, rng, changes = strategy.init(np.zeros(dim), 1), np.random.default_rng(1), []
    for _ in range(generations):
        values = rng.standard_normal(len(strategy.ask(state)))
        after, _ = strategy.tell(state, esopt.Evals(values))
        changes.append(math.log(after.sigma / state.sigma))
        state = replace(after, sigma=1.0)
    means = np.array(changes[100:]).reshape(-1, 50).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(means.size))


UNCORRELATED = [esopt.Gaussian(), esopt.Rademacher(), esopt.Orthogonal(), esopt.Hadamard(), esopt.Sphere()]
BALANCED = [esopt.Antithetic(), pytest.param(esopt.Sobol(), marks=pytest.mark.slow)]


@pytest.mark.parametrize("sampler", [*UNCORRELATED, esopt.Antithetic(), esopt.LowRank((4, 4))], ids=str)
def test_two_points_have_no_drift_with_any_sampler(sampler: Any) -> None:
    found, error = drift(TPA(), sampler)

    assert error < 0.004
    assert abs(found) < 4.0 * error


@pytest.mark.parametrize("sampler", UNCORRELATED, ids=str)
def test_the_path_has_no_drift_where_rows_are_uncorrelated(sampler: Any) -> None:
    found, error = drift(CSA(), sampler)

    assert error < 0.002
    assert abs(found) < 4.0 * error


@pytest.mark.parametrize("sampler", BALANCED, ids=str)
def test_the_path_shrinks_where_rows_balance(sampler: Any) -> None:
    """Rows that sum to zero: E |sum w z|^2 = d / mu_eff (1 - (mu_eff - 1) / (n - 1)) for weights in random order."""
    rates = Rates(*constants(16, 16, True, True)[1])
    shorter = math.sqrt(1.0 - (rates.mass - 1.0) / 15.0)
    expected = rates.sigma / rates.damping * (shorter - 1.0)
    found, _ = drift(CSA(), sampler, generations=1600)

    assert expected < -0.025
    assert found == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("sampler", [esopt.Gaussian(), esopt.Antithetic(), esopt.Rademacher()], ids=str)
def test_success_rules_shrink_by_what_they_aim_at(sampler: Any) -> None:
    """E z of MSR is 2 (0.3 n + 1) / (n + 1) - (n + 1) / n, that of PSR minus its target."""
    msr = (2.0 * 5.8 / 17.0 - 17.0 / 16.0) / (2.0 - 2.0 / 16.0)

    assert drift(MSR(), sampler)[0] == pytest.approx(msr, rel=0.03)
    assert drift(PSR(0.25), sampler)[0] == pytest.approx(-0.25, rel=0.03)


# ---- Convergence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "on_sphere", "on_ellipsoid"),
    [(TPA(), 0.87, 1.2), (MSR(), 1.0, 1.2), (PSR(), 1.03, 1.14), (PSR(0.3, parents=True), 0.98, 1.1)],
    ids=repr,
)
def test_default_population(rule: Any, on_sphere: float, on_ellipsoid: float) -> None:
    """Evaluations to 1e-8 over those with CSA, d = 10: sigma is about right on the sphere and while C is learned."""
    ratios = [
        evaluations(CMAES(step_size=rule, sigma=1.0), f, 10) / evaluations(CMAES(sigma=1.0), f, 10)
        for f in (sphere, ellipsoid)
    ]

    assert ratios == pytest.approx([on_sphere, on_ellipsoid], rel=0.15)


def test_large_population() -> None:
    """n = 10 d = 400: two points need less than 0.7 of the evaluations that CSA needs; success rules about as many."""
    csa, tpa, msr, psr = (
        evaluations(CMAES(step_size=rule, sigma=1.0, n=400), sphere, 40, (1,)) for rule in (CSA(), TPA(), MSR(), PSR())
    )

    assert tpa < 0.7 * csa
    assert 0.85 < msr / csa < 1.15
    assert 0.85 < psr / csa < 1.25


@pytest.mark.parametrize(("rule", "least"), [(CSA(), 0.4), (TPA(), 0.25), (MSR(), 0.15), (PSR(), 0.2)], ids=repr)
def test_a_slope_in_a_large_population(rule: Any, least: float) -> None:
    """The logarithm of sigma grows by at least 0.15 in a generation of n = 10 d: no rule stalls."""
    es = esopt.Optimizer(CMAES(step_size=rule, sigma=1.0, n=100), np.zeros(10), seed=1)
    for _ in range(30):
        es.tell(slope(es.ask()))

    assert least < math.log(es.state.sigma) / 30 < 3.0 * least


@pytest.mark.parametrize("make", [SepCMA, LMMAES, RMES])
@pytest.mark.parametrize("rule", [TPA(), MSR(), PSR()], ids=repr)
def test_large_scale_strategies(make: Any, rule: Any) -> None:
    """As fast on the sphere as with the strategy's own rule, or faster."""
    ratio = evaluations(make(step_size=rule), sphere, 40, (1,)) / evaluations(make(), sphere, 40, (1,))

    assert 0.65 < ratio < 1.1


# ---- Where they are used --------------------------------------------------------------------------------------------


def test_the_points_count() -> None:
    result = esopt.minimize(
        lambda x: float(x @ x), np.ones(4), strategy=CMAES(n=8, step_size=TPA()), generations=10, seed=1
    )

    assert result.evaluations == 10 * 8 + 9 * 2 + 1  # and the mean at the end


def test_compiled_functions_run_without_laps() -> None:
    """They are for CSA: ask and tell make every generation, and a callback changes nothing."""
    numba = pytest.importorskip("numba")
    f, strategy = numba.njit(lambda x: (x * x).sum()), CMAES(step_size=TPA())
    found = esopt.minimize(f, np.ones(5), strategy=strategy, generations=20, seed=1)
    plain = esopt.minimize(f, np.ones(5), strategy=strategy, generations=20, seed=1, callback=lambda step: None)

    np.testing.assert_array_equal(found.mean, plain.mean)
    assert found.evaluations == plain.evaluations
    state = strategy.init(np.ones(5), 1)
    after, lap = strategy.run(state, None, Goal(10, -np.inf, 2**62))
    assert after is state
    assert lap.generations == 0


def test_restarts_and_bounds() -> None:
    inner = CMAES(sigma=1.0, step_size=TPA())
    result = esopt.minimize(
        lambda x: float(np.square(x - 1.0).sum()),
        np.zeros(3),
        strategy=esopt.Restarts(inner, esopt.IPOP()),
        bounds=(-1.0, 1.0),
        evaluations=4000,
        target=1e-9,
        seed=1,
    )

    assert result.value <= 1e-9


def test_a_rule_of_one_s_own() -> None:
    class Constant:
        def init(self, dim: int) -> Any:
            return ()

        def probes(self, mean: Array, sigma: float, state: Any) -> Array:
            return np.empty((0, mean.size))

        def adapt(self, move: Any, state: Any) -> tuple[float, Any]:
            return 0.9 * move.sigma, state

    es = esopt.Optimizer(CMAES(sigma=1.0, step_size=Constant()), np.ones(3), seed=1)
    for _ in range(5):
        es.tell(sphere(es.ask()))

    assert es.state.sigma == pytest.approx(0.9**5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CMAES(step_size=TPA), TypeError, "got the class TPA. Write TPA()"),
        (lambda: SepCMA(step_size=0.3), TypeError, "step_size must follow esopt.protocols.StepSize, got 0.3"),
        (lambda: RMES(step_size=CSA()), ValueError, "keeps no path for sigma. Pass PSR()"),
        (lambda: TPA(smoothing=0.0), ValueError, r"smoothing must be in \(0, 1\], got 0.0"),
        (lambda: TPA(exponent=-1.0), ValueError, "exponent must be a positive number"),
        (lambda: MSR(damping=0.0), ValueError, "damping must be a positive number"),
        (lambda: MSR(quantile=1.0), ValueError, r"quantile must be in \(0, 1\), got 1.0"),
        (lambda: PSR(target=-0.1), ValueError, "target must be 0 or a positive number"),
    ],
)
def test_messages(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
