"""What train() begins with: the policy, the strategy for it, and the plan of its budget."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeGuard

from ..protocols import Strategy
from ..strategies._layers import name_layers
from ..strategies.by_dimension import ByDimension
from ..strategies.named import ars
from .budgets import Budgets, Counts, Plan, plan
from .engine import World
from .environments import EnvSource, env_name, env_spaces
from .policy import Policy, Recipe
from .searches import Searches


def outline(
    env: EnvSource,
    *,
    policy: Policy | Recipe | None = None,
    strategy: Strategy | None = None,
    budgets: Budgets,
    counts: Counts,
    lengthening: float | None,
    searches: int | None,
) -> Plan:
    """Return what :func:`train` does with its ``budgets``; ``counts`` as in :func:`planned_for`."""
    start, spec = beginning(env, policy)
    own = chosen(strategy, start.parameters.size, None)
    return planned_for(env if spec is None else spec, own, budgets, counts, lengthening, searches)


def planned_for(
    env: Any, strategy: Strategy, budgets: Budgets, counts: Counts, lengthening: float | None, searches: int | None
) -> Plan:
    """Return the plan for ``counts``: episodes of a candidate, of a check, and the most steps of an episode."""
    each, check_episodes, episode_steps = counts
    free, grows = each is None, getattr(strategy, "grows", False)
    if free and (grows or budgets[1] not in (None, math.inf)):
        each = 1
    kinds = 2 if _bare(strategy) and strategy.other is not None else 1
    found = plan(env, budgets, each, check_episodes, episode_steps, lengthening, searches, kinds)
    return found._replace(names=found.names | {"episodes"}) if free and not grows else found


def _bare(strategy: Strategy) -> TypeGuard[Searches]:
    """Return whether the strategy says what searches there are, and not which share each has."""
    return isinstance(strategy, Searches) and strategy._steps is None


def shared(strategy: Strategy, planned: Plan) -> Searches:
    """Return the searches of a plan, each with its share; a strategy that has shares of its own keeps them."""
    kinds = strategy if _bare(strategy) else Searches(strategy)
    return replace(kinds, _steps=planned.search, _count=planned.searches)


def chosen(strategy: Strategy | None, dim: int, steps_per_generation: int | None) -> Strategy:
    """Return the strategy, or the default; ValueError if populations are to grow and it does not take that."""
    own = ars(n=16, sigma=1.0, lr=1.0) if strategy is None else strategy
    if isinstance(own, ByDimension):
        own = own.chosen(dim)
    if steps_per_generation is not None and not getattr(own, "grows", False):
        raise ValueError(
            f"steps_per_generation={steps_per_generation} needs a strategy that learns from larger populations than it "
            f"asked for, and {name_layers(own)} is none. Leave it out, or pass esopt.openai_es(), ars() or "
            "pgpe(), on the command line as --strategy."
        )
    return own


def beginning(env: EnvSource, policy: Policy | Recipe | None) -> tuple[Policy, Any]:
    """Return the policy to start from, and the environment's spec, if it has one.

    Raises
    ------
    ValueError  for a policy of other spaces than the environment's.
    """
    if isinstance(policy, Policy) and isinstance(env, World) and env.spaces is None:
        return policy, None
    observations, actions, spec = env_spaces(env)
    if policy is None or isinstance(policy, Recipe):
        return (policy or Recipe()).for_spaces(observations, actions), spec
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a Policy, got {type(policy).__name__}. Pass for example Policy.mlp(64, 64).")
    own = Recipe(squash=getattr(policy.actions, "squash", "clip")).for_spaces(observations, actions)
    if (own.observations, own.sizes[-1], type(own.actions)) != (
        policy.observations,
        policy.sizes[-1],
        type(policy.actions),
    ):
        raise ValueError(
            f"the policy is for {policy.observations} and {policy.actions}, but {env_name(env)} has "
            f"{own.observations} and {own.actions}. Pass a policy that was made for this environment."
        )
    return policy, spec
