"""Seconds of one generation, ask + tell, against peers: everything on one core and one thread.

    python benchmarks/bench_generation.py [--quick] [--only 1e6] [--save]

The values that are told fall from generation to generation, so that every tell finds a new best point: the slow path.
"fused" is a peer's generation with given values in one compiled call, which no user with an objective in Python can
have. The row d = 1e6 needs about 5 GB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from _bench import Report, Sample, main, measure
from _peers import Peer, check, cmaes, evosax, evotorch, installed, pycma


def falling(n: int, seed: int = 0) -> Callable[[], np.ndarray]:
    """Return a source of values (n,) that are lower every time (until it starts again after 4096 generations)."""
    generations = 4096
    table = np.random.default_rng(seed).normal(size=(generations, n)) - 10.0 * np.arange(generations)[:, None]

    def cycle() -> Iterator[np.ndarray]:
        while True:
            yield from table

    return cycle().__next__


def ours(name: str, dim: int, n: int) -> Any:
    """Return an Optimizer with the named strategy."""
    import esopt

    return esopt.Optimizer(getattr(esopt, name)(n=n), np.ones(dim), seed=1)


def check_ours() -> None:
    """Compare one update with plain numpy, from the rows that ask returned, for openai_es and pgpe."""
    dim, n = 300, 32
    for name in ("openai_es", "pgpe"):
        es = ours(name, dim, n)
        rows = es.ask()
        values = np.random.default_rng(3).normal(size=n)
        weights = np.argsort(np.argsort(values)) / (n - 1.0) - 0.5
        sigma = 0.02 if name == "openai_es" else 2.25 / dim**0.5
        eps = (rows - 1.0) / sigma
        gradient = weights @ eps / (n * sigma)
        es.tell(values)
        if name == "openai_es":
            gradient += 0.005 / 0.02
            step = -0.01 * gradient / (np.abs(gradient) + 1e-8)
        else:
            # The first step of ClipUp is the normalised gradient; log sigma moves by at most 20 %. Ranks sum to zero,
            # so the mean without a pair's own ranks is -(their sum) / (n - 2).
            step = -0.075 * gradient / np.linalg.norm(gradient)
            left_out = weights + np.repeat(weights.reshape(-1, 2).sum(axis=1), 2) / (n - 2.0)
            scale_step = np.clip(-0.1 * (left_out @ (eps * eps - 1.0)) / n, -0.2, 0.2)
            np.testing.assert_allclose(es.state.scale, sigma * (1.0 + scale_step), rtol=1e-5)
        np.testing.assert_allclose(es.mean, 1.0 + step, rtol=1e-5)


Source = tuple[tuple[str, ...], Callable[[int, int], Peer]]


def peers_for(report: Report, wanted: list[Source], dim: int, n: int) -> list[Peer]:
    """Return the peers that are installed, each checked on a small sphere first."""
    found = []
    for packages, build in wanted:
        if not installed(*packages):
            report.note(f"{packages[-1]} is not installed: skipped")
            continue
        check(build(8, 32))
        found.append(build(dim, n))
    return found


EVOSAX_ES = (("jax", "evosax"), partial(evosax, "Open_ES"))
EVOSAX_PGPE = (("jax", "evosax"), partial(evosax, "PGPE"))
EVOTORCH = (("torch", "evotorch"), evotorch)
CMAES = (("cmaes",), cmaes)
PYCMA = (("cma",), pycma)


def fastest(samples: dict[str, Sample]) -> str:
    """Return the name of the case with the smallest median CPU time."""
    return min(samples, key=lambda name: float(np.median(samples[name].cpu)))


def large(report: Report, args: argparse.Namespace) -> None:
    """One million parameters, where memory decides; ask and tell apart."""
    dim, n = (100_000, 64) if args.quick else (1_000_000, 256)
    row = f"openai_es d={dim:.0e} n={n}".replace("e+0", "e")
    values = falling(n)
    es, buffer = ours("openai_es", dim, n), np.empty((n, dim), np.float32)
    cases: dict[str, Callable[[], object]] = {
        "esopt ask(out=float32)": lambda: es.ask(out=buffer),
        "esopt tell": lambda: es.tell(values()),
    }
    (peer,) = peers_for(report, [EVOSAX_ES], dim, n) or (None,)
    if peer is not None:
        cases[f"{peer.name} ask"] = peer.ask
        cases[f"{peer.name} tell"] = lambda: peer.tell(values())
        cases[f"{peer.name} fused"] = lambda: peer.fused(values())
    samples = measure(cases, rounds=args.rounds or (3 if args.quick else 7), warmup=2, seconds=0.0, settle=True)
    report.add(row, samples)
    if peer is None:
        return
    generation = samples["esopt ask(out=float32)"] + samples["esopt tell"]
    theirs = {
        f"{peer.name} ask + tell": samples[f"{peer.name} ask"] + samples[f"{peer.name} tell"],
        f"{peer.name} fused": samples[f"{peer.name} fused"],
    }
    for name, sample in theirs.items():
        goals = (12.0, 25.0) if name.endswith("ask + tell") else (None, None)
        report.figure(f"{row}: ask(out=) + tell, against {name}", sample / generation, "x", goal=goals[0])
        report.figure(f"{row}: tell alone, against {name}", sample / samples["esopt tell"], "x", goal=goals[1])
    report.figure(f"{row}: tell, against {peer.name} tell", samples[f"{peer.name} tell"] / samples["esopt tell"], "x")


def medium(report: Report, args: argparse.Namespace) -> None:
    """Ten thousand parameters."""
    dim, n = 10_000, 256
    row = f"d={dim:.0e} n={n}".replace("e+0", "e")
    values = falling(n)
    mine: dict[str, Callable[[], object]] = {}
    buffer = np.empty((n, dim), np.float32)
    for name in ("openai_es", "pgpe"):
        es = ours(name, dim, n)
        mine[f"esopt {name}, ask(out=float32)"] = lambda es=es: (es.ask(out=buffer), es.tell(values()))
        es = ours(name, dim, n)
        mine[f"esopt {name}, ask()"] = lambda es=es: (es.ask(), es.tell(values()))
    theirs: dict[str, Callable[[], object]] = {}
    for peer in peers_for(report, [EVOSAX_ES, EVOSAX_PGPE, EVOTORCH], dim, n):
        theirs[peer.name] = lambda peer=peer: (peer.ask(), peer.tell(values()))
        if peer.fused is not None:
            theirs[f"{peer.name} fused"] = lambda peer=peer: peer.fused(values())
    samples = measure({**mine, **theirs}, rounds=args.rounds or (5 if args.quick else 31), seconds=0.05, settle=True)
    report.add(row, samples)
    separate = {name: samples[name] for name in theirs if "fused" not in name}
    if not separate:
        return
    best = fastest(separate)
    report.note(f"{row}: the fastest peer is {best}")
    for name in ("openai_es", "pgpe"):
        alike = [peer for peer in theirs if ("Open_ES" in peer) == (name == "openai_es")]
        for how in ("ask(out=float32)", "ask()"):
            own = samples[f"esopt {name}, {how}"]
            what = f"{row}: {name}, {how} + tell, against"
            report.figure(f"{what} the fastest peer", separate[best] / own, "x", goal=4.0)
            for peer_name in alike:
                if peer_name in separate:
                    report.figure(f"{what} {peer_name}", samples[peer_name] / own, "x", goal=4.0)
                elif how != "ask()":
                    report.figure(f"{what} {peer_name}", samples[peer_name] / own, "x")


def small(report: Report, args: argparse.Namespace) -> None:
    """Ten parameters, where the calls themselves cost."""
    dim, n = 10, 16
    row = f"d={dim} n={n}"
    values = falling(n)
    cases: dict[str, Callable[[], object]] = {}
    for name in ("openai_es", "pgpe", "snes"):
        es = ours(name, dim, n)
        cases[f"esopt {name}"] = lambda es=es: (es.ask(), es.tell(values()))
    for peer in peers_for(report, [EVOSAX_ES, EVOTORCH, CMAES, PYCMA], dim, n):
        if peer.name.endswith("CMA"):
            # CMA-ES converges, and then has other things to do: values of a sphere around a far point keep it going.
            cases[peer.name] = lambda peer=peer: peer.tell(np.square(np.asarray(peer.ask()) - 1e6).sum(axis=1))
        else:
            cases[peer.name] = lambda peer=peer: (peer.ask(), peer.tell(values()))
        if peer.fused is not None:
            cases[f"{peer.name} fused"] = lambda peer=peer: peer.fused(values())
    samples = measure(cases, rounds=args.rounds or (5 if args.quick else 31))
    report.add(row, samples)
    own = samples["esopt openai_es"]
    report.figure(f"{row}: openai_es, ask + tell through Optimizer", own, "s", "<=", 60e-6)
    for name, sample in samples.items():
        if not name.startswith("esopt"):
            report.figure(f"{row}: openai_es, against {name}", sample / own, "x")


def run(report: Report, args: argparse.Namespace) -> None:
    check_ours()
    for name, part in (("small d=10", small), ("medium d=1e4", medium), ("large d=1e6", large)):
        if args.only in name:
            part(report, args)


if __name__ == "__main__":
    main("generation", run, __doc__, limit=True)
