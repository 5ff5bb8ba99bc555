"""Draw docs/figures/bbob.png from results/bbob.npz, and print expected running times.

    python benchmarks/bbob_figure.py

One panel per dimension and one for all: the share of (problem, target) pairs hit, against evaluations over d. Expected
running time (ERT) of a target: all evaluations spent on it, of runs that missed it too, over the number of hits.
"""

from __future__ import annotations

import numpy as np
from _bbob import TARGETS, Case, Hits
from _bbob_solvers import ENTRIES
from _bench import HERE
from matplotlib.figure import Figure

COLOURS = {"esopt default": "#c4441c", "pycma BIPOP": "#1f5a96", "fcmaes IPOP": "#3b8f5a", "SLSQP restarts": "#8a6fb0"}


def curves(hits: Hits, name: str, cases: list[Case], grid: np.ndarray) -> np.ndarray:
    """Return the share of targets hit within each of ``grid`` times d evaluations."""
    found = np.array(
        [np.where(hits.known[case, name][0] > 0, hits.known[case, name][0] / case.dim, np.inf) for case in cases]
    )
    return np.searchsorted(np.sort(found.ravel()), grid, side="right") / found.size


def expected_times(hits: Hits, name: str, function: int, dim: int, cases: list[Case]) -> np.ndarray:
    """Return the ERT over d, (51,), inf where no instance hit the target."""
    chosen = [case for case in cases if (case.function, case.dim) == (function, dim)]
    first = np.array([hits.known[case, name][0] for case in chosen], np.float64)
    spent = np.where(first > 0, first, [[hits.known[case, name][2] * dim] for case in chosen])
    with np.errstate(divide="ignore"):
        return np.asarray(spent.sum(axis=0) / (first > 0).sum(axis=0) / dim)


def complete(hits: Hits) -> list[Case]:
    """Return the cases that every solver of the file has run."""
    names = {name for case, name in hits.known if case.suite == "bbob"}
    cases = {case for case, _ in hits.known if case.suite == "bbob"}
    return sorted(case for case in cases if all((case, name) in hits.known for name in names))


def draw(hits: Hits, cases: list[Case]) -> None:
    dims = sorted({case.dim for case in cases})
    figure = Figure(figsize=(11.0, 6.4), dpi=140, layout="constrained")
    for axes, dim in zip(figure.subplots(2, 3, sharey=True).flat, [None, *dims], strict=False):
        chosen = [case for case in cases if dim in (None, case.dim)]
        for name, entry in ENTRIES.items():
            if all((case, name) in hits.known for case in chosen):
                grid = np.geomspace(1.0, entry.budget, 200)
                strong = name in COLOURS
                axes.plot(
                    grid, curves(hits, name, chosen, grid), color=COLOURS.get(name, "0.7"), label=name,
                    linewidth=1.8 if strong else 0.9, zorder=3 if strong else 2,
                )  # fmt: skip
        axes.set(xscale="log", xlim=(1, 1e4), ylim=(0, 1), title="all dimensions" if dim is None else f"d = {dim}")
        axes.grid(alpha=0.25)
    figure.supxlabel("evaluations / d")
    figure.supylabel("share of (problem, target) pairs hit")
    figure.axes[0].legend(frameon=False, fontsize="x-small")
    figure.savefig(HERE.parent / "docs" / "figures" / "bbob.png")


def main() -> None:
    hits = Hits("bbob", keep=True)
    cases = complete(hits)
    draw(hits, cases)
    names, target = ("esopt default", "pycma BIPOP", "fcmaes IPOP"), int(np.argmin(np.abs(TARGETS - 1e-8)))
    instances = len({case.instance for case in cases})
    print(f"ERT / d to 1e-8, {instances} instances")
    print("| f | " + " | ".join(f"{name}, d={dim}" for dim in (5, 20) for name in names) + " |")
    for function in range(1, 25):
        cells = [expected_times(hits, name, function, dim, cases)[target] for dim in (5, 20) for name in names]
        print(f"| f{function} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
