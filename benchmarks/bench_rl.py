"""Environment steps per second of training, end to end, against sb3-contrib and EvoTorch and between our own paths.

    python benchmarks/bench_rl.py [--quick] [--only CartPole] [--save]

A case is training with everything that belongs to it: candidates, episodes, normalisation, checks of the centre, the
update. Steps of checks count. Linear policies; ours and EvoTorch normalise observations, ARS of sb3-contrib does not.
The peers' best setting is what a ratio is formed with. Everything has two threads or two processes and is warmed up: no
case pays for compilation or for starting processes. "By CPU time" counts all processes of a side.

Last, one generation of an environment that nothing compiles is played by two worker processes and by a plain loop over
gymnasium: the same episodes, whose returns are compared with those of new environments first. Two such loops at once,
each with all the episodes, show what two processors give to that loop.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import Report, Sample, main
from _peers import installed
from _rl_peers import Train, evotorch_pgpe, plain_loop, rates, sb3_ars, tree_seconds, two_plain_loops

import esopt
from esopt.rl import Policy, Rollouts, make_env
from esopt.rl.environments import episode_seeds

THREADS = 2


class Ours:
    """ARS on one path, again from the start in every call, with engines that stay open."""

    def __init__(self, env: str, path: str, n: int, steps: int, sigma: float, workers: int = THREADS) -> None:
        made = make_env(env)
        self.policy = Policy.linear(made)
        made.close()
        self.rollouts = Rollouts(env, self.policy, check_episodes=10, path=path, workers=workers)
        self.kept = self.rollouts.kept()
        self.strategy = esopt.ars(n=n, sigma=sigma, lr=sigma)
        self.steps, self.seed = steps, 0

    def __call__(self) -> int:
        self.seed += 1
        found = esopt.minimize(
            None,
            self.policy.parameters,
            evaluator=self.kept,
            strategy=self.strategy,
            steps=self.steps,
            seed=self.seed,
            final_evaluations=0,
        )
        state = found.evaluator_state
        return int(state.steps + state.check_steps)


def add(report: Report, row: str, found: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Sample]:
    """Keep seconds per step, and steps per second for people; return the samples."""
    samples = {name: Sample(wall, cpu) for name, (wall, cpu) in found.items()}
    report.add(row, samples)
    for name, sample in samples.items():
        report.figure(f"{row}: {name}", Sample(1.0 / sample.wall, 1.0 / np.maximum(sample.cpu, 1e-12)), "steps/s")
    return samples


def against(report: Report, row: str, ours: Sample, peers: dict[str, Sample], goal: float | None) -> None:
    """Report the ratio to the fastest of the peers, if there is one."""
    if peers:
        name = min(peers, key=lambda peer: float(np.median(peers[peer].wall)))
        report.figure(f"{row}: {name} over ours, seconds per step", peers[name] / ours, "x", ">=", goal)


def cartpole(report: Report, args: argparse.Namespace, rounds: int) -> None:
    row, scale = "CartPole-v1", 20 if args.quick else 1
    compiled = Ours(row, "compiled", 256, 60_000_000 // scale, 1.0)
    small = Ours(row, "compiled", 16, 4_000_000 // scale, 1.0)
    workers = Ours(row, "workers", 256, 200_000 // scale, 1.0)
    cases: dict[str, Train] = {"esopt compiled, n = 256": compiled, "esopt compiled, n = 16": small}
    cases["esopt workers, n = 256"] = workers
    ends: list[Callable[[], None]] = [each.rollouts.close for each in (compiled, small, workers)]
    peers = sb3(report, row, 256, 20_000 // scale, cases, ends)
    found = add(report, row, rates(cases, rounds))
    ours = found["esopt compiled, n = 256"]
    against(report, row, ours, {name: found[name] for name in peers}, 2000.0)
    against(report, row, ours, {"esopt workers, n = 256": found["esopt workers, n = 256"]}, 200.0)
    for end in ends:
        end()


def half_cheetah(report: Report, args: argparse.Namespace, rounds: int) -> None:
    row, n = "HalfCheetah-v5", 16
    steps = 16_000
    ours = {path: Ours(row, path, n, 5 * steps, 0.1) for path in ("compiled", "workers")}
    cases: dict[str, Train] = {f"esopt {path}": each for path, each in ours.items()}
    ends: list[Callable[[], None]] = [each.rollouts.close for each in ours.values()]
    first = sb3(report, row, n, steps, cases, ends)
    second = []
    if installed("evotorch", "ray"):
        for workers in (1, THREADS):
            name = f"EvoTorch GymNE, {workers} process{'es' if workers > 1 else ''}"
            cases[name], end = evotorch_pgpe(row, n, workers, steps)
            second.append(name)
            ends.append(end)
    else:
        report.note("evotorch is not installed: skipped")
    found = add(report, row, rates(cases, rounds))
    best = found["esopt compiled"]
    against(report, row, best, {name: found[name] for name in first}, 7.0)
    against(report, row, best, {name: found[name] for name in second}, 5.0)
    against(report, row, best, {"esopt workers": found["esopt workers"]}, 1.5)
    for end in ends:
        end()


def sb3(
    report: Report, env: str, n: int, steps: int, cases: dict[str, Train], ends: list[Callable[[], None]]
) -> list[str]:
    """Add both ways of sb3-contrib's ARS to the cases, and return their names."""
    if not installed("torch", "sb3_contrib"):
        report.note("sb3-contrib is not installed: skipped")
        return []
    names = []
    for workers in (1, THREADS):
        name = f"sb3-contrib ARS, {workers} process{'es' if workers > 1 else ''}"
        cases[name], end = sb3_ars(env, n, workers, steps)
        names.append(name)
        ends.append(end)
    return names


def any_environment(report: Report, args: argparse.Namespace, rounds: int, env: str, n: int) -> None:
    """One generation: two worker processes, a plain loop, and two plain loops at once."""
    made = make_env(env)
    policy = Policy.linear(made)
    made.close()
    inputs, outputs = policy.sizes[0], policy.sizes[-1]
    thetas = np.random.default_rng(0).normal(scale=0.3, size=(n, policy.parameters.size))
    weights, biases = thetas[:, : inputs * outputs].reshape(n, outputs, inputs), thetas[:, inputs * outputs :]
    seeds = episode_seeds(list(range(n)), 1)
    rollouts = Rollouts(env, policy, path="workers", workers=THREADS)
    expected, _ = plain_loop(env, weights, biases, seeds[:, 0].tolist(), anew=True)
    np.testing.assert_allclose(rollouts.play(thetas, seeds).returns[:, 0], expected, rtol=1e-9)
    cases: dict[str, Train] = {
        "esopt, 2 workers": lambda: int(rollouts.play(thetas, seeds).lengths.sum()),
        "plain loop": lambda: plain_loop(env, weights, biases, seeds[:, 0].tolist())[1],
    }
    cases["two plain loops"], end = two_plain_loops(env, weights, biases, seeds[:, 0].tolist())
    found = add(report, env, rates(cases, rounds))
    for name, goal in (("esopt, 2 workers", 1.85), ("two plain loops", None)):
        what = f"{env}: plain loop over {name}, seconds per step"
        report.figure(what, found["plain loop"] / found[name], "x", ">=", goal)
    rollouts.close()
    end()


def run(report: Report, args: argparse.Namespace) -> None:
    rounds = args.rounds or (2 if args.quick else 5)
    report.options |= {"rounds": rounds, "threads": THREADS}
    if np.isnan(tree_seconds()):
        report.note("no /proc: CPU times are missing")
    rows: dict[str, Any] = {
        "CartPole-v1": cartpole,
        "HalfCheetah-v5": half_cheetah,
        "LunarLanderContinuous-v3": lambda *rest: any_environment(*rest, "LunarLanderContinuous-v3", 200),
        "BipedalWalker-v3": lambda *rest: any_environment(*rest, "BipedalWalker-v3", 40),
    }
    for name, row in rows.items():
        if args.only in name:
            row(report, args, rounds)


if __name__ == "__main__":
    import os

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of worker processes, before torch is imported there
    main("rl", run, __doc__)
