"""COCO's problems for benchmarks: what was hit when, rotated copies, and a file that keeps it all.

A run is anytime: a solver gets a function, x0 and a seed, sees neither budget nor target, and goes on until the
function raises :class:`Done`. Evaluations are counted outside the solver.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _bench import RESULTS, fingerprint

TARGETS = 10.0 ** np.linspace(2.0, -8.0, 51)
Function = Callable[[np.ndarray], float]
Solver = Callable[[Function, np.ndarray, int], None]


class Done(Exception):
    """The budget is used up, or the last target was hit."""


class Counted:
    """A problem that keeps the evaluation at which each target was first hit, 0 for never.

    ``noise`` makes what the solver sees of a difference from the minimum; hits are those of the true value.
    """

    def __init__(
        self, problem: Function, minimum: float, budget: int, noise: Callable[[float], float] | None = None
    ) -> None:
        self.problem, self.minimum, self.budget, self.noise = problem, minimum, budget, noise
        self.count, self.next, self.hits = 0, 0, np.zeros(TARGETS.size, np.uint32)
        self.levels = minimum + TARGETS

    def __call__(self, x: np.ndarray) -> float:
        if self.count >= self.budget or self.next == TARGETS.size:
            raise Done
        self.count += 1
        value = float(self.problem(x))
        while self.next < TARGETS.size and value <= self.levels[self.next]:
            self.hits[self.next] = self.count
            self.next += 1
        return value if self.noise is None else self.minimum + self.noise(value - self.minimum)


class Case(NamedTuple):
    """One problem of a suite: ``bbob``, ``bbob-largescale``, or ``rotated``, copies of bbob's with rotated axes."""

    suite: str
    function: int
    dim: int
    instance: int


def open_problem(case: Case) -> tuple[Any, float]:
    """Return a problem and its minimum, from a copy, so that nobody's evaluations are counted twice."""
    import cocoex

    suite = cocoex.Suite(
        "bbob" if case.suite == "rotated" else case.suite,
        f"instances:{case.instance}",
        f"function_indices:{case.function} dimensions:{case.dim}",
    )
    problem, here = suite[0], os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            problem._best_parameter("print")
            best = np.loadtxt("._bbob_problem_best_parameter.txt").reshape(-1)
        finally:
            os.chdir(here)
    minimum = float(problem(best))
    problem.free()
    return suite[0], minimum


def rotation(case: Case) -> np.ndarray:
    """Return an orthogonal matrix (d, d), equal for equal cases."""
    normals = np.random.default_rng([99, *case[1:]]).standard_normal((case.dim, case.dim))
    q, r = np.linalg.qr(normals)
    return np.asarray(q * np.sign(np.diag(r)))


def solve(
    case: Case, name: str, solver: Solver, budget: int, noise: Callable[[float], float] | None = None
) -> tuple[Case, str, np.ndarray, float]:
    """Return the hits (51,) of a solver and its microseconds per evaluation, objective included; x0 in [-4, 4]^d."""
    warnings.simplefilter("ignore")
    x0 = np.random.default_rng([case.function, case.dim, case.instance]).uniform(-4.0, 4.0, case.dim)
    problem, minimum = open_problem(case)
    f: Function = problem
    if case.suite == "rotated":
        axes = rotation(case)
        f = lambda x: problem(axes @ x)  # noqa: E731
    counted, begun = Counted(f, minimum, budget * case.dim, noise), time.process_time()
    try:
        solver(counted, x0, 1000 * case.function + 10 * case.instance + case.dim)
    except Done:
        pass
    cost = 1e6 * (time.process_time() - begun) / max(1, counted.count)
    problem.free()
    return case, name, counted.hits, cost


_FOUND = ("hits", "cost", "budget", "commit")


class Hits:
    """What is known so far, by (case, solver): hits, cost and budget; kept in results/<name>.npz."""

    def __init__(self, name: str) -> None:
        self.path = Path(RESULTS, f"{name}.npz")
        self.known: dict[tuple[Case, str], tuple[np.ndarray, float, int, str]] = {}
        if self.path.exists():
            with np.load(self.path, allow_pickle=False) as file:
                columns = [file[key].tolist() for key in ("suite", "function", "dim", "instance", "solver")]
                rest = zip(*(file[key] if key == "hits" else file[key].tolist() for key in _FOUND), strict=True)
            for (*case, solver), found in zip(zip(*columns, strict=True), rest, strict=True):
                self.known[Case(*case), solver] = found

    def add(self, found: Iterable[tuple[Case, str, np.ndarray, float]], budgets: Mapping[str, int]) -> None:
        """Keep what :func:`solve` returned."""
        commit = str(fingerprint()["commit"])
        for case, name, hits, cost in found:
            self.known[case, name] = hits, cost, budgets[name], commit

    def save(self) -> None:
        """Write the file, all or nothing."""
        keys, found = list(self.known), list(self.known.values())
        columns = {name: np.array([case[i] for case, _ in keys]) for i, name in enumerate(Case._fields)}
        columns["solver"] = np.array([name for _, name in keys])
        columns["hits"] = np.array([f[0] for f in found], np.uint32)
        for i, name, kind in ((1, "cost", np.float32), (2, "budget", np.uint32), (3, "commit", np.str_)):
            columns[name] = np.array([f[i] for f in found], kind)
        part = self.path.with_suffix(".part.npz")
        np.savez_compressed(part, **columns)
        part.replace(self.path)
