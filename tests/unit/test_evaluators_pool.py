"""Workers that are killed, hang or go away; streams of parts; and what is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Antithetic, EvaluationError, Executor, Joblib, Key, Objective, Population, Serial
from tests.reference.processes import alive, wait_for

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, sends signals")


def population(n: int = 24, dim: int = 3, generation: int = 0, k: int = 1) -> Population:
    extra = np.linspace(0.0, 0.4, k * dim).reshape(k, dim) if k else None
    return Population(np.zeros(dim), 1.0, Antithetic().noise(Key(5, generation), n, dim), extra)


def troubled(folder: str, trouble: str, rows: list[float], times: int = 1) -> Callable[[Any], float]:
    """Return a function that gets into trouble ``times`` times at each x whose first coordinate is in ``rows``."""

    def f(x: Any) -> float:
        import os
        import signal
        import time

        if float(x[0]) in rows:
            name = os.path.join(folder, f"{x[0]!r}")
            with open(name, "ab", 0) as file:
                file.write(b".")
            if os.path.getsize(name) <= times:
                if trouble == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                elif trouble == "exits":
                    os._exit(0)
                elif trouble == "raises":
                    raise ArithmeticError
                elif trouble == "stops":
                    os.kill(os.getpid(), signal.SIGSTOP)
                else:
                    time.sleep(3600.0)
        return float(x @ x)

    return f


def children() -> set[int]:
    """Processes whose parent is this one, zombies too."""
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        main = {int(pid) for pid in file.read().split()}
    for task in os.listdir(f"/proc/{os.getpid()}/task"):
        try:
            with open(f"/proc/{os.getpid()}/task/{task}/children") as file:
                main |= {int(pid) for pid in file.read().split()}
        except FileNotFoundError:
            pass
    return main


@pytest.fixture
def clean() -> Iterator[None]:
    """Nothing is left: processes, threads, open files, shared memory and temporary files."""

    def left() -> tuple[Any, ...]:
        threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("esopt")}
        return children(), threads, len(os.listdir("/proc/self/fd"))

    before, shared = left(), {name for name in os.listdir("/dev/shm") if str(os.getpid()) in name}
    yield
    assert wait_for(lambda: left() == before, 20.0), (left(), before)
    assert {name for name in os.listdir("/dev/shm") if str(os.getpid()) in name} == shared


def put_together(parts: Any, count: int) -> np.ndarray:
    values = np.full(count, np.nan)
    for part in parts:
        assert np.isnan(values[part.rows]).all()
        values[part.rows] = part.evals.values
    return values


@pytest.mark.parametrize("backend", ["loky", "threading", "one"])
def test_a_stream_has_all_rows_once_with_the_bits_of_evaluate(backend: str, clean: None) -> None:
    made = population(k=3).needing("grads")
    objective = Objective(lambda x: float(x @ x), lambda x: 2.0 * x)
    expected = Serial(objective).evaluate(made, ())[0]
    evaluator = Joblib(objective, 1) if backend == "one" else Joblib(objective, 2, backend)
    with evaluator.stream(made, ()) as stream:
        parts = list(stream)
    assert all((np.diff(part.rows) == 1).all() for part in parts)
    assert all((part.rows < 24).all() or (part.rows >= 24).all() for part in parts)
    assert len(parts) >= 4
    np.testing.assert_array_equal(put_together(parts, 27), expected.values)
    for part in parts:
        np.testing.assert_array_equal(part.evals.grads, expected.grads[part.rows])
    rows = np.array([20, 3, 4, 5, 23, 24, 26])
    parts = list(evaluator.stream(made, (), rows))
    assert sorted(int(row) for part in parts for row in part.rows) == sorted(rows)
    for part in parts:
        np.testing.assert_array_equal(part.evals.values, expected.values[part.rows])
    assert list(evaluator.stream(made, (), np.array([], int))) == []
    for bad in ([0, 0], [27], [-1]):
        with pytest.raises(ValueError, match="rows must be different rows of a population of 27"):
            evaluator.stream(made, (), np.array(bad))
    evaluator.close()


def test_parts_come_as_soon_as_they_are_there_and_a_stream_can_be_given_up(clean: None) -> None:
    made, gate = population(n=8, k=0), threading.Event()
    slow = float(made[0][0])

    def f(x: Any) -> float:
        if float(x[0]) == slow:
            gate.wait(60.0)
        return float(x @ x)

    evaluator = Joblib(f, 2, "threading", chunk=2)
    stream = evaluator.stream(made, ())
    parts = iter(stream)
    early = [next(parts) for _ in range(3)]
    assert {int(row) for part in early for row in part.rows} == {2, 3, 4, 5, 6, 7}
    stream.close()
    assert list(parts) == []
    gate.set()
    again = evaluator.evaluate(population(generation=1), ())[0]
    np.testing.assert_array_equal(again.values, Serial(f).evaluate(population(generation=1), ())[0].values)
    evaluator.close()


@pytest.mark.parametrize("backend", ["loky", "threading", "one"])
def test_several_populations_at_a_time(backend: str, clean: None) -> None:
    def f(x: Any) -> float:
        return float(x @ x)

    evaluator = Joblib(f, 1) if backend == "one" else Joblib(f, 2, backend)
    made = [population(generation=g) for g in range(4)]
    tickets = {evaluator.submit(one): one for one in made[:3]}
    found = {ticket: np.full(25, np.nan) for ticket in tickets}
    while any(np.isnan(values).any() for values in found.values()):
        for ticket, part in evaluator.wait(30.0):
            found[ticket][part.rows] = part.evals.values
            if len(tickets) < 4:
                last = evaluator.submit(made[3])
                tickets[last], found[last] = made[3], np.full(25, np.nan)
    for ticket, one in tickets.items():
        np.testing.assert_array_equal(found[ticket], Serial(f).evaluate(one, ())[0].values)
    begun = time.monotonic()
    assert evaluator.wait(30.0) == []
    assert time.monotonic() - begun < 5.0
    evaluator.close()


def test_waiting_ends_after_some_seconds(clean: None) -> None:
    gate = threading.Event()
    evaluator = Joblib(lambda x: float(gate.wait(60.0)), 2, "threading")
    evaluator.submit(population(n=4, k=0))
    begun = time.monotonic()
    assert evaluator.wait(0.2) == []
    assert 0.15 < time.monotonic() - begun < 10.0
    gate.set()
    evaluator.close()


@pytest.mark.parametrize("trouble", ["dies", "exits"])
def test_a_worker_that_dies_loses_nothing(trouble: str, tmp_path: Path, clean: None) -> None:
    made = population()
    rows = [float(made[i][0]) for i in (1, 17)]
    f = troubled(str(tmp_path), trouble, rows)
    evaluator = Joblib(f, 2, chunk=6)
    evals = evaluator.evaluate(made, ())[0]
    np.testing.assert_array_equal(evals.values, Serial(lambda x: float(x @ x)).evaluate(made, ())[0].values)
    # Each of the two kills one process, whichever task it was in.
    assert evals.failures == {"killed": 2}
    again = evaluator.evaluate(made, ())[0]
    evaluator.close()
    assert again.failures == {}


def test_a_candidate_that_kills_its_worker_twice_has_died(tmp_path: Path, clean: None) -> None:
    made = population()
    row = [float(made[9][0])]
    f = troubled(str(tmp_path), "dies", row, times=100)
    expected = Serial(lambda x: float(x @ x)).evaluate(made, ())[0].values
    lenient = Joblib(f, 2, on_error="nan", chunk=6)
    evals = lenient.evaluate(made, ())[0]
    lenient.close()
    # Once among its six rows, once alone, and once more.
    assert evals.failures == {"killed": 2, "died": 1}
    assert np.flatnonzero(np.isnan(evals.values)).tolist() == [9]
    good = ~np.isnan(evals.values)
    np.testing.assert_array_equal(evals.values[good], expected[good])
    strict = Joblib(f, 2)
    message = r"candidate 9 of generation 0 killed its worker process, 2 times(?s:.)*f\(population\[9\]\)"
    with pytest.raises(EvaluationError, match=message) as caught:
        strict.evaluate(made, ())
    np.testing.assert_array_equal(caught.value.x, made[9])
    strict.close()


@pytest.mark.parametrize("trouble", ["hangs", "stops"])
def test_evaluations_that_hang_are_killed_alone(trouble: str, tmp_path: Path, clean: None) -> None:
    made = population()
    rows = [float(made[i][0]) for i in (3, 4)]
    expected = Serial(lambda x: float(x @ x)).evaluate(made, ())[0].values
    f = troubled(str(tmp_path / "a"), trouble, rows, times=100)
    (tmp_path / "a").mkdir()
    evaluator = Joblib(f, 2, on_error="nan", timeout=1.0)
    evals = evaluator.evaluate(made, ())[0]
    assert np.flatnonzero(np.isnan(evals.values)).tolist() == [3, 4]
    assert evals.failures == {"timeout": 2}
    good = ~np.isnan(evals.values)
    np.testing.assert_array_equal(evals.values[good], expected[good])
    evaluator.close()
    # Each was tried once.
    assert sorted(path.stat().st_size for path in (tmp_path / "a").iterdir()) == [1, 1]


def test_evaluations_that_hang_once_are_evaluated_again(tmp_path: Path, clean: None) -> None:
    made = population()
    rows = [float(made[i][0]) for i in (3, 4)]
    evaluator = Joblib(troubled(str(tmp_path), "hangs", rows), 2, on_error="retry(1)", timeout=1.0)
    evals = evaluator.evaluate(made, ())[0]
    evaluator.close()
    np.testing.assert_array_equal(evals.values, Serial(lambda x: float(x @ x)).evaluate(made, ())[0].values)
    assert evals.failures == {"retried": 2}


def test_a_timeout_names_the_candidate(tmp_path: Path, clean: None) -> None:
    made = population()
    f = troubled(str(tmp_path), "hangs", [float(made[7][0])], times=100)
    evaluator = Joblib(f, 1, timeout=0.5)
    with pytest.raises(EvaluationError, match=r"candidate 7 of generation 0 took more than 0.5 seconds and was ended"):
        evaluator.evaluate(made, ())
    evaluator.close()


def test_a_part_that_was_found_before_a_fault_is_not_lost(tmp_path: Path, clean: None) -> None:
    made = population(n=12, k=0)
    f = troubled(str(tmp_path), "raises", [float(made[7][0])], times=100)
    evaluator = Joblib(f, 2, "threading", chunk=4)
    stream, found = evaluator.stream(made, ()), []
    with pytest.raises(EvaluationError, match="candidate 7 of generation 0 raised ArithmeticError"):
        found.extend(row for part in stream for row in part.rows.tolist())
    assert set(range(7)) <= set(found)
    assert 7 not in found
    evaluator.close()


@pytest.mark.parametrize(("generations", "kills"), [(12, 5), pytest.param(100, 40, marks=pytest.mark.slow)])
def test_workers_that_are_killed_at_random_change_no_bit(
    generations: int, kills: int, tmp_path: Path, clean: None
) -> None:
    folder = str(tmp_path)

    def f(x: Any) -> float:
        import os
        import time

        open(os.path.join(folder, str(os.getpid())), "w").close()
        time.sleep(0.002)
        return float(((x - 1.0) ** 2).sum())

    def run(evaluator: Any, generations: int, between: Callable[[], None]) -> Any:
        es = esopt.Optimizer(esopt.CMAES(n=8), np.zeros(3), 2)
        counts: dict[str, int] = {}
        for _ in range(generations):
            evals, _ = evaluator.evaluate(es.population(), ())
            es.learn(evals, ())
            for kind, times in evals.failures.items():
                counts[kind] = counts.get(kind, 0) + times
            between()
        # What was killed at the end is noticed in the next generation.
        evals, _ = evaluator.evaluate(es.population(), ())
        for kind, times in evals.failures.items():
            counts[kind] = counts.get(kind, 0) + times
        return es, counts

    expected, none = run(Serial(f), generations, lambda: None)
    assert none == {}
    os.remove(tmp_path / str(os.getpid()))
    evaluator, killed, stop = Joblib(f, 2, on_error="retry(9)"), 0, threading.Event()

    def killer() -> None:
        nonlocal killed
        chance = np.random.default_rng(1)
        while killed < kills and not stop.wait(chance.random() * 0.02):
            working = [name for name in sorted(os.listdir(folder)) if alive(int(name))]
            if working:
                pid = int(chance.choice(working))
                os.kill(pid, signal.SIGKILL)
                os.remove(os.path.join(folder, str(pid)))
                killed += 1
                wait_for(lambda pid=pid: not alive(pid))

    def between() -> None:
        time.sleep(0.005)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        es, counts = run(evaluator, generations, between)
        stop.set()
        thread.join()
        evals, _ = evaluator.evaluate(es.population(), ())
        for kind, times in evals.failures.items():
            counts[kind] = counts.get(kind, 0) + times
    finally:
        stop.set()
        evaluator.close()
    np.testing.assert_array_equal(es.mean, expected.mean)
    assert killed > kills // 4
    assert counts == {"killed": killed}


SCRIPT = """
import os, signal, sys, time
import numpy as np
import esopt

def f(x):
    {body}
    return float(x @ x)

def children():
    return open(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children").read().split()

evaluator = esopt.Joblib(f, 2{settings})
population = esopt.Population(np.zeros(3), 1.0, esopt.Gaussian().noise(esopt.Key(1), 8, 3))
{before}
print(*children(), flush=True)
{after}
"""


def script(body: str = "pass", settings: str = "", before: str = "", after: str = "") -> subprocess.Popen[str]:
    """Start a program that prints the pids of its workers in a line."""
    text = textwrap.dedent(SCRIPT).format(body=body, settings=settings, before=before, after=after)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", text], stdout=pipe, stderr=pipe, text=True, env=environment)


def ended(program: subprocess.Popen[str], pids: list[int]) -> tuple[str, str]:
    """Wait for a program and its workers."""
    assert len(pids) == 2
    said = program.communicate(timeout=90)
    assert wait_for(lambda: not any(map(alive, pids)), 30.0)
    return said


EVALUATE = "evaluator.evaluate(population, ())"


def test_workers_end_with_a_program_that_never_closes_them() -> None:
    program = script(before=EVALUATE)
    pids = [int(pid) for pid in program.stdout.readline().split()]
    out, err = ended(program, pids)
    assert (program.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_workers_end_by_themselves_when_the_program_is_killed(busy: bool) -> None:
    body = "time.sleep(0.0 if population is None else 3600.0)" if busy else "pass"
    submit = "evaluator.submit(population); time.sleep(1.0)" if busy else EVALUATE
    program = script(body.replace("population is None", "False"), before=submit, after="time.sleep(3600.0)")
    pids = [int(pid) for pid in program.stdout.readline().split()]
    shared = set(os.listdir("/dev/shm"))
    program.kill()
    out, err = ended(program, pids)
    assert (out, err) == ("", "")
    assert not {name for name in set(os.listdir("/dev/shm")) - shared if str(program.pid) in name}


def test_ctrl_c_ends_the_workers_and_nothing_else_is_said() -> None:
    begin = """
import threading

def tell():
    while len(children()) < 2:
        time.sleep(0.05)
    time.sleep(1.0)
    print(*children(), flush=True)

threading.Thread(target=tell).start()"""
    program = script(
        "time.sleep(0.05)", before=f"{begin}\nresult = esopt.minimize(f, [1.0] * 3, workers=2, seconds=3600)"
    )
    pids = [int(pid) for pid in program.stdout.readline().split()]
    program.send_signal(signal.SIGINT)
    out, err = ended(program, pids)
    assert (program.returncode, out.strip(), err) == (0, "", "")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_and_their_threads_are_no_more_than_the_cores(workers: int, clean: None) -> None:
    def f(x: Any) -> float:
        import os

        import numba
        from threadpoolctl import threadpool_info

        np.ones((8, 8)) @ np.ones((8, 8))
        most = max([info["num_threads"] for info in threadpool_info()] + [numba.get_num_threads()])
        return float(max(most, int(os.environ["OMP_NUM_THREADS"])))

    from joblib import cpu_count

    evaluator = Joblib(f, workers, timeout=60.0)
    threads = set(evaluator.evaluate(population(n=4, k=0), ())[0].values)
    evaluator.close()
    assert threads == {float(max(1, cpu_count() // workers))}


def test_parallel_functions_are_refused_in_threads_where_the_program_would_end() -> None:
    text = """
        import numba, numpy as np, esopt

        @numba.njit(parallel=True)
        def f(x):
            total = 0.0
            for i in numba.prange(x.size):
                total += x[i]
            return total

        population = esopt.Population(np.zeros(3), 1.0, esopt.Gaussian().noise(esopt.Key(1), 8, 3))
        for _ in range(2):
            try:
                esopt.Joblib(f, 2, "threading").evaluate(population, ())
            except ValueError as error:
                print(error)
            f(np.ones(3))
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_THREADING_LAYER": "workqueue"}
    command = [sys.executable, "-c", textwrap.dedent(text)]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert said.returncode == 0
    assert said.stdout.count("threading layer 'workqueue': that ends the program when two threads enter it") == 2


def test_forking_executors_are_refused() -> None:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(ValueError, match=r"that forks this process; .*get_context\(\"spawn\"\)"):
            Executor(lambda x: 0.0, pool)
    with pytest.raises(TypeError, match=r"executor must have submit\(function\), got int"):
        Executor(lambda x: 0.0, 3)


def test_an_executor_of_processes() -> None:
    made = population(k=2)
    f = Objective(lambda x: float(x @ x))
    expected = Serial(f).evaluate(made, ())[0].values
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        evaluator = Executor(f, pool)
        for _ in range(2):
            np.testing.assert_array_equal(evaluator.evaluate(made, ())[0].values, expected)
        np.testing.assert_array_equal(put_together(evaluator.stream(made, ()), 26), expected)
        evaluator.close()
        assert pool.submit(os.getpid).result() != os.getpid()  # it is left open
        broken = Executor(lambda x: os._exit(1), pool)
        with pytest.raises(EvaluationError, match=r"the executor lost a worker .*(?s:.)*Use Joblib\(f, workers"):
            broken.evaluate(made, ())


class Slow:
    """An executor whose threads look like processes: tasks that hang cannot be ended."""

    def __init__(self) -> None:
        self.submit = ThreadPoolExecutor(2).submit


GATE = threading.Event()


def stuck(x: Any) -> float:
    """Hang where x_0 is large, until the gate opens."""
    return float(GATE.wait(100.0)) if x[0] > 0.5 else float(x @ x)


def test_an_executor_gives_up_what_hangs_and_does_not_use_its_worker() -> None:
    made = population(n=10, k=0)
    large = np.flatnonzero(np.asarray(made)[:, 0] > 0.5)
    assert len(large) == 1
    evaluator = Executor(stuck, Slow(), workers=2, on_error="nan", timeout=1.0)
    evals = evaluator.evaluate(made, ())[0]
    assert evals.failures == {"timeout": 1}
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(evals.values)), large)
    again = Executor(stuck, Slow(), workers=2, on_error="retry(5)", timeout=0.2)
    with pytest.raises(EvaluationError, match="all 2 workers hang"):
        again.evaluate(made, ())
    GATE.set()
