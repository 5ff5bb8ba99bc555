"""Values told in pieces and in any order, and generations that are closed before all are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import CheckpointError, EvaluationError
from esopt.testing._problems import sphere
from tests.reference.runs import bits, bumpy

X0 = np.linspace(-1.0, 2.0, 4)
TABLES = ("grads", "hessians", "hvps", "jvps", "constraints", "equalities")

STRATEGIES: dict[str, Callable[[], Any]] = {
    "gradient": lambda: esopt.GradientES(n=8, estimator=esopt.Score(esopt.AtMean())),
    "bonnet": lambda: esopt.GradientES(n=8, estimator=esopt.Bonnet(with_scale=True)),
    "price": lambda: esopt.NaturalGaussian(
        full=True, n=8, temperature=0.5, estimator=esopt.Price(esopt.Rademacher()), mean_rate=0.1, scale_rate=0.1
    ),
    "hessians": lambda: esopt.NaturalGaussian(
        full=True, n=8, temperature=0.5, estimator=esopt.Price(), mean_rate=0.1, scale_rate=0.1
    ),
    "snes": lambda: esopt.snes(n=7),
    "cmaes": lambda: esopt.CMAES(step_size=esopt.TPA()),
    "portfolio": esopt.Portfolio,
    "restarts": lambda: esopt.Restarts(esopt.CMAES(n=6)),
    "bounded": lambda: esopt.Bounded(esopt.CMAES(), esopt.Clip(-1.0, 2.5)),
    "lagrangian": lambda: esopt.AugmentedLagrangian(esopt.CMAES()),
}


def permuted(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).permutation(count)


def tell_pieces(es: esopt.Optimizer, evals: esopt.Evals, order: Any, sizes: list[int]) -> esopt.Info | None:
    """Tell the rows in ``order``, so many at a time, and the rest at the end."""
    info, n = None, es.population().n
    for piece in np.split(order, np.cumsum(sizes)):
        told = {}
        for name in TABLES:
            table = getattr(evals, name)
            if table is not None:
                told[name] = table[piece[piece < n]] if name in ("hvps", "jvps") else table[piece]
        assert info is None
        info = es.tell(evals.values[piece], rows=piece, **told)
    return info


@pytest.mark.parametrize("name", STRATEGIES)
def test_pieces_in_any_order_are_the_whole(name: str) -> None:
    whole, pieces = (esopt.Optimizer(STRATEGIES[name](), X0, seed=3) for _ in range(2))
    for generation in range(5):
        evals = sphere(0.5).evaluate(whole.population())
        told = {table: getattr(evals, table) for table in TABLES}
        first = whole.tell(evals.values, **told)
        order = permuted(len(evals.values), generation)
        second = tell_pieces(pieces, evals, order, [min(1 + generation, len(order) - 1), 0])
        assert second is not None
        assert bits(pieces.state) == bits(whole.state)
        assert bits(second.failures) == bits(first.failures)
    same = [
        bits(tuple(getattr(es.progress, field) for field in ("best_x", "best_value", "evaluations", "value")))
        for es in (whole, pieces)
    ]
    assert same[0] == same[1]


def test_what_is_pending() -> None:
    es = esopt.Optimizer(esopt.CMAES(n=6), X0, seed=1)
    assert es.pending.tolist() == [0, 1, 2, 3, 4, 5]
    assert es.tell([1.0, 2.0], rows=[4, 1]) is None
    assert es.pending.tolist() == [0, 2, 3, 5]
    assert es.generation == 0
    assert es.result.evaluations == 0
    rows = es.ask()
    assert es.tell([bumpy(x) for x in rows[es.pending]], rows=es.pending, steps=3) is not None
    assert es.pending.tolist() == [0, 1, 2, 3, 4, 5]
    assert (es.generation, es.result.evaluations, es.result.steps) == (1, 6, 3)


@pytest.mark.parametrize(
    ("values", "rows", "error", "message"),
    [
        ([1.0], [2], ValueError, r"got row 2 of generation 0 twice\. Tell every candidate once; es\.pending"),
        ([1.0, 2.0], [3, 3], ValueError, "got row 3 of generation 0 twice"),
        ([1.0], [6], ValueError, r"got rows from 6 to 6 for a population of 6 .* 0 to 5\."),
        ([1.0], [-1], ValueError, "got rows from -1 to -1"),
        ([1.0], [0.0], TypeError, r"got rows of shape \(1,\) and dtype float64 .* for example rows=\[0, 3\]"),
        ([1.0], [True], TypeError, "got rows of shape .* dtype bool"),
        ([1.0], 3, TypeError, r"got rows of shape \(\)"),
        ([1.0], [[3]], TypeError, r"got rows of shape \(1, 1\)"),
        ([1.0, 2.0], [3], ValueError, "got 2 values for 1 rows in generation 0"),
        ([[1.0]], [3], ValueError, r"got values of shape \(1, 1\) for 1 rows"),
        (["a"], [3], TypeError, "got values of dtype <U1 in generation 0"),
        ([1.0] * 6, None, ValueError, r"2 of its 6 rows were told already\. Pass the values of es\.pending"),
    ],
)
def test_bad_pieces_are_refused_and_nothing_is_lost(values: Any, rows: Any, error: type, message: str) -> None:
    es = esopt.Optimizer(esopt.snes(n=6), X0, seed=1)
    es.tell([1.0, 2.0], rows=[0, 2])
    with pytest.raises(error, match=message):
        es.tell(values, rows=rows)
    assert es.pending.tolist() == [1, 3, 4, 5]
    assert es.tell([1.0] * 4, rows=es.pending) is not None


def test_pieces_must_be_alike() -> None:
    es = esopt.Optimizer(esopt.GradientES(n=4), X0)
    es.tell([1.0], np.zeros((1, 4)), rows=[0])
    with pytest.raises(ValueError, match=r"got grads not at all for rows 1, and of shape \(m, 4\) for rows 0 of the"):
        es.tell([1.0], rows=[1])
    assert es.pending.tolist() == [1, 2, 3]
    limited = esopt.Optimizer(esopt.AugmentedLagrangian(esopt.CMAES(n=4)), X0)
    limited.tell([1.0], rows=[0], constraints=[[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"got constraints of shape \(m, 1\) for rows 1"):
        limited.tell([1.0], rows=[1], constraints=[1.0])
    with pytest.raises(ValueError, match=r"constraints of shape \(1,\) and .* \(2, m\), one row per row of rows="):
        limited.tell([1.0, 2.0], rows=[1, 2], constraints=[1.0])
    with pytest.raises(ValueError, match=r"Bonnet|GradientES needs gradients"):
        esopt.Optimizer(esopt.GradientES(n=4, estimator=esopt.Bonnet()), X0).tell([1.0], rows=[0])


def test_a_generation_without_values_can_be_completed_again() -> None:
    es = esopt.Optimizer(esopt.snes(n=4), X0)
    es.tell([np.nan, np.nan], rows=[1, 3])
    with pytest.raises(EvaluationError, match="all 4 values of generation 0 are nan"):
        es.tell([np.nan, np.nan], rows=[0, 2])
    assert es.pending.tolist() == [0, 2]
    info = es.tell([1.0, 2.0], rows=[0, 2])
    assert info is not None
    assert info.failures == {"nan": 2}


def test_candidates_are_injected_before_values_are_told() -> None:
    es = esopt.Optimizer(esopt.CMAES(n=6), X0)
    es.tell([1.0], rows=[0])
    with pytest.raises(ValueError, match=r"after ask\(\) or tell\(\) of generation 0"):
        es.inject(X0)


@pytest.mark.parametrize("rows", [None, range(6)])
@pytest.mark.parametrize("strategy", [esopt.CMAES(n=6), esopt.SepCMA(n=6)])
def test_candidates_are_injected_after_a_generation_that_failed_as_a_whole(strategy: Any, rows: Any) -> None:
    es = esopt.Optimizer(strategy, X0)
    es.ask()
    with pytest.raises(EvaluationError):
        es.tell([np.nan] * 6, rows=rows)
    es.inject(X0)
    assert (es.generation, len(es.ask())) == (0, 7)
    es.tell([bumpy(x) for x in es.ask()])
    assert es.generation == 1


def values_of(es: esopt.Optimizer) -> Any:
    return np.array([bumpy(x) for x in es.ask()])


def test_closing_counts_what_is_late() -> None:
    es = esopt.Optimizer(esopt.CMAES(n=6), X0, seed=2)
    values = values_of(es)
    es.tell(values[[5, 0, 3]], rows=[5, 0, 3])
    with pytest.raises(ValueError, match=r"close_generation\(0\.6\) has 3 of 6 values of generation 0\. Tell more"):
        es.close_generation(0.6)
    info = es.close_generation()
    assert info.failures == {"late": 3}
    assert (es.generation, es.result.evaluations, es.failures) == (1, 3, {"late": 3})
    assert es.result.value == values[[5, 0, 3]].min()

    twin = esopt.Optimizer(esopt.CMAES(n=6), X0, seed=2)
    twin.tell(np.where(np.isin(np.arange(6), [0, 3, 5]), values, np.nan))
    assert bits(es.state) == bits(twin.state)
    one = esopt.Optimizer(esopt.CMAES(n=6), X0)
    one.tell([np.nan] * 3, rows=[0, 1, 2])
    with pytest.raises(EvaluationError, match="all 6 values of generation 0 are nan"):
        one.close_generation()
    assert one.pending.tolist() == [3, 4, 5]
    for share in (0.0, -1.0, 1.5, "half", np.nan):
        with pytest.raises(ValueError, match=r"min_fraction must be in \(0, 1\]"):
            es.close_generation(share)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", [esopt.GradientES(n=8), esopt.openai_es(n=8), esopt.ars(n=8)])
def test_pairs_stay_whole(strategy: Any) -> None:
    """The mirror image of a late candidate is left out as well, and is still the best point if it is."""
    es, twin = (esopt.Optimizer(strategy, X0, seed=2) for _ in range(2))
    values = values_of(es)
    values[4] = -100.0
    told = [0, 1, 2, 3, 4, 6, 7]
    es.tell(values[told], rows=told)
    info = es.close_generation()
    pairs = values.copy()
    pairs[4:6] = np.nan
    other = twin.tell(pairs)
    assert bits(es.state) == bits(twin.state)
    assert info.failures["late"] == 1
    assert es.result.value == -100.0
    assert other.gradient is not None
    assert info.gradient is not None
    np.testing.assert_array_equal(info.gradient.mean, other.gradient.mean)


def test_without_whole_blocks_nothing_is_learned_and_nothing_lost() -> None:
    es = esopt.Optimizer(esopt.GradientES(n=8), X0, seed=2)
    es.tell(values_of(es)[::2], rows=np.arange(0, 8, 2))
    with pytest.raises(EvaluationError, match="no usable"):
        es.close_generation()
    assert es.pending.tolist() == [1, 3, 5, 7]
    assert es.tell(values_of(es)[1::2], rows=np.arange(1, 8, 2)) is not None


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_open_generation_is_saved(name: str, tmp_path: Path) -> None:
    straight, broken = (esopt.Optimizer(STRATEGIES[name](), X0, seed=3) for _ in range(2))
    steps = 0
    for generation in range(3):
        evals = sphere(0.5).evaluate(straight.population())
        tell_pieces(straight, evals, np.arange(len(evals.values)), [])
        order = permuted(len(evals.values), generation)
        half = len(order) // 2
        parts = [order[:half], order[half:]]
        for index, piece in enumerate(parts):
            told = {}
            for table in TABLES:
                numbers = getattr(evals, table)
                if numbers is not None:
                    noise = piece[piece < broken.population().n]
                    told[table] = numbers[noise if table in ("hvps", "jvps") else piece]
            assert (broken.tell(evals.values[piece], rows=piece, steps=int(piece.sum()), **told) is None) == (
                index == 0
            )
            if index == 0:
                broken.save(tmp_path / "run.npz")
                broken = esopt.Optimizer(STRATEGIES[name](), X0, seed=3)
                broken.load(tmp_path / "run.npz")
                assert broken.pending.tolist() == sorted(parts[1].tolist())
        assert bits(broken.state) == bits(straight.state)
        steps += sum(range(len(order)))
        assert broken.progress.steps == steps


def test_an_open_generation_of_something_else_is_refused(tmp_path: Path) -> None:
    es = esopt.Optimizer(esopt.snes(n=6), X0, seed=1)
    es.tell([1.0], rows=[2])
    run = es._open
    assert run is not None
    run._told = np.zeros(5, np.bool_)
    run._marked = 0
    es.save(tmp_path / "run.npz")
    other = esopt.Optimizer(esopt.snes(n=6), X0, seed=1)
    with pytest.raises(CheckpointError, match="has 5 rows of an open generation; this run has 6"):
        other.load(tmp_path / "run.npz")
    assert other.pending.size == 6
