"""Integer coordinates: whole numbers everywhere, the margin against a naive one, success, stop rules, refusals."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt._defaults import default_integer_strategy
from esopt.integers import as_mask
from esopt.protocols import Strategy
from esopt.strategies.margin import Margin, MarginState

Array = NDArray[np.float64]
NORMAL = NormalDist()
BEST = np.array([0.3, 3.0, 1.0, -2.0])
LOW, HIGH = np.array([-1.0, 0.0, 0.0, -np.inf]), np.array([2.0, 9.5, 1.0, np.inf])
START = np.array([1.0, 7.0, 0.0, 3.0])
WHOLE = [1, 2, 3]
SERVED = [
    esopt.CMAES(),
    esopt.SepCMA(),
    esopt.DDCMA(),
    esopt.LRACMAES(),
    esopt.MAES(),
    esopt.DXNESIC(),
    esopt.Restarts(esopt.CMAES()),
    esopt.Averaged(esopt.CMAES(), 2),
    esopt.RandomSearch(),
]


def bowl(x: Array) -> float:
    return float(((x - BEST) ** 2).sum())


@numba.njit
def compiled_bowl(x: Any) -> float:
    return (x[0] - 0.3) ** 2 + (x[1] - 3.0) ** 2 + (x[2] - 1.0) ** 2 + (x[3] + 2.0) ** 2


def late(x: Array) -> float:
    """The integers, the second half, matter once the others have converged."""
    k = x.size // 2
    return float(1e6 * (x[:k] ** 2).sum() + (x[k:] ** 2).sum())


def test_rounded_map_rounds_and_keeps_inside():
    grid = esopt.Rounded([False, True, True, True], esopt.Clip([0.0, -1.5, None, 0.0], [10.0, 4.7, None, 1.0]))
    np.testing.assert_array_equal(grid.low, [0.0, -1.0, -np.inf, 0.0])
    np.testing.assert_array_equal(grid.high, [10.0, 4.0, np.inf, 1.0])
    rows = np.array([[12.3, -7.0, -0.4, 0.51], [0.25, 4.4, 1e7 + 0.6, 0.49]])
    expected = np.array([[10.0, -1.0, 0.0, 1.0], [0.25, 4.0, 1e7 + 1.0, 0.0]])
    np.testing.assert_array_equal(grid.forward(rows), expected)
    np.testing.assert_array_equal(grid.forward(rows[1]), expected[1])
    assert not np.signbit(grid.forward(rows)).any(where=expected == 0.0)
    np.testing.assert_array_equal(grid.inverse(expected[1]), expected[1])
    # Only the first coordinate has a penalty and derivatives: 2.3 outside of a box of width 10.
    np.testing.assert_allclose(grid.penalty(rows), [0.23**2, 0.0])
    np.testing.assert_allclose(grid.slope(rows), [[2 * 0.023, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(grid.pullback(rows, np.ones((2, 4))), [[0, 0, 0, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("given", "shape", "expected"),
    [
        ([1, 2], (4,), [False, True, True, False]),
        ([-1], (3,), [False, False, True]),
        ([True, False, True], (3,), [True, False, True]),
        (True, (2, 2), [[True, True], [True, True]]),
        ([3], (2, 2), [[False, False], [False, True]]),
        ([], (2,), [False, False]),
        (range(1, 3), (3,), [False, True, True]),
    ],
)
def test_masks(given: Any, shape: tuple[int, ...], expected: Any):
    np.testing.assert_array_equal(as_mask(given, shape), expected)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ([0, 1, 1], ValueError, "twice"),
        ([0, -3], ValueError, "twice"),
        ([3], ValueError, "out of range"),
        ([-4], ValueError, "out of range"),
        ([0.0, 1.0], TypeError, "indices"),
        ("all", TypeError, "indices"),
        ([True, False], ValueError, "shape"),
    ],
)
def test_what_is_no_mask_is_refused(given: Any, kind: type[Exception], words: str):
    with pytest.raises(kind, match=words):
        esopt.Optimizer(esopt.CMAES(), [0.0] * 3, integer=given)


def naive(mean: float, spread: float, low: float, high: float, alpha: float) -> tuple[float, float]:
    """Return mean and deviation of one coordinate after the correction of the paper, written for one number."""
    k = min(max(round(mean), low), high)
    if k in (low, high):
        place = k + 0.5 if k == low else k - 0.5
        inside = NORMAL.cdf(-abs(mean - place) / spread)
        if inside < alpha:
            mean = place + (1 if mean > place else -1) * spread * NORMAL.inv_cdf(1 - alpha)
        return mean, spread
    p_low, p_up = NORMAL.cdf((k - 0.5 - mean) / spread), NORMAL.cdf((mean - k - 0.5) / spread)
    p_mid = 1 - p_low - p_up
    q_low, q_up = max(p_low, alpha / 2), max(p_up, alpha / 2)
    change = (1 - q_low - p_mid - q_up) / (q_low + p_mid + q_up - 3 * alpha / 2)
    q_low, q_up = q_low + change * (q_low - alpha / 2), q_up + change * (q_up - alpha / 2)
    z_low, z_up = NORMAL.inv_cdf(1 - q_low), NORMAL.inv_cdf(1 - q_up)
    spread = 1.0 / (z_low + z_up)
    return k - 0.5 + z_low * spread, spread


@pytest.mark.parametrize("strategy", [esopt.CMAES(), esopt.SepCMA()])
def test_margin_is_that_of_the_paper(strategy: Any):
    means = np.array([0.31, 2.4, 2.4999, 7.2, -0.9, 9.3, 40.0, 0.2, 5.0])
    spreads = np.array([0.4, 0.2, 0.11, 0.01, 0.05, 3.0, 1e-3, 2.0, 0.6])
    low, high = np.array([-np.inf, 0, 0, 0, 0, 0, -np.inf, 0, 0]), np.array([np.inf, 9, 9, 9, 1, 9, np.inf, 1, 9])
    margin = Margin(replace(strategy, sigma=np.append(spreads, 1.0)), np.arange(9), low, high)
    state = margin.init(np.append(means, 0.123), 1)
    alpha = 1.0 / (10 * state.inner.latest.size)
    expected = [naive(*row, alpha) for row in zip(means, spreads, low, high, strict=True)]
    np.testing.assert_allclose(state.mean[:9], [mean for mean, _ in expected], rtol=1e-8)
    np.testing.assert_allclose(margin.ask(state).deviations[:9], [spread for _, spread in expected], rtol=1e-8)
    assert state.mean[9] == 0.123
    assert margin.ask(state).deviations[9] == pytest.approx(1.0, rel=1e-14)


def test_neighbours_keep_their_probability_all_along():
    es = esopt.Optimizer(esopt.CMAES(), START, 3, bounds=(LOW, HIGH), integer=WHOLE)
    alpha = 1.0 / (4 * 8)
    for _ in range(120):
        es.tell([bowl(x) for x in es.ask()])
        state = es.state.inner
        assert isinstance(state, MarginState)
        mean, spread = state.mean[WHOLE], es.population().deviations[WHOLE]
        for m, s, low, high in zip(mean, spread, np.ceil(LOW[WHOLE]), np.floor(HIGH[WHOLE]), strict=True):
            k = min(max(round(m), low), high)
            beside = [
                NORMAL.cdf((k - 0.5 - m) / s) if k > low else 0.0,
                NORMAL.cdf((m - k - 0.5) / s) if k < high else 0.0,
            ]
            least = alpha if k in (low, high) else alpha / 2
            assert all(p >= least * (1 - 1e-6) for p, open_ in zip(beside, (k > low, k < high), strict=True) if open_)
    # They have settled, and are no wider than the margin asks for; the continuous one is narrow by now.
    assert es.population().deviations[0] < 1e-3
    np.testing.assert_array_equal(es.mean[WHOLE], BEST[WHOLE])


@pytest.mark.parametrize("strategy", SERVED, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", [esopt.Smooth, esopt.Reflect, esopt.Clip, None])
def test_candidates_mean_and_result_are_whole(strategy: Strategy, kind: Any):
    bounds = None if kind is None else kind(LOW, HIGH)
    es = esopt.Optimizer(strategy, START + np.array([0.0, 0.3, 0.0, 0.3]), 1, bounds=bounds, integer=WHOLE)
    assert (es.result.x[WHOLE] % 1 == 0).all()
    for _ in range(40):
        rows, narrow = es.ask(), es.ask(np.empty((len(es.population()), 4), np.float32))
        for found in (rows, narrow, es.mean[None]):
            assert (found[:, WHOLE] % 1 == 0).all()
            assert kind is None or ((found >= LOW) & (found <= HIGH)).all()
        es.tell([bowl(x) for x in rows])
    assert (es.result.x[WHOLE] % 1 == 0).all()
    assert np.unique(rows[:, 0] % 1).size > 1


@pytest.mark.parametrize("strategy", [*SERVED[:7], None], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", [esopt.Smooth, esopt.Clip])
def test_minimum_is_found(strategy: Strategy | None, kind: Any):
    # LRACMAES spreads over the mirror images of a narrow box, integers or not.
    wide = np.where(np.arange(4) == 0, 20.0, 0.0) if isinstance(strategy, esopt.LRACMAES) else 0.0
    settings = {
        "strategy": strategy,
        "bounds": kind(LOW - wide, HIGH + wide),
        "integer": WHOLE,
        "target": 1e-9,
        "seed": 2,
    }
    result = esopt.minimize(bowl, START, evaluations=5000, **settings)
    assert result.value <= 1e-9
    np.testing.assert_array_equal(result.x[WHOLE], BEST[WHOLE])


@pytest.mark.parametrize("strategy", [esopt.CMAES(1.0), esopt.SepCMA(1.0)])
def test_integers_that_matter_late_are_found_and_only_with_the_margin(strategy: Any):
    for seed, start in enumerate(np.random.default_rng(0).uniform(1.0, 3.0, (3, 12))):
        found = esopt.minimize(
            late, start, strategy=strategy, integer=range(6, 12), seed=seed, evaluations=8000, target=1e-10
        )
        assert found.value <= 1e-10
        plain = esopt.Bounded(strategy, esopt.Rounded(np.arange(12) >= 6))
        assert esopt.minimize(late, start, strategy=plain, seed=seed, evaluations=4000).value > 0.5


def test_binary_variables_from_a_corner():
    def ones(x: Array) -> float:
        assert set(x) <= {0.0, 1.0}
        return float(x.size - x.sum())

    for seed in range(5):
        result = esopt.minimize(
            ones,
            [0.0] * 20,
            strategy=esopt.CMAES(),
            bounds=(0, 1),
            integer=True,
            target=0.0,
            seed=seed,
            evaluations=3000,
        )
        assert result.reason == {"target": 0.0}


def test_settled_integers_do_not_stop_the_search():
    # x[0] gains only where x[1] is 4: nothing changes for as long as that is not found.
    def steps(x: Array) -> float:
        return float((x[0] - 0.5) ** 2) if x[1] == 4.0 else 10.0

    es = esopt.Optimizer(esopt.CMAES(), [0.0, 0.0], 1, integer=[1])
    plain = esopt.Optimizer(esopt.CMAES(), [0.0, 0.0], 1)
    for _ in range(5):
        es.tell([steps(x) for x in es.ask()])
        plain.tell([10.0] * len(plain.ask()))
    assert "flat" in plain.stop()
    assert not es.stop()
    # All integers, all settled: they are looked at for 120 + 30 d / n generations.
    es = esopt.Optimizer(esopt.CMAES(0.3), [0.0] * 4, 1, integer=True)
    while not es.stop():
        es.tell([float((x**2).sum()) for x in es.ask()])
    assert set(es.stop()) <= {"stagnation", "tolfunhist", "tolfun"}
    assert es.generation >= 120


def test_stop_once_the_others_have_converged():
    result = esopt.minimize(lambda x: 1.0 + bowl(x), START, strategy=esopt.CMAES(), integer=WHOLE, evaluations=20_000)
    assert result.evaluations < 5000
    assert "evaluations" not in result.reason
    assert result.value - 1.0 < 1e-11


def test_saved_runs_and_other_evaluators_have_the_same_bits(tmp_path: Any):
    def fresh() -> esopt.Optimizer:
        return esopt.Optimizer(esopt.Restarts(esopt.CMAES()), START, 4, bounds=(LOW, HIGH), integer=WHOLE)

    es = fresh()
    for _ in range(30):
        es.tell([bowl(x) for x in es.ask()])
    es.save(tmp_path / "run.npz")
    again = fresh()
    again.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.ask(), es.ask())
    with pytest.raises(esopt.CheckpointError):
        esopt.Optimizer(esopt.Restarts(esopt.CMAES()), START, 4, bounds=(LOW, HIGH), integer=[1, 2]).load(
            tmp_path / "run.npz"
        )
    settings = {"integer": WHOLE, "bounds": (LOW, HIGH), "evaluations": 400, "seed": 4}
    serial = esopt.minimize(bowl, START, **settings)
    assert serial.strategy == "Bounded(Restarts)"
    np.testing.assert_array_equal(esopt.minimize(bowl, START, workers=2, **settings).x, serial.x)
    for other in (
        esopt.minimize(compiled_bowl, START, history=True, **settings),
        esopt.minimize(lambda rows: ((rows - BEST) ** 2).sum(axis=1), START, vectorized=True, **settings),
    ):
        np.testing.assert_array_equal(other.x[WHOLE], BEST[WHOLE])
        assert other.evaluations == serial.evaluations


@pytest.mark.parametrize(
    "strategy",
    [
        *(esopt.Portfolio(), esopt.snes(), esopt.GradientES(), esopt.CRFMNES(), esopt.RMES()),
        *(esopt.Restarts(esopt.snes()), esopt.OnePlusOneCMA(), esopt.OnePlusOneCMA(n=6)),
    ],
)
def test_other_strategies_are_refused_by_name(strategy: Strategy):
    with pytest.raises(
        TypeError,
        match=r"cannot search integers. Use CMAES\(\), SepCMA\(\), DDCMA\(\), LRACMAES\(\), MAES\(\) or DXNESIC\(\)",
    ):
        esopt.minimize(bowl, START, strategy=strategy, integer=WHOLE)


def test_bad_bounds_and_settings():
    with pytest.raises(ValueError, match=r"integer coordinate \[1\] have fewer than two"):
        esopt.minimize(bowl, START, integer=WHOLE, bounds=([None, 3.2, None, None], [None, 4.4, None, None]))
    with pytest.raises(ValueError, match="outside its bounds"):
        esopt.minimize(bowl, START, integer=WHOLE, bounds=(0, 5))
    with pytest.raises(ValueError, match="alpha"):
        Margin(alpha=0.5)
    with pytest.raises(ValueError, match="got integer=None"):
        esopt.Optimizer(Margin(), [0.0])
    with pytest.raises(TypeError, match="indices"):
        Margin(integer=[0.5])
    with pytest.raises(ValueError, match="whole"):
        Margin(integer=[0], low=0.5)
    with pytest.raises(TypeError, match="booleans"):
        esopt.Rounded([0, 1])
    with pytest.raises(ValueError, match="no use of it"):
        esopt.minimize(bowl, START, integer=WHOLE, grad=lambda x: 2 * (x - BEST))


def test_a_margin_of_ones_own_is_kept():
    es = esopt.Optimizer(Margin(esopt.CMAES(0.01), alpha=0.2), [0.2, 5.1], integer=[1])
    assert es.state.inner.mean[1] == pytest.approx(5.0)
    # Each neighbour has 0.1: 0.5 is the 90 % quantile.
    assert es.population().deviations[1] == pytest.approx(0.5 / NORMAL.inv_cdf(0.9), rel=1e-9)


def test_defaults_of_minimize():
    box = esopt.Rounded([False, True, True, True], esopt.Smooth([0, 0, 0, None], [1, 1, 20, None]))
    found = default_integer_strategy(None, box, np.zeros(4), stochastic=False)
    assert isinstance(found, esopt.Restarts)
    assert isinstance(found.inner, esopt.CMAES)
    np.testing.assert_allclose(found.inner.sigma, [0.2, 0.5, 5.25, 1.0])
    noisy = default_integer_strategy(2.0, box, np.zeros(4), stochastic=True)
    assert isinstance(noisy, esopt.CMAES)
    assert noisy.n == 100
    free = esopt.Rounded(box.rounds, esopt.Smooth([None, 0, 0, None], [1, 1, 20, None]))
    assert isinstance(default_integer_strategy(2.0, free, np.zeros(2), stochastic=True), esopt.LRACMAES)
    many = default_integer_strategy(2.0, esopt.Rounded(np.ones(201, bool)), np.zeros(201), stochastic=False)
    assert isinstance(many, esopt.Restarts)
    assert isinstance(many.inner, esopt.SepCMA)
    assert many.inner.sigma == 2.0


def test_shapes_of_more_axes():
    x0, mask = np.zeros((2, 2)), np.array([[False, True], [True, False]])
    result = esopt.minimize(lambda x: float(((x - 1.4) ** 2).sum()), x0, integer=mask, evaluations=2000, seed=1)
    assert result.x.shape == (2, 2)
    np.testing.assert_allclose(result.x, [[1.4, 1.0], [1.0, 1.4]], atol=1e-5)
    same = esopt.minimize(lambda x: float(((x - 1.4) ** 2).sum()), x0, integer=[1, 2], evaluations=2000, seed=1)
    np.testing.assert_array_equal(same.x, result.x)


def test_no_integers_change_no_bit():
    for none in ([], np.zeros(4, bool)):
        a, b = (esopt.Optimizer(esopt.CMAES(), START, 1, integer=i) for i in (None, none))
        np.testing.assert_array_equal(a.ask(), b.ask())
        assert type(b.state) is type(a.state)


def test_fmin_knows_integer_variables():
    found = esopt.fmin(bowl, START, 1.0, {"integer_variables": WHOLE, "ftarget": 1e-9, "maxfevals": 5000})
    assert found.fbest <= 1e-9
    assert (found.xbest[WHOLE] % 1 == 0).all()


@pytest.mark.parametrize("generation", [150, 151, 152])  # another axis each, and the condition at 130 + 10 k
def test_narrow_integers_give_no_reason_to_stop(generation: int):
    margin = Margin(esopt.CMAES(), [1])
    state = margin.init(np.array([0.5, 3.0, 0.5]), 1)
    told: dict[int, set[str]] = {}
    for narrow in (0, 1):
        lengths = np.where(np.arange(3) == narrow, 1e-18, 1.0)
        found: set[str] = set()
        for k in (generation, 130):
            inner = replace(state.inner, generation=k, factor=np.diag(lengths))
            assert "noeffectcoord" in margin.inner.stop(inner)
            found |= set(margin.stop(replace(state, inner=inner)))
            told[k] = set(margin.inner.stop(inner))
        assert found == ({"noeffectcoord", "condition"} if narrow == 0 else set())
    assert "condition" in told[130]


def test_an_integer_may_have_a_sigma_wider_than_its_bounds():
    bounds = ([0.0, -10.0], [1.0, 10.0])
    assert esopt.Optimizer(esopt.CMAES(3.0), [0.0, 0.5], bounds=bounds, integer=[0]).ask().shape == (6, 2)
    with pytest.raises(ValueError, match="sigma is 3 in coordinate 0"):
        esopt.Optimizer(esopt.CMAES(3.0), [0.0, 0.5], bounds=bounds)


def test_a_start_between_a_bound_and_the_last_integer():
    with pytest.raises(
        ValueError, match=r"x0\[0\] = 4\.7.* is outside its bounds \[1, 4\]\. It is an integer: these are"
    ):
        esopt.minimize(lambda x: float(x @ x), [4.7, 1.0], integer=[0], bounds=(0.5, 4.9))
    with pytest.raises(ValueError, match=r"x0\[1\] = 6 is outside its bounds .* np\.clip"):
        esopt.minimize(lambda x: float(x @ x), [4.0, 6.0], integer=[0], bounds=(0.5, 4.9))
