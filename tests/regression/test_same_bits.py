"""Whole runs have the same bits whatever evaluates the candidates, on however many workers and threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numba
import numpy as np
import pytest

import esopt
from esopt import Joblib, Objective
from esopt._blas import one_thread
from tests.reference.runs import outcome

Array = np.ndarray[Any, Any]
X0 = np.linspace(-1.0, 2.0, 7)
STRATEGIES = {"snes": esopt.snes(n=9), "pgpe": esopt.pgpe(n=8), "ars": esopt.ars(n=10, top=3)}


@numba.njit
def bowl(x):
    total = 0.0
    for i in range(x.size):
        total += (1.0 + i) * (x[i] - 0.25) * (x[i] - 0.25)
    return total


@numba.njit
def noisy_bowl(x, seed):
    return bowl(x) + ((seed * 40503) % 65536) / 65536.0


def python_bowl(x: Array) -> float:
    return bowl.py_func(x)


def python_noisy_bowl(x: Array, seed: int) -> float:
    return python_bowl(x) + ((seed * 40503) % 65536) / 65536.0


def rows_bowl(rows: Array) -> Array:
    return np.array([python_bowl(x) for x in rows])


def rows_noisy_bowl(rows: Array, seeds: Array) -> Array:
    return np.array([python_noisy_bowl(x, int(seed)) for x, seed in zip(rows, seeds, strict=True)])


def minimize(f: Any, name: str, seeded: bool, **settings: Any) -> Any:
    strategy = STRATEGIES[name]
    return outcome(esopt.minimize(f, X0, strategy=strategy, seed=2**63 + 1, seeded=seeded, evaluations=200, **settings))


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_serial_compiled_vectorized_and_threads(name: str, seeded: bool):
    python = python_noisy_bowl if seeded else python_bowl
    expected = minimize(python, name, seeded)

    assert minimize(noisy_bowl if seeded else bowl, name, seeded) == expected
    assert minimize(rows_noisy_bowl if seeded else rows_bowl, name, seeded, vectorized=True) == expected
    assert minimize(python, name, seeded, workers=1) == expected
    for workers, chunk in ((2, None), (3, 1), (3, 5)):
        evaluator = Joblib(Objective(python, seeded=seeded), workers=workers, backend="threading", chunk=chunk)
        assert minimize(None, name, seeded, evaluator=evaluator) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("workers", [2, 3])
def test_worker_processes(seeded: bool, workers: int):
    python = python_noisy_bowl if seeded else python_bowl

    assert minimize(python, "pgpe", seeded, workers=workers) == minimize(python, "pgpe", seeded)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
@pytest.mark.parametrize("name", ["snes", "pgpe", "openai_es", "clipup"])
def test_one_thread_and_two(name: str):
    """Large enough for the parallel kernels: n d > 2**18, also with half the rows for pairs."""
    strategy = {
        "snes": esopt.snes(n=24),
        "pgpe": esopt.pgpe(n=24),
        "openai_es": esopt.openai_es(n=24),
        "clipup": esopt.GradientES(
            n=24,
            rule=esopt.ClipUp(),
            estimator=esopt.Score(with_scale=True),
            scale_rule=esopt.Clipped(esopt.SGD(1e-9), 0.1),
        ),
    }[name]
    before = numba.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            found.append(
                outcome(esopt.minimize(bowl, np.linspace(-1.0, 1.0, 50_003), strategy=strategy, generations=3))
            )
    finally:
        numba.set_num_threads(before)

    assert found[0] == found[1]


def test_runs_in_several_threads_at_once():
    """No state is shared: two runs side by side are two runs one after the other."""
    expected = {name: minimize(python_bowl, name, False) for name in STRATEGIES}
    found: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.__setitem__(name, minimize(python_bowl, name, False)))
        for name in STRATEGIES
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == expected


BLAS = """
import hashlib
import numpy as np
import esopt

for make in (esopt.MAES, esopt.DDCMA, esopt.LRACMAES, esopt.xnes, esopt.DXNESIC, esopt.VkDCMA, esopt.PSACMA):
    es = esopt.Optimizer(make(), np.ones(300), seed=1)
    for _ in range(3):
        es.tell(np.square(es.ask()) @ np.arange(1.0, 301.0))
    print(make.__name__, hashlib.sha256(es.ask().tobytes()).hexdigest())
"""


def test_threads_of_linear_algebra():
    """Decompositions and products are computed in one thread of BLAS, however many there are."""
    found = []
    for threads in ("1", "2"):
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        done = subprocess.run([sys.executable, "-c", BLAS], env=environment, capture_output=True, text=True, check=True)
        found.append(done.stdout.splitlines())

    assert len(found[0]) == 7
    assert found[0] == found[1]


def test_the_limit_of_linear_algebra_ends_with_the_last_who_asked():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def counts() -> list[int]:
        return [info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = counts()
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(counts()) <= {1}
        second.__exit__(None, None, None)
        assert counts() == before
