"""Compiled: threads, slices, arguments, errors of numba, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest

from esopt import Antithetic, Compiled, EvaluationError, Gaussian, Key, Objective, Outcome, Population, Serial
from esopt._kernels import objective as kernels
from esopt._kernels import threads
from esopt.evaluators import compiled
from esopt.noise import Array

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

two_threads = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")


@numba.njit
def bowl(x):
    total = 0.0
    for j in range(x.size):
        total += (j + 1.0) * x[j] * x[j]
    return total


@numba.njit
def bowl_grad(x):
    return 2.0 * np.arange(1.0, x.size + 1.0) * x


def population(n: int = 64, dim: int = 20, generation: int = 4, mirrored: bool = True) -> Population:
    sampler = Antithetic() if mirrored else Gaussian()
    return Population(np.full(dim, 0.25), 0.5, sampler.noise(Key(7, generation), n, dim)).with_extra(
        "mean", np.ones(dim)
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int, int]]]:
    """Record (kernel, first unit, last unit) of every call."""
    seen: list[tuple[str, int, int]] = []
    serial, parallel = kernels.evaluate, kernels.evaluate_parallel

    def watched_serial(*args: Any) -> int:
        seen.append(("serial", args[0], args[1]))
        return int(serial(*args))

    def watched_parallel(*args: Any) -> int:
        seen.append(("parallel", args[2], args[3]))
        return int(parallel(*args))

    monkeypatch.setattr(kernels, "evaluate", watched_serial)
    monkeypatch.setattr(kernels, "evaluate_parallel", watched_parallel)
    return seen


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Want threads wherever they are possible."""
    monkeypatch.setattr(Compiled, "_wants_threads", lambda self, units: self._live.known and not self._live.threaded)
    monkeypatch.setattr(compiled, "_PROBE_SECONDS", 1e-9)


@two_threads
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dim", [20, 130])
def test_one_thread_and_two_give_the_same_bits(dim: int, mirrored: bool, calls: list[tuple[str, int, int]]) -> None:
    wanted = population(200, dim, mirrored=mirrored).needing("grads")
    objective = Objective(bowl, bowl_grad)
    found = []
    for count, kernel in ((1, "serial"), (2, "parallel")):
        evaluator = Compiled(objective, threads=count)
        evaluator.evaluate(wanted, ())
        calls.clear()
        found.append(evaluator.evaluate(wanted, ())[0])
        assert {call[0] for call in calls} == {kernel}
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_array_equal(found[0].grads, found[1].grads)
    np.testing.assert_array_equal(found[0].values, [bowl(x) for x in np.asarray(wanted)])


@two_threads
@pytest.mark.usefixtures("eager")
def test_a_worker_uses_no_threads(calls: list[tuple[str, int, int]]) -> None:
    with threads.limited(1):
        for evaluator in (Compiled(bowl), Compiled(bowl, threads=2)):
            for _ in range(3):
                evaluator.evaluate(population(), ())
    assert {call[0] for call in calls} == {"serial"}


@two_threads
@pytest.mark.usefixtures("eager")
def test_a_function_with_threads_of_its_own_is_called_from_one(calls: list[tuple[str, int, int]]) -> None:
    @numba.njit(parallel=True)
    def f(x):
        total = 0.0
        for j in numba.prange(x.size):
            total += x[j]
        return total

    evaluator = Compiled(f)
    for _ in range(3):
        evals, _ = evaluator.evaluate(population(), ())
    assert {call[0] for call in calls} == {"serial"}
    np.testing.assert_allclose(evals.values, np.asarray(population()).sum(axis=1), rtol=1e-13)


def test_the_faster_way_is_taken_and_the_other_tried_now_and_then() -> None:
    evaluator = Compiled(bowl)
    live = evaluator._live
    assert not evaluator._wants_threads(1000)
    evaluator._learn(False, 1, 20e-6)
    assert not live.known
    evaluator._learn(False, 1000, 1000e-6)
    assert (live.known, live.serial) == (True, 1e-6)
    assert evaluator._wants_threads(1000)
    assert not evaluator._wants_threads(20)
    assert not evaluator._wants_threads(1)
    # Slow threads: serial again, until a multiple of the cost of another try was spent; twice the multiple each time.
    for patience in (16, 64, 64):
        evaluator._learn(True, 1000, 5000e-6)
        for _ in range(patience * 5):
            assert not evaluator._wants_threads(1000)
            evaluator._learn(False, 1000, 1000e-6)
        evaluator._learn(False, 1000, 1000e-6)
        assert evaluator._wants_threads(1000)
    # Fast threads: they stay, and a disturbance does not change that.
    evaluator._learn(True, 1000, 600e-6)
    assert evaluator._wants_threads(1000)
    evaluator._learn(True, 1000, 0.01)
    assert live.parallel == pytest.approx(1.25 * 600e-6 / 1000, rel=1e-12)
    assert evaluator._wants_threads(1000)
    # A lasting one does.
    for _ in range(3):
        evaluator._learn(True, 1000, 0.01)
    assert not evaluator._wants_threads(1000)


@two_threads
def test_an_expensive_generation_tries_threads(calls: list[tuple[str, int, int]]) -> None:
    @numba.njit
    def slow(x):
        total = x[0]
        for _ in range(100_000):
            total = np.sqrt(total * total + 1e-9)
        return total

    evaluator = Compiled(slow)
    for _ in range(2):
        evaluator.evaluate(population(), ())
    assert {call[0] for call in calls} == {"serial", "parallel"}


@pytest.mark.parametrize("mirrored", [False, True])
def test_slices_that_an_interruption_can_stop_change_nothing(
    mirrored: bool, calls: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = population(mirrored=mirrored)
    evaluator = Compiled(bowl)
    whole, _ = evaluator.evaluate(wanted, ())
    monkeypatch.setattr(compiled, "_SLICE_SECONDS", 1e-9)
    monkeypatch.setattr(compiled, "_PROBE_SECONDS", 1e-9)
    evaluator.evaluate(wanted, ())
    calls.clear()
    sliced, _ = evaluator.evaluate(wanted, ())
    units = (32 if mirrored else 64) + 1
    assert [call[1:] for call in calls] == [(u, u + 1) for u in range(units)]
    np.testing.assert_array_equal(sliced.values, whole.values)
    np.testing.assert_array_equal(whole.values, [bowl(x) for x in np.asarray(wanted)])


def test_f_is_compiled_once() -> None:
    @numba.njit
    def f(x, a, b):
        return x[0] + a[0] + b

    evaluator = Compiled(Objective(f, args=(np.ones(3), 2.0)))
    for dim in (3, 20, 130):
        values = evaluator.evaluate(population(dim=dim), ())[0].values
        np.testing.assert_array_equal(values, np.asarray(population(dim=dim))[:, 0] + 1.0 + 2.0)
    assert len(f.signatures) == 1


def test_a_failure_costs_no_second_compilation() -> None:
    @numba.njit
    def f(x, a):
        if x[0] > 0.5:
            raise ValueError("too large")
        return a[0] * x[0]

    with pytest.raises(EvaluationError, match="too large"):
        Compiled(Objective(f, args=(np.ones(3),))).evaluate(population(), ())
    assert len(f.signatures) == 1


def test_arguments_of_many_kinds() -> None:
    @numba.njit
    def helper(x):
        return 2.0 * x

    @numba.njit
    def f(x, seed, matrix, pair, flag, g):
        return x @ matrix @ x + pair[0] * pair[1] + (seed if flag else 0.0) + g(x[0])

    matrix = np.arange(9.0).reshape(3, 3)
    objective = Objective(f, args=(matrix, (2, 0.5), True, helper), seeded=True)
    wanted = population(dim=3)
    values = Compiled(objective).evaluate(wanted, ())[0].values
    expected = Serial(objective).evaluate(wanted, ())[0].values
    np.testing.assert_array_equal(values, expected)
    rows = np.asarray(wanted)
    np.testing.assert_allclose(
        values, np.einsum("ni,ij,nj->n", rows, matrix, rows) + 1.0 + wanted.seeds + 2 * rows[:, 0]
    )


def test_means_and_scales_of_any_memory_order_are_taken() -> None:
    mean, scale = np.arange(40.0)[::2], np.linspace(0.1, 1.0, 20)
    for array in (mean, scale):
        array.flags.writeable = False
    wanted = replace(population(), mean=mean, scale=scale, extra=np.ones((20, 2)).T, tags=())
    before = len(kernels.evaluate.signatures)
    values = Compiled(bowl).evaluate(wanted, ())[0].values
    np.testing.assert_array_equal(values, [bowl(x) for x in np.asarray(wanted)])
    assert len(kernels.evaluate.signatures) == max(before, 1)


def test_an_index_error_is_found_in_its_row() -> None:
    @numba.njit(boundscheck=True)
    def f(x):
        return x[3 if x[0] > 0.5 else 0]

    wanted = population(dim=3)
    bad = np.asarray(wanted)[:, 0] > 0.5
    with pytest.raises(EvaluationError, match=f"candidate {int(np.argmax(bad))} of generation 4 raised IndexError"):
        Compiled(f).evaluate(wanted, ())
    evals, _ = Compiled(f, on_error="nan").evaluate(wanted, ())
    np.testing.assert_array_equal(np.isnan(evals.values), bad)
    assert evals.failures == {"exception": bad.sum()}


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (numba.njit(lambda x: None), r"Compiled\(\) cannot use f: it returns none, not a number"),
        (numba.njit(lambda x: x), r"Compiled\(\) cannot use f: it returns array\(float64, 1d, C\), not a number"),
        (numba.njit(lambda x: x.nonsense), r"(?s)cannot use f: numba cannot compile it: .*nonsense.*Expected a numba"),
        (
            numba.njit(lambda x, y, z: 1.0),
            r"(?s)cannot use f: numba cannot compile it.*function of x and 0 args\. Try f\(",
        ),
    ],
)
def test_what_numba_cannot_use_is_explained(f: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Compiled(f).evaluate(population(), ())


def test_lists_as_args_are_refused() -> None:
    objective = Objective(numba.njit(lambda x, a, b: x[0] + b[0]), args=(1.0, [1.0, 2.0]))
    with pytest.raises(TypeError, match=r"got a list as args\[1\], but args become constants.* Pass an array, a tuple"):
        Compiled(objective).evaluate(population(), ())
    assert Compiled(Objective(objective.f, args=(1.0, (1.0, 2.0)))).evaluate(population(), ())[0].values.shape == (65,)


def test_a_constant_that_numba_cannot_keep_is_explained() -> None:
    objective = Objective(numba.njit(lambda x, a: x[0]), args=(range(3),))
    with pytest.raises(TypeError, match=r"(?s)Compiled\(\) cannot use f: .*or use Serial\(\)"):
        Compiled(objective).evaluate(population(), ())


def test_a_forgotten_seed_is_suspected() -> None:
    with pytest.raises(TypeError, match="one argument more: if that is the seed, set seeded=True"):
        Compiled(numba.njit(lambda x, seed: x[0])).evaluate(population(), ())


def test_gradients_are_checked_too() -> None:
    wanted = population().needing("grads")
    with pytest.raises(TypeError, match=r"cannot use grad: it returns float64, not an array of numbers of the shape"):
        Compiled(Objective(bowl, numba.njit(lambda x: x[0]))).evaluate(wanted, ())
    with pytest.raises(TypeError) as caught:
        Compiled(Objective(bowl, numba.njit(lambda x: x[1:].copy())), on_error="nan").evaluate(wanted, ())
    assert str(caught.value) == (
        "grad returned an array of shape (19,) and type float64 for candidate 0 of generation 4. Expected an array of "
        "shape (20,), the shape of x. Return one number for each element of x."
    )


def test_gradients_of_other_types_and_orders_are_taken() -> None:
    @numba.njit
    def whole_numbers(x):
        return np.arange(x.size)

    @numba.njit
    def transposed(x):
        return (x.T * 2.0).T

    wanted = population(dim=6).needing("grads")
    grads = Compiled(Objective(bowl, whole_numbers)).evaluate(wanted, ())[0].grads
    np.testing.assert_array_equal(grads, np.tile(np.arange(6.0), (65, 1)))
    objective = Objective(numba.njit(lambda x: x[0, 0]), transposed, shape=(2, 3))
    np.testing.assert_array_equal(Compiled(objective).evaluate(wanted, ())[0].grads, 2.0 * np.asarray(wanted))


def test_steps_must_not_be_negative() -> None:
    @numba.njit
    def f(x):
        return Outcome(x[0], -2)

    with pytest.raises(TypeError, match=r"f returned Outcome\(value=.*, steps=-2\), of type Outcome for candidate 0"):
        Compiled(f, on_error="nan").evaluate(population(), ())


def test_an_error_that_does_not_repeat_is_still_an_error() -> None:
    @numba.njit
    def start(seed, count):
        np.random.seed(seed)  # noqa: NPY002
        last = 0.0
        for _ in range(count):
            last = np.random.random()  # noqa: NPY002
        return last

    @numba.njit
    def f(x):
        if np.random.random() < 0.5:  # noqa: NPY002
            raise ValueError("by chance")
        return x[0]

    draws = len(population()) + 1
    seed = next(seed for seed in range(100) if start(seed, draws) > 0.5)
    start(seed, 0)
    with pytest.raises(EvaluationError, match="an error in compiled code that did not happen again in Python"):
        Compiled(f, threads=1).evaluate(population(), ())


@pytest.mark.parametrize("name", ["f", "grad"])
def test_plain_functions_are_refused(name: str) -> None:
    objective = Objective(bowl, bowl_grad.py_func) if name == "grad" else Objective(bowl.py_func)
    with pytest.raises(
        TypeError, match=rf"got a plain function as {name}, .*Decorate {name} with @numba\.njit, or use"
    ):
        Compiled(objective)


SWITCHED_OFF = """
import numba, numpy as np
from esopt import Antithetic, Compiled, Key, Population
f = numba.njit(lambda x: x[0] * x[1])
population = Population(np.ones(2), 0.5, Antithetic().noise(Key(1), 4, 2))
values = Compiled(f).evaluate(population, ())[0].values
rows = population.rows()
print(bool((values == rows[:, 0] * rows[:, 1]).all()))
"""

LARGE = """
import resource, numba, numpy as np
from esopt import Antithetic, Compiled, Key, Population
dim, f = 1 << 20, numba.njit(lambda x: x[3])
make = lambda n, dim: Population(np.zeros(dim), 1.0, Antithetic().noise(Key(1), n, dim))
evaluator = Compiled(f, threads=2)
for _ in range(3):
    evaluator.evaluate(make(64, 1 << 14), ())
population = make(64, dim)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluator.evaluate(population, ())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (8 * dim))
"""


def script(text: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_works_with_the_compiler_switched_off() -> None:
    assert script(SWITCHED_OFF, NUMBA_DISABLE_JIT="1") == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_the_matrix_of_candidates_never_exists() -> None:
    vectors = float(script(LARGE))
    assert vectors < 6.0


def test_values_of_a_population_without_rows() -> None:
    evals, _ = Compiled(bowl).evaluate(Population(np.zeros(3), 1.0, Gaussian().noise(Key(1), 0, 3)), ())
    assert evals.values.shape == (0,)


def test_an_array_that_is_large_is_not_copied_into_the_code() -> None:
    @numba.njit
    def f(x, table):
        return table[int(abs(x[0]) * 100.0)]

    table = np.arange(300_000.0)
    wanted = population()
    values = Compiled(Objective(f, args=(table,))).evaluate(wanted, ())[0].values
    np.testing.assert_array_equal(values, np.floor(np.abs(np.asarray(wanted)[:, 0]) * 100.0))


def naive(x: Array) -> float:
    return float(bowl.py_func(x))


def test_the_plain_function_gives_the_same_numbers() -> None:
    wanted = population()
    values = Compiled(bowl).evaluate(wanted, ())[0].values
    np.testing.assert_array_equal(values, Serial(naive).evaluate(wanted, ())[0].values)
