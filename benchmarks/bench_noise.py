"""Normals per second on one thread against numpy and torch, and what two threads add.

    python benchmarks/bench_noise.py [--quick] [--only normals] [--save]

All three fill the same float32 buffer of one million numbers, in turn. The sum is one moment of 128 units in 10^6
dimensions; a population is written to memory in float32, which is what limits it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import numba
import numpy as np
from _bench import HERE, Report, main, measure

from esopt import Antithetic, Gaussian, Key
from esopt._kernels import gaussian
from esopt.noise import moment

SIZE = 1 << 20


def check_normals() -> None:
    """Compare some normals with the naive twin of the tests."""
    if str(HERE.parent) not in sys.path:
        sys.path.append(str(HERE.parent))
    from tests.reference import noise as twin

    out = np.empty((1, 300), np.float32)
    gaussian.fill(out, 5, 100, 3, 0, np.uint64(2**40 + 1))
    np.testing.assert_allclose(out[0], twin.normals64((3, 0, 2**40 + 1), 5, 100, 300), rtol=0.0, atol=2e-6)


def check_sums() -> None:
    """Compare a moment and a population with plain numpy."""
    noise, mean = Antithetic().noise(Key(1), 64, 3000), np.linspace(-1.0, 1.0, 3000)
    weights, eps = np.linspace(-1.0, 2.0, 64), noise.rows().astype(np.float64)
    np.testing.assert_allclose(moment(noise, weights), weights @ eps, rtol=0.0, atol=1e-4)
    out = np.empty((64, 3000), np.float32)
    noise.displace(mean, np.full(1, 0.5), 0, out)
    np.testing.assert_array_equal(out, (mean + 0.5 * eps).astype(np.float32))


def _torch(report: Report, buffer: np.ndarray) -> Callable[[], object] | None:
    try:
        import torch
    except ImportError:
        report.note("torch is not installed: skipped")
        return None
    torch.set_num_threads(1)
    tensor, generator = torch.from_numpy(buffer), torch.Generator().manual_seed(1)
    return lambda: tensor.normal_(generator=generator)


def normals(report: Report, args: argparse.Namespace) -> None:
    """One thread, one buffer, three generators."""
    buffer = np.empty(SIZE, np.float32)
    row, at, rng = buffer[None, :], count(), np.random.Generator(np.random.PCG64(1))
    seed = np.uint64(1)
    cases: dict[str, Callable[[], object]] = {
        "esopt": lambda: gaussian.fill(row, next(at), 0, 0, 3, seed),
        "numpy standard_normal(float32)": lambda: rng.standard_normal(dtype=np.float32, out=buffer),
    }
    theirs = _torch(report, buffer)
    if theirs is not None:
        cases["torch normal_"] = theirs
    samples = measure(cases, rounds=args.rounds or (3 if args.quick else 31))
    report.add(f"normals, {SIZE} in float32", samples)
    report.figure("float32 normals, one thread", SIZE / 1e9 / samples["esopt"].wall, "10⁹/s")
    for name, goal in (("numpy standard_normal(float32)", 12.0), ("torch normal_", 4.0)):
        if name in samples:
            report.figure(
                f"float32 normals, one thread, against {name}", samples[name] / samples["esopt"], "x", goal=goal
            )


def _on(threads: int, case: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        numba.set_num_threads(threads)
        case()

    return call


def threads(report: Report, args: argparse.Namespace) -> None:
    """A moment and a population in 10^6 dimensions, on one thread and on two."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        report.note("one core only: two threads skipped")
        return
    dim = 100_000 if args.quick else 1_000_000
    noise, rows = Gaussian().noise(Key(1), 128, dim), Antithetic().noise(Key(1), 16, dim)
    weights, mean, scale = np.linspace(-1.0, 1.0, 128), np.zeros(dim), np.ones(1)
    out = np.empty((16, dim), np.float32)
    tasks: dict[str, tuple[Callable[[], Any], int, float | None]] = {
        f"moment d={dim} n=128": (lambda: moment(noise, weights), 128 * dim, 1.7),
        f"moment with squares d={dim} n=128": (lambda: moment(noise, weights, squares=True), 128 * dim, None),
        f"population float32 d={dim} n=16": (lambda: rows.displace(mean, scale, 0, out), 16 * dim, None),
    }
    for name, (task, size, goal) in tasks.items():
        cases = {f"{k} thread{'s' * (k > 1)}": _on(k, task) for k in (1, 2)}
        # Idle threads spin for some milliseconds after a parallel call, and long samples leave that behind.
        samples = measure(cases, rounds=args.rounds or (3 if args.quick else 11), seconds=0.25)
        report.add(name, samples)
        # By CPU time two threads never gain anything, so only the clock on the wall counts.
        report.figure(
            f"{name}: 2 threads against 1", samples["1 thread"].wall / samples["2 threads"].wall, "x", goal=goal
        )
        report.figure(f"{name}, 1 thread", size / 1e9 / samples["1 thread"].wall, "10⁹/s")


def run(report: Report, args: argparse.Namespace) -> None:
    """Check, then run the rows whose name contains ``--only``."""
    check_normals()
    check_sums()
    for part in (normals, threads):
        if args.only in part.__name__:
            part(report, args)


if __name__ == "__main__":
    main("noise", run, __doc__)
