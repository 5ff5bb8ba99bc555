"""What a budget of environment steps pays for: episodes of candidates and of checks, and how they grow."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .checks import CHECK_SHARE
from .lengths import Lengthening

EPISODES = 300
"""Longest episodes that a budget pays for, for one episode per candidate; four times as many are for two."""


FEWEST, USUAL = 4, 10
"""Episodes of a check: from small budgets on, and where no budget of steps or no longest episode is known."""


class Plan(NamedTuple):
    """A budget of steps, None for none; episodes of a candidate and of a check; how they grow, None for not at all.

    ``names`` are those of the two that were left to the budget.
    """

    steps: int | None
    episodes: int
    check_episodes: int
    lengthening: Lengthening | None
    names: frozenset[str]


def plan(
    env: Any,
    budgets: tuple[int | None, int | None, int | None, float | None],
    episodes: int | None,
    check_episodes: int | None,
    episode_steps: int | None,
    share: float | None,
) -> Plan:
    """Return the plan for ``env``, an EnvSpec, a World or whatever else makes environments.

    Parameters
    ----------
    budgets : of steps, episodes, generations and seconds; without any, :func:`default_steps`.
    episodes : of a candidate; None for the square root of the budget, in units of 300 of the longest episodes.
    check_episodes : of a check; None for as many as there are checks, if half of what they may take pays for that.
    episode_steps : a cut of episodes, None for none.
    share : see :meth:`Lengthening.over`; None, or episodes of unknown length, for no growth.
    """
    steps = budgets[0]
    if all(budget is None for budget in budgets):
        steps = default_steps(env)
    longest = min((n for n in (longest_episode(env), episode_steps) if n is not None), default=None)
    counts = {"episodes": episodes, "check_episodes": check_episodes}
    names = frozenset(name for name, count in counts.items() if count is None)
    paid = None if steps is None or longest is None else steps / longest
    if episodes is None:
        episodes = 1 if paid is None else max(1, round(math.sqrt(paid / EPISODES)))
    if check_episodes is None:
        check_episodes = USUAL if paid is None else max(FEWEST, round(math.sqrt(paid / (2 * CHECK_SHARE))))
    if share is None or longest is None:
        return Plan(steps, episodes, check_episodes, None, names)
    growth = Lengthening.over(share, longest, default_steps(env) if steps is None else steps)
    return Plan(steps, episodes, check_episodes, growth, names)


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
