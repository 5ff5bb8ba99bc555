"""Evaluation of a policy on episodes that nothing has seen, with an interval for its mean return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..noise import child
from .environments import FINAL, EnvSource, episode_seeds
from .policy import Policy
from .rollouts import Rollouts

Array = NDArray[np.float64]

_PIECE = 10
"""Episodes between two looks at Ctrl-C."""


def evaluate(
    policy: Policy,
    env: EnvSource,
    episodes: int = 100,
    seed: int = 0,
    *,
    workers: int | None = None,
    path: str = "auto",
) -> tuple[Array, int]:
    """Return the return of each of ``episodes`` held-out episodes, (episodes,), and the number of environment steps.

    Training never plays their seeds. Episodes end where the environment ends them; one that never does needs a
    ``gymnasium.wrappers.TimeLimit``. ``workers`` and ``path`` are as in :func:`train`.
    """
    check_counts(episodes=episodes)
    rollouts = Rollouts(env, policy, path=path, workers=workers)
    try:
        return final_returns(rollouts, policy, episodes, seed, keep=False)
    finally:
        rollouts.close()


def final_returns(rollouts: Rollouts, policy: Policy, episodes: int, seed: int, *, keep: bool) -> tuple[Array, int]:
    """Return the returns of held-out episodes and their steps; ``keep`` what there is of them when Ctrl-C comes."""
    seeds = episode_seeds([child(seed, 0)], episodes, FINAL).T
    returns: list[Array] = []
    total = 0
    try:
        for first in range(0, episodes, _PIECE):
            piece = seeds[first : first + _PIECE]
            played = rollouts.choice.engine.play(
                np.repeat(policy.folded[None, :], len(piece), axis=0), piece, quiet=True
            )
            returns.append(played.returns[:, 0])
            total += int(played.lengths.sum())
    except KeyboardInterrupt:
        if not keep:
            raise
    return np.concatenate([np.empty(0), *returns]), total


def t_interval(sample: Array) -> tuple[float, float]:
    """Return the 95 % t interval of the mean of ``sample`` (n,); (nan, nan) for a single number."""
    from scipy.special import stdtrit

    if sample.size < 2:
        return np.nan, np.nan
    mean = float(sample.mean())
    half = float(stdtrit(sample.size - 1, 0.975) * sample.std(ddof=1) / np.sqrt(sample.size))
    return mean - half, mean + half


def check_counts(**counts: int) -> None:
    """Raise ValueError unless every count is a positive whole number."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"{name} must be a positive whole number, got {count!r}. Pass for example {name}=10.")
