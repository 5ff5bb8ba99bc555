"""Which side is more precise, averaging derivatives or averaging weighted values? Estimators against closed forms.

    python benchmarks/which_side.py [--quick] [--only waves|sigmoids|quadratics|fourier] [--save] [--figures]

Each dot is the mean squared error of esopt's own estimators over many populations, beside the closed form of
_which_side.py. ``--save`` writes results/which_side.json; ``--figures`` draws docs/figures/which_side_*.png from it,
and does nothing else unless ``--save`` is there too. docs/which_side_is_more_precise.md explains the outcome.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import _which_side as theory
import numpy as np
from _bench import HERE, RESULTS, Report, load
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import t as student

import esopt

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

ESTIMATORS: dict[str, tuple[Any, Any]] = {
    "values, no baseline": (esopt.Score(esopt.NoBaseline()), esopt.Gaussian()),
    "values, f(mean)": (esopt.Score(esopt.AtMean()), esopt.Gaussian()),
    "values, leave one out": (esopt.Score(esopt.LeaveOneOut()), esopt.Gaussian()),
    "values, antithetic": (esopt.Score(), esopt.Antithetic()),
    "gradients": (esopt.Bonnet(), esopt.Gaussian()),
    "gradients, antithetic": (esopt.Bonnet(), esopt.Antithetic()),
}
PHASES = 0.3 + np.pi / 2.0 * np.arange(4)  # averages of squares of sines and cosines over four equal steps are exact
ROWS = 100


@dataclass
class Evidence(Report):
    """The measured points beside the figures."""

    data: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """f and grad f on rows, the point and the gradient of J there."""

    f: Function
    grad: Function
    x: Array
    truth: Array
    sigma: float = 1.0


def estimates(problem: Problem, parts: tuple[Any, Any], n: int, seeds: Iterator[int], number: int) -> Iterator[Any]:
    """``number`` gradients from fresh populations of n rows."""
    estimator, sampler = parts
    for seed in itertools.islice(seeds, number):
        yield esopt.smoothed_gradient(
            problem.f,
            problem.x,
            sigma=problem.sigma,
            n=n,
            seed=seed,
            grad=problem.grad,
            estimator=estimator,
            sampler=sampler,
            vectorized=True,
        )


def costs(problem: Problem, parts: tuple[Any, Any], n: int, seeds: Iterator[int], number: int) -> Array:
    """Squared error x evaluations of ``number`` populations."""
    found = estimates(problem, parts, n, seeds, number)
    return np.array([float(np.square(g.mean - problem.truth).sum()) * g.evaluations for g in found])


def wave_problem(s: float, d: int, phase: float) -> Problem:
    """sin(omega . x + phase) at 0 with sigma = 1 and |omega| = s, omega in no special direction."""
    omega = s * np.linspace(0.5, 1.5, d) / np.linalg.norm(np.linspace(0.5, 1.5, d))
    return Problem(
        lambda x: np.sin(x @ omega + phase),
        lambda x: np.cos(x @ omega + phase)[:, None] * omega,
        np.zeros(d),
        omega * np.cos(phase) * np.exp(-0.5 * s**2),
    )


def measure_wave(name: str, s: float, d: int, seeds: Iterator[int], number: int, n: int = ROWS) -> dict[str, Any]:
    """One dot: sigma^2 x MSE x evaluations averaged over the phases, its standard error, and the closed form."""
    found = [costs(wave_problem(s, d, phase), ESTIMATORS[name], n, seeds, number) for phase in PHASES]
    error = np.sqrt(sum(float(c.var(ddof=1)) / number for c in found)) / len(PHASES)
    value, exact = float(np.mean(found)), float(theory.wave(name, s, d, n))
    return {"estimator": name, "d": d, "s": s, "value": value, "error": error, "exact": exact}


def waves(report: Evidence, quick: bool) -> None:
    seeds, rows = itertools.count(), []
    for d, number in ((1, 250), (10, 120), (100, 40)):
        for s in np.geomspace(0.05, 50.0, 5 if quick else 16):
            rows += [measure_wave(name, float(s), d, seeds, 20 if quick else number) for name in ESTIMATORS]
    report.data["waves"] = rows
    worst(report, "waves", rows)
    for d in (1, 10, 100):
        at = theory.crossover("values, no baseline", "gradients", d, ROWS)
        loo = theory.crossover("values, leave one out", "gradients", d, ROWS)
        both = theory.crossover("values, antithetic", "gradients, antithetic", d, ROWS)
        report.note(
            f"waves, d = {d}: equal at |omega| sigma = {at:.4f}; leave one out {loo:.4f}; antithetic {both:.4f}"
        )


def worst(report: Evidence, what: str, rows: list[dict[str, Any]]) -> None:
    """The largest distance of a dot from its closed form, in standard errors."""
    scores = [abs(r["value"] - r["exact"]) / r["error"] for r in rows if r["error"] > 1e-12 * (1.0 + r["exact"])]
    report.figure(f"{what}: farthest of {len(scores)} dots from its curve", [max(scores)], "standard errors", "<=", 5.0)


def sigmoid_problem(r: float, d: int) -> Problem:
    """Phi(u . x / delta) at 0 with sigma = 1, delta = r, u the diagonal; r = 0 is the step."""
    u = np.full(d, 1.0 / np.sqrt(d))

    def f(x: Array) -> Array:
        return ndtr(x @ u / r) if r > 0.0 else (x @ u > 0.0).astype(np.float64)

    def grad(x: Array) -> Array:
        if r == 0.0:
            return np.zeros_like(x)
        return np.exp(-0.5 * (x @ u / r) ** 2)[:, None] * u / (np.sqrt(2.0 * np.pi) * r)

    return Problem(f, grad, np.zeros(d), u * theory.sigmoid_gradient(r))


def sides() -> dict[str, tuple[Any, Any]]:
    """What the sigmoids are measured with; Hybrid where it is there."""
    hybrid = getattr(esopt, "Hybrid", None)
    chosen = {name: ESTIMATORS[name] for name in ("values, leave one out", "gradients")}
    return chosen if hybrid is None else {**chosen, "hybrid": (hybrid(), esopt.Gaussian())}


def measure_sigmoid(name: str, r: float, d: int, seeds: Iterator[int], number: int) -> dict[str, Any]:
    """RMSE, typical error, reported standard error and the coverage of 95 % intervals, at n = 100 rows."""
    problem = sigmoid_problem(r, d)
    found = list(estimates(problem, sides()[name], ROWS, seeds, number))
    errors = np.array([g.mean - problem.truth for g in found])
    declared = np.array([g.mean_stderr for g in found])
    squares = np.square(errors).sum(axis=1)
    lengths = np.sqrt(np.square(declared).sum(axis=1))
    inside = np.abs(errors) <= student.ppf(0.975, found[0].blocks - 1) * declared
    exact = None
    if name != "hybrid":
        exact = float(theory.sigmoid(name, r, d, ROWS)) if r > 0.0 or name != "gradients" else None
    return {
        "estimator": name,
        "d": d,
        "r": r,
        "value": ROWS * float(squares.mean()),
        "error": ROWS * float(squares.std(ddof=1) / np.sqrt(number)),
        "exact": exact,
        "rmse": float(np.sqrt(squares.mean())),
        "typical": float(np.sqrt(np.median(squares))),
        "declared": float(np.median(lengths)),
        "coverage": float(inside.mean()),
        "populations": number,
    }


def sigmoids(report: Evidence, quick: bool) -> None:
    seeds, d = itertools.count(1 << 20), 10
    points = [0.0, *np.geomspace(1e-4, 10.0, 5 if quick else 21)]
    rows = [measure_sigmoid(name, float(r), d, seeds, 100 if quick else 3000) for name in sides() for r in points]
    report.data["sigmoids"] = rows
    # Below 0.01 a population seldom meets the slope: the scatter of the squares says little about their mean.
    worst(report, "sigmoids", [row for row in rows if row["exact"] is not None and row["r"] > 0.01])
    step = {row["estimator"]: row for row in rows if row["r"] == 0.0}
    truth = theory.sigmoid_gradient(0.0)
    for name, row in step.items():
        text = f"RMSE {row['rmse']:.3f} (|grad J| = {truth:.3f}), reported {row['declared']:.3f}"
        report.note(f"step, {name}: {text}, {100.0 * row['coverage']:.1f} % of 95 % intervals hold the truth")


CASES = {
    "far from the optimum": (1.0, 0.0),
    "at the optimum": (0.0, 0.0),
    "far, noisy": (1.0, 1.0),
    "at the optimum, noisy": (0.0, 1.0),
}


@dataclass(frozen=True)
class Bowl:
    """c + a . x + x'Hx / 2 at 0, d = 20, sigma = 0.5, with sigma^2 |H|^2 = 1 and |a|^2 = 4 when far from the optimum.

    ``noise`` is the variance on a value and the total variance on a gradient.
    """

    far: float
    noise: float
    d: int = 20
    sigma: float = 0.5
    c: float = 3.0

    @property
    def a(self) -> Array:
        slope = np.linspace(-0.6, 1.0, self.d)
        return 2.0 * self.far * slope / np.linalg.norm(slope)

    @property
    def h(self) -> Array:
        root = np.random.default_rng(self.d).standard_normal((self.d, self.d))
        h = (root + root.T) / 4.0 + np.diag(np.linspace(1.0, 3.0, self.d))
        return h / np.linalg.norm(h) / self.sigma

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        a, h, noise = self.a, self.h, np.sqrt(self.noise)

        def f(x: Array) -> Array:
            return self.c + x @ a + 0.5 * ((x @ h) * x).sum(axis=1) + noise * rng.standard_normal(len(x))

        def grad(x: Array) -> Array:
            return a + x @ h + noise / np.sqrt(self.d) * rng.standard_normal(x.shape)

        return Problem(f, grad, np.zeros(self.d), a, self.sigma)


def measure_bowl(name: str, bowl: Bowl, seeds: Iterator[int], number: int, n: int = 120) -> dict[str, Any]:
    orthogonal = {"values, antithetic orthogonal": (esopt.Score(), esopt.Antithetic(esopt.Orthogonal(bowl.d)))}
    parts = {**ESTIMATORS, **orthogonal}[name]
    found = costs(bowl.problem(next(seeds)), parts, n, seeds, number)
    exact = theory.quadratic(name, bowl.a, bowl.h, bowl.c, bowl.sigma, n, bowl.noise, bowl.noise)
    error = float(found.std(ddof=1) / np.sqrt(number))
    return {"estimator": name, "value": float(found.mean()), "error": error, "exact": exact}


def quadratics(report: Evidence, quick: bool) -> None:
    seeds, rows = itertools.count(1 << 21), []
    for case, (far, noise) in CASES.items():
        for name in theory.QUADRATICS:
            row = measure_bowl(name, Bowl(far, noise), seeds, 50 if quick else 1000)
            rows.append({"case": case, **row})
    report.data["quadratics"] = rows
    worst(report, "quadratics", rows)
    print(quadratic_table(rows))


def quadratic_table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table of the page: closed form, and what was measured with its standard error."""
    lines = ["| variance per evaluation | " + " | ".join(CASES) + " |", "|" + " --- |" * (1 + len(CASES))]
    for name in theory.QUADRATICS:
        of = {row["case"]: row for row in rows if row["estimator"] == name}
        lines.append(f"| {name} | " + " | ".join(_cell(of[case]) for case in CASES) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    if row["exact"] < 1e-12:
        return "0 (0)" if row["value"] < 1e-20 else f"0 ({row['value']:.0e})"
    places = max(0, int(np.ceil(-np.log10(row["error"]))))
    return f"{row['exact']:.{places}f} ({row['value']:.{places}f} ± {row['error']:.{places}f})"


def fourier(report: Evidence, quick: bool) -> None:
    """Both sides against the multiplier: exact sums, and the library's own estimates with their error bars."""
    rows = theory.fourier_table()
    report.data["fourier"] = rows
    for row in rows:
        sizes = f"left {row['left']:.0e}, right {row['right']:.0e}"
        report.note(f"{row['f']}, d = {row['d']}, sigma = {row['sigma']}: from the multiplier {sizes}")
    right = [max(row["right"] for row in rows)]
    report.figure("multiplier against E f eps / sigma, relative", right, "", "<=", 1e-10)
    smooth = [max(row["left"] for row in rows if row["f"] not in ("boxcar", "disc"))]
    report.figure("multiplier against E f', functions without jumps, relative", smooth, "", "<=", 1e-10)
    report.data["response"] = list(response(400 if quick else 1000))
    report.data["boxcar"] = list(boxcar(400 if quick else 4000))


def response(n: int) -> Iterator[dict[str, Any]]:
    """sigma J'(0) of sin(omega x), from values and from gradients."""
    for i, s in enumerate(np.linspace(0.25, 4.5, 18)):
        problem = wave_problem(float(s), 1, 0.0)
        for name in ("values, leave one out", "gradients"):
            (g,) = estimates(problem, ESTIMATORS[name], n, itertools.count((1 << 22) + i), 1)
            yield {"estimator": name, "s": float(s), "value": float(g.mean[0]), "error": float(g.mean_stderr[0])}


def boxcar(n: int, sigma: float = 0.3) -> Iterator[dict[str, Any]]:
    """J' of 1 on |x| < 1, from values and from gradients."""
    for i, x in enumerate(np.linspace(-2.0, 2.0, 25)):
        problem = Problem(
            lambda y: (np.abs(y[:, 0]) < 1.0).astype(np.float64), np.zeros_like, np.array([x]), np.zeros(1), sigma
        )
        for name in ("values, leave one out", "gradients"):
            (g,) = estimates(problem, ESTIMATORS[name], n, itertools.count((1 << 23) + i), 1)
            yield {"estimator": name, "x": float(x), "value": float(g.mean[0]), "error": float(g.mean_stderr[0])}


PARTS = {"waves": waves, "sigmoids": sigmoids, "quadratics": quadratics, "fourier": fourier}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few points and populations, to see that it works")
    parser.add_argument("--only", default="", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--save", action="store_true", help="write results/which_side.json")
    parser.add_argument("--figures", action="store_true", help="draw docs/figures/which_side_*.png from the results")
    args = parser.parse_args()
    if args.save and (args.quick or args.only):
        parser.error("a results file holds one whole run: leave out --save, or --quick and --only")
    if args.save or not args.figures:
        report = Evidence("which_side", {"rows": ROWS})
        for name, part in PARTS.items():
            if args.only in name:
                began = time.perf_counter()
                part(report, args.quick)
                print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)
        if args.save:
            print(f"wrote {report.save().relative_to(HERE.parent)}")
    if args.figures:
        from _which_side_figures import draw

        for path in draw(load(RESULTS / "which_side.json")["data"], HERE.parent / "docs" / "figures"):
            print(f"drew {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
