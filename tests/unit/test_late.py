"""Values that come after their generation was closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import CheckpointError, GradientES
from esopt.noise import Array
from tests.reference.runs import bits, bumpy

X0 = np.linspace(-1.0, 2.0, 4)
STRATEGY = GradientES(sigma=0.3, n=8, rule=esopt.SGD(1e-3), sampler=esopt.Antithetic())


def values_of(es: esopt.Optimizer) -> Array:
    return np.array([bumpy(x) for x in es.ask()])


def closed(strategy: Any = STRATEGY, late: tuple[int, ...] = (4, 5, 7), **given: Any) -> tuple[esopt.Optimizer, Array]:
    """An optimizer whose first generation was closed without the rows ``late``, and that generation's values."""
    es = esopt.Optimizer(strategy, X0, seed=3, **given)
    values = values_of(es)
    told = np.setdiff1d(np.arange(len(values)), late)
    es.tell(values[told], rows=told)
    es.close_generation()
    return es, values


def test_late_values_are_refused_by_default() -> None:
    es, values = closed()
    before = bits(es.state)
    with pytest.raises(ValueError, match=r"of generation 0, which is closed: the run is in generation 1\. Throw"):
        es.tell(values[[4]], rows=[4], generation=0)
    assert bits(es.state) == before
    assert es.pending.size == 8
    assert es.tell(values_of(es), generation=1) is not None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"rows": [4], "generation": 2}, ValueError, "got values of generation 2, and the run is in generation 1"),
        ({"rows": [4], "generation": -1}, ValueError, "got values of generation -1"),
        ({"rows": [4], "generation": 0.0}, TypeError, "got generation of type float"),
        ({"rows": [0], "generation": 0}, ValueError, "got row 0 of generation 0 twice"),
        ({"rows": [9], "generation": 0}, ValueError, "got rows from 9 to 9 for a population of 8"),
        ({"rows": [4, 5], "generation": 0}, ValueError, "got 1 values for 2 rows in generation 0"),
        ({"generation": 0}, ValueError, "2 of its 8 rows|6 of its 8 rows|got 1 values for 3 rows"),
        ({"rows": [4], "generation": 0, "jvps": [1.0]}, ValueError, r"got jvps of generation 0, .* only values are of"),
    ],
)
def test_bad_late_values_change_nothing(given: dict[str, Any], error: type, message: str) -> None:
    es, values = closed(stale="reweight")
    run = es._run
    with pytest.raises(error, match=message):
        es.tell([1.0], **given)
    assert es._run is run
    es.tell(values[[4]], rows=[4], generation=0)
    with pytest.raises(ValueError, match="row 4 of generation 0 twice"):
        es.tell(values[[4]], rows=[4], generation=0)


def test_which_rows_are_used() -> None:
    """Whole pairs, once; the half that was told in time waits for its mirror image."""
    es, values = closed(stale="reweight")
    assert es.tell(values[[4]], rows=[4], generation=0) is None
    info = es.tell(values_of(es))
    assert "late rows" not in info.scalars  # 4 waits for 5
    es.tell(values[[7]], rows=[7], generation=0)
    es.tell(values[[5]], rows=[5], generation=0)
    info = es.tell(values_of(es))
    assert info.scalars["late rows"] == 4.0
    assert 8.0 < info.scalars["effective sample size"] <= 12.0
    assert info.gradient is not None
    assert info.gradient.evaluations == 12
    info = es.tell(values_of(es))
    assert "late rows" not in info.scalars
    assert es.result.evaluations == 32
    assert es._run.past.generation.size == 0


def test_order_and_pieces_change_no_bit() -> None:
    (one, values), (other, _) = closed(stale="reweight"), closed(stale="reweight")
    one.tell(values[[4, 5, 7]], rows=[4, 5, 7], generation=0)
    for row in (7, 5, 4):
        other.tell(values[[row]], rows=[row], generation=0)
    for es in (one, other):
        es.tell(values_of(es))
    assert bits(one.state) == bits(other.state)
    third, _ = closed(stale="reweight")
    third.tell(values[[4, 5, 7]], generation=0)  # all that are missing
    third.tell(values_of(third))
    assert bits(third.state) == bits(one.state)


def test_what_is_too_far_is_dropped_and_counted() -> None:
    far = GradientES(sigma=0.3, n=8, rule=esopt.SGD(0.5), sampler=esopt.Antithetic())
    es, values = closed(far, stale="reweight")
    assert np.abs(es.mean - X0).max() > 1.0
    es.tell(values[[4, 5, 7]], rows=[4, 5, 7], generation=0)
    info = es.tell(values_of(es))
    assert info.failures == {"stale": 4}
    assert "effective sample size" not in info.scalars
    es.tell([1.0], rows=[6], generation=0)  # no longer known
    assert es.tell(values_of(es)).failures == {"stale": 1}
    assert es.failures == {"late": 3, "stale": 5}


def test_late_failures_and_late_best_values_count() -> None:
    es, _ = closed(stale="reweight")
    x = es.strategy.recall(es.strategy.init(X0, 3), 0, 8, X0, 0.3)[5]
    es.tell([np.nan, -50.0], rows=[4, 5], generation=0, steps=7)
    assert (es.result.value, es.result.steps, es.result.evaluations) == (-50.0, 7, 7)
    np.testing.assert_array_equal(es.result.x, x)
    info = es.tell(values_of(es))
    assert info.failures == {"nan": 1}
    assert "late rows" not in info.scalars


def test_blocks_that_were_used_in_part_are_not_used_again() -> None:
    """With every block incomplete, whole pairs are used by themselves; the rest of their block depends on them."""
    strategy = GradientES(sigma=0.3, n=8, rule=esopt.SGD(1e-3), sampler=esopt.Antithetic(esopt.Orthogonal(4)))
    es, values = closed(strategy, (2, 3), stale="reweight")
    es.tell(values[[2, 3]], rows=[2, 3], generation=0)
    assert es.tell(values_of(es)).failures == {"stale": 2}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (esopt.CMAES(), "got CMAES, which has no use for weighted values: .* Use GradientES"),
        (esopt.Portfolio(), "got Portfolio"),
        (esopt.snes(), "got the shaping RecombinationWeights.*no weight makes values of another generation comparable"),
        (esopt.ars(), "got the shaping TopFraction"),
        (GradientES(estimator=esopt.Bonnet()), "got an estimator that does not weigh its rows"),
        (GradientES(estimator=esopt.Score(esopt.Linear())), "got the baseline Linear.*not the same number"),
        (GradientES(sampler=esopt.Rademacher(), n=4), r"got noise that has no density N\(0, I\)"),
        (GradientES(sigma=np.eye(4)), r"got a factor as sigma.*Use GradientES\(shaping=Raw\(\)"),
        (esopt.Bounded(GradientES(), esopt.Smooth(-5.0, 5.0)), "got Bounded"),
    ],
)
def test_strategies_that_cannot_are_refused(strategy: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        esopt.Optimizer(strategy, X0, stale="reweight")
    esopt.Optimizer(strategy, X0)
    with pytest.raises(ValueError, match='stale must be "refuse" or "reweight", got 3'):
        esopt.Optimizer(strategy, X0, stale=3)  # type: ignore[arg-type]


def test_late_values_are_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    es, values = closed(stale="reweight")
    es.tell(values[[4]], rows=[4], generation=0)
    es.save(path)
    again = esopt.Optimizer(STRATEGY, X0, seed=3, stale="reweight")
    again.load(path)
    for each in (es, again):
        each.tell(values[[5, 7]], rows=[5, 7], generation=0)
        assert each.tell(values_of(each)).scalars["late rows"] == 4.0
    assert bits(again.state) == bits(es.state)
    with pytest.raises(CheckpointError, match="different configuration"):
        esopt.Optimizer(STRATEGY, X0, seed=3).load(path)


def test_only_the_last_few_generations_are_kept() -> None:
    es = esopt.Optimizer(STRATEGY, X0, seed=3, stale="reweight")
    for _ in range(30):
        values = values_of(es)
        es.tell(values[:6], rows=np.arange(6))
        es.close_generation()
        assert es._run.past.generation.size <= 9
    assert es.failures == {"late": 60}


def test_a_past_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    es, _ = closed(stale="reweight")
    es._run = replace(es._run, past=replace(es._run.past, rows=np.array([5])))
    es.save(tmp_path / "run.npz")
    with pytest.raises(CheckpointError, match="earlier generations does not fit together"):
        esopt.Optimizer(STRATEGY, X0, seed=3, stale="reweight").load(tmp_path / "run.npz")
