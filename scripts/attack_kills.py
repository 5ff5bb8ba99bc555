"""SIGKILL of a whole run at random instants: does the resumed run end in the bits of one that was left alone?

    python scripts/attack_kills.py [--kills 200] [--cases GradientES CMAES Portfolio] [--save]

Every run saves after every generation, so that most kills are in the middle of a write. The instant is uniform over the
time that an undisturbed run takes. A run that was killed is resumed, and what it ends with is compared: the result and
every array and number of the last checkpoint, times excluded. Prints one line of JSON; ``--save`` keeps it under
benchmarks/results/attacks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import esopt

X0 = np.linspace(-1.0, 1.5, 6)
CASES: dict[str, dict[str, Any]] = {
    "GradientES": {"strategy": esopt.pgpe(n=8), "generations": 40},
    "CMAES": {"strategy": esopt.CMAES(), "generations": 40},
    "Portfolio": {"evaluations": 120},
    "snes": {"strategy": esopt.snes(), "generations": 40},
    "openai_es": {"strategy": esopt.openai_es(n=8), "generations": 40},
}


def rosenbrock(x: Any) -> float:
    """A value that fails in a part of the space, so that failures are counted and resumed too."""
    if x[0] > 2.0:
        return float("nan")
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def without_seconds(node: Any) -> Any:
    """A tree of the file's header without the times in it."""
    if isinstance(node, dict):
        return {key: without_seconds(value) for key, value in node.items() if key != "seconds"}
    return [without_seconds(value) for value in node] if isinstance(node, list) else node


def run(case: str, path: Path) -> str:
    """Run or resume, and return the digest of everything that it ended with."""
    result = esopt.minimize(rosenbrock, X0, seed=7, checkpoint=path, checkpoint_seconds=0.0, **CASES[case])
    kept = result.x.tolist(), result.value, result.mean.tolist(), result.evaluations, result.generations
    digest = hashlib.sha256(repr((*kept, dict(result.failures))).encode())
    with np.load(path) as file:
        header = json.loads(file["esopt-header"].tobytes())
        digest.update(json.dumps(without_seconds(header["tree"]), sort_keys=True).encode())
        for name in sorted(set(file.files) - {"esopt-header"}):
            digest.update(name.encode() + file[name].tobytes())
    return digest.hexdigest()


def kill(case: str, path: Path, seconds: float) -> bool:
    """Start a run and kill it after a while; tell whether it was still running."""
    child = os.fork()
    if child == 0:
        try:
            run(case, path)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def attack(case: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill and resume ``kills`` runs, one after the other."""
    instants = random.Random(f"{case} {seed}")
    found = {"kills": 0, "same bits": 0, "before the first save": 0, "in the middle of a write": 0, "lost": []}
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("esopt").addHandler(handler)
    with tempfile.TemporaryDirectory() as folder:
        alone = run(case, Path(folder, "alone.npz"))
        begun = time.perf_counter()
        run(case, Path(folder, "again.npz"))
        whole = time.perf_counter() - begun
        attempts = 0
        while found["kills"] < kills and attempts < 3 * kills:
            attempts += 1
            place = Path(folder, f"{attempts}")
            place.mkdir()
            path = place / "run.npz"
            if not kill(case, path, instants.uniform(0.0, whole)):
                continue  # it had come to its end
            found["kills"] += 1
            found["before the first save"] += not path.exists()
            found["in the middle of a write"] += any(name.endswith(".tmp") for name in os.listdir(place))
            if (digest := run(case, path)) == alone:
                found["same bits"] += 1
            else:
                found["lost"].append(digest)
            rest = sorted(os.listdir(place))
            if rest != ["run.npz", "run.npz.previous"]:
                found["lost"].append(rest)
    logging.getLogger("esopt").removeHandler(handler)
    return {**found, "warnings": len(warnings), "seconds of a run": round(whole, 3)}


def main() -> int:
    """Attack and print what was found; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each case")
    parser.add_argument("--cases", nargs="+", default=["GradientES", "CMAES", "Portfolio"], choices=CASES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    found = {case: attack(case, given.kills, given.seed) for case in given.cases}
    versions = {"esopt": esopt.__version__, "numpy": np.__version__, "python": platform.python_version()}
    report = {"attack": "SIGKILL of the whole run", "versions": versions, "cases": found}
    print(json.dumps(report))
    if given.save:
        target = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "attacks" / "kills.json"
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lost = [case for case, one in found.items() if one["lost"] or one["kills"] < given.kills]
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
