"""Episodes of a gymnasium environment as an objective: parameters and a seed in, a value and environment steps out.

Episode seeds are whole numbers below 2**31, in three parts that never meet: :data:`TRAIN`, :data:`CHECK` and
:data:`FINAL`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..noise import child
from ..objective import Outcome
from .policy import Policy

Array = NDArray[np.float64]
EnvSource = str | Callable[[], Any]
"""A gymnasium id, or a function without arguments that returns an environment."""

TRAIN = range(0, 2**30)
"""Episode seeds of candidates."""
CHECK = range(2**30, 3 * 2**29)
"""Episode seeds for looking at the centre while it is trained."""
FINAL = range(3 * 2**29, 2**31)
"""Episode seeds for evaluating a policy; no training run has seen them."""


def episode_seeds(seed: int, episodes: int, part: range = TRAIN) -> list[int]:
    """Return the seeds of ``episodes`` consecutive episodes in ``part``, starting where ``seed`` points."""
    return [part[(seed + k) % len(part)] for k in range(episodes)]


def make_env(env: EnvSource) -> Any:
    """Return a new environment, with its own time limit and without gymnasium's checks of every step."""
    if not isinstance(env, str):
        return env()
    import gymnasium

    return gymnasium.make(env, disable_env_checker=True)


def play(env: Any, act: Callable[[Any], Any], seed: int, max_steps: int | None = None) -> tuple[float, int]:
    """Play one episode from ``env.reset(seed=seed)``; return the sum of rewards and the number of steps."""
    observation, _ = env.reset(seed=seed)
    step, total, steps = env.step, 0.0, 0
    while True:
        observation, reward, terminated, truncated, _ = step(act(observation))
        total += float(reward)
        steps += 1
        if terminated or truncated or steps == max_steps:
            return total, steps


@dataclass(frozen=True, eq=False)
class Episodes:
    """The objective ``f(theta, seed)``: minus the mean return of a policy over a few episodes.

    Picklable; a process or thread makes its own environment when it first needs one, and keeps it until :meth:`close`.

    Parameters
    ----------
    env : a gymnasium id, or a function that makes an environment.
    policy : whose parameters theta replaces.
    episodes : episodes per evaluation.
    max_steps : cut of an episode, besides the environment's own; None for none.
    part : where the episode seeds come from.
    """

    env: EnvSource
    policy: Policy
    episodes: int = 1
    max_steps: int | None = None
    part: range = TRAIN
    _open: dict[int, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1 or None, got {self.max_steps}.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __call__(self, theta: Array, seed: int) -> Outcome:
        """Return the value and the environment steps of parameters ``theta`` (dim,) on the episodes of ``seed``."""
        returns, steps = self.returns(theta, seed)
        return Outcome(-float(returns.mean()), steps)  # the one line where a return becomes a value

    def returns(self, theta: Array, seed: int) -> tuple[Array, int]:
        """Return the return of each episode, (episodes,), and the number of environment steps."""
        played = list(self.played(theta, seed))
        return np.array([total for total, _ in played]), sum(steps for _, steps in played)

    def played(self, theta: Array, seed: int) -> Iterator[tuple[float, int]]:
        """Play the episodes one by one; yield the return and the number of steps of each."""
        env, act = self._environment(), self.policy.with_parameters(theta)
        for at in episode_seeds(seed, self.episodes, self.part):
            yield play(env, act, at, self.max_steps)

    def close(self) -> None:
        """Close the environments that this process made."""
        while self._open:
            self._open.popitem()[1].close()

    def _environment(self) -> Any:
        thread = threading.get_ident()
        if thread not in self._open:
            self._open[thread] = make_env(self.env)
        return self._open[thread]


def evaluate(policy: Policy, env: EnvSource, episodes: int = 100, seed: int = 0) -> tuple[Array, int]:
    """Return the return of each of ``episodes`` held-out episodes, (episodes,), and the number of environment steps."""
    objective = Episodes(env, policy, episodes, part=FINAL)
    try:
        return objective.returns(policy.parameters, child(seed, 0))
    finally:
        objective.close()


def normalise(policy: Policy, env: EnvSource, episodes: int = 16, seed: int = 0) -> tuple[Policy, int]:
    """Return the policy with the mean and standard deviation of what random actions observe, and the number of steps.

    An observation that does not vary is only centred. The actions are those of the environment's own action space.
    """
    world = make_env(env)
    seen: list[Array] = []

    def act(observation: Any) -> Any:
        seen.append(policy.observations.flat(observation).copy())
        return world.action_space.sample()

    try:
        starts = episode_seeds(child(seed, 1), episodes)
        world.action_space.seed(starts[0])
        steps = sum(play(world, act, start)[1] for start in starts)
    finally:
        world.close()
    rows = np.array(seen)
    std = rows.std(axis=0)
    return replace(policy, mean=rows.mean(axis=0), std=np.where(std > 1e-6, std, 1.0)), steps
