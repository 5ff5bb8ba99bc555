"""A run that is killed at random moments and resumed ends in the same bits as one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, os, random, signal, sys, time
from dataclasses import replace
from hashlib import sha256
import numpy as np
import esopt
from esopt._tree import flatten

folder, case = sys.argv[1:]
strategy = {
    "ars": esopt.ars(n=8),
    "bonnet": esopt.GradientES(n=4, estimator=esopt.Bonnet(), rule=esopt.Momentum(0.01)),
    "moving average": esopt.GradientES(estimator=esopt.Score(baseline=esopt.MovingAverage())),
    "openai_es": esopt.openai_es(),
    "pgpe": esopt.pgpe(),
    "snes": esopt.snes(),
    "minimize": esopt.snes(),
}[case]
GENERATIONS = 150
x0 = np.linspace(-1.0, 2.0, 10).reshape(2, 5)


def f(x):
    value = ((x - 3.0) ** 2 * np.arange(1.0, 6.0)).sum()
    return np.nan if x[0, 0] > x[1, 0] + 4.0 else value


def optimizer():
    return esopt.Optimizer(strategy, x0, seed=5, generations=GENERATIONS)


def ask_tell(path):
    es = optimizer()
    if path is not None and os.path.exists(path):
        es.load(path)
    while not es.stop():
        X = es.ask()
        es.tell([f(x) for x in X], [2.0 * (x - 3.0) * np.arange(1.0, 6.0) for x in X])
        if path is not None:
            es.save(path)
    return es, es.result


def minimize(path):
    path = path or os.path.join(folder, "alone.npz")
    result = esopt.minimize(
        f, x0, strategy=strategy, seed=5, generations=GENERATIONS, checkpoint=path, checkpoint_seconds=0.0
    )
    return read(path), result


def read(path):
    es = optimizer()
    es.load(path, *([esopt.Serial(f).init()] if case == "minimize" else []))
    return es


def outcome(path):
    es, result = (minimize if case == "minimize" else ask_tell)(path)
    kept = es.state, replace(es.progress, seconds=0.0), result.x, result.value, result.mean, result.evaluations
    skeleton, arrays = flatten(kept)
    digest = sha256(json.dumps(skeleton).encode())
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def stamp(path):
    return os.stat(path).st_mtime_ns if os.path.exists(path) else 0


def kill_one(path, moment):
    before, child = stamp(path), os.fork()
    if child == 0:
        outcome(path)
        os._exit(0)
    while stamp(path) == before:  # at least one generation further, so that the run comes to an end
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("a run ended before it was killed")
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        sys.exit(f"a run ended with {status} before it was killed")
    return read(path).generation


alone, path, moments = outcome(None), os.path.join(folder, "run.npz"), random.Random(3)
generations = [kill_one(path, moments.uniform(0.0, 0.01)) for _ in range(6)]
print(json.dumps({"alone": alone, "resumed": outcome(path), "generations": generations, "of": GENERATIONS}))
"""

CASES = ["pgpe", "minimize"]
SLOW = ["ars", "bonnet", "moving average", "openai_es", "snes"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("case", [*CASES, *[pytest.param(case, marks=pytest.mark.slow) for case in SLOW]])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, case):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path), case]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr

    found = json.loads(answer.stdout)
    assert found["resumed"] == found["alone"]
    # Every kill was in the middle of the run, and each resumption went on from where the last kill had left it.
    assert 0 < found["generations"][0]
    assert found["generations"] == sorted(set(found["generations"]))
    assert found["generations"][-1] < found["of"]
