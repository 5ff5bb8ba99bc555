"""What every benchmark shares: interleaved timing, one core, a fingerprint, JSON results, and the table of figures.

A ratio is formed inside each round, where both sides ran one after the other, and reported as the median over the
rounds with its quartiles. ``python benchmarks/_bench.py table`` prints the figures of results/*.json as Markdown;
``--write`` puts them into README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "scipy",
    "joblib",
    "jax",
    "jaxlib",
    "torch",
    "evosax",
    "evotorch",
    "ray",
    "sb3-contrib",
    "stable-baselines3",
    "gymnasium",
    "mujoco",
    "Box2D",
    "cmaes",
    "cma",
    "coco-experiment",
    "gymnasium",
    "mujoco",
)
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Sample:
    """Seconds per call of one case, one entry per round: wall clock, and CPU time (see :func:`measure`)."""

    wall: NDArray[np.float64]
    cpu: NDArray[np.float64]

    def __add__(self, other: Sample) -> Sample:
        """Return both cases one after the other."""
        return Sample(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Sample) -> Sample:
        return Sample(self.wall - other.wall, self.cpu - other.cpu)

    def __truediv__(self, other: Sample) -> Sample:
        """Return the ratio of every round."""
        return Sample(self.wall / other.wall, self.cpu / np.maximum(other.cpu, 1e-9))


def measure(
    cases: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 15,
    warmup: int = 3,
    seconds: float = 0.02,
    settle: bool = False,
    cpu_clock: Callable[[], float] = time.process_time,
) -> dict[str, Sample]:
    """Time the cases in turn, ``rounds`` times.

    Every case is called ``warmup`` times beforehand, in order; a sample is one call, or as many as fill ``seconds``.
    With ``settle`` every sample follows an untimed call: no case pays for the memory that the one before gave back.
    ``cpu_clock`` is ``time.thread_time`` where threads are compared: the calling thread does its share and no more.
    """
    numbers = {}
    for _ in range(warmup):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            numbers[name] = max(1, math.ceil(seconds / max(time.perf_counter() - began, 1e-7)))
    wall = {name: np.empty(rounds) for name in cases}
    cpu = {name: np.empty(rounds) for name in cases}
    for r in range(rounds):
        for name, case in cases.items():
            repeats = range(numbers[name])
            if settle:
                case()
            cpu_began, began = cpu_clock(), time.perf_counter()
            for _ in repeats:
                case()
            wall[name][r] = (time.perf_counter() - began) / numbers[name]
            cpu[name][r] = (cpu_clock() - cpu_began) / numbers[name]
    return {name: Sample(wall[name], cpu[name]) for name in cases}


def quartiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return median, lower and upper quartile."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(median), float(low), float(high)


@dataclass(frozen=True)
class Timing:
    """Seconds of one case: median and quartiles over the rounds, and the median of the CPU time."""

    row: str
    case: str
    seconds: float
    low: float
    high: float
    cpu: float
    rounds: int


@dataclass(frozen=True)
class Figure:
    """A measured number and what it is to reach: ``sense`` ">=" or "<=", ``goal`` None for information only.

    ``cpu`` is the same number from CPU time, which other work on the machine disturbs less, or None.
    """

    what: str
    value: float
    low: float
    high: float
    unit: str
    sense: str = ">="
    goal: float | None = None
    cpu: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.sense == ">=" else self.value <= self.goal


@dataclass
class Report:
    """What one benchmark found, in the order in which it was found."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, samples: Mapping[str, Sample]) -> None:
        """Keep and print the timings of one row."""
        for case, sample in samples.items():
            median, low, high = quartiles(sample.wall)
            timing = Timing(row, case, median, low, high, float(np.median(sample.cpu)), len(sample.wall))
            self.timings.append(timing)
            spread = f"[{_seconds(low)}, {_seconds(high)}], CPU {_seconds(timing.cpu)}"
            print(f"{row:34} {case:40} {_seconds(median):>10} {spread}", flush=True)

    def figure(
        self, what: str, sample: Sample | Sequence[float], unit: str, sense: str = ">=", goal: float | None = None
    ) -> None:
        """Keep and print one figure, from a ratio or a time (a Sample) or from plain numbers."""
        wall = sample.wall if isinstance(sample, Sample) else np.asarray(sample, np.float64)
        cpu = float(np.median(sample.cpu)) if isinstance(sample, Sample) else None
        found = Figure(what, *quartiles(wall), unit, sense, goal, cpu)
        self.figures.append(found)
        print("  " + " | ".join(cell for cell in _cells(found) if cell), flush=True)

    def note(self, text: str) -> None:
        """Keep and print a remark, for example which peer is not installed."""
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def save(self) -> Path:
        """Write results/<name>.json and return its path."""
        content = asdict(self)
        content["fingerprint"] = fingerprint()
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return path


def main(name: str, run: Callable[[Report, argparse.Namespace], None], doc: str | None, *, limit: bool = False) -> None:
    """Run a benchmark from the command line; with ``limit`` on one core and one thread.

    ``--quick`` is for seeing that it works, never for quoting, and cannot be saved.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, to see that it works")
    parser.add_argument("--rounds", type=int, default=None, help="rounds per row")
    parser.add_argument("--only", default="", help="only rows whose name contains this text")
    parser.add_argument("--save", action="store_true", help=f"write results/{name}.json")
    if limit:
        parser.add_argument("--core", type=int, default=None, help="processor to stay on; the last one by default")
    args = parser.parse_args()
    if args.save and (args.quick or args.only):
        parser.error("a results file holds one whole run: leave out --save, or --quick and --only")
    if limit:
        one_thread(args.core)
    report = Report(name, {"rounds": args.rounds, "load before": os.getloadavg()[0]})
    run(report, args)
    report.options["load after"] = os.getloadavg()[0]
    if args.save:
        print(f"wrote {report.save().relative_to(HERE.parent)}")


def one_thread(core: int | None = None) -> None:
    """Keep this process on one core and one thread; call it before jax, torch or numba are imported."""
    late = {"jax", "torch", "numba"} & set(sys.modules)
    if late:
        raise RuntimeError(f"one_thread() came after the import of {', '.join(sorted(late))}. Call it first.")
    for variable in _THREAD_LIMITS:
        os.environ[variable] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})


def fingerprint() -> dict[str, Any]:
    """Return what a figure depends on: processor, memory, system, versions, commit. Nothing names the machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _first_match("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": _first_match("/proc/meminfo", "MemTotal"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "esopt")),
        "date": time.strftime("%Y-%m-%d"),
    }


def _first_match(path: str, label: str) -> str | None:
    if not os.path.exists(path):
        return None
    lines = Path(path).read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(label)), None)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=HERE.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _quantity(value: float, unit: str) -> str:
    if unit == "s":
        return _seconds(value)
    number = f"{value:.3g}" if abs(value) < 1000.0 else f"{value:.0f}"
    return f"{number}x" if unit == "x" else f"{number} {unit}"


def _cells(figure: Figure) -> tuple[str, str, str, str, str]:
    sign = "≥" if figure.sense == ">=" else "≤"
    goal = "" if figure.goal is None else f"{sign} {_quantity(figure.goal, figure.unit)}"
    value, low, high = (_quantity(v, figure.unit) for v in (figure.value, figure.low, figure.high))
    spread = value if low == high else f"{value} [{low}, {high}]"
    cpu = "" if figure.cpu is None else f"CPU {_quantity(figure.cpu, figure.unit)}"
    return figure.what, goal, spread, cpu, {True: "yes", False: "no", None: ""}[figure.met]


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a results file as a dictionary."""
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def table() -> str:
    """Return the figures of results/*.json as a Markdown table, and what they were measured on."""
    lines = ["| what | reach | measured [quartiles] | by CPU time | reached | from |", "|" + " --- |" * 6]
    machines = []
    for path in sorted(RESULTS.glob("*.json")):
        content = load(path)
        for entry in content.get("figures", []):
            lines.append("| " + " | ".join(_cells(Figure(**entry))) + f" | {path.stem} |")
        mark = content.get("fingerprint", {})
        versions = ", ".join(f"{name} {version}" for name, version in mark.get("versions", {}).items())
        on = f"{mark.get('processor')}, {mark.get('cores')} cores, Python {mark.get('python')}, {versions}"
        commit = f"{mark.get('commit')}{' with changes' if mark.get('changed') else ''}"
        machines.append(f"- {path.stem}: {mark.get('date')}, commit {commit}; {on}")
    if not machines:
        return "No results yet: run the benchmarks with `--save`."
    return "\n".join([*lines, "", *machines])


def write_table() -> None:
    """Put :func:`table` between the two marks of README.md."""
    begin, end = "<!-- figures -->", "<!-- end of figures -->"
    path = HERE / "README.md"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"README.md has no lines '{begin}' and '{end}' to write between. Put them back.")
    path.write_text(f"{before}{begin}\n{table()}\n{end}{after}")


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        print(table())
    elif sys.argv[1:] == ["table", "--write"]:
        write_table()
    else:
        raise SystemExit("usage: python benchmarks/_bench.py table [--write]")
