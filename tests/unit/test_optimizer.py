"""Optimizer: ask is pure, tell checks and loses nothing, budgets hold, and a saved run goes on in the same bits."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import esopt
from tests.reference.runs import bits, bumpy, bumpy_grad, run, sphere

Array = np.ndarray[Any, Any]
X0 = np.linspace(-1.0, 2.0, 5)

STRATEGIES = {
    "default": esopt.GradientES(n=8),
    "openai_es": esopt.openai_es(n=8),
    "ars": esopt.ars(n=8, top=3),
    "pgpe": esopt.pgpe(n=8),
    "snes": esopt.snes(n=7),
    "at_mean": esopt.GradientES(n=6, sampler=esopt.Gaussian(), estimator=esopt.Score(esopt.AtMean())),
    "moving_average": esopt.GradientES(n=6, estimator=esopt.Score(esopt.MovingAverage()), rule=esopt.Momentum(0.01)),
    "isotropic": esopt.GradientES(
        n=8, estimator=esopt.Score(with_scale=True), scale_rule=esopt.Clipped(esopt.SGD(0.01), 0.1)
    ),
}
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


def untimed(es: esopt.Optimizer) -> Any:
    return bits((es.state, dataclasses.replace(es.progress, seconds=0.0)))


@every_strategy
def test_ask_is_pure(strategy: esopt.GradientES):
    es = run(esopt.Optimizer(strategy, X0, seed=3), sphere, 2)
    before = untimed(es)
    first = es.ask()
    first_copy = first.copy()
    first[...] = np.nan

    np.testing.assert_array_equal(es.ask(), first_copy)
    np.testing.assert_array_equal(es.population().rows(), first_copy)
    assert untimed(es) == before


def test_generations_seeds_and_starts_differ():
    def first(**settings: Any) -> Array:
        return esopt.Optimizer(esopt.GradientES(sigma=1.0, n=8), np.zeros(3), **settings).ask()

    assert not np.isin(first(seed=0), first(seed=1)).any()
    es = run(esopt.Optimizer(esopt.GradientES(sigma=1.0, n=8), np.zeros(3)), lambda x: 0.0, 1)
    assert not np.isin(es.ask(), first(seed=0)).any()
    np.testing.assert_array_equal(first(seed=0), first())


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (1, 2, 2)])
def test_shapes(shape: tuple[int, ...]):
    es = esopt.Optimizer(esopt.GradientES(n=4), np.ones(shape))
    rows = es.ask()

    assert rows.shape == (4, *shape)
    es.tell([(x**2).sum() for x in rows])
    assert es.mean.shape == es.result.x.shape == es.result.mean.shape == es.result.best.x.shape == shape
    np.testing.assert_array_equal(
        rows.reshape(4, -1), es.strategy.ask(es.strategy.init(np.ones(rows[0].size), 0)).rows()
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_ask_into_an_array(dtype: type, shape: tuple[int, ...]):
    es = esopt.Optimizer(esopt.GradientES(n=4), np.ones(shape))
    out = np.full((4, *shape), np.nan, dtype)

    assert es.ask(out=out) is out
    np.testing.assert_array_equal(out, es.ask().astype(dtype))


def read_only() -> Array:
    out = np.zeros((4, 3))
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    "out",
    [np.zeros((4, 2)), np.zeros((3, 3)), np.zeros(12), np.zeros((4, 3), int), np.zeros((3, 4)).T, read_only()],
    ids=["columns", "rows", "flat", "integers", "fortran", "read-only"],
)
def test_ask_refuses_arrays_it_cannot_fill(out: Array):
    es = esopt.Optimizer(esopt.GradientES(n=4), np.ones(3))

    with pytest.raises(ValueError, match=r"ask\(\) got out of shape .* Pass a writeable C-contiguous .* \(4, 3\)"):
        es.ask(out=out)


def test_ask_refuses_a_list():
    with pytest.raises(TypeError, match=r"ask\(\) got out of type list\. Pass np\.empty\(\(4, 3\)\)"):
        esopt.Optimizer(esopt.GradientES(n=4), np.ones(3)).ask(out=[[0.0] * 3] * 4)


def test_the_optimizer_keeps_no_reference_to_its_arguments():
    x0, sigma = np.ones(3), np.full(3, 0.1)
    es, twin = [
        esopt.Optimizer(esopt.GradientES(sigma=s, n=4), x, seed=1)
        for s, x in ((sigma, x0), (0.1 * np.ones(3), np.ones(3)))
    ]
    x0[:], sigma[:] = 7.0, 9.0
    for each in (es, twin):
        values = np.array([sphere(x) for x in each.ask()])
        each.tell(values)
        values[:] = np.nan
    es.result.x[:] = 55.0
    es.result.best.x[:] = 55.0
    es.mean[:] = 55.0

    assert untimed(es) == untimed(twin)


BAD_VALUES = [
    ("too few", [1.0] * 7, ValueError, r"tell\(\) got 7 values for a population of 8 in generation 2"),
    ("too many", [1.0] * 9, ValueError, r"tell\(\) got 9 values for a population of 8 in generation 2"),
    ("none", [], ValueError, r"tell\(\) got 0 values"),
    ("scalar", 1.0, ValueError, r"tell\(\) got values of shape \(\)"),
    ("column", np.ones((8, 1)), ValueError, r"tell\(\) got values of shape \(8, 1\)"),
    ("complex", np.ones(8) * 1j, TypeError, r"tell\(\) got values of dtype complex128 in generation 2"),
    ("object", [None] * 8, TypeError, r"tell\(\) got values of dtype object \(ragged, or not numbers\)"),
    ("one None", [1.0] * 7 + [None], TypeError, "dtype object"),
    ("strings", ["1.0"] * 8, TypeError, "dtype <U3"),
    ("ragged", [[1.0], [1.0, 2.0]] * 4, TypeError, "dtype object"),
    ("generator", (1.0 for _ in range(8)), TypeError, "dtype object"),
    ("huge integers", [10**400] * 8, TypeError, "dtype object"),
    ("dates", np.zeros(8, "M8[s]"), TypeError, r"dtype datetime64\[s\]"),
    (
        "all nan",
        [math.nan] * 8,
        esopt.EvaluationError,
        r"all 8 values of generation 2 are nan.*\n.*tell\(\) can be called",
    ),
]


@pytest.mark.parametrize(("values", "kind", "message"), [c[1:] for c in BAD_VALUES], ids=[c[0] for c in BAD_VALUES])
@pytest.mark.parametrize("name", ["default", "snes"])
def test_bad_values_are_refused_and_nothing_is_lost(name: str, values: Any, kind: type[Exception], message: str):
    strategy = dataclasses.replace(STRATEGIES[name], n=8)
    es, twin = [run(esopt.Optimizer(strategy, X0, seed=1, generations=5), bumpy, 2) for _ in range(2)]

    with pytest.raises(kind, match=message):
        es.tell(values)
    assert untimed(es) == untimed(twin)
    assert untimed(run(es, bumpy)) == untimed(run(twin, bumpy))


def test_no_usable_block_is_refused_and_nothing_is_lost():
    es, twin = [run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=1, generations=5), bumpy, 2) for _ in range(2)]

    with pytest.raises(esopt.EvaluationError, match=r"no usable block of 2 candidates in generation 2: 2 of 4 evaluat"):
        es.tell([1.0, math.nan, math.nan, 2.0])
    with pytest.raises(esopt.EvaluationError, match="no usable block of 2 candidates in generation 2: 4 of 4"):
        es.tell([math.inf] * 4)
    assert untimed(run(es, bumpy)) == untimed(run(twin, bumpy))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float32, np.longdouble])
def test_any_real_dtype_is_a_value(dtype: type):
    found = []
    for kind in (dtype, np.float64):
        es = esopt.Optimizer(esopt.GradientES(n=4), X0, seed=1)
        es.tell(np.array([0, 1, 1, 0]).astype(kind))
        found.append(untimed(es))

    assert found[0] == found[1]


def test_a_failed_pair_is_as_if_it_had_not_been_asked():
    """With Raw shaping the gradient is the mean over the pairs that are left."""
    es = esopt.Optimizer(esopt.GradientES(n=6, sigma=0.5, rule=esopt.SGD(1.0)), X0, seed=1)
    rows = es.ask()
    values = np.array([bumpy(x) for x in rows])
    values[3] = math.nan
    es.tell(values)

    eps = (rows - X0) / 0.5
    pairs = [(values[i] - values[i + 1]) / 2.0 * eps[i] / 0.5 for i in (0, 4)]
    np.testing.assert_allclose(es.mean, X0 - np.mean(pairs, axis=0), rtol=1e-6)
    assert es.failures == {"nan": 1}


def test_failures_add_up_and_do_not_hide_the_best():
    es = esopt.Optimizer(esopt.snes(n=6), X0, seed=1)
    es.tell([5.0, math.nan, 4.0, math.nan, 6.0, math.inf])
    kept = es.population()[2]
    es.tell([9.0, math.nan, 3.0, 9.0, 9.0, -1e9])

    assert es.failures == {"nan": 3}
    assert es.result.failures == {"nan": 3}
    assert es.result.value == -1e9
    es.tell([math.nan] * 5 + [7.0])
    assert es.result.value == -1e9
    assert kept.shape == (5,)


@every_strategy
def test_best_is_the_lowest_value_and_where_it_was(strategy: esopt.GradientES):
    es = esopt.Optimizer(strategy, X0, seed=2, generations=6)
    seen = []
    while not es.stop():
        rows = es.ask()
        es.tell([bumpy(x) for x in rows])
        seen += [(bumpy(x), x) for x in rows]

    value, x = min(seen, key=lambda pair: pair[0])
    assert es.result.value == es.result.best.value == value
    np.testing.assert_array_equal(es.result.x, x)
    assert es.result.evaluations == len(seen)
    assert es.result.generations == 6


def test_best_before_anything_was_told():
    es = esopt.Optimizer(esopt.GradientES(), X0)

    assert es.result.value == math.inf
    np.testing.assert_array_equal(es.result.x, X0)
    assert es.result.reason == {}
    assert not es.result.success


BONNET = esopt.GradientES(n=4, sigma=0.3, estimator=esopt.Bonnet(), rule=esopt.SGD(1.0))


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_gradients_are_averaged(shape: tuple[int, ...]):
    start = np.linspace(0.0, 1.0, 4).reshape(shape)
    es = esopt.Optimizer(BONNET, start, seed=1)
    rows = es.ask()
    grads = np.array([bumpy_grad(x.reshape(-1)).reshape(shape) for x in rows])
    es.tell([bumpy(x) for x in rows], grads)

    np.testing.assert_allclose(es.mean, start - grads.mean(axis=0), rtol=1e-13)
    assert es.result.gradients == 4


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        (None, r"GradientES needs gradients\. Call tell\(values, grads=\.\.\.\)"),
        (np.ones((4, 3)), r"tell\(\) got grads of shape \(4, 3\)"),
        (np.ones((3, 2, 2)), r"tell\(\) got grads of shape \(3, 2, 2\)"),
        (np.ones(4), r"tell\(\) got grads of shape \(4,\)"),
        (np.ones((4, 4)) * 1j, "dtype complex128"),
        (np.full((4, 4), None), "dtype object"),
        ([[1.0], [1.0, 2.0], [1.0], [1.0]], "dtype object"),
    ],
)
def test_bad_gradients_are_refused_and_nothing_is_lost(grads: Any, message: str):
    es, twin = [esopt.Optimizer(BONNET, np.ones((2, 2)), seed=1) for _ in range(2)]

    with pytest.raises(ValueError, match=message):
        es.tell(np.ones(4), grads)
    assert untimed(es) == untimed(twin)
    es.tell(np.ones(4), np.ones((4, 2, 2)))
    assert es.generation == 1


def test_all_gradients_nan_is_refused_and_nothing_is_lost():
    es, twin = [esopt.Optimizer(BONNET, np.ones(4), seed=1) for _ in range(2)]

    with pytest.raises(esopt.EvaluationError, match="no usable block"):
        es.tell(np.ones(4), np.full((4, 4), math.nan))
    assert untimed(es) == untimed(twin)


def test_seeds_are_shared_by_pairs_and_new_in_every_generation():
    es = esopt.Optimizer(esopt.GradientES(n=6), X0, seed=9)
    first = es.seeds
    np.testing.assert_array_equal(first, es.seeds)
    np.testing.assert_array_equal(first[::2], first[1::2])
    assert len(set(first.tolist())) == 3
    es.tell([sphere(x) for x in es.ask()])
    assert not set(first.tolist()) & set(es.seeds.tolist())

    alone = esopt.Optimizer(esopt.GradientES(n=6, share="none"), X0, seed=9).seeds
    together = esopt.Optimizer(esopt.GradientES(n=6, share="generation"), X0, seed=9).seeds
    assert len(set(alone.tolist())) == 6
    assert len(set(together.tolist())) == 1


# Reasons to stop


@given(st.integers(1, 100), st.integers(1, 20))
def test_the_budget_of_evaluations_is_used_and_never_exceeded(evaluations: int, pairs: int):
    n = 2 * pairs
    es = run(esopt.Optimizer(esopt.GradientES(n=n), X0, evaluations=evaluations), lambda x: 0.0)

    assert es.result.evaluations == evaluations // n * n
    assert es.stop() == {"evaluations": float(es.result.evaluations)}


def test_extra_rows_count():
    strategy = STRATEGIES["at_mean"]
    es = run(esopt.Optimizer(strategy, X0, evaluations=20), sphere)

    assert es.result.evaluations == 14


def test_the_budget_of_generations():
    es = run(esopt.Optimizer(esopt.GradientES(n=4), X0, generations=3), sphere)

    assert es.stop() == {"generations": 3.0}
    assert (es.generation, es.result.evaluations) == (3, 12)


def test_target():
    es = run(esopt.Optimizer(esopt.GradientES(n=8), X0, target=1.0, generations=10_000), sphere)

    assert es.stop() == {"target": es.result.value}
    assert es.result.value <= 1.0


def test_the_target_itself_is_reached():
    es = esopt.Optimizer(esopt.GradientES(n=2), X0, target=-math.inf)
    es.tell([1.0, 2.0])
    assert es.stop() == {}
    es = esopt.Optimizer(esopt.GradientES(n=2), X0, target=1)
    es.tell([1.0, 2.0])
    assert es.stop() == {"target": 1.0}


def test_several_reasons_at_once():
    es = run(esopt.Optimizer(esopt.GradientES(n=4), X0, target=1e9, generations=1, evaluations=4), sphere)

    assert set(es.stop()) == {"target", "generations", "evaluations"}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_divergence_is_noticed():
    strategy = esopt.GradientES(n=4, rule=esopt.SGD(1e306))
    es = run(esopt.Optimizer(strategy, X0, generations=50), lambda x: 1e9 * float(x.sum()))

    assert es.stop() == {"diverged": 5.0}
    assert es.generation == 1
    assert not es.result.success
    assert np.isfinite(es.result.x).all()


@pytest.mark.parametrize("vector", [False, True])
def test_a_scale_out_of_range_is_noticed(vector: bool):
    strategy = esopt.GradientES(
        n=8,
        sigma=np.full(5, 0.1) if vector else 0.1,
        estimator=esopt.Score(with_scale=True),
        scale_rule=esopt.SGD(1e6),
    )
    es = run(esopt.Optimizer(strategy, X0, generations=50), sphere)

    assert set(es.stop()) == {"scale"}
    assert es.generation < 5


def test_one_negative_sigma_is_noticed():
    """A step of -100 % or less leaves no search distribution, even where the other coordinates are fine."""
    strategy = esopt.GradientES(sigma=[0.1, 0.1])
    state = strategy.init(np.zeros(2), 0)

    assert strategy.stop(dataclasses.replace(state, scale=np.array([0.1, -0.1]))) == {"scale": -0.1}
    assert strategy.stop(dataclasses.replace(state, scale=np.array([0.1, 0.0]))) == {"scale": 0.0}
    assert math.isnan(strategy.stop(dataclasses.replace(state, scale=np.array([0.1, math.nan])))["scale"])
    assert strategy.stop(state) == {}


def test_stop_is_pure():
    es = run(esopt.Optimizer(esopt.GradientES(n=4), X0, generations=3), sphere, 2)
    before = untimed(es)

    assert [es.stop(), es.stop()] == [{}, {}]
    assert untimed(es) == before


def test_result_fields():
    es = run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=1, generations=3), bumpy, 2)
    es.tell([bumpy(x) for x in es.ask()], steps=123)
    result = es.result

    assert result.reason == {"generations": 3.0}
    assert (result.evaluations, result.gradients, result.generations, result.steps) == (12, 0, 3, 123)
    assert (result.value_stderr, result.failures, result.evaluator) == (0.0, {}, "ask/tell")
    assert result.strategy == "GradientES"
    assert result.success
    np.testing.assert_array_equal(result.mean, es.mean)


def test_minus_infinity_is_the_best_value_where_values_are_ranked():
    es = esopt.Optimizer(esopt.snes(n=4), X0, seed=1, target=-5.0)
    es.tell([math.inf, math.inf, math.nan, math.inf])
    assert es.result.value == math.inf
    np.testing.assert_array_equal(es.result.x, X0)
    assert es.stop() == {}

    kept = es.ask()[1]
    es.tell([math.inf, -math.inf, 3.0, 4.0])
    assert es.result.value == es.result.best.value == -math.inf
    np.testing.assert_array_equal(es.result.x, kept)
    assert es.stop() == {"target": -math.inf}
    es.tell([-math.inf, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(es.result.x, kept)


def test_minus_infinity_is_a_failure_where_values_are_averaged():
    es = esopt.Optimizer(esopt.GradientES(n=4, shaping=esopt.Raw(), sampler=esopt.Gaussian()), X0, seed=1)
    kept = es.ask()[2]
    info = es.tell([math.inf, -math.inf, 3.0, 4.0])
    assert info.failures == {"infinite": 2}
    assert es.result.value == es.result.best.value == 3.0
    np.testing.assert_array_equal(es.result.x, kept)


def test_values_that_a_shaping_rejects_are_counted():
    es = esopt.Optimizer(esopt.GradientES(n=8), X0, seed=1)
    info = es.tell([1.0, 2.0, math.inf, 1.0, math.nan, 2.0, -math.inf, 3.0])
    assert info.failures == {"nan": 1, "infinite": 2}
    es.tell([1.0, 2.0, math.inf, 1.0, 1.0, 2.0, 2.0, 3.0])
    assert es.result.failures == {"nan": 1, "infinite": 3}
    assert es.result.value == 1.0


@dataclasses.dataclass(frozen=True)
class Silent:
    """A strategy that does not pass the evaluator's counts on."""

    inner: esopt.GradientES = dataclasses.field(default_factory=lambda: esopt.GradientES(n=4))

    def init(self, x0, seed):
        return self.inner.init(x0, seed)

    def ask(self, state):
        return self.inner.ask(state)

    def tell(self, state, evals):
        after, info = self.inner.tell(state, evals)
        return after, esopt.Info(info.generation)

    def stop(self, state):
        return {}


def test_failures_are_counted_whatever_the_strategy_passes_on():
    es = esopt.Optimizer(Silent(), X0)
    assert es.tell([1.0, 2.0, math.nan, 4.0]).failures == {"nan": 1}
    assert es.failures == {"nan": 1}
    assert math.isnan(es.progress.value_stderr)
    assert es.progress.value == pytest.approx(7.0 / 3.0)


def test_tell_returns_what_was_learned():
    es = esopt.Optimizer(esopt.GradientES(n=64, sigma=0.1), X0, seed=1)
    info = es.tell([sphere(x) for x in es.ask()])

    assert (info.generation, es.generation) == (0, 1)
    assert (np.abs(info.gradient.mean - 2.0 * X0) < 4.5 * info.gradient.mean_stderr).all()
    assert abs(info.gradient.value - sphere(X0) - 0.05) < 4.5 * info.gradient.value_stderr
    assert (es.progress.value, es.progress.value_stderr) == (info.gradient.value, info.gradient.value_stderr)


@pytest.mark.parametrize(
    ("steps", "kind", "message"),
    [
        (-5, ValueError, r"tell\(\) got steps=-5\. Pass 0 or more"),
        ("a", TypeError, r"tell\(\) got steps of type str\. Pass a whole number"),
        (1.5, TypeError, "steps of type float"),
        (True, TypeError, "steps of type bool"),
        (None, TypeError, "steps of type NoneType"),
    ],
)
def test_steps_are_a_count(steps: Any, kind: type[Exception], message: str):
    es, twin = [esopt.Optimizer(esopt.GradientES(n=2), X0) for _ in range(2)]
    with pytest.raises(kind, match=message):
        es.tell([1.0, 2.0], steps=steps)
    assert untimed(es) == untimed(twin)
    es.tell([1.0, 2.0], steps=np.int64(7))
    assert es.result.steps == 7


def test_seconds_are_the_time_between_the_first_line_and_the_last_tell():
    es = esopt.Optimizer(esopt.GradientES(n=2), X0)
    for _ in range(2):
        time.sleep(0.05)
        es.tell([1.0, 2.0])

    assert 0.1 <= es.result.seconds < 1.0


# Save and load


@every_strategy
@pytest.mark.parametrize("generation", [0, 1, 4])
def test_a_saved_run_goes_on_in_the_same_bits(strategy: esopt.GradientES, generation: int, tmp_path: Path):
    es = run(esopt.Optimizer(strategy, X0, seed=5, generations=8), bumpy, generation)
    es.save(tmp_path / "run.npz")
    again = esopt.Optimizer(strategy, X0, seed=5, generations=8)
    again.load(tmp_path / "run.npz")

    assert untimed(again) == untimed(es)
    np.testing.assert_array_equal(again.ask(), es.ask())
    assert untimed(run(again, bumpy)) == untimed(run(es, bumpy))
    assert again.result.seconds >= 0.0


def test_a_loaded_run_may_have_other_budgets_and_forgets_its_own(tmp_path: Path):
    es = run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=5, generations=3), bumpy)
    es.save(tmp_path / "run.npz")
    longer = run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=5, generations=6), sphere, 4)
    longer.load(tmp_path / "run.npz")
    straight = run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=5, generations=6), bumpy)

    assert untimed(run(longer, bumpy)) == untimed(straight)


DIFFERENT = [
    ("sigma", esopt.GradientES(n=4, sigma=0.2), X0, 5, r"strategy\.sigma: 0\.1 in the file, 0\.2 here"),
    ("n", esopt.GradientES(n=6), X0, 5, r"strategy\.n: 4 in the file, 6 here"),
    ("rule", esopt.GradientES(n=4, rule=esopt.SGD()), X0, 5, "strategy.rule: Adam in the file, SGD here"),
    ("lr", esopt.GradientES(n=4, rule=esopt.Adam(0.5)), X0, 5, r"strategy\.rule\.lr: 0\.01 in the file, 0\.5 here"),
    ("seed", esopt.GradientES(n=4), X0, 6, "seed: 5 in the file, 6 here"),
    ("x0", esopt.GradientES(n=4), X0 + 1.0, 5, "x0: array"),
    ("shape", esopt.GradientES(n=4), X0[:, None], 5, r"x0: array \(5,\).* in the file, array \(5, 1\)"),
    ("size", esopt.GradientES(n=4), X0[:3], 5, "x0: array"),
    ("strategy", esopt.ars(n=4), X0, 5, r"strategy\.shaping: Raw in the file, TopFraction here"),
]


@pytest.mark.parametrize(
    ("strategy", "x0", "seed", "message"), [c[1:] for c in DIFFERENT], ids=[c[0] for c in DIFFERENT]
)
def test_a_checkpoint_of_another_configuration_is_refused(strategy, x0, seed: int, message: str, tmp_path: Path):
    run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=5), bumpy, 2).save(tmp_path / "run.npz")
    es = run(esopt.Optimizer(strategy, x0, seed=seed), bumpy, 1)
    before = untimed(es)

    with pytest.raises(
        esopt.CheckpointError, match=rf"run\.npz was written by a different configuration:\n(.*\n)*.*{message}"
    ):
        es.load(tmp_path / "run.npz")
    assert untimed(es) == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            esopt.Objective(sphere, args=(2.0,)),
            r"objective\.f: tests\.reference\.runs\.bumpy in the file, .*sphere here",
        ),
        (esopt.Objective(bumpy, args=(3.0,)), r"objective\.args: \[2\.0\] in the file, \[3\.0\] here"),
        (esopt.Objective(bumpy, args=(2.0,), seeded=True), r"objective\.seeded: False in the file, True here"),
        (esopt.Objective(bumpy, bumpy_grad, args=(2.0,)), r"objective\.grad: None in the file, .*bumpy_grad here"),
    ],
    ids=["f", "args", "seeded", "grad"],
)
def test_a_checkpoint_of_another_objective_is_refused(other: esopt.Objective, message: str, tmp_path: Path):
    path, strategy = tmp_path / "run.npz", esopt.GradientES(n=4)
    own = esopt.Objective(bumpy, args=(2.0,))
    run(esopt.Optimizer(strategy, X0, objective=own), bumpy, 2).save(path)
    es = run(esopt.Optimizer(strategy, X0, objective=other), bumpy, 1)
    before = untimed(es)

    with pytest.raises(esopt.CheckpointError, match=rf"different configuration:\n  {message}"):
        es.load(path)
    assert untimed(es) == before
    esopt.Optimizer(strategy, X0, objective=dataclasses.replace(own, shape=(5,))).load(path)


def test_who_does_not_know_the_objective_keeps_what_the_file_knows(tmp_path: Path):
    first, second, strategy = tmp_path / "first.npz", tmp_path / "second.npz", esopt.GradientES(n=4)
    run(esopt.Optimizer(strategy, X0, objective=esopt.Objective(bumpy)), bumpy, 2).save(first)
    es = esopt.Optimizer(strategy, X0)
    es.load(first)
    es.save(second)

    with pytest.raises(esopt.CheckpointError, match=r"objective\.f"):
        esopt.Optimizer(strategy, X0, objective=esopt.Objective(sphere)).load(second)
    plain = tmp_path / "plain.npz"
    run(esopt.Optimizer(strategy, X0), bumpy, 2).save(plain)
    es = esopt.Optimizer(strategy, X0, objective=esopt.Objective(sphere))
    es.load(plain)
    assert es.generation == 2


@dataclasses.dataclass(frozen=True)
class Other:
    """A strategy of a user's own around the library's."""

    inner: esopt.GradientES = dataclasses.field(default_factory=lambda: esopt.GradientES(n=4))

    def init(self, x0, seed):
        return self.inner.init(x0, seed)

    def ask(self, state):
        return self.inner.ask(state)

    def tell(self, state, evals):
        return self.inner.tell(state, evals)

    def stop(self, state):
        return {"enough": float(state.generation)} if state.generation >= 3 else {}


def test_a_checkpoint_of_another_class_is_refused(tmp_path: Path):
    run(esopt.Optimizer(esopt.GradientES(n=4), X0), bumpy, 2).save(tmp_path / "run.npz")

    with pytest.raises(esopt.CheckpointError, match="strategy: GradientES in the file, Other here"):
        esopt.Optimizer(Other(), X0).load(tmp_path / "run.npz")


def test_any_object_with_the_four_methods_is_a_strategy():
    es = run(esopt.Optimizer(Other(), X0, seed=2), bumpy)
    plain = run(esopt.Optimizer(esopt.GradientES(n=4), X0, seed=2), bumpy, 3)

    assert es.stop() == {"enough": 3.0}
    np.testing.assert_array_equal(es.mean, plain.mean)
    assert es.result.message == "enough (enough=3)"
    assert es.result.strategy == "Other"


def damaged(good: bytes) -> dict[str, bytes]:
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    return {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "shortened": good[:-1],
        "flipped": bytes(flipped),
        "text": b"not a checkpoint\n",
        "zeros": bytes(len(good)),
    }


@pytest.mark.parametrize("kind", ["empty", "truncated", "shortened", "flipped", "text", "zeros", "foreign"])
def test_damaged_and_foreign_files_are_refused(kind: str, tmp_path: Path):
    path = tmp_path / "run.npz"
    es = run(esopt.Optimizer(esopt.GradientES(n=4), X0), bumpy, 2)
    es.save(path)
    before = untimed(es)
    if kind == "foreign":
        np.savez(path, mean=np.zeros(5))
    else:
        path.write_bytes(damaged(path.read_bytes())[kind])

    with pytest.raises(esopt.CheckpointError, match=r"run\.npz is damaged, or no esopt checkpoint"):
        es.load(path)
    assert untimed(es) == before
    es.tell([bumpy(x) for x in es.ask()])


def test_a_missing_file_is_what_python_says(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        esopt.Optimizer(esopt.GradientES(), X0).load(tmp_path / "none.npz")


def test_saving_into_a_missing_folder_names_it(tmp_path: Path):
    with pytest.raises(OSError, match="existing, writable folder"):
        esopt.Optimizer(esopt.GradientES(), X0).save(tmp_path / "none" / "run.npz")


# Any scale of values


@pytest.mark.parametrize("power", [-1020, -900, -500, 500, 900, 1010])
@pytest.mark.parametrize("name", ["openai_es", "ars", "pgpe", "snes"])
def test_strategies_of_normalised_values_do_not_see_their_scale(name: str, power: int):
    means = []
    for exponent in (0, power):
        es = run(
            esopt.Optimizer(STRATEGIES[name], X0, seed=1, generations=4),
            lambda x, exponent=exponent: math.ldexp(sphere(x), exponent),
        )
        means.append(es.mean)

    np.testing.assert_allclose(means[1], means[0], rtol=1e-12)


patterns = st.lists(
    st.one_of(st.floats(-1e300, 1e300), st.sampled_from([math.nan, math.inf, -math.inf, 1e-300])),
    min_size=8,
    max_size=8,
)


@given(patterns, st.sampled_from(["openai_es", "snes", "pgpe"]))
def test_any_pattern_of_values_is_learned_from_or_refused(values: list[float], name: str):
    """Under ranks a single number among the values is enough, and the mean stays finite."""
    es = esopt.Optimizer(dataclasses.replace(STRATEGIES[name], n=8), X0)
    before = untimed(es)
    if all(map(math.isnan, values)):
        with pytest.raises(esopt.EvaluationError):
            es.tell(values)
        assert untimed(es) == before
    else:
        es.tell(values)
        assert np.isfinite(es.mean).all()
        assert es.result.value == min(value for value in values if not math.isnan(value))
        assert es.failures.get("nan", 0) == sum(map(math.isnan, values))


def test_a_lucky_draw_is_not_the_result_of_a_noisy_objective():
    rng = np.random.default_rng(1)
    es = esopt.Optimizer(esopt.CMAES(n=12), np.ones(3), seed=1, generations=60, target=0.05, noisy=True)
    lowest = []
    while not es.stop():
        values = [float(x @ x) + 0.5 * rng.standard_normal() for x in es.ask()]
        es.tell(values)
        lowest.append(min(values))
    found = es.result
    assert found.value == pytest.approx(np.mean(values))
    assert np.isnan(found.value_stderr)
    np.testing.assert_array_equal(found.x, es.mean)
    assert found.best.value == min(lowest) < 0.0
    assert found.reason == {"target": found.value}
    assert min(lowest[:-1]) < 0.05  # a lucky draw does not reach the target
    score = esopt.Optimizer(esopt.GradientES(shaping=esopt.Raw()), np.ones(3), noisy=True)
    score.tell(rng.standard_normal(len(score.ask())))
    assert score.result.value_stderr > 0.0
    with pytest.raises(TypeError, match="noisy must be True or False"):
        esopt.Optimizer(esopt.CMAES(), np.ones(3), noisy="yes")


def test_constraints_of_a_noisy_mean_are_not_known():
    es = esopt.Optimizer(esopt.AugmentedLagrangian(), np.ones(2), noisy=True)
    rows = es.ask()
    es.tell((rows**2).sum(axis=1), constraints=1.0 - rows[:, 0])
    assert np.isnan(es.result.violation)
    assert not es.result.feasible


@pytest.mark.parametrize("box", [None, (-3.0, 3.0)])
def test_the_population_knows_the_spread_whatever_wraps_the_strategy(box: Any):
    for make in (esopt.CMAES, esopt.SepCMA):
        alone = esopt.Optimizer(make(0.3), X0).state
        for strategy in (make(0.3), esopt.Restarts(make(0.3)), esopt.AugmentedLagrangian(esopt.Restarts(make(0.3)))):
            population = esopt.Optimizer(strategy, X0, bounds=box).population()
            np.testing.assert_array_equal(population.scale, alone.scale)
            np.testing.assert_allclose(population.deviations, 0.3)
