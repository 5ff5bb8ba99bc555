"""Small environments whose returns are known, and one loop over gymnasium as plain as can be."""

from __future__ import annotations

import os
import signal
import threading
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec


class Walk(gym.Env):
    """Counts right (+1) and left (-1); ends after 3 to 6 steps, said by the seed; reward position * step.

    The observation is (time, 7); half of the episodes are terminated and truncated at once, half only truncated.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, log: list | None = None):
        self.log = [] if log is None else log
        self.closed = False
        self.over = True
        self.thread = threading.get_ident()

    def reset(self, *, seed=None, options=None):
        self.log.append(seed)
        self.seed, self.length, self.position, self.time, self.over = seed, 3 + seed % 4, 0, 0, False
        return self.observe(), {}

    def observe(self):
        return np.array([self.time, 7.0], np.float32)

    def step(self, action):
        if threading.get_ident() != self.thread:
            raise RuntimeError("an environment was used by another thread")
        if self.over:
            raise RuntimeError("a step was taken after the end of an episode")
        self.time += 1
        self.position += 1 if action == 1 else -1
        self.over = self.time >= self.length
        return self.observe(), np.float32(self.position * self.time), self.over and self.length % 2 == 0, self.over, {}

    def close(self):
        self.closed = True


def pyramid(length: int) -> int:
    """The return of going right all the time: 1 + 4 + 9 + ..."""
    return sum(k * k for k in range(1, length + 1))


class Troubled(Walk):
    """A walk that fails in step 2 of episodes whose seed is 1 modulo ``every``: raises, returns nan, hangs, dies."""

    def __init__(self, trouble: str, every: int = 4):
        super().__init__()
        self.trouble, self.every = trouble, every

    def step(self, action):
        result = super().step(action)
        if self.time != 2 or self.seed % self.every != 1:
            return result
        if self.trouble == "raises":
            raise ZeroDivisionError("no physics today")
        if self.trouble == "hangs":
            time.sleep(3600.0)
        if self.trouble == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "nan":
            return result[0], np.nan, *result[2:]
        if self.trouble == "blind":
            return np.array([np.inf, 7.0], np.float32), *result[1:]
        return result


class Aim(gym.Env):
    """One step: the reward is minus the squared distance of the action from 0.7, plus noise from the seed."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def __init__(self, log: list, noise: float = 0.0, threshold: float | None = None):
        self.log, self.noise = log, noise
        self.spec = EnvSpec("Aim-v0", reward_threshold=threshold)

    def reset(self, *, seed=None, options=None):
        self.log.append(seed)
        self.shift = self.noise * ((seed * 2654435761) % 1000 / 999 - 0.5)
        return np.array([1.0]), {}

    def step(self, action):
        return np.array([1.0]), self.shift - float(action[0] - 0.7) ** 2, True, False, {}


def plain_episode(env, act, seed: int) -> tuple[float, int, list]:
    """Return, length and the observations that were acted on, of one episode."""
    observation, _ = env.reset(seed=seed)
    total, over, seen = 0.0, False, []
    while not over:
        seen.append(np.array(observation, np.float64).ravel())
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total, over = total + float(reward), terminated or truncated
    return total, len(seen), seen
