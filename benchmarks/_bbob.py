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

import joblib
import numpy as np
from _bench import RESULTS, Report, fingerprint
from _peers import installed

TARGETS = 10.0 ** np.linspace(2.0, -8.0, 51)
Function = Callable[[np.ndarray], float]
Solver = Callable[[Function, np.ndarray, int], None]


class Done(Exception):
    """The budget is used up, or the last target was hit."""


class Counted:
    """A problem that keeps the evaluation at which each target was first hit, 0 for never.

    ``noise`` makes what the solver sees of the distance from the minimum; hits are those of the true value.
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
    """One problem of a suite: one of COCO's, or ``rotated``, or a name of :data:`NOISES`, both made from bbob."""

    suite: str
    function: int
    dim: int
    instance: int


class Entry(NamedTuple):
    """A solver, the packages it needs, its largest budget (evaluations over d), and how many instances it runs."""

    solver: Solver
    packages: tuple[str, ...]
    budget: int
    instances: int = 15


def gaussian(distance: float, rng: np.random.Generator) -> float:
    """Return what bbob-noisy's severe Gaussian noise makes of a distance from the minimum: times exp(N)."""
    return distance * float(np.exp(rng.standard_normal())) if distance > 1e-8 else distance


def cauchy(distance: float, rng: np.random.Generator) -> float:
    """Return what bbob-noisy's severe Cauchy noise makes of it: plus max(0, 1000 + N / |N'|) in one case of five."""
    if distance <= 1e-8:
        return distance
    rare, over, under = rng.random() < 0.2, rng.standard_normal(), abs(rng.standard_normal()) + 1e-199
    return distance + max(0.0, 1000.0 + (over / under if rare else 0.0))


NOISES = {"gaussian noise": gaussian, "cauchy noise": cauchy}
MADE = ("rotated", *NOISES)


def open_problem(case: Case) -> tuple[Any, float]:
    """Return a problem and its minimum, from a copy, so that nobody's evaluations are counted twice."""
    import cocoex

    suite = cocoex.Suite(
        "bbob" if case.suite in MADE else case.suite,
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


def solve(case: Case, name: str, solver: Solver, budget: int) -> tuple[Case, str, np.ndarray, float]:
    """Return the hits (51,) of a solver and its microseconds per evaluation, objective included; x0 in [-4, 4]^d."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    x0 = np.random.default_rng([case.function, case.dim, case.instance]).uniform(-4.0, 4.0, case.dim)
    problem, minimum = open_problem(case)
    f: Function = problem
    if case.suite == "rotated":
        axes = rotation(case)
        f = lambda x: problem(axes @ x)  # noqa: E731
    noise, rng = NOISES.get(case.suite), np.random.default_rng([98, *case[1:]])
    seen = None if noise is None else lambda distance: noise(distance, rng)
    counted, begun = Counted(f, minimum, budget * case.dim, seen), time.process_time()
    try:
        solver(counted, x0, 1000 * case.function + 10 * case.instance + case.dim)
    except Done:
        pass
    cost = 1e6 * (time.process_time() - begun) / max(1, counted.count)
    problem.free()
    return case, name, counted.hits, cost


_FOUND = ("hits", "cost", "budget", "commit")


class Hits:
    """What is known so far, by (case, solver): hits, cost, budget, commit; with ``keep`` in results/<name>.npz."""

    def __init__(self, name: str, *, keep: bool) -> None:
        self.path, self.keep = Path(RESULTS, f"{name}.npz"), keep
        self.known: dict[tuple[Case, str], tuple[np.ndarray, float, int, str]] = {}
        if keep and self.path.exists():
            with np.load(self.path, allow_pickle=False) as file:
                columns = [file[key].tolist() for key in ("suite", "function", "dim", "instance", "solver")]
                rest = zip(*(file[key] if key == "hits" else file[key].tolist() for key in _FOUND), strict=True)
            for (*case, solver), found in zip(zip(*columns, strict=True), rest, strict=True):
                self.known[Case(*case), solver] = found

    def collect(self, entries: Mapping[str, Entry], cases: list[Case], largest: int) -> None:
        """Run what is not known yet, on all cores; what is kept is written every minute and at the end."""
        budgets = {name: min(largest, entry.budget) for name, entry in entries.items()}
        jobs = [
            joblib.delayed(solve)(case, name, entry.solver, budgets[name])
            for case in cases
            for name, entry in entries.items()
            if case.instance <= entry.instances
            if (case, name) not in self.known or self.known[case, name][2] < budgets[name]
        ]
        commit, written = str(fingerprint()["commit"]), time.monotonic()
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            for case, name, hits, cost in joblib.Parallel(-1, batch_size=1, return_as="generator_unordered")(jobs):
                self.known[case, name] = hits, cost, budgets[name], commit
                if time.monotonic() > written + 60.0:
                    self._save()
                    written = time.monotonic()
        if jobs:
            self._save()

    def shares(self, names: Iterable[str], cases: list[Case], budget: int) -> dict[str, np.ndarray]:
        """Return the share of targets solved within ``budget`` d, (cases,), of the solvers that ran all as long."""
        found = {}
        for name in names if cases else ():
            rows = [self.known.get((case, name)) for case in cases]
            if all(row is not None and row[2] >= budget for row in rows):
                limits = [budget * case.dim for case in cases]
                kept = [row[0] for row in rows if row is not None]
                found[name] = np.array([np.mean((h > 0) & (h <= n)) for h, n in zip(kept, limits, strict=True)])
        return found

    def _save(self) -> None:
        """Write the file, if it is to be kept."""
        if not self.keep:
            return
        keys, found = list(self.known), list(self.known.values())
        columns = {name: np.array([case[i] for case, _ in keys]) for i, name in enumerate(Case._fields)}
        columns["solver"] = np.array([name for _, name in keys])
        columns["hits"] = np.array([f[0] for f in found], np.uint32)
        for i, name, kind in ((1, "cost", np.float32), (2, "budget", np.uint32), (3, "commit", np.str_)):
            columns[name] = np.array([f[i] for f in found], kind)
        part = self.path.with_suffix(".part.npz")
        np.savez_compressed(part, **columns)
        part.replace(self.path)


def score(
    report: Report,
    title: str,
    shares: Mapping[str, np.ndarray],
    ours: str,
    references: Mapping[str, float | None],
    goal: float | None = None,
) -> None:
    """Report the shares, ``goal`` for that of ``ours``, and its differences in paired standard errors.

    ``references`` are those it is compared with, and what the difference is to reach.
    """
    for name, share in shares.items():
        report.figure(f"{title}: solved by {name}", [float(share.mean())], "", goal=goal if name == ours else None)
    for name, least in references.items():
        if ours in shares and name in shares and len(shares[ours]) > 1:
            apart = shares[ours] - shares[name]
            error = float(apart.std(ddof=1) / np.sqrt(apart.size)) or np.inf
            what = f"{title}: {ours} less {name}, in paired standard errors"
            report.figure(what, [float(apart.mean()) / error], "", goal=least)


def costs(report: Report, title: str, hits: Hits, names: Iterable[str]) -> None:
    """Report the microseconds per evaluation, objective included, by dimension."""
    for dim in sorted({case.dim for case, _ in hits.known}):
        for name in names:
            found = [row[1] for (case, solver), row in hits.known.items() if (case.dim, solver) == (dim, name)]
            if found:
                report.figure(f"{title} d={dim}: microseconds per evaluation, f included, {name}", found, "us", "<=")


def usable(report: Report, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries whose packages are installed; note the others."""
    found = {name: entry for name, entry in entries.items() if installed(*entry.packages)}
    for name in set(entries) - set(found):
        report.note(f"{name} is not installed: skipped")
    return found
