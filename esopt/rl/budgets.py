"""What a budget of environment steps pays for: searches, episodes of candidates and of checks, and how they grow."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._told import check_limit
from ..evaluators._rows import check_count
from .checks import CHECK_SHARE
from .environments import registered
from .lengths import Lengthening

EPISODES = 300
"""Longest episodes that a budget pays for, for one episode per candidate; four times as many are for two."""

SEARCH = 50 * EPISODES
"""Longest episodes after which another search from the start does more than a longer one: 15 million steps of gaits."""

OTHER = 2000
"""Longest episodes after which a search of another kind does more than a longer one: two budgets as they are usual."""

FEWEST, USUAL = 4, 10
"""Episodes of a check: from small budgets on, and where no budget of steps or no longest episode is known."""


Budgets = tuple[int | None, int | None, int | None, float | None]
"""Of environment steps, episodes, generations and seconds."""
Counts = tuple[int | None, int | None, int | None]
"""Episodes of a candidate, episodes of a check, and the most steps of an episode."""


class Plan(NamedTuple):
    """A budget of steps, how many searches share it and what each has; episodes of a candidate, of a check; growth.

    None for no budget, for one search, for no growth. ``names`` are those of the two numbers of episodes that were left
    to the budget.
    """

    steps: int | None
    searches: int
    search: int | None
    episodes: int
    check_episodes: int
    lengthening: Lengthening | None
    names: frozenset[str]


def plan(
    env: Any,
    budgets: Budgets,
    episodes: int | None,
    check_episodes: int | None,
    episode_steps: int | None,
    share: float | None,
    searches: int | None,
    kinds: int = 1,
) -> Plan:
    """Return the plan for ``env``, an EnvSpec, a World or whatever else makes environments.

    Parameters
    ----------
    budgets : of steps, episodes, generations and seconds; without any, :func:`default_steps`.
    episodes : of a candidate; None for the square root of what a search has, in units of 300 of the longest episodes.
    check_episodes : of a check; None for as many as there are checks where half of what they may take pays for them; 10
        where that is unknown.
    episode_steps : a cut of episodes, None for none.
    share : see :meth:`Lengthening.over`; None, or episodes of unknown length, for no growth.
    searches : that share the budget; None for one per 15,000 of the longest episodes, at least one, and one of each
        kind from 2,000 on.
    kinds : of searches, one or two.

    Raises
    ------
    ValueError  for counts that are not positive whole numbers, for several searches without a budget of steps, and for
    so many that none has a whole episode.
    """
    steps = budgets[0]
    for name, budget in zip(("steps", "episodes"), budgets, strict=False):
        check_limit(name, budget)
    check_count("searches", searches)
    if all(budget is None for budget in budgets):
        steps = default_steps(env)
    steps = None if steps is None or steps == math.inf else int(steps)
    longest = min((n for n in (longest_episode(env), episode_steps) if n is not None), default=None)
    counts = {"episodes": episodes, "check_episodes": check_episodes}
    names = frozenset(name for name, count in counts.items() if count is None)
    if searches is None:
        paid = 0 if steps is None or longest is None else steps // longest
        searches = max(kinds if paid >= OTHER else 1, paid // SEARCH)
    search = _share(steps, longest, searches)
    own = steps if search is None else search
    if episodes is None:
        episodes = max(1, round(math.sqrt(own / (EPISODES * longest)))) if own and longest else 1
    if check_episodes is None:
        checks = steps / (2 * CHECK_SHARE * longest) if steps and longest else None
        check_episodes = USUAL if checks is None else max(FEWEST, round(math.sqrt(checks)))
    growth = None
    if share is not None and longest is not None:
        growth = Lengthening.over(share, longest, default_steps(env) if own is None else own, again=search is not None)
    return Plan(steps, searches, search, episodes, check_episodes, growth, names)


def _share(steps: int | None, longest: int | None, searches: int) -> int | None:
    """Return the steps of one of several searches, rounded up; None for one that has them all."""
    if searches == 1:
        return None
    if steps is None:
        raise ValueError(f"searches={searches} share a budget of steps, and there is none. Pass steps=.")
    share = -(-steps // searches)
    if share < (longest or 1):
        raise ValueError(
            f"searches={searches} leave {share} of {steps} steps to each, less than an episode of {longest}. "
            "Pass fewer, or more steps."
        )
    return share


def default_steps(env: Any) -> int:
    """Return the steps of 1000 episodes of the longest length, 1,000,000 where there is no limit."""
    return 1000 * (longest_episode(env) or 1000)


def longest_episode(env: Any) -> int | None:
    """Return the steps after which ``env``, an id, an EnvSpec or a World, ends any episode; None if unknown."""
    if isinstance(env, str):
        env = registered(env)
    longest = getattr(env, "max_episode_steps", None) or getattr(env, "max_steps", None)
    return int(longest) if longest else None
