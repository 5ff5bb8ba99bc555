"""A long run, simulated by many generations of a cheap objective: do memory and speed stay flat?

    python scripts/attack_soak.py [--generations 1000000] [--cases "ask and tell" minimize compiled] [--save]

The objective follows a target that goes round in a circle, so that sigma settles and no run converges. Memory is the
resident set, sampled at a hundred points; the first tenth is warming up. Speed is CPU time per generation, divided by
that of a fixed piece of numpy work at the same point, since other processes share the machine. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numba
import numpy as np

import esopt

X0 = np.ones(4)
POINTS = 100


def resident() -> int:
    """Resident set in bytes, from the operating system."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def yardstick() -> float:
    """CPU seconds of a fixed piece of work like that of a generation."""
    begun, rows = time.process_time(), np.ones((8, 4))
    for _ in range(500):
        rows = np.sort(rows, axis=0) * 1.0 + np.argsort(rows[:, 0])[:, None] * 0.0
    return time.process_time() - begun


class Meter:
    """Samples memory and speed every ``every`` generations."""

    def __init__(self, generations: int) -> None:
        self.every = max(1, generations // POINTS)
        self.memory: list[int] = []
        self.speed: list[float] = []
        self._next, self._last, self._begun = self.every, 0, time.process_time()

    def __call__(self, generation: int) -> None:
        if generation < self._next:
            return
        each = (time.process_time() - self._begun) / (generation - self._last)
        self.speed.append(each / yardstick())
        self.memory.append(resident())
        self._next, self._last, self._begun = generation + self.every, generation, time.process_time()

    def report(self) -> dict[str, Any]:
        """Growth of memory after the first tenth, and the speed of the last tenth against that of the second."""
        tenth = max(1, len(self.memory) // 10)
        memory, speed = self.memory[tenth:], self.speed[tenth:]
        first, last = float(np.median(speed[:tenth])), float(np.median(speed[-tenth:]))
        return {
            "memory MiB": round(memory[0] / 2**20, 1),
            "memory growth": round(max(memory) / memory[0] - 1.0, 5),
            "time per generation, last tenth over second": round(last / first, 3),
        }


def centre(generation: int) -> np.ndarray[Any, Any]:
    """Where the optimum is now."""
    angle = generation / 200.0
    return np.array([10.0 * math.cos(angle), 10.0 * math.sin(angle), 0.0, 0.0])


def ask_and_tell(generations: int, meter: Meter) -> None:
    """snes in a loop of one's own."""
    es = esopt.Optimizer(esopt.snes(n=8), X0, seed=1)
    for generation in range(1, generations + 1):
        es.tell(((es.ask() - centre(generation)) ** 2).sum(axis=1))
        meter(generation)


def minimize(generations: int, meter: Meter) -> None:
    """snes in minimize, with history, callback and checkpoints twice a second."""
    now = [0]

    def follow(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(((rows - centre(now[0])) ** 2).sum(axis=1))

    def step(at: esopt.Step) -> None:
        now[0] = at.generation
        meter(at.generation)

    with tempfile.TemporaryDirectory() as folder:
        esopt.minimize(
            follow, X0, strategy=esopt.snes(n=8), vectorized=True, generations=generations, seed=1, callback=step,
            history=True, checkpoint=os.path.join(folder, "run.npz"), checkpoint_seconds=0.5,
        )  # fmt: skip


@numba.njit(cache=False)
def flat(x: Any) -> float:
    """A value without an end: the optimum is nowhere, and sigma wanders."""
    total = 0.0
    for value in x:
        total += math.sin(1e6 * value)
    return total


def compiled(generations: int, meter: Meter) -> None:
    """snes in compiled laps, restarted where sigma leaves its range."""
    done, seed, evaluator = 0, 0, esopt.Compiled(esopt.Objective(flat))
    while done < generations:
        result = esopt.minimize(
            None, X0, strategy=esopt.snes(n=8), evaluator=evaluator, generations=meter.every, seed=seed
        )
        done, seed = done + result.generations, seed + 1
        meter(done)


RUNS: dict[str, Callable[[int, Meter], None]] = {
    "ask and tell": ask_and_tell,
    "minimize": minimize,
    "compiled": compiled,
}


def main() -> int:
    """Run and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=lambda text: int(float(text)), default=1_000_000, help="of each case")
    parser.add_argument("--cases", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    found = {}
    for case in given.cases:
        begun, meter = time.perf_counter(), Meter(given.generations)
        RUNS[case](given.generations, meter)
        seconds = round(time.perf_counter() - begun, 1)
        found[case] = {"generations": given.generations, "seconds": seconds, **meter.report()}
        print(case, found[case], file=sys.stderr, flush=True)
    versions = {"esopt": esopt.__version__, "numpy": np.__version__, "python": platform.python_version()}
    report = {"attack": "a long run", "versions": versions, "cases": found}
    print(json.dumps(report))
    target = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "attacks" / "soak.json"
    if given.save:
        before = json.loads(target.read_text("utf-8"))["cases"] if target.exists() else {}
        target.write_text(json.dumps({**report, "cases": before | found}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
