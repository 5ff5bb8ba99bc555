"""Environment steps per second: whole compiled episodes against gymnasium's plain loop.

    python benchmarks/bench_rollouts.py [--quick] [--only Hopper] [--save]

Both sides play the same linear policy (weights 0.1 N(0, 1); a numpy product in the plain loop), whole episodes from
their own seeds, and each side's steps are counted. Worlds compare themselves with gymnasium's environment before they
are given out. ``mujoco.batch`` (new in MuJoCo 4) steps many HalfCheetahs in lock step, on its own threads, with the
same policy. "CPU" is per second of processor time, that of all threads together: two threads then give the same figure
as one, if they do not disturb each other.

A row is one environment; further families add their rows to ``FAMILIES``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from _bench import Report, Sample, main, measure

MUJOCO = (
    "HalfCheetah-v5",
    "Hopper-v5",
    "Walker2d-v5",
    "Swimmer-v5",
    "Ant-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "Reacher-v5",
    "Pusher-v5",
)
LOCK_STEPS, SIMULATIONS = 40, 64


def mujoco_worlds() -> Iterator[tuple[str, Any]]:
    from esopt.rl.mujoco import mujoco_world

    for name in MUJOCO:
        yield name, partial(mujoco_world, name)


FAMILIES: tuple[Callable[[], Iterator[tuple[str, Any]]], ...] = (mujoco_worlds,)


def engines(world: Any, policy: Any, theta: Any, steps: int) -> dict[str, Callable[[], int]]:
    """Play the same episodes on one thread and on two, as many as it takes for so many steps."""
    from esopt.rl.engine import CompiledEngine

    def play(engine: Any, episodes: int) -> int:
        return int(engine.play(theta[None], np.arange(episodes)[None]).lengths.sum())

    cases, episodes = {}, 2
    for threads in (1, 2):
        engine = CompiledEngine(world, policy, threads=threads)
        while play(engine, episodes) < steps:
            episodes *= 2
        cases[f"compiled, {threads} thread{'s' * (threads > 1)}"] = partial(play, engine, episodes)
    return cases


def gymnasium_loop(env: Any, act: Callable[[Any], Any], steps: int) -> int:
    taken = seed = 0
    while taken < steps:
        observation, _ = env.reset(seed=seed)
        seed += 1
        over = False
        while not over:
            observation, _, terminated, truncated, _ = env.step(act(observation))
            over = terminated or truncated
            taken += 1
    return taken


def actor(space: Any, weights: Any) -> Callable[[Any], Any]:
    if hasattr(space, "n"):
        return lambda observation: int(np.argmax(weights @ observation)) + int(space.start)
    low, high = space.low, space.high
    return lambda observation: np.clip(weights @ observation, low, high).astype(np.float32)


def batch_loop(batch: Any, weights: Any) -> int:
    """One piece of an episode of HalfCheetah in lock step, rewards and observations included."""
    positions, velocities, controls = batch.bind("qpos"), batch.bind("qvel"), batch.bind("ctrl")
    batch.reset()
    returns = np.zeros(SIMULATIONS)
    for _ in range(LOCK_STEPS):
        action = (np.concatenate((positions[:, 1:], velocities), axis=1) @ weights.T).astype(np.float32)
        before = positions[:, 0].copy()
        controls[:] = action
        batch.step(nstep=5)
        returns += (positions[:, 0] - before) / 0.05 - 0.1 * np.square(action).sum(axis=1)
    return SIMULATIONS * LOCK_STEPS


def per_step(cases: dict[str, Callable[[], int]], rounds: int) -> dict[str, Sample]:
    """Time the cases, and divide by the steps that they say they took."""
    steps = {name: case() for name, case in cases.items()}
    samples = measure(cases, rounds=rounds, warmup=1)
    return {name: Sample(sample.wall / steps[name], sample.cpu / steps[name]) for name, sample in samples.items()}


def rates(report: Report, name: str, samples: dict[str, Sample]) -> None:
    """Report the rate of the fastest case, and all ratios; the other rates are in the timings."""
    plain = samples["gymnasium"]
    fastest = samples["compiled, 2 threads"]
    report.figure(f"{name}: compiled, 2 threads", Sample(1.0 / fastest.wall, 1.0 / fastest.cpu), "steps/s")
    for case, sample in samples.items():
        if case != "gymnasium":
            report.figure(f"{name}: {case}, against gymnasium's plain loop", plain / sample, "x")


def run(report: Report, args: argparse.Namespace) -> None:
    os.chdir(tempfile.mkdtemp())  # MuJoCo writes MUJOCO_LOG.TXT where it runs
    import gymnasium

    from esopt.rl.policy import Policy

    rounds = args.rounds or (2 if args.quick else 7)
    steps = 200 if args.quick else 2000
    for family in FAMILIES:
        for name, find in family():
            if args.only not in name:
                continue
            world, reason = find()
            if world is None:
                report.note(f"{name}: {reason}")
                continue
            env = gymnasium.make(name)
            policy = Policy.linear().for_spaces(env.observation_space, env.action_space)
            inputs, outputs = policy.sizes
            weights = 0.1 * np.random.default_rng(0).standard_normal((outputs, inputs))
            theta = np.concatenate((weights.ravel(), np.zeros(outputs)))
            plain = partial(gymnasium_loop, env, actor(env.action_space, weights), steps)
            cases = {"gymnasium": plain, **engines(world, policy, theta, steps)}
            if name == "HalfCheetah-v5":
                cases |= batches(env.unwrapped.model, weights, report)
            samples = per_step(cases, rounds)
            report.add(name, samples)
            rates(report, name, samples)
            env.close()


def batches(model: Any, weights: Any, report: Report) -> dict[str, Callable[[], int]]:
    try:
        from mujoco.batch import Batch
    except ImportError:
        report.note("mujoco.batch: not in this version of MuJoCo")
        return {}
    check_batch(Batch, model, weights)
    cases = {}
    for threads in (1, 2):
        batch = Batch(model, SIMULATIONS, threads)
        cases[f"mujoco.batch, {threads} thread{'s' * (threads > 1)}"] = partial(batch_loop, batch, weights)
    return cases


def check_batch(kind: Any, model: Any, weights: Any) -> None:
    """Without control the lock step must end where plain calls of mj_step end."""
    import mujoco

    batch, data = kind(model, SIMULATIONS, 2), mujoco.MjData(model)
    batch_loop(batch, 0.0 * weights)
    mujoco.mj_step(model, data, nstep=5 * LOCK_STEPS)
    np.testing.assert_array_equal(batch.bind("qpos"), np.tile(data.qpos, (SIMULATIONS, 1)))


if __name__ == "__main__":
    main("rollouts", run, __doc__)
