"""Killed at any moment and resumed, a run ends in the bits of an uninterrupted one; Ctrl-C ends it politely."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from tests.reference.runs import bits, bumpy, outcome

ROOT = Path(__file__).parents[2]
X0 = np.linspace(-1.0, 2.0, 6)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

# Every child runs this: it can kill itself at one call of f, and dawdle so that somebody else can.
CHILD = textwrap.dedent(
    """
    import json, os, signal, sys, time
    import numpy as np
    import esopt
    from tests.reference.runs import bumpy, outcome

    given = json.loads(sys.argv[1])
    calls = 0

    def f(x):
        global calls
        calls += 1
        if calls == given["suicide"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == 1:
            print("running", flush=True)
        time.sleep(given["nap"])
        return bumpy(x)

    strategies = {
        "snes": esopt.snes(n=6),
        "pgpe": esopt.pgpe(n=6),
        "moving": esopt.GradientES(n=6, estimator=esopt.Score(esopt.MovingAverage()), rule=esopt.Momentum(0.01)),
    }
    result = esopt.minimize(
        f, np.linspace(-1.0, 2.0, 6), strategy=strategies[given["strategy"]], evaluations=given["evaluations"], seed=11,
        checkpoint=given["path"], checkpoint_seconds=0, workers=given["workers"],
    )
    print(json.dumps({"reason": result.reason, "outcome": repr(outcome(result)), "evaluations": result.evaluations}))
    """
)


def start(path: Path, **given: Any) -> subprocess.Popen[str]:
    settings = {"path": str(path), "strategy": "snes", "suicide": 0, "nap": 0.0, "evaluations": 300, "workers": None}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, json.dumps({**settings, **given})]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    with process:
        lines = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0
    return json.loads(lines[-1])


def straight(strategy: str = "snes", evaluations: int = 300) -> str:
    strategies = {
        "snes": esopt.snes(n=6),
        "pgpe": esopt.pgpe(n=6),
        "moving": esopt.GradientES(n=6, estimator=esopt.Score(esopt.MovingAverage()), rule=esopt.Momentum(0.01)),
    }
    return repr(outcome(esopt.minimize(bumpy, X0, strategy=strategies[strategy], evaluations=evaluations, seed=11)))


def killed_by_itself(path: Path, calls: int, **given: Any) -> None:
    with start(path, suicide=calls, **given) as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL


def killed_after(path: Path, seconds: float, **given: Any) -> bool:
    """Kill the child so long after its first evaluation; whether it was still running."""
    with start(path, **given) as process:
        assert process.stdout.readline() == "running\n"
        time.sleep(seconds)
        process.kill()
        process.communicate(timeout=120)
    return process.returncode == -signal.SIGKILL


def generation_in(path: Path) -> int:
    es = esopt.Optimizer(esopt.snes(n=6), X0, seed=11)
    es.load(path)
    return es.generation


def test_killed_and_resumed_is_uninterrupted(tmp_path: Path):
    """Three kills: within a generation, at once after a save, and at any moment of the clock, saves included."""
    path = tmp_path / "run.npz"
    killed_by_itself(path, 40)
    assert generation_in(path) == 6
    killed_by_itself(path, 7)
    assert generation_in(path) == 7
    assert killed_after(path, 0.05, nap=0.002)
    assert 7 <= generation_in(path) < 49
    ended = finish(start(path))

    assert ended["outcome"] == straight()
    assert ended["evaluations"] <= 300


def test_the_checkpoint_holds_everything_that_was_learned(tmp_path: Path):
    """With checkpoint_seconds=0 a kill loses no more than the generation that was open."""
    path = tmp_path / "run.npz"
    killed_by_itself(path, 100)
    es = esopt.Optimizer(esopt.snes(n=6), X0, seed=11)
    es.load(path)
    twin = esopt.Optimizer(esopt.snes(n=6), X0, seed=11)
    for _ in range(16):
        twin.tell([bumpy(x) for x in twin.ask()])

    assert es.result.evaluations == 96
    assert bits(es.state) == bits(twin.state)
    assert es.result.value == twin.result.value


def test_ctrl_c_from_the_keyboard(tmp_path: Path):
    path = tmp_path / "run.npz"
    with start(path, nap=0.002) as process:
        assert process.stdout.readline() == "running\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        ended = json.loads(process.communicate(timeout=120)[0])
    assert process.returncode == 0
    assert set(ended["reason"]) == {"interrupted"}
    assert 6 <= ended["evaluations"] < 300
    assert generation_in(path) == ended["reason"]["interrupted"] == ended["evaluations"] / 6

    assert finish(start(path))["outcome"] == straight()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["snes", "pgpe", "moving"])
def test_killed_many_times(strategy: str, tmp_path: Path):
    path = tmp_path / "run.npz"
    moments = np.random.default_rng(20).uniform(0.0, 0.25, 12)
    kills = sum(killed_after(path, float(s), nap=0.001, strategy=strategy, evaluations=1500) for s in moments)

    assert kills == 12
    assert finish(start(path, strategy=strategy, evaluations=1500))["outcome"] == straight(strategy, 1500)


@pytest.mark.slow
def test_killed_with_worker_processes(tmp_path: Path):
    """f runs in workers there; the clock kills the parent."""
    path = tmp_path / "run.npz"
    for seconds in (0.0, 0.3, 0.1):
        before = path.stat().st_mtime_ns if path.exists() else 0
        with start(path, workers=2, nap=0.01, evaluations=1500) as process:
            while not path.exists() or path.stat().st_mtime_ns == before:
                time.sleep(0.01)
            time.sleep(seconds)
            process.kill()
            process.wait(timeout=120)
            os.killpg(process.pid, signal.SIGKILL)  # the workers, which would wait for minutes
        assert process.returncode == -signal.SIGKILL
    ended = finish(start(path, workers=3, evaluations=1500))

    assert ended["outcome"] == straight("snes", 1500)
