"""Seconds until esopt is there, and until its first generation is done, in fresh interpreters with a warm cache.

    python benchmarks/bench_import.py [--quick] [--save]

Each round starts one interpreter per case. Times are taken inside it, from its first statement on: the start of Python
itself is not in them. The caches (of Python and numba) are filled by a round before. The last lines count what numba
compiles: nothing at import, and nothing but what belongs to the user's own function in a first generation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from textwrap import dedent

import numpy as np
from _bench import Report, Sample, main

CLOCK = "import time, json; wall, cpu = time.perf_counter(), time.process_time()\n"
STOP = "\nprint(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))"
RESTART = "\nwall, cpu = time.perf_counter(), time.process_time()\n"

PYTHON = dedent(
    """
    def f(x):
        return float(x @ x)
    x0 = [1.0] * 10
    """
)
NUMBA = dedent(
    """
    import numba, numpy as np
    @numba.njit
    def f(x):
        return (x * x).sum()
    x0 = np.ones(10)
    """
)
LOADED = "\nimport esopt; minimize = esopt.minimize\n"
ONE = "minimize(f, x0, generations=1)"

IMPORTS = {
    "import numba": "import numba",
    "import esopt": "import esopt",
    "import esopt; esopt.minimize": "import esopt; esopt.minimize",
}
FIRST = {
    "first generation, Python f": PYTHON + LOADED + RESTART + ONE,
    "second generation, Python f": PYTHON + LOADED + ONE + RESTART + ONE,
    "compiling a numba f": NUMBA + RESTART + "f(x0)",
    "first generation, numba f compiled before": NUMBA + LOADED + "f(x0)\n" + RESTART + ONE,
    "import and first generation, Python f": PYTHON + LOADED + ONE,
}
COUNT = """
from numba.core import event
seen = event.RecordingListener()
event.register("numba:compile", seen)
{body}
names = [e.data["dispatcher"].py_func.__qualname__ for _, e in seen.buffer if e.is_start]
print(json.dumps(names))
"""
COUNTED = {
    "compiled at import": "import esopt\nfor name in esopt.__all__: getattr(esopt, name)",
    "compiled in a first generation, Python f": PYTHON + LOADED + ONE,
    "compiled in a first generation, numba f": NUMBA + LOADED + "f(x0); seen.buffer.clear()\n" + ONE,
}


def interpreter(code: str) -> list[float]:
    """Return what ``code`` prints last, as JSON, from a fresh interpreter that may write byte code, as is usual."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run(report: Report, args: argparse.Namespace) -> None:
    rounds = args.rounds or (3 if args.quick else 15)
    codes = {name: CLOCK + body + STOP for name, body in {**IMPORTS, **FIRST}.items() if args.only in name}
    found: dict[str, list[list[float]]] = {}
    for name in list(codes):
        try:
            interpreter(codes[name])
            found[name] = []
        except RuntimeError as error:
            report.note(f"{name}: {error}")
            del codes[name]
    for _ in range(rounds):
        for name, code in codes.items():
            found[name].append(interpreter(code))
    samples = {name: Sample(*np.array(pairs).T) for name, pairs in found.items()}
    report.add("fresh interpreter", samples)
    for name in IMPORTS:
        if name != "import numba" and {name, "import numba"} <= samples.keys():
            report.figure(f"{name}, beyond import numba", samples[name] - samples["import numba"], "s", "<=", 0.1)
    for name in FIRST:
        if name.startswith("first") and name in samples:
            report.figure(f"{name}, warm cache", samples[name], "s", "<=", 0.3)
    for name, body in COUNTED.items():
        try:
            names = interpreter("import json\n" + COUNT.format(body=body))
        except RuntimeError as error:
            report.note(f"{name}: {error}")
            continue
        report.figure(name, [len(names)], "functions", "<=", 0.0 if "numba f" not in name else None)
        if names:
            report.note(f"{name}: {', '.join(map(str, names))}")


if __name__ == "__main__":
    main("import", run, __doc__)
