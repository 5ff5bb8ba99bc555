"""Joblib on Dask and Ray, on clusters of processes of this machine: bits, bytes, deaths, hangs and errors."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Antithetic, EvaluationError, Joblib, Key, Objective, Population, Serial
from esopt.noise import Array

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")


@contextmanager
def dask_cluster(workers: int = 2, threads: int = 1) -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=workers, threads_per_worker=threads, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def ray_cluster(workers: int = 2) -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=workers, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="module", params=["dask", "ray"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with dask_cluster() if request.param == "dask" else ray_cluster():
        yield request.param


def population(n: int = 24, dim: int = 5, generation: int = 4, scale: Any = 0.5) -> Population:
    extra = np.linspace(0.0, 0.4, dim).reshape(1, dim)
    return Population(np.full(dim, 0.25), scale, Antithetic().noise(Key(7, generation), n, dim), extra)


def bowl(folder: Path | None = None, seconds: float = 0.0, sick: str = "") -> Callable[..., Any]:
    """Return f(x, seed) that a worker can rebuild without this file, and that says there who evaluates.

    ``sick`` says what happens to the first candidate that finds no file of that name: "hang", or "die".
    """
    place = None if folder is None else str(folder)

    def f(x: Array, seed: int) -> Any:
        import os
        import time

        time.sleep(seconds)
        if place is not None:
            open(os.path.join(place, f"{os.getpid()}.pid"), "w").close()
        if sick and x[0] > 0.6:
            try:
                os.close(os.open(os.path.join(str(place), sick), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                if sick == "die":
                    os._exit(3)
                time.sleep(20.0)
        if x[0] > 50.0:
            raise ZeroDivisionError("division by zero")
        return float(x @ x) + 1e-6 * seed

    return f


class Rebuilt:
    """A function that leaves a file wherever it is rebuilt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        folder = str(self.folder)

        def rebuild() -> Callable[[Array], float]:
            import os
            import tempfile

            handle, _ = tempfile.mkstemp(prefix=f"{os.getpid()}-", dir=folder)
            os.close(handle)
            return lambda x: float(x.sum())

        return rebuild, ()

    def __call__(self, x: Array) -> float:
        return float(x.sum())


@contextmanager
def opened(*arguments: Any, **settings: Any) -> Iterator[Joblib]:
    evaluator = Joblib(*arguments, **settings)
    try:
        yield evaluator
    finally:
        evaluator.close()


@pytest.mark.slow
def test_any_number_of_workers_gives_the_bits_of_serial(backend: str) -> None:
    objective = Objective(bowl(), seeded=True)
    generations = [population(22, 33, generation) for generation in range(2)]
    expected = [Serial(objective).evaluate(each, ())[0].values for each in generations]
    for workers in (1, 2, 3, 5):
        with opened(objective, workers=workers, backend=backend) as evaluator:
            for each, values in zip(generations, expected, strict=True):
                np.testing.assert_array_equal(evaluator.evaluate(each, ())[0].values, values)


def test_a_run_ends_in_the_same_bits(backend: str) -> None:
    def f(x: Array) -> float:
        return float((x**2).sum())

    alone = esopt.minimize(f, np.ones(4), evaluations=200, seed=3)
    with opened(f, workers=2, backend=backend) as evaluator:
        result = esopt.minimize(None, np.ones(4), evaluator=evaluator, evaluations=200, seed=3)
    assert (result.x.tobytes(), result.value) == (alone.x.tobytes(), alone.value)


@pytest.mark.slow
def test_the_function_travels_once_to_each_worker(backend: str, tmp_path: Path) -> None:
    with opened(Rebuilt(tmp_path), workers=2, backend=backend) as evaluator:
        before = len(list(tmp_path.iterdir()))  # making the bytes may rebuild it here
        for generation in range(3):
            evaluator.evaluate(population(generation=generation), ())
        rebuilt = [path.name.split("-")[0] for path in tmp_path.iterdir()]
    rebuilt = [pid for pid in rebuilt if pid != str(os.getpid())]
    assert before == 0
    assert 1 <= len(rebuilt) == len(set(rebuilt)) <= 2


def sent_and_received(backend: str, wanted: Callable[[int], Population], seeded: bool = False) -> tuple[float, float]:
    """Return the bytes to and from the busiest of two workers, per generation."""
    objective = Objective(lambda x, seed: 1.0, seeded=True) if seeded else Objective(lambda x: 1.0)
    with opened(objective, workers=2, backend=backend) as evaluator:
        evaluator.evaluate(wanted(0), ())
        before = dict(enumerate(evaluator._live.streams._pool.traffic()))  # type: ignore[union-attr]
        for generation in range(1, 6):
            evaluator.evaluate(wanted(generation), ())
        after = evaluator._live.streams._pool.traffic()  # type: ignore[union-attr]
    each = [(sent - before[at][0], received - before[at][1]) for at, (sent, received) in enumerate(after)]
    return max(sent for sent, _ in each) / 5.0, max(received for _, received in each) / 5.0


@pytest.mark.slow
def test_what_travels_is_one_recipe_per_worker_and_the_values(backend: str) -> None:
    def sized(n: int, dim: int, scale: Any = 0.5) -> Callable[[int], Population]:
        return lambda generation: Population(np.zeros(dim), scale, Antithetic().noise(Key(1, generation), n, dim))

    small, wide = (sent_and_received(backend, sized(64, dim)) for dim in (10, 10_010))
    # One mean of 8 bytes per coordinate: half of that, or twice, or a row of candidates fails.
    assert wide[0] - small[0] == pytest.approx(80_000, abs=2000)
    assert wide[1] == pytest.approx(small[1], abs=1500)
    many = sent_and_received(backend, sized(6400, 10_010))
    # 6,336 rows more are 8 bytes each on the way back, of which one worker has anything up to all; none on the way out.
    assert many[0] - wide[0] == pytest.approx(0.0, abs=2000)
    assert 0.0 < many[1] - wide[1] < 8 * 6336 + 1500
    full = sent_and_received(backend, sized(64, 100, np.eye(100)))
    # The factor of a CMA-ES: 8 d^2 once.
    assert full[0] - small[0] == pytest.approx(80_000 + 720, abs=2000)


@pytest.mark.slow
def test_dask_itself_sends_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes that the process of client and scheduler writes, counted where Dask writes them."""
    pytest.importorskip("distributed")
    from distributed.comm import tcp

    written: list[int] = []
    write = tcp.TCP.write

    async def counting(self: Any, *arguments: Any, **settings: Any) -> Any:
        count = await write(self, *arguments, **settings)
        written.append(count)
        return count

    monkeypatch.setattr(tcp.TCP, "write", counting)
    totals = {}
    with dask_cluster():
        for n, dim in ((64, 10), (64, 100_010), (640, 100_010)):
            with opened(lambda x: 1.0, workers=2, backend="dask") as evaluator:
                evaluator.evaluate(population(n, dim, 0), ())
                before = sum(written)
                for generation in range(1, 4):
                    evaluator.evaluate(population(n, dim, generation), ())
                totals[n, dim] = (sum(written) - before) / 3.0
    # The mean to two workers and the explicit row to one, over the scheduler: 6 x 8 d bytes, less if a worker is idle.
    recipe = 8 * 100_000
    assert 4 * recipe * 0.9 < totals[64, 100_010] - totals[64, 10] < 6 * recipe * 1.1
    assert abs(totals[640, 100_010] - totals[64, 100_010]) < 2 * recipe * 1.1


@pytest.mark.slow
def test_an_exception_names_the_candidate(backend: str) -> None:
    wanted = population(8)
    wanted = Population(wanted.mean + 100.0, wanted.scale, wanted.noise)
    with opened(Objective(bowl(), seeded=True), workers=2, backend=backend) as evaluator:
        with pytest.raises(EvaluationError, match=r"candidate 0 of generation 4 .*ZeroDivisionError") as caught:
            evaluator.evaluate(wanted, ())
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert evaluator.evaluate(population(), ())[0].failures == {}


@pytest.mark.slow
def test_what_a_worker_cannot_rebuild_is_an_error(backend: str) -> None:
    class Lost:
        def __reduce__(self) -> tuple[Any, ...]:
            def rebuild() -> Any:
                import no_such_module

                return no_such_module.f

            return rebuild, ()

        def __call__(self, x: Array) -> float:
            return 0.0

    with (
        opened(Lost(), workers=2, backend=backend) as evaluator,
        pytest.raises(EvaluationError, match=r"cannot be rebuilt in a worker process.*no_such_module"),
    ):
        evaluator.evaluate(population(), ())


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["retry(1)", "nan"])
def test_a_hung_task_is_given_up_and_nothing_else_is_lost(backend: str, on_error: str, tmp_path: Path) -> None:
    objective = Objective(bowl(tmp_path, sick="hang"), seeded=True)
    wanted = population()
    expected = Serial(Objective(bowl(), seeded=True)).evaluate(wanted, ())[0].values
    with opened(objective, workers=2, backend=backend, timeout=4.0, on_error=on_error) as evaluator:
        evals, _ = evaluator.evaluate(wanted, ())
    lost = np.flatnonzero(np.isnan(evals.values))
    if on_error == "nan":
        assert (len(lost), evals.failures) == (1, {"timeout": 1})
        kept = np.delete(np.arange(25), lost)
        np.testing.assert_array_equal(evals.values[kept], expected[kept])
    else:
        assert evals.failures == {"retried": 1}
        np.testing.assert_array_equal(evals.values, expected)


@pytest.mark.slow
def test_a_row_that_ends_its_worker_once_is_evaluated_again(backend: str, tmp_path: Path) -> None:
    wanted = population()
    expected = Serial(Objective(bowl(), seeded=True)).evaluate(wanted, ())[0].values
    with opened(Objective(bowl(tmp_path, sick="die"), seeded=True), workers=2, backend=backend) as evaluator:
        evals, _ = evaluator.evaluate(wanted, ())
        assert evals.failures == {"killed": 1}
        np.testing.assert_array_equal(evals.values, expected)


@pytest.mark.slow
def test_random_kills_during_a_hundred_generations_change_no_bit(backend: str, tmp_path: Path) -> None:
    objective = Objective(bowl(tmp_path, seconds=0.005), seeded=True)
    draw, stop, kills = np.random.default_rng(5), threading.Event(), 0

    def killing() -> None:
        nonlocal kills
        while not stop.wait(float(draw.uniform(1.0, 2.5))):
            victims = sorted(tmp_path.glob("*.pid"))
            if len(victims) > 1:  # one of them lives on: a nanny of Dask takes seconds to start another
                victim = victims[int(draw.integers(len(victims)))]
                victim.unlink()
                os.kill(int(victim.stem), signal.SIGKILL)
                time.sleep(0.1)
                victim.unlink(missing_ok=True)  # it was evaluating
                kills += 1

    counted = 0
    thread = threading.Thread(target=killing)
    # A row that two kills meet would fail: retry(9) lets it be met nine times.
    with opened(objective, workers=2, backend=backend, on_error="retry(9)") as evaluator:
        evaluator.evaluate(population(), ())
        thread.start()
        try:
            for generation in range(300):
                if generation >= 100 and kills >= 4:
                    break
                wanted = population(20, 5, generation)
                evals, _ = evaluator.evaluate(wanted, ())
                counted += evals.failures.get("killed", 0)
                assert set(evals.failures) <= {"killed"}
                expected = Serial(Objective(bowl(), seeded=True)).evaluate(wanted, ())[0].values
                np.testing.assert_array_equal(evals.values, expected)
        finally:
            stop.set()
            thread.join()
        time.sleep(2.0)
        counted += evaluator.evaluate(population(), ())[0].failures.get("killed", 0)
    assert counted == kills >= 4


@pytest.mark.slow
def test_two_threads_of_a_dask_worker_share_a_death(tmp_path: Path) -> None:
    wanted = population()
    expected = Serial(Objective(bowl(), seeded=True)).evaluate(wanted, ())[0].values
    sick = Objective(bowl(tmp_path, seconds=0.02, sick="die"), seeded=True)
    with dask_cluster(1, 2), opened(sick, workers=2, backend="dask") as evaluator:
        evals, _ = evaluator.evaluate(wanted, ())
        np.testing.assert_array_equal(evals.values, expected)
        assert evals.failures == {"killed": 1}


@pytest.mark.slow
def test_a_dask_cluster_that_hangs_as_a_whole_is_restarted(tmp_path: Path) -> None:
    wanted = population()
    expected = Serial(Objective(bowl(), seeded=True)).evaluate(wanted, ())[0].values
    sick = Objective(bowl(tmp_path, sick="hang"), seeded=True)
    with dask_cluster(1), opened(sick, workers=1, backend="dask", timeout=4.0, on_error="retry(1)") as evaluator:
        evals, _ = evaluator.evaluate(wanted, ())
        np.testing.assert_array_equal(evals.values, expected)
        assert evals.failures == {"retried": 1}
