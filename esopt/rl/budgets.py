"""What a budget of environment steps pays for: how many episodes a candidate gets, and how they grow."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .lengths import Lengthening

EPISODES = 300
"""Longest episodes that a budget pays for, for one episode per candidate; four times as many are for two."""


class Plan(NamedTuple):
    """A budget of steps, None for none; the episodes of a candidate; how they grow, None for not at all."""

    steps: int | None
    episodes: int
    lengthening: Lengthening | None


def plan(
    env: Any,
    budgets: tuple[int | None, int | None, int | None, float | None],
    episodes: int | None,
    episode_steps: int | None,
    share: float | None,
) -> Plan:
    """Return the plan for ``env``, an EnvSpec, a World or whatever else makes environments.

    Parameters
    ----------
    budgets : of steps, episodes, generations and seconds; without any, :func:`default_steps`.
    episodes : of a candidate; None for the square root of the budget, in units of 300 of the longest episodes.
    episode_steps : a cut of episodes, None for none.
    share : see :meth:`Lengthening.over`; None, or episodes of unknown length, for no growth.
    """
    steps = budgets[0]
    if all(budget is None for budget in budgets):
        steps = default_steps(env)
    longest = min((n for n in (longest_episode(env), episode_steps) if n is not None), default=None)
    if episodes is None:
        known = steps is not None and longest is not None
        episodes = max(1, round(math.sqrt(steps / (EPISODES * longest)))) if known else 1  # type: ignore[operator]
    if share is None or longest is None:
        return Plan(steps, episodes, None)
    return Plan(steps, episodes, Lengthening.over(share, longest, default_steps(env) if steps is None else steps))


def default_steps(env: Any) -> int:
    """Return the steps of 1000 episodes of the longest length, 1,000,000 where there is no limit."""
    return 1000 * (longest_episode(env) or 1000)


def longest_episode(env: Any) -> int | None:
    """Return the steps after which ``env``, an id, an EnvSpec or a World, ends any episode; None if unknown."""
    if isinstance(env, str):
        import gymnasium

        env = gymnasium.registry.get(env)
    longest = getattr(env, "max_episode_steps", None) or getattr(env, "max_steps", None)
    return int(longest) if longest else None
