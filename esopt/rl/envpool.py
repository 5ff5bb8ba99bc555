"""Episodes of environments that EnvPool has in C++, on threads; needs the package ``envpool``.

EnvPool (Weng et al. 2022, EnvPool: a highly parallel reinforcement learning environment execution engine) seeds an
environment when it is made. Every episode therefore gets an environment of its own, with its own seed: equal seeds and
parameters give equal bits, whatever is played beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

import numpy as np

from .engine import Array, Integers, Played
from .gym_engine import Episode, Fault, Rules, Table, _noise
from .observations import ArrayObservations
from .policy import Policy, Recipe

_TOGETHER = 64
"""Environments at work at a time: enough for the threads, and few that wait for the longest episode."""


@dataclass(frozen=True, eq=False)
class EnvPoolEngine:
    """Plays episodes of an environment of EnvPool; its steps run on threads, the policy in this one.

    Start states and physics have the law of gymnasium's environment and other numbers.

    Parameters
    ----------
    env : an id that EnvPool knows, "LunarLanderContinuous-v3" for example.
    policy, rules, on_error : as in :class:`esopt.rl.GymEngine`. Observations are arrays.
    threads : threads of EnvPool; None for one per core. They change no bit.

    Raises
    ------
    ModuleNotFoundError  without envpool.
    ValueError  for ids that EnvPool does not have, and policies that do not fit.
    """

    env: Any
    policy: Policy
    threads: int | None = None
    rules: Rules = field(default_factory=Rules)
    on_error: str = "raise"

    def __post_init__(self) -> None:
        if find_spec("envpool") is None:
            raise ModuleNotFoundError(
                'path="envpool" needs the package envpool. Install it with: pip install "pyesopt[envpool]"',
                name="envpool",
            )
        import envpool

        known = envpool.list_all_envs()
        if not isinstance(self.env, str) or self.env not in known:
            near = get_close_matches(str(self.env), known, 3, 0.5)
            advice = f"Did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"EnvPool has no environment {self.env!r}. {advice}Use another path, for example auto.")
        made = self._make([0])
        spaces = made.observation_space, made.action_space
        made.close()
        own = Recipe(squash=getattr(self.policy.actions, "squash", "clip")).for_spaces(*spaces)
        here, there = ((p.observations.inputs, type(p.actions), p.actions.outputs) for p in (self.policy, own))
        if not isinstance(self.policy.observations, ArrayObservations) or here != there:
            raise ValueError(
                f"the policy is for {self.policy.observations} and {self.policy.actions}, but EnvPool's {self.env} has "
                f"{own.observations} and {own.actions}. Use another path, for example auto."
            )

    @property
    def name(self) -> str:
        """How the episodes are played."""
        return "EnvPool, on threads"

    def play(self, thetas: Array, seeds: Integers, *, quiet: bool = False, longest: int | None = None) -> Played:
        """Play ``seeds`` (m, e) with the folded parameters ``thetas`` (m, dim), ``quiet`` without action noise.

        ``longest`` cuts the episodes of this call earlier still.
        """
        table = Table(seeds, self.policy.observations.inputs, self.on_error)
        noise = 0.0 if quiet else self.rules.action_noise
        cut = min((n for n in (longest, self.rules.max_steps) if n is not None), default=np.iinfo(np.int64).max)
        units = list(table.units())
        for first in range(0, len(units), _TOGETHER):
            together = units[first : first + _TOGETHER]
            for at, episode in enumerate(self._together(thetas, together, noise, int(cut))):
                table.put(first + at, episode)
        return table.played()

    def close(self) -> None:
        """Do nothing: environments live as long as their episode."""

    def _make(self, seeds: list[int]) -> Any:
        import envpool

        count, threads = len(seeds), 0 if self.threads is None else min(self.threads, len(seeds))
        return envpool.make(self.env, env_type="gymnasium", num_envs=count, num_threads=threads, seed=0, env_seed=seeds)

    def _together(self, thetas: Array, units: list[tuple[int, int]], deviation: float, cut: int) -> list[Episode]:
        """Play units (row, seed), each in an environment of its own, until the last one ends."""
        act, count, inputs = self.policy.actions.act, len(units), self.policy.observations.inputs
        actors = [self.policy.actor(thetas[row]) for row, _ in units]
        noises = [_noise(seed, self.policy.actions.outputs, deviation) if deviation else None for _, seed in units]
        total, steps, sums, squares = np.zeros(count), np.zeros(count, np.int64), *np.zeros((2, count, inputs))
        env = self._make([seed for _, seed in units])
        try:
            observations, info = env.reset()
            playing = np.asarray(info["env_id"])
            while playing.size:
                seen = observations.reshape(len(playing), inputs).astype(np.float64)
                sums[playing] += seen
                squares[playing] += np.square(seen)
                actions = []
                for unit, observation in zip(playing.tolist(), observations, strict=True):
                    wanted, noise = actors[unit].outputs(observation), noises[unit]
                    if noise is not None:
                        wanted = [u + z for u, z in zip(wanted, next(noise), strict=True)]
                    actions.append(act(wanted))
                observations, rewards, terminated, truncated, info = env.step(np.array(actions), playing)
                playing = np.asarray(info["env_id"])
                total[playing] += rewards
                steps[playing] += 1
                # One that ended gets no more steps: EnvPool would begin another episode with the next one.
                on = ~(terminated | truncated) & (steps[playing] < cut) & ~np.isnan(total[playing])
                playing, observations = playing[on], observations[on]
        finally:
            env.close()
        return [_episode(*of) for of in zip(total.tolist(), steps.tolist(), sums, squares, strict=True)]


def _episode(total: float, steps: int, sums: Array, squares: Array) -> Episode:
    if total == total and np.isfinite(sums).all():
        return Episode(total, steps, sums, squares)
    name = "a reward that is nan" if total != total else "an observation that is not finite"
    nothing = np.zeros(len(sums))
    return Episode(np.nan, steps, nothing, nothing, Fault("nan", f"returned {name} within {steps} steps"))
