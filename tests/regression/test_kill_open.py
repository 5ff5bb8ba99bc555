"""Killed in the middle of a generation of slow evaluations: what was told is not evaluated again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import esopt
from tests.reference.runs import bumpy, outcome

ROOT = Path(__file__).parents[2]
X0 = np.linspace(-1.0, 2.0, 6)
N, GENERATIONS = 12, 3

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

# Every evaluation leaves a line: which x it was.
COMMON = """
import json, os, sys, time
import numpy as np
import esopt
from tests.reference.runs import bumpy, outcome

given = json.loads(sys.argv[1])


def slow(x):
    time.sleep(given["nap"])
    value = bumpy(x)
    log = os.open(given["log"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(log, (np.asarray(x).tobytes().hex() + "\\n").encode())
    os.close(log)
    return value

"""
MINIMIZE = COMMON + textwrap.dedent(
    """
    result = esopt.minimize(
        slow, np.linspace(-1.0, 2.0, 6), strategy=esopt.snes(n=12), generations=3, seed=11, workers=given["workers"],
        checkpoint=given["path"], checkpoint_seconds=0, final_evaluations=1,
    )
    print(repr(outcome(result)))
    """
)
ASK_TELL = COMMON + textwrap.dedent(
    """
    es = esopt.Optimizer(esopt.snes(n=12), np.linspace(-1.0, 2.0, 6), seed=11, generations=3)
    if os.path.exists(given["path"]):
        es.load(given["path"])
    while not es.stop():
        X = es.ask()
        for row in es.pending:
            es.tell([slow(X[row])], rows=[row])
            es.save(given["path"])
    print(repr(outcome(es.result)))
    """
)


def start(script: str, folder: Path, log: str, workers: int) -> subprocess.Popen[str]:
    given = {"path": str(folder / "run.npz"), "log": str(folder / log), "nap": 0.16, "workers": workers}
    return subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def evaluated(folder: Path, log: str) -> set[bytes]:
    return {bytes.fromhex(line) for line in (folder / log).read_text("ascii").split()}


def saved(path: Path) -> tuple[int, set[bytes]]:
    """The generation of the checkpoint, and the candidates of it that were told."""
    es = esopt.Optimizer(esopt.snes(n=N), X0, seed=11)
    es.load(path)
    rows = es.ask()
    return es.generation, {rows[row].tobytes() for row in set(range(N)) - set(es.pending.tolist())}


def killed_in_the_middle(script: str, folder: Path) -> set[bytes]:
    """Kill a run, with its workers, while the second generation is half told; return what was."""
    path = folder / "run.npz"
    with start(script, folder, "first.log", 2) as process:
        while True:
            time.sleep(0.005)
            assert process.poll() is None, "the run came to its end"
            generation, told = saved(path) if path.exists() else (0, set())
            if generation >= 1 and 2 <= len(told) <= N - 4:
                break
        process.kill()
        process.communicate(timeout=60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the workers, which would finish what they have
    assert process.returncode == -signal.SIGKILL
    return saved(path)[1]


@pytest.mark.parametrize(("script", "result"), [(MINIMIZE, "minimize"), (ASK_TELL, "tell")], ids=["minimize", "tell"])
def test_told_rows_survive_a_kill(script: str, result: str, tmp_path: Path) -> None:
    told = killed_in_the_middle(script, tmp_path)
    first = evaluated(tmp_path, "first.log")
    assert told
    assert told <= first
    with start(script, tmp_path, "second.log", 3) as process:
        printed = process.communicate(timeout=120)[0].splitlines()[-1]
    assert process.returncode == 0
    second = evaluated(tmp_path, "second.log")

    assert not told & second
    # Lost are at most the rows that the workers were at.
    assert len(first & second) <= 8
    assert len(first | second) == N * GENERATIONS + (result == "minimize")
    assert printed == repr(straight(result))


def straight(result: str) -> Any:
    if result == "minimize":
        settings: dict[str, Any] = {"strategy": esopt.snes(n=N), "generations": GENERATIONS, "seed": 11}
        return outcome(esopt.minimize(bumpy, X0, final_evaluations=1, **settings))
    es = esopt.Optimizer(esopt.snes(n=N), X0, seed=11, generations=GENERATIONS)
    while not es.stop():
        es.tell([bumpy(x) for x in es.ask()])
    return outcome(es.result)
