"""SIGKILL of a whole run at random instants: does the resumed run end in the bits of one that was left alone?

    python scripts/attack_kills.py [--kills 200] [--cases GradientES CMAES Portfolio] [--save]

Every run saves after every generation, so that most kills are in the middle of a write. The instant is uniform over the
time that an undisturbed run takes. A run that was killed is resumed, and what it ends with is compared: the result and
every array and number of the last checkpoint, times excluded; with two workers, to a run of one process without a
checkpoint. An asynchronous run is compared with the replay of its arrivals by one process. Prints one line of JSON;
``--save`` keeps it under benchmarks/results/attacks, beside other cases that are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
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
    "CMAES, 2 workers": {"strategy": esopt.CMAES(), "generations": 12, "workers": 2},
    "CMAES, 2 workers, asynchronous": {"strategy": esopt.CMAES(), "generations": 12, "workers": 2, "mode": "async"},
    "pgpe, 2 workers, asynchronous": {"strategy": esopt.pgpe(n=8), "generations": 12, "workers": 2, "mode": "async"},
}
MARK = "ESOPT_ATTACK"


def rosenbrock(x: Any) -> float:
    """A value that fails in a part of the space, so that failures are counted and resumed too."""
    if x[0] > 2.0:
        return float("nan")
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def slow(x: Any) -> float:
    """The same, in 0 to 10 ms."""
    time.sleep(0.01 * int.from_bytes(hashlib.blake2b(x.tobytes(), digest_size=4).digest(), "little") / 2**32)
    return rosenbrock(x)


def without_seconds(node: Any) -> Any:
    """A tree of the file's header without the times in it."""
    if isinstance(node, dict):
        return {key: without_seconds(value) for key, value in node.items() if key != "seconds"}
    return [without_seconds(value) for value in node] if isinstance(node, list) else node


def numbers(result: esopt.Result) -> bytes:
    """What a run found, to the bit; "killed" counts what the attack did to it."""
    kept = result.x.tolist(), result.value, result.mean.tolist(), result.evaluations, result.generations
    return repr((*kept, {kind: count for kind, count in result.failures.items() if kind != "killed"})).encode()


def run(case: str, path: Path) -> str:
    """Run or resume, and return the digest of everything that it ended with."""
    own, there = CASES[case], {"checkpoint": path, "checkpoint_seconds": 0.0}
    result = esopt.minimize(slow if "workers" in own else rosenbrock, X0, seed=7, **there, **own)
    digest = hashlib.sha256(numbers(result))
    if "workers" in own:
        again = {**{key: value for key, value in own.items() if key != "workers"}, "arrivals": result.arrivals}
        same = numbers(esopt.minimize(rosenbrock, X0, seed=7, **again)) == numbers(result)
        return "same" if same else "another"
    with np.load(path) as file:
        header = json.loads(file["esopt-header"].tobytes())
        digest.update(json.dumps(without_seconds(header["tree"]), sort_keys=True).encode())
        for name in sorted(set(file.files) - {"esopt-header"}):
            digest.update(name.encode() + file[name].tobytes())
    return digest.hexdigest()


def half_told(path: Path) -> bool:
    """Whether a checkpoint holds some values of a generation that was not finished."""
    if not path.exists():
        return False
    with np.load(path) as file:
        return any(file[name].any() for name in file.files if name.endswith(("open.told", "flight.landed")))


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


def left_over(mark: str) -> int:
    """How many processes of an attack are left, a while after its last kill; -1 where nobody can know."""
    if not Path("/proc/self/environ").exists():
        return -1
    for _ in range(100):
        found = 0
        for place in Path("/proc").glob("[0-9]*"):
            try:
                found += f"{MARK}={mark}".encode() in (place / "environ").read_bytes()
            except OSError:
                continue
        if not found:
            return 0
        time.sleep(0.1)
    return found


def attack(case: str, kills: int, seed: int, seconds: float = math.inf) -> dict[str, Any]:
    """Kill and resume ``kills`` runs, one after the other, or fewer within ``seconds``."""
    until = time.perf_counter() + seconds
    instants = random.Random(f"{case} {seed}")
    found: dict[str, Any] = {"kills": 0, "same bits": 0, "lost": []}
    found |= dict.fromkeys(("before the first save", "in the middle of a write", "in the middle of a generation"), 0)
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("esopt").addHandler(handler)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[MARK] = folder
        alone = run(case, Path(folder, "alone.npz"))
        begun = time.perf_counter()
        run(case, Path(folder, "again.npz"))
        whole = time.perf_counter() - begun
        attempts = 0
        while found["kills"] < kills and attempts < 10 * kills and time.perf_counter() < until:
            attempts += 1
            place = Path(folder, f"{attempts}")
            place.mkdir()
            path = place / "run.npz"
            if not kill(case, path, instants.uniform(0.0, whole)):
                whole *= 0.9  # it had come to its end: the run that was timed was a slow one
                continue
            found["kills"] += 1
            found["before the first save"] += not path.exists()
            found["in the middle of a write"] += any(name.endswith(".tmp") for name in os.listdir(place))
            found["in the middle of a generation"] += half_told(path)
            if (digest := run(case, path)) == ("same" if "workers" in CASES[case] else alone):
                found["same bits"] += 1
            else:
                found["lost"].append(digest)
            rest = sorted(os.listdir(place))
            if rest != ["run.npz", "run.npz.previous"]:
                found["lost"].append(rest)
    logging.getLogger("esopt").removeHandler(handler)
    found["processes left"] = left_over(folder)
    return {**found, "warnings": len(warnings), "seconds of a run": round(whole, 3)}


def main() -> int:
    """Attack and print what was found; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each case")
    parser.add_argument("--seconds", type=float, default=math.inf, help="for each case, and fewer kills")
    parser.add_argument("--cases", nargs="+", default=["GradientES", "CMAES", "Portfolio"], choices=CASES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    found = {case: attack(case, given.kills, given.seed, given.seconds) for case in given.cases}
    versions = {"esopt": esopt.__version__, "numpy": np.__version__, "python": platform.python_version()}
    report = {"attack": "SIGKILL of the whole run", "versions": versions, "cases": found}
    print(json.dumps(report))
    if given.save:
        target = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "attacks" / "kills.json"
        kept = json.loads(target.read_text(encoding="utf-8"))["cases"] if target.exists() else {}
        saved = {**report, "cases": {**kept, **found}}
        target.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    least = given.kills if math.isinf(given.seconds) else 1
    lost = [case for case, one in found.items() if one["lost"] or one["kills"] < least or one["processes left"] > 0]
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
