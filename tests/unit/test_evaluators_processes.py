"""Worker processes of one's own, as programs meet them: scripts, forks, what is left behind, what cannot travel."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from esopt import Antithetic, Joblib, Key, Population, Serial
from esopt.evaluators._tasks import make_recipe, new_token, objective_work, pack_error, pack_objective, unpack_error
from tests.reference.processes import alive, wait_for

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups and signals")


def population(n: int = 4, dim: int = 3, generation: int = 0, mean: float = 0.0, sigma: float = 1.0) -> Population:
    return Population(np.full(dim, mean), sigma, Antithetic().noise(Key(5, generation), n, dim))


PROGRAM = """
import os, pathlib, sys
sys.path.insert(0, pathlib.Path("nowhere"))  # Python passes it over
sys.argv.append("x" * 200_000)  # more than one argument of a command may have
import numpy as np
import esopt

class Broken(Exception):
    pass

def shifted(shift):
    return lambda x: float(((x - shift) ** 2).sum()) + len(sys.argv[-1])

def f(x):
    if x[0] > 1.0:
        raise Broken("above one", x[0])
    print("f was here")
    return float(x @ x)

found = [esopt.minimize(shifted(2.0), np.zeros(3), workers=k, evaluations=60, seed=1).value for k in (2, None)]
print(found[0] == found[1] >= 200_000)
try:
    esopt.minimize(f, np.ones(3), workers=2, seed=1, evaluations=60)
except esopt.EvaluationError as error:
    print(type(error.__cause__) is Broken, "above one" in str(error))
"""


@posix
@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_program_needs_no_guard_and_may_come_from_anywhere(how: str, tmp_path: Path) -> None:
    """Lambdas, closures, classes and exceptions of the main script travel; nothing imports the script again."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "random.py").write_text("raise RuntimeError('this folder is not where modules come from')")
    script = [str(tmp_path / "program.py")] if how == "file" else ["-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    program = subprocess.run(
        [sys.executable, *script],
        input=PROGRAM,
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    said = program.stdout.splitlines()
    assert (program.returncode, program.stderr) == (0, "")
    assert [line for line in said if line.startswith("True") or "False" in line] == ["True", "True True"]
    assert "f was here" in program.stdout


@posix
def test_what_an_evaluation_has_started_ends_with_it(tmp_path: Path) -> None:
    """A simulator that hangs is a process of its own."""
    folder = str(tmp_path)

    def f(x: Any) -> float:
        with subprocess.Popen(["sleep", "3600"]) as simulator:
            open(os.path.join(folder, str(simulator.pid)), "w").close()
        return 0.0

    evaluator = Joblib(f, 2, timeout=0.5, on_error="nan")
    try:
        evals, _ = evaluator.evaluate(population(2), ())
    finally:
        evaluator.close()
    assert evals.failures == {"timeout": 2}
    simulators = [int(name) for name in os.listdir(folder)]
    assert len(simulators) == 2
    assert wait_for(lambda: not any(map(alive, simulators)), 10.0)


@posix
def test_a_child_of_a_worker_does_not_hide_its_death(tmp_path: Path) -> None:
    name = str(tmp_path / "once")

    def f(x: Any) -> float:
        if not os.path.exists(name):
            open(name, "w").close()
            child = os.fork()
            if not child:
                os.setsid()
                time.sleep(3600.0)
            with open(name, "w") as file:
                file.write(str(child))
            os.kill(os.getpid(), signal.SIGKILL)
        return float(x @ x)

    evaluator = Joblib(f, 2)
    watch = threading.Timer(60.0, lambda: os.kill(int(Path(name).read_text()), signal.SIGKILL))
    watch.start()  # if it hangs, it fails, in a minute
    begun = time.monotonic()
    try:
        evals, _ = evaluator.evaluate(population(), ())
        seconds = time.monotonic() - begun
    finally:
        watch.cancel()
        evaluator.close()
        os.kill(int(Path(name).read_text()), signal.SIGKILL)
    assert evals.failures == {"killed": 1}
    assert seconds < 55.0
    np.testing.assert_array_equal(evals.values, Serial(lambda x: float(x @ x)).evaluate(population(), ())[0].values)


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_of_the_program_leaves_its_workers_alone() -> None:
    evaluator = Joblib(lambda x: float(os.getpid()), 2)
    try:
        before, _ = evaluator.evaluate(population(40), ())
        child = os.fork()
        if not child:
            status = 1
            try:
                evaluator.close()  # as at its exit
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        time.sleep(0.2)
        after, _ = evaluator.evaluate(population(40), ())
    finally:
        evaluator.close()
    assert after.failures == {}
    assert set(after.values) <= set(before.values) | {float(process) for process in before.values}
    assert len(set(before.values)) <= 2


@posix
def test_a_busy_worker_does_not_hold_up_the_program() -> None:
    """A recipe that is longer than the socket's buffer waits for its worker beside the others."""
    dim = 300_000

    def f(x: Any) -> float:
        time.sleep(3.0 if x[0] > 0.5 else 0.0)
        return float(x[0])

    evaluator = Joblib(f, 2, chunk=1)
    rows = np.arange(1)
    try:
        evaluator.evaluate(population(2, dim, sigma=1e-9), ())
        slow = evaluator.submit(population(2, dim, 1, mean=1.0, sigma=1e-9), rows)
        begun = time.monotonic()
        for generation in (2, 3, 4):
            evaluator.submit(population(2, dim, generation, sigma=1e-9), rows)
        assert time.monotonic() - begun < 1.5
        first = evaluator.wait()[0][0]
        assert first != slow
    finally:
        evaluator.close()


@posix
def test_a_hung_evaluation_ends_for_those_who_only_look(tmp_path: Path) -> None:
    evaluator, found, end = (
        Joblib(lambda x: time.sleep(3600.0), 2, timeout=0.2, on_error="nan"),
        {},
        time.monotonic() + 60.0,
    )
    evaluator.submit(population(2))
    try:
        while len(found) < 2 and time.monotonic() < end:
            for _, part in evaluator.wait(0.0):
                found.update(dict.fromkeys(part.rows.tolist(), part.evals.failures))
            time.sleep(0.01)
    finally:
        evaluator.close()
    assert found == {0: {"timeout": 1}, 1: {"timeout": 1}}


@posix
def test_workers_do_at_their_exit_what_was_asked_of_them(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def f(x: Any) -> float:
        import atexit

        name = os.path.join(folder, str(os.getpid()))
        if not os.path.exists(name):
            open(name, "w").close()
            atexit.register(lambda: (time.sleep(0.3), os.rename(name, f"{name}.done")))
        return float(x @ x)

    evaluator = Joblib(f, 2)
    evaluator.evaluate(population(40), ())
    evaluator.close()
    left = os.listdir(folder)
    assert left
    assert all(name.endswith(".done") for name in left)


@posix
def test_workers_can_be_ended_from_the_thread_that_reads_their_answers() -> None:
    """The garbage collector runs in any thread."""
    from esopt.evaluators._policy import read_policy
    from esopt.evaluators._tasks import Call, Task
    from esopt.evaluators._worker import Setup
    from esopt.evaluators._workers import Processes

    objective, token, own = Serial(lambda x: float(x @ x)).objective, new_token(), population()
    pool: Any = Processes(1, 1, Setup(objective_work, (token, pack_objective(objective, 1))))
    recipe, done, threads = make_recipe(own, (), read_policy("raise")), threading.Event(), []

    def drop(outcome: Any) -> None:
        nonlocal pool
        threads.append(threading.current_thread().name)
        pool = None
        gc.collect()
        done.set()

    process = pool._processes
    pool.submit(Call(token, b"", None, recipe, Task(0, 4, None, None, None)), drop)
    pid = process[0]._popen.pid
    assert done.wait(60.0)
    assert threads == ["esopt-worker"]
    assert process == []
    assert wait_for(lambda: not alive(pid), 10.0)


class Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError("nothing to say")


@posix
@pytest.mark.parametrize("make", [Serial, lambda f, **how: Joblib(f, 2, **how)], ids=["serial", "processes"])
def test_exceptions_without_words(make: Any) -> None:
    def f(x: Any) -> float:
        if x[0] > 0.0:
            raise Speechless
        return float(x @ x)

    evaluator = make(f, on_error="nan")
    evals, _ = evaluator.evaluate(population(), ())
    evaluator.close()
    assert evals.failures == {"exception": 2}
    evaluator = make(f)
    with pytest.raises(esopt.EvaluationError, match=r"raised Speechless: \(no text: its __str__ raised LookupError\)"):
        evaluator.evaluate(population(), ())
    evaluator.close()


def rebuild(master: int) -> Exception:
    """What a worker can make, and the program cannot."""
    if os.environ.get("ESOPT_TEST_HERE") == str(master):
        raise ModuleNotFoundError("only workers have this one")
    return KeyError("x")


class Elsewhere(Exception):
    def __reduce__(self) -> Any:
        return rebuild, (os.getpid(),)


def test_an_exception_that_cannot_be_rebuilt_here_is_one_of_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_error(Elsewhere("lost"))
    assert isinstance(unpack_error(packed), KeyError)
    monkeypatch.setenv("ESOPT_TEST_HERE", str(os.getpid()))
    error = unpack_error(packed)
    assert (type(error), str(error)) == (RuntimeError, "Elsewhere: lost")
    assert "Elsewhere: lost" in str(error.__cause__)


def test_windows_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for make in (
        lambda: Joblib(abs, 2),
        lambda: Joblib(abs, 1, timeout=1.0),
        lambda: esopt.minimize(lambda x: float(x @ x), np.ones(2), workers=2),
    ):
        with pytest.raises(ValueError, match=r'on Windows.*backend="threading".*Executor'):
            make()
    assert Joblib(abs, 1).workers == Joblib(abs, 1, backend="threading").workers == 1


@posix
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_run_has_the_same_bits_with_any_number_of_workers(backend: str) -> None:
    def f(x: Any) -> float:
        return float(((x[1:] - x[:-1] ** 2) ** 2).sum() + np.cos(x).sum())

    settings: dict[str, Any] = {"strategy": esopt.CMAES(n=10), "evaluations": 300, "seed": 7}
    expected = esopt.minimize(f, np.zeros(5), **settings)
    for workers in (1, 2, 3, 5):
        evaluator = Joblib(f, workers, backend=backend)
        found = esopt.minimize(None, np.zeros(5), evaluator=evaluator, **settings)
        np.testing.assert_array_equal(found.x, expected.x)
        assert (found.value, found.evaluations, found.failures) == (expected.value, expected.evaluations, {})
