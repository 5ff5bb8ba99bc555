"""Signals: a run with a checkpoint is saved first, and then the signal has the effect that it always had."""

from __future__ import annotations

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
from esopt._signals import Signals, Terminated

ROOT = Path(__file__).parents[2]
X0 = np.array([1.0, -2.0, 0.5])
SETTINGS: dict[str, Any] = {"strategy": esopt.CMAES(), "seed": 3, "generations": 30}
HANDLED = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


def bowl(x: Any) -> float:
    return float((x**2).sum())


class Sends:
    """Sends this process a signal in its call number ``at``."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number, self.calls = at, number, 0

    def __call__(self, x: Any) -> float:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), self.number)
        return bowl(x)


Sends.__qualname__ = "bowl"  # checkpoints compare objectives by name


@pytest.fixture
def told():
    """Signals that reach a handler of the caller's own."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda n, frame: received.append(n)) for number in HANDLED[:2]}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


SCRIPT = """
import os, signal, sys, time
import numpy as np
import esopt

def bowl(x):
    time.sleep(0.002)
    return float((x**2).sum())

def begun(step):
    if step.generation == 3:
        print(os.getpid(), flush=True)

settings = dict(strategy=esopt.CMAES(), seed=3, generations=100000, checkpoint=sys.argv[1])
workers = {"workers": 2} if sys.argv[2] == "workers" else {}
result = esopt.minimize(bowl, np.array([1.0, -2.0, 0.5]), callback=begun, **settings, **workers)
print("went on after", dict(result.reason), flush=True)
"""


@pytest.mark.parametrize("workers", ["alone", pytest.param("workers", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_the_process_ends_as_its_killer_expects_and_the_run_is_saved(tmp_path, name: str, workers: str):
    if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        pytest.skip("ignored by whoever started the tests, as under nohup, and so by the run")
    script, path = tmp_path / "script.py", tmp_path / "run.npz"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(path), workers]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as run:
        run.stdout.readline()
        run.send_signal(getattr(signal, name))
        out, errors = run.communicate(timeout=60)

    if name == "SIGINT":
        assert (run.returncode, out[:14]) == (0, "went on after ")
        assert "'interrupted'" in out
    else:
        assert (run.returncode, out) == (-getattr(signal, name), "")
        assert f"{name}: the run is being saved, and ends." in errors
    es = esopt.Optimizer(esopt.CMAES(), X0, seed=3)
    es.load(path)
    assert es.generation >= 3
    deadline = time.monotonic() + 20.0
    while alive(run.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(run.pid) == []


def alive(session: int) -> list[int]:
    """Processes of a session that are more than zombies, as the operating system says."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found += [int(name)] if int(fields[3]) == session and fields[0] != "Z" else []
    return found


@pytest.mark.parametrize("at", [2, 30, 100])
def test_a_handler_of_ones_own_runs_after_the_run_was_saved(tmp_path, told: list[int], at: int):
    path, f = tmp_path / "run.npz", Sends(at, signal.SIGTERM)
    per = len(esopt.Optimizer(esopt.CMAES(), X0).ask())
    result = esopt.minimize(f, X0, checkpoint=path, **SETTINGS)

    generation = (at - 1) // per
    assert told == [signal.SIGTERM]
    assert result.reason == {"terminated": float(generation)}
    assert "a signal asked the process to end" in result.message
    assert f.calls == at
    assert path.exists() == (generation > 0)
    resumed = esopt.minimize(Sends(-1, 0), X0, checkpoint=path, **SETTINGS)
    alone = esopt.minimize(bowl, X0, **SETTINGS)
    assert (resumed.x.tobytes(), resumed.evaluations) == (alone.x.tobytes(), alone.evaluations)


@pytest.mark.parametrize("number", HANDLED)
def test_handlers_are_those_of_before(tmp_path, number: int):
    before = [signal.getsignal(handled) for handled in HANDLED]
    during = []

    def callback(step: esopt.Step) -> None:
        during.append([signal.getsignal(handled) for handled in HANDLED])

    esopt.minimize(bowl, X0, callback=callback, **SETTINGS)
    assert all(handlers == before for handlers in during)  # nothing to save: nothing is touched
    during.clear()
    esopt.minimize(bowl, X0, callback=callback, checkpoint=tmp_path / "run.npz", **SETTINGS)
    assert during[0] != before
    assert [signal.getsignal(handled) for handled in HANDLED] == before


def test_handlers_are_those_of_before_after_an_error(tmp_path):
    before = [signal.getsignal(handled) for handled in HANDLED]
    with pytest.raises(esopt.EvaluationError):
        esopt.minimize(lambda x: 1 / 0, X0, checkpoint=tmp_path / "run.npz")
    (tmp_path / "run.npz").write_bytes(b"nothing")
    with pytest.raises(esopt.CheckpointError):
        esopt.minimize(bowl, X0, checkpoint=tmp_path / "run.npz")
    assert [signal.getsignal(handled) for handled in HANDLED] == before


def test_a_handler_that_was_put_there_meanwhile_stays(tmp_path, told: list[int]):
    mine: list[int] = []

    def callback(step: esopt.Step) -> None:
        signal.signal(signal.SIGTERM, own)

    def own(number: int, frame: Any) -> None:
        mine.append(number)

    esopt.minimize(bowl, X0, callback=callback, checkpoint=tmp_path / "run.npz", **SETTINGS)
    assert signal.getsignal(signal.SIGTERM) is own


def test_what_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = esopt.minimize(Sends(50, signal.SIGHUP), X0, checkpoint=tmp_path / "run.npz", **SETTINGS)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.reason == {"generations": 30.0}


def test_other_threads_have_no_handlers(tmp_path):
    found: list[esopt.Result] = []
    thread = threading.Thread(
        target=lambda: found.append(esopt.minimize(bowl, X0, checkpoint=tmp_path / "run.npz", **SETTINGS))
    )
    thread.start()
    thread.join()
    assert found[0].generations == 30
    assert (tmp_path / "run.npz").exists()


def test_an_exception_that_the_objective_swallows_is_raised_again(tmp_path, told: list[int]):
    send = Sends(20, signal.SIGTERM)

    def swallows(x: Any) -> float:
        try:
            return send(x)
        except BaseException:
            return 1.0

    result = esopt.minimize(swallows, X0, checkpoint=tmp_path / "run.npz", **SETTINGS)
    assert result.reason == {"terminated": 3.0}  # at the end of the generation
    assert told == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_save_waits_for_its_end(tmp_path, told: list[int], monkeypatch, number: int):
    path, fsync, saves = tmp_path / "run.npz", os.fsync, []

    def interrupted(descriptor: int) -> None:
        saves.append(len(saves))
        if len(saves) == 9:
            os.kill(os.getpid(), number)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    result = esopt.minimize(bowl, X0, checkpoint=path, checkpoint_seconds=0.0, **SETTINGS)
    name = "terminated" if number == signal.SIGTERM else "interrupted"

    assert result.reason == {name: 5.0}  # two calls for each save
    es = esopt.Optimizer(esopt.CMAES(), X0, seed=3)
    es.load(path)
    assert es.generation == 5
    assert sorted(os.listdir(tmp_path)) == ["run.npz", "run.npz.previous"]


def test_a_second_ctrl_c_does_not_wait():
    reached = []

    def twice(signals: Signals) -> None:
        with signals.held():
            for count in (1, 2):
                signal.raise_signal(signal.SIGINT)
                reached.append(count)

    with Signals(active=True) as signals:
        with pytest.raises(KeyboardInterrupt):
            twice(signals)
        with signals.held():
            pass  # nothing is left over
    assert reached == [1]


def test_a_second_sigterm_does_not_disturb_the_end(told: list[int]):
    closed = []

    def twice() -> None:
        with Signals(active=True):
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)
                closed.append(True)

    with pytest.raises(Terminated):
        twice()
    assert closed == [True]
    assert told == [signal.SIGTERM]
