"""30 % of evaluations raise, or return nan, inf or an array of a wrong shape: what does it cost?

    python scripts/attack_failures.py [--seeds 5] [--save]

Evaluations until f reaches its target, with failures over without, medians over seeds. Which candidate fails, and how,
is decided by the digest of its bytes, so that it does not depend on where it is. What hangs is a candidate that failed,
as one that raises.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import esopt

DIM, SHARE = 10, 0.3


def sphere(x: Any) -> float:
    """Minimum 0 at 0."""
    return float(x @ x)


def rosenbrock(x: Any) -> float:
    """Minimum 0 at (1, ..., 1)."""
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


class Fails:
    """A function of which a share of the evaluations fails, in four ways."""

    def __init__(self, f: Callable[[Any], float], share: float = SHARE) -> None:
        self.f, self.share, self.counts = f, share, [0, 0, 0, 0]

    def __call__(self, x: Any) -> Any:
        draw = int.from_bytes(hashlib.blake2b(x.tobytes(), digest_size=8).digest(), "little") / 2**64
        if draw >= self.share:
            return self.f(x)
        way = int(4.0 * draw / self.share)
        self.counts[way] += 1
        if way == 0:
            raise RuntimeError("the simulator crashed")
        return [np.nan, np.inf, x[:3]][way - 1]


def gradient_es() -> esopt.GradientES:
    """OpenAI-ES with steps that get smaller."""
    return esopt.GradientES(
        sigma=0.02,
        n=40,
        sampler=esopt.Gaussian(),  # of a pair that lost one, the other is lost too
        shaping=esopt.Standardize(),
        rule=esopt.Adam(esopt.ExponentialDecay(0.05, 0.998)),
    )


STRATEGIES: dict[str, Callable[[], Any]] = {"CMAES": esopt.CMAES, "snes": esopt.snes, "GradientES": gradient_es}
PROBLEMS: dict[str, tuple[Callable[[Any], float], Any]] = {
    "sphere": (sphere, np.full(DIM, 2.0)),
    "rosenbrock": (rosenbrock, np.zeros(DIM)),
}
TARGETS = {
    "CMAES": {"sphere": 1e-8, "rosenbrock": 1e-8},
    "snes": {"sphere": 1e-8, "rosenbrock": 5.0},
    "GradientES": {"sphere": 1e-2, "rosenbrock": 1.0},
}
LIMIT = 80_000


def cost(name: str, problem: str, share: float, seed: int) -> tuple[float, list[int]]:
    """Evaluations until the target, inf if it was not reached, and how many failed in each way."""
    f, x0 = PROBLEMS[problem]
    fails = Fails(f, share)
    result = esopt.minimize(
        fails,
        x0,
        strategy=STRATEGIES[name](),
        evaluations=LIMIT,
        target=TARGETS[name][problem],
        seed=seed,
        on_error="nan",
    )
    return (result.evaluations if "target" in result.reason else math.inf), fails.counts


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for name in given.strategies:
        for problem in PROBLEMS:
            begun = time.perf_counter()
            alone = [cost(name, problem, 0.0, seed)[0] for seed in range(given.seeds)]
            failing = [cost(name, problem, SHARE, seed) for seed in range(given.seeds)]
            solved = [evaluations for evaluations, _ in failing]
            found[f"{name}, {problem}"] = {
                "target": TARGETS[name][problem],
                "evaluations without failures": float(np.median(alone)),
                "with failures": float(np.median(solved)),
                "ratio": round(float(np.median(solved) / np.median(alone)), 2),
                "unsolved": [alone.count(math.inf), solved.count(math.inf)],
                "raised, nan, inf, wrong shape": np.sum([counts for _, counts in failing], axis=0).tolist(),
            }
            print(name, problem, found[f"{name}, {problem}"], round(time.perf_counter() - begun, 1), file=sys.stderr)
    versions = {"esopt": esopt.__version__, "numpy": np.__version__, "python": platform.python_version()}
    report = {"attack": "30 % of evaluations fail", "versions": versions, "seeds": given.seeds, "cases": found}
    print(json.dumps(report))
    if given.save:
        target = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "attacks" / "failures.json"
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
