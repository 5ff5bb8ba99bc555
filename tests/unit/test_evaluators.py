"""What all evaluators share: bits, seeds, shapes, results, failures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numba
import numpy as np
import pytest

import esopt
from esopt import (
    Antithetic,
    Compiled,
    EvaluationError,
    Gaussian,
    Joblib,
    Key,
    Objective,
    Outcome,
    Population,
    Serial,
    Vectorized,
)
from esopt._describe import describe
from esopt._tree import flatten
from esopt.noise import Array
from esopt.protocols import Evaluator
from esopt.samplers.replay import Replay

MEAN = 0.25


@numba.njit
def bowl(x):
    total = 0.0
    for j in range(x.size):
        total += (j + 1.0) * x[j] * x[j]
    return total


@numba.njit
def bowl_grad(x):
    return 2.0 * np.arange(1.0, x.size + 1.0) * x


def bowl_rows(rows: Array) -> Array:
    total = np.zeros(len(rows))
    for j in range(rows.shape[1]):
        total += (j + 1.0) * rows[:, j] * rows[:, j]
    return total


@numba.njit
def seeded_bowl(x, seed, factor):
    return bowl(x) + factor * seed


def python(f: Any) -> Callable[..., Any]:
    """Return the plain function behind a compiled one."""
    return getattr(f, "py_func", f)


def threads_of(objective: Any, **settings: Any) -> Joblib:
    return Joblib(objective, workers=2, backend="threading", **settings)


ROW_BY_ROW = [Serial, Compiled, threads_of]
PYTHON = [Serial, threads_of]


def population(
    n: int = 12, dim: int = 5, *, mirrored: bool = True, scale: float | Array = 0.5, k: int = 0, generation: int = 4
) -> Population:
    sampler = Antithetic() if mirrored else Gaussian()
    extra = np.arange(k * dim, dtype=np.float64).reshape(k, dim) if k else None
    return Population(np.full(dim, MEAN), scale, sampler.noise(Key(7, generation), n, dim), extra)


def evaluate(evaluator: Any, wanted: Population) -> esopt.Evals:
    try:
        evals, state = evaluator.evaluate(wanted, evaluator.init())
    finally:
        evaluator.close()
    assert state == ()
    return evals


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dim", [1, 3, 64, 65, 130])
def test_all_give_the_same_bits(dim: int, mirrored: bool) -> None:
    for scale in (0.5, np.linspace(0.1, 0.9, dim)):
        for k in (0, 3):
            wanted = population(14, dim, mirrored=mirrored, scale=scale, k=k)
            expected = np.array([bowl(row) for row in np.asarray(wanted)])
            for evaluator in (
                Serial(bowl),
                Vectorized(bowl_rows),
                Vectorized(bowl_rows, chunk=5),
                compiled(bowl),
                threads_of(bowl),
                threads_of(bowl, chunk=3),
            ):
                evals = evaluate(evaluator, wanted)
                np.testing.assert_array_equal(evals.values, expected)
                assert evals.grads is None
                assert evals.failures == {}
                assert evals.steps == 0


@functools.cache
def compiled(f: Any, grad: Any = None) -> Compiled:
    return Compiled(Objective(f, grad))


@pytest.mark.parametrize("make", [Serial, Vectorized, Compiled, threads_of])
def test_noise_of_other_kinds_goes_through(make: Any) -> None:
    rows = np.array([[1.0, -2.0], [-1.0, 2.0], [0.5, 0.25], [-0.5, -0.25]])
    noise = Replay(rows, block=2, mirrored=True).noise(Key(1, 2), 4, 2)
    wanted = Population(np.array([1.0, 3.0]), np.array([0.5, 2.0]), noise).with_extra("mean", np.array([1.0, 3.0]))
    values = evaluate(make(bowl_rows if make is Vectorized else bowl), wanted).values
    np.testing.assert_array_equal(
        values, [bowl(x) for x in [*(np.array([1.0, 3.0]) + np.array([0.5, 2.0]) * rows), wanted.mean]]
    )


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("make", [Serial, Compiled, threads_of])
def test_gradients_are_those_of_every_row(make: Any, mirrored: bool) -> None:
    wanted = population(mirrored=mirrored, k=2).needing("grads")
    evals = evaluate(make(Objective(bowl, bowl_grad)), wanted)
    np.testing.assert_array_equal(evals.grads, [bowl_grad(x) for x in np.asarray(wanted)])
    np.testing.assert_array_equal(evals.values, [bowl(x) for x in np.asarray(wanted)])


def test_vectorized_gradients_are_those_of_every_row() -> None:
    wanted = population(k=2).needing("grads")
    for chunk in (None, 3):
        objective = Objective(bowl_rows, lambda rows: 2.0 * np.arange(1.0, 6.0) * rows)
        evals = evaluate(Vectorized(objective, chunk=chunk), wanted)
        np.testing.assert_array_equal(evals.grads, [bowl_grad(x) for x in np.asarray(wanted)])


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_seeds_are_those_of_the_population(make: Any) -> None:
    for wanted in (population(k=1), population(mirrored=False, k=1), replace(population(), share="none")):
        evals = evaluate(make(Objective(seeded_bowl, args=(1e6,), seeded=True)), wanted)
        rows, seeds = np.asarray(wanted), wanted.seeds
        expected = [seeded_bowl(x, int(s), 1e6) for x, s in zip(rows, seeds, strict=True)]
        np.testing.assert_array_equal(evals.values, expected)
    pairs = evaluate(make(Objective(only_seed, seeded=True)), population()).values
    np.testing.assert_array_equal(pairs[::2], pairs[1::2])
    assert len(set(pairs)) == len(pairs) // 2


@numba.njit
def only_seed(x, seed):
    return seed


def test_a_python_function_gets_its_seed_as_an_int() -> None:
    kinds: list[type] = []
    evaluate(Serial(Objective(lambda x, seed: kinds.append(type(seed)) or 0.0, seeded=True)), population(2))
    assert kinds == [int, int]


def test_vectorized_gets_the_seeds_of_its_rows() -> None:
    wanted = population(k=1)
    for chunk in (None, 4):
        objective = Objective(lambda rows, seeds, factor: bowl_rows(rows) + factor * seeds, args=(1e6,), seeded=True)
        values = evaluate(Vectorized(objective, chunk=chunk), wanted).values
        np.testing.assert_array_equal(values, bowl_rows(np.asarray(wanted)) + 1e6 * wanted.seeds)


@numba.njit
def corner(x, a):
    return a * x[1, 2] + x.shape[0]


@numba.njit
def corner_grad(x, a):
    out = np.zeros_like(x)
    out[1, 2] = a
    return out


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_f_sees_the_shape_of_x(make: Any) -> None:
    wanted = population(dim=6).needing("grads")
    evals = evaluate(make(Objective(corner, corner_grad, args=(3.0,), shape=(2, 3))), wanted)
    np.testing.assert_array_equal(evals.values, 3.0 * np.asarray(wanted)[:, 5] + 2.0)
    np.testing.assert_array_equal(evals.grads, np.tile([0.0, 0.0, 0.0, 0.0, 0.0, 3.0], (12, 1)))


def test_vectorized_sees_the_shape_of_x() -> None:
    wanted = population(dim=6).needing("grads")
    objective = Objective(lambda rows: rows[:, 1, 2], lambda rows: np.ones_like(rows), shape=(2, 3))
    evals = evaluate(Vectorized(objective), wanted)
    np.testing.assert_array_equal(evals.values, np.asarray(wanted)[:, 5])
    np.testing.assert_array_equal(evals.grads, np.ones((12, 6)))


@pytest.mark.parametrize("make", PYTHON)
def test_f_owns_its_x(make: Any) -> None:
    kept: list[Array] = []

    def greedy(x: Array) -> float:
        kept.append(x)
        before = x.sum()
        x[:] = -1.0
        return float(before)

    def grad(x: Array) -> Array:
        return x

    wanted = population(140, 3, k=2).needing("grads")
    evals = evaluate(make(Objective(greedy, grad)), wanted)
    np.testing.assert_array_equal(evals.values, [row.sum() for row in np.asarray(wanted)])
    np.testing.assert_array_equal(evals.grads, np.asarray(wanted))
    assert all(x.flags.c_contiguous and x.dtype == np.float64 and x.base is None for x in kept)
    assert (np.array(kept) == -1.0).all()


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (2, 2.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.array(2.5), 2.5),
        (np.array([3]), 3.0),
        (np.array([[4.0]]), 4.0),
        ([5.0], 5.0),
        (np.inf, np.inf),
        (-np.inf, -np.inf),
        (Outcome(6.0, 2), 6.0),
        (Outcome(np.array([7.0]), np.int64(2)), 7.0),
    ],
)
def test_numbers_of_all_kinds_are_values(result: object, value: float) -> None:
    evals = evaluate(Serial(lambda x: result), population(4))
    np.testing.assert_array_equal(evals.values, np.full(4, value))
    assert evals.values.dtype == np.float64
    assert evals.failures == {}
    assert evals.steps == (8 if isinstance(result, Outcome) else 0)


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (None, "f returned None"),
        ("1.0", "f returned '1.0', of type str"),
        (1j, "f returned 1j, of type complex"),
        ([], "f returned [], of type list"),
        ([1.0, [2.0]], "f returned [1.0, [2.0]], of type list"),
        (np.zeros(2), "f returned an array of shape (2,) and type float64"),
        (np.array([1j]), "f returned an array of shape (1,) and type complex128"),
        (np.array([None]), "f returned an array of shape (1,) and type object"),
        (Outcome(None), "f returned None"),
        (Outcome(1.0, -1), "f returned an Outcome with steps=-1"),
        (Outcome(1.0, 0.5), "f returned an Outcome with steps=0.5"),
    ],
)
@pytest.mark.parametrize("make", PYTHON)
def test_what_is_no_number_is_an_error_or_a_failure(make: Any, result: object, what: str) -> None:
    with pytest.raises(TypeError) as caught:
        evaluate(make(lambda x: result), population(8))
    text = str(caught.value)
    assert text.startswith(what)
    assert " for candidate 0 of generation 4. Expected a number " in text
    assert text.endswith("Return a float.")

    some = evaluate(make(lambda x: result if x[0] > 0.0 else x[1], on_error="nan"), population(8))
    rows = np.asarray(population(8))
    np.testing.assert_array_equal(some.values, np.where(rows[:, 0] > 0.0, np.nan, rows[:, 1]))
    assert some.failures == {"shape": (rows[:, 0] > 0.0).sum()}
    again = evaluate(make(lambda x: result, on_error="retry(2)"), population(8))
    assert again.failures == {"retried": 16, "shape": 8}


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (None, "f returned None"),
        (1.0, "f returned 1.0, of type float"),
        (np.zeros((8, 1)), "f returned an array of shape (8, 1) and type float64"),
        (np.zeros(7), "f returned an array of shape (7,) and type float64"),
        (np.zeros(8, complex), "f returned an array of shape (8,) and type complex128"),
        (Outcome(np.zeros(7), 1), "f returned an array of shape (7,) and type float64"),
    ],
)
def test_vectorized_wants_one_number_for_each_row(result: object, what: str) -> None:
    with pytest.raises(TypeError) as caught:
        evaluate(Vectorized(lambda rows: result, on_error="nan"), population(8))
    assert str(caught.value).startswith(
        f"{what} for candidates 0 to 7 of generation 4. Expected shape (8,), one number"
    )


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((1, 5)), 0.0, None, np.zeros(5, complex)])
@pytest.mark.parametrize("make", [Serial, Vectorized, threads_of])
def test_gradients_of_a_wrong_shape_are_an_error(make: Any, wrong: object) -> None:
    f = bowl_rows if make is Vectorized else bowl
    with pytest.raises(TypeError, match=r"grad returned .* Expected .*shape of (x|the rows)\. Return"):
        evaluate(make(Objective(f, lambda x: wrong), on_error="nan"), population(8).needing("grads"))


@pytest.mark.parametrize("make", [Serial, Vectorized, Compiled, threads_of])
def test_gradients_that_do_not_exist_are_an_error(make: Any) -> None:
    with pytest.raises(ValueError, match=r"needs gradients, .* has none\. Pass grad=\.\.\., or use"):
        evaluate(make(bowl), population().needing("grads"))


@numba.njit
def touchy(x):
    if x[0] > 0.6:
        raise ZeroDivisionError("division by zero")
    if x[0] > 0.3:
        return np.nan
    if x[0] > 0.2:
        return -np.inf
    return x[0]


def touchy_rows(rows: Array) -> Array:
    return np.array([python(touchy)(x) for x in rows])


def expected_of_touchy(first: Array) -> Array:
    values = np.where(first > 0.2, -np.inf, first)
    return np.where(first > 0.3, np.nan, values)


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_failures_are_counted_by_kind(make: Any) -> None:
    wanted = population(60, k=2)
    first = np.asarray(wanted)[:, 0]
    for f in (touchy,) if make is Compiled else (touchy, python(touchy)):
        evals = evaluate(make(f, on_error="nan"), wanted)
        np.testing.assert_array_equal(evals.values, expected_of_touchy(first))
        assert evals.failures == {"exception": (first > 0.6).sum(), "nan": ((first > 0.3) & (first <= 0.6)).sum()}
        assert (evals.values == -np.inf).any()


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_the_first_exception_is_reported_so_that_it_can_be_repeated(make: Any) -> None:
    wanted = population(60, k=2)
    row = int(np.argmax(np.asarray(wanted)[:, 0] > 0.6))
    assert row > 2
    for f in (touchy,) if make is Compiled else (touchy, python(touchy)):
        with pytest.raises(EvaluationError) as caught:
            evaluate(make(f), wanted)
        assert str(caught.value) == (
            f"candidate {row} of generation 4 raised ZeroDivisionError: division by zero.\n"
            f"Reproduce it with: f(population[{row}]), where population = es.population() of that generation "
            '(or strategy.ask(state)). Pass on_error="nan" to count such candidates as failed and go on.'
        )
        assert type(caught.value.__cause__) is ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            f(wanted[row])


@numba.njit
def touchy_seeded(x, seed, limit):
    if x[0, 0] > limit:
        raise ValueError("too large")
    return x[0, 0]


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_the_report_names_the_seed_the_shape_and_further_arguments(make: Any) -> None:
    wanted = population(60, dim=6)
    row = int(np.argmax(np.asarray(wanted)[:, 0] > 0.6))
    with pytest.raises(EvaluationError) as caught:
        evaluate(make(Objective(touchy_seeded, args=(0.6,), seeded=True, shape=(2, 3))), wanted)
    seed = wanted.seeds[row]
    text = str(caught.value)
    assert text.startswith(f"candidate {row} of generation 4 (seed {seed}) raised ValueError: too large.\n")
    assert f"Reproduce it with: f(population[{row}].reshape((2, 3)), {seed}, *args), where" in text


@numba.njit
def failing_grad(x):
    if x[0] > 0.5:
        raise ValueError("no slope")
    return x / (x[0] > 0.1)


@pytest.mark.filterwarnings("ignore:.* encountered in divide:RuntimeWarning")
@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_gradients_that_fail(make: Any) -> None:
    @numba.njit(error_model="numpy")
    def grad(x):
        if x[0] > 0.5:
            raise ValueError("no slope")
        return x / (x[0] < 0.1)

    wanted = population(60, k=1).needing("grads")
    rows = np.asarray(wanted)
    f, g = (touchy, grad) if make is Compiled else (python(touchy), python(grad))
    evals = evaluate(make(Objective(f, g), on_error="nan"), wanted)
    first = rows[:, 0]
    np.testing.assert_array_equal(evals.values, expected_of_touchy(first))
    np.testing.assert_array_equal(evals.grads, np.where((first < 0.1)[:, None], rows, np.nan))
    assert evals.failures == {
        "exception": (first > 0.6).sum(),
        "nan": ((first > 0.3) & (first <= 0.6)).sum(),
        "gradient": ((first >= 0.1) & (first <= 0.3)).sum(),
    }
    assert min(evals.failures.values()) > 0


@numba.njit
def no_slope(x):
    if x[0] > 0.5:
        raise ValueError("no slope")
    return x.copy()


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_an_exception_in_grad_is_reported_like_one_in_f(make: Any) -> None:
    wanted = population(60, k=1).needing("grads")
    first = np.asarray(wanted)[:, 0]
    row = int(np.argmax(first > 0.5))
    with pytest.raises(EvaluationError) as caught:
        evaluate(make(Objective(bowl, no_slope)), wanted)
    text = str(caught.value)
    assert text.startswith(
        f"candidate {row} of generation 4 raised ValueError: no slope (in grad).\nReproduce it with: grad("
    )
    evals = evaluate(make(Objective(bowl, no_slope), on_error="nan"), wanted)
    assert evals.failures == {"exception": (first > 0.5).sum()}
    assert np.isfinite(evals.values).all()
    np.testing.assert_array_equal(np.isnan(evals.grads).any(axis=1), first > 0.5)


def test_a_vectorized_exception_is_that_of_its_batch() -> None:
    wanted = population(60)
    bad = np.asarray(wanted)[:, 0].reshape(-1, 4).max(axis=1) > 0.6
    start = 4 * int(np.argmax(bad))
    with pytest.raises(EvaluationError) as caught:
        evaluate(Vectorized(Objective(lambda r, s: touchy_rows(r), seeded=True), chunk=4), wanted)
    stop = start + 4
    assert str(caught.value) == (
        f"f raised ZeroDivisionError for candidates {start} to {stop - 1} of generation 4: division by zero.\n"
        f"Reproduce it with: f(population.rows({start}, {stop}), population.seeds[{start}:{stop}]), where population = "
        'es.population() of that generation (or strategy.ask(state)). Pass on_error="nan" to count such candidates as '
        "failed and go on."
    )
    assert type(caught.value.__cause__) is ZeroDivisionError
    evals = evaluate(Vectorized(touchy_rows, chunk=4, on_error="nan"), wanted)
    whole = np.repeat(bad, 4)
    expected = expected_of_touchy(np.asarray(wanted)[:, 0])
    np.testing.assert_array_equal(evals.values, np.where(whole, np.nan, expected))
    assert evals.failures == {"exception": whole.sum(), "nan": np.isnan(expected[~whole]).sum()}
    assert 0 < whole.sum() < 60
    assert evals.failures["nan"] > 0


@pytest.mark.parametrize("make", [Serial, Vectorized, threads_of])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_failure(make: Any, error: type[BaseException]) -> None:
    def f(x: Array) -> float:
        raise error

    with pytest.raises(error):
        evaluate(make(f, on_error="nan"), population())


@numba.njit
def counted(x):
    return Outcome(x[0], 3)


@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_steps_are_summed(make: Any) -> None:
    wanted = population(60, k=1)
    f = counted if make is Compiled else python(counted)
    assert evaluate(make(f), wanted).steps == 183
    assert evaluate(make(bowl), wanted).steps == 0


def test_vectorized_steps_are_summed() -> None:
    wanted = population(60)
    assert evaluate(Vectorized(lambda rows: Outcome(rows[:, 0], np.arange(len(rows)))), wanted).steps == 60 * 59 // 2
    assert evaluate(Vectorized(lambda rows: Outcome(rows[:, 0], 5), chunk=7), wanted).steps == 9 * 5


def test_large_rows_are_made_a_few_at_a_time() -> None:
    asked: list[int] = []

    class Watched(Population):
        def rows(self, start: int = 0, stop: int | None = None, out: Any = None) -> Any:
            asked.append((len(self) if stop is None else stop) - start)
            return super().rows(start, stop, out)

    dim = 1 << 19
    wanted = Watched(np.zeros(dim), 1.0, Antithetic().noise(Key(1), 6, dim))
    values = evaluate(Serial(lambda x: x[7]), wanted).values
    np.testing.assert_array_equal(values, [wanted[i][7] for i in range(6)])
    assert max(asked) == 2


@pytest.mark.parametrize("make", [Serial, Vectorized, Compiled, threads_of])
def test_settings_are_checked_and_frozen(make: Any) -> None:
    for policy in ("skip", "retry", "retry(0)", "retry(-1)", "retry(1.5)", None, 3):
        with pytest.raises(ValueError, match=r'on_error must be "raise", "nan" or "retry\(k\)" .*, got .*\. Pass'):
            make(bowl, on_error=policy)
    for most in (-1, 1.5, float("nan"), "half", True):
        with pytest.raises(ValueError, match=r"max_failures must be None, a whole number .*, got .*\. Pass"):
            make(bowl, max_failures=most)
    with pytest.raises(ValueError, match=r"got timeout=2.0, but it calls f in this process, .*Joblib\(f, workers=2"):
        make(bowl, timeout=2.0)
    with pytest.raises(TypeError, match="f must be a function, got int"):
        make(3)
    evaluator = make(bowl)
    assert isinstance(evaluator, Evaluator)
    assert isinstance(evaluator.objective, Objective)
    with pytest.raises(FrozenInstanceError):
        evaluator.on_error = "nan"
    assert evaluator == make(evaluator.objective)


@pytest.mark.parametrize("make", [Serial, Vectorized, Compiled, threads_of])
def test_state_and_settings_can_be_saved(make: Any) -> None:
    evaluator = make(bowl_rows if make is Vectorized else bowl)
    before = describe(evaluator)
    evals, state = evaluator.evaluate(population(), evaluator.init())
    assert flatten(state)[1] == {}
    assert describe(evaluator) == before
    assert not any(name.startswith("_") for name in before)
    again = replace(evaluator, on_error="nan")
    np.testing.assert_array_equal(evaluate(again, population()).values, evals.values)
    evaluator.close()
    evaluator.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Vectorized(bowl_rows, chunk=0), "chunk must be a positive integer or None, got 0"),
        (lambda: Compiled(bowl, threads=True), "threads must be a positive integer or None, got True"),
        (lambda: Joblib(bowl, workers=0), "workers must be a positive integer or None, got 0"),
        (lambda: Joblib(bowl, workers=None), "workers must be a positive integer, got None"),
        (lambda: Joblib(bowl, workers=2, threads_per_worker=1.5), "threads_per_worker must be a positive integer"),
    ],
)
def test_counts_are_checked(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.fixture(autouse=True)
def all_threads() -> Iterator[None]:
    before = numba.get_num_threads()
    yield
    assert numba.get_num_threads() == before
