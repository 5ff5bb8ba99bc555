"""Joblib: bits, what travels, threads, failures and the end of worker processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numba
import numpy as np
import pytest

from esopt import Antithetic, EvaluationError, Gaussian, Joblib, Key, Objective, Population, Serial
from esopt.evaluators._policy import read_policy
from esopt.evaluators._tasks import WorkerTraceback, cut, make_recipe
from esopt.noise import Array
from esopt.samplers.replay import Replay
from tests.reference.processes import alive, wait_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def population(n: int = 24, dim: int = 5, generation: int = 4, mirrored: bool = True, k: int = 1) -> Population:
    sampler = Antithetic() if mirrored else Gaussian()
    extra = np.linspace(0.0, 0.4, k * dim).reshape(k, dim) if k else None
    return Population(np.full(dim, 0.25), 0.5, sampler.noise(Key(7, generation), n, dim), extra)


def bowl() -> Callable[[Array], float]:
    """Return a function that a worker can rebuild without this file."""

    def f(x: Array) -> float:
        total = 0.0
        for j in range(x.size):
            total += (j + 1.0) * x[j] * x[j]
        return total

    return f


def many_uses() -> Callable[..., Any]:
    """Return f(x, seed): what it does depends on the stream of candidates, through the last coordinate of the mean."""

    def f(x: Array, seed: int) -> Any:
        import os

        import numba
        import numpy as np
        from threadpoolctl import threadpool_info

        kind = round(float(x[-1]) / 100.0)
        if kind == 1:
            return os.getpid()
        if kind == 2:
            return numba.get_num_threads()
        if kind == 3:
            np.ones((4, 4)) @ np.ones((4, 4))
            return max(info["num_threads"] for info in threadpool_info())
        if kind == 4 and x[0] > 0.5:
            raise ZeroDivisionError("division by zero")
        if kind == 5:

            class Odd(Exception):
                def __init__(self, one: int, two: int) -> None:
                    super().__init__("odd")

            raise Odd(1, 2)
        if kind == 6:
            return None
        if kind == 7:
            raise KeyboardInterrupt
        if kind == 8 and x[0] > 0.5:
            os._exit(3)
        return float(x @ x) + 1e-6 * seed

    return f


def asking(kind: int, **settings: Any) -> Population:
    """Return a population whose last coordinate asks :func:`many_uses` for something."""
    made = population(**settings)
    scale = np.full(made.dim, 0.5)
    mean = made.mean.copy()
    mean[-1], scale[-1] = 100.0 * kind, 0.0
    return Population(mean, scale, made.noise)


@pytest.fixture(scope="module")
def two() -> Iterator[Joblib]:
    evaluator = Joblib(Objective(many_uses(), seeded=True), workers=2, threads_per_worker=1)
    yield evaluator
    evaluator.close()


def gone(pids: set[int]) -> bool:
    """Wait a moment for processes to end."""
    return wait_for(lambda: not any(map(alive, pids)), 5.0)


@pytest.mark.parametrize("dim", [1, 65, 130])
def test_processes_give_the_bits_of_serial(two: Joblib, dim: int) -> None:
    for mirrored in (False, True):
        for k in (0, 3):
            wanted = population(22, dim, mirrored=mirrored, k=k)
            expected = Serial(two.objective).evaluate(wanted, ())[0].values
            np.testing.assert_array_equal(two.evaluate(wanted, two.init())[0].values, expected)


def test_explicit_noise_travels_as_rows(two: Joblib) -> None:
    rows = np.linspace(-1.0, 1.0, 60).reshape(20, 3)
    wanted = Population(np.ones(3), 0.5, Replay(rows).noise(Key(1, 2), 20, 3), extra=np.zeros((1, 3)))
    expected = Serial(two.objective).evaluate(wanted, ())[0].values
    np.testing.assert_array_equal(two.evaluate(wanted, ())[0].values, expected)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_any_number_of_workers_and_any_chunk_give_the_same_bits(backend: str) -> None:
    wanted = population(22, 33, k=2)
    expected = Serial(bowl()).evaluate(wanted, ())[0].values
    for workers, chunk in ((1, None), (2, 1), (2, 5), (3, None), (2, 1000)):
        if backend == "loky" and (workers, chunk) not in {(1, None), (3, None)}:
            continue
        evaluator = Joblib(bowl(), workers=workers, backend=backend, chunk=chunk)
        try:
            for _ in range(2):
                np.testing.assert_array_equal(evaluator.evaluate(wanted, ())[0].values, expected)
        finally:
            evaluator.close()


def test_tasks_are_whole_pairs_in_the_order_of_the_rows() -> None:
    for workers, chunk, sizes in (
        (2, None, [4] * 6),
        (3, None, [4] * 6),
        (2, 5, [6] * 4),
        (1, 1, [2] * 12),
        (1, 0, 24 * [1]),
    ):
        made, size = population(k=3), -(-27 // (4 * workers)) if chunk is None else chunk
        recipe = make_recipe(made, (), read_policy("raise"))
        tasks = list(cut(made, recipe, False, size))
        noise = [task for task in tasks if task.rows is None]
        assert [task.stop - task.start for task in noise] == sizes
        assert [task.start for task in tasks] == [0, *[task.stop for task in tasks[:-1]]]
        assert tasks[-1].stop == 27
        assert recipe.population.extra is None
        assert all(task.seeds is None for task in noise)


def test_workers_use_one_thread_each(two: Joblib) -> None:
    assert set(two.evaluate(asking(2), ())[0].values) == {1.0}
    assert set(two.evaluate(asking(3), ())[0].values) == {1.0}


def test_worker_threads_use_one_thread_each_and_give_the_others_back() -> None:
    before = numba.get_num_threads()
    evaluator = Joblib(Objective(many_uses(), seeded=True), workers=2, backend="threading", threads_per_worker=1)
    try:
        assert set(evaluator.evaluate(asking(2), ())[0].values) == {1.0}
        assert set(evaluator.evaluate(asking(3), ())[0].values) == {1.0}
    finally:
        evaluator.close()
    assert numba.get_num_threads() == before


def test_exceptions_are_those_of_serial(two: Joblib) -> None:
    wanted = asking(4, n=60)
    row = int(np.argmax(np.asarray(wanted)[:, 0] > 0.5))
    with pytest.raises(EvaluationError) as here:
        Serial(two.objective).evaluate(wanted, ())
    with pytest.raises(EvaluationError) as there:
        two.evaluate(wanted, ())
    assert str(there.value) == str(here.value)
    assert str(there.value).startswith(
        f"candidate {row} of generation 4 (seed {wanted.seeds[row]}) raised ZeroDivisionError: division by zero.\n"
    )
    cause = there.value.__cause__
    assert type(cause) is ZeroDivisionError
    assert isinstance(cause.__cause__, WorkerTraceback)
    assert "in f\n" in str(cause.__cause__)
    lenient = Joblib(two.objective, workers=2, backend="threading", on_error="nan")
    evals = lenient.evaluate(wanted, ())[0]
    lenient.close()
    bad = np.asarray(wanted)[:, 0] > 0.5
    np.testing.assert_array_equal(np.isnan(evals.values), bad)
    assert evals.failures == {"exception": bad.sum()}


def test_an_exception_that_cannot_travel_is_told_in_words(two: Joblib) -> None:
    with pytest.raises(EvaluationError, match=r"candidate 0 of generation 4 .* raised RuntimeError: Odd: odd"):
        two.evaluate(asking(5), ())


def test_a_wrong_result_is_that_of_serial(two: Joblib) -> None:
    with pytest.raises(TypeError, match=r"f returned None for candidate 0 of generation 4 .*Expected a number"):
        two.evaluate(asking(6), ())


def test_the_same_workers_serve_all_generations(two: Joblib) -> None:
    pids = {int(pid) for g in range(3) for pid in two.evaluate(asking(1, generation=g), ())[0].values}
    assert len(pids) in (1, 2)
    assert os.getpid() not in pids


def test_close_ends_the_workers_and_evaluate_starts_new_ones() -> None:
    evaluator = Joblib(Objective(many_uses(), seeded=True), workers=2)
    pids = {int(pid) for pid in evaluator.evaluate(asking(1), ())[0].values}
    assert all(map(alive, pids))
    evaluator.close()
    assert gone(pids)
    evaluator.close()
    fresh = {int(pid) for pid in evaluator.evaluate(asking(1), ())[0].values}
    assert not fresh & pids
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(asking(7), ())
    assert gone(fresh)
    with pytest.raises(EvaluationError, match=r"candidate \d+ of generation 4 .* killed its worker process, 2 times"):
        evaluator.evaluate(asking(8), ())
    wanted = population()
    expected = Serial(evaluator.objective).evaluate(wanted, ())[0].values
    np.testing.assert_array_equal(evaluator.evaluate(wanted, ())[0].values, expected)
    evaluator.close()


def written() -> int:
    """Bytes that this process has written so far, to pipes too."""
    with open("/proc/self/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def heavy() -> tuple[Callable[[Array], float], int]:
    """Return a function that holds 20 MB, and their number."""
    table = np.arange(2_500_000.0)

    def f(x: Array) -> float:
        return float(x @ x) + float(table[7])

    return f, table.nbytes


@linux
def test_the_function_travels_once_to_each_worker() -> None:
    f, size = heavy()
    evaluator, other = Joblib(f, workers=2), Joblib(bowl(), workers=2)
    wanted = population()
    expected = Serial(f).evaluate(wanted, ())[0].values
    sent = []
    for generation in range(4):
        before = written()
        np.testing.assert_array_equal(evaluator.evaluate(wanted, ())[0].values, expected)
        sent.append(written() - before)
        if generation == 1:
            other.evaluate(wanted, ())
            other.close()
    assert 2.0 * size < sent[0] < 2.1 * size
    assert max(sent[1:]) < 100_000
    evaluator.close()


@linux
def test_workers_that_miss_the_function_are_sent_it_once() -> None:
    f, size = heavy()
    joblib.register_parallel_backend("fresh", lambda **_: joblib.parallel.LokyBackend())
    evaluator = Joblib(f, workers=2, backend="fresh")
    wanted = population()
    expected = Serial(f).evaluate(wanted, ())[0].values
    sent = []
    for _ in range(4):
        before = written()
        np.testing.assert_array_equal(evaluator.evaluate(wanted, ())[0].values, expected)
        sent.append(written() - before)
    evaluator.close()
    # A worker may be handed the function twice before the other has started.
    assert 2.0 * size < sum(sent) < 6.1 * size
    assert sent[-1] < 100_000


def test_a_numba_function_goes_to_the_workers() -> None:
    wanted = population()
    evaluator = Joblib(numba.njit(bowl()), workers=2)
    values = evaluator.evaluate(wanted, ())[0].values
    evaluator.close()
    np.testing.assert_array_equal(values, Serial(bowl()).evaluate(wanted, ())[0].values)


def test_a_forking_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r'which forks this process.*hangs\. Expected .* Use backend="loky" or'):
        Joblib(bowl(), workers=2, backend="multiprocessing")


def test_an_unknown_backend_is_refused_by_joblib() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        Joblib(bowl(), workers=2, backend="nonsense").evaluate(population(), ())


def test_what_cannot_be_sent_is_explained() -> None:
    lock = threading.Lock()
    evaluator = Joblib(lambda x: float(lock.locked()), workers=2)
    with pytest.raises(TypeError, match=r'cannot be sent to a worker process: .*lock.*or use backend="threading"\.'):
        evaluator.evaluate(population(), ())


def test_what_cannot_be_rebuilt_is_explained() -> None:
    class Strange:
        def __call__(self, x: Array) -> float:
            return 0.0

        def __reduce__(self) -> tuple[Any, ...]:
            return int, ("no number",)

    evaluator = Joblib(Strange(), workers=2)
    with pytest.raises(EvaluationError, match=r"cannot be rebuilt in a worker process: ValueError.*no number"):
        evaluator.evaluate(population(), ())


def test_the_overhead_of_a_generation_is_some_milliseconds(two: Joblib) -> None:
    wanted = population()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        two.evaluate(wanted, ())
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.25
