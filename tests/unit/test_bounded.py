"""Bounds around strategies: always inside, optima wherever they are, the chain rule, equal bits, refused arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

import esopt
from esopt.strategies.quasi_newton import QuasiNewton

Array = NDArray[np.float64]
LOW, HIGH = np.array([-1.0, 0.5, -np.inf, -2.0]), np.array([1.0, np.inf, 0.25, 3.0])
START = np.array([0.5, 1.0, 0.0, 2.0])
KINDS = (esopt.Smooth, esopt.Reflect, esopt.Clip)
STRATEGIES = [
    esopt.CMAES(sigma=1.0),
    esopt.SepCMA(sigma=1.0),
    esopt.Restarts(esopt.CMAES(sigma=2.0)),
    QuasiNewton(),
    esopt.snes(sigma=1.0),
    esopt.pgpe(),
    esopt.openai_es(),
    esopt.ars(),
    esopt.GradientES(sigma=1.0, estimator=esopt.Score(esopt.AtMean()), sampler=esopt.Gaussian(), n=6),
    esopt.GradientES(sigma=0.5, estimator=esopt.Bonnet()),
]


def bowl(x: Array) -> float:
    """Its minimum, 2 everywhere, is outside in two of the four coordinates of the box."""
    return float(((x - 2.0) ** 2).sum())


def bowl_grad(x: Array) -> Array:
    return 2.0 * (x - 2.0)


def named(strategy: Any) -> str:
    return f"{type(strategy).__name__}-{STRATEGIES.index(strategy)}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=named)
def test_what_the_function_sees_is_inside(strategy: Any, kind: Any):
    seen: list[Array] = []
    means: list[Array] = []

    def watched(x: Array) -> float:
        seen.append(x.copy())
        return bowl(x)

    needs_grad = strategy.ask(strategy.init(START, 0)).needs > {"values"}
    result = esopt.minimize(
        watched,
        START,
        strategy=strategy,
        bounds=kind(LOW, HIGH),
        grad=bowl_grad if needs_grad else None,
        generations=60,
        seed=4,
        callback=lambda step: means.append(step.mean),
    )

    for rows in (np.array(seen), np.array(means), result.x[None], result.mean[None], result.best.x[None]):
        assert (rows >= LOW).all()
        assert (rows <= HIGH).all()
    assert result.value == bowl(result.x) < bowl(START)
    assert result.strategy == f"Bounded({type(strategy).__name__})"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimum", [2.0, 0.0, -7.0], ids=["on the upper bound", "inside", "on the lower bound"])
@pytest.mark.parametrize("strategy", [esopt.CMAES(), esopt.SepCMA(), esopt.snes()], ids=["CMAES", "SepCMA", "snes"])
def test_the_optimum_is_found_where_it_is(kind: Any, optimum: float, strategy: Any):
    def f(x: Array) -> float:
        return float((np.array([1.0, 10.0, 100.0]) * (x - optimum) ** 2).sum())

    nearest = np.clip(np.full(3, optimum), -1.0, 0.75)
    result = esopt.minimize(
        f,
        np.full(3, -0.5),
        strategy=strategy,
        bounds=kind(-1.0, 0.75),
        target=f(nearest) + 1e-8,
        seed=1,
        evaluations=6000,
    )

    assert "target" in result.reason
    np.testing.assert_allclose(result.x, nearest, atol=1e-3)


def test_corners_and_open_sides_together():
    f = bowl
    for bounds in ((LOW, HIGH), esopt.Clip(LOW, HIGH)):
        result = esopt.minimize(f, START, strategy=esopt.CMAES(), bounds=bounds, evaluations=4000, seed=2)
        np.testing.assert_allclose(result.x, [1.0, 2.0, 0.25, 2.0], atol=1e-6)


def test_bounds_far_away_change_nothing():
    plain = esopt.minimize(bowl, START, strategy=esopt.CMAES(), generations=30, seed=1)
    for bounds in ((None, None), (-np.inf, np.inf), (-1e6, 1e6), esopt.Clip(None, 1e9), esopt.Reflect(-1e3, None)):
        same = esopt.minimize(bowl, START, strategy=esopt.CMAES(), bounds=bounds, generations=30, seed=1)
        np.testing.assert_array_equal(same.x, plain.x)
        np.testing.assert_array_equal(same.mean, plain.mean)


@pytest.mark.parametrize(
    ("name", "strategy", "budget"),
    [("CMAES", esopt.CMAES(), 1800), ("SepCMA", esopt.SepCMA(), 1600), ("snes", esopt.snes(), 2400)],
)
def test_an_active_bound_costs_no_more_than_a_free_optimum(name: str, strategy: Any, budget: int):
    """On the sphere in d = 10, to 1e-8, every coordinate on its bound, from the same start and sigma."""

    def f(x: Array) -> float:
        return float((x * x).sum())

    used = []
    for seed in range(3):
        found = esopt.minimize(
            f, [2.0] * 10, strategy=strategy, bounds=(0.5, 3.0), target=2.5 + 1e-8, seed=seed, evaluations=10_000
        )
        assert "target" in found.reason
        used.append(found.evaluations)

    assert np.median(used) < budget


@pytest.mark.parametrize("start", [[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
def test_a_start_on_a_bound_gets_away_from_it(start: list[float]):
    def f(x: Array) -> float:
        return float(((x - 0.5) ** 2).sum())

    for strategy in (esopt.CMAES(sigma=0.2), esopt.openai_es(sigma=0.05), QuasiNewton(sigma=0.1)):
        found = esopt.minimize(f, start, strategy=strategy, bounds=(0.0, 1.0), seed=1, evaluations=3000)
        np.testing.assert_allclose(found.x, 0.5, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_with_gradients_reaches_a_corner(kind: Any):
    found = esopt.minimize(bowl, START, grad=bowl_grad, bounds=kind(LOW, HIGH), generations=800, seed=1)

    np.testing.assert_allclose(found.x, [1.0, 2.0, 0.25, 2.0], atol=5e-3)
    np.testing.assert_allclose(found.mean, found.x, atol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_follow_the_chain_rule(kind: Any):
    """Bonnet under bounds is the exact derivative, in the search mean, of the average of F over its rows."""
    rows = np.random.default_rng(2).normal(size=(40, 4))
    box = kind(LOW, HIGH, weight=3.0) if kind is esopt.Clip else kind(LOW, HIGH)
    mean = np.array([0.9, 0.45, 0.3, 2.9])
    strategy = esopt.GradientES(sigma=0.4, sampler=esopt.Replay(rows), n=40, estimator=esopt.Bonnet())
    bounded = esopt.Bounded(strategy, box)
    state = bounded.init(START, 0)
    state = replace(state, inner=replace(state.inner, mean=mean))
    x = bounded.ask(state).rows()

    def f(x: Array) -> Array:
        return np.asarray(np.sin(3.0 * x).sum(axis=1) + x[:, 0] * x[:, 3])

    def grad(x: Array) -> Array:
        return 3.0 * np.cos(3.0 * x) + np.stack([x[:, 3], 0 * x[:, 1], 0 * x[:, 2], x[:, 0]], axis=1)

    def average(mean: Array) -> float:
        y = mean + 0.4 * rows
        return float((f(box.forward(y)) + (3.0 if kind is esopt.Clip else 0.0) * box.penalty(y)).mean())

    _, info = bounded.tell(state, esopt.Evals(f(x), grad(x)))

    h = 1e-6
    numerical = [(average(mean + h * e) - average(mean - h * e)) / (2 * h) for e in np.eye(4)]
    np.testing.assert_allclose(info.gradient.mean, numerical, atol=1e-7)
    assert abs(info.gradient.value - average(mean)) < 1e-12


def test_score_and_bonnet_agree_within_bounds():
    """Both estimate the gradient of the same smoothed F; the bounds are within one sigma."""
    x0, results = np.array([0.3, -0.2, 0.4]), []
    for estimator in (esopt.Score(), esopt.Bonnet()):
        strategy = esopt.GradientES(sigma=0.5, n=60_000, estimator=estimator)
        es = esopt.Optimizer(strategy, x0, seed=5, bounds=(-0.5, 0.6))
        x = es.ask()
        info = es.tell(((x - 2.0) ** 2).sum(axis=1), 2.0 * (x - 2.0))
        results.append((info.gradient.mean, info.gradient.mean_stderr))
    (score, error), (bonnet, other) = results

    assert np.abs((score - bonnet) / np.hypot(error, other)).max() < 4.0
    assert np.abs(bonnet / other).min() > 100.0


@dataclass(frozen=True)
class Probing:
    """Asks for every derivative, and keeps what it is told."""

    needs: frozenset[str]
    told: list[esopt.Evals]

    def init(self, x0: Array, seed: int) -> Any:
        return esopt.CMAES().init(x0, seed)

    def ask(self, state: Any) -> esopt.Population:
        noise = esopt.Gaussian().noise(esopt.Key(1), 6, state.mean.size)
        probes = esopt.Gaussian().noise(esopt.Key(2), 6, state.mean.size)
        return esopt.Population(state.mean, 0.7, noise, extra=state.mean[None], needs=self.needs, probes=probes)

    def tell(self, state: Any, evals: esopt.Evals) -> Any:
        self.told.append(evals)
        return state, esopt.Info(0)

    def stop(self, state: Any) -> dict[str, float]:
        return {}


def test_second_derivatives_and_products_follow_the_chain_rule():
    strategy = Probing(frozenset({"values", "hessians", "hvps", "jvps"}), [])
    box = esopt.Smooth(LOW, HIGH)
    bounded = esopt.Bounded(strategy, box)
    state = bounded.init(START, 0)
    population = bounded.ask(state)
    q = np.array([[2.0, 0.5, 0.0, 1.0], [0.5, 1.0, 0.3, 0.0], [0.0, 0.3, 3.0, 0.2], [1.0, 0.0, 0.2, 1.0]])
    x, v = population.rows(), population.probes.rows()
    grads = x @ q + 1.0

    def both(hessians: Array) -> esopt.Evals:
        evals = esopt.Evals(
            np.einsum("ij,jk,ik->i", x, q, x) / 2 + x.sum(axis=1),
            grads,
            None,
            hessians,
            v @ q,
            (grads[:6] * v).sum(axis=1),
        )
        bounded.tell(state, evals)
        return strategy.told[-1]

    full = both(np.broadcast_to(q, (7, 4, 4)).copy())
    diagonal = both(np.broadcast_to(np.diag(q), (7, 4)).copy())

    y, w, h = strategy.ask(state.inner).rows(), strategy.ask(state.inner).probes.rows(), 1e-5

    def slope(y: Array) -> Array:
        return np.asarray(box.derivative(y) * (box.forward(y) @ q + 1.0))

    assert population.needs >= {"grads", "hessians", "hvps", "jvps"}
    for j in range(4):
        step = h * np.eye(4)[j]
        column = (slope(y + step) - slope(y - step)) / (2 * h)
        np.testing.assert_allclose(full.hessians[:, :, j], column, atol=1e-8)
        np.testing.assert_allclose(diagonal.hessians[:, j], column[:, j], atol=1e-8)
    np.testing.assert_allclose(full.grads, slope(y), atol=1e-12)
    np.testing.assert_allclose(full.jvps, (slope(y)[:6] * w).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(full.hvps, (slope(y[:6] + h * w) - slope(y[:6] - h * w)) / (2 * h), atol=1e-8)


@pytest.mark.parametrize("kind", [esopt.Reflect, esopt.Clip])
def test_maps_with_kinks_refuse_second_derivatives_and_allow_products_with_gradients(kind: Any):
    bounded = esopt.Bounded(Probing(frozenset({"values", "hessians"}), []), kind(LOW, HIGH))
    with pytest.raises(ValueError, match=r"hessians.*Use Smooth"):
        bounded.ask(bounded.init(START, 0))
    strategy = Probing(frozenset({"values", "jvps"}), [])
    box = kind(LOW, HIGH, weight=3.0) if kind is esopt.Clip else kind(LOW, HIGH)
    bounded = esopt.Bounded(strategy, box)
    state = bounded.init(START, 0)
    y, w = strategy.ask(state.inner).rows()[:6], strategy.ask(state.inner).probes.rows()
    population = bounded.ask(state)

    def value(y: Array) -> Array:
        penalty = 3.0 * box.penalty(y) if box.penalises else 0.0
        return np.asarray((box.forward(y) ** 3).sum(axis=1) + penalty)

    jvps = (3.0 * population.rows(0, 6) ** 2 * population.probes.rows()).sum(axis=1)
    bounded.tell(state, esopt.Evals((population.rows() ** 3).sum(axis=1), jvps=jvps))

    h = 1e-7
    np.testing.assert_allclose(strategy.told[0].jvps, (value(y + h * w) - value(y - h * w)) / (2 * h), atol=1e-5)


@numba.njit
def compiled_bowl(x):
    total = 0.0
    for j in range(x.size):
        total += (j + 1.0) * (x[j] - 2.0) * (x[j] - 2.0)
    return total


def rows_bowl(rows: Array) -> Array:
    return np.array([compiled_bowl.py_func(row) for row in rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", [esopt.snes(sigma=1.0), esopt.CMAES(sigma=1.0)], ids=["snes", "CMAES"])
def test_every_evaluator_gives_the_same_bits(kind: Any, strategy: Any):
    def run(f: Any, **how: Any) -> esopt.Result:
        return esopt.minimize(f, START, strategy=strategy, bounds=kind(LOW, HIGH), generations=12, seed=3, **how)

    plain = run(compiled_bowl.py_func)
    objective = esopt.Objective(compiled_bowl.py_func)
    for other in (
        run(compiled_bowl),
        run(rows_bowl, vectorized=True),
        run(None, evaluator=esopt.Joblib(objective, workers=2, backend="threading")),
    ):
        np.testing.assert_array_equal(other.x, plain.x)
        np.testing.assert_array_equal(other.mean, plain.mean)
        assert other.value == plain.value


@pytest.mark.slow
def test_processes_get_the_map_with_the_recipe():
    plain = esopt.minimize(bowl, START, bounds=(LOW, HIGH), generations=4, seed=3)
    other = esopt.minimize(bowl, START, bounds=(LOW, HIGH), generations=4, seed=3, workers=2)

    np.testing.assert_array_equal(other.x, plain.x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_in_the_same_bits_and_bounds_are_part_of_the_configuration(kind: Any, tmp_path: Any):
    path = tmp_path / "run.npz"

    def make(high: Any = HIGH) -> esopt.Optimizer:
        return esopt.Optimizer(esopt.CMAES(), START, seed=1, generations=12, bounds=kind(LOW, high))

    def run(es: esopt.Optimizer, generations: int) -> esopt.Optimizer:
        while es.generation < generations:
            es.tell([bowl(x) for x in es.ask()])
        return es

    whole, half = run(make(), 12), run(make(), 5)
    half.save(path)
    resumed = make()
    resumed.load(path)

    np.testing.assert_array_equal(run(resumed, 12).mean, whole.mean)
    np.testing.assert_array_equal(resumed.result.x, whole.result.x)
    with pytest.raises(esopt.CheckpointError, match="high"):
        make(5.0).load(path)
    with pytest.raises(esopt.CheckpointError, match="Bounded"):
        esopt.Optimizer(esopt.CMAES(), START, seed=1).load(path)


def test_ask_and_tell_in_the_shape_of_x0():
    low, high = np.zeros((2, 2)), np.array([[1.0, 2.0], [3.0, np.inf]])
    es = esopt.Optimizer(esopt.CMAES(sigma=2.0), np.full((2, 2), 0.5), bounds=(low, high), generations=20)
    while not es.stop():
        x = es.ask()
        assert x.shape[1:] == (2, 2)
        assert (x >= low).all()
        assert (x <= high).all()
        es.tell(((x - 1.5) ** 2).sum(axis=(1, 2)))
    narrow = es.ask(np.empty_like(es.ask(), dtype=np.float32))
    assert (narrow >= low).all()
    assert (narrow <= high).all()
    assert es.mean.shape == (2, 2)
    assert (es.mean >= low).all()
    assert (es.mean <= high).all()
    np.testing.assert_array_equal(es.result.mean, es.mean)


def test_a_noisy_result_is_inside_too():
    def noisy(x: Array, seed: int) -> float:
        return bowl(x) + 1e-3 * (seed % 7)

    found = esopt.minimize(noisy, START, seeded=True, bounds=(LOW, HIGH), evaluations=800, seed=1)

    assert (found.x >= LOW).all()
    assert (found.x <= HIGH).all()
    np.testing.assert_array_equal(found.x, found.mean)


def test_the_weight_of_the_penalty_is_found_once_and_kept():
    box = esopt.Clip(0.0, 10.0)
    bounded = esopt.Bounded(esopt.CMAES(sigma=1.0, n=8), box)
    state = bounded.init(np.full(3, 0.5), 1)
    values = bowl_values(bounded.ask(state).rows())
    after, _ = bounded.tell(state, esopt.Evals(values))
    later, _ = bounded.tell(after, esopt.Evals(bowl_values(bounded.ask(after).rows())))

    assert np.isnan(state.weight)
    assert after.weight == later.weight
    spread = np.quantile(values, 0.75) - np.quantile(values, 0.25)
    assert after.weight == pytest.approx(spread * 100.0, rel=1e-12)  # one sigma outside costs the range of the values
    flat, _ = bounded.tell(state, esopt.Evals(np.ones(8)))
    assert np.isnan(flat.weight)
    given = esopt.Bounded(esopt.CMAES(), esopt.Clip(0.0, 10.0, weight=3.0)).init(np.ones(3), 0)
    assert given.weight == 3.0


def bowl_values(rows: Array) -> Array:
    return np.asarray(((rows - 2.0) ** 2).sum(axis=1))


def test_values_that_are_reported_are_those_of_the_function():
    es = esopt.Optimizer(esopt.CMAES(sigma=3.0), [0.1, 0.1], seed=1, bounds=esopt.Clip(0.0, 1.0, weight=1e6))
    x = es.ask()
    es.tell(x.sum(axis=1))

    assert es.result.value == x.sum(axis=1).min()


def test_starts_and_sizes_are_refused_in_words():
    with pytest.raises(ValueError, match=r"x0\[2\] = 7 is outside its bounds \[-5, 5\]\. Start inside"):
        esopt.Optimizer(esopt.CMAES(), [0.0, 0.0, 7.0], bounds=(-5.0, 5.0))
    with pytest.raises(ValueError, match=r"x0\[1, 0\] = -6 is outside.*and so are 1 others"):
        esopt.minimize(bowl, [[0.0, 0.0], [-6.0, 9.0]], bounds=(np.full((2, 2), -5.0), 5.0))
    with pytest.raises(ValueError, match="low has 2 entries for x0 of size 3"):
        esopt.minimize(bowl, [0.0] * 3, bounds=([-1.0, -1.0], None))
    with pytest.raises(TypeError, match=r"bounds must be \(low, high\)"):
        esopt.minimize(bowl, [0.0] * 3, bounds=3.0)
    with pytest.raises(ValueError, match=r"sigma is 0\.5 in coordinate 1, whose bounds are 0\.1 apart"):
        esopt.Optimizer(esopt.CMAES(), [0.05, 0.05], bounds=(0.0, [9.0, 0.1]))
    esopt.Optimizer(esopt.CMAES(), [0.05, 0.05], bounds=esopt.Clip(0.0, [9.0, 0.1]))
    with pytest.raises(TypeError, match="inner must be an instance, got the class CMAES"):
        esopt.Bounded(esopt.CMAES, esopt.Smooth(0.0, 1.0))
    with pytest.raises(TypeError, match="map must follow"):
        esopt.Bounded(esopt.CMAES(), (0.0, 1.0))


def test_the_default_sigma_fits_into_the_box():
    es = esopt.minimize(lambda x: float(((x - 3e-4) ** 2).sum()), [5e-4] * 3, bounds=(0.0, 1e-3), evaluations=3000)
    np.testing.assert_allclose(es.x, 3e-4, atol=1e-9)


WIDTHS = np.array([1e6, 1e-4])


def unlike(x: Array) -> float:
    """Its minimum is at 0.3 of either width."""
    return float((((x / WIDTHS - 0.3) * 10.0) ** 2).sum())


@pytest.mark.parametrize(
    "settings",
    [{}, {"noisy": True}, {"constraints": lambda x: 2e5 - x[0]}, {"mode": "async", "workers": 1}, {"vectorized": True}],
    ids=["plain", "noisy", "constraints", "async", "vectorized"],
)
def test_the_default_sigma_follows_unlike_widths(settings: dict[str, Any]):
    f: Any = (lambda rows: np.array([unlike(x) for x in rows])) if "vectorized" in settings else unlike
    found = esopt.minimize(f, WIDTHS / 2.0, bounds=(0.0, WIDTHS), evaluations=1500, seed=1, **settings)
    assert found.value < 1e-8


def test_one_default_sigma_for_widths_that_are_alike():
    def spread(low: Any, high: Any, x0: Any, **settings: Any) -> Any:
        found = []
        esopt.minimize(
            bowl, x0, bounds=(low, high), noisy=True, generations=1, final_evaluations=0,
            callback=lambda step: found.append(step.info.scalars["sigma"]), **settings,
        )  # fmt: skip
        return found[0]

    def given(low: Any, high: Any, sigma: Any, x0: Any = (0.5, 0.5)) -> bool:
        return bool(spread(low, high, x0) == spread(low, high, x0, sigma=sigma))

    assert given(0.0, 1.0, 0.2)
    assert given(-1e6, 1e6, 0.5)
    assert given([0.0, 0.0], [1.0, 10.0], 0.2)
    assert given([0.0, -1e9], [1.0, 1e9], 0.2)  # generous, and nothing says that the units differ
    assert given([0.0, 0.0], [1.0, 1e3], 0.2, (0.5, 9.0))
    assert given([0.0, 0.0], [1.0, 1e3], [0.2, 2.2], (0.5, 11.0))
    assert given([0.0, 0.0], [1.0, 1e3], [0.2, 200.0], (0.5, 1e3))
    assert given([0.0, 0.0], [0.1, 1e3], [0.02, 0.5], (0.05, 1.0))
    assert given([0.0, None], [1.0, None], 0.2)
    assert given([0.0, 0.0], [None, 1e30], 0.5)
    assert given([0.0, 0.0], [1000.0, None], 0.5, (900.0, 0.5))


UNITS = np.geomspace(1e-5, 1e5, 5)
FAMILY = (
    *(esopt.CMAES, esopt.SepCMA, esopt.MAES, esopt.LMMAES, esopt.LRACMAES, esopt.DDCMA, esopt.VkDCMA, esopt.CRFMNES),
    *(esopt.RMES, esopt.PSACMA, esopt.DXNESIC, esopt.OnePlusOneCMA),
)


@pytest.mark.parametrize(("kind", "units"), [*((k, UNITS) for k in FAMILY), (esopt.CMAES, UNITS[1:].reshape(2, 2))])
def test_unlike_units_are_no_reason_to_stop(kind: Any, units: Array):
    strategy = esopt.PSACMA(esopt.CMAES(sigma=units)) if kind is esopt.PSACMA else kind(sigma=units)

    def valley(x: Array) -> float:
        y = (x / units).ravel()
        return float((np.arange(1, y.size + 1) * (y - 1.0) ** 2).sum() + 0.1 * (y**4).sum())

    es = esopt.Optimizer(strategy, 3.0 * units, seed=1)
    for _ in range(155):  # the condition of a matrix is looked at in generations 50 or 150
        es.tell([valley(x) for x in es.ask()])
        assert "condition" not in es.stop()


@pytest.mark.parametrize("kind", [esopt.CMAES, esopt.SepCMA])
def test_unlike_units_are_no_reason_to_stop_compiled(kind: Any):
    units = UNITS
    compiled = esopt.minimize(numba.njit(bowl_of_units), 3.0 * units, strategy=kind(sigma=units), evaluations=1500)
    assert compiled.value < 1e-8


def bowl_of_units(x: Array) -> float:
    return float((x[0] * 1e5) ** 2 + (x[2] - 1.0) ** 2 + (x[4] * 1e-5) ** 2)
