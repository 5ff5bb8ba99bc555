"""Derivatives that a population may need: every evaluator against closed forms, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest

from esopt import (
    Antithetic,
    Compiled,
    EvaluationError,
    Gaussian,
    Given,
    Joblib,
    Key,
    Objective,
    Population,
    Serial,
    Vectorized,
)
from esopt.evaluators._policy import read_policy
from esopt.evaluators._tasks import cut, make_recipe
from esopt.noise import Array

DIM = 5
WEIGHTS = np.arange(1.0, DIM + 1.0)
COUPLING = np.diag(2.0 * WEIGHTS) + 0.25


@numba.njit
def f(x: Array) -> float:
    return (WEIGHTS * x**2).sum() + 0.125 * x.sum() ** 2


@numba.njit
def grad(x: Array) -> Array:
    return 2.0 * WEIGHTS * x + 0.25 * x.sum()


def hess(x: Array) -> Array:
    return COUPLING


def hvp(x: Array, v: Array) -> Array:
    return COUPLING @ v


@numba.njit
def jvp(x: Array, v: Array) -> float:
    return (grad(x) * v).sum()


WHOLE = Objective(f, grad, hess=hess, hvp=hvp, jvp=jvp)


def batch(objective: Objective) -> Objective:
    """Return the objective of batches."""

    def over(part: Callable[..., Any] | None) -> Any:
        return part and (lambda *rows: np.array([part(*row) for row in zip(*rows, strict=True)]))

    parts = {name: over(getattr(objective, name)) for name in ("f", "grad", "hess", "hvp", "jvp")}
    return replace(objective, **parts)


def vectors(objective: Objective, **settings: Any) -> Vectorized:
    return Vectorized(batch(objective), **settings)


def threads(objective: Objective, **settings: Any) -> Joblib:
    return Joblib(objective, workers=2, backend="threading", **settings)


ROW_BY_ROW = [Serial, Compiled, threads]
ALL = [*ROW_BY_ROW, vectors, lambda objective, **settings: vectors(objective, chunk=4, **settings)]
every = pytest.mark.parametrize("make", ALL, ids=["Serial", "Compiled", "Joblib", "Vectorized", "Vectorized by 4"])
NEEDS = ("grads", "hessians", "hvps", "jvps")


def population(n: int = 14, *, needs: tuple[str, ...] = NEEDS, given: bool = False, k: int = 2) -> Population:
    noise, probes = Antithetic().noise(Key(7, 4), n, DIM), Gaussian().noise(Key(7, 4, 99), n, DIM)
    extra = np.arange(float(k * DIM)).reshape(k, DIM) / 9.0 if k else None
    made = Given(probes.rows().astype(np.float64)) if given else probes
    return Population(np.full(DIM, 0.2), 0.5, noise, extra, probes=made).needing(*needs)


def evaluate(evaluator: Any, wanted: Population) -> Any:
    try:
        return evaluator.evaluate(wanted, evaluator.init())[0]
    finally:
        evaluator.close()


@every
@pytest.mark.parametrize("given", [False, True], ids=["noise", "given"])
def test_all_derivatives_are_those_of_the_rows(make: Any, given: bool) -> None:
    wanted = population(given=given)
    evals = evaluate(make(WHOLE), wanted)
    rows, probes = wanted.rows(), wanted.probes.rows().astype(np.float64)
    np.testing.assert_array_equal(evals.values, [f(x) for x in rows])
    np.testing.assert_array_equal(evals.grads, [grad(x) for x in rows])
    np.testing.assert_array_equal(evals.hessians, [COUPLING] * 16)
    np.testing.assert_array_equal(evals.hvps, [COUPLING @ v for v in probes])
    np.testing.assert_array_equal(evals.jvps, [jvp(x, v) for x, v in zip(rows[:14], probes, strict=True)])
    assert evals.failures == {}


@every
@pytest.mark.parametrize("need", NEEDS)
def test_only_what_is_needed_is_computed(make: Any, need: str) -> None:
    evals = evaluate(make(WHOLE), population(needs=(need,)))
    assert [name for name in NEEDS if getattr(evals, name) is not None] == [need]
    assert len(getattr(evals, need)) == (14 if need in ("hvps", "jvps") else 16)


@every
def test_diagonals_are_kept_as_they_are(make: Any) -> None:
    evals = evaluate(make(replace(WHOLE, hess=lambda x: x**2)), population(needs=("hessians",)))
    np.testing.assert_array_equal(evals.hessians, population().rows() ** 2)


@every
def test_hessians_of_rows_without_a_value_are_nan(make: Any) -> None:
    lost = replace(WHOLE, f=numba.njit(lambda x: np.nan))
    evals = evaluate(make(lost), population())
    assert evals.failures == {"nan": 16}
    for name in NEEDS:
        assert np.isnan(getattr(evals, name)).all()
    assert evals.hessians.shape[:2] == (16, DIM)


@every
def test_needs_without_a_function_are_refused(make: Any) -> None:
    for need, part, words in (
        ("hessians", "hess", "Hessians"),
        ("hvps", "hvp", "Hessian-vector products"),
        ("jvps", "jvp", "directional derivatives"),
    ):
        with pytest.raises(
            ValueError, match=rf"the population needs {words}, but .* has none\. Pass {part}=\.\.\., or"
        ):
            evaluate(make(replace(WHOLE, **{part: None})), population(needs=(need,)))
    with pytest.raises(ValueError, match=r"needs colours, but \w+ computes values, grads, hessians, hvps, jvps\. Use"):
        evaluate(make(WHOLE), population(needs=("grads", "colours")))
    for probes, got in ((None, "no probes"), (Gaussian().noise(Key(1), 12, DIM), r"probes of shape \(12, 5\)")):
        wanted = replace(population(needs=("jvps",)), probes=probes)
        with pytest.raises(ValueError, match=rf"but has {got}\. Pass probes=, noise of shape \(14, 5\), one direction"):
            evaluate(make(WHOLE), wanted)


@every
@pytest.mark.parametrize("policy", ["raise", "nan"])
@pytest.mark.parametrize(
    ("part", "need", "wrong"),
    [
        ("hess", "hessians", lambda x: np.ones((DIM, DIM + 1))),
        ("hess", "hessians", lambda x: 1.0),
        ("hvp", "hvps", lambda x, v: np.ones(DIM + 1)),
        ("hvp", "hvps", lambda x, v: np.ones((DIM, DIM))),
        ("jvp", "jvps", lambda x, v: v[:2]),
        ("jvp", "jvps", lambda x, v: v[:2] * 1j),
    ],
)
def test_wrong_shapes_are_an_error_that_names_the_part(
    make: Any, policy: Any, part: str, need: str, wrong: Any
) -> None:
    with pytest.raises(TypeError, match=rf"^{part} returned .* for candidate.* of generation 4\. Expected .* Return "):
        evaluate(make(replace(WHOLE, **{part: wrong}), on_error=policy), population(needs=(need,)))


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_matrices_and_diagonals_do_not_mix(make: Any) -> None:
    mixed = replace(WHOLE, hess=lambda x: COUPLING if x[0] > 0.2 else WEIGHTS)
    with pytest.raises(TypeError, match="hess returned matrices for some candidates and diagonals for others"):
        evaluate(make(mixed), population(needs=("hessians",)))


@every
@pytest.mark.parametrize(
    ("part", "need", "failing", "kind"),
    [
        ("hess", "hessians", lambda x: x / (x[0] > 0.2), "hessian"),
        ("hvp", "hvps", lambda x, v: v / (x[0] > 0.2), "hvp"),
        ("jvp", "jvps", lambda x, v: v[0] / (x[0] > 0.2), "jvp"),
    ],
)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value) encountered:RuntimeWarning")
def test_what_is_not_finite_is_counted_by_kind(make: Any, part: str, need: str, failing: Any, kind: str) -> None:
    wanted = population(needs=(need,), k=0)
    evals = evaluate(make(replace(WHOLE, **{part: failing})), wanted)
    bad = wanted.rows()[:, 0] <= 0.2
    assert evals.failures == {kind: bad.sum()}
    assert 0 < bad.sum() < 14
    np.testing.assert_array_equal(np.isnan(getattr(evals, need)).reshape(14, -1).any(axis=1), bad)
    np.testing.assert_array_equal(evals.values, [f(x) for x in wanted.rows()])


def raising_hvp(x: Array, v: Array) -> Array:
    if x[0] > 0.5:
        raise ArithmeticError("too steep")
    return v


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_exceptions_follow_the_policy(make: Any) -> None:
    wanted = population(needs=("hvps", "jvps", "grads"))
    bad = wanted.rows()[:14, 0] > 0.5
    row = int(np.argmax(bad))
    with pytest.raises(EvaluationError) as caught:
        evaluate(make(replace(WHOLE, hvp=raising_hvp)), wanted)
    assert str(caught.value).startswith(
        f"candidate {row} of generation 4 raised ArithmeticError: too steep (in hvp).\n"
        f"Reproduce it with: hvp(population[{row}], population.probes.rows({row}, {row + 1})[0].astype(float)), where "
    )
    line = str(caught.value).split("Reproduce it with: ")[1].split(", where")[0]
    with pytest.raises(ArithmeticError):
        eval(line, {"hvp": raising_hvp, "population": wanted})
    evals = evaluate(make(replace(WHOLE, hvp=raising_hvp), on_error="nan"), wanted)
    assert evals.failures == {"exception": bad.sum()}
    np.testing.assert_array_equal(np.isnan(evals.hvps).any(axis=1), bad)
    np.testing.assert_array_equal(np.isnan(evals.jvps), bad)
    assert np.isfinite(evals.grads).all()


def test_a_vectorized_exception_is_that_of_its_batch() -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate(vectors(replace(WHOLE, hvp=raising_hvp)), population(needs=("hvps",)))
    assert "hvp raised ArithmeticError for candidates 0 to 13 of generation 4: too steep" in str(caught.value)
    assert "hvp(population.rows(0, 14), population.probes.rows(0, 14).astype(float)), where" in str(caught.value)
    evals = evaluate(vectors(replace(WHOLE, hvp=raising_hvp), on_error="nan"), population(needs=("hvps",)))
    assert evals.failures == {"exception": 14}
    assert np.isfinite(evals.values).all()


@numba.njit
def raising_grad(x: Array) -> Array:
    if x[0] > 0.5:
        raise ValueError("no slope")
    return x.copy()


def test_compiled_names_the_first_row_whatever_raised() -> None:
    """Gradients come from the kernel and Hessians after it; the first row that raised is named all the same."""
    wanted = population(needs=("grads", "hessians"))
    first = wanted.rows()[:, 0]

    def raising_hess(x: Array) -> Array:
        if x[0] < 0.0:
            raise ArithmeticError("no curvature")
        return COUPLING

    for objective in (
        replace(WHOLE, grad=raising_grad, hess=raising_hess),
        replace(WHOLE, grad=raising_grad),
        replace(WHOLE, hess=raising_hess),
    ):
        texts = []
        for make in (Serial, Compiled):
            with pytest.raises(EvaluationError) as caught:
                evaluate(make(objective), wanted)
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
    expected = evaluate(Serial(replace(WHOLE, grad=raising_grad), on_error="nan"), wanted)
    found = evaluate(Compiled(replace(WHOLE, grad=raising_grad), on_error="nan"), wanted)
    assert found.failures == expected.failures == {"exception": (first > 0.5).sum()}
    np.testing.assert_array_equal(found.hessians, expected.hessians)
    np.testing.assert_array_equal(np.isnan(found.hessians).any(axis=(1, 2)), first > 0.5)


@every
def test_seeds_args_and_shapes_arrive(make: Any) -> None:
    """Signatures: f(x, seed, *args) and hvp(x, v, seed, *args); x and v are (1, 5)."""

    def check(v: Array, *rest: Any) -> float:
        assert v.shape == (1, DIM)
        seed, factor = rest
        return float(factor * seed)

    objective = Objective(
        lambda x, seed, k: check(x, seed, k),
        lambda x, seed, k: np.full((1, DIM), check(x, seed, k)),
        seeded=True,
        shape=(1, DIM),
        args=(2.0,),
        hess=lambda x, seed, k: np.full((1, DIM, 1, DIM), check(x, seed, k)),
        hvp=lambda x, v, seed, k: v * check(x, seed, k),
        jvp=lambda x, v, seed, k: v.sum() * check(x, seed, k),
    )
    if make is Compiled:
        pytest.skip("the functions are plain Python")
    if make not in ROW_BY_ROW:
        objective = Objective(
            lambda xs, seeds, k: k * seeds,
            lambda xs, seeds, k: np.ones_like(xs) * (k * seeds)[:, None, None],
            seeded=True,
            shape=(1, DIM),
            args=(2.0,),
            hess=lambda xs, seeds, k: np.ones((len(xs), 1, DIM, 1, DIM)) * (k * seeds)[:, None, None, None, None],
            hvp=lambda xs, vs, seeds, k: vs * (k * seeds)[:, None, None],
            jvp=lambda xs, vs, seeds, k: vs.sum(axis=(1, 2)) * (k * seeds),
        )
        evals = evaluate(make(WHOLE).__class__(objective, chunk=4), population())
    else:
        evals = evaluate(make(objective), population())
    wanted = population()
    value, probes = 2.0 * wanted.seeds, wanted.probes.rows().astype(np.float64)
    np.testing.assert_array_equal(evals.values, value)
    np.testing.assert_array_equal(evals.grads, np.tile(value[:, None], (1, DIM)))
    np.testing.assert_array_equal(evals.hessians, np.tile(value[:, None, None], (1, DIM, DIM)))
    np.testing.assert_array_equal(evals.hvps, probes * value[:14, None])
    np.testing.assert_allclose(evals.jvps, probes.sum(axis=1) * value[:14], rtol=1e-13)


@pytest.mark.parametrize("make", [Serial, threads])
def test_functions_own_their_arguments(make: Any) -> None:
    def spoil(*arrays: Array) -> Array:
        for array in arrays:
            array[:] = 7.0
        return arrays[-1]

    spoiled = Objective(
        lambda x: spoil(x)[0], spoil, hess=spoil, hvp=spoil, jvp=lambda x, v: spoil(x, v)[0] + 0.0 * v[0]
    )
    wanted = population()
    before = wanted.probes.rows().copy()
    evals = evaluate(make(spoiled), wanted)
    assert (evals.hvps == 7.0).all()
    np.testing.assert_array_equal(wanted.probes.rows(), before)


def test_probes_travel_in_the_recipe() -> None:
    made = population()
    recipe = make_recipe(made, NEEDS, read_policy("raise"))
    assert recipe.population.probes is not None
    assert all(task.probes is None for task in cut(made, recipe, False, 4))
    assert make_recipe(made, ("grads",), read_policy("raise")).population.probes is None
    given = population(given=True)
    recipe = make_recipe(given, NEEDS, read_policy("raise"))
    assert recipe.population is None
    rows = list(cut(given, recipe, False, 4))
    assert all(len(task.probes) == task.stop - task.start == len(task.rows) for task in rows if task.start < 14)
    assert rows[-1].probes is None


@pytest.fixture(autouse=True)
def all_threads() -> Iterator[None]:
    before = numba.get_num_threads()
    yield
    assert numba.get_num_threads() == before
