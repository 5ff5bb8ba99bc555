"""Training with other libraries, for bench_rl.py: each call trains some generations more and returns the steps it took.

The peers get the best that they offer on a processor: one thread of torch, environments without gymnasium's checks, no
logging, worker processes that stay from one call to the next.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

Train = Callable[[], int]


def make(env: str) -> Any:
    """Return the environment without gymnasium's checks of every step."""
    import gymnasium

    return gymnasium.make(env, disable_env_checker=True)


def sb3_ars(env: str, n: int, workers: int, steps: int) -> tuple[Train, Callable[[], None]]:
    """Return sb3-contrib's ARS with its linear policy, in this process or in ``workers`` of its own; and its end."""
    import torch
    from sb3_contrib import ARS
    from sb3_contrib.common.vec_env import AsyncEval
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    one = partial(make_vec_env, partial(make, env))
    model = ARS("LinearPolicy", one(), n_delta=n // 2, seed=0, device="cpu", verbose=0)
    pool = None
    close: Callable[[], None] = model.env.close
    if workers > 1:
        pool = AsyncEval([one] * workers, model.policy)
        close, pool.close = pool.close, lambda: None  # learn() would end the processes each time

    def train() -> int:
        before = model.num_timesteps
        model.learn(steps, reset_num_timesteps=before == 0, log_interval=None, async_eval=pool)
        return int(model.num_timesteps - before)

    return train, close


def evotorch_pgpe(env: str, n: int, workers: int, steps: int) -> tuple[Train, Callable[[], None]]:
    """Return EvoTorch's PGPE with ClipUp on GymNE, in this process or with ``workers`` actors; and its end."""
    import logging

    import torch

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    from evotorch.algorithms import PGPE
    from evotorch.neuroevolution import GymNE

    for name in ("evotorch", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    problem = GymNE(
        partial(make, env),
        "Linear(obs_length, act_length)",
        observation_normalization=True,
        num_actors=workers if workers > 1 else None,
    )
    search = PGPE(
        problem,
        popsize=n,
        center_learning_rate=0.0075,
        stdev_learning_rate=0.1,
        optimizer="clipup",
        optimizer_config={"max_speed": 0.015},
        radius_init=0.27,
    )

    def count() -> int:
        return int(search.status.get("total_interaction_count", 0)) if search.steps_count else 0

    def train() -> int:
        before = count()
        while count() - before < steps:
            search.step()
        return count() - before

    return train, problem.kill_actors if workers > 1 else lambda: None


def plain_loop(
    env: str, weights: np.ndarray, biases: np.ndarray, seeds: list[int], anew: bool = False
) -> tuple[np.ndarray, int]:
    """Play one episode with each of ``weights`` (m, outputs, inputs), as one would write it; returns (m,) and steps.

    ``anew`` makes the environment for each episode: what BipedalWalker does depends on the episodes before.
    """
    made = make(env)
    low, high = made.action_space.low, made.action_space.high
    returns, steps = np.zeros(len(weights)), 0
    for i, (w, b, seed) in enumerate(zip(weights, biases, seeds, strict=True)):
        made = make(env) if anew else made
        observation, _ = made.reset(seed=seed)
        over = False
        while not over:
            action = np.clip(w @ observation.astype(np.float64) + b, low, high).astype(np.float32)
            observation, reward, terminated, truncated, _ = made.step(action)
            returns[i] += reward
            steps += 1
            over = terminated or truncated
    made.close()
    return returns, steps


def two_plain_loops(
    env: str, weights: np.ndarray, biases: np.ndarray, seeds: list[int]
) -> tuple[Train, Callable[[], None]]:
    """Return two whole plain loops at once, in processes that never wait for each other; and their end."""
    pool = ProcessPoolExecutor(2, get_context("spawn"))

    def train() -> int:
        loops = [pool.submit(plain_loop, env, weights, biases, seeds) for _ in range(2)]
        return sum(loop.result()[1] for loop in loops)

    return train, pool.shutdown


def tree_seconds() -> float:
    """Return the CPU seconds of this process and of all below it, those that ended included; nan where unknown."""
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        parents, spent = {}, {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(path.parent.name)
            parents[pid], spent[pid] = int(fields[1]), sum(map(int, fields[11:15]))
        total, below = 0, [os.getpid()]
        while below:
            total += spent.get(below[-1], 0)
            above = below.pop()
            below += [pid for pid, parent in parents.items() if parent == above]
        return total / ticks
    except (OSError, ValueError):
        return float("nan")


def rates(cases: dict[str, Train], rounds: int, warmup: int = 1) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return wall-clock and CPU seconds per step of each case (rounds,), the cases in turn."""
    found = {name: (np.empty(rounds), np.empty(rounds)) for name in cases}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for r in range(-warmup, rounds):
            for name, case in cases.items():
                cpu_began, began = tree_seconds(), time.perf_counter()
                steps = case()
                seconds, cpu = time.perf_counter() - began, tree_seconds() - cpu_began
                if r >= 0:
                    found[name][0][r], found[name][1][r] = seconds / steps, cpu / steps
    return found
